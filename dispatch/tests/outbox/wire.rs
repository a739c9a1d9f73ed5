//! The wire between the sender and the orderbook: notes every request byte for byte, and pulls the
//! plug when it is told to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use alloy_primitives::B256;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};

/// Where in the life of a request the plug is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    /// The n-th post from now, before it arrives.
    BeforePost(u64),
    /// The n-th post from now, when it was carried out and before its answer arrives.
    AfterPost(u64),
    /// Not by this wire.
    Never,
}

/// A proxy. Dropping it ends its connections.
pub struct Wire {
    shared: Arc<Shared>,
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

struct Shared {
    orderbook: SocketAddr,
    state: Mutex<State>,
    /// Told when the plug was pulled.
    pulled: Notify,
}

struct State {
    pull: Pull,
    /// Set once pulled: whatever comes later goes nowhere.
    is_pulled: bool,
    /// How often it was plugged in. Connections from before go nowhere.
    life: u64,
    /// Bodies of posts, by path, and how often each came.
    bodies: BTreeMap<Vec<u8>, u64>,
    /// Heads of posts without what differs from connection to connection.
    heads: BTreeSet<String>,
}

impl Wire {
    pub async fn to(orderbook: SocketAddr) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            orderbook,
            state: Mutex::new(State {
                pull: Pull::Never,
                is_pulled: false,
                life: 0,
                bodies: BTreeMap::new(),
                heads: BTreeSet::new(),
            }),
            pulled: Notify::new(),
        });
        let mut tasks = JoinSet::new();
        let accepting = shared.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Some(_) = connections.join_next() => (),
                    accepted = listener.accept() => {
                        let (stream, _) = accepted.expect("a connection");
                        let shared = accepting.clone();
                        connections.spawn(async move { shared.serve(stream).await });
                    }
                }
            }
        });
        Wire { shared, address, _tasks: tasks }
    }

    /// The base URL that goes through here.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Plugs it in again, until the next pull.
    pub fn plug_in(&self, pull: Pull) {
        let mut state = self.shared.state();
        (state.pull, state.is_pulled) = (pull, false);
        state.life += 1;
    }

    /// Returns when the plug was pulled.
    pub async fn pulled(&self) {
        // A connection of an earlier life may have told it late.
        while !self.shared.state().is_pulled {
            self.shared.pulled.notified().await;
        }
    }

    /// Every body that was posted, and how often.
    pub fn bodies(&self) -> BTreeMap<Vec<u8>, u64> {
        self.shared.state().bodies.clone()
    }

    /// Every head that a post had.
    pub fn heads(&self) -> BTreeSet<String> {
        self.shared.state().heads.clone()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held")
    }

    /// Carries requests of one connection, each on a connection of its own. `None` ends it.
    async fn serve(&self, mut client: TcpStream) -> Option<()> {
        let life = self.state().life;
        let mut unread = Vec::new();
        loop {
            let (head, body) = message(&mut client, &mut unread).await?;
            let fate = self.note(life, &head, &body);
            match fate {
                Fate::Nowhere => return None,
                Fate::PulledBefore => return self.pull(life),
                Fate::Carried | Fate::PulledAfter => (),
            }
            let mut orderbook = TcpStream::connect(self.orderbook).await.ok()?;
            orderbook.write_all(&[head.as_bytes(), &body].concat()).await.ok()?;
            let answered = message(&mut orderbook, &mut Vec::new()).await;
            if fate == Fate::PulledAfter {
                return self.pull(life);
            }
            let (answer, said) = answered?;
            client.write_all(&[answer.as_bytes(), &said].concat()).await.ok()?;
        }
    }

    /// Notes a request, and says what becomes of it.
    fn note(&self, life: u64, head: &str, body: &[u8]) -> Fate {
        let mut state = self.state();
        if state.is_pulled || state.life != life {
            return Fate::Nowhere;
        }
        if !head.starts_with("POST") {
            return Fate::Carried;
        }
        let mut lines: Vec<&str> = head.lines().filter(|line| !line.is_empty()).collect();
        lines.retain(|line| !line.to_lowercase().starts_with("content-length"));
        state.heads.insert(lines.join("\n"));
        let fate = match &mut state.pull {
            Pull::BeforePost(0) => Fate::PulledBefore,
            Pull::AfterPost(0) => Fate::PulledAfter,
            Pull::BeforePost(left) | Pull::AfterPost(left) => {
                *left -= 1;
                Fate::Carried
            }
            Pull::Never => Fate::Carried,
        };
        if fate != Fate::Carried {
            state.pull = Pull::Never;
        }
        // What does not arrive was not sent as far as anyone can tell.
        if fate != Fate::PulledBefore {
            *state.bodies.entry(body.to_vec()).or_default() += 1;
        }
        fate
    }

    fn pull(&self, life: u64) -> Option<()> {
        let mut state = self.state();
        if state.life == life {
            state.is_pulled = true;
            self.pulled.notify_one();
        }
        None
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Carried,
    PulledBefore,
    PulledAfter,
    Nowhere,
}

/// One HTTP message: its head and its body. `None` when the connection ends before its end.
pub async fn message(
    stream: &mut (impl AsyncRead + Unpin),
    unread: &mut Vec<u8>,
) -> Option<(String, Vec<u8>)> {
    let end = |bytes: &[u8]| bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let head_bytes = loop {
        if let Some(at) = end(unread) {
            break at + 4;
        }
        if stream.read_buf(unread).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(unread[..head_bytes].to_vec()).expect("heads are text");
    let length = head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok())
        .unwrap_or(0);
    while unread.len() < head_bytes + length {
        if stream.read_buf(unread).await.ok()? == 0 {
            return None;
        }
    }
    let rest = unread.split_off(head_bytes + length);
    let body = unread.split_off(head_bytes);
    *unread = rest;
    Some((head, body))
}

/// The digest by which the orderbook's statistics name a body.
pub fn sha256(body: &[u8]) -> B256 {
    use sha2::{Digest, Sha256};
    B256::from_slice(&Sha256::digest(body))
}
