//! What to do next with a lane's effects: a decision over what is known, and nothing else.
//!
//! Effects are begun in the order of their ids, with these exceptions and no others:
//!
//! - One that waits for its confirmations holds up nobody: it has asked to wait, the others have
//!   not. Nor does one whose destination the operator has not named.
//! - Of one key only the oldest is looked at. What comes of it may answer the others.
//! - Orders do not wait for each other's answers: several are under way at once, and one that is
//!   tried again later is passed by. Their UIDs keep them apart at the orderbook.
//! - Calls of one webhook do wait: the next one begins when the one before it is settled.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use shepherd_log::{Deliver, EffectId, EffectKey, EffectResult, OutboxEntry, OutboxState, Refusal};
use shepherd_rpc::Backoff;

use super::answer::{Answer, Lookup, Weather};

/// How long after its deadline an order is still looked for whose answer was lost.
///
/// Without an answer it expires all the same; an orderbook that is down for longer than this is
/// not worth keeping a module waiting.
const LOOK_AFTER_SECONDS: u64 = 600;

/// Longest wait that a `Retry-After` can ask of an effect, for a server that is mistaken.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// What the sender remembers of an effect, besides what is stored.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    /// A request for it is under way.
    pub is_under_way: bool,
    /// The receiver has what its key names.
    pub is_done: bool,
    /// How often it was sent.
    pub attempts: u32,
    /// It may have arrived without our knowing.
    pub is_unanswered: bool,
    /// A no that counts if the orderbook does not have the order.
    pub refused: Option<Refusal>,
    /// It is left alone until then.
    pub not_before: Option<Instant>,
    /// How long it is left alone.
    pub backoff: Backoff,
}

impl Memory {
    /// Of an effect that this process has not touched yet.
    pub fn new(state: OutboxState, is_done: bool, backoff: Backoff) -> Memory {
        let is_sent = state != OutboxState::Waiting;
        Memory {
            is_under_way: false,
            is_done,
            // An earlier process has sent it, how often is not written down.
            attempts: u32::from(is_sent),
            is_unanswered: is_sent,
            refused: None,
            not_before: None,
            backoff,
        }
    }

    /// What an effect has come to after it was sent once, if anything.
    pub fn sent(&mut self, answer: Answer, expires: u64, now: Now) -> Option<EffectResult> {
        self.attempts += 1;
        match answer {
            Answer::Accepted => Some(EffectResult::Accepted),
            Answer::AlreadyThere => Some(EffectResult::AlreadyThere),
            Answer::Refused(refusal) => self.refused(refusal, now),
            Answer::Weather(Weather {
                limited: Some(refusal), retry_after: Some(wait), ..
            }) if expires <= now.seconds.saturating_add(wait.as_secs()) => {
                self.refused(*refusal, now)
            }
            Answer::Weather(weather) => {
                self.is_unanswered |= weather.limited.is_none();
                self.wait(&weather, now);
                None
            }
        }
    }

    /// A no after an attempt without an answer may be about the order that attempt has placed: the
    /// orderbook looks for duplicates last.
    fn refused(&mut self, refusal: Refusal, now: Now) -> Option<EffectResult> {
        if !self.is_unanswered {
            return Some(EffectResult::Refused(refusal));
        }
        self.refused = Some(refusal);
        self.not_before = Some(now.instant);
        None
    }

    /// What an effect has come to after it was looked for, if anything.
    pub fn looked_up(
        &mut self,
        lookup: Lookup,
        absent: EffectResult,
        now: Now,
    ) -> Option<EffectResult> {
        match lookup {
            Lookup::There => Some(EffectResult::Accepted),
            Lookup::Unknown => Some(absent),
            Lookup::Weather(weather) => {
                self.wait(&weather, now);
                None
            }
        }
    }

    fn wait(&mut self, weather: &Weather, now: Now) {
        let asked_for = weather.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        self.not_before = Some(now.instant + self.backoff.next_wait().max(asked_for));
    }
}

/// An effect, and what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub entry: OutboxEntry,
    pub memory: Memory,
    /// Whether the operator has said where it goes.
    pub has_destination: bool,
}

/// The time and the chain, as of now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Seconds since 1970, by which effects expire.
    pub seconds: u64,
    /// The same moment, by which waits are measured.
    pub instant: Instant,
    /// Height of the newest block that counts.
    pub head: Option<u64>,
    /// Height up to which blocks are final, as far as that is known.
    pub final_to: Option<u64>,
}

