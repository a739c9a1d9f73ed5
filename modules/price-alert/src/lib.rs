//! Price feeds against thresholds, with one webhook for each crossing.
//!
//! ```text
//! feeds ──one batch──▶ rounds ──▶ alert: fresh? across the threshold? ──▶ line, webhook
//!
//! key     value
//! name    configuration (8: start of a hash)  crossing ('a' armed, 'f' fired)
//!         feed ('f' fresh, 's' stale, 'b' broken)
//! ```
//!
//! After an alert has fired it is silent until the price has come back by the hysteresis, so a
//! crossing is told once and not at every block. An alert that is configured otherwise than when
//! it was stored starts again.

use std::collections::BTreeMap;

use serde::Deserialize;
use shepherd_sdk::{
    Address, Error, Header, Host, Input, Level, Module, Webhook,
    chainlink::{FeedError, Round, requests},
    crossing::Change,
    serde_json::{Value, json},
};

use alert::{Alert, AlertConfig, name_of};

mod alert;

/// Most alerts of a lane. Each may write two lines in a block, and a record has room for 256.
const ALERTS_MAX: usize = 100;

/// What to watch, and whom to tell.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    alerts: Vec<AlertConfig>,
    #[serde(default)]
    webhook: Option<String>,
}

/// The module.
#[derive(Debug)]
pub struct PriceAlert {
    alerts: Vec<Alert>,
    webhook: Option<String>,
}

impl Module for PriceAlert {
    type Config = Config;

    fn configure(config: Config) -> Result<PriceAlert, Error> {
        if config.alerts.is_empty() {
            return Err(Error::new("`alerts` is empty: write at least one [[config.alerts]]"));
        }
        if ALERTS_MAX < config.alerts.len() {
            let count = config.alerts.len();
            return Err(Error::new(format!("{count} `alerts` are more than {ALERTS_MAX}")));
        }
        let mut alerts: Vec<Alert> = Vec::new();
        for alert in config.alerts {
            let alert = Alert::configure(alert)?;
            if alerts.iter().any(|other| other.state_key() == alert.state_key()) {
                let name = &alert.config().name;
                return Err(Error::new(format!("two alerts are named `{name}`: rename one")));
            }
            alerts.push(alert);
        }
        if config.webhook.as_deref() == Some("") {
            return Err(Error::new(
                "`webhook` is empty: write a name from `webhooks` of the manifest, or leave it out",
            ));
        }
        Ok(PriceAlert { alerts, webhook: config.webhook })
    }

    fn handle(&self, host: &mut impl Host, input: &Input) -> Result<(), Error> {
        match input {
            Input::Block(block) => self.look(host, &block.header),
            Input::Outcome(input) => {
                input.outcome.tell(host);
                Ok(())
            }
            // A crossing that was taken back has been told.
            Input::Revert(input) => {
                input.outcomes.iter().for_each(|outcome| outcome.tell(host));
                Ok(())
            }
        }
    }
}

shepherd_sdk::export!(PriceAlert);

impl PriceAlert {
    fn look(&self, host: &mut impl Host, header: &Header) -> Result<(), Error> {
        let rounds = self.rounds(host);
        for alert in &self.alerts {
            let config = alert.config();
            let round = rounds.get(&config.feed).expect("every alert's feed is read");
            let stored = host.get(alert.state_key());
            let before = alert.decode(stored.as_deref())?;
            let look = alert.look(before, round, header.timestamp);
            if let Some((level, news)) = look.news {
                host.log(level, &format!("{}: feed {} {news}", config.name, config.feed));
            }
            match (look.change, round) {
                (Change::Fires, Ok(round)) => self.fire(host, header, alert, round),
                (Change::Rearms, Ok(round)) => {
                    let line = format!("{}: armed again at {}", config.name, round.price);
                    host.log(Level::Info, &line);
                }
                _ => (),
            }
            let encoded = alert.encode(look.known);
            if stored.as_deref() != Some(&encoded) {
                host.set(alert.state_key(), &encoded);
            }
        }
        Ok(())
    }

