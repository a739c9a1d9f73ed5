//! Retention: the oldest segments go when nobody needs them any more.
//!
//! ```text
//! offset 0        16384      32768      49152          tail
//!        ├──────────┼──────────┼──────────┼─────────────┤
//!        └── removed ──┘       ▲      ▲                 ▲
//!                            start    slowest cursor    head
//! ```
//!
//! Records leave in whole segments, because the engine can only remove whole trees (hazard F8), and
//! only before the first record that something still needs: a lane's cursor, its undo, an effect
//! that nothing has come of, a hold, a reorg that may still come. What they left in lanes (tapes,
//! commit rows, effects) stays.
//!
//! A removal is made in this order, and a start after a crash finishes it:
//!
//! 1. one batch moves `start` and keeps the height each removed revert went back to, which lanes
//!    ask for as long as they live;
//! 2. the trees go;
//! 3. once for all segments of a pass, the rows of the block index go; those that are left over
//!    are never read, and go with the next pass that removes something.
//!
//! A cut lies before a block, and no revert behind it goes back over it, so that a lane can begin
//! there.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fjall::{Keyspace, Readable, Snapshot};

use crate::{
    codec::{self, RecordView, StartRow, seal_row},
    journal::{Journal, ReadError, SEGMENT_RECORDS, Start, StoredRecord, Tail},
    lanes,
    store::StorageError,
    types::{LaneId, Offset},
    writer::Batch,
};

/// Share of what retention keeps from which on the slowest reader is a reason for alarm.
///
/// With seven days kept, the alarm comes when a lane is five and a half days behind: a day and a
/// half before it holds retention up.
pub const ALARM_SHARE: f64 = 0.8;

/// Removals of block-index rows in one batch.
const REMOVED_TOGETHER_MAX: usize = 16_384;

/// How far above the block at a cut the block index is searched for rows of removed blocks: as
/// high as an abandoned branch may have reached. A row that is missed only takes space.
const ABANDONED_ABOVE: u64 = 4096;

/// How much of a journal is kept. Without limits, all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Blocks older than this, by their own time against the head's, may go.
    pub max_age: Option<Duration>,
    /// What segments and their index may take on disk; the oldest go when it is more.
    pub max_bytes: Option<u64>,
}

/// What one pass of retention did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// The records that were removed.
    pub removed: Range<Offset>,
    /// What they and their index took on disk.
    pub bytes: u64,
    /// Who kept more from being removed, if someone did.
    pub blocked: Option<Blocked>,
}

/// Someone needs records that retention would remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Who.
    pub by: Blocker,
    /// The first record it needs.
    pub at: Offset,
    /// That record's block time, in seconds since 1970: so far behind it is.
    pub since: u64,
    /// Where retention would have the journal start.
    pub wanted: Offset,
}

/// Who needs records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocker {
    /// A lane that has not passed them.
    Lane(LaneId),
    /// A lane that may take them back.
    Undo(LaneId),
    /// A lane's effect that nothing has come of.
    Effect(LaneId),
    /// A running replay, export or verification; see [`Journal::hold`].
    Hold,
    /// A reorg that may still come.
    Reorg,
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Blocker::Lane(lane) => write!(f, "lane {lane}"),
            Blocker::Undo(lane) => write!(f, "the undo of lane {lane}"),
            Blocker::Effect(lane) => write!(f, "an unsettled effect of lane {lane}"),
            Blocker::Hold => f.write_str("a running replay, export or verification"),
            Blocker::Reorg => f.write_str("a reorg that may still come"),
        }
    }
}

/// How retention stands, before it does anything.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlook {
    /// The first record that is still there.
    pub start: Offset,
    /// Where retention would have the journal start, if nobody needed anything.
    pub wanted: Offset,
    /// Who needs the oldest record, and which one.
    pub needed: Option<(Blocker, Offset)>,
    /// How much of what retention keeps lies behind that record: at 1 it begins to be held up.
    /// 0 without limits.
    pub used: f64,
    /// Whether `used` is [`ALARM_SHARE`] or more: time to look after whoever is that far behind.
    pub alarm: bool,
}

/// Keeps records from being removed while it lives.
#[must_use = "records are held only while this lives"]
pub struct RetentionHold {
    holds: Arc<Mutex<Holds>>,
    number: u64,
}

/// The records that are held, by number of the hold.
#[derive(Default)]
pub(crate) struct Holds {
    held: BTreeMap<u64, Offset>,
    next: u64,
}

/// The journal as one pass looks at it, while records go on being appended.
struct Moment {
    tail: Tail,
    snapshot: Snapshot,
}

