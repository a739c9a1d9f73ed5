//! What the tests have in common: a client that sees a connection end, and an order to change.
#![allow(dead_code, reason = "each test uses its own part")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use alloy_primitives::{Address, address};
use serde_json::{Value, json};
use shepherd_orderbook::{Clock, Config, Orderbook, Uid};

/// What time it is.
pub const NOW: u64 = 1_700_000_000;

/// Whose orders they are.
pub const OWNER: Address = address!("7bF140727D27ea64b607E042f1225680B40ECa6A");

pub const SELL: &str = "0xfFf9976782d46CC05630D1f6eBAb18b2324d6B14";
pub const BUY: &str = "0x0625aFB445C3B6B7B929342a04A22599fd5dBB59";
pub const NATIVE: &str = "0xEeeeeEeeeEeEeeEeEeEeeEEEeeeeEeeeeeeeEEeE";

/// A configuration whose clock stands still.
pub fn config() -> Config {
    Config { clock: Clock::Fixed(NOW), ..Config::default() }
}

pub async fn orderbook() -> Orderbook {
    Orderbook::start(config()).await.expect("a free port")
}

/// An order that is accepted.
pub fn order() -> Value {
    json!({
        "sellToken": SELL,
        "buyToken": BUY,
        "receiver": OWNER,
        "sellAmount": "5000000000000000",
        "buyAmount": "20000000000000000000",
        "validTo": NOW + 3600,
        "feeAmount": "0",
        "kind": "sell",
        "partiallyFillable": false,
        "sellTokenBalance": "erc20",
        "buyTokenBalance": "erc20",
        "signingScheme": "eip1271",
        "signature": "0x5fd7e97d",
        "from": OWNER,
        "appData": "{}",
    })
}

/// The order with other fields; `null` takes one away.
pub fn changed(change: Value) -> Value {
    let mut order = order();
    for (field, value) in change.as_object().expect("fields") {
        order[field] = value.clone();
        if value.is_null() {
            order.as_object_mut().expect("an object").remove(field);
        }
    }
    order
}

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    pub fn uid(&self) -> Uid {
        assert_eq!(self.status, 201, "{}", self.body);
        serde_json::from_value(self.json()).expect("a UID")
    }

    /// `201`, or `400 DuplicatedOrder`.
    pub fn outcome(&self) -> String {
        match self.json()["errorType"].as_str() {
            Some(error_type) => format!("{} {error_type}", self.status),
            None => self.status.to_string(),
        }
    }
}

/// One request on a connection of its own; `None` when that ends without an answer.
pub async fn send(
    to: SocketAddr,
    method: &'static str,
    path: impl Into<String>,
    headers: &str,
    body: impl Into<Vec<u8>>,
) -> Option<Answer> {
    let (path, headers, body) = (path.into(), headers.to_owned(), body.into());
    let asking = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(to).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("not zero");
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\
             Content-Length: {length}\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).ok()?;
        // A body that is too long may be refused before it is read.
        let _ = stream.write_all(&body);
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer) {
            // A server that hangs is not one that closed the connection.
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "no answer: {error}");
        }
        let answer = String::from_utf8(answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
    });
    asking.await.expect("the client does not panic")
}

pub async fn get(to: &Orderbook, path: &str) -> Answer {
    send(to.address(), "GET", path, "", "").await.expect("an answer")
}

const JSON: &str = "Content-Type: application/json\r\n";

pub async fn put(to: &Orderbook, path: &str, body: &Value) -> Answer {
    send(to.address(), "PUT", path, JSON, body.to_string()).await.expect("an answer")
}

pub async fn post(to: &Orderbook, path: &str, body: &Value) -> Answer {
    send(to.address(), "POST", path, JSON, body.to_string()).await.expect("an answer")
}

/// Posts an order; `None` when the connection ends without an answer.
pub async fn try_post(to: &Orderbook, body: &Value) -> Option<Answer> {
    send(to.address(), "POST", "/api/v1/orders", JSON, body.to_string()).await
}

pub async fn post_order(to: &Orderbook, body: &Value) -> Answer {
    try_post(to, body).await.expect("an answer")
}

pub async fn get_order(to: &Orderbook, uid: Uid) -> Answer {
    get(to, &format!("/api/v1/orders/{uid}")).await
}
