//! The store: one engine database, opened only when what it holds agrees with itself.
//!
//! ```text
//! DATA_DIR/store/format      "shepherd store format 4"
//!                highwater   how far the store has certainly come
//!                db/         the engine
//! ```
//!
//! Rules that come from measurements of the engine (`=3.1.13`), each named where it is kept:
//!
//! | | rule | kept in |
//! |---|---|---|
//! | F1 | an error from commit ends the process without destructors | `writer` |
//! | F2 | snapshots are taken while commits are held back | `Core::snapshot` |
//! | F3 | a cursor is believed only together with its append-only commit row | `checks` |
//! | F4 | records are chained by digest; the store refuses to open below its mark | `checks`, `highwater` |
//! | F5 | a new store is created beside its place and renamed | [`Store::open`] |
//! | F6 | one writer thread, thirty seconds a commit, two engine workers | `writer`, [`Store::open`] |
//! | F7 | `SyncData` at the call site | `writer` |
//! | F8 | the journal is cut into keyspaces, so that retention can drop whole ones | `journal` |
//! | F9 | sizes are checked before the engine sees them | `writer` |
//! | F10 | the engine is built without debug assertions | the workspace's `Cargo.toml` |

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, Snapshot, config::PinningPolicy};

use crate::{
    cache::Shares,
    checks::{self, Finding, LoadedChain},
    codec::{self, CHAIN_PREFIX, ChainRow, CursorRow, DecodeError, seal_row},
    highwater::{self, Highwater, Mark},
    journal::{Journal, ReadError},
    lane::{Cursor, Lane},
    lane_snapshot::LaneSnapshot,
    lanes::{self, KnownLane, Role},
    metrics::Metrics,
    types::{ChainName, LaneId, Offset},
    writer::{Batch, Writer, WriterStart},
};

/// Format of the directory. Raised when an older program could not read what a newer one wrote.
///
/// | format | is new |
/// |---|---|
/// | 1 | journal, lanes |
/// | 2 | outcomes in the journal; effects, outbox and what is done |
/// | 3 | the sum of a lane's state in its cursor and commit rows; the log index; journals that start later than 0 |
/// | 4 | what a lane is for in its row: lanes of replays, and generations of a lane |
pub const FORMAT: u32 = 4;

/// Memory the engine may use for blocks it has read.
///
/// Replays stream through the journal and gain nothing from more; state reads are small.
const CACHE_BYTES: u64 = 32 << 20;

/// Memory of each tree's unsorted writes. The engine's worst case is five of these per tree
/// written, and a lane and its chain write twelve trees at most.
const MEMTABLE_BYTES: u64 = 4 << 20;

/// How much write-ahead log may wait for its trees to be flushed, which is what a start after a
/// crash reads again. The engine takes no less than 64 MiB.
const WRITE_AHEAD_BYTES: u64 = 64 << 20;

