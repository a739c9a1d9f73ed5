//! The high-water mark: how far the store has certainly come.
//!
//! The engine cuts a damaged write-ahead log off at the first record it cannot read and opens with
//! what is left, which looks like any earlier moment (hazard F4). A file beside it remembers the
//! tails and commit numbers that were durable; a store that opens below it has lost something.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use crate::{
    codec::{DecodeError, HighwaterRow, seal_row, unseal_row},
    types::{Digest, Offset},
};

/// Stands in for a key in the seal of the file.
const SEAL_KEY: &[u8] = b"highwater";

/// What was durable at some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Highwater {
    /// Tail of each chain's journal and the digest of the record before it.
    pub chains: BTreeMap<u16, (Offset, Digest)>,
    /// Last commit number of each lane.
    pub lanes: BTreeMap<u32, u64>,
}

/// One rise of the mark.
#[derive(Clone, Copy, Debug)]
pub enum Mark {
    /// A journal grew.
    Chain(u16, Offset, Digest),
    /// A lane committed.
    Lane(u32, u64),
}

impl Highwater {
    /// Raises the mark.
    pub fn raise(&mut self, mark: Mark) {
        match mark {
            Mark::Chain(chain, tail, digest) => {
                self.chains.insert(chain, (tail, digest));
            }
            Mark::Lane(lane, commit) => {
                self.lanes.insert(lane, commit);
            }
        }
    }
}

/// Replaces the file: written beside it, synced, renamed over it, and the rename synced.
pub fn write(file: &Path, highwater: &Highwater) -> io::Result<()> {
    let row = HighwaterRow {
        chains: highwater
            .chains
            .iter()
            .map(|(chain, (tail, digest))| (*chain, tail.get(), digest.0))
            .collect(),
        lanes: highwater.lanes.iter().map(|(lane, commit)| (*lane, *commit)).collect(),
    };
    let beside = file.with_extension("tmp");
    let mut written = File::create(&beside)?;
    written.write_all(&seal_row(SEAL_KEY, row))?;
    written.sync_all()?;
    fs::rename(&beside, file)?;
    let folder = file.parent().expect("the mark lies in the store's folder");
    File::open(folder)?.sync_all()
}

/// Why the mark could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HighwaterError {
    /// The file is missing or unreadable.
    #[error("the high-water mark cannot be read")]
    Read(#[from] io::Error),
    /// The file is damaged.
    #[error("the high-water mark is damaged")]
    Damaged(#[from] DecodeError),
}

/// Reads the file.
pub fn read(file: &Path) -> Result<Highwater, HighwaterError> {
    let row: HighwaterRow = unseal_row(SEAL_KEY, &fs::read(file)?)?;
    Ok(Highwater {
        chains: row
            .chains
            .into_iter()
            .map(|(chain, tail, digest)| (chain, (Offset::new(tail), Digest(digest))))
            .collect(),
        lanes: row.lanes.into_iter().collect(),
    })
}
