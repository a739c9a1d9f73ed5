//! Made-up histories with real headers, and real modules on real storage.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use alloy::{consensus, rlp::Encodable};
use alloy_primitives::{Address, B256, Bloom, Bytes, U256, keccak256};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shepherd_dispatch::Runner;
use shepherd_host::{
    BoundModule, Engine, EngineOptions, Manifest, Overrides, ReadAnswer, ReadRequest, Reads, World,
};
use shepherd_log::{
    Block, BlockRef, EffectId, EffectKey, EffectResult, Header, Journal, LaneId, Log, Offset,
    Options, Outcome, Record, Refusal, Revert, Store,
};

pub const CHAIN: &str = "devnet";
pub const CHAIN_ID: u64 = 31_337;
pub const REORG_DEPTH_MAX: u64 = 10;
pub const TOKEN: Address = Address::repeat_byte(0xee);

/// keccak-256 of `Transfer(address,address,uint256)`.
pub static TRANSFER: LazyLock<B256> =
    LazyLock::new(|| keccak256("Transfer(address,address,uint256)"));

static ENGINE: LazyLock<Engine> =
    LazyLock::new(|| Engine::new(EngineOptions::default()).expect("the engine starts"));

pub fn seed() -> u64 {
    let given = std::env::var("SHEPHERD_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("repeat with SHEPHERD_SEED={seed}");
    seed
}

pub fn options() -> Options {
    Options { reorg_depth_max: REORG_DEPTH_MAX, ..Options::default() }
}

pub fn store(dir: &Path) -> Store {
    Store::open(dir, options()).expect("the store opens")
}

pub fn journal(store: &Store) -> Journal {
    store.journal(&CHAIN.parse().unwrap(), CHAIN_ID).unwrap()
}

/// A store with these records.
pub fn journaled(dir: &Path, records: &[Record]) -> (Store, Journal) {
    let store = store(dir);
    let journal = journal(&store);
    for chunk in records.chunks(64) {
        journal.append(journal.tail().offset, chunk).unwrap();
    }
    (store, journal)
}

pub fn records(journal: &Journal) -> Vec<Record> {
    let all = journal.read(journal.start()..journal.tail().offset);
    all.map(|stored| stored.unwrap().record().to_record()).collect()
}

pub fn folder(module: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../modules").join(module)
}

/// A module from its folder, with configuration laid over its manifest.
pub fn module(name: &str, config: &str) -> BoundModule {
    let file = folder(name).join("module.toml");
    let manifest = Manifest::parse(&fs::read_to_string(&file).unwrap(), &file).unwrap();
    let overrides = Overrides { config: config.parse().unwrap(), ..Overrides::default() };
    let component = fs::read(component(manifest.component())).expect("run `cargo xtask guests`");
    let module = ENGINE.load(&manifest, &component).expect("the module loads");
    let bound = module.bind(&CHAIN.parse().unwrap(), CHAIN_ID, &overrides);
    bound.expect("the module takes its configuration")
}

/// Where a component is, also when cargo builds elsewhere.
pub fn component(file: &Path) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    target.join("modules").join(file.file_name().expect("a component is a file"))
}

pub fn token_ledger() -> BoundModule {
    module("token-ledger", "")
}

pub fn balance_tracker() -> BoundModule {
    let addresses: Vec<String> =
        (1..6).map(|n| format!("\"{}\"", Address::repeat_byte(n))).collect();
    let config = format!("addresses = [{}]\nthreshold_wei = \"500\"", addresses.join(", "));
    module("balance-tracker", &config)
}

/// A chain that answers every balance with a number made of the block and the address.
#[expect(clippy::unnecessary_wraps, reason = "the shape of a source of reads")]
pub fn answers(block: BlockRef, requests: &[ReadRequest]) -> Result<Vec<ReadAnswer>, World> {
    let answer = |request: &ReadRequest| match request {
        ReadRequest::Balance(address) => {
            let mixed = keccak256([block.hash.as_slice(), address.as_slice()].concat());
            ReadAnswer::Balance(U256::from(mixed[0]) * U256::from(10))
        }
        other => unreachable!("no module here asks {other:?}"),
    };
    Ok(requests.iter().map(answer).collect())
}

/// A block whose hash and bloom are what they must be.
pub fn block(number: u64, parent: B256, logs: Vec<Log>) -> Block {
    let mut logs_bloom = Bloom::ZERO;
    for log in &logs {
        logs_bloom.accrue_raw_log(log.address, &log.topics);
    }
    let timestamp = 1_700_000_000 + number * 12;
    // So that two blocks with the same logs are two blocks.
    let extra_data = logs.first().map_or(Bytes::new(), |log| log.transaction_hash.into());
    let header = consensus::Header {
        number,
        parent_hash: parent,
        timestamp,
        logs_bloom,
        extra_data,
        ..consensus::Header::default()
    };
    let mut rlp = Vec::new();
    header.encode(&mut rlp);
    let this = BlockRef { number, hash: keccak256(&rlp) };
    Block { header: Header { this, parent, timestamp, rlp: rlp.into() }, logs }
}

