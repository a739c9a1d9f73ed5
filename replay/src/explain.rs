//! Why an effect was asked for.
//!
//! ```text
//!   effect 17.0 ─▶ record 17 ─▶ the lane's run up to 17, again, in a store of its own
//!                                  │ handled once more, listening to its reads
//!                                  ▼
//!      block and logs, reads and answers, state before and after, lines, effect, what came of it
//! ```
//!
//! The same module with the same state, record and answers does the same again (promise 8), so
//! what is seen here is what happened. What cannot be seen any more, because records were trimmed
//! or a version of the module is not at hand, is said to be missing, and the rest is told.

mod asked;
mod earlier;
mod fate;
mod handling;
pub(crate) mod known;
mod occasion;
pub(crate) mod shown;
mod signature;
pub(crate) mod text;
mod wish;

use std::{fmt, path::Path, str::FromStr};

use alloy_primitives::hex;
use serde::{Deserialize, Serialize};
use shepherd_log::{
    BlockRef, EffectId, EffectKey, Journal, LaneId, LaneSnapshot, ORDER_UID_BYTES, Offset,
    ReadError, StorageError, Store,
};
use shepherd_rpc::in_words;

pub use asked::{Question, ReadCall};
pub use earlier::EarlierLog;
pub use fate::{Fate, Sibling};
pub use handling::{Change, Handling, Line, Missing};
pub(crate) use handling::{Changes, watch};
pub use known::{Argument, Said, Value as SaidValue};
pub use occasion::{BlockCause, LogSeen, Occasion};
pub use wish::{Field, FieldDifference, Wish};

use crate::{drive::Progress, run::RunError, versions::LoadVersion};

/// Other effects that an unknown one is answered with.
const NEARBY_MAX: usize = 5;

/// What is to be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An effect of a lane, by where it was asked for.
    Effect(EffectId),
    /// An order, by its UID.
    Order([u8; ORDER_UID_BYTES]),
}

/// Text that names no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no effect: write OFFSET.INDEX, for example 1042.0, or an order's UID \
     (0x and 112 hex digits)"
)]
pub struct InvalidSubject(pub String);

impl FromStr for Subject {
    type Err = InvalidSubject;

