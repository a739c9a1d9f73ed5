//! Real modules on real storage: histories with reorgs, and lanes that lived through them.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex},
};

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shepherd_dispatch::{Runner, Stop};
use shepherd_host::{
    BoundModule, Engine, EngineOptions, Manifest, Module, Overrides, ReadAnswer, ReadRequest, World,
};
use shepherd_log::{
    Block, BlockRef, Digest, EffectResult, Header, Journal, LaneId, LaneVersion, Log, Options,
    OutboxState, Record, RecordView, Refusal, Revert, Settled, StateSum, Store,
};
use shepherd_replay::LoadVersionError;

pub const CHAIN: &str = "devnet";
pub const REORG_DEPTH_MAX: u64 = 10;

/// keccak-256 of `Transfer(address,address,uint256)`.
static TRANSFER: LazyLock<B256> = LazyLock::new(|| keccak256("Transfer(address,address,uint256)"));

static ENGINE: LazyLock<Engine> =
    LazyLock::new(|| Engine::new(EngineOptions::default()).expect("the engine starts"));

/// The seed of a test, printed so that it can be repeated.
pub fn seed() -> u64 {
    let given = std::env::var("SHEPHERD_SEED").ok().and_then(|text| text.parse().ok());
    // Half of them, so that a test may count on from it.
    let seed = given.unwrap_or_else(|| rand::random::<u64>() >> 1);
    println!("repeat with SHEPHERD_SEED={seed}");
    seed
}

/// How many seeds a test tries: `SHEPHERD_SEEDS`, or what a build can wait for.
pub fn seeds(otherwise: u64) -> u64 {
    std::env::var("SHEPHERD_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// A directory in memory, where there is one.
///
/// A kill takes nothing that was written from either, and with thousands of commits the syncs of a
/// disk would be all that these tests wait for.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let directory =
        if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    directory.expect("a temporary directory")
}

pub fn store(dir: &Path) -> Store {
    let options = Options { reorg_depth_max: REORG_DEPTH_MAX, ..Options::default() };
    Store::open(dir, options).expect("the store opens")
}

pub fn journal(store: &Store) -> Journal {
    store.journal(&CHAIN.parse().unwrap(), 31337).unwrap()
}

/// A module from its folder, with configuration laid over its manifest.
pub fn module(folder: &str, config: &str) -> BoundModule {
    let overrides = Overrides { config: config.parse().unwrap(), ..Overrides::default() };
    compiled(folder)
        .bind(&CHAIN.parse().unwrap(), 31_337, &overrides)
        .expect("the module takes its configuration")
}

/// Compiled once in a process, however often it is configured.
fn compiled(folder: &str) -> Module {
    static COMPILED: Mutex<BTreeMap<String, Module>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().expect("every module loads");
    let load = || {
        let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../modules");
        let file = modules.join(folder).join("module.toml");
        let manifest = Manifest::parse(&fs::read_to_string(&file).unwrap(), &file).unwrap();
        ENGINE.load(&manifest, &component(manifest.component())).expect("the module loads")
    };
    compiled.entry(folder.to_owned()).or_insert_with(load).clone()
}

fn component(file: &Path) -> Vec<u8> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let file = target.join("modules").join(file.file_name().expect("a component is a file"));
    fs::read(&file).unwrap_or_else(|error| {
        panic!("{} cannot be read ({error}): run `cargo xtask guests` first", file.display())
    })
}

/// Follows logs and nothing else, so it jumps over blocks without any.
pub static TOKEN_LEDGER: LazyLock<BoundModule> = LazyLock::new(|| module("token-ledger", ""));

/// Reads balances at every block, and calls a webhook when one moved.
pub static BALANCE_TRACKER: LazyLock<BoundModule> = LazyLock::new(|| {
    let addresses: Vec<String> =
        (1..6).map(|n| format!("\"{}\"", Address::repeat_byte(n))).collect();
    let addresses = addresses.join(", ");
    module(
        "balance-tracker",
        &format!("addresses = [{addresses}]\nthreshold_wei = \"500\"\nwebhook = \"alerts\""),
    )
});

/// Reads the chain and writes down what it says.
pub static READER: LazyLock<BoundModule> = LazyLock::new(|| hostile("read"));

