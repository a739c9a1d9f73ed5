//! Every way in which an endpoint says something else than the truth.

/// One way to lie, or to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lie {
    /// HTTP 429.
    TooMany,
    /// HTTP 429 with `Retry-After`.
    TooManyUntil,
    /// HTTP 5xx.
    ServerError,
    /// No answer, and the connection stays.
    Stall,
    /// The connection ends instead.
    HangUp,
    /// The connection ends in the middle of the answer.
    HalfBody,
    /// An answer that is no JSON.
    Garbage,
    /// An answer larger than anybody wants to hold.
    HugeBody,
    /// The answers of a batch come in another order, and there is one that nobody asked for.
    BatchShuffled,
    /// An answer of a batch is missing.
    BatchIncomplete,
    /// A batch is answered with one error.
    BatchRefused,

    /// `null` instead of what was asked for.
    Null,
    /// An error instead of what was asked for.
    Refused,
    /// Another chain id.
    WrongChainId,
    /// The newest block is one from before.
    HeadBack,
    /// The newest block is one that was never canonical.
    Sibling,
    /// For some calls, everything is as it was some blocks ago.
    Lagging,
    /// Another block than the one asked for.
    OtherBlock,
    /// A header whose bloom is not the one that it was hashed with.
    WrongBloom,
    /// A header whose receipts root is not the one that it was hashed with.
    WrongReceiptsRoot,
    /// A header with another hash than its own.
    WrongHash,
    /// No logs, under a bloom that says that there are some.
    EmptyLogs,
    /// The last logs are missing.
    TruncatedLogs,
    /// A log is missing, and the bloom does not show it.
    QuietlyTruncatedLogs,
    /// A log in which a byte of the data is another.
    AlteredData,
    /// A log that never was.
    InventedLog,
    /// Logs of another block.
    OtherBlocksLogs,
    /// Two logs of the same index.
    DuplicatedIndex,
    /// Logs in another order.
    LogsShuffled,
    /// A log that a reorg took back.
    RemovedLog,
    /// A receipt is missing.
    TruncatedReceipts,
    /// A receipt that says something else.
    AlteredReceipt,
    /// Harmless: hexadecimal digits in capitals and not.
    MixedCase,
    /// Harmless: what is not needed is missing.
    OptionalMissing,

    /// A new head is not announced.
    HeadMissing,
    /// A new head is announced twice.
    HeadTwice,
    /// A new head is announced after the one that follows it.
    HeadLate,
    /// A head is announced that nobody produced.
    HeadInvented,
    /// A notification of a subscription that nobody has.
    HeadForeign,
    /// A frame that is none.
    BrokenFrame,
    /// The WebSocket takes what is sent to it and says nothing any more.
    HalfClosed,
}

/// Where a lie can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Instead of a message, whatever its calls.
    Message,
    /// Instead of the answer to a batch.
    Batch,
    /// About a call of one of these methods.
    Call(&'static [&'static str]),
    /// In place of a notification.
    Notification,
}

/// Who finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// Whoever looks at ids, parent hashes and order, or it does no harm.
    Always,
    /// Whoever hashes headers and compares blooms too.
    Bloom,
    /// Only who computes the receipts root.
    Receipts,
}

const BLOCKS: &[&str] = &["eth_getBlockByNumber", "eth_getBlockByHash"];
const LOGS: &[&str] = &["eth_getLogs"];
const DATA: &[&str] = &[
    "eth_getBlockByNumber",
    "eth_getBlockByHash",
    "eth_getLogs",
    "eth_getBlockReceipts",
    "eth_getTransactionReceipt",
];
const LOGS_ANYWHERE: &[&str] =
    &["eth_getLogs", "eth_getBlockReceipts", "eth_getTransactionReceipt"];
const HEAD: &[&str] = &["eth_getBlockByNumber", "eth_blockNumber"];

