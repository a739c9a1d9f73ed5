//! The log index: which records hold a log of an address, or one with a first topic.
//!
//! ```text
//! segment ├──────────────── 16 384 records ────────────────┤
//! chunk   ├ 256 ┤├ 256 ┤├ 256 ┤├ 256 ┤├ in memory, up to the tail
//!            │      └ one row for each address and each topic0: the records that have it
//!            └ one more row, written last: the records that are blocks
//! ```
//!
//! The index only ever says where to look: the record decides. It is derived from the journal, so
//! nothing waits for it and nothing is lost with it: a chunk without its last row is read record by
//! record. Its rows travel in the batches of later appends, a few at a time, and its work is done
//! while an append waits for the disk.
//!
//! A tree per segment, so that retention can drop the two together (hazard F8).

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    sync::{Mutex, MutexGuard},
};

use alloy_primitives::{Address, B256};
use fjall::{Database, Keyspace, Readable, Snapshot};
use roaring::RoaringBitmap;

use crate::{
    codec::{self, BlockView, IndexKind, RecordView},
    journal::{Journal, ReadError, SEGMENT_RECORDS, StoredRecord},
    store::{Keyspaces, StorageError},
    trees::Trees,
    types::{Block, Offset, Record},
    verify::Problem,
    writer::{BATCH_BYTES_MAX, Batch},
};

/// Records per chunk, the grain at which the index is written.
///
/// Larger chunks have fewer rows, since what occurs in every block has one row per chunk. But a
/// chunk's rows wait in memory until it is whole, and are collected anew after a start: 256 blocks
/// of mainnet are some 15 MB to read then, and some five thousand rows of about 60 bytes to write,
/// against 15 MB of records.
pub(crate) const CHUNK_RECORDS: u64 = 256;

/// Rows that one append may write along, however few its records.
///
/// About a hundred kilobytes, which no append notices: at the head of mainnet, a chunk is written
/// with the next three blocks.
const ROWS_PER_APPEND: usize = 2048;

/// Addresses and topics in one chunk from which on it is not indexed but read record by record.
///
/// A thousand new ones in every block: someone is filling blocks, and memory shall not follow.
const VALUES_MAX: usize = 1 << 18;

/// What a log is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Value {
    /// The contract.
    Address(Address),
    /// The first topic.
    Topic0(B256),
}

impl Value {
    /// The value as keys have it.
    pub fn kind_and_bytes(&self) -> (IndexKind, &[u8]) {
        match self {
            Value::Address(address) => (IndexKind::Address, address.as_slice()),
            Value::Topic0(topic) => (IndexKind::Topic0, topic.as_slice()),
        }
    }
}

/// The index of one journal.
pub(crate) struct Index {
    trees: Trees,
    work: Mutex<Work>,
}

/// The index as found on disk.
pub(crate) struct LoadedIndex {
    trees: Trees,
    next: Offset,
}

impl LoadedIndex {
    /// The index of an empty journal.
    pub fn empty(chain: u16) -> LoadedIndex {
        LoadedIndex { trees: Trees::new(tree_prefix(chain)), next: Offset::START }
    }
}

/// Indexing, between the records it has seen and the rows it has written.
pub(crate) struct Work {
    /// The first record that was not looked at.
    next: Offset,
    /// What was seen of the chunk that `next` is in.
    open: Rows,
    /// Chunks that were seen whole and are not written whole, oldest first.
    whole: VecDeque<WholeChunk>,
}

/// Positions in the segment of what was seen in a chunk.
#[derive(Default)]
struct Rows {
    values: HashMap<Value, Vec<u16>>,
    blocks: Vec<u16>,
}

struct WholeChunk {
    first: Offset,
    /// In key order.
    rows: Vec<(Value, Vec<u16>)>,
    blocks: Vec<u16>,
    /// How many of the rows are durable.
    written: usize,
}

/// What a batch holds of the oldest whole chunk.
pub(crate) struct Planned {
    written: usize,
    is_last: bool,
}

