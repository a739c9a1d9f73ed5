//! What an endpoint is able to do beyond what every endpoint must.

/// What an endpoint is able to do, as it showed itself when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether it answers `eth_getLogs` for one block by hash.
    pub logs_by_hash: bool,
    /// Whether it knows the block tag `finalized`.
    pub finalized_tag: bool,
    /// Whether it has `eth_getBlockReceipts`.
    pub block_receipts: bool,
    /// Most calls it accepts in one message, up to the configured number.
    pub batch_calls: usize,
    /// How old the state may be that it answers about.
    pub archive_depth: ArchiveDepth,
}

/// How old the state may be that an endpoint answers about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveDepth {
    /// It has the state after the chain's first block.
    Full,
    /// It has the state at least this many blocks behind its head.
    Blocks(u64),
    /// It showed no old state at all.
    Unknown,
}
