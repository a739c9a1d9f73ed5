//! The first record at which two runs differ, looked at closely.

use std::{collections::BTreeMap, error::Error};

use serde::Serialize;
use shepherd_dispatch::Runner;
use shepherd_log::{LaneId, LaneSnapshot, Offset, StorageError, Trace};
use shepherd_rpc::in_words;

use crate::{
    diff::{
        Again, Aspect, Compare, DiffError, Found, Place, SettledBy, Side, Sides,
        effects::{self, EffectDifference, EffectsOf},
        retold::Retold,
    },
    drive::Outside,
    explain::{Change, Handling, Question, watch},
    run::Run,
    tape::FromTape,
    venue::SimulatedVenue,
};

/// The first record at which two runs differ.
#[derive(Clone, Debug, Serialize)]
pub struct First {
    /// Where it is.
    pub place: Place,
    /// `block`, `outcome` or `revert`.
    pub kind: &'static str,
    /// In what they differ there.
    pub aspects: Vec<Aspect>,
    /// Which of them handled it.
    pub handled: Sides<bool>,
    /// Effects that they do not ask for alike.
    pub effects: Vec<EffectDifference>,
    /// What it took.
    pub fuel: Sides<u64>,
    /// Keys with other values after it.
    pub state: Look<Vec<ValueDifference>>,
    /// Questions that they do not ask alike, or that are answered otherwise.
    pub reads: Look<Vec<AnswerDifference>>,
}

/// What can only be seen when both runs are run again up to the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Look<T> {
    /// What was seen.
    Seen(T),
    /// Why it was not looked at.
    NotSeen(String),
}

/// A key with another value in each run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ValueDifference {
    /// The key.
    pub key: String,
    /// Its value before the record, where that is known and there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Its value in the first, if it has one.
    pub a: Option<String>,
    /// Its value in the second.
    pub b: Option<String>,
}

/// A question that two runs do not ask alike, or that is answered otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AnswerDifference {
    /// The question and the answer of the first, when it asks.
    pub a: Option<Question>,
    /// The question and the answer of the second.
    pub b: Option<Question>,
}

pub(super) fn look(
    found: Found,
    a: &mut Side<'_>,
    b: &mut Side<'_>,
    of_a: &LaneSnapshot,
    of_b: &LaneSnapshot,
    compare: &Compare,
) -> Result<First, DiffError> {
    let Found { place, record, traces, aspects } = found;
    let handlings = again(a, record, traces.a.as_ref())
        .and_then(|a_handling| Ok((a_handling, again(b, record, traces.b.as_ref())?)));
    let (state, reads) = match &handlings {
        Ok((a, b)) => (Look::Seen(values(&a.changes, &b.changes)), Look::Seen(questions(a, b))),
        Err(why) => (Look::NotSeen(why.clone()), Look::NotSeen(why.clone())),
    };
    let cut = |look: Look<Vec<ValueDifference>>| match look {
        Look::Seen(mut all) => {
            all.truncate(compare.listed_max);
            Look::Seen(all)
        }
        not_seen => not_seen,
    };
    let fuel = |trace: &Option<Trace>| trace.as_ref().map_or(0, |trace| trace.fuel);
    let kind = traces.a.as_ref().or(traces.b.as_ref()).map_or("block", |t| t.kind.as_str());
    Ok(First {
        place,
        kind,
        handled: Sides { a: traces.a.is_some(), b: traces.b.is_some() },
        effects: asked_otherwise(record, &traces, of_a, of_b, compare.listed_max)?,
        fuel: Sides { a: fuel(&traces.a), b: fuel(&traces.b) },
        state: cut(state),
        reads,
        aspects,
    })
}

/// How the side handled the record, run again up to it.
fn again(side: &mut Side<'_>, record: Offset, trace: Option<&Trace>) -> Result<Handling, String> {
    let Some(again) = &mut side.again else {
        return Err(format!("{} was not run again", side.name));
    };
    if trace.is_none() {
        return Ok(Handling::default());
    }
    let handling = match run_again(side.run, &side.lane, again, record) {
        Ok(handling) => handling,
        Err(error) => {
            return Err(format!("{} cannot be run again: {}", side.name, in_words(&*error)));
        }
    };
    match trace {
        Some(trace) if trace.fuel != handling.fuel => Err(format!(
            "{} does not do again what it did: {} fuel instead of {}",
            side.name, handling.fuel, trace.fuel
        )),
        _ => Ok(handling),
    }
}

