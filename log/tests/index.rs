//! What the log index promises: it saves reading, and never hides a block.

mod common;

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use alloy_primitives::{Address, B256};
use common::{
    copy, cut_log, forked, journal, lower_the_mark, open, options, seed, with_engine,
    write_ahead_log, written_bytes,
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use shepherd_log::{Journal, Log, LogFilter, Offset, Record, Store, Touched};

/// Records in a chunk of the index.
const CHUNK: u64 = 256;

/// A chain with reorgs, whose logs have hot, common and rare addresses and topics.
fn records(seed: u64, length: usize) -> Vec<Record> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut records = forked(seed, length, 6).records;
    for record in &mut records {
        let Record::Block(block) = record else { continue };
        for log in &mut block.logs {
            *log = random_log(&mut rng, log.index);
        }
    }
    records
}

fn random_log(rng: &mut StdRng, index: u32) -> Log {
    let topics = (0..rng.random_range(0..4)).map(|_| topic(random_number(rng))).collect();
    Log {
        address: address(random_number(rng)),
        topics,
        data: vec![7; 40].into(),
        index,
        transaction_index: 0,
        transaction_hash: B256::ZERO,
    }
}

/// Small numbers come often, large ones hardly ever.
fn random_number(rng: &mut impl Rng) -> u64 {
    let magnitude = rng.random_range(0..10);
    rng.random_range(0..1 << magnitude)
}

fn address(number: u64) -> Address {
    Address::left_padding_from(&number.to_be_bytes())
}

fn topic(number: u64) -> B256 {
    B256::left_padding_from(&number.to_be_bytes())
}

fn random_filter(rng: &mut StdRng) -> LogFilter {
    let mut numbers = || -> BTreeSet<u64> {
        (0..[0, 1, 1, 3, 40][rng.random_range(0..5)]).map(|_| random_number(rng)).collect()
    };
    LogFilter {
        addresses: numbers().into_iter().map(address).collect(),
        topic0: numbers().into_iter().map(topic).collect(),
    }
}

/// What a full scan finds, by the filter's own definition.
fn scan(records: &[Record], first: u64, end: u64, filter: &LogFilter) -> Vec<u64> {
    let matches = |log: &Log| {
        let fits = |topic| filter.topic0.contains(topic);
        (filter.addresses.is_empty() || filter.addresses.contains(&log.address))
            && (filter.topic0.is_empty() || log.topics.first().is_some_and(fits))
    };
    (first..end.min(records.len() as u64))
        .filter(|offset| match &records[usize::try_from(*offset).unwrap()] {
            Record::Block(block) => block.logs.iter().any(matches),
            _ => false,
        })
        .collect()
}

/// Insists that random filters over random ranges find what a full scan of the journal's records
/// finds, and hands out what was touched.
fn check(journal: &Journal, all: &[Record], rng: &mut StdRng, what: &str) -> Touched {
    let tail = journal.tail().offset.get();
    let records = &all[..usize::try_from(tail).unwrap()];
    let mut sum = Touched::default();
    for _ in 0..6 {
        let filter = random_filter(rng);
        let first = if rng.random_bool(0.5) { 0 } else { rng.random_range(0..=tail) };
        let end = if rng.random_bool(0.5) { tail + 9 } else { rng.random_range(first..=tail) };
        let mut found = journal.find(Offset::new(first)..Offset::new(end), &filter);
        let offsets: Vec<u64> =
            found.by_ref().map(|stored| stored.unwrap().offset().get()).collect();
        let expected = scan(records, first, end, &filter);
        assert_eq!(offsets, expected, "{what}: {filter:?} in {first}..{end} of {tail}");
        let blocks = (first..end.min(tail))
            .filter(|offset| matches!(records[usize::try_from(*offset).unwrap()], Record::Block(_)))
            .count() as u64;
        let touched = found.touched();
        assert_eq!(touched.blocks_read + touched.blocks_skipped, blocks, "{what}: {touched:?}");
        let candidates = journal.candidates(Offset::new(first)..Offset::new(end), &filter);
        let candidates: BTreeSet<u64> =
            candidates.map(|candidate| candidate.unwrap().get()).collect();
        assert!(offsets.iter().all(|offset| candidates.contains(offset)), "{what}");
        sum.blocks_read += touched.blocks_read;
        sum.blocks_skipped += touched.blocks_skipped;
    }
    sum
}

