//! Reads of the chain's state at one block, for modules.
//!
//! A module may only ever see what the chain says: a value, or a revert with its data. All else,
//! an endpoint that is down, behind, limited or confused, is weather: it is a [`ReadFailed`], the
//! step waits, and the module never learns of it. Error codes and texts differ between nodes,
//! so the line between the two is drawn in one function, [`classify`].

use alloy_primitives::{Address, B256, Bytes, U256};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use crate::{Answer, Call, EndpointId, Failure, Pool, PoolError, RpcError};

/// Gas of each call: a whole block's worth on most chains.
///
/// Left to the nodes it would be a setting of each. Geth's default is 50 million, so this much is
/// granted nearly everywhere; an endpoint set lower can still halt a call early.
pub const CALL_GAS: u64 = 30_000_000;

/// Calls of one message of a read.
///
/// Public providers accept a hundred. Fewer are more round trips, and on the machine itself no
/// number was faster (ops/docs/benchmarks.md, "Many reads at one block").
const MESSAGE_CALLS: usize = 100;

/// Messages of one read that are under way at once.
///
/// What a distant node costs is round trips, and this makes one out of eight: 3 000 calls to a node
/// 50 ms away took 290 ms instead of 1 750 ms. Twice as many save a little more, for reads that
/// hardly any block needs, in a burst that a provider may take for an attack.
const MESSAGES_AT_ONCE: usize = 8;

/// One question about the state at a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainRequest {
    /// `eth_call` without a sender.
    Call {
        /// The contract.
        to: Address,
        /// The input.
        data: Bytes,
    },
    /// The native balance of an account.
    Balance(Address),
    /// The code of an account.
    Code(Address),
    /// A storage slot of an account.
    Storage {
        /// The account.
        address: Address,
        /// The slot.
        slot: B256,
    },
}

/// What the chain answers to a [`ChainRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainAnswer {
    /// What an `eth_call` returned.
    Returned(Bytes),
    /// What an `eth_call` reverted with.
    ///
    /// A call that halts (out of gas, invalid opcode, stack underflow and the like) has no data;
    /// it is a revert with empty data here, which is what a contract that made the call would
    /// see. Every call has the same gas, [`CALL_GAS`], so that it does not halt on one endpoint
    /// and return on another.
    Reverted(Bytes),
    /// A native balance.
    Balance(U256),
    /// An account's code.
    Code(Bytes),
    /// A storage slot's content.
    Storage(B256),
}

/// Why a read has no answer. Always the world's failure, never the module's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadFailed {
    /// An endpoint does not know the block: it is behind, or the block was abandoned.
    #[error("{endpoint} does not know block {block}")]
    BlockUnknown {
        /// The block asked about.
        block: B256,
        /// The endpoint, redacted.
        endpoint: String,
    },
    /// An endpoint cannot answer about that block.
    #[error("{endpoint} refuses {method}: {error}")]
    Refused {
        /// The endpoint, redacted.
        endpoint: String,
        /// The method.
        method: &'static str,
        /// What it said.
        error: RpcError,
    },
    /// An answer is not of the type the method has.
    #[error("{endpoint} answers {method} with something else: {reason}")]
    Malformed {
        /// The endpoint, redacted.
        endpoint: String,
        /// The method.
        method: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No endpoint answered at all.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

impl ReadFailed {
    /// The same, safe to show: a value of the wrong type is repeated in the reason.
    fn scrubbed(self, scrub: impl Fn(&str) -> String) -> ReadFailed {
        match self {
            ReadFailed::Malformed { endpoint, method, reason } => {
                ReadFailed::Malformed { endpoint, method, reason: scrub(&reason) }
            }
            // Errors are scrubbed where they are received.
            other => other,
        }
    }
}

/// What an endpoint's error to a pinned read means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The chain's answer: the call reverted with these bytes, or halted.
    Reverted(Bytes),
    /// The endpoint does not know the block.
    BlockUnknown,
    /// The endpoint cannot or will not answer.
    Refused,
}

