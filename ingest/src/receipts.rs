//! What the receipts of a block prove about its logs.
//!
//! ```text
//!   header ── hash ──▶ the block's
//!     └── receipts root ──▶ receipt 0, receipt 1, …
//!                              └── status, gas, bloom, logs: address, topics, data
//! ```
//!
//! The block's hash commits to the receipts root, and that to every log and its place, so logs
//! whose receipts hash to the root are the block's logs. The one thing a log says that it does not
//! commit to is the hash of its transaction, which only the transactions themselves could prove:
//! receipts and logs must agree about it.

use alloy::{
    consensus::{Eip658Value, Receipt, proofs::ordered_trie_root_with_encoder},
    rlp::{BufMut, Encodable, Header},
};
use alloy_primitives::{B256, Bloom};
use shepherd_log::{Block, BlockRef, Log};

use crate::{
    Checks, Mismatch,
    verify::{BloomHashes, VerifiedHeader, block_logs},
    wire::{WireLog, WireReceipt},
};

/// The type of the transactions that the OP stack brings over from the chain below. Their
/// receipts alone have fields of their own.
const OP_DEPOSIT: u8 = 0x7e;

/// Checks that these are the receipts of a block, and joins their logs to it.
pub(crate) fn block(
    verified: VerifiedHeader,
    wire: Vec<WireReceipt>,
    checks: Checks,
    hashes: &mut BloomHashes,
) -> Result<Block, Mismatch> {
    let VerifiedHeader { header, bloom, receipts_root } = verified;
    let mut receipts = Vec::with_capacity(wire.len());
    let mut wire_logs = Vec::new();
    for (position, receipt) in wire.into_iter().enumerate() {
        let start = wire_logs.len();
        receipts.push((outline(&receipt, header.this, position)?, start));
        wire_logs.extend(receipt.logs);
    }
    let logs = block_logs(wire_logs, header.this, checks.log_indexes)?;
    let mut block_bloom = Bloom::ZERO;
    let ends = receipts.iter().skip(1).map(|(_, start)| *start).chain([logs.len()]);
    let encodings: Vec<Encoding<'_>> = receipts
        .iter()
        .zip(ends)
        .map(|((outline, start), end)| {
            let logs = &logs[*start..end];
            let bloom = hashes.bloom_of(logs);
            block_bloom |= bloom;
            Encoding { outline, bloom, logs }
        })
        .collect();
    let computed = ordered_trie_root_with_encoder(&encodings, Encoding::write);
    if computed != receipts_root {
        let receipts = encodings.len();
        return Err(Mismatch::ReceiptsRoot { claimed: receipts_root, computed, receipts });
    }
    if block_bloom != bloom {
        return Err(Mismatch::Bloom { logs: logs.len() });
    }
    Ok(Block { header, logs })
}

/// What a receipt hashes to beside its logs.
struct Outline {
    kind: u8,
    status: Eip658Value,
    cumulative_gas_used: u64,
    /// Nonce and version. The nonce was shown before it was hashed, since when there is a version
    /// (<https://specs.optimism.io/protocol/deposits.html#deposit-receipt>).
    deposit: Option<(u64, u64)>,
}

