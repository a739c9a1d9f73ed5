//! The journal: every change of the chain, in the order we learned of it.
//!
//! ```text
//! offset   0     1     2     3     4
//!        [blk] [blk] [rev] [blk]
//!                                  ^ tail: the first offset not yet written
//! ```
//!
//! Records are appended and read, never edited. A reorg is not an edit: it appends one
//! [`Revert`] that names the common ancestor, and then the blocks that replace the abandoned ones.
//!
//! The journal is cut into segments, each a tree of its own, because the engine cannot remove a
//! range and its ageing compaction knows nothing of cursors (hazard F8): retention drops whole
//! segments.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, RwLock},
};

use alloy_primitives::B256;
use fjall::{Database, Iter, Keyspace, Readable, Slice, Snapshot};
use tokio::sync::watch;

use crate::{
    checks::LoadedChain,
    codec::{
        self, DecodeError, DecodedRecord, RECORD_BYTES_MAX, RecordView, RevertRow, seal_row, unseal,
    },
    highwater::Mark,
    index::Index,
    retention::Holds,
    store::{Core, Keyspaces, StorageError},
    trees::{Segments, Trees},
    types::{Block, BlockRef, ChainName, Digest, Offset, Record, Revert},
    writer::{Batch, SizeError},
};

/// Records per segment, the grain of retention.
///
/// About two days of a chain with twelve-second blocks, one hour of a chain with four blocks a
/// second. A segment costs a few files and, while it is written, one memtable.
///
/// Unit tests want several of them.
pub(crate) const SEGMENT_RECORDS: u64 = if cfg!(test) { 512 } else { 16_384 };

/// Chunks of the log index that may wait for later appends to write their rows.
///
/// One, so that a burst of empty blocks, which fills a chunk with each append, does not pile up
/// chunks in memory.
const WHOLE_CHUNKS_MAX: usize = 1;

/// The end of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The first offset not yet written.
    pub offset: Offset,
    /// The newest block that is not abandoned, `None` while the journal is empty.
    pub head: Option<BlockRef>,
    /// The greatest height the journal has held, abandoned blocks included.
    ///
    /// Reorgs are measured from here and not from the head: two reorgs in a row, each within the
    /// limit, could otherwise take back blocks that lanes no longer keep undo for.
    pub highest: Option<u64>,
}

impl Tail {
    /// The lowest height a revert may go back to when reorgs are at most `depth_max` deep.
    pub fn reorg_floor(&self, depth_max: u64) -> u64 {
        self.highest.map_or(0, |highest| highest.saturating_sub(depth_max))
    }
}

/// Why records were not appended. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Someone appended in between.
    #[error("the journal ends at {tail}, not at {expected}")]
    NotTheTail {
        /// Where the caller thought it ends.
        expected: Offset,
        /// Where it ends.
        tail: Offset,
    },
    /// The record does not follow the one before it.
    #[error("record {offset} does not link: {problem}")]
    NotLinked {
        /// The offset it would have had.
        offset: Offset,
        /// What is wrong.
        problem: Box<LinkProblem>,
    },
    /// The records are too large for one append.
    #[error("the records are too large for one append")]
    Size(#[from] SizeError),
    /// One record is too large by itself.
    #[error("record {offset} has {bytes} bytes, at most {RECORD_BYTES_MAX} can be stored")]
    RecordSize {
        /// The offset it would have had.
        offset: Offset,
        /// Its encoded length.
        bytes: usize,
    },
    /// The engine failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// How a record contradicts the records before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkProblem {
    /// A block that does not extend the head.
    #[error("block {block} with parent {parent} does not extend {head}")]
    Block {
        /// The block.
        block: BlockRef,
        /// Its parent hash.
        parent: B256,
        /// The head it should extend.
        head: BlockRef,
    },
    /// Logs that are not in strictly increasing order.
    #[error("the logs of block {block} are not in order")]
    LogOrder {
        /// The block.
        block: BlockRef,
    },
    /// A revert before any block.
    #[error("a revert or an outcome before the first block")]
    NoBlock,
    /// A revert deeper than lanes keep undo for.
    #[error("a revert to {ancestor}: no revert may go below block {floor}")]
    TooDeep {
        /// The ancestor it names.
        ancestor: BlockRef,
        /// The lowest allowed one.
        floor: u64,
    },
    /// An outcome that names another head than the journal's.
    #[error("an outcome at {named}, but the head is {head}")]
    Outcome {
        /// The head it names.
        named: BlockRef,
        /// The head.
        head: BlockRef,
    },
    /// A revert to a block that is not ours, or that abandons other blocks than those after it.
    #[error("a revert to {ancestor} that does not name exactly the blocks after it")]
    Revert {
        /// The ancestor it names.
        ancestor: BlockRef,
    },
}

