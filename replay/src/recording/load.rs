//! From a recording into a store of its own.

use std::{
    collections::BTreeMap,
    io::BufRead,
    path::{Path, PathBuf},
    sync::Arc,
};

use shepherd_log::{
    AppendError, BlockRef, GenesisError, Journal, JournalError, ModuleName, Offset, OpenError,
    Options, Record, StorageError, Store, TapeEntry,
};

use super::{Header, Reader, RecordingError};
use crate::tape::Tape;

/// A recording that was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The directory holds something already.
    #[error("{dir} holds a journal of {chain} already: load a recording into an empty directory")]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// The chain.
        chain: String,
    },
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The journal cannot be had.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal is another chain's.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// A record cannot be journaled.
    #[error("a record of {name} cannot be journaled")]
    Append {
        /// The recording.
        name: String,
        /// Why.
        source: AppendError,
    },
}

/// A recording in a store.
pub struct Loaded {
    /// What its first line says.
    pub header: Header,
    /// The store, which is nobody else's.
    pub store: Store,
    /// The records, from offset 0.
    pub journal: Journal,
    /// The tapes it has, by module.
    pub tapes: BTreeMap<ModuleName, RecordedTape>,
    /// Blocks that stand in others' place, and those others: what the outside is asked about.
    pub instead_of: BTreeMap<BlockRef, BlockRef>,
}

/// One lane's answers in a recording. A clone is another handle to the same.
#[derive(Clone, Debug, Default)]
pub struct RecordedTape(Arc<BTreeMap<Offset, Vec<TapeEntry>>>);

impl Tape for RecordedTape {
    fn entries(&mut self, record: Offset) -> Result<Vec<TapeEntry>, StorageError> {
        Ok(self.0.get(&record).cloned().unwrap_or_default())
    }
}

/// Loads a recording into a new store in `dir`.
///
/// Every record is checked as the journal checks what it appends, and every block as far as the
/// recording's proof goes. `options` say how deep its reorgs may be.
pub fn load<R: BufRead>(
    mut recording: Reader<R>,
    dir: &Path,
    options: Options,
) -> Result<Loaded, LoadError> {
    let header = recording.header().clone();
    let store = Store::open(dir, options)?;
    let journal = store.journal(&header.chain, header.chain_id)?;
    if journal.tail().offset != Offset::START {
        let chain = header.chain.to_string();
        return Err(LoadError::NotEmpty { dir: dir.to_owned(), chain });
    }
    if let Some(genesis) = header.loaded_genesis() {
        journal.remember_genesis(genesis)?;
    }
    let mut tapes: BTreeMap<ModuleName, BTreeMap<Offset, Vec<TapeEntry>>> =
        header.tapes.iter().map(|module| (module.clone(), BTreeMap::new())).collect();
    let mut instead_of = BTreeMap::new();
    let mut appender = Appender::new(&journal);
    while let Some(entry) = recording.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                // What comes first in the file is told first.
                appender.flush().map_err(|error| append_failed(&recording, error))?;
                return Err(error.into());
            }
        };
        let offset = appender.next();
        for (module, answer) in entry.tape {
            tapes.entry(module).or_default().entry(offset).or_default().push(answer);
        }
        if let (Record::Block(block), Some(original)) = (&entry.record, entry.instead_of) {
            instead_of.insert(block.header.this, original);
        }
        appender.push(entry.record).map_err(|error| append_failed(&recording, error))?;
    }
    appender.flush().map_err(|error| append_failed(&recording, error))?;
    let tapes = tapes.into_iter().map(|(name, tape)| (name, RecordedTape(Arc::new(tape))));
    Ok(Loaded { header, store, journal, tapes: tapes.collect(), instead_of })
}

/// A record that does not link is told by its line.
fn append_failed<R: BufRead>(recording: &Reader<R>, error: AppendError) -> LoadError {
    match error {
        AppendError::NotLinked { offset, problem } => {
            recording.not_linked(offset.get(), *problem).into()
        }
        source => LoadError::Append { name: recording.name().to_owned(), source },
    }
}

/// Records in one append: enough that its cost is shared, few enough to stay small in memory.
const BATCH_RECORDS: usize = 256;

/// Bytes in one append, where blocks are full. A commit has at most 8 MiB, with its index.
const BATCH_BYTES: usize = 2 << 20;

/// Appends records in batches, in memory that does not grow with them.
pub(crate) struct Appender<'j> {
    journal: &'j Journal,
    waiting: Vec<Record>,
    waiting_bytes: usize,
}

impl<'j> Appender<'j> {
    pub(crate) fn new(journal: &'j Journal) -> Appender<'j> {
        Appender { journal, waiting: Vec::new(), waiting_bytes: 0 }
    }

    /// Where the next record will be.
    pub(crate) fn next(&self) -> Offset {
        self.journal.tail().offset.plus(self.waiting.len() as u64)
    }

    /// Adds a record, and appends those before it when there are enough of them.
    pub(crate) fn push(&mut self, record: Record) -> Result<(), AppendError> {
        let bytes = match &record {
            Record::Block(block) => {
                let logs = block.logs.iter();
                let logs = logs.map(|log| 128 + 32 * log.topics.len() + log.data.len());
                256 + block.header.rlp.len() + logs.sum::<usize>()
            }
            Record::Revert(revert) => 128 + 48 * revert.abandoned.len(),
            // At most what is kept of a refusal.
            Record::Outcome(_) => 10 << 10,
        };
        if self.waiting.len() == BATCH_RECORDS || self.waiting_bytes + bytes > BATCH_BYTES {
            self.flush()?;
        }
        self.waiting.push(record);
        self.waiting_bytes += bytes;
        Ok(())
    }

    /// Appends what waits. When this returns, it survives a power cut.
    pub(crate) fn flush(&mut self) -> Result<(), AppendError> {
        self.journal.append(self.journal.tail().offset, &self.waiting)?;
        self.waiting.clear();
        self.waiting_bytes = 0;
        Ok(())
    }
}
