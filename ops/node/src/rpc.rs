//! What an honest node answers.

use std::borrow::Cow;

use alloy_primitives::{Address, B256, hex};
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

use crate::{
    chain::{Block, Chain},
    content,
    render::{self, Filter},
};

/// One question, as it came.
#[derive(Debug, Deserialize)]
pub(crate) struct Request<'r> {
    /// Sent back as it is.
    #[serde(borrow)]
    pub(crate) id: &'r RawValue,
    #[serde(borrow)]
    pub(crate) method: Cow<'r, str>,
    #[serde(borrow)]
    pub(crate) params: Option<&'r RawValue>,
}

/// An error that a node answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: i64,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn unknown_method(method: &str) -> Refusal {
        let message = format!("the method {method} does not exist/is not available");
        Refusal { code: -32601, message }
    }
}

/// What a provider does not answer at once. Zero is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Most blocks in the range of one `eth_getLogs`.
    pub range_blocks_max: u64,
    /// Most logs in the answer to one `eth_getLogs`.
    pub logs_max: usize,
    /// Most calls in one message.
    pub batch_calls_max: usize,
}

/// What a node knows of a chain.
#[derive(Clone, Copy)]
pub(crate) struct View<'c> {
    pub(crate) chain: &'c Chain,
    /// The newest height that it has heard of.
    pub(crate) head: u64,
    pub(crate) limits: Limits,
}

/// How far the finalized block is behind the head, and the safe one.
const FINALIZED_DEPTH: u64 = 64;
const SAFE_DEPTH: u64 = 32;

impl View<'_> {
    /// Writes the answer to a call.
    pub(crate) fn answer(
        &self,
        method: &str,
        params: Option<&RawValue>,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let params = params.map_or("[]", RawValue::get);
        match method {
            "eth_chainId" => quantity(out, self.chain.shape().chain_id),
            "net_version" => text(out, &self.chain.shape().chain_id.to_string()),
            "web3_clientVersion" => text(out, concat!("shepherd-node/", env!("CARGO_PKG_VERSION"))),
            "eth_blockNumber" => quantity(out, self.head),
            "eth_syncing" => out.extend_from_slice(b"false"),
            "eth_gasPrice" => quantity(out, 2_000_000_000),
            "eth_getBalance" | "eth_getTransactionCount" => quantity(out, 0),
            "eth_call" | "eth_getCode" => text(out, "0x"),
            "eth_getBlockByNumber" => {
                let (tag, full): (Tag, Flag) = read(params)?;
                self.block(out, self.at(tag), full);
            }
            "eth_getBlockByHash" => {
                let (hash, full): (B256, Flag) = read(params)?;
                self.block(out, self.known(hash), full);
            }
            "eth_getLogs" => {
                let (wanted,): (Wanted,) = read(params)?;
                return self.logs(out, wanted);
            }
            "eth_getBlockReceipts" => {
                let (which,): (Which,) = read(params)?;
                let block = match which {
                    Which::Hash(hash) => self.known(hash),
                    Which::Tag(tag) => self.at(tag),
                };
                match block {
                    Some(block) => list(out, |out| render::receipts(out, self.chain, block, None)),
                    None => out.extend_from_slice(b"null"),
                }
            }
            "eth_getTransactionReceipt" => {
                let (hash,): (B256,) = read(params)?;
                self.receipt(out, hash);
            }
            _ => return Err(Refusal::unknown_method(method)),
        }
        Ok(())
    }

    /// The block that a tag names.
    fn at(&self, tag: Tag) -> Option<&Block> {
        let number = match tag {
            Tag::Number(number) => number,
            Tag::Latest => self.head,
            Tag::Safe => self.head.saturating_sub(SAFE_DEPTH),
            Tag::Finalized => self.head.saturating_sub(FINALIZED_DEPTH),
        };
        self.chain.canonical(number).filter(|block| block.number <= self.head)
    }

    /// The block of a hash, on whatever branch.
    fn known(&self, hash: B256) -> Option<&Block> {
        self.chain.block(hash).filter(|block| block.number <= self.head)
    }

    fn block(&self, out: &mut Vec<u8>, block: Option<&Block>, full: Flag) {
        match block {
            Some(block) => render::block(out, self.chain, block, full.0),
            None => out.extend_from_slice(b"null"),
        }
    }

    fn logs(&self, out: &mut Vec<u8>, wanted: Wanted) -> Result<(), Refusal> {
        let refuse = |code, message: String| Err(Refusal { code, message });
        let filter = Filter {
            addresses: wanted.address.0,
            topics: wanted.topics.into_iter().map(|topics| topics.0).collect(),
        };
        let mut written = 0;
        let start = out.len();
        out.push(b'[');
        if let Some(hash) = wanted.block_hash {
            let Some(block) = self.known(hash) else {
                out.truncate(start);
                return refuse(-32000, "unknown block".to_owned());
            };
            render::logs(out, self.chain, block, &filter);
        } else {
            let number = |tag| self.at(tag).map(|block| block.number);
            let first = number(wanted.from_block.unwrap_or(Tag::Latest)).unwrap_or(u64::MAX);
            let last = number(wanted.to_block.unwrap_or(Tag::Latest)).unwrap_or(self.head);
            let Limits { range_blocks_max, logs_max, .. } = self.limits;
            if range_blocks_max > 0 && last.saturating_sub(first) >= range_blocks_max {
                out.truncate(start);
                let message = format!("block range is too wide, max is {range_blocks_max} blocks");
                return refuse(-32602, message);
            }
            for number in first..=last {
                let block = self.chain.canonical(number).expect("it is not after the head");
                written += render::logs(out, self.chain, block, &filter);
                if logs_max > 0 && written > logs_max {
                    out.truncate(start);
                    let message = format!("query returned more than {logs_max} results");
                    return refuse(-32005, message);
                }
            }
        }
        close_list(out);
        Ok(())
    }

    fn receipt(&self, out: &mut Vec<u8>, hash: B256) {
        if let Some(block) = self.at(Tag::Number(content::number_of(hash)))
            && let Some(index) = (0..block.transactions)
                .find(|index| content::transaction_hash(block.number, block.key, *index) == hash)
        {
            render::receipts(out, self.chain, block, Some(index));
            out.pop();
            return;
        }
        out.extend_from_slice(b"null");
    }
}