fn run_again(
    ran: &Run,
    lane: &LaneId,
    again: &mut Again<'_>,
    record: Offset,
) -> Result<Handling, Box<dyn Error>> {
    let spec = serde_json::json!({ "what": "diff", "of": ran.spec() });
    let run = match Run::open(again.dir, &spec)? {
        // One that has passed the record is of no use.
        run if run.store().lane_snapshot(lane)?.is_some_and(|at| record < at.cursor().next) => {
            run.begin_again()?
        }
        run => run,
    };
    let replayed = run.lane(lane, &again.journal, again.from)?;
    let mut runner = Runner::new(replayed, again.module.clone());
    let mut tape = FromTape::new(ran.snapshot(lane)?);
    let handling = match &again.settled {
        SettledBy::Journal => watch(&run, &mut runner, record, Outside::Tape(&mut tape))?,
        SettledBy::Venue { recorded_as, rules } => {
            let (journal, rules) = (again.journal.clone(), rules.clone());
            let mut venue = SimulatedVenue::new(journal, recorded_as, lane.module.clone(), rules)?;
            venue.resume(&run.snapshot(lane)?)?;
            let mut retold = Retold::new(tape, venue);
            watch(&run, &mut runner, record, Outside::Venue(&mut retold))?
        }
    };
    Ok(handling)
}

/// Effects of a record that are not asked for alike.
fn asked_otherwise(
    record: Offset,
    traces: &Sides<Option<Trace>>,
    of_a: &LaneSnapshot,
    of_b: &LaneSnapshot,
    listed_max: usize,
) -> Result<Vec<EffectDifference>, StorageError> {
    let of = |side: &LaneSnapshot, trace: &Option<Trace>| {
        EffectsOf::new(side).at(record, trace.as_ref().map_or(0, |trace| trace.effects))
    };
    let (of_a, mut of_b) = (of(of_a, &traces.a)?, of(of_b, &traces.b)?);
    let mut differences = Vec::new();
    for a in &of_a {
        let same = |b: &effects::Asked| b.effect.key == a.effect.key;
        match of_b.iter().position(same) {
            Some(position) => {
                let b = of_b.remove(position);
                if b.effect != a.effect {
                    differences.push(EffectDifference::of(Some(a), Some(&b)));
                }
            }
            None => differences.push(EffectDifference::of(Some(a), None)),
        }
    }
    differences.extend(of_b.iter().map(|b| EffectDifference::of(None, Some(b))));
    differences.truncate(listed_max);
    Ok(differences)
}

/// Keys that two changes of the same state leave with other values.
fn values(a: &[Change], b: &[Change]) -> Vec<ValueDifference> {
    let by_key = |changes: &[Change]| -> BTreeMap<String, Change> {
        changes.iter().map(|change| (change.key.clone(), change.clone())).collect()
    };
    let (a, b) = (by_key(a), by_key(b));
    let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let difference = |key: &String| {
        let (of_a, of_b) = (a.get(key), b.get(key));
        let before = of_a.or(of_b).and_then(|change| change.before.clone());
        // A run that did not change it has what was there before.
        let value = |change: Option<&Change>| match change {
            Some(change) => change.after.clone(),
            None => before.clone(),
        };
        let (a, b) = (value(of_a), value(of_b));
        (a != b).then(|| ValueDifference { key: key.clone(), before, a, b })
    };
    keys.into_iter().filter_map(difference).collect()
}

/// Questions that are not asked, or not answered, alike. The same question is paired in order.
fn questions(a: &Handling, b: &Handling) -> Vec<AnswerDifference> {
    let all = |handling: &Handling| -> Vec<Question> {
        handling.reads.iter().flat_map(|call| call.questions.clone()).collect()
    };
    let (of_a, mut of_b) = (all(a), all(b));
    let asks = |a: &Question, b: &Question| a.kind == b.kind && a.of == b.of && a.data == b.data;
    let mut differences = Vec::new();
    for a in of_a {
        match of_b.iter().position(|b| asks(&a, b)) {
            Some(position) => {
                let b = of_b.remove(position);
                if a != b {
                    differences.push(AnswerDifference { a: Some(a), b: Some(b) });
                }
            }
            None => differences.push(AnswerDifference { a: Some(a), b: None }),
        }
    }
    differences.extend(of_b.into_iter().map(|b| AnswerDifference { a: None, b: Some(b) }));
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str, before: Option<&str>, after: Option<&str>) -> Change {
        let [before, after] = [before, after].map(|value| value.map(str::to_owned));
        Change { key: key.to_owned(), before, after }
    }

    #[test]
    fn a_run_that_left_a_key_alone_has_what_was_there_before() {
        let a = [change("k", Some("1"), Some("2")), change("same", None, Some("9"))];
        let b = [change("new", None, Some("3")), change("same", None, Some("9"))];
        let differences: Vec<_> =
            values(&a, &b).into_iter().map(|value| (value.key, value.a, value.b)).collect();
        let some = |text: &str| Some(text.to_owned());
        let expected =
            [("k".to_owned(), some("2"), some("1")), ("new".to_owned(), None, some("3"))];
        assert_eq!(differences, expected);
    }
}
