//! One anvil: started, driven, stopped and started again with the chain it had.
//!
//! ```text
//! Options ──start──▶ Anvil ──stop──▶ Stopped ──start──▶ Anvil   same port, same chain
//!                      │
//!                      └─drop─▶ gone, and the chain with it unless Options name a state file
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use std::{env, thread};

use alloy_primitives::{Address, B256, Bytes, U256};
use anyhow::{Context, anyhow, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use url::Url;

use crate::process::{Process, Signal};
use crate::rpc::{Refused, Rpc};

/// How long a node may take from its start to its first answer.
///
/// It needs a few hundredths of a second; loading a chain of ten thousand blocks on a busy
/// machine takes longer.
const START_MAX: Duration = Duration::from_secs(60);

/// How long a node may take to write its chain down when told to stop.
const STOP_MAX: Duration = Duration::from_secs(60);

/// How long a receipt may be missing after its block was asked for. anvil shows a block a little
/// before the receipts in it, and there is no event to wait for.
const RECEIPT_MAX: Duration = Duration::from_secs(10);
const RECEIPT_PAUSE: Duration = Duration::from_millis(2);

/// Lines of a failed node's complaint that are shown.
const COMPLAINT_LINES: usize = 20;

/// When blocks are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mining {
    /// Only when [`Anvil::mine`] is called; transactions wait until then.
    OnDemand,
    /// One block for each transaction, at once.
    EachTransaction,
    /// One block in each interval, with whatever transactions there are.
    Every(Duration),
}

/// What kind of node to start. The default mines on demand on a free port.
#[derive(Clone, Debug)]
pub struct Options {
    /// When blocks are made.
    pub mining: Mining,
    /// The port to listen on; `None` takes a free one.
    pub port: Option<u16>,
    /// The chain's id.
    pub chain_id: u64,
    /// Accounts with 10 000 ether each, which the node signs for.
    pub accounts: u16,
    /// Where the chain is kept between two runs: read when the node starts, if it is there,
    /// and written when it stops. `None` keeps it for [`Stopped::start`] alone.
    pub state: Option<PathBuf>,
    /// A node to take the chain from, as it is when this one starts. It is the only thing a
    /// devnet asks of another machine, and nothing is ever sent there.
    pub fork: Option<Url>,
    /// The time of the first block, in Unix seconds; `None` takes the machine's.
    pub genesis_time: Option<u64>,
    /// Each block's timestamp is so many seconds after the one before. With `None` time passes
    /// as on the machine, and blocks made within a second have the same.
    pub seconds_per_block: Option<u64>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            mining: Mining::OnDemand,
            port: None,
            chain_id: 31337,
            accounts: 10,
            state: None,
            fork: None,
            genesis_time: None,
            seconds_per_block: None,
        }
    }
}

/// A running node. Dropping it kills the process, exactly this one.
#[derive(Debug)]
pub struct Anvil {
    process: Process,
    port: u16,
    rpc: Rpc,
    accounts: Vec<Address>,
    options: Options,
    files: Files,
}

/// A node that was stopped and can be started again where it was.
#[derive(Debug)]
pub struct Stopped {
    port: u16,
    options: Options,
    files: Files,
}

/// What a node writes.
#[derive(Debug)]
struct Files {
    /// The chain, while the node is not running.
    chain: PathBuf,
    /// Goes with the node: states of past blocks, which anvil would else leave behind in the
    /// home directory, a quarter of a megabyte for each block of a load test. And the chain,
    /// when nobody named a place for it.
    private: TempDir,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It returned this.
    Returned(Bytes),
    /// It reverted with this.
    Reverted(Bytes),
}

/// A point [`Anvil::revert`] goes back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(Value);

/// Number and hash of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockId {
    /// Height.
    pub number: u64,
    /// Hash.
    pub hash: B256,
}

impl Anvil {
    /// Starts a node. When this returns, it answers and can be stopped.
    pub async fn start(options: Options) -> anyhow::Result<Anvil> {
        let private = tempfile::Builder::new().prefix("shepherd-devnet-").tempdir()?;
        let unnamed = private.path().join("chain.json");
        let chain = options.state.clone().unwrap_or(unnamed);
        Anvil::start_with(options, Files { chain, private }).await
    }

