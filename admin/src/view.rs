//! What the API answers, as JSON.
//!
//! An offset is a string: it is a place to hand back, not a quantity to do sums with, and no
//! JSON reader may round it. Numbers of blocks and counts are JSON numbers, times are RFC 3339
//! in UTC, bytes are `0x` and hexadecimal digits.

use std::{fmt, time::SystemTime};

use serde::{Deserialize, Serialize};
use shepherd_log::{
    BlockRef, Deliver, Effect, EffectId, EffectResult, Offset, OutboxEntry, Outcome, Problem,
    Refusal, ReorgSummary, SegmentStat, TimedBlock,
};

/// A position in a journal, written as a string of decimal digits.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct OffsetView(pub u64);

impl From<Offset> for OffsetView {
    fn from(offset: Offset) -> OffsetView {
        OffsetView(offset.get())
    }
}

impl From<OffsetView> for Offset {
    fn from(view: OffsetView) -> Offset {
        Offset::new(view.0)
    }
}

impl From<OffsetView> for String {
    fn from(view: OffsetView) -> String {
        view.to_string()
    }
}

impl TryFrom<String> for OffsetView {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<OffsetView, std::num::ParseIntError> {
        text.parse().map(OffsetView)
    }
}

impl fmt::Display for OffsetView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// `/health`: the process is alive.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct HealthView {
    /// Always `alive`.
    pub status: String,
    /// The program's version.
    pub version: String,
    /// The process, by which the CLI knows that this is the daemon of its data directory.
    pub pid: u32,
}

/// `/ready`: whether everything that is configured is at work.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ReadyView {
    /// Whether `reasons` is empty.
    pub ready: bool,
    /// Why not, one for each chain or lane that is not at work.
    pub reasons: Vec<NotReadyView>,
}

/// One reason for not being ready.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct NotReadyView {
    /// `chain NAME` or `lane MODULE@CHAIN`.
    pub what: String,
    /// Its state.
    pub state: String,
    /// Why it is in that state.
    pub reason: Option<String>,
}

/// `/v1/chains`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ChainsView {
    /// The configured chains, by name.
    pub chains: Vec<ChainView>,
}

/// One chain.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ChainView {
    /// What the operator calls it.
    pub name: String,
    /// Its `eth_chainId`.
    pub chain_id: u64,
    /// What its follower is doing.
    pub state: StateView,
    /// The first record that is still there.
    pub start: OffsetView,
    /// The first offset not yet written.
    pub tail: OffsetView,
    /// The newest block in the journal.
    pub head: Option<HeadView>,
    /// The newest block that an endpoint announced.
    pub node_head: Option<u64>,
    /// The newest block in the journal that is known to be final.
    pub finalized: Option<BlockRefView>,
    /// How many endpoints must name a block before it is journaled.
    pub quorum: usize,
    /// Its endpoints, by priority.
    pub endpoints: Vec<EndpointView>,
    /// How its retention stands, when it has one and looked.
    pub retention: Option<RetentionView>,
}

/// How a chain's retention stands.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RetentionView {
    /// Blocks older than this may go.
    pub max_age_seconds: Option<u64>,
    /// The oldest segments may go when all of them take more.
    pub max_bytes: Option<u64>,
    /// The first record that is still there.
    pub start: OffsetView,
    /// Where the journal would start if nobody needed anything.
    pub due: OffsetView,
    /// How much of what is kept lies behind the slowest reader: at 1 it holds retention up.
    pub used: f64,
    /// Whether that is so much that someone should look after it.
    pub alarm: bool,
    /// Whether somebody keeps what is due from being removed.
    pub blocked: bool,
    /// Who needs the oldest record.
    pub needed_by: Option<String>,
    /// Which record that is.
    pub needed_from: Option<OffsetView>,
}

/// The newest block of a journal.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct HeadView {
    /// The block.
    #[serde(flatten)]
    pub block: BlockRefView,
    /// The block's own time.
    pub time: String,
    /// The same in seconds since 1970.
    pub timestamp: u64,
    /// How long ago that was.
    pub age_seconds: u64,
}

