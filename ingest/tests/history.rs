//! What ingesting history promises, against a node whose chain and faults are scripted.

mod common;
mod scripted;

use std::{collections::BTreeMap, time::Duration};

use common::{Disk, Following, config, pool};
use prometheus_client::registry::Registry;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use scripted::{Nasty, Node, RangeLimit};
use shepherd_ingest::{
    Config, FollowError, Metrics, NoSuchBlock, PlanError, Progress, Start, Trust, Until, ingest,
    plan,
};
use shepherd_log::{BlockRef, Digest, Tail};
use shepherd_rpc::{EndpointState, Pool};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

const CHAIN_ID: u64 = 31337;

/// Longest time until something that must happen has happened. Only a failing test takes it.
const PATIENCE: Duration = Duration::from_secs(60);

/// An ingest at work.
struct Ingesting {
    task: JoinHandle<Result<Tail, FollowError>>,
    progress: watch::Receiver<Progress>,
    shutdown: CancellationToken,
}

impl Ingesting {
    fn start(disk: &Disk, pool: &Pool, config: &Config, to: Until) -> Ingesting {
        let (sender, progress) = watch::channel(Progress::default());
        let shutdown = CancellationToken::new();
        let metrics = Metrics::new(&mut Registry::default());
        let (journal, pool, config) = (disk.journal.clone(), pool.clone(), config.clone());
        let task =
            tokio::spawn(ingest(journal, pool, config, to, sender, metrics, shutdown.clone()));
        Ingesting { task, progress, shutdown }
    }

    async fn ended(self) -> Result<(Tail, Progress), FollowError> {
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        let tail = ended.expect("it ends in time").unwrap()?;
        let progress = self.progress.borrow().clone();
        Ok((tail, progress))
    }

