//! What changed histories promise: what was asked for is changed, nothing else, and the chain links.

mod history;

use std::ops::Range;

use alloy_primitives::{Address, B256, Bytes, U256};
use history::{
    CHAIN, Forked, REORG_DEPTH_MAX, TOKEN, TRANSFER, balance_tracker, forked, journaled, live,
    options, records, result, run, seed, state, store, token_ledger,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shepherd_dispatch::Runner;
use shepherd_host::{BoundModule, ReadAnswer, ReadRequest, World};
use shepherd_log::{Block, BlockRef, Journal, Offset, Options, Record, Store};
use shepherd_replay::{
    Tape,
    recording::{self, CutOptions, Logs, Proof, Reader},
    what_if::{
        Changed, INJECTED, Inject, ModifiedHistory, ModifyError, Replacements, WhatIf, WhatIfError,
        modified_history, same_state,
    },
};

fn whole(journal: &Journal) -> Range<Offset> {
    Offset::START..journal.tail().offset
}

fn modified(journal: &Journal, what_if: &WhatIf, store: &Store) -> ModifiedHistory {
    modified_history(journal, whole(journal), &Logs::All, what_if, store).unwrap()
}

fn reorgs(texts: &[&str]) -> WhatIf {
    let reorgs = texts.iter().map(|text| text.parse().unwrap()).collect();
    WhatIf { reorgs, ..WhatIf::default() }
}

fn inject(block: u64, amount: u64) -> Inject {
    let holder = |n: u8| Address::with_last_byte(n).into_word();
    Inject {
        block,
        address: TOKEN,
        topics: vec![*TRANSFER, holder(1), holder(2)],
        data: U256::from(amount).to_be_bytes::<32>().into(),
        transaction_hash: INJECTED,
    }
}

fn blocks(records: &[Record]) -> Vec<&Block> {
    let mut blocks = Vec::new();
    for record in records {
        if let Record::Block(block) = record {
            blocks.push(block);
        }
    }
    blocks
}

/// What is asked about a block that stands in another's place is asked about that one.
fn answers_of<'h>(
    history: &'h ModifiedHistory,
) -> impl FnMut(BlockRef, &[ReadRequest]) -> Result<Vec<ReadAnswer>, World> + 'h {
    |block, requests| history::answers(*history.instead_of.get(&block).unwrap_or(&block), requests)
}

fn run_over(history: &ModifiedHistory, store: &Store, module: &BoundModule) {
    let lane = store.replay_lane(module.lane(), &history.journal, Offset::START).unwrap();
    run(&mut Runner::new(lane, module.clone()), &mut answers_of(history));
}

#[test]
fn after_made_up_reorgs_a_lane_has_the_state_it_has_without_them() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    for module in [token_ledger(), balance_tracker()] {
        for _ in 0..4 {
            // Reorgs of its own have all but used up how deep they may go.
            let Forked { canonical, .. } = forked(rng.random(), 100, 120);
            let dir = tempfile::tempdir().unwrap();
            let (original, journal) = journaled(dir.path(), &canonical);
            live(&original, &module);

            let last = 100 + canonical.len() as u64 - 1;
            let mut what_if = WhatIf::default();
            for _ in 0..rng.random_range(1..6) {
                let depth = rng.random_range(1..=REORG_DEPTH_MAX);
                let block = rng.random_range(100 + depth..=last);
                let empty = if rng.random() { ":empty" } else { "" };
                what_if.reorgs.push(format!("{block}:{depth}{empty}").parse().unwrap());
            }
            let dir = tempfile::tempdir().unwrap();
            let store = store(dir.path());
            let history = modified(&journal, &what_if, &store);
            assert_eq!(history.changed.reorgs, what_if.reorgs.len() as u64);
            run_over(&history, &store, &module);
            assert_eq!(result(&store, module.lane()), result(&original, module.lane()));
            let lanes = [&store, &original].map(|store| store.lane_snapshot(module.lane()));
            let [with, without] = lanes.map(|lane| lane.unwrap().unwrap());
            assert_eq!(same_state(&with, &without).unwrap(), None, "{what_if:?}");
            assert_eq!(history.journal.tail().head, journal.tail().head);
        }
    }
}

