//! How a chain is followed.

use std::{fmt, str::FromStr, time::Duration};

/// How a chain is followed.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where an empty journal begins. A journal that holds blocks goes on after its head.
    pub start: Start,
    /// Most blocks that a reorg may abandon before the chain stops.
    pub reorg_depth_max: u64,
    /// How much of what endpoints say is checked.
    pub trust: Trust,
    /// How the logs of a block are numbered.
    pub log_indexes: LogIndexes,
    /// When a block is final. A reorg that would abandon a final block stops the chain.
    pub finality: Finality,
    /// How many endpoints must name the same block before it is journaled. At one, the endpoint
    /// that is asked decides alone; more than there are endpoints is never reached. Above one,
    /// every poll asks all endpoints for their heads.
    pub quorum: usize,
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
            start: Start::Block(0),
            reorg_depth_max: 64,
            trust: Trust::Bloom,
            log_indexes: LogIndexes::Dense,
            finality: Finality::Tag,
            quorum: 1,
            poll_interval: Duration::from_secs(2),
            fetch_parallel: 4,
            batch_blocks_max: 100,
            retry_min: Duration::from_millis(250),
            retry_max: Duration::from_secs(15),
        }
    }
}

impl Config {
    /// What each block is held to before it is journaled.
    pub fn checks(&self) -> Checks {
        Checks { trust: self.trust, log_indexes: self.log_indexes }
    }
}

/// What each block is held to before it is journaled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// How much of what was said is compared with what follows from its bytes.
    pub trust: Trust,
    /// How the logs of a block are numbered.
    pub log_indexes: LogIndexes,
}

/// The first block of an empty journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The block of this number.
    Block(u64),
    /// The newest block at the time of the first start.
    Latest,
    /// The first block that is not older than this at the time of the first start.
    Ago(Duration),
    /// The first block that is not older than this Unix time in seconds.
    At(u64),
}

/// How much of what endpoints say is checked, from little to much. Data that fails is never
/// journaled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// Ids, parent hashes and order: for chains whose hashes or blooms are not Ethereum's.
    Link,
    /// Also that the header has its hash, and that its bloom is exactly that of the logs. This
    /// finds missing logs unless another log of the block has the same address and topics.
    #[default]
    Bloom,
    /// Also that the receipts, which the logs are taken from, hash to the header's receipts root.
    /// Nothing an endpoint says about a block can differ from what the block's hash commits to.
    Receipts,
}

impl Trust {
    /// Whether headers must hash to the hash they came with. Then a block vouches for all its
    /// ancestors.
    pub fn checks_hashes(self) -> bool {
        match self {
            Trust::Link => false,
            Trust::Bloom | Trust::Receipts => true,
        }
    }
}

/// How the logs of a block are numbered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogIndexes {
    /// 0, 1, 2 and so on, as Ethereum's clients do. Finds a log that is missing before another.
    #[default]
    Dense,
    /// Each higher than the one before it: for chains that number logs nobody is shown.
    Rising,
}

/// When a block is final.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Finality {
    /// When the chain says so: up to the block that endpoints call `finalized`.
    #[default]
    Tag,
    /// When this many blocks have followed it.
    Depth(u64),
}

/// Text that is not a trust level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a trust level: use `link`, `bloom` or `receipts`")]
pub struct InvalidTrust(String);

impl FromStr for Trust {
    type Err = InvalidTrust;

    fn from_str(text: &str) -> Result<Trust, InvalidTrust> {
        match text {
            "link" => Ok(Trust::Link),
            "bloom" => Ok(Trust::Bloom),
            "receipts" => Ok(Trust::Receipts),
            _ => Err(InvalidTrust(text.to_owned())),
        }
    }
}

/// As a configuration says it.
impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Trust::Link => "link",
            Trust::Bloom => "bloom",
            Trust::Receipts => "receipts",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_levels_have_names() {
        assert_eq!("link".parse(), Ok(Trust::Link));
        assert_eq!("bloom".parse(), Ok(Trust::Bloom));
        assert_eq!("receipts".parse(), Ok(Trust::Receipts));
        assert_eq!("Bloom".parse::<Trust>(), Err(InvalidTrust("Bloom".to_owned())));
    }
}
