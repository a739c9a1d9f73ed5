//! What an endpoint is able to do beyond what every endpoint must.
//!
//! It is asked once for a block of its own choice, once what it says about that block in the
//! ways that differ between nodes, and once how much it takes at a time: a dozen calls, and one
//! message as large as is configured.

use alloy_primitives::{Address, B256, U64};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Answer, Call, Failure, RpcError, endpoint::Endpoint};

/// What an endpoint is able to do, as it showed itself when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether it answers `eth_getLogs` for one block by hash.
    pub logs_by_hash: bool,
    /// Whether it knows the block tag `finalized`, and a block under it.
    pub finalized_tag: bool,
    /// Whether it has `eth_getBlockReceipts`.
    pub block_receipts: bool,
    /// Most calls it accepts in one message, as far as is known: the configured number, or half of
    /// what it refused last.
    pub batch_calls: usize,
    /// How old the state may be that it answers about.
    pub archive_depth: ArchiveDepth,
}

/// How old the state may be that an endpoint answers about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveDepth {
    /// It has the state after the chain's first block.
    Full,
    /// It has the state this many blocks behind its head; perhaps older ones, but not the oldest.
    Blocks(u64),
    /// It showed no old state at all.
    Unknown,
}

/// How far behind the head a state is asked for: what nodes are commonly set to keep.
const DEPTHS: [u64; 6] = [64, 127, 1_000, 10_000, 100_000, 1_000_000];

/// Asks an endpoint what it is able to do.
pub(crate) async fn probe(endpoint: &Endpoint) -> Result<Capabilities, Failure> {
    let blocks = endpoint.exchange(&[block("finalized"), block("latest")]).await?;
    let finalized = reference(&blocks[0]);
    let latest = reference(&blocks[1]).unwrap_or(Reference { number: U64::ZERO, hash: B256::ZERO });
    let head: u64 = latest.number.to();
    let depths = depths(head);
    let mut calls = vec![logs_of(latest.hash), receipts_of(json!("0x0"))];
    calls.extend(depths.iter().map(|depth| balance_at(head - depth)));
    let answers = endpoint.exchange(&calls).await?;
    let block_receipts = match has_receipts(&answers[1]) {
        Some(has) => has,
        // A node may have forgotten the first block and still have receipts.
        None => {
            let answers = endpoint.exchange(&[receipts_of(json!(latest.hash))]).await?;
            has_receipts(&answers[0]).unwrap_or(false)
        }
    };
    Ok(Capabilities {
        logs_by_hash: answers[0].as_ref().is_ok_and(|logs| logs.parse::<Vec<Value>>().is_ok()),
        finalized_tag: finalized.is_some(),
        block_receipts,
        batch_calls: endpoint.probe_batch().await?,
        archive_depth: archive_depth(&depths, &answers[2..], head),
    })
}

#[derive(Deserialize)]
struct Reference {
    number: U64,
    hash: B256,
}

fn reference(answer: &Result<Answer, RpcError>) -> Option<Reference> {
    answer.as_ref().ok()?.parse::<Option<Reference>>().ok()?
}

fn block(tag: &str) -> Call {
    Call { method: "eth_getBlockByNumber", params: json!([tag, false]) }
}

/// The logs of a block, but of an address that has none: it is not the logs that matter.
fn logs_of(block: B256) -> Call {
    Call {
        method: "eth_getLogs",
        params: json!([{ "blockHash": block, "address": Address::ZERO }]),
    }
}

fn receipts_of(block: Value) -> Call {
    Call { method: "eth_getBlockReceipts", params: json!([block]) }
}

fn balance_at(number: u64) -> Call {
    let params = json!([Address::ZERO, format!("{number:#x}")]);
    Call { method: "eth_getBalance", params }
}

/// How far back to ask on a chain with this head, the chain's first block last. Not the genesis
/// block: nodes that keep no other old state keep that one.
fn depths(head: u64) -> Vec<u64> {
    let first = head.saturating_sub(1);
    DEPTHS.into_iter().filter(|&depth| depth < first).chain((head > 0).then_some(first)).collect()
}

/// Whether there are receipts; `None` when this answer says nothing about other blocks.
fn has_receipts(answer: &Result<Answer, RpcError>) -> Option<bool> {
    /// JSON-RPC's "method not found".
    const NO_SUCH_METHOD: i64 = -32601;
    match answer {
        Ok(answer) => answer.parse::<Option<Vec<Value>>>().ok()?.map(|_| true),
        Err(error) => (error.code == NO_SUCH_METHOD).then_some(false),
    }
}

/// What the answers about states this far behind the head show. The last is of the first block.
fn archive_depth(depths: &[u64], answers: &[Result<Answer, RpcError>], head: u64) -> ArchiveDepth {
    let answered = depths.iter().zip(answers).filter(|(_, answer)| answer.is_ok());
    match answered.map(|(&depth, _)| depth).max() {
        Some(depth) if depth + 1 == head => ArchiveDepth::Full,
        Some(depth) => ArchiveDepth::Blocks(depth),
        None => ArchiveDepth::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_states_are_asked_for_as_far_as_the_chain_goes_back() {
        assert!(depths(0).is_empty());
        assert_eq!(depths(1), [0]);
        assert_eq!(depths(65), [64]);
        assert_eq!(depths(66), [64, 65]);
        assert_eq!(depths(5_000), [64, 127, 1_000, 4_999]);
        assert_eq!(depths(20_000_000).len(), 7);
    }

    #[test]
    fn the_oldest_state_that_is_there_is_the_depth() {
        let check = |head, kept: u64, expected| {
            let depths = depths(head);
            let answers: Vec<_> = depths
                .iter()
                .map(|&depth| match depth <= kept {
                    true => Ok(Answer::from_static("\"0x0\"")),
                    false => Err(RpcError::new(-32000, "missing trie node")),
                })
                .collect();
            assert_eq!(archive_depth(&depths, &answers, head), expected, "{head} {kept}");
        };
        check(20_000_000, 127, ArchiveDepth::Blocks(127));
        check(20_000_000, 90_000, ArchiveDepth::Blocks(10_000));
        check(20_000_000, 20_000_000, ArchiveDepth::Full);
        check(20_000_000, 0, ArchiveDepth::Unknown);
        check(1, 0, ArchiveDepth::Full);
        check(0, 0, ArchiveDepth::Unknown);
    }

    #[test]
    fn only_an_array_and_an_unknown_method_settle_whether_there_are_receipts() {
        assert_eq!(has_receipts(&Ok(Answer::from_static("[]"))), Some(true));
        assert_eq!(has_receipts(&Err(RpcError::new(-32601, "no"))), Some(false));
        assert_eq!(has_receipts(&Ok(Answer::null())), None);
        assert_eq!(has_receipts(&Err(RpcError::new(-32000, "pruned"))), None);
    }
}
