//! What a journal holds, in numbers.

use std::ops::Range;

use fjall::Keyspace;

use crate::{
    codec::RecordView,
    journal::{Journal, ReadError, SEGMENT_RECORDS},
    types::{BlockRef, Offset},
};

/// What a journal holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The first record still there.
    pub start: Offset,
    /// The first offset not yet written.
    pub tail: Offset,
    /// The first block still there, `None` while the journal is empty.
    pub first: Option<TimedBlock>,
    /// The newest block that is not abandoned.
    pub last: Option<TimedBlock>,
    /// Records from start to tail.
    pub records: u64,
    /// How many of them are blocks, abandoned ones included.
    pub blocks: u64,
    /// How many are reverts.
    pub reverts: u64,
    /// How many are outcomes.
    pub outcomes: u64,
    /// The segments, oldest first.
    pub segments: Vec<SegmentStat>,
    /// What segments and their log index take on disk. What is not yet sorted into them, at most
    /// some 64 MiB for all chains together, is not counted.
    pub bytes_on_disk: u64,
    /// Records before this offset are in the log index.
    pub indexed_to: Offset,
}

/// A block and when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedBlock {
    /// The block.
    pub block: BlockRef,
    /// Its own time, in seconds since 1970.
    pub time: u64,
}

/// One segment of a journal: the grain of retention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentStat {
    /// Its number.
    pub number: u64,
    /// The records in it.
    pub range: Range<Offset>,
    /// What its records take on disk.
    pub record_bytes: u64,
    /// What its log index takes on disk.
    pub index_bytes: u64,
}

impl Journal {
    /// Counts what the journal holds.
    ///
    /// Takes milliseconds where there is a log index, and reads every record where not. Nothing is
    /// removed meanwhile.
    pub fn stat(&self) -> Result<Stat, ReadError> {
        // Otherwise retention could move the start between two counts.
        let _hold = self.hold(Offset::START);
        let tail = self.tail();
        let start = self.start();
        let blocks = self.count_blocks(start..tail.offset)?;
        let records = tail.offset.get() - start.get();
        let reverts = self.count_reverts(start..tail.offset);
        let segments = self.segment_stats(start..tail.offset);
        let last = match tail.head {
            Some(head) => self.offset_of(head)?,
            None => None,
        };
        Ok(Stat {
            start,
            tail: tail.offset,
            first: self.first_block_from(start)?,
            last: last.map(|last| self.first_block_from(last)).transpose()?.flatten(),
            records,
            blocks,
            reverts,
            outcomes: records - blocks - reverts,
            bytes_on_disk: segments.iter().map(|one| one.record_bytes + one.index_bytes).sum(),
            segments,
            indexed_to: self.indexed_to(),
        })
    }

    fn segment_stats(&self, range: Range<Offset>) -> Vec<SegmentStat> {
        let segments = self.segments();
        let index = self.index().trees().all();
        let stats = segments.iter().map(|(number, records)| {
            let first = Offset::new(number * SEGMENT_RECORDS);
            SegmentStat {
                number: *number,
                range: first.max(range.start)..first.plus(SEGMENT_RECORDS).min(range.end),
                record_bytes: records.disk_space(),
                index_bytes: index.get(number).map_or(0, Keyspace::disk_space),
            }
        });
        // The newest one may be empty, or filled since the tail was looked at.
        stats.filter(|stat| stat.range.start < stat.range.end).collect()
    }

    /// The first block at or after an offset.
    pub(crate) fn first_block_from(&self, offset: Offset) -> Result<Option<TimedBlock>, ReadError> {
        for stored in self.read(offset..self.tail().offset) {
            if let RecordView::Block(block) = stored?.record() {
                return Ok(Some(TimedBlock { block: block.this, time: block.timestamp }));
            }
        }
        Ok(None)
    }
}
