//! The component in the real host does what the function does natively, within its limits.
//!
//! `cargo xtask guests` makes the component.

use std::{collections::BTreeMap, fs, path::Path};

use shepherd_host::{
    At, BlockInput, BoundModule, Engine, EngineOptions, Handled, Input as HostInput, LogRef,
    Manifest, OutcomeInput, OutcomeRef, Overrides, ReadAnswer, ReadRequest, Triggers,
    World as Fails,
};
use shepherd_log::{BlockRef, EffectId, EffectKey as LogKey, EffectResult as LogResult, Offset};
use shepherd_sdk::{
    Answer, B256, EffectKey, EffectResult, Header, Input, OrderbookAnswer, OrderbookRequest,
    Request, U256,
    cow::abi::TwapData,
    testing::{MemoryHost, SEPOLIA, refused},
};

use crate::support::{
    OWNER, START, World, answers, conditional, created, element, emitted, order, other, root_set,
    twap, wide_root,
};

const HOUR: u64 = 3_600;

/// The component, with a state of its own and the same answers.
pub struct Mirror {
    bound: BoundModule,
    state: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Effects so far.
    placed: usize,
    /// What the last input took.
    pub last: Option<Cost>,
}

/// What an input took: fuel, bytes of writes and effects, bytes of answers.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub fuel: u64,
    pub written: usize,
    pub answered: usize,
}

impl Mirror {
    /// The component as its manifest has it for Sepolia.
    pub fn new() -> Mirror {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("module.toml");
        let manifest = Manifest::parse(&fs::read_to_string(&file).unwrap(), &file).unwrap();
        let component = fs::read(manifest.component()).unwrap_or_else(|error| {
            panic!("{}: {error}; run `cargo xtask guests`", manifest.component().display())
        });
        let engine = Engine::new(EngineOptions::default()).unwrap();
        let module = engine.load(&manifest, &component).unwrap();
        let bound = module.bind(&"sepolia".parse().unwrap(), SEPOLIA, &Overrides::default());
        Mirror { bound: bound.unwrap(), state: BTreeMap::new(), placed: 0, last: None }
    }

