// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.37;

import {Order} from "./Order.sol";
import "./Conditional.sol";

/// Sells from a start time on. What it buys is said by whoever asks, in the off-chain input;
/// without one it asks for the least, one unit. There is no price checker.
contract GoodAfterTime is Handler {
    struct Data {
        address sellToken;
        address buyToken;
        address receiver;
        uint256 sellAmount;
        uint256 minSellBalance;
        uint256 startTime;
        uint256 endTime;
        bool allowPartialFill;
        bytes priceCheckerPayload;
        bytes32 appData;
    }

    function getTradeableOrder(
        address owner,
        address,
        bytes32,
        bytes calldata staticInput,
        bytes calldata offchainInput
    ) public view override returns (Order.Data memory order) {
        Data memory data = abi.decode(staticInput, (Data));
        if (block.timestamp < data.startTime) revert PollTryAtEpoch(data.startTime, "too early");
        if (block.timestamp > data.endTime) revert PollNever("too late");
        if (IERC20(data.sellToken).balanceOf(owner) < data.minSellBalance) {
            revert PollTryNextBlock("balance insufficient");
        }
        uint256 buyAmount = offchainInput.length == 0 ? 1 : abi.decode(offchainInput, (uint256));
        order = Order.sell(data.sellToken, data.buyToken, data.receiver, data.sellAmount, buyAmount);
        order.validTo = uint32(data.endTime);
        order.appData = data.appData;
        order.partiallyFillable = data.allowPartialFill;
    }
}
