//! Effects as types: what a lane wants done outside, and what came of it.
//!
//! ```text
//!  record ──▶ module ──▶ Effect ──commit──▶ outbox ──▶ receiver
//!                                                        │
//!  record ◀── journal ◀── Outcome ◀── EffectResult ◀─────┘
//! ```

use std::fmt;

use alloy_primitives::hex;

use crate::types::{BlockRef, ModuleName, Offset};

/// Names an effect of a lane: where it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectId {
    /// The record whose handling asked for it.
    pub offset: Offset,
    /// Its position among the effects of that record, from 0.
    pub index: u32,
}

impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.offset, self.index)
    }
}

/// Length of an order's UID: digest (32), owner (20), `validTo` (4).
pub const ORDER_UID_BYTES: usize = 56;

/// What a receiver tells a repetition by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EffectKey {
    /// An order's UID.
    Order([u8; ORDER_UID_BYTES]),
    /// A call of a webhook.
    Webhook {
        /// The operator's name for where it goes.
        destination: String,
        /// Sent as `Idempotency-Key`.
        key: String,
    },
}

impl EffectKey {
    fn bytes(&self) -> usize {
        match self {
            EffectKey::Order(uid) => uid.len(),
            EffectKey::Webhook { destination, key } => destination.len() + key.len(),
        }
    }
}

impl fmt::Display for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EffectKey::Order(uid) => f.write_str(&hex::encode_prefixed(uid)),
            EffectKey::Webhook { destination, key } => write!(f, "{destination}/{key}"),
        }
    }
}

impl fmt::Debug for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// When an effect may leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Deliver {
    /// As soon as the step that asked for it is durable.
    #[default]
    Instant,
    /// When the chain's head is so many blocks above the block that asked for it.
    Confirmations(u32),
    /// When the chain calls that block final.
    Finalized,
}

/// Something a module wants done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// What the receiver tells a repetition by.
    pub key: EffectKey,
    /// What is sent, the same every time: a JSON document.
    pub body: Vec<u8>,
    /// When it may leave.
    pub deliver: Deliver,
    /// When nobody wants it any more, in seconds since 1970.
    pub expires: u64,
}

impl Effect {
    /// What it weighs in a step, without the rows around it.
    pub fn bytes(&self) -> usize {
        self.key.bytes() + self.body.len()
    }
}

/// A receiver's no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// `errorType` of the orderbook's envelope, when there is one.
    pub error_type: Option<String>,
    /// `description` of the envelope, else the start of the body. At most 1 KiB.
    pub description: String,
    /// The body, at most 8 KiB of it.
    pub body: Vec<u8>,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
}

/// What came of an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EffectResult {
    /// The receiver took it.
    Accepted,
    /// The receiver had it already.
    AlreadyThere,
    /// The receiver does not take it as it is.
    Refused(Refusal),
    /// Its time ran out before there was an answer.
    Expired,
    /// It was given up before it was sent, and why.
    Cancelled(String),
    /// Nothing was sent: the chain is in dry run.
    DryRun,
}

impl EffectResult {
    /// Whether the receiver has it now. Asking for the same key again is answered from this.
    pub fn is_done(&self) -> bool {
        matches!(self, EffectResult::Accepted | EffectResult::AlreadyThere)
    }

    /// A short word for tables and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            EffectResult::Accepted => "accepted",
            EffectResult::AlreadyThere => "already-there",
            EffectResult::Refused(_) => "refused",
            EffectResult::Expired => "expired",
            EffectResult::Cancelled(_) => "cancelled",
            EffectResult::DryRun => "dry-run",
        }
    }
}

/// What came of an effect, as a record for the lane that asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The module of the lane. Its chain is the journal's.
    pub module: ModuleName,
    /// The effect.
    pub effect: EffectId,
    /// Its key.
    pub key: EffectKey,
    /// The newest block that counted when it was asked for.
    pub block: BlockRef,
    /// What came of it.
    pub result: EffectResult,
    /// How often it was sent.
    pub attempts: u32,
    /// When this was known, in milliseconds since 1970. For people: no module is shown it.
    pub at_millis: u64,
    /// The newest block that counted when the outcome was journaled.
    pub head: BlockRef,
}

impl Outcome {
    /// What it weighs in a step, without the rows around it.
    pub(crate) fn bytes(&self) -> usize {
        let result = match &self.result {
            EffectResult::Refused(refusal) => {
                let error_type = refusal.error_type.as_ref().map_or(0, String::len);
                error_type + refusal.description.len() + refusal.body.len()
            }
            EffectResult::Cancelled(why) => why.len(),
            EffectResult::Accepted
            | EffectResult::AlreadyThere
            | EffectResult::Expired
            | EffectResult::DryRun => 0,
        };
        // With the two blocks it names.
        self.module.as_str().len() + self.key.bytes() + result + 2 * size_of::<BlockRef>()
    }
}
