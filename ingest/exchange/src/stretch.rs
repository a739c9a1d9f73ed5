//! The blocks of a stretch of the chain as a journal holds them, lowest first.
//!
//! The blocks that count stand in the journal in the order of their heights, whatever reorgs came
//! between them: so they are read in one pass, and what was abandoned is passed over. When it is
//! wanted too, it is looked up and put before the block that counts at the same height.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    vec,
};

use shepherd_log::{
    BlockRef, Digest, Journal, Offset, ReadError, RecordView, Records, StorageError, StoredRecord,
};

/// Which blocks of a journal are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Branches {
    /// The blocks of the chain as it is now.
    #[default]
    Canonical,
    /// Also the blocks that reorgs took back.
    All,
}

/// Why a stretch could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StretchError {
    /// A reorg came meanwhile. What was read before is of another chain than what comes now.
    #[error("the chain changed below block {at} meanwhile: run it again")]
    Changed {
        /// The block that does not follow the one before it.
        at: BlockRef,
    },
    /// The journal cannot be read.
    #[error("cannot read the journal")]
    Read(#[from] ReadError),
}

impl From<StorageError> for StretchError {
    fn from(error: StorageError) -> StretchError {
        StretchError::Read(error.into())
    }
}

/// The heights of the blocks that count.
pub(crate) fn heights(journal: &Journal) -> Result<Range<u64>, StretchError> {
    let tail = journal.tail();
    let Some(head) = tail.head else { return Ok(0..0) };
    for stored in journal.read(journal.start()..tail.offset) {
        let stored = stored?;
        if let RecordView::Block(block) = stored.record()
            && journal.abandoned_by(stored.offset()).is_none()
        {
            return Ok(block.this.number..head.number + 1);
        }
    }
    Ok(0..0)
}

/// Where the blocks are that reorgs took back and that did not come back, by height.
pub(crate) struct Abandoned(BTreeMap<u64, BTreeSet<Offset>>);

impl Abandoned {
    pub fn find(journal: &Journal, branches: Branches) -> Result<Abandoned, StretchError> {
        let mut found: BTreeMap<u64, BTreeSet<Offset>> = BTreeMap::new();
        if branches == Branches::Canonical {
            return Ok(Abandoned(found));
        }
        for block in journal.reverts()?.into_iter().flat_map(|reorg| reorg.abandoned) {
            if let Some(offset) = journal.offset_of(block)?
                && journal.start() <= offset
                && journal.abandoned_by(offset).is_some()
            {
                found.entry(block.number).or_default().insert(offset);
            }
        }
        Ok(Abandoned(found))
    }

    /// How many there are at these heights.
    pub fn count(&self, heights: &Range<u64>) -> u64 {
        self.0.range(heights.clone()).map(|(_, offsets)| offsets.len() as u64).sum()
    }

    fn at(&self, number: u64) -> Vec<Offset> {
        self.0.get(&number).into_iter().flatten().copied().collect()
    }
}

/// Checks that records read one after another are chained by their digests.
#[derive(Default)]
pub(crate) struct Chained(Option<Digest>);

impl Chained {
    pub fn check(&mut self, stored: &StoredRecord) -> Result<(), ReadError> {
        if self.0.is_some_and(|previous| previous != stored.previous()) {
            return Err(ReadError::BrokenChain { offset: stored.offset() });
        }
        self.0 = Some(stored.digest());
        Ok(())
    }
}

/// A block on its way out.
pub(crate) struct OneBlock {
    pub stored: StoredRecord,
    pub abandoned: bool,
}

/// The blocks at some heights, all of which the journal must have. See [the module](self).
pub(crate) struct Stretch<'j> {
    journal: &'j Journal,
    abandoned: &'j Abandoned,
    records: Records,
    chained: Chained,
    heights: Range<u64>,
    /// The last block that counts.
    last: Option<BlockRef>,
    /// Abandoned ones to hand out before what was read ahead.
    before: vec::IntoIter<Offset>,
    ahead: Option<StoredRecord>,
}

impl<'j> Stretch<'j> {
    pub fn read(
        journal: &'j Journal,
        abandoned: &'j Abandoned,
        heights: Range<u64>,
    ) -> Result<Stretch<'j>, StretchError> {
        let tail = journal.tail().offset;
        let start = journal.canonical(heights.start)?.map_or(tail, |(offset, _)| offset);
        Ok(Stretch {
            journal,
            abandoned,
            records: journal.read(start..tail),
            chained: Chained::default(),
            heights,
            last: None,
            before: Vec::new().into_iter(),
            ahead: None,
        })
    }

    /// Reads ahead to the next block that counts.
    fn advance(&mut self) -> Result<Option<StoredRecord>, StretchError> {
        if self.heights.is_empty() {
            return Ok(None);
        }
        for stored in self.records.by_ref() {
            let stored = stored?;
            self.chained.check(&stored)?;
            let RecordView::Block(block) = stored.record() else { continue };
            if self.journal.abandoned_by(stored.offset()).is_some() {
                continue;
            }
            let follows = self.last.is_none_or(|last| last.hash == block.parent);
            if block.this.number != self.heights.start || !follows {
                return Err(StretchError::Changed { at: block.this });
            }
            self.last = Some(block.this);
            self.heights.start += 1;
            self.before = self.abandoned.at(block.this.number).into_iter();
            return Ok(Some(stored));
        }
        // A reorg took back what was there when the stretch was measured.
        let at = self.journal.tail().head.or(self.last);
        Err(StretchError::Changed { at: at.expect("a journal once read from has a head") })
    }

    fn next_block(&mut self) -> Result<Option<OneBlock>, StretchError> {
        if self.ahead.is_none() {
            self.ahead = self.advance()?;
        }
        if let Some(offset) = self.before.next() {
            let stored = self.journal.read(offset..offset.plus(1)).next();
            let stored = stored.ok_or(ReadError::Missing { offset })??;
            return Ok(Some(OneBlock { stored, abandoned: true }));
        }
        Ok(self.ahead.take().map(|stored| OneBlock { stored, abandoned: false }))
    }
}

impl Iterator for Stretch<'_> {
    type Item = Result<OneBlock, StretchError>;

    fn next(&mut self) -> Option<Result<OneBlock, StretchError>> {
        self.next_block().transpose()
    }
}
