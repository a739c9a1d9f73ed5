//! What the orderbook learns from a chain, from a real node.

mod common;

use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256, Bytes, LogData, U256, bytes, keccak256};
use alloy_sol_types::SolEvent;
use cowprotocol::{
    BuyTokenDestination,
    CoWSwapOnchainOrders::{OrderInvalidation, OrderPlacement},
    GPV2_SETTLEMENT, GPv2OrderData,
    GPv2Settlement::PreSignature,
    OnchainSignature, OnchainSigningScheme, OrderData, OrderKind, SellTokenSource,
    settlement_domain,
};
use serde_json::json;
use shepherd_devnet::{Anvil, Options, Transaction};
use shepherd_orderbook::{ChainConfig, Clock, Config, Orderbook, Uid};

use common::*;

const ETH_FLOW: Address = Address::repeat_byte(0xef);

/// Emits its call data: one topic, or two, and the rest as data.
///
/// ```text
/// calldataload(32) calldataload(0)          the topics, the first on top
/// calldatasize - 64, twice                  the length of the data
/// calldatacopy(0, 64, length) log2(0, length, topic, topic)
/// ```
const EMIT_1: Bytes = bytes!("60003560203603806020600037" "6000a100");
const EMIT_2: Bytes = bytes!("60203560003560403603806040600037" "6000a200");

/// Answers `isValidSignature` with the magic value when the hash is what its first slot holds,
/// and reverts otherwise.
///
/// ```text
/// if calldataload(4) == sload(0) { mstore(0, 0x1626ba7e << 224) return(0, 32) } revert(0, 0)
/// ```
const ONE_HASH: Bytes = bytes!("60043560005414600f5760006000fd5b631626ba7e60e01b60005260206000f3");

async fn anvil() -> Anvil {
    let options = Options { chain_id: 11_155_111, ..Options::default() };
    Anvil::start(options).await.expect("cargo xtask setup has been run")
}

async fn orderbook_of(anvil: &Anvil, change: impl FnOnce(&mut ChainConfig)) -> Orderbook {
    let mut chain = ChainConfig::new(anvil.http_url());
    chain.eth_flow = Some(ETH_FLOW);
    chain.poll_interval = Duration::from_millis(10);
    change(&mut chain);
    Orderbook::start(Config { chain: Some(chain), ..config() }).await.expect("a free port")
}

/// Emits an event from `emitter` in a block of its own.
async fn emit(anvil: &Anvil, emitter: Address, event: &LogData) {
    let code = if event.topics().len() == 1 { EMIT_1 } else { EMIT_2 };
    anvil.set_code(emitter, code).await.unwrap();
    let topics: Vec<u8> = event.topics().iter().flat_map(|topic| topic.0).collect();
    let data = Bytes::from([&topics[..], &event.data].concat());
    let from = anvil.accounts()[0];
    let transaction =
        Transaction { from, to: Some(emitter), value: U256::ZERO, data, gas: Some(1_000_000) };
    let sent = anvil.send(&[transaction]).await.unwrap();
    anvil.mine(1).await.unwrap();
    assert_eq!(anvil.receipt(sent[0]).await.unwrap()["logs"].as_array().unwrap().len(), 1);
}

/// A placement by the user 0x11…, and the UID it has.
fn placement(sell_amount: u64, app_data: B256) -> (LogData, Uid) {
    let data = OrderData {
        sell_token: SELL.parse().unwrap(),
        buy_token: BUY.parse().unwrap(),
        receiver: Some(OWNER),
        sell_amount: U256::from(sell_amount),
        buy_amount: U256::from(7),
        valid_to: u32::MAX,
        app_data,
        fee_amount: U256::ZERO,
        kind: OrderKind::Sell,
        partially_fillable: false,
        sell_token_balance: SellTokenSource::Erc20,
        buy_token_balance: BuyTokenDestination::Erc20,
    };
    let order = GPv2OrderData {
        sellToken: data.sell_token,
        buyToken: data.buy_token,
        receiver: OWNER,
        sellAmount: data.sell_amount,
        buyAmount: data.buy_amount,
        validTo: data.valid_to,
        appData: app_data,
        feeAmount: U256::ZERO,
        kind: OrderKind::SELL,
        partiallyFillable: false,
        sellTokenBalance: SellTokenSource::ERC20,
        buyTokenBalance: BuyTokenDestination::ERC20,
    };
    let event = OrderPlacement {
        sender: Address::repeat_byte(0x11),
        order,
        signature: OnchainSignature {
            scheme: OnchainSigningScheme::Eip1271,
            data: Bytes::from(ETH_FLOW.0),
        },
        data: [&3i64.to_be_bytes()[..], &((NOW + 100) as u32).to_be_bytes()].concat().into(),
    };
    let domain = settlement_domain(11_155_111, GPV2_SETTLEMENT);
    (event.encode_log_data(), data.uid(&domain, ETH_FLOW))
}