    async fn start_with(options: Options, files: Files) -> anyhow::Result<Anvil> {
        let mut command = Command::new(find_anvil()?);
        command
            .args(["--host", "127.0.0.1", "--port", &options.port.unwrap_or(0).to_string()])
            .args(["--chain-id", &options.chain_id.to_string()])
            .args(["--accounts", &options.accounts.to_string()])
            // Modules read at the block they handle, which may be from before the last stop.
            .arg("--preserve-historical-states")
            .args(["--state".as_ref(), files.chain.as_os_str()])
            .args(["--cache-path".as_ref(), files.private.path().as_os_str()])
            // Blocks of a load test are larger than those of a real chain.
            .args(["--gas-limit", "1000000000000", "--no-request-size-limit"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(fork) = &options.fork {
            command.args(["--fork-url", fork.as_str()]);
        }
        if let Some(seconds) = options.genesis_time {
            command.args(["--timestamp", &seconds.to_string()]);
        }
        match options.mining {
            Mining::OnDemand => {
                command.arg("--no-mining");
            }
            Mining::EachTransaction => {}
            Mining::Every(interval) => {
                command.args(["--block-time", &interval.as_secs_f64().to_string()]);
            }
        }

        let (mut process, pipes) = Process::spawn(command)?;
        let complaint = Complaint::default();
        let stderr = pipes.stderr.expect("asked for above");
        let complaining = complaint.collect(stderr);
        let listening = first_port(pipes.stdout.expect("asked for above"));
        let port = tokio::select! {
            port = listening => port,
            _ = process.exited() => None,
            () = tokio::time::sleep(START_MAX) => bail!("anvil did not answer in {START_MAX:?}"),
        };
        let Some(port) = port else {
            process.exited().await;
            let _ = complaining.join();
            bail!("anvil did not start:\n{}", complaint.text());
        };

        // It listens a little before it handles Ctrl-C, which would then end it without a
        // trace of its chain. There is no event to wait for.
        let deadline = Instant::now() + START_MAX;
        while !process.handles(Signal::Interrupt) {
            ensure!(process.status().is_none(), "anvil ended as it started:\n{}", complaint.text());
            ensure!(Instant::now() < deadline, "anvil did not start to handle Ctrl-C");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }

        let rpc = Rpc::new(format!("http://127.0.0.1:{port}").parse()?)?;
        // A line for each request is a cost for the node and for the pipe.
        rpc.call("anvil_setLoggingEnabled", json!([false])).await?;
        let accounts = rpc.call("eth_accounts", json!([])).await?;
        let accounts = serde_json::from_value(accounts).context("reading the accounts")?;
        let anvil = Anvil { process, port, rpc, accounts, options, files };
        anvil.set_clock().await?;
        Ok(anvil)
    }

    /// Lets time pass as the options say. A node that goes on with a chain begins with the
    /// machine's time again, or with that of the first block: never before its last block.
    async fn set_clock(&self) -> anyhow::Result<()> {
        let options = &self.options;
        if let Some(seconds) = options.seconds_per_block {
            self.call("anvil_setBlockTimestampInterval", json!([seconds])).await?;
        }
        let last = self.time().await?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        if 0 < self.block_number().await? && (options.genesis_time.is_some() || now <= last) {
            let next = last + options.seconds_per_block.unwrap_or(1);
            self.call("evm_setNextBlockTimestamp", json!([next])).await?;
        }
        Ok(())
    }

    /// Stops the node and keeps its chain. When this returns, the process is gone and the
    /// port is free.
    pub async fn stop(mut self) -> anyhow::Result<Stopped> {
        self.process.signal(Signal::Interrupt);
        let status = tokio::time::timeout(STOP_MAX, self.process.exited())
            .await
            .map_err(|_| anyhow!("anvil did not stop in {STOP_MAX:?}"))?;
        let chain = self.files.chain.display();
        ensure!(status.success(), "anvil stopped with {status}");
        ensure!(self.files.chain.exists(), "anvil stopped without writing its chain to {chain}");
        Ok(Stopped { port: self.port, options: self.options, files: self.files })
    }

    /// Lets the node hang: connections are accepted and nothing answers.
    pub fn freeze(&self) {
        self.process.signal(Signal::Freeze);
    }

    /// Lets the node go on after [`Anvil::freeze`].
    pub fn thaw(&self) {
        self.process.signal(Signal::Thaw);
    }

    /// Its HTTP address.
    pub fn http_url(&self) -> Url {
        format!("http://127.0.0.1:{}", self.port).parse().expect("a host and a port")
    }

    /// Its WebSocket address.
    pub fn ws_url(&self) -> Url {
        format!("ws://127.0.0.1:{}", self.port).parse().expect("a host and a port")
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The chain's id.
    pub fn chain_id(&self) -> u64 {
        self.options.chain_id
    }

    /// The accounts the node signs for.
    pub fn accounts(&self) -> &[Address] {
        &self.accounts
    }

    /// The line to the node, for what has no method here.
    pub fn rpc(&self) -> &Rpc {
        &self.rpc
    }

    /// One JSON-RPC request.
    pub async fn call(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        self.rpc.call(method, params).await
    }

    /// Makes `blocks` blocks, the first with all waiting transactions.
    pub async fn mine(&self, blocks: u64) -> anyhow::Result<()> {
        self.call("anvil_mine", json!([U256::from(blocks)])).await?;
        Ok(())
    }

    /// Makes one block with all waiting transactions and exactly this timestamp, which has to
    /// be after the last block's. Time goes on from there.
    pub async fn mine_at(&self, seconds: u64) -> anyhow::Result<()> {
        self.call("evm_setNextBlockTimestamp", json!([seconds])).await?;
        self.mine(1).await
    }

    /// The last block's timestamp, in Unix seconds.
    pub async fn time(&self) -> anyhow::Result<u64> {
        let block = self.call("eth_getBlockByNumber", json!(["latest", false])).await?;
        let seconds: U256 = serde_json::from_value(block["timestamp"].clone())?;
        Ok(seconds.to())
    }

    /// Remembers the chain as it is.
    pub async fn snapshot(&self) -> anyhow::Result<Snapshot> {
        self.call("evm_snapshot", json!([])).await.map(Snapshot)
    }

    /// Goes back to a snapshot, which is spent by it.
    pub async fn revert(&self, snapshot: Snapshot) -> anyhow::Result<()> {
        let done = self.call("evm_revert", json!([snapshot.0])).await?;
        ensure!(done == true, "the node no longer has snapshot {}", snapshot.0);
        Ok(())
    }

    /// Replaces the last `depth` blocks by as many others, which are empty but for the
    /// transactions given with [`Anvil::reorg_with`]. Their time goes on from the last block
    /// that stays, so a chain whose time was moved in between is back there.
    pub async fn reorg(&self, depth: u64) -> anyhow::Result<()> {
        self.reorg_with(depth, &[]).await
    }

    /// Replaces the last `depth` blocks by as many others that hold `transactions`: each in
    /// the replacement block of its index, counted from 0.
    pub async fn reorg_with(
        &self,
        depth: u64,
        transactions: &[(Transaction, u64)],
    ) -> anyhow::Result<()> {
        let pairs: Vec<Value> = transactions
            .iter()
            .map(|(transaction, block)| json!([transaction.request(), block]))
            .collect();
        self.call("anvil_reorg", json!([depth, pairs])).await?;
        Ok(())
    }

    /// The last block's number.
    pub async fn block_number(&self) -> anyhow::Result<u64> {
        let number: U256 = self.ask("eth_blockNumber", json!([])).await?;
        Ok(number.to())
    }

    /// The last block.
    pub async fn head(&self) -> anyhow::Result<BlockId> {
        let block = self.call("eth_getBlockByNumber", json!(["latest", false])).await?;
        block_id(&block)
    }

    /// The canonical block at a height.
    pub async fn block(&self, number: u64) -> anyhow::Result<BlockId> {
        let params = json!([U256::from(number), false]);
        let block = self.call("eth_getBlockByNumber", params).await?;
        ensure!(!block.is_null(), "the chain has no block {number}");
        block_id(&block)
    }

    /// How much ether an account has now, in wei.
    pub async fn balance(&self, account: Address) -> anyhow::Result<U256> {
        self.ask("eth_getBalance", json!([account, "latest"])).await
    }

    /// How much ether an account had after a block, in wei.
    pub async fn balance_at(&self, account: Address, block: B256) -> anyhow::Result<U256> {
        self.ask("eth_getBalance", json!([account, { "blockHash": block }])).await
    }

    /// Gives an account exactly `wei`. Takes effect in the next block.
    pub async fn set_balance(&self, account: Address, wei: U256) -> anyhow::Result<()> {
        self.call("anvil_setBalance", json!([account, wei])).await?;
        Ok(())
    }

    /// Puts code at an address.
    pub async fn set_code(&self, account: Address, code: Bytes) -> anyhow::Result<()> {
        self.call("anvil_setCode", json!([account, code])).await?;
        Ok(())
    }

    /// Puts a word into a contract's storage.
    pub async fn set_storage(&self, at: Address, slot: U256, word: B256) -> anyhow::Result<()> {
        self.call("anvil_setStorageAt", json!([at, slot, word])).await?;
        Ok(())
    }

    /// How many logs a range of blocks has, both ends included, from `emitter` or from all.
    pub async fn count_logs(
        &self,
        blocks: std::ops::RangeInclusive<u64>,
        emitter: Option<Address>,
    ) -> anyhow::Result<u64> {
        let mut filter = json!({
            "fromBlock": U256::from(*blocks.start()),
            "toBlock": U256::from(*blocks.end()),
        });
        if let Some(emitter) = emitter {
            filter["address"] = json!(emitter);
        }
        let logs = self.call("eth_getLogs", json!([filter])).await?;
        Ok(logs.as_array().context("logs are a list")?.len() as u64)
    }

    /// Sends transactions without waiting for a block; answers with their hashes. Those of
    /// one account take effect in the order given.
    pub async fn send(&self, transactions: &[Transaction]) -> anyhow::Result<Vec<B256>> {
        let mut nonces = self.nonces(transactions).await?;
        let mut calls = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            let mut request = transaction.request();
            if let Some(nonce) = nonces.get_mut(&transaction.from) {
                request["nonce"] = json!(U256::from(*nonce));
                *nonce += 1;
            }
            calls.push(("eth_sendTransaction", json!([request])));
        }
        let hashes = self.rpc.batch(&calls).await?;
        Ok(serde_json::from_value(Value::Array(hashes))?)
    }

    /// The next nonce of each account that sends more than one of these. anvil works on the
    /// requests of a batch at the same time, and left to itself gives one nonce to two.
    async fn nonces(&self, transactions: &[Transaction]) -> anyhow::Result<BTreeMap<Address, u64>> {
        let mut count = BTreeMap::new();
        for transaction in transactions {
            *count.entry(transaction.from).or_insert(0) += 1;
        }
        let mut nonces = BTreeMap::new();
        for (account, _) in count.into_iter().filter(|(_, sent)| *sent > 1) {
            let nonce: U256 =
                self.ask("eth_getTransactionCount", json!([account, "pending"])).await?;
            nonces.insert(account, nonce.to());
        }
        Ok(nonces)
    }

    /// The receipt of a transaction that a block holds.
    pub async fn receipt(&self, transaction: B256) -> anyhow::Result<Value> {
        let receipt = self.call("eth_getTransactionReceipt", json!([transaction])).await?;
        ensure!(!receipt.is_null(), "no block holds transaction {transaction} yet");
        Ok(receipt)
    }

    /// What a contract answers now.
    pub async fn view(&self, to: Address, data: Bytes) -> anyhow::Result<Bytes> {
        self.ask("eth_call", json!([{ "to": to, "data": data }, "latest"])).await
    }

    /// What a contract answered after a block.
    pub async fn view_at(&self, to: Address, data: Bytes, block: B256) -> anyhow::Result<Bytes> {
        self.ask("eth_call", json!([{ "to": to, "data": data }, { "blockHash": block }])).await
    }

    /// What a contract answers now, when it is asked by `from`; a revert is an answer too.
    pub async fn read(&self, from: Address, to: Address, data: Bytes) -> anyhow::Result<Answer> {
        let params = json!([{ "from": from, "to": to, "data": data }, "latest"]);
        match self.rpc.try_call("eth_call", params).await? {
            Ok(returned) => Ok(Answer::Returned(serde_json::from_value(returned)?)),
            Err(Refused(error)) => match error.get("data") {
                Some(data) => Ok(Answer::Reverted(serde_json::from_value(data.clone())?)),
                None => bail!("the node refused to call {to}: {error}"),
            },
        }
    }

    /// Sends transactions, makes one block of them, and fails if one of them did.
    pub async fn execute(&self, transactions: &[Transaction]) -> anyhow::Result<Vec<Value>> {
        let sent = self.send(transactions).await?;
        self.mine(1).await?;
        self.succeeded(&sent).await
    }

    /// The receipts of transactions; fails if one does not get into a block soon, or failed.
    pub async fn succeeded(&self, transactions: &[B256]) -> anyhow::Result<Vec<Value>> {
        let mut receipts = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            let receipt = self.mined(*transaction).await?;
            ensure!(receipt["status"] == "0x1", "transaction {transaction} failed: {receipt}");
            receipts.push(receipt);
        }
        Ok(receipts)
    }

    /// The receipt of a transaction that is in a block, or will be in one that is being made.
    async fn mined(&self, transaction: B256) -> anyhow::Result<Value> {
        let deadline = Instant::now() + RECEIPT_MAX;
        loop {
            match self.receipt(transaction).await {
                Err(_) if Instant::now() < deadline => {
                    tokio::time::sleep(RECEIPT_PAUSE).await;
                }
                receipt => return receipt,
            }
        }
    }

    /// The code at an address, which is empty where no contract is.
    pub async fn code(&self, at: Address) -> anyhow::Result<Bytes> {
        self.ask("eth_getCode", json!([at, "latest"])).await
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        method: &str,
        params: Value,
    ) -> anyhow::Result<T> {
        let answer = self.call(method, params).await?;
        serde_json::from_value(answer).with_context(|| format!("reading the answer to {method}"))
    }
}

impl Stopped {
    /// Starts the node again: same port, same options, the chain it had.
    pub async fn start(self) -> anyhow::Result<Anvil> {
        let options = Options { port: Some(self.port), ..self.options };
        Anvil::start_with(options, self.files).await
    }