/// Why a genesis hash was not remembered.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// The journal is of another chain.
    #[error("{chain} was journaled from genesis {stored}, it cannot continue from {given}")]
    Other {
        /// The chain.
        chain: ChainName,
        /// Hash of its block 0, as remembered.
        stored: B256,
        /// Hash of the other chain's block 0.
        given: B256,
    },
    /// The engine failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Retention has removed the record.
    #[error("records before {trimmed_to} have been trimmed, {wanted} is one of them")]
    Trimmed {
        /// The first record asked for.
        wanted: Offset,
        /// The first record that is still there.
        trimmed_to: Offset,
    },
    /// There is no such record although later ones exist.
    #[error("record {offset} is missing")]
    Missing {
        /// Its offset.
        offset: Offset,
    },
    /// The record is damaged.
    #[error("record {offset} is corrupt")]
    Corrupt {
        /// Its offset.
        offset: Offset,
        /// How.
        source: DecodeError,
    },
    /// The record does not carry the digest of the one before it.
    #[error("record {offset} does not follow the record before it")]
    BrokenChain {
        /// Its offset.
        offset: Offset,
    },
    /// The engine failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<fjall::Error> for ReadError {
    fn from(error: fjall::Error) -> ReadError {
        ReadError::Storage(error.into())
    }
}

/// One chain's journal. A clone is another handle to the same journal.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    chain: ChainName,
    number: u16,
    chain_id: u64,
    segments: Trees,
    index: Index,
    start: RwLock<Start>,
    holds: Arc<Mutex<Holds>>,
    reverts: RwLock<Reverts>,
    /// Digest of the last record; held while appending.
    appender: Mutex<Digest>,
    tail: watch::Sender<Tail>,
}

/// Where a journal starts.
#[derive(Clone, Copy)]
pub(crate) struct Start {
    /// The first record that is still there.
    pub offset: Offset,
    /// Digest of the record before it.
    pub previous: Digest,
}

impl Start {
    /// The start of a journal of which nothing was removed.
    pub const WHOLE: Start = Start { offset: Offset::START, previous: Digest::ZERO };
}

/// What reverts took back.
#[derive(Default)]
pub(crate) struct Reverts {
    /// Offset of each abandoned block that is still there, and of the revert that abandoned it.
    pub abandoned: BTreeMap<Offset, Offset>,
    /// Offset of each revert, removed ones included, and the height of its ancestor.
    pub ancestors: BTreeMap<Offset, u64>,
}

impl Journal {
    pub(crate) fn new(core: Arc<Core>, chain: LoadedChain) -> Journal {
        let tail = Tail { offset: chain.tail, head: chain.head, highest: chain.highest };
        Journal {
            inner: Arc::new(Inner {
                core,
                chain: chain.name,
                number: chain.number,
                chain_id: chain.chain_id,
                segments: chain.segments,
                index: Index::new(chain.index),
                start: RwLock::new(chain.start),
                holds: Arc::default(),
                reverts: RwLock::new(chain.reverts),
                appender: Mutex::new(chain.tail_digest),
                tail: watch::Sender::new(tail),
            }),
        }
    }

