//! What a report is made from: one row per handled record, one per effect, and what caused it.
//!
//! Both come in the order of the journal and one at a time, so that a report over months takes no
//! more memory than one over a day.

use std::collections::HashMap;

use alloy_primitives::B256;
use shepherd_log::{
    BlockRef, Deliver, Effect, EffectId, EffectResult, Entry, Log, Offset, Outcome, Refusal,
    Revert, TapeEntry, Trace,
};

use super::ReportError;

/// Where a row stands in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Before the window: shown, and in no figure.
    pub warm_up: bool,
    /// A reorg within the run took its block back.
    pub abandoned: bool,
}

/// The handling of one record.
#[derive(Clone, Debug)]
pub(crate) struct Handled {
    pub trace: Trace,
    pub standing: Standing,
}

/// One effect, and what came of it until the run's end.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub id: EffectId,
    /// The block that asked for it.
    pub block: BlockRef,
    pub effect: Effect,
    pub outcome: Option<Outcome>,
    pub standing: Standing,
}

impl Asked {
    /// The first block after which it may leave, where that is known beforehand.
    pub fn due(&self) -> Option<u64> {
        match self.effect.deliver {
            Deliver::Instant => Some(self.block.number),
            Deliver::Confirmations(depth) => self.block.number.checked_add(depth.into()),
            Deliver::Finalized => None,
        }
    }

    /// Blocks from the one that asked to the one at which the receiver had it.
    pub fn latency(&self) -> Option<u64> {
        let outcome = self.outcome.as_ref()?;
        let placed = outcome.result.is_done();
        placed.then(|| outcome.head.number.saturating_sub(self.block.number))
    }

    /// What came of it, as a word.
    pub fn result(&self) -> &'static str {
        self.outcome.as_ref().map_or(OPEN, |outcome| outcome.result.kind())
    }

    /// Why, in the receiver's or our words; empty when there is nothing to say.
    pub fn reason(&self) -> String {
        match self.outcome.as_ref().map(|outcome| &outcome.result) {
            Some(EffectResult::Refused(refusal)) => {
                let name = refusal_name(refusal);
                match refusal.description.as_str() {
                    "" => name,
                    description => format!("{name}: {description}"),
                }
            }
            Some(EffectResult::Cancelled(why)) => why.clone(),
            _ => String::new(),
        }
    }
}

/// The word for an effect that nothing has come of.
pub(crate) const OPEN: &str = "open";

/// The orderbook's name for a refusal, else its status.
pub(crate) fn refusal_name(refusal: &Refusal) -> String {
    refusal.error_type.clone().unwrap_or_else(|| format!("HTTP status {}", refusal.status))
}

/// What a record handed to the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cause {
    /// The logs that concern the module, in their order.
    pub logs: Vec<Log>,
    /// The answers to its reads.
    pub tape: Vec<TapeEntry>,
}

/// Everything a report is made from.
pub(crate) struct Facts<'a> {
    pub handled: Rows<'a, Handled>,
    pub asked: Rows<'a, Asked>,
    pub state: Rows<'a, Entry>,
    /// What a record handed in; only asked for effects that a page shows.
    pub cause: CauseOf<'a>,
}

pub(crate) type Rows<'a, T> = Box<dyn Iterator<Item = Result<T, ReportError>> + 'a>;
pub(crate) type CauseOf<'a> = Box<dyn FnMut(Offset) -> Result<Cause, ReportError> + 'a>;

/// Which blocks were taken back, and by which record.
///
/// A block may be abandoned, count again and be abandoned once more. What was done for it at some
/// offset is abandoned when a later record takes it back.
#[derive(Debug, Default)]
pub(crate) struct Abandoned {
    last: HashMap<B256, Offset>,
    /// Reorgs seen.
    pub reverts: u64,
    /// Blocks they took back.
    pub blocks: u64,
}

impl Abandoned {
    /// Takes note of a reorg. Reorgs come in the order of the journal.
    pub fn add(&mut self, offset: Offset, revert: &Revert) {
        self.last.extend(revert.abandoned.iter().map(|block| (block.hash, offset)));
        self.reverts += 1;
        self.blocks += revert.abandoned.len() as u64;
    }

    /// Whether what was done at `offset` for this block was taken back.
    pub fn takes_back(&self, offset: Offset, block: BlockRef) -> bool {
        self.last.get(&block.hash).is_some_and(|reverted| *reverted > offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_counts_again_is_abandoned_only_where_it_was() {
        let block = BlockRef { number: 7, hash: B256::repeat_byte(7) };
        let other = BlockRef { number: 7, hash: B256::repeat_byte(8) };
        let revert = Revert { ancestor: other, abandoned: vec![block] };
        let mut abandoned = Abandoned::default();
        abandoned.add(Offset::new(5), &revert);
        assert!(abandoned.takes_back(Offset::new(4), block));
        assert!(!abandoned.takes_back(Offset::new(8), block));
        assert!(!abandoned.takes_back(Offset::new(4), other));
        abandoned.add(Offset::new(9), &revert);
        assert!(abandoned.takes_back(Offset::new(8), block));
        assert_eq!((abandoned.reverts, abandoned.blocks), (2, 2));
    }
}
