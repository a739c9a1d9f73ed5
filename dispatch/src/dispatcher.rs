//! All lanes of a process.

use std::time::{Duration, SystemTime};

use shepherd_host::BoundModule;
use shepherd_log::{AppendError, LaneError, LaneId, LaneVersion, StorageError, Store};
use shepherd_rpc::Pool;
use tokio::{runtime::Handle, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    advance::Runner,
    metrics::Metrics,
    outbox::{Destinations, Sender, SenderConfig, SenderError},
    reads::LiveReads,
    status::{LaneState, LaneStatus},
    worker::{Worker, WorkerError},
};

/// How patient lanes are.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How often a record may fail before its lane halts.
    pub faults_max: u32,
    /// The first wait after a module failed; it doubles.
    pub fault_wait_min: Duration,
    /// The longest wait after a module failed.
    pub fault_wait_max: Duration,
    /// The first wait after something outside gave no answer; it doubles.
    pub wait_min: Duration,
    /// The longest wait for something outside.
    pub wait_max: Duration,
    /// How effects are sent.
    pub sender: SenderConfig,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            faults_max: 3,
            fault_wait_min: Duration::from_secs(1),
            fault_wait_max: Duration::from_secs(5 * 60),
            wait_min: Duration::from_millis(250),
            wait_max: Duration::from_secs(30),
            sender: SenderConfig::default(),
        }
    }
}

/// A lane to run.
pub struct LaneSpec {
    /// The module, configured for the chain it names.
    pub module: BoundModule,
    /// The endpoints of that chain.
    pub pool: Pool,
    /// Where its effects go, and who is asked what the orderbook knows.
    pub destinations: Destinations,
    /// The deepest reorg that the chain's journal takes: what is deeper is final.
    pub reorg_depth_max: u64,
    /// What the lane is said to run from here on, for those who run it again.
    pub version: Option<LaneVersion>,
}

/// Why lanes could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// A lane could not be opened.
    #[error("lane {lane} cannot be opened")]
    Open {
        /// The lane.
        lane: LaneId,
        /// Why.
        source: LaneError,
    },
    /// What is stored cannot be trusted any more.
    #[error("lane {lane} found stored data that cannot be trusted")]
    Storage {
        /// The lane.
        lane: LaneId,
        /// What it found.
        source: StorageError,
    },
    /// What came of an effect could not be journaled.
    #[error("lane {lane} could not journal what came of its effects")]
    Outcome {
        /// The lane.
        lane: LaneId,
        /// Why not.
        source: AppendError,
    },
    /// A lane's task panicked, which is a defect of this program.
    #[error("a lane's task panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

/// The running lanes.
pub struct Dispatcher {
    tasks: JoinSet<Result<(), DispatchError>>,
    statuses: Vec<watch::Receiver<LaneStatus>>,
}

/// Looks at lanes from anywhere. Cheap to clone.
#[derive(Clone)]
pub struct LaneStatuses(Vec<watch::Receiver<LaneStatus>>);

impl LaneStatuses {
    /// Every lane as of now, in the order they were given.
    pub fn now(&self) -> Vec<LaneStatus> {
        self.0.iter().map(|status| status.borrow().clone()).collect()
    }

    /// One receiver per lane, for those who wait for a change.
    pub fn watch(&self) -> &[watch::Receiver<LaneStatus>] {
        &self.0
    }
}

impl Dispatcher {
    /// Opens every lane and starts its task. The chains' journals must exist.
    ///
    /// Opening reads the store and blocks for as long as that takes. Must be called inside a
    /// tokio runtime.
    pub fn start(
        store: &Store,
        lanes: Vec<LaneSpec>,
        config: Config,
        metrics: &Metrics,
        shutdown: &CancellationToken,
    ) -> Result<Dispatcher, DispatchError> {
        let mut dispatcher = Dispatcher { tasks: JoinSet::new(), statuses: Vec::new() };
        for LaneSpec { module, pool, destinations, reorg_depth_max, version } in lanes {
            let id = module.lane().clone();
            let mut lane = store
                .lane(&id)
                .map_err(|source| DispatchError::Open { lane: id.clone(), source })?;
            if let Some(version) = version {
                lane.set_version(version)
                    .map_err(|source| DispatchError::Storage { lane: id.clone(), source })?;
            }
            let status = watch::Sender::new(LaneStatus {
                lane: id.clone(),
                state: LaneState::Starting,
                since: SystemTime::now(),
                cursor: lane.cursor().clone(),
                tail: lane.journal().tail(),
                faults: 0,
                module: module.module().sha256().0,
            });
            dispatcher.statuses.push(status.subscribe());
            let reads =
                LiveReads::new(pool.clone(), &destinations, Handle::current(), shutdown.clone());
            let sender = Sender::new(
                lane.outbox(),
                pool,
                reorg_depth_max,
                destinations,
                config.sender,
                metrics.clone(),
            );
            let worker = Worker {
                id: id.clone(),
                config,
                metrics: metrics.clone(),
                status,
                shutdown: shutdown.clone(),
            };
            let runner = Runner::new(lane, module);
            let (of_worker, of_sender) = (id.clone(), id);
            dispatcher.tasks.spawn(async move {
                worker.run(runner, reads).await.map_err(|error| error.of(of_worker))
            });
            let shutdown = shutdown.clone();
            dispatcher.tasks.spawn(async move {
                sender.run(shutdown).await.map_err(|error| error.of(of_sender))
            });
        }
        Ok(dispatcher)
    }

    /// The lanes' statuses, which outlive this dispatcher.
    pub fn statuses(&self) -> LaneStatuses {
        LaneStatuses(self.statuses.clone())
    }

    /// Waits until every lane has ended, which they do at shutdown.
    ///
    /// The first lane that finds the store untrustworthy ends all of them: the process must stop.
    pub async fn join(mut self) -> Result<(), DispatchError> {
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(DispatchError::Panicked)??;
        }
        Ok(())
    }
}

impl WorkerError {
    fn of(self, lane: LaneId) -> DispatchError {
        match self {
            WorkerError::Storage(source) => DispatchError::Storage { lane, source },
            WorkerError::Panicked(source) => DispatchError::Panicked(source),
        }
    }
}

impl SenderError {
    fn of(self, lane: LaneId) -> DispatchError {
        match self {
            SenderError::Storage(source) | SenderError::Append(AppendError::Storage(source)) => {
                DispatchError::Storage { lane, source }
            }
            SenderError::Append(source) => DispatchError::Outcome { lane, source },
            SenderError::Panicked(source) => DispatchError::Panicked(source),
        }
    }
}
