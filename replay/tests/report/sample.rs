//! A made-up week of a keeper on real storage: a chain with reorgs, TWAP parts that become due, a
//! venue that takes most of them. What was put in is counted beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use alloy_primitives::{Address, B256, Bytes, address, b256, hex, keccak256};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use shepherd_host::{LogFilter, ReadAnswer, Sha256, Subscription, encode_answers};
use shepherd_log::{
    Applied, Block, BlockRef, Deliver, Digest, Effect, EffectId, EffectKey, EffectResult, Header,
    Journal, LaneId, Log, Offset, Options, Outcome, Record, RecordView, Refusal, Revert, Store,
    TapeEntry, Trace, TraceKind, Writes,
};
use shepherd_replay::{About, Run};

const COMPOSABLE_COW: Address = address!("fdaFc9d1902f4e0b84f65F49f244b32b31013b74");
const TWAP: Address = address!("6cF1e9cA41f7611dEf408122793c358a3d11E5a5");
const CREATED: B256 = b256!("2cceac5555b0ca45a3744ced542f54b56ad2eb45e521962372eef212a2cbf361");
const TOKENS: [(Address, u32); 4] = [
    (address!("C02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"), 18),
    (address!("A0b86991c6218b36c1d19D4a2e9Eb0Ce3606eB48"), 6),
    (address!("6B175474E89094C44Da98b954EedeAC495271d0F"), 18),
    (address!("DEf1CA1fb7FBcDC777520aa7f396b4E015F497aB"), 18),
];
const FIRST_BLOCK: u64 = 23_400_000;
const FIRST_TIME: u64 = 1_790_000_004;
const BLOCK_SECONDS: u64 = 12;
const FUEL_LIMIT: u64 = 1_000_000_000;

/// What the module says, as bad as it can be.
pub const HOSTILE: &str =
    "</pre><script>alert('x')</script><img src=x onerror=\"alert(1)\">&amp;\u{202e}";

/// How long a week is, and what is in it.
#[derive(Clone, Copy)]
pub struct Size {
    pub seed: u64,
    pub blocks: u64,
    pub orders: u64,
    /// Blocks before the window.
    pub warm_up: u64,
    /// Whether texts of modules and receivers are hostile.
    pub is_hostile: bool,
}

/// What was put in, counted while it was.
#[derive(Debug, Default)]
pub struct Counted {
    /// By result, of blocks that count in the window; `abandoned` and `warm_up` by themselves.
    pub effects: BTreeMap<String, u64>,
    pub refusals: BTreeMap<String, u64>,
    pub latencies: Vec<u64>,
    pub records: u64,
    pub logs: u64,
    pub fuel: u64,
    pub reorgs: u64,
    /// Of everything the lane asked for.
    pub asked_in_all: u64,
    /// Records that it was called for, the warm-up too.
    pub records_in_all: u64,
    /// Keys in its state.
    pub keys: BTreeSet<Vec<u8>>,
}

/// A finished run, and what a report about it has to say.
pub struct Sample {
    pub run: Run,
    pub lane: LaneId,
    pub journal: Journal,
    pub about: About,
    pub counted: Counted,
    _live: Store,
}

/// One part of one order.
#[derive(Clone)]
struct Part {
    due: u64,
    valid_to: u64,
    owner: Address,
    number: u64,
    sell: usize,
    buy: usize,
    amount: u64,
    webhook: bool,
}

struct Asked {
    id: EffectId,
    block: BlockRef,
    result: Option<EffectResult>,
    settled: Option<u64>,
}

fn header(number: u64, branch: u64, parent: B256) -> Header {
    let hash = keccak256([number.to_be_bytes(), branch.to_be_bytes()].concat());
    Header {
        this: BlockRef { number, hash },
        parent,
        timestamp: FIRST_TIME + (number - FIRST_BLOCK) * BLOCK_SECONDS,
        rlp: Bytes::new(),
    }
}

