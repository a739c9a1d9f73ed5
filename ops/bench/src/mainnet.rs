//! A mainnet that can be read again and again: the synthetic node that serves it, and the journal
//! that `shepherd ingest` makes of it.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};
use shepherd_log::{Journal, Offset, Options, RecordView, Store, Tail};

use crate::process::{Ended, Process, ours};

/// What the chain is called.
pub const CHAIN: &str = "mainnet";

/// Its id.
pub const CHAIN_ID: u64 = 1;

/// The synthetic node, a process of its own.
pub struct Node {
    /// Where it answers.
    pub url: String,
    _process: Process,
}

impl Node {
    /// Starts a node whose chain has this many blocks.
    pub fn start(blocks: u64) -> anyhow::Result<Node> {
        let mut command = Command::new(ours("shepherd-node")?);
        // It counts without the genesis block.
        command.args(["--shape", "mainnet", "--blocks", &(blocks - 1).to_string(), "--seed", "1"]);
        command.args(["--port", "0"]).stdout(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let url = process.read_line(|line| {
            let url = line.split_whitespace().find(|word| word.starts_with("http://"))?;
            Some(url.to_owned())
        })?;
        Ok(Node { url, _process: process })
    }
}

/// A data directory with a configuration file, for the chain's first blocks.
pub struct Week {
    dir: tempfile::TempDir,
}

impl Week {
    /// An empty data directory for the chain at `url`.
    pub fn new(url: &str) -> anyhow::Result<Week> {
        let dir = tempfile::tempdir()?;
        let text = format!(
            "data_dir = \"data\"\n[chains.{CHAIN}]\nchain_id = {CHAIN_ID}\nstart_block = 0\n\
             endpoints = [\"{url}\"]\n"
        );
        fs::write(dir.path().join("shepherd.toml"), text)?;
        Ok(Week { dir })
    }

    /// One run of `shepherd ingest` into a fresh data directory, up to and with block `last`.
    pub fn ingested(url: &str, last: u64) -> anyhow::Result<(Ended, Week)> {
        let week = Week::new(url)?;
        let ended = Process::start(&mut week.ingest(last)?)?.wait()?;
        ensure!(ended.status.success(), "ingest failed: {}", ended.status);
        Ok((ended, week))
    }

    /// `shepherd ingest` up to and with block `last`, to be started.
    pub fn ingest(&self, last: u64) -> anyhow::Result<Command> {
        let mut command = self.command()?;
        command.args(["ingest", "--chain", CHAIN, "--from", "0", "--to", &last.to_string()]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command)
    }

    /// `shepherd` on this data directory, without a command yet.
    pub fn command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(ours("shepherd")?);
        command.arg("--config").arg(self.path().join("shepherd.toml"));
        Ok(command)
    }

    /// The folder of the configuration file; the data directory is `data` in it.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Its data directory, opened. No program may run on it meanwhile.
    pub fn store(&self) -> Store {
        Store::open(&self.path().join("data"), Options::default())
            .expect("what was just written opens")
    }
}

/// What a journal holds.
pub struct Stored {
    /// Its end.
    pub tail: Tail,
    /// Logs of all its blocks.
    pub logs: u64,
}

impl Stored {
    /// Counts what the chain's journal holds.
    pub fn read(store: &Store) -> anyhow::Result<Stored> {
        let journal = journal(store)?;
        let tail = journal.tail();
        let mut logs = 0;
        for record in journal.read(Offset::START..tail.offset) {
            if let RecordView::Block(block) = record?.record() {
                logs += u64::from(block.log_count());
            }
        }
        Ok(Stored { tail, logs })
    }
}

/// The chain's journal, which was ingested before.
pub fn journal(store: &Store) -> anyhow::Result<Journal> {
    store.existing_journal(&CHAIN.parse()?).context("the chain was journaled")
}
