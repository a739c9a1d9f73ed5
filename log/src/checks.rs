//! What a store must agree on before anyone may use it.
//!
//! The engine's checksums do not cover everything: one flipped bit can bring an old value back or
//! cut the tail off without a word (hazards F3 and F4). So each fact is written twice in different
//! ways and compared here:
//!
//! - a cursor is overwritten by every step, and each step also adds a commit row under its own
//!   number: the newest row and the cursor must say the same;
//! - a cursor names its block, and the journal must hold that block before the cursor's `next`;
//! - a cursor names the sum of its lane's state, and the state must sum up to it;
//! - records carry the digest of the record before them;
//! - the high-water file names tails and commit numbers that must be there.

use std::path::Path;

use fjall::{Database, Readable, Snapshot};

use crate::{
    codec::{
        self, CHAIN_PREFIX, ChainRow, CommitRow, DecodeError, RevertRow, StartRow, unseal_row,
    },
    effect::EffectId,
    highwater::{self, Highwater, HighwaterError},
    index::{self, LoadedIndex},
    journal::{self, ReadError, Records, Reverts, Start, StoredRecord},
    lane::Cursor,
    lane_snapshot::LaneSnapshot,
    lanes::{self, KnownLane, Role},
    state_sum::StateSum,
    store::{Keyspaces, StorageError},
    trees::Trees,
    types::{BlockRef, ChainName, Digest, LaneId, Offset},
};

/// Records at the end of a journal whose chain of digests is checked at every start.
///
/// What a damaged write-ahead log can touch lies at the end; the whole chain is checked by
/// `shepherd journal verify`. A thousand records take a few milliseconds.
const TAIL_RECORDS_CHECKED: u64 = 1000;

/// Something in a store that contradicts something else in it.
#[derive(Debug, thiserror::Error)]
pub enum Finding {
    /// The format file is not ours.
    #[error("its format file reads {text:?}")]
    Format {
        /// What it reads.
        text: String,
    },
    /// The high-water mark is missing or damaged.
    #[error("{0}")]
    Highwater(HighwaterError),
    /// The journal is shorter than it was known to be.
    #[error("the journal of {chain} ends at {tail}, but records before {mark} were durable")]
    JournalBelowMark {
        /// The chain.
        chain: String,
        /// Where it ends now.
        tail: Offset,
        /// Where it ended.
        mark: Offset,
    },
    /// The journal is another than the one that was marked.
    #[error("the journal of {chain} has other records before {mark} than were durable")]
    JournalChanged {
        /// The chain.
        chain: ChainName,
        /// The mark they precede.
        mark: Offset,
    },
    /// A record at the end of a journal cannot be read or does not follow the one before it.
    #[error("the journal of {chain}: {problem}")]
    Journal {
        /// The chain.
        chain: ChainName,
        /// What is wrong.
        problem: ReadError,
    },
    /// A lane is known but has no cursor.
    #[error("lane {lane} has no cursor")]
    CursorMissing {
        /// The lane.
        lane: LaneId,
    },
    /// The cursor and the newest commit row differ.
    #[error("lane {lane}: its cursor says {cursor}, its newest commit row says {commit}")]
    CursorAndCommitDiffer {
        /// The lane.
        lane: LaneId,
        /// The cursor, in words.
        cursor: String,
        /// The row, in words.
        commit: String,
    },
    /// The state is not the one the newest step left.
    #[error("lane {lane}: its state sums up to {found}, commit {commit} left {left}")]
    StateChanged {
        /// The lane.
        lane: LaneId,
        /// Its newest commit.
        commit: u64,
        /// The sum of what is there.
        found: StateSum,
        /// The sum that was there.
        left: StateSum,
    },
    /// A cursor points past the end of its journal.
    #[error("lane {lane} is at {next}, but its journal ends at {tail}")]
    CursorAheadOfJournal {
        /// The lane.
        lane: LaneId,
        /// Its `next`.
        next: Offset,
        /// The journal's tail.
        tail: Offset,
    },
    /// A cursor needs records that were removed.
    #[error("lane {lane} is at {next}, but its journal starts at {start}")]
    CursorBehindJournal {
        /// The lane.
        lane: LaneId,
        /// Its `next`.
        next: Offset,
        /// The first record of the journal.
        start: Offset,
    },
    /// An effect of a record that its lane has not passed.
    #[error("lane {lane} is at {next}, but its outbox has effect {effect}")]
    EffectAheadOfCursor {
        /// The lane.
        lane: LaneId,
        /// Its `next`.
        next: Offset,
        /// The effect.
        effect: EffectId,
    },
    /// The block a cursor names is not in the journal before it.
    #[error("lane {lane} stands on block {block}, which the journal does not hold before {next}")]
    CursorBlockUnknown {
        /// The lane.
        lane: LaneId,
        /// The block.
        block: BlockRef,
        /// The cursor's `next`.
        next: Offset,
    },
    /// A lane has fewer commits than it was known to have.
    #[error("lane {lane} has {commit} commits, but {mark} were durable")]
    LaneBelowMark {
        /// The lane.
        lane: String,
        /// Its commits now.
        commit: u64,
        /// Its commits then.
        mark: u64,
    },
}

