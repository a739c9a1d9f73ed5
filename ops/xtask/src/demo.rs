//! The demo: a chain with something happening on it, Shepherd on that chain, and what its
//! modules computed beside what the chain itself says.
//!
//! ```text
//! shepherd-devnet up ── blocks, transfers, reorgs ──▶ anvil ◀──┐ compare at the
//!                                                       ▲      │ cursor's block
//! shepherd run ── journal, token-ledger, balance-tracker┘      │
//!       ▲                                                      │
//!       └── admin API ◀── this process, once a second ─────────┘
//! ```
//!
//! Everything it keeps is in `target/demo`; a second run goes on with the same chain and the
//! same journal.

mod config;
mod http;
mod ledger;
mod screen;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::children::{Event, Program, Signals};
use crate::{guests, setup, shell};
use config::{Config, Module};
use ledger::Ledger;
use screen::{Screen, View};

/// Options of `cargo xtask demo`.
#[derive(Args)]
pub struct Options {
    /// End by itself after so many seconds, and fail unless the modules were right.
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Forget the chain and the journal of earlier runs.
    #[arg(long)]
    fresh: bool,
}

/// Blocks that are made at once at the start, for Shepherd to catch up with.
const PREFILL: u64 = 200;

/// Blocks between two reorgs.
const REORG_EVERY: u64 = 25;

/// How long each run of a rehearsal is looked at.
const REHEARSAL_SECONDS: u64 = 10;

/// How often we look.
const REFRESH: Duration = Duration::from_secs(1);

/// How long Shepherd may take to finish the step in hand: its own limit is 30 seconds.
const SHEPHERD_PATIENCE: Duration = Duration::from_secs(35);

/// How long the node may take to write its chain down.
const DEVNET_PATIENCE: Duration = Duration::from_secs(60);

/// Where the admin server listens if nobody else does.
const ADMIN_PORT: u16 = 7878;

/// Sets up, builds and shows, until Ctrl-C.
pub fn demo(root: &Path, options: &Options) -> anyhow::Result<()> {
    setup::setup(root)?;
    guests::build(root)?;
    println!("demo: building shepherd and the devnet");
    let mut build = shell::cargo(root);
    build.args(["build", "--package", "shepherd-cli", "--package", "shepherd-devnet"]);
    shell::run(&mut build)?;
    show(root, &root.join("target/demo"), options)
}

/// What CI sees of the demo: a first run, and a second one that goes on with its chain. It
/// shows the binaries that the tests have just used: building two packages alone would choose
/// other features of their dependencies and compile for a minute.
pub fn rehearse(root: &Path) -> anyhow::Result<()> {
    let folder = root.join("target/demo-rehearsal");
    for fresh in [true, false] {
        show(root, &folder, &Options { seconds: Some(REHEARSAL_SECONDS), fresh })?;
    }
    Ok(())
}

fn show(root: &Path, folder: &Path, options: &Options) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    // Held until the end: two nodes would write their chains into one file.
    let alone = File::create(folder.join(".lock"))?;
    let named = shown(root, folder);
    ensure!(alone.try_lock().is_ok(), "another demo is running in {named}");
    prepare(folder, options.fresh)?;
    let signals = Signals::take_over()?;
    let (mut devnet, node) = start_devnet(root, folder)?;
    let admin_port = free_port(ADMIN_PORT)?;
    write_config(root, folder, &node, admin_port)?;
    let mut shepherd = start_shepherd(root, folder)?;

    let ledger = watch(&signals, [&mut shepherd, &mut devnet], &node, admin_port, options.seconds);
    println!("demo: ending shepherd, then the node");
    let ended = shepherd.end(&signals, SHEPHERD_PATIENCE);
    let ended = devnet.end(&signals, DEVNET_PATIENCE).and(ended);
    let ledger = ledger.with_context(|| {
        format!(
            "shepherd's own words are in {named}/shepherd.log; \
             `cargo xtask demo --fresh` starts over"
        )
    })?;
    ended?;
    goodbye(&ledger, &named, admin_port);
    ensure!(ledger.differences.is_empty(), "the modules and the chain disagree");
    ensure!(
        options.seconds.is_none() || ledger.agreed > 0,
        "the time was too short: no lane caught up with the chain"
    );
    Ok(())
}

/// Leaves an earlier run's chain and journal in the folder, or neither.
fn prepare(folder: &Path, fresh: bool) -> anyhow::Result<()> {
    let [chain, data] = [folder.join("chain.json"), folder.join("data")];
    if fresh && chain.exists() {
        fs::remove_file(&chain)?;
    }
    // A journal of a chain that is gone could only be refused.
    if !chain.exists() && data.exists() {
        fs::remove_dir_all(&data)?;
    }
    Ok(())
}

/// What the devnet says about itself.
struct Node {
    port: u16,
    /// Its whole announcement.
    said: Value,
}

