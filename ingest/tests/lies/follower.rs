//! A follower that can be restarted, with its journal where it costs least.

use std::{path::Path, time::Duration};

use alloy_primitives::B256;
use prometheus_client::registry::Registry;
use shepherd_ingest::{ChainStatus, Config, FollowError, Metrics, Progress, Until, follow, ingest};
use shepherd_log::{Journal, Options, Store};
use shepherd_node::Oracle;
use shepherd_rpc::{Pool, Redacted};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Longest time until something that must happen has happened. Only a failing seed takes it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Largest answer that the follower is willing to hold. Honest ones are a tenth of it.
pub const BODY_BYTES_MAX: u64 = 1 << 20;

/// A store in a temporary directory.
pub struct Disk {
    pub journal: Journal,
    store: Store,
    chain_id: u64,
    /// Last, so that it outlives the store.
    directory: Directory,
}

/// A temporary directory. A seed that fails leaves it behind: its follower may still be at work,
/// and a store whose files are gone aborts the process, and with it the other seeds.
struct Directory(Option<TempDir>);

impl Directory {
    fn path(&self) -> &Path {
        self.0.as_ref().expect("taken only on drop").path()
    }

    fn remove(&mut self) {
        drop(self.0.take());
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Some(directory) = self.0.take() {
            eprintln!("left behind: {}", directory.keep().display());
        }
    }
}

impl Disk {
    pub fn new(chain_id: u64) -> Disk {
        // In memory where there is such a place: what survives a power cut is for the store's own
        // tests to say.
        let mut named = tempfile::Builder::new();
        named.prefix("shepherd-lies-");
        let directory = named.tempdir_in("/dev/shm").or_else(|_| named.tempdir()).unwrap();
        Disk::open(Directory(Some(directory)), chain_id)
    }

    /// Closes the store for good.
    pub fn remove(self) {
        let Disk { journal, store, mut directory, .. } = self;
        drop(journal);
        drop(store);
        directory.remove();
    }

    fn open(directory: Directory, chain_id: u64) -> Disk {
        let store = Store::open(directory.path(), Options::default()).unwrap();
        let journal = store.journal(&"devnet".parse().unwrap(), chain_id).unwrap();
        Disk { journal, store, chain_id, directory }
    }

    /// Closes the store and opens it again, as a restart does. Nothing else may use it.
    fn reopen(self) -> Disk {
        let Disk { journal, store, chain_id, directory } = self;
        drop(journal);
        drop(store);
        Disk::open(directory, chain_id)
    }
}

/// A follower, at work or ended.
pub struct Follower {
    pub disk: Disk,
    urls: Vec<Redacted>,
    config: Config,
    ingests: bool,
    working: Working,
    pub restarts: usize,
}

struct Working {
    task: JoinHandle<Result<(), FollowError>>,
    shutdown: CancellationToken,
    ended: CancellationToken,
    status: watch::Receiver<ChainStatus>,
}

impl Follower {
    /// Begins to follow. With `ingests`, at each start what is missing is ingested as history first.
    pub fn start(chain_id: u64, urls: Vec<Redacted>, config: Config, ingests: bool) -> Follower {
        let disk = Disk::new(chain_id);
        let working = Working::start(&disk, &urls, &config, ingests);
        Follower { disk, urls, config, ingests, working, restarts: 0 }
    }

    /// Stops, closes the store, and takes up where the journal ends.
    pub async fn restart(mut self) -> Result<Follower, String> {
        self.working.stop().await?;
        self.disk = self.disk.reopen();
        self.working = Working::start(&self.disk, &self.urls, &self.config, self.ingests);
        self.restarts += 1;
        Ok(self)
    }

    /// Waits until the journal's head is this block.
    pub async fn until_head(mut self, hash: B256) -> Result<Follower, String> {
        loop {
            let mut tail = self.disk.journal.watch();
            let arrived = tail.wait_for(|tail| tail.head.is_some_and(|head| head.hash == hash));
            if self.at_work_until(arrived).await? {
                return Ok(self);
            }
            self = self.restart().await?;
        }
    }

    /// Waits until all nodes together were sent so many messages.
    pub async fn until_served(
        mut self,
        oracle: &Oracle,
        messages: u64,
    ) -> Result<Follower, String> {
        while !self.at_work_until(oracle.served(messages)).await? {
            self = self.restart().await?;
        }
        Ok(self)
    }

    /// Waits for something that must happen. Returns false when the follower ended before that, in
    /// a way that calls for starting it again.
    async fn at_work_until<T>(&mut self, event: impl Future<Output = T>) -> Result<bool, String> {
        tokio::select! {
            _ = event => Ok(true),
            () = self.working.ended.cancelled() => Ok(false),
            () = tokio::time::sleep(PATIENCE) => {
                let (tail, status) = (self.disk.journal.tail(), &*self.working.status.borrow());
                Err(format!("nothing happens, the journal is at {:?}: {status:?}", tail.head))
            }
        }
    }

    /// Stops, and hands out the journal.
    pub async fn stop(mut self) -> Result<Disk, String> {
        self.working.stop().await?;
        Ok(self.disk)
    }
}

impl Working {
    fn start(disk: &Disk, urls: &[Redacted], config: &Config, ingests: bool) -> Working {
        let options = shepherd_rpc::Options {
            connect_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_millis(300),
            request_timeout: Duration::from_millis(400),
            body_bytes_max: BODY_BYTES_MAX,
            rest_min: Duration::from_millis(1),
            rest_max: Duration::from_millis(4),
            ..shepherd_rpc::Options::default()
        };
        let metrics = shepherd_rpc::Metrics::new(&mut Registry::default());
        let endpoints = urls.iter().map(|url| url.clone().into()).collect();
        let pool = Pool::connect("devnet", disk.chain_id, endpoints, options, &metrics);
        let (sender, status) = watch::channel(ChainStatus::starting());
        let shutdown = CancellationToken::new();
        let metrics = Metrics::new(&mut Registry::default());
        let journal = disk.journal.clone();
        let (config, stop) = (config.clone(), shutdown.clone());
        let work = async move {
            if ingests {
                let progress = watch::channel(Progress::default()).0;
                let (journal, pool, config) = (journal.clone(), pool.clone(), config.clone());
                let (metrics, stop) = (metrics.clone(), stop.clone());
                ingest(journal, pool, config, Until::Head, progress, metrics, stop).await?;
            }
            follow(journal, pool, config, sender, metrics, stop).await
        };
        let ended = CancellationToken::new();
        let ends = ended.clone().drop_guard();
        let task = tokio::spawn(async move {
            let _ends = ends;
            work.await
        });
        Working { task, shutdown, ended, status }
    }

    /// Ends the task, unless it has ended by itself.
    async fn stop(&mut self) -> Result<(), String> {
        self.shutdown.cancel();
        match tokio::time::timeout(PATIENCE, &mut self.task).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => acceptable(&shepherd_rpc::in_words(&error)),
            Ok(Err(panic)) => Err(format!("the follower panicked: {panic}")),
            Err(_) => Err("the follower does not shut down".to_owned()),
        }
    }
}

/// What an operator would answer by starting again: every endpoint said that it serves another
/// chain, or an ingest was told of a head before the first block that is wanted.
fn acceptable(reason: &str) -> Result<(), String> {
    match reason.contains("another chain") || reason.contains("the chain has not reached block") {
        true => Ok(()),
        false => Err(format!("the follower stopped: {reason}")),
    }
}
