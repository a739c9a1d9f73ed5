//! Reading only the blocks that have what is looked for.
//!
//! ```text
//!  filter ──▶ log index ──▶ candidates ──▶ records ──▶ those with a log that matches
//!             memory   ──┘      ▲
//!             not indexed: all ─┘
//! ```
//!
//! The index preselects and the record decides, so a filter of addresses *and* topics may read a
//! block that has both in different logs, and never misses one that has them in the same.

use std::{collections::BTreeSet, ops::Range};

use alloy_primitives::{Address, B256};
use fjall::{Keyspace, Snapshot};
use roaring::{RoaringBitmap, bitmap};

use crate::{
    codec::{self, IndexKind, LogView, RecordView},
    index::{CHUNK_RECORDS, Recalled, Value, chunk_start},
    journal::{Journal, ReadError, Records, SEGMENT_RECORDS, StoredRecord},
    store::StorageError,
    trees::Segments,
    types::Offset,
};

/// Which logs are looked for. One log must have both, an address and a first topic of the sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// The contracts; empty for any.
    pub addresses: BTreeSet<Address>,
    /// The first topics; empty for any, also none.
    pub topic0: BTreeSet<B256>,
}

impl LogFilter {
    /// Whether a log is looked for.
    pub fn matches(&self, log: &LogView<'_>) -> bool {
        let fits = |topic: B256| self.topic0.contains(&topic);
        (self.addresses.is_empty() || self.addresses.contains(&log.address))
            && (self.topic0.is_empty() || log.topics().next().is_some_and(fits))
    }

    fn matches_any(&self, record: &RecordView<'_>) -> bool {
        match record {
            RecordView::Block(block) => block.logs().any(|log| self.matches(&log)),
            RecordView::Revert(_) | RecordView::Outcome(_) => false,
        }
    }

    /// Sets of values of which a record must have one each.
    fn questions(&self) -> Vec<Vec<Value>> {
        let addresses = self.addresses.iter().copied().map(Value::Address).collect();
        let topics = self.topic0.iter().copied().map(Value::Topic0).collect();
        [addresses, topics].into_iter().filter(|set: &Vec<Value>| !set.is_empty()).collect()
    }
}

/// How many blocks a filtered read had to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Blocks that were read.
    pub blocks_read: u64,
    /// Blocks that the index said need not be read. Counted a segment at a time.
    pub blocks_skipped: u64,
}

impl Journal {
    /// The blocks of a range that have a log that matches, abandoned ones included, in offset
    /// order. [`Journal::abandoned_by`] tells those apart.
    pub fn find(&self, range: Range<Offset>, filter: &LogFilter) -> Found {
        let candidates = self.candidates(range, filter);
        let records = Records::new(
            self.segments(),
            candidates.snapshot.clone(),
            self.start(),
            candidates.next..candidates.end,
        );
        let trimmed_to = Offset::START;
        Found { candidates, records, filter: filter.clone(), blocks_read: 0, trimmed_to }
    }

    /// The offsets of a range at which a block may have a log that matches, in order. Where there
    /// is no index that is every offset.
    pub fn candidates(&self, range: Range<Offset>, filter: &LogFilter) -> Candidates {
        self.look_for(range, Wanted::matching(std::slice::from_ref(filter)))
    }

    /// The records of a range that may concern who looks for logs that match any of the filters,
    /// in offset order: blocks that may have such a log, and every record that is not a block.
    pub fn concerning(&self, range: Range<Offset>, filters: &[LogFilter]) -> Concerning {
        Concerning::new(self, range, Wanted { others: true, ..Wanted::matching(filters) })
    }

    /// The records of a range that are not blocks, in offset order. Where there is an index, no
    /// block is read.
    pub fn others(&self, range: Range<Offset>) -> Others {
        Others(Concerning::new(self, range, Wanted { others: true, ..Wanted::matching(&[]) }))
    }

    fn look_for(&self, range: Range<Offset>, wanted: Wanted) -> Candidates {
        // In this order: a chunk that leaves memory in between is in the snapshot.
        let end = range.end.min(self.tail().offset);
        let recalled = self.index().work().recall(&wanted.questions);
        let snapshot = self.core().snapshot();
        let start = self.start();
        let trimmed = (range.start < start && range.start < end)
            .then_some(ReadError::Trimmed { wanted: range.start, trimmed_to: start });
        Candidates {
            trees: self.index().trees().all(),
            snapshot,
            wanted,
            recalled,
            trimmed,
            next: range.start.max(start),
            end,
            segment: Offset::START,
            ready: RoaringBitmap::new().into_iter(),
            skipped: 0,
        }
    }

