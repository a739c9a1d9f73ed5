//! Whether data holds up, before it may enter the journal.
//!
//! Nodes behind one address lag behind each other, providers cut answers short in silence, and
//! caches serve another block's logs. Nothing here asks anyone: what a header and logs claim is
//! compared with what follows from their bytes.

use alloy::rlp::{Decodable, Encodable};
use alloy_primitives::{
    B256, Bloom, keccak256,
    map::{AddressMap, B256Map},
};
use shepherd_log::{Block, BlockRef, BlockView, Header, Log};

use crate::{
    Checks, LogIndexes, Trust,
    wire::{WireHeader, WireLog},
};

/// How data contradicts itself or what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The header's fields do not hash to the hash it came with.
    #[error("the header claims hash {claimed}, its fields hash to {computed}")]
    HeaderHash {
        /// What the endpoint says.
        claimed: B256,
        /// What the fields say.
        computed: B256,
    },
    /// Stored header bytes that hash to the block's hash and are no header this program knows.
    #[error("the header bytes of block {block} are no header")]
    HeaderLayout {
        /// The block.
        block: BlockRef,
    },
    /// A number, parent or time beside the stored header that is not the header's.
    #[error("block {block} is stored with another number, parent or time than its header has")]
    HeaderFields {
        /// The block.
        block: BlockRef,
    },
    /// A header of a height that no chain reaches.
    #[error("block number {number} is out of range")]
    Height {
        /// The number.
        number: u64,
    },
    /// Another block than the one asked for by hash.
    #[error("asked for block {asked}, got {answered}")]
    OtherBlock {
        /// The hash asked for.
        asked: B256,
        /// The block that came.
        answered: BlockRef,
    },
    /// Another block than the one at the height asked for.
    #[error("asked for block number {asked}, got {answered}")]
    OtherNumber {
        /// The number asked for.
        asked: u64,
        /// The block that came.
        answered: BlockRef,
    },
    /// The block is older than its parent.
    #[error("its time {timestamp} is before its parent's, {parent_timestamp}")]
    Timestamp {
        /// The block's time.
        timestamp: u64,
        /// Its parent's time.
        parent_timestamp: u64,
    },
    /// A log of another block.
    #[error("a log belongs to block {answered}")]
    OtherBlocksLog {
        /// The block the log names.
        answered: BlockRef,
    },
    /// A log that a reorg took back.
    #[error("log {index} is marked as removed")]
    Removed {
        /// Its index.
        index: u64,
    },
    /// A log that does not come after the one before it.
    #[error("log index {index} comes after {previous}")]
    LogOrder {
        /// The index before.
        previous: u32,
        /// The index after it.
        index: u32,
    },
    /// A log that is missing before another.
    #[error("log index {index} comes where {expected} belongs")]
    LogMissing {
        /// The index that should have come.
        expected: u32,
        /// The index that came.
        index: u32,
    },
    /// A log of a transaction that comes before that of the log before it.
    #[error("log {index} is of transaction {transaction}, the one before it of {previous}")]
    TransactionOrder {
        /// Its index.
        index: u32,
        /// The position of its transaction.
        transaction: u32,
        /// The position of the transaction before.
        previous: u32,
    },
    /// Two logs of one transaction that name two transactions.
    #[error("log {index} names another transaction than the log before it of the same position")]
    TransactionHash {
        /// The index of the later one.
        index: u32,
    },
    /// A log with more topics than the EVM has instructions for.
    #[error("log {index} has {topics} topics")]
    Topics {
        /// Its index.
        index: u64,
        /// How many.
        topics: usize,
    },
    /// A number in a log that no block can reach.
    #[error("log position {value} is out of range")]
    Position {
        /// The number.
        value: u64,
    },
    /// A receipt of another block.
    #[error("a receipt belongs to block {answered}")]
    OtherBlocksReceipt {
        /// The block the receipt names.
        answered: BlockRef,
    },
    /// A receipt that says it belongs elsewhere, or has logs that do.
    #[error("receipt {position}, or a log of it, names another transaction")]
    ReceiptPlace {
        /// Its position among those that came.
        position: usize,
    },
    /// A receipt without a status, or of a type that cannot be.
    #[error("receipt {position} has no status or an impossible type")]
    ReceiptForm {
        /// Its position.
        position: usize,
    },
    /// The receipts are not the block's, or not all of them.
    #[error("the {receipts} receipts that came hash to {computed}, the header says {claimed}")]
    ReceiptsRoot {
        /// What the header says.
        claimed: B256,
        /// What the receipts say.
        computed: B256,
        /// How many came.
        receipts: usize,
    },
    /// The header says there are logs and none came: the endpoint is behind.
    #[error("no logs came, the header's bloom says there are some")]
    NoLogs,
    /// The logs are not all logs of the block, or not only those.
    #[error("the bloom of the {logs} logs that came is not the header's")]
    Bloom {
        /// How many came.
        logs: usize,
    },
}

