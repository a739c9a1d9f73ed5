//! Bytes on disk.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `journal-CHAIN-SEGMENT` | offset 8, part 2 | a piece of a record: length 4, kind 1, offset 8, previous digest 32, body |
//! | `index-CHAIN-SEGMENT` | kind 1, address 20 or topic 32 or nothing, first offset of a chunk 8 | a roaring bitmap of offsets in the segment |
//! | `blocks` | chain 2, number 8, hash 32 | offset |
//! | `cursors` | lane 4 | [`CursorRow`] |
//! | `commits` | lane 4, commit 8 | [`CommitRow`] |
//! | `state` | lane 4, generation 4, key | the module's bytes |
//! | `undo` | lane 4, generation 4, offset 8, index 4 | 0: [`UndoHead`], from 1: [`UndoRow`] |
//! | `tape` | lane 4, offset 8, call 4 | [`TapeRow`] |
//! | `effects` | lane 4, offset 8, index 4 | [`EffectRow`] |
//! | `outbox` | lane 4, offset 8, index 4 | [`OutboxRow`], while nothing has come of the effect |
//! | `done` | lane 4, BLAKE3 of the effect's key 32 | [`DoneRow`], once the receiver has it |
//! | `outcomes` | lane 4, offset 8, index 4 | what a replay's venue made of an effect, as in a record |
//! | `traces` | lane 4, offset 8 | [`TraceRow`], of a replay |
//! | `meta` | `chain/NAME`, `lane/NAME`, `revert/` chain 2, offset 8 | [`ChainRow`], [`LaneRow`], [`RevertRow`] |
//! | | `rebuild/NAME` | [`LaneRow`] of a lane's next generation |
//! | | `dropped/` lane 4 | whether the rows of a generation that was replaced are gone |
//! | | `version/` lane 4, offset 8 | [`VersionRow`] |
//! | | `genesis/` chain 2 | hash of block 0 |
//! | | `start/` chain 2 | [`StartRow`], once records were removed |
//! | | `trimmed/` chain 2, offset 8 | height that a removed revert went back to |
//! | | `indexed/` chain 2 | the offset up to which there is a log index |
//!
//! Keys are big-endian and of fixed width, so that they sort in journal order. Every value is
//! sealed: a version byte, the content, and eight bytes of XXH3 over the content seeded with the
//! hash of the key, so that a value can neither be damaged nor stand under a foreign key without
//! being noticed. Contents are bincode with big-endian variable-width integers.
//!
//! A record is cut into parts because the engine is given no value over [`VALUE_BYTES_MAX`], and
//! a block may well emit more than that.

use alloy_primitives::{Address, B256, FixedBytesSliceExt};
use bincode::{BorrowDecode, Decode, Encode, config};
use roaring::RoaringBitmap;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::{
    effect::{
        Deliver, Effect, EffectId, EffectKey, EffectResult, ORDER_UID_BYTES, Outcome, Refusal,
    },
    outbox::OutboxState,
    types::{Block, BlockRef, Digest, Header, Log, ModuleName, Offset, Record, Revert},
};

/// Version of the bytes after it. A reader refuses what it does not know.
pub const VERSION: u8 = 1;

/// Longest key the engine is given. Longer than 64 KiB makes it panic after it has taken its
/// write lock (hazard F9); a kilobyte is what a module may use, plus our own prefix.
pub const KEY_BYTES_MAX: usize = 1024 + KEY_PREFIX_BYTES;

/// The lane and generation before a module's own key.
const KEY_PREFIX_BYTES: usize = 8;

/// Longest value a module may store, and longest piece of a record.
pub const CONTENT_BYTES_MAX: usize = 1 << 20;

/// Longest value the engine is given (hazard F9): the longest content with its seal, and in an
/// undo row with its key as well.
pub const VALUE_BYTES_MAX: usize = CONTENT_BYTES_MAX + SEAL_BYTES + KEY_BYTES_MAX + 16;

/// Version byte and checksum around every value.
pub const SEAL_BYTES: usize = 9;

/// Longest encoded record. A record is written in one batch with its index rows, and a batch
/// must stay under [`crate::writer::BATCH_BYTES_MAX`]. A block of 36 million gas can emit
/// 4.5 MB of log data at 8 gas a byte.
pub const RECORD_BYTES_MAX: usize = 7 << 20;

fn config() -> impl config::Config {
    config::standard().with_big_endian()
}

/// Why stored bytes could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The value is shorter or longer than its layout.
    #[error("the stored bytes have the wrong length")]
    WrongLength,
    /// Written by another version of this program.
    #[error("the stored bytes are of version {0}, this program reads version {VERSION}")]
    UnknownVersion(u8),
    /// The checksum over key and content does not hold.
    #[error("the checksum does not hold")]
    Checksum,
    /// The record says it belongs elsewhere.
    #[error("the record says it is at offset {0}")]
    WrongOffset(Offset),
    /// A record of a kind this program does not know.
    #[error("record kind {0} is unknown")]
    UnknownKind(u8),
    /// The content does not follow its layout.
    #[error("the stored bytes do not follow their layout: {0}")]
    Layout(String),
}

