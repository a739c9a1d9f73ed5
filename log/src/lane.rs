//! A lane's cursor and the step that moves it.
//!
//! ```text
//!            next                     end
//!   … [blk] | [blk] [rev] [blk] [blk] |  …
//!             └──────── step ────────┘
//!     state, cursor, tape, undo, commit row: one batch
//! ```
//!
//! A step may cover one record or thousands. However the journal is cut into steps, the lane ends
//! with the same state, the same tape and the same digest:
//!
//! - the *lane digest* is chained over what canonical blocks wrote, and a revert takes it back to
//!   where it stood before the first abandoned block. It therefore depends on the blocks that
//!   count and on nothing else;
//! - *undo* is kept per record, not per step, so that a revert may end in the middle of a step.
//!
//! What a lane does when it is told an outcome stands at the height of the newest block then, and
//! is taken back with that block; which outcomes it is then told again is in `deliveries`.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    ops::Range,
    sync::Arc,
};

use fjall::{Readable, Snapshot};

use crate::{
    absence::EverSet,
    cache::StateCache,
    changes::Changes,
    codec::{
        self, CONTENT_BYTES_MAX, CommitRow, CursorRow, RecordView, TapeRow, TraceRow, UndoHead,
        UndoRow, VersionRow, seal, seal_row, unseal_row,
    },
    deliveries::Deliveries,
    effect::{Effect, EffectId, Outcome},
    find::{Concerning, LogFilter},
    highwater::Mark,
    journal::{Journal, ReadError, Records, StoredRecord, Tail},
    lane_snapshot::{Entry, LaneSnapshot},
    lanes::{self, KnownLane, LaneVersion, Role},
    outbox::{self, Outbox, OutboxEntry, TakenBack},
    state_sum::StateSum,
    store::{Core, LaneHold, StorageError},
    trace::Trace,
    types::{BlockRef, Digest, LaneId, Offset, Revert},
    writer::{Batch, SizeError, Submitted},
};

/// Longest key of a module.
pub const STATE_KEY_BYTES_MAX: usize = 1024;

/// Longest value of a module.
pub const STATE_VALUE_BYTES_MAX: usize = CONTENT_BYTES_MAX;

/// What one record may write: the sum of [`row_bytes`] over its writes, and of the bytes of its
/// effects with [`ROW_OVERHEAD_BYTES`] each.
///
/// With [`TAPE_BYTES_MAX`] and [`STEP_BYTES_ENOUGH`] this keeps every step within one batch.
pub const WRITES_BYTES_MAX: usize = 3 << 20;

/// Effects of one record.
///
/// What is due at once beyond that is better spread over the next blocks: the orderbook takes a
/// few hundred orders a second.
pub const EFFECTS_MAX: usize = 1_000;

/// What the answers to one record's reads may weigh: each its length and [`ROW_OVERHEAD_BYTES`].
pub const TAPE_BYTES_MAX: usize = 2 << 20;

/// A step with this much to write is committed before it takes another record.
///
/// Large enough to make the sync at its end cheap, small enough that one more record of the
/// largest size, with the undo that waits and the undo that is removed, still fits the batch.
const STEP_BYTES_ENOUGH: usize = 4 << 19;

/// Undo that piles up in a step is written ahead of it in pieces of this size: what a record
/// replaces may be far larger than what it writes, and rows at or after the cursor mean nothing.
const UNDO_BYTES_AHEAD: usize = 1 << 19;

/// Where a lane stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The first record the lane has not passed.
    pub next: Offset,
    /// The newest block that counts before `next`.
    pub block: Option<BlockRef>,
    /// How many steps were committed.
    pub commit: u64,
    /// Which version of its derived state the lane uses.
    pub generation: u32,
    /// The lane digest.
    pub digest: Digest,
    /// Blocks from this height on can be taken back.
    pub undo_from: u64,
    /// Sum of the lane's state.
    pub state: StateSum,
}

impl Default for Cursor {
    /// A fresh lane's cursor.
    fn default() -> Cursor {
        Cursor {
            next: Offset::START,
            block: None,
            commit: 0,
            generation: 0,
            digest: Digest::ZERO,
            undo_from: 0,
            state: StateSum::default(),
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "commit {}, next {}, ", self.commit, self.next)?;
        match self.block {
            Some(block) => write!(f, "block {block}, ")?,
            None => f.write_str("no block, ")?,
        }
        write!(f, "generation {}, digest {}, ", self.generation, self.digest)?;
        write!(f, "state {}", self.state)
    }
}

impl From<&Cursor> for CursorRow {
    fn from(cursor: &Cursor) -> CursorRow {
        CursorRow {
            next: cursor.next.get(),
            block: cursor.block.map(Into::into),
            commit: cursor.commit,
            generation: cursor.generation,
            digest: cursor.digest.0,
            undo_from: cursor.undo_from,
            state: Some(cursor.state.0),
        }
    }
}

impl From<CursorRow> for Cursor {
    fn from(row: CursorRow) -> Cursor {
        Cursor {
            next: Offset::new(row.next),
            block: row.block.map(Into::into),
            commit: row.commit,
            generation: row.generation,
            digest: Digest(row.digest),
            undo_from: row.undo_from,
            // Rows without a sum are completed when the store opens.
            state: StateSum(row.state.unwrap_or_default()),
        }
    }
}