    /// What each feed says, all asked in one batch, and each once however many alerts watch it.
    fn rounds(&self, host: &mut impl Host) -> BTreeMap<Address, Result<Round, FeedError>> {
        let mut feeds: Vec<Address> = self.alerts.iter().map(|alert| alert.config().feed).collect();
        feeds.sort_unstable();
        feeds.dedup();
        let asked: Vec<_> = feeds.iter().copied().flat_map(requests).collect();
        let answers = host.read(&asked);
        feeds.into_iter().zip(answers.chunks(2).map(Round::read)).collect()
    }

    fn fire(&self, host: &mut impl Host, header: &Header, alert: &Alert, round: &Round) {
        let config = alert.config();
        let direction = name_of(config.direction);
        let line = format!(
            "{}: {} is {direction} {} at block {}",
            config.name, round.price, config.threshold, header.number
        );
        host.log(Level::Warn, &line);
        if let Some(destination) = &self.webhook {
            let chain_id = host.chain_id();
            let key = Some(alert.key(chain_id, round));
            let body = body(chain_id, header, alert, round);
            host.webhook(&Webhook { key, ..Webhook::new(destination, &body) });
        }
    }
}

/// What a receiver is told of a crossing. Prices are strings, because numbers lose digits.
fn body(chain_id: u64, header: &Header, alert: &Alert, round: &Round) -> Value {
    let config = alert.config();
    json!({
        "module": "price-alert",
        "chain_id": chain_id,
        "name": config.name,
        "feed": config.feed.to_string(),
        "direction": name_of(config.direction),
        "threshold": config.threshold.to_string(),
        "answer": round.price.to_string(),
        "updated_at": round.updated_at,
        "block": header.number,
        "block_hash": header.hash.to_string(),
        "time": header.timestamp,
    })
}

#[cfg(test)]
mod tests {
    use shepherd_sdk::{
        Answer, EffectKey, EffectResult, I256, Outcome, RevertInput, U256,
        abi::Aggregator::{decimalsCall, latestRoundDataCall, latestRoundDataReturn},
        alloy_sol_types::SolCall,
        serde_json,
        testing::{MemoryHost, block, header, refused_with, webhook_outcome},
    };

    use super::*;

    const ETH: Address = Address::repeat_byte(0xe);
    const BTC: Address = Address::repeat_byte(0xb);

    fn module(config: Value) -> Result<PriceAlert, Error> {
        PriceAlert::configure(serde_json::from_value(config).unwrap())
    }

    fn alert(name: &str, feed: Address, direction: &str, threshold: &str) -> Value {
        json!({
            "name": name, "feed": feed, "direction": direction, "threshold": threshold,
            "hysteresis": "10", "age_seconds_max": 3_600,
        })
    }

    fn low(webhook: Option<&str>) -> PriceAlert {
        let alerts = [alert("eth-low", ETH, "below", "1500")];
        module(json!({ "alerts": alerts, "webhook": webhook })).unwrap()
    }

    /// From now on the feed says that this price, in cents, was reported at this time.
    fn report(host: &mut MemoryHost, feed: Address, cents: u64, updated_at: u64) {
        let [latest, decimals] = requests(feed);
        let round = latestRoundDataReturn {
            answer: I256::try_from(cents).unwrap(),
            updatedAt: U256::from(updated_at),
            ..Default::default()
        };
        let round = latestRoundDataCall::abi_encode_returns(&round);
        host.answer(latest, Answer::Returned(round.into()));
        host.answer(decimals, Answer::Returned(decimalsCall::abi_encode_returns(&2).into()));
    }

