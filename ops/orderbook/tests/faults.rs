//! What goes wrong when it is asked to.

mod common;

use std::time::{Duration, Instant};

use alloy_primitives::Address;
use serde_json::{Value, json};
use shepherd_orderbook::{Config, Fault, Orderbook, Route, Rule, Uid};

use common::*;

async fn with_rule(rule: Rule) -> Orderbook {
    let config = Config { rules: vec![rule], ..config() };
    Orderbook::start(config).await.expect("a free port")
}

fn only(fault: Fault) -> Rule {
    Rule { times: Some(1), ..Rule::always(fault) }
}

/// Posts the same order twice, and answers with what its poster and the orderbook saw.
async fn twice(fault: Fault) -> (Vec<Option<String>>, Vec<(String, u64)>) {
    let orderbook = with_rule(only(fault)).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(try_post(&orderbook, &order()).await.map(|answer| answer.outcome()));
    }
    let stats = orderbook.stats();
    let orders: Vec<_> = stats.orders.values().collect();
    assert_eq!(orders.len(), 1);
    assert_eq!(orders[0].accepted, 1, "{stats:?}");
    assert_eq!(orders[0].bodies.len(), 1, "the bytes were the same");
    let outcomes = orders[0].outcomes.clone().into_iter().collect();
    assert_eq!(stats.requests[&Route::PostOrder], orders[0].outcomes);
    (seen, outcomes)
}

async fn check(fault: Fault, seen: [Option<&str>; 2], counted: [&str; 2]) {
    let (really_seen, really_counted) = twice(fault.clone()).await;
    let seen: Vec<Option<String>> = seen.iter().map(|one| one.map(str::to_owned)).collect();
    assert_eq!(really_seen, seen, "{fault:?}");
    let mut counted: Vec<(String, u64)> = counted.iter().map(|one| ((*one).into(), 1)).collect();
    counted.sort();
    assert_eq!(really_counted, counted, "{fault:?}");
}

#[tokio::test]
async fn an_order_is_stored_exactly_when_the_fault_says_so() {
    let duplicate = "400 DuplicatedOrder";
    let created = Some("201");
    check(Fault::AcceptThenDrop, [None, Some(duplicate)], ["201, then dropped", duplicate]).await;
    check(
        Fault::AcceptThenServerError { status: 502 },
        [Some("502"), Some(duplicate)],
        ["201, then 502", duplicate],
    )
    .await;
    check(Fault::Drop, [None, created], ["dropped", "201"]).await;
    let limited = Fault::TooManyRequests { retry_after_seconds: Some(3) };
    check(limited, [Some("429"), created], ["429", "201"]).await;
    check(Fault::ServerError { status: 503 }, [Some("503"), created], ["503", "201"]).await;
    let failed = "500 InternalServerError";
    check(Fault::ServerError { status: 500 }, [Some(failed), created], [failed, "201"]).await;
    for (error_type, outcome) in [
        ("InsufficientBalance", "400 InsufficientBalance"),
        ("Forbidden", "403 Forbidden"),
        ("NeverHeardOf", "400 NeverHeardOf"),
    ] {
        let refuse = Fault::Refuse { error_type: error_type.to_owned() };
        check(refuse, [Some(outcome), created], [outcome, "201"]).await;
    }
    check(Fault::Latency { ms: 1 }, [created, Some(duplicate)], ["201", duplicate]).await;
}

#[tokio::test]
async fn a_dropped_order_can_be_read_before_its_poster_knows() {
    let orderbook = with_rule(Rule::always(Fault::AcceptThenDrop)).await;
    assert!(try_post(&orderbook, &order()).await.is_none());
    let orders = orderbook.orders().await.unwrap();
    assert_eq!(get_order(&orderbook, orders[0].uid).await.json()["status"], "open");
}

#[tokio::test]
async fn retry_after_is_sent_when_it_is_given() {
    let orderbook = with_rule(only(Fault::TooManyRequests { retry_after_seconds: Some(7) })).await;
    let answer = post_order(&orderbook, &order()).await;
    assert!(answer.head.contains("\r\nretry-after: 7"), "{}", answer.head);
    orderbook.set_rules(vec![only(Fault::TooManyRequests { retry_after_seconds: None })]).unwrap();
    assert!(!post_order(&orderbook, &order()).await.head.contains("retry-after"));
}

#[tokio::test]
async fn a_late_answer_is_late_and_its_order_is_not() {
    let orderbook = with_rule(Rule::always(Fault::Latency { ms: 1000 })).await;
    let started = Instant::now();
    let body = order();
    let posting = post_order(&orderbook, &body);
    let reading = async {
        while orderbook.orders().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        started.elapsed()
    };
    let (answer, stored) = tokio::join!(posting, reading);
    assert_eq!(answer.status, 201);
    assert!(Duration::from_secs(1) <= started.elapsed());
    assert!(stored < started.elapsed());
}

/// Which of many orders, posted at the same time, were dropped.
async fn dropped(seed: u64) -> Vec<u64> {
    let rule = Rule { rate: 0.3, ..Rule::always(Fault::Drop) };
    let config = Config { seed, rules: vec![rule], ..config() };
    let orderbook = Orderbook::start(config).await.unwrap();
    let posts = (0..100u64).map(|n| {
        let orderbook = &orderbook;
        async move {
            let body = changed(json!({ "validTo": NOW + 3600 + n }));
            try_post(orderbook, &body).await.is_none().then_some(n)
        }
    });
    let mut dropped = Vec::new();
    let posts: Vec<_> = posts.collect();
    for post in join_all(posts).await {
        dropped.extend(post);
    }
    let stats = orderbook.stats();
    assert_eq!(stats.seed, seed);
    assert_eq!(stats.requests[&Route::PostOrder]["dropped"], dropped.len() as u64);
    dropped
}

