//! What a module is expected to make of a recording, as a file.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shepherd_log::{LaneSnapshot, Offset, StorageError};

/// Entries up to which a state is written out. A larger one is told by its digest alone, and a
/// difference in it does not say which key.
const ENTRIES_MAX: u64 = 200;

/// How far fuel may be off when nobody says otherwise: a compiler's next version moves it by less.
const TOLERANCE_PERCENT: u32 = 10;

/// What a module makes of a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The effects it asks for, in order.
    pub effects: Vec<ExpectedEffect>,
    /// The state at the end.
    pub state: ExpectedState,
    /// The fuel it takes; left out when it does not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel: Option<ExpectedFuel>,
}

/// An effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedEffect {
    /// Height of the newest block when it is asked for.
    pub block: u64,
    /// Its key.
    pub key: String,
    /// What is sent; a document as JSON, anything else as hexadecimal text.
    pub body: Value,
    /// When nobody wants it any more, in seconds since 1970.
    pub expires: u64,
}

/// A state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedState {
    /// Its digest.
    pub digest: String,
    /// How many keys it has.
    pub keys: u64,
    /// The keys and values in hexadecimal, when they are few.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<BTreeMap<String, String>>,
}

/// Fuel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedFuel {
    /// In total.
    pub total: u64,
    /// How far it may be off, in hundredths of the total, either way.
    pub tolerance_percent: u32,
}

/// Something that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// The first effect that differs, counted from 0.
    Effect {
        /// Its place.
        position: usize,
        /// What is expected there.
        expected: Option<Box<ExpectedEffect>>,
        /// What the module asked for.
        found: Option<Box<ExpectedEffect>>,
    },
    /// The first key that differs, in hexadecimal.
    Key {
        /// The key.
        key: String,
        /// The value expected.
        expected: Option<String>,
        /// The value found.
        found: Option<String>,
    },
    /// A state of which no keys are written down.
    State {
        /// What is expected.
        expected: (u64, String),
        /// What was found.
        found: (u64, String),
    },
    /// Fuel outside the tolerance.
    Fuel {
        /// What is expected.
        expected: ExpectedFuel,
        /// What it took.
        found: u64,
    },
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unmet::Effect { position, expected, found } => {
                let show = |effect: &Option<Box<ExpectedEffect>>| {
                    effect.as_ref().map_or("none".to_owned(), |effect| {
                        let ExpectedEffect { block, key, body, expires } = &**effect;
                        format!("{key} at block {block}, until {expires}: {body}")
                    })
                };
                let (expected, found) = (show(expected), show(found));
                write!(f, "effect {position}\n  expected {expected}\n  found    {found}")
            }
            Unmet::Key { key, expected, found } => {
                let show = |value: &Option<String>| value.clone().unwrap_or("none".to_owned());
                let (expected, found) = (show(expected), show(found));
                write!(f, "state, key {key}\n  expected {expected}\n  found    {found}")
            }
            Unmet::State { expected, found } => write!(
                f,
                "state\n  expected {} keys, digest {}\n  found    {} keys, digest {}",
                expected.0, expected.1, found.0, found.1
            ),
            Unmet::Fuel { expected: ExpectedFuel { total, tolerance_percent }, found } => {
                write!(f, "fuel\n  expected {total} ± {tolerance_percent} %\n  found    {found}")
            }
        }
    }
}

impl Expected {
    /// What a lane of a replay came to.
    pub(super) fn of(lane: &LaneSnapshot) -> Result<Expected, StorageError> {
        let effects = lane.effects().map(|effect| {
            let (_, block, effect) = effect?;
            let body = serde_json::from_slice(&effect.body)
                .unwrap_or_else(|_| Value::String(hex_of(&effect.body)));
            let key = effect.key.to_string();
            Ok(ExpectedEffect { block: block.number, key, body, expires: effect.expires })
        });
        let effects = effects.collect::<Result<_, StorageError>>()?;
        let (mut keys, mut entries) = (0, BTreeMap::new());
        for entry in lane.entries(&[], None) {
            let (key, value) = entry?;
            keys += 1;
            if keys <= ENTRIES_MAX {
                entries.insert(hex_of(&key), hex_of(&value));
            }
        }
        let mut total = 0;
        for trace in lane.traces(Offset::START..lane.cursor().next) {
            total += trace?.fuel;
        }
        Ok(Expected {
            effects,
            state: ExpectedState {
                digest: lane.state_digest()?.to_string(),
                keys,
                entries: (keys <= ENTRIES_MAX).then_some(entries),
            },
            fuel: Some(ExpectedFuel { total, tolerance_percent: TOLERANCE_PERCENT }),
        })
    }

    /// What was found and is not as it is expected here: the first of each kind.
    pub fn compare(&self, found: &Expected) -> Vec<Unmet> {
        let mut unmet = Vec::new();
        let most = self.effects.len().max(found.effects.len());
        let effect = (0..most).find(|at| self.effects.get(*at) != found.effects.get(*at));
        unmet.extend(effect.map(|position| {
            let at = |of: &Expected| of.effects.get(position).cloned().map(Box::new);
            Unmet::Effect { position, expected: at(self), found: at(found) }
        }));
        if self.state.digest != found.state.digest || self.state.keys != found.state.keys {
            unmet.push(self.state.difference(&found.state));
        }
        if let (Some(expected), Some(took)) = (self.fuel, found.fuel) {
            let off = u128::from(expected.total.abs_diff(took.total)) * 100;
            let allowed = u128::from(expected.total) * u128::from(expected.tolerance_percent);
            if off > allowed {
                unmet.push(Unmet::Fuel { expected, found: took.total });
            }
        }
        unmet
    }

    /// What is written down, with what was said of fuel before.
    pub(super) fn blessed(&self, before: Option<&Expected>) -> String {
        let mut blessed = self.clone();
        if let Some(before) = before {
            blessed.fuel = match (self.fuel, before.fuel) {
                (Some(now), Some(ExpectedFuel { tolerance_percent, .. })) => {
                    Some(ExpectedFuel { tolerance_percent, ..now })
                }
                _ => None,
            };
        }
        let text = serde_json::to_string_pretty(&blessed).expect("it is plain data");
        text + "\n"
    }
}

impl ExpectedState {
    fn difference(&self, found: &ExpectedState) -> Unmet {
        if let (Some(expected), Some(now)) = (&self.entries, &found.entries) {
            let differs = |key: &&String| expected.get(*key) != now.get(*key);
            if let Some(key) = expected.keys().chain(now.keys()).filter(differs).min() {
                let value = |of: &BTreeMap<String, String>| of.get(key).cloned();
                let (expected, found) = (value(expected), value(now));
                return Unmet::Key { key: key.clone(), expected, found };
            }
        }
        Unmet::State {
            expected: (self.keys, self.digest.clone()),
            found: (found.keys, found.digest.clone()),
        }
    }
}

fn hex_of(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}
