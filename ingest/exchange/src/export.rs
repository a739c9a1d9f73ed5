//! From a journal into Parquet files.
//!
//! ```text
//! journal ──▶ blocks 0 to 999 ──▶ mainnet__blocks__00000000_to_00000999.parquet
//!             1000 to 1999        mainnet__logs__00000000_to_00000999.parquet
//!             2000 to head        …
//! ```
//!
//! Files are cut where the height is a multiple of their size, wherever the export begins: so a
//! later export of a longer chain keeps what is there, and replaces only the last, shorter file.

use std::{
    fs, io,
    num::NonZeroU64,
    ops::Range,
    path::{Path, PathBuf},
};

use shepherd_log::{Journal, LogFilter, LogView, RecordView};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    Branches, Progress, StretchError, Table,
    files::{TableFile, file_name},
    progress::Meter,
    stretch::{Abandoned, Stretch, heights},
    table::{BlockRows, Common, LogRows, TooLarge},
    table_file::{Description, FilterDescription, TableWriter, WriteError, sync_folder_of},
};

/// Blocks of one file when nobody says otherwise: cryo's number.
pub const BLOCKS_PER_FILE: NonZeroU64 = NonZeroU64::new(1000).expect("not zero");

/// Rows, and bytes of rows, that are handed to the encoder at once.
const BATCH_ROWS: usize = 8192;
const BATCH_BYTES: usize = 4 << 20;

/// What is to be exported into Parquet files.
#[derive(Clone, Debug)]
pub struct ParquetExport {
    /// The blocks, as far as the journal has them.
    pub heights: Range<u64>,
    /// The folder, created when it is missing.
    pub folder: PathBuf,
    /// Where files are cut.
    pub blocks_per_file: NonZeroU64,
    /// With [`Branches::All`] each table gets a column `abandoned`.
    pub branches: Branches,
    /// With a filter only the logs that match, and only the blocks that have any. Such files
    /// cannot be imported: what they lack could not be told from what someone took out.
    pub filter: Option<LogFilter>,
}

/// What was exported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// The blocks that were asked for and that the journal has.
    pub heights: Range<u64>,
    /// Blocks written by this run, abandoned ones too.
    pub blocks: u64,
    /// Logs written by this run.
    pub logs: u64,
    /// Size of what this run wrote.
    pub bytes: u64,
    /// Files written.
    pub files_written: u64,
    /// Files that were there from an earlier run.
    pub files_kept: u64,
    /// Whether it was stopped before it was complete. The next run goes on.
    pub stopped: bool,
}

