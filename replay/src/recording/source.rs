//! Records of a journal on their way into a recording or another journal.
//!
//! ```text
//!  journal ──Source──▶ (where from, entry) ──what-if──▶ (where from, entry) ──Renumbered──▶ entry
//! ```
//!
//! One record at a time, so that a week takes no more memory than a block.

use std::ops::Range;

use shepherd_log::{
    Block, EffectId, Header, Journal, LaneSnapshot, ModuleName, Offset, ReadError, Record,
    RecordView, Records, StorageError, StoredRecord,
};

use super::{Entry, Logs};

/// A record that cannot be taken from its journal.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The journal cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A tape cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The first record is no block.
    #[error("record {offset} is not a block: begin at a block")]
    NotABlock {
        /// The record.
        offset: Offset,
    },
    /// A revert to a block before the first.
    #[error(
        "the revert at record {revert} goes back to block {ancestor}, before the first one of the \
         range: begin at block {ancestor} or before it"
    )]
    RevertBefore {
        /// The revert.
        revert: Offset,
        /// The height it goes back to.
        ancestor: u64,
    },
}

/// An entry on its way. Its effect ids are the source's until it is renumbered.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// The record of the source that it is or stands for.
    source: Option<Offset>,
    pub entry: Entry,
    /// Of a block: the index that one more log would have.
    pub next_log_index: u32,
    /// Of a block: the transaction index that one more log would have.
    pub next_transaction_index: u32,
}

impl Taken {
    /// An entry that the source has no record for.
    pub(crate) fn made_up(entry: Entry) -> Taken {
        Taken { source: None, entry, next_log_index: 0, next_transaction_index: 0 }
    }
}

/// Which parts of records are taken.
pub(crate) struct Source<'s> {
    records: Records,
    logs: &'s Logs,
    with_headers: bool,
    tapes: &'s [(ModuleName, LaneSnapshot)],
    /// Height of the first block, once it came.
    first: Option<u64>,
    failed: bool,
}

impl<'s> Source<'s> {
    pub(crate) fn new(
        journal: &Journal,
        range: Range<Offset>,
        logs: &'s Logs,
        with_headers: bool,
        tapes: &'s [(ModuleName, LaneSnapshot)],
    ) -> Source<'s> {
        let records = journal.read(range);
        Source { records, logs, with_headers, tapes, first: None, failed: false }
    }

    fn take(&mut self, stored: &StoredRecord) -> Result<Taken, SourceError> {
        let offset = stored.offset();
        let (mut next_log_index, mut next_transaction_index) = (0, 0);
        let record = match stored.record() {
            RecordView::Block(block) => {
                self.first.get_or_insert(block.this.number);
                let mut logs = Vec::new();
                for log in block.logs() {
                    next_log_index = log.index.saturating_add(1);
                    next_transaction_index = log.transaction_index.saturating_add(1);
                    if self.logs.have_view(&log) {
                        logs.push(log.to_log());
                    }
                }
                let rlp = if self.with_headers { block.rlp.to_vec().into() } else { [].into() };
                Record::Block(Block {
                    header: Header {
                        this: block.this,
                        parent: block.parent,
                        timestamp: block.timestamp,
                        rlp,
                    },
                    logs,
                })
            }
            RecordView::Revert(revert) => {
                let ancestor = revert.ancestor.number;
                if self.first.is_some_and(|first| ancestor < first) {
                    return Err(SourceError::RevertBefore { revert: offset, ancestor });
                }
                Record::Revert(revert)
            }
            RecordView::Outcome(outcome) => Record::Outcome(outcome),
        };
        if self.first.is_none() {
            return Err(SourceError::NotABlock { offset });
        }
        let mut entry = Entry::from(record);
        for (module, tape) in self.tapes {
            let answers = tape.tape(offset)?.into_iter();
            entry.tape.extend(answers.map(|answer| (module.clone(), answer)));
        }
        Ok(Taken { source: Some(offset), entry, next_log_index, next_transaction_index })
    }
}

