//! Filling a gap: the blocks between the journal and the chain, with several fetches under way.
//!
//! ```text
//!   journal ──▶ head │ pending │ arrived │ under way │ not asked for yet      ▶ the node's head
//!                    └──────────── bounded in bytes ──────────┘
//! ```
//!
//! Fetches end in any order and are appended in the order of the chain, so what is ahead of the
//! slowest one waits in memory. That is bounded in bytes, however large blocks are: while there is
//! no room, nothing more is asked for.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use futures::FutureExt;
use shepherd_log::Block;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    ChainState, Config, FetchError, Link,
    fetch::{Fetched, Fetcher, finished},
    follow::{Follower, Interrupted, Round},
    link,
    pending::Pending,
    progress::Meter,
    ranges::{self, Ranges},
};

/// JSON per fetch that the batch size aims at while filling a gap.
///
/// Large enough that round trips do not matter, and small enough that the fetches under way,
/// their answers and the blocks decoded from them together stay in the tens of megabytes.
pub(crate) const FETCH_BYTES_AIM: u64 = 2 << 20;

/// JSON of all fetches that are under way or wait for their turn.
///
/// What is decoded from it comes on top, and takes about as much again. Enough for sixteen fetches
/// of the size aimed at, which keeps a distant endpoint busy. One fetch is always under way, so a
/// single answer that is larger than this (a pool allows 64 MiB) goes through alone.
const FLIGHT_BYTES_MAX: u64 = 32 << 20;

/// Blocks of the first fetch, while the size of the chain's blocks is unknown.
pub(crate) const FIRST_FETCH_BLOCKS: usize = 8;

/// A gap up to this many blocks is everyday: polls are further apart than blocks, or a wake-up
/// came late. A larger one is called catching up.
const EVERYDAY_GAP_BLOCKS: u64 = 16;

/// A configuration with which something happens: zero fetches, or fetches of zero blocks, would
/// mean to do nothing for ever.
pub(crate) fn at_least_one(config: Config) -> Config {
    let fetch_parallel = config.fetch_parallel.max(1);
    let batch_blocks_max = config.batch_blocks_max.max(1);
    Config { fetch_parallel, batch_blocks_max, ..config }
}

/// What is known about the gaps of a chain, from one to the next.
pub(crate) struct Gap {
    /// Blocks in the next fetch.
    fetch_blocks: usize,
    /// JSON of each block of the last fetch that arrived.
    block_bytes: u64,
    ranges: Arc<Ranges>,
    flight: Arc<Flight>,
    /// The last block that is wanted.
    pub(crate) until: u64,
    /// Told of what is appended.
    pub(crate) meter: Option<Meter>,
}

impl Gap {
    /// Nothing is known yet, and all blocks are wanted.
    pub(crate) fn new(config: &Config) -> Gap {
        Gap {
            fetch_blocks: FIRST_FETCH_BLOCKS.min(config.batch_blocks_max),
            // Taken to be as large as a fetch should be, until that is known.
            block_bytes: FETCH_BYTES_AIM / FIRST_FETCH_BLOCKS as u64,
            ranges: Arc::new(Ranges::up_to(config.batch_blocks_max)),
            flight: Arc::default(),
            until: u64::MAX,
            meter: None,
        }
    }

    /// Blocks to fetch at once.
    pub(crate) fn fetch_blocks(&self) -> usize {
        self.fetch_blocks
    }

    /// Takes note of a fetch that failed. What was too much for every endpoint would be so again.
    pub(crate) fn failed(&mut self, error: &FetchError) {
        if let FetchError::Pool(error) = error
            && ranges::is_too_much(error)
        {
            self.fetch_blocks = (self.fetch_blocks / 2).max(1);
        }
    }

    /// Takes note of a fetch that arrived.
    fn arrived(&mut self, fetched: &Fetched<Vec<Block>>, blocks_max: usize) {
        let (bytes, blocks) = (fetched.json_bytes as u64, fetched.value.len() as u64);
        self.block_bytes = bytes / blocks.max(1);
        self.fetch_blocks = next_size(self.fetch_blocks, self.block_bytes, blocks_max);
        if let Some(meter) = &mut self.meter {
            meter.fetched(bytes, self.flight.bytes_max.load(Ordering::Relaxed));
        }
    }
}

