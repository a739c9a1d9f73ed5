//! What a ledger of all transfers came to, so that programs with nothing in common can be compared.

use std::collections::BTreeSet;

use alloy_primitives::{Address, hex};
use sha2::{Digest, Sha256};
use shepherd_log::LaneSnapshot;

/// What a ledger of all transfers came to.
///
/// Equal answers are equal balances of every holder of every token, to the last digit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Balances and totals that are not zero.
    pub values: u64,
    /// SHA-256 over the keys and values of `modules/token-ledger`, in the order of the keys.
    pub sha256: String,
}

/// Of how many tokens and holders a ledger is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Balances and totals that are not zero.
    pub values: u64,
    /// Tokens with a holder.
    pub tokens: usize,
    /// Holders of any token.
    pub holders: usize,
}

impl Extent {
    /// How large the ledger of a lane of `modules/token-ledger` is.
    pub fn of(lane: &LaneSnapshot) -> anyhow::Result<Extent> {
        let (mut tokens, mut holders) = (BTreeSet::new(), BTreeSet::new());
        let mut values = 0;
        for entry in lane.entries(&[], None) {
            values += 1;
            let (key, _) = entry?;
            let Some((b"b", token_and_holder)) = key.split_first_chunk() else { continue };
            let (token, holder) = token_and_holder.split_at(20);
            tokens.insert(Address::from_slice(token));
            holders.insert(Address::from_slice(holder));
        }
        Ok(Extent { values, tokens: tokens.len(), holders: holders.len() })
    }
}

impl Answer {
    /// What a lane of `modules/token-ledger` has come to.
    pub fn of(lane: &LaneSnapshot) -> anyhow::Result<Answer> {
        let mut sha256 = Sha256::new();
        let mut values = 0;
        for entry in lane.entries(&[], None) {
            let (key, value) = entry?;
            sha256.update(&key);
            sha256.update(&value);
            values += 1;
        }
        Ok(Answer { values, sha256: hex::encode(sha256.finalize()) })
    }

    /// An answer as the peers print it.
    pub fn parse(text: &str) -> Option<Answer> {
        let (values, sha256) = text.trim().split_once(' ')?;
        Some(Answer { values: values.parse().ok()?, sha256: sha256.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_peers_print_it() {
        let answer = Answer { values: 17, sha256: "00ff".to_owned() };
        assert_eq!(Answer::parse("17 00ff\n"), Some(answer));
        for wrong in ["", "17", "x 00ff"] {
            assert_eq!(Answer::parse(wrong), None, "{wrong}");
        }
    }
}
