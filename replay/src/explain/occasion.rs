//! What a record was, as the module saw it.

use alloy_primitives::{B256, hex};
use serde::Serialize;
use shepherd_host::BoundModule;
use shepherd_log::{BlockView, Journal, LogView, Offset, ReadError, RecordView};

use crate::explain::{
    BlockSeen, ExplainError,
    known::{self, Said},
};

/// What was handled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Occasion {
    /// A block.
    Block(BlockCause),
    /// The lane was told what came of one of its effects.
    Outcome {
        /// The record.
        record: u64,
        /// The effect.
        effect: String,
        /// Its key.
        key: String,
        /// What came of it.
        result: String,
        /// The newest block then.
        head: BlockSeen,
    },
    /// Blocks were taken back, and the lane was told what stands all the same.
    Revert {
        /// The record.
        record: u64,
        /// The last block that both branches share.
        ancestor: BlockSeen,
        /// How many blocks were taken back.
        abandoned: usize,
    },
}

/// A block, and why the module was called for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlockCause {
    /// The record.
    pub record: u64,
    /// The block.
    pub block: BlockSeen,
    /// Its own time, in seconds since 1970.
    pub timestamp: u64,
    /// The revert that took it back, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_back_by: Option<u64>,
    /// How many logs the block has.
    pub logs_in_block: usize,
    /// Which of them the module was given; none when its subscription is not at hand.
    pub logs: Vec<LogSeen>,
    /// Whether it was called for the block itself: its number is a multiple of `block_every`.
    pub every_block: bool,
    /// Whether it was called because block time passed a multiple of `tick`.
    pub tick: bool,
}

/// A log that a module was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogSeen {
    /// Position among all logs of the block.
    pub index: u32,
    /// Hash of its transaction.
    pub transaction: B256,
    /// The contract.
    pub address: String,
    /// The contract's name, where it has the same address on every chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contract: Option<&'static str>,
    /// Its topics.
    pub topics: Vec<B256>,
    /// Its data, in hex.
    pub data: String,
    /// What it says, when the event is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<Said>,
}

impl From<&LogView<'_>> for LogSeen {
    fn from(log: &LogView<'_>) -> LogSeen {
        let topics: Vec<B256> = log.topics().collect();
        LogSeen {
            index: log.index,
            transaction: log.transaction_hash,
            address: log.address.to_string(),
            contract: known::contract(&log.address),
            data: hex::encode_prefixed(log.data),
            said: known::event(&topics, log.data),
            topics,
        }
    }
}

/// The record at an offset, or `None` when it has been trimmed.
pub(super) fn of(
    journal: &Journal,
    record: Offset,
    module: Option<&BoundModule>,
) -> Result<Option<Occasion>, ExplainError> {
    let stored = match journal.read(record..record.plus(1)).next() {
        Some(Ok(stored)) => stored,
        None | Some(Err(ReadError::Trimmed { .. })) => return Ok(None),
        Some(Err(error)) => return Err(error.into()),
    };
    Ok(Some(match stored.record() {
        RecordView::Block(view) => Occasion::Block(block(journal, record, &view, module)?),
        RecordView::Outcome(outcome) => Occasion::Outcome {
            record: record.get(),
            effect: outcome.effect.to_string(),
            key: outcome.key.to_string(),
            result: outcome.result.kind().to_owned(),
            head: outcome.head.into(),
        },
        RecordView::Revert(revert) => Occasion::Revert {
            record: record.get(),
            ancestor: revert.ancestor.into(),
            abandoned: revert.abandoned.len(),
        },
    }))
}

fn block(
    journal: &Journal,
    record: Offset,
    view: &BlockView<'_>,
    module: Option<&BoundModule>,
) -> Result<BlockCause, ExplainError> {
    let mut cause = BlockCause {
        record: record.get(),
        block: view.this.into(),
        timestamp: view.timestamp,
        taken_back_by: journal.abandoned_by(record).map(Offset::get),
        logs_in_block: view.logs().count(),
        logs: Vec::new(),
        every_block: false,
        tick: false,
    };
    let Some(subscription) = module.map(BoundModule::subscription) else { return Ok(cause) };
    let is_given = |log: &LogView<'_>| {
        let topics: Vec<B256> = log.topics().collect();
        subscription.wants_log(&log.address, &topics)
    };
    cause.logs = view.logs().filter(is_given).map(|log| LogSeen::from(&log)).collect();
    let clock =
        subscription.clock(view.this.number, view.timestamp, timestamp_before(journal, view)?);
    cause.every_block = clock.block;
    cause.tick = clock.tick;
    Ok(cause)
}

fn timestamp_before(journal: &Journal, view: &BlockView<'_>) -> Result<Option<u64>, ExplainError> {
    let Some(number) = view.this.number.checked_sub(1) else { return Ok(None) };
    let parent = shepherd_log::BlockRef { number, hash: view.parent };
    let Some(offset) = journal.offset_of(parent)? else { return Ok(None) };
    match journal.read(offset..offset.plus(1)).next() {
        Some(Ok(stored)) => match stored.record() {
            RecordView::Block(before) => Ok(Some(before.timestamp)),
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}
