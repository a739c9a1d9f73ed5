//! Backtests of real modules over histories that live lanes lived through.

#[path = "backtest/bench.rs"]
mod bench;
mod common;
#[path = "backtest/window.rs"]
mod window;

use std::collections::BTreeSet;

use alloy_primitives::{Address, hex};
use bench::{
    Bench, CROSSING, Lived, Node, balance_tracker_of, fails, rules, stop_loss, teller_of_logs,
};
use common::{BALANCE_TRACKER, TELLER, TOKEN_LEDGER, hostile, seed, seeds};
use shepherd_log::{EffectKey, EffectResult};
use shepherd_replay::{BacktestError, Ended, MissCause, Rules};

/// Nothing is simulated within any history here.
const NEVER: &str = "[orders]\ndelay_blocks = 1000\n[webhooks]\ndelay_blocks = 1000";

#[test]
fn the_same_module_does_what_it_did_live() {
    let first = seed();
    let (mut answered, mut abandoned) = (0, 0);
    for seed in first..first + seeds(4) {
        for module in [&*BALANCE_TRACKER, &stop_loss()] {
            let mut lived = Lived::new(seed, 60);
            lived.live(module, 0.6);
            let facts = lived.facts();
            answered += facts.len();
            abandoned += facts.iter().filter(|fact| !lived.is_canonical(fact.block)).count();
            let bench = Bench::new(&lived, module);
            // No cache, no endpoint: the tape answers everything.
            assert_eq!(bench.run(rules(NEVER)), Ended::Finished, "seed {seed}");
            assert_eq!(lived.asked(module), bench.asked(), "seed {seed}");
        }
    }
    assert!(
        answered > abandoned && abandoned > 0,
        "{answered} answers, {abandoned} to lost blocks"
    );
}

#[test]
fn another_configuration_asks_for_other_effects_and_the_rules_say_what_comes_of_them() {
    let mut lived = Lived::straight(40);
    lived.live(&BALANCE_TRACKER, 1.0);
    let bench = Bench::new(&lived, &bench::balance_tracker(1));
    bench.run(rules("[webhooks]\ndelay_blocks = 2"));
    assert!(lived.asked(&BALANCE_TRACKER).effects.len() < bench.asked().effects.len());
    let real: BTreeSet<_> = lived.facts().into_iter().map(|outcome| outcome.key).collect();
    let (mut happened, mut simulated) = (0, 0);
    for outcome in bench.outcomes() {
        if real.contains(&outcome.key) {
            happened += 1;
        } else {
            simulated += 1;
            assert_eq!(outcome.result, EffectResult::Accepted);
            assert_eq!(outcome.head.number, outcome.block.number + 2, "{outcome:?}");
        }
    }
    assert!(happened > 0 && simulated > 0, "{happened} real and {simulated} simulated outcomes");
}

#[test]
fn a_refusal_by_the_rules_reaches_the_module_and_is_over_after_so_many_times() {
    let lived = Lived::straight(12);
    let bench = Bench::new(&lived, &stop_loss());
    bench.cache_answers();
    // The module places an order without a quote again at the next block.
    bench.run(rules(
        "[[orders.refuse]]\nerror_type = \"QuoteNotFound\"\ntimes = 3\nretry_after_seconds = 7",
    ));
    let outcomes = bench.outcomes();
    let told: Vec<_> = outcomes.iter().map(|told| (told.result.kind(), told.head.number)).collect();
    let expected = ["refused", "refused", "refused", "accepted"].into_iter().zip(CROSSING..);
    assert_eq!(told, expected.collect::<Vec<_>>());
    let EffectResult::Refused(refusal) = &outcomes[0].result else { panic!("{outcomes:?}") };
    assert_eq!(refusal.error_type.as_deref(), Some("QuoteNotFound"));
    assert_eq!((refusal.status, refusal.retry_after), (400, Some(7)));
}

