//! JSON-RPC to a node on this machine, for driving it.
//!
//! This is the test's own line to the node: it does not retry, fail over or measure, which
//! is what the code under test does, and so it shares nothing with it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use serde_json::{Value, json};
use url::Url;

/// A client of one node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rpc {
    http: reqwest::Client,
    url: Url,
}

/// The error object of a node's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused(pub Value);

impl Refused {
    fn into_error(self) -> anyhow::Error {
        anyhow!("the node refused: {}", self.0)
    }
}

/// Requests in one HTTP body.
///
/// anvil refuses bodies over two megabytes; a signed-by-the-node transaction is some
/// 400 bytes, so a thousand stay well below.
const BATCH_MAX: usize = 1000;

impl Rpc {
    /// A client of the node at `url`, which has to be on the loopback interface.
    pub fn new(url: Url) -> anyhow::Result<Rpc> {
        let loopback = match url.host() {
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => false,
        };
        ensure!(loopback, "a devnet is driven on this machine only, not at {url}");
        // A client that trusts no authority: it could not speak to the outside if it wanted.
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(tls)
            .timeout(Duration::from_secs(120))
            .build()?;
        Ok(Rpc { http, url })
    }

    /// One request; an error of the node is an error here.
    pub async fn call(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        let answer = self.try_call(method, params.clone()).await?;
        answer.map_err(Refused::into_error).with_context(|| format!("{method} with {params}"))
    }

    /// One request; an error of the node is an answer, an error here is that there was none.
    pub async fn try_call(
        &self,
        method: &str,
        params: Value,
    ) -> anyhow::Result<Result<Value, Refused>> {
        let request = json!({ "jsonrpc": "2.0", "id": 0, "method": method, "params": params });
        let answer = self.post(&request).await.with_context(|| format!("calling {method}"))?;
        result(answer)
    }

    /// Many requests, answered in the order given. They travel together, which is several
    /// times faster than one by one.
    pub async fn batch(&self, calls: &[(&str, Value)]) -> anyhow::Result<Vec<Value>> {
        let mut results = Vec::with_capacity(calls.len());
        for part in calls.chunks(BATCH_MAX) {
            let requests: Vec<Value> = part
                .iter()
                .enumerate()
                .map(|(id, (method, params))| {
                    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
                })
                .collect();
            let Value::Array(mut answers) = self.post(&Value::Array(requests)).await? else {
                bail!("the node answered a batch of {} with a single value", part.len());
            };
            ensure!(answers.len() == part.len(), "{} answers to {}", answers.len(), part.len());
            answers.sort_by_key(|answer| answer["id"].as_u64());
            for (answer, (method, params)) in answers.into_iter().zip(part) {
                let result = result(answer)?.map_err(Refused::into_error);
                results.push(result.with_context(|| format!("{method} with {params}"))?);
            }
        }
        Ok(results)
    }

    async fn post(&self, body: &Value) -> anyhow::Result<Value> {
        let request = self
            .http
            .post(self.url.clone())
            .header("content-type", "application/json")
            .body(serde_json::to_vec(body)?);
        let answer = request.send().await?.error_for_status()?.bytes().await?;
        Ok(serde_json::from_slice(&answer)?)
    }
}

fn result(mut answer: Value) -> anyhow::Result<Result<Value, Refused>> {
    if let Some(error) = answer.get_mut("error") {
        return Ok(Err(Refused(error.take())));
    }
    match answer.get_mut("result") {
        Some(result) => Ok(Ok(result.take())),
        None => bail!("neither result nor error in {answer}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_driven() {
        let check = |url: &str| Rpc::new(url.parse().expect("a URL")).is_ok();
        assert!(check("http://127.0.0.1:8545"));
        assert!(check("http://[::1]:8545"));
        assert!(check("http://localhost:8545"));
        assert!(!check("http://192.0.2.1:8545"));
        assert!(!check("https://node.example"));
    }

    #[test]
    fn a_null_result_is_an_answer_and_an_error_is_none() {
        let check = |answer: Value| result(answer).unwrap();
        assert_eq!(check(json!({ "id": 0, "result": null })), Ok(Value::Null));
        let error = json!({ "code": -32000 });
        assert_eq!(check(json!({ "id": 0, "error": error })), Err(Refused(error)));
        assert!(result(json!({ "id": 0 })).is_err());
    }
}
