//! What a step promises with real modules: the same result in any batching, after any reorg,
//! and whatever the weather.

mod common;

use common::{
    Forked, answers, append_all, balance_tracker, block, catch_up, forked, hostile, journal,
    outcome, run_fresh, runner, seed, store, straight, token_ledger,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shepherd_dispatch::{ModuleFailure, Stop};
use shepherd_host::{Fault, ReadAnswer, ReadRequest, World};
use shepherd_log::{BlockRef, Offset, Record, Revert};

#[test]
fn state_and_tape_do_not_depend_on_how_the_journal_is_cut_into_steps() {
    let seed = seed();
    for module in [token_ledger(), balance_tracker()] {
        let records = forked(seed, 120).records;
        let one_step = run_fresh(&records, &module, || usize::MAX);
        assert_eq!(run_fresh(&records, &module, || 1), one_step);
        for round in 0..4 {
            let mut rng = StdRng::seed_from_u64(seed ^ round);
            let random = run_fresh(&records, &module, || rng.random_range(1..30));
            assert_eq!(random, one_step);
        }
    }
}

#[test]
fn after_reorgs_a_lane_equals_a_fresh_run_on_the_final_chain() {
    let seed = seed();
    for module in [token_ledger(), balance_tracker()] {
        let forked = forked(seed, 150);
        let fresh = run_fresh(&forked.canonical, &module, || usize::MAX);
        let dir = tempfile::tempdir().unwrap();
        for chunk in forked.records.chunks(40) {
            // Each chunk is followed live, and the process starts again between them.
            let store = store(dir.path());
            let journal = journal(&store);
            let mut runner = runner(&store, &module);
            for record in chunk {
                append_all(&journal, std::slice::from_ref(record));
                catch_up(&mut runner, || 1).unwrap();
            }
        }
        let live = outcome(&store(dir.path()), module.lane());
        assert_eq!((live.state, live.lane, live.block), (fresh.state, fresh.lane, fresh.block));
    }
}

#[test]
fn a_failed_read_delays_the_step_and_is_never_seen_by_the_module() {
    let seed = seed();
    let module = balance_tracker();
    let Forked { records, canonical } = forked(seed, 60);
    let calm = run_fresh(&records, &module, || 1);

    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    append_all(&journal(&store), &records);
    let mut runner = runner(&store, &module);
    // Each block is answered at the third attempt: the first ends a step, the second begins one.
    let mut attempts = std::collections::BTreeMap::<BlockRef, u32>::new();
    let mut failures = 0;
    let mut stormy = |block: BlockRef, requests: &[ReadRequest]| {
        let attempt = attempts.entry(block).or_default();
        *attempt += 1;
        if *attempt < 3 {
            return Err(World::chain("the endpoint is down"));
        }
        answers(block, requests)
    };
    while runner.lane().cursor().next < runner.lane().journal().tail().offset {
        let before = runner.lane().cursor().clone();
        match runner.advance(7, &mut stormy, &|| false) {
            Ok(advanced) => assert!(advanced.is_some()),
            Err(Stop::World { offset, .. }) => {
                assert_eq!((offset, runner.lane().cursor()), (before.next, &before));
                failures += 1;
            }
            Err(stop) => panic!("{stop}"),
        }
    }
    let stormy = outcome(&store, module.lane());
    assert_eq!((stormy.state, stormy.lane, stormy.block), (calm.state, calm.lane, calm.block));
    assert!(failures >= canonical.len(), "only {failures} steps waited");
}

#[test]
fn a_block_that_left_the_chain_before_its_reads_were_answered_is_passed_over() {
    let module = balance_tracker();
    let forked = forked(seed(), 100);
    let canonical: Vec<BlockRef> = forked
        .canonical
        .iter()
        .map(|record| match record {
            Record::Block(block) => block.header.this,
            _ => unreachable!("canonical records are blocks"),
        })
        .collect();
    // An endpoint that has forgotten every abandoned branch, as nodes do.
    let mut forgetful = |block: BlockRef, requests: &[ReadRequest]| {
        if canonical.contains(&block) {
            answers(block, requests)
        } else {
            Err(World::chain("gone"))
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    append_all(&journal(&store), &forked.records);
    let mut runner = runner(&store, &module);
    while runner.advance(5, &mut forgetful, &|| false).unwrap().is_some() {}
    assert_eq!(runner.lane().cursor().next, runner.lane().journal().tail().offset);
    let passed = outcome(&store, module.lane());
    let fresh = run_fresh(&forked.canonical, &module, || usize::MAX);
    assert_eq!((passed.state, passed.lane), (fresh.state, fresh.lane));
}

#[test]
fn a_record_that_fails_ends_the_step_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    append_all(&journal(&store), &straight(20));
    let mut runner = runner(&store, &hostile("panic", 7));
    let advanced = runner.advance(1000, &mut answers, &|| false).unwrap().unwrap();
    assert_eq!((advanced.records, advanced.cursor.next), (7, Offset::new(7)));
    let before = outcome(&store, runner.lane().id());
    for _ in 0..2 {
        let stop = runner.advance(1000, &mut answers, &|| false).unwrap_err();
        assert!(
            matches!(&stop, Stop::Module { offset, block, source: ModuleFailure::Fault(Fault::Panicked(text)), .. }
                if *offset == Offset::new(7) && block.number == 7 && text.contains("on request")),
            "{stop:?}"
        );
        assert_eq!(outcome(&store, runner.lane().id()), before);
    }
}

#[test]
fn a_step_can_be_interrupted_between_records() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    append_all(&journal(&store), &straight(20));
    let mut runner = runner(&store, &token_ledger());
    let asked = std::cell::Cell::new(0);
    let interrupted = || {
        asked.set(asked.get() + 1);
        asked.get() == 3
    };
    let advanced = runner.advance(1000, &mut answers, &interrupted).unwrap().unwrap();
    assert_eq!(advanced.cursor.next, Offset::new(3));
}

#[test]
fn a_tick_depends_on_the_block_before_it_also_across_restarts_and_reorgs() {
    // Blocks are twelve seconds apart, so about every third block ticks.
    let ticks = |cut: usize, records: &[Record]| {
        let dir = tempfile::tempdir().unwrap();
        let manifest = "name = \"ticker\"\ncomponent = \"hostile.wasm\"\n\
             capabilities = [\"state\", \"chain\", \"logging\", \"clock\", \"random\", \"orderbook\",\n\
             \"http\", \"effects.place-order\", \"effects.webhook\"]\n\
             webhooks = [\"alerts\"]\nhttp_hosts = [\"example.org\"]\n\
             [subscribe]\ntick = \"30s\"\n[config]\nbehaviour = \"nondeterminism\"\n";
        let module = common::module_from(manifest, "fixtures/hostile");
        for chunk in records.chunks(7) {
            let store = store(dir.path());
            append_all(&journal(&store), chunk);
            catch_up(&mut runner(&store, &module), || cut).unwrap();
        }
        let store = store(dir.path());
        let state = store.lane_snapshot(module.lane()).unwrap().unwrap();
        (state.state_digest().unwrap(), state.get(b"handled").unwrap().unwrap()[0])
    };
    let mut records = straight(20);
    let (digest, handled) = ticks(1, &records);
    assert_eq!(ticks(1000, &records), (digest, handled));
    // The first block is 20 s past a multiple of 30 s and ticks because it is the first. The other
    // nineteen span 228 s, in which a multiple is crossed 10 s from the first block and every 30 s
    // after that: eight times.
    assert_eq!(handled, 9);

    // The same blocks again after a detour.
    let tail: Vec<Record> = records.split_off(12);
    let blocks = |records: &[Record]| -> Vec<BlockRef> {
        let this = |record: &Record| match record {
            Record::Block(block) => block.header.this,
            _ => unreachable!("a straight chain"),
        };
        records.iter().map(this).collect()
    };
    let ancestor = blocks(&records)[11];
    let detour = block(12, 9, ancestor.hash, 3);
    let abandoned = vec![detour.header.this];
    let records: Vec<Record> = records
        .into_iter()
        .chain([Record::Block(detour), Record::Revert(Revert { ancestor, abandoned })])
        .chain(tail)
        .collect();
    assert_eq!(ticks(1, &records), (digest, handled));
    assert_eq!(ticks(1000, &records), (digest, handled));
}

#[test]
fn reads_are_answered_again_from_the_tape_alone() {
    let module = balance_tracker();
    let records = straight(15);
    let live = run_fresh(&records, &module, || 1);
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    append_all(&journal(&store), &records);
    let mut runner = runner(&store, &module);
    let at = |offset: Offset| {
        let of_record = live.tape.iter().filter(move |(at, _)| *at == offset);
        of_record.map(|(_, entry)| entry.clone()).collect()
    };
    while runner.lane().cursor().next < runner.lane().journal().tail().offset {
        let mut tape = shepherd_host::TapeReads::new(at(runner.lane().cursor().next));
        runner.advance(1, &mut tape, &|| false).unwrap();
    }
    assert_eq!(outcome(&store, module.lane()), live);
    for (_, entry) in &live.tape {
        let answers = shepherd_host::answers(entry).unwrap();
        assert!(answers.iter().all(|answer| matches!(answer, ReadAnswer::Balance(_))));
    }
}
