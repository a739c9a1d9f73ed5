//! The loop around the decisions.
//!
//! One round asks for the newest block and does what [`link`] says. Everything it fetches is
//! verified before it is appended, and appended in order, so the journal is right at every
//! moment and a round can be given up anywhere: the next one starts from the journal's head.

use std::time::{Duration, Instant, SystemTime};

use shepherd_log::{
    AppendError, BlockRef, GenesisError, Header, Journal, Offset, ReadError, Record, RecordView,
    StorageError,
};
use shepherd_rpc::{
    Backoff, ChainMismatch, EndpointId, Heads, Pool, PoolError, Throttle, in_words,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    ChainState, ChainStatus, Config, Disagreement, FetchError, Link, Metrics, NoSuchBlock,
    fetch::{Asked, BadAnswer, Fetched, Fetcher, blocking},
    fill::{Gap, at_least_one},
    finality::Final,
    fork::{Walk, walk},
    link,
    metrics::ChainMetrics,
    pending::{Head, Pending},
    start::{self, Unresolved},
    survey::Pace,
    verify::{self, VerifiedHeader},
};

/// Why a chain is no longer followed. What the world does to us is not among them: that is
/// waited out.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The chain left our branch further back than we may go.
    #[error(
        "the chain reorganised too deeply: our head is {head}, the node is at {node_head}, and \
         its block {branch} is not ours; {limit}"
    )]
    ReorgTooDeep {
        /// Our head.
        head: BlockRef,
        /// The block the node's branch was entered at.
        node_head: BlockRef,
        /// The deepest block of the node's branch that was looked at.
        branch: BlockRef,
        /// What forbids to go on.
        limit: ReorgLimit,
    },
    /// Every endpoint serves another chain.
    #[error("{endpoint} serves another chain")]
    WrongChain {
        /// One of them, redacted.
        endpoint: String,
        /// How it differs.
        source: ChainMismatch,
    },
    /// The blocks that are wanted are none of this chain.
    #[error(transparent)]
    NoSuchBlock(#[from] NoSuchBlock),
    /// The journal refused records.
    #[error("the journal refused records")]
    Append(#[from] AppendError),
    /// The journal could not be read.
    #[error("the journal could not be read")]
    Read(#[from] ReadError),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What forbids a reorg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReorgLimit {
    /// It would abandon more blocks than configured.
    #[error("at most {depth_max} blocks may be abandoned (reorg_depth_max)")]
    Depth {
        /// The configured limit.
        depth_max: u64,
    },
    /// It would abandon a block that is final.
    #[error("block {finalized} is final")]
    Finality {
        /// The newest block known to be final.
        finalized: BlockRef,
    },
    /// It goes back to before the first block of the journal.
    #[error("the journal does not go further back")]
    JournalStart,
}

/// Failures in a row after which an endpoint that lacks a block is held responsible. Before that
/// it is more likely that the block was abandoned, or is only just spreading.
const ABSENT_PATIENCE: u32 = 3;

/// How soon to look again for an announced block that was not there yet. Nodes of one provider are
/// some tens of milliseconds apart.
const EXPECTANT: Duration = Duration::from_millis(50);

/// What keeps failing is spoken of this often.
const WARNING_INTERVAL: Duration = Duration::from_secs(30);

/// Follows one chain into its journal until `shutdown`.
///
/// Returns an error only when the chain must stop. Trouble with endpoints shows in `status`, and
/// is retried for ever.
pub async fn follow(
    journal: Journal,
    pool: Pool,
    config: Config,
    status: watch::Sender<ChainStatus>,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), FollowError> {
    let mut follower = Follower::new(journal, pool, config, status, metrics, shutdown);
    let outcome = follower.run().await;
    let reason = match &outcome {
        Ok(()) => "shut down".to_owned(),
        Err(error) => {
            let error = in_words(error);
            tracing::error!(chain = %follower.journal.chain(), error, "chain stopped");
            error
        }
    };
    follower.report(ChainState::Stopped { reason });
    outcome
}

pub(crate) struct Follower {
    pub(crate) journal: Journal,
    pub(crate) fetcher: Fetcher,
    pub(crate) config: Config,
    pub(crate) status: watch::Sender<ChainStatus>,
    pub(crate) metrics: ChainMetrics,
    pub(crate) shutdown: CancellationToken,
    /// `None` until the first block is journaled.
    pub(crate) head: Option<Head>,
    /// The first block of an empty journal, once it is known.
    pub(crate) start: Option<u64>,
    pub(crate) gap: Gap,
    pub(crate) last: Final,
    pub(crate) pace: Pace,
    /// Whether the journal remembers the chain's genesis.
    knows_genesis: bool,
    /// How long to wait for an announcement before looking all the same.
    patience: Duration,
    backoff: Backoff,
    warnings: Throttle,
}

/// How a round ended.
pub(crate) enum Round {
    /// The journal moved; there may be more.
    Moved,
    /// The journal is where the node is, or the node is behind it.
    UpToDate,
    /// The chain has not reached the first block we want, as it says here.
    BeforeStart(String),
}

/// Why a round was given up.
pub(crate) enum Interrupted {
    Shutdown,
    /// To be tried again.
    Fetch(FetchError),
    /// Not to be tried again.
    Fatal(FollowError),
}

impl From<FetchError> for Interrupted {
    fn from(error: FetchError) -> Interrupted {
        match error {
            FetchError::Pool(PoolError::WrongChain { endpoint, source }) => {
                Interrupted::Fatal(FollowError::WrongChain { endpoint, source })
            }
            error => Interrupted::Fetch(error),
        }
    }
}

impl From<Unresolved> for Interrupted {
    fn from(error: Unresolved) -> Interrupted {
        match error {
            Unresolved::NoSuchBlock(error) => Interrupted::Fatal(error.into()),
            Unresolved::Fetch(error) => error.into(),
        }
    }
}

impl From<FollowError> for Interrupted {
    fn from(error: FollowError) -> Interrupted {
        Interrupted::Fatal(error)
    }
}

impl Follower {
    pub(crate) fn new(
        journal: Journal,
        pool: Pool,
        config: Config,
        status: watch::Sender<ChainStatus>,
        metrics: Metrics,
        shutdown: CancellationToken,
    ) -> Follower {
        let config = at_least_one(config);
        Follower {
            fetcher: Fetcher { pool, checks: config.checks() },
            metrics: metrics.of_chain(journal.chain().as_str()),
            start: None,
            gap: Gap::new(&config),
            last: Final::default(),
            pace: Pace::new(),
            knows_genesis: false,
            patience: config.poll_interval,
            backoff: Backoff::new(config.retry_min, config.retry_max),
            warnings: Throttle::new(WARNING_INTERVAL),
            head: None,
            journal,
            config,
            status,
            shutdown,
        }
    }

    async fn run(&mut self) -> Result<(), FollowError> {
        self.resume().await?;
        let mut heads = self.fetcher.pool.heads();
        loop {
            match self.round().await {
                Ok(Round::Moved) => {
                    self.patience = self.config.poll_interval;
                    self.pace.news();
                }
                Ok(Round::UpToDate) => {
                    self.backoff.reset();
                    self.report(ChainState::Following);
                    self.next_head(&mut heads).await;
                }
                Ok(Round::BeforeStart(reason)) => {
                    self.backoff.reset();
                    self.report(ChainState::Waiting { reason });
                    self.next_head(&mut heads).await;
                }
                Err(Interrupted::Shutdown) => return Ok(()),
                Err(Interrupted::Fatal(error)) => return Err(error),
                Err(Interrupted::Fetch(error)) => {
                    let wait = self.note_failure(&error);
                    self.shutdown.run_until_cancelled(tokio::time::sleep(wait)).await;
                }
            }
        }
    }

    /// Takes up where the journal ends.
    pub(crate) async fn resume(&mut self) -> Result<(), FollowError> {
        self.expect_genesis().await?;
        if let Some(head) = self.journal.tail().head {
            self.head = Some(self.ours(head.number).await?);
            self.publish_head(head);
        }
        Ok(())
    }

    /// Looks at the newest block and does what it calls for.
    pub(crate) async fn round(&mut self) -> Result<Round, Interrupted> {
        let round = self.step().await?;
        self.remember_genesis().await?;
        self.look_for_final().await?;
        Ok(round)
    }

    async fn step(&mut self) -> Result<Round, Interrupted> {
        let latest = self.newest().await?;
        let node_head = latest.value.header.this;
        self.status.send_modify(|status| status.node_head = Some(node_head));
        self.metrics.node_head.set(node_head.number as i64);
        let Some(head) = self.head else {
            return self.begin_journal(latest.value.header).await;
        };
        match link(head.this, &latest.value.header) {
            Link::Same => Ok(Round::UpToDate),
            Link::Extends => self.extend(head, latest).await,
            Link::Ahead => self.fill(head.this.number + 1, node_head.number).await,
            Link::Diverges => self.switch(head, latest).await,
        }
    }

    /// Appends the first blocks, from the one that is configured up to the node's head.
    async fn begin_journal(&mut self, node_head: Header) -> Result<Round, Interrupted> {
        let start = match self.start {
            Some(start) => start,
            None => {
                let resolve = start::resolve(self.config.start, &node_head, &self.fetcher);
                match self.unless_shutdown(resolve).await? {
                    Err(Unresolved::NoSuchBlock(reason)) if reason.is_to_come() => {
                        return Ok(Round::BeforeStart(reason.to_string()));
                    }
                    resolved => resolved?,
                }
            }
        };
        // What a first start means by a time stays what it was, however long the fetches take.
        self.start = Some(start);
        if node_head.this.number < start {
            let reason = NoSuchBlock::BlockToCome { wanted: start, head: node_head.this.number };
            return Ok(Round::BeforeStart(reason.to_string()));
        }
        self.fill(start, node_head.this.number).await
    }

    /// Appends the next block.
    async fn extend(
        &mut self,
        head: Head,
        next: Fetched<VerifiedHeader>,
    ) -> Result<Round, Interrupted> {
        self.check_time(&next.value.header, next.from, head.timestamp)?;
        let blocks = self.unless_shutdown(self.fetcher.logs(vec![next.value])).await??;
        let mut pending = Pending::default();
        blocks.value.into_iter().for_each(|block| pending.push(block));
        self.append(&mut pending).await?;
        Ok(Round::Moved)
    }

    /// Goes over to the branch of a block that was found while filling a gap.
    pub(crate) async fn switch_to(&mut self, theirs: BlockRef) -> Result<Round, Interrupted> {
        let head = self.head.expect("what does not extend a block comes after a block");
        let theirs = self.unless_shutdown(self.fetcher.block(theirs)).await??;
        self.switch(head, theirs).await
    }

    /// Goes over to the node's branch, unless the node is merely behind on ours.
    async fn switch(
        &mut self,
        head: Head,
        theirs: Fetched<VerifiedHeader>,
    ) -> Result<Round, Interrupted> {
        let node_head = theirs.value.header.this;
        match self.canonical_block(node_head.number).await? {
            Some(ours) if ours == node_head => return Ok(Round::UpToDate),
            // Before our first block there is nothing to compare with, and nothing to fetch.
            None if node_head.number < head.this.number => return Ok(Round::UpToDate),
            _ => (),
        }
        let (ancestor, branch) = self.branch(head.this, theirs).await?;
        // Before anything is taken back, for the revert may have to be appended by itself.
        self.have_enough(&[node_head]).await?;
        let abandoned = self.after(ancestor.this, head.this).await?;
        tracing::info!(
            chain = %self.journal.chain(),
            ancestor = %ancestor.this,
            depth = abandoned.len(),
            from = %head.this,
            to = %node_head,
            "reorg"
        );
        let mut pending = Pending::revert(ancestor, abandoned);
        for headers in branch.chunks(self.gap.fetch_blocks()) {
            let blocks = self.unless_shutdown(self.fetcher.logs(headers.to_vec())).await?;
            let blocks = blocks.inspect_err(|error| self.gap.failed(error))?;
            for block in blocks.value {
                if !pending.has_room_for(&block, self.config.batch_blocks_max) {
                    self.append(&mut pending).await?;
                }
                pending.push(block);
            }
        }
        self.append(&mut pending).await?;
        Ok(Round::Moved)
    }

    /// The common ancestor of our head and theirs, and the headers that lead from it to theirs.
    async fn branch(
        &mut self,
        head: BlockRef,
        theirs: Fetched<VerifiedHeader>,
    ) -> Result<(Head, Vec<VerifiedHeader>), Interrupted> {
        let (floor, limit) = self.reorg_limit();
        let (node_head, from) = (theirs.value.header.this, theirs.from);
        let mut branch = vec![theirs.value];
        let mut oldest = branch[0].header.clone();
        // Our lowest block that is not on the branch, and what is there instead.
        let ours = self.canonical_block(node_head.number).await?;
        let mut disputed = ours.filter(|ours| *ours != node_head).map(|ours| (ours, node_head));
        let (deepest, limit) = loop {
            let Some(number) = oldest.this.number.checked_sub(1) else {
                break (oldest.this, ReorgLimit::JournalStart);
            };
            let parent = BlockRef { number, hash: oldest.parent };
            let ours = self.canonical_block(number).await?;
            if let Some(ours) = ours.filter(|ours| *ours != parent) {
                disputed = Some((ours, parent));
            }
            match walk(ours, parent, floor) {
                Walk::Shared => {
                    let ancestor = self.ours(number).await?;
                    branch.reverse();
                    return Ok((ancestor, branch));
                }
                Walk::Further => (),
                Walk::TooDeep => break (parent, limit),
                Walk::BelowJournal => break (parent, ReorgLimit::JournalStart),
            }
            // The endpoint that told of the branch is the one that has it.
            let fetched = self.unless_shutdown(self.fetcher.block_of(from, parent)).await??;
            self.check_time(&oldest, fetched.from, fetched.value.header.timestamp)?;
            oldest = fetched.value.header.clone();
            branch.push(fetched.value);
        };
        if let Some((ours, theirs)) = disputed {
            self.is_confirmed(ours, theirs, from).await?;
        }
        if let ReorgLimit::Finality { finalized } = limit
            && self.is_taken_back(finalized).await?
        {
            return Err(FetchError::from(Disagreement::TakenBack { finalized }).into());
        }
        Err(FollowError::ReorgTooDeep { head, node_head, branch: deepest, limit }.into())
    }

    /// The lowest height that a reorg may go back to, and what says so.
    fn reorg_limit(&self) -> (u64, ReorgLimit) {
        let depth_max = self.config.reorg_depth_max;
        let floor = self.journal.tail().reorg_floor(depth_max);
        match self.last.block {
            Some(finalized) if finalized.number >= floor => {
                (finalized.number, ReorgLimit::Finality { finalized })
            }
            _ => (floor, ReorgLimit::Depth { depth_max }),
        }
    }

    /// Holds endpoints to the genesis that the journal remembers, or begins with.
    async fn expect_genesis(&mut self) -> Result<(), FollowError> {
        let journal = self.journal.clone();
        let remembered = blocking(move || journal.genesis()).await?;
        self.knows_genesis = remembered.is_some();
        let begins_with = self.canonical_block(0).await?.map(|genesis| genesis.hash);
        if let Some(genesis) = remembered.or(begins_with) {
            self.fetcher.pool.expect_genesis(genesis);
        }
        Ok(())
    }

    /// Keeps the genesis that endpoints showed, so that it holds for the next start too.
    async fn remember_genesis(&mut self) -> Result<(), FollowError> {
        let Some(given) = self.fetcher.pool.genesis().filter(|_| !self.knows_genesis) else {
            return Ok(());
        };
        let journal = self.journal.clone();
        match blocking(move || journal.remember_genesis(given)).await {
            Ok(()) => self.knows_genesis = true,
            Err(GenesisError::Storage(error)) => return Err(error.into()),
            Err(GenesisError::Other { stored, given, .. }) => {
                let source = ChainMismatch::Genesis { seen_before: stored, endpoint: given };
                let endpoint = "the endpoint that answered first".to_owned();
                return Err(FollowError::WrongChain { endpoint, source });
            }
        }
        Ok(())
    }

    /// Makes pending records durable, at the tail wherever it is: records of other kinds may come
    /// in between, and the journal itself makes sure that ours still follow their parent.
    ///
    /// They are journaled only if enough endpoints have them; if not, they are let go of.
    pub(crate) async fn append(&mut self, pending: &mut Pending) -> Result<(), Interrupted> {
        self.is_agreed(pending).await?;
        let Pending { mut records, head, blocks, logs, .. } = std::mem::take(pending);
        if records.is_empty() {
            return Ok(());
        }
        loop {
            let journal = self.journal.clone();
            let (outcome, returned) = blocking(move || {
                let outcome = journal.append(journal.tail().offset, &records);
                (outcome, records)
            })
            .await;
            records = returned;
            match outcome {
                Ok(_) => break,
                Err(AppendError::NotTheTail { .. }) => (),
                Err(error) => return Err(FollowError::from(error).into()),
            }
        }
        self.backoff.reset();
        self.metrics.blocks.inc_by(blocks);
        self.metrics.logs.inc_by(logs);
        if let Some(Record::Revert(revert)) = records.first() {
            self.metrics.reorgs.inc();
            self.metrics.reorg_depth.observe(revert.abandoned.len() as f64);
        }
        self.head = head;
        if let Some(head) = head {
            self.publish_head(head.this);
        }
        Ok(())
    }

    /// Waits until there may be a new head.
    async fn next_head(&mut self, heads: &mut Heads) {
        let announced = tokio::time::timeout(self.patience, heads.announced());
        let Some(announced) = self.shutdown.run_until_cancelled(announced).await else { return };
        if announced.is_ok() {
            self.pace.announced();
        }
        self.patience = patience(self.patience, announced.is_ok(), self.config.poll_interval);
    }

    /// Keeps what went wrong, and says how long to wait.
    pub(crate) fn note_failure(&mut self, error: &FetchError) -> Duration {
        self.metrics.fetch_failures.inc();
        let wait = self.backoff.next_wait();
        let mut retry_in = Duration::ZERO;
        match error {
            // The pool has said so itself.
            FetchError::Pool(PoolError::NoAnswer { retry_in: first, .. }) => retry_in = *first,
            FetchError::Pool(PoolError::WrongChain { .. }) => (),
            FetchError::Answer { .. } | FetchError::Disagreement(_) => {
                self.blame(error, self.backoff.failures());
                if let Some(unsaid) = self.warnings.admit(Instant::now()) {
                    let chain = self.journal.chain();
                    tracing::warn!(%chain, %error, ?wait, unsaid, "asking again");
                }
            }
        }
        self.report(ChainState::Waiting { reason: error.to_string() });
        wait.max(retry_in)
    }

    /// Holds an endpoint responsible for an answer, after this many failures in a row.
    pub(crate) fn blame(&self, error: &FetchError, failures: u32) {
        let FetchError::Answer { from, asked, source, .. } = error else { return };
        if matches!(**source, BadAnswer::Mismatch(_)) {
            self.metrics.unverified.inc();
        }
        if is_to_blame(source, failures) {
            self.fetcher.pool.distrust(*from, format!("{asked}: {source}"));
        }
    }

    pub(crate) fn check_time(
        &self,
        header: &Header,
        from: EndpointId,
        parent_timestamp: u64,
    ) -> Result<(), FetchError> {
        verify::is_later(header, parent_timestamp).map_err(|mismatch| {
            self.fetcher.bad(from, Asked::Block(header.this), Box::new(mismatch.into()))
        })
    }

    pub(crate) async fn unless_shutdown<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, Interrupted> {
        self.shutdown.run_until_cancelled(work).await.ok_or(Interrupted::Shutdown)
    }

    /// Our block at a height.
    pub(crate) async fn canonical_block(
        &self,
        number: u64,
    ) -> Result<Option<BlockRef>, FollowError> {
        Ok(self.canonical(number).await?.map(|(_, block)| block))
    }

    async fn canonical(&self, number: u64) -> Result<Option<(Offset, BlockRef)>, FollowError> {
        let journal = self.journal.clone();
        Ok(blocking(move || journal.canonical(number)).await?)
    }

    /// Our blocks after an ancestor, up to our head.
    async fn after(
        &self,
        ancestor: BlockRef,
        head: BlockRef,
    ) -> Result<Vec<BlockRef>, FollowError> {
        let mut blocks = Vec::new();
        for number in ancestor.number + 1..=head.number {
            let block = self.canonical_block(number).await?;
            blocks.push(block.expect("the journal has no gap between two of its blocks"));
        }
        Ok(blocks)
    }

    /// Our block at a height where there is one, with its time.
    async fn ours(&self, number: u64) -> Result<Head, FollowError> {
        let (offset, this) =
            self.canonical(number).await?.expect("there is a block of ours at this height");
        let journal = self.journal.clone();
        let record = blocking(move || journal.read(offset..offset.plus(1)).next()).await;
        let record = record.expect("the block index names records that exist")?;
        match record.record() {
            RecordView::Block(block) => Ok(Head { this, timestamp: block.timestamp }),
            _ => unreachable!("the block index names blocks"),
        }
    }

    fn publish_head(&self, head: BlockRef) {
        self.metrics.head.set(head.number as i64);
        self.status.send_modify(|status| status.head = Some(head));
    }

    pub(crate) fn report(&self, state: ChainState) {
        self.status.send_if_modified(|status| {
            if status.state == state {
                return false;
            }
            tracing::debug!(chain = %self.journal.chain(), %state, "chain state");
            let same_kind = std::mem::discriminant(&status.state) == std::mem::discriminant(&state);
            if !same_kind {
                status.since = SystemTime::now();
            }
            status.state = state;
            true
        });
    }
}

/// How long to wait for the next announcement.
///
/// The node that announces a block need not be the one that is asked for it, and the other may have
/// it a moment later: so after an announcement we look again soon, then less and less often.
fn patience(before: Duration, announced: bool, poll_interval: Duration) -> Duration {
    let next = if announced { EXPECTANT } else { before.saturating_mul(2) };
    next.min(poll_interval)
}

/// Whether an endpoint that gives such answers is to be passed over for a while.
///
/// Data that does not hold up speaks against it at once. What it lacks, or refuses to talk about,
/// may be a block that a reorg has just taken away.
fn is_to_blame(answer: &BadAnswer, failures: u32) -> bool {
    match answer {
        BadAnswer::Mismatch(_) | BadAnswer::Malformed(_) => true,
        BadAnswer::Absent | BadAnswer::Refused(_) => ABSENT_PATIENCE < failures,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announced_block_that_is_not_there_yet_is_looked_for_soon_and_then_less_often() {
        let poll = Duration::from_secs(2);
        let mut wait = patience(poll, true, poll);
        let mut waits = Vec::new();
        for _ in 0..7 {
            waits.push(wait.as_millis());
            wait = patience(wait, false, poll);
        }
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 2000]);
        let impatient = Duration::from_millis(20);
        assert_eq!(patience(impatient, true, impatient), impatient);
    }

    #[test]
    fn an_absent_block_speaks_against_an_endpoint_only_when_it_stays_absent() {
        assert!(is_to_blame(&BadAnswer::Mismatch(crate::Mismatch::NoLogs), 1));
        assert!(!is_to_blame(&BadAnswer::Absent, ABSENT_PATIENCE));
        assert!(is_to_blame(&BadAnswer::Absent, ABSENT_PATIENCE + 1));
    }
}
