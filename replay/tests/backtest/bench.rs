//! A live lane's history, and backtests over it.

use std::{
    cell::Cell,
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use alloy_primitives::{Address, B256, Bytes, U256, hex};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use shepherd_host::{
    BoundModule, Engine, EngineOptions, Manifest, Overrides, ReadAnswer, ReadRequest, World,
};
use shepherd_log::{
    BlockRef, Effect, EffectResult, LaneSnapshot, Offset, OutboxState, Outcome, Record, RecordView,
    Refusal, Revert, Settled, Store,
};
use shepherd_replay::{
    Backtest, BacktestError, Ended, History, ReadCache, Rules, Run, Tape, Window, WindowAsked,
    backtest,
};
use shepherd_rpc::Pool;
use tempfile::TempDir;

use crate::common::{self, Computed, Forked, journal, module, store};

/// The first block at which the price is below one dollar.
pub const CROSSING: u64 = 4;

pub fn timestamp(number: u64) -> u64 {
    1_700_000_000 + number * 12
}

pub fn rules(text: &str) -> Rules {
    Rules::parse(text, "rules.toml".as_ref()).unwrap()
}

/// A directory in memory where there is one: stores are opened hundreds of times here, and what
/// survives a power cut is for the store's own tests to say.
pub fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

/// A tracker of the same balances that notices smaller changes.
pub fn balance_tracker(threshold: u64) -> BoundModule {
    tracker(&[1, 2, 3, 4, 5], threshold)
}

/// A tracker of other balances.
pub fn balance_tracker_of(addresses: &[u8]) -> BoundModule {
    tracker(addresses, 500)
}

fn tracker(addresses: &[u8], threshold: u64) -> BoundModule {
    let addresses: Vec<String> =
        addresses.iter().map(|n| format!("\"{}\"", Address::repeat_byte(*n))).collect();
    let addresses = addresses.join(", ");
    module(
        "balance-tracker",
        &format!(
            "addresses = [{addresses}]\nthreshold_wei = \"{threshold}\"\nwebhook = \"alerts\""
        ),
    )
}

/// Places the order of its manifest when the price is below one dollar.
pub fn stop_loss() -> BoundModule {
    module("stop-loss", "")
}

pub fn stop_loss_valid_to(valid_to: u64) -> BoundModule {
    module("stop-loss", &format!("[order]\nvalid_to = {valid_to}"))
}

/// Writes down what it is called with and calls a webhook, at blocks with logs and at nothing else.
pub fn teller_of_logs() -> BoundModule {
    let manifest = "name = \"hostile\"\ncomponent = \"../../target/modules/hostile.wasm\"\n\
        capabilities = [\"state\", \"chain\", \"logging\", \"clock\", \"random\", \
        \"orderbook\", \"http\", \"effects.place-order\", \"effects.webhook\"]\n\
        webhooks = [\"alerts\"]\nhttp_hosts = [\"example.org\"]\n\
        [[subscribe.log]]\naddresses = [\"0xeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee\"]\n\
        [config]\nbehaviour = \"tell\"\n";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../modules/hostile/module.toml");
    let manifest = Manifest::parse(manifest, &file).unwrap();
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let component = fs::read(target.join("modules/hostile.wasm")).expect("cargo xtask guests");
    let engine = Engine::new(EngineOptions::default()).unwrap();
    let module = engine.load(&manifest, &component).unwrap();
    module.bind(&common::CHAIN.parse().unwrap(), 31_337, &Overrides::default()).unwrap()
}

/// What these modules ask of every block.
fn questions(module: &BoundModule) -> Vec<ReadRequest> {
    match module.lane().module.as_str() {
        "stop-loss" => {
            let feed = "0x694AA1769357215DE4FAC081bf1f309aDC325306".parse().unwrap();
            let call = |data: [u8; 4]| ReadRequest::Call { to: feed, data: data.into() };
            vec![call(LATEST_ROUND_DATA), call(DECIMALS)]
        }
        _ => [0, 9, 8].map(Address::repeat_byte).map(ReadRequest::Balance).into(),
    }
}

const LATEST_ROUND_DATA: [u8; 4] = hex!("feaf968c");
const DECIMALS: [u8; 4] = hex!("313ce567");

/// A chain with balances, and a price feed that crosses one dollar.
pub fn answers(block: BlockRef, requests: &[ReadRequest]) -> Result<Vec<ReadAnswer>, World> {
    let mut answers = Vec::new();
    for request in requests {
        answers.push(match request {
            ReadRequest::Call { data, .. } if data[..] == DECIMALS => {
                ReadAnswer::Returned(word(8).into())
            }
            ReadRequest::Call { data, .. } if data[..] == LATEST_ROUND_DATA => {
                let cents = if block.number < CROSSING { 200_000 } else { 50 };
                let words = [1, cents * 1_000_000, 0, timestamp(block.number), 1].map(word);
                ReadAnswer::Returned(Bytes::from(words.concat()))
            }
            request => common::answers(block, std::slice::from_ref(request))?.remove(0),
        });
    }
    Ok(answers)
}

fn word(number: u64) -> [u8; 32] {
    U256::from(number).to_be_bytes()
}

/// What a lane has computed and asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    pub computed: Computed,
    /// Of blocks that count.
    pub effects: Vec<(BlockRef, Effect)>,
}

