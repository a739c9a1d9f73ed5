//! One request to a server on this machine.
//!
//! HTTP/1.0: the server closes the connection when it has answered, so the answer ends where
//! the bytes do. That is all the demo needs, and xtask is compiled before anything else.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

/// How long a server on this machine may take.
const TIME_MAX: Duration = Duration::from_secs(10);

/// What `GET path` answers. Any status but 200 is an error.
pub fn get(port: u16, path: &str) -> anyhow::Result<String> {
    exchange(port, &format!("GET {path}"), "").with_context(|| format!("GET {path}"))
}

/// The same as JSON.
pub fn get_json(port: u16, path: &str) -> anyhow::Result<Value> {
    serde_json::from_str(&get(port, path)?).with_context(|| format!("reading {path}"))
}

/// One JSON-RPC request.
pub fn call(port: u16, method: &str, params: Value) -> anyhow::Result<Value> {
    let body = json!({ "jsonrpc": "2.0", "id": 0, "method": method, "params": params });
    let answer = exchange(port, "POST /", &body.to_string()).context(method.to_owned())?;
    let mut answer: Value = serde_json::from_str(&answer)?;
    ensure!(answer["error"].is_null(), "{method}: the node refused: {}", answer["error"]);
    Ok(answer["result"].take())
}

fn exchange(port: u16, request: &str, body: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), TIME_MAX)?;
    stream.set_read_timeout(Some(TIME_MAX))?;
    stream.set_write_timeout(Some(TIME_MAX))?;
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    body_of(&answer).map(str::to_owned)
}

fn body_of(answer: &str) -> anyhow::Result<&str> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of head")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        bail!("status {status}: {}", body.trim());
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_200_is_an_answer() {
        let check = |answer: &str| body_of(answer).ok().map(str::to_owned);
        assert_eq!(check("HTTP/1.0 200 OK\r\nA: b\r\n\r\n{}"), Some("{}".to_owned()));
        assert_eq!(check("HTTP/1.0 200 OK\r\n\r\n"), Some(String::new()));
        assert_eq!(check("HTTP/1.0 503 Busy\r\n\r\nno"), None);
        assert_eq!(check("HTTP/1.0 200 OK\r\nA: b"), None);
        assert_eq!(check(""), None);
    }
}
