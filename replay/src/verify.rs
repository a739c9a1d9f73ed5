//! Verifies a live lane: computes it again and compares.
//!
//! ```text
//!   live      journal ──▶ steps as they came ──▶ digest at each commit, state, effects
//!                │  tape                            ║        ║        ║      equal?
//!   again     journal ──▶ steps as large as may be ▶ traces, state, effects
//! ```
//!
//! The lane is run again from its first record, over the versions of its module that it ran, with
//! its reads answered from its own tape. However the journal is cut into steps, the lane digest
//! after a record is the same, so the traces of the second run say what it has to be at the end of
//! every live step.

use std::{cmp::Ordering, fmt, iter::Peekable, ops::Range, path::Path};

use serde_json::json;
use shepherd_dispatch::Stop;
use shepherd_host::{TapeError, World};
use shepherd_log::{
    BlockRef, Commit, Digest, Effect, EffectId, Journal, LaneId, LaneSnapshot, Offset, ReadError,
    RecordView, StateSum, StorageError, Store, Trace,
};
use shepherd_rpc::in_words;

use crate::{
    drive::{Drive, Ended, Progress},
    run::{Run, RunError},
    tape::{FromTape, OffTape},
    versions::{LoadVersion, VersionError, VersionedLane, Versions},
};

/// What came of verifying a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The lane.
    pub lane: LaneId,
    /// The first record that was not verified: the live cursor when verifying began.
    pub next: Offset,
    /// How many live commits were compared.
    pub commits: u64,
    /// How many records of them were run again.
    pub records: u64,
    /// The live lane digest.
    pub digest: Digest,
    /// The sum of the live state.
    pub state: StateSum,
    /// What differs, `None` when nothing does.
    pub difference: Option<Difference>,
}

/// What differs between a lane and what it computes when it is run again. At least one is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// The first live commit that does not follow the one before it.
    pub gap: Option<Gap>,
    /// The record at which running again came to its end.
    pub stopped: Option<Stopped>,
    /// The first live step that left another lane digest.
    pub step: Option<StepDifference>,
    /// The first key of the state, in key order, that differs at the cursor.
    pub key: Option<KeyDifference>,
    /// The first effect that differs.
    pub effect: Option<EffectDifference>,
}

/// A live commit that does not follow the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// What the commit before it says of the next one's number and first record.
    pub expected: (u64, Offset),
    /// Number and first record of the next one, or of the cursor.
    pub found: (u64, Offset),
}

/// Where running again came to its end before the live cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The record.
    pub record: Offset,
    /// Why, in words: the tape does not answer what the module asks, or the module fails.
    pub reason: String,
}

/// A live step that left another lane digest than running it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepDifference {
    /// The live commit.
    pub commit: u64,
    /// The records among which the first one differs. Blocks that do not concern the module are
    /// left out at both ends.
    pub records: Range<Offset>,
    /// The newest block that counted at the step's end.
    pub block: Option<BlockRef>,
    /// The digest it left.
    pub live: Digest,
    /// The digest it leaves when it is run again.
    pub again: Digest,
}

/// A key whose value differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDifference {
    /// The key.
    pub key: Vec<u8>,
    /// Its live value.
    pub live: Option<Vec<u8>>,
    /// Its value when the lane is run again.
    pub again: Option<Vec<u8>>,
}

/// An effect that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectDifference {
    /// The effect.
    pub id: EffectId,
    /// What the live lane asked for, and at which block.
    pub live: Option<(BlockRef, Effect)>,
    /// What it asks for when it is run again.
    pub again: Option<(BlockRef, Effect)>,
}