impl Pool {
    /// Answers about the state right after a block, in the order of the requests.
    ///
    /// The block is named by its hash, canonical or not, so no answer can be of another one. All
    /// answers come from one endpoint; when it has no answer to one request, the next endpoint
    /// is asked for all of them.
    pub async fn read(
        &self,
        block: B256,
        requests: &[ChainRequest],
    ) -> Result<Vec<ChainAnswer>, ReadFailed> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let calls: Vec<Call> = requests.iter().map(|request| request.at(block)).collect();
        let (requests, calls) = (&requests, &calls);
        let read = async |id| {
            let answers = self.ask_in_parts(id, calls).await.map_err(NotRead::Failed)?;
            interpret(block, requests, calls, answers, self.name_of(id))
                .map_err(|refusal| NotRead::Refused(refusal.scrubbed(|text| self.scrub(id, text))))
        };
        let not_read = match self.attempt(calls, read).await {
            Ok((_, answers)) => return Ok(answers),
            Err(not_read) => not_read,
        };
        let (mut failures, mut refusals) = (Vec::new(), Vec::new());
        for (id, why) in not_read {
            match why {
                NotRead::Failed(failure) => failures.push((id, failure)),
                NotRead::Refused(refusal) => refusals.push(refusal),
            }
        }
        Err(worst(refusals).unwrap_or_else(|| self.error(failures).into()))
    }

    /// Asks one endpoint in several messages, some of them at once. The first that fails ends it.
    ///
    /// Not through Multicall3, though it is as fast: there a call has another sender, shares its gas
    /// with its neighbours, and what it answers could depend on what else was asked.
    async fn ask_in_parts(
        &self,
        id: EndpointId,
        calls: &[Call],
    ) -> Result<Vec<Result<Answer, RpcError>>, Failure> {
        let messages = calls.chunks(MESSAGE_CALLS).map(|part| self.ask(id, part));
        let answers: Vec<_> =
            stream::iter(messages).buffered(MESSAGES_AT_ONCE).try_collect().await?;
        Ok(answers.into_iter().flatten().collect())
    }
}

/// Why one endpoint did not answer a read.
enum NotRead {
    Failed(Failure),
    Refused(ReadFailed),
}

/// Of the refusals of several endpoints the one to report: an unknown block if there is one, for
/// then the block may be gone and the reader must look whether it was abandoned.
fn worst(mut refusals: Vec<ReadFailed>) -> Option<ReadFailed> {
    refusals.sort_by_key(|refusal| !matches!(refusal, ReadFailed::BlockUnknown { .. }));
    refusals.into_iter().next()
}

impl ChainRequest {
    fn at(&self, block: B256) -> Call {
        // EIP-1898. Not `requireCanonical`: during a reorg the block is still a fact.
        let pin = json!({ "blockHash": block, "requireCanonical": false });
        match self {
            ChainRequest::Call { to, data } => {
                let gas = format!("{CALL_GAS:#x}");
                let call = json!({ "to": to, "data": data, "gas": gas });
                Call { method: "eth_call", params: json!([call, pin]) }
            }
            ChainRequest::Balance(address) => {
                Call { method: "eth_getBalance", params: json!([address, pin]) }
            }
            ChainRequest::Code(address) => {
                Call { method: "eth_getCode", params: json!([address, pin]) }
            }
            ChainRequest::Storage { address, slot } => {
                Call { method: "eth_getStorageAt", params: json!([address, slot, pin]) }
            }
        }
    }

    fn answer(&self, answer: &Answer) -> Result<ChainAnswer, serde_json::Error> {
        match self {
            ChainRequest::Call { .. } => answer.parse().map(ChainAnswer::Returned),
            ChainRequest::Balance(_) => answer.parse().map(ChainAnswer::Balance),
            ChainRequest::Code(_) => answer.parse().map(ChainAnswer::Code),
            // As a number, for some nodes shorten the slot to a quantity.
            ChainRequest::Storage { .. } => {
                answer.parse().map(|content: U256| ChainAnswer::Storage(content.into()))
            }
        }
    }
}

