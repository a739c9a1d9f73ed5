//! How asking can fail.
//!
//! None of these carries a library's error as its source: those print the URL they were given,
//! and with it the operator's key. They are put into words, scrubbed, where they occur.

use std::{error::Error, fmt, time::Duration};

use crate::{ChainMismatch, Redacted, RpcError};

/// An error's message followed by its causes, in one line.
///
/// Some libraries repeat the cause in their own message; a cause that is already there is left out.
pub fn in_words(error: &(dyn Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !words.contains(&said) {
            words = format!("{words}: {said}");
        }
        cause = error.source();
    }
    words
}

/// Why one endpoint gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection, or it broke.
    #[error("unreachable: {reason}")]
    Unreachable {
        /// What the connection said.
        reason: String,
    },
    /// Nothing came for too long.
    #[error("timed out: {reason}")]
    TimedOut {
        /// What was waited for.
        reason: String,
    },
    /// We ask too often.
    #[error("rate limited")]
    RateLimited {
        /// How long the endpoint wants to be left alone, if it said so.
        retry_after: Option<Duration>,
    },
    /// An HTTP status that is no answer.
    #[error("HTTP status {status}")]
    Status {
        /// The status.
        status: u16,
    },
    /// The answer is larger than we are willing to hold.
    #[error("answer larger than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The answer is not what JSON-RPC allows.
    #[error("malformed answer: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// The endpoint was asked as often as it may be.
    #[error("its budget of {calls} calls per {per:?} is spent")]
    BudgetSpent {
        /// Calls in a window.
        calls: u64,
        /// The length of a window.
        per: Duration,
    },
    /// The endpoint does not answer what it must.
    #[error("refused: {0}")]
    Refused(RpcError),
    /// The endpoint serves another chain.
    #[error(transparent)]
    WrongChain(ChainMismatch),
    /// What it answered did not hold up, says whoever asked.
    #[error("distrusted: {reason}")]
    Distrusted {
        /// The evidence.
        reason: String,
    },
}

impl Failure {
    /// The same, safe to show: what an endpoint says may repeat the URL it was asked under.
    pub(crate) fn scrubbed(self, url: &Redacted) -> Failure {
        match self {
            Failure::Unreachable { reason } => Failure::Unreachable { reason: url.scrub(&reason) },
            Failure::TimedOut { reason } => Failure::TimedOut { reason: url.scrub(&reason) },
            Failure::Malformed { reason } => Failure::Malformed { reason: url.scrub(&reason) },
            Failure::Distrusted { reason } => Failure::Distrusted { reason: url.scrub(&reason) },
            Failure::Refused(error) => {
                Failure::Refused(RpcError { message: url.scrub(&error.message), ..error })
            }
            Failure::RateLimited { .. }
            | Failure::Status { .. }
            | Failure::TooLarge { .. }
            | Failure::BudgetSpent { .. }
            | Failure::WrongChain(_) => self,
        }
    }

    /// Whether the endpoint is to be left alone for a while. Not when it was the question's
    /// fault, or ours.
    pub(crate) fn asks_for_rest(&self) -> bool {
        !matches!(self, Failure::TooLarge { .. } | Failure::BudgetSpent { .. })
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Failure {
        Failure::Malformed { reason: error.to_string() }
    }
}

/// Why no endpoint of a pool gave an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Each endpoint failed, or rests after a failure.
    #[error("no endpoint answers: {}", Failures(failures))]
    NoAnswer {
        /// Each endpoint, redacted, and its last failure.
        failures: Vec<(String, Failure)>,
        /// When the first of them is worth another attempt.
        retry_in: Duration,
    },
    /// Every endpoint serves another chain, so waiting does not help.
    #[error("{endpoint}: {source}")]
    WrongChain {
        /// One of them, redacted.
        endpoint: String,
        /// How it differs.
        source: ChainMismatch,
    },
}

struct Failures<'a>(&'a [(String, Failure)]);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (endpoint, failure)) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            write!(f, "{separator}{endpoint}: {failure}")?;
        }
        Ok(())
    }
}
