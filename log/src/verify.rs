//! Reading a whole journal to see whether it is what it claims to be.

use std::ops::Range;

use crate::{
    codec::RecordView,
    index::IndexCheck,
    journal::{Journal, ReadError},
    store::StorageError,
    types::{BlockRef, Digest, Offset},
};

/// Problems listed in a [`Verification`]. A journal with more is not worth a longer list.
const PROBLEMS_MAX: usize = 100;

/// What a verification found.
///
/// `previous` and `digest` pin the range: every record carries its offset and the digest of the
/// one before it, so no record between them can be another without `digest` being another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// The records that were read: what was asked for, as far as it is still there.
    pub range: (Offset, Offset),
    /// Digest of the record before the first, [`Digest::ZERO`] at offset 0 and while none was read.
    pub previous: Digest,
    /// The first block of the range, abandoned or not.
    pub first: Option<BlockRef>,
    /// The last block of the range, abandoned or not.
    pub last: Option<BlockRef>,
    /// How many of them are blocks.
    pub blocks: u64,
    /// How many are reverts.
    pub reverts: u64,
    /// How many are outcomes.
    pub outcomes: u64,
    /// Logs in all blocks, abandoned ones included.
    pub logs: u64,
    /// Encoded size of all records, before compression.
    pub bytes: u64,
    /// Digest of the last record, which stands for the whole chain of records before it.
    pub digest: Digest,
    /// The chain's head after the last record.
    pub head: Option<BlockRef>,
    /// What is wrong, in offset order, at most a hundred.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The record.
    pub offset: Offset,
    /// What is wrong with it, in words.
    pub what: String,
}

impl Journal {
    /// Reads a range and checks that every record is there, intact, chained by digest to the one
    /// before it and linked by parent hash, and that block index and log index find it.
    ///
    /// Nothing of the range is removed meanwhile. `check` adds what the caller knows about a
    /// record, such as header hashes and blooms.
    pub fn verify(
        &self,
        range: Range<Offset>,
        mut check: impl FnMut(&RecordView<'_>) -> Result<(), String>,
    ) -> Result<Verification, StorageError> {
        let _hold = self.hold(range.start);
        let start = self.starts();
        let end = range.end.min(self.tail().offset);
        let first = range.start.max(start.offset).min(end);
        let mut report = Verification {
            range: (first, end),
            previous: Digest::ZERO,
            first: None,
            last: None,
            blocks: 0,
            reverts: 0,
            outcomes: 0,
            logs: 0,
            bytes: 0,
            digest: Digest::ZERO,
            head: None,
            problems: Vec::new(),
        };
        let mut previous = (first == start.offset).then_some(start.previous);
        let mut indexed = IndexCheck::default();
        let mut next = first;
        for stored in self.read(first..end) {
            let offset = next;
            next = next.plus(1);
            let stored = match stored {
                Ok(stored) => stored,
                Err(ReadError::Storage(error)) => return Err(error),
                Err(error) => {
                    report.add(offset, with_source(&error));
                    (previous, report.head) = (None, None);
                    continue;
                }
            };
            if previous.is_some_and(|previous| previous != stored.previous()) {
                report.add(offset, "does not carry the digest of the record before it".to_owned());
            }
            let record = stored.record();
            if offset == first {
                report.previous = stored.previous();
            }
            report.extend(self.check_index(&mut indexed, &stored)?);
            if let Err(what) = self.check_links(&record, offset, report.head)? {
                report.add(offset, what);
            }
            if let Err(what) = check(&record) {
                report.add(offset, what);
            }
            report.count(&record);
            report.bytes += stored.encoded_bytes() as u64;
            report.head = Some(stored.head());
            report.digest = stored.digest();
            previous = Some(report.digest);
        }
        report.extend(self.check_index_of_chunk(&mut indexed)?);
        report.problems.sort_by_key(|problem| problem.offset);
        Ok(report)
    }

    fn check_links(
        &self,
        record: &RecordView<'_>,
        offset: Offset,
        head: Option<BlockRef>,
    ) -> Result<Result<(), String>, StorageError> {
        let block = match record {
            RecordView::Block(block) => block,
            RecordView::Revert(revert) => {
                let fits = head.is_none_or(|head| revert.abandoned.last() == Some(&head));
                return Ok(if fits { Ok(()) } else { Err("abandons other blocks".to_owned()) });
            }
            RecordView::Outcome(outcome) => {
                let fits = head.is_none_or(|head| outcome.head == head);
                return Ok(if fits { Ok(()) } else { Err("names another head".to_owned()) });
            }
        };
        if let Some(head) = head
            && (block.parent != head.hash || block.this.number != head.number + 1)
        {
            return Ok(Err(format!("block {} does not extend {head}", block.this)));
        }
        if !block.logs().is_sorted_by(|a, b| a.index < b.index) {
            return Ok(Err(format!("the logs of block {} are not in order", block.this)));
        }
        // A block that was abandoned and came back is indexed where it came back.
        let indexed = self.offset_of(block.this)?;
        if indexed.is_none_or(|indexed| indexed < offset) {
            return Ok(Err(format!("the block index does not find block {}", block.this)));
        }
        Ok(Ok(()))
    }
}

impl Verification {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    fn add(&mut self, offset: Offset, what: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { offset, what });
        }
    }

    fn extend(&mut self, problems: Vec<Problem>) {
        problems.into_iter().for_each(|problem| self.add(problem.offset, problem.what));
    }

    fn count(&mut self, record: &RecordView<'_>) {
        match record {
            RecordView::Block(block) => {
                self.blocks += 1;
                self.first = self.first.or(Some(block.this));
                self.last = Some(block.this);
                self.logs += u64::from(block.log_count());
            }
            RecordView::Revert(_) => self.reverts += 1,
            RecordView::Outcome(_) => self.outcomes += 1,
        }
    }
}

fn with_source(error: &ReadError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
