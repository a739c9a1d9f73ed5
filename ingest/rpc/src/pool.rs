//! The endpoints of one chain, used as if they were one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use alloy_primitives::B256;

use crate::{
    Answer, Call, Capabilities, EndpointSpec, EndpointStatus, Failure, Heads, Metrics, PoolError,
    Redacted, RpcError, Sighting, endpoint::Endpoint, heads, identity::Identity,
};

/// Limits of a pool and of each of its endpoints.
#[derive(Clone, Debug)]
pub struct Options {
    /// For a connection to be made.
    pub connect_timeout: Duration,
    /// For the next bytes of an answer to come.
    pub read_timeout: Duration,
    /// For a whole answer to come.
    pub request_timeout: Duration,
    /// Largest answer held in memory. Four times this is what a chain can take while it catches
    /// up, should every answer be as large.
    pub body_bytes_max: u64,
    /// Most calls in one message. Public providers accept a hundred; an endpoint that accepts
    /// fewer is asked for fewer once it says so.
    pub batch_calls_max: usize,
    /// Rest after a first failure; it doubles with each further one.
    pub rest_min: Duration,
    /// Longest rest. An operator who repairs a node waits at most this long to see it used.
    pub rest_max: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(15),
            request_timeout: Duration::from_secs(60),
            body_bytes_max: 64 << 20,
            batch_calls_max: 100,
            rest_min: Duration::from_millis(250),
            rest_max: Duration::from_secs(15),
        }
    }
}

/// The endpoints of one chain. Clones share them.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    chain: String,
    /// In the order in which they are tried, as long as none is distrusted.
    endpoints: Vec<Endpoint>,
    /// The WebSocket endpoints, for subscriptions.
    websockets: Vec<(String, Redacted)>,
    identity: Arc<Identity>,
    options: Options,
}

/// One endpoint of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointId(usize);

/// The answers to a batch of calls, all from one endpoint.
#[derive(Debug)]
pub struct Batch {
    /// In the order of the calls. An error is the endpoint's own answer, not a failure to ask it.
    pub answers: Vec<Result<Answer, RpcError>>,
    /// Who answered, for [`Pool::distrust`].
    pub from: EndpointId,
}

/// What [`Pool::check`] found out about one endpoint.
#[derive(Clone, Debug)]
pub struct EndpointCheck {
    /// The endpoint, redacted.
    pub endpoint: String,
    /// The chain it serves, when that is ours, or what is wrong.
    pub result: Result<Sighting, Failure>,
}

impl Pool {
    /// A pool over these endpoints for the chain of this id.
    ///
    /// Nothing is connected to yet, so nothing can fail yet. Endpoints are tried in the order
    /// of their priorities, and of one priority in the order given, WebSocket ones after the
    /// others: each call of a batch is a message there.
    pub fn connect(
        chain: &str,
        chain_id: u64,
        endpoints: Vec<EndpointSpec>,
        options: Options,
        metrics: &Metrics,
    ) -> Pool {
        // Both TLS users, reqwest and the WebSocket transport, take the process's default
        // provider. It is ring everywhere; an error only says that one is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let identity = Arc::new(Identity::new(chain_id));
        let mut named = name(endpoints);
        named.sort_by_key(|(_, spec)| (spec.priority, spec.url.is_websocket()));
        let websockets = named
            .iter()
            .filter(|(_, spec)| spec.url.is_websocket())
            .map(|(name, spec)| (name.clone(), spec.url.clone()))
            .collect();
        let endpoints = named
            .into_iter()
            .map(|(name, spec)| {
                let metrics = metrics.of_endpoint(chain, &name);
                Endpoint::new(name, spec, identity.clone(), &options, metrics)
            })
            .collect();
        let chain = chain.to_owned();
        Pool { inner: Arc::new(Inner { chain, endpoints, websockets, identity, options }) }
    }

    /// The chain's name.
    pub fn chain(&self) -> &str {
        &self.inner.chain
    }

    /// The chain id that every endpoint must have.
    pub fn chain_id(&self) -> u64 {
        self.inner.identity.chain_id()
    }

    /// Asks the first endpoint that is ready, and the next when it fails.
    ///
    /// All answers come from one endpoint, so they fit together as well as that one is able to.
    pub async fn batch(&self, calls: &[Call]) -> Result<Batch, PoolError> {
        let mut failures = Vec::new();
        for id in self.endpoints() {
            match self.ask(id, calls).await {
                Ok(answers) => return Ok(Batch { answers, from: id }),
                Err(failure) => failures.push((id, failure)),
            }
        }
        Err(self.error(failures))
    }

    /// The genesis block of the chain, as the journal remembers it. Every endpoint is compared
    /// with it when it is next connected to; one that was accepted under another genesis is
    /// asked again who it is.
    pub fn expect_genesis(&self, genesis: B256) {
        if self.inner.identity.expect(genesis) {
            self.inner.endpoints.iter().for_each(Endpoint::forget);
        }
    }

    /// The genesis block that was expected, or else the one that the first endpoint to show its
    /// own had.
    pub fn genesis(&self) -> Option<B256> {
        self.inner.identity.genesis()
    }

    /// Puts an endpoint last for a while because what it answered did not hold up.
    pub fn distrust(&self, endpoint: EndpointId, evidence: String) {
        self.inner.endpoints[endpoint.0].distrust(evidence);
    }

    /// Puts an endpoint behind the others for a while because its head is this many blocks behind
    /// theirs. With 0 it has caught up.
    pub fn report_lagging(&self, endpoint: EndpointId, behind_blocks: u64) {
        self.inner.endpoints[endpoint.0].report_lagging(behind_blocks);
    }