    /// Handles the input, and compares with what the function has made of it on `host`.
    pub fn handle(&mut self, host: &MemoryHost, input: &Input) {
        let mut reads = |_: BlockRef, requests: &[ReadRequest]| -> Result<Vec<ReadAnswer>, Fails> {
            Ok(requests.iter().map(|request| answer(host, request)).collect())
        };
        let topics: Vec<Vec<B256>> = logs(input).iter().map(|log| log.topics.to_vec()).collect();
        let (key, result);
        let input = match input {
            Input::Block(block) => HostInput::Block(BlockInput {
                this: this(&block.header),
                parent: block.header.parent_hash,
                timestamp: block.header.timestamp,
                triggers: Triggers { logs: !block.logs.is_empty(), block: true, tick: false },
                logs: block
                    .logs
                    .iter()
                    .zip(&topics)
                    .map(|(log, topics)| LogRef {
                        address: log.address,
                        topics,
                        data: &log.data,
                        index: log.index,
                        transaction_index: log.transaction_index,
                        transaction_hash: log.transaction_hash,
                    })
                    .collect(),
            }),
            Input::Outcome(told) => {
                let EffectKey::Order(uid) = told.outcome.key else { unreachable!() };
                key = LogKey::Order(uid.to_bytes());
                result = log_result(&told.outcome.result);
                HostInput::Outcome(OutcomeInput {
                    at: At {
                        this: this(&told.header),
                        parent: told.header.parent_hash,
                        timestamp: told.header.timestamp,
                    },
                    outcome: OutcomeRef {
                        effect: EffectId { offset: Offset::START, index: 0 },
                        key: &key,
                        result: &result,
                        abandoned: told.outcome.abandoned,
                    },
                })
            }
            Input::Revert(_) => panic!("no scenario of these takes blocks back"),
        };
        let handled = self.bound.handle(&input, &mut self.state, &mut reads).unwrap();
        self.last = Some(cost(&handled));
        for (key, value) in handled.writes {
            match value {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
        assert_eq!(self.state, host.state);
        let placed: Vec<LogKey> = handled.effects.into_iter().map(|effect| effect.key).collect();
        let expected: Vec<LogKey> = host.placed[self.placed..]
            .iter()
            .map(|(uid, _)| LogKey::Order(uid.to_bytes()))
            .collect();
        assert_eq!(placed, expected);
        self.placed = host.placed.len();
        assert_eq!(handled.log_lines_dropped, 0);
    }
}

fn logs(input: &Input) -> &[shepherd_sdk::Log] {
    match input {
        Input::Block(block) => &block.logs,
        _ => &[],
    }
}

fn this(header: &Header) -> BlockRef {
    BlockRef { number: header.number, hash: header.hash }
}

fn cost(handled: &Handled) -> Cost {
    let rows = handled.writes.iter();
    let rows = rows.map(|(key, value)| 64 + key.len() + value.as_ref().map_or(0, Vec::len));
    let effects = handled.effects.iter().map(|effect| 64 + effect.bytes());
    Cost {
        fuel: handled.fuel,
        written: rows.sum::<usize>() + effects.sum::<usize>(),
        answered: handled.tape.iter().map(|entry| 64 + entry.answer.len()).sum(),
    }
}

fn answer(host: &MemoryHost, request: &ReadRequest) -> ReadAnswer {
    match request {
        ReadRequest::Call { to, data } => {
            match &host.answers[&Request::Call { to: *to, data: data.clone() }] {
                Answer::Returned(data) => ReadAnswer::Returned(data.clone()),
                Answer::Reverted(data) => ReadAnswer::Reverted(data.clone()),
                other => panic!("{other:?} answers no call"),
            }
        }
        ReadRequest::AppData(hash) => match &host.orderbook[&OrderbookRequest::AppData(*hash)] {
            OrderbookAnswer::AppData(document) => ReadAnswer::AppData(document.clone()),
            OrderbookAnswer::Order(_) => panic!("an order is no document"),
        },
        other => panic!("{other:?} is not asked by this module"),
    }
}

fn log_result(result: &EffectResult) -> LogResult {
    match result {
        EffectResult::Accepted => LogResult::Accepted,
        EffectResult::AlreadyThere => LogResult::AlreadyThere,
        EffectResult::Refused(refusal) => LogResult::Refused(shepherd_log::Refusal {
            status: refusal.status,
            error_type: refusal.error_type.clone(),
            description: refusal.description.clone(),
            body: refusal.body.clone(),
            retry_after: refusal.retry_after,
        }),
        EffectResult::Expired => LogResult::Expired,
        EffectResult::Cancelled(reason) => LogResult::Cancelled(reason.clone()),
        EffectResult::DryRun => LogResult::DryRun,
    }
}

fn mirrored() -> World {
    World { mirror: Some(Mirror::new()), ..World::new() }
}

fn last(world: &World) -> Cost {
    world.mirror.as_ref().and_then(|mirror| mirror.last).unwrap()
}

/// One of many TWAPs, from this time on.
fn one_of_many(salt: u32, t0: u64) -> TwapData {
    TwapData { partSellAmount: U256::from(1_000 + salt), t0: U256::from(t0), ..twap() }
}

#[test]
fn the_component_writes_and_places_what_the_function_does() {
    let mut world = mirrored();
    let rich = world.host.document(r#"{"appCode":"shepherd"}"#);
    let at_creation = conditional(&TwapData { appData: rich, ..one_of_many(1, 0) }, 1);
    let logs = vec![
        world.create(&at_creation),
        world.create(&conditional(&one_of_many(2, START + 600), 2)),
        world.create(&other(3)),
        world.set_root(&[4, 5].map(|salt| conditional(&one_of_many(salt, START), salt))),
    ];
    world.known(&at_creation).cabinet = B256::from(U256::from(START - 30));
    world.known(&other(3)).says = Some(answers(&order(START + 5 * HOUR)));
    world.block_and(START, logs, EffectResult::Accepted);
    for time in (START + 60..START + HOUR).step_by(60) {
        world.block_and(time, vec![], refused("InsufficientBalance"));
    }
    world.known(&at_creation).authorised = false;
    for time in (START + HOUR..START + 4 * HOUR).step_by(60) {
        world.block_and(time, vec![], EffectResult::AlreadyThere);
    }
    assert_eq!(world.host.placed.len(), 16, "{:?}", world.ends());
}

#[test]
fn a_block_at_ten_thousand_orders_stays_far_within_the_limits() {
    let mut world = mirrored();
    for block in 0..10u32 {
        let logs = (0..1_000u32)
            .map(|number| {
                let salt = 1_000 * block + number;
                // Three hundred at once in an hour, all others in a day.
                let t0 = if salt < 300 { START + HOUR } else { START + 24 * HOUR };
                let params = conditional(&one_of_many(salt, t0), salt);
                if salt < 300 { world.create(&params) } else { created(OWNER, &params) }
            })
            .collect();
        world.block(START + 12 * u64::from(block), logs);
        println!("1000 created: {:?}", last(&world));
    }
    for block in 10..40 {
        world.block(START + 12 * block, vec![]);
    }
    println!("looked at 400: {:?}", last(&world));
    for block in 40..42 {
        world.block(START + 12 * block, vec![]);
    }
    let idle = last(&world);
    println!("none due: {idle:?}");
    assert!(idle.fuel < 100_000, "{idle:?}");
    assert_eq!((idle.written, idle.answered), (0, 0));

    world.block(START + HOUR, vec![]);
    let due = last(&world);
    println!("300 due: {due:?}");
    assert_eq!(world.host.placed.len(), 300);
    assert!(due.fuel < 100_000_000, "{due:?}");
    let (uid, _) = world.host.placed[0];
    world.outcome(uid, EffectResult::Accepted);
    println!("an outcome: {:?}", last(&world));
}

#[test]
fn the_fullest_blocks_are_within_the_limits_of_the_host() {
    let mut world = mirrored();
    let logs = (0..400u32)
        .map(|salt| {
            let document = format!(r#"{{"appCode":"{}","n":{salt}}}"#, "x".repeat(7_900));
            let rich = world.host.document(&document);
            let twap = TwapData { appData: rich, ..one_of_many(salt, START + 60) };
            world.create(&conditional(&twap, salt))
        })
        .collect();
    world.block(START, logs);
    let logs = (400..1_400)
        .map(|salt| world.create(&conditional(&one_of_many(salt, START), salt)))
        .collect();
    world.block(START + 60, logs);
    println!("1000 new, 400 due, 64 documents: {:?}", last(&world));
    let mut most = last(&world);
    for block in 1..30 {
        world.block(START + 60 + block, vec![]);
        if most.fuel < last(&world).fuel {
            most = last(&world);
        }
    }
    println!("most fuel: {most:?}");
    assert_eq!(world.host.placed.len(), 1_400);
    assert!(most.fuel < 1_000_000_000, "{most:?}");

    let mut world = mirrored();
    let far = |salt| created(OWNER, &conditional(&one_of_many(salt, START + HOUR), salt));
    world.block(START, (0..4_000).map(far).collect());
    println!("4000 created: {:?}", last(&world));
    assert!(last(&world).fuel < 1_000_000_000, "{:?}", last(&world));
}

#[test]
fn blocks_that_are_meant_to_stop_the_module_do_not() {
    // Two mebibytes of nothing but a way to a root; and more than is read of one.
    for hashes in [40_000, 60_000] {
        let mut world = mirrored();
        let proof = vec![B256::repeat_byte(7); hashes];
        let elements = vec![element(proof, &conditional(&twap(), 1))];
        world.block(START, vec![root_set(B256::repeat_byte(1), emitted(elements))]);
        println!("{hashes} hashes of a proof: {:?}", last(&world));
        assert!(last(&world).fuel < 2_000_000_000, "{:?}", last(&world));
        assert!(world.host.state.is_empty());
    }

    // One order, told as often as a block has gas for.
    let mut world = mirrored();
    let again = world.create(&conditional(&twap(), 1));
    world.block(START, vec![again; 10_000]);
    println!("10000 times the same: {:?}", last(&world));
    assert!(last(&world).fuel < 3_000_000_000, "{:?}", last(&world));
    assert_eq!(world.host.placed.len(), 1);

    // One root after another.
    let mut world = mirrored();
    let many: Vec<_> =
        (0..1_000).map(|salt| conditional(&one_of_many(salt, START + HOUR), salt)).collect();
    let root = wide_root(&many);
    world.block(START, vec![root.clone()]);
    println!("a root of 1000: {:?}", last(&world));
    assert!(last(&world).fuel < 2_000_000_000, "{:?}", last(&world));
    let nothing = root_set(B256::repeat_byte(1), emitted(vec![]));
    world.block(START + 12, vec![root, nothing.clone(), nothing]);
    println!("a root of 1000 replaced: {:?}", last(&world));
    assert!(last(&world).fuel < 2_000_000_000, "{:?}", last(&world));
}
