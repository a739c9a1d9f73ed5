//! Which block a time means.
//!
//! Blocks are searched for by their own time. From the newest block back the steps double until one
//! is old enough, then the stretch that was stepped over is halved: that way no block is asked for
//! that is much older than the one that is wanted, and may be gone from an endpoint that only keeps
//! recent ones.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use shepherd_log::Header;

use crate::{FetchError, Start, fetch::Fetcher};

/// Why a block that was asked for cannot be named. Asking again later may help for those that are
/// to come; the others are mistakes of whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchBlock {
    /// The time is before the chain's first block.
    #[error(
        "the chain begins at {begins}, and {wanted} is before that: name block 0 for all of it"
    )]
    BeforeGenesis {
        /// The time asked for.
        wanted: Moment,
        /// The time of the first block that has one.
        begins: Moment,
    },
    /// The time is after the newest block.
    #[error("the newest block, {head}, is of {newest}, and {wanted} is after that")]
    TimeToCome {
        /// The time asked for.
        wanted: Moment,
        /// The number of the newest block.
        head: u64,
        /// Its time.
        newest: Moment,
    },
    /// The block is after the newest block.
    #[error("the chain has not reached block {wanted}: the newest is {head}")]
    BlockToCome {
        /// The number asked for.
        wanted: u64,
        /// The number of the newest block.
        head: u64,
    },
    /// The last block is before the first one.
    #[error("the last block wanted, {last}, is before the first, {first}")]
    Backwards {
        /// The number of the first.
        first: u64,
        /// The number of the last.
        last: u64,
    },
}

impl NoSuchBlock {
    /// Whether the chain will have the block one day.
    pub fn is_to_come(&self) -> bool {
        matches!(self, NoSuchBlock::TimeToCome { .. } | NoSuchBlock::BlockToCome { .. })
    }
}

/// A time as blocks have it: whole seconds since 1970. Shown as a date in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_second(seconds) {
            Ok(timestamp) => timestamp.fmt(f),
            Err(_) => write!(f, "second {seconds} of Unix time"),
        }
    }
}

/// Why a block could not be named.
#[derive(Debug)]
pub(crate) enum Unresolved {
    NoSuchBlock(NoSuchBlock),
    /// To be tried again.
    Fetch(FetchError),
}

impl From<FetchError> for Unresolved {
    fn from(error: FetchError) -> Unresolved {
        Unresolved::Fetch(error)
    }
}

impl From<NoSuchBlock> for Unresolved {
    fn from(error: NoSuchBlock) -> Unresolved {
        Unresolved::NoSuchBlock(error)
    }
}

/// The number of the first block, on a chain whose newest block is `head`.
pub(crate) async fn resolve(
    start: Start,
    head: &Header,
    fetcher: &Fetcher,
) -> Result<u64, Unresolved> {
    match start {
        Start::Block(wanted) => has_reached(wanted, head),
        Start::Latest => Ok(head.this.number),
        Start::Ago(ago) => first_since(before_now(ago), head, fetcher).await,
        Start::At(wanted) => first_since(wanted, head, fetcher).await,
    }
}

/// Checks that the chain has reached a block, which is handed back.
pub(crate) fn has_reached(wanted: u64, head: &Header) -> Result<u64, Unresolved> {
    let head = head.this.number;
    if head < wanted {
        return Err(NoSuchBlock::BlockToCome { wanted, head }.into());
    }
    Ok(wanted)
}

fn before_now(ago: Duration) -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.saturating_sub(ago).as_secs()
}

/// The number of the first block that is not older than a Unix time in seconds.
pub(crate) async fn first_since(
    wanted: u64,
    head: &Header,
    fetcher: &Fetcher,
) -> Result<u64, Unresolved> {
    let mut search = Search::from_head(wanted, head.this.number, head.timestamp)?;
    while let Some(number) = search.probe() {
        search.tell(number, fetcher.at(number).await?.header.timestamp);
    }
    Ok(search.found()?)
}

/// The number of the last block that is not younger than a Unix time in seconds.
pub(crate) async fn last_until(
    wanted: u64,
    head: &Header,
    fetcher: &Fetcher,
) -> Result<u64, Unresolved> {
    if wanted == head.timestamp {
        return Ok(head.this.number);
    }
    let after = first_since(wanted.saturating_add(1), head, fetcher).await.map_err(|error| {
        match error {
            // It is the time that was asked for that is to be named, not the second after it.
            Unresolved::NoSuchBlock(NoSuchBlock::TimeToCome { head, newest, .. }) => {
                NoSuchBlock::TimeToCome { wanted: Moment(wanted), head, newest }.into()
            }
            Unresolved::NoSuchBlock(NoSuchBlock::BeforeGenesis { begins, .. }) => {
                NoSuchBlock::BeforeGenesis { wanted: Moment(wanted), begins }.into()
            }
            error => error,
        }
    })?;
    match after.checked_sub(1) {
        Some(last) => Ok(last),
        None => {
            let begins = Moment(wanted.saturating_add(1));
            Err(NoSuchBlock::BeforeGenesis { wanted: Moment(wanted), begins }.into())
        }
    }
}

