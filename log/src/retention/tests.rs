//! Here, and not in `tests/`, because segments are short in unit tests.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use alloy_primitives::{Address, B256};
use common::{
    append_all, block_ref, copy, cut_log, forked, journal, lower_the_mark, open, options, outcome,
    seed, step, straight, write_ahead_log, written_bytes,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::{
    Applied, Deliver, Effect, EffectKey, EffectResult, Lane, LogFilter, Metrics, Options, Record,
    Revert, Settled, Store,
};

const EVERYTHING: Retention = Retention { max_age: Some(Duration::ZERO), max_bytes: None };

fn lane(store: &Store, name: &str) -> Lane {
    store.lane(&name.parse().unwrap()).unwrap()
}

/// Insists that the journal holds these records from its start on, and that nothing is wrong.
fn check_journal(journal: &Journal, all: &[Record]) {
    let (start, tail) = (journal.start(), journal.tail().offset);
    assert!(start == Offset::START || is_cut(&all[..tail.get() as usize], start.get()));
    let from = usize::try_from(start.get()).unwrap();
    let to = usize::try_from(tail.get()).unwrap();
    let records = &all[from..to];
    let mut read = journal.read(Offset::START..tail).peekable();
    if start > Offset::START {
        let trimmed = read.next().unwrap();
        assert!(matches!(
            trimmed,
            Err(ReadError::Trimmed { wanted: Offset::START, trimmed_to }) if trimmed_to == start
        ));
    }
    assert!(read.map(|stored| stored.unwrap().record().to_record()).eq(records.iter().cloned()));
    let report = journal.verify(start..tail, |_| Ok(())).unwrap();
    assert!(report.is_clean(), "{:?}", report.problems);
    let found = journal.find(start..tail, &LogFilter::default());
    let with_logs =
        |record: &&Record| matches!(record, Record::Block(block) if !block.logs.is_empty());
    assert_eq!(found.map(Result::unwrap).count(), records.iter().filter(with_logs).count());
    let stat = journal.stat().unwrap();
    let blocks = records.iter().filter(|record| matches!(record, Record::Block(_)));
    assert_eq!((stat.start, stat.blocks), (start, blocks.count() as u64));
    let reorgs = journal.reverts().unwrap();
    assert_eq!(reorgs.len() as u64, stat.reverts);
    for reorg in reorgs {
        let first = journal.read(reorg.first_abandoned..tail).next().unwrap().unwrap();
        assert_eq!(first.head(), reorg.abandoned[0], "the revert at {}", reorg.offset);
    }
    let removed = all[..from].iter().rev().take(3);
    for record in removed {
        if let Record::Block(block) = record {
            let at = journal.offset_of(block.header.this).unwrap();
            assert!(at.is_none_or(|at| at >= start));
        }
    }
}

/// A chain with reorgs that can be cut somewhere: the first of these seeds that makes one.
fn forked_and_cuttable(seed: u64, length: usize) -> Vec<Record> {
    let chains = (0..).map(|more| forked(seed.wrapping_add(more), length, 4).records);
    let is_cuttable = |records: &Vec<Record>| {
        cuts(Offset::START, Offset::new(length as u64 - 100)).any(|cut| is_cut(records, cut.get()))
    };
    chains.into_iter().find(is_cuttable).expect("every second boundary will do")
}

/// Whether a block stands at `cut`, and no revert from there on goes back to one before it.
fn is_cut(records: &[Record], cut: u64) -> bool {
    let mut canonical = Vec::new();
    for (offset, record) in (0u64..).zip(records) {
        match record {
            Record::Block(_) => canonical.push(offset),
            Record::Revert(revert) => {
                canonical.truncate(canonical.len() - revert.abandoned.len());
                if offset >= cut && canonical.last().is_none_or(|ancestor| *ancestor < cut) {
                    return false;
                }
            }
            Record::Outcome(_) => (),
        }
    }
    matches!(records[usize::try_from(cut).unwrap()], Record::Block(_))
}

fn random_retention(rng: &mut StdRng) -> Retention {
    Retention {
        max_age: rng.random_bool(0.8).then(|| Duration::from_secs(rng.random_range(0..15_000))),
        max_bytes: rng.random_bool(0.3).then(|| rng.random_range(0..400_000)),
    }
}

#[test]
fn nothing_that_is_needed_is_lost_and_lanes_go_on_to_the_same_digest() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let all = forked_and_cuttable(seed, 2600);
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    append_all(&journal(&store), &all[..10]);
    let mut lanes = BTreeMap::from([
        ("toy@testnet".to_owned(), lane(&store, "toy@testnet")),
        ("slow@testnet".to_owned(), lane(&store, "slow@testnet")),
    ]);
    let mut began = BTreeMap::new();
    let mut removals = 0;
    let mut hold: Option<(RetentionHold, Offset)> = None;
    while journal(&store).tail().offset.get() < all.len() as u64 {
        let journal = journal(&store);
        let have = usize::try_from(journal.tail().offset.get()).unwrap();
        let end = (have + rng.random_range(1..200)).min(all.len());
        append_all(&journal, &all[have..end]);
        for (name, lane) in &mut lanes {
            let records = if name.starts_with("slow") { 0..210 } else { 0..400 };
            step(lane, rng.random_range(records));
        }
        if rng.random_bool(0.1) {
            let at = Offset::new(rng.random_range(journal.start().get()..end as u64));
            hold = rng.random_bool(0.5).then(|| (journal.hold(at), at));
        }
        if rng.random_bool(0.3) {
            let before = journal.start();
            let retention = random_retention(&mut rng);
            let outlook = journal.retention_outlook(&retention).unwrap();
            let retained = journal.retain(&retention).unwrap();
            let start = journal.start();
            assert_eq!(retained.removed, before..start);
            assert!(start <= outlook.wanted && start.get().is_multiple_of(SEGMENT_RECORDS));
            let needed = outlook.needed.unwrap();
            assert!(start <= needed.1);
            match &retained.blocked {
                Some(blocked) => {
                    assert_eq!((&blocked.by, blocked.at), (&needed.0, needed.1));
                    assert!(outlook.used > 0.0 || retention.max_age == Some(Duration::ZERO));
                }
                None => assert!(segment_start(needed.1) >= outlook.wanted),
            }
            assert!(hold.iter().all(|(_, at)| start <= *at));
            assert!(lanes.values().all(|lane| start <= lane.cursor().next));
            removals += u64::from(start > before);
            if start > before {
                check_journal(&journal, &all);
            }
        }
        if rng.random_bool(0.05) {
            let name = format!("late-{}@testnet", began.len());
            let late = lane(&store, &name);
            assert_eq!(late.cursor().next, journal.start());
            began.insert(name.clone(), late.cursor().next);
            lanes.insert(name, late);
        }
        if rng.random_bool(0.1) {
            let names: Vec<String> = lanes.keys().cloned().collect();
            drop((std::mem::take(&mut lanes), hold.take(), journal, store));
            store = open(dir.path());
            lanes = names.into_iter().map(|name| (name.clone(), lane(&store, &name))).collect();
        }
    }
    for lane in lanes.values_mut() {
        common::catch_up(lane, || 500);
    }
    println!("{removals} removals, {} late lanes", began.len());
    drop(hold);
    let retained = journal(&store).retain(&EVERYTHING).unwrap();
    assert!(journal(&store).start() > Offset::START, "{retained:?}");
    let end = |name: &str| store.lane_snapshot(&name.parse().unwrap()).unwrap().unwrap();
    let expected = common::fresh_outcome(&all);
    assert_eq!(outcome(&store), expected);
    assert_eq!(end("slow@testnet").cursor().digest, expected.lane_digest);
    for (name, from) in began {
        let expected = common::fresh_outcome(&all[usize::try_from(from.get()).unwrap()..]);
        assert_eq!(end(&name).cursor().digest, expected.lane_digest, "{name} from {from}");
        assert_eq!(end(&name).state_digest().unwrap(), expected.state, "{name} from {from}");
    }
    drop(lanes);
    check_journal(&journal(&store), &all);
}

