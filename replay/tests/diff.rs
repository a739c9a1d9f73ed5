//! Two runs over the same history are compared truthfully: nothing is found where there is nothing,
//! and what there is is named, with its block, its keys, its effects and its reads.

mod common;

use std::{collections::BTreeSet, path::Path};

use alloy_primitives::{Address, U256, hex};
use common::{
    BALANCE_TRACKER, TELLER, TOKEN_LEDGER, answers, append_all, forked, journal, module, seed,
    store, straight,
};
use serde_json::json;
use shepherd_dispatch::Runner;
use shepherd_host::{BoundModule, ReadAnswer, ReadRequest, Reads, World};
use shepherd_log::{BlockRef, Journal, Offset, Record};
use shepherd_replay::{
    Backtest, Ended, History, Outside, Rules, Run, Window,
    diff::{Again, Aspect, Compare, DiffError, Differences, Look, SettledBy, Side, diff},
    drive,
};

/// A history, and runs over it.
struct Bench {
    journal: Journal,
    _store: shepherd_log::Store,
    // Dropped last: a store whose directory is gone ends the process.
    dir: tempfile::TempDir,
}

impl Bench {
    fn over(records: &[Record]) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir.path().join("live"));
        let journal = journal(&store);
        append_all(&journal, records);
        Bench { dir, journal, _store: store }
    }

    fn run(&self, name: &str, module: &BoundModule) -> Run {
        self.run_with(name, module, &mut answers, self.journal.tail().offset)
    }

    fn run_with(
        &self,
        name: &str,
        module: &BoundModule,
        reads: &mut dyn Reads,
        end: Offset,
    ) -> Run {
        let run = Run::open(&self.dir.path().join(name), &json!({ "name": name })).unwrap();
        let lane = run.lane(module.lane(), &self.journal, Offset::START).unwrap();
        let mut runner = Runner::new(lane, module.clone());
        drive(&mut runner, Outside::Tape(reads), end, &mut |_| (), &|| false).unwrap();
        drop(runner);
        run
    }

    fn side<'s>(&'s self, run: &'s Run, module: &BoundModule, dir: &'s Path) -> Side<'s> {
        let again = Again {
            module: module.clone(),
            journal: self.journal.clone(),
            from: Offset::START,
            settled: SettledBy::Journal,
            dir,
        };
        let name = run.dir().file_name().unwrap().to_str().unwrap().to_owned();
        Side { name, run, lane: module.lane().clone(), again: Some(again) }
    }

    fn compare(
        &self,
        a: (&Run, &BoundModule),
        b: (&Run, &BoundModule),
        compare: &Compare,
    ) -> Differences {
        let again = |run: &Run| run.dir().with_extension("again");
        let (dir_a, dir_b) = (again(a.0), again(b.0));
        let mut a = self.side(a.0, a.1, &dir_a);
        let mut b = self.side(b.0, b.1, &dir_b);
        let differences = diff(&mut a, &mut b, compare).unwrap();
        println!("{differences}");
        serde_json::to_string(&differences).expect("it is JSON, too");
        differences
    }
}

fn records_of(differences: &Differences, aspect: Aspect) -> u64 {
    differences.aspects.iter().find(|seen| seen.aspect == aspect).unwrap().records
}

#[test]
fn a_run_does_not_differ_from_another_of_the_same_module() {
    let bench = Bench::over(&forked(seed(), 80).records);
    for module in [&TOKEN_LEDGER, &BALANCE_TRACKER, &TELLER] {
        let module: &BoundModule = module;
        let name = module.lane().module.as_str();
        let a = bench.run(&format!("{name}-a"), module);
        let b = bench.run(&format!("{name}-b"), module);
        let compare = Compare { decides: BTreeSet::from(Aspect::ALL), ..Compare::default() };
        let differences = bench.compare((&a, module), (&b, module), &compare);
        assert!(differences.is_same() && differences.first.is_none());
        let Differences { effects, state, fuel, sides, .. } = &differences;
        assert_eq!(effects.common, effects.asked.a);
        assert_eq!((effects.asked.a, effects.only.a, effects.only.b), (effects.asked.b, 0, 0));
        assert_eq!((state.other_value, state.listed.len()), (0, 0));
        assert_eq!((fuel.sides.a, fuel.total_ratio), (fuel.sides.b, Some(1.0)));
        assert!(sides.a.handled > 0 && fuel.sides.a.total > 0, "there was something to compare");
    }
}