/// Seals `content` for storage under `key`.
pub fn seal(key: &[u8], content: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(content.len() + SEAL_BYTES);
    sealed.push(VERSION);
    sealed.extend_from_slice(content);
    sealed.extend_from_slice(&checksum(key, content).to_be_bytes());
    sealed
}

/// Takes the seal off again, or says what is wrong with it.
pub fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let [version, rest @ ..] = sealed else { return Err(DecodeError::WrongLength) };
    if *version != VERSION {
        return Err(DecodeError::UnknownVersion(*version));
    }
    let Some((content, sum)) = rest.split_last_chunk::<8>() else {
        return Err(DecodeError::WrongLength);
    };
    if u64::from_be_bytes(*sum) != checksum(key, content) {
        return Err(DecodeError::Checksum);
    }
    Ok(content)
}

/// The content of a value whose seal was checked before.
pub fn sealed_content(sealed: &[u8]) -> &[u8] {
    &sealed[1..sealed.len() - (SEAL_BYTES - 1)]
}

fn checksum(key: &[u8], content: &[u8]) -> u64 {
    xxh3_64_with_seed(content, xxh3_64(key))
}

/// Encodes a row and seals it.
pub fn seal_row(key: &[u8], row: impl Encode) -> Vec<u8> {
    seal(key, &encode(row))
}

/// Unseals and decodes a row.
pub fn unseal_row<T: Decode<()>>(key: &[u8], sealed: &[u8]) -> Result<T, DecodeError> {
    decode(unseal(key, sealed)?)
}

fn decode<T: Decode<()>>(content: &[u8]) -> Result<T, DecodeError> {
    let (row, read) = bincode::decode_from_slice(content, config())
        .map_err(|error| DecodeError::Layout(error.to_string()))?;
    if read != content.len() {
        return Err(DecodeError::WrongLength);
    }
    Ok(row)
}

fn encode(row: impl Encode) -> Vec<u8> {
    bincode::encode_to_vec(row, config()).expect("encoding into memory cannot fail")
}

// ---------------------------------------------------------------------------------------------
// Keys

/// Key of one part of a record.
pub fn record_key(offset: Offset, part: u16) -> [u8; 10] {
    join(offset.get().to_be_bytes(), part.to_be_bytes())
}

/// Takes a record key apart.
pub fn parse_record_key(key: &[u8]) -> Result<(Offset, u16), DecodeError> {
    let Some((offset, part)) = key.split_first_chunk::<8>() else {
        return Err(DecodeError::WrongLength);
    };
    let part = part.try_into().map_err(|_| DecodeError::WrongLength)?;
    Ok((Offset::new(u64::from_be_bytes(*offset)), u16::from_be_bytes(part)))
}

/// Common start of the keys of every block at one height.
pub fn blocks_prefix(chain: u16, number: u64) -> [u8; 10] {
    join(chain.to_be_bytes(), number.to_be_bytes())
}

/// Key of a block in the block index.
pub fn block_key(chain: u16, block: BlockRef) -> [u8; 42] {
    join(blocks_prefix(chain, block.number), block.hash.0)
}

/// The height in a block key.
pub fn parse_block_number(key: &[u8]) -> Result<u64, DecodeError> {
    let number = key.get(2..).and_then(|rest| rest.first_chunk::<8>());
    number.map(|number| u64::from_be_bytes(*number)).ok_or(DecodeError::WrongLength)
}

/// The hash at the end of a block key.
pub fn parse_block_key(key: &[u8]) -> Result<B256, DecodeError> {
    let (_, hash) = key.split_last_chunk::<32>().ok_or(DecodeError::WrongLength)?;
    Ok(B256::from(*hash))
}

/// What a row of the log index is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKind {
    /// Records with a log of an address.
    Address = 0,
    /// Records with a log that has a first topic.
    Topic0 = 1,
    /// Records that are blocks. The last row of a chunk that is written.
    Blocks = 2,
}

/// Key of a row of the log index; `first` is the first record of its chunk.
pub fn index_key(kind: IndexKind, value: &[u8], first: Offset) -> Vec<u8> {
    [&[kind as u8], value, &first.get().to_be_bytes()].concat()
}

/// What a row of the log index is about, and the first record of its chunk.
pub fn parse_index_key(key: &[u8]) -> Result<(IndexKind, Offset), DecodeError> {
    let (start, first) = key.split_last_chunk::<8>().ok_or(DecodeError::WrongLength)?;
    let kind = match (start.first(), start.len()) {
        (Some(0), 21) => IndexKind::Address,
        (Some(1), 33) => IndexKind::Topic0,
        (Some(2), 1) => IndexKind::Blocks,
        _ => return Err(DecodeError::WrongLength),
    };
    Ok((kind, Offset::new(u64::from_be_bytes(*first))))
}

/// Key of a lane's cursor.
pub fn cursor_key(lane: u32) -> [u8; 4] {
    lane.to_be_bytes()
}

/// Key of a commit row.
pub fn commit_key(lane: u32, commit: u64) -> [u8; 12] {
    join(lane.to_be_bytes(), commit.to_be_bytes())
}

/// The commit number at the end of a commit key.
pub fn parse_commit_key(key: &[u8]) -> Result<u64, DecodeError> {
    let (_, commit) = key.split_last_chunk::<8>().ok_or(DecodeError::WrongLength)?;
    Ok(u64::from_be_bytes(*commit))
}

