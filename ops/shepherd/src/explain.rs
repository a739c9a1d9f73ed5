//! `shepherd explain`: why an effect was asked for, and what came of it.

use shepherd_replay::explain::{ExplainError, explain as find_out, locate};
use shepherd_rpc::in_words;

use crate::{
    cli::Explain,
    config::Config,
    exit::{Code, Failure, Problem},
    modules,
    progress::lanes::Lanes,
    replay::{Interrupt, Scratch, open, versions::Versions},
    show::{print, print_json},
    signals,
};

/// Prints everything that is known about an effect of a lane.
pub fn explain(config: &Config, args: &Explain) -> Result<(), Failure> {
    let store = open(config)?;
    let (lane, effect) =
        locate(&store, args.lane.as_ref(), &args.subject).map_err(|error| problem(&error))?;
    let engine = modules::engine()?;
    let interrupt = Interrupt::new()?;
    let progress = Lanes::new(&args.show);
    let mut versions = Versions::new(config, &engine);
    // Kept: the next explanation goes on from there.
    let scratch = Scratch::of(config, "explain", &lane);
    let mut shown = None;
    let explained = scratch.work(|dir| {
        find_out(
            &store,
            &lane,
            effect,
            &mut |version, lane| versions.load_again(version, lane),
            dir,
            &mut |now| shown.get_or_insert_with(|| progress.lane("explain", &lane)).set(now),
            &|| interrupt.asked(),
        )
    })?;
    drop(shown);
    let explanation = explained.map_err(|error| problem(&error))?;
    match args.show.json {
        true => print_json(&explanation),
        false => print(&explanation.to_string()),
    }
    Ok(())
}

fn problem(error: &ExplainError) -> Problem {
    match error {
        ExplainError::Interrupted { .. } => signals::stopped("the same command goes on from there"),
        ExplainError::NoLane { .. }
        | ExplainError::UnknownEffect { .. }
        | ExplainError::UnknownOrder { .. }
        | ExplainError::Ambiguous { .. } => Problem::new(Code::Failed, in_words(error))
            .help("`shepherd outbox list` names the effects that nothing has come of yet"),
        ExplainError::Run(_) | ExplainError::Directory { .. } => {
            Problem::from_error(Code::WriteFailed, error)
        }
        ExplainError::Journal(_) | ExplainError::Storage(_) => {
            Problem::from_error(Code::Untrusted, error)
        }
    }
}
