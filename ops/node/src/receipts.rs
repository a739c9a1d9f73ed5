//! Receipts, and the root that stands for them in a header.

use alloy::consensus::{Eip658Value, Receipt, ReceiptEnvelope, ReceiptWithBloom, proofs};
use alloy_primitives::{B256, Bloom, Bytes, Log, LogData};

use crate::{
    content::Sketch,
    random::{Random, key},
    universe::Universe,
};

/// What a transaction came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// EIP-2718: 0 is a transaction from before there were types.
    pub(crate) transaction_type: u8,
    pub(crate) succeeded: bool,
    pub(crate) gas_used: u64,
}

const GAS_TRANSACTION: u64 = 21_000;
const GAS_LOG: u64 = 25_000;

/// Gas of all transactions of a block.
pub(crate) fn gas_used(transactions: u32, logs: u32) -> u64 {
    u64::from(transactions) * GAS_TRANSACTION + u64::from(logs) * GAS_LOG
}

/// What a transaction of the block of this key came to.
pub(crate) fn outcome(block: u64, index: u32, logs: usize) -> Outcome {
    let random = Random::of(key(&[block, 6, index.into()])).next();
    let transaction_type = match random % 20 {
        0..=13 => 2,
        14..=17 => 0,
        18 => 1,
        _ => 3,
    };
    // Who emitted logs has not failed.
    let succeeded = logs > 0 || !(random >> 8).is_multiple_of(50);
    Outcome { transaction_type, succeeded, gas_used: GAS_TRANSACTION + logs as u64 * GAS_LOG }
}

/// The receipts root of the block of this key.
pub(crate) fn root(universe: &Universe, block: u64, transactions: u32, logs: &[Sketch]) -> B256 {
    let mut cumulative_gas_used = 0;
    let mut logs = logs;
    let receipts: Vec<ReceiptEnvelope> = (0..transactions)
        .map(|index| {
            let own = logs.iter().take_while(|log| log.transaction == index).count();
            let (own, rest) = logs.split_at(own);
            logs = rest;
            let outcome = outcome(block, index, own.len());
            cumulative_gas_used += outcome.gas_used;
            receipt(universe, outcome, cumulative_gas_used, own)
        })
        .collect();
    proofs::calculate_receipt_root(&receipts)
}

/// The bloom of a transaction's logs.
pub(crate) fn bloom(universe: &Universe, logs: &[Sketch]) -> Bloom {
    let mut bloom = Bloom::ZERO;
    logs.iter().for_each(|log| log.mark(universe, &mut bloom));
    bloom
}

fn receipt(
    universe: &Universe,
    outcome: Outcome,
    cumulative_gas_used: u64,
    logs: &[Sketch],
) -> ReceiptEnvelope {
    let logs_bloom = bloom(universe, logs);
    let logs = logs
        .iter()
        .map(|log| {
            let mut data = Vec::new();
            log.write_data(&mut data);
            let topics = log.topics().iter().map(|topic| universe.topic(*topic)).collect();
            let data = LogData::new_unchecked(topics, Bytes::from(data));
            Log { address: universe.contract(log.contract), data }
        })
        .collect();
    let status = Eip658Value::Eip658(outcome.succeeded);
    let receipt =
        ReceiptWithBloom { receipt: Receipt { status, cumulative_gas_used, logs }, logs_bloom };
    match outcome.transaction_type {
        0 => ReceiptEnvelope::Legacy(receipt),
        1 => ReceiptEnvelope::Eip2930(receipt),
        2 => ReceiptEnvelope::Eip1559(receipt),
        _ => ReceiptEnvelope::Eip4844(receipt),
    }
}
