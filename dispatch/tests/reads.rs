//! What live reads answer, and what they call weather.

#[path = "outbox/hook.rs"]
#[expect(dead_code, reason = "reads send no header that is looked at")]
mod hook;
#[path = "outbox/wire.rs"]
#[expect(dead_code, reason = "of the wire only its messages are read here")]
mod wire;

use std::{error::Error, time::Duration};

use alloy_primitives::{B256, U256, address, keccak256};
use hook::{Hook, answer};
use serde_json::{Value, json};
use shepherd_dispatch::{Destination, Destinations, Limits, LiveReads, Metrics};
use shepherd_host::{
    ReadAnswer, ReadRequest, Reads, World,
    limits::{HTTP_BODY_BYTES_MAX, ORDERBOOK_ANSWER_BYTES_MAX},
};
use shepherd_log::BlockRef;
use shepherd_orderbook::{Config, Fault, Orderbook, Route, Rule};
use shepherd_rpc::{Pool, Web};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

const BLOCK: BlockRef = BlockRef { number: 7, hash: B256::repeat_byte(7) };

/// Reads with these endpoints and this orderbook.
fn reads(endpoints: &[String], orderbook: Option<&str>) -> LiveReads {
    let metrics = shepherd_rpc::Metrics::new(&mut prometheus_client::registry::Registry::default());
    let urls = endpoints.iter().map(|url| url.parse().unwrap()).collect();
    let options = shepherd_rpc::Options::default();
    let pool = Pool::connect("sepolia", 1, urls, options, &metrics);
    let web = Web::new();
    let orderbook = orderbook.map(|url| {
        let limits = Limits { rate_per_second: 10_000, ..Limits::ORDERBOOK };
        let url = url.parse().unwrap();
        Destination::orderbook(&web, "sepolia", url, limits, &Metrics::unregistered())
    });
    let destinations = Destinations { orderbook, web, ..Destinations::default() };
    LiveReads::new(pool, &destinations, Handle::current(), CancellationToken::new())
}

/// Reads as a lane does: on a thread that may block.
async fn read(mut reads: LiveReads, requests: Vec<ReadRequest>) -> Result<Vec<ReadAnswer>, World> {
    let reading = tokio::task::spawn_blocking(move || reads.read(BLOCK, &requests));
    reading.await.expect("it does not panic")
}

async fn read_one(reads: LiveReads, request: ReadRequest) -> Result<ReadAnswer, World> {
    Ok(read(reads, vec![request]).await?.remove(0))
}

