//! Lanes of replays and generations of lanes, on real storage.

mod common;

use std::path::Path;

use common::{append_all, catch_up, forked, journal, lane, open, outcome, seed, step};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shepherd_log::{
    Applied, Deliver, Effect, EffectId, EffectKey, EffectResult, LaneError, LaneId, LaneVersion,
    Offset, Outcome, Record, RecordView, Refusal, Store, SwitchError,
};

fn id() -> LaneId {
    common::LANE.parse().unwrap()
}

/// A lane with reorgs behind it, that has passed everything.
fn lived(dir: &Path, seed: u64) -> (Store, Vec<Record>) {
    let store = open(dir);
    let records = forked(seed, 120, common::REORG_DEPTH_MAX).records;
    let journal = journal(&store);
    let mut lane = lane(&store);
    for chunk in records.chunks(7) {
        append_all(&journal, chunk);
        catch_up(&mut lane, || 3);
    }
    drop(lane);
    (store, records)
}

#[test]
fn a_replay_computes_the_same_in_a_store_of_its_own() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let (live_dir, replay_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (live, _) = lived(live_dir.path(), seed);
    let expected = outcome(&live);
    let journal = journal(&live);
    loop {
        // The replay's process starts again after every few steps.
        let store = open(replay_dir.path());
        let mut replay = store.replay_lane(&id(), &journal, Offset::START).unwrap();
        if rng.random_bool(0.7) {
            replay.write_behind();
        }
        for _ in 0..rng.random_range(1..6) {
            if replay.cursor().next < journal.tail().offset {
                step(&mut replay, rng.random_range(1..9));
            }
        }
        if replay.cursor().next == journal.tail().offset {
            drop(replay);
            assert_eq!(outcome(&store), expected);
            break;
        }
    }
    assert_eq!(outcome(&live), expected, "the live lane is as it was");
}

#[test]
fn a_replay_goes_on_only_over_the_journal_it_began_with() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (one, _) = lived(one.path(), 1);
    let (two, _) = lived(two.path(), 2);
    let store = open(dir.path());
    let mut replay = store.replay_lane(&id(), &journal(&one), Offset::START).unwrap();
    assert!(matches!(
        store.replay_lane(&id(), &journal(&one), Offset::START),
        Err(LaneError::Open(_))
    ));
    catch_up(&mut replay, || 50);
    drop(replay);
    assert!(matches!(
        store.replay_lane(&id(), &journal(&two), Offset::START),
        Err(LaneError::OtherJournal { .. })
    ));
    // And it is never taken for a live lane, whatever journal comes to its store.
    append_all(&journal(&store), &common::straight(0, 3));
    assert!(matches!(store.lane(&id()), Err(LaneError::OtherRole(..))));
    assert!(matches!(
        one.replay_lane(&id(), &journal(&one), Offset::START),
        Err(LaneError::OtherRole(..))
    ));
}