#[test]
fn a_made_up_reorg_is_told_in_full_and_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let canonical = forked(8, 100, 30).canonical;
    let (_store, journal) = journaled(dir.path(), &canonical);
    let originals = blocks(&canonical);
    for (text, with_logs) in [("105:2", true), ("105:2:empty", false)] {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let history = modified(&journal, &reorgs(&[text]), &store);
        let records = records(&history.journal);
        assert_eq!(records.len(), canonical.len() + 2 + 2 * 2);
        // b100 … b105, revert, two in their place, revert, b104, b105, and on.
        let Record::Revert(away) = &records[6] else { panic!("{:?}", records[6]) };
        let Record::Revert(back) = &records[9] else { panic!("{:?}", records[9]) };
        let [shared, fourth, fifth] = [3, 4, 5].map(|n| originals[n].header.this);
        assert_eq!((away.ancestor, &away.abandoned), (shared, &vec![fourth, fifth]));
        let replacements = blocks(&records[7..9]);
        let names: Vec<BlockRef> = replacements.iter().map(|block| block.header.this).collect();
        assert_eq!((back.ancestor, &back.abandoned), (shared, &names));
        for (replacement, original) in replacements.iter().zip(&originals[4..6]) {
            let (new, old) = (&replacement.header, &original.header);
            assert_eq!((new.this.number, new.timestamp), (old.this.number, old.timestamp));
            assert_ne!(new.this.hash, old.this.hash);
            assert_eq!(history.instead_of[&new.this], old.this);
            let expected = if with_logs { original.logs.clone() } else { vec![] };
            assert_eq!(replacement.logs, expected);
        }
        let rest: Vec<BlockRef> = blocks(&records[10..]).iter().map(|b| b.header.this).collect();
        let expected: Vec<BlockRef> = originals[4..].iter().map(|b| b.header.this).collect();
        assert_eq!(rest, expected);
    }
}

#[test]
fn logs_are_injected_and_dropped_where_it_was_said() {
    let dir = tempfile::tempdir().unwrap();
    let original = forked(seed(), 100, 150).records;
    let (_store, journal) = journaled(dir.path(), &original);
    let what_if = WhatIf {
        inject: vec![inject(110, 1), inject(103, 2), inject(110, 3)],
        drop: vec![
            format!("address={TOKEN},topic0={},blocks=105..120", *TRANSFER).parse().unwrap(),
            format!("address={}", Address::repeat_byte(0xdd)).parse().unwrap(),
        ],
        reorgs: vec![],
    };
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let history = modified(&journal, &what_if, &store);
    let mut changed = Changed::default();
    let changes = records(&history.journal);
    assert_eq!(changes.len(), original.len());
    for (changed_record, record) in changes.iter().zip(&original) {
        let (Record::Block(new), Record::Block(old)) = (changed_record, record) else {
            assert_eq!(changed_record, record);
            continue;
        };
        let number = old.header.this.number;
        assert_eq!((new.header.this, new.header.parent), (old.header.this, old.header.parent));
        let mut expected = old.logs.clone();
        expected.retain(|log| {
            let within = (105..=120).contains(&number);
            let transfer = log.address == TOKEN && log.topics.first() == Some(&*TRANSFER);
            log.address != Address::repeat_byte(0xdd) && !(transfer && within)
        });
        changed.dropped += (old.logs.len() - expected.len()) as u64;
        let (kept, added) = new.logs.split_at(expected.len());
        assert_eq!(kept, expected);
        let next = old.logs.last().map_or(0, |log| log.index + 1);
        for (log, index) in added.iter().zip(next..) {
            assert_eq!((log.index, log.transaction_hash), (index, INJECTED));
        }
        let amounts: Vec<u8> = added.iter().map(|log| log.data[31]).collect();
        let expected: &[u8] = match number {
            103 => &[2],
            110 => &[1, 3],
            _ => &[],
        };
        assert_eq!(amounts, expected, "block {number}");
        changed.injected += amounts.len() as u64;
    }
    assert!(changed.dropped > 0 && changed.injected >= 3, "{changed:?}");
    assert_eq!(history.changed, changed);
}

