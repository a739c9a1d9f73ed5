//! A read that nothing answers, told so that it can be asked by hand.

use std::fmt;

use serde_json::{Value, json};
use shepherd_host::ReadRequest;
use shepherd_log::{BlockRef, Offset};
use shepherd_rpc::{CALL_GAS, ReadFailed};

/// A read of a backtest that nothing answers.
///
/// Its text names the request in full. For the chain that is the body of a JSON-RPC message, for
/// `curl --json`, with which any archive node answers it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", Told(self))]
pub struct Miss {
    /// The record whose handling asks.
    pub record: Offset,
    /// The block it is asked at.
    pub block: BlockRef,
    /// The first request that nothing answers.
    pub request: ReadRequest,
    /// How many more requests of the same read nothing answers.
    pub others: usize,
    /// Where it was looked for last.
    pub why: MissCause,
}

/// Why a read has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MissCause {
    /// Neither the tape nor the cache has it, and there is no archive endpoint.
    NoEndpoint,
    /// The archive endpoint does not answer.
    Endpoint(ReadFailed),
    /// The orderbook of that time cannot be asked, and nothing on file says what it answered.
    Orderbook,
    /// Servers cannot be asked how they answered then.
    Server,
}

impl MissCause {
    /// What would help.
    fn told(&self) -> String {
        match self {
            MissCause::NoEndpoint => "neither the tape nor the read cache has it; an archive \
                                      endpoint (--endpoint) would answer it"
                .to_owned(),
            MissCause::Endpoint(failed) => {
                format!("neither the tape nor the read cache has it, and {failed}")
            }
            MissCause::Orderbook => "neither the tape, nor what is known of orders, nor the rules \
                                     of the venue say what the orderbook answered; the rules may \
                                     ([orders] unknown, [app_data])"
                .to_owned(),
            MissCause::Server => {
                "the tape does not have it, and what a server answered then cannot be asked today"
                    .to_owned()
            }
        }
    }
}

struct Told<'m>(&'m Miss);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Miss { record, block, request, others, why } = self.0;
        let asked = asked(*block, request);
        write!(f, "no answer at record {record}, block {block}, to {asked}")?;
        if *others > 0 {
            write!(f, " and {others} more of the same read")?;
        }
        write!(f, ": {}", why.told())
    }
}

/// The request, so that it can be asked by hand.
fn asked(block: BlockRef, request: &ReadRequest) -> String {
    let pin = json!({ "blockHash": block.hash });
    match request {
        ReadRequest::Call { to, data } => {
            let gas = format!("{CALL_GAS:#x}");
            message("eth_call", json!([{ "to": to, "data": data, "gas": gas }, pin]))
        }
        ReadRequest::Balance(address) => message("eth_getBalance", json!([address, pin])),
        ReadRequest::Code(address) => message("eth_getCode", json!([address, pin])),
        ReadRequest::Storage { address, slot } => {
            message("eth_getStorageAt", json!([address, slot, pin]))
        }
        ReadRequest::Order(uid) => format!("GET /api/v1/orders/{}", hex(uid)),
        ReadRequest::AppData(hash) => format!("GET /api/v1/app_data/{hash}"),
        ReadRequest::Get(url) => format!("GET {url}"),
    }
}

fn message(method: &str, params: Value) -> String {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string()
}

fn hex(bytes: &[u8]) -> String {
    alloy_primitives::hex::encode_prefixed(bytes)
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{Address, B256, Bytes};

    use super::*;

    fn check(request: ReadRequest, others: usize, why: MissCause, expected: &str) {
        let block = BlockRef { number: 7, hash: B256::repeat_byte(7) };
        let miss = Miss { record: Offset::new(9), block, request, others, why };
        assert_eq!(miss.to_string(), expected);
    }

    #[test]
    fn a_miss_says_everything_that_is_needed_to_ask_by_hand() {
        let call =
            ReadRequest::Call { to: Address::repeat_byte(1), data: Bytes::from_static(&[1, 2]) };
        check(
            call,
            2,
            MissCause::NoEndpoint,
            "no answer at record 9, block 7 \
             (0x0707070707070707070707070707070707070707070707070707070707070707), to \
             {\"id\":1,\"jsonrpc\":\"2.0\",\"method\":\"eth_call\",\"params\":[{\"data\":\"0x0102\",\
             \"gas\":\"0x1c9c380\",\"to\":\"0x0101010101010101010101010101010101010101\"},\
             {\"blockHash\":\
             \"0x0707070707070707070707070707070707070707070707070707070707070707\"}]} \
             and 2 more of the same read: neither the tape nor the read cache has it; an archive \
             endpoint (--endpoint) would answer it",
        );
        check(
            ReadRequest::AppData(B256::ZERO),
            0,
            MissCause::Orderbook,
            "no answer at record 9, block 7 \
             (0x0707070707070707070707070707070707070707070707070707070707070707), to \
             GET /api/v1/app_data/\
             0x0000000000000000000000000000000000000000000000000000000000000000: neither the tape, \
             nor what is known of orders, nor the rules of the venue say what the orderbook \
             answered; the rules may ([orders] unknown, [app_data])",
        );
    }
}
