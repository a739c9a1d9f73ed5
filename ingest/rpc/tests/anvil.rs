//! What a pool promises, against a real node.

use std::time::Duration;

use alloy_primitives::{Address, B256, Bytes, U256};
use prometheus_client::registry::Registry;
use serde_json::json;
use shepherd_devnet::{Anvil, Options as DevnetOptions, Transaction};
use shepherd_rpc::{Call, ChainAnswer, ChainRequest, Metrics, Options, Pool, ReadFailed};

const PATIENCE: Duration = Duration::from_secs(60);

async fn anvil() -> Anvil {
    Anvil::start(DevnetOptions::default()).await.unwrap()
}

fn pool(anvil: &Anvil, urls: &[String]) -> Pool {
    let urls = urls.iter().map(|url| url.parse().unwrap()).collect();
    let options = Options {
        rest_min: Duration::from_millis(1),
        rest_max: Duration::from_millis(20),
        ..Options::default()
    };
    let metrics = Metrics::new(&mut Registry::default());
    Pool::connect("devnet", anvil.chain_id(), urls, options, &metrics)
}

fn call(to: Address) -> ChainRequest {
    ChainRequest::Call { to, data: Bytes::new() }
}

/// Puts code at an address and answers what a call to it came to.
async fn run(anvil: &Anvil, pool: &Pool, code: &str) -> ChainAnswer {
    let contract = Address::repeat_byte(0xcc);
    anvil.set_code(contract, code.parse().unwrap()).await.unwrap();
    anvil.mine(1).await.unwrap();
    let block = anvil.head().await.unwrap().hash;
    pool.read(block, &[call(contract)]).await.unwrap().remove(0)
}

#[tokio::test]
async fn a_call_returns_reverts_with_data_or_halts() {
    let anvil = anvil().await;
    let pool = pool(&anvil, &[anvil.http_url().to_string()]);
    let word = B256::with_last_byte(0xaa);
    let returned = ChainAnswer::Returned(Bytes::from(word.0));
    assert_eq!(run(&anvil, &pool, "0x60aa60005260206000f3").await, returned);
    let reverted = ChainAnswer::Reverted(Bytes::from(word.0));
    assert_eq!(run(&anvil, &pool, "0x60aa60005260206000fd").await, reverted);
    for (halt, code) in [
        ("a revert without data", "0x60006000fd"),
        ("an invalid opcode", "0xfe"),
        ("an unknown opcode", "0x0c"),
        ("an empty stack", "0x01"),
        ("a bad jump", "0x600056"),
        ("an endless loop", "0x5b600056"),
        ("more memory than there is gas for", "0x6000195160005260206000f3"),
        ("return data that is not there", "0x60ff600060003e"),
        ("a full stack", "0x5b6000600056"),
    ] {
        let empty = ChainAnswer::Reverted(Bytes::new());
        assert_eq!(run(&anvil, &pool, code).await, empty, "{halt}");
    }
}

#[tokio::test]
async fn many_calls_are_answered_in_order_with_the_raw_bytes_of_their_reverts() {
    let anvil = anvil().await;
    let pool = pool(&anvil, &[anvil.http_url().to_string()]);
    let contract = Address::repeat_byte(0xdd);
    // Answers its input: returns it when the first byte is zero, and else reverts with it.
    let code = "0x365f5f375f355f1a600e57365ff35b365ffd".parse().unwrap();
    anvil.set_code(contract, code).await.unwrap();
    anvil.mine(1).await.unwrap();
    let block = anvil.head().await.unwrap().hash;
    // More than fit into all the messages that are under way at once, and into the last of them.
    let (requests, expected): (Vec<_>, Vec<_>) = (0..1_234u32)
        .map(|number| {
            let reverts = number % 3 == 1;
            let data = Bytes::from([&[u8::from(reverts)][..], &number.to_be_bytes()].concat());
            let answer = match reverts {
                true => ChainAnswer::Reverted(data.clone()),
                false => ChainAnswer::Returned(data.clone()),
            };
            (ChainRequest::Call { to: contract, data }, answer)
        })
        .unzip();
    assert_eq!(pool.read(block, &requests).await.unwrap(), expected);
    let failed = pool.read(B256::repeat_byte(0x11), &requests).await.unwrap_err();
    assert!(matches!(failed, ReadFailed::BlockUnknown { .. }), "{failed:?}");
}

