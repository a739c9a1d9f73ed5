//! The API from outside: a real store behind a bound port, asked byte by byte.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use alloy_primitives::{Address, B256};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use shepherd_admin::{
    ChainReport, LaneReport, Metrics, Sources,
    view::{EndpointView, StateView},
};
use shepherd_log::{
    Applied, Block, BlockRef, Deliver, Effect, EffectId, EffectKey, EffectResult, Header, LaneId,
    Log, Offset, Options, OutboxEntry, Record, RecordView, Refusal, Retention, Revert, Settled,
    Store, Writes,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A server on a journal of `[blk 10] [blk 11] [blk 12] [rev to 11] [blk 12'] [blk 13']`, whose
/// lane has applied the first two.
struct Api {
    port: u16,
    store: Store,
    chain_state: Arc<Mutex<StateView>>,
    lane_state: Arc<Mutex<StateView>>,
    shutdown: CancellationToken,
    serving: Option<JoinHandle<()>>,
    _dir: TempDir,
}

const LANE: &str = "toy@testnet";

/// Height of a block that the check of this API's owner finds wrong.
const UNSOUND: u64 = 14;

fn block(number: u64, branch: u8, parent: B256) -> Record {
    let this = BlockRef { number, hash: hash(number, branch) };
    let header = Header { this, parent, timestamp: 1_700_000_000, rlp: vec![0xc0].into() };
    Record::Block(Block { header, logs: Vec::new() })
}

fn hash(number: u64, branch: u8) -> B256 {
    B256::left_padding_from(&[branch, number as u8])
}

fn records() -> Vec<Record> {
    let old = BlockRef { number: 12, hash: hash(12, 0) };
    let ancestor = BlockRef { number: 11, hash: hash(11, 0) };
    vec![
        block(10, 0, B256::ZERO),
        block(11, 0, hash(10, 0)),
        block(12, 0, hash(11, 0)),
        Record::Revert(Revert { ancestor, abandoned: vec![old] }),
        block(12, 1, hash(11, 0)),
        block(13, 1, hash(12, 1)),
    ]
}

impl Api {
    fn start() -> Api {
        let dir = TempDir::new().unwrap();
        let store = Store::open(dir.path(), Options::default()).unwrap();
        let journal = store.journal(&"testnet".parse().unwrap(), 31337).unwrap();
        journal.append(journal.tail().offset, &records()).unwrap();
        apply_two_blocks(&store);
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let chain_state = Arc::new(Mutex::new(StateView::new("following", None, None)));
        let waiting = StateView::new("waiting", Some("a node".to_owned()), None);
        let lane_state = Arc::new(Mutex::new(waiting));
        let (reported, reported_lane) = (chain_state.clone(), lane_state.clone());
        let sources = Sources {
            store: store.clone(),
            check: Box::new(|_, block| match block.this.number {
                UNSOUND => Err("does not hash to its hash".to_owned()),
                _ => Ok(()),
            }),
            chains: Box::new(move || vec![chain_report(reported.lock().unwrap().clone())]),
            lanes: Box::new(move || {
                let state = reported_lane.lock().unwrap().clone();
                vec![(LANE.parse().unwrap(), LaneReport { state, faults: 3 })]
            }),
            metrics,
            registry,
        };
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                shepherd_admin::serve(listener, sources, stop).await;
            });
        });
        Api { port, store, chain_state, lane_state, shutdown, serving: Some(serving), _dir: dir }
    }

    /// Status, headers in lower case and body of a GET.
    fn get(&self, path: &str) -> (u16, String, String) {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost:{}\r\n", self.port))
    }

    fn json(&self, path: &str) -> Value {
        let (status, _, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    fn send(&self, head: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(stream, "{head}connection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), body.to_owned())
    }

    /// Expects a problem whose detail contains `detail`.
    fn check_problem(&self, answer: (u16, String, String), status: u16, detail: &str) {
        let (found, head, body) = answer;
        assert_eq!(found, status, "{body}");
        assert!(head.contains("content-type: application/problem+json"), "{head}");
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.shutdown.cancel();
        let served = self.serving.take().expect("stopped once").join();
        assert!(served.is_ok() || std::thread::panicking(), "the server panicked");
    }
}

fn chain_report(state: StateView) -> ChainReport {
    let endpoint = EndpointView {
        url: "http://127.0.0.1:8545".to_owned(),
        priority: 0,
        state: "ready".to_owned(),
        health: Some(1.0),
        latency_ms: None,
        behind_blocks: 0,
        last_error: None,
        evidence: None,
        calls: 7,
        calls_left: None,
        failures_in_a_row: 0,
        capabilities: None,
    };
    let name = "testnet".parse().unwrap();
    ChainReport {
        name,
        chain_id: 31337,
        state,
        node_head: Some(14),
        finalized: Some(BlockRef { number: 11, hash: hash(11, 0) }),
        quorum: 1,
        endpoints: vec![endpoint],
        retention: None,
    }
}

fn apply_two_blocks(store: &Store) {
    let mut lane = store.lane(&LANE.parse::<LaneId>().unwrap()).unwrap();
    let mut step = lane.begin();
    for stored in step.records().take(2) {
        let stored = stored.unwrap();
        let RecordView::Block(block) = stored.record() else { panic!("the first two are blocks") };
        let key = |name: &str| [name.as_bytes(), &[block.this.number as u8]].concat();
        let writes = Writes::from([(key("a/"), Some(vec![1])), (key("b/"), Some(vec![2, 3]))]);
        step.apply(block.this, Applied { writes, fuel: 1, ..Applied::default() }).unwrap();
    }
    step.commit([7; 32]).unwrap();
}

#[test]
fn health_says_which_process_answers() {
    let api = Api::start();
    assert_eq!(api.json("/health")["pid"], std::process::id());
}

#[test]
fn ready_names_what_is_not_at_work() {
    let api = Api::start();
    assert_eq!(api.json("/ready"), json!({"ready": true, "reasons": []}));
    let reason = Some("a reorg of 70 blocks".to_owned());
    *api.chain_state.lock().unwrap() = StateView::new("stopped", reason, None);
    *api.lane_state.lock().unwrap() = StateView::new("halted", Some("record 2".to_owned()), None);
    let (status, _, body) = api.get("/ready");
    let body: Value = serde_json::from_str(&body).unwrap();
    let expected = json!({
        "ready": false,
        "reasons": [
            {"what": "chain testnet", "state": "stopped", "reason": "a reorg of 70 blocks"},
            {"what": "lane toy@testnet", "state": "halted", "reason": "record 2"},
        ],
    });
    assert_eq!((status, body), (503, expected));
}

#[test]
fn chains_show_head_and_endpoints() {
    let api = Api::start();
    let chains = api.json("/v1/chains");
    let chain = &chains["chains"][0];
    assert_eq!((&chain["name"], &chain["chain_id"]), (&json!("testnet"), &json!(31337)));
    assert_eq!((&chain["tail"], &chain["node_head"]), (&json!("6"), &json!(14)));
    assert_eq!((&chain["start"], &chain["finalized"]["number"]), (&json!("0"), &json!(11)));
    assert_eq!(chain["head"]["number"], 13);
    assert_eq!(chain["head"]["hash"], hash(13, 1).to_string());
    assert_eq!(chain["head"]["time"], "2023-11-14T22:13:20Z");
    assert!(chain["head"]["age_seconds"].as_u64().unwrap() > 0);
    assert_eq!(chain["endpoints"][0]["url"], "http://127.0.0.1:8545");
}

#[test]
fn cursors_show_state_and_lag() {
    let api = Api::start();
    let cursors = api.json("/v1/cursors");
    let cursor = &cursors["cursors"][0];
    assert_eq!(cursor["lane"], LANE);
    assert_eq!(cursor["state"], json!({"name": "waiting", "reason": "a node", "since": null}));
    assert_eq!((&cursor["next"], &cursor["tail"]), (&json!("2"), &json!("6")));
    assert_eq!((&cursor["lag_records"], &cursor["lag_blocks"]), (&json!(4), &json!(2)));
    assert_eq!((&cursor["commit"], &cursor["faults"]), (&json!(1), &json!(3)));
    assert_eq!(cursor["block"]["number"], 11);
}

#[test]
fn a_lane_that_applied_nothing_is_behind_by_every_block() {
    let api = Api::start();
    drop(api.store.lane(&"new@testnet".parse().unwrap()).unwrap());
    let cursors = api.json("/v1/cursors");
    let new = &cursors["cursors"][0];
    assert_eq!(
        (&new["lane"], &new["state"]["name"]),
        (&json!("new@testnet"), &json!("unconfigured"))
    );
    assert_eq!((&new["lag_records"], &new["lag_blocks"]), (&json!(6), &json!(4)));
}

#[test]
fn the_journal_comes_in_pages() {
    let api = Api::start();
    let last = api.json("/v1/chains/testnet/journal?limit=1");
    assert_eq!((&last["next"], &last["tail"]), (&json!("6"), &json!("6")));
    assert_eq!(last["records"][0]["number"], 13);
    let page = api.json("/v1/chains/testnet/journal?from=2&limit=2");
    assert_eq!(page["next"], "4");
    assert_eq!(page["records"][0]["kind"], "block");
    assert_eq!(page["records"][0]["abandoned_by"], "3");
    assert_eq!(page["records"][1]["kind"], "revert");
    assert_eq!(page["records"][1]["abandoned"], 1);
    let beyond = api.json("/v1/chains/testnet/journal?from=99");
    assert_eq!((&beyond["next"], &beyond["records"]), (&json!("6"), &json!([])));
}

#[test]
fn a_reader_can_wait_for_the_next_record() {
    let api = Api::start();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| api.json("/v1/chains/testnet/journal?from=6&wait=30"));
        let journal = api.store.existing_journal(&"testnet".parse().unwrap()).unwrap();
        let tail = journal.tail();
        journal.append(tail.offset, &[block(14, 1, hash(13, 1))]).unwrap();
        assert_eq!(waiting.join().unwrap()["records"][0]["number"], 14);
    });
}

