// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.37;

import {Order} from "./Order.sol";
import "./Conditional.sol";

interface IAggregator {
    function decimals() external view returns (uint8);
    function latestRoundData()
        external
        view
        returns (uint80 roundId, int256 answer, uint256 startedAt, uint256 updatedAt, uint80 answeredInRound);
}

/// Trades once the price of the sold token, in the bought one, is at the strike or below.
contract StopLoss is Handler {
    struct Data {
        address sellToken;
        address buyToken;
        uint256 sellAmount;
        uint256 buyAmount;
        bytes32 appData;
        address receiver;
        bool isSellOrder;
        bool isPartiallyFillable;
        uint32 validTo;
        IAggregator sellTokenPriceOracle;
        IAggregator buyTokenPriceOracle;
        int256 strike;
        uint256 maxTimeSinceLastOracleUpdate;
    }

    function getTradeableOrder(address, address, bytes32, bytes calldata staticInput, bytes calldata)
        public
        view
        override
        returns (Order.Data memory order)
    {
        Data memory data = abi.decode(staticInput, (Data));
        if (data.validTo < block.timestamp) revert OrderNotValid("order expired");
        int256 sellPrice = price(data.sellTokenPriceOracle, data.maxTimeSinceLastOracleUpdate);
        int256 buyPrice = price(data.buyTokenPriceOracle, data.maxTimeSinceLastOracleUpdate);
        if (sellPrice * 1e18 / buyPrice > data.strike) revert PollTryNextBlock("strike not reached");

        order = Order.sell(data.sellToken, data.buyToken, data.receiver, data.sellAmount, data.buyAmount);
        order.validTo = data.validTo;
        order.appData = data.appData;
        order.kind = data.isSellOrder ? Order.SELL : Order.BUY;
        order.partiallyFillable = data.isPartiallyFillable;
    }

    /// With eighteen decimals.
    function price(IAggregator feed, uint256 ageMax) private view returns (int256 answer) {
        uint256 updatedAt;
        (, answer,, updatedAt,) = feed.latestRoundData();
        if (answer <= 0) revert OrderNotValid("oracle invalid price");
        if (updatedAt < block.timestamp - ageMax) revert OrderNotValid("oracle stale price");
        uint8 decimals = feed.decimals();
        if (decimals < 18) return answer * int256(10 ** (18 - decimals));
        return answer / int256(10 ** (decimals - 18));
    }
}
