//! Records on their way into the journal.

use shepherd_log::{Block, BlockRef, Header, Log, Record, Revert};

/// Bytes of records per append. A batch of the store holds 8 MiB, and our count is an estimate.
const APPEND_BYTES_MAX: usize = 4 << 20;

/// The newest block of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) this: BlockRef,
    pub(crate) timestamp: u64,
}

/// Records that are fetched and verified, not yet durable.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) records: Vec<Record>,
    bytes: usize,
    pub(crate) blocks: u64,
    pub(crate) logs: u64,
    /// The head after them.
    pub(crate) head: Option<Head>,
}

impl Pending {
    /// A reorg, which the blocks of the new branch are to follow.
    pub(crate) fn revert(ancestor: Head, abandoned: Vec<BlockRef>) -> Pending {
        let bytes = abandoned.len() * size_of::<BlockRef>();
        let revert = Record::Revert(Revert { ancestor: ancestor.this, abandoned });
        Pending { records: vec![revert], bytes, head: Some(ancestor), ..Pending::default() }
    }

    /// Whether the block still fits into one append; if not, append first.
    pub(crate) fn has_room_for(&self, block: &Block, blocks_max: usize) -> bool {
        self.records.is_empty()
            || (self.records.len() < blocks_max && self.bytes + size(block) <= APPEND_BYTES_MAX)
    }

    /// Adds the block after the head.
    pub(crate) fn push(&mut self, block: Block) {
        self.bytes += size(&block);
        self.blocks += 1;
        self.logs += block.logs.len() as u64;
        self.head = Some(Head { this: block.header.this, timestamp: block.header.timestamp });
        self.records.push(Record::Block(block));
    }
}

/// Roughly what a block takes in the journal.
fn size(block: &Block) -> usize {
    let logs =
        block.logs.iter().map(|log| size_of::<Log>() + 32 * log.topics.len() + log.data.len());
    size_of::<Header>() + block.header.rlp.len() + logs.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{Address, B256, Bytes};

    use super::*;

    fn block(number: u64, data_bytes: usize) -> Block {
        let log = Log {
            address: Address::ZERO,
            topics: Vec::new(),
            data: Bytes::from(vec![0; data_bytes]),
            index: 0,
            transaction_index: 0,
            transaction_hash: B256::ZERO,
        };
        let header = Header {
            this: BlockRef { number, hash: B256::with_last_byte(number as u8) },
            parent: B256::with_last_byte(number as u8 - 1),
            timestamp: number,
            rlp: Bytes::new(),
        };
        Block { header, logs: vec![log] }
    }

    #[test]
    fn an_append_is_bounded_in_bytes_and_in_blocks() {
        let mut pending = Pending::default();
        assert!(pending.has_room_for(&block(1, 9 << 20), 3), "a large block goes alone");
        pending.push(block(1, 3 << 20));
        assert!(pending.has_room_for(&block(2, 1000), 3));
        assert!(!pending.has_room_for(&block(2, 1 << 20), 3));
        pending.push(block(2, 1000));
        pending.push(block(3, 1000));
        assert!(!pending.has_room_for(&block(4, 0), 3));
        assert_eq!((pending.blocks, pending.logs), (3, 3));
    }

    #[test]
    fn after_a_revert_alone_the_ancestor_is_the_head() {
        let ancestor = Head { this: block(1, 0).header.this, timestamp: 1 };
        let mut pending = Pending::revert(ancestor, vec![block(2, 0).header.this]);
        assert_eq!(pending.head, Some(ancestor));
        assert!(!pending.has_room_for(&block(2, 9 << 20), 3));
        pending.push(block(2, 0));
        assert_eq!(pending.head.map(|head| head.this.number), Some(2));
    }
}