/// `abi.encode` of the parameters of a TWAP order.
fn created_data(salt: B256) -> Bytes {
    let word = |number: u64| B256::left_padding_from(&number.to_be_bytes());
    let [sell, buy] = [TOKENS[0].0.into_word(), TOKENS[1].0.into_word()];
    let input = [
        sell,
        buy,
        Address::from_word(keccak256(salt)).into_word(),
        word(5_000_000_000_000_000_000),
        word(9_000_000_000),
        word(FIRST_TIME),
        word(12),
        word(3_600),
        word(0),
        keccak256("{}"),
    ];
    let head = [word(0x20), TWAP.into_word(), salt, word(0x60), word(320)];
    head.iter().chain(&input).flatten().copied().collect()
}

fn chain(rng: &mut StdRng, size: Size) -> Vec<Record> {
    let mut records = Vec::new();
    let mut canonical: Vec<BlockRef> = Vec::new();
    let mut branch = 0;
    let created = size.orders as f64 / 6.0 / size.blocks as f64;
    let end = FIRST_BLOCK + size.blocks;
    loop {
        let number = canonical.last().map_or(FIRST_BLOCK, |block| block.number + 1);
        if number == end {
            return records;
        }
        let reorg = (6.0 / size.blocks as f64).min(0.2);
        if canonical.len() > 10 && rng.random_bool(reorg) {
            let kept = canonical.len() - rng.random_range(1..4);
            let abandoned: Vec<BlockRef> = canonical.drain(kept..).collect();
            let ancestor = canonical[kept - 1];
            records.push(Record::Revert(Revert { ancestor, abandoned }));
            branch += 1;
            continue;
        }
        let parent = canonical.last().map_or(B256::ZERO, |block| block.hash);
        let header = header(number, branch, parent);
        let count = usize::from(rng.random_bool(created.min(0.9)));
        let log = |index: usize| {
            let owner = Address::from_word(keccak256(header.this.hash));
            Log {
                address: if index == count { Address::repeat_byte(0xee) } else { COMPOSABLE_COW },
                topics: vec![CREATED, owner.into_word()],
                data: created_data(header.this.hash),
                index: index as u32 * 3,
                transaction_index: index as u32,
                transaction_hash: header.this.hash,
            }
        };
        // One that concerns nobody, now and then.
        let others = usize::from(number.is_multiple_of(5));
        canonical.push(header.this);
        let logs = (0..count + others).map(log).collect();
        records.push(Record::Block(Block { header, logs }));
    }
}

fn parts(rng: &mut StdRng, size: Size) -> Vec<Part> {
    let span = size.blocks * BLOCK_SECONDS;
    let mut parts = Vec::new();
    let mut number = 0;
    while number < size.orders {
        let owner = Address::from_word(keccak256(number.to_be_bytes()));
        let count = rng.random_range(2..12).min(size.orders - number);
        let every = [600, 3_600, 14_400][rng.random_range(0..3)].min(span / 12).max(BLOCK_SECONDS);
        let start = FIRST_TIME + rng.random_range(0..(span - span / 10));
        let (sell, buy) = (rng.random_range(0..4), rng.random_range(1..4));
        for part in 0..count {
            let due = start + part * every;
            parts.push(Part {
                due,
                valid_to: due + every - 1,
                owner,
                number,
                sell,
                buy: (sell + buy) % 4,
                amount: rng.random_range(50..90_000),
                webhook: rng.random_bool(0.04),
            });
            number += 1;
        }
    }
    parts.sort_by_key(|part| part.due);
    parts
}