impl Lie {
    /// All of them.
    pub const ALL: &[Lie] = &[
        Lie::TooMany,
        Lie::TooManyUntil,
        Lie::ServerError,
        Lie::Stall,
        Lie::HangUp,
        Lie::HalfBody,
        Lie::Garbage,
        Lie::HugeBody,
        Lie::BatchShuffled,
        Lie::BatchIncomplete,
        Lie::BatchRefused,
        Lie::Null,
        Lie::Refused,
        Lie::WrongChainId,
        Lie::HeadBack,
        Lie::Sibling,
        Lie::Lagging,
        Lie::OtherBlock,
        Lie::WrongBloom,
        Lie::WrongReceiptsRoot,
        Lie::WrongHash,
        Lie::EmptyLogs,
        Lie::TruncatedLogs,
        Lie::QuietlyTruncatedLogs,
        Lie::AlteredData,
        Lie::InventedLog,
        Lie::OtherBlocksLogs,
        Lie::DuplicatedIndex,
        Lie::LogsShuffled,
        Lie::RemovedLog,
        Lie::TruncatedReceipts,
        Lie::AlteredReceipt,
        Lie::MixedCase,
        Lie::OptionalMissing,
        Lie::HeadMissing,
        Lie::HeadTwice,
        Lie::HeadLate,
        Lie::HeadInvented,
        Lie::HeadForeign,
        Lie::BrokenFrame,
        Lie::HalfClosed,
    ];

    /// Who finds out about it.
    pub fn notice(self) -> Notice {
        match self {
            Lie::WrongBloom
            | Lie::WrongReceiptsRoot
            | Lie::WrongHash
            | Lie::EmptyLogs
            | Lie::TruncatedLogs
            | Lie::InventedLog => Notice::Bloom,
            Lie::QuietlyTruncatedLogs | Lie::AlteredData => Notice::Receipts,
            _ => Notice::Always,
        }
    }

    /// Whether what is said is true all the same.
    pub fn is_harmless(self) -> bool {
        matches!(self, Lie::MixedCase | Lie::OptionalMissing | Lie::BatchShuffled | Lie::HeadTwice)
    }

    pub(crate) fn place(self) -> Place {
        match self {
            Lie::TooMany
            | Lie::TooManyUntil
            | Lie::ServerError
            | Lie::Stall
            | Lie::HangUp
            | Lie::HalfBody
            | Lie::Garbage
            | Lie::HugeBody => Place::Message,
            Lie::BatchShuffled | Lie::BatchIncomplete | Lie::BatchRefused => Place::Batch,
            Lie::Null | Lie::Refused | Lie::MixedCase | Lie::OptionalMissing => Place::Call(DATA),
            Lie::WrongChainId => Place::Call(&["eth_chainId"]),
            Lie::HeadBack => Place::Call(HEAD),
            Lie::Sibling => Place::Call(&["eth_getBlockByNumber"]),
            Lie::Lagging => Place::Call(DATA),
            Lie::OtherBlock | Lie::WrongBloom | Lie::WrongReceiptsRoot | Lie::WrongHash => {
                Place::Call(BLOCKS)
            }
            Lie::EmptyLogs
            | Lie::TruncatedLogs
            | Lie::InventedLog
            | Lie::OtherBlocksLogs
            | Lie::DuplicatedIndex
            | Lie::LogsShuffled
            | Lie::RemovedLog => Place::Call(LOGS),
            Lie::QuietlyTruncatedLogs | Lie::AlteredData => Place::Call(LOGS_ANYWHERE),
            Lie::TruncatedReceipts => Place::Call(&["eth_getBlockReceipts"]),
            Lie::AlteredReceipt => {
                Place::Call(&["eth_getBlockReceipts", "eth_getTransactionReceipt"])
            }
            Lie::HeadMissing
            | Lie::HeadTwice
            | Lie::HeadLate
            | Lie::HeadInvented
            | Lie::HeadForeign
            | Lie::BrokenFrame
            | Lie::HalfClosed => Place::Notification,
        }
    }
}