/// How a lane sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Requests for orders that are under way at once.
    pub window: usize,
    /// Nothing is sent.
    pub dry_run: bool,
}

/// A request to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Send it.
    Send,
    /// Ask the orderbook whether it has it; if not, this has come of it.
    LookUp {
        /// What came of an order that is not there.
        absent: EffectResult,
    },
}

/// What to do now, and when to think again.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What has come of these without another request.
    pub settle: Vec<(EffectId, EffectResult)>,
    /// These requests may be made, in this order.
    pub requests: Vec<(EffectId, Request)>,
    /// Something is due then.
    pub again_at: Option<Instant>,
    /// Something waits for the chain to grow.
    pub waits_for_head: bool,
    /// Something waits for blocks to become final.
    pub waits_for_final: bool,
}

/// What a webhook's effect has come to that an earlier attempt may have delivered.
fn given_up(why: &str) -> EffectResult {
    EffectResult::Cancelled(format!("{why}; whether it arrived is not known"))
}

const TAKEN_BACK: &str = "its block was taken back";
const DRY_RUN: &str = "the chain was put into dry run";

/// Decides what to do with the effects of a lane, given in the order of their ids.
pub(crate) fn next(effects: &[Known], now: Now, rules: Rules) -> Plan {
    let mut plan = Plan::default();
    let mut keys: BTreeSet<&EffectKey> = BTreeSet::new();
    let mut held_webhooks: BTreeSet<&str> = BTreeSet::new();
    let is_order = |known: &&Known| matches!(known.entry.key, EffectKey::Order(_));
    let under_way = effects.iter().filter(is_order).filter(|known| known.memory.is_under_way);
    let mut room = rules.window.saturating_sub(under_way.count());
    for known in effects {
        let Known { entry, memory, .. } = known;
        let is_first_of_its_key = keys.insert(&entry.key);
        let webhook = match &entry.key {
            EffectKey::Order(_) => None,
            EffectKey::Webhook { destination, .. } => Some(destination.as_str()),
        };
        match todo(known, now, rules) {
            Todo::Settle(result) if !memory.is_under_way => plan.settle.push((entry.id, result)),
            _ if !is_first_of_its_key => (),
            Todo::Request(request) if !memory.is_under_way => {
                let may_begin = match webhook {
                    Some(destination) => held_webhooks.insert(destination),
                    None => room > 0,
                };
                match memory.not_before.filter(|at| now.instant < *at) {
                    Some(at) => plan.again(at),
                    None if may_begin => {
                        room -= usize::from(webhook.is_none());
                        plan.requests.push((entry.id, request));
                    }
                    None => (),
                }
            }
            Todo::Settle(_) | Todo::Request(_) => held_webhooks.extend(webhook),
            Todo::WaitForHead => plan.waits_for_head = true,
            Todo::WaitForFinal => plan.waits_for_final = true,
            Todo::WaitForOperator => (),
        }
        if entry.state != OutboxState::Orphaned && now.seconds < entry.expires {
            let left = Duration::from_secs(entry.expires - now.seconds);
            // Deadlines beyond what the clock can count are as good as none.
            now.instant.checked_add(left).into_iter().for_each(|at| plan.again(at));
        }
    }
    plan
}

impl Plan {
    fn again(&mut self, at: Instant) {
        self.again_at = Some(self.again_at.map_or(at, |again| again.min(at)));
    }
}

enum Todo {
    Settle(EffectResult),
    Request(Request),
    WaitForHead,
    WaitForFinal,
    WaitForOperator,
}

