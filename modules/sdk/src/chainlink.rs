//! Chainlink: what a price feed says, and whether it still counts.
//!
//! ```text
//! requests(feed) ──one batch──▶ latestRoundData, decimals ──▶ Round: price, when
//!                                                               │
//!                              remembered, so that it is told once ──▶ Feed: can it be relied on?
//! ```

use std::time::Duration;

use alloy_primitives::{Address, Bytes, I256, U256};
use alloy_sol_types::{SolCall, abi::AbiDecoderConfig};

use crate::{
    Answer, Decimal, Level, Request,
    abi::{Aggregator, call},
};

/// The last round of a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// The price, with the decimals of the feed.
    pub price: Decimal,
    /// When it was reported, in seconds since 1970.
    pub updated_at: u64,
}

/// A feed that says nothing usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// It reverted: it is no feed, or it has no data yet.
    #[error("the feed reverted with {0}")]
    Reverted(Bytes),
    /// It answered something else: there may be no contract at the address.
    #[error("what the feed answered is no round of a price feed")]
    Malformed,
    /// A round has begun and nothing is reported yet.
    #[error("the feed has not reported yet")]
    Incomplete,
    /// A price that is zero or negative. Feeds of prices answer that when they are broken.
    #[error("the feed reports {0}, which is no price")]
    NotPositive(I256),
    /// More decimals than make sense.
    #[error("the feed has {0} decimals")]
    Decimals(u8),
}

/// Whether a feed can be relied on.
///
/// A module remembers it, and so tells once that a feed has stopped, and not at every block.
///
/// ```
/// use std::time::Duration;
/// use shepherd_sdk::{Level, chainlink::{Feed, FeedError, Round}};
///
/// let hour = Duration::from_secs(3_600);
/// let round = Ok(Round { price: "1850.5".parse()?, updated_at: 1_000 });
/// let (feed, news) = Feed::Fresh.look(&round, 4_601, hour);
/// assert_eq!(feed, Feed::Stale);
/// assert_eq!(news, Some((Level::Warn, "last reported 3601 s ago, at most 3600 s count".to_owned())));
///
/// let (feed, news) = feed.look(&round, 4_602, hour);
/// assert_eq!((feed, news), (Feed::Stale, None));
/// # Ok::<(), shepherd_sdk::decimal::InvalidDecimal>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Feed {
    /// It reports. A feed is taken to until it is looked at, so that one which does not is told.
    #[default]
    Fresh,
    /// Its last round is too old to count.
    Stale,
    /// It says nothing usable.
    Broken,
}

/// What to ask a feed: one batch for [`Round::read`].
pub fn requests(feed: Address) -> [Request; 2] {
    [call(feed, &Aggregator::latestRoundDataCall {}), call(feed, &Aggregator::decimalsCall {})]
}

impl Round {
    /// Reads the answers to [`requests`].
    ///
    /// `answeredInRound` is not looked at: Chainlink documents it as deprecated, and what it used
    /// to tell is told by the time.
    ///
    /// ```
    /// use shepherd_sdk::{
    ///     Address, Answer, Host, I256, U256,
    ///     abi::Aggregator::{decimalsCall, latestRoundDataCall, latestRoundDataReturn},
    ///     alloy_sol_types::SolCall,
    ///     chainlink::{Round, requests},
    ///     testing::MemoryHost,
    /// };
    ///
    /// let feed = Address::repeat_byte(0xfe);
    /// let mut host = MemoryHost::default();
    /// let round = latestRoundDataReturn {
    ///     answer: I256::try_from(185_050_000_000u64).unwrap(),
    ///     updatedAt: U256::from(1_700_000_000),
    ///     ..Default::default()
    /// };
    /// let [latest, decimals] = requests(feed);
    /// let returned = latestRoundDataCall::abi_encode_returns(&round);
    /// host.answer(latest, Answer::Returned(returned.into()));
    /// host.answer(decimals, Answer::Returned(decimalsCall::abi_encode_returns(&8).into()));
    ///
    /// let round = Round::read(&host.read(&requests(feed)))?;
    /// assert_eq!(round.price, "1850.5".parse().unwrap());
    /// assert_eq!(round.age(1_700_000_060).as_secs(), 60);
    /// # Ok::<(), shepherd_sdk::chainlink::FeedError>(())
    /// ```
    pub fn read(answers: &[Answer]) -> Result<Round, FeedError> {
        let [latest, decimals] = answers else { return Err(FeedError::Malformed) };
        let latest = returned::<Aggregator::latestRoundDataCall>(latest)?;
        let decimals = returned::<Aggregator::decimalsCall>(decimals)?;
        // Too late for a clock of 64 bits is no time either.
        let updated_at = u64::try_from(latest.updatedAt).map_err(|_| FeedError::Malformed)?;
        if updated_at == 0 {
            return Err(FeedError::Incomplete);
        }
        if latest.answer <= I256::ZERO {
            return Err(FeedError::NotPositive(latest.answer));
        }
        let digits: U256 = latest.answer.into_raw();
        let price = Decimal::new(digits, decimals).map_err(|_| FeedError::Decimals(decimals))?;
        Ok(Round { price, updated_at })
    }