/// What memory knows of one chunk.
pub(crate) struct Recalled {
    /// The records it was seen of.
    pub range: Range<Offset>,
    /// Positions in the segment of the blocks among them.
    pub blocks: Vec<u16>,
    /// Positions of the records that have one of the values asked for, for each question.
    pub hits: Vec<RoaringBitmap>,
}

/// The first record of the chunk an offset is in.
pub(crate) fn chunk_start(offset: Offset) -> Offset {
    Offset::new(offset.get() / CHUNK_RECORDS * CHUNK_RECORDS)
}

fn position(offset: Offset) -> u16 {
    u16::try_from(offset.get() % SEGMENT_RECORDS).expect("a segment has 16 384 records")
}

impl Rows {
    fn add(&mut self, offset: Offset, logs: impl Iterator<Item = (Address, Option<B256>)>) {
        let position = position(offset);
        self.blocks.push(position);
        for (address, topic0) in logs {
            self.add_value(Value::Address(address), position);
            if let Some(topic) = topic0 {
                self.add_value(Value::Topic0(topic), position);
            }
        }
    }

    fn add_value(&mut self, value: Value, position: u16) {
        let positions = self.values.entry(value).or_default();
        if positions.last() != Some(&position) {
            positions.push(position);
        }
    }
}

impl Work {
    fn starting_at(next: Offset) -> Work {
        Work { next: chunk_start(next), open: Rows::default(), whole: VecDeque::new() }
    }

    /// Looks at the next record.
    fn see(&mut self, logs: Option<impl Iterator<Item = (Address, Option<B256>)>>) {
        if let Some(logs) = logs {
            self.open.add(self.next, logs);
        }
        self.next = self.next.plus(1);
        if self.open.values.len() > VALUES_MAX {
            self.leave_chunk_of(Offset::new(self.next.get() - 1));
        } else if chunk_start(self.next) == self.next {
            let open = std::mem::take(&mut self.open);
            let mut rows: Vec<_> = open.values.into_iter().collect();
            rows.sort_unstable_by_key(|(value, _)| *value);
            let first = Offset::new(self.next.get() - CHUNK_RECORDS);
            self.whole.push_back(WholeChunk { first, rows, blocks: open.blocks, written: 0 });
        }
    }

    /// Leaves the chunk that holds this record without an index.
    fn leave_chunk_of(&mut self, offset: Offset) {
        self.open = Rows::default();
        self.next = chunk_start(offset).plus(CHUNK_RECORDS);
    }

    /// Looks at records that are being appended at `first`, unless earlier ones were not seen yet.
    pub fn see_appended(&mut self, first: Offset, records: &[Record]) {
        for (number, record) in (0..).zip(records) {
            if first.plus(number) == self.next {
                self.see(match record {
                    Record::Block(block) => Some(logs_of(block)),
                    Record::Revert(_) | Record::Outcome(_) => None,
                });
            }
        }
    }

    /// Looks at a record of the journal, which must be the next one.
    fn see_stored(&mut self, stored: &StoredRecord) {
        assert_eq!(stored.offset(), self.next, "records are looked at in order");
        self.see(match stored.record() {
            RecordView::Block(block) => Some(logs_of_view(&block)),
            RecordView::Revert(_) | RecordView::Outcome(_) => None,
        });
    }

    /// Whether records before `tail` were not seen.
    pub fn is_behind(&self, tail: Offset) -> bool {
        self.next < tail
    }

    /// The first record whose chunk is not written.
    fn indexed_to(&self) -> Offset {
        self.whole.front().map_or(chunk_start(self.next), |chunk| chunk.first)
    }

    /// What memory knows of these questions: each a set of values, any of which will do.
    pub fn recall(&self, questions: &[Vec<Value>]) -> Vec<Recalled> {
        let whole = self.whole.iter().map(|chunk| {
            let positions = |value: &Value| {
                let found = chunk.rows.binary_search_by_key(value, |(value, _)| *value);
                found.map_or(&[][..], |at| &chunk.rows[at].1)
            };
            Recalled {
                range: chunk.first..chunk.first.plus(CHUNK_RECORDS),
                blocks: chunk.blocks.clone(),
                hits: answers(questions, positions),
            }
        });
        let open = &self.open;
        let positions = |value: &Value| open.values.get(value).map_or(&[][..], |found| found);
        let open = Recalled {
            range: chunk_start(self.next)..self.next,
            blocks: open.blocks.clone(),
            hits: answers(questions, positions),
        };
        whole.chain([open]).collect()
    }
}

