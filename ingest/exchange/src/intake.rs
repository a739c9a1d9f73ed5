//! Blocks from elsewhere than an endpoint on their way into a journal.
//!
//! Each is held to what an endpoint's are held to, by the same functions. What was taken before
//! something is wrong is journaled, what is wrong never, so that the next import goes on there.

use std::{fmt, path::PathBuf};

use alloy_primitives::B256;
use shepherd_ingest::{Checks, Link, Mismatch, link, verify_block, verify_time};
use shepherd_log::{
    AppendError, Block, BlockRef, Header, Journal, Log, Offset, ReadError, Record, RecordView,
    Revert,
};

/// Bytes, and records, of one append. A batch of the store holds 8 MiB, and our count of bytes is
/// an estimate.
const APPEND_BYTES_MAX: usize = 4 << 20;
const APPEND_RECORDS_MAX: usize = 256;

/// Where a block comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The file with its logs.
    File(PathBuf),
    /// A record of another journal.
    Record(Offset),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path) => path.display().fmt(f),
            Origin::Record(offset) => write!(f, "record {offset} of the other journal"),
        }
    }
}

/// Why a block was not taken.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// It does not hold up.
    #[error("block {block} in {origin} does not hold up: {source}")]
    Block {
        /// The block.
        block: BlockRef,
        /// Where it comes from.
        origin: Origin,
        /// What is wrong.
        source: Box<Mismatch>,
    },
    /// It does not follow the journal's head.
    #[error(transparent)]
    Link(#[from] Box<NotLinked>),
    /// It cannot be appended.
    #[error("cannot append to the journal")]
    Append(#[from] AppendError),
    /// The journal cannot be read.
    #[error("cannot read the journal")]
    Read(#[from] ReadError),
}

/// A block that does not follow the journal's head.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "block {block} in {origin} has parent {parent}, and the journal's head is {head}: they are of \
     two branches or two chains"
)]
pub struct NotLinked {
    /// The block.
    pub block: BlockRef,
    /// Its parent.
    pub parent: B256,
    /// Where it comes from.
    pub origin: Origin,
    /// The journal's head.
    pub head: BlockRef,
}

#[derive(Clone, Copy)]
struct Head {
    this: BlockRef,
    timestamp: u64,
}

/// Takes blocks into a journal. What is not flushed is not journaled.
pub(crate) struct Intake {
    journal: Journal,
    checks: Checks,
    tail: Offset,
    head: Option<Head>,
    records: Vec<Record>,
    bytes: usize,
}

impl Intake {
    /// Goes on after the head of a journal.
    pub fn open(journal: &Journal, checks: Checks) -> Result<Intake, IntakeError> {
        let tail = journal.tail();
        let head = match tail.head {
            Some(head) => find_head(journal, head)?,
            None => None,
        };
        let journal = journal.clone();
        Ok(Intake { journal, checks, tail: tail.offset, head, records: Vec::new(), bytes: 0 })
    }

    /// The head after what was taken.
    pub fn head(&self) -> Option<BlockRef> {
        self.head.map(|head| head.this)
    }

    /// Holds a block to everything that the block after the head must be.
    pub fn verify(&self, block: &Block, origin: &Origin) -> Result<(), IntakeError> {
        let Header { this, parent, .. } = block.header;
        let wrong = |source| {
            let source = Box::new(source);
            IntakeError::Block { block: this, origin: origin.clone(), source }
        };
        if let Some(head) = self.head {
            if link(head.this, &block.header) != Link::Extends {
                let (head, origin) = (head.this, origin.clone());
                return Err(Box::new(NotLinked { block: this, parent, origin, head }).into());
            }
            verify_time(&block.header, head.timestamp).map_err(wrong)?;
        }
        verify_block(block, self.checks).map_err(wrong)
    }

    /// Takes the block after the head, which must have been verified.
    pub fn take(&mut self, block: Block) -> Result<(), IntakeError> {
        let Header { this, timestamp, .. } = block.header;
        let bytes = size(&block);
        self.push(Record::Block(block), bytes)?;
        self.head = Some(Head { this, timestamp });
        Ok(())
    }

    /// Takes a reorg. That it names exactly the blocks after its ancestor the journal checks.
    pub fn revert(&mut self, revert: Revert) -> Result<(), IntakeError> {
        let ancestor = revert.ancestor;
        let taken = self.records.iter().rev().find_map(|record| match record {
            Record::Block(block) if block.header.this == ancestor => Some(block.header.timestamp),
            _ => None,
        });
        let head = match taken {
            Some(timestamp) => Some(Head { this: ancestor, timestamp }),
            // One that the journal does not have either it refuses by itself.
            None => find_head(&self.journal, ancestor)?,
        };
        let bytes = revert.abandoned.len() * size_of::<BlockRef>();
        self.push(Record::Revert(revert), bytes)?;
        self.head = head;
        Ok(())
    }

    fn push(&mut self, record: Record, bytes: usize) -> Result<(), IntakeError> {
        let full =
            APPEND_BYTES_MAX < self.bytes + bytes || APPEND_RECORDS_MAX <= self.records.len();
        if full {
            self.flush()?;
        }
        self.records.push(record);
        self.bytes += bytes;
        Ok(())
    }

    /// Journals what was taken. When this returns, it survives a power cut.
    pub fn flush(&mut self) -> Result<(), IntakeError> {
        let records = std::mem::take(&mut self.records);
        self.bytes = 0;
        self.tail = self.journal.append(self.tail, &records)?.offset;
        Ok(())
    }
}

/// A block of the journal with its time.
fn find_head(journal: &Journal, this: BlockRef) -> Result<Option<Head>, ReadError> {
    let Some(offset) = journal.offset_of(this)? else { return Ok(None) };
    let stored = journal.read(offset..offset.plus(1)).next();
    let stored = stored.ok_or(ReadError::Missing { offset })??;
    match stored.record() {
        RecordView::Block(block) => Ok(Some(Head { this, timestamp: block.timestamp })),
        _ => unreachable!("the block index names blocks"),
    }
}

/// Roughly what a block takes in the journal.
fn size(block: &Block) -> usize {
    let logs =
        block.logs.iter().map(|log| size_of::<Log>() + 32 * log.topics.len() + log.data.len());
    size_of::<Header>() + block.header.rlp.len() + logs.sum::<usize>()
}
