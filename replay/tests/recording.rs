//! What recordings promise: the same records and answers, and nothing taken for what it is not.

mod history;

use std::ops::Range;

use alloy_primitives::B256;
use history::{
    CHAIN, Forked, TOKEN, TRANSFER, balance_tracker, forked, journal, journaled, live, options,
    records, result, run, seed, store, token_ledger,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shepherd_dispatch::Runner;
use shepherd_host::{BoundModule, LogFilter};
use shepherd_log::{GenesisError, Journal, ModuleName, Offset, Record, Store};
use shepherd_replay::{
    FromTape,
    recording::{self, Cut, CutError, CutOptions, Loaded, Logs, Proof, Reader, RecordingError},
    what_if::WhatIf,
};

fn everything() -> CutOptions {
    CutOptions { logs: Logs::All, proof: Proof::Blooms, tapes: vec![], what_if: WhatIf::default() }
}

fn whole(journal: &Journal) -> Range<Offset> {
    journal.start()..journal.tail().offset
}

fn cut(journal: &Journal, range: Range<Offset>, options: &CutOptions) -> (String, Cut) {
    let mut file = Vec::new();
    let cut = recording::cut(journal, range, options, &mut file).unwrap();
    assert_eq!(cut.bytes, file.len() as u64);
    (String::from_utf8(file).unwrap(), cut)
}

fn load(text: &str, dir: &std::path::Path) -> Result<Loaded, recording::LoadError> {
    recording::load(Reader::new(text.as_bytes(), "test.jsonl")?, dir, options())
}

fn loaded(text: &str) -> (tempfile::TempDir, Loaded) {
    let dir = tempfile::tempdir().unwrap();
    let loaded = load(text, dir.path()).unwrap();
    (dir, loaded)
}

fn transfers_of_token() -> Logs {
    let topics = [vec![*TRANSFER], vec![], vec![], vec![]];
    Logs::Matching(vec![LogFilter::new(vec![TOKEN], topics)])
}

/// The records of a range as a recording of it must give them back.
fn expected(all: &[Record], range: Range<usize>, options: &CutOptions) -> Vec<Record> {
    let mut expected = Vec::new();
    // Where each record of the range is in the recording.
    let mut places = vec![];
    for record in &all[range.clone()] {
        let mut record = record.clone();
        match &mut record {
            Record::Block(block) => {
                block.logs.retain(|log| options.logs.have(log));
                if options.proof == Proof::Links {
                    block.header.rlp = [].into();
                }
            }
            Record::Outcome(outcome) => {
                let asked = (outcome.effect.offset.get() as usize).checked_sub(range.start);
                let Some(asked) = asked else { continue };
                outcome.effect.offset = places[asked];
            }
            Record::Revert(_) => (),
        }
        places.push(Offset::new(expected.len() as u64));
        expected.push(record);
    }
    expected
}

/// Where a recording can begin: at a block that nothing after it goes back before.
fn beginnings(records: &[Record]) -> Vec<usize> {
    let mut lowest = u64::MAX;
    let mut found = vec![];
    for (offset, record) in records.iter().enumerate().rev() {
        match record {
            Record::Revert(revert) => lowest = lowest.min(revert.ancestor.number),
            Record::Block(block) if block.header.this.number <= lowest => found.push(offset),
            Record::Block(_) | Record::Outcome(_) => (),
        }
    }
    found
}

#[test]
fn a_recording_gives_back_the_records_it_was_cut_from() {
    let seed = seed();
    let dir = tempfile::tempdir().unwrap();
    let all = forked(seed, 100, 250).records;
    let (_store, journal) = journaled(dir.path(), &all);
    let mut rng = StdRng::seed_from_u64(seed);
    let beginnings = beginnings(&all);
    assert!(beginnings.len() > 5, "only {} places to begin at", beginnings.len());
    for round in 0..9 {
        let start = if round == 0 { 0 } else { beginnings[rng.random_range(0..beginnings.len())] };
        let end = rng.random_range(start + 1..=all.len());
        let options = match round % 3 {
            0 => everything(),
            1 => CutOptions { logs: transfers_of_token(), proof: Proof::Hashes, ..everything() },
            _ => CutOptions { logs: transfers_of_token(), proof: Proof::Links, ..everything() },
        };
        let range = Offset::new(start as u64)..Offset::new(end as u64);
        let (text, done) = cut(&journal, range.clone(), &options);
        assert_eq!(cut(&journal, range, &options).0, text, "the same bytes each time");

        let expected = expected(&all, start..end, &options);
        let (_dir, loaded) = loaded(&text);
        assert_eq!(records(&loaded.journal), expected, "{start}..{end}");
        assert_eq!(done.records as usize, expected.len());
        assert_eq!(done.outcomes_left_out as usize, end - start - expected.len());
        assert_eq!(loaded.header.first_offset as usize, start);
        assert_eq!(loaded.header.logs, options.logs);
        assert_eq!(loaded.header.proof, options.proof);

        // Cutting what was loaded gives the same file, but for where it says it came from.
        if round % 3 == 0 {
            let (again, _) = cut(&loaded.journal, whole(&loaded.journal), &options);
            let records = |text: &str| text.split_once('\n').unwrap().1.to_owned();
            let left_out = format!("\"outcomes_left_out\":{}", done.outcomes_left_out);
            let text = records(&text).replace(&left_out, "\"outcomes_left_out\":0");
            assert_eq!(records(&again), text);
        }
    }
}

fn tape_of(store: &Store, module: &BoundModule) -> Vec<(ModuleName, shepherd_log::LaneSnapshot)> {
    let snapshot = store.lane_snapshot(module.lane()).unwrap().unwrap();
    vec![(module.lane().module.clone(), snapshot)]
}

/// The lane over a loaded recording, from its tape alone.
fn replayed(loaded: &Loaded, module: &BoundModule) -> (shepherd_log::Digest, shepherd_log::Digest) {
    let lane = loaded.store.lane(module.lane()).unwrap();
    let tape = loaded.tapes[&module.lane().module].clone();
    run(&mut Runner::new(lane, module.clone()), &mut FromTape::new(tape));
    result(&loaded.store, module.lane())
}

#[test]
fn a_lane_comes_to_the_same_over_a_loaded_recording() {
    let seed = seed();
    for module in [token_ledger(), balance_tracker()] {
        let dir = tempfile::tempdir().unwrap();
        let all = forked(seed, 0, 120).records;
        let (store, journal) = journaled(dir.path(), &all);
        live(&store, &module);
        let tapes = tape_of(&store, &module);
        let filters = module.subscription().logs.clone();
        let small = CutOptions {
            logs: Logs::Matching(filters),
            proof: Proof::Links,
            tapes: tape_of(&store, &module),
            what_if: WhatIf::default(),
        };
        for options in [CutOptions { tapes, ..everything() }, small] {
            let (text, cut) = cut(&journal, whole(&journal), &options);
            let (_dir, loaded) = loaded(&text);
            assert_eq!(replayed(&loaded, &module), result(&store, module.lane()));
            let reads = module.lane().module.as_str() == "balance-tracker";
            assert_eq!(cut.answers > 0, reads, "{cut:?}");
        }

        // A stretch from the middle comes to what a lane comes to that begins there.
        let start = Offset::new(*beginnings(&all).last().unwrap() as u64);
        let start = beginnings(&all)
            .into_iter()
            .map(|offset| Offset::new(offset as u64))
            .find(|offset| offset.get() < 90)
            .unwrap_or(start);
        let tapes = tape_of(&store, &module);
        let range = start..journal.tail().offset;
        let (text, _) = cut(&journal, range, &CutOptions { tapes, ..everything() });
        let (_dir, loaded) = loaded(&text);
        let scratch = tempfile::tempdir().unwrap();
        let scratch = history::store(scratch.path());
        let lane = scratch.replay_lane(module.lane(), &journal, start).unwrap();
        run(&mut Runner::new(lane, module.clone()), &mut history::answers);
        assert_eq!(replayed(&loaded, &module), result(&scratch, module.lane()), "from {start}");
    }
}

#[test]
fn what_is_not_whole_is_never_taken_for_a_chain() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, source) = journaled(dir.path(), &forked(1, 0, 50).records);
    let genesis = B256::repeat_byte(7);
    source.remember_genesis(genesis).unwrap();
    let partial = [
        CutOptions { logs: transfers_of_token(), proof: Proof::Hashes, ..everything() },
        CutOptions { proof: Proof::Links, ..everything() },
        CutOptions {
            proof: Proof::Links,
            what_if: WhatIf { reorgs: vec!["5:1".parse().unwrap()], ..WhatIf::default() },
            ..everything()
        },
    ];
    for options in partial {
        let (text, _) = cut(&source, whole(&source), &options);
        let (_dir, loaded) = loaded(&text);
        let refused = loaded.journal.remember_genesis(genesis).unwrap_err();
        assert!(matches!(refused, GenesisError::Other { .. }), "{refused}");
        let mut out = Vec::new();
        let refused = recording::cut(&loaded.journal, whole(&loaded.journal), &options, &mut out);
        assert!(matches!(refused, Err(CutError::NotWhole)), "{refused:?}");
        assert!(out.is_empty());
    }
    let (text, _) = cut(&source, whole(&source), &everything());
    let (_dir, loaded) = loaded(&text);
    loaded.journal.remember_genesis(genesis).unwrap();
}