/// A chain as found on disk.
pub struct LoadedChain {
    pub name: ChainName,
    pub number: u16,
    pub chain_id: u64,
    pub segments: Trees,
    pub index: LoadedIndex,
    pub start: Start,
    pub tail: Offset,
    pub tail_digest: Digest,
    pub head: Option<BlockRef>,
    pub highest: Option<u64>,
    pub reverts: Reverts,
    problem: Option<ReadError>,
}

impl LoadedChain {
    /// A chain nothing was journaled of.
    pub fn empty(name: ChainName, number: u16, chain_id: u64) -> LoadedChain {
        LoadedChain {
            name,
            number,
            chain_id,
            segments: Trees::new(journal::segment_prefix(number)),
            index: LoadedIndex::empty(number),
            start: Start::WHOLE,
            tail: Offset::START,
            tail_digest: Digest::ZERO,
            head: None,
            highest: None,
            reverts: Reverts::default(),
            problem: None,
        }
    }
}

/// Everything the checks compare.
pub struct Loaded {
    pub chains: Vec<LoadedChain>,
    pub lanes: Vec<KnownLane>,
}

/// Reads what is there.
pub fn load(
    database: &Database,
    keyspaces: &Keyspaces,
    snapshot: &Snapshot,
) -> Result<Loaded, StorageError> {
    let mut chains = Vec::new();
    for entry in snapshot.prefix(&keyspaces.meta, CHAIN_PREFIX) {
        let (key, value) = entry.into_inner()?;
        let row: ChainRow =
            unseal_row(&key, &value).map_err(StorageError::damaged("the row of a chain"))?;
        let name = parse_name(&key[CHAIN_PREFIX.len()..], "the name of a chain")?;
        chains.push(load_chain(database, keyspaces, snapshot, name, row)?);
    }
    Ok(Loaded { chains, lanes: lanes::all(keyspaces, snapshot)? })
}

