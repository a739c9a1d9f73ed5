//! An order's fields, read back from the body that is sent.
//!
//! The body is the module's wish in the host's words, so a field that cannot be read is left out
//! rather than being an error: the report shows the body as well.

use serde_json::Value;

/// The fields people look for. All as they stand in the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    /// The owner.
    pub from: Option<String>,
    pub receiver: Option<String>,
    pub sell_token: Option<String>,
    pub buy_token: Option<String>,
    /// Decimal, in the token's smallest unit.
    pub sell_amount: Option<String>,
    pub buy_amount: Option<String>,
    /// Seconds since 1970.
    pub valid_to: Option<u32>,
    /// `sell` or `buy`.
    pub kind: Option<String>,
    pub partially_fillable: Option<bool>,
    pub signing_scheme: Option<String>,
    /// The document or its hash.
    pub app_data: Option<String>,
    pub app_data_hash: Option<String>,
}

impl Order {
    /// Reads the fields of a body. `None` when it is no JSON object.
    pub fn of(body: &[u8]) -> Option<Order> {
        let value: Value = serde_json::from_slice(body).ok()?;
        // Field by field: one of an unknown form does not hide the others.
        let object = value.as_object()?;
        let text = |name: &str| object.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Order {
            from: text("from"),
            receiver: text("receiver"),
            sell_token: text("sellToken"),
            buy_token: text("buyToken"),
            sell_amount: text("sellAmount"),
            buy_amount: text("buyAmount"),
            valid_to: object
                .get("validTo")
                .and_then(Value::as_u64)
                .and_then(|seconds| seconds.try_into().ok()),
            kind: text("kind"),
            partially_fillable: object.get("partiallyFillable").and_then(Value::as_bool),
            signing_scheme: text("signingScheme"),
            app_data: text("appData"),
            app_data_hash: text("appDataHash"),
        })
    }

    /// The hash of the app data that is signed.
    pub fn signed_app_data(&self) -> Option<&String> {
        self.app_data_hash.as_ref().or(self.app_data.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_cannot_be_read_hides_no_other() {
        let order = Order::of(br#"{"from":"0xaa","validTo":-1,"sellAmount":"7","kind":3}"#);
        let expected = Order {
            from: Some("0xaa".to_owned()),
            sell_amount: Some("7".to_owned()),
            ..Order::default()
        };
        assert_eq!(order, Some(expected));
        assert_eq!(Order::of(b"[]"), None);
        assert_eq!(Order::of(b"{"), None);
    }

    #[test]
    fn what_is_signed_is_the_hash_and_not_the_document() {
        let hash = Order::of(br#"{"appData":"0x11"}"#).unwrap();
        assert_eq!(hash.signed_app_data().unwrap(), "0x11");
        let document = Order::of(br#"{"appData":"{}","appDataHash":"0x22"}"#).unwrap();
        assert_eq!(document.signed_app_data().unwrap(), "0x22");
    }
}
