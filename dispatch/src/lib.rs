//! Lanes: each feeds one module from its cursor, one exactly-once step at a time.
//!
//! ```text
//!                 ┌ lane token-ledger@sepolia    ─ advance ─ advance ─ wait for the tail ─ …
//!   Dispatcher ───┼ lane balance-tracker@sepolia ─ advance ─ wait for an endpoint ─ …
//!                 └ lane token-ledger@gnosis     ─ halted at record 17: the module trapped
//! ```
//!
//! Lanes never wait for each other. [`Runner::advance`] is the one way a lane moves, live or
//! replayed; the rest of this crate decides when to call it again.
//!
//! What a lane wants done outside its [`Sender`] carries out, and tells what came of it.

mod advance;
mod dispatcher;
mod metrics;
mod outbox;
mod reads;
mod rehearse;
mod status;
mod venue;
mod worker;

pub use advance::{Advanced, ModuleFailure, Reach, RevertFailure, Runner, Stop};
pub use dispatcher::{Config, DispatchError, Dispatcher, LaneSpec, LaneStatuses};
pub use metrics::Metrics;
pub use outbox::{Destination, Destinations, Kind, Limits, Sender, SenderConfig, SenderError};
pub use reads::LiveReads;
pub use rehearse::{Rehearsal, RehearsalDifference};
pub use status::{LaneState, LaneStatus};
pub use venue::Venue;
