//! What a module wants done outside, and what comes of it.
//!
//! ```text
//! record ──▶ handle ──▶ place_order, webhook ──commit──▶ sent, at least once
//!                                                            │
//! record ──▶ handle(Input::Outcome) ◀── EffectResult ◀───────┘
//! ```
//!
//! Nothing is sent while a module runs, so nothing comes of an effect before `handle` has
//! returned. What does arrives as a record of its own, in the order it became known.

use std::fmt;

use serde_json::Value;

use crate::{Host, Level, cow::uid::Uid};

/// A JSON document for a destination that the operator has named.
///
/// ```
/// use shepherd_sdk::{Host, Webhook, serde_json::json, testing::MemoryHost};
///
/// let mut host = MemoryHost::default();
/// let webhook = Webhook {
///     key: Some("eth-usd below 1800 at 19000000".to_owned()),
///     ..Webhook::new("alerts", &json!({ "price": "1799.5" }))
/// };
/// assert_eq!(host.webhook(&webhook), "eth-usd below 1800 at 19000000");
/// assert_eq!(host.webhooks[0].1.body, r#"{"price":"1799.5"}"#);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// A name from `webhooks` of the manifest. The operator says where it is.
    pub destination: String,
    /// What a receiver may tell a repetition by: 1 to 128 printable ASCII characters, sent as
    /// `Idempotency-Key`. `None` derives one from lane, record and position.
    pub key: Option<String>,
    /// A JSON document of at most 64 KiB.
    pub body: String,
    /// When it may leave. `None` takes what the manifest says.
    pub deliver: Option<Deliver>,
    /// When nobody wants to know any more, in seconds since 1970. `None`: a day after this block.
    pub expires: Option<u64>,
}

impl Webhook {
    /// This document for this destination, with everything else as the host has it.
    pub fn new(destination: &str, body: &Value) -> Webhook {
        Webhook {
            destination: destination.to_owned(),
            key: None,
            body: body.to_string(),
            deliver: None,
            expires: None,
        }
    }
}

/// When an effect may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deliver {
    /// As soon as the record that asked for it is durable.
    Instant,
    /// When so many blocks follow the one that asked for it.
    Confirmations(u32),
    /// When the chain calls that block final.
    Finalized,
}

/// What an effect was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EffectKey {
    /// An order, named by its UID.
    Order(Uid),
    /// A webhook, named by the key it was sent under.
    Webhook(String),
}

/// What came of one effect of this lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The effect.
    pub key: EffectKey,
    /// What came of it.
    pub result: EffectResult,
    /// The block that asked for it has been taken back since. The effect is real all the same,
    /// but nothing in the state speaks of it any more.
    pub abandoned: bool,
}

/// What came of an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EffectResult {
    /// The receiver took it.
    Accepted,
    /// The receiver had it already, from an earlier attempt or from someone else.
    AlreadyThere,
    /// The receiver does not take it as it is. For an order,
    /// [`refusal::action`](crate::cow::refusal::action) says what to do.
    Refused(Refusal),
    /// Its deadline passed before there was an answer.
    Expired,
    /// It was given up before it was sent: by an operator, with the reason.
    Cancelled(String),
    /// Nothing was sent, because this chain is in dry run.
    DryRun,
}

/// The receiver said no.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status. Never 5xx: that is no answer, and the sender tries again.
    pub status: u16,
    /// `errorType` of the orderbook's envelope, when the answer has one.
    pub error_type: Option<String>,
    /// `description` of the envelope, else the start of the body; at most 1 KiB.
    pub description: String,
    /// The whole body, at most 8 KiB.
    pub body: Vec<u8>,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
}

impl Refusal {
    /// For the operator: `InsufficientBalance: order owner must have funds…`, or the status.
    pub fn reason(&self) -> String {
        match (&self.error_type, self.description.as_str()) {
            (Some(error_type), "") => error_type.clone(),
            (Some(error_type), description) => format!("{error_type}: {description}"),
            (None, "") => format!("status {}", self.status),
            (None, description) => format!("status {}: {description}", self.status),
        }
    }
}

