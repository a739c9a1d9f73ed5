//! What the journal promises, seen from outside on real storage.

mod common;

use std::time::Duration;

use alloy_primitives::B256;
use common::{append_all, block, block_ref, forked, journal, open, seed, straight};
use shepherd_log::{
    AppendError, BlockRef, Digest, GenesisError, JournalError, LinkProblem, Offset, Record,
    Retention, Revert, Store, TimedBlock,
};

#[test]
fn what_was_appended_is_read_back_in_order_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let records = forked(seed(), 300, 5).records;
    append_all(&journal(&open(dir.path())), &records);

    let store = open(dir.path());
    let journal = journal(&store);
    assert_eq!(journal.tail().offset, Offset::new(records.len() as u64));
    let read: Vec<Record> = journal
        .read(Offset::START..journal.tail().offset)
        .map(|stored| stored.unwrap().record().to_record())
        .collect();
    assert_eq!(read, records);
}

#[test]
fn a_range_stops_at_the_tail_and_starts_where_asked() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&open(dir.path()));
    append_all(&journal, &straight(100, 10));
    let offsets = |range| -> Vec<u64> {
        journal.read(range).map(|stored| stored.unwrap().offset().get()).collect()
    };
    assert_eq!(offsets(Offset::new(7)..Offset::new(99)), [7, 8, 9]);
    assert_eq!(offsets(Offset::new(3)..Offset::new(5)), [3, 4]);
    assert_eq!(offsets(Offset::new(5)..Offset::new(5)), [] as [u64; 0]);
}

#[test]
fn records_are_appended_only_at_the_expected_tail() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&open(dir.path()));
    let records = straight(0, 3);
    journal.append(Offset::START, &records[..2]).unwrap();
    let again = journal.append(Offset::START, &records[..2]).unwrap_err();
    assert!(matches!(
        again,
        AppendError::NotTheTail { expected: Offset::START, tail } if tail == Offset::new(2)
    ));
    journal.append(Offset::new(2), &records[2..]).unwrap();
}

#[test]
fn a_record_that_does_not_link_is_refused_and_nothing_is_appended() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&open(dir.path()));
    append_all(&journal, &straight(10, 5));
    let head = block_ref(14, 0);
    let tail = journal.tail();
    let revert = |ancestor: BlockRef, abandoned: Vec<BlockRef>| {
        Record::Revert(Revert { ancestor, abandoned })
    };
    let mut out_of_order = block(block_ref(15, 0), head.hash, 3);
    out_of_order.logs.swap(0, 1);

    let cases = [
        ("wrong parent", Record::Block(block(block_ref(15, 0), B256::ZERO, 0))),
        ("gap", Record::Block(block(block_ref(16, 0), head.hash, 0))),
        ("same height", Record::Block(block(block_ref(14, 1), block_ref(13, 0).hash, 0))),
        ("logs out of order", Record::Block(out_of_order)),
        ("unknown ancestor", revert(block_ref(13, 9), vec![head])),
        ("ancestor below the journal", revert(block_ref(9, 0), vec![head])),
        ("not all abandoned", revert(block_ref(12, 0), vec![head])),
        ("others abandoned", revert(block_ref(13, 0), vec![block_ref(14, 1)])),
        ("nothing abandoned", revert(head, vec![])),
    ];
    for (case, record) in cases {
        let good_then_bad = [
            Record::Block(block(block_ref(15, 7), head.hash, 1)),
            revert(head, vec![block_ref(15, 7)]),
            record,
        ];
        let refused = journal.append(tail.offset, &good_then_bad).unwrap_err();
        assert!(
            matches!(&refused, AppendError::NotLinked { offset, .. } if offset.get() == 7),
            "{case}: {refused}"
        );
        assert_eq!(journal.tail(), tail, "{case}");
    }
    assert_eq!(journal.read(Offset::START..Offset::new(99)).count(), 5);
}

#[test]
fn a_revert_before_any_block_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&open(dir.path()));
    let revert = Revert { ancestor: block_ref(1, 0), abandoned: vec![block_ref(2, 0)] };
    let refused = journal.append(Offset::START, &[Record::Revert(revert)]).unwrap_err();
    assert!(matches!(
        refused,
        AppendError::NotLinked { problem, .. } if *problem == LinkProblem::NoBlock
    ));
}

#[test]
fn the_canonical_block_at_each_height_is_the_one_no_revert_abandoned() {
    let dir = tempfile::tempdir().unwrap();
    let forked = forked(seed(), 400, 6);
    append_all(&journal(&open(dir.path())), &forked.records);
    let journal = journal(&open(dir.path()));
    for record in &forked.canonical {
        let Record::Block(block) = record else { unreachable!("canonical records are blocks") };
        let this = block.header.this;
        let (offset, found) = journal.canonical(this.number).unwrap().unwrap();
        assert_eq!(found, this);
        assert_eq!(journal.abandoned_by(offset), None);
        assert_eq!(journal.offset_of(this).unwrap(), Some(offset));
    }
    let above = forked.canonical.len() as u64;
    assert_eq!(journal.canonical(above).unwrap(), None);
}

