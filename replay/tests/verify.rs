//! Verifying finds nothing where there is nothing, however lanes lived and however it is cut, and
//! names the first record and the key where there is something.

mod common;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use alloy_primitives::B256;
use common::{
    BALANCE_TRACKER, COUNTER, Life, READER, TELLER, TOKEN_LEDGER, answers, append_all, asked,
    catch_up, computed, journal, load, runner, scratch, seed, seeds, store, straight, version,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shepherd_dispatch::Runner;
use shepherd_host::{BoundModule, Input, LogRef, ReadRequest, World, encode_answers};
use shepherd_log::{
    Applied, BlockRef, Digest, EffectId, EffectKey, EffectResult, LaneId, LaneVersion, Offset,
    Outcome, Record, RecordView, Retention, Revert, Settled, Store,
};
use shepherd_replay::{Difference, LoadVersionError, Run, RunError, Verified, VerifyError, verify};

fn verified(store: &Store, lane: &LaneId, dir: &Path, step_records_max: Option<usize>) -> Verified {
    let progress = &mut |_: &_| ();
    verify(store, lane, &mut load, dir, step_records_max, progress, &|| false).unwrap()
}

/// The difference there must be.
fn difference(store: &Store, lane: &LaneId) -> Difference {
    let dir = scratch();
    let verified = verified(store, lane, dir.path(), None);
    let difference = verified.difference.expect("there is a difference");
    println!("{difference}");
    difference
}

/// A lane equals what it computes when it is run again, however that is cut.
fn check_same(seed: u64, store: &Store, lane: &LaneId, cuts: &[Option<usize>]) {
    let live = computed(store, lane);
    let asked_before = asked(store, lane);
    for cut in cuts {
        let dir = scratch();
        let verified = verified(store, lane, dir.path(), *cut);
        let difference = verified.difference.as_ref().map(ToString::to_string);
        assert_eq!(difference, None, "{lane}, steps of {cut:?}, seed {seed}");
        assert_eq!((verified.next.get(), verified.digest), (live.next, live.digest));
        let snapshot = store.lane_snapshot(lane).unwrap().unwrap();
        assert_eq!(verified.commits, snapshot.commits().count() as u64);
        // What was computed again is there, and is the same.
        let run = Run::existing(dir.path()).unwrap();
        assert_eq!(computed(run.store(), lane), live, "{lane}, steps of {cut:?}, seed {seed}");
        assert!(run.snapshot(lane).unwrap().outbox().unwrap().is_empty());
    }
    assert_eq!(computed(store, lane), live, "verifying does not touch the lane");
    assert_eq!(asked(store, lane), asked_before);
}

#[test]
fn lanes_that_lived_through_reorgs_outages_and_kills_are_the_same_again() {
    let first = seed();
    let next = AtomicU64::new(first);
    let end = first + seeds(100);
    // The seeds are independent of each other, and a build machine has two cores.
    let lived = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut lived = common::Lived::default();
                    loop {
                        let seed = next.fetch_add(1, Relaxed);
                        if seed >= end {
                            return lived;
                        }
                        lived += one_life(seed);
                    }
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join().expect("no life differs"));
        joined.fold(common::Lived::default(), |mut all, lived| {
            all += lived;
            all
        })
    });
    println!("{lived:?}");
    let common::Lived { starts, reverts, outcomes, outages, passed_over } = lived;
    assert!(starts > 1 && reverts > 0 && outcomes > 0 && outages > 0 && passed_over > 0);
}

/// Lets three lanes live through a history, and verifies each of them.
fn one_life(seed: u64) -> common::Lived {
    println!("a life of SHEPHERD_SEED={seed} SHEPHERD_SEEDS=1");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = scratch();
    let lanes: [&BoundModule; 3] = [&TOKEN_LEDGER, &BALANCE_TRACKER, &TELLER];
    let mut life = Life::new(seed, 60);
    life.live(dir.path(), &lanes);
    let store = store(dir.path());
    let twice = rng.random_range(0..3);
    for (position, module) in lanes.iter().enumerate() {
        let cut = Some(rng.random_range(1..20));
        let cuts = if position == twice { vec![cut, None, Some(1)] } else { vec![cut] };
        check_same(seed, &store, module.lane(), &cuts);
    }
    let versions = store.lane_snapshot(TELLER.lane()).unwrap().unwrap().versions().unwrap();
    let versions: Vec<LaneVersion> = versions.into_iter().map(|(_, version)| version).collect();
    assert_eq!(versions, [version(&READER), version(&TELLER)], "seed {seed}");
    life.lived
}

