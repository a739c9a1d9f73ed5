//! The contracts, accounts and events of a synthetic chain.
//!
//! They are known by their rank. What a rank stands for is computed when it is written down; what
//! it does to a bloom filter, which takes a hash, is computed once, before the first block.

use std::thread;

use alloy_primitives::{Address, B256, Bloom, keccak256};

use crate::{
    Shape,
    random::{Random, Skewed, key},
};

/// The contracts, accounts and events of a synthetic chain.
#[derive(Debug)]
pub(crate) struct Universe {
    seed: u64,
    pub(crate) contract_ranks: Skewed,
    pub(crate) account_ranks: Skewed,
    pub(crate) event_ranks: Skewed,
    pub(crate) contracts: u32,
    contract_marks: Vec<Mark>,
    account_marks: Vec<Mark>,
    number_marks: Vec<Mark>,
    signatures: Vec<(B256, Mark)>,
}

/// What a log's topic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    /// Which event it is.
    Signature(u16),
    /// An account, or a contract as one.
    Account(u32),
    /// A small number, such as the id of a token.
    Number(u16),
}

/// The bits that a value sets in a bloom filter.
#[derive(Clone, Copy, Debug)]
struct Mark([u16; 3]);

/// An event that is seen everywhere.
pub(crate) struct Event {
    signature: &'static str,
    /// Of a thousand logs.
    pub(crate) share: u64,
    /// After the signature.
    pub(crate) topics: &'static [Kind],
    /// The words of its data.
    pub(crate) words: u8,
    /// Which contracts emit it: those of one kind are apart from those of another.
    pub(crate) by: u32,
}

/// What an event's topic is about.
pub(crate) enum Kind {
    /// An account.
    Account,
    /// A number.
    Number,
}

use Kind::{Account, Number};

/// Shares as they are on mainnet to within some percent. What is left of a thousand are
/// [`EVENTS_RARE`] others.
pub(crate) const EVENTS: &[Event] = &[
    event("Transfer(address,address,uint256)", 560, &[Account, Account], 1, 0),
    event("Approval(address,address,uint256)", 70, &[Account, Account], 1, 0),
    event("Swap(address,uint256,uint256,uint256,uint256,address)", 60, &[Account, Account], 4, 1),
    event("Sync(uint112,uint112)", 60, &[], 2, 1),
    event(
        "Swap(address,address,int256,int256,uint160,uint128,int24)",
        60,
        &[Account, Account],
        5,
        2,
    ),
    event("Deposit(address,uint256)", 30, &[Account], 1, 3),
    event("Withdrawal(address,uint256)", 30, &[Account], 1, 3),
    // The same signature as a token's transfer, with the token's id as a topic.
    event("Transfer(address,address,uint256)", 25, &[Account, Account, Number], 0, 4),
    event(
        "TransferSingle(address,address,address,uint256,uint256)",
        15,
        &[Account, Account, Account],
        2,
        4,
    ),
];

/// Events that are seen now and then.
const EVENTS_RARE: u16 = 2000;

/// Numbers that occur as topics.
pub(crate) const NUMBERS: u64 = 4096;

const fn event(
    signature: &'static str,
    share: u64,
    topics: &'static [Kind],
    words: u8,
    by: u32,
) -> Event {
    Event { signature, share, topics, words, by }
}

impl Universe {
    pub(crate) fn new(shape: &Shape) -> Universe {
        let Shape { seed, contracts, accounts, .. } = *shape;
        let places = (accounts as usize).next_power_of_two().clamp(1 << 8, 1 << 16);
        let mut universe = Universe {
            seed,
            contract_ranks: Skewed::new(contracts, 1.05, places),
            account_ranks: Skewed::new(accounts, 0.8, places),
            event_ranks: Skewed::new(EVENTS_RARE.into(), 1.0, places),
            contracts,
            contract_marks: Vec::new(),
            account_marks: Vec::new(),
            number_marks: Vec::new(),
            signatures: Vec::new(),
        };
        let common = EVENTS.iter().map(|event| event.signature.to_owned());
        let rare = (0..EVENTS_RARE).map(|n| format!("Event{n}(address,uint256)"));
        universe.signatures = common
            .chain(rare)
            .map(|text| {
                let signature = keccak256(text);
                (signature, Mark::of(signature.as_slice()))
            })
            .collect();
        universe.contract_marks =
            in_parallel(contracts, |rank| Mark::of(universe.contract(rank).as_slice()));
        universe.account_marks =
            in_parallel(accounts, |rank| Mark::of(universe.topic(Topic::Account(rank)).as_slice()));
        universe.number_marks = in_parallel(NUMBERS as u32, |number| {
            Mark::of(universe.topic(Topic::Number(number as u16)).as_slice())
        });
        universe
    }

