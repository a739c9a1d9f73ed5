//! From a journal into JSON lines: one record a line.
//!
//! ```json
//! {"record":"block","offset":7,"number":7,"hash":"0x…","parent":"0x…","timestamp":1700000084,"header_rlp":"0x…","logs":[…]}
//! {"record":"revert","offset":8,"ancestor":{"number":6,"hash":"0x…"},"abandoned":[{"number":7,"hash":"0x…"}]}
//! {"record":"outcome","offset":9,"module":"…","effect":"3.0","key":"0x…","result":"accepted",…}
//! ```
//!
//! Binary values are hexadecimal with a prefix, numbers are numbers.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    ops::Range,
    path::Path,
};

use alloy_primitives::{Address, B256, Bytes};
use serde::Serialize;
use shepherd_log::{
    BlockRef, BlockView, EffectResult, Journal, LogFilter, LogView, Outcome, RecordView, Revert,
    StoredRecord,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    Branches, ExportError, Exported, Progress, StretchError,
    export::within,
    progress::Meter,
    stretch::{Abandoned, Stretch},
    table_file::sync_folder_of,
};

/// What is to be exported as JSON lines.
#[derive(Clone, Debug)]
pub struct JsonExport {
    /// The blocks, as far as the journal has them.
    pub heights: Range<u64>,
    /// With [`Branches::Canonical`] a line for each block that counts, lowest first. With
    /// [`Branches::All`] a line for each record from the first block to the last one in the order
    /// of the journal, reverts, outcomes and abandoned blocks as they came.
    pub branches: Branches,
    /// With a filter only the logs that match, and only the blocks that have any. Reverts and
    /// outcomes are not about logs and stay.
    pub filter: Option<LogFilter>,
}

#[derive(Serialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum Line<'a> {
    Block(BlockLine<'a>),
    Revert(RevertLine),
    Outcome(OutcomeLine<'a>),
}

#[derive(Serialize)]
struct BlockLine<'a> {
    offset: u64,
    number: u64,
    hash: B256,
    parent: B256,
    timestamp: u64,
    header_rlp: Hex<'a>,
    /// Left out where it is not so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    abandoned: bool,
    logs: Vec<LogLine<'a>>,
}

#[derive(Serialize)]
struct LogLine<'a> {
    address: Address,
    topics: Vec<B256>,
    data: Hex<'a>,
    index: u32,
    transaction_index: u32,
    transaction_hash: B256,
}

#[derive(Serialize)]
struct RevertLine {
    offset: u64,
    ancestor: BlockLineRef,
    abandoned: Vec<BlockLineRef>,
}

#[derive(Serialize)]
struct BlockLineRef {
    number: u64,
    hash: B256,
}

#[derive(Serialize)]
struct OutcomeLine<'a> {
    offset: u64,
    module: &'a str,
    effect: String,
    key: String,
    block: BlockLineRef,
    head: BlockLineRef,
    result: &'static str,
    /// Only of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<RefusalLine<'a>>,
    /// Only of an effect that was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    attempts: u32,
    at_millis: u64,
}

#[derive(Serialize)]
struct RefusalLine<'a> {
    status: u16,
    error_type: Option<&'a str>,
    description: &'a str,
    body: Bytes,
    retry_after: Option<u32>,
}

/// Bytes that are written in hexadecimal from where they stand.
struct Hex<'a>(&'a [u8]);

impl Serialize for Hex<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        alloy_primitives::hex::serialize(self.0, serializer)
    }
}

impl From<BlockRef> for BlockLineRef {
    fn from(BlockRef { number, hash }: BlockRef) -> BlockLineRef {
        BlockLineRef { number, hash }
    }
}

impl<'a> BlockLine<'a> {
    fn new(
        offset: u64,
        block: &BlockView<'a>,
        abandoned: bool,
        wanted: impl Fn(&LogView<'a>) -> bool,
    ) -> BlockLine<'a> {
        BlockLine {
            offset,
            number: block.this.number,
            hash: block.this.hash,
            parent: block.parent,
            timestamp: block.timestamp,
            header_rlp: Hex(block.rlp),
            abandoned,
            logs: block.logs().filter(wanted).map(LogLine::from).collect(),
        }
    }
}

impl<'a> From<LogView<'a>> for LogLine<'a> {
    fn from(log: LogView<'a>) -> LogLine<'a> {
        LogLine {
            address: log.address,
            topics: log.topics().collect(),
            data: Hex(log.data),
            index: log.index,
            transaction_index: log.transaction_index,
            transaction_hash: log.transaction_hash,
        }
    }
}

impl RevertLine {
    fn new(offset: u64, revert: Revert) -> RevertLine {
        RevertLine {
            offset,
            ancestor: revert.ancestor.into(),
            abandoned: revert.abandoned.into_iter().map(BlockLineRef::from).collect(),
        }
    }
}

