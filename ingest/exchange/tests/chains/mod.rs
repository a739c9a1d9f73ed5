//! Chains made of random blocks whose hashes and blooms are real, and stores to keep them in.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};

use alloy::consensus;
use alloy_primitives::{Address, B256, Bloom, Bytes};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shepherd_exchange::{Branches, ParquetExport, Progress, export_parquet};
use shepherd_ingest::{Checks, Trust};
use shepherd_log::{
    Block, BlockRef, Header, Journal, Log, Options, Record, RecordView, Revert, Store,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub const CHAIN: &str = "testnet";
pub const CHAIN_ID: u64 = 31337;
pub const REORG_DEPTH_MAX: u64 = 8;

/// What blocks are held to unless a test says otherwise.
pub fn checks() -> Checks {
    Checks { trust: Trust::Bloom, ..Checks::default() }
}

/// The seed of this run: `SHEPHERD_SEED`, or the one given. It is printed, and repeats the run.
pub fn seed(default: u64) -> u64 {
    let seed = std::env::var("SHEPHERD_SEED").map_or(default, |seed| seed.parse().unwrap());
    println!("SHEPHERD_SEED={seed}");
    seed
}

pub fn store(folder: &Path) -> Store {
    let options = Options { reorg_depth_max: REORG_DEPTH_MAX, ..Options::default() };
    Store::open(folder, options).expect("the store opens")
}

/// The journal of the chain, in a store of its own.
pub fn open(folder: &Path) -> Journal {
    store(folder).journal(&CHAIN.parse().unwrap(), CHAIN_ID).unwrap()
}

/// An empty journal in a store that has others: much cheaper than a store.
pub fn another(store: &Store) -> Journal {
    let name = format!("journal-{}", store.chains().len());
    store.journal(&name.parse().unwrap(), CHAIN_ID).unwrap()
}

/// A journal with these records.
pub fn journal_of(folder: &Path, records: &[Record]) -> Journal {
    let journal = open(folder);
    append(&journal, records);
    journal
}

pub fn append(journal: &Journal, records: &[Record]) {
    journal.append(journal.tail().offset, records).unwrap();
}

/// All records of a journal.
pub fn records(journal: &Journal) -> Vec<Record> {
    let stored = journal.read(journal.start()..journal.tail().offset);
    stored.map(|stored| stored.unwrap().record().to_record()).collect()
}

/// The blocks of a journal that count.
pub fn canonical(journal: &Journal) -> Vec<Record> {
    let mut blocks = Vec::new();
    for stored in journal.read(journal.start()..journal.tail().offset) {
        let stored = stored.unwrap();
        let counts = journal.abandoned_by(stored.offset()).is_none();
        if let (RecordView::Block(block), true) = (stored.record(), counts) {
            blocks.push(Record::Block(block.to_block()));
        }
    }
    blocks
}

/// The block after another one.
pub fn block_after(parent: Option<&Block>, first: u64, logs: Vec<Log>, branch: u64) -> Block {
    let mut bloom = Bloom::ZERO;
    for log in &logs {
        bloom.accrue_raw_log(log.address, &log.topics);
    }
    let number = parent.map_or(first, |parent| parent.header.this.number + 1);
    let consensus = consensus::Header {
        number,
        parent_hash: parent.map_or(B256::ZERO, |parent| parent.header.this.hash),
        timestamp: 1_700_000_000 + 12 * number,
        beneficiary: Address::repeat_byte(number as u8),
        extra_data: Bytes::from(branch.to_be_bytes()),
        gas_used: 21_000 * logs.len() as u64,
        base_fee_per_gas: (!number.is_multiple_of(3)).then_some(7),
        logs_bloom: bloom,
        ..consensus::Header::default()
    };
    Block {
        header: Header {
            this: BlockRef { number, hash: consensus.hash_slow() },
            parent: consensus.parent_hash,
            timestamp: consensus.timestamp,
            rlp: alloy::rlp::encode(&consensus).into(),
        },
        logs,
    }
}

/// Up to `max` logs, of few contracts, with none to four topics and data of any length.
pub fn random_logs(rng: &mut StdRng, max: usize) -> Vec<Log> {
    let mut transaction_index = 0;
    (0..rng.random_range(0..=max) as u32)
        .map(|index| {
            transaction_index += rng.random_range(0..2);
            let topics = rng.random_range(0..=4);
            let data_bytes = if rng.random_bool(0.2) { 0 } else { rng.random_range(0..200) };
            Log {
                address: Address::repeat_byte(rng.random_range(0..5)),
                topics: (0..topics).map(|_| B256::with_last_byte(rng.random_range(0..9))).collect(),
                data: (0..data_bytes).map(|_| rng.random::<u8>()).collect::<Vec<u8>>().into(),
                index,
                transaction_index,
                transaction_hash: B256::with_last_byte(transaction_index as u8),
            }
        })
        .collect()
}

/// A chain from a height on, with random reorgs.
pub struct Forked {
    pub records: Vec<Record>,
    /// The blocks left at its end.
    pub canonical: Vec<Block>,
}

pub fn forked(seed: u64, first: u64, length: usize) -> Forked {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut records = Vec::new();
    let mut canonical: Vec<Block> = Vec::new();
    let (mut branch, mut highest) = (0, 0);
    while records.len() < length {
        highest = highest.max(canonical.len() as u64);
        let depth = rng.random_range(1..=REORG_DEPTH_MAX);
        let floor = highest.saturating_sub(REORG_DEPTH_MAX);
        if canonical.len() as u64 > depth + floor && rng.random_bool(0.15) {
            let kept = canonical.len() - depth as usize;
            let ancestor = canonical[kept - 1].header.this;
            let taken: Vec<Block> = canonical.drain(kept..).collect();
            let abandoned = taken.iter().map(|block| block.header.this).collect();
            records.push(Record::Revert(Revert { ancestor, abandoned }));
            branch += 1;
            if rng.random_bool(0.1) {
                // The first abandoned block comes back.
                canonical.push(taken[0].clone());
                records.push(Record::Block(taken[0].clone()));
            }
        }
        let logs = random_logs(&mut rng, 12);
        let block = block_after(canonical.last(), first, logs, branch);
        canonical.push(block.clone());
        records.push(Record::Block(block));
    }
    Forked { records, canonical }
}

/// A straight chain with two to nine logs a block.
pub fn straight(seed: u64, length: usize) -> Vec<Block> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut blocks: Vec<Block> = Vec::new();
    while blocks.len() < length {
        let logs = random_logs(&mut rng, 9);
        if logs.len() >= 2 {
            blocks.push(block_after(blocks.last(), 0, logs, 0));
        }
    }
    blocks
}

pub fn as_records(blocks: &[Block]) -> Vec<Record> {
    blocks.iter().cloned().map(Record::Block).collect()
}

pub fn parquet_export(folder: &Path) -> ParquetExport {
    ParquetExport {
        heights: 0..u64::MAX,
        folder: folder.to_owned(),
        blocks_per_file: 10.try_into().unwrap(),
        branches: Branches::Canonical,
        filter: None,
    }
}

/// Exports the whole chain of a journal, ten blocks a file.
pub fn export(journal: &Journal, folder: &Path) {
    export_parquet(journal, &parquet_export(folder), &progress(), &CancellationToken::new())
        .unwrap();
}

pub fn progress() -> watch::Sender<Progress> {
    watch::Sender::new(Progress::default())
}

/// The names of what is in a folder, sorted, hidden files too.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// This package's test data.
pub fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}