    pub(crate) fn number(&self) -> u16 {
        self.inner.number
    }

    pub(crate) fn index(&self) -> &Index {
        &self.inner.index
    }

    /// Whether the journal is in the same store.
    pub(crate) fn is_of(&self, core: &Arc<Core>) -> bool {
        Arc::ptr_eq(self.core(), core)
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.inner.core
    }

    /// The chain.
    pub fn chain(&self) -> &ChainName {
        &self.inner.chain
    }

    /// The chain's `eth_chainId`.
    pub fn chain_id(&self) -> u64 {
        self.inner.chain_id
    }

    /// Hash of the chain's block 0, once it was remembered.
    pub fn genesis(&self) -> Result<Option<B256>, StorageError> {
        let key = codec::genesis_key(self.number());
        let sealed = self.core().snapshot().get(&self.core().keyspaces.meta, key)?;
        let genesis = sealed.map(|sealed| codec::unseal_row::<[u8; 32]>(&key, &sealed));
        genesis
            .transpose()
            .map(|genesis| genesis.map(B256::from))
            .map_err(StorageError::damaged(format!("the genesis of {}", self.chain())))
    }

    /// Remembers the hash of the chain's block 0, for ever.
    ///
    /// When this returns, the hash survives a power cut, and no other can take its place.
    pub fn remember_genesis(&self, genesis: B256) -> Result<(), GenesisError> {
        // Held, so that two cannot both find nothing remembered.
        let _appender = self.inner.appender.lock().expect("nothing panics while appending");
        match self.genesis()? {
            Some(stored) if stored == genesis => Ok(()),
            Some(stored) => {
                let chain = self.chain().clone();
                Err(GenesisError::Other { chain, stored, given: genesis })
            }
            None => {
                let key = codec::genesis_key(self.number());
                let mut batch = Batch::default();
                batch
                    .put(&self.core().keyspaces.meta, key, seal_row(&key, genesis.0))
                    .expect("a hash is short");
                self.core().writer.commit(batch, None);
                Ok(())
            }
        }
    }

    /// Where the journal ends. Everything before it is durable.
    pub fn tail(&self) -> Tail {
        *self.inner.tail.borrow()
    }

    /// The first record that is still there: 0 until retention removes some.
    pub fn start(&self) -> Offset {
        self.starts().offset
    }

    pub(crate) fn starts(&self) -> Start {
        *self.inner.start.read().expect("nothing panics while moving the start")
    }

    /// Takes note that records before a new start are gone, or about to be.
    pub(crate) fn set_start(&self, start: Start) {
        *self.inner.start.write().expect("nothing panics while moving the start") = start;
        let mut reverts = self.inner.reverts.write().expect("nothing panics while extending");
        reverts.abandoned = reverts.abandoned.split_off(&start.offset);
    }

    pub(crate) fn holds(&self) -> &Arc<Mutex<Holds>> {
        &self.inner.holds
    }

    /// Wakes its holder after each append.
    pub fn watch(&self) -> watch::Receiver<Tail> {
        self.inner.tail.subscribe()
    }

    /// Appends records at `expected`, which must be the tail.
    ///
    /// When this returns, the records survive a power cut. A block must extend the head by number
    /// and parent hash, the first block of a journal may be any; a revert must name exactly the
    /// blocks it abandons. Otherwise nothing is appended.
    pub fn append(&self, expected: Offset, records: &[Record]) -> Result<Tail, AppendError> {
        let inner = &*self.inner;
        let mut digest = inner.appender.lock().expect("nothing panics while appending");
        let tail = self.tail();
        if tail.offset != expected {
            return Err(AppendError::NotTheTail { expected, tail: tail.offset });
        }
        if records.is_empty() {
            return Ok(tail);
        }
        self.append_at(tail, &mut digest, records, Batch::default())
    }

