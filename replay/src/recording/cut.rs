//! From a journal into a recording.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    ops::Range,
    path::{Path, PathBuf},
};

use shepherd_log::{
    Journal, LaneSnapshot, ModuleName, Offset, ReadError, Record, RecordView, StorageError,
};

use super::{
    Entry, Header, Logs, MODIFIED, PARTIAL, Proof, ProofError, Renumbered, Source, SourceError,
    file::Writer,
};
use crate::what_if::{ModifyError, WhatIf};

/// What a recording is to have.
pub struct CutOptions {
    /// Which logs.
    pub logs: Logs,
    /// What its reader shall be able to check. [`Proof::Blooms`] needs all logs; a recording that
    /// is modified can have [`Proof::Links`] alone.
    pub proof: Proof,
    /// Whose answers are included, in this order: what the modules' lanes are at.
    pub tapes: Vec<(ModuleName, LaneSnapshot)>,
    /// What is changed.
    pub what_if: WhatIf,
}

/// What was cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Records, all kinds.
    pub records: u64,
    /// Blocks among them.
    pub blocks: u64,
    /// Logs in them.
    pub logs: u64,
    /// Answers on tapes.
    pub answers: u64,
    /// Outcomes that were left out because their effect was asked for before the first record.
    pub outcomes_left_out: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// A recording that was not made.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// There is nothing in the range.
    #[error("the journal of {chain} has no record from {} on, it ends at {tail}", range.start)]
    Empty {
        /// The chain.
        chain: String,
        /// The range.
        range: Range<Offset>,
        /// Where the journal ends.
        tail: Offset,
    },
    /// The journal was itself loaded from a recording that lacks something.
    #[error(
        "this journal was loaded from a recording that is not what happened, or not all of it: cut \
         from the journal that the recording was made of"
    )]
    NotWhole,
    /// A proof that such a recording cannot have.
    #[error("a recording {what} cannot have proof `{proof}`: ask for {instead}")]
    NoSuchProof {
        /// What was asked for.
        proof: Proof,
        /// Why not.
        what: &'static str,
        /// What can be had.
        instead: &'static str,
    },
    /// A lane that has not handled all of it.
    #[error(
        "the tape of {module} ends at record {next}, the range at {end}: wait until the lane has \
         caught up, or end before block {number}"
    )]
    LaneBehind {
        /// The module.
        module: ModuleName,
        /// Where its lane is.
        next: Offset,
        /// Where the range ends.
        end: Offset,
        /// The height the lane has to handle next.
        number: u64,
    },
    /// A record cannot be taken.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A change that cannot be made.
    #[error(transparent)]
    Modify(ModifyError),
    /// A block that does not prove what was asked for.
    #[error(
        "{source}, so this recording cannot have proof `{proof}`: if this chain's hashes or blooms \
         are its own, ask for `links`"
    )]
    Proof {
        /// What was asked for.
        proof: Proof,
        /// What is wrong.
        source: ProofError,
    },
    /// It cannot be written.
    #[error("the recording cannot be written")]
    Write(#[source] io::Error),
    /// Its file cannot be written.
    #[error("{path} cannot be written")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl From<ModifyError> for CutError {
    fn from(error: ModifyError) -> CutError {
        match error {
            ModifyError::Source(source) => CutError::Source(source),
            error => CutError::Modify(error),
        }
    }
}

impl From<ReadError> for CutError {
    fn from(error: ReadError) -> CutError {
        CutError::Source(error.into())
    }
}

impl From<StorageError> for CutError {
    fn from(error: StorageError) -> CutError {
        CutError::Source(error.into())
    }
}

/// Writes a range of a journal as a recording, in memory that does not grow with it.
///
/// The same range with the same options always gives the same bytes. The range must begin at a
/// block and no revert in it may go back before that block. Holds the journal against retention.
pub fn cut(
    journal: &Journal,
    range: Range<Offset>,
    options: &CutOptions,
    out: &mut impl Write,
) -> Result<Cut, CutError> {
    let _held = journal.hold(range.start);
    let tail = journal.tail().offset;
    let range = range.start..range.end.min(tail);
    if range.is_empty() {
        return Err(CutError::Empty { chain: journal.chain().to_string(), range, tail });
    }
    let header = header(journal, &range, options)?;
    for (module, lane) in &options.tapes {
        let next = lane.cursor().next;
        if next < range.end {
            let number = lane.cursor().block.map_or(0, |block| block.number + 1);
            let (module, end) = (module.clone(), range.end);
            return Err(CutError::LaneBehind { module, next, end, number });
        }
    }
    let with_headers = options.proof != Proof::Links;
    let source = Source::new(journal, range, &options.logs, with_headers, &options.tapes);
    let mut entries = Renumbered::new(options.what_if.modify(source));
    let mut writer = Writer::begin(out, &header).map_err(CutError::Write)?;
    let mut cut = Cut::default();
    for entry in entries.by_ref() {
        let entry: Entry = entry?;
        if let Record::Block(block) = &entry.record {
            let proof = options.proof;
            proof.check(block).map_err(|source| CutError::Proof { proof, source })?;
            cut.blocks += 1;
            cut.logs += block.logs.len() as u64;
        }
        cut.answers += entry.tape.len() as u64;
        writer.add(entry).map_err(CutError::Write)?;
    }
    (cut.records, cut.outcomes_left_out) = (writer.records, entries.outcomes_left_out);
    cut.bytes = writer.end(cut.outcomes_left_out).map_err(CutError::Write)?;
    Ok(cut)
}

/// Writes a recording into a file that is there whole or not at all.
///
/// What was at `path` before is replaced.
pub fn cut_to(
    journal: &Journal,
    range: Range<Offset>,
    options: &CutOptions,
    path: &Path,
) -> Result<Cut, CutError> {
    let failed = |source| CutError::File { path: path.to_owned(), source };
    let name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
    let beside = path.with_file_name(format!(".{}.unfinished", name.to_string_lossy()));
    let mut out = BufWriter::new(File::create(&beside).map_err(failed)?);
    let done = cut(journal, range, options, &mut out).and_then(|done| {
        out.get_ref().sync_all().and_then(|()| std::fs::rename(&beside, path)).map_err(failed)?;
        Ok(done)
    });
    if done.is_err() {
        // Only a leftover: the next recording under this name writes over it.
        let _ = std::fs::remove_file(&beside);
    }
    done
}

fn header(
    journal: &Journal,
    range: &Range<Offset>,
    options: &CutOptions,
) -> Result<Header, CutError> {
    let CutOptions { logs, proof, tapes, what_if } = options;
    let genesis = journal.genesis()?;
    if [Some(PARTIAL), Some(MODIFIED)].contains(&genesis) {
        return Err(CutError::NotWhole);
    }
    let proof = *proof;
    let refused = |what, instead| Err(CutError::NoSuchProof { proof, what, instead });
    if !what_if.is_empty() && proof != Proof::Links {
        return refused("of what did not happen", "`links`");
    }
    if *logs != Logs::All && proof == Proof::Blooms {
        return refused("without all logs", "`hashes` or `links`");
    }
    let first = journal.read(range.start..range.end).next().expect("the range is not empty")?;
    let RecordView::Block(block) = first.record() else {
        return Err(SourceError::NotABlock { offset: range.start }.into());
    };
    Ok(Header {
        chain: journal.chain().clone(),
        chain_id: journal.chain_id(),
        genesis,
        first_offset: range.start.get(),
        first_block: block.this,
        proof,
        logs: logs.clone(),
        tapes: tapes.iter().map(|(module, _)| module.clone()).collect(),
        modified: what_if.in_words(),
    })
}
