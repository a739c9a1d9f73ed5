//! What came of the orders that were placed.

use shepherd_sdk::{
    EffectKey, EffectResult, Error, Host, Level, Moment, Outcome, Refusal, RevertInput, When,
    cow::refusal::{Action, Seen, action},
    when::back_off,
};

use crate::{
    book::{self, DUE, Last, Placed, Watch},
    config::Config,
    order::{Stand, Window},
    poll::recheck,
};

/// Takes note of what came of an order, for every watch that waits for it.
pub fn note(
    config: &Config,
    host: &mut impl Host,
    here: Moment,
    outcome: &Outcome,
) -> Result<(), Error> {
    let EffectKey::Order(uid) = outcome.key else { return Ok(()) };
    if outcome.abandoned {
        // The branch that counts has its own say about the order.
        let (level, line) = outcome.line();
        host.log(level, &line);
        return Ok(());
    }
    let waiting = book::waiting_for(host, uid)?;
    if waiting.is_empty() {
        // The next part has begun since, or the order is over.
        host.log(Level::Debug, &format!("{uid} is {}, and nobody waits", word(&outcome.result)));
    }
    for id in waiting {
        let watch = book::load(host, id)?;
        let Some(last) = watch.progress.last else {
            return Err(Error::new(format!("{id} waits for {uid} and has placed nothing")));
        };
        noted(config, host, here, watch, last, &outcome.result)?;
    }
    Ok(())
}

/// Says which orders of blocks that were taken back are real. What is to be done about the
/// orders of the blocks that take their place follows from those.
pub fn note_revert(host: &mut impl Host, revert: &RevertInput) {
    for outcome in &revert.outcomes {
        let (level, line) = outcome.line();
        host.log(level, &line);
    }
}

fn word(result: &EffectResult) -> String {
    match result {
        EffectResult::Accepted => "placed".to_owned(),
        EffectResult::AlreadyThere => "at the orderbook already".to_owned(),
        EffectResult::Refused(refusal) => format!("refused: {}", refusal.reason()),
        EffectResult::Expired => "expired before it could be placed".to_owned(),
        EffectResult::Cancelled(reason) => format!("cancelled: {reason}"),
        EffectResult::DryRun => "not placed: this is a dry run".to_owned(),
    }
}

/// What a watch does next.
enum Then {
    /// This order is dealt with.
    Settle(Level),
    /// It is placed again, then.
    Again(When, Level),
}

fn noted(
    config: &Config,
    host: &mut impl Host,
    here: Moment,
    mut watch: Watch,
    last: Last,
    result: &EffectResult,
) -> Result<(), Error> {
    let before = watch.progress;
    let mut now = last;
    let then = match result {
        EffectResult::Accepted | EffectResult::AlreadyThere | EffectResult::DryRun => {
            watch.progress.failures = 0;
            Then::Settle(Level::Info)
        }
        EffectResult::Expired => Then::Settle(Level::Warn),
        EffectResult::Cancelled(_) => Then::Settle(Level::Warn),
        EffectResult::Refused(refusal) => {
            let failures = watch.progress.failures.saturating_add(1);
            let (then, parked) = refused(refusal, last, failures, here);
            watch.progress.failures = if parked { failures } else { 0 };
            now.signature_refused |= is_signature(refusal);
            then
        }
    };
    let line = |level: Level| (level, format!("{}: {} is {}", watch.id, last.uid, word(result)));
    let valid_to = u64::from(last.uid.valid_to);
    match then {
        Then::Settle(level) => {
            now.state = Placed::Settled;
            let (level, line) = line(level);
            host.log(level, &line);
            let window = window(config, &watch, valid_to);
            if window.is_some_and(|window| window.last && window.part == Some(last.uid.valid_to)) {
                host.log(Level::Info, &format!("{}: that was its last part", watch.id));
                watch.progress = before;
                return book::forget(host, &watch);
            }
            // A TWAP is due when its next part is.
            if window.is_some_and(|window| window.part.is_none()) {
                DUE.set(host, watch.id.bytes(), recheck(config, valid_to, here))?;
            }
        }
        Then::Again(when, level) => {
            now.state = Placed::Refused;
            let (level, line) = line(level);
            host.log(level, &line);
            // When its time is over it is due already, for what comes next.
            match window(config, &watch, here.time) {
                Some(window) if window.part.is_none_or(|part| part == last.uid.valid_to) => {
                    DUE.set(host, watch.id.bytes(), window.clamp(when))?;
                }
                _ => (),
            }
        }
    }
    watch.progress.last = Some(now);
    book::advance(host, watch.id, &before, &watch.progress);
    Ok(())
}

/// What to do about a refusal, and whether it is one that nobody knows.
fn refused(refusal: &Refusal, last: Last, failures: u32, here: Moment) -> (Then, bool) {
    let seen = if last.signature_refused { Seen::Again } else { Seen::First };
    match action(refusal, seen) {
        Action::Placed => (Then::Settle(Level::Info), false),
        Action::After(wait) => (Then::Again(here.after(wait), Level::Info), false),
        Action::NextBlock => (Then::Again(here.next_block(), Level::Info), false),
        Action::Drop => (Then::Settle(Level::Warn), false),
        Action::Park(first) => {
            (Then::Again(here.after(back_off(first, failures)), Level::Warn), true)
        }
    }
}

fn is_signature(refusal: &Refusal) -> bool {
    refusal.error_type.as_deref() == Some("InvalidEip1271Signature")
}

/// The window that is open at this time.
fn window(config: &Config, watch: &Watch, time: u64) -> Option<Window> {
    match watch.order.stand(&config.twap_handlers, watch.progress.start, time) {
        Stand::Open(window) => Some(window),
        _ => None,
    }
}