/// Writes down what it is called with, draws, reads, and calls a webhook: at blocks, outcomes and
/// reverts.
pub static TELLER: LazyLock<BoundModule> = LazyLock::new(|| hostile("tell"));

/// Counts, and does nothing else.
pub static COUNTER: LazyLock<BoundModule> = LazyLock::new(|| hostile("behave"));

pub fn hostile(behaviour: &str) -> BoundModule {
    module("fixtures/hostile", &format!("behaviour = \"{behaviour}\""))
}

/// What a lane with this module says it runs.
pub fn version(module: &BoundModule) -> LaneVersion {
    LaneVersion {
        module: module.module().sha256().0,
        binding: Digest::of(module.config().as_bytes()).0,
    }
}

/// Finds versions among the modules of these tests.
pub fn load(version: &LaneVersion, lane: &LaneId) -> Result<BoundModule, LoadVersionError> {
    // By name, because each is compiled when it is looked at.
    let known: &[&LazyLock<BoundModule>] = match lane.module.as_str() {
        "token-ledger" => &[&TOKEN_LEDGER],
        "balance-tracker" => &[&BALANCE_TRACKER],
        "hostile" => &[&READER, &TELLER, &COUNTER],
        _ => &[],
    };
    known
        .iter()
        .find(|module| self::version(module) == *version)
        .map(|module| (**module).clone())
        .ok_or_else(|| format!("no module of {lane} is that version").into())
}

/// A chain that answers every question with a number made of the block and the question.
#[expect(clippy::unnecessary_wraps, reason = "the shape of a source of reads")]
pub fn answers(block: BlockRef, requests: &[ReadRequest]) -> Result<Vec<ReadAnswer>, World> {
    let answer = |request: &ReadRequest| match request {
        ReadRequest::Balance(address) => {
            let mixed = keccak256([block.hash.as_slice(), address.as_slice()].concat());
            ReadAnswer::Balance(U256::from(mixed[0]) * U256::from(10))
        }
        ReadRequest::Call { .. } => ReadAnswer::Reverted(Bytes::copy_from_slice(&block.hash[..4])),
        other => unreachable!("no module here asks {other:?}"),
    };
    Ok(requests.iter().map(answer).collect())
}

pub fn block(number: u64, branch: u64, parent: B256, transfers: usize) -> Block {
    let hash = keccak256([number.to_be_bytes(), branch.to_be_bytes()].concat());
    let mut rng = StdRng::seed_from_u64(number ^ branch.rotate_left(32));
    let mut holder = || Address::with_last_byte(rng.random_range(0..20));
    let log = |index: usize| Log {
        address: Address::repeat_byte(0xee),
        topics: vec![*TRANSFER, holder().into_word(), holder().into_word()],
        data: U256::from(index + 1).to_be_bytes::<32>().into(),
        index: index as u32,
        transaction_index: 0,
        transaction_hash: hash,
    };
    let logs = (0..transfers).map(log).collect();
    let header = Header {
        this: BlockRef { number, hash },
        parent,
        timestamp: 1_700_000_000 + number * 12,
        rlp: Bytes::new(),
    };
    Block { header, logs }
}

/// A chain with random reorgs; some blocks have no transfers.
pub struct Forked {
    pub records: Vec<Record>,
    pub canonical: BTreeSet<BlockRef>,
}

pub fn forked(seed: u64, length: usize) -> Forked {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut records = Vec::new();
    let mut canonical: Vec<Block> = Vec::new();
    let (mut branch, mut highest) = (seed << 16, 0);
    while records.len() < length {
        highest = highest.max(canonical.len() as u64);
        let depth = rng.random_range(1..=REORG_DEPTH_MAX);
        let within_reach = canonical.len() as u64 > depth + highest.saturating_sub(REORG_DEPTH_MAX);
        if within_reach && rng.random_bool(0.15) {
            let kept = canonical.len() - depth as usize;
            let ancestor = canonical[kept - 1].header.this;
            let abandoned = canonical.drain(kept..).map(|block| block.header.this).collect();
            records.push(Record::Revert(Revert { ancestor, abandoned }));
            branch += 1;
        }
        let parent = canonical.last().map_or(B256::ZERO, |block| block.header.this.hash);
        let transfers = rng.random_range(0..12_usize).saturating_sub(4);
        let next = block(canonical.len() as u64, branch, parent, transfers);
        canonical.push(next.clone());
        records.push(Record::Block(next));
    }
    let canonical = canonical.into_iter().map(|block| block.header.this).collect();
    Forked { records, canonical }
}

