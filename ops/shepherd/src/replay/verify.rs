//! `shepherd replay verify`: whether lanes are what their journal and their tapes lead to.
//!
//! Each lane is computed again in a folder of its own below the data directory, which is removed
//! when it is done and gone on with when it was stopped.

use serde::Serialize;
use shepherd_admin::view::{BlockRefView, OffsetView, bytes};
use shepherd_log::{BlockRef, Effect, LaneId, Offset};
use shepherd_replay::{Difference, RunError, Verified, VerifyError};
use shepherd_rpc::in_words;

use super::{
    Interrupt, Scratch, again_problem, in_parallel, known, lanes, open, versions::Versions,
};
use crate::{
    cli,
    config::Config,
    exit::{Code, Failure, NO_ROOM_HELP, Problem},
    modules,
    progress::lanes::Lanes,
    show::{print, print_json, print_table, table},
    signals,
};

/// What a lane came to, as JSON.
#[derive(Serialize)]
struct VerifiedView {
    lane: String,
    /// Whether everything is the same.
    same: bool,
    /// The first record that was not verified: the lane's cursor.
    next: OffsetView,
    /// How many records were run again, and how many commits were compared.
    records: u64,
    commits: u64,
    /// The lane's own.
    digest: String,
    state: String,
    difference: Option<DifferenceView>,
}

/// What differs. At least one is there.
#[derive(Serialize)]
struct DifferenceView {
    gap: Option<GapView>,
    stopped: Option<StoppedView>,
    step: Option<StepView>,
    key: Option<KeyView>,
    effect: Option<EffectView>,
}

/// A commit that does not follow the one before it.
#[derive(Serialize)]
struct GapView {
    expected_commit: u64,
    expected_record: OffsetView,
    found_commit: u64,
    found_record: OffsetView,
}

/// The record at which the lane could not be run again.
#[derive(Serialize)]
struct StoppedView {
    record: OffsetView,
    reason: String,
}

/// The first commit that left another digest.
#[derive(Serialize)]
struct StepView {
    commit: u64,
    /// The first record that differs is one of these.
    from: OffsetView,
    end: OffsetView,
    block: Option<BlockRefView>,
    live: String,
    again: String,
}

/// The first key that differs.
#[derive(Serialize)]
struct KeyView {
    key: String,
    live: Option<String>,
    again: Option<String>,
}

/// The first effect that differs.
#[derive(Serialize)]
struct EffectView {
    effect: String,
    live: Option<String>,
    again: Option<String>,
}

/// `shepherd replay verify`.
pub fn verify(config: &Config, args: &cli::VerifyLanes) -> Result<(), Failure> {
    let store = open(config)?;
    let chosen = match &args.lane {
        Some(lane) => vec![known(&store, lane)?],
        None => lanes(&store)?,
    };
    let engine = modules::engine()?;
    Versions::of_old_stores(config, &engine, &store, &chosen)?;
    let interrupt = Interrupt::new()?;
    let progress = Lanes::new(&args.show);
    let done = in_parallel(chosen, |lane| {
        let shown = progress.lane("verify", &lane);
        let mut versions = Versions::new(config, &engine);
        let scratch = Scratch::of(config, "verify", &lane);
        let verified = scratch.work(|dir| {
            shepherd_replay::verify(
                &store,
                &lane,
                &mut |version, lane| versions.load_again(version, lane),
                dir,
                None,
                &mut |progress| shown.set(progress),
                &|| interrupt.asked(),
            )
        })?;
        let verified = verified.map_err(|error| problem(&lane, error))?;
        scratch.remove()?;
        Ok::<_, Problem>(verified)
    });
    drop(progress);
    report(args, done)
}

fn report(args: &cli::VerifyLanes, done: Vec<Result<Verified, Problem>>) -> Result<(), Failure> {
    let mut views = Vec::new();
    let mut problems = Vec::new();
    let mut stopped = false;
    for verified in done {
        match verified {
            Ok(verified) => views.push(VerifiedView::from(&verified)),
            Err(problem) if problem.code == Code::Stopped => stopped = true,
            Err(problem) => problems.push(problem),
        }
    }
    if args.show.json {
        print_json(&views);
    } else {
        print_verified(&views);
    }
    let different: Vec<&str> =
        views.iter().filter(|view| !view.same).map(|view| view.lane.as_str()).collect();
    if !different.is_empty() {
        let message = format!(
            "{} cannot be trusted: run again, {} to something else",
            different.join(", "),
            if different.len() == 1 { "it comes" } else { "they come" }
        );
        problems.push(Problem::new(Code::Untrusted, message).help(
            "keep a copy of the data directory for the search for the cause; `shepherd replay rebuild LANE` \
             computes a lane anew",
        ));
    }
    if problems.is_empty() && stopped {
        problems.push(signals::stopped("the same command goes on from there"));
    }
    if problems.is_empty() { Ok(()) } else { Err(Failure { problems }) }
}