impl Drop for RetentionHold {
    fn drop(&mut self) {
        let mut holds = self.holds.lock().expect("nothing panics while holding the holds");
        holds.held.remove(&self.number);
    }
}

impl Journal {
    /// Keeps records at or after `offset` from being removed, as far as they are still there,
    /// while what is returned lives.
    pub fn hold(&self, offset: Offset) -> RetentionHold {
        let mut holds = self.lock_retention();
        let number = holds.next;
        holds.next += 1;
        holds.held.insert(number, offset);
        RetentionHold { holds: self.holds().clone(), number }
    }

    fn moment(&self) -> Moment {
        // In this order: whatever the tail names is in the snapshot.
        let tail = self.tail();
        Moment { tail, snapshot: self.core().snapshot() }
    }

    /// Keeps `start` where it is.
    pub(crate) fn lock_retention(&self) -> MutexGuard<'_, Holds> {
        self.holds().lock().expect("nothing panics while holding the holds")
    }

    /// Removes the segments that are not to be kept and that nobody needs.
    ///
    /// When this returns, `start` is durable; disk space is given back as soon as nobody reads
    /// there any more. Takes some hundredths of a second for each segment that goes; records can
    /// be read and appended meanwhile.
    pub fn retain(&self, retention: &Retention) -> Result<Retained, StorageError> {
        let holds = self.lock_retention();
        let first = self.start();
        let moment = self.moment();
        let wanted = self.wanted_start(retention, &moment)?;
        let needed = self.first_needed(&holds, &moment)?;
        let allowed = needed.as_ref().map_or(wanted, |(_, at)| wanted.min(*at));
        let mut bytes = 0;
        for cut in cuts(first, allowed) {
            if self.can_begin_at(cut, &moment)? {
                bytes += self.remove_before(cut, &moment)?;
            }
        }
        if first < self.start() {
            self.remove_block_rows(&moment)?;
        }
        let blocked = match needed.filter(|(_, at)| segment_start(*at) < wanted) {
            Some((by, at)) => {
                let since = self.time_from(at, &moment)?.unwrap_or_default();
                Some(Blocked { by, at, since, wanted })
            }
            None => None,
        };
        Ok(Retained { removed: first..self.start(), bytes, blocked })
    }

    /// How far retention is from being held up.
    pub fn retention_outlook(&self, retention: &Retention) -> Result<Outlook, StorageError> {
        let holds = self.lock_retention();
        let moment = self.moment();
        let wanted = self.wanted_start(retention, &moment)?;
        let needed = self.first_needed(&holds, &moment)?;
        let used = match &needed {
            Some((_, at)) => self.share_behind(*at, retention, &moment)?,
            None => 0.0,
        };
        Ok(Outlook { start: self.start(), wanted, needed, used, alarm: used >= ALARM_SHARE })
    }

    /// Where the journal would start if nobody needed anything: at a segment, at most the newest.
    fn wanted_start(&self, retention: &Retention, moment: &Moment) -> Result<Offset, StorageError> {
        let start = self.start();
        // A cut needs a record behind it.
        let last = Offset::new(moment.tail.offset.get().saturating_sub(1));
        let mut wanted = start;
        if let Some(max_bytes) = retention.max_bytes {
            let mut kept = self.bytes_from(start);
            for cut in cuts(start, last) {
                if kept <= max_bytes {
                    break;
                }
                kept = self.bytes_from(cut);
                wanted = cut;
            }
        }
        if let (Some(max_age), Some(head)) = (retention.max_age, self.head_time(moment)?) {
            let oldest = head.saturating_sub(max_age.as_secs());
            for cut in cuts(start, last) {
                // What lies before a block is older than the block.
                if self.time_from(cut, moment)?.is_none_or(|time| time > oldest) {
                    break;
                }
                wanted = wanted.max(cut);
            }
        }
        Ok(wanted)
    }

    /// The oldest record that someone needs, and who.
    fn first_needed(
        &self,
        holds: &Holds,
        moment: &Moment,
    ) -> Result<Option<(Blocker, Offset)>, StorageError> {
        let Moment { tail, snapshot } = moment;
        let keyspaces = &self.core().keyspaces;
        let mut needs = Vec::new();
        for lane in lanes::all(keyspaces, snapshot)? {
            if lane.id.chain != *self.chain() {
                continue;
            }
            let cursor = lane.cursor.unwrap_or_default();
            // Its block too: a store only opens when the journal holds it.
            let block = match cursor.block {
                Some(block) => self.offset_of_at(block, snapshot)?,
                None => None,
            };
            let at = block.map_or(cursor.next, |block| block.min(cursor.next));
            needs.push((Blocker::Lane(lane.id.clone()), at));
            let undo = codec::state_prefix(lane.number, cursor.generation);
            if let Some(key) = first_key(&keyspaces.undo, undo.as_slice(), snapshot)? {
                let (at, _) = codec::parse_undo_key(&key)
                    .map_err(StorageError::damaged("the key of an undo row"))?;
                needs.push((Blocker::Undo(lane.id.clone()), at));
            }
            let outbox = codec::effects_prefix(lane.outbox);
            if let Some(key) = first_key(&keyspaces.outbox, outbox.as_slice(), snapshot)? {
                let effect = codec::parse_effect_key(&key)
                    .map_err(StorageError::damaged("a key of an outbox"))?;
                needs.push((Blocker::Effect(lane.id), effect.offset));
            }
        }
        needs.extend(holds.held.values().map(|at| (Blocker::Hold, *at)));
        let floor = tail.reorg_floor(self.core().options.reorg_depth_max);
        needs.extend(self.first_offset_above(floor, snapshot)?.map(|at| (Blocker::Reorg, at)));
        Ok(needs.into_iter().min_by_key(|(_, at)| *at))
    }

    /// The lowest offset of a block at or above a height.
    fn first_offset_above(
        &self,
        height: u64,
        snapshot: &Snapshot,
    ) -> Result<Option<Offset>, StorageError> {
        let from = codec::blocks_prefix(self.number(), height);
        let damaged = || StorageError::damaged("a row of the block index");
        let mut lowest: Option<Offset> = None;
        for entry in snapshot.range(&self.core().keyspaces.blocks, from..) {
            let (key, sealed) = entry.into_inner()?;
            if !key.starts_with(&self.number().to_be_bytes()) {
                break;
            }
            let offset = codec::decode_offset(&key, &sealed).map_err(damaged())?;
            lowest = Some(lowest.map_or(offset, |lowest| lowest.min(offset)));
        }
        Ok(lowest)
    }

    /// Whether the journal may start at a cut: at a block, and so that no revert goes back over it.
    /// None that may still come does: [`Blocker::Reorg`] keeps what it could go back to.
    fn can_begin_at(&self, cut: Offset, moment: &Moment) -> Result<bool, StorageError> {
        let record = self.record_at(cut, moment)?;
        let RecordView::Block(block) = record.record() else { return Ok(false) };
        // Those that came since the moment too.
        let lowest = self.lowest_ancestor(cut..self.tail().offset);
        Ok(lowest.is_none_or(|lowest| lowest >= block.this.number))
    }

    /// Removes the records before a cut, and hands out what they took on disk.
    fn remove_before(&self, cut: Offset, moment: &Moment) -> Result<u64, StorageError> {
        let bytes = self.bytes_from(self.start()).saturating_sub(self.bytes_from(cut));
        let keyspaces = &self.core().keyspaces;
        let first = self.record_at(cut, moment)?;
        let mut batch = Batch::default();
        let key = codec::start_key(self.number());
        let row = StartRow { start: cut.get(), previous: first.previous().0 };
        batch.put(&keyspaces.meta, key, seal_row(&key, row)).expect("a row is short");
        for (revert, ancestor) in self.reverts_in(self.start()..cut) {
            let key = codec::revert_key(self.number(), revert);
            batch.remove(&keyspaces.meta, key).expect("a segment has 16 384 records");
            let key = codec::trimmed_revert_key(self.number(), revert);
            let row = seal_row(&key, ancestor);
            batch.put(&keyspaces.meta, key, row).expect("a segment has 16 384 records");
        }
        self.core().writer.commit(batch, None);
        self.set_start(Start { offset: cut, previous: first.previous() });
        self.index().work().forget_before(cut);
        let segment = cut.get() / SEGMENT_RECORDS;
        self.index().trees().delete_before(segment, self.core())?;
        self.trees().delete_before(segment, self.core())?;
        Ok(bytes)
    }

    /// Removes the rows of the block index that name removed records.
    fn remove_block_rows(&self, moment: &Moment) -> Result<(), StorageError> {
        let start = self.start();
        let number = self.record_at(start, moment)?.head().number;
        let blocks = &self.core().keyspaces.blocks;
        let damaged = || StorageError::damaged("a row of the block index");
        let mut batch = Batch::default();
        let mut removed = 0;
        let end = number.saturating_add(ABANDONED_ABOVE);
        let all = codec::blocks_prefix(self.number(), 0)..codec::blocks_prefix(self.number(), end);
        for entry in moment.snapshot.range(blocks, all) {
            let (key, sealed) = entry.into_inner()?;
            if codec::decode_offset(&key, &sealed).map_err(damaged())? >= start {
                continue;
            }
            batch.remove(blocks, key.to_vec()).expect("keys only, and not too many");
            removed += 1;
            if removed == REMOVED_TOGETHER_MAX {
                self.core().writer.commit(std::mem::take(&mut batch), None);
                removed = 0;
            }
        }
        self.core().writer.commit(batch, None);
        Ok(())
    }

    /// How much of what retention keeps lies at or after a record.
    fn share_behind(
        &self,
        at: Offset,
        retention: &Retention,
        moment: &Moment,
    ) -> Result<f64, StorageError> {
        let mut share = 0.0_f64;
        if let Some(max_bytes) = retention.max_bytes {
            let segment = segment_start(at);
            let end = segment.plus(SEGMENT_RECORDS);
            let (from_segment, from_next) = (self.bytes_from(segment), self.bytes_from(end));
            let before = (at.get() - segment.get()) as f64 / SEGMENT_RECORDS as f64;
            let behind = bytes_behind(from_segment, from_next, before);
            share = share.max(behind / max_bytes.max(1) as f64);
        }
        if let (Some(max_age), Some(head)) = (retention.max_age, self.head_time(moment)?) {
            let time = self.time_from(at, moment)?.unwrap_or(head);
            let behind = head.saturating_sub(time) as f64;
            share = share.max(behind / max_age.as_secs_f64().max(1.0));
        }
        Ok(share)
    }

    /// What segments at or after the one of an offset take on disk, with their index.
    fn bytes_from(&self, offset: Offset) -> u64 {
        let number = offset.get() / SEGMENT_RECORDS;
        let trees = [self.segments(), self.index().trees().all()];
        let sizes = trees.iter().flat_map(|trees| trees.range(number..));
        sizes.map(|(_, tree)| tree.disk_space()).sum()
    }

    fn head_time(&self, moment: &Moment) -> Result<Option<u64>, StorageError> {
        let Some(head) = moment.tail.head else { return Ok(None) };
        match self.offset_of_at(head, &moment.snapshot)? {
            Some(offset) => self.time_at(offset, moment),
            None => Ok(None),
        }
    }

    /// The time of the block at an offset, `None` when the record there is none.
    fn time_at(&self, offset: Offset, moment: &Moment) -> Result<Option<u64>, StorageError> {
        Ok(match self.record_at(offset, moment)?.record() {
            RecordView::Block(block) => Some(block.timestamp),
            RecordView::Revert(_) | RecordView::Outcome(_) => None,
        })
    }

    /// The time of the first block at or after an offset.
    fn time_from(&self, offset: Offset, moment: &Moment) -> Result<Option<u64>, StorageError> {
        let offset = offset.max(self.start());
        for stored in self.read_at(moment.snapshot.clone(), offset..moment.tail.offset) {
            if let RecordView::Block(block) = stored.map_err(unreadable)?.record() {
                return Ok(Some(block.timestamp));
            }
        }
        Ok(None)
    }

    fn record_at(&self, offset: Offset, moment: &Moment) -> Result<StoredRecord, StorageError> {
        let record = self.read_at(moment.snapshot.clone(), offset..offset.plus(1)).next();
        record.unwrap_or(Err(ReadError::Missing { offset })).map_err(unreadable)
    }
}

