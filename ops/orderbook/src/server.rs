//! The process around the book: sockets, and what a test holds in its hand.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use alloy_primitives::Address;
use axum::{Router, extract::Request, middleware, response::IntoResponse};
use cowprotocol::{DomainSeparator, settlement_domain};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    admin, api,
    book::{Book, Funds, Mark},
    chain::{Node, NodeError},
    clock::{Clock, system_seconds},
    config::{Config, Limits},
    faults::{Faults, FaultsView, Rule, RuleError},
    indexer::{self, Reader},
    order::{OrderView, Uid},
    refusal::Refusal,
    stats::{Stats, StatsView},
};

/// Connections at once. A keeper has a few; a load test some hundred.
const CONNECTIONS_MAX: usize = 1024;

/// How long a client may take to send the head of its request, and to stay idle between two.
const HEADER_TIME_MAX: Duration = Duration::from_secs(30);

/// How long an answer may take, the delays of faults included.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(120);

/// Room for the head of a request.
const HEADER_BYTES_MAX: usize = 16 << 10;

/// Pause after the system could not hand out a connection, as when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every handler is given.
#[derive(Debug)]
pub struct Shared {
    /// What makes an order's digest this chain's.
    pub domain: DomainSeparator,
    /// The settlement contract.
    pub settlement: Address,
    /// The wrapped native token.
    pub wrapped_native: Address,
    /// The EthFlow contract.
    pub eth_flow: Option<Address>,
    /// Blocks after a placement before it is known.
    pub delay_blocks: u64,
    /// Whether tokens are asked for an owner's funds.
    pub check_funds: bool,
    /// The chain.
    pub node: Option<Node>,
    state: Mutex<State>,
}

/// What changes. Behind one lock, which is never held across an `.await`.
#[derive(Debug)]
pub struct State {
    /// The orders.
    pub book: Book,
    /// What goes wrong.
    pub faults: Faults,
    /// What was asked.
    pub stats: Stats,
    /// What time it is.
    pub clock: Clock,
    /// What is accepted.
    pub limits: Limits,
}

impl Shared {
    fn new(config: &Config) -> Result<Shared, StartError> {
        let chain = config.chain.as_ref();
        let node = chain.map(|chain| Node::new(chain.rpc.clone())).transpose();
        let state = State {
            book: Book::default(),
            faults: Faults::new(config.seed, config.rules.clone())?,
            stats: Stats::default(),
            clock: config.clock,
            limits: config.limits,
        };
        Ok(Shared {
            domain: settlement_domain(config.chain_id, config.settlement),
            settlement: config.settlement,
            wrapped_native: config.wrapped_native,
            eth_flow: chain.and_then(|chain| chain.eth_flow),
            delay_blocks: chain.map_or(0, |chain| chain.delay_blocks),
            check_funds: chain.is_some_and(|chain| chain.check_funds),
            node: node.map_err(StartError::Client)?,
            state: Mutex::new(state),
        })
    }

    /// Everything that changes.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held")
    }

    /// What time it is, in Unix seconds.
    pub async fn now(&self) -> Result<u64, NodeError> {
        let clock = self.state().clock;
        match clock {
            Clock::System => Ok(system_seconds()),
            Clock::Fixed(seconds) => Ok(seconds),
            Clock::Chain => self.node.as_ref().ok_or(NodeError::NotConfigured)?.timestamp().await,
        }
    }

    /// Everything that was counted.
    pub fn stats(&self) -> StatsView {
        let state = self.state();
        state.stats.view(state.faults.seed())
    }
}