/// Appends what is missing in pieces of random size.
fn append_some(journal: &Journal, records: &[Record], rng: &mut StdRng, appends: usize) {
    for _ in 0..appends {
        let have = usize::try_from(journal.tail().offset.get()).unwrap();
        let size = if rng.random_bool(0.7) { 1..20 } else { 20..600 };
        let end = (have + rng.random_range(size)).min(records.len());
        journal.append(journal.tail().offset, &records[have..end]).unwrap();
    }
}

#[test]
fn what_concerns_nobody_is_never_a_record_that_somebody_must_see() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let records = records(seed, 2_500);
    let journal = journal(&open(dir.path()));
    for chunk in records.chunks(97) {
        journal.append(journal.tail().offset, chunk).unwrap();
    }
    let is_other = |offset: &u64| !matches!(records[*offset as usize], Record::Block(_));
    let mut passed_over = 0;
    for round in 0..60 {
        let first = rng.random_range(0..records.len() as u64);
        let end = rng.random_range(first..=records.len() as u64);
        let range = Offset::new(first)..Offset::new(end);
        let others: Vec<u64> =
            journal.others(range.clone()).map(|stored| stored.unwrap().offset().get()).collect();
        assert_eq!(others, Vec::from_iter((first..end).filter(is_other)), "round {round}");

        let filters: Vec<LogFilter> =
            (0..rng.random_range(0..4)).map(|_| random_filter(&mut rng)).collect();
        let concerning: Vec<u64> = journal
            .concerning(range, &filters)
            .map(|stored| stored.unwrap().offset().get())
            .collect();
        assert!(concerning.is_sorted());
        let mut needed: BTreeSet<u64> = others.into_iter().collect();
        for filter in &filters {
            needed.extend(scan(&records, first, end, filter));
        }
        let seen = BTreeSet::from_iter(concerning);
        assert!(seen.is_superset(&needed), "round {round}, seed {seed}");
        passed_over += end - first - seen.len() as u64;
    }
    assert!(passed_over > 1_000, "{passed_over} blocks were passed over");
}

#[test]
fn a_filtered_read_finds_what_a_full_scan_finds() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let all = records(seed, 3000);
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let mut touched = Touched::default();
    while journal(&store).tail().offset.get() < all.len() as u64 {
        if rng.random_bool(0.2) {
            drop(store);
            store = open(dir.path());
        }
        let journal = journal(&store);
        append_some(&journal, &all, &mut rng, 5);
        let sum = check(&journal, &all, &mut rng, "while appending");
        touched.blocks_read += sum.blocks_read;
        touched.blocks_skipped += sum.blocks_skipped;
    }
    println!("{touched:?}");
    assert!(touched.blocks_skipped > touched.blocks_read, "the index saves reading: {touched:?}");
}

#[test]
fn the_index_catches_up_with_the_tail_and_is_rebuilt_on_request() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let all = records(seed, 1500);
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let journal = journal(&store);
    append_some(&journal, &all[..1400], &mut rng, 200);
    // The rows of the last whole chunks travel with what comes later.
    for record in &all[1400..] {
        journal.append(journal.tail().offset, std::slice::from_ref(record)).unwrap();
    }
    let tail = journal.tail().offset.get();
    assert_eq!(journal.indexed_to(), Offset::new(tail / CHUNK * CHUNK));
    let mut steps = Vec::new();
    journal.reindex(|offset| steps.push(offset.get())).unwrap();
    assert!(steps.is_sorted() && steps.len() as u64 == tail.div_ceil(CHUNK), "{steps:?}");
    assert_eq!(journal.indexed_to(), Offset::new(tail / CHUNK * CHUNK));
    let touched = check(&journal, &all, &mut rng, "after a rebuild");
    assert!(touched.blocks_skipped > 0);
    assert_eq!(journal.stat().unwrap().blocks, count_blocks(&all));
}

