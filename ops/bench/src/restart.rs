//! From kill -9 to the first commit, and what the daemon takes of memory.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use serde_json::Value;

use crate::{
    process::{memory_mib, ours},
    report::{Median, Report, patience},
    synthetic::{CHAIN, CHAIN_ID, Synthetic},
};

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
    let mut daemon = Daemon::new(copy.path())?;
    let mut starts = Vec::new();
    let mut peaks = Vec::new();
    for _ in 0..report.runs {
        let before = daemon.run_until_commit(0)?;
        // Killed in the middle of the next steps.
        let later = daemon.wait_for_commit(before + 2)?;
        daemon.kill()?;
        let started = Instant::now();
        daemon.run_until_commit(later)?;
        starts.push(started.elapsed().as_secs_f64() * 1e3);
        daemon.kill()?;
    }
    let mut idle = Vec::new();
    daemon.start()?;
    daemon.wait_for_tail(journal.blocks)?;
    peaks.push(daemon.memory("VmHWM")?);
    idle.push(daemon.memory("VmRSS")?);
    daemon.kill()?;
    report.row("kill -9 to first commit", Median::of(starts).show("ms"), "target < 1 000 ms");
    report.row(
        "resident memory, greatest in catch-up",
        Median::of(peaks).show("MiB"),
        format!("{} at the tail; target < 150 MiB", Median::of(idle).show("MiB")),
    );
    Ok(())
}

struct Daemon {
    config: PathBuf,
    url: String,
    client: tokio::runtime::Runtime,
    child: Option<Child>,
}

impl Daemon {
    fn new(data_dir: &Path) -> anyhow::Result<Daemon> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let manifest = fs::canonicalize("modules/token-ledger/module.toml")?;
        let inspected = Command::new(ours("shepherd")?)
            .args(["module", "inspect", "--json"])
            .arg(&manifest)
            .output()?;
        let inspected: Value = serde_json::from_slice(&inspected.stdout)
            .context("`shepherd module inspect --json` prints JSON")?;
        let sha256 = inspected["sha256"].as_str().context("it has a sha256")?;
        // Port 1 answers nothing.
        let text = format!(
            "data_dir = {data_dir:?}\n\
             [admin]\nlisten = \"127.0.0.1:{port}\"\n\
             [chains.{CHAIN}]\nchain_id = {CHAIN_ID}\nstart_block = 0\n\
             endpoints = [\"http://127.0.0.1:1\"]\n\
             [[modules]]\nmanifest = {manifest:?}\nsha256 = \"{sha256}\"\nchains = [\"{CHAIN}\"]\n"
        );
        let config = data_dir.join("shepherd.toml");
        fs::write(&config, text)?;
        Ok(Daemon {
            config,
            url: format!("http://127.0.0.1:{port}/v1/cursors"),
            client: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            child: None,
        })
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let child = Command::new(ours("shepherd")?)
            .arg("run")
            .arg("--config")
            .arg(&self.config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Starts the daemon and waits until it has committed more often than `commit`.
    fn run_until_commit(&mut self, commit: u64) -> anyhow::Result<u64> {
        self.start()?;
        self.wait_for_commit(commit + 1)
    }

    fn wait_for_commit(&mut self, commit: u64) -> anyhow::Result<u64> {
        self.wait_for(|cursor| cursor.0 >= commit).map(|cursor| cursor.0)
    }

    fn wait_for_tail(&mut self, next: u64) -> anyhow::Result<()> {
        self.wait_for(|cursor| cursor.1 >= next).map(drop)
    }

    fn wait_for(&mut self, reached: impl Fn((u64, u64)) -> bool) -> anyhow::Result<(u64, u64)> {
        let in_time = patience();
        loop {
            in_time()?;
            let child = self.child.as_mut().context("the daemon was started")?;
            if let Some(status) = child.try_wait()? {
                anyhow::bail!("the daemon ended: {status}");
            }
            if let Some(cursor) = self.cursor().filter(|cursor| reached(*cursor)) {
                return Ok(cursor);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Commit number and next offset, once the daemon answers.
    fn cursor(&self) -> Option<(u64, u64)> {
        let answer: Value = self.client.block_on(async {
            let answer = reqwest::get(&self.url).await.ok()?.text().await.ok()?;
            serde_json::from_str(&answer).ok()
        })?;
        let cursor = answer["cursors"].get(0)?;
        let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
        Some((number(&cursor["commit"])?, number(&cursor["next"])?))
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("the daemon was started")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// A line of the process's memory statistics, in MiB.
    fn memory(&self, field: &str) -> anyhow::Result<f64> {
        let pid = self.child.as_ref().context("the daemon was started")?.id();
        memory_mib(pid, field)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.is_some() {
            // Only reached after an error, which is what gets reported.
            let _ = self.kill();
        }
    }
}