fn quantity(out: &mut Vec<u8>, number: u64) {
    out.push(b'"');
    render::quantity(out, number);
    out.push(b'"');
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

fn list(out: &mut Vec<u8>, entries: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'[');
    entries(out);
    close_list(out);
}

/// Ends a list whose entries each end with a comma.
fn close_list(out: &mut Vec<u8>) {
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.push(b']');
}

fn read<'r, T: Deserialize<'r>>(params: &'r str) -> Result<T, Refusal> {
    serde_json::from_str(params)
        .map_err(|error| Refusal { code: -32602, message: format!("invalid params: {error}") })
}

/// A flag that may be left out, and then is not set.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(transparent)]
struct Flag(bool);

/// A block by its height or by what it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Number(u64),
    Latest,
    Safe,
    Finalized,
}

impl<'de> Deserialize<'de> for Tag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tag, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Ok(match &*text {
            "latest" | "pending" => Tag::Latest,
            "safe" => Tag::Safe,
            "finalized" => Tag::Finalized,
            "earliest" => Tag::Number(0),
            number => {
                let digits =
                    number.strip_prefix("0x").ok_or_else(|| de::Error::custom("no tag"))?;
                Tag::Number(u64::from_str_radix(digits, 16).map_err(de::Error::custom)?)
            }
        })
    }
}

/// A block by its hash or otherwise.
#[derive(Debug)]
enum Which {
    Hash(B256),
    Tag(Tag),
}

impl<'de> Deserialize<'de> for Which {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Which, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Hash(B256),
            #[serde(rename_all = "camelCase")]
            Object {
                block_hash: B256,
            },
            Tag(Tag),
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::Hash(hash) | Either::Object { block_hash: hash } => Which::Hash(hash),
            Either::Tag(tag) => Which::Tag(tag),
        })
    }
}

/// The argument of `eth_getLogs`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    block_hash: Option<B256>,
    from_block: Option<Tag>,
    to_block: Option<Tag>,
    #[serde(default)]
    address: Any<Address>,
    #[serde(default)]
    topics: Vec<Any<B256>>,
}

/// Nothing, one or several values, any of which will do.
#[derive(Debug)]
struct Any<T>(Vec<T>);

impl<T> Default for Any<T> {
    fn default() -> Any<T> {
        Any(Vec::new())
    }
}

