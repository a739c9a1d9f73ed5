//! The outbox: effects of a lane that nothing has come of yet.
//!
//! ```text
//!             commit               attempt              settle
//!   module ──────────▶ Waiting ──────────▶ Attempted ──────────▶ outcome in the journal
//!                         │                    │                     ▲
//!     its block is taken  │                    │                     │
//!     back: cancelled ◀───┘                    └────▶ Orphaned ──────┘
//! ```
//!
//! Each arrow is one commit. An effect is sent only after `attempt` was durable, so what waits was
//! certainly not sent, and a reorg may remove it. `settle` writes the outcome, removes the row and
//! remembers what the receiver has together, so an outcome is in the journal exactly once.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use fjall::{Readable, Snapshot};
use tokio::sync::watch;

use crate::{
    codec::{self, DoneRow, EffectRow, OutboxRow, seal_row, unseal_row},
    effect::{Deliver, Effect, EffectId, EffectKey, EffectResult, Outcome},
    journal::{AppendError, Journal},
    lane::ROW_OVERHEAD_BYTES,
    store::{Core, Keyspaces, StorageError},
    types::{BlockRef, LaneId, Record},
    writer::{Batch, SizeError},
};

/// Outcomes journaled in one batch. A refusal of the largest size weighs some ten kilobytes.
const SETTLED_TOGETHER_MAX: usize = 256;

/// How far an effect has come that nothing has come of yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboxState {
    /// It was not sent.
    Waiting,
    /// It may have been sent.
    Attempted,
    /// It may have been sent, and the block that asked for it was taken back since.
    Orphaned,
}

impl fmt::Display for OutboxState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            OutboxState::Waiting => "waiting",
            OutboxState::Attempted => "attempted",
            OutboxState::Orphaned => "orphaned",
        })
    }
}

/// An effect that nothing has come of yet, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEntry {
    /// The effect.
    pub id: EffectId,
    /// The newest block that counted when it was asked for.
    pub block: BlockRef,
    /// What the receiver tells a repetition by.
    pub key: EffectKey,
    /// When it may leave.
    pub deliver: Deliver,
    /// When nobody wants it any more, in seconds since 1970.
    pub expires: u64,
    /// How far it has come.
    pub state: OutboxState,
}

impl OutboxEntry {
    pub(crate) fn waiting(id: EffectId, block: BlockRef, effect: &Effect) -> OutboxEntry {
        OutboxEntry {
            id,
            block,
            key: effect.key.clone(),
            deliver: effect.deliver,
            expires: effect.expires,
            state: OutboxState::Waiting,
        }
    }
}

/// What came of an effect, for [`Outbox::settle`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The effect.
    pub id: EffectId,
    /// What came of it.
    pub result: EffectResult,
    /// How often it was sent.
    pub attempts: u32,
    /// When this was known, in milliseconds since 1970.
    pub at_millis: u64,
}

/// One lane's outbox. A clone is another handle to the same one.
#[derive(Clone)]
pub struct Outbox(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    journal: Journal,
    lane: LaneId,
    number: u32,
    /// Held through every commit that changes it, so that it is what is durable.
    unsettled: Mutex<BTreeMap<EffectId, OutboxEntry>>,
    changes: watch::Sender<u64>,
}

/// The outbox, held still while a commit changes it.
pub(crate) type Held<'o> = MutexGuard<'o, BTreeMap<EffectId, OutboxEntry>>;

impl Outbox {
    pub(crate) fn open(
        core: Arc<Core>,
        journal: Journal,
        lane: LaneId,
        number: u32,
    ) -> Result<Outbox, StorageError> {
        let entries = unsettled(&core.keyspaces, &core.snapshot(), number)?;
        let unsettled = entries.into_iter().map(|entry| (entry.id, entry)).collect();
        Ok(Outbox(Arc::new(Inner {
            core,
            journal,
            lane,
            number,
            unsettled: Mutex::new(unsettled),
            changes: watch::Sender::new(0),
        })))
    }

    /// Whose outbox it is.
    pub fn lane(&self) -> &LaneId {
        &self.0.lane
    }

    pub(crate) fn number(&self) -> u32 {
        self.0.number
    }

    /// The journal its outcomes go to.
    pub fn journal(&self) -> &Journal {
        &self.0.journal
    }

    /// Wakes its holder after entries came, went or changed.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Everything that nothing has come of yet, oldest first.
    pub fn unsettled(&self) -> Vec<OutboxEntry> {
        self.hold().values().cloned().collect()
    }