/// A node that serves a chain. Its URL is scheme and host alone.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct EndpointView {
    /// Scheme, host and port.
    pub url: String,
    /// As configured: lower is asked first.
    pub priority: u8,
    /// Whether it is in use, and why not: one word.
    pub state: String,
    /// From 1, answers at once and always, to 0; nothing while too little is known.
    pub health: Option<f64>,
    /// The average time of the latest answers.
    pub latency_ms: Option<f64>,
    /// How many blocks its head was behind the others' when that was last said.
    pub behind_blocks: u64,
    /// The last thing that went wrong with it.
    pub last_error: Option<String>,
    /// What last spoke against what it said.
    pub evidence: Option<String>,
    /// Calls sent to it since the process started.
    pub calls: u64,
    /// Calls that its budget leaves.
    pub calls_left: Option<u64>,
    /// Failures since it last answered.
    pub failures_in_a_row: u32,
    /// What it is able to do, once that was asked.
    pub capabilities: Option<CapabilitiesView>,
}

/// What an endpoint is able to do.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct CapabilitiesView {
    /// Whether it answers `eth_getLogs` for one block by hash.
    pub logs_by_hash: bool,
    /// Whether it knows the block tag `finalized`.
    pub finalized_tag: bool,
    /// Whether it has `eth_getBlockReceipts`.
    pub block_receipts: bool,
    /// Most calls in one message.
    pub batch_calls: usize,
    /// How old the state may be that it answers about: `full`, `unknown`, or a number of blocks.
    pub archive: String,
}

/// `/v1/cursors`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct CursorsView {
    /// Every lane of the store, by name.
    pub cursors: Vec<CursorView>,
}

/// One lane's cursor and what the lane is doing.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct CursorView {
    /// The lane, as `MODULE@CHAIN`.
    pub lane: String,
    /// Its module.
    pub module: String,
    /// Its chain.
    pub chain: String,
    /// What it is doing.
    pub state: StateView,
    /// The first record it has not applied.
    pub next: OffsetView,
    /// The end of its journal.
    pub tail: OffsetView,
    /// The last block it applied.
    pub block: Option<BlockRefView>,
    /// Records between cursor and tail.
    pub lag_records: u64,
    /// Blocks between the cursor's and the journal's head.
    pub lag_blocks: u64,
    /// How many steps it has committed.
    pub commit: u64,
    /// How often its state was rebuilt.
    pub generation: u32,
    /// Chained over everything it has committed.
    pub digest: String,
    /// Failures of its module, since the process started.
    pub faults: u64,
}

/// What a chain or a lane is doing, since when and why.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct StateView {
    /// One word, such as `running` or `halted`.
    pub name: String,
    /// Why, when the word does not say it all.
    pub reason: Option<String>,
    /// Since when, when a daemon knows.
    pub since: Option<String>,
}

/// A block's number and hash.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct BlockRefView {
    /// Height in the chain.
    pub number: u64,
    /// Hash of the header.
    pub hash: String,
}

/// `/v1/chains/{chain}/journal`: a page of records.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct JournalView {
    /// The chain.
    pub chain: String,
    /// Where the next page starts.
    pub next: OffsetView,
    /// The end of the journal.
    pub tail: OffsetView,
    /// The records, in offset order.
    pub records: Vec<RecordView>,
}

/// One record of a journal.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum RecordView {
    /// The chain grew by a block.
    Block {
        /// Its position.
        offset: OffsetView,
        /// The block.
        #[serde(flatten)]
        block: BlockRefView,
        /// Hash of the block before it.
        parent: String,
        /// The block's own time.
        time: String,
        /// How many logs it has.
        logs: u32,
        /// The record that abandoned it, when one did.
        abandoned_by: Option<OffsetView>,
    },
    /// The chain took back blocks.
    Revert {
        /// Its position.
        offset: OffsetView,
        /// The last block that both branches share.
        ancestor: BlockRefView,
        /// How many blocks were abandoned.
        abandoned: u64,
        /// The newest of them.
        abandoned_head: Option<BlockRefView>,
    },
    /// Something came of a lane's effect.
    Outcome {
        /// Its position.
        offset: OffsetView,
        /// The module of the lane that asked for it.
        module: String,
        /// What came of it.
        #[serde(flatten)]
        outcome: OutcomeView,
    },
}