#[test]
fn a_module_sees_what_was_injected_and_not_what_was_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let (original, journal) = journaled(dir.path(), &forked(9, 0, 60).canonical);
    let module = token_ledger();
    live(&original, &module);
    let what_if = WhatIf {
        inject: vec![inject(20, 1_000_000)],
        drop: vec![format!("address={}", Address::repeat_byte(0xdd)).parse().unwrap()],
        reorgs: vec!["22:4".parse().unwrap()],
    };
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let history = modified(&journal, &what_if, &store);
    run_over(&history, &store, &module);
    let (with, without) = (state(&store, module.lane()), state(&original, module.lane()));
    let of = |token: Address| move |key: &&Vec<u8>| key[1..21] == token[..];
    assert!(without.keys().any(|key| of(Address::repeat_byte(0xdd))(&key)));
    assert!(!with.keys().any(|key| of(Address::repeat_byte(0xdd))(&key)));
    let key = [b"b".as_slice(), TOKEN.as_slice(), Address::with_last_byte(2).as_slice()].concat();
    let balance = |state: &std::collections::BTreeMap<Vec<u8>, Vec<u8>>| {
        state.get(&key).map_or(U256::ZERO, |value| U256::from_be_slice(value))
    };
    assert_eq!(balance(&with).wrapping_sub(balance(&without)), U256::from(1_000_000));
    let lanes = [&store, &original].map(|store| store.lane_snapshot(module.lane()));
    let [with, without] = lanes.map(|lane| lane.unwrap().unwrap());
    let difference = same_state(&with, &without).unwrap().unwrap();
    assert!(difference.to_string().starts_with("key 0x62"), "{difference}");
}

#[test]
fn what_cannot_be_changed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, journal) = journaled(dir.path(), &forked(10, 100, 60).canonical);
    let last = journal.tail().head.unwrap().number;
    let check = |what_if: WhatIf, expected: &str| {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let modified = modified_history(&journal, whole(&journal), &Logs::All, &what_if, &store);
        let error = modified.err().expect("it cannot be changed like this");
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
        let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        assert!(text.contains(expected), "{text}");
        error
    };
    let error = check(reorgs(&["99:1"]), &format!("has no block 99, it goes from 100 to {last}"));
    assert!(matches!(error, WhatIfError::Modify(ModifyError::NoSuchBlock { .. })));
    check(WhatIf { inject: vec![inject(999, 1)], ..WhatIf::default() }, "inject into block 999");
    check(reorgs(&["102:3"]), "reorg-at 102:3: the history begins at block 100");
    check(reorgs(&["100:1"]), "reorg-at 100:1: the history begins at block 100");
    check(reorgs(&["130:11"]), "no revert may go below block 120");
}

#[test]
fn a_changed_history_that_was_interrupted_is_gone_on_with() {
    let seed = seed();
    let source_dir = tempfile::tempdir().unwrap();
    let canonical = forked(seed, 100, 900).canonical;
    let (_source, journal) = journaled(source_dir.path(), &canonical);
    let half = 100 + canonical.len() as u64 / 2;
    let reorgs_of = |depth: u64| reorgs(&[&format!("{half}:{depth}"), "120:9:empty"]);
    let what_if = WhatIf { inject: vec![inject(half, 1)], ..reorgs_of(3) };
    let once = tempfile::tempdir().unwrap();
    let once = store(once.path());
    let expected = records(&modified(&journal, &what_if, &once).journal);

    let dir = tempfile::tempdir().unwrap();
    {
        // As a process leaves it that was killed between two appends.
        let store = store(dir.path());
        let begun = store.journal(&CHAIN.parse().unwrap(), history::CHAIN_ID).unwrap();
        begun.append(Offset::START, &expected[..half as usize - 100]).unwrap();
    }
    let again = store(dir.path());
    let history = modified(&journal, &what_if, &again);
    assert_eq!(records(&history.journal), expected);
    assert_eq!(records(&modified(&journal, &what_if, &again).journal), expected);
    for other in [reorgs_of(2), WhatIf::default()] {
        let error = modified_history(&journal, whole(&journal), &Logs::All, &other, &again);
        assert!(matches!(error, Err(WhatIfError::OtherHistory { .. })));
    }
}