/// What is to be done with one effect, whatever the others do.
fn todo(known: &Known, now: Now, rules: Rules) -> Todo {
    let Known { entry, memory, has_destination } = known;
    let look_up = |absent| Todo::Request(Request::LookUp { absent });
    let may_be_looked_for = *has_destination && matches!(entry.key, EffectKey::Order(_));
    if entry.state == OutboxState::Orphaned {
        return match may_be_looked_for {
            true => look_up(EffectResult::Cancelled(TAKEN_BACK.to_owned())),
            false => Todo::Settle(given_up(TAKEN_BACK)),
        };
    }
    if memory.is_done {
        return Todo::Settle(EffectResult::AlreadyThere);
    }
    if entry.expires <= now.seconds {
        let is_worth_a_look = memory.is_unanswered
            && may_be_looked_for
            && now.seconds < entry.expires.saturating_add(LOOK_AFTER_SECONDS);
        return match is_worth_a_look {
            true => look_up(EffectResult::Expired),
            false => Todo::Settle(EffectResult::Expired),
        };
    }
    if let Some(refusal) = &memory.refused {
        let refused = EffectResult::Refused(refusal.clone());
        return if may_be_looked_for { look_up(refused) } else { Todo::Settle(refused) };
    }
    if entry.state == OutboxState::Waiting {
        let reached = |height: Option<u64>, blocks: u32| {
            let wanted = entry.block.number.saturating_add(blocks.into());
            height.is_some_and(|height| wanted <= height)
        };
        match entry.deliver {
            Deliver::Confirmations(blocks) if !reached(now.head, blocks) => {
                return Todo::WaitForHead;
            }
            Deliver::Finalized if !reached(now.final_to, 0) => return Todo::WaitForFinal,
            Deliver::Instant | Deliver::Confirmations(_) | Deliver::Finalized => (),
        }
    }
    if rules.dry_run {
        return match (memory.is_unanswered, may_be_looked_for) {
            (false, _) => Todo::Settle(EffectResult::DryRun),
            (true, true) => look_up(EffectResult::DryRun),
            (true, false) => Todo::Settle(given_up(DRY_RUN)),
        };
    }
    if *has_destination { Todo::Request(Request::Send) } else { Todo::WaitForOperator }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::B256;
    use shepherd_log::{BlockRef, Offset};

    use super::*;

    /// Seconds since 1970 of everything here.
    const NOW: u64 = 1_000;

    fn now() -> Now {
        Now { seconds: NOW, instant: Instant::now(), head: Some(100), final_to: Some(50) }
    }

    const RULES: Rules = Rules { window: 3, dry_run: false };
    const DRY: Rules = Rules { window: 3, dry_run: true };

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_secs(1), Duration::from_secs(8))
    }

    fn id(offset: u64) -> EffectId {
        EffectId { offset: Offset::new(offset), index: 0 }
    }

    /// An effect that waits, was asked for at block 90 and is wanted for another minute.
    fn effect(offset: u64, key: EffectKey) -> Known {
        let state = OutboxState::Waiting;
        let entry = OutboxEntry {
            id: id(offset),
            block: BlockRef { number: 90, hash: B256::ZERO },
            key,
            deliver: Deliver::Instant,
            expires: NOW + 60,
            state,
        };
        Known { entry, memory: Memory::new(state, false, backoff()), has_destination: true }
    }

    fn order(offset: u64) -> Known {
        effect(offset, EffectKey::Order([offset as u8; 56]))
    }

    fn webhook(offset: u64, destination: &str) -> Known {
        let key = EffectKey::Webhook { destination: destination.into(), key: offset.to_string() };
        effect(offset, key)
    }

    fn with(mut known: Known, change: impl FnOnce(&mut Known)) -> Known {
        change(&mut known);
        known
    }

    /// In this state, as after a restart.
    fn found(known: Known, state: OutboxState) -> Known {
        let memory = Memory::new(state, false, backoff());
        with(known, |known| (known.entry.state, known.memory) = (state, memory))
    }

    fn refusal() -> Refusal {
        Refusal {
            status: 400,
            error_type: Some("InsufficientBalance".to_owned()),
            description: String::new(),
            body: Vec::new(),
            retry_after: None,
        }
    }

    /// A plan in words.
    fn words(effects: &[Known], rules: Rules) -> String {
        let plan = next(effects, now(), rules);
        let mut words: Vec<String> = plan
            .settle
            .iter()
            .map(|(id, result)| format!("settle {} {}", id.offset, result.kind()))
            .collect();
        words.extend(plan.requests.iter().map(|(id, request)| match request {
            Request::Send => format!("send {}", id.offset),
            Request::LookUp { absent } => format!("look up {} or {}", id.offset, absent.kind()),
        }));
        words.extend(plan.waits_for_head.then(|| "wait for head".to_owned()));
        words.extend(plan.waits_for_final.then(|| "wait for final".to_owned()));
        words.join(", ")
    }

    #[track_caller]
    fn check(effects: &[Known], expected: &str) {
        assert_eq!(words(effects, RULES), expected);
    }

    #[test]
    fn one_effect_by_itself() {
        let attempted = |known| found(known, OutboxState::Attempted);
        let orphaned = |known| found(known, OutboxState::Orphaned);
        let alerts = || webhook(1, "alerts");
        let over = |known| with(known, |known| known.entry.expires = NOW);
        let long_over = |known| with(known, |known| known.entry.expires = NOW - 600);
        let nowhere = |known| with(known, |known| known.has_destination = false);
        let deliver = |deliver: Deliver, known| with(known, |known| known.entry.deliver = deliver);
        for (known, expected, dry) in [
            (order(1), "send 1", "settle 1 dry-run"),
            (alerts(), "send 1", "settle 1 dry-run"),
            (attempted(order(1)), "send 1", "look up 1 or dry-run"),
            (attempted(alerts()), "send 1", "settle 1 cancelled"),
            (orphaned(order(1)), "look up 1 or cancelled", "look up 1 or cancelled"),
            (orphaned(alerts()), "settle 1 cancelled", "settle 1 cancelled"),
            (nowhere(orphaned(order(1))), "settle 1 cancelled", "settle 1 cancelled"),
            (over(order(1)), "settle 1 expired", "settle 1 expired"),
            (over(alerts()), "settle 1 expired", "settle 1 expired"),
            (over(attempted(order(1))), "look up 1 or expired", "look up 1 or expired"),
            (over(attempted(alerts())), "settle 1 expired", "settle 1 expired"),
            (long_over(attempted(order(1))), "settle 1 expired", "settle 1 expired"),
            (over(orphaned(order(1))), "look up 1 or cancelled", "look up 1 or cancelled"),
            (nowhere(order(1)), "", "settle 1 dry-run"),
            (nowhere(alerts()), "", "settle 1 dry-run"),
            (nowhere(over(order(1))), "settle 1 expired", "settle 1 expired"),
            (deliver(Deliver::Confirmations(10), order(1)), "send 1", "settle 1 dry-run"),
            (deliver(Deliver::Confirmations(11), order(1)), "wait for head", "wait for head"),
            (deliver(Deliver::Confirmations(u32::MAX), order(1)), "wait for head", "wait for head"),
            (deliver(Deliver::Finalized, order(1)), "wait for final", "wait for final"),
            // Waiting was over when it was begun.
            (deliver(Deliver::Finalized, attempted(order(1))), "send 1", "look up 1 or dry-run"),
            (
                with(order(1), |known| known.memory.is_done = true),
                "settle 1 already-there",
                "settle 1 already-there",
            ),
            (
                with(attempted(order(1)), |known| known.memory.refused = Some(refusal())),
                "look up 1 or refused",
                "look up 1 or refused",
            ),
            (
                with(attempted(alerts()), |known| known.memory.refused = Some(refusal())),
                "settle 1 refused",
                "settle 1 refused",
            ),
            (with(order(1), |known| known.memory.is_under_way = true), "", ""),
        ] {
            assert_eq!(words(std::slice::from_ref(&known), RULES), expected, "{known:?}");
            assert_eq!(words(std::slice::from_ref(&known), DRY), dry, "dry run: {known:?}");
        }
    }

    #[test]
    fn orders_go_in_order_as_many_at_once_as_the_window_has() {
        let under_way = |known| with(known, |known| known.memory.is_under_way = true);
        check(&[order(1), order(2), order(3), order(4)], "send 1, send 2, send 3");
        check(&[under_way(order(1)), order(2), order(3), order(4)], "send 2, send 3");
        let full = [under_way(order(1)), under_way(order(2)), under_way(order(3)), order(4)];
        check(&full, "");
        // Webhooks have their own.
        check(&[order(1), order(2), order(3), webhook(4, "a")], "send 1, send 2, send 3, send 4");
    }

    #[test]
    fn what_waits_holds_up_nobody() {
        let later = |known| with(known, |known| known.entry.deliver = Deliver::Finalized);
        let nowhere = |known| with(known, |known| known.has_destination = false);
        check(&[later(order(1)), order(2)], "send 2, wait for final");
        check(&[later(webhook(1, "a")), webhook(2, "a")], "send 2, wait for final");
        check(&[nowhere(webhook(1, "a")), order(2)], "send 2");
    }

    #[test]
    fn an_order_that_is_tried_again_later_is_passed_by_and_a_webhook_is_not() {
        let soon = Instant::now() + Duration::from_secs(7);
        let resting = |known| {
            let attempted = found(known, OutboxState::Attempted);
            with(attempted, |known| known.memory.not_before = Some(soon))
        };
        check(&[resting(order(1)), order(2)], "send 2");
        check(&[resting(webhook(1, "a")), webhook(2, "a"), webhook(3, "b")], "send 3");
        check(&[webhook(1, "a"), webhook(2, "a"), webhook(3, "b")], "send 1, send 3");
        let under_way = with(webhook(1, "a"), |known| known.memory.is_under_way = true);
        check(&[under_way, webhook(2, "a"), webhook(3, "b")], "send 3");
        assert_eq!(next(&[resting(order(1))], now(), RULES).again_at, Some(soon));
    }

    #[test]
    fn of_one_key_only_the_oldest_is_looked_at() {
        let same = |offset| with(order(offset), |known| known.entry.key = order(1).entry.key);
        let later = |known| with(known, |known| known.entry.deliver = Deliver::Finalized);
        let over = |known| with(known, |known| known.entry.expires = NOW);
        check(&[order(1), same(2), order(3)], "send 1, send 3");
        check(&[later(order(1)), same(2)], "wait for final");
        check(&[order(1), over(same(2))], "settle 2 expired, send 1");
        let done = |known| with(known, |known| known.memory.is_done = true);
        check(&[done(same(2)), done(same(3))], "settle 2 already-there, settle 3 already-there");
    }

    #[test]
    fn deadlines_wake_the_sender() {
        let at = now();
        let plan = next(&[order(1)], at, RULES);
        assert_eq!(plan.again_at, Some(at.instant + Duration::from_secs(60)));
        let for_ever = with(order(1), |known| known.entry.expires = u64::MAX);
        assert_eq!(next(&[for_ever], at, RULES).again_at, None);
    }

    fn weather(limited: bool, retry_after: Option<u64>) -> Weather {
        let too_many = || Box::new(Refusal { status: 429, error_type: None, ..refusal() });
        Weather {
            reason: "storm".to_owned(),
            retry_after: retry_after.map(Duration::from_secs),
            limited: limited.then(too_many),
        }
    }

    #[test]
    fn a_no_counts_at_once_unless_an_answer_was_lost() {
        let mut memory = order(1).memory;
        let refused = || Answer::Refused(refusal());
        assert_eq!(memory.sent(refused(), NOW + 60, now()), Some(EffectResult::Refused(refusal())));
        // Being asked to come later is an answer.
        let mut memory = order(1).memory;
        let limited = || Answer::Weather(weather(true, None));
        assert_eq!(memory.sent(limited(), NOW + 60, now()), None);
        assert!(memory.sent(refused(), NOW + 60, now()).is_some());

        let mut memory = order(1).memory;
        let lost = || Answer::Weather(weather(false, None));
        assert_eq!(memory.sent(lost(), NOW + 60, now()), None);
        assert_eq!(memory.sent(refused(), NOW + 60, now()), None);
        assert_eq!((memory.refused.clone(), memory.attempts), (Some(refusal()), 2));
        let absent = || EffectResult::Refused(refusal());
        let look = Lookup::Weather(weather(false, None));
        assert_eq!(memory.clone().looked_up(look, absent(), now()), None);
        assert_eq!(memory.clone().looked_up(Lookup::Unknown, absent(), now()), Some(absent()));
        let there = memory.looked_up(Lookup::There, absent(), now());
        assert_eq!(there, Some(EffectResult::Accepted));

        let mut restarted = found(order(1), OutboxState::Attempted).memory;
        assert_eq!(restarted.sent(refused(), NOW + 60, now()), None);
        assert_eq!(restarted.attempts, 2);
    }

    #[test]
    fn weather_is_waited_out_as_long_as_it_asks_for() {
        let wait = |retry_after| {
            let (mut memory, now) = (order(1).memory, now());
            assert_eq!(
                memory.sent(Answer::Weather(weather(true, retry_after)), NOW + 9999, now),
                None
            );
            memory.not_before.expect("it waits") - now.instant
        };
        let (half, one) = (Duration::from_millis(500), Duration::from_secs(1));
        assert!((half..=one).contains(&wait(None)));
        assert!((half..=one).contains(&wait(Some(0))));
        assert_eq!(wait(Some(60)), Duration::from_secs(60));
        assert_eq!(wait(Some(9000)), RETRY_AFTER_MAX);
    }

    #[test]
    fn a_wait_beyond_the_deadline_is_a_no() {
        let sent = |retry_after| {
            let answer = Answer::Weather(weather(true, Some(retry_after)));
            order(1).memory.sent(answer, NOW + 60, now())
        };
        assert_eq!(sent(59), None);
        assert!(matches!(sent(60), Some(EffectResult::Refused(Refusal { status: 429, .. }))));
        assert!(sent(u64::MAX).is_some());
    }
}
