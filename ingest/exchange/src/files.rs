//! The files of a data set by their names, and whether together they cover a stretch of the chain.
//!
//! ```text
//! ethereum__blocks__00000000_to_00000999.parquet      NETWORK__TABLE__FIRST_to_LAST.parquet
//! ethereum__logs__mine__00001000_to_00001234.parquet  NETWORK__TABLE__LABEL__FIRST_to_LAST.parquet
//! ```
//!
//! The names are cryo's: both heights are included, with eight digits at least.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

/// A table of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// One row a block.
    Blocks,
    /// One row a log.
    Logs,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Table::Blocks => "blocks",
            Table::Logs => "logs",
        })
    }
}

/// The name of a table's file.
pub(crate) fn file_name(network: &str, table: Table, heights: &Range<u64>) -> String {
    let (first, last) = (heights.start, heights.end - 1);
    format!("{network}__{table}__{first:08}_to_{last:08}.parquet")
}

/// A file that by its name is part of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableFile {
    pub path: PathBuf,
    pub network: String,
    pub table: Table,
    /// The blocks it is about.
    pub heights: Range<u64>,
}

impl TableFile {
    /// Reads a file's name; `None` when it is not that of a table we know.
    pub fn from_name(path: &Path) -> Option<TableFile> {
        let name = path.file_name()?.to_str()?.strip_suffix(".parquet")?;
        let parts: Vec<&str> = name.split("__").collect();
        let ([network, table, heights] | [network, table, _, heights]) = parts[..] else {
            return None;
        };
        let table = match table {
            "blocks" => Table::Blocks,
            "logs" => Table::Logs,
            _ => return None,
        };
        let (first, last) = heights.split_once("_to_")?;
        let heights = first.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?;
        if network.is_empty() || heights.is_empty() {
            return None;
        }
        Some(TableFile { path: path.to_owned(), network: network.to_owned(), table, heights })
    }
}

/// Why files are not a data set.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file or folder cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The path in question.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that was named has another kind of name.
    #[error(
        "{path} is not named like a table: NETWORK__blocks__FIRST_to_LAST.parquet, or __logs__"
    )]
    NotATable {
        /// The file.
        path: PathBuf,
    },
    /// No logs at all.
    #[error("no file is named like one with logs: NETWORK__logs__FIRST_to_LAST.parquet")]
    NoLogs,
    /// Files of several networks.
    #[error("the files are of several networks, {}: name those of one", .networks.join(", "))]
    Networks {
        /// The networks.
        networks: Vec<String>,
    },
    /// Two files about the same blocks.
    #[error("{earlier} and {later} are both about block {number}")]
    Overlap {
        /// The one that begins earlier.
        earlier: PathBuf,
        /// The one that begins later.
        later: PathBuf,
        /// The first block they share.
        number: u64,
    },
    /// Blocks that no file is about.
    #[error("no file has the {table} of blocks {first} to {last}")]
    Missing {
        /// The table.
        table: Table,
        /// The first missing block.
        first: u64,
        /// The last one.
        last: u64,
    },
}

/// The files of a data set: both tables, each in order and without a gap, about the same blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    /// The blocks they are about.
    pub heights: Range<u64>,
    /// May be empty: then the headers come from elsewhere.
    pub blocks: Vec<TableFile>,
    pub logs: Vec<TableFile>,
}

impl Files {
    /// Finds the files among paths: of a folder all that are named like a table's, at any depth.
    pub fn find(paths: &[PathBuf]) -> Result<Files, FilesError> {
        let mut found = Vec::new();
        for path in paths {
            if fs::metadata(path).map_err(cannot_read(path))?.is_dir() {
                walk(path, &mut found)?;
            } else {
                let file = TableFile::from_name(path);
                found.push(file.ok_or_else(|| FilesError::NotATable { path: path.clone() })?);
            }
        }
        Files::of(found)
    }

    fn of(found: Vec<TableFile>) -> Result<Files, FilesError> {
        let networks: BTreeSet<&String> = found.iter().map(|file| &file.network).collect();
        if networks.len() > 1 {
            let networks = networks.into_iter().cloned().collect();
            return Err(FilesError::Networks { networks });
        }
        let (blocks, logs) = found.into_iter().partition(|file| file.table == Table::Blocks);
        let (blocks, blocks_heights) = in_order(blocks)?;
        let (logs, heights) = in_order(logs)?;
        let heights = heights.ok_or(FilesError::NoLogs)?;
        if let Some(blocks) = blocks_heights {
            same_heights(&blocks, &heights)?;
        }
        Ok(Files { heights, blocks, logs })
    }
}

fn walk(folder: &Path, found: &mut Vec<TableFile>) -> Result<(), FilesError> {
    for entry in fs::read_dir(folder).map_err(cannot_read(folder))? {
        let entry = entry.map_err(cannot_read(folder))?;
        // Ours while they are written, and cryo's reports.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        if entry.file_type().map_err(cannot_read(&path))?.is_dir() {
            walk(&path, found)?;
        } else {
            found.extend(TableFile::from_name(&path));
        }
    }
    Ok(())
}

