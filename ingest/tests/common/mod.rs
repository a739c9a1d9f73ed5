//! A follower with its journal in a temporary directory.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{path::Path, time::Duration};

use alloy_primitives::B256;
use prometheus_client::{encoding::text::encode, registry::Registry};
use shepherd_ingest::{ChainState, ChainStatus, Config, FollowError, Metrics, follow};
use shepherd_log::{BlockRef, ChainName, Journal, Offset, Options, Record, Store};
use shepherd_rpc::{EndpointSpec, Pool};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Longest time until something that must happen has happened. Only a failing test takes it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store, for as long as the test takes.
pub struct Disk {
    pub journal: Journal,
    chain_id: u64,
    store: Store,
    /// Last, so that it outlives the store.
    directory: Directory,
}

/// A temporary directory. A failing test leaves it behind: the store may still be open, and
/// aborts the process, and with it the test's message, when its files are gone.
struct Directory(Option<TempDir>);

impl Directory {
    fn path(&self) -> &Path {
        self.0.as_ref().expect("taken only on drop").path()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Some(directory) = self.0.take().filter(|_| std::thread::panicking()) {
            eprintln!("left behind: {}", directory.keep().display());
        }
    }
}

impl Disk {
    pub fn new(chain_id: u64) -> Disk {
        Disk::with_depth(chain_id, 64)
    }

    /// A store that allows reorgs of this depth.
    pub fn with_depth(chain_id: u64, reorg_depth_max: u64) -> Disk {
        Disk::open(Directory(Some(tempfile::tempdir().unwrap())), chain_id, reorg_depth_max)
    }

    fn open(directory: Directory, chain_id: u64, reorg_depth_max: u64) -> Disk {
        let options = Options { reorg_depth_max, ..Options::default() };
        let store = Store::open(directory.path(), options).unwrap();
        let journal = store.journal(&chain(), chain_id).unwrap();
        Disk { directory, chain_id, store, journal }
    }

    /// Closes the store and opens it again, as a restart does.
    pub fn reopen(self) -> Disk {
        let Disk { directory, chain_id, store, journal } = self;
        drop(journal);
        drop(store);
        Disk::open(directory, chain_id, 64)
    }

    /// The chain that the journal leads to, with the number of logs of each block, and how many
    /// blocks were abandoned on the way.
    pub fn replay(&self) -> (Vec<(BlockRef, usize)>, usize) {
        let mut chain: Vec<(BlockRef, usize)> = Vec::new();
        let mut abandoned = 0;
        for record in self.journal.read(Offset::START..self.journal.tail().offset) {
            match record.unwrap().record().to_record() {
                Record::Block(block) => {
                    if let Some((head, _)) = chain.last() {
                        assert_eq!(block.header.parent, head.hash);
                    }
                    chain.push((block.header.this, block.logs.len()));
                }
                Record::Revert(revert) => {
                    for block in revert.abandoned.iter().rev() {
                        assert_eq!(chain.pop().unwrap().0, *block);
                        abandoned += 1;
                    }
                    assert_eq!(chain.last().unwrap().0, revert.ancestor);
                }
                Record::Outcome(_) => unreachable!("no lane runs here"),
            }
        }
        (chain, abandoned)
    }

    /// Waits until the journal's head is this block.
    pub async fn until_head(&self, hash: B256) {
        let mut tail = self.journal.watch();
        let arrived = tail.wait_for(|tail| tail.head.is_some_and(|head| head.hash == hash));
        let arrived = tokio::time::timeout(PATIENCE, arrived).await;
        assert!(arrived.is_ok(), "the journal did not reach {hash}: {:?}", self.journal.tail());
    }
}

/// A follower at work.
pub struct Following {
    pub status: watch::Receiver<ChainStatus>,
    task: JoinHandle<Result<(), FollowError>>,
    shutdown: CancellationToken,
    registry: Registry,
}

impl Following {
    pub fn start(disk: &Disk, pool: &Pool, config: Config) -> Following {
        let (sender, status) = watch::channel(ChainStatus::starting());
        let shutdown = CancellationToken::new();
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let follow =
            follow(disk.journal.clone(), pool.clone(), config, sender, metrics, shutdown.clone());
        Following { status, task: tokio::spawn(follow), shutdown, registry }
    }

    /// Waits until the status is as described.
    pub async fn until(&mut self, what: &str, is: impl Fn(&ChainStatus) -> bool) {
        let arrived = tokio::time::timeout(PATIENCE, self.status.wait_for(|status| is(status)));
        let arrived = arrived.await.is_ok_and(|arrived| arrived.is_ok());
        assert!(arrived, "not {what}: {:?}", *self.status.borrow());
    }

    /// What the follower does now.
    pub fn state(&self) -> ChainState {
        self.status.borrow().state.clone()
    }

    pub async fn until_following(&mut self) {
        self.until("following", |status| status.state == ChainState::Following).await;
    }

    pub async fn until_waiting(&mut self, reason: &str) {
        let is = |status: &ChainStatus| matches!(&status.state, ChainState::Waiting { reason: r } if r.contains(reason));
        self.until(reason, is).await;
    }

    /// Shuts the follower down.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.ended().await.unwrap();
    }

    /// How the follower ended by itself.
    pub async fn ended(self) -> Result<(), FollowError> {
        tokio::time::timeout(PATIENCE, self.task).await.expect("it ends in time").unwrap()
    }

    /// The value of a metric of this chain.
    pub fn metric(&self, name: &str) -> f64 {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let line = format!("shepherd_chain_{name}{{chain=\"devnet\"}} ");
        let value = text.lines().find_map(|text| text.strip_prefix(&line));
        value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }
}

pub fn chain() -> ChainName {
    "devnet".parse().unwrap()
}

/// A pool that does not rest for longer than a test wants to wait.
pub fn pool(chain_id: u64, urls: &[&str]) -> Pool {
    pool_of(chain_id, urls.iter().map(|url| url.parse().unwrap()).collect())
}

/// The same, of endpoints about which more is said than where they are.
pub fn pool_of(chain_id: u64, endpoints: Vec<EndpointSpec>) -> Pool {
    let options = shepherd_rpc::Options {
        rest_min: Duration::from_millis(1),
        rest_max: Duration::from_millis(5),
        request_timeout: Duration::from_secs(5),
        ..shepherd_rpc::Options::default()
    };
    let metrics = shepherd_rpc::Metrics::new(&mut Registry::default());
    Pool::connect("devnet", chain_id, endpoints, options, &metrics)
}

/// A configuration that polls and retries as fast as a test wants.
pub fn config() -> Config {
    Config {
        poll_interval: Duration::from_millis(5),
        retry_min: Duration::from_millis(1),
        retry_max: Duration::from_millis(5),
        ..Config::default()
    }
}
