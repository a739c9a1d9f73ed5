//! What following promises when the endpoints of a chain do not agree.

mod common;
mod scripted;

use common::{Disk, Following, config, pool, pool_of};
use scripted::{Nasty, Node};
use shepherd_ingest::{ChainState, Config, Finality, FollowError, ReorgLimit, Start, Trust};
use shepherd_log::BlockRef;
use shepherd_rpc::{ChainMismatch, EndpointSpec, EndpointState};

const CHAIN_ID: u64 = 31337;

/// An address where nobody listens.
const NOBODY: &str = "http://127.0.0.1:1";

/// Two nodes that know the same chain, genesis and this many blocks.
async fn twins(blocks: u64) -> (Node, Node) {
    let (a, b) = (Node::start(CHAIN_ID).await, Node::start(CHAIN_ID).await);
    a.extend(blocks, 2);
    b.copy(&a);
    (a, b)
}

fn assert_same_chain(disk: &Disk, node: &Node) {
    let expected: Vec<(BlockRef, usize)> =
        node.chain().into_iter().map(|block| (block.reference(), block.logs)).collect();
    assert_eq!(disk.replay().0, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_stuck_does_not_hold_the_chain() {
    let (stuck, live) = twins(10).await;
    let pool = pool(CHAIN_ID, &[&stuck.url(), &live.url()]);
    let disk = Disk::new(CHAIN_ID);
    let mut following = Following::start(&disk, &pool, config());
    disk.until_head(stuck.head().hash).await;
    for blocks in [1, 30, 1] {
        live.extend(blocks, 2);
        disk.until_head(live.head().hash).await;
    }
    let name = stuck.url();
    let is_lagging = |endpoint: &str| endpoint == name;
    following
        .until("told who lags", |status| {
            status.lagging.iter().any(|lagging| is_lagging(&lagging.endpoint))
        })
        .await;
    stuck.copy(&live);
    following.until("told that nobody lags", |status| status.lagging.is_empty()).await;
    following.stop().await;
    assert_same_chain(&disk, &live);
    assert_eq!(disk.replay().1, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_of_an_endpoint_that_was_put_aside_is_not_followed() {
    let (caught, honest) = twins(20).await;
    let pool = pool(CHAIN_ID, &[&caught.url(), &honest.url()]);
    let disk = Disk::new(CHAIN_ID);
    let following = Following::start(&disk, &pool, config());
    disk.until_head(honest.head().hash).await;
    pool.distrust(pool.endpoints()[0], "it was caught".to_owned());
    // Without logs there is nothing more to ask, and nothing to be caught by.
    caught.extend(1, 0);
    for _ in 0..3 {
        caught.until_asked_for_latest(1).await;
        honest.until_asked_for_latest(2).await;
    }
    honest.extend(2, 2);
    disk.until_head(honest.head().hash).await;
    following.stop().await;
    assert_same_chain(&disk, &honest);
    assert_eq!(disk.replay().1, 0, "the other block was never journaled");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_behind_on_a_branch_that_others_left_is_not_a_reorg() {
    for their_blocks in [1, 2, 3] {
        let (behind, ahead) = twins(17).await;
        let pool = pool(CHAIN_ID, &[&behind.url(), &ahead.url()]);
        let disk = Disk::new(CHAIN_ID);
        let mut following = Following::start(&disk, &pool, config());
        disk.until_head(behind.head().hash).await;
        ahead.extend(3, 2);
        disk.until_head(ahead.head().hash).await;
        // Heads 16 to 18 that are not ours, while we are at 20.
        behind.cut(2);
        behind.extend(their_blocks, 1);
        behind.until_asked_for_latest(3).await;
        following.until_following().await;
        ahead.extend(1, 2);
        disk.until_head(ahead.head().hash).await;
        following.stop().await;
        assert_same_chain(&disk, &ahead);
        assert_eq!(disk.replay().1, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_is_followed_once_it_is_longer_than_ours() {
    let (late, early) = twins(17).await;
    let pool = pool(CHAIN_ID, &[&late.url(), &early.url()]);
    let disk = Disk::new(CHAIN_ID);
    let following = Following::start(&disk, &pool, config());
    disk.until_head(late.head().hash).await;
    early.reorg(2, 3);
    disk.until_head(early.head().hash).await;
    late.copy(&early);
    late.extend(1, 2);
    disk.until_head(late.head().hash).await;
    following.stop().await;
    assert_same_chain(&disk, &late);
    assert_eq!(disk.replay().1, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_alone_with_a_deep_reorg_is_put_aside() {
    // Past the depth, past finality, and to before the journal's first block.
    for (start, finality, depth) in
        [(0, Finality::Tag, 6), (0, Finality::Depth(2), 3), (18, Finality::Tag, 4)]
    {
        let (liar, honest) = twins(20).await;
        let pool = pool(CHAIN_ID, &[&liar.url(), &honest.url()]);
        let disk = Disk::new(CHAIN_ID);
        let start = Start::Block(start);
        let config = Config { reorg_depth_max: 5, finality, start, ..config() };
        let mut following = Following::start(&disk, &pool, config);
        disk.until_head(honest.head().hash).await;
        following.until_following().await;
        liar.reorg(depth, 1);
        let distrusted = || {
            let status = pool.status();
            let liar = status.iter().find(|status| status.endpoint == liar.url()).unwrap();
            matches!(liar.state, EndpointState::Distrusted { .. })
        };
        // Each look for a head is an occasion to be put aside.
        while !distrusted() {
            assert!(!matches!(following.state(), ChainState::Stopped { .. }));
            honest.until_asked_for_latest(1).await;
        }
        honest.extend(3, 2);
        disk.until_head(honest.head().hash).await;
        following.stop().await;
        assert_eq!(disk.replay().1, 0, "nothing of the lie was journaled");
        let evidence = pool.status().into_iter().find_map(|status| status.last_failure);
        assert!(evidence.unwrap().1.to_string().contains("alone left our branch too deep"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deep_reorg_that_another_endpoint_confirms_stops_the_chain() {
    let (a, b) = twins(20).await;
    let pool = pool(CHAIN_ID, &[&a.url(), &b.url()]);
    let disk = Disk::new(CHAIN_ID);
    let config = Config { reorg_depth_max: 5, ..config() };
    let following = Following::start(&disk, &pool, config);
    disk.until_head(a.head().hash).await;
    // The other one has left our branch too, if for another.
    b.cut(7);
    b.extend(3, 3);
    a.reorg(6, 1);
    let error = following.ended().await.unwrap_err();
    let FollowError::ReorgTooDeep { limit, .. } = error else { panic!("{error}") };
    assert_eq!(limit, ReorgLimit::Depth { depth_max: 5 });
    assert_eq!(disk.replay().1, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deep_reorg_that_nobody_else_speaks_about_is_waited_with() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(20, 2);
    let pool = pool(CHAIN_ID, &[&node.url(), NOBODY]);
    let disk = Disk::new(CHAIN_ID);
    let config = Config { reorg_depth_max: 5, ..config() };
    let mut following = Following::start(&disk, &pool, config);
    disk.until_head(node.head().hash).await;
    node.reorg(6, 1);
    following.until_waiting("left our branch too deep").await;
    following.stop().await;
    assert_eq!(disk.replay().1, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorg_up_to_what_is_final_is_followed_and_one_past_it_stops_the_chain() {
    for finality in [Finality::Tag, Finality::Depth(2)] {
        let node = Node::start(CHAIN_ID).await;
        node.extend(20, 2);
        node.finalize(18);
        let pool = pool(CHAIN_ID, &[&node.url()]);
        let disk = Disk::new(CHAIN_ID);
        let mut following = Following::start(&disk, &pool, Config { finality, ..config() });
        let finalized = node.chain()[18].reference();
        following.until("final", |status| status.finalized == Some(finalized)).await;
        assert_eq!(following.metric("finalized_height"), 18.0);
        node.cut(2);
        node.extend(1, 1);
        disk.until_head(node.head().hash).await;
        assert_eq!(disk.replay().1, 2);
        node.reorg(2, 1);
        let error = following.ended().await.unwrap_err();
        let FollowError::ReorgTooDeep { limit, .. } = error else { panic!("{error}") };
        assert_eq!(limit, ReorgLimit::Finality { finalized });
        assert_eq!(disk.replay().1, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_final_never_goes_back_and_is_a_block_of_ours() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(20, 2);
    node.finalize(12);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    let disk = Disk::new(CHAIN_ID);
    let mut following = Following::start(&disk, &pool, config());
    let at = |number: usize| Some(node.chain()[number].reference());
    following.until("final", |status| status.finalized == at(12)).await;
    node.finalize(5);
    node.until_asked_for_finalized(3).await;
    assert_eq!(following.status.borrow().finalized, at(12));
    node.finalize(15);
    following.until("final", |status| status.finalized == at(15)).await;
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_endpoints_take_back_was_not_final() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(20, 2);
    node.finalize(18);
    let pool = pool(CHAIN_ID, &[&node.url()]);
    let disk = Disk::new(CHAIN_ID);
    let mut following = Following::start(&disk, &pool, config());
    let at = |number: usize| Some(node.chain()[number].reference());
    following.until("final", |status| status.finalized == at(18)).await;
    node.finalize(10);
    node.reorg(5, 1);
    disk.until_head(node.head().hash).await;
    following.until("final", |status| status.finalized == at(10)).await;
    following.stop().await;
    assert_same_chain(&disk, &node);
    assert_eq!(disk.replay().1, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_quorum_a_block_waits_for_as_many_endpoints_as_must_have_it() {
    // Where hashes prove nothing each block is asked about, so the first is the one that fails.
    for (trust, disputed) in [(Trust::Link, 41), (Trust::Bloom, 42)] {
        let (a, b) = twins(10).await;
        let pool = pool(CHAIN_ID, &[&a.url(), &b.url()]);
        let disk = Disk::new(CHAIN_ID);
        let config = Config { quorum: 2, trust, ..config() };
        let mut following = Following::start(&disk, &pool, config);
        disk.until_head(a.head().hash).await;
        // One is ahead: what both have is followed.
        a.extend(30, 2);
        a.until_asked_for_latest(3).await;
        assert_eq!(disk.journal.tail().head, Some(b.head().reference()));
        b.copy(&a);
        disk.until_head(a.head().hash).await;
        following.until_following().await;
        // Both are ahead, on different branches: that is waited with, and who says what is told.
        a.extend(1, 1);
        b.extend(1, 2);
        b.reorg(1, 3);
        a.extend(1, 1);
        let said = format!("{} has {}", a.url(), a.chain()[disputed].reference());
        following.until_waiting(&format!("2 endpoints must have block {disputed}")).await;
        following.until_waiting(&said).await;
        assert_eq!(disk.journal.tail().head.map(|head| head.number), Some(40));
        a.copy(&b);
        disk.until_head(b.head().hash).await;
        following.stop().await;
        assert_same_chain(&disk, &b);
        assert_eq!(disk.replay().1, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_quorum_a_reorg_is_followed_once_enough_have_gone_over() {
    let (a, b) = twins(10).await;
    let pool = pool(CHAIN_ID, &[&a.url(), &b.url()]);
    let disk = Disk::new(CHAIN_ID);
    let config = Config { quorum: 2, ..config() };
    let mut following = Following::start(&disk, &pool, config);
    disk.until_head(a.head().hash).await;
    b.extend(1, 1);
    a.reorg(2, 1);
    following.until_waiting("2 endpoints must have block").await;
    assert_eq!(disk.replay().1, 0);
    b.copy(&a);
    disk.until_head(a.head().hash).await;
    following.stop().await;
    assert_same_chain(&disk, &a);
    assert_eq!(disk.replay().1, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_quorum_a_gap_is_filled_from_endpoints_that_may_rarely_be_asked() {
    // The fetches that are under way at first take a for longer than its answers are waited for.
    let (a, b) = twins(64).await;
    let limited = |node: &Node| EndpointSpec {
        rate_per_second: Some(8),
        ..node.url().parse::<EndpointSpec>().unwrap()
    };
    let pool = pool_of(CHAIN_ID, vec![limited(&a), limited(&b)]);
    let disk = Disk::new(CHAIN_ID);
    let config = Config { quorum: 2, fetch_parallel: 8, ..config() };
    let following = Following::start(&disk, &pool, config);
    disk.until_head(a.head().hash).await;
    following.stop().await;
    assert_same_chain(&disk, &a);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_of_more_endpoints_than_answer_is_waited_for() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(3, 2);
    let pool = pool(CHAIN_ID, &[&node.url(), NOBODY]);
    let disk = Disk::new(CHAIN_ID);
    let config = Config { quorum: 2, ..config() };
    let mut following = Following::start(&disk, &pool, config);
    following.until_waiting("2 endpoints must agree, and 1 answer").await;
    following.stop().await;
    assert_eq!(disk.journal.tail().head, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_does_not_hold_up_counts_for_nobody() {
    let (a, b) = twins(10).await;
    let pool = pool(CHAIN_ID, &[&a.url(), &b.url()]);
    let disk = Disk::new(CHAIN_ID);
    let config = Config { quorum: 2, ..config() };
    let following = Following::start(&disk, &pool, config);
    disk.until_head(a.head().hash).await;
    a.play("eth_getBlockByNumber", 3, Nasty::BloomMissing);
    a.extend(1, 3);
    b.copy(&a);
    disk.until_head(a.head().hash).await;
    assert!(a.is_honest_again());
    assert!(following.metric("verification_failures_total") > 0.0);
    following.stop().await;
    assert_same_chain(&disk, &a);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_chain_with_the_same_id_is_refused_after_a_restart_too() {
    let node = Node::start(CHAIN_ID).await;
    node.extend(5, 1);
    let config = Config { start: Start::Block(3), ..config() };
    let disk = Disk::new(CHAIN_ID);
    let mut following = Following::start(&disk, &pool(CHAIN_ID, &[&node.url()]), config.clone());
    following.until_following().await;
    following.stop().await;
    let genesis = node.chain()[0].hash;
    assert_eq!(disk.journal.genesis().unwrap(), Some(genesis));

    let disk = disk.reopen();
    node.wipe();
    node.extend(9, 1);
    let following = Following::start(&disk, &pool(CHAIN_ID, &[&node.url()]), config);
    let FollowError::WrongChain { source, .. } = following.ended().await.unwrap_err() else {
        panic!("another error")
    };
    let endpoint = node.chain()[0].hash;
    assert_eq!(source, ChainMismatch::Genesis { seen_before: genesis, endpoint });
}
