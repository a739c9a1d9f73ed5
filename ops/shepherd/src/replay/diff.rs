//! `shepherd replay diff`: two modules, versions or configurations over the same past.
//!
//! A side is the output directory of a backtest that is done, or a module, which is run first.

use std::path::{Path, PathBuf};

use serde_json::Value;
use shepherd_log::LaneId;
use shepherd_replay::{
    Run,
    diff::{Again, Compare, DiffError, Side, diff as compare},
    what_if::WhatIf,
};

use super::{
    Interrupt,
    backtest::{Done, Request, configuration, run, run_problem},
    past::Past,
};
use crate::{
    cli,
    exit::{Code, Failure, Problem},
    show::{print, print_json},
};

/// One side, once it has come to its end.
enum Ran {
    /// It was run before.
    There { run: Run, lane: LaneId },
    /// It was run for this.
    Now(Box<Done>),
}

/// `shepherd replay diff`.
pub fn diff(config: &Path, args: &cli::Diff) -> Result<(), Failure> {
    let (a, b) = (is_run(&args.a), is_run(&args.b));
    let interrupt = Interrupt::new()?;
    let (ran_a, ran_b) = match (a, b) {
        (true, true) => (there(&args.a)?, there(&args.b)?),
        _ => {
            let config = configuration(config, &args.history)?;
            let past = Past::open(config.as_ref(), &args.history)?;
            let side = |path: &Path, is_run: bool, name: &str| match is_run {
                true => there(path),
                false => {
                    let output = args.output.as_ref().map(|output| output.join(name));
                    let request = Request {
                        doing: "diff",
                        module: path,
                        setting: &args.setting,
                        history: &args.history,
                        outside: &args.outside,
                        what_if: WhatIf::default(),
                        output: output.as_deref(),
                        fresh: args.fresh,
                        show: &args.show,
                    };
                    let done = run(config.as_ref(), &past, &request, &interrupt)?;
                    Ok(Ran::Now(Box::new(done)))
                }
            };
            // One after the other: the same module twice works in the same folder.
            let ran_a = side(&args.a, a, "a")?;
            if let (Ran::Now(done), false) = (&ran_a, b)
                && same_files(&args.a, &args.b)
            {
                let message =
                    format!("A and B are the same module, run into {}", done.run.dir().display());
                let help = "run one with another setting first, with `replay backtest --output DIR`, and name DIR here";
                return Err(Problem::new(Code::Failed, message).help(help).into());
            }
            (ran_a, side(&args.b, b, "b")?)
        }
    };
    let [first_a, first_b] = [&ran_a, &ran_b].map(|ran| first_record(&ran.run().spec()));
    if first_a != first_b {
        let message = format!(
            "the records of A are counted from {first_a}, those of B from {first_b}: they are not \
             over the same history"
        );
        let help = "run both over the same blocks of the same journal or recording, and either both \
                    or none with what-ifs; with what-ifs and in recordings records count from 0";
        return Err(Problem::new(Code::Failed, message).help(help).into());
    }
    let dirs = [&ran_a, &ran_b].map(|ran| ran.run().dir().join("again"));
    let mut a = ran_a.side(&args.a, &dirs[0]);
    let mut b = ran_b.side(&args.b, &dirs[1]);
    let differences =
        compare(&mut a, &mut b, &Compare::default()).map_err(|error| problem(&error))?;
    match args.show.json {
        true => print_json(&differences),
        false => print(&differences.to_string()),
    }
    if differences.is_same() {
        return Ok(());
    }
    Err(Problem::new(Code::Different, "A and B are different").into())
}

/// The first record a run handled, as its journal counts them.
fn first_record(spec: &Value) -> u64 {
    let is_changed = spec["what_if"].as_array().is_some_and(|changes| !changes.is_empty());
    // A changed history has a journal of its own.
    if is_changed { 0 } else { spec["window"]["from"].as_u64().unwrap_or_default() }
}

fn is_run(path: &Path) -> bool {
    path.join("run.json").exists()
}

fn same_files(a: &Path, b: &Path) -> bool {
    let whole = |path: &Path| super::setting::manifest(path).canonicalize().ok();
    whole(a) == whole(b)
}

fn there(dir: &Path) -> Result<Ran, Problem> {
    let run = Run::existing(dir).map_err(|error| run_problem(&error))?;
    if !run.is_finished() {
        let message = format!("the run in {} has not come to its end", dir.display());
        let help = "the command that began it goes on with it";
        return Err(Problem::new(Code::Failed, message).help(help));
    }
    let cursors = run.store().cursors();
    let cursors = cursors.map_err(|error| Problem::from_error(Code::Untrusted, &error))?;
    match &cursors[..] {
        [(lane, _)] => Ok(Ran::There { lane: lane.clone(), run }),
        lanes => {
            let message = format!("the run in {} has {} lanes", dir.display(), lanes.len());
            Err(Problem::new(Code::Failed, message))
        }
    }
}

impl Ran {
    fn run(&self) -> &Run {
        match self {
            Ran::There { run, .. } => run,
            Ran::Now(done) => &done.run,
        }
    }

    fn side<'r>(&'r self, path: &Path, again: &'r PathBuf) -> Side<'r> {
        let name = path.display().to_string();
        match self {
            Ran::There { run, lane } => Side { name, run, lane: lane.clone(), again: None },
            Ran::Now(done) => Side {
                name,
                run: &done.run,
                lane: done.lane.clone(),
                again: Some(Again {
                    module: done.module.clone(),
                    journal: done.journal.clone(),
                    from: done.from,
                    settled: done.settled.clone(),
                    dir: again,
                }),
            },
        }
    }
}

fn problem(error: &DiffError) -> Problem {
    match error {
        DiffError::OtherHistory { .. } | DiffError::OtherChain { .. } => {
            Problem::from_error(Code::Failed, error)
                .help("only runs over the same records of the same chain can be compared")
        }
        DiffError::Run(error) => run_problem(error),
        error => Problem::from_error(Code::Untrusted, error),
    }
}
