//! Blocks, logs and receipts as JSON text.
//!
//! This is a load generator: whoever reads from it is to be the bottleneck. So text is written
//! straight into a buffer that is used again, without a tree of values, and what is the same for
//! all logs of a block or of a transaction is written out once.

use alloy_primitives::{B256, Bloom, hex};

use crate::{
    chain::{Block, Chain},
    content::{Sketch, transaction_hash},
    receipts::{self, Outcome},
};

/// Which logs are wanted, beside those of which blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Any of these contracts; empty is any at all.
    pub(crate) addresses: Vec<alloy_primitives::Address>,
    /// Any of these at each position; empty is any at all.
    pub(crate) topics: Vec<Vec<B256>>,
}

impl Filter {
    fn is_open(&self) -> bool {
        self.addresses.is_empty() && self.topics.is_empty()
    }

    /// Whether the block may have such a log.
    fn may_match(&self, bloom: &Bloom) -> bool {
        let any = |wanted: &[&[u8]]| {
            let mut inputs = wanted.iter().map(|wanted| {
                let mut one = Bloom::ZERO;
                one.m3_2048(wanted);
                one
            });
            wanted.is_empty() || inputs.any(|one| bloom.contains(&one))
        };
        let addresses: Vec<&[u8]> = self.addresses.iter().map(|one| one.as_slice()).collect();
        any(&addresses)
            && self.topics.iter().all(|topics| {
                let topics: Vec<&[u8]> = topics.iter().map(B256::as_slice).collect();
                any(&topics)
            })
    }

    fn matches(&self, chain: &Chain, sketch: &Sketch) -> bool {
        let universe = chain.universe();
        let address = || universe.contract(sketch.contract);
        if !self.addresses.is_empty() && !self.addresses.contains(&address()) {
            return false;
        }
        self.topics.len() <= sketch.topics().len()
            && self.topics.iter().zip(sketch.topics()).all(|(wanted, topic)| {
                wanted.is_empty() || wanted.contains(&universe.topic(*topic))
            })
    }
}

/// Writes the logs of a block that are wanted, each followed by a comma. Returns how many.
pub(crate) fn logs(out: &mut Vec<u8>, chain: &Chain, block: &Block, filter: &Filter) -> usize {
    let open = filter.is_open();
    if block.logs == 0 || (!open && !filter.may_match(&block.bloom)) {
        return 0;
    }
    let of_block = of_block(block);
    let mut of_transaction = Vec::new();
    let mut transaction = None;
    let mut data = Vec::new();
    let mut written = 0;
    for sketch in chain.sketches(block) {
        if !open && !filter.matches(chain, &sketch) {
            continue;
        }
        if transaction != Some(sketch.transaction) {
            transaction = Some(sketch.transaction);
            of_transaction.clear();
            write_of_transaction(&mut of_transaction, block, sketch.transaction);
        }
        log(out, chain, &sketch, &of_block, &of_transaction, &mut data);
        out.push(b',');
        written += 1;
    }
    written
}

/// What all logs of a block have in common.
fn of_block(block: &Block) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(b"\"blockHash\":\"");
    digits(&mut out, block.hash.as_slice());
    out.extend_from_slice(b"\",\"blockNumber\":\"");
    quantity(&mut out, block.number);
    out.extend_from_slice(b"\",\"blockTimestamp\":\"");
    quantity(&mut out, block.timestamp);
    out.extend_from_slice(b"\",");
    out
}

/// What all logs of a transaction have in common.
fn write_of_transaction(out: &mut Vec<u8>, block: &Block, index: u32) {
    out.extend_from_slice(b"\"transactionHash\":\"");
    digits(out, transaction_hash(block.number, block.key, index).as_slice());
    out.extend_from_slice(b"\",\"transactionIndex\":\"");
    quantity(out, index.into());
    out.extend_from_slice(b"\",\"logIndex\":\"");
}

