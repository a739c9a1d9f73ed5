//! Which endpoint of a pool is asked, and when another one is.

mod server;

use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256, U256};
use futures::future::join_all;
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::{Value, json};
use server::{CHAIN_ID, GENESIS, Server};
use shepherd_rpc::{
    ArchiveDepth, Budget, Call, Capabilities, ChainAnswer, ChainMismatch, ChainRequest,
    EndpointSpec, EndpointState, Failure, Metrics, Options, Pool, PoolError,
};

/// For what must happen, but nobody knows when.
const PATIENCE: Duration = Duration::from_secs(30);

/// Far longer than a test takes: who does not wait this long was told by somebody else.
const NEVER: Duration = Duration::from_secs(3_600);

fn options() -> Options {
    Options {
        rest_min: Duration::from_millis(1),
        rest_max: Duration::from_millis(2),
        read_timeout: NEVER,
        request_timeout: NEVER,
        ..Options::default()
    }
}

fn without_hedges() -> Options {
    Options { hedge_share_max: 0.0, ..options() }
}

fn spec(server: &Server) -> EndpointSpec {
    server.url().parse().unwrap()
}

fn after(priority: u8, server: &Server) -> EndpointSpec {
    EndpointSpec { priority, ..spec(server) }
}

fn pool(endpoints: Vec<EndpointSpec>, options: Options) -> Pool {
    let metrics = Metrics::new(&mut Registry::default());
    Pool::connect("devnet", CHAIN_ID, endpoints, options, &metrics)
}

fn question() -> Call {
    Call { method: "eth_blockNumber", params: json!([]) }
}

/// Asks once, and says who answered.
async fn ask(pool: &Pool) -> String {
    let asked = tokio::time::timeout(PATIENCE, pool.batch(&[question()])).await;
    let batch = asked.expect("an answer in time").unwrap();
    pool.name_of(batch.from).to_owned()
}

/// Whether the first endpoint may be asked, perhaps again after a failure.
fn has_rested(pool: &Pool) -> bool {
    match pool.status()[0].state {
        EndpointState::Resting { remaining } => remaining.is_zero(),
        _ => true,
    }
}

/// Waits until something holds that is done in the background.
async fn until(holds: impl Fn() -> bool) {
    let holds = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, holds).await.expect("it holds in time");
}

#[tokio::test]
async fn an_endpoint_that_hangs_is_not_waited_for() {
    let (slow, quick) = (Server::start().await, Server::start().await);
    let pool = pool(vec![spec(&slow), after(1, &quick)], options());
    slow.hold();
    for _ in 0..3 {
        assert_eq!(ask(&pool).await, quick.url());
    }
    assert_eq!(slow.calls("eth_blockNumber"), 3, "it was asked first");
    let status = &pool.status()[0];
    assert!(matches!(status.last_failure, Some((_, Failure::TimedOut { .. }))), "{status:?}");
    assert_eq!((status.failures_in_a_row, status.in_flight), (1, 0), "it was overtaken too often");
}

#[tokio::test]
async fn to_ask_nothing_says_nothing_about_an_endpoint() {
    let server = Server::start().await;
    let pool = pool(vec![spec(&server)], options());
    assert_eq!(ask(&pool).await, server.url());
    let before = &pool.status()[0];
    for _ in 0..20 {
        assert!(pool.batch(&[]).await.unwrap().answers.is_empty());
    }
    let after = &pool.status()[0];
    assert_eq!((after.latency, after.health), (before.latency, before.health));
}

#[tokio::test]
async fn the_answers_to_a_batch_are_bounded_in_however_many_messages_they_come() {
    let server = Server::start().await;
    server.state().results.insert("eth_blockNumber", Ok(json!("x".repeat(800))));
    let options = Options { body_bytes_max: 1_000, ..options() };
    let pool = pool(vec![spec(&server)], options);
    assert_eq!(pool.batch(&vec![question(); 4]).await.unwrap().answers.len(), 4);
    match pool.batch(&vec![question(); 64]).await {
        Err(PoolError::NoAnswer { failures, .. }) => {
            assert_eq!(failures[0].1, Failure::TooLarge { limit_bytes: 4_000 });
        }
        answered => panic!("{answered:?}"),
    }
    assert!(matches!(pool.status()[0].state, EndpointState::Ready), "it is not its fault");
}

#[tokio::test]
async fn a_websocket_that_never_opens_is_not_waited_for() {
    let quick = Server::start().await;
    // Connections are made, and nobody answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("ws://{}", listener.local_addr().unwrap()).parse().unwrap();
    let options = Options { connect_timeout: NEVER, ..options() };
    let pool = pool(vec![silent, after(1, &quick)], options);
    for _ in 0..4 {
        assert_eq!(ask(&pool).await, quick.url());
    }
    assert_eq!(pool.status()[0].failures_in_a_row, 1);
}

