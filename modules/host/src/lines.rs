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
    for c in text.chars() {
        let before = escaped.len();
        if c.is_control() || turns_direction(c) {
            write!(escaped, "{}", c.escape_debug()).expect("a string takes everything");
        } else {
            escaped.push(c);
        }
        if escaped.len() > bytes_max - CUT.len() && text.len() > bytes_max - CUT.len() {
            escaped.truncate(before);
            escaped.push_str(CUT);
            return escaped;
        }
    }
    escaped
}

fn turns_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
