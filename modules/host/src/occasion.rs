//! What a module is called for, as a name to derive from.

use alloy_primitives::B256;
use shepherd_log::{Digest, EffectKey};

use crate::input::{Input, OutcomeRef};

/// Names the call: the same for the same input, and for no other input of the lane.
///
/// An offset would not do for a block: after a reorg, or in a journal that was rebuilt, the same
/// block sits at another offset. Outcomes are another matter. Two refusals of one order at one
/// block are told apart by their effects alone, and there is no journal of the same outcomes with
/// other offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// The block of this hash.
    Block(B256),
    /// An outcome or a revert.
    Told(Digest),
}

impl Occasion {
    /// What this input is the occasion of.
    pub(crate) fn of(input: &Input<'_>) -> Occasion {
        match input {
            Input::Block(block) => Occasion::Block(block.this.hash),
            Input::Outcome(told) => {
                Occasion::told(1, told.at.this.hash, std::slice::from_ref(&told.outcome))
            }
            Input::Revert(told) => Occasion::told(2, told.at.this.hash, &told.outcomes),
        }
    }

    fn told(kind: u8, at: B256, outcomes: &[OutcomeRef<'_>]) -> Occasion {
        let mut bytes = b"shepherd occasion 1\0".to_vec();
        bytes.push(kind);
        bytes.extend(at);
        for OutcomeRef { effect, key, result, abandoned: _ } in outcomes {
            bytes.extend(effect.offset.get().to_be_bytes());
            bytes.extend(effect.index.to_be_bytes());
            match key {
                EffectKey::Order(uid) => {
                    bytes.push(0);
                    bytes.extend(uid);
                }
                EffectKey::Webhook { destination, key } => {
                    bytes.push(1);
                    put(&mut bytes, destination);
                    put(&mut bytes, key);
                }
            }
            put(&mut bytes, result.kind());
        }
        Occasion::Told(Digest::of(&bytes))
    }

    /// The name as bytes.
    pub(crate) fn bytes(&self) -> [u8; 33] {
        let (kind, name) = match self {
            Occasion::Block(hash) => (0, hash.0),
            Occasion::Told(digest) => (1, digest.0),
        };
        let mut bytes = [kind; 33];
        bytes[1..].copy_from_slice(&name);
        bytes
    }
}

fn put(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_be_bytes());
    bytes.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use shepherd_log::{BlockRef, EffectId, EffectResult, Offset, Refusal};

    use super::*;
    use crate::input::{At, OutcomeInput};

    #[test]
    fn the_name_is_part_of_the_contract() {
        // Computed by another implementation. A change here changes what old records do when they
        // are replayed, and sends their webhooks again.
        let key = EffectKey::Webhook { destination: "alerts".to_owned(), key: "k".to_owned() };
        let result = EffectResult::Refused(Refusal {
            status: 400,
            error_type: None,
            description: String::new(),
            body: Vec::new(),
            retry_after: None,
        });
        let effect = EffectId { offset: Offset::new(5), index: 2 };
        let outcome = OutcomeRef { effect, key: &key, result: &result, abandoned: false };
        let this = BlockRef { number: 7, hash: B256::repeat_byte(7) };
        let at = At { this, parent: B256::ZERO, timestamp: 0 };
        let occasion = Occasion::of(&Input::Outcome(OutcomeInput { at, outcome }));
        let Occasion::Told(digest) = occasion else { panic!("{occasion:?}") };
        let expected = "0x628075316b62e83427dd956207e0eac93e5c08f7c59ab052092fd2d28731190f";
        assert_eq!(digest.to_string(), expected);
    }
}
