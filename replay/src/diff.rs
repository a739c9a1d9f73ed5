//! Where two runs over the same history part, and how far.
//!
//! ```text
//!  offset   0   1   2   3   4   5   6 …
//!  A        ●   ●       ●   ●       ●    what each record led to: writes, effects, reads, fuel
//!  B        ●   ●       ●   ◐   ○   ●
//!                           └ the first that differs: both are run again up to here, and looked at
//! ```
//!
//! Runs are compared by what they remember of each record, in one pass over both. Only effects that
//! one of them has asked for and the other not yet are held in memory, about a hundred bytes each,
//! and eight bytes of fuel per block.

mod effects;
mod first;
mod fuel;
mod retold;
mod text;

use std::{collections::BTreeSet, iter::Peekable, ops::Range, path::Path, str::FromStr};

use serde::Serialize;
use shepherd_host::BoundModule;
use shepherd_log::{
    BlockRef, Journal, LaneId, LaneSnapshot, ModuleName, Offset, StorageError, Trace,
};

pub use effects::{EffectDifference, EffectTotals, OutcomeCount};
pub use first::{AnswerDifference, First, Look, ValueDifference};
pub use fuel::{FuelOfSide, FuelTotals};

use crate::{
    explain::{BlockSeen, Changes, shown},
    run::{Run, RunError},
    venue::Rules,
};

use effects::EffectsOf;

/// One of the two runs.
pub struct Side<'s> {
    /// What people call it.
    pub name: String,
    /// The run.
    pub run: &'s Run,
    /// Its lane.
    pub lane: LaneId,
    /// How to run it again, to look at the first record that differs. Without it that record's
    /// state and questions are not shown.
    pub again: Option<Again<'s>>,
}

/// How to run a side again.
pub struct Again<'s> {
    /// What ran.
    pub module: BoundModule,
    /// The history.
    pub journal: Journal,
    /// The first record.
    pub from: Offset,
    /// Who said what came of its effects. Reads are answered from the run's own tape.
    pub settled: SettledBy,
    /// A directory for it. One that an earlier comparison of this run left is gone on with.
    pub dir: &'s Path,
}

/// Who said what came of a run's effects.
#[derive(Clone, Debug)]
pub enum SettledBy {
    /// The journal's records, as live.
    Journal,
    /// What really happened, and rules, as in a backtest.
    Venue {
        /// The module whose effects in the journal are those of the backtested one.
        recorded_as: ModuleName,
        /// The rules.
        rules: Rules,
    },
}

/// In what two runs may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Aspect {
    /// What they write.
    State,
    /// What they ask for.
    Effects,
    /// What they read, or are answered.
    Reads,
    /// What that takes.
    Fuel,
}

impl Aspect {
    /// All of them, in the order in which they are told.
    pub const ALL: [Aspect; 4] = [Aspect::State, Aspect::Effects, Aspect::Reads, Aspect::Fuel];

    /// Its name in commands and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Aspect::State => "state",
            Aspect::Effects => "effects",
            Aspect::Reads => "reads",
            Aspect::Fuel => "fuel",
        }
    }
}

/// Text that names no aspect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of state, effects, reads and fuel")]
pub struct UnknownAspect(pub String);

impl FromStr for Aspect {
    type Err = UnknownAspect;

    fn from_str(text: &str) -> Result<Aspect, UnknownAspect> {
        let known = Aspect::ALL.into_iter().find(|aspect| aspect.as_str() == text);
        known.ok_or_else(|| UnknownAspect(text.to_owned()))
    }
}

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Which aspects make runs different. The others are told all the same.
    pub decides: BTreeSet<Aspect>,
    /// The records to compare; `None` for all that both runs have passed. The final state is
    /// compared in any case.
    pub records: Option<Range<Offset>>,
    /// Keys, effects and answers that are listed of each kind.
    pub listed_max: usize,
}

impl Default for Compare {
    /// Everything but fuel decides: another compiler, or one more log line, takes other fuel.
    fn default() -> Compare {
        let decides = BTreeSet::from([Aspect::State, Aspect::Effects, Aspect::Reads]);
        Compare { decides, records: None, listed_max: 20 }
    }
}

/// Why two runs cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// They ran over different records.
    #[error(
        "record {record} was handled at block {} by one run and at {} by the other: \
         they are not over the same history",
        blocks[0], blocks[1]
    )]
    OtherHistory {
        /// The record.
        record: Offset,
        /// The newest block of each run then.
        blocks: Box<[BlockRef; 2]>,
    },
    /// They are of different chains.
    #[error("{} and {} are lanes of different chains", lanes[0], lanes[1])]
    OtherChain {
        /// The two lanes.
        lanes: Box<[LaneId; 2]>,
    },
    /// A run has no such lane, or cannot be opened.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A run's store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// How two runs differ.