impl Follower {
    /// Appends the canonical blocks from one height to another, both included. When one does not
    /// follow the one before it, the chain changed meanwhile, and that is seen to instead.
    pub(crate) async fn fill(&mut self, first: u64, last: u64) -> Result<Round, Interrupted> {
        if EVERYDAY_GAP_BLOCKS < last - first {
            self.report(ChainState::CatchingUp);
        }
        let blocks_max = self.config.batch_blocks_max;
        let end = last.min(self.gap.until) + 1;
        if let Some(meter) = &self.gap.meter {
            meter.toward(end - 1);
        }
        let mut fetches = Fetches {
            next: first,
            end,
            unsettled: first_unsettled(last, self.config.reorg_depth_max),
            parallel: self.config.fetch_parallel,
            under_way: VecDeque::new(),
        };
        let mut pending = Pending::default();
        loop {
            let arrived = match fetches.next(&self.fetcher, &self.gap).now_or_never() {
                Some(arrived) if !self.shutdown.is_cancelled() => arrived,
                Some(_) => return Err(Interrupted::Shutdown),
                None => {
                    // The next blocks are still on their way: make those durable that are here.
                    self.append_filled(&mut pending).await?;
                    self.unless_shutdown(fetches.next(&self.fetcher, &self.gap)).await?
                }
            };
            let Some((arrived, _share)) = arrived else { break };
            let fetched = match arrived {
                Ok(fetched) => fetched,
                Err(error) => {
                    self.gap.failed(&error);
                    self.append_filled(&mut pending).await?;
                    return Err(error.into());
                }
            };
            self.gap.arrived(&fetched, blocks_max);
            for block in fetched.value {
                if let Some(head) = pending.head.or(self.head) {
                    if link(head.this, &block.header) != Link::Extends {
                        drop(fetches);
                        self.append_filled(&mut pending).await?;
                        return self.switch_to(block.header.this).await;
                    }
                    self.check_time(&block.header, fetched.from, head.timestamp)?;
                }
                if !pending.has_room_for(&block, blocks_max) {
                    self.append_filled(&mut pending).await?;
                }
                pending.push(block);
            }
        }
        self.append_filled(&mut pending).await?;
        Ok(Round::Moved)
    }

    /// Makes pending blocks durable and counts them.
    async fn append_filled(&mut self, pending: &mut Pending) -> Result<(), Interrupted> {
        let (blocks, logs) = (pending.blocks, pending.logs);
        self.append(pending).await?;
        if let (Some(meter), Some(head)) = (&mut self.gap.meter, self.head) {
            meter.appended(Instant::now(), head.this.number + 1, blocks, logs);
        }
        Ok(())
    }
}

/// The first height that is so near the head that a reorg may change it: from there on logs are
/// asked for by block hash.
pub(crate) fn first_unsettled(node_head: u64, reorg_depth_max: u64) -> u64 {
    (node_head + 1).saturating_sub(reorg_depth_max)
}

/// The blocks of a gap: in order, with several fetches under way. Each is a task, so that it goes
/// on while an append is waited for.
struct Fetches {
    /// The first height that is not asked for yet.
    next: u64,
    /// The height after the last one.
    end: u64,
    /// The first height that a reorg may change, where ranges are not used.
    unsettled: u64,
    /// Fetches under way at once.
    parallel: usize,
    under_way: VecDeque<UnderWay>,
}

struct UnderWay {
    task: AbortOnDropHandle<Result<Fetched<Vec<Block>>, FetchError>>,
    share: Arc<Share>,
}

impl Fetches {
    /// The next blocks, and the hold on memory that ends when they are let go of. Nothing is lost
    /// when this is not waited for to the end.
    async fn next(
        &mut self,
        fetcher: &Fetcher,
        gap: &Gap,
    ) -> Option<(Result<Fetched<Vec<Block>>, FetchError>, Arc<Share>)> {
        while self.has_room(gap) {
            self.start(fetcher, gap);
        }
        let first = self.under_way.front_mut()?;
        let outcome = finished((&mut first.task).await).await;
        let UnderWay { share, .. } = self.under_way.pop_front().expect("it was waited for");
        Some((outcome, share))
    }

    /// Whether one more fetch may be under way.
    fn has_room(&self, gap: &Gap) -> bool {
        if self.end <= self.next || self.parallel <= self.under_way.len() {
            return false;
        }
        let bytes = gap.flight.bytes.load(Ordering::Relaxed) + expected_bytes(gap);
        self.under_way.is_empty() || bytes <= FLIGHT_BYTES_MAX
    }