    /// An effect of this lane as its step wrote it, or `None` when there is none of that name.
    pub fn effect(&self, id: EffectId) -> Result<Option<Effect>, StorageError> {
        let found = effect(&self.0.core.keyspaces, &self.0.core.snapshot(), self.0.number, id)?;
        Ok(found.map(|(_, effect)| effect))
    }

    /// Whether the receiver has what this key names.
    pub fn is_done(&self, key: &EffectKey) -> Result<bool, StorageError> {
        let key = codec::done_key(self.0.number, key);
        let done = self.0.core.snapshot().get(&self.0.core.keyspaces.done, key)?;
        Ok(done.is_some())
    }

    /// Makes durable that these are about to be sent, and says which of them may be: a reorg may
    /// have taken some away or orphaned them.
    ///
    /// Blocks for a commit, unless none of them waits.
    pub fn attempt(&self, ids: &[EffectId]) -> Vec<EffectId> {
        let Inner { core, number, .. } = &*self.0;
        let mut held = self.hold();
        let mut batch = Batch::default();
        let mut allowed = Vec::new();
        for id in ids {
            match held.get_mut(id) {
                Some(entry) if entry.state == OutboxState::Waiting => {
                    entry.state = OutboxState::Attempted;
                    let key = codec::effect_key(*number, *id);
                    let row = seal_row(&key, OutboxRow::from(entry.state));
                    batch.put(&core.keyspaces.outbox, key, row).expect("a state is one byte");
                }
                Some(entry) if entry.state == OutboxState::Attempted => (),
                _ => continue,
            }
            allowed.push(*id);
        }
        if batch.bytes() > 0 {
            core.writer.commit(batch, None);
            drop(held);
            self.changed();
        }
        allowed
    }

    /// Journals what came of effects, and takes them out of the outbox.
    ///
    /// When this returns, the outcomes are durable, each exactly once. What is not in the outbox
    /// any more is ignored. Blocks for one commit per 256 effects.
    pub fn settle(&self, settled: Vec<Settled>) -> Result<(), AppendError> {
        let mut held = self.hold();
        let mut settled = settled.into_iter().filter(|settled| held.contains_key(&settled.id));
        let mut known: Vec<Settled> = Vec::new();
        for one in settled.by_ref() {
            // The first answer counts, should one effect be settled twice in a call.
            if known.iter().all(|known| known.id != one.id) {
                known.push(one);
            }
        }
        for together in known.chunks(SETTLED_TOGETHER_MAX) {
            self.settle_together(&mut held, together)?;
        }
        drop(held);
        self.changed();
        Ok(())
    }

    fn settle_together(
        &self,
        held: &mut Held<'_>,
        together: &[Settled],
    ) -> Result<(), AppendError> {
        let Inner { core, journal, lane, number, .. } = &*self.0;
        journal.append_outcomes(|head, first| {
            let mut batch = Batch::default();
            let mut outcomes = Vec::with_capacity(together.len());
            // No key may be changed twice in a batch, and two effects may have the same.
            let mut done = BTreeMap::new();
            for (position, settled) in (0..).zip(together) {
                let entry = &held[&settled.id];
                batch.remove(&core.keyspaces.outbox, codec::effect_key(*number, entry.id))?;
                if settled.result.is_done() {
                    let key = codec::done_key(*number, &entry.key);
                    done.insert(key, DoneRow { outcome: first.plus(position).get() });
                }
                outcomes.push(Record::Outcome(Outcome {
                    module: lane.module.clone(),
                    effect: entry.id,
                    key: entry.key.clone(),
                    block: entry.block,
                    result: settled.result.clone(),
                    attempts: settled.attempts,
                    at_millis: settled.at_millis,
                    head,
                }));
            }
            for (key, row) in done {
                batch.put(&core.keyspaces.done, key, seal_row(&key, row))?;
            }
            Ok((outcomes, batch))
        })?;
        for settled in together {
            held.remove(&settled.id);
        }
        Ok(())
    }

    pub(crate) fn hold(&self) -> Held<'_> {
        self.0.unsettled.lock().expect("nothing panics while holding the outbox")
    }

    pub(crate) fn changed(&self) {
        self.0.changes.send_modify(|changes| *changes += 1);
    }
}

/// What a step does to the outbox besides adding to it, decided while the outbox is held.
pub(crate) struct TakenBack {
    /// Not sent: they go.
    pub cancelled: Vec<EffectId>,
    /// Maybe sent: they stay until it is known.
    pub orphaned: Vec<EffectId>,
}

