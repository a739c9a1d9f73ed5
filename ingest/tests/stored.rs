//! What was journaled can be checked again from its stored bytes alone.

use alloy::{consensus, rlp::Encodable};
use alloy_primitives::{Address, B256, Bloom};
use shepherd_ingest::{Mismatch, Trust, verify_stored};
use shepherd_log::{Block, BlockRef, Header, Log, Offset, Options, Record, RecordView, Store};
use tempfile::TempDir;

/// A block with two logs, as an honest chain has it.
fn honest() -> Block {
    let log = |n: u8| Log {
        address: Address::repeat_byte(n),
        topics: vec![B256::repeat_byte(n)],
        data: vec![n].into(),
        index: n.into(),
        transaction_index: 0,
        transaction_hash: B256::ZERO,
    };
    let logs = vec![log(1), log(2)];
    let mut bloom = Bloom::ZERO;
    for log in &logs {
        bloom.accrue_raw_log(log.address, &log.topics);
    }
    let header = consensus::Header {
        number: 7,
        parent_hash: B256::repeat_byte(6),
        timestamp: 1_700_000_000,
        logs_bloom: bloom,
        ..Default::default()
    };
    let mut rlp = Vec::new();
    header.encode(&mut rlp);
    let this = BlockRef { number: 7, hash: header.hash_slow() };
    let (parent, timestamp) = (header.parent_hash, header.timestamp);
    Block { header: Header { this, parent, timestamp, rlp: rlp.into() }, logs }
}

/// A store, in which each block gets a chain of its own.
struct Shelf {
    store: Store,
    chains: u64,
    _directory: TempDir,
}

impl Shelf {
    fn new() -> Shelf {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), Options::default()).unwrap();
        Shelf { store, chains: 0, _directory: directory }
    }

    /// Stores a block, which checks no hashes, and checks it again.
    fn check(&mut self, block: Block, trust: Trust) -> Result<(), Mismatch> {
        self.chains += 1;
        let name = format!("testnet-{}", self.chains).parse().unwrap();
        let journal = self.store.journal(&name, self.chains).unwrap();
        journal.append(Offset::START, &[Record::Block(block)]).unwrap();
        let stored = journal.read(Offset::START..Offset::new(1)).next().unwrap().unwrap();
        match stored.record() {
            RecordView::Block(block) => verify_stored(&block, trust),
            _ => unreachable!("a block was stored"),
        }
    }
}

#[test]
fn a_stored_block_is_held_to_its_header_again() {
    let mut shelf = Shelf::new();
    let mut check = |block, trust| shelf.check(block, trust);
    assert_eq!(check(honest(), Trust::Bloom), Ok(()));
    let this = honest().header.this;

    let mut missing = honest();
    missing.logs.pop();
    assert_eq!(check(missing.clone(), Trust::Bloom), Err(Mismatch::Bloom { logs: 1 }));
    assert_eq!(check(missing.clone(), Trust::Link), Ok(()), "`link` does not miss any");
    let refused = check(missing, Trust::Receipts);
    assert_eq!(refused, Err(Mismatch::Bloom { logs: 1 }), "receipts are not kept, blooms are");

    let mut two_transactions = honest();
    two_transactions.logs[1].transaction_hash = B256::repeat_byte(1);
    let refused = Err(Mismatch::TransactionHash { index: 2 });
    assert_eq!(check(two_transactions, Trust::Link), refused, "`link` looks at the order");

    let mut other_header = honest();
    let mut rlp = other_header.header.rlp.to_vec();
    *rlp.last_mut().unwrap() ^= 1;
    other_header.header.rlp = rlp.into();
    let refused = check(other_header, Trust::Bloom).unwrap_err();
    assert!(matches!(refused, Mismatch::HeaderHash { claimed, .. } if claimed == this.hash));

    let mut other_time = honest();
    other_time.header.timestamp += 1;
    assert_eq!(check(other_time, Trust::Bloom), Err(Mismatch::HeaderFields { block: this }));
}