#[test]
fn after_every_cut_of_the_log_a_trimmed_journal_is_whole_or_refused() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let all = forked_and_cuttable(seed, 1700);
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    {
        let store = open(dir.path());
        let journal = journal(&store);
        let mut lane = lane(&store, "toy@testnet");
        for records in all.chunks(64) {
            journal.append(journal.tail().offset, records).unwrap();
            step(&mut lane, 64);
            if !journal.retain(&EVERYTHING).unwrap().removed.is_empty() {
                last = written_bytes(&write_ahead_log(dir.path()));
            }
        }
        assert!(journal.start() > Offset::START);
    }
    let expected = common::fresh_outcome(&all);
    let (mut opened, mut refused) = (0, 0);
    for round in 0..12 {
        let copied = tempfile::tempdir().unwrap();
        copy(dir.path(), copied.path());
        lower_the_mark(copied.path());
        let end = written_bytes(&write_ahead_log(copied.path()));
        // After the last removal nothing may stand in the way.
        let cut =
            if round % 2 == 0 { rng.random_range(last..=end) } else { rng.random_range(0..end) };
        cut_log(copied.path(), cut, rng.random_bool(0.5));
        let store = catch_unwind(AssertUnwindSafe(|| Store::open(copied.path(), options())));
        let Ok(Ok(store)) = store else {
            assert!(cut < last, "cut at {cut} after the last removal at {last}");
            refused += 1;
            continue;
        };
        opened += 1;
        let journal = journal(&store);
        check_journal(&journal, &all);
        let have = usize::try_from(journal.tail().offset.get()).unwrap();
        append_all(&journal, &all[have..]);
        common::catch_up(&mut lane(&store, "toy@testnet"), || 100);
        check_journal(&journal, &all);
        assert_eq!(outcome(&store), expected);
    }
    println!("{opened} opened, {refused} refused");
    assert!(opened > 0);
}

