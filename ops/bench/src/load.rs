//! How soon a block's work is done while thousands of orders are watched.
//!
//! ```text
//!  anvil, a block a second ──▶ follower ──▶ journal ──▶ lane of twap-monitor ──▶ sender ──▶ orderbook
//!    │ head seen                   │ journaled                │ step committed      │ accepted
//!    └── our own subscription      └──────── watched from outside ──────────────────┘
//! ```
//!
//! The real parts in one process: the follower, the dispatcher with the module's component, a
//! synced store. The node and the orderbook's stand-in share the two cores with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::{Duration, Instant, SystemTime},
};

use alloy_primitives::{B256, U256};
use anyhow::{Context, ensure};
use prometheus_client::registry::Registry;
use serde_json::json;
use shepherd_devnet::{
    Anvil, Options as AnvilOptions,
    cow::{self, ConditionalOrder, Cow, Owner, Twap, Uid},
};
use shepherd_dispatch::{
    Config as DispatchConfig, Destination, Destinations, Dispatcher, LaneSpec, LaneState,
    LaneStatus, Limits, Metrics as DispatchMetrics,
};
use shepherd_host::BoundModule;
use shepherd_ingest::{ChainStatus, Config, Metrics as IngestMetrics, follow};
use shepherd_log::{EffectKey, EffectResult, Journal, LaneId, Offset, Options, RecordView, Store};
use shepherd_orderbook::{Config as OrderbookConfig, Orderbook};
use shepherd_rpc::{Options as RpcOptions, Pool, Web};
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{module, report::Report};

/// Seconds of the chain's time from one block to the next, though they come every second: a part
/// of an order has to be valid for a minute, and is over after a few blocks.
const BLOCK_SECONDS: u64 = 12;

/// Blocks from one part of an order to the next.
const PART_BLOCKS: u64 = 5;

/// Orders that become due in the same block.
const DUE: usize = 300;

/// Orders created in a block: the module has room for some 2 900.
const CREATED_PER_BLOCK: usize = 1_000;

/// Owners of the orders; half of them are Safes.
const OWNERS: u64 = 20;

/// Orders the module looks at in a block, as its manifest says: new ones are looked at once.
const POLLS_PER_BLOCK: usize = 400;

/// Parts of an order after those that are measured.
const SPARE_PARTS: u64 = 3;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(180);

/// Requests a second that the orderbook's stand-in is sent at most.
const RATE_PER_SECOND: u32 = 10_000;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Watched orders, one load after the other.
    pub watches: Vec<usize>,
    /// Blocks without anything due.
    pub quiet_blocks: u64,
    /// Blocks in which orders are due, [`DUE`] of them.
    pub rounds: u64,
}

pub async fn measure(report: &mut Report, plan: &Plan) -> anyhow::Result<()> {
    let component = tokio::task::spawn_blocking(|| {
        module::load_for("twap-monitor", "sepolia", cow::CHAIN_ID, "")
    })
    .await??;
    report.table(
        "Watched orders",
        format!(
            "Blocks of a real anvil come every second; follower, journal, the twap-monitor \
             component and the sender are the real ones, in one process with the orderbook's \
             stand-in, all on the same two cores. After {} blocks with nothing due, {DUE} parts of \
             {DUE} orders become due in the same block, {} times, {PART_BLOCKS} blocks apart. Head \
             seen is when a subscription of the benchmark's own hears of the block; a step is \
             committed when the lane's status says so, synced to disk; an order is accepted when \
             the sender has the stand-in's answer (to the millisecond). The stand-in asks no node \
             about signatures, and is sent up to {RATE_PER_SECOND} requests a second ({} unless an \
             operator says otherwise: {DUE} orders then take {} s).",
            plan.quiet_blocks,
            plan.rounds,
            Limits::ORDERBOOK.rate_per_second,
            (DUE as u32 - Limits::ORDERBOOK.rate_per_second) / Limits::ORDERBOOK.rate_per_second,
        ),
        &["from head seen to", "samples", "p50", "p95", "p99", "greatest"],
    );
    report.times("one run of each load");
    for watches in &plan.watches {
        let figures = run(*watches, plan, component.clone()).await?;
        let named = format!("{} watches", thousands(*watches));
        for (what, samples) in figures.rows() {
            report.cells(row(&format!("{named}, {what}"), samples));
        }
        report.note(format!("{named}: {}.", figures.count));
    }
    report.note(
        "Known figures of others: 49, 67 and 78 ms p99 at 130, 280 and 300 watches, and a system \
         that stalled for 101 s at 380 watches and lost 60 % of the events. Target: p99 below 50 ms \
         at 3 000 watches with none due, below 250 ms with 300 due at once, and no event lost.",
    );
    Ok(())
}

