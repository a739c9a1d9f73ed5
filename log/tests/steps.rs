//! What a step promises, seen from outside on real storage.

mod common;

use std::collections::BTreeMap;

use common::{
    Outcome, append_all, block_ref, catch_up, forked, fresh_outcome, journal, lane, open, outcome,
    run_toy, seed, snapshot, step, straight,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shepherd_log::{
    AppendError, Applied, ApplyError, Cursor, Digest, LaneError, LinkProblem, Offset,
    ROW_OVERHEAD_BYTES, Record, RecordView, Revert, RevertError, SizeError, Step, TapeEntry,
    Writes,
};

#[test]
fn a_dropped_step_leaves_the_cursor_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_all(&journal(&store), &straight(0, 5));
    let mut lane = lane(&store);
    step(&mut lane, 2);
    let before = (lane.cursor().clone(), outcome(&store));
    let mut dropped = lane.begin();
    let applied = run_toy(&mut dropped, block_ref(2, 0), Vec::new());
    dropped.apply(block_ref(2, 0), applied).unwrap();
    drop(dropped);
    assert_eq!((lane.cursor().clone(), outcome(&store)), before);
}

#[test]
fn a_step_that_passed_nothing_is_no_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_all(&journal(&store), &straight(0, 1));
    let mut lane = lane(&store);
    assert_eq!(lane.begin().commit([0; 32]).unwrap(), Cursor::default());
    assert_eq!(snapshot(&store).commits().count(), 0);
}

#[test]
fn cursor_and_state_survive_a_restart_together() {
    let dir = tempfile::tempdir().unwrap();
    let expected = {
        let store = open(dir.path());
        append_all(&journal(&store), &straight(0, 30));
        let cursor = catch_up(&mut lane(&store), || 4);
        (cursor, outcome(&store))
    };
    let store = open(dir.path());
    assert_eq!((lane(&store).cursor().clone(), outcome(&store)), expected);
}

#[test]
fn state_digest_and_tape_do_not_depend_on_how_the_journal_is_cut_into_steps() {
    let seed = seed();
    for round in 0..8 {
        let forked = forked(seed.wrapping_add(round), 150, common::REORG_DEPTH_MAX);
        let one_step = fresh_outcome(&forked.records);
        let mut rng = StdRng::seed_from_u64(seed ^ round);
        check_cuts(&forked.records, || 1, &one_step);
        check_cuts(&forked.records, || rng.random_range(1..20), &one_step);
    }
}

fn check_cuts(records: &[Record], cut: impl FnMut() -> usize, expected: &Outcome) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_all(&journal(&store), records);
    catch_up(&mut lane(&store), cut);
    assert_eq!(&outcome(&store), expected);
}

#[test]
fn after_reorgs_a_lane_equals_a_fresh_run_on_the_final_chain() {
    let seed = seed();
    for round in 0..8 {
        let forked = forked(seed.wrapping_add(round), 150, common::REORG_DEPTH_MAX);
        let fresh = fresh_outcome(&forked.canonical);
        // Live: the lane passes each record as soon as it is appended, and restarts now and then.
        let dir = tempfile::tempdir().unwrap();
        for chunk in forked.records.chunks(40) {
            let store = open(dir.path());
            let journal = journal(&store);
            let mut lane = lane(&store);
            for record in chunk {
                journal.append(journal.tail().offset, std::slice::from_ref(record)).unwrap();
                step(&mut lane, 1);
            }
        }
        let live = outcome(&open(dir.path()));
        assert_eq!(live.state, fresh.state);
        assert_eq!(live.lane_digest, fresh.lane_digest);
        assert_eq!(live.block, fresh.block);
    }
}

#[test]
fn a_lane_far_behind_takes_old_reorgs_back_too() {
    // Nothing but the last blocks is within reach of a reorg, yet the journal holds reverts that
    // a lane meets on its way.
    let forked = forked(seed(), 600, common::REORG_DEPTH_MAX);
    let fresh = fresh_outcome(&forked.canonical);
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_all(&journal(&store), &forked.records);
    catch_up(&mut lane(&store), || 3);
    let behind = outcome(&store);
    assert_eq!((behind.state, behind.lane_digest), (fresh.state, fresh.lane_digest));
}

