//! Real modules on real storage, with scripted chains and answers.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shepherd_dispatch::{Advanced, Runner, Stop};
use shepherd_host::{
    BoundModule, Engine, EngineOptions, Manifest, Overrides, ReadAnswer, ReadRequest, World,
};
use shepherd_log::{
    Block, BlockRef, Digest, Header, Journal, LaneId, Log, Offset, Options, Record, Revert, Store,
    TapeEntry,
};

pub const CHAIN: &str = "devnet";
pub const REORG_DEPTH_MAX: u64 = 10;

/// keccak-256 of `Transfer(address,address,uint256)`.
static TRANSFER: LazyLock<B256> = LazyLock::new(|| keccak256("Transfer(address,address,uint256)"));

static ENGINE: LazyLock<Engine> =
    LazyLock::new(|| Engine::new(EngineOptions::default()).expect("the engine starts"));

pub fn seed() -> u64 {
    let given = std::env::var("SHEPHERD_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("repeat with SHEPHERD_SEED={seed}");
    seed
}

pub fn store(dir: &Path) -> Store {
    let options = Options { reorg_depth_max: REORG_DEPTH_MAX, ..Options::default() };
    Store::open(dir, options).expect("the store opens")
}

pub fn journal(store: &Store) -> Journal {
    store.journal(&CHAIN.parse().unwrap(), 31337).unwrap()
}

pub fn append_all(journal: &Journal, records: &[Record]) {
    for chunk in records.chunks(64) {
        journal.append(journal.tail().offset, chunk).unwrap();
    }
}

/// A module from its folder, with configuration laid over its manifest.
pub fn module(folder: &str, config: &str) -> BoundModule {
    let manifest = fs::read_to_string(manifest_file(folder)).unwrap();
    load(&manifest, folder, config)
}

/// A module from its folder, with another manifest.
pub fn module_from(manifest: &str, folder: &str) -> BoundModule {
    load(manifest, folder, "")
}

fn manifest_file(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../modules").join(folder).join("module.toml")
}

fn load(manifest: &str, folder: &str, config: &str) -> BoundModule {
    let manifest = Manifest::parse(manifest, &manifest_file(folder)).unwrap();
    let overrides = Overrides { config: config.parse().unwrap(), ..Overrides::default() };
    let component = component(manifest.component());
    let module = ENGINE.load(&manifest, &component).expect("the module loads");
    module
        .bind(&CHAIN.parse().unwrap(), 31_337, &overrides)
        .expect("the module takes its configuration")
}

fn component(file: &Path) -> Vec<u8> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let file = target.join("modules").join(file.file_name().expect("a component is a file"));
    fs::read(&file).unwrap_or_else(|error| {
        panic!("{} cannot be read ({error}): run `cargo xtask guests` first", file.display())
    })
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

pub fn hostile(behaviour: &str, at_block: u64) -> BoundModule {
    module("fixtures/hostile", &format!("behaviour = \"{behaviour}\"\nat_block = {at_block}"))
}

/// A chain that answers every balance with a number made of the block and the address.
#[expect(clippy::unnecessary_wraps, reason = "the shape of a source of reads")]
pub fn answers(block: BlockRef, requests: &[ReadRequest]) -> Result<Vec<ReadAnswer>, World> {
    let answer = |request: &ReadRequest| match request {
        ReadRequest::Balance(address) => {
            let mixed = keccak256([block.hash.as_slice(), address.as_slice()].concat());
            ReadAnswer::Balance(U256::from(mixed[0]) * U256::from(10))
        }
        ReadRequest::Call { .. } => ReadAnswer::Reverted(Bytes::new()),
        ReadRequest::Code(_) => ReadAnswer::Code(Bytes::new()),
        ReadRequest::Storage { slot, .. } => ReadAnswer::Storage(*slot),
        ReadRequest::Order(_) | ReadRequest::AppData(_) | ReadRequest::Get(_) => {
            unreachable!("no module here asks that")
        }
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

/// A chain with random reorgs, and what is canonical at its end.
pub struct Forked {
    pub records: Vec<Record>,
    pub canonical: Vec<Record>,
}

pub fn forked(seed: u64, length: usize) -> Forked {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut records = Vec::new();
    let mut canonical: Vec<Block> = Vec::new();
    let (mut branch, mut highest) = (0, 0);
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
        let transfers = rng.random_range(0..12);
        let next = block(canonical.len() as u64, branch, parent, transfers);
        canonical.push(next.clone());
        records.push(Record::Block(next));
    }
    Forked { records, canonical: canonical.into_iter().map(Record::Block).collect() }
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

pub fn runner(store: &Store, module: &BoundModule) -> Runner {
    journal(store);
    Runner::new(store.lane(module.lane()).unwrap(), module.clone())
}

/// Advances to the tail; `cut` says how many records the next step may take.
pub fn catch_up(
    runner: &mut Runner,
    mut cut: impl FnMut() -> usize,
) -> Result<Vec<Advanced>, Stop> {
    let mut steps = Vec::new();
    while let Some(advanced) = runner.advance(cut(), &mut answers, &|| false)? {
        steps.push(advanced);
    }
    Ok(steps)
}

/// What must not depend on how steps were cut.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub state: Digest,
    pub lane: Digest,
    pub block: Option<BlockRef>,
    pub tape: Vec<(Offset, TapeEntry)>,
}

pub fn outcome(store: &Store, lane: &LaneId) -> Outcome {
    let snapshot = store.lane_snapshot(lane).unwrap().expect("the lane exists");
    let cursor = snapshot.cursor();
    let tape = (0..cursor.next.get())
        .map(Offset::new)
        .flat_map(|offset| {
            snapshot.tape(offset).unwrap().into_iter().map(move |entry| (offset, entry))
        })
        .collect();
    Outcome {
        state: snapshot.state_digest().unwrap(),
        lane: cursor.digest,
        block: cursor.block,
        tape,
    }
}

/// A fresh lane on these records, in a store of its own.
pub fn run_fresh(records: &[Record], module: &BoundModule, cut: impl FnMut() -> usize) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    append_all(&journal(&store), records);
    catch_up(&mut runner(&store, module), cut).unwrap();
    outcome(&store, module.lane())
}

/// A pool with one endpoint.
pub fn pool(url: &str) -> shepherd_rpc::Pool {
    let options = shepherd_rpc::Options::default();
    let urls = vec![url.parse().expect("a URL")];
    let metrics = shepherd_rpc::Metrics::new(&mut prometheus_client::registry::Registry::default());
    shepherd_rpc::Pool::connect(CHAIN, 31337, urls, options, &metrics)
}
