//! How the process ends: one message for people, one number for scripts.
//!
//! Everything that stops a command becomes a [`Failure`]: a code from the table in
//! `shepherd --help`, and one or more problems that each say what is wrong and what to do.

use std::{
    error::Error,
    fmt,
    io::{self, Write},
    panic,
    path::{Path, PathBuf},
};

use shepherd_rpc::in_words;

use serde::Serialize;

/// The exit codes, as documented in the long help and in the handbook.
pub const TABLE: &str = "\
Exit codes:
   0  success; SIGINT and SIGTERM stop `shepherd run` gracefully and end here too
   1  problems of several kinds were found, or a failure without a code of its own
   2  the command line was not understood
   3  the configuration is missing or wrong
   4  an endpoint is unreachable (in `check`) or serves another chain
   5  a module is missing, is not the one that was pinned, or was refused
   6  the data directory is locked by another process
   7  the data directory was written by a newer version
   8  stored data cannot be trusted
   9  a write to the data directory failed, for example because the disk is full
  10  a shutdown was cut short, by its time limit or by a second signal
  11  SIGINT or SIGTERM came before the work was done; the same command goes on from there
  12  two runs that were compared differ, a module took more than it may, or a recording came to
      something else";

/// What a script can tell apart. The numbers are a promise: see [`TABLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Problems of several kinds, or one that has no code of its own.
    Failed = 1,
    /// The configuration file.
    Configuration = 3,
    /// An endpoint is unreachable or serves another chain.
    Endpoint = 4,
    /// A module is missing, tampered with or refused.
    Module = 5,
    /// Another process has the data directory open.
    Locked = 6,
    /// The data directory's format is newer than this program.
    NewerFormat = 7,
    /// What is stored contradicts itself.
    Untrusted = 8,
    /// The storage engine could not write.
    WriteFailed = 9,
    /// The shutdown did not finish what was started.
    CutShort = 10,
    /// A signal came before the work was done.
    Stopped = 11,
    /// A comparison came out different.
    Different = 12,
}

/// A place in a file, with the line as it is written there.
///
/// The line never shows the secret part of a URL: see [`crate::mask`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column, in characters from 1.
    pub column: usize,
    /// The whole line.
    pub text: String,
    /// How many characters are meant.
    pub width: usize,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The exit code it leads to.
    #[serde(skip)]
    pub code: Code,
    /// Where it is written, when it is written somewhere.
    #[serde(flatten)]
    pub place: Option<Box<Place>>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    /// A problem that no line of a file stands for.
    pub fn new(code: Code, message: impl Into<String>) -> Problem {
        Problem { code, place: None, message: message.into(), help: None }
    }

    /// An error and the chain of its causes.
    pub fn from_error(code: Code, error: &(dyn Error + 'static)) -> Problem {
        Problem::new(code, in_words(error))
    }

    /// The same, with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    /// The same, at a place in a file.
    #[must_use]
    pub fn at(mut self, place: Place) -> Problem {
        self.place = Some(Box::new(place));
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            None => write!(f, "error: {}", self.message)?,
            Some(place) => {
                let Place { file, line, column, text, width } = &**place;
                let number = line.to_string();
                let gutter = " ".repeat(number.len());
                let indent = " ".repeat(column - 1);
                let marks = "^".repeat((*width).max(1));
                writeln!(f, "error: {}:{line}:{column}: {}", file.display(), self.message)?;
                writeln!(f, "{gutter} |")?;
                writeln!(f, "{number} | {text}")?;
                write!(f, "{gutter} | {indent}{marks}")?;
            }
        }
        if let Some(help) = &self.help {
            write!(f, "\nhelp: {help}")?;
        }
        Ok(())
    }
}

/// Why a command ends without success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Never empty.
    pub problems: Vec<Problem>,
}

impl Failure {
    /// The problems' common code, or [`Code::Failed`] when they differ.
    pub fn code(&self) -> Code {
        let first = self.problems[0].code;
        if self.problems.iter().all(|problem| problem.code == first) {
            return first;
        }
        Code::Failed
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure { problems: vec![problem] }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            let blank = if i == 0 { "" } else { "\n\n" };
            write!(f, "{blank}{problem}")?;
        }
        Ok(())
    }
}

