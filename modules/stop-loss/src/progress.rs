//! How far the order has come: what is remembered, and what an outcome does to it.
//!
//! ```text
//!  Armed ── price crosses ──▶ Sent ── accepted, already there ──▶ Over(Placed)
//!    ▲                        ▲  │
//!    │                    due │  │ refused, may work later
//!    │                        │  ▼
//!    │                       Waiting ── refused for good, expired, … ──▶ Over(…)
//!    │                                                                    │
//!    └───────────────── another `arm` in the configuration ◀──────────────┘
//! ```

use shepherd_sdk::{
    EffectResult, Error, Moment, Refusal, When,
    chainlink::Feed,
    cow::{
        refusal::{Action, Seen, action},
        uid::Uid,
    },
    when::back_off,
};

/// Longest `arm`, and the longest `errorType` that is remembered, in bytes.
pub const TEXT_BYTES_MAX: usize = 64;

/// What is remembered of the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The `arm` it was armed with.
    pub arm: String,
    /// The order.
    pub uid: Uid,
    /// How far it has come.
    pub phase: Phase,
    /// What the feed was like at the last look.
    pub feed: Feed,
    /// How often it was refused.
    pub refusals: u32,
    /// `errorType` of the last refusal; empty when there was none.
    pub refused_for: String,
}

/// How far an order has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The price has not crossed the trigger.
    Armed,
    /// The order is asked for, and nothing has come of it yet.
    Sent,
    /// It was refused, and is asked for again then.
    Waiting(When),
    /// Nothing happens any more, until it is armed again.
    Over(End),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is at the orderbook.
    Placed,
    /// The orderbook will never take it.
    Refused,
    /// Its time ran out.
    Expired,
    /// An operator gave it up.
    Cancelled,
    /// Nothing was sent, because the chain is in dry run.
    DryRun,
    /// The configuration has another order since, under the same `arm`.
    Replaced,
}

/// What the configuration means for what is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It goes on.
    GoesOn,
    /// It is armed: for the first time, again, or for another order.
    Armed,
    /// The order on its way is another one than the configured: it is left alone from now on.
    Replaced,
}

impl Progress {
    /// Nothing has happened yet.
    pub fn armed(arm: &str, uid: Uid) -> Progress {
        Progress {
            arm: arm.to_owned(),
            uid,
            phase: Phase::Armed,
            feed: Feed::Fresh,
            refusals: 0,
            refused_for: String::new(),
        }
    }

    /// Goes on under this configuration, or starts.
    ///
    /// Only another `arm` starts again what is over: an amount that someone corrects must not sell
    /// a second time.
    pub fn under(stored: Option<Progress>, arm: &str, uid: Uid) -> (Progress, Start) {
        let fresh = (Progress::armed(arm, uid), Start::Armed);
        let Some(stored) = stored.filter(|stored| stored.arm == arm) else { return fresh };
        if stored.uid == uid {
            return (stored, Start::GoesOn);
        }
        match stored.phase {
            Phase::Armed => fresh,
            Phase::Sent | Phase::Waiting(_) => {
                (Progress { phase: Phase::Over(End::Replaced), ..stored }, Start::Replaced)
            }
            Phase::Over(_) => (stored, Start::GoesOn),
        }
    }

    /// What an outcome of the order that was sent makes of it.
    pub fn after(self, result: &EffectResult, now: Moment) -> Progress {
        let over = |end| Phase::Over(end);
        let phase = match result {
            EffectResult::Accepted | EffectResult::AlreadyThere => over(End::Placed),
            EffectResult::Refused(refusal) => return self.refused(refusal, now),
            EffectResult::Expired => over(End::Expired),
            EffectResult::Cancelled(_) => over(End::Cancelled),
            EffectResult::DryRun => over(End::DryRun),
        };
        Progress { phase, ..self }
    }

    fn refused(self, refusal: &Refusal, now: Moment) -> Progress {
        let refused_for = shortened(refusal.error_type.as_deref().unwrap_or_default());
        let again = !refused_for.is_empty() && refused_for == self.refused_for;
        let seen = if again { Seen::Again } else { Seen::First };
        let refusals = self.refusals.saturating_add(1);
        let phase = match action(refusal, seen) {
            Action::Placed => Phase::Over(End::Placed),
            Action::After(wait) => Phase::Waiting(now.after(wait)),
            Action::NextBlock => Phase::Waiting(now.next_block()),
            Action::Park(first) => Phase::Waiting(now.after(back_off(first, refusals))),
            Action::Drop => Phase::Over(End::Refused),
        };
        Progress { phase, refusals, refused_for: refused_for.to_owned(), ..self }
    }