    /// Runs one block after another with these prices in cents, each reported at its block, and
    /// says after which of them a webhook was called.
    fn called(module: &PriceAlert, host: &mut MemoryHost, first: u64, cents: &[u64]) -> Vec<u64> {
        let mut called = Vec::new();
        for (number, cents) in (first..).zip(cents) {
            report(host, ETH, *cents, header(number).timestamp);
            let before = host.webhooks.len();
            module.handle(host, &block(number, vec![])).unwrap();
            match host.webhooks.len() - before {
                0 => (),
                1 => called.push(number),
                more => panic!("{more} webhooks at block {number}"),
            }
        }
        called
    }

    #[test]
    fn a_crossing_is_told_once_and_again_only_after_the_hysteresis() {
        let mut host = MemoryHost::default();
        let prices = [160_000, 149_900, 149_800, 150_500, 149_900, 151_100, 149_900];
        assert_eq!(called(&low(Some("alerts")), &mut host, 1, &prices), [2, 7]);
        assert_eq!(host.lines_at(Level::Warn).len(), 2);
        assert_eq!(host.lines_at(Level::Info), ["eth-low: armed again at 1511.00"]);
        assert_eq!(host.state.len(), 1);
    }

    #[test]
    fn the_webhook_says_what_crossed_what_and_when() {
        let mut host = MemoryHost::default();
        called(&low(Some("alerts")), &mut host, 7, &[149_900]);
        let [(key, webhook)] = &host.webhooks[..] else { panic!("{:?}", host.webhooks) };
        assert_eq!(key, "price-alert/11155111/eth-low/below-1500/1700000084");
        assert_eq!(webhook.destination, "alerts");
        let body: Value = serde_json::from_str(&webhook.body).unwrap();
        let expected = json!({
            "module": "price-alert",
            "chain_id": 11_155_111,
            "name": "eth-low",
            "feed": ETH.to_string(),
            "direction": "below",
            "threshold": "1500",
            "answer": "1499.00",
            "updated_at": 1_700_000_084,
            "block": 7,
            "block_hash": header(7).hash.to_string(),
            "time": 1_700_000_084,
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn without_a_webhook_a_crossing_is_a_line_and_no_effect() {
        let mut host = MemoryHost::default();
        assert_eq!(called(&low(None), &mut host, 1, &[160_000, 149_900]), [0; 0]);
        assert_eq!(host.lines_at(Level::Warn), ["eth-low: 1499.00 is below 1500 at block 2"]);
    }

    #[test]
    fn the_same_round_seen_again_after_a_reorg_is_told_under_the_same_key() {
        let module = low(Some("alerts"));
        let mut host = MemoryHost::default();
        report(&mut host, ETH, 160_000, header(1).timestamp);
        module.handle(&mut host, &block(1, vec![])).unwrap();
        let before = host.state.clone();
        report(&mut host, ETH, 149_900, header(2).timestamp);
        module.handle(&mut host, &block(2, vec![])).unwrap();
        // Block 2 is taken back, and what another block 3 sees is the same round.
        host.state = before;
        module.handle(&mut host, &block(3, vec![])).unwrap();
        let [(first, _), (second, _)] = &host.webhooks[..] else { panic!("{:?}", host.webhooks) };
        assert_eq!(first, second);
    }

    #[test]
    fn a_stale_feed_fires_nothing_and_is_told_when_it_stops_and_when_it_comes_back() {
        let module = low(Some("alerts"));
        let mut host = MemoryHost::default();
        report(&mut host, ETH, 149_900, header(1).timestamp - 3_601);
        for number in 1..4 {
            module.handle(&mut host, &block(number, vec![])).unwrap();
        }
        assert!(host.webhooks.is_empty());
        let line = format!("eth-low: feed {ETH} last reported 3601 s ago, at most 3600 s count");
        assert_eq!(host.lines_at(Level::Warn), [line]);
        assert_eq!(called(&module, &mut host, 4, &[149_900]), [4]);
        let line = format!("eth-low: feed {ETH} reports again: 1499.00");
        assert_eq!(host.lines_at(Level::Info), [line]);
    }

    #[test]
    fn a_feed_that_is_none_is_told_once_and_does_not_halt_the_lane() {
        let mut host = MemoryHost::default();
        for request in requests(ETH) {
            host.answer(request, Answer::Returned(Default::default()));
        }
        for number in 1..4 {
            low(None).handle(&mut host, &block(number, vec![])).unwrap();
        }
        assert_eq!(host.lines_at(Level::Warn).len(), 1);
    }

    #[test]
    fn all_feeds_are_read_in_one_batch_and_each_once() {
        let alerts = [
            alert("eth-low", ETH, "below", "1500"),
            alert("eth-high", ETH, "above", "4000"),
            alert("btc-high", BTC, "above", "100000"),
        ];
        let module = module(json!({ "alerts": alerts })).unwrap();
        let mut host = MemoryHost::default();
        report(&mut host, ETH, 400_000, header(1).timestamp);
        report(&mut host, BTC, 9_000_000, header(1).timestamp);
        module.handle(&mut host, &block(1, vec![])).unwrap();
        let mut expected = requests(BTC).to_vec();
        expected.extend(requests(ETH));
        assert_eq!(host.reads, [expected]);
        assert_eq!(host.lines_at(Level::Warn), ["eth-high: 4000.00 is above 4000 at block 1"]);
        assert_eq!(host.state.len(), 3);
    }

    #[test]
    fn what_came_of_a_webhook_is_told_and_changes_nothing() {
        let module = low(Some("alerts"));
        let mut host = MemoryHost::default();
        called(&module, &mut host, 1, &[149_900]);
        let (state, key) = (host.state.clone(), host.webhooks[0].0.clone());
        let mut check = |result: EffectResult, level, words: &str| {
            host.lines.clear();
            let input = webhook_outcome(header(2), &key, result);
            module.handle(&mut host, &input).unwrap();
            let [(of, line)] = &host.lines[..] else { panic!("{:?}", host.lines) };
            assert_eq!(*of, level, "{line}");
            assert!(line.contains(&key) && line.contains(words), "{line}");
            assert_eq!(host.state, state);
        };
        check(EffectResult::Accepted, Level::Debug, "accepted");
        check(EffectResult::AlreadyThere, Level::Debug, "already");
        check(refused_with(401, None), Level::Error, "refused: status 401");
        check(EffectResult::Expired, Level::Warn, "no answer in time");
        check(EffectResult::Cancelled("by hand".to_owned()), Level::Warn, "by hand");
        check(EffectResult::DryRun, Level::Info, "dry run");
    }

    #[test]
    fn an_alert_that_is_real_and_was_taken_back_is_told() {
        let outcome = Outcome {
            key: EffectKey::Webhook("k".to_owned()),
            result: EffectResult::Accepted,
            abandoned: true,
        };
        let input = Input::Revert(RevertInput { header: header(3), outcomes: vec![outcome] });
        let mut host = MemoryHost::default();
        low(None).handle(&mut host, &input).unwrap();
        let line = "webhook k was accepted. The block that asked for it has been taken back";
        assert_eq!(host.lines_at(Level::Warn), [line]);
        assert!(host.webhooks.is_empty() && host.reads.is_empty());
    }

    #[test]
    fn a_configuration_that_could_not_work_is_refused_with_what_to_write() {
        let check = |config: Value, words: &str| {
            let error = module(config).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        check(json!({ "alerts": [] }), "[[config.alerts]]");
        let one = alert("a", ETH, "below", "1");
        check(json!({ "alerts": [one, one] }), "rename one");
        check(json!({ "alerts": [one], "webhook": "" }), "leave it out");
        let many: Vec<Value> =
            (0..101).map(|n| alert(&format!("a{n}"), ETH, "below", "1")).collect();
        check(json!({ "alerts": many }), "101 `alerts` are more than 100");
        let misspelt = json!({ "alerts": [one], "webhok": "alerts" });
        assert!(serde_json::from_value::<Config>(misspelt).is_err());
    }
}
