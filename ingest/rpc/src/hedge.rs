//! When a second endpoint is asked because the first is slow.
//!
//! Most answers come quickly and a few do not, for a reason that has nothing to do with the
//! question: a compaction, a lost packet, a node behind the balancer that hangs. Whoever waits is
//! better off to ask somebody else, if that stays rare.

use std::{collections::BTreeMap, time::Duration};

use crate::Call;

/// Calls that take about as long as one another: of one method, and about as many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    method: &'static str,
    calls_log2: u32,
}

impl Kind {
    pub(crate) fn of(calls: &[Call]) -> Kind {
        let method = calls.first().map_or("", |call| call.method);
        Kind { method, calls_log2: calls.len().max(1).ilog2() }
    }
}

/// How long one endpoint took for the latest calls of each kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patience {
    kinds: BTreeMap<Kind, Latest>,
}

#[derive(Clone, Debug, Default)]
struct Latest {
    took: Vec<Duration>,
    /// Where the next one goes, once there are enough.
    next: usize,
}

/// As many answers of a kind are remembered: enough for a twentieth of them to be a few.
const REMEMBERED: usize = 100;

/// Fewer answers of a kind than this say nothing about the next.
const REMEMBERED_MIN: usize = 10;

/// The wait for an answer of a kind about which too little is known: longer than a healthy
/// endpoint takes for anything but a large range, and short for an endpoint that hangs.
const UNKNOWN: Duration = Duration::from_secs(1);

impl Patience {
    /// An answer took this long, or had not come after this long.
    pub(crate) fn observe(&mut self, kind: Kind, took: Duration) {
        let Latest { took: latest, next } = self.kinds.entry(kind).or_default();
        match latest.get_mut(*next) {
            Some(oldest) => *oldest = took,
            None => latest.push(took),
        }
        *next = (*next + 1) % REMEMBERED;
    }

    /// How long to wait for an answer before somebody else is asked: as long as nineteen answers
    /// of twenty took.
    pub(crate) fn wait(&self, kind: Kind, shortest: Duration) -> Duration {
        let known = self.kinds.get(&kind).filter(|latest| latest.took.len() >= REMEMBERED_MIN);
        let Some(Latest { took, .. }) = known else { return UNKNOWN.max(shortest) };
        let mut took = took.clone();
        let at = took.len() * 19 / 20;
        let (_, &mut slow, _) = took.select_nth_unstable(at);
        slow.max(shortest)
    }
}

/// Keeps second questions a bounded share of the first ones.
#[derive(Clone, Debug)]
pub(crate) struct HedgeAllowance {
    share: f64,
    calls: f64,
}

/// Calls that may be asked twice before any share of them was earned, so that a process that
/// starts while its first endpoint hangs need not wait for it.
const HEDGED_AT_ONCE_FIRST: f64 = 10.0;

/// Most calls saved up, after which an endpoint that begins to hang is met with a burst of them.
const HEDGED_AT_ONCE_MAX: f64 = 500.0;

impl HedgeAllowance {
    /// At most this share of all calls, from 0 to 1. With 0 there are none.
    pub(crate) fn new(share: f64) -> HedgeAllowance {
        let calls = if share > 0.0 { HEDGED_AT_ONCE_FIRST } else { 0.0 };
        HedgeAllowance { share, calls }
    }

    /// Calls were asked once.
    pub(crate) fn earn(&mut self, calls: usize) {
        self.calls = (self.calls + self.share * calls as f64).min(HEDGED_AT_ONCE_MAX);
    }

    /// Whether these calls may be asked a second time. If so they have been counted.
    pub(crate) fn spend(&mut self, calls: usize) -> bool {
        let calls = calls as f64;
        if self.calls < calls {
            return false;
        }
        self.calls -= calls;
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SHORTEST: Duration = Duration::from_millis(5);

    fn kind(method: &'static str, calls: usize) -> Kind {
        let call = Call { method, params: json!([]) };
        Kind::of(&vec![call; calls])
    }

    #[test]
    fn one_answer_of_twenty_is_not_waited_for() {
        let mut patience = Patience::default();
        for milliseconds in 1..=100 {
            patience.observe(kind("a", 1), Duration::from_millis(milliseconds));
        }
        assert_eq!(patience.wait(kind("a", 1), SHORTEST), Duration::from_millis(96));
        let second = Duration::from_secs(1);
        assert_eq!(patience.wait(kind("a", 1), second), second, "the shortest wait holds");
        for _ in 0..REMEMBERED {
            patience.observe(kind("a", 1), Duration::from_millis(1));
        }
        assert_eq!(patience.wait(kind("a", 1), SHORTEST), SHORTEST, "old answers are forgotten");
    }

    #[test]
    fn kinds_of_calls_are_waited_for_on_their_own() {
        let mut patience = Patience::default();
        for _ in 0..REMEMBERED_MIN {
            patience.observe(kind("a", 100), Duration::from_secs(3));
            patience.observe(kind("b", 1), Duration::from_millis(20));
        }
        patience.observe(kind("c", 1), Duration::from_millis(20));
        assert_eq!(patience.wait(kind("a", 101), SHORTEST), Duration::from_secs(3));
        assert_eq!(patience.wait(kind("b", 1), SHORTEST), Duration::from_millis(20));
        assert_eq!(patience.wait(kind("a", 1), SHORTEST), UNKNOWN);
        assert_eq!(patience.wait(kind("c", 1), SHORTEST), UNKNOWN, "one answer is not enough");
    }

    #[test]
    fn second_questions_are_a_bounded_share() {
        for (share, calls) in [(0.1, 1), (0.1, 7), (0.1, 150), (0.02, 3), (0.0, 1)] {
            let mut allowance = HedgeAllowance::new(share);
            let mut hedged = 0;
            let asked = 2_000;
            for _ in 0..asked {
                allowance.earn(calls);
                hedged += usize::from(allowance.spend(calls));
            }
            let hedged = (hedged * calls) as f64;
            let most = share * (asked * calls) as f64;
            assert!(hedged <= most + HEDGED_AT_ONCE_FIRST, "{hedged} of {most}");
            assert!(hedged >= most * 0.9, "{hedged} of {most}");
        }
    }

    #[test]
    fn what_was_saved_up_is_bounded() {
        let mut allowance = HedgeAllowance::new(0.1);
        allowance.earn(1_000_000);
        assert!(allowance.spend(500));
        assert!(!allowance.spend(1));
    }
}
