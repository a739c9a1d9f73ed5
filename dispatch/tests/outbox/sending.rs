//! One promise at a time.

use std::time::Duration;

use alloy_primitives::B256;
use serde_json::{Value, json};
use shepherd_dispatch::{Destinations, Sender, SenderError};
use shepherd_log::{
    Deliver, Effect, EffectKey, EffectResult, Journal, Lane, OutboxState, Outcome, Store,
};
use shepherd_orderbook::{Config, Fault, Orderbook, Route, Rule};
use shepherd_rpc::Pool;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    bench::*,
    hook::{Hook, answer},
    wire::sha256,
};

/// A lane that has asked for something.
struct Rig {
    lane: Lane,
    journal: Journal,
    shutdown: CancellationToken,
    running: Option<JoinHandle<Result<(), SenderError>>>,
    // Dropped last.
    _store: Store,
    dir: Scratch,
}

/// A directory that outlives a test that failed: its sender may still run, and a store whose
/// directory is gone ends the process.
struct Scratch(tempfile::TempDir);

impl Drop for Scratch {
    fn drop(&mut self) {
        self.0.disable_cleanup(std::thread::panicking());
    }
}

impl Rig {
    /// A lane whose first block asks for these.
    fn asking(effects: Vec<Effect>) -> Rig {
        let dir = Scratch(scratch());
        let (store, journal, lane) = open(dir.0.path());
        let shutdown = CancellationToken::new();
        let mut rig = Rig { lane, journal, shutdown, running: None, _store: store, dir };
        rig.ask(effects);
        rig
    }

    /// One block more, which asks for these.
    fn ask(&mut self, effects: Vec<Effect>) {
        let block = append_block(&self.journal, 0);
        self.catch_up(|at| if at == block { effects.clone() } else { Vec::new() });
    }

    fn catch_up(&mut self, asks: impl Fn(shepherd_log::BlockRef) -> Vec<Effect>) {
        catch_up(&mut self.lane, &asks);
    }

    fn run(&mut self, destinations: Destinations) {
        self.run_sender(sender(&self.lane, destinations));
    }

    fn run_sender(&mut self, sender: Sender) {
        self.running = Some(tokio::spawn(sender.run(self.shutdown.clone())));
    }

    /// Stops the sender as a crash does.
    async fn kill(&mut self) {
        let running = self.running.take().expect("it runs");
        running.abort();
        assert!(running.await.is_err_and(|error| error.is_cancelled()));
    }

    /// Stops the sender as a shutdown does.
    async fn stop(&mut self) {
        self.shutdown.cancel();
        let running = self.running.take().expect("it runs");
        timeout(PATIENCE, running).await.expect("it stops").unwrap().unwrap();
        self.shutdown = CancellationToken::new();
    }

    /// Waits until so many effects are unsettled, and returns what came of the others.
    async fn until_left(&mut self, left: usize) -> Vec<Outcome> {
        let outbox = self.lane.outbox();
        let mut changes = outbox.watch();
        let reached = changes.wait_for(|_| outbox.unsettled().len() == left);
        tokio::select! {
            reached = timeout(PATIENCE, reached) => match reached {
                Ok(reached) => drop(reached.unwrap()),
                Err(_) => panic!("still there: {:?}", outbox.unsettled()),
            },
            ended = self.running.as_mut().expect("it runs") => panic!("it ended: {ended:?}"),
        }
        outcomes(&self.journal)
    }

    /// What came of everything, in words.
    async fn results(&mut self) -> Vec<String> {
        self.until_left(0).await.iter().map(word).collect()
    }
}

fn word(outcome: &Outcome) -> String {
    match &outcome.result {
        EffectResult::Refused(refusal) => {
            let error_type = refusal.error_type.as_deref().unwrap_or("-");
            format!("refused {} {error_type}", refusal.status)
        }
        EffectResult::Cancelled(why) => format!("cancelled: {why}"),
        result => result.kind().to_owned(),
    }
}

fn in_an_hour() -> u32 {
    (now_seconds() + 3600) as u32
}

async fn orderbook(rules: Vec<Rule>) -> Orderbook {
    Orderbook::start(Config { rules, ..Config::default() }).await.unwrap()
}

fn to(orderbook: &Orderbook) -> Destinations {
    to_orderbook(orderbook.url().as_str())
}

