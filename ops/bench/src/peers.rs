//! ponder and squid on the job of `modules/token-ledger`. Their code is in `ops/bench/peers`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    answer::Answer,
    daemon::free_port,
    process::{Process, Ran},
};

/// Where the code of the peers is, seen from the repository's root.
const CODE: &str = "ops/bench/peers";

/// How often ponder is asked whether it is done.
const LOOK: Duration = Duration::from_millis(50);

/// One peer's passage over the blocks.
pub struct Passage {
    /// From the start of its process until it has computed everything.
    pub ran: Ran,
    /// What it computed.
    pub answer: Answer,
}

/// Which blocks the peers go over.
#[derive(Clone, Copy)]
pub struct Blocks<'b> {
    /// Of the node that has them.
    pub url: &'b str,
    /// The first is block 0.
    pub last: u64,
}

/// A peer that is installed.
pub struct Peer {
    folder: PathBuf,
    /// Of the package that is measured.
    pub version: String,
}

impl Peer {
    /// The peer of this name under a folder, if the package that is measured is installed there.
    ///
    /// The code in the repository is laid over the one that was installed: what is measured is
    /// what is written down.
    pub fn find(peers: Option<&Path>, name: &str, package: &str) -> anyhow::Result<Option<Peer>> {
        let Some(peers) = peers else { return Ok(None) };
        // Its processes start elsewhere.
        let folder = fs::canonicalize(peers)
            .with_context(|| format!("{} is not there", peers.display()))?
            .join(name);
        let manifest = folder.join("node_modules").join(package).join("package.json");
        let Ok(manifest) = fs::read_to_string(manifest) else { return Ok(None) };
        let manifest: Value = serde_json::from_str(&manifest)?;
        let version = manifest["version"].as_str().context("a package has a version")?.to_owned();
        copy_files(&Path::new(CODE).join(name), &folder)
            .context("the peers' code is copied; run this from the repository's root")?;
        Ok(Some(Peer { folder, version }))
    }

    fn node(&self, blocks: Blocks<'_>) -> Command {
        let mut command = Command::new("node");
        command.current_dir(&self.folder);
        command.env("NODE_URL", blocks.url).env("LAST_BLOCK", blocks.last.to_string());
        command.env("NODE_ENV", "production");
        command.stderr(Stdio::null());
        command
    }
}

/// Squid's processor: it asks the node, and keeps balances in memory only.
pub fn squid(peer: &Peer, blocks: Blocks<'_>) -> anyhow::Result<Passage> {
    let mut process = Process::start(peer.node(blocks).arg("main.js").stdout(Stdio::piped()))?;
    process.read_line(|line| (line == "computed").then_some(()))?;
    let ran = process.ran();
    let answer = process.read_line(|line| Answer::parse(line.strip_prefix("answer ")?))?;
    let ended = process.wait()?;
    ensure!(ended.status.success(), "squid failed: {}", ended.status);
    Ok(Passage { ran, answer })
}

/// Ponder forgets what it has computed and what it was answered by nodes.
pub fn ponder_forget(peer: &Peer) -> anyhow::Result<()> {
    let kept = peer.folder.join(".ponder");
    match kept.exists() {
        true => fs::remove_dir_all(&kept).with_context(|| format!("{}", kept.display())),
        false => Ok(()),
    }
}

/// Ponder indexes from the first block into a schema, which must be new. What the node answered
/// to an earlier passage is in its cache.
pub fn ponder(peer: &Peer, blocks: Blocks<'_>, schema: &str) -> anyhow::Result<Passage> {
    let port = free_port()?;
    let mut command = peer.node(blocks);
    command.env("PONDER_TELEMETRY_DISABLED", "1");
    command.args(["node_modules/ponder/dist/esm/bin/ponder.js", "--log-format", "json", "start"]);
    command.args(["--schema", schema, "--hostname", "127.0.0.1", "--port", &port.to_string()]);
    let log = fs::File::create(peer.folder.join("ponder.log"))?;
    let mut process = Process::start(command.stdout(log))?;
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let get = |path: &str| {
        let url = format!("http://127.0.0.1:{port}/{path}");
        client.block_on(async { reqwest::get(url).await?.error_for_status()?.text().await })
    };
    while get("ready").is_err() {
        process
            .ensure_running()
            .with_context(|| format!("ponder; see {}/ponder.log", peer.folder.display()))?;
        std::thread::sleep(LOOK);
    }
    let ran = process.ran();
    let answer = Answer::parse(&get("answer")?).context("ponder's answer is of another kind")?;
    // Killed, its database would need mending at the next start.
    process.terminate()?;
    Ok(Passage { ran, answer })
}

/// Copies all files of a folder and the folders in it.
fn copy_files(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_files(&entry.path(), &to)?,
            false => fs::copy(entry.path(), to).map(drop)?,
        }
    }
    Ok(())
}
