//! Blocks and logs as endpoints write them in JSON.
//!
//! A chain catches up as fast as this decodes, so logs go straight into the types below: no tree
//! of values, and fields that nobody needs are passed over as text.

use std::fmt;

use alloy::consensus;
use alloy_primitives::{Address, B256, Bytes};
use serde::{Deserialize, Deserializer, de};
use shepherd_rpc::Answer;

/// A block without its transactions.
pub(crate) struct WireHeader {
    /// The hash as the endpoint says it is.
    pub(crate) hash: B256,
    /// The fields that the hash is made of.
    pub(crate) consensus: consensus::Header,
}

/// A log.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WireLog {
    pub(crate) address: Address,
    pub(crate) topics: Vec<B256>,
    pub(crate) data: Bytes,
    pub(crate) block_hash: B256,
    pub(crate) block_number: Quantity,
    pub(crate) log_index: Quantity,
    pub(crate) transaction_index: Quantity,
    pub(crate) transaction_hash: B256,
    #[serde(default)]
    pub(crate) removed: bool,
}

/// A receipt, with what its block commits to and where it says it belongs.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WireReceipt {
    /// Nodes from before typed transactions leave it out.
    #[serde(rename = "type", default)]
    pub(crate) kind: Option<Quantity>,
    #[serde(default)]
    pub(crate) status: Option<Quantity>,
    #[serde(default)]
    pub(crate) root: Option<Bytes>,
    pub(crate) cumulative_gas_used: Quantity,
    pub(crate) logs: Vec<WireLog>,
    pub(crate) block_hash: B256,
    pub(crate) block_number: Quantity,
    pub(crate) transaction_index: Quantity,
    pub(crate) transaction_hash: B256,
    #[serde(default)]
    pub(crate) deposit_nonce: Option<Quantity>,
    #[serde(default)]
    pub(crate) deposit_receipt_version: Option<Quantity>,
}

/// A number as JSON-RPC writes it: hexadecimal with a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quantity(pub(crate) u64);

/// Reads a block; `None` when the endpoint does not have it.
pub(crate) fn header(answer: &Answer) -> Result<Option<WireHeader>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Hash {
        hash: B256,
    }
    // Two passes over the text are cheaper than one through serde's `flatten`, which would build
    // a tree of the whole block, transaction hashes and all.
    let Some(Hash { hash }) = answer.parse()? else { return Ok(None) };
    Ok(Some(WireHeader { hash, consensus: answer.parse()? }))
}

/// Reads the logs of a block.
pub(crate) fn logs(answer: &Answer) -> Result<Vec<WireLog>, serde_json::Error> {
    answer.parse()
}

/// Reads the receipts of a block; `None` when the endpoint does not have them.
pub(crate) fn receipts(answer: &Answer) -> Result<Option<Vec<WireReceipt>>, serde_json::Error> {
    answer.parse()
}

/// Reads one receipt; `None` when the endpoint does not have it.
pub(crate) fn receipt(answer: &Answer) -> Result<Option<WireReceipt>, serde_json::Error> {
    answer.parse()
}

/// Reads the hashes of a block's transactions; `None` when the endpoint does not have the block.
pub(crate) fn transactions(answer: &Answer) -> Result<Option<Vec<B256>>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Transactions {
        transactions: Vec<B256>,
    }
    let block: Option<Transactions> = answer.parse()?;
    Ok(block.map(|block| block.transactions))
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Quantity, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a hexadecimal quantity of at most 64 bits")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                text.strip_prefix("0x")
                    .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                    .map(Quantity)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_hexadecimal() {
        check("\"0x0\"", Some(0));
        check("\"0x1f\"", Some(31));
        check("\"0xffffffffffffffff\"", Some(u64::MAX));
        check("\"0x10000000000000000\"", None);
        check("\"1f\"", None);
        check("\"0x\"", None);
        check("31", None);
        check("null", None);
    }

    fn check(json: &str, expected: Option<u64>) {
        assert_eq!(serde_json::from_str(json).ok(), expected.map(Quantity), "{json}");
    }

    #[test]
    fn a_log_of_a_pending_block_is_not_a_log() {
        let json = |hash: &str| {
            format!(
                r#"{{"address":"0x00000000000000000000000000000000000000aa","topics":[],"data":"0x",
                "blockHash":{hash},"blockNumber":"0x1","logIndex":"0x0","transactionIndex":"0x0",
                "transactionHash":"{}","blockTimestamp":"0x5","removed":false}}"#,
                B256::ZERO
            )
        };
        assert!(serde_json::from_str::<WireLog>(&json(&format!("\"{}\"", B256::ZERO))).is_ok());
        assert!(serde_json::from_str::<WireLog>(&json("null")).is_err());
    }
}