/// Opens the engine of a store, as a crash would have left it.
fn leave_behind(dir: &Path, tree: &str) {
    common::with_engine(dir, |database| {
        common::keyspace(database, tree).insert([0; 10], [1, 2, 3]).unwrap();
    });
}

#[test]
fn a_removal_that_was_killed_is_finished_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let all = straight(0, 2000);
    {
        let store = open(dir.path());
        append_all(&journal(&store), &all);
        let retained = journal(&store).retain(&EVERYTHING).unwrap();
        assert_eq!(retained.removed, Offset::START..Offset::new(1536));
    }
    let trees = ["journal-00000-00000000", "journal-00000-00000002", "index-00000-00000002"];
    trees.iter().for_each(|tree| leave_behind(dir.path(), tree));
    let store = open(dir.path());
    check_journal(&journal(&store), &all);
    drop(store);
    common::with_engine(dir.path(), |database| {
        for tree in trees {
            assert!(!database.keyspace_exists(tree), "{tree}");
        }
    });
}

#[test]
fn a_journal_whose_first_segment_is_lost_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    append_all(&journal(&open(dir.path())), &straight(0, 1100));
    common::with_engine(dir.path(), |database| {
        let segment = common::keyspace(database, "journal-00000-00000000");
        database.delete_keyspace(segment).unwrap();
    });
    let refused = Store::open(dir.path(), options()).err().expect("records are missing");
    assert!(refused.to_string().contains("record 0 is missing"), "{refused}");
}

#[test]
fn an_unsettled_effect_and_a_hold_keep_their_records() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let journal = journal(&store);
    append_all(&journal, &straight(0, 1600));
    let mut lane = lane(&store, "toy@testnet");
    let key = EffectKey::Webhook { destination: "ops".to_owned(), key: "a".to_owned() };
    let effect = Effect { key, body: vec![], deliver: Deliver::Instant, expires: u64::MAX };
    let mut step = lane.begin();
    for number in 0..1600 {
        let effects = if number == 700 { vec![effect.clone()] } else { vec![] };
        step.apply(block_ref(number, 0), Applied { effects, ..Applied::default() }).unwrap();
    }
    step.commit(common::MODULE).unwrap();

    let retained = journal.retain(&EVERYTHING).unwrap();
    assert_eq!(retained.removed, Offset::START..Offset::new(512));
    let blocked = retained.blocked.expect("the effect blocks");
    let lane_id = lane.id().clone();
    assert_eq!((blocked.by, blocked.at), (Blocker::Effect(lane_id), Offset::new(700)));
    assert_eq!(blocked.since, common::block(block_ref(700, 0), B256::ZERO, 0).header.timestamp);

    let outbox = lane.outbox();
    let id = outbox.unsettled()[0].id;
    let result = EffectResult::Accepted;
    outbox.settle(vec![Settled { id, result, attempts: 1, at_millis: 0 }]).unwrap();
    let hold = journal.hold(Offset::new(600));
    let retained = journal.retain(&EVERYTHING).unwrap();
    assert!(retained.removed.is_empty());
    let blocked = retained.blocked.expect("the hold blocks");
    assert_eq!((blocked.by, blocked.at), (Blocker::Hold, Offset::new(600)));

    drop(hold);
    let retained = journal.retain(&EVERYTHING).unwrap();
    assert_eq!(retained.removed, Offset::new(512)..Offset::new(1536));
    assert_eq!(retained.blocked, None);
}

