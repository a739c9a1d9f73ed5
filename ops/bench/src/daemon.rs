//! `shepherd run` with modules over a journal that is already there: no endpoint answers.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::Context;
use serde_json::Value;

use crate::process::{Process, ours};

/// A daemon and its configuration. It is killed when this is dropped.
pub struct Daemon {
    config: PathBuf,
    cursors_url: String,
    client: tokio::runtime::Runtime,
    process: Option<Process>,
}

/// Where a lane is.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// Steps it has committed.
    pub commits: u64,
    /// The first record it has not applied.
    pub next: u64,
}

impl Daemon {
    /// Writes the configuration file of a daemon that runs the modules of these manifests on one
    /// chain.
    pub fn new(
        config: PathBuf,
        data_dir: &Path,
        (chain, chain_id): (&str, u64),
        manifests: &[PathBuf],
    ) -> anyhow::Result<Daemon> {
        let port = free_port()?;
        // Port 1 answers nothing, neither as a node nor as an orderbook.
        let mut text = format!(
            "data_dir = {data_dir:?}\n\
             [admin]\nlisten = \"127.0.0.1:{port}\"\n\
             [chains.{chain}]\nchain_id = {chain_id}\nstart_block = 0\n\
             endpoints = [\"http://127.0.0.1:1\"]\norderbook = \"http://127.0.0.1:1\"\n"
        );
        for manifest in manifests {
            let sha256 = sha256(manifest)?;
            text += &format!(
                "[[modules]]\nmanifest = {manifest:?}\nsha256 = \"{sha256}\"\nchains = [\"{chain}\"]\n"
            );
        }
        fs::write(&config, text)?;
        Ok(Daemon {
            config,
            cursors_url: format!("http://127.0.0.1:{port}/v1/cursors"),
            client: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            process: None,
        })
    }

    /// Starts it.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(ours("shepherd")?);
        command.arg("run").arg("--config").arg(&self.config);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(Process::start(&mut command)?);
        Ok(())
    }

    /// Waits until the lane's position is as wanted, and looks at it that often.
    pub fn wait_for(
        &mut self,
        lane: &str,
        look: Duration,
        reached: impl Fn(Position) -> bool,
    ) -> anyhow::Result<Position> {
        loop {
            self.process()?.ensure_running()?;
            if let Some(position) = self.position(lane).filter(|position| reached(*position)) {
                return Ok(position);
            }
            thread::sleep(look);
        }
    }

    /// Where the lane is, once the daemon answers.
    fn position(&self, lane: &str) -> Option<Position> {
        let answer: Value = self.client.block_on(async {
            let answer = reqwest::get(&self.cursors_url).await.ok()?.text().await.ok()?;
            serde_json::from_str(&answer).ok()
        })?;
        let cursors = answer["cursors"].as_array()?;
        let cursor = cursors.iter().find(|cursor| cursor["lane"] == lane)?;
        let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
        Some(Position { commits: number(&cursor["commit"])?, next: number(&cursor["next"])? })
    }

    /// The process, which was started.
    pub fn process(&mut self) -> anyhow::Result<&mut Process> {
        self.process.as_mut().context("the daemon was started")
    }

    /// Kills it with -9.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().context("the daemon was started")?.kill()
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.process.take().context("the daemon was started")?.terminate()
    }
}

/// A port of the loopback interface that nobody uses just now.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// What a manifest's component is pinned by.
fn sha256(manifest: &Path) -> anyhow::Result<String> {
    let inspected = Command::new(ours("shepherd")?)
        .args(["module", "inspect", "--json"])
        .arg(manifest)
        .output()?;
    let inspected: Value = serde_json::from_slice(&inspected.stdout)
        .context("`shepherd module inspect --json` prints JSON")?;
    Ok(inspected["sha256"].as_str().context("it has a sha256")?.to_owned())
}
