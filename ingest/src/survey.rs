//! Which of several heads to follow.
//!
//! ```text
//!   endpoint a   ──▶ 5 ──▶ 6                   stuck: asked after the others
//!   endpoint b   ──▶ 5 ──▶ 6 ──▶ 7 ──▶ 8       followed
//!   endpoint c   ──▶ 5 ──▶ 6'                  behind, and on a branch that others have left
//! ```
//!
//! Usually the first endpoint alone is asked for its head. When that shows nothing new for a
//! while, or something other than the next block, all are asked: an endpoint that is stuck must
//! not hold the chain, and one that lags must not take it back.

use std::time::Duration;

use futures::{StreamExt, stream::FuturesUnordered};
use shepherd_log::BlockRef;
use tokio::time::{Instant, timeout_at};

use crate::{
    Disagreement, FetchError, Lagging,
    fetch::{Fetched, Fetcher},
    follow::{Follower, Interrupted},
    verify::VerifiedHeader,
};

/// All endpoints are asked after this many polls without news. Where a block takes several polls,
/// that is about once for each block.
const QUIET_POLLS: u32 = 4;

/// All endpoints are asked at this look for a block that was announced. The first comes at once,
/// and each node has a new block within some tens of milliseconds.
const ANNOUNCED_LOOKS: u32 = 3;

/// Longest wait for all endpoints to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Wait for the other endpoints once enough have shown something new.
const GRACE: Duration = Duration::from_millis(100);

/// When to ask all endpoints.
pub(crate) struct Pace {
    /// When there was news, or all were asked.
    quiet_since: Instant,
    /// Looks for a block that was announced and did not show yet.
    looks: u32,
}

impl Pace {
    pub(crate) fn new() -> Pace {
        Pace { quiet_since: Instant::now(), looks: 0 }
    }

    /// A new block came.
    pub(crate) fn news(&mut self) {
        *self = Pace::new();
    }

    /// A new block was announced.
    pub(crate) fn announced(&mut self) {
        self.looks = 1;
    }

    /// Whether all endpoints are to be asked this time.
    fn is_due(&mut self, poll_interval: Duration) -> bool {
        if self.looks > 0 {
            self.looks += 1;
        }
        self.looks == ANNOUNCED_LOOKS || self.quiet_since.elapsed() >= QUIET_POLLS * poll_interval
    }
}

impl Follower {
    /// The newest block: that of the first endpoint or, when it is time to, of those that are
    /// furthest.
    pub(crate) async fn newest(&mut self) -> Result<Fetched<VerifiedHeader>, Interrupted> {
        let several = self.fetcher.pool.endpoints().len() > 1;
        if self.config.quorum > 1 || (several && self.pace.is_due(self.config.poll_interval)) {
            return self.survey().await;
        }
        let latest = self.unless_shutdown(self.fetcher.latest()).await??;
        let is_behind = self.head.is_some_and(|head| {
            let theirs = &latest.value.header;
            theirs.this.number < head.this.number
                || theirs.this.number == head.this.number && theirs.this != head.this
                || theirs.this.number == head.this.number + 1 && theirs.parent != head.this.hash
        });
        match several && is_behind {
            true => self.survey().await,
            false => Ok(latest),
        }
    }

    /// Asks all endpoints for their heads and picks one, which as many as must agree have reached.
    /// Those that have not are asked after the others from now on.
    async fn survey(&mut self) -> Result<Fetched<VerifiedHeader>, Interrupted> {
        let quorum = self.config.quorum.max(1);
        let ours = self.head.map(|head| head.this);
        let sightings = self.unless_shutdown(self.fetcher.sightings(ours, quorum)).await?;
        self.pace = Pace::new();
        let mut seen = Vec::new();
        for sighting in sightings {
            match sighting {
                Ok(head) => seen.push(head),
                Err(error) => self.blame(&error, 0),
            }
        }
        // Whoever was caught leads the chain nowhere while enough others speak.
        let is_trusted = |head: &Fetched<_>| !self.fetcher.pool.is_distrusted(head.from);
        if seen.iter().filter(|head| is_trusted(head)).count() >= quorum {
            seen.retain(is_trusted);
        }
        let heads: Vec<BlockRef> = seen.iter().map(|head| head.value.header.this).collect();
        let Some(Choice { chosen, behind }) = choose(&heads, ours, quorum) else {
            if seen.is_empty() {
                // The pool says best why nobody answers, and when to try again.
                return Ok(self.unless_shutdown(self.fetcher.latest()).await??);
            }
            let answered = seen.len();
            return Err(FetchError::from(Disagreement::TooFew { quorum, answered }).into());
        };
        let pool = &self.fetcher.pool;
        let mut lagging = Vec::new();
        for (head, behind_blocks) in seen.iter().zip(behind) {
            pool.report_lagging(head.from, behind_blocks);
            if behind_blocks > 0 {
                let endpoint = pool.name_of(head.from).to_owned();
                lagging.push(Lagging { endpoint, behind_blocks });
            }
        }
        self.status.send_if_modified(|status| {
            let changed = status.lagging != lagging;
            status.lagging = lagging;
            changed
        });
        Ok(seen.swap_remove(chosen))
    }
}