    /// Waits until the journal has so many records, or the ingest has ended.
    async fn until_records(&self, disk: &Disk, records: u64) {
        let mut tail = disk.journal.watch();
        let arrived = tail.wait_for(|tail| records <= tail.offset.get());
        let ended = async {
            while !self.task.is_finished() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let either = futures::future::select(Box::pin(arrived), Box::pin(ended));
        assert!(tokio::time::timeout(PATIENCE, either).await.is_ok(), "it moves in time");
    }
}

/// Ingests to an end, and says how it went.
async fn ingested(disk: &Disk, pool: &Pool, config: &Config, to: Until) -> Progress {
    Ingesting::start(disk, pool, config, to).ended().await.unwrap().1
}

/// The node's blocks from one height to another, both included.
fn expected(node: &Node, first: u64, last: u64) -> Vec<(BlockRef, usize)> {
    let heights = first..=last;
    let wanted = node.chain().into_iter().filter(|block| heights.contains(&block.number));
    wanted.map(|block| (BlockRef { number: block.number, hash: block.hash }, block.logs)).collect()
}

/// The digest of the last record, which commits to all records before it.
fn digest(disk: &Disk) -> Digest {
    let tail = disk.journal.tail().offset;
    let last = shepherd_log::Offset::new(tail.get() - 1);
    disk.journal.read(last..tail).next().unwrap().unwrap().digest()
}

/// A seed from the environment, or these.
fn seeds(usual: std::ops::Range<u64>) -> Vec<u64> {
    match std::env::var("SHEPHERD_SEED") {
        Ok(seed) => vec![seed.parse().expect("SHEPHERD_SEED is a number")],
        Err(_) => usual.collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_blocks_are_fetched_by_range_and_recent_ones_by_hash() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(600, 3);
    let disk = Disk::new(CHAIN_ID);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    let progress = ingested(&disk, &pool, &config(), Until::Head).await;
    assert_eq!(disk.replay(), (expected(&node, 0, 600), 0));
    let by_range: u64 = node.ranges().iter().sum();
    let by_hash = node.calls("eth_getLogs") - node.ranges().len();
    assert_eq!((by_range, by_hash), (601 - 64, 64));
    assert!(node.ranges().len() < 20, "{:?}", node.ranges());
    assert_eq!((progress.first, progress.next, progress.last), (0, 601, 600));
    assert_eq!((progress.blocks, progress.logs), (601, 1800));
    assert!(0.0 < progress.logs_per_second && 0 < progress.json_bytes, "{progress:?}");
    assert_eq!(progress.eta_by_blocks, Some(Duration::ZERO));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_range_cannot_prove_is_not_fetched_by_range() {
    for trust in [Trust::Link, Trust::Receipts] {
        let node = Node::start(CHAIN_ID).await;
        node.extend(200, 2);
        let disk = Disk::new(CHAIN_ID);
        let pool = pool(CHAIN_ID, &[&node.url()]);
        ingested(&disk, &pool, &Config { trust, ..config() }, Until::Head).await;
        assert_eq!(disk.replay().0, expected(&node, 0, 200), "{trust:?}");
        assert!(node.ranges().is_empty(), "{trust:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_that_are_cut_off_in_silence_are_noticed_and_healed() {
    // At a round count even logs whose absence no bloom shows; elsewhere a bloom must show it.
    for (cut, alike) in [(100, true), (100, false), (137, false), (0, false)] {
        let node = Node::start(CHAIN_ID).await;
        match alike {
            true => node.extend_alike(400, 7),
            false => node.extend(400, 7),
        }
        node.cut_ranges(cut);
        let disk = Disk::new(CHAIN_ID);
        let pool = pool(CHAIN_ID, &[&node.url()]);
        ingested(&disk, &pool, &config(), Until::Head).await;
        assert_eq!(disk.replay().0, expected(&node, 0, 400), "cut at {cut}");
        let ranges = node.ranges();
        let narrowest = ranges.iter().min().unwrap();
        assert!(*narrowest < 100, "cut at {cut}: {ranges:?}");
        let state = &pool.status()[0].state;
        assert_eq!(*state, EndpointState::Ready, "by hash it gave all: {state:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_is_refused_is_narrowed_and_the_limit_remembered() {
    // The limit, what is said beyond it, the widest range once it is known, and how many are
    // refused at most until then: all that are under way, once or several times.
    let cases = [
        (20, (-32602, "You can use up to a 20 block range"), 20, 12),
        (30, (-32000, "block range is too wide"), 25, 30),
        (1, (-32000, "exceed maximum block range"), 1, 250),
    ];
    for (blocks, error, widest, refused_max) in cases {
        let logs = usize::MAX;
        let node = Node::start(CHAIN_ID).await;
        node.extend(700, 2);
        node.limit_ranges(RangeLimit { blocks, logs, error });
        let disk = Disk::new(CHAIN_ID);
        let pool = pool(CHAIN_ID, &[&node.url()]);
        ingested(&disk, &pool, &config(), Until::Head).await;
        assert_eq!(disk.replay().0, expected(&node, 0, 700), "{error:?}");
        let ranges = node.ranges();
        let refused = ranges.iter().filter(|range| blocks < **range).count();
        assert!((1..=refused_max).contains(&refused), "{error:?}: {ranges:?}");
        let later = &ranges[ranges.iter().rposition(|range| blocks < *range).unwrap() + 1..];
        assert!(later.iter().all(|range| *range <= widest), "{error:?}: {ranges:?}");
        assert_eq!(pool.status()[0].state, EndpointState::Ready);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_narrow_where_blocks_hold_much_and_widen_again() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(200, 20);
    node.extend(800, 1);
    let error = (-32005, "query returned more than 10000 results");
    node.limit_ranges(RangeLimit { blocks: u64::MAX, logs: 300, error });
    let disk = Disk::new(CHAIN_ID);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    ingested(&disk, &pool, &config(), Until::Head).await;
    assert_eq!(disk.replay().0, expected(&node, 0, 1000));
    let ranges = node.ranges();
    let narrowest = ranges.iter().position(|range| *range <= 15).expect("it narrowed");
    assert!(ranges[narrowest..].iter().any(|range| 40 <= *range), "{ranges:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_without_ranges_is_not_asked_for_many() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(1500, 1);
    let error = (-32601, "something new");
    node.limit_ranges(RangeLimit { blocks: 0, logs: 0, error });
    let disk = Disk::new(CHAIN_ID);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    ingested(&disk, &pool, &config(), Until::Head).await;
    assert_eq!(disk.replay().0, expected(&node, 0, 1500));
    let refused = node.ranges().len();
    assert!(refused < 200, "{refused} of 1500 blocks");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_is_too_much_for_an_endpoint_is_made_smaller() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(100, 1);
    node.give_up_above(3);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    // By hash alone, so that it is the number of calls that is too much and no range.
    let config = Config { trust: Trust::Receipts, ..config() };
    let disk = Disk::new(CHAIN_ID);
    ingested(&disk, &pool, &config, Until::Head).await;
    assert_eq!(disk.replay(), (expected(&node, 0, 100), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_whose_logs_are_wrong_by_hash_too_is_put_aside() {
    let (liar, honest) = (Node::start(CHAIN_ID).await, Node::start(CHAIN_ID).await);
    liar.extend(300, 3);
    honest.extend(300, 3);
    liar.play("eth_getLogs", 100_000, Nasty::LogMissing);
    let disk = Disk::new(CHAIN_ID);
    let pool = pool(CHAIN_ID, &[&liar.url(), &honest.url()]);
    ingested(&disk, &pool, &config(), Until::Head).await;
    assert_eq!(disk.replay().0, expected(&honest, 0, 300));
    let state = &pool.status()[0].state;
    assert!(matches!(state, EndpointState::Distrusted { .. }), "{state:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_and_resumed_anywhere_it_ends_in_the_same_journal() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(500, 4);
    node.limit_ranges(RangeLimit { blocks: 40, logs: 100, error: (-32005, "limit exceeded") });
    let pool = pool(CHAIN_ID, &[&node.url()]);
    let config = Config { start: Start::Block(3), batch_blocks_max: 16, ..config() };
    let whole = Disk::new(CHAIN_ID);
    ingested(&whole, &pool, &config, Until::Head).await;
    let wanted = digest(&whole);
    for seed in seeds(0..2) {
        println!("SHEPHERD_SEED={seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let mut disk = Disk::new(CHAIN_ID);
        let mut stops = 0;
        loop {
            let ingesting = Ingesting::start(&disk, &pool, &config, Until::Head);
            let more = random.random_range(0..=120);
            let records = disk.journal.tail().offset.get() + more;
            ingesting.until_records(&disk, records).await;
            ingesting.shutdown.cancel();
            let (tail, _) = ingesting.ended().await.unwrap();
            assert_eq!(tail, disk.journal.tail());
            if tail.head.is_some_and(|head| head.number == 500) {
                break;
            }
            stops += 1;
            disk = disk.reopen();
        }
        assert!(2 <= stops, "seed {seed}: it was stopped on the way");
        assert_eq!(digest(&disk), wanted, "seed {seed}, {stops} stops");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_reorgs_during_the_fill_is_journaled_as_it_ends() {
    for seed in seeds(0..3) {
        println!("SHEPHERD_SEED={seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let node = Node::start(CHAIN_ID).await;
        node.extend(300, 2);
        let disk = Disk::new(CHAIN_ID);
        let pool = pool(CHAIN_ID, &[&node.url()]);
        let config = Config { batch_blocks_max: 8, ..config() };
        let ingesting = Ingesting::start(&disk, &pool, &config, Until::Head);
        for _ in 0..3 {
            let records = disk.journal.tail().offset.get() + random.random_range(1..120);
            ingesting.until_records(&disk, records).await;
            node.reorg(random.random_range(1..=60), random.random_range(0..4));
        }
        ingesting.ended().await.unwrap();
        // It may have ended before the last of them.
        ingested(&disk, &pool, &config, Until::Head).await;
        let head = node.head().number;
        assert_eq!(disk.replay().0, expected(&node, 0, head), "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_is_bounded_in_bytes() {
    const BOUND: u64 = 32 << 20;
    let node = Node::start(CHAIN_ID).await;
    // 60 MB of JSON, of which 128 fetches at once would have nearly all in flight.
    node.extend_fat(400, 75_000);
    let disk = Disk::new(CHAIN_ID);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    let config = Config { fetch_parallel: 128, reorg_depth_max: 1, ..config() };
    let progress = ingested(&disk, &pool, &config, Until::Head).await;
    assert_eq!(disk.replay().0, expected(&node, 0, 400));
    assert!(2 * BOUND - (8 << 20) < progress.json_bytes, "{}", progress.json_bytes);
    // The first fetches were sized before any block was seen.
    let most = progress.in_flight_bytes_max;
    assert!((BOUND / 4..=BOUND + (8 << 20)).contains(&most), "{most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_ends_at_the_block_or_the_time_it_was_told() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(300, 1);
    let time = |number: usize| node.chain()[number].timestamp;
    let disk = Disk::new(CHAIN_ID);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    let config = Config { start: Start::At(time(20) - 11), ..config() };
    let cases = [
        (Until::At(time(120)), 120),
        (Until::At(time(123) + 11), 123),
        (Until::Block(200), 200),
        (Until::Block(20), 200),
        (Until::At(time(50)), 200),
        (Until::At(time(300)), 300),
        (Until::Head, 300),
    ];
    for (to, last) in cases {
        ingested(&disk, &pool, &config, to).await;
        assert_eq!(disk.replay(), (expected(&node, 20, last), 0), "{to:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_newest_block_a_reorg_of_one_is_not_passed_over() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(30, 1);
    let disk = Disk::new(CHAIN_ID);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    ingested(&disk, &pool, &config(), Until::Head).await;
    node.cut(1);
    node.extend(1, 2);
    ingested(&disk, &pool, &config(), Until::Head).await;
    assert_eq!(disk.replay(), (expected(&node, 0, 30), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_are_not_there_are_refused_in_words() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(50, 1);
    let (first, last) = (node.chain()[0].timestamp, node.head().timestamp);
    let block = Start::Block;
    let cases = [
        (block(0), Until::Block(51), "the chain has not reached block 51: the newest is 50"),
        (block(0), Until::At(last + 1), "the newest block, 50, is of"),
        (block(0), Until::At(first - 1), "the chain begins at 2023-11-14T22:13:20Z, and"),
        (block(30), Until::Block(29), "the last block wanted, 29, is before the first, 30"),
        (Start::At(first - 1), Until::Head, "2023-11-14T22:13:19Z is before that"),
        (Start::At(last + 1), Until::Head, "the newest block, 50, is of"),
        (Start::Ago(Duration::from_secs(1 << 40)), Until::Head, "the chain begins at"),
        (block(51), Until::Head, "the chain has not reached block 51"),
    ];
    let disk = Disk::new(CHAIN_ID);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    for (start, to, words) in cases {
        let config = Config { start, ..config() };
        let error = Ingesting::start(&disk, &pool, &config, to).ended().await.unwrap_err();
        assert!(error.to_string().contains(words), "{start:?} to {to:?}: {error}");
        let planned = plan(&disk.journal, &pool, &config, to).await.unwrap_err();
        assert!(matches!(planned, PlanError::NoSuchBlock(_)), "{planned}");
        assert_eq!(planned.to_string(), error.to_string());
        assert_eq!(disk.journal.tail().head, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_begins_at_a_time_or_at_the_newest_block() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(80, 1);
    let cases = [(Start::At(node.chain()[33].timestamp), 33), (Start::Latest, 80)];
    for (start, first) in cases {
        let disk = Disk::new(CHAIN_ID);
        let pool = pool(CHAIN_ID, &[&node.url()]);
        let following = Following::start(&disk, &pool, Config { start, ..config() });
        disk.until_head(node.head().hash).await;
        following.stop().await;
        assert_eq!(disk.replay(), (expected(&node, first, 80), 0), "{start:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_waits_for_a_time_to_come_and_refuses_one_before_the_chain() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(10, 1);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    let start = Start::At(node.head().timestamp + 1);
    let disk = Disk::new(CHAIN_ID);
    let mut following = Following::start(&disk, &pool, Config { start, ..config() });
    following.until_waiting("the newest block, 10, is of").await;
    node.extend(2, 1);
    disk.until_head(node.head().hash).await;
    following.stop().await;
    assert_eq!(disk.replay().0, expected(&node, 11, 12));

    let disk = Disk::new(CHAIN_ID);
    let start = Start::At(1);
    let ended = Following::start(&disk, &pool, Config { start, ..config() }).ended().await;
    let refused = matches!(ended, Err(FollowError::NoSuchBlock(NoSuchBlock::BeforeGenesis { .. })));
    assert!(refused, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn live_following_takes_up_where_an_ingest_ended() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(300, 2);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    for to in [Until::Head, Until::Block(150)] {
        let disk = Disk::new(CHAIN_ID);
        ingested(&disk, &pool, &config(), to).await;
        let mut following = Following::start(&disk, &pool, config());
        following.until_following().await;
        node.extend(3, 2);
        disk.until_head(node.head().hash).await;
        following.stop().await;
        let head = node.head().number;
        assert_eq!(disk.replay(), (expected(&node, 0, head), 0), "{to:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_an_ingest_that_has_nobody_to_ask() {
    let disk = Disk::new(CHAIN_ID);
    let pool = pool(CHAIN_ID, &["http://127.0.0.1:9"]);
    let mut ingesting = Ingesting::start(&disk, &pool, &config(), Until::Head);
    let waits = ingesting.progress.wait_for(|progress| progress.waiting.is_some());
    let waits = tokio::time::timeout(PATIENCE, waits).await.expect("it says so in time");
    let reason = waits.unwrap().waiting.clone().unwrap();
    assert!(reason.contains("no endpoint answers"), "{reason}");
    ingesting.shutdown.cancel();
    let (tail, _) = ingesting.ended().await.unwrap();
    assert_eq!(tail.head, None);
}

/// A chain: so many blocks with so many logs each, and so on.
type Stretches = &'static [(u64, usize)];

/// How far an estimate may be off: a share of the truth, and calls that do not grow with the gap.
fn assert_near(what: &str, estimate: u64, truth: u64, share: f64, calls: u64) {
    let bound = (truth as f64 * share) as u64 + calls;
    assert!(estimate.abs_diff(truth) <= bound, "{what}: {estimate} for {truth}, ± {bound}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_what_the_ingest_then_costs() {
    // Logs such that no range happens to have a round number of them.
    let cases: [(Trust, Stretches, Until); 4] = [
        (Trust::Bloom, &[(1500, 3)], Until::Head),
        (Trust::Bloom, &[(400, 31), (400, 3)], Until::Head),
        (Trust::Bloom, &[(300, 3), (300, 0)], Until::Block(450)),
        (Trust::Receipts, &[(150, 2), (150, 0)], Until::Head),
    ];
    for (trust, chain, to) in cases {
        let node = Node::start(CHAIN_ID).await;
        chain.iter().for_each(|(blocks, logs)| node.extend(*blocks, *logs));
        let disk = Disk::new(CHAIN_ID);
        let pool = pool(CHAIN_ID, &[&node.url()]);
        let config = Config { trust, start: Start::Block(1), ..config() };
        let plan = plan(&disk.journal, &pool, &config, to).await.unwrap();
        let case = format!("{trust:?} {chain:?} {plan:?}");
        assert_eq!(disk.journal.tail().head, None, "nothing was written");
        let before: BTreeMap<&str, u64> =
            plan.calls.keys().map(|method| (*method, node.calls(method) as u64)).collect();
        let progress = ingested(&disk, &pool, &config, to).await;
        for (method, calls) in &plan.calls {
            let made = node.calls(method) as u64 - before[method];
            // Beside the gap itself: the heads of the rounds, and eight samples.
            assert_near(&format!("{case} {method}"), *calls, made, 0.1, 20);
        }
        assert_eq!((plan.blocks, plan.last), (progress.blocks, progress.last), "{case}");
        assert_near(&format!("{case} logs"), plan.logs, progress.logs, 0.15, 0);
        assert_near(&format!("{case} bytes"), plan.json_bytes, progress.json_bytes, 0.15, 0);
        assert!(Duration::ZERO < plan.round_trip && plan.round_trip < plan.duration, "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_for_a_journal_that_is_there_already_costs_nothing() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(100, 1);
    let disk = Disk::new(CHAIN_ID);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    ingested(&disk, &pool, &config(), Until::Head).await;
    let plan = plan(&disk.journal, &pool, &config(), Until::Block(40)).await.unwrap();
    assert_eq!((plan.blocks, plan.logs, plan.json_bytes), (0, 0, 0));
    assert!(plan.calls.values().all(|calls| *calls == 0), "{plan:?}");
}