#[test]
fn blocks_that_were_abandoned_before_they_ran_can_be_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let forked = forked(seed(), 200, 4);
    append_all(&journal(&store), &forked.records);
    let mut lane = lane(&store);
    while lane.cursor().next < lane.journal().tail().offset {
        let mut step = lane.begin();
        let stored = step.records().next().unwrap().unwrap();
        match (stored.record(), step.abandoned_by(stored.offset())) {
            (RecordView::Block(_), Some(revert)) if stored.offset().plus(1) == revert => {
                step.pass_abandoned(revert);
            }
            (RecordView::Block(view), _) => {
                let applied = run_toy(&mut step, view.this, view.to_block().logs);
                step.apply(view.this, applied).unwrap();
            }
            (RecordView::Revert(revert), _) => step.revert(&revert).unwrap(),
            (RecordView::Outcome(_), _) => unreachable!("this lane asks for nothing"),
        }
        step.commit(common::MODULE).unwrap();
    }
    let fresh = fresh_outcome(&forked.canonical);
    let passed = outcome(&store);
    assert_eq!((passed.state, passed.lane_digest), (fresh.state, fresh.lane_digest));
}

#[test]
fn a_revert_deeper_than_undo_is_refused_by_the_journal_and_by_the_lane() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let journal = journal(&store);
    append_all(&journal, &straight(0, 30));
    let mut lane = lane(&store);
    catch_up(&mut lane, || usize::MAX);
    let abandoned = (11..30).map(|number| block_ref(number, 0)).collect();
    let revert = Revert { ancestor: block_ref(10, 0), abandoned };
    let record = Record::Revert(revert.clone());
    let not_journaled = journal.append(journal.tail().offset, &[record]).unwrap_err();
    assert!(
        matches!(&not_journaled, AppendError::NotLinked { problem, .. }
            if matches!(**problem, LinkProblem::TooDeep { floor, .. } if floor == 29 - 8)),
        "{not_journaled}"
    );
    let refused = lane.begin().revert(&revert).unwrap_err();
    assert!(
        matches!(refused, RevertError::UndoGone { ancestor, undo_from }
            if ancestor == block_ref(10, 0) && undo_from > 11),
        "{refused}"
    );
}

#[test]
fn undo_that_no_reorg_can_ask_for_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let journal = journal(&store);
    let mut lane = lane(&store);
    for record in straight(0, 60) {
        journal.append(journal.tail().offset, &[record]).unwrap();
        step(&mut lane, 1);
    }
    let undo_from = lane.cursor().undo_from;
    assert!((60 - common::REORG_DEPTH_MAX - 3..=60).contains(&undo_from), "{undo_from}");
}

#[test]
fn a_list_shows_the_steps_own_changes_in_key_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_all(&journal(&store), &straight(0, 3));
    let mut lane = lane(&store);
    let put = |entries: &[(&str, Option<&str>)]| -> Writes {
        let bytes = |text: &str| text.as_bytes().to_vec();
        entries.iter().map(|(key, value)| (bytes(key), value.map(bytes))).collect()
    };
    let mut step = lane.begin();
    let writes =
        put(&[("a/1", Some("1")), ("a/3", Some("3")), ("a/5", Some("5")), ("b", Some("x"))]);
    step.apply(block_ref(0, 0), Applied { writes, ..Applied::default() }).unwrap();
    step.commit([0; 32]).unwrap();

    let mut step = lane.begin();
    let writes = put(&[("a/2", Some("2")), ("a/3", None), ("a/5", Some("five")), ("c", Some("y"))]);
    step.apply(block_ref(1, 0), Applied { writes, ..Applied::default() }).unwrap();
    step.get(b"a/4").unwrap();
    let mut list = |prefix: &str, after: Option<&str>, limit| -> Vec<(String, String)> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        step.list(prefix.as_bytes(), after.map(str::as_bytes), limit)
            .unwrap()
            .into_iter()
            .map(|(key, value)| (text(key), text(value)))
            .collect()
    };
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    assert_eq!(list("a/", None, 9), pairs(&[("a/1", "1"), ("a/2", "2"), ("a/5", "five")]));
    assert_eq!(list("a/", None, 2), pairs(&[("a/1", "1"), ("a/2", "2")]));
    assert_eq!(list("a/", Some("a/2"), 9), pairs(&[("a/5", "five")]));
    assert_eq!(list("", Some("a/5"), 9), pairs(&[("b", "x"), ("c", "y")]));
    assert_eq!(list("d", None, 9), pairs(&[]));
    assert_eq!(list("a/", None, 0), pairs(&[]));
}

