//! What following promises, against a real node.

mod common;

use std::time::Duration;

use alloy_primitives::{Address, U256};
use common::{Disk, Following, config, pool};
use shepherd_devnet::{Anvil, Options, Transaction};
use shepherd_ingest::{Config, Trust, check_chain};
use shepherd_log::BlockRef;

/// A node with a contract that answers each call with three logs.
struct Devnet {
    anvil: Anvil,
}

const EMITTER: Address = Address::repeat_byte(0xee);

impl Devnet {
    async fn start() -> Devnet {
        Devnet::with(Options::default()).await
    }

    /// A node whose blocks depend on nothing but what it is told to put into them.
    async fn deterministic() -> Devnet {
        let time = Some(1_700_000_000);
        let options =
            Options { genesis_time: time, seconds_per_block: Some(1), ..Options::default() };
        Devnet::with(options).await
    }

    async fn with(options: Options) -> Devnet {
        let anvil = Anvil::start(options).await.unwrap();
        // Three times: LOG1 without data, whose topic is the number of gas left.
        let code = "0x5a60006000a15a60006000a15a60006000a100";
        anvil.set_code(EMITTER, code.parse().unwrap()).await.unwrap();
        Devnet { anvil }
    }

    /// Makes blocks with this many calls each.
    async fn mine(&self, blocks: u64, calls: usize) {
        for _ in 0..blocks {
            let call = Transaction {
                from: self.anvil.accounts()[0],
                to: Some(EMITTER),
                value: U256::ZERO,
                data: Default::default(),
                gas: Some(100_000),
            };
            self.anvil.send(&vec![call; calls]).await.unwrap();
            self.anvil.mine(1).await.unwrap();
        }
    }

    async fn assert_same_chain(&self, disk: &Disk) {
        let (chain, _) = disk.replay();
        let mut expected = Vec::new();
        for number in 0..=self.anvil.block_number().await.unwrap() {
            let block = self.anvil.block(number).await.unwrap();
            let logs = self.anvil.count_logs(number..=number, None).await.unwrap();
            expected.push((BlockRef { number, hash: block.hash }, logs as usize));
        }
        assert_eq!(chain, expected);
    }