/// A history, and the lane that lived through it.
pub struct Lived {
    pub store: Store,
    history: Forked,
    rng: StdRng,
    _dir: TempDir,
}

impl Lived {
    fn of(history: Forked, seed: u64) -> Lived {
        let dir = scratch();
        let store = store(dir.path());
        journal(&store);
        Lived { store, history, rng: StdRng::seed_from_u64(seed ^ 0xbac), _dir: dir }
    }

    /// With reorgs.
    pub fn new(seed: u64, length: usize) -> Lived {
        Lived::of(common::forked(seed, length), seed)
    }

    pub fn straight(length: usize) -> Lived {
        let records = common::straight(length);
        let canonical = blocks(&records).collect();
        Lived::of(Forked { records, canonical }, 0)
    }

    /// Blocks of which every seventh has a log.
    pub fn sparse(length: u64) -> Lived {
        let mut parent = B256::ZERO;
        let mut records = Vec::new();
        for number in 0..length {
            let block = common::block(number, 0, parent, usize::from(number % 7 == 0));
            parent = block.header.this.hash;
            records.push(Record::Block(block));
        }
        let canonical = blocks(&records).collect();
        Lived::of(Forked { records, canonical }, 0)
    }

    /// So many blocks, so many of them taken back, and so many instead of these.
    pub fn reorg([before, depth, after]: [u64; 3]) -> Lived {
        let mut records = common::straight(before as usize);
        let all: Vec<BlockRef> = blocks(&records).collect();
        let (kept, abandoned) = all.split_at((before - depth) as usize);
        let ancestor = kept[kept.len() - 1];
        records.push(Record::Revert(Revert { ancestor, abandoned: abandoned.to_vec() }));
        let mut parent = ancestor;
        let mut canonical: BTreeSet<BlockRef> = kept.iter().copied().collect();
        for number in ancestor.number + 1..=ancestor.number + after {
            let block = common::block(number, 1, parent.hash, 3);
            parent = block.header.this;
            canonical.insert(parent);
            records.push(Record::Block(block));
        }
        Lived::of(Forked { records, canonical }, 0)
    }

    /// The same chain, without the blocks that were taken back.
    pub fn canonical(&self) -> Lived {
        let canonical = &self.history.canonical;
        let counts = |record: &&Record| match record {
            Record::Block(block) => canonical.contains(&block.header.this),
            _ => false,
        };
        let records = self.history.records.iter().filter(counts).cloned().collect();
        Lived::of(Forked { records, canonical: canonical.clone() }, 0)
    }

    pub fn is_canonical(&self, block: BlockRef) -> bool {
        self.history.canonical.contains(&block)
    }

    /// A lane with this module follows the chain while it grows. What it asks for is sent soon, and
    /// answered with this chance after each record; in the end all of it was.
    pub fn live(&mut self, module: &BoundModule, answered: f64) {
        let journal = journal(&self.store);
        let mut runner = common::runner(&self.store, module);
        for record in self.history.records.clone() {
            journal.append(journal.tail().offset, &[record]).unwrap();
            catch_up(&mut runner);
            self.send(&runner, answered);
        }
        loop {
            catch_up(&mut runner);
            if runner.lane().outbox().unsettled().is_empty() {
                return;
            }
            self.send(&runner, 1.0);
        }
    }

