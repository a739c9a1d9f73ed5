//! A call of a webhook, checked, and the key it goes under.

use std::collections::BTreeSet;

use serde::de::IgnoredAny;
use shepherd_log::{Deliver, Digest, Effect, EffectKey, LaneId};

use crate::{
    fault::{BadRequest, Fault, OutputTooLarge},
    limits::{WEBHOOK_BODY_BYTES_MAX, WEBHOOK_KEY_BYTES_MAX},
    lines::escape,
    occasion::Occasion,
};

/// Longest piece of a module's text in a fault about it.
const QUOTED_BYTES_MAX: usize = 200;

/// What a module hands over, with what it left open filled in.
#[derive(Clone, Debug)]
pub(crate) struct Webhook {
    pub(crate) destination: String,
    pub(crate) key: String,
    pub(crate) body: String,
    pub(crate) deliver: Deliver,
    pub(crate) expires: u64,
}

impl Webhook {
    /// The call as an effect, if it goes where the manifest allows.
    pub(crate) fn effect(self, allowed: &BTreeSet<String>) -> Result<Effect, Fault> {
        let Webhook { destination, key, body, deliver, expires } = self;
        if !allowed.contains(&destination) {
            let destination = escape(&destination, QUOTED_BYTES_MAX);
            return Err(BadRequest::Destination { destination }.into());
        }
        let printable = key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !printable || !(1..=WEBHOOK_KEY_BYTES_MAX).contains(&key.len()) {
            let key = escape(&key, QUOTED_BYTES_MAX);
            return Err(BadRequest::WebhookKey { key }.into());
        }
        if body.len() > WEBHOOK_BODY_BYTES_MAX {
            return Err(OutputTooLarge::WebhookBody { bytes: body.len() }.into());
        }
        if let Err(error) = serde_json::from_str::<IgnoredAny>(&body) {
            return Err(BadRequest::NotJson { reason: error.to_string() }.into());
        }
        let key = EffectKey::Webhook { destination, key };
        Ok(Effect { key, body: body.into_bytes(), deliver, expires })
    }
}

/// The key of a webhook whose module names none: hex of BLAKE3 over "shepherd webhook 1\0", the
/// lane, a zero, the occasion, and the position among the effects of the call as a u32.
///
/// A record may be handled in several calls; they differ in their occasion.
pub(crate) fn derived_key(lane: &LaneId, occasion: &Occasion, position: u32) -> String {
    let mut bytes = b"shepherd webhook 1\0".to_vec();
    bytes.extend(lane.to_string().as_bytes());
    bytes.push(0);
    bytes.extend(occasion.bytes());
    bytes.extend(position.to_be_bytes());
    hex::encode(Digest::of(&bytes).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook() -> Webhook {
        Webhook {
            destination: "alerts".to_owned(),
            key: "price 7".to_owned(),
            body: r#"{"text":"é"}"#.to_owned(),
            deliver: Deliver::Finalized,
            expires: 5,
        }
    }

    fn called(webhook: Webhook) -> Result<Effect, Fault> {
        webhook.effect(&BTreeSet::from(["alerts".to_owned()]))
    }

    #[test]
    fn a_webhook_goes_out_as_it_was_handed_over() {
        let effect = called(webhook()).unwrap();
        let key = EffectKey::Webhook { destination: "alerts".into(), key: "price 7".into() };
        let body = r#"{"text":"é"}"#.as_bytes().to_vec();
        assert_eq!(effect, Effect { key, body, deliver: Deliver::Finalized, expires: 5 });
    }

    #[test]
    fn a_webhook_that_cannot_be_sent_is_refused() {
        let check = |change: fn(&mut Webhook), fault: &str| {
            let mut changed = webhook();
            change(&mut changed);
            let refused = called(changed).unwrap_err().to_string();
            assert!(refused.contains(fault), "{refused}");
        };
        check(|it| it.destination = "alert".into(), "`alert` is not among `webhooks`");
        check(|it| it.destination = "\x1b".into(), r"`\u{1b}` is not among");
        check(|it| it.key = String::new(), "1 to 128 printable");
        check(|it| it.key = "k".repeat(129), "1 to 128 printable");
        check(|it| it.key = "a\r\nX-Injected: 1".into(), r"`a\r\nX-Injected: 1` is no webhook key");
        check(|it| it.key = "é".into(), "1 to 128 printable");
        check(|it| it.body = String::new(), "not JSON: EOF");
        check(|it| it.body = "{} {}".into(), "not JSON: trailing");
        check(|it| it.body = "{'a':1}".into(), "not JSON: key must be a string");
        check(|it| it.body = format!("\"{}\"", "x".repeat(64 << 10)), "65538 bytes; at most 65536");

        let mut longest = webhook();
        longest.key = "k".repeat(128);
        longest.body = format!("\"{}\"", "x".repeat((64 << 10) - 2));
        called(longest).expect("as long as can be");
    }
}
