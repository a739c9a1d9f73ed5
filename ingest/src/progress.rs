//! How far an ingest of history has come, and how long it will still take.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio::sync::watch;

/// How far an ingest of history has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// The first block that is ingested.
    pub first: u64,
    /// The next block to be made durable.
    pub next: u64,
    /// The last block that is wanted.
    pub last: u64,
    /// Blocks made durable so far.
    pub blocks: u64,
    /// Logs made durable so far.
    pub logs: u64,
    /// JSON that endpoints sent so far.
    pub json_bytes: u64,
    /// The most JSON that was under way or waiting for its turn at once.
    pub in_flight_bytes_max: u64,
    /// Since the ingest began.
    pub elapsed: Duration,
    /// Over the last half minute.
    pub blocks_per_second: f64,
    /// Over the last half minute.
    pub logs_per_second: f64,
    /// Time left if blocks go on as fast as of late; `None` while nothing moves.
    pub eta_by_blocks: Option<Duration>,
    /// Time left if logs go on as fast as of late, by how many logs a few sampled blocks of what
    /// is left have; `None` while nothing moves, or nothing was sampled.
    pub eta_by_logs: Option<Duration>,
    /// Why nothing moves just now.
    pub waiting: Option<String>,
}

/// Rates are taken over this long: they shall follow the chain's density without jumping.
const WINDOW: Duration = Duration::from_secs(30);

/// Time between two points of the window, so that it stays small.
const POINT_INTERVAL: Duration = Duration::from_millis(250);

/// Keeps a [`Progress`] up to date.
pub(crate) struct Meter {
    sender: watch::Sender<Progress>,
    started: Instant,
    density: Density,
    points: VecDeque<Point>,
}

/// What was done by when.
#[derive(Clone, Copy, Debug)]
struct Point {
    at: Instant,
    blocks: u64,
    logs: u64,
}

impl Meter {
    /// A meter for the blocks from `first` to `last`.
    pub(crate) fn start(
        sender: watch::Sender<Progress>,
        now: Instant,
        first: u64,
        last: u64,
    ) -> Meter {
        sender.send_replace(Progress { first, next: first, last, ..Progress::default() });
        let points = VecDeque::from([Point { at: now, blocks: 0, logs: 0 }]);
        Meter { sender, started: now, density: Density::default(), points }
    }

    /// What is known about the logs that are to come.
    pub(crate) fn expect(&mut self, density: Density) {
        self.density = density;
    }

    /// The last block that is wanted, which moves with the head.
    pub(crate) fn toward(&self, last: u64) {
        self.sender.send_modify(|progress| progress.last = last.max(progress.last));
    }

    /// Something arrived.
    pub(crate) fn fetched(&mut self, json_bytes: u64, in_flight_bytes_max: u64) {
        // Nobody is woken: what arrived will be appended in a moment.
        self.sender.send_if_modified(|progress| {
            progress.json_bytes += json_bytes;
            progress.in_flight_bytes_max = in_flight_bytes_max;
            false
        });
    }

    /// Blocks were made durable, and `next` is the next.
    pub(crate) fn appended(&mut self, now: Instant, next: u64, blocks: u64, logs: u64) {
        self.sender.send_modify(|progress| {
            progress.next = next;
            progress.blocks += blocks;
            progress.logs += logs;
            progress.elapsed = now.duration_since(self.started);
            progress.waiting = None;
            let point = Point { at: now, blocks: progress.blocks, logs: progress.logs };
            let (blocks, logs) = rates(&mut self.points, point);
            progress.blocks_per_second = blocks;
            progress.logs_per_second = logs;
            let left = (progress.last + 1).saturating_sub(next) as f64;
            progress.eta_by_blocks = eta(left, blocks);
            let logs_left = self.density.sum(next, progress.last + 1);
            progress.eta_by_logs = logs_left.and_then(|left| eta(left, logs));
        });
    }

    /// Nothing moves, and why.
    pub(crate) fn waiting(&self, now: Instant, reason: String) {
        self.sender.send_modify(|progress| {
            progress.elapsed = now.duration_since(self.started);
            progress.waiting = Some(reason);
        });
    }
}