impl Outcome {
    /// A line for the operator. It is a warning that an effect is real which nothing in the state
    /// speaks of any more.
    ///
    /// ```
    /// use shepherd_sdk::{EffectKey, EffectResult, Level, Outcome, Refusal};
    ///
    /// let outcome = Outcome {
    ///     key: EffectKey::Webhook("low-water/7".to_owned()),
    ///     result: EffectResult::Refused(Refusal { status: 401, ..Refusal::default() }),
    ///     abandoned: false,
    /// };
    /// let line = "webhook low-water/7 was refused: status 401";
    /// assert_eq!(outcome.line(), (Level::Error, line.to_owned()));
    /// ```
    pub fn line(&self) -> (Level, String) {
        let arrived = if self.abandoned { Level::Warn } else { Level::Debug };
        let (level, what) = match &self.result {
            EffectResult::Accepted => (arrived, "was accepted".to_owned()),
            EffectResult::AlreadyThere => (arrived, "was there already".to_owned()),
            EffectResult::Refused(refusal) => {
                (Level::Error, format!("was refused: {}", refusal.reason()))
            }
            EffectResult::Expired => {
                (Level::Warn, "was given up: there was no answer in time".to_owned())
            }
            EffectResult::Cancelled(reason) => (Level::Warn, format!("was given up: {reason}")),
            EffectResult::DryRun => (Level::Info, "was not sent: this is a dry run".to_owned()),
        };
        let taken_back = match self.abandoned {
            true => ". The block that asked for it has been taken back",
            false => "",
        };
        (level, format!("{} {what}{taken_back}", self.key))
    }

    /// Tells the operator what came of it, as [`Outcome::line`] says it.
    pub fn tell(&self, host: &mut impl Host) {
        let (level, line) = self.line();
        host.log(level, &line);
    }
}

impl fmt::Display for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EffectKey::Order(uid) => write!(f, "order {uid}"),
            EffectKey::Webhook(key) => write!(f, "webhook {key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_came_of_an_effect_and_matters_when_it_did_not_arrive() {
        let check = |result: EffectResult, level, line: &str| {
            let key = EffectKey::Webhook("k".to_owned());
            let outcome = Outcome { key, result, abandoned: false };
            assert_eq!(outcome.line(), (level, line.to_owned()));
            let abandoned = Outcome { abandoned: true, ..outcome }.line();
            let line = format!("{line}. The block that asked for it has been taken back");
            let level = if level == Level::Debug { Level::Warn } else { level };
            assert_eq!(abandoned, (level, line));
        };
        check(EffectResult::Accepted, Level::Debug, "webhook k was accepted");
        check(EffectResult::AlreadyThere, Level::Debug, "webhook k was there already");
        let refusal = Refusal { status: 404, ..Refusal::default() };
        let line = "webhook k was refused: status 404";
        check(EffectResult::Refused(refusal), Level::Error, line);
        let line = "webhook k was given up: there was no answer in time";
        check(EffectResult::Expired, Level::Warn, line);
        let cancelled = EffectResult::Cancelled("too late".to_owned());
        check(cancelled, Level::Warn, "webhook k was given up: too late");
        check(EffectResult::DryRun, Level::Info, "webhook k was not sent: this is a dry run");
    }

    #[test]
    fn a_refusal_says_what_it_knows() {
        let check = |error_type: Option<&str>, description: &str, reason: &str| {
            let refusal = Refusal {
                status: 400,
                error_type: error_type.map(str::to_owned),
                description: description.to_owned(),
                ..Refusal::default()
            };
            assert_eq!(refusal.reason(), reason);
        };
        check(Some("WrongOwner"), "not yours", "WrongOwner: not yours");
        check(Some("WrongOwner"), "", "WrongOwner");
        check(None, "gateway", "status 400: gateway");
        check(None, "", "status 400");
    }
}