impl<'a> OutcomeLine<'a> {
    fn new(offset: u64, outcome: &'a Outcome) -> OutcomeLine<'a> {
        let (refusal, reason) = match &outcome.result {
            EffectResult::Refused(refusal) => (Some(refusal), None),
            EffectResult::Cancelled(reason) => (None, Some(reason.as_str())),
            EffectResult::Accepted
            | EffectResult::AlreadyThere
            | EffectResult::Expired
            | EffectResult::DryRun => (None, None),
        };
        OutcomeLine {
            offset,
            module: outcome.module.as_str(),
            effect: outcome.effect.to_string(),
            key: outcome.key.to_string(),
            block: outcome.block.into(),
            head: outcome.head.into(),
            result: outcome.result.kind(),
            refusal: refusal.map(|refusal| RefusalLine {
                status: refusal.status,
                error_type: refusal.error_type.as_deref(),
                description: &refusal.description,
                body: refusal.body.clone().into(),
                retry_after: refusal.retry_after,
            }),
            reason,
            attempts: outcome.attempts,
            at_millis: outcome.at_millis,
        }
    }
}

/// Writes records as JSON, one a line, in memory that does not grow with them.
///
/// Blocks the thread, and holds the journal against retention. A reader can tell a cut-off file by its last line, which does not parse
/// or does not end; [`export_json_lines_to`] leaves no such file.
pub fn export_json_lines(
    journal: &Journal,
    export: &JsonExport,
    out: &mut impl Write,
    progress: &watch::Sender<Progress>,
    stop: &CancellationToken,
) -> Result<Exported, ExportError> {
    let _held = journal.hold(journal.start());
    let heights = within(journal, &export.heights)?;
    let mut lines = Lines {
        out,
        filter: export.filter.as_ref(),
        exported: Exported { heights: heights.clone(), ..Exported::default() },
        meter: Meter::start(progress, heights.clone()),
        stop,
    };
    match export.branches {
        Branches::Canonical => {
            let none = Abandoned::find(journal, Branches::Canonical)?;
            for one in Stretch::read(journal, &none, heights)? {
                if !lines.add(&one?.stored, false)? {
                    break;
                }
            }
        }
        Branches::All => {
            let offset_of = |number| -> Result<_, StretchError> {
                let found = journal.canonical(number)?;
                let head = journal.tail().head.expect("it has blocks, and reverts keep one");
                Ok(found.ok_or(StretchError::Changed { at: head })?.0)
            };
            let offsets = offset_of(heights.start)?..offset_of(heights.end - 1)?.plus(1);
            for stored in journal.read(offsets) {
                let stored = stored.map_err(StretchError::from)?;
                let abandoned = journal.abandoned_by(stored.offset()).is_some();
                if !lines.add(&stored, abandoned)? {
                    break;
                }
            }
        }
    }
    lines.out.flush().map_err(ExportError::Lines)?;
    let mut exported = lines.exported;
    (exported.blocks, exported.logs) = (lines.meter.progress().blocks, lines.meter.progress().logs);
    Ok(exported)
}

/// Writes records as JSON lines into a file that is there whole or not at all.
///
/// When this returns without having been stopped, the file survives a power cut. What was at
/// `path` before is replaced.
pub fn export_json_lines_to(
    journal: &Journal,
    export: &JsonExport,
    path: &Path,
    progress: &watch::Sender<Progress>,
    stop: &CancellationToken,
) -> Result<Exported, ExportError> {
    let unusable = |source| ExportError::Folder { path: path.to_owned(), source };
    let name = path.file_name().ok_or_else(|| unusable(io::ErrorKind::InvalidFilename.into()))?;
    let beside = path.with_file_name(format!(".{}.unfinished", name.to_string_lossy()));
    let mut out = BufWriter::new(File::create(&beside).map_err(unusable)?);
    let written = export_json_lines(journal, export, &mut out, progress, stop);
    match written {
        Ok(mut exported) if !exported.stopped => {
            out.get_ref().sync_all().map_err(unusable)?;
            std::fs::rename(&beside, path).map_err(unusable)?;
            sync_folder_of(path).map_err(unusable)?;
            exported.files_written = 1;
            Ok(exported)
        }
        unfinished => {
            // Only a leftover: the next export to the same file writes over it.
            let _ = std::fs::remove_file(&beside);
            unfinished
        }
    }
}

struct Lines<'a, W> {
    out: &'a mut W,
    filter: Option<&'a LogFilter>,
    exported: Exported,
    meter: Meter,
    stop: &'a CancellationToken,
}

impl<W: Write> Lines<'_, W> {
    /// Writes one line, unless it was told to stop.
    fn add(&mut self, stored: &StoredRecord, abandoned: bool) -> Result<bool, ExportError> {
        if self.stop.is_cancelled() {
            self.exported.stopped = true;
            return Ok(false);
        }
        let offset = stored.offset().get();
        match stored.record() {
            RecordView::Block(block) => {
                let filter = self.filter;
                let wanted = |log: &LogView<'_>| filter.is_none_or(|filter| filter.matches(log));
                let line = BlockLine::new(offset, &block, abandoned, wanted);
                if filter.is_none() || !line.logs.is_empty() {
                    self.write(&Line::Block(line))?;
                }
                self.meter.block(block.this.number, u64::from(block.log_count()));
            }
            RecordView::Revert(revert) => {
                self.write(&Line::Revert(RevertLine::new(offset, revert)))?;
            }
            RecordView::Outcome(outcome) => {
                self.write(&Line::Outcome(OutcomeLine::new(offset, &outcome)))?;
            }
        }
        Ok(true)
    }

    fn write(&mut self, line: &Line<'_>) -> Result<(), ExportError> {
        let mut text =
            serde_json::to_vec(line).map_err(|error| ExportError::Lines(error.into()))?;
        text.push(b'\n');
        self.exported.bytes += text.len() as u64;
        self.out.write_all(&text).map_err(ExportError::Lines)
    }
}
