//! `shepherd replay rebuild`: a lane's state computed anew, and put in the place of the present one.

use serde::Serialize;
use shepherd_admin::view::OffsetView;
use shepherd_host::Engine;
use shepherd_log::{Cursor, LaneError, LaneId, Store};
use shepherd_replay::{RebuildError, Rebuilt};
use shepherd_rpc::in_words;

use super::{Interrupt, again_problem, known, open_to_rebuild, versions::Versions};
use crate::{
    clean, cli,
    config::Config,
    exit::{Code, Failure, NO_ROOM_HELP, Problem, file_problem},
    modules,
    progress::lanes::Lanes,
    show::{print, print_json},
    signals,
};

/// What a lane came to, as JSON.
#[derive(Serialize)]
struct RebuiltView {
    lane: String,
    /// Whether it is what it was before.
    same: bool,
    next: OffsetView,
    before: GenerationView,
    after: GenerationView,
}

#[derive(Serialize)]
struct GenerationView {
    generation: u32,
    digest: String,
    state: String,
}

/// `shepherd replay rebuild`.
pub fn rebuild(config: &Config, args: &cli::Rebuild) -> Result<(), Failure> {
    let store = open_to_rebuild(config, &args.lane)?;
    let lane = known(&store, &args.lane)?;
    if args.abandon {
        return Ok(abandon(&store, &lane, args)?);
    }
    let engine = modules::engine()?;
    Versions::of_old_stores(config, &engine, &store, std::slice::from_ref(&lane))?;
    // Killed in the middle of this, the next `shepherd run` goes over the lane's last records.
    let not_written = |error: &std::io::Error| {
        file_problem(Code::WriteFailed, "write to", &config.data_dir, error).help(NO_ROOM_HELP)
    };
    let was_clean = clean::begin(&config.data_dir).map_err(|error| not_written(&error))?;
    let rebuilt = run(config, args, &store, &lane, &engine);
    if was_clean {
        clean::end(&config.data_dir).map_err(|error| not_written(&error))?;
    }
    let view = view(&rebuilt?);
    match args.show.json {
        true => print_json(&view),
        false => print(&text(&view)),
    }
    Ok(())
}

fn run(
    config: &Config,
    args: &cli::Rebuild,
    store: &Store,
    lane: &LaneId,
    engine: &Engine,
) -> Result<Rebuilt, Problem> {
    let interrupt = Interrupt::new()?;
    let progress = Lanes::new(&args.show);
    let shown = progress.lane("rebuild", lane);
    let mut versions = Versions::new(config, engine);
    let rebuilt = shepherd_replay::rebuild(
        store,
        lane,
        &mut |version, lane| versions.load_again(version, lane),
        // Nobody moves the lane while this process has the data directory.
        &mut || store.lane(lane),
        None,
        &mut |progress| shown.set(progress),
        &|| interrupt.asked(),
    );
    let rebuilt = rebuilt.map_err(|error| problem(lane, error))?;
    sweep(store, &|| interrupt.asked())?;
    Ok(rebuilt)
}

/// Removes what no lane is any more. What is left when this is interrupted, the next one removes.
fn sweep(store: &Store, interrupted: &dyn Fn() -> bool) -> Result<(), Problem> {
    let swept = store.sweep(interrupted);
    swept.map_err(|error| Problem::from_error(Code::Untrusted, &error)).map(|_| ())
}

fn abandon(store: &Store, lane: &LaneId, args: &cli::Rebuild) -> Result<(), Problem> {
    let abandoned = store.abandon_rebuild(lane).map_err(|error| lane_problem(lane, &error))?;
    sweep(store, &|| false)?;
    if args.show.json {
        print_json(&serde_json::json!({ "lane": lane.to_string(), "abandoned": abandoned }));
        return Ok(());
    }
    print(&match abandoned {
        true => format!("{lane}: the rebuild was given up; the lane is what it was\n"),
        false => format!("{lane}: there is no rebuild under way\n"),
    });
    Ok(())
}

fn problem(lane: &LaneId, error: RebuildError) -> Problem {
    let message = format!("lane {lane}: {}", in_words(&error));
    match error {
        RebuildError::Interrupted { .. } => signals::stopped(
            "the lane is what it was; the same command goes on, and with --abandon it is given up",
        ),
        RebuildError::NoLane(_) | RebuildError::Ahead { .. } => Problem::new(Code::Failed, message),
        RebuildError::Again { source, .. } => again_problem(message, *source),
        RebuildError::Lane(error) => lane_problem(lane, &error),
        RebuildError::Switch(_) | RebuildError::Storage(_) => {
            Problem::new(Code::Untrusted, message)
        }
    }
}

fn lane_problem(lane: &LaneId, error: &LaneError) -> Problem {
    let message = format!("lane {lane}: {}", in_words(error));
    match error {
        LaneError::Trimmed { .. } => Problem::new(Code::Failed, message).help(
            "a lane can only be rebuilt from records that the journal still has: see *Retention*",
        ),
        LaneError::Storage(_) => Problem::new(Code::Untrusted, message),
        _ => Problem::new(Code::Failed, message),
    }
}

fn view(rebuilt: &Rebuilt) -> RebuiltView {
    let generation = |cursor: &Cursor| GenerationView {
        generation: cursor.generation,
        digest: cursor.digest.to_string(),
        state: cursor.state.to_string(),
    };
    let cursor = rebuilt.lane.cursor();
    RebuiltView {
        lane: rebuilt.lane.id().to_string(),
        same: rebuilt.is_same(),
        next: cursor.next.into(),
        before: generation(&rebuilt.before),
        after: generation(cursor),
    }
}

fn text(view: &RebuiltView) -> String {
    let RebuiltView { lane, same, next, before, after } = view;
    let mut text = format!("{lane}: rebuilt up to record {next}, and in its place\n");
    if *same {
        text += &format!("  it is what it was: digest {}\n", after.digest);
    } else {
        text += &format!(
            "  it was something else before:\n    before  digest {}\n    now     digest {}\n",
            before.digest, after.digest
        );
    }
    text
}