/// What one step did. The rows of a lane are numbered from 1 and never overwritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its number.
    pub number: u64,
    /// The records it passed.
    pub records: Range<Offset>,
    /// The newest block that counts at its end.
    pub block: Option<BlockRef>,
    /// Keys it set or removed.
    pub writes: u64,
    /// The lane digest at its end.
    pub digest: Digest,
    /// sha256 of the module that ran.
    pub module: [u8; 32],
    /// Fuel its records took.
    pub fuel: u64,
    /// Sum of the state it left, which a store of format 2 did not keep.
    pub state: Option<StateSum>,
}

impl Commit {
    pub(crate) fn new(number: u64, row: CommitRow) -> Commit {
        Commit {
            number,
            records: Offset::new(row.first)..Offset::new(row.end),
            block: row.block.map(Into::into),
            writes: row.writes,
            digest: Digest(row.digest),
            module: row.module,
            fuel: row.fuel,
            state: row.state.map(StateSum),
        }
    }
}

/// One answer of the outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapeEntry {
    /// Position among the reads of its record.
    pub call: u32,
    /// Digest of the request.
    pub request: Digest,
    /// The answer, encoded by the host.
    pub answer: Vec<u8>,
}

/// Keys and their new values; `None` removes.
pub type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What a module did with one record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// State it changed.
    pub writes: Writes,
    /// Answers it was given.
    pub tape: Vec<TapeEntry>,
    /// What it wants done outside, in this order.
    pub effects: Vec<Effect>,
    /// Fuel it took.
    pub fuel: u64,
}

/// Why a revert cannot be carried out on a lane.
#[derive(Debug, thiserror::Error)]
pub enum RevertError {
    /// The values that the abandoned blocks replaced are no longer kept.
    #[error(
        "blocks after {ancestor} must be taken back, but undo is only kept from block {undo_from}"
    )]
    UndoGone {
        /// The block to go back to.
        ancestor: BlockRef,
        /// The lowest block that can be taken back.
        undo_from: u64,
    },
    /// The engine failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a record's changes were not taken into the step.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// One key or value, or their sum, is too large.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// The engine failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// One module on one chain: the right to move its cursor.
pub struct Lane {
    core: Arc<Core>,
    journal: Journal,
    hold: LaneHold,
    number: u32,
    role: Role,
    cursor: Cursor,
    /// Records that can be taken back, oldest first. Their heights increase: taking a block back
    /// removes it from the end.
    undoable: VecDeque<StoredUndo>,
    remembered: StateCache,
    /// Known of a lane that had no state when it was opened.
    ever_set: Option<EverSet>,
    outbox: Outbox,
    /// Whether steps are written while the next one is computed.
    is_behind: bool,
    in_flight: Option<InFlight>,
}

/// A step on its way to the disk.
struct InFlight {
    changes: Changes,
    submitted: Submitted,
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Another holder must find what this one has done.
        self.settle();
    }
}

impl Lane {
    pub(crate) fn open(
        core: Arc<Core>,
        journal: Journal,
        hold: LaneHold,
        known: KnownLane,
    ) -> Result<Lane, StorageError> {
        let remembered = core.cache_shares.join();
        let undoable = VecDeque::new();
        let KnownLane { number, role, outbox, cursor, .. } = known;
        let cursor = cursor.unwrap_or_default();
        let outbox = Outbox::open(core.clone(), journal.clone(), hold.id.clone(), outbox)?;
        let ever_set = (cursor.commit == 0).then(EverSet::default);
        let mut lane = Lane {
            core,
            journal,
            hold,
            number,
            role,
            cursor,
            undoable,
            remembered,
            ever_set,
            outbox,
            is_behind: false,
            in_flight: None,
        };
        lane.load_undo()?;
        Ok(lane)
    }

    /// Finds the records that can be taken back, and removes undo that was written ahead of a step
    /// which then did not commit.
    fn load_undo(&mut self) -> Result<(), StorageError> {
        let damaged = || StorageError::damaged("an undo row");
        let snapshot = self.core.snapshot();
        let undo = &self.core.keyspaces.undo;
        let prefix = codec::state_prefix(self.number, self.cursor.generation);
        let mut ahead = Batch::default();
        for entry in snapshot.prefix(undo, prefix) {
            let (key, sealed) = entry.into_inner()?;
            let (offset, index) = codec::parse_undo_key(&key).map_err(damaged())?;
            if offset >= self.cursor.next {
                ahead.remove(undo, key.to_vec()).expect("at most one step's rows, keys only");
            } else if index == 0 {
                let head: UndoHead = unseal_row(&key, &sealed).map_err(damaged())?;
                self.undoable.push_back(StoredUndo { offset, number: head.number, rows: 1 });
            } else if let Some(undo) = self.undoable.back_mut() {
                undo.rows += 1;
            }
        }
        if ahead.bytes() > 0 {
            self.core.writer.commit(ahead, None);
        }
        Ok(())
    }

    /// Which lane this is.
    pub fn id(&self) -> &LaneId {
        &self.hold.id
    }

    /// Where the lane stands.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The journal it follows.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Whether its effects only are kept: it is a replay's, or to take a live lane's place.
    pub fn is_replay(&self) -> bool {
        self.role != Role::Live
    }

    /// Makes durable what the lane runs from its cursor on, unless it says so already.
    pub fn set_version(&mut self, version: LaneVersion) -> Result<(), StorageError> {
        let keyspaces = &self.core.keyspaces;
        let known = lanes::versions(keyspaces, &self.core.snapshot(), self.number)?;
        if known.last().is_some_and(|(_, newest)| *newest == version) {
            return Ok(());
        }
        let key = codec::version_key(self.number, self.cursor.next);
        let row = seal_row(&key, VersionRow::from(version));
        let mut batch = Batch::default();
        batch.put(&keyspaces.meta, key, row).expect("a version is short");
        self.core.writer.commit(batch, None);
        Ok(())
    }

