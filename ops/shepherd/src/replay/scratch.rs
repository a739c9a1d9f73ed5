//! Where a lane is computed again: a folder of its own below the data directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use shepherd_log::LaneId;
use shepherd_replay::{RunError, VerifyError, explain::ExplainError};

use crate::{
    config::Config,
    exit::{Code, Problem, file_problem},
};

/// The folder for one kind of work on one lane.
pub struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    /// That of this work, which is not made yet.
    pub fn of(config: &Config, work: &str, lane: &LaneId) -> Scratch {
        Scratch { folder: config.data_dir.join("replay").join(work).join(lane.to_string()) }
    }

    /// Works in the folder, or goes on in it. When what is there is of something else, such as a
    /// lane that began anew since, it is thrown away: it was only for this.
    pub fn work<T, E: InRun>(
        &self,
        mut work: impl FnMut(&Path) -> Result<T, E>,
    ) -> Result<Result<T, E>, Problem> {
        match work(&self.folder) {
            Err(error) if error.in_run().is_some_and(is_of_something_else) => {
                self.remove()?;
                Ok(work(&self.folder))
            }
            done => Ok(done),
        }
    }

    /// Removes the folder and what was computed in it.
    pub fn remove(&self) -> Result<(), Problem> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(file_problem(Code::WriteFailed, "remove", &self.folder, &error))
            }
            _ => Ok(()),
        }
    }
}

fn is_of_something_else(error: &RunError) -> bool {
    matches!(
        error,
        RunError::OtherRun { .. }
            | RunError::OtherJournal { .. }
            | RunError::OtherRecords { .. }
            | RunError::Unreadable { .. }
    )
}

/// An error that may be about the folder it happened in.
pub trait InRun {
    /// What is wrong with the folder, if it is that.
    fn in_run(&self) -> Option<&RunError>;
}

impl InRun for VerifyError {
    fn in_run(&self) -> Option<&RunError> {
        match self {
            VerifyError::Run(error) => Some(error),
            _ => None,
        }
    }
}

impl InRun for ExplainError {
    fn in_run(&self) -> Option<&RunError> {
        match self {
            ExplainError::Run(error) => Some(error),
            _ => None,
        }
    }
}