#[test]
fn what_cannot_be_recorded_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let Forked { records, .. } = forked(3, 0, 120);
    let (store, journal) = journaled(dir.path(), &records);
    let check = |range: Range<usize>, options: CutOptions, expected: &str| {
        let range = Offset::new(range.start as u64)..Offset::new(range.end as u64);
        let error = recording::cut(&journal, range, &options, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    let find = |what: fn(&Record) -> bool| records.iter().position(what).unwrap();
    let revert = find(|record| matches!(record, Record::Revert(_)));
    let outcome = find(|record| matches!(record, Record::Outcome(_)));
    let all = 0..records.len();
    check(revert..records.len(), everything(), "begin at a block");
    check(outcome..records.len(), everything(), "begin at a block");
    check(revert - 1..records.len(), everything(), "before the first one of the range: begin at");
    check(500..600, everything(), "has no record from 500 on");
    check(
        all.clone(),
        CutOptions { logs: transfers_of_token(), ..everything() },
        "without all logs cannot have proof `blooms`",
    );
    let what_if = WhatIf { reorgs: vec!["5:1".parse().unwrap()], ..WhatIf::default() };
    check(all.clone(), CutOptions { what_if, ..everything() }, "ask for `links`");

    // A lane that has yet to handle what is recorded.
    let module = balance_tracker();
    let lane = store.lane(module.lane()).unwrap();
    let mut runner = Runner::new(lane, module.clone());
    let reach = shepherd_dispatch::Reach { records_max: 10, end: Offset::new(10) };
    runner.advance(reach, &mut history::answers, &|| false).unwrap();
    let tapes = tape_of(&store, &module);
    check(all, CutOptions { tapes, ..everything() }, "the tape of balance-tracker ends at record");
}

#[test]
fn a_chain_whose_hashes_are_its_own_is_recorded_by_its_links() {
    let dir = tempfile::tempdir().unwrap();
    let mut records = forked(4, 0, 10).canonical;
    for record in &mut records {
        let Record::Block(block) = record else { unreachable!() };
        block.header.rlp = b"not RLP".to_vec().into();
    }
    let (_store, journal) = journaled(dir.path(), &records);
    for proof in [Proof::Blooms, Proof::Hashes] {
        let options = CutOptions { proof, ..everything() };
        let error = recording::cut(&journal, whole(&journal), &options, &mut Vec::new());
        assert!(error.unwrap_err().to_string().ends_with("ask for `links`"));
    }
    let (text, _) =
        cut(&journal, whole(&journal), &CutOptions { proof: Proof::Links, ..everything() });
    let (_dir, loaded) = loaded(&text);
    assert_eq!(loaded.journal.tail(), journal.tail());
}

/// Changes a line, from 1, of a recording and says what reading it says.
fn broken(text: &str, change: impl FnOnce(&mut Vec<String>)) -> String {
    let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
    change(&mut lines);
    let dir = tempfile::tempdir().unwrap();
    let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    load(&text, dir.path()).err().map_or("nothing is wrong".to_owned(), |error| error.to_string())
}

#[test]
fn a_damaged_recording_is_refused_with_the_line_and_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let all = forked(5, 0, 60).records;
    let (store, journal) = journaled(dir.path(), &all);
    let module = balance_tracker();
    live(&store, &module);
    let (text, _) = cut(
        &journal,
        whole(&journal),
        &CutOptions { tapes: tape_of(&store, &module), ..everything() },
    );
    let replaced = |line: usize, from: &str, to: &str| {
        broken(&text, |lines| {
            assert!(lines[line - 1].contains(from), "{from} is not in line {line}");
            lines[line - 1] = lines[line - 1].replacen(from, to, 1);
        })
    };
    let check = |found: String, line: usize, expected: &str| {
        let is_told = found.starts_with(&format!("test.jsonl:{line}: "))
            && found.contains(expected)
            && found.ends_with("cut it again");
        assert!(is_told, "expected `{expected}` of line {line}: {found}");
    };
    let place = |what: fn(&Record) -> bool| all.iter().position(what).unwrap() + 2;
    let revert = place(|record| matches!(record, Record::Revert(_)));
    let outcome = place(|record| matches!(record, Record::Outcome(_)));
    let with_logs = place(|record| matches!(record, Record::Block(block) if block.logs.len() > 2));
    let last = all.len() + 2;

    check(replaced(1, "\"recording\":1", "\"recording\":2"), 1, "version 2");
    check(replaced(1, "\"chain\":\"devnet\"", "\"chain\":\"Devnet\""), 1, "is not a name");
    check(replaced(1, "\"first_offset\"", "\"first\""), 1, "unknown field `first`");
    check(replaced(1, "balance-tracker", "token-ledger"), 2, "an answer on the tape of");
    check(replaced(1, "\"number\":0", "\"number\":1"), 2, "begins with");
    check(replaced(4, "{", "{{"), 4, "key must be a string");
    check(replaced(4, "\"record\":\"block\"", "\"record\":\"blok\""), 4, "unknown variant `blok`");
    check(replaced(with_logs, "\"data\":\"0x", "\"data\":\"0y"), with_logs, "invalid");
    check(replaced(with_logs, "\"address\":\"0x", "\"address\":\"0x00"), with_logs, "invalid");
    let topic = TRANSFER.to_string();
    check(replaced(with_logs, &topic, &B256::repeat_byte(0x99).to_string()), with_logs, "bloom");
    check(replaced(4, "\"timestamp\":17", "\"timestamp\":18"), 4, "another number, parent or time");
    check(replaced(4, "\"header_rlp\":\"0xf9", "\"header_rlp\":\"0xf8"), 4, "has another hash");
    check(replaced(4, "\"call\":0", "\"call\":1"), 4, "answer 1 where answer 0 belongs");
    check(replaced(4, "\"answer\":\"0x01", "\"answer\":\"0x02"), 4, "`answer` is");
    check(replaced(revert, "\"ancestor\":{\"number\":", "\"ancestor\":{\"number\":1"), revert, "");
    check(replaced(outcome, "\"result\":\"", "\"result\":\"un"), outcome, "`result` is");
    check(replaced(outcome, "\"effect\":\"", "\"effect\":\"x"), outcome, "\"3.0\"");
    check(replaced(outcome, "\"key\":\"", "\"key\":\"0x"), outcome, "`key` is");
    check(replaced(last, "\"records\":", "\"records\":1"), last, "the last line says");
    check(broken(&text, |lines| drop(lines.remove(9))), 10, "a line is missing or stands twice");
    check(broken(&text, |lines| lines.insert(9, lines[9].clone())), 11, "missing or stands twice");
    check(broken(&text, |lines| lines.truncate(20)), 21, "cut off");
    check(broken(&text, |lines| lines.push("{}".to_owned())), last, "goes on after its last line");
    let swapped = broken(&text, |lines| {
        let next = with_logs;
        lines.swap(with_logs - 1, next);
    });
    check(swapped, with_logs, "missing or stands twice");

    // Every line can be cut off anywhere.
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for (before, line) in lines.iter().enumerate().skip(1) {
        let kept: String = lines[..before].concat() + &line[..line.len() / 2];
        let reader = Reader::new(kept.as_bytes(), "test.jsonl").unwrap();
        let errors: Vec<String> =
            reader.filter_map(Result::err).map(|error| error.to_string()).collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        check(errors[0].clone(), before + 1, "cut off");
    }
}

