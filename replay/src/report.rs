//! What a backtest leaves for people and notebooks.
//!
//! ```text
//!  traces, effects, outcomes, state ──▶ report.html     to read, offline, in one file
//!                                       summary.json    figures, for programs
//!                                       *.parquet       every row, for notebooks
//!                                       README.md       what is in them
//! ```
//!
//! Rows are read once and written as they come, so the largest run takes no more memory than one
//! number for each record and for each effect. Every file is whole or as it was before; a run that
//! goes on writes them again.

mod chart;
mod charts;
mod data;
pub(crate) mod file;
mod format;
mod order;
mod page;
mod readme;
mod source;
mod summary;
mod tables;
mod timeline;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use alloy_primitives::B256;
use askama::Template;
use shepherd_host::{BoundModule, Sha256, Subscription};
use shepherd_log::{
    ChainName, Entry, Journal, LaneId, ModuleName, Offset, ReadError, StorageError,
};

pub use summary::{
    Calls, Effects, FileFacts, Reason, RunFacts, SUMMARY_FORMAT, StateFacts, Summary, WindowFacts,
};

use self::{
    charts::Charts,
    data::{Asked, Facts, Handled},
    page::{Page, Shown},
    summary::Tally,
    tables::{Table, TimedEffect},
};
use crate::{
    profile::{Gathering, HotBlock, Profile, Profiled, Spread},
    run::{Run, RunError},
};

/// The file for people.
pub const REPORT_FILE: &str = "report.html";
/// The file for programs.
pub const SUMMARY_FILE: &str = "summary.json";
/// One row for each effect.
pub const EFFECTS_FILE: &str = "effects.parquet";
/// One row for each record that was handled.
pub const STEPS_FILE: &str = "steps.parquet";
/// One row for each key of the state at the end.
pub const STATE_FILE: &str = "state.parquet";
/// What the others are.
pub const README_FILE: &str = "README.md";

/// Effects that the page shows one by one.
///
/// A thousand, each with its cause, make a page of a few megabytes, which any browser opens at
/// once. Who has more questions than that asks the table.
const SHOWN_MAX: usize = 1_000;

/// How many of these are kept for effects that were not placed: they are what one looks for.
const SHOWN_UNPLACED_MAX: usize = SHOWN_MAX / 2;

/// What was run, for the reader.
#[derive(Clone, Debug)]
pub struct About {
    /// The module.
    pub module: ModuleName,
    /// Its component.
    pub sha256: Sha256,
    /// The chain.
    pub chain: ChainName,
    /// Its id.
    pub chain_id: u64,
    /// The configuration it was given, as JSON.
    pub config: String,
    /// Which logs concern it.
    pub subscription: Subscription,
    /// Most fuel one call may take.
    pub fuel_limit: u64,
    /// The first record that was handled, in the warm-up.
    pub warm_up_from: Offset,
    /// The records that count.
    pub window: Range<Offset>,
    /// Where reads were answered from, such as `tape`, and how many by each.
    pub reads: BTreeMap<String, u64>,
    /// What decided over effects that never really happened, for people.
    pub rules: String,
    /// Whatever else was asked for, by the name of the option.
    pub options: BTreeMap<String, String>,
}

impl About {
    /// About a run of this module over these records, without a warm-up.
    pub fn new(module: &BoundModule, window: Range<Offset>) -> About {
        About {
            module: module.lane().module.clone(),
            sha256: module.module().sha256(),
            chain: module.lane().chain.clone(),
            chain_id: module.chain_id(),
            config: module.config().to_owned(),
            subscription: module.subscription().clone(),
            fuel_limit: module.module().manifest().limits().fuel,
            warm_up_from: window.start,
            window,
            reads: BTreeMap::new(),
            rules: String::new(),
            options: BTreeMap::new(),
        }
    }
}

