//! What a pool promises, against a node that breaks the rules.

mod server;

use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use serde_json::json;
use server::{CHAIN_ID, Fault, Server};
use shepherd_rpc::{
    Call, ChainMismatch, EndpointState, Failure, Metrics, Options, Pool, PoolError, RpcError,
};

fn options() -> Options {
    Options {
        rest_min: Duration::from_millis(1),
        rest_max: Duration::from_millis(2),
        ..Options::default()
    }
}

fn pool(urls: &[String], options: Options) -> Pool {
    let urls = urls.iter().map(|url| url.parse().unwrap()).collect();
    Pool::connect("devnet", CHAIN_ID, urls, options, &Metrics::new(&mut Registry::default()))
}

fn heights(heights: std::ops::Range<u64>) -> Vec<Call> {
    heights
        .map(|number| Call {
            method: "eth_getBlockByNumber",
            params: json!([format!("{number:#x}"), false]),
        })
        .collect()
}

/// The numbers of the blocks answered, `None` for a null.
fn numbers(answers: &[Result<shepherd_rpc::Answer, RpcError>]) -> Vec<Option<String>> {
    #[derive(serde::Deserialize)]
    struct Block {
        number: String,
    }
    answers
        .iter()
        .map(|answer| answer.as_ref().unwrap().parse::<Option<Block>>().unwrap())
        .map(|block| block.map(|block| block.number))
        .collect()
}

#[tokio::test]
async fn a_batch_is_answered_in_the_order_of_its_calls() {
    let node = Server::start().await;
    node.state().head = 250;
    let pool = pool(&[node.url()], options());
    let batch = pool.batch(&heights(1..253)).await.unwrap();
    let expected: Vec<_> = (1..253).map(|n| (n <= 250).then(|| format!("{n:#x}"))).collect();
    assert_eq!(numbers(&batch.answers), expected);
    assert_eq!(node.messages(), 4, "one to get to know each other, three with a hundred or less");
    assert_eq!(pool.status()[0].state, EndpointState::Ready);
    assert!(pool.batch(&[]).await.unwrap().answers.is_empty());
}

#[tokio::test]
async fn answers_may_come_in_any_order_and_incomplete() {
    for fault in [Fault::Shuffled, Fault::Incomplete] {
        let node = Server::start().await;
        node.state().head = 8;
        let pool = pool(&[node.url()], options());
        pool.batch(&heights(0..1)).await.unwrap();
        node.play("eth_getBlockByNumber", fault);
        let batch = pool.batch(&heights(1..8)).await.unwrap();
        let expected: Vec<_> = (1..8).map(|n| Some(format!("{n:#x}"))).collect();
        assert_eq!(numbers(&batch.answers), expected);
        assert!(node.is_honest_again());
    }
}

#[tokio::test]
async fn an_endpoint_of_another_chain_is_not_used() {
    let other = Server::of_chain(1).await;
    let ours = Server::start().await;
    ours.state().head = 1;
    let mismatch = ChainMismatch::ChainId { configured: CHAIN_ID, endpoint: 1 };

    let alone = pool(&[other.url()], options());
    let error = alone.batch(&heights(0..1)).await.unwrap_err();
    assert_eq!(error, PoolError::WrongChain { endpoint: other.url(), source: mismatch });
    assert_eq!(alone.status()[0].state, EndpointState::WrongChain(mismatch));
    let checks = alone.check().await;
    assert_eq!(checks[0].result, Err(Failure::WrongChain(mismatch)));

    let both = pool(&[other.url(), ours.url()], options());
    let batch = both.batch(&heights(1..2)).await.unwrap();
    assert_eq!(both.name_of(batch.from), ours.url());
}

#[tokio::test]
async fn an_endpoint_that_comes_back_with_another_genesis_is_not_used() {
    let node = Server::start().await;
    let pool = pool(&[node.url()], options());
    pool.batch(&heights(0..1)).await.unwrap();
    node.state().genesis = alloy_primitives::B256::ZERO;
    node.play("eth_getBlockByNumber", Fault::HangUp);
    let error = pool.batch(&heights(0..1)).await.unwrap_err();
    assert!(matches!(error, PoolError::NoAnswer { .. }), "{error}");
    let error = loop {
        match pool.batch(&heights(0..1)).await.unwrap_err() {
            PoolError::NoAnswer { retry_in, .. } => tokio::time::sleep(retry_in).await,
            error @ PoolError::WrongChain { .. } => break error,
        }
    };
    let PoolError::WrongChain { source, .. } = error else { unreachable!() };
    assert!(matches!(source, ChainMismatch::Genesis { .. }), "{source}");
}