#[test]
fn a_record_that_does_not_follow_is_told_by_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, source) = journaled(dir.path(), &forked(6, 0, 40).canonical);
    let options = CutOptions { proof: Proof::Links, ..everything() };
    let (text, _) = cut(&source, whole(&source), &options);
    let found = broken(&text, |lines| {
        let at = lines[6].find("\"parent\":\"0x").unwrap() + "\"parent\":\"0x".len();
        lines[6].replace_range(at..at + 8, "00000000");
    });
    assert!(found.starts_with("test.jsonl:7: block 5"), "{found}");
    assert!(found.contains("does not extend"), "{found}");
}

#[test]
fn a_recording_is_loaded_into_an_empty_directory_alone() {
    let dir = tempfile::tempdir().unwrap();
    let records = forked(6, 0, 40).canonical;
    let (text, _) = {
        let (_store, source) = journaled(dir.path(), &records);
        cut(&source, whole(&source), &everything())
    };
    let error = load(&text, dir.path()).err().unwrap();
    assert!(error.to_string().contains("into an empty directory"), "{error}");
    assert_eq!(journal(&store(dir.path())).tail().offset, Offset::new(records.len() as u64));
}

#[test]
fn a_file_that_is_not_finished_does_not_take_the_place_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let (_store, source) = journaled(&data, &forked(7, 0, 40).canonical);
    let path = dir.path().join("a.jsonl");
    let cut = recording::cut_to(&source, whole(&source), &everything(), &path).unwrap();
    let before = std::fs::read(&path).unwrap();
    assert_eq!(before.len() as u64, cut.bytes);
    let what_if = WhatIf { reorgs: vec!["900:1".parse().unwrap()], ..WhatIf::default() };
    let options = CutOptions { proof: Proof::Links, what_if, ..everything() };
    recording::cut_to(&source, whole(&source), &options, &path).unwrap_err();
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside it");
    let reader = Reader::open(&path).unwrap();
    assert_eq!(reader.header().chain.as_str(), CHAIN);
    let missing = Reader::open(&dir.path().join("b.jsonl")).err().unwrap();
    assert!(matches!(missing, RecordingError::Io { .. }), "{missing}");
}
