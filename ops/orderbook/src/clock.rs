//! What time it is for the orderbook.

use std::{str::FromStr, time::SystemTime};

use serde::{Deserialize, Serialize};

/// Where "now" comes from. Tests that move time by block timestamps follow the chain.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// The machine's clock.
    System,
    /// The timestamp of the chain's last block.
    Chain,
    /// Always this, in Unix seconds.
    Fixed(u64),
}

/// Text that names no clock.
#[derive(Debug, thiserror::Error)]
#[error("a clock is `system`, `chain` or a number of Unix seconds, not {0:?}")]
pub struct ClockError(String);

impl FromStr for Clock {
    type Err = ClockError;

    fn from_str(text: &str) -> Result<Clock, ClockError> {
        match text {
            "system" => Ok(Clock::System),
            "chain" => Ok(Clock::Chain),
            seconds => match seconds.parse() {
                Ok(seconds) => Ok(Clock::Fixed(seconds)),
                Err(_) => Err(ClockError(text.to_owned())),
            },
        }
    }
}

/// The machine's time, in Unix seconds.
pub fn system_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