/// What goes wrong with the first posts of each order.
fn first(posts: u64, fault: Fault) -> Rule {
    Rule { first_attempts: Some(posts), ..Rule::always(fault) }
}

fn posts_of(orderbook: &Orderbook, effect: &Effect) -> u64 {
    orderbook.stats().orders.get(&uid(effect)).map_or(0, |order| order.posts)
}

#[tokio::test]
async fn an_order_is_posted_once_and_its_outcome_says_so() {
    let orderbook = orderbook(Vec::new()).await;
    let effect = order(1, in_an_hour());
    let mut rig = Rig::asking(vec![effect.clone()]);
    rig.run(to(&orderbook));
    let outcomes = rig.until_left(0).await;
    let [outcome] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert_eq!((outcome.result.clone(), outcome.attempts), (EffectResult::Accepted, 1));
    assert_eq!((outcome.key.clone(), outcome.head), (effect.key.clone(), block_ref(0, 0)));
    let stats = orderbook.stats();
    let order = &stats.orders[&uid(&effect)];
    assert_eq!((order.posts, order.accepted), (1, 1));
    assert_eq!(order.bodies.keys().collect::<Vec<_>>(), [&sha256(&effect.body)]);
    rig.stop().await;
}

#[tokio::test]
async fn each_answer_comes_to_what_it_means() {
    let refused = |error_type: &str| Fault::Refuse { error_type: error_type.to_owned() };
    let busy = |retry_after_seconds| Fault::TooManyRequests { retry_after_seconds };
    for (rules, result, posts) in [
        (vec![], "accepted", 1),
        // The order is there, and nobody was told: the next attempt is a duplicate.
        (vec![first(1, Fault::AcceptThenDrop)], "already-there", 2),
        (vec![first(2, Fault::AcceptThenServerError { status: 502 })], "already-there", 3),
        (vec![first(3, Fault::Drop)], "accepted", 4),
        (vec![first(3, Fault::ServerError { status: 503 })], "accepted", 4),
        (vec![first(2, busy(None))], "accepted", 3),
        (vec![first(1, busy(Some(1)))], "accepted", 2),
        // Longer than the order is valid.
        (vec![first(9, busy(Some(7200)))], "refused 429 -", 1),
        (vec![first(9, refused("InsufficientBalance"))], "refused 400 InsufficientBalance", 1),
        (vec![first(9, refused("Forbidden"))], "refused 403 Forbidden", 1),
        (vec![first(9, refused("NeverHeardOf"))], "refused 400 NeverHeardOf", 1),
    ] {
        let orderbook = orderbook(rules.clone()).await;
        let effect = order(1, in_an_hour());
        let mut rig = Rig::asking(vec![effect.clone()]);
        rig.run(to(&orderbook));
        assert_eq!(rig.results().await, [result], "{rules:?}");
        assert_eq!(posts_of(&orderbook, &effect), posts, "{rules:?}");
        assert_eq!(outcomes(&rig.journal)[0].attempts, posts as u32, "{rules:?}");
        rig.stop().await;
    }
}

/// A no after a lost answer is about the order that is there already.
#[tokio::test]
async fn a_refusal_after_a_lost_answer_counts_only_when_the_order_is_not_there() {
    let no_money = || Fault::Refuse { error_type: "InsufficientBalance".to_owned() };
    for (lost, result) in [
        (Fault::AcceptThenDrop, "accepted"),
        (Fault::AcceptThenServerError { status: 500 }, "accepted"),
        (Fault::Drop, "refused 400 InsufficientBalance"),
    ] {
        // The orderbook is slow to say whether it is there, too.
        let slow = Rule { route: Route::GetOrder, ..first(2, Fault::ServerError { status: 503 }) };
        let orderbook = orderbook(vec![first(1, lost.clone()), first(9, no_money()), slow]).await;
        let mut rig = Rig::asking(vec![order(1, in_an_hour())]);
        rig.run(to(&orderbook));
        assert_eq!(rig.results().await, [result], "{lost:?}");
        assert_eq!(orderbook.stats().requests[&Route::GetOrder].values().sum::<u64>(), 3);
        rig.stop().await;
    }
}

