//! How a chain is followed.

use std::{str::FromStr, time::Duration};

/// How a chain is followed.
#[derive(Clone, Debug)]
pub struct Config {
    /// The first block of an empty journal. A journal that holds blocks goes on after its head.
    pub start_block: u64,
    /// Most blocks that a reorg may abandon before the chain stops.
    pub reorg_depth_max: u64,
    /// How much of what endpoints say is checked.
    pub trust: Trust,
    /// How often to look for a new head when nobody announces one.
    pub poll_interval: Duration,
    /// Fetches under way at once while filling a gap, one at least. Each holds one batch of
    /// blocks in memory.
    pub fetch_parallel: usize,
    /// Most blocks per fetch, and per append; one at least.
    pub batch_blocks_max: usize,
    /// Wait after a first failure; it doubles with each further one.
    pub retry_min: Duration,
    /// Longest wait between two attempts, which go on for ever.
    pub retry_max: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            start_block: 0,
            reorg_depth_max: 64,
            trust: Trust::Bloom,
            poll_interval: Duration::from_secs(2),
            fetch_parallel: 4,
            batch_blocks_max: 100,
            retry_min: Duration::from_millis(250),
            retry_max: Duration::from_secs(15),
        }
    }
}

/// How much of what endpoints say is checked. Data that fails is never journaled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Ids, parent hashes and order: for chains whose hashes or blooms are not Ethereum's.
    Link,
    /// Also that the header has its hash, and that its bloom is exactly that of the logs. This
    /// finds missing logs unless another log of the block has the same address and topics.
    #[default]
    Bloom,
}

/// Text that is not a trust level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTrust {
    /// A level that will exist.
    #[error("trust level `receipts` is not available yet; `bloom` is the strictest there is")]
    NotYet,
    /// A level that will not.
    #[error("`{0}` is not a trust level: use `link` or `bloom`")]
    Unknown(String),
}

impl FromStr for Trust {
    type Err = InvalidTrust;

    fn from_str(text: &str) -> Result<Trust, InvalidTrust> {
        match text {
            "link" => Ok(Trust::Link),
            "bloom" => Ok(Trust::Bloom),
            "receipts" => Err(InvalidTrust::NotYet),
            _ => Err(InvalidTrust::Unknown(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_levels_have_names() {
        assert_eq!("link".parse(), Ok(Trust::Link));
        assert_eq!("bloom".parse(), Ok(Trust::Bloom));
        assert_eq!("receipts".parse::<Trust>(), Err(InvalidTrust::NotYet));
        assert_eq!("Bloom".parse::<Trust>(), Err(InvalidTrust::Unknown("Bloom".to_owned())));
    }
}
