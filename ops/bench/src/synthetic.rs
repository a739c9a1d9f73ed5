//! A journal of a million Transfer logs, made without a node.

use std::path::Path;

use alloy_primitives::{Address, B256, Bytes, U256, b256, keccak256};
use anyhow::Context;
use shepherd_log::{Block, BlockRef, Header, Journal, Log, Options, Record, Store};

/// keccak-256 of `Transfer(address,address,uint256)`.
const TRANSFER: B256 = b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");

/// Logs of each block.
pub const LOGS_PER_BLOCK: u64 = 50;

/// Holders the transfers go between. Larger than what stays in a step's memory.
const HOLDERS: u64 = 20_000;

/// Blocks per append.
const APPEND_BLOCKS: usize = 200;

pub const CHAIN: &str = "devnet";
pub const CHAIN_ID: u64 = 31337;

/// A journal on disk, closed.
pub struct Synthetic {
    dir: tempfile::TempDir,
    pub blocks: u64,
    pub logs: u64,
}

impl Synthetic {
    /// Its data directory, which measurements must not change.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A copy of its data directory.
    pub fn copy(&self) -> anyhow::Result<tempfile::TempDir> {
        let dir = tempfile::tempdir()?;
        let status = std::process::Command::new("cp")
            .args(["-a", "--reflink=auto"])
            .arg(self.path().join("store"))
            .arg(dir.path())
            .status()?;
        anyhow::ensure!(status.success(), "copying the journal failed");
        Ok(dir)
    }
}

pub fn open(dir: &Path) -> anyhow::Result<(Store, Journal)> {
    let store = Store::open(dir, Options::default()).context("the store does not open")?;
    let journal = store.journal(&CHAIN.parse()?, CHAIN_ID)?;
    Ok((store, journal))
}

/// Makes a journal of this many logs.
pub fn build(logs: u64) -> anyhow::Result<Synthetic> {
    let blocks = logs / LOGS_PER_BLOCK;
    let dir = tempfile::tempdir()?;
    let (_store, journal) = open(dir.path())?;
    let holders: Vec<Address> =
        (0..HOLDERS).map(|n| Address::from_word(keccak256(n.to_be_bytes()))).collect();
    let mut parent = B256::ZERO;
    let mut records = Vec::with_capacity(APPEND_BLOCKS);
    for number in 0..blocks {
        let block = block(number, parent, &holders);
        parent = block.header.this.hash;
        records.push(Record::Block(block));
        if records.len() == APPEND_BLOCKS || number + 1 == blocks {
            journal.append(journal.tail().offset, &records)?;
            records.clear();
        }
    }
    Ok(Synthetic { dir, blocks, logs: blocks * LOGS_PER_BLOCK })
}

fn block(number: u64, parent: B256, holders: &[Address]) -> Block {
    let hash = keccak256(number.to_be_bytes());
    let log = |index: u64| {
        let mixed = keccak256([number.to_be_bytes(), index.to_be_bytes()].concat());
        let holder = |at: usize| {
            let drawn = u64::from_be_bytes(mixed[at..at + 8].try_into().expect("eight bytes"));
            holders[(drawn % HOLDERS) as usize]
        };
        Log {
            address: Address::repeat_byte((index % 4) as u8),
            topics: vec![TRANSFER, holder(0).into_word(), holder(8).into_word()],
            data: U256::from(number + index).to_be_bytes::<32>().into(),
            index: index as u32,
            transaction_index: index as u32 / 2,
            transaction_hash: mixed,
        }
    };
    Block {
        header: Header {
            this: BlockRef { number, hash },
            parent,
            timestamp: 1_700_000_000 + number * 12,
            // As long as a header with a bloom is, and as hard to compress.
            rlp: Bytes::from(
                (0..18u8)
                    .flat_map(|part| keccak256([hash.as_slice(), &[part]].concat()).0)
                    .collect::<Vec<u8>>(),
            ),
        },
        logs: (0..LOGS_PER_BLOCK).map(log).collect(),
    }
}