/// Waits until the orderbook says of an order what is expected: a status, or `404`.
async fn becomes(orderbook: &Orderbook, uid: Uid, expected: &str) {
    let started = Instant::now();
    loop {
        let answer = get_order(orderbook, uid).await;
        let status = answer.json()["status"].as_str().map(str::to_owned);
        let status = status.unwrap_or(answer.status.to_string());
        if status == expected {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{status}, not {expected}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_eth_flow_placement_is_known_and_followed_to_its_end() {
    let anvil = anvil().await;
    let orderbook = orderbook_of(&anvil, |_| ()).await;
    let (event, uid) = placement(5, keccak256("{}"));
    assert_eq!(get_order(&orderbook, uid).await.status, 404);
    emit(&anvil, ETH_FLOW, &event).await;
    becomes(&orderbook, uid, "open").await;

    let answer = get_order(&orderbook, uid).await;
    let view: cowprotocol::Order = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((view.owner, view.data.valid_to), (ETH_FLOW, u32::MAX));
    assert_eq!(view.onchain_user, Some(Address::repeat_byte(0x11)));
    assert_eq!(answer.json()["ethflowData"]["userValidTo"], NOW + 100);
    assert_eq!(view.full_app_data.as_deref(), Some("{}"));

    // It ends when the user said, whatever the order's own `validTo` is.
    orderbook.set_clock(Clock::Fixed(NOW + 101));
    becomes(&orderbook, uid, "expired").await;
    let event = OrderInvalidation { orderUid: uid.to_vec().into() };
    emit(&anvil, ETH_FLOW, &event.encode_log_data()).await;
    becomes(&orderbook, uid, "cancelled").await;
}

#[tokio::test]
async fn posting_an_eth_flow_order_is_refused_for_its_validity() {
    let anvil = anvil().await;
    let orderbook = orderbook_of(&anvil, |_| ()).await;
    let order = json!({ "from": ETH_FLOW, "validTo": u32::MAX, "signature": ETH_FLOW });
    let answer = post_order(&orderbook, &changed(order)).await;
    assert_eq!(answer.outcome(), "400 ExcessiveValidTo");
}

#[tokio::test]
async fn a_placement_is_unknown_until_its_delay_has_passed() {
    let anvil = anvil().await;
    let orderbook = orderbook_of(&anvil, |chain| chain.delay_blocks = 2).await;
    let (event, uid) = placement(5, B256::ZERO);
    emit(&anvil, ETH_FLOW, &event).await;
    let started = Instant::now();
    // Seen, and not yet told.
    while orderbook.orders().await.unwrap().is_empty() {
        assert!(started.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(get_order(&orderbook, uid).await.status, 404);
    anvil.mine(2).await.unwrap();
    becomes(&orderbook, uid, "open").await;
}

#[tokio::test]
async fn a_placement_leaves_with_its_block() {
    let anvil = anvil().await;
    let orderbook = orderbook_of(&anvil, |_| ()).await;
    let [(first, kept), (second, lost)] = [1, 2].map(|amount| placement(amount, B256::ZERO));
    emit(&anvil, ETH_FLOW, &first).await;
    emit(&anvil, ETH_FLOW, &second).await;
    becomes(&orderbook, lost, "open").await;
    anvil.reorg(1).await.unwrap();
    becomes(&orderbook, lost, "404").await;
    becomes(&orderbook, kept, "open").await;
}

#[tokio::test]
async fn a_pre_signed_order_opens_when_the_settlement_says_so() {
    let anvil = anvil().await;
    let orderbook = orderbook_of(&anvil, |_| ()).await;
    let presigned = json!({ "signingScheme": "presign", "signature": "0x" });
    let uid = post_order(&orderbook, &changed(presigned)).await.uid();
    becomes(&orderbook, uid, "presignaturePending").await;
    for (signed, status) in [(true, "open"), (false, "presignaturePending")] {
        let event = PreSignature { owner: OWNER, orderUid: uid.to_vec().into(), signed };
        emit(&anvil, GPV2_SETTLEMENT, &event.encode_log_data()).await;
        becomes(&orderbook, uid, status).await;
    }
}

#[tokio::test]
async fn an_eip_1271_owner_is_asked_for_the_digest_of_the_order() {
    let anvil = anvil().await;
    let orderbook = orderbook_of(&anvil, |_| ()).await;
    let refused = "400 InvalidEip1271Signature";
    // An account without code accepts nothing, a contract what it knows.
    assert_eq!(post_order(&orderbook, &order()).await.outcome(), refused);
    anvil.set_code(OWNER, ONE_HASH).await.unwrap();
    assert_eq!(post_order(&orderbook, &order()).await.outcome(), refused);
    let uid = *orderbook.stats().orders.keys().next().expect("what was posted is counted");
    anvil.set_storage(OWNER, U256::ZERO, B256::from_slice(&uid[..32])).await.unwrap();
    assert_eq!(post_order(&orderbook, &order()).await.uid(), uid);
    let other = changed(json!({ "validTo": NOW + 7200 }));
    assert_eq!(post_order(&orderbook, &other).await.outcome(), refused);
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_no_fault_of_the_order() {
    let anvil = anvil().await;
    let orderbook = orderbook_of(&anvil, |_| ()).await;
    drop(anvil);
    let answer = post_order(&orderbook, &order()).await;
    assert_eq!(answer.outcome(), "500 InternalServerError");
    let uid = *orderbook.stats().orders.keys().next().unwrap();
    assert_eq!(get_order(&orderbook, uid).await.status, 404);
}

#[tokio::test]
async fn time_can_follow_the_chain() {
    let anvil = anvil().await;
    let orderbook = orderbook_of(&anvil, |_| ()).await;
    let set = put(&orderbook, "/admin/clock", &json!({ "clock": "chain" })).await;
    assert_eq!(set.status, 200);
    let later = 4_000_000_000u64;
    anvil.call("evm_setNextBlockTimestamp", json!([later])).await.unwrap();
    anvil.mine(1).await.unwrap();
    let check = async |valid_to: u64, expected: &str| {
        let order = json!({ "validTo": valid_to, "signingScheme": "presign", "signature": "0x" });
        assert_eq!(post_order(&orderbook, &changed(order)).await.outcome(), expected);
    };
    check(later + 59, "400 InsufficientValidTo").await;
    check(later + 60, "201").await;
}
