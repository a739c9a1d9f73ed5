//! What really came of a lane's effects, as the journal has it, in the places where a backtest
//! tells it.
//!
//! ```text
//! offset     10    11    12    13    14
//!          [ b5 ][out A][out B][ b6 ][out C]
//!             ▲     │      │      ▲     │
//!             └─────┴──────┘      └─────┘   a backtest tells A and B after b5, C after b6
//! ```
//!
//! A backtest passes over the outcomes in the journal and tells its own right after the record
//! before them, so what the live lane did while it was told A counts to the record of b5 here.

use std::collections::{BTreeMap, BTreeSet};

use shepherd_log::{
    EffectId, EffectKey, EffectResult, Journal, ModuleName, Offset, Outcome, ReadError, RecordView,
};

/// What really came of effects.
#[derive(Debug, Default)]
pub(crate) struct Happened {
    /// What came of the lane's own effects, by key, in journal order.
    facts: BTreeMap<EffectKey, Vec<Fact>>,
    /// Every outcome in the journal, of whatever lane.
    outcomes: BTreeSet<Offset>,
    /// Every revert, and the height it goes back to.
    reverts: BTreeMap<Offset, u64>,
}

/// What really came of one effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fact {
    /// Its record.
    pub(crate) record: Offset,
    /// The record it is told after.
    pub(crate) due: Offset,
    /// The record in whose handling it was asked for.
    pub(crate) asked: Offset,
    /// What came of it.
    pub(crate) outcome: Outcome,
}

impl Fact {
    /// Whether it is what the receiver says of the key, whoever asks and when.
    ///
    /// That an effect expired or was cancelled is about the attempt, and a dry run is nothing that
    /// happened.
    pub(crate) fn is_word_of_the_receiver(&self) -> bool {
        match self.outcome.result {
            EffectResult::Accepted | EffectResult::AlreadyThere | EffectResult::Refused(_) => true,
            EffectResult::Expired | EffectResult::Cancelled(_) | EffectResult::DryRun => false,
        }
    }
}

impl Happened {
    /// Reads what a journal knows of the effects of one module.
    pub(crate) fn read(journal: &Journal, module: &ModuleName) -> Result<Happened, ReadError> {
        let mut happened = Happened::default();
        let mut of_module = Vec::new();
        for stored in journal.others(journal.start()..journal.tail().offset) {
            let stored = stored?;
            let record = stored.offset();
            match stored.record() {
                RecordView::Block(_) => (),
                RecordView::Revert(revert) => {
                    happened.reverts.insert(record, revert.ancestor.number);
                }
                RecordView::Outcome(outcome) => {
                    happened.outcomes.insert(record);
                    if outcome.module == *module && outcome.result != EffectResult::DryRun {
                        of_module.push((record, outcome));
                    }
                }
            }
        }
        for (record, outcome) in of_module {
            let (due, asked) =
                (happened.counts_to(record), happened.counts_to(outcome.effect.offset));
            let fact = Fact { record, due, asked, outcome };
            happened.facts.entry(fact.outcome.key.clone()).or_default().push(fact);
        }
        Ok(happened)
    }

    /// What came of effects with this key, in journal order.
    pub(crate) fn of(&self, key: &EffectKey) -> &[Fact] {
        self.facts.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether an effect of a backtest is the one that the live lane asked for.
    pub(crate) fn is_same(fact: &Fact, effect: EffectId) -> bool {
        fact.asked == effect.offset
    }

    /// The record that a backtest counts a record to: the one before the outcomes it is among.
    pub(crate) fn counts_to(&self, record: Offset) -> Offset {
        let mut record = record;
        while self.outcomes.contains(&record) && Offset::START < record {
            record = Offset::new(record.get() - 1);
        }
        record
    }

    /// The outcomes that count to a record.
    pub(crate) fn outcomes_after(&self, record: Offset) -> impl Iterator<Item = Offset> {
        let following = (1..).map(move |n| record.plus(n));
        following.take_while(|offset| self.outcomes.contains(offset))
    }

    /// The lowest height that reverts in a range go back to.
    pub(crate) fn lowest_ancestor(&self, range: std::ops::Range<Offset>) -> Option<u64> {
        if range.end <= range.start {
            return None;
        }
        self.reverts.range(range).map(|(_, ancestor)| *ancestor).min()
    }

    /// The revert that takes back what was done at a height while a record was passed.
    pub(crate) fn undone_by(&self, record: Offset, height: u64) -> Option<Offset> {
        let mut later = self.reverts.range(record.plus(1)..);
        later.find(|(_, ancestor)| **ancestor < height).map(|(offset, _)| *offset)
    }
}
