//! A chain made of words: blocks with predictable hashes, and a toy module to run on them.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

use alloy_primitives::{Address, B256, keccak256};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shepherd_log::{
    Applied, Block, BlockRef, Cursor, Digest, Header, Journal, Lane, LaneSnapshot, Log, Offset,
    Options, Record, RecordView, Revert, Step, Store, TapeEntry, Writes,
};

pub const CHAIN: &str = "testnet";
pub const CHAIN_ID: u64 = 31337;
pub const LANE: &str = "toy@testnet";
pub const MODULE: [u8; 32] = [7; 32];
pub const REORG_DEPTH_MAX: u64 = 8;

pub fn options() -> Options {
    Options { reorg_depth_max: REORG_DEPTH_MAX, ..Options::default() }
}

pub fn open(dir: &Path) -> Store {
    Store::open(dir, options()).expect("the store opens")
}

pub fn journal(store: &Store) -> Journal {
    store.journal(&CHAIN.parse().unwrap(), CHAIN_ID).unwrap()
}

pub fn lane(store: &Store) -> Lane {
    store.lane(&LANE.parse().unwrap()).unwrap()
}

pub fn snapshot(store: &Store) -> LaneSnapshot {
    store.lane_snapshot(&LANE.parse().unwrap()).unwrap().expect("the lane exists")
}

/// The hash of a block: a function of its height and of the branch it was made on.
pub fn block_ref(number: u64, branch: u64) -> BlockRef {
    let seed = [number.to_be_bytes(), branch.to_be_bytes()].concat();
    BlockRef { number, hash: keccak256(seed) }
}

pub fn block(this: BlockRef, parent: B256, logs: usize) -> Block {
    let log = |index: usize| Log {
        address: Address::repeat_byte(index as u8),
        topics: vec![B256::repeat_byte(1); index % 5],
        data: this.hash.as_slice()[..index % 32].to_vec().into(),
        index: index as u32 * 2,
        transaction_index: 0,
        transaction_hash: B256::repeat_byte(index as u8),
    };
    Block {
        header: Header {
            this,
            parent,
            timestamp: 1_700_000_000 + this.number * 12,
            rlp: vec![0xc0; 600].into(),
        },
        logs: (0..logs).map(log).collect(),
    }
}

/// A straight chain of `count` blocks from height `first`.
pub fn straight(first: u64, count: u64) -> Vec<Record> {
    let mut parent = B256::ZERO;
    (first..first + count)
        .map(|number| {
            let this = block_ref(number, 0);
            let record = Record::Block(block(this, parent, (number % 7) as usize));
            parent = this.hash;
            record
        })
        .collect()
}

/// A chain with random reorgs, and the canonical blocks that are left at its end.
pub struct Forked {
    pub records: Vec<Record>,
    pub canonical: Vec<Record>,
}

pub fn forked(seed: u64, length: usize, depth_max: u64) -> Forked {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut records = Vec::new();
    let mut canonical: Vec<Block> = Vec::new();
    let mut branch = 0;
    let mut highest = 0;
    while records.len() < length {
        highest = highest.max(canonical.len() as u64);
        let depth = rng.random_range(1..=depth_max);
        let within_reach = canonical.len() as u64 > depth + highest.saturating_sub(depth_max);
        if within_reach && rng.random_bool(0.2) {
            let kept = canonical.len() - depth as usize;
            let ancestor = canonical[kept - 1].header.this;
            let abandoned = canonical.drain(kept..).map(|block| block.header.this).collect();
            records.push(Record::Revert(Revert { ancestor, abandoned }));
            branch += 1;
        }
        let parent = canonical.last().map_or(B256::ZERO, |block| block.header.this.hash);
        let next = block(block_ref(canonical.len() as u64, branch), parent, rng.random_range(0..6));
        canonical.push(next.clone());
        records.push(Record::Block(next));
    }
    Forked { records, canonical: canonical.into_iter().map(Record::Block).collect() }
}

/// What the toy module does with a block: it counts logs per address, remembers the newest block,
/// forgets what it saw three blocks ago, and asks one question.
pub fn run_toy(step: &mut Step<'_>, this: BlockRef, logs: Vec<Log>) -> Applied {
    let mut writes = Writes::new();
    let mut counts: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for log in logs {
        *counts.entry([b"count/", log.address.as_slice()].concat()).or_default() += 1;
    }
    for (key, more) in counts {
        let before = step.get(&key).unwrap();
        let count = before.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap())) + more;
        writes.insert(key, Some(count.to_be_bytes().to_vec()));
    }
    if !this.number.is_multiple_of(3) {
        let seen = |number: u64| [b"seen/".as_slice(), &number.to_be_bytes()].concat();
        writes.insert(seen(this.number), Some(this.hash.to_vec()));
        if let Some(old) = this.number.checked_sub(3) {
            writes.insert(seen(old), None);
        }
    }
    let request = Digest(keccak256(this.hash).0);
    let answer = TapeEntry { call: 0, request, answer: this.hash.to_vec() };
    Applied { writes, tape: vec![answer], effects: Vec::new(), fuel: 1 + this.number }
}

