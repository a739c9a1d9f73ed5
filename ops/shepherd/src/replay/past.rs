//! The past that something is run over: a chain of the data directory, or a recording.

use std::{collections::BTreeMap, fs, path::Path};

use jiff::Timestamp;
use shepherd_host::Sha256;
use shepherd_ingest::Start;
use shepherd_log::{
    BlockRef, ChainName, Journal, LaneId, LaneSnapshot, ModuleName, Offset, Options, StorageError,
    Store, TapeEntry,
};
use shepherd_replay::{
    Begin, Bound, Tape, Window, WindowAsked, WindowError,
    recording::{LoadError, Reader, RecordedTape, load},
};
use shepherd_rpc::in_words;
use tempfile::TempDir;

use super::{known, open};
use crate::{
    cli::History,
    config::Config,
    exit::{self, Code, Problem, file_problem},
    find,
    view::{existing_journal, the_chain},
};

/// Reorgs of a recording went by the limit of the journal it was cut from, which is not known; no
/// chain has deeper ones than this.
const REORG_DEPTH_MAX: u64 = 100_000;

/// A journal, and what there is besides it.
pub struct Past {
    /// The records.
    pub journal: Journal,
    /// The recording it was loaded from, by its sha256.
    pub recording: Option<Sha256>,
    /// Blocks of a recording that stand in others' place, and those others.
    pub instead_of: BTreeMap<BlockRef, BlockRef>,
    store: Store,
    tapes: BTreeMap<ModuleName, RecordedTape>,
    /// Where a recording's store is, for as long as it is open.
    _folder: Option<TempDir>,
}

/// The lane whose past it was.
pub struct Recorded {
    /// Whose effects in the journal are taken for the replayed module's.
    pub module: ModuleName,
    /// What it was answered.
    pub tape: Option<AnyTape>,
}

/// A tape, wherever it is.
pub struct AnyTape(Box<dyn Tape>);

impl Tape for AnyTape {
    fn entries(&mut self, record: Offset) -> Result<Vec<TapeEntry>, StorageError> {
        self.0.entries(record)
    }
}

impl Past {
    /// Opens the past that is asked for. There is a configuration unless it is a recording.
    pub fn open(config: Option<&Config>, history: &History) -> Result<Past, Problem> {
        if let Some(file) = &history.recording {
            return Past::of_recording(file);
        }
        let config = config.expect("only a recording goes without");
        let chain = the_chain(config, history.chain.as_ref())?;
        let store = open(config)?;
        let journal = existing_journal(&store, &chain)?;
        Ok(Past {
            journal,
            recording: None,
            instead_of: BTreeMap::new(),
            store,
            tapes: BTreeMap::new(),
            _folder: None,
        })
    }

    fn of_recording(file: &Path) -> Result<Past, Problem> {
        let unreadable = |error: &std::io::Error| file_problem(Code::Failed, "read", file, error);
        let sha256 = Sha256::of(&fs::read(file).map_err(|error| unreadable(&error))?);
        let folder = tempfile::tempdir().map_err(|error| unreadable(&error))?;
        let reader =
            Reader::open(file).map_err(|error| Problem::from_error(Code::Failed, &error))?;
        let options = Options { reorg_depth_max: REORG_DEPTH_MAX, ..Options::default() };
        let options = Options { on_write_failure: exit::on_write_failure, ..options };
        let loaded = load(reader, folder.path(), options).map_err(|error| match error {
            LoadError::Recording(error) => Problem::from_error(Code::Failed, &error),
            error => {
                Problem::new(Code::Failed, format!("{}: {}", file.display(), in_words(&error)))
            }
        })?;
        Ok(Past {
            journal: loaded.journal,
            recording: Some(sha256),
            instead_of: loaded.instead_of,
            store: loaded.store,
            tapes: loaded.tapes,
            _folder: Some(folder),
        })
    }

    /// The chain it is of.
    pub fn chain(&self) -> &ChainName {
        self.journal.chain()
    }

    /// A lane of the data directory that must be there.
    pub fn lane(&self, lane: &LaneId) -> Result<LaneSnapshot, Problem> {
        let lane = known(&self.store, lane)?;
        let snapshot = self.store.lane_snapshot(&lane);
        let snapshot = snapshot.map_err(|error| Problem::from_error(Code::Untrusted, &error))?;
        Ok(snapshot.expect("it is known"))
    }

    /// The lane whose past it was: the one that is named, else the module's own.
    pub fn recorded(
        &self,
        named: Option<&LaneId>,
        module: &ModuleName,
    ) -> Result<Recorded, Problem> {
        let own = LaneId { module: module.clone(), chain: self.chain().clone() };
        let lane = named.unwrap_or(&own);
        let tape = match self.recording {
            Some(_) => self.tapes.get(&lane.module).map(|tape| AnyTape(Box::new(tape.clone()))),
            None => {
                let snapshot = self.store.lane_snapshot(lane);
                let snapshot =
                    snapshot.map_err(|error| Problem::from_error(Code::Untrusted, &error))?;
                snapshot.map(|snapshot| AnyTape(Box::new(snapshot)))
            }
        };
        if let (Some(named), None) = (named, &tape) {
            return Err(match self.recording {
                None => known(&self.store, named).err().unwrap_or_else(|| {
                    Problem::new(Code::Failed, format!("lane {named} has passed nothing yet"))
                }),
                Some(_) => {
                    let message = format!("the recording has no tape of {named}");
                    Problem::new(Code::Failed, message)
                }
            });
        }
        Ok(Recorded { module: lane.module.clone(), tape })
    }

    /// The records that are asked for.
    pub fn window(&self, history: &History) -> Result<Window, Problem> {
        let begin = match (history.last, history.from) {
            (Some(last), _) => Begin::Last(last),
            (None, Some(from)) => Begin::At(self.bound(from)),
            (None, None) => Begin::Journal,
        };
        // A window ends before its bound, the command line names the last block.
        let to = history.to.map(|to| match self.bound(to) {
            Bound::Block(number) => Bound::Block(number.saturating_add(1)),
            time => time,
        });
        let warm_up = history.warm_up.unwrap_or_default();
        Window::resolve(&self.journal, WindowAsked { begin, to, warm_up }).map_err(|error| {
            let problem =
                |code| Problem::new(code, format!("chain {}: {}", self.chain(), in_words(&error)));
            match &error {
                WindowError::Journal(_) => problem(Code::Untrusted),
                WindowError::BeforeJournal { first, .. } => problem(Code::Failed).help(format!(
                    "the journal begins with block {first}: `--from {}` takes all of it, \
                     `shepherd ingest` fetches more into a new one",
                    first.number
                )),
                _ => problem(Code::Failed),
            }
        })
    }

    fn bound(&self, place: Start) -> Bound {
        match find::bound(place) {
            // The newest block, whichever that is.
            shepherd_admin::find::Bound::Block(u64::MAX) => {
                Bound::Block(self.journal.tail().head.map_or(0, |head| head.number))
            }
            shepherd_admin::find::Bound::Block(number) => Bound::Block(number),
            shepherd_admin::find::Bound::Time(seconds) => {
                let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
                Bound::Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
            }
        }
    }
}
