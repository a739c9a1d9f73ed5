//! What-ifs as people write them.

use std::{fmt, io::BufRead, str::FromStr};

use alloy_primitives::{Address, B256, Bytes};
use serde::Deserialize;

use super::{DropLogs, INJECTED, Inject, ReorgAt, Replacements};

/// Text that is no what-if.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: write {expected}")]
pub struct InvalidWhatIf {
    /// The text.
    pub text: String,
    /// What it should be.
    pub what: &'static str,
    /// How that is written.
    pub expected: &'static str,
}

/// Logs to inject that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// The file cannot be read.
    #[error("the logs to inject cannot be read")]
    Io(#[from] std::io::Error),
    /// A line is no log.
    #[error(
        "line {line} is no log to inject: {reason}. Write {{\"block\":7,\"address\":\"0x…\",\
         \"topics\":[\"0x…\"],\"data\":\"0x…\"}}, and `transaction_hash` if it matters"
    )]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InjectLine {
    block: u64,
    address: Address,
    topics: Vec<B256>,
    data: Bytes,
    transaction_hash: Option<B256>,
}

impl Inject {
    /// Reads JSON lines, one log each; empty lines are passed over.
    pub fn read(lines: impl BufRead) -> Result<Vec<Inject>, InjectError> {
        let mut inject = Vec::new();
        for (text, line) in lines.lines().zip(1..) {
            let text = text?;
            if text.trim().is_empty() {
                continue;
            }
            let wrong = |reason| InjectError::Line { line, reason };
            let log: InjectLine =
                serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
            if log.topics.len() > 4 {
                return Err(wrong("a log has at most four topics".to_owned()));
            }
            inject.push(Inject {
                block: log.block,
                address: log.address,
                topics: log.topics,
                data: log.data,
                transaction_hash: log.transaction_hash.unwrap_or(INJECTED),
            });
        }
        Ok(inject)
    }
}

impl FromStr for ReorgAt {
    type Err = InvalidWhatIf;

    fn from_str(text: &str) -> Result<ReorgAt, InvalidWhatIf> {
        let invalid = || InvalidWhatIf {
            text: text.to_owned(),
            what: "a reorg",
            expected: "BLOCK:DEPTH or BLOCK:DEPTH:empty, with a depth of at least 1",
        };
        let mut parts = text.split(':');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let block = number().ok_or_else(invalid)?;
        let depth = number().filter(|depth| *depth > 0).ok_or_else(invalid)?;
        let replacements = match (parts.next(), parts.next()) {
            (None, None) => Replacements::SameLogs,
            (Some("empty"), None) => Replacements::Empty,
            _ => return Err(invalid()),
        };
        Ok(ReorgAt { block, depth, replacements })
    }
}

impl fmt::Display for ReorgAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.block, self.depth)?;
        match self.replacements {
            Replacements::SameLogs => Ok(()),
            Replacements::Empty => f.write_str(":empty"),
        }
    }
}

impl FromStr for DropLogs {
    type Err = InvalidWhatIf;

    fn from_str(text: &str) -> Result<DropLogs, InvalidWhatIf> {
        let invalid = || InvalidWhatIf {
            text: text.to_owned(),
            what: "a choice of logs",
            expected: "address=0x…, topic0=0x…, blocks=FIRST..LAST, any of them, with commas",
        };
        let mut drop = DropLogs { address: None, topic0: None, blocks: 0..=u64::MAX };
        let mut named = Vec::new();
        for part in text.split(',') {
            let (name, value) = part.trim().split_once('=').ok_or_else(invalid)?;
            if named.contains(&name) {
                return Err(invalid());
            }
            named.push(name);
            match name {
                "address" => drop.address = Some(value.parse().map_err(|_| invalid())?),
                "topic0" => drop.topic0 = Some(value.parse().map_err(|_| invalid())?),
                "blocks" => {
                    let (first, last) = value.split_once("..").unwrap_or((value, value));
                    let number = |text: &str| text.parse().map_err(|_| invalid());
                    drop.blocks = number(first)?..=number(last)?;
                    if drop.blocks.is_empty() {
                        return Err(invalid());
                    }
                }
                _ => return Err(invalid()),
            }
        }
        Ok(drop)
    }
}

impl fmt::Display for DropLogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.address.map(|address| format!("address={address}")));
        parts.extend(self.topic0.map(|topic| format!("topic0={topic}")));
        if self.blocks != (0..=u64::MAX) {
            parts.push(format!("blocks={}..{}", self.blocks.start(), self.blocks.end()));
        }
        f.write_str(&parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reorgs_and_drops_are_read_as_they_are_written() {
        for text in ["7:1", "100:64:empty"] {
            assert_eq!(text.parse::<ReorgAt>().unwrap().to_string(), text);
        }
        for text in ["", "7", "7:0", "7:1:full", "7:1:empty:", "x:1", "7:-1"] {
            let error = text.parse::<ReorgAt>().unwrap_err().to_string();
            assert!(error.contains("BLOCK:DEPTH"), "{text}: {error}");
        }
        let (address, topic) = (Address::repeat_byte(1), B256::repeat_byte(2));
        for text in [
            format!("address={address}"),
            format!("topic0={topic}"),
            format!("address={address},topic0={topic},blocks=3..9"),
            "blocks=5..5".to_owned(),
        ] {
            assert_eq!(text.parse::<DropLogs>().unwrap().to_string(), text);
        }
        assert_eq!("blocks=5".parse::<DropLogs>().unwrap().blocks, 5..=5);
        for text in ["", "0x01", "blocks=9..3", "blocks=1,blocks=2", "topic1=0x00", "address=0x1"] {
            let error = text.parse::<DropLogs>().unwrap_err().to_string();
            assert!(error.contains("blocks=FIRST..LAST"), "{text}: {error}");
        }
    }

    #[test]
    fn logs_to_inject_are_read_line_by_line() {
        let address = Address::repeat_byte(1);
        let good = format!(
            "{{\"block\":7,\"address\":\"{address}\",\"topics\":[],\"data\":\"0x01\"}}\n\n"
        );
        let read = Inject::read(good.as_bytes()).unwrap();
        let expected = Inject {
            block: 7,
            address,
            topics: vec![],
            data: Bytes::from_static(&[1]),
            transaction_hash: INJECTED,
        };
        assert_eq!(read, [expected]);
        for bad in ["{}", "{\"block\":7,\"adress\":\"0x\"}", "["] {
            let error = Inject::read(format!("{good}{bad}\n").as_bytes()).unwrap_err();
            assert!(matches!(error, InjectError::Line { line: 3, .. }), "{error}");
        }
    }
}
