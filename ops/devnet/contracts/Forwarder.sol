// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.37;

import {Order} from "./Order.sol";
import {Batch, IComposableCoW} from "./Batch.sol";
import "./Conditional.sol";

/// An owner that is no Safe: it forwards each question for a signature to ComposableCoW. It does
/// what its controller says. It knows no ERC-165, which is how it is told from a Safe.
contract Forwarder is Batch, IERC1271 {
    error InvalidHash();

    address public immutable controller;

    constructor(address controller_) {
        controller = controller_;
    }

    modifier onlyController() {
        require(msg.sender == controller, "not the controller");
        _;
    }

    function run(Call[] memory calls) public override onlyController {
        super.run(calls);
    }

    function createMany(address handler, uint256 firstSalt, uint256 count, bytes memory staticInput)
        public
        override
        onlyController
    {
        super.createMany(handler, firstSalt, count, staticInput);
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        (Order.Data memory order, Payload memory payload) = abi.decode(signature, (Order.Data, Payload));
        if (Order.digest(order) != digest) revert InvalidHash();
        return IComposableCoW(COMPOSABLE_COW).isValidSafeSignature(
            address(this), msg.sender, digest, Order.domain(), Order.TYPE_HASH, abi.encode(order), abi.encode(payload)
        );
    }
}
