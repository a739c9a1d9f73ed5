//! Numbers, times and hashes as people read them.

use jiff::Timestamp;

/// Groups digits by three with a narrow space that does not break.
pub(crate) fn grouped(number: u64) -> String {
    group_digits(&number.to_string())
}

/// Groups the digits of a whole number of any length; other text stays as it is.
pub(crate) fn group_digits(digits: &str) -> String {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return digits.to_owned();
    }
    let mut text = String::with_capacity(digits.len() * 2);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A number in at most four digits: `1.23 M`.
pub(crate) fn short(number: f64) -> String {
    const UNITS: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    let mut value = number;
    let mut unit = 0;
    while value.abs() >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1_000.0;
        unit += 1;
    }
    let digits = match value.abs() {
        small if small < 9.995 && (unit > 0 || value.fract() != 0.0) => 2,
        middle if middle < 99.95 && (unit > 0 || value.fract() != 0.0) => 1,
        _ => 0,
    };
    let mut text = format!("{value:.digits$}");
    if text.contains('.') {
        text = text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    match UNITS[unit] {
        "" => text,
        unit => format!("{text}\u{a0}{unit}"),
    }
}

/// Bytes in units of 1024.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1_023.5 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    let digits = if unit > 0 && value < 9.95 { 1 } else { 0 };
    format!("{value:.digits$}\u{a0}{}", UNITS[unit])
}

/// A fraction as percent.
pub(crate) fn percent(fraction: f64) -> String {
    let value = fraction * 100.0;
    let digits = match value {
        0.0 => 0,
        small if small < 1.0 => 2,
        middle if middle < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$}\u{a0}%")
}

/// Microseconds as a duration.
pub(crate) fn micros(micros: u64) -> String {
    match micros {
        ..1_000 => format!("{micros}\u{a0}µs"),
        1_000..1_000_000 => format!("{}\u{a0}ms", decimal(micros as f64 / 1e3)),
        1_000_000..120_000_000 => format!("{}\u{a0}s", decimal(micros as f64 / 1e6)),
        _ => seconds(micros / 1_000_000),
    }
}

fn decimal(value: f64) -> String {
    let digits = match value {
        small if small < 9.995 => 2,
        middle if middle < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

/// Seconds as the two largest units: `6 d 23 h`.
pub(crate) fn seconds(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let first = UNITS.iter().position(|(size, _)| seconds >= *size).unwrap_or(UNITS.len() - 1);
    let (size, unit) = UNITS[first];
    let mut text = format!("{}\u{a0}{unit}", seconds / size);
    if let Some((smaller, unit)) = UNITS.get(first + 1) {
        let rest = seconds % size / smaller;
        if rest > 0 {
            text.push_str(&format!(" {rest}\u{a0}{unit}"));
        }
    }
    text
}

/// A time in UTC, to the second. Times beyond the calendar are shown as what they are.
pub(crate) fn time(seconds: u64) -> String {
    strftime(seconds, "%Y-%m-%d %H:%M:%S")
}

/// A time to the minute.
pub(crate) fn minute(seconds: u64) -> String {
    strftime(seconds, "%Y-%m-%d %H:%M")
}

pub(crate) fn strftime(seconds: u64, format: &str) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .map_or_else(|| format!("second {seconds}"), |time| time.strftime(format).to_string())
}

/// The ends of a long hex text: `0x1234…cdef`.
pub(crate) fn ends(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= 16 {
        return text.to_owned();
    }
    let start: String = chars[..6].iter().collect();
    let end: String = chars[chars.len() - 4..].iter().collect();
    format!("{start}…{end}")
}

/// An amount in a token's smallest unit, shortened to what a column holds: `1.5e18`.
pub(crate) fn amount(digits: &str) -> String {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return ends(digits);
    }
    let digits = digits.trim_start_matches('0');
    if digits.len() <= 7 {
        return if digits.is_empty() { "0".to_owned() } else { group_digits(digits) };
    }
    let exponent = digits.len() - 1;
    let mantissa = format!("{}.{}", &digits[..1], &digits[1..4]);
    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
    format!("{mantissa}e{exponent}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (7.0, "7"),
            (999.0, "999"),
            (1_000.0, "1 k"),
            (1_234.0, "1.23 k"),
            (50_400.0, "50.4 k"),
            (999_900.0, "1 M"),
            (2_500_000_000.0, "2.5 G"),
            (0.5, "0.5"),
        ];
        for (number, expected) in cases {
            assert_eq!(short(number).replace('\u{a0}', " "), expected);
        }
    }

    #[test]
    fn digits_are_grouped_by_three() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1 000"), (50_400_123, "50 400 123")];
        for (number, expected) in cases {
            assert_eq!(grouped(number).replace('\u{202f}', " "), expected);
        }
        assert_eq!(group_digits("-5"), "-5");
    }

    #[test]
    fn durations_have_two_units() {
        let cases = [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (604_788, "6 d 23 h")];
        for (value, expected) in cases {
            assert_eq!(seconds(value).replace('\u{a0}', " "), expected);
        }
        let cases = [(7, "7 µs"), (1_500, "1.50 ms"), (2_500_000, "2.50 s")];
        for (value, expected) in cases {
            assert_eq!(micros(value).replace('\u{a0}', " "), expected);
        }
    }

    #[test]
    fn sizes_and_shares() {
        let cases = [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (52_428_800, "50 MiB")];
        for (value, expected) in cases {
            assert_eq!(bytes(value).replace('\u{a0}', " "), expected);
        }
        let cases = [(0.0, "0 %"), (0.0012, "0.12 %"), (0.95123, "95.1 %"), (1.0, "100 %")];
        for (value, expected) in cases {
            assert_eq!(percent(value).replace('\u{a0}', " "), expected);
        }
    }

    #[test]
    fn times_are_utc_and_any_number_is_shown() {
        assert_eq!(time(1_790_000_000), "2026-09-21 14:13:20");
        assert_eq!(minute(0), "1970-01-01 00:00");
        assert_eq!(time(u64::MAX), "second 18446744073709551615");
    }

    #[test]
    fn long_texts_show_their_ends() {
        assert_eq!(ends("0x1234567890abcdef1234"), "0x1234…1234");
        assert_eq!(ends("short"), "short");
        let cases = [
            ("1500000000000000000", "1.5e18"),
            ("20000000", "2e7"),
            ("123", "123"),
            ("000", "0"),
            ("<b>", "<b>"),
        ];
        for (value, expected) in cases {
            assert_eq!(amount(value), expected);
        }
    }
}
