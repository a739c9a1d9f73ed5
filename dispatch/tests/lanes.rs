//! What lanes promise to each other: a bad one halts by itself and is named, the others go on.

mod common;

use std::time::Duration;

use common::{append_all, hostile, journal, store, straight, token_ledger};
use shepherd_dispatch::{
    Config, Destinations, DispatchError, Dispatcher, LaneSpec, LaneState, LaneStatus, LaneStatuses,
    Metrics,
};
use shepherd_host::BoundModule;
use shepherd_log::{BlockRef, LaneId, Offset, Record, Revert};
use tokio_util::sync::CancellationToken;

/// Long enough for a slow machine, short enough to fail a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn impatient() -> Config {
    Config {
        fault_wait_min: Duration::from_millis(5),
        fault_wait_max: Duration::from_millis(5),
        wait_min: Duration::from_millis(5),
        wait_max: Duration::from_millis(20),
        ..Config::default()
    }
}

/// A lane that nobody outside answers: the modules here either do not ask or are meant to wait.
fn alone(module: BoundModule) -> LaneSpec {
    LaneSpec {
        module,
        pool: common::pool("http://127.0.0.1:1"),
        destinations: Destinations::default(),
        reorg_depth_max: common::REORG_DEPTH_MAX,
        version: None,
    }
}

async fn until(
    statuses: &LaneStatuses,
    lane: &LaneId,
    reached: impl Fn(&LaneStatus) -> bool,
) -> LaneStatus {
    let mut status =
        statuses.watch().iter().find(|status| status.borrow().lane == *lane).unwrap().clone();
    let waited = tokio::time::timeout(PATIENCE, status.wait_for(|status| reached(status))).await;
    match waited {
        Ok(status) => status.expect("the lane still runs").clone(),
        Err(_) => panic!("{lane} is still {:?}", statuses.now()),
    }
}

