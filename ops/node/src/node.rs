//! An endpoint that listens.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc};

use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    Lie, Oracle, Script,
    endpoint::Endpoint,
    script::{Liar, Told},
    server,
};

/// An endpoint that listens on the loopback interface, for HTTP and WebSocket at the same port.
/// Dropping it ends it and all its connections.
#[derive(Debug)]
pub struct Node {
    address: SocketAddr,
    endpoint: Arc<Endpoint>,
    _ends: DropGuard,
}

impl Node {
    /// An endpoint of this chain that tells what the script says, at a port that is free.
    pub async fn start(oracle: &Oracle, script: Script) -> io::Result<Node> {
        Node::start_at(oracle, script, 0).await
    }

    /// The same at a port; 0 is any that is free.
    pub async fn start_at(oracle: &Oracle, script: Script, port: u16) -> io::Result<Node> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let address = listener.local_addr()?;
        let endpoint = Arc::new(Endpoint::new(oracle.clone(), Liar::new(script)));
        let end = CancellationToken::new();
        tokio::spawn(server::serve(listener, endpoint.clone(), end.clone()));
        Ok(Node { address, endpoint, _ends: end.drop_guard() })
    }

    /// Where to ask over HTTP.
    pub fn http_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where to ask, and to hear of new heads, over a WebSocket.
    pub fn ws_url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// The chain that it serves.
    pub fn oracle(&self) -> &Oracle {
        &self.endpoint.oracle
    }

    /// Lies once, at the next occasion for this lie.
    pub fn order(&self, lie: Lie) {
        self.endpoint.liar.order(lie);
    }

    /// Whether everything it will say is true.
    pub fn is_honest(&self) -> bool {
        self.endpoint.liar.is_honest()
    }

    /// Tells the truth from now on.
    pub fn repent(&self) {
        self.endpoint.liar.repent();
    }

    /// What it lied about so far, in order.
    pub fn confession(&self) -> Vec<Told> {
        self.endpoint.liar.confession()
    }

    /// How often each method was called.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.endpoint.calls()
    }
}