    /// Appends outcomes at the tail, wherever that is, together with other changes.
    ///
    /// `outcomes` is given the head they are journaled at and the offset of the first.
    pub(crate) fn append_outcomes(
        &self,
        outcomes: impl FnOnce(BlockRef, Offset) -> Result<(Vec<Record>, Batch), SizeError>,
    ) -> Result<Tail, AppendError> {
        let mut digest = self.inner.appender.lock().expect("nothing panics while appending");
        let tail = self.tail();
        let head = tail.head.expect("an effect was asked for at a block of this journal");
        let (records, batch) = outcomes(head, tail.offset)?;
        self.append_at(tail, &mut digest, &records, batch)
    }

    fn append_at(
        &self,
        tail: Tail,
        digest: &mut Digest,
        records: &[Record],
        mut batch: Batch,
    ) -> Result<Tail, AppendError> {
        let inner = &*self.inner;
        let expected = tail.offset;
        let mut linker = Linker { journal: self, tail, appended: BTreeMap::new() };
        let mut reverts = Reverts::default();
        // A block that comes back within one append is found where it came back.
        let mut blocks = BTreeMap::new();
        let mut next_digest = *digest;
        let mut offset = expected;
        for record in records {
            let taken_back = linker.link(record, offset)?;
            if !taken_back.is_empty() {
                let key = codec::revert_key(inner.number, offset);
                let offsets = taken_back.iter().map(|offset| offset.get()).collect();
                let row = seal_row(&key, RevertRow { abandoned: offsets });
                batch.put(&inner.core.keyspaces.meta, key, row)?;
                reverts.abandoned.extend(taken_back.into_iter().map(|block| (block, offset)));
            }
            if let Record::Revert(revert) = record {
                reverts.ancestors.insert(offset, revert.ancestor.number);
            }
            next_digest = self.put(&mut batch, record, offset, next_digest)?;
            if let Record::Block(block) = record {
                blocks.insert(block.header.this, offset);
            }
            offset = offset.plus(1);
        }
        for (block, offset) in blocks {
            let key = codec::block_key(inner.number, block);
            batch.put(&inner.core.keyspaces.blocks, key, codec::encode_offset(&key, offset))?;
        }
        let tail = Tail { offset, ..linker.tail };
        let mark = Mark::Chain(inner.number, offset, next_digest);
        let mut index = inner.index.work();
        let planned = self.plan_rows_of_append(&index, &mut batch, records.len())?;
        // Before the batch, behind which a snapshot would wait.
        let unseen = index.is_behind(expected).then(|| inner.core.snapshot());
        let submitted = inner.core.writer.submit(batch, Some(mark));
        if let Some(snapshot) = unseen {
            self.catch_up_index(&mut index, snapshot, expected);
        }
        index.see_appended(expected, records);
        submitted.wait();
        index.written(planned);
        // What it could not write only makes reads slower; the records are durable.
        let indexed = self.write_whole_chunks(&mut index, WHOLE_CHUNKS_MAX);
        drop(index);
        *digest = next_digest;
        let mut all = inner.reverts.write().expect("nothing panics while extending");
        all.abandoned.append(&mut reverts.abandoned);
        all.ancestors.append(&mut reverts.ancestors);
        drop(all);
        inner.tail.send_replace(tail);
        indexed?;
        Ok(tail)
    }

    fn put(
        &self,
        batch: &mut Batch,
        record: &Record,
        offset: Offset,
        previous: Digest,
    ) -> Result<Digest, AppendError> {
        let encoded = codec::encode_record(record, offset, previous);
        if encoded.len() > RECORD_BYTES_MAX {
            return Err(AppendError::RecordSize { offset, bytes: encoded.len() });
        }
        let segment = self.segment(offset)?;
        for (part, piece) in codec::record_parts(&encoded) {
            let key = codec::record_key(offset, part);
            batch.put(&segment, key, codec::seal(&key, piece))?;
        }
        Ok(codec::record_digest(&encoded))
    }

