// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.37;

import "./Conditional.sol";

interface ISafe {
    function checkSignatures(bytes32 digest, bytes memory data, bytes memory signatures) external view;
    function domainSeparator() external view returns (bytes32);
}

/// Answers for a Safe what the Safe itself does not know: whether it signed something, and
/// which verifier it trusts in a domain.
///
/// A Safe hands on each such call with its caller's address behind the call data.
contract ExtensibleFallbackHandler is ISignatureVerifierMuxer, IERC1271, IERC165 {
    event ChangedDomainVerifier(
        address indexed safe,
        bytes32 domainSeparator,
        ISafeSignatureVerifier oldVerifier,
        ISafeSignatureVerifier newVerifier
    );

    mapping(address => mapping(bytes32 => ISafeSignatureVerifier)) public domainVerifiers;

    bytes4 private constant SAFE_SIGNATURE = bytes4(keccak256("safeSignature(bytes32,bytes32,bytes,bytes)"));
    bytes32 private constant SAFE_MESSAGE = keccak256("SafeMessage(bytes message)");

    function setDomainVerifier(bytes32 domainSeparator, ISafeSignatureVerifier verifier) external {
        require(caller() == msg.sender, "only safe can call this method");
        ISafeSignatureVerifier old = domainVerifiers[msg.sender][domainSeparator];
        domainVerifiers[msg.sender][domainSeparator] = verifier;
        emit ChangedDomainVerifier(msg.sender, domainSeparator, old, verifier);
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        if (signature.length >= 68 && bytes4(signature) == SAFE_SIGNATURE) {
            (bytes32 domainSeparator, bytes32 typeHash) = abi.decode(signature[4:], (bytes32, bytes32));
            ISafeSignatureVerifier verifier = domainVerifiers[msg.sender][domainSeparator];
            if (address(verifier) != address(0)) {
                (,, bytes memory encodeData, bytes memory payload) =
                    abi.decode(signature[4:], (bytes32, bytes32, bytes, bytes));
                bytes32 fields = keccak256(abi.encodePacked(typeHash, encodeData));
                if (keccak256(abi.encodePacked(hex"1901", domainSeparator, fields)) == digest) {
                    return verifier.isValidSafeSignature(
                        msg.sender, caller(), digest, domainSeparator, typeHash, encodeData, payload
                    );
                }
            }
        }
        return signedByOwners(digest, signature);
    }

    /// The Safe's owners agreed to the digest as to a message.
    function signedByOwners(bytes32 digest, bytes calldata signature) private view returns (bytes4) {
        bytes32 message = keccak256(abi.encode(SAFE_MESSAGE, keccak256(abi.encode(digest))));
        bytes memory data = abi.encodePacked(hex"1901", ISafe(msg.sender).domainSeparator(), message);
        ISafe(msg.sender).checkSignatures(keccak256(data), data, signature);
        return IERC1271.isValidSignature.selector;
    }

    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(ISignatureVerifierMuxer).interfaceId
            || interfaceId == type(IERC1271).interfaceId || interfaceId == type(IERC165).interfaceId;
    }

    function onERC721Received(address, address, uint256, bytes calldata) external pure returns (bytes4) {
        return this.onERC721Received.selector;
    }

    function onERC1155Received(address, address, uint256, uint256, bytes calldata) external pure returns (bytes4) {
        return this.onERC1155Received.selector;
    }

    /// Who called the Safe.
    function caller() private pure returns (address) {
        return address(bytes20(msg.data[msg.data.length - 20:]));
    }
}
