//! The endpoints of one chain, used as if they were one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use alloy_primitives::B256;
use tokio::task::JoinSet;

use crate::{
    Answer, Call, Capabilities, EndpointSpec, EndpointStatus, Failure, Heads, Metrics, PoolError,
    Redacted, RpcError, Sighting, endpoint::Endpoint, heads, hedge::HedgeAllowance,
    identity::Identity, order,
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
    /// Largest message held in memory. The answers to one batch, which may come in many messages,
    /// may together be four times as large.
    pub body_bytes_max: u64,
    /// Most calls in one message. Public providers accept a hundred; an endpoint that accepts
    /// fewer is asked for fewer once it says so.
    pub batch_calls_max: usize,
    /// Rest after a first failure; it doubles with each further one.
    pub rest_min: Duration,
    /// Longest rest. An operator who repairs a node waits at most this long to see it used.
    pub rest_max: Duration,
    /// A subscription to new heads that says nothing for this long is made anew.
    pub head_silence_max: Duration,
    /// When an endpoint is slow, another one is asked as well and the first answer counts. This is
    /// the largest share of calls, from 0 to 1, for which that is done; 0 turns it off. Such
    /// calls count towards the rate and the budget of the other endpoint.
    pub hedge_share_max: f64,
    /// An endpoint is not called slow before this. It is after this or after what nineteen of its
    /// last answers of twenty took, whichever is longer; after a second while too few are known.
    pub hedge_after_min: Duration,
    /// Whether endpoints are asked in the background, when they are first used and at most every
    /// ten minutes after a failure, what they are able to do. It costs about ten calls and one
    /// message of `eth_chainId`s as large as is allowed. [`Pool::check`] asks it each time.
    pub probe: bool,
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
            head_silence_max: Duration::from_secs(120),
            hedge_share_max: 0.1,
            hedge_after_min: Duration::from_millis(100),
            probe: false,
        }
    }
}

/// The endpoints of one chain. Clones share them.
#[derive(Clone)]
pub struct Pool {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    chain: String,
    /// In the order in which they are tried as long as all are as good as one another.
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    /// The WebSocket endpoints, for subscriptions.
    websockets: Vec<(String, Redacted)>,
    identity: Arc<Identity>,
    options: Options,
    hedges: Mutex<HedgeAllowance>,
    /// What nobody waits for: endpoints coming back, and what they are able to do.
    background: Mutex<JoinSet<()>>,
}

impl Inner {
    pub(crate) fn hedges(&self) -> MutexGuard<'_, HedgeAllowance> {
        self.hedges.lock().expect("nothing panics while it holds the allowance")
    }

    pub(crate) fn background(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.background.lock().expect("nothing panics while it holds the tasks")
    }
}

/// One endpoint of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub(crate) usize);

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
    /// What it is able to do; `None` when it serves another chain, did not answer, or was not
    /// asked.
    pub capabilities: Option<Capabilities>,
}