    /// The address of a contract.
    pub(crate) fn contract(&self, rank: u32) -> Address {
        self.address(1, rank)
    }

    /// The 32 bytes of a topic.
    pub(crate) fn topic(&self, topic: Topic) -> B256 {
        match topic {
            Topic::Signature(event) => self.signatures[usize::from(event)].0,
            Topic::Account(rank) => self.address(2, rank).into_word(),
            Topic::Number(number) => B256::left_padding_from(&number.to_be_bytes()),
        }
    }

    /// A rare event.
    pub(crate) fn rare(&self, random: u64) -> Topic {
        Topic::Signature(EVENTS.len() as u16 + self.event_ranks.rank(random) as u16)
    }

    /// Adds a contract to a bloom filter.
    pub(crate) fn mark_contract(&self, bloom: &mut Bloom, rank: u32) {
        self.contract_marks[rank as usize].set(bloom);
    }

    /// Adds a topic to a bloom filter.
    pub(crate) fn mark_topic(&self, bloom: &mut Bloom, topic: Topic) {
        let mark = match topic {
            Topic::Signature(event) => self.signatures[usize::from(event)].1,
            Topic::Account(rank) => self.account_marks[rank as usize],
            Topic::Number(number) => self.number_marks[usize::from(number)],
        };
        mark.set(bloom);
    }

    fn address(&self, kind: u64, rank: u32) -> Address {
        Address::from_slice(&Random::of(key(&[self.seed, kind, rank.into()])).bytes()[..20])
    }
}

impl Mark {
    fn of(value: &[u8]) -> Mark {
        let hash = keccak256(value);
        Mark([0, 2, 4].map(|n| u16::from_be_bytes([hash[n], hash[n + 1]]) & 0x7ff))
    }

    fn set(self, bloom: &mut Bloom) {
        for bit in self.0 {
            bloom.0[255 - usize::from(bit / 8)] |= 1 << (bit % 8);
        }
    }
}

/// The values of a function from zero on, computed on all processors.
pub(crate) fn in_parallel<T: Send>(count: u32, value: impl Fn(u32) -> T + Sync) -> Vec<T> {
    // A thread costs more than a few hundred hashes.
    let threads =
        if count < 1000 { 1 } else { thread::available_parallelism().map_or(1, usize::from) };
    let share = count.div_ceil(threads as u32).max(1);
    let value = &value;
    thread::scope(|scope| {
        let parts: Vec<_> = (0..threads as u32)
            .map(|n| {
                let part = (n * share).min(count)..((n + 1) * share).min(count);
                scope.spawn(move || part.map(value).collect::<Vec<T>>())
            })
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("a value does not panic")).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_what_the_bloom_filter_of_ethereum_has() {
        let universe = Universe::new(&Shape::small(3));
        let topics = [Topic::Signature(0), Topic::Account(9), Topic::Number(77)];
        let mut marked = Bloom::ZERO;
        universe.mark_contract(&mut marked, 5);
        topics.iter().for_each(|topic| universe.mark_topic(&mut marked, *topic));
        let mut expected = Bloom::ZERO;
        expected.accrue_raw_log(universe.contract(5), &topics.map(|topic| universe.topic(topic)));
        assert_eq!(marked, expected);
    }

    #[test]
    fn work_done_in_parallel_keeps_its_order() {
        assert_eq!(in_parallel(2001, |n| n), (0..2001).collect::<Vec<_>>());
        assert_eq!(in_parallel(1, |n| n), [0]);
    }
}