/// Blocks and logs per second over the window that ends with this point.
fn rates(points: &mut VecDeque<Point>, point: Point) -> (f64, f64) {
    while let [_, second, ..] = points.make_contiguous()
        && WINDOW <= point.at.duration_since(second.at)
    {
        points.pop_front();
    }
    let first = *points.front().expect("there is a point to start from");
    if points.back().is_some_and(|last| POINT_INTERVAL <= point.at.duration_since(last.at)) {
        points.push_back(point);
    }
    let seconds = point.at.duration_since(first.at).as_secs_f64();
    if seconds <= 0.0 {
        return (0.0, 0.0);
    }
    let rate = |now: u64, then: u64| (now - then) as f64 / seconds;
    (rate(point.blocks, first.blocks), rate(point.logs, first.logs))
}

fn eta(left: f64, per_second: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(left / per_second).ok()
}

/// How much of something blocks have, such as logs, by sampled heights.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Density {
    /// Heights in rising order, and how much each block there has.
    samples: Vec<(u64, f64)>,
}

impl Density {
    /// From sampled heights in rising order, and how much each block there has.
    pub(crate) fn new(samples: Vec<(u64, f64)>) -> Density {
        Density { samples }
    }

    /// About how much the blocks of these heights have; `None` without samples. Each block is
    /// taken to be like the sampled one that is nearest.
    pub(crate) fn sum(&self, start: u64, end: u64) -> Option<f64> {
        self.samples.first()?;
        let borders = self.samples.windows(2).map(|pair| pair[0].0.midpoint(pair[1].0));
        let starts = std::iter::once(0).chain(borders.clone());
        let ends = borders.chain([u64::MAX]);
        let parts = self.samples.iter().zip(starts.zip(ends)).map(|((_, each), (from, to))| {
            let blocks = end.min(to).saturating_sub(start.max(from));
            blocks as f64 * each
        });
        Some(parts.sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_forget_what_is_older_than_the_window() {
        let (sender, receiver) = watch::channel(Progress::default());
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut meter = Meter::start(sender, start, 100, 1099);
        meter.appended(at(10), 200, 100, 1000);
        let progress = receiver.borrow().clone();
        assert_eq!((progress.blocks_per_second, progress.logs_per_second), (10.0, 100.0));
        assert_eq!(progress.eta_by_blocks, Some(Duration::from_secs(90)));
        assert_eq!(progress.eta_by_logs, None, "nothing is known about the logs to come");
        for second in 11..=60 {
            meter.appended(at(second), 200 + (second - 10), 1, 7);
        }
        let progress = receiver.borrow().clone();
        assert_eq!((progress.blocks_per_second, progress.logs_per_second), (1.0, 7.0));
        assert_eq!((progress.blocks, progress.logs), (150, 1350));
        assert_eq!(progress.elapsed, Duration::from_secs(60));
        assert!(meter.points.len() < 40);
    }

    #[test]
    fn the_logs_to_come_are_those_of_the_nearest_samples() {
        let (sender, receiver) = watch::channel(Progress::default());
        let start = Instant::now();
        let mut meter = Meter::start(sender, start, 0, 99);
        meter.expect(Density::new(vec![(0, 1.0), (100, 9.0)]));
        meter.appended(start + Duration::from_secs(1), 40, 40, 40);
        let progress = receiver.borrow().clone();
        // Ten blocks with one log, fifty with nine, at forty logs per second.
        assert_eq!(progress.eta_by_logs, Some(Duration::from_millis(11_500)));
        assert_eq!(progress.eta_by_blocks, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn what_waits_says_why_until_it_moves() {
        let (sender, receiver) = watch::channel(Progress::default());
        let start = Instant::now();
        let mut meter = Meter::start(sender, start, 5, 9);
        meter.waiting(start, "no endpoint answers".to_owned());
        assert!(receiver.borrow().waiting.is_some());
        assert_eq!(receiver.borrow().eta_by_blocks, None);
        meter.appended(start, 6, 1, 0);
        assert_eq!(receiver.borrow().waiting, None);
        assert_eq!(receiver.borrow().eta_by_blocks, None, "no time has passed");
    }
}
