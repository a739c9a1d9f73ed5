//! What a receiver's answer means: decisions that look at the answer and nothing else.
//!
//! | answer | an order | a webhook |
//! |---|---|---|
//! | 201 with our UID | accepted | accepted |
//! | 201 with another UID | refused: it is not the order that was asked for | accepted |
//! | another 2xx | weather: no orderbook says that | accepted |
//! | 3xx | weather: redirects are not followed | weather |
//! | 4xx with `DuplicatedOrder` | already there | refused |
//! | 408, 429 | weather | weather |
//! | another 4xx | refused, with what it said | refused |
//! | 5xx, none | weather | weather |
//!
//! Weather is tried again. Everything else is an answer that a module may see.

use std::time::Duration;

use alloy_primitives::hex;
use serde::Deserialize;
use shepherd_log::{ORDER_UID_BYTES, Refusal};
use shepherd_rpc::{Failure, WebAnswer};

/// How much of a refusal's body a module is shown, in bytes.
pub(crate) const REFUSAL_BYTES_MAX: usize = 8 << 10;

/// Longest description of a refusal, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 1 << 10;

/// Longest `errorType`, in bytes: the orderbook's longest has 31.
const ERROR_TYPE_BYTES_MAX: usize = 128;

/// What came of sending an effect once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The receiver took it.
    Accepted,
    /// The receiver had it already.
    AlreadyThere,
    /// The receiver does not take it.
    Refused(Refusal),
    /// No answer that counts.
    Weather(Weather),
}

/// What came of asking the orderbook for an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// It has it.
    There,
    /// It does not know it.
    Unknown,
    /// No answer that counts.
    Weather(Weather),
}

/// Why there is no answer that counts, and what the receiver asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Weather {
    /// For people.
    pub reason: String,
    /// How long the receiver wants to be left alone.
    pub retry_after: Option<Duration>,
    /// What it said when it said that it is asked too often: then nothing was done. Without it
    /// the request may have been carried out, or may not even have arrived.
    pub limited: Option<Box<Refusal>>,
}

impl From<Failure> for Weather {
    fn from(failure: Failure) -> Weather {
        Weather { reason: failure.to_string(), retry_after: None, limited: None }
    }
}

impl Weather {
    fn of(answer: &WebAnswer) -> Weather {
        let WebAnswer { status, retry_after, .. } = *answer;
        let limited = (status == 429).then(|| Box::new(refusal(answer)));
        Weather { reason: format!("HTTP status {status}"), retry_after, limited }
    }
}

/// What a posted order was answered.
pub(crate) fn to_order(uid: &[u8; ORDER_UID_BYTES], answer: &WebAnswer) -> Answer {
    match answer.status {
        201 => match other_uid(uid, &answer.body) {
            None => Answer::Accepted,
            Some(other) => Answer::Refused(Refusal {
                description: format!("the orderbook placed it under another UID: {other}"),
                ..refusal(answer)
            }),
        },
        408 | 429 => Answer::Weather(Weather::of(answer)),
        400..500 => {
            let refusal = refusal(answer);
            match refusal.error_type.as_deref() {
                Some("DuplicatedOrder") => Answer::AlreadyThere,
                _ => Answer::Refused(refusal),
            }
        }
        _ => Answer::Weather(Weather::of(answer)),
    }
}

/// What a webhook was answered.
pub(crate) fn to_webhook(answer: &WebAnswer) -> Answer {
    match answer.status {
        200..300 => Answer::Accepted,
        408 | 429 => Answer::Weather(Weather::of(answer)),
        400..500 => Answer::Refused(refusal(answer)),
        _ => Answer::Weather(Weather::of(answer)),
    }
}

/// What the question for an order was answered.
pub(crate) fn to_lookup(answer: &WebAnswer) -> Lookup {
    match answer.status {
        200 => Lookup::There,
        404 => Lookup::Unknown,
        _ => Lookup::Weather(Weather::of(answer)),
    }
}

/// The UID that the orderbook says, when it is another one than ours: the order was hashed for
/// another settlement contract, so the orderbook is not the one of this chain.
fn other_uid(ours: &[u8; ORDER_UID_BYTES], body: &[u8]) -> Option<String> {
    let said: String = serde_json::from_slice(body).ok()?;
    let bytes = hex::decode(&said).ok().filter(|bytes| bytes.len() == ORDER_UID_BYTES)?;
    (bytes != ours).then(|| hex::encode_prefixed(bytes))
}

/// The orderbook's envelope of an error.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    error_type: String,
    #[serde(default)]
    description: String,
}

