//! Which endpoint is asked first.

use std::cmp::Reverse;

/// What decides about an endpoint's place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) standing: Standing,
    /// As configured: lower is asked first.
    pub(crate) priority: u8,
    /// [`Health::score`](crate::health::Health::score).
    pub(crate) score: Option<f64>,
}

/// Whether there is a reason to ask others first, whatever the priorities. The mildest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// There is none.
    Usable,
    /// It failed when it was last asked, and its rest is over.
    Returning,
    /// It would have to be waited for, for its rate limit.
    Busy,
    /// Its head is behind the others'.
    Lagging,
    /// What it answered did not hold up.
    Distrusted,
    /// It is not to be asked at all.
    Resting,
}

/// An endpoint passes the one before it only when its score is better by this factor. Two that
/// differ by chance would else take turns, and so would the connections and caches behind them.
const PASSING: f64 = 1.25;

/// An endpoint about which too little is known passes one whose score is worse than this: half a
/// second, or every other call a failure.
const POOR: f64 = 0.35;

/// The places of endpoints, best first, by standing, priority and score. Of equals the one given
/// first is asked first.
pub(crate) fn order(candidates: &[Candidate]) -> Vec<usize> {
    let mut order: Vec<usize> = Vec::with_capacity(candidates.len());
    let mut configured: Vec<usize> = (0..candidates.len()).collect();
    configured.sort_by_key(|&place| group(&candidates[place]));
    for place in configured {
        let candidate = &candidates[place];
        let before =
            order.iter().rev().take_while(|&&other| passes(candidate, &candidates[other])).count();
        order.insert(order.len() - before, place);
    }
    order
}

/// Whether a candidate is asked before one that was configured before it.
fn passes(candidate: &Candidate, other: &Candidate) -> bool {
    if group(candidate) != group(other) {
        return false;
    }
    match (candidate.score, other.score) {
        (Some(score), Some(other)) => score > other * PASSING,
        (None, Some(other)) => other < POOR,
        (_, None) => false,
    }
}

fn group(candidate: &Candidate) -> (Standing, u8) {
    (candidate.standing, candidate.priority)
}

/// The endpoint to ask as a second one while the first is slow: the next that nothing speaks
/// against, of the same priority if there is one.
pub(crate) fn second(candidates: &[Candidate], order: &[usize], first: usize) -> Option<usize> {
    let usable = |place: &usize| *place != first && candidates[*place].standing == Standing::Usable;
    let same = |place: &usize| candidates[*place].priority == candidates[first].priority;
    order.iter().copied().filter(usable).min_by_key(|place| Reverse(same(place)))
}

#[cfg(test)]
mod tests {
    use super::{Standing::*, *};

    type Given = (Standing, u8, Option<f64>);

    fn candidates(given: &[Given]) -> Vec<Candidate> {
        given
            .iter()
            .map(|&(standing, priority, score)| Candidate { standing, priority, score })
            .collect()
    }

    #[test]
    fn standing_decides_before_priority_and_priority_before_score() {
        check(&[(Usable, 0, None), (Usable, 0, None)], &[0, 1]);
        check(&[(Usable, 1, Some(1.0)), (Usable, 0, Some(0.1))], &[1, 0]);
        check(&[(Lagging, 0, Some(1.0)), (Usable, 9, Some(0.1))], &[1, 0]);
        check(&[(Returning, 0, None), (Usable, 9, None)], &[1, 0]);
        let worst_first = [Resting, Distrusted, Lagging, Busy, Returning, Usable];
        check(&worst_first.map(|standing| (standing, 0, None)), &[5, 4, 3, 2, 1, 0]);
    }

    #[test]
    fn only_a_clearly_better_score_passes() {
        check(&[(Usable, 0, Some(0.8)), (Usable, 0, Some(0.9))], &[0, 1]);
        check(&[(Usable, 0, Some(0.5)), (Usable, 0, Some(0.9))], &[1, 0]);
        check(
            &[(Usable, 0, Some(0.2)), (Usable, 0, Some(0.5)), (Usable, 0, Some(0.9))],
            &[2, 1, 0],
        );
        check(
            &[(Usable, 0, Some(0.9)), (Usable, 0, Some(0.5)), (Usable, 0, Some(0.95))],
            &[0, 2, 1],
        );
    }

    #[test]
    fn the_unknown_is_tried_when_the_known_is_poor() {
        check(&[(Usable, 0, Some(0.9)), (Usable, 0, None)], &[0, 1]);
        check(&[(Usable, 0, Some(0.3)), (Usable, 0, None)], &[1, 0]);
        check(&[(Usable, 0, None), (Usable, 0, Some(1.0))], &[0, 1]);
    }

    fn check(given: &[Given], expected: &[usize]) {
        assert_eq!(order(&candidates(given)), expected, "{given:?}");
    }

    #[test]
    fn the_second_is_one_that_nothing_speaks_against_and_of_the_same_priority_if_possible() {
        let second_of = |given: &[Given], first| {
            let candidates = candidates(given);
            second(&candidates, &order(&candidates), first)
        };
        assert_eq!(second_of(&[(Usable, 0, None)], 0), None);
        assert_eq!(second_of(&[(Usable, 0, None), (Usable, 1, None)], 0), Some(1));
        assert_eq!(second_of(&[(Usable, 0, None), (Lagging, 0, None)], 0), None);
        assert_eq!(second_of(&[(Usable, 0, None), (Returning, 0, None)], 0), None);
        let three = [(Usable, 0, None), (Usable, 1, None), (Usable, 1, None)];
        assert_eq!(second_of(&three, 0), Some(1));
        assert_eq!(second_of(&three, 1), Some(2));
    }
}
