//! A lane made of words: blocks that ask for effects, orders that the orderbook takes, and a
//! sender between them.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use alloy_primitives::{Address, B256, U256, keccak256};
use cowprotocol::{GPV2_SETTLEMENT, OrderData, OrderKind, settlement_domain};
use serde_json::json;
use shepherd_dispatch::{Destination, Destinations, Limits, Metrics, Sender, SenderConfig};
use shepherd_log::{
    Applied, Block, BlockRef, Deliver, Effect, EffectId, EffectKey, Header, Journal, Lane, Offset,
    Options, Outcome, Record, RecordView, Revert, Step, Store, Writes,
};
use shepherd_rpc::{Pool, Web};

pub const CHAIN: &str = "sepolia";
pub const CHAIN_ID: u64 = 11_155_111;
pub const LANE: &str = "keeper@sepolia";
pub const REORG_DEPTH_MAX: u64 = 8;

/// Long enough for a slow machine, short enough to fail a test that hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Limits that no test waits for.
pub const SWIFT: Limits = Limits {
    rate_per_second: 100_000,
    parallel_max: 64,
    rest_min: Duration::from_millis(1),
    rest_max: Duration::from_millis(4),
};

pub fn swift() -> SenderConfig {
    SenderConfig {
        wait_min: Duration::from_millis(1),
        wait_max: Duration::from_millis(4),
        ..SenderConfig::default()
    }
}

pub fn now_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

pub fn open(dir: &Path) -> (Store, Journal, Lane) {
    let options = Options { reorg_depth_max: REORG_DEPTH_MAX, ..Options::default() };
    let store = Store::open(dir, options).expect("the store opens");
    let journal = store.journal(&CHAIN.parse().unwrap(), CHAIN_ID).unwrap();
    let lane = store.lane(&LANE.parse().unwrap()).unwrap();
    (store, journal, lane)
}

/// A directory in memory where there is one: thousands of stores are opened here, and what
/// survives a power cut is for the store's own tests to say.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

/// A pool without endpoints: nobody says what is final.
pub fn no_endpoints() -> Pool {
    let metrics = shepherd_rpc::Metrics::new(&mut prometheus_client::registry::Registry::default());
    Pool::connect(CHAIN, CHAIN_ID, Vec::new(), shepherd_rpc::Options::default(), &metrics)
}

/// Effects go to this orderbook.
pub fn to_orderbook(url: &str) -> Destinations {
    let (web, url) = (Web::new(), url.parse().expect("a URL"));
    let orderbook = Destination::orderbook(&web, CHAIN, url, SWIFT, &Metrics::unregistered());
    Destinations { orderbook: Some(orderbook), ..Destinations::default() }
}

/// Effects go to these webhooks.
pub fn to_webhooks<const N: usize>(hooks: [(&str, &str); N]) -> Destinations {
    let web = Web::new();
    let webhooks = hooks.map(|(name, url)| {
        let limits = Limits { parallel_max: 1, ..SWIFT };
        let url = url.parse().expect("a URL");
        let hook = Destination::webhook(&web, name, url, limits, &Metrics::unregistered());
        (name.to_owned(), hook)
    });
    Destinations { webhooks: webhooks.into(), ..Destinations::default() }
}

pub fn sender(lane: &Lane, destinations: Destinations) -> Sender {
    let metrics = Metrics::unregistered();
    Sender::new(lane.outbox(), no_endpoints(), REORG_DEPTH_MAX, destinations, swift(), metrics)
}

/// The block of a height on a branch.
pub fn block_ref(number: u64, branch: u64) -> BlockRef {
    BlockRef { number, hash: keccak256([number.to_be_bytes(), branch.to_be_bytes()].concat()) }
}

/// Appends a block to the head.
pub fn append_block(journal: &Journal, branch: u64) -> BlockRef {
    let tail = journal.tail();
    let (number, parent) = tail.head.map_or((0, B256::ZERO), |head| (head.number + 1, head.hash));
    let this = block_ref(number, branch);
    let header = Header { this, parent, timestamp: 1_700_000_000 + number, rlp: Vec::new().into() };
    let record = Record::Block(Block { header, logs: Vec::new() });
    journal_append(journal, record);
    this
}

/// Takes the newest block back.
pub fn append_revert(journal: &Journal) {
    let head = journal.tail().head.expect("there is a block");
    let (_, ancestor) = journal.canonical(head.number - 1).unwrap().expect("it has a parent");
    journal_append(journal, Record::Revert(Revert { ancestor, abandoned: vec![head] }));
}

