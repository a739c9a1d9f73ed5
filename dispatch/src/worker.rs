//! One lane's task: steps while there are records, waits while there is a reason to.

use std::time::{Duration, Instant, SystemTime};

use shepherd_host::{LogLevel, LogLine};
use shepherd_log::{Journal, LaneId, Offset, StorageError, Tail};
use shepherd_rpc::{Backoff, in_words};
use tokio::{
    sync::watch,
    task::{JoinError, spawn_blocking},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{
    advance::{Advanced, Runner, Stop},
    dispatcher::Config,
    metrics::Metrics,
    reads::LiveReads,
    status::{LaneState, LaneStatus},
};

/// A lane this close to the tail commits every record by itself, so that what a block caused is
/// durable as soon as possible. Further away, the syncs would set the pace.
const LIVE_RECORDS: u64 = 4;

/// Most records of one step. Steps also end by size; this bounds how much is done again after a
/// crash when records are small.
const STEP_RECORDS_MAX: usize = 1024;

/// Why a lane's task ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("a step panicked")]
    Panicked(#[source] JoinError),
}

pub(crate) struct Worker {
    pub id: LaneId,
    pub config: Config,
    pub metrics: Metrics,
    pub status: watch::Sender<LaneStatus>,
    pub shutdown: CancellationToken,
}

/// What a step came to, decided before anything is done about it.
enum Outcome {
    Advanced(Box<Advanced>),
    AtTail,
    Failed(Stop),
}

impl Worker {
    /// Runs until shutdown, a failure of the store, or for ever.
    pub async fn run(self, mut runner: Runner, mut reads: LiveReads) -> Result<(), WorkerError> {
        let mut tail = runner.lane().journal().watch();
        let mut weather = Backoff::new(self.config.wait_min, self.config.wait_max);
        let mut faults = Backoff::new(self.config.fault_wait_min, self.config.fault_wait_max);
        while !self.shutdown.is_cancelled() {
            tail.mark_unchanged();
            let records_max = self.records_max(&runner);
            let started = Instant::now();
            let outcome;
            (runner, reads, outcome) =
                self.step(runner, reads, records_max).await.map_err(WorkerError::Panicked)?;
            match outcome {
                Outcome::Advanced(advanced) => {
                    weather.reset();
                    faults.reset();
                    self.advanced(*advanced, started.elapsed(), &tail);
                }
                Outcome::AtTail => {
                    self.enter(LaneState::Running, &tail);
                    self.until_appended(&mut tail).await;
                }
                Outcome::Failed(Stop::Storage(error)) => return Err(error.into()),
                Outcome::Failed(Stop::World { offset, height, source }) => {
                    let reason = in_words(&source);
                    if !self.shutdown.is_cancelled() {
                        self.metrics.waited(&self.id);
                        warn!(lane = %self.id, %offset, reason, "the step waits for an answer");
                        self.enter(LaneState::Waiting { reason }, &tail);
                    }
                    let journal = runner.lane().journal();
                    tokio::select! {
                        () = self.shutdown.cancelled() => (),
                        () = sleep(weather.next_wait()) => (),
                        () = until_undone(journal, offset, height, &mut tail) => (),
                    }
                }
                Outcome::Failed(Stop::Module { offset, block, source, lines }) => {
                    self.tell(lines.iter().map(|line| (&offset, line)));
                    let fault = in_words(&source);
                    self.metrics.faulted(&self.id, source.kind());
                    self.status.send_modify(|status| status.faults += 1);
                    let failures = faults.failures() + 1;
                    if failures >= self.config.faults_max {
                        error!(
                            lane = %self.id, %offset, block = block.number, fault, failures,
                            "lane halted: its module fails at this record; \
                             replace the module and restart"
                        );
                        self.enter(LaneState::Halted { offset, fault }, &tail);
                        self.shutdown.cancelled().await;
                        break;
                    }
                    let wait = faults.next_wait();
                    warn!(
                        lane = %self.id, %offset, block = block.number, fault, failures,
                        retry_in = ?wait, "the module failed"
                    );
                    let until = SystemTime::now() + wait;
                    let state = LaneState::BackingOff { offset, fault, failures, until };
                    self.enter(state, &tail);
                    tokio::select! {
                        () = self.shutdown.cancelled() => (),
                        () = sleep(wait) => (),
                    }
                }
                Outcome::Failed(Stop::Revert { offset, source }) => {
                    let fault = in_words(&source);
                    error!(lane = %self.id, %offset, fault, "lane halted: it cannot follow a reorg");
                    self.enter(LaneState::Halted { offset, fault }, &tail);
                    self.shutdown.cancelled().await;
                    break;
                }
            }
        }
        self.enter(LaneState::Stopped, &tail);
        Ok(())
    }

    fn records_max(&self, runner: &Runner) -> usize {
        let lane = runner.lane();
        let behind = lane.journal().tail().offset.get() - lane.cursor().next.get();
        if behind <= LIVE_RECORDS { 1 } else { STEP_RECORDS_MAX }
    }

    /// Steps on a thread that may block: a step reads the store, runs WebAssembly, and syncs.
    async fn step(
        &self,
        mut runner: Runner,
        mut reads: LiveReads,
        records_max: usize,
    ) -> Result<(Runner, LiveReads, Outcome), JoinError> {
        let shutdown = self.shutdown.clone();
        spawn_blocking(move || {
            let advanced = runner.advance(records_max, &mut reads, &|| shutdown.is_cancelled());
            let outcome = match advanced {
                Ok(Some(advanced)) => Outcome::Advanced(Box::new(advanced)),
                Ok(None) => Outcome::AtTail,
                Err(stop) => Outcome::Failed(stop),
            };
            (runner, reads, outcome)
        })
        .await
    }

    fn advanced(&self, advanced: Advanced, took: Duration, tail: &watch::Receiver<Tail>) {
        self.metrics.advanced(&self.id, &advanced, took);
        self.tell(advanced.lines.iter().map(|(offset, line)| (offset, line)));
        if advanced.lines_dropped > 0 {
            warn!(lane = %self.id, dropped = advanced.lines_dropped, "module lines were dropped");
        }
        debug!(
            lane = %self.id, next = %advanced.cursor.next, records = advanced.records,
            ?took, "step committed"
        );
        let behind = tail.borrow().offset.get() - advanced.cursor.next.get();
        let state = if behind <= LIVE_RECORDS { LaneState::Running } else { LaneState::CatchingUp };
        self.status.send_modify(|status| status.cursor = advanced.cursor);
        self.enter(state, tail);
    }

    /// Passes on what the module said.
    fn tell<'l>(&self, lines: impl Iterator<Item = (&'l Offset, &'l LogLine)>) {
        for (offset, line) in lines {
            let (lane, message) = (&self.id, line.message.as_str());
            match line.level {
                LogLevel::Debug => debug!(target: "shepherd::module", %lane, %offset, "{message}"),
                LogLevel::Info => info!(target: "shepherd::module", %lane, %offset, "{message}"),
                LogLevel::Warn => warn!(target: "shepherd::module", %lane, %offset, "{message}"),
                LogLevel::Error => error!(target: "shepherd::module", %lane, %offset, "{message}"),
            }
        }
    }

    fn enter(&self, state: LaneState, tail: &watch::Receiver<Tail>) {
        let tail = *tail.borrow();
        self.status.send_modify(|status| {
            status.tail = tail;
            if std::mem::discriminant(&status.state) != std::mem::discriminant(&state) {
                let (lane, next) = (&self.id, status.cursor.next);
                // While a journal fills, a lane reaches its tail again and again.
                match state {
                    LaneState::Running | LaneState::CatchingUp => {
                        debug!(%lane, %next, "{}", describe(&state));
                    }
                    _ => info!(%lane, %next, "{}", describe(&state)),
                }
                status.since = SystemTime::now();
            }
            status.state = state;
        });
    }

    /// Returns when records were appended since the tail was last looked at, or at shutdown.
    async fn until_appended(&self, tail: &mut watch::Receiver<Tail>) {
        tokio::select! {
            () = self.shutdown.cancelled() => (),
            changed = tail.changed() => {
                // The journal lives as long as the lane that holds it.
                changed.expect("the journal outlives its lanes");
            }
        }
    }
}

/// Returns when a revert makes the answer that a record waits for unnecessary.
async fn until_undone(
    journal: &Journal,
    offset: Offset,
    height: u64,
    tail: &mut watch::Receiver<Tail>,
) {
    while journal.undone_by(offset, height).is_none() {
        tail.changed().await.expect("the journal outlives its lanes");
    }
}

fn describe(state: &LaneState) -> &'static str {
    match state {
        LaneState::Starting => "lane is starting",
        LaneState::CatchingUp => "lane is catching up",
        LaneState::Running => "lane is at the tail",
        LaneState::Waiting { .. } => "lane waits",
        LaneState::BackingOff { .. } => "lane backs off",
        LaneState::Halted { .. } => "lane is halted",
        LaneState::Stopped => "lane has stopped",
    }
}
