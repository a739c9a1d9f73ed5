//! `shepherd ingest` and `shepherd resume`: the past of a chain, and what it costs.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, stdout},
    time::{Duration, SystemTime},
};

use indicatif::FormattedDuration;
use prometheus_client::registry::Registry;
use serde::Serialize;
use shepherd_admin::view::{BlockRefView, block_time};
use shepherd_ingest::{FollowError, Plan, PlanError, Start, Until, ingest as fill, plan};
use shepherd_log::{ChainName, Journal, Options, RecordView, Store};
use shepherd_rpc::in_words;
use tokio::{runtime::Runtime, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    check::pool,
    cli,
    config::{Chain, Config},
    exit::{Code, Failure, Problem},
    progress,
    run::journal_problem,
    show::{count, print, print_json, print_json_line, print_table, size, table},
    signals,
    view::{open_existing, open_store, the_chain, the_chains},
};

/// What an ingest came to, as the last JSON line.
#[derive(Serialize)]
struct Ingested {
    chain: String,
    /// Whether everything that was asked for is there.
    complete: bool,
    /// Blocks and logs that this run made durable.
    blocks: u64,
    logs: u64,
    elapsed_seconds: f64,
    /// Where the journal ends now.
    head: Option<BlockRefView>,
}

/// Fills a chain's journal up to where it was asked to.
pub fn ingest(config: &Config, args: &cli::Ingest) -> Result<(), Failure> {
    let name = the_chain(config, args.chain.as_ref())?;
    let chain = configured(config, &name)?;
    let store = open_store(config, shepherd_log::Metrics::unregistered()).map_err(in_use)?;
    let journal = journal(&store, chain)?;
    if let Some(from) = args.from {
        goes_on_from(&journal, from)?;
    }
    let follow = shepherd_ingest::Config {
        start: args.from.unwrap_or(chain.follow.start),
        ..chain.follow.clone()
    };
    let mut registry = Registry::default();
    let metrics = shepherd_ingest::Metrics::new(&mut registry);
    let sender = watch::Sender::new(shepherd_ingest::Progress::default());
    let progress = sender.subscribe();
    let stopping = CancellationToken::new();
    let runtime = runtime()?;
    let filled = runtime.block_on(async {
        signals::cancel_on_signal(&stopping)?;
        // Made here, because it may start background work.
        let pool = pool(chain, &shepherd_rpc::Metrics::new(&mut registry));
        let filling =
            fill(journal.clone(), pool, follow, until(args.to), sender, metrics, stopping.clone());
        let filled = progress::show(name.as_str(), progress.clone(), filling).await;
        filled.map_err(|error| follow_problem(chain, &error))
    });
    let tail = filled?;
    let progress = progress.borrow().clone();
    let complete = !stopping.is_cancelled();
    let ingested = Ingested {
        chain: name.to_string(),
        complete,
        blocks: progress.blocks,
        logs: progress.logs,
        elapsed_seconds: progress::tenths(progress.elapsed.as_secs_f64()),
        head: tail.head.map(BlockRefView::from),
    };
    ingested.print();
    match complete {
        true => Ok(()),
        false => {
            Err(signals::stopped("`shepherd run`, or the same command, goes on from there").into())
        }
    }
}

/// Whoever has the data directory open is most likely doing the same.
fn in_use(problem: Problem) -> Problem {
    match problem.code {
        Code::Locked => {
            problem.help("`shepherd run` fills gaps by itself; stop it first to do without it")
        }
        _ => problem,
    }
}

impl Ingested {
    fn print(&self) {
        if !stdout().is_terminal() {
            return print_json_line(self);
        }
        let Ingested { chain, blocks, logs, elapsed_seconds, head, .. } = self;
        let (blocks, logs) = (count(*blocks, "block"), count(*logs, "log"));
        let ends = head.as_ref().map_or("is empty".to_owned(), |head| {
            format!("ends with block {}, {}", head.number, head.hash)
        });
        print(&format!(
            "{chain}: {blocks}, {logs} in {elapsed_seconds:.1} s; the journal {ends}\n"
        ));
    }
}

/// The first block after a time may be this much later: the same `--from` must go on, not fail.
const PAUSE_SECONDS_MAX: u64 = 3600;

