//! Pages of the store, as views.
//!
//! The server and, when no daemon runs, the CLI ask the same functions. They read and decode, so
//! they block; every page has a bound, so they do not block for long.

use std::collections::BTreeMap;

use shepherd_log::{
    BlockView, ChainName, Cursor, EffectId, EffectResult, Journal, LaneId, Offset, Outcome,
    ReadError, RecordView as Record, StorageError, Store, StoredRecord, Tail,
};

use crate::view::{
    BlockRefView, CursorView, CursorsView, EffectView, EntryView, JournalView, LaneStateView,
    OffsetView, OutboxView, OutcomeView, RecordView, ReorgView, ReorgsView, SegmentView, StatView,
    StateView, TimedBlockView, UnsettledView, VerifyProblemView, VerifyView, block_time, bytes,
};

/// Most records on a page of the journal: some 300 KB of JSON.
pub const RECORDS_MAX: u64 = 1000;

/// Most records that one request verifies: some seconds of work, well within its time limit.
pub const VERIFY_RECORDS_MAX: u64 = 10_000;

/// Most entries on a page of state.
pub const ENTRIES_MAX: usize = 1000;

/// A page of state with this many bytes of keys and values takes no further entry.
///
/// An entry may have a mebibyte, and is twice as long in hexadecimal.
pub const ENTRIES_BYTES_ENOUGH: usize = 1 << 20;

