//! How long an endpoint is put aside whose answers did not hold up.

use std::time::{Duration, Instant, SystemTime};

/// What speaks against an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// When it was given.
    pub at: SystemTime,
    /// What was wrong with the answer; scrubbed of the endpoint's URL, and cut if it is long.
    pub text: String,
}

/// Whether an endpoint is put aside, and why.
///
/// It comes back by itself, for the address of a provider stands for many nodes and a lagging one
/// catches up. If it is caught again soon after, it stays away for twice as long.
#[derive(Clone, Debug, Default)]
pub(crate) struct Distrust {
    until: Option<Instant>,
    period: Duration,
    evidence: Option<Evidence>,
}

/// The first period: a node that lags catches up within seconds, one that lost part of its
/// database does not.
const SHORTEST: Duration = Duration::from_secs(60);

/// The longest: an endpoint that always lies is looked at six times in an hour.
const LONGEST: Duration = Duration::from_secs(600);

impl Distrust {
    /// Puts the endpoint aside. Says whether it was not until now.
    pub(crate) fn caught(&mut self, evidence: Evidence, now: Instant) -> bool {
        let was_aside = self.remaining(now).is_some();
        self.period = match self.until {
            Some(_) if was_aside => self.period,
            Some(until) if now.duration_since(until) < self.period => {
                (self.period * 2).min(LONGEST)
            }
            _ => SHORTEST,
        };
        self.until = Some(now + self.period);
        self.evidence = Some(evidence);
        !was_aside
    }

    /// For how much longer it is put aside.
    pub(crate) fn remaining(&self, now: Instant) -> Option<Duration> {
        self.until?.checked_duration_since(now).filter(|remaining| !remaining.is_zero())
    }

    /// The latest evidence, for as long as the process lives.
    pub(crate) fn evidence(&self) -> Option<&Evidence> {
        self.evidence.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_caught_again_soon_after_stays_away_longer() {
        let start = Instant::now();
        let mut distrust = Distrust::default();
        let mut caught = |seconds, period: u64| {
            let now = start + Duration::from_secs(seconds);
            let text = format!("after {seconds} s");
            let is_new = distrust.caught(Evidence { at: SystemTime::UNIX_EPOCH, text }, now);
            assert_eq!(distrust.remaining(now), Some(Duration::from_secs(period)));
            is_new
        };
        assert!(caught(0, 60));
        assert!(!caught(30, 60), "it was asked all the same, for it is the only one");
        assert!(caught(100, 120), "ten seconds after it came back");
        assert!(caught(230, 240));
        assert!(caught(480, 480));
        assert!(caught(970, 600));
        assert!(caught(1_600, 600));
        assert!(caught(9_999, 60), "it did well for long enough");
        assert_eq!(distrust.remaining(start + Duration::from_secs(10_059)), None);
        assert_eq!(distrust.evidence().unwrap().text, "after 9999 s");
    }
}