/// Common start of a lane's state keys.
pub fn state_prefix(lane: u32, generation: u32) -> [u8; KEY_PREFIX_BYTES] {
    join(lane.to_be_bytes(), generation.to_be_bytes())
}

/// Key of one of a module's values.
pub fn state_key(lane: u32, generation: u32, key: &[u8]) -> Vec<u8> {
    [&state_prefix(lane, generation), key].concat()
}

/// The module's own part of a state key.
pub fn parse_state_key(key: &[u8]) -> Result<&[u8], DecodeError> {
    key.get(KEY_PREFIX_BYTES..).ok_or(DecodeError::WrongLength)
}

/// Key of an undo row: index 0 is the head, the replaced values follow.
pub fn undo_key(lane: u32, generation: u32, offset: Offset, index: u32) -> [u8; 20] {
    join(undo_prefix(lane, generation, offset), index.to_be_bytes())
}

/// Common start of the undo rows of one record.
pub fn undo_prefix(lane: u32, generation: u32, offset: Offset) -> [u8; 16] {
    join(state_prefix(lane, generation), offset.get().to_be_bytes())
}

/// Offset and index of an undo key.
pub fn parse_undo_key(key: &[u8]) -> Result<(Offset, u32), DecodeError> {
    key.get(KEY_PREFIX_BYTES..).ok_or(DecodeError::WrongLength).and_then(parse_offset_and_index)
}

/// Common start of the tape of one record.
pub fn tape_prefix(lane: u32, offset: Offset) -> [u8; 12] {
    join(lane.to_be_bytes(), offset.get().to_be_bytes())
}

/// Key of one answer on a lane's tape.
pub fn tape_key(lane: u32, offset: Offset, call: u32) -> [u8; 16] {
    join(tape_prefix(lane, offset), call.to_be_bytes())
}

/// Offset and call index of a tape key.
pub fn parse_tape_key(key: &[u8]) -> Result<(Offset, u32), DecodeError> {
    key.get(4..).ok_or(DecodeError::WrongLength).and_then(parse_offset_and_index)
}

/// Common start of a lane's effects, in `effects` and in `outbox`.
pub fn effects_prefix(lane: u32) -> [u8; 4] {
    lane.to_be_bytes()
}

/// Key of an effect, in `effects` and in `outbox`.
pub fn effect_key(lane: u32, id: EffectId) -> [u8; 16] {
    tape_key(lane, id.offset, id.index)
}

/// Key of a trace.
pub fn trace_key(lane: u32, offset: Offset) -> [u8; 12] {
    tape_prefix(lane, offset)
}

/// The record a trace is of.
pub fn parse_trace_key(key: &[u8]) -> Result<Offset, DecodeError> {
    let (_, offset) = key.split_last_chunk::<8>().ok_or(DecodeError::WrongLength)?;
    Ok(Offset::new(u64::from_be_bytes(*offset)))
}

/// The effect a key names.
pub fn parse_effect_key(key: &[u8]) -> Result<EffectId, DecodeError> {
    let (offset, index) = parse_tape_key(key)?;
    Ok(EffectId { offset, index })
}

/// Key of what a receiver has.
pub fn done_key(lane: u32, key: &EffectKey) -> [u8; 36] {
    join(lane.to_be_bytes(), Digest::of(&encode(KeyRow::from(key))).0)
}

fn parse_offset_and_index(bytes: &[u8]) -> Result<(Offset, u32), DecodeError> {
    let (offset, index) = bytes.split_first_chunk::<8>().ok_or(DecodeError::WrongLength)?;
    let index = index.try_into().map_err(|_| DecodeError::WrongLength)?;
    Ok((Offset::new(u64::from_be_bytes(*offset)), u32::from_be_bytes(index)))
}

/// Start of the meta keys that hold chains; the name follows.
pub const CHAIN_PREFIX: &[u8] = b"chain/";
/// Start of the meta keys that hold lanes; the name follows.
pub const LANE_PREFIX: &[u8] = b"lane/";
/// Start of the meta keys that hold the next generations of lanes; the name follows.
pub const REBUILD_PREFIX: &[u8] = b"rebuild/";
/// Start of the meta keys that hold generations that were replaced; the number follows.
pub const DROPPED_PREFIX: &[u8; 8] = b"dropped/";
const VERSION_PREFIX: &[u8; 8] = b"version/";
const REVERT_PREFIX: &[u8; 7] = b"revert/";
const GENESIS_PREFIX: &[u8; 8] = b"genesis/";
const INDEXED_PREFIX: &[u8; 8] = b"indexed/";
const START_PREFIX: &[u8; 6] = b"start/";
const TRIMMED_PREFIX: &[u8; 8] = b"trimmed/";

/// Key of a generation that was replaced in `meta`.
pub fn dropped_key(lane: u32) -> [u8; 12] {
    join(*DROPPED_PREFIX, lane.to_be_bytes())
}

/// The number in such a key.
pub fn parse_dropped_key(key: &[u8]) -> Result<u32, DecodeError> {
    let (_, lane) = key.split_last_chunk::<4>().ok_or(DecodeError::WrongLength)?;
    Ok(u32::from_be_bytes(*lane))
}

