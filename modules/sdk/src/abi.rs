//! Contracts that are no one protocol's own, how to call one, and the way from a log to an event.

use alloy_primitives::Address;
use alloy_sol_types::{SolCall, SolEvent, TopicList, abi::AbiDecoderConfig, sol};

use crate::{Log, Request};

pub use contracts::*;

#[allow(missing_docs, reason = "the Solidity is the documentation, and fields cannot carry any")]
mod contracts {
    use super::sol;

    sol! {
        #![sol(all_derives)]

        /// The standard every fungible token follows (EIP-20).
        interface Erc20 {
            event Transfer(address indexed from, address indexed to, uint256 value);
            function balanceOf(address owner) external view returns (uint256);
            function decimals() external view returns (uint8);
        }

        /// A price feed, as Chainlink's `AggregatorV3Interface` declares it.
        interface Aggregator {
            function decimals() external view returns (uint8);
            function latestRoundData() external view returns (
                uint80 roundId,
                int256 answer,
                uint256 startedAt,
                uint256 updatedAt,
                uint80 answeredInRound
            );
        }

        /// Signatures of contracts (EIP-1271).
        interface Erc1271 {
            function isValidSignature(bytes32 digest, bytes signature)
                external view returns (bytes4 magic);
        }

        /// Many calls in one (`mds1/multicall`, `Multicall3.sol`).
        interface Multicall3 {
            struct Call3 { address target; bool allowFailure; bytes callData; }
            struct Call3Value { address target; bool allowFailure; uint256 value; bytes callData; }
            struct Returned { bool success; bytes returnData; }

            function aggregate3(Call3[] calls) external payable returns (Returned[]);
            function aggregate3Value(Call3Value[] calls) external payable returns (Returned[]);
        }
    }
}

/// The request that makes this call.
///
/// ```
/// use shepherd_sdk::{Address, Request, abi, abi::Erc20::balanceOfCall};
///
/// let token = Address::repeat_byte(0x70);
/// let request = abi::call(token, &balanceOfCall { owner: Address::repeat_byte(1) });
/// let Request::Call { to, data } = request else { unreachable!() };
/// assert_eq!((to, data.len()), (token, 4 + 32));
/// ```
pub fn call<C: SolCall>(to: Address, call: &C) -> Request {
    Request::Call { to, data: call.abi_encode().into() }
}

/// What a log is when read as one kind of event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<E> {
    /// Another event: another signature, or another number of indexed arguments (ERC-20 and
    /// ERC-721 share the signature of `Transfer`).
    Other,
    /// This event's topics with arguments that do not decode. Any contract can emit that, so it is a
    /// reason to pass the log over, and none to halt.
    Malformed,
    /// This event.
    Is(E),
}

/// Reads a log as an event.
///
/// ```
/// use shepherd_sdk::{
///     Address, Log, U256,
///     abi::{Erc20::Transfer, Event, event},
///     alloy_sol_types::SolEvent,
/// };
///
/// let transfer = Transfer {
///     from: Address::repeat_byte(1),
///     to: Address::repeat_byte(2),
///     value: U256::from(7),
/// };
/// let log = Log {
///     topics: transfer.encode_log_data().topics().try_into().unwrap(),
///     data: transfer.encode_data(),
///     ..Log::default()
/// };
/// assert_eq!(event(&log), Event::Is(transfer));
/// assert_eq!(event::<Transfer>(&Log::default()), Event::Other);
/// ```
pub fn event<E: SolEvent>(log: &Log) -> Event<E> {
    // An anonymous event has no signature to know it by.
    let counts = log.topics.len() == E::TopicList::COUNT;
    if E::ANONYMOUS || !counts || log.topics.first() != Some(&E::SIGNATURE_HASH) {
        return Event::Other;
    }
    let topics = log.topics.iter().copied();
    let decoded = E::decode_raw_log_with_config(topics, &log.data, bounded(&log.data));
    decoded.map_or(Event::Malformed, Event::Is)
}

/// How to decode data that a stranger has encoded: in no more than four times its own size.
///
/// Elements of an array may share their bytes, so that 300 kB of a log become gigabytes. A module
/// that runs out of memory halts its lane, and anyone could halt it. What a Solidity compiler
/// encodes shares nothing and needs less than twice its size.
///
/// ```
/// use shepherd_sdk::{U256, abi::bounded, alloy_sol_types::SolValue};
///
/// let data = vec![U256::from(1); 1000].abi_encode();
/// assert!(Vec::<U256>::abi_decode_with_config(&data, bounded(&data)).is_ok());
/// ```
pub fn bounded(data: &[u8]) -> AbiDecoderConfig {
    AbiDecoderConfig::new().memory_limit(data.len().saturating_mul(4))
}
