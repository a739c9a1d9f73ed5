//! From kill -9 to the first commit, and what the daemon takes of memory.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::{
    daemon::Daemon,
    report::{Median, Report},
    synthetic::{CHAIN, CHAIN_ID, Synthetic},
};

/// How often the daemon is asked where its lane is. What is measured is some hundred of these.
const LOOK: Duration = Duration::from_millis(1);

pub fn measure(report: &mut Report, journal: &Synthetic) -> anyhow::Result<()> {
    report.section(
        "Kill -9 to first commit, and memory",
        format!(
            "The release binary runs token-ledger over a journal of {} logs and is killed with -9 in \
             the middle of its catch-up. Measured from the start of the next process to its first \
             commit seen over the admin API: opening and checking the store, compiling the module, \
             one step. The chain's endpoint is down all the while.",
            journal.logs
        ),
    );
    let copy = journal.copy()?;
    let manifest = fs::canonicalize("modules/token-ledger/module.toml")?;
    let config = copy.path().join("shepherd.toml");
    let mut daemon = Daemon::new(config, copy.path(), (CHAIN, CHAIN_ID), &[manifest])?;
    let lane = format!("token-ledger@{CHAIN}");
    let wait_for_commit = |daemon: &mut Daemon, commits: u64| -> anyhow::Result<u64> {
        let reached = daemon.wait_for(&lane, LOOK, |position| position.commits >= commits)?;
        Ok(reached.commits)
    };
    let mut starts = Vec::new();
    for _ in 0..report.runs {
        daemon.start()?;
        let before = wait_for_commit(&mut daemon, 1)?;
        // Killed in the middle of the next steps.
        let later = wait_for_commit(&mut daemon, before + 2)?;
        daemon.kill()?;
        let started = Instant::now();
        daemon.start()?;
        wait_for_commit(&mut daemon, later + 1)?;
        starts.push(started.elapsed().as_secs_f64() * 1e3);
        daemon.kill()?;
    }
    daemon.start()?;
    daemon.wait_for(&lane, LOOK, |position| position.next >= journal.blocks)?;
    let peak = daemon.process()?.ran().peak_mib;
    let idle = daemon.process()?.resident_mib()?;
    daemon.kill()?;
    report.row("kill -9 to first commit", Median::of(starts).show("ms"), "target < 1 000 ms");
    report.row(
        "resident memory, greatest in catch-up",
        Median::of(vec![peak]).show("MiB"),
        format!("{} at the tail; target < 150 MiB", Median::of(vec![idle]).show("MiB")),
    );
    Ok(())
}