/// Why a report was not written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// One of its files cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// What the run computed cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The journal it ran over cannot be read.
    #[error("cannot read the journal that was run over")]
    Journal(#[from] ReadError),
    /// There is no such lane in the run.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Writes everything about a lane of a run into the run's directory, and says what it came to.
///
/// `journal` is the one the lane read its records from. When this returns, the files survive a
/// power cut.
pub fn write(
    run: &Run,
    lane: &LaneId,
    about: &About,
    journal: &Journal,
) -> Result<Summary, ReportError> {
    let snapshot = run.snapshot(lane)?;
    let (window, facts) = source::of(&snapshot, journal, about)?;
    let mut state = StateFacts {
        sum: snapshot.cursor().state.to_string(),
        digest: snapshot.cursor().digest.to_string(),
        ..StateFacts::default()
    };
    Report::new(run.dir()).write(about, window, facts, &mut state)
}

/// The profile of a lane of a run over a window, without writing a report.
pub fn profile(
    run: &Run,
    lane: &LaneId,
    about: &About,
    journal: &Journal,
) -> Result<Profile, ReportError> {
    let snapshot = run.snapshot(lane)?;
    let (window, facts) = source::of(&snapshot, journal, about)?;
    let mut gathering = Gathering::default();
    for row in facts.handled {
        let row = row?;
        if !row.standing.warm_up {
            gathering.add(hot(&row));
        }
    }
    Ok(gathering.finish(profiled(about, &window)))
}

fn profiled(about: &About, window: &WindowFacts) -> Profiled {
    Profiled {
        module: about.module.to_string(),
        sha256: about.sha256.to_string(),
        chain: about.chain.to_string(),
        fuel_limit: about.fuel_limit,
        blocks: window.first_block.zip(window.last_block),
    }
}

fn hot(row: &Handled) -> HotBlock {
    let trace = &row.trace;
    HotBlock {
        fuel: trace.fuel,
        block: trace.block.number,
        hash: trace.block.hash.to_string(),
        offset: trace.offset.get(),
        timestamp: trace.timestamp,
        micros: trace.micros,
        logs: trace.logs.into(),
        reads: trace.reads.into(),
        writes: trace.writes.into(),
        effects: trace.effects.into(),
    }
}

/// A report on its way into its directory.
struct Report<'d> {
    dir: &'d Path,
    tally: Tally,
    charts: Charts,
    gathering: Gathering,
    /// Times of the blocks that asked for effects or settled them.
    times: HashMap<B256, u64>,
    shown: ToShow,
    files: BTreeMap<String, FileFacts>,
}

