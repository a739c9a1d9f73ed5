//! The receiver of the webhooks: it fails at first, and remembers every byte.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};
use url::Url;

/// What came under one key.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Every body, in order.
    pub bodies: Vec<Bytes>,
    /// How many of them were answered 200.
    pub accepted: u64,
}

impl Received {
    /// The document.
    pub fn document(&self) -> Value {
        self.bodies.first().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default()
    }

    /// Whether every attempt brought the same bytes.
    pub fn is_always_the_same(&self) -> bool {
        self.bodies.iter().all(|body| *body == self.bodies[0])
    }
}

type Log = Arc<Mutex<BTreeMap<String, Received>>>;

/// A server on loopback. It answers 503 to the first attempt of each key.
pub struct Hooks {
    received: Log,
    url: Url,
    server: JoinHandle<std::io::Result<()>>,
}

impl Hooks {
    /// Starts it on a free port.
    pub async fn start() -> anyhow::Result<Hooks> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = Url::parse(&format!("http://{}/alerts", listener.local_addr()?))?;
        let received = Log::default();
        let app = Router::new().route("/alerts", post(receive)).with_state(received.clone());
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Hooks { received, url, server })
    }

    /// Where it listens.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Everything that came, by key.
    pub fn received(&self) -> BTreeMap<String, Received> {
        self.received.lock().expect("nothing panics while holding the log").clone()
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(State(log): State<Log>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
    let Some(key) = key else { return StatusCode::BAD_REQUEST };
    let mut log = log.lock().expect("nothing panics while holding the log");
    let received = log.entry(key.to_owned()).or_default();
    received.bodies.push(body);
    if received.bodies.len() == 1 {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    received.accepted += 1;
    StatusCode::OK
}
