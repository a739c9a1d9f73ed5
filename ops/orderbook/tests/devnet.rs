//! The stand-in on the devnet of CoW Protocol: owners, tokens and EthFlow are contracts.

mod common;

use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use serde_json::{Value, json};
use shepherd_devnet::{
    Anvil, Token,
    cow::{self, Cow, EthFlowOrder, Order, Poll, Twap},
};
use shepherd_orderbook::{ChainConfig, Clock, Config, Orderbook, Uid};

use common::*;

/// A devnet whose time is not the machine's, and the orderbook that follows it.
async fn devnet() -> (Anvil, Cow, Orderbook) {
    let options = shepherd_devnet::Options { genesis_time: Some(NOW), ..Cow::options() };
    let anvil = Anvil::start(options).await.expect("cargo xtask setup has been run");
    let cow = Cow::deploy(&anvil).await.unwrap();
    let chain = ChainConfig {
        eth_flow: Some(cow::ETH_FLOW),
        poll_interval: Duration::from_millis(10),
        check_funds: true,
        ..ChainConfig::new(anvil.http_url())
    };
    let config = Config { clock: Clock::Chain, chain: Some(chain), ..Config::default() };
    let orderbook = Orderbook::start(config).await.expect("a free port");
    (anvil, cow, orderbook)
}

fn twap(receiver: Address, t0: u64) -> Twap {
    Twap {
        sell_token: cow::COW_TOKEN,
        buy_token: cow::WETH,
        receiver,
        part_sell_amount: U256::from(1000),
        min_part_limit: U256::from(7),
        t0,
        n: 2,
        t: 600,
        span: 0,
        app_data: cow::EMPTY_APP_DATA,
    }
}

/// The body that a keeper posts.
fn body(order: &Order, owner: Address, signature: &Bytes) -> Value {
    json!({
        "sellToken": order.sell_token,
        "buyToken": order.buy_token,
        "receiver": order.receiver,
        "sellAmount": order.sell_amount.to_string(),
        "buyAmount": order.buy_amount.to_string(),
        "validTo": order.valid_to,
        "feeAmount": "0",
        "kind": "sell",
        "partiallyFillable": false,
        "sellTokenBalance": "erc20",
        "buyTokenBalance": "erc20",
        "signingScheme": "eip1271",
        "signature": signature,
        "from": owner,
        "appData": order.app_data,
    })
}

#[tokio::test]
async fn parts_of_a_twap_are_accepted_from_a_safe_and_from_a_forwarder() {
    let (anvil, cow, orderbook) = devnet().await;
    let safe = cow.safes(&anvil, 0..1).await.unwrap()[0];
    let forwarder = cow.forwarders(&anvil, 0..1).await.unwrap()[0];
    let start = NOW + 10_000;
    let orders =
        [safe, forwarder].map(|owner| (owner, twap(owner.address, start).order(B256::ZERO)));
    cow.create(&anvil, &orders).await.unwrap();
    for part in 0..2 {
        anvil.mine_at(start + part * 600 + 10).await.unwrap();
        for (owner, conditional) in &orders {
            let poll = cow.poll(&anvil, owner.address, conditional, &[]).await.unwrap();
            let Poll::Order { order, signature } = poll else { panic!("no order: {poll:?}") };
            let body = body(&order, owner.address, &signature);
            let uid = post_order(&orderbook, &body).await.uid();
            assert_eq!(uid.to_vec(), order.uid(cow::DOMAIN, owner.address).to_vec());
            assert_eq!(post_order(&orderbook, &body).await.outcome(), "400 DuplicatedOrder");
            // One that the owner did not ask for.
            let mut other = body.clone();
            other["buyAmount"] = json!("6");
            let refused = post_order(&orderbook, &other).await.outcome();
            assert_eq!(refused, "400 InvalidEip1271Signature");
        }
    }
    // It follows the chain's time: all of them are over.
    anvil.mine_at(start + 1200).await.unwrap();
    let statuses: Vec<_> =
        orderbook.orders().await.unwrap().iter().map(|order| order.status).collect();
    assert_eq!(statuses, [shepherd_orderbook::Status::Expired; 4]);
}

