//! `shepherd replay backtest`: any module over the past, and a report of what it would have done.
//!
//! ```text
//!   module, configuration ─┐
//!   past, window, what-if ─┼─▶ spec ─▶ output directory ─▶ run, or go on ─▶ report
//!   rules ─────────────────┘            └ refused when it holds another run
//! ```

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use shepherd_host::{BoundModule, Sha256};
use shepherd_log::{Journal, LaneId, Offset};
use shepherd_replay::{
    About, Backtest, BacktestError, CacheError, Ended, History, Rules, Run, RunError, Summary,
    Tape, Window,
    diff::SettledBy,
    recording::Logs,
    what_if::{WhatIf, WhatIfError, modified_history},
    write_report,
};
use shepherd_rpc::{EndpointSpec, Pool, in_words};

use super::{
    Interrupt, THIS_MACHINE_HELP, is_of_this_machine,
    past::{AnyTape, Past, Recorded},
    setting::{self, OnChain},
    what_if,
};
use crate::{
    archive, check,
    cli::{self, Outside, Setting, Show},
    config::{self, Config},
    exit::{self, Code, Failure, NO_ROOM_HELP, Problem, file_problem},
    history::configured,
    modules::{self, Configured},
    progress::lanes::Lanes,
    show::{count, grouped, print, print_json},
    signals,
};

/// What is to be run.
pub struct Request<'a> {
    /// A word for it, beside the progress.
    pub doing: &'static str,
    /// A module.toml or the folder it is in.
    pub module: &'a Path,
    pub setting: &'a Setting,
    pub history: &'a cli::History,
    pub outside: &'a Outside,
    pub what_if: WhatIf,
    /// A folder under backtests/ when there is none.
    pub output: Option<&'a Path>,
    pub fresh: bool,
    pub show: &'a Show,
}

/// A run that came to its end.
pub struct Done {
    pub run: Run,
    pub lane: LaneId,
    pub about: About,
    /// What it ran over, which may be a changed history.
    pub journal: Journal,
    /// Whether all of it was there already.
    pub was_done: bool,
    /// What ran.
    pub module: BoundModule,
    /// The first record.
    pub from: Offset,
    /// Who said what came of its effects.
    pub settled: SettledBy,
}

/// `shepherd replay backtest`.
pub fn backtest(config: &Path, args: &cli::Backtest) -> Result<(), Failure> {
    let config = configuration(config, &args.history)?;
    let past = Past::open(config.as_ref(), &args.history)?;
    let request = Request {
        doing: "backtest",
        module: &args.module,
        setting: &args.setting,
        history: &args.history,
        outside: &args.outside,
        what_if: what_if::read(&args.what_if)?,
        output: args.output.as_deref(),
        fresh: args.fresh,
        show: &args.show,
    };
    let interrupt = Interrupt::new()?;
    let done = run(config.as_ref(), &past, &request, &interrupt)?;
    let summary = report(&done)?;
    if args.show.json {
        print_json(&summary);
        return Ok(());
    }
    print(&text(&done, &summary));
    Ok(())
}

/// The configuration; a recording does without when there is none.
pub fn configuration(file: &Path, history: &cli::History) -> Result<Option<Config>, Failure> {
    if history.recording.is_some() && !file.exists() {
        return Ok(None);
    }
    config::load(file).map(Some)
}

/// Runs a module over a past, or goes on with it, until its end.
pub fn run(
    config: Option<&Config>,
    past: &Past,
    request: &Request<'_>,
    interrupt: &Interrupt,
) -> Result<Done, Problem> {
    let Request { doing, module, setting, history, outside, what_if, .. } = request;
    let engine = modules::engine()?;
    let chain = OnChain { name: past.chain(), id: past.journal.chain_id() };
    let module = setting::load(module, setting, &chain, config, &engine)?;
    let lane = module.bound.lane().clone();
    let Recorded { module: recorded_as, tape } =
        past.recorded(history.tape_of.as_ref(), &lane.module)?;
    let window = past.window(history)?;
    let (rules, rules_text) = rules(outside)?;
    let spec = json!({
        "what": "backtest",
        "module": lane.to_string(),
        "sha256": module.sha256().to_string(),
        // Manifest, chain and everything that was laid over it.
        "binding": Sha256(archive::version(&module).binding).to_string(),
        "window": { "from": window.from.get(), "start": window.start.get(), "end": window.end.get() },
        "recording": past.recording.map(|sha256| sha256.to_string()),
        "recorded_as": recorded_as.as_str(),
        "rules": rules_text,
        "what_if": what_if.in_words(),
    });
    let dir = request.output.map_or_else(|| folder(&lane, &module, &spec), Path::to_owned);
    let run = open_run(&dir, &spec, request.fresh)?;
    if let Some(why) = run.began_again() {
        eprintln!("what the run had come to could not be trusted, it begins again: {why}");
    }
    eprintln!("{lane}: sha256 {}, in {}", module.sha256(), dir.display());
    let was_done = run.is_finished();
    let recorded = Recorded { module: recorded_as.clone(), tape };
    let (past_of, window) = modified(&run, past, recorded, window, &module.bound, what_if)?;
    let journal = past_of.journal.clone();

    // Whoever asks an archive endpoint is on its runtime.
    let _entered = interrupt.enter();
    let endpoint = endpoint(config, past, outside)?;
    let cache = match config {
        Some(config) => config.data_dir.join("replay").join("reads"),
        None => dir.join("reads"),
    };
    let settled = SettledBy::Venue { recorded_as, rules: rules.clone() };
    let backtest = Backtest {
        module: module.bound.clone(),
        window,
        rules,
        endpoint,
        cache: Some(cache),
        step_records_max: None,
    };
    let progress = Lanes::new(request.show);
    let shown = progress.lane(doing, &lane);
    let ended =
        shepherd_replay::backtest(&run, past_of, backtest, &mut |now| shown.set(now), &|| {
            interrupt.asked()
        });
    drop(shown);
    match ended.map_err(|error| backtest_problem(&lane, error))? {
        Ended::Finished => run.finish().map_err(|error| run_problem(&error))?,
        Ended::Interrupted => {
            let help = format!("the same command with `--output {}` goes on", dir.display());
            return Err(signals::stopped(&help));
        }
    }
    let about = about(request, &module.bound, window, &rules_text);
    let (module, from) = (module.bound, window.from);
    Ok(Done { run, lane, about, journal, was_done, module, from, settled })
}

