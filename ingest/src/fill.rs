//! Filling a gap: the blocks between the journal and the chain, with several fetches under way.

use std::sync::atomic::Ordering;

use futures::{FutureExt, Stream, StreamExt, stream};
use shepherd_log::Block;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    ChainState, FetchError, Link,
    fetch::{Fetched, finished},
    follow::{Follower, Interrupted, Round},
    link,
    pending::Pending,
};

/// JSON per fetch that the batch size aims at while filling a gap.
///
/// Large enough that round trips do not matter, and small enough that the fetches under way,
/// their answers and the blocks decoded from them together stay in the tens of megabytes.
const FETCH_BYTES_AIM: usize = 2 << 20;

/// Blocks of the first fetch, while the size of the chain's blocks is unknown.
pub(crate) const FIRST_FETCH_BLOCKS: usize = 8;

/// A gap up to this many blocks is everyday: polls are further apart than blocks, or a wake-up
/// came late. A larger one is called catching up.
const EVERYDAY_GAP_BLOCKS: u64 = 16;

impl Follower {
    /// Appends the canonical blocks from one height to another, both included. When one does not
    /// follow the one before it, the chain changed meanwhile, and that is seen to instead.
    pub(crate) async fn fill(&mut self, first: u64, last: u64) -> Result<Round, Interrupted> {
        if EVERYDAY_GAP_BLOCKS < last - first {
            self.report(ChainState::CatchingUp);
        }
        let mut fetches = self.fetches(first, last);
        let mut pending = Pending::default();
        loop {
            let arrived = match fetches.next().now_or_never() {
                Some(arrived) if !self.shutdown.is_cancelled() => arrived,
                Some(_) => return Err(Interrupted::Shutdown),
                None => {
                    // The next blocks are still on their way: make those durable that are here.
                    self.append(&mut pending).await?;
                    self.unless_shutdown(fetches.next()).await?
                }
            };
            let Some(arrived) = arrived else { break };
            let fetched = match arrived {
                Ok(fetched) => fetched,
                Err(error) => {
                    self.append(&mut pending).await?;
                    return Err(error.into());
                }
            };
            let size = self.fetch_blocks.load(Ordering::Relaxed);
            let blocks = fetched.value.len();
            let size = next_size(size, fetched.json_bytes, blocks, self.config.batch_blocks_max);
            self.fetch_blocks.store(size, Ordering::Relaxed);
            for block in fetched.value {
                if let Some(head) = pending.head.or(self.head) {
                    if link(head.this, &block.header) != Link::Extends {
                        drop(fetches);
                        self.append(&mut pending).await?;
                        return self.switch_to(block.header.this).await;
                    }
                    self.check_time(&block.header, fetched.from, head.timestamp)?;
                }
                if !pending.has_room_for(&block, self.config.batch_blocks_max) {
                    self.append(&mut pending).await?;
                }
                pending.push(block);
            }
        }
        self.append(&mut pending).await?;
        Ok(Round::Moved)
    }

    /// The blocks from one height to another, both included: in order, with several fetches
    /// under way. Each is a task, so that it goes on while an append is waited for.
    fn fetches(
        &self,
        first: u64,
        last: u64,
    ) -> impl Stream<Item = Result<Fetched<Vec<Block>>, FetchError>> + Unpin + use<> {
        let fetcher = self.fetcher.clone();
        let fetch_blocks = self.fetch_blocks.clone();
        let mut next = first;
        let ranges = std::iter::from_fn(move || {
            let start = next;
            let blocks = fetch_blocks.load(Ordering::Relaxed) as u64;
            next = (start + blocks).min(last + 1);
            (start < next).then_some(start..next)
        });
        stream::iter(ranges)
            .map(move |range| {
                let fetcher = fetcher.clone();
                let fetch = async move { fetcher.range(range).await };
                AbortOnDropHandle::new(tokio::spawn(fetch)).then(finished)
            })
            .buffered(self.config.fetch_parallel)
    }
}

/// Blocks of the next fetch: as many as make up the JSON we aim at, if they are as large as the
/// last ones were, but never more than twice as many as before.
fn next_size(size: usize, json_bytes: usize, blocks: usize, blocks_max: usize) -> usize {
    let block_bytes = json_bytes / blocks.max(1);
    (FETCH_BYTES_AIM / block_bytes.max(1)).min(2 * size).clamp(1, blocks_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fetches_aim_at_their_size_and_grow_at_most_twofold() {
        check(8, (0, 8), 16);
        check(8, (8 * 1000, 8), 16);
        check(64, (64 * 1000, 64), 100);
        check(100, (100 * 100_000, 100), 20);
        check(100, (100 * FETCH_BYTES_AIM, 100), 1);
        check(1, (0, 0), 2);
    }

    fn check(size: usize, (json_bytes, blocks): (usize, usize), expected: usize) {
        assert_eq!(next_size(size, json_bytes, blocks, 100), expected);
    }
}
