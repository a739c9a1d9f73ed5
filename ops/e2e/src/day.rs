//! The script: what happens when, and what must come of it.
//!
//! Times are minutes of block time since the day began. What must come of it is computed here
//! from the orders as they were created, with the devnet's own arithmetic, and shares nothing
//! with the modules.

use std::fmt::Write as _;

use alloy_primitives::{Address, B256, I256, U256, keccak256};
use shepherd_devnet::{
    Anvil, Transaction,
    cow::{
        self, ConditionalOrder, Cow, EthFlowOrder, Feed, GoodAfterTime, Hint, Hinted, MerkleTree,
        Order, Owner, StopLoss, Twap, Uid,
    },
};
use shepherd_orderbook::{Fault, Route, Rule};

use crate::world::FOREIGN_ETH_FLOW;

/// Minutes of a day.
pub const DAY: u64 = 24 * 60;

/// Minutes from one block to the next. A part of the shortest span, thirty minutes, meets fifteen.
pub const BLOCK_MINUTES: u64 = 2;

/// A rich document, as front ends write them.
pub const RICH_APP_DATA: &str = r#"{"appCode":"Shepherd","environment":"devnet","metadata":{"orderClass":{"orderClass":"twap"},"quote":{"slippageBips":50},"utm":{"utmSource":"e2e"}},"version":"1.3.0"}"#;

/// Something that happens.
pub enum Act {
    /// Transactions in this minute's block.
    Send(Vec<Transaction>),
    /// An owner has exactly so much WETH from this minute's block on.
    Weth(Owner, U256),
    /// From now on these things go wrong at the orderbook.
    Faults(Vec<Rule>),
    /// Shepherd is killed a moment after this minute's block, and started again.
    Kill,
    /// The node goes away and comes back, as far as Shepherd can tell.
    CutLine,
    /// The newest blocks are replaced by others, which hold these transactions by index.
    Reorg(u64, Vec<(Transaction, u64)>),
}

/// One line of the script.
pub struct Line {
    /// When.
    pub minute: u64,
    /// What, in words.
    pub what: &'static str,
    /// What is done.
    pub act: Act,
}

/// What must come of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It is at the orderbook once, within these minutes.
    Placed { from: u64, until: u64 },
    /// The same, and Shepherd never posts it: the orderbook reads it from the chain.
    Indexed { from: u64, until: u64 },
    /// It is never there.
    Never,
}

/// An order that exists in the script.
pub struct Expected {
    /// Whose and which, in words.
    pub what: String,
    /// Its name at the orderbook.
    pub uid: Uid,
    /// What must come of it.
    pub due: Due,
}

/// Alerts of one kind.
pub struct ExpectedAlert {
    /// What they are, in words.
    pub what: &'static str,
    /// Fields that they have, as JSON pointers and text.
    pub fields: Vec<(&'static str, String)>,
    /// How many there are.
    pub count: usize,
}

/// A whole day.
pub struct Day {
    /// When it began, in Unix seconds.
    pub start: u64,
    /// The script, in order.
    pub lines: Vec<Line>,
    /// Every order of it.
    pub expected: Vec<Expected>,
    /// Every alert of it.
    pub alerts: Vec<ExpectedAlert>,
    /// Who must not be placed for, by configuration.
    pub dropped_owner: Address,
    /// Whose balance is watched.
    pub watched_owner: Address,
    /// The pre-signed order of stop-loss, and its owner.
    pub stop_loss: (Owner, Order),
}

impl Day {
    /// Minutes as a clock shows them.
    pub fn clock(minute: u64) -> String {
        format!("{:02}:{:02}", minute / 60, minute % 60)
    }

    fn at(&self, minute: u64) -> u64 {
        self.start + minute * 60
    }

    fn line(&mut self, minute: u64, what: &'static str, act: Act) {
        self.lines.push(Line { minute, what, act });
    }

    fn send(&mut self, minute: u64, what: &'static str, transactions: Vec<Transaction>) {
        self.line(minute, what, Act::Send(transactions));
    }