fn load_chain(
    database: &Database,
    keyspaces: &Keyspaces,
    snapshot: &Snapshot,
    name: ChainName,
    row: ChainRow,
) -> Result<LoadedChain, StorageError> {
    let mut chain = LoadedChain::empty(name, row.number, row.chain_id);
    chain.start = load_start(keyspaces, snapshot, row.number)?;
    let start = chain.start.offset;
    chain.segments = journal::open_segments(database, row.number, start)?;
    let segments = chain.segments.all();
    for entry in snapshot.prefix(&keyspaces.meta, codec::trimmed_reverts_prefix(row.number)) {
        let (key, value) = entry.into_inner()?;
        let damaged = || StorageError::damaged("the row of a removed revert");
        let ancestor = unseal_row(&key, &value).map_err(damaged())?;
        let offset = codec::parse_revert_key(&key).map_err(damaged())?;
        chain.reverts.ancestors.insert(offset, ancestor);
    }
    for entry in snapshot.prefix(&keyspaces.meta, codec::reverts_prefix(row.number)) {
        let (key, value) = entry.into_inner()?;
        let damaged = || StorageError::damaged("the row of a revert");
        let revert: RevertRow = unseal_row(&key, &value).map_err(damaged())?;
        let offset = codec::parse_revert_key(&key).map_err(damaged())?;
        let abandoned = revert.abandoned.iter().map(|block| (Offset::new(*block), offset));
        chain.reverts.abandoned.extend(abandoned);
        let range = offset..offset.plus(1);
        match Records::new(segments.clone(), snapshot.clone(), start, range).next() {
            Some(Ok(record)) => {
                chain.reverts.ancestors.insert(offset, record.head().number);
            }
            Some(Err(problem)) => chain.problem = Some(problem),
            None => chain.problem = Some(ReadError::Missing { offset }),
        }
    }
    chain.highest = journal::find_highest(row.number, keyspaces, snapshot)?;
    chain.tail = journal::find_tail(&segments, snapshot)?;
    if start != Offset::START && chain.tail <= start {
        chain.problem = Some(ReadError::Missing { offset: start });
        return Ok(chain);
    }
    // Segments come and go as a whole: one that is lost shows at its first record.
    let mut records = Records::new(segments.clone(), snapshot.clone(), start, start..chain.tail);
    match records.next() {
        Some(Ok(record)) if record.previous() != chain.start.previous => {
            chain.problem = Some(ReadError::BrokenChain { offset: start });
            return Ok(chain);
        }
        Some(Err(problem)) => {
            chain.problem = Some(problem);
            return Ok(chain);
        }
        Some(Ok(_)) | None => (),
    }
    let first = Offset::new(chain.tail.get().saturating_sub(TAIL_RECORDS_CHECKED)).max(start);
    if first == start {
        chain.tail_digest = chain.start.previous;
    }
    let records = start..chain.tail;
    chain.index = index::open_index(database, keyspaces, snapshot, row.number, records)?;
    for record in Records::new(segments, snapshot.clone(), start, first..chain.tail) {
        let offset = record.as_ref().map_or(first, StoredRecord::offset);
        let starts_chain = offset == first && first != start;
        match record {
            Ok(record) if starts_chain || record.previous() == chain.tail_digest => {
                chain.tail_digest = record.digest();
                chain.head = Some(record.head());
            }
            Ok(_) => chain.problem = Some(ReadError::BrokenChain { offset }),
            Err(problem) => chain.problem = Some(problem),
        }
        if chain.problem.is_some() {
            break;
        }
    }
    Ok(chain)
}

fn load_start(
    keyspaces: &Keyspaces,
    snapshot: &Snapshot,
    chain: u16,
) -> Result<Start, StorageError> {
    let key = codec::start_key(chain);
    let Some(value) = snapshot.get(&keyspaces.meta, key)? else { return Ok(Start::WHOLE) };
    let row: StartRow = unseal_row(&key, &value)
        .map_err(StorageError::damaged("the row that says where a journal starts"))?;
    Ok(Start { offset: Offset::new(row.start), previous: Digest(row.previous) })
}

/// A name out of a key.
pub fn parse_name<T: std::str::FromStr>(bytes: &[u8], what: &str) -> Result<T, StorageError> {
    std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
        StorageError::damaged(what)(DecodeError::Layout(String::from_utf8_lossy(bytes).into()))
    })
}

