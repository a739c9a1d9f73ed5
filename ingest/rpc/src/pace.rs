//! How often: how long to wait after a failure, and how often to speak of it.

use std::time::{Duration, Instant};

/// Waits that grow from failure to failure, for ever.
///
/// Each wait is twice the one before, up to the longest, and the second half of it is random:
/// followers that lost the same node together do not come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Starts with the shortest wait.
    pub fn new(shortest: Duration, longest: Duration) -> Backoff {
        Backoff { shortest, longest, failures: 0 }
    }

    /// The wait after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        let doubled = self.shortest.saturating_mul(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.longest).mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Forgets the failures: something worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since something last worked.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// Lets one message through per interval and counts those it held back.
#[derive(Clone, Debug)]
pub struct Throttle {
    interval: Duration,
    last: Option<Instant>,
    held_back: u64,
}

impl Throttle {
    /// The first message goes through.
    pub fn new(interval: Duration) -> Throttle {
        Throttle { interval, last: None, held_back: 0 }
    }

    /// `Some` when a message may go out now, with the number of those held back since the last.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        let too_soon = self.last.is_some_and(|last| now.duration_since(last) < self.interval);
        if too_soon {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_over_after_a_success() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 5 * second);
        for expected in [1, 2, 4, 5, 5] {
            let wait = backoff.next_wait();
            assert!(wait >= expected * second / 2 && wait <= expected * second, "{wait:?}");
        }
        backoff.reset();
        assert!(backoff.next_wait() <= second);
    }

    #[test]
    fn a_thousand_failures_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        for _ in 0..1000 {
            assert!(backoff.next_wait() <= Duration::from_secs(60));
        }
    }

    #[test]
    fn one_message_per_interval_goes_out_with_the_count_of_the_others() {
        let start = Instant::now();
        let mut throttle = Throttle::new(Duration::from_secs(30));
        assert_eq!(throttle.admit(start), Some(0));
        assert_eq!(throttle.admit(start + Duration::from_secs(1)), None);
        assert_eq!(throttle.admit(start + Duration::from_secs(29)), None);
        assert_eq!(throttle.admit(start + Duration::from_secs(30)), Some(2));
        assert_eq!(throttle.admit(start + Duration::from_secs(60)), Some(0));
    }
}
