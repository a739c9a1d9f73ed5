//! How fast a lane catches up, every step committed exactly once and synced.

use std::cell::Cell;

use alloy_primitives::U256;
use shepherd_dispatch::Runner;
use shepherd_host::{ReadAnswer, ReadRequest, World};
use shepherd_log::BlockRef;

use crate::{
    journal::decode,
    module,
    report::{Median, Report, seconds},
    synthetic::{self, Synthetic},
};

/// Records of each step, as a lane far behind takes them.
const STEP_RECORDS_MAX: usize = 1024;

pub fn measure(report: &mut Report, journal: &Synthetic) -> anyhow::Result<()> {
    report.section(
        "Lane catch-up",
        format!(
            "A lane passes {} blocks with {} Transfer logs between 20 000 holders of 4 tokens, from \
             an empty state: a fresh WebAssembly instance for each block, state, undo, commit row \
             and cursor in one synced batch for each step. The limit is the journal scan that \
             decodes every log.",
            journal.blocks, journal.logs
        ),
    );
    let runs = report.runs;
    let scan = decode(&synthetic::open(journal.path())?.1, runs)?;

    let steps = Cell::new(0);
    let ledger = module::load("token-ledger", "")?;
    let mut samples = Vec::new();
    for _ in 0..runs {
        let copy = journal.copy()?;
        let (store, _) = synthetic::open(copy.path())?;
        let mut runner = Runner::new(store.lane(ledger.lane())?, ledger.clone());
        steps.set(0);
        let once = seconds(1, || {
            while runner.advance(STEP_RECORDS_MAX, &mut answers, &|| false)?.is_some() {
                steps.set(steps.get() + 1);
            }
            Ok(())
        })?;
        samples.push(once.median);
    }
    let caught_up = Median::of(samples);
    report.row(
        "token-ledger, every log",
        caught_up.rate(journal.logs as f64).show("events/s"),
        format!(
            "{}; {} steps; the scan alone: {}; target ≥ 100 000 events/s",
            caught_up.rate(journal.blocks as f64).show("blocks/s"),
            steps.get(),
            scan.rate(journal.logs as f64).show("logs/s"),
        ),
    );
    Ok(())
}

/// A chain on which everybody has one wei.
#[expect(clippy::unnecessary_wraps, reason = "the shape of a source of reads")]
pub fn answers(_: BlockRef, requests: &[ReadRequest]) -> Result<Vec<ReadAnswer>, World> {
    Ok(requests.iter().map(|_| ReadAnswer::Balance(U256::ONE)).collect())
}
