//! The reorgs a journal holds, for people.

use crate::{
    codec::RecordView,
    journal::{Journal, ReadError},
    types::{BlockRef, Offset},
};

/// One reorg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReorgSummary {
    /// Offset of the revert.
    pub offset: Offset,
    /// Offset of the first abandoned block.
    pub first_abandoned: Offset,
    /// The last block that both branches share.
    pub ancestor: BlockRef,
    /// The abandoned blocks, in chain order. They stay in the journal.
    pub abandoned: Vec<BlockRef>,
    /// The abandoned head's own time, in seconds since 1970: the reorg was noticed after it.
    pub head_time: u64,
}

impl ReorgSummary {
    /// How many blocks were taken back.
    pub fn depth(&self) -> usize {
        self.abandoned.len()
    }
}

impl Journal {
    /// The reorgs whose records are still there, oldest first. Nothing is removed meanwhile.
    pub fn reverts(&self) -> Result<Vec<ReorgSummary>, ReadError> {
        let _hold = self.hold(Offset::START);
        // In this order: whatever is listed is in the snapshot.
        let tail = self.tail().offset;
        let mut listed = self.abandoned_by_revert();
        // An append makes its reverts known a moment before its tail.
        listed.retain(|revert, _| *revert < tail);
        let snapshot = self.core().snapshot();
        let one = |offset: Offset| {
            let range = offset..offset.plus(1);
            let record = self.read_at(snapshot.clone(), range).next();
            record.unwrap_or(Err(ReadError::Missing { offset }))
        };
        let mut reorgs = Vec::with_capacity(listed.len());
        for (offset, blocks) in listed {
            let RecordView::Revert(revert) = one(offset)?.record() else {
                return Err(ReadError::Missing { offset });
            };
            let head = one(blocks.end)?;
            let head_time = match head.record() {
                RecordView::Block(block) => block.timestamp,
                _ => return Err(ReadError::Missing { offset: blocks.end }),
            };
            reorgs.push(ReorgSummary {
                offset,
                first_abandoned: blocks.start,
                ancestor: revert.ancestor,
                abandoned: revert.abandoned,
                head_time,
            });
        }
        Ok(reorgs)
    }
}
