//! `shepherd run`: everything put together, until a signal or a reason to stop.
//!
//! ```text
//! configuration ─▶ store, modules ─▶ admin server ─▶ followers and lanes
//!                                                          │
//!        signal, or data that cannot be trusted ───────────┤
//!                                                          ▼
//!                          followers and lanes end, then the admin server, then the store
//! ```
//!
//! A chain that cannot go on (a reorg deeper than its limit) ends alone: the others do not depend
//! on it. Stored data that cannot be trusted ends the process.

use std::{
    io,
    time::{Duration, Instant},
};

use prometheus_client::registry::Registry;
use shepherd_admin::{ChainReport, LaneReport, Sources, view};
use shepherd_dispatch::{DispatchError, Dispatcher, LaneSpec, LaneState, LaneStatus, SenderConfig};
use shepherd_host::{BoundModule, Engine};
use shepherd_ingest::{ChainState, ChainStatus, FollowError, follow};
use shepherd_log::{ChainName, Journal, JournalError, LaneId, LaneVersion, Retention, Store};
use shepherd_rpc::{Pool, in_words};
use tokio::{
    net::TcpListener,
    runtime,
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    archive::Archive,
    check::pool,
    clean,
    config::{Chain, Config},
    daemon, destinations, endpoints,
    exit::{Code, Failure, NO_ROOM_HELP, Problem, file_problem},
    modules::{self, Configured},
    rehearsal, retention,
    signals::Signals,
    telemetry::{self, Reader},
    view::{block_check, open_store},
};

/// How long a shutdown may take.
///
/// A step commits in milliseconds and a dropped one is done again; half a minute is what service
/// managers wait before they kill.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(30);

/// Runs until a signal or a reason to stop.
pub fn run(config: Config) -> Result<(), Failure> {
    let reader = telemetry::for_daemon(&config.log);
    let runtime = runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::from_error(Code::Failed, &error))?;
    let outcome = runtime.block_on(serve(config));
    // Everything that was started has ended by now, or its time is up.
    runtime.shutdown_background();
    // A person reads the message that every command ends with; a log's reader only reads the log.
    if let (Err(failure), Reader::Program) = (&outcome, reader) {
        for problem in &failure.problems {
            error!(help = problem.help, "{}", problem.message);
        }
    }
    outcome
}

async fn serve(config: Config) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(|error| Problem::from_error(Code::Failed, &error))?;
    let started = tokio::select! {
        started = start(config) => started?,
        name = signals.next() => {
            info!(signal = name, "stopped before anything was started");
            return Ok(());
        }
    };
    let Running { config, store, shutdown, mut followers, dispatcher, admin } = started;
    let mut lanes = Box::pin(dispatcher.join());
    let mut lanes_ended = false;
    let outcome = tokio::select! {
        name = signals.next() => {
            info!(signal = name, "stopping");
            Ok(())
        }
        problem = first_fatal(&mut followers) => Err(problem),
        ended = &mut lanes, if !config.modules.is_empty() => {
            lanes_ended = true;
            ended.map_err(|error| lane_problem(&error))
        }
    };

    let asked = Instant::now();
    let ending = async {
        let mut ended = Ok(());
        shutdown.work.cancel();
        while let Some(follower) = followers.join_next().await {
            ended = ended.and(follower_ended(follower, true));
        }
        if !lanes_ended {
            ended = ended.and(lanes.await.map_err(|error| lane_problem(&error)));
        }
        shutdown.admin.cancel();
        ended.and(finished(admin.await))
    };
    let ended = tokio::select! {
        ended = timeout(SHUTDOWN_TIME_MAX, ending) => ended.unwrap_or_else(|_| {
            Err(cut_short(&format!("it took more than {} seconds", SHUTDOWN_TIME_MAX.as_secs())))
        }),
        name = signals.again(asked) => Err(cut_short(&format!("{name} came again"))),
    };
    daemon::withdraw(&config.data_dir);
    outcome.and(ended)?;
    clean::end(&config.data_dir).map_err(|error| not_written(&config, &error))?;
    // Not before: whoever opens it next looks for the marker.
    drop(store);
    info!("stopped");
    Ok(())
}

fn cut_short(reason: &str) -> Problem {
    let message = format!("the shutdown was cut short: {reason}");
    let help = "nothing is lost: the next start goes on from what was committed";
    Problem::new(Code::CutShort, message).help(help)
}

/// What runs once everything is started.
struct Running {
    config: Config,
    store: Store,
    shutdown: Shutdown,
    followers: Followers,
    dispatcher: Dispatcher,
    admin: tokio::task::JoinHandle<()>,
}

