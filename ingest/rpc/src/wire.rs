//! JSON-RPC 2.0 as bytes.
//!
//! Answers stay slices of the body they came in. Whoever asked knows their type and decodes
//! them, on a thread of its choice; here only their outline is read.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, value::RawValue};

use crate::{Failure, Redacted};

/// One question.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The method. Static, for it becomes a label of the metrics.
    pub method: &'static str,
    /// The parameters: an array.
    pub params: Value,
}

/// The `result` of one call: JSON that parses, of a type yet unknown.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer(Bytes);

impl Answer {
    /// An answer from a literal.
    #[cfg(test)]
    pub(crate) fn from_static(json: &'static str) -> Answer {
        Answer(Bytes::from_static(json.as_bytes()))
    }

    /// The answer `null`.
    pub(crate) fn null() -> Answer {
        Answer(Bytes::from_static(b"null"))
    }

    pub(crate) fn from_raw(json: Box<RawValue>) -> Answer {
        Answer(Bytes::from(String::from(Box::<str>::from(json))))
    }

    /// Decodes the answer. The result may borrow from it.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.0)
    }

    /// Size of the JSON text.
    pub fn len_bytes(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({} bytes)", self.0.len())
    }
}

/// The `error` of one call: the endpoint is alive and refuses, or the chain says no.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct RpcError {
    /// JSON-RPC's code. Implementations agree on few of them.
    pub code: i64,
    /// For people; scrubbed of the endpoint's URL.
    pub message: String,
    /// Whatever the endpoint adds, such as the data of a revert. Not for people.
    pub data: Option<Value>,
}

impl RpcError {
    /// An error without data.
    pub fn new(code: i64, message: &str) -> RpcError {
        RpcError { code, message: message.to_owned(), data: None }
    }

    /// Whether this says "ask less often", whatever the method.
    pub(crate) fn is_rate_limit(&self) -> bool {
        const PHRASES: [&str; 5] = [
            "rate limit",
            "too many requests",
            "request rate",
            "requests per second",
            "compute units per second",
        ];
        let message = self.message.to_lowercase();
        self.code == 429 || PHRASES.iter().any(|phrase| message.contains(phrase))
    }

    /// Whether this says "ask for less at once".
    pub(crate) fn is_too_large(&self) -> bool {
        const PHRASES: [&str; 5] = [
            "response too large",
            "response size",
            "batch too large",
            "batch size",
            "maximum batch",
        ];
        let message = self.message.to_lowercase();
        PHRASES.iter().any(|phrase| message.contains(phrase))
    }
}

impl fmt::Debug for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a message from an endpoint says about the calls it was sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// In the order of the calls. `None` for a call the endpoint passed over.
    Answers(Vec<Option<Result<Answer, RpcError>>>),
    /// One error for the batch as a whole.
    BatchRefused(RpcError),
}

/// Writes calls as one message. A single call is not wrapped into a batch, which not every
/// endpoint accepts. The id of a call is its position.
pub(crate) fn encode(calls: &[&Call]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Request<'a> {
        jsonrpc: &'static str,
        id: usize,
        method: &'static str,
        params: &'a Value,
    }
    let requests: Vec<Request<'_>> = calls
        .iter()
        .enumerate()
        .map(|(id, call)| Request { jsonrpc: "2.0", id, method: call.method, params: &call.params })
        .collect();
    let encoded = match requests.as_slice() {
        [request] => serde_json::to_vec(request),
        requests => serde_json::to_vec(requests),
    };
    encoded.expect("JSON values have string keys only")
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    /// `null` is an answer, and not the same as no answer.
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<ErrorObject>,
}

fn present<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct ErrorObject {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
    #[serde(default)]
    data: Option<Value>,
}

/// Reads the message that answers `calls` calls.
///
/// Answers may come in any order, be `null` or be missing; an answer to nothing we asked is
/// passed over.
pub(crate) fn decode(body: &Bytes, calls: usize, url: &Redacted) -> Result<Reply, Failure> {
    let is_batch = body.trim_ascii_start().starts_with(b"[");
    if !is_batch {
        let response: Response<'_> = serde_json::from_slice(body)?;
        let outcome = response.outcome(body, url);
        return match (calls, outcome) {
            (1, outcome) => Ok(Reply::Answers(vec![outcome])),
            (_, Some(Err(error))) => Ok(Reply::BatchRefused(error)),
            _ => Err(Failure::Malformed { reason: "one answer to a batch".to_owned() }),
        };
    }
    let mut answers = vec![None; calls];
    for response in serde_json::from_slice::<Vec<Option<Response<'_>>>>(body)? {
        let Some(response) = response else { continue };
        if let Some(slot) = response.position().and_then(|id| answers.get_mut(id)) {
            *slot = response.outcome(body, url);
        }
    }
    Ok(Reply::Answers(answers))
}

