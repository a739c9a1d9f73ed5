// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.37;

import {Order} from "./Order.sol";
import "./Conditional.sol";

/// Keeps which conditional orders an owner wants, one by one or as a merkle root, and answers
/// for the owner that an order came from one of them.
contract ComposableCoW is ISafeSignatureVerifier {
    event ConditionalOrderCreated(address indexed owner, ConditionalOrderParams params);
    event MerkleRootSet(address indexed owner, bytes32 root, Proof proof);
    event SwapGuardSet(address indexed owner, ISwapGuard swapGuard);

    error ProofNotAuthed();
    error SingleOrderNotAuthed();
    error SwapGuardRestricted();
    error InvalidHandler();
    error InvalidFallbackHandler();
    error InterfaceNotSupported();

    mapping(address => bytes32) public roots;
    mapping(address => mapping(bytes32 => bool)) public singleOrders;
    mapping(address => mapping(bytes32 => bytes32)) public cabinet;
    mapping(address => ISwapGuard) public swapGuards;

    function create(ConditionalOrderParams calldata params, bool dispatch) public {
        if (params.handler == address(0)) revert InvalidHandler();
        singleOrders[msg.sender][hash(params)] = true;
        if (dispatch) emit ConditionalOrderCreated(msg.sender, params);
    }

    function createWithContext(
        ConditionalOrderParams calldata params,
        IValueFactory factory,
        bytes calldata data,
        bool dispatch
    ) external {
        create(params, dispatch);
        cabinet[msg.sender][hash(params)] = factory.getValue(data);
    }

    /// Tells nobody.
    function remove(bytes32 singleOrderHash) external {
        singleOrders[msg.sender][singleOrderHash] = false;
        cabinet[msg.sender][singleOrderHash] = 0;
    }

    function setRoot(bytes32 root, Proof calldata proof) public {
        roots[msg.sender] = root;
        emit MerkleRootSet(msg.sender, root, proof);
    }

    function setRootWithContext(bytes32 root, Proof calldata proof, IValueFactory factory, bytes calldata data)
        external
    {
        setRoot(root, proof);
        cabinet[msg.sender][0] = factory.getValue(data);
    }

    function setSwapGuard(ISwapGuard swapGuard) external {
        swapGuards[msg.sender] = swapGuard;
        emit SwapGuardSet(msg.sender, swapGuard);
    }

    function getTradeableOrderWithSignature(
        address owner,
        ConditionalOrderParams calldata params,
        bytes calldata offchainInput,
        bytes32[] calldata proof
    ) external view returns (Order.Data memory order, bytes memory signature) {
        bytes32 ctx = authorised(owner, params, proof);
        try IERC165(params.handler).supportsInterface(IConditionalOrderGenerator.getTradeableOrder.selector) returns (
            bool supported
        ) {
            if (!supported) revert InterfaceNotSupported();
        } catch {
            revert InvalidHandler();
        }
        order = IConditionalOrderGenerator(params.handler).getTradeableOrder(
            owner, msg.sender, ctx, params.staticInput, offchainInput
        );
        if (!allowed(owner, order, ctx, params, offchainInput)) revert SwapGuardRestricted();
        signature = signatureFor(owner, order, Payload(proof, params, offchainInput));
    }

    /// What the owner's `isValidSignature` accepts, which depends on the kind of contract it is.
    function signatureFor(address owner, Order.Data memory order, Payload memory payload)
        private
        view
        returns (bytes memory)
    {
        try IERC165(owner).supportsInterface(type(ISignatureVerifierMuxer).interfaceId) returns (bool supported) {
            if (!supported) revert InvalidFallbackHandler();
            return abi.encodeWithSignature(
                "safeSignature(bytes32,bytes32,bytes,bytes)",
                domainSeparator(),
                Order.TYPE_HASH,
                abi.encode(order),
                abi.encode(payload)
            );
        } catch {
            // No Safe: then a contract that forwards the question to here.
            return abi.encode(order, payload);
        }
    }

    function isValidSafeSignature(
        address safe,
        address sender,
        bytes32 digest,
        bytes32 domainSeparator_,
        bytes32,
        bytes calldata encodeData,
        bytes calldata encodedPayload
    ) external view returns (bytes4 magic) {
        Payload memory payload = abi.decode(encodedPayload, (Payload));
        bytes32 ctx = authorised(safe, payload.params, payload.proof);
        Order.Data memory order = abi.decode(encodeData, (Order.Data));
        if (!allowed(safe, order, ctx, payload.params, payload.offchainInput)) revert SwapGuardRestricted();
        IConditionalOrder(payload.params.handler).verify(
            safe, sender, digest, domainSeparator_, ctx, payload.params.staticInput, payload.offchainInput, order
        );
        return IERC1271.isValidSignature.selector;
    }

    function hash(ConditionalOrderParams memory params) public pure returns (bytes32) {
        return keccak256(abi.encode(params));
    }

    function domainSeparator() public view returns (bytes32) {
        return Order.domain();
    }

    /// The context of an order that its owner wants: of one that stands alone its own hash, of
    /// one in a merkle tree zero.
    function authorised(address owner, ConditionalOrderParams memory params, bytes32[] memory proof)
        private
        view
        returns (bytes32 ctx)
    {
        if (proof.length == 0) {
            ctx = hash(params);
            if (!singleOrders[owner][ctx]) revert SingleOrderNotAuthed();
            return ctx;
        }
        // Hashed twice, so that no inner node can be taken for a leaf.
        bytes32 node = keccak256(bytes.concat(hash(params)));
        for (uint256 i = 0; i < proof.length; i++) {
            (bytes32 low, bytes32 high) = node < proof[i] ? (node, proof[i]) : (proof[i], node);
            node = keccak256(abi.encode(low, high));
        }
        if (node != roots[owner]) revert ProofNotAuthed();
    }

    function allowed(
        address owner,
        Order.Data memory order,
        bytes32 ctx,
        ConditionalOrderParams memory params,
        bytes memory offchainInput
    ) private view returns (bool) {
        ISwapGuard guard = swapGuards[owner];
        return address(guard) == address(0) || guard.verify(order, ctx, params, offchainInput);
    }
}