#[test]
fn a_lane_that_is_called_for_logs_alone_is_told_at_the_block_at_which_it_is_due() {
    let lived = Lived::sparse(30);
    let bench = Bench::new(&lived, &teller_of_logs());
    bench.cache_answers();
    bench.run(rules("[webhooks]\ndelay_blocks = 3"));
    let outcomes = bench.outcomes();
    // One of each block with a log, and those that were asked for while these were told.
    assert!(outcomes.len() > 5, "{outcomes:#?}");
    for told in &outcomes {
        assert_eq!(told.head.number, told.block.number + 3, "{told:?}");
    }
}

#[test]
fn what_the_orderbook_answered_then_is_a_miss_when_nobody_knows() {
    let lived = Lived::straight(2);
    let module = hostile("ask-orderbook");
    let document = format!("GET /api/v1/app_data/0x{}", "02".repeat(32));
    let order = format!("GET /api/v1/orders/0x{}7bf14072", "01".repeat(32));
    for (text, expected, others) in [
        ("", &document, 0),
        ("[orders]\nunknown = \"open\"", &document, 0),
        ("[orders]\nunknown = \"stop\"", &order, 1),
    ] {
        let error = fails(Bench::new(&lived, &module).try_run(rules(text)));
        let BacktestError::Miss(miss) = &error else { panic!("{error}") };
        assert_eq!((&miss.why, miss.others), (&MissCause::Orderbook, others), "{text}");
        assert!(error.to_string().contains(expected.as_str()), "{text}: {error}");
    }
}

#[test]
fn an_order_that_is_not_answered_in_time_expires() {
    let lived = Lived::straight(12);
    let valid_to = bench::timestamp(CROSSING + 2);
    let bench = Bench::new(&lived, &bench::stop_loss_valid_to(valid_to));
    bench.cache_answers();
    bench.run(rules("[orders]\ndelay_blocks = 9"));
    let outcomes = bench.outcomes();
    let told: Vec<_> = outcomes.iter().map(|told| (told.result.kind(), told.head.number)).collect();
    assert_eq!(told, [("expired", CROSSING + 2)]);
}

