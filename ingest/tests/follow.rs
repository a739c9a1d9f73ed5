//! What following promises, against a node whose chain and faults are scripted.

mod common;
mod scripted;

use std::time::Duration;

use alloy_primitives::B256;
use common::{Disk, Following, config, pool};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use scripted::{Nasty, Node};
use serde_json::json;
use shepherd_ingest::{Config, FollowError, ReorgLimit, Start, Trust, check_chain};
use shepherd_log::BlockRef;
use shepherd_rpc::ChainMismatch;

const CHAIN_ID: u64 = 31337;

/// The journal leads to the node's chain, from the first block on, with all logs.
fn assert_same_chain(disk: &Disk, node: &Node, start_block: u64) {
    let expected: Vec<(BlockRef, usize)> = node
        .chain()
        .into_iter()
        .filter(|block| start_block <= block.number)
        .map(|block| (BlockRef { number: block.number, hash: block.hash }, block.logs))
        .collect();
    assert_eq!(disk.replay().0, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_journals_from_the_start_block_and_a_restart_goes_on() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(300, 3);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    let config = Config { start: Start::Block(17), ..config() };

    let disk = Disk::new(CHAIN_ID);
    let mut following = Following::start(&disk, &pool, config.clone());
    disk.until_head(node.head().hash).await;
    following.until_following().await;
    assert_eq!(following.metric("blocks_appended_total"), 284.0);
    assert_eq!(following.metric("logs_appended_total"), 852.0);
    assert_eq!(following.metric("head_height"), 300.0);
    following.stop().await;
    assert_same_chain(&disk, &node, 17);

    let disk = disk.reopen();
    node.extend(200, 1);
    let following = Following::start(&disk, &pool, config);
    disk.until_head(node.head().hash).await;
    following.stop().await;
    assert_same_chain(&disk, &node, 17);
    assert_eq!(disk.replay().1, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_blocks_are_journaled_as_they_come() {
    let node = Node::start(CHAIN_ID).await;
    let disk = Disk::new(CHAIN_ID);
    let mut following = Following::start(&disk, &pool(CHAIN_ID, &[&node.url()]), config());
    following.until_following().await;
    for logs in [0, 5, 0, 1, 200] {
        node.extend(1, logs);
        disk.until_head(node.head().hash).await;
    }
    following.stop().await;
    assert_same_chain(&disk, &node, 0);
    assert_eq!(node.calls("eth_getLogs"), 3, "an empty bloom needs no question");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_has_not_reached_the_start_block_is_waited_for() {
    let node = Node::start(CHAIN_ID).await;
    let disk = Disk::new(CHAIN_ID);
    let config = Config { start: Start::Block(3), ..config() };
    let mut following = Following::start(&disk, &pool(CHAIN_ID, &[&node.url()]), config);
    following.until_waiting("has not reached block 3").await;
    node.extend(3, 1);
    disk.until_head(node.head().hash).await;
    following.until_following().await;
    following.stop().await;
    assert_same_chain(&disk, &node, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorg_of_any_allowed_depth_is_one_revert_and_the_new_branch() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(20, 2);
    let disk = Disk::new(CHAIN_ID);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    let mut following = Following::start(&disk, &pool, config());
    disk.until_head(node.head().hash).await;
    let mut abandoned = 0;
    for depth in 1..=10 {
        node.reorg(depth, 3);
        abandoned += depth as usize;
        disk.until_head(node.head().hash).await;
        assert_same_chain(&disk, &node, 0);
        assert_eq!(disk.replay().1, abandoned);
    }
    let head = node.head().hash;
    following.until("at the head", |status| status.head.is_some_and(|b| b.hash == head)).await;
    assert_eq!(following.metric("reorgs_total"), 10.0);
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorg_while_nobody_looked_is_found_in_the_gap() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(20, 2);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    let disk = Disk::new(CHAIN_ID);
    let following = Following::start(&disk, &pool, config());
    disk.until_head(node.head().hash).await;
    following.stop().await;

    let disk = disk.reopen();
    node.reorg(7, 1);
    node.extend(250, 1);
    let following = Following::start(&disk, &pool, config());
    disk.until_head(node.head().hash).await;
    following.stop().await;
    assert_same_chain(&disk, &node, 0);
    assert_eq!(disk.replay().1, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_longer_than_one_append_is_journaled_whole() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(60, 2);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    let disk = Disk::new(CHAIN_ID);
    let config = Config { batch_blocks_max: 7, ..config() };
    let following = Following::start(&disk, &pool, config);
    disk.until_head(node.head().hash).await;
    node.reorg(50, 1);
    disk.until_head(node.head().hash).await;
    following.stop().await;
    assert_same_chain(&disk, &node, 0);
    assert_eq!(disk.replay().1, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_is_too_much_at_once_is_fetched_in_parts() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(40, 2);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    let disk = Disk::new(CHAIN_ID);
    let following = Following::start(&disk, &pool, config());
    disk.until_head(node.head().hash).await;
    node.give_up_above(3);
    node.reorg(20, 1);
    disk.until_head(node.head().hash).await;
    following.stop().await;
    assert_same_chain(&disk, &node, 0);
    assert_eq!(disk.replay().1, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_goes_back_is_not_a_reorg() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(20, 2);
    let disk = Disk::new(CHAIN_ID);
    let mut following = Following::start(&disk, &pool(CHAIN_ID, &[&node.url()]), config());
    disk.until_head(node.head().hash).await;
    node.pretend_head(Some(4));
    following
        .until("told of the old head", |status| status.node_head.is_some_and(|b| b.number == 4))
        .await;
    following.until_following().await;
    node.pretend_head(None);
    node.extend(1, 1);
    disk.until_head(node.head().hash).await;
    following.stop().await;
    assert_eq!(disk.replay().1, 0);
    assert_same_chain(&disk, &node, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_goes_back_to_before_the_journal_is_not_a_reorg_either() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(20, 2);
    let disk = Disk::new(CHAIN_ID);
    let config = Config { start: Start::Block(10), ..config() };
    let mut following = Following::start(&disk, &pool(CHAIN_ID, &[&node.url()]), config);
    disk.until_head(node.head().hash).await;
    node.pretend_head(Some(4));
    following
        .until("told of the old head", |status| status.node_head.is_some_and(|b| b.number == 4))
        .await;
    following.until_following().await;
    node.pretend_head(None);
    node.extend(1, 1);
    disk.until_head(node.head().hash).await;
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_with_a_lower_head_is_a_reorg() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(20, 2);
    let disk = Disk::new(CHAIN_ID);
    let following = Following::start(&disk, &pool(CHAIN_ID, &[&node.url()]), config());
    disk.until_head(node.head().hash).await;
    node.cut(5);
    node.extend(1, 1);
    disk.until_head(node.head().hash).await;
    following.stop().await;
    assert_same_chain(&disk, &node, 0);
    assert_eq!(disk.replay().1, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorg_deeper_than_allowed_stops_the_chain() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(20, 1);
    let disk = Disk::new(CHAIN_ID);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    let config = Config { reorg_depth_max: 4, ..config() };
    let mut following = Following::start(&disk, &pool, config);
    let head = node.head();
    disk.until_head(head.hash).await;
    node.reorg(4, 1);
    disk.until_head(node.head().hash).await;
    node.reorg(5, 1);
    following.until("stopped", |status| status.state.to_string().contains("too deeply")).await;
    let tail = disk.journal.tail();
    match following.ended().await.unwrap_err() {
        FollowError::ReorgTooDeep { head, node_head, branch, limit } => {
            assert_eq!(Some(head), tail.head);
            assert_eq!(node_head.hash, node.head().hash);
            assert_eq!(branch.number, 17);
            assert_eq!(limit, ReorgLimit::Depth { depth_max: 4 });
        }
        other => panic!("{other}"),
    }
    assert_eq!(disk.replay().1, 4, "nothing of the deep reorg was journaled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorg_that_begins_before_the_journal_stops_the_chain() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(20, 1);
    let disk = Disk::new(CHAIN_ID);
    let config = Config { start: Start::Block(18), ..config() };
    let following = Following::start(&disk, &pool(CHAIN_ID, &[&node.url()]), config);
    disk.until_head(node.head().hash).await;
    node.reorg(5, 1);
    let error = following.ended().await.unwrap_err();
    let FollowError::ReorgTooDeep { limit, .. } = error else { panic!("{error}") };
    assert_eq!(limit, ReorgLimit::JournalStart);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_does_not_hold_up_is_asked_for_again_and_never_journaled() {
    let other = B256::repeat_byte(7);
    let unverified = [
        ("eth_getLogs", Nasty::Result(json!([]))),
        ("eth_getLogs", Nasty::LogMissing),
        ("eth_getBlockByNumber", Nasty::BloomMissing),
    ];
    let useless = [
        ("eth_getLogs", Nasty::Result(json!(null))),
        ("eth_getLogs", Nasty::Result(json!([{ "blockHash": other }]))),
        ("eth_getLogs", Nasty::Error(-32000, "unknown block")),
        ("eth_getLogs", Nasty::Status(429, Some("0"))),
        ("eth_getLogs", Nasty::Status(502, None)),
        ("eth_getLogs", Nasty::Body("{".to_owned())),
        ("eth_getLogs", Nasty::HangUp),
        ("eth_getLogs", Nasty::Incomplete),
        ("eth_getLogs", Nasty::Shuffled),
        ("eth_getBlockByNumber", Nasty::Result(json!(null))),
        ("eth_getBlockByNumber", Nasty::Result(json!({ "hash": other }))),
        ("eth_getBlockByNumber", Nasty::HangUp),
    ];
    for (gap, faults) in
        [1, 40].into_iter().flat_map(|gap| [(gap, &unverified[..]), (gap, &useless[..])])
    {
        let node = Node::start(CHAIN_ID).await;
        let disk = Disk::new(CHAIN_ID);
        let mut following = Following::start(&disk, &pool(CHAIN_ID, &[&node.url()]), config());
        following.until_following().await;
        for (method, fault) in faults {
            node.play(method, 1, fault.clone());
            node.extend(gap, 3);
            disk.until_head(node.head().hash).await;
            assert!(node.is_honest_again(), "{method} {fault:?}");
        }
        let verification_failures = following.metric("verification_failures_total");
        assert_eq!(verification_failures > 0.0, faults.len() == unverified.len());
        following.stop().await;
        assert_same_chain(&disk, &node, 0);
        assert_eq!(disk.replay().1, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_endpoint_is_asked_when_one_lags_behind() {
    let lagging = Node::start(CHAIN_ID).await;
    let honest = Node::start(CHAIN_ID).await;
    lagging.extend(30, 2);
    honest.extend(30, 2);
    lagging.play("eth_getLogs", usize::MAX, Nasty::Result(json!([])));
    let disk = Disk::new(CHAIN_ID);
    let pool = pool(CHAIN_ID, &[&lagging.url(), &honest.url()]);
    let following = Following::start(&disk, &pool, config());
    disk.until_head(honest.head().hash).await;
    following.stop().await;
    assert!(lagging.calls("eth_getLogs") > 0);
    assert_same_chain(&disk, &honest, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_chain_stops_with_what_was_said_and_what_was_configured() {
    let node = Node::start(1).await;
    let disk = Disk::new(CHAIN_ID);
    let following = Following::start(&disk, &pool(CHAIN_ID, &[&node.url()]), config());
    match following.ended().await.unwrap_err() {
        FollowError::WrongChain { endpoint, source } => {
            assert_eq!(endpoint, node.url());
            let mismatch = ChainMismatch::ChainId { configured: CHAIN_ID, endpoint: 1 };
            assert_eq!(source, mismatch);
        }
        other => panic!("{other}"),
    }
    assert_eq!(disk.journal.tail().head, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_a_follower_that_waits_for_a_stalled_node() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(5, 1);
    let disk = Disk::new(CHAIN_ID);
    let following = Following::start(&disk, &pool(CHAIN_ID, &[&node.url()]), config());
    disk.until_head(node.head().hash).await;
    node.play("eth_getBlockByNumber", 1, Nasty::Stall);
    while !node.is_honest_again() {
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(Duration::from_secs(2), following.stop()).await.expect("promptly");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_visible_and_nothing_is_missing_after_it() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(5, 1);
    let disk = Disk::new(CHAIN_ID);
    let mut following = Following::start(&disk, &pool(CHAIN_ID, &[&node.url()]), config());
    disk.until_head(node.head().hash).await;
    node.play("eth_getBlockByNumber", 20, Nasty::HangUp);
    following.until_waiting("no endpoint answers").await;
    node.extend(50, 2);
    disk.until_head(node.head().hash).await;
    following.until_following().await;
    following.stop().await;
    assert!(node.is_honest_again());
    assert_same_chain(&disk, &node, 0);
}

/// `SHEPHERD_SEED=7 cargo test -p shepherd-ingest random` repeats one history.
#[tokio::test(flavor = "multi_thread")]
async fn random_histories_with_random_faults_lead_to_the_canonical_chain() {
    let seeds = match std::env::var("SHEPHERD_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..5).collect(),
    };
    for seed in seeds {
        println!("seed {seed}");
        random_history(seed).await;
    }
}

async fn random_history(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let node = Node::start(CHAIN_ID).await;
    node.extend(random.random_range(1..30), 2);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    let mut disk = Disk::with_depth(CHAIN_ID, 64);
    let config = Config { batch_blocks_max: random.random_range(1..9), ..config() };
    let mut following = Following::start(&disk, &pool, config.clone());
    let faults = [
        ("eth_getLogs", Nasty::LogMissing),
        ("eth_getLogs", Nasty::HangUp),
        ("eth_getLogs", Nasty::Error(-32000, "unknown block")),
        ("eth_getBlockByNumber", Nasty::BloomMissing),
        ("eth_getBlockByNumber", Nasty::Result(json!(null))),
        ("eth_getBlockByHash", Nasty::Result(json!(null))),
        ("eth_getBlockByHash", Nasty::HangUp),
    ];
    for _ in 0..25 {
        let height = node.head().number;
        let logs = random.random_range(0..4);
        match random.random_range(0..7) {
            0 | 1 => node.extend(random.random_range(1..20), logs),
            2 => node.reorg(random.random_range(1..=height.min(6)), logs),
            3 => {
                node.cut(random.random_range(1..=height.min(3)));
                node.extend(1, logs);
            }
            4 => node.pretend_head(Some(random.random_range(0..=height.saturating_sub(3)))),
            5 => {
                let (method, fault) = faults[random.random_range(0..faults.len())].clone();
                node.play(method, random.random_range(1..3), fault);
            }
            _ => {
                following.stop().await;
                disk = disk.reopen();
                following = Following::start(&disk, &pool, config.clone());
            }
        }
        if random.random_bool(0.5) {
            node.pretend_head(None);
            // A block that no reorg can have taken from the follower's sight.
            node.extend(1, 1);
            disk.until_head(node.head().hash).await;
            assert_same_chain(&disk, &node, 0);
        }
    }
    node.pretend_head(None);
    node.extend(1, 1);
    disk.until_head(node.head().hash).await;
    following.stop().await;
    assert_same_chain(&disk, &node, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_in_links_alone_takes_foreign_hashes_and_blooms() {
    let node = Node::start(CHAIN_ID).await;
    let disk = Disk::new(CHAIN_ID);
    let config = Config { trust: Trust::Link, ..config() };
    let following = Following::start(&disk, &pool(CHAIN_ID, &[&node.url()]), config);
    disk.until_head(node.head().hash).await;
    node.play("eth_getBlockByNumber", 1, Nasty::BloomMissing);
    node.extend(1, 3);
    disk.until_head(node.head().hash).await;
    following.stop().await;
    assert_same_chain(&disk, &node, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_show_what_a_bloom_cannot() {
    let node = Node::start(CHAIN_ID).await;
    let disk = Disk::new(CHAIN_ID);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    let config = Config { trust: Trust::Receipts, ..config() };
    let mut following = Following::start(&disk, &pool, config);
    following.until_following().await;
    for fault in [
        Nasty::OtherData,
        Nasty::LogMissing,
        Nasty::Result(json!([])),
        Nasty::Result(json!(null)),
        Nasty::Error(-32000, "unknown block"),
    ] {
        for gap in [1, 20] {
            node.play("eth_getBlockReceipts", 1, fault.clone());
            node.extend(gap, 3);
            disk.until_head(node.head().hash).await;
            assert!(node.is_honest_again(), "{fault:?}");
        }
    }
    node.extend(1, 0);
    node.reorg(3, 5);
    disk.until_head(node.head().hash).await;
    assert!(following.metric("verification_failures_total") >= 6.0);
    following.stop().await;
    assert_same_chain(&disk, &node, 0);
    assert_eq!(node.calls("eth_getLogs"), 0, "logs are taken from receipts");
    assert_eq!(node.calls("eth_getTransactionReceipt"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_are_asked_for_one_by_one_where_they_are_not_served_together() {
    let node = Node::start(CHAIN_ID).await;
    node.play("eth_getBlockReceipts", usize::MAX, Nasty::Error(-32601, "no such method"));
    node.extend(20, 5);
    let disk = Disk::new(CHAIN_ID);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    let config = Config { trust: Trust::Receipts, ..config() };
    let following = Following::start(&disk, &pool, config);
    disk.until_head(node.head().hash).await;
    node.play("eth_getTransactionReceipt", 1, Nasty::Result(json!(null)));
    node.extend(1, 5);
    disk.until_head(node.head().hash).await;
    following.stop().await;
    assert_same_chain(&disk, &node, 0);
    assert!(node.calls("eth_getTransactionReceipt") >= 21 * 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_tries_the_newest_block() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(5, 2);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    let check = check_chain(&pool, &config()).await;
    assert_eq!(check.endpoints[0].result.clone().unwrap().chain_id, CHAIN_ID);
    assert_eq!(check.sample.unwrap().hash, node.head().hash);
    node.play("eth_getLogs", 1, Nasty::LogMissing);
    let check = check_chain(&pool, &config()).await;
    assert!(check.sample.unwrap_err().to_string().contains("bloom"));
}
