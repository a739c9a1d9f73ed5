//! How the simulated orderbook shows an order, and the document it came with.

use alloy_primitives::{B256, hex, keccak256};
use serde_json::{Map, Value, json};
use shepherd_log::ORDER_UID_BYTES;

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It can be matched.
    Open,
    /// It was.
    Fulfilled,
    /// Its time is over.
    Expired,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Status::Open => "open",
            Status::Fulfilled => "fulfilled",
            Status::Expired => "expired",
        }
    }
}

/// When an order stops being valid, in seconds since 1970: its UID says so.
pub(crate) fn valid_to(uid: &[u8; ORDER_UID_BYTES]) -> u64 {
    let [.., a, b, c, d] = *uid;
    u32::from_be_bytes([a, b, c, d]).into()
}

/// The order as `GET /api/v1/orders/{uid}` answers it: what was posted, where it is known, and
/// where it stands.
pub(crate) fn view(
    uid: &[u8; ORDER_UID_BYTES],
    body: Option<&[u8]>,
    status: Status,
    created: u64,
) -> String {
    let posted: Option<Value> = body.and_then(|body| serde_json::from_slice(body).ok());
    let mut order = match posted {
        Some(Value::Object(posted)) => posted,
        _ => Map::new(),
    };
    let of_order = |order: &Map<String, Value>, field: &str| match status {
        Status::Fulfilled => order.get(field).cloned().unwrap_or(json!("0")),
        Status::Open | Status::Expired => json!("0"),
    };
    let (sold, bought) = (of_order(&order, "sellAmount"), of_order(&order, "buyAmount"));
    let document = order.get("appDataHash").is_some().then(|| order.remove("appData")).flatten();
    if let Some(document) = document {
        let hash = order.remove("appDataHash").unwrap_or_default();
        order.insert("appData".to_owned(), hash);
        order.insert("fullAppData".to_owned(), document);
    }
    let owner = hex::encode_prefixed(&uid[32..52]);
    order.remove("from");
    let known = json!({
        "uid": hex::encode_prefixed(uid),
        "owner": owner,
        "validTo": valid_to(uid),
        "status": status.as_str(),
        "creationDate": created_at(created),
        "class": "limit",
        "invalidated": false,
        "isLiquidityOrder": false,
        "executedSellAmount": sold,
        "executedSellAmountBeforeFees": sold,
        "executedBuyAmount": bought,
        "executedFeeAmount": "0",
        "executedFee": "0",
        "interactions": { "pre": [], "post": [] },
    });
    let Value::Object(known) = known else { unreachable!("written above") };
    order.extend(known);
    Value::Object(order).to_string()
}

/// The app-data document of this hash, when an order was posted with it.
pub(crate) fn document(body: &[u8], hash: B256) -> Option<String> {
    // Posted with its document, an order has the hash beside it.
    let text = std::str::from_utf8(body).ok()?;
    if !text.contains(&hash.to_string()) {
        return None;
    }
    let posted: Value = serde_json::from_str(text).ok()?;
    let document = posted.get("appData")?.as_str()?;
    (keccak256(document) == hash).then(|| document.to_owned())
}

fn created_at(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_shown_as_it_was_posted_and_with_where_it_stands() {
        let mut uid = [1; ORDER_UID_BYTES];
        uid[52..].copy_from_slice(&1_700_000_000u32.to_be_bytes());
        let body = json!({
            "sellAmount": "5", "buyAmount": "7", "from": "0x01", "kind": "sell",
            "appData": "{}", "appDataHash": keccak256("{}"),
        });
        let body = body.to_string().into_bytes();
        let shown = view(&uid, Some(&body), Status::Fulfilled, 1_600_000_000);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        for (field, expected) in [
            ("status", json!("fulfilled")),
            ("executedSellAmount", json!("5")),
            ("executedBuyAmount", json!("7")),
            ("sellAmount", json!("5")),
            ("validTo", json!(1_700_000_000)),
            ("owner", json!(format!("0x{}", "01".repeat(20)))),
            ("creationDate", json!("2020-09-13T12:26:40Z")),
            ("appData", json!(keccak256("{}"))),
            ("fullAppData", json!("{}")),
        ] {
            assert_eq!(shown[field], expected, "{field}");
        }
        assert_eq!(document(&body, keccak256("{}")), Some("{}".to_owned()));
        assert_eq!(document(&body, B256::ZERO), None);

        let unknown: Value = serde_json::from_str(&view(&uid, None, Status::Open, 0)).unwrap();
        assert_eq!(
            (&unknown["status"], &unknown["executedSellAmount"]),
            (&json!("open"), &json!("0"))
        );
        let hash_only = json!({ "appData": B256::ZERO }).to_string();
        assert_eq!(document(hash_only.as_bytes(), B256::ZERO), None);
    }
}
