//! Which blocks and logs concern a module: decided from the block alone.

use std::num::NonZeroU64;

use alloy_primitives::{Address, B256};
use shepherd_log::BlockRef;

use crate::input::{BlockInput, LogRef, Triggers};

/// What a manifest subscribes to, resolved for one chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Logs that match any of these.
    pub logs: Vec<LogFilter>,
    /// Every block whose number is a multiple of this.
    pub block_every: Option<NonZeroU64>,
    /// The first block at or after every multiple of this many seconds since 1970.
    pub tick_seconds: Option<NonZeroU64>,
}

/// One `[[subscribe.log]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Sorted, so that a long list is searched and not walked.
    addresses: Vec<Address>,
    /// Sorted, too.
    topics: [Vec<B256>; 4],
}

impl LogFilter {
    /// A filter for these contracts and, for each topic, these alternatives. An empty list means
    /// any; an empty list of alternatives also matches logs that lack the topic.
    pub fn new(addresses: Vec<Address>, topics: [Vec<B256>; 4]) -> LogFilter {
        LogFilter { addresses: sorted(addresses), topics: topics.map(sorted) }
    }

    /// The same topics, of these contracts.
    #[must_use]
    pub fn at(self, addresses: Vec<Address>) -> LogFilter {
        LogFilter { addresses: sorted(addresses), ..self }
    }

    /// The contracts, in byte order. Empty means any.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// For each topic its alternatives, in byte order. Empty means any.
    pub fn topics(&self) -> &[Vec<B256>; 4] {
        &self.topics
    }

    /// Whether a log with this address and these topics matches.
    pub fn matches(&self, address: &Address, topics: &[B256]) -> bool {
        if !self.addresses.is_empty() && self.addresses.binary_search(address).is_err() {
            return false;
        }
        self.topics.iter().enumerate().all(|(position, alternatives)| {
            alternatives.is_empty()
                || topics
                    .get(position)
                    .is_some_and(|topic| alternatives.binary_search(topic).is_ok())
        })
    }
}

fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort_unstable();
    items.dedup();
    items
}

impl Subscription {
    /// Whether a log with this address and these topics matches any filter.
    pub fn wants_log(&self, address: &Address, topics: &[B256]) -> bool {
        self.logs.iter().any(|filter| filter.matches(address, topics))
    }

    /// Whether the module is called for a block of this number and time, whatever its logs.
    ///
    /// `previous_timestamp` is that of the block before. A tick falls on the first block at or
    /// after each multiple of the duration; a gap that spans several multiples is one tick.
    /// Where no block came before, in the first block of a journal, there is a tick: whatever
    /// a module does periodically has not been done yet.
    pub fn clock(&self, number: u64, timestamp: u64, previous_timestamp: Option<u64>) -> Triggers {
        let block = self.block_every.is_some_and(|every| number % every == 0);
        let tick = self.tick_seconds.is_some_and(|seconds| match previous_timestamp {
            Some(previous) => timestamp / seconds > previous / seconds,
            None => true,
        });
        Triggers { logs: false, block, tick }
    }

    /// The block as the module sees it, or `None` when it does not concern the module.
    pub fn select<'a>(
        &self,
        this: BlockRef,
        parent: B256,
        timestamp: u64,
        previous_timestamp: Option<u64>,
        logs: impl IntoIterator<Item = LogRef<'a>>,
    ) -> Option<BlockInput<'a>> {
        let mut triggers = self.clock(this.number, timestamp, previous_timestamp);
        let logs: Vec<LogRef<'a>> =
            logs.into_iter().filter(|log| self.wants_log(&log.address, log.topics)).collect();
        triggers.logs = !logs.is_empty();
        triggers.any().then_some(BlockInput { this, parent, timestamp, triggers, logs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Address = Address::repeat_byte(0xa);
    const B: Address = Address::repeat_byte(0xb);

    fn topic(n: u8) -> B256 {
        B256::repeat_byte(n)
    }

    fn check(filter: &LogFilter, address: Address, topics: &[u8], expected: bool) {
        let topics: Vec<B256> = topics.iter().copied().map(topic).collect();
        assert_eq!(filter.matches(&address, &topics), expected, "{filter:?} {address} {topics:?}");
    }

    #[test]
    fn a_filter_matches_any_alternative_at_every_position_it_names() {
        let any = LogFilter::default();
        check(&any, A, &[], true);
        check(&any, B, &[1, 2, 3, 4], true);

        let address = LogFilter::default().at(vec![A]);
        check(&address, A, &[], true);
        check(&address, B, &[], false);

        let topics = [vec![topic(2), topic(1)], vec![], vec![topic(3)], vec![]];
        let filter = LogFilter::new(vec![B, A], topics);
        check(&filter, A, &[1, 9, 3], true);
        check(&filter, B, &[2, 9, 3, 9], true);
        check(&filter, A, &[3, 9, 3], false);
        check(&filter, A, &[1, 9, 4], false);
        check(&filter, A, &[1, 9], false);
        check(&filter, A, &[], false);
    }

    fn tick(seconds: u64, previous: Option<u64>, now: u64) -> bool {
        let tick_seconds = NonZeroU64::new(seconds);
        let subscription = Subscription { tick_seconds, ..Subscription::default() };
        subscription.clock(1, now, previous).tick
    }

    #[test]
    fn a_tick_is_the_first_block_at_or_after_a_multiple() {
        assert!(!tick(60, Some(60), 119));
        assert!(tick(60, Some(119), 120));
        assert!(tick(60, Some(119), 121));
        assert!(!tick(60, Some(120), 121));
        assert!(tick(60, Some(0), 100_000), "a long gap is one tick");
        assert!(!tick(60, Some(120), 120), "two blocks may share a timestamp");
        assert!(!tick(60, Some(180), 120), "time that goes back does not tick");
        assert!(tick(60, None, 1), "the first block ticks");
    }

    fn select(subscription: &Subscription, number: u64, topics: &[&[B256]]) -> Option<Triggers> {
        let this = BlockRef { number, hash: topic(7) };
        let logs = topics.iter().zip(0..).map(|(topics, index)| LogRef {
            address: A,
            topics,
            data: &[],
            index,
            transaction_index: 0,
            transaction_hash: B256::ZERO,
        });
        let input = subscription.select(this, B256::ZERO, 10, Some(9), logs)?;
        assert_eq!(input.triggers.logs, !input.logs.is_empty());
        assert!(input.logs.iter().all(|log| log.topics == [topic(1)]));
        Some(input.triggers)
    }

    #[test]
    fn a_block_is_selected_for_its_logs_or_its_number() {
        let filter = LogFilter::new(vec![], [vec![topic(1)], vec![], vec![], vec![]]);
        let subscription = Subscription {
            logs: vec![filter],
            block_every: NonZeroU64::new(5),
            tick_seconds: None,
        };
        let logs = Triggers { logs: true, ..Triggers::default() };
        let block = Triggers { block: true, ..Triggers::default() };
        assert_eq!(select(&subscription, 4, &[]), None);
        assert_eq!(select(&subscription, 4, &[&[topic(2)]]), None);
        assert_eq!(select(&subscription, 4, &[&[topic(2)], &[topic(1)]]), Some(logs));
        assert_eq!(select(&subscription, 5, &[]), Some(block));
        let both = Triggers { logs: true, block: true, tick: false };
        assert_eq!(select(&subscription, 0, &[&[topic(1)]]), Some(both));
    }
}