/// One load, in milliseconds.
#[derive(Default)]
struct Figures {
    quiet_journaled: Vec<f64>,
    quiet_committed: Vec<f64>,
    due_journaled: Vec<f64>,
    due_committed: Vec<f64>,
    between_committed: Vec<f64>,
    accepted: Vec<f64>,
    last_accepted: Vec<f64>,
    /// What was expected and found.
    count: String,
}

impl Figures {
    fn rows(&self) -> [(&'static str, &[f64]); 7] {
        [
            ("none due: block journaled", &self.quiet_journaled),
            ("none due: **step committed**", &self.quiet_committed),
            ("300 due: block journaled", &self.due_journaled),
            ("300 due: **step committed**", &self.due_committed),
            ("300 due: each order accepted", &self.accepted),
            ("300 due: **last order accepted**", &self.last_accepted),
            ("blocks between: step committed", &self.between_committed),
        ]
    }
}

fn row(what: &str, samples: &[f64]) -> Vec<String> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    // The smallest value that so many per cent of the samples do not exceed.
    let percentile = |percent: usize| {
        let rank = (sorted.len() * percent).div_ceil(100);
        let value = sorted.get(rank.saturating_sub(1)).copied();
        value.map_or("–".to_owned(), |value| format!("{value:.1} ms"))
    };
    let figures = [50, 95, 99, 100].map(percentile);
    [what.to_owned(), thousands(samples.len())].into_iter().chain(figures).collect()
}

fn thousands(number: usize) -> String {
    match number {
        0..1_000 => number.to_string(),
        _ => format!("{} {:03}", number / 1_000, number % 1_000),
    }
}

/// Orders of which a part becomes due with all others, and when.
struct Busy {
    orders: Vec<(Owner, Twap)>,
    start: u64,
}

impl Busy {
    /// Which parts become due at a block's time, counted from 0.
    fn round(&self, time: u64) -> Option<u64> {
        let after = time.checked_sub(self.start)?;
        let part = PART_BLOCKS * BLOCK_SECONDS;
        (after % part == 0).then_some(after / part)
    }

    /// The order of each part.
    fn parts(&self, round: u64) -> impl Iterator<Item = Uid> {
        self.orders
            .iter()
            .map(move |(owner, twap)| twap.part(self.start, round).uid(cow::DOMAIN, owner.address))
    }
}

/// The parts of Shepherd, running.
struct Running {
    store: Store,
    journal: Journal,
    lane: LaneId,
    status: watch::Receiver<LaneStatus>,
    tasks: JoinSet<anyhow::Result<()>>,
    shutdown: CancellationToken,
}

async fn run(watches: usize, plan: &Plan, module: BoundModule) -> anyhow::Result<Figures> {
    let options = AnvilOptions { seconds_per_block: Some(BLOCK_SECONDS), ..Cow::options() };
    let anvil = Anvil::start(options).await?;
    let deployed = Cow::deploy(&anvil).await?;
    let mut owners = deployed.safes(&anvil, 0..OWNERS / 2).await?;
    owners.extend(deployed.forwarders(&anvil, 0..OWNERS / 2).await?);
    let orderbook = Orderbook::start(OrderbookConfig::default()).await?;
    let dir = tempfile::tempdir()?;
    let mut running = start(&anvil, &orderbook, dir.path(), module).await?;

    // Every order is created before anything is due, and looked at once.
    let start = anvil.time().await? + 24 * 60 * 60;
    let (busy, orders) = orders(&owners, watches, start, plan.rounds);
    for orders in orders.chunks(CREATED_PER_BLOCK) {
        deployed.create(&anvil, orders).await?;
        running.reach(anvil.block_number().await?).await?;
    }
    anvil.mine((watches / POLLS_PER_BLOCK) as u64 + 2).await?;
    running.reach(anvil.block_number().await?).await?;
    let watched = running.watched().await?;
    ensure!(watched == watches, "{watched} of {watches} orders are watched");
    anvil.mine_at(start - (plan.quiet_blocks + 1) * BLOCK_SECONDS).await?;
    let before = anvil.block_number().await?;
    running.reach(before).await?;

    // From here on by itself. The last round has fewer blocks, so that no part follows.
    let measured = before + 1..before + 1 + plan.quiet_blocks + plan.rounds * PART_BLOCKS - 2;
    let plan_rounds = plan.rounds;
    let waiting = waited()?;
    let started = Instant::now();
    let observing = observe(&anvil, &running, measured.clone())?;
    anvil.call("evm_setIntervalMining", json!([1])).await?;
    let seen = observing.await?;
    let waiting = (waited()? - waiting).div_duration_f64(started.elapsed()) * 100.0;
    anvil.call("evm_setIntervalMining", json!([0])).await?;
    running.settle().await?;
    running.stop().await?;

    let journal = running.journal;
    let reading = move || figures(&journal, &busy, &seen, plan_rounds);
    let (mut figures, expected) = tokio::task::spawn_blocking(reading).await??;
    figures.count = format!(
        "{}; in {waiting:.0} % of the time something on the machine waited for a core",
        count(&orderbook, &expected)?
    );
    Ok(figures)
}