/// The admin server ends last, so that a shutdown can be watched.
struct Shutdown {
    work: CancellationToken,
    admin: CancellationToken,
}

type Followers = JoinSet<Ended>;

/// A follower or a chain's retention that ended, and whether its chain had ever been heard of.
struct Ended {
    chain: ChainName,
    heard: bool,
    outcome: Result<(), FollowError>,
}

/// A followed chain, for whoever asks about it.
struct Followed {
    name: ChainName,
    chain_id: u64,
    quorum: usize,
    status: watch::Receiver<ChainStatus>,
    retention: watch::Receiver<Option<view::RetentionView>>,
    pool: Pool,
}

/// What is counted, by whom.
struct Metrics {
    registry: Registry,
    store: shepherd_log::Metrics,
    rpc: shepherd_rpc::Metrics,
    ingest: shepherd_ingest::Metrics,
    dispatch: shepherd_dispatch::Metrics,
    retention: retention::Metrics,
    admin: shepherd_admin::Metrics,
}

impl Metrics {
    fn new() -> Metrics {
        let mut registry = Registry::default();
        Metrics {
            store: shepherd_log::Metrics::new(&mut registry),
            rpc: shepherd_rpc::Metrics::new(&mut registry),
            ingest: shepherd_ingest::Metrics::new(&mut registry),
            dispatch: shepherd_dispatch::Metrics::new(&mut registry),
            retention: retention::Metrics::new(&mut registry),
            admin: shepherd_admin::Metrics::new(&mut registry),
            registry,
        }
    }
}

async fn start(config: Config) -> Result<Running, Failure> {
    let metrics = Metrics::new();
    let (config, store, journals, modules, engine) = open(config, metrics.store.clone()).await?;
    let was_clean = clean::begin(&config.data_dir).map_err(|error| not_written(&config, &error))?;
    let modules = {
        let (store, archive) = (store.clone(), Archive::of(&config.data_dir));
        let ready = move || versioned(&store, &archive, &engine, modules, was_clean);
        finished(spawn_blocking(ready).await)??
    };
    let listener = listen(&config).await?;
    let address =
        listener.local_addr().map_err(|error| Problem::from_error(Code::Failed, &error))?;
    daemon::announce(&config.data_dir, address).map_err(|error| not_written(&config, &error))?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        data_dir = %config.data_dir.display(),
        admin = %address,
        chains = config.chains.len(),
        lanes = modules.len(),
        "started"
    );

    let shutdown = Shutdown { work: CancellationToken::new(), admin: CancellationToken::new() };
    let (followers, followed) = follow_chains(&config, journals, &metrics, &shutdown.work);
    let lanes = lanes(&config, modules, &followed, &metrics);
    let window = config.sender.window;
    let patience = shepherd_dispatch::Config {
        sender: SenderConfig { window, ..SenderConfig::default() },
        ..shepherd_dispatch::Config::default()
    };
    let dispatcher = Dispatcher::start(&store, lanes, patience, &metrics.dispatch, &shutdown.work)
        .map_err(|error| lane_problem(&error))?;

    let statuses = dispatcher.statuses();
    let sources = Sources {
        store: store.clone(),
        check: Box::new(block_check(&config)),
        chains: Box::new(move || followed.iter().map(chain_report).collect()),
        lanes: Box::new(move || statuses.now().iter().map(lane_report).collect()),
        metrics: metrics.admin,
        registry: metrics.registry,
    };
    let admin = tokio::spawn(shepherd_admin::serve(listener, sources, shutdown.admin.clone()));
    Ok(Running { config, store, shutdown, followers, dispatcher, admin })
}

fn not_written(config: &Config, error: &io::Error) -> Problem {
    let problem = file_problem(Code::WriteFailed, "write to", &config.data_dir, error);
    problem.help(NO_ROOM_HELP)
}

/// Writes down what each lane is about to run with. After an unclean end the lanes must also come
/// to the same again.
fn versioned(
    store: &Store,
    archive: &Archive,
    engine: &Engine,
    modules: Vec<Configured>,
    was_clean: bool,
) -> Result<Vec<(Configured, LaneVersion)>, Failure> {
    let version = |module: Configured| Ok((archive.keep(&module)?, module));
    let modules: Result<Vec<_>, Problem> = modules.into_iter().map(version).collect();
    let modules =
        modules?.into_iter().map(|(version, module)| (module, version)).collect::<Vec<_>>();
    if !was_clean {
        rehearsal::rehearse(store, archive, engine, &modules)?;
        // A rebuild may have been killed between its switch and the end of the clearing up.
        let swept = store.sweep(&|| false);
        let swept = swept.map_err(|error| Problem::from_error(Code::Untrusted, &error))?;
        if swept > 0 {
            info!(rows = swept, "removed what a rebuilt lane had left");
        }
    }
    Ok(modules)
}