#[test]
fn a_block_that_was_abandoned_and_comes_back_is_canonical_again() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&open(dir.path()));
    let (a, b) = (block_ref(1, 0), block_ref(1, 1));
    let root = block_ref(0, 0);
    let records = [
        Record::Block(block(root, B256::ZERO, 0)),
        Record::Block(block(a, root.hash, 2)),
        Record::Revert(Revert { ancestor: root, abandoned: vec![a] }),
        Record::Block(block(b, root.hash, 1)),
        Record::Revert(Revert { ancestor: root, abandoned: vec![b] }),
        Record::Block(block(a, root.hash, 2)),
    ];
    journal.append(Offset::START, &records).unwrap();
    assert_eq!(journal.canonical(1).unwrap(), Some((Offset::new(5), a)));
    assert_eq!(journal.abandoned_by(Offset::new(1)), Some(Offset::new(2)));
    assert_eq!(journal.abandoned_by(Offset::new(3)), Some(Offset::new(4)));
    let report = journal.verify(Offset::START..Offset::new(6), |_| Ok(())).unwrap();
    assert!(report.is_clean(), "{:?}", report.problems);
}

#[test]
fn a_block_larger_than_one_value_of_the_engine_is_stored_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let mut large = block(block_ref(0, 0), B256::ZERO, 50);
    for log in &mut large.logs {
        log.data = vec![0xab; 100_000].into();
    }
    let records =
        [Record::Block(large), Record::Block(block(block_ref(1, 0), block_ref(0, 0).hash, 3))];
    append_all(&journal(&open(dir.path())), &records);
    let journal = journal(&open(dir.path()));
    let read: Vec<Record> = journal
        .read(Offset::START..Offset::new(2))
        .map(|stored| stored.unwrap().record().to_record())
        .collect();
    assert!(read == records);
}

#[test]
fn a_block_too_large_for_one_commit_is_a_typed_error_before_the_engine_sees_it() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&open(dir.path()));
    let mut huge = block(block_ref(0, 0), B256::ZERO, 2);
    huge.logs[0].data = vec![1; 8 << 20].into();
    let refused = journal.append(Offset::START, &[Record::Block(huge)]).unwrap_err();
    assert!(matches!(refused, AppendError::RecordSize { .. }), "{refused}");
    append_all(&journal, &straight(0, 2));
}

#[test]
fn segments_follow_each_other_without_a_seam() {
    let dir = tempfile::tempdir().unwrap();
    // One more than two segments of 16 384 records.
    let records = straight(0, 32_769);
    {
        let journal = journal(&open(dir.path()));
        for chunk in records.chunks(4096) {
            journal.append(journal.tail().offset, chunk).unwrap();
        }
    }
    let journal = journal(&open(dir.path()));
    let report = journal.verify(Offset::START..Offset::new(99_999), |_| Ok(())).unwrap();
    assert!(report.is_clean(), "{:?}", report.problems);
    assert_eq!(report.blocks, 32_769);
    assert_eq!(journal.tail().head, Some(block_ref(32_768, 0)));
    // Blocks up to eight below the head can still be taken back, so one segment may go.
    let day = Retention { max_age: Some(Duration::from_secs(86_400)), max_bytes: None };
    let retained = journal.retain(&day).unwrap();
    assert_eq!(retained.removed, Offset::START..Offset::new(16_384));
    assert_eq!(retained.blocked, None);
    drop(journal);
    let journal = common::journal(&open(dir.path()));
    let report = journal.verify(journal.start()..Offset::new(99_999), |_| Ok(())).unwrap();
    assert!(report.is_clean(), "{:?}", report.problems);
    assert_eq!((journal.start(), report.blocks), (Offset::new(16_384), 16_385));
}

#[test]
fn whoever_watches_is_woken_by_each_append() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&open(dir.path()));
    let mut watch = journal.watch();
    assert!(!watch.has_changed().unwrap());
    append_all(&journal, &straight(5, 2));
    assert!(watch.has_changed().unwrap());
    assert_eq!(watch.borrow_and_update().head, Some(block_ref(6, 0)));
}

#[test]
fn a_chain_keeps_its_chain_id() {
    let dir = tempfile::tempdir().unwrap();
    append_all(&journal(&open(dir.path())), &straight(0, 1));
    let store: Store = open(dir.path());
    let refused = store.journal(&common::CHAIN.parse().unwrap(), 1).err().unwrap();
    assert!(
        matches!(refused, JournalError::OtherChain { stored: 31337, given: 1, .. }),
        "{refused}"
    );
}