pub fn straight(length: usize) -> Vec<Record> {
    let mut parent = B256::ZERO;
    (0..length as u64)
        .map(|number| {
            let block = block(number, 0, parent, 5);
            parent = block.header.this.hash;
            Record::Block(block)
        })
        .collect()
}

pub fn append_all(journal: &Journal, records: &[Record]) {
    for chunk in records.chunks(64) {
        journal.append(journal.tail().offset, chunk).unwrap();
    }
}

/// A lane with a module on it, which says so.
pub fn runner(store: &Store, module: &BoundModule) -> Runner {
    let mut lane = store.lane(module.lane()).unwrap();
    lane.set_version(version(module)).unwrap();
    Runner::new(lane, module.clone())
}

/// Advances to the tail; `cut` says how many records the next step may take.
pub fn catch_up(runner: &mut Runner, mut cut: impl FnMut() -> usize) {
    while runner.advance(cut(), &mut answers, &|| false).unwrap().is_some() {}
}

/// What must be the same however a lane came to where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Computed {
    pub next: u64,
    pub digest: Digest,
    pub sum: StateSum,
    pub state: BTreeMap<Vec<u8>, Vec<u8>>,
}

pub fn computed(store: &Store, lane: &LaneId) -> Computed {
    let snapshot = store.lane_snapshot(lane).unwrap().expect("the lane exists");
    let cursor = snapshot.cursor();
    assert_eq!(snapshot.state_sum().unwrap(), cursor.state);
    Computed {
        next: cursor.next.get(),
        digest: cursor.digest,
        sum: cursor.state,
        state: snapshot.entries(&[], None).map(Result::unwrap).collect(),
    }
}

/// What a lane has asked for and what waits to be sent, in words.
pub fn asked(store: &Store, lane: &LaneId) -> (Vec<String>, Vec<String>) {
    let snapshot = store.lane_snapshot(lane).unwrap().expect("the lane exists");
    let effects = snapshot.effects().map(|effect| format!("{:?}", effect.unwrap())).collect();
    let outbox = snapshot.outbox().unwrap().iter().map(|entry| format!("{entry:?}")).collect();
    (effects, outbox)
}

/// What lanes lived through, so that a test can insist that something happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lived {
    pub starts: u64,
    pub reverts: u64,
    pub outcomes: u64,
    pub outages: u64,
    pub passed_over: u64,
}

impl std::ops::AddAssign for Lived {
    fn add_assign(&mut self, other: Lived) {
        self.starts += other.starts;
        self.reverts += other.reverts;
        self.outcomes += other.outcomes;
        self.outages += other.outages;
        self.passed_over += other.passed_over;
    }
}

/// The life of lanes over a history: records come in, steps of any size are taken, reads fail,
/// effects are settled, and the process starts again and again.
///
/// Where it stands is in the store alone, so a killed one goes on.
pub struct Life {
    pub history: Forked,
    rng: StdRng,
    pub lived: Lived,
    /// Called when a lane was about to step or its effects to be sent, for a killer to hear.
    pub heard: fn(),
}

impl Life {
    pub fn new(seed: u64, length: usize) -> Life {
        // A life that goes on after a kill need not go on as it would have.
        let rng = StdRng::seed_from_u64(seed ^ 0x11fe);
        Life { history: forked(seed, length), rng, lived: Lived::default(), heard: || () }
    }

    /// The same history, lived in another way.
    pub fn otherwise(mut self, seed: u64) -> Life {
        self.rng = StdRng::seed_from_u64(seed);
        self
    }

    /// Lives to the end of the history, starting again in between, and catches up.
    pub fn live(&mut self, dir: &Path, lanes: &[&BoundModule]) {
        while self.live_once(dir, lanes) {}
        let store = store(dir);
        for module in lanes {
            let mut runner = runner(&store, self.now(&store, module));
            catch_up(&mut runner, || 7);
        }
    }

