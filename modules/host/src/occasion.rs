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
