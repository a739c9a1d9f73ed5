//! Follows a chain: endpoints in, verified and linked records out.
//!
//! ```text
//!   wake-up or poll ──▶ latest header ──▶ link ──┬─ Same ─────▶ nothing to do
//!                                                ├─ Extends ──▶ fetch logs, verify, append
//!                                                ├─ Ahead ────▶ fill the gap, several fetches at once
//!                                                └─ Diverges ─▶ walk back to the common ancestor,
//!                                                               append a revert and the new branch
//! ```
//!
//! Old blocks are fetched by ranges of heights, with the same checks: by the follower after an
//! outage or at its first start, and by [`ingest`], which is a follower with an end. [`plan`] says
//! beforehand what that will cost.
//!
//! The journal's head decides what is fetched next; what endpoints announce is only a reason to
//! look. Data that does not verify is asked for again and never journaled. One endpoint is asked
//! as long as it moves with the chain; whether it still does, how far the chain is final, and
//! whether a reorg is too deep to be true, the others are asked as well.

mod agreement;
mod check;
mod config;
mod fetch;
mod fetch_one;
mod fetch_ranges;
mod fetch_receipts;
mod fill;
mod finality;
mod follow;
mod fork;
mod headers;
mod history;
mod link;
mod metrics;
mod pending;
mod plan;
mod profile;
mod progress;
mod ranges;
mod receipts;
mod start;
mod status;
mod survey;
mod verify;
mod wire;

pub use agreement::{Disagreement, Statement};
pub use check::{ChainCheck, check_chain};
pub use config::{Checks, Config, Finality, InvalidTrust, LogIndexes, Start, Trust};
pub use fetch::{Asked, BadAnswer, FetchError};
pub use follow::{FollowError, ReorgLimit, follow};
pub use headers::{fetch_headers, verify_time};
pub use history::{Until, ingest};
pub use link::{Link, link};
pub use metrics::Metrics;
pub use plan::{Plan, PlanError, plan};
pub use profile::{Oddity, PROFILES, Profile, profile};
pub use progress::Progress;
pub use start::{Moment, NoSuchBlock};
pub use status::{ChainState, ChainStatus, Lagging};
pub use verify::{Mismatch, owned as verify_block, stored as verify_stored};