/// Turns one endpoint's answers into the chain's, or finds that they are not.
fn interpret(
    block: B256,
    requests: &[ChainRequest],
    calls: &[Call],
    answers: Vec<Result<Answer, RpcError>>,
    endpoint: &str,
) -> Result<Vec<ChainAnswer>, ReadFailed> {
    let endpoint = || endpoint.to_owned();
    let mut interpreted = Vec::with_capacity(answers.len());
    for ((request, &Call { method, .. }), answer) in requests.iter().zip(calls).zip(answers) {
        let answer = match answer {
            Ok(answer) => request.answer(&answer).map_err(|error| ReadFailed::Malformed {
                endpoint: endpoint(),
                method,
                reason: error.to_string(),
            })?,
            Err(error) => match (request, classify(&error)) {
                (ChainRequest::Call { .. }, Meaning::Reverted(data)) => ChainAnswer::Reverted(data),
                (_, Meaning::BlockUnknown) => {
                    return Err(ReadFailed::BlockUnknown { block, endpoint: endpoint() });
                }
                _ => return Err(ReadFailed::Refused { endpoint: endpoint(), method, error }),
            },
        };
        interpreted.push(answer);
    }
    Ok(interpreted)
}

/// Decides what an endpoint's error means.
///
/// | the endpoint says | it means |
/// |---|---|
/// | code 3, or "execution reverted", or data "Reverted 0x…" | reverted, with the data |
/// | the same with a reason but without data | refused: the data exists and is withheld |
/// | a halt of the EVM by its name | reverted, without data |
/// | header, block or resource not found | block unknown |
/// | anything else, such as pruned state | refused |
///
/// Reverts come first: a contract's own reason may read "header not found".
pub fn classify(error: &RpcError) -> Meaning {
    let message = error.message.to_lowercase();
    let data = error.data.as_ref().unwrap_or(&Value::Null);
    if error.code == 3 || is_revert(&message, data) {
        return match revert_data(data, NESTED_MAX) {
            Some(data) => Meaning::Reverted(data),
            None if data.is_null() && !has_reason(&message) => Meaning::Reverted(Bytes::new()),
            None => Meaning::Refused,
        };
    }
    if is_halt(&message) || (error.code == VM_EXECUTION_ERROR && is_halt_data(data)) {
        return Meaning::Reverted(Bytes::new());
    }
    if is_unknown_block(error.code, &message) {
        return Meaning::BlockUnknown;
    }
    Meaning::Refused
}

/// How deep the data of a revert may be wrapped: providers add one layer, wallets another.
const NESTED_MAX: usize = 4;

/// OpenEthereum's code, kept by Nethermind.
const VM_EXECUTION_ERROR: i64 = -32015;

fn is_revert(message: &str, data: &Value) -> bool {
    message.starts_with("execution reverted")
        || message.starts_with("vm exception while processing transaction: revert")
        || data.as_str().is_some_and(|data| data.starts_with("Reverted"))
}

/// Whether the message says more than that there was a revert.
fn has_reason(message: &str) -> bool {
    message != "execution reverted"
}

/// Digs the raw bytes out of the places where nodes put them.
fn revert_data(data: &Value, depth: usize) -> Option<Bytes> {
    match data {
        Value::String(text) => {
            let hex = text.strip_prefix("Reverted").unwrap_or(text).trim();
            hex.starts_with("0x").then(|| hex.parse().ok())?
        }
        Value::Object(fields) if depth > 0 => ["data", "originalError", "result", "return"]
            .iter()
            .filter_map(|name| fields.get(*name))
            .find_map(|nested| revert_data(nested, depth - 1)),
        _ => None,
    }
}

