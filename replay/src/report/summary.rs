//! The figures of a run: `summary.json`.
//!
//! This is read by programs. Fields are added, and [`SUMMARY_FORMAT`] is raised when one changes
//! its meaning or goes. Blocks, offsets, fuel and counts are numbers; amounts, hashes and digests
//! are text; times are seconds since 1970.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use shepherd_log::{Deliver, EffectResult, Trace};

use super::data::{Asked, Handled, refusal_name};
use crate::profile::{Profile, Spread};

/// Raised when a field of `summary.json` changes its meaning or goes.
pub const SUMMARY_FORMAT: u32 = 1;

/// What a backtest came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Version of these fields.
    pub format: u32,
    /// What was run, with what.
    pub run: RunFacts,
    /// Over which stretch of the journal.
    pub window: WindowFacts,
    /// What the module was given and did, over all calls of the window. Work for blocks that a
    /// reorg took back counts: it was done.
    pub calls: Calls,
    /// The same for each kind of record: `block`, `outcome`, `revert`.
    pub calls_by_kind: BTreeMap<String, Calls>,
    /// What it asked for.
    pub effects: Effects,
    /// Refusals by reason, most frequent first.
    pub refusals: Vec<Reason>,
    /// Blocks from the one that asked for an effect to the one at which the receiver had it.
    pub latency_blocks: Spread,
    /// The same, from the first block after which the effect might leave. Effects that wait for
    /// finality do not count.
    pub overdue_blocks: Spread,
    /// Fuel, time, and the blocks that took most.
    pub profile: Profile,
    /// What the module left in its state.
    pub state: StateFacts,
    /// Files beside this one.
    pub files: BTreeMap<String, FileFacts>,
}

/// What was run, with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFacts {
    /// Version of Shepherd.
    pub shepherd: String,
    /// The module's name.
    pub module: String,
    /// sha256 of its component, in hex.
    pub sha256: String,
    /// The chain's name.
    pub chain: String,
    /// Its id.
    pub chain_id: u64,
    /// The configuration the module was given.
    pub config: serde_json::Value,
    /// Where reads were answered from, and how many by each.
    pub reads: BTreeMap<String, u64>,
    /// What decided over effects that never really happened.
    pub rules: String,
    /// Anything else that was asked for on the command line, such as a changed history.
    pub options: BTreeMap<String, String>,
    /// Most fuel one call may take.
    pub fuel_limit: u64,
    /// Whether the run reached the window's end. Figures of one that did not are of what it did.
    pub finished: bool,
}

/// Which stretch of the journal the figures are about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowFacts {
    /// The first record that was handled at all, in the warm-up.
    pub warm_up_from: u64,
    /// The first record that counts.
    pub start: u64,
    /// The first record that does not any more: where the run stands.
    pub end: u64,
    /// The first block of the window; `None` when there is none.
    pub first_block: Option<u64>,
    /// Its time.
    pub first_time: Option<u64>,
    /// The newest block that counts at the end.
    pub last_block: Option<u64>,
    /// Its time.
    pub last_time: Option<u64>,
    /// Reorgs in the window.
    pub reorgs: u64,
    /// Blocks they took back.
    pub abandoned_blocks: u64,
}

impl WindowFacts {
    /// How many blocks count.
    pub fn blocks(&self) -> u64 {
        match (self.first_block, self.last_block) {
            (Some(first), Some(last)) => (last + 1).saturating_sub(first),
            _ => 0,
        }
    }

    /// How long it is on the chain's clock, in seconds.
    pub fn seconds(&self) -> u64 {
        match (self.first_time, self.last_time) {
            (Some(first), Some(last)) => last.saturating_sub(first),
            _ => 0,
        }
    }
}

/// What a module was given and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// Records handled.
    pub records: u64,
    /// Logs handed in.
    pub logs: u64,
    /// Read calls it made.
    pub reads: u64,
    /// Outcomes it was told.
    pub outcomes: u64,
    /// Keys it wrote or removed.
    pub writes: u64,
    /// Effects it asked for.
    pub effects: u64,
    /// Fuel.
    pub fuel: u64,
    /// Time in the module, in microseconds.
    pub micros: u64,
}

impl Calls {
    fn add(&mut self, trace: &Trace) {
        self.records += 1;
        self.logs += u64::from(trace.logs);
        self.reads += u64::from(trace.reads);
        self.outcomes += u64::from(trace.outcomes);
        self.writes += u64::from(trace.writes);
        self.effects += u64::from(trace.effects);
        self.fuel = self.fuel.saturating_add(trace.fuel);
        self.micros = self.micros.saturating_add(trace.micros);
    }
}

