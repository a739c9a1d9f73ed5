//! Why a record was not handled, and whose failure that is.

use std::{error::Error, time::Duration};

use alloy_primitives::B256;

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
    /// It asked for something that cannot be asked for.
    #[error(transparent)]
    BadRequest(#[from] Box<BadRequest>),
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
            Fault::BadRequest(_) => "request",
        }
    }
}

impl From<BadRequest> for Fault {
    fn from(bad: BadRequest) -> Fault {
        Fault::BadRequest(Box::new(bad))
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
    /// All writes and effects of the record together.
    #[error(
        "state writes and effects of {bytes} bytes; a record has at most {}",
        limits::WRITES_BYTES_MAX
    )]
    Writes {
        /// Keys, values and effects so far.
        bytes: usize,
    },
    /// Too many effects.
    #[error("more than {} effects of one record", limits::EFFECTS_MAX)]
    Effects,
    /// Too many requests in one read.
    #[error("{requests} requests in one read; at most {most}")]
    Requests {
        /// How many it asked.
        requests: usize,
        /// How many it may ask.
        most: usize,
    },
    /// An order's signature that is too long.
    #[error("a signature of {bytes} bytes; at most {}", limits::SIGNATURE_BYTES_MAX)]
    Signature {
        /// Its length.
        bytes: usize,
    },
    /// An app-data document that is too large.
    #[error("an app-data document of {bytes} bytes; at most {}", limits::APP_DATA_BYTES_MAX)]
    AppData {
        /// Its size.
        bytes: usize,
    },
    /// A webhook's body that is too large.
    #[error("a webhook body of {bytes} bytes; at most {}", limits::WEBHOOK_BODY_BYTES_MAX)]
    WebhookBody {
        /// Its size.
        bytes: usize,
    },
    /// A URL that is too long.
    #[error("a URL of {bytes} bytes; at most {}", limits::URL_BYTES_MAX)]
    Url {
        /// Its length.
        bytes: usize,
    },
    /// An answer of the orderbook that is too large to be asked for.
    #[error(
        "the orderbook's answer has {bytes} bytes; a module can read at most {}",
        limits::ORDERBOOK_ANSWER_BYTES_MAX
    )]
    OrderbookAnswer {
        /// Its size.
        bytes: usize,
    },
    /// A document that is too large to be got.
    #[error("{url} has more than {} bytes", limits::HTTP_BODY_BYTES_MAX)]
    HttpBody {
        /// Where it is.
        url: String,
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

/// What a module asked for and cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// An order's name that is none.
    #[error("an order UID of {bytes} bytes; they have {}", shepherd_log::ORDER_UID_BYTES)]
    OrderUid {
        /// Its length.
        bytes: usize,
    },
    /// An order with another document than it is signed over.
    #[error("the order is signed over the app data {signed}, its document has the hash {given}")]
    OtherAppData {
        /// The hash in the order.
        signed: B256,
        /// The hash of the document.
        given: B256,
    },
    /// A webhook to somewhere the manifest does not name.
    #[error("the webhook `{destination}` is not among `webhooks` of the manifest")]
    Destination {
        /// The name.
        destination: String,
    },
    /// A webhook's key that is none.
    #[error(
        "`{key}` is no webhook key: use 1 to {} printable ASCII characters",
        limits::WEBHOOK_KEY_BYTES_MAX
    )]
    WebhookKey {
        /// What it is.
        key: String,
    },
    /// A webhook's body that is not JSON.
    #[error("the webhook body is not JSON: {reason}")]
    NotJson {
        /// What is wrong with it.
        reason: String,
    },
    /// A URL that is none.
    #[error("`{url}` is not a URL: {reason}")]
    NotAUrl {
        /// What it is.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A URL that is neither `https` nor on this machine.
    #[error("`{url}` cannot be got: use https, or http on loopback")]
    Scheme {
        /// The URL.
        url: String,
    },
    /// A URL with a name or a password in it.
    #[error("the URL at `{host}` carries credentials, which a module must not have")]
    Credentials {
        /// Its host.
        host: String,
    },
    /// A URL of a host the manifest does not list.
    #[error("the host `{host}` is not among `http_hosts` of the manifest")]
    Host {
        /// The host.
        host: String,
    },
}

/// What the world did wrong. Trying again may help; the module is not to blame.
#[derive(Debug, thiserror::Error)]
pub enum World {
    /// The chain could not be read.
    #[error("the chain could not be read")]
    Chain(#[source] Box<dyn Error + Send + Sync>),
    /// The orderbook did not answer, or answered nothing that counts.
    #[error("the orderbook could not be asked")]
    Orderbook(#[source] Box<dyn Error + Send + Sync>),
    /// A server did not answer, or with 429 or 5xx.
    #[error("a document could not be got")]
    Http(#[source] Box<dyn Error + Send + Sync>),
    /// The state could not be read.
    #[error("the state could not be read")]
    State(#[source] Box<dyn Error + Send + Sync>),
    /// The tape does not hold the answer that is asked for.
    #[error("the tape does not fit")]
    Tape(#[source] Box<TapeError>),
    /// A replay has no answer to what is asked.
    #[error("the replay has no answer")]
    Replay(#[source] Box<dyn Error + Send + Sync>),
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

    /// The orderbook could not be asked, for this reason.
    pub fn orderbook(source: impl Into<Box<dyn Error + Send + Sync>>) -> World {
        World::Orderbook(source.into())
    }

    /// A document could not be got, for this reason.
    pub fn http(source: impl Into<Box<dyn Error + Send + Sync>>) -> World {
        World::Http(source.into())
    }

    /// The state could not be read, for this reason.
    pub fn state(source: impl Into<Box<dyn Error + Send + Sync>>) -> World {
        World::State(source.into())
    }
    /// A replay has no answer, for this reason. Whoever runs it finds the reason by its type.
    pub fn replay(source: impl Error + Send + Sync + 'static) -> World {
        World::Replay(Box::new(source))
    }
}
