//! How far an export or an import has come.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use tokio::sync::watch;

/// How far an export or an import has come, for whoever draws a bar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The first height of the whole work, which an earlier run may have done a part of.
    pub first: u64,
    /// The first height not yet done.
    pub next: u64,
    /// The height after the last one.
    pub end: u64,
    /// Blocks done by this run, abandoned ones too.
    pub blocks: u64,
    /// Logs done by this run.
    pub logs: u64,
    /// How long this run has taken so far.
    pub elapsed: Duration,
}

impl Progress {
    /// Blocks done in a second, on average over this run.
    pub fn blocks_per_second(&self) -> f64 {
        rate(self.blocks, self.elapsed)
    }

    /// Logs done in a second, on average over this run.
    pub fn logs_per_second(&self) -> f64 {
        rate(self.logs, self.elapsed)
    }

    /// How long the rest takes if its blocks go as fast as those so far; `None` before the first.
    pub fn eta(&self) -> Option<Duration> {
        let rate = self.blocks_per_second();
        (rate > 0.0).then(|| Duration::from_secs_f64((self.end - self.next) as f64 / rate))
    }
}

fn rate(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { count as f64 / elapsed.as_secs_f64() }
}

/// Counts what is done, and tells whoever watches.
pub(crate) struct Meter {
    progress: Progress,
    started: Instant,
    watched: watch::Sender<Progress>,
}

impl Meter {
    pub fn start(watched: &watch::Sender<Progress>, heights: Range<u64>) -> Meter {
        let Range { start, end } = heights;
        let progress = Progress { first: start, next: start, end, ..Progress::default() };
        watched.send_replace(progress);
        Meter { progress, started: Instant::now(), watched: watched.clone() }
    }

    /// Counts a block that is done.
    pub fn block(&mut self, number: u64, logs: u64) {
        self.progress.blocks += 1;
        self.progress.logs += logs;
        self.skip_to(number + 1);
    }

    /// Moves on to a height that is not done yet; what is before it an earlier run has done.
    pub fn skip_to(&mut self, next: u64) {
        self.progress.next = next.min(self.progress.end);
        self.progress.elapsed = self.started.elapsed();
        self.watched.send_replace(self.progress);
    }

    pub fn progress(&self) -> &Progress {
        &self.progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_what_was_done() {
        let progress = Progress {
            first: 0,
            next: 30,
            end: 50,
            blocks: 10,
            logs: 1000,
            elapsed: Duration::from_secs(2),
        };
        assert_eq!(progress.blocks_per_second(), 5.0);
        assert_eq!(progress.logs_per_second(), 500.0);
        assert_eq!(progress.eta(), Some(Duration::from_secs(4)));
        assert_eq!(Progress::default().eta(), None);
    }
}