/// Writes the report beside the run.
pub fn report(done: &Done) -> Result<Summary, Problem> {
    let Done { run, lane, about, journal, .. } = done;
    write_report(run, lane, about, journal)
        .map_err(|error| Problem::from_error(Code::WriteFailed, &error).help(NO_ROOM_HELP))
}

/// A folder that names the run; another run has another.
fn folder(lane: &LaneId, module: &Configured, spec: &Value) -> PathBuf {
    let digest = Sha256::of(spec.to_string().as_bytes()).to_string();
    let sha256 = module.sha256().to_string();
    Path::new("backtests").join(format!("{lane}-{}-{}", &sha256[..8], &digest[..8]))
}

fn open_run(dir: &Path, spec: &Value, fresh: bool) -> Result<Run, Problem> {
    let run = match fresh && dir.join("run.json").exists() {
        // What people have put beside it stays. Opened, so that no other process is at work in it.
        true => Run::existing(dir).and_then(|run| run.begin_anew(spec)),
        false => Run::open(dir, spec),
    };
    run.map_err(|error| run_problem(&error))
}

/// Why the output directory cannot be worked in.
pub fn run_problem(error: &RunError) -> Problem {
    let problem = Problem::from_error(Code::Failed, error);
    if exit::no_room(error).is_some() {
        return Problem::new(Code::WriteFailed, problem.message).help(NO_ROOM_HELP);
    }
    match error {
        RunError::OtherRun { .. }
        | RunError::OtherJournal { .. }
        | RunError::OtherRecords { .. } => {
            problem.help("name another directory with --output, or begin anew with --fresh")
        }
        RunError::NotARun { .. } => problem.help("name an empty or a new directory with --output"),
        RunError::Store(shepherd_log::OpenError::Locked { .. }) => {
            Problem::new(Code::Locked, problem.message).help("another process is at work in it")
        }
        RunError::Directory { .. } | RunError::Storage(_) => {
            Problem::new(Code::WriteFailed, problem.message).help(NO_ROOM_HELP)
        }
        _ => problem,
    }
}

/// The past with what is to be changed in it, and the window there.
fn modified(
    run: &Run,
    past: &Past,
    recorded: Recorded,
    window: Window,
    module: &BoundModule,
    what_if: &WhatIf,
) -> Result<(History, Window), Problem> {
    let Recorded { module: recorded_as, tape } = recorded;
    let boxed = |tape: AnyTape| Box::new(tape) as Box<dyn Tape>;
    if what_if.is_empty() {
        let (journal, instead_of) = (past.journal.clone(), past.instead_of.clone());
        return Ok((History { journal, tape: tape.map(boxed), recorded_as, instead_of }, window));
    }
    let logs = Logs::Matching(module.subscription().logs.clone());
    let range = window.from..window.end;
    let changed = modified_history(&past.journal, range, &logs, what_if, run.store());
    let changed = changed.map_err(|error| match error {
        WhatIfError::Read(_) => Problem::from_error(Code::Untrusted, &error),
        error => Problem::from_error(Code::Failed, &error),
    })?;
    let window = Window {
        from: Offset::START,
        start: changed.place_of(window.start).expect("it is in the window"),
        end: changed.journal.tail().offset,
    };
    let tape = tape.map(|tape| Box::new(changed.tape(tape)) as Box<dyn Tape>);
    // A block that stands for one that itself stands for another.
    let mut instead_of = past.instead_of.clone();
    instead_of.extend(changed.instead_of.into_iter().map(|(block, original)| {
        (block, past.instead_of.get(&original).copied().unwrap_or(original))
    }));
    Ok((History { journal: changed.journal, tape, recorded_as, instead_of }, window))
}

