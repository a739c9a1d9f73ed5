//! Values with a notation of their own: durations, sizes, and where in a chain something begins.
//!
//! The configuration and the command line read the same text by the same functions, and both
//! show what these say when it is wrong.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp, civil, tz::TimeZone};
use shepherd_ingest::Start;

use super::reader::Wrong;

/// A duration longer than zero, such as `500ms`, `2h` or `30d`. A day has 24 hours.
pub fn duration(text: &str) -> Result<Duration, Wrong> {
    let wrong = || {
        Wrong::new(format!("`{text}` is not a duration"))
            .help("write a number and a unit, for example \"500ms\", \"2h\" or \"30d\"")
    };
    let span: Span = text.parse().map_err(|_| wrong())?;
    let days = SpanRelativeTo::days_are_24_hours();
    let duration: SignedDuration = span.to_duration(days).map_err(|_| {
        Wrong::new(format!("`{text}` has no fixed length")).help("write it in weeks or days")
    })?;
    Duration::try_from(duration)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| Wrong::new(format!("`{text}` is not longer than zero")))
}

/// A number of bytes from 1 MiB, such as `500MB` or `50GiB`.
pub fn size(text: &str) -> Result<u64, Wrong> {
    let help = "write a number and a unit, for example \"500MB\" or \"50GiB\"";
    let size: ByteSize =
        text.parse().map_err(|_| Wrong::new(format!("`{text}` is not a size")).help(help))?;
    if size < ByteSize::mib(1) {
        return Err(Wrong::new(format!("`{text}` is less than a mebibyte")).help(help));
    }
    Ok(size.as_u64())
}

/// A place in a chain: a block number, `latest`, an age such as `-7d`, a day in UTC, or a time.
pub fn start(text: &str) -> Result<Start, Wrong> {
    let text = text.trim();
    if text == "latest" {
        return Ok(Start::Latest);
    }
    if let Some(age) = text.strip_prefix('-') {
        return duration(age).map(Start::Ago);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_') {
        let number = text.replace('_', "").parse();
        return number.map(Start::Block).map_err(|_| not_a_start(text));
    }
    let has_time = text.contains(['T', 't', ' ']);
    let time = if has_time { text.parse::<Timestamp>().ok() } else { midnight(text) };
    let Some(time) = time else {
        if text.parse::<civil::DateTime>().is_ok() && has_time {
            return Err(Wrong::new(format!("`{text}` does not say in which time zone"))
                .help(format!("write {text}Z for UTC, or an offset such as {text}+02:00")));
        }
        return Err(not_a_start(text));
    };
    let seconds = u64::try_from(time.as_second());
    seconds.map(Start::At).map_err(|_| Wrong::new(format!("`{text}` is before 1970")))
}

fn midnight(text: &str) -> Option<Timestamp> {
    let day: civil::Date = text.parse().ok()?;
    TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).ok()
}

fn not_a_start(text: &str) -> Wrong {
    Wrong::new(format!("`{text}` is not a place in a chain")).help(
        "write a block number, \"latest\", an age such as \"-7d\", a day such as \"2026-11-01\", \
         or a time such as \"2026-11-01T12:00:00Z\"",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn durations_have_units_and_a_fixed_length() {
        for (text, expected) in
            [("500ms", Duration::from_millis(500)), ("30d", 30 * DAY), ("1w 12h", 15 * DAY / 2)]
        {
            assert_eq!(duration(text).ok(), Some(expected), "{text}");
        }
        for (text, expected) in [
            ("30", "`30` is not a duration"),
            ("0s", "`0s` is not longer than zero"),
            ("-1d", "`-1d` is not longer than zero"),
            ("", "`` is not a duration"),
            ("1 month", "`1 month` has no fixed length"),
        ] {
            assert_eq!(duration(text).err().map(|wrong| wrong.message).as_deref(), Some(expected));
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("50GiB").ok(), Some(50 << 30));
        assert_eq!(size("1.5 GB").ok(), Some(1_500_000_000));
        for (text, expected) in [
            ("50", "`50` is less than a mebibyte"),
            ("1KiB", "`1KiB` is less than a mebibyte"),
            ("much", "`much` is not a size"),
            ("-1GB", "`-1GB` is not a size"),
        ] {
            assert_eq!(size(text).err().map(|wrong| wrong.message).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_start_is_a_number_an_age_or_a_time() {
        for (text, expected) in [
            ("0", Start::Block(0)),
            ("21_000_000", Start::Block(21_000_000)),
            ("latest", Start::Latest),
            ("-7d", Start::Ago(7 * DAY)),
            ("1970-01-02", Start::At(86_400)),
            ("1970-01-01T01:00:00+01:00", Start::At(0)),
            ("2023-11-14T22:13:20Z", Start::At(1_700_000_000)),
            ("2023-11-14 22:13:20Z", Start::At(1_700_000_000)),
        ] {
            assert_eq!(start(text).ok(), Some(expected), "{text}");
        }
        for (text, expected) in [
            ("7d", "`7d` is not a place in a chain"),
            ("-7", "`7` is not a duration"),
            ("yesterday", "`yesterday` is not a place in a chain"),
            ("2026-13-01", "`2026-13-01` is not a place in a chain"),
            ("2026-11-01T12:00:00", "`2026-11-01T12:00:00` does not say in which time zone"),
            ("1969-12-31", "`1969-12-31` is before 1970"),
            ("99999999999999999999", "`99999999999999999999` is not a place in a chain"),
            ("", "`` is not a place in a chain"),
        ] {
            assert_eq!(start(text).err().map(|wrong| wrong.message).as_deref(), Some(expected));
        }
    }
}