#[tokio::test]
async fn a_pinned_read_is_not_held_up_by_an_endpoint_that_hangs() {
    let (slow, quick) = (Server::start().await, Server::start().await);
    for server in [&slow, &quick] {
        server.state().results.insert("eth_getBalance", Ok(json!("0x5")));
    }
    let pool = pool(vec![spec(&slow), spec(&quick)], options());
    slow.hold();
    let request = [ChainRequest::Balance(Address::ZERO)];
    let read = tokio::time::timeout(PATIENCE, pool.read(B256::ZERO, &request)).await;
    assert_eq!(read.expect("an answer in time"), Ok(vec![ChainAnswer::Balance(U256::from(5))]));
    assert_eq!(quick.calls("eth_getBalance"), 1);
}

#[tokio::test]
async fn only_a_share_of_the_calls_is_asked_twice() {
    const CALLS: usize = 300;
    let (slow, quick) = (Server::start().await, Server::start().await);
    let pool = pool(vec![spec(&slow), spec(&quick)], options());
    assert_eq!(ask(&pool).await, slow.url());
    slow.hold();
    let answers = join_all((0..CALLS).map(|_| ask(&pool)));
    let release = async {
        // All that may be asked twice have been, and were answered.
        until(|| quick.calls("eth_blockNumber") >= 30 && pool.status()[1].in_flight == 0).await;
        slow.release();
    };
    let (answers, ()) = futures::future::join(answers, release).await;
    let hedged = quick.calls("eth_blockNumber");
    assert!((30..=41).contains(&hedged), "a tenth of {CALLS} and ten at the start, not {hedged}");
    assert_eq!(answers.iter().filter(|from| **from == quick.url()).count(), hedged);
}

#[tokio::test]
async fn a_slow_endpoint_is_waited_for_when_no_other_is_healthy() {
    let (slow, other) = (Server::start().await, Server::start().await);
    let pool = pool(vec![spec(&slow), spec(&other)], options());
    assert_eq!(ask(&pool).await, slow.url());
    let endpoints = pool.endpoints();
    pool.distrust(endpoints[1], "its logs are incomplete".to_owned());
    slow.hold();
    // Longer than an endpoint is waited for about which nothing is known.
    let release = async {
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        slow.release();
    };
    let (from, ()) = futures::future::join(ask(&pool), release).await;
    assert_eq!((from, other.calls("eth_blockNumber")), (slow.url(), 0));
}

#[tokio::test]
async fn lower_priorities_serve_while_higher_ones_fail_and_are_left_when_these_recover() {
    let (first, second) = (Server::start().await, Server::start().await);
    let pool = pool(vec![after(7, &second), after(3, &first)], without_hedges());
    assert_eq!(ask(&pool).await, first.url());
    first.state().is_broken = true;
    assert_eq!(ask(&pool).await, second.url());
    {
        let mut state = first.state();
        (state.is_broken, state.holds_all) = (false, true);
    }
    first.hold();
    until(|| has_rested(&pool)).await;
    for _ in 0..20 {
        assert_eq!(ask(&pool).await, second.url(), "nobody waits for what failed before");
    }
    assert_eq!(first.calls("eth_blockNumber"), 2);
    first.release();
    let back = async { while ask(&pool).await != first.url() {} };
    tokio::time::timeout(PATIENCE, back).await.expect("it comes back");
}

#[tokio::test]
async fn of_one_priority_the_healthier_is_asked_first() {
    let (flaky, steady) = (Server::start().await, Server::start().await);
    let pool = pool(vec![spec(&flaky), spec(&steady)], without_hedges());
    let [flaky_id, steady_id] = pool.endpoints()[..] else { panic!() };
    flaky.state().fails_each = Some(2);
    for _ in 0..12 {
        let _ = pool.ask(flaky_id, &[question()]).await;
        pool.ask(steady_id, &[question()]).await.unwrap();
        until(|| has_rested(&pool)).await;
    }
    flaky.state().fails_each = None;
    pool.ask(flaky_id, &[question()]).await.unwrap();
    assert_eq!(pool.status()[0].state, EndpointState::Ready);
    assert_eq!(pool.endpoints(), [steady_id, flaky_id]);
    assert_eq!(ask(&pool).await, steady.url());
}

