//! What is counted about endpoints.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use crate::{Call, Failure};

/// Metrics of all pools. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    calls: Family<CallLabels, Counter>,
    latency: Family<EndpointLabels, Histogram>,
    answer_bytes: Family<EndpointLabels, Counter>,
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
        metrics
    }

    /// The view of one endpoint.
    pub(crate) fn of_endpoint(&self, chain: &str, endpoint: &str) -> EndpointMetrics {
        let labels = EndpointLabels { chain: chain.to_owned(), endpoint: endpoint.to_owned() };
        EndpointMetrics {
            calls: self.calls.clone(),
            latency: self.latency.get_or_create(&labels).clone(),
            answer_bytes: self.answer_bytes.get_or_create(&labels).clone(),
            labels,
        }
    }
}

/// What is counted about one endpoint.
pub(crate) struct EndpointMetrics {
    labels: EndpointLabels,
    calls: Family<CallLabels, Counter>,
    latency: Histogram,
    answer_bytes: Counter,
}

impl EndpointMetrics {
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
        Failure::RateLimited { .. } => Outcome::rate_limited,
        Failure::Status { .. } | Failure::Refused(_) => Outcome::status,
        Failure::TooLarge { .. } => Outcome::too_large,
        Failure::Malformed { .. } | Failure::WrongChain(_) | Failure::Distrusted { .. } => {
            Outcome::malformed
        }
    }
}
