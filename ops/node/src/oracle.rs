//! The chain that all endpoints of a test serve, each in its own way.

use std::{
    sync::{Arc, RwLock, RwLockReadGuard},
    time::Duration,
};

use alloy_primitives::B256;
use tokio::sync::{broadcast, watch};

use crate::{Block, Chain};

/// The chain that all endpoints of a test serve. Clones share it.
///
/// It moves when it is told to, never by itself unless [`Oracle::advance`] runs.
#[derive(Clone, Debug)]
pub struct Oracle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    chain: RwLock<Chain>,
    /// Blocks that have become canonical, as they are announced.
    heads: broadcast::Sender<Arc<[B256]>>,
    /// Messages that came to all endpoints.
    served: watch::Sender<u64>,
}

/// Announcements that a slow subscriber may be behind. It then misses some, as it would anywhere.
const ANNOUNCEMENTS_MAX: usize = 256;

impl Oracle {
    /// The truth is this chain.
    pub fn new(chain: Chain) -> Oracle {
        let heads = broadcast::channel(ANNOUNCEMENTS_MAX).0;
        let served = watch::channel(0).0;
        Oracle { inner: Arc::new(Inner { chain: RwLock::new(chain), heads, served }) }
    }

    /// The chain as it is. It cannot move while the result lives.
    pub fn chain(&self) -> RwLockReadGuard<'_, Chain> {
        self.inner.chain.read().expect("nothing panics while it moves the chain")
    }

    /// The newest canonical block.
    pub fn head(&self) -> Block {
        self.chain().head().clone()
    }

    /// Appends blocks.
    pub fn extend(&self, blocks: u64) {
        self.moved(|chain| chain.extend(blocks), blocks);
    }

    /// Abandons the newest `depth` blocks and appends `blocks` others, one at least.
    pub fn reorg(&self, depth: u64, blocks: u64) {
        let blocks = blocks.max(1);
        self.moved(|chain| chain.reorg(depth, blocks), blocks);
    }

    /// Moves the chain for ever: a block every so often, and about every `reorg_every` blocks (zero
    /// is never) the last two are replaced first.
    pub async fn advance(&self, every: Duration, reorg_every: u64) {
        let mut ticks = tokio::time::interval(every);
        loop {
            ticks.tick().await;
            let produced = self.chain().produced() as u64;
            match reorg_every {
                1.. if produced.is_multiple_of(reorg_every) => self.reorg(2, 3),
                _ => self.extend(1),
            }
        }
    }

    /// Waits until all endpoints together have been sent so many more messages.
    pub async fn served(&self, messages: u64) {
        let mut served = self.inner.served.subscribe();
        let until = *served.borrow() + messages;
        // The sender lives as long as we do.
        let _ = served.wait_for(|served| *served >= until).await;
    }

    pub(crate) fn sibling(&self) -> Block {
        self.inner.chain.write().expect("nothing panics while it moves the chain").sibling()
    }

    pub(crate) fn note_message(&self) {
        self.inner.served.send_modify(|served| *served += 1);
    }

    pub(crate) fn announcements(&self) -> broadcast::Receiver<Arc<[B256]>> {
        self.inner.heads.subscribe()
    }

    fn moved(&self, change: impl FnOnce(&mut Chain), blocks: u64) {
        let mut chain = self.inner.chain.write().expect("nothing panics while it moves the chain");
        change(&mut chain);
        let head = chain.head().number;
        let new: Arc<[B256]> = (head + 1 - blocks.min(head + 1)..=head)
            .filter_map(|number| Some(chain.canonical(number)?.hash))
            .collect();
        drop(chain);
        // Nobody listening is no error.
        let _ = self.inner.heads.send(new);
    }
}
