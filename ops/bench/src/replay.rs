//! Seven days of a mainnet-shaped chain run again: through modules, and beside ponder and squid.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Seek},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256, b256};
use anyhow::{Context, ensure};
use shepherd_log::{Digest, Journal, LaneSnapshot, LogFilter, Offset, RecordView};
use shepherd_replay::Run;

use crate::{
    answer::{Answer, Extent},
    daemon::Daemon,
    mainnet::{self, CHAIN, CHAIN_ID, Node, Stored, Week},
    peers::{self, Blocks, Passage, Peer},
    process::{Process, Ran, ours},
    report::{Median, Report},
};

/// `Transfer(address,address,uint256)`.
const TRANSFER: B256 = b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");

/// How often the daemon is asked where its lane is.
const LOOK: Duration = Duration::from_millis(20);

/// Blocks in which a quiet token is looked for.
const SAMPLE_BLOCKS: u64 = 50;

/// What is measured.
pub struct Plan {
    /// Blocks of the chain. Seven days of mainnet are 50 400.
    pub blocks: u64,
    /// Runs of each measurement.
    pub runs: usize,
    /// The first blocks, over which the peers go too.
    pub peer_blocks: u64,
    /// Where the peers are installed, if they are.
    pub peers: Option<PathBuf>,
}

pub fn measure(report: &mut Report, plan: &Plan) -> anyhow::Result<()> {
    let node = Node::start(plan.blocks)?;
    measure_week(report, plan, &node)?;
    measure_peers(report, plan, &node)
}

/// A module that runs over the week.
struct Case {
    what: String,
    manifest: PathBuf,
    module: &'static str,
    /// Logs that it is given.
    logs: u64,
    /// Whether these are few.
    is_filtered: bool,
    target: &'static str,
}

impl Case {
    fn lane(&self) -> String {
        format!("{}@{CHAIN}", self.module)
    }
}

/// The whole week through modules.
fn measure_week(report: &mut Report, plan: &Plan, node: &Node) -> anyhow::Result<()> {
    let (_, week) = Week::ingested(&node.url, plan.blocks - 1)?;
    let store = week.store();
    let stored = Stored::read(&store)?;
    let journal = mainnet::journal(&store)?;
    let every = LogFilter { addresses: [].into(), topic0: [TRANSFER].into() };
    let token = quiet_token(&journal)?;
    let one = LogFilter { addresses: [token].into(), ..every.clone() };
    let mut scans = Vec::new();
    let mut transfers = 0;
    for _ in 0..plan.runs {
        let started = Instant::now();
        transfers = matching(&journal, &every)?;
        scans.push(started.elapsed().as_secs_f64());
    }
    let of_one = matching(&journal, &one)?;
    drop((journal, store));

    let cases = [
        Case {
            what: "token-ledger, every Transfer".to_owned(),
            manifest: fs::canonicalize("modules/token-ledger/module.toml")?,
            module: "token-ledger",
            logs: transfers,
            is_filtered: false,
            target: "target ≥ 150 000 logs/s, the week < 120 s, < 300 MiB",
        },
        Case {
            what: format!("token-ledger of one token with {of_one} transfers"),
            manifest: one_token(week.path(), token)?,
            module: "one-token",
            logs: of_one,
            is_filtered: true,
            target: "target < 5 s, < 300 MiB",
        },
        Case {
            what: "twap-monitor, each block looked at, no order among the logs".to_owned(),
            manifest: fs::canonicalize("modules/twap-monitor/module.toml")?,
            module: "twap-monitor",
            logs: 0,
            is_filtered: true,
            target: "target < 5 s, < 300 MiB",
        },
    ];
    report.section(
        "Replay of seven days",
        format!(
            "The journal of {} blocks with {} logs that `shepherd ingest` made of the synthetic node's chain, {transfers} \
             of them `Transfer`s (of ERC-721 too, which token-ledger is given and ignores). A figure is of a whole process, \
             from its start to its end: opening and checking stores, compiling the module, an instance for each block, state, \
             cursor, commit row and digests in one batch for each step, the report and its tables. `shepherd run` is the live \
             lane that catches up from nothing with its endpoint down, until its cursor is at the tail; every step of it is \
             synced. It is what `replay verify` computes again. Memory is the most that was resident. The limit reads the \
             journal through the log index, decodes every matching log and does nothing with it.",
            plan.blocks, stored.logs,
        ),
    );
    report.times(&format!("{} runs each, of `shepherd run` one", plan.runs));
    let scan = Median::of(scans);
    report.row(
        "the journal alone (the limit)",
        scan.rate(transfers as f64).show("logs/s"),
        scan.show("s"),
    );
    let config = week.path().join("run.toml");
    let tail = stored.tail.offset.get();
    for (number, case) in cases.iter().enumerate() {
        // The lanes before this one are at the tail and have nothing to do.
        let manifests: Vec<PathBuf> =
            cases[..=number].iter().map(|case| case.manifest.clone()).collect();
        let live = catch_up(&config, &week, &manifests, &case.lane(), tail)?;
        let (digest, note) = {
            let store = week.store();
            let lane = store.lane_snapshot(&case.lane().parse()?)?.context("it has run")?;
            (lane.state_digest()?, if number == 0 { Some(extent(&lane)?) } else { None })
        };
        for command in ["backtest", "verify"] {
            if !can_replay(command)? {
                let what = format!("{}: `shepherd replay {command}`", case.what);
                report.row(&what, "not measured".to_owned(), CANNOT_REPLAY);
            } else if command == "backtest" {
                let runs = backtests(&config, case, plan.runs, digest)?;
                report_row(report, case, "replay backtest", &runs, case.target);
            } else {
                let runs = verifies(&config, case, plan.runs)?;
                report_row(report, case, "replay verify", &runs, "no difference");
            }
        }
        report_row(report, case, "run", &[live], "the live lane");
        if let Some(note) = note {
            report.note(format!(
                "When the week is over, token-ledger has {note}, and began with none."
            ));
        }
    }
    Ok(())
}

