//! The words of the journal as types.
//!
//! ```text
//! offset   0     1     2     3     4
//!        [blk] [blk] [rev] [blk]
//!                                  ^ tail: the first offset not yet written
//! ```
//!
//! A record is a [`Block`] with all its logs, a [`Revert`], or the [`Outcome`] of an effect. Everything downstream, lanes and
//! modules included, is a function of these records in this order.

use std::{fmt, str::FromStr};

use alloy_primitives::{Address, B256, Bytes};

use crate::effect::Outcome;

/// Position of a record in a chain's journal.
///
/// Offsets are dense and start at zero. As a bound an offset is exclusive: `next`, `tail` and
/// `end` name the first record that is *not* included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

impl Offset {
    /// The first offset of every journal.
    pub const START: Offset = Offset(0);

    /// The offset that counts this many records from the start.
    pub const fn new(records: u64) -> Offset {
        Offset(records)
    }

    /// How many records precede this offset.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The offset this many records later.
    #[must_use]
    pub const fn plus(self, records: u64) -> Offset {
        Offset(self.0 + records)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A block's number and hash: enough to name it on any branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockRef {
    /// Height in the chain.
    pub number: u64,
    /// Hash of the header.
    pub hash: B256,
}

impl fmt::Display for BlockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.number, self.hash)
    }
}

/// What the journal keeps of a block's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The block itself.
    pub this: BlockRef,
    /// Hash of the block before it.
    pub parent: B256,
    /// The block's own time, in seconds since 1970.
    pub timestamp: u64,
    /// The consensus header in RLP: keccak-256 of these bytes is `this.hash`, on chains whose
    /// hashes can be recomputed. Kept so that the hash and the bloom can be checked again later.
    pub rlp: Bytes,
}

/// One event a contract emitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The contract.
    pub address: Address,
    /// Zero to four topics; the first is normally the event's signature hash.
    pub topics: Vec<B256>,
    /// The event's unindexed arguments.
    pub data: Bytes,
    /// Position among all logs of the block.
    pub index: u32,
    /// Position of the transaction in the block.
    pub transaction_index: u32,
    /// Hash of the transaction.
    pub transaction_hash: B256,
}

/// A block and **all** its logs, in log-index order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The header.
    pub header: Header,
    /// All logs, strictly increasing in `index`.
    pub logs: Vec<Log>,
}

/// A reorg: the blocks after `ancestor` are no longer part of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revert {
    /// The last block that both branches share.
    pub ancestor: BlockRef,
    /// The abandoned blocks, in chain order: `ancestor.number + 1` and up, without gaps.
    pub abandoned: Vec<BlockRef>,
}

/// One entry of a chain's journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The chain grew by a block.
    Block(Block),
    /// The chain took back blocks.
    Revert(Revert),
    /// Something came of a lane's effect.
    Outcome(Outcome),
}

/// A BLAKE3 digest. Chained digests start from [`Digest::ZERO`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest before anything was digested.
    pub const ZERO: Digest = Digest([0; 32]);

    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        B256::from(self.0).fmt(f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Longest chain or module name, in bytes.
///
/// Names become part of metric labels, URLs and file names; sixty-four is already unwieldy there.
pub const NAME_BYTES_MAX: usize = 64;

/// A name that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a name: use 1 to {NAME_BYTES_MAX} lower-case letters, digits and hyphens, starting with a letter"
)]
pub struct InvalidName(pub String);

fn check_name(text: &str) -> Result<(), InvalidName> {
    let starts_well = text.starts_with(|c: char| c.is_ascii_lowercase());
    let all_allowed =
        text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if starts_well && all_allowed && text.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(InvalidName(text.to_owned()))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<$name, InvalidName> {
                check_name(text)?;
                Ok($name(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name! {
    /// What the operator calls a chain, such as `sepolia`.
    ChainName
}

name! {
    /// A module's name, from its manifest.
    ModuleName
}

/// One module on one chain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId {
    /// The module.
    pub module: ModuleName,
    /// The chain it follows.
    pub chain: ChainName,
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.module, self.chain)
    }
}

/// Text that names no lane.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLaneId {
    /// The `@` is missing.
    #[error("`{0}` is not a lane: write MODULE@CHAIN, for example twap-monitor@sepolia")]
    Form(String),
    /// One of the two names is not a name.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

impl FromStr for LaneId {
    type Err = InvalidLaneId;

    fn from_str(text: &str) -> Result<LaneId, InvalidLaneId> {
        let (module, chain) =
            text.split_once('@').ok_or_else(|| InvalidLaneId::Form(text.to_owned()))?;
        Ok(LaneId { module: module.parse()?, chain: chain.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_lower_case_and_start_with_a_letter() {
        for good in ["a", "sepolia", "twap-monitor", "base2"] {
            assert!(good.parse::<ChainName>().is_ok(), "{good}");
        }
        for bad in ["", "1inch", "-a", "A", "a b", "a@b", "a/b", "é", &"a".repeat(65)] {
            assert_eq!(bad.parse::<ChainName>(), Err(InvalidName(bad.to_owned())));
        }
    }

    #[test]
    fn a_lane_is_written_module_at_chain() {
        let lane: LaneId = "token-ledger@devnet".parse().unwrap();
        assert_eq!(lane.module.as_str(), "token-ledger");
        assert_eq!(lane.chain.as_str(), "devnet");
        assert_eq!(lane.to_string(), "token-ledger@devnet");
        assert!("token-ledger".parse::<LaneId>().is_err());
        assert!("A@b".parse::<LaneId>().is_err());
    }
}
