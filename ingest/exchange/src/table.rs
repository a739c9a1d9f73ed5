//! The two tables as columns.
//!
//! Names, types and order are cryo's where a column means the same, so that notebooks and queries
//! written for its files read ours. What is ours is marked.
//!
//! | blocks | | logs | |
//! |---|---|---|---|
//! | `block_hash` | binary | `block_number` | u32 |
//! | `parent_hash` | binary | `block_hash` | binary |
//! | `author` | binary | `transaction_index` | u32 |
//! | `block_number` | u32 | `log_index` | u32 |
//! | `gas_used` | u64 | `transaction_hash` | binary |
//! | `extra_data` | binary | `address` | binary |
//! | `timestamp` | u32 | `topic0` … `topic3` | binary or null |
//! | `base_fee_per_gas` | u64 or null | `data` | binary |
//! | `chain_id` | u64 | `chain_id` | u64 |
//! | `header_rlp` (ours) | binary | | |
//! | `logs_digest` (ours) | binary | | |
//! | `abandoned` (ours, on demand) | boolean | `abandoned` (ours, on demand) | boolean |
//!
//! `header_rlp` is what the block's hash is made of: with it a file can be imported again without
//! asking anyone. `author`, `gas_used`, `extra_data` and `base_fee_per_gas` are read from it, and
//! null where it is no header that we know. `logs_digest` is over all logs of the block, see
//! [`logs_digest`](crate::logs_digest).

use std::sync::Arc;

use alloy::{consensus, rlp::Decodable};
use arrow_array::{
    ArrayRef, RecordBatch,
    builder::{BinaryBuilder, BooleanBuilder, UInt32Builder, UInt64Builder},
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use shepherd_log::{BlockRef, BlockView, LogView};

use crate::{Table, logs_digest::LogsDigest};

/// A number that a column cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {what} of block {block} is {value}, more than the column of that name holds")]
pub struct TooLarge {
    /// The block.
    pub block: BlockRef,
    /// Which number.
    pub what: &'static str,
    /// The number.
    pub value: u64,
}

fn schema(table: Table, with_abandoned: bool) -> SchemaRef {
    use DataType::{Binary, Boolean, UInt32, UInt64};
    let columns = match table {
        Table::Blocks => vec![
            Field::new("block_hash", Binary, false),
            Field::new("parent_hash", Binary, false),
            Field::new("author", Binary, true),
            Field::new("block_number", UInt32, false),
            Field::new("gas_used", UInt64, true),
            Field::new("extra_data", Binary, true),
            Field::new("timestamp", UInt32, false),
            Field::new("base_fee_per_gas", UInt64, true),
            Field::new("chain_id", UInt64, false),
            Field::new("header_rlp", Binary, false),
            Field::new("logs_digest", Binary, false),
        ],
        Table::Logs => vec![
            Field::new("block_number", UInt32, false),
            Field::new("block_hash", Binary, false),
            Field::new("transaction_index", UInt32, false),
            Field::new("log_index", UInt32, false),
            Field::new("transaction_hash", Binary, false),
            Field::new("address", Binary, false),
            Field::new("topic0", Binary, true),
            Field::new("topic1", Binary, true),
            Field::new("topic2", Binary, true),
            Field::new("topic3", Binary, true),
            Field::new("data", Binary, false),
            Field::new("chain_id", UInt64, false),
        ],
    };
    let abandoned = with_abandoned.then(|| Field::new("abandoned", Boolean, false));
    Arc::new(Schema::new(columns.into_iter().chain(abandoned).collect::<Vec<_>>()))
}

/// What every row of a file has in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Common {
    pub chain_id: u64,
    /// Whether there is a column for it.
    pub with_abandoned: bool,
}

fn abandoned_column(mut builder: BooleanBuilder, common: Common) -> Option<ArrayRef> {
    common.with_abandoned.then(|| Arc::new(builder.finish()) as ArrayRef)
}

fn chain_ids(common: Common, rows: usize) -> ArrayRef {
    Arc::new(arrow_array::UInt64Array::from_value(common.chain_id, rows))
}

/// Rows of the blocks table on their way into a file.
pub(crate) struct BlockRows {
    common: Common,
    hash: BinaryBuilder,
    parent: BinaryBuilder,
    author: BinaryBuilder,
    number: UInt32Builder,
    gas_used: UInt64Builder,
    extra_data: BinaryBuilder,
    timestamp: UInt32Builder,
    base_fee: UInt64Builder,
    rlp: BinaryBuilder,
    logs_digest: BinaryBuilder,
    abandoned: BooleanBuilder,
    rows: usize,
}

impl BlockRows {
    pub fn new(common: Common) -> BlockRows {
        BlockRows {
            common,
            hash: BinaryBuilder::new(),
            parent: BinaryBuilder::new(),
            author: BinaryBuilder::new(),
            number: UInt32Builder::new(),
            gas_used: UInt64Builder::new(),
            extra_data: BinaryBuilder::new(),
            timestamp: UInt32Builder::new(),
            base_fee: UInt64Builder::new(),
            rlp: BinaryBuilder::new(),
            logs_digest: BinaryBuilder::new(),
            abandoned: BooleanBuilder::new(),
            rows: 0,
        }
    }

    pub fn schema(common: Common) -> SchemaRef {
        schema(Table::Blocks, common.with_abandoned)
    }

