//! Drives a lane to an end, step by step, and says how far it has come.
//!
//! This is not a second loop over records: each turn is one [`Runner::advance`], which live lanes
//! call too. What is decided here is only how large a step may be and when to stop.

use std::time::{Duration, Instant};

use shepherd_dispatch::{Reach, Runner, Stop, Venue};
use shepherd_host::Reads;
use shepherd_log::{BlockRef, LaneId, Offset};

/// A step is committed after this long even when it could take more.
///
/// Steps end by the size of what they write; a lane that writes little would otherwise take all of
/// history in one, with no progress to show and all of it to do again after a kill.
const STEP_TIME_MAX: Duration = Duration::from_secs(2);

/// How far a lane has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The lane.
    pub lane: LaneId,
    /// Where this process began to drive it.
    pub from: Offset,
    /// The first record it has not passed.
    pub next: Offset,
    /// Where it is driven to.
    pub end: Offset,
    /// The newest block that counts before `next`.
    pub block: Option<BlockRef>,
    /// Records passed by this process.
    pub records: u64,
    /// Of these, the records the module was called for.
    pub handled: u64,
    /// Logs the module was given by this process.
    pub logs: u64,
    /// Effects it asked this process for.
    pub effects: u64,
    /// Fuel it took of this process.
    pub fuel: u64,
    /// Since this process began to drive it.
    pub elapsed: Duration,
}

/// How driving came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The lane stands at the end.
    Finished,
    /// It was interrupted, and can be driven on.
    Interrupted,
}

/// Who answers what a replayed lane asks.
pub enum Outside<'o> {
    /// Something that answers reads; outcomes are the journal's records.
    Tape(&'o mut dyn Reads),
    /// Something that answers reads and settles effects.
    Venue(&'o mut dyn Venue),
}

/// How far to drive a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drive {
    /// The first record not to pass. Nothing is passed beyond the journal's tail.
    pub end: Offset,
    /// The most records of one step. The result does not depend on it.
    pub step_records_max: usize,
}

impl Drive {
    /// To this end, in steps as large as they may be.
    pub fn to(end: Offset) -> Drive {
        Drive { end, step_records_max: usize::MAX }
    }
}

/// Drives a lane to `end`, with `progress` told after each step.
///
/// `interrupted` is asked between records; what was passed by then is committed. The lane's cursor
/// is durable whatever comes of it, so a later call goes on where this one ended.
pub fn drive(
    runner: &mut Runner,
    outside: Outside<'_>,
    end: Offset,
    progress: &mut dyn FnMut(&Progress),
    interrupted: &dyn Fn() -> bool,
) -> Result<Ended, Stop> {
    drive_in_steps(runner, outside, Drive::to(end), progress, interrupted)
}

/// [`drive`], with a bound on the records of a step.
pub fn drive_in_steps(
    runner: &mut Runner,
    mut outside: Outside<'_>,
    drive: Drive,
    progress: &mut dyn FnMut(&Progress),
    interrupted: &dyn Fn() -> bool,
) -> Result<Ended, Stop> {
    // Nobody waits for a step of a replay, so it is written while the next one is computed.
    runner.lane_mut().write_behind();
    let ended = advance_to(runner, &mut outside, drive, progress, interrupted);
    runner.lane_mut().flush();
    ended
}

fn advance_to(
    runner: &mut Runner,
    outside: &mut Outside<'_>,
    drive: Drive,
    progress: &mut dyn FnMut(&Progress),
    interrupted: &dyn Fn() -> bool,
) -> Result<Ended, Stop> {
    let end = drive.end.min(runner.lane().journal().tail().offset);
    let reach = Reach { records_max: drive.step_records_max, end };
    let began = Instant::now();
    let mut shown = Progress {
        lane: runner.lane().id().clone(),
        from: runner.lane().cursor().next,
        next: runner.lane().cursor().next,
        end,
        block: runner.lane().cursor().block,
        records: 0,
        handled: 0,
        logs: 0,
        effects: 0,
        fuel: 0,
        elapsed: Duration::ZERO,
    };
    progress(&shown);
    while shown.next < end {
        if interrupted() {
            return Ok(Ended::Interrupted);
        }
        let step_began = Instant::now();
        let enough = || interrupted() || step_began.elapsed() >= STEP_TIME_MAX;
        let advanced = match outside {
            Outside::Tape(reads) => runner.advance(reach, *reads, &enough)?,
            Outside::Venue(venue) => runner.backtest(reach, *venue, &enough)?,
        };
        let advanced = advanced.expect("there is a record before the end");
        shown.next = advanced.cursor.next;
        shown.block = advanced.cursor.block;
        shown.records += advanced.records;
        shown.handled += advanced.handled;
        shown.logs += advanced.logs;
        shown.effects += advanced.effects;
        shown.fuel += advanced.fuel;
        shown.elapsed = began.elapsed();
        progress(&shown);
    }
    Ok(Ended::Finished)
}