    fn from_str(text: &str) -> Result<Subject, InvalidSubject> {
        let invalid = || InvalidSubject(text.to_owned());
        if let Some(digits) = text.strip_prefix("0x") {
            let mut uid = [0; ORDER_UID_BYTES];
            hex::decode_to_slice(digits, &mut uid).map_err(|_| invalid())?;
            return Ok(Subject::Order(uid));
        }
        let (offset, index) = text.split_once('.').ok_or_else(invalid)?;
        let offset = Offset::new(offset.parse().map_err(|_| invalid())?);
        let index = index.parse().map_err(|_| invalid())?;
        Ok(Subject::Effect(EffectId { offset, index }))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Effect(id) => id.fmt(f),
            Subject::Order(uid) => f.write_str(&hex::encode_prefixed(uid)),
        }
    }
}

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// There is no such lane.
    #[error("there is no lane {lane}; there are {}", list(lanes))]
    NoLane {
        /// The lane that was named.
        lane: LaneId,
        /// Those there are.
        lanes: Vec<LaneId>,
    },
    /// A lane never asked for this effect.
    #[error("lane {lane} has no effect {effect}{}{}", beyond(effect, next), near(nearby))]
    UnknownEffect {
        /// The lane.
        lane: LaneId,
        /// The effect that was named.
        effect: EffectId,
        /// The first record the lane has not passed.
        next: Offset,
        /// Its effects around that place.
        nearby: Vec<(EffectId, EffectKey)>,
    },
    /// No lane that was looked at has asked for this order.
    #[error(
        "{} asked for order {}",
        if lanes.len() == 1 { format!("lane {} never", lanes[0]) }
        else { format!("no lane of {}", list(lanes)) },
        hex::encode_prefixed(&uid[..])
    )]
    UnknownOrder {
        /// The UID.
        uid: Box<[u8; ORDER_UID_BYTES]>,
        /// The lanes that were looked at.
        lanes: Vec<LaneId>,
    },
    /// Several lanes may be meant: more than one has an effect of this name, or none has.
    #[error("effect {effect} may be one of {}: name the lane", list(lanes))]
    Ambiguous {
        /// The effect.
        effect: EffectId,
        /// The lanes that have it; all, when none has.
        lanes: Vec<LaneId>,
    },
    /// The directory for the lane's run cannot be used.
    #[error(transparent)]
    Run(#[from] RunError),
    /// What was kept of an earlier explanation cannot be read or written.
    #[error("cannot use {}", path.display())]
    Directory {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The journal cannot be read.
    #[error("the journal cannot be read")]
    Journal(#[from] ReadError),
    /// What is stored cannot be trusted.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// It was interrupted on the way to the record. The next attempt goes on from there.
    #[error("interrupted at record {next} on the way to record {wanted}")]
    Interrupted {
        /// How far the run has come.
        next: Offset,
        /// The record.
        wanted: Offset,
    },
}

fn list(lanes: &[LaneId]) -> String {
    match lanes {
        [] => "none".to_owned(),
        lanes => lanes.iter().map(LaneId::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn beyond(effect: &EffectId, next: &Offset) -> String {
    if effect.offset < *next {
        return String::new();
    }
    format!(": it has not passed record {} yet, its next is {next}", effect.offset)
}

fn near(nearby: &[(EffectId, EffectKey)]) -> String {
    if nearby.is_empty() {
        return "; it has asked for nothing".to_owned();
    }
    let one = |(id, key): &(EffectId, EffectKey)| format!("\n  {id}  {key}");
    format!("; around there it has{}", nearby.iter().map(one).collect::<String>())
}

/// Everything that is known about why an effect was asked for, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The lane, as MODULE@CHAIN.
    pub lane: String,
    /// The effect, as OFFSET.INDEX.
    pub effect: String,
    /// What it asks for.
    pub wish: Wish,
    /// The newest block that counted when it was asked for.
    pub block: BlockSeen,
    /// What the lane ran then, when that is known.
    pub version: Option<Version>,
    /// What was handled.
    pub occasion: Option<Occasion>,
    /// Of an order: logs before it that the module was given and that name the order's owner. The
    /// newest five, oldest first.
    pub earlier: Vec<EarlierLog>,
    /// How it was handled, or why that cannot be shown.
    #[serde(flatten)]
    pub handling: Handled,
    /// Whether the handling that is shown asks for the effect as it is stored. It does not when
    /// the lane was rebuilt with another version since.
    pub is_reproduced: Option<bool>,
    /// What came of the effect.
    pub fate: Fate,
    /// Other effects of the lane with the same key.
    pub same_key: Vec<Sibling>,
}

/// How a record was handled.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handled {
    /// So.
    Handling(Box<Handling>),
    /// That cannot be computed any more, and why.
    NotShown(String),
}

/// A block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockSeen {
    /// Its height.
    pub number: u64,
    /// Its hash.
    pub hash: alloy_primitives::B256,
}

impl From<BlockRef> for BlockSeen {
    fn from(block: BlockRef) -> BlockSeen {
        BlockSeen { number: block.number, hash: block.hash }
    }
}

/// What a lane ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Version {
    /// The component's sha256, in hex.
    pub module: String,
    /// Digest of the document it is bound with.
    pub binding: String,
    /// The first record it ran for.
    pub from: u64,
}

/// Finds the lane and the effect that are meant.
///
/// Without a lane every one of the store is looked at. Of several effects with an order's UID the
/// newest one that still counts is taken, else the newest.
pub fn locate(
    store: &Store,
    lane: Option<&LaneId>,
    subject: &Subject,
) -> Result<(LaneId, EffectId), ExplainError> {
    let all: Vec<LaneId> = store.cursors()?.into_iter().map(|(lane, _)| lane).collect();
    let lanes = match lane {
        Some(lane) if all.contains(lane) => vec![lane.clone()],
        Some(lane) => return Err(ExplainError::NoLane { lane: lane.clone(), lanes: all }),
        None => all,
    };
    match subject {
        Subject::Effect(effect) if lanes.len() == 1 => Ok((lanes[0].clone(), *effect)),
        Subject::Effect(effect) => locate_effect(store, lanes, *effect),
        Subject::Order(uid) => locate_order(store, lanes, uid),
    }
}

fn locate_effect(
    store: &Store,
    lanes: Vec<LaneId>,
    effect: EffectId,
) -> Result<(LaneId, EffectId), ExplainError> {
    let mut having = Vec::new();
    for lane in &lanes {
        if snapshot(store, lane)?.effect(effect)?.is_some() {
            having.push(lane.clone());
        }
    }
    match &having[..] {
        [lane] => Ok((lane.clone(), effect)),
        [] => Err(ExplainError::Ambiguous { effect, lanes }),
        _ => Err(ExplainError::Ambiguous { effect, lanes: having }),
    }
}

fn locate_order(
    store: &Store,
    lanes: Vec<LaneId>,
    uid: &[u8; ORDER_UID_BYTES],
) -> Result<(LaneId, EffectId), ExplainError> {
    let mut best: Option<(bool, BlockRef, LaneId, EffectId)> = None;
    for lane in &lanes {
        let Some(journal) = store.existing_journal(&lane.chain) else { continue };
        for effect in snapshot(store, lane)?.effects() {
            let (id, block, effect) = effect?;
            if effect.key != EffectKey::Order(*uid) {
                continue;
            }
            let counts = journal.undone_by(id.offset, block.number).is_none();
            if best.as_ref().is_none_or(|(before, ..)| counts || !*before) {
                best = Some((counts, block, lane.clone(), id));
            }
        }
    }
    match best {
        Some((_, _, lane, id)) => Ok((lane, id)),
        None => Err(ExplainError::UnknownOrder { uid: Box::new(*uid), lanes }),
    }
}

fn snapshot(store: &Store, lane: &LaneId) -> Result<LaneSnapshot, ExplainError> {
    let missing = || -> Result<LaneSnapshot, ExplainError> {
        let lanes = store.cursors()?.into_iter().map(|(lane, _)| lane).collect();
        Err(ExplainError::NoLane { lane: lane.clone(), lanes })
    };
    store.lane_snapshot(lane)?.map_or_else(missing, Ok)
}

/// Explains an effect of a live lane.
///
/// The lane is run again up to the record, in the directory `dir`, which may be kept: later
/// explanations go on from there, and one of the same record needs no run at all. The live lane is
/// only read. `load` gives what the lane ran; `interrupted` is asked between steps.
pub fn explain(
    store: &Store,
    lane: &LaneId,
    effect: EffectId,
    load: &mut LoadVersion<'_>,
    dir: &Path,
    progress: &mut dyn FnMut(&Progress),
    interrupted: &dyn Fn() -> bool,
) -> Result<Explanation, ExplainError> {
    let live = snapshot(store, lane)?;
    let journal = store.existing_journal(&lane.chain).expect("a lane follows a journal");
    let row = live.effect(effect)?;
    if row.is_none() && !may_be_cancelled(&live, &journal, effect) {
        return Err(unknown(lane, &live, effect)?);
    }
    let place =
        handling::Place { store, live: &live, journal: &journal, lane, record: effect.offset, dir };
    let versions = place.versions()?;
    let handled = handling::of(&place, load, progress, interrupted)?;
    let again = match &handled {
        Ok(handling) => handling.effects.get(effect.index as usize).cloned(),
        Err(_) => None,
    };
    let stored = row.as_ref().map(|(_, effect)| Wish::from(effect));
    let Some(wish) = stored.clone().or_else(|| again.clone()) else {
        return Err(unknown(lane, &live, effect)?);
    };
    let block = match (&row, &handled) {
        (Some((block, _)), _) => BlockSeen::from(*block),
        (None, Ok(handling)) => handling.block,
        (None, Err(_)) => unreachable!("without a row the wish is that of the handling"),
    };
    let module = handling::version_of(&versions, lane, load).ok();
    Ok(Explanation {
        lane: lane.to_string(),
        effect: effect.to_string(),
        block,
        version: versions.last().map(|(from, version)| Version {
            module: hex::encode(version.module),
            binding: hex::encode(version.binding),
            from: from.get(),
        }),
        occasion: occasion::of(&journal, effect.offset, module.as_ref())?,
        earlier: match &module {
            Some(module) => earlier::of(&journal, effect.offset, module, &wish)?,
            None => Vec::new(),
        },
        is_reproduced: handled.is_ok().then(|| stored.is_none() || again == stored),
        handling: match handled {
            Ok(handling) => Handled::Handling(Box::new(handling)),
            Err(missing) => Handled::NotShown(in_words(&missing)),
        },
        fate: fate::of(&live, &journal, lane, effect, block.number)?,
        same_key: fate::siblings(&live, &journal, lane, effect, &wish.effect_key())?,
        wish,
    })
}

/// Whether an effect without a row may have been asked for: rows of what was not sent go when its
/// block is taken back.
fn may_be_cancelled(live: &LaneSnapshot, journal: &Journal, effect: EffectId) -> bool {
    effect.offset < live.cursor().next
        && (journal.abandoned_by(effect.offset).is_some()
            || journal.undone_by(effect.offset, u64::MAX).is_some())
}

fn unknown(
    lane: &LaneId,
    live: &LaneSnapshot,
    effect: EffectId,
) -> Result<ExplainError, StorageError> {
    let mut nearby: Vec<(EffectId, EffectKey)> = Vec::new();
    for one in live.effects() {
        let (id, _, one) = one?;
        nearby.push((id, one.key));
        let after = nearby.iter().filter(|(id, _)| *id > effect).count();
        if after > NEARBY_MAX / 2 && nearby.len() >= NEARBY_MAX {
            break;
        }
        if nearby.len() > NEARBY_MAX {
            nearby.remove(0);
        }
    }
    let next = live.cursor().next;
    Ok(ExplainError::UnknownEffect { lane: lane.clone(), effect, next, nearby })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_is_named_by_its_place_or_its_orders_uid() {
        let place = EffectId { offset: Offset::new(17), index: 3 };
        assert_eq!("17.3".parse(), Ok(Subject::Effect(place)));
        let uid = format!("0x{}", "ab".repeat(56));
        assert_eq!(uid.parse(), Ok(Subject::Order([0xab; 56])));
        assert_eq!(Subject::Order([0xab; 56]).to_string(), uid);
        for bad in ["", "17", "17.", ".3", "17.3.1", "-1.0", "0x", "0xabcd", "0xzz"] {
            assert_eq!(bad.parse::<Subject>(), Err(InvalidSubject(bad.to_owned())));
        }
    }
}
