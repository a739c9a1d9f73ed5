//! Brings a journal from where it ends to a block of the past, or to the newest one.
//!
//! This is the follower with an end: the same rounds, the same checks, the same appends in order.
//! The journal is all there is to resume from, so it can be stopped at any moment, and live
//! following takes up where it left off.

use std::time::{Duration, Instant};

use shepherd_log::{Header, Journal, Tail};
use shepherd_rpc::Pool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    ChainStatus, Config, FollowError, Metrics, NoSuchBlock, Progress,
    fetch::Fetcher,
    follow::{Follower, Interrupted, Round},
    plan::{self, Sample},
    progress::{Density, Meter},
    start::{self, Unresolved},
};

/// The last block of an ingest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The block of this number.
    Block(u64),
    /// The last block that is not younger than this Unix time in seconds.
    At(u64),
    /// The newest block, by the time that it is reached.
    Head,
}

/// A gap is sampled at this many heights, to tell how many logs are to come.
const SAMPLES: usize = 8;

/// Gaps below this many blocks are not worth sampling.
const SAMPLED_GAP_BLOCKS: u64 = 1_000;

/// Brings a journal from its head, or from `config.start` when it is empty, to `to`.
///
/// Returns where the journal ends then. When `shutdown` comes first, that is somewhere on the way;
/// the next ingest goes on from there. A block that the journal has already is reached at once.
/// Trouble with endpoints shows in `progress`, and is retried for ever.
pub async fn ingest(
    journal: Journal,
    pool: Pool,
    config: Config,
    to: Until,
    progress: watch::Sender<Progress>,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<Tail, FollowError> {
    let status = watch::Sender::new(ChainStatus::starting());
    let mut follower = Follower::new(journal, pool, config, status, metrics, shutdown);
    follower.ingest(to, progress).await
}

/// The blocks between a journal and the last one that is wanted.
pub(crate) struct Span {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Span {
    /// The blocks to ingest on a chain whose newest block is `node_head`, after the journal's head
    /// or from the configured start.
    pub(crate) async fn find(
        head: Option<u64>,
        config: &Config,
        to: Until,
        node_head: &Header,
        fetcher: &Fetcher,
    ) -> Result<Span, Unresolved> {
        let last = match to {
            // What the journal has, it has, whatever the node says.
            Until::Block(last) if head.is_some_and(|head| last <= head) => last,
            Until::Block(last) => start::has_reached(last, node_head)?,
            Until::At(time) => start::last_until(time, node_head, fetcher).await?,
            Until::Head => node_head.this.number,
        };
        if let Some(head) = head {
            return Ok(Span { first: head + 1, last });
        }
        let first = start::resolve(config.start, node_head, fetcher).await?;
        if last < first {
            return Err(NoSuchBlock::Backwards { first, last }.into());
        }
        Ok(Span { first, last })
    }

    pub(crate) fn blocks(&self) -> u64 {
        (self.last + 1).saturating_sub(self.first)
    }
}

impl Follower {
    async fn ingest(
        &mut self,
        to: Until,
        progress: watch::Sender<Progress>,
    ) -> Result<Tail, FollowError> {
        self.resume().await?;
        let mut begun = false;
        loop {
            let outcome = match begun {
                false => self.begin(to, &progress).await,
                true => self.ingest_round(to).await,
            };
            begun |= outcome.is_ok();
            let wait = match outcome {
                Ok(Ingested::All) | Err(Interrupted::Shutdown) => return Ok(self.journal.tail()),
                Ok(Ingested::Some) => continue,
                Ok(Ingested::Nothing) => self.config.poll_interval,
                Err(Interrupted::Fatal(error)) => return Err(error),
                Err(Interrupted::Fetch(error)) => {
                    self.say_waiting(&progress, error.to_string());
                    self.note_failure(&error)
                }
            };
            self.rest(wait).await;
        }
    }

    /// Finds out what there is to do.
    async fn begin(
        &mut self,
        to: Until,
        progress: &watch::Sender<Progress>,
    ) -> Result<Ingested, Interrupted> {
        let head = self.head.map(|head| head.this.number);
        let (span, samples) = {
            let find = async {
                let node_head = self.fetcher.latest().await?.value.header;
                let span = Span::find(head, &self.config, to, &node_head, &self.fetcher).await?;
                Ok::<Span, Unresolved>(span)
            };
            let span = self.unless_shutdown(find).await?.map_err(Interrupted::from)?;
            let samples = match SAMPLED_GAP_BLOCKS <= span.blocks() {
                true => self.unless_shutdown(sampled(&self.fetcher, &span)).await?,
                false => Vec::new(),
            };
            (span, samples)
        };
        self.start = Some(span.first);
        if to != Until::Head {
            self.gap.until = span.last;
        }
        let mut meter = Meter::start(progress.clone(), Instant::now(), span.first, span.last);
        meter.expect(Density::new(
            samples.iter().map(|sample| (sample.height, sample.logs_per_block())).collect(),
        ));
        self.gap.meter = Some(meter);
        // At the newest block too there may be another one than ours.
        let is_there = span.blocks() == 0 && to != Until::Head;
        Ok(if is_there { Ingested::All } else { Ingested::Some })
    }

    async fn ingest_round(&mut self, to: Until) -> Result<Ingested, Interrupted> {
        let round = self.round().await?;
        let head = self.head.map(|head| head.this.number);
        let is_there = match to {
            Until::Head => matches!(round, Round::UpToDate),
            Until::Block(_) | Until::At(_) => head.is_some_and(|head| self.gap.until <= head),
        };
        Ok(match round {
            _ if is_there => Ingested::All,
            Round::Moved => Ingested::Some,
            Round::UpToDate | Round::BeforeStart(_) => Ingested::Nothing,
        })
    }

    fn say_waiting(&self, progress: &watch::Sender<Progress>, reason: String) {
        match &self.gap.meter {
            Some(meter) => meter.waiting(Instant::now(), reason),
            None => progress.send_modify(|progress| progress.waiting = Some(reason)),
        }
    }

    async fn rest(&self, wait: Duration) {
        self.shutdown.run_until_cancelled(tokio::time::sleep(wait)).await;
    }
}

/// How far a round came.
enum Ingested {
    All,
    Some,
    Nothing,
}

/// Samples of a gap; none when an endpoint does not answer. The estimate is not worth more.
async fn sampled(fetcher: &Fetcher, span: &Span) -> Vec<Sample> {
    let samples = plan::sample(fetcher, span, SAMPLES, 1).await;
    samples.unwrap_or_default()
}
