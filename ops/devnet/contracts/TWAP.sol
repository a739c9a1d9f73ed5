// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.37;

import {Order} from "./Order.sol";
import "./Conditional.sol";

/// Sells in parts: `n` of them, one every `t` seconds from `t0` on, each within `span` seconds.
///
///     t0         t0 + t     t0 + 2t          t0 + n*t
///     |--part 0--|--part 1--|-- ...           | finished
///     |span|     |span|
contract TWAP is Handler {
    struct Data {
        address sellToken;
        address buyToken;
        address receiver;
        uint256 partSellAmount;
        uint256 minPartLimit;
        uint256 t0;
        uint256 n;
        uint256 t;
        uint256 span;
        bytes32 appData;
    }

    function getTradeableOrder(address owner, address, bytes32 ctx, bytes calldata staticInput, bytes calldata)
        public
        view
        override
        returns (Order.Data memory order)
    {
        Data memory twap = abi.decode(staticInput, (Data));
        if (twap.t0 == 0) twap.t0 = uint256(ICabinet(COMPOSABLE_COW).cabinet(owner, ctx));
        check(twap);

        order = Order.sell(twap.sellToken, twap.buyToken, twap.receiver, twap.partSellAmount, twap.minPartLimit);
        order.validTo = uint32(validTo(twap));
        order.appData = twap.appData;
        if (block.timestamp > order.validTo) revert OrderNotValid("not within span");
    }

    function check(Data memory twap) private pure {
        if (twap.sellToken == twap.buyToken) revert OrderNotValid("same token");
        if (twap.sellToken == address(0) || twap.buyToken == address(0)) revert OrderNotValid("invalid token");
        if (twap.partSellAmount == 0) revert OrderNotValid("invalid part sell amount");
        if (twap.minPartLimit == 0) revert OrderNotValid("invalid min part limit");
        if (twap.t0 >= type(uint32).max) revert OrderNotValid("invalid start time");
        if (twap.n < 2 || twap.n > type(uint32).max) revert OrderNotValid("invalid num parts");
        if (twap.t == 0 || twap.t > 365 days) revert OrderNotValid("invalid frequency");
        if (twap.span > twap.t) revert OrderNotValid("invalid span");
    }

    function validTo(Data memory twap) private view returns (uint256) {
        if (block.timestamp < twap.t0) revert OrderNotValid("before twap start");
        uint256 part = (block.timestamp - twap.t0) / twap.t;
        if (part >= twap.n) revert OrderNotValid("after twap finish");
        if (twap.span == 0) return twap.t0 + (part + 1) * twap.t - 1;
        return twap.t0 + part * twap.t + twap.span - 1;
    }

    address private constant COMPOSABLE_COW = 0xfdaFc9d1902f4e0b84f65F49f244b32b31013b74;
}

interface ICabinet {
    function cabinet(address owner, bytes32 ctx) external view returns (bytes32);
}
