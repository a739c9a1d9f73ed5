//! The vocabulary and the durable truth.
//!
//! This crate alone knows the storage engine and the bytes on disk.

mod types;

pub use types::{
    Block, BlockRef, ChainName, Digest, Header, InvalidLaneId, InvalidName, LaneId, Log,
    ModuleName, NAME_BYTES_MAX, Offset, Record, Revert,
};
