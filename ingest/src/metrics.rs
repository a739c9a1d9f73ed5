//! What is counted about chains.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Metrics of all chains. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    head: Family<ChainLabels, Gauge>,
    node_head: Family<ChainLabels, Gauge>,
    finalized: Family<ChainLabels, Gauge>,
    blocks: Family<ChainLabels, Counter>,
    logs: Family<ChainLabels, Counter>,
    reorgs: Family<ChainLabels, Counter>,
    reorg_depth: Family<ChainLabels, Histogram>,
    unverified: Family<ChainLabels, Counter>,
    fetch_failures: Family<ChainLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChainLabels {
    chain: String,
}

/// From the everyday reorg of one block to one that should wake someone, in blocks.
const DEPTH_BUCKETS: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

impl Metrics {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry) -> Metrics {
        let metrics = Metrics {
            reorg_depth: Family::new_with_constructor(|| Histogram::new(DEPTH_BUCKETS)),
            head: Family::default(),
            node_head: Family::default(),
            finalized: Family::default(),
            blocks: Family::default(),
            logs: Family::default(),
            reorgs: Family::default(),
            unverified: Family::default(),
            fetch_failures: Family::default(),
        };
        registry.register(
            "shepherd_chain_head_height",
            "Number of the newest block in the journal",
            metrics.head.clone(),
        );
        registry.register(
            "shepherd_chain_node_height",
            "Number of the newest block an endpoint told us of",
            metrics.node_head.clone(),
        );
        registry.register(
            "shepherd_chain_finalized_height",
            "Number of the newest block in the journal that is known to be final",
            metrics.finalized.clone(),
        );
        registry.register(
            "shepherd_chain_blocks_appended",
            "Blocks appended to the journal",
            metrics.blocks.clone(),
        );
        registry.register(
            "shepherd_chain_logs_appended",
            "Logs appended to the journal",
            metrics.logs.clone(),
        );
        registry.register("shepherd_chain_reorgs", "Reorgs journaled", metrics.reorgs.clone());
        registry.register(
            "shepherd_chain_reorg_depth_blocks",
            "Blocks abandoned by each reorg",
            metrics.reorg_depth.clone(),
        );
        registry.register(
            "shepherd_chain_verification_failures",
            "Answers that did not hold up and were not journaled",
            metrics.unverified.clone(),
        );
        registry.register(
            "shepherd_chain_fetch_failures",
            "Attempts that ended without data, for whatever reason",
            metrics.fetch_failures.clone(),
        );
        metrics
    }

    /// The view of one chain.
    pub(crate) fn of_chain(&self, chain: &str) -> ChainMetrics {
        let labels = ChainLabels { chain: chain.to_owned() };
        ChainMetrics {
            head: self.head.get_or_create_owned(&labels),
            node_head: self.node_head.get_or_create_owned(&labels),
            finalized: self.finalized.get_or_create_owned(&labels),
            blocks: self.blocks.get_or_create_owned(&labels),
            logs: self.logs.get_or_create_owned(&labels),
            reorgs: self.reorgs.get_or_create_owned(&labels),
            reorg_depth: self.reorg_depth.get_or_create_owned(&labels),
            unverified: self.unverified.get_or_create_owned(&labels),
            fetch_failures: self.fetch_failures.get_or_create_owned(&labels),
        }
    }
}

/// What is counted about one chain.
pub(crate) struct ChainMetrics {
    pub(crate) head: Gauge,
    pub(crate) node_head: Gauge,
    pub(crate) finalized: Gauge,
    pub(crate) blocks: Counter,
    pub(crate) logs: Counter,
    pub(crate) reorgs: Counter,
    pub(crate) reorg_depth: Histogram,
    pub(crate) unverified: Counter,
    pub(crate) fetch_failures: Counter,
}
