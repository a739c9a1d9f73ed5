//! A thousand lives of a sender that is killed, at an orderbook that fails.
//!
//! Each run takes its orders, its faults and its kills from a seed. A kill drops the sender and
//! the store at one of four points and opens the store again: before an attempt is durable, after
//! that and before the request arrives, after the orderbook has answered and before we know, and
//! after the outcome is durable. At the end of a run
//!
//! - every effect has one outcome in the journal, and the lane was told once;
//! - the orderbook has every order that it takes once, and none that it refuses;
//! - what was posted for an order was the same bytes each time, those that were asked for;
//! - nothing was posted for an order that was known to be there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use shepherd_log::{BlockRef, Effect, EffectId, EffectKey, EffectResult, Lane, OutboxState};
use shepherd_orderbook::{Clock, Config, Fault, Orderbook, Route, Rule, Uid};
use tokio::runtime;
use tokio_util::sync::CancellationToken;

use crate::{
    bench::*,
    wire::{Pull, Wire, sha256},
};

/// Runs of the test that every change goes through.
const RUNS: u64 = 1_000;

/// Until when orders are valid: fixed, for it is part of the names that faults are drawn by.
const VALID_TO: u32 = 4_000_000_000;

/// What the orderbook says of an order that it would take another time.
const NO_MONEY: &str = "InsufficientBalance";

/// Kills of one run, at most.
const KILLS_MAX: usize = 4;

/// Rounds of one run, which none needs.
const ROUNDS_MAX: usize = 50;

#[derive(Clone, Copy, Debug)]
enum Kill {
    /// Before the attempt is durable.
    BeforeAttempt,
    /// When some attempts are durable and nothing of them has arrived.
    AfterAttempt,
    /// When a request was made, before it arrives.
    BeforePost(u64),
    /// When the orderbook has answered, before the answer arrives.
    AfterPost(u64),
    /// When so many outcomes are durable.
    AfterSettle(usize),
}

/// Everything that a seed decides.
#[derive(Debug)]
struct Scenario {
    /// What each block of the first branch asks for, by its height.
    asks: BTreeMap<u64, Vec<Effect>>,
    /// Orders that somebody else has placed before.
    placed_before: Vec<Effect>,
    rules: Vec<Rule>,
    kills: Vec<Kill>,
    /// Take the last block back after the first kill.
    reorg: bool,
}

impl Scenario {
    fn draw(seed: u64) -> Scenario {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut name = seed * 100;
        let mut draw = |rng: &mut StdRng| {
            name += 1;
            let refused = rng.random_bool(0.15);
            if refused { worthless_order(name, VALID_TO) } else { order(name, VALID_TO) }
        };
        let mut asks = BTreeMap::new();
        for number in 0..2 {
            let count = rng.random_range(1..4);
            asks.insert(number, (0..count).map(|_| draw(&mut rng)).collect::<Vec<_>>());
        }
        if rng.random_bool(0.3) {
            // Asked for again: answered by what came of the first.
            let again = asks[&0][0].clone();
            asks.get_mut(&1).expect("two blocks").push(again);
        }
        let all = asks.values().flatten();
        let placed_before = all.filter(|_| rng.random_bool(0.15)).cloned().collect();
        Scenario {
            asks,
            placed_before,
            rules: rules(&mut rng),
            kills: (0..rng.random_range(1..=KILLS_MAX)).map(|_| kill(&mut rng)).collect(),
            reorg: rng.random_bool(0.2),
        }
    }
}

fn rules(rng: &mut StdRng) -> Vec<Rule> {
    let post = [
        Fault::AcceptThenDrop,
        Fault::AcceptThenServerError { status: 502 },
        Fault::Drop,
        Fault::ServerError { status: 503 },
        Fault::ServerError { status: 500 },
        Fault::TooManyRequests { retry_after_seconds: Some(0) },
        Fault::TooManyRequests { retry_after_seconds: None },
        Fault::Refuse { error_type: NO_MONEY.to_owned() },
        Fault::Latency { ms: 3 },
    ];
    let get = [Fault::Drop, Fault::ServerError { status: 503 }];
    let mut rules = Vec::new();
    for (route, faults) in [(Route::PostOrder, &post[..]), (Route::GetOrder, &get[..])] {
        for fault in faults {
            if rng.random_bool(0.5) {
                let rate = rng.random_range(0.1..0.6);
                // The weather clears up: a run need not be long to be rough.
                let first_attempts = Some(rng.random_range(1..5));
                rules.push(Rule { route, rate, first_attempts, ..Rule::always(fault.clone()) });
            }
        }
    }
    rules
}