    fn start(&mut self, fetcher: &Fetcher, gap: &Gap) {
        let heights = next_fetch(self.next..self.end, self.unsettled, gap.fetch_blocks as u64);
        self.next = heights.end;
        let share = Arc::new(gap.flight.share(expected_bytes(gap)));
        let (fetcher, ranges, held) = (fetcher.clone(), gap.ranges.clone(), share.clone());
        let unsettled = self.unsettled;
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let fetched = match heights.end <= unsettled {
                true => fetcher.history(heights, &ranges).await?,
                false => fetcher.range(heights).await?,
            };
            held.becomes(fetched.json_bytes as u64);
            Ok(fetched)
        }));
        self.under_way.push_back(UnderWay { task, share });
    }
}

/// The heights of the next fetch: so many blocks, all of them settled or none.
pub(crate) fn next_fetch(wanted: Range<u64>, unsettled: u64, blocks: u64) -> Range<u64> {
    let end = match wanted.start < unsettled {
        true => wanted.end.min(unsettled),
        false => wanted.end,
    };
    wanted.start..end.min(wanted.start + blocks)
}

fn expected_bytes(gap: &Gap) -> u64 {
    gap.block_bytes * gap.fetch_blocks as u64
}

/// JSON that is asked for or here, and not appended yet.
#[derive(Default)]
struct Flight {
    bytes: AtomicU64,
    /// The most there ever was.
    bytes_max: AtomicU64,
}

/// A part of [`Flight`], for as long as it lives.
struct Share {
    flight: Arc<Flight>,
    bytes: AtomicU64,
}

impl Flight {
    fn share(self: &Arc<Flight>, bytes: u64) -> Share {
        self.add(bytes);
        Share { flight: self.clone(), bytes: AtomicU64::new(bytes) }
    }

    fn add(&self, bytes: u64) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes_max.fetch_max(before + bytes, Ordering::Relaxed);
    }
}

impl Share {
    /// The size was a guess and is known now.
    fn becomes(&self, bytes: u64) {
        let guess = self.bytes.swap(bytes, Ordering::Relaxed);
        self.flight.add(bytes.saturating_sub(guess));
        self.flight.bytes.fetch_sub(guess.saturating_sub(bytes), Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.flight.bytes.fetch_sub(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Blocks of the next fetch: as many as make up the JSON we aim at, if they are as large as the
/// last ones were, but never more than twice as many as before.
pub(crate) fn next_size(size: usize, block_bytes: u64, blocks_max: usize) -> usize {
    let blocks = FETCH_BYTES_AIM / block_bytes.max(1);
    usize::try_from(blocks).unwrap_or(usize::MAX).min(2 * size).clamp(1, blocks_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fetches_aim_at_their_size_and_grow_at_most_twofold() {
        check(8, 0, 16);
        check(8, 1000, 16);
        check(64, 1000, 100);
        check(100, 100_000, 20);
        check(100, 100 * FETCH_BYTES_AIM, 1);
        check(1, 0, 2);
    }

    fn check(size: usize, block_bytes: u64, expected: usize) {
        assert_eq!(next_size(size, block_bytes, 100), expected);
    }

    #[test]
    fn a_fetch_is_of_settled_blocks_or_of_none() {
        assert_eq!(next_fetch(5..100, 50, 30), 5..35);
        assert_eq!(next_fetch(35..100, 50, 30), 35..50);
        assert_eq!(next_fetch(50..100, 50, 30), 50..80);
        assert_eq!(next_fetch(80..100, 50, 30), 80..100);
        assert_eq!(next_fetch(5..20, 50, 30), 5..20);
        assert_eq!(next_fetch(5..20, 0, 30), 5..20);
    }

    #[test]
    fn the_last_blocks_before_the_head_are_not_settled() {
        assert_eq!(first_unsettled(100, 64), 37);
        assert_eq!(first_unsettled(10, 64), 0);
        assert_eq!(first_unsettled(10, 0), 11);
    }

    #[test]
    fn a_share_of_the_flight_ends_with_it() {
        let flight = Arc::<Flight>::default();
        let share = flight.share(100);
        share.becomes(20);
        share.becomes(300);
        let other = flight.share(50);
        assert_eq!(flight.bytes.load(Ordering::Relaxed), 350);
        drop((share, other));
        assert_eq!(flight.bytes.load(Ordering::Relaxed), 0);
        assert_eq!(flight.bytes_max.load(Ordering::Relaxed), 350);
    }
}
