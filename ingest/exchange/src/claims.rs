//! What the files of a data set say about each block, both tables together.

use std::path::PathBuf;

use alloy::{consensus, rlp::Decodable};
use alloy_primitives::{Bytes, keccak256};
use shepherd_ingest::{Mismatch, Trust};
use shepherd_log::{Block, BlockRef, Header};

use crate::{
    files::{Files, TableFile},
    rows::{BlockRow, LogRow, Rows, RowsError},
};

/// How much is read before it is verified: blocks, and bytes of their logs.
const CLAIMS_MAX: usize = 64;
const CLAIMS_BYTES_MAX: usize = 8 << 20;

/// What files say about one block. Nothing of it is believed yet.
#[derive(Debug)]
pub(crate) struct Claim {
    pub number: u64,
    /// `None` when there are only files with logs.
    pub row: Option<BlockRow>,
    pub logs: Vec<LogRow>,
    /// The file that the logs are in, or would be.
    pub logs_path: PathBuf,
    /// The file that the header is in, or would be.
    pub header_path: PathBuf,
}

impl Claim {
    /// The header as the files have it, as far as that is enough to verify the block.
    ///
    /// Without the header's bytes its hash cannot be recomputed: then number, parent and time must
    /// do, which only [`Trust::Link`] takes.
    pub fn header(&self, trust: Trust) -> Option<Header> {
        let row = self.row.as_ref()?;
        let Some(rlp) = &row.rlp else {
            let this = BlockRef { number: row.number, hash: row.hash? };
            let header =
                Header { this, parent: row.parent?, timestamp: row.timestamp?, rlp: Bytes::new() };
            return (!trust.checks_hashes()).then_some(header);
        };
        let decoded = consensus::Header::decode(&mut &rlp[..]).ok();
        let decoded = decoded.as_ref();
        Some(Header {
            this: BlockRef { number: row.number, hash: row.hash.unwrap_or_else(|| keccak256(rlp)) },
            parent: row.parent.or(decoded.map(|header| header.parent_hash))?,
            timestamp: row.timestamp.or(decoded.map(|header| header.timestamp))?,
            rlp: rlp.clone(),
        })
    }

    /// The logs joined to a header, each of which must be of that block.
    pub fn join(self, header: Header) -> Result<Block, Mismatch> {
        let this = header.this;
        let mut logs = Vec::with_capacity(self.logs.len());
        for row in self.logs {
            let answered =
                BlockRef { number: row.number, hash: row.block_hash.unwrap_or(this.hash) };
            if answered != this {
                return Err(Mismatch::OtherBlocksLog { answered });
            }
            logs.push(row.log);
        }
        Ok(Block { header, logs })
    }
}

/// Reads claims, lowest block first.
pub(crate) struct Claims {
    next: u64,
    end: u64,
    blocks_files: Vec<TableFile>,
    logs_files: Vec<TableFile>,
    blocks: Rows<BlockRow>,
    logs: Rows<LogRow>,
    log_ahead: Option<LogRow>,
    /// What is wrong with the claim after those that were handed out.
    failed: Option<RowsError>,
}

impl Claims {
    /// What the files say about blocks from a height on.
    pub fn read(files: Files, from: u64, chain_id: u64) -> Claims {
        let from = from.max(files.heights.start);
        Claims {
            next: from,
            end: files.heights.end,
            blocks: Rows::of(&files.blocks, from, chain_id),
            logs: Rows::of(&files.logs, from, chain_id),
            blocks_files: files.blocks,
            logs_files: files.logs,
            log_ahead: None,
            failed: None,
        }
    }

    /// About as much as fits into memory with ease; nothing when there is no more. What can be
    /// read before something is wrong is handed out first.
    pub fn next_batch(&mut self) -> Result<Vec<Claim>, RowsError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut claims = Vec::new();
        let mut bytes = 0;
        while claims.len() < CLAIMS_MAX && bytes < CLAIMS_BYTES_MAX && self.next < self.end {
            match self.claim(self.next) {
                Ok(claim) => {
                    bytes += claim.logs.iter().map(size).sum::<usize>();
                    claims.push(claim);
                    self.next += 1;
                }
                Err(error) if claims.is_empty() => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        Ok(claims)
    }

    fn claim(&mut self, number: u64) -> Result<Claim, RowsError> {
        let row = self.block_row(number)?;
        let logs = self.log_rows(number)?;
        if number + 1 == self.end {
            // A row after the last one is about a block that was there already: an error.
            self.blocks.next(number)?;
        }
        let logs_path = path_of(&self.logs_files, number);
        let header_path = match row {
            Some(_) => path_of(&self.blocks_files, number),
            None => logs_path.clone(),
        };
        Ok(Claim { number, row, logs, logs_path, header_path })
    }

    fn block_row(&mut self, number: u64) -> Result<Option<BlockRow>, RowsError> {
        if self.blocks_files.is_empty() {
            return Ok(None);
        }
        loop {
            match self.blocks.next(number)? {
                // An earlier import had it.
                Some(row) if row.number < number => (),
                Some(row) if row.number == number => return Ok(Some(row)),
                Some(_) | None => {
                    let path = path_of(&self.blocks_files, number);
                    return Err(RowsError::MissingBlock { path, number });
                }
            }
        }
    }

    fn log_rows(&mut self, number: u64) -> Result<Vec<LogRow>, RowsError> {
        let mut rows = Vec::new();
        loop {
            let next = match self.log_ahead.take() {
                Some(row) => Some(row),
                None => self.logs.next(number)?,
            };
            match next {
                Some(row) if row.number < number => (),
                Some(row) if row.number == number => rows.push(row),
                later => {
                    self.log_ahead = later;
                    return Ok(rows);
                }
            }
        }
    }
}

/// The file that is about a block.
fn path_of(files: &[TableFile], number: u64) -> PathBuf {
    let nth = files.partition_point(|file| file.heights.end <= number);
    files[nth].path.clone()
}

/// Roughly what a row takes in memory.
fn size(row: &LogRow) -> usize {
    size_of::<LogRow>() + 32 * row.log.topics.len() + row.log.data.len()
}
