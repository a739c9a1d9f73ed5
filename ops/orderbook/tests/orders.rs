//! Which orders are accepted, which are refused, and why.

mod common;

use alloy_primitives::{Address, B256, Bytes, Signature, U256, keccak256};
use cowprotocol::{
    BuyTokenDestination, EcdsaSigningScheme, GPV2_SETTLEMENT, OrderData, OrderKind,
    SellTokenSource, settlement_domain,
};
use k256::ecdsa::SigningKey;
use serde_json::{Value, json};
use shepherd_orderbook::{Clock, Funds, Limits, Orderbook, Uid};

use common::*;

async fn check(change: Value, expected: &str) {
    let answer = post_order(&orderbook().await, &changed(change.clone())).await;
    assert_eq!(answer.outcome(), expected, "{change}: {}", answer.body);
}

#[tokio::test]
async fn the_golden_order_is_accepted_under_the_golden_uid() {
    let golden = json!({ "validTo": u32::MAX, "signingScheme": "presign", "signature": "0x" });
    let orderbook = orderbook().await;
    let uid = post_order(&orderbook, &changed(golden)).await.uid();
    assert_eq!(
        uid.to_string(),
        "0xc2b9cb4ea1ee5a86d8049ac09d8f494bf04cca0a68407285f31e2e6379800be8\
         7bf140727d27ea64b607e042f1225680b40eca6affffffff"
    );
    assert_eq!(get_order(&orderbook, uid).await.json()["status"], "presignaturePending");
    orderbook.presign(uid).unwrap();
    assert_eq!(get_order(&orderbook, uid).await.json()["status"], "open");
}