fn answers<'r>(
    questions: &[Vec<Value>],
    positions: impl Fn(&Value) -> &'r [u16],
) -> Vec<RoaringBitmap> {
    let answer = |values: &Vec<Value>| {
        values.iter().flat_map(&positions).map(|position| u32::from(*position)).collect()
    };
    questions.iter().map(answer).collect()
}

fn logs_of(block: &Block) -> impl Iterator<Item = (Address, Option<B256>)> + use<'_> {
    block.logs.iter().map(|log| (log.address, log.topics.first().copied()))
}

fn logs_of_view<'r>(
    block: &BlockView<'r>,
) -> impl Iterator<Item = (Address, Option<B256>)> + use<'r> {
    block.logs().map(|log| (log.address, log.topics().next()))
}

impl Index {
    pub fn new(loaded: LoadedIndex) -> Index {
        let work = Mutex::new(Work::starting_at(loaded.next));
        Index { trees: loaded.trees, work }
    }

    /// Held while rows are planned, written and seen to be durable.
    pub fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().expect("nothing panics while indexing")
    }

    pub fn trees(&self) -> &Trees {
        &self.trees
    }
}

impl Journal {
    /// Records before this offset are in the log index. Those after it, at most some hundred once
    /// it has caught up, are found from memory or by reading them.
    pub fn indexed_to(&self) -> Offset {
        self.index().work().indexed_to().min(self.tail().offset)
    }

    /// Drops the log index and builds it again from the journal, up to the chunk at the tail.
    ///
    /// `progress` is told up to where it has come. Records can be read, found and appended
    /// meanwhile. When the process ends on the way, appends go on with the work.
    pub fn reindex(&self, mut progress: impl FnMut(Offset)) -> Result<(), StorageError> {
        {
            let mut work = self.index().work();
            let mut batch = Batch::default();
            self.put_indexed(&mut batch, self.start());
            self.core().writer.commit(batch, None);
            *work = Work::starting_at(self.start());
            self.index().trees().delete_before(u64::MAX, self.core())?;
        }
        loop {
            // Given back after each chunk, for whoever appends or finds.
            let mut work = self.index().work();
            let tail = self.tail().offset;
            if !work.is_behind(tail) {
                return Ok(());
            }
            let end = chunk_start(work.next).plus(CHUNK_RECORDS).min(tail);
            for stored in self.read(work.next..end) {
                match stored {
                    Ok(stored) => work.see_stored(&stored),
                    Err(ReadError::Storage(error)) => return Err(error),
                    // It is left without an index, so that whoever reads there is told.
                    Err(_) => {
                        let unreadable = work.next;
                        work.leave_chunk_of(unreadable);
                        break;
                    }
                }
            }
            self.write_whole_chunks(&mut work, 0)?;
            progress(work.indexed_to());
        }
    }

    /// Looks at records that were appended earlier and not seen: after a start, those of the chunk
    /// that was open.
    ///
    /// At most a chunk's worth, because an append waits for it.
    pub(crate) fn catch_up_index(&self, work: &mut Work, snapshot: Snapshot, tail: Offset) {
        let first = work.next;
        for stored in self.read_at(snapshot, first..tail.min(first.plus(CHUNK_RECORDS))) {
            match stored {
                Ok(stored) => work.see_stored(&stored),
                // Not this append's business. Whoever reads there is told.
                Err(_) => {
                    let unreadable = work.next;
                    return work.leave_chunk_of(unreadable);
                }
            }
        }
    }