/// Whether the message is the name of an EVM halt: geth's and Erigon's sentences, or revm's
/// names as anvil and Reth print them.
fn is_halt(message: &str) -> bool {
    const SENTENCES: [&str; 9] = [
        "out of gas",
        "gas uint64 overflow",
        "invalid opcode",
        "stack underflow",
        "stack limit reached",
        "invalid jump destination",
        "write protection",
        "return data out of bounds",
        "max code size exceeded",
    ];
    const NAMES: [&str; 14] = [
        "outofgas",
        "memoryoog",
        "memorylimitoog",
        "precompileoog",
        "invalidoperandoog",
        "opcodenotfound",
        "invalidfeopcode",
        "invalidjump",
        "notactivated",
        "stackunderflow",
        "stackoverflow",
        "outofoffset",
        "callnotallowedinsidestatic",
        "statechangeduringstaticcall",
    ];
    let name = message.strip_prefix("evm error").unwrap_or(message);
    let name = name.trim_start_matches([':', ' ']);
    let name = name.split(['(', ' ']).next().unwrap_or_default();
    NAMES.contains(&name) || SENTENCES.iter().any(|sentence| message.starts_with(sentence))
}

/// The same in the data of OpenEthereum's and Nethermind's errors.
fn is_halt_data(data: &Value) -> bool {
    const NAMES: [&str; 9] = [
        "out of gas",
        "outofgas",
        "bad instruction",
        "badinstruction",
        "bad jump",
        "invalidjumpdestination",
        "stack underflow",
        "stackunderflow",
        "stackoverflow",
    ];
    let data = data.as_str().unwrap_or_default().to_lowercase();
    NAMES.iter().any(|name| data.starts_with(name))
}

