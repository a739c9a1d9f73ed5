//! What a module says to the operator, within bounds.

use std::fmt::Write;

use crate::limits::{LINE_BYTES_MAX, LINES_BYTES_MAX, LINES_MAX};

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// For the module's author.
    Debug,
    /// Worth knowing.
    Info,
    /// Someone should look.
    Warn,
    /// Something failed.
    Error,
}

/// One line a module wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How much it matters.
    pub level: LogLevel,
    /// The text, with control characters escaped, so that it is one line on any terminal.
    pub message: String,
}

/// The lines of one record.
#[derive(Default)]
pub(crate) struct Lines {
    pub(crate) kept: Vec<LogLine>,
    pub(crate) dropped: u64,
    bytes: usize,
}

impl Lines {
    /// Keeps the line, or counts it when the record has said enough.
    pub(crate) fn push(&mut self, level: LogLevel, message: &str) {
        if self.kept.len() == LINES_MAX {
            self.dropped += 1;
            return;
        }
        let message = escape(message, LINE_BYTES_MAX);
        if self.bytes + message.len() > LINES_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        self.bytes += message.len();
        self.kept.push(LogLine { level, message });
    }
}

/// The text on one line: control characters and those that turn the writing direction are
/// escaped, and what goes beyond `bytes_max` is cut and marked.
///
/// A terminal obeys control characters, so a module could otherwise hide or forge lines.
pub(crate) fn escape(text: &str, bytes_max: usize) -> String {
    const CUT: &str = "… (cut)";
    let mut escaped = String::with_capacity(text.len().min(bytes_max));
    // Where to cut, should the text turn out to be too long.
    let mut cut_at = 0;
    for c in text.chars() {
        if escaped.len() + CUT.len() <= bytes_max {
            cut_at = escaped.len();
        }
        if c.is_control() || turns_direction(c) {
            write!(escaped, "{}", c.escape_debug()).expect("a string takes everything");
        } else {
            escaped.push(c);
        }
        if escaped.len() > bytes_max {
            escaped.truncate(cut_at);
            escaped.push_str(CUT);
            return escaped;
        }
    }
    escaped
}

fn turns_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_and_says_so_when_it_was_cut() {
        assert_eq!(escape("plain — text, \"quoted\"", 100), "plain — text, \"quoted\"");
        assert_eq!(escape("a\nb\u{1b}[0m\u{9b}\u{202e}", 100), r"a\nb\u{1b}[0m\u{9b}\u{202e}");
        for length in 0..200 {
            for text in ["x".repeat(length), "é".repeat(length), "\n".repeat(length)] {
                let escaped = escape(&text, 100);
                assert!(escaped.len() <= 100, "{escaped}");
                let whole = !escaped.ends_with("(cut)");
                assert_eq!(whole, escape(&text, 10_000) == escaped, "{escaped}");
            }
        }
    }

    #[test]
    fn lines_beyond_the_count_or_the_size_are_counted() {
        let mut many = Lines::default();
        (0..LINES_MAX + 5).for_each(|_| many.push(LogLevel::Info, "x"));
        assert_eq!((many.kept.len(), many.dropped), (LINES_MAX, 5));

        let mut large = Lines::default();
        let line = "x".repeat(LINE_BYTES_MAX + 1);
        (0..20).for_each(|_| large.push(LogLevel::Info, &line));
        assert_eq!((large.kept.len(), large.dropped), (8, 12));
        assert!(large.kept.iter().all(|line| line.message.len() <= LINE_BYTES_MAX));
    }
}