    /// How many blocks a range holds, read from the index where there is one.
    pub(crate) fn count_blocks(&self, range: Range<Offset>) -> Result<u64, ReadError> {
        let mut any = self.candidates(range, &LogFilter::default());
        let mut blocks = 0;
        while any.next < any.end {
            let piece = any.look_up()?;
            blocks += piece.blocks.len();
            for unknown in piece.unknown {
                let first = piece.segment.plus(u64::from(unknown.start));
                let end = piece.segment.plus(u64::from(unknown.end));
                for stored in self.read_at(any.snapshot.clone(), first..end) {
                    blocks += u64::from(matches!(stored?.record(), RecordView::Block(_)));
                }
            }
        }
        Ok(blocks)
    }
}

/// Offsets that may match; see [`Journal::candidates`].
pub struct Candidates {
    trees: Segments,
    snapshot: Snapshot,
    wanted: Wanted,
    recalled: Vec<Recalled>,
    trimmed: Option<ReadError>,
    /// The first record that was not looked up.
    next: Offset,
    end: Offset,
    /// The first offset of the segment that `ready` is in.
    segment: Offset,
    ready: bitmap::IntoIter,
    skipped: u64,
}

/// What is looked for: blocks that match any of several filters, and maybe what is no block.
struct Wanted {
    /// Sets of values; a record has a set when it has one value of it.
    questions: Vec<Vec<Value>>,
    /// How many of the sets belong to each filter, in order. A record must have all of a filter's.
    filters: Vec<usize>,
    /// Whether records that are not blocks are looked for too.
    others: bool,
}

impl Wanted {
    fn matching(filters: &[LogFilter]) -> Wanted {
        let questions: Vec<_> = filters.iter().map(LogFilter::questions).collect();
        Wanted {
            filters: questions.iter().map(Vec::len).collect(),
            questions: questions.into_iter().flatten().collect(),
            others: false,
        }
    }

    /// The blocks that match, given those that have each of the sets.
    fn hits(&self, blocks: &RoaringBitmap, having: &[RoaringBitmap]) -> RoaringBitmap {
        let mut having = having.iter();
        let mut hits = RoaringBitmap::new();
        for sets in &self.filters {
            hits |= having.by_ref().take(*sets).fold(blocks.clone(), |hits, having| hits & having);
        }
        hits
    }
}

/// What is known of a range within one segment, by position in the segment.
struct Piece {
    segment: Offset,
    /// Blocks, as far as the index knows.
    blocks: RoaringBitmap,
    /// Blocks among them that have what is asked for.
    hits: RoaringBitmap,
    /// Records that are not blocks, as far as the index knows.
    others: RoaringBitmap,
    /// Where the index knows nothing.
    unknown: Vec<Range<u32>>,
}

impl Candidates {
    /// Looks up what is left of the segment at `next`, and moves on to the next one.
    fn look_up(&mut self) -> Result<Piece, StorageError> {
        let number = self.next.get() / SEGMENT_RECORDS;
        let segment = Offset::new(number * SEGMENT_RECORDS);
        let range = self.next..segment.plus(SEGMENT_RECORDS).min(self.end);
        self.next = range.end;
        let position = |offset: Offset| {
            u32::try_from(offset.get() - segment.get()).expect("a segment has 16 384 records")
        };
        let (mut known, mut blocks, mut hits) =
            (RoaringBitmap::new(), RoaringBitmap::new(), RoaringBitmap::new());
        if let Some(tree) = self.trees.get(&number) {
            let chunks = chunk_start(range.start)..range.end;
            let mut damaged = RoaringBitmap::new();
            let mut answers = Vec::new();
            for values in &self.wanted.questions {
                let mut answer = RoaringBitmap::new();
                for value in values {
                    let (kind, bytes) = value.kind_and_bytes();
                    for row in self.rows(tree, kind, bytes, chunks.clone()) {
                        match row? {
                            (_, Some(positions)) => answer |= positions,
                            (first, None) => {
                                damaged.insert(position(first));
                            }
                        }
                    }
                }
                answers.push(answer);
            }
            for row in self.rows(tree, IndexKind::Blocks, &[], chunks) {
                let (first, Some(positions)) = row? else { continue };
                if !damaged.contains(position(first)) {
                    let first = position(first);
                    known.insert_range(first..first + u32::try_from(CHUNK_RECORDS).expect("256"));
                    blocks |= positions;
                }
            }
            hits |= self.wanted.hits(&blocks, &answers);
        }
        for chunk in &self.recalled {
            if chunk.range.start < segment || chunk.range.start >= range.end {
                continue;
            }
            known.insert_range(position(chunk.range.start)..position(chunk.range.end));
            let seen: RoaringBitmap =
                chunk.blocks.iter().map(|position| u32::from(*position)).collect();
            hits |= self.wanted.hits(&seen, &chunk.hits);
            blocks |= seen;
        }
        let mut asked = RoaringBitmap::new();
        asked.insert_range(position(range.start)..position(range.end));
        let unknown = ranges(&(&asked - &known));
        let others = (&asked & known) - &blocks;
        Ok(Piece { segment, blocks: blocks & &asked, hits: hits & asked, others, unknown })
    }

