//! What is left after crashes, cuts, flipped bits and strange directories.

mod common;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::Command,
};

use common::{
    LANE, Outcome, append_all, catch_up, copy, cut_log, files, forked, journal, keyspace, lane,
    lower_the_mark, open, options, outcome, seed, snapshot, step, straight, with_engine,
    write_ahead_log, written_bytes,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shepherd_log::{Applied, Finding, Offset, OpenError, ReadError, Store, Writes};

/// A store in the middle of its work, and what it must look like after each commit.
struct Worked {
    dir: tempfile::TempDir,
    /// Outcome after each commit number.
    outcomes: BTreeMap<u64, Outcome>,
}

/// Appends a forked chain record by record and steps after each, keeping every outcome.
fn worked(seed: u64) -> Worked {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let journal = journal(&store);
    let mut lane = lane(&store);
    let mut outcomes = BTreeMap::from([(0, outcome(&store))]);
    for record in forked(seed, 60, 4).records {
        journal.append(journal.tail().offset, &[record]).unwrap();
        let cursor = step(&mut lane, 1);
        outcomes.insert(cursor.commit, outcome(&store));
    }
    drop((lane, journal, store));
    Worked { dir, outcomes }
}

#[derive(Debug, PartialEq, Eq)]
enum Opened {
    /// The store refused, and said why.
    Refused,
    /// It opened to a whole number of steps.
    At(u64),
}

/// Opens a damaged copy and insists that it either refuses or shows a moment that really was.
///
/// The engine may panic over damage, and panic again while that unwinds, which ends the process.
/// That is loud, and nothing was served: but it must be another process than this one.
fn check(damaged: &Path, worked: &Worked, what: &str) -> Opened {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "opens_and_shows", "--ignored", "--nocapture"])
        .env(DAMAGED, damaged)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    let Some((_, shown)) = output.split_once(OPENED) else { return Opened::Refused };
    assert!(child.status.success(), "{what}: {}", String::from_utf8_lossy(&child.stderr));
    let Some((_, shown)) = shown.split_once(SHOWN) else { return Opened::At(0) };
    let (commit, outcome) = shown.lines().next().unwrap().split_once(' ').unwrap();
    let commit = commit.parse().unwrap();
    let expected = format!("{:?}", worked.outcomes[&commit]);
    assert!(outcome == expected, "{what}: commit {commit} shows {outcome} instead of {expected}");
    Opened::At(commit)
}

const DAMAGED: &str = "SHEPHERD_DAMAGED";
const OPENED: &str = "the store opened";
const SHOWN: &str = "the lane shows ";

#[test]
#[ignore = "run by `check`, in a process of its own"]
fn opens_and_shows() {
    let damaged = std::env::var(DAMAGED).unwrap();
    let Ok(store) = Store::open(Path::new(&damaged), options()) else { return };
    println!("{OPENED}");
    let Some(snapshot) = store.lane_snapshot(&LANE.parse().unwrap()).unwrap() else {
        assert_eq!(store.cursors().unwrap(), []);
        return;
    };
    println!("{SHOWN}{} {:?}", snapshot.cursor().commit, outcome(&store));
    let journal = journal(&store);
    assert!(snapshot.cursor().next <= journal.tail().offset);
    let report = journal.verify(Offset::START..journal.tail().offset, |_| Ok(())).unwrap();
    assert!(report.is_clean(), "{:?}", report.problems);
}

#[test]
fn a_log_cut_anywhere_shows_a_whole_number_of_steps() {
    let seed = seed();
    let worked = worked(seed);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut commits = Vec::new();
    for round in 0..60 {
        let copied = tempfile::tempdir().unwrap();
        copy(worked.dir.path(), copied.path());
        lower_the_mark(copied.path());
        let cut = rng.random_range(0..written_bytes(&write_ahead_log(copied.path())));
        let zeroed = round % 2 == 0;
        cut_log(copied.path(), cut, zeroed);
        let what = format!("log cut at byte {cut}, zeroed {zeroed}");
        if let Opened::At(commit) = check(copied.path(), &worked, &what) {
            commits.push(commit);
        }
    }
    commits.sort_unstable();
    commits.dedup();
    assert!(commits.len() > 5, "cuts showed only commits {commits:?}");
}