#[test]
fn pages_of_a_verification_leave_no_gap_and_count_nothing_twice() {
    let api = Api::start();
    let whole = api.json("/v1/chains/testnet/journal/verify");
    assert_eq!((&whole["blocks"], &whole["reverts"]), (&json!(5), &json!(1)));
    assert_eq!((&whole["next"], &whole["problems"]), (&json!("6"), &json!([])));
    let (mut blocks, mut reverts, mut from, mut digest) = (0, 0, "0".to_owned(), Value::Null);
    while from != "6" {
        let page = api.json(&format!("/v1/chains/testnet/journal/verify?from={from}&limit=1"));
        blocks += page["blocks"].as_u64().unwrap();
        reverts += page["reverts"].as_u64().unwrap();
        page["next"].as_str().unwrap().clone_into(&mut from);
        digest = page["digest"].clone();
    }
    assert_eq!((blocks, reverts, digest), (5, 1, whole["digest"].clone()));

    let journal = api.store.existing_journal(&"testnet".parse().unwrap()).unwrap();
    let unsound = block(UNSOUND, 1, hash(13, 1));
    journal.append(journal.tail().offset, &[unsound]).unwrap();
    let problem = json!({ "offset": "6", "what": "does not hash to its hash" });
    for from in [0, 6] {
        let path = format!("/v1/chains/testnet/journal/verify?from={from}");
        assert_eq!(api.json(&path)["problems"], json!([problem]), "from {from}");
    }
}