/// Common start of a lane's versions in `meta`.
pub fn versions_prefix(lane: u32) -> [u8; 12] {
    join(*VERSION_PREFIX, lane.to_be_bytes())
}

/// Key of what a lane runs from an offset on in `meta`.
pub fn version_key(lane: u32, from: Offset) -> [u8; 20] {
    join(versions_prefix(lane), from.get().to_be_bytes())
}

/// Key of where a chain's journal starts in `meta`.
pub fn start_key(chain: u16) -> [u8; 8] {
    join(*START_PREFIX, chain.to_be_bytes())
}

/// Common start of a chain's removed reverts in `meta`.
pub fn trimmed_reverts_prefix(chain: u16) -> [u8; 10] {
    join(*TRIMMED_PREFIX, chain.to_be_bytes())
}

/// Key of a removed revert in `meta`.
pub fn trimmed_revert_key(chain: u16, offset: Offset) -> [u8; 18] {
    join(trimmed_reverts_prefix(chain), offset.get().to_be_bytes())
}

/// Key of how far a chain has a log index in `meta`.
pub fn indexed_key(chain: u16) -> [u8; 10] {
    join(*INDEXED_PREFIX, chain.to_be_bytes())
}

/// Key of the hash of a chain's block 0 in `meta`.
pub fn genesis_key(chain: u16) -> [u8; 10] {
    join(*GENESIS_PREFIX, chain.to_be_bytes())
}

/// Common start of a chain's reverts in `meta`.
pub fn reverts_prefix(chain: u16) -> [u8; 9] {
    join(*REVERT_PREFIX, chain.to_be_bytes())
}

/// Key of a revert in `meta`.
pub fn revert_key(chain: u16, offset: Offset) -> [u8; 17] {
    join(reverts_prefix(chain), offset.get().to_be_bytes())
}

/// The offset at the end of a revert key.
pub fn parse_revert_key(key: &[u8]) -> Result<Offset, DecodeError> {
    let (_, offset) = key.split_last_chunk::<8>().ok_or(DecodeError::WrongLength)?;
    Ok(Offset::new(u64::from_be_bytes(*offset)))
}

fn join<const A: usize, const B: usize, const N: usize>(a: [u8; A], b: [u8; B]) -> [u8; N] {
    const { assert!(A + B == N) };
    let mut key = [0; N];
    key[..A].copy_from_slice(&a);
    key[A..].copy_from_slice(&b);
    key
}

// ---------------------------------------------------------------------------------------------
// Rows

/// A chain this store knows.
#[derive(Encode, Decode)]
pub struct ChainRow {
    /// Short number that stands for the chain in keys.
    pub number: u16,
    /// `eth_chainId`.
    pub chain_id: u64,
}

/// A lane this store knows.
#[derive(Encode, Decode)]
pub struct LaneRow {
    /// Short number that stands for the lane in keys.
    pub number: u32,
    /// What the lane is for, `None` in a row of format 3: its effects go out.
    pub role: Option<RoleRow>,
}

/// What a lane is for.
#[derive(Encode, Decode)]
pub enum RoleRow {
    /// Its effects go out, by the outbox of this number.
    Live { outbox: u32 },
    /// It replays a journal with this id from this offset on.
    Replay { start: u64, chain_id: u64 },
    /// It is the next generation of a live lane, from this offset on.
    Rebuild { start: u64 },
}

/// What a lane runs from some offset on.
#[derive(Encode, Decode)]
pub struct VersionRow {
    /// sha256 of the component.
    pub module: [u8; 32],
    /// sha256 of what it is bound to.
    pub binding: [u8; 32],
}

/// What the handling of one record took and led to.
#[derive(Encode, Decode)]
pub struct TraceRow {
    pub block: BlockRow,
    pub timestamp: u64,
    pub kind: u8,
    pub logs: u32,
    pub reads: u32,
    pub writes: u32,
    pub effects: u32,
    pub outcomes: u32,
    pub fuel: u64,
    pub micros: u64,
    pub wrote: [u8; 32],
    pub read: [u8; 32],
    pub after: [u8; 32],
}

/// Where a journal starts from which records were removed.
#[derive(Encode, Decode)]
pub struct StartRow {
    /// Offset of the first record that is still there.
    pub start: u64,
    /// Digest of the record before it.
    pub previous: [u8; 32],
}

/// The records a revert abandoned.
#[derive(Encode, Decode)]
pub struct RevertRow {
    /// Offsets of the abandoned blocks, in chain order.
    pub abandoned: Vec<u64>,
}

/// Number and hash of a block.
#[derive(Clone, Copy, Encode, Decode)]
pub struct BlockRow {
    number: u64,
    hash: [u8; 32],
}

impl From<BlockRef> for BlockRow {
    fn from(block: BlockRef) -> BlockRow {
        BlockRow { number: block.number, hash: block.hash.0 }
    }
}

impl From<BlockRow> for BlockRef {
    fn from(row: BlockRow) -> BlockRef {
        BlockRef { number: row.number, hash: B256::from(row.hash) }
    }
}