/// A sender may append outcomes in between.
fn journal_append(journal: &Journal, record: Record) {
    loop {
        match journal.append(journal.tail().offset, std::slice::from_ref(&record)) {
            Ok(_) => return,
            Err(shepherd_log::AppendError::NotTheTail { .. }) => (),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Brings the lane to the tail. Blocks ask for what `asks` says; of each outcome it is told, the
/// lane counts how often.
pub fn catch_up(lane: &mut Lane, asks: &dyn Fn(BlockRef) -> Vec<Effect>) {
    loop {
        let mut step = lane.begin();
        let Some(stored) = step.records().next() else { return };
        let stored = stored.unwrap();
        match stored.record() {
            RecordView::Block(block) => {
                let effects = asks(block.this);
                step.apply(block.this, Applied { effects, ..Applied::default() }).unwrap();
            }
            RecordView::Outcome(outcome) => {
                let told = tell(&mut step, &outcome);
                step.pass_outcome(told).unwrap();
            }
            RecordView::Revert(revert) => {
                let deliveries = step.deliveries(&revert).unwrap();
                step.revert(&revert).unwrap();
                let again = deliveries.again.iter().map(|(outcome, _)| outcome);
                for outcome in deliveries.noticed.iter().chain(again) {
                    let told = tell(&mut step, outcome);
                    step.told_by_revert(told).unwrap();
                }
            }
        }
        step.commit([7; 32]).unwrap();
    }
}

fn tell(step: &mut Step<'_>, outcome: &Outcome) -> Applied {
    let key = told_key(outcome.effect);
    let times = step.get(&key).unwrap().map_or(0, |times| times[0]);
    Applied { writes: Writes::from([(key, Some(vec![times + 1]))]), ..Applied::default() }
}

/// Where the lane counts what it was told of an effect.
pub fn told_key(effect: EffectId) -> Vec<u8> {
    effect.to_string().into_bytes()
}

pub fn outcomes(journal: &Journal) -> Vec<Outcome> {
    let records = journal.read(Offset::START..journal.tail().offset);
    let outcome = |record: Record| match record {
        Record::Outcome(outcome) => Some(outcome),
        _ => None,
    };
    records.filter_map(|stored| outcome(stored.unwrap().record().to_record())).collect()
}

/// An order that the orderbook takes; `number` tells orders apart.
pub fn order(number: u64, valid_to: u32) -> Effect {
    order_worth(number, valid_to, number + 1)
}

/// An order of which the orderbook says `ZeroAmount`.
pub fn worthless_order(number: u64, valid_to: u32) -> Effect {
    order_worth(number, valid_to, 0)
}

fn order_worth(number: u64, valid_to: u32, buy_amount: u64) -> Effect {
    let owner = Address::from_slice(&keccak256(number.to_be_bytes())[12..]);
    let (sell, buy) = (Address::repeat_byte(0x51), Address::repeat_byte(0xb1));
    let data = OrderData {
        sell_token: sell,
        buy_token: buy,
        receiver: Some(owner),
        sell_amount: U256::from(1_000),
        buy_amount: U256::from(buy_amount),
        valid_to,
        app_data: keccak256("{}"),
        fee_amount: U256::ZERO,
        kind: OrderKind::Sell,
        partially_fillable: false,
        sell_token_balance: Default::default(),
        buy_token_balance: Default::default(),
    };
    let uid = data.uid(&settlement_domain(CHAIN_ID, GPV2_SETTLEMENT), owner);
    let body = json!({
        "sellToken": sell,
        "buyToken": buy,
        "receiver": owner,
        "sellAmount": "1000",
        "buyAmount": buy_amount.to_string(),
        "validTo": valid_to,
        "feeAmount": "0",
        "kind": "sell",
        "partiallyFillable": false,
        "sellTokenBalance": "erc20",
        "buyTokenBalance": "erc20",
        "signingScheme": "eip1271",
        "signature": "0x5fd7e97d",
        "from": owner,
        "appData": "{}",
    });
    Effect {
        key: EffectKey::Order(uid.0),
        body: body.to_string().into_bytes(),
        deliver: Deliver::Instant,
        expires: valid_to.into(),
    }
}

pub fn uid(effect: &Effect) -> shepherd_orderbook::Uid {
    match &effect.key {
        EffectKey::Order(uid) => uid.into(),
        EffectKey::Webhook { .. } => panic!("a webhook has no UID"),
    }
}

/// A webhook's call.
pub fn alert(key: &str, body: &str) -> Effect {
    Effect {
        key: EffectKey::Webhook { destination: "alerts".to_owned(), key: key.to_owned() },
        body: body.as_bytes().to_vec(),
        deliver: Deliver::Instant,
        expires: now_seconds() + 3600,
    }
}