/// Checks what a receipt says of its own place, and takes what it hashes to.
fn outline(wire: &WireReceipt, block: BlockRef, position: usize) -> Result<Outline, Mismatch> {
    let answered = BlockRef { number: wire.block_number.0, hash: wire.block_hash };
    if answered != block {
        return Err(Mismatch::OtherBlocksReceipt { answered });
    }
    let misplaced = Mismatch::ReceiptPlace { position };
    if wire.transaction_index.0 != position as u64 {
        return Err(misplaced);
    }
    let is_of_this = |log: &WireLog| {
        log.transaction_hash == wire.transaction_hash
            && log.transaction_index == wire.transaction_index
    };
    if !wire.logs.iter().all(is_of_this) {
        return Err(misplaced);
    }
    // A receipt of a type above this would be taken for one without a type.
    let kind = wire.kind.map_or(0, |kind| kind.0);
    let kind = u8::try_from(kind).ok().filter(|kind| *kind < 0x80);
    let kind = kind.ok_or(Mismatch::ReceiptForm { position })?;
    let state = wire.root.as_ref().and_then(|root| B256::try_from(&root[..]).ok());
    let status = match (state, wire.status) {
        // Before Byzantium a receipt had the state after its transaction instead of a status.
        (Some(state), _) => Eip658Value::PostState(state),
        (None, Some(status)) if status.0 <= 1 => Eip658Value::Eip658(status.0 == 1),
        _ => return Err(Mismatch::ReceiptForm { position }),
    };
    let deposit = match (kind, wire.deposit_nonce, wire.deposit_receipt_version) {
        (OP_DEPOSIT, Some(nonce), Some(version)) => Some((nonce.0, version.0)),
        _ => None,
    };
    Ok(Outline { kind, status, cumulative_gas_used: wire.cumulative_gas_used.0, deposit })
}

/// A receipt as its trie holds it.
///
/// All types known to Ethereum, and those of Arbitrum, differ in their first byte alone; so will
/// those to come, or their blocks will not hold up and nothing is journaled.
struct Encoding<'a> {
    outline: &'a Outline,
    bloom: Bloom,
    logs: &'a [Log],
}

impl Encoding<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let Outline { kind, status, cumulative_gas_used, deposit } = *self.outline;
        let logs = self.logs.iter().map(Content).collect();
        let receipt = Receipt { status, cumulative_gas_used, logs };
        if kind != 0 {
            out.put_u8(kind);
        }
        let mut header = receipt.rlp_header_with_bloom(&self.bloom);
        if let Some((nonce, version)) = deposit {
            header.payload_length += nonce.length() + version.length();
        }
        header.encode(out);
        receipt.rlp_encode_fields_with_bloom(&self.bloom, out);
        if let Some((nonce, version)) = deposit {
            nonce.encode(out);
            version.encode(out);
        }
    }
}

/// What of a log is hashed.
struct Content<'a>(&'a Log);

impl Content<'_> {
    fn header(&self) -> Header {
        let Log { address, topics, data, .. } = self.0;
        let payload_length = address.length() + topics.length() + data.length();
        Header { list: true, payload_length }
    }
}

impl Encodable for Content<'_> {
    fn encode(&self, out: &mut dyn BufMut) {
        self.header().encode(out);
        self.0.address.encode(out);
        self.0.topics.encode(out);
        self.0.data.encode(out);
    }

    fn length(&self) -> usize {
        self.header().length_with_payload()
    }
}

#[cfg(test)]
mod tests {
    use alloy::consensus::{self, ReceiptEnvelope, TxType, proofs::calculate_receipt_root};
    use alloy_primitives::{Address, Bytes, keccak256};

    use super::*;
    use crate::{
        LogIndexes, Trust, verify,
        wire::{Quantity, WireHeader},
    };

    const TYPES: [TxType; 5] =
        [TxType::Legacy, TxType::Eip2930, TxType::Eip1559, TxType::Eip4844, TxType::Eip7702];

    /// Receipts of all types, with none to two logs each, as a library has them.
    fn consensus_receipts(count: usize) -> Vec<ReceiptEnvelope> {
        let receipt = |n: usize| {
            let logs = (0..n % 3).map(|log| {
                let topics = (0..log + 1).map(|topic| keccak256([n as u8, topic as u8])).collect();
                let data = vec![n as u8; 10 * n].into();
                alloy_primitives::Log::new_unchecked(Address::repeat_byte(n as u8), topics, data)
            });
            let receipt = Receipt {
                status: Eip658Value::Eip658(!n.is_multiple_of(4)),
                cumulative_gas_used: 21_000 * (n as u64 + 1),
                logs: logs.collect(),
            };
            ReceiptEnvelope::from_typed(TYPES[n % 5], receipt)
        };
        (0..count).map(receipt).collect()
    }

    /// The header of the block that has these receipts.
    fn header(receipts: &[ReceiptEnvelope]) -> VerifiedHeader {
        let bloom = receipts.iter().map(|receipt| *receipt.logs_bloom());
        with_root(calculate_receipt_root(receipts), bloom.fold(Bloom::ZERO, |a, b| a | b))
    }

