//! Seven days of a mainnet-shaped chain: from a node into the journal, and out of it again.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256};
use anyhow::{Context, ensure};
use prometheus_client::registry::Registry;
use serde_json::json;
use shepherd_log::{LogFilter, Offset, RecordView};
use shepherd_rpc::{Call, Options, Pool};
use tokio::task::JoinSet;

use crate::{
    mainnet::{self, CHAIN, CHAIN_ID, Node, Stored, Week},
    process::Process,
    report::{Median, Report},
};

/// Blocks of one `eth_getLogs` when the node's limit is measured.
const LIMIT_RANGE: u64 = 20;

/// Questions under way at once when the node's limit is measured; the follower's default.
const LIMIT_PARALLEL: usize = 4;

/// How often ingest is killed on its way, at least.
const KILLS: u32 = 20;

/// What is measured.
pub struct Plan {
    /// Blocks of the chain. Seven days of mainnet are 50 400.
    pub blocks: u64,
    /// Runs of each measurement.
    pub runs: usize,
    /// A Python that has cryo, the peer.
    pub cryo_python: PathBuf,
}

pub async fn measure(report: &mut Report, plan: &Plan) -> anyhow::Result<()> {
    let node = Node::start(plan.blocks)?;
    let last = plan.blocks - 1;
    let pool = pool(&node.url)?;

    let mut limits = Vec::new();
    let mut ingests = Vec::new();
    let mut week = None;
    for _ in 0..plan.runs {
        limits.push(ask(&pool, last).await?);
        let (ended, journal) = Week::ingested(&node.url, last)?;
        ingests.push(ended);
        week = Some(journal);
    }
    let week = week.context("there is at least one run")?;
    let stored = Stored::read(&week.store())?;
    let disk_bytes = folder_bytes(week.path())?;
    let logs = stored.logs as f64;

    report.section(
        "Seven days of mainnet",
        format!(
            "A synthetic node serves {} blocks of 12 seconds with {} logs, shaped like mainnet's: {:.0} logs a block, few \
             contracts with most of the logs. It runs on the same two cores. `shepherd ingest` fetches headers in batches \
             and logs by ranges, checks header hashes and blooms, and appends in synced batches; its time is that of the \
             whole process, from its start to its end. The limit asks for the same headers and logs, {LIMIT_RANGE} blocks \
             a range, {LIMIT_PARALLEL} questions at a time, and throws the answers away unread. cryo is the release from \
             PyPI with its defaults; it reads the same node into Parquet and checks nothing.",
            plan.blocks,
            stored.logs,
            logs / plan.blocks as f64,
        ),
    );
    report.times(&format!("{} runs each", plan.runs));
    let took = Median::of(ingests.iter().map(|ended| ended.seconds).collect());
    let peak = Median::of(ingests.iter().map(|ended| ended.peak_mib).collect());
    let limit = Median::of(limits);
    report.row(
        "shepherd ingest",
        took.rate(logs).show("logs/s"),
        format!(
            "{}; {}; target ≥ 150 000 logs/s or the node's limit",
            took.rate(plan.blocks as f64).show("blocks/s"),
            took.rate(disk_bytes as f64 / 1e6).show("MB/s on disk"),
        ),
    );
    report.row("its memory, greatest", peak.show("MiB"), "target < 300 MiB");
    report.row(
        "the node's own limit",
        limit.rate(logs).show("logs/s"),
        format!("shepherd reaches {:.2} of it", limit.median / took.median),
    );
    measure_cryo(report, plan, &node.url, logs, took)?;
    measure_size(report, &week, logs, disk_bytes)?;
    measure_find(report, plan.runs, &week)?;
    measure_kills(report, &node.url, last, took.median, &stored)?;
    Ok(())
}