/// Runs a hostile module beside a good one, and returns the hostile lane's last status.
async fn beside_a_good_lane(bad: BoundModule) -> LaneStatus {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let journal = journal(&store);
    append_all(&journal, &straight(10));
    let good = token_ledger();
    let shutdown = CancellationToken::new();
    let specs = [good.clone(), bad.clone()].map(alone).into_iter().collect();
    let metrics = Metrics::unregistered();
    let dispatcher = Dispatcher::start(&store, specs, impatient(), &metrics, &shutdown).unwrap();
    let statuses = dispatcher.statuses();
    let is_stuck = |status: &LaneStatus| {
        matches!(status.state, LaneState::Halted { .. } | LaneState::Waiting { .. })
    };
    let stuck = until(&statuses, bad.lane(), is_stuck).await;
    // The good lane passes what comes after, while the bad one stands still.
    append_all(&journal, &straight(20)[10..]);
    let tail = journal.tail().offset;
    until(&statuses, good.lane(), |status| status.cursor.next == tail).await;
    let cursor = store.lane_snapshot(bad.lane()).unwrap().unwrap().cursor().clone();
    assert_eq!(cursor.next, Offset::new(7), "nothing of the failed record is committed");
    shutdown.cancel();
    tokio::time::timeout(PATIENCE, dispatcher.join()).await.expect("lanes end").unwrap();
    assert_eq!(statuses.now()[1].state, LaneState::Stopped);
    stuck
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_misbehaves_halts_its_own_lane_at_that_record_and_says_why() {
    let cases = [
        ("endless-loop", "fuel"),
        ("endless-host-calls", "fuel"),
        ("memory-bomb", "memory"),
        ("deep-recursion", "stack"),
        ("panic", "panicked"),
        ("unreachable", "trapped"),
        ("huge-error", "returned an error"),
        ("huge-value", "state value of 2097152 bytes"),
        ("too-many-writes", "state writes"),
        ("error", "failed on request"),
    ];
    for (behaviour, expected) in cases {
        let stuck = beside_a_good_lane(hostile(behaviour, 7)).await;
        let LaneState::Halted { offset, fault } = &stuck.state else { panic!("{stuck:?}") };
        assert_eq!(*offset, Offset::new(7), "{behaviour}");
        assert!(fault.contains(expected), "{behaviour}: {fault}");
        assert_eq!(stuck.faults, 3, "{behaviour}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_whose_endpoint_is_down_waits_and_is_not_halted() {
    let stuck = beside_a_good_lane(hostile("read", 7)).await;
    let LaneState::Waiting { reason } = &stuck.state else { panic!("{stuck:?}") };
    assert!(reason.contains("no endpoint answers"), "{reason}");
    assert_eq!(stuck.faults, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_data_that_is_damaged_ends_all_lanes_instead_of_being_waited_out() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = store(dir.path());
        append_all(&journal(&store), &straight(10));
        common::catch_up(&mut common::runner(&store, &token_ledger()), || 10).unwrap();
    }
    damage_undo(dir.path());

    let store = store(dir.path());
    let journal = journal(&store);
    let shutdown = CancellationToken::new();
    let specs = [token_ledger(), hostile("behave", 0)];
    let specs = specs.map(alone).into_iter().collect();
    let metrics = Metrics::unregistered();
    let dispatcher = Dispatcher::start(&store, specs, impatient(), &metrics, &shutdown).unwrap();
    append_all(&journal, &[revert_to(&straight(10), 8)]);
    let ended = tokio::time::timeout(PATIENCE, dispatcher.join()).await.expect("it does not wait");
    assert!(
        matches!(&ended, Err(DispatchError::Storage { lane, .. }) if lane.module.as_str() == "token-ledger"),
        "{ended:?}"
    );
    let next = store.lane_snapshot(token_ledger().lane()).unwrap().unwrap().cursor().next;
    assert_eq!(next, Offset::new(10), "nothing was committed on top of it");
}

/// Changes a byte of every value that undo keeps, below the store. State itself cannot serve: a
/// store whose state is damaged does not open.
fn damage_undo(dir: &std::path::Path) {
    let database = fjall::Database::builder(dir.join("store").join("db")).open().unwrap();
    let undo = database.keyspace("undo", fjall::KeyspaceCreateOptions::default).unwrap();
    let entries: Vec<_> = undo.iter().map(|entry| entry.into_inner().unwrap()).collect();
    let values = entries.iter().filter(|(key, _)| !key.ends_with(&0u32.to_be_bytes()));
    assert_ne!(values.clone().count(), 0);
    for (key, value) in values {
        let mut bytes = value.to_vec();
        bytes[3] ^= 1;
        undo.insert(key.clone(), bytes).unwrap();
    }
    database.persist(fjall::PersistMode::SyncAll).unwrap();
}

/// The revert that abandons the blocks after a height.
fn revert_to(records: &[Record], height: usize) -> Record {
    let refs: Vec<BlockRef> = records
        .iter()
        .map(|record| match record {
            Record::Block(block) => block.header.this,
            other => panic!("{other:?} is no block"),
        })
        .collect();
    Record::Revert(Revert { ancestor: refs[height], abandoned: refs[height + 1..].to_vec() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_lines_is_cut_and_the_lane_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    append_all(&journal(&store), &straight(3));
    let flood = hostile("log-flood", 1);
    let mut runner = common::runner(&store, &flood);
    let steps = common::catch_up(&mut runner, || 10).unwrap();
    let lines: Vec<_> = steps.iter().flat_map(|step| &step.lines).collect();
    let dropped: u64 = steps.iter().map(|step| step.lines_dropped).sum();
    assert!(lines.len() <= 2 * 256, "{}", lines.len());
    assert_eq!(lines.len() as u64 + dropped, 2 * 10_001);
    let has_control = |text: &str| text.chars().any(char::is_control);
    assert!(!lines.iter().any(|(_, line)| has_control(&line.message)));
    assert_eq!(runner.lane().cursor().next, Offset::new(3));
}