    /// The segment an offset belongs to, created when this is its first record.
    fn segment(&self, offset: Offset) -> Result<Keyspace, StorageError> {
        let number = offset.get() / SEGMENT_RECORDS;
        Ok(self.inner.segments.get_or_create(number, &self.inner.core.database)?)
    }

    pub(crate) fn segments(&self) -> Segments {
        self.inner.segments.all()
    }

    pub(crate) fn trees(&self) -> &Trees {
        &self.inner.segments
    }

    /// The records of a range, as far as the journal goes.
    pub fn read(&self, range: Range<Offset>) -> Records {
        self.read_at(self.inner.core.snapshot(), range)
    }

    pub(crate) fn read_at(&self, snapshot: Snapshot, range: Range<Offset>) -> Records {
        let end = range.end.min(self.tail().offset);
        Records::new(self.segments(), snapshot, self.start(), range.start..end)
    }

    /// The block at a height that is not abandoned, and its offset.
    pub fn canonical(&self, number: u64) -> Result<Option<(Offset, BlockRef)>, StorageError> {
        let blocks = &self.inner.core.keyspaces.blocks;
        let snapshot = self.inner.core.snapshot();
        let mut newest = None;
        for entry in snapshot.prefix(blocks, codec::blocks_prefix(self.inner.number, number)) {
            let (key, value) = entry.into_inner()?;
            let damaged = || StorageError::damaged(format!("the index of block {number}"));
            let offset = codec::decode_offset(&key, &value).map_err(damaged())?;
            let hash = codec::parse_block_key(&key).map_err(damaged())?;
            let is_newer = newest.is_none_or(|(newest, _)| offset > newest);
            if is_newer && offset >= self.start() && self.abandoned_by(offset).is_none() {
                newest = Some((offset, BlockRef { number, hash }));
            }
        }
        Ok(newest)
    }

    /// Where the journal last held this block, abandoned or not, as far as it is still there.
    pub fn offset_of(&self, block: BlockRef) -> Result<Option<Offset>, StorageError> {
        self.offset_of_at(block, &self.inner.core.snapshot())
    }

    pub(crate) fn offset_of_at(
        &self,
        block: BlockRef,
        snapshot: &Snapshot,
    ) -> Result<Option<Offset>, StorageError> {
        let key = codec::block_key(self.inner.number, block);
        let value = snapshot.get(&self.inner.core.keyspaces.blocks, key)?;
        let offset = value
            .map(|value| codec::decode_offset(&key, &value))
            .transpose()
            .map_err(StorageError::damaged(format!("the index of block {block}")))?;
        Ok(offset.filter(|offset| *offset >= self.start()))
    }

    /// The offset of the revert that abandoned the block at `offset`, if one did.
    pub fn abandoned_by(&self, offset: Offset) -> Option<Offset> {
        let reverts = self.inner.reverts.read().expect("nothing panics while extending");
        reverts.abandoned.get(&offset).copied()
    }

    /// The first revert after `offset` that goes below a height: what a lane did at that height
    /// while it passed `offset` is taken back there.
    pub fn undone_by(&self, offset: Offset, height: u64) -> Option<Offset> {
        let reverts = self.inner.reverts.read().expect("nothing panics while extending");
        let mut later = reverts.ancestors.range(offset.plus(1)..);
        later.find(|(_, ancestor)| **ancestor < height).map(|(revert, _)| *revert)
    }

    /// Offset of the first of the `count` blocks that the revert at `revert` abandons.
    pub(crate) fn first_abandoned_by(&self, revert: Offset, count: usize) -> Offset {
        // Not from the block index: a block that came back later is indexed there.
        let reverts = self.inner.reverts.read().expect("nothing panics while extending");
        let before = reverts.abandoned.range(..revert).rev();
        let blocks = before.filter(|(_, by)| **by == revert).take(count);
        blocks.last().map(|(block, _)| *block).expect("a revert abandons at least one block")
    }