#[test]
fn reorgs_show_what_they_abandoned_and_stat_counts_what_there_is() {
    let api = Api::start();
    let reorgs = api.json("/v1/chains/testnet/reorgs?last=1");
    assert_eq!((&reorgs["total"], &reorgs["reorgs"][0]["depth"]), (&json!(1), &json!(1)));
    let reorg = &reorgs["reorgs"][0];
    assert_eq!((&reorg["offset"], &reorg["ancestor"]["number"]), (&json!("3"), &json!(11)));
    assert_eq!(reorg["abandoned"][0]["hash"], hash(12, 0).to_string());
    assert_eq!(reorg["time"], "2023-11-14T22:13:20Z");

    let stat = api.json("/v1/chains/testnet/journal/stat");
    for (key, expected) in [("records", 6), ("blocks", 5), ("reverts", 1), ("outcomes", 0)] {
        assert_eq!(stat[key], expected, "{key}");
    }
    assert_eq!((&stat["first"]["number"], &stat["last"]["number"]), (&json!(10), &json!(13)));
    assert_eq!(
        (&stat["segments"][0]["from"], &stat["segments"][0]["to"]),
        (&json!("0"), &json!("6"))
    );
}

#[test]
fn logs_are_found_by_contract_and_stretch() {
    let api = Api::start();
    let journal = api.store.existing_journal(&"testnet".parse().unwrap()).unwrap();
    let log = |index| Log {
        address: Address::repeat_byte(index as u8),
        topics: vec![hash(1, index as u8)],
        data: vec![7].into(),
        index,
        transaction_index: 0,
        transaction_hash: hash(2, 2),
    };
    let this = BlockRef { number: 14, hash: hash(14, 1) };
    let header =
        Header { this, parent: hash(13, 1), timestamp: 1_800_000_000, rlp: vec![0xc0].into() };
    let block = Block { header, logs: vec![log(0), log(1)] };
    journal.append(journal.tail().offset, &[Record::Block(block)]).unwrap();
    let address = Address::repeat_byte(1);
    let count = |query: &str| {
        let found = api.json(&format!("/v1/chains/testnet/logs?{query}"));
        assert_eq!(found["more_from"], Value::Null);
        found["logs"].as_array().unwrap().len()
    };
    assert_eq!(count(""), 2);
    assert_eq!(count(&format!("address={address}")), 1);
    assert_eq!(count(&format!("address={address},{}", Address::ZERO)), 2);
    assert_eq!(count(&format!("address={address}&topic0={}", hash(1, 0))), 0);
    assert_eq!(count("to_block=13"), 0);
    assert_eq!(count("from_time=1800000000&abandoned=true"), 2);
    assert_eq!(count("from_time=1800000001"), 0);
    assert_eq!(count(&format!("after={}", u64::MAX)), 0);
    let log = &api.json(&format!("/v1/chains/testnet/logs?topic0={}", hash(1, 1)))["logs"][0];
    assert_eq!((&log["block"]["number"], &log["offset"]), (&json!(14), &json!("6")));
    assert_eq!(log["data"], "0x07");
}