impl Node {
    fn list(&self, key: &str) -> Vec<String> {
        let list = self.said[key].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    }
}

fn start_devnet(root: &Path, folder: &Path) -> anyhow::Result<(Program, Node)> {
    let mut command = Command::new(root.join("target/debug/shepherd-devnet"));
    command
        .args(["up", "--prefill", &PREFILL.to_string(), "--reorg-every", &REORG_EVERY.to_string()])
        .args(["--state".as_ref(), folder.join("chain.json").as_os_str()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut devnet = Program::start("the devnet", &mut command)?;
    let mut line = String::new();
    // Ends when the program does: a devnet that fails has said why.
    BufReader::new(devnet.stdout()).read_line(&mut line)?;
    ensure!(!line.is_empty(), "the devnet did not start");
    let said: Value = serde_json::from_str(&line).context("reading what the devnet said")?;
    let url = said["http"].as_str().context("the devnet has an address")?;
    let port = url.trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok());
    let port = port.context("the devnet's address has a port")?;
    Ok((devnet, Node { port, said }))
}

fn write_config(root: &Path, folder: &Path, node: &Node, admin_port: u16) -> anyhow::Result<()> {
    let accounts = node.list("accounts");
    // The two accounts between which the devnet moves a hundred ether now and then.
    let payers = &accounts[accounts.len().saturating_sub(2)..];
    let tracked =
        vec![("addresses", json!(payers)), ("threshold_wei", json!("50000000000000000000"))];
    let config = Config {
        admin_port,
        chain_id: node.said["chain_id"].as_u64().context("the devnet has a chain id")?,
        endpoints: ["ws", "http"]
            .iter()
            .filter_map(|key| node.said[key].as_str())
            .map(str::to_owned)
            .collect(),
        modules: vec![
            module(root, "token-ledger", Vec::new())?,
            module(root, "balance-tracker", tracked)?,
        ],
    };
    fs::write(folder.join("shepherd.toml"), config.text())?;
    Ok(())
}

/// A module, pinned to what was just built.
fn module(
    root: &Path,
    name: &str,
    overrides: Vec<(&'static str, Value)>,
) -> anyhow::Result<Module> {
    let manifest = root.join("modules").join(name).join("module.toml");
    let mut inspect = Command::new(root.join("target/debug/shepherd"));
    inspect.args(["module", "inspect", "--json"]).arg(&manifest);
    let report: Value = serde_json::from_str(&shell::output(&mut inspect)?)?;
    let sha256 = report["sha256"].as_str().context("an inspected module has a sha256")?;
    Ok(Module { manifest, sha256: sha256.to_owned(), overrides })
}

fn start_shepherd(root: &Path, folder: &Path) -> anyhow::Result<Program> {
    let log = File::create(folder.join("shepherd.log"))?;
    let mut command = Command::new(root.join("target/debug/shepherd"));
    command
        .arg("run")
        .args(["--config".as_ref(), folder.join("shepherd.toml").as_os_str()])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Program::start("shepherd", &mut command)
}

/// Looks once a second, until someone or the clock ends it.
fn watch(
    signals: &Signals,
    mut programs: [&mut Program; 2],
    node: &Node,
    admin_port: u16,
    seconds: Option<u64>,
) -> anyhow::Result<Ledger> {
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut screen = Screen::new();
    let mut ledger = Ledger::default();
    loop {
        for program in &mut programs {
            if let Some(status) = program.ended()? {
                bail!("{} ended by itself, with {status}", program.name());
            }
        }
        // Until it listens there is nothing to look at. If it never does, it ends by itself.
        if let Ok(view) = View::fetch(admin_port, node.port) {
            let compared = ledger.look(admin_port, node.port, &view.cursors)?;
            screen.show(&view, &compared, &ledger, admin_port);
        }
        let over = end.is_some_and(|end| end <= Instant::now());
        if over || signals.wait(REFRESH) == Event::Interrupted {
            return Ok(ledger);
        }
    }
}

fn goodbye(ledger: &Ledger, folder: &str, admin_port: u16) {
    println!("\n{} values of the modules agreed with the chain's own.", ledger.agreed);
    for one in &ledger.differences {
        println!(
            "DIFFERENT at block {}: {} is {} according to the module, {} on the chain",
            one.block, one.what, one.module, one.chain
        );
    }
    println!(
        "\nNext:\n  \
         cargo xtask demo            goes on where this ended\n  \
         cargo run -- cursor list --config {folder}/shepherd.toml\n  \
         cargo run -- journal verify --config {folder}/shepherd.toml\n\
         and while the demo runs, in another terminal:\n  \
         curl http://127.0.0.1:{admin_port}/metrics"
    );
}

/// This port if nobody listens on it, else any other.
fn free_port(wanted: u16) -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    Ok(listener.local_addr()?.port())
}

/// A path as a person in the workspace types it.
fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}
