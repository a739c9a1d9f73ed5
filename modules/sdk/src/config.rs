//! Configuration values that JSON has no type for.

use alloy_primitives::U256;
use serde::{Deserialize, Deserializer, de};

/// The configuration of a module that has none: any key is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// A 256-bit amount as a decimal string: `#[serde(deserialize_with = "shepherd_sdk::config::decimal")]`.
///
/// JSON numbers lose digits beyond 2⁵³ on the way through many tools, so they are not accepted.
pub fn decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<U256, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = digits.then(|| U256::from_str_radix(&text, 10).ok()).flatten();
    let invalid = || de::Error::custom(format!("`{text}` is not an amount: write decimal digits"));
    parsed.ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Amount(#[serde(deserialize_with = "decimal")] U256);

    fn check(json: &str, expected: Option<U256>) {
        let amount = serde_json::from_str::<Amount>(json).ok();
        assert_eq!(amount.map(|Amount(wei)| wei), expected, "{json}");
    }

    #[test]
    fn an_amount_is_decimal_digits_in_a_string() {
        check(r#""0""#, Some(U256::ZERO));
        check(r#""1000000000000000000""#, Some(U256::from(10).pow(U256::from(18))));
        check(&format!("\"{}\"", U256::MAX), Some(U256::MAX));
        for bad in [r#""""#, r#""-1""#, r#""0x10""#, r#""1e18""#, r#"" 1""#, "1"] {
            check(bad, None);
        }
        let beyond = format!("\"{}0\"", U256::MAX);
        check(&beyond, None);
    }
}
