//! What one endpoint answers to a message.

use std::{collections::BTreeMap, mem, sync::Mutex};

use rand::{RngExt, rngs::StdRng, seq::SliceRandom};
use serde_json::{Value, json, value::RawValue};

use crate::{
    Lie, Oracle, Script,
    chain::Chain,
    rpc::{Refusal, Request, View},
    script::{Liar, Occasion},
    tamper::tamper,
};

/// One endpoint of a chain.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) oracle: Oracle,
    pub(crate) liar: Liar,
    buffers: Mutex<Vec<Vec<u8>>>,
    calls: Mutex<BTreeMap<String, u64>>,
}

/// What becomes of a message.
#[derive(Debug)]
pub(crate) enum Reply {
    /// It is answered.
    Text(Vec<u8>),
    /// It is refused, with a `Retry-After` or without.
    Status(u16, Option<&'static str>),
    /// It is never answered.
    Stall,
    /// The connection ends.
    HangUp,
    /// The connection ends in the middle of this answer.
    Half(Vec<u8>),
    /// The answer has so many bytes.
    Huge(u64),
}

/// Buffers kept for the next answers. More are under way at once only when a test does it.
const BUFFERS_MAX: usize = 8;

/// Larger buffers are given back to the system: somebody asked for a long range, and may not again.
const BUFFER_BYTES_MAX: usize = 32 << 20;

/// Dates and numbers that ask to wait, most of them for no time at all.
const RETRY_AFTER: &[&str] = &["0", "0", "0", "Sun, 06 Nov 1994 08:49:37 GMT", "soon", "-1", "1"];

impl Endpoint {
    pub(crate) fn new(oracle: Oracle, liar: Liar) -> Endpoint {
        Endpoint { oracle, liar, buffers: Mutex::default(), calls: Mutex::default() }
    }

    /// An empty buffer, with room if there was a use for it before.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        self.buffers
            .lock()
            .expect("nothing panics while it holds the buffers")
            .pop()
            .unwrap_or_default()
    }

    /// Keeps a buffer for the next answer.
    pub(crate) fn return_buffer(&self, mut buffer: Vec<u8>) {
        let mut buffers = self.buffers.lock().expect("nothing panics while it holds the buffers");
        if buffers.len() < BUFFERS_MAX && buffer.capacity() <= BUFFER_BYTES_MAX {
            buffer.clear();
            buffers.push(buffer);
        }
    }

    /// How often each method was called.
    pub(crate) fn calls(&self) -> BTreeMap<String, u64> {
        self.calls.lock().expect("nothing panics while it counts").clone()
    }

    /// Answers a message, or does what it does instead.
    pub(crate) fn reply(&self, message: &[u8]) -> Reply {
        let reply = self.reply_unnoted(message);
        // Noted when it is over, so that who waits for it finds what was said.
        self.oracle.note_message();
        reply
    }