#[test]
fn a_verification_reports_what_the_callers_own_check_finds() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&open(dir.path()));
    append_all(&journal, &straight(0, 10));
    let mut seen = 0;
    let report = journal
        .verify(Offset::new(2)..Offset::new(8), |_| {
            seen += 1;
            if seen == 3 { Err("smells".to_owned()) } else { Ok(()) }
        })
        .unwrap();
    assert_eq!(seen, 6);
    assert_eq!(report.problems.len(), 1);
    assert_eq!(report.problems[0].offset, Offset::new(4));
    assert_eq!(report.problems[0].what, "smells");
}

#[test]
fn the_genesis_hash_is_remembered_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, other) = (B256::repeat_byte(1), B256::repeat_byte(2));
    {
        let journal = journal(&open(dir.path()));
        assert_eq!(journal.genesis().unwrap(), None);
        journal.remember_genesis(ours).unwrap();
        journal.remember_genesis(ours).unwrap();
    }
    let journal = journal(&open(dir.path()));
    let refused = journal.remember_genesis(other).unwrap_err();
    assert!(
        matches!(refused, GenesisError::Other { stored, given, .. } if (stored, given) == (ours, other)),
        "{refused}"
    );
    assert_eq!(journal.genesis().unwrap(), Some(ours));
}

#[test]
fn every_reorg_is_listed_with_the_blocks_it_abandoned() {
    let dir = tempfile::tempdir().unwrap();
    let records = forked(seed(), 400, 6).records;
    append_all(&journal(&open(dir.path())), &records);
    let journal = journal(&open(dir.path()));
    let listed = journal.reverts().unwrap();
    let reverts = records.iter().enumerate().filter_map(|(offset, record)| match record {
        Record::Revert(revert) => Some((offset as u64, revert)),
        _ => None,
    });
    let mut expected = 0;
    for (reorg, (offset, revert)) in listed.iter().zip(reverts.clone()) {
        assert_eq!(reorg.offset, Offset::new(offset));
        assert_eq!((reorg.ancestor, &reorg.abandoned), (revert.ancestor, &revert.abandoned));
        assert_eq!(reorg.depth(), revert.abandoned.len());
        let head = reorg.abandoned.last().unwrap();
        assert_eq!(reorg.head_time, block(*head, B256::ZERO, 0).header.timestamp);
        let first = journal.read(reorg.first_abandoned..reorg.offset).next().unwrap().unwrap();
        assert_eq!(first.head(), reorg.abandoned[0]);
        expected += 1;
    }
    assert_eq!((listed.len(), reverts.count()), (expected, expected));
}

#[test]
fn a_journal_says_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&open(dir.path()));
    let empty = journal.stat().unwrap();
    assert_eq!((empty.records, empty.first, empty.last), (0, None, None));
    assert_eq!(empty.segments, []);

    let forked = forked(seed(), 400, 6);
    append_all(&journal, &forked.records);
    let stat = journal.stat().unwrap();
    let blocks = forked.records.iter().filter(|record| matches!(record, Record::Block(_)));
    let blocks = blocks.count() as u64;
    assert_eq!((stat.start, stat.tail), (Offset::START, journal.tail().offset));
    assert_eq!((stat.records, stat.blocks), (forked.records.len() as u64, blocks));
    assert_eq!((stat.reverts, stat.outcomes), (stat.records - blocks, 0));
    let timed = |record: &Record| {
        let Record::Block(block) = record else { unreachable!("canonical records are blocks") };
        Some(TimedBlock { block: block.header.this, time: block.header.timestamp })
    };
    assert_eq!(stat.first, timed(&forked.records[0]));
    assert_eq!(stat.last, timed(forked.canonical.last().unwrap()));
    assert_eq!(stat.segments.len(), 1);
    assert_eq!(stat.segments[0].range, Offset::START..stat.tail);
}

#[test]
fn verifications_of_ranges_that_join_pin_the_same_records_as_one_of_both() {
    let dir = tempfile::tempdir().unwrap();
    let forked = forked(seed(), 300, 5);
    let journal = journal(&open(dir.path()));
    append_all(&journal, &forked.records);
    let verify = |first, end| {
        let report = journal.verify(Offset::new(first)..Offset::new(end), |_| Ok(())).unwrap();
        assert!(report.is_clean(), "{:?}", report.problems);
        report
    };
    let (whole, left, right) = (verify(0, 999), verify(0, 100), verify(100, 999));
    assert_eq!(whole.range, (Offset::START, journal.tail().offset));
    assert_eq!((left.previous, left.digest), (Digest::ZERO, right.previous));
    assert_eq!((right.digest, right.head, right.last), (whole.digest, whole.head, whole.last));
    assert_eq!((left.first, left.blocks + right.blocks), (whole.first, whole.blocks));
    assert_eq!(left.logs + right.logs, whole.logs);
    let blocks: Vec<BlockRef> = forked
        .records
        .iter()
        .filter_map(|record| match record {
            Record::Block(block) => Some(block.header.this),
            _ => None,
        })
        .collect();
    assert_eq!(whole.first, blocks.first().copied());
    assert_eq!(whole.last, blocks.last().copied());
}
