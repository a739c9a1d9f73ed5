//! A JSON-RPC server that a test holds up, breaks and repairs.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use alloy_primitives::B256;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

pub const CHAIN_ID: u64 = 31337;

/// The genesis block of an honest server.
pub const GENESIS: B256 = B256::repeat_byte(0x47);

/// A running server. Dropping it ends it.
pub struct Server {
    port: u16,
    script: Arc<Script>,
    _connections: JoinSet<()>,
}

struct Script {
    state: Mutex<State>,
    /// Messages are answered while this is true, and those that ask who the server is unless
    /// `State::holds_all`.
    open: watch::Sender<bool>,
}

/// How the server answers.
pub struct State {
    pub genesis: B256,
    /// Every so many messages that ask for more than who the server is are refused.
    pub fails_each: Option<usize>,
    /// What is held up includes who the server is.
    pub holds_all: bool,
    /// Connections are closed instead of answered.
    pub is_broken: bool,
    /// Batches of more calls are refused.
    pub batch_calls_max: usize,
    /// By method; what is not here is no method.
    pub results: BTreeMap<&'static str, Result<Value, (i64, String)>>,
    calls: BTreeMap<String, usize>,
    questions: usize,
}

impl Server {
    pub async fn start() -> Server {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State {
            genesis: GENESIS,
            fails_each: None,
            holds_all: false,
            is_broken: false,
            batch_calls_max: usize::MAX,
            results: BTreeMap::from([("eth_blockNumber", Ok(json!("0x7")))]),
            calls: BTreeMap::new(),
            questions: 0,
        };
        let script = Arc::new(Script { state: Mutex::new(state), open: watch::Sender::new(true) });
        let mut connections = JoinSet::new();
        connections.spawn(accept(listener, script.clone()));
        Server { port, script, _connections: connections }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Leaves questions without an answer until [`Server::release`].
    pub fn hold(&self) {
        self.script.open.send_replace(false);
    }

    pub fn release(&self) {
        self.script.open.send_replace(true);
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.script.state.lock().unwrap()
    }

    /// How often a method was called.
    pub fn calls(&self, method: &str) -> usize {
        self.state().calls.get(method).copied().unwrap_or(0)
    }
}

impl State {
    /// The answer to a message; `None` closes the connection.
    fn answer(&mut self, message: &Value) -> Option<(u16, String)> {
        let calls = message.as_array().map_or(std::slice::from_ref(message), Vec::as_slice);
        for call in calls {
            *self.calls.entry(call["method"].as_str()?.to_owned()).or_default() += 1;
        }
        if self.is_broken {
            return None;
        }
        if is_question(message) {
            self.questions += 1;
            if self.fails_each.is_some_and(|each| self.questions.is_multiple_of(each)) {
                return Some((500, String::new()));
            }
        }
        if calls.len() > self.batch_calls_max {
            let refusal = json!({ "id": null, "error": { "code": -32600, "message": "too many" } });
            return Some((200, refusal.to_string()));
        }
        let answers: Vec<Value> = calls.iter().map(|call| self.result(call)).collect();
        let body = match message.is_array() {
            true => Value::from(answers),
            false => answers.into_iter().next()?,
        };
        Some((200, body.to_string()))
    }

    fn result(&self, call: &Value) -> Value {
        let id = &call["id"];
        let genesis = ("eth_getBlockByNumber", &json!("0x0"));
        let result = match (call["method"].as_str().unwrap(), &call["params"][0]) {
            ("eth_chainId", _) => Ok(json!(format!("{CHAIN_ID:#x}"))),
            asked if asked == genesis => Ok(json!({ "number": "0x0", "hash": self.genesis })),
            (method, _) => {
                let unknown = || Err((-32601, "no such method".to_owned()));
                self.results.get(method).cloned().unwrap_or_else(unknown)
            }
        };
        match result {
            Ok(result) => json!({ "id": id, "result": result }),
            Err((code, message)) => {
                json!({ "id": id, "error": { "code": code, "message": message } })
            }
        }
    }
}

/// Whether a message asks for more than who the server is.
fn is_question(message: &Value) -> bool {
    message[0]["method"] != "eth_chainId"
}

async fn accept(listener: TcpListener, script: Arc<Script>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let script = script.clone();
        // Whatever ends a connection ends it for the client too; the test looks at that side.
        connections.spawn(async move {
            let _ = serve(stream, script).await;
        });
    }
}

async fn serve(stream: TcpStream, script: Arc<Script>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let message: Value = serde_json::from_slice(&body)?;
        let (answer, holds_all) = {
            let mut state = script.state.lock().unwrap();
            (state.answer(&message), state.holds_all)
        };
        if holds_all || is_question(&message) {
            let mut open = script.open.subscribe();
            open.wait_for(|open| *open).await.unwrap();
        }
        let Some((status, body)) = answer else { return Ok(()) };
        let head = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
    }
}