    fn with_root(receipts_root: B256, logs_bloom: Bloom) -> VerifiedHeader {
        let consensus = consensus::Header { receipts_root, logs_bloom, ..Default::default() };
        let wire = WireHeader { hash: consensus.hash_slow(), consensus };
        verify::header(wire, Trust::Receipts).unwrap()
    }

    /// The same as an endpoint sends them.
    fn wire(receipts: &[ReceiptEnvelope], block: BlockRef) -> Vec<WireReceipt> {
        let mut log_index = 0;
        let receipt = |(position, receipt): (usize, &ReceiptEnvelope)| {
            let (position, hash) = (Quantity(position as u64), keccak256([position as u8]));
            let log = |log: &alloy_primitives::Log| {
                log_index += 1;
                WireLog {
                    address: log.address,
                    topics: log.topics().to_vec(),
                    data: log.data.data.clone(),
                    block_hash: block.hash,
                    block_number: Quantity(block.number),
                    log_index: Quantity(log_index - 1),
                    transaction_index: position,
                    transaction_hash: hash,
                    removed: false,
                }
            };
            WireReceipt {
                kind: Some(Quantity(u8::from(receipt.tx_type()).into())),
                status: Some(Quantity(receipt.is_success().into())),
                root: None,
                cumulative_gas_used: Quantity(receipt.cumulative_gas_used()),
                logs: receipt.logs().iter().map(log).collect(),
                block_hash: block.hash,
                block_number: Quantity(block.number),
                transaction_index: position,
                transaction_hash: hash,
                deposit_nonce: None,
                deposit_receipt_version: None,
            }
        };
        receipts.iter().enumerate().map(receipt).collect()
    }

    fn join(header: VerifiedHeader, receipts: Vec<WireReceipt>) -> Result<Block, Mismatch> {
        let checks = Checks { trust: Trust::Receipts, log_indexes: LogIndexes::Dense };
        block(header, receipts, checks, &mut BloomHashes::default())
    }

    #[test]
    fn receipts_of_all_types_hash_as_the_library_says() {
        for count in [0, 1, 5, 127, 128, 129, 200] {
            let receipts = consensus_receipts(count);
            let header = header(&receipts);
            let joined = join(header.clone(), wire(&receipts, header.header.this)).unwrap();
            let logs: Vec<_> = receipts.iter().flat_map(ReceiptEnvelope::logs).collect();
            assert_eq!(joined.logs.len(), logs.len());
            for (index, (ours, theirs)) in joined.logs.iter().zip(logs).enumerate() {
                assert_eq!(ours.index, index as u32);
                assert_eq!((ours.address, &ours.data), (theirs.address, &theirs.data.data));
                assert_eq!(ours.topics, theirs.topics());
            }
        }
    }

    #[test]
    fn no_part_of_a_receipt_can_differ_from_what_the_root_commits_to() {
        let root = |receipts| move |error| matches!(error, Mismatch::ReceiptsRoot { receipts: r, .. } if r == receipts);
        check("data", |receipts| receipts[2].logs[1].data = Bytes::new(), root(9));
        check("topic", |receipts| receipts[2].logs[1].topics[0].0[0] ^= 1, root(9));
        check("address", |receipts| receipts[2].logs[1].address.0[0] ^= 1, root(9));
        check("status", |receipts| receipts[3].status = Some(Quantity(0)), root(9));
        check("gas", |receipts| receipts[3].cumulative_gas_used.0 += 1, root(9));
        check("type", |receipts| receipts[3].kind = None, root(9));
        check("state", |receipts| receipts[3].root = Some(B256::ZERO.0.into()), root(9));
        check("one less", |receipts| drop(receipts.pop()), root(8));
        check("none", Vec::clear, root(0));
        check("last log", |receipts| drop(receipts[8].logs.pop()), root(9));
        check(
            "first log",
            |receipts| drop(receipts[1].logs.pop()),
            |error| error == Mismatch::LogMissing { expected: 0, index: 1 },
        );
        check(
            "order",
            |receipts| receipts.swap(0, 1),
            |error| error == Mismatch::ReceiptPlace { position: 0 },
        );
        check(
            "hash",
            |receipts| receipts[2].transaction_hash = B256::ZERO,
            |error| error == Mismatch::ReceiptPlace { position: 2 },
        );
        check(
            "block",
            |receipts| receipts[2].block_hash = B256::ZERO,
            |error| matches!(error, Mismatch::OtherBlocksReceipt { .. }),
        );
        check(
            "no status",
            |receipts| receipts[2].status = None,
            |error| error == Mismatch::ReceiptForm { position: 2 },
        );
        check(
            "high type",
            |receipts| receipts[2].kind = Some(Quantity(0xf9)),
            |error| error == Mismatch::ReceiptForm { position: 2 },
        );
    }

