//! Which outcomes a lane is told at a record, as a function of the journal alone.
//!
//! ```text
//! offset    10    11    12    13     14    15
//!         [ b5 ][ b6 ][ b7 ][out A][out B][rev 5]
//!            └──────────────────┘ A was asked for at b5: it survives, and is told again at 15,
//!                  └───────────────────┘ B at b6: it is real, its block is not: noticed at 15
//! ```
//!
//! What a lane did when it was told stands at the height of the head then, and a revert below that
//! height takes it back, like what blocks did. An outcome is a fact all the same. So at a revert
//! everything that the lane was told above the ancestor is told again, and what came of effects
//! whose own block is taken back is told as that.

use crate::{
    codec::RecordView,
    effect::{EffectId, Outcome},
    journal::{Journal, ReadError, Records},
    types::{LaneId, ModuleName, Offset},
};

/// What a lane is told at a revert, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deliveries {
    /// Outcomes the receiver has something of, whose effect was asked for by what is taken back.
    pub noticed: Vec<Outcome>,
    /// Outcomes that were told above the ancestor. The flag says whether what asked for them had
    /// been taken back already when they were told.
    pub again: Vec<(Outcome, bool)>,
}

impl Deliveries {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.noticed.is_empty() && self.again.is_empty()
    }
}

impl Journal {
    /// Whether what asked for the effect was taken back before the record at `offset`.
    pub fn is_taken_back(&self, outcome: &Outcome, offset: Offset) -> bool {
        self.taken_back_by(outcome).is_some_and(|revert| revert < offset)
    }

    fn taken_back_by(&self, outcome: &Outcome) -> Option<Offset> {
        self.undone_by(outcome.effect.offset, outcome.block.number)
    }

    /// What a lane is told at the revert at `revert`, whose first abandoned block is at `from` and
    /// whose ancestor has this height.
    ///
    /// Everything it was told above the ancestor lies in between: before that block was appended
    /// the chain had no block above the ancestor that still counted.
    pub(crate) fn deliveries(
        &self,
        lane: &LaneId,
        records: Records,
        revert: Offset,
        ancestor: u64,
    ) -> Result<Deliveries, ReadError> {
        let mut deliveries = Deliveries::default();
        for stored in records {
            let stored = stored?;
            let RecordView::Outcome(outcome) = stored.record() else { continue };
            if outcome.module != lane.module {
                continue;
            }
            let offset = stored.offset();
            let taken_back = self.taken_back_by(&outcome).filter(|by| *by <= revert);
            match taken_back {
                // It was noticed at `by`, at the height of the ancestor there.
                Some(by) if by > offset => {
                    let is_news = by == revert || self.is_above(ancestor, u64::MAX, by, revert);
                    if is_news && outcome.result.is_done() {
                        deliveries.noticed.push(outcome);
                    }
                }
                taken_back => {
                    let first = offset.plus(1);
                    if self.is_above(ancestor, outcome.head.number, first, revert) {
                        deliveries.again.push((outcome, taken_back.is_some()));
                    }
                }
            }
        }
        Ok(deliveries)
    }

    /// Whether what a lane did at a height still stands above the ancestor, after the reverts from
    /// `first` up to the one at `revert`.
    fn is_above(&self, ancestor: u64, height: u64, first: Offset, revert: Offset) -> bool {
        let lowest = self.lowest_ancestor(first..revert).unwrap_or(u64::MAX);
        height.min(lowest) > ancestor
    }
}

impl Journal {
    /// The newest outcome of one of a module's effects, and its record.
    ///
    /// Reads every record that is not a block after the effect, and where there is an index none
    /// that is.
    pub fn outcome_of(
        &self,
        module: &ModuleName,
        effect: EffectId,
    ) -> Result<Option<(Offset, Outcome)>, ReadError> {
        let mut newest = None;
        let from = effect.offset.max(self.start());
        for stored in self.others(from..self.tail().offset) {
            let stored = stored?;
            let RecordView::Outcome(outcome) = stored.record() else { continue };
            if outcome.module == *module && outcome.effect == effect {
                newest = Some((stored.offset(), outcome));
            }
        }
        Ok(newest)
    }
}