#[test]
fn a_log_cut_below_the_mark_is_refused() {
    let worked = worked(seed());
    let log = write_ahead_log(worked.dir.path());
    let file = File::options().write(true).open(&log).unwrap();
    file.set_len(written_bytes(&log) / 2).unwrap();
    let refused = Store::open(worked.dir.path(), options()).err().expect("half is missing");
    let OpenError::Untrusted { findings, .. } = &refused else { panic!("{refused}") };
    assert!(
        findings.iter().any(|finding| matches!(finding, Finding::JournalBelowMark { .. })),
        "{refused}"
    );
    assert!(
        findings.iter().any(|finding| matches!(finding, Finding::LaneBelowMark { .. })),
        "{refused}"
    );
}

#[test]
fn a_flipped_bit_never_shows_a_moment_that_was_not() {
    let seed = seed();
    let worked = worked(seed);
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut refused, mut shown) = (0, 0);
    for _ in 0..100 {
        let copied = tempfile::tempdir().unwrap();
        copy(worked.dir.path(), copied.path());
        lower_the_mark(copied.path());
        // Most of the damage goes where the last commits are.
        let file = if rng.random_bool(0.8) {
            write_ahead_log(copied.path())
        } else {
            let all = files(copied.path());
            all[rng.random_range(0..all.len())].clone()
        };
        let Some(last) = written_bytes(&file).checked_sub(1) else { continue };
        let (at, bit) = (rng.random_range(0..=last), rng.random_range(0..8));
        flip(&file, at, bit);
        let name = file.strip_prefix(copied.path()).unwrap().display().to_string();
        match check(copied.path(), &worked, &format!("{name}: byte {at}, bit {bit}")) {
            Opened::Refused => refused += 1,
            Opened::At(_) => shown += 1,
        }
    }
    println!("{refused} flips refused, {shown} showed a moment that was");
    assert!(refused > 20, "damage must usually be noticed: {refused} of 100");
}

fn flip(file: &Path, at: u64, bit: u8) {
    let mut file = File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ (1 << bit)]).unwrap();
}

#[test]
fn an_old_cursor_that_comes_back_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let advance = |records_max| {
        let store = open(dir.path());
        append_all(&journal(&store), &if records_max == 4 { straight(0, 20) } else { vec![] });
        step(&mut lane(&store), records_max);
    };
    advance(4);
    let key = 0u32.to_be_bytes();
    let mut old = None;
    with_engine(dir.path(), |database| {
        old = keyspace(database, "cursors").get(key).unwrap();
    });
    advance(3);
    with_engine(dir.path(), |database| {
        keyspace(database, "cursors").insert(key, old.expect("the cursor row")).unwrap();
    });
    let refused = Store::open(dir.path(), options()).err().expect("the cursor is old");
    let OpenError::Untrusted { findings, .. } = &refused else { panic!("{refused}") };
    assert!(
        findings.iter().any(|finding| matches!(
            finding,
            Finding::CursorAndCommitDiffer { cursor, commit, .. }
                if cursor.contains("commit 1, next 4") && commit.contains("commit 2, next 7")
        )),
        "{refused}"
    );
}

#[test]
fn a_damaged_record_is_named_and_nothing_after_it_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    append_all(&journal(&open(dir.path())), &straight(0, 3000));
    let key = [7u64.to_be_bytes().as_slice(), &[0, 0]].concat();
    with_engine(dir.path(), |database| {
        let segment = keyspace(database, "journal-00000-00000000");
        let mut bytes = segment.get(&key).unwrap().unwrap().to_vec();
        bytes[100] ^= 1;
        segment.insert(&key, bytes).unwrap();
    });
    let journal = journal(&open(dir.path()));
    let read: Vec<_> = journal.read(Offset::new(6)..Offset::new(9)).collect();
    assert!(read[0].is_ok() && read[2].is_ok());
    assert!(matches!(read[1], Err(ReadError::Corrupt { offset, .. }) if offset == Offset::new(7)));
    let report = journal.verify(Offset::START..Offset::new(3000), |_| Ok(())).unwrap();
    assert_eq!(report.problems.len(), 1);
    assert_eq!(report.problems[0].offset, Offset::new(7));
}

#[test]
fn a_missing_or_foreign_mark_is_refused() {
    let worked = worked(seed());
    let mark = worked.dir.path().join("store").join("highwater");
    let own = fs::read(&mark).unwrap();
    fs::remove_file(&mark).unwrap();
    assert!(matches!(
        Store::open(worked.dir.path(), options()),
        Err(OpenError::Untrusted { findings, .. }) if matches!(findings[..], [Finding::Highwater(_)])
    ));
    // The mark of another history, which may be a record longer.
    let other = self::worked(seed().wrapping_add(1));
    fs::copy(other.dir.path().join("store").join("highwater"), &mark).unwrap();
    assert!(matches!(
        Store::open(worked.dir.path(), options()),
        Err(OpenError::Untrusted { findings, .. })
            if findings.iter().any(|finding| matches!(
                finding,
                Finding::JournalChanged { .. } | Finding::JournalBelowMark { .. }
            ))
    ));
    fs::write(&mark, own).unwrap();
    assert!(Store::open(worked.dir.path(), options()).is_ok());
}