    /// As it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let (phase, number) = self.phase.encode();
        let arm_length = u8::try_from(self.arm.len()).expect("an arm is at most 64 bytes");
        [
            &[phase][..],
            &number.to_be_bytes(),
            &[self.feed.to_byte()],
            &self.refusals.to_be_bytes(),
            &self.uid.to_bytes(),
            &[arm_length],
            self.arm.as_bytes(),
            self.refused_for.as_bytes(),
        ]
        .concat()
    }

    /// Reads what is stored.
    pub fn decode(bytes: &[u8]) -> Result<Progress, Error> {
        let read = || {
            let (phase, rest) = bytes.split_first()?;
            let (number, rest) = rest.split_first_chunk::<8>()?;
            let (feed, rest) = rest.split_first()?;
            let (refusals, rest) = rest.split_first_chunk::<4>()?;
            let (uid, rest) = rest.split_first_chunk::<56>()?;
            let (arm_length, rest) = rest.split_first()?;
            let (arm, refused_for) = rest.split_at_checked(usize::from(*arm_length))?;
            Some(Progress {
                arm: str::from_utf8(arm).ok()?.to_owned(),
                uid: Uid::try_from(uid.as_slice()).ok()?,
                phase: Phase::decode(*phase, u64::from_be_bytes(*number))?,
                feed: Feed::from_byte(*feed)?,
                refusals: u32::from_be_bytes(*refusals),
                refused_for: str::from_utf8(refused_for).ok()?.to_owned(),
            })
        };
        read().ok_or_else(|| Error::new("what is stored of the order is not its progress"))
    }
}

impl Phase {
    const OVER: [(u8, End); 6] = [
        (b'p', End::Placed),
        (b'x', End::Refused),
        (b'e', End::Expired),
        (b'c', End::Cancelled),
        (b'd', End::DryRun),
        (b'r', End::Replaced),
    ];

    fn encode(self) -> (u8, u64) {
        match self {
            Phase::Armed => (b'a', 0),
            Phase::Sent => (b's', 0),
            Phase::Waiting(When::Block(block)) => (b'b', block),
            Phase::Waiting(When::Time(time)) => (b't', time),
            Phase::Over(end) => {
                let named = Phase::OVER.iter().find(|(_, other)| *other == end);
                let (byte, _) = named.expect("every end has a byte");
                (*byte, 0)
            }
        }
    }

    fn decode(phase: u8, number: u64) -> Option<Phase> {
        match phase {
            b'a' => Some(Phase::Armed),
            b's' => Some(Phase::Sent),
            b'b' => Some(Phase::Waiting(When::Block(number))),
            b't' => Some(Phase::Waiting(When::Time(number))),
            _ => {
                let named = Phase::OVER.iter().find(|(byte, _)| *byte == phase);
                named.map(|(_, end)| Phase::Over(*end))
            }
        }
    }
}

