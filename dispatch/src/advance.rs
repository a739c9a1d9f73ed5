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

use std::time::Instant;

use alloy_primitives::B256;
use shepherd_host::{
    At, BoundModule, Failure, Fault, Input, LogLine, LogRef, OutcomeInput, OutcomeRef, Reads,
    RevertInput, StateView, World,
};
use shepherd_log::{
    Applied, ApplyError, BlockRef, BlockView, Cursor, Deliveries, Digest, Effect, EffectId,
    Journal, Lane, LogFilter, Offset, Outcome, ReadError, RecordView, Revert, RevertError,
    SizeError, Step, StorageError, StoredRecord, Trace, TraceKind,
};

use crate::venue::Venue;

/// Guest lines a step may collect before it is committed. They are told once the step is durable,
/// so that a line is about something that really happened.
const LINES_BYTES_ENOUGH: usize = 1 << 20;

/// A lane together with the module that runs on it.
pub struct Runner {
    lane: Lane,
    journal: Journal,
    module: BoundModule,
    /// What the module looks for, when blocks without it do not concern the module.
    filters: Option<Vec<LogFilter>>,
    /// The newest block that counts, once it was needed.
    newest: Option<At>,
    /// A record that wants a step of its own: it failed after some of it was in the step.
    alone: Option<Offset>,
}

/// How far one step may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Records it may look at. Steps also end by size.
    pub records_max: usize,
    /// The first record it does not pass.
    pub end: Offset,
}

impl From<usize> for Reach {
    /// As far as the journal goes.
    fn from(records_max: usize) -> Reach {
        Reach { records_max, end: Offset::new(u64::MAX) }
    }
}

/// What one step did.
#[derive(Clone, Debug, Default)]
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
        let (journal, filters) = (lane.journal().clone(), filters(&module));
        Runner { journal, lane, filters, module, newest: None, alone: None }
    }

    /// The lane.
    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    /// The lane, to say what it runs.
    pub fn lane_mut(&mut self) -> &mut Lane {
        &mut self.lane
    }

    /// The lane, without its module.
    pub fn into_lane(self) -> Lane {
        self.lane
    }

    /// The module.
    pub fn module(&self) -> &BoundModule {
        &self.module
    }

    /// Goes on with another module, or another configuration, from the cursor on.
    pub fn set_module(&mut self, module: BoundModule) {
        self.filters = filters(&module);
        self.module = module;
    }

    /// Takes one step and commits it.
    ///
    /// Returns `None` when there is no record to pass. A record that fails ends the step before
    /// it; when it is the first, nothing is committed and the failure is returned. `interrupted`
    /// is asked between records and ends the step early.
    pub fn advance(
        &mut self,
        reach: impl Into<Reach>,
        reads: &mut dyn Reads,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<Advanced>, Stop> {
        self.step(reach.into(), Outside::World(reads), interrupted)
    }

    /// Takes one step of a backtest: what comes of effects, a venue decides.
    ///
    /// The lane must be a replay's. Otherwise as [`Runner::advance`].
    pub fn backtest(
        &mut self,
        reach: impl Into<Reach>,
        venue: &mut dyn Venue,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<Advanced>, Stop> {
        assert!(self.lane.is_replay(), "what comes of a live lane's effects is in the journal");
        self.step(reach.into(), Outside::Venue(venue), interrupted)
    }

    fn step(
        &mut self,
        reach: Reach,
        mut outside: Outside<'_>,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<Advanced>, Stop> {
        loop {
            match self.try_step(reach, &mut outside, interrupted) {
                Ok(advanced) => {
                    outside.committed();
                    return Ok(advanced);
                }
                Err(Dropped::AndAgain { alone }) => self.alone = Some(alone),
                Err(Dropped::For(stop)) => {
                    outside.dropped();
                    return Err(stop);
                }
            }
            outside.dropped();
        }
    }

    fn try_step(
        &mut self,
        reach: Reach,
        outside: &mut Outside<'_>,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<Advanced>, Dropped> {
        // What a venue still has to tell may be due at a block that does not concern the module.
        let filters = self.filters.clone().filter(|_| !outside.waits());
        let (is_filtered, alone) = (filters.is_some(), self.alone);
        let mut advance = self.begin();
        let end = reach.end.min(advance.step.tail().offset);
        let mut records = match filters {
            Some(filters) => RecordsOf::Concerning(advance.step.concerning(&filters)),
            None => RecordsOf::All(advance.step.records()),
        };
        let mut looked_at = 0;
        let is_whole = loop {
            let Some(stored) = records.next() else { break true };
            let stored = stored.map_err(Stop::from)?;
            let offset = stored.offset();
            if offset >= end {
                break true;
            }
            advance.jump_to(offset)?;
            if alone == Some(offset) && advance.advanced.records > 0 {
                break false;
            }
            outside.reads().begin(offset);
            match advance.pass(&stored, outside) {
                Ok(Passed::Record) => (),
                Ok(Passed::TakenBack | Passed::Nothing) => break false,
                Err(Stop::Storage(error)) => return Err(Stop::Storage(error).into()),
                Err(stop) if advance.advanced.records == 0 => return Err(stop.into()),
                Err(_) if advance.is_half => return Err(Dropped::AndAgain { alone: offset }),
                Err(_) => break false,
            }
            looked_at += 1;
            if is_filtered && outside.waits() {
                break false;
            }
            if looked_at >= reach.records_max || advance.is_full() || interrupted() {
                break false;
            }
        };
        if is_whole {
            advance.jump_to(end)?;
        }
        Ok(advance.commit()?)
    }
}

impl Runner {
    pub(crate) fn begin(&mut self) -> Advance<'_> {
        let Runner { lane, journal, module, newest, .. } = self;
        Advance {
            step: lane.begin(),
            journal,
            module,
            newest,
            advanced: Advanced::default(),
            lines_bytes: 0,
            is_half: false,
            trace: None,
        }
    }
}