    async fn until_journaled(&self, disk: &Disk) {
        disk.until_head(self.anvil.head().await.unwrap().hash).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn announced_heads_are_followed_without_polling() {
    let devnet = Devnet::start().await;
    devnet.mine(30, 2).await;
    let (http, ws) = (devnet.anvil.http_url(), devnet.anvil.ws_url());
    let pool = pool(devnet.anvil.chain_id(), &[http.as_str(), ws.as_str()]);
    let disk = Disk::new(devnet.anvil.chain_id());
    let config = Config { poll_interval: Duration::from_secs(3600), ..config() };
    let mut following = Following::start(&disk, &pool, config);
    devnet.until_journaled(&disk).await;
    for calls in [0, 1, 40] {
        devnet.mine(1, calls).await;
        devnet.until_journaled(&disk).await;
    }
    following.until_following().await;
    following.stop().await;
    devnet.assert_same_chain(&disk).await;
    assert_eq!(disk.replay().0.last().unwrap().1, 120);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_followed_over_a_websocket_alone() {
    let devnet = Devnet::start().await;
    devnet.mine(30, 2).await;
    let pool = pool(devnet.anvil.chain_id(), &[devnet.anvil.ws_url().as_str()]);
    let disk = Disk::new(devnet.anvil.chain_id());
    let following = Following::start(&disk, &pool, config());
    devnet.until_journaled(&disk).await;
    devnet.mine(3, 2).await;
    devnet.until_journaled(&disk).await;
    following.stop().await;
    devnet.assert_same_chain(&disk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_node_that_lags_neither_holds_the_chain_nor_takes_it_back() {
    // Two nodes to which the same happens have the same chain.
    let (lagging, ahead) = (Devnet::deterministic().await, Devnet::deterministic().await);
    lagging.mine(5, 2).await;
    ahead.mine(5, 2).await;
    assert_eq!(lagging.anvil.head().await.unwrap().hash, ahead.anvil.head().await.unwrap().hash);
    let (first, second) = (lagging.anvil.http_url(), ahead.anvil.http_url());
    let pool = pool(ahead.anvil.chain_id(), &[first.as_str(), second.as_str()]);
    let disk = Disk::new(ahead.anvil.chain_id());
    let mut following = Following::start(&disk, &pool, config());
    for blocks in [1, 3, 20] {
        ahead.mine(blocks, 2).await;
        ahead.until_journaled(&disk).await;
    }
    following.until("told who lags", |status| !status.lagging.is_empty()).await;
    // It goes its own way now, for a few blocks.
    lagging.mine(3, 1).await;
    ahead.mine(1, 2).await;
    ahead.until_journaled(&disk).await;
    following.until_following().await;
    following.stop().await;
    ahead.assert_same_chain(&disk).await;
    assert_eq!(disk.replay().1, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_receipts_of_a_real_node_hash_to_its_root() {
    let devnet = Devnet::start().await;
    devnet.mine(3, 40).await;
    devnet.mine(1, 0).await;
    let pool = pool(devnet.anvil.chain_id(), &[devnet.anvil.http_url().as_str()]);
    let disk = Disk::new(devnet.anvil.chain_id());
    let config = Config { trust: Trust::Receipts, ..config() };
    let following = Following::start(&disk, &pool, config);
    devnet.until_journaled(&disk).await;
    devnet.mine(1, 3).await;
    devnet.until_journaled(&disk).await;
    following.stop().await;
    devnet.assert_same_chain(&disk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reorgs_of_depth_1_to_10_lead_to_the_canonical_chain() {
    let devnet = Devnet::start().await;
    devnet.mine(15, 1).await;
    let pool = pool(devnet.anvil.chain_id(), &[devnet.anvil.http_url().as_str()]);
    let mut disk = Disk::new(devnet.anvil.chain_id());
    let mut following = Following::start(&disk, &pool, config());
    devnet.until_journaled(&disk).await;
    let mut abandoned = 0;
    for depth in 1..=10 {
        // Every third reorg happens while the process is down.
        let is_down = depth % 3 == 0;
        if is_down {
            following.stop().await;
            disk = disk.reopen();
            devnet.anvil.reorg(depth).await.unwrap();
            following = Following::start(&disk, &pool, config());
        } else {
            devnet.anvil.reorg(depth).await.unwrap();
        }
        devnet.mine(2, 1).await;
        abandoned += depth as usize;
        devnet.until_journaled(&disk).await;
        devnet.assert_same_chain(&disk).await;
        assert_eq!(disk.replay().1, abandoned);
    }
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missing_after_the_node_was_away() {
    let devnet = Devnet::start().await;
    devnet.mine(5, 2).await;
    let (http, ws) = (devnet.anvil.http_url(), devnet.anvil.ws_url());
    let pool = pool(devnet.anvil.chain_id(), &[http.as_str(), ws.as_str()]);
    let disk = Disk::new(devnet.anvil.chain_id());
    let mut following = Following::start(&disk, &pool, config());
    devnet.until_journaled(&disk).await;

    let stopped = devnet.anvil.stop().await.unwrap();
    following.until_waiting("no endpoint answers").await;
    let devnet = Devnet { anvil: stopped.start().await.unwrap() };
    devnet.mine(40, 2).await;
    devnet.until_journaled(&disk).await;
    following.until_following().await;
    following.stop().await;
    devnet.assert_same_chain(&disk).await;
    assert_eq!(disk.replay().1, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_fills_the_gap_before_anything_newer() {
    let devnet = Devnet::start().await;
    devnet.mine(5, 2).await;
    let pool = pool(devnet.anvil.chain_id(), &[devnet.anvil.http_url().as_str()]);
    let disk = Disk::new(devnet.anvil.chain_id());
    let following = Following::start(&disk, &pool, config());
    devnet.until_journaled(&disk).await;
    following.stop().await;
    let disk = disk.reopen();
    devnet.mine(60, 2).await;
    let following = Following::start(&disk, &pool, config());
    devnet.until_journaled(&disk).await;
    following.stop().await;
    devnet.assert_same_chain(&disk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_node_passes_the_check() {
    let devnet = Devnet::start().await;
    devnet.mine(2, 2).await;
    let (http, ws) = (devnet.anvil.http_url(), devnet.anvil.ws_url());
    let pool = pool(devnet.anvil.chain_id(), &[http.as_str(), ws.as_str()]);
    let check = check_chain(&pool, &config()).await;
    let genesis = devnet.anvil.block(0).await.unwrap().hash;
    for endpoint in &check.endpoints {
        let sighting = endpoint.result.clone().unwrap();
        assert_eq!((sighting.chain_id, sighting.genesis), (31337, Some(genesis)));
    }
    assert_eq!(check.sample.unwrap().number, 2);
}
