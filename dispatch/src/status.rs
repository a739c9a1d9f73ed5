//! What a lane is doing, for whoever looks.

use std::time::SystemTime;

use shepherd_log::{Cursor, LaneId, Offset, Tail};

/// A lane's state of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// The process has just started.
    Starting,
    /// Many records behind; steps cover as many as fit.
    CatchingUp,
    /// At the tail, or a few records from it.
    Running,
    /// Something outside gives no answer; the step is tried again.
    Waiting {
        /// What does not answer.
        reason: String,
    },
    /// The module fails at a record; the record is tried again.
    BackingOff {
        /// The record.
        offset: Offset,
        /// How the module fails.
        fault: String,
        /// How often it has failed there.
        failures: u32,
        /// When it is tried again.
        until: SystemTime,
    },
    /// The module fails at a record, and nobody tries again. The lane needs a person.
    Halted {
        /// The record.
        offset: Offset,
        /// How the module fails.
        fault: String,
    },
    /// The process is stopping.
    Stopped,
}

/// A lane as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneStatus {
    /// The lane.
    pub lane: LaneId,
    /// What it is doing.
    pub state: LaneState,
    /// Since when.
    pub since: SystemTime,
    /// Where it stands.
    pub cursor: Cursor,
    /// Where its journal ends.
    pub tail: Tail,
    /// How often its module has failed since the process started.
    pub faults: u64,
    /// sha256 of its module.
    pub module: [u8; 32],
}

impl LaneStatus {
    /// Records between the cursor and the tail.
    pub fn lag_records(&self) -> u64 {
        self.tail.offset.get().saturating_sub(self.cursor.next.get())
    }

    /// Blocks between the cursor's block and the chain's head.
    pub fn lag_blocks(&self) -> u64 {
        let head = self.tail.head.map_or(0, |head| head.number);
        match self.cursor.block {
            Some(block) => head.saturating_sub(block.number),
            None => self.lag_records(),
        }
    }
}
