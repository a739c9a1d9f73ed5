//! Why an effect was asked for is told as it was: its logs, reads, state before and after, lines
//! and what came of it, also after reorgs; what cannot be told is said to be missing.

mod common;

use std::{cell::Cell, path::Path};

use alloy_dyn_abi::DynSolValue;
use alloy_primitives::{Address, B256, Bytes, U256, address, hex, keccak256};
use common::{append_all, block, journal, module, runner, store, version};
use shepherd_dispatch::Runner;
use shepherd_host::{BoundModule, ReadAnswer, ReadRequest, World};
use shepherd_log::{
    Block, BlockRef, EffectId, EffectResult, Journal, LaneId, LaneVersion, Log, Offset, Record,
    Refusal, Revert, Settled, Store,
};
use shepherd_replay::{
    LoadVersionError,
    explain::{
        Change, ExplainError, Explanation, Handled, Handling, Occasion, Subject, explain, locate,
    },
};

const ROUND: [u8; 4] = hex!("feaf968c");
const DECIMALS: [u8; 4] = hex!("313ce567");
const GOLDEN: [u8; 56] = hex!(
    "c2b9cb4ea1ee5a86d8049ac09d8f494bf04cca0a68407285f31e2e6379800be8"
    "7bf140727d27ea64b607e042f1225680b40eca6affffffff"
);

/// A live lane, and somewhere to run it again.
struct Bench {
    runner: Runner,
    journal: Journal,
    store: Store,
    module: BoundModule,
    // Dropped last: a store whose directory is gone ends the process.
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(module: BoundModule) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir.path().join("live"));
        let journal = journal(&store);
        let runner = runner(&store, &module);
        Bench { dir, store, journal, module, runner }
    }

    /// More records come in, and the lane passes them.
    fn follow(&mut self, records: &[Record], prices: impl Fn(u64) -> u64) {
        append_all(&self.journal, records);
        self.catch_up(prices);
    }

    fn catch_up(&mut self, prices: impl Fn(u64) -> u64) {
        let mut reads = |block: BlockRef, requests: &[ReadRequest]| {
            let answers = requests.iter().map(|request| answer(block.number, request, &prices));
            Ok::<_, World>(answers.collect())
        };
        while self.runner.advance(3, &mut reads, &|| false).unwrap().is_some() {}
    }

    /// Everything that waits is sent.
    fn send(&mut self) -> Vec<EffectId> {
        let outbox = self.runner.lane().outbox();
        let ids: Vec<EffectId> = outbox.unsettled().iter().map(|entry| entry.id).collect();
        outbox.attempt(&ids)
    }

    /// Everything that was sent is answered.
    fn settle(&mut self, result: &EffectResult) {
        let outbox = self.runner.lane().outbox();
        let settled =
            |id| Settled { id, result: result.clone(), attempts: 2, at_millis: 1_700_000_500_250 };
        outbox.settle(outbox.unsettled().iter().map(|entry| settled(entry.id)).collect()).unwrap();
    }

    fn lane(&self) -> &LaneId {
        self.module.lane()
    }

    fn explained(&self, effect: &str) -> Explanation {
        let explanation = self.try_explain(effect).unwrap();
        println!("{explanation}");
        serde_json::to_string(&explanation).expect("it is JSON, too");
        explanation
    }

    fn try_explain(&self, effect: &str) -> Result<Explanation, ExplainError> {
        self.explain_with(effect, &mut |wanted, lane| self.load(wanted, lane), &mut || ())
    }

    fn explain_with(
        &self,
        effect: &str,
        load: &mut dyn FnMut(&LaneVersion, &LaneId) -> Result<BoundModule, LoadVersionError>,
        ran: &mut dyn FnMut(),
    ) -> Result<Explanation, ExplainError> {
        let Ok(Subject::Effect(effect)) = effect.parse() else { panic!("{effect}") };
        let dir = self.dir.path().join("explain");
        explain(&self.store, self.lane(), effect, load, &dir, &mut |_| ran(), &|| false)
    }

    #[expect(clippy::unnecessary_wraps, reason = "the shape of what loads versions")]
    fn load(&self, wanted: &LaneVersion, lane: &LaneId) -> Result<BoundModule, LoadVersionError> {
        assert_eq!((wanted, lane), (&version(&self.module), self.lane()));
        Ok(self.module.clone())
    }
}