    /// Each revert, and the blocks it abandoned: the first one's offset and the last one's.
    pub(crate) fn abandoned_by_revert(&self) -> BTreeMap<Offset, Range<Offset>> {
        let reverts = self.inner.reverts.read().expect("nothing panics while extending");
        let mut listed: BTreeMap<Offset, Range<Offset>> = BTreeMap::new();
        for (block, revert) in &reverts.abandoned {
            listed.entry(*revert).or_insert(*block..*block).end = *block;
        }
        listed
    }

    /// The reverts in a range, and the heights they go back to.
    pub(crate) fn reverts_in(&self, range: Range<Offset>) -> Vec<(Offset, u64)> {
        let reverts = self.inner.reverts.read().expect("nothing panics while extending");
        reverts.ancestors.range(range).map(|(revert, ancestor)| (*revert, *ancestor)).collect()
    }

    /// How many reverts are in a range.
    pub(crate) fn count_reverts(&self, range: Range<Offset>) -> u64 {
        let reverts = self.inner.reverts.read().expect("nothing panics while extending");
        reverts.ancestors.range(range).count() as u64
    }

    /// The lowest height that the reverts in a range of offsets go back to.
    pub(crate) fn lowest_ancestor(&self, range: Range<Offset>) -> Option<u64> {
        let reverts = self.inner.reverts.read().expect("nothing panics while extending");
        reverts.ancestors.range(range).map(|(_, ancestor)| *ancestor).min()
    }
}

/// Follows the chain through the records of one append.
struct Linker<'j> {
    journal: &'j Journal,
    tail: Tail,
    /// Canonical blocks of this append, which the block index does not hold yet.
    appended: BTreeMap<u64, (Offset, BlockRef)>,
}

impl Linker<'_> {
    /// Moves the head over a record, and says which blocks the record abandons.
    fn link(&mut self, record: &Record, offset: Offset) -> Result<Vec<Offset>, AppendError> {
        let not_linked = |problem| AppendError::NotLinked { offset, problem: Box::new(problem) };
        match record {
            Record::Block(block) => {
                check_block(block, self.tail.head).map_err(not_linked)?;
                let this = block.header.this;
                self.tail.head = Some(this);
                self.tail.highest = self.tail.highest.max(Some(this.number));
                self.appended.insert(this.number, (offset, this));
                Ok(Vec::new())
            }
            Record::Revert(revert) => {
                let head = self.tail.head.ok_or(not_linked(LinkProblem::NoBlock))?;
                let floor = self.tail.reorg_floor(self.journal.inner.core.options.reorg_depth_max);
                let ancestor = revert.ancestor;
                if ancestor.number < floor {
                    return Err(not_linked(LinkProblem::TooDeep { ancestor, floor }));
                }
                let abandoned = self
                    .abandoned(revert, head)?
                    .ok_or_else(|| not_linked(LinkProblem::Revert { ancestor }))?;
                self.appended.split_off(&(ancestor.number + 1));
                self.tail.head = Some(ancestor);
                Ok(abandoned)
            }
            Record::Outcome(outcome) => {
                let head = self.tail.head.ok_or(not_linked(LinkProblem::NoBlock))?;
                if outcome.head != head {
                    let named = outcome.head;
                    return Err(not_linked(LinkProblem::Outcome { named, head }));
                }
                Ok(Vec::new())
            }
        }
    }

    /// Offsets of the blocks after the ancestor, or `None` when the revert names other blocks.
    fn abandoned(
        &self,
        revert: &Revert,
        head: BlockRef,
    ) -> Result<Option<Vec<Offset>>, StorageError> {
        let ancestor = self.canonical(revert.ancestor.number)?;
        let heights = revert.ancestor.number + 1..head.number + 1;
        let names_all = heights.clone().count() == revert.abandoned.len() && !heights.is_empty();
        if ancestor.map(|(_, block)| block) != Some(revert.ancestor) || !names_all {
            return Ok(None);
        }
        let mut offsets = Vec::with_capacity(revert.abandoned.len());
        for (number, named) in heights.zip(&revert.abandoned) {
            match self.canonical(number)? {
                Some((offset, ours)) if ours == *named => offsets.push(offset),
                _ => return Ok(None),
            }
        }
        Ok(Some(offsets))
    }

    fn canonical(&self, number: u64) -> Result<Option<(Offset, BlockRef)>, StorageError> {
        match self.appended.get(&number) {
            Some(found) => Ok(Some(*found)),
            None => self.journal.canonical(number),
        }
    }
}

