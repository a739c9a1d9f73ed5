//! Which lanes a store has, and what each is for.
//!
//! ```text
//! lane/NAME      number 3 ── live     its effects go out, by outbox 0
//! rebuild/NAME   number 7 ── rebuild  the next generation; becomes lane/NAME when it has caught up
//! dropped/0                           the generation before; its rows are being removed
//! lane/NAME      number 0 ── replay   in a replay's own store: no outbox at all
//! ```
//!
//! A number stands for one generation of a lane and is never used again. The outbox keeps the
//! number of the first generation: what was asked for, what came of it and what waits to be sent
//! belong to the lane whatever its state is rebuilt from.

use fjall::{Readable, Snapshot};

use crate::{
    checks::parse_name,
    codec::{self, LANE_PREFIX, LaneRow, REBUILD_PREFIX, RoleRow, VersionRow, unseal_row},
    lane::Cursor,
    store::{Keyspaces, StorageError},
    types::{LaneId, Offset},
};

/// What a lane is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Its effects go out.
    Live,
    /// It replays a journal from `start` on. Its effects are kept and go nowhere.
    Replay { start: Offset, chain_id: u64 },
    /// It is to take a live lane's place. Its effects are that lane's, asked for long ago.
    Rebuild { start: Offset },
}

/// A lane as found on disk.
pub(crate) struct KnownLane {
    pub id: LaneId,
    pub number: u32,
    pub role: Role,
    /// The number its effects are kept under.
    pub outbox: u32,
    pub cursor: Option<Cursor>,
    /// Whether the cursor names the sum of the state. In a store of format 2 it does not.
    pub is_summed: bool,
}

impl KnownLane {
    /// Whether people know the lane by its name, which a generation under way is not.
    pub fn is_named(&self) -> bool {
        !matches!(self.role, Role::Rebuild { .. })
    }
}

/// The row of a lane.
pub(crate) fn row(number: u32, role: Role, outbox: u32) -> LaneRow {
    let role = match role {
        Role::Live => RoleRow::Live { outbox },
        Role::Replay { start, chain_id } => RoleRow::Replay { start: start.get(), chain_id },
        Role::Rebuild { start } => RoleRow::Rebuild { start: start.get() },
    };
    LaneRow { number, role: Some(role) }
}

/// The key of a lane's row.
pub(crate) fn row_key(id: &LaneId, role: Role) -> Vec<u8> {
    let prefix = match role {
        Role::Live | Role::Replay { .. } => LANE_PREFIX,
        Role::Rebuild { .. } => REBUILD_PREFIX,
    };
    [prefix, id.to_string().as_bytes()].concat()
}

/// Every lane and its cursor, generations under way among them.
pub(crate) fn all(
    keyspaces: &Keyspaces,
    snapshot: &Snapshot,
) -> Result<Vec<KnownLane>, StorageError> {
    let mut lanes = Vec::new();
    for prefix in [LANE_PREFIX, REBUILD_PREFIX] {
        for entry in snapshot.prefix(&keyspaces.meta, prefix) {
            let (key, value) = entry.into_inner()?;
            let row = codec::unseal_lane(&key, &value)
                .map_err(StorageError::damaged("the row of a lane"))?;
            let id: LaneId = parse_name(&key[prefix.len()..], "the name of a lane")?;
            let (role, outbox) = match row.role {
                None => (Role::Live, row.number),
                Some(RoleRow::Live { outbox }) => (Role::Live, outbox),
                Some(RoleRow::Replay { start, chain_id }) => {
                    (Role::Replay { start: Offset::new(start), chain_id }, row.number)
                }
                Some(RoleRow::Rebuild { start }) => {
                    (Role::Rebuild { start: Offset::new(start) }, row.number)
                }
            };
            let cursor_key = codec::cursor_key(row.number);
            let cursor = snapshot
                .get(&keyspaces.cursors, cursor_key)?
                .map(|value| codec::unseal_cursor(&cursor_key, &value))
                .transpose()
                .map_err(StorageError::damaged(format!("the cursor of {id}")))?;
            let is_summed = cursor.as_ref().is_none_or(|cursor| cursor.state.is_some());
            let cursor = cursor.map(Cursor::from);
            lanes.push(KnownLane { id, number: row.number, role, outbox, cursor, is_summed });
        }
    }
    Ok(lanes)
}

/// The numbers of generations that were replaced, and whether their rows are gone.
pub(crate) fn dropped(
    keyspaces: &Keyspaces,
    snapshot: &Snapshot,
) -> Result<Vec<(u32, bool)>, StorageError> {
    let mut dropped = Vec::new();
    for entry in snapshot.prefix(&keyspaces.meta, codec::DROPPED_PREFIX) {
        let (key, value) = entry.into_inner()?;
        let damaged = || StorageError::damaged("the row of a replaced generation");
        let is_gone = unseal_row(&key, &value).map_err(damaged())?;
        dropped.push((codec::parse_dropped_key(&key).map_err(damaged())?, is_gone));
    }
    Ok(dropped)
}

/// The first number that no generation has had.
pub(crate) fn next_number(
    known: &[KnownLane],
    keyspaces: &Keyspaces,
    snapshot: &Snapshot,
) -> Result<u32, StorageError> {
    let dropped = dropped(keyspaces, snapshot)?.into_iter().map(|(number, _)| number);
    let used = known.iter().map(|lane| lane.number).chain(dropped);
    Ok(used.max().map_or(0, |number| number + 1))
}

/// What a lane runs: the code, and what makes it this lane's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneVersion {
    /// sha256 of the component.
    pub module: [u8; 32],
    /// sha256 of the document that says what the component is bound to: manifest, chain,
    /// configuration. Whoever wrote it keeps it.
    pub binding: [u8; 32],
}

impl From<LaneVersion> for VersionRow {
    fn from(version: LaneVersion) -> VersionRow {
        VersionRow { module: version.module, binding: version.binding }
    }
}

/// What a lane ran, and from which record on, in order.
pub(crate) fn versions(
    keyspaces: &Keyspaces,
    snapshot: &Snapshot,
    lane: u32,
) -> Result<Vec<(Offset, LaneVersion)>, StorageError> {
    let mut versions = Vec::new();
    for entry in snapshot.prefix(&keyspaces.meta, codec::versions_prefix(lane)) {
        let (key, value) = entry.into_inner()?;
        let damaged = || StorageError::damaged("the version of a lane");
        let VersionRow { module, binding } = unseal_row(&key, &value).map_err(damaged())?;
        let from = codec::parse_trace_key(&key).map_err(damaged())?;
        versions.push((from, LaneVersion { module, binding }));
    }
    Ok(versions)
}