#[test]
fn a_chunk_that_is_written_by_half_is_written_to_its_end_by_a_large_append() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let journal = journal(&store);
    // More values in a chunk than one append writes along.
    let mut all = common::straight(0, 4 * CHUNK);
    let mut value = 0;
    for record in &mut all {
        let Record::Block(block) = record else { continue };
        block.logs = (0..20)
            .map(|index| {
                value += 1;
                let (address, topics) = (address(value), vec![topic(value)]);
                let (transaction_index, transaction_hash) = (0, B256::ZERO);
                let data = Default::default();
                Log { address, topics, data, index, transaction_index, transaction_hash }
            })
            .collect();
    }
    let (first, rest) = all.split_at(CHUNK as usize + 1);
    for record in first {
        journal.append(journal.tail().offset, std::slice::from_ref(record)).unwrap();
    }
    assert_eq!(journal.indexed_to(), Offset::START, "the first chunk is not written to its end");
    journal.append(journal.tail().offset, rest).unwrap();
    assert!(journal.indexed_to() > Offset::START);
    let mut rng = StdRng::seed_from_u64(1);
    check(&journal, &all, &mut rng, "after a large append");
}

fn count_blocks(records: &[Record]) -> u64 {
    records.iter().filter(|record| matches!(record, Record::Block(_))).count() as u64
}

#[test]
fn after_every_cut_of_the_log_a_filtered_read_finds_what_is_there() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let all = records(seed, 1600);
    let dir = tempfile::tempdir().unwrap();
    append_some(&journal(&open(dir.path())), &all[..1100], &mut rng, 60);
    let mut opened = 0;
    for _ in 0..12 {
        let copied = tempfile::tempdir().unwrap();
        copy(dir.path(), copied.path());
        lower_the_mark(copied.path());
        let cut = rng.random_range(0..written_bytes(&write_ahead_log(copied.path())));
        cut_log(copied.path(), cut, rng.random_bool(0.5));
        let store = catch_unwind(AssertUnwindSafe(|| Store::open(copied.path(), options())));
        let Ok(Ok(store)) = store else { continue };
        let journal = journal(&store);
        check(&journal, &all, &mut rng, "after a cut");
        append_some(&journal, &all, &mut rng, 8);
        check(&journal, &all, &mut rng, "after a cut and appends");
        opened += 1;
    }
    assert!(opened > 0);
}

/// What happens to an index, besides what Shepherd does.
fn damage(dir: &Path, what: &str, rng: &mut StdRng) {
    let tree = "index-00000-00000000";
    with_engine(dir, |database| {
        let index = common::keyspace(database, tree);
        let keys: Vec<_> = index.iter().map(|entry| fjall::Guard::key(entry).unwrap()).collect();
        let chunk = |key: &[u8]| key[key.len() - 8..].to_vec();
        let of_one = chunk(&keys[rng.random_range(0..keys.len())]);
        match what {
            "removed" => database.delete_keyspace(index).unwrap(),
            "truncated" => {
                // From a chunk on, as when the end of a log was lost.
                keys.iter()
                    .filter(|key| chunk(key) >= of_one)
                    .for_each(|key| index.remove(key.clone()).unwrap());
            }
            "half written" => {
                let of_chunk = keys.iter().filter(|key| chunk(key) == of_one).rev();
                let lost = rng.random_range(1..5);
                of_chunk.take(lost).for_each(|key| index.remove(key.clone()).unwrap());
            }
            "flipped bits" => {
                for key in keys {
                    if rng.random_bool(0.1) {
                        let mut value = index.get(&key).unwrap().unwrap().to_vec();
                        let at = rng.random_range(0..value.len());
                        value[at] ^= 1;
                        index.insert(key, value).unwrap();
                    }
                }
            }
            "without its mark" => {
                common::keyspace(database, "meta").remove(b"indexed/\0\0").unwrap();
            }
            other => unreachable!("{other}"),
        }
    });
}