impl Response<'_> {
    /// The id, which some servers turn into a string.
    fn position(&self) -> Option<usize> {
        self.id?.get().trim_matches('"').parse().ok()
    }

    fn outcome(self, body: &Bytes, url: &Redacted) -> Option<Result<Answer, RpcError>> {
        if let Some(error) = self.error {
            let message = url.scrub(&error.message);
            return Some(Err(RpcError { code: error.code, message, data: error.data }));
        }
        self.result.map(|result| Ok(Answer(body.slice_ref(result.get().as_bytes()))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_call_is_an_object_and_several_are_an_array() {
        let call = Call { method: "eth_chainId", params: json!([]) };
        let one = r#"{"jsonrpc":"2.0","id":0,"method":"eth_chainId","params":[]}"#;
        assert_eq!(encode(&[&call]), one.as_bytes());
        let two = format!("[{one},{}]", one.replace(r#""id":0"#, r#""id":1"#));
        assert_eq!(encode(&[&call, &call]), two.as_bytes());
    }

    #[test]
    fn answers_find_their_calls() {
        let a = || Some(Ok(Answer::from_static("\"a\"")));
        let null = || Some(Ok(Answer::from_static("null")));
        let error = || Some(Err(RpcError::new(-32000, "no")));
        check(1, r#"{"id":0,"result":"a"}"#, vec![a()]);
        check(1, r#"{"id":null,"error":{"code":-32000,"message":"no"}}"#, vec![error()]);
        check(1, r#" [{"id":0,"result":"a"}]"#, vec![a()]);
        check(1, r#"{"id":0,"result":null,"error":null}"#, vec![null()]);
        check(1, r#"{"id":0}"#, vec![None]);
        let out_of_order = r#"[{"id":2,"error":{"code":-32000,"message":"no"}},
            {"id":"0","result":"a"},{"id":1,"result":null}]"#;
        check(3, out_of_order, vec![a(), null(), error()]);
        check(3, r#"[null,{"id":1,"result":"a"}]"#, vec![None, a(), None]);
        check(2, r#"[{"id":7,"result":"a"},{"result":"a"}]"#, vec![None, None]);
        check(2, "[]", vec![None, None]);
    }

    fn check(calls: usize, body: &'static str, expected: Vec<Option<Result<Answer, RpcError>>>) {
        let reply = decode(&Bytes::from_static(body.as_bytes()), calls, &url()).unwrap();
        assert_eq!(reply, Reply::Answers(expected), "{body}");
    }

    fn url() -> Redacted {
        "http://localhost/s3cr3tk3y".parse().unwrap()
    }

    #[test]
    fn a_batch_can_be_refused_as_a_whole() {
        let body = Bytes::from_static(br#"{"id":null,"error":{"code":-32600,"message":"batch"}}"#);
        let refused = Reply::BatchRefused(RpcError::new(-32600, "batch"));
        assert_eq!(decode(&body, 2, &url()), Ok(refused));
    }

    #[test]
    fn what_is_not_json_rpc_is_malformed() {
        for body in ["", "<html>", "[{]", r#"{"id":0,"result":"a"}"#, "[1]"] {
            let reply = decode(&Bytes::from_static(body.as_bytes()), 2, &url());
            assert!(matches!(reply, Err(Failure::Malformed { .. })), "{body}: {reply:?}");
        }
    }

    #[test]
    fn an_error_that_repeats_our_key_is_scrubbed() {
        let body = Bytes::from_static(
            br#"{"id":0,"error":{"code":1,"message":"/s3cr3tk3y is over quota","data":"s3cr3tk3y"}}"#,
        );
        let reply = decode(&body, 1, &url()).unwrap();
        let Reply::Answers(answers) = &reply else { panic!("{reply:?}") };
        let error = answers[0].as_ref().unwrap().as_ref().unwrap_err();
        assert_eq!(error.to_string(), "/*** is over quota (code 1)");
        assert!(!format!("{error:?}").contains("s3cr3tk3y"));
    }

    #[test]
    fn complaints_are_told_apart() {
        let limited = |code, text: &str| RpcError::new(code, text).is_rate_limit();
        assert!(limited(429, ""));
        assert!(limited(-32005, "daily request rate exceeded"));
        assert!(limited(-32000, "Too Many Requests"));
        assert!(!limited(-32005, "query returned more than 10000 results"));
        assert!(!limited(3, "execution reverted"));
        let large = |text: &str| RpcError::new(-32003, text).is_too_large();
        assert!(large("response too large"));
        assert!(large("Batch size is too large"));
        assert!(!large("execution reverted"));
    }
}