/// A search for the first block that is not older than a time. Decides which block's time to look
/// at next.
#[derive(Debug)]
struct Search {
    wanted: u64,
    /// The highest block known to be older, and its time.
    older: Option<(u64, u64)>,
    /// The lowest block known not to be older, and its time.
    younger: (u64, u64),
    step: u64,
}

/// The first step back, in blocks: an hour on Ethereum.
const FIRST_STEP: u64 = 256;

impl Search {
    fn from_head(wanted: u64, head: u64, newest: u64) -> Result<Search, NoSuchBlock> {
        if newest < wanted {
            let (wanted, newest) = (Moment(wanted), Moment(newest));
            return Err(NoSuchBlock::TimeToCome { wanted, head, newest });
        }
        Ok(Search { wanted, older: None, younger: (head, newest), step: FIRST_STEP })
    }

    /// The block to look at; `None` when the search has ended.
    fn probe(&self) -> Option<u64> {
        let (younger, _) = self.younger;
        match self.older {
            Some((older, _)) if older + 1 == younger => None,
            Some((older, _)) => Some(older.midpoint(younger)),
            None if younger == 0 => None,
            None => Some(younger.saturating_sub(self.step)),
        }
    }

    fn tell(&mut self, number: u64, timestamp: u64) {
        if timestamp < self.wanted {
            self.older = Some((number, timestamp));
        } else {
            self.younger = (number, timestamp);
            self.step *= 2;
        }
    }

    fn found(self) -> Result<u64, NoSuchBlock> {
        let (number, timestamp) = self.younger;
        // The genesis block of Ethereum has no time: its chain begins with block 1.
        let is_first = matches!(self.older, None | Some((0, 0)));
        if is_first && self.wanted < timestamp && number <= 1 {
            let (wanted, begins) = (Moment(self.wanted), Moment(timestamp));
            return Err(NoSuchBlock::BeforeGenesis { wanted, begins });
        }
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a chain, and says what was found and how many blocks were looked at.
    fn search(times: &[u64], wanted: u64) -> (Result<u64, NoSuchBlock>, Vec<u64>) {
        let head = times.len() as u64 - 1;
        let mut search = match Search::from_head(wanted, head, times[head as usize]) {
            Ok(search) => search,
            Err(error) => return (Err(error), Vec::new()),
        };
        let mut probed = Vec::new();
        while let Some(number) = search.probe() {
            probed.push(number);
            search.tell(number, times[number as usize]);
        }
        (search.found(), probed)
    }

    #[test]
    fn every_time_has_its_first_block() {
        // Two blocks of one second, as on fast chains, and gaps.
        let times = [100, 101, 101, 104, 110, 110, 110, 120];
        for wanted in 100..=120 {
            let expected = times.iter().position(|time| wanted <= *time).unwrap() as u64;
            assert_eq!(search(&times, wanted).0, Ok(expected), "{wanted}");
        }
    }

    #[test]
    fn a_recent_time_is_found_without_touching_old_blocks() {
        let times: Vec<u64> = (0..1_000_000).map(|number| 1_000 + 12 * number).collect();
        let wanted = times[990_000] - 3;
        let (found, probed) = search(&times, wanted);
        assert_eq!(found, Ok(990_000));
        assert!(probed.len() < 30, "{probed:?}");
        assert!(*probed.iter().min().unwrap() > 980_000, "{probed:?}");
        let (found, probed) = search(&times, 1_000);
        assert_eq!(found, Ok(0));
        assert!(probed.len() < 30, "{probed:?}");
    }

    #[test]
    fn a_time_before_the_chain_is_refused_in_words() {
        let refused = search(&[1_700_000_000, 1_700_000_012], 1_600_000_000).0.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the chain begins at 2023-11-14T22:13:20Z, and 2020-09-13T12:26:40Z is before that: \
             name block 0 for all of it"
        );
        assert!(!refused.is_to_come());
    }

    #[test]
    fn a_genesis_block_without_a_time_is_not_where_the_chain_begins() {
        let times = [0, 1_438_269_988, 1_438_270_017];
        let refused = search(&times, 1_400_000_000).0.unwrap_err();
        let begins = Moment(1_438_269_988);
        let wanted = Moment(1_400_000_000);
        assert_eq!(refused, NoSuchBlock::BeforeGenesis { wanted, begins });
        assert_eq!(search(&times, 1_438_269_988).0, Ok(1));
    }

    #[test]
    fn a_time_after_the_newest_block_is_refused_in_words() {
        let refused = search(&[1_700_000_000, 1_700_000_012], 1_700_000_013).0.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the newest block, 1, is of 2023-11-14T22:13:32Z, and 2023-11-14T22:13:33Z is after that"
        );
        assert!(refused.is_to_come());
    }
}
