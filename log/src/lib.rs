//! The vocabulary and the durable truth.
//!
//! ```text
//!   ingest ──append──▶ Journal [blk][blk][rev][blk] ◀──read── Lane ──Step::commit──▶ state, cursor
//! ```
//!
//! This crate alone knows the storage engine and the bytes on disk. It has never heard of RPC,
//! WebAssembly or HTTP.

// The tests' own tools name this crate as it is named from outside.
#[cfg(test)]
extern crate self as shepherd_log;

mod absence;
mod cache;
mod changes;
mod checks;
mod codec;
mod deliveries;
mod effect;
mod find;
mod generation;
mod highwater;
mod index;
mod journal;
mod lane;
mod lane_snapshot;
mod lanes;
mod metrics;
mod outbox;
mod reorgs;
mod retention;
mod stat;
mod state_sum;
mod store;
mod trace;
mod trees;
mod types;
mod verify;
mod writer;

pub use checks::Finding;
pub use codec::{BlockView, DecodeError, LogView, Logs, RECORD_BYTES_MAX, RecordView};
pub use deliveries::Deliveries;
pub use effect::{
    Deliver, Effect, EffectId, EffectKey, EffectResult, ORDER_UID_BYTES, Outcome, Refusal,
};
pub use find::{Candidates, Concerning, Found, LogFilter, Others, Touched};
pub use generation::SwitchError;
pub use highwater::HighwaterError;
pub use journal::{
    AppendError, GenesisError, Journal, LinkProblem, ReadError, Records, StoredRecord, Tail,
};
pub use lane::{
    Applied, ApplyError, Commit, Cursor, EFFECTS_MAX, Lane, ROW_OVERHEAD_BYTES, RevertError,
    STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX, Step, TAPE_BYTES_MAX, TapeEntry, WRITES_BYTES_MAX,
    Writes, row_bytes,
};
pub use lane_snapshot::{Entry, LaneSnapshot};
pub use lanes::LaneVersion;
pub use metrics::Metrics;
pub use outbox::{Outbox, OutboxEntry, OutboxState, Settled};
pub use reorgs::ReorgSummary;
pub use retention::{ALARM_SHARE, Blocked, Blocker, Outlook, Retained, Retention, RetentionHold};
pub use stat::{SegmentStat, Stat, TimedBlock};
pub use state_sum::StateSum;
pub use store::{FORMAT, JournalError, LaneError, OpenError, Options, StorageError, Store};
pub use trace::{Trace, TraceKind};
pub use types::{
    Block, BlockRef, ChainName, Digest, Header, InvalidLaneId, InvalidName, LaneId, Log,
    ModuleName, NAME_BYTES_MAX, Offset, Record, Revert,
};
pub use verify::{Problem, Verification};
pub use writer::SizeError;