/// Why an export failed. Files that are there are complete; the next run goes on after them.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The journal has none of the blocks.
    #[error("no block from {} to {} is in the journal, which has {}", .asked.start, .asked.end.saturating_sub(1), in_words(.has))]
    Nothing {
        /// The blocks asked for.
        asked: Range<u64>,
        /// The blocks there are.
        has: Range<u64>,
    },
    /// The folder cannot be used.
    #[error("cannot use {path}")]
    Folder {
        /// The path in question.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that an export would write over is not an export's.
    #[error("{path} was not written by an export: move it, or choose another folder")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The folder has files of other blocks than this export would write.
    #[error(
        "{path} is about some of the blocks of {would_be}: choose another folder, or export as that file was"
    )]
    OtherwiseCut {
        /// The file.
        path: PathBuf,
        /// The file that this export would write.
        would_be: String,
    },
    /// The files in the folder have another kind of content.
    #[error(
        "{path} was exported with other options: choose another folder, or export as that file was"
    )]
    OtherOptions {
        /// The file.
        path: PathBuf,
    },
    /// A number does not fit.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The journal cannot be read.
    #[error(transparent)]
    Stretch(#[from] StretchError),
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The lines cannot be written.
    #[error("cannot write the lines")]
    Lines(#[source] io::Error),
}

fn in_words(heights: &Range<u64>) -> String {
    match heights.end.checked_sub(1) {
        Some(last) if !heights.is_empty() => format!("{} to {last}", heights.start),
        _ => "no blocks".to_owned(),
    }
}

/// The part of a range of heights that a journal has, which is not empty.
pub(crate) fn within(journal: &Journal, asked: &Range<u64>) -> Result<Range<u64>, ExportError> {
    let has = heights(journal)?;
    let both = asked.start.max(has.start)..asked.end.min(has.end);
    if both.is_empty() {
        return Err(ExportError::Nothing { asked: asked.clone(), has });
    }
    Ok(both)
}

/// Writes blocks and logs of a journal into Parquet files, in memory that does not grow with them.
///
/// Blocks the thread, and holds the journal against retention. A file is there whole or not at all, and a pair of files that is there
/// already and still right is kept, so that an export can be stopped at any moment and run again.
pub fn export_parquet(
    journal: &Journal,
    export: &ParquetExport,
    progress: &watch::Sender<Progress>,
    stop: &CancellationToken,
) -> Result<Exported, ExportError> {
    let _held = journal.hold(journal.start());
    let heights = within(journal, &export.heights)?;
    let folder = &export.folder;
    let unusable = |source| ExportError::Folder { path: folder.clone(), source };
    fs::create_dir_all(folder).map_err(unusable)?;
    let pieces = cut(&heights, export.blocks_per_file);
    let abandoned = Abandoned::find(journal, export.branches)?;
    let mut outdated = outdated(folder, journal.chain().as_str(), &pieces)?;
    let exporter = Exporter { journal, export, abandoned, stop };
    let mut meter = Meter::start(progress, heights.clone());
    let mut exported = Exported { heights, ..Exported::default() };
    for piece in &pieces {
        if exporter.has(piece)? {
            exported.files_kept += 2;
            meter.skip_to(piece.end);
        } else if let Some(bytes) = exporter.write(piece, &mut meter)? {
            exported.files_written += 2;
            exported.bytes += bytes;
        } else {
            exported.stopped = true;
            break;
        }
        let contained = |file: &mut TableFile| {
            piece.start <= file.heights.start && file.heights.end <= piece.end
        };
        for file in outdated.extract_if(.., contained) {
            let unusable = |source| ExportError::Folder { path: file.path.clone(), source };
            fs::remove_file(&file.path).map_err(unusable)?;
            sync_folder_of(&file.path).map_err(unusable)?;
        }
    }
    (exported.blocks, exported.logs) = (meter.progress().blocks, meter.progress().logs);
    Ok(exported)
}

/// Cuts heights into those of each file.
fn cut(heights: &Range<u64>, blocks_per_file: NonZeroU64) -> Vec<Range<u64>> {
    let mut pieces = Vec::new();
    let mut start = heights.start;
    while start < heights.end {
        let next_multiple = (start / blocks_per_file + 1).saturating_mul(blocks_per_file.get());
        let end = next_multiple.min(heights.end);
        pieces.push(start..end);
        start = end;
    }
    pieces
}

/// Files of earlier exports that ours will replace, each within one of ours.
fn outdated(
    folder: &Path,
    network: &str,
    pieces: &[Range<u64>],
) -> Result<Vec<TableFile>, ExportError> {
    let mut outdated = Vec::new();
    let unusable = |source| ExportError::Folder { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(unusable)? {
        let path = entry.map_err(unusable)?.path();
        let Some(file) = TableFile::from_name(&path).filter(|file| file.network == network) else {
            continue;
        };
        let theirs = &file.heights;
        let shared = |ours: &&Range<u64>| theirs.start < ours.end && ours.start < theirs.end;
        let Some(ours) = pieces.iter().find(shared) else { continue };
        if ours == theirs {
            continue;
        }
        if theirs.start < ours.start || ours.end < theirs.end {
            let would_be = file_name(network, file.table, ours);
            return Err(ExportError::OtherwiseCut { path, would_be });
        }
        description(&path)?;
        outdated.push(file);
    }
    Ok(outdated)
}

/// What an export says about a file it wrote; `None` when the file is not there.
fn description(path: &Path) -> Result<Option<Description>, ExportError> {
    let read = Description::read(path)
        .map_err(|source| ExportError::Folder { path: path.to_owned(), source })?;
    match read {
        Some(None) => Err(ExportError::Foreign { path: path.to_owned() }),
        Some(Some(description)) => Ok(Some(description)),
        None => Ok(None),
    }
}

struct Exporter<'a> {
    journal: &'a Journal,
    export: &'a ParquetExport,
    abandoned: Abandoned,
    stop: &'a CancellationToken,
}

impl Exporter<'_> {
    fn path(&self, table: Table, heights: &Range<u64>) -> PathBuf {
        self.export.folder.join(file_name(self.journal.chain().as_str(), table, heights))
    }

    /// What the files of these blocks say of themselves when they are right.
    fn description(&self, heights: &Range<u64>) -> Result<Description, ExportError> {
        let last = heights.end - 1;
        let found = self.journal.canonical(last).map_err(StretchError::from)?;
        let (_, block) = found.ok_or_else(|| {
            let at = self.journal.tail().head.expect("it has blocks, and reverts keep one");
            StretchError::Changed { at }
        })?;
        let mut description =
            Description::new(self.journal.chain_id(), (heights.start, last), block.hash);
        if self.export.branches == Branches::All {
            description.abandoned = Some(self.abandoned.count(heights));
        }
        description.filter = self.export.filter.as_ref().map(FilterDescription::from);
        Ok(description)
    }

    /// Whether both files of these blocks are there and still right.
    fn has(&self, heights: &Range<u64>) -> Result<bool, ExportError> {
        let expected = self.description(heights)?;
        let mut has_both = true;
        for table in [Table::Blocks, Table::Logs] {
            let path = self.path(table, heights);
            let Some(found) = description(&path)? else {
                has_both = false;
                continue;
            };
            if !found.has_options_of(&expected) {
                return Err(ExportError::OtherOptions { path });
            }
            // Otherwise a reorg came since it was written.
            has_both &= found == expected;
        }
        Ok(has_both)
    }

    /// Writes both files of these blocks; their size, or `None` when it was stopped before.
    fn write(&self, heights: &Range<u64>, meter: &mut Meter) -> Result<Option<u64>, ExportError> {
        let description = self.description(heights)?;
        let common = Common {
            chain_id: self.journal.chain_id(),
            with_abandoned: self.export.branches == Branches::All,
        };
        let file =
            |table, schema| TableWriter::create(self.path(table, heights), schema, &description);
        let mut blocks_file = file(Table::Blocks, BlockRows::schema(common))?;
        let mut logs_file = file(Table::Logs, LogRows::schema(common))?;
        let (mut blocks, mut logs) = (BlockRows::new(common), LogRows::new(common));
        let mut last = None;
        for one in Stretch::read(self.journal, &self.abandoned, heights.clone())? {
            if self.stop.is_cancelled() {
                return Ok(None);
            }
            let one = one?;
            let RecordView::Block(block) = one.stored.record() else {
                unreachable!("a stretch is made of blocks")
            };
            let filter = self.export.filter.as_ref();
            let wanted = |log: &LogView<'_>| filter.is_none_or(|filter| filter.matches(log));
            if filter.is_none() || block.logs().any(|log| wanted(&log)) {
                blocks.push(&block, one.abandoned)?;
            }
            for log in block.logs().filter(wanted) {
                logs.push(block.this, &log, one.abandoned)?;
                if BATCH_ROWS <= logs.rows() || BATCH_BYTES <= logs.bytes() {
                    logs_file.write(&logs.take())?;
                }
            }
            if BATCH_ROWS <= blocks.rows() {
                blocks_file.write(&blocks.take())?;
            }
            if !one.abandoned {
                last = Some(block.this);
            }
            meter.block(block.this.number, u64::from(block.log_count()));
        }
        let last = last.expect("a stretch is not empty");
        if last.hash != description.last_hash {
            return Err(StretchError::Changed { at: last }.into());
        }
        blocks_file.write(&blocks.take())?;
        logs_file.write(&logs.take())?;
        Ok(Some(logs_file.finish()? + blocks_file.finish()?))
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "files of one range of heights are meant")]
mod tests {
    use super::*;

    #[test]
    fn files_are_cut_at_multiples_of_their_size() {
        check(0..10, 5, &[0..5, 5..10]);
        check(3..12, 5, &[3..5, 5..10, 10..12]);
        check(5..6, 5, &[5..6]);
        check(u64::MAX - 3..u64::MAX, 1000, &[u64::MAX - 3..u64::MAX]);
    }

    fn check(heights: Range<u64>, size: u64, expected: &[Range<u64>]) {
        assert_eq!(cut(&heights, NonZeroU64::new(size).unwrap()), expected);
    }
}