#[test]
fn a_revert_that_told_half_of_what_it_tells_before_the_weather_is_the_same_again() {
    let dir = scratch();
    let store = store(dir.path());
    let journal = journal(&store);
    append_all(&journal, &straight(4));
    let mut live = runner(&store, &TELLER);
    catch_up(&mut live, || 1);
    // Both outcomes are told at block 3, so both are told again when it is taken back.
    let outbox = live.lane().outbox();
    let ids: Vec<EffectId> = outbox.unsettled().iter().skip(1).take(2).map(|e| e.id).collect();
    outbox.attempt(&ids);
    let settled = |id| Settled { id, result: EffectResult::Accepted, attempts: 1, at_millis: 0 };
    outbox.settle(ids.into_iter().map(settled).collect()).unwrap();
    catch_up(&mut live, || 1);

    let [_, first, second, third] = &straight(4)[..] else { panic!("four blocks") };
    let reference = |record: &Record| match record {
        Record::Block(block) => block.header.this,
        _ => unreachable!("a straight journal has blocks only"),
    };
    let (first, second, third) = (reference(first), reference(second), reference(third));
    let other_third = common::block(3, 1, second.hash, 0);
    let abandoned = vec![second, other_third.header.this];
    append_all(
        &journal,
        &[
            Record::Revert(Revert { ancestor: second, abandoned: vec![third] }),
            Record::Block(other_third),
            Record::Revert(Revert { ancestor: first, abandoned }),
            Record::Block(common::block(2, 2, first.hash, 0)),
        ],
    );
    let mut reads = 0;
    let mut second_fails = |block: BlockRef, requests: &[ReadRequest]| {
        reads += 1;
        if reads == 2 { Err(World::chain("it is down")) } else { answers(block, requests) }
    };
    while live.advance(1, &mut second_fails, &|| false).unwrap().is_some() {}
    drop((live, outbox));
    check_same(0, &store, TELLER.lane(), &[None, Some(1)]);
    let snapshot = store.lane_snapshot(TELLER.lane()).unwrap().unwrap();
    assert_eq!(snapshot.tape(Offset::new(6)).unwrap().len(), 1, "half of what it tells was told");
}

/// A lane on a journal without reorgs, for tests to tamper with.
struct Scene {
    // In this order: the store is closed before its directory goes.
    runner: Runner,
    store: Store,
    _dir: tempfile::TempDir,
}

impl Scene {
    /// The lane has passed `passed` of the records, in steps of three.
    fn new(module: &BoundModule, records: &[Record], passed: usize) -> Scene {
        let dir = scratch();
        let store = store(dir.path());
        let journal = journal(&store);
        append_all(&journal, &records[..passed]);
        let mut runner = runner(&store, module);
        catch_up(&mut runner, || 3);
        append_all(&journal, &records[passed..]);
        Scene { runner, store, _dir: dir }
    }

    fn lane(&self) -> LaneId {
        self.runner.lane().id().clone()
    }

    fn state(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        computed(&self.store, &self.lane()).state
    }

    /// What the module does with the next block, for tests to change.
    fn handled(&self) -> Applied {
        let (lane, module) = (self.runner.lane(), self.runner.module());
        let next = lane.cursor().next;
        let stored = lane.journal().read(next..next.plus(1)).next().unwrap().unwrap();
        let RecordView::Block(block) = stored.record() else { panic!("no block at {next}") };
        let topics: Vec<Vec<B256>> = block.logs().map(|log| log.topics().collect()).collect();
        let logs = block.logs().zip(&topics).map(|(log, topics)| LogRef {
            address: log.address,
            topics,
            data: log.data,
            index: log.index,
            transaction_index: log.transaction_index,
            transaction_hash: log.transaction_hash,
        });
        let (this, parent, timestamp) = (block.this, block.parent, block.timestamp);
        let selected = module.subscription().select(this, parent, timestamp, None, logs);
        let input = Input::Block(selected.expect("the block concerns the module"));
        let handled = module.handle(&input, &mut self.state(), &mut answers).unwrap();
        Applied {
            writes: handled.writes,
            tape: handled.tape,
            effects: handled.effects,
            fuel: handled.fuel,
        }
    }

