// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.37;

import {Order} from "./Order.sol";

/// Names an order that exists under a condition.
struct ConditionalOrderParams {
    address handler;
    bytes32 salt;
    bytes staticInput;
}

/// Where the orders of a merkle root are found: at location 1, `data` itself holds them.
struct Proof {
    uint256 location;
    bytes data;
}

/// What is signed for an order: which conditional order it came from, and why that one counts.
struct Payload {
    bytes32[] proof;
    ConditionalOrderParams params;
    bytes offchainInput;
}

interface IERC165 {
    function supportsInterface(bytes4 interfaceId) external view returns (bool);
}

interface IERC1271 {
    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4 magic);
}

interface IERC20 {
    function balanceOf(address holder) external view returns (uint256);
}

/// What every condition can be asked: does it allow this order now?
interface IConditionalOrder {
    error OrderNotValid(string reason);
    error PollTryNextBlock(string reason);
    error PollTryAtBlock(uint256 blockNumber, string reason);
    error PollTryAtEpoch(uint256 timestamp, string reason);
    error PollNever(string reason);

    function verify(
        address owner,
        address sender,
        bytes32 digest,
        bytes32 domainSeparator,
        bytes32 ctx,
        bytes calldata staticInput,
        bytes calldata offchainInput,
        Order.Data calldata order
    ) external view;
}

/// A condition that also makes the order.
interface IConditionalOrderGenerator is IConditionalOrder, IERC165 {
    event ConditionalOrderCreated(address indexed owner, ConditionalOrderParams params);

    function getTradeableOrder(
        address owner,
        address sender,
        bytes32 ctx,
        bytes calldata staticInput,
        bytes calldata offchainInput
    ) external view returns (Order.Data memory);
}

/// May forbid an owner's orders.
interface ISwapGuard is IERC165 {
    function verify(
        Order.Data calldata order,
        bytes32 ctx,
        ConditionalOrderParams calldata params,
        bytes calldata offchainInput
    ) external view returns (bool);
}

/// Makes a value when an order is created.
interface IValueFactory {
    function getValue(bytes calldata data) external view returns (bytes32);
}

/// Checks what a Safe signs in one domain.
interface ISafeSignatureVerifier {
    function isValidSafeSignature(
        address safe,
        address sender,
        bytes32 digest,
        bytes32 domainSeparator,
        bytes32 typeHash,
        bytes calldata encodeData,
        bytes calldata payload
    ) external view returns (bytes4 magic);
}

/// Lets a Safe choose a verifier for each domain.
interface ISignatureVerifierMuxer {
    function domainVerifiers(address safe, bytes32 domainSeparator) external view returns (ISafeSignatureVerifier);
    function setDomainVerifier(bytes32 domainSeparator, ISafeSignatureVerifier verifier) external;
}

/// A condition that verifies an order by making it once more.
abstract contract Handler is IConditionalOrderGenerator {
    function getTradeableOrder(
        address owner,
        address sender,
        bytes32 ctx,
        bytes calldata staticInput,
        bytes calldata offchainInput
    ) public view virtual returns (Order.Data memory);

    function verify(
        address owner,
        address sender,
        bytes32 digest,
        bytes32,
        bytes32 ctx,
        bytes calldata staticInput,
        bytes calldata offchainInput,
        Order.Data calldata
    ) external view {
        Order.Data memory made = getTradeableOrder(owner, sender, ctx, staticInput, offchainInput);
        if (Order.digest(made) != digest) revert OrderNotValid("invalid hash");
    }

    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        // The two functions that are older than the generator belong to interfaces of their own.
        return interfaceId == IConditionalOrderGenerator.getTradeableOrder.selector
            || interfaceId == type(IERC165).interfaceId;
    }
}
