//! A value that crosses a threshold, told once for each crossing.
//!
//! ```text
//! price            fires
//! ──────────────────×──────────────────×── threshold
//!       ╱╲        ╱   ╲    ╱╲        ╱
//! ────╱────╲────╱───────╲╱────╲────╱────── threshold less hysteresis
//!  ╱         ╲╱                 ╲╱           armed again below it
//! ```
//!
//! A price that trembles around the threshold would fire at every block. After it has fired, a
//! trigger stays silent until the value has come back by the hysteresis.

use serde::Deserialize;

use crate::Decimal;

/// On which side of the threshold a value fires. The threshold itself is on that side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// At the threshold or above it.
    Above,
    /// At the threshold or below it.
    Below,
}

/// A threshold, the side that fires, and how far back a value must come before it fires again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trigger {
    side: Side,
    threshold: Decimal,
    /// What has to be passed, the other way, to be armed again.
    rearm: Decimal,
}

/// What has to be remembered of a trigger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// The next value on its side fires. A trigger starts here, so that a value which is on its
    /// side at first sight is told too: nobody would otherwise learn of it.
    #[default]
    Armed,
    /// It has fired, and the value has not come back yet.
    Fired,
}

/// What a value does to a trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// It has crossed the threshold: tell.
    Fires,
    /// It has come back.
    Rearms,
}

/// A hysteresis no value could come back by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hysteresis of {hysteresis} at a threshold of {threshold} never lets it fire twice")]
pub struct InvalidTrigger {
    /// The threshold.
    pub threshold: Decimal,
    /// The hysteresis.
    pub hysteresis: Decimal,
}

impl Trigger {
    /// A trigger on one side of a threshold. The hysteresis is a distance from it, and zero means
    /// that any value on the other side arms it again.
    ///
    /// ```
    /// use shepherd_sdk::crossing::{Change, Side, State, Trigger};
    ///
    /// let trigger = Trigger::new(Side::Below, "1500".parse()?, "10".parse()?)?;
    /// let mut state = State::default();
    /// let mut told = Vec::new();
    /// for price in ["1600", "1499.5", "1500.1", "1499", "1511", "1500"] {
    ///     let change = trigger.look(state, price.parse()?);
    ///     state = state.after(change);
    ///     if change == Change::Fires {
    ///         told.push(price);
    ///     }
    /// }
    /// assert_eq!(told, ["1499.5", "1500"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(
        side: Side,
        threshold: Decimal,
        hysteresis: Decimal,
    ) -> Result<Trigger, InvalidTrigger> {
        let rearm = match side {
            // Nothing is below zero.
            Side::Above => threshold.checked_sub(hysteresis).filter(|rearm| Decimal::ZERO < *rearm),
            Side::Below => threshold.checked_add(hysteresis),
        };
        let rearm = rearm.ok_or(InvalidTrigger { threshold, hysteresis })?;
        Ok(Trigger { side, threshold, rearm })
    }

    /// What this value does.
    pub fn look(&self, state: State, value: Decimal) -> Change {
        let (fires, rearms) = match self.side {
            Side::Above => (self.threshold <= value, value < self.rearm),
            Side::Below => (value <= self.threshold, self.rearm < value),
        };
        match state {
            State::Armed if fires => Change::Fires,
            State::Fired if rearms => Change::Rearms,
            State::Armed | State::Fired => Change::None,
        }
    }
}

impl State {
    /// The state after a change.
    pub fn after(self, change: Change) -> State {
        match change {
            Change::None => self,
            Change::Fires => State::Fired,
            Change::Rearms => State::Armed,
        }
    }

    /// As a byte of a stored value.
    pub fn to_byte(self) -> u8 {
        match self {
            State::Armed => b'a',
            State::Fired => b'f',
        }
    }

    /// From a byte of a stored value; `None` when [`State::to_byte`] did not write it.
    pub fn from_byte(byte: u8) -> Option<State> {
        [State::Armed, State::Fired].into_iter().find(|state| state.to_byte() == byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The positions at which a trigger fires.
    fn fired(side: Side, threshold: &str, hysteresis: &str, values: &[&str]) -> Vec<usize> {
        let trigger =
            Trigger::new(side, threshold.parse().unwrap(), hysteresis.parse().unwrap()).unwrap();
        let mut state = State::default();
        let mut fired = Vec::new();
        for (position, value) in values.iter().enumerate() {
            let change = trigger.look(state, value.parse().unwrap());
            if change == Change::Fires {
                fired.push(position);
            }
            state = state.after(change);
        }
        fired
    }

    #[test]
    fn a_crossing_is_told_once_and_not_once_per_block() {
        assert_eq!(fired(Side::Above, "100", "5", &["99", "100", "101", "150", "100"]), [1]);
        assert_eq!(fired(Side::Below, "100", "5", &["101", "100", "99", "50", "100"]), [1]);
    }

    #[test]
    fn it_fires_again_only_after_the_value_has_come_back_by_the_hysteresis() {
        assert_eq!(fired(Side::Above, "100", "5", &["100", "96", "101", "95", "101"]), [0]);
        assert_eq!(fired(Side::Above, "100", "5", &["100", "94.99", "99.9", "100"]), [0, 3]);
        assert_eq!(fired(Side::Below, "100", "5", &["100", "104", "99", "105", "99"]), [0]);
        assert_eq!(fired(Side::Below, "100", "5", &["100", "105.01", "100.1", "100"]), [0, 3]);
    }

    #[test]
    fn without_hysteresis_any_value_on_the_other_side_arms_it() {
        assert_eq!(fired(Side::Above, "100", "0", &["100", "99.99", "100", "100"]), [0, 2]);
        assert_eq!(fired(Side::Below, "100", "0", &["100", "100.01", "100", "100"]), [0, 2]);
    }

    #[test]
    fn a_value_beyond_the_threshold_at_first_sight_is_told() {
        assert_eq!(fired(Side::Above, "100", "5", &["500", "500"]), [0]);
        assert_eq!(fired(Side::Below, "100", "5", &["5", "5"]), [0]);
        assert_eq!(fired(Side::Above, "100", "5", &["97", "97"]), [0; 0]);
    }

    #[test]
    fn a_hysteresis_nothing_could_come_back_by_is_refused() {
        let refused = |side, threshold: &str, hysteresis: &str| {
            Trigger::new(side, threshold.parse().unwrap(), hysteresis.parse().unwrap()).is_err()
        };
        assert!(refused(Side::Above, "100", "100"));
        assert!(refused(Side::Above, "100", "100.1"));
        assert!(refused(Side::Above, "0", "0"));
        assert!(!refused(Side::Above, "100", "99.9"));
        assert!(!refused(Side::Below, "100", "1000"));
        assert!(refused(Side::Below, &alloy_primitives::U256::MAX.to_string(), "1"));
    }

    #[test]
    fn a_state_survives_being_stored() {
        for state in [State::Armed, State::Fired] {
            assert_eq!(State::from_byte(state.to_byte()), Some(state));
        }
        assert_eq!(State::from_byte(0), None);
    }

    #[test]
    fn configuration_names_the_side_in_lower_case() {
        assert_eq!(serde_json::from_str::<Side>(r#""below""#).unwrap(), Side::Below);
        assert!(serde_json::from_str::<Side>(r#""Below""#).is_err());
    }
}
