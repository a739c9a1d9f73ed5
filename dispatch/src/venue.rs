//! Who says what comes of a backtest's effects.
//!
//! ```text
//! block 7 ─▶ module ─▶ effect ─▶ asked(7) … due(9) ─▶ outcome ─▶ module, right after block 9
//! ```
//!
//! Live, what comes of an effect is a record of the journal. In a backtest the module may ask for
//! what was never sent, so there is no such record, and a venue answers instead: with what really
//! happened to the same key, or by rules.

use shepherd_host::{At, Reads};
use shepherd_log::{BlockRef, Deliveries, Effect, EffectId, Offset, Outcome};

/// Settles the effects of a backtest, and answers its reads.
///
/// What it says must be a function of the history, its rules, and what it was asked, so that a
/// backtest that goes on after a kill says the same. It is brought back to where the lane stands
/// from the lane's own rows: `LaneSnapshot::effects` that `LaneSnapshot::outcomes` does not name.
pub trait Venue: Reads {
    /// The module has asked for these at the newest block.
    fn asked(&mut self, at: At, effects: &[(EffectId, Effect)]);

    /// What the module is told right after the block or the revert at `offset`, in this order. The
    /// head of each outcome is `at`, the newest block. Each is handed out once. What is asked for
    /// while they are told is told at a later record.
    fn due(&mut self, offset: Offset, at: At) -> Vec<Outcome>;

    /// The chain has gone back to `ancestor`: what was asked for above it and is not settled is
    /// cancelled. Says what the module is told, with the meaning that it has live.
    fn reverted(&mut self, ancestor: BlockRef) -> Deliveries;

    /// Whether something is still to be told. A lane that is called for logs alone looks at every
    /// block until it was.
    fn waits(&self) -> bool;

    /// The step is durable.
    fn committed(&mut self);

    /// The step was dropped: nothing since the last `committed` has happened.
    fn dropped(&mut self);
}