impl Pool {
    /// A pool over these endpoints for the chain of this id.
    ///
    /// Nothing is connected to yet, so nothing can fail yet. Endpoints are tried in the order
    /// of their priorities; of one priority the healthier first, and as long as they are alike
    /// in the order given, WebSocket ones after the others: each call of a batch is a message
    /// there.
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
                let of_endpoint = metrics.of_endpoint(chain, &name);
                let endpoint = Endpoint::new(name, spec, identity.clone(), &options, of_endpoint);
                let endpoint = Arc::new(endpoint);
                metrics.watch(chain, &endpoint);
                endpoint
            })
            .collect();
        let inner = Inner {
            chain: chain.to_owned(),
            endpoints,
            websockets,
            identity,
            hedges: Mutex::new(HedgeAllowance::new(options.hedge_share_max)),
            background: Mutex::default(),
            options,
        };
        Pool { inner: Arc::new(inner) }
    }

    /// The chain's name.
    pub fn chain(&self) -> &str {
        &self.inner.chain
    }

    /// The chain id that every endpoint must have.
    pub fn chain_id(&self) -> u64 {
        self.inner.identity.chain_id()
    }

    /// Asks the first endpoint, the next as well when it is slow, and the next when it fails.
    ///
    /// All answers come from one endpoint, so they fit together as well as that one is able to.
    pub async fn batch(&self, calls: &[Call]) -> Result<Batch, PoolError> {
        match self.attempt(calls, |id| self.ask(id, calls)).await {
            Ok((from, answers)) => Ok(Batch { answers, from }),
            Err(failures) => Err(self.error(failures)),
        }
    }

    /// The genesis block of the chain, as the journal remembers it. Every endpoint is compared
    /// with it when it is next connected to; one that was accepted under another genesis is
    /// asked again who it is.
    pub fn expect_genesis(&self, genesis: B256) {
        if self.inner.identity.expect(genesis) {
            self.inner.endpoints.iter().for_each(|endpoint| endpoint.forget());
        }
    }

    /// The genesis block that was expected, or else the one that the first endpoint to show its
    /// own had.
    pub fn genesis(&self) -> Option<B256> {
        self.inner.identity.genesis()
    }

    /// Puts an endpoint last for a while because what it answered did not hold up: for a minute,
    /// and for twice as long each time that it is caught again soon after, up to ten minutes.
    ///
    /// The evidence is in the status from now on, and logged when the endpoint was not put aside
    /// already. Parts of the endpoint's URL in it are made unreadable.
    pub fn distrust(&self, endpoint: EndpointId, evidence: String) {
        self.inner.endpoints[endpoint.0].distrust(&evidence);
    }

    /// Whether an endpoint is put aside for now because what it said did not hold up.
    pub fn is_distrusted(&self, endpoint: EndpointId) -> bool {
        self.inner.endpoints[endpoint.0].is_distrusted()
    }

    /// Puts an endpoint behind the others, whatever their priorities, because its head is this many
    /// blocks behind theirs: for half a minute from now. With 0 it has caught up.
    pub fn report_lagging(&self, endpoint: EndpointId, behind_blocks: u64) {
        self.inner.endpoints[endpoint.0].report_lagging(behind_blocks);
    }

    /// What an endpoint is able to do, once it was asked; see [`Options::probe`].
    pub fn capabilities(&self, endpoint: EndpointId) -> Option<Capabilities> {
        self.inner.endpoints[endpoint.0].capabilities()
    }

    /// The redacted name of an endpoint.
    pub fn name_of(&self, endpoint: EndpointId) -> &str {
        &self.inner.endpoints[endpoint.0].name
    }

    /// What an endpoint said, or an error that repeats it, made safe to show: parts of its URL are
    /// made unreadable, control characters become spaces, and a long text is cut.
    pub fn scrub(&self, endpoint: EndpointId, text: &str) -> String {
        self.inner.endpoints[endpoint.0].scrub(text)
    }

    /// Wake-ups from the new-head subscriptions of the WebSocket endpoints, for as long as the
    /// result lives.
    pub fn heads(&self) -> Heads {
        let Inner { websockets, identity, options, .. } = &*self.inner;
        heads::subscribe(websockets.clone(), identity, options)
    }

    /// Asks every endpoint, at once and whatever its condition, which chain it serves and, if
    /// that is ours and [`Options::probe`] is set, what it is able to do.
    pub async fn check(&self) -> Vec<EndpointCheck> {
        let checks = self.inner.endpoints.iter().map(|endpoint| async {
            let result = endpoint.sight().await;
            let capabilities = match &result {
                Ok(_) if self.inner.options.probe => endpoint.probe().await,
                _ => None,
            };
            EndpointCheck { endpoint: endpoint.name.clone(), result, capabilities }
        });
        futures::future::join_all(checks).await
    }

    /// How the endpoints are doing, by priority, and of one priority as they were given,
    /// WebSocket ones after the others.
    pub fn status(&self) -> Vec<EndpointStatus> {
        self.inner.endpoints.iter().map(|endpoint| endpoint.status()).collect()
    }

    /// All endpoints, in the order in which they would be tried now.
    pub fn endpoints(&self) -> Vec<EndpointId> {
        order::order(&self.candidates(1)).into_iter().map(EndpointId).collect()
    }

    /// How long a call to this endpoint would have to wait for its rate, behind those that wait
    /// already: no fault of the endpoint, for whoever waits for its answer.
    pub fn rate_wait(&self, endpoint: EndpointId) -> Duration {
        self.inner.endpoints[endpoint.0].rate_wait()
    }

    /// Asks exactly this endpoint, unless it rests: then the failure is the one it rests after.
    ///
    /// The answers are in the order of the calls. Waits for the endpoint's rate, however long.
    pub async fn ask(
        &self,
        id: EndpointId,
        calls: &[Call],
    ) -> Result<Vec<Result<Answer, RpcError>>, Failure> {
        let endpoint = &self.inner.endpoints[id.0];
        if let Some((_, failure)) = endpoint.resting() {
            return Err(failure);
        }
        let answers = endpoint.ask(calls).await?;
        if self.inner.options.probe && endpoint.begin_probe() {
            let endpoint = endpoint.clone();
            self.in_background(async move {
                endpoint.probe().await;
            });
        }
        Ok(answers)
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
