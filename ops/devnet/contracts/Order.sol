// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.37;

/// The order that the settlement contract verifies: twelve words, and how they are hashed.
library Order {
    struct Data {
        address sellToken;
        address buyToken;
        address receiver;
        uint256 sellAmount;
        uint256 buyAmount;
        uint32 validTo;
        bytes32 appData;
        uint256 feeAmount;
        bytes32 kind;
        bool partiallyFillable;
        bytes32 sellTokenBalance;
        bytes32 buyTokenBalance;
    }

    bytes32 internal constant SELL = keccak256("sell");
    bytes32 internal constant BUY = keccak256("buy");
    bytes32 internal constant ERC20 = keccak256("erc20");

    bytes32 internal constant TYPE_HASH = keccak256(
        "Order(address sellToken,address buyToken,address receiver,uint256 sellAmount,"
        "uint256 buyAmount,uint32 validTo,bytes32 appData,uint256 feeAmount,string kind,"
        "bool partiallyFillable,string sellTokenBalance,string buyTokenBalance)"
    );

    address internal constant SETTLEMENT = 0x9008D19f58AAbD9eD0D60971565AA8510560ab41;

    /// The settlement's domain. Computed instead of asked for: these contracts are put at their
    /// addresses without running a constructor, and a call would cost more.
    function domain() internal view returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Gnosis Protocol"),
                keccak256("v2"),
                block.chainid,
                SETTLEMENT
            )
        );
    }

    /// What an owner of the order agrees to.
    function digest(Data memory order) internal view returns (bytes32) {
        bytes32 fields = keccak256(abi.encode(TYPE_HASH, order));
        return keccak256(abi.encodePacked(hex"1901", domain(), fields));
    }

    /// A fill-or-kill order that sells, from ERC-20 balance to ERC-20 balance, without a fee.
    function sell(address sellToken, address buyToken, address receiver, uint256 sellAmount, uint256 buyAmount)
        internal
        pure
        returns (Data memory order)
    {
        order.sellToken = sellToken;
        order.buyToken = buyToken;
        order.receiver = receiver;
        order.sellAmount = sellAmount;
        order.buyAmount = buyAmount;
        order.kind = SELL;
        order.sellTokenBalance = ERC20;
        order.buyTokenBalance = ERC20;
    }
}