fn answer(number: u64, request: &ReadRequest, prices: &impl Fn(u64) -> u64) -> ReadAnswer {
    let word = |number: u64| U256::from(number).to_be_bytes::<32>();
    match request {
        ReadRequest::Call { data, .. } if data[..4] == ROUND => {
            let time = 1_700_000_000 + number * 12;
            let round = [7, prices(number) * 100_000_000, time, time, 7].map(word);
            ReadAnswer::Returned(round.concat().into())
        }
        ReadRequest::Call { data, .. } if data[..4] == DECIMALS => {
            ReadAnswer::Returned(word(8).into())
        }
        ReadRequest::Call { data, .. } if data[..4] == hex!("26e0a196") => match prices(number) {
            0 => ReadAnswer::Reverted(try_next_block()),
            _ => ReadAnswer::Returned(tradeable()),
        },
        ReadRequest::Balance(_) => ReadAnswer::Balance(U256::from(prices(number))),
        other => panic!("{other:?} is not asked"),
    }
}

/// `PollTryNextBlock("not yet")`.
fn try_next_block() -> Bytes {
    let reason = DynSolValue::Tuple(vec![DynSolValue::String("not yet".to_owned())]);
    [hex!("d05f3065").to_vec(), reason.abi_encode_params()].concat().into()
}

/// The order that a handler answers, and its owner's signature.
fn tradeable() -> Bytes {
    let uint = |number: u64| DynSolValue::Uint(U256::from(number), 256);
    let word = |word: B256| DynSolValue::FixedBytes(word, 32);
    let order = vec![
        DynSolValue::Address(Address::repeat_byte(1)),
        DynSolValue::Address(Address::repeat_byte(2)),
        DynSolValue::Address(Address::ZERO),
        uint(1_000),
        uint(900),
        uint(1_700_003_599),
        word(keccak256("{}")),
        uint(0),
        word(keccak256("sell")),
        DynSolValue::Bool(false),
        word(keccak256("erc20")),
        word(keccak256("erc20")),
    ];
    let signature = DynSolValue::Bytes(vec![0x5f; 300]);
    DynSolValue::Tuple(vec![DynSolValue::Tuple(order), signature]).abi_encode_params().into()
}

/// Blocks from one number up to another on a branch, each without logs.
fn blocks(numbers: std::ops::Range<u64>, branch: u64, parent: B256) -> Vec<Record> {
    let mut parent = parent;
    let next = |number| {
        let block = block(number, branch, parent, 0);
        parent = block.header.this.hash;
        Record::Block(block)
    };
    numbers.map(next).collect()
}

fn head(records: &[Record]) -> BlockRef {
    match records.last() {
        Some(Record::Block(block)) => block.header.this,
        other => panic!("{other:?}"),
    }
}

fn this(record: &Record) -> BlockRef {
    match record {
        Record::Block(block) => block.header.this,
        other => panic!("{other:?}"),
    }
}

fn handling(explanation: &Explanation) -> &Handling {
    match &explanation.handling {
        Handled::Handling(handling) => handling,
        Handled::NotShown(why) => panic!("{why}"),
    }
}

/// Five thousand dollars, and fourteen hundred from this block on.
fn falling(at: u64) -> impl Fn(u64) -> u64 {
    move |number| if number < at { 5_000 } else { 1_400 }
}

fn stop_loss() -> Bench {
    Bench::new(module("stop-loss", "trigger = \"1500\""))
}

