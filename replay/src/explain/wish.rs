//! What an effect asks for, field by field.

use alloy_primitives::{Address, hex};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shepherd_log::{Deliver, Effect, EffectKey};

use crate::explain::{known, shown};

/// Members of an order's body in the order in which people ask about them.
const ORDER_FIELDS: [&str; 18] = [
    "kind",
    "sellToken",
    "sellAmount",
    "buyToken",
    "buyAmount",
    "validTo",
    "from",
    "receiver",
    "partiallyFillable",
    "feeAmount",
    "appData",
    "appDataHash",
    "quoteId",
    "sellTokenBalance",
    "buyTokenBalance",
    "signingScheme",
    "signature",
    "class",
];

/// What an effect asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// `order` or `webhook`.
    pub kind: String,
    /// The order's UID, or the webhook's key.
    pub key: String,
    /// Where a webhook goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// What is sent.
    pub body: Value,
    /// When it may leave.
    pub deliver: String,
    /// When nobody wants it any more, in seconds since 1970.
    pub expires: u64,
}

/// One field of a body, as people read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl From<&Effect> for Wish {
    fn from(effect: &Effect) -> Wish {
        let (kind, key, destination) = match &effect.key {
            EffectKey::Order(uid) => ("order", hex::encode_prefixed(uid), None),
            EffectKey::Webhook { destination, key } => {
                ("webhook", key.clone(), Some(destination.clone()))
            }
        };
        // A body that is not JSON cannot come out of the host. Should it, it is shown as it is.
        let body = serde_json::from_slice(&effect.body)
            .unwrap_or_else(|_| Value::String(shown::bytes(&effect.body)));
        let (kind, deliver) = (kind.to_owned(), deliver(effect.deliver));
        Wish { kind, key, destination, body, deliver, expires: effect.expires }
    }
}

impl Wish {
    /// What the receiver tells a repetition by.
    pub fn effect_key(&self) -> EffectKey {
        match &self.destination {
            Some(destination) => {
                let destination = destination.clone();
                EffectKey::Webhook { destination, key: self.key.clone() }
            }
            None => {
                let uid = hex::decode(&self.key).ok().and_then(|bytes| bytes.try_into().ok());
                EffectKey::Order(uid.expect("a wish without a destination is named by a UID"))
            }
        }
    }

    /// The body's members, in a readable order.
    pub fn fields(&self) -> Vec<Field> {
        let Value::Object(members) = &self.body else {
            return vec![Field { name: "body".to_owned(), value: self.body.to_string() }];
        };
        let rank = |name: &str| ORDER_FIELDS.iter().position(|known| *known == name);
        let mut names: Vec<&String> = members.keys().collect();
        names.sort_by_key(|name| rank(name).unwrap_or(ORDER_FIELDS.len()));
        let field =
            |name: &String| Field { name: name.clone(), value: words(name, &members[name]) };
        names.into_iter().map(field).collect()
    }

    /// What tells two wishes of the same key apart, field by field.
    pub fn differences(&self, other: &Wish) -> Vec<FieldDifference> {
        let all = |wish: &Wish| {
            let mut fields = wish.fields();
            fields.push(Field { name: "deliver".to_owned(), value: wish.deliver.clone() });
            fields.push(Field { name: "expires".to_owned(), value: wish.expires.to_string() });
            fields
        };
        let (ours, theirs) = (all(self), all(other));
        let value = |fields: &[Field], name: &str| {
            fields.iter().find(|field| field.name == name).map(|field| field.value.clone())
        };
        let mut names: Vec<&String> = ours.iter().map(|field| &field.name).collect();
        names.extend(theirs.iter().map(|field| &field.name));
        let mut differences: Vec<FieldDifference> = Vec::new();
        for name in names {
            let (a, b) = (value(&ours, name), value(&theirs, name));
            if a != b && differences.iter().all(|known| known.name != *name) {
                differences.push(FieldDifference { name: name.clone(), a, b });
            }
        }
        differences
    }
}

/// A field that two wishes have otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldDifference {
    /// Its name.
    pub name: String,
    /// In the first, when it has it.
    pub a: Option<String>,
    /// In the second, when it has it.
    pub b: Option<String>,
}

fn deliver(deliver: Deliver) -> String {
    match deliver {
        Deliver::Instant => "at once".to_owned(),
        Deliver::Confirmations(blocks) => format!("after {blocks} confirmations"),
        Deliver::Finalized => "once its block is final".to_owned(),
    }
}

fn words(name: &str, value: &Value) -> String {
    match value {
        Value::String(text) => match text.parse::<Address>() {
            Ok(address) => known::named(&address),
            Err(_) if name == "signature" => {
                hex::decode(text).map_or_else(|_| text.clone(), |bytes| shown::hex_cut(&bytes))
            }
            Err(_) => text.clone(),
        },
        Value::Number(number) if name == "validTo" => match number.as_u64().and_then(shown::time) {
            Some(time) => format!("{number} ({time})"),
            None => number.to_string(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(body: &str) -> Wish {
        let key = EffectKey::Order([7; 56]);
        let deliver = Deliver::Instant;
        Wish::from(&Effect { key, body: body.as_bytes().to_vec(), deliver, expires: 9 })
    }

    #[test]
    fn an_order_is_told_in_the_order_people_ask() {
        let wish = order(r#"{"appData":"{}","validTo":1700000000,"kind":"sell","zz":[1]}"#);
        let fields: Vec<String> =
            wish.fields().iter().map(|field| format!("{}={}", field.name, field.value)).collect();
        let expected =
            ["kind=sell", "validTo=1700000000 (2023-11-14T22:13:20Z)", "appData={}", "zz=[1]"];
        assert_eq!(fields, expected);
    }

    #[test]
    fn wishes_differ_in_what_they_have_otherwise_or_not_at_all() {
        let (a, b) = (order(r#"{"quoteId":1,"kind":"sell"}"#), order(r#"{"kind":"sell"}"#));
        let difference = |a: &Wish, b: &Wish| -> Vec<String> {
            a.differences(b).into_iter().map(|field| field.name).collect()
        };
        assert_eq!(difference(&a, &a), [""; 0]);
        assert_eq!(difference(&a, &b), ["quoteId"]);
        assert_eq!(difference(&b, &a), ["quoteId"]);
        let later = Wish { expires: 10, ..b.clone() };
        assert_eq!(difference(&b, &later), ["expires"]);
    }
}