    /// One step that does this at each of the next records. Returns the commit's number.
    fn step(&mut self, applied: Vec<Applied>) -> u64 {
        let sha256 = self.runner.module().module().sha256().0;
        let lane = self.runner.lane_mut();
        let journal = lane.journal().clone();
        let mut step = lane.begin();
        for applied in applied {
            let next = step.cursor().next;
            let stored = journal.read(next..next.plus(1)).next().unwrap().unwrap();
            match stored.record() {
                RecordView::Block(block) => step.apply(block.this, applied).unwrap(),
                RecordView::Outcome(_) => step.pass_outcome(applied).unwrap(),
                RecordView::Revert(_) => unreachable!("there are no reorgs here"),
            }
        }
        step.commit(sha256).unwrap().commit
    }

    fn catch_up(&mut self) {
        catch_up(&mut self.runner, || 3);
    }
}

/// An outcome for a lane that is not there.
fn others_outcome(head: &Record) -> Record {
    let Record::Block(head) = head else { panic!("the head is a block") };
    Record::Outcome(Outcome {
        module: "other".parse().unwrap(),
        effect: EffectId { offset: Offset::new(3), index: 0 },
        key: EffectKey::Webhook { destination: "alerts".to_owned(), key: "k".to_owned() },
        block: head.header.this,
        result: EffectResult::Accepted,
        attempts: 1,
        at_millis: 0,
        head: head.header.this,
    })
}

#[test]
fn a_value_that_changed_under_a_lane_is_named_with_the_record_it_changed_at() {
    let mut records = straight(30);
    // Nothing concerns the lane at this record, and still its state has another value after it.
    records.insert(20, others_outcome(&records[19]));
    let mut scene = Scene::new(&TOKEN_LEDGER, &records, 20);
    let state = scene.state();
    let (key, value) = state.iter().nth(state.len() / 2).unwrap();
    let mut damaged = value.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let writes = BTreeMap::from([(key.clone(), Some(damaged))]);
    let commit = scene.step(vec![Applied { writes, ..Applied::default() }]);
    scene.catch_up();

    let difference = difference(&scene.store, &scene.lane());
    assert_eq!(difference.first_record(), Some(Offset::new(20)));
    let step = difference.step.unwrap();
    assert_eq!((step.commit, step.records), (commit, Offset::new(20)..Offset::new(21)));
    let named = difference.key.unwrap();
    assert_eq!((&named.key, named.live.as_ref()), (key, scene.state().get(key)));
    let fresh = Scene::new(&TOKEN_LEDGER, &records, records.len());
    assert_eq!(named.again.as_ref(), fresh.state().get(key));
    assert_eq!((difference.stopped, difference.effect, difference.gap), (None, None, None));
}

#[test]
fn the_records_of_a_step_that_do_not_concern_the_module_are_not_blamed() {
    // Transfers in every fourth block only.
    let mut parent = B256::ZERO;
    let records: Vec<Record> = (0..24)
        .map(|number| {
            let block = common::block(number, 0, parent, if number % 4 == 0 { 3 } else { 0 });
            parent = block.header.this.hash;
            Record::Block(block)
        })
        .collect();
    let mut scene = Scene::new(&TOKEN_LEDGER, &records, 11);
    let writes = BTreeMap::from([(b"stray".to_vec(), Some(b"1".to_vec()))]);
    let stray = Applied { writes, ..Applied::default() };
    let commit = scene.step(vec![Applied::default(), stray, Applied::default()]);
    scene.catch_up();
    let step = difference(&scene.store, &scene.lane()).step.unwrap();
    assert_eq!((step.commit, step.records), (commit, Offset::new(12)..Offset::new(13)));
}

#[test]
fn an_answer_that_changed_on_the_tape_is_named_with_what_it_leads_to() {
    let records = straight(12);
    let mut scene = Scene::new(&READER, &records, 11);
    let mut applied = scene.handled();
    let mut recorded = shepherd_host::answers(&applied.tape[0]).unwrap();
    let shepherd_host::ReadAnswer::Balance(balance) = &mut recorded[0] else { panic!("a balance") };
    *balance += alloy_primitives::U256::from(1);
    applied.tape[0].answer = encode_answers(&recorded);
    let commit = scene.step(vec![applied]);

    let difference = difference(&scene.store, &scene.lane());
    let step = difference.step.unwrap();
    assert_eq!((step.commit, step.records), (commit, Offset::new(11)..Offset::new(12)));
    let key = difference.key.unwrap();
    assert_eq!(key.key, b"answers");
    assert_ne!(key.live, key.again);
}