/// Backtests of the whole journal, each from nothing, which must all come to this state.
fn backtests(
    config: &Path,
    case: &Case,
    runs: usize,
    expected: Digest,
) -> anyhow::Result<Vec<Ran>> {
    let mut backtests = Vec::new();
    for _ in 0..runs {
        let output = tempfile::tempdir()?;
        backtests.push(backtest(config, &case.manifest, output.path())?);
        let digest = run_lane(output.path(), &case.lane())?.state_digest()?;
        ensure!(
            digest == expected,
            "{}: the backtest came to {digest}, live {expected}",
            case.what
        );
    }
    Ok(backtests)
}

fn verifies(config: &Path, case: &Case, runs: usize) -> anyhow::Result<Vec<Ran>> {
    let mut verifies = Vec::new();
    for _ in 0..runs {
        let mut command = shepherd(config)?;
        verifies.push(finished(command.args(["replay", "verify", &case.lane(), "--quiet"]))?);
    }
    Ok(verifies)
}

fn report_row(report: &mut Report, case: &Case, command: &str, runs: &[Ran], beside: &str) {
    let took = Median::of(runs.iter().map(|ran| ran.seconds).collect());
    let peak = Median::of(runs.iter().map(|ran| ran.peak_mib).collect());
    report.row(
        &format!("{}: `shepherd {command}`", case.what),
        // Of a few logs in a week a rate says nothing.
        match case.is_filtered {
            false => took.rate(case.logs as f64).show("logs/s"),
            true => took.show("s"),
        },
        match case.is_filtered {
            false => format!("{}; {} of memory; {beside}", took.show("s"), peak.show("MiB")),
            true => format!("{} of memory; {beside}", peak.show("MiB")),
        },
    );
}

