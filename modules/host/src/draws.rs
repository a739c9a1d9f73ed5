//! Randomness that a replay repeats.

use sha2::{Digest as _, Sha256};
use shepherd_log::LaneId;

use crate::occasion::Occasion;

/// The numbers a module draws while it handles one input.
///
/// The seed is the lane and the occasion: for a block its hash, for an outcome or a revert what
/// tells it from the block it is handled at and from all others.
pub(crate) struct Draws {
    seed: [u8; 32],
    drawn: u64,
}

impl Draws {
    /// The draws of this lane on this occasion.
    pub(crate) fn new(lane: &LaneId, occasion: &Occasion) -> Draws {
        let (domain, name) = match occasion {
            Occasion::Block(hash) => (b"shepherd random 1\0", &hash.0),
            Occasion::Told(digest) => (b"shepherd random 2\0", &digest.0),
        };
        let mut seed = Sha256::new();
        seed.update(domain);
        seed.update(lane.to_string());
        seed.update([0]);
        seed.update(name);
        Draws { seed: seed.finalize().into(), drawn: 0 }
    }

    /// The next number: the first eight bytes of SHA-256 over the seed and a counter.
    pub(crate) fn next(&mut self) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(self.drawn.to_be_bytes());
        self.drawn += 1;
        let hash: [u8; 32] = hash.finalize().into();
        let [a, b, c, d, e, f, g, h, ..] = hash;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::B256;
    use shepherd_log::Digest;

    use super::*;

    fn drawn(lane: &str, occasion: Occasion) -> [u64; 3] {
        let mut draws = Draws::new(&lane.parse().unwrap(), &occasion);
        [draws.next(), draws.next(), draws.next()]
    }

    fn three(lane: &str, block: u8) -> [u64; 3] {
        drawn(lane, Occasion::Block(B256::repeat_byte(block)))
    }

    #[test]
    fn draws_repeat_for_a_lane_and_block_and_for_nothing_else() {
        let draws = three("dice@devnet", 1);
        assert_eq!(draws, three("dice@devnet", 1));
        assert_ne!(draws[0], draws[1]);
        assert_ne!(draws, three("dice@devnet", 2));
        assert_ne!(draws, three("dice@sepolia", 1));
        assert_ne!(draws, three("dic@devnet", 1));
        assert_ne!(draws, drawn("dice@devnet", Occasion::Told(Digest([1; 32]))));
    }

    #[test]
    fn the_sequence_is_part_of_the_contract() {
        // Computed by another implementation. A change here changes what old records do when
        // they are replayed.
        assert_eq!(three("dice@devnet", 1)[0], 12_914_791_020_733_328_213);
    }
}
