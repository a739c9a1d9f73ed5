//! Whether a destination may be asked now: how often, and whether it is up.
//!
//! ```text
//!             failures in a row             the rest is over
//!   closed ────────────────────▶ open ──────────────────────▶ trying: one request, no more
//!     ▲                            ▲                             │
//!     │                            └───────── it failed ─────────┤
//!     └───────────────────────────────────── it was answered ────┘
//! ```
//!
//! A gate looks at no clock: whoever asks says what time it is.

use std::time::{Duration, Instant};

use shepherd_rpc::Backoff;

/// Failures in a row, of whatever requests, that open a closed breaker.
///
/// One may be about one request, such as a server that falls over one order. As many as this, with
/// nothing answered in between, are about the server.
const FAILURES_MAX: u32 = 5;

/// The longest pause that a `Retry-After` gets.
///
/// A server that says "tomorrow" by mistake must not silence a chain for a day.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// How often a destination is asked, and how it rests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests a second; as many may come at once after a pause.
    pub rate_per_second: u32,
    /// Requests under way at once, of all lanes.
    pub parallel_max: usize,
    /// Rest when it is down; it doubles with each further failure.
    pub rest_min: Duration,
    /// Longest rest.
    pub rest_max: Duration,
}

/// A destination's gate.
#[derive(Debug)]
pub(crate) struct Gate {
    limits: Limits,
    /// When the next request would come if they came evenly from now on.
    next: Option<Instant>,
    /// The destination wants to be left alone until then.
    paused_until: Option<Instant>,
    under_way: usize,
    breaker: Breaker,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Breaker {
    Closed { failures: u32 },
    Open { until: Instant },
    Trying,
}

/// Whether a request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It goes, and its end must be told: [`Gate::end`].
    Go(Ticket),
    /// Not before this.
    NotBefore(Instant),
    /// Not before another request has ended.
    Busy,
}

/// A request that was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// Whether it decides that the destination is up again.
    is_trial: bool,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// There was an answer.
    Answered,
    /// There was none that counts.
    Failed {
        /// What the destination asks for.
        pause: Option<Duration>,
    },
    /// It was not sent, or nobody waited for the answer.
    Unknown,
}

/// What the end of a request changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing that others wait for.
    Nothing,
    /// The destination is down, and rests for so long.
    Opened {
        /// How long.
        rest: Duration,
    },
    /// The destination is up again.
    Closed,
}

impl Gate {
    pub(crate) fn new(limits: Limits) -> Gate {
        Gate {
            limits,
            next: None,
            paused_until: None,
            under_way: 0,
            breaker: Breaker::Closed { failures: 0 },
            backoff: Backoff::new(limits.rest_min, limits.rest_max),
        }
    }

    /// Whether a request may go now.
    pub(crate) fn admit(&mut self, now: Instant) -> Admission {
        let is_trial = match self.breaker {
            Breaker::Open { until } if now < until => return Admission::NotBefore(until),
            Breaker::Trying => return Admission::Busy,
            Breaker::Open { .. } => true,
            Breaker::Closed { .. } => false,
        };
        if self.limits.parallel_max <= self.under_way {
            return Admission::Busy;
        }
        if let Err(at) = self.take_turn(now) {
            return Admission::NotBefore(at);
        }
        if is_trial {
            self.breaker = Breaker::Trying;
        }
        self.under_way += 1;
        Admission::Go(Ticket { is_trial })
    }

    /// Takes a turn of the rate alone, for requests that no breaker holds back.
    pub(crate) fn take_turn(&mut self, now: Instant) -> Result<(), Instant> {
        if let Some(until) = self.paused_until.filter(|until| now < *until) {
            return Err(until);
        }
        let interval = Duration::from_secs(1) / self.limits.rate_per_second;
        // A second's worth may come at once.
        let ahead = interval * (self.limits.rate_per_second - 1);
        let next = self.next.map_or(now, |next| next.max(now));
        if now + ahead < next {
            return Err(next - ahead);
        }
        self.next = Some(next + interval);
        Ok(())
    }

    /// The destination asks to be left alone.
    pub(crate) fn pause(&mut self, now: Instant, pause: Duration) {
        let until = now + pause.min(PAUSE_MAX);
        self.paused_until = self.paused_until.max(Some(until));
    }