#[test]
fn state_comes_in_pages_by_prefix() {
    let api = Api::start();
    let entry = |key: &str, value: &str| json!({"key": key, "value": value});
    let page = api.json("/v1/lanes/toy@testnet/state?limit=3");
    assert_eq!((&page["next"], &page["more_after"]), (&json!("2"), &json!("0x622f0a")));
    let rest = api.json("/v1/lanes/toy@testnet/state?after=0x622f0a");
    assert_eq!(rest["entries"], json!([entry("0x622f0b", "0x0203")]));
    assert_eq!(rest["more_after"], Value::Null);
    let a = api.json("/v1/lanes/toy@testnet/state?prefix=0x61");
    assert_eq!(a["entries"], json!([entry("0x612f0a", "0x01"), entry("0x612f0b", "0x01")]));
}

/// An effect of the lane's first block; the third is settled, the second was sent.
fn ask(store: &Store) {
    let effect = |key: &str| Effect {
        key: EffectKey::Webhook { destination: "alerts".to_owned(), key: key.to_owned() },
        body: format!("{{\"text\":\"{key}\"}}").into_bytes(),
        deliver: Deliver::Confirmations(2),
        expires: 1_700_003_600,
    };
    let lane: LaneId = "keeper@testnet".parse().unwrap();
    let mut lane = store.lane(&lane).unwrap();
    let outbox = lane.outbox();
    let mut step = lane.begin();
    let effects = ["a", "b", "c"].map(effect).to_vec();
    let first = BlockRef { number: 10, hash: hash(10, 0) };
    step.apply(first, Applied { effects, ..Applied::default() }).unwrap();
    step.commit([7; 32]).unwrap();
    let ids: Vec<EffectId> = outbox.unsettled().iter().map(|entry| entry.id).collect();
    outbox.attempt(&ids[1..]);
    let refusal = Refusal {
        status: 400,
        error_type: Some("Nope".to_owned()),
        description: "no".to_owned(),
        body: b"{\"errorType\":\"Nope\"}".to_vec(),
        retry_after: Some(7),
    };
    let result = EffectResult::Refused(refusal);
    let settled = Settled { id: ids[2], result, attempts: 3, at_millis: 1_700_000_000_999 };
    outbox.settle(vec![settled]).unwrap();
}

