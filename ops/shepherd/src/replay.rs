//! `shepherd replay …` and its relatives: history, run again.
//!
//! ```text
//!   store, opened for itself ─┐
//!   versions from the archive ┼─▶ shepherd-replay on a thread for each lane ─▶ what it came to
//!   progress, Ctrl-C ─────────┘
//! ```

pub mod backtest;
pub mod diff;
pub mod past;
pub mod profile;
pub mod rebuild;
mod scratch;
pub mod setting;
pub mod verify;
pub mod versions;
mod what_if;

use std::{
    num::NonZero,
    ops::Range,
    sync::Mutex,
    thread::{self, available_parallelism},
};

use shepherd_dispatch::Stop;
use shepherd_host::World;
use shepherd_log::{LaneId, Offset, Store};
use shepherd_replay::VersionError;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub use self::scratch::Scratch;
use self::versions::NotLoaded;
use crate::{
    config::Config,
    exit::{Code, Problem},
    history::runtime,
    signals,
    view::{open_existing, open_existing_to_rebuild},
};

/// Opens the data directory for a replay, which nobody else may have open meanwhile.
pub fn open(config: &Config) -> Result<Store, Problem> {
    opened(open_existing(config))
}

/// Opens it to rebuild a lane, whatever has become of its state.
pub fn open_to_rebuild(config: &Config, lane: &LaneId) -> Result<Store, Problem> {
    opened(open_existing_to_rebuild(config, lane))
}

fn opened(store: Result<Store, Problem>) -> Result<Store, Problem> {
    store.map_err(|problem| match problem.code {
        Code::Locked => problem.help(
            "stop `shepherd run` meanwhile: its lanes go on where they were; or replay a recording, \
             which needs no data directory: `--recording FILE`",
        ),
        _ => problem,
    })
}

/// Every lane of a store, by name.
fn lanes(store: &Store) -> Result<Vec<LaneId>, Problem> {
    let cursors = store.cursors().map_err(|error| Problem::from_error(Code::Untrusted, &error))?;
    Ok(cursors.into_iter().map(|(lane, _)| lane).collect())
}

/// A lane that must be there.
fn known(store: &Store, lane: &LaneId) -> Result<LaneId, Problem> {
    let lanes = lanes(store)?;
    if lanes.contains(lane) {
        return Ok(lane.clone());
    }
    let problem = Problem::new(Code::Failed, format!("there is no lane {lane}"));
    Err(match &lanes[..] {
        [] => problem.help("no lane has run on this data directory yet"),
        lanes => {
            let names: Vec<String> = lanes.iter().map(ToString::to_string).collect();
            problem.help(format!("the lanes are {}", names.join(", ")))
        }
    })
}

/// One of these records, in words. There is at least one.
pub fn one_of(records: Range<Offset>) -> String {
    let (first, last) = (records.start.get(), records.end.get().saturating_sub(1));
    match last <= first {
        true => format!("record {first}"),
        false => format!("one of the records {first} to {last}"),
    }
}

/// Why a lane could not be run again; `message` says so in words.
fn again_problem(message: String, error: VersionError) -> Problem {
    match error {
        VersionError::Load { source, .. } => match source.downcast::<NotLoaded>() {
            Ok(not_loaded) => not_loaded.0,
            Err(_) => Problem::new(Code::Module, message),
        },
        VersionError::Unknown { .. } => Problem::new(Code::Module, message)
            .help("`shepherd run` writes down what a lane runs when it starts"),
        VersionError::Stop(stop) if is_of_this_machine(&stop) => {
            Problem::new(Code::Failed, message).help(THIS_MACHINE_HELP)
        }
        VersionError::Stop(_) => Problem::new(Code::Untrusted, message),
    }
}

/// What to do when the machine could not keep up.
const THIS_MACHINE_HELP: &str =
    "this machine has too little time or memory for it just now: run the command again";

/// Whether a module did not run to its end for want of time or memory, which says nothing about
/// what is stored.
pub fn is_of_this_machine(stop: &Stop) -> bool {
    matches!(stop, Stop::World { source: World::Deadline { .. } | World::Instance(_), .. })
}

/// Hears SIGINT and SIGTERM while a replay works.
pub struct Interrupt {
    asked: CancellationToken,
    /// Its threads wait for the signals.
    runtime: Runtime,
}

impl Interrupt {
    /// Both are caught from now on. A second one ends the process on the spot.
    pub fn new() -> Result<Interrupt, Problem> {
        let runtime = runtime()?;
        let asked = CancellationToken::new();
        runtime.block_on(async { signals::cancel_on_signal(&asked) })?;
        Ok(Interrupt { asked, runtime })
    }

    /// Whoever is given this may use the runtime from here on.
    pub fn enter(&self) -> tokio::runtime::EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Whether the work should end at the next record.
    pub fn asked(&self) -> bool {
        self.asked.is_cancelled()
    }
}

/// Works on all items, as many at once as there are processors. The results are in their order.
fn in_parallel<I: Send, T: Send>(items: Vec<I>, work: impl Fn(I) -> T + Sync) -> Vec<T> {
    let processors = available_parallelism().map_or(1, NonZero::get);
    let threads = items.len().min(processors);
    let mut done: Vec<(usize, T)> = Vec::with_capacity(items.len());
    let items = Mutex::new(items.into_iter().enumerate());
    // A function, so that the lock is not held while an item is worked on.
    let next = || items.lock().expect("an iterator does not panic").next();
    thread::scope(|scope| {
        let one = || {
            let mut done = Vec::new();
            while let Some((index, item)) = next() {
                done.push((index, work(item)));
            }
            done
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        for thread in threads {
            match thread.join() {
                Ok(results) => done.extend(results),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let doubled = in_parallel((0..100).collect(), |number: u32| number * 2);
        assert_eq!(doubled, (0..100).map(|number| number * 2).collect::<Vec<_>>());
        assert!(in_parallel(Vec::<u32>::new(), |number| number).is_empty());
    }
}
