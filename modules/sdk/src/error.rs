//! Why a module gives up on a record.

use std::fmt;

/// A message for the operator: text, or any error with its causes, which `?` turns into it.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    /// An error with this message.
    pub fn new(message: impl fmt::Display) -> Error {
        Error(message.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Error {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Error(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<u8, Error> {
        if text.is_empty() {
            return Err(Error::new("nothing to parse"));
        }
        Ok(text.parse()?)
    }

    #[test]
    fn text_and_errors_become_a_message() {
        assert_eq!(parse("7"), Ok(7));
        assert_eq!(parse("").unwrap_err().to_string(), "nothing to parse");
        assert_eq!(parse("x").unwrap_err().to_string(), "invalid digit found in string");
    }
}
