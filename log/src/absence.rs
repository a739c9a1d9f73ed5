//! Keys that a lane's state certainly does not have.
//!
//! A ledger of a busy chain meets new holders all the time, and looking a key up that is not there
//! is the dearest lookup of all: every tree of the engine is asked. A lane that began empty knows
//! every key it has ever set, and remembers them in a few bits each: whatever is not among them
//! was never set.

use fastbloom::BloomFilter;
use foldhash::fast::RandomState;

/// How often a key that was never set is looked up all the same.
const FALSE_POSITIVES: f64 = 0.01;

/// Keys of the first filter. Each further one takes four times as many, so that a million keys
/// are in five filters, and they take 1.2 MB together.
const KEYS_FIRST: usize = 4_096;

/// Which keys were ever set, up to a hundredth too many.
pub struct EverSet {
    filters: Vec<BloomFilter<RandomState>>,
    /// Of the newest filter.
    keys: usize,
    room: usize,
}

impl Default for EverSet {
    /// Of a lane that has set nothing yet.
    fn default() -> EverSet {
        EverSet { filters: vec![filter(KEYS_FIRST)], keys: 0, room: KEYS_FIRST }
    }
}

fn filter(keys: usize) -> BloomFilter<RandomState> {
    BloomFilter::with_false_pos(FALSE_POSITIVES).hasher(RandomState::default()).expected_items(keys)
}

impl EverSet {
    /// Whether the key may have been set. `false` is certain.
    pub fn may_have(&self, key: &[u8]) -> bool {
        // The newest holds most of them.
        self.filters.iter().rev().any(|filter| filter.contains(key))
    }

    /// Remembers that the key is set.
    pub fn insert(&mut self, key: &[u8]) {
        if self.may_have(key) {
            return;
        }
        if self.keys == self.room {
            self.room *= 4;
            self.keys = 0;
            self.filters.push(filter(self.room));
        }
        self.keys += 1;
        self.filters.last_mut().expect("there is always one").insert(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_set_may_be_there_and_hardly_any_other() {
        let mut set = EverSet::default();
        for n in 0..60_000u32 {
            set.insert(&n.to_be_bytes());
        }
        assert!((0..60_000u32).all(|n| set.may_have(&n.to_be_bytes())));
        let wrong = (60_000..160_000u32).filter(|n| set.may_have(&n.to_be_bytes())).count();
        assert!(wrong < 4_000, "{wrong} of 100 000");
    }
}