/// A header that holds up, with what its logs must match.
#[derive(Clone, Debug)]
pub(crate) struct VerifiedHeader {
    pub(crate) header: Header,
    pub(crate) bloom: Bloom,
    pub(crate) receipts_root: B256,
}

impl VerifiedHeader {
    /// Whether the block is known to have no logs. A bloom that is not trusted says nothing.
    pub(crate) fn has_no_logs(&self, trust: Trust) -> bool {
        match trust {
            Trust::Link => false,
            Trust::Bloom | Trust::Receipts => self.bloom.is_zero(),
        }
    }
}

/// No chain gets this high: at a block per millisecond it takes nine thousand years. Heights below
/// can be added to and doubled without a thought.
const HEIGHT_END: u64 = 1 << 48;

/// Checks that a header has the hash it came with, and a height that a chain can have.
pub(crate) fn header(wire: WireHeader, trust: Trust) -> Result<VerifiedHeader, Mismatch> {
    let number = wire.consensus.number;
    if HEIGHT_END <= number {
        return Err(Mismatch::Height { number });
    }
    let mut rlp = Vec::with_capacity(wire.consensus.length());
    wire.consensus.encode(&mut rlp);
    let claimed = wire.hash;
    if trust.checks_hashes() {
        let computed = keccak256(&rlp);
        if computed != claimed {
            return Err(Mismatch::HeaderHash { claimed, computed });
        }
    }
    Ok(VerifiedHeader {
        header: Header {
            this: BlockRef { number, hash: claimed },
            parent: wire.consensus.parent_hash,
            timestamp: wire.consensus.timestamp,
            rlp: rlp.into(),
        },
        bloom: wire.consensus.logs_bloom,
        receipts_root: wire.consensus.receipts_root,
    })
}

/// Checks that the block asked for by number came.
pub(crate) fn has_number(header: &Header, asked: u64) -> Result<(), Mismatch> {
    if header.this.number != asked {
        return Err(Mismatch::OtherNumber { asked, answered: header.this });
    }
    Ok(())
}

/// Checks that the block asked for by hash came, and that it is as high as its child says.
pub(crate) fn is_block(header: &Header, asked: BlockRef) -> Result<(), Mismatch> {
    if header.this.hash != asked.hash {
        return Err(Mismatch::OtherBlock { asked: asked.hash, answered: header.this });
    }
    has_number(header, asked.number)
}

/// Checks that a block is not older than its parent.
pub(crate) fn is_later(header: &Header, parent_timestamp: u64) -> Result<(), Mismatch> {
    let timestamp = header.timestamp;
    if timestamp < parent_timestamp {
        return Err(Mismatch::Timestamp { timestamp, parent_timestamp });
    }
    Ok(())
}

/// Hashes for blooms, by what was hashed.
///
/// From block to block the same contracts, events and accounts come again, and hashing them is
/// most of what it costs to verify logs. Kept for one fetch, so that it stays small.
#[derive(Default)]
pub(crate) struct BloomHashes {
    addresses: AddressMap<B256>,
    topics: B256Map<B256>,
}

impl BloomHashes {
    /// The bloom that a block with exactly these logs has.
    pub(crate) fn bloom_of(&mut self, logs: &[Log]) -> Bloom {
        let mut bloom = Bloom::ZERO;
        for log in logs {
            let hash = self.addresses.entry(log.address).or_insert_with(|| keccak256(log.address));
            bloom.m3_2048_hashed(hash);
            for topic in &log.topics {
                let hash = self.topics.entry(*topic).or_insert_with(|| keccak256(topic));
                bloom.m3_2048_hashed(hash);
            }
        }
        bloom
    }
}