    /// Adds rows of the oldest whole chunk to a batch, as far as there is room.
    pub(crate) fn plan_rows(
        &self,
        work: &Work,
        batch: &mut Batch,
        rows_max: usize,
    ) -> Result<Option<Planned>, StorageError> {
        let Some(chunk) = work.whole.front() else { return Ok(None) };
        let tree = self.index_tree(chunk.first)?;
        let has_room = |batch: &Batch| batch.bytes() + ROW_BYTES_MAX <= BATCH_BYTES_MAX;
        let mut written = chunk.written;
        let end = chunk.written.saturating_add(rows_max).min(chunk.rows.len());
        while written < end && has_room(batch) {
            let (value, positions) = &chunk.rows[written];
            let (kind, bytes) = value.kind_and_bytes();
            put_positions(batch, &tree, codec::index_key(kind, bytes, chunk.first), positions);
            written += 1;
        }
        let is_last = written == chunk.rows.len() && has_room(batch);
        if is_last {
            let key = codec::index_key(IndexKind::Blocks, &[], chunk.first);
            put_positions(batch, &tree, key, &chunk.blocks);
            let second = work.whole.get(1).map(|chunk| chunk.first);
            self.put_indexed(batch, second.unwrap_or(chunk_start(work.next)));
        }
        Ok(Some(Planned { written, is_last }))
    }

    /// Adds as many rows to an append's batch as it hardly notices, and at least so many that a
    /// chunk is written before as many records as it has are appended.
    pub(crate) fn plan_rows_of_append(
        &self,
        work: &Work,
        batch: &mut Batch,
        records: usize,
    ) -> Result<Option<Planned>, StorageError> {
        let rows = work.whole.front().map_or(0, |chunk| chunk.rows.len());
        let share = rows * records / (CHUNK_RECORDS as usize / 2);
        self.plan_rows(work, batch, share.max(ROWS_PER_APPEND))
    }

    /// Writes whole chunks until only `kept` are left to later appends.
    pub(crate) fn write_whole_chunks(
        &self,
        work: &mut Work,
        kept: usize,
    ) -> Result<(), StorageError> {
        while work.whole.len() > kept {
            let mut batch = Batch::default();
            let planned = self.plan_rows(work, &mut batch, usize::MAX)?;
            self.core().writer.commit(batch, None);
            work.written(planned);
        }
        Ok(())
    }

    fn put_indexed(&self, batch: &mut Batch, indexed: Offset) {
        let key = codec::indexed_key(self.number());
        let row = codec::encode_offset(&key, indexed);
        batch.put(&self.core().keyspaces.meta, key, row).expect("there is room for a row");
    }

    /// The tree that indexes an offset, created when this is its first row.
    fn index_tree(&self, offset: Offset) -> Result<Keyspace, StorageError> {
        let number = offset.get() / SEGMENT_RECORDS;
        Ok(self.index().trees.get_or_create(number, &self.core().database)?)
    }
}

impl Work {
    /// Takes note that a planned batch is durable.
    pub fn written(&mut self, planned: Option<Planned>) {
        let Some(Planned { written, is_last }) = planned else { return };
        if is_last {
            self.whole.pop_front();
        } else if let Some(chunk) = self.whole.front_mut() {
            chunk.written = written;
        }
    }

    /// Looks at no record before `start` any more: they are being removed.
    pub fn forget_before(&mut self, start: Offset) {
        self.whole.retain(|chunk| chunk.first >= start);
        if self.next < start {
            *self = Work::starting_at(start);
        }
    }
}

/// What was seen of a chunk while a journal is being verified.
#[derive(Default)]
pub(crate) struct IndexCheck {
    chunk: Option<Offset>,
    seen: Rows,
}

impl Journal {
    /// Takes note of a record, and checks the chunk before it when it is the first of another one.
    pub(crate) fn check_index(
        &self,
        check: &mut IndexCheck,
        stored: &StoredRecord,
    ) -> Result<Vec<Problem>, StorageError> {
        let chunk = Some(chunk_start(stored.offset()));
        let problems =
            if check.chunk == chunk { Vec::new() } else { self.check_index_of_chunk(check)? };
        check.chunk = chunk;
        if let RecordView::Block(block) = stored.record() {
            check.seen.add(stored.offset(), logs_of_view(&block));
        }
        Ok(problems)
    }

