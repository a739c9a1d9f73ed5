//! What a module is called with.

use alloy_primitives::{Address, B256};
use shepherd_log::{BlockRef, Log};

/// What a module is called for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// A block with the logs that match the manifest.
    Block(BlockInput<'a>),
}

/// A block as one module sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockInput<'a> {
    /// The block.
    pub this: BlockRef,
    /// Hash of the block before it.
    pub parent: B256,
    /// The block's own time, in seconds since 1970.
    pub timestamp: u64,
    /// Why the module is called. At least one of them is set.
    pub triggers: Triggers,
    /// The logs that match, in log order.
    pub logs: Vec<LogRef<'a>>,
}

/// Why a module is called for a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Triggers {
    /// Logs match.
    pub logs: bool,
    /// The block's number is a multiple of `block_every`.
    pub block: bool,
    /// Block time passed a multiple of `tick`.
    pub tick: bool,
}

impl Triggers {
    /// Whether there is any reason to call the module.
    pub const fn any(self) -> bool {
        self.logs || self.block || self.tick
    }
}

/// A log, borrowed from wherever it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRef<'a> {
    /// The contract.
    pub address: Address,
    /// Zero to four topics.
    pub topics: &'a [B256],
    /// The event's unindexed arguments.
    pub data: &'a [u8],
    /// Position among all logs of the block.
    pub index: u32,
    /// Position of the transaction in the block.
    pub transaction_index: u32,
    /// Hash of the transaction.
    pub transaction_hash: B256,
}

impl<'a> From<&'a Log> for LogRef<'a> {
    fn from(log: &'a Log) -> LogRef<'a> {
        LogRef {
            address: log.address,
            topics: &log.topics,
            data: &log.data,
            index: log.index,
            transaction_index: log.transaction_index,
            transaction_hash: log.transaction_hash,
        }
    }
}
