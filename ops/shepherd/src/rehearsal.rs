//! After an unclean end each lane's last records are gone over once more before anything runs.
//!
//! A kill or a power cut loses nothing that was committed; should the machine have written something
//! else than it was told to, this notices before a module works on with it. It takes a moment: only
//! the records go again that a reorg could still take back.

use shepherd_dispatch::{Rehearsal, RehearsalDifference, Runner, Stop};
use shepherd_host::{BoundModule, Engine, ReadAnswer, ReadRequest, Reads, World};
use shepherd_log::{BlockRef, LaneId, LaneVersion, Offset, Store};
use shepherd_replay::FromTape;
use shepherd_rpc::in_words;
use tracing::info;

use crate::{
    archive::Archive,
    exit::{Code, Failure, Problem},
    modules::Configured,
    replay::{is_of_this_machine, one_of},
};

/// Rehearses every lane that is about to run. Every lane that comes to something else is named.
pub fn rehearse(
    store: &Store,
    archive: &Archive,
    engine: &Engine,
    modules: &[(Configured, LaneVersion)],
) -> Result<(), Failure> {
    let cursors = store.cursors().map_err(|error| Problem::from_error(Code::Untrusted, &error))?;
    let has_run = |lane: &LaneId| cursors.iter().any(|(id, at)| id == lane && at.commit > 0);
    let modules: Vec<_> =
        modules.iter().filter(|(configured, _)| has_run(configured.bound.lane())).collect();
    // The first start on a data directory follows no shutdown at all.
    if modules.is_empty() {
        return Ok(());
    }
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
    let mut reads = Begun { reads: FromTape::new(&snapshot), first: None };
    let rehearsed = Runner::new(handle, module).rehearse(&mut reads);
    match found(&rehearsed, reads.first, *since) {
        Found::Same(rehearsed) => {
            let Rehearsal { records, .. } = rehearsed;
            info!(lane = %lane, from = %records.start, end = %records.end, "its last records come to the same");
            Ok(())
        }
        Found::Storage(error) => Err(untrusted(error)),
        Found::SeveralVersions => {
            info!(lane = %lane, "its last records were handled by several versions: not gone over");
            Ok(())
        }
        Found::Unfinished(stop) => {
            info!(lane = %lane, reason = in_words(stop), "its last records cannot be gone over");
            Ok(())
        }
        Found::Differs(what) => {
            let message = format!("lane {lane} does not come to the same again: {what}");
            Err(Problem::new(Code::Untrusted, message).help(format!(
                "nothing was changed or sent; `shepherd replay verify {lane}` says where it begins, \
                 and `shepherd replay rebuild {lane}` computes the lane anew from the journal"
            )))
        }
    }
}

/// Answers reads, and remembers where it was begun with.
struct Begun<R> {
    reads: R,
    first: Option<Offset>,
}

impl<R: Reads> Reads for Begun<R> {
    fn begin(&mut self, record: Offset) {
        self.first.get_or_insert(record);
        self.reads.begin(record);
    }

    fn read(
        &mut self,
        block: BlockRef,
        requests: &[ReadRequest],
    ) -> Result<Vec<ReadAnswer>, World> {
        self.reads.read(block, requests)
    }
}

/// What a rehearsal says about what is stored.
enum Found<'r> {
    Same(&'r Rehearsal),
    /// Something is not the same.
    Differs(String),
    /// Something is not the same, and need not be: the newest version went over records that an
    /// earlier one had handled.
    SeveralVersions,
    /// For want of time or memory it did not come to its end, which says nothing.
    Unfinished(&'r Stop),
    Storage(&'r Stop),
}

/// `first` is the first record that was gone over, `since` the first of the version that did.
fn found(rehearsed: &Result<Rehearsal, Stop>, first: Option<Offset>, since: Offset) -> Found<'_> {
    let what = match rehearsed {
        Ok(rehearsed) => match &rehearsed.difference {
            None => return Found::Same(rehearsed),
            Some(difference) => in_a_sentence(difference),
        },
        Err(stop @ Stop::Storage(_)) => return Found::Storage(stop),
        Err(stop) if is_of_this_machine(stop) => return Found::Unfinished(stop),
        Err(stop) => in_words(stop),
    };
    // Wherever it shows: the state was another since the first record.
    match first.is_some_and(|first| first < since) {
        true => Found::SeveralVersions,
        false => Found::Differs(what),
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
    use std::time::Duration;

    use shepherd_log::Digest;

    use super::*;

    #[test]
    fn what_the_newest_version_makes_of_an_earlier_one_s_records_is_no_damage() {
        let stop = |source| Stop::World { offset: Offset::new(9), height: 9, source };
        let off_tape = Err(stop(World::chain("it asks something else")));
        let slow = Err(stop(World::Deadline { deadline: Duration::from_secs(60) }));
        let at = |first| Some(Offset::new(first));
        let since = Offset::new(5);
        // It went over record 4 too, and stumbled only at 9.
        assert!(matches!(found(&off_tape, at(4), since), Found::SeveralVersions));
        assert!(matches!(found(&off_tape, at(5), since), Found::Differs(_)));
        assert!(matches!(found(&slow, at(5), since), Found::Unfinished(_)));
    }

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