#[test]
fn a_store_is_open_in_one_place_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let held = open(dir.path());
    assert!(matches!(Store::open(dir.path(), options()), Err(OpenError::Locked { .. })));
    drop(held);
    assert!(Store::open(dir.path(), options()).is_ok());
}

#[test]
fn a_newer_format_is_refused_before_anything_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let format = dir.path().join("store").join("format");
    assert_eq!(fs::read_to_string(&format).unwrap(), "shepherd store format 4\n");
    fs::write(&format, "shepherd store format 5\n").unwrap();
    assert!(matches!(
        Store::open(dir.path(), options()),
        Err(OpenError::NewerFormat { found: 5, .. })
    ));
    fs::write(&format, "something else\n").unwrap();
    assert!(matches!(
        Store::open(dir.path(), options()),
        Err(OpenError::Untrusted { findings, .. }) if matches!(findings[..], [Finding::Format { .. }])
    ));
}

#[test]
fn an_older_format_opens_and_is_the_newest_from_then_on() {
    let worked = worked(seed());
    let format = worked.dir.path().join("store").join("format");
    fs::write(&format, "shepherd store format 1\n").unwrap();
    drop(Store::open(worked.dir.path(), options()).unwrap());
    assert_eq!(fs::read_to_string(&format).unwrap(), "shepherd store format 4\n");
}

#[test]
fn a_creation_that_was_killed_leaves_nothing_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    // No process has this number: it is above the kernel's limit.
    let leftover = dir.path().join("store.init-4999999");
    fs::create_dir_all(leftover.join("db")).unwrap();
    fs::write(leftover.join("db").join("half"), "half").unwrap();
    drop(open(dir.path()));
    assert!(!leftover.exists());
    assert!(Store::open(dir.path(), options()).is_ok());
}

#[test]
fn a_snapshot_never_shows_half_a_step() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_all(&journal(&store), &straight(0, 300));
    let mut lane = lane(&store);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..300u64 {
                let value = Some([number.to_be_bytes(); 64].as_flattened().to_vec());
                let writes =
                    Writes::from([(b"left".to_vec(), value.clone()), (b"right".to_vec(), value)]);
                let mut step = lane.begin();
                let applied = Applied { writes, ..Applied::default() };
                step.apply(common::block_ref(number, 0), applied).unwrap();
                step.commit(common::MODULE).unwrap();
            }
        });
        let mut looks = 0u64;
        while !writer.is_finished() {
            let snapshot = snapshot(&store);
            let (left, right) = (snapshot.get(b"left").unwrap(), snapshot.get(b"right").unwrap());
            assert_eq!(left, right);
            let expected = snapshot.cursor().block.map(|block| block.number.to_be_bytes());
            let shown = left.map(|value| *value.first_chunk::<8>().unwrap());
            assert_eq!(shown, expected);
            looks += 1;
        }
        println!("{looks} snapshots");
    });
}

#[test]
fn work_goes_on_after_every_cut() {
    let seed = seed();
    let forked = forked(seed, 60, 4);
    let expected = common::fresh_outcome(&forked.records);
    let worked = worked(seed);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut went_on = 0;
    for _ in 0..15 {
        let copied = tempfile::tempdir().unwrap();
        copy(worked.dir.path(), copied.path());
        lower_the_mark(copied.path());
        let log = write_ahead_log(copied.path());
        let cut = rng.random_range(0..written_bytes(&log));
        File::options().write(true).open(&log).unwrap().set_len(cut).unwrap();
        let opened = catch_unwind(AssertUnwindSafe(|| Store::open(copied.path(), options())));
        let Ok(Ok(store)) = opened else { continue };
        let journal = journal(&store);
        let have = usize::try_from(journal.tail().offset.get()).unwrap();
        append_all(&journal, &forked.records[have..]);
        catch_up(&mut lane(&store), || 1);
        assert_eq!(outcome(&store), expected, "log cut at byte {cut}");
        went_on += 1;
    }
    assert!(went_on > 0);
}