fn check_block(block: &Block, head: Option<BlockRef>) -> Result<(), LinkProblem> {
    let header = &block.header;
    if let Some(head) = head
        && (header.parent != head.hash || header.this.number != head.number + 1)
    {
        return Err(LinkProblem::Block { block: header.this, parent: header.parent, head });
    }
    if !block.logs.is_sorted_by(|a, b| a.index < b.index) {
        return Err(LinkProblem::LogOrder { block: header.this });
    }
    Ok(())
}

pub(crate) fn segment_prefix(chain: u16) -> String {
    format!("journal-{chain:05}-")
}

/// The greatest height in a chain's block index.
pub(crate) fn find_highest(
    chain: u16,
    keyspaces: &Keyspaces,
    snapshot: &Snapshot,
) -> Result<Option<u64>, StorageError> {
    let Some(last) = snapshot.prefix(&keyspaces.blocks, chain.to_be_bytes()).next_back() else {
        return Ok(None);
    };
    let number = codec::parse_block_number(&last.key()?)
        .map_err(StorageError::damaged("the last key of the block index"))?;
    Ok(Some(number))
}

/// Opens the segments of a chain, and removes those before `start` that a crash left behind.
pub(crate) fn open_segments(
    database: &Database,
    chain: u16,
    start: Offset,
) -> Result<Trees, StorageError> {
    let segments = Trees::open(database, segment_prefix(chain))?;
    for number in segments.all().range(..start.get() / SEGMENT_RECORDS).map(|(number, _)| *number) {
        segments.delete_unopened(number, database)?;
    }
    Ok(segments)
}

/// The offset after the last record. The newest segment is empty when the process ended between
/// its creation and its first record.
pub(crate) fn find_tail(segments: &Segments, snapshot: &Snapshot) -> Result<Offset, StorageError> {
    for segment in segments.values().rev() {
        if let Some(last) = snapshot.last_key_value(segment) {
            let (offset, _) = codec::parse_record_key(&last.key()?)
                .map_err(StorageError::damaged("the last key of a journal segment"))?;
            return Ok(offset.plus(1));
        }
    }
    Ok(Offset::START)
}

/// Records in offset order. After an error the next call goes on with the next record that is
/// there.
pub struct Records {
    segments: Segments,
    snapshot: Snapshot,
    start: Offset,
    next: Offset,
    end: Offset,
    open: Option<(u64, Iter)>,
}

impl Records {
    pub(crate) fn new(
        segments: Segments,
        snapshot: Snapshot,
        start: Offset,
        range: Range<Offset>,
    ) -> Records {
        Records { segments, snapshot, start, next: range.start, end: range.end, open: None }
    }

    /// The record at an offset, `None` past the end. Offsets that follow each other are cheapest.
    pub(crate) fn at(&mut self, offset: Offset) -> Result<Option<StoredRecord>, ReadError> {
        if offset != self.next {
            self.next = offset;
            self.open = None;
        }
        self.next().transpose()
    }