#[test]
fn the_alarm_comes_before_the_slowest_lane_holds_retention_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_all(&journal(&store), &straight(0, 2001));
    let lane = lane(&store, "slow@testnet");
    // The lane stands at the first of 2 001 blocks: 24 000 seconds behind the head.
    for (max_age, used, alarm, blocked) in
        [(48_000, 0.5, false, false), (30_000, 0.8, true, false), (12_000, 2.0, true, true)]
    {
        let retention = Retention { max_age: Some(Duration::from_secs(max_age)), max_bytes: None };
        let outlook = journal(&store).retention_outlook(&retention).unwrap();
        assert_eq!((outlook.used, outlook.alarm), (used, alarm), "{max_age}");
        let (by, at) = outlook.needed.unwrap();
        assert_eq!((by, at), (Blocker::Lane(lane.id().clone()), Offset::START));
        let retained = journal(&store).retain(&retention).unwrap();
        assert!(retained.removed.is_empty());
        assert_eq!(retained.blocked.is_some(), blocked, "{max_age}");
    }
}

#[test]
fn what_lies_behind_is_counted_while_segments_grow() {
    for (from_segment, from_next, passed, behind) in
        [(100, 60, 0.0, 100.0), (100, 60, 0.5, 80.0), (100, 100, 0.5, 100.0), (0, 60, 0.5, 0.0)]
    {
        assert_eq!(bytes_behind(from_segment, from_next, passed), behind);
    }
}

#[test]
fn the_alarm_stays_while_records_are_appended() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let journal = journal(&store);
    let all = straight(0, 1200);
    append_all(&journal, &all[..600]);
    // So many that a look takes longer than an append.
    for number in 0..300 {
        drop(lane(&store, &format!("toy-{number}@testnet")));
    }
    let retention = Retention { max_age: Some(Duration::from_secs(1)), max_bytes: None };
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for record in all[600..].chunks(1) {
                journal.append(journal.tail().offset, record).unwrap();
            }
            is_done.store(true, Ordering::Relaxed);
        });
        while !is_done.load(Ordering::Relaxed) {
            assert!(journal.retention_outlook(&retention).unwrap().alarm);
        }
    });
}

#[test]
fn each_row_of_the_block_index_is_removed_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut registry = Registry::default();
    let store =
        Store::open(dir.path(), Options { metrics: Metrics::new(&mut registry), ..options() })
            .unwrap();
    let committed = || {
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("shepherd_commit_bytes_total "));
        line.unwrap().parse::<usize>().unwrap()
    };
    append_all(&journal(&store), &straight(0, 3000));
    let before = committed();
    let removed = journal(&store).retain(&EVERYTHING).unwrap().removed;
    assert_eq!(removed, Offset::START..Offset::new(5 * SEGMENT_RECORDS));
    let keys = 5 * SEGMENT_RECORDS as usize * codec::block_key(0, block_ref(0, 0)).len();
    // Besides them, a few rows say where the journal starts.
    assert!((keys..keys + 1000).contains(&(committed() - before)));
}