impl Iterator for Source<'_> {
    type Item = Result<Taken, SourceError>;

    fn next(&mut self) -> Option<Result<Taken, SourceError>> {
        if self.failed {
            return None;
        }
        let taken = match self.records.next()? {
            Ok(stored) => self.take(&stored),
            Err(error) => Err(error.into()),
        };
        self.failed = taken.is_err();
        Some(taken)
    }
}

/// Where records of a source are in what was made of it.
///
/// Kept as stretches, of which there is one and a few more for each change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    stretches: Vec<Stretch>,
    /// The first place that nothing is at yet.
    end: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    at: u64,
    /// The first record's place in the source; `None` for what the source does not have.
    source: Option<u64>,
    records: u64,
}

impl Places {
    /// Puts a record at the end.
    fn push(&mut self, source: Option<Offset>) {
        let source = source.map(Offset::get);
        let at = self.end;
        self.end += 1;
        if let Some(last) = self.stretches.last_mut() {
            let next = last.source.map(|first| first + last.records);
            if source.is_some() == last.source.is_some() && source == next {
                last.records += 1;
                return;
            }
        }
        self.stretches.push(Stretch { at, source, records: 1 });
    }

    /// The record of the source that is at a place or that what is there stands for.
    pub(crate) fn source_of(&self, place: Offset) -> Option<Offset> {
        let behind = self.stretches.partition_point(|stretch| stretch.at <= place.get());
        let stretch = self.stretches[..behind].last()?;
        let within = place.get() - stretch.at;
        (within < stretch.records).then_some(())?;
        stretch.source.map(|source| Offset::new(source + within))
    }

    /// Where a record of the source is, the last time when it is there more than once.
    pub(crate) fn place_of(&self, source: Offset) -> Option<Offset> {
        let source = source.get();
        self.stretches.iter().rev().find_map(|stretch| {
            let within = source.checked_sub(stretch.source?)?;
            (within < stretch.records).then(|| Offset::new(stretch.at + within))
        })
    }
}

/// Entries with the offsets they have from now on, in their effect ids too.
pub(crate) struct Renumbered<I> {
    pub(crate) entries: I,
    pub(crate) places: Places,
    /// Outcomes whose effect was asked for before the first record.
    pub(crate) outcomes_left_out: u64,
}

impl<I> Renumbered<I> {
    pub(crate) fn new(entries: I) -> Renumbered<I> {
        Renumbered { entries, places: Places::default(), outcomes_left_out: 0 }
    }
}

impl<E, I: Iterator<Item = Result<Taken, E>>> Iterator for Renumbered<I> {
    type Item = Result<Entry, E>;

    fn next(&mut self) -> Option<Result<Entry, E>> {
        loop {
            let Taken { source, mut entry, .. } = match self.entries.next()? {
                Ok(taken) => taken,
                Err(error) => return Some(Err(error)),
            };
            if let Record::Outcome(outcome) = &mut entry.record {
                let EffectId { offset, index } = outcome.effect;
                let Some(offset) = self.places.place_of(offset) else {
                    self.outcomes_left_out += 1;
                    continue;
                };
                outcome.effect = EffectId { offset, index };
            }
            self.places.push(source);
            return Some(Ok(entry));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lead_back_to_where_records_came_from() {
        let mut places = Places::default();
        let sources = [Some(5), Some(6), Some(7), None, Some(6), Some(7), None, None, Some(7)];
        for source in sources {
            places.push(source.map(Offset::new));
        }
        for (place, source) in sources.into_iter().enumerate() {
            let place = Offset::new(place as u64);
            assert_eq!(places.source_of(place), source.map(Offset::new), "{place}");
        }
        assert_eq!(places.source_of(Offset::new(9)), None);
        for (source, place) in [(4, None), (5, Some(0)), (6, Some(4)), (7, Some(8)), (8, None)] {
            assert_eq!(places.place_of(Offset::new(source)), place.map(Offset::new), "{source}");
        }
    }
}