fn tracker(threshold: u64) -> BoundModule {
    let addresses: Vec<String> =
        (1..3).map(|n| format!("\"{}\"", Address::repeat_byte(n))).collect();
    let addresses = addresses.join(", ");
    module(
        "balance-tracker",
        &format!(
            "addresses = [{addresses}]\nthreshold_wei = \"{threshold}\"\nwebhook = \"alerts\""
        ),
    )
}

/// Balances that move by 100 at the blocks 5 and 15, and by 1000 at 10.
#[expect(clippy::unnecessary_wraps, reason = "the shape of a source of reads")]
fn moving(block: BlockRef, requests: &[ReadRequest]) -> Result<Vec<ReadAnswer>, World> {
    let wei = match block.number {
        0..5 => 5_000,
        5..10 => 5_100,
        10..15 => 6_100,
        _ => 6_200,
    };
    Ok(requests.iter().map(|_| ReadAnswer::Balance(U256::from(wei))).collect())
}

#[test]
fn another_configuration_is_found_at_its_block_with_its_keys_and_effects() {
    let bench = Bench::over(&straight(20));
    let (sharp, blunt) = (tracker(50), tracker(500));
    let end = bench.journal.tail().offset;
    let a = bench.run_with("sharp", &sharp, &mut moving, end);
    let b = bench.run_with("blunt", &blunt, &mut moving, end);
    let differences = bench.compare((&a, &sharp), (&b, &blunt), &Compare::default());
    assert!(!differences.is_same());
    let first = differences.first.as_ref().unwrap();
    assert_eq!((first.place.record, first.place.block.number, first.kind), (5, 5, "block"));
    assert_eq!(first.aspects, [Aspect::State, Aspect::Effects, Aspect::Fuel]);
    // Both watched balances: A has moved its reference, B has not.
    let Look::Seen(values) = &first.state else { panic!("{:?}", first.state) };
    let keys: Vec<String> = [1, 2].map(|n| format!("0x{}", hex::encode([n; 20]))).to_vec();
    assert_eq!(values.iter().map(|value| value.key.clone()).collect::<Vec<_>>(), keys);
    let words = |balance: u64, reference: u64| {
        let [balance, reference] = [balance, reference].map(|n| U256::from(n).to_be_bytes::<32>());
        Some(format!("0x{}{}", hex::encode(balance), hex::encode(reference)))
    };
    assert_eq!(values[0].before, words(5_000, 5_000));
    assert_eq!(values[0].a, words(5_100, 5_100));
    assert_eq!(values[0].b, words(5_100, 5_000));
    // A calls the webhook twice, B does not; both ask the same and are answered the same.
    let effects: Vec<&str> = first.effects.iter().map(|effect| effect.how.as_str()).collect();
    assert_eq!(effects, ["only-a", "only-a"]);
    assert_eq!(first.reads, Look::Seen(vec![]));
    assert_eq!(records_of(&differences, Aspect::Reads), 0);
    // Blocks 5, 10 and 15 have effects in A, block 10 in B with another `from`.
    assert_eq!(records_of(&differences, Aspect::Effects), 3);
    let effects = &differences.effects;
    assert_eq!((effects.asked.a, effects.asked.b, effects.common), (6, 2, 0));
    assert_eq!(effects.only.a + effects.other_fields, 6);
    // Only told at 10, B's reference is 6 100 at the end, A's 6 200.
    assert_eq!((differences.state.other_value, differences.state.only.a), (2, 0));
}

