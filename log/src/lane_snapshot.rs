//! What a lane has computed, as of one moment.

use std::ops::{Bound, Range};

use fjall::{Readable, Snapshot};

use crate::{
    codec::{self, EffectRow, TapeRow, unseal, unseal_row},
    effect::{Effect, EffectId, Outcome},
    lane::{Commit, Cursor, TapeEntry},
    lanes::{self, LaneVersion},
    outbox::{self, OutboxEntry},
    state_sum::StateSum,
    store::{Keyspaces, StorageError},
    trace::Trace,
    types::{BlockRef, Digest, Offset},
};

/// One key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// A consistent view of one lane's rows. Steps that commit later do not show in it.
pub struct LaneSnapshot {
    keyspaces: Keyspaces,
    snapshot: Snapshot,
    number: u32,
    /// The number its effects are kept under.
    outbox: u32,
    cursor: Cursor,
}

impl LaneSnapshot {
    pub(crate) fn new(
        keyspaces: Keyspaces,
        snapshot: Snapshot,
        number: u32,
        outbox: u32,
        cursor: Cursor,
    ) -> LaneSnapshot {
        LaneSnapshot { keyspaces, snapshot, number, outbox, cursor }
    }

    pub(crate) fn engine_snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The cursor this state belongs to.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The value under a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let key = codec::state_key(self.number, self.cursor.generation, key);
        let Some(sealed) = self.snapshot.get(&self.keyspaces.state, &key)? else { return Ok(None) };
        let value = unseal(&key, &sealed).map_err(StorageError::damaged("a value of a module"))?;
        Ok(Some(value.to_vec()))
    }

    /// Entries whose keys start with `prefix` and come after `after`, in key order.
    pub fn entries(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<Entry, StorageError>> + use<> {
        let state_key = |key: &[u8]| codec::state_key(self.number, self.cursor.generation, key);
        let prefix = state_key(prefix);
        let start = match after.map(state_key) {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix.clone()),
        };
        self.snapshot
            .range(&self.keyspaces.state, (start, Bound::<Vec<u8>>::Unbounded))
            .map(|entry| {
                let (key, sealed) = entry.into_inner()?;
                let damaged = || StorageError::damaged("a value of a module");
                let value = unseal(&key, &sealed).map_err(damaged())?.to_vec();
                Ok((key.to_vec(), value))
            })
            .take_while(move |entry: &Result<Entry, StorageError>| {
                entry.as_ref().map_or(true, |(key, _)| key.starts_with(&prefix))
            })
            .map(|entry| {
                let (key, value) = entry?;
                let own = codec::parse_state_key(&key)
                    .map_err(StorageError::damaged("a key of a module"))?
                    .to_vec();
                Ok((own, value))
            })
    }

    /// The sum of all entries, which the cursor names too. Reads them all.
    pub fn state_sum(&self) -> Result<StateSum, StorageError> {
        let mut sum = StateSum::default();
        for entry in self.entries(&[], None) {
            let (key, value) = entry?;
            sum.add(&key, &value);
        }
        Ok(sum)
    }

    /// Digest over all keys and values in key order: equal state, equal digest.
    pub fn state_digest(&self) -> Result<Digest, StorageError> {
        let mut hasher = blake3::Hasher::new();
        for entry in self.entries(&[], None) {
            let (key, value) = entry?;
            for part in [&key, &value] {
                hasher.update(&(part.len() as u64).to_be_bytes());
                hasher.update(part);
            }
        }
        Ok(Digest(*hasher.finalize().as_bytes()))
    }

    /// The answers of the outside that the record at `offset` was given, in call order.
    pub fn tape(&self, offset: Offset) -> Result<Vec<TapeEntry>, StorageError> {
        let prefix = codec::tape_prefix(self.number, offset);
        self.snapshot
            .prefix(&self.keyspaces.tape, prefix)
            .map(|entry| {
                let (key, sealed) = entry.into_inner()?;
                let damaged = || StorageError::damaged("an answer on a tape");
                let row: TapeRow = unseal_row(&key, &sealed).map_err(damaged())?;
                let (_, call) = codec::parse_tape_key(&key).map_err(damaged())?;
                Ok(TapeEntry { call, request: Digest(row.request), answer: row.answer })
            })
            .collect()
    }

    /// An effect as its step wrote it, and the block that asked for it.
    pub fn effect(&self, id: EffectId) -> Result<Option<(BlockRef, Effect)>, StorageError> {
        outbox::effect(&self.keyspaces, &self.snapshot, self.outbox, id)
    }

    /// Every effect the lane has asked for, oldest first.
    pub fn effects(
        &self,
    ) -> impl Iterator<Item = Result<(EffectId, BlockRef, Effect), StorageError>> + use<> {
        let prefix = codec::effects_prefix(self.outbox);
        self.snapshot.prefix(&self.keyspaces.effects, prefix).map(|entry| {
            let (key, sealed) = entry.into_inner()?;
            let damaged = || StorageError::damaged("an effect");
            let row: EffectRow = unseal_row(&key, &sealed).map_err(damaged())?;
            let (block, effect) = row.into_effect();
            Ok((codec::parse_effect_key(&key).map_err(damaged())?, block, effect))
        })
    }

    /// Effects that nothing has come of yet, oldest first.
    pub fn outbox(&self) -> Result<Vec<OutboxEntry>, StorageError> {
        outbox::unsettled(&self.keyspaces, &self.snapshot, self.outbox)
    }

    /// Every commit of the lane, oldest first.
    pub fn commits(&self) -> impl Iterator<Item = Result<Commit, StorageError>> + use<> {
        self.snapshot.prefix(&self.keyspaces.commits, self.number.to_be_bytes()).map(|entry| {
            let (key, sealed) = entry.into_inner()?;
            let damaged = || StorageError::damaged("a commit row");
            let row = codec::unseal_commit(&key, &sealed).map_err(damaged())?;
            let number = codec::parse_commit_key(&key).map_err(damaged())?;
            Ok(Commit::new(number, row))
        })
    }

    /// What the lane ran, and from which record on, in order.
    pub fn versions(&self) -> Result<Vec<(Offset, LaneVersion)>, StorageError> {
        lanes::versions(&self.keyspaces, &self.snapshot, self.number)
    }

    /// What a replay remembers of the records of a range that its module was called for, in order.
    pub fn traces(
        &self,
        range: Range<Offset>,
    ) -> impl Iterator<Item = Result<Trace, StorageError>> + use<> {
        let (first, end) = (range.start.min(range.end), range.end);
        let keys = codec::trace_key(self.number, first)..codec::trace_key(self.number, end);
        self.snapshot.range(&self.keyspaces.traces, keys).map(|entry| {
            let (key, sealed) = entry.into_inner()?;
            let damaged = || StorageError::damaged("a trace");
            let row = unseal_row(&key, &sealed).map_err(damaged())?;
            Ok(Trace::from_row(codec::parse_trace_key(&key).map_err(damaged())?, row))
        })
    }

    /// What a replay's venue made of the lane's effects, by effect.
    pub fn outcomes(&self) -> impl Iterator<Item = Result<Outcome, StorageError>> + use<> {
        let prefix = codec::effects_prefix(self.number);
        self.snapshot.prefix(&self.keyspaces.outcomes, prefix).map(|entry| {
            let (key, sealed) = entry.into_inner()?;
            let damaged = StorageError::damaged("the outcome of an effect");
            codec::unseal_outcome(&key, &sealed).map_err(damaged)
        })
    }
}