fn log(
    out: &mut Vec<u8>,
    chain: &Chain,
    sketch: &Sketch,
    of_block: &[u8],
    of_transaction: &[u8],
    data: &mut Vec<u8>,
) {
    let universe = chain.universe();
    out.extend_from_slice(b"{\"address\":\"");
    digits(out, universe.contract(sketch.contract).as_slice());
    out.extend_from_slice(b"\",\"topics\":[\"");
    for topic in sketch.topics() {
        digits(out, universe.topic(*topic).as_slice());
        out.extend_from_slice(b"\",\"");
    }
    // The list ended with the beginning of the next entry.
    out.truncate(out.len() - if sketch.topics().is_empty() { 1 } else { 2 });
    out.extend_from_slice(b"],\"data\":\"");
    data.clear();
    sketch.write_data(data);
    digits(out, data);
    out.extend_from_slice(b"\",");
    out.extend_from_slice(of_block);
    out.extend_from_slice(of_transaction);
    quantity(out, sketch.index.into());
    out.extend_from_slice(b"\",\"removed\":false}");
}

/// Writes a block, with its transactions or their hashes alone.
pub(crate) fn block(out: &mut Vec<u8>, chain: &Chain, block: &Block, full: bool) {
    let header = chain.header(block);
    let hashes = [
        ("hash", block.hash),
        ("parentHash", header.parent_hash),
        ("sha3Uncles", header.ommers_hash),
        ("stateRoot", header.state_root),
        ("transactionsRoot", header.transactions_root),
        ("receiptsRoot", header.receipts_root),
        ("mixHash", header.mix_hash),
        ("withdrawalsRoot", header.withdrawals_root.unwrap_or_default()),
        ("parentBeaconBlockRoot", header.parent_beacon_block_root.unwrap_or_default()),
    ];
    let quantities = [
        ("number", header.number),
        ("timestamp", header.timestamp),
        ("gasLimit", header.gas_limit),
        ("gasUsed", header.gas_used),
        ("baseFeePerGas", header.base_fee_per_gas.unwrap_or_default()),
        ("blobGasUsed", header.blob_gas_used.unwrap_or_default()),
        ("excessBlobGas", header.excess_blob_gas.unwrap_or_default()),
        ("difficulty", 0),
        ("totalDifficulty", 0),
        ("size", 600 + 150 * u64::from(block.transactions)),
    ];
    out.push(b'{');
    hashes.iter().for_each(|(name, hash)| text_member(out, name, hash.as_slice()));
    text_member(out, "miner", header.beneficiary.as_slice());
    text_member(out, "logsBloom", header.logs_bloom.as_slice());
    text_member(out, "extraData", &header.extra_data);
    text_member(out, "nonce", header.nonce.as_slice());
    quantities.iter().for_each(|(name, number)| quantity_member(out, name, *number));
    out.extend_from_slice(b"\"uncles\":[],\"withdrawals\":[],\"transactions\":[");
    for index in 0..block.transactions {
        if index > 0 {
            out.push(b',');
        }
        if full {
            transaction(out, block, index);
        } else {
            out.push(b'"');
            digits(out, transaction_hash(block.number, block.key, index).as_slice());
            out.push(b'"');
        }
    }
    out.extend_from_slice(b"]}");
}

/// Writes a transaction. Nobody signed it, and its hash is not that of its fields.
fn transaction(out: &mut Vec<u8>, block: &Block, index: u32) {
    let hash = transaction_hash(block.number, block.key, index);
    let outcome = receipts::outcome(block.key, index, 0);
    out.push(b'{');
    text_member(out, "blockHash", block.hash.as_slice());
    quantity_member(out, "blockNumber", block.number);
    text_member(out, "hash", hash.as_slice());
    quantity_member(out, "transactionIndex", index.into());
    quantity_member(out, "type", outcome.transaction_type.into());
    text_member(out, "from", &hash[..20]);
    text_member(out, "to", &hash[12..]);
    text_member(out, "input", &[]);
    text_member(out, "r", hash.as_slice());
    text_member(out, "s", hash.as_slice());
    for (name, number) in [
        ("nonce", 0),
        ("value", 0),
        ("gas", 1_000_000),
        ("gasPrice", 2_000_000_000),
        ("maxFeePerGas", 3_000_000_000),
        ("maxPriorityFeePerGas", 1_000_000_000),
        ("chainId", 1),
        ("v", 0),
        ("yParity", 0),
    ] {
        quantity_member(out, name, number);
    }
    out.extend_from_slice(b"\"accessList\":[]}");
}

