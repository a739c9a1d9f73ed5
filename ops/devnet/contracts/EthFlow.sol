// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.37;

import {Order} from "./Order.sol";

interface ISettlement {
    function filledAmount(bytes calldata uid) external view returns (uint256);
}

/// Takes ether and sells it as the wrapped token, in an order of its own for each user's.
///
/// It does not wrap what it takes: nothing is settled on a devnet but what a test says, and so
/// it can give everything back.
contract EthFlow {
    struct EthFlowOrder {
        address buyToken;
        address receiver;
        uint256 sellAmount;
        uint256 buyAmount;
        bytes32 appData;
        uint256 feeAmount;
        uint32 validTo;
        bool partiallyFillable;
        int64 quoteId;
    }

    struct OnchainData {
        address owner;
        uint32 validTo;
    }

    struct OnchainSignature {
        uint8 scheme;
        bytes data;
    }

    event OrderPlacement(address indexed sender, Order.Data order, OnchainSignature signature, bytes data);
    event OrderInvalidation(bytes orderUid);
    event OrderRefund(bytes orderUid, address indexed refunder);

    error OrderIsAlreadyOwned(bytes32 orderHash);
    error OrderIsAlreadyExpired();
    error IncorrectEthAmount();
    error NotAllowedZeroSellAmount();
    error NotAllowedToInvalidateOrder(bytes32 orderHash);
    error ReceiverMustBeSet();
    error EthTransferFailed();

    address public constant wrappedNativeToken = 0xfFf9976782d46CC05630D1f6eBAb18b2324d6B14;
    address public constant cowSwapSettlement = Order.SETTLEMENT;

    address private constant INVALIDATED = address(type(uint160).max);

    /// Who placed an order and until when it is wanted, by the order's digest.
    mapping(bytes32 => OnchainData) public orders;

    receive() external payable {}

    function createOrder(EthFlowOrder calldata order) external payable returns (bytes32 orderHash) {
        if (msg.value != order.sellAmount + order.feeAmount) revert IncorrectEthAmount();
        if (order.sellAmount == 0) revert NotAllowedZeroSellAmount();
        if (block.timestamp > order.validTo) revert OrderIsAlreadyExpired();
        Order.Data memory placed = toOrder(order);
        orderHash = Order.digest(placed);
        if (orders[orderHash].owner != address(0)) revert OrderIsAlreadyOwned(orderHash);
        orders[orderHash] = OnchainData(msg.sender, order.validTo);
        emit OrderPlacement(
            msg.sender,
            placed,
            OnchainSignature(0, abi.encodePacked(address(this))),
            abi.encodePacked(order.quoteId, order.validTo)
        );
    }

    /// Gives back what was not sold: to the user at any time, after the end for anybody.
    function invalidateOrder(EthFlowOrder calldata order) external {
        bytes32 orderHash = Order.digest(toOrder(order));
        OnchainData memory placed = orders[orderHash];
        bool tradable = block.timestamp <= placed.validTo;
        if (placed.owner == address(0) || placed.owner == INVALIDATED || (tradable && placed.owner != msg.sender)) {
            revert NotAllowedToInvalidateOrder(orderHash);
        }
        orders[orderHash].owner = INVALIDATED;
        bytes memory uid = abi.encodePacked(orderHash, address(this), type(uint32).max);
        if (tradable) emit OrderInvalidation(uid);
        else emit OrderRefund(uid, msg.sender);

        uint256 filled = ISettlement(cowSwapSettlement).filledAmount(uid);
        if (filled < order.sellAmount) {
            uint256 fee = order.feeAmount * (order.sellAmount - filled) / order.sellAmount;
            (bool paid,) = placed.owner.call{value: order.sellAmount - filled + fee}("");
            if (!paid) revert EthTransferFailed();
        }
    }

    function isValidSignature(bytes32 orderHash, bytes calldata) external view returns (bytes4) {
        OnchainData memory placed = orders[orderHash];
        bool wanted = placed.owner != address(0) && placed.owner != INVALIDATED;
        return wanted && block.timestamp <= placed.validTo ? this.isValidSignature.selector : bytes4(0xffffffff);
    }

    /// The order that the settlement sees: the same for the same swap, whoever quoted it.
    function toOrder(EthFlowOrder calldata order) private pure returns (Order.Data memory placed) {
        if (order.receiver == address(0)) revert ReceiverMustBeSet();
        placed = Order.sell(wrappedNativeToken, order.buyToken, order.receiver, order.sellAmount, order.buyAmount);
        placed.validTo = type(uint32).max;
        placed.appData = order.appData;
        placed.feeAmount = order.feeAmount;
        placed.partiallyFillable = order.partiallyFillable;
    }
}