impl Fetcher {
    /// The heads of all endpoints, in the order in which they are tried. Once this many are past
    /// ours, the others are waited for no longer than a moment.
    async fn sightings(
        &self,
        ours: Option<BlockRef>,
        enough: usize,
    ) -> Vec<Result<Fetched<VerifiedHeader>, FetchError>> {
        let ask = |(position, endpoint)| {
            let fetcher = self.clone();
            async move { (position, fetcher.latest_of(endpoint).await) }
        };
        let mut asked: FuturesUnordered<_> =
            self.pool.endpoints().into_iter().enumerate().map(ask).collect();
        let mut deadline = Instant::now() + PATIENCE;
        let mut past_ours = 0;
        let mut sightings = Vec::new();
        while let Ok(Some((position, sighting))) = timeout_at(deadline, asked.next()).await {
            let number = sighting.as_ref().ok().map(|head| head.value.header.this.number);
            if number > ours.map(|ours| ours.number) {
                past_ours += 1;
            }
            if past_ours >= enough {
                deadline = deadline.min(Instant::now() + GRACE);
            }
            sightings.push((position, sighting));
        }
        sightings.sort_by_key(|(position, _)| *position);
        sightings.into_iter().map(|(_, sighting)| sighting).collect()
    }
}

/// Which of several heads to follow.
#[derive(Debug, PartialEq, Eq)]
struct Choice {
    /// Its position.
    chosen: usize,
    /// How far each of them is behind it.
    behind: Vec<u64>,
}

/// Picks the highest head that as many endpoints as must agree have reached; of equally high ones
/// our own, for a block beside it is a reason to change only once another follows it. `None` when
/// too few have answered.
fn choose(heads: &[BlockRef], ours: Option<BlockRef>, quorum: usize) -> Option<Choice> {
    let mut heights: Vec<u64> = heads.iter().map(|head| head.number).collect();
    heights.sort_unstable_by(|a, b| b.cmp(a));
    let height = *heights.get(quorum.max(1) - 1)?;
    let is_ours = heads.iter().position(|head| head.number == height && Some(*head) == ours);
    let chosen = is_ours.or_else(|| heads.iter().position(|head| head.number == height))?;
    let behind = heads.iter().map(|head| height.saturating_sub(head.number)).collect();
    Some(Choice { chosen, behind })
}

#[cfg(test)]
mod tests {
    use alloy_primitives::B256;

    use super::*;

    #[test]
    fn the_highest_head_is_followed_and_ours_among_equals() {
        check(&[(6, 0xa), (8, 0xc)], (6, 0xa), 1, Some((1, &[2, 0])));
        check(&[(8, 0xc), (8, 0xd)], (8, 0xd), 1, Some((1, &[0, 0])));
        check(&[(8, 0xc), (8, 0xd)], (7, 0xb), 1, Some((0, &[0, 0])));
        check(&[(6, 0xf), (8, 0xc)], (8, 0xc), 1, Some((1, &[2, 0])));
        check(&[(9, 0xe), (8, 0xc)], (8, 0xc), 1, Some((0, &[0, 1])));
        check(&[], (8, 0xc), 1, None);
    }

    #[test]
    fn with_a_quorum_the_head_is_one_that_enough_have_reached() {
        check(&[(9, 0xe), (7, 0xb), (8, 0xc)], (6, 0xa), 2, Some((2, &[0, 1, 0])));
        check(&[(9, 0xe), (7, 0xb), (8, 0xc)], (6, 0xa), 3, Some((1, &[0, 0, 0])));
        check(&[(9, 0xe), (7, 0xb)], (6, 0xa), 3, None);
    }

    fn check(
        heads: &[(u64, u8)],
        ours: (u64, u8),
        quorum: usize,
        expected: Option<(usize, &[u64])>,
    ) {
        let block = |(number, hash)| BlockRef { number, hash: B256::repeat_byte(hash) };
        let heads: Vec<BlockRef> = heads.iter().copied().map(block).collect();
        let expected = expected.map(|(chosen, behind)| Choice { chosen, behind: behind.to_vec() });
        assert_eq!(choose(&heads, Some(block(ours)), quorum), expected, "{heads:?}");
    }

    #[test]
    fn all_are_asked_after_a_quiet_while_and_when_an_announced_block_does_not_show() {
        let long = Duration::from_secs(3600);
        let mut pace = Pace::new();
        assert!(!pace.is_due(long));
        assert!(pace.is_due(Duration::ZERO));
        pace.announced();
        assert_eq!([0; 4].map(|_| pace.is_due(long)), [false, true, false, false]);
        pace.announced();
        pace.news();
        assert_eq!([0; 4].map(|_| pace.is_due(long)), [false; 4]);
    }
}