/// Writes the receipts of a block, each followed by a comma: all, or of one transaction.
pub(crate) fn receipts(out: &mut Vec<u8>, chain: &Chain, block: &Block, only: Option<u32>) {
    let sketches: Vec<Sketch> = chain.sketches(block).collect();
    let of_block = of_block(block);
    let mut rest = &sketches[..];
    let mut cumulative_gas_used = 0;
    for index in 0..block.transactions {
        let own = rest.iter().take_while(|log| log.transaction == index).count();
        let (own, others) = rest.split_at(own);
        rest = others;
        let outcome = receipts::outcome(block.key, index, own.len());
        cumulative_gas_used += outcome.gas_used;
        if only.is_none_or(|only| only == index) {
            receipt(out, chain, block, index, outcome, cumulative_gas_used, (own, &of_block));
            out.push(b',');
        }
    }
}

fn receipt(
    out: &mut Vec<u8>,
    chain: &Chain,
    block: &Block,
    index: u32,
    outcome: Outcome,
    cumulative_gas_used: u64,
    (logs, of_block): (&[Sketch], &[u8]),
) {
    let hash = transaction_hash(block.number, block.key, index);
    out.push(b'{');
    quantity_member(out, "type", outcome.transaction_type.into());
    quantity_member(out, "status", outcome.succeeded.into());
    quantity_member(out, "cumulativeGasUsed", cumulative_gas_used);
    quantity_member(out, "gasUsed", outcome.gas_used);
    quantity_member(out, "effectiveGasPrice", 2_000_000_000);
    text_member(out, "from", &hash[..20]);
    text_member(out, "to", &hash[12..]);
    text_member(out, "transactionHash", hash.as_slice());
    quantity_member(out, "transactionIndex", index.into());
    text_member(out, "blockHash", block.hash.as_slice());
    quantity_member(out, "blockNumber", block.number);
    let bloom = receipts::bloom(chain.universe(), logs);
    text_member(out, "logsBloom", bloom.as_slice());
    out.extend_from_slice(b"\"contractAddress\":null,\"logs\":[");
    let mut of_transaction = Vec::new();
    write_of_transaction(&mut of_transaction, block, index);
    let mut data = Vec::new();
    for (n, sketch) in logs.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        log(out, chain, sketch, of_block, &of_transaction, &mut data);
    }
    out.extend_from_slice(b"]}");
}

/// Writes `"name":"0x…",`.
fn text_member(out: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    open_member(out, name);
    digits(out, bytes);
    out.extend_from_slice(b"\",");
}

fn quantity_member(out: &mut Vec<u8>, name: &str, number: u64) {
    open_member(out, name);
    quantity(out, number);
    out.extend_from_slice(b"\",");
}

fn open_member(out: &mut Vec<u8>, name: &str) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
}

/// Writes bytes as hexadecimal digits with a prefix.
pub(crate) fn digits(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(b"0x");
    let start = out.len();
    out.resize(start + 2 * bytes.len(), 0);
    hex::encode_to_slice(bytes, &mut out[start..]).expect("there is room for two digits a byte");
}

