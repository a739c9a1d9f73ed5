//! One exactly-once step of a lane, live or replayed.
//!
//! ```text
//!   cursor ─▶ record ─▶ select ─▶ module ─▶ step ┐  as many records as fit
//!               ▲                                │
//!               └────────────────────────────────┘
//!                                        commit: state, tape, undo, cursor in one batch
//! ```
//!
//! A block is one call of the module, an outcome of the lane's own effects another; a revert is
//! one for each thing the lane has to be told again. Live lanes and replays call this same
//! function. What differs is only who answers the reads.

use alloy_primitives::B256;
use shepherd_host::{
    At, BoundModule, Failure, Fault, Input, LogLine, LogRef, OutcomeInput, OutcomeRef, Reads,
    RevertInput, StateView, World,
};
use shepherd_log::{
    Applied, ApplyError, BlockRef, BlockView, Cursor, Deliveries, Journal, Lane, Offset, Outcome,
    ReadError, RecordView, Revert, RevertError, SizeError, Step, StorageError, StoredRecord,
};

/// Guest lines a step may collect before it is committed. They are told once the step is durable,
/// so that a line is about something that really happened.
const LINES_BYTES_ENOUGH: usize = 1 << 20;

/// A lane together with the module that runs on it.
pub struct Runner {
    lane: Lane,
    journal: Journal,
    module: BoundModule,
    /// The newest block that counts, once it was needed.
    newest: Option<At>,
}

/// What one step did.
#[derive(Clone, Debug)]
pub struct Advanced {
    /// Where the lane stands now.
    pub cursor: Cursor,
    /// Records it passed.
    pub records: u64,
    /// Records its module was called for.
    pub handled: u64,
    /// Logs its module was given.
    pub logs: u64,
    /// Reverts among the records.
    pub reverts: u64,
    /// Outcomes its module was told.
    pub outcomes: u64,
    /// Effects its module asked for.
    pub effects: u64,
    /// Fuel its module took.
    pub fuel: u64,
    /// What its module said, and at which record.
    pub lines: Vec<(Offset, LogLine)>,
    /// Lines that were over the limit.
    pub lines_dropped: u64,
}

/// Why a lane did not advance. Its cursor is where it was.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// The module fails at this record, and will again.
    #[error("the module fails at record {offset}")]
    Module {
        /// The record.
        offset: Offset,
        /// The newest block that counts then.
        block: BlockRef,
        /// How it fails.
        source: ModuleFailure,
        /// What it said before.
        lines: Vec<LogLine>,
    },
    /// Something outside gave no answer. Trying again may help.
    #[error("record {offset} has to wait")]
    World {
        /// The record.
        offset: Offset,
        /// Height of the block that was asked about: a revert below it makes the answer needless.
        height: u64,
        /// What did not answer.
        source: World,
    },
    /// A revert cannot be carried out on what the lane still keeps.
    #[error("the revert at record {offset} cannot be carried out")]
    Revert {
        /// The record.
        offset: Offset,
        /// Why not.
        source: RevertFailure,
    },
    /// What is stored cannot be trusted any more.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A failure that is the module's.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ModuleFailure {
    /// The sandbox stopped it, or it returned an error.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// What it wrote is too large to commit.
    #[error("what it wrote is too large to commit")]
    Size(#[from] SizeError),
}

impl ModuleFailure {
    /// A short word for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            ModuleFailure::Fault(fault) => fault.kind(),
            ModuleFailure::Size(_) => "output",
        }
    }
}