/// A lane's cursor.
#[derive(Encode, Decode)]
pub struct CursorRow {
    pub next: u64,
    pub block: Option<BlockRow>,
    pub commit: u64,
    pub generation: u32,
    pub digest: [u8; 32],
    pub undo_from: u64,
    /// Sum of the state, `None` in a row of format 2.
    pub state: Option<u128>,
}

/// What one step did.
#[derive(Encode, Decode)]
pub struct CommitRow {
    pub generation: u32,
    pub first: u64,
    pub end: u64,
    pub block: Option<BlockRow>,
    pub writes: u64,
    pub digest: [u8; 32],
    pub module: [u8; 32],
    pub fuel: u64,
    /// Sum of the state it left, `None` in a row of format 2.
    pub state: Option<u128>,
}

/// Unseals a cursor, of this format or an older one.
pub fn unseal_cursor(key: &[u8], sealed: &[u8]) -> Result<CursorRow, DecodeError> {
    unseal_row_of_older(key, sealed)
}

/// Unseals a commit row, of this format or an older one.
pub fn unseal_commit(key: &[u8], sealed: &[u8]) -> Result<CommitRow, DecodeError> {
    unseal_row_of_older(key, sealed)
}

/// Unseals the row of a lane, of this format or an older one.
pub fn unseal_lane(key: &[u8], sealed: &[u8]) -> Result<LaneRow, DecodeError> {
    unseal_row_of_older(key, sealed)
}

/// Reads a row that got its last field, an option, with a later format.
///
/// An older row ends where that field begins, and read with a "none" behind it, it is one.
fn unseal_row_of_older<T: Decode<()>>(key: &[u8], sealed: &[u8]) -> Result<T, DecodeError> {
    let content = unseal(key, sealed)?;
    decode(content).or_else(|error| decode(&[content, &[0]].concat()).map_err(|_| error))
}

/// What is needed to take a record back, besides the values it replaced.
#[derive(Encode, Decode)]
pub struct UndoHead {
    /// Height of the block.
    pub number: u64,
    /// The lane's digest before the record.
    pub digest: [u8; 32],
}

/// One value a record replaced.
#[derive(Encode, Decode)]
pub struct UndoRow {
    /// The module's key.
    pub key: Vec<u8>,
    /// What stood there before, `None` for nothing.
    pub previous: Option<Vec<u8>>,
}

/// One answer of the outside.
#[derive(Encode, Decode)]
pub struct TapeRow {
    pub request: [u8; 32],
    pub answer: Vec<u8>,
}

/// What a receiver tells a repetition by.
#[derive(Encode, Decode)]
pub enum KeyRow {
    /// An order.
    Order([u8; ORDER_UID_BYTES]),
    /// A webhook.
    Webhook {
        /// Where it goes.
        destination: String,
        /// Its key there.
        key: String,
    },
}

impl From<&EffectKey> for KeyRow {
    fn from(key: &EffectKey) -> KeyRow {
        match key {
            EffectKey::Order(uid) => KeyRow::Order(*uid),
            EffectKey::Webhook { destination, key } => {
                KeyRow::Webhook { destination: destination.clone(), key: key.clone() }
            }
        }
    }
}

impl From<KeyRow> for EffectKey {
    fn from(row: KeyRow) -> EffectKey {
        match row {
            KeyRow::Order(uid) => EffectKey::Order(uid),
            KeyRow::Webhook { destination, key } => EffectKey::Webhook { destination, key },
        }
    }
}

/// When an effect may leave.
#[derive(Encode, Decode)]
pub enum DeliverRow {
    /// At once.
    Instant,
    /// After so many blocks.
    Confirmations(u32),
    /// When its block is final.
    Finalized,
}

/// An effect as its step wrote it. Never changed.
#[derive(Encode, Decode)]
pub struct EffectRow {
    block: BlockRow,
    key: KeyRow,
    body: Vec<u8>,
    deliver: DeliverRow,
    expires: u64,
}

impl EffectRow {
    /// The row of an effect that was asked for at a block.
    pub fn new(block: BlockRef, effect: &Effect) -> EffectRow {
        EffectRow {
            block: block.into(),
            key: (&effect.key).into(),
            body: effect.body.clone(),
            deliver: match effect.deliver {
                Deliver::Instant => DeliverRow::Instant,
                Deliver::Confirmations(blocks) => DeliverRow::Confirmations(blocks),
                Deliver::Finalized => DeliverRow::Finalized,
            },
            expires: effect.expires,
        }
    }

    /// The block and the effect.
    pub fn into_effect(self) -> (BlockRef, Effect) {
        let effect = Effect {
            key: self.key.into(),
            body: self.body,
            deliver: match self.deliver {
                DeliverRow::Instant => Deliver::Instant,
                DeliverRow::Confirmations(blocks) => Deliver::Confirmations(blocks),
                DeliverRow::Finalized => Deliver::Finalized,
            },
            expires: self.expires,
        };
        (self.block.into(), effect)
    }
}

/// Digest of an effect and of the block that asked for it.
pub fn effect_digest(block: BlockRef, effect: &Effect) -> Digest {
    Digest::of(&encode(EffectRow::new(block, effect)))
}

