//! Why a record was not handled, and whose failure that is.

use std::{error::Error, time::Duration};

use crate::{limits, lines::LogLine, tape::TapeError};

/// A record that was not handled. Nothing of the attempt is kept.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The module's: the same input fails again, so the lane halts.
    #[error("{fault}")]
    Module {
        /// What it did.
        fault: Fault,
        /// What it said before.
        log_lines: Vec<LogLine>,
    },
    /// The world's: the step is dropped and tried again, and the module never learns.
    #[error(transparent)]
    World(#[from] World),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure::Module { fault, log_lines: Vec::new() }
    }
}

/// What a module did wrong. The same module and input do it again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It panicked.
    #[error("the module panicked: {0}")]
    Panicked(String),
    /// It trapped: unreachable code, a bad memory access, a division by zero.
    #[error("the module trapped: {0}")]
    Trap(String),
    /// It used up the fuel of the record.
    #[error("the module used up its fuel of {limit} for one record")]
    OutOfFuel {
        /// What the manifest allows.
        limit: u64,
    },
    /// It asked for more memory than it may have.
    #[error("the module asked for more memory than its {limit_mib} MiB")]
    OutOfMemory {
        /// What the manifest allows.
        limit_mib: u32,
    },
    /// It recursed too deeply.
    #[error("the module used up its stack of {} KiB", limits::STACK_BYTES_MAX >> 10)]
    StackOverflow,
    /// `handle` returned this error.
    #[error("the module returned an error: {0}")]
    Returned(String),
    /// `configure` returned this error.
    #[error("the module refused its configuration: {0}")]
    RefusedConfiguration(String),
    /// `configure` used an import.
    #[error("the module called {function} while it was being configured, when it may only log")]
    CallWhileConfigured {
        /// The import, such as `state.get`.
        function: &'static str,
    },
    /// It tried to write or ask more than one record may.
    #[error(transparent)]
    OutputTooLarge(#[from] OutputTooLarge),
    /// It broke the rules of the component model, such as a string that is not UTF-8, or handed
    /// over too much at once.
    #[error("the module broke its contract: {0}")]
    BrokenContract(String),
}

impl Fault {
    /// A short word for the kind of fault, for metric labels and filters.
    pub const fn kind(&self) -> &'static str {
        match self {
            Fault::Panicked(_) => "panic",
            Fault::Trap(_) => "trap",
            Fault::OutOfFuel { .. } => "fuel",
            Fault::OutOfMemory { .. } => "memory",
            Fault::StackOverflow => "stack",
            Fault::Returned(_) => "error",
            Fault::RefusedConfiguration(_) => "configuration",
            Fault::CallWhileConfigured { .. } | Fault::BrokenContract(_) => "contract",
            Fault::OutputTooLarge(_) => "output",
        }
    }
}

/// Output beyond the limits of one record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutputTooLarge {
    /// A key that is empty or too long.
    #[error("a state key of {bytes} bytes; keys have 1 to {} bytes", limits::KEY_BYTES_MAX)]
    Key {
        /// Its length.
        bytes: usize,
    },
    /// A value that is too large.
    #[error("a state value of {bytes} bytes; values have at most {}", limits::VALUE_BYTES_MAX)]
    Value {
        /// Its length.
        bytes: usize,
    },
    /// All writes of the record together.
    #[error("state writes of {bytes} bytes; a record writes at most {}", limits::WRITES_BYTES_MAX)]
    Writes {
        /// Keys and values so far.
        bytes: usize,
    },
    /// Too many requests in one `chain.read`.
    #[error("{requests} requests in one read; at most {}", limits::REQUESTS_PER_CALL_MAX)]
    Requests {
        /// How many it asked.
        requests: usize,
    },
    /// All answers of the record together.
    #[error("answers of {bytes} bytes; a record reads at most {}", limits::TAPE_BYTES_MAX)]
    Answers {
        /// Encoded answers so far.
        bytes: usize,
    },
    /// Too much in one host call.
    #[error("too much in one host call; at most {} bytes", limits::HOSTCALL_BYTES_MAX)]
    HostCall,
}

/// What the world did wrong. Trying again may help; the module is not to blame.
#[derive(Debug, thiserror::Error)]
pub enum World {
    /// The chain could not be read.
    #[error("the chain could not be read")]
    Chain(#[source] Box<dyn Error + Send + Sync>),
    /// The state could not be read.
    #[error("the state could not be read")]
    State(#[source] Box<dyn Error + Send + Sync>),
    /// The tape does not hold the answer that is asked for.
    #[error("the tape does not fit")]
    Tape(#[source] Box<TapeError>),
    /// A source of reads answered something else than was asked.
    #[error("{answers} answers to {requests} requests, or answers of another kind")]
    Answers {
        /// How many requests there were.
        requests: usize,
        /// How many answers came back.
        answers: usize,
    },
    /// The call took longer than the deadline on this machine, reads not counted.
    #[error("the module was still running after {deadline:?}")]
    Deadline {
        /// The engine's deadline.
        deadline: Duration,
    },
    /// The engine could not make an instance: memory or address space is short.
    #[error("no instance could be made: {0}")]
    Instance(String),
}

impl From<TapeError> for World {
    fn from(error: TapeError) -> World {
        World::Tape(Box::new(error))
    }
}

impl World {
    /// The chain could not be read, for this reason.
    pub fn chain(source: impl Into<Box<dyn Error + Send + Sync>>) -> World {
        World::Chain(source.into())
    }

    /// The state could not be read, for this reason.
    pub fn state(source: impl Into<Box<dyn Error + Send + Sync>>) -> World {
        World::State(source.into())
    }
}