#[test]
fn the_outbox_shows_what_nothing_has_come_of_and_an_effect_what_has() {
    let api = Api::start();
    ask(&api.store);
    let outbox = api.json("/v1/lanes/keeper@testnet/outbox?limit=1");
    assert_eq!((&outbox["unsettled"], &outbox["more_after"]), (&json!(2), &json!("0.0")));
    assert_eq!(
        outbox["effects"],
        json!([{
            "effect": "0.0",
            "key": "alerts/a",
            "block": { "number": 10, "hash": hash(10, 0).to_string() },
            "state": "waiting",
            "deliver": "2 confirmations",
            "expires": "2023-11-14T23:13:20Z",
        }])
    );
    let rest = api.json("/v1/lanes/keeper@testnet/outbox?after=0.0");
    assert_eq!(
        (rest["effects"][0]["state"].as_str(), &rest["more_after"]),
        (Some("attempted"), &Value::Null)
    );

    let waiting = api.json("/v1/lanes/keeper@testnet/effects/0.0");
    assert_eq!((&waiting["state"], &waiting["outcome"]), (&json!("waiting"), &Value::Null));
    assert_eq!(waiting["body"], "{\"text\":\"a\"}");
    let settled = api.json("/v1/lanes/keeper@testnet/effects/0.2");
    assert_eq!(settled["state"], "settled");
    assert_eq!(settled["refusal_body"], "{\"errorType\":\"Nope\"}");
    let outcome = json!({
        "effect": "0.2",
        "key": "alerts/c",
        "result": "refused",
        "reason": null,
        "refusal": { "status": 400, "error_type": "Nope", "description": "no", "retry_after": 7 },
        "attempts": 3,
        "time": "2023-11-14T22:13:20Z",
    });
    assert_eq!(settled["outcome"], outcome);

    let tail = &api.json("/v1/chains/testnet/journal?from=6")["records"][0];
    assert_eq!((&tail["kind"], &tail["module"]), (&json!("outcome"), &json!("keeper")));
    assert_eq!((&tail["offset"], &tail["refusal"]), (&json!("6"), &outcome["refusal"]));

    api.check_problem(api.get("/v1/lanes/keeper@testnet/effects/0.3"), 404, "has no effect 0.3");
    api.check_problem(api.get("/v1/lanes/keeper@testnet/effects/3"), 400, "write RECORD.POSITION");
    api.check_problem(api.get("/v1/lanes/keeper@testnet/outbox?after=x"), 400, "`x` is not an");
    api.check_problem(api.get("/v1/lanes/other@testnet/outbox"), 404, "no lane other@testnet");
}

#[test]
fn an_effect_is_shown_after_its_record_was_removed() {
    let api = Api::start();
    ask(&api.store);
    let journal = api.store.existing_journal(&"testnet".parse().unwrap()).unwrap();
    // A segment and a bit more, all of it passed by both lanes.
    let blocks: Vec<Record> =
        (14..17_000).map(|number| block(number, 1, hash(number - 1, 1))).collect();
    for some in blocks.chunks(1000) {
        journal.append(journal.tail().offset, some).unwrap();
    }
    for lane in [LANE, "keeper@testnet"] {
        let mut lane = api.store.lane(&lane.parse().unwrap()).unwrap();
        let outbox = lane.outbox();
        let settled = |entry: &OutboxEntry| Settled {
            id: entry.id,
            result: EffectResult::Expired,
            attempts: 1,
            at_millis: 1_700_000_000_999,
        };
        outbox.settle(outbox.unsettled().iter().map(settled).collect()).unwrap();
        let mut step = lane.begin();
        for stored in step.records() {
            match stored.unwrap().record() {
                RecordView::Block(block) => step.apply(block.this, Applied::default()).unwrap(),
                RecordView::Revert(revert) => step.revert(&revert).unwrap(),
                RecordView::Outcome(_) => step.pass_outcome(Applied::default()).unwrap(),
            }
        }
        step.commit([7; 32]).unwrap();
    }
    journal.retain(&Retention { max_age: Some(Duration::ZERO), max_bytes: None }).unwrap();
    assert_eq!(journal.start(), Offset::new(16_384));
    let settled = api.json("/v1/lanes/keeper@testnet/effects/0.2");
    assert_eq!((&settled["state"], &settled["outcome"]), (&json!("settled"), &Value::Null));
}