/// How far an effect has come that nothing has come of yet.
#[derive(Encode, Decode)]
pub enum OutboxRow {
    /// It was not sent.
    Waiting,
    /// It may have been sent.
    Attempted,
    /// It may have been sent, and its block was taken back.
    Orphaned,
}

impl From<OutboxState> for OutboxRow {
    fn from(state: OutboxState) -> OutboxRow {
        match state {
            OutboxState::Waiting => OutboxRow::Waiting,
            OutboxState::Attempted => OutboxRow::Attempted,
            OutboxState::Orphaned => OutboxRow::Orphaned,
        }
    }
}

impl From<OutboxRow> for OutboxState {
    fn from(row: OutboxRow) -> OutboxState {
        match row {
            OutboxRow::Waiting => OutboxState::Waiting,
            OutboxRow::Attempted => OutboxState::Attempted,
            OutboxRow::Orphaned => OutboxState::Orphaned,
        }
    }
}

/// A receiver has what is named by the key.
#[derive(Encode, Decode)]
pub struct DoneRow {
    /// Offset of the outcome that says so.
    pub outcome: u64,
}

/// The file beside the engine that says how far the store has certainly come.
#[derive(Encode, Decode)]
pub struct HighwaterRow {
    /// Chain, tail, digest of the record before it.
    pub chains: Vec<(u16, u64, [u8; 32])>,
    /// Lane and its last commit number.
    pub lanes: Vec<(u32, u64)>,
}

/// Seals positions in a segment as a row of the log index.
pub fn seal_positions(key: &[u8], positions: &[u16]) -> Vec<u8> {
    let bitmap: RoaringBitmap = positions.iter().map(|position| u32::from(*position)).collect();
    let mut bytes = Vec::with_capacity(bitmap.serialized_size());
    bitmap.serialize_into(&mut bytes).expect("writing into memory cannot fail");
    seal(key, &bytes)
}

/// Takes a row of the log index apart.
pub fn unseal_positions(key: &[u8], sealed: &[u8]) -> Result<RoaringBitmap, DecodeError> {
    RoaringBitmap::deserialize_from(unseal(key, sealed)?)
        .map_err(|error| DecodeError::Layout(error.to_string()))
}

/// Encodes an offset as a value.
pub fn encode_offset(key: &[u8], offset: Offset) -> Vec<u8> {
    seal_row(key, offset.get())
}

/// Decodes an offset.
pub fn decode_offset(key: &[u8], sealed: &[u8]) -> Result<Offset, DecodeError> {
    unseal_row(key, sealed).map(Offset::new)
}

// ---------------------------------------------------------------------------------------------
// Records

const KIND_BLOCK: u8 = 1;
const KIND_REVERT: u8 = 2;
const KIND_OUTCOME: u8 = 3;

/// Length, kind, offset and previous digest before every record's body.
const RECORD_HEAD_BYTES: usize = 4 + 1 + 8 + 32;

#[derive(Encode, BorrowDecode)]
struct BlockBody<'a> {
    number: u64,
    hash: [u8; 32],
    parent: [u8; 32],
    timestamp: u64,
    rlp: &'a [u8],
    logs: u32,
}

#[derive(Encode, BorrowDecode)]
struct LogBody<'a> {
    address: [u8; 20],
    topics: &'a [u8],
    data: &'a [u8],
    index: u32,
    transaction_index: u32,
    transaction_hash: [u8; 32],
}

#[derive(Encode, Decode)]
struct RevertBody {
    ancestor: BlockRow,
    abandoned: Vec<BlockRow>,
}

#[derive(Encode, Decode)]
struct OutcomeBody {
    module: String,
    effect_offset: u64,
    effect_index: u32,
    key: KeyRow,
    block: BlockRow,
    result: ResultBody,
    attempts: u32,
    at_millis: u64,
    head: BlockRow,
}

#[derive(Encode, Decode)]
enum ResultBody {
    Accepted,
    AlreadyThere,
    Refused {
        status: u16,
        error_type: Option<String>,
        description: String,
        body: Vec<u8>,
        retry_after: Option<u32>,
    },
    Expired,
    Cancelled(String),
    DryRun,
}

impl From<&EffectResult> for ResultBody {
    fn from(result: &EffectResult) -> ResultBody {
        match result {
            EffectResult::Accepted => ResultBody::Accepted,
            EffectResult::AlreadyThere => ResultBody::AlreadyThere,
            EffectResult::Refused(refusal) => ResultBody::Refused {
                status: refusal.status,
                error_type: refusal.error_type.clone(),
                description: refusal.description.clone(),
                body: refusal.body.clone(),
                retry_after: refusal.retry_after,
            },
            EffectResult::Expired => ResultBody::Expired,
            EffectResult::Cancelled(why) => ResultBody::Cancelled(why.clone()),
            EffectResult::DryRun => ResultBody::DryRun,
        }
    }
}

impl From<ResultBody> for EffectResult {
    fn from(body: ResultBody) -> EffectResult {
        match body {
            ResultBody::Accepted => EffectResult::Accepted,
            ResultBody::AlreadyThere => EffectResult::AlreadyThere,
            ResultBody::Refused { status, error_type, description, body, retry_after } => {
                EffectResult::Refused(Refusal {
                    status,
                    error_type,
                    description,
                    body,
                    retry_after,
                })
            }
            ResultBody::Expired => EffectResult::Expired,
            ResultBody::Cancelled(why) => EffectResult::Cancelled(why),
            ResultBody::DryRun => EffectResult::DryRun,
        }
    }
}