/// Puts together what was seen and what the journal holds, with every order that had to be placed.
fn figures(
    journal: &Journal,
    busy: &Busy,
    seen: &Seen,
    rounds: u64,
) -> anyhow::Result<(Figures, BTreeSet<Uid>)> {
    let mut figures = Figures::default();
    let mut expected = BTreeSet::new();
    let mut due_at: BTreeMap<Uid, (u64, SystemTime)> = BTreeMap::new();
    let mut last = BTreeMap::new();
    for stored in journal.read(Offset::START..journal.tail().offset) {
        let stored = stored?;
        match stored.record() {
            RecordView::Block(block) => {
                let round = busy.round(block.timestamp);
                expected.extend(round.into_iter().flat_map(|round| busy.parts(round)));
                let number = block.this.number;
                let Some(journaled) = seen.journaled.get(&number) else { continue };
                let head = seen.head.get(&number).context("the node announced every block")?;
                let committed = seen.committed.get(&number).context("the lane passed it")?;
                let after = [journaled, committed].map(|at| millis(*head, *at));
                match round {
                    Some(round) if round < rounds => {
                        figures.due_journaled.push(after[0]);
                        figures.due_committed.push(after[1]);
                        due_at.extend(busy.parts(round).map(|uid| (uid, (round, *head))));
                    }
                    None if block.timestamp < busy.start => {
                        figures.quiet_journaled.push(after[0]);
                        figures.quiet_committed.push(after[1]);
                    }
                    // Still busy with the outcomes of the round before.
                    _ => figures.between_committed.push(after[1]),
                }
            }
            RecordView::Outcome(outcome) => {
                let EffectKey::Order(uid) = outcome.key else { continue };
                let result = &outcome.result;
                ensure!(*result == EffectResult::Accepted, "an order was {}", result.kind());
                let Some((round, head)) = due_at.get(&Uid::from(uid)) else { continue };
                let at = SystemTime::UNIX_EPOCH + Duration::from_millis(outcome.at_millis);
                let after = millis(*head, at);
                figures.accepted.push(after);
                last.entry(*round)
                    .and_modify(|last: &mut f64| *last = last.max(after))
                    .or_insert(after);
            }
            RecordView::Revert(_) => anyhow::bail!("the chain took back blocks"),
        }
    }
    figures.last_accepted = last.into_values().collect();
    Ok((figures, expected))
}

/// From one moment to another, which can be a little before it: they are told apart by
/// several threads.
fn millis(from: SystemTime, to: SystemTime) -> f64 {
    match to.duration_since(from) {
        Ok(after) => after.as_secs_f64() * 1e3,
        Err(before) => before.duration().as_secs_f64() * -1e3,
    }
}

/// What the orderbook's stand-in was sent, beside what it had to be sent.
fn count(orderbook: &Orderbook, expected: &BTreeSet<Uid>) -> anyhow::Result<String> {
    let posted = orderbook.stats().orders;
    let accepted = |uid: &Uid| posted.get(uid).map_or(0, |order| order.accepted);
    let lost = expected.iter().filter(|uid| accepted(uid) == 0).count();
    let doubled = expected.iter().filter(|uid| accepted(uid) > 1).count();
    let unexpected = posted.keys().filter(|uid| !expected.contains(*uid)).count();
    let posts: u64 = posted.values().map(|order| order.posts).sum();
    let count = format!(
        "{} orders expected at the orderbook, {lost} lost, {doubled} accepted twice, {unexpected} \
         others; {posts} posts",
        thousands(expected.len()),
    );
    ensure!(lost + doubled + unexpected == 0, "{count}");
    Ok(count)
}

/// How long anything on this machine has waited for a core since it was started: how much of a
/// figure may be the work of others.
fn waited() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/pressure/cpu").context("the kernel tells")?;
    let total = text.lines().next().and_then(|line| line.rsplit_once("total="));
    let (_, micros) = total.context("the first line has a total")?;
    Ok(Duration::from_micros(micros.parse()?))
}