fn cannot_read(path: &Path) -> impl FnOnce(io::Error) -> FilesError {
    let path = path.to_owned();
    move |source| FilesError::Read { path, source }
}

/// Sorts the files of one table by height, and says which blocks they cover without a gap.
fn in_order(mut files: Vec<TableFile>) -> Result<(Vec<TableFile>, Option<Range<u64>>), FilesError> {
    files.sort_by(|a, b| (a.heights.start, &a.path).cmp(&(b.heights.start, &b.path)));
    for pair in files.windows(2) {
        let [earlier, later] = pair else { unreachable!("windows of two") };
        let (end, start) = (earlier.heights.end, later.heights.start);
        if start < end {
            let [earlier, later] = [earlier, later].map(|file| file.path.clone());
            return Err(FilesError::Overlap { earlier, later, number: start });
        }
        missing(later.table, end..start)?;
    }
    let heights = match &files[..] {
        [] => None,
        [first, ..] => Some(first.heights.start..files[files.len() - 1].heights.end),
    };
    Ok((files, heights))
}

/// Both tables must be about the same blocks: what one has more of, the other lacks.
fn same_heights(blocks: &Range<u64>, logs: &Range<u64>) -> Result<(), FilesError> {
    missing(Table::Blocks, logs.start..blocks.start)?;
    missing(Table::Logs, blocks.start..logs.start)?;
    missing(Table::Blocks, blocks.end..logs.end)?;
    missing(Table::Logs, logs.end..blocks.end)
}

fn missing(table: Table, heights: Range<u64>) -> Result<(), FilesError> {
    if heights.is_empty() {
        return Ok(());
    }
    Err(FilesError::Missing { table, first: heights.start, last: heights.end - 1 })
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "files of one range of heights are meant")]
mod tests {
    use super::*;

    #[test]
    fn names_are_cryos() {
        check("ethereum__blocks__00000000_to_00000999", Some(("ethereum", Table::Blocks, 0..1000)));
        check("my_net__logs__mine__00000007_to_00000007", Some(("my_net", Table::Logs, 7..8)));
        check(
            "a__logs__123456789_to_123456799",
            Some(("a", Table::Logs, 123_456_789..123_456_800)),
        );
        check("ethereum__transactions__00000000_to_00000999", None);
        check("ethereum__blocks__00000009_to_00000001", None);
        check("ethereum__blocks__00000000_to_18446744073709551615", None);
        check("ethereum__blocks", None);
        check("__blocks__00000000_to_00000999", None);
    }

    fn check(name: &str, expected: Option<(&str, Table, Range<u64>)>) {
        let path = PathBuf::from(format!("/folder/{name}.parquet"));
        let expected = expected.map(|(network, table, heights)| TableFile {
            path: path.clone(),
            network: network.to_owned(),
            table,
            heights,
        });
        assert_eq!(TableFile::from_name(&path), expected, "{name}");
    }

    #[test]
    fn what_we_name_we_find() {
        let name = file_name("mainnet", Table::Logs, &(20..30));
        assert_eq!(name, "mainnet__logs__00000020_to_00000029.parquet");
        let file = TableFile::from_name(Path::new(&name)).unwrap();
        assert_eq!((file.table, file.heights), (Table::Logs, 20..30));
    }

    fn files(table: Table, heights: &[Range<u64>]) -> Vec<TableFile> {
        let file = |heights: &Range<u64>| {
            let path = PathBuf::from(file_name("net", table, heights));
            TableFile { path, network: "net".to_owned(), table, heights: heights.clone() }
        };
        heights.iter().map(file).collect()
    }

    fn problem(blocks: &[Range<u64>], logs: &[Range<u64>]) -> String {
        let found = [files(Table::Blocks, blocks), files(Table::Logs, logs)].concat();
        Files::of(found)
            .map_or_else(|error| error.to_string(), |files| format!("{:?}", files.heights))
    }

    #[test]
    fn gaps_and_files_about_the_same_blocks_are_named() {
        assert_eq!(problem(&[5..10, 0..5], &[0..7, 7..10]), "0..10");
        assert_eq!(problem(&[], &[3..7]), "3..7");
        assert_eq!(problem(&[0..5], &[]), FilesError::NoLogs.to_string());
        assert_eq!(problem(&[0..5], &[0..3, 4..5]), "no file has the logs of blocks 3 to 3");
        assert_eq!(problem(&[0..5], &[0..9]), "no file has the blocks of blocks 5 to 8");
        assert_eq!(problem(&[0..5], &[2..5]), "no file has the logs of blocks 0 to 1");
        assert_eq!(
            problem(&[0..5], &[0..3, 2..5]),
            "net__logs__00000000_to_00000002.parquet and net__logs__00000002_to_00000004.parquet \
             are both about block 2"
        );
    }
}
