//! Talks JSON-RPC to the endpoints of one chain, and plain HTTP to whoever else is asked.
//!
//! ```text
//!            ┌─ endpoint ── http ──▶ node
//!   Pool ────┼─ endpoint ── http ──▶ provider      the best answers, or the next when it is slow
//!            └─ endpoint ── ws ────▶ node          also says when to look for a new head
//! ```
//!
//! The order is by what speaks against an endpoint (it rests, lied, lags, is at its rate), then by
//! its configured priority, then by how it answered lately ([`EndpointStatus`] shows all of that).
//! An endpoint is asked for its chain id and its genesis each time it is connected to, rests
//! after a failure for longer and longer, and is named by scheme and host alone: the rest of
//! its URL is a secret.

mod allowance;
mod attempt;
mod capabilities;
mod distrust;
mod endpoint;
mod failure;
mod heads;
mod health;
mod hedge;
mod http;
mod identity;
mod metrics;
mod order;
mod pace;
mod pool;
mod read;
mod redacted;
mod spec;
mod status;
mod web;
mod wire;
mod ws;

pub use capabilities::{ArchiveDepth, Capabilities};
pub use distrust::Evidence;
pub use failure::{Failure, PoolError, in_words};
pub use heads::Heads;
pub use identity::{ChainMismatch, Sighting};
pub use metrics::Metrics;
pub use pace::{Backoff, Throttle};
pub use pool::{Batch, EndpointCheck, EndpointId, Options, Pool};
pub use read::{CALL_GAS, ChainAnswer, ChainRequest, Meaning, ReadFailed, classify};
pub use redacted::{InvalidEndpoint, Redacted};
pub use spec::{Budget, EndpointSpec};
pub use status::{BudgetStatus, EndpointState, EndpointStatus};
pub use web::{Web, WebAnswer, WebRequest};
pub use wire::{Answer, Call, RpcError};