/// Compares everything with everything, and hands out the mark to go on from.
///
/// The state of the lane that is about to be rebuilt may be any.
pub fn check(
    loaded: &mut Loaded,
    highwater_file: &Path,
    keyspaces: &Keyspaces,
    snapshot: &Snapshot,
    to_rebuild: Option<&LaneId>,
) -> Result<Result<Highwater, Vec<Finding>>, StorageError> {
    let mut findings = Vec::new();
    let highwater = highwater::read(highwater_file).unwrap_or_else(|error| {
        findings.push(Finding::Highwater(error));
        Highwater::default()
    });
    check_chains(loaded, &highwater, snapshot, &mut findings);
    let to_rebuild = |lane: &KnownLane| lane.is_named() && Some(&lane.id) == to_rebuild;
    for lane in loaded.lanes.iter_mut().filter(|lane| !to_rebuild(lane)) {
        check_state(lane, keyspaces, snapshot, &mut findings)?;
    }
    for lane in &loaded.lanes {
        check_lane(lane, loaded, keyspaces, snapshot, &mut findings)?;
    }
    let dropped = lanes::dropped(keyspaces, snapshot)?;
    check_lane_marks(loaded, &dropped, &highwater, &mut findings);
    Ok(if findings.is_empty() { Ok(highwater) } else { Err(findings) })
}

fn check_chains(
    loaded: &mut Loaded,
    highwater: &Highwater,
    snapshot: &Snapshot,
    findings: &mut Vec<Finding>,
) {
    for chain in &mut loaded.chains {
        if let Some(problem) = chain.problem.take() {
            findings.push(Finding::Journal { chain: chain.name.clone(), problem });
        }
    }
    for (number, (mark, digest)) in &highwater.chains {
        let chain = loaded.chains.iter().find(|chain| chain.number == *number);
        let tail = chain.map_or(Offset::START, |chain| chain.tail);
        let Some(chain) = chain.filter(|chain| chain.tail >= *mark) else {
            let chain = chain.map_or(format!("chain {number}"), |chain| chain.name.to_string());
            findings.push(Finding::JournalBelowMark { chain, tail, mark: *mark });
            continue;
        };
        if !has_digest(chain, *mark, *digest, snapshot) {
            findings.push(Finding::JournalChanged { chain: chain.name.clone(), mark: *mark });
        }
    }
}

/// Whether the record before `mark` still has the digest it had.
fn has_digest(chain: &LoadedChain, mark: Offset, digest: Digest, snapshot: &Snapshot) -> bool {
    let start = chain.start;
    if mark == start.offset {
        return digest == start.previous;
    }
    if mark < start.offset {
        // Removed since, within the moment that the mark lags behind.
        return true;
    }
    let last = Offset::new(mark.get() - 1);
    Records::new(chain.segments.all(), snapshot.clone(), start.offset, last..mark)
        .next()
        .is_some_and(|record| record.is_ok_and(|record| record.digest() == digest))
}

/// Reads a lane's whole state and compares its sum.
///
/// Nothing less would do: of whichever entries the write-ahead log holds writes, an older one may
/// have taken the place of the newest.
fn check_state(
    lane: &mut KnownLane,
    keyspaces: &Keyspaces,
    snapshot: &Snapshot,
    findings: &mut Vec<Finding>,
) -> Result<(), StorageError> {
    let Some(cursor) = &mut lane.cursor else { return Ok(()) };
    let cursor_there = cursor.clone();
    let view = LaneSnapshot::new(
        keyspaces.clone(),
        snapshot.clone(),
        lane.number,
        lane.outbox,
        cursor_there,
    );
    let found = view.state_sum()?;
    if !lane.is_summed {
        cursor.state = found;
    } else if found != cursor.state {
        let (lane, commit, left) = (lane.id.clone(), cursor.commit, cursor.state);
        findings.push(Finding::StateChanged { lane, commit, found, left });
    }
    Ok(())
}