/// The reasons of an error, in one line.
fn reasons(world: &World) -> String {
    let mut words = world.to_string();
    let mut cause = world.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

fn get(url: &str) -> ReadRequest {
    ReadRequest::Get(url.parse().unwrap())
}

async fn post_order(orderbook: &Orderbook) -> [u8; 56] {
    let owner = address!("7bF140727D27ea64b607E042f1225680B40ECa6A");
    let order = json!({
        "sellToken": address!("fFf9976782d46CC05630D1f6eBAb18b2324d6B14"),
        "buyToken": address!("0625aFB445C3B6B7B929342a04A22599fd5dBB59"),
        "receiver": owner,
        "sellAmount": "5000000000000000",
        "buyAmount": "20000000000000000000",
        "validTo": u32::MAX,
        "feeAmount": "0",
        "kind": "sell",
        "partiallyFillable": false,
        "signingScheme": "presign",
        "signature": "0x",
        "from": owner,
        "appData": "{\"a\":\"é\"}",
    });
    let url: shepherd_rpc::Redacted = orderbook.url().as_str().parse().unwrap();
    let request = shepherd_rpc::WebRequest {
        url: &url.below(&["api", "v1", "orders"]),
        headers: &[],
        body: Some(order.to_string().into()),
        time_max: Duration::from_secs(10),
        answer_bytes_max: 1024,
    };
    let answer = Web::new().send(request).await.unwrap();
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    let uid: shepherd_orderbook::Uid = serde_json::from_slice(&answer.body).unwrap();
    uid.0
}

#[tokio::test]
async fn the_orderbook_says_what_it_knows_and_that_it_does_not_know() {
    let orderbook = Orderbook::start(Config::default()).await.unwrap();
    let uid = post_order(&orderbook).await;
    let document = "{\"a\":\"é\"}";
    let requests = vec![
        ReadRequest::Order(uid),
        ReadRequest::AppData(keccak256(document)),
        ReadRequest::Order([9; 56]),
        ReadRequest::AppData(B256::repeat_byte(9)),
    ];
    let answers = read(reads(&[], Some(orderbook.url().as_str())), requests).await.unwrap();
    let [ReadAnswer::Order(Some(order)), app_data, unknown, no_document] = &answers[..] else {
        panic!("{answers:?}")
    };
    let order: Value = serde_json::from_str(order).unwrap();
    assert_eq!(
        (&order["status"], &order["validTo"]),
        (&json!("presignaturePending"), &json!(u32::MAX))
    );
    assert_eq!(*app_data, ReadAnswer::AppData(Some(document.to_owned())));
    assert_eq!((unknown, no_document), (&ReadAnswer::Order(None), &ReadAnswer::AppData(None)));
}

#[tokio::test]
async fn a_thousand_questions_are_asked_a_few_at_a_time_and_answered_in_order() {
    let orderbook = Hook::answering(Box::new(|asked| {
        let uid = asked.head.split(['/', ' ']).find(|part| part.starts_with("0x")).unwrap();
        answer(200, "", &format!("\"{uid}\""))
    }))
    .await;
    orderbook.hold();
    let uid = |number: u64| {
        let mut uid = [0; 56];
        uid[..8].copy_from_slice(&number.to_be_bytes());
        uid
    };
    let requests = (0..1000).map(|number| ReadRequest::Order(uid(number))).collect();
    let reads = reads(&[], Some(&orderbook.url("/sepolia")));
    let reading = tokio::spawn(read(reads, requests));
    assert_eq!(orderbook.until(16).await.len(), 16);
    orderbook.release(1000);
    let answers = reading.await.unwrap().unwrap();
    for (number, answer) in (0..).zip(&answers) {
        let said = format!("\"{}\"", alloy_primitives::hex::encode_prefixed(uid(number)));
        assert_eq!(*answer, ReadAnswer::Order(Some(said)));
    }
    let first = &orderbook.received()[0].head;
    assert!(first.starts_with("GET /sepolia/api/v1/orders/0x"), "{first}");
}

#[tokio::test]
async fn what_the_orderbook_does_not_answer_is_weather() {
    let order = || ReadRequest::Order([1; 56]);
    let app_data = || ReadRequest::AppData(B256::ZERO);
    for (status, body, request, reason) in [
        (429, "", order(), "the orderbook answers with HTTP status 429"),
        (500, "", order(), "the orderbook answers with HTTP status 500"),
        (503, "", app_data(), "the orderbook answers with HTTP status 503"),
        (400, "", order(), "the orderbook answers with HTTP status 400"),
        (302, "", order(), "the orderbook answers with HTTP status 302"),
        (200, "<html>", order(), "not what it must be"),
        (200, "<html>", app_data(), "not what it must be"),
        (200, "{}", app_data(), "not what it must be"),
    ] {
        let orderbook = Hook::scripted([answer(status, "", body)]).await;
        let world = read_one(reads(&[], Some(&orderbook.url("/"))), request).await.unwrap_err();
        assert!(matches!(world, World::Orderbook(_)), "{world:?}");
        assert!(reasons(&world).contains(reason), "{}", reasons(&world));
    }
    let fault = Rule { route: Route::GetOrder, ..Rule::always(Fault::Drop) };
    let config = Config { rules: vec![fault], ..Config::default() };
    let orderbook = Orderbook::start(config).await.unwrap();
    let dropped = read_one(reads(&[], Some(orderbook.url().as_str())), order()).await;
    assert!(matches!(dropped, Err(World::Orderbook(_))), "{dropped:?}");
    let nobody = read_one(reads(&[], None), order()).await.unwrap_err();
    assert!(reasons(&nobody).contains("no orderbook in the configuration"), "{}", reasons(&nobody));
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_handed_over_as_that() {
    let large = format!("\"{}\"", "x".repeat(ORDERBOOK_ANSWER_BYTES_MAX));
    let orderbook = Hook::scripted([answer(200, "", &large)]).await;
    let url = orderbook.url("/");
    let order = read_one(reads(&[], Some(&url)), ReadRequest::Order([1; 56])).await.unwrap();
    let ReadAnswer::Order(Some(order)) = order else { panic!("{order:?}") };
    assert_eq!(order.len(), ORDERBOOK_ANSWER_BYTES_MAX + 1);

    let server = Hook::scripted([answer(200, "", &"x".repeat(HTTP_BODY_BYTES_MAX + 9))]).await;
    let response = read_one(reads(&[], None), get(&server.url("/"))).await.unwrap();
    let ReadAnswer::Response { body, .. } = response else { panic!("{response:?}") };
    assert_eq!(body.len(), HTTP_BODY_BYTES_MAX + 1);
}

#[tokio::test]
async fn a_server_is_taken_at_its_word_unless_it_fails() {
    for status in [200, 204, 301, 400, 404] {
        let headers = "Location: http://127.0.0.1:1/\r\n";
        let server = Hook::scripted([answer(status, headers, "")]).await;
        let response = read_one(reads(&[], None), get(&server.url("/a?b=c"))).await.unwrap();
        let said = ReadAnswer::Response { status, body: Default::default() };
        assert_eq!(response, said);
        assert!(server.received()[0].head.starts_with("GET /a?b=c HTTP/1.1\r\n"));
    }
    for status in [429, 500, 503] {
        let server = Hook::scripted([answer(status, "", "")]).await;
        let world = read_one(reads(&[], None), get(&server.url("/?key=s3cr3t"))).await.unwrap_err();
        assert!(matches!(world, World::Http(_)), "{world:?}");
        assert!(!format!("{world:?} {}", reasons(&world)).contains("s3cr3t"), "{world:?}");
    }
    let nobody = read_one(reads(&[], None), get("http://127.0.0.1:1/?key=s3cr3t")).await;
    let nobody = nobody.unwrap_err();
    assert!(!format!("{nobody:?} {}", reasons(&nobody)).contains("s3cr3t"), "{nobody:?}");
}

#[tokio::test]
async fn a_batch_of_all_kinds_is_answered_in_its_order() {
    let node = Hook::answering(Box::new(|asked| {
        let one = |call: &Value| {
            let result = match call["method"].as_str() {
                Some("eth_chainId") => json!("0x1"),
                Some("eth_getBalance") => json!("0x2a"),
                _ => json!({ "hash": B256::ZERO }),
            };
            json!({ "jsonrpc": "2.0", "id": call["id"], "result": result })
        };
        let asked: Value = serde_json::from_str(&asked.body).unwrap();
        let said = match asked.as_array() {
            Some(calls) => calls.iter().map(one).collect(),
            None => one(&asked),
        };
        answer(200, "", &said.to_string())
    }))
    .await;
    let other = Hook::answering(Box::new(|asked| match asked.head.contains("/api/v1/orders/") {
        true => answer(404, "", ""),
        false => answer(200, "", "hello"),
    }));
    let other = other.await;
    let balance = || ReadRequest::Balance(address!("7bF140727D27ea64b607E042f1225680B40ECa6A"));
    let requests = vec![ReadRequest::Order([1; 56]), balance(), get(&other.url("/")), balance()];
    let answers = read(reads(&[node.url("/")], Some(&other.url("/"))), requests).await.unwrap();
    assert!(
        matches!(&answers[..], [
        ReadAnswer::Order(None),
        ReadAnswer::Balance(a),
        ReadAnswer::Response { status: 200, .. },
        ReadAnswer::Balance(b),
    ] if *a == U256::from(42) && a == b),
        "{answers:?}"
    );
}

#[tokio::test]
async fn a_shutdown_ends_a_read_that_waits() {
    let server = Hook::scripted([]).await;
    server.hold();
    let metrics = shepherd_rpc::Metrics::new(&mut prometheus_client::registry::Registry::default());
    let options = shepherd_rpc::Options::default();
    let pool = Pool::connect("sepolia", 1, Vec::new(), options, &metrics);
    let shutdown = CancellationToken::new();
    let reads = LiveReads::new(pool, &Destinations::default(), Handle::current(), shutdown.clone());
    let reading = tokio::spawn(read_one(reads, get(&server.url("/"))));
    server.until(1).await;
    shutdown.cancel();
    let world = reading.await.unwrap().unwrap_err();
    assert!(reasons(&world).contains("the process is stopping"), "{world:?}");
}
