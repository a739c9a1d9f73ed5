//! What came of an effect.

use serde::Serialize;
use shepherd_log::{
    EffectId, EffectKey, EffectResult, Journal, LaneId, LaneSnapshot, Offset, OutboxState, Outcome,
    ReadError,
};

use crate::explain::{ExplainError, shown};

/// What came of an effect so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fate {
    /// `accepted`, `already-there`, `refused`, `expired`, `cancelled` or `dry-run`; `waiting`,
    /// `attempted` or `orphaned` while nothing has come of it; `taken-back` when it was cancelled
    /// with its block before it was sent; `unknown` when its outcome is no longer kept.
    pub result: String,
    /// Why, in the receiver's or our words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How often it was sent, once something has come of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// When that was known, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_millis: Option<u64>,
    /// The same as a date and a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The record that tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<u64>,
    /// Height of the newest block then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<u64>,
    /// How many blocks after the one that asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks_later: Option<u64>,
    /// The revert that took back what asked for it, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_back_by: Option<u64>,
}

/// Another effect of the lane with the same key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sibling {
    /// The effect, as OFFSET.INDEX.
    pub effect: String,
    /// Height of the block that asked for it.
    pub block: u64,
    /// What came of it.
    pub fate: Fate,
}

/// What came of the effect that was asked for at this height.
pub(super) fn of(
    live: &LaneSnapshot,
    journal: &Journal,
    lane: &LaneId,
    effect: EffectId,
    height: u64,
) -> Result<Fate, ExplainError> {
    let taken_back_by =
        journal.undone_by(effect.offset, height).filter(|revert| *revert < live.cursor().next);
    let nothing = Fate {
        result: String::new(),
        reason: None,
        attempts: None,
        at_millis: None,
        at: None,
        record: None,
        block: None,
        blocks_later: None,
        taken_back_by: taken_back_by.map(Offset::get),
    };
    match journal.outcome_of(&lane.module, effect) {
        Ok(Some((record, outcome))) => {
            let Outcome { result, attempts, at_millis, head, .. } = &outcome;
            return Ok(Fate {
                result: result.kind().to_owned(),
                reason: reason(result),
                attempts: Some(*attempts),
                at_millis: Some(*at_millis),
                at: shown::time_millis(*at_millis),
                record: Some(record.get()),
                block: Some(head.number),
                blocks_later: Some(head.number.saturating_sub(height)),
                ..nothing
            });
        }
        Ok(None) | Err(ReadError::Trimmed { .. }) => (),
        Err(error) => return Err(error.into()),
    }
    let waits = live.outbox()?.into_iter().find(|entry| entry.id == effect);
    let result = match waits.map(|entry| entry.state) {
        Some(OutboxState::Waiting) => "waiting",
        Some(OutboxState::Attempted) => "attempted",
        Some(OutboxState::Orphaned) => "orphaned",
        None if taken_back_by.is_some() => "taken-back",
        None => "unknown",
    };
    Ok(Fate { result: result.to_owned(), ..nothing })
}

fn reason(result: &EffectResult) -> Option<String> {
    match result {
        EffectResult::Refused(refusal) => {
            let name = refusal.error_type.as_deref().unwrap_or("without an errorType");
            Some(format!("{} {name}: {}", refusal.status, refusal.description))
        }
        EffectResult::Cancelled(why) => Some(why.clone()),
        _ => None,
    }
}

/// Other effects of the lane with this key, oldest first.
pub(super) fn siblings(
    live: &LaneSnapshot,
    journal: &Journal,
    lane: &LaneId,
    effect: EffectId,
    key: &EffectKey,
) -> Result<Vec<Sibling>, ExplainError> {
    let mut siblings = Vec::new();
    for other in live.effects() {
        let (id, block, other) = other?;
        if id != effect && other.key == *key {
            let fate = of(live, journal, lane, id, block.number)?;
            siblings.push(Sibling { effect: id.to_string(), block: block.number, fate });
        }
    }
    Ok(siblings)
}