#[test]
fn a_read_that_nobody_answers_stops_with_the_exact_request_and_goes_on_with_its_answer() {
    let mut lived = Lived::straight(20);
    lived.live(&BALANCE_TRACKER, 1.0);
    // Asks for addresses that the live lane never asked for.
    let bench = Bench::new(&lived, &balance_tracker_of(&[9, 8]));
    let error = fails(bench.try_run(Rules::default()));
    let BacktestError::Miss(miss) = &error else { panic!("{error}") };
    assert_eq!((miss.record.get(), miss.others), (0, 1));
    assert_eq!(miss.why, MissCause::NoEndpoint);
    let text = error.to_string();
    for part in [
        "block 0 (0x",
        "eth_getBalance",
        &hex::encode_prefixed(Address::repeat_byte(9)),
        &format!("\"blockHash\":\"{}\"", miss.block.hash),
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    bench.cache_answers();
    assert_eq!(bench.run(Rules::default()), Ended::Finished);
}

#[test]
fn a_backtest_that_is_interrupted_after_every_record_ends_like_one_that_is_not() {
    let first = seed();
    for seed in first..first + seeds(2) {
        for module in [&*TELLER, &stop_loss()] {
            let mut lived = Lived::new(seed, 40);
            if *module.lane() != *TELLER.lane() {
                lived.live(module, 0.3);
            }
            let rules = rules(
                "seed = 3\n[orders]\ndelay_blocks = 1\n\
                 [[orders.refuse]]\nerror_type = \"QuoteNotFound\"\ntimes = 2\n\
                 [webhooks]\ndelay_blocks = 1\n[[webhooks.refuse]]\nrate = 0.5\ntimes = 1",
            );
            let whole = Bench::new(&lived, module);
            whole.cache_answers();
            assert_eq!(whole.run(rules.clone()), Ended::Finished);
            assert!(!whole.outcomes().is_empty(), "seed {seed}");
            let cut = Bench::new(&lived, module).with_cache_of(&whole);
            let mut starts = 1;
            while cut.run_one_record(rules.clone()) == Ended::Interrupted {
                starts += 1;
            }
            assert!(starts >= 40, "{starts} starts");
            assert_eq!(whole.asked(), cut.asked(), "seed {seed}");
            assert_eq!(whole.outcomes(), cut.outcomes(), "seed {seed}");
        }
    }
}

#[test]
fn a_reorg_takes_back_what_was_not_answered_and_leaves_what_was() {
    let lived = Lived::reorg([6, 2, 8]);
    // The order is placed at a block that is taken back, and again at the one in its place.
    let bench = Bench::new(&lived, &stop_loss());
    bench.cache_answers();
    bench.run(Rules::default());
    let told: Vec<_> = bench
        .outcomes()
        .iter()
        .map(|told| (told.result.kind(), told.block.number, lived.is_canonical(told.block)))
        .collect();
    assert_eq!(told, [("accepted", CROSSING, false), ("already-there", CROSSING, true)]);
    let straight = lived.canonical();
    let straight = Bench::new(&straight, &stop_loss()).with_cache_of(&bench);
    straight.run(Rules::default());
    assert_eq!(bench.asked().computed.state, straight.asked().computed.state);

    // Calls that still waited when theirs was taken back are never made.
    let bench = Bench::new(&lived, &TELLER);
    bench.cache_answers();
    bench.run(rules("[webhooks]\ndelay_blocks = 4"));
    let outcomes = bench.outcomes();
    assert!(!outcomes.is_empty());
    for told in outcomes {
        assert!(matches!(told.key, EffectKey::Webhook { .. }));
        let was_answered = told.head.number <= 5 && !lived.is_canonical(told.head);
        assert!(lived.is_canonical(told.block) || was_answered, "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_endpoint_answers_once_and_the_cache_from_then_on() {
    let node = Node::start();
    let url = node.url();
    let working = tokio::task::spawn_blocking(move || {
        let mut lived = Lived::straight(12);
        lived.live(&BALANCE_TRACKER, 1.0);
        let module = balance_tracker_of(&[9, 8]);
        let first = Bench::new(&lived, &module);
        assert_eq!(first.try_with_pool(bench::pool(&url)).unwrap(), Ended::Finished);
        let again = Bench::new(&lived, &module).with_cache_of(&first);
        assert_eq!(again.run(Rules::default()), Ended::Finished);
        assert!(!first.asked().computed.state.is_empty());
        assert_eq!(first.asked(), again.asked());
    });
    working.await.unwrap();
    assert_eq!(node.reads(), 24, "two for each of twelve blocks, and none the second time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backtest_that_waits_for_an_endpoint_can_be_interrupted() {
    // A server that takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let working = tokio::task::spawn_blocking(move || {
        let lived = Lived::straight(2);
        let bench = Bench::new(&lived, &balance_tracker_of(&[9]));
        // The connection is what tells that it waits.
        silent.set_nonblocking(true).unwrap();
        let connection = std::cell::OnceCell::new();
        let interrupted = || {
            if let Ok(accepted) = silent.accept() {
                let _ = connection.set(accepted);
            }
            connection.get().is_some()
        };
        bench.go(Rules::default(), Some(bench::pool(&url)), None, Some(&interrupted))
    });
    assert_eq!(working.await.unwrap().unwrap(), Ended::Interrupted);
}

#[test]
fn an_endpoint_needs_a_runtime() {
    let lived = Lived::straight(2);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pool = {
        let _entered = runtime.enter();
        bench::pool("http://127.0.0.1:1")
    };
    let error = fails(Bench::new(&lived, &TOKEN_LEDGER).try_with_pool(pool));
    assert!(matches!(error, BacktestError::NoRuntime), "{error}");
}