fn problem(lane: &LaneId, error: VerifyError) -> Problem {
    let message = format!("lane {lane}: {}", in_words(&error));
    match error {
        VerifyError::Interrupted { .. } => Problem::new(Code::Stopped, message),
        VerifyError::NoLane(_) => Problem::new(Code::Failed, message),
        VerifyError::Trimmed { .. } => Problem::new(Code::Failed, message).help(
            "a lane can only be verified from records that the journal still has: see *Retention*",
        ),
        VerifyError::Again { source, .. } => again_problem(message, *source),
        VerifyError::Run(RunError::Journal(_)) => Problem::new(Code::Untrusted, message),
        VerifyError::Run(_) => Problem::new(Code::WriteFailed, message).help(NO_ROOM_HELP),
        VerifyError::Journal(_) | VerifyError::Storage(_) => Problem::new(Code::Untrusted, message),
    }
}

impl From<&Verified> for VerifiedView {
    fn from(verified: &Verified) -> VerifiedView {
        let Verified { lane, next, commits, records, digest, state, difference } = verified;
        VerifiedView {
            lane: lane.to_string(),
            same: difference.is_none(),
            next: (*next).into(),
            records: *records,
            commits: *commits,
            digest: digest.to_string(),
            state: state.to_string(),
            difference: difference.as_ref().map(DifferenceView::from),
        }
    }
}

impl From<&Difference> for DifferenceView {
    fn from(difference: &Difference) -> DifferenceView {
        let Difference { gap, stopped, step, key, effect } = difference;
        DifferenceView {
            gap: gap.as_ref().map(|gap| GapView {
                expected_commit: gap.expected.0,
                expected_record: gap.expected.1.into(),
                found_commit: gap.found.0,
                found_record: gap.found.1.into(),
            }),
            stopped: stopped.as_ref().map(|stopped| StoppedView {
                record: stopped.record.into(),
                reason: stopped.reason.clone(),
            }),
            step: step.as_ref().map(|step| StepView {
                commit: step.commit,
                from: step.records.start.into(),
                end: step.records.end.into(),
                block: step.block.map(BlockRefView::from),
                live: step.live.to_string(),
                again: step.again.to_string(),
            }),
            key: key.as_ref().map(|key| KeyView {
                key: bytes(&key.key),
                live: key.live.as_deref().map(bytes),
                again: key.again.as_deref().map(bytes),
            }),
            effect: effect.as_ref().map(|effect| {
                let shown = |side: &Option<(BlockRef, Effect)>| {
                    side.as_ref()
                        .map(|(block, effect)| format!("{} at block {}", effect.key, block.number))
                };
                EffectView {
                    effect: effect.id.to_string(),
                    live: shown(&effect.live),
                    again: shown(&effect.again),
                }
            }),
        }
    }
}

fn print_verified(views: &[VerifiedView]) {
    let mut rows = table(&["LANE", "RECORDS", "COMMITS", "DIGEST", "STATE", "RUN AGAIN"]);
    for view in views {
        rows.add_row([
            view.lane.clone(),
            view.records.to_string(),
            view.commits.to_string(),
            view.digest.clone(),
            view.state.clone(),
            if view.same { "the same" } else { "DIFFERENT" }.to_owned(),
        ]);
    }
    if !views.is_empty() {
        print_table(&mut rows);
    }
    for view in views {
        if let Some(difference) = &view.difference {
            print(&format!("\n{}:\n{}", view.lane, in_lines(difference)));
        }
    }
}

/// What differs, a line or two for each.
fn in_lines(difference: &DifferenceView) -> String {
    let DifferenceView { gap, stopped, step, key, effect } = difference;
    let nothing = |side: &Option<String>| side.clone().unwrap_or_else(|| "nothing".to_owned());
    let mut text = String::new();
    if let Some(gap) = gap {
        let GapView { expected_commit, expected_record, found_commit, found_record } = gap;
        text += &format!(
            "  commit {expected_commit} should begin with record {expected_record}; \
             there is commit {found_commit} with record {found_record}\n"
        );
    }
    if let Some(StoppedView { record, reason }) = stopped {
        text += &format!("  record {record} cannot be run again: {reason}\n");
    }
    if let Some(step) = step {
        let StepView { commit, from, end, block, live, again } = step;
        let records = super::one_of(Offset::from(*from)..Offset::from(*end));
        let block =
            block.as_ref().map_or(String::new(), |block| format!(" (block {})", block.number));
        text += &format!(
            "  {records} in commit {commit}{block}:\n    live   digest {live}\n    again  digest {again}\n"
        );
    }
    if let Some(KeyView { key, live, again }) = key {
        text +=
            &format!("  key {key}:\n    live   {}\n    again  {}\n", nothing(live), nothing(again));
    }
    if let Some(EffectView { effect, live, again }) = effect {
        text += &format!(
            "  effect {effect}:\n    live   {}\n    again  {}\n",
            nothing(live),
            nothing(again)
        );
    }
    text
}
