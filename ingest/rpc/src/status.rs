//! What is shown of an endpoint.

use std::time::{Duration, SystemTime};

use crate::{Capabilities, ChainMismatch, Evidence, Failure};

/// How an endpoint is doing.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointStatus {
    /// The endpoint, redacted.
    pub endpoint: String,
    /// As configured: lower is asked first.
    pub priority: u8,
    /// Whether it is used.
    pub state: EndpointState,
    /// From 1, answers at once and always, to 0. `None` when too little is known of late. Of
    /// endpoints of one priority the clearly healthier is asked first.
    pub health: Option<f64>,
    /// The average time of the latest answers.
    pub latency: Option<Duration>,
    /// When it failed last, and how.
    pub last_failure: Option<(SystemTime, Failure)>,
    /// Failures since it last answered.
    pub failures_in_a_row: u32,
    /// What last spoke against it, if anything did since the process started.
    pub evidence: Option<Evidence>,
    /// How many blocks its head is behind the others', as was last reported; 0 when it is not.
    pub behind_blocks: u64,
    /// Calls sent since the process started.
    pub calls: u64,
    /// Questions it is being asked, each of one call or many.
    pub in_flight: usize,
    /// What is left of its budget, if it has one.
    pub budget: Option<BudgetStatus>,
    /// What it is able to do, once that was asked.
    pub capabilities: Option<Capabilities>,
}

/// What is left of a [`Budget`](crate::Budget).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetStatus {
    /// Calls in a window.
    pub calls: u64,
    /// Calls left in this one.
    pub calls_left: u64,
    /// When the next begins: a whole window from now when none has begun.
    pub rolls_in: Duration,
}

/// Whether an endpoint is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// The next use will ask it which chain it serves.
    Unknown,
    /// It serves our chain and answers.
    Ready,
    /// It is left alone after a failure.
    Resting {
        /// For how much longer.
        remaining: Duration,
    },
    /// It was asked as often as its budget allows.
    OverBudget {
        /// For how much longer.
        remaining: Duration,
    },
    /// It answers, but what it said did not hold up: the others are asked first.
    Distrusted {
        /// For how much longer.
        remaining: Duration,
    },
    /// It answers, but its head is behind the others': they are asked first.
    Lagging {
        /// For how much longer, unless it is reported again.
        remaining: Duration,
    },
    /// It serves another chain; it is asked again from time to time.
    WrongChain(ChainMismatch),
}

impl EndpointState {
    /// The state in one word, as metrics and status pages show it.
    pub fn name(&self) -> &'static str {
        match self {
            EndpointState::Unknown => "unknown",
            EndpointState::Ready => "ready",
            EndpointState::Resting { .. } => "resting",
            EndpointState::OverBudget { .. } => "over-budget",
            EndpointState::Distrusted { .. } => "distrusted",
            EndpointState::Lagging { .. } => "lagging",
            EndpointState::WrongChain(_) => "wrong-chain",
        }
    }
}