fn kill(rng: &mut StdRng) -> Kill {
    match rng.random_range(0..5) {
        0 => Kill::BeforeAttempt,
        1 => Kill::AfterAttempt,
        2 => Kill::BeforePost(rng.random_range(0..4)),
        3 => Kill::AfterPost(rng.random_range(0..4)),
        _ => Kill::AfterSettle(rng.random_range(1..4)),
    }
}

/// Runs a sender until everything is settled or the kill comes. The runtime ends with it, and with
/// that whatever the sender had started.
fn live(lane: &mut Lane, wire: &Wire, kill: Option<Kill>) {
    let outbox = lane.outbox();
    let waiting: Vec<EffectId> = outbox
        .unsettled()
        .iter()
        .filter(|entry| entry.state == OutboxState::Waiting)
        .map(|entry| entry.id)
        .collect();
    let (pull, settled_max) = match kill {
        Some(Kill::BeforeAttempt) => return,
        Some(Kill::AfterAttempt) => {
            outbox.attempt(&waiting);
            return;
        }
        Some(Kill::BeforePost(nth)) => (Pull::BeforePost(nth), 0),
        Some(Kill::AfterPost(nth)) => (Pull::AfterPost(nth), 0),
        Some(Kill::AfterSettle(count)) => (Pull::Never, count),
        None => (Pull::Never, 0),
    };
    wire.plug_in(pull);
    let left = outbox.unsettled().len().saturating_sub(settled_max);
    let left = if settled_max == 0 { 0 } else { left };
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut changes = outbox.watch();
        let sender = sender(lane, to_orderbook(&wire.url()));
        let settled = changes.wait_for(|_| outbox.unsettled().len() <= left);
        tokio::select! {
            ended = sender.run(CancellationToken::new()) => panic!("nobody told it to: {ended:?}"),
            () = wire.pulled() => (),
            settled = settled => drop(settled.unwrap()),
            () = tokio::time::sleep(PATIENCE) => panic!("still there: {:?}", outbox.unsettled()),
        }
    });
}

/// What was posted for each order, as the orderbook counts it.
fn posts(orderbook: &Orderbook) -> BTreeMap<Uid, u64> {
    orderbook.stats().orders.iter().map(|(uid, stats)| (*uid, stats.posts)).collect()
}

fn run(seed: u64, outside: &runtime::Handle) {
    let scenario = Scenario::draw(seed);
    let dir = scratch();
    let asks = |block: BlockRef| match scenario.asks.get(&block.number) {
        Some(effects) if block == block_ref(block.number, 0) => effects.clone(),
        _ => Vec::new(),
    };
    let orderbook = outside.block_on(async {
        let clock = Clock::Fixed(u64::from(VALID_TO) - 3600);
        let config = Config { seed, clock, ..Config::default() };
        let orderbook = Orderbook::start(config).await.unwrap();
        for effect in &scenario.placed_before {
            place(&orderbook, effect).await;
        }
        orderbook.set_rules(scenario.rules.clone()).unwrap();
        orderbook
    });
    let placed = posts(&orderbook);
    let wire = outside.block_on(Wire::to(orderbook.address()));

    let mut kills = scenario.kills.iter().copied();
    let mut known_there: BTreeMap<Uid, u64> = BTreeMap::new();
    let (mut appended, mut reorg) = (0, scenario.reorg);
    for round in 0.. {
        assert!(round < ROUNDS_MAX, "it comes to no end");
        let (store, journal, mut lane) = open(dir.path());
        // What is known to be there is not posted again.
        let so_far = posts(&orderbook);
        for (uid, posts) in &known_there {
            assert_eq!(so_far.get(uid), Some(posts), "{uid} was posted again");
        }
        for outcome in outcomes(&journal).iter().filter(|outcome| outcome.result.is_done()) {
            let EffectKey::Order(uid) = &outcome.key else { panic!("only orders") };
            let uid = Uid::from(uid);
            known_there.insert(uid, so_far.get(&uid).copied().unwrap_or(0));
        }
        if appended < 2 {
            append_block(&journal, 0);
            appended += 1;
        } else if reorg {
            append_revert(&journal);
            append_block(&journal, 1);
            reorg = false;
        }
        catch_up(&mut lane, &asks);
        let kill = kills.next();
        let is_last = kill.is_none() && appended == 2 && !reorg;
        live(&mut lane, &wire, kill);
        drop((lane, journal, store));
        if is_last {
            break;
        }
    }
    check(&scenario, dir.path(), &orderbook, &placed, &wire);
    outside.block_on(async { drop(orderbook.stop().await) });
}

async fn place(orderbook: &Orderbook, effect: &Effect) {
    let url = orderbook.url().as_str().parse::<shepherd_rpc::Redacted>().unwrap();
    let request = shepherd_rpc::WebRequest {
        url: &url.below(&["api", "v1", "orders"]),
        headers: &[],
        body: Some(effect.body.clone().into()),
        time_max: Duration::from_secs(10),
        answer_bytes_max: 1024,
    };
    shepherd_rpc::Web::new().send(request).await.expect("it answers");
}