#[test]
fn oversized_changes_are_typed_errors_before_the_engine_sees_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_all(&journal(&store), &straight(0, 2));
    let mut lane = lane(&store);
    let many: Writes = (0..50_000u32).map(|n| (n.to_be_bytes().to_vec(), Some(vec![]))).collect();
    let cases: [(&str, Writes); 4] = [
        ("empty key", Writes::from([(vec![], Some(vec![1]))])),
        ("long key", Writes::from([(vec![1; 1025], Some(vec![1]))])),
        ("long value", Writes::from([(vec![1], Some(vec![1; (1 << 20) + 1]))])),
        ("too many", many),
    ];
    for (case, writes) in cases {
        let refused = lane
            .begin()
            .apply(block_ref(0, 0), Applied { writes, ..Applied::default() })
            .unwrap_err();
        let expected = matches!(
            (case, &refused),
            ("empty key" | "long key", ApplyError::Size(SizeError::Key { .. }))
                | ("long value", ApplyError::Size(SizeError::Value { .. }))
                | ("too many", ApplyError::Size(SizeError::Batch { .. }))
        );
        assert!(expected, "{case}: {refused}");
    }
    let largest = Writes::from([(vec![1; 1024], Some(vec![1; 1 << 20]))]);
    let mut step = lane.begin();
    step.apply(block_ref(0, 0), Applied { writes: largest, ..Applied::default() }).unwrap();
    step.commit([0; 32]).unwrap();
    assert_eq!(lane.cursor().next, Offset::new(1));
}

#[test]
fn a_step_that_is_almost_full_takes_one_more_record_of_the_largest_size() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_all(&journal(&store), &straight(0, 4));
    let mut lane = lane(&store);
    let values = |key: u8, count: u8, bytes: usize| -> Writes {
        (0..count).map(|n| (vec![key, n], Some(vec![n; bytes]))).collect()
    };
    let largest = Applied {
        writes: values(1, 3, (1 << 20) - ROW_OVERHEAD_BYTES - 2),
        tape: (0..2)
            .map(|call| TapeEntry {
                call,
                request: Digest::ZERO,
                answer: vec![7; (1 << 20) - ROW_OVERHEAD_BYTES],
            })
            .collect(),
        effects: Vec::new(),
        fuel: 1,
    };
    for round in 0..2 {
        let mut step = lane.begin();
        let almost = values(2, 200, 7000);
        step.apply(block_ref(round * 2, 0), Applied { writes: almost, ..Applied::default() })
            .unwrap();
        assert!(!step.is_full());
        step.apply(block_ref(round * 2 + 1, 0), largest.clone()).unwrap();
        assert!(step.is_full());
        step.commit([0; 32]).unwrap();
    }
}

#[test]
fn what_a_record_replaces_may_be_larger_than_a_batch() {
    assert!(removes_and_reverts(2));
    // What comes back must fit one batch, else it is said instead of written in pieces.
    assert!(!removes_and_reverts(6));
}

/// Blocks set two values of a megabyte each, one more removes them all, and a revert takes that
/// back: whether it could.
fn removes_and_reverts(blocks: u8) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let journal = journal(&store);
    append_all(&journal, &straight(0, u64::from(blocks) + 1));
    let mut lane = lane(&store);
    let mut apply = |number: u8, writes: Writes| {
        let mut step = lane.begin();
        step.apply(block_ref(number.into(), 0), Applied { writes, ..Applied::default() }).unwrap();
        step.commit([0; 32]).unwrap();
    };
    for number in 0..blocks {
        let large = |n: u8| (vec![n], Some(vec![n; 1 << 20]));
        apply(number, Writes::from([large(number * 2), large(number * 2 + 1)]));
    }
    let before = snapshot(&store).state_digest().unwrap();
    apply(blocks, (0..blocks * 2).map(|n| (vec![n], None)).collect());
    assert_eq!(snapshot(&store).entries(&[], None).count(), 0);

    let (ancestor, removal) = (u64::from(blocks) - 1, u64::from(blocks));
    let revert =
        Revert { ancestor: block_ref(ancestor, 0), abandoned: vec![block_ref(removal, 0)] };
    append_all(&journal, &[Record::Revert(revert.clone())]);
    let cursor = lane.cursor().clone();
    let mut step = lane.begin();
    step.revert(&revert).unwrap();
    match step.commit([0; 32]) {
        Ok(_) => assert_eq!(snapshot(&store).state_digest().unwrap(), before),
        Err(ApplyError::Size(SizeError::Batch { .. })) => assert_eq!(*lane.cursor(), cursor),
        Err(error) => panic!("{error}"),
    }
    lane.cursor().next > cursor.next
}