/// Encodes a record for `offset`, chained to the record before it.
pub fn encode_record(record: &Record, offset: Offset, previous: Digest) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.push(match record {
        Record::Block(_) => KIND_BLOCK,
        Record::Revert(_) => KIND_REVERT,
        Record::Outcome(_) => KIND_OUTCOME,
    });
    bytes.extend_from_slice(&offset.get().to_be_bytes());
    bytes.extend_from_slice(&previous.0);
    match record {
        Record::Block(block) => encode_block(block, &mut bytes),
        Record::Revert(revert) => append(
            &mut bytes,
            RevertBody {
                ancestor: revert.ancestor.into(),
                abandoned: revert.abandoned.iter().map(|block| (*block).into()).collect(),
            },
        ),
        Record::Outcome(outcome) => append(&mut bytes, OutcomeBody::from(outcome)),
    }
    let length = u32::try_from(bytes.len()).expect("a record is far below 4 GiB");
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

fn encode_block(block: &Block, bytes: &mut Vec<u8>) {
    let header = &block.header;
    append(
        bytes,
        BlockBody {
            number: header.this.number,
            hash: header.this.hash.0,
            parent: header.parent.0,
            timestamp: header.timestamp,
            rlp: &header.rlp,
            logs: u32::try_from(block.logs.len()).expect("a block has far fewer than 2^32 logs"),
        },
    );
    for log in &block.logs {
        append(
            bytes,
            LogBody {
                address: log.address.into_array(),
                topics: log.topics.as_flattened(),
                data: &log.data,
                index: log.index,
                transaction_index: log.transaction_index,
                transaction_hash: log.transaction_hash.0,
            },
        );
    }
}

fn append(bytes: &mut Vec<u8>, body: impl Encode) {
    bincode::encode_into_std_write(body, bytes, config())
        .expect("encoding into memory cannot fail");
}

/// The pieces a record is stored in, in part order.
pub fn record_parts(encoded: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    encoded
        .chunks(CONTENT_BYTES_MAX)
        .enumerate()
        .map(|(part, piece)| (u16::try_from(part).expect("a record has at most 7 parts"), piece))
}

/// Length of the whole record, read from its first part.
pub fn record_length(first_part: &[u8]) -> Result<usize, DecodeError> {
    let length = first_part.first_chunk::<4>().ok_or(DecodeError::WrongLength)?;
    Ok(u32::from_be_bytes(*length) as usize)
}

/// The digest that the next record carries as its `previous`.
pub fn record_digest(encoded: &[u8]) -> Digest {
    Digest::of(encoded)
}

/// A record taken apart up to its logs.
pub struct DecodedRecord<'a> {
    /// Digest of the record before it.
    pub previous: Digest,
    /// The record.
    pub record: RecordView<'a>,
}

/// Decodes a record that is stored at `offset`.
pub fn decode_record(encoded: &[u8], offset: Offset) -> Result<DecodedRecord<'_>, DecodeError> {
    if encoded.len() < RECORD_HEAD_BYTES || record_length(encoded)? != encoded.len() {
        return Err(DecodeError::WrongLength);
    }
    let (head, body) = encoded.split_at(RECORD_HEAD_BYTES);
    let (own_offset, previous) = head[5..].split_at(8);
    let own_offset = Offset::new(u64::from_be_bytes(own_offset.try_into().expect("eight bytes")));
    if own_offset != offset {
        return Err(DecodeError::WrongOffset(own_offset));
    }
    let previous = Digest(previous.try_into().expect("thirty-two bytes"));
    let record = match head[4] {
        KIND_BLOCK => RecordView::Block(decode_block(body)?),
        KIND_REVERT => RecordView::Revert(decode_revert(body)?),
        KIND_OUTCOME => RecordView::Outcome(decode_outcome(body)?),
        kind => return Err(DecodeError::UnknownKind(kind)),
    };
    Ok(DecodedRecord { previous, record })
}

fn decode_block(body: &[u8]) -> Result<BlockView<'_>, DecodeError> {
    let (block, read): (BlockBody<'_>, usize) =
        bincode::borrow_decode_from_slice(body, config())
            .map_err(|error| DecodeError::Layout(error.to_string()))?;
    Ok(BlockView {
        this: BlockRef { number: block.number, hash: B256::from(block.hash) },
        parent: B256::from(block.parent),
        timestamp: block.timestamp,
        rlp: block.rlp,
        logs: Logs { left: block.logs, bytes: &body[read..] },
    })
}

fn decode_revert(body: &[u8]) -> Result<Revert, DecodeError> {
    let (revert, read): (RevertBody, usize) = bincode::decode_from_slice(body, config())
        .map_err(|error| DecodeError::Layout(error.to_string()))?;
    if read != body.len() {
        return Err(DecodeError::WrongLength);
    }
    Ok(Revert {
        ancestor: revert.ancestor.into(),
        abandoned: revert.abandoned.into_iter().map(BlockRef::from).collect(),
    })
}

