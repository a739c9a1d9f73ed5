//! How far each lane of a replay has come: a bar for each on a terminal, JSON lines elsewhere.
//!
//! Both go to standard error, because standard output is for what the replay came to.

use std::{
    io::{IsTerminal, stderr},
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{FormattedDuration, HumanCount, MultiProgress, ProgressBar, ProgressDrawTarget};
use serde::Serialize;
use shepherd_log::{LaneId, Offset};
use shepherd_replay::Progress;

use super::{LINE_INTERVAL, bar, tenths};
use crate::cli::Show;

/// Shows any number of lanes at once.
pub enum Lanes {
    /// Nothing is said.
    Quiet,
    /// A bar for each.
    Bars(MultiProgress),
    /// A line for each every now and then.
    Lines,
}

impl Lanes {
    /// As it is asked for and fits where it goes.
    pub fn new(show: &Show) -> Lanes {
        match (show.quiet, stderr().is_terminal()) {
            (true, _) => Lanes::Quiet,
            (false, true) => {
                Lanes::Bars(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
            }
            (false, false) => Lanes::Lines,
        }
    }

    /// Shows one more lane, until what is returned is dropped. `what` is done with it.
    pub fn lane(&self, what: &'static str, lane: &LaneId) -> Lane {
        let shown = match self {
            Lanes::Quiet => Shown::Nothing,
            Lanes::Lines => Shown::Line { last: Instant::now() },
            Lanes::Bars(bars) => {
                let template = "{prefix}  {wide_bar} {percent:>3} %\n{msg}";
                let bar = bars.add(bar(&format!("{what} {lane}"), 1, template));
                bar.set_message("opening");
                Shown::Bar(bar)
            }
        };
        Lane(Mutex::new(Watched { what, first: None, shown }))
    }
}

/// One lane that is shown. May be told from any thread.
pub struct Lane(Mutex<Watched>);

struct Watched {
    what: &'static str,
    /// Where this process began with it.
    first: Option<Offset>,
    shown: Shown,
}

enum Shown {
    Nothing,
    Bar(ProgressBar),
    Line { last: Instant },
}

impl Lane {
    /// It has come so far.
    pub fn set(&self, progress: &Progress) {
        let mut watched = self.0.lock().expect("nothing panics while it is held");
        let Watched { what, first, shown } = &mut *watched;
        let first = first.get_or_insert(progress.from).get();
        match shown {
            Shown::Nothing => (),
            Shown::Bar(bar) => {
                bar.set_length(progress.end.get().saturating_sub(first).max(1));
                bar.set_position(progress.next.get().saturating_sub(first));
                bar.set_message(message(&Step::new(what, progress)));
            }
            Shown::Line { last } if last.elapsed() < LINE_INTERVAL => (),
            Shown::Line { last } => {
                *last = Instant::now();
                let step = Step::new(what, progress);
                eprintln!("{}", serde_json::to_string(&step).expect("plain values"));
            }
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Ok(Watched { shown: Shown::Bar(bar), .. }) = self.0.get_mut() {
            bar.finish_and_clear();
        }
    }
}

/// How far a lane has come; one JSON line.
#[derive(Debug, PartialEq, Serialize)]
struct Step {
    doing: &'static str,
    lane: String,
    /// Records: the first, the next to be passed, and the first not to be passed.
    from: u64,
    next: u64,
    end: u64,
    /// The newest block it has passed.
    block: Option<u64>,
    /// Since this process began with it, on average.
    records_per_second: f64,
    logs_per_second: f64,
    /// Time left, by the rate of records.
    eta_seconds: Option<u64>,
    elapsed_seconds: f64,
}

impl Step {
    fn new(doing: &'static str, progress: &Progress) -> Step {
        let seconds = progress.elapsed.as_secs_f64();
        let rate = |done: u64| if seconds == 0.0 { 0.0 } else { done as f64 / seconds };
        let (next, end) = (progress.next.get(), progress.end.get());
        let records_per_second = rate(progress.records);
        let left = end.saturating_sub(next) as f64 / records_per_second;
        Step {
            doing,
            lane: progress.lane.to_string(),
            from: progress.from.get(),
            next,
            end,
            block: progress.block.map(|block| block.number),
            records_per_second: tenths(records_per_second),
            logs_per_second: tenths(rate(progress.logs)),
            eta_seconds: left.is_finite().then(|| left.round() as u64),
            elapsed_seconds: tenths(seconds),
        }
    }
}

fn message(step: &Step) -> String {
    let rate = |per_second: f64| HumanCount(per_second.round() as u64);
    let block = step.block.map_or("-".to_owned(), |block| HumanCount(block).to_string());
    let left = step.eta_seconds.map_or("?".to_owned(), |seconds| {
        FormattedDuration(Duration::from_secs(seconds)).to_string()
    });
    format!(
        "block {block}, {} records/s, {} logs/s; left {left}",
        rate(step.records_per_second),
        rate(step.logs_per_second),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_says_where_a_lane_is_and_how_long_it_takes() {
        let step = Step {
            doing: "verify",
            lane: "a@b".to_owned(),
            from: 0,
            next: 10,
            end: 20,
            block: Some(21_000_000),
            records_per_second: 4_999.6,
            logs_per_second: 0.0,
            eta_seconds: Some(61),
            elapsed_seconds: 1.0,
        };
        let expected = "block 21,000,000, 5,000 records/s, 0 logs/s; left 00:01:01";
        assert_eq!(message(&step), expected);
        let unknown = Step { block: None, eta_seconds: None, ..step };
        assert_eq!(message(&unknown), "block -, 5,000 records/s, 0 logs/s; left ?");
    }
}
