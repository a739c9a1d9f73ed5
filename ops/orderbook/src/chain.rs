//! The line to a node, for what an orderbook asks of a chain.
//!
//! It shares nothing with the client under test: a mistake there must not be made here again.

use std::{sync::Arc, time::Duration};

use alloy_primitives::{Address, B256, Bytes, U64, U256};
use alloy_sol_types::{SolCall, sol};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use url::Url;

use crate::book::Funds;

sol! {
    /// What an EIP-1271 owner answers; the magic value is the function's own selector.
    function isValidSignature(bytes32 hash, bytes signature) external view returns (bytes4 magic);
    /// What a holder has of a token.
    function balanceOf(address holder) external view returns (uint256 balance);
    /// What a spender may take of it.
    function allowance(address holder, address spender) external view returns (uint256 allowance);
}

/// How long a node may take to answer. It is on this machine.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// A client of one node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Node {
    http: reqwest::Client,
    url: Url,
}

/// Why a node's answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("no node is configured")]
    NotConfigured,
    #[error("the node did not answer")]
    Unreachable(#[from] reqwest::Error),
    /// The node answered with an error: of a call, usually that it reverted.
    #[error("the node refused: {0}")]
    Refused(Value),
    #[error("the node answered with something else")]
    Unreadable(#[from] serde_json::Error),
}

/// One log, as far as it is read.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// Who emitted it.
    pub address: Address,
    /// What it is, and its indexed fields.
    pub topics: Vec<B256>,
    /// Its other fields.
    pub data: Bytes,
    /// The height of its block.
    pub block_number: U64,
    /// The transaction that emitted it.
    pub transaction_hash: B256,
    /// Its block. A log that moved to another block in a reorg is another log.
    pub block_hash: B256,
}

#[derive(Deserialize)]
struct Header {
    timestamp: U64,
}

impl Node {
    /// A client of the node at `url`. It trusts no certificate authority, so it could not speak
    /// to the outside by TLS if it wanted.
    pub fn new(url: Url) -> Result<Node, reqwest::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(tls)
            .timeout(ANSWER_TIME_MAX)
            .build()?;
        Ok(Node { http, url })
    }

    /// The height of the last block.
    pub async fn head(&self) -> Result<u64, NodeError> {
        let number: U64 = self.ask("eth_blockNumber", json!([])).await?;
        Ok(number.to())
    }

    /// The timestamp of the last block, in Unix seconds.
    pub async fn timestamp(&self) -> Result<u64, NodeError> {
        let header: Header = self.ask("eth_getBlockByNumber", json!(["latest", false])).await?;
        Ok(header.timestamp.to())
    }

    /// Logs of a range of blocks, both ends included, from any of `emitters` with any of `events`.
    pub async fn logs(
        &self,
        blocks: std::ops::RangeInclusive<u64>,
        emitters: &[Address],
        events: &[B256],
    ) -> Result<Vec<Log>, NodeError> {
        let filter = json!({
            "fromBlock": U256::from(*blocks.start()),
            "toBlock": U256::from(*blocks.end()),
            "address": emitters,
            "topics": [events],
        });
        self.ask("eth_getLogs", json!([filter])).await
    }

    /// Whether a contract accepts a signature, at the last block.
    pub async fn accepts(
        &self,
        owner: Address,
        hash: B256,
        signature: Bytes,
    ) -> Result<bool, NodeError> {
        let call = isValidSignatureCall { hash, signature };
        let call = json!({ "to": owner, "data": Bytes::from(call.abi_encode()) });
        match self.ask::<Bytes>("eth_call", json!([call, "latest"])).await {
            // Shorter than a word is what an account without code answers.
            Ok(answer) => Ok(isValidSignatureCall::abi_decode_returns(&answer)
                .is_ok_and(|magic| magic == isValidSignatureCall::SELECTOR)),
            Err(NodeError::Refused(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What an owner has of a token and lets `spender` take, at the last block.
    pub async fn funds(
        &self,
        owner: Address,
        token: Address,
        spender: Address,
    ) -> Result<Funds, NodeError> {
        let balance = balanceOfCall { holder: owner }.abi_encode();
        let allowance = allowanceCall { holder: owner, spender }.abi_encode();
        let (balance, allowance) =
            tokio::try_join!(self.amount(token, balance), self.amount(token, allowance))?;
        Ok(Funds { balance: Some(balance), allowance: Some(allowance) })
    }

    /// A token's answer; nothing where there is no token.
    async fn amount(&self, token: Address, data: Vec<u8>) -> Result<U256, NodeError> {
        let call = json!({ "to": token, "data": Bytes::from(data) });
        match self.ask::<Bytes>("eth_call", json!([call, "latest"])).await {
            Ok(answer) => Ok(U256::try_from_be_slice(&answer).unwrap_or_default()),
            Err(NodeError::Refused(_)) => Ok(U256::ZERO),
            Err(error) => Err(error),
        }
    }

    async fn ask<T: DeserializeOwned>(&self, method: &str, params: Value) -> Result<T, NodeError> {
        let request = json!({ "jsonrpc": "2.0", "id": 0, "method": method, "params": params });
        let request = self
            .http
            .post(self.url.clone())
            .header("content-type", "application/json")
            .body(request.to_string());
        let answer = request.send().await?.error_for_status()?.bytes().await?;
        let mut answer: Value = serde_json::from_slice(&answer)?;
        match answer.get_mut("error") {
            Some(error) => Err(NodeError::Refused(error.take())),
            None => Ok(serde_json::from_value(answer["result"].take())?),
        }
    }
}