/// A journal only grows at its end: `from` must not be before what it begins with.
fn goes_on_from(journal: &Journal, from: Start) -> Result<(), Problem> {
    let Some((first, time)) = first_block(journal)? else { return Ok(()) };
    let is_before = match from {
        Start::Block(number) => number < first,
        Start::At(seconds) => seconds + PAUSE_SECONDS_MAX < time,
        Start::Ago(age) => seconds_before_now(age) + PAUSE_SECONDS_MAX < time,
        Start::Latest => false,
    };
    if !is_before {
        return Ok(());
    }
    let message = format!(
        "the journal of {} begins with block {first} of {}, and nothing is ever put before that",
        journal.chain(),
        block_time(time)
    );
    let help = "leave out --from to go on after its end; for earlier blocks start a journal in another `data_dir`, or under another name for the chain";
    Err(Problem::new(Code::Failed, message).help(help))
}

/// Number and time of the first block that is still there.
fn first_block(journal: &Journal) -> Result<Option<(u64, u64)>, Problem> {
    for stored in journal.read(journal.start()..journal.tail().offset) {
        let stored = stored.map_err(|error| Problem::from_error(Code::Untrusted, &error))?;
        if let RecordView::Block(block) = stored.record() {
            return Ok(Some((block.this.number, block.timestamp)));
        }
    }
    Ok(None)
}

fn until(to: Option<Start>) -> Until {
    match to {
        None | Some(Start::Latest) => Until::Head,
        Some(Start::Block(number)) => Until::Block(number),
        Some(Start::At(seconds)) => Until::At(seconds),
        Some(Start::Ago(age)) => Until::At(seconds_before_now(age)),
    }
}

fn seconds_before_now(age: Duration) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(age).as_secs()
}

/// A gap and what it will cost, as JSON.
#[derive(Serialize)]
struct PlanView {
    chain: String,
    /// The first and the last block of the gap; nothing when there is none.
    gap: Option<[u64; 2]>,
    blocks: u64,
    /// All of these are estimates.
    logs: u64,
    calls: BTreeMap<&'static str, u64>,
    json_bytes: u64,
    seconds: u64,
    /// What it was estimated by.
    sampled_blocks: u64,
    round_trip_ms: f64,
}

/// Prints what it will cost to bring journals to where their chains are, and does nothing.
pub fn resume(config: &Config, args: &cli::Resume) -> Result<(), Failure> {
    if !args.plan {
        let message = "`shepherd resume` only shows the plan: add --plan";
        let help = "`shepherd run` resumes by itself: each journal after its last block, each lane at its cursor";
        return Err(Problem::new(Code::Failed, message).help(help).into());
    }
    let exists = config.data_dir.join("store").exists();
    let store = exists.then(|| open_existing(config)).transpose().map_err(in_use)?;
    // An empty journal elsewhere stands for one that was never begun.
    let nothing = Nothing::new()?;
    let runtime = runtime()?;
    let mut plans = Vec::new();
    for name in the_chains(config, args.chain.as_ref()) {
        let chain = configured(config, &name)?;
        let begun = store.as_ref().and_then(|store| store.existing_journal(&name));
        let journal = match begun {
            Some(journal) => journal,
            None => journal(&nothing.store, chain)?,
        };
        let planned = runtime.block_on(async {
            let metrics = shepherd_rpc::Metrics::new(&mut Registry::default());
            let pool = pool(chain, &metrics);
            plan(&journal, &pool, &chain.follow, Until::Head).await
        });
        plans.push(view(chain, planned.map_err(|error| plan_problem(chain, &error))?));
    }
    if args.json {
        print_json(&plans);
    } else {
        print_plans(&plans);
    }
    Ok(())
}

/// A store without records that goes away with this.
struct Nothing {
    store: Store,
    _folder: tempfile::TempDir,
}

impl Nothing {
    fn new() -> Result<Nothing, Problem> {
        let failed = |error: &dyn std::error::Error| {
            let message = format!("cannot make a temporary folder: {error}");
            Problem::new(Code::Failed, message)
        };
        let folder = tempfile::tempdir().map_err(|error| failed(&error))?;
        let store =
            Store::open(folder.path(), Options::default()).map_err(|error| failed(&error))?;
        Ok(Nothing { store, _folder: folder })
    }
}

