//! Logs before an order's record that name its owner: where a conditional order was created, or a
//! merkle root set.
//!
//! A module that polls asks for an order long after the log that told it to. The record alone does
//! not show that log. These are the logs that the module was given and that have the owner's
//! address in a topic or in their data: facts, not a proof that the order came of them.

use alloy_primitives::{Address, B256};
use serde::Serialize;
use shepherd_host::{BoundModule, LogFilter as Wanted};
use shepherd_log::{EffectKey, Journal, LogFilter, LogView, Offset, ReadError, RecordView};

use crate::explain::{ExplainError, occasion::LogSeen, wish::Wish};

/// Logs that are shown, the newest ones.
const EARLIER_MAX: usize = 5;

/// A log that a module was given before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EarlierLog {
    /// The record of its block.
    pub record: u64,
    /// The block's height.
    pub block: u64,
    /// The block's own time, in seconds since 1970.
    pub timestamp: u64,
    /// The log.
    pub log: LogSeen,
}

/// The newest logs before the record that name the order's owner, oldest first. Blocks that were
/// taken back before it are left out.
pub(super) fn of(
    journal: &Journal,
    record: Offset,
    module: &BoundModule,
    wish: &Wish,
) -> Result<Vec<EarlierLog>, ExplainError> {
    let Some(owner) = owner(wish) else { return Ok(Vec::new()) };
    let subscription = module.subscription();
    let names_owner = |log: &LogView<'_>| {
        let topics: Vec<B256> = log.topics().collect();
        let is_topic = topics.iter().any(|topic| topic[12..] == owner[..]);
        subscription.wants_log(&log.address, &topics)
            && (is_topic || log.data.windows(20).any(|bytes| bytes == owner.as_slice()))
    };
    let mut all: Vec<EarlierLog> = Vec::new();
    for wanted in &subscription.logs {
        for stored in journal.find(journal.start()..record, &filter(wanted)) {
            let stored = match stored {
                Ok(stored) => stored,
                // Trimmed since: what is gone cannot be shown.
                Err(ReadError::Trimmed { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let offset = stored.offset();
            let RecordView::Block(block) = stored.record() else { continue };
            if journal.abandoned_by(offset).is_some_and(|revert| revert < record) {
                continue;
            }
            for log in block.logs().filter(names_owner) {
                all.push(EarlierLog {
                    record: offset.get(),
                    block: block.this.number,
                    timestamp: block.timestamp,
                    log: LogSeen::from(&log),
                });
            }
        }
    }
    all.sort_by_key(|earlier| (earlier.record, earlier.log.index));
    // One log may fit two filters.
    all.dedup_by_key(|earlier| (earlier.record, earlier.log.index));
    Ok(all.split_off(all.len().saturating_sub(EARLIER_MAX)))
}

fn owner(wish: &Wish) -> Option<Address> {
    match wish.effect_key() {
        EffectKey::Order(uid) => Some(Address::from_slice(&uid[32..52])),
        EffectKey::Webhook { .. } => None,
    }
}

/// What the log index is asked for.
fn filter(wanted: &Wanted) -> LogFilter {
    LogFilter {
        addresses: wanted.addresses().iter().copied().collect(),
        topic0: wanted.topics()[0].iter().copied().collect(),
    }
}