/// Threads that flush and compact. One that dies must not be the last (hazard F6).
///
/// The first of them never compacts: it puts such a task back into the queue, and spins with it
/// when all others are busy (`worker_pool.rs` of 3.1.13). With two, a whole core was lost to that
/// in every compaction; with four there is nearly always one that takes the task.
const ENGINE_WORKERS: usize = 4;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The deepest reorg that journals take and lanes can undo, in blocks below the highest one.
    pub reorg_depth_max: u64,
    /// Called with one message when a write fails or hangs. It must end the process without
    /// running destructors: the engine's would write the failed buffer again (hazard F1).
    pub on_write_failure: fn(&str) -> !,
    /// Where commits are counted.
    pub metrics: Metrics,
    /// A lane whose state is about to be rebuilt, so that the store also opens when that state is
    /// not the one the lane's last step left.
    pub to_rebuild: Option<LaneId>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            reorg_depth_max: 64,
            on_write_failure: |message| {
                eprintln!("error: {message}");
                std::process::abort()
            },
            metrics: Metrics::unregistered(),
            to_rebuild: None,
        }
    }
}

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be created or read.
    #[error("cannot use {path}")]
    Directory {
        /// The path in question.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has the store open.
    #[error("{path} is in use by another process")]
    Locked {
        /// The store.
        path: PathBuf,
    },
    /// Written by a newer program.
    #[error("{path} has format {found}, this program reads up to format {FORMAT}")]
    NewerFormat {
        /// The store.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// What is stored does not agree with itself.
    #[error("{path} cannot be trusted: {}", list(findings))]
    Untrusted {
        /// The store.
        path: PathBuf,
        /// Everything that was found.
        findings: Vec<Finding>,
    },
    /// The engine could not read its files.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

fn list(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The engine could not read what it stores. Nothing that follows can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The engine reported an error.
    #[error("the storage engine failed: {what}")]
    Engine {
        /// Its error, in words.
        what: String,
        /// What the system said, if that is the cause.
        #[source]
        system: Option<io::Error>,
    },
    /// A journal has a record that cannot be read.
    #[error("the journal cannot be read")]
    Journal(#[source] Box<ReadError>),
    /// A row does not decode.
    #[error("{what} is damaged")]
    Damaged {
        /// Which row.
        what: String,
        /// How.
        source: DecodeError,
    },
}

impl From<fjall::Error> for StorageError {
    fn from(error: fjall::Error) -> StorageError {
        let mut system = None;
        let mut cause = error.source();
        while let Some(error) = cause {
            system = system.or_else(|| error.downcast_ref::<io::Error>()?.raw_os_error());
            cause = error.source();
        }
        // The engine's own text is a debug dump, and told over again by each cause.
        let system = system.map(io::Error::from_raw_os_error);
        let what = system.as_ref().map_or_else(|| in_words(&error), ToString::to_string);
        StorageError::Engine { what, system }
    }
}

/// An error of the engine for people: its own text is a debug dump.
pub(crate) fn in_words(error: &fjall::Error) -> String {
    match error {
        fjall::Error::Io(error) => error.to_string(),
        fjall::Error::Locked => "its files are in use by another process".to_owned(),
        fjall::Error::Poisoned => "an earlier write failed in the background".to_owned(),
        other => format!("{other:?}"),
    }
}

impl StorageError {
    pub(crate) fn damaged(what: impl Into<String>) -> impl FnOnce(DecodeError) -> StorageError {
        move |source| StorageError::Damaged { what: what.into(), source }
    }
}

/// Why a chain's journal could not be had.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The name already stands for another chain.
    #[error("{chain} was journaled with chain id {stored}, it cannot continue with {given}")]
    OtherChain {
        /// The name.
        chain: ChainName,
        /// The id its records came from.
        stored: u64,
        /// The id asked for.
        given: u64,
    },
    /// The engine failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a lane could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// Its chain has no journal yet.
    #[error("{0} has no journal yet")]
    NoJournal(ChainName),
    /// Someone else in this process holds the lane.
    #[error("lane {0} is already open")]
    Open(LaneId),
    /// The lane is another kind of lane than it is asked for as.
    #[error("lane {0} of this store is {1}")]
    OtherRole(LaneId, &'static str),
    /// There is no such lane.
    #[error("there is no lane {0}")]
    Unknown(LaneId),
    /// A replay cannot go on over a journal that does not hold what it has replayed.
    #[error("{lane} was replayed over another journal of {}", lane.chain)]
    OtherJournal {
        /// The lane.
        lane: LaneId,
    },
    /// The records that a lane was computed from are not all there any more.
    #[error(
        "{lane} was computed from record {from} on, and records before {trimmed_to} were removed"
    )]
    Trimmed {
        /// The lane.
        lane: LaneId,
        /// The first record it passed.
        from: Offset,
        /// The first record that is still there.
        trimmed_to: Offset,
    },
    /// The engine failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The durable truth of one Shepherd.
///
/// A clone is another handle to the same store. Every method blocks the thread; call them where
/// blocking is fine. The store closes when the last handle is gone, journals and lanes included.
#[derive(Clone)]
pub struct Store {
    core: Arc<Core>,
    journals: Arc<Mutex<BTreeMap<ChainName, Journal>>>,
    pub(crate) open_lanes: OpenLanes,
}

/// The lanes someone in this process holds, by number.
pub(crate) type OpenLanes = Arc<Mutex<BTreeSet<u32>>>;

/// The engine and the one way to write to it.
pub(crate) struct Core {
    // Declared first, so dropped first: it finishes what was queued while the engine is open.
    pub writer: Writer,
    pub database: Database,
    pub keyspaces: Keyspaces,
    pub options: Options,
    /// Memory that lanes may use to remember their state.
    pub cache_shares: Shares,
}

impl Core {
    /// A consistent view of everything that is durable.
    pub fn snapshot(&self) -> Snapshot {
        let _held = self.writer.hold_commits();
        self.database.snapshot()
    }
}

/// The trees that are not journal segments.
#[derive(Clone)]
pub(crate) struct Keyspaces {
    pub blocks: Keyspace,
    pub cursors: Keyspace,
    pub commits: Keyspace,
    pub state: Keyspace,
    pub undo: Keyspace,
    pub tape: Keyspace,
    pub effects: Keyspace,
    pub outbox: Keyspace,
    pub done: Keyspace,
    pub outcomes: Keyspace,
    pub traces: Keyspace,
    pub meta: Keyspace,
}

impl Keyspaces {
    fn open(database: &Database) -> Result<Keyspaces, fjall::Error> {
        let open = |name| database.keyspace(name, keyspace_options);
        Ok(Keyspaces {
            blocks: open("blocks")?,
            cursors: open("cursors")?,
            commits: open("commits")?,
            state: open("state")?,
            undo: open("undo")?,
            tape: open("tape")?,
            effects: open("effects")?,
            outbox: open("outbox")?,
            done: open("done")?,
            outcomes: open("outcomes")?,
            traces: open("traces")?,
            meta: open("meta")?,
        })
    }
}

pub(crate) fn keyspace_options() -> KeyspaceCreateOptions {
    // Filters stay in memory, ten bits a key. In the cache they drive each other out as soon as a
    // state is large, and each lookup reads one of a hundred kilobytes from the disk again.
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES)
        .filter_block_pinning_policy(PinningPolicy::all(true))
}

impl Store {
    /// Opens the store in a data directory, creating both when they are missing.
    ///
    /// When this returns, journals, cursors, commit rows and high-water mark agree.
    pub fn open(data_dir: &Path, options: Options) -> Result<Store, OpenError> {
        let path = data_dir.join("store");
        if !path.exists() {
            create(data_dir, &path)?;
        }
        let format = check_format(&path)?;
        let database = match open_database(&path.join("db")) {
            Ok(database) => database,
            Err(fjall::Error::Locked) => return Err(OpenError::Locked { path }),
            Err(error) => return Err(StorageError::from(error).into()),
        };
        remove_unfinished_creations(data_dir);
        let keyspaces = Keyspaces::open(&database).map_err(StorageError::from)?;
        let snapshot = database.snapshot();
        let highwater_file = path.join("highwater");
        let mut loaded = checks::load(&database, &keyspaces, &snapshot)?;
        let to_rebuild = options.to_rebuild.as_ref();
        let highwater =
            checks::check(&mut loaded, &highwater_file, &keyspaces, &snapshot, to_rebuild)?;
        let highwater =
            highwater.map_err(|findings| OpenError::Untrusted { path: path.clone(), findings })?;
        if format < FORMAT {
            // From here on records may be written that an older program cannot read.
            write_format(&path)?;
        }
        let writer = Writer::start(WriterStart {
            database: database.clone(),
            highwater,
            highwater_file,
            metrics: options.metrics.clone(),
            on_write_failure: options.on_write_failure,
        });
        let core = Arc::new(Core {
            writer,
            database,
            keyspaces,
            options,
            cache_shares: Shares::default(),
        });
        write_state_sums(&core, &loaded.lanes);
        let journals = loaded
            .chains
            .into_iter()
            .map(|chain| (chain.name.clone(), Journal::new(core.clone(), chain)))
            .collect();
        Ok(Store {
            core,
            journals: Arc::new(Mutex::new(journals)),
            open_lanes: OpenLanes::default(),
        })
    }

    /// The chains that have a journal.
    pub fn chains(&self) -> Vec<ChainName> {
        self.lock_journals().keys().cloned().collect()
    }

    /// The journal of a chain the store already knows.
    pub fn existing_journal(&self, chain: &ChainName) -> Option<Journal> {
        self.lock_journals().get(chain).cloned()
    }

    /// The journal of a chain, created when it is missing.
    pub fn journal(&self, chain: &ChainName, chain_id: u64) -> Result<Journal, JournalError> {
        let mut journals = self.lock_journals();
        if let Some(journal) = journals.get(chain) {
            if journal.chain_id() != chain_id {
                return Err(JournalError::OtherChain {
                    chain: chain.clone(),
                    stored: journal.chain_id(),
                    given: chain_id,
                });
            }
            return Ok(journal.clone());
        }
        let number = journals.values().map(|journal| journal.number() + 1).max().unwrap_or(0);
        let key = [CHAIN_PREFIX, chain.as_str().as_bytes()].concat();
        let row = seal_row(&key, ChainRow { number, chain_id });
        let mut batch = Batch::default();
        batch.put(&self.core.keyspaces.meta, key, row).expect("a name is short");
        self.core.writer.commit(batch, None);
        let journal =
            Journal::new(self.core.clone(), LoadedChain::empty(chain.clone(), number, chain_id));
        journals.insert(chain.clone(), journal.clone());
        Ok(journal)
    }

    /// A lane, created at the first record of its chain's journal when it is missing.
    ///
    /// Only one holder at a time: two would commit over each other.
    pub fn lane(&self, id: &LaneId) -> Result<Lane, LaneError> {
        let journal = self
            .existing_journal(&id.chain)
            .ok_or_else(|| LaneError::NoJournal(id.chain.clone()))?;
        let lane = self.find_or_create_lane(id, |_| {
            // The start stays where it is until the lane's cursor holds it there.
            let held = journal.lock_retention();
            let cursor = Cursor { next: journal.start(), ..Cursor::default() };
            Ok((Role::Live, cursor, Some(held)))
        })?;
        if lane.role != Role::Live {
            return Err(LaneError::OtherRole(id.clone(), "a replay's"));
        }
        self.open_lane(lane, journal)
    }

    /// The lane of a replay, created before the record `from` when it is missing.
    ///
    /// It reads its records from `journal`, which may be another store's, and keeps what it
    /// computes in this one. Its effects are kept as they were asked for, those of abandoned
    /// blocks too, and there is no outbox they could leave by.
    pub fn replay_lane(
        &self,
        id: &LaneId,
        journal: &Journal,
        from: Offset,
    ) -> Result<Lane, LaneError> {
        let chain_id = journal.chain_id();
        let lane = self.find_or_create_lane(id, |_| {
            let cursor = Cursor { next: from, ..Cursor::default() };
            Ok((Role::Replay { start: from, chain_id }, cursor, ()))
        })?;
        let other_journal = || LaneError::OtherJournal { lane: id.clone() };
        match lane.role {
            Role::Replay { chain_id: replayed, .. } if replayed == chain_id => (),
            Role::Replay { .. } => return Err(other_journal()),
            Role::Live | Role::Rebuild { .. } => {
                return Err(LaneError::OtherRole(id.clone(), "live"));
            }
        }
        let cursor = lane.cursor.clone().unwrap_or_default();
        if cursor.next > journal.tail().offset {
            return Err(other_journal());
        }
        if let Some(block) = cursor.block
            && journal.offset_of(block)?.is_none()
        {
            return Err(other_journal());
        }
        self.open_lane(lane, journal.clone())
    }

    pub(crate) fn open_lane(&self, lane: KnownLane, journal: Journal) -> Result<Lane, LaneError> {
        let hold = LaneHold::take(&self.open_lanes, &lane.id, lane.number)?;
        Ok(Lane::open(self.core.clone(), journal, hold, lane)?)
    }

    /// The lane of a name, created in the role and at the place that `place` says.
    fn find_or_create_lane<H>(
        &self,
        id: &LaneId,
        place: impl FnOnce(&[KnownLane]) -> Result<(Role, Cursor, H), LaneError>,
    ) -> Result<KnownLane, LaneError> {
        // One at a time, or two could take the same number.
        let _creating = self.lock_journals();
        let snapshot = self.core.snapshot();
        let known = lanes::all(&self.core.keyspaces, &snapshot)?;
        if let Some(at) = known.iter().position(|lane| lane.is_named() && lane.id == *id) {
            return Ok(known.into_iter().nth(at).expect("found there"));
        }
        let (role, cursor, _held) = place(&known)?;
        let number = lanes::next_number(&known, &self.core.keyspaces, &snapshot)?;
        Ok(self.create_lane(id, number, role, cursor))
    }

    pub(crate) fn create_lane(
        &self,
        id: &LaneId,
        number: u32,
        role: Role,
        cursor: Cursor,
    ) -> KnownLane {
        let keyspaces = &self.core.keyspaces;
        let key = lanes::row_key(id, role);
        let row = seal_row(&key, lanes::row(number, role, number));
        let cursor_key = codec::cursor_key(number);
        let cursor_row = seal_row(&cursor_key, CursorRow::from(&cursor));
        let mut batch = Batch::default();
        batch.put(&keyspaces.meta, key, row).expect("a name is short");
        batch.put(&keyspaces.cursors, cursor_key, cursor_row).expect("a cursor is short");
        self.core.writer.commit(batch, Some(Mark::Lane(number, 0)));
        let (id, cursor) = (id.clone(), Some(cursor));
        KnownLane { id, number, role, outbox: number, cursor, is_summed: true }
    }

    /// Every lane and its cursor, as of one moment.
    pub fn cursors(&self) -> Result<Vec<(LaneId, Cursor)>, StorageError> {
        let lanes = lanes::all(&self.core.keyspaces, &self.core.snapshot())?;
        let named = lanes.into_iter().filter(KnownLane::is_named);
        Ok(named.map(|lane| (lane.id, lane.cursor.unwrap_or_default())).collect())
    }

    /// What a lane has computed, as of one moment, or `None` when there is no such lane.
    pub fn lane_snapshot(&self, id: &LaneId) -> Result<Option<LaneSnapshot>, StorageError> {
        let snapshot = self.core.snapshot();
        let lanes = lanes::all(&self.core.keyspaces, &snapshot)?;
        Ok(lanes.into_iter().find(|lane| lane.is_named() && lane.id == *id).map(|lane| {
            let KnownLane { number, outbox, cursor, .. } = lane;
            let cursor = cursor.unwrap_or_default();
            LaneSnapshot::new(self.core.keyspaces.clone(), snapshot, number, outbox, cursor)
        }))
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn lock_journals(&self) -> MutexGuard<'_, BTreeMap<ChainName, Journal>> {
        self.journals.lock().expect("nothing panics while holding the journals")
    }
}

/// The right to move a lane, given back when dropped.
pub(crate) struct LaneHold {
    pub id: LaneId,
    number: u32,
    open: OpenLanes,
}

impl LaneHold {
    fn take(open: &OpenLanes, id: &LaneId, number: u32) -> Result<LaneHold, LaneError> {
        let mut lanes = open.lock().expect("nothing panics while holding the lanes");
        if !lanes.insert(number) {
            return Err(LaneError::Open(id.clone()));
        }
        Ok(LaneHold { id: id.clone(), number, open: open.clone() })
    }
}

impl Drop for LaneHold {
    fn drop(&mut self) {
        self.open.lock().expect("nothing panics while holding the lanes").remove(&self.number);
    }
}

fn open_database(path: &Path) -> Result<Database, fjall::Error> {
    Database::builder(path)
        .cache_size(CACHE_BYTES)
        .max_journaling_size(WRITE_AHEAD_BYTES)
        .worker_threads(ENGINE_WORKERS)
        .open()
}

/// Completes the cursors of a store of format 2, which do not name the sum of their state.
fn write_state_sums(core: &Core, lanes: &[KnownLane]) {
    let mut batch = Batch::default();
    for lane in lanes.iter().filter(|lane| !lane.is_summed) {
        if let Some(cursor) = &lane.cursor {
            let key = codec::cursor_key(lane.number);
            let row = seal_row(&key, CursorRow::from(cursor));
            batch.put(&core.keyspaces.cursors, key, row).expect("a cursor is short");
        }
    }
    if batch.bytes() > 0 {
        core.writer.commit(batch, None);
    }
}

/// Creates a whole store beside its place and renames it: the engine leaves a directory that never
/// opens again when it is killed during creation (hazard F5).
fn create(data_dir: &Path, path: &Path) -> Result<(), OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Directory { path, source }
    };
    let unfinished = data_dir.join(format!("{UNFINISHED_PREFIX}{}", std::process::id()));
    fs::create_dir_all(&unfinished).map_err(failed(data_dir))?;
    let database = open_database(&unfinished.join("db")).map_err(StorageError::from)?;
    Keyspaces::open(&database).map_err(StorageError::from)?;
    drop(database);
    highwater::write(&unfinished.join("highwater"), &Highwater::default())
        .map_err(failed(&unfinished))?;
    write_format(&unfinished)?;
    match fs::rename(&unfinished, path) {
        Ok(()) => (),
        // Another process was faster. Its store is as good as ours.
        Err(_) if path.exists() => fs::remove_dir_all(&unfinished).map_err(failed(&unfinished))?,
        Err(source) => return Err(OpenError::Directory { path: path.to_owned(), source }),
    }
    File::open(data_dir).and_then(|folder| folder.sync_all()).map_err(failed(data_dir))
}

