// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.37;

import {Order} from "./Order.sol";
import "./Conditional.sol";

/// Gives, until its time has come, the answer that its static input asks for, and then an order.
/// Only the devnet has it: no other handler can be made to say everything a handler can say.
contract Hints is Handler {
    enum Answer {
        Order,
        TryNextBlock,
        TryAtBlock,
        TryAtEpoch,
        Never,
        NotValid,
        UnknownError,
        Panic,
        NoData
    }

    struct Data {
        Answer answer;
        /// What the answer names, if it names a block or a time.
        uint256 argument;
        /// The order is there from this block on, and from this time on.
        uint256 fromBlock;
        uint256 fromTime;
        address sellToken;
        address buyToken;
        address receiver;
        uint256 sellAmount;
        uint256 buyAmount;
        uint32 validTo;
        bytes32 appData;
    }

    error Unheard(uint256 argument);

    function getTradeableOrder(address, address, bytes32, bytes calldata staticInput, bytes calldata)
        public
        view
        override
        returns (Order.Data memory order)
    {
        Data memory data = abi.decode(staticInput, (Data));
        if (block.number < data.fromBlock || block.timestamp < data.fromTime) answer(data);
        order = Order.sell(data.sellToken, data.buyToken, data.receiver, data.sellAmount, data.buyAmount);
        order.validTo = data.validTo;
        order.appData = data.appData;
    }

    function answer(Data memory data) private pure {
        if (data.answer == Answer.TryNextBlock) revert PollTryNextBlock("hint");
        if (data.answer == Answer.TryAtBlock) revert PollTryAtBlock(data.argument, "hint");
        if (data.answer == Answer.TryAtEpoch) revert PollTryAtEpoch(data.argument, "hint");
        if (data.answer == Answer.Never) revert PollNever("hint");
        if (data.answer == Answer.NotValid) revert OrderNotValid("hint");
        if (data.answer == Answer.UnknownError) revert Unheard(data.argument);
        if (data.answer == Answer.Panic) assert(false);
        if (data.answer == Answer.NoData) revert();
    }
}