/// The text, or as much of it as is remembered.
fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use shepherd_sdk::{
        Address, B256,
        cow::refusal::TABLE,
        testing::{refused, refused_with},
    };

    use super::*;

    const NOW: Moment = Moment { block: 100, time: 1_700_000_000 };

    fn uid(byte: u8) -> Uid {
        Uid { digest: B256::repeat_byte(byte), owner: Address::repeat_byte(7), valid_to: 9 }
    }

    fn sent() -> Progress {
        Progress { phase: Phase::Sent, ..Progress::armed("1", uid(1)) }
    }

    fn after(result: &EffectResult) -> Phase {
        sent().after(result, NOW).phase
    }

    #[test]
    fn an_order_the_orderbook_has_is_placed() {
        assert_eq!(after(&EffectResult::Accepted), Phase::Over(End::Placed));
        assert_eq!(after(&EffectResult::AlreadyThere), Phase::Over(End::Placed));
        assert_eq!(after(&refused("DuplicatedOrder")), Phase::Over(End::Placed));
    }

    #[test]
    fn every_refusal_is_treated_as_the_table_says() {
        for (error_type, action) in TABLE {
            let expected = match action {
                Action::Placed => Phase::Over(End::Placed),
                Action::After(wait) => Phase::Waiting(When::Time(NOW.time + wait.as_secs())),
                Action::NextBlock => Phase::Waiting(When::Block(101)),
                Action::Park(_) => panic!("{error_type} is listed and parked"),
                Action::Drop => Phase::Over(End::Refused),
            };
            assert_eq!(after(&refused(error_type)), expected, "{error_type}");
        }
        let at = |seconds| Phase::Waiting(When::Time(NOW.time + seconds));
        assert_eq!(after(&refused_with(403, None)), Phase::Over(End::Refused));
        assert_eq!(after(&refused_with(404, None)), at(600));
        assert_eq!(after(&refused_with(429, Some(7))), at(7));
        assert_eq!(after(&refused_with(429, None)), at(600));
    }

    #[test]
    fn what_nobody_knows_is_parked_longer_each_time() {
        let mut progress = sent();
        for hours in [1, 2, 4, 8, 16, 24, 24] {
            progress = progress.after(&refused("Unheard"), NOW);
            let until = When::Time(NOW.time + hours * 3_600);
            assert_eq!(progress.phase, Phase::Waiting(until), "{hours}");
        }
        assert_eq!((progress.refusals, progress.refused_for.as_str()), (7, "Unheard"));
    }

    #[test]
    fn a_signature_refused_twice_is_given_up() {
        let signature = refused("InvalidEip1271Signature");
        let once = sent().after(&signature, NOW);
        assert_eq!(once.phase, Phase::Waiting(When::Block(101)));
        let twice = once.clone().after(&signature, NOW);
        assert_eq!(twice.phase, Phase::Over(End::Refused));
        let between = once.after(&refused("InsufficientBalance"), NOW).after(&signature, NOW);
        assert_eq!(between.phase, Phase::Waiting(When::Block(101)));
    }

    #[test]
    fn what_was_not_sent_is_over() {
        assert_eq!(after(&EffectResult::Expired), Phase::Over(End::Expired));
        let cancelled = EffectResult::Cancelled("by hand".to_owned());
        assert_eq!(after(&cancelled), Phase::Over(End::Cancelled));
        assert_eq!(after(&EffectResult::DryRun), Phase::Over(End::DryRun));
    }

    #[test]
    fn only_another_arm_starts_again() {
        let armed = |arm: &str, byte| (Progress::armed(arm, uid(byte)), Start::Armed);
        assert_eq!(Progress::under(None, "1", uid(1)), armed("1", 1));
        let over = Phase::OVER.map(|(_, end)| Phase::Over(end));
        for phase in over.into_iter().chain([Phase::Sent, Phase::Waiting(NOW.next_block())]) {
            let stored = Progress { phase, refusals: 3, ..sent() };
            let under = |arm: &str, byte| Progress::under(Some(stored.clone()), arm, uid(byte));
            assert_eq!(under("1", 1), (stored.clone(), Start::GoesOn));
            assert_eq!(under("2", 1), armed("2", 1));
            assert_eq!(under("2", 2), armed("2", 2));
            // Another order under the same arm is not placed.
            let (progress, _) = under("1", 2);
            assert!(matches!(progress.phase, Phase::Over(_)), "{progress:?}");
            assert_eq!(progress.uid, uid(1));
        }
    }

    #[test]
    fn an_order_that_is_changed_before_the_trigger_is_the_one_to_place() {
        let stored = Progress::armed("1", uid(1));
        let expected = (Progress::armed("1", uid(2)), Start::Armed);
        assert_eq!(Progress::under(Some(stored), "1", uid(2)), expected);
    }

    #[test]
    fn an_order_on_its_way_that_is_changed_is_told_and_left_alone() {
        for phase in [Phase::Sent, Phase::Waiting(NOW.next_block())] {
            let stored = Progress { phase, ..sent() };
            let replaced = Progress { phase: Phase::Over(End::Replaced), ..stored.clone() };
            let under = Progress::under(Some(stored), "1", uid(2));
            assert_eq!(under, (replaced.clone(), Start::Replaced));
            // Told once.
            assert_eq!(
                Progress::under(Some(replaced.clone()), "1", uid(2)),
                (replaced, Start::GoesOn)
            );
        }
    }

    #[test]
    fn progress_survives_being_stored() {
        let over = Phase::OVER.map(|(_, end)| Phase::Over(end));
        let waiting = [When::Block(7), When::Time(u64::MAX)].map(Phase::Waiting);
        for phase in over.into_iter().chain(waiting).chain([Phase::Armed, Phase::Sent]) {
            let progress = Progress {
                arm: "ä".repeat(TEXT_BYTES_MAX / 2),
                uid: uid(9),
                phase,
                feed: Feed::Stale,
                refusals: 0x0102_0304,
                refused_for: "InsufficientBalance".to_owned(),
            };
            assert_eq!(Progress::decode(&progress.encode()), Ok(progress));
        }
        let good = sent().encode();
        for bad in [&good[..good.len() - 1], &[0; 72], &[]] {
            assert!(Progress::decode(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_error_type_of_any_length_stays_small() {
        let long = "ä".repeat(1_000);
        let progress = sent().after(&refused(&long), NOW);
        assert_eq!(progress.refused_for.len(), TEXT_BYTES_MAX);
        assert!(progress.encode().len() < 256);
        assert_eq!(shortened(&format!("a{long}")).len(), TEXT_BYTES_MAX - 1);
    }
}