    pub fn push(&mut self, block: &BlockView<'_>, abandoned: bool) -> Result<(), TooLarge> {
        let number = narrow(block.this, "block_number", block.this.number)?;
        let timestamp = narrow(block.this, "timestamp", block.timestamp)?;
        let header = consensus::Header::decode(&mut &*block.rlp).ok();
        let header = header.as_ref();
        self.hash.append_value(block.this.hash);
        self.parent.append_value(block.parent);
        self.author.append_option(header.map(|header| header.beneficiary));
        self.number.append_value(number);
        self.gas_used.append_option(header.map(|header| header.gas_used));
        self.extra_data.append_option(header.map(|header| &header.extra_data));
        self.timestamp.append_value(timestamp);
        self.base_fee.append_option(header.and_then(|header| header.base_fee_per_gas));
        self.rlp.append_value(block.rlp);
        self.logs_digest.append_value(LogsDigest::of_views(block.logs()).0);
        self.abandoned.append_value(abandoned);
        self.rows += 1;
        Ok(())
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The rows so far, of which there are none left after it.
    pub fn take(&mut self) -> RecordBatch {
        let BlockRows { common, rows, .. } = *self;
        let mut full = std::mem::replace(self, BlockRows::new(common));
        let columns: [ArrayRef; 11] = [
            Arc::new(full.hash.finish()),
            Arc::new(full.parent.finish()),
            Arc::new(full.author.finish()),
            Arc::new(full.number.finish()),
            Arc::new(full.gas_used.finish()),
            Arc::new(full.extra_data.finish()),
            Arc::new(full.timestamp.finish()),
            Arc::new(full.base_fee.finish()),
            chain_ids(common, rows),
            Arc::new(full.rlp.finish()),
            Arc::new(full.logs_digest.finish()),
        ];
        let columns = columns.into_iter().chain(abandoned_column(full.abandoned, common));
        RecordBatch::try_new(BlockRows::schema(common), columns.collect())
            .expect("one array for each column, all of the same length")
    }
}

/// Rows of the logs table on their way into a file.
pub(crate) struct LogRows {
    common: Common,
    number: UInt32Builder,
    hash: BinaryBuilder,
    transaction_index: UInt32Builder,
    index: UInt32Builder,
    transaction_hash: BinaryBuilder,
    address: BinaryBuilder,
    topics: [BinaryBuilder; 4],
    data: BinaryBuilder,
    abandoned: BooleanBuilder,
    rows: usize,
    bytes: usize,
}

impl LogRows {
    pub fn new(common: Common) -> LogRows {
        LogRows {
            common,
            number: UInt32Builder::new(),
            hash: BinaryBuilder::new(),
            transaction_index: UInt32Builder::new(),
            index: UInt32Builder::new(),
            transaction_hash: BinaryBuilder::new(),
            address: BinaryBuilder::new(),
            topics: std::array::from_fn(|_| BinaryBuilder::new()),
            data: BinaryBuilder::new(),
            abandoned: BooleanBuilder::new(),
            rows: 0,
            bytes: 0,
        }
    }

    pub fn schema(common: Common) -> SchemaRef {
        schema(Table::Logs, common.with_abandoned)
    }

    pub fn push(
        &mut self,
        block: BlockRef,
        log: &LogView<'_>,
        abandoned: bool,
    ) -> Result<(), TooLarge> {
        self.number.append_value(narrow(block, "block_number", block.number)?);
        self.hash.append_value(block.hash);
        self.transaction_index.append_value(log.transaction_index);
        self.index.append_value(log.index);
        self.transaction_hash.append_value(log.transaction_hash);
        self.address.append_value(log.address);
        let mut topics = log.topics();
        for column in &mut self.topics {
            column.append_option(topics.next());
        }
        self.data.append_value(log.data);
        self.abandoned.append_value(abandoned);
        self.rows += 1;
        self.bytes += size_of::<shepherd_log::Log>() + 32 * log.topics().len() + log.data.len();
        Ok(())
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Roughly what the rows take in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows so far, of which there are none left after it.
    pub fn take(&mut self) -> RecordBatch {
        let LogRows { common, rows, .. } = *self;
        let mut full = std::mem::replace(self, LogRows::new(common));
        let [topic0, topic1, topic2, topic3] =
            full.topics.each_mut().map(|topic| Arc::new(topic.finish()) as ArrayRef);
        let columns: [ArrayRef; 12] = [
            Arc::new(full.number.finish()),
            Arc::new(full.hash.finish()),
            Arc::new(full.transaction_index.finish()),
            Arc::new(full.index.finish()),
            Arc::new(full.transaction_hash.finish()),
            Arc::new(full.address.finish()),
            topic0,
            topic1,
            topic2,
            topic3,
            Arc::new(full.data.finish()),
            chain_ids(common, rows),
        ];
        let columns = columns.into_iter().chain(abandoned_column(full.abandoned, common));
        RecordBatch::try_new(LogRows::schema(common), columns.collect())
            .expect("one array for each column, all of the same length")
    }
}

/// cryo's columns for heights and times have 32 bits.
fn narrow(block: BlockRef, what: &'static str, value: u64) -> Result<u32, TooLarge> {
    u32::try_from(value).map_err(|_| TooLarge { block, what, value })
}