#[tokio::test]
async fn an_order_whose_time_is_over_expires() {
    let down = || Rule::always(Fault::ServerError { status: 503 });
    // Its validity is no matter here: it is never looked at.
    let soon = |number| Effect { expires: now_seconds() + 2, ..order(number, in_an_hour()) };
    let orderbook = orderbook(vec![down()]).await;
    let mut rig = Rig::asking(vec![soon(1)]);
    rig.run(to(&orderbook));
    assert_eq!(rig.results().await, ["expired"]);
    rig.stop().await;

    // There after all, and nobody was told.
    let lost = Rule::always(Fault::AcceptThenServerError { status: 502 });
    orderbook.set_rules(vec![lost]).unwrap();
    let mut rig = Rig::asking(vec![soon(2)]);
    rig.run(to(&orderbook));
    assert_eq!(rig.results().await, ["accepted"]);
    rig.stop().await;

    let over = Effect { expires: now_seconds(), ..order(3, in_an_hour()) };
    let mut rig = Rig::asking(vec![over.clone()]);
    rig.run(to(&orderbook));
    assert_eq!(rig.results().await, ["expired"]);
    assert_eq!(posts_of(&orderbook, &over), 0);
    rig.stop().await;
}

#[tokio::test]
async fn what_the_orderbook_has_is_answered_without_asking_it_again() {
    let orderbook = orderbook(Vec::new()).await;
    let effect = order(1, in_an_hour());
    let mut rig = Rig::asking(vec![effect.clone(), effect.clone()]);
    rig.run(to(&orderbook));
    assert_eq!(rig.results().await, ["accepted", "already-there"]);
    rig.ask(vec![effect.clone()]);
    assert_eq!(rig.results().await, ["accepted", "already-there", "already-there"]);
    assert_eq!(posts_of(&orderbook, &effect), 1);
    assert_eq!(outcomes(&rig.journal)[2].attempts, 0);
    rig.stop().await;
}

#[tokio::test]
async fn what_was_refused_may_be_asked_for_again() {
    let no_money = Fault::Refuse { error_type: "InsufficientBalance".to_owned() };
    let orderbook = orderbook(vec![first(1, no_money)]).await;
    let effect = order(1, in_an_hour());
    let mut rig = Rig::asking(vec![effect.clone()]);
    rig.run(to(&orderbook));
    assert_eq!(rig.results().await, ["refused 400 InsufficientBalance"]);
    rig.ask(vec![effect.clone()]);
    assert_eq!(rig.results().await, ["refused 400 InsufficientBalance", "accepted"]);
    rig.stop().await;
}

#[tokio::test]
async fn dry_run_sends_nothing_and_keeps_nothing_in_mind() {
    let orderbook = orderbook(Vec::new()).await;
    let effect = order(1, in_an_hour());
    let mut rig = Rig::asking(vec![effect.clone(), alert("a", "{}")]);
    rig.run(Destinations { dry_run: true, ..to(&orderbook) });
    assert_eq!(rig.results().await, ["dry-run", "dry-run"]);
    assert_eq!(posts_of(&orderbook, &effect), 0);
    assert!(!rig.lane.outbox().is_done(&effect.key).unwrap());
    rig.stop().await;
}

#[tokio::test]
async fn an_effect_waits_for_its_confirmations_and_the_others_do_not() {
    let orderbook = orderbook(Vec::new()).await;
    let patient = Effect { deliver: Deliver::Confirmations(2), ..order(1, in_an_hour()) };
    let mut rig = Rig::asking(vec![patient.clone(), order(2, in_an_hour())]);
    rig.run(to(&orderbook));
    rig.until_left(1).await;
    rig.ask(vec![]);
    // Not an absence of time: this order is behind the patient one, and it is through.
    rig.ask(vec![order(3, in_an_hour())]);
    assert_eq!(rig.results().await, ["accepted", "accepted", "accepted"]);
    let settled = outcomes(&rig.journal);
    let patient = settled.iter().find(|outcome| outcome.key == patient.key).unwrap();
    assert_eq!(patient.head.number, 2, "not before");
    rig.stop().await;
}

