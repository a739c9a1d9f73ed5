//! A lane that is rebuilt is what its journal and its tape lead to; it goes on meanwhile, and what
//! it has asked for is neither lost nor asked again.

mod common;

use std::{collections::BTreeMap, sync::mpsc, thread};

use common::{
    BALANCE_TRACKER, Life, READER, TELLER, TOKEN_LEDGER, answers, append_all, asked, catch_up,
    computed, journal, load, runner, scratch, seed, store, straight, version,
};
use shepherd_dispatch::Runner;
use shepherd_host::BoundModule;
use shepherd_log::{Applied, Lane, LaneError, LaneId, Offset, RecordView, Store};
use shepherd_replay::{Progress, RebuildError, Rebuilt, rebuild, verify};

/// Rebuilds a lane that nobody moves.
fn rebuilt(store: &Store, lane: &LaneId) -> Result<Rebuilt, RebuildError> {
    let hand_over = &mut || store.lane(lane);
    rebuild(store, lane, &mut load, hand_over, None, &mut |_| (), &|| false)
}

fn check_verified(store: &Store, lane: &LaneId) {
    let dir = scratch();
    let verified = verify(store, lane, &mut load, dir.path(), None, &mut |_| (), &|| false);
    assert_eq!(verified.unwrap().difference.map(|difference| difference.to_string()), None);
}

fn generation(store: &Store, lane: &LaneId) -> u32 {
    store.lane_snapshot(lane).unwrap().unwrap().cursor().generation
}

#[test]
fn a_rebuilt_lane_is_what_it_was_and_goes_on() {
    let seed = seed();
    let lanes: [&BoundModule; 3] = [&TOKEN_LEDGER, &BALANCE_TRACKER, &TELLER];
    let dir = scratch();
    Life::new(seed, 80).live(dir.path(), &lanes);
    for module in lanes {
        let lane = module.lane();
        let store = store(dir.path());
        let before = (computed(&store, lane), asked(&store, lane));
        let versions = store.lane_snapshot(lane).unwrap().unwrap().versions().unwrap();
        let old = generation(&store, lane);

        let rebuilt = rebuilt(&store, lane).unwrap();
        assert!(rebuilt.is_same());
        assert_eq!(rebuilt.lane.id(), lane);
        assert_eq!(generation(&store, lane), old + 1);
        assert_eq!((computed(&store, lane), asked(&store, lane)), before);
        let snapshot = store.lane_snapshot(lane).unwrap().unwrap();
        assert_eq!(snapshot.versions().unwrap(), versions, "it says what it ran, as before");
        assert_eq!(store.rebuilds().unwrap(), []);
        check_verified(&store, lane);

        // It settles what waited, is told, goes on, and can be verified and rebuilt once more.
        let mut runner = Runner::new(rebuilt.lane, module.clone());
        let outbox = runner.lane().outbox();
        let waiting: Vec<_> = outbox.unsettled().iter().map(|entry| entry.id).collect();
        outbox.attempt(&waiting);
        let settled = |id| shepherd_log::Settled {
            id,
            result: shepherd_log::EffectResult::Accepted,
            attempts: 1,
            at_millis: 0,
        };
        outbox.settle(waiting.iter().copied().map(settled).collect()).unwrap();
        catch_up(&mut runner, || 2);
        drop((runner, outbox));
        assert!(store.sweep(&|| false).unwrap() > 0, "the old generation leaves rows");
        check_verified(&store, lane);
        assert!(self::rebuilt(&store, lane).unwrap().is_same());
    }
}

/// What the thread that moves the live lane is asked.
enum Ask {
    /// Take a record.
    GoOn(mpsc::Sender<()>),
    /// Give the lane away.
    HandOver(mpsc::Sender<Lane>),
}