#[test]
fn what_a_replay_asks_for_is_kept_and_waits_nowhere() {
    let (live_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let live = open(live_dir.path());
    append_all(&journal(&live), &common::straight(0, 3));
    let store = open(dir.path());
    let mut replay = store.replay_lane(&id(), &journal(&live), Offset::new(1)).unwrap();
    let mut step = replay.begin();
    let stored = step.records().next().unwrap().unwrap();
    let RecordView::Block(block) = stored.record() else { panic!("a block") };
    let effect = Effect {
        key: EffectKey::Webhook { destination: "alerts".to_owned(), key: "1".to_owned() },
        body: b"{}".to_vec(),
        deliver: Deliver::Instant,
        expires: u64::MAX,
    };
    let effects = vec![effect.clone()];
    step.apply(block.this, Applied { effects, ..Applied::default() }).unwrap();
    step.commit([0; 32]).unwrap();
    assert_eq!(replay.outbox().unsettled(), []);
    let snapshot = store.lane_snapshot(&id()).unwrap().unwrap();
    assert_eq!(snapshot.outbox().unwrap(), []);
    let kept: Vec<_> = snapshot.effects().map(|row| row.unwrap().2).collect();
    assert_eq!(kept, [effect]);
}

#[test]
fn a_generation_takes_the_place_of_a_lane_that_went_on_meanwhile() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut next = {
        let (store, records) = lived(dir.path(), seed);
        lane(&store);
        records.iter().filter(|record| matches!(record, Record::Block(_))).count() as u64
    };
    let mut switched = false;
    while !switched {
        // The process starts again after every few steps of either.
        let store = open(dir.path());
        let journal = journal(&store);
        let mut live = lane(&store);
        let mut rebuilt = store.rebuild_lane(&id()).unwrap();
        assert_eq!(rebuilt.cursor().generation, 1);
        for _ in 0..4 {
            step(&mut rebuilt, rng.random_range(1..20));
        }
        if next < 200 {
            let head = journal.tail().head.unwrap();
            let this = common::block_ref(head.number + 1, 99);
            append_all(&journal, &[Record::Block(common::block(this, head.hash, 2))]);
            next += 1;
        }
        catch_up(&mut live, || 2);
        let before = outcome(&store);
        if rebuilt.cursor().next < live.cursor().next {
            let (at, other) = (live.cursor().next, rebuilt.cursor().next);
            assert!(matches!(
                store.switch(live, rebuilt),
                Err(SwitchError::NotLevel { live, rebuilt, .. }) if (live, rebuilt) == (at, other)
            ));
            assert_eq!(store.rebuilds().unwrap().len(), 1);
            continue;
        }
        let commits = live.cursor().commit;
        let went_on = store.switch(live, rebuilt).unwrap();
        assert_eq!(went_on.cursor().generation, 1);
        assert!(!went_on.is_replay());
        drop(went_on);
        assert_eq!(outcome(&store), before, "after {commits} commits of the old generation");
        switched = true;
    }
    // From here on it is an ordinary lane, before and after what the old one left is gone.
    for round in 0..2 {
        let store = open(dir.path());
        let before = outcome(&store);
        assert_eq!(store.rebuilds().unwrap(), []);
        assert_eq!(store.sweep(&|| false).unwrap() > 0, round == 0);
        assert_eq!(outcome(&store), before);
        let mut live = lane(&store);
        assert_eq!(live.cursor().generation, 1);
        let head = journal(&store).tail().head.unwrap();
        let this = common::block_ref(head.number + 1, 100);
        append_all(&journal(&store), &[Record::Block(common::block(this, head.hash, 2))]);
        catch_up(&mut live, || 2);
    }
    assert_eq!(open(dir.path()).rebuild_lane(&id()).unwrap().cursor().generation, 2);
}

#[test]
fn a_generation_that_was_given_up_leaves_the_lane_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = lived(dir.path(), 5);
    let before = outcome(&store);
    let mut rebuilt = store.rebuild_lane(&id()).unwrap();
    step(&mut rebuilt, 40);
    assert!(matches!(store.abandon_rebuild(&id()), Err(LaneError::Open(_))));
    drop(rebuilt);
    assert!(store.abandon_rebuild(&id()).unwrap());
    assert!(!store.abandon_rebuild(&id()).unwrap());
    assert!(store.sweep(&|| false).unwrap() > 0);
    drop(store);
    let store = open(dir.path());
    assert_eq!((outcome(&store), store.sweep(&|| false).unwrap()), (before, 0));
    assert_eq!(store.rebuild_lane(&id()).unwrap().cursor().next, Offset::START);
}

#[test]
fn a_lane_says_what_it_ran_from_which_record_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_all(&journal(&store), &common::straight(0, 10));
    let version = |n| LaneVersion { module: [n; 32], binding: [n + 1; 32] };
    let mut live = lane(&store);
    live.set_version(version(1)).unwrap();
    step(&mut live, 4);
    live.set_version(version(1)).unwrap();
    live.set_version(version(2)).unwrap();
    live.set_version(version(3)).unwrap();
    step(&mut live, 4);
    let versions = store.lane_snapshot(&id()).unwrap().unwrap().versions().unwrap();
    assert_eq!(versions, [(Offset::new(0), version(1)), (Offset::new(4), version(3))]);
}

#[test]
fn what_a_venue_told_counts_towards_the_size_of_a_step() {
    let (live_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let live = open(live_dir.path());
    append_all(&journal(&live), &common::straight(0, 1));
    let store = open(dir.path());
    let mut replay = store.replay_lane(&id(), &journal(&live), Offset::START).unwrap();
    let mut step = replay.begin();
    let block = common::block_ref(0, 0);
    step.apply(block, Applied::default()).unwrap();
    let refusal = Refusal {
        status: 400,
        error_type: None,
        description: String::new(),
        body: vec![b'x'; 8 << 10],
        retry_after: None,
    };
    for index in 0..400 {
        let outcome = Outcome {
            module: id().module,
            effect: EffectId { offset: Offset::START, index },
            key: EffectKey::Webhook { destination: "alerts".to_owned(), key: index.to_string() },
            block,
            result: EffectResult::Refused(refusal.clone()),
            attempts: 1,
            at_millis: 0,
            head: block,
        };
        step.told_by_venue(outcome, Applied::default()).unwrap();
    }
    assert!(step.is_full());
    step.commit([0; 32]).unwrap();
    assert_eq!(store.lane_snapshot(&id()).unwrap().unwrap().outcomes().count(), 400);
}