#[tokio::test]
async fn funds_are_those_of_the_chain() {
    let (anvil, cow, orderbook) = devnet().await;
    let safe = cow.safes(&anvil, 0..1).await.unwrap()[0];
    let twap = twap(safe.address, NOW + 10_000);
    let conditional = twap.order(B256::ZERO);
    cow.create(&anvil, &[(safe, conditional.clone())]).await.unwrap();
    anvil.mine_at(twap.t0).await.unwrap();
    let Poll::Order { order, signature } =
        cow.poll(&anvil, safe.address, &conditional, &[]).await.unwrap()
    else {
        panic!("the first part has begun")
    };
    let body = body(&order, safe.address, &signature);
    let token = Token::at(cow::COW_TOKEN);
    let check = async |balance: u64, allowance: u64, expected: &str| {
        let from = cow.controller();
        let [balance, allowance] = [balance, allowance].map(U256::from);
        let set = [
            token.set_balance(from, safe.address, balance),
            token.set_allowance(from, safe.address, cow::VAULT_RELAYER, allowance),
        ];
        anvil.execute(&set).await.unwrap();
        assert_eq!(post_order(&orderbook, &body).await.outcome(), expected);
    };
    check(999, 1000, "400 InsufficientBalance").await;
    check(1000, 999, "400 InsufficientAllowance").await;
    check(1000, 1000, "201").await;
}

#[tokio::test]
async fn ether_is_an_order_once_it_is_placed_and_shows_its_refund() {
    let (anvil, _cow, orderbook) = devnet().await;
    let user = anvil.accounts()[0];
    let document = json!({ "version": "1.1.0", "metadata": { "quote": { "slippageBips": 50 } } });
    let document = document.to_string();
    let hash = keccak256(&document);
    let kept = json!({ "fullAppData": document });
    assert_eq!(put(&orderbook, &format!("/api/v1/app_data/{hash}"), &kept).await.status, 201);

    let end = anvil.time().await.unwrap() + 1000;
    let swap = EthFlowOrder {
        buy_token: cow::COW_TOKEN,
        receiver: user,
        sell_amount: U256::from(1_000_000),
        buy_amount: U256::from(3),
        app_data: hash,
        valid_to: end as u32,
        quote_id: 5,
    };
    let uid = swap.order().uid(cow::DOMAIN, cow::ETH_FLOW);
    let uid = Uid::try_from(uid.as_slice()).unwrap();
    assert_eq!(get_order(&orderbook, uid).await.status, 404);
    anvil.execute(&[swap.place(user)]).await.unwrap();
    let shows = async |field: &str, expected: Value| {
        let started = Instant::now();
        loop {
            let view = get_order(&orderbook, uid).await.json();
            if view.pointer(field) == Some(&expected) {
                return view;
            }
            assert!(started.elapsed() < Duration::from_secs(20), "{field} of {view}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let view = shows("/status", json!("open")).await;
    assert_eq!(view["onchainUser"], json!(user));
    assert_eq!(view["ethflowData"], json!({ "userValidTo": end, "refundTxHash": null }));
    assert_eq!(view["fullAppData"], json!(document));

    anvil.mine_at(end + 1).await.unwrap();
    shows("/status", json!("expired")).await;
    let receipts = anvil.execute(&[swap.invalidate(anvil.accounts()[1])]).await.unwrap();
    shows("/ethflowData/refundTxHash", receipts[0]["transactionHash"].clone()).await;

    let posted = body(&swap.order(), cow::ETH_FLOW, &Bytes::from(cow::ETH_FLOW.to_vec()));
    assert_eq!(post_order(&orderbook, &posted).await.outcome(), "400 ExcessiveValidTo");
}