#[test]
fn an_order_is_explained_by_the_round_that_triggered_it() {
    let mut bench = stop_loss();
    let records = blocks(0..9, 0, B256::ZERO);
    bench.follow(&records, falling(6));
    assert_eq!(bench.send().len(), 1);
    let more = blocks(9..12, 0, head(&records).hash);
    bench.follow(&more, falling(6));
    bench.settle(&EffectResult::Accepted);
    bench.catch_up(falling(6));

    let explanation = bench.explained("6.0");
    assert_eq!(explanation.lane, "stop-loss@devnet");
    assert_eq!(explanation.block.number, 6);
    assert_eq!(explanation.is_reproduced, Some(true));
    let version = explanation.version.as_ref().unwrap();
    assert_eq!(version.module, bench.module.module().sha256().to_string());
    let Some(Occasion::Block(cause)) = &explanation.occasion else { panic!() };
    assert!(cause.every_block && !cause.tick && cause.logs.is_empty());
    assert_eq!((cause.record, cause.timestamp, cause.taken_back_by), (6, 1_700_000_072, None));

    // The order, with its fields as people read them.
    assert_eq!(explanation.wish.kind, "order");
    let fields = explanation.wish.fields();
    let field = |name: &str| fields.iter().find(|field| field.name == name).unwrap();
    assert_eq!(field("sellAmount").value, "5000000000000000");
    assert_eq!(field("validTo").value, "4294967295 (2106-02-07T06:28:15Z)");

    // One read of two questions, in words.
    let handling = handling(&explanation);
    let [call] = &handling.reads[..] else { panic!("{:?}", handling.reads) };
    let round = &call.questions[0];
    assert_eq!(round.asks.as_ref().unwrap().name, "latestRoundData");
    let says: Vec<&str> = round.says.iter().map(|argument| argument.name.as_str()).collect();
    assert_eq!(says, ["roundId", "answer", "startedAt", "updatedAt", "answeredInRound"]);

    // Its progress before and after.
    let [Change { key, before, after }] = &handling.changes[..] else {
        panic!("{:?}", handling.changes)
    };
    assert_eq!(key, "\"order\"");
    assert!(before.is_some() && after.is_some() && before != after);
    assert!(!handling.lines.is_empty(), "the module says that it fired");
    assert_eq!(handling.effects.len(), 1);

    // What came of it.
    let fate = &explanation.fate;
    assert_eq!((fate.result.as_str(), fate.attempts), ("accepted", Some(2)));
    assert_eq!((fate.block, fate.blocks_later, fate.record), (Some(11), Some(5), Some(12)));
    assert_eq!(fate.at.as_deref(), Some("2023-11-14T22:21:40.25Z"));
    let text = explanation.to_string();
    for part in [
        "stop-loss@devnet asked for order 0x",
        "record 6: block 6 of 2023-11-14T22:14:32Z",
        "latestRoundData()",
        "returned roundId 7, answer 140000000000, ",
        "updatedAt 1700000072 (2023-11-14T22:14:32Z)",
        "accepted, known at block 11, 5 blocks later, after 2 attempts",
    ] {
        assert!(text.contains(part), "`{part}` is missing");
    }
}

/// A block with an order of a handler that is asked, and with other logs.
fn with_order_created(number: u64, parent: B256, owner: Address) -> Block {
    let params = DynSolValue::Tuple(vec![
        DynSolValue::Address(Address::repeat_byte(0x77)),
        DynSolValue::FixedBytes(B256::repeat_byte(9), 32),
        DynSolValue::Bytes(vec![1, 2, 3]),
    ]);
    let created = Log {
        address: address!("0xfdaFc9d1902f4e0b84f65F49f244b32b31013b74"),
        topics: vec![
            keccak256("ConditionalOrderCreated(address,(address,bytes32,bytes))"),
            owner.into_word(),
        ],
        data: DynSolValue::Tuple(vec![params]).abi_encode_params().into(),
        index: 5,
        transaction_index: 2,
        transaction_hash: B256::repeat_byte(0x7a),
    };
    let mut block = block(number, 0, parent, 5);
    block.logs.push(created);
    block
}