#[test]
fn a_tape_follows_its_records_into_a_changed_history() {
    let module = balance_tracker();
    let dir = tempfile::tempdir().unwrap();
    let (original, journal) = journaled(dir.path(), &forked(11, 100, 60).canonical);
    live(&original, &module);
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let history = modified(&journal, &reorgs(&["110:3", "130:1:empty"]), &store);
    let tape = || original.lane_snapshot(module.lane()).unwrap().unwrap();
    let mut moved = history.tape(tape());
    for stored in history.journal.read(whole(&history.journal)) {
        let stored = stored.unwrap();
        let found = moved.entries(stored.offset()).unwrap();
        let Record::Block(block) = stored.record().to_record() else {
            assert_eq!(found, []);
            continue;
        };
        let this = block.header.this;
        let of = *history.instead_of.get(&this).unwrap_or(&this);
        let offset = journal.offset_of(of).unwrap().unwrap();
        assert_eq!(found, tape().tape(offset).unwrap(), "block {this}");
        assert!(!found.is_empty());
        if !history.instead_of.contains_key(&this) {
            let place = history.place_of(offset).unwrap();
            assert_eq!(history.journal.offset_of(this).unwrap(), Some(place));
        }
    }
}

#[test]
fn a_changed_recording_says_so_and_gives_back_what_was_changed() {
    let module = balance_tracker();
    let dir = tempfile::tempdir().unwrap();
    let (original, journal) = journaled(dir.path(), &forked(12, 100, 60).canonical);
    live(&original, &module);
    let what_if = WhatIf {
        inject: vec![inject(120, 1)],
        drop: vec!["blocks=105".parse().unwrap()],
        ..reorgs(&["121:3"])
    };
    let snapshot = original.lane_snapshot(module.lane()).unwrap().unwrap();
    let cut_options = CutOptions {
        logs: Logs::All,
        proof: Proof::Links,
        tapes: vec![(module.lane().module.clone(), snapshot)],
        what_if: what_if.clone(),
    };
    let mut file = Vec::new();
    recording::cut(&journal, whole(&journal), &cut_options, &mut file).unwrap();
    let text = String::from_utf8(file).unwrap();
    assert_eq!(text.matches("\"injected\":true").count(), 3, "once, in its place, and again");
    assert_eq!(text.matches("\"instead_of\":").count(), 3);

    let dir = tempfile::tempdir().unwrap();
    let options: Options = options();
    let reader = Reader::new(text.as_bytes(), "test.jsonl").unwrap();
    let loaded = recording::load(reader, dir.path(), options).unwrap();
    let words = [
        format!("inject into block 120 a log of {TOKEN}"),
        "drop blocks=105..105".to_owned(),
        "reorg-at 121:3".to_owned(),
    ];
    assert_eq!(loaded.header.modified, words);
    let scratch = tempfile::tempdir().unwrap();
    let scratch = store(scratch.path());
    let history = modified(&journal, &what_if, &scratch);
    assert_eq!(records(&loaded.journal), records(&history.journal));
    assert_eq!(loaded.instead_of, history.instead_of);
    let mut moved = history.tape(original.lane_snapshot(module.lane()).unwrap().unwrap());
    let mut recorded = loaded.tapes[&module.lane().module].clone();
    for offset in 0..loaded.journal.tail().offset.get() {
        let offset = Offset::new(offset);
        assert_eq!(recorded.entries(offset).unwrap(), moved.entries(offset).unwrap());
    }

    // Without the words that it was changed it is refused.
    let unsaid = text.replacen(",\"modified\":[", ",\"modified\":[],\"x\":[", 1);
    assert!(Reader::new(unsaid.as_bytes(), "test.jsonl").is_err());
    let (first, rest) = text.split_once('\n').unwrap();
    let end = first.find(",\"modified\"").unwrap();
    let unsaid = format!("{}}}\n{rest}", &first[..end]);
    let dir = tempfile::tempdir().unwrap();
    let reader = Reader::new(unsaid.as_bytes(), "test.jsonl").unwrap();
    let error = recording::load(reader, dir.path(), history::options()).err().unwrap();
    assert!(error.to_string().contains("a change of what happened"), "{error}");
}

#[test]
fn the_words_for_what_was_injected_are_a_transaction_no_chain_has() {
    assert_eq!(INJECTED.as_slice(), b"shepherd: an injected log       ");
    let line = "{\"block\":1,\"address\":\"0x00000000000000000000000000000000000000ee\",\
                \"topics\":[],\"data\":\"0x\"}";
    let read = Inject::read(line.as_bytes()).unwrap();
    assert_eq!((read[0].transaction_hash, &read[0].data), (INJECTED, &Bytes::new()));
    assert_ne!(INJECTED, B256::ZERO);
    assert_eq!(
        "5:1".parse::<shepherd_replay::what_if::ReorgAt>().unwrap().replacements,
        Replacements::SameLogs
    );
}