    /// Its effects that nothing has come of yet.
    pub fn outbox(&self) -> Outbox {
        self.outbox.clone()
    }

    /// Begins a step at the cursor.
    pub fn begin(&mut self) -> Step<'_> {
        // In this order: whatever the tail names is in the snapshot.
        let tail = self.journal.tail();
        let snapshot = self.core.snapshot();
        let records = if self.journal.is_of(&self.core) {
            snapshot.clone()
        } else {
            self.journal.core().snapshot()
        };
        let before = self.snapshot_of(snapshot);
        Step {
            cursor: self.cursor.clone(),
            lane: self,
            tail,
            before,
            records,
            changes: Changes::default(),
            other_bytes: 0,
            undo: Vec::new(),
            undo_bytes: 0,
            undo_written: 0,
            undone_ahead: Vec::new(),
            undone: 0,
            taken_back_above: None,
            tape: Vec::new(),
            effects: Vec::new(),
            outcomes: BTreeMap::new(),
            traces: Vec::new(),
            record: RecordTotals::default(),
            fuel: 0,
            is_rehearsal: false,
        }
    }

    fn snapshot(&self) -> LaneSnapshot {
        self.snapshot_of(self.core.snapshot())
    }

    fn snapshot_of(&self, snapshot: Snapshot) -> LaneSnapshot {
        LaneSnapshot::new(
            self.core.keyspaces.clone(),
            snapshot,
            self.number,
            self.outbox.number(),
            self.cursor.clone(),
        )
    }

    /// The value of a key as its steps have left it, when that is known without looking it up.
    fn known(&self, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        let in_flight = self.in_flight.as_ref().and_then(|step| step.changes.get(key));
        in_flight.or_else(|| self.remembered.get(key))
    }

    /// Whether the state may have the key. `false` is certain.
    fn may_have(&self, key: &[u8]) -> bool {
        self.ever_set.as_ref().is_none_or(|ever_set| ever_set.may_have(key))
    }

    /// Lets a replay compute the next step while the one before it is being written: a kill then
    /// takes back up to two steps instead of one.
    ///
    /// What others see of the lane lags behind by that step, until [`Lane::flush`].
    pub fn write_behind(&mut self) {
        assert!(self.is_replay(), "what a live lane has committed is durable");
        self.is_behind = true;
    }

    /// When this returns, every step survives a power cut, and so does every later one when its
    /// commit returns.
    pub fn flush(&mut self) {
        self.is_behind = false;
        self.settle();
    }

    fn settle(&mut self) {
        if let Some(InFlight { changes, submitted }) = self.in_flight.take() {
            submitted.wait();
            self.remembered.commit(changes);
        }
    }

    pub(crate) fn is_rebuild(&self) -> bool {
        matches!(self.role, Role::Rebuild { .. })
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn store(&self) -> &Arc<Core> {
        &self.core
    }

    /// Takes a live lane's place, with its outbox.
    pub(crate) fn become_live(&mut self, outbox: Outbox) {
        self.flush();
        self.role = Role::Live;
        self.outbox = outbox;
    }
}

/// One lane's passage over a range of records.
///
/// Dropping a step changes nothing. `commit` writes the changes (state, effects, tape, undo) and
/// the moved cursor in one batch, so none can reach the disk without the others.
#[must_use = "a step changes nothing until it is committed"]
pub struct Step<'l> {
    lane: &'l mut Lane,
    tail: Tail,
    before: LaneSnapshot,
    /// The journal, as of the same moment.
    records: Snapshot,
    cursor: Cursor,
    /// What its records have changed so far.
    changes: Changes,
    /// What else it has to write: tape, effects, traces.
    other_bytes: usize,
    /// Undo of this step's own records, oldest first.
    undo: Vec<Undo>,
    undo_bytes: usize,
    /// How many of them were already written ahead.
    undo_written: usize,
    /// Records of this step whose undo was written ahead and then used by a revert.
    undone_ahead: Vec<StoredUndo>,
    /// How many records of earlier steps this step takes back, newest first.
    undone: usize,
    /// The lowest height a revert of this step goes back to.
    taken_back_above: Option<u64>,
    tape: Vec<(Offset, TapeEntry)>,
    effects: Vec<(EffectId, BlockRef, Effect)>,
    /// What a venue made of effects.
    outcomes: BTreeMap<EffectId, Outcome>,
    traces: Vec<Trace>,
    record: RecordTotals,
    fuel: u64,
    /// Whether it only goes over what the lane has passed already.
    is_rehearsal: bool,
}

/// What the calls for one record have done together.
#[derive(Default)]
struct RecordTotals {
    offset: Option<Offset>,
    reads: u32,
    effects: u32,
    written_bytes: usize,
    answered_bytes: usize,
}

/// A record whose undo is stored.
#[derive(Clone, Copy)]
struct StoredUndo {
    offset: Offset,
    /// Height of its block.
    number: u64,
    /// How many rows it has, the head included.
    rows: u32,
}

/// What takes a record back.
struct Undo {
    offset: Offset,
    number: u64,
    digest: Digest,
    previous: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Undo {
    fn stored(&self) -> StoredUndo {
        let rows = u32::try_from(self.previous.len() + 1).expect("bounded by WRITES_BYTES_MAX");
        StoredUndo { offset: self.offset, number: self.number, rows }
    }
}

impl Step<'_> {
    /// Where the step has come to.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The end of the journal when the step began.
    pub fn tail(&self) -> Tail {
        self.tail
    }

    /// Whether it is a lane whose effects only are kept.
    pub fn is_replay(&self) -> bool {
        self.lane.is_replay()
    }

