//! What if it had gone otherwise: a history with logs added, logs left out, reorgs that never were.
//!
//! ```text
//!   --drop      [b5 a b][b6 b  ][b7 a]     what matches goes
//!   --inject    [b5   b][b6 b x][b7  ]     x goes to the end of its block's logs
//!   --reorg-at 7:2
//!               [b5][b6][b7] [revert to b5][b6'][b7'] [revert to b5][b6][b7] [b8]
//!                             └ after block 7, two blocks deep ─┘ and back ┘
//! ```
//!
//! *Dropped* are logs of the history alone, never injected ones. *Injected* logs come after all
//! logs that their block really had, in the order given, on every branch that has a block at that
//! height. Unless the file names a transaction, theirs is [`INJECTED`].
//!
//! A *reorg* comes right after its block, the first time the chain is that high. The last `depth`
//! blocks are taken back, as many others come in their place, and then those are taken back and the
//! original blocks come again, so that the rest of the history follows as it did. The replacements
//! have hashes of their own, which no chain has, the original times, and either the original logs
//! or none. The outside (tape, cache, endpoint) cannot know them and is asked about the original
//! block of the same height instead. Because the chain ends up where it was, a correct module ends
//! up with the state it has without the reorg: [`same_state`] says whether it does.
//!
//! Hashes and blooms no longer fit what was changed. A history that was changed says so and is never
//! taken for an ordinary one.

mod history;
mod modify;
mod parse;
mod same;

use std::ops::RangeInclusive;

use alloy_primitives::{Address, B256, Bytes};
use shepherd_log::Log;

pub use history::{ModifiedHistory, MovedTape, WhatIfError, modified_history};
pub use modify::{Changed, ModifyError};
pub use parse::{InjectError, InvalidWhatIf};
pub use same::{StateDifference, same_state};

/// Transaction hash of injected logs that name none: these words, as bytes.
pub const INJECTED: B256 = B256::new(*b"shepherd: an injected log       ");

/// What is changed in a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WhatIf {
    /// Logs that are added.
    pub inject: Vec<Inject>,
    /// Logs that are left out.
    pub drop: Vec<DropLogs>,
    /// Reorgs that are made up.
    pub reorgs: Vec<ReorgAt>,
}

/// A log that is added to a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inject {
    /// The block's height.
    pub block: u64,
    /// The contract.
    pub address: Address,
    /// At most four topics.
    pub topics: Vec<B256>,
    /// The unindexed arguments.
    pub data: Bytes,
    /// Hash of its transaction.
    pub transaction_hash: B256,
}

/// Logs that are left out: those that have everything that is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropLogs {
    /// Of this contract, or of any.
    pub address: Option<Address>,
    /// With this first topic, or any and none.
    pub topic0: Option<B256>,
    /// In blocks of these heights.
    pub blocks: RangeInclusive<u64>,
}

/// A reorg that is made up, and taken back again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReorgAt {
    /// The height after which it comes.
    pub block: u64,
    /// How many blocks it takes back; at least one.
    pub depth: u64,
    /// What the blocks in their place have.
    pub replacements: Replacements,
}

/// What the blocks of a made-up branch have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacements {
    /// The logs of the blocks they stand for: every transaction is included again.
    SameLogs,
    /// No logs: no transaction is included on this branch.
    Empty,
}

impl WhatIf {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        *self == WhatIf::default()
    }

    /// What is changed, a line each, in the words of the command line.
    pub fn in_words(&self) -> Vec<String> {
        let injected = self.inject.iter().map(|inject| {
            format!("inject into block {} a log of {}", inject.block, inject.address)
        });
        let dropped = self.drop.iter().map(|drop| format!("drop {drop}"));
        let reorgs = self.reorgs.iter().map(|reorg| format!("reorg-at {reorg}"));
        injected.chain(dropped).chain(reorgs).collect()
    }
}

impl DropLogs {
    fn matches(&self, number: u64, log: &Log) -> bool {
        self.blocks.contains(&number)
            && self.address.is_none_or(|address| address == log.address)
            && self.topic0.is_none_or(|topic| log.topics.first() == Some(&topic))
    }
}
