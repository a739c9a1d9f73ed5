//! A sum over everything in a lane's state.
//!
//! The engine's checksums do not cover the order of its write-ahead log: one flipped bit can let an
//! older value of a key win over a newer one, with every row intact by itself (hazard F3). Each
//! step therefore carries the sum of the state it leaves behind, and a store only opens when the
//! state it finds has that sum.
//!
//! The sum of a set of entries is the sum of their hashes, so a step changes it by what it writes,
//! without reading the rest. It finds accidents, not forgeries: whoever can write to the files can
//! write a matching sum as well.

use std::fmt;

use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

/// Sum of the XXH3-128 hashes of all values of a state, each seeded with the XXH3-64 of its key,
/// modulo 2¹²⁸. Equal states have equal sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateSum(pub(crate) u128);

impl StateSum {
    /// Counts an entry in.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.0 = self.0.wrapping_add(hash(key, value));
    }

    /// Takes an entry out that was counted in.
    pub(crate) fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.0 = self.0.wrapping_sub(hash(key, value));
    }
}

impl fmt::Display for StateSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

fn hash(key: &[u8], value: &[u8]) -> u128 {
    xxh3_128_with_seed(value, xxh3_64(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(entries: &[(&[u8], &[u8])]) -> StateSum {
        let mut sum = StateSum::default();
        entries.iter().for_each(|(key, value)| sum.add(key, value));
        sum
    }

    #[test]
    fn a_sum_is_of_a_set_of_entries() {
        let both = sum(&[(b"a", b"1"), (b"b", b"2")]);
        assert_eq!(both, sum(&[(b"b", b"2"), (b"a", b"1")]));
        assert_ne!(both, sum(&[(b"a", b"2"), (b"b", b"1")]));
        assert_ne!(sum(&[(b"ab", b"1")]), sum(&[(b"a", b"b1")]));
        let mut without_b = both;
        without_b.remove(b"b", b"2");
        assert_eq!(without_b, sum(&[(b"a", b"1")]));
    }
}
