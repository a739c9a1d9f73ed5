//! `shepherd profile`: what a module takes, and whether that grew.

use std::path::Path;

use serde::Serialize;
use shepherd_replay::{
    Profile, ProfileError, Regression, Thresholds, compare, profile as gather, what_if::WhatIf,
};
use shepherd_rpc::in_words;

use super::{
    Interrupt,
    backtest::{Request, configuration, run},
    past::Past,
};
use crate::{
    cli,
    exit::{Code, Failure, Problem},
    show::{count, grouped, print, print_json, print_table, table},
};

/// A profile, and how it compares, as JSON.
#[derive(Serialize)]
struct ProfileView<'p> {
    profile: &'p Profile,
    /// What takes more than it may.
    regressions: Vec<String>,
}

/// `shepherd profile`.
pub fn profile(config: &Path, args: &cli::Profile) -> Result<(), Failure> {
    // Read first: a wrong file is better found before a long run.
    let before = args.compare.as_deref().map(Profile::load).transpose();
    let before = before.map_err(|error| file_problem(&error))?;
    let config = configuration(config, &args.history)?;
    let past = Past::open(config.as_ref(), &args.history)?;
    let request = Request {
        doing: "profile",
        module: &args.module,
        setting: &args.setting,
        history: &args.history,
        outside: &args.outside,
        what_if: WhatIf::default(),
        output: None,
        fresh: false,
        show: &args.show,
    };
    let interrupt = Interrupt::new()?;
    let done = run(config.as_ref(), &past, &request, &interrupt)?;
    let profile = gather(&done.run, &done.lane, &done.about, &done.journal)
        .map_err(|error| Problem::from_error(Code::Untrusted, &error))?;
    if let Some(file) = &args.save {
        profile.save(file).map_err(|error| file_problem(&error))?;
    }
    let regressions = match &before {
        None => Vec::new(),
        Some(before) => compare(before, &profile, &thresholds(args)).map_err(|error| {
            Problem::from_error(Code::Failed, &error)
                .help("name the blocks with --from and --to, so that both are over the same")
        })?,
    };
    let regressions: Vec<String> = regressions.iter().map(Regression::to_string).collect();
    if args.show.json {
        print_json(&ProfileView { profile: &profile, regressions: regressions.clone() });
    } else {
        print_profile(&profile);
    }
    if regressions.is_empty() {
        return Ok(());
    }
    let message = format!("it takes more than it may: {}", regressions.join("; "));
    Err(Problem::new(Code::Different, message).into())
}

/// The hottest block may take more than the others: it is one alone.
fn thresholds(args: &cli::Profile) -> Thresholds {
    let growth = args.fuel_growth_max / 100.0;
    let default = Thresholds::default();
    Thresholds {
        fuel_total: Some(growth),
        fuel_p99: Some(growth),
        fuel_max: default.fuel_max.map(|max| max.max(growth)),
        ..default
    }
}

fn print_profile(profile: &Profile) {
    let Profile { of, records, fuel, micros, hottest, .. } = profile;
    let span = of
        .blocks
        .map_or("no block".to_owned(), |(first, last)| format!("blocks {first} to {last}"));
    let share = profile.share_of_limit(fuel.max) * 100.0;
    print(&format!(
        "{}@{}, {span}: called for {} in {}\n  sha256 {}\n  the hottest block takes {share:.1} % of \
         the limit of {} fuel\n\n",
        of.module,
        of.chain,
        count(*records, "record"),
        count(fuel.count, "block"),
        of.sha256,
        grouped(of.fuel_limit),
    ));
    let mut rows = table(&["PER BLOCK", "P50", "P90", "P99", "MAX", "IN ALL"]);
    for (name, spread) in [("fuel", fuel), ("microseconds", micros)] {
        let figures = [spread.p50, spread.p90, spread.p99, spread.max, spread.total];
        let figures = figures.into_iter().map(grouped);
        rows.add_row([name.to_owned()].into_iter().chain(figures));
    }
    print_table(&mut rows);
    if hottest.is_empty() {
        return;
    }
    print("\n");
    let mut rows =
        table(&["HOTTEST", "FUEL", "MICROSECONDS", "LOGS", "READS", "WRITES", "EFFECTS"]);
    for block in hottest {
        let figures =
            [block.fuel, block.micros, block.logs, block.reads, block.writes, block.effects];
        let figures = figures.into_iter().map(grouped);
        rows.add_row([block.block.to_string()].into_iter().chain(figures));
    }
    print_table(&mut rows);
}

fn file_problem(error: &ProfileError) -> Problem {
    Problem::new(Code::Failed, in_words(error))
}