/// The week's first blocks through token-ledger, ponder and squid.
fn measure_peers(report: &mut Report, plan: &Plan, node: &Node) -> anyhow::Result<()> {
    let last = plan.peer_blocks - 1;
    let manifest = fs::canonicalize("modules/token-ledger/module.toml")?;
    let lane = format!("token-ledger@{CHAIN}");
    let (mut ingests, mut lives, mut replayed) = (Vec::new(), Vec::new(), Vec::new());
    let mut known = None;
    for _ in 0..plan.runs {
        let (ingested, week) = Week::ingested(&node.url, last)?;
        ingests.push(ingested.seconds);
        let config = week.path().join("run.toml");
        let tail = Stored::read(&week.store())?.tail.offset.get();
        lives.push(catch_up(&config, &week, std::slice::from_ref(&manifest), &lane, tail)?);
        let store = week.store();
        let snapshot = store.lane_snapshot(&lane.parse()?)?.context("it has run")?;
        let (answer, extent) = (Answer::of(&snapshot)?, extent(&snapshot)?);
        let every = LogFilter { addresses: [].into(), topic0: [TRANSFER].into() };
        let logs = matching(&mainnet::journal(&store)?, &every)?;
        known = Some((answer.clone(), extent, logs));
        drop((snapshot, store));
        if can_replay("backtest")? {
            let output = tempfile::tempdir()?;
            replayed.push(backtest(&config, &manifest, output.path())?);
            let again = Answer::of(&run_lane(output.path(), &lane)?)?;
            ensure!(again == answer, "the backtest came to {again:?}, live {answer:?}");
        }
    }
    let (answer, extent, logs) = known.context("there is at least one run")?;
    report.section(
        "Replay beside ponder and squid",
        format!(
            "The first {} blocks of the same chain, with {logs} `Transfer`s, through token-ledger and through what does its              job in ponder and squid (ops/bench/peers): the balances of all holders of all tokens. Times are from the start of              a process until it has computed everything, start and compilation included. Shepherd reads its journal and              commits every step to disk exactly once; ponder, warm, reads what the node once answered from its cache in PGlite              and writes to PGlite in a new schema; squid asks the node, on the same two cores, and keeps balances in memory              only, so the time that `shepherd ingest` takes for the same blocks is also shown added.",
            plan.peer_blocks,
        ),
    );
    report.times(&format!("{} runs each, of ponder cold one", plan.runs));
    let logs = logs as f64;
    let show = |report: &mut Report, what: &str, runs: &[Ran], beside: &str| {
        let took = Median::of(runs.iter().map(|ran| ran.seconds).collect());
        let peak = Median::of(runs.iter().map(|ran| ran.peak_mib).collect());
        report.row(
            what,
            took.rate(logs).show("logs/s"),
            format!("{}; {} of memory{beside}", took.show("s"), peak.show("MiB")),
        );
        took
    };
    let live = show(report, "`shepherd run`, live", &lives, "");
    let (ours_is, ours) = match replayed.is_empty() {
        false => ("`replay backtest`", show(report, "`shepherd replay backtest`", &replayed, "")),
        true => {
            report.row("`shepherd replay backtest`", "not measured".to_owned(), CANNOT_REPLAY);
            ("`shepherd run`", live)
        }
    };
    let ingest = Median::of(ingests);
    let from_node = ours.median + ingest.median;
    report.row(
        &format!("`shepherd ingest`, and then {ours_is}"),
        format!("{:.0} logs/s", logs / from_node),
        format!("{from_node:.2} s, of which ingest {}", ingest.show("s")),
    );

    let blocks = Blocks { url: &node.url, last };
    let agrees = |peer: &str, passage: Passage| -> anyhow::Result<Ran> {
        let Passage { ran, answer: theirs } = passage;
        ensure!(theirs == answer, "{peer} came to {theirs:?}, shepherd to {answer:?}");
        Ok(ran)
    };
    let times = |runs: &[Ran]| {
        let theirs = Median::of(runs.iter().map(|ran| ran.seconds).collect()).median;
        (theirs / ours.median, theirs / from_node)
    };
    let peers = plan.peers.as_deref();
    let mut agreed = Vec::new();
    if let Some(squid) = Peer::find(peers, "squid", "@subsquid/evm-processor")? {
        let mut runs = Vec::new();
        for _ in 0..plan.runs {
            runs.push(agrees("squid", peers::squid(&squid, blocks)?)?);
        }
        let (times, with_ingest) = times(&runs);
        let beside = format!(
            "; {ours_is} is {times:.1} times as fast, target ≥ 3; {with_ingest:.1} times with ingest"
        );
        show(report, &format!("squid {}, in memory", squid.version), &runs, &beside);
        agreed.push("squid");
    } else {
        report.row("squid", "not measured".to_owned(), NOT_INSTALLED);
    }
    if let Some(ponder) = Peer::find(peers, "ponder", "ponder")? {
        peers::ponder_forget(&ponder)?;
        let cold = agrees("ponder", peers::ponder(&ponder, blocks, "cold")?)?;
        let mut runs = Vec::new();
        for run in 0..plan.runs {
            let schema = format!("warm{run}");
            runs.push(agrees("ponder", peers::ponder(&ponder, blocks, &schema)?)?);
        }
        let beside = format!("; {ours_is} is {:.1} times as fast, target ≥ 10", times(&runs).0);
        show(report, &format!("ponder {}, warm", ponder.version), &runs, &beside);
        let beside = format!("; with ingest we are {:.1} times as fast", times(&[cold]).1);
        show(report, &format!("ponder {}, cold", ponder.version), &[cold], &beside);
        agreed.push("ponder");
    } else {
        report.row("ponder", "not measured".to_owned(), NOT_INSTALLED);
    }
    report.note(match agreed[..] {
        [] => format!("Shepherd has {extent}."),
        _ => format!(
            "Shepherd and {} agree on every digit: {extent}, SHA-256 {}….",
            agreed.join(" and "),
            &answer.sha256[..16],
        ),
    });
    Ok(())
}