#[test]
fn an_order_of_the_watcher_is_explained_by_the_log_that_created_it_and_the_contracts_answer() {
    let mut bench = Bench::new(module("twap-monitor", ""));
    let owner = Address::repeat_byte(0xaa);
    let mut records = blocks(0..3, 0, B256::ZERO);
    records.push(Record::Block(with_order_created(3, head(&records).hash, owner)));
    records.extend(blocks(4..9, 0, head(&records).hash));
    // The contract has no order before block 6.
    bench.follow(&records, |number| u64::from(6 <= number));
    let asked = bench.send();
    assert_eq!(asked, [EffectId { offset: Offset::new(6), index: 0 }]);

    let explanation = bench.explained("6.0");
    let handled = handling(&explanation);
    let question = &handled.reads[0].questions[0];
    assert_eq!(question.contract.as_deref(), Some("ComposableCoW"));
    let asks = question.asks.as_ref().unwrap();
    assert_eq!(asks.name, "getTradeableOrderWithSignature");
    assert_eq!((question.answered.as_str(), question.says[0].name.as_str()), ("returned", "order"));
    assert!(!handled.changes.is_empty());
    let fields = explanation.wish.fields();
    let field = |name: &str| fields.iter().find(|field| field.name == name).unwrap();
    assert_eq!(field("from").value, owner.to_string());
    assert_eq!(field("validTo").value, "1700003599 (2023-11-14T23:13:19Z)");
    assert_eq!(explanation.fate.result, "attempted");
    // The log that the module was given three blocks before.
    let [created] = &explanation.earlier[..] else { panic!("{:?}", explanation.earlier) };
    assert_eq!((created.record, created.block, created.log.index), (3, 3, 5));
    assert_eq!(created.log.said.as_ref().unwrap().name, "ConditionalOrderCreated");
    let text = explanation.to_string();
    assert!(text.contains("          kind               sell\n"), "{text}");
    assert!(text.contains("it was sent, and no answer is known yet"), "{text}");
    assert!(matches!(
        bench.try_explain("3.0"),
        Err(ExplainError::UnknownEffect { nearby, .. }) if nearby.len() == 1
    ));

    // Had it had an order at once, the log would be what it is because of.
    let mut bench = Bench::new(module("twap-monitor", ""));
    bench.follow(&records, |_| 1);
    let explanation = bench.explained("3.0");
    let Some(Occasion::Block(cause)) = &explanation.occasion else { panic!() };
    assert_eq!((cause.logs_in_block, cause.logs.len()), (6, 1));
    let log = &cause.logs[0];
    assert_eq!((log.index, log.contract), (5, Some("ComposableCoW")));
    assert_eq!(log.said.as_ref().unwrap().name, "ConditionalOrderCreated");
    assert_eq!(explanation.fate.result, "waiting");
    assert_eq!(explanation.earlier, [], "its own log is told with its block");
    let text = explanation.to_string();
    for part in [
        "because of 1 of its 6 logs and the block itself",
        "(ComposableCoW), ConditionalOrderCreated",
        "in transaction 0x7a7a",
        "it waits to be sent",
    ] {
        assert!(text.contains(part), "`{part}` is missing in {text}");
    }
}

#[test]
fn a_webhook_is_explained_with_its_refusal_and_a_second_time_without_running_again() {
    let mut bench = Bench::new(module("price-alert", "webhook = \"alerts\""));
    let records = blocks(0..20, 0, B256::ZERO);
    // Below two thousand at 5, above again at 9, and below at 12.
    bench.follow(
        &records,
        |number| if (5..9).contains(&number) || 12 <= number { 1_900 } else { 3_000 },
    );
    assert_eq!(bench.send().len(), 2);
    bench.settle(&EffectResult::Refused(Refusal {
        status: 410,
        error_type: None,
        description: "nobody listens".to_owned(),
        body: b"gone".to_vec(),
        retry_after: None,
    }));
    bench.catch_up(|_| 1_900);

    let runs = Cell::new(0);
    let explained = |effect: &str| {
        let count = &mut || runs.set(runs.get() + 1);
        bench.explain_with(effect, &mut |wanted, lane| bench.load(wanted, lane), count).unwrap()
    };
    let first = explained("5.0");
    assert!(runs.get() > 0);
    assert_eq!(first.wish.destination.as_deref(), Some("alerts"));
    assert_eq!(first.fate.result, "refused");
    let reason = first.fate.reason.as_deref().unwrap();
    assert_eq!(reason, "410 without an errorType: nobody listens");
    assert!(handling(&first).changes.iter().any(|change| change.key == "\"eth-low\""));

    // From what was kept.
    runs.set(0);
    let again = explained("5.0");
    assert_eq!(runs.get(), 0);
    assert_eq!(handling(&again), handling(&first));
    assert_eq!(again.to_string(), first.to_string());
    // Later ones go on, earlier ones begin anew, and all come to the same.
    let later = explained("12.0");
    assert_eq!(handling(&later).block.number, 12);
    std::fs::remove_dir_all(bench.dir.path().join("explain")).unwrap();
    assert_eq!(handling(&explained("12.0")), handling(&later));
    assert_eq!(handling(&explained("5.0")), handling(&first));
    assert_eq!(handling(&explained("12.0")), handling(&later));
}

