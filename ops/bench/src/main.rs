//! Measures Shepherd and writes what it found into `ops/docs/benchmarks.md`.
//!
//! Every figure is a median of several runs in one process, beside a limit or a peer that was
//! measured in the same run on the same machine: the machines are shared, so a number by itself
//! says little. Nothing here passes or fails by time.

mod follow;
mod journal;
mod lane;
mod module;
mod report;
mod restart;
mod synthetic;

use std::path::PathBuf;

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
    /// Measure only the sections whose names contain this: follow, journal, lane, module, restart.
    #[arg(long, default_value = "")]
    only: String,
    /// Blocks of fifty logs that anvil is filled with.
    #[arg(long, default_value_t = 1_000)]
    anvil_blocks: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // The HTTP client is not built without one, though it only speaks to loopback.
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider was installed already"))?;
    let mut report = Report::new(arguments.runs);
    let journal = tokio::task::spawn_blocking(move || synthetic::build(arguments.logs)).await??;
    let wanted = |section: &str| section.contains(&arguments.only);
    let [journal_wanted, lane_wanted, module_wanted, restart_wanted] =
        ["journal", "lane", "module", "restart"].map(wanted);
    if wanted("follow") {
        follow::measure(&mut report, arguments.anvil_blocks).await?;
    }
    let report = tokio::task::spawn_blocking(move || -> anyhow::Result<Report> {
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
    })
    .await??;
    report.write(&arguments.report)
}
