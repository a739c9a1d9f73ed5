//! Generations of a lane: its state computed again beside the old one, which then gives way.
//!
//! ```text
//! generation 0   [state at next 900]  ── goes on, and answers ──▶ [next 950]
//! generation 1   [next 0] ──▶ [next 400] ──▶ … ──▶ [next 950]        │
//!                                                       └─ switch ◀──┘   one commit
//! ```
//!
//! A generation under way is a lane of its own, which nobody sees by name and which has no outbox.
//! What the lane has asked for, what came of it and what waits to be sent are not computed again:
//! they stay, whatever the state is rebuilt from.

use std::sync::Arc;

use fjall::{Keyspace, Readable};

use crate::{
    codec::{self, CommitRow, seal_row},
    journal::Journal,
    lane::{Cursor, Lane},
    lanes::{self, KnownLane, Role},
    store::{Keyspaces, LaneError, StorageError, Store},
    types::{LaneId, Offset},
    writer::Batch,
};

/// Rows removed in one batch.
const SWEPT_ROWS: usize = 8_192;

/// Why a generation does not take a lane's place.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// It is not the next generation of that lane.
    #[error("{rebuilt} is not being rebuilt as {live}")]
    OtherLane {
        /// The lane.
        live: LaneId,
        /// The other one.
        rebuilt: LaneId,
    },
    /// It has not come as far, or further.
    #[error("{lane} is at {live}, what is to take its place is at {rebuilt}")]
    NotLevel {
        /// The lane.
        lane: LaneId,
        /// Its `next`.
        live: Offset,
        /// The other's `next`.
        rebuilt: Offset,
    },
}

impl Store {
    /// The next generation of a lane, begun at the first record the lane has passed, or where an
    /// earlier process left it.
    pub fn rebuild_lane(&self, id: &LaneId) -> Result<Lane, LaneError> {
        let journal = self
            .existing_journal(&id.chain)
            .ok_or_else(|| LaneError::NoJournal(id.chain.clone()))?;
        let known = {
            // One at a time, or two could take the same number.
            let _creating = self.lock_journals();
            let snapshot = self.core().snapshot();
            let keyspaces = &self.core().keyspaces;
            let known = lanes::all(keyspaces, &snapshot)?;
            let number = lanes::next_number(&known, keyspaces, &snapshot)?;
            let mut of_name = known.into_iter().filter(|lane| lane.id == *id);
            let live = of_name.next().filter(|lane| lane.role == Role::Live);
            let live = live.ok_or_else(|| LaneError::Unknown(id.clone()))?;
            match of_name.next() {
                Some(begun) => begun,
                None => self.begin_generation(&live, number, &journal)?,
            }
        };
        self.open_lane(known, journal)
    }

    fn begin_generation(
        &self,
        live: &KnownLane,
        number: u32,
        journal: &Journal,
    ) -> Result<KnownLane, LaneError> {
        let cursor = live.cursor.clone().unwrap_or_default();
        // The records stay until the new cursor holds them.
        let _held = journal.lock_retention();
        let from = self.first_passed(live.number)?.unwrap_or(cursor.next);
        let trimmed_to = journal.start();
        if from < trimmed_to {
            return Err(LaneError::Trimmed { lane: live.id.clone(), from, trimmed_to });
        }
        let generation = cursor.generation + 1;
        let cursor = Cursor { next: from, generation, ..Cursor::default() };
        Ok(self.create_lane(&live.id, number, Role::Rebuild { start: from }, cursor))
    }

    fn first_passed(&self, lane: u32) -> Result<Option<Offset>, StorageError> {
        let snapshot = self.core().snapshot();
        let commits = &self.core().keyspaces.commits;
        let Some(entry) = snapshot.prefix(commits, lane.to_be_bytes()).next() else {
            return Ok(None);
        };
        let (key, sealed) = entry.into_inner()?;
        let row: CommitRow =
            codec::unseal_commit(&key, &sealed).map_err(StorageError::damaged("a commit row"))?;
        Ok(Some(Offset::new(row.first)))
    }

    /// The generations under way, and where each stands.
    pub fn rebuilds(&self) -> Result<Vec<(LaneId, Cursor)>, StorageError> {
        let known = lanes::all(&self.core().keyspaces, &self.core().snapshot())?;
        let under_way = known.into_iter().filter(|lane| matches!(lane.role, Role::Rebuild { .. }));
        Ok(under_way.map(|lane| (lane.id, lane.cursor.unwrap_or_default())).collect())
    }

