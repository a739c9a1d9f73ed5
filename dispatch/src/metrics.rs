//! What the lanes tell Prometheus.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use shepherd_log::LaneId;

use crate::{advance::Advanced, outbox::Kind};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LaneLabels {
    module: String,
    chain: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FaultLabels {
    module: String,
    chain: String,
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AttemptLabels {
    module: String,
    chain: String,
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabels {
    module: String,
    chain: String,
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DestinationLabels {
    kind: &'static str,
    name: String,
}

impl From<&LaneId> for LaneLabels {
    fn from(lane: &LaneId) -> LaneLabels {
        LaneLabels { module: lane.module.to_string(), chain: lane.chain.to_string() }
    }
}

/// Counters of all lanes, labelled by module and chain.
#[derive(Clone, Debug)]
pub struct Metrics {
    steps: Family<LaneLabels, Counter>,
    records: Family<LaneLabels, Counter>,
    handled: Family<LaneLabels, Counter>,
    logs: Family<LaneLabels, Counter>,
    reverts: Family<LaneLabels, Counter>,
    fuel: Family<LaneLabels, Counter>,
    duration: Family<LaneLabels, Histogram>,
    faults: Family<FaultLabels, Counter>,
    waits: Family<LaneLabels, Counter>,
    attempts: Family<AttemptLabels, Counter>,
    results: Family<ResultLabels, Counter>,
    unsettled: Family<LaneLabels, Gauge>,
    oldest: Family<LaneLabels, Gauge>,
    down: Family<DestinationLabels, Gauge>,
}

impl Metrics {
    /// Registers the lanes' metrics.
    pub fn new(registry: &mut Registry) -> Metrics {
        let metrics = Metrics::unregistered();
        let Metrics {
            steps, records, handled, logs, reverts, fuel, duration, faults, waits, ..
        } = metrics.clone();
        let Metrics { attempts, results, unsettled, oldest, down, .. } = metrics.clone();
        registry.register("shepherd_steps", "Steps committed", steps);
        registry.register("shepherd_step_records", "Records passed by committed steps", records);
        registry.register("shepherd_step_handled", "Records a module was called for", handled);
        registry.register("shepherd_step_logs", "Logs a module was given", logs);
        registry.register("shepherd_step_reverts", "Reverts carried out", reverts);
        registry.register("shepherd_step_fuel", "Fuel modules took", fuel);
        registry.register(
            "shepherd_step_duration_seconds",
            "Time from the beginning of a step to its being durable",
            duration,
        );
        registry.register("shepherd_module_faults", "Failures of modules, by kind", faults);
        registry.register(
            "shepherd_step_waits",
            "Steps given up because something outside gave no answer",
            waits,
        );
        registry.register(
            "shepherd_effect_attempts",
            "Effects sent, each attempt counted",
            attempts,
        );
        registry.register(
            "shepherd_effect_results",
            "Effects settled, by what came of them",
            results,
        );
        registry.register(
            "shepherd_outbox_effects",
            "Effects that nothing has come of yet",
            unsettled,
        );
        registry.register(
            "shepherd_outbox_oldest_timestamp_seconds",
            "Time of the block that asked for the oldest effect in the outbox; absent without one",
            oldest,
        );
        registry.register(
            "shepherd_destination_down",
            "1 while a destination does not answer and rests",
            down,
        );
        metrics
    }

    /// Counts without anyone reading, for tools and tests.
    pub fn unregistered() -> Metrics {
        Metrics {
            steps: Family::default(),
            records: Family::default(),
            handled: Family::default(),
            logs: Family::default(),
            reverts: Family::default(),
            fuel: Family::default(),
            // From a quarter of a millisecond, a small step on a fast disk, to two minutes.
            duration: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_25, 2.0, 20))
            }),
            faults: Family::default(),
            waits: Family::default(),
            attempts: Family::default(),
            results: Family::default(),
            unsettled: Family::default(),
            oldest: Family::default(),
            down: Family::default(),
        }
    }

    pub(crate) fn advanced(&self, lane: &LaneId, advanced: &Advanced, took: Duration) {
        let labels = LaneLabels::from(lane);
        self.steps.get_or_create(&labels).inc();
        self.records.get_or_create(&labels).inc_by(advanced.records);
        self.handled.get_or_create(&labels).inc_by(advanced.handled);
        self.logs.get_or_create(&labels).inc_by(advanced.logs);
        self.reverts.get_or_create(&labels).inc_by(advanced.reverts);
        self.fuel.get_or_create(&labels).inc_by(advanced.fuel);
        self.duration.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn faulted(&self, lane: &LaneId, kind: &'static str) {
        let LaneLabels { module, chain } = lane.into();
        self.faults.get_or_create(&FaultLabels { module, chain, kind }).inc();
    }

    pub(crate) fn waited(&self, lane: &LaneId) {
        self.waits.get_or_create(&lane.into()).inc();
    }

    /// An effect is sent once.
    pub(crate) fn attempted(&self, lane: &LaneId, kind: Kind) {
        let LaneLabels { module, chain } = lane.into();
        let labels = AttemptLabels { module, chain, kind: kind.as_str() };
        self.attempts.get_or_create(&labels).inc();
    }

    /// Something came of an effect.
    pub(crate) fn settled(&self, lane: &LaneId, kind: Kind, result: &'static str) {
        let LaneLabels { module, chain } = lane.into();
        let labels = ResultLabels { module, chain, kind: kind.as_str(), result };
        self.results.get_or_create(&labels).inc();
    }

    /// How full a lane's outbox is, and since when, in seconds since 1970.
    pub(crate) fn outbox(&self, lane: &LaneId, effects: usize, oldest: Option<u64>) {
        let labels = LaneLabels::from(lane);
        self.unsettled.get_or_create(&labels).set(effects as i64);
        match oldest {
            Some(seconds) => drop(self.oldest.get_or_create(&labels).set(seconds as i64)),
            None => drop(self.oldest.remove(&labels)),
        }
    }

    /// Whether a destination rests because it does not answer.
    pub(crate) fn destination_is_down(&self, kind: Kind, name: &str, is_down: bool) {
        let labels = DestinationLabels { kind: kind.as_str(), name: name.to_owned() };
        self.down.get_or_create(&labels).set(is_down.into());
    }
}