/// The peer on the same node, logs alone and logs with blocks.
fn measure_cryo(
    report: &mut Report,
    plan: &Plan,
    url: &str,
    logs: f64,
    ours: Median,
) -> anyhow::Result<()> {
    let has_cryo = Command::new(&plan.cryo_python)
        .args(["-c", "import cryo"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !has_cryo {
        report.row("cryo", "not measured".to_owned(), "not installed here");
        return Ok(());
    }
    for datasets in [&["logs"][..], &["blocks", "logs"]] {
        let name = format!("cryo, {}", datasets.join(" and "));
        let mut runs = Vec::new();
        for _ in 0..plan.runs {
            let out = tempfile::tempdir()?;
            let program = format!(
                "import cryo; cryo.freeze({datasets:?}, start_block=0, end_block={}, rpc={url:?}, \
                 output_dir={:?}, verbose=False)",
                plan.blocks,
                out.path().display().to_string(),
            );
            let mut command = Command::new(&plan.cryo_python);
            command.args(["-c", &program]).stdout(Stdio::null()).stderr(Stdio::null());
            let ended = Process::start(&mut command)?.wait()?;
            ensure!(ended.status.success(), "cryo failed: {}", ended.status);
            runs.push(ended);
        }
        let took = Median::of(runs.iter().map(|ended| ended.seconds).collect());
        let peak = Median::of(runs.iter().map(|ended| ended.peak_mib).collect());
        report.row(
            &name,
            took.rate(logs).show("logs/s"),
            format!(
                "shepherd is {:.2} times as fast; {} of memory",
                took.median / ours.median,
                peak.show("MiB"),
            ),
        );
    }
    Ok(())
}

/// What the journal weighs, beside the same blocks and logs in Parquet.
fn measure_size(
    report: &mut Report,
    week: &Week,
    logs: f64,
    disk_bytes: u64,
) -> anyhow::Result<()> {
    let out = tempfile::tempdir()?;
    let mut command = week.command()?;
    command.args(["journal", "export", "--chain", CHAIN, "--format", "parquet", "--out"]);
    command.arg(out.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let ended = Process::start(&mut command)?.wait()?;
    ensure!(ended.status.success(), "export failed: {}", ended.status);
    let parquet = folder_bytes(out.path())?;
    report.row(
        "journal on disk",
        format!("{:.0} bytes/log", disk_bytes as f64 / logs),
        format!(
            "{:.2} GB with block index and log index; {:.2} times the same in zstd Parquet",
            disk_bytes as f64 / 1e9,
            disk_bytes as f64 / parquet as f64,
        ),
    );
    report.row(
        "`journal export` to zstd Parquet",
        format!("{:.0} bytes/log", parquet as f64 / logs),
        format!(
            "{:.2} GB at {:.0} logs/s; {:.0} MiB of memory",
            parquet as f64 / 1e9,
            logs / ended.seconds,
            ended.peak_mib,
        ),
    );
    Ok(())
}

/// Reads of one address and topic over the whole week.
fn measure_find(report: &mut Report, runs: usize, week: &Week) -> anyhow::Result<()> {
    let store = week.store();
    let journal = mainnet::journal(&store)?;
    let tail = journal.tail().offset;
    let (busiest, quiet) = pairs(&journal)?;
    for (name, (address, topic)) in [("the busiest pair", busiest), ("a quiet pair", quiet)] {
        let filter = LogFilter { addresses: [address].into(), topic0: [topic].into() };
        let (mut samples, mut found_logs, mut touched) = (Vec::new(), 0, None);
        for _ in 0..runs {
            let started = Instant::now();
            let mut found = journal.find(Offset::START..tail, &filter);
            found_logs = 0;
            for record in found.by_ref() {
                if let RecordView::Block(block) = record?.record() {
                    found_logs += block.logs().filter(|log| filter.matches(log)).count();
                }
            }
            touched = Some(found.touched());
            samples.push(started.elapsed().as_secs_f64() * 1e3);
        }
        let touched = touched.context("there is at least one run")?;
        report.row(
            &format!("find {name}"),
            Median::of(samples).show("ms"),
            format!(
                "{found_logs} logs; {} blocks read, {} passed over",
                touched.blocks_read, touched.blocks_skipped
            ),
        );
    }
    let filter = LogFilter::default();
    let started = Instant::now();
    let mut logs = 0;
    for record in journal.find(Offset::START..tail, &filter) {
        if let RecordView::Block(block) = record?.record() {
            logs += block.logs().filter(|log| filter.matches(log)).count();
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    report.row(
        "reading every log of the week (the limit of not having an index)",
        format!("{:.0} ms", seconds * 1e3),
        format!("{logs} logs"),
    );
    Ok(())
}

/// The pair of address and first topic with the most logs in a sample of blocks, and one that
/// comes up a single time in it.
fn pairs(journal: &shepherd_log::Journal) -> anyhow::Result<((Address, B256), (Address, B256))> {
    let mut counts = BTreeMap::<(Address, B256), u64>::new();
    let tail = journal.tail().offset.get();
    for sample in 0..50 {
        let offset = Offset::new(tail * sample / 50);
        let record = journal.read(offset..offset.plus(1)).next().context("it is there")??;
        let RecordView::Block(block) = record.record() else { continue };
        for log in block.logs() {
            let log = log.to_log();
            if let Some(topic) = log.topics.first() {
                *counts.entry((log.address, *topic)).or_default() += 1;
            }
        }
    }
    let busiest = counts.iter().max_by_key(|(_, count)| **count).context("there are logs")?.0;
    let quiet = counts.iter().find(|(_, count)| **count == 1).context("some are rare")?.0;
    Ok((*busiest, *quiet))
}

/// Ingests once more, killed on the way again and again.
fn measure_kills(
    report: &mut Report,
    url: &str,
    last: u64,
    undisturbed: f64,
    expected: &Stored,
) -> anyhow::Result<()> {
    let week = Week::new(url)?;
    let started = Instant::now();
    let mut kills = 0;
    loop {
        // 0.4 to 0.9 of an even share: the rest of the time is lost to starting again.
        let pause = undisturbed / f64::from(KILLS) * (0.4 + 0.5 * f64::from(kills % 5) / 4.0);
        let process = Process::start(&mut week.ingest(last)?)?;
        let killed = match kills < KILLS + 10 {
            true => process.kill_after(Duration::from_secs_f64(pause.max(0.1)))?,
            false => {
                let ended = process.wait()?;
                ensure!(ended.status.success(), "ingest failed: {}", ended.status);
                false
            }
        };
        match killed {
            true => kills += 1,
            false => break,
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    ensure!(kills >= KILLS, "it was killed {kills} times only");
    let mut verify = week.command()?;
    verify.args(["journal", "verify"]).stdout(Stdio::null()).stderr(Stdio::null());
    let verified = Process::start(&mut verify)?.wait()?;
    ensure!(verified.status.success(), "verify failed after {kills} kills: {}", verified.status);
    let stored = Stored::read(&week.store())?;
    ensure!(stored.tail == expected.tail, "after {kills} kills: {:?}", stored.tail);
    ensure!(stored.logs == expected.logs, "after {kills} kills {} logs", stored.logs);
    report.row(
        &format!("killed with -9 {kills} times on the way"),
        format!("{seconds:.0} s"),
        format!(
            "{undisturbed:.0} s undisturbed; same head, {} logs, `journal verify` clean in {:.0} s",
            stored.logs, verified.seconds
        ),
    );
    Ok(())
}

fn pool(url: &str) -> anyhow::Result<Pool> {
    let metrics = shepherd_rpc::Metrics::new(&mut Registry::default());
    let endpoints = vec![url.parse::<shepherd_rpc::Redacted>()?.into()];
    Ok(Pool::connect(CHAIN, CHAIN_ID, endpoints, Options::default(), &metrics))
}

/// Asks for every header and log, and says how long that took.
async fn ask(pool: &Pool, last: u64) -> anyhow::Result<f64> {
    let started = Instant::now();
    let mut asking = JoinSet::new();
    for first in (0..=last).step_by(LIMIT_RANGE as usize) {
        if asking.len() == LIMIT_PARALLEL {
            asking.join_next().await.expect("some are under way")??;
        }
        asking.spawn(ask_for(pool.clone(), first, (first + LIMIT_RANGE - 1).min(last)));
    }
    while let Some(asked) = asking.join_next().await {
        asked??;
    }
    Ok(started.elapsed().as_secs_f64())
}

async fn ask_for(pool: Pool, first: u64, last: u64) -> anyhow::Result<()> {
    let hex = |number: u64| format!("{number:#x}");
    let headers: Vec<Call> = (first..=last)
        .map(|number| Call { method: "eth_getBlockByNumber", params: json!([hex(number), false]) })
        .collect();
    let range = json!([{ "fromBlock": hex(first), "toBlock": hex(last) }]);
    pool.batch(&headers).await?;
    let logs = Call { method: "eth_getLogs", params: range };
    for answer in pool.batch(&[logs]).await?.answers {
        answer?;
    }
    Ok(())
}

/// Bytes that all files of a folder take on disk.
fn folder_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => folder_bytes(&entry.path())?,
            // In units of 512 bytes: the engine reserves more than it has written.
            false => entry.metadata()?.blocks() * 512,
        };
    }
    Ok(bytes)
}
