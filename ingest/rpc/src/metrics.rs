//! What is counted about endpoints.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, Weak, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeLabelValue, EncodeMetric,
    },
    metrics::{
        MetricType, counter::Counter, family::Family, gauge::ConstGauge, histogram::Histogram,
    },
    registry::Registry,
};

use crate::{Call, EndpointStatus, Failure, endpoint::Endpoint};

/// Metrics of all pools. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    calls: Family<CallLabels, Counter>,
    latency: Family<EndpointLabels, Histogram>,
    answer_bytes: Family<EndpointLabels, Counter>,
    hedges: Family<HedgeLabels, Counter>,
    waited: Family<EndpointLabels, Counter<f64, AtomicU64>>,
    watched: Arc<Watched>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    chain: String,
    endpoint: String,
    method: &'static str,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    chain: String,
    endpoint: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HedgeLabels {
    chain: String,
    endpoint: String,
    outcome: HedgeOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    chain: String,
    endpoint: String,
    state: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the variants are the words of the label")]
enum HedgeOutcome {
    won,
    lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the variants are the words of the label")]
enum Outcome {
    answered,
    unreachable,
    timed_out,
    rate_limited,
    status,
    too_large,
    malformed,
}

/// From a node on the same machine to a provider that is about to time out, in seconds.
const LATENCY_BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

impl Metrics {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry) -> Metrics {
        let metrics = Metrics {
            calls: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS)),
            answer_bytes: Family::default(),
            hedges: Family::default(),
            waited: Family::default(),
            watched: Arc::default(),
        };
        registry.register(
            "shepherd_endpoint_calls",
            "JSON-RPC calls sent, by what became of them",
            metrics.calls.clone(),
        );
        registry.register(
            "shepherd_endpoint_latency_seconds",
            "Time from sending a message, with one call or many, to the end of its answer",
            metrics.latency.clone(),
        );
        registry.register(
            "shepherd_endpoint_answer_bytes",
            "Size of the answers received, as JSON",
            metrics.answer_bytes.clone(),
        );
        registry.register(
            "shepherd_endpoint_hedges",
            "Questions put to this endpoint because another was slow, by whether it was quicker",
            metrics.hedges.clone(),
        );
        registry.register(
            "shepherd_endpoint_rate_limit_wait_seconds",
            "Time that messages waited for the rate configured for this endpoint",
            metrics.waited.clone(),
        );
        registry.register_collector(Box::new(metrics.watched.clone()));
        metrics
    }

    /// The view of one endpoint.
    pub(crate) fn of_endpoint(&self, chain: &str, endpoint: &str) -> EndpointMetrics {
        let labels = EndpointLabels { chain: chain.to_owned(), endpoint: endpoint.to_owned() };
        EndpointMetrics {
            calls: self.calls.clone(),
            latency: self.latency.get_or_create(&labels).clone(),
            answer_bytes: self.answer_bytes.get_or_create(&labels).clone(),
            hedges: self.hedges.clone(),
            waited: self.waited.get_or_create(&labels).clone(),
            labels,
        }
    }

    /// Shows the condition of an endpoint for as long as it lives.
    pub(crate) fn watch(&self, chain: &str, endpoint: &Arc<Endpoint>) {
        let labels = EndpointLabels { chain: chain.to_owned(), endpoint: endpoint.name.clone() };
        let mut endpoints = self.watched.endpoints();
        endpoints.retain(|(_, endpoint)| endpoint.strong_count() > 0);
        endpoints.push((labels, Arc::downgrade(endpoint)));
    }
}

/// The endpoints whose condition is shown, as it is when somebody looks.
#[derive(Default)]
struct Watched {
    endpoints: Mutex<Vec<(EndpointLabels, Weak<Endpoint>)>>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watched({} endpoints)", self.endpoints().len())
    }
}

impl Watched {
    fn endpoints(&self) -> MutexGuard<'_, Vec<(EndpointLabels, Weak<Endpoint>)>> {
        self.endpoints.lock().expect("nothing panics while it holds the endpoints")
    }
}