fn check_lane(
    lane: &KnownLane,
    loaded: &Loaded,
    keyspaces: &Keyspaces,
    snapshot: &Snapshot,
    findings: &mut Vec<Finding>,
) -> Result<(), StorageError> {
    let id = &lane.id;
    let Some(cursor) = &lane.cursor else {
        findings.push(Finding::CursorMissing { lane: id.clone() });
        return Ok(());
    };
    let newest = newest_commit(lane.number, keyspaces, snapshot)?;
    let chain = loaded.chains.iter().find(|chain| chain.name == id.chain);
    let start = chain.map_or(Offset::START, |chain| chain.start.offset);
    // A lane that has not committed stands where it was created; a live one holds the start of
    // the journal there.
    let created = match lane.role {
        Role::Live => start,
        Role::Replay { start, .. } | Role::Rebuild { start } => start,
    };
    let generation = if newest.is_none() { cursor.generation } else { 0 };
    let fresh = || Cursor { next: created, generation, ..Cursor::default() };
    let by_commit = newest.as_ref().map_or_else(fresh, |(commit, row)| Cursor {
        next: Offset::new(row.end),
        block: row.block.map(BlockRef::from),
        commit: *commit,
        generation: row.generation,
        digest: Digest(row.digest),
        undo_from: cursor.undo_from,
        state: row.state.map_or(cursor.state, StateSum),
    });
    if by_commit != *cursor {
        findings.push(Finding::CursorAndCommitDiffer {
            lane: id.clone(),
            cursor: cursor.to_string(),
            commit: newest.map_or("there is none".to_owned(), |_| by_commit.to_string()),
        });
    }
    // The journal of a replay is elsewhere, and looked at when its lane is opened.
    if matches!(lane.role, Role::Replay { .. }) {
        return Ok(());
    }
    if cursor.next < start {
        findings.push(Finding::CursorBehindJournal { lane: id.clone(), next: cursor.next, start });
    }
    let tail = chain.map_or(Offset::START, |chain| chain.tail);
    if cursor.next > tail {
        findings.push(Finding::CursorAheadOfJournal { lane: id.clone(), next: cursor.next, tail });
    }
    let mut unsettled = snapshot.prefix(&keyspaces.outbox, codec::effects_prefix(lane.outbox));
    if let Some(entry) = unsettled.next_back() {
        let key = entry.key()?;
        let effect =
            codec::parse_effect_key(&key).map_err(StorageError::damaged("a key of an outbox"))?;
        if effect.offset >= cursor.next {
            let (lane, next) = (id.clone(), cursor.next);
            findings.push(Finding::EffectAheadOfCursor { lane, next, effect });
        }
    }
    if let (Some(chain), Some(block)) = (chain, cursor.block) {
        let key = codec::block_key(chain.number, block);
        let at = snapshot
            .get(&keyspaces.blocks, key)?
            .and_then(|value| codec::decode_offset(&key, &value).ok());
        // A later reappearance of the same block moves its index row past the cursor.
        if at.is_none() {
            let (lane, next) = (id.clone(), cursor.next);
            findings.push(Finding::CursorBlockUnknown { lane, block, next });
        }
    }
    Ok(())
}

fn newest_commit(
    lane: u32,
    keyspaces: &Keyspaces,
    snapshot: &Snapshot,
) -> Result<Option<(u64, CommitRow)>, StorageError> {
    let Some(entry) = snapshot.prefix(&keyspaces.commits, lane.to_be_bytes()).next_back() else {
        return Ok(None);
    };
    let (key, value) = entry.into_inner()?;
    let damaged = || StorageError::damaged("a commit row");
    let row = codec::unseal_commit(&key, &value).map_err(damaged())?;
    let commit = codec::parse_commit_key(&key).map_err(damaged())?;
    Ok(Some((commit, row)))
}