/// A no, with what was said about it.
fn refusal(answer: &WebAnswer) -> Refusal {
    let body = &answer.body[..answer.body.len().min(REFUSAL_BYTES_MAX)];
    let envelope: Option<Envelope> = serde_json::from_slice(body).ok();
    let (error_type, description) = match envelope {
        Some(Envelope { mut error_type, description }) => {
            cut(&mut error_type, ERROR_TYPE_BYTES_MAX);
            (Some(error_type), description)
        }
        None => (None, String::from_utf8_lossy(body).into_owned()),
    };
    let mut description = description;
    cut(&mut description, DESCRIPTION_BYTES_MAX);
    let seconds = |wait: Duration| u32::try_from(wait.as_secs()).unwrap_or(u32::MAX);
    Refusal {
        status: answer.status,
        error_type,
        description,
        body: body.to_vec(),
        retry_after: answer.retry_after.map(seconds),
    }
}

/// Cuts a text to so many bytes, at the end of a character.
fn cut(text: &mut String, bytes_max: usize) {
    text.truncate(text.floor_char_boundary(bytes_max));
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: [u8; ORDER_UID_BYTES] = [7; ORDER_UID_BYTES];

    fn answer(status: u16, body: &str) -> WebAnswer {
        let body = body.as_bytes().to_vec().into();
        WebAnswer { status, retry_after: None, body, is_cut: false }
    }

    /// One word for what an answer means.
    fn word(answer: &Answer) -> String {
        match answer {
            Answer::Accepted => "accepted".to_owned(),
            Answer::AlreadyThere => "already there".to_owned(),
            Answer::Refused(refusal) => {
                let error_type = refusal.error_type.as_deref().unwrap_or("-");
                format!("refused {} {error_type}: {}", refusal.status, refusal.description)
            }
            Answer::Weather(weather) => format!("weather: {}", weather.reason),
        }
    }

    #[test]
    fn answers_mean_what_the_table_says() {
        let ours = format!("\"{}\"", hex::encode_prefixed(UID));
        let theirs = format!("\"0x{}\"", "08".repeat(56));
        let duplicate = r#"{"errorType":"DuplicatedOrder","description":"order already exists"}"#;
        let no_money = r#"{"errorType":"InsufficientBalance","description":"no","data":{"a":1}}"#;
        for (status, body, order, webhook) in [
            (200, "", "weather: HTTP status 200", "accepted"),
            (201, ours.as_str(), "accepted", "accepted"),
            (201, "no JSON", "accepted", "accepted"),
            (
                201,
                theirs.as_str(),
                &*format!(
                    "refused 201 -: the orderbook placed it under another UID: 0x{}",
                    "08".repeat(56)
                ),
                "accepted",
            ),
            (204, "", "weather: HTTP status 204", "accepted"),
            (301, "", "weather: HTTP status 301", "weather: HTTP status 301"),
            (400, duplicate, "already there", "refused 400 DuplicatedOrder: order already exists"),
            (
                400,
                no_money,
                "refused 400 InsufficientBalance: no",
                "refused 400 InsufficientBalance: no",
            ),
            (400, "sorry", "refused 400 -: sorry", "refused 400 -: sorry"),
            (403, "", "refused 403 -: ", "refused 403 -: "),
            (404, "", "refused 404 -: ", "refused 404 -: "),
            (408, "", "weather: HTTP status 408", "weather: HTTP status 408"),
            (422, "[1]", "refused 422 -: [1]", "refused 422 -: [1]"),
            (429, "", "weather: HTTP status 429", "weather: HTTP status 429"),
            (500, no_money, "weather: HTTP status 500", "weather: HTTP status 500"),
            (503, duplicate, "weather: HTTP status 503", "weather: HTTP status 503"),
        ] {
            let answer = answer(status, body);
            assert_eq!(word(&to_order(&UID, &answer)), order, "an order: {status} {body}");
            assert_eq!(word(&to_webhook(&answer)), webhook, "a webhook: {status} {body}");
        }
    }

    #[test]
    fn only_a_404_says_that_an_order_is_unknown() {
        for status in [200, 204, 301, 400, 403, 404, 429, 500, 503] {
            let lookup = to_lookup(&answer(status, ""));
            match status {
                200 => assert_eq!(lookup, Lookup::There),
                404 => assert_eq!(lookup, Lookup::Unknown),
                _ => assert!(matches!(lookup, Lookup::Weather(_)), "{status}"),
            }
        }
    }

    #[test]
    fn what_a_refusal_says_is_kept_within_its_limits() {
        let long = "é".repeat(10_000);
        let refused = refusal(&WebAnswer {
            retry_after: Some(Duration::from_secs(u64::MAX)),
            ..answer(400, &long)
        });
        assert_eq!(refused.body.len(), REFUSAL_BYTES_MAX);
        assert_eq!(refused.description, "é".repeat(512));
        assert_eq!(refused.retry_after, Some(u32::MAX));
        let envelope = format!(r#"{{"errorType":"{}","description":"{}"}}"#, "e".repeat(200), "d");
        let refused = refusal(&answer(400, &envelope));
        assert_eq!(refused.error_type.map(|error_type| error_type.len()), Some(128));
        assert_eq!((refused.description.as_str(), refused.retry_after), ("d", None));
    }
}