fn check(
    scenario: &Scenario,
    dir: &std::path::Path,
    orderbook: &Orderbook,
    placed: &BTreeMap<Uid, u64>,
    wire: &Wire,
) {
    let (store, journal, mut lane) = open(dir);
    catch_up(&mut lane, &|_| Vec::new());
    assert_eq!(lane.outbox().unsettled(), [], "nothing is left");
    let stats = orderbook.stats();
    let known = outcomes(&journal);
    let mut of_effect: BTreeMap<EffectId, &EffectResult> = BTreeMap::new();
    for outcome in &known {
        let before = of_effect.insert(outcome.effect, &outcome.result);
        assert_eq!(before, None, "{} has two outcomes", outcome.effect);
        let state = store.lane_snapshot(lane.id()).unwrap().unwrap();
        let told = state.get(&told_key(outcome.effect)).unwrap().map_or(0, |times| times[0]);
        // What was told of a block and taken back with it is told again when it is real.
        let is_nothing = journal.undone_by(outcome.effect.offset, outcome.block.number).is_some()
            && !outcome.result.is_done();
        assert!(told == 1 || (told == 0 && is_nothing), "{} was told {told} times", outcome.effect);
    }
    for (number, effects) in &scenario.asks {
        let offset = journal.offset_of(block_ref(*number, 0)).unwrap().expect("it was appended");
        for (index, effect) in (0..).zip(effects) {
            let id = EffectId { offset, index };
            let uid = uid(effect);
            let posts = stats.orders.get(&uid);
            let all = scenario.asks.values().flatten();
            let is_only_one = all.filter(|other| other.key == effect.key).count() == 1
                && !placed.contains_key(&uid);
            // Unless another effect or somebody else has placed it.
            let is_there = posts.is_some_and(|posts| posts.accepted > 0);
            let is_not_there = !is_there || !is_only_one;
            let is_worthless = effect.body.windows(15).any(|bytes| bytes == br#""buyAmount":"0""#);
            let may_be_taken_back = scenario.reorg && *number == 1;
            match of_effect.get(&id) {
                // Its block was taken back before it was sent: it is as if it had not been.
                None => {
                    let before = placed.get(&uid).copied().unwrap_or(0);
                    let is_unsent = posts.map_or(0, |posts| posts.posts) == before;
                    assert!(may_be_taken_back, "{id} is lost");
                    assert!(is_unsent || !is_only_one, "{id} was sent and is forgotten");
                }
                Some(result) if result.is_done() => assert!(is_there && !is_worthless, "{id}"),
                Some(EffectResult::Refused(refusal)) => {
                    let error_type = refusal.error_type.as_deref();
                    let expected = error_type == Some(NO_MONEY)
                        || (is_worthless && error_type == Some("ZeroAmount"));
                    assert!(expected && is_not_there, "{id}: {refusal:?}");
                }
                Some(EffectResult::Cancelled(_)) => {
                    assert!(may_be_taken_back && is_not_there, "{id}");
                }
                Some(result) => panic!("{id} came to {result:?}"),
            }
            let Some(posts) = posts else { continue };
            assert!(posts.accepted <= 1, "{uid} was accepted twice");
            let bodies: BTreeSet<_> = posts.bodies.keys().copied().collect();
            assert_eq!(bodies, BTreeSet::from([sha256(&effect.body)]), "the same bytes each time");
        }
    }
    let asked: BTreeSet<&Vec<u8>> =
        scenario.asks.values().flatten().map(|effect| &effect.body).collect();
    assert!(wire.bodies().keys().all(|body| asked.contains(body)), "nothing else was posted");
    assert!(wire.heads().len() <= 1, "under the same headers: {:?}", wire.heads());
}

#[test]
fn a_thousand_lives_lose_nothing_and_send_the_same_bytes() {
    let seeds: Vec<u64> = match std::env::var("SHEPHERD_SEED") {
        Ok(seed) => vec![seed.parse().expect("SHEPHERD_SEED is a number")],
        Err(_) => {
            let first = rand::random_range(0..1 << 40);
            (first..first + RUNS).collect()
        }
    };
    let outside = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outside = outside.unwrap();
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let failed = Failed { seed: *seed, next: &next };
                    run(*seed, outside.handle());
                    std::mem::forget(failed);
                }
            });
        }
    });
}

/// Says which seed repeats a run that panicked, and lets no other one begin.
struct Failed<'f> {
    seed: u64,
    next: &'f AtomicU64,
}

impl Drop for Failed<'_> {
    fn drop(&mut self) {
        self.next.store(RUNS, Ordering::Relaxed);
        println!("repeat with SHEPHERD_SEED={}", self.seed);
    }
}