    /// Gives up a generation under way; `false` when there is none. Nobody may hold it.
    ///
    /// Its rows are removed by [`Store::sweep`].
    pub fn abandon_rebuild(&self, id: &LaneId) -> Result<bool, LaneError> {
        let _creating = self.lock_journals();
        let known = lanes::all(&self.core().keyspaces, &self.core().snapshot())?;
        let is_it = |lane: &&KnownLane| lane.id == *id && !lane.is_named();
        let Some(lane) = known.iter().find(is_it) else { return Ok(false) };
        let open = self.open_lanes.lock().expect("nothing panics while holding the lanes");
        if open.contains(&lane.number) {
            return Err(LaneError::Open(id.clone()));
        }
        let keyspaces = &self.core().keyspaces;
        let mut batch = Batch::default();
        batch.remove(&keyspaces.meta, lanes::row_key(id, lane.role)).expect("a name is short");
        drop_generation(keyspaces, lane.number, &mut batch);
        self.core().writer.commit(batch, None);
        Ok(true)
    }

    /// Puts the rebuilt generation in the place of the live one, in one commit.
    ///
    /// Both must have come equally far. The outbox stays as it is. The rows of the old generation
    /// are removed by [`Store::sweep`].
    pub fn switch(&self, live: Lane, mut rebuilt: Lane) -> Result<Lane, SwitchError> {
        let id = live.id().clone();
        let is_next = rebuilt.id() == &id
            && !live.is_replay()
            && rebuilt.is_rebuild()
            && Arc::ptr_eq(live.store(), rebuilt.store());
        if !is_next {
            return Err(SwitchError::OtherLane { live: id, rebuilt: rebuilt.id().clone() });
        }
        let (at, other) = (live.cursor().next, rebuilt.cursor().next);
        if at != other {
            return Err(SwitchError::NotLevel { lane: id, live: at, rebuilt: other });
        }
        let keyspaces = &self.core().keyspaces;
        let outbox = live.outbox();
        let mut batch = Batch::default();
        let key = lanes::row_key(&id, Role::Live);
        let row = seal_row(&key, lanes::row(rebuilt.number(), Role::Live, outbox.number()));
        batch.put(&keyspaces.meta, key, row).expect("a name is short");
        let under_way = lanes::row_key(&id, Role::Rebuild { start: Offset::START });
        batch.remove(&keyspaces.meta, under_way).expect("a name is short");
        drop_generation(keyspaces, live.number(), &mut batch);
        self.core().writer.commit(batch, None);
        rebuilt.become_live(outbox);
        Ok(rebuilt)
    }

    /// Removes what generations that were replaced or given up have left, and counts the rows.
    ///
    /// What is not done when `interrupted` says so, or the process is killed, is done by the next
    /// call. Nothing reads these rows.
    pub fn sweep(&self, interrupted: &dyn Fn() -> bool) -> Result<u64, StorageError> {
        let keyspaces = &self.core().keyspaces;
        let mut swept = 0;
        for (number, is_gone) in lanes::dropped(keyspaces, &self.core().snapshot())? {
            if is_gone {
                continue;
            }
            let mut trees: Vec<(&Keyspace, Vec<u8>)> =
                [&keyspaces.state, &keyspaces.undo, &keyspaces.tape, &keyspaces.commits]
                    .map(|tree| (tree, number.to_be_bytes().to_vec()))
                    .to_vec();
            trees.push((&keyspaces.cursors, codec::cursor_key(number).to_vec()));
            trees.push((&keyspaces.meta, codec::versions_prefix(number).to_vec()));
            for (tree, prefix) in trees {
                loop {
                    if interrupted() {
                        return Ok(swept);
                    }
                    let mut batch = Batch::default();
                    let mut rows = 0;
                    let snapshot = self.core().snapshot();
                    for entry in snapshot.prefix(tree, &prefix).take(SWEPT_ROWS) {
                        batch.remove(tree, entry.key()?.to_vec()).expect("keys alone fit");
                        rows += 1;
                    }
                    drop(snapshot);
                    if rows == 0 {
                        break;
                    }
                    self.core().writer.commit(batch, None);
                    swept += rows;
                }
            }
            let key = codec::dropped_key(number);
            let mut batch = Batch::default();
            batch.put(&keyspaces.meta, key, seal_row(&key, true)).expect("a flag is short");
            self.core().writer.commit(batch, None);
        }
        Ok(swept)
    }
}

fn drop_generation(keyspaces: &Keyspaces, number: u32, batch: &mut Batch) {
    let key = codec::dropped_key(number);
    batch.put(&keyspaces.meta, key, seal_row(&key, false)).expect("a flag is short");
}
