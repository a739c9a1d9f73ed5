//! Measures Shepherd and writes what it found into `ops/docs/benchmarks.md`.
//!
//! Every figure is a median of several runs in one process, beside a limit or a peer that was
//! measured in the same run on the same machine: the machines are shared, so a number by itself
//! says little. Nothing here passes or fails by time.

mod answer;
mod daemon;
mod distance;
mod follow;
mod journal;
mod lane;
mod load;
mod mainnet;
mod module;
mod peers;
mod process;
mod reads;
mod replay;
mod report;
mod restart;
mod synthetic;
mod week;

use std::path::PathBuf;

/// What the binary that is measured here allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use clap::Parser;

use crate::report::Report;

/// What to measure.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// Where the report goes.
    #[arg(long, default_value = "ops/docs/benchmarks.md")]
    report: PathBuf,
    /// Runs of each measurement; the median is reported.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Logs of the journal that is scanned and replayed, in blocks of fifty.
    #[arg(long, default_value_t = 1_000_000)]
    logs: u64,
    /// Measure only the sections whose names contain this: follow, reads, watched, journal,
    /// lane, module, restart, week, replay.
    #[arg(long, default_value = "")]
    only: String,
    /// Watched orders of the load sections, one after the other.
    #[arg(long, value_delimiter = ',', default_value = "300,3000,10000")]
    watches: Vec<usize>,
    /// Blocks of a second in which nothing is due.
    #[arg(long, default_value_t = 120)]
    quiet_blocks: u64,
    /// Blocks in which three hundred orders become due at once.
    #[arg(long, default_value_t = 20)]
    rounds: u64,
    /// Blocks of fifty logs that anvil is filled with.
    #[arg(long, default_value_t = 1_000)]
    anvil_blocks: u64,
    /// Blocks of the week that is ingested.
    #[arg(long, default_value_t = 50_400)]
    week_blocks: u64,
    /// Runs of the week, which takes minutes each.
    #[arg(long, default_value_t = 3)]
    week_runs: usize,
    /// A Python that has cryo, the peer that reads the same week (`pip install cryo==0.3.2`).
    #[arg(long, default_value = "python3")]
    cryo_python: PathBuf,
    /// Runs of each replay of the week, of which the longest take a minute or two.
    #[arg(long, default_value_t = 3)]
    replay_runs: usize,
    /// The week's first blocks, which ponder and squid go over too. They are slow, and are to be
    /// measured for long enough that their start does not count.
    #[arg(long, default_value_t = 2_000)]
    peer_blocks: u64,
    /// Where ponder and squid are installed, as ops/bench/peers/README.md says.
    #[arg(long)]
    peers: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // The HTTP client is not built without one, though it only speaks to loopback.
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider was installed already"))?;
    let mut report = Report::new(arguments.runs);
    let wanted = |section: &str| section.contains(&arguments.only);
    if wanted("follow") {
        follow::measure(&mut report, arguments.anvil_blocks).await?;
    }
    if wanted("reads") {
        reads::measure(&mut report).await?;
    }
    if wanted("watched") {
        let Arguments { watches, quiet_blocks, rounds, .. } = arguments.clone();
        load::measure(&mut report, &load::Plan { watches, quiet_blocks, rounds }).await?;
    }
    if wanted("week") {
        let Arguments { week_blocks: blocks, week_runs: runs, cryo_python, .. } = &arguments;
        let plan = week::Plan { blocks: *blocks, runs: *runs, cryo_python: cryo_python.clone() };
        week::measure(&mut report, &plan).await?;
    }
    if wanted("replay") {
        let Arguments { week_blocks: blocks, replay_runs: runs, peer_blocks, peers, .. } =
            arguments.clone();
        let plan = replay::Plan { blocks, runs, peer_blocks, peers };
        let measuring = move || replay::measure(&mut report, &plan).map(|()| report);
        report = tokio::task::spawn_blocking(measuring).await??;
    }
    let of_journal = ["journal", "lane", "module", "restart"].map(wanted);
    let report = if of_journal.contains(&true) {
        let measuring = move || measure_journal(report, of_journal, arguments.logs);
        tokio::task::spawn_blocking(measuring).await??
    } else {
        report
    };
    report.write(&arguments.report)
}

/// What is measured without a node, on a thread that may block.
fn measure_journal(
    mut report: Report,
    [journal_wanted, lane_wanted, module_wanted, restart_wanted]: [bool; 4],
    logs: u64,
) -> anyhow::Result<Report> {
    let journal = synthetic::build(logs)?;
    if journal_wanted {
        journal::measure(&mut report, &journal)?;
    }
    if lane_wanted {
        lane::measure(&mut report, &journal)?;
    }
    if module_wanted {
        module::measure(&mut report)?;
    }
    if restart_wanted {
        restart::measure(&mut report, &journal)?;
    }
    Ok(report)
}