/// Runs one step over at most `records_max` records.
pub fn step(lane: &mut Lane, records_max: usize) -> Cursor {
    let mut step = lane.begin();
    for stored in step.records().take(records_max) {
        let stored = stored.unwrap();
        match stored.record() {
            RecordView::Block(view) => {
                let block = view.to_block();
                let applied = run_toy(&mut step, block.header.this, block.logs);
                step.apply(block.header.this, applied).unwrap();
            }
            RecordView::Revert(revert) => step.revert(&revert).unwrap(),
            RecordView::Outcome(_) => step.pass_outcome(Applied::default()).unwrap(),
        }
        if step.is_full() {
            break;
        }
    }
    step.commit(MODULE).unwrap()
}

/// Runs steps until the lane has caught up; `cut` says how many records the next one may take.
pub fn catch_up(lane: &mut Lane, mut cut: impl FnMut() -> usize) -> Cursor {
    while lane.cursor().next < lane.journal().tail().offset {
        step(lane, cut());
    }
    lane.cursor().clone()
}

/// State, tape of all records, and lane digest: what must not depend on how steps were cut.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub state: Digest,
    pub lane_digest: Digest,
    pub block: Option<BlockRef>,
    pub tape: Vec<(Offset, TapeEntry)>,
}

pub fn outcome(store: &Store) -> Outcome {
    let snapshot = snapshot(store);
    let cursor = snapshot.cursor();
    let tape = (0..cursor.next.get())
        .map(Offset::new)
        .flat_map(|offset| {
            snapshot.tape(offset).unwrap().into_iter().map(move |entry| (offset, entry))
        })
        .collect();
    Outcome {
        state: snapshot.state_digest().unwrap(),
        lane_digest: cursor.digest,
        block: cursor.block,
        tape,
    }
}

/// The outcome of a fresh lane on these records, in a store of its own.
pub fn fresh_outcome(records: &[Record]) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_all(&journal(&store), records);
    catch_up(&mut lane(&store), || usize::MAX);
    outcome(&store)
}

pub fn append_all(journal: &Journal, records: &[Record]) {
    for chunk in records.chunks(64) {
        journal.append(journal.tail().offset, chunk).unwrap();
    }
}

/// Copies a folder with everything in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// The write-ahead log of the engine, the one file that the last commits live in.
pub fn write_ahead_log(dir: &Path) -> PathBuf {
    let is_log = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "jnl");
    let mut logs: Vec<PathBuf> = files(dir).into_iter().filter(is_log).collect();
    assert_eq!(logs.len(), 1, "this little work fits one log");
    logs.remove(0)
}

/// End of the bytes that were written; the engine fills the file up with zeros.
pub fn written_bytes(file: &Path) -> u64 {
    let bytes = fs::read(file).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

/// Lets the mark of a copied store fall behind as far as it may: it is not written when the copy
/// is taken in time.
pub fn lower_the_mark(copied: &Path) {
    let fresh = tempfile::tempdir().unwrap();
    drop(open(fresh.path()));
    let mark = Path::new("store").join("highwater");
    assert!(copied.join(&mark).exists());
    fs::copy(fresh.path().join(&mark), copied.join(&mark)).unwrap();
}

/// Cuts the write-ahead log of a copied store, and fills it up with zeros again if asked to.
pub fn cut_log(copied: &Path, at: u64, zeroed: bool) {
    let file = File::options().write(true).open(write_ahead_log(copied)).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(at).unwrap();
    if zeroed {
        file.set_len(length).unwrap();
    }
}

/// Opens the engine below the store, to do what no operation of the store does.
pub fn with_engine(dir: &Path, change: impl FnOnce(&fjall::Database)) {
    let database = fjall::Database::builder(dir.join("store").join("db")).open().unwrap();
    change(&database);
    database.persist(fjall::PersistMode::SyncAll).unwrap();
}

pub fn keyspace(database: &fjall::Database, name: &str) -> fjall::Keyspace {
    database.keyspace(name, fjall::KeyspaceCreateOptions::default).unwrap()
}

/// The seed of a randomised test: given, or from the clock; printed so that it can be given.
pub fn seed() -> u64 {
    let given = std::env::var("SHEPHERD_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("repeat with SHEPHERD_SEED={seed}");
    seed
}