    /// What an endpoint is able to do, once it was asked.
    pub fn capabilities(&self, endpoint: EndpointId) -> Option<Capabilities> {
        self.inner.endpoints[endpoint.0].capabilities()
    }

    /// The redacted name of an endpoint.
    pub fn name_of(&self, endpoint: EndpointId) -> &str {
        &self.inner.endpoints[endpoint.0].name
    }

    /// Wake-ups from the new-head subscriptions of the WebSocket endpoints, for as long as the
    /// result lives.
    pub fn heads(&self) -> Heads {
        let Inner { websockets, identity, options, .. } = &*self.inner;
        heads::subscribe(websockets.clone(), identity, options)
    }

    /// Asks every endpoint, at once and whatever its condition, which chain it serves.
    pub async fn check(&self) -> Vec<EndpointCheck> {
        let checks = self.inner.endpoints.iter().map(|endpoint| async {
            EndpointCheck { endpoint: endpoint.name.clone(), result: endpoint.sight().await }
        });
        futures::future::join_all(checks).await
    }

    /// How the endpoints are doing, by priority, and of one priority as they were given,
    /// WebSocket ones after the others.
    pub fn status(&self) -> Vec<EndpointStatus> {
        self.inner.endpoints.iter().map(Endpoint::status).collect()
    }

    /// All endpoints, in the order in which they would be tried now: by priority, but those that
    /// lag behind the others, and the distrusted last.
    pub fn endpoints(&self) -> Vec<EndpointId> {
        let mut ids: Vec<EndpointId> = (0..self.inner.endpoints.len()).map(EndpointId).collect();
        ids.sort_by_key(|id| {
            let endpoint = &self.inner.endpoints[id.0];
            (endpoint.is_distrusted(), endpoint.is_lagging())
        });
        ids
    }

    /// Asks exactly this endpoint, unless it rests: then the failure is the one it rests after.
    /// The answers are in the order of the calls.
    pub async fn ask(
        &self,
        id: EndpointId,
        calls: &[Call],
    ) -> Result<Vec<Result<Answer, RpcError>>, Failure> {
        let endpoint = &self.inner.endpoints[id.0];
        match endpoint.resting() {
            Some((_, failure)) => Err(failure),
            None => endpoint.ask(calls).await,
        }
    }

    /// What it means that these endpoints, all there are, failed so.
    pub(crate) fn error(&self, failures: Vec<(EndpointId, Failure)>) -> PoolError {
        let retry_in = self
            .inner
            .endpoints
            .iter()
            .map(|endpoint| endpoint.resting().map_or(Duration::ZERO, |(remaining, _)| remaining))
            .min()
            .unwrap_or(self.inner.options.rest_max);
        let failures = failures
            .into_iter()
            .map(|(id, failure)| (self.name_of(id).to_owned(), failure))
            .collect();
        verdict(failures, retry_in)
    }
}

/// Waiting helps against every failure but one: no endpoint serves our chain.
fn verdict(failures: Vec<(String, Failure)>, retry_in: Duration) -> PoolError {
    let all_wrong = failures.iter().all(|(_, f)| matches!(f, Failure::WrongChain(_)));
    match failures.first() {
        Some((endpoint, Failure::WrongChain(source))) if all_wrong => {
            PoolError::WrongChain { endpoint: endpoint.clone(), source: *source }
        }
        _ => PoolError::NoAnswer { failures, retry_in },
    }
}

/// Names endpoints by what may be shown. Two keys of one provider become `…` and `… #2`.
fn name(endpoints: Vec<EndpointSpec>) -> Vec<(String, EndpointSpec)> {
    let mut seen = BTreeMap::<String, usize>::new();
    endpoints
        .into_iter()
        .map(|spec| {
            let shown = spec.url.to_string();
            let times = seen.entry(shown.clone()).or_default();
            *times += 1;
            let name = if *times == 1 { shown } else { format!("{shown} #{times}") };
            (name, spec)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ChainMismatch;

    #[test]
    fn endpoints_of_one_host_keep_apart() {
        let urls = ["http://a/1", "http://b", "http://a/2"].map(|url| url.parse().unwrap());
        let names: Vec<String> = name(urls.to_vec()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["http://a", "http://b", "http://a #2"]);
    }

    #[test]
    fn only_a_pool_of_nothing_but_wrong_chains_gives_up() {
        let source = ChainMismatch::ChainId { configured: 1, endpoint: 5 };
        let wrong = || ("a".to_owned(), Failure::WrongChain(source));
        let down = || ("b".to_owned(), Failure::Unreachable { reason: "refused".to_owned() });
        let gives_up =
            |failures| matches!(verdict(failures, Duration::ZERO), PoolError::WrongChain { .. });
        assert!(gives_up(vec![wrong(), wrong()]));
        assert!(!gives_up(vec![wrong(), down()]));
        assert!(!gives_up(vec![down(), wrong()]));
        assert!(!gives_up(vec![]));
    }

    #[test]
    fn an_error_names_each_endpoint_and_its_failure() {
        let failures = vec![
            ("http://a".to_owned(), Failure::Status { status: 502 }),
            ("http://b".to_owned(), Failure::RateLimited { retry_after: None }),
        ];
        assert_eq!(
            verdict(failures, Duration::ZERO).to_string(),
            "no endpoint answers: http://a: HTTP status 502; http://b: rate limited"
        );
    }
}
