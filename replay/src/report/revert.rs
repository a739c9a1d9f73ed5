//! Names of the errors that the contracts of conditional orders revert with.

use std::{collections::BTreeMap, sync::LazyLock};

use alloy_primitives::{Selector, keccak256};

const SIGNATURES: [&str; 13] = [
    "ProofNotAuthed()",
    "SingleOrderNotAuthed()",
    "SwapGuardRestricted()",
    "InvalidHandler()",
    "InvalidFallbackHandler()",
    "InterfaceNotSupported()",
    "OrderNotValid(string)",
    "PollTryNextBlock(string)",
    "PollNever(string)",
    "PollTryAtBlock(uint256,string)",
    "PollTryAtEpoch(uint256,string)",
    "Error(string)",
    "Panic(uint256)",
];

static NAMES: LazyLock<BTreeMap<[u8; 4], &str>> = LazyLock::new(|| {
    let entry = |signature: &'static str| {
        let [a, b, c, d, ..] = keccak256(signature).0;
        let (name, _) = signature.split_once('(').expect("a signature has parameters");
        ([a, b, c, d], name)
    };
    SIGNATURES.into_iter().map(entry).collect()
});

/// The name of an error, if it is one of those.
pub(crate) fn name(selector: Selector) -> Option<&'static str> {
    NAMES.get(&selector.0).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_known_by_their_selectors() {
        assert_eq!(name(Selector::new([0xc8, 0xfc, 0x27, 0x25])), Some("OrderNotValid"));
        assert_eq!(name(Selector::new([0x08, 0xc3, 0x79, 0xa0])), Some("Error"));
        assert_eq!(name(Selector::new([0; 4])), None);
    }
}
