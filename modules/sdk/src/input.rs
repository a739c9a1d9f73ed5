//! What a module is called for.
//!
//! Each input says where the chain is: reads are answered at the block of its header.

use std::ops::Deref;

use alloy_primitives::{Address, B256};

use crate::Outcome;

/// What a module is called for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A block with the logs that match the manifest.
    Block(Block),
    /// What came of an effect.
    Outcome(OutcomeInput),
    /// A reorg took back blocks whose effects are real already.
    Revert(RevertInput),
}

impl Input {
    /// Where the chain is.
    pub fn header(&self) -> &Header {
        match self {
            Input::Block(block) => &block.header,
            Input::Outcome(outcome) => &outcome.header,
            Input::Revert(revert) => &revert.header,
        }
    }
}

/// Which block it is, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Height in the chain.
    pub number: u64,
    /// Hash of the header.
    pub hash: B256,
    /// Hash of the block before it.
    pub parent_hash: B256,
    /// The block's own time, in seconds since 1970.
    pub timestamp: u64,
}

/// What came of an effect, told at the newest block there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeInput {
    /// Where the chain is.
    pub header: Header,
    /// What came of it.
    pub outcome: Outcome,
}

/// Blocks were taken back, and with them what the state said about effects that are real.
///
/// A lane is called with this only when there is something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevertInput {
    /// The last block both branches share. The state is as it was there.
    pub header: Header,
    /// Effects of the blocks that were taken back.
    pub outcomes: Vec<Outcome>,
}

/// A block, once, with those of its logs that match the manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Which block it is, and when.
    pub header: Header,
    /// Why the module is called.
    pub triggers: Triggers,
    /// The logs that match, in log order.
    pub logs: Vec<Log>,
}

/// Why a module is called for a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Triggers {
    /// Logs match a `[[subscribe.log]]`.
    pub logs: bool,
    /// The number is a multiple of `block_every`.
    pub block: bool,
    /// Block time has passed a multiple of `tick` since the block before.
    pub tick: bool,
}

/// One event of the block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The contract.
    pub address: Address,
    /// Zero to four topics.
    pub topics: Topics,
    /// The event's unindexed arguments.
    pub data: Vec<u8>,
    /// Position among all logs of the block, those of other contracts included.
    pub index: u32,
    /// Position of the transaction in the block.
    pub transaction_index: u32,
    /// Hash of the transaction.
    pub transaction_hash: B256,
}

/// Zero to four topics, kept in place: use it as a slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Topics {
    count: u8,
    words: [B256; 4],
}

impl Topics {
    /// The first `count` of these words. Those beyond are zeroed.
    pub(crate) fn first(count: u8, mut words: [B256; 4]) -> Topics {
        let count = count.min(4);
        words[usize::from(count)..].fill(B256::ZERO);
        Topics { count, words }
    }
}

impl Deref for Topics {
    type Target = [B256];

    fn deref(&self) -> &[B256] {
        &self.words[..usize::from(self.count)]
    }
}

/// More topics than a log can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyTopics;

impl TryFrom<&[B256]> for Topics {
    type Error = TooManyTopics;

    fn try_from(topics: &[B256]) -> Result<Topics, TooManyTopics> {
        let mut words = [B256::ZERO; 4];
        words.get_mut(..topics.len()).ok_or(TooManyTopics)?.copy_from_slice(topics);
        Ok(Topics::first(topics.len() as u8, words))
    }
}
