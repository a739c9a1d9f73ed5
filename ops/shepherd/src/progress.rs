//! How far long work has come: a bar on a terminal, JSON lines elsewhere.

pub mod lanes;

use std::{
    io::{IsTerminal, stdout},
    time::Duration,
};

use indicatif::{FormattedDuration, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::show::print_json_line;

/// Time between two looks at the work, for a bar.
const BAR_INTERVAL: Duration = Duration::from_millis(200);

/// Time between two JSON lines.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// A bar over things that are counted, on standard error and only on a terminal.
pub struct Counter {
    bar: ProgressBar,
}

impl Counter {
    /// An empty bar for `total` things, such as records.
    pub fn start(prefix: &str, things: &str, total: u64) -> Counter {
        let template =
            "{prefix}  {wide_bar} {percent:>3} %  {human_pos} of {human_len} {msg}  {eta_precise}";
        let bar = bar(prefix, total, template);
        bar.set_message(things.to_owned());
        Counter { bar }
    }

    /// So many are done.
    pub fn set(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// How far work on the blocks of a chain has come; one JSON line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// The first block.
    pub first: u64,
    /// The next block to be done.
    pub next: u64,
    /// The last block.
    pub last: u64,
    /// Blocks done by this run.
    pub blocks: u64,
    /// Logs done by this run.
    pub logs: u64,
    /// Of late.
    pub blocks_per_second: f64,
    /// Of late.
    pub logs_per_second: f64,
    /// Time left, by the rate of blocks.
    pub eta_by_blocks_seconds: Option<u64>,
    /// Time left, by the rate of logs and how many are to come.
    pub eta_by_logs_seconds: Option<u64>,
    /// Since this run began.
    pub elapsed_seconds: f64,
    /// Why nothing moves just now.
    pub waiting: Option<String>,
}

impl From<&shepherd_ingest::Progress> for Step {
    fn from(progress: &shepherd_ingest::Progress) -> Step {
        let seconds = |eta: Option<Duration>| eta.map(|eta| eta.as_secs());
        Step {
            first: progress.first,
            next: progress.next,
            last: progress.last,
            blocks: progress.blocks,
            logs: progress.logs,
            blocks_per_second: tenths(progress.blocks_per_second),
            logs_per_second: tenths(progress.logs_per_second),
            eta_by_blocks_seconds: seconds(progress.eta_by_blocks),
            eta_by_logs_seconds: seconds(progress.eta_by_logs),
            elapsed_seconds: tenths(progress.elapsed.as_secs_f64()),
            waiting: progress.waiting.clone(),
        }
    }
}

impl From<&shepherd_exchange::Progress> for Step {
    fn from(progress: &shepherd_exchange::Progress) -> Step {
        Step {
            first: progress.first,
            next: progress.next,
            last: progress.end.saturating_sub(1),
            blocks: progress.blocks,
            logs: progress.logs,
            blocks_per_second: tenths(progress.blocks_per_second()),
            logs_per_second: tenths(progress.logs_per_second()),
            eta_by_blocks_seconds: progress.eta().map(|eta| eta.as_secs()),
            eta_by_logs_seconds: None,
            elapsed_seconds: tenths(progress.elapsed.as_secs_f64()),
            waiting: None,
        }
    }
}

/// Rounded: more digits would only be noise.
pub fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// Shows how far work has come until it ends.
pub async fn show<P, T>(
    chain: &str,
    mut progress: watch::Receiver<P>,
    work: impl Future<Output = T>,
) -> T
where
    for<'p> Step: From<&'p P>,
{
    let shown = Shown::new(chain);
    let mut ticks = interval(if shown.bar.is_some() { BAR_INTERVAL } else { LINE_INTERVAL });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first comes at once, when there is nothing to say.
    ticks.tick().await;
    tokio::pin!(work);
    loop {
        tokio::select! {
            ended = &mut work => {
                shown.end();
                return ended;
            }
            _ = ticks.tick() => {
                let step = Step::from(&*progress.borrow_and_update());
                shown.step(&step);
            }
        }
    }
}

struct Shown {
    bar: Option<ProgressBar>,
}

impl Shown {
    fn new(chain: &str) -> Shown {
        let template = "{prefix}  {wide_bar} {percent:>3} %\n{msg}";
        // One of one that is not done: empty and not full while nothing is known.
        let bar = stdout().is_terminal().then(|| bar(chain, 1, template));
        Shown { bar }
    }

    fn step(&self, step: &Step) {
        match &self.bar {
            None => print_json_line(step),
            Some(bar) => {
                bar.set_length((step.last + 1).saturating_sub(step.first).max(1));
                bar.set_position(step.next.saturating_sub(step.first));
                bar.set_message(message(step));
            }
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn message(step: &Step) -> String {
    if let Some(reason) = &step.waiting {
        return format!("waiting: {reason}");
    }
    if step.elapsed_seconds == 0.0 && step.blocks == 0 {
        return "asking for the first and the last block".to_owned();
    }
    let rate = |per_second: f64| HumanCount(per_second.round() as u64);
    let left = |seconds: Option<u64>| {
        seconds.map_or("?".to_owned(), |seconds| {
            FormattedDuration(Duration::from_secs(seconds)).to_string()
        })
    };
    format!(
        "block {} of {}, {} blocks/s, {} logs/s; left by blocks {}, by logs {}",
        HumanCount(step.next.saturating_sub(1)),
        HumanCount(step.last),
        rate(step.blocks_per_second),
        rate(step.logs_per_second),
        left(step.eta_by_blocks_seconds),
        left(step.eta_by_logs_seconds),
    )
}

fn bar(prefix: &str, total: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(template).expect("a constant template");
    bar.set_style(style.progress_chars("=> "));
    bar.set_prefix(prefix.to_owned());
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step() -> Step {
        Step {
            first: 0,
            next: 500,
            last: 999,
            blocks: 500,
            logs: 1_000_000,
            blocks_per_second: 50.0,
            logs_per_second: 123_456.7,
            eta_by_blocks_seconds: Some(10),
            eta_by_logs_seconds: None,
            elapsed_seconds: 10.0,
            waiting: None,
        }
    }

    #[test]
    fn a_bar_says_both_rates_and_both_times_left() {
        let expected = "block 499 of 999, 50 blocks/s, 123,457 logs/s; \
                        left by blocks 00:00:10, by logs ?";
        assert_eq!(message(&step()), expected);
    }

    #[test]
    fn a_bar_that_stands_says_why() {
        let waiting = Step { waiting: Some("no endpoint answers".to_owned()), ..step() };
        assert_eq!(message(&waiting), "waiting: no endpoint answers");
    }
}