/// What each module runs with.
fn lanes(
    config: &Config,
    modules: Vec<(Configured, LaneVersion)>,
    followed: &[Followed],
    metrics: &Metrics,
) -> Vec<LaneSpec> {
    for chain in config.chains.iter().filter(|chain| chain.dry_run) {
        warn!(chain = chain.name.as_str(), "dry run: what its lanes would send is not sent");
    }
    let bound: Vec<BoundModule> = modules.iter().map(|(module, _)| module.bound.clone()).collect();
    for warning in destinations::warnings(config, &bound) {
        warn!("{warning}");
    }
    let destinations = destinations::of_chains(config, &metrics.dispatch);
    let lane = |(Configured { bound: module, .. }, version): (Configured, LaneVersion)| {
        let name = &module.lane().chain;
        let index = config.chains.iter().position(|chain| chain.name == *name);
        let index = index.expect("modules run on configured chains");
        LaneSpec {
            pool: followed[index].pool.clone(),
            destinations: destinations[name].clone(),
            reorg_depth_max: config.chains[index].follow.reorg_depth_max,
            version: Some(version),
            module,
        }
    };
    modules.into_iter().map(lane).collect()
}

/// Starts a follower for each chain; `journals` are in the order of the configuration.
fn follow_chains(
    config: &Config,
    journals: Vec<Journal>,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> (Followers, Vec<Followed>) {
    let mut followers = JoinSet::new();
    let mut followed = Vec::new();
    for (chain, journal) in config.chains.iter().zip(journals) {
        let kept = keep(chain, journal.clone(), metrics, shutdown, &mut followers);
        let pool = pool(chain, &metrics.rpc);
        let sender = watch::Sender::new(ChainStatus::starting());
        let status = sender.subscribe();
        let following = follow(
            journal,
            pool.clone(),
            chain.follow.clone(),
            sender,
            metrics.ingest.clone(),
            shutdown.clone(),
        );
        let (name, heard) = (chain.name.clone(), status.clone());
        followers.spawn(async move {
            let outcome = following.await;
            let heard = heard.borrow().node_head.is_some();
            Ended { chain: name, heard, outcome }
        });
        followed.push(Followed {
            name: chain.name.clone(),
            chain_id: chain.chain_id,
            quorum: chain.follow.quorum,
            status,
            retention: kept,
            pool,
        });
    }
    (followers, followed)
}

/// Starts the retention of a chain, if it has one.
fn keep(
    chain: &Chain,
    journal: Journal,
    metrics: &Metrics,
    shutdown: &CancellationToken,
    followers: &mut Followers,
) -> watch::Receiver<Option<view::RetentionView>> {
    let sender = watch::Sender::new(None);
    let status = sender.subscribe();
    if chain.retention == Retention::default() {
        return status;
    }
    let (metrics, shutdown) = (metrics.retention.clone(), shutdown.clone());
    let keeping = retention::keep(journal, chain.retention, sender, metrics, shutdown);
    let chain = chain.name.clone();
    followers.spawn(async move {
        let outcome = keeping.await.map_err(FollowError::Storage);
        Ended { chain, heard: true, outcome }
    });
    status
}

/// Opens the store while the modules compile: together they decide how long a start takes.
async fn open(
    config: Config,
    metrics: shepherd_log::Metrics,
) -> Result<(Config, Store, Vec<Journal>, Vec<Configured>, Engine), Failure> {
    let config = std::sync::Arc::new(config);
    let (for_store, for_modules) = (config.clone(), config.clone());
    let store = spawn_blocking(move || open_journals(&for_store, metrics));
    let modules = spawn_blocking(move || -> Result<_, Failure> {
        let engine = modules::engine()?;
        let modules = modules::load_all(&for_modules, &engine);
        let modules = modules.map_err(|problems| Failure { problems })?;
        match destinations::problems(&for_modules, &modules::bound(&modules)) {
            problems if problems.is_empty() => Ok((modules, engine)),
            problems => Err(Failure { problems }),
        }
    });
    let (store, journals) = finished(store.await)??;
    let (modules, engine) = finished(modules.await)??;
    let config = std::sync::Arc::into_inner(config).expect("both tasks have ended");
    Ok((config, store, journals, modules, engine))
}

fn finished<T>(joined: Result<T, tokio::task::JoinError>) -> Result<T, Problem> {
    joined.map_err(|error| Problem::from_error(Code::Failed, &error))
}

fn open_journals(
    config: &Config,
    metrics: shepherd_log::Metrics,
) -> Result<(Store, Vec<Journal>), Problem> {
    let store = open_store(config, metrics)?;
    let journals = config
        .chains
        .iter()
        .map(|chain| {
            store.journal(&chain.name, chain.chain_id).map_err(|error| journal_problem(&error))
        })
        .collect::<Result<_, Problem>>()?;
    Ok((store, journals))
}

/// Why a journal cannot be had.
pub fn journal_problem(error: &JournalError) -> Problem {
    match error {
        JournalError::OtherChain { .. } => Problem::from_error(Code::Configuration, error)
            .help("correct `chain_id`, or give the other chain a name of its own"),
        JournalError::Storage(_) => Problem::from_error(Code::Untrusted, error),
    }
}

async fn listen(config: &Config) -> Result<TcpListener, Problem> {
    let address = config.admin.listen;
    TcpListener::bind(address).await.map_err(|error| {
        let message = format!("the admin server cannot listen on {address}: {error}");
        Problem::new(Code::Configuration, message)
            .help("stop what uses that port, or change `listen` under [admin]")
    })
}

/// Waits for the first follower whose end must end the process.
async fn first_fatal(followers: &mut Followers) -> Problem {
    while let Some(ended) = followers.join_next().await {
        if let Err(problem) = follower_ended(ended, false) {
            return problem;
        }
    }
    // Every chain has stopped, each loudly. What is journaled can still be looked at.
    std::future::pending().await
}

/// What the end of a follower means for the process.
fn follower_ended(
    ended: Result<Ended, tokio::task::JoinError>,
    stopping: bool,
) -> Result<(), Problem> {
    let Ended { chain, heard, outcome } = finished(ended)?;
    let Err(error) = outcome else { return Ok(()) };
    let message = format!("chain {chain}: {}", in_words(&error));
    match error {
        FollowError::WrongChain { .. } if !heard && !stopping => {
            let help = "correct `chain_id` or `endpoints`; `shepherd check` tests both";
            Err(Problem::new(Code::Endpoint, message).help(help))
        }
        FollowError::NoSuchBlock(_) if !stopping => {
            Err(Problem::new(Code::Configuration, message).help("correct `start_block`"))
        }
        FollowError::NoSuchBlock(_)
        | FollowError::WrongChain { .. }
        | FollowError::ReorgTooDeep { .. } => {
            warn!(chain = chain.as_str(), "this chain is no longer followed; the others go on");
            Ok(())
        }
        FollowError::Append(_) | FollowError::Read(_) | FollowError::Storage(_) => {
            Err(Problem::new(Code::Untrusted, message))
        }
    }
}

fn lane_problem(error: &DispatchError) -> Problem {
    let code = match error {
        DispatchError::Storage { .. }
        | DispatchError::Open { .. }
        | DispatchError::Outcome { .. } => Code::Untrusted,
        DispatchError::Panicked(_) => Code::Failed,
    };
    Problem::from_error(code, error)
}

fn chain_report(followed: &Followed) -> ChainReport {
    let status = followed.status.borrow();
    let (name, reason) = match &status.state {
        ChainState::Starting => ("starting", None),
        ChainState::CatchingUp => ("catching-up", None),
        ChainState::Following => ("following", None),
        ChainState::Waiting { reason } => ("waiting", Some(reason.clone())),
        ChainState::Stopped { reason } => ("stopped", Some(reason.clone())),
    };
    ChainReport {
        name: followed.name.clone(),
        chain_id: followed.chain_id,
        state: view::StateView::new(name, reason, Some(status.since)),
        node_head: status.node_head.map(|head| head.number),
        finalized: status.finalized,
        quorum: followed.quorum,
        endpoints: followed.pool.status().iter().map(endpoints::view).collect(),
        retention: followed.retention.borrow().clone(),
    }
}

fn lane_report(status: &LaneStatus) -> (LaneId, LaneReport) {
    let (name, reason) = match &status.state {
        LaneState::Starting => ("starting", None),
        LaneState::CatchingUp => ("catching-up", None),
        LaneState::Running => ("running", None),
        LaneState::Waiting { reason } => ("waiting", Some(reason.clone())),
        LaneState::BackingOff { offset, fault, failures, until } => {
            let again = view::time(*until);
            let reason =
                format!("record {offset}: {fault} (failed {failures} times, again at {again})");
            ("backing-off", Some(reason))
        }
        LaneState::Halted { offset, fault } => {
            ("halted", Some(format!("record {offset}: {fault}")))
        }
        LaneState::Stopped => ("stopped", None),
    };
    let state = view::StateView::new(name, reason, Some(status.since));
    (status.lane.clone(), LaneReport { state, faults: status.faults })
}