    fn read_next(&mut self) -> Result<StoredRecord, ReadError> {
        let offset = self.next;
        let first = self.part(offset, 0)?;
        let corrupt = |source| ReadError::Corrupt { offset, source };
        let piece = first.content();
        let length = codec::record_length(piece).map_err(corrupt)?;
        let bytes = if piece.len() >= length {
            first
        } else {
            let mut joined = piece.to_vec();
            let mut number = 1;
            while joined.len() < length {
                joined.extend_from_slice(self.part(offset, number)?.content());
                number += 1;
            }
            RecordBytes::Joined(joined)
        };
        let record = StoredRecord { offset, bytes };
        record.decode().map_err(corrupt)?;
        Ok(record)
    }

    fn part(&mut self, offset: Offset, number: u16) -> Result<RecordBytes, ReadError> {
        let missing = ReadError::Missing { offset };
        let segment = offset.get() / SEGMENT_RECORDS;
        if self.open.as_ref().is_none_or(|(open, _)| *open != segment) {
            let Some(keyspace) = self.segments.get(&segment) else { return Err(missing) };
            let range = self.snapshot.range(keyspace, codec::record_key(offset, number)..);
            self.open = Some((segment, range));
        }
        let (_, range) = self.open.as_mut().expect("opened above");
        let Some(entry) = range.next() else { return Err(missing) };
        let (key, sealed) = entry.into_inner()?;
        let corrupt = |source| ReadError::Corrupt { offset, source };
        if codec::parse_record_key(&key).map_err(corrupt)? != (offset, number) {
            return Err(missing);
        }
        unseal(&key, &sealed).map_err(corrupt)?;
        Ok(RecordBytes::Sealed(sealed))
    }
}

impl Iterator for Records {
    type Item = Result<StoredRecord, ReadError>;

    fn next(&mut self) -> Option<Result<StoredRecord, ReadError>> {
        if self.next >= self.end {
            return None;
        }
        if self.next < self.start {
            let trimmed = ReadError::Trimmed { wanted: self.next, trimmed_to: self.start };
            self.next = self.start;
            return Some(Err(trimmed));
        }
        let record = self.read_next();
        self.next = self.next.plus(1);
        if record.is_err() {
            // The iterator may stand on another record's key: find the place again.
            self.open = None;
        }
        Some(record)
    }
}

/// A record as stored: its checksum holds, and it is read in place.
#[derive(Clone)]
pub struct StoredRecord {
    offset: Offset,
    bytes: RecordBytes,
}

#[derive(Clone)]
enum RecordBytes {
    /// One value of the engine, still sealed.
    Sealed(Slice),
    /// The unsealed parts of a record that needed several.
    Joined(Vec<u8>),
}

impl RecordBytes {
    fn content(&self) -> &[u8] {
        match self {
            RecordBytes::Sealed(sealed) => codec::sealed_content(sealed),
            RecordBytes::Joined(joined) => joined,
        }
    }
}

impl StoredRecord {
    /// Where the record stands in its journal.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// The record, read in place.
    pub fn record(&self) -> RecordView<'_> {
        self.decode().expect("decoded once when it was read").record
    }

    /// Digest of the record before this one.
    pub fn previous(&self) -> Digest {
        self.decode().expect("decoded once when it was read").previous
    }

    /// Digest of this record, which the next one carries.
    pub fn digest(&self) -> Digest {
        codec::record_digest(self.bytes.content())
    }

    /// How many bytes the record has before compression.
    pub fn encoded_bytes(&self) -> usize {
        self.bytes.content().len()
    }

    /// The head of the chain after this record.
    pub fn head(&self) -> BlockRef {
        match self.record() {
            RecordView::Block(block) => block.this,
            RecordView::Revert(revert) => revert.ancestor,
            RecordView::Outcome(outcome) => outcome.head,
        }
    }

    fn decode(&self) -> Result<DecodedRecord<'_>, DecodeError> {
        codec::decode_record(self.bytes.content(), self.offset)
    }
}
