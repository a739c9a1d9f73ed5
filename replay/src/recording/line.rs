//! The lines of a recording as JSON.
//!
//! Records have the shape in which journals are exported as JSON lines. A recording adds what is
//! answered at a record, and what is not as it was.

use alloy_primitives::{Address, B256, Bytes};
use serde::{Deserialize, Serialize};
use shepherd_host::LogFilter;
use shepherd_log::{
    Block, BlockRef, Digest, EffectId, EffectKey, EffectResult, Header, Log, ModuleName,
    ORDER_UID_BYTES, Offset, Outcome, Record, Refusal, Revert, TapeEntry,
};

use super::{Entry, Logs, Proof, VERSION};

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderLine {
    recording: u32,
    chain: String,
    chain_id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    genesis: Option<B256>,
    first_offset: u64,
    first_block: BlockLineRef,
    proof: Proof,
    logs: LogsLine,
    tapes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    modified: Vec<String>,
}

/// `"all"`, or filters as manifests have them.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum LogsLine {
    All(All),
    Matching(Vec<FilterLine>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum All {
    All,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FilterLine {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<Address>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    topic0: Vec<B256>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    topic1: Vec<B256>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    topic2: Vec<B256>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    topic3: Vec<B256>,
}

/// Every other line.
#[derive(Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Line {
    /// A block.
    Block(BlockLine),
    /// A revert.
    Revert(RevertLine),
    /// An outcome.
    Outcome(Box<OutcomeLine>),
    /// The last line.
    End(EndLine),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockLine {
    offset: u64,
    number: u64,
    hash: B256,
    parent: B256,
    timestamp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    header_rlp: Option<Bytes>,
    /// The block in whose place it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instead_of: Option<BlockLineRef>,
    logs: Vec<LogLine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tape: Vec<TapeLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogLine {
    address: Address,
    topics: Vec<B256>,
    data: Bytes,
    index: u32,
    transaction_index: u32,
    transaction_hash: B256,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    injected: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevertLine {
    offset: u64,
    ancestor: BlockLineRef,
    abandoned: Vec<BlockLineRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tape: Vec<TapeLine>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockLineRef {
    number: u64,
    hash: B256,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutcomeLine {
    offset: u64,
    module: String,
    effect: String,
    key: String,
    block: BlockLineRef,
    head: BlockLineRef,
    result: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refusal: Option<RefusalLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    attempts: u32,
    at_millis: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tape: Vec<TapeLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RefusalLine {
    status: u16,
    error_type: Option<String>,
    description: String,
    body: Bytes,
    retry_after: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TapeLine {
    module: String,
    call: u32,
    request: B256,
    answer: Bytes,
}

/// The last line, which a file that was cut off does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndLine {
    pub records: u64,
    pub outcomes_left_out: u64,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// Not JSON, or not of this shape.
    #[error("{0}")]
    Json(String),
    /// A file of a later program.
    #[error("the recording has version {found}, this program reads version {VERSION}")]
    Version {
        /// Its version.
        found: u32,
    },
    /// A name, a number or a key that is none.
    #[error("`{field}` is `{value}`: {expected}")]
    Value {
        /// Where it stands.
        field: &'static str,
        /// What stands there.
        value: String,
        /// What should.
        expected: String,
    },
    /// Records that are not numbered one after the other.
    #[error(
        "`offset` is {found}, but this is record {expected}: a line is missing or stands twice"
    )]
    Offset {
        /// What the line says.
        found: u64,
        /// Its place.
        expected: u64,
    },
    /// A block other than the one the header names.
    #[error("the recording begins with {found}, its first line says {expected}")]
    FirstBlock {
        /// The block.
        found: BlockRef,
        /// The one named.
        expected: BlockRef,
    },
    /// A record that does not follow those before it.
    #[error(transparent)]
    Link(Box<shepherd_log::LinkProblem>),
    /// Something the first line rules out.
    #[error("{what}, which the first line rules out")]
    Unexpected {
        /// What it is.
        what: String,
    },
    /// A header or logs that do not fit the hash.
    #[error(transparent)]
    Proof(#[from] super::ProofError),
    /// The file ends too early.
    #[error("the recording ends here without its last line: it was cut off")]
    CutOff,
    /// The last line counts other records than there are.
    #[error("the last line says {said} records, there are {found}")]
    Count {
        /// What it says.
        said: u64,
        /// What there is.
        found: u64,
    },
    /// Something after the last line.
    #[error("the recording goes on after its last line")]
    AfterEnd,
}

fn value(field: &'static str, value: impl Into<String>, expected: impl ToString) -> LineProblem {
    LineProblem::Value { field, value: value.into(), expected: expected.to_string() }
}

impl From<&super::Header> for HeaderLine {
    fn from(header: &super::Header) -> HeaderLine {
        HeaderLine {
            recording: VERSION,
            chain: header.chain.to_string(),
            chain_id: header.chain_id,
            genesis: header.genesis,
            first_offset: header.first_offset,
            first_block: header.first_block.into(),
            proof: header.proof,
            logs: match &header.logs {
                Logs::All => LogsLine::All(All::All),
                Logs::Matching(filters) => {
                    LogsLine::Matching(filters.iter().map(FilterLine::from).collect())
                }
            },
            tapes: header.tapes.iter().map(ToString::to_string).collect(),
            modified: header.modified.clone(),
        }
    }
}

impl HeaderLine {
    /// The first line of a file.
    pub fn parse(text: &str) -> Result<super::Header, LineProblem> {
        /// What every version of the format has.
        #[derive(Deserialize)]
        struct Versioned {
            recording: u32,
        }
        let Versioned { recording: found } = parse(text)?;
        if found != VERSION {
            return Err(LineProblem::Version { found });
        }
        let line: HeaderLine = parse(text)?;
        let module = |name: &String| name.parse().map_err(|error| value("tapes", name, error));
        Ok(super::Header {
            chain: line.chain.parse().map_err(|error| value("chain", &line.chain, error))?,
            chain_id: line.chain_id,
            genesis: line.genesis,
            first_offset: line.first_offset,
            first_block: line.first_block.into(),
            proof: line.proof,
            logs: match line.logs {
                LogsLine::All(All::All) => Logs::All,
                LogsLine::Matching(filters) => {
                    Logs::Matching(filters.into_iter().map(LogFilter::from).collect())
                }
            },
            tapes: line.tapes.iter().map(module).collect::<Result<_, _>>()?,
            modified: line.modified,
        })
    }
}

impl From<&LogFilter> for FilterLine {
    fn from(filter: &LogFilter) -> FilterLine {
        let [topic0, topic1, topic2, topic3] = filter.topics().clone();
        FilterLine { addresses: filter.addresses().to_vec(), topic0, topic1, topic2, topic3 }
    }
}

impl From<FilterLine> for LogFilter {
    fn from(line: FilterLine) -> LogFilter {
        LogFilter::new(line.addresses, [line.topic0, line.topic1, line.topic2, line.topic3])
    }
}

impl Line {
    /// The line of an entry. `with_header` says whether blocks have their headers.
    pub fn new(offset: u64, entry: Entry, with_header: bool) -> Line {
        let Entry { record, tape, instead_of, injected } = entry;
        let tape = tape.into_iter().map(TapeLine::from).collect();
        match record {
            Record::Block(Block { header, logs }) => {
                let as_it_was = logs.len() - injected as usize;
                let logs = logs.into_iter().enumerate().map(|(position, log)| LogLine {
                    injected: position >= as_it_was,
                    ..log.into()
                });
                Line::Block(BlockLine {
                    offset,
                    number: header.this.number,
                    hash: header.this.hash,
                    parent: header.parent,
                    timestamp: header.timestamp,
                    header_rlp: with_header.then_some(header.rlp),
                    instead_of: instead_of.map(BlockLineRef::from),
                    logs: logs.collect(),
                    tape,
                })
            }
            Record::Revert(Revert { ancestor, abandoned }) => Line::Revert(RevertLine {
                offset,
                ancestor: ancestor.into(),
                abandoned: abandoned.into_iter().map(BlockLineRef::from).collect(),
                tape,
            }),
            Record::Outcome(outcome) => {
                Line::Outcome(Box::new(OutcomeLine::new(offset, outcome, tape)))
            }
        }
    }

    /// Reads a line.
    pub fn parse(text: &str) -> Result<Line, LineProblem> {
        parse(text)
    }
}

/// What a line is, once it was read.
pub enum Parsed {
    /// An entry, and the place it claims.
    Entry(u64, Box<Entry>),
    /// The end.
    End(EndLine),
}

impl TryFrom<Line> for Parsed {
    type Error = LineProblem;

    fn try_from(line: Line) -> Result<Parsed, LineProblem> {
        let (offset, record, tape, instead_of, injected) = match line {
            Line::Block(line) => {
                let injected = line.logs.iter().filter(|log| log.injected).count();
                let as_it_was = line.logs.len() - injected;
                if line.logs[..as_it_was].iter().any(|log| log.injected) {
                    let what = "an injected log before one that is not".to_owned();
                    return Err(LineProblem::Unexpected { what });
                }
                let logs = line.logs.into_iter().map(Log::try_from);
                let header = Header {
                    this: BlockRef { number: line.number, hash: line.hash },
                    parent: line.parent,
                    timestamp: line.timestamp,
                    rlp: line.header_rlp.unwrap_or_default(),
                };
                let block = Block { header, logs: logs.collect::<Result<_, _>>()? };
                let instead_of = line.instead_of.map(BlockRef::from);
                (line.offset, Record::Block(block), line.tape, instead_of, injected as u32)
            }
            Line::Revert(line) => {
                let abandoned = line.abandoned.into_iter().map(BlockRef::from).collect();
                let revert = Revert { ancestor: line.ancestor.into(), abandoned };
                (line.offset, Record::Revert(revert), line.tape, None, 0)
            }
            Line::Outcome(line) => {
                let (offset, outcome, tape) = line.parse()?;
                (offset, Record::Outcome(outcome), tape, None, 0)
            }
            Line::End(end) => return Ok(Parsed::End(end)),
        };
        let tape = tape.into_iter().map(TapeLine::parse).collect::<Result<_, _>>()?;
        Ok(Parsed::Entry(offset, Box::new(Entry { record, tape, instead_of, injected })))
    }
}

impl From<Log> for LogLine {
    fn from(log: Log) -> LogLine {
        LogLine {
            address: log.address,
            topics: log.topics,
            data: log.data,
            index: log.index,
            transaction_index: log.transaction_index,
            transaction_hash: log.transaction_hash,
            injected: false,
        }
    }
}

impl TryFrom<LogLine> for Log {
    type Error = LineProblem;

    fn try_from(line: LogLine) -> Result<Log, LineProblem> {
        if line.topics.len() > 4 {
            let count = line.topics.len().to_string();
            return Err(value("topics", count, "a log has at most four topics"));
        }
        Ok(Log {
            address: line.address,
            topics: line.topics,
            data: line.data,
            index: line.index,
            transaction_index: line.transaction_index,
            transaction_hash: line.transaction_hash,
        })
    }
}

impl OutcomeLine {
    fn new(offset: u64, outcome: Outcome, tape: Vec<TapeLine>) -> OutcomeLine {
        let result = outcome.result.kind().to_owned();
        let (refusal, reason) = match outcome.result {
            EffectResult::Refused(refusal) => (Some(refusal), None),
            EffectResult::Cancelled(reason) => (None, Some(reason)),
            EffectResult::Accepted
            | EffectResult::AlreadyThere
            | EffectResult::Expired
            | EffectResult::DryRun => (None, None),
        };
        OutcomeLine {
            offset,
            module: outcome.module.to_string(),
            effect: outcome.effect.to_string(),
            key: outcome.key.to_string(),
            block: outcome.block.into(),
            head: outcome.head.into(),
            result,
            refusal: refusal.map(|refusal| RefusalLine {
                status: refusal.status,
                error_type: refusal.error_type,
                description: refusal.description,
                body: refusal.body.into(),
                retry_after: refusal.retry_after,
            }),
            reason,
            attempts: outcome.attempts,
            at_millis: outcome.at_millis,
            tape,
        }
    }

    fn parse(self) -> Result<(u64, Outcome, Vec<TapeLine>), LineProblem> {
        let refusal = self.refusal.map(|refusal| Refusal {
            status: refusal.status,
            error_type: refusal.error_type,
            description: refusal.description,
            body: refusal.body.to_vec(),
            retry_after: refusal.retry_after,
        });
        let result = match (self.result.as_str(), refusal, self.reason) {
            ("accepted", None, None) => EffectResult::Accepted,
            ("already-there", None, None) => EffectResult::AlreadyThere,
            ("refused", Some(refusal), None) => EffectResult::Refused(refusal),
            ("expired", None, None) => EffectResult::Expired,
            ("cancelled", None, Some(reason)) => EffectResult::Cancelled(reason),
            ("dry-run", None, None) => EffectResult::DryRun,
            _ => {
                let expected = "accepted, already-there, expired, dry-run, refused with a \
                                `refusal` or cancelled with a `reason`";
                return Err(value("result", self.result, expected));
            }
        };
        let outcome = Outcome {
            module: self.module.parse().map_err(|error| value("module", &self.module, error))?,
            effect: effect_id(&self.effect)?,
            key: effect_key(&self.key)?,
            block: self.block.into(),
            result,
            attempts: self.attempts,
            at_millis: self.at_millis,
            head: self.head.into(),
        };
        Ok((self.offset, outcome, self.tape))
    }
}

impl From<(ModuleName, TapeEntry)> for TapeLine {
    fn from((module, entry): (ModuleName, TapeEntry)) -> TapeLine {
        TapeLine {
            module: module.to_string(),
            call: entry.call,
            request: entry.request.0.into(),
            answer: entry.answer.into(),
        }
    }
}

impl TapeLine {
    fn parse(self) -> Result<(ModuleName, TapeEntry), LineProblem> {
        let module = self.module.parse().map_err(|error| value("module", &self.module, error))?;
        let entry = TapeEntry {
            call: self.call,
            request: Digest(self.request.0),
            answer: self.answer.to_vec(),
        };
        if let Err(error) = shepherd_host::answers(&entry) {
            return Err(value("answer", self.answer.to_string(), error));
        }
        Ok((module, entry))
    }
}

impl From<BlockRef> for BlockLineRef {
    fn from(BlockRef { number, hash }: BlockRef) -> BlockLineRef {
        BlockLineRef { number, hash }
    }
}

impl From<BlockLineRef> for BlockRef {
    fn from(BlockLineRef { number, hash }: BlockLineRef) -> BlockRef {
        BlockRef { number, hash }
    }
}

fn parse<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, LineProblem> {
    serde_json::from_str(text).map_err(|error| LineProblem::Json(error.to_string()))
}

/// An effect's id as it is displayed.
fn effect_id(text: &str) -> Result<EffectId, LineProblem> {
    let parts = text.split_once('.').and_then(|(offset, index)| {
        Some(EffectId { offset: Offset::new(offset.parse().ok()?), index: index.parse().ok()? })
    });
    parts.ok_or_else(|| value("effect", text, "write its record and its position: \"3.0\""))
}

/// An effect's key as it is displayed: an order's UID starts with `0x`, which no destination does.
fn effect_key(text: &str) -> Result<EffectKey, LineProblem> {
    if let Some(digits) = text.strip_prefix("0x") {
        let mut uid = [0; ORDER_UID_BYTES];
        let decoded = hex::decode_to_slice(digits, &mut uid);
        return decoded.map(|()| EffectKey::Order(uid)).map_err(|error| value("key", text, error));
    }
    let key = text.split_once('/').map(|(destination, key)| EffectKey::Webhook {
        destination: destination.to_owned(),
        key: key.to_owned(),
    });
    key.ok_or_else(|| value("key", text, "an order's UID, or DESTINATION/KEY of a webhook"))
}
