//! Logs of a journal by contract and first topic, in pages.
//!
//! A page looks at a bounded number of records. The log index makes that milliseconds; where there
//! is no index yet, every block is read.

use std::{ops::Range, time::Instant};

use shepherd_log::{
    Journal, LogFilter, Offset, ReadError, RecordView as Record, StoredRecord, Touched,
};

use crate::{
    query::QueryError,
    view::{BlockRefView, FoundLogView, FoundView, OffsetView, block_time, bytes},
};

/// Most records that one page looks at: nearly seven days of a chain with twelve-second blocks.
pub const FIND_RECORDS_MAX: u64 = 50_000;

/// A page with this many logs takes no further block: about a megabyte of JSON.
pub const FIND_LOGS_MAX: usize = 1000;

/// Which part of the chain is meant, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    /// The first block; the journal's first when left out.
    pub from: Option<Bound>,
    /// The last block; the head when left out.
    pub to: Option<Bound>,
    /// Also blocks that were abandoned. Then the bounds count for them too.
    pub abandoned: bool,
}

/// One end of a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The block of this number.
    Block(u64),
    /// By the blocks' own time, in seconds since 1970.
    Time(u64),
}

impl Bound {
    fn is_after(self, number: u64, time: u64) -> bool {
        match self {
            Bound::Block(bound) => number < bound,
            Bound::Time(bound) => time < bound,
        }
    }

    fn is_before(self, number: u64, time: u64) -> bool {
        match self {
            Bound::Block(bound) => bound < number,
            Bound::Time(bound) => bound < time,
        }
    }
}

/// The logs of a stretch that match, from the offset where the page before this one ended.
///
/// All matching logs of a block are on one page.
pub fn find(
    journal: &Journal,
    filter: &LogFilter,
    stretch: Stretch,
    after: Option<Offset>,
) -> Result<FoundView, QueryError> {
    let started = Instant::now();
    // So that the start stays where it is while the page is read.
    let _hold = journal.hold(Offset::START);
    let (first, end) = offsets(journal, stretch)?;
    let first = after.map_or(first, |after| after.clamp(first, end));
    let page_end = first.plus(FIND_RECORDS_MAX).min(end);
    let mut found = journal.find(first..page_end, filter);
    let mut logs = Vec::new();
    let mut next = page_end;
    for stored in found.by_ref() {
        let stored = stored?;
        add(journal, &stored, filter, stretch, &mut logs);
        if logs.len() >= FIND_LOGS_MAX {
            next = stored.offset().plus(1);
            break;
        }
    }
    let Touched { blocks_read, blocks_skipped } = found.touched();
    Ok(FoundView {
        chain: journal.chain().to_string(),
        logs,
        blocks_read,
        blocks_skipped,
        microseconds: started.elapsed().as_micros() as u64,
        more_from: (next < end).then_some(OffsetView::from(next)),
    })
}

fn add(
    journal: &Journal,
    stored: &StoredRecord,
    filter: &LogFilter,
    stretch: Stretch,
    logs: &mut Vec<FoundLogView>,
) {
    let offset = stored.offset();
    let Record::Block(block) = stored.record() else { return };
    let abandoned = journal.abandoned_by(offset).is_some();
    let (number, time) = (block.this.number, block.timestamp);
    let too_early = stretch.from.is_some_and(|from| from.is_after(number, time));
    let too_late = stretch.to.is_some_and(|to| to.is_before(number, time));
    if too_early || too_late || (abandoned && !stretch.abandoned) {
        return;
    }
    logs.extend(block.logs().filter(|log| filter.matches(log)).map(|log| FoundLogView {
        offset: offset.into(),
        block: BlockRefView::from(block.this),
        time: block_time(block.timestamp),
        abandoned,
        index: log.index,
        transaction_index: log.transaction_index,
        transaction_hash: log.transaction_hash.to_string(),
        address: log.address.to_string(),
        topics: log.topics().map(|topic| topic.to_string()).collect(),
        data: bytes(log.data),
    }));
}

/// The offsets between which the blocks of a stretch are.
///
/// Blocks that count are in the order of their heights. Those that were abandoned are not, so they
/// are looked for from the first record on.
fn offsets(journal: &Journal, stretch: Stretch) -> Result<(Offset, Offset), QueryError> {
    let (start, tail) = (journal.start(), journal.tail());
    if stretch.abandoned {
        return Ok((start, tail.offset));
    }
    let heights = heights(journal, stretch)?;
    let from = if stretch.from.is_none() { start } else { offset_of(journal, heights.start)? };
    let end = if stretch.to.is_none() { tail.offset } else { offset_of(journal, heights.end)? };
    Ok((from, end.max(from)))
}

/// The heights of the blocks of a stretch that count.
pub fn heights(journal: &Journal, stretch: Stretch) -> Result<Range<u64>, QueryError> {
    let (Some(first), Some(head)) = (first_height(journal)?, journal.tail().head) else {
        return Ok(0..0);
    };
    let all = first..head.number + 1;
    let start = match stretch.from {
        None => all.start,
        Some(bound) => {
            partition(&all, |number| Ok(bound.is_after(number, time_of(journal, number)?)))?
        }
    };
    let end = match stretch.to {
        None => all.end,
        Some(bound) => {
            partition(&all, |number| Ok(!bound.is_before(number, time_of(journal, number)?)))?
        }
    };
    Ok(start..end.max(start))
}

/// The first height of which `is_before` does not hold, given that it holds up to there.
fn partition(
    heights: &Range<u64>,
    is_before: impl Fn(u64) -> Result<bool, QueryError>,
) -> Result<u64, QueryError> {
    let (mut low, mut high) = (heights.start, heights.end);
    while low < high {
        let middle = low.midpoint(high);
        if is_before(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// The height of the first block that counts.
fn first_height(journal: &Journal) -> Result<Option<u64>, ReadError> {
    for stored in journal.read(journal.start()..journal.tail().offset) {
        let stored = stored?;
        if let Record::Block(block) = stored.record()
            && journal.abandoned_by(stored.offset()).is_none()
        {
            return Ok(Some(block.this.number));
        }
    }
    Ok(None)
}

/// Where the block that counts at a height is; the tail for a height above the head.
fn offset_of(journal: &Journal, height: u64) -> Result<Offset, QueryError> {
    let found = journal.canonical(height)?;
    Ok(found.map_or(journal.tail().offset, |(offset, _)| offset))
}

/// The time of the block that counts at a height.
fn time_of(journal: &Journal, height: u64) -> Result<u64, QueryError> {
    let offset = offset_of(journal, height)?;
    let stored = journal.read(offset..offset.plus(1)).next().transpose()?;
    match stored.as_ref().map(StoredRecord::record) {
        Some(Record::Block(block)) => Ok(block.timestamp),
        // A reorg took the height back since it was looked at: it is above all that is looked for.
        _ => Ok(u64::MAX),
    }
}
