//! How much an endpoint may still be asked: so many calls per second, so many per window.

use std::time::{Duration, Instant};

use crate::{Budget, EndpointSpec};

/// What is left of an endpoint's limits. Without limits everything is allowed.
#[derive(Clone, Debug)]
pub(crate) struct Allowance {
    rate: Option<Rate>,
    window: Option<Window>,
}

/// A token bucket of calls that holds one second's worth.
///
/// It may go below zero: a message larger than the bucket goes out when the bucket is full, and
/// the next one waits for the difference.
#[derive(Clone, Debug)]
struct Rate {
    per_second: f64,
    calls: f64,
    at: Instant,
}

/// What is left of a [`Budget`].
#[derive(Clone, Debug)]
struct Window {
    budget: Budget,
    /// `None` before the first call.
    began: Option<Instant>,
    used: u64,
    /// A message did not fit: nothing is sent any more, so that the rest is not nibbled away by
    /// messages that happen to be small.
    is_spent: bool,
}

/// What taking calls from an allowance came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// They may be sent after this long.
    After(Duration),
    /// They do not fit into what is left of this budget.
    Spent(Budget),
}

impl Allowance {
    pub(crate) fn new(spec: &EndpointSpec, now: Instant) -> Allowance {
        let rate = spec.rate_per_second.map(|per_second| {
            let per_second = f64::from(per_second.max(1));
            Rate { per_second, calls: per_second, at: now }
        });
        let window = spec.budget.map(|budget| Window {
            budget,
            began: None,
            used: 0,
            is_spent: budget.calls == 0,
        });
        Allowance { rate, window }
    }

    /// Takes calls. They count from now on, sent or not.
    pub(crate) fn take(&mut self, calls: usize, now: Instant) -> Taken {
        if let Some(window) = &mut self.window
            && !window.take(calls as u64, now)
        {
            return Taken::Spent(window.budget);
        }
        Taken::After(self.rate.as_mut().map_or(Duration::ZERO, |rate| rate.take(calls, now)))
    }

    /// How long calls would have to wait for the rate.
    pub(crate) fn wait(&self, calls: usize, now: Instant) -> Duration {
        self.rate.as_ref().map_or(Duration::ZERO, |rate| rate.wait(calls, now))
    }

    /// How long until the window rolls, when its budget is spent.
    pub(crate) fn spent(&self, now: Instant) -> Option<(Budget, Duration)> {
        let window = self.window.as_ref()?;
        let is_spent = !window.has_rolled(now) && (window.is_spent || window.left(now) == 0);
        is_spent.then(|| (window.budget, window.remaining(now)))
    }

    /// The budget, how many calls of it are left, and how long until all of it is there again.
    pub(crate) fn budget(&self, now: Instant) -> Option<(Budget, u64, Duration)> {
        let window = self.window.as_ref()?;
        Some((window.budget, window.left(now), window.remaining(now)))
    }
}

impl Rate {
    /// Calls in the bucket.
    fn filled(&self, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        (self.calls + seconds * self.per_second).min(self.per_second)
    }

    fn wait(&self, calls: usize, now: Instant) -> Duration {
        let missing = (calls as f64).min(self.per_second) - self.filled(now);
        Duration::from_secs_f64(missing.max(0.0) / self.per_second)
    }

    fn take(&mut self, calls: usize, now: Instant) -> Duration {
        let wait = self.wait(calls, now);
        self.calls = self.filled(now) - calls as f64;
        self.at = now;
        wait
    }
}

impl Window {
    /// Takes calls if they fit.
    fn take(&mut self, calls: u64, now: Instant) -> bool {
        if self.began.is_none() || self.has_rolled(now) {
            self.began = Some(now);
            self.used = 0;
            self.is_spent = false;
        }
        if self.is_spent || calls > self.left(now) {
            self.is_spent = true;
            return false;
        }
        self.used += calls;
        true
    }