/// What a module asked for in the window.
///
/// `asked` is the sum of all others but `warm_up`. What came of effects of abandoned blocks is in
/// `effects.parquet`, and in no figure but `abandoned`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effects {
    /// All.
    pub asked: u64,
    /// Taken by the receiver.
    pub accepted: u64,
    /// The receiver had it already.
    pub already_there: u64,
    /// Refused by the receiver.
    pub refused: u64,
    /// Ran out of time first.
    pub expired: u64,
    /// Given up before it was sent.
    pub cancelled: u64,
    /// Not sent: the chain was in dry run.
    pub dry_run: u64,
    /// Nothing has come of it by the end.
    pub open: u64,
    /// Asked for in blocks that a reorg took back.
    pub abandoned: u64,
    /// Asked for before the window; not in `asked`.
    pub warm_up: u64,
}

impl Effects {
    /// Those the receiver has.
    pub fn placed(&self) -> u64 {
        self.accepted + self.already_there
    }

    fn add(&mut self, row: &Asked) {
        if row.standing.warm_up {
            self.warm_up += 1;
            return;
        }
        self.asked += 1;
        let count = match row.outcome.as_ref().map(|outcome| &outcome.result) {
            _ if row.standing.abandoned => &mut self.abandoned,
            Some(EffectResult::Accepted) => &mut self.accepted,
            Some(EffectResult::AlreadyThere) => &mut self.already_there,
            Some(EffectResult::Refused(_)) => &mut self.refused,
            Some(EffectResult::Expired) => &mut self.expired,
            Some(EffectResult::Cancelled(_)) => &mut self.cancelled,
            Some(EffectResult::DryRun) => &mut self.dry_run,
            None => &mut self.open,
        };
        *count += 1;
    }
}

/// Why effects were refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// `errorType` of the orderbook, else the HTTP status.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// What a module left in its state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFacts {
    /// Keys.
    pub entries: u64,
    /// Bytes of all keys.
    pub key_bytes: u64,
    /// Bytes of all values.
    pub value_bytes: u64,
    /// Sum of the state: equal states have equal sums.
    pub sum: String,
    /// The lane digest: over all that canonical blocks wrote.
    pub digest: String,
}

/// One file of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Rows of the table.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
}

/// Reasons that are counted one by one; a receiver that answers with ever new names does not
/// grow the summary.
const REASONS_MAX: usize = 200;

/// Where further reasons are counted.
const OTHER_REASONS: &str = "other reasons";

/// The longest reason. The orderbook's names have at most forty letters.
const REASON_CHARS_MAX: usize = 80;

/// Gathers the figures that are sums.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub calls: Calls,
    pub by_kind: BTreeMap<String, Calls>,
    pub effects: Effects,
    pub latencies: Vec<u64>,
    pub overdue: Vec<u64>,
    refusals: BTreeMap<String, u64>,
}

impl Tally {
    pub fn handled(&mut self, row: &Handled) {
        if row.standing.warm_up {
            return;
        }
        self.calls.add(&row.trace);
        self.by_kind.entry(row.trace.kind.as_str().to_owned()).or_default().add(&row.trace);
    }

    pub fn asked(&mut self, row: &Asked) {
        self.effects.add(row);
        if row.standing.warm_up || row.standing.abandoned {
            return;
        }
        if let Some(latency) = row.latency() {
            self.latencies.push(latency);
            if row.effect.deliver != Deliver::Finalized {
                let waited = row.due().map_or(0, |due| due - row.block.number);
                self.overdue.push(latency.saturating_sub(waited));
            }
        }
        if let Some(EffectResult::Refused(refusal)) =
            row.outcome.as_ref().map(|outcome| &outcome.result)
        {
            let name: String = refusal_name(refusal).chars().take(REASON_CHARS_MAX).collect();
            let known = self.refusals.contains_key(&name) || self.refusals.len() < REASONS_MAX;
            let name = if known { name } else { OTHER_REASONS.to_owned() };
            *self.refusals.entry(name).or_default() += 1;
        }
    }

    /// Refusals by reason, most frequent first.
    pub fn refusals(&self) -> Vec<Reason> {
        let mut reasons: Vec<Reason> = self
            .refusals
            .iter()
            .map(|(reason, count)| Reason { reason: reason.clone(), count: *count })
            .collect();
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.count));
        reasons
    }
}