impl<'de, T: hex::FromHex<Error: std::fmt::Display>> Deserialize<'de> for Any<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Any<T>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            One(String),
            Several(Vec<String>),
        }
        let texts = match Option::<Either>::deserialize(deserializer)? {
            None => Vec::new(),
            Some(Either::One(text)) => vec![text],
            Some(Either::Several(texts)) => texts,
        };
        let values: Result<Vec<T>, T::Error> = texts.iter().map(T::from_hex).collect();
        values.map(Any).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::Shape;

    fn ask(chain: &Chain, limits: Limits, method: &str, params: &Value) -> Result<Value, Refusal> {
        let view = View { chain, head: chain.head().number, limits };
        let params = serde_json::value::to_raw_value(params).unwrap();
        let mut out = Vec::new();
        view.answer(method, Some(&params), &mut out)?;
        Ok(serde_json::from_slice(&out).unwrap())
    }

    #[test]
    fn blocks_go_by_number_by_hash_and_by_name() {
        let chain = Chain::new(Shape { blocks: 100, ..Shape::small(1) });
        let number = |method, params| {
            ask(&chain, Limits::default(), method, &params).unwrap()["number"].clone()
        };
        assert_eq!(number("eth_getBlockByNumber", json!(["0x3", false])), "0x3");
        assert_eq!(number("eth_getBlockByNumber", json!(["latest", true])), "0x64");
        assert_eq!(number("eth_getBlockByNumber", json!(["finalized", false])), "0x24");
        assert_eq!(number("eth_getBlockByNumber", json!(["safe", false])), "0x44");
        assert_eq!(number("eth_getBlockByNumber", json!(["earliest", false])), "0x0");
        assert_eq!(number("eth_getBlockByNumber", json!(["0x65", false])), Value::Null);
        assert_eq!(number("eth_getBlockByHash", json!([chain.head().hash, false])), "0x64");
        assert_eq!(number("eth_getBlockByHash", json!([B256::ZERO, false])), Value::Null);
    }

    #[test]
    fn logs_go_by_block_and_by_range() {
        let chain = Chain::new(Shape { blocks: 20, ..Shape::small(1) });
        let count = |filter: Value| {
            ask(&chain, Limits::default(), "eth_getLogs", &json!([filter]))
                .map(|logs| logs.as_array().unwrap().len())
        };
        let of = |number| chain.canonical(number).unwrap().logs as usize;
        assert_eq!(count(json!({ "blockHash": chain.canonical(7).unwrap().hash })), Ok(of(7)));
        assert_eq!(
            count(json!({ "fromBlock": "0x5", "toBlock": "0x7" })),
            Ok(of(5) + of(6) + of(7))
        );
        assert_eq!(count(json!({ "fromBlock": "0x13", "toBlock": "0xff" })), Ok(of(19) + of(20)));
        assert_eq!(count(json!({ "fromBlock": "0x20", "toBlock": "0xff" })), Ok(0));
        assert!(count(json!({ "blockHash": B256::ZERO })).is_err());
        let sample =
            &chain.logs((1..).find_map(|n| chain.canonical(n).filter(|b| b.logs > 0)).unwrap())[0];
        let range = json!({ "fromBlock": "0x0", "toBlock": "latest", "address": sample.address,
            "topics": [[sample.topics[0]], null] });
        assert!(count(range).unwrap() > 0);
    }

    #[test]
    fn limits_are_refused_in_words() {
        let chain = Chain::new(Shape { blocks: 20, ..Shape::small(1) });
        let limits = Limits { range_blocks_max: 10, logs_max: 5, batch_calls_max: 0 };
        let refused = |from: &str| {
            let filter = json!([{ "fromBlock": from, "toBlock": "latest" }]);
            ask(&chain, limits, "eth_getLogs", &filter).unwrap_err().message
        };
        assert!(refused("0x1").contains("range is too wide"));
        assert!(refused("0xc").contains("more than 5 results"));
    }

    #[test]
    fn receipts_go_by_block_and_by_transaction() {
        let chain = Chain::new(Shape { blocks: 20, ..Shape::small(1) });
        let block = (1..).find_map(|n| chain.canonical(n).filter(|b| b.logs > 0)).unwrap();
        let ask = |method, params| ask(&chain, Limits::default(), method, &params).unwrap();
        let receipts = ask("eth_getBlockReceipts", json!([block.hash]));
        assert_eq!(receipts.as_array().unwrap().len(), block.transactions as usize);
        assert_eq!(receipts, ask("eth_getBlockReceipts", json!([format!("{:#x}", block.number)])));
        let first = &receipts[0];
        assert_eq!(*first, ask("eth_getTransactionReceipt", json!([first["transactionHash"]])));
        assert_eq!(ask("eth_getTransactionReceipt", json!([B256::ZERO])), Value::Null);
        assert_eq!(ask("eth_getBlockReceipts", json!([B256::ZERO])), Value::Null);
    }
}