/// Why an orderbook did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A rule of the configuration.
    #[error("a rule makes no sense")]
    Rule(#[from] RuleError),
    /// The HTTP client for the chain could not be set up.
    #[error("no client for the chain's node")]
    Client(#[source] reqwest::Error),
}

/// A running orderbook. Dropping it closes its connections and frees its port.
#[derive(Debug)]
pub struct Orderbook {
    shared: Arc<Shared>,
    config: Config,
    tasks: JoinSet<()>,
}

/// An orderbook that is out of reach, with everything it knows.
#[derive(Debug)]
pub struct Stopped {
    shared: Arc<Shared>,
    config: Config,
}

impl Orderbook {
    /// Starts an orderbook. When this returns, it answers.
    pub async fn start(config: Config) -> Result<Orderbook, StartError> {
        let shared = Arc::new(Shared::new(&config)?);
        Orderbook::serve(shared, config).await
    }

    async fn serve(shared: Arc<Shared>, mut config: Config) -> Result<Orderbook, StartError> {
        let address = config.listen;
        let failed = |source| StartError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        config.listen = listener.local_addr().map_err(failed)?;

        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, router(&shared, &config.network)));
        if let (Some(chain), Some(node)) = (&config.chain, &shared.node) {
            let reader = Reader {
                eth_flow: chain.eth_flow,
                settlement: config.settlement,
                domain: shared.domain.clone(),
            };
            let following =
                indexer::follow(Arc::clone(&shared), node.clone(), chain.clone(), reader);
            tasks.spawn(following);
        }
        Ok(Orderbook { shared, config, tasks })
    }

    /// Closes everything at once, answers that are being written included: an outage. The orders
    /// stay for [`Stopped::start`].
    pub async fn stop(mut self) -> Stopped {
        self.tasks.shutdown().await;
        Stopped { shared: Arc::clone(&self.shared), config: self.config.clone() }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.config.listen
    }

    /// The base that a client is configured with: `/api/v1` comes after it.
    pub fn url(&self) -> Url {
        let address = self.config.listen;
        format!("http://{address}/{}/", self.config.network).parse().expect("an address and a path")
    }

    /// Everything that was counted.
    pub fn stats(&self) -> StatsView {
        self.shared.stats()
    }

    /// All orders, whatever their status: as they came, then those from the chain.
    pub async fn orders(&self) -> Result<Vec<OrderView>, Refused> {
        let now = self.shared.now().await.map_err(Refusal::from)?;
        let uids = self.shared.state().book.uids();
        Ok(uids.iter().filter_map(|uid| api::view(&self.shared, *uid, now, 0)).collect())
    }

    /// What goes wrong, and how often it did.
    pub fn faults(&self) -> FaultsView {
        self.shared.state().faults.view()
    }

    /// Lets other things go wrong than before, drawn from the same seed.
    pub fn set_rules(&self, rules: Vec<Rule>) -> Result<(), RuleError> {
        let mut state = self.shared.state();
        state.faults = Faults::new(state.faults.seed(), rules)?;
        Ok(())
    }

    /// Sets what time it is.
    pub fn set_clock(&self, clock: Clock) {
        self.shared.state().clock = clock;
    }

    /// Sets what is accepted.
    pub fn set_limits(&self, limits: Limits) {
        self.shared.state().limits = limits;
    }

    /// Gives an owner exactly so much of a token.
    pub fn set_funds(&self, owner: Address, token: Address, funds: Funds) {
        self.shared.state().book.set_funds(owner, token, funds);
    }

    /// Sells and buys an order in full.
    pub fn fill(&self, uid: Uid) -> Result<(), Refused> {
        self.mark(uid, Mark::Fill)
    }

    /// Takes an order back.
    pub fn cancel(&self, uid: Uid) -> Result<(), Refused> {
        self.mark(uid, Mark::Cancel)
    }

    /// Pre-signs an order, as its owner would on the chain.
    pub fn presign(&self, uid: Uid) -> Result<(), Refused> {
        self.mark(uid, Mark::PreSign)
    }

    fn mark(&self, uid: Uid, mark: Mark) -> Result<(), Refused> {
        Ok(self.shared.state().book.mark(uid, mark)?)
    }
}

/// What was asked for cannot be done.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Refused(#[from] Refusal);

impl Stopped {
    /// Starts again on the same port, with the orders, rules and counts there were.
    pub async fn start(self) -> Result<Orderbook, StartError> {
        Orderbook::serve(self.shared, self.config).await
    }

    /// Where it listened and will listen.
    pub fn address(&self) -> SocketAddr {
        self.config.listen
    }
}

fn router(shared: &Arc<Shared>, network: &str) -> Router {
    Router::new()
        .nest("/api/v1", api::routes())
        .nest(&format!("/{network}/api/v1"), api::routes())
        .nest("/admin", admin::routes())
        .layer(middleware::from_fn(async |request: Request, next: middleware::Next| {
            let answer = timeout(REQUEST_TIME_MAX, next.run(request)).await;
            answer.unwrap_or_else(|_| axum::http::StatusCode::REQUEST_TIMEOUT.into_response())
        }))
        .with_state(Arc::clone(shared))
}

async fn accept(listener: TcpListener, router: Router) {
    let service = TowerToHyperService::new(router);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let slot = slots.clone().acquire_owned();
        let accepted = async { (slot.await.expect("never closed"), listener.accept().await) };
        tokio::select! {
            Some(_) = connections.join_next() => (),
            (slot, accepted) = accepted => match accepted {
                Ok((stream, peer)) => {
                    let service = service.clone();
                    connections.spawn(async move {
                        let _slot = slot;
                        connection(stream, peer, service).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the orderbook could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, service: TowerToHyperService<Router>) {
    // Small answers go out at once.
    let _ = stream.set_nodelay(true);
    let hangup = CancellationToken::new();
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        let extensions = request.extensions_mut();
        extensions.insert(api::Hangup(hangup.clone()));
        extensions.insert(admin::Peer(peer));
        service.call(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away or sends nonsense is nobody's problem here.
    let _ = hangup.run_until_cancelled(serving).await;
}
