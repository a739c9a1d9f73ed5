//! What `/metrics` says about positions: where each chain and each lane is.
//!
//! These are read off the store when somebody scrapes, so they cannot go stale. What happens in
//! between (requests, steps, faults, commits) is counted by the crate where it happens.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge, info::Info},
    registry::Registry,
};

use crate::view::{ChainView, CursorView};

/// Labels of a chain.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ChainLabels {
    chain: String,
}

/// Labels of a chain in one of its states.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ChainStateLabels {
    chain: String,
    state: String,
}

/// Labels of a lane.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct LaneLabels {
    module: String,
    chain: String,
}

/// Labels of a lane in one of its states.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct LaneStateLabels {
    module: String,
    chain: String,
    state: String,
}

/// Gauges that are set at each scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    start: Family<ChainLabels, Gauge<u64, AtomicU64>>,
    tail: Family<ChainLabels, Gauge<u64, AtomicU64>>,
    head_timestamp: Family<ChainLabels, Gauge<u64, AtomicU64>>,
    chain_state: Family<ChainStateLabels, Gauge>,
    lag_records: Family<LaneLabels, Gauge<u64, AtomicU64>>,
    lag_blocks: Family<LaneLabels, Gauge<u64, AtomicU64>>,
    lane_state: Family<LaneStateLabels, Gauge>,
}

impl Metrics {
    /// Registers the gauges.
    pub fn new(registry: &mut Registry) -> Metrics {
        let metrics = Metrics::default();
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("shepherd_build", "The program that runs", version);
        let mut chain =
            |name: &str, help: &str, gauge: &Family<ChainLabels, Gauge<u64, AtomicU64>>| {
                registry.register(name, help, gauge.clone());
            };
        chain(
            "shepherd_chain_journal_start_records",
            "The first offset that retention has left in the chain's journal",
            &metrics.start,
        );
        chain(
            "shepherd_chain_journal_tail_records",
            "The first offset not yet written to the chain's journal",
            &metrics.tail,
        );
        chain(
            "shepherd_chain_head_timestamp_seconds",
            "Time of the newest block in the chain's journal, in seconds since 1970",
            &metrics.head_timestamp,
        );
        registry.register(
            "shepherd_chain_state",
            "1 for the state that the chain's follower is in",
            metrics.chain_state.clone(),
        );
        registry.register(
            "shepherd_lane_lag_records",
            "Records between the lane's cursor and the end of its journal",
            metrics.lag_records.clone(),
        );
        registry.register(
            "shepherd_lane_lag_blocks",
            "Blocks between the lane's cursor and the head of its journal",
            metrics.lag_blocks.clone(),
        );
        registry.register(
            "shepherd_lane_state",
            "1 for the state that the lane is in",
            metrics.lane_state.clone(),
        );
        metrics
    }

    /// Sets every gauge to what the views say.
    pub(crate) fn set(&self, chains: &[ChainView], cursors: &[CursorView]) {
        self.chain_state.clear();
        self.lane_state.clear();
        for chain in chains {
            let labels = ChainLabels { chain: chain.name.clone() };
            self.start.get_or_create(&labels).set(chain.start.0);
            self.tail.get_or_create(&labels).set(chain.tail.0);
            if let Some(head) = &chain.head {
                self.head_timestamp.get_or_create(&labels).set(head.timestamp);
            }
            let state = chain.state.name.clone();
            let labels = ChainStateLabels { chain: chain.name.clone(), state };
            self.chain_state.get_or_create(&labels).set(1);
        }
        for cursor in cursors {
            let (module, chain) = (cursor.module.clone(), cursor.chain.clone());
            let labels = LaneLabels { module: module.clone(), chain: chain.clone() };
            self.lag_records.get_or_create(&labels).set(cursor.lag_records);
            self.lag_blocks.get_or_create(&labels).set(cursor.lag_blocks);
            let state = cursor.state.name.clone();
            let labels = LaneStateLabels { module, chain, state };
            self.lane_state.get_or_create(&labels).set(1);
        }
    }
}