impl From<&Outcome> for OutcomeBody {
    fn from(outcome: &Outcome) -> OutcomeBody {
        OutcomeBody {
            module: outcome.module.as_str().to_owned(),
            effect_offset: outcome.effect.offset.get(),
            effect_index: outcome.effect.index,
            key: (&outcome.key).into(),
            block: outcome.block.into(),
            result: (&outcome.result).into(),
            attempts: outcome.attempts,
            at_millis: outcome.at_millis,
            head: outcome.head.into(),
        }
    }
}

/// Seals an outcome that is not a record.
pub fn seal_outcome(key: &[u8], outcome: &Outcome) -> Vec<u8> {
    seal_row(key, OutcomeBody::from(outcome))
}

/// Unseals it.
pub fn unseal_outcome(key: &[u8], sealed: &[u8]) -> Result<Outcome, DecodeError> {
    decode_outcome(unseal(key, sealed)?)
}

fn decode_outcome(body: &[u8]) -> Result<Outcome, DecodeError> {
    let (outcome, read): (OutcomeBody, usize) = bincode::decode_from_slice(body, config())
        .map_err(|error| DecodeError::Layout(error.to_string()))?;
    if read != body.len() {
        return Err(DecodeError::WrongLength);
    }
    let module: ModuleName =
        outcome.module.parse().map_err(|_| DecodeError::Layout("a module's name".to_owned()))?;
    Ok(Outcome {
        module,
        effect: EffectId {
            offset: Offset::new(outcome.effect_offset),
            index: outcome.effect_index,
        },
        key: outcome.key.into(),
        block: outcome.block.into(),
        result: outcome.result.into(),
        attempts: outcome.attempts,
        at_millis: outcome.at_millis,
        head: outcome.head.into(),
    })
}

/// A record read in place: nothing is copied until someone asks for it.
#[derive(Clone, Debug)]
pub enum RecordView<'a> {
    /// The chain grew by a block.
    Block(BlockView<'a>),
    /// The chain took back blocks.
    Revert(Revert),
    /// Something came of a lane's effect.
    Outcome(Outcome),
}

impl RecordView<'_> {
    /// An owned copy.
    pub fn to_record(&self) -> Record {
        match self {
            RecordView::Block(block) => Record::Block(block.to_block()),
            RecordView::Revert(revert) => Record::Revert(revert.clone()),
            RecordView::Outcome(outcome) => Record::Outcome(outcome.clone()),
        }
    }
}

/// A block read in place.
#[derive(Clone, Debug)]
pub struct BlockView<'a> {
    /// The block itself.
    pub this: BlockRef,
    /// Hash of the block before it.
    pub parent: B256,
    /// The block's own time, in seconds since 1970.
    pub timestamp: u64,
    /// The consensus header in RLP.
    pub rlp: &'a [u8],
    logs: Logs<'a>,
}

impl<'a> BlockView<'a> {
    /// How many logs the block has.
    pub fn log_count(&self) -> u32 {
        self.logs.left
    }

    /// All logs, decoded one by one as they are asked for.
    pub fn logs(&self) -> Logs<'a> {
        self.logs.clone()
    }

    /// An owned copy.
    pub fn to_block(&self) -> Block {
        Block {
            header: Header {
                this: self.this,
                parent: self.parent,
                timestamp: self.timestamp,
                rlp: self.rlp.to_vec().into(),
            },
            logs: self.logs().map(|log| log.to_log()).collect(),
        }
    }
}

/// The logs of a [`BlockView`].
#[derive(Clone, Debug)]
pub struct Logs<'a> {
    left: u32,
    bytes: &'a [u8],
}

impl<'a> Iterator for Logs<'a> {
    type Item = LogView<'a>;

    fn next(&mut self) -> Option<LogView<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (log, read): (LogBody<'a>, usize) =
            bincode::borrow_decode_from_slice(self.bytes, config())
                .expect("the record's checksum held, so its logs are as they were written");
        self.bytes = &self.bytes[read..];
        Some(LogView {
            address: Address::from(log.address),
            topics: log.topics,
            data: log.data,
            index: log.index,
            transaction_index: log.transaction_index,
            transaction_hash: B256::from(log.transaction_hash),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Logs<'_> {}

/// A log read in place.
#[derive(Clone, Debug)]
pub struct LogView<'a> {
    /// The contract.
    pub address: Address,
    topics: &'a [u8],
    /// The event's unindexed arguments.
    pub data: &'a [u8],
    /// Position among all logs of the block.
    pub index: u32,
    /// Position of the transaction in the block.
    pub transaction_index: u32,
    /// Hash of the transaction.
    pub transaction_hash: B256,
}

impl<'a> LogView<'a> {
    /// The topics, first to last.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = B256> + use<'a> {
        self.topics.chunks_exact(32).map(B256::from_slice)
    }

    /// An owned copy.
    pub fn to_log(&self) -> Log {
        Log {
            address: self.address,
            topics: self.topics().collect(),
            data: self.data.to_vec().into(),
            index: self.index,
            transaction_index: self.transaction_index,
            transaction_hash: self.transaction_hash,
        }
    }
}