    fn has_rolled(&self, now: Instant) -> bool {
        self.began.is_some_and(|began| now.saturating_duration_since(began) >= self.budget.per)
    }

    fn left(&self, now: Instant) -> u64 {
        if self.has_rolled(now) {
            return self.budget.calls;
        }
        self.budget.calls.saturating_sub(self.used)
    }

    fn remaining(&self, now: Instant) -> Duration {
        let passed = self.began.map(|began| now.saturating_duration_since(began));
        match passed {
            Some(passed) if passed < self.budget.per => self.budget.per - passed,
            _ => self.budget.per,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowance(rate: Option<u32>, budget: Option<(u64, u64)>, now: Instant) -> Allowance {
        let budget =
            budget.map(|(calls, seconds)| Budget { calls, per: Duration::from_secs(seconds) });
        let url = "http://a".parse::<EndpointSpec>().unwrap();
        Allowance::new(&EndpointSpec { rate_per_second: rate, budget, ..url }, now)
    }

    fn after(milliseconds: u64) -> Taken {
        Taken::After(Duration::from_millis(milliseconds))
    }

    fn spent(calls: u64) -> Taken {
        Taken::Spent(Budget { calls, per: Duration::from_secs(60) })
    }

    #[test]
    fn calls_come_at_their_rate_after_a_burst_of_one_second() {
        let start = Instant::now();
        let mut allowance = allowance(Some(10), None, start);
        let mut take = |milliseconds, calls| {
            allowance.take(calls, start + Duration::from_millis(milliseconds))
        };
        assert_eq!(take(0, 10), after(0));
        assert_eq!(take(0, 1), after(100), "the burst is used up");
        assert_eq!(take(0, 1), after(200), "those who wait stand in a line");
        assert_eq!(take(1_000, 5), after(0), "eight came back meanwhile");
        assert_eq!(take(10_000, 10), after(0), "no more than a second's worth is saved up");
        assert_eq!(take(10_000, 1), after(100));
    }

    #[test]
    fn a_message_larger_than_a_second_goes_out_and_is_waited_for_afterwards() {
        let start = Instant::now();
        let mut allowance = allowance(Some(10), None, start);
        assert_eq!(allowance.take(35, start), after(0));
        assert_eq!(allowance.wait(1, start), Duration::from_millis(2_600));
        assert_eq!(allowance.take(35, start), after(3_500));
    }

    #[test]
    fn a_spent_budget_rests_until_its_window_rolls() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut allowance = allowance(None, Some((5, 60)), start);
        assert_eq!(allowance.take(3, at(10)), after(0));
        assert_eq!(allowance.spent(at(20)), None);
        assert_eq!(allowance.take(3, at(20)), spent(5));
        assert_eq!(allowance.take(1, at(30)), spent(5), "what is left is not nibbled away");
        // The window began with the first call.
        assert_eq!(allowance.spent(at(69)).unwrap().1, Duration::from_secs(1));
        assert_eq!(allowance.spent(at(70)), None);
        assert_eq!(allowance.take(5, at(90)), after(0));
        assert_eq!(allowance.spent(at(90)).unwrap().1, Duration::from_secs(60));
        assert_eq!(allowance.budget(at(90)).unwrap().1, 0);
    }

    #[test]
    fn without_limits_everything_goes() {
        let start = Instant::now();
        let mut allowance = allowance(None, None, start);
        for _ in 0..3 {
            assert_eq!(allowance.take(1_000_000, start), after(0));
        }
        assert_eq!((allowance.spent(start), allowance.budget(start)), (None, None));
    }

    #[test]
    fn a_budget_of_nothing_is_spent_from_the_start() {
        let start = Instant::now();
        let mut allowance = allowance(None, Some((0, 60)), start);
        assert!(allowance.spent(start).is_some());
        assert_eq!(allowance.take(1, start), spent(0));
    }
}