#[derive(Clone, Debug, Serialize)]
pub struct Differences {
    /// Whether they are the same in every aspect that decides.
    pub is_same: bool,
    /// The runs.
    pub sides: Sides<Ran>,
    /// The first record that was compared.
    pub from: u64,
    /// The first record that was not.
    pub end: u64,
    /// How often they differ, by aspect.
    pub aspects: Vec<AspectSeen>,
    /// The first record that differs in an aspect that decides.
    pub first: Option<First>,
    /// What they asked for.
    pub effects: EffectTotals,
    /// What they took.
    pub fuel: FuelTotals,
    /// The state at their ends.
    pub state: StateTotals,
}

impl Differences {
    /// Whether the runs are the same in every aspect that decides.
    pub fn is_same(&self) -> bool {
        self.is_same
    }
}

/// The same of both runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sides<T> {
    /// Of the first.
    pub a: T,
    /// Of the second.
    pub b: T,
}

/// A run, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ran {
    /// What people call it.
    pub name: String,
    /// Its lane.
    pub lane: String,
    /// The first record it has not passed.
    pub next: u64,
    /// The newest block it has passed.
    pub block: Option<BlockSeen>,
    /// Records its module was called for, among those compared.
    pub handled: u64,
}

/// How often two runs differ in one aspect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AspectSeen {
    /// The aspect.
    pub aspect: Aspect,
    /// Whether it decides.
    pub decides: bool,
    /// Records that differ in it.
    pub records: u64,
    /// The first of the records that differ.
    pub first: Option<Place>,
}

/// A record and its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The record.
    pub record: u64,
    /// The newest block then.
    pub block: BlockSeen,
    /// That block's own time, in seconds since 1970.
    pub timestamp: u64,
}

/// How the state at the end of two runs differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StateTotals {
    /// Keys that only one has.
    pub only: Sides<u64>,
    /// Keys with another value.
    pub other_value: u64,
    /// The first of them, in key order.
    pub listed: Vec<ValueDifference>,
}

impl StateTotals {
    fn differs(&self) -> bool {
        self.only != Sides::default() || self.other_value > 0
    }
}

/// Compares two finished runs.
pub fn diff(
    a: &mut Side<'_>,
    b: &mut Side<'_>,
    compare: &Compare,
) -> Result<Differences, DiffError> {
    if a.lane.chain != b.lane.chain {
        return Err(DiffError::OtherChain { lanes: Box::new([a.lane.clone(), b.lane.clone()]) });
    }
    let (of_a, of_b) = (a.run.snapshot(&a.lane)?, b.run.snapshot(&b.lane)?);
    let passed = of_a.cursor().next.min(of_b.cursor().next);
    let records = compare.records.clone().unwrap_or(Offset::START..passed);
    let records = records.start.min(passed)..records.end.min(passed);
    let mut pass = Pass::new(&of_a, &of_b, records.clone(), compare);
    pass.run()?;
    let state = final_state(&of_a, &of_b, compare.listed_max)?;
    let aspects = pass.aspects;
    let first = match pass.first {
        Some(found) => Some(first::look(found, a, b, &of_a, &of_b, compare)?),
        None => None,
    };
    let ended_apart = of_a.cursor().next != of_b.cursor().next;
    let state_decides = compare.decides.contains(&Aspect::State);
    let differs = |seen: &AspectSeen| seen.decides && seen.records > 0;
    let is_different =
        ended_apart || aspects.iter().any(differs) || (state_decides && state.differs());
    let ran = |side: &Side<'_>, snapshot: &LaneSnapshot, handled| Ran {
        name: side.name.clone(),
        lane: side.lane.to_string(),
        next: snapshot.cursor().next.get(),
        block: snapshot.cursor().block.map(BlockSeen::from),
        handled,
    };
    Ok(Differences {
        is_same: !is_different,
        sides: Sides { a: ran(a, &of_a, pass.handled.a), b: ran(b, &of_b, pass.handled.b) },
        from: records.start.get(),
        end: records.end.get(),
        aspects,
        first,
        effects: pass.effects.finish(&of_a, &of_b)?,
        fuel: pass.fuel.finish(),
        state,
    })
}

/// A record at which the runs differ in an aspect that decides.
struct Found {
    place: Place,
    record: Offset,
    traces: Sides<Option<Trace>>,
    aspects: Vec<Aspect>,
}

/// One pass over both runs.
struct Pass<'s> {
    traces: Sides<Peekable<Traces>>,
    effects_of: Sides<EffectsOf>,
    compare: &'s Compare,
    aspects: Vec<AspectSeen>,
    effects: effects::Matching<'s>,
    fuel: fuel::Blocks,
    handled: Sides<u64>,
    first: Option<Found>,
}

type Traces = Box<dyn Iterator<Item = Result<Trace, StorageError>>>;