#[tokio::test]
async fn without_an_endpoint_a_block_is_final_when_it_is_too_deep_to_be_taken_back() {
    let orderbook = orderbook(Vec::new()).await;
    let patient = Effect { deliver: Deliver::Finalized, ..order(1, in_an_hour()) };
    let mut rig = Rig::asking(vec![]);
    rig.ask(vec![patient]);
    rig.run(to(&orderbook));
    for number in 2..=REORG_DEPTH_MAX {
        rig.ask(vec![order(number, in_an_hour())]);
        rig.until_left(1).await;
    }
    rig.ask(vec![]);
    rig.until_left(0).await;
    rig.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_knows_what_is_final_is_asked_and_only_when_something_waits() {
    let height = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let says = height.clone();
    let node = Hook::answering(Box::new(move |asked| {
        let answer_one = |call: &Value| {
            let result = match (call["method"].as_str(), call["params"][0].as_str()) {
                (Some("eth_chainId"), _) => json!(format!("{CHAIN_ID:#x}")),
                (_, Some("finalized")) => {
                    let height = says.load(std::sync::atomic::Ordering::Relaxed);
                    json!({ "number": format!("{height:#x}") })
                }
                _ => json!({ "hash": B256::ZERO }),
            };
            json!({ "jsonrpc": "2.0", "id": call["id"], "result": result })
        };
        let asked: Value = serde_json::from_str(&asked.body).unwrap();
        let said = match asked.as_array() {
            Some(calls) => calls.iter().map(answer_one).collect(),
            None => answer_one(&asked),
        };
        answer(200, "", &said.to_string())
    }))
    .await;
    let metrics = shepherd_rpc::Metrics::new(&mut prometheus_client::registry::Registry::default());
    let urls = vec![node.url("/").parse().unwrap()];
    let options = shepherd_rpc::Options::default();
    let pool = Pool::connect(CHAIN, CHAIN_ID, urls, options, &metrics);

    let orderbook = orderbook(Vec::new()).await;
    let patient = Effect { deliver: Deliver::Finalized, ..order(1, in_an_hour()) };
    let mut rig = Rig::asking(vec![order(2, in_an_hour())]);
    let metrics = shepherd_dispatch::Metrics::unregistered();
    let sender =
        Sender::new(rig.lane.outbox(), pool, REORG_DEPTH_MAX, to(&orderbook), swift(), metrics);
    rig.run_sender(sender);
    rig.until_left(0).await;
    assert_eq!(node.received(), [], "nothing waits for it");
    rig.ask(vec![patient]);
    let asked = node.until(2).await;
    assert!(asked[1].body.contains("finalized"), "{asked:?}");
    height.store(1, std::sync::atomic::Ordering::Relaxed);
    rig.ask(vec![]);
    rig.until_left(0).await;
    assert_eq!(node.received().len(), 3, "once for each head");
    rig.stop().await;
}

#[tokio::test]
async fn what_a_reorg_took_back_is_looked_for_and_not_posted() {
    let orderbook = orderbook(vec![Rule::always(Fault::AcceptThenDrop)]).await;
    let mut rig = Rig::asking(vec![]);
    let (there, lost) = (order(1, in_an_hour()), order(2, in_an_hour()));
    rig.ask(vec![there.clone(), lost.clone(), alert("a", "{}"), order(3, in_an_hour())]);
    // One has arrived, two may have, the last has not been tried.
    let outbox = rig.lane.outbox();
    let ids: Vec<_> = outbox.unsettled().iter().map(|entry| entry.id).collect();
    let allowed = outbox.attempt(&ids[..3]);
    assert_eq!(allowed, ids[..3]);
    post(&orderbook, &there).await;
    append_revert(&rig.journal);
    rig.catch_up(|_| Vec::new());
    let states: Vec<_> = outbox.unsettled().iter().map(|entry| entry.state).collect();
    assert_eq!(states, [OutboxState::Orphaned; 3]);
    rig.run(to(&orderbook));
    let mut results = rig.results().await;
    results.sort();
    let unknown = "cancelled: its block was taken back; whether it arrived is not known";
    assert_eq!(results, ["accepted", "cancelled: its block was taken back", unknown]);
    assert_eq!((posts_of(&orderbook, &there), posts_of(&orderbook, &lost)), (1, 0));
    rig.stop().await;
}

#[tokio::test]
async fn a_reorg_the_lane_has_not_come_to_yet_keeps_its_effects_back() {
    let orderbook = orderbook(Vec::new()).await;
    let (stays, taken_back) = (order(1, in_an_hour()), order(2, in_an_hour()));
    let mut rig = Rig::asking(vec![stays.clone()]);
    rig.ask(vec![taken_back.clone()]);
    append_revert(&rig.journal);
    rig.run(to(&orderbook));
    // Both could have gone at once.
    rig.until_left(1).await;
    assert_eq!(rig.lane.outbox().unsettled()[0].state, OutboxState::Waiting);
    rig.catch_up(|_| Vec::new());
    assert_eq!(rig.results().await, ["accepted"], "of the other nothing has come");
    assert_eq!((posts_of(&orderbook, &stays), posts_of(&orderbook, &taken_back)), (1, 0));
    rig.stop().await;
}

async fn post(orderbook: &Orderbook, effect: &Effect) {
    let url: shepherd_rpc::Redacted = orderbook.url().as_str().parse().unwrap();
    let request = shepherd_rpc::WebRequest {
        url: &url.below(&["api", "v1", "orders"]),
        headers: &[],
        body: Some(effect.body.clone().into()),
        time_max: Duration::from_secs(10),
        answer_bytes_max: 0,
    };
    // Whatever it answers, or not.
    let _ = shepherd_rpc::Web::new().send(request).await;
}

#[tokio::test]
async fn a_webhook_carries_its_key_and_the_same_bytes_each_time() {
    let hook = Hook::scripted([answer(500, "", ""), answer(429, "Retry-After: 0\r\n", "")]).await;
    let body = r#"{"text":  "crossed"}"#;
    let mut rig = Rig::asking(vec![alert("k-1", body)]);
    rig.run(to_webhooks([("alerts", &hook.url("/s3cret?token=1"))]));
    assert_eq!(rig.results().await, ["accepted"]);
    let received = hook.received();
    assert_eq!(received.len(), 3);
    for one in &received {
        assert!(one.head.starts_with("POST /s3cret?token=1 HTTP/1.1\r\n"), "{}", one.head);
        assert_eq!(one.header("idempotency-key"), Some("k-1"));
        assert_eq!(one.header("content-type"), Some("application/json"));
        assert_eq!(one.body, body);
    }
    assert_eq!(received[0].head, received[1].head);
    rig.stop().await;
}

#[tokio::test]
async fn calls_of_one_webhook_arrive_in_order_and_one_at_a_time() {
    let hook = Hook::scripted([answer(503, "", ""), answer(200, "", ""), answer(403, "", "no")]);
    let hook = hook.await;
    hook.hold();
    let mut rig = Rig::asking(["1", "2", "3"].map(|key| alert(key, key)).to_vec());
    rig.run(to_webhooks([("alerts", &hook.url("/"))]));
    for count in 1..=4 {
        assert_eq!(hook.until(count).await.len(), count);
        hook.release(1);
    }
    assert_eq!(rig.results().await, ["accepted", "refused 403 -", "accepted"]);
    let bodies: Vec<String> = hook.received().into_iter().map(|one| one.body).collect();
    assert_eq!(bodies, ["1", "1", "2", "3"]);
    rig.stop().await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Hook::scripted([]).await;
    let to = format!("Location: {}\r\n", elsewhere.url("/"));
    let hook = Hook::scripted([answer(307, &to, ""), answer(308, &to, "")]).await;
    let mut rig = Rig::asking(vec![alert("1", "{}")]);
    rig.run(to_webhooks([("alerts", &hook.url("/"))]));
    assert_eq!(rig.results().await, ["accepted"]);
    assert_eq!((hook.received().len(), elsewhere.received().len()), (3, 0));
    rig.stop().await;
}

#[tokio::test]
async fn a_webhook_without_a_url_waits_for_the_operator() {
    let orderbook = orderbook(Vec::new()).await;
    let mut rig = Rig::asking(vec![alert("1", "{}"), order(1, in_an_hour())]);
    rig.run(to(&orderbook));
    assert_eq!(rig.until_left(1).await.iter().map(word).collect::<Vec<_>>(), ["accepted"]);
    rig.stop().await;
    let hook = Hook::scripted([]).await;
    rig.run(to_webhooks([("alerts", &hook.url("/"))]));
    assert_eq!(rig.results().await, ["accepted", "accepted"]);
    rig.stop().await;
}

#[tokio::test]
async fn many_orders_are_under_way_at_once_but_not_too_many() {
    // The answer to each post, once it is let go: the UID it is posted under does not matter.
    let orderbook = Hook::answering(Box::new(|_| answer(201, "", "null"))).await;
    orderbook.hold();
    let effects = (0..20).map(|number| order(number, in_an_hour())).collect();
    let mut rig = Rig::asking(effects);
    rig.run(to_orderbook(&orderbook.url("/")));
    assert_eq!(orderbook.until(8).await.len(), 8);
    orderbook.release(1);
    assert_eq!(orderbook.until(9).await.len(), 9);
    orderbook.release(usize::MAX >> 4);
    rig.until_left(0).await;
    rig.stop().await;
}

#[tokio::test]
async fn an_outage_is_waited_out_and_then_everything_arrives() {
    let orderbook = orderbook(Vec::new()).await;
    let effects: Vec<Effect> = (0..30).map(|number| order(number, in_an_hour())).collect();
    let mut rig = Rig::asking(effects.clone());
    let destinations = to(&orderbook);
    let stopped = orderbook.stop().await;
    rig.run(destinations);
    // Long enough for a breaker to open: the first five find out, then one at a time tries.
    let outbox = rig.lane.outbox();
    let mut changes = outbox.watch();
    let tried = changes.wait_for(|_| {
        outbox.unsettled().iter().filter(|one| one.state == OutboxState::Attempted).count() >= 8
    });
    timeout(PATIENCE, tried).await.unwrap().unwrap();
    let orderbook = stopped.start().await.unwrap();
    let results = rig.results().await;
    assert_eq!(results, vec!["accepted"; 30]);
    assert!(effects.iter().all(|effect| posts_of(&orderbook, effect) == 1));
    rig.stop().await;
}

#[tokio::test]
async fn a_shutdown_waits_for_the_answer_that_is_on_its_way() {
    let orderbook = Hook::answering(Box::new(|_| answer(201, "", "null"))).await;
    orderbook.hold();
    let mut rig = Rig::asking(vec![order(1, in_an_hour())]);
    rig.run(to_orderbook(&orderbook.url("/")));
    orderbook.until(1).await;
    let (shutdown, running) = (rig.shutdown.clone(), rig.running.take().unwrap());
    shutdown.cancel();
    orderbook.release(1);
    timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
    assert_eq!(outcomes(&rig.journal).iter().map(word).collect::<Vec<_>>(), ["accepted"]);
}

#[tokio::test]
async fn what_was_unanswered_at_a_crash_is_posted_again_in_the_same_words() {
    let orderbook = Hook::answering(Box::new(|_| answer(201, "", "null"))).await;
    orderbook.hold();
    let effect = order(1, in_an_hour());
    let mut rig = Rig::asking(vec![effect.clone()]);
    rig.run(to_orderbook(&orderbook.url("/")));
    orderbook.until(1).await;
    rig.kill().await;
    let Rig { lane, journal, _store: store, dir, .. } = rig;
    drop((lane, journal, store));
    let (store, journal, lane) = open(dir.0.path());
    assert_eq!(lane.outbox().unsettled()[0].state, OutboxState::Attempted);
    let shutdown = CancellationToken::new();
    let mut rig = Rig { lane, journal, shutdown, running: None, _store: store, dir };
    rig.run(to_orderbook(&orderbook.url("/")));
    orderbook.until(2).await;
    orderbook.release(2);
    let settled = rig.until_left(0).await;
    assert_eq!(settled[0].attempts, 2, "one of them by the process before");
    let received = orderbook.received();
    assert_eq!(received[0], received[1], "head and body");
    assert_eq!(received[0].body.as_bytes(), effect.body);
    rig.stop().await;
}

#[tokio::test]
async fn an_orderbook_of_another_contract_is_found_out() {
    let other = json!(format!("0x{}", "ab".repeat(56))).to_string();
    let orderbook = Hook::answering(Box::new(move |_| answer(201, "", &other))).await;
    let effect = order(1, in_an_hour());
    let mut rig = Rig::asking(vec![effect.clone()]);
    rig.run(to_orderbook(&orderbook.url("/")));
    assert_eq!(rig.results().await, ["refused 201 -"]);
    assert!(matches!(effect.key, EffectKey::Order(_)));
    rig.stop().await;
}
