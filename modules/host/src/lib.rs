//! Runs modules: sandbox, manifest, capabilities, limits, faults.
//!
//! ```text
//!   module.toml ──▶ Manifest ─┐
//!                             ├─▶ Module ──bind──▶ BoundModule     one per lane
//!   component ─────▶ Engine ──┘                        │
//!                                                      │ select: does this block concern it?
//!        input, StateView, Reads ───────────────────▶ handle ───▶ Handled: writes, effects, tape …
//!                                                      └────────▶ Failure: the module's or the world's
//! ```
//!
//! Nothing here reads a file, a socket or a clock on a module's behalf: a record, a view of the
//! state and something that answers reads go in, changes come out. Every call runs in a fresh
//! instance, so that a module is a function of what it is given and of nothing else.

mod bindings;
mod bound;
mod capability;
mod draws;
mod engine;
mod fault;
mod fetch;
mod imports;
mod imports_effects;
mod imports_reads;
mod input;
mod lent;
pub mod limits;
mod lines;
mod manifest;
mod module;
mod occasion;
mod order;
mod overlay;
mod reads;
mod sha256;
mod subscription;
mod tape;
mod webhook;

pub use bound::{BindError, BoundModule, Handled};
pub use capability::{Capability, UnknownCapability};
pub use engine::{Engine, EngineError, EngineOptions};
pub use fault::{BadRequest, Failure, Fault, OutputTooLarge, World};
pub use input::{At, BlockInput, Input, LogRef, OutcomeInput, OutcomeRef, RevertInput, Triggers};
pub use lines::{LogLevel, LogLine};
pub use manifest::{Limits, Manifest, ManifestError, OnChain, OverrideError, Overrides};
pub use module::{Inspection, LoadError, Module};
pub use overlay::{Entry, StateView};
pub use reads::{ReadAnswer, ReadRequest, Reads};
pub use sha256::{InvalidSha256, Sha256};
pub use subscription::{LogFilter, Subscription};
pub use tape::{TapeError, TapeReads, answers, encode_answers, request_digest};