    /// The records from the cursor to the tail.
    pub fn records(&self) -> Records {
        self.lane.journal.read_at(self.records.clone(), self.cursor.next..self.tail.offset)
    }

    /// Those of them that may concern a lane that looks for logs that match any of the filters:
    /// what [`Step::pass_to`] may not pass over.
    pub fn concerning(&self, filters: &[LogFilter]) -> Concerning {
        self.lane.journal.concerning(self.cursor.next..self.tail.offset, filters)
    }

    /// Passes over blocks that do not concern the lane.
    pub fn pass_to(&mut self, offset: Offset) -> Result<(), ReadError> {
        assert!(offset <= self.tail.offset, "a step passes only records that are in the journal");
        assert!(self.cursor.next <= offset, "a step only goes on");
        if self.cursor.next == offset {
            return Ok(());
        }
        let last = Offset::new(offset.get() - 1);
        let stored = self.lane.journal.read_at(self.records.clone(), last..offset).next();
        let stored = stored.expect("the range is not empty")?;
        assert!(matches!(stored.record(), RecordView::Block(_)), "only blocks are passed over");
        self.cursor.block = Some(stored.head());
        self.cursor.next = offset;
        Ok(())
    }

    /// The offset of the revert that abandoned the block at `offset`, as far as this step's
    /// journal goes.
    pub fn abandoned_by(&self, offset: Offset) -> Option<Offset> {
        self.lane.journal.abandoned_by(offset).filter(|revert| *revert < self.tail.offset)
    }

    /// Whether the step should be committed before it takes another record.
    pub fn is_full(&self) -> bool {
        self.changes.bytes() + self.other_bytes >= STEP_BYTES_ENOUGH
    }