    /// Checks that the log index, where it says that it is whole, finds what was seen of a chunk.
    pub(crate) fn check_index_of_chunk(
        &self,
        check: &mut IndexCheck,
    ) -> Result<Vec<Problem>, StorageError> {
        let seen = std::mem::take(&mut check.seen);
        let Some(first) = check.chunk.take() else { return Ok(Vec::new()) };
        let segment = first.get() / SEGMENT_RECORDS;
        let Some(tree) = self.index().trees.all().get(&segment).cloned() else {
            return Ok(Vec::new());
        };
        let snapshot = self.core().snapshot();
        let row = |kind: IndexKind, value: &[u8]| -> Result<Option<RoaringBitmap>, StorageError> {
            let key = codec::index_key(kind, value, first);
            let sealed = snapshot.get(&tree, &key)?;
            // A damaged row is noticed by whoever reads it, who then reads the records.
            Ok(sealed.map(|sealed| codec::unseal_positions(&key, &sealed).unwrap_or_default()))
        };
        let Some(blocks) = row(IndexKind::Blocks, &[])? else { return Ok(Vec::new()) };
        let mut missed = missed(&seen.blocks, &blocks);
        for (value, positions) in &seen.values {
            let (kind, bytes) = value.kind_and_bytes();
            missed |= self::missed(positions, &row(kind, bytes)?.unwrap_or_default());
        }
        let offset = |position| Offset::new(segment * SEGMENT_RECORDS).plus(u64::from(position));
        let problem = |position| Problem {
            offset: offset(position),
            what: "the log index does not find all of its logs; rebuild it".to_owned(),
        };
        Ok(missed.into_iter().map(problem).collect())
    }
}

fn missed(positions: &[u16], indexed: &RoaringBitmap) -> RoaringBitmap {
    let positions = positions.iter().map(|position| u32::from(*position));
    positions.filter(|position| !indexed.contains(*position)).collect()
}

/// A row with room to spare: its largest bitmap has 256 positions of two bytes.
const ROW_BYTES_MAX: usize = 4096;

fn put_positions(batch: &mut Batch, tree: &Keyspace, key: Vec<u8>, positions: &[u16]) {
    let sealed = codec::seal_positions(&key, positions);
    batch.put(tree, key, sealed).expect("there is room for a row");
}

fn tree_prefix(chain: u16) -> String {
    format!("index-{chain:05}-")
}

/// Opens what there is of a chain's index, and drops what cannot be of this journal.
///
/// A damaged write-ahead log may take back the end of the journal and leave the index of what
/// stood there: other records will take those offsets.
pub(crate) fn open_index(
    database: &Database,
    keyspaces: &Keyspaces,
    snapshot: &Snapshot,
    chain: u16,
    records: Range<Offset>,
) -> Result<LoadedIndex, StorageError> {
    let trees = Trees::open(database, tree_prefix(chain))?;
    let key = codec::indexed_key(chain);
    let mut next = match snapshot.get(&keyspaces.meta, key)? {
        // Derived like the rest: what cannot be read is built again.
        Some(sealed) => codec::decode_offset(&key, &sealed).unwrap_or(records.start),
        None => records.start,
    };
    for (number, tree) in trees.all().iter() {
        let first = Offset::new(number * SEGMENT_RECORDS);
        let is_removed = first < records.start;
        let is_whole = first.plus(SEGMENT_RECORDS) <= records.end;
        if !is_removed && (is_whole || ends_within(tree, snapshot, records.end)?) {
            continue;
        }
        if !is_removed {
            next = next.min(first);
        }
        trees.delete_unopened(*number, database)?;
    }
    let next = if next > records.end { records.start } else { next.max(records.start) };
    Ok(LoadedIndex { trees, next })
}

/// Whether an index tree has no whole chunk that goes past `end`.
fn ends_within(tree: &Keyspace, snapshot: &Snapshot, end: Offset) -> Result<bool, StorageError> {
    let Some(last) = snapshot.last_key_value(tree) else { return Ok(true) };
    Ok(match codec::parse_index_key(&last.key()?) {
        Ok((IndexKind::Blocks, first)) => first.plus(CHUNK_RECORDS) <= end,
        Ok(_) => true,
        Err(_) => false,
    })
}