/// At the same time, as far as one thread can.
async fn join_all<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, slot) in futures.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *slot = Some(value);
            }
        }
        match done.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test]
async fn the_seed_alone_says_which_orders_a_rate_hits() {
    let first = dropped(7).await;
    assert!((15..45).contains(&first.len()), "{first:?}");
    assert_eq!(dropped(7).await, first);
    assert_ne!(dropped(8).await, first);
}

#[tokio::test]
async fn faults_hit_one_owner_or_one_route() {
    let other = Address::repeat_byte(1);
    let orderbook = with_rule(Rule { owner: Some(other), ..Rule::always(Fault::Drop) }).await;
    assert_eq!(post_order(&orderbook, &order()).await.status, 201);
    assert!(try_post(&orderbook, &changed(json!({ "from": other }))).await.is_none());

    let reads = Rule {
        route: Route::GetOrder,
        owner: Some(OWNER),
        ..Rule::always(Fault::ServerError { status: 503 })
    };
    orderbook.set_rules(vec![reads]).unwrap();
    let uid = orderbook.orders().await.unwrap()[0].uid;
    assert_eq!(get_order(&orderbook, uid).await.status, 503);
    assert_eq!(get_order(&orderbook, Uid::ZERO).await.status, 404);
    assert_eq!(post_order(&orderbook, &order()).await.outcome(), "400 DuplicatedOrder");
}

#[tokio::test]
async fn each_order_meets_a_fault_at_its_first_attempts() {
    let rule = Rule { first_attempts: Some(2), ..Rule::always(Fault::AcceptThenDrop) };
    let orderbook = with_rule(rule).await;
    for n in 0..3u64 {
        let body = changed(json!({ "validTo": NOW + 3600 + n }));
        assert!(try_post(&orderbook, &body).await.is_none());
        assert!(try_post(&orderbook, &body).await.is_none());
        assert_eq!(post_order(&orderbook, &body).await.outcome(), "400 DuplicatedOrder");
    }
    assert!(orderbook.stats().orders.values().all(|order| order.accepted == 1));
    assert_eq!(orderbook.faults().rules[0].hits, 6);
}

#[tokio::test]
async fn faults_are_set_and_read_from_outside() {
    let orderbook = orderbook().await;
    let rules = json!({ "seed": 5, "rules": [
        { "fault": "accept_then_drop", "rate": 0.5, "first_attempts": 1 },
        { "fault": { "latency": { "ms": 3 } }, "route": "get_order" },
        { "fault": { "too_many_requests": { "retry_after_seconds": 2 } }, "times": 0 },
        { "fault": { "refuse": { "error_type": "NoLiquidity" } }, "owner": OWNER, "times": 1 },
    ]});
    let set = put(&orderbook, "/admin/faults", &rules).await;
    assert_eq!(set.status, 200, "{}", set.body);
    let faults = get(&orderbook, "/admin/faults").await.json();
    assert_eq!(faults["seed"], 5);
    assert_eq!(faults["rules"][0]["fault"], "accept_then_drop");
    assert_eq!(faults["rules"][3]["hits"], 0);

    let check = async |rules: Value| {
        let answer = put(&orderbook, "/admin/faults", &rules).await;
        assert_eq!(answer.status, 422, "{rules}: {}", answer.body);
    };
    check(json!({ "rules": [{ "fault": "explode" }] })).await;
    check(json!({ "rules": [{ "fault": "drop", "rate": 2 }] })).await;
    check(json!({ "rules": [{ "fault": "drop", "ratio": 1 }] })).await;
    check(json!({ "rules": [{ "fault": { "server_error": { "status": 200 } } }] })).await;
    assert_eq!(get(&orderbook, "/admin/faults").await.json(), faults);

    assert_eq!(put(&orderbook, "/admin/faults", &json!({ "rules": [] })).await.status, 200);
    assert_eq!(orderbook.faults().seed, 5);
    assert_eq!(post_order(&orderbook, &order()).await.status, 201);
    let stats = get(&orderbook, "/admin/stats").await.json();
    assert_eq!(stats["requests"]["post_order"]["201"], 1);
}

#[tokio::test]
async fn admin_answers_programs_on_this_machine_only() {
    let orderbook = orderbook().await;
    let ask = async |headers: &str| {
        send(orderbook.address(), "GET", "/admin/stats", headers, "").await.unwrap().status
    };
    assert_eq!(ask("").await, 200);
    assert_eq!(ask("Origin: http://page.example\r\n").await, 403);
    let request = "GET /admin/stats HTTP/1.1\r\nHost: page.example\r\nConnection: close\r\n\r\n";
    let to = orderbook.address();
    let answer = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(to).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    assert!(answer.await.unwrap().starts_with("HTTP/1.1 403"));
}

#[tokio::test]
async fn an_outage_ends_with_the_port_and_the_orders_there_were() {
    let orderbook = orderbook().await;
    let uid = post_order(&orderbook, &order()).await.uid();
    let stopped = orderbook.stop().await;
    let address = stopped.address();
    assert!(send(address, "GET", "/api/v1/version", "", "").await.is_none());
    let orderbook = stopped.start().await.unwrap();
    assert_eq!(orderbook.address(), address);
    assert_eq!(post_order(&orderbook, &order()).await.outcome(), "400 DuplicatedOrder");
    assert_eq!(orderbook.stats().orders[&uid].posts, 2);
}
