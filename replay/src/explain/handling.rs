//! How a record was handled: run again, and listened to.
//!
//! ```text
//!   DIR/LANE/VERSIONS/runs/0/      a run that stands behind the record it was last asked for
//!                     runs/0.next  where that is
//!                     42.json      what was seen at record 42
//! ```
//!
//! Runs are kept, so that a later record needs only what lies in between. VERSIONS is a digest of
//! everything the lane ran up to the record: a run is never gone on with under another history.

use std::{
    cmp::Ordering,
    fs, io,
    iter::Peekable,
    path::{Path, PathBuf},
};

use alloy_primitives::hex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shepherd_dispatch::{Reach, Runner, Stop};
use shepherd_host::BoundModule;
use shepherd_log::{
    Digest, EffectId, Entry, Journal, LaneId, LaneSnapshot, LaneVersion, Offset, StorageError,
    Store, TraceKind,
};

use crate::{
    drive::{Drive, Ended, Outside, Progress, drive},
    explain::{
        BlockSeen, ExplainError,
        asked::{Overheard, ReadCall},
        shown,
        wish::Wish,
    },
    run::{Run, RunError},
    tape::FromTape,
    versions::{LoadVersion, VersionError, VersionedLane, Versions},
};

/// Runs of one history that are kept. Someone who goes through the effects of a lane goes forward,
/// or back and forth between a few.
const RUNS_MAX: usize = 4;

/// Changed keys that are shown. A revert may restore any number.
const CHANGES_MAX: usize = 1_000;

/// How a record was handled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handling {
    /// The newest block that counted then.
    pub block: BlockSeen,
    /// That block's own time, in seconds since 1970.
    pub timestamp: u64,
    /// Outcomes that the module was told.
    pub outcomes: u32,
    /// What it asked and was answered, in order.
    pub reads: Vec<ReadCall>,
    /// What it changed in the state, by key. A revert restores what was before, too.
    pub changes: Vec<Change>,
    /// How many more keys changed than are listed.
    pub changes_left_out: u64,
    /// What it said.
    pub lines: Vec<Line>,
    /// How many lines were over the limit.
    pub lines_dropped: u64,
    /// What it asked for, in order.
    pub effects: Vec<Wish>,
    /// Fuel it took.
    pub fuel: u64,
}

/// A key of the state whose value changed. Text is quoted, everything else is hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its value before, if it had one.
    pub before: Option<String>,
    /// Its value after, if it has one.
    pub after: Option<String>,
}

/// A line that a module wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// The text.
    pub message: String,
}

/// Why the handling of a record cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// The records that lead to it are gone.
    #[error("the records before {trimmed_to}, which the state was computed from, are trimmed")]
    Trimmed {
        /// The first record there is.
        trimmed_to: Offset,
    },
    /// A version of the module is not at hand, or the lane cannot be run again as it ran.
    #[error("the lane cannot be run again up to the record")]
    Run(#[source] Box<VersionError>),
    /// The module was not called for the record.
    #[error("the module was not called for record {0}")]
    NotCalled(Offset),
    /// The record left the chain before its reads were answered, so it was never handled.
    #[error("record {0} left the chain before its reads were answered: it was passed over")]
    PassedOver(Offset),
}

/// Which record of which lane.
pub(super) struct Place<'p> {
    pub store: &'p Store,
    pub live: &'p LaneSnapshot,
    pub journal: &'p Journal,
    pub lane: &'p LaneId,
    pub record: Offset,
    pub dir: &'p Path,
}

/// Handles a record once more, or remembers how it was.
pub(super) fn of(
    place: &Place<'_>,
    load: &mut LoadVersion<'_>,
    progress: &mut dyn FnMut(&Progress),
    interrupted: &dyn Fn() -> bool,
) -> Result<Result<Handling, Missing>, ExplainError> {
    let versions = place.versions()?;
    let kept = Kept::new(place, &versions);
    if let Some(handling) = kept.handling(place.record)? {
        return Ok(Ok(handling));
    }
    let (number, next) = kept.nearest(place.record)?;
    let start = place.journal.start();
    if next < start {
        return Ok(Err(Missing::Trimmed { trimmed_to: start }));
    }
    fs::create_dir_all(kept.runs()).map_err(failed(&kept.runs()))?;
    let mut run = Run::open(&kept.run(number), &kept.spec)?;
    if stands(&run, place.lane)? > place.record {
        run = run.begin_again()?;
    }
    let handled = handle(place, &versions, &run, load, progress, interrupted);
    // However it ended: what was passed is there for the next time.
    let next = stands(&run, place.lane)?;
    kept.write(&kept.next_file(number), next.to_string().as_bytes())?;
    let handled = handled?;
    if let Ok(handling) = &handled {
        let text = serde_json::to_vec(handling).expect("text and numbers");
        kept.write(&kept.handling_file(place.record), &text)?;
    }
    Ok(handled)
}