/// Orders: some that become due together again and again, and others that never do.
fn orders(
    owners: &[Owner],
    watches: usize,
    start: u64,
    rounds: u64,
) -> (Busy, Vec<(Owner, ConditionalOrder)>) {
    let twap = |number: usize, t0, n, t| {
        let owner = owners[number % owners.len()];
        // Orders of one owner that are the same in everything else are one order.
        let part_sell_amount = U256::from(1_000 + number);
        let twap = Twap {
            sell_token: cow::WETH,
            buy_token: cow::COW_TOKEN,
            receiver: owner.address,
            part_sell_amount,
            min_part_limit: U256::ONE,
            t0,
            n,
            t,
            span: 0,
            app_data: cow::EMPTY_APP_DATA,
        };
        (owner, twap)
    };
    // More parts than are waited for: an order that is over is forgotten, which is other work.
    let due = watches.min(DUE);
    let part = PART_BLOCKS * BLOCK_SECONDS;
    let busy: Vec<_> =
        (0..due).map(|number| twap(number, start, rounds + SPARE_PARTS, part)).collect();
    let idle = (due..watches).map(|number| twap(number, start + 30 * 86_400, 4, 3_600));
    let all = busy.iter().copied().chain(idle).zip(0u64..);
    let orders = all
        .map(|((owner, twap), number)| {
            (owner, twap.order(B256::left_padding_from(&number.to_be_bytes())))
        })
        .collect();
    (Busy { orders: busy, start }, orders)
}

async fn start(
    anvil: &Anvil,
    orderbook: &Orderbook,
    data_dir: &std::path::Path,
    module: BoundModule,
) -> anyhow::Result<Running> {
    let path = data_dir.to_owned();
    let chain = module.lane().chain.clone();
    let (store, journal) = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let store = Store::open(&path, Options::default())?;
        let journal = store.journal(&chain, cow::CHAIN_ID)?;
        Ok((store, journal))
    })
    .await??;
    let pool = pool(anvil)?;
    let shutdown = CancellationToken::new();
    let metrics = DispatchMetrics::new(&mut Registry::default());
    let web = Web::default();
    let limits = Limits { rate_per_second: RATE_PER_SECOND, ..Limits::ORDERBOOK };
    let url = orderbook.url().to_string().parse()?;
    let to = Destination::orderbook(&web, "sepolia", url, limits, &metrics);
    let destinations = Destinations { orderbook: Some(to), web, ..Destinations::default() };
    let lane = module.lane().clone();
    let reorg_depth_max = Config::default().reorg_depth_max;
    let spec =
        LaneSpec { module, pool: pool.clone(), destinations, reorg_depth_max, version: None };
    let dispatcher =
        Dispatcher::start(&store, vec![spec], DispatchConfig::default(), &metrics, &shutdown)?;
    let status = dispatcher.statuses().watch()[0].clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { Ok(dispatcher.join().await?) });
    let following = follow(
        journal.clone(),
        pool,
        Config::default(),
        watch::Sender::new(ChainStatus::starting()),
        IngestMetrics::new(&mut Registry::default()),
        shutdown.clone(),
    );
    tasks.spawn(async move { Ok(following.await?) });
    Ok(Running { store, journal, lane, status, tasks, shutdown })
}

fn pool(anvil: &Anvil) -> anyhow::Result<Pool> {
    let metrics = shepherd_rpc::Metrics::new(&mut Registry::default());
    let urls = vec![anvil.ws_url().to_string().parse()?, anvil.http_url().to_string().parse()?];
    Ok(Pool::connect("sepolia", cow::CHAIN_ID, urls, RpcOptions::default(), &metrics))
}

impl Running {
    /// Returns when the lane has committed this block.
    async fn reach(&mut self, number: u64) -> anyhow::Result<()> {
        let reached = self.status.wait_for(|status| reached(status) >= Some(number));
        timeout(PATIENCE, reached)
            .await
            .with_context(|| format!("waiting for block {number}"))??;
        Ok(())
    }

    /// Returns when the lane has passed everything, and nothing waits to be sent.
    async fn settle(&mut self) -> anyhow::Result<()> {
        let (store, lane) = (self.store.clone(), self.lane.clone());
        let is_empty = move || -> anyhow::Result<bool> {
            let snapshot = store.lane_snapshot(&lane)?.context("the lane has steps")?;
            Ok(snapshot.outbox()?.is_empty())
        };
        let settled = async {
            loop {
                let asked = is_empty.clone();
                let empty = tokio::task::spawn_blocking(asked).await??;
                let tail = self.journal.tail().offset;
                if empty && self.status.borrow().cursor.next == tail {
                    return anyhow::Ok(());
                }
                // Whatever else happens changes the lane's status in the end.
                let _ = timeout(Duration::from_secs(1), self.status.changed()).await;
            }
        };
        timeout(PATIENCE, settled).await.context("waiting for the outbox")?
    }