    fn send(&mut self, runner: &shepherd_dispatch::Runner, answered: f64) {
        let outbox = runner.lane().outbox();
        let mut due = outbox.unsettled();
        due.retain(|_| self.rng.random_bool(answered.max(0.8)));
        let waiting = due.iter().filter(|entry| entry.state == OutboxState::Waiting);
        outbox.attempt(&waiting.map(|entry| entry.id).collect::<Vec<_>>());
        due.retain(|_| self.rng.random_bool(answered));
        let at_millis = journal(&self.store).tail().offset.get() * 1000 + 7;
        let settled: Vec<Settled> = due
            .iter()
            .map(|entry| Settled { id: entry.id, result: self.result(), attempts: 1, at_millis })
            .collect();
        outbox.settle(settled).unwrap();
    }

    fn result(&mut self) -> EffectResult {
        match self.rng.random_range(0..4) {
            0 => EffectResult::Refused(Refusal {
                status: 400,
                error_type: Some("QuoteNotFound".to_owned()),
                description: "not found".to_owned(),
                body: b"{}".to_vec(),
                retry_after: None,
            }),
            1 => EffectResult::AlreadyThere,
            _ => EffectResult::Accepted,
        }
    }

    /// What really came of effects.
    pub fn facts(&self) -> Vec<Outcome> {
        let journal = journal(&self.store);
        let mut outcomes = Vec::new();
        for stored in journal.read(Offset::START..journal.tail().offset) {
            if let RecordView::Outcome(outcome) = stored.unwrap().record() {
                outcomes.push(outcome);
            }
        }
        outcomes
    }

    /// What the live lane has computed and asked for.
    pub fn asked(&self, module: &BoundModule) -> Asked {
        let snapshot = self.store.lane_snapshot(module.lane()).unwrap().expect("it has lived");
        self.asked_of(&snapshot)
    }

    fn asked_of(&self, snapshot: &LaneSnapshot) -> Asked {
        let effects = snapshot.effects().map(Result::unwrap);
        let counts = effects.filter(|(_, block, _)| self.is_canonical(*block));
        Asked {
            effects: counts.map(|(_, block, effect)| (block, effect)).collect(),
            computed: Computed {
                next: snapshot.cursor().next.get(),
                digest: snapshot.cursor().digest,
                sum: snapshot.state_sum().unwrap(),
                state: snapshot.entries(&[], None).map(Result::unwrap).collect(),
            },
        }
    }

    fn append_rest(&self) {
        let journal = journal(&self.store);
        if journal.tail().offset == Offset::START {
            common::append_all(&journal, &self.history.records);
        }
    }
}

fn blocks(records: &[Record]) -> impl Iterator<Item = BlockRef> {
    records.iter().filter_map(|record| match record {
        Record::Block(block) => Some(block.header.this),
        _ => None,
    })
}

fn catch_up(runner: &mut shepherd_dispatch::Runner) {
    while runner.advance(usize::MAX, &mut answers, &|| false).unwrap().is_some() {}
}

/// A backtest of one module over a history, in a directory of its own.
pub struct Bench<'l> {
    lived: &'l Lived,
    module: BoundModule,
    dir: TempDir,
    cache: PathBuf,
}