/// A revert that cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum RevertFailure {
    /// What would have to be restored is no longer kept.
    #[error(transparent)]
    Undo(#[from] RevertError),
    /// What would have to be restored does not fit one commit.
    #[error("what it restores is too large to commit")]
    Size(#[from] SizeError),
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Stop {
        match error {
            ReadError::Storage(error) => Stop::Storage(error),
            error => Stop::Storage(StorageError::Journal(Box::new(error))),
        }
    }
}

impl Runner {
    /// Puts a module on a lane.
    pub fn new(lane: Lane, module: BoundModule) -> Runner {
        Runner { journal: lane.journal().clone(), lane, module, newest: None }
    }

    /// The lane.
    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    /// The module.
    pub fn module(&self) -> &BoundModule {
        &self.module
    }

    /// Takes one step over at most `records_max` records and commits it.
    ///
    /// Returns `None` when there is no record to pass. A record that fails ends the step before
    /// it; when it is the first, nothing is committed and the failure is returned. `interrupted`
    /// is asked between records and ends the step early.
    pub fn advance(
        &mut self,
        records_max: usize,
        reads: &mut dyn Reads,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<Advanced>, Stop> {
        let Runner { lane, journal, module, newest } = self;
        let mut advance = Advance {
            step: lane.begin(),
            journal,
            module,
            newest,
            advanced: Advanced {
                cursor: Cursor::default(),
                records: 0,
                handled: 0,
                logs: 0,
                reverts: 0,
                outcomes: 0,
                effects: 0,
                fuel: 0,
                lines: Vec::new(),
                lines_dropped: 0,
            },
            lines_bytes: 0,
        };
        for stored in advance.step.records().take(records_max) {
            let stored = stored?;
            match advance.pass(&stored, reads) {
                Ok(Passed::Record) => (),
                Ok(Passed::TakenBack | Passed::Nothing) => break,
                Err(stop) if advance.advanced.records == 0 => return Err(stop),
                Err(Stop::Storage(error)) => return Err(error.into()),
                Err(_) => break,
            }
            if advance.is_full() || interrupted() {
                break;
            }
        }
        advance.commit()
    }
}

/// A step under way.
struct Advance<'r> {
    step: Step<'r>,
    journal: &'r Journal,
    module: &'r BoundModule,
    newest: &'r mut Option<At>,
    advanced: Advanced,
    lines_bytes: usize,
}

enum Passed {
    /// The record.
    Record,
    /// The record and those after it, up to the revert that takes them back.
    TakenBack,
    /// Nothing: the record wants a step of its own.
    Nothing,
}

impl Advance<'_> {
    fn is_full(&self) -> bool {
        self.step.is_full() || self.lines_bytes >= LINES_BYTES_ENOUGH
    }

    fn pass(&mut self, stored: &StoredRecord, reads: &mut dyn Reads) -> Result<Passed, Stop> {
        let offset = stored.offset();
        let (passed, height) = match stored.record() {
            RecordView::Block(block) => (self.pass_block(offset, &block, reads), block.this.number),
            RecordView::Outcome(outcome) => {
                (self.pass_outcome(offset, &outcome, reads), outcome.head.number)
            }
            RecordView::Revert(revert) => {
                let deliveries = self.step.deliveries(&revert)?;
                // What is told may fail, and a revert cannot be taken half.
                if !deliveries.is_empty() && self.advanced.records > 0 {
                    return Ok(Passed::Nothing);
                }
                let passed = self.pass_revert(offset, &revert, &deliveries, reads);
                (passed, revert.ancestor.number)
            }
        };
        if let Err(stop) = passed {
            let is_weather = matches!(stop, Stop::World { .. });
            let Some(revert) = self.step.undone_by(offset, height).filter(|_| is_weather) else {
                return Err(stop);
            };
            // No endpoint has to answer for a block that left the chain before the lane came to
            // it. What it would have done is taken back a few records on anyway.
            self.advanced.records += revert.get() - offset.get();
            self.step.pass_abandoned(revert);
            return Ok(Passed::TakenBack);
        }
        self.advanced.records += 1;
        Ok(Passed::Record)
    }

    fn pass_block(
        &mut self,
        offset: Offset,
        block: &BlockView<'_>,
        reads: &mut dyn Reads,
    ) -> Result<(), Stop> {
        let topics: Vec<Topics> = block.logs().map(|log| Topics::new(log.topics())).collect();
        let logs = block.logs().zip(&topics).map(|(log, topics)| LogRef {
            address: log.address,
            topics: topics.as_slice(),
            data: log.data,
            index: log.index,
            transaction_index: log.transaction_index,
            transaction_hash: log.transaction_hash,
        });
        let previous_timestamp = self.previous_timestamp()?;
        let subscription = self.module.subscription();
        let selected = subscription.select(
            block.this,
            block.parent,
            block.timestamp,
            previous_timestamp,
            logs,
        );
        let applied = match selected {
            Some(input) => {
                self.advanced.logs += input.logs.len() as u64;
                self.call(offset, &Input::Block(input), reads)?
            }
            None => Applied::default(),
        };
        let taken = self.step.apply(block.this, applied);
        too_large(offset, block.this, taken)?;
        let BlockView { this, parent, timestamp, .. } = *block;
        *self.newest = Some(At { this, parent, timestamp });
        Ok(())
    }

    fn pass_outcome(
        &mut self,
        offset: Offset,
        outcome: &Outcome,
        reads: &mut dyn Reads,
    ) -> Result<(), Stop> {
        let applied = if outcome.module == self.module.lane().module {
            let abandoned = self.step.is_taken_back(outcome);
            self.call_outcome(offset, outcome, abandoned, reads)?
        } else {
            Applied::default()
        };
        too_large(offset, outcome.head, self.step.pass_outcome(applied))
    }

    /// Takes back what the abandoned blocks did, and tells what is a fact all the same.
    fn pass_revert(
        &mut self,
        offset: Offset,
        revert: &Revert,
        deliveries: &Deliveries,
        reads: &mut dyn Reads,
    ) -> Result<(), Stop> {
        match self.step.revert(revert) {
            Ok(()) => (),
            Err(RevertError::Storage(error)) => return Err(error.into()),
            Err(error) => return Err(Stop::Revert { offset, source: error.into() }),
        }
        self.advanced.reverts += 1;
        if !deliveries.noticed.is_empty() {
            let told = |outcome| OutcomeRef::new(outcome, true);
            let outcomes = deliveries.noticed.iter().map(told).collect();
            let input = RevertInput { at: self.newest()?, outcomes };
            let applied = self.call(offset, &Input::Revert(input), reads)?;
            too_large(offset, revert.ancestor, self.step.told_by_revert(applied))?;
        }
        for (outcome, abandoned) in &deliveries.again {
            let applied = self.call_outcome(offset, outcome, *abandoned, reads)?;
            too_large(offset, revert.ancestor, self.step.told_by_revert(applied))?;
        }
        Ok(())
    }

    fn call_outcome(
        &mut self,
        offset: Offset,
        outcome: &Outcome,
        abandoned: bool,
        reads: &mut dyn Reads,
    ) -> Result<Applied, Stop> {
        let outcome = OutcomeRef::new(outcome, abandoned);
        let input = OutcomeInput { at: self.newest()?, outcome };
        self.advanced.outcomes += 1;
        self.call(offset, &Input::Outcome(input), reads)
    }

    fn call(
        &mut self,
        offset: Offset,
        input: &Input<'_>,
        reads: &mut dyn Reads,
    ) -> Result<Applied, Stop> {
        let mut state = StepState { step: &mut self.step, damage: None };
        let handled = self.module.handle(input, &mut state, reads);
        // Not a failure that waiting could mend, whatever the host made of it.
        if let Some(damage) = state.damage {
            return Err(damage.into());
        }
        let handled = match handled {
            Ok(handled) => handled,
            Err(Failure::World(source)) => {
                let height = input.at().this.number;
                return Err(Stop::World { offset, height, source });
            }
            Err(Failure::Module { fault, log_lines: lines }) => {
                let block = input.at().this;
                return Err(Stop::Module { offset, block, source: fault.into(), lines });
            }
        };
        let advanced = &mut self.advanced;
        advanced.handled += 1;
        advanced.fuel += handled.fuel;
        advanced.effects += handled.effects.len() as u64;
        advanced.lines_dropped += handled.log_lines_dropped;
        self.lines_bytes += handled.log_lines.iter().map(|line| line.message.len()).sum::<usize>();
        advanced.lines.extend(handled.log_lines.into_iter().map(|line| (offset, line)));
        Ok(Applied {
            writes: handled.writes,
            tape: handled.tape,
            effects: handled.effects,
            fuel: handled.fuel,
        })
    }

    /// The time of the block before this one, when the module's subscription depends on it.
    fn previous_timestamp(&mut self) -> Result<Option<u64>, Stop> {
        if self.module.subscription().tick_seconds.is_none() || self.step.cursor().block.is_none() {
            return Ok(None);
        }
        Ok(Some(self.newest()?.timestamp))
    }

    /// The newest block that counts.
    fn newest(&mut self) -> Result<At, Stop> {
        let block = self.step.cursor().block.expect("asked only after a block");
        if let Some(newest) = *self.newest
            && newest.this == block
        {
            return Ok(newest);
        }
        let offset = self.journal.offset_of(block)?;
        let offset = offset.expect("a cursor stands on a block of its journal");
        let stored = self.journal.read(offset..offset.plus(1)).next();
        match stored.expect("indexed records are in the journal")?.record() {
            RecordView::Block(BlockView { this, parent, timestamp, .. }) => {
                let newest = At { this, parent, timestamp };
                *self.newest = Some(newest);
                Ok(newest)
            }
            _ => unreachable!("the block index points at blocks"),
        }
    }

    fn commit(self) -> Result<Option<Advanced>, Stop> {
        let mut advanced = self.advanced;
        if advanced.records == 0 {
            return Ok(None);
        }
        let offset = self.step.cursor().next;
        let sha256 = self.module.module().sha256().0;
        // Only a revert can restore more than fits: what blocks write was checked one by one.
        advanced.cursor = self.step.commit(sha256).map_err(|error| match error {
            ApplyError::Storage(error) => error.into(),
            ApplyError::Size(error) => Stop::Revert { offset, source: error.into() },
        })?;
        Ok(Some(advanced))
    }
}