/// Where a run stands.
fn stands(run: &Run, lane: &LaneId) -> Result<Offset, StorageError> {
    let snapshot = run.store().lane_snapshot(lane)?;
    Ok(snapshot.map_or(Offset::START, |snapshot| snapshot.cursor().next))
}

fn handle(
    place: &Place<'_>,
    known: &[(Offset, LaneVersion)],
    run: &Run,
    load: &mut LoadVersion<'_>,
    progress: &mut dyn FnMut(&Progress),
    interrupted: &dyn Fn() -> bool,
) -> Result<Result<Handling, Missing>, ExplainError> {
    let Place { store, live, journal, lane, record, .. } = *place;
    let tape = store.lane_snapshot(lane)?.expect("the lane is there, and lanes stay");
    let mut reads = FromTape::new(tape);
    let mut versioned = VersionedLane::new(run.lane(lane, journal, Offset::START)?);
    let versions = Versions::of(lane, live)?;
    let to = Drive::to(record);
    match versioned.drive(&versions, load, &mut reads, to, progress, interrupted) {
        Ok(Ended::Finished) => (),
        Ok(Ended::Interrupted) => {
            let next = versioned.lane().cursor().next;
            return Err(ExplainError::Interrupted { next, wanted: record });
        }
        Err(VersionError::Stop(Stop::Storage(error))) => return Err(error.into()),
        Err(error) => return Ok(Err(Missing::Run(Box::new(error)))),
    }
    let replayed = versioned.into_lane();
    if replayed.cursor().next != record {
        return Ok(Err(Missing::PassedOver(record)));
    }
    let module = match version_of(known, lane, load) {
        Ok(module) => module,
        Err(missing) => return Ok(Err(missing)),
    };
    let mut runner = Runner::new(replayed, module);
    match watch(run, &mut runner, record, Outside::Tape(&mut reads)) {
        Ok(handling) => Ok(Ok(handling)),
        Err(WatchError::Stop(Stop::Storage(error))) => Err(error.into()),
        Err(WatchError::Stop(stop)) => Ok(Err(Missing::Run(Box::new(stop.into())))),
        Err(WatchError::NotCalled(record)) => Ok(Err(Missing::NotCalled(record))),
        Err(WatchError::PassedOver(record)) => Ok(Err(Missing::PassedOver(record))),
        Err(WatchError::Run(error)) => Err(error.into()),
    }
}

