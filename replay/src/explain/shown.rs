//! Bytes and times as people read them.

use alloy_primitives::hex;

/// Bytes shown of something long. Enough to tell it apart.
const SHOWN_BYTES_MAX: usize = 96;

/// Bytes as text when they are text, else in hex.
pub fn bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && text.chars().all(|c| c == ' ' || c.is_ascii_graphic()) => {
            format!("{text:?}")
        }
        _ => hex::encode_prefixed(bytes),
    }
}

/// Bytes in hex, with what is too long for a line cut and marked.
pub fn hex_cut(all: &[u8]) -> String {
    match all.get(..SHOWN_BYTES_MAX) {
        Some(start) if all.len() > SHOWN_BYTES_MAX => {
            format!("{}… ({} bytes)", hex::encode_prefixed(start), all.len())
        }
        _ => hex::encode_prefixed(all),
    }
}

/// Seconds since 1970 as a date and a time, or `None` when no calendar has them.
pub fn time(seconds: u64) -> Option<String> {
    let seconds = i64::try_from(seconds).ok()?;
    Some(jiff::Timestamp::from_second(seconds).ok()?.to_string())
}

/// Milliseconds since 1970 as a date and a time.
pub fn time_millis(millis: u64) -> Option<String> {
    let millis = i64::try_from(millis).ok()?;
    Some(jiff::Timestamp::from_millisecond(millis).ok()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_as_text_and_everything_else_in_hex() {
        assert_eq!(bytes(b"total supply"), "\"total supply\"");
        assert_eq!(bytes(b"a\n"), "0x610a");
        assert_eq!(bytes(&[]), "0x");
        assert_eq!(bytes("é".as_bytes()), "0xc3a9");
        assert_eq!(hex_cut(&[0; 96]).len(), 2 + 192);
        assert!(hex_cut(&[b'a'; 97]).ends_with("61… (97 bytes)"));
    }

    #[test]
    fn times_that_no_calendar_has_are_not_shown() {
        assert_eq!(time(1_700_000_000).unwrap(), "2023-11-14T22:13:20Z");
        assert_eq!(time(u64::from(u32::MAX)).unwrap(), "2106-02-07T06:28:15Z");
        assert_eq!(time(u64::MAX), None);
        assert_eq!(time_millis(1_500).unwrap(), "1970-01-01T00:00:01.5Z");
    }
}