/// What came of an effect.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct OutcomeView {
    /// The effect: the record whose handling asked for it, and its position there.
    pub effect: String,
    /// What the receiver tells a repetition by: an order's UID, or a webhook and its key.
    pub key: String,
    /// `accepted`, `already-there`, `refused`, `expired`, `cancelled` or `dry-run`.
    pub result: String,
    /// Why it was given up, when it was.
    pub reason: Option<String>,
    /// What the receiver said, when it refused.
    pub refusal: Option<RefusalView>,
    /// How often it was sent.
    pub attempts: u32,
    /// When this was known.
    pub time: String,
}

/// A receiver's no.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct RefusalView {
    /// The HTTP status.
    pub status: u16,
    /// `errorType` of the orderbook's envelope.
    pub error_type: Option<String>,
    /// Its description, or the start of the body.
    pub description: String,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
}

/// `/v1/lanes/{lane}/outbox`: a page of effects that nothing has come of yet.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct OutboxView {
    /// The lane, as `MODULE@CHAIN`.
    pub lane: String,
    /// How many there are in all.
    pub unsettled: u64,
    /// The effects, oldest first.
    pub effects: Vec<UnsettledView>,
    /// The effect to hand back as `after` for the next page, when there is one.
    pub more_after: Option<String>,
}

/// An effect that nothing has come of yet.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct UnsettledView {
    /// The effect.
    pub effect: String,
    /// What the receiver tells a repetition by.
    pub key: String,
    /// The newest block that counted when it was asked for.
    pub block: BlockRefView,
    /// `waiting` was not sent, `attempted` may have been, `orphaned` may have been and its block
    /// was taken back since.
    pub state: String,
    /// `instant`, `finalized`, or a number of confirmations.
    pub deliver: String,
    /// When nobody wants it any more.
    pub expires: String,
}

/// `/v1/lanes/{lane}/effects/{effect}`: one effect, whatever has become of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct EffectView {
    /// The lane, as `MODULE@CHAIN`.
    pub lane: String,
    /// As it stands in the outbox, or stood there; then `state` is `settled`.
    #[serde(flatten)]
    pub effect: UnsettledView,
    /// What is sent, byte for byte.
    pub body: String,
    /// What came of it. `None` as long as nothing has, or when it came too far behind the effect
    /// to be looked for, or was removed.
    pub outcome: Option<OutcomeView>,
    /// The body of the receiver's no, when it refused.
    pub refusal_body: Option<String>,
}

/// `/v1/chains/{chain}/journal/verify`: what was checked and what is wrong.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct VerifyView {
    /// The chain.
    pub chain: String,
    /// The first record that was checked.
    pub from: OffsetView,
    /// The first that was not: where the next page starts.
    pub next: OffsetView,
    /// The end of the journal.
    pub tail: OffsetView,
    /// How many of the records are blocks.
    pub blocks: u64,
    /// How many are reverts.
    pub reverts: u64,
    /// How many are outcomes of effects.
    pub outcomes: u64,
    /// Logs in all blocks, abandoned ones included.
    pub logs: u64,
    /// Size of the records before compression.
    pub bytes: u64,
    /// The chain's head after the last record.
    pub head: Option<BlockRefView>,
    /// Digest of the last record, which stands for all before it.
    pub digest: String,
    /// What is wrong, in offset order.
    pub problems: Vec<VerifyProblemView>,
}

/// `/v1/chains/{chain}/reorgs`: the newest reorgs of a chain.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ReorgsView {
    /// The chain.
    pub chain: String,
    /// How many reorgs its journal holds in all.
    pub total: u64,
    /// The newest of them, oldest first.
    pub reorgs: Vec<ReorgView>,
}

/// One reorg.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ReorgView {
    /// The record that says so.
    pub offset: OffsetView,
    /// When the abandoned head was made: the reorg came after that.
    pub time: String,
    /// How many blocks were abandoned.
    pub depth: u64,
    /// The last block that both branches share.
    pub ancestor: BlockRefView,
    /// The abandoned blocks, in the order of the chain. They stay in the journal.
    pub abandoned: Vec<BlockRefView>,
}