#[test]
fn a_damaged_index_hides_no_block_and_is_rebuilt_on_request() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let all = records(seed, 1200);
    let dir = tempfile::tempdir().unwrap();
    append_some(&journal(&open(dir.path())), &all[..1000], &mut rng, 60);
    let ways = ["removed", "truncated", "half written", "flipped bits", "without its mark"];
    for what in ways {
        let copied = tempfile::tempdir().unwrap();
        copy(dir.path(), copied.path());
        damage(copied.path(), what, &mut rng);
        let journal = journal(&open(copied.path()));
        check(&journal, &all, &mut rng, what);
        append_some(&journal, &all, &mut rng, 8);
        check(&journal, &all, &mut rng, what);
        journal.reindex(|_| ()).unwrap();
        let touched = check(&journal, &all, &mut rng, what);
        assert!(touched.blocks_skipped > 0, "{what}");
    }
}

#[test]
fn an_index_that_outlived_its_records_is_dropped() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut all = common::straight(0, 900);
    let mut with_logs = |records: &mut [Record]| {
        for record in records {
            let Record::Block(block) = record else { unreachable!("a straight chain") };
            block.logs = (0..4).map(|index| random_log(&mut rng, index)).collect();
        }
    };
    with_logs(&mut all);
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    common::append_all(&journal(&store), &all[..600]);
    assert_eq!(journal(&store).indexed_to(), Offset::new(512));
    drop(store);
    // Other logs take the place of those that are lost, from within a chunk that is indexed.
    with_engine(dir.path(), |database| {
        let segment = common::keyspace(database, "journal-00000-00000000");
        for offset in 400..600u64 {
            let key = [offset.to_be_bytes().as_slice(), &[0, 0]].concat();
            segment.remove(key).unwrap();
        }
    });
    lower_the_mark(dir.path());
    with_logs(&mut all[400..]);
    let store = open(dir.path());
    let journal = journal(&store);
    assert_eq!(journal.tail().offset, Offset::new(400));
    for records in all[400..].chunks(20) {
        journal.append(journal.tail().offset, records).unwrap();
        check(&journal, &all, &mut rng, "after the loss");
    }
}

#[test]
fn a_verification_names_the_blocks_that_the_index_does_not_find() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let all = records(seed, 700);
    let dir = tempfile::tempdir().unwrap();
    append_some(&journal(&open(dir.path())), &all, &mut rng, 80);
    let mut expected = BTreeSet::new();
    with_engine(dir.path(), |database| {
        let index = common::keyspace(database, "index-00000-00000000");
        let key = fjall::Guard::key(index.iter().next().unwrap()).unwrap();
        // Kind 0, an address, the first record of the chunk.
        let lost = Address::from_slice(&key[1..21]);
        let first = usize::try_from(u64::from_be_bytes(key[21..].try_into().unwrap())).unwrap();
        for (offset, record) in all.iter().enumerate().skip(first).take(256) {
            if let Record::Block(block) = record
                && block.logs.iter().any(|log| log.address == lost)
            {
                expected.insert(offset as u64);
            }
        }
        index.remove(key).unwrap();
    });
    let journal = journal(&open(dir.path()));
    let verify = |range| journal.verify(range, |_| Ok(())).unwrap();
    let tail = journal.tail().offset;
    let report = verify(Offset::START..tail);
    let named: BTreeSet<u64> = report.problems.iter().map(|problem| problem.offset.get()).collect();
    assert!(!expected.is_empty() && named == expected, "{named:?}, not {expected:?}");
    let last = Offset::new(*expected.last().unwrap());
    assert_eq!(verify(last..last.plus(1)).problems.len(), 1);
    assert!(verify(last.plus(1)..tail).is_clean());
    journal.reindex(|_| ()).unwrap();
    assert!(verify(Offset::START..tail).is_clean());
}