    /// What a lane runs: one changes its configuration in the middle of the history.
    fn now<'m>(&self, store: &Store, module: &'m BoundModule) -> &'m BoundModule {
        let half = self.history.records.len() as u64 / 2;
        let is_late = store.existing_journal(&CHAIN.parse().unwrap()).is_some_and(|journal| {
            let cursors = store.cursors().unwrap();
            let lane = cursors.iter().find(|(lane, _)| lane == module.lane());
            lane.is_some_and(|(_, cursor)| cursor.next.get() > half)
                || journal.tail().offset.get() > 2 * half
        });
        if module.lane() == TELLER.lane() && !is_late { &READER } else { module }
    }

    /// One process: opens the store, works for a while, and ends without a word. Says whether there
    /// is more to come.
    pub fn live_once(&mut self, dir: &Path, lanes: &[&BoundModule]) -> bool {
        let store = store(dir);
        let journal = journal(&store);
        self.lived.starts += 1;
        let mut runners: Vec<Runner> =
            lanes.iter().map(|module| runner(&store, self.now(&store, module))).collect();
        for _ in 0..self.rng.random_range(4..16) {
            let appended = appended(&journal);
            let more = self.rng.random_range(0..5).min(self.history.records.len() - appended);
            let records = &self.history.records[appended..appended + more];
            let is_revert = |record: &&Record| matches!(record, Record::Revert(_));
            self.lived.reverts += records.iter().filter(is_revert).count() as u64;
            append_all(&journal, records);
            if appended + more == self.history.records.len() {
                return false;
            }
            for runner in &mut runners {
                (self.heard)();
                self.step(runner);
                (self.heard)();
                self.send(runner);
            }
        }
        true
    }

    fn step(&mut self, runner: &mut Runner) {
        let outage = self.rng.random_bool(0.2);
        let records_max = self.rng.random_range(1..9);
        let (canonical, rng) = (&self.history.canonical, &mut self.rng);
        let mut reads = |block: BlockRef, requests: &[ReadRequest]| {
            // Nodes forget abandoned branches.
            let is_forgotten = !canonical.contains(&block) && rng.random_bool(0.5);
            if outage || is_forgotten {
                return Err(World::chain("the endpoint is down"));
            }
            answers(block, requests)
        };
        let before = runner.lane().cursor().next.get();
        match runner.advance(records_max, &mut reads, &|| false) {
            Ok(Some(advanced)) => {
                let passed = advanced.cursor.next.get() - before;
                self.lived.passed_over += passed.saturating_sub(records_max as u64);
            }
            Ok(None) => (),
            Err(Stop::World { .. }) => self.lived.outages += 1,
            Err(stop) => panic!("{stop}"),
        }
    }

    /// Sends some of what waits, and is told what came of some of it.
    fn send(&mut self, runner: &Runner) {
        let outbox = runner.lane().outbox();
        let mut due: Vec<_> = outbox.unsettled();
        due.retain(|_| self.rng.random_bool(0.4));
        let waiting = due.iter().filter(|entry| entry.state == OutboxState::Waiting);
        let ids: Vec<_> = waiting.map(|entry| entry.id).collect();
        outbox.attempt(&ids);
        due.retain(|_| self.rng.random_bool(0.5));
        let settled: Vec<Settled> = due
            .iter()
            .map(|entry| Settled {
                id: entry.id,
                result: self.result(),
                attempts: 1,
                at_millis: 1_700_000_000_000,
            })
            .collect();
        self.lived.outcomes += settled.len() as u64;
        outbox.settle(settled).unwrap();
    }

    fn result(&mut self) -> EffectResult {
        match self.rng.random_range(0..4) {
            0 => EffectResult::Refused(Refusal {
                status: 400,
                error_type: Some("InsufficientBalance".to_owned()),
                description: "not enough".to_owned(),
                body: b"{}".to_vec(),
                retry_after: None,
            }),
            1 => EffectResult::AlreadyThere,
            _ => EffectResult::Accepted,
        }
    }
}

/// How many records of a history the journal has; outcomes came in between.
fn appended(journal: &Journal) -> usize {
    let records = journal.read(journal.start()..journal.tail().offset);
    records
        .filter(|record| !matches!(record.as_ref().unwrap().record(), RecordView::Outcome(_)))
        .count()
}