/// A step that was dropped.
enum Dropped {
    /// For good, until the caller tries again.
    For(Stop),
    /// Because a record failed when half of it was in the step: what came before it is passed
    /// first, without it.
    AndAgain { alone: Offset },
}

impl From<Stop> for Dropped {
    fn from(stop: Stop) -> Dropped {
        Dropped::For(stop)
    }
}

/// Who answers reads, and who says what comes of effects.
pub(crate) enum Outside<'a> {
    /// What comes of effects is in the journal.
    World(&'a mut dyn Reads),
    /// A venue says it.
    Venue(&'a mut dyn Venue),
}

impl Outside<'_> {
    fn reads(&mut self) -> &mut dyn Reads {
        match self {
            Outside::World(reads) => *reads,
            Outside::Venue(venue) => *venue,
        }
    }

    fn waits(&self) -> bool {
        match self {
            Outside::World(_) => false,
            Outside::Venue(venue) => venue.waits(),
        }
    }

    fn committed(&mut self) {
        if let Outside::Venue(venue) = self {
            venue.committed();
        }
    }

    fn dropped(&mut self) {
        if let Outside::Venue(venue) = self {
            venue.dropped();
        }
    }
}

/// The records a step looks at.
#[expect(clippy::large_enum_variant, reason = "one lives for each step")]
enum RecordsOf {
    All(shepherd_log::Records),
    Concerning(shepherd_log::Concerning),
}

impl Iterator for RecordsOf {
    type Item = Result<StoredRecord, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            RecordsOf::All(records) => records.next(),
            RecordsOf::Concerning(records) => records.next(),
        }
    }
}

/// What the log index can find for a module that is called for logs and nothing else.
fn filters(module: &BoundModule) -> Option<Vec<LogFilter>> {
    let subscription = module.subscription();
    if subscription.block_every.is_some() || subscription.tick_seconds.is_some() {
        return None;
    }
    let filter = |filter: &shepherd_host::LogFilter| LogFilter {
        addresses: filter.addresses().iter().copied().collect(),
        topic0: filter.topics()[0].iter().copied().collect(),
    };
    Some(subscription.logs.iter().map(filter).collect())
}