fn effect(part: &Part, size: Size) -> Effect {
    let hostile = |text: String| if size.is_hostile { HOSTILE.to_owned() } else { text };
    if part.webhook {
        let body = json!({ "text": hostile(format!("part {} is late", part.number)) });
        let key =
            EffectKey::Webhook { destination: "alerts".to_owned(), key: part.number.to_string() };
        let body = body.to_string().into_bytes();
        return Effect { key, body, deliver: Deliver::Instant, expires: part.due + 3_600 };
    }
    let digest = keccak256([part.owner.as_slice(), &part.number.to_be_bytes()].concat());
    let mut uid = [0; 56];
    uid[..32].copy_from_slice(digest.as_slice());
    uid[32..52].copy_from_slice(part.owner.as_slice());
    uid[52..].copy_from_slice(&(part.valid_to as u32).to_be_bytes());
    let lower = |address: Address| hex::encode_prefixed(address);
    let amount = |(_, decimals): (Address, u32)| {
        format!("{}{}", part.amount, "0".repeat(decimals as usize - 2))
    };
    let body = json!({
        "sellToken": lower(TOKENS[part.sell].0),
        "buyToken": lower(TOKENS[part.buy].0),
        "receiver": lower(part.owner),
        "sellAmount": amount(TOKENS[part.sell]),
        "buyAmount": amount(TOKENS[part.buy]),
        "validTo": part.valid_to,
        "feeAmount": "0",
        "kind": "sell",
        "partiallyFillable": false,
        "sellTokenBalance": "erc20",
        "buyTokenBalance": "erc20",
        "signingScheme": "eip1271",
        "signature": hex::encode_prefixed(digest.repeat(10)),
        "from": hostile(lower(part.owner)),
        "appData": hex::encode_prefixed(keccak256("{}")),
    });
    let deliver = match part.number % 9 {
        8 => Deliver::Confirmations(2),
        _ => Deliver::Instant,
    };
    let body = body.to_string().into_bytes();
    Effect { key: EffectKey::Order(uid), body, deliver, expires: part.valid_to }
}

fn refusal(rng: &mut StdRng, size: Size) -> EffectResult {
    let all = [
        ("InsufficientBalance", "the owner does not have enough of the sell token"),
        ("InsufficientAllowance", "the owner has not approved the vault relayer"),
        ("InsufficientBalance", "the owner does not have enough of the sell token"),
        ("InvalidEip1271Signature", "the signature does not verify for this owner and order"),
        ("TooManyLimitOrders", "the owner has too many open limit orders"),
    ];
    let (name, description) = all[rng.random_range(0..all.len())];
    let hostile = |text: &str| if size.is_hostile { HOSTILE } else { text }.to_owned();
    EffectResult::Refused(Refusal {
        status: 400,
        error_type: Some(hostile(name)),
        description: hostile(description),
        body: Vec::new(),
        retry_after: None,
    })
}

/// When an effect is settled, as blocks after the one that asked, and how.
fn fate(rng: &mut StdRng, effect: &Effect, size: Size) -> Option<(u64, EffectResult)> {
    let wait = match effect.deliver {
        Deliver::Confirmations(depth) => u64::from(depth),
        _ => 0,
    };
    let late = match rng.random_range(0..100) {
        0..70 => 1,
        70..88 => 2,
        88..95 => rng.random_range(3..6),
        95..98 => rng.random_range(6..24),
        _ => rng.random_range(24..90),
    };
    let result = match rng.random_range(0..100) {
        0..86 => EffectResult::Accepted,
        86..88 => EffectResult::AlreadyThere,
        88..95 => refusal(rng, size),
        95..97 => EffectResult::Expired,
        97 => EffectResult::Cancelled("its block was taken back".to_owned()),
        _ => return None,
    };
    Some((wait + late, result))
}

fn tape(rng: &mut StdRng, block: BlockRef) -> TapeEntry {
    let answers = [
        ReadAnswer::Returned(keccak256(block.hash).repeat(14).into()),
        // OrderNotValid("before twap start")
        ReadAnswer::Reverted(Bytes::from_static(&hex!(
                "c8fc2725"
                "0000000000000000000000000000000000000000000000000000000000000020"
                "0000000000000000000000000000000000000000000000000000000000000011"
                "6265666f72652074776170207374617274000000000000000000000000000000"
        ))),
    ];
    let answer = encode_answers(&answers[..rng.random_range(1..3)]);
    TapeEntry { call: 0, request: Digest(block.hash.0), answer }
}