impl Collector for Watched {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let watched: Vec<(EndpointLabels, EndpointStatus)> = self
            .endpoints()
            .iter()
            .filter_map(|(labels, endpoint)| Some((labels.clone(), endpoint.upgrade()?.status())))
            .collect();
        let each = |value: fn(&EndpointStatus) -> Option<f64>| {
            watched.iter().filter_map(move |(labels, status)| Some((labels, value(status)?)))
        };
        gauge(
            &mut encoder,
            "shepherd_endpoint_in_flight",
            "Questions an endpoint is being asked",
            each(|status| Some(status.in_flight as f64)),
        )?;
        gauge(
            &mut encoder,
            "shepherd_endpoint_health",
            "From 1, answers at once and always, to 0; absent while too little is known",
            each(|status| status.health),
        )?;
        gauge(
            &mut encoder,
            "shepherd_endpoint_budget_left",
            "Calls that an endpoint may still be asked in this window of its budget",
            each(|status| Some(status.budget?.calls_left as f64)),
        )?;
        gauge(
            &mut encoder,
            "shepherd_endpoint_behind_blocks",
            "How far the head of an endpoint was behind the others' when it was said to lag",
            each(|status| Some(status.behind_blocks as f64)),
        )?;
        let states: Vec<(StateLabels, u64)> = watched
            .iter()
            .map(|(EndpointLabels { chain, endpoint }, status)| StateLabels {
                chain: chain.clone(),
                endpoint: endpoint.clone(),
                state: status.state.name(),
            })
            .map(|labels| (labels, 1))
            .collect();
        gauge(
            &mut encoder,
            "shepherd_endpoint_state",
            "1 for the state that an endpoint is in",
            states.iter().map(|(labels, value)| (labels, *value)),
        )
    }
}

fn gauge<'l, L: EncodeLabelSet + 'l, V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (&'l L, V)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(family.encode_family(labels)?)?;
    }
    Ok(())
}

/// A question put to an endpoint because another one was slow.
pub(crate) struct Hedge<'m> {
    metrics: &'m EndpointMetrics,
    won: bool,
}

impl Hedge<'_> {
    /// It was answered first.
    pub(crate) fn won(mut self) {
        self.won = true;
    }
}

impl Drop for Hedge<'_> {
    fn drop(&mut self) {
        let EndpointLabels { chain, endpoint } = self.metrics.labels.clone();
        let outcome = match self.won {
            true => HedgeOutcome::won,
            false => HedgeOutcome::lost,
        };
        let labels = HedgeLabels { chain, endpoint, outcome };
        self.metrics.hedges.get_or_create(&labels).inc();
    }
}

/// What is counted about one endpoint.
pub(crate) struct EndpointMetrics {
    labels: EndpointLabels,
    calls: Family<CallLabels, Counter>,
    latency: Histogram,
    answer_bytes: Counter,
    hedges: Family<HedgeLabels, Counter>,
    waited: Counter<f64, AtomicU64>,
}

impl EndpointMetrics {
    /// A question is put to the endpoint because another one is slow. It counts as lost unless it
    /// is said to have won before the result is dropped.
    pub(crate) fn hedge(&self) -> Hedge<'_> {
        Hedge { metrics: self, won: false }
    }

    /// A message waits this long for the endpoint's rate.
    pub(crate) fn waits(&self, wait: Duration) {
        self.waited.inc_by(wait.as_secs_f64());
    }

    /// One message went out and was answered, with this many bytes, or was not.
    pub(crate) fn observe(
        &self,
        calls: &[&Call],
        took: Duration,
        answer_bytes: Result<u64, &Failure>,
    ) {
        let outcome = match answer_bytes {
            Ok(_) => Outcome::answered,
            Err(failure) => outcome(failure),
        };
        for call in calls {
            let labels = CallLabels {
                chain: self.labels.chain.clone(),
                endpoint: self.labels.endpoint.clone(),
                method: call.method,
                outcome,
            };
            self.calls.get_or_create(&labels).inc();
        }
        self.latency.observe(took.as_secs_f64());
        self.answer_bytes.inc_by(answer_bytes.unwrap_or(0));
    }
}

fn outcome(failure: &Failure) -> Outcome {
    match failure {
        Failure::Unreachable { .. } => Outcome::unreachable,
        Failure::TimedOut { .. } => Outcome::timed_out,
        Failure::RateLimited { .. } | Failure::BudgetSpent { .. } => Outcome::rate_limited,
        Failure::Status { .. } | Failure::Refused(_) => Outcome::status,
        Failure::TooLarge { .. } => Outcome::too_large,
        Failure::Malformed { .. } | Failure::WrongChain(_) | Failure::Distrusted { .. } => {
            Outcome::malformed
        }
    }
}
