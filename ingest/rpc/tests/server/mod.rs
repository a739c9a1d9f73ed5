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

/// A fault to play.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The result is replaced.
    Result(Value),
    /// The call is answered with an error.
    Error(i64, &'static str),
    /// The message is answered with a status and a `Retry-After`, if any.
    Status(u16, Option<&'static str>),
    /// The message is answered with this text.
    Body(String),
    /// The message is never answered.
    Stall,
    /// The connection is closed.
    HangUp,
    /// The answers of a batch come in reverse, with a foreign one among them.
    Shuffled,
    /// A batch lacks its last answer, and has `null` instead of its first.
    Incomplete,
}

/// How the server answers.
pub struct State {
    pub chain_id: u64,
    /// The height of its newest block. Blocks are objects of about a kilobyte.
    pub head: u64,
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
    faults: Vec<(&'static str, Fault)>,
    calls: BTreeMap<String, usize>,
    messages: usize,
    questions: usize,
}

/// What is sent back, and whether anything is.
enum Reply {
    Answer { status: u16, retry_after: Option<&'static str>, body: String },
    HangUp,
    Stall,
}

impl Server {
    pub async fn start() -> Server {
        Server::of_chain(CHAIN_ID).await
    }

    pub async fn of_chain(chain_id: u64) -> Server {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State {
            chain_id,
            head: 0,
            genesis: GENESIS,
            fails_each: None,
            holds_all: false,
            is_broken: false,
            batch_calls_max: usize::MAX,
            results: BTreeMap::from([("eth_blockNumber", Ok(json!("0x7")))]),
            faults: Vec::new(),
            calls: BTreeMap::new(),
            messages: 0,
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

    /// Plays a fault at the next call of a method, after those to be played before.
    pub fn play(&self, method: &'static str, fault: Fault) {
        self.state().faults.push((method, fault));
    }

    /// Whether all faults were played.
    pub fn is_honest_again(&self) -> bool {
        self.state().faults.is_empty()
    }

    /// How many messages came, each with one call or many.
    pub fn messages(&self) -> usize {
        self.state().messages
    }

    /// How often a method was called.
    pub fn calls(&self, method: &str) -> usize {
        self.state().calls.get(method).copied().unwrap_or(0)
    }
}

impl State {
    fn reply(&mut self, message: &Value) -> Reply {
        let answer = |status, retry_after, body| Reply::Answer { status, retry_after, body };
        let calls = message.as_array().map_or(std::slice::from_ref(message), Vec::as_slice);
        self.messages += 1;
        for call in calls {
            let method = call["method"].as_str().unwrap();
            *self.calls.entry(method.to_owned()).or_default() += 1;
        }
        if self.is_broken {
            return Reply::HangUp;
        }
        if is_question(message) {
            self.questions += 1;
            if self.fails_each.is_some_and(|each| self.questions.is_multiple_of(each)) {
                return answer(500, None, String::new());
            }
        }
        if calls.len() > self.batch_calls_max {
            let refusal = json!({ "id": null, "error": { "code": -32600, "message": "too many" } });
            return answer(200, None, refusal.to_string());
        }
        let mut answers = Vec::new();
        let (mut shuffled, mut incomplete) = (false, false);
        for call in calls {
            let result = match self.fault(call["method"].as_str().unwrap()) {
                None => self.result(call),
                Some(Fault::Result(result)) => Ok(result),
                Some(Fault::Error(code, message)) => Err((code, message.to_owned())),
                Some(Fault::Shuffled) => {
                    shuffled = true;
                    self.result(call)
                }
                Some(Fault::Incomplete) => {
                    incomplete = true;
                    self.result(call)
                }
                Some(Fault::Status(status, retry_after)) => {
                    return answer(status, retry_after, String::new());
                }
                Some(Fault::Body(body)) => return answer(200, None, body),
                Some(Fault::Stall) => return Reply::Stall,
                Some(Fault::HangUp) => return Reply::HangUp,
            };
            answers.push(response(&call["id"], result));
        }
        if shuffled {
            answers.push(json!({ "id": 9999, "result": "0x1" }));
            answers.reverse();
        }
        if incomplete {
            answers.pop();
            answers[0] = Value::Null;
        }
        match message.is_array() {
            true => answer(200, None, Value::from(answers).to_string()),
            false => answer(200, None, answers.remove(0).to_string()),
        }
    }

    /// The next fault for a method, if one is due.
    fn fault(&mut self, method: &str) -> Option<Fault> {
        let index = self.faults.iter().position(|(of, _)| *of == method)?;
        Some(self.faults.remove(index).1)
    }

    fn result(&self, call: &Value) -> Result<Value, (i64, String)> {
        let method = call["method"].as_str().unwrap();
        let number = call["params"][0].as_str().and_then(|number| number.strip_prefix("0x"));
        let number = number.and_then(|number| u64::from_str_radix(number, 16).ok());
        match (method, number) {
            ("eth_chainId", _) => Ok(json!(format!("{:#x}", self.chain_id))),
            ("eth_getBlockByNumber", Some(number)) if number > self.head => Ok(Value::Null),
            ("eth_getBlockByNumber", Some(number)) => {
                let hash = if number == 0 { self.genesis } else { B256::left_padding_from(&[7]) };
                let bloom = format!("0x{}", "0".repeat(512));
                let number = format!("{number:#x}");
                Ok(json!({ "number": number, "hash": hash, "logsBloom": bloom }))
            }
            _ => {
                let unknown = || Err((-32601, "no such method".to_owned()));
                self.results.get(method).cloned().unwrap_or_else(unknown)
            }
        }
    }
}

fn response(id: &Value, result: Result<Value, (i64, String)>) -> Value {
    match result {
        Ok(result) => json!({ "id": id, "result": result }),
        Err((code, message)) => {
            json!({ "id": id, "error": { "code": code, "message": message } })
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
        let (reply, holds_all) = {
            let mut state = script.state.lock().unwrap();
            (state.reply(&message), state.holds_all)
        };
        if holds_all || is_question(&message) {
            let mut open = script.open.subscribe();
            open.wait_for(|open| *open).await.unwrap();
        }
        let (status, retry_after, body) = match reply {
            Reply::Answer { status, retry_after, body } => (status, retry_after, body),
            Reply::HangUp => return Ok(()),
            Reply::Stall => std::future::pending().await,
        };
        let mut head = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n", body.len());
        if let Some(retry_after) = retry_after {
            head += &format!("Retry-After: {retry_after}\r\n");
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).await?;
    }
}