#[test]
fn answers_and_questions_that_differ_are_told_apart() {
    let bench = Bench::over(&straight(12));
    let end = bench.journal.tail().offset;
    let tracker = tracker(50);
    let a = bench.run_with("a", &tracker, &mut moving, end);
    let mut other = |block: BlockRef, requests: &[ReadRequest]| {
        let mut answers = moving(block, requests)?;
        if block.number == 7 {
            answers[1] = ReadAnswer::Balance(U256::from(5_101));
        }
        Ok(answers)
    };
    let b = bench.run_with("b", &tracker, &mut other, end);
    let differences = bench.compare((&a, &tracker), (&b, &tracker), &Compare::default());
    let first = differences.first.as_ref().unwrap();
    assert_eq!(
        (first.place.block.number, &first.aspects[..]),
        (7, &[Aspect::State, Aspect::Reads, Aspect::Fuel][..])
    );
    let Look::Seen(reads) = &first.reads else { panic!("{:?}", first.reads) };
    let [one] = &reads[..] else { panic!("{reads:?}") };
    let (a_said, b_said) = (one.a.as_ref().unwrap(), one.b.as_ref().unwrap());
    assert_eq!((a_said.answer.as_str(), b_said.answer.as_str()), ("5100", "5101"));
    assert_eq!(a_said.of, Address::repeat_byte(2).to_string());
    // The balance is another one at 7 alone, so record 8 writes it again.
    assert_eq!(records_of(&differences, Aspect::Reads), 1);

    // With one address more, B asks what A does not, from the first record on.
    let more = module(
        "balance-tracker",
        &format!(
            "addresses = [\"{}\", \"{}\", \"{}\"]\nthreshold_wei = \"50\"\nwebhook = \"alerts\"",
            Address::repeat_byte(1),
            Address::repeat_byte(2),
            Address::repeat_byte(3)
        ),
    );
    let c = bench.run_with("c", &more, &mut moving, end);
    let only_reads = Compare { decides: BTreeSet::from([Aspect::Reads]), ..Compare::default() };
    let differences = bench.compare((&a, &tracker), (&c, &more), &only_reads);
    let first = differences.first.as_ref().unwrap();
    assert_eq!(first.place.record, 0);
    let Look::Seen(reads) = &first.reads else { panic!("{:?}", first.reads) };
    let [one] = &reads[..] else { panic!("{reads:?}") };
    assert!(one.a.is_none());
    assert_eq!(one.b.as_ref().unwrap().of, Address::repeat_byte(3).to_string());
    assert_eq!(records_of(&differences, Aspect::Reads), 12);
    assert_eq!((differences.state.only.a, differences.state.only.b), (0, 1));
}

#[test]
fn fuel_decides_only_when_it_is_asked_to() {
    let bench = Bench::over(&straight(10));
    let end = bench.journal.tail().offset;
    // Another `webhook` in the configuration costs fuel to read, and nothing moves by so much.
    let quiet = "threshold_wei = \"1000000\"\n";
    let addresses = format!("addresses = [\"{}\"]\n", Address::repeat_byte(1));
    let a_module = module("balance-tracker", &format!("{addresses}{quiet}"));
    let b_module = module("balance-tracker", &format!("{addresses}{quiet}webhook = \"alerts\""));
    let a = bench.run_with("a", &a_module, &mut moving, end);
    let b = bench.run_with("b", &b_module, &mut moving, end);
    let differences = bench.compare((&a, &a_module), (&b, &b_module), &Compare::default());
    assert!(differences.is_same(), "fuel does not decide");
    assert_eq!(records_of(&differences, Aspect::Fuel), 10);
    let first = differences.aspects[3].first.unwrap();
    assert_eq!((first.record, first.block.number), (0, 0));
    let ratio = differences.fuel.total_ratio.unwrap();
    assert!(1.0 < ratio && ratio < 1.5, "{ratio}");
    assert!(differences.fuel.p99_ratio.unwrap() > 1.0);

    let fuel = Compare { decides: BTreeSet::from([Aspect::Fuel]), ..Compare::default() };
    let differences = bench.compare((&a, &a_module), (&b, &b_module), &fuel);
    assert!(!differences.is_same());
    let first = differences.first.unwrap();
    assert_eq!((first.aspects, first.place.record), (vec![Aspect::Fuel], 0));
    assert!(first.fuel.a < first.fuel.b);
    assert_eq!((first.state, first.effects.len()), (Look::Seen(vec![]), 0));
}