/// Why a record could not be watched being handled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    #[error("the lane cannot be run up to the record")]
    Stop(#[from] Stop),
    #[error("the module was not called for record {0}")]
    NotCalled(Offset),
    #[error("record {0} was passed over")]
    PassedOver(Offset),
    #[error(transparent)]
    Run(#[from] RunError),
}

impl From<StorageError> for WatchError {
    fn from(error: StorageError) -> WatchError {
        WatchError::Stop(Stop::Storage(error))
    }
}

/// Runs a lane up to a record, and watches how that is handled. The lane stands behind it then.
pub(crate) fn watch(
    run: &Run,
    runner: &mut Runner,
    record: Offset,
    mut outside: Outside<'_>,
) -> Result<Handling, WatchError> {
    let lane = runner.lane().id().clone();
    let towards = match &mut outside {
        Outside::Tape(reads) => Outside::Tape(&mut **reads),
        Outside::Venue(venue) => Outside::Venue(&mut **venue),
    };
    drive(runner, towards, record, &mut |_| (), &|| false)?;
    if runner.lane().cursor().next != record {
        return Err(WatchError::PassedOver(record));
    }
    let before = run.snapshot(&lane)?;
    let reach = Reach { records_max: 1, end: record.plus(1) };
    let (advanced, reads) = match outside {
        Outside::Tape(reads) => {
            let mut overheard = Overheard::new(reads);
            (runner.advance(reach, &mut overheard, &|| false)?, overheard.calls())
        }
        Outside::Venue(venue) => {
            let mut overheard = Overheard::new(venue);
            (runner.backtest(reach, &mut overheard, &|| false)?, overheard.calls())
        }
    };
    let advanced = advanced.expect("the record is in the journal");
    // A replay's steps are written behind, and this one is looked at.
    runner.lane_mut().flush();
    let after = run.snapshot(&lane)?;
    let Some(trace) = after.traces(record..record.plus(1)).next().transpose()? else {
        return Err(WatchError::NotCalled(record));
    };
    let mut effects = Vec::new();
    for index in 0..trace.effects {
        let effect = after.effect(EffectId { offset: record, index })?;
        effects.extend(effect.map(|(_, effect)| Wish::from(&effect)));
    }
    let (changes, changes_left_out) = match (trace.writes, trace.kind) {
        (0, TraceKind::Block | TraceKind::Outcome) => (Vec::new(), 0),
        _ => shown_changes(&before, &after)?,
    };
    let line = |(_, line): &(Offset, shepherd_host::LogLine)| Line {
        level: format!("{:?}", line.level).to_lowercase(),
        message: line.message.clone(),
    };
    Ok(Handling {
        block: trace.block.into(),
        timestamp: trace.timestamp,
        outcomes: trace.outcomes,
        reads,
        changes,
        changes_left_out,
        lines: advanced.lines.iter().map(line).collect(),
        lines_dropped: advanced.lines_dropped,
        effects,
        fuel: trace.fuel,
    })
}

/// The module that handled the record.
pub(super) fn version_of(
    known: &[(Offset, LaneVersion)],
    lane: &LaneId,
    load: &mut LoadVersion<'_>,
) -> Result<BoundModule, Missing> {
    let lane = lane.clone();
    let missing = |error| Missing::Run(Box::new(error));
    let Some((from, version)) = known.last() else {
        return Err(missing(VersionError::Unknown { lane }));
    };
    let (from, version) = (*from, *version);
    load(&version, &lane).map_err(|source| {
        missing(VersionError::Load { lane, version: Box::new(version), from, source })
    })
}

impl Place<'_> {
    /// What the lane ran up to the record. The first version counts for all before it.
    pub fn versions(&self) -> Result<Vec<(Offset, LaneVersion)>, StorageError> {
        let mut versions = self.live.versions()?;
        let later = versions.partition_point(|(from, _)| *from <= self.record);
        versions.truncate(later.max(1));
        Ok(versions)
    }
}

/// What is kept of earlier explanations.
struct Kept {
    dir: PathBuf,
    spec: serde_json::Value,
}

impl Kept {
    fn new(place: &Place<'_>, versions: &[(Offset, LaneVersion)]) -> Kept {
        let version = |(from, version): &(Offset, LaneVersion)| {
            json!({
                "from": from.get(),
                "module": hex::encode(version.module),
                "binding": hex::encode(version.binding),
            })
        };
        let spec = json!({
            "what": "explain",
            "lane": place.lane.to_string(),
            "generation": place.live.cursor().generation,
            "versions": versions.iter().map(version).collect::<Vec<_>>(),
        });
        let digest = Digest::of(spec.to_string().as_bytes());
        let name = hex::encode(&digest.0[..8]);
        Kept { dir: place.dir.join(place.lane.to_string()).join(name), spec }
    }

    fn runs(&self) -> PathBuf {
        self.dir.join("runs")
    }

    fn run(&self, number: usize) -> PathBuf {
        self.runs().join(number.to_string())
    }

    fn next_file(&self, number: usize) -> PathBuf {
        self.runs().join(format!("{number}.next"))
    }

    fn handling_file(&self, record: Offset) -> PathBuf {
        self.dir.join(format!("{record}.json"))
    }

