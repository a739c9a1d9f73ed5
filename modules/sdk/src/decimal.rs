//! Decimal numbers, compared exactly.

use std::{cmp::Ordering, fmt, str::FromStr};

use alloy_primitives::{U256, U512};
use serde::{Deserialize, Deserializer, de};

/// A decimal number that is not negative: digits, and how many of them are behind the point.
///
/// Prices are compared with thresholds that people write. In binary floating point `0.1` is
/// another number, and eighteen decimals do not fit at all; here both sides are brought to the
/// same number of places, in 512 bits, so that nothing is lost.
///
/// ```
/// use shepherd_sdk::{Decimal, U256};
///
/// let threshold: Decimal = "1850.5".parse()?;
/// let price = Decimal::new(U256::from(185_050_000_000u64), 8)?;
/// assert_eq!(price, threshold);
/// assert!(Decimal::new(U256::from(185_049_999_999u64), 8)? < threshold);
/// assert_eq!(price.to_string(), "1850.50000000");
/// # Ok::<(), shepherd_sdk::decimal::InvalidDecimal>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    digits: U256,
    places: u8,
}

/// Most digits behind the point: 10^77 is the largest power of ten in 256 bits, and the product
/// of two such numbers fits into 512.
pub const PLACES_MAX: u8 = 77;

/// Text or a number of places that makes no decimal number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDecimal {
    /// Not digits with at most one point between them.
    #[error("`{0}` is not a decimal number: write digits, and a point between them if need be")]
    NotDecimal(String),
    /// More digits than 256 bits hold.
    #[error("`{0}` has too many digits")]
    TooLong(String),
    /// More than [`PLACES_MAX`].
    #[error("{0} decimals are more than {PLACES_MAX}")]
    TooManyPlaces(u8),
}

impl Decimal {
    /// Nothing.
    pub const ZERO: Decimal = Decimal { digits: U256::ZERO, places: 0 };

    /// `digits` divided by 10^`places`.
    pub fn new(digits: U256, places: u8) -> Result<Decimal, InvalidDecimal> {
        if PLACES_MAX < places {
            return Err(InvalidDecimal::TooManyPlaces(places));
        }
        Ok(Decimal { digits, places })
    }

    /// The sum, unless it has too many digits.
    pub fn checked_add(self, other: Decimal) -> Option<Decimal> {
        let places = self.places.max(other.places);
        let digits = self.digits_at(places)?.checked_add(other.digits_at(places)?)?;
        Some(Decimal { digits, places })
    }

    /// The difference, unless it is negative or has too many digits.
    pub fn checked_sub(self, other: Decimal) -> Option<Decimal> {
        let places = self.places.max(other.places);
        let digits = self.digits_at(places)?.checked_sub(other.digits_at(places)?)?;
        Some(Decimal { digits, places })
    }

    /// The same number with at least as many places as it has.
    fn digits_at(self, places: u8) -> Option<U256> {
        self.digits.checked_mul(power_of_ten(places - self.places))
    }
}

fn power_of_ten(exponent: u8) -> U256 {
    U256::from(10).pow(U256::from(exponent))
}

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> Ordering {
        let scaled = |one: &Decimal, other: &Decimal| -> U512 {
            one.digits.widening_mul(power_of_ten(other.places))
        };
        scaled(self, other).cmp(&scaled(other, self))
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Equal as numbers: 1.50 is 1.5.
impl PartialEq for Decimal {
    fn eq(&self, other: &Decimal) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decimal {}

impl FromStr for Decimal {
    type Err = InvalidDecimal;

    fn from_str(text: &str) -> Result<Decimal, InvalidDecimal> {
        let (whole, fraction) = match text.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (text, None),
        };
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !fraction.is_none_or(is_number) {
            return Err(InvalidDecimal::NotDecimal(text.to_owned()));
        }
        let fraction = fraction.unwrap_or("");
        let too_long = || InvalidDecimal::TooLong(text.to_owned());
        let places = u8::try_from(fraction.len()).map_err(|_| too_long())?;
        let digits = U256::from_str_radix(&[whole, fraction].concat(), 10);
        Decimal::new(digits.map_err(|_| too_long())?, places)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = usize::from(self.places);
        let digits = format!("{:0>1$}", self.digits.to_string(), places + 1);
        let (whole, fraction) = digits.split_at(digits.len() - places);
        if fraction.is_empty() { f.pad(whole) } else { f.pad(&format!("{whole}.{fraction}")) }
    }
}

/// From a string: JSON numbers are floating point in many tools.
impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn numbers_are_digits_with_at_most_one_point_between_them() {
        for text in ["0", "7", "007", "1850.50", "0.000000000000000001", "3.14"] {
            assert_eq!(decimal(text).to_string(), text.trim_start_matches("00"));
        }
        for bad in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", " 1", "1.2.3", "0x1", "١"] {
            let error = InvalidDecimal::NotDecimal(bad.to_owned());
            assert_eq!(bad.parse::<Decimal>(), Err(error), "{bad}");
        }
    }

    #[test]
    fn more_digits_than_fit_are_refused() {
        assert_eq!(decimal(&U256::MAX.to_string()).digits, U256::MAX);
        let long = format!("{}0", U256::MAX);
        assert_eq!(long.parse::<Decimal>(), Err(InvalidDecimal::TooLong(long)));
        let deepest = format!("0.{:0>77}", 1);
        assert_eq!(decimal(&deepest).digits, U256::from(1));
        let deeper = format!("0.{:0>78}", 1);
        assert_eq!(deeper.parse::<Decimal>(), Err(InvalidDecimal::TooManyPlaces(78)));
        let deepest = format!("0.{:0>300}", 1);
        assert_eq!(deepest.parse::<Decimal>(), Err(InvalidDecimal::TooLong(deepest)));
    }

    #[test]
    fn numbers_compare_as_numbers_whatever_their_places() {
        let check = |one: &str, other: &str, expected| {
            assert_eq!(decimal(one).cmp(&decimal(other)), expected, "{one} {other}");
            assert_eq!(decimal(other).cmp(&decimal(one)), expected.reverse(), "{one} {other}");
        };
        check("1.5", "1.50", Ordering::Equal);
        check("0", "0.000", Ordering::Equal);
        check("1.49999999", "1.5", Ordering::Less);
        check("2", "1.999999999999999999", Ordering::Greater);
        check("10", "9", Ordering::Greater);
        let most = U256::MAX.to_string();
        let least = format!("0.{:0>77}", 1);
        check(&most, &least, Ordering::Greater);
        check(&most, &most, Ordering::Equal);
        check("0", &least, Ordering::Less);
    }

    #[test]
    fn sums_and_differences_keep_every_digit_or_are_none() {
        assert_eq!(decimal("1.5").checked_add(decimal("0.25")), Some(decimal("1.75")));
        assert_eq!(decimal("1.5").checked_sub(decimal("0.25")), Some(decimal("1.25")));
        assert_eq!(decimal("0.25").checked_sub(decimal("1.5")), None);
        let most = Decimal::new(U256::MAX, 0).unwrap();
        assert_eq!(most.checked_add(decimal("1")), None);
        assert_eq!(most.checked_add(decimal("0.1")), None);
    }

    #[test]
    fn configuration_gives_decimals_as_strings() {
        assert_eq!(serde_json::from_str::<Decimal>(r#""1.5""#).unwrap(), decimal("1.5"));
        assert!(serde_json::from_str::<Decimal>("1.5").is_err());
    }
}
