// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.37;

import "./Conditional.sol";

interface IComposableCoW {
    function create(ConditionalOrderParams calldata params, bool dispatch) external;
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

/// Many calls in one transaction. A Safe runs it as its own code, by delegate call.
contract Batch {
    struct Call {
        /// Zero is whoever runs this, whose address may not be known yet.
        address to;
        bytes data;
    }

    address internal constant COMPOSABLE_COW = 0xfdaFc9d1902f4e0b84f65F49f244b32b31013b74;

    /// One after the other; the first that fails undoes them all and gives its reason.
    function run(Call[] memory calls) public virtual {
        for (uint256 i = 0; i < calls.length; i++) {
            address to = calls[i].to == address(0) ? address(this) : calls[i].to;
            (bool done, bytes memory reason) = to.call(calls[i].data);
            if (!done) {
                assembly {
                    revert(add(reason, 32), mload(reason))
                }
            }
        }
    }

    /// Creates `count` conditional orders that differ in their salts only.
    function createMany(address handler, uint256 firstSalt, uint256 count, bytes memory staticInput) public virtual {
        ConditionalOrderParams memory params = ConditionalOrderParams(handler, 0, staticInput);
        for (uint256 i = 0; i < count; i++) {
            params.salt = bytes32(firstSalt + i);
            IComposableCoW(COMPOSABLE_COW).create(params, true);
        }
    }
}