impl<'d> Report<'d> {
    fn new(dir: &'d Path) -> Report<'d> {
        Report {
            dir,
            tally: Tally::default(),
            charts: Charts::default(),
            gathering: Gathering::default(),
            times: HashMap::new(),
            shown: ToShow::default(),
            files: BTreeMap::new(),
        }
    }

    fn write(
        mut self,
        about: &About,
        window: WindowFacts,
        facts: Facts<'_>,
        state: &mut StateFacts,
    ) -> Result<Summary, ReportError> {
        let Facts { handled, asked, state: entries, mut cause } = facts;
        self.table(STEPS_FILE, handled, |report, row: &Handled| report.handled(row))?;
        let times = std::mem::take(&mut self.times);
        let timed = asked.map(|row| row.map(|row| timed(row, &times)));
        self.table(EFFECTS_FILE, Box::new(timed), |report, row: &TimedEffect| report.asked(row))?;
        self.table(STATE_FILE, entries, |_, (key, value): &Entry| {
            state.entries += 1;
            state.key_bytes += key.len() as u64;
            state.value_bytes += value.len() as u64;
        })?;

        let refusals = self.tally.refusals();
        let Report { dir, mut tally, charts, gathering, shown, files, .. } = self;
        let summary = Summary {
            format: SUMMARY_FORMAT,
            run: run_facts(about, &window),
            calls: tally.calls,
            calls_by_kind: std::mem::take(&mut tally.by_kind),
            effects: tally.effects,
            refusals,
            latency_blocks: Spread::of(&mut tally.latencies),
            overdue_blocks: Spread::of(&mut tally.overdue),
            profile: gathering.finish(profiled(about, &window)),
            window,
            state: state.clone(),
            files,
        };
        let shown = shown
            .finish()
            .into_iter()
            .map(|effect| Ok(Shown { cause: cause(effect.asked.id.offset)?, effect }))
            .collect::<Result<Vec<Shown>, ReportError>>()?;
        let page = Page::new(&summary, charts, &shown).render().map_err(cannot_render);
        let page = page::without_turns(&page.map_err(cannot_write(dir, REPORT_FILE))?);
        let readme = readme::text(&summary).map_err(cannot_render);
        let readme = readme.map_err(cannot_write(dir, README_FILE))?;
        let json = serde_json::to_string_pretty(&summary).expect("it is text and numbers") + "\n";
        // The summary goes last: who waits for it finds the others.
        for (name, content) in [(REPORT_FILE, page), (README_FILE, readme), (SUMMARY_FILE, json)] {
            file::write(dir, name, content.as_bytes()).map_err(cannot_write(dir, name))?;
        }
        Ok(summary)
    }

    fn table<R: tables::Row>(
        &mut self,
        name: &'static str,
        rows: data::Rows<'_, R>,
        mut note: impl FnMut(&mut Self, &R),
    ) -> Result<(), ReportError> {
        let dir = self.dir;
        let failed = |error| cannot_write(dir, name)(tables::as_io(error));
        let mut table = Table::create(dir, name).map_err(failed)?;
        for row in rows {
            let row = row?;
            note(self, &row);
            table.push(&row).map_err(failed)?;
        }
        self.files.insert(name.to_owned(), table.finish().map_err(failed)?);
        Ok(())
    }

    fn handled(&mut self, row: &Handled) {
        let trace = &row.trace;
        if trace.effects > 0 || trace.outcomes > 0 {
            self.times.insert(trace.block.hash, trace.timestamp);
        }
        self.tally.handled(row);
        if !row.standing.warm_up {
            self.gathering.add(hot(row));
            self.charts.handled(trace);
        }
    }

    fn asked(&mut self, row: &TimedEffect) {
        self.tally.asked(&row.asked);
        if !row.asked.standing.warm_up {
            self.charts.asked(row);
            self.shown.push(row);
        }
    }
}

fn timed(asked: Asked, times: &HashMap<B256, u64>) -> TimedEffect {
    let time = times.get(&asked.block.hash).copied().unwrap_or_default();
    let settled = asked.outcome.as_ref().map(|outcome| {
        // An outcome that the module was not told has no trace at its block.
        times.get(&outcome.head.hash).copied().unwrap_or(outcome.at_millis / 1_000)
    });
    TimedEffect { asked, time, settled }
}

fn run_facts(about: &About, window: &WindowFacts) -> RunFacts {
    RunFacts {
        shepherd: env!("CARGO_PKG_VERSION").to_owned(),
        module: about.module.to_string(),
        sha256: about.sha256.to_string(),
        chain: about.chain.to_string(),
        chain_id: about.chain_id,
        config: serde_json::from_str(&about.config)
            .unwrap_or_else(|_| serde_json::Value::String(about.config.clone())),
        reads: about.reads.clone(),
        rules: about.rules.clone(),
        options: about.options.clone(),
        fuel_limit: about.fuel_limit,
        finished: window.end >= about.window.end.get(),
    }
}

fn cannot_render(error: askama::Error) -> io::Error {
    io::Error::other(error)
}

fn cannot_write(dir: &Path, name: &str) -> impl FnOnce(io::Error) -> ReportError {
    let path = dir.join(name);
    move |source| ReportError::Write { path, source }
}

/// The effects that the page shows, chosen while all pass by.
#[derive(Debug, Default)]
struct ToShow {
    placed: VecDeque<TimedEffect>,
    unplaced: VecDeque<TimedEffect>,
}

impl ToShow {
    fn push(&mut self, effect: &TimedEffect) {
        let is_placed = effect.asked.latency().is_some() && !effect.asked.standing.abandoned;
        let kept = if is_placed { &mut self.placed } else { &mut self.unplaced };
        if kept.len() == SHOWN_MAX {
            kept.pop_front();
        }
        kept.push_back(effect.clone());
    }

    /// Newest last. Where they are too many, those not placed get half of the room or what the
    /// others leave.
    fn finish(self) -> Vec<TimedEffect> {
        let room = SHOWN_UNPLACED_MAX.max(SHOWN_MAX.saturating_sub(self.placed.len()));
        let unplaced = self.unplaced.len().min(room);
        let placed = self.placed.len().min(SHOWN_MAX - unplaced);
        let tail = |kept: VecDeque<TimedEffect>, count: usize| {
            let skipped = kept.len() - count;
            kept.into_iter().skip(skipped)
        };
        let mut shown: Vec<TimedEffect> =
            tail(self.placed, placed).chain(tail(self.unplaced, unplaced)).collect();
        shown.sort_by_key(|effect| effect.asked.id);
        shown
    }
}