/// `/v1/chains/{chain}/journal/stat`: what a journal holds.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct StatView {
    /// The chain.
    pub chain: String,
    /// Its `eth_chainId`.
    pub chain_id: u64,
    /// Hash of block 0, once an endpoint has said it.
    pub genesis: Option<String>,
    /// The first record that is still there.
    pub start: OffsetView,
    /// The first offset not yet written.
    pub tail: OffsetView,
    /// How many records there are.
    pub records: u64,
    /// How many of them are blocks, abandoned ones included.
    pub blocks: u64,
    /// How many are reverts.
    pub reverts: u64,
    /// How many are outcomes of effects.
    pub outcomes: u64,
    /// The first block.
    pub first: Option<TimedBlockView>,
    /// The newest block that is not abandoned.
    pub last: Option<TimedBlockView>,
    /// The records before this one are in the log index.
    pub indexed_to: OffsetView,
    /// What the segments take on disk.
    pub bytes_on_disk: u64,
    /// The segments, oldest first.
    pub segments: Vec<SegmentView>,
}

/// A block and when it was made.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct TimedBlockView {
    /// The block.
    #[serde(flatten)]
    pub block: BlockRefView,
    /// Its own time.
    pub time: String,
}

/// One segment of a journal: what retention removes is whole segments.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct SegmentView {
    /// Its number.
    pub number: u64,
    /// Its first record.
    pub from: OffsetView,
    /// The first record that is not in it.
    pub to: OffsetView,
    /// What its records take on disk.
    pub bytes: u64,
    /// What its part of the log index takes on disk.
    pub index_bytes: u64,
}

/// `/v1/chains/{chain}/logs`: a page of the logs that match.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct FoundView {
    /// The chain.
    pub chain: String,
    /// The logs, in the order of the journal.
    pub logs: Vec<FoundLogView>,
    /// Blocks that were read for this page.
    pub blocks_read: u64,
    /// Blocks that the log index said need not be read.
    pub blocks_skipped: u64,
    /// How long that took.
    pub microseconds: u64,
    /// The offset to hand back as `after` for the next page, when there is one.
    pub more_from: Option<OffsetView>,
}

/// A log that was found.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct FoundLogView {
    /// The record of its block.
    pub offset: OffsetView,
    /// Its block.
    pub block: BlockRefView,
    /// The block's own time.
    pub time: String,
    /// Whether a reorg took the block back.
    pub abandoned: bool,
    /// Position among all logs of the block.
    pub index: u32,
    /// Position of the transaction in the block.
    pub transaction_index: u32,
    /// Hash of the transaction.
    pub transaction_hash: String,
    /// The contract.
    pub address: String,
    /// The topics, first to last.
    pub topics: Vec<String>,
    /// The event's unindexed arguments.
    pub data: String,
}

/// One thing that is wrong with a journal.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct VerifyProblemView {
    /// The record.
    pub offset: OffsetView,
    /// What is wrong with it.
    pub what: String,
}

/// `/v1/lanes/{lane}/state`: a page of what a module computed.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct LaneStateView {
    /// The lane.
    pub lane: String,
    /// The cursor this is the state of: the records before it are in it, no others.
    pub next: OffsetView,
    /// The entries, in key order.
    pub entries: Vec<EntryView>,
    /// The key to hand back as `after` for the next page, when there is one.
    pub more_after: Option<String>,
}

/// One entry of a lane's state.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct EntryView {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
}

/// An error, as RFC 9457 `application/problem+json`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ProblemView {
    /// Always `about:blank`: the status says what kind it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong this time, and what to do.
    pub detail: String,
}

impl StateView {
    /// A state with its reason.
    pub fn new(name: &str, reason: Option<String>, since: Option<SystemTime>) -> StateView {
        StateView { name: name.to_owned(), reason, since: since.map(time) }
    }
}

impl From<BlockRef> for BlockRefView {
    fn from(block: BlockRef) -> BlockRefView {
        BlockRefView { number: block.number, hash: block.hash.to_string() }
    }
}