#[test]
fn a_lane_has_one_holder_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_all(&journal(&store), &straight(0, 1));
    let held = lane(&store);
    let id = common::LANE.parse().unwrap();
    assert!(matches!(store.lane(&id), Err(LaneError::Open(_))));
    drop(held);
    assert!(store.lane(&id).is_ok());
}

#[test]
fn each_commit_leaves_a_row_that_says_what_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_all(&journal(&store), &straight(0, 10));
    let mut lane = lane(&store);
    catch_up(&mut lane, || 4);
    let commits: Vec<_> = snapshot(&store).commits().map(Result::unwrap).collect();
    let ranges: Vec<_> =
        commits.iter().map(|c| (c.number, c.records.start.get(), c.records.end.get())).collect();
    assert_eq!(ranges, [(1, 0, 4), (2, 4, 8), (3, 8, 10)]);
    assert!(commits.iter().all(|commit| commit.module == common::MODULE));
    assert_eq!(commits[1].fuel, 5 + 6 + 7 + 8);
    assert_eq!(commits[2].digest, lane.cursor().digest);
    assert_eq!(commits[2].block, Some(block_ref(9, 0)));
}

#[test]
fn a_rehearsal_knows_the_digest_before_each_record_also_when_a_revert_told_something() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let journal = journal(&store);
    append_all(&journal, &straight(0, 4));
    let revert = Revert { ancestor: block_ref(2, 0), abandoned: vec![block_ref(3, 0)] };
    let again = common::block(block_ref(3, 1), block_ref(2, 0).hash, 1);
    append_all(&journal, &[Record::Revert(revert.clone()), Record::Block(again)]);
    let pass = |step: &mut Step<'_>, offset: u64| {
        let writes = Writes::from([(vec![offset as u8 + 1], Some(vec![1]))]);
        let applied = Applied { writes, ..Applied::default() };
        match offset {
            4 => {
                step.revert(&revert).unwrap();
                step.told_by_revert(applied).unwrap();
            }
            5 => step.apply(block_ref(3, 1), applied).unwrap(),
            _ => step.apply(block_ref(offset, 0), applied).unwrap(),
        }
    };
    let mut lane = lane(&store);
    for offset in 0..6 {
        let mut step = lane.begin();
        pass(&mut step, offset);
        step.commit([0; 32]).unwrap();
    }
    let digest = lane.cursor().digest;
    let mut step = lane.begin();
    let before: BTreeMap<Offset, Digest> = step.go_back().unwrap().into_iter().collect();
    // Block 0 can never be taken back.
    assert_eq!(before.len(), 3, "blocks 1 and 2 and the one that counts at height 3");
    for offset in 1..6 {
        let cursor = step.cursor();
        let known = before.get(&cursor.next).unwrap_or(&cursor.digest);
        assert_eq!(*known, cursor.digest, "before record {offset}");
        pass(&mut step, offset);
    }
    assert_eq!((step.cursor().digest, step.first_difference().unwrap()), (digest, None));
}

#[test]
fn a_rehearsal_goes_back_only_over_what_can_be_taken_back_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let journal = journal(&store);
    let records = straight(0, 60);
    let mut lane = lane(&store);
    // So many rows of undo that one step does not remove them all.
    append_all(&journal, &records[..10]);
    for number in 0..10u64 {
        let writes = (0..2_000u32).map(|n| (n.to_be_bytes().to_vec(), Some(vec![number as u8])));
        let mut step = lane.begin();
        let applied = Applied { writes: writes.collect(), ..Applied::default() };
        step.apply(block_ref(number, 0), applied).unwrap();
        step.commit([0; 32]).unwrap();
    }
    append_all(&journal, &records[10..]);
    let mut step = lane.begin();
    let writes = Writes::from([(vec![1], Some(vec![1]))]);
    step.apply(block_ref(10, 0), Applied { writes, ..Applied::default() }).unwrap();
    step.commit([0; 32]).unwrap();
    assert_eq!(lane.cursor().undo_from, 11, "block 10 cannot be taken back");
    assert_eq!(lane.begin().go_back().unwrap(), []);
}
