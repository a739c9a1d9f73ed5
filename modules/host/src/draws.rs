//! Randomness that a replay repeats.

use alloy_primitives::B256;
use sha2::{Digest as _, Sha256};
use shepherd_log::LaneId;

/// The numbers a module draws while it handles one block.
///
/// The seed is the lane and the block's hash. An offset would not do: after a reorg, or in a
/// journal that was rebuilt, the same block sits at another offset, and the lane would end up
/// in another state than a fresh run on the same chain.
pub(crate) struct Draws {
    seed: [u8; 32],
    drawn: u64,
}

impl Draws {
    /// The draws of this lane at this block.
    pub(crate) fn new(lane: &LaneId, block: &B256) -> Draws {
        let mut seed = Sha256::new();
        seed.update(b"shepherd random 1\0");
        seed.update(lane.to_string());
        seed.update([0]);
        seed.update(block);
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
    use super::*;

    fn three(lane: &str, block: u8) -> [u64; 3] {
        let mut draws = Draws::new(&lane.parse().unwrap(), &B256::repeat_byte(block));
        [draws.next(), draws.next(), draws.next()]
    }

    #[test]
    fn draws_repeat_for_a_lane_and_block_and_for_nothing_else() {
        let draws = three("dice@devnet", 1);
        assert_eq!(draws, three("dice@devnet", 1));
        assert_ne!(draws[0], draws[1]);
        assert_ne!(draws, three("dice@devnet", 2));
        assert_ne!(draws, three("dice@sepolia", 1));
        assert_ne!(draws, three("dic@devnet", 1));
    }

    #[test]
    fn the_sequence_is_part_of_the_contract() {
        // Computed by another implementation. A change here changes what old records do when
        // they are replayed.
        assert_eq!(three("dice@devnet", 1)[0], 12_914_791_020_733_328_213);
    }
}