#[tokio::test]
async fn reads_are_pinned_to_their_block() {
    let anvil = anvil().await;
    let pool = pool(&anvil, &[anvil.http_url().to_string()]);
    let contract = Address::repeat_byte(0xaa);
    // With input it counts up, without it answers the count. (Anvil's own setters would change
    // the state after the last block as well.)
    let code: Bytes = "0x36600f5760005460005260206000f35b6001600054016000550000".parse().unwrap();
    anvil.set_code(contract, code.clone()).await.unwrap();
    let count = Transaction {
        from: anvil.accounts()[0],
        to: Some(contract),
        value: U256::ONE,
        data: Bytes::from_static(&[1]),
        gas: Some(100_000),
    };
    let mut blocks = Vec::new();
    for value in 1..=3u8 {
        anvil.send(std::slice::from_ref(&count)).await.unwrap();
        anvil.mine(1).await.unwrap();
        blocks.push((value, anvil.head().await.unwrap().hash));
    }
    let requests = [
        call(contract),
        ChainRequest::Balance(contract),
        ChainRequest::Code(contract),
        ChainRequest::Storage { address: contract, slot: B256::ZERO },
        ChainRequest::Code(Address::repeat_byte(0xbb)),
    ];
    for (value, block) in blocks {
        let word = B256::with_last_byte(value);
        let expected = [
            ChainAnswer::Returned(Bytes::from(word.0)),
            ChainAnswer::Balance(U256::from(value)),
            ChainAnswer::Code(code.clone()),
            ChainAnswer::Storage(word),
            ChainAnswer::Code(Bytes::new()),
        ];
        assert_eq!(pool.read(block, &requests).await.unwrap(), expected);
    }
    let unknown = B256::repeat_byte(0x11);
    for request in requests {
        let failed = pool.read(unknown, &[request]).await.unwrap_err();
        assert!(matches!(failed, ReadFailed::BlockUnknown { .. }), "{failed:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_a_failure_and_not_an_answer() {
    let anvil = anvil().await;
    anvil.mine(1).await.unwrap();
    let block = anvil.head().await.unwrap().hash;
    let pool = pool(&anvil, &[anvil.http_url().to_string()]);
    let request = [ChainRequest::Balance(Address::ZERO)];
    pool.read(block, &request).await.unwrap();
    let stopped = anvil.stop().await.unwrap();
    let failed = pool.read(block, &request).await.unwrap_err();
    assert!(matches!(failed, ReadFailed::Pool(_)), "{failed:?}");
    let _anvil = stopped.start().await.unwrap();
    let answered = async {
        while pool.read(block, &request).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.unwrap();
}

#[tokio::test]
async fn a_websocket_alone_serves_data_and_wakes_across_restarts() {
    let anvil = anvil().await;
    let pool = pool(&anvil, &[anvil.ws_url().to_string()]);
    anvil.mine(3).await.unwrap();
    let calls: Vec<Call> = (0..5)
        .map(|number| Call {
            method: "eth_getBlockByNumber",
            params: json!([format!("{number:#x}"), false]),
        })
        .collect();
    let batch = pool.batch(&calls).await.unwrap();
    let there: Vec<bool> = batch
        .answers
        .iter()
        .map(|answer| !answer.as_ref().unwrap().parse::<serde_json::Value>().unwrap().is_null())
        .collect();
    assert_eq!(there, [true, true, true, true, false]);
    let block = anvil.head().await.unwrap().hash;
    assert!(pool.read(block, &[call(Address::ZERO)]).await.is_ok());

    let mut heads = pool.heads();
    let announced = tokio::time::timeout(PATIENCE, heads.announced());
    announced.await.expect("the subscription itself is announced");
    anvil.mine(1).await.unwrap();
    tokio::time::timeout(PATIENCE, heads.announced()).await.expect("a new head");

    let anvil = anvil.stop().await.unwrap().start().await.unwrap();
    tokio::time::timeout(PATIENCE, heads.announced()).await.expect("the new subscription");
    anvil.mine(1).await.unwrap();
    tokio::time::timeout(PATIENCE, heads.announced()).await.expect("a new head after the restart");
    let block = anvil.head().await.unwrap().hash;
    let answered = async {
        while pool.read(block, &[call(Address::ZERO)]).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("data after the restart");
}

#[tokio::test]
async fn a_subscription_that_has_gone_silent_is_made_anew() {
    let anvil = anvil().await;
    let options = Options { head_silence_max: Duration::from_millis(50), ..Options::default() };
    let metrics = Metrics::new(&mut Registry::default());
    let urls = vec![anvil.ws_url().as_str().parse().unwrap()];
    let pool = Pool::connect("devnet", anvil.chain_id(), urls, options, &metrics);
    let mut heads = pool.heads();
    // No block is mined: each of these is a new subscription.
    for _ in 0..3 {
        tokio::time::timeout(PATIENCE, heads.announced()).await.expect("a new subscription");
    }
}

#[tokio::test]
async fn answers_over_a_websocket_are_together_no_larger_than_one_may_be() {
    let anvil = anvil().await;
    anvil.mine(20).await.unwrap();
    // Twenty headers are three messages full, and a batch may be four.
    let options = Options { body_bytes_max: 10_000, ..Options::default() };
    let metrics = Metrics::new(&mut Registry::default());
    let urls = vec![anvil.ws_url().as_str().parse().unwrap()];
    let pool = Pool::connect("devnet", anvil.chain_id(), urls, options, &metrics);
    let calls: Vec<Call> = (1..=20)
        .map(|number| Call {
            method: "eth_getBlockByNumber",
            params: json!([format!("{number:#x}"), false]),
        })
        .collect();
    let batch = pool.batch(&calls).await.unwrap();
    assert!(batch.answers.iter().all(|answer| answer.as_ref().unwrap().len_bytes() > 500));
    let calls = pool.status()[0].calls;
    assert!(calls > 22, "some were asked for again, in smaller parts: {calls}");
}