/// A step under way.
pub(crate) struct Advance<'r> {
    step: Step<'r>,
    journal: &'r Journal,
    module: &'r BoundModule,
    newest: &'r mut Option<At>,
    advanced: Advanced,
    lines_bytes: usize,
    /// Whether the record under way has changed the step, so that it cannot be left out any more.
    is_half: bool,
    /// Of the record under way, when it is traced.
    trace: Option<Trace>,
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

    /// The first record it has not passed.
    pub(crate) fn next(&self) -> Offset {
        self.step.cursor().next
    }

    /// The lane digest it has come to.
    pub(crate) fn digest(&self) -> Digest {
        self.step.cursor().digest
    }

    /// See [`Step::go_back`].
    pub(crate) fn go_back(&mut self) -> Result<Vec<(Offset, Digest)>, Stop> {
        Ok(self.step.go_back()?)
    }

    /// See [`Step::first_difference`].
    pub(crate) fn first_difference(&self) -> Result<Option<Vec<u8>>, Stop> {
        Ok(self.step.first_difference()?)
    }

    /// Passes the record at the cursor, which must be there.
    pub(crate) fn pass_next(&mut self, outside: &mut Outside<'_>) -> Result<(), Stop> {
        let stored = self.step.records().next().expect("the caller has looked at the tail")?;
        outside.reads().begin(stored.offset());
        // A rehearsal is one step, so a revert finds records before it.
        self.advanced.records = 0;
        self.pass(&stored, outside).map(|_| ())
    }

    /// Passes over blocks that do not concern the module.
    fn jump_to(&mut self, offset: Offset) -> Result<(), Stop> {
        let next = self.step.cursor().next;
        // A revert that took records back may have come further than the records that were found.
        if offset <= next {
            return Ok(());
        }
        self.step.pass_to(offset)?;
        self.advanced.records += offset.get() - next.get();
        Ok(())
    }

    fn pass(&mut self, stored: &StoredRecord, outside: &mut Outside<'_>) -> Result<Passed, Stop> {
        let offset = stored.offset();
        let started = Instant::now();
        self.is_half = false;
        self.trace = None;
        let (passed, height) = match stored.record() {
            RecordView::Block(block) => {
                (self.pass_block(offset, &block, outside), block.this.number)
            }
            RecordView::Outcome(outcome) => {
                (self.pass_outcome(offset, &outcome, outside), outcome.head.number)
            }
            RecordView::Revert(revert) => {
                let deliveries = match outside {
                    Outside::World(_) => self.step.deliveries(&revert)?,
                    Outside::Venue(_) if self.advanced.records > 0 => return Ok(Passed::Nothing),
                    Outside::Venue(venue) => venue.reverted(revert.ancestor),
                };
                // What is told may fail, and a revert cannot be taken half.
                if !deliveries.is_empty() && self.advanced.records > 0 {
                    return Ok(Passed::Nothing);
                }
                let passed = self.pass_revert(offset, &revert, &deliveries, outside);
                (passed, revert.ancestor.number)
            }
        };
        if let Err(stop) = passed {
            let is_weather = matches!(stop, Stop::World { .. }) && !self.is_half;
            let Some(revert) = self.step.undone_by(offset, height).filter(|_| is_weather) else {
                return Err(stop);
            };
            // No endpoint has to answer for a block that left the chain before the lane came to
            // it. What it would have done is taken back a few records on anyway.
            self.advanced.records += revert.get() - offset.get();
            // A revert may have told some of what it tells: that has changed the lane digest.
            self.keep_trace(started);
            self.step.pass_abandoned(revert);
            return Ok(Passed::TakenBack);
        }
        self.keep_trace(started);
        self.advanced.records += 1;
        Ok(Passed::Record)
    }

    fn keep_trace(&mut self, started: Instant) {
        let Some(mut trace) = self.trace.take() else { return };
        trace.micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        trace.after = self.step.cursor().digest;
        self.step.trace(trace);
    }

    fn pass_block(
        &mut self,
        offset: Offset,
        block: &BlockView<'_>,
        outside: &mut Outside<'_>,
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
                self.call(offset, &Input::Block(input), outside.reads())?
            }
            None => Applied::default(),
        };
        let BlockView { this, parent, timestamp, .. } = *block;
        let at = At { this, parent, timestamp };
        let asked = self.asked(offset, &applied, outside);
        let taken = self.step.apply(this, applied);
        too_large(offset, this, taken)?;
        *self.newest = Some(at);
        match outside {
            Outside::World(_) => Ok(()),
            Outside::Venue(venue) => self.settle(offset, at, &asked, &mut **venue),
        }
    }

    /// The effects of one call, for a venue.
    fn asked(
        &self,
        record: Offset,
        applied: &Applied,
        outside: &Outside<'_>,
    ) -> Vec<(EffectId, Effect)> {
        match outside {
            Outside::World(_) => Vec::new(),
            Outside::Venue(_) => (self.step.effects_of(record)..)
                .zip(&applied.effects)
                .map(|(index, effect)| (EffectId { offset: record, index }, effect.clone()))
                .collect(),
        }
    }

    /// Tells the module what a venue has made of its effects by the end of a block or a revert.
    fn settle(
        &mut self,
        offset: Offset,
        at: At,
        asked: &[(EffectId, Effect)],
        venue: &mut dyn Venue,
    ) -> Result<(), Stop> {
        venue.asked(at, asked);
        for outcome in venue.due(offset, at) {
            self.is_half = true;
            let abandoned = self.step.is_taken_back(&outcome);
            let asked = self.tell_by_venue(offset, &outcome, abandoned, venue)?;
            venue.asked(at, &asked);
        }
        Ok(())
    }

    /// Tells one outcome and hands out what the module then asks for.
    fn tell_by_venue(
        &mut self,
        offset: Offset,
        outcome: &Outcome,
        abandoned: bool,
        venue: &mut dyn Venue,
    ) -> Result<Vec<(EffectId, Effect)>, Stop> {
        let applied = self.call_outcome(offset, outcome, abandoned, venue)?;
        let asked = self.asked(offset, &applied, &Outside::Venue(venue));
        let taken = self.step.told_by_venue(outcome.clone(), applied);
        too_large(offset, outcome.head, taken)?;
        Ok(asked)
    }

    fn pass_outcome(
        &mut self,
        offset: Offset,
        outcome: &Outcome,
        outside: &mut Outside<'_>,
    ) -> Result<(), Stop> {
        let applied = match outside {
            Outside::World(reads) if outcome.module == self.module.lane().module => {
                let abandoned = self.step.is_taken_back(outcome);
                self.call_outcome(offset, outcome, abandoned, &mut **reads)?
            }
            // Another lane's, or what came of it live, which the venue knows.
            Outside::World(_) | Outside::Venue(_) => Applied::default(),
        };
        too_large(offset, outcome.head, self.step.pass_outcome(applied))
    }

    /// Takes back what the abandoned blocks did, and tells what is a fact all the same.
    fn pass_revert(
        &mut self,
        offset: Offset,
        revert: &Revert,
        deliveries: &Deliveries,
        outside: &mut Outside<'_>,
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
            let applied = self.call(offset, &Input::Revert(input), outside.reads())?;
            self.told_by_revert(offset, revert, applied, outside)?;
        }
        for (outcome, abandoned) in &deliveries.again {
            let applied = self.call_outcome(offset, outcome, *abandoned, outside.reads())?;
            self.told_by_revert(offset, revert, applied, outside)?;
        }
        if let Outside::Venue(venue) = outside {
            let at = self.newest()?;
            self.settle(offset, at, &[], &mut **venue)?;
        }
        Ok(())
    }

    fn told_by_revert(
        &mut self,
        offset: Offset,
        revert: &Revert,
        applied: Applied,
        outside: &mut Outside<'_>,
    ) -> Result<(), Stop> {
        let asked = self.asked(offset, &applied, outside);
        too_large(offset, revert.ancestor, self.step.told_by_revert(applied))?;
        if let Outside::Venue(venue) = outside {
            venue.asked(self.newest()?, &asked);
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
        let applied = Applied {
            writes: handled.writes,
            tape: handled.tape,
            effects: handled.effects,
            fuel: handled.fuel,
        };
        if self.step.is_replay() {
            let (kind, logs, outcomes) = match input {
                Input::Block(block) => (TraceKind::Block, block.logs.len(), 0),
                Input::Outcome(_) => (TraceKind::Outcome, 0, 1),
                Input::Revert(told) => (TraceKind::Revert, 0, told.outcomes.len()),
            };
            let At { this, timestamp, .. } = input.at();
            let trace = self.trace.get_or_insert_with(|| Trace::new(offset, this, timestamp, kind));
            trace.add(&applied, logs, outcomes);
        }
        Ok(applied)
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