/// Why a question about the store has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The store has no such chain.
    #[error("no chain called {0} has a journal here")]
    NoChain(ChainName),
    /// The store has no such lane.
    #[error("no lane {0} has a cursor here")]
    NoLane(LaneId),
    /// The lane never asked for it.
    #[error("lane {lane} has no effect {effect}; a reorg may have cancelled it before it was sent")]
    NoEffect {
        /// The lane.
        lane: LaneId,
        /// What was asked about.
        effect: EffectId,
    },
    /// A record cannot be read.
    #[error("the journal cannot be read")]
    Read(#[from] ReadError),
    /// The engine failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What is known of a running lane.
#[derive(Clone, Debug)]
pub struct LaneReport {
    /// What it is doing.
    pub state: StateView,
    /// Failures of its module.
    pub faults: u64,
}

/// The journal of a chain that the store knows.
pub fn journal(store: &Store, chain: &ChainName) -> Result<Journal, QueryError> {
    store.existing_journal(chain).ok_or_else(|| QueryError::NoChain(chain.clone()))
}

/// The cursor of every lane. A lane that nobody reports on is in the state `otherwise`.
pub fn cursors(
    store: &Store,
    reports: &BTreeMap<LaneId, LaneReport>,
    otherwise: &StateView,
) -> Result<CursorsView, QueryError> {
    let mut cursors = Vec::new();
    for (lane, cursor) in store.cursors()? {
        // Taken after the cursor, so that no cursor is ever seen ahead of its journal.
        let journal = journal(store, &lane.chain)?;
        let tail = journal.tail();
        let report = reports.get(&lane);
        cursors.push(CursorView {
            lane: lane.to_string(),
            module: lane.module.to_string(),
            chain: lane.chain.to_string(),
            state: report.map_or(otherwise, |report| &report.state).clone(),
            next: cursor.next.into(),
            tail: tail.offset.into(),
            block: cursor.block.map(BlockRefView::from),
            lag_records: tail.offset.get() - cursor.next.get(),
            lag_blocks: lag_blocks(&journal, &cursor, tail)?,
            commit: cursor.commit,
            generation: cursor.generation,
            digest: cursor.digest.to_string(),
            faults: report.map_or(0, |report| report.faults),
        });
    }
    cursors.sort_by(|a, b| a.lane.cmp(&b.lane));
    Ok(CursorsView { cursors })
}

/// How many heights lie between what a lane applied and the journal's head.
///
/// A lane that has applied nothing is behind by all blocks since the journal's first.
fn lag_blocks(journal: &Journal, cursor: &Cursor, tail: Tail) -> Result<u64, ReadError> {
    let Some(head) = tail.head else { return Ok(0) };
    if cursor.next == tail.offset {
        return Ok(0);
    }
    if let Some(block) = cursor.block {
        return Ok(head.number.saturating_sub(block.number));
    }
    let start = journal.start();
    let first = journal.read(start..start.plus(1)).next().transpose()?;
    let first = first.map_or(head.number, |record| record.head().number);
    Ok((head.number + 1).saturating_sub(first))
}

/// Records from `from` on, at most `limit` and [`RECORDS_MAX`].
pub fn records(journal: &Journal, from: Offset, limit: u64) -> Result<JournalView, QueryError> {
    // So that the start stays where it is while the page is read.
    let _hold = journal.hold(Offset::START);
    let tail = journal.tail().offset;
    let from = from.max(journal.start()).min(tail);
    let end = from.plus(limit.min(RECORDS_MAX)).min(tail);
    let records = journal
        .read(from..end)
        .map(|record| Ok(record_view(journal, &record?)))
        .collect::<Result<Vec<_>, ReadError>>()?;
    Ok(JournalView {
        chain: journal.chain().to_string(),
        next: end.into(),
        tail: tail.into(),
        records,
    })
}

fn record_view(journal: &Journal, record: &StoredRecord) -> RecordView {
    let offset = record.offset();
    match record.record() {
        Record::Block(block) => RecordView::Block {
            offset: offset.into(),
            block: block.this.into(),
            parent: block.parent.to_string(),
            time: block_time(block.timestamp),
            logs: block.log_count(),
            abandoned_by: journal.abandoned_by(offset).map(OffsetView::from),
        },
        Record::Revert(revert) => RecordView::Revert {
            offset: offset.into(),
            ancestor: revert.ancestor.into(),
            abandoned: revert.abandoned.len() as u64,
            abandoned_head: revert.abandoned.last().copied().map(BlockRefView::from),
        },
        Record::Outcome(outcome) => RecordView::Outcome {
            offset: offset.into(),
            module: outcome.module.to_string(),
            outcome: OutcomeView::from(&outcome),
        },
    }
}

/// What is known about a chain's blocks besides how they link, such as how they hash. Says what
/// is wrong with one.
pub type BlockCheck = dyn Fn(&ChainName, &BlockView<'_>) -> Result<(), String> + Send + Sync;

/// Verifies records from `from` on, at most `limit` and [`VERIFY_RECORDS_MAX`].
///
/// The record before the page is read again, so that pages that join have no gap between them.
pub fn verify(
    journal: &Journal,
    from: Offset,
    limit: u64,
    check: &BlockCheck,
) -> Result<VerifyView, QueryError> {
    let check = |record: &Record<'_>| match record {
        Record::Block(block) => check(journal.chain(), block),
        Record::Revert(_) | Record::Outcome(_) => Ok(()),
    };
    // So that both verifications see the same start.
    let _hold = journal.hold(Offset::START);
    let tail = journal.tail().offset;
    let from = from.max(journal.start()).min(tail);
    let end = from.plus(limit.min(VERIFY_RECORDS_MAX)).min(tail);
    let start = Offset::new(from.get().saturating_sub(1)).max(journal.start());
    let whole = journal.verify(start..end, check)?;
    let before = journal.verify(start..from, check)?;
    let problems = whole.problems.iter().skip(before.problems.len());
    Ok(VerifyView {
        chain: journal.chain().to_string(),
        from: from.into(),
        next: end.into(),
        tail: tail.into(),
        blocks: whole.blocks - before.blocks,
        reverts: whole.reverts - before.reverts,
        outcomes: whole.outcomes - before.outcomes,
        logs: whole.logs - before.logs,
        bytes: whole.bytes - before.bytes,
        head: whole.head.map(BlockRefView::from),
        digest: whole.digest.to_string(),
        problems: problems.map(VerifyProblemView::from).collect(),
    })
}

/// Most reorgs on a page. Each is as long as it is deep, and deep ones are rare.
pub const REORGS_MAX: usize = 1000;

/// The newest reorgs that a journal holds, at most `last` and [`REORGS_MAX`].
pub fn reorgs(journal: &Journal, last: usize) -> Result<ReorgsView, QueryError> {
    let all = journal.reverts()?;
    let shown = &all[all.len().saturating_sub(last.min(REORGS_MAX))..];
    Ok(ReorgsView {
        chain: journal.chain().to_string(),
        total: all.len() as u64,
        reorgs: shown.iter().map(ReorgView::from).collect(),
    })
}

/// What a journal holds.
pub fn stat(journal: &Journal) -> Result<StatView, QueryError> {
    let stat = journal.stat()?;
    Ok(StatView {
        chain: journal.chain().to_string(),
        chain_id: journal.chain_id(),
        genesis: journal.genesis()?.map(|genesis| genesis.to_string()),
        start: stat.start.into(),
        tail: stat.tail.into(),
        records: stat.records,
        blocks: stat.blocks,
        reverts: stat.reverts,
        outcomes: stat.outcomes,
        first: stat.first.map(TimedBlockView::from),
        last: stat.last.map(TimedBlockView::from),
        indexed_to: stat.indexed_to.into(),
        bytes_on_disk: stat.bytes_on_disk,
        segments: stat.segments.iter().map(SegmentView::from).collect(),
    })
}

/// Entries of a lane's state whose keys start with `prefix` and come after `after`.
pub fn state(
    store: &Store,
    lane: &LaneId,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<LaneStateView, QueryError> {
    let snapshot = store.lane_snapshot(lane)?.ok_or_else(|| QueryError::NoLane(lane.clone()))?;
    let limit = limit.min(ENTRIES_MAX);
    let mut entries = Vec::new();
    let mut size = 0;
    let mut more_after = None;
    for entry in snapshot.entries(prefix, after) {
        let (key, value) = entry?;
        if entries.len() == limit || size >= ENTRIES_BYTES_ENOUGH {
            more_after = entries.last().map(|entry: &EntryView| entry.key.clone());
            break;
        }
        size += key.len() + value.len();
        entries.push(EntryView { key: bytes(&key), value: bytes(&value) });
    }
    let next = snapshot.cursor().next.into();
    Ok(LaneStateView { lane: lane.to_string(), next, entries, more_after })
}

/// Most effects on a page of an outbox.
pub const EFFECTS_MAX: usize = 1000;

/// How far behind an effect its outcome is looked for. Half a second of reading.
pub const OUTCOME_RECORDS_MAX: u64 = 10_000;

/// Effects of a lane that nothing has come of yet and that come after `after`.
pub fn outbox(
    store: &Store,
    lane: &LaneId,
    after: Option<EffectId>,
    limit: usize,
) -> Result<OutboxView, QueryError> {
    let snapshot = store.lane_snapshot(lane)?.ok_or_else(|| QueryError::NoLane(lane.clone()))?;
    let entries = snapshot.outbox()?;
    let limit = limit.min(EFFECTS_MAX);
    let mut page = entries.iter().filter(|entry| after.is_none_or(|after| after < entry.id));
    let effects: Vec<UnsettledView> = page.by_ref().take(limit).map(UnsettledView::from).collect();
    let more_after = page.next().and(effects.last()).map(|last| last.effect.clone());
    Ok(OutboxView { lane: lane.to_string(), unsettled: entries.len() as u64, effects, more_after })
}

/// One effect of a lane, whatever has become of it.
pub fn effect(store: &Store, lane: &LaneId, id: EffectId) -> Result<EffectView, QueryError> {
    let snapshot = store.lane_snapshot(lane)?.ok_or_else(|| QueryError::NoLane(lane.clone()))?;
    let no_effect = || QueryError::NoEffect { lane: lane.clone(), effect: id };
    let (block, effect) = snapshot.effect(id)?.ok_or_else(no_effect)?;
    let entry = snapshot.outbox()?.into_iter().find(|entry| entry.id == id);
    let outcome = match entry {
        Some(_) => None,
        None => outcome(&journal(store, &lane.chain)?, lane, id)?,
    };
    let refusal_body = outcome.as_ref().and_then(|outcome| match &outcome.result {
        EffectResult::Refused(refusal) => Some(String::from_utf8_lossy(&refusal.body).into_owned()),
        _ => None,
    });
    Ok(EffectView {
        lane: lane.to_string(),
        effect: match &entry {
            Some(entry) => entry.into(),
            None => UnsettledView::settled(id, block, &effect),
        },
        body: String::from_utf8_lossy(&effect.body).into_owned(),
        outcome: outcome.as_ref().map(OutcomeView::from),
        refusal_body,
    })
}

/// The outcome of an effect, when it follows soon enough and was not removed.
fn outcome(journal: &Journal, lane: &LaneId, id: EffectId) -> Result<Option<Outcome>, QueryError> {
    let first = id.offset.plus(1);
    // Effects outlive the records around them.
    let still_there = first.max(journal.start())..first.plus(OUTCOME_RECORDS_MAX);
    for stored in journal.read(still_there) {
        if let Record::Outcome(outcome) = stored?.record()
            && outcome.effect == id
            && outcome.module == lane.module
        {
            return Ok(Some(outcome));
        }
    }
    Ok(None)
}

/// Reads an effect's name: the record whose handling asked for it, and its position there.
pub fn effect_id(text: &str) -> Result<EffectId, String> {
    let parse = || {
        let (offset, index) = text.split_once('.')?;
        Some(EffectId { offset: Offset::new(offset.parse().ok()?), index: index.parse().ok()? })
    };
    parse().ok_or_else(|| format!("`{text}` is not an effect: write RECORD.POSITION, as in 17.0"))
}