    /// The port it had and will have.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// A transaction from an account the node signs for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Who sends it.
    pub from: Address,
    /// Where it goes; `None` creates a contract from `data`.
    pub to: Option<Address>,
    /// Ether sent along, in wei.
    pub value: U256,
    /// Call data or creation code.
    pub data: Bytes,
    /// Upper bound; `None` lets the node run the transaction once more to estimate it.
    pub gas: Option<u64>,
}

impl Transaction {
    fn request(&self) -> Value {
        let mut request = json!({ "from": self.from, "value": self.value, "data": self.data });
        if let Some(to) = self.to {
            request["to"] = json!(to);
        }
        if let Some(gas) = self.gas {
            request["gas"] = json!(U256::from(gas));
        }
        request
    }
}

/// The anvil binary: `SHEPHERD_ANVIL` if set, else the one that `cargo xtask setup`
/// installs, else the one on the path.
pub fn find_anvil() -> anyhow::Result<PathBuf> {
    if let Some(given) = env::var_os("SHEPHERD_ANVIL").map(PathBuf::from) {
        ensure!(given.is_file(), "SHEPHERD_ANVIL is {}, which is no file", given.display());
        return Ok(given);
    }
    let (os, arch) = match env::consts::ARCH {
        "aarch64" => (env::consts::OS, "arm64"),
        _ => (env::consts::OS, "amd64"),
    };
    let os = if os == "macos" { "darwin" } else { os };
    let package = format!("node_modules/@foundry-rs/anvil-{os}-{arch}/bin/anvil");
    let installed = target_dir().join("tools").join(package);
    let on_path = env::var_os("PATH").unwrap_or_default();
    std::iter::once(installed)
        .chain(env::split_paths(&on_path).map(|folder| folder.join("anvil")))
        .find(|file| file.is_file())
        .context("there is no anvil on this machine: run `cargo xtask setup`")
}

/// Where `cargo xtask setup` puts what it installs.
pub(crate) fn target_dir() -> PathBuf {
    let ops = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("ops/devnet is in ops");
    ops.parent().expect("ops is in the workspace").join("target")
}

fn block_id(block: &Value) -> anyhow::Result<BlockId> {
    let number: U256 = serde_json::from_value(block["number"].clone())?;
    let hash = serde_json::from_value(block["hash"].clone())?;
    Ok(BlockId { number: number.to(), hash })
}

/// Reads a node's output to its end, and answers with the port of its "Listening" line.
fn first_port(stdout: impl Read + Send + 'static) -> impl Future<Output = Option<u16>> {
    let (found, port) = oneshot::channel();
    thread::spawn(move || {
        let mut found = Some(found);
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let Some(address) = line.strip_prefix("Listening on ") else { continue };
            let port = address.rsplit(':').next().and_then(|port| port.trim().parse().ok());
            if let (Some(found), Some(port)) = (found.take(), port) {
                // Nobody waits any more when the start was given up.
                let _ = found.send(port);
            }
        }
    });
    async { port.await.ok() }
}

/// The end of what a node wrote to its standard error.
#[derive(Clone, Default)]
struct Complaint(Arc<Mutex<VecDeque<String>>>);

impl Complaint {
    fn collect(&self, stderr: impl Read + Send + 'static) -> thread::JoinHandle<()> {
        let lines = Arc::clone(&self.0);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut lines = lines.lock().expect("nothing panics while it is held");
                if lines.len() == COMPLAINT_LINES {
                    lines.pop_front();
                }
                lines.push_back(line);
            }
        })
    }

    fn text(&self) -> String {
        let lines = self.0.lock().expect("nothing panics while it is held");
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}