    /// Parts of a TWAP: those in `placed` come in their windows, the others never.
    fn parts(&mut self, what: &str, owner: Owner, twap: &Twap, start: u64, placed: &[u64]) {
        for part in 0..twap.n {
            let order = twap.part(start, part);
            let begin = (start + part * twap.t).saturating_sub(self.start) / 60;
            let end = (u64::from(order.valid_to) - self.start) / 60;
            let due = if placed.contains(&part) {
                Due::Placed { from: begin, until: end }
            } else {
                Due::Never
            };
            self.order(&format!("{what}, part {}", part + 1), owner.address, &order, due);
        }
    }

    fn order(&mut self, what: &str, owner: Address, order: &Order, due: Due) {
        let uid = order.uid(cow::DOMAIN, owner);
        self.expected.push(Expected { what: what.to_owned(), uid, due });
    }
}

/// A salt of its own for each order.
fn salt(number: u8) -> B256 {
    B256::repeat_byte(number)
}

fn tokens(whole: u64) -> U256 {
    U256::from(whole) * U256::from(10).pow(U256::from(18))
}

fn price(dollars: i64) -> I256 {
    I256::try_from(dollars * 100_000_000).expect("a price fits")
}

fn hours(hours: u64) -> u64 {
    hours * 60
}

/// Writes the day's script on a chain that was just made.
pub async fn script(anvil: &Anvil, cow: &Cow, users: &[Address]) -> anyhow::Result<Day> {
    let safes = cow.safes(anvil, 0..12).await?;
    let forwarders = cow.forwarders(anvil, 0..1).await?;
    let dollar = Feed::deploy(anvil, "USD / USD", 8, price(1)).await?;
    let ether = Feed::at(cow::ETH_USD_FEED);
    let controller = cow.controller();
    anvil.execute(&[ether.move_to(controller, price(2500))]).await?;
    let start = anvil.time().await? + 60;

    let pre_signed = Order {
        valid_to: u32::try_from(start + 2 * 86_400)?,
        ..Order::sell((cow::WETH, tokens(3)), (cow::COW_TOKEN, tokens(5)), safes[6].address)
    };
    let mut day = Day {
        start,
        lines: Vec::new(),
        expected: Vec::new(),
        alerts: Vec::new(),
        dropped_owner: safes[9].address,
        watched_owner: safes[3].address,
        stop_loss: (safes[6], pre_signed),
    };
    // Each order sells another amount, so that no two are the same.
    let twap = |number: u64, t0: u64, n: u64, minutes: u64| Twap {
        sell_token: cow::WETH,
        buy_token: cow::COW_TOKEN,
        receiver: Address::ZERO,
        part_sell_amount: tokens(1) + U256::from(number),
        min_part_limit: tokens(2),
        t0,
        n,
        t: minutes * 60,
        span: 0,
        app_data: cow::EMPTY_APP_DATA,
    };

    time_weighted(&mut day, &safes, forwarders[0], &twap);
    merkle(&mut day, safes[4], &twap);
    hinted(&mut day, anvil, safes[5], ether, dollar).await?;
    eth_flow(&mut day, users);
    prices(&mut day, controller, ether);
    reorgs(&mut day, &safes, &twap);
    weather(&mut day);
    day.lines.sort_by_key(|line| line.minute);
    Ok(day)
}

/// TWAPs of every kind.
fn time_weighted(
    day: &mut Day,
    safes: &[Owner],
    forwarder: Owner,
    twap: &impl Fn(u64, u64, u64, u64) -> Twap,
) {
    let future = twap(1, day.at(60), 6, 60);
    let create = |owner: Owner, order: &ConditionalOrder| owner.transaction(&[order.create()]);
    day.send(
        6,
        "a TWAP of six parts that starts in an hour",
        vec![create(safes[0], &future.order(salt(1)))],
    );
    day.parts("starts later", safes[0], &future, future.t0, &[0, 1, 2, 3, 4, 5]);

    let spans = Twap { span: 30 * 60, ..twap(2, day.at(30), 4, 120) };
    day.send(
        8,
        "a TWAP whose parts are valid for thirty minutes of two hours",
        vec![create(safes[1], &spans.order(salt(2)))],
    );
    day.parts("with spans", safes[1], &spans, spans.t0, &[0, 1, 2, 3]);

    let cabinet = twap(3, 0, 3, 180);
    let created = forwarder.transaction(&[cabinet.order(salt(3)).create_with_time()]);
    day.send(
        20,
        "a TWAP that starts when it is created, of an owner that is no Safe",
        vec![created],
    );
    let created_at = day.at(20);
    day.parts("starts at once", forwarder, &cabinet, created_at, &[0, 1, 2]);

    let cancelled = twap(4, day.at(60), 6, 60);
    let order = cancelled.order(salt(4));
    day.send(10, "a TWAP that will be cancelled", vec![create(safes[2], &order)]);
    day.send(
        hours(3) + 30,
        "it is cancelled after three of six parts",
        vec![safes[2].transaction(&[order.remove()])],
    );
    day.parts("cancelled halfway", safes[2], &cancelled, cancelled.t0, &[0, 1, 2]);

    let dry = twap(5, day.at(120), 8, 60);
    day.send(12, "a TWAP whose owner will run dry", vec![create(safes[3], &dry.order(salt(5)))]);
    day.line(hours(3) + 30, "its owner has nothing left", Act::Weth(safes[3], U256::ZERO));
    day.line(hours(6) + 10, "its owner has tokens again", Act::Weth(safes[3], tokens(1_000_000)));
    day.parts("runs dry", safes[3], &dry, dry.t0, &[0, 1, 4, 5, 6, 7]);
    for to_zero in [true, false] {
        day.alerts.push(ExpectedAlert {
            what: if to_zero { "the owner has run dry" } else { "the owner has tokens again" },
            fields: vec![
                ("/module", "balance-tracker".to_owned()),
                ("/holder", safes[3].address.to_string().to_lowercase()),
                (if to_zero { "/to" } else { "/from" }, "0".to_owned()),
            ],
            count: 1,
        });
    }

    let rich = Twap { app_data: keccak256(RICH_APP_DATA), ..twap(6, day.at(90), 3, 240) };
    day.send(14, "a TWAP with rich app data", vec![create(safes[8], &rich.order(salt(6)))]);
    day.parts("rich app data", safes[8], &rich, rich.t0, &[0, 1, 2]);

    let dropped = twap(7, day.at(60), 2, 60);
    day.send(
        16,
        "a TWAP of an owner whose orders the configuration drops",
        vec![create(safes[9], &dropped.order(salt(7)))],
    );
    day.parts("dropped by the filter", safes[9], &dropped, dropped.t0, &[]);

    let never = Twap { span: 3_601, ..twap(8, day.at(60), 2, 60) };
    day.send(
        18,
        "a TWAP that its handler calls invalid",
        vec![create(safes[0], &never.order(salt(8)))],
    );
}

/// Orders that only a root tells of.
fn merkle(day: &mut Day, owner: Owner, twap: &impl Fn(u64, u64, u64, u64) -> Twap) {
    let first: Vec<Twap> = (0..3).map(|n| twap(20 + n, day.at(120), 3, 120)).collect();
    let tree =
        MerkleTree::new(first.iter().zip(40..).map(|(twap, n)| twap.order(salt(n))).collect());
    day.send(
        hours(1) + 30,
        "a merkle root of three TWAPs",
        vec![owner.transaction(&[tree.set_root()])],
    );
    for (number, twap) in (1..).zip(&first) {
        // The third part would begin when another root counts.
        day.parts(&format!("first root, order {number}"), owner, twap, twap.t0, &[0, 1]);
    }
    let second = twap(30, day.at(360), 2, 60);
    let tree = MerkleTree::new(vec![second.order(salt(50))]);
    day.send(hours(5), "another root, of one TWAP", vec![owner.transaction(&[tree.set_root()])]);
    day.parts("second root", owner, &second, second.t0, &[0, 1]);
}

/// Orders of handlers that say themselves when to come back.
async fn hinted(
    day: &mut Day,
    anvil: &Anvil,
    owner: Owner,
    ether: Feed,
    dollar: Feed,
) -> anyhow::Result<()> {
    // The script's first block is the one after this.
    let first_block = anvil.block_number().await? + 1;
    let block_at = |minute: u64| first_block + minute / BLOCK_MINUTES;
    let valid_to = u32::try_from(day.at(DAY - 30))?;
    let order = |amount: u64| Order {
        valid_to,
        ..Order::sell(
            (cow::WETH, tokens(2) + U256::from(amount)),
            (cow::COW_TOKEN, tokens(3)),
            owner.address,
        )
    };
    let due = |minute: u64| Due::Placed { from: minute, until: minute + 3 * BLOCK_MINUTES };
    let cases = [
        ("at the next block", Hint::TryNextBlock, 150, true),
        ("at a block", Hint::TryAtBlock(U256::from(block_at(200))), 200, true),
        ("at a time", Hint::TryAtEpoch(U256::from(day.at(250))), 250, true),
        ("never", Hint::Never, 300, false),
        ("not valid", Hint::NotValid, 300, false),
    ];
    let mut calls = Vec::new();
    for (number, (what, hint, minute, placed)) in (60u8..).zip(cases) {
        let order = order(number.into());
        let hinted = Hinted { order, hint, from_block: block_at(minute), from_time: 0 };
        calls.push(hinted.order(salt(number)).create());
        let due = if placed { due(minute) } else { Due::Never };
        day.order(&format!("asked again {what}"), owner.address, &order, due);
    }
    // It does not carry what has to be bought: without an off-chain input that is one unit.
    let good_after = GoodAfterTime {
        order: Order { buy_amount: U256::ONE, ..order(70) },
        start: day.at(400),
        balance_min: U256::ONE,
    };
    calls.push(good_after.order(salt(70)).create());
    day.order("good after a time", owner.address, &good_after.order, due(400));
    let stop = StopLoss {
        order: order(71),
        sell_feed: ether.address(),
        buy_feed: dollar.address(),
        strike: I256::try_from(2000 * 10i128.pow(18))?,
        price_age_max: 10 * 86_400,
    };
    calls.push(stop.order(salt(71)).create());
    day.order("stop-loss handler", owner.address, &stop.order, due(hours(5)));
    day.send(
        22,
        "seven orders whose handlers say when to ask again",
        vec![owner.transaction(&calls)],
    );
    Ok(())
}

/// Swaps of ether.
fn eth_flow(day: &mut Day, users: &[Address]) {
    let swap = |user: Address, amount: u64, valid: u64| EthFlowOrder {
        buy_token: cow::COW_TOKEN,
        receiver: user,
        sell_amount: tokens(1) + U256::from(amount),
        buy_amount: tokens(2),
        app_data: keccak256(RICH_APP_DATA),
        valid_to: u32::try_from(valid).expect("before 2106"),
        quote_id: 7,
    };
    let valid = day.at(DAY);
    let stays = swap(users[0], 1, valid);
    day.send(hours(2), "an EthFlow swap with rich app data", vec![stays.place(users[0])]);
    let indexed = |minute: u64| Due::Indexed { from: minute, until: minute + 4 * BLOCK_MINUTES };
    day.order("EthFlow swap", cow::ETH_FLOW, &stays.order(), indexed(hours(2)));
    let taken_back = swap(users[1], 2, valid);
    day.send(
        hours(3),
        "an EthFlow swap that its user will take back",
        vec![taken_back.place(users[1])],
    );
    day.send(hours(4), "it is taken back", vec![taken_back.invalidate(users[1])]);
    day.order("EthFlow swap, taken back", cow::ETH_FLOW, &taken_back.order(), indexed(hours(3)));

    let foreign = swap(users[2], 3, valid);
    let place = Transaction { to: Some(FOREIGN_ETH_FLOW), ..foreign.place(users[2]) };
    day.send(
        hours(7),
        "an EthFlow swap at a contract that the orderbook does not index",
        vec![place],
    );
    day.order("EthFlow swap nobody indexes", FOREIGN_ETH_FLOW, &foreign.order(), Due::Never);
    let mut uid = String::new();
    write!(uid, "{}", foreign.order().uid(cow::DOMAIN, FOREIGN_ETH_FLOW)).expect("into memory");
    day.alerts.push(ExpectedAlert {
        what: "an EthFlow swap is missing at the orderbook",
        fields: vec![("/module", "ethflow-watcher".to_owned()), ("/uid", uid)],
        count: 1,
    });
}

/// A price that crosses down, up, higher, and down again.
fn prices(day: &mut Day, controller: Address, ether: Feed) {
    let (owner, order) = day.stop_loss;
    let uid = order.uid(cow::DOMAIN, owner.address);
    let sign = owner.transaction(&[cow::set_pre_signature(uid, true)]);
    day.send(26, "the owner of the stop-loss order signs it on the chain", vec![sign]);
    day.order(
        "stop-loss",
        owner.address,
        &order,
        Due::Placed { from: hours(5), until: hours(5) + 3 * BLOCK_MINUTES },
    );
    let moves = [
        (hours(5), "the price falls to 1900", 1900),
        (hours(5) + 30, "it goes on falling", 1890),
        (hours(8), "it comes back to 2600", 2600),
        (hours(9), "it rises to 3100", 3100),
        (hours(10), "it falls to 1900 again", 1900),
    ];
    for (minute, what, dollars) in moves {
        day.send(minute, what, vec![ether.move_to(controller, price(dollars))]);
    }
    for (name, what, count) in [
        ("eth-low", "the price has crossed 2000 downwards", 2),
        ("eth-high", "the price has crossed 3000 upwards", 1),
    ] {
        let fields = vec![("/module", "price-alert".to_owned()), ("/name", name.to_owned())];
        day.alerts.push(ExpectedAlert { what, fields, count });
    }
}

/// Orders whose creation is taken back.
fn reorgs(day: &mut Day, safes: &[Owner], twap: &impl Fn(u64, u64, u64, u64) -> Twap) {
    let create = |owner: Owner, order: &ConditionalOrder| owner.transaction(&[order.create()]);
    let minute = hours(11);
    let removed = twap(9, day.at(minute + 30), 2, 60);
    day.send(
        minute,
        "a TWAP whose creation will not last",
        vec![create(safes[7], &removed.order(salt(9)))],
    );
    day.line(minute + 4, "a reorg removes it before it starts", Act::Reorg(2, Vec::new()));
    day.parts("removed by a reorg", safes[7], &removed, removed.t0, &[]);

    let minute = hours(12);
    let again = twap(10, day.at(minute - 10), 2, 60);
    let creation = create(safes[10], &again.order(salt(10)));
    day.send(minute, "a TWAP that is due at once", vec![creation.clone()]);
    day.line(
        minute + 4,
        "a reorg moves its creation to another block",
        Act::Reorg(2, vec![(creation, 1)]),
    );
    day.parts("created twice by a reorg", safes[10], &again, again.t0, &[0, 1]);

    let minute = hours(13);
    let real = twap(11, day.at(minute - 10), 2, 60);
    day.send(
        minute,
        "another TWAP that is due at once",
        vec![create(safes[11], &real.order(salt(11)))],
    );
    day.line(
        minute + 4,
        "a reorg removes it after its first part was placed",
        Act::Reorg(2, Vec::new()),
    );
    // The first part is at the orderbook, and stays there.
    day.parts("placed, then removed by a reorg", safes[11], &real, real.t0, &[0]);

    // What comes after the reorgs shows that the others were not forgotten.
    let late = twap(12, day.at(hours(14)), 8, 60);
    day.send(
        hours(13) + 30,
        "a TWAP of eight parts for the rest of the day",
        vec![create(safes[0], &late.order(salt(12)))],
    );
    day.parts("after the reorgs", safes[0], &late, late.t0, &[0, 1, 2, 3, 4, 5, 6, 7]);
}

/// What goes wrong around it.
fn weather(day: &mut Day) {
    let down = Rule::always(Fault::ServerError { status: 503 });
    let limited = Fault::TooManyRequests { retry_after_seconds: Some(1) };
    let reads = Rule { route: Route::GetOrder, rate: 0.3, ..Rule::always(Fault::Drop) };
    let first = |fault| Rule { first_attempts: Some(1), ..Rule::always(fault) };
    let faults = [
        (
            hours(2) - 10,
            "every order is stored, and the connection closes without an answer",
            vec![first(Fault::AcceptThenDrop)],
        ),
        (
            hours(4) - 10,
            "every order is stored, and the answer is 502",
            vec![first(Fault::AcceptThenServerError { status: 502 })],
        ),
        (
            hours(6) - 10,
            "the orderbook limits everybody at first, and drops reads",
            vec![first(limited), reads],
        ),
        (hours(8) - 10, "nothing goes wrong", Vec::new()),
        (hours(15) - 2, "the orderbook is down", vec![down]),
        (hours(15) + 6, "it is up again", Vec::new()),
        (
            hours(17) - 10,
            "half of all orders are dropped unread",
            vec![Rule { rate: 0.5, ..Rule::always(Fault::Drop) }],
        ),
        (
            hours(19) - 10,
            "every order is stored, and the connection closes without an answer",
            vec![first(Fault::AcceptThenDrop)],
        ),
    ];
    for (minute, what, rules) in faults {
        day.line(minute, what, Act::Faults(rules));
    }
    // Some of them while parts are due.
    for minute in [
        30,
        62,
        hours(2),
        hours(4),
        hours(5),
        hours(6),
        370,
        hours(9),
        hours(12),
        hours(13),
        hours(15),
        hours(16),
        hours(19),
        hours(21),
    ] {
        day.line(minute, "kill -9", Act::Kill);
    }
    for minute in [hours(10) + 20, hours(18)] {
        day.line(minute, "the node goes away and comes back", Act::CutLine);
    }
}

/// What the configuration says of each module.
pub fn configuration(day: &Day, module: &str) -> String {
    let (weth, feed) = (cow::WETH, cow::ETH_USD_FEED);
    match module {
        "twap-monitor" => {
            format!("[modules.config.filter.owners]\n\"{}\" = \"drop\"\n", day.dropped_owner)
        }
        "ethflow-watcher" => format!(
            "[modules.config]\nwebhook = \"alerts\"\nconfirm_within_seconds = 900\n\
             [modules.addresses]\nethflow = [\"{}\", \"{FOREIGN_ETH_FLOW}\"]\n",
            cow::ETH_FLOW
        ),
        "price-alert" => {
            let alert = |name, direction, threshold| {
                format!(
                    "[[modules.config.alerts]]\nname = \"{name}\"\nfeed = \"{feed}\"\n\
                     direction = \"{direction}\"\nthreshold = \"{threshold}\"\n\
                     hysteresis = \"20\"\nage_seconds_max = 200000\n"
                )
            };
            let alerts = [alert("eth-low", "below", 2000), alert("eth-high", "above", 3000)];
            format!("[modules.config]\nwebhook = \"alerts\"\n{}", alerts.concat())
        }
        "balance-tracker" => format!(
            "[modules.config]\nwebhook = \"alerts\"\naddresses = []\n\
             [[modules.config.balances]]\nholder = \"{}\"\ntoken = \"{weth}\"\n\
             threshold = \"{}\"\n",
            day.watched_owner,
            tokens(1000)
        ),
        "stop-loss" => {
            let (owner, order) = day.stop_loss;
            format!(
                "[modules.config]\nfeed = \"{feed}\"\ndirection = \"below\"\ntrigger = \"1950\"\n\
                 age_seconds_max = 200000\narm = \"day\"\nowner = \"{}\"\n\
                 [modules.config.order]\nsell_token = \"{}\"\nbuy_token = \"{}\"\n\
                 receiver = \"{}\"\nsell_amount = \"{}\"\nbuy_amount = \"{}\"\nvalid_to = {}\n",
                owner.address,
                order.sell_token,
                order.buy_token,
                order.receiver,
                order.sell_amount,
                order.buy_amount,
                order.valid_to
            )
        }
        _ => String::new(),
    }
}
