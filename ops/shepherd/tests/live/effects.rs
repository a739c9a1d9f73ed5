//! Orders of the real daemon at an orderbook that fails, and kill -9 in between: each is there
//! once, was always the same bytes, and the journal says once what came of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread::sleep,
    time::Duration,
};

use alloy_primitives::{B256, U256};
use rand::RngExt;
use shepherd_devnet::{
    Anvil, Signal,
    cow::{self, Cow, Owner, Twap},
};
use shepherd_log::{EffectId, EffectKey, Offset, Options, RecordView, Store};
use shepherd_orderbook::{Config, Fault, Orderbook, Rule, Uid};

use crate::{
    common::{Daemon, Folder, block_on, config, module_entry},
    truth::{rng, stop, until, verify_again},
};

/// Kills in a normal run. `SHEPHERD_KILLS` asks for more.
const KILLS: u64 = 8;

/// Orders that are created before each kill, in a block of their own each.
const ORDERS_PER_KILL: u64 = 12;

/// The longest a daemon works before it is killed.
const WORKING: Duration = Duration::from_millis(400);

/// The lane that asks for the orders.
const LANE: &str = "twap-monitor@devnet";

fn faults() -> Vec<Rule> {
    let rule = |rate, fault| Rule { rate, ..Rule::always(fault) };
    vec![
        rule(0.5, Fault::Latency { ms: 60 }),
        rule(0.15, Fault::AcceptThenDrop),
        rule(0.1, Fault::AcceptThenServerError { status: 502 }),
        rule(0.1, Fault::Drop),
        rule(0.1, Fault::ServerError { status: 503 }),
        rule(0.1, Fault::TooManyRequests { retry_after_seconds: Some(0) }),
    ]
}

/// A folder whose daemon watches conditional orders and places their parts here.
fn folder(anvil: &Anvil, orderbook: &Orderbook) -> Folder {
    let chain = config(anvil.http_url().as_str()).replace("31337", "11155111");
    let folder = Folder::with_config(&chain);
    folder.configure(&format!("chains.devnet.orderbook = \"{}\"\n", orderbook.url()));
    folder.configure("sender.orderbook_rate = 1000\n");
    folder.configure(&module_entry("twap-monitor"));
    folder
}

/// A conditional order with one part that is due at once, and the UID of that part.
fn twap(owner: Owner, number: u64, now: u64) -> (Owner, cow::ConditionalOrder, Uid) {
    let twap = Twap {
        sell_token: cow::WETH,
        buy_token: cow::COW_TOKEN,
        receiver: owner.address,
        part_sell_amount: U256::from(1_000 + number),
        min_part_limit: U256::from(7),
        t0: now,
        n: 2,
        t: 24 * 3600,
        span: 0,
        app_data: cow::EMPTY_APP_DATA,
    };
    let uid = twap.part(now, 0).uid(cow::DOMAIN, owner.address);
    (owner, twap.order(B256::from(U256::from(number))), Uid::from_slice(uid.as_slice()))
}

#[test]
fn a_daemon_killed_while_it_places_orders_places_each_of_them_once() {
    let kills = std::env::var("SHEPHERD_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let mut rng = rng();
    let anvil = block_on(Anvil::start(Cow::options())).unwrap();
    let devnet = block_on(Cow::deploy(&anvil)).unwrap();
    let owners = block_on(devnet.forwarders(&anvil, 0..2)).unwrap();
    let rules = faults();
    let config = Config { seed: rng.random(), rules, ..Config::default() };
    let orderbook = block_on(Orderbook::start(config)).unwrap();
    let folder = folder(&anvil, &orderbook);
    stop(folder.start());

    let now = block_on(anvil.time()).unwrap();
    let mut expected = BTreeSet::new();
    let mut killed_at_work = 0;
    for kill in 0..kills {
        let daemon = Daemon::spawn(folder.command(&["run"])).started();
        for number in kill * ORDERS_PER_KILL..(kill + 1) * ORDERS_PER_KILL {
            let owner = owners[number as usize % owners.len()];
            let (owner, order, uid) = twap(owner, number, now);
            block_on(devnet.create(&anvil, &[(owner, order)])).unwrap();
            expected.insert(uid);
        }
        sleep(WORKING.mul_f64(rng.random()));
        daemon.signal(Signal::Kill);
        daemon.end();
        let unsettled = folder.json(&["outbox", "list", "--json"]);
        let unsettled = &unsettled[0]["effects"];
        killed_at_work += usize::from(unsettled.as_array().is_some_and(|left| !left.is_empty()));
    }
    let daemon = folder.start();
    let head = format!("{}", block_on(anvil.head()).unwrap().hash);
    until(&folder, &["cursor", "list", "--json"], |view| {
        view["cursors"][0]["block"]["hash"] == *head
    });
    until(&folder, &["outbox", "list", "--json"], |view| view[0]["unsettled"] == 0);
    stop(daemon);
    verify_again(&folder);
    let uid = expected.first().expect("orders were created").to_string();
    let why = folder.json(&["explain", &uid, "--quiet", "--json"]);
    assert_eq!(
        (&why["lane"], &why["wish"]["key"]),
        (&LANE.into(), &uid.as_str().into()),
        "{why:#}"
    );
    assert_eq!(why["is_reproduced"], true, "{why:#}");
    let told = folder.run(&["explain", &uid, "--quiet"]).stdout;
    println!("{told}");
    assert!(told.starts_with(&format!("{LANE} asked for order {uid}")), "{told}");

    let stats = orderbook.stats();
    let there: BTreeSet<Uid> = stats.orders.keys().copied().collect();
    assert_eq!(there, expected, "these orders and no others");
    for (uid, order) in &stats.orders {
        assert_eq!((order.accepted, order.bodies.len()), (1, 1), "{uid}: {order:?}");
    }
    let outcomes = outcomes(&folder);
    let told: BTreeSet<Uid> = outcomes.values().flatten().copied().collect();
    assert_eq!(told, expected, "what came of each is in the journal");
    assert!(outcomes.values().all(|uids| uids.len() == 1), "once for each effect: {outcomes:?}");
    let posts: u64 = stats.orders.values().map(|order| order.posts).sum();
    println!(
        "{kills} kills, {killed_at_work} while effects waited; {posts} posts of {} orders",
        expected.len()
    );
    assert!(killed_at_work as u64 * 4 >= kills, "kills must interrupt work: {killed_at_work}");
}

/// What the receiver has, by effect, as the journal tells it.
fn outcomes(folder: &Folder) -> BTreeMap<EffectId, Vec<Uid>> {
    let store = Store::open(&folder.path("data"), Options::default()).unwrap();
    let journal = store.existing_journal(&"devnet".parse().unwrap()).unwrap();
    let mut outcomes: BTreeMap<EffectId, Vec<Uid>> = BTreeMap::new();
    for stored in journal.read(Offset::START..journal.tail().offset) {
        let stored = stored.unwrap();
        let RecordView::Outcome(outcome) = stored.record() else { continue };
        assert!(outcome.result.is_done(), "{outcome:?}");
        let EffectKey::Order(uid) = outcome.key else { panic!("{outcome:?}") };
        outcomes.entry(outcome.effect).or_default().push(uid.into());
    }
    outcomes
}