#[test]
fn an_order_that_a_reorg_took_back_is_told_apart_from_the_one_that_was_asked_for_again() {
    let mut bench = stop_loss();
    let before = blocks(0..8, 0, B256::ZERO);
    bench.follow(&before, falling(6));
    assert_eq!(bench.send().len(), 1);
    bench.settle(&EffectResult::Accepted);
    bench.catch_up(falling(6));
    let ancestor = this(&before[4]);
    let abandoned = before[5..].iter().map(this).collect();
    let mut after = vec![Record::Revert(Revert { ancestor, abandoned })];
    after.extend(blocks(5..9, 1, ancestor.hash));
    bench.follow(&after, falling(6));

    // Records 0 to 7, the outcome, the revert at 9, and 5' at 10.
    let uid = {
        let snapshot = bench.store.lane_snapshot(bench.lane()).unwrap().unwrap();
        let effects: Vec<_> = snapshot.effects().map(|effect| effect.unwrap()).collect();
        let ids: Vec<String> = effects.iter().map(|(id, ..)| id.to_string()).collect();
        assert_eq!(ids, ["6.0", "11.0"]);
        effects[0].2.key.to_string()
    };
    let subject: Subject = uid.parse().unwrap();
    let (lane, newest) = locate(&bench.store, None, &subject).unwrap();
    assert_eq!((&lane, newest.to_string()), (bench.lane(), "11.0".to_owned()));

    let taken_back = bench.explained("6.0");
    assert_eq!(taken_back.fate.taken_back_by, Some(9));
    assert_eq!(taken_back.fate.result, "accepted");
    let [sibling] = &taken_back.same_key[..] else { panic!("{:?}", taken_back.same_key) };
    assert_eq!((sibling.effect.as_str(), sibling.block), ("11.0", 6));
    let Some(Occasion::Block(cause)) = &taken_back.occasion else { panic!() };
    assert_eq!(cause.taken_back_by, Some(9));
    assert!(taken_back.to_string().contains("its block was taken back at record 9"));

    let again = bench.explained("11.0");
    assert_eq!((again.fate.taken_back_by, again.fate.result.as_str()), (None, "waiting"));
    assert_eq!(again.same_key[0].effect, "6.0");
    // The state before is that of the block they share, as it was the first time.
    assert_eq!(handling(&again).changes, handling(&taken_back).changes);
    assert_ne!(again.block.hash, taken_back.block.hash);
}

#[test]
fn an_effect_that_was_cancelled_before_it_was_sent_is_computed_again() {
    let mut bench = stop_loss();
    let before = blocks(0..8, 0, B256::ZERO);
    bench.follow(&before, falling(6));
    let ancestor = this(&before[4]);
    let abandoned = before[5..].iter().map(this).collect();
    let mut after = vec![Record::Revert(Revert { ancestor, abandoned })];
    after.extend(blocks(5..10, 1, ancestor.hash));
    bench.follow(&after, falling(8));
    let id = EffectId { offset: Offset::new(6), index: 0 };
    let snapshot = bench.store.lane_snapshot(bench.lane()).unwrap().unwrap();
    assert_eq!(snapshot.effect(id).unwrap(), None, "its row is gone");
    drop(snapshot);

    let explanation = bench.explained("6.0");
    assert_eq!(explanation.fate.result, "taken-back");
    assert_eq!(explanation.fate.taken_back_by, Some(8));
    assert_eq!((explanation.wish.kind.as_str(), explanation.block.number), ("order", 6));
    let other = explanation.same_key.iter().map(|sibling| sibling.block).collect::<Vec<_>>();
    assert_eq!(other, [8], "it was asked for again at block 8");
    // Another effect of the same record was never asked for.
    assert!(matches!(bench.try_explain("6.1"), Err(ExplainError::UnknownEffect { .. })));
    assert!(matches!(bench.try_explain("5.0"), Err(ExplainError::UnknownEffect { .. })));
}

