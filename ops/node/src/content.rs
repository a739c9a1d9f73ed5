//! The logs of a block, drawn from its key.

use alloy_primitives::{B256, Bloom};

use crate::{
    Shape,
    random::{Random, key},
    universe::{EVENTS, Kind, NUMBERS, Topic, Universe},
};

/// A log, by the ranks of what it speaks of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sketch {
    pub(crate) contract: u32,
    topics: [Topic; 4],
    topics_count: u8,
    /// Words of data.
    pub(crate) words: u8,
    /// What the data follows from.
    data: u64,
    pub(crate) index: u32,
    pub(crate) transaction: u32,
}

/// The logs of a block in their order.
pub(crate) struct Sketches<'u> {
    universe: &'u Universe,
    random: Random,
    count: u32,
    index: u32,
    transaction: u32,
    /// Logs that the transaction has yet to emit.
    of_transaction: u32,
}

/// Transactions that may follow the last one with a log.
const TRANSACTIONS_SILENT: u64 = 8;

/// How many logs the block of this key has.
pub(crate) fn logs(shape: &Shape, block: u64) -> u32 {
    let (least, most) = (*shape.logs_per_block.start(), *shape.logs_per_block.end());
    least + Random::of(key(&[block, 1])).below(u64::from(most - least) + 1) as u32
}

/// How many transactions the block of this key has, when its last log is of this one.
pub(crate) fn transactions(block: u64, last: Option<u32>) -> u32 {
    let silent = Random::of(key(&[block, 2])).below(TRANSACTIONS_SILENT) as u32;
    last.map_or(0, |last| last + 1) + silent
}

/// The hash of a transaction of the block of this key. The block's height can be read from it, for
/// those who know how: no index of all transactions is needed to find one by its hash.
pub(crate) fn transaction_hash(number: u64, block: u64, index: u32) -> B256 {
    let mut hash = Random::of(key(&[block, 3, index.into()])).bytes();
    let seal = seal(&hash);
    hash[..8].copy_from_slice(&(number ^ seal).to_be_bytes());
    B256::from(hash)
}

/// The height of the block that a transaction of this hash is in, if there is such a transaction.
pub(crate) fn number_of(transaction: B256) -> u64 {
    let (number, _) = transaction.split_first_chunk().expect("a hash is longer than eight bytes");
    u64::from_be_bytes(*number) ^ seal(&transaction)
}

/// What the height in a transaction's hash is hidden by: the bytes after it.
fn seal(hash: &[u8; 32]) -> u64 {
    let (_, rest) = hash.split_first_chunk::<8>().expect("a hash is longer than eight bytes");
    let (seal, _) = rest.split_first_chunk().expect("and longer than sixteen");
    Random::of(u64::from_be_bytes(*seal)).next()
}

impl<'u> Sketches<'u> {
    /// The first `count` logs of the block of this key.
    pub(crate) fn new(universe: &'u Universe, block: u64, count: u32) -> Sketches<'u> {
        let random = Random::of(key(&[block, 4]));
        Sketches { universe, random, count, index: 0, transaction: 0, of_transaction: 0 }
    }

    /// Goes on to the next transaction that emits logs: of a busy chain every other one emits
    /// none, most of the others few, and some very many.
    fn next_transaction(&mut self) {
        let random = self.random.next();
        let silent = (random & 0xff).trailing_ones();
        let logs = 1 + ((random >> 8) & 0xffff).trailing_ones() + ((random >> 24) & 3) as u32;
        self.transaction += silent + u32::from(self.index > 0);
        self.of_transaction = logs;
    }

    fn account(&mut self) -> Topic {
        Topic::Account(self.universe.account_ranks.rank(self.random.next()))
    }
}

impl Iterator for Sketches<'_> {
    type Item = Sketch;