/// Says whose failure it is when a record's changes are not taken.
fn too_large(offset: Offset, block: BlockRef, taken: Result<(), ApplyError>) -> Result<(), Stop> {
    match taken {
        Ok(()) => Ok(()),
        Err(ApplyError::Storage(error)) => Err(error.into()),
        Err(ApplyError::Size(error)) => {
            Err(Stop::Module { offset, block, source: error.into(), lines: Vec::new() })
        }
    }
}

/// Up to four topics, out of the record's bytes.
struct Topics {
    count: usize,
    topics: [B256; 4],
}

impl Topics {
    fn new(stored: impl Iterator<Item = B256>) -> Topics {
        let mut topics = Topics { count: 0, topics: [B256::ZERO; 4] };
        for topic in stored.take(4) {
            topics.topics[topics.count] = topic;
            topics.count += 1;
        }
        topics
    }

    fn as_slice(&self) -> &[B256] {
        &self.topics[..self.count]
    }
}

/// A step's state, as the host reads it.
struct StepState<'a, 's> {
    step: &'a mut Step<'s>,
    /// Why the state could not be read, when it could not.
    damage: Option<StorageError>,
}

impl StepState<'_, '_> {
    fn keep_damage<T>(&mut self, read: Result<T, StorageError>) -> Result<T, World> {
        read.map_err(|damage| {
            let world = World::state(damage.to_string());
            self.damage = Some(damage);
            world
        })
    }
}

impl StateView for StepState<'_, '_> {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, World> {
        let read = self.step.get(key);
        self.keep_damage(read)
    }

    fn list(
        &mut self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, World> {
        let read = self.step.list(prefix, after, limit);
        self.keep_damage(read)
    }
}
