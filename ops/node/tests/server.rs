//! A node as those see it who talk to it.

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use shepherd_node::{Chain, Lie, Limits, Node, Oracle, Script, Shape};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

fn oracle(blocks: u64) -> Oracle {
    Oracle::new(Chain::new(Shape { blocks, ..Shape::small(1) }))
}

/// Sends one message over HTTP and reads what comes until the connection ends.
async fn post(node: &Node, message: &Value) -> String {
    let address = node.http_url().replace("http://", "");
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let body = message.to_string();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn ask(node: &Node, message: &Value) -> Value {
    let answer = post(node, message).await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

async fn websocket(node: &Node) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(node.ws_url().replace("ws://", "")).await.unwrap();
    client_async(node.ws_url(), stream).await.unwrap().0
}

async fn heard(stream: &mut WebSocketStream<TcpStream>) -> Value {
    loop {
        if let Message::Text(text) = stream.next().await.unwrap().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

fn call(id: u64, method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

#[tokio::test]
async fn calls_are_answered_alone_and_in_batches() {
    let node = Node::start(&oracle(5), Script::honest()).await.unwrap();
    let number = call(7, "eth_blockNumber", json!([]));
    assert_eq!(ask(&node, &number).await, json!({ "jsonrpc": "2.0", "id": 7, "result": "0x5" }));
    let unknown = call(8, "eth_mine", json!([]));
    let answers = ask(&node, &json!([number, unknown])).await;
    assert_eq!(answers[0]["result"], "0x5");
    assert_eq!((&answers[1]["id"], &answers[1]["error"]["code"]), (&json!(8), &json!(-32601)));
    assert_eq!(node.calls()["eth_blockNumber"], 2);
}

#[tokio::test]
async fn new_heads_are_announced_to_who_wants_to_know() {
    let oracle = oracle(2);
    let node = Node::start(&oracle, Script::honest()).await.unwrap();
    let mut stream = websocket(&node).await;
    stream
        .send(Message::text(call(1, "eth_subscribe", json!(["newHeads"])).to_string()))
        .await
        .unwrap();
    let id = heard(&mut stream).await["result"].clone();
    oracle.reorg(1, 2);
    for number in ["0x2", "0x3"] {
        let told = heard(&mut stream).await;
        assert_eq!(told["params"]["subscription"], id);
        assert_eq!(told["params"]["result"]["number"], number);
    }
    assert_eq!(oracle.head().number, 3);
    stream.send(Message::text(call(2, "eth_unsubscribe", json!([id])).to_string())).await.unwrap();
    assert_eq!(heard(&mut stream).await["result"], true);
    stream.send(Message::text(call(3, "eth_chainId", json!([])).to_string())).await.unwrap();
    oracle.extend(1);
    assert_eq!(heard(&mut stream).await["id"], 3);
}

#[tokio::test]
async fn a_lie_is_told_when_it_is_ordered_and_the_truth_after_it() {
    let node = Node::start(&oracle(5), Script::honest()).await.unwrap();
    let latest = call(1, "eth_getBlockByNumber", json!(["latest", false]));
    let truth = ask(&node, &latest).await;
    let of_head = json!([{ "blockHash": truth["result"]["hash"] }]);
    let logs = call(2, "eth_getLogs", of_head);
    assert!(!ask(&node, &logs).await["result"].as_array().unwrap().is_empty());

    node.order(Lie::HeadBack);
    node.order(Lie::EmptyLogs);
    assert!(!node.is_honest());
    let back = ask(&node, &latest).await;
    assert_ne!(back["result"]["number"], "0x5");
    assert_eq!(ask(&node, &logs).await["result"], json!([]));
    assert!(node.is_honest());
    assert_eq!(ask(&node, &latest).await, truth);
    assert_eq!(node.confession().len(), 2);

    for (lie, status) in [(Lie::TooMany, "429"), (Lie::ServerError, "50"), (Lie::HugeBody, "200")] {
        node.order(lie);
        let answer = post(&node, &latest).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    node.order(Lie::HalfBody);
    let half = post(&node, &latest).await;
    assert!(!half.ends_with("0\r\n\r\n"), "the body has no end: {half}");
}

#[tokio::test]
async fn what_providers_limit_is_limited() {
    let limits = Limits { batch_calls_max: 2, ..Limits::default() };
    let node = Node::start(&oracle(5), Script { limits, ..Script::honest() }).await.unwrap();
    let number = call(7, "eth_blockNumber", json!([]));
    let refused = ask(&node, &json!([number, number, number])).await;
    assert_eq!(refused["error"]["message"], "batch too large");
    assert!(ask(&node, &json!([number, number])).await.is_array());
}

#[tokio::test]
async fn a_chain_that_advances_by_itself_forks_too() {
    let oracle = oracle(10);
    let until_60 = async {
        while oracle.head().number < 60 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = oracle.advance(std::time::Duration::from_millis(1), 7) => unreachable!("it goes on"),
        () = until_60 => (),
    }
    let abandoned = oracle.chain().produced() as u64 - (oracle.head().number + 1);
    assert!((10..40).contains(&abandoned), "{abandoned} blocks were abandoned");
}