/// What to do about a disk that takes no more.
pub const NO_ROOM_HELP: &str = "free space or repair the disk, then start again; everything \
                                committed before is kept, and nothing after it was acknowledged";

/// The cause of an error that says the disk takes no more.
pub fn no_room<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e io::Error> {
    let causes = std::iter::successors(Some(error), |error: &&_| (*error).source());
    causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).find(|cause| {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        matches!(cause.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
    })
}

/// What the store does when a write fails: says so once and ends the process on the spot.
///
/// No destructor may run: dropping the storage engine flushes the very buffer that could not be
/// written, and a step whose commit was reported as failed would become durable (hazard F1).
pub fn on_write_failure(what: &str) -> ! {
    // Not `eprintln!`, which panics when standard error is closed, and a panic unwinds.
    let message =
        format!("error: a write to the data directory failed: {what}\nhelp: {NO_ROOM_HELP}\n");
    let _ = io::stderr().write_all(message.as_bytes());
    // SAFETY: `_exit` only ends the process.
    unsafe { libc::_exit(Code::WriteFailed as i32) }
}

/// Does what may make the storage engine panic over damaged files: then the process ends with one
/// message. The engine would panic again while the first panic unwinds, and nothing could be said.
pub fn untrusted_on_panic<T>(data_dir: &Path, work: impl FnOnce() -> T) -> T {
    let usual = panic::take_hook();
    let data_dir = data_dir.display().to_string();
    panic::set_hook(Box::new(move |panic| {
        let what = panic.payload_as_str().unwrap_or("it does not say why");
        let message = format!(
            "error: cannot open the data directory {data_dir}: the storage engine gives up: {what}\n\
             help: {UNTRUSTED_HELP}\n"
        );
        let _ = io::stderr().write_all(message.as_bytes());
        // SAFETY: `_exit` only ends the process.
        unsafe { libc::_exit(Code::Untrusted as i32) }
    }));
    let done = work();
    panic::set_hook(usual);
    done
}

/// What to do with data that cannot be trusted.
pub const UNTRUSTED_HELP: &str = "nothing was changed; check the disk, keep a copy of the directory, and restore a backup or start with an empty one";

/// The failure of reading or writing a file that the operator named.
pub fn file_problem(code: Code, verb: &str, path: &Path, error: &io::Error) -> Problem {
    Problem::new(code, format!("cannot {verb} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_its_line_and_marks_the_text() {
        let place = Place {
            file: "shepherd.toml".into(),
            line: 12,
            column: 3,
            text: "  chain_idd = 1".to_owned(),
            width: 9,
        };
        let problem = Problem::new(Code::Configuration, "unknown key `chain_idd`").at(place);
        let shown = problem.help("remove it").to_string();
        let expected = "\
error: shepherd.toml:12:3: unknown key `chain_idd`
   |
12 |   chain_idd = 1
   |   ^^^^^^^^^
help: remove it";
        assert_eq!(shown, expected);
    }

    #[test]
    fn problems_of_several_kinds_share_no_code() {
        let module = Problem::new(Code::Module, "a");
        let endpoint = Problem::new(Code::Endpoint, "b");
        let one_kind = Failure { problems: vec![module.clone(), module.clone()] };
        let two_kinds = Failure { problems: vec![module, endpoint] };
        assert_eq!(one_kind.code(), Code::Module);
        assert_eq!(two_kinds.code(), Code::Failed);
    }

    #[test]
    fn every_code_is_in_the_table() {
        for code in [
            Code::Failed,
            Code::Configuration,
            Code::Endpoint,
            Code::Module,
            Code::Locked,
            Code::NewerFormat,
            Code::Untrusted,
            Code::WriteFailed,
            Code::CutShort,
            Code::Stopped,
            Code::Different,
        ] {
            let start = format!("{:>4}  ", code as i32);
            assert!(TABLE.lines().any(|line| line.starts_with(&start)), "{code:?}");
        }
    }
}
