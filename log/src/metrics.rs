//! What the store tells Prometheus.

use std::time::Duration;

use prometheus_client::{
    metrics::{
        counter::Counter,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// Latency and size of durable commits.
#[derive(Clone, Debug)]
pub struct Metrics {
    latency: Histogram,
    merged: Counter,
    bytes: Counter,
}

impl Metrics {
    /// Registers the store's metrics.
    pub fn new(registry: &mut Registry) -> Metrics {
        let metrics = Metrics::unregistered();
        registry.register(
            "shepherd_commit_duration_seconds",
            "Time from taking waiting changes to their being durable",
            metrics.latency.clone(),
        );
        registry.register(
            "shepherd_commit_changesets",
            "Appends and steps made durable; several may share one commit",
            metrics.merged.clone(),
        );
        registry.register(
            "shepherd_commit_bytes",
            "Keys and values made durable, before compression",
            metrics.bytes.clone(),
        );
        metrics
    }

    /// Counts without anyone reading, for tools and tests.
    pub fn unregistered() -> Metrics {
        Metrics {
            // 50 µs is a fast local disk, 26 s is just below the limit at which we give up.
            latency: Histogram::new(exponential_buckets(50e-6, 2.0, 20)),
            merged: Counter::default(),
            bytes: Counter::default(),
        }
    }

    pub(crate) fn committed(&self, took: Duration, changesets: usize, bytes: usize) {
        self.latency.observe(took.as_secs_f64());
        self.merged.inc_by(changesets as u64);
        self.bytes.inc_by(bytes as u64);
    }
}
