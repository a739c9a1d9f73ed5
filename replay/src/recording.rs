//! Recordings: a stretch of history in one text file, for tests and for people.
//!
//! ```json
//! {"recording":1,"chain":"sepolia","chain_id":11155111,"first_offset":4711,"first_block":{…},"proof":"hashes","logs":[{…}],"tapes":["twap-monitor"]}
//! {"record":"block","offset":0,"number":7,"hash":"0x…","parent":"0x…","timestamp":1700000084,"header_rlp":"0x…","logs":[…],"tape":[…]}
//! {"record":"revert","offset":1,"ancestor":{"number":6,"hash":"0x…"},"abandoned":[{"number":7,"hash":"0x…"}]}
//! {"record":"outcome","offset":2,"module":"…","effect":"0.0","key":"0x…","result":"accepted",…}
//! {"record":"end","records":3,"outcomes_left_out":0}
//! ```
//!
//! One line is one record, in the shape in which journals are exported as JSON lines. With it stand
//! the answers that the lanes were given whose tapes are included. The same stretch of the same
//! journal always gives the same bytes, and a changed record is a changed line.
//!
//! Offsets count from the first record of the recording. So do those in the ids of effects; an
//! outcome whose effect was asked for before the first record could not be told of anything and is
//! left out.
//!
//! | what it may lack | then |
//! |---|---|
//! | logs that no filter wants | its blocks are not whole: `logs` lists the filters |
//! | headers (`proof` is `links`) | hashes are taken as they are written |
//! | what really happened ([`WhatIf`](crate::what_if::WhatIf)) | `modified` lists what was changed |
//!
//! A journal loaded from a recording that is not whole can be replayed, and can never be followed
//! on or recorded again as if it were whole: it carries a genesis that no chain has.

mod cut;
mod file;
mod line;
mod load;
mod proof;
mod source;

use std::fmt;

use alloy_primitives::B256;
use serde::{Deserialize, Serialize};
use shepherd_host::LogFilter;
use shepherd_log::{BlockRef, ChainName, Log, LogView, ModuleName, Record, TapeEntry};

pub use cut::{Cut, CutError, CutOptions, cut, cut_to};
pub use file::{Reader, RecordingError};
pub(crate) use load::Appender;
pub use load::{LoadError, Loaded, RecordedTape, load};
pub use proof::ProofError;
pub use source::SourceError;
pub(crate) use source::{Places, Renumbered, Source, Taken};

/// Version of the file's format. A reader refuses what it does not know.
pub const VERSION: u32 = 1;

/// Genesis of a journal that was loaded from a recording without some of its blocks' logs.
const PARTIAL: B256 = mark(*b"shepherd: a partial recording   ");

/// Genesis of a journal that was changed on purpose.
pub(crate) const MODIFIED: B256 = mark(*b"shepherd: a modified recording  ");

const fn mark(text: [u8; 32]) -> B256 {
    B256::new(text)
}

/// What the first line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The chain.
    pub chain: ChainName,
    /// Its `eth_chainId`.
    pub chain_id: u64,
    /// Hash of its block 0, when the journal knew it.
    pub genesis: Option<B256>,
    /// Offset that the first record had in the journal it was cut from. For people.
    pub first_offset: u64,
    /// The first block.
    pub first_block: BlockRef,
    /// What a reader can check of each block.
    pub proof: Proof,
    /// Which logs its blocks have.
    pub logs: Logs,
    /// Modules whose answers are included, in order.
    pub tapes: Vec<ModuleName>,
    /// What was changed, in words; empty when this is what happened.
    pub modified: Vec<String>,
}

impl Header {
    /// The genesis that the loaded journal is given: the chain's own only when the recording is
    /// whole, so that it could be followed on.
    pub(crate) fn loaded_genesis(&self) -> Option<B256> {
        if !self.modified.is_empty() {
            return Some(MODIFIED);
        }
        match (&self.logs, self.proof) {
            (Logs::All, Proof::Hashes | Proof::Blooms) => self.genesis,
            _ => Some(PARTIAL),
        }
    }
}

/// Which logs the blocks of a recording have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Logs {
    /// All of them.
    All,
    /// Those that match any of these. None of them when there are no filters.
    Matching(Vec<LogFilter>),
}

impl Logs {
    /// Whether a log is among them.
    pub fn have(&self, log: &Log) -> bool {
        match self {
            Logs::All => true,
            Logs::Matching(filters) => {
                filters.iter().any(|filter| filter.matches(&log.address, &log.topics))
            }
        }
    }

    fn have_view(&self, log: &LogView<'_>) -> bool {
        match self {
            Logs::All => true,
            Logs::Matching(filters) => {
                let topics = log.topics();
                let mut of_log = [B256::ZERO; 4];
                let count = topics.len().min(of_log.len());
                of_log.iter_mut().zip(topics).for_each(|(place, topic)| *place = topic);
                filters.iter().any(|filter| filter.matches(&log.address, &of_log[..count]))
            }
        }
    }
}

/// What a reader of a recording can check of each block, besides that it follows the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// Nothing: headers are left out, which makes the file a good deal smaller.
    Links,
    /// That the hash is the header's, and number, parent and time are what the header says.
    Hashes,
    /// That the block has all its logs, too, as far as the header's bloom can tell.
    Blooms,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Proof::Links => "links",
            Proof::Hashes => "hashes",
            Proof::Blooms => "blooms",
        })
    }
}

/// One line between the first and the last: a record, and what was answered there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The record.
    pub record: Record,
    /// The answers on the included tapes, in the order of the header's modules and of the calls.
    pub tape: Vec<(ModuleName, TapeEntry)>,
    /// Of a block that stands in another's place: that block, which the outside is asked about.
    pub instead_of: Option<BlockRef>,
    /// How many logs at the block's end were injected.
    pub injected: u32,
}

impl From<Record> for Entry {
    fn from(record: Record) -> Entry {
        Entry { record, tape: Vec::new(), instead_of: None, injected: 0 }
    }
}