const NOT_INSTALLED: &str = "not installed; see ops/bench/peers/README.md, and give `--peers`";

const CANNOT_REPLAY: &str = "this `shepherd` has no such command";

fn can_replay(command: &str) -> anyhow::Result<bool> {
    let mut help = Command::new(ours("shepherd")?);
    help.args(["replay", command, "--help"]).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(help.status()?.success())
}

/// Runs modules live until the last of them is at the tail.
fn catch_up(
    config: &Path,
    week: &Week,
    manifests: &[PathBuf],
    lane: &str,
    tail: u64,
) -> anyhow::Result<Ran> {
    let data = week.path().join("data");
    let mut daemon = Daemon::new(config.to_owned(), &data, (CHAIN, CHAIN_ID), manifests)?;
    daemon.start()?;
    daemon.wait_for(lane, LOOK, |position| position.next >= tail)?;
    let ran = daemon.process()?.ran();
    daemon.stop()?;
    Ok(ran)
}

/// One backtest of the whole journal into a folder that is empty.
fn backtest(config: &Path, manifest: &Path, output: &Path) -> anyhow::Result<Ran> {
    let mut command = shepherd(config)?;
    command.args(["replay", "backtest"]).arg(manifest).args(["--chain", CHAIN, "--quiet"]);
    finished(command.arg("--output").arg(output))
}

fn shepherd(config: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(ours("shepherd")?);
    command.arg("--config").arg(config);
    Ok(command)
}

/// Runs a command to its end, which must be a good one.
fn finished(command: &mut Command) -> anyhow::Result<Ran> {
    let mut said = tempfile::tempfile()?;
    command.stdout(Stdio::null()).stderr(said.try_clone()?);
    let ended = Process::start(command)?.wait()?;
    if !ended.status.success() {
        let mut text = String::new();
        said.rewind()?;
        said.read_to_string(&mut text)?;
        anyhow::bail!("{command:?} failed with {}: {}", ended.status, text.trim());
    }
    Ok(Ran { seconds: ended.seconds, peak_mib: ended.peak_mib })
}

/// What a lane has computed in a backtest's folder.
fn run_lane(output: &Path, lane: &str) -> anyhow::Result<LaneSnapshot> {
    Ok(Run::existing(output)?.snapshot(&lane.parse()?)?)
}

/// How large the state of a ledger is, in words.
fn extent(ledger: &LaneSnapshot) -> anyhow::Result<String> {
    let Extent { values, tokens, holders } = Extent::of(ledger)?;
    Ok(format!("{values} values that are not zero, of {holders} holders and {tokens} tokens"))
}

/// How many logs the filter matches. Reads them all.
fn matching(journal: &Journal, filter: &LogFilter) -> anyhow::Result<u64> {
    let mut matching = 0;
    for record in journal.find(Offset::START..journal.tail().offset, filter) {
        if let RecordView::Block(block) = record?.record() {
            matching += block.logs().filter(|log| filter.matches(log)).count() as u64;
        }
    }
    Ok(matching)
}

/// A token with a single transfer in a sample of blocks.
fn quiet_token(journal: &Journal) -> anyhow::Result<Address> {
    let mut counts = BTreeMap::<Address, u64>::new();
    let tail = journal.tail().offset.get();
    for sample in 0..SAMPLE_BLOCKS {
        let offset = Offset::new(tail * sample / SAMPLE_BLOCKS);
        let record = journal.read(offset..offset.plus(1)).next().context("it is there")??;
        let RecordView::Block(block) = record.record() else { continue };
        for log in block.logs().filter(|log| log.topics().next() == Some(TRANSFER)) {
            *counts.entry(log.address).or_default() += 1;
        }
    }
    let quiet = counts.iter().find(|(_, count)| **count == 1);
    quiet.map(|(token, _)| *token).context("most tokens are quiet")
}

/// The manifest of a token-ledger that follows one token.
fn one_token(folder: &Path, token: Address) -> anyhow::Result<PathBuf> {
    let component = fs::canonicalize("target/modules/token-ledger.wasm")?;
    let manifest = folder.join("one-token.toml");
    let text = format!(
        "name = \"one-token\"\ncomponent = {component:?}\ncapabilities = [\"state\"]\n\
         [[subscribe.log]]\nname = \"transfers\"\naddresses = [\"{token}\"]\n\
         topic0 = [\"{TRANSFER}\"]\n"
    );
    fs::write(&manifest, text)?;
    Ok(manifest)
}
