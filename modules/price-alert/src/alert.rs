//! One alert: what it watches, what is remembered of it, and what a round of its feed does.

use std::time::Duration;

use serde::Deserialize;
use shepherd_sdk::{
    Address, Decimal, Error, Level,
    alloy_primitives::keccak256,
    chainlink::{Feed, FeedError, Round},
    crossing::{Change, Side, State, Trigger},
};

/// Longest name of an alert: it is part of the webhook's key, which has 128 characters.
const NAME_LENGTH_MAX: usize = 32;

/// Most characters of a threshold, for the same reason. No price needs them.
const THRESHOLD_LENGTH_MAX: usize = 32;

/// An alert as it is configured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertConfig {
    /// What people call it.
    pub name: String,
    /// The price feed.
    pub feed: Address,
    /// On which side of the threshold the price has to be.
    pub direction: Side,
    /// The price, as people write it.
    pub threshold: Decimal,
    /// How far the price has to come back before the alert is armed again.
    #[serde(default = "zero")]
    pub hysteresis: Decimal,
    /// The age in seconds at which a round no longer counts.
    pub age_seconds_max: u64,
}

fn zero() -> Decimal {
    Decimal::ZERO
}

/// An alert that can fire, and fire again.
#[derive(Clone, Debug)]
pub struct Alert {
    config: AlertConfig,
    trigger: Trigger,
}

/// What is remembered of an alert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Whether it has fired.
    pub crossing: State,
    /// What its feed was like when it was last looked at.
    pub feed: Feed,
}

/// What a look at the feed found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// To be remembered.
    pub known: Known,
    /// What the price did. Nothing, unless the feed is fresh.
    pub change: Change,
    /// A line about the feed, when it stopped or came back.
    pub news: Option<(Level, String)>,
}

impl Alert {
    /// Checks an alert, and says what to write instead.
    pub fn configure(config: AlertConfig) -> Result<Alert, Error> {
        let AlertConfig { name, threshold, .. } = &config;
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if name.is_empty() || NAME_LENGTH_MAX < name.len() || !name.bytes().all(allowed) {
            return Err(Error::new(format!(
                "`{name}` does not name an alert: write 1 to {NAME_LENGTH_MAX} of a-z, 0-9 and -, \
                 for example `name = \"eth-low\"`"
            )));
        }
        if *threshold == Decimal::ZERO {
            return Err(Error::new(format!(
                "the `threshold` of {name} is 0, which no price crosses: write the price"
            )));
        }
        if THRESHOLD_LENGTH_MAX < threshold.to_string().len() {
            return Err(Error::new(format!(
                "the `threshold` of {name} has more than {THRESHOLD_LENGTH_MAX} characters: write \
                 fewer decimals"
            )));
        }
        if config.age_seconds_max == 0 {
            return Err(Error::new(format!(
                "the `age_seconds_max` of {name} is 0, so every round is too old: write the feed's \
                 heartbeat in seconds, and a little more"
            )));
        }
        let trigger = Trigger::new(config.direction, *threshold, config.hysteresis);
        let trigger = trigger.map_err(|error| {
            Error::new(format!("{name}: {error}. Write a `hysteresis` below the threshold"))
        })?;
        Ok(Alert { config, trigger })
    }

    /// What was configured.
    pub fn config(&self) -> &AlertConfig {
        &self.config
    }

    /// What a round does, and what is to be remembered.
    ///
    /// A round that is too old does nothing at all: a feed that has stopped knows no crossing, in
    /// either direction.
    pub fn look(&self, known: Known, round: &Result<Round, FeedError>, now: u64) -> Look {
        let age_max = Duration::from_secs(self.config.age_seconds_max);
        let (feed, news) = known.feed.look(round, now, age_max);
        let change = match round {
            Ok(round) if feed == Feed::Fresh => self.trigger.look(known.crossing, round.price),
            _ => Change::None,
        };
        Look { known: Known { crossing: known.crossing.after(change), feed }, change, news }
    }