impl<'l> Bench<'l> {
    pub fn new(lived: &'l Lived, module: &BoundModule) -> Bench<'l> {
        lived.append_rest();
        let dir = scratch();
        let cache = dir.path().join("cache");
        Bench { lived, module: module.clone(), dir, cache }
    }

    /// With the read cache of another one.
    pub fn with_cache_of(self, other: &Bench<'_>) -> Bench<'l> {
        Bench { cache: other.cache.clone(), ..self }
    }

    /// Fills the read cache with what the module asks of each block.
    pub fn cache_answers(&self) {
        let mut cache = ReadCache::open(&self.cache).unwrap();
        for block in blocks(&self.lived.history.records) {
            for request in questions(&self.module) {
                let answer = answers(block, std::slice::from_ref(&request)).unwrap().remove(0);
                cache.put(block, &request, &answer).unwrap();
            }
        }
    }

    pub fn run(&self, rules: Rules) -> Ended {
        self.try_run(rules).unwrap()
    }

    pub fn try_run(&self, rules: Rules) -> Result<Ended, BacktestError> {
        self.go(rules, None, None, None)
    }

    pub fn try_with_pool(&self, pool: Pool) -> Result<Ended, BacktestError> {
        self.go(Rules::default(), Some(pool), None, None)
    }

    /// One step over one record, in a process of its own as far as the run can tell.
    pub fn run_one_record(&self, rules: Rules) -> Ended {
        self.go(rules, None, Some(1), None).unwrap()
    }

    /// Goes on with it, with an endpoint, with steps of so many records of which it takes one, or
    /// until it is interrupted.
    pub fn go(
        &self,
        rules: Rules,
        endpoint: Option<Pool>,
        records_max: Option<usize>,
        interrupted: Option<&dyn Fn() -> bool>,
    ) -> Result<Ended, BacktestError> {
        let run = self.open();
        let journal = journal(&self.lived.store);
        let lane = self.lived.store.lane_snapshot(self.module.lane()).unwrap();
        let history = History {
            tape: lane.map(|lane| Box::new(lane) as Box<dyn Tape>),
            recorded_as: self.module.lane().module.clone(),
            journal: journal.clone(),
            instead_of: std::collections::BTreeMap::new(),
        };
        let asked = Backtest {
            module: self.module.clone(),
            window: Window::resolve(&journal, WindowAsked::default()).unwrap(),
            rules,
            endpoint,
            cache: Some(self.cache.clone()),
            step_records_max: records_max,
        };
        let shown = Cell::new(0);
        let after_one = || records_max.is_some() && shown.get() > 1;
        let interrupted = interrupted.unwrap_or(&after_one);
        backtest(&run, history, asked, &mut |_| shown.set(shown.get() + 1), interrupted)
    }

    fn open(&self) -> Run {
        Run::open(&self.dir.path().join("run"), &json!({ "backtest": "of a test" })).unwrap()
    }

    fn snapshot(&self) -> LaneSnapshot {
        self.open().snapshot(self.module.lane()).unwrap()
    }

    pub fn asked(&self) -> Asked {
        self.lived.asked_of(&self.snapshot())
    }

    /// What the lane was told, by effect.
    pub fn outcomes(&self) -> Vec<Outcome> {
        self.snapshot().outcomes().map(Result::unwrap).collect()
    }
}

pub fn fails(result: Result<Ended, BacktestError>) -> BacktestError {
    result.expect_err("it cannot come to its end")
}

pub fn pool(url: &str) -> Pool {
    let options = shepherd_rpc::Options::default();
    let metrics = shepherd_rpc::Metrics::new(&mut prometheus_client::registry::Registry::default());
    Pool::connect(common::CHAIN, 31_337, vec![url.parse().unwrap()], options, &metrics)
}

/// A node that knows every balance at every block.
pub struct Node {
    url: String,
    reads: Arc<AtomicUsize>,
}

impl Node {
    pub fn start() -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let reads = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&reads);
        // It ends with the test's process.
        thread::spawn(move || {
            for connection in listener.incoming() {
                let count = Arc::clone(&count);
                thread::spawn(move || serve(&connection.unwrap(), &count));
            }
        });
        Node { url, reads }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// How many questions about the state it was asked.
    pub fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }
}

fn serve(connection: &TcpStream, reads: &AtomicUsize) {
    let mut reader = BufReader::new(connection);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(given) = line.strip_prefix("content-length:") {
                length = given.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let asked: Value = serde_json::from_slice(&body).unwrap();
        let answer = match &asked {
            Value::Array(batch) => batch.iter().map(|call| result(call, reads)).collect(),
            call => result(call, reads),
        };
        let body = answer.to_string();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
        let mut connection = connection;
        if write!(connection, "{head}{}\r\n\r\n{body}", body.len()).is_err() {
            return;
        }
    }
}

fn result(call: &Value, reads: &AtomicUsize) -> Value {
    let result = match call["method"].as_str().unwrap() {
        "eth_chainId" => json!("0x7a69"),
        "eth_getBlockByNumber" => Value::Null,
        "eth_getBalance" => {
            reads.fetch_add(1, Ordering::SeqCst);
            let hash = call["params"][1]["blockHash"].as_str().unwrap().parse().unwrap();
            let request =
                ReadRequest::Balance(call["params"][0].as_str().unwrap().parse().unwrap());
            // The number is not part of the answer.
            let block = BlockRef { number: 0, hash };
            match answers(block, &[request]).unwrap().remove(0) {
                ReadAnswer::Balance(wei) => json!(wei),
                other => panic!("{other:?}"),
            }
        }
        other => panic!("nobody asks {other}"),
    };
    json!({ "jsonrpc": "2.0", "id": call["id"], "result": result })
}
