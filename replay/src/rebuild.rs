//! Rebuilds a live lane: its state is computed again beside the old one, which then gives way.
//!
//! ```text
//!   live        ── goes on, and answers ─────────────────────────▶ handed over ┐
//!   rebuilt     [first record] ─ journal, tape ─▶ … ─▶ almost level ──▶ level ─┴ switch
//! ```
//!
//! What is rebuilt is a generation that nobody sees. It goes on where it was when the process is
//! killed, and until the switch, which is one commit, the lane is what it was. The outbox is not
//! rebuilt: what was asked for, sent and settled stays, so nothing is lost and nothing asked twice.

use shepherd_dispatch::Stop;
use shepherd_log::{
    Cursor, Lane, LaneError, LaneId, LaneSnapshot, Offset, StorageError, Store, SwitchError,
};

use crate::{
    drive::{Drive, Ended, Progress},
    tape::FromTape,
    versions::{LoadVersion, VersionError, VersionedLane, Versions},
};

/// With this many records to go the live lane is asked for, and waits for the rest.
///
/// A few hundred milliseconds of work; asked for only when there is nothing left, a lane that is
/// catching up itself might never be reached.
const ALMOST_LEVEL_RECORDS: u64 = 64;

/// A lane that was rebuilt.
pub struct Rebuilt {
    /// The lane, with its new generation, to go on with. What the old one left is removed by
    /// [`Store::sweep`].
    pub lane: Lane,
    /// Where the old generation stood.
    pub before: Cursor,
}

impl Rebuilt {
    /// Whether the new generation has the digest and the state of the old one. When it has not,
    /// the old one was not what its journal and its tape lead to.
    pub fn is_same(&self) -> bool {
        let after = self.lane.cursor();
        (after.digest, after.state) == (self.before.digest, self.before.state)
    }
}

/// Why a lane was not rebuilt. It is what it was.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// There is no such lane.
    #[error("there is no lane {0}")]
    NoLane(LaneId),
    /// It was interrupted. The same call goes on with it.
    #[error("lane {lane} is rebuilt up to record {next} of {end}")]
    Interrupted {
        /// The lane.
        lane: LaneId,
        /// How far it has come.
        next: Offset,
        /// How far it was to come.
        end: Offset,
    },
    /// The rebuilt generation has passed a reorg that the live lane has not, because a block that
    /// the reorg abandoned left the tape.
    #[error(
        "lane {lane} is rebuilt up to record {rebuilt} and stands at {live}; \
         rebuild it when it has passed the reorg before that"
    )]
    Ahead {
        /// The lane.
        lane: LaneId,
        /// Where it stands.
        live: Offset,
        /// Where what is to take its place stands.
        rebuilt: Offset,
    },
    /// The lane could not be run again.
    #[error("lane {lane} cannot be run again")]
    Again {
        /// The lane.
        lane: LaneId,
        /// Why not.
        source: Box<VersionError>,
    },
    /// The lane or its next generation cannot be had.
    #[error(transparent)]
    Lane(#[from] LaneError),
    /// The generations could not be switched.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Rebuilds a lane from the journal and its tape, and puts the result in its place.
///
/// Meanwhile the lane may go on. `hand_over` is called when the new generation is almost level: it
/// stops whoever moves the lane and returns it. The lane that is returned is the rebuilt one.
///
/// After an interruption, an error or a kill the lane is what it was, and another call goes on;
/// [`Store::abandon_rebuild`] gives it up instead. `step_records_max` bounds the records of a step,
/// which changes nothing but the time it takes.
pub fn rebuild(
    store: &Store,
    lane: &LaneId,
    load: &mut LoadVersion<'_>,
    hand_over: &mut dyn FnMut() -> Result<Lane, LaneError>,
    step_records_max: Option<usize>,
    progress: &mut dyn FnMut(&Progress),
    interrupted: &dyn Fn() -> bool,
) -> Result<Rebuilt, RebuildError> {
    let mut rebuilt = VersionedLane::new(store.rebuild_lane(lane)?);
    let mut follow = |rebuilt: &mut VersionedLane| {
        let live = snapshot(store, lane)?;
        let versions = Versions::of(lane, &live)?;
        let end = live.cursor().next;
        let step_records_max = step_records_max.unwrap_or(usize::MAX);
        let drive = Drive { end, step_records_max };
        let mut reads = FromTape::new(&live);
        let ended = rebuilt.drive(&versions, load, &mut reads, drive, progress, interrupted);
        let next = rebuilt.lane().cursor().next;
        match ended {
            Ok(Ended::Finished) if next <= end => Ok(()),
            Ok(Ended::Finished) => {
                Err(RebuildError::Ahead { lane: lane.clone(), live: end, rebuilt: next })
            }
            Ok(Ended::Interrupted) => {
                Err(RebuildError::Interrupted { lane: lane.clone(), next, end })
            }
            Err(VersionError::Stop(Stop::Storage(error))) => Err(error.into()),
            Err(error) => Err(RebuildError::Again { lane: lane.clone(), source: Box::new(error) }),
        }
    };
    loop {
        follow(&mut rebuilt)?;
        let next = rebuilt.lane().cursor().next;
        let live = snapshot(store, lane)?.cursor().next;
        if live.get().saturating_sub(next.get()) <= ALMOST_LEVEL_RECORDS {
            break;
        }
    }
    let live = hand_over()?;
    follow(&mut rebuilt)?;
    let before = live.cursor().clone();
    let lane = store.switch(live, rebuilt.into_lane())?;
    Ok(Rebuilt { lane, before })
}

fn snapshot(store: &Store, lane: &LaneId) -> Result<LaneSnapshot, RebuildError> {
    store.lane_snapshot(lane)?.ok_or_else(|| RebuildError::NoLane(lane.clone()))
}
