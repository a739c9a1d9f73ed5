//! A changed history in the store of the run that goes through it.

use std::{collections::BTreeMap, ops::Range};

use shepherd_log::{
    AppendError, BlockRef, GenesisError, Journal, JournalError, Offset, ReadError, Record,
    StorageError, Store, TapeEntry,
};

use super::{Changed, ModifyError, WhatIf};
use crate::{
    recording::{Appender, Logs, MODIFIED, Places, Renumbered, Source},
    tape::Tape,
};

/// A changed history that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum WhatIfError {
    /// A change cannot be made, or the history not be read.
    #[error(transparent)]
    Modify(#[from] ModifyError),
    /// The run has the journal of another chain.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The run has the journal of something else.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// What the run has so far cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What the run has so far is not how this history begins.
    #[error(
        "the run was begun with another history: record {offset} is not what it was. Remove the \
         run's directory and begin again"
    )]
    OtherHistory {
        /// The first record that differs.
        offset: Offset,
    },
    /// A record does not follow, as a reorg that is deeper than a journal takes.
    #[error("the changed history cannot be journaled")]
    Append(#[from] AppendError),
}

/// A changed history, in a journal of its own that starts at offset 0.
pub struct ModifiedHistory {
    /// The journal.
    pub journal: Journal,
    /// How much was changed.
    pub changed: Changed,
    /// Blocks that stand in others' place, and those others: what the outside is asked about.
    pub instead_of: BTreeMap<BlockRef, BlockRef>,
    places: Places,
}

impl ModifiedHistory {
    /// Where a record of the original history is, the last time it is there. The end of the
    /// original range is the end of the journal.
    pub fn place_of(&self, original: Offset) -> Option<Offset> {
        self.places.place_of(original)
    }

    /// The original lane's tape, for the changed history.
    pub fn tape<T: Tape>(&self, original: T) -> MovedTape<T> {
        MovedTape { original, places: self.places.clone() }
    }
}

/// The tape of the original history, by the offsets of the changed one. A block that stands in
/// another's place has that one's answers.
pub struct MovedTape<T> {
    original: T,
    places: Places,
}

impl<T: Tape> Tape for MovedTape<T> {
    fn entries(&mut self, record: Offset) -> Result<Vec<TapeEntry>, StorageError> {
        match self.places.source_of(record) {
            Some(original) => self.original.entries(original),
            None => Ok(Vec::new()),
        }
    }
}

/// Writes a range of a journal, changed, into `store`, which is the run's own.
///
/// Only `logs` are taken, so that it is small, and one record at a time, so that it needs no more
/// memory than a block. What is there of it already, from a process that was stopped, is compared
/// and gone on with. When this returns, the history survives a power cut.
pub fn modified_history(
    source: &Journal,
    range: Range<Offset>,
    logs: &Logs,
    what_if: &WhatIf,
    store: &Store,
) -> Result<ModifiedHistory, WhatIfError> {
    let _held = source.hold(range.start);
    let journal = store.journal(source.chain(), source.chain_id())?;
    // Before its first record, so that nobody ever takes it for an ordinary one.
    journal.remember_genesis(MODIFIED)?;
    let mut there = journal.read(Offset::START..journal.tail().offset);
    let taken = Source::new(source, range, logs, false, &[]);
    let mut entries = Renumbered::new(what_if.modify(taken));
    let mut appender = Appender::new(&journal);
    let mut instead_of = BTreeMap::new();
    for entry in entries.by_ref() {
        let entry = entry?;
        if let (Record::Block(block), Some(original)) = (&entry.record, entry.instead_of) {
            instead_of.insert(block.header.this, original);
        }
        match there.next().transpose()? {
            None => appender.push(entry.record)?,
            Some(stored) if stored.record().to_record() == entry.record => (),
            Some(stored) => return Err(WhatIfError::OtherHistory { offset: stored.offset() }),
        }
    }
    appender.flush()?;
    if let Some(more) = there.next().transpose()? {
        return Err(WhatIfError::OtherHistory { offset: more.offset() });
    }
    let Renumbered { entries: modified, places, .. } = entries;
    Ok(ModifiedHistory { journal, changed: modified.changed, instead_of, places })
}