#[test]
fn a_tape_that_does_not_fit_is_named_with_the_record_and_the_call() {
    type Tamper = fn(&mut Applied);
    let tampers: [(Tamper, &str); 2] = [
        (|applied| applied.tape[0].request = Digest::ZERO, "read 0 of block 7"),
        (|applied| applied.tape.clear(), "is not on the tape, which has 0"),
    ];
    for (tamper, said) in tampers {
        let records = straight(12);
        let mut scene = Scene::new(&READER, &records, 7);
        let mut applied = scene.handled();
        tamper(&mut applied);
        scene.step(vec![applied]);
        scene.catch_up();
        let difference = difference(&scene.store, &scene.lane());
        assert_eq!(difference.first_record(), Some(Offset::new(7)));
        let stopped = difference.stopped.unwrap();
        assert_eq!(stopped.record, Offset::new(7));
        assert!(stopped.reason.contains(said), "{}", stopped.reason);
        assert_eq!((difference.step, difference.key), (None, None), "what came before is the same");
    }
}

#[test]
fn another_module_than_the_lane_ran_is_named_at_its_first_record() {
    let records = straight(12);
    let verify_as = |scene: &Scene, module: &'static BoundModule| {
        let dir = scratch();
        let mut load = |_: &LaneVersion, _: &LaneId| Ok(module.clone());
        let progress = &mut |_: &_| ();
        let lane = scene.lane();
        let verified =
            verify(&scene.store, &lane, &mut load, dir.path(), None, progress, &|| false);
        verified.unwrap().difference.expect("it is another module")
    };
    // One that does less.
    let reader = Scene::new(&READER, &records, 12);
    let difference = verify_as(&reader, &COUNTER);
    assert_eq!(difference.first_record(), Some(Offset::new(0)));
    assert_eq!(difference.step.unwrap().commit, 1);
    let key = difference.key.unwrap();
    assert_eq!((key.key.as_slice(), key.live.is_some(), key.again), (&b"answers"[..], true, None));
    // One that asks what was never answered.
    let counter = Scene::new(&COUNTER, &records, 12);
    let difference = verify_as(&counter, &READER);
    let stopped = difference.stopped.unwrap();
    assert_eq!(stopped.record, Offset::new(0));
    assert!(stopped.reason.contains("is not on the tape, which has 0"), "{}", stopped.reason);
}

#[test]
fn an_effect_that_differs_is_named() {
    let records = straight(12);
    let mut scene = Scene::new(&TELLER, &records, 9);
    let mut applied = scene.handled();
    applied.effects[0].body = b"{}".to_vec();
    scene.step(vec![applied]);
    scene.catch_up();
    let difference = difference(&scene.store, &scene.lane());
    assert_eq!(difference.step.unwrap().records, Offset::new(9)..Offset::new(10));
    let effect = difference.effect.unwrap();
    assert_eq!(effect.id, EffectId { offset: Offset::new(9), index: 0 });
    assert_eq!(effect.live.unwrap().1.body, b"{}");
    assert_ne!(effect.again.unwrap().1.body, b"{}");
}

#[test]
fn a_version_that_is_gone_is_said_with_the_record_it_ran_from() {
    let scene = Scene::new(&READER, &straight(12), 12);
    let dir = scratch();
    let mut load = |_: &LaneVersion, _: &LaneId| -> Result<BoundModule, LoadVersionError> {
        Err("it was removed".into())
    };
    let (lane, progress) = (scene.lane(), &mut |_: &_| ());
    let refused = verify(&scene.store, &lane, &mut load, dir.path(), None, progress, &|| false);
    let text = shepherd_rpc::in_words(&refused.unwrap_err());
    assert!(text.contains("from record 0") && text.ends_with("it was removed"), "{text}");
}