#[tokio::test]
async fn retry_after_is_honoured_while_the_next_endpoint_answers() {
    let limited = Server::start().await;
    let other = Server::start().await;
    let pool = pool(&[limited.url(), other.url()], options());
    pool.batch(&heights(0..1)).await.unwrap();
    limited.play("eth_getBlockByNumber", Fault::Status(429, Some("7")));
    for _ in 0..3 {
        let batch = pool.batch(&heights(0..1)).await.unwrap();
        assert_eq!(pool.name_of(batch.from), other.url());
    }
    assert_eq!(limited.messages(), 3, "it is left alone once it said so");
    let status = &pool.status()[0];
    let EndpointState::Resting { remaining } = status.state else { panic!("{status:?}") };
    assert!(remaining > Duration::from_secs(5) && remaining <= Duration::from_secs(7));
    let (_, failure) = status.last_failure.clone().unwrap();
    let retry_after = Some(Duration::from_secs(7));
    assert_eq!(failure, Failure::RateLimited { retry_after });
}

#[tokio::test]
async fn a_body_over_the_limit_is_not_read_and_a_batch_is_asked_for_in_parts() {
    let node = Server::start().await;
    node.state().head = 64;
    let limit_bytes = 20_000;
    let pool = pool(&[node.url()], Options { body_bytes_max: limit_bytes, ..options() });
    let batch = pool.batch(&heights(1..65)).await.unwrap();
    assert_eq!(batch.answers.len(), 64);
    assert!(numbers(&batch.answers).iter().all(Option::is_some));

    let huge = format!(r#"{{"id":0,"result":"0x{}"}}"#, "0".repeat(limit_bytes as usize));
    node.play("eth_getBlockByNumber", Fault::Body(huge));
    let error = pool.batch(&heights(1..2)).await.unwrap_err();
    let PoolError::NoAnswer { failures, .. } = error else { panic!("{error}") };
    assert_eq!(failures[0].1, Failure::TooLarge { limit_bytes });
}

#[tokio::test]
async fn an_endpoint_that_refuses_batches_is_asked_one_by_one() {
    let node = Server::start().await;
    node.state().head = 4;
    let pool = pool(&[node.url()], options());
    node.state().batch_calls_max = 1;
    let batch = pool.batch(&heights(1..5)).await.unwrap();
    assert!(numbers(&batch.answers).iter().all(Option::is_some));
    let before = node.messages();
    pool.batch(&heights(1..5)).await.unwrap();
    assert_eq!(node.messages() - before, 4, "it does not have to say it again");
}

#[tokio::test]
async fn what_stalls_or_hangs_up_or_babbles_fails_in_time() {
    let quick = Options { request_timeout: Duration::from_millis(200), ..options() };
    let cases = [
        Fault::Stall,
        Fault::HangUp,
        Fault::Status(502, None),
        Fault::Body("<html>".to_owned()),
        Fault::Error(-32005, "request rate exceeded"),
    ];
    for fault in cases {
        let node = Server::start().await;
        let other = Server::start().await;
        let pool = pool(&[node.url(), other.url()], quick.clone());
        pool.batch(&heights(0..1)).await.unwrap();
        node.play("eth_getBlockByNumber", fault.clone());
        let started = Instant::now();
        let batch = pool.batch(&heights(0..1)).await.unwrap();
        assert_eq!(pool.name_of(batch.from), other.url(), "{fault:?}");
        assert!(started.elapsed() < Duration::from_secs(30), "{fault:?}");
        assert_eq!(pool.status()[0].failures_in_a_row, 1);
    }
}

#[tokio::test]
async fn an_endpoint_whose_data_did_not_hold_up_comes_last() {
    let node = Server::start().await;
    let other = Server::start().await;
    let slow = Options {
        rest_min: Duration::from_secs(60),
        rest_max: Duration::from_secs(60),
        ..options()
    };
    let pool = pool(&[node.url(), other.url()], slow);
    let batch = pool.batch(&heights(0..1)).await.unwrap();
    assert_eq!(pool.name_of(batch.from), node.url());
    pool.distrust(batch.from, "its logs are incomplete".to_owned());
    let second = pool.batch(&heights(0..1)).await.unwrap();
    assert_eq!(pool.name_of(second.from), other.url());
    assert!(matches!(pool.status()[0].state, EndpointState::Distrusted { .. }));
    pool.distrust(second.from, "its logs are incomplete too".to_owned());
    let third = pool.batch(&heights(0..1)).await.unwrap();
    assert_eq!(third.from, batch.from, "when all are distrusted none is");
}

#[tokio::test]
async fn no_endpoint_means_no_answer() {
    let error = pool(&[], options()).batch(&heights(0..1)).await.unwrap_err();
    assert!(matches!(error, PoolError::NoAnswer { .. }));
}