#[test]
fn metrics_follow_the_views() {
    let api = Api::start();
    let (status, head, body) = api.get("/metrics");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/openmetrics-text"), "{head}");
    for line in [
        "shepherd_chain_head_timestamp_seconds{chain=\"testnet\"} 1700000000",
        "shepherd_chain_journal_tail_records{chain=\"testnet\"} 6",
        "shepherd_chain_state{chain=\"testnet\",state=\"following\"} 1",
        "shepherd_lane_lag_records{module=\"toy\",chain=\"testnet\"} 4",
        "shepherd_lane_state{module=\"toy\",chain=\"testnet\",state=\"waiting\"} 1",
    ] {
        assert!(body.lines().any(|found| found == line), "{line}\n{body}");
    }
    assert!(body.ends_with("# EOF\n"));
    *api.chain_state.lock().unwrap() = StateView::new("stopped", None, None);
    let (_, _, body) = api.get("/metrics");
    assert!(!body.contains("state=\"following\""), "a chain is in one state at a time");
}

#[test]
fn wrong_questions_are_problems() {
    let api = Api::start();
    let check = |path: &str, status, detail| api.check_problem(api.get(path), status, detail);
    check("/nothing", 404, "no such path");
    check("/v1/chains/moon/journal", 404, "no chain called moon");
    check("/v1/chains/MOON/journal", 400, "`MOON` is not a name");
    check("/v1/chains/testnet/journal?limit=0", 400, "`limit` is 0");
    check("/v1/chains/testnet/journal?limit=1001", 400, "`limit` is 1001");
    check("/v1/chains/testnet/journal?limit=-1", 400, "limit");
    check("/v1/chains/testnet/journal?form=1", 400, "form");
    check("/v1/chains/testnet/journal?from=6&wait=99", 400, "`wait`");
    check("/v1/chains/testnet/journal/verify?limit=99999", 400, "`limit`");
    check("/v1/chains/testnet/logs?address=0x12", 400, "`address`");
    check("/v1/chains/testnet/logs?from_block=1&from_time=1", 400, "exclude each other");
    check("/v1/chains/testnet/reorgs?last=0", 400, "`last`");
    check("/v1/chains/moon/reorgs", 404, "no chain called moon");
    check("/v1/chains/moon/journal/stat", 404, "no chain called moon");
    check("/v1/lanes/toy/state", 400, "`toy` is not a lane");
    check("/v1/lanes/toy@moon/state", 404, "no lane toy@moon");
    check("/v1/lanes/toy@testnet/state?prefix=61", 400, "0x");
    check("/v1/lanes/toy@testnet/state?prefix=0x6", 400, "prefix");
    check("/v1/lanes/%ff/state", 400, "UTF-8");
}

#[test]
fn the_guard_stands_before_every_path() {
    let api = Api::start();
    let port = api.port;
    for path in ["/health", "/metrics", "/v1/cursors", "/nothing"] {
        let foreign = api.send(&format!("GET {path} HTTP/1.1\r\nhost: evil.example:{port}\r\n"));
        api.check_problem(foreign, 421, "localhost");
        let origin = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost:{port}\r\norigin: http://evil.example\r\n"
        );
        api.check_problem(api.send(&origin), 403, "origins");
        let post = format!("POST {path} HTTP/1.1\r\nhost: localhost:{port}\r\n");
        api.check_problem(api.send(&post), 405, "GET");
        let old = api.send(&format!("GET {path} HTTP/1.0\r\n"));
        api.check_problem(old, 421, "localhost");
    }
}
