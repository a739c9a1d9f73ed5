// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.37;

import {IValueFactory} from "./Conditional.sol";

/// Remembers for an order when it was created.
contract CurrentBlockTimestampFactory is IValueFactory {
    function getValue(bytes calldata) external view returns (bytes32) {
        return bytes32(block.timestamp);
    }
}
