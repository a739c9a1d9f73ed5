//! Which records a window is.

use std::time::Duration;

use shepherd_log::{Offset, Record, RecordView};
use shepherd_replay::{Begin, Bound, WarmUp, Window, WindowAsked, WindowError};

use crate::{
    bench::{scratch, timestamp},
    common::{append_all, block, journal, store, straight},
};

/// Blocks 10 to 29, twelve seconds apart, of which 20 and 21 came back on another branch.
fn check(asked: WindowAsked, expected: Result<[u64; 3], &str>) {
    let dir = scratch();
    let store = store(dir.path());
    let journal = journal(&store);
    let mut records: Vec<Record> = straight(22).split_off(10);
    let head = |record: &Record| match record {
        Record::Block(block) => block.header.this,
        _ => unreachable!("these are blocks"),
    };
    let abandoned: Vec<_> = records[10..].iter().map(head).collect();
    let ancestor = head(&records[9]);
    records.push(Record::Revert(shepherd_log::Revert { ancestor, abandoned }));
    let mut parent = ancestor.hash;
    for number in 20..30 {
        let next = block(number, 1, parent, 0);
        parent = next.header.this.hash;
        records.push(Record::Block(next));
    }
    append_all(&journal, &records);
    let resolved = Window::resolve(&journal, asked);
    match (resolved, expected) {
        (Ok(Window { from, start, end }), Ok(numbers)) => {
            // The block at a bound, or the one after the head.
            let number = |offset: Offset| match journal.read(offset..offset.plus(1)).next() {
                None => 30,
                Some(stored) => match stored.unwrap().record() {
                    RecordView::Block(block) => {
                        assert!(journal.abandoned_by(offset).is_none(), "it counts");
                        block.this.number
                    }
                    _ => panic!("a bound is a block"),
                },
            };
            assert_eq!([from, start, end].map(number), numbers, "{asked:?}");
        }
        (Err(error), Err(part)) => {
            assert!(error.to_string().contains(part), "{asked:?}: {error}");
        }
        (resolved, expected) => panic!("{asked:?}: {resolved:?}, not {expected:?}"),
    }
}

fn between(from: &str, to: &str) -> WindowAsked {
    let bound = |text: &str| text.parse::<Bound>().unwrap();
    let begin = if from.is_empty() { Begin::Journal } else { Begin::At(bound(from)) };
    WindowAsked { begin, to: (!to.is_empty()).then(|| bound(to)), warm_up: WarmUp::Nothing }
}

fn last(seconds: u64) -> WindowAsked {
    WindowAsked { begin: Begin::Last(Duration::from_secs(seconds)), ..WindowAsked::default() }
}

fn at(number: u64, seconds_later: i64) -> String {
    let seconds = i64::try_from(timestamp(number)).unwrap() + seconds_later;
    jiff::Timestamp::from_second(seconds).unwrap().to_string()
}

#[test]
fn windows_are_found_by_number_by_time_and_from_the_end() {
    check(WindowAsked::default(), Ok([10, 10, 30]));
    check(between("12", "15"), Ok([12, 12, 15]));
    check(between("20", "30"), Ok([20, 20, 30]));
    check(between("", "11"), Ok([10, 10, 11]));
    check(between(&at(12, 0), &at(20, 0)), Ok([12, 12, 20]));
    check(between(&at(12, 1), &at(20, 1)), Ok([13, 13, 21]));
    check(last(0), Ok([29, 29, 30]));
    check(last(24), Ok([27, 27, 30]));
    check(last(25), Ok([27, 27, 30]));
    check(WindowAsked { to: Some(Bound::Block(20)), ..last(12) }, Ok([18, 18, 20]));
}

#[test]
fn a_warm_up_runs_what_is_before_the_window() {
    let warm_up = |warm_up| WindowAsked { warm_up, ..between("20", "25") };
    check(warm_up(WarmUp::For(Duration::from_secs(36))), Ok([17, 20, 25]));
    check(warm_up(WarmUp::All), Ok([10, 20, 25]));
    check(warm_up(WarmUp::For(Duration::from_secs(3600))), Err("the warm-up begins at 2023-"));
}

#[test]
fn a_window_that_is_not_in_the_journal_is_refused() {
    check(
        between("9", ""),
        Err("the window begins at block 9, before the journal, which begins \
                                 at block 10 (2023-11-14T22:15:20Z)"),
    );
    check(between(&at(10, -1), ""), Err("before the journal"));
    check(last(3600), Err("before the journal"));
    check(between("12", "31"), Err("beyond the journal, which ends with block 29"));
    check(between("30", ""), Err("beyond the journal"));
    check(between("", &at(29, 1)), Err("beyond the journal"));
    check(between("15", "15"), Err("begins at block 15 and ends before block 15"));
    check(between("15", "12"), Err("no block in the window"));
    let dir = scratch();
    let empty = Window::resolve(&journal(&store(dir.path())), WindowAsked::default());
    assert!(matches!(empty, Err(WindowError::NoBlock)));
}

#[test]
fn bounds_are_numbers_or_times() {
    let time = |text: &str| Bound::Time(text.parse().unwrap());
    for (text, expected) in [
        ("19000000", Some(Bound::Block(19_000_000))),
        ("2026-07-01", Some(time("2026-07-01T00:00:00Z"))),
        ("2026-07-01T12:30:00", Some(time("2026-07-01T12:30:00Z"))),
        ("2026-07-01T12:30:00Z", Some(time("2026-07-01T12:30:00Z"))),
        ("2026-07-01T12:30:00+02:00", Some(time("2026-07-01T10:30:00Z"))),
        ("", None),
        ("-1", None),
        ("yesterday", None),
        ("2026-13-01", None),
    ] {
        assert_eq!(text.parse::<Bound>().ok(), expected, "{text}");
    }
}