    /// How long ago it was reported. A report from the future is from now: the time of a block may
    /// be behind the one the report was made in on a layer 2.
    pub fn age(&self, now: u64) -> Duration {
        Duration::from_secs(now.saturating_sub(self.updated_at))
    }

    /// Whether it is older than this. Every feed has a heartbeat, an hour or a day: what is older
    /// than that, and a little, is a feed that has stopped.
    pub fn is_stale(&self, now: u64, age_max: Duration) -> bool {
        age_max < self.age(now)
    }
}

impl Feed {
    const ALL: [Feed; 3] = [Feed::Fresh, Feed::Stale, Feed::Broken];

    /// What the feed is like now, and a line for the operator when that is news. Whoever writes it
    /// says in front of it which feed it is.
    pub fn look(
        self,
        round: &Result<Round, FeedError>,
        now: u64,
        age_max: Duration,
    ) -> (Feed, Option<(Level, String)>) {
        let (feed, line) = match round {
            Err(error) => (Feed::Broken, (Level::Warn, format!("is of no use: {error}"))),
            Ok(round) if round.is_stale(now, age_max) => {
                let (age, age_max) = (round.age(now).as_secs(), age_max.as_secs());
                let line = format!("last reported {age} s ago, at most {age_max} s count");
                (Feed::Stale, (Level::Warn, line))
            }
            Ok(round) => (Feed::Fresh, (Level::Info, format!("reports again: {}", round.price))),
        };
        (feed, (feed != self).then_some(line))
    }

    /// As a byte of a stored value.
    pub fn to_byte(self) -> u8 {
        match self {
            Feed::Fresh => b'f',
            Feed::Stale => b's',
            Feed::Broken => b'b',
        }
    }

    /// From a byte of a stored value; `None` when [`Feed::to_byte`] did not write it.
    pub fn from_byte(byte: u8) -> Option<Feed> {
        Feed::ALL.into_iter().find(|feed| feed.to_byte() == byte)
    }
}