    fn check(
        what: &str,
        change: impl FnOnce(&mut Vec<WireReceipt>),
        expected: impl FnOnce(Mismatch) -> bool,
    ) {
        let receipts = consensus_receipts(9);
        let header = header(&receipts);
        let mut receipts = wire(&receipts, header.header.this);
        change(&mut receipts);
        let refused = join(header, receipts).unwrap_err();
        assert!(expected(refused.clone()), "{what}: {refused}");
    }

    #[test]
    fn a_header_whose_bloom_is_not_that_of_its_receipts_is_refused() {
        let receipts = consensus_receipts(9);
        let header = with_root(calculate_receipt_root(&receipts), Bloom::repeat_byte(1));
        let receipts = wire(&receipts, header.header.this);
        assert_eq!(join(header, receipts), Err(Mismatch::Bloom { logs: 9 }));
    }

    #[test]
    fn a_receipt_from_before_byzantium_hashes_with_the_state_after_it() {
        let state = B256::repeat_byte(7);
        let receipt =
            Receipt { status: state.into(), cumulative_gas_used: 21_000, logs: Vec::new() };
        let receipts = [ReceiptEnvelope::from_typed(TxType::Legacy, receipt)];
        let header = header(&receipts);
        let mut wire = wire(&receipts, header.header.this);
        wire[0].kind = None;
        wire[0].status = None;
        wire[0].root = Some(state.0.into());
        assert!(join(header, wire).is_ok());
    }

    /// Bytes in the form that the OP stack's specification gives, with the values of a deposit on
    /// OP mainnet before and after the Canyon upgrade.
    #[test]
    fn a_deposit_of_the_op_stack_hashes_its_nonce_only_with_a_version() {
        let fields = |length: u8, tail: &[u8]| {
            let head = [0x7e, 0xf9, 0x01, length, 0x01, 0x82, 0xb7, 0x41, 0xb9, 0x01, 0x00];
            [&head[..], &[0; 256], &[0xc0], tail].concat()
        };
        let canyon = fields(0x0d, &[0x83, 0x3d, 0x3b, 0xbf, 0x01]);
        check_deposit(Some(4_012_991), Some(1), canyon);
        check_deposit(Some(4_012_991), None, fields(0x08, &[]));
        check_deposit(None, None, fields(0x08, &[]));
    }

    fn check_deposit(nonce: Option<u64>, version: Option<u64>, expected: Vec<u8>) {
        let root = ordered_trie_root_with_encoder(&[expected], |bytes, out| out.put_slice(bytes));
        let header = with_root(root, Bloom::ZERO);
        let this = header.header.this;
        let receipt = WireReceipt {
            kind: Some(Quantity(OP_DEPOSIT.into())),
            status: Some(Quantity(1)),
            root: None,
            cumulative_gas_used: Quantity(46_913),
            logs: Vec::new(),
            block_hash: this.hash,
            block_number: Quantity(this.number),
            transaction_index: Quantity(0),
            transaction_hash: B256::ZERO,
            deposit_nonce: nonce.map(Quantity),
            deposit_receipt_version: version.map(Quantity),
        };
        join(header, vec![receipt]).unwrap();
    }
}