/// A feed that falls below 1500 dollars at a block.
fn falling(at: u64) -> impl FnMut(BlockRef, &[ReadRequest]) -> Result<Vec<ReadAnswer>, World> {
    move |block, requests| {
        let dollars = if block.number < at { 2_000 } else { 1_400u64 };
        let time = 1_700_000_000 + block.number * 12;
        let answer = |request: &ReadRequest| match request {
            ReadRequest::Call { data, .. } if data[..] == hex!("feaf968c") => {
                let words = [7, dollars * 100_000_000, time, time, 7];
                let words = words.map(|word| U256::from(word).to_be_bytes::<32>());
                ReadAnswer::Returned(words.concat().into())
            }
            _ => ReadAnswer::Returned(U256::from(8).to_be_bytes::<32>().into()),
        };
        Ok(requests.iter().map(answer).collect())
    }
}

#[test]
fn an_effect_that_is_asked_for_later_is_one_effect_and_not_two() {
    let bench = Bench::over(&straight(30));
    let end = bench.journal.tail().offset;
    let module = module("stop-loss", "trigger = \"1500\"");
    let a = bench.run_with("a", &module, &mut falling(11), end);
    let b = bench.run_with("b", &module, &mut falling(14), end);
    let differences = bench.compare((&a, &module), (&b, &module), &Compare::default());
    let effects = &differences.effects;
    assert_eq!((effects.asked.a, effects.asked.b, effects.moved), (1, 1, 1));
    assert_eq!((effects.only.a, effects.only.b, effects.other_fields), (0, 0, 0));
    let [moved] = &effects.listed[..] else { panic!("{effects:?}") };
    assert_eq!(
        (moved.how.as_str(), moved.a.as_deref(), moved.b.as_deref()),
        ("moved", Some("11.0"), Some("14.0"))
    );
    assert_eq!(differences.first.as_ref().unwrap().place.record, 11);
    assert_eq!(records_of(&differences, Aspect::Effects), 2);
}

#[test]
fn only_the_records_that_are_named_are_compared() {
    let bench = Bench::over(&straight(20));
    let (sharp, blunt) = (tracker(50), tracker(500));
    let end = bench.journal.tail().offset;
    let a = bench.run_with("sharp", &sharp, &mut moving, end);
    let b = bench.run_with("blunt", &blunt, &mut moving, end);
    let records = Some(Offset::new(0)..Offset::new(5));
    let compare =
        Compare { decides: BTreeSet::from([Aspect::Effects]), records, ..Compare::default() };
    let differences = bench.compare((&a, &sharp), (&b, &blunt), &compare);
    assert!(differences.is_same());
    assert_eq!((differences.from, differences.end), (0, 5));
    assert_eq!((differences.effects.asked.a, differences.sides.a.handled), (0, 5));
}

#[test]
fn a_run_that_ended_early_is_not_the_same() {
    let bench = Bench::over(&straight(20));
    let end = bench.journal.tail().offset;
    let a = bench.run_with("a", &TOKEN_LEDGER, &mut answers, end);
    let b = bench.run_with("b", &TOKEN_LEDGER, &mut answers, Offset::new(15));
    let differences = bench.compare((&a, &TOKEN_LEDGER), (&b, &TOKEN_LEDGER), &Compare::default());
    assert!(!differences.is_same());
    assert_eq!((differences.end, differences.sides.b.next), (15, 15));
    assert!(differences.first.is_none(), "as far as both go they are the same");
    assert!(differences.to_string().contains("one of them ends before the other"));
}

#[test]
fn runs_over_other_histories_are_not_compared() {
    let (one, other) = (Bench::over(&straight(8)), Bench::over(&forked(7, 8).records));
    let a = one.run("a", &BALANCE_TRACKER);
    let b = other.run("b", &BALANCE_TRACKER);
    let side = |run| Side {
        name: "run".to_owned(),
        run,
        lane: BALANCE_TRACKER.lane().clone(),
        again: None,
    };
    let refused = diff(&mut side(&a), &mut side(&b), &Compare::default()).unwrap_err();
    assert!(
        matches!(refused, DiffError::OtherHistory { record, .. } if record == Offset::START),
        "{refused}"
    );
}