/// Why a lane could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no such lane.
    #[error("there is no lane {0}")]
    NoLane(LaneId),
    /// It was interrupted. The same call goes on with it.
    #[error("lane {lane} is verified up to record {next} of {end}")]
    Interrupted {
        /// The lane.
        lane: LaneId,
        /// How far it has come.
        next: Offset,
        /// How far it was to come.
        end: Offset,
    },
    /// The records that it was computed from are not all there any more.
    #[error("it was computed from record {from} on, and records before {trimmed_to} were removed")]
    Trimmed {
        /// The lane.
        lane: LaneId,
        /// The first record it passed.
        from: Offset,
        /// The first record that is still there.
        trimmed_to: Offset,
    },
    /// The directory cannot be worked in.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The lane could not be run again.
    #[error("lane {lane} cannot be run again")]
    Again {
        /// The lane.
        lane: LaneId,
        /// Why not.
        source: Box<VersionError>,
    },
    /// The journal cannot be read.
    #[error("the journal cannot be read")]
    Journal(#[from] ReadError),
    /// A store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Verifies a lane up to where it stands, without touching it; it may go on meanwhile.
///
/// The work is done in `dir`, which can be gone on with after an interruption or a kill. When the
/// lane was verified there before, it is verified from its first record again.
///
/// `step_records_max` bounds the records of a step, which changes nothing but the time it takes.
pub fn verify(
    live: &Store,
    lane: &LaneId,
    load: &mut LoadVersion<'_>,
    dir: &Path,
    step_records_max: Option<usize>,
    progress: &mut dyn FnMut(&Progress),
    interrupted: &dyn Fn() -> bool,
) -> Result<Verified, VerifyError> {
    let journal = live.existing_journal(&lane.chain);
    let journal = journal.ok_or_else(|| VerifyError::NoLane(lane.clone()))?;
    // Before the cursor is read, so that the records before it stay.
    let _held = journal.hold(journal.start());
    let snapshot = live.lane_snapshot(lane)?.ok_or_else(|| VerifyError::NoLane(lane.clone()))?;
    let end = snapshot.cursor().next;
    let first = snapshot.commits().next().transpose()?;
    let from = first.map_or(end, |commit| commit.records.start);
    let trimmed_to = journal.start();
    if from < trimmed_to {
        return Err(VerifyError::Trimmed { lane: lane.clone(), from, trimmed_to });
    }

    let spec = json!({
        "what": "verify",
        "lane": lane.to_string(),
        "chain_id": journal.chain_id(),
        "from": from.get(),
    });
    let mut run = Run::open(dir, &spec)?;
    if run.is_finished() {
        run = run.begin_again()?;
    }

    let mut again = VersionedLane::new(run.lane(lane, &journal, from)?);
    let versions = Versions::of(lane, &snapshot)?;
    let mut reads = FromTape::new(&snapshot);
    let drive = Drive { end, step_records_max: step_records_max.unwrap_or(usize::MAX) };
    let driven = again.drive(&versions, load, &mut reads, drive, progress, interrupted);
    let stopped = match driven {
        // An abandoned block that leaves the tape is passed over, and is a difference all the same.
        Ok(Ended::Finished) => reads.mismatch().map(|(record, off)| Stopped::off(*record, off)),
        Ok(Ended::Interrupted) => {
            let next = again.lane().cursor().next;
            return Err(VerifyError::Interrupted { lane: lane.clone(), next, end });
        }
        Err(error) => Some(Stopped::of(lane, error)?),
    };
    let again = run.snapshot(lane)?;
    let verified = compare(lane, &journal, &snapshot, &again, stopped)?;
    run.finish()?;
    Ok(verified)
}

impl Stopped {
    /// Whether a stop says something about the lane, and not about this machine.
    fn of(lane: &LaneId, error: VersionError) -> Result<Stopped, VerifyError> {
        let replay = match &error {
            VersionError::Stop(Stop::Module { offset, source, .. }) => {
                let reason = format!("the module fails: {}", in_words(source));
                return Ok(Stopped { record: *offset, reason });
            }
            VersionError::Stop(Stop::World { source: World::Replay(source), .. }) => source,
            _ => return Err(VerifyError::Again { lane: lane.clone(), source: Box::new(error) }),
        };
        match replay.downcast_ref() {
            Some(OffTape::Left { record, source }) => Ok(Stopped::off(*record, source)),
            _ => Err(VerifyError::Again { lane: lane.clone(), source: Box::new(error) }),
        }
    }

    fn off(record: Offset, tape: &TapeError) -> Stopped {
        Stopped { record, reason: in_words(tape) }
    }
}

fn compare(
    lane: &LaneId,
    journal: &Journal,
    live: &LaneSnapshot,
    again: &LaneSnapshot,
    stopped: Option<Stopped>,
) -> Result<Verified, VerifyError> {
    let Commits { commits, gap, step } = compare_commits(journal, live, again)?;
    let cursor = live.cursor();
    let mut difference = Difference { gap, stopped, step, key: None, effect: None };
    // States of different heights say nothing about each other.
    if difference.stopped.is_none() && again.cursor().next == cursor.next {
        difference.key = first_key(live, again)?;
    } else if difference.stopped.is_none() {
        let reason = format!("it passed a reorg with it, up to record {}", again.cursor().next);
        difference.stopped = Some(Stopped { record: cursor.next, reason });
    }
    difference.effect = first_effect(journal, live, again)?;
    Ok(Verified {
        lane: lane.clone(),
        next: cursor.next,
        commits,
        records: again.cursor().next.get() - first_record(again)?.get(),
        digest: cursor.digest,
        state: cursor.state,
        difference: Some(difference).filter(|difference| *difference != Difference::default()),
    })
}

fn first_record(lane: &LaneSnapshot) -> Result<Offset, StorageError> {
    let first = lane.commits().next().transpose()?;
    Ok(first.map_or(lane.cursor().next, |commit| commit.records.start))
}

struct Commits {
    commits: u64,
    gap: Option<Gap>,
    step: Option<StepDifference>,
}

/// Compares the digest at the end of every live commit, as far as running again has come.
fn compare_commits(
    journal: &Journal,
    live: &LaneSnapshot,
    again: &LaneSnapshot,
) -> Result<Commits, VerifyError> {
    let reached = again.cursor().next;
    let mut digests = Digests::new(journal, again, first_record(again)?..reached)?;
    let mut compared = Commits { commits: 0, gap: None, step: None };
    let mut expected: Option<(u64, Offset)> = None;
    for commit in live.commits() {
        let commit = commit?;
        let found = (commit.number, commit.records.start);
        let expects = *expected.get_or_insert((1, found.1));
        if found != expects {
            compared.gap.get_or_insert(Gap { expected: expects, found });
        }
        expected = Some((commit.number + 1, commit.records.end));
        if commit.records.end > reached {
            continue;
        }
        compared.commits += 1;
        let digest = digests.at(commit.records.end)?;
        if digest != commit.digest && compared.step.is_none() {
            compared.step = Some(StepDifference {
                commit: commit.number,
                records: narrowed(journal, again, &commit)?,
                block: commit.block,
                live: commit.digest,
                again: digest,
            });
        }
    }
    let cursor = (live.cursor().commit + 1, live.cursor().next);
    let expects = expected.unwrap_or(cursor);
    if cursor != expects {
        compared.gap.get_or_insert(Gap { expected: expects, found: cursor });
    }
    Ok(compared)
}

/// The records of a commit for which the module was called or something was taken back: no other
/// one changes the lane digest.
fn narrowed(
    journal: &Journal,
    again: &LaneSnapshot,
    commit: &Commit,
) -> Result<Range<Offset>, VerifyError> {
    let mut touched: Option<Range<Offset>> = None;
    let mut touch = |offset: Offset| {
        let range = touched.get_or_insert(offset..offset.plus(1));
        *range = range.start.min(offset)..range.end.max(offset.plus(1));
    };
    for trace in again.traces(commit.records.clone()) {
        touch(trace?.offset);
    }
    for (revert, _) in reverts(journal, commit.records.clone())? {
        touch(revert);
    }
    Ok(touched.unwrap_or_else(|| commit.records.clone()))
}

/// Offset of each revert, and the height it goes back to.
fn reverts(journal: &Journal, range: Range<Offset>) -> Result<Vec<(Offset, u64)>, ReadError> {
    let mut reverts = Vec::new();
    for record in journal.others(range) {
        let record = record?;
        if let RecordView::Revert(revert) = record.record() {
            reverts.push((record.offset(), revert.ancestor.number));
        }
    }
    Ok(reverts)
}

/// The lane digest at every record of a replay, out of its traces.
///
/// ```text
///   trace   [b5: α] [b6: β] [b7: γ] [revert to 5]          [b6': δ]
///   digest     α       β       γ         α                    δ
/// ```
///
/// Only records that the module was called for have a trace. A revert takes the digest back to what
/// it was after the newest record that still counts.
struct Digests<T: Iterator> {
    traces: Peekable<T>,
    /// Reverts to come, and the lowest height that this one or one after it goes back to.
    reverts: Peekable<std::vec::IntoIter<ComingRevert>>,
    /// Height of each record that counts and the digest after it, oldest first. What no revert to
    /// come can take back is there only once.
    standing: Vec<(u64, Digest)>,
}

struct ComingRevert {
    offset: Offset,
    ancestor: u64,
    lowest: u64,
}

fn coming(reverts: Vec<(Offset, u64)>) -> Vec<ComingRevert> {
    let mut lowest = u64::MAX;
    let mut coming: Vec<ComingRevert> = reverts
        .into_iter()
        .rev()
        .map(|(offset, ancestor)| {
            lowest = lowest.min(ancestor);
            ComingRevert { offset, ancestor, lowest }
        })
        .collect();
    coming.reverse();
    coming
}

impl<'l> Digests<Box<dyn Iterator<Item = Result<Trace, StorageError>> + 'l>> {
    fn new(
        journal: &Journal,
        again: &'l LaneSnapshot,
        records: Range<Offset>,
    ) -> Result<Self, VerifyError> {
        let traces: Box<dyn Iterator<Item = _> + 'l> = Box::new(again.traces(records.clone()));
        Ok(Digests::over(traces, reverts(journal, records)?))
    }
}

impl<T: Iterator<Item = Result<Trace, StorageError>>> Digests<T> {
    fn over(traces: T, reverts: Vec<(Offset, u64)>) -> Digests<T> {
        let reverts = coming(reverts).into_iter().peekable();
        Digests { traces: traces.peekable(), reverts, standing: Vec::new() }
    }

    /// The digest before the record at `end`. Asked for in ascending order.
    fn at(&mut self, end: Offset) -> Result<Digest, StorageError> {
        loop {
            let trace = match self.traces.peek() {
                Some(Ok(trace)) => Some(trace.offset).filter(|offset| *offset < end),
                Some(Err(_)) => {
                    return Err(self.traces.next().expect("peeked").expect_err("peeked"));
                }
                None => None,
            };
            let revert = self.reverts.peek().map(|revert| revert.offset);
            match (trace, revert.filter(|offset| *offset < end)) {
                (None, None) => break,
                // What a revert tells is told after it has taken back.
                (trace, Some(revert)) if trace.is_none_or(|trace| revert <= trace) => {
                    let ancestor = self.reverts.next().expect("peeked").ancestor;
                    while self.standing.pop_if(|(height, _)| *height > ancestor).is_some() {}
                }
                _ => {
                    let trace = self.traces.next().expect("peeked")?;
                    self.stand(trace.block.number, trace.after);
                }
            }
        }
        Ok(self.standing.last().map_or(Digest::ZERO, |(_, digest)| *digest))
    }

    fn stand(&mut self, height: u64, after: Digest) {
        let lowest = self.reverts.peek().map_or(u64::MAX, |revert| revert.lowest);
        match self.standing.last_mut() {
            Some(last) if height <= lowest => *last = (height, after),
            _ => self.standing.push((height, after)),
        }
    }
}

/// Two ascending sequences, side by side.
struct SideBySide<A: Iterator, B: Iterator> {
    left: Peekable<A>,
    right: Peekable<B>,
}

impl<K: Ord, V, E, A, B> Iterator for SideBySide<A, B>
where
    A: Iterator<Item = Result<(K, V), E>>,
    B: Iterator<Item = Result<(K, V), E>>,
{
    type Item = Result<(K, Option<V>, Option<V>), E>;

    fn next(&mut self) -> Option<Self::Item> {
        let order = match (self.left.peek(), self.right.peek()) {
            (None, None) => return None,
            (Some(Ok((left, _))), Some(Ok((right, _)))) => left.cmp(right),
            (Some(Err(_)), _) | (Some(_), None) => Ordering::Less,
            (_, Some(Err(_))) | (None, Some(_)) => Ordering::Greater,
        };
        let left = if order.is_le() { self.left.next().transpose() } else { Ok(None) };
        let right = if order.is_ge() { self.right.next().transpose() } else { Ok(None) };
        Some(left.and_then(|left| {
            Ok(match (left, right?) {
                (Some((key, left)), right) => (key, Some(left), right.map(|(_, right)| right)),
                (None, Some((key, right))) => (key, None, Some(right)),
                (None, None) => unreachable!("one of the two came first"),
            })
        }))
    }
}

fn side_by_side<A: Iterator, B: Iterator>(left: A, right: B) -> SideBySide<A, B> {
    SideBySide { left: left.peekable(), right: right.peekable() }
}

fn first_key(
    live: &LaneSnapshot,
    again: &LaneSnapshot,
) -> Result<Option<KeyDifference>, StorageError> {
    for entry in side_by_side(live.entries(&[], None), again.entries(&[], None)) {
        let (key, live, again) = entry?;
        if live != again {
            return Ok(Some(KeyDifference { key, live, again }));
        }
    }
    Ok(None)
}

/// The first effect that differs. Those that blocks asked for which left the chain before they were
/// sent are gone from the live lane, and kept by a replay.
fn first_effect(
    journal: &Journal,
    live: &LaneSnapshot,
    again: &LaneSnapshot,
) -> Result<Option<EffectDifference>, StorageError> {
    let reached = again.cursor().next;
    let by_id = |effect: Result<(EffectId, BlockRef, Effect), StorageError>| {
        effect.map(|(id, block, effect)| (id, (block, effect)))
    };
    for pair in side_by_side(live.effects().map(by_id), again.effects().map(by_id)) {
        let (id, live, again) = pair?;
        if id.offset >= reached {
            break;
        }
        let is_gone = |block: BlockRef| {
            journal.undone_by(id.offset, block.number).is_some_and(|revert| revert < reached)
        };
        let equal = match (&live, &again) {
            (None, Some((block, _))) => is_gone(*block),
            _ => live == again,
        };
        if !equal {
            return Ok(Some(EffectDifference { id, live, again }));
        }
    }
    Ok(None)
}

impl Difference {
    /// The first record known to differ, or the first of those among which it is.
    pub fn first_record(&self) -> Option<Offset> {
        let gap = self.gap.as_ref().map(|gap| gap.expected.1.min(gap.found.1));
        let stopped = self.stopped.as_ref().map(|stopped| stopped.record);
        let step = self.step.as_ref().map(|step| step.records.start);
        let effect = self.effect.as_ref().map(|effect| effect.id.offset);
        [gap, stopped, step, effect].into_iter().flatten().min()
    }
}

impl fmt::Display for Difference {
    /// Each difference on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        if let Some(StepDifference { commit, records, block, live, again }) = &self.step {
            let records = match records.end.get() - records.start.get() {
                1 => format!("record {}", records.start),
                _ => format!("a record from {} to before {}", records.start, records.end),
            };
            let block = block.map_or(String::new(), |block| format!(", up to block {block}"));
            lines.push(format!(
                "{records} (commit {commit}{block}) left digest {live}, run again {again}"
            ));
        }
        if let Some(Stopped { record, reason }) = &self.stopped {
            lines.push(format!("record {record} cannot be run again: {reason}"));
        }
        if let Some(KeyDifference { key, live, again }) = &self.key {
            lines.push(format!(
                "key {} is {}, run again {}",
                printable(key),
                value(live.as_ref()),
                value(again.as_ref())
            ));
        }
        if let Some(EffectDifference { id, live, again }) = &self.effect {
            let asked = |effect: &Option<(BlockRef, Effect)>| match effect {
                Some((block, effect)) => {
                    format!("{:?} {} at block {block}", effect.key, printable(&effect.body))
                }
                None => "not asked for".to_owned(),
            };
            lines.push(format!("effect {id} is {}, run again {}", asked(live), asked(again)));
        }
        if let Some(Gap { expected, found }) = &self.gap {
            lines.push(format!(
                "commit {} at record {} is followed by commit {} at record {}",
                expected.0.saturating_sub(1),
                expected.1,
                found.0,
                found.1
            ));
        }
        f.write_str(&lines.join("\n"))
    }
}

