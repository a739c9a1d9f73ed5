//! The daemon on a real node, with everything that happens to daemons and nodes.
//!
//! Each test ends the same way: what the tested daemon left on disk must equal what a daemon
//! that was never disturbed makes of the same chain, and what the chain itself says.

#[path = "../common/mod.rs"]
mod common;

mod effects;
mod kills;
mod outages;
mod reorgs;
mod truth;
