//! What a block proves about itself.

use alloy::{consensus, rlp::Decodable};
use alloy_primitives::{Bloom, keccak256};
use shepherd_log::{Block, BlockRef};

use super::Proof;

/// A block that is not what its header says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The hash is not the header's.
    #[error("the header of block {block} has another hash")]
    Hash {
        /// The block.
        block: BlockRef,
    },
    /// The header cannot be decoded.
    #[error("the header of block {block} cannot be decoded")]
    Layout {
        /// The block.
        block: BlockRef,
    },
    /// Number, parent or time are not the header's.
    #[error("block {block} has another number, parent or time than its header")]
    Fields {
        /// The block.
        block: BlockRef,
    },
    /// The logs are not all logs of the block, or not only those.
    #[error("the bloom of the {logs} logs of block {block} is not its header's")]
    Bloom {
        /// The block.
        block: BlockRef,
        /// How many logs it has.
        logs: usize,
    },
}

impl Proof {
    /// Checks a block as far as this goes.
    pub(super) fn check(self, of: &Block) -> Result<(), ProofError> {
        if self == Proof::Links {
            return Ok(());
        }
        let block = of.header.this;
        if keccak256(&of.header.rlp) != block.hash {
            return Err(ProofError::Hash { block });
        }
        let mut rlp = &of.header.rlp[..];
        let header =
            consensus::Header::decode(&mut rlp).map_err(|_| ProofError::Layout { block })?;
        let fields = (header.number, header.parent_hash, header.timestamp);
        if fields != (block.number, of.header.parent, of.header.timestamp) {
            return Err(ProofError::Fields { block });
        }
        if self == Proof::Hashes {
            return Ok(());
        }
        let mut bloom = Bloom::ZERO;
        for log in &of.logs {
            bloom.accrue_raw_log(log.address, &log.topics);
        }
        if bloom != header.logs_bloom {
            return Err(ProofError::Bloom { block, logs: of.logs.len() });
        }
        Ok(())
    }
}