    /// How many orders the module keeps.
    async fn watched(&self) -> anyhow::Result<usize> {
        let (store, lane) = (self.store.clone(), self.lane.clone());
        tokio::task::spawn_blocking(move || {
            let snapshot = store.lane_snapshot(&lane)?.context("the lane has steps")?;
            Ok(snapshot.entries(b"w", None).collect::<Result<Vec<_>, _>>()?.len())
        })
        .await?
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        let state = self.status.borrow().state.clone();
        ensure!(state == LaneState::Running, "the lane is {state:?}");
        self.shutdown.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }
}

fn reached(status: &LaneStatus) -> Option<u64> {
    status.cursor.block.map(|block| block.number)
}

/// When each block was seen, journaled and passed.
#[derive(Default)]
struct Seen {
    head: BTreeMap<u64, SystemTime>,
    journaled: BTreeMap<u64, SystemTime>,
    committed: BTreeMap<u64, SystemTime>,
}

/// Starts to watch the node, the journal and the lane, until the last of these blocks is passed.
fn observe(
    anvil: &Anvil,
    running: &Running,
    blocks: Range<u64>,
) -> anyhow::Result<impl Future<Output = anyhow::Result<Seen>> + use<>> {
    let last = blocks.end - 1;
    let mut heads = pool(anvil)?.heads();
    let rpc = anvil.rpc().clone();
    let seeing = async move {
        let mut seen = BTreeMap::new();
        // The subscription itself is announced too: a block counts when it is the first time.
        while seen.last_key_value().is_none_or(|(number, _)| *number < last) {
            heads.announced().await;
            let now = SystemTime::now();
            let number: U256 =
                serde_json::from_value(rpc.call("eth_blockNumber", json!([])).await?)?;
            seen.entry(number.to()).or_insert(now);
        }
        anyhow::Ok(seen)
    };
    let mut tail = running.journal.watch();
    let of_journal = blocks.clone();
    let journaling = async move {
        let mut journaled = BTreeMap::new();
        loop {
            let head = tail.borrow_and_update().head.map_or(0, |head| head.number);
            mark(&mut journaled, &of_journal, head);
            if last <= head {
                return anyhow::Ok(journaled);
            }
            tail.changed().await?;
        }
    };
    let mut status = running.status.clone();
    let committing = async move {
        let mut committed = BTreeMap::new();
        loop {
            let head = reached(&status.borrow_and_update()).unwrap_or(0);
            mark(&mut committed, &blocks, head);
            if last <= head {
                return anyhow::Ok(committed);
            }
            status.changed().await?;
        }
    };
    // Tasks, so that what is measured is not when this future is looked at.
    let (seeing, journaling, committing) =
        (tokio::spawn(seeing), tokio::spawn(journaling), tokio::spawn(committing));
    Ok(async move {
        Ok(Seen {
            head: seeing.await??,
            journaled: journaling.await??,
            committed: committing.await??,
        })
    })
}

/// Notes that every block up to `head` is there now, unless it was before.
fn mark(times: &mut BTreeMap<u64, SystemTime>, blocks: &Range<u64>, head: u64) {
    let now = SystemTime::now();
    let first = times.last_key_value().map_or(blocks.start, |(number, _)| number + 1);
    times.extend((first..blocks.end.min(head + 1)).map(|number| (number, now)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let check = |samples: usize, expected: [&str; 4]| {
            let samples: Vec<f64> = (1..=samples).rev().map(|sample| sample as f64).collect();
            assert_eq!(row("x", &samples)[2..], expected);
        };
        check(0, ["–"; 4]);
        check(1, ["1.0 ms"; 4]);
        check(4, ["2.0 ms", "4.0 ms", "4.0 ms", "4.0 ms"]);
        check(200, ["100.0 ms", "190.0 ms", "198.0 ms", "200.0 ms"]);
    }

    #[test]
    fn a_part_becomes_due_in_one_block_of_five() {
        let busy = Busy { orders: Vec::new(), start: 1_000 };
        let check = |time: u64, expected| assert_eq!(busy.round(time), expected, "{time}");
        check(988, None);
        check(1_000, Some(0));
        check(1_012, None);
        check(1_048, None);
        check(1_060, Some(1));
    }
}