/// The journal of a configured chain, begun when it was not.
pub fn journal(store: &Store, chain: &Chain) -> Result<Journal, Problem> {
    let journal = store.journal(&chain.name, chain.chain_id);
    journal.map_err(|error| journal_problem(&error))
}

fn view(chain: &Chain, plan: Plan) -> PlanView {
    PlanView {
        chain: chain.name.to_string(),
        gap: (plan.blocks > 0).then_some([plan.first, plan.last]),
        blocks: plan.blocks,
        logs: plan.logs,
        calls: plan.calls,
        json_bytes: plan.json_bytes,
        seconds: plan.duration.as_secs(),
        sampled_blocks: plan.sampled_blocks,
        round_trip_ms: plan.round_trip.as_secs_f64() * 1000.0,
    }
}

fn print_plans(plans: &[PlanView]) {
    let mut rows = table(&["CHAIN", "FROM", "TO", "BLOCKS", "LOGS", "CALLS", "BYTES", "TIME"]);
    for plan in plans {
        let Some([first, last]) = plan.gap else {
            rows.add_row([plan.chain.as_str(), "-", "-", "0", "-", "-", "-", "-"]);
            continue;
        };
        let calls: u64 = plan.calls.values().sum();
        rows.add_row([
            plan.chain.clone(),
            first.to_string(),
            last.to_string(),
            plan.blocks.to_string(),
            format!("~{}", plan.logs),
            format!("~{calls}"),
            format!("~{}", size(plan.json_bytes)),
            format!("~{}", FormattedDuration(Duration::from_secs(plan.seconds))),
        ]);
    }
    print_table(&mut rows);
    for plan in plans.iter().filter(|plan| plan.gap.is_some()) {
        let calls: Vec<String> =
            plan.calls.iter().map(|(method, calls)| format!("~{calls} {method}")).collect();
        let (sampled, trip) = (count(plan.sampled_blocks, "block"), plan.round_trip_ms);
        print(&format!(
            "\n{}: {}; estimated from {sampled}, with a round trip of {trip:.1} ms\n",
            plan.chain,
            calls.join(", ")
        ));
    }
    let behind = plans.iter().any(|plan| plan.gap.is_some());
    print(match behind {
        true => "\nNothing was done. `shepherd run` and `shepherd ingest` fill these gaps.\n",
        false => "\nNo journal is behind.\n",
    });
}

/// A chain of the configuration by its name.
pub fn configured<'c>(config: &'c Config, name: &ChainName) -> Result<&'c Chain, Problem> {
    config.chains.iter().find(|chain| chain.name == *name).ok_or_else(|| {
        let known: Vec<&str> = config.chains.iter().map(|chain| chain.name.as_str()).collect();
        let help = format!("the chains in the configuration are {}", known.join(", "));
        Problem::new(Code::Failed, format!("no chain called {name} is configured")).help(help)
    })
}

/// What waits for endpoints, signals and disks at once.
pub fn runtime() -> Result<Runtime, Problem> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::from_error(Code::Failed, &error))
}

fn follow_problem(chain: &Chain, error: &FollowError) -> Problem {
    let message = format!("chain {}: {}", chain.name, in_words(error));
    match error {
        FollowError::WrongChain { .. } => Problem::new(Code::Endpoint, message)
            .help("correct `chain_id` or `endpoints`; `shepherd check` tests both"),
        FollowError::NoSuchBlock(_) | FollowError::ReorgTooDeep { .. } => {
            Problem::new(Code::Failed, message)
        }
        FollowError::Append(_) | FollowError::Read(_) | FollowError::Storage(_) => {
            Problem::new(Code::Untrusted, message)
        }
    }
}

fn plan_problem(chain: &Chain, error: &PlanError) -> Problem {
    let message = format!("chain {}: {}", chain.name, in_words(error));
    match error {
        PlanError::NoSuchBlock(_) => Problem::new(Code::Failed, message),
        PlanError::Fetch(_) => Problem::new(Code::Endpoint, message),
    }
}
