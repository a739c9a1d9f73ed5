//! How far the chain is final.
//!
//! Nothing waits for the answer: endpoints are asked beside everything else. What they call final
//! counts once it is a block of ours and they have said so twice, for a single answer may come from
//! anywhere. Should a reorg go past it they are asked again, and may take it back.

use std::time::Duration;

use futures::FutureExt;
use shepherd_log::BlockRef;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    Finality, FollowError,
    fetch::Fetcher,
    follow::{Follower, Interrupted},
};

/// Endpoints are asked once in this many polls. Where votes make blocks final that happens once in
/// many blocks, and being told late costs nothing.
const POLLS: u32 = 16;

/// Longest time between two times, where polls are far apart because new heads are announced.
const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// What is known to be final.
#[derive(Default)]
pub(crate) struct Final {
    /// The newest block of ours that is final. It rises until it is taken back.
    pub(crate) block: Option<BlockRef>,
    /// What endpoints said last.
    said: Option<BlockRef>,
    /// What they said twice, until our chain has got there.
    claim: Option<BlockRef>,
    asking: Option<AbortOnDropHandle<Option<BlockRef>>>,
    asked: Option<Instant>,
}

impl Follower {
    /// Takes note of what has become final.
    pub(crate) async fn look_for_final(&mut self) -> Result<(), FollowError> {
        let Some(head) = self.head else { return Ok(()) };
        let claim = match self.config.finality {
            Finality::Depth(depth) => {
                let Some(number) = head.this.number.checked_sub(depth) else { return Ok(()) };
                self.canonical_block(number).await?
            }
            Finality::Tag => self.claim(),
        };
        let Some(claim) = claim.filter(|claim| claim.number <= head.this.number) else {
            return Ok(());
        };
        self.last.claim = None;
        let is_newer = self.last.block.is_none_or(|known| known.number < claim.number);
        // A block that is not ours is either a lie or on a branch that is found soon enough.
        if is_newer && self.canonical_block(claim.number).await? == Some(claim) {
            self.last.block = Some(claim);
            self.metrics.finalized.set(claim.number as i64);
            self.status.send_modify(|status| status.finalized = Some(claim));
        }
        Ok(())
    }

    /// Whether endpoints call less final than they did, now that a reorg goes past it. Then what
    /// they said was wrong, and nothing is final for now.
    pub(crate) async fn is_taken_back(&mut self, finalized: BlockRef) -> Result<bool, Interrupted> {
        if self.config.finality != Finality::Tag {
            return Ok(false);
        }
        let asked = self.fetcher.finalized(self.config.quorum.max(1));
        let now = self.unless_shutdown(asked).await?;
        let Some(now) = now.filter(|now| now.number < finalized.number) else {
            return Ok(false);
        };
        tracing::warn!(chain = %self.journal.chain(), %finalized, %now, "finality was taken back");
        self.last = Final::default();
        self.status.send_modify(|status| status.finalized = None);
        Ok(true)
    }

    /// What endpoints call final. They are asked again when that is due.
    fn claim(&mut self) -> Option<BlockRef> {
        if let Some(asking) = &mut self.last.asking
            && let Some(answered) = asking.now_or_never()
        {
            self.last.asking = None;
            // A task that did not end well has nothing to say, and the next one is not far.
            if let Some(now) = answered.ok().flatten() {
                let before = self.last.said.replace(now);
                let twice = before.map(|before| lower(before, now));
                self.last.claim = twice.or(self.last.claim);
            }
        }
        let interval = (POLLS * self.config.poll_interval).min(INTERVAL_MAX);
        let is_due = self.last.asked.is_none_or(|asked| asked.elapsed() >= interval);
        if is_due && self.last.asking.is_none() {
            let fetcher = self.fetcher.clone();
            let quorum = self.config.quorum.max(1);
            let ask = async move { fetcher.finalized(quorum).await };
            self.last.asking = Some(AbortOnDropHandle::new(tokio::spawn(ask)));
            self.last.asked = Some(Instant::now());
        }
        self.last.claim
    }
}

fn lower(a: BlockRef, b: BlockRef) -> BlockRef {
    if a.number < b.number { a } else { b }
}

impl Fetcher {
    /// The newest block that this many endpoints call final: the lowest of what the first of them
    /// say that know of finality. `None` when there are fewer.
    async fn finalized(&self, quorum: usize) -> Option<BlockRef> {
        let mut claims = Vec::new();
        for endpoint in self.pool.endpoints() {
            if let Ok(claim) = self.finalized_of(endpoint).await {
                claims.push(claim.value.header.this);
            }
            if claims.len() == quorum {
                return claims.into_iter().min_by_key(|claim| claim.number);
            }
        }
        None
    }
}