#[tokio::test]
async fn an_endpoint_that_lags_comes_after_the_others_until_it_has_caught_up() {
    let (lagging, other) = (Server::start().await, Server::start().await);
    let pool = pool(vec![spec(&lagging), after(9, &other)], options());
    let first = pool.endpoints()[0];
    assert_eq!(ask(&pool).await, lagging.url());
    pool.report_lagging(first, 12);
    assert_eq!(ask(&pool).await, other.url());
    let status = &pool.status()[0];
    assert!(matches!(status.state, EndpointState::Lagging { .. }), "{status:?}");
    assert_eq!(status.behind_blocks, 12);
    pool.report_lagging(first, 0);
    assert_eq!(ask(&pool).await, lagging.url());
}

#[tokio::test]
async fn a_spent_budget_moves_the_calls_to_the_next_and_names_the_wait_when_there_is_none() {
    let (metered, free) = (Server::start().await, Server::start().await);
    let budget = Some(Budget { calls: 5, per: NEVER });
    let metered_spec = EndpointSpec { budget, ..spec(&metered) };
    let both = pool(vec![metered_spec.clone(), after(1, &free)], options());
    let mut answered = Vec::new();
    for _ in 0..6 {
        answered.push(ask(&both).await == metered.url());
    }
    // Two calls went into getting to know each other.
    assert_eq!(answered, [true, true, true, false, false, false]);
    let status = &both.status()[0];
    assert!(matches!(status.state, EndpointState::OverBudget { .. }), "{status:?}");
    assert_eq!((status.budget.unwrap().calls_left, status.calls), (0, 5));

    let alone = pool(vec![metered_spec], options());
    let error = alone.batch(&vec![question(); 4]).await.unwrap_err();
    let PoolError::NoAnswer { failures, retry_in } = error else { panic!("{error}") };
    assert_eq!(failures, [(metered.url(), Failure::BudgetSpent { calls: 5, per: NEVER })]);
    assert!(retry_in > NEVER / 2 && retry_in <= NEVER, "{retry_in:?}");
    assert_eq!(metered.calls("eth_blockNumber"), 3, "what did not fit was not sent");
}

#[tokio::test]
async fn calls_over_the_rate_go_to_the_next_endpoint_and_wait_when_there_is_none() {
    let (limited, free) = (Server::start().await, Server::start().await);
    let limited_spec = |rate| EndpointSpec { rate_per_second: Some(rate), ..spec(&limited) };
    let both = pool(vec![limited_spec(2), after(1, &free)], without_hedges());
    // They go out when a second's worth of calls may, and the next waits for ten seconds.
    let batch = both.batch(&vec![question(); 20]).await.unwrap();
    assert_eq!(both.name_of(batch.from), limited.url());
    assert_eq!(ask(&both).await, free.url());

    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let alone = Pool::connect("devnet", CHAIN_ID, vec![limited_spec(50)], options(), &metrics);
    let started = Instant::now();
    for _ in 0..60 {
        assert_eq!(ask(&alone).await, limited.url());
    }
    assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());
    let waited = value(&registry, "shepherd_endpoint_rate_limit_wait_seconds_total");
    assert!((0.1..5.0).contains(&waited), "{waited}");
}

#[tokio::test]
async fn an_endpoint_must_have_the_genesis_that_is_expected() {
    let (ours, other) = (Server::start().await, Server::start().await);
    other.state().genesis = B256::repeat_byte(0xbb);
    let mismatch = ChainMismatch::Genesis { seen_before: GENESIS, endpoint: [0xbb; 32].into() };

    let given = pool(vec![spec(&other), spec(&ours)], options());
    given.expect_genesis(GENESIS);
    assert_eq!(ask(&given).await, ours.url());
    assert_eq!(given.status()[0].state, EndpointState::WrongChain(mismatch));

    let learned = pool(vec![spec(&other)], options());
    assert_eq!(learned.genesis(), None);
    assert_eq!(ask(&learned).await, other.url());
    assert_eq!(learned.genesis(), Some(B256::repeat_byte(0xbb)));
    learned.expect_genesis(GENESIS);
    let error = learned.batch(&[question()]).await.unwrap_err();
    assert_eq!(error, PoolError::WrongChain { endpoint: other.url(), source: mismatch });
}

