//! How well an endpoint has answered lately.

use std::time::{Duration, Instant};

/// What an endpoint's recent answers say about it: their latency, and how many there were not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    /// A moving average, in seconds. `None` before the first answer.
    latency: Option<f64>,
    /// A moving average of failures, from 0 to 1, at the time of the last observation.
    failures: f64,
    observed: u32,
    last: Option<Instant>,
}

/// How much of the average one more latency is. The last ten answers are nearly all of it.
const LATENCY_WEIGHT: f64 = 0.2;

/// How much of the average one more failure, or answer, is. Ten per cent of failures show as such
/// only over dozens of answers.
const FAILURE_WEIGHT: f64 = 0.1;

/// Half of a failure is forgotten in this time, for a node that was restarted is another node.
const FAILURE_HALF_LIFE: Duration = Duration::from_secs(30);

/// Fewer answers than this say nothing: the first includes the time to connect.
const OBSERVED_MIN: u32 = 8;

/// What an endpoint was like longer ago than this says nothing about now. It also bounds how
/// often one that was found slow is given another chance.
const MEMORY: Duration = Duration::from_secs(300);

/// An endpoint that takes this long has half the score of one that takes no time: the difference
/// between one on the other side of the ocean and one that is overloaded.
const LATENCY_OF_HALF: f64 = 0.25;

impl Health {
    /// It answered after this long.
    pub(crate) fn answered(&mut self, took: Duration, now: Instant) {
        let took = took.as_secs_f64();
        let latency = self.latency.map_or(took, |latency| mixed(latency, took, LATENCY_WEIGHT));
        self.latency = Some(latency);
        self.observe(0.0, now);
    }

    /// It failed.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.observe(1.0, now);
    }

    /// It had not answered after this long, when nobody waited for it any more.
    pub(crate) fn outlasted(&mut self, waited: Duration, now: Instant) {
        if self.latency.is_none_or(|latency| waited.as_secs_f64() > latency) {
            self.answered(waited, now);
        }
    }

    /// The average latency of late.
    pub(crate) fn latency(&self) -> Option<Duration> {
        self.latency.map(Duration::from_secs_f64)
    }

    /// From 1, answers at once and always, to 0; `None` when too little is known.
    pub(crate) fn score(&self, now: Instant) -> Option<f64> {
        let age = now.saturating_duration_since(self.last?);
        if self.observed < OBSERVED_MIN || age > MEMORY {
            return None;
        }
        let answers = 1.0 - self.failures_at(now);
        let latency = self.latency.unwrap_or_default();
        Some(answers * LATENCY_OF_HALF / (LATENCY_OF_HALF + latency))
    }

    fn observe(&mut self, failure: f64, now: Instant) {
        let forgotten = self.last.is_some_and(|last| now.saturating_duration_since(last) > MEMORY);
        if forgotten {
            self.observed = 0;
        }
        self.failures = mixed(self.failures_at(now), failure, FAILURE_WEIGHT);
        self.observed = self.observed.saturating_add(1);
        self.last = Some(now);
    }

    fn failures_at(&self, now: Instant) -> f64 {
        let Some(last) = self.last else { return 0.0 };
        let half_lives =
            now.saturating_duration_since(last).as_secs_f64() / FAILURE_HALF_LIFE.as_secs_f64();
        self.failures * 0.5_f64.powf(half_lives)
    }
}

fn mixed(average: f64, next: f64, weight: f64) -> f64 {
    average + (next - average) * weight
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The score after this many answers of this latency, with every n-th a failure.
    fn score(answers: u32, milliseconds: u64, failing: Option<u32>) -> Option<f64> {
        let now = Instant::now();
        let mut health = Health::default();
        for answer in 0..answers {
            match failing {
                Some(nth) if answer % nth == nth - 1 => health.failed(now),
                _ => health.answered(Duration::from_millis(milliseconds), now),
            }
        }
        health.score(now)
    }

    #[test]
    fn a_few_answers_say_nothing() {
        assert_eq!(score(OBSERVED_MIN - 1, 1, None), None);
        assert!(score(OBSERVED_MIN, 1, None).is_some());
    }

    #[test]
    fn the_quicker_and_the_more_reliable_has_the_higher_score() {
        let best_first = [
            score(100, 0, None),
            score(100, 20, None),
            score(100, 20, Some(10)),
            score(100, 20, Some(3)),
            score(100, 1_000, None),
            score(100, 1_000, Some(2)),
            score(100, 20, Some(1)),
        ];
        assert_eq!(best_first[0], Some(1.0));
        assert!(best_first.is_sorted_by(|better, worse| better > worse), "{best_first:?}");
    }

    #[test]
    fn failures_are_forgotten_with_time_and_all_of_it_in_the_end() {
        let now = Instant::now();
        let mut health = Health::default();
        for _ in 0..20 {
            health.failed(now);
        }
        let at = |seconds| health.score(now + Duration::from_secs(seconds));
        assert!(at(0).unwrap() < 0.2);
        assert!(at(120).unwrap() > 0.9);
        assert_eq!(at(301), None);
    }

    #[test]
    fn who_is_not_waited_for_was_at_least_as_slow_as_that() {
        let now = Instant::now();
        let mut health = Health::default();
        health.answered(Duration::from_millis(100), now);
        health.outlasted(Duration::from_millis(50), now);
        assert_eq!(health.latency(), Some(Duration::from_millis(100)));
        health.outlasted(Duration::from_millis(600), now);
        assert_eq!(health.latency(), Some(Duration::from_millis(200)));
    }
}