impl<'s> Pass<'s> {
    fn new(
        a: &'s LaneSnapshot,
        b: &'s LaneSnapshot,
        records: Range<Offset>,
        compare: &'s Compare,
    ) -> Pass<'s> {
        let traces = |side: &LaneSnapshot| -> Peekable<Traces> {
            (Box::new(side.traces(records.clone())) as Traces).peekable()
        };
        let aspect = |aspect| AspectSeen {
            aspect,
            decides: compare.decides.contains(&aspect),
            records: 0,
            first: None,
        };
        Pass {
            traces: Sides { a: traces(a), b: traces(b) },
            effects_of: Sides { a: EffectsOf::new(a), b: EffectsOf::new(b) },
            compare,
            aspects: Aspect::ALL.map(aspect).to_vec(),
            effects: effects::Matching::new(a, b, compare.listed_max),
            fuel: fuel::Blocks::default(),
            handled: Sides::default(),
            first: None,
        }
    }

    fn run(&mut self) -> Result<(), DiffError> {
        loop {
            let offset = |traces: &mut Peekable<Traces>| match traces.peek() {
                Some(Ok(trace)) => Some(trace.offset),
                // Taken first, whatever the other side has.
                Some(Err(_)) => Some(Offset::START),
                None => None,
            };
            let (a, b) = (offset(&mut self.traces.a), offset(&mut self.traces.b));
            let Some(record) = a.into_iter().chain(b).min() else { return Ok(()) };
            let take = |at: Option<Offset>, traces: &mut Peekable<Traces>| match at {
                Some(offset) if offset == record => traces.next().transpose(),
                _ => Ok(None),
            };
            let traces = Sides { a: take(a, &mut self.traces.a)?, b: take(b, &mut self.traces.b)? };
            self.compare(traces)?;
        }
    }

    fn compare(&mut self, traces: Sides<Option<Trace>>) -> Result<(), DiffError> {
        let one = traces.a.as_ref().or(traces.b.as_ref()).expect("a record of one of the two");
        let (record, block) = (one.offset, one.block);
        let place = Place { record: record.get(), block: block.into(), timestamp: one.timestamp };
        if let (Some(a), Some(b)) = (&traces.a, &traces.b)
            && a.block != b.block
        {
            return Err(DiffError::OtherHistory { record, blocks: Box::new([a.block, b.block]) });
        }
        let silent = Trace::new(record, block, one.timestamp, one.kind);
        let a = traces.a.as_ref().unwrap_or(&silent);
        let b = traces.b.as_ref().unwrap_or(&silent);
        self.handled.a += u64::from(traces.a.is_some());
        self.handled.b += u64::from(traces.b.is_some());
        self.fuel.add(block, a.fuel, b.fuel);
        let asked = Sides {
            a: self.effects_of.a.at(record, a.effects)?,
            b: self.effects_of.b.at(record, b.effects)?,
        };
        let wish = |effects: &[effects::Asked]| -> Vec<_> {
            effects.iter().map(|asked| asked.effect.clone()).collect()
        };
        let effects_differ = wish(&asked.a) != wish(&asked.b);
        self.effects.take(asked)?;
        let differs = [a.wrote != b.wrote, effects_differ, a.read != b.read, a.fuel != b.fuel];
        let mut aspects = Vec::new();
        for (seen, differs) in self.aspects.iter_mut().zip(differs) {
            if !differs {
                continue;
            }
            seen.records += 1;
            seen.first.get_or_insert(place);
            aspects.push(seen.aspect);
        }
        let decides = aspects.iter().any(|aspect| self.compare.decides.contains(aspect));
        if decides && self.first.is_none() {
            self.first = Some(Found { place, record, traces, aspects });
        }
        Ok(())
    }
}

fn final_state(
    a: &LaneSnapshot,
    b: &LaneSnapshot,
    listed_max: usize,
) -> Result<StateTotals, StorageError> {
    let mut totals = StateTotals::default();
    for change in Changes::between(a, b) {
        let (key, a, b) = change?;
        match (&a, &b) {
            (Some(_), None) => totals.only.a += 1,
            (None, Some(_)) => totals.only.b += 1,
            _ => totals.other_value += 1,
        }
        if totals.listed.len() < listed_max {
            let [a, b] = [a, b].map(|value| value.as_deref().map(shown::bytes));
            totals.listed.push(ValueDifference { key: shown::bytes(&key), before: None, a, b });
        }
    }
    Ok(totals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aspects_are_named_as_they_are_told() {
        for aspect in Aspect::ALL {
            assert_eq!(aspect.as_str().parse(), Ok(aspect));
        }
        assert_eq!("time".parse::<Aspect>(), Err(UnknownAspect("time".to_owned())));
        assert!(!Compare::default().decides.contains(&Aspect::Fuel));
    }
}