#[test]
fn without_a_way_to_run_again_the_first_difference_is_named_all_the_same() {
    let bench = Bench::over(&straight(20));
    let (sharp, blunt) = (tracker(50), tracker(500));
    let end = bench.journal.tail().offset;
    let a = bench.run_with("sharp", &sharp, &mut moving, end);
    let b = bench.run_with("blunt", &blunt, &mut moving, end);
    let side = |run: &'static str, of, module: &BoundModule| Side {
        name: run.to_owned(),
        run: of,
        lane: module.lane().clone(),
        again: None,
    };
    let differences =
        diff(&mut side("sharp", &a, &sharp), &mut side("blunt", &b, &blunt), &Compare::default())
            .unwrap();
    let first = differences.first.as_ref().unwrap();
    assert_eq!(first.place.block.number, 5);
    assert_eq!(first.effects.len(), 2);
    assert_eq!(first.state, Look::NotSeen("sharp was not run again".to_owned()));
    assert!(differences.to_string().contains("sharp was not run again"));
}

#[test]
fn backtests_under_other_rules_part_where_the_venue_first_says_something_else() {
    let bench = Bench::over(&straight(80));
    let end = bench.journal.tail().offset;
    let module = module("stop-loss", "trigger = \"1500\"");
    // What the feed said, for both.
    let asked = bench.run_with("asked", &module, &mut falling(11), end);
    let backtested = |name: &str, rules: &Rules| {
        let run = Run::open(&bench.dir.path().join(name), &json!({ "name": name })).unwrap();
        let recorded_as = module.lane().module.clone();
        let tape = asked.snapshot(module.lane()).unwrap();
        let history = History {
            journal: bench.journal.clone(),
            tape: Some(Box::new(tape)),
            recorded_as,
            instead_of: std::collections::BTreeMap::new(),
        };
        let backtest = Backtest {
            module: module.clone(),
            window: Window { from: Offset::START, start: Offset::START, end },
            rules: rules.clone(),
            endpoint: None,
            cache: None,
            step_records_max: None,
        };
        let ended = shepherd_replay::backtest(&run, history, backtest, &mut |_| (), &|| false);
        assert_eq!(ended.unwrap(), Ended::Finished);
        run
    };
    let rules = |text: &str| Rules::parse(text, Path::new("rules.toml")).unwrap();
    let poor = rules("[[orders.refuse]]\nerror_type = \"InsufficientBalance\"\ntimes = 1\n");
    let (a, b) = (backtested("rich", &Rules::default()), backtested("poor", &poor));
    let dirs = [bench.dir.path().join("again-a"), bench.dir.path().join("again-b")];
    let mut sides =
        [(&a, Rules::default(), &dirs[0]), (&b, poor, &dirs[1])].map(|(run, rules, dir)| {
            let mut side = bench.side(run, &module, dir);
            let recorded_as = module.lane().module.clone();
            side.again.as_mut().unwrap().settled = SettledBy::Venue { recorded_as, rules };
            side
        });
    let [a, b] = &mut sides;
    let differences = diff(a, b, &Compare::default()).unwrap();
    println!("{differences}");
    // Both ask for the order at block 11 and are told right after it: one yes, one no.
    let first = differences.first.as_ref().unwrap();
    assert_eq!((first.place.record, first.effects.len()), (11, 0));
    let Look::Seen(values) = &first.state else { panic!("{:?}", first.state) };
    let [progress] = &values[..] else { panic!("{values:?}") };
    assert_eq!(progress.key, "\"order\"");
    assert!(progress.a.is_some() && progress.b.is_some());
    assert_eq!(first.reads, Look::Seen(vec![]));
    // The refused one is asked for once more, ten minutes later.
    let effects = &differences.effects;
    assert_eq!((effects.asked.a, effects.asked.b), (1, 2));
    assert_eq!((effects.common, effects.only.b), (1, 1));
    let count = |result: &str| effects.outcomes.get(result).map(|count| (count.a, count.b));
    assert_eq!(count("accepted"), Some((1, 1)));
    assert_eq!(count("refused InsufficientBalance"), Some((0, 1)));
}
