//! One digest over all logs of a block, which travels with the block's row.
//!
//! A bloom knows addresses and topics and nothing else: at trust `bloom` a byte of a log's data
//! could change on its way through a file unnoticed. This finds damage. It proves nothing about
//! who changed a log on purpose, who can change the digest too; only receipts could.

use alloy_primitives::{Address, B256};
use shepherd_log::{Digest, Log, LogView};

/// Gathers the logs of a block.
#[derive(Default)]
pub(crate) struct LogsDigest {
    bytes: Vec<u8>,
}

impl LogsDigest {
    pub fn of_views<'a>(logs: impl Iterator<Item = LogView<'a>>) -> Digest {
        let mut digest = LogsDigest::default();
        for log in logs {
            let positions = [log.index, log.transaction_index];
            digest.add(log.address, log.topics(), log.data, positions, log.transaction_hash);
        }
        Digest::of(&digest.bytes)
    }

    pub fn of_logs(logs: &[Log]) -> Digest {
        let mut digest = LogsDigest::default();
        for log in logs {
            let positions = [log.index, log.transaction_index];
            let topics = log.topics.iter().copied();
            digest.add(log.address, topics, &log.data, positions, log.transaction_hash);
        }
        Digest::of(&digest.bytes)
    }

    /// Adds a log so that no two lists of logs make the same bytes: what has no fixed length has
    /// its length before it.
    fn add(
        &mut self,
        address: Address,
        topics: impl ExactSizeIterator<Item = B256>,
        data: &[u8],
        positions: [u32; 2],
        transaction_hash: B256,
    ) {
        let bytes = &mut self.bytes;
        bytes.extend_from_slice(address.as_slice());
        bytes.extend_from_slice(&(topics.len() as u32).to_be_bytes());
        for topic in topics {
            bytes.extend_from_slice(topic.as_slice());
        }
        bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
        bytes.extend_from_slice(data);
        for position in positions {
            bytes.extend_from_slice(&position.to_be_bytes());
        }
        bytes.extend_from_slice(transaction_hash.as_slice());
    }
}
