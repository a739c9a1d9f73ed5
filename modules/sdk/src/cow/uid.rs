//! The UID of an order: its digest, its owner, and the last second it is valid.

use std::{fmt, str::FromStr};

use alloy_primitives::{Address, B256, hex};

/// How an order is known everywhere: 56 bytes, as hex with `0x` in text.
///
/// ```
/// use shepherd_sdk::cow::uid::Uid;
///
/// let text = format!("0x{}{}{}", "11".repeat(32), "22".repeat(20), "00000007");
/// let uid: Uid = text.parse()?;
/// assert_eq!(uid.valid_to, 7);
/// assert_eq!(uid.to_string(), text);
/// assert_eq!(Uid::try_from(uid.to_bytes().as_slice())?, uid);
/// # Ok::<(), shepherd_sdk::cow::uid::InvalidUid>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid {
    /// What the owner signs.
    pub digest: B256,
    /// Who signs it. For a conditional order the contract that holds the funds, for EthFlow the
    /// EthFlow contract.
    pub owner: Address,
    /// The last second at which the order can be executed.
    pub valid_to: u32,
}

/// Bytes or text that are no UID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the UID of an order is 56 bytes, in text 112 hex digits after 0x")]
pub struct InvalidUid;

impl Uid {
    /// The bytes, as contracts and events carry them.
    pub fn to_bytes(self) -> [u8; 56] {
        let mut bytes = [0; 56];
        bytes[..32].copy_from_slice(self.digest.as_slice());
        bytes[32..52].copy_from_slice(self.owner.as_slice());
        bytes[52..].copy_from_slice(&self.valid_to.to_be_bytes());
        bytes
    }
}

impl TryFrom<&[u8]> for Uid {
    type Error = InvalidUid;

    fn try_from(bytes: &[u8]) -> Result<Uid, InvalidUid> {
        let (digest, rest) = bytes.split_first_chunk::<32>().ok_or(InvalidUid)?;
        let (owner, valid_to) = rest.split_first_chunk::<20>().ok_or(InvalidUid)?;
        let valid_to = valid_to.try_into().map_err(|_| InvalidUid)?;
        Ok(Uid {
            digest: digest.into(),
            owner: owner.into(),
            valid_to: u32::from_be_bytes(valid_to),
        })
    }
}

impl FromStr for Uid {
    type Err = InvalidUid;

    fn from_str(text: &str) -> Result<Uid, InvalidUid> {
        // The decoder takes digits with or without 0x; a UID has exactly one.
        let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 112);
        let digits = digits.ok_or(InvalidUid)?;
        let bytes: [u8; 56] = hex::decode_to_array(digits).map_err(|_| InvalidUid)?;
        Uid::try_from(bytes.as_slice())
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode_prefixed(self.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_56_bytes_and_nothing_else() {
        let uid = Uid {
            digest: B256::repeat_byte(0xd1),
            owner: Address::repeat_byte(0x0a),
            valid_to: 0x01020304,
        };
        let text = uid.to_string();
        assert_eq!(text, format!("0x{}{}01020304", "d1".repeat(32), "0a".repeat(20)));
        assert_eq!(text.parse(), Ok(uid));
        assert_eq!(text.to_uppercase().replace("0X", "0x").parse(), Ok(uid));
        assert_eq!(Uid::try_from(uid.to_bytes().as_slice()), Ok(uid));

        for length in [0, 31, 52, 55, 57] {
            assert_eq!(Uid::try_from(vec![0; length].as_slice()), Err(InvalidUid), "{length}");
        }
        for bad in ["", "0x", &text[2..], &text[..112], &format!("{text}00"), &format!("0x{text}")]
        {
            assert_eq!(bad.parse::<Uid>(), Err(InvalidUid), "{bad}");
        }
    }
}
