//! A lane over the versions of its module that it really ran.
//!
//! ```text
//!   records   0 ············ 1200 ············ 3071 ····
//!             twap 0x31…      twap 0x8f…        twap 0x8f…, other configuration
//! ```
//!
//! Code and configuration of a lane change while it goes on. What it computed is reproduced only by
//! what ran then, so a replay changes the module at the same records.

use std::error::Error;

use shepherd_dispatch::{Runner, Stop};
use shepherd_host::{BoundModule, Reads};
use shepherd_log::{Lane, LaneId, LaneSnapshot, LaneVersion, Offset, StorageError};

use crate::drive::{Drive, Ended, Outside, Progress, drive_in_steps};

/// Loads a version of a lane's module and binds it to the lane's chain, from wherever versions are
/// kept.
pub type LoadVersion<'l> =
    dyn FnMut(&LaneVersion, &LaneId) -> Result<BoundModule, LoadVersionError> + 'l;

/// Why a version could not be loaded.
pub type LoadVersionError = Box<dyn Error + Send + Sync>;

/// Why a lane could not be driven over its versions.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// A version it ran cannot be had any more.
    #[error(
        "lane {lane} ran module {} with binding {} from record {from}, which cannot be loaded",
        Hex(&version.module), Hex(&version.binding)
    )]
    Load {
        /// The lane.
        lane: LaneId,
        /// The version.
        version: Box<LaneVersion>,
        /// From which record it ran.
        from: Offset,
        /// Why it cannot be loaded.
        source: LoadVersionError,
    },
    /// The lane has passed records, and does not say with what.
    #[error("lane {lane} does not say which module it ran")]
    Unknown {
        /// The lane.
        lane: LaneId,
    },
    /// The lane stopped.
    #[error(transparent)]
    Stop(#[from] Stop),
}

/// Bytes as people name them.
struct Hex<'b>(&'b [u8; 32]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Which versions a lane ran, and from which records on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    lane: LaneId,
    /// Ascending.
    from: Vec<(Offset, LaneVersion)>,
}

impl Versions {
    pub fn of(lane: &LaneId, snapshot: &LaneSnapshot) -> Result<Versions, StorageError> {
        Ok(Versions { lane: lane.clone(), from: snapshot.versions()? })
    }

    /// The version that handled a record, from which record on it ran, and where the next begins.
    fn at(&self, offset: Offset) -> Option<(Offset, &LaneVersion, Option<Offset>)> {
        // A lane that was there before versions were kept has run its first records with something
        // that nobody wrote down. The oldest version known is the best there is.
        let later = self.from.partition_point(|(from, _)| *from <= offset).max(1);
        let (from, version) = self.from.get(later - 1)?;
        Some((*from, version, self.from.get(later).map(|(next, _)| *next)))
    }
}

/// A lane under way over its versions, and what it is made of when it is done.
pub(crate) struct VersionedLane {
    lane: Option<Lane>,
    runner: Option<(Offset, Runner)>,
}

impl VersionedLane {
    pub fn new(lane: Lane) -> VersionedLane {
        VersionedLane { lane: Some(lane), runner: None }
    }

    /// The lane.
    pub fn lane(&self) -> &Lane {
        match (&self.lane, &self.runner) {
            (Some(lane), _) => lane,
            (None, Some((_, runner))) => runner.lane(),
            (None, None) => unreachable!("the lane is in one of the two"),
        }
    }

    /// The lane, for whoever goes on with it.
    pub fn into_lane(self) -> Lane {
        match (self.lane, self.runner) {
            (Some(lane), _) => lane,
            (None, Some((_, runner))) => runner.into_lane(),
            (None, None) => unreachable!("the lane is in one of the two"),
        }
    }

    /// Drives the lane, each record with the version that handled it.
    pub fn drive(
        &mut self,
        versions: &Versions,
        load: &mut LoadVersion<'_>,
        reads: &mut dyn Reads,
        drive: Drive,
        progress: &mut dyn FnMut(&Progress),
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Ended, VersionError> {
        loop {
            let next = self.lane().cursor().next;
            if next >= drive.end {
                return Ok(Ended::Finished);
            }
            let Some((from, version, until)) = versions.at(next) else {
                return Err(VersionError::Unknown { lane: versions.lane.clone() });
            };
            let runner = self.with(from, version, &versions.lane, load)?;
            let piece =
                Drive { end: until.map_or(drive.end, |until| until.min(drive.end)), ..drive };
            let ended =
                drive_in_steps(runner, Outside::Tape(&mut *reads), piece, progress, interrupted)?;
            if ended == Ended::Interrupted {
                return Ok(Ended::Interrupted);
            }
        }
    }

    /// The lane with this version on it.
    fn with(
        &mut self,
        from: Offset,
        version: &LaneVersion,
        lane: &LaneId,
        load: &mut LoadVersion<'_>,
    ) -> Result<&mut Runner, VersionError> {
        if self.runner.as_ref().is_none_or(|(loaded, _)| *loaded != from) {
            let version = *version;
            let module = load(&version, lane).map_err(|source| VersionError::Load {
                lane: lane.clone(),
                version: Box::new(version),
                from,
                source,
            })?;
            let mut runner = match (self.runner.take(), self.lane.take()) {
                (Some((_, mut runner)), _) => {
                    runner.set_module(module);
                    runner
                }
                (None, Some(lane)) => Runner::new(lane, module),
                (None, None) => unreachable!("the lane is in one of the two"),
            };
            runner.lane_mut().set_version(version).map_err(Stop::Storage)?;
            self.runner = Some((from, runner));
        }
        Ok(&mut self.runner.as_mut().expect("just put there").1)
    }
}