/// Writes a number as JSON-RPC does: no leading zeros.
pub(crate) fn quantity(out: &mut Vec<u8>, number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"0x");
    let count = (64 - number.leading_zeros()).div_ceil(4).max(1);
    for n in (0..count).rev() {
        out.push(DIGITS[(number >> (4 * n)) as usize & 15]);
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::Address;
    use serde_json::Value;

    use super::*;
    use crate::Shape;

    fn parsed(write: impl Fn(&mut Vec<u8>)) -> Value {
        let mut out = b"[".to_vec();
        write(&mut out);
        if out.last() == Some(&b',') {
            out.pop();
        }
        out.push(b']');
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn quantities_have_no_leading_zeros() {
        for (number, expected) in
            [(0, "0x0"), (15, "0xf"), (16, "0x10"), (u64::MAX, "0xffffffffffffffff")]
        {
            let mut out = Vec::new();
            quantity(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_written_reads_back_as_what_is_in_the_chain() {
        let chain = Chain::new(Shape { blocks: 30, logs_per_block: 4..=40, ..Shape::small(9) });
        for number in 0..=30 {
            let block = chain.canonical(number).unwrap();
            let json = parsed(|out| super::block(out, &chain, block, false));
            let header: alloy::consensus::Header = serde_json::from_value(json[0].clone()).unwrap();
            assert_eq!(header, chain.header(block));
            assert_eq!(json[0]["hash"], block.hash.to_string());
            assert_eq!(
                json[0]["transactions"].as_array().unwrap().len(),
                block.transactions as usize
            );

            let json = parsed(|out| {
                logs(out, &chain, block, &Filter::default());
            });
            let logs: Vec<alloy::rpc::types::Log> = serde_json::from_value(json).unwrap();
            let expected = chain.logs(block);
            assert_eq!(logs.len(), expected.len());
            for (log, expected) in logs.iter().zip(&expected) {
                assert_eq!(log.address(), expected.address);
                assert_eq!(log.topics(), expected.topics);
                assert_eq!(log.data().data, expected.data);
                assert_eq!(log.log_index, Some(expected.index.into()));
                assert_eq!(log.transaction_index, Some(expected.transaction_index.into()));
                assert_eq!(log.transaction_hash, Some(expected.transaction_hash));
                assert_eq!(log.block_hash, Some(block.hash));
            }
        }
    }

    #[test]
    fn receipts_have_the_root_that_the_header_says() {
        use alloy::{
            consensus::{ReceiptEnvelope, proofs},
            rpc::types::TransactionReceipt,
        };
        let chain = Chain::new(Shape { blocks: 12, logs_per_block: 0..=30, ..Shape::small(4) });
        for number in 1..=12 {
            let block = chain.canonical(number).unwrap();
            let json = parsed(|out| receipts(out, &chain, block, None));
            let read: Vec<TransactionReceipt> = serde_json::from_value(json).unwrap();
            let receipts: Vec<ReceiptEnvelope> =
                read.into_iter().map(|receipt| receipt.inner.map_logs(|log| log.inner)).collect();
            assert_eq!(
                proofs::calculate_receipt_root(&receipts),
                chain.header(block).receipts_root
            );
        }
    }

    #[test]
    fn a_filter_finds_what_looking_at_each_log_finds() {
        let chain = Chain::new(Shape { blocks: 20, logs_per_block: 5..=30, ..Shape::small(4) });
        let sample = chain.logs(chain.canonical(3).unwrap()).swap_remove(1);
        let filters = [
            (vec![sample.address], vec![]),
            (vec![], vec![vec![sample.topics[0]]]),
            (vec![sample.address, Address::ZERO], vec![vec![], sample.topics.clone()]),
            (vec![Address::ZERO], vec![]),
        ];
        for (addresses, topics) in filters {
            let filter = Filter { addresses: addresses.clone(), topics: topics.clone() };
            for number in 1..=20 {
                let block = chain.canonical(number).unwrap();
                let matching = chain.logs(block).into_iter().filter(|log| {
                    (addresses.is_empty() || addresses.contains(&log.address))
                        && topics.len() <= log.topics.len()
                        && topics
                            .iter()
                            .zip(&log.topics)
                            .all(|(w, t)| w.is_empty() || w.contains(t))
                });
                let written = logs(&mut Vec::new(), &chain, block, &filter);
                assert_eq!(written, matching.count());
            }
        }
    }
}
