//! Chains do not wait for each other, and a fast one is kept up with.

mod common;
mod scripted;

use std::time::Duration;

use common::{config, pool};
use prometheus_client::registry::Registry;
use scripted::{Nasty, Node};
use shepherd_ingest::{ChainStatus, Config, FollowError, Metrics, follow, profile};
use shepherd_log::{BlockRef, ChainName, Journal, Options, Store};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

const ARBITRUM: u64 = 42_161;
const MAINNET: u64 = 1;

/// The followers of several chains in one process, over one store, as the daemon has them.
struct Process {
    store: Store,
    metrics: Metrics,
    shutdown: CancellationToken,
    followers: Vec<JoinHandle<Result<(), FollowError>>>,
}

impl Process {
    fn start(directory: &std::path::Path) -> Process {
        Process {
            store: Store::open(directory, Options::default()).unwrap(),
            metrics: Metrics::new(&mut Registry::default()),
            shutdown: CancellationToken::new(),
            followers: Vec::new(),
        }
    }

    fn follow(&mut self, name: &str, chain_id: u64, node: &Node, config: Config) -> Journal {
        let name: ChainName = name.parse().unwrap();
        let journal = self.store.journal(&name, chain_id).unwrap();
        let pool = pool(chain_id, &[&node.url()]);
        let status = watch::Sender::new(ChainStatus::starting());
        let metrics = self.metrics.clone();
        let follow = follow(journal.clone(), pool, config, status, metrics, self.shutdown.clone());
        self.followers.push(tokio::spawn(follow));
        journal
    }

    async fn stop(self) {
        self.shutdown.cancel();
        for follower in self.followers {
            follower.await.unwrap().unwrap();
        }
    }
}

/// Longest time until something that must happen has happened. Only a failing test takes it.
const PATIENCE: Duration = Duration::from_secs(60);

async fn until_head(journal: &Journal, head: BlockRef) {
    let mut tail = journal.watch();
    let arrived = tail.wait_for(|tail| tail.head == Some(head));
    tokio::time::timeout(PATIENCE, arrived).await.expect("it gets there").unwrap();
}

/// Blocks of the fast chain that are waited for: three seconds of it.
const BLOCKS: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_four_blocks_a_second_is_kept_up_with_while_another_stalls() {
    let block_time = profile(ARBITRUM).unwrap().block_time;
    let (slow, fast) = (Node::start(MAINNET).await, Node::start(ARBITRUM).await);
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::start(directory.path());
    let stalled = process.follow("mainnet", MAINNET, &slow, config());
    let journal = process.follow("arbitrum", ARBITRUM, &fast, Config::for_chain(ARBITRUM));
    until_head(&stalled, slow.head().reference()).await;
    until_head(&journal, fast.head().reference()).await;
    slow.play("eth_getBlockByNumber", usize::MAX, Nasty::Stall);
    slow.extend(10, 5);

    let (made, mut blocks) = mpsc::unbounded_channel();
    let chain = tokio::spawn(async move {
        let mut clock = interval(block_time);
        // A machine that was busy makes no blocks in a burst afterwards.
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for _ in 0..BLOCKS {
            clock.tick().await;
            fast.extend(1, 20);
            made.send((fast.head().number, Instant::now())).unwrap();
        }
        // The node lives until its last block is journaled.
        fast
    });
    let mut tail = journal.watch();
    let (mut delays, mut behind) = (Vec::new(), Vec::new());
    while let Some((number, made)) = blocks.recv().await {
        let arrived = tail.wait_for(|tail| tail.head.is_some_and(|head| number <= head.number));
        tokio::time::timeout(PATIENCE, arrived).await.expect("it is kept up with").unwrap();
        delays.push(made.elapsed());
        behind.push(blocks.len());
    }
    println!("journaled after {delays:?}");
    // How late depends on the machine, which slows both sides. Counted in blocks that were made
    // meanwhile, a block is seen at the next poll, one block later at most; who falls behind
    // exceeds the bound soon, for the chain does not wait.
    assert!(*behind.iter().max().unwrap() < 4, "{behind:?}");
    drop(chain.await.unwrap());
    assert_eq!(stalled.tail().head.map(|head| head.number), Some(0));
    process.stop().await;
}
