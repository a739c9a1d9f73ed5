//! A backtest: any module over a stretch of history, as if it had run then.
//!
//! ```text
//!  journal ──▶ Runner::backtest ──▶ the run's own store
//!                    ▲
//!   reads: tape, cache, archive endpoint · outcomes: what really happened, else rules
//! ```
//!
//! Nothing is sent, by construction: a replay's lane has no outbox.

use std::{collections::BTreeMap, path::PathBuf};

use shepherd_dispatch::{Runner, Stop, Venue};
use shepherd_host::{BoundModule, World};
use shepherd_log::{BlockRef, Journal, ModuleName, ReadError, StorageError};
use shepherd_rpc::Pool;
use tokio::runtime::Handle;

use crate::{
    archive::Archive,
    cache::{CacheError, ReadCache},
    drive::{self, Drive, Ended, Progress, drive_in_steps},
    miss::Miss,
    outside::Outside,
    reads::{HistoryReads, Interrupted},
    run::{Run, RunError},
    tape::Tape,
    venue::{ResumeError, Rules, SimulatedVenue},
    window::Window,
};

/// What really happened.
pub struct History {
    /// The chain's records.
    pub journal: Journal,
    /// What a live lane was answered, record by record.
    pub tape: Option<Box<dyn Tape>>,
    /// The module whose effects in the journal are those of the backtested one. Mostly its own
    /// name.
    pub recorded_as: ModuleName,
    /// Blocks of a made-up branch, and the real ones in whose place they stand: reads at one are
    /// asked about the other, for nobody outside knows it. Empty for what really happened.
    pub instead_of: BTreeMap<BlockRef, BlockRef>,
}

/// What is backtested, and with what.
pub struct Backtest {
    /// The module, configured for the chain.
    pub module: BoundModule,
    /// The stretch of the journal.
    pub window: Window,
    /// How effects are settled of which nobody knows what came of them.
    pub rules: Rules,
    /// Who answers reads of the chain that are neither on the tape nor in the cache.
    pub endpoint: Option<Pool>,
    /// The directory of the read cache.
    pub cache: Option<PathBuf>,
    /// The most records of one step, when it is to be bounded. The result does not depend on it.
    pub step_records_max: Option<usize>,
}

/// Why a backtest did not come to its end. What was committed stays, and it can go on from there.
#[derive(Debug, thiserror::Error)]
pub enum BacktestError {
    /// Nobody answers a read.
    #[error(transparent)]
    Miss(Box<Miss>),
    /// The module or the journal stops it.
    #[error(transparent)]
    Stop(Stop),
    /// The run's directory cannot be used.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The read cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The lane's rows cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The history cannot be read.
    #[error("the history cannot be read")]
    Journal(#[from] ReadError),
    /// An endpoint was given, but this thread belongs to no runtime that could ask it.
    #[error("an archive endpoint can only be asked from a thread of a runtime")]
    NoRuntime,
}

impl From<Stop> for BacktestError {
    fn from(stop: Stop) -> BacktestError {
        match stop {
            Stop::World { offset, height, source: World::Replay(source) } => {
                let source = match source.downcast::<Miss>() {
                    Ok(miss) => return BacktestError::Miss(miss),
                    Err(source) => source,
                };
                match source.downcast::<CacheError>() {
                    Ok(error) => BacktestError::Cache(*error),
                    Err(source) => {
                        let source = World::Replay(source);
                        BacktestError::Stop(Stop::World { offset, height, source })
                    }
                }
            }
            stop => BacktestError::Stop(stop),
        }
    }
}

impl From<ResumeError> for BacktestError {
    fn from(error: ResumeError) -> BacktestError {
        match error {
            ResumeError::Lane(error) => BacktestError::Storage(error),
            ResumeError::Journal(error) => BacktestError::Journal(error),
        }
    }
}

/// Runs a module over a window of history, or goes on with it where the run stands.
///
/// The lane is the module's, in the run's store. With an endpoint it must be called from a
/// blocking thread of a runtime (`spawn_blocking`).
pub fn backtest(
    run: &Run,
    history: History,
    backtest: Backtest,
    progress: &mut dyn FnMut(&Progress),
    interrupted: &dyn Fn() -> bool,
) -> Result<Ended, BacktestError> {
    let id = backtest.module.lane().clone();
    let lane = run.lane(&id, &history.journal, backtest.window.from)?;
    let mut outside = begin(history, &backtest, interrupted)?;
    outside.venue.resume(&run.snapshot(&id)?)?;
    let Backtest { module, window, step_records_max, .. } = backtest;
    let mut runner = Runner::new(lane, module);
    let drive =
        Drive { step_records_max: step_records_max.unwrap_or(usize::MAX), ..Drive::to(window.end) };
    let outside = drive::Outside::Venue(&mut outside);
    match drive_in_steps(&mut runner, outside, drive, progress, interrupted) {
        Err(Stop::World { source: World::Replay(why), .. }) if why.is::<Interrupted>() => {
            Ok(Ended::Interrupted)
        }
        ended => Ok(ended?),
    }
}

/// Who answers a backtest's reads and settles its effects, as it is before the first record: to run
/// one again beside another, as `diff` and `explain` do.
pub fn outside_of(history: History, backtest: &Backtest) -> Result<Box<dyn Venue>, BacktestError> {
    Ok(Box::new(begin(history, backtest, &|| false)?))
}

fn begin<'i>(
    history: History,
    backtest: &Backtest,
    interrupted: &'i dyn Fn() -> bool,
) -> Result<Outside<'i>, BacktestError> {
    let History { journal, tape, recorded_as, instead_of } = history;
    let archive = match &backtest.endpoint {
        None => None,
        Some(pool) => {
            let runtime = Handle::try_current().map_err(|_| BacktestError::NoRuntime)?;
            Some(Archive::new(pool.clone(), runtime))
        }
    };
    let cache = backtest.cache.as_deref().map(ReadCache::open).transpose()?;
    let records = journal.start()..journal.tail().offset;
    let reads = HistoryReads::new(tape, cache, archive, records);
    let module = backtest.module.lane().module.clone();
    let venue = SimulatedVenue::new(journal, &recorded_as, module, backtest.rules.clone())?;
    Ok(Outside { reads, venue, record: backtest.window.from, instead_of, interrupted })
}

#[cfg(test)]
mod tests {
    use shepherd_log::Offset;

    use super::*;

    #[test]
    fn a_cache_that_fails_at_a_read_is_no_stored_data_that_cannot_be_trusted() {
        let error = CacheError::Foreign { path: "reads".into() };
        let source = World::replay(error);
        let stop = Stop::World { offset: Offset::START, height: 0, source };
        let error = BacktestError::from(stop);
        assert!(matches!(error, BacktestError::Cache(CacheError::Foreign { .. })), "{error}");
    }
}