fn returned<C: SolCall>(answer: &Answer) -> Result<C::Return, FeedError> {
    let data = match answer {
        Answer::Returned(data) => data,
        Answer::Reverted(data) => return Err(FeedError::Reverted(data.clone())),
        _ => return Err(FeedError::Malformed),
    };
    let validating = AbiDecoderConfig::new().validate(true);
    C::abi_decode_returns_with_config(data, validating).map_err(|_| FeedError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Aggregator::{decimalsCall, latestRoundDataCall, latestRoundDataReturn};

    const REPORTED: u64 = 1_700_000_000;

    fn latest(answer: I256, updated_at: U256) -> Answer {
        let round = latestRoundDataReturn { answer, updatedAt: updated_at, ..Default::default() };
        Answer::Returned(latestRoundDataCall::abi_encode_returns(&round).into())
    }

    fn decimals(decimals: u8) -> Answer {
        Answer::Returned(decimalsCall::abi_encode_returns(&decimals).into())
    }

    fn number(number: i64) -> I256 {
        I256::try_from(number).unwrap()
    }

    #[track_caller]
    fn check(answers: &[Answer], expected: FeedError) {
        assert_eq!(Round::read(answers), Err(expected));
    }

    #[test]
    fn a_round_is_a_price_with_the_feeds_decimals_and_a_time() {
        let answers = [latest(number(99_990_000), U256::from(REPORTED)), decimals(8)];
        let round = Round::read(&answers).unwrap();
        assert_eq!(round.price.to_string(), "0.99990000");
        assert_eq!(round.updated_at, REPORTED);
    }

    #[test]
    fn a_feed_that_says_nothing_usable_says_why() {
        let good = || latest(number(1), U256::from(REPORTED));
        let revert = Bytes::from_static(b"no data");
        check(&[], FeedError::Malformed);
        check(&[good()], FeedError::Malformed);
        check(
            &[Answer::Reverted(revert.clone()), decimals(8)],
            FeedError::Reverted(revert.clone()),
        );
        check(&[good(), Answer::Reverted(revert.clone())], FeedError::Reverted(revert));
        // A call to an address without code returns nothing.
        check(&[Answer::Returned(Bytes::new()), decimals(8)], FeedError::Malformed);
        check(&[good(), Answer::Returned(vec![0xff; 32].into())], FeedError::Malformed);
        check(&[Answer::Balance(U256::from(1)), decimals(8)], FeedError::Malformed);
        check(&[latest(number(1), U256::MAX), decimals(8)], FeedError::Malformed);
        check(&[latest(number(1), U256::ZERO), decimals(8)], FeedError::Incomplete);
        let at = U256::from(REPORTED);
        check(&[latest(number(0), at), decimals(8)], FeedError::NotPositive(number(0)));
        check(&[latest(number(-5), at), decimals(8)], FeedError::NotPositive(number(-5)));
        check(&[good(), decimals(78)], FeedError::Decimals(78));
        check(&[good(), decimals(255)], FeedError::Decimals(255));
    }

    #[test]
    fn a_round_is_stale_once_it_is_older_than_allowed() {
        let round = Round { price: "1".parse().unwrap(), updated_at: REPORTED };
        let stale = |now| round.is_stale(now, Duration::from_secs(3_600));
        assert!(!stale(REPORTED));
        assert!(!stale(REPORTED + 3_600));
        assert!(stale(REPORTED + 3_601));
        assert!(!stale(REPORTED - 1));
        assert_eq!(round.age(REPORTED - 1), Duration::ZERO);
    }

    #[test]
    fn what_a_feed_is_like_is_told_when_it_changes_and_not_again() {
        let reported =
            |age| Ok(Round { price: "1.5".parse().unwrap(), updated_at: REPORTED - age });
        let check = |before: Feed, round: &Result<Round, FeedError>, after, line: Option<&str>| {
            let (feed, news) = before.look(round, REPORTED, Duration::from_secs(60));
            assert_eq!(feed, after);
            assert_eq!(news.as_ref().map(|(_, line)| line.as_str()), line);
            let level = if feed == Feed::Fresh { Level::Info } else { Level::Warn };
            assert!(news.is_none_or(|(of, _)| of == level));
        };
        let malformed = format!("is of no use: {}", FeedError::Malformed);
        for before in Feed::ALL {
            let news = |after: Feed, line| Some(line).filter(|_| before != after);
            let stale = "last reported 61 s ago, at most 60 s count";
            check(before, &reported(60), Feed::Fresh, news(Feed::Fresh, "reports again: 1.5"));
            check(before, &reported(61), Feed::Stale, news(Feed::Stale, stale));
            check(before, &Err(FeedError::Malformed), Feed::Broken, news(Feed::Broken, &malformed));
        }
    }

    #[test]
    fn what_a_feed_is_like_survives_being_stored() {
        for feed in Feed::ALL {
            assert_eq!(Feed::from_byte(feed.to_byte()), Some(feed));
        }
        assert_eq!(Feed::from_byte(0), None);
    }
}
