//! What a synthetic chain looks like.

use std::{ops::RangeInclusive, time::Duration};

/// What a synthetic chain looks like. The same shape is the same chain, to the last byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Everything that looks random follows from it.
    pub seed: u64,
    /// What `eth_chainId` says.
    pub chain_id: u64,
    /// Blocks after the genesis block, which has no logs.
    pub blocks: u64,
    /// Logs of each block; all numbers in between are equally likely.
    pub logs_per_block: RangeInclusive<u32>,
    /// Contracts that emit logs, one at least. The first of them emit most.
    pub contracts: u32,
    /// Accounts that logs speak of, one at least. The first of them are spoken of most.
    pub accounts: u32,
    /// From one block to the next. Timestamps are in whole seconds, as on any chain.
    pub block_time: Duration,
    /// Time of the genesis block, in seconds since 1970.
    pub genesis_time: u64,
    /// Whether the receipts root in each header is that of the block's receipts, or just some
    /// number. Computing it takes far longer than everything else about a block.
    pub receipts_roots: bool,
}

impl Shape {
    /// As dense as Ethereum's mainnet, and with its habits: most logs are token transfers, and a
    /// few contracts and accounts are in most of them. Without receipts roots.
    pub fn mainnet(seed: u64, blocks: u64) -> Shape {
        Shape {
            seed,
            chain_id: 1,
            blocks,
            logs_per_block: 200..=400,
            contracts: 30_000,
            accounts: 400_000,
            block_time: Duration::from_secs(12),
            genesis_time: 1_700_000_000,
            receipts_roots: false,
        }
    }

    /// A chain that tests can afford by the thousand: a genesis block, and up to six logs in each
    /// block that follows.
    pub fn small(seed: u64) -> Shape {
        Shape {
            seed,
            chain_id: 31_337,
            blocks: 0,
            logs_per_block: 0..=6,
            contracts: 8,
            accounts: 60,
            block_time: Duration::from_secs(12),
            genesis_time: 1_700_000_000,
            receipts_roots: true,
        }
    }

    /// The time of a block, in seconds since 1970.
    pub(crate) fn timestamp(&self, number: u64) -> u64 {
        let milliseconds = u128::from(number) * self.block_time.as_millis();
        self.genesis_time + (milliseconds / 1000) as u64
    }
}