    /// How the record was handled, when that was seen before.
    fn handling(&self, record: Offset) -> Result<Option<Handling>, ExplainError> {
        let file = self.handling_file(record);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&file)(error)),
        };
        // One that an older program wrote, or that was cut, is seen again.
        Ok(serde_json::from_slice(&text).ok())
    }

    /// The run to go on with: the one that stands closest before the record, else a new one in the
    /// place of the one that has come furthest.
    fn nearest(&self, record: Offset) -> Result<(usize, Offset), ExplainError> {
        let mut nearest: Option<(usize, Offset)> = None;
        let mut furthest = (0, Offset::START);
        for number in 0..RUNS_MAX {
            if !self.run(number).exists() {
                return Ok(nearest.unwrap_or((number, Offset::START)));
            }
            // A run that was killed may have come further. That shows when it is opened.
            let stands = fs::read_to_string(self.next_file(number)).ok();
            let stands = stands.and_then(|text| text.parse().ok()).map(Offset::new);
            let stands = stands.unwrap_or(Offset::START);
            if stands <= record && nearest.is_none_or(|(_, next)| next < stands) {
                nearest = Some((number, stands));
            }
            if furthest.1 <= stands {
                furthest = (number, stands);
            }
        }
        if let Some(nearest) = nearest {
            return Ok(nearest);
        }
        let number = furthest.0;
        let next = self.next_file(number);
        if next.exists() {
            fs::remove_file(&next).map_err(failed(&next))?;
        }
        let run = self.run(number);
        fs::remove_dir_all(&run).map_err(failed(&run))?;
        Ok((number, Offset::START))
    }

    /// Writes a file as a whole or not at all. It need not survive a power cut.
    fn write(&self, file: &Path, text: &[u8]) -> Result<(), ExplainError> {
        let beside = file.with_extension("writing");
        fs::write(&beside, text).map_err(failed(&beside))?;
        fs::rename(&beside, file).map_err(failed(file))
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ExplainError {
    let path = path.to_owned();
    move |source| ExplainError::Directory { path, source }
}

fn shown_changes(
    before: &LaneSnapshot,
    after: &LaneSnapshot,
) -> Result<(Vec<Change>, u64), StorageError> {
    let (mut shown, mut left_out) = (Vec::new(), 0);
    for change in Changes::between(before, after) {
        let (key, before, after) = change?;
        if shown.len() == CHANGES_MAX {
            left_out += 1;
            continue;
        }
        let [before, after] = [before, after].map(|value| value.as_deref().map(shown::bytes));
        shown.push(Change { key: shown::bytes(&key), before, after });
    }
    Ok((shown, left_out))
}

type Entries = Box<dyn Iterator<Item = Result<Entry, StorageError>>>;

/// The keys whose values differ between two states, in key order, with both values. Both states
/// are read once, an entry at a time.
pub(crate) struct Changes {
    before: Peekable<Entries>,
    after: Peekable<Entries>,
}

/// A key and its two values.
pub(crate) type Changed = (Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);

impl Changes {
    pub fn between(before: &LaneSnapshot, after: &LaneSnapshot) -> Changes {
        let entries = |snapshot: &LaneSnapshot| -> Peekable<Entries> {
            (Box::new(snapshot.entries(&[], None)) as Entries).peekable()
        };
        Changes { before: entries(before), after: entries(after) }
    }
}

impl Iterator for Changes {
    type Item = Result<Changed, StorageError>;

    fn next(&mut self) -> Option<Result<Changed, StorageError>> {
        loop {
            let order = match (self.before.peek(), self.after.peek()) {
                (None, None) => return None,
                (Some(Err(_)), _) | (Some(_), None) => Ordering::Less,
                (_, Some(Err(_))) | (None, Some(_)) => Ordering::Greater,
                (Some(Ok((before, _))), Some(Ok((after, _)))) => before.cmp(after),
            };
            let take = |entries: &mut Peekable<Entries>| entries.next().expect("peeked");
            return Some(match order {
                Ordering::Less => {
                    take(&mut self.before).map(|(key, value)| (key, Some(value), None))
                }
                Ordering::Greater => {
                    take(&mut self.after).map(|(key, value)| (key, None, Some(value)))
                }
                Ordering::Equal => match (take(&mut self.before), take(&mut self.after)) {
                    (Ok((_, before)), Ok((_, after))) if before == after => continue,
                    (Ok((key, before)), Ok((_, after))) => Ok((key, Some(before), Some(after))),
                    (Err(error), _) | (_, Err(error)) => Err(error),
                },
            });
        }
    }
}