/// Checks that these are the logs of the block, and joins them to it.
pub(crate) fn block(
    verified: VerifiedHeader,
    wire: Vec<WireLog>,
    checks: Checks,
    hashes: &mut BloomHashes,
) -> Result<Block, Mismatch> {
    let VerifiedHeader { header, bloom, .. } = verified;
    let logs = block_logs(wire, header.this, checks.log_indexes)?;
    if checks.trust.checks_hashes() {
        has_bloom(&logs, &bloom, hashes)?;
    }
    Ok(Block { header, logs })
}

/// Checks that logs say of themselves that they are those of one block, in their order.
pub(crate) fn block_logs(
    wire: Vec<WireLog>,
    block: BlockRef,
    indexes: LogIndexes,
) -> Result<Vec<Log>, Mismatch> {
    let mut logs = Vec::<Log>::with_capacity(wire.len());
    for log in wire {
        let log = check_log(log, block)?;
        follows(logs.last(), &log, indexes)?;
        logs.push(log);
    }
    Ok(logs)
}

/// Checks that these logs, no more and no fewer, make up the bloom of their block.
fn has_bloom(logs: &[Log], bloom: &Bloom, hashes: &mut BloomHashes) -> Result<(), Mismatch> {
    if logs.is_empty() && !bloom.is_zero() {
        return Err(Mismatch::NoLogs);
    }
    if hashes.bloom_of(logs) != *bloom {
        return Err(Mismatch::Bloom { logs: logs.len() });
    }
    Ok(())
}

/// Checks a block that was journaled at some trust level again, from its stored bytes alone.
///
/// What was compared with other answers cannot be compared again: receipts are not kept, so at
/// level `receipts` this proves no more than at level `bloom`, and at level `link` only the order
/// of the logs. How densely a chain numbers its logs is not asked either.
pub fn stored(block: &BlockView<'_>, trust: Trust) -> Result<(), Mismatch> {
    owned(&block.to_block(), Checks { trust, log_indexes: LogIndexes::Rising })
}

/// Checks a block that came with all its parts from elsewhere than an endpoint, such as a file,
/// as far as its own bytes prove anything: `receipts` is held to no more than `bloom`.
pub fn owned(block: &Block, checks: Checks) -> Result<(), Mismatch> {
    let mut previous = None;
    for log in &block.logs {
        follows(previous, log, checks.log_indexes)?;
        previous = Some(log);
    }
    if !checks.trust.checks_hashes() {
        return Ok(());
    }
    let Header { this, parent, timestamp, rlp } = &block.header;
    let computed = keccak256(rlp);
    if computed != this.hash {
        return Err(Mismatch::HeaderHash { claimed: this.hash, computed });
    }
    let header = alloy::consensus::Header::decode(&mut &rlp[..])
        .map_err(|_| Mismatch::HeaderLayout { block: *this })?;
    let fields = (header.number, header.parent_hash, header.timestamp);
    if fields != (this.number, *parent, *timestamp) {
        return Err(Mismatch::HeaderFields { block: *this });
    }
    has_bloom(&block.logs, &header.logs_bloom, &mut BloomHashes::default())
}

/// Checks that a log says of itself that it is one of this block.
fn check_log(wire: WireLog, block: BlockRef) -> Result<Log, Mismatch> {
    let answered = BlockRef { number: wire.block_number.0, hash: wire.block_hash };
    let index = wire.log_index.0;
    if answered != block {
        return Err(Mismatch::OtherBlocksLog { answered });
    }
    if wire.removed {
        return Err(Mismatch::Removed { index });
    }
    if wire.topics.len() > 4 {
        return Err(Mismatch::Topics { index, topics: wire.topics.len() });
    }
    let narrow = |value: u64| u32::try_from(value).map_err(|_| Mismatch::Position { value });
    Ok(Log {
        address: wire.address,
        topics: wire.topics,
        data: wire.data,
        index: narrow(index)?,
        transaction_index: narrow(wire.transaction_index.0)?,
        transaction_hash: wire.transaction_hash,
    })
}