impl TakenBack {
    /// What goes when everything above a height is taken back.
    pub fn above(held: &Held<'_>, height: u64) -> TakenBack {
        let mut taken = TakenBack { cancelled: Vec::new(), orphaned: Vec::new() };
        for entry in held.values().filter(|entry| entry.block.number > height) {
            match entry.state {
                OutboxState::Waiting => taken.cancelled.push(entry.id),
                OutboxState::Attempted => taken.orphaned.push(entry.id),
                OutboxState::Orphaned => (),
            }
        }
        taken
    }

    /// Nothing is taken back.
    pub fn nothing() -> TakenBack {
        TakenBack { cancelled: Vec::new(), orphaned: Vec::new() }
    }

    /// Adds the changes to a step's batch.
    pub fn write(
        &self,
        keyspaces: &Keyspaces,
        lane: u32,
        batch: &mut Batch,
    ) -> Result<(), SizeError> {
        for id in &self.cancelled {
            let key = codec::effect_key(lane, *id);
            batch.remove(&keyspaces.outbox, key)?;
            batch.remove(&keyspaces.effects, key)?;
        }
        for id in &self.orphaned {
            let key = codec::effect_key(lane, *id);
            let row = seal_row(&key, OutboxRow::from(OutboxState::Orphaned));
            batch.put(&keyspaces.outbox, key, row)?;
        }
        Ok(())
    }

    /// Does to the outbox what the batch did to the store.
    pub fn carry_out(self, held: &mut Held<'_>) {
        for id in self.cancelled {
            held.remove(&id);
        }
        for id in self.orphaned {
            if let Some(entry) = held.get_mut(&id) {
                entry.state = OutboxState::Orphaned;
            }
        }
    }
}

/// Adds to a step's batch that its own effects wait to be sent.
pub(crate) fn write_waiting(
    keyspaces: &Keyspaces,
    lane: u32,
    effects: &[(EffectId, BlockRef, Effect)],
    batch: &mut Batch,
) -> Result<(), SizeError> {
    for (id, _, _) in effects {
        let key = codec::effect_key(lane, *id);
        let row = seal_row(&key, OutboxRow::from(OutboxState::Waiting));
        batch.put(&keyspaces.outbox, key, row)?;
    }
    Ok(())
}

/// Adds a step's own effects to its batch.
pub(crate) fn write_effects(
    keyspaces: &Keyspaces,
    lane: u32,
    effects: &[(EffectId, BlockRef, Effect)],
    batch: &mut Batch,
) -> Result<(), SizeError> {
    for (id, block, effect) in effects {
        let key = codec::effect_key(lane, *id);
        batch.put(&keyspaces.effects, key, seal_row(&key, EffectRow::new(*block, effect)))?;
    }
    Ok(())
}

/// What an effect weighs in a step: its row, and the rows around it.
pub(crate) fn effect_bytes(effect: &Effect) -> usize {
    effect.bytes() + ROW_OVERHEAD_BYTES
}

/// A lane's effects that nothing has come of yet, oldest first.
pub(crate) fn unsettled(
    keyspaces: &Keyspaces,
    snapshot: &Snapshot,
    lane: u32,
) -> Result<Vec<OutboxEntry>, StorageError> {
    let mut entries = Vec::new();
    for entry in snapshot.prefix(&keyspaces.outbox, codec::effects_prefix(lane)) {
        let (key, sealed) = entry.into_inner()?;
        let damaged = || StorageError::damaged("a row of an outbox");
        let row: OutboxRow = unseal_row(&key, &sealed).map_err(damaged())?;
        let id = codec::parse_effect_key(&key).map_err(damaged())?;
        let missing = || StorageError::damaged(format!("effect {id} in an outbox"));
        let (block, effect) = effect(keyspaces, snapshot, lane, id)?
            .ok_or_else(|| missing()(codec::DecodeError::WrongLength))?;
        let waiting = OutboxEntry::waiting(id, block, &effect);
        entries.push(OutboxEntry { state: row.into(), ..waiting });
    }
    Ok(entries)
}

/// An effect, and the block that asked for it.
pub(crate) fn effect(
    keyspaces: &Keyspaces,
    snapshot: &Snapshot,
    lane: u32,
    id: EffectId,
) -> Result<Option<(BlockRef, Effect)>, StorageError> {
    let key = codec::effect_key(lane, id);
    let Some(sealed) = snapshot.get(&keyspaces.effects, key)? else { return Ok(None) };
    let row: EffectRow =
        unseal_row(&key, &sealed).map_err(StorageError::damaged(format!("effect {id}")))?;
    Ok(Some(row.into_effect()))
}
