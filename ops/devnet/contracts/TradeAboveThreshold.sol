// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.37;

import {Order} from "./Order.sol";
import "./Conditional.sol";

/// Sells all that the owner has of a token, whenever that is enough.
contract TradeAboveThreshold is Handler {
    struct Data {
        address sellToken;
        address buyToken;
        address receiver;
        uint32 validityBucketSeconds;
        uint256 threshold;
        bytes32 appData;
    }

    function getTradeableOrder(address owner, address, bytes32, bytes calldata staticInput, bytes calldata)
        public
        view
        override
        returns (Order.Data memory order)
    {
        Data memory data = abi.decode(staticInput, (Data));
        uint256 balance = IERC20(data.sellToken).balanceOf(owner);
        if (balance < data.threshold) revert PollTryNextBlock("balance insufficient");
        order = Order.sell(data.sellToken, data.buyToken, data.receiver, balance, 1);
        uint256 bucket = data.validityBucketSeconds;
        order.validTo = uint32(block.timestamp / bucket * bucket + bucket);
        order.appData = data.appData;
    }
}
