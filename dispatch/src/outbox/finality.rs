//! How far a chain is final, for effects that wait for it.

use std::time::{Duration, Instant};

use alloy_primitives::U64;
use serde::Deserialize;
use serde_json::json;
use shepherd_log::{BlockRef, Tail};
use shepherd_rpc::{Call, Pool};

/// Shortest time between two questions. Finality moves once in minutes; some chains have four
/// heads a second.
const ASK_INTERVAL: Duration = Duration::from_secs(2);

/// What is known of a chain's finality.
pub(crate) struct Finality {
    pool: Pool,
    /// The journal takes no revert deeper than this.
    reorg_depth_max: u64,
    /// The greatest height an endpoint called final.
    told: Option<u64>,
    /// At which head an endpoint was asked last, and when.
    asked: Option<(Option<BlockRef>, Instant)>,
}

/// When to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Now.
    Now,
    /// Not before this.
    At(Instant),
    /// When the head has changed.
    AtNextHead,
}

impl Finality {
    pub fn new(pool: Pool, reorg_depth_max: u64) -> Finality {
        Finality { pool, reorg_depth_max, told: None, asked: None }
    }

    /// The height up to which blocks are final: what an endpoint has said, or else what is so deep
    /// that the journal would refuse to take it back.
    pub fn height(&self, tail: Tail) -> Option<u64> {
        let too_deep = tail.head.map(|_| tail.reorg_floor(self.reorg_depth_max));
        self.told.max(too_deep)
    }

    /// Whether an endpoint is to be asked, for something waits for it.
    pub fn ask(&self, head: Option<BlockRef>, now: Instant) -> Ask {
        match self.asked {
            Some((asked_at, _)) if asked_at == head => Ask::AtNextHead,
            Some((_, when)) if now < when + ASK_INTERVAL => Ask::At(when + ASK_INTERVAL),
            _ => Ask::Now,
        }
    }

    /// The question, for this head. Answers with the height, or `None` when no endpoint says it.
    pub fn question(
        &mut self,
        head: Option<BlockRef>,
        now: Instant,
    ) -> impl Future<Output = Option<u64>> + Send + use<> {
        self.asked = Some((head, now));
        let pool = self.pool.clone();
        async move {
            let params = json!(["finalized", false]);
            let calls = [Call { method: "eth_getBlockByNumber", params }];
            let batch = pool.batch(&calls).await.ok()?;
            let block: Option<NumberOnly> = batch.answers.first()?.as_ref().ok()?.parse().ok()?;
            block.map(|block| block.number.to())
        }
    }

    /// What an endpoint said. Heights that were final stay so.
    pub fn answered(&mut self, height: Option<u64>) {
        self.told = self.told.max(height);
    }
}

/// A block, as far as it is looked at.
#[derive(Deserialize)]
struct NumberOnly {
    number: U64,
}

#[cfg(test)]
mod tests {
    use alloy_primitives::B256;
    use shepherd_log::Offset;
    use shepherd_rpc::{Metrics, Options};

    use super::*;

    fn block(number: u64) -> BlockRef {
        BlockRef { number, hash: B256::with_last_byte(number as u8) }
    }

    fn finality() -> Finality {
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        let pool = Pool::connect("devnet", 1, Vec::new(), Options::default(), &metrics);
        Finality::new(pool, 64)
    }

    #[test]
    fn what_is_too_deep_to_be_taken_back_is_final_and_so_is_what_an_endpoint_says() {
        let tail = |highest: Option<u64>| Tail {
            offset: Offset::new(1),
            head: highest.map(block),
            highest,
        };
        let mut finality = finality();
        assert_eq!(finality.height(tail(None)), None);
        assert_eq!(finality.height(tail(Some(100))), Some(36));
        finality.answered(Some(50));
        assert_eq!(finality.height(tail(Some(100))), Some(50));
        finality.answered(None);
        finality.answered(Some(40));
        assert_eq!(finality.height(tail(Some(100))), Some(50), "final is final");
        assert_eq!(finality.height(tail(Some(120))), Some(56));
    }

    #[test]
    fn an_endpoint_is_asked_once_for_a_head_and_not_too_often() {
        let (mut finality, start) = (finality(), Instant::now());
        let (seven, eight) = (Some(block(7)), Some(block(8)));
        assert_eq!(finality.ask(seven, start), Ask::Now);
        drop(finality.question(seven, start));
        let later = start + ASK_INTERVAL;
        assert_eq!(finality.ask(seven, later), Ask::AtNextHead);
        assert_eq!(finality.ask(eight, start), Ask::At(later));
        assert_eq!(finality.ask(eight, later), Ask::Now);
    }
}
