//! The summary of a verification: a small file that can be signed off and held against later.
//!
//! ```text
//! verify ──▶ summary.json ──▶ a person signs `digest`
//!                │
//!                └──▶ verify --against summary.json: the same records, still there
//! ```
//!
//! `digest` is the blake3 of the file's own content, written as compact JSON in the order of the
//! file and without `digest` itself: `jq -c 'del(.digest)' FILE | tr -d '\n' | b3sum`.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use shepherd_admin::view::{BlockRefView, OffsetView};

use crate::exit::{Code, Problem, file_problem};

/// What the file is, and which version of it.
const KIND: &str = "shepherd-verification/1";

/// What was verified, with a digest over all of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// What was verified.
    #[serde(flatten)]
    pub content: Content,
    /// blake3 of the content as compact JSON.
    pub digest: String,
}

/// What was verified.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Content {
    /// What the file is: [`KIND`].
    pub kind: String,
    /// The program's version.
    pub version: String,
    /// When the verification ended.
    pub time: String,
    /// The chain's name.
    pub chain: String,
    /// Its `eth_chainId`.
    pub chain_id: u64,
    /// How much of each block was recomputed.
    pub trust: String,
    /// The first record.
    pub from: OffsetView,
    /// The first record that is not included.
    pub to: OffsetView,
    /// How many records there are.
    pub records: u64,
    /// How many of them are blocks.
    pub blocks: u64,
    /// How many are reverts.
    pub reverts: u64,
    /// How many are outcomes of effects.
    pub outcomes: u64,
    /// Logs in all blocks, abandoned ones included.
    pub logs: u64,
    /// Size of the records before compression.
    pub bytes: u64,
    /// The chain's head after the last record.
    pub head: Option<BlockRefView>,
    /// Digest of the last record, which is chained over all before it.
    pub range_digest: String,
    /// How many records did not hold.
    pub problems: u64,
}

impl Content {
    /// The kind that this version writes.
    pub fn kind() -> String {
        KIND.to_owned()
    }

    fn digest(&self) -> String {
        let text = serde_json::to_vec(self).expect("a struct of plain values");
        format!("0x{}", blake3::hash(&text).to_hex())
    }
}

impl Summary {
    /// The summary of a verification.
    pub fn new(content: Content) -> Summary {
        Summary { digest: content.digest(), content }
    }

    /// Writes the file, over an earlier one.
    pub fn write(&self, file: &Path) -> Result<(), Problem> {
        let mut text = serde_json::to_string_pretty(self).expect("a struct of plain values");
        text.push('\n');
        fs::write(file, text).map_err(|error| file_problem(Code::Failed, "write", file, &error))
    }

    /// Reads a file and checks that it is a summary that nobody changed.
    pub fn read(file: &Path) -> Result<Summary, Problem> {
        let text = fs::read(file)
            .map_err(|error| file_problem(Code::Failed, "read the summary", file, &error))?;
        let refused = |why: &str| {
            Problem::new(Code::Failed, format!("{} {why}", file.display()))
                .help("write a new one with `shepherd journal verify --summary FILE`")
        };
        let summary: Summary = serde_json::from_slice(&text)
            .map_err(|error| refused(&format!("is not the summary of a verification: {error}")))?;
        if summary.content.kind != KIND {
            let kind = &summary.content.kind;
            return Err(refused(&format!("is a `{kind}`, this version reads `{KIND}`")));
        }
        if summary.content.digest() != summary.digest {
            return Err(refused("was changed: its digest is not that of its content"));
        }
        Ok(summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        Summary::new(Content {
            kind: Content::kind(),
            version: "0.1.0".to_owned(),
            time: "2026-11-24T12:00:00Z".to_owned(),
            chain: "devnet".to_owned(),
            chain_id: 31337,
            trust: "bloom".to_owned(),
            from: OffsetView(0),
            to: OffsetView(9),
            records: 9,
            blocks: 9,
            reverts: 0,
            outcomes: 0,
            logs: 4,
            bytes: 1000,
            head: None,
            range_digest: "0x01".to_owned(),
            problems: 0,
        })
    }

    #[test]
    fn a_summary_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("summary.json");
        summary().write(&file).unwrap();
        assert_eq!(Summary::read(&file), Ok(summary()));
    }

    #[test]
    fn no_changed_digit_goes_unnoticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("summary.json");
        let text = serde_json::to_string_pretty(&summary()).unwrap();
        for (at, _) in text.match_indices(|c: char| c.is_ascii_digit()) {
            let digit = if &text[at..at + 1] == "7" { "8" } else { "7" };
            let changed = format!("{}{digit}{}", &text[..at], &text[at + 1..]);
            fs::write(&file, &changed).unwrap();
            assert!(Summary::read(&file).is_err(), "{changed}");
        }
    }
}