pub fn transfer(rng: &mut StdRng, index: u32) -> Log {
    let mut holder = || Address::with_last_byte(rng.random_range(0..20)).into_word();
    let topics = vec![*TRANSFER, holder(), holder()];
    let address = if rng.random_bool(0.8) { TOKEN } else { Address::repeat_byte(0xdd) };
    let data = U256::from(rng.random_range(1..1000u32)).to_be_bytes::<32>().into();
    let transaction_hash = B256::new(rng.random());
    Log { address, topics, data, index, transaction_index: index / 2, transaction_hash }
}

/// A log that no module here wants.
pub fn noise(rng: &mut StdRng, index: u32) -> Log {
    let topics = (0..rng.random_range(0..=4)).map(|_| B256::new(rng.random())).collect();
    let data = (0..rng.random_range(0..50)).map(|_| rng.random::<u8>()).collect();
    let (address, transaction_hash) = (Address::new(rng.random()), B256::new(rng.random()));
    Log { address, topics, data, index, transaction_index: index / 2, transaction_hash }
}

/// A history with reorgs and outcomes, and the canonical blocks at its end.
pub struct Forked {
    pub records: Vec<Record>,
    pub canonical: Vec<Record>,
}

/// `first` is the height of the first block.
pub fn forked(seed: u64, first: u64, length: usize) -> Forked {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut records: Vec<Record> = Vec::new();
    let mut canonical: Vec<Block> = Vec::new();
    let mut highest = 0;
    while records.len() < length {
        highest = highest.max(canonical.len() as u64);
        let depth = rng.random_range(1..=REORG_DEPTH_MAX);
        let within_reach = canonical.len() as u64 > depth + highest.saturating_sub(REORG_DEPTH_MAX);
        if within_reach && rng.random_bool(0.15) {
            let kept = canonical.len() - depth as usize;
            let ancestor = canonical[kept - 1].header.this;
            let abandoned = canonical.drain(kept..).map(|block| block.header.this).collect();
            records.push(Record::Revert(Revert { ancestor, abandoned }));
        }
        let parent = canonical.last().map_or(B256::ZERO, |block| block.header.this.hash);
        let mut logs = Vec::new();
        for index in 0..rng.random_range(0..12) {
            let is_transfer = rng.random_bool(0.6);
            logs.push(if is_transfer { transfer(&mut rng, index) } else { noise(&mut rng, index) });
        }
        let next = block(first + canonical.len() as u64, parent, logs);
        let head = next.header.this;
        canonical.push(next.clone());
        let asked = Offset::new(records.len() as u64);
        records.push(Record::Block(next));
        if rng.random_bool(0.2) {
            records.push(Record::Outcome(outcome(&mut rng, asked, head)));
        }
    }
    Forked { records, canonical: canonical.into_iter().map(Record::Block).collect() }
}

/// An outcome of an effect that was asked for at the newest block.
fn outcome(rng: &mut StdRng, offset: Offset, block: BlockRef) -> Outcome {
    let results = [
        EffectResult::Accepted,
        EffectResult::AlreadyThere,
        EffectResult::Refused(Refusal {
            status: 400,
            error_type: Some("InsufficientBalance".to_owned()),
            description: "not \"enough\"".to_owned(),
            body: vec![0, 0xff, 1],
            retry_after: Some(3),
        }),
        EffectResult::Expired,
        EffectResult::Cancelled("its block was abandoned".to_owned()),
        EffectResult::DryRun,
    ];
    let mut uid = [0; 56];
    rng.fill(&mut uid);
    let webhook = EffectKey::Webhook { destination: "alerts".to_owned(), key: "a/b".to_owned() };
    Outcome {
        module: "twap-monitor".parse().unwrap(),
        effect: EffectId { offset, index: rng.random_range(0..3) },
        key: if rng.random() { EffectKey::Order(uid) } else { webhook },
        block,
        result: results[rng.random_range(0..results.len())].clone(),
        attempts: rng.random_range(1..9),
        at_millis: rng.random_range(0..1 << 40),
        head: block,
    }
}

/// Runs a live lane to the tail, with the answers of [`answers`].
pub fn live(store: &Store, module: &BoundModule) {
    let mut runner = Runner::new(store.lane(module.lane()).unwrap(), module.clone());
    run(&mut runner, &mut answers);
}

pub fn run(runner: &mut Runner, reads: &mut dyn Reads) {
    let end = runner.lane().journal().tail().offset;
    let reach = shepherd_dispatch::Reach { records_max: 17, end };
    while runner.lane().cursor().next < end {
        runner.advance(reach, reads, &|| false).unwrap();
    }
}

/// What a lane came to.
pub fn result(store: &Store, lane: &LaneId) -> (shepherd_log::Digest, shepherd_log::Digest) {
    let snapshot = store.lane_snapshot(lane).unwrap().expect("the lane exists");
    (snapshot.cursor().digest, snapshot.state_digest().unwrap())
}

/// The state of a lane.
pub fn state(store: &Store, lane: &LaneId) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let snapshot = store.lane_snapshot(lane).unwrap().expect("the lane exists");
    snapshot.entries(&[], None).map(Result::unwrap).collect()
}