    /// The key of the webhook that tells a crossing.
    ///
    /// It names the round that crossed and not the block: when a reorg takes the block back and
    /// another one sees the same round, that is the same crossing, and it is told once.
    pub fn key(&self, chain_id: u64, round: &Round) -> String {
        let AlertConfig { name, direction, threshold, .. } = &self.config;
        let direction = name_of(*direction);
        let updated_at = round.updated_at;
        format!("price-alert/{chain_id}/{name}/{direction}-{threshold}/{updated_at}")
    }

    /// Where it is kept in the state.
    pub fn state_key(&self) -> &[u8] {
        self.config.name.as_bytes()
    }

    /// As it is stored.
    pub fn encode(&self, known: Known) -> [u8; 10] {
        let [a, b, c, d, e, f, g, h] = self.fingerprint();
        [a, b, c, d, e, f, g, h, known.crossing.to_byte(), known.feed.to_byte()]
    }

    /// Reads what is stored. An alert that was configured otherwise when it was stored starts
    /// again: that the old threshold was crossed says nothing about the new one.
    pub fn decode(&self, stored: Option<&[u8]>) -> Result<Known, Error> {
        let Some(stored) = stored else { return Ok(Known::default()) };
        let read = || {
            let (fingerprint, rest) = stored.split_first_chunk::<8>()?;
            let [crossing, feed] = rest else { return None };
            let known =
                Known { crossing: State::from_byte(*crossing)?, feed: Feed::from_byte(*feed)? };
            Some(if *fingerprint == self.fingerprint() { known } else { Known::default() })
        };
        let name = &self.config.name;
        read().ok_or_else(|| Error::new(format!("what is stored of {name} is not an alert")))
    }

    /// Tells one configuration of an alert from another.
    fn fingerprint(&self) -> [u8; 8] {
        let AlertConfig { feed, direction, threshold, hysteresis, .. } = &self.config;
        let direction = name_of(*direction);
        let hash = keccak256(format!("{feed} {direction} {threshold} {hysteresis}"));
        let [a, b, c, d, e, f, g, h, ..] = hash.0;
        [a, b, c, d, e, f, g, h]
    }
}

/// As it is configured and told.
pub fn name_of(side: Side) -> &'static str {
    match side {
        Side::Above => "above",
        Side::Below => "below",
    }
}

#[cfg(test)]
mod tests {
    use shepherd_sdk::I256;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn config() -> AlertConfig {
        AlertConfig {
            name: "eth-low".to_owned(),
            feed: Address::repeat_byte(0xfe),
            direction: Side::Below,
            threshold: "1500".parse().unwrap(),
            hysteresis: "10".parse().unwrap(),
            age_seconds_max: 3_600,
        }
    }

    fn alert() -> Alert {
        Alert::configure(config()).unwrap()
    }

    #[expect(clippy::unnecessary_wraps, reason = "the shape of what a feed is read as")]
    fn round(price: &str, age: u64) -> Result<Round, FeedError> {
        Ok(Round { price: price.parse().unwrap(), updated_at: NOW - age })
    }

    const FEEDS: [Feed; 3] = [Feed::Fresh, Feed::Stale, Feed::Broken];

    #[track_caller]
    fn check(before: Known, round: &Result<Round, FeedError>, after: Known, change: Change) {
        let look = alert().look(before, round, NOW);
        assert_eq!((look.known, look.change), (after, change));
        assert_eq!(look.news.is_some(), before.feed != after.feed);
    }

    fn known(crossing: State, feed: Feed) -> Known {
        Known { crossing, feed }
    }

    #[test]
    fn a_fresh_round_fires_once_and_arms_again_when_it_has_come_back() {
        let armed = known(State::Armed, Feed::Fresh);
        let fired = known(State::Fired, Feed::Fresh);
        check(armed, &round("1501", 0), armed, Change::None);
        check(armed, &round("1500", 0), fired, Change::Fires);
        check(fired, &round("1400", 0), fired, Change::None);
        check(fired, &round("1510", 0), fired, Change::None);
        check(fired, &round("1510.1", 0), armed, Change::Rearms);
    }

