//! Where a lane is computed again: a folder of its own below the data directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use shepherd_log::{LaneId, OpenError};
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

    /// Removes the folder and what was computed in it. Killed in between, it is gone all the same:
    /// half of it would be taken for something else.
    pub fn remove(&self) -> Result<(), Problem> {
        let failed =
            |error: io::Error| file_problem(Code::WriteFailed, "remove", &self.folder, &error);
        let gone = self.folder.with_added_extension("removed");
        remove_all(&gone).map_err(failed)?;
        match fs::rename(&self.folder, &gone) {
            Ok(()) => remove_all(&gone).map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

fn remove_all(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn is_of_something_else(error: &RunError) -> bool {
    matches!(
        error,
        RunError::OtherRun { .. }
            | RunError::OtherJournal { .. }
            | RunError::OtherRecords { .. }
            | RunError::NotARun { .. }
            | RunError::NewerFormat { .. }
            | RunError::Store(OpenError::NewerFormat { .. })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_no_run_any_more_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch { folder: dir.path().join("ledger@devnet") };
        // A folder of which a kill has left a part, and what an earlier removal has left.
        fs::create_dir_all(scratch.folder.join("store")).unwrap();
        fs::create_dir_all(dir.path().join("ledger@devnet.removed/store")).unwrap();
        let mut open = |dir: &Path| -> Result<(), VerifyError> {
            shepherd_replay::Run::open(dir, &serde_json::json!("of a test"))
                .map(drop)
                .map_err(VerifyError::from)
        };
        let found = open(&scratch.folder);
        assert!(matches!(found, Err(VerifyError::Run(RunError::NotARun { .. }))), "{found:?}");
        scratch.work(&mut open).unwrap().unwrap();
        assert!(scratch.folder.join("run.json").exists());
        scratch.remove().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        scratch.remove().unwrap();
    }
}