const UNFINISHED_PREFIX: &str = "store.init-";
const FORMAT_LINE: &str = "shepherd store format ";

/// Writes the format file beside its place and renames it.
fn write_format(store: &Path) -> Result<(), OpenError> {
    let [file, next] = ["format", "format.next"].map(|name| store.join(name));
    fs::write(&next, format!("{FORMAT_LINE}{FORMAT}\n"))
        .and_then(|()| File::open(&next)?.sync_all())
        .and_then(|()| fs::rename(&next, &file))
        .and_then(|()| File::open(store)?.sync_all())
        .map_err(|source| OpenError::Directory { path: file, source })
}

fn check_format(path: &Path) -> Result<u32, OpenError> {
    let file = path.join("format");
    let text = fs::read_to_string(&file)
        .map_err(|source| OpenError::Directory { path: file.clone(), source })?;
    let found: Option<u32> =
        text.strip_prefix(FORMAT_LINE).and_then(|rest| rest.trim_end().parse().ok());
    match found {
        Some(found @ 1..=FORMAT) => Ok(found),
        Some(found) if found > FORMAT => {
            Err(OpenError::NewerFormat { path: path.to_owned(), found })
        }
        _ => Err(OpenError::Untrusted {
            path: path.to_owned(),
            findings: vec![Finding::Format { text }],
        }),
    }
}

/// Removes what a process left that was killed while it created the store.
fn remove_unfinished_creations(data_dir: &Path) {
    let Ok(entries) = fs::read_dir(data_dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(UNFINISHED_PREFIX)) else {
            continue;
        };
        let still_creating = Path::new("/proc").join(pid).exists();
        if !still_creating {
            // Only a leftover: if it cannot be removed now, the next start tries again.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