#[test]
fn a_lane_goes_on_and_answers_while_it_is_rebuilt() {
    let dir = scratch();
    let store = store(dir.path());
    let journal = journal(&store);
    let records = straight(400);
    append_all(&journal, &records[..150]);
    let mut live = runner(&store, &TELLER);
    catch_up(&mut live, || 50);
    let (lane, old) = (TELLER.lane(), generation(&store, TELLER.lane()));

    let (ask, asks) = mpsc::channel();
    let mover = thread::spawn(move || {
        let mut coming = records[150..].iter();
        for ask in asks {
            match ask {
                Ask::GoOn(done) => {
                    append_all(live.lane().journal(), &coming.as_slice()[..1]);
                    coming.next();
                    catch_up(&mut live, || 1);
                    done.send(()).unwrap();
                }
                Ask::HandOver(to) => {
                    to.send(live.into_lane()).unwrap();
                    return;
                }
            }
        }
    });
    let mut turns = 0;
    let mut progress = |_: &Progress| {
        turns += 1;
        let before = computed(&store, lane);
        let (done, is_done) = mpsc::channel();
        // After the lane was handed over, nobody moves it.
        let goes_on = ask.send(Ask::GoOn(done)).is_ok() && is_done.recv().is_ok();
        let after = computed(&store, lane);
        assert_eq!(after.next, before.next + u64::from(goes_on));
        assert_eq!(generation(&store, lane), old, "the old generation answers until the switch");
    };
    let mut hand_over = || {
        let (to, given) = mpsc::channel();
        ask.send(Ask::HandOver(to)).unwrap();
        Ok::<Lane, LaneError>(given.recv().unwrap())
    };
    let rebuilt =
        rebuild(&store, lane, &mut load, &mut hand_over, Some(10), &mut progress, &|| false)
            .unwrap();
    mover.join().unwrap();
    assert!(rebuilt.is_same());
    assert!(turns > 10 && rebuilt.before.next > Offset::new(150), "the lane went on meanwhile");
    assert_eq!(rebuilt.lane.cursor().next, journal.tail().offset);
    assert_eq!(generation(&store, lane), old + 1);
    drop(rebuilt);
    check_verified(&store, lane);
}

#[test]
fn a_lane_that_computed_something_else_becomes_what_its_journal_says() {
    let dir = scratch();
    let store = store(dir.path());
    append_all(&journal(&store), &straight(40));
    let mut runner = runner(&store, &TOKEN_LEDGER);
    runner.advance(20, &mut answers, &|| false).unwrap();
    let lane = runner.lane_mut();
    let journal = lane.journal().clone();
    let mut step = lane.begin();
    let stored = journal.read(Offset::new(20)..Offset::new(21)).next().unwrap().unwrap();
    let RecordView::Block(block) = stored.record() else { panic!("a straight journal") };
    let writes = BTreeMap::from([(b"wrong".to_vec(), Some(b"1".to_vec()))]);
    step.apply(block.this, Applied { writes, ..Applied::default() }).unwrap();
    step.commit(version(&TOKEN_LEDGER).module).unwrap();
    catch_up(&mut runner, || 6);
    drop(runner);
    let damaged = computed(&store, TOKEN_LEDGER.lane());

    let rebuilt = rebuilt(&store, TOKEN_LEDGER.lane()).unwrap();
    assert!(!rebuilt.is_same());
    drop(rebuilt);
    let healed = computed(&store, TOKEN_LEDGER.lane());
    let fresh_dir = scratch();
    let fresh = common::store(fresh_dir.path());
    append_all(&common::journal(&fresh), &straight(40));
    catch_up(&mut common::runner(&fresh, &TOKEN_LEDGER), || 9);
    assert_eq!(healed, computed(&fresh, TOKEN_LEDGER.lane()));
    assert_ne!(healed.state, damaged.state);
    check_verified(&store, TOKEN_LEDGER.lane());
}