    /// Rows about one value whose chunks start in a range: the chunk's first record and the
    /// positions, `None` for a row that is damaged.
    fn rows(
        &self,
        tree: &Keyspace,
        kind: IndexKind,
        value: &[u8],
        chunks: Range<Offset>,
    ) -> impl Iterator<Item = Result<(Offset, Option<RoaringBitmap>), StorageError>> + use<> {
        use fjall::Readable;
        let range =
            codec::index_key(kind, value, chunks.start)..codec::index_key(kind, value, chunks.end);
        self.snapshot.range(tree, range).map(|entry| {
            let (key, sealed) = entry.into_inner()?;
            let (_, first) = codec::parse_index_key(&key)
                .map_err(StorageError::damaged("a key of the log index"))?;
            Ok((first, codec::unseal_positions(&key, &sealed).ok()))
        })
    }

    fn step(&mut self) -> Result<Option<Offset>, ReadError> {
        if let Some(trimmed) = self.trimmed.take() {
            return Err(trimmed);
        }
        loop {
            if let Some(position) = self.ready.next() {
                return Ok(Some(self.segment.plus(u64::from(position))));
            }
            if self.next >= self.end {
                return Ok(None);
            }
            let piece = self.look_up()?;
            self.skipped += piece.blocks.len() - piece.hits.len();
            let mut ready = piece.hits;
            if self.wanted.others {
                ready |= piece.others;
            }
            for unknown in piece.unknown {
                ready.insert_range(unknown);
            }
            self.segment = piece.segment;
            self.ready = ready.into_iter();
        }
    }
}

impl Iterator for Candidates {
    type Item = Result<Offset, ReadError>;

    fn next(&mut self) -> Option<Result<Offset, ReadError>> {
        self.step().transpose()
    }
}

fn ranges(positions: &RoaringBitmap) -> Vec<Range<u32>> {
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for position in positions {
        match ranges.last_mut() {
            Some(last) if last.end == position => last.end += 1,
            _ => ranges.push(position..position + 1),
        }
    }
    ranges
}

/// Records that may concern somebody; see [`Journal::concerning`].
pub struct Concerning {
    candidates: Candidates,
    records: Records,
}

impl Concerning {
    fn new(journal: &Journal, range: Range<Offset>, wanted: Wanted) -> Concerning {
        let candidates = journal.look_for(range, wanted);
        let records = Records::new(
            journal.segments(),
            candidates.snapshot.clone(),
            journal.start(),
            candidates.next..candidates.end,
        );
        Concerning { candidates, records }
    }

    fn step(&mut self) -> Result<Option<StoredRecord>, ReadError> {
        let Some(offset) = self.candidates.step()? else { return Ok(None) };
        self.records.at(offset)
    }
}

impl Iterator for Concerning {
    type Item = Result<StoredRecord, ReadError>;

    fn next(&mut self) -> Option<Result<StoredRecord, ReadError>> {
        self.step().transpose()
    }
}

/// Records that are not blocks; see [`Journal::others`].
pub struct Others(Concerning);

impl Iterator for Others {
    type Item = Result<StoredRecord, ReadError>;

    fn next(&mut self) -> Option<Result<StoredRecord, ReadError>> {
        // Where there is no index, blocks are among them.
        let is_block = |stored: &StoredRecord| matches!(stored.record(), RecordView::Block(_));
        self.0.find(|stored| !stored.as_ref().is_ok_and(is_block))
    }
}

/// Blocks that match; see [`Journal::find`]. After an error the next call goes on behind it.
pub struct Found {
    candidates: Candidates,
    records: Records,
    filter: LogFilter,
    blocks_read: u64,
    /// Candidates before this offset were trimmed since they were looked up.
    trimmed_to: Offset,
}

impl Found {
    /// How many blocks it has looked at so far.
    pub fn touched(&self) -> Touched {
        Touched { blocks_read: self.blocks_read, blocks_skipped: self.candidates.skipped }
    }

    fn step(&mut self) -> Result<Option<StoredRecord>, ReadError> {
        while let Some(offset) = self.candidates.step()? {
            if offset < self.trimmed_to {
                continue;
            }
            let record = match self.records.at(offset) {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(error) => {
                    if let ReadError::Trimmed { trimmed_to, .. } = error {
                        self.trimmed_to = trimmed_to;
                    }
                    return Err(error);
                }
            };
            let view = record.record();
            self.blocks_read += u64::from(matches!(view, RecordView::Block(_)));
            if self.filter.matches_any(&view) {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
}

impl Iterator for Found {
    type Item = Result<StoredRecord, ReadError>;

    fn next(&mut self) -> Option<Result<StoredRecord, ReadError>> {
        self.step().transpose()
    }
}
