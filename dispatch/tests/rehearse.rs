//! Going over a lane's last records once more, with real modules on real storage.

mod common;

use common::{
    answers, append_all, balance_tracker, catch_up, forked, journal, module, outcome, runner, seed,
    store, token_ledger,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shepherd_dispatch::Rehearsal;
use shepherd_host::{BoundModule, ReadAnswer, ReadRequest, World};
use shepherd_log::{BlockRef, Offset, Record};

#[test]
fn a_lane_that_did_what_it_says_comes_to_the_same_again() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut gone_over = 0;
    for module in [token_ledger(), balance_tracker()] {
        for round in 0..10 {
            let dir = tempfile::tempdir().unwrap();
            let length = rng.random_range(1..90);
            lived(dir.path(), &module, &forked(seed ^ round, length).records, &mut rng);
            let store = store(dir.path());
            let before = outcome(&store, module.lane());
            let mut runner = runner(&store, &module);
            let cursor = runner.lane().cursor().clone();
            let Rehearsal { records, difference } = runner.rehearse(&mut answers).unwrap();
            assert_eq!(difference, None, "seed {seed}, round {round}, {records:?}");
            assert_eq!(records.end, cursor.next);
            gone_over += records.end.get() - records.start.get();
            // Nothing has moved, and the lane goes on.
            assert_eq!(runner.lane().cursor(), &cursor);
            assert_eq!(outcome(&store, module.lane()), before);
        }
    }
    assert!(gone_over > 100, "{gone_over} records were gone over");
}

#[test]
fn a_lane_that_did_something_else_is_found_out_at_the_record() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let module = balance_tracker();
    let dir = tempfile::tempdir().unwrap();
    lived(dir.path(), &module, &common::straight(40), &mut rng);
    let store = store(dir.path());
    let mut runner = runner(&store, &module);
    let mut others = |block: BlockRef, requests: &[ReadRequest]| -> Result<_, World> {
        let mut given = answers(block, requests)?;
        if block.number == 35 {
            given[0] = ReadAnswer::Balance(alloy_primitives::U256::from(7_654_321));
        }
        Ok(given)
    };
    let Rehearsal { records, difference } = runner.rehearse(&mut others).unwrap();
    let difference = difference.expect("a balance is another");
    assert_eq!(difference.records, Offset::new(35)..Offset::new(36), "within {records:?}");
    assert_ne!(difference.committed, difference.rehearsed);
}

#[test]
fn a_lane_with_another_configuration_is_found_out_by_its_state() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    lived(dir.path(), &balance_tracker(), &common::straight(40), &mut rng);
    let store = store(dir.path());
    let watched = alloy_primitives::Address::repeat_byte(3);
    let config = format!("addresses = [\"{watched}\"]\nthreshold_wei = \"500\"");
    let other = module("balance-tracker", &config);
    let found = runner(&store, &other).rehearse(&mut answers).unwrap();
    let difference = found.difference.expect("it watches one of five");
    assert!(difference.key.is_some(), "{difference:?}");
}

/// Follows the records live, some at a time.
fn lived(dir: &std::path::Path, module: &BoundModule, records: &[Record], rng: &mut StdRng) {
    let store = store(dir);
    let journal = journal(&store);
    let mut runner = runner(&store, module);
    let mut rest = records;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rng.random_range(1..=rest.len().min(6)));
        append_all(&journal, now);
        catch_up(&mut runner, || 3).unwrap();
        rest = later;
    }
}