impl Sample {
    /// Makes a history and a run of it below a directory.
    pub fn make(dir: &Path, size: Size) -> Sample {
        let mut rng = StdRng::seed_from_u64(size.seed);
        let live = Store::open(&dir.join("live"), Options::default()).unwrap();
        let lane: LaneId = "twap-monitor@mainnet".parse().unwrap();
        let journal = live.journal(&lane.chain, 1).unwrap();
        for chunk in chain(&mut rng, size).chunks(512) {
            journal.append(journal.tail().offset, chunk).unwrap();
        }
        let run = Run::open(&dir.join("run"), &json!({ "module": "twap-monitor" })).unwrap();
        let tail = journal.tail().offset;
        let config = json!({
            "composable_cow": COMPOSABLE_COW,
            "handlers": { "twap": "0x6cF1e9cA41f7611dEf408122793c358a3d11E5a5" },
            "note": if size.is_hostile { HOSTILE } else { "defaults" },
        });
        let start = Offset::new(size.warm_up);
        let topics = [vec![CREATED], vec![], vec![], vec![]];
        let about = About {
            module: lane.module.clone(),
            sha256: Sha256::of(b"twap-monitor"),
            chain: lane.chain.clone(),
            chain_id: 1,
            config: config.to_string(),
            subscription: Subscription {
                logs: vec![LogFilter::new(vec![COMPOSABLE_COW], topics)],
                ..Subscription::default()
            },
            fuel_limit: FUEL_LIMIT,
            warm_up_from: Offset::START,
            window: start..tail,
            reads: [("tape", 1_204), ("read cache", 310), ("archive endpoint", 88)]
                .map(|(source, count)| (source.to_owned(), count))
                .into(),
            rules: "accept everything after 1 block\n7 % refused at random, seed 7".to_owned(),
            options: [("--set", "poll_every=5")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        };
        let counted = live_through(&mut rng, &run, &lane, &journal, start, size);
        Sample { run, lane, journal, about, counted, _live: live }
    }
}

fn live_through(
    rng: &mut StdRng,
    run: &Run,
    lane_id: &LaneId,
    journal: &Journal,
    start: Offset,
    size: Size,
) -> Counted {
    let parts = parts(rng, size);
    let mut counted = Counted::default();
    let mut next_part = 0;
    let mut asked: Vec<Asked> = Vec::new();
    let mut waiting: Vec<(u64, usize, Outcome)> = Vec::new();
    let mut taken_back: BTreeSet<EffectId> = BTreeSet::new();
    let mut lane = run.lane(lane_id, journal, Offset::START).unwrap();
    while lane.cursor().next < journal.tail().offset {
        let mut step = lane.begin();
        for stored in step.records().take(2_000) {
            let stored = stored.unwrap();
            let offset = stored.offset();
            let block = match stored.record() {
                RecordView::Block(block) => block.to_block(),
                RecordView::Revert(revert) => {
                    step.revert(&revert).unwrap();
                    let ancestor = revert.ancestor.number;
                    let kept = FIRST_TIME + (ancestor - FIRST_BLOCK) * BLOCK_SECONDS;
                    next_part = parts.partition_point(|part| part.due <= kept);
                    waiting.retain(|(_, _, outcome)| outcome.block.number <= ancestor);
                    let reverted = |asked: &&Asked| revert.abandoned.contains(&asked.block);
                    taken_back.extend(asked.iter().filter(reverted).map(|asked| asked.id));
                    counted.reorgs += u64::from(offset >= start);
                    continue;
                }
                RecordView::Outcome(_) => unreachable!("a chain's own records are no outcomes"),
            };
            let Header { this, timestamp, .. } = block.header;
            let logs = block.logs.iter().filter(|log| log.address == COMPOSABLE_COW).count();
            let due: Vec<&Part> =
                parts[next_part..].iter().take_while(|part| part.due <= timestamp).collect();
            next_part += due.len();
            let arriving = |(at, _, _): &mut (u64, usize, Outcome)| *at <= this.number;
            let outcomes: Vec<_> = waiting.extract_if(.., arriving).collect();
            let is_called = logs > 0
                || !due.is_empty()
                || !outcomes.is_empty()
                || this.number.is_multiple_of(8);
            if !is_called {
                step.apply(this, Applied::default()).unwrap();
                continue;
            }
            let key = |name: &str, number: u64| format!("{name}/{number:08}").into_bytes();
            let mut writes = Writes::new();
            for part in &due {
                writes.insert(key("part", part.number), Some(b"waiting".to_vec()));
            }
            writes.insert(b"newest".to_vec(), Some(this.number.to_be_bytes().to_vec()));
            counted.keys.extend(writes.keys().cloned());
            let tape = if due.is_empty() { Vec::new() } else { vec![tape(rng, this)] };
            let effects: Vec<Effect> = due.iter().map(|part| effect(part, size)).collect();
            let reads = tape.len() as u64;
            let fuel = 180_000
                + 2_400_000 * logs as u64
                + 5_100_000 * reads
                + 900_000 * effects.len() as u64
                + rng.random_range(0..90_000)
                + if rng.random_bool(0.002) { 38_000_000 } else { 0 };
            for (index, effect) in effects.iter().enumerate() {
                let id = EffectId { offset, index: index as u32 };
                let row = asked.len();
                asked.push(Asked { id, block: this, result: None, settled: None });
                let Some((blocks, result)) = fate(rng, effect, size) else { continue };
                let outcome = Outcome {
                    module: lane_id.module.clone(),
                    effect: id,
                    key: effect.key.clone(),
                    block: this,
                    result,
                    attempts: 1,
                    at_millis: 0,
                    head: this,
                };
                waiting.push((this.number + blocks, row, outcome));
            }
            let trace = Trace {
                offset,
                block: this,
                timestamp,
                kind: TraceKind::Block,
                logs: logs as u32,
                reads: reads as u32,
                writes: writes.len() as u32,
                effects: effects.len() as u32,
                outcomes: outcomes.len() as u32,
                fuel,
                micros: fuel / 2_000 + reads * rng.random_range(300..2_500),
                wrote: Digest(keccak256(this.hash).0),
                read: Digest::ZERO,
                after: Digest(this.hash.0),
            };
            let applied = Applied { writes, tape, effects, fuel };
            step.apply(this, applied).unwrap();
            for (_, row, outcome) in outcomes {
                asked[row].result = Some(outcome.result.clone());
                asked[row].settled = Some(this.number);
                let at_millis = timestamp * 1_000;
                let outcome = Outcome { head: this, at_millis, ..outcome };
                step.told_by_venue(outcome, Applied::default()).unwrap();
            }
            counted.records_in_all += 1;
            if offset >= start {
                counted.records += 1;
                counted.logs += u64::from(trace.logs);
                counted.fuel += trace.fuel;
            }
            step.trace(trace);
            if step.is_full() {
                break;
            }
        }
        step.commit([7; 32]).unwrap();
    }
    counted.asked_in_all = asked.len() as u64;
    for asked in asked {
        let what = match &asked.result {
            _ if asked.id.offset < start => "warm_up",
            _ if taken_back.contains(&asked.id) => "abandoned",
            Some(result) => result.kind(),
            None => "open",
        };
        *counted.effects.entry(what.to_owned()).or_default() += 1;
        if matches!(what, "warm_up" | "abandoned") {
            continue;
        }
        match &asked.result {
            Some(EffectResult::Refused(refusal)) => {
                let name: String = refusal.error_type.clone().unwrap().chars().take(80).collect();
                *counted.refusals.entry(name).or_default() += 1;
            }
            Some(result) if result.is_done() => {
                counted.latencies.push(asked.settled.unwrap() - asked.block.number);
            }
            _ => (),
        }
    }
    counted
}