/// What comes of orders that were never placed, and its text.
fn rules(outside: &Outside) -> Result<(Rules, String), Problem> {
    let Some(file) = &outside.rules else {
        return Ok((Rules::default(), String::new()));
    };
    let text = fs::read_to_string(file)
        .map_err(|error| file_problem(Code::Failed, "read the rules", file, &error))?;
    let rules =
        Rules::parse(&text, file).map_err(|error| Problem::from_error(Code::Failed, &error))?;
    Ok((rules, text))
}

/// Who answers reads that nobody made before. Must be called on a runtime.
fn endpoint(
    config: Option<&Config>,
    past: &Past,
    outside: &Outside,
) -> Result<Option<Pool>, Problem> {
    let metrics = shepherd_rpc::Metrics::new(&mut Registry::default());
    if outside.endpoints_from_config {
        let Some(config) = config else {
            let message = "--endpoints-from-config: there is no configuration";
            return Err(Problem::new(Code::Failed, message).help("name it with --config"));
        };
        return Ok(Some(check::pool(configured(config, past.chain())?, &metrics)));
    }
    if outside.endpoint.is_empty() {
        return Ok(None);
    }
    let endpoints: Vec<EndpointSpec> =
        outside.endpoint.iter().map(|endpoint| endpoint.0.clone()).collect();
    let (chain, id) = (past.chain().as_str(), past.journal.chain_id());
    Ok(Some(Pool::connect(chain, id, endpoints, shepherd_rpc::Options::default(), &metrics)))
}

fn backtest_problem(lane: &LaneId, error: BacktestError) -> Problem {
    let message = format!("{lane}: {}", in_words(&error));
    match error {
        BacktestError::Miss(_) => Problem::new(Code::Failed, message).help(
            "what was done is kept: the same command with --endpoint URL or --endpoints-from-config goes on",
        ),
        BacktestError::Stop(shepherd_dispatch::Stop::Module { .. }) => {
            Problem::new(Code::Module, message).help(
                "what was done is kept; when the module is mended, begin anew with --fresh",
            )
        }
        BacktestError::Run(error) => run_problem(&error),
        BacktestError::Cache(CacheError::File { .. }) => {
            Problem::new(Code::WriteFailed, message).help(NO_ROOM_HELP)
        }
        BacktestError::Cache(CacheError::Foreign { .. }) | BacktestError::NoRuntime => {
            Problem::new(Code::Failed, message)
        }
        BacktestError::Stop(stop) if is_of_this_machine(&stop) => {
            Problem::new(Code::Failed, message).help(THIS_MACHINE_HELP)
        }
        BacktestError::Stop(_) | BacktestError::Storage(_) | BacktestError::Journal(_) => {
            Problem::new(Code::Untrusted, message)
        }
    }
}

/// What the report says was run.
fn about(request: &Request<'_>, module: &BoundModule, window: Window, rules: &str) -> About {
    let mut options = BTreeMap::new();
    for (number, change) in request.what_if.in_words().into_iter().enumerate() {
        options.insert(format!("what-if {}", number + 1), change);
    }
    let sets = request.setting.set.iter();
    options.extend(sets.map(|set| (format!("--set {}", set.key.join(".")), set.value.clone())));
    if let Some(recording) = &request.history.recording {
        options.insert("--recording".to_owned(), recording.display().to_string());
    }
    let rules = match rules {
        "" => "what really came of it; else accepted, and never filled".to_owned(),
        rules => rules.to_owned(),
    };
    About {
        warm_up_from: window.from,
        rules,
        options,
        ..About::new(module, window.start..window.end)
    }
}

fn text(done: &Done, summary: &Summary) -> String {
    let Summary { run, window, calls, effects, refusals, .. } = summary;
    let blocks = count(window.blocks(), "block");
    let span = match (window.first_block, window.last_block) {
        (Some(first), Some(last)) => format!("blocks {first} to {last}"),
        _ => "no block".to_owned(),
    };
    let mut text = format!(
        "{}@{}, {span}: {blocks}, {} logs given, {} fuel\n",
        run.module,
        run.chain,
        grouped(calls.logs),
        grouped(calls.fuel),
    );
    let counts = [
        (effects.accepted, "accepted"),
        (effects.already_there, "there already"),
        (effects.refused, "refused"),
        (effects.expired, "expired"),
        (effects.cancelled, "cancelled"),
        (effects.dry_run, "dry run"),
        (effects.open, "open"),
        (effects.abandoned, "taken back"),
    ];
    let counts: Vec<String> = counts
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{number} {what}"))
        .collect();
    text += &match effects.asked {
        0 => "  asked for nothing\n".to_owned(),
        asked => format!("  asked for {}: {}\n", count(asked, "effect"), counts.join(", ")),
    };
    for reason in refusals {
        text += &format!("  refused {} times: {}\n", reason.count, reason.reason);
    }
    if done.was_done {
        text += "  this was run before: --fresh runs it again\n";
    }
    text + &format!("  report {}\n", done.run.dir().join("report.html").display())
}