    /// The value under a key, with the step's own changes.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        if let Some(changed) = self.changes.get(key) {
            return Ok(changed.clone());
        }
        if let Some(known) = self.lane.known(key) {
            return Ok(known.clone());
        }
        if !self.lane.may_have(key) {
            return Ok(None);
        }
        let value = self.before.get(key)?;
        self.lane.remembered.put(key.to_vec(), value.clone());
        Ok(value)
    }

    /// At most `limit` entries whose keys start with `prefix` and come after `after`, in key
    /// order, with the step's own changes.
    pub fn list(
        &mut self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        self.see_what_was_committed();
        let mut stored = self.before.entries(prefix, after).peekable();
        let start = after.filter(|after| *after >= prefix).unwrap_or(prefix);
        let ours = self.changes.from(start, prefix);
        let mut ours = ours.filter(|(key, _)| after != Some(key.as_slice())).peekable();
        let mut page = Vec::new();
        while page.len() < limit {
            let stored_key = match stored.peek() {
                Some(Ok((key, _))) => Some(key),
                Some(Err(_)) => return Err(stored.next().expect("peeked").expect_err("peeked")),
                None => None,
            };
            let take_ours = match (stored_key, ours.peek()) {
                (None, None) => break,
                (Some(_), None) => false,
                (None, Some(_)) => true,
                (Some(stored), Some((ours, _))) => *ours <= stored,
            };
            if take_ours {
                let (key, value) = ours.next().expect("peeked");
                stored.next_if(|entry| entry.as_ref().is_ok_and(|(stored, _)| stored == key));
                page.extend(value.clone().map(|value| (key.clone(), value)));
            } else {
                page.push(stored.next().expect("peeked")?);
            }
        }
        Ok(page)
    }

    /// Takes what a module did with the block at the cursor into the step.
    ///
    /// After an error the step must be dropped.
    pub fn apply(&mut self, block: BlockRef, applied: Applied) -> Result<(), ApplyError> {
        let offset = self.cursor.next;
        assert!(offset < self.tail.offset, "a step passes only records that are in the journal");
        let is_undone = self.abandoned_by(offset).is_some();
        self.take(offset, block, applied, is_undone)?;
        self.cursor.block = Some(block);
        self.cursor.next = offset.plus(1);
        Ok(())
    }

    /// Takes what a module did when it was told the outcome at the cursor into the step, which is
    /// nothing when the outcome is another lane's.
    ///
    /// After an error the step must be dropped.
    pub fn pass_outcome(&mut self, applied: Applied) -> Result<(), ApplyError> {
        let offset = self.cursor.next;
        assert!(offset < self.tail.offset, "a step passes only records that are in the journal");
        self.told(offset, applied)?;
        self.cursor.next = offset.plus(1);
        Ok(())
    }

    /// Takes what a module did when it was told something by the revert before the cursor. A
    /// revert may tell several things, each in a call of its own.
    ///
    /// After an error the step must be dropped.
    pub fn told_by_revert(&mut self, applied: Applied) -> Result<(), ApplyError> {
        self.told(Offset::new(self.cursor.next.get() - 1), applied)
    }

    /// Takes what a module did when it was told what a venue made of one of its effects, right
    /// after the record before the cursor.
    ///
    /// Only for replays. After an error the step must be dropped.
    pub fn told_by_venue(&mut self, outcome: Outcome, applied: Applied) -> Result<(), ApplyError> {
        assert!(self.is_replay(), "what came of a live lane's effects is in the journal");
        self.other_bytes += outcome.bytes() + ROW_OVERHEAD_BYTES;
        self.outcomes.insert(outcome.effect, outcome);
        self.told_by_revert(applied)
    }

    /// Remembers what the handling of a record took. Only replays do; others forget it.
    pub fn trace(&mut self, trace: Trace) {
        if matches!(self.lane.role, Role::Replay { .. }) {
            self.other_bytes += TRACE_BYTES;
            self.traces.push(trace);
        }
    }

    /// How many effects the record before the cursor has asked for so far.
    pub fn effects_of(&self, record: Offset) -> u32 {
        if self.record.offset == Some(record) { self.record.effects } else { 0 }
    }

    fn told(&mut self, offset: Offset, applied: Applied) -> Result<(), ApplyError> {
        let block = self.cursor.block.expect("an outcome and a revert follow a block");
        let is_undone = self.undone_by(offset, block.number).is_some();
        self.take(offset, block, applied, is_undone)
    }

    fn take(
        &mut self,
        offset: Offset,
        block: BlockRef,
        applied: Applied,
        is_undone: bool,
    ) -> Result<(), ApplyError> {
        if self.record.offset != Some(offset) {
            self.record = RecordTotals { offset: Some(offset), ..RecordTotals::default() };
        }
        check_sizes(&applied, &mut self.record)?;
        if !applied.writes.is_empty() || !applied.effects.is_empty() {
            let digest = self.cursor.digest;
            self.cursor.digest = chain_digest(digest, block, &applied);
            // A reorg may still come, or one in the journal's future does.
            if is_undone || self.is_reachable_by_reorg(block.number) {
                let undo = self.undo_of(offset, block.number, digest, &applied.writes)?;
                self.push_undo(undo)?;
            } else {
                self.cursor.undo_from = self.cursor.undo_from.max(block.number + 1);
            }
            for (key, value) in applied.writes {
                self.write(key, value);
            }
        }
        for entry in applied.tape {
            self.other_bytes += entry.answer.len() + ROW_OVERHEAD_BYTES;
            let call = self.record.reads;
            self.record.reads += 1;
            self.tape.push((offset, TapeEntry { call, ..entry }));
        }
        for effect in applied.effects {
            self.other_bytes += outbox::effect_bytes(&effect);
            let id = EffectId { offset, index: self.record.effects };
            self.record.effects += 1;
            self.effects.push((id, block, effect));
        }
        self.fuel += applied.fuel;
        Ok(())
    }

    /// What the lane has to be told at the revert at the cursor.
    pub fn deliveries(&self, revert: &Revert) -> Result<Deliveries, ReadError> {
        let at = self.cursor.next;
        let journal = &self.lane.journal;
        let from = journal.first_abandoned_by(at, revert.abandoned.len());
        let between = journal.read_at(self.records.clone(), from..at);
        journal.deliveries(self.lane.id(), between, at, revert.ancestor.number)
    }

    /// Whether what asked for the effect of the outcome at the cursor has been taken back.
    pub fn is_taken_back(&self, outcome: &Outcome) -> bool {
        self.lane.journal.is_taken_back(outcome, self.cursor.next)
    }

    /// The offset of the revert that takes back what a lane does at a height while it passes
    /// `offset`, as far as this step's journal goes.
    pub fn undone_by(&self, offset: Offset, height: u64) -> Option<Offset> {
        let revert = self.lane.journal.undone_by(offset, height);
        revert.filter(|revert| *revert < self.tail.offset)
    }

    /// Passes over records that the revert at `revert` takes back, without having run them.
    ///
    /// This is for records whose reads no endpoint can answer any more. Nothing of theirs is in
    /// the state, so nothing has to be taken back; outcomes among them are told at the revert.
    pub fn pass_abandoned(&mut self, revert: Offset) {
        let mut offset = self.cursor.next;
        while offset < revert {
            assert!(
                self.abandoned_by(offset).is_none_or(|by| by <= revert),
                "a block that outlives the revert must be run"
            );
            offset = offset.plus(1);
        }
        self.cursor.next = revert;
    }

    /// Takes back what abandoned blocks did, and moves the cursor over the revert.
    ///
    /// After an error the step must be dropped.
    pub fn revert(&mut self, revert: &Revert) -> Result<(), RevertError> {
        let ancestor = revert.ancestor;
        let undo_from = self.cursor.undo_from;
        if undo_from > ancestor.number + 1 {
            return Err(RevertError::UndoGone { ancestor, undo_from });
        }
        while let Some(undo) = self.pop_undo(ancestor.number)? {
            self.cursor.digest = undo.digest;
            for (key, value) in undo.previous {
                self.write(key, value);
            }
        }
        if !self.is_replay() {
            self.effects.retain(|(_, block, _)| block.number <= ancestor.number);
        }
        let above = self.taken_back_above.unwrap_or(u64::MAX).min(ancestor.number);
        self.taken_back_above = Some(above);
        if self.cursor.block.is_some_and(|block| block.number > ancestor.number) {
            self.cursor.block = Some(ancestor);
        }
        self.cursor.next = self.cursor.next.plus(1);
        Ok(())
    }

    /// Goes back to before the oldest block that could be taken back, so that what came after it
    /// can be gone over once more. Returns the lane digest before each record that is gone over
    /// and has changed something, oldest first; nothing when nothing can be taken back.
    ///
    /// Reverts are not among them: what they change comes after what they take back, at a digest
    /// that no record leaves. Such a step is a rehearsal: it is never committed.
    pub fn go_back(&mut self) -> Result<Vec<(Offset, Digest)>, ReadError> {
        assert!(self.cursor.next == self.lane.cursor.next, "a step goes back before it goes on");
        self.is_rehearsal = true;
        let mut undoable: Vec<StoredUndo> = self.lane.undoable.iter().copied().collect();
        // What is out of reach is removed little by little, and what came after it is not kept.
        undoable.retain(|undo| undo.number >= self.cursor.undo_from);
        let mut first = None;
        for (index, undo) in undoable.iter().enumerate() {
            // A revert's own changes stand at the ancestor, not where the lane came from.
            if let RecordView::Block(block) = self.record_at(undo.offset)?.record() {
                let before = block.this.number.checked_sub(1);
                let before = before.map(|number| BlockRef { number, hash: block.parent });
                let is_first = undo.offset == self.lane.journal.start();
                first = Some((index, undo.offset, before.filter(|_| !is_first)));
                break;
            }
        }
        let Some((first, offset, block)) = first else { return Ok(Vec::new()) };
        let mut digests = Vec::new();
        for stored in undoable[first..].iter().rev() {
            let undo = self.load_undo(*stored)?;
            self.undone += 1;
            if !matches!(self.record_at(undo.offset)?.record(), RecordView::Revert(_)) {
                digests.push((undo.offset, undo.digest));
            }
            self.cursor.digest = undo.digest;
            for (key, value) in undo.previous {
                self.write(key, value);
            }
        }
        digests.reverse();
        self.cursor.next = offset;
        self.cursor.block = block;
        Ok(digests)
    }

    fn record_at(&self, offset: Offset) -> Result<StoredRecord, ReadError> {
        let range = offset..offset.plus(1);
        let stored = self.lane.journal.read_at(self.records.clone(), range).next();
        stored.ok_or(ReadError::Missing { offset })?
    }

    /// Whether a rehearsal has come to the state the lane has, and the first key that is another.
    pub fn first_difference(&self) -> Result<Option<Vec<u8>>, StorageError> {
        for (key, value) in self.changes.sorted() {
            if self.before.get(key)? != *value {
                return Ok(Some(key.clone()));
            }
        }
        Ok(None)
    }

    /// Makes the step durable and moves the lane's cursor.
    ///
    /// When this returns, all of it survives a power cut. A step that passed no record is dropped.
    /// An error is a revert that restores more than fits one batch, or a state that cannot be read;
    /// nothing was written then.
    pub fn commit(mut self, module: [u8; 32]) -> Result<Cursor, ApplyError> {
        assert!(!self.is_rehearsal, "a rehearsal is not committed");
        if self.cursor.next == self.lane.cursor.next {
            return Ok(self.lane.cursor.clone());
        }
        if self.undo_bytes >= UNDO_BYTES_AHEAD {
            self.write_undo_ahead()?;
        }
        self.cursor.commit += 1;
        self.cursor.state = self.state_after()?;
        if let Some(ever_set) = &mut self.lane.ever_set {
            for (key, value) in self.changes.iter() {
                if value.is_some() {
                    ever_set.insert(key);
                }
            }
        }
        let pruned = self.prunable_undo();
        let mut batch = self.batch(module, pruned)?;
        // Nothing may be sent between the decision what is taken back and the commit.
        let outbox = self.lane.outbox.clone();
        let mut held = outbox.hold();
        let taken_back = match self.taken_back_above {
            Some(height) => TakenBack::above(&held, height),
            None => TakenBack::nothing(),
        };
        taken_back.write(&self.lane.core.keyspaces, outbox.number(), &mut batch)?;
        let mark = Mark::Lane(self.lane.number, self.cursor.commit);
        let submitted = self.lane.core.writer.submit(batch, Some(mark));
        let changes_outbox = self.taken_back_above.is_some() || !self.effects.is_empty();
        if !self.lane.is_behind {
            submitted.wait();
            self.lane.in_flight = None;
            self.lane.remembered.commit(self.changes);
        } else {
            self.lane.settle();
            self.lane.in_flight = Some(InFlight { changes: self.changes, submitted });
        }
        taken_back.carry_out(&mut held);
        let is_live = !self.lane.is_replay();
        for (id, block, effect) in self.effects.iter().filter(|_| is_live) {
            held.insert(*id, OutboxEntry::waiting(*id, *block, effect));
        }
        drop(held);
        if changes_outbox && is_live {
            outbox.changed();
        }
        let undoable = &mut self.lane.undoable;
        undoable.truncate(undoable.len() - self.undone);
        undoable.extend(self.undo.iter().map(Undo::stored));
        undoable.drain(..pruned);
        self.lane.cursor = self.cursor.clone();
        Ok(self.cursor)
    }

    /// Waits for the step before this one, if it is not durable yet, and looks at the store anew.
    fn see_what_was_committed(&mut self) {
        if self.lane.in_flight.is_some() {
            self.lane.settle();
            self.before = self.lane.snapshot();
        }
    }

    /// The sum of the state that the step's changes lead to.
    fn state_after(&self) -> Result<StateSum, StorageError> {
        let mut state = self.lane.cursor.state;
        for (key, value) in self.changes.iter() {
            let read;
            let previous = match self.lane.known(key) {
                Some(known) => known,
                None if !self.lane.may_have(key) => &None,
                None => {
                    read = self.before.get(key)?;
                    &read
                }
            };
            if let Some(previous) = previous {
                state.remove(key, previous);
            }
            if let Some(value) = value {
                state.add(key, value);
            }
        }
        Ok(state)
    }

    fn write(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.changes.put(key, value);
    }

    fn is_reachable_by_reorg(&self, number: u64) -> bool {
        number > self.tail.reorg_floor(self.lane.core.options.reorg_depth_max)
    }

    fn undo_of(
        &mut self,
        offset: Offset,
        number: u64,
        digest: Digest,
        writes: &Writes,
    ) -> Result<Undo, StorageError> {
        let mut previous = Vec::with_capacity(writes.len());
        for key in writes.keys() {
            previous.push((key.clone(), self.get(key)?));
        }
        Ok(Undo { offset, number, digest, previous })
    }

    /// Keeps the undo of a record, or what one more call for the same record has replaced.
    fn push_undo(&mut self, undo: Undo) -> Result<(), SizeError> {
        let rows = |previous: &[(Vec<u8>, Option<Vec<u8>>)]| -> usize {
            previous.iter().map(|(key, value)| row_bytes(key, value.as_ref())).sum()
        };
        if let Some(last) = self.undo.last_mut()
            && last.offset == undo.offset
        {
            let known: BTreeSet<&Vec<u8>> = last.previous.iter().map(|(key, _)| key).collect();
            let mut more = undo.previous;
            more.retain(|(key, _)| !known.contains(key));
            self.undo_bytes += rows(&more);
            last.previous.append(&mut more);
            return Ok(());
        }
        // Only whole records are written ahead.
        if self.undo_bytes >= UNDO_BYTES_AHEAD && !self.is_rehearsal {
            self.write_undo_ahead()?;
        }
        self.undo_bytes += ROW_OVERHEAD_BYTES + rows(&undo.previous);
        self.undo.push(undo);
        Ok(())
    }

    fn write_undo_ahead(&mut self) -> Result<(), SizeError> {
        let mut batch = Batch::default();
        for undo in &self.undo[self.undo_written..] {
            for (key, row) in self.undo_rows(undo) {
                batch.put(&self.lane.core.keyspaces.undo, key, row)?;
                if batch.bytes() >= UNDO_BYTES_AHEAD {
                    self.lane.core.writer.commit(std::mem::take(&mut batch), None);
                }
            }
        }
        self.lane.core.writer.commit(batch, None);
        self.undo_written = self.undo.len();
        self.undo_bytes = 0;
        Ok(())
    }

    fn undo_rows<'u>(&self, undo: &'u Undo) -> impl Iterator<Item = ([u8; 20], Vec<u8>)> + use<'u> {
        let (lane, generation) = (self.lane.number, self.cursor.generation);
        let head = UndoHead { number: undo.number, digest: undo.digest.0 };
        let head_key = codec::undo_key(lane, generation, undo.offset, 0);
        let rows = (1u32..).zip(&undo.previous).map(move |(index, (key, previous))| {
            let row = UndoRow { key: key.clone(), previous: previous.clone() };
            let key = codec::undo_key(lane, generation, undo.offset, index);
            (key, seal_row(&key, row))
        });
        std::iter::once((head_key, seal_row(&head_key, head))).chain(rows)
    }

    /// The newest undo above a height, taken off the pile.
    fn pop_undo(&mut self, ancestor: u64) -> Result<Option<Undo>, StorageError> {
        if let Some(undo) = self.undo.pop_if(|undo| undo.number > ancestor) {
            if self.undo.len() < self.undo_written {
                self.undo_written = self.undo.len();
                self.undone_ahead.push(undo.stored());
            }
            return Ok(Some(undo));
        }
        let stored = self.lane.undoable.iter().rev().nth(self.undone).copied();
        let Some(stored) = stored.filter(|undo| undo.number > ancestor) else { return Ok(None) };
        self.undone += 1;
        self.load_undo(stored).map(Some)
    }

    fn load_undo(&mut self, stored: StoredUndo) -> Result<Undo, StorageError> {
        let StoredUndo { offset, number, .. } = stored;
        self.see_what_was_committed();
        let damaged = || StorageError::damaged(format!("the undo of record {offset}"));
        let mut undo = Undo { offset, number, digest: Digest::ZERO, previous: Vec::new() };
        let prefix = codec::undo_prefix(self.lane.number, self.cursor.generation, offset);
        let snapshot = self.before.engine_snapshot();
        for entry in snapshot.prefix(&self.lane.core.keyspaces.undo, prefix) {
            let (key, sealed) = entry.into_inner()?;
            let (_, index) = codec::parse_undo_key(&key).map_err(damaged())?;
            if index == 0 {
                let head: UndoHead = unseal_row(&key, &sealed).map_err(damaged())?;
                undo.digest = Digest(head.digest);
            } else {
                let row: UndoRow = unseal_row(&key, &sealed).map_err(damaged())?;
                undo.previous.push((row.key, row.previous));
            }
        }
        Ok(undo)
    }

    /// How many of the lane's oldest undo records no reorg can ask for any more.
    fn prunable_undo(&mut self) -> usize {
        let kept = self.lane.undoable.len() - self.undone;
        let mut rows = 0;
        let prunable = self
            .lane
            .undoable
            .iter()
            .take(kept)
            .take_while(|undo| {
                rows += undo.rows as usize;
                let is_ahead = |revert| revert >= self.cursor.next;
                rows <= PRUNED_ROWS_MAX
                    && !self.is_reachable_by_reorg(undo.number)
                    && !self.undone_by(undo.offset, undo.number).is_some_and(is_ahead)
            })
            .count();
        if let Some(last) = prunable.checked_sub(1) {
            let pruned_from = self.lane.undoable[last].number + 1;
            self.cursor.undo_from = self.cursor.undo_from.max(pruned_from);
        }
        prunable
    }

    fn batch(&self, module: [u8; 32], pruned: usize) -> Result<Batch, SizeError> {
        let keyspaces = &self.lane.core.keyspaces;
        let (lane, generation) = (self.lane.number, self.cursor.generation);
        let mut batch = Batch::default();
        for (key, value) in self.changes.sorted() {
            let key = codec::state_key(lane, generation, key);
            match value {
                Some(value) => {
                    let sealed = seal(&key, value);
                    batch.put(&keyspaces.state, key, sealed)?;
                }
                None => batch.remove(&keyspaces.state, key)?,
            }
        }
        let undoable = &self.lane.undoable;
        let taken_back = undoable.range(undoable.len() - self.undone..);
        let gone = undoable.range(..pruned).chain(taken_back).chain(&self.undone_ahead);
        for undo in gone {
            for index in 0..undo.rows {
                let key = codec::undo_key(lane, generation, undo.offset, index);
                batch.remove(&keyspaces.undo, key)?;
            }
        }
        for undo in &self.undo[self.undo_written..] {
            for (key, row) in self.undo_rows(undo) {
                batch.put(&keyspaces.undo, key, row)?;
            }
        }
        for (offset, entry) in &self.tape {
            let key = codec::tape_key(lane, *offset, entry.call);
            let row = TapeRow { request: entry.request.0, answer: entry.answer.clone() };
            batch.put(&keyspaces.tape, key, seal_row(&key, row))?;
        }
        match self.lane.role {
            Role::Live => {
                let outbox = self.lane.outbox.number();
                outbox::write_effects(keyspaces, outbox, &self.effects, &mut batch)?;
                outbox::write_waiting(keyspaces, outbox, &self.effects, &mut batch)?;
            }
            Role::Replay { .. } => {
                outbox::write_effects(keyspaces, lane, &self.effects, &mut batch)?;
            }
            // They were asked for when the live lane passed these records.
            Role::Rebuild { .. } => (),
        }
        for (id, outcome) in &self.outcomes {
            let key = codec::effect_key(lane, *id);
            batch.put(&keyspaces.outcomes, key, codec::seal_outcome(&key, outcome))?;
        }
        for trace in &self.traces {
            let key = codec::trace_key(lane, trace.offset);
            batch.put(&keyspaces.traces, key, seal_row(&key, TraceRow::from(trace)))?;
        }
        let key = codec::commit_key(lane, self.cursor.commit);
        let row = CommitRow {
            generation,
            first: self.lane.cursor.next.get(),
            end: self.cursor.next.get(),
            block: self.cursor.block.map(Into::into),
            writes: self.changes.len() as u64,
            digest: self.cursor.digest.0,
            module,
            fuel: self.fuel,
            state: Some(self.cursor.state.0),
        };
        batch.put(&keyspaces.commits, key, seal_row(&key, row))?;
        let key = codec::cursor_key(lane);
        batch.put(&keyspaces.cursors, key, seal_row(&key, CursorRow::from(&self.cursor)))?;
        Ok(batch)
    }
}