#[test]
fn what_there_is_not_is_answered_with_what_there_is() {
    let mut bench = stop_loss();
    bench.follow(&blocks(0..9, 0, B256::ZERO), falling(6));
    let text = bench.try_explain("3.0").unwrap_err().to_string();
    assert!(
        text.starts_with("lane stop-loss@devnet has no effect 3.0; around there it has\n  6.0  0x"),
        "{text}"
    );
    let text = bench.try_explain("900.1").unwrap_err().to_string();
    assert!(text.contains("it has not passed record 900 yet, its next is 9"), "{text}");
    // On another chain the same order has another UID.
    let text = locate(&bench.store, None, &Subject::Order(GOLDEN)).unwrap_err().to_string();
    assert!(text.starts_with("lane stop-loss@devnet never asked for order 0xc2b9cb4e"), "{text}");
    let other: LaneId = "twap-monitor@devnet".parse().unwrap();
    let effect: Subject = "6.0".parse().unwrap();
    let text = locate(&bench.store, Some(&other), &effect).unwrap_err().to_string();
    assert_eq!(text, "there is no lane twap-monitor@devnet; there are stop-loss@devnet");
    // A second lane, and the name alone no longer says which is meant.
    let tracker = module("balance-tracker", "");
    drop(runner(&bench.store, &tracker));
    let found = locate(&bench.store, None, &effect).unwrap();
    assert_eq!(&found.0, bench.lane(), "only one of the two has it");
    let none: Subject = "7.0".parse().unwrap();
    let ambiguous = locate(&bench.store, None, &none).unwrap_err();
    assert!(matches!(&ambiguous, ExplainError::Ambiguous { lanes, .. } if lanes.len() == 2));
}

#[test]
fn without_the_version_that_ran_the_rest_is_told() {
    let mut bench = stop_loss();
    bench.follow(&blocks(0..9, 0, B256::ZERO), falling(6));
    let mut lost = |_: &LaneVersion, _: &LaneId| -> Result<BoundModule, LoadVersionError> {
        Err("it was not kept".into())
    };
    let explanation = bench.explain_with("6.0", &mut lost, &mut || ()).unwrap();
    let Handled::NotShown(why) = &explanation.handling else { panic!() };
    assert!(why.contains("it was not kept"), "{why}");
    assert_eq!(explanation.is_reproduced, None);
    assert_eq!(
        (explanation.wish.kind.as_str(), explanation.fate.result.as_str()),
        ("order", "waiting")
    );
    assert!(explanation.to_string().contains("How it was handled cannot be shown"));
    // When it is found again, so is the handling.
    assert_eq!(handling(&bench.explained("6.0")).block.number, 6);
}

#[test]
fn an_interrupted_explanation_goes_on_where_it_was() {
    let mut bench = stop_loss();
    bench.follow(&blocks(0..40, 0, B256::ZERO), falling(36));
    let dir: &Path = &bench.dir.path().join("explain");
    let effect = EffectId { offset: Offset::new(36), index: 0 };
    let asked = Cell::new(0);
    let interrupted = || {
        asked.set(asked.get() + 1);
        asked.get() > 5
    };
    let mut load = |wanted: &LaneVersion, lane: &LaneId| bench.load(wanted, lane);
    let stopped =
        explain(&bench.store, bench.lane(), effect, &mut load, dir, &mut |_| (), &interrupted);
    let Err(ExplainError::Interrupted { next, wanted }) = stopped else { panic!() };
    assert!(Offset::START < next && next < wanted, "{next}");
    let from = Cell::new(None);
    let explanation = explain(
        &bench.store,
        bench.lane(),
        effect,
        &mut load,
        dir,
        &mut |progress| from.set(from.get().or(Some(progress.from))),
        &|| false,
    )
    .unwrap();
    assert_eq!(from.get(), Some(next), "not from the first record again");
    assert_eq!(handling(&explanation).block.number, 36);
}