fn unreadable(error: ReadError) -> StorageError {
    match error {
        ReadError::Storage(error) => error,
        error => StorageError::Journal(Box::new(error)),
    }
}

/// What lies behind a place in a segment, given what lies behind the segment's two ends.
fn bytes_behind(from_segment: u64, from_next: u64, passed: f64) -> f64 {
    // The engine may have sorted more into the later segments since the first end was looked at.
    let segment = from_segment.saturating_sub(from_next);
    from_segment as f64 - segment as f64 * passed
}

fn segment_start(offset: Offset) -> Offset {
    Offset::new(offset.get() / SEGMENT_RECORDS * SEGMENT_RECORDS)
}

/// Where segments begin after `start`, up to `last`.
fn cuts(start: Offset, last: Offset) -> impl Iterator<Item = Offset> {
    let first = start.get() / SEGMENT_RECORDS + 1;
    (first..=last.get() / SEGMENT_RECORDS).map(|number| Offset::new(number * SEGMENT_RECORDS))
}

fn first_key(
    keyspace: &Keyspace,
    prefix: &[u8],
    snapshot: &Snapshot,
) -> Result<Option<fjall::Slice>, StorageError> {
    Ok(snapshot.prefix(keyspace, prefix).next().map(fjall::Guard::key).transpose()?)
}

#[cfg(test)]
mod tests;