/// What a row weighs besides the module's own key and value: lane, generation, seal, framing.
pub const ROW_OVERHEAD_BYTES: usize = 64;

/// What a trace weighs in a step.
const TRACE_BYTES: usize = 256;

/// Undo rows removed by one step. The rest waits for the next steps.
const PRUNED_ROWS_MAX: usize = 16_384;

/// What a key and its value weigh in a step.
pub fn row_bytes(key: &[u8], value: Option<&Vec<u8>>) -> usize {
    key.len() + value.map_or(0, Vec::len) + ROW_OVERHEAD_BYTES
}

fn check_sizes(applied: &Applied, record: &mut RecordTotals) -> Result<(), SizeError> {
    for (key, value) in &applied.writes {
        if key.is_empty() || key.len() > STATE_KEY_BYTES_MAX {
            return Err(SizeError::Key { bytes: key.len() });
        }
        if let Some(value) = value
            && value.len() > STATE_VALUE_BYTES_MAX
        {
            return Err(SizeError::Value { bytes: value.len() });
        }
    }
    let effects = record.effects as usize + applied.effects.len();
    if effects > EFFECTS_MAX {
        return Err(SizeError::Effects { effects });
    }
    let writes = applied.writes.iter().map(|(key, value)| row_bytes(key, value.as_ref()));
    let effects = applied.effects.iter().map(outbox::effect_bytes);
    let tape = applied.tape.iter().map(|entry| entry.answer.len() + ROW_OVERHEAD_BYTES);
    record.written_bytes += writes.chain(effects).sum::<usize>();
    record.answered_bytes += tape.sum::<usize>();
    if record.written_bytes > WRITES_BYTES_MAX || record.answered_bytes > TAPE_BYTES_MAX {
        return Err(SizeError::Batch { bytes: record.written_bytes + record.answered_bytes });
    }
    Ok(())
}

/// The lane digest after something was written or asked for at a block.
fn chain_digest(before: Digest, block: BlockRef, applied: &Applied) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&before.0);
    hasher.update(&block.number.to_be_bytes());
    hasher.update(block.hash.as_slice());
    hash_writes(&mut hasher, &applied.writes);
    for effect in &applied.effects {
        hasher.update(&[2]);
        hasher.update(codec::effect_digest(block, effect).0.as_slice());
    }
    Digest(*hasher.finalize().as_bytes())
}

fn hash_writes(hasher: &mut blake3::Hasher, writes: &Writes) {
    for (key, value) in writes {
        hasher.update(&(key.len() as u64).to_be_bytes());
        hasher.update(key);
        match value {
            Some(value) => {
                hasher.update(&[1]);
                hasher.update(&(value.len() as u64).to_be_bytes());
                hasher.update(value);
            }
            None => {
                hasher.update(&[0]);
            }
        }
    }
}

impl Applied {
    /// Digest of what was written, chained to an earlier one.
    pub(crate) fn digest(&self, before: Digest) -> Digest {
        if self.writes.is_empty() {
            return before;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&before.0);
        hash_writes(&mut hasher, &self.writes);
        Digest(*hasher.finalize().as_bytes())
    }
}