fn is_unknown_block(code: i64, message: &str) -> bool {
    const SENTENCES: [&str; 5] = [
        "header not found",
        "header for hash not found",
        "unknown block",
        "block not found",
        "resource not found",
    ];
    code == -39001
        || SENTENCES.iter().any(|sentence| message.starts_with(sentence))
        || (code == -32001 && message.contains("could not be found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverts_carry_their_raw_data() {
        let reverted = |hex: &str| Meaning::Reverted(hex.parse().unwrap());
        check(3, "execution reverted", json!("0x"), reverted("0x"));
        check(3, "execution reverted: custom error 0xaa", json!("0xaa01"), reverted("0xaa01"));
        check(-32000, "execution reverted", Value::Null, reverted("0x"));
        check(-32000, "execution reverted: no", json!({ "data": "0xaa" }), reverted("0xaa"));
        let wrapped = json!({ "originalError": { "code": 3, "data": "0xaa" } });
        check(-32603, "execution reverted", wrapped, reverted("0xaa"));
        check(-32015, "VM execution error.", json!("Reverted 0xaa"), reverted("0xaa"));
        check(-32015, "VM execution error.", json!("Reverted 0x"), reverted("0x"));
        check(3, "execution reverted: header not found", json!("0xaa"), reverted("0xaa"));
    }

    #[test]
    fn a_revert_whose_data_is_withheld_is_not_an_answer() {
        check(3, "execution reverted: too early", Value::Null, Meaning::Refused);
        check(-32000, "execution reverted: too early", Value::Null, Meaning::Refused);
        check(3, "execution reverted", json!("not hex"), Meaning::Refused);
        check(3, "execution reverted", json!("0xabc"), Meaning::Refused);
        check(3, "execution reverted", json!({ "hint": 1 }), Meaning::Refused);
    }

    #[test]
    fn a_halt_is_a_revert_without_data() {
        for (code, message) in [
            (-32000, "out of gas"),
            (-32000, "invalid opcode: INVALID"),
            (-32000, "stack underflow (0 <=> 1)"),
            (-32000, "stack limit reached 1024 (1023)"),
            (-32000, "invalid jump destination"),
            (-32000, "gas uint64 overflow"),
            (-32603, "EVM error InvalidFEOpcode"),
            (-32603, "EVM error OutOfGas"),
            (-32603, "EVM error: OutOfGas(Basic)"),
            (-32603, "EVM error StackUnderflow"),
            (-32603, "EVM error OpcodeNotFound"),
            (-32603, "EVM error OutOfOffset"),
            (-32603, "EVM error InvalidOperandOOG"),
        ] {
            check(code, message, Value::Null, Meaning::Reverted(Bytes::new()));
        }
        let halted = Meaning::Reverted(Bytes::new());
        check(-32015, "VM execution error.", json!("Bad instruction fe"), halted.clone());
        check(-32015, "VM execution error", json!("OutOfGas"), halted);
    }

    #[test]
    fn an_unknown_block_has_a_name_of_its_own() {
        for (code, message) in [
            (-32000, "header not found"),
            (-32000, "header for hash not found"),
            (-32000, "unknown block"),
            (-32001, "Resource not found"),
            (-32001, "0x11 could not be found"),
            (-39001, "Unknown block"),
            (-32000, "block not found: hash 0x11"),
        ] {
            check(code, message, Value::Null, Meaning::BlockUnknown);
        }
    }

    #[test]
    fn the_weather_is_never_an_answer() {
        for (code, message) in [
            (-32000, "missing trie node 0xaa (path )"),
            (-32000, "execution aborted (timeout = 5s)"),
            (-32000, "required historical state unavailable (reexec=128)"),
            (-32601, "the method eth_call does not exist"),
            (-32603, "Internal error"),
            (-32603, "EVM error database error: out of gas money"),
            (-32005, "daily request count exceeded"),
            (-32015, "VM execution error."),
            (0, ""),
        ] {
            check(code, message, Value::Null, Meaning::Refused);
        }
    }

    fn check(code: i64, message: &str, data: Value, expected: Meaning) {
        let data = (!data.is_null()).then_some(data);
        let error = RpcError { code, message: message.to_owned(), data };
        assert_eq!(classify(&error), expected, "{error}");
    }

    #[test]
    fn only_a_call_can_revert() {
        let answers = || vec![Err(RpcError::new(3, "execution reverted"))];
        let call = ChainRequest::Call { to: Address::ZERO, data: Bytes::new() };
        assert_eq!(read(call, answers()), Ok(vec![ChainAnswer::Reverted(Bytes::new())]));
        let balance = ChainRequest::Balance(Address::ZERO);
        assert!(matches!(read(balance, answers()), Err(ReadFailed::Refused { .. })));
    }

    #[test]
    fn values_have_the_type_of_their_request() {
        let slot = ChainRequest::Storage { address: Address::ZERO, slot: B256::ZERO };
        let short = vec![Ok(Answer::from_static("\"0x7\""))];
        assert_eq!(read(slot, short), Ok(vec![ChainAnswer::Storage(B256::with_last_byte(7))]));
        let balance = ChainRequest::Balance(Address::ZERO);
        let null = read(balance, vec![Ok(Answer::from_static("null"))]);
        assert!(matches!(null, Err(ReadFailed::Malformed { .. })), "{null:?}");
    }

    fn read(
        request: ChainRequest,
        answers: Vec<Result<Answer, RpcError>>,
    ) -> Result<Vec<ChainAnswer>, ReadFailed> {
        let calls = [request.at(B256::ZERO)];
        interpret(B256::ZERO, &[request], &calls, answers, "http://a")
    }

    #[test]
    fn reads_name_their_block_by_hash() {
        let call = ChainRequest::Balance(Address::repeat_byte(1)).at(B256::repeat_byte(2));
        let pin = json!({ "blockHash": B256::repeat_byte(2), "requireCanonical": false });
        assert_eq!(call.params, json!([Address::repeat_byte(1), pin]));
    }

    #[test]
    fn an_unknown_block_outweighs_other_refusals() {
        let refused = ReadFailed::Refused {
            endpoint: "http://a".to_owned(),
            method: "eth_call",
            error: RpcError::new(0, ""),
        };
        let unknown =
            ReadFailed::BlockUnknown { block: B256::ZERO, endpoint: "http://b".to_owned() };
        assert_eq!(worst(vec![refused.clone(), unknown.clone()]), Some(unknown));
        assert_eq!(worst(vec![refused.clone()]), Some(refused));
        assert_eq!(worst(vec![]), None);
    }
}
