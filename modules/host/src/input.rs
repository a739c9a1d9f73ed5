//! What a module is called with.

use alloy_primitives::{Address, B256};
use shepherd_log::{BlockRef, EffectId, EffectKey, EffectResult, Log, Outcome};

/// What a module is called for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// A block with the logs that match the manifest.
    Block(BlockInput<'a>),
    /// What came of one of its effects.
    Outcome(OutcomeInput<'a>),
    /// Blocks were taken back whose effects are real already.
    Revert(RevertInput<'a>),
}

impl Input<'_> {
    /// The block that reads are answered at, and whose time it is.
    pub fn at(&self) -> At {
        match self {
            Input::Block(block) => {
                At { this: block.this, parent: block.parent, timestamp: block.timestamp }
            }
            Input::Outcome(outcome) => outcome.at,
            Input::Revert(revert) => revert.at,
        }
    }
}

/// Where the chain is while a module is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The block.
    pub this: BlockRef,
    /// Hash of the block before it.
    pub parent: B256,
    /// The block's own time, in seconds since 1970.
    pub timestamp: u64,
}

/// What came of one effect, at the newest canonical block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeInput<'a> {
    /// Where the chain is.
    pub at: At,
    /// What came of it.
    pub outcome: OutcomeRef<'a>,
}

/// A reorg, for a lane that has effects among what was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevertInput<'a> {
    /// The last block that both branches share.
    pub at: At,
    /// Effects that are real although the blocks that asked for them are gone.
    pub outcomes: Vec<OutcomeRef<'a>>,
}

/// What came of an effect, borrowed from wherever it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutcomeRef<'a> {
    /// Which effect it was. The module is not shown it; it tells apart two outcomes that look the
    /// same, such as two refusals of one order, where random numbers and keys are derived.
    pub effect: EffectId,
    /// Its key.
    pub key: &'a EffectKey,
    /// What came of it.
    pub result: &'a EffectResult,
    /// Whether the block that asked for it has been taken back since.
    pub abandoned: bool,
}

impl<'a> OutcomeRef<'a> {
    /// An outcome as the journal has it.
    pub fn new(outcome: &'a Outcome, abandoned: bool) -> OutcomeRef<'a> {
        let Outcome { effect, key, result, .. } = outcome;
        OutcomeRef { effect: *effect, key, result, abandoned }
    }
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