#[test]
fn an_interrupted_rebuild_goes_on_or_is_given_up() {
    let dir = scratch();
    let store = store(dir.path());
    append_all(&journal(&store), &straight(60));
    catch_up(&mut runner(&store, &TELLER), || 9);
    let lane = TELLER.lane();
    let before = (computed(&store, lane), asked(&store, lane), generation(&store, lane));
    let interrupt = || {
        let passed = std::cell::Cell::new(0);
        let interrupted = move || {
            passed.set(passed.get() + 1);
            passed.get() > 20
        };
        let hand_over = &mut || store.lane(lane);
        rebuild(&store, lane, &mut load, hand_over, Some(5), &mut |_| (), &interrupted)
    };
    let stopped = interrupt().err().expect("it is interrupted");
    let RebuildError::Interrupted { next, .. } = stopped else { panic!("{stopped}") };
    let under_way = store.rebuilds().unwrap();
    assert_eq!(under_way.len(), 1);
    assert_eq!((&under_way[0].0, under_way[0].1.next), (lane, next));
    assert!(next > Offset::START && next < Offset::new(60), "{next}");

    // Given up, nothing is left, and another one begins at the first record.
    assert!(store.abandon_rebuild(lane).unwrap());
    assert!(!store.abandon_rebuild(lane).unwrap());
    assert_eq!(store.rebuilds().unwrap(), []);
    store.sweep(&|| false).unwrap();
    let now = (computed(&store, lane), asked(&store, lane), generation(&store, lane));
    assert_eq!(now, before);

    interrupt().err().expect("it is interrupted");
    let mut from = None;
    let mut progress = |progress: &Progress| {
        from.get_or_insert(progress.from);
    };
    let hand_over = &mut || store.lane(lane);
    let rebuilt = rebuild(&store, lane, &mut load, hand_over, None, &mut progress, &|| false);
    assert!(rebuilt.unwrap().is_same());
    assert_eq!(from, Some(next), "it goes on where it was");
    check_verified(&store, lane);
}

#[test]
fn a_tape_that_does_not_fit_ends_the_rebuild_and_leaves_the_lane() {
    let dir = scratch();
    let store = store(dir.path());
    append_all(&journal(&store), &straight(10));
    let mut live = runner(&store, &READER);
    live.advance(4, &mut answers, &|| false).unwrap();
    // The lane says it read nothing here, and did.
    let mut step = live.lane_mut().begin();
    let stored = step.records().next().unwrap().unwrap();
    let RecordView::Block(block) = stored.record() else { panic!("a straight journal") };
    let writes = BTreeMap::from([(b"answers".to_vec(), Some(b"?".to_vec()))]);
    step.apply(block.this, Applied { writes, ..Applied::default() }).unwrap();
    step.commit(version(&READER).module).unwrap();
    drop(live);
    let before = computed(&store, READER.lane());
    let refused = rebuilt(&store, READER.lane()).err().expect("the tape ends");
    let text = shepherd_rpc::in_words(&refused);
    assert!(text.contains("record 4 leaves the tape"), "{text}");
    assert_eq!(computed(&store, READER.lane()), before);
}

#[test]
fn a_lane_that_someone_holds_is_rebuilt_and_not_switched() {
    let dir = scratch();
    let store = store(dir.path());
    append_all(&journal(&store), &straight(10));
    let mut live = runner(&store, &TOKEN_LEDGER);
    catch_up(&mut live, || 4);
    let refused = rebuilt(&store, TOKEN_LEDGER.lane()).err().expect("the lane is held");
    assert!(matches!(refused, RebuildError::Lane(LaneError::Open(_))), "{refused}");
    drop(live);
    assert!(rebuilt(&store, TOKEN_LEDGER.lane()).unwrap().is_same());
    let refused = rebuilt(&store, &"other@devnet".parse().unwrap()).err().unwrap();
    assert!(matches!(refused, RebuildError::Lane(LaneError::Unknown(_))), "{refused}");
}