    fn reply_unnoted(&self, message: &[u8]) -> Reply {
        let batch = message.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
        let parsed: Result<Vec<Request<'_>>, _> = match batch {
            true => serde_json::from_slice(message),
            false => serde_json::from_slice(message).map(|request| vec![request]),
        };
        let Ok(requests) = parsed else {
            return Reply::Text(error_text(-32700, "parse error"));
        };
        self.count(&requests);
        let batch_calls_max = self.liar.script.limits.batch_calls_max;
        if batch && batch_calls_max > 0 && batch_calls_max < requests.len() {
            return Reply::Text(error_text(-32600, "batch too large"));
        }
        let lie = match self.liar.is_honest() {
            true => None,
            false => self.liar.lie(Occasion::Message { calls: requests.len() }),
        };
        match lie {
            Some((lie, random)) => {
                self.liar.told(lie, &format!("a message of {}", requests.len()));
                self.instead(lie, random, &requests, batch)
            }
            None => Reply::Text(self.text(&requests, batch)),
        }
    }

    /// What is said instead of answering.
    fn instead(
        &self,
        lie: Lie,
        mut random: StdRng,
        requests: &[Request<'_>],
        batch: bool,
    ) -> Reply {
        match lie {
            Lie::TooMany => Reply::Status(429, None),
            Lie::TooManyUntil => {
                let status = if random.random_bool(0.8) { 429 } else { 503 };
                Reply::Status(status, Some(RETRY_AFTER[random.random_range(0..RETRY_AFTER.len())]))
            }
            Lie::ServerError => {
                Reply::Status([500, 502, 503, 504][random.random_range(0..4)], None)
            }
            Lie::Stall => Reply::Stall,
            Lie::HangUp => Reply::HangUp,
            Lie::HalfBody => {
                let mut text = self.text(requests, batch);
                text.truncate(text.len() / 2);
                Reply::Half(text)
            }
            Lie::Garbage => {
                let garbage: &[&[u8]] = &[
                    b"{",
                    b"<html>502 Bad Gateway</html>",
                    b"",
                    b"[]",
                    b"null",
                    b"\xff\xfe",
                    b"{}",
                ];
                Reply::Text(garbage[random.random_range(0..garbage.len())].to_vec())
            }
            Lie::HugeBody => Reply::Huge(self.liar.script.huge_bytes),
            Lie::BatchRefused => {
                Reply::Text(error_text(-32600, "batch requests are not supported"))
            }
            Lie::BatchShuffled => {
                let mut answers: Vec<String> =
                    requests.iter().map(|request| self.one(request)).collect();
                answers.push(r#"{"jsonrpc":"2.0","id":987654321,"result":"0x1"}"#.to_owned());
                answers.shuffle(&mut random);
                Reply::Text(format!("[{}]", answers.join(",")).into_bytes())
            }
            Lie::BatchIncomplete => {
                let mut answers: Vec<String> =
                    requests.iter().map(|request| self.one(request)).collect();
                answers.remove(random.random_range(0..answers.len()));
                Reply::Text(format!("[{}]", answers.join(",")).into_bytes())
            }
            _ => unreachable!("this lie has no place here"),
        }
    }

    /// The answers to all calls.
    fn text(&self, requests: &[Request<'_>], batch: bool) -> Vec<u8> {
        let mut out = self.buffer();
        if batch {
            out.push(b'[');
        }
        for (n, request) in requests.iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            self.call(request, &mut out);
        }
        if batch {
            out.push(b']');
        }
        out
    }

    fn one(&self, request: &Request<'_>) -> String {
        let mut out = Vec::new();
        self.call(request, &mut out);
        String::from_utf8(out).expect("JSON is text")
    }

    /// Writes the answer to one call, honest or not.
    fn call(&self, request: &Request<'_>, out: &mut Vec<u8>) {
        if self.liar.is_honest() {
            let chain = self.oracle.chain();
            let head = chain.head().number;
            return write(out, request.id, |out| self.honest(&chain, head, request, out));
        }
        let lag = self.liar.lagging_head();
        let method = &*request.method;
        let lie = self.liar.lie(Occasion::Call { method }).filter(|(lie, _)| {
            // Which chain it is about is known by its genesis block, and nothing vouches for that
            // but itself: whoever lies about it serves another chain.
            *lie == Lie::Refused || !is_about_genesis(request)
        });
        if let Some((lie, mut random)) = lie
            && let Some(said) = self.lied(lie, request, lag, &mut random)
        {
            let params = request.params.map_or("", RawValue::get);
            self.liar.told(lie, &format!("{method}{}", &params[..params.len().min(80)]));
            return write(out, request.id, |out| {
                out.extend_from_slice(said?.to_string().as_bytes());
                Ok(())
            });
        }
        let honest = self.value(request, lag, 0);
        write(out, request.id, |out| {
            out.extend_from_slice(honest?.to_string().as_bytes());
            Ok(())
        });
    }

    /// What is said instead of the truth; nothing when there is no lie to tell.
    fn lied(
        &self,
        lie: Lie,
        request: &Request<'_>,
        lag: Option<u64>,
        random: &mut StdRng,
    ) -> Option<Result<Value, Refusal>> {
        match lie {
            Lie::Refused => {
                let messages =
                    ["header not found", "unknown block", "internal error", "missing trie node"];
                let message = messages[random.random_range(0..messages.len())].to_owned();
                return Some(Err(Refusal { code: -32000, message }));
            }
            Lie::HeadBack if is_about_head(request) => {
                let head = self.oracle.head().number;
                if head == 0 {
                    return None;
                }
                let behind = random.random_range(1..=head.min(10));
                return Some(self.value(request, lag, behind));
            }
            Lie::Sibling if is_about_head(request) => {
                if self.oracle.head().number == 0 {
                    return None;
                }
                let sibling = self.oracle.sibling();
                return Some(self.ask("eth_getBlockByHash", &json!([sibling.hash, false])));
            }
            Lie::HeadBack | Lie::Sibling => return None,
            Lie::Lagging => {
                let head = self.oracle.head().number.saturating_sub(random.random_range(1..12));
                self.liar.lag(head, random.random_range(1..20));
                return Some(self.value(request, Some(head), 0));
            }
            _ => (),
        }
        let mut result = self.value(request, lag, 0).ok()?;
        let other = {
            let chain = self.oracle.chain();
            let number = random.random_range(0..=chain.head().number);
            chain.canonical(number).expect("it is not after the head").hash
        };
        let other = match &*request.method {
            "eth_getLogs" => self.ask("eth_getLogs", &json!([{ "blockHash": other }])),
            _ => self.ask("eth_getBlockByHash", &json!([other, false])),
        };
        tamper(lie, &mut result, &other.ok()?, random).then_some(Ok(result))
    }

    /// The honest answer of a node that is so many blocks behind.
    fn value(
        &self,
        request: &Request<'_>,
        lag: Option<u64>,
        behind: u64,
    ) -> Result<Value, Refusal> {
        let chain = self.oracle.chain();
        let newest = chain.head().number;
        let head = lag.unwrap_or(newest).min(newest).saturating_sub(behind);
        let mut out = Vec::new();
        match self.honest(&chain, head, request, &mut out) {
            Ok(()) => Ok(serde_json::from_slice(&out).expect("what is rendered is JSON")),
            // There are nodes that do not tell a block without logs from one that they lack.
            Err(_)
                if head < newest
                    && request.method == "eth_getLogs"
                    && self.liar.script.lies.contains(&Lie::EmptyLogs) =>
            {
                Ok(json!([]))
            }
            Err(refusal) => Err(refusal),
        }
    }

    fn ask(&self, method: &str, params: &Value) -> Result<Value, Refusal> {
        let params = serde_json::value::to_raw_value(params).expect("a value is JSON");
        let request = Request { id: RawValue::NULL, method: method.into(), params: Some(&params) };
        self.value(&request, None, 0)
    }

    fn honest(
        &self,
        chain: &Chain,
        head: u64,
        request: &Request<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let Script { limits, methods_missing, .. } = &self.liar.script;
        if methods_missing.iter().any(|missing| *missing == request.method) {
            return Err(Refusal::unknown_method(&request.method));
        }
        let view = View { chain, head, limits: *limits };
        view.answer(&request.method, request.params, out)
    }

    fn count(&self, requests: &[Request<'_>]) {
        let mut calls = self.calls.lock().expect("nothing panics while it counts");
        for request in requests {
            match calls.get_mut(&*request.method) {
                Some(count) => *count += 1,
                None => drop(calls.insert(request.method.clone().into_owned(), 1)),
            }
        }
    }
}

/// Whether a call asks for block 0.
fn is_about_genesis(request: &Request<'_>) -> bool {
    request.method == "eth_getBlockByNumber" && first_param(request) == Some(json!("0x0"))
}

/// Whether a call asks for the newest block.
fn is_about_head(request: &Request<'_>) -> bool {
    request.method == "eth_blockNumber" || first_param(request) == Some(json!("latest"))
}

fn first_param(request: &Request<'_>) -> Option<Value> {
    let mut params: Vec<Value> = serde_json::from_str(request.params?.get()).ok()?;
    (!params.is_empty()).then(|| mem::take(&mut params[0]))
}

/// Writes the answer to a call.
fn write(
    out: &mut Vec<u8>,
    id: &RawValue,
    result: impl FnOnce(&mut Vec<u8>) -> Result<(), Refusal>,
) {
    let start = out.len();
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.extend_from_slice(id.get().as_bytes());
    out.extend_from_slice(b",\"result\":");
    if let Err(Refusal { code, message }) = result(out) {
        out.truncate(start);
        let error = json!({ "code": code, "message": message });
        let error = json!({ "jsonrpc": "2.0", "id": id, "error": error });
        out.extend_from_slice(error.to_string().as_bytes());
        return;
    }
    out.push(b'}');
}

fn error_text(code: i64, message: &str) -> Vec<u8> {
    let error =
        json!({ "jsonrpc": "2.0", "id": null, "error": { "code": code, "message": message } });
    error.to_string().into_bytes()
}
