//! What a replay remembers of each record its module was called for.

use crate::{
    codec::{BlockRow, TraceRow},
    lane::Applied,
    types::{BlockRef, Digest, Offset},
};

/// Why the module was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceKind {
    /// For a block, and maybe to be told what came of effects at it.
    Block,
    /// To be told what came of one of its effects.
    Outcome,
    /// To be told what a revert left standing.
    Revert,
}

impl TraceKind {
    /// A short word for tables.
    pub fn as_str(self) -> &'static str {
        match self {
            TraceKind::Block => "block",
            TraceKind::Outcome => "outcome",
            TraceKind::Revert => "revert",
        }
    }
}

/// What the handling of one record took and led to: all calls of the module for it together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The record.
    pub offset: Offset,
    /// The newest block that counted then.
    pub block: BlockRef,
    /// That block's own time, in seconds since 1970.
    pub timestamp: u64,
    /// Why the module was called.
    pub kind: TraceKind,
    /// Logs it was given.
    pub logs: u32,
    /// Read calls it made.
    pub reads: u32,
    /// Keys it set or removed.
    pub writes: u32,
    /// Effects it asked for.
    pub effects: u32,
    /// Outcomes it was told.
    pub outcomes: u32,
    /// Fuel it took.
    pub fuel: u64,
    /// How long it ran, reads included, in microseconds. Another run has another time.
    pub micros: u64,
    /// Digest of the keys it set or removed and their values, in order.
    pub wrote: Digest,
    /// Digest of what it read and was answered, in order.
    pub read: Digest,
    /// The lane digest after it.
    pub after: Digest,
}

impl From<&Trace> for TraceRow {
    fn from(trace: &Trace) -> TraceRow {
        TraceRow {
            block: BlockRow::from(trace.block),
            timestamp: trace.timestamp,
            kind: match trace.kind {
                TraceKind::Block => 0,
                TraceKind::Outcome => 1,
                TraceKind::Revert => 2,
            },
            logs: trace.logs,
            reads: trace.reads,
            writes: trace.writes,
            effects: trace.effects,
            outcomes: trace.outcomes,
            fuel: trace.fuel,
            micros: trace.micros,
            wrote: trace.wrote.0,
            read: trace.read.0,
            after: trace.after.0,
        }
    }
}

impl Trace {
    /// Of a record that nothing was done for yet.
    pub fn new(offset: Offset, block: BlockRef, timestamp: u64, kind: TraceKind) -> Trace {
        Trace {
            offset,
            block,
            timestamp,
            kind,
            logs: 0,
            reads: 0,
            writes: 0,
            effects: 0,
            outcomes: 0,
            fuel: 0,
            micros: 0,
            wrote: Digest::ZERO,
            read: Digest::ZERO,
            after: Digest::ZERO,
        }
    }

    /// Adds one call of the module: what it was given and told, and what it did.
    pub fn add(&mut self, applied: &Applied, logs: usize, outcomes: usize) {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        self.logs += count(logs);
        self.outcomes += count(outcomes);
        self.reads += count(applied.tape.len());
        self.writes += count(applied.writes.len());
        self.effects += count(applied.effects.len());
        self.fuel += applied.fuel;
        self.wrote = applied.digest(self.wrote);
        for entry in &applied.tape {
            let answer = Digest::of(&entry.answer);
            self.read = Digest::of(&[self.read.0, entry.request.0, answer.0].concat());
        }
    }

    pub(crate) fn from_row(offset: Offset, row: TraceRow) -> Trace {
        Trace {
            offset,
            block: row.block.into(),
            timestamp: row.timestamp,
            kind: match row.kind {
                0 => TraceKind::Block,
                1 => TraceKind::Outcome,
                _ => TraceKind::Revert,
            },
            logs: row.logs,
            reads: row.reads,
            writes: row.writes,
            effects: row.effects,
            outcomes: row.outcomes,
            fuel: row.fuel,
            micros: row.micros,
            wrote: Digest(row.wrote),
            read: Digest(row.read),
            after: Digest(row.after),
        }
    }
}