    #[test]
    fn a_feed_that_is_too_old_or_broken_changes_nothing_but_what_is_known_of_the_feed() {
        for crossing in [State::Armed, State::Fired] {
            for feed in FEEDS {
                let before = known(crossing, feed);
                let stale = known(crossing, Feed::Stale);
                check(before, &round("1", 3_601), stale, Change::None);
                check(before, &round("9999", 3_601), stale, Change::None);
                let broken = known(crossing, Feed::Broken);
                check(before, &Err(FeedError::Malformed), broken, Change::None);
                check(before, &Err(FeedError::NotPositive(I256::ZERO)), broken, Change::None);
            }
        }
        let stale = known(State::Armed, Feed::Stale);
        let fired = known(State::Fired, Feed::Fresh);
        check(stale, &round("1", 3_600), fired, Change::Fires);
    }

    #[test]
    fn what_is_stored_is_read_back_under_the_same_configuration_and_starts_again_under_another() {
        for crossing in [State::Armed, State::Fired] {
            for feed in FEEDS {
                let known = known(crossing, feed);
                assert_eq!(alert().decode(Some(&alert().encode(known))), Ok(known));
            }
        }
        assert_eq!(alert().decode(None), Ok(Known::default()));
        let fired = alert().encode(known(State::Fired, Feed::Stale));
        let starts_again = |config: AlertConfig| {
            let other = Alert::configure(config).unwrap();
            assert_eq!(other.decode(Some(&fired)), Ok(Known::default()), "{other:?}");
        };
        starts_again(AlertConfig { feed: Address::ZERO, ..config() });
        starts_again(AlertConfig { direction: Side::Above, ..config() });
        starts_again(AlertConfig { threshold: "1499".parse().unwrap(), ..config() });
        starts_again(AlertConfig { hysteresis: "9".parse().unwrap(), ..config() });
        // How old a round may be has nothing to do with what was crossed.
        let patient = AlertConfig { age_seconds_max: 1, ..config() };
        let patient = Alert::configure(patient).unwrap();
        assert_eq!(patient.decode(Some(&fired)).unwrap().crossing, State::Fired);
    }

    #[test]
    fn a_value_that_no_alert_stored_is_an_error() {
        let good = alert().encode(Known::default());
        for bad in [&good[..9], &[&good[..], &[0]].concat(), &[0; 10], &[]] {
            assert!(alert().decode(Some(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_key_names_the_crossing_and_fits_whatever_is_configured() {
        let round = Round { price: "1499".parse().unwrap(), updated_at: NOW };
        assert_eq!(
            alert().key(11_155_111, &round),
            "price-alert/11155111/eth-low/below-1500/1700000000"
        );
        let longest = AlertConfig {
            name: "n".repeat(NAME_LENGTH_MAX),
            threshold: "1".repeat(THRESHOLD_LENGTH_MAX).parse().unwrap(),
            ..config()
        };
        let latest = Round { updated_at: u64::MAX, ..round };
        let key = Alert::configure(longest).unwrap().key(u64::MAX, &latest);
        assert!(key.len() <= 128, "{key} has {} characters", key.len());
    }

    #[test]
    fn an_alert_that_could_not_work_is_refused_with_what_to_write() {
        let check = |config: AlertConfig, words: &str| {
            let error = Alert::configure(config).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        let too_long = "n".repeat(NAME_LENGTH_MAX + 1);
        for name in ["", "Eth", "eth low", "eth/low", too_long.as_str()] {
            check(AlertConfig { name: name.to_owned(), ..config() }, "name = \"eth-low\"");
        }
        check(AlertConfig { threshold: Decimal::ZERO, ..config() }, "write the price");
        let long = "1".repeat(THRESHOLD_LENGTH_MAX + 1).parse().unwrap();
        check(AlertConfig { threshold: long, ..config() }, "fewer decimals");
        check(AlertConfig { age_seconds_max: 0, ..config() }, "heartbeat");
        let hysteresis = "1500".parse().unwrap();
        let above = AlertConfig { direction: Side::Above, hysteresis, ..config() };
        check(above, "below the threshold");
    }
}
