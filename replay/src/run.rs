//! A run: the directory a replay works in, which another process can go on with.
//!
//! ```text
//! DIR/run.json    what this run is, and which journals its lanes follow
//!     store/      what it has computed so far, in a store of its own
//! ```
//!
//! `run.json` is there before anything else, so a directory without one is never taken for a run:
//! a data directory given by mistake is refused, not written to. The store holds nothing that
//! cannot be computed again. One that a power cut left in doubt is thrown away, and the run begins
//! at its first record.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shepherd_log::{
    BlockRef, Journal, Lane, LaneError, LaneId, LaneSnapshot, Offset, OpenError, Options,
    ReadError, StorageError, Store,
};
use shepherd_rpc::in_words;

/// Format of `run.json`. Raised when an older program could not go on with a newer one's run.
const FORMAT: u32 = 1;

const FILE: &str = "run.json";
const FILE_NEXT: &str = "run.json.next";
const STORE: &str = "store";
const STORE_THROWN_AWAY: &str = "store.thrown-away";

/// The directory of a replay, open in this process and in no other.
pub struct Run {
    dir: PathBuf,
    known: Mutex<Known>,
    store: Store,
    began_again: Option<String>,
}

/// Why a run cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The directory holds a run of something else.
    #[error(
        "{} holds another run: its {differs} is {stored}, this one's is {given}; \
         name another directory, or remove that one",
        dir.display()
    )]
    OtherRun {
        /// The directory.
        dir: PathBuf,
        /// The first part of what a run is that differs, such as `window.from`.
        differs: String,
        /// That part, as the run has it.
        stored: Value,
        /// That part, as it is asked for.
        given: Value,
    },
    /// The directory holds something that is no run.
    #[error("{} is neither empty nor a run: it has no {FILE}", dir.display())]
    NotARun {
        /// The directory.
        dir: PathBuf,
    },
    /// The file that says what a run is cannot be read.
    #[error("{} is not readable as a run", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A newer program's run.
    #[error("{} has format {found}, this program goes on with runs up to format {FORMAT}", file.display())]
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The directory cannot be read or written.
    #[error("cannot use {}", path.display())]
    Directory {
        /// The path in question.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The run's store does not open.
    #[error("the store of the run does not open")]
    Store(#[source] OpenError),
    /// The lane was begun over other records.
    #[error(
        "lane {lane} of this run was begun {stored}, now it would be {given}; \
         name another directory, or remove that one"
    )]
    OtherJournal {
        /// The lane.
        lane: LaneId,
        /// What it was begun over.
        stored: String,
        /// What is given.
        given: String,
    },
    /// The lane stands on a block that the journal does not have before it.
    #[error(
        "lane {lane} of this run stands on block {block}, which the journal does not hold before \
         record {next}; name another directory, or remove that one"
    )]
    OtherRecords {
        /// The lane.
        lane: LaneId,
        /// The block it stands on.
        block: BlockRef,
        /// The record it would go on with.
        next: Offset,
    },
    /// The run has no such lane.
    #[error("the run has no lane {0}")]
    NoLane(LaneId),
    /// The lane cannot be had.
    #[error(transparent)]
    Lane(#[from] LaneError),
    /// The journal cannot be read.
    #[error("the journal cannot be read")]
    Journal(#[source] ReadError),
    /// The run's store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Run {
    /// Opens the run in a directory, creating both when they are missing.
    ///
    /// `spec` says what the run is: everything that decides what it computes. A directory with a
    /// run of the same spec is gone on with, one with anything else in it is refused.
    pub fn open(dir: &Path, spec: &Value) -> Result<Run, RunError> {
        fs::create_dir_all(dir).map_err(failed(dir))?;
        let known = match Known::read(dir)? {
            Some(known) => known,
            None => Known::create(dir, spec)?,
        };
        if let Some((differs, stored, given)) = first_difference("", &known.spec, spec) {
            return Err(RunError::OtherRun { dir: dir.to_owned(), differs, stored, given });
        }
        Run::with(dir, known)
    }

    /// Opens the run that is in a directory, whatever it is.
    pub fn existing(dir: &Path) -> Result<Run, RunError> {
        let known = Known::read(dir)?.ok_or_else(|| RunError::NotARun { dir: dir.to_owned() })?;
        Run::with(dir, known)
    }

    /// Opens the store of the run, or begins one.
    fn with(dir: &Path, mut known: Known) -> Result<Run, RunError> {
        let (stored, began_again) = open_stored(dir)?;
        let store = match stored {
            Some(store) => store,
            None => {
                // First: a run without a store has not come to its end, whatever it was before.
                known.forget(dir)?;
                Store::open(dir, options()).map_err(RunError::Store)?
            }
        };
        Ok(Run { dir: dir.to_owned(), known: Mutex::new(known), store, began_again })
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it is, as it was opened with.
    pub fn spec(&self) -> Value {
        self.lock().spec.clone()
    }

    /// Its store, which is nobody else's.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Why what it had computed before was thrown away when it was opened, if it was.
    pub fn began_again(&self) -> Option<&str> {
        self.began_again.as_deref()
    }

    /// A lane of the run over a journal, created at the record `from` when it is missing.
    ///
    /// A lane stays with the journal it was begun over: other records would make one lane out of
    /// two histories.
    pub fn lane(&self, id: &LaneId, journal: &Journal, from: Offset) -> Result<Lane, RunError> {
        self.bind(id, Binding::of(journal, from).map_err(RunError::Journal)?)?;
        let lane = self.store.replay_lane(id, journal, from)?;
        let cursor = lane.cursor();
        let Some(block) = cursor.block else { return Ok(lane) };
        match journal.offset_of(block)? {
            Some(offset) if offset < cursor.next => Ok(lane),
            _ => Err(RunError::OtherRecords { lane: id.clone(), block, next: cursor.next }),
        }
    }

    /// What a lane of the run has computed, as of one moment.
    pub fn snapshot(&self, id: &LaneId) -> Result<LaneSnapshot, RunError> {
        self.store.lane_snapshot(id)?.ok_or_else(|| RunError::NoLane(id.clone()))
    }

    /// Whether the run was said to be finished.
    pub fn is_finished(&self) -> bool {
        self.lock().finished
    }

    /// Says, durably, that the run has come to its end.
    pub fn finish(&self) -> Result<(), RunError> {
        let mut known = self.lock();
        known.finished = true;
        known.write(&self.dir)
    }

    /// Throws away what the run has computed, and its end if it had come to it.
    pub fn begin_again(self) -> Result<Run, RunError> {
        let spec = self.spec();
        self.begin_anew(&spec)
    }

    /// Throws away what the run has computed, and makes its directory another run's.
    pub fn begin_anew(self, spec: &Value) -> Result<Run, RunError> {
        let Run { dir, known, store, .. } = self;
        let mut known = known.into_inner().expect("nothing panics while holding it");
        drop(store);
        throw_away(&dir)?;
        if known.spec != *spec {
            known = Known::new(spec);
            known.write(&dir)?;
        }
        Run::with(&dir, known)
    }

    fn bind(&self, id: &LaneId, binding: Binding) -> Result<(), RunError> {
        let mut known = self.lock();
        match known.lanes.get(&id.to_string()) {
            Some(stored) if stored.fits(&binding) => Ok(()),
            Some(stored) => Err(RunError::OtherJournal {
                lane: id.clone(),
                stored: stored.in_words(),
                given: binding.in_words(),
            }),
            None => {
                known.lanes.insert(id.to_string(), binding);
                known.write(&self.dir)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while holding it")
    }
}

/// `run.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    format: u32,
    spec: Value,
    #[serde(default)]
    finished: bool,
    #[serde(default)]
    lanes: BTreeMap<String, Binding>,
}

/// Which records a lane was begun over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Binding {
    chain_id: u64,
    from: u64,
    /// Digest of the record at `from`, which is chained over all before it. There is none while
    /// the journal ends there, nor when the record has been trimmed since.
    first: Option<String>,
}

impl Binding {
    fn of(journal: &Journal, from: Offset) -> Result<Binding, ReadError> {
        let first = match journal.read(from..from.plus(1)).next() {
            Some(Ok(record)) => Some(record.digest().to_string()),
            None | Some(Err(ReadError::Trimmed { .. })) => None,
            Some(Err(error)) => return Err(error),
        };
        Ok(Binding { chain_id: journal.chain_id(), from: from.get(), first })
    }

    fn fits(&self, given: &Binding) -> bool {
        let same_first = match (&self.first, &given.first) {
            (Some(stored), Some(given)) => stored == given,
            _ => true,
        };
        self.chain_id == given.chain_id && self.from == given.from && same_first
    }

    fn in_words(&self) -> String {
        let Binding { chain_id, from, first } = self;
        let first = first.as_ref().map_or(String::new(), |digest| format!(" ({digest})"));
        format!("at record {from}{first} of chain {chain_id}")
    }
}

impl Known {
    fn read(dir: &Path) -> Result<Option<Known>, RunError> {
        let file = dir.join(FILE);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(RunError::Directory { path: file, source }),
        };
        let unreadable = |source| RunError::Unreadable { file: file.clone(), source };
        // Its format first: what follows may have changed.
        let value: Value = serde_json::from_slice(&text).map_err(unreadable)?;
        let found = value.get("format").and_then(Value::as_u64).unwrap_or_default();
        if found > u64::from(FORMAT) {
            let found = u32::try_from(found).unwrap_or(u32::MAX);
            return Err(RunError::NewerFormat { file, found });
        }
        serde_json::from_value(value).map(Some).map_err(unreadable)
    }

    /// Makes a directory with nothing in it a run.
    fn create(dir: &Path, spec: &Value) -> Result<Known, RunError> {
        for entry in fs::read_dir(dir).map_err(failed(dir))? {
            // Left by a process that was killed while it did what is done here.
            if entry.map_err(failed(dir))?.file_name() != FILE_NEXT {
                return Err(RunError::NotARun { dir: dir.to_owned() });
            }
        }
        let known = Known::new(spec);
        known.write(dir)?;
        Ok(known)
    }

    /// A run that has not begun.
    fn new(spec: &Value) -> Known {
        let spec = spec.clone();
        Known { format: FORMAT, spec, finished: false, lanes: BTreeMap::new() }
    }

    /// Forgets, durably, how far the run had come.
    fn forget(&mut self, dir: &Path) -> Result<(), RunError> {
        if !self.finished && self.lanes.is_empty() {
            return Ok(());
        }
        self.finished = false;
        self.lanes.clear();
        self.write(dir)
    }

    /// Writes the file beside its place and renames it. When this returns, it survives a power cut.
    fn write(&self, dir: &Path) -> Result<(), RunError> {
        let (file, next) = (dir.join(FILE), dir.join(FILE_NEXT));
        let text = serde_json::to_vec_pretty(self).expect("JSON of numbers, texts and JSON");
        let write = || -> io::Result<()> {
            let mut writing = File::create(&next)?;
            writing.write_all(&text)?;
            writing.write_all(b"\n")?;
            writing.sync_all()?;
            fs::rename(&next, &file)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(failed(&file))
    }
}

/// Opens the run's store, if it has one. One that cannot be trusted is thrown away; why is returned.
fn open_stored(dir: &Path) -> Result<(Option<Store>, Option<String>), RunError> {
    remove_thrown_away(dir)?;
    if !dir.join(STORE).exists() {
        return Ok((None, None));
    }
    match Store::open(dir, options()) {
        Ok(store) => Ok((Some(store), None)),
        Err(error) if is_in_doubt(&error) => {
            throw_away(dir)?;
            Ok((None, Some(in_words(&error))))
        }
        Err(error) => Err(RunError::Store(error)),
    }
}

/// How the process ends when a run's store cannot be written.
static ON_WRITE_FAILURE: OnceLock<fn(&str) -> !> = OnceLock::new();

/// Says how this process ends when the store of a run cannot be written, as on a full disk: see
/// [`Options::on_write_failure`]. Unless it is said, such a process aborts. Only the first call
/// counts.
pub fn on_write_failure(end: fn(&str) -> !) {
    // It was said before.
    let _ = ON_WRITE_FAILURE.set(end);
}

fn options() -> Options {
    let options = Options::default();
    let end = ON_WRITE_FAILURE.get().copied();
    Options { on_write_failure: end.unwrap_or(options.on_write_failure), ..options }
}

/// Whether what is stored is to blame, and not another process, the disk or an older program.
fn is_in_doubt(error: &OpenError) -> bool {
    match error {
        OpenError::Untrusted { .. } => true,
        OpenError::Storage(StorageError::Engine { system, .. }) => system.is_none(),
        OpenError::Storage(_) => true,
        OpenError::Directory { .. } | OpenError::Locked { .. } | OpenError::NewerFormat { .. } => {
            false
        }
    }
}

/// Removes the store of a run. Killed in between, it is gone all the same: half a store would not
/// open again.
fn throw_away(dir: &Path) -> Result<(), RunError> {
    let store = dir.join(STORE);
    if store.exists() {
        fs::rename(&store, dir.join(STORE_THROWN_AWAY)).map_err(failed(&store))?;
    }
    remove_thrown_away(dir)
}

fn remove_thrown_away(dir: &Path) -> Result<(), RunError> {
    let thrown_away = dir.join(STORE_THROWN_AWAY);
    match fs::remove_dir_all(&thrown_away) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RunError::Directory { path: thrown_away, source: error })
        }
        _ => Ok(()),
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> RunError {
    let path = path.to_owned();
    move |source| RunError::Directory { path, source }
}

/// Where two specs differ first, and what they have there.
fn first_difference(at: &str, stored: &Value, given: &Value) -> Option<(String, Value, Value)> {
    if stored == given {
        return None;
    }
    let (Value::Object(stored), Value::Object(given)) = (stored, given) else {
        let at = if at.is_empty() { "spec" } else { at };
        return Some((at.to_owned(), stored.clone(), given.clone()));
    };
    stored.keys().chain(given.keys()).find_map(|key| {
        let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        let part = |spec: &serde_json::Map<String, Value>| spec.get(key).cloned();
        let [stored, given] = [part(stored), part(given)].map(Option::unwrap_or_default);
        first_difference(&at, &stored, &given)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_is_gone_on_with_by_the_same_spec_only() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("run");
        let spec = json!({ "what": "backtest", "window": { "from": 1, "to": 9 } });
        drop(Run::open(&dir, &spec).unwrap());
        let run = Run::open(&dir, &spec).unwrap();
        assert_eq!((run.spec(), run.began_again()), (spec, None));
        drop(run);
        let other = json!({ "what": "backtest", "window": { "from": 2, "to": 9 } });
        let refused = Run::open(&dir, &other).err().expect("it is another run");
        assert!(refused.to_string().contains("its window.from is 1, this one's is 2"), "{refused}");
        drop(Run::existing(&dir).unwrap());
    }

    #[test]
    fn a_run_is_open_in_one_place_only() {
        let dir = tempfile::tempdir().unwrap();
        let _run = Run::open(dir.path(), &json!({})).unwrap();
        let refused = Run::open(dir.path(), &json!({})).err().expect("it is open");
        assert!(matches!(refused, RunError::Store(OpenError::Locked { .. })), "{refused}");
    }

    #[test]
    fn a_directory_with_something_else_in_it_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::open(dir.path(), Options::default()).unwrap());
        let refused = Run::open(dir.path(), &json!({})).err().expect("it is a data directory");
        assert!(matches!(refused, RunError::NotARun { .. }), "{refused}");
        assert!(!dir.path().join(FILE).exists());
        // What a kill left before the run was one is no obstacle.
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE_NEXT), b"{").unwrap();
        drop(Run::open(dir.path(), &json!({})).unwrap());
    }

    #[test]
    fn a_store_that_cannot_be_trusted_is_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let chain = "devnet".parse().unwrap();
        let run = Run::open(dir.path(), &json!({})).unwrap();
        run.store().journal(&chain, 1).unwrap();
        drop(run);
        fs::write(dir.path().join("store/highwater"), b"nonsense").unwrap();
        let run = Run::open(dir.path(), &json!({})).unwrap();
        assert!(run.began_again().is_some());
        assert_eq!(run.store().chains(), []);
        drop(run);
        let run = Run::open(dir.path(), &json!({})).unwrap();
        assert_eq!(run.began_again(), None);
    }

    #[test]
    fn a_run_that_lost_its_store_has_not_come_to_its_end() {
        for damage in [
            |dir: &Path| fs::write(dir.join("store/highwater"), b"nonsense"),
            // Killed when it was to begin again.
            |dir: &Path| fs::rename(dir.join(STORE), dir.join(STORE_THROWN_AWAY)),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let run = Run::open(dir.path(), &json!({})).unwrap();
            run.store().journal(&"devnet".parse().unwrap(), 1).unwrap();
            run.finish().unwrap();
            drop(run);
            damage(dir.path()).unwrap();
            assert!(!Run::existing(dir.path()).unwrap().is_finished());
            assert!(!Run::existing(dir.path()).unwrap().is_finished(), "and that is durable");
        }
    }

    #[test]
    fn a_finished_run_can_begin_again() {
        let dir = tempfile::tempdir().unwrap();
        let run = Run::open(dir.path(), &json!(1)).unwrap();
        run.store().journal(&"devnet".parse().unwrap(), 1).unwrap();
        run.finish().unwrap();
        drop(run);
        let run = Run::open(dir.path(), &json!(1)).unwrap();
        assert!(run.is_finished());
        let run = run.begin_again().unwrap();
        assert_eq!((run.is_finished(), run.store().chains()), (false, vec![]));
        let run = run.begin_anew(&json!(2)).unwrap();
        assert_eq!(run.spec(), json!(2));
        let run = run.begin_anew(&json!(1)).unwrap();
        drop(run);
        // Killed while it was thrown away.
        fs::create_dir(dir.path().join(STORE_THROWN_AWAY)).unwrap();
        drop(Run::open(dir.path(), &json!(1)).unwrap());
        assert!(!dir.path().join(STORE_THROWN_AWAY).exists());
    }
}