fn check_lane_marks(
    loaded: &Loaded,
    dropped: &[(u32, bool)],
    highwater: &Highwater,
    findings: &mut Vec<Finding>,
) {
    for (number, mark) in &highwater.lanes {
        // Another generation took its place since.
        if dropped.iter().any(|(dropped, _)| dropped == number) {
            continue;
        }
        let lane = loaded.lanes.iter().find(|lane| lane.number == *number);
        let commit = lane.and_then(|lane| lane.cursor.as_ref()).map_or(0, |cursor| cursor.commit);
        if lane.is_none() || commit < *mark {
            let lane = lane.map_or(format!("number {number}"), |lane| lane.id.to_string());
            findings.push(Finding::LaneBelowMark { lane, commit, mark: *mark });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        Applied, Block, Header, Offset, OpenError, Options, Record, Store, Writes,
        codec::{CursorRow, seal, seal_row, state_key},
        writer::Batch,
    };

    const LANE: &str = "ledger@devnet";

    /// A store with one lane that wrote `key` twice, once in each of two blocks.
    fn worked(dir: &Path) -> Store {
        let store = Store::open(dir, Options::default()).unwrap();
        let journal = store.journal(&"devnet".parse().unwrap(), 1).unwrap();
        let blocks: Vec<BlockRef> = (0..2u8)
            .map(|n| BlockRef { number: n.into(), hash: alloy_primitives::B256::repeat_byte(n) })
            .collect();
        let record = |this: BlockRef, parent| {
            let header = Header { this, parent, timestamp: 1, rlp: Default::default() };
            Record::Block(Block { header, logs: Vec::new() })
        };
        let records = [record(blocks[0], blocks[1].hash), record(blocks[1], blocks[0].hash)];
        journal.append(Offset::START, &records).unwrap();
        let mut lane = store.lane(&LANE.parse().unwrap()).unwrap();
        for (n, block) in blocks.into_iter().enumerate() {
            let writes = Writes::from([(b"key".to_vec(), Some(vec![n as u8]))]);
            let mut step = lane.begin();
            step.apply(block, Applied { writes, ..Applied::default() }).unwrap();
            step.commit([0; 32]).unwrap();
        }
        drop(lane);
        store
    }

    fn put(store: &Store, row: impl FnOnce(&Keyspaces, &mut Batch)) {
        let core = store.core();
        let mut batch = Batch::default();
        row(&core.keyspaces, &mut batch);
        core.writer.commit(batch, None);
    }

    #[test]
    fn an_old_value_that_comes_back_is_refused_until_the_lane_is_rebuilt() {
        let dir = tempfile::tempdir().unwrap();
        let store = worked(dir.path());
        put(&store, |keyspaces, batch| {
            let key = state_key(0, 0, b"key");
            batch.put(&keyspaces.state, key.clone(), seal(&key, &[0])).unwrap();
        });
        drop(store);
        let refused = Store::open(dir.path(), Options::default()).err().expect("it is refused");
        let OpenError::Untrusted { findings, .. } = &refused else { panic!("{refused}") };
        assert!(matches!(findings[..], [Finding::StateChanged { commit: 2, .. }]), "{refused}");
        for (lane, opens) in [("other@devnet", false), (LANE, true)] {
            let to_rebuild = Some(lane.parse().unwrap());
            let options = Options { to_rebuild, ..Options::default() };
            assert_eq!(Store::open(dir.path(), options).is_ok(), opens, "{lane}");
        }
    }

    #[test]
    fn a_cursor_of_format_2_gets_the_sum_of_the_state_it_finds() {
        let dir = tempfile::tempdir().unwrap();
        let store = worked(dir.path());
        let cursor = store.cursors().unwrap()[0].1.clone();
        put(&store, |keyspaces, batch| {
            let key = codec::cursor_key(0);
            let sealed = seal_row(&key, CursorRow { state: None, ..CursorRow::from(&cursor) });
            let content = codec::sealed_content(&sealed);
            let row = seal(&key, &content[..content.len() - 1]);
            batch.put(&keyspaces.cursors, key, row).unwrap();
        });
        assert_ne!(store.cursors().unwrap()[0].1, cursor);
        drop(store);
        let store = Store::open(dir.path(), Options::default()).unwrap();
        assert_eq!(store.cursors().unwrap()[0].1, cursor);
        let snapshot = store.lane_snapshot(&LANE.parse().unwrap()).unwrap().unwrap();
        assert_eq!(snapshot.state_sum().unwrap(), cursor.state);
    }
}