#[test]
fn an_interrupted_run_goes_on_and_a_finished_one_begins_again() {
    let records = straight(60);
    let mut scene = Scene::new(&TELLER, &records, 40);
    let (lane, dir) = (scene.lane(), scratch());
    let passed = std::cell::Cell::new(0);
    let interrupted = || {
        passed.set(passed.get() + 1);
        passed.get() > 15
    };
    let (live, progress) = (&scene.store, &mut |_: &_| ());
    let stopped = verify(live, &lane, &mut load, dir.path(), Some(4), progress, &interrupted);
    let Err(VerifyError::Interrupted { next, end, .. }) = stopped else { panic!("{stopped:?}") };
    assert!(next.get() > 0 && next < end && end == Offset::new(40), "{next} of {end}");

    // The lane goes on, before and while the run does.
    catch_up(&mut scene.runner, || 5);
    let mut from = None;
    let mut progress = |progress: &shepherd_replay::Progress| {
        from.get_or_insert(progress.from);
    };
    let live = &scene.store;
    let verified = verify(live, &lane, &mut load, dir.path(), None, &mut progress, &|| false);
    let verified = verified.unwrap();
    assert_eq!((verified.next, verified.difference), (Offset::new(60), None));
    assert_eq!((from, verified.records), (Some(next), 60));

    let mut from = None;
    let mut progress = |progress: &shepherd_replay::Progress| {
        from.get_or_insert(progress.from);
    };
    let again = verify(live, &lane, &mut load, dir.path(), None, &mut progress, &|| false);
    assert_eq!((from, again.unwrap().records), (Some(Offset::START), 60));

    // Another lane has no business there.
    let other = Scene::new(&TOKEN_LEDGER, &records, 40);
    let (live, progress) = (&other.store, &mut |_: &_| ());
    let refused = verify(live, &other.lane(), &mut load, dir.path(), None, progress, &|| false);
    assert!(matches!(refused, Err(VerifyError::Run(RunError::OtherRun { .. }))), "{refused:?}");
}

#[test]
fn a_run_does_not_go_on_over_other_records() {
    let scene = Scene::new(&TOKEN_LEDGER, &straight(12), 12);
    let dir = scratch();
    let (lane, spec) = (scene.lane(), serde_json::json!("a replay"));
    let open = |journal: &shepherd_log::Journal, from: u64| {
        let run = Run::open(dir.path(), &spec).unwrap();
        run.lane(&lane, journal, Offset::new(from)).map(drop)
    };
    let journal = journal(&scene.store);
    open(&journal, 0).unwrap();
    open(&journal, 0).unwrap();
    for refused in [open(&journal, 1), open(&others_journal().0, 0)] {
        assert!(matches!(refused, Err(RunError::OtherJournal { .. })), "{refused:?}");
    }
}

/// The same chain with another first block.
fn others_journal() -> (shepherd_log::Journal, tempfile::TempDir) {
    let dir = scratch();
    let journal = journal(&store(dir.path()));
    append_all(&journal, &[Record::Block(common::block(0, 7, B256::ZERO, 1))]);
    (journal, dir)
}

#[test]
fn a_lane_whose_first_records_were_removed_is_not_taken_for_a_damaged_one() {
    let dir = scratch();
    let store = store(dir.path());
    let journal = journal(&store);
    // Somewhat more than one segment of the journal, the grain of retention.
    let mut parent = B256::ZERO;
    let records: Vec<Record> = (0..17_000)
        .map(|number| {
            let block = common::block(number, 0, parent, 0);
            parent = block.header.this.hash;
            Record::Block(block)
        })
        .collect();
    append_all(&journal, &records);
    catch_up(&mut runner(&store, &TOKEN_LEDGER), || usize::MAX);
    let max_age = Some(std::time::Duration::from_secs(1));
    let retained = journal.retain(&Retention { max_age, ..Retention::default() }).unwrap();
    assert_eq!(retained.removed, Offset::START..journal.start());
    let (lane, progress) = (TOKEN_LEDGER.lane(), &mut |_: &_| ());
    let dir = scratch();
    let refused = verify(&store, lane, &mut load, dir.path(), None, progress, &|| false);
    let Err(VerifyError::Trimmed { from, trimmed_to, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!((from, trimmed_to), (Offset::START, journal.start()));
    assert!(Offset::START < trimmed_to);
}

#[test]
fn a_lane_that_has_passed_nothing_has_nothing_to_verify() {
    let scene = Scene::new(&TOKEN_LEDGER, &straight(3), 0);
    let dir = scratch();
    let Verified { next, commits, records, difference, .. } =
        verified(&scene.store, &scene.lane(), dir.path(), None);
    assert_eq!((next, commits, records, difference), (Offset::START, 0, 0, None));
    let dir = scratch();
    let (lane, progress) = ("other@devnet".parse().unwrap(), &mut |_: &_| ());
    let refused = verify(&scene.store, &lane, &mut load, dir.path(), None, progress, &|| false);
    assert!(matches!(refused, Err(VerifyError::NoLane(_))), "{refused:?}");
}