#[test]
fn no_revert_goes_back_over_a_cut() {
    // The first record behind the cut is abandoned: a lane that began there would stand on a
    // block before it.
    let (ancestor, abandoned) = (block_ref(511, 0), (512..514).map(|number| block_ref(number, 0)));
    let mut all = straight(0, 514);
    all.push(Record::Revert(Revert { ancestor, abandoned: abandoned.collect() }));
    let mut parent = ancestor.hash;
    for number in 512..1100 {
        let this = block_ref(number, 1);
        all.push(Record::Block(common::block(this, parent, 2)));
        parent = this.hash;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_all(&journal(&store), &all[..1000]);
    assert!(journal(&store).retain(&EVERYTHING).unwrap().removed.is_empty());
    append_all(&journal(&store), &all[1000..]);
    assert_eq!(journal(&store).retain(&EVERYTHING).unwrap().removed.end, Offset::new(1024));
    check_journal(&journal(&store), &all);
}

#[test]
fn the_oldest_segments_go_until_the_rest_takes_no_more_than_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let journal = journal(&store);
    append_all(&journal, &straight(0, 3000));
    // What is on disk is counted once the engine has sorted it.
    for tree in journal.segments().values() {
        tree.rotate_memtable_and_wait().unwrap();
    }
    let whole = journal.stat().unwrap();
    let sizes: Vec<u64> =
        whole.segments.iter().map(|one| one.record_bytes + one.index_bytes).collect();
    assert!(sizes.len() == 6 && sizes.iter().all(|size| *size > 0), "{sizes:?}");
    let last_three: u64 = sizes[3..].iter().sum();
    for (max_bytes, start) in [
        (whole.bytes_on_disk, 0),
        (whole.bytes_on_disk - 1, 512),
        (last_three, 3 * 512),
        (0, 5 * 512),
    ] {
        let retention = Retention { max_age: None, max_bytes: Some(max_bytes) };
        let bytes = journal.retain(&retention).unwrap().bytes;
        assert_eq!(journal.start(), Offset::new(start), "{max_bytes} bytes");
        assert_eq!(bytes > 0, start > 0);
    }
    assert!(journal.stat().unwrap().bytes_on_disk <= sizes[5]);
}

#[test]
fn readers_appends_removals_and_rebuilds_do_not_disturb_each_other() {
    let seed = seed();
    let all = forked_and_cuttable(seed, 2600);
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let journal = journal(&store);
    append_all(&journal, &all[..64]);
    let filter =
        LogFilter { addresses: [Address::repeat_byte(4)].into(), topic0: Default::default() };
    let matches = |offset: &usize| match &all[*offset] {
        Record::Block(block) => {
            block.logs.iter().any(|log| filter.addresses.contains(&log.address))
        }
        _ => false,
    };
    let is_done = AtomicBool::new(false);
    let done = || is_done.load(Ordering::Relaxed);
    let (mut reads, mut trimmed) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for records in all[64..].chunks(50) {
                journal.append(journal.tail().offset, records).unwrap();
            }
            is_done.store(true, Ordering::Relaxed);
        });
        scope.spawn(|| {
            while !done() {
                journal.retain(&EVERYTHING).unwrap();
            }
        });
        scope.spawn(|| {
            while !done() {
                journal.reindex(|_| ()).unwrap();
            }
        });
        while !done() {
            let mut from = journal.start();
            let tail = journal.tail().offset;
            let mut found = Vec::new();
            for item in journal.find(from..tail, &filter) {
                match item {
                    Ok(stored) => found.push(usize::try_from(stored.offset().get()).unwrap()),
                    Err(ReadError::Trimmed { trimmed_to, .. }) => {
                        assert!(found.is_empty(), "what a reader began is not taken from it");
                        (from, trimmed) = (trimmed_to, trimmed + 1);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            let range = usize::try_from(from.get()).unwrap()..usize::try_from(tail.get()).unwrap();
            assert_eq!(found, range.filter(matches).collect::<Vec<_>>(), "{from}..{tail}");
            reads += 1;
            if reads % 4 == 0 {
                assert_eq!(journal.stat().unwrap().outcomes, 0);
                journal.reverts().unwrap();
            }
        }
    });
    println!("{reads} reads, {trimmed} began below the start");
    assert!(reads > 0 && journal.start() > Offset::START);
    check_journal(&journal, &all);
}