    fn next(&mut self) -> Option<Sketch> {
        if self.index == self.count {
            return None;
        }
        if self.of_transaction == 0 {
            self.next_transaction();
        }
        let universe = self.universe;
        let mut share = self.random.below(1000);
        let rank = universe.contract_ranks.rank(self.random.next());
        let mut sketch = Sketch {
            contract: rank,
            topics: [Topic::Number(0); 4],
            topics_count: 1,
            words: 0,
            data: self.random.next(),
            index: self.index,
            transaction: self.transaction,
        };
        let common = EVENTS.iter().position(|event| {
            let found = share < event.share;
            share = share.saturating_sub(event.share);
            found
        });
        match common {
            Some(n) => {
                let event = &EVENTS[n];
                // The contracts of one kind begin where those of another are at their rarest.
                let offset = event.by * (universe.contracts / 5);
                sketch.contract = (rank + offset) % universe.contracts;
                sketch.words = event.words;
                sketch.topics[0] = Topic::Signature(n as u16);
                for (n, kind) in event.topics.iter().enumerate() {
                    sketch.topics[n + 1] = match kind {
                        Kind::Account => self.account(),
                        Kind::Number => Topic::Number(self.random.below(NUMBERS) as u16),
                    };
                    sketch.topics_count += 1;
                }
            }
            None => {
                sketch.topics[0] = universe.rare(self.random.next());
                let random = self.random.next();
                for n in 1..=(random & 3) as usize {
                    sketch.topics[n] = match random >> (8 * n) & 1 {
                        0 => self.account(),
                        _ => Topic::Number(self.random.below(NUMBERS) as u16),
                    };
                    sketch.topics_count += 1;
                }
                // A few logs have no topic at all.
                if random >> 60 == 0 {
                    sketch.topics_count = 0;
                }
                sketch.words = 1 + (random >> 32 & 7) as u8;
            }
        }
        self.index += 1;
        self.of_transaction -= 1;
        Some(sketch)
    }
}

impl Sketch {
    pub(crate) fn topics(&self) -> &[Topic] {
        &self.topics[..usize::from(self.topics_count)]
    }

    /// Appends the log's data. Most words are amounts: many zeros and then some digits.
    pub(crate) fn write_data(&self, out: &mut Vec<u8>) {
        let mut random = Random::of(self.data);
        for _ in 0..self.words {
            let (shape, digits) = (random.next(), random.next());
            let mut word = [0; 32];
            let significant = 3 + (shape % 10) as usize;
            let value = u128::from(shape) << 64 | u128::from(digits);
            word[32 - significant..].copy_from_slice(&value.to_be_bytes()[16 - significant..]);
            out.extend_from_slice(&word);
        }
    }

    /// Adds the log to a bloom filter.
    pub(crate) fn mark(&self, universe: &Universe, bloom: &mut Bloom) {
        universe.mark_contract(bloom, self.contract);
        self.topics().iter().for_each(|topic| universe.mark_topic(bloom, *topic));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_drawn_the_same_each_time_and_transactions_are_in_order() {
        let universe = Universe::new(&Shape::small(1));
        let drawn = |key| -> Vec<Sketch> { Sketches::new(&universe, key, 300).collect() };
        let (first, again) = (drawn(7), drawn(7));
        assert_eq!(format!("{first:?}"), format!("{again:?}"));
        assert_ne!(format!("{first:?}"), format!("{:?}", drawn(8)));
        assert!(first.is_sorted_by_key(|log| log.transaction));
        assert!(first.iter().zip(0..).all(|(log, index)| log.index == index));
        let last = first.last().expect("there are 300").transaction;
        assert!((60..300).contains(&last), "{last}");
    }

    #[test]
    fn most_logs_are_transfers() {
        let universe = Universe::new(&Shape::small(1));
        let transfers = Sketches::new(&universe, 5, 10_000)
            .filter(|log| log.topics().first() == Some(&Topic::Signature(0)))
            .inspect(|log| assert_eq!((log.topics().len(), log.words), (3, 1)))
            .count();
        assert!((5_400..5_800).contains(&transfers), "{transfers}");
    }
}
