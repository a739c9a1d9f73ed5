//! Everything that runs during the day: a node, the orderbook, a receiver of webhooks, Shepherd.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use alloy_primitives::Address;
use anyhow::{Context, bail, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use shepherd_devnet::{
    Anvil, Process, Signal, Transaction,
    cow::{self, Cow},
};
use shepherd_orderbook::{ChainConfig, Clock, Config, Orderbook};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use crate::{hooks::Hooks, line::Line};

/// How long Shepherd may take to have done everything about a block. After an outage its sender
/// may wait half a minute before it tries again.
const SETTLED_TIME_MAX: Duration = Duration::from_secs(120);

/// Pause between two looks at whether it has.
const LOOK_PAUSE: Duration = Duration::from_millis(3);

/// Longest time between a block and a kill that interrupts what the block caused.
const KILL_AFTER_MAX_MS: u64 = 120;

/// An EthFlow contract that the orderbook does not index.
pub const FOREIGN_ETH_FLOW: Address = Address::repeat_byte(0xef);

/// The modules of the day.
pub const MODULES: [&str; 5] =
    ["twap-monitor", "ethflow-watcher", "price-alert", "balance-tracker", "stop-loss"];

/// What runs.
pub struct World {
    /// The node.
    pub anvil: Anvil,
    /// Shepherd's way to it.
    line: Line,
    /// The contracts on it.
    pub cow: Cow,
    /// The orderbook.
    pub orderbook: Orderbook,
    /// Where alerts go.
    pub hooks: Hooks,
    /// Ether holders.
    pub users: Vec<Address>,
    shepherd: Shepherd,
    http: reqwest::Client,
    rng: StdRng,
}

/// The process under test, and its folder.
struct Shepherd {
    binary: PathBuf,
    folder: TempDir,
    process: Option<Process>,
}

impl World {
    /// Starts everything but Shepherd, on a chain that has just begun.
    pub async fn start(binary: &Path, seed: u64) -> anyhow::Result<World> {
        let anvil = Anvil::start(Cow::options()).await?;
        let cow = Cow::deploy(&anvil).await?;
        anvil.set_code(FOREIGN_ETH_FLOW, anvil.code(cow::ETH_FLOW).await?).await?;
        let chain = ChainConfig {
            eth_flow: Some(cow::ETH_FLOW),
            check_funds: true,
            delay_blocks: 1,
            poll_interval: Duration::from_millis(20),
            ..ChainConfig::new(anvil.http_url())
        };
        let config = Config { clock: Clock::Chain, chain: Some(chain), seed, ..Config::default() };
        let orderbook = Orderbook::start(config).await?;
        let folder = TempDir::new()?;
        // It is run in that folder.
        let binary = fs::canonicalize(binary).context("finding the binary")?;
        let users = anvil.accounts()[1..4].to_vec();
        Ok(World {
            line: Line::to(anvil.port()).await?,
            anvil,
            cow,
            orderbook,
            hooks: Hooks::start().await?,
            users,
            shepherd: Shepherd { binary, folder, process: None },
            http: reqwest::Client::builder().no_proxy().build()?,
            rng: StdRng::seed_from_u64(seed),
        })
    }

    /// Where Shepherd keeps its data and its log.
    pub fn folder(&self) -> &Path {
        self.shepherd.folder.path()
    }

    /// Writes Shepherd's configuration: the five modules, each with what `modules` says of it.
    ///
    /// It begins at the newest block: what came before is how the devnet was made.
    pub async fn configure(&self, modules: &dyn Fn(&str) -> String) -> anyhow::Result<()> {
        let start_block = self.anvil.block_number().await?;
        let (http, ws) = (self.line.url("http")?, self.line.url("ws")?);
        let (orderbook, hooks) = (self.orderbook.url(), self.hooks.url());
        let mut text = format!(
            r#"data_dir = "data"

[admin]
listen = "127.0.0.1:0"

[log]
format = "json"
level = "info"

[webhooks.alerts]
url = "{hooks}"

[chains.sepolia]
chain_id = {}
endpoints = ["{http}", "{ws}"]
orderbook = "{orderbook}"
start_block = {start_block}
poll_interval = "100ms"
"#,
            cow::CHAIN_ID
        );
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("ops/e2e");
        for name in MODULES {
            let manifest = root.join("modules").join(name).join("module.toml");
            let inspected = Command::new(&self.shepherd.binary)
                .args(["module", "inspect", "--json"])
                .arg(&manifest)
                .output()?;
            let said = String::from_utf8_lossy(&inspected.stderr);
            ensure!(inspected.status.success(), "inspecting {name}: {said}");
            let view: Value = serde_json::from_slice(&inspected.stdout)?;
            let sha256 = view["sha256"].as_str().context("the component's sha256")?;
            text += &format!(
                "\n[[modules]]\nmanifest = {manifest:?}\nsha256 = \"{sha256}\"\n{}",
                modules(name)
            );
        }
        fs::write(self.folder().join("shepherd.toml"), text)?;
        let checked = self.shepherd.command("check").output()?;
        let said = String::from_utf8_lossy(&checked.stderr);
        ensure!(checked.status.success(), "shepherd check: {said}");
        Ok(())
    }

    /// Starts Shepherd.
    pub fn start_shepherd(&mut self) -> anyhow::Result<()> {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder().join("shepherd.log"))?;
        let mut command = self.shepherd.command("run");
        command.stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log);
        let (process, _) = Process::spawn(command)?;
        self.shepherd.process = Some(process);
        Ok(())
    }

    /// Stops Shepherd in order, and expects it to end well.
    pub async fn stop_shepherd(&mut self) -> anyhow::Result<()> {
        let mut process = self.shepherd.process.take().context("Shepherd runs")?;
        process.signal(Signal::Terminate);
        let status = timeout(SETTLED_TIME_MAX, process.exited()).await?;
        ensure!(status.success(), "Shepherd ended with {status}");
        Ok(())
    }

    /// Kills Shepherd at a random moment soon, and starts it again.
    pub async fn kill_shepherd(&mut self) -> anyhow::Result<()> {
        let wait = self.rng.random_range(0..KILL_AFTER_MAX_MS);
        // Nothing to wait for: the moment itself is what is tried.
        sleep(Duration::from_millis(wait)).await;
        let mut process = self.shepherd.process.take().context("Shepherd runs")?;
        process.signal(Signal::Kill);
        process.exited().await;
        self.start_shepherd()
    }

    /// Sends transactions and mines them in one block of this time.
    pub async fn block(&self, transactions: &[Transaction], time: u64) -> anyhow::Result<()> {
        let anvil = &self.anvil;
        let sent = anvil.send(transactions).await?;
        anvil.mine_at(time).await?;
        anvil.succeeded(&sent).await?;
        Ok(())
    }

    /// Takes the node away from Shepherd, and gives it back once Shepherd has noticed.
    pub async fn cut_line(&mut self) -> anyhow::Result<()> {
        self.line.cut().await;
        let deadline = Instant::now() + SETTLED_TIME_MAX;
        while self.chain_state().await.as_deref() != Some("waiting") {
            ensure!(Instant::now() < deadline, "Shepherd does not notice that the node is gone");
            sleep(LOOK_PAUSE).await;
        }
        self.line.mend().await
    }

    async fn chain_state(&self) -> Option<String> {
        let chains = self.ask("/v1/chains").await?;
        chains["chains"][0]["state"]["name"].as_str().map(ToOwned::to_owned)
    }

    /// Returns when Shepherd has passed the node's head and nothing waits in its outboxes.
    pub async fn settled(&mut self) -> anyhow::Result<()> {
        let head = self.anvil.head().await?.hash.to_string();
        let deadline = Instant::now() + SETTLED_TIME_MAX;
        loop {
            if let Some(status) = self.shepherd.process.as_ref().and_then(Process::status) {
                bail!("Shepherd ended with {status}: {}", self.last_words());
            }
            if self.is_settled(&head).await == Some(true) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "Shepherd has not settled: {:?}, {}",
                self.ask("/v1/cursors").await,
                self.last_words()
            );
            sleep(LOOK_PAUSE).await;
        }
    }

    async fn is_settled(&self, head: &str) -> Option<bool> {
        let cursors = self.ask("/v1/cursors").await?;
        let lanes = cursors["cursors"].as_array()?;
        let at_head = |lane: &Value| lane["block"]["hash"] == head && lane["next"] == lane["tail"];
        if lanes.len() != MODULES.len() || !lanes.iter().all(at_head) {
            return Some(false);
        }
        for name in MODULES {
            let outbox = self.ask(&format!("/v1/lanes/{name}@sepolia/outbox")).await?;
            if !outbox["effects"].as_array()?.is_empty() {
                return Some(false);
            }
        }
        // What came meanwhile is in the journal, and moves its tail.
        let again = self.ask("/v1/cursors").await?;
        let caught_up = |lane: &Value| lane["next"] == lane["tail"];
        Some(
            again["cursors"].as_array()?.iter().all(caught_up)
                && again["cursors"] == cursors["cursors"],
        )
    }

    /// Asks Shepherd; `None` while it does not answer.
    pub async fn ask(&self, path: &str) -> Option<Value> {
        let announced = fs::read(self.folder().join("data/daemon.json")).ok()?;
        let announced: Value = serde_json::from_slice(&announced).ok()?;
        let url = Url::parse(&format!("http://{}{path}", announced["admin"].as_str()?)).ok()?;
        let response = self.http.get(url).send().await.ok()?.error_for_status().ok()?;
        serde_json::from_slice(&response.bytes().await.ok()?).ok()
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder().join("shepherd.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(12).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Shepherd {
    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg(verb).current_dir(self.folder.path());
        command.env_remove("RUST_LOG").env_remove("SHEPHERD_CONFIG");
        command
    }
}
