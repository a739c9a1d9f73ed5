//! After an unclean end each lane's last records are gone over once more before anything runs.
//!
//! A kill or a power cut loses nothing that was committed; should the machine have written something
//! else than it was told to, this notices before a module works on with it. It takes a moment: only
//! the records go again that a reorg could still take back.

use shepherd_dispatch::{Rehearsal, RehearsalDifference, Runner, Stop};
use shepherd_host::{BoundModule, Engine};
use shepherd_log::{LaneId, LaneVersion, Offset, Store};
use shepherd_replay::FromTape;
use shepherd_rpc::in_words;
use tracing::info;

use crate::{
    archive::Archive,
    exit::{Code, Failure, Problem},
    modules::Configured,
    replay::one_of,
};

/// Rehearses every lane that is about to run. Every lane that comes to something else is named.
pub fn rehearse(
    store: &Store,
    archive: &Archive,
    engine: &Engine,
    modules: &[(Configured, LaneVersion)],
) -> Result<(), Failure> {
    info!(
        lanes = modules.len(),
        "the last shutdown was not clean: going over each lane's last records"
    );
    let mut problems = Vec::new();
    for (configured, version) in modules {
        let lane = configured.bound.lane();
        let load = |newest: &LaneVersion| match newest == version {
            true => Ok(configured.bound.clone()),
            false => archive.load(engine, lane, newest),
        };
        if let Err(problem) = rehearse_lane(store, lane, load) {
            problems.push(problem);
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Failure { problems }) }
}

fn rehearse_lane(
    store: &Store,
    lane: &LaneId,
    load: impl Fn(&LaneVersion) -> Result<BoundModule, Problem>,
) -> Result<(), Problem> {
    let untrusted = |error: &(dyn std::error::Error + 'static)| {
        Problem::new(Code::Untrusted, format!("lane {lane}: {}", in_words(error)))
    };
    let snapshot = store.lane_snapshot(lane).map_err(|error| untrusted(&error))?;
    // A lane that has not run yet has nothing to go over.
    let Some(snapshot) = snapshot else { return Ok(()) };
    let versions = snapshot.versions().map_err(|error| untrusted(&error))?;
    // Nor has one whose store is older than versions: what it ran with is not known.
    let Some((since, newest)) = versions.last() else { return Ok(()) };
    let module = match load(newest) {
        Ok(module) => module,
        Err(problem) => {
            info!(lane = %lane, reason = problem.message, "its last records cannot be gone over");
            return Ok(());
        }
    };
    let handle = store.lane(lane).map_err(|error| untrusted(&error))?;
    let rehearsed = Runner::new(handle, module).rehearse(&mut FromTape::new(&snapshot));
    match found(&rehearsed) {
        Found::Same(rehearsed) => {
            let Rehearsal { records, .. } = rehearsed;
            info!(lane = %lane, from = %records.start, end = %records.end, "its last records come to the same");
            Ok(())
        }
        Found::Storage(error) => Err(untrusted(error)),
        Found::Differs { at, .. } if at < *since => {
            info!(lane = %lane, "its last records were handled by several versions: not gone over");
            Ok(())
        }
        Found::Differs { what, .. } => {
            let message = format!("lane {lane} does not come to the same again: {what}");
            Err(Problem::new(Code::Untrusted, message).help(format!(
                "nothing was changed or sent; `shepherd replay verify {lane}` says where it begins, \
                 and `shepherd replay rebuild {lane}` computes the lane anew from the journal"
            )))
        }
    }
}

/// What a rehearsal says about what is stored.
enum Found<'r> {
    Same(&'r Rehearsal),
    /// Something is not the same, from this record on at the earliest.
    Differs {
        at: Offset,
        what: String,
    },
    Storage(&'r Stop),
}

fn found(rehearsed: &Result<Rehearsal, Stop>) -> Found<'_> {
    match rehearsed {
        Ok(rehearsed) => match &rehearsed.difference {
            None => Found::Same(rehearsed),
            Some(difference) => {
                Found::Differs { at: rehearsed.records.start, what: in_a_sentence(difference) }
            }
        },
        Err(stop @ Stop::Storage(_)) => Found::Storage(stop),
        Err(
            stop @ (Stop::Module { offset, .. }
            | Stop::World { offset, .. }
            | Stop::Revert { offset, .. }),
        ) => Found::Differs { at: *offset, what: in_words(stop) },
    }
}

fn in_a_sentence(difference: &RehearsalDifference) -> String {
    let RehearsalDifference { records, committed, rehearsed, key } = difference;
    let key = key.as_ref().map_or(String::new(), |key| {
        format!("; the first key that differs is 0x{}", hex::encode(key))
    });
    let records = one_of(records.clone());
    format!("{records} left the digest {committed}, and leaves {rehearsed} now{key}")
}

#[cfg(test)]
mod tests {
    use shepherd_log::Digest;

    use super::*;

    #[test]
    fn a_difference_names_record_and_key() {
        let mut difference = RehearsalDifference {
            records: Offset::new(7)..Offset::new(8),
            committed: Digest([1; 32]),
            rehearsed: Digest([2; 32]),
            key: Some(vec![0xab]),
        };
        let text = in_a_sentence(&difference);
        assert!(text.starts_with("record 7 left the digest 0x0101"), "{text}");
        assert!(text.ends_with("now; the first key that differs is 0xab"), "{text}");
        difference.records = Offset::new(7)..Offset::new(12);
        assert!(in_a_sentence(&difference).starts_with("one of the records 7 to 11 left"));
    }
}
