//! Numbers that follow from a key.
//!
//! A chain of millions of logs is not kept anywhere: each block is drawn again, from its key,
//! whenever somebody asks for it. So drawing must be fast, and must never change with the version
//! of a library.

/// A stream of numbers (SplitMix64) that follows from its key.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream of a key.
    pub(crate) fn of(key: u64) -> Random {
        Random(key)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// The next number below a bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// 32 bytes that do not repeat.
    pub(crate) fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for part in bytes.chunks_exact_mut(8) {
            part.copy_from_slice(&self.next().to_be_bytes());
        }
        bytes
    }
}

/// Scatters the bits of a number.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A key made of several numbers, whose order matters.
pub(crate) fn key(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |key, part| mix(key.rotate_left(17) ^ mix(part.wrapping_add(1))))
}

/// Ranks that come up as a power law wants: the first one often, the last ones hardly ever.
#[derive(Debug)]
pub(crate) struct Skewed {
    /// The rank at each of equally likely places.
    quantiles: Vec<u32>,
}

impl Skewed {
    /// Ranks below `ranks`; the n-th comes up in proportion to `n^-exponent`. More places make the
    /// rare ranks' frequency more exact; between two places all ranks are equally likely.
    pub(crate) fn new(ranks: u32, exponent: f64, places: usize) -> Skewed {
        let weight = |rank: u32| (f64::from(rank) + 1.0).powf(-exponent);
        let total: f64 = (0..ranks).map(weight).sum();
        let mut quantiles = Vec::with_capacity(places + 1);
        let mut cumulated = 0.0;
        for rank in 0..ranks {
            cumulated += weight(rank);
            while (quantiles.len() as f64) < cumulated / total * places as f64 {
                quantiles.push(rank);
            }
        }
        quantiles.resize(places + 1, ranks - 1);
        Skewed { quantiles }
    }

    /// The rank that a random number stands for.
    pub(crate) fn rank(&self, random: u64) -> u32 {
        let places = self.quantiles.len() as u64 - 1;
        let place = (((random >> 32) * places) >> 32) as usize;
        let (from, to) = (self.quantiles[place], self.quantiles[place + 1]);
        from + (((random & 0xffff_ffff) * u64::from(to - from + 1)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rank_comes_up_most_and_the_last_one_too() {
        let skewed = Skewed::new(1000, 1.0, 4096);
        let mut random = Random::of(1);
        let mut counts = [0_u32; 1000];
        for _ in 0..100_000 {
            counts[skewed.rank(random.next()) as usize] += 1;
        }
        // The harmonic number of 1000 is 7.49: one in 7.49 is the first, one in 15 the second.
        assert!((12_500..14_200).contains(&counts[0]), "{}", counts[0]);
        assert!((6_000..7_400).contains(&counts[1]), "{}", counts[1]);
        let rare: u32 = counts[900..].iter().sum();
        assert!((1_000..1_900).contains(&rare), "{rare}");
    }

    #[test]
    fn keys_depend_on_the_order_of_their_parts() {
        assert_ne!(key(&[1, 2]), key(&[2, 1]));
        assert_ne!(key(&[0]), key(&[0, 0]));
        assert_eq!(key(&[7, 8]), key(&[7, 8]));
    }
}