/// Bytes of a value that are shown.
const SHOWN_BYTES_MAX: usize = 64;

fn value(value: Option<&Vec<u8>>) -> String {
    value.map_or("absent".to_owned(), |value| printable(value))
}

/// Text as it is, anything else in hexadecimal; the start of what is long.
fn printable(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let rest = match bytes.len() - shown.len() {
        0 => String::new(),
        more => format!("… and {more} bytes"),
    };
    match str::from_utf8(shown) {
        Ok(text) if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() || c == ' ') => {
            format!("`{text}`{rest}")
        }
        _ => format!("0x{}{rest}", hex::encode(shown)),
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::B256;
    use shepherd_log::TraceKind;

    use super::*;

    fn trace(offset: u64, height: u64, after: u8) -> Trace {
        Trace {
            offset: Offset::new(offset),
            block: BlockRef { number: height, hash: B256::with_last_byte(after) },
            timestamp: 0,
            kind: TraceKind::Block,
            logs: 0,
            reads: 0,
            writes: 1,
            effects: 0,
            outcomes: 0,
            fuel: 0,
            micros: 0,
            wrote: Digest::ZERO,
            read: Digest::ZERO,
            after: Digest([after; 32]),
        }
    }

    /// The digests before each offset, by the last of their bytes.
    fn digests(traces: &[(u64, u64, u8)], reverts: &[(u64, u64)], ends: &[u64]) -> Vec<u8> {
        let traces =
            traces.iter().map(|(offset, height, after)| Ok(trace(*offset, *height, *after)));
        let reverts = reverts.iter().map(|(offset, to)| (Offset::new(*offset), *to)).collect();
        let mut digests = Digests::over(traces, reverts);
        ends.iter().map(|end| digests.at(Offset::new(*end)).unwrap().0[0]).collect()
    }

    #[test]
    fn a_digest_stands_until_another_record_or_a_revert_changes_it() {
        let traces = [(1, 5, 1), (3, 6, 2), (4, 7, 3), (6, 6, 4), (7, 6, 5)];
        // The revert at 5 goes back to block 5, nothing is told there.
        let all: Vec<u64> = (0..10).collect();
        assert_eq!(digests(&traces, &[(5, 5)], &all), [0, 0, 1, 1, 2, 3, 1, 4, 5, 5]);
        assert_eq!(digests(&traces, &[], &all), [0, 0, 1, 1, 2, 3, 3, 4, 5, 5]);
        assert_eq!(digests(&traces, &[(5, 5)], &[6]), [1], "asked for at once");
    }

    #[test]
    fn reverts_in_a_row_and_what_they_tell_are_followed() {
        // The second one goes deeper; it tells something at its own offset, at block 3.
        let traces = [(0, 3, 1), (1, 4, 2), (2, 5, 3), (5, 3, 9), (6, 4, 10)];
        let reverts = [(3, 4), (5, 3)];
        assert_eq!(digests(&traces, &reverts, &[3, 4, 5, 6, 7]), [3, 2, 2, 9, 10]);
        // All the way back.
        assert_eq!(digests(&traces[..3], &[(3, 2)], &[3, 4]), [3, 0]);
    }

    #[test]
    fn sequences_are_walked_side_by_side() {
        let sequence = |keys: &'static [u8]| keys.iter().map(|key| Ok::<_, ()>((*key, ())));
        let walked: Vec<(u8, bool, bool)> = side_by_side(sequence(&[1, 2, 4]), sequence(&[2, 3]))
            .map(|entry| entry.map(|(key, left, right)| (key, left.is_some(), right.is_some())))
            .collect::<Result<_, ()>>()
            .unwrap();
        let expected = [(1, true, false), (2, true, true), (3, false, true), (4, true, false)];
        assert_eq!(walked, expected);
    }

    #[test]
    fn bytes_are_shown_as_text_where_they_are_text() {
        assert_eq!(printable(b"pair/1"), "`pair/1`");
        assert_eq!(printable(&[0, 255]), "0x00ff");
        assert_eq!(printable(&[]), "0x");
        assert_eq!(printable(&[b'a'; 70]), format!("`{}`… and 6 bytes", "a".repeat(64)));
    }
}