/// Checks that a log comes after the one before it in the same block, if any.
fn follows(previous: Option<&Log>, log: &Log, indexes: LogIndexes) -> Result<(), Mismatch> {
    let index = log.index;
    if let Some(previous) = previous
        && index <= previous.index
    {
        return Err(Mismatch::LogOrder { previous: previous.index, index });
    }
    let expected = previous.map_or(0, |previous| previous.index + 1);
    if indexes == LogIndexes::Dense && index != expected {
        return Err(Mismatch::LogMissing { expected, index });
    }
    let Some(previous) = previous else { return Ok(()) };
    if log.transaction_index < previous.transaction_index {
        return Err(Mismatch::TransactionOrder {
            index,
            transaction: log.transaction_index,
            previous: previous.transaction_index,
        });
    }
    if log.transaction_index == previous.transaction_index
        && log.transaction_hash != previous.transaction_hash
    {
        return Err(Mismatch::TransactionHash { index });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alloy::consensus;
    use alloy_primitives::{Address, Bytes};

    use super::*;
    use crate::wire::Quantity;

    /// A block with two logs, and the logs as an endpoint sends them.
    fn example() -> (VerifiedHeader, Vec<WireLog>) {
        let mut bloom = Bloom::ZERO;
        for n in 0..2 {
            bloom.accrue_raw_log(Address::repeat_byte(n), &[B256::repeat_byte(n)]);
        }
        let consensus = consensus::Header { number: 7, logs_bloom: bloom, ..Default::default() };
        let verified =
            header(WireHeader { hash: consensus.hash_slow(), consensus }, Trust::Bloom).unwrap();
        let this = verified.header.this;
        let logs = (0..2).map(|n| wire_log(this, n)).collect();
        (verified, logs)
    }

    fn wire_log(block: BlockRef, n: u8) -> WireLog {
        WireLog {
            address: Address::repeat_byte(n),
            topics: vec![B256::repeat_byte(n)],
            data: Bytes::new(),
            block_hash: block.hash,
            block_number: Quantity(block.number),
            log_index: Quantity(u64::from(n)),
            transaction_index: Quantity(0),
            transaction_hash: B256::ZERO,
            removed: false,
        }
    }

    fn join(verified: VerifiedHeader, logs: Vec<WireLog>, trust: Trust) -> Result<Block, Mismatch> {
        let checks = Checks { trust, log_indexes: LogIndexes::Dense };
        block(verified, logs, checks, &mut BloomHashes::default())
    }

    #[test]
    fn a_bloom_is_the_same_whether_its_hashes_are_remembered_or_not() {
        let (verified, logs) = example();
        let logs = join(verified.clone(), logs, Trust::Bloom).unwrap().logs;
        let mut hashes = BloomHashes::default();
        assert_eq!(hashes.bloom_of(&logs), verified.bloom);
        assert_eq!(hashes.bloom_of(&logs), verified.bloom);
        assert_eq!(hashes.bloom_of(&[]), Bloom::ZERO);
    }

    #[test]
    fn a_header_must_have_the_hash_it_came_with() {
        let consensus = consensus::Header { number: 7, ..Default::default() };
        let computed = consensus.hash_slow();
        let claimed = B256::repeat_byte(1);
        let lie = || WireHeader { hash: claimed, consensus: consensus.clone() };
        let refused = header(lie(), Trust::Bloom).unwrap_err();
        assert_eq!(refused, Mismatch::HeaderHash { claimed, computed });
        assert_eq!(header(lie(), Trust::Link).unwrap().header.this.hash, claimed);
    }

    #[test]
    fn a_height_that_no_chain_reaches_is_refused() {
        for (number, holds_up) in [(HEIGHT_END - 1, true), (HEIGHT_END, false), (u64::MAX, false)] {
            let consensus = consensus::Header { number, ..Default::default() };
            let told = WireHeader { hash: consensus.hash_slow(), consensus };
            assert_eq!(header(told, Trust::Bloom).is_ok(), holds_up, "{number}");
        }
    }

    #[test]
    fn the_journaled_header_hashes_to_the_block() {
        let (verified, _) = example();
        assert_eq!(keccak256(&verified.header.rlp), verified.header.this.hash);
    }

    #[test]
    fn a_block_with_all_its_logs_holds_up() {
        let (verified, logs) = example();
        let block = join(verified, logs, Trust::Bloom).unwrap();
        assert_eq!(block.logs.len(), 2);
        assert_eq!(block.logs[1].index, 1);
    }

    #[test]
    fn logs_that_contradict_their_block_are_refused() {
        let other = BlockRef { number: 7, hash: B256::repeat_byte(9) };
        check(|logs| logs[1].block_hash = other.hash, Mismatch::OtherBlocksLog { answered: other });
        check(|logs| logs[1].removed = true, Mismatch::Removed { index: 1 });
        check(|logs| logs[1].log_index = Quantity(0), Mismatch::LogOrder { previous: 0, index: 0 });
        check(|logs| logs.reverse(), Mismatch::LogMissing { expected: 0, index: 1 });
        check(|logs| drop(logs.remove(0)), Mismatch::LogMissing { expected: 0, index: 1 });
        let (expected, index) = (1, 2);
        check(|logs| logs[1].log_index = Quantity(2), Mismatch::LogMissing { expected, index });
        let earlier = Mismatch::TransactionOrder { index: 1, transaction: 0, previous: 3 };
        check(|logs| logs[0].transaction_index = Quantity(3), earlier);
        let other_hash = Mismatch::TransactionHash { index: 1 };
        check(|logs| logs[1].transaction_hash = B256::repeat_byte(1), other_hash);
        check(
            |logs| logs[0].topics = vec![B256::ZERO; 5],
            Mismatch::Topics { index: 0, topics: 5 },
        );
        let large = 1 << 32;
        check(|logs| logs[1].log_index = Quantity(large), Mismatch::Position { value: large });
        check(Vec::clear, Mismatch::NoLogs);
        check(|logs| drop(logs.pop()), Mismatch::Bloom { logs: 1 });
        check(|logs| logs[0].address = Address::repeat_byte(5), Mismatch::Bloom { logs: 2 });
        check(|logs| logs[0].topics.clear(), Mismatch::Bloom { logs: 2 });
    }

    fn check(spoil: impl Fn(&mut Vec<WireLog>), expected: Mismatch) {
        let (verified, mut logs) = example();
        spoil(&mut logs);
        assert_eq!(join(verified, logs, Trust::Bloom).unwrap_err(), expected);
    }

    #[test]
    fn a_log_of_another_height_is_refused() {
        let (verified, mut logs) = example();
        logs[0].block_number = Quantity(8);
        let refused = join(verified, logs, Trust::Link).unwrap_err();
        assert!(matches!(refused, Mismatch::OtherBlocksLog { .. }), "{refused}");
    }

    #[test]
    fn a_chain_that_numbers_logs_with_gaps_is_held_to_their_order_alone() {
        let (verified, mut logs) = example();
        logs[0].log_index = Quantity(3);
        logs[1].log_index = Quantity(8);
        let checks = Checks { trust: Trust::Bloom, log_indexes: LogIndexes::Rising };
        let joined = block(verified.clone(), logs.clone(), checks, &mut BloomHashes::default());
        assert_eq!(joined.unwrap().logs.len(), 2);
        logs.reverse();
        let refused = block(verified, logs, checks, &mut BloomHashes::default());
        assert_eq!(refused, Err(Mismatch::LogOrder { previous: 8, index: 3 }));
    }

    #[test]
    fn without_trust_in_blooms_they_prove_nothing() {
        let (verified, mut logs) = example();
        logs.pop();
        assert_eq!(join(verified, logs, Trust::Link).unwrap().logs.len(), 1);
        let consensus = consensus::Header::default();
        let wire = WireHeader { hash: consensus.hash_slow(), consensus };
        let verified = header(wire, Trust::Bloom).unwrap();
        assert!(verified.has_no_logs(Trust::Bloom));
        assert!(!verified.has_no_logs(Trust::Link));
    }

    #[test]
    fn the_block_that_was_asked_for_must_come() {
        let (verified, _) = example();
        let header = verified.header;
        let this = header.this;
        assert_eq!(is_block(&header, this), Ok(()));
        let asked = B256::repeat_byte(9);
        assert_eq!(
            is_block(&header, BlockRef { hash: asked, ..this }),
            Err(Mismatch::OtherBlock { asked, answered: this })
        );
        assert_eq!(
            is_block(&header, BlockRef { number: 8, ..this }),
            Err(Mismatch::OtherNumber { asked: 8, answered: this })
        );
    }

    #[test]
    fn time_does_not_run_backwards() {
        let (verified, _) = example();
        let at = |timestamp| Header { timestamp, ..verified.header.clone() };
        assert_eq!(is_later(&at(5), 4), Ok(()));
        assert_eq!(is_later(&at(5), 5), Ok(()));
        let refused = Mismatch::Timestamp { timestamp: 5, parent_timestamp: 6 };
        assert_eq!(is_later(&at(5), 6), Err(refused));
    }
}