#[tokio::test]
async fn an_endpoint_is_asked_once_what_it_is_able_to_do() {
    let (able, limited) = (Server::start().await, Server::start().await);
    let head = json!({ "number": "0x2710", "hash": B256::repeat_byte(9) });
    for (method, result) in [
        ("eth_getBlockByNumber", head.clone()),
        ("eth_getLogs", json!([])),
        ("eth_getBlockReceipts", json!([])),
        ("eth_getBalance", json!("0x0")),
    ] {
        able.state().results.insert(method, Ok(result));
    }
    limited.state().results.insert("eth_getBlockByNumber", Err((-32602, "no tag".to_owned())));
    limited.state().batch_calls_max = 10;
    let with_probe = Options { probe: true, ..options() };
    let pool = pool(vec![spec(&able), spec(&limited)], with_probe);
    let ids = pool.endpoints();
    for _ in 0..5 {
        for id in &ids {
            pool.ask(*id, &[question()]).await.unwrap();
        }
    }
    until(|| ids.iter().all(|id| pool.capabilities(*id).is_some())).await;
    let expected = [
        Capabilities {
            logs_by_hash: true,
            finalized_tag: true,
            block_receipts: true,
            batch_calls: 100,
            archive_depth: ArchiveDepth::Full,
        },
        Capabilities {
            logs_by_hash: false,
            finalized_tag: false,
            block_receipts: false,
            batch_calls: 7,
            archive_depth: ArchiveDepth::Unknown,
        },
    ];
    assert_eq!(ids.iter().map(|id| pool.capabilities(*id).unwrap()).collect::<Vec<_>>(), expected);
    assert_eq!((able.calls("eth_getLogs"), able.calls("eth_getBlockReceipts")), (1, 1));
    let checked = pool.check().await;
    let checked: Vec<_> = checked.into_iter().map(|check| check.capabilities.unwrap()).collect();
    assert_eq!(checked, expected);
}

#[tokio::test]
async fn nobody_is_asked_what_it_is_able_to_do_unless_that_is_wanted() {
    let server = Server::start().await;
    let pool = pool(vec![spec(&server)], options());
    for _ in 0..5 {
        ask(&pool).await;
    }
    assert_eq!(pool.capabilities(pool.endpoints()[0]), None);
    assert_eq!((server.calls("eth_chainId"), server.calls("eth_getLogs")), (1, 0));
}

#[tokio::test]
async fn an_answer_that_is_too_large_does_not_silence_who_gave_it() {
    let server = Server::start().await;
    server.state().results.insert("eth_getLogs", Ok(Value::from("x".repeat(10_000))));
    let pool = pool(vec![spec(&server)], Options { body_bytes_max: 5_000, ..options() });
    ask(&pool).await;
    let logs = Call { method: "eth_getLogs", params: json!([]) };
    let error = pool.batch(&[logs]).await.unwrap_err();
    let PoolError::NoAnswer { failures, .. } = error else { panic!("{error}") };
    assert_eq!(failures[0].1, Failure::TooLarge { limit_bytes: 5_000 });
    assert_eq!(pool.status()[0].state, EndpointState::Ready);
    ask(&pool).await;
}

#[tokio::test]
async fn what_an_endpoint_is_doing_shows_in_the_metrics() {
    let (slow, quick) = (Server::start().await, Server::start().await);
    let budget = Some(Budget { calls: 1_000, per: NEVER });
    let specs = vec![spec(&slow), EndpointSpec { budget, ..spec(&quick) }];
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let pool = Pool::connect("devnet", CHAIN_ID, specs, options(), &metrics);
    for _ in 0..10 {
        ask(&pool).await;
    }
    slow.hold();
    assert_eq!(ask(&pool).await, quick.url());
    pool.report_lagging(pool.endpoints()[0], 3);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let of = |server: &Server| format!(r#"chain="devnet",endpoint="{}""#, server.url());
    for line in [
        format!(r#"shepherd_endpoint_state{{{},state="lagging"}} 1"#, of(&slow)),
        format!(r#"shepherd_endpoint_state{{{},state="ready"}} 1"#, of(&quick)),
        format!(r#"shepherd_endpoint_behind_blocks{{{}}} 3"#, of(&slow)),
        format!(r#"shepherd_endpoint_in_flight{{{}}} 0"#, of(&slow)),
        format!(r#"shepherd_endpoint_budget_left{{{}}} 997"#, of(&quick)),
        format!(r#"shepherd_endpoint_hedges_total{{{},outcome="won"}} 1"#, of(&quick)),
        format!(
            r#"shepherd_endpoint_calls_total{{{},method="eth_blockNumber",outcome="answered"}} 10"#,
            of(&slow)
        ),
    ] {
        assert!(text.lines().any(|shown| shown.starts_with(&line)), "{line} in\n{text}");
    }
    assert!(text.contains(&format!("shepherd_endpoint_health{{{}}}", of(&slow))), "{text}");
    assert!(!text.contains(&format!("shepherd_endpoint_health{{{}}}", of(&quick))), "{text}");
    drop(pool);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    assert!(!text.contains("shepherd_endpoint_state{"), "who is gone has no state: {text}");
}

/// The value of a metric that has one.
fn value(registry: &Registry, name: &str) -> f64 {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}