impl From<TimedBlock> for TimedBlockView {
    fn from(timed: TimedBlock) -> TimedBlockView {
        TimedBlockView { block: timed.block.into(), time: block_time(timed.time) }
    }
}

impl From<&ReorgSummary> for ReorgView {
    fn from(reorg: &ReorgSummary) -> ReorgView {
        ReorgView {
            offset: reorg.offset.into(),
            time: block_time(reorg.head_time),
            depth: reorg.depth() as u64,
            ancestor: reorg.ancestor.into(),
            abandoned: reorg.abandoned.iter().copied().map(BlockRefView::from).collect(),
        }
    }
}

impl From<&SegmentStat> for SegmentView {
    fn from(segment: &SegmentStat) -> SegmentView {
        SegmentView {
            number: segment.number,
            from: segment.range.start.into(),
            to: segment.range.end.into(),
            bytes: segment.record_bytes,
            index_bytes: segment.index_bytes,
        }
    }
}

impl From<&Problem> for VerifyProblemView {
    fn from(problem: &Problem) -> VerifyProblemView {
        VerifyProblemView { offset: problem.offset.into(), what: problem.what.clone() }
    }
}

impl From<&Outcome> for OutcomeView {
    fn from(outcome: &Outcome) -> OutcomeView {
        let (reason, refusal) = match &outcome.result {
            EffectResult::Cancelled(why) => (Some(why.clone()), None),
            EffectResult::Refused(refusal) => (None, Some(RefusalView::from(refusal))),
            _ => (None, None),
        };
        OutcomeView {
            effect: outcome.effect.to_string(),
            key: outcome.key.to_string(),
            result: outcome.result.kind().to_owned(),
            reason,
            refusal,
            attempts: outcome.attempts,
            time: block_time(outcome.at_millis / 1000),
        }
    }
}

impl From<&Refusal> for RefusalView {
    fn from(refusal: &Refusal) -> RefusalView {
        let Refusal { status, error_type, description, retry_after, .. } = refusal.clone();
        RefusalView { status, error_type, description, retry_after }
    }
}

impl From<&OutboxEntry> for UnsettledView {
    fn from(entry: &OutboxEntry) -> UnsettledView {
        UnsettledView {
            effect: entry.id.to_string(),
            key: entry.key.to_string(),
            block: entry.block.into(),
            state: entry.state.to_string(),
            deliver: deliver(entry.deliver),
            expires: block_time(entry.expires),
        }
    }
}

impl UnsettledView {
    /// An effect that is no longer in the outbox.
    pub fn settled(id: EffectId, block: BlockRef, effect: &Effect) -> UnsettledView {
        UnsettledView {
            effect: id.to_string(),
            key: effect.key.to_string(),
            block: block.into(),
            state: "settled".to_owned(),
            deliver: deliver(effect.deliver),
            expires: block_time(effect.expires),
        }
    }
}

fn deliver(deliver: Deliver) -> String {
    match deliver {
        Deliver::Instant => "instant".to_owned(),
        Deliver::Confirmations(1) => "1 confirmation".to_owned(),
        Deliver::Confirmations(blocks) => format!("{blocks} confirmations"),
        Deliver::Finalized => "finalized".to_owned(),
    }
}

/// A time in RFC 3339, to the second.
pub fn time(time: SystemTime) -> String {
    // A clock outside of jiff's ten thousand years is wrong in any case.
    let time = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.0}")
}

/// A block's time in RFC 3339.
pub fn block_time(seconds: u64) -> String {
    match i64::try_from(seconds).map(jiff::Timestamp::from_second) {
        Ok(Ok(time)) => format!("{time:.0}"),
        // A chain may claim any number as its time.
        _ => format!("{seconds} s after 1970"),
    }
}

/// Bytes as `0x` and hexadecimal digits.
pub fn bytes(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_to_the_second() {
        assert_eq!(block_time(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(block_time(u64::MAX), "18446744073709551615 s after 1970");
        let millisecond = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1);
        assert_eq!(time(millisecond), "1970-01-01T00:00:00Z");
    }
}