#[tokio::test]
async fn each_rule_refuses_in_the_words_of_the_real_one() {
    let deep = "f".repeat(64);
    for (change, expected) in [
        (json!({}), "201"),
        // Shape.
        (json!({ "sellToken": null }), "422 InvalidJson"),
        (json!({ "sellToken": "0x12" }), "422 InvalidJson"),
        (json!({ "sellAmount": 5 }), "422 InvalidJson"),
        (json!({ "sellAmount": "-5" }), "422 InvalidJson"),
        (json!({ "sellAmount": "0x5" }), "422 InvalidJson"),
        (json!({ "sellAmount": "1".repeat(79) }), "422 InvalidJson"),
        (json!({ "validTo": u64::from(u32::MAX) + 1 }), "422 InvalidJson"),
        (json!({ "kind": "swap" }), "422 InvalidJson"),
        (json!({ "partiallyFillable": null }), "422 InvalidJson"),
        (json!({ "sellTokenBalance": "vault" }), "422 InvalidJson"),
        (json!({ "feeAmount": null }), "422 InvalidJson"),
        (json!({ "signingScheme": "bls" }), "422 InvalidJson"),
        (json!({ "signature": "5fd7e97" }), "422 InvalidJson"),
        (json!({ "signingScheme": "eip712", "signature": "0x12" }), "422 InvalidJson"),
        (json!({ "signingScheme": "presign", "signature": "0x12" }), "422 InvalidJson"),
        (json!({ "appData": null }), "422 InvalidJson"),
        // Left out, and not missed.
        (json!({ "receiver": null }), "201"),
        (json!({ "sellTokenBalance": null, "buyTokenBalance": null }), "201"),
        // App data.
        (json!({ "appData": "" }), "400 InvalidAppData"),
        (json!({ "appData": "{" }), "400 InvalidAppData"),
        (json!({ "appData": "[]" }), "400 InvalidAppData"),
        (json!({ "appData": r#"{"metadata":[]}"# }), "400 InvalidAppData"),
        (json!({ "appData": r#"{"metadata":{"signer":"me"}}"# }), "400 InvalidAppData"),
        (json!({ "appData": format!("{{\"a\":\"{}\"}}", "a".repeat(8184)) }), "201"),
        (json!({ "appData": format!("{{\"a\":\"{}\"}}", "a".repeat(8185)) }), "400 InvalidAppData"),
        (json!({ "appData": keccak256("{}") }), "201"),
        (json!({ "appData": format!("0x{deep}") }), "400 InvalidAppData"),
        (json!({ "appDataHash": keccak256("{}") }), "201"),
        (json!({ "appDataHash": keccak256("{ }") }), "400 AppDataHashMismatch"),
        (json!({ "appData": json!({ "metadata": { "signer": OWNER } }).to_string() }), "201"),
        (
            json!({ "appData": json!({ "metadata": { "signer": Address::ZERO } }).to_string() }),
            "400 AppdataFromMismatch",
        ),
        // Owner.
        (json!({ "from": null }), "400 MissingFrom"),
        (json!({ "signingScheme": "presign", "signature": "0x", "from": null }), "400 MissingFrom"),
        (json!({ "signingScheme": "presign", "signature": OWNER }), "201"),
        (
            json!({ "signingScheme": "eip712", "signature": format!("0x{deep}{deep}1b") }),
            "400 InvalidSignature",
        ),
        // Amounts.
        (json!({ "sellAmount": "0" }), "400 ZeroAmount"),
        (json!({ "buyAmount": "0" }), "400 ZeroAmount"),
        (json!({ "sellAmount": U256::MAX.to_string() }), "201"),
        (json!({ "feeAmount": "1" }), "400 NonZeroFee"),
        // Balances.
        (json!({ "sellTokenBalance": "external" }), "201"),
        (json!({ "sellTokenBalance": "internal" }), "400 UnsupportedSellTokenSource"),
        (json!({ "buyTokenBalance": "internal" }), "400 UnsupportedBuyTokenDestination"),
        (json!({ "buyTokenBalance": "external" }), "422 InvalidJson"),
        // Validity.
        (json!({ "validTo": NOW + 59 }), "400 InsufficientValidTo"),
        (json!({ "validTo": NOW + 60 }), "201"),
        (json!({ "validTo": NOW + 365 * 86400 }), "201"),
        (json!({ "validTo": NOW + 365 * 86400 + 1 }), "400 ExcessiveValidTo"),
        (json!({ "validTo": u32::MAX }), "400 ExcessiveValidTo"),
        (json!({ "validTo": u32::MAX, "signingScheme": "presign", "signature": "0x" }), "201"),
        // Tokens.
        (json!({ "buyToken": SELL }), "400 SameBuyAndSellToken"),
        (json!({ "buyToken": NATIVE }), "400 SameBuyAndSellToken"),
        (json!({ "sellToken": BUY, "buyToken": NATIVE }), "201"),
        (json!({ "sellToken": NATIVE }), "400 InvalidNativeSellToken"),
        (json!({ "sellToken": Address::ZERO }), "400 UnsupportedToken"),
        (json!({ "buyToken": Address::ZERO }), "400 UnsupportedToken"),
        // Quotes.
        (json!({ "quoteId": 1 }), "400 QuoteNotFound"),
        // Several faults: the one that is looked for first.
        (json!({ "appData": "[]", "from": null }), "400 InvalidAppData"),
        (json!({ "from": null, "sellAmount": "0" }), "400 MissingFrom"),
        (json!({ "sellAmount": "0", "validTo": 0 }), "400 ZeroAmount"),
        (json!({ "validTo": 0, "buyToken": SELL }), "400 InsufficientValidTo"),
    ] {
        check(change, expected).await;
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_is_refused_before_its_fields_are_looked_at() {
    let orderbook = orderbook().await;
    for (headers, body, expected) in [
        ("Content-Type: application/json\r\n", "{".to_owned(), "400 InvalidJson"),
        ("Content-Type: application/json; charset=utf-8\r\n", order().to_string(), "201"),
        ("", order().to_string(), "415 InvalidJson"),
        ("Content-Type: application/json\r\n", " ".repeat(200_000), "413"),
    ] {
        let answer = send(orderbook.address(), "POST", "/api/v1/orders", headers, body).await;
        assert_eq!(answer.unwrap().outcome(), expected);
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 32]).unwrap()
}

fn address(key: &SigningKey) -> Address {
    Address::from_public_key(key.verifying_key())
}

/// The order of [`order`], signed.
fn signed(key: &SigningKey, scheme: EcdsaSigningScheme) -> Value {
    let data = OrderData {
        sell_token: SELL.parse().unwrap(),
        buy_token: BUY.parse().unwrap(),
        receiver: Some(OWNER),
        sell_amount: U256::from(5_000_000_000_000_000u64),
        buy_amount: U256::from(20_000_000_000_000_000_000u128),
        valid_to: (NOW + 3600) as u32,
        app_data: keccak256("{}"),
        fee_amount: U256::ZERO,
        kind: OrderKind::Sell,
        partially_fillable: false,
        sell_token_balance: SellTokenSource::Erc20,
        buy_token_balance: BuyTokenDestination::Erc20,
    };
    let hash = data.signing_hash(scheme, &settlement_domain(11_155_111, GPV2_SETTLEMENT));
    let signature = Signature::from(key.sign_prehash_recoverable(hash.as_slice()).unwrap());
    let signature = Bytes::from(signature.as_bytes());
    let scheme = match scheme {
        EcdsaSigningScheme::Eip712 => "eip712",
        EcdsaSigningScheme::EthSign => "ethsign",
    };
    changed(json!({ "signingScheme": scheme, "signature": signature, "from": address(key) }))
}

#[tokio::test]
async fn the_owner_of_a_signed_order_is_who_signed_it() {
    for scheme in [EcdsaSigningScheme::Eip712, EcdsaSigningScheme::EthSign] {
        let orderbook = orderbook().await;
        let key = key(1);
        let order = signed(&key, scheme);
        let mut anonymous = order.clone();
        anonymous.as_object_mut().unwrap().remove("from");
        let uid = post_order(&orderbook, &anonymous).await.uid();
        assert_eq!(uid[32..52], address(&key)[..]);
        assert_eq!(post_order(&orderbook, &order).await.outcome(), "400 DuplicatedOrder");

        let mut other = order.clone();
        other["from"] = json!(OWNER);
        assert_eq!(post_order(&orderbook, &other).await.outcome(), "400 WrongOwner");
        let mut other = order.clone();
        other["sellAmount"] = json!("6");
        assert_eq!(post_order(&orderbook, &other).await.outcome(), "400 WrongOwner");
    }
}

#[tokio::test]
async fn an_accepted_order_can_be_read_and_has_a_life() {
    let orderbook = orderbook().await;
    assert_eq!(get_order(&orderbook, Uid::ZERO).await.outcome(), "404 NotFound");
    assert_eq!(get(&orderbook, "/api/v1/orders/0x12").await.status, 404);

    let uid = post_order(&orderbook, &order()).await.uid();
    let answer = get_order(&orderbook, uid).await;
    // The client of the host reads it.
    let view: cowprotocol::Order = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((view.uid, view.owner), (uid, OWNER));
    assert_eq!(view.status, cowprotocol::OrderStatus::Open);
    assert_eq!(view.full_app_data.as_deref(), Some("{}"));
    assert_eq!(view.signature, "0x5fd7e97d");
    assert_eq!(view.creation_date, "2023-11-14T22:13:20Z");

    let status = async || get_order(&orderbook, uid).await.json()["status"].clone();
    orderbook.set_clock(Clock::Fixed(NOW + 3600));
    assert_eq!(status().await, "open");
    orderbook.set_clock(Clock::Fixed(NOW + 3601));
    assert_eq!(status().await, "expired");
    orderbook.cancel(uid).unwrap();
    assert_eq!(status().await, "cancelled");
    let filled = post(&orderbook, "/admin/fill", &json!({ "uid": uid })).await;
    assert_eq!(filled.status, 204);
    assert_eq!(status().await, "fulfilled");
    let view = get_order(&orderbook, uid).await.json();
    assert_eq!(view["executedSellAmount"], "5000000000000000");
    let unknown = post(&orderbook, "/admin/cancel", &json!({ "uid": Uid::ZERO })).await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn a_duplicate_is_refused_and_counted_with_its_bytes() {
    let orderbook = orderbook().await;
    let body = order();
    let uid = post_order(&orderbook, &body).await.uid();
    assert_eq!(post_order(&orderbook, &body).await.outcome(), "400 DuplicatedOrder");
    // Its signature takes no part in its name.
    let other = changed(json!({ "signature": "0x01" }));
    assert_eq!(post_order(&orderbook, &other).await.outcome(), "400 DuplicatedOrder");

    let stats = &orderbook.stats().orders[&uid];
    assert_eq!((stats.posts, stats.accepted), (3, 1));
    let counts: Vec<u64> = stats.bodies.values().copied().collect();
    assert!(counts == [1, 2] || counts == [2, 1], "{counts:?}");
    assert_eq!(stats.outcomes["201"], 1);
    assert_eq!(stats.outcomes["400 DuplicatedOrder"], 2);
    assert_eq!(stats.bodies[&sha256(&body.to_string())], 2);
    assert_eq!(orderbook.orders().await.unwrap().len(), 1);
}

fn sha256(text: &str) -> B256 {
    use sha2::{Digest, Sha256};
    B256::from_slice(&Sha256::digest(text))
}

#[tokio::test]
async fn funds_are_checked_as_they_were_set() {
    let orderbook = orderbook().await;
    let token: Address = SELL.parse().unwrap();
    let amount = U256::from(5_000_000_000_000_000u64);
    let set = |balance, allowance| {
        orderbook.set_funds(OWNER, token, Funds { balance, allowance });
    };
    let less = amount - U256::ONE;
    set(Some(less), None);
    assert_eq!(post_order(&orderbook, &order()).await.outcome(), "400 InsufficientBalance");
    set(Some(amount), Some(less));
    assert_eq!(post_order(&orderbook, &order()).await.outcome(), "400 InsufficientAllowance");
    // One unit is enough for an order that may be filled in parts.
    let parts = changed(json!({ "partiallyFillable": true }));
    assert_eq!(post_order(&orderbook, &parts).await.outcome(), "201");
    // A pre-signed order may be ahead of its funds.
    let presigned = changed(json!({ "signingScheme": "presign", "signature": "0x" }));
    assert_eq!(post_order(&orderbook, &presigned).await.outcome(), "201");
    let lifted = json!({ "owner": OWNER, "token": token, "balance": amount.to_string() });
    assert_eq!(put(&orderbook, "/admin/funds", &lifted).await.status, 204);
    let later = changed(json!({ "validTo": NOW + 7200 }));
    assert_eq!(post_order(&orderbook, &later).await.outcome(), "201");
    // Found before the duplicate is.
    set(Some(U256::ZERO), None);
    assert_eq!(post_order(&orderbook, &later).await.outcome(), "400 InsufficientBalance");
}

#[tokio::test]
async fn an_owner_has_so_many_open_orders_and_no_more() {
    let limits = Limits { open_orders_max: Some(2), ..Limits::default() };
    let orderbook = Orderbook::start(shepherd_orderbook::Config { limits, ..config() });
    let orderbook = orderbook.await.unwrap();
    let nth = |n: u64| changed(json!({ "validTo": NOW + 3600 + n }));
    let first = post_order(&orderbook, &nth(0)).await.uid();
    post_order(&orderbook, &nth(1)).await.uid();
    assert_eq!(post_order(&orderbook, &nth(2)).await.outcome(), "400 TooManyLimitOrders");
    let other = changed(json!({ "from": Address::repeat_byte(1) }));
    assert_eq!(post_order(&orderbook, &other).await.outcome(), "201");
    orderbook.fill(first).unwrap();
    assert_eq!(post_order(&orderbook, &nth(2)).await.outcome(), "201");

    let limits = json!({ "validity_seconds_min": 0, "validity_seconds_max": 10 });
    assert_eq!(put(&orderbook, "/admin/limits", &limits).await.status, 200);
    assert_eq!(post_order(&orderbook, &nth(3)).await.outcome(), "400 ExcessiveValidTo");
    let now = changed(json!({ "validTo": NOW }));
    assert_eq!(post_order(&orderbook, &now).await.outcome(), "201");
}

#[tokio::test]
async fn a_quote_is_one_for_one_and_binds_its_tokens() {
    let orderbook = orderbook().await;
    let request = |change: Value| {
        let mut request = json!({
            "sellToken": SELL, "buyToken": BUY, "from": OWNER, "kind": "sell",
            "sellAmountBeforeFee": "1000", "priceQuality": "fast", "validFor": 100,
        });
        request.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        request
    };
    let quote = post(&orderbook, "/api/v1/quote", &request(json!({}))).await.json();
    assert_eq!(quote["quote"]["buyAmount"], "1000");
    assert_eq!(quote["quote"]["feeAmount"], "0");
    assert_eq!(quote["quote"]["validTo"], NOW + 100);
    let _: cowprotocol::OrderQuoteResponse = serde_json::from_value(quote.clone()).unwrap();

    let follows = changed(json!({ "quoteId": quote["id"] }));
    assert_eq!(post_order(&orderbook, &follows).await.outcome(), "201");
    let other = changed(json!({ "quoteId": quote["id"], "kind": "buy" }));
    assert_eq!(post_order(&orderbook, &other).await.outcome(), "400 InvalidQuote");

    for (change, expected) in [
        (json!({ "sellToken": NATIVE }), "400 InvalidNativeSellToken"),
        (json!({ "buyToken": SELL }), "400 SameBuyAndSellToken"),
        (json!({ "sellAmountBeforeFee": "0" }), "400 ZeroAmount"),
        (json!({ "kind": "buy" }), "422 InvalidJson"),
    ] {
        let answer = post(&orderbook, "/api/v1/quote", &request(change)).await;
        assert_eq!(answer.outcome(), expected);
    }
}

#[tokio::test]
async fn app_data_is_kept_under_its_hash() {
    let orderbook = orderbook().await;
    let path = |document: &str| format!("/api/v1/app_data/{}", keccak256(document));
    let document = r#"{"appCode":"a keeper"}"#;
    let body = json!({ "fullAppData": document });
    assert_eq!(get(&orderbook, &path(document)).await.status, 404);
    assert_eq!(get(&orderbook, "/api/v1/app_data/0x12").await.status, 404);
    assert_eq!(put(&orderbook, &path(document), &body).await.status, 201);
    assert_eq!(put(&orderbook, &path(document), &body).await.status, 200);
    assert_eq!(get(&orderbook, &path(document)).await.json(), body);
    assert_eq!(put(&orderbook, &path("{}"), &body).await.outcome(), "400 AppDataHashMismatch");
    let long = format!("{{\"a\":\"{}\"}}", "a".repeat(8185));
    let answer = put(&orderbook, &path(&long), &json!({ "fullAppData": long })).await;
    assert_eq!(answer.outcome(), "400 InvalidAppData");
    assert_eq!(get(&orderbook, &path("{}")).await.json()["fullAppData"], "{}");

    // An order can name it by its hash now, and an order brings its own.
    let by_hash = changed(json!({ "appData": keccak256(document) }));
    let uid = post_order(&orderbook, &by_hash).await.uid();
    assert_eq!(get_order(&orderbook, uid).await.json()["fullAppData"], document);
    let other = r#"{"appCode":"another"}"#;
    post_order(&orderbook, &changed(json!({ "appData": other }))).await.uid();
    assert_eq!(get(&orderbook, &path(other)).await.status, 200);
}

#[tokio::test]
async fn the_network_in_the_path_is_this_one_or_none() {
    let orderbook = orderbook().await;
    assert_eq!(orderbook.url().path(), "/sepolia/");
    for (path, status) in [
        ("/api/v1/version", 200),
        ("/sepolia/api/v1/version", 200),
        ("/mainnet/api/v1/version", 404),
        ("/api/v2/version", 404),
    ] {
        assert_eq!(get(&orderbook, path).await.status, status, "{path}");
    }
    let uid = post(&orderbook, "/sepolia/api/v1/orders", &order()).await.uid();
    assert_eq!(get_order(&orderbook, uid).await.status, 200);
    let listed = get(&orderbook, "/admin/orders?after=0&limit=5").await.json();
    assert_eq!((&listed["total"], &listed["orders"][0]["uid"]), (&json!(1), &json!(uid)));
}