    /// Tells how an admitted request ended.
    pub(crate) fn end(&mut self, ticket: Ticket, end: End, now: Instant) -> Change {
        self.under_way -= 1;
        match end {
            End::Answered => {
                let was_closed = matches!(self.breaker, Breaker::Closed { .. });
                self.breaker = Breaker::Closed { failures: 0 };
                self.backoff.reset();
                if was_closed { Change::Nothing } else { Change::Closed }
            }
            End::Failed { pause } => {
                if let Some(pause) = pause {
                    self.pause(now, pause);
                }
                match &mut self.breaker {
                    Breaker::Closed { failures } if *failures + 1 < FAILURES_MAX => {
                        *failures += 1;
                        Change::Nothing
                    }
                    Breaker::Closed { .. } => self.open(now),
                    Breaker::Trying if ticket.is_trial => self.open(now),
                    // It was sent before the breaker opened, so it says nothing new.
                    Breaker::Open { .. } | Breaker::Trying => Change::Nothing,
                }
            }
            End::Unknown if ticket.is_trial && self.breaker == Breaker::Trying => {
                self.breaker = Breaker::Open { until: now };
                Change::Nothing
            }
            End::Unknown => Change::Nothing,
        }
    }

    fn open(&mut self, now: Instant) -> Change {
        let rest = self.backoff.next_wait();
        self.breaker = Breaker::Open { until: now + rest };
        Change::Opened { rest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn gate(rate_per_second: u32, parallel_max: usize) -> Gate {
        let (rest_min, rest_max) = (SECOND, 60 * SECOND);
        Gate::new(Limits { rate_per_second, parallel_max, rest_min, rest_max })
    }

    #[track_caller]
    fn go(gate: &mut Gate, now: Instant) -> Ticket {
        match gate.admit(now) {
            Admission::Go(ticket) => ticket,
            refused => panic!("{refused:?}"),
        }
    }

    const FAILED: End = End::Failed { pause: None };

    #[test]
    fn as_many_as_a_second_has_may_come_at_once_and_then_one_by_one() {
        let (mut gate, start) = (gate(4, 100), Instant::now());
        for _ in 0..4 {
            go(&mut gate, start);
        }
        let quarter = SECOND / 4;
        assert_eq!(gate.admit(start), Admission::NotBefore(start + quarter));
        go(&mut gate, start + quarter);
        assert_eq!(gate.admit(start + quarter), Admission::NotBefore(start + 2 * quarter));
        // What was not used for long does not add up.
        let later = start + 60 * SECOND;
        for _ in 0..4 {
            go(&mut gate, later);
        }
        assert_eq!(gate.admit(later), Admission::NotBefore(later + quarter));
    }

    #[test]
    fn requests_at_once_are_bounded() {
        let (mut gate, start) = (gate(100, 2), Instant::now());
        let first = go(&mut gate, start);
        go(&mut gate, start);
        assert_eq!(gate.admit(start), Admission::Busy);
        gate.end(first, End::Unknown, start);
        go(&mut gate, start);
    }

    #[test]
    fn failures_in_a_row_open_the_breaker_and_one_request_tries_it() {
        let (mut gate, start) = (gate(100, 100), Instant::now());
        let tickets: Vec<Ticket> = (0..8).map(|_| go(&mut gate, start)).collect();
        assert_eq!(gate.end(tickets[0], FAILED, start), Change::Nothing);
        assert_eq!(gate.end(tickets[1], End::Answered, start), Change::Nothing, "starts over");
        for ticket in &tickets[2..6] {
            assert_eq!(gate.end(*ticket, FAILED, start), Change::Nothing);
        }
        let Change::Opened { rest } = gate.end(tickets[6], FAILED, start) else { panic!("closed") };
        assert_eq!(gate.end(tickets[7], FAILED, start), Change::Nothing, "says nothing new");
        assert_eq!(gate.admit(start), Admission::NotBefore(start + rest));

        let later = start + rest;
        let trial = go(&mut gate, later);
        assert_eq!(gate.admit(later), Admission::Busy, "one alone tries");
        let Change::Opened { rest: longer } = gate.end(trial, FAILED, later) else {
            panic!("closed")
        };
        assert!(SECOND <= longer, "{longer:?}");
        let trial = go(&mut gate, later + longer);
        assert_eq!(gate.end(trial, End::Answered, later + longer), Change::Closed);
        go(&mut gate, later + longer);
    }

    #[test]
    fn a_trial_that_comes_to_nothing_leaves_the_next_one_to_try() {
        let (mut gate, start) = (gate(100, 100), Instant::now());
        let tickets: Vec<Ticket> = (0..5).map(|_| go(&mut gate, start)).collect();
        for ticket in tickets {
            gate.end(ticket, FAILED, start);
        }
        let later = start + SECOND;
        let trial = go(&mut gate, later);
        assert_eq!(gate.end(trial, End::Unknown, later), Change::Nothing);
        go(&mut gate, later);
    }

    #[test]
    fn a_destination_that_asks_for_a_pause_gets_it_within_reason() {
        let (mut gate, start) = (gate(100, 100), Instant::now());
        let ticket = go(&mut gate, start);
        gate.end(ticket, End::Failed { pause: Some(7 * SECOND) }, start);
        assert_eq!(gate.admit(start), Admission::NotBefore(start + 7 * SECOND));
        gate.pause(start, 86_400 * SECOND);
        assert_eq!(gate.admit(start), Admission::NotBefore(start + PAUSE_MAX));
    }
}
