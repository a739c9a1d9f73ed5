//! Connections: how many, how slow, and how they end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prometheus_client::registry::Registry;
use shepherd_log::{BlockRef, ChainName, LaneId, Store};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Metrics,
    query::{BlockCheck, LaneReport},
    routes::{self, Context},
    view::{EndpointView, RetentionView, StateView},
};

/// Connections served at once, and with them requests: HTTP/1 has one at a time on each.
///
/// A dashboard, Prometheus and some terminals need a dozen; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 64;

/// How long a client may take to send the head of its request, and to stay idle between two.
const HEADER_TIME_MAX: Duration = Duration::from_secs(10);

/// Room for the head of a request. Ours are some hundred bytes.
const HEADER_BYTES_MAX: usize = 16 << 10;

/// How long a shutdown waits for answers that are being written.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// Pause after the system could not hand out a connection, as when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where answers come from.
pub struct Sources {
    /// Journals, cursors and state.
    pub store: Store,
    /// What the followers say of their chains.
    pub chains: Box<dyn Fn() -> Vec<ChainReport> + Send + Sync>,
    /// What a verification checks of each block besides its place in the journal.
    pub check: Box<BlockCheck>,
    /// What the lanes say of themselves.
    pub lanes: Box<dyn Fn() -> Vec<(LaneId, LaneReport)> + Send + Sync>,
    /// The gauges set at each scrape.
    pub metrics: Metrics,
    /// Everything that is measured.
    pub registry: Registry,
}

/// What is known of a followed chain, besides its journal.
#[derive(Clone, Debug)]
pub struct ChainReport {
    /// The chain. It must have a journal.
    pub name: ChainName,
    /// Its `eth_chainId`.
    pub chain_id: u64,
    /// What its follower is doing.
    pub state: StateView,
    /// The newest block that an endpoint announced.
    pub node_head: Option<u64>,
    /// The newest block in the journal that is known to be final.
    pub finalized: Option<BlockRef>,
    /// How many endpoints must name a block before it is journaled.
    pub quorum: usize,
    /// Its endpoints.
    pub endpoints: Vec<EndpointView>,
    /// How its retention stands.
    pub retention: Option<RetentionView>,
}

/// Serves until `shutdown`, then lets running answers finish for a few seconds.
pub async fn serve(listener: TcpListener, sources: Sources, shutdown: CancellationToken) {
    let port = listener.local_addr().as_ref().map_or(0, SocketAddr::port);
    let context = Context {
        sources: Arc::new(sources),
        port,
        shutdown: shutdown.clone(),
        reading: Arc::new(Semaphore::new(1)),
    };
    let service = TowerToHyperService::new(routes::routes(context));
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let slot = slots.clone().acquire_owned();
        let accepted = async { (slot.await.expect("never closed"), listener.accept().await) };
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => (),
            (slot, accepted) = accepted => match accepted {
                Ok((stream, _)) => {
                    let (service, shutdown) = (service.clone(), shutdown.clone());
                    connections.spawn(async move {
                        let _slot = slot;
                        connection(stream, service, shutdown).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin server could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(DRAIN_TIME_MAX, drained).await.is_err() {
        tracing::warn!("some admin requests were cut off by the shutdown");
    }
}

async fn connection(
    stream: TcpStream,
    service: TowerToHyperService<axum::Router>,
    shutdown: CancellationToken,
) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    // A client that goes away or sends nonsense is nobody's problem here.
    let _ = tokio::select! {
        ended = serving.as_mut() => ended,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
}
