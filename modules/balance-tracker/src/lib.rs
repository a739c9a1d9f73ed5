//! Native and ERC-20 balances of configured addresses, told when one changes by a threshold.
//!
//! ```text
//! balances ──one batch──▶ watch: moved by the threshold? ──▶ line, webhook
//!
//! key                              value
//! holder (20)                      balance (32) reference (32), big-endian
//! token (20) holder (20)           the same; 'x' follows while the token does not say, alone
//!                                  when it never did
//! ```
//!
//! `reference` is the balance at first sight or when a change was last told. The change is
//! measured from there and not from the block before, so that an account that drains slowly is
//! noticed too.

use serde::Deserialize;
use shepherd_sdk::{
    Address, Error, Header, Host, Input, Level, Module, Request, U256, Webhook,
    config::decimal,
    serde_json::{Value, json},
};

use watch::{Known, News, Watch};

mod watch;

/// Most balances of a lane: each may call a webhook, and a record has room for a thousand effects.
const BALANCES_MAX: usize = 1_000;

/// Whom to watch, and whom to tell.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    addresses: Vec<Address>,
    threshold_wei: Option<Amount>,
    balances: Vec<BalanceConfig>,
    webhook: Option<String>,
}

/// A balance with a threshold of its own.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BalanceConfig {
    holder: Address,
    token: Option<Address>,
    #[serde(deserialize_with = "decimal")]
    threshold: U256,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Amount(#[serde(deserialize_with = "decimal")] U256);

/// The module.
#[derive(Debug)]
pub struct BalanceTracker {
    watches: Vec<Watch>,
    webhook: Option<String>,
}

impl Module for BalanceTracker {
    type Config = Config;

    fn configure(config: Config) -> Result<BalanceTracker, Error> {
        let Config { addresses, threshold_wei, balances, webhook } = config;
        if addresses.is_empty() && balances.is_empty() {
            return Err(Error::new(
                "`addresses` is empty, and so is `balances`: there is nothing to watch",
            ));
        }
        let threshold_wei = match threshold_wei {
            Some(Amount(wei)) if wei.is_zero() => {
                return Err(Error::new("`threshold_wei` is 0: every block would warn"));
            }
            Some(Amount(wei)) => wei,
            None if addresses.is_empty() => U256::MAX,
            None => {
                return Err(Error::new(
                    "`threshold_wei` is missing: write how far the balance of `addresses` may \
                     move, for example \"1000000000000000000\"",
                ));
            }
        };
        let native = addresses.into_iter().map(|holder| Watch {
            holder,
            token: None,
            threshold: threshold_wei,
        });
        let single = balances.into_iter().map(|balance| Watch {
            holder: balance.holder,
            token: balance.token,
            threshold: balance.threshold,
        });
        let watches: Vec<Watch> = native.chain(single).collect();
        check(&watches)?;
        if webhook.as_deref() == Some("") {
            return Err(Error::new(
                "`webhook` is empty: write a name from `webhooks` of the manifest, or leave it out",
            ));
        }
        Ok(BalanceTracker { watches, webhook })
    }

    fn handle(&self, host: &mut impl Host, input: &Input) -> Result<(), Error> {
        match input {
            Input::Block(block) => return self.look(host, &block.header),
            Input::Outcome(input) => input.outcome.tell(host),
            Input::Revert(input) => input.outcomes.iter().for_each(|outcome| outcome.tell(host)),
        }
        Ok(())
    }
}

shepherd_sdk::export!(BalanceTracker);

/// Refuses watches that could not work, and says what to write instead.
fn check(watches: &[Watch]) -> Result<(), Error> {
    if BALANCES_MAX < watches.len() {
        let count = watches.len();
        return Err(Error::new(format!("{count} balances are more than {BALANCES_MAX}")));
    }
    for watch in watches {
        let holder = watch.holder;
        if watch.token == Some(Address::ZERO) {
            return Err(Error::new(format!(
                "the `token` of {holder} is the zero address: leave it out for the native balance"
            )));
        }
        if watch.threshold.is_zero() {
            return Err(Error::new(format!(
                "the `threshold` of {holder} is 0: every block would warn"
            )));
        }
    }
    let mut keys: Vec<Vec<u8>> = watches.iter().map(Watch::key).collect();
    keys.sort_unstable();
    if let Some([twice, _]) = keys.array_windows().find(|[one, other]| one == other) {
        let holder = &twice[twice.len() - 20..];
        let holder = Address::from_slice(holder);
        return Err(Error::new(format!("a balance of {holder} is watched twice: leave one out")));
    }
    Ok(())
}

impl BalanceTracker {
    fn look(&self, host: &mut impl Host, header: &Header) -> Result<(), Error> {
        let requests: Vec<Request> = self.watches.iter().map(Watch::request).collect();
        let answers = host.read(&requests);
        for (watch, answer) in self.watches.iter().zip(answers) {
            let balance = watch.balance(&answer);
            if balance.is_none() && watch.token.is_none() {
                return Err(Error::new("the host answered a balance with something else"));
            }
            let key = watch.key();
            let before = host.get(&key);
            let before = before.as_deref().map(Known::decode).transpose()?;
            let (known, news) = watch.look(before.unwrap_or_default(), balance);
            self.tell(host, header, watch, news);
            if before != Some(known) {
                host.set(&key, &known.encode());
            }
        }
        Ok(())
    }

    fn tell(&self, host: &mut impl Host, header: &Header, watch: &Watch, news: News) {
        let Watch { holder, token, .. } = watch;
        let number = header.number;
        match (news, token) {
            (News::None, _) => (),
            (News::Changed { from, to }, None) => {
                let line = format!("{holder}: {from} wei became {to} wei by block {number}");
                host.log(Level::Warn, &line);
            }
            (News::Changed { from, to }, Some(token)) => {
                let line = format!("{holder}: {from} of {token} became {to} by block {number}");
                host.log(Level::Warn, &line);
            }
            (News::Unreadable, token) => {
                let token = token.unwrap_or_default();
                let line = format!("{holder}: {token} does not say its balance: is it a token?");
                host.log(Level::Warn, &line);
            }
            (News::Readable, token) => {
                let token = token.unwrap_or_default();
                host.log(Level::Info, &format!("{holder}: {token} says its balance"));
            }
        }
        let (News::Changed { from, to }, Some(destination)) = (news, &self.webhook) else { return };
        let chain_id = host.chain_id();
        host.webhook(&Webhook::new(destination, &body(chain_id, header, watch, from, to)));
    }
}

/// What a receiver is told of a change. Amounts are strings, because numbers lose digits.
fn body(chain_id: u64, header: &Header, watch: &Watch, from: U256, to: U256) -> Value {
    json!({
        "module": "balance-tracker",
        "chain_id": chain_id,
        "holder": watch.holder.to_string(),
        "token": watch.token.map(|token| token.to_string()),
        "from": from.to_string(),
        "to": to.to_string(),
        "threshold": watch.threshold.to_string(),
        "block": header.number,
        "block_hash": header.hash.to_string(),
        "time": header.timestamp,
    })
}

#[cfg(test)]
mod tests {
    use shepherd_sdk::{
        Answer, EffectResult, serde_json,
        testing::{MemoryHost, block, header, refused_with, webhook_outcome},
    };

    use super::*;

    const ALICE: Address = Address::repeat_byte(0xa);
    const BOB: Address = Address::repeat_byte(0xb);
    const TOKEN: Address = Address::repeat_byte(0x70);

    fn module(config: Value) -> Result<BalanceTracker, Error> {
        BalanceTracker::configure(serde_json::from_value(config).unwrap())
    }

    /// Alice's ether, as lanes have configured it since before there were tokens.
    fn tracker(threshold: u64, webhook: Option<&str>) -> BalanceTracker {
        let threshold = threshold.to_string();
        let config = json!({
            "addresses": [ALICE, BOB], "threshold_wei": threshold, "webhook": webhook,
        });
        module(config).unwrap()
    }

    /// Alice's token.
    fn token_tracker(threshold: u64, webhook: Option<&str>) -> BalanceTracker {
        let threshold = threshold.to_string();
        let balance = json!({ "holder": ALICE, "token": TOKEN, "threshold": threshold });
        module(json!({ "balances": [balance], "webhook": webhook })).unwrap()
    }

    /// Runs one block after another with these balances of Alice, and says after which she is
    /// warned about.
    fn warned(tracker: &BalanceTracker, host: &mut MemoryHost, balances: &[u64]) -> Vec<usize> {
        host.answer(Request::Balance(BOB), Answer::Balance(U256::ZERO));
        let mut warned = Vec::new();
        for (position, balance) in balances.iter().enumerate() {
            let balance = U256::from(*balance);
            host.answer(Request::Balance(ALICE), Answer::Balance(balance));
            let [watch] = token_tracker(1, None).watches[..] else { panic!() };
            let returned = Answer::Returned(balance.to_be_bytes::<32>().into());
            host.answer(watch.request(), returned);
            host.lines.clear();
            tracker.handle(host, &block(position as u64, vec![])).unwrap();
            if !host.lines.is_empty() {
                assert_eq!(host.lines_at(Level::Warn).len(), 1);
                assert!(host.lines[0].1.starts_with(&ALICE.to_string()), "{:?}", host.lines);
                warned.push(position);
            }
            let stored = &host.state[&tracker.watches[0].key()];
            assert_eq!(Known::decode(stored).unwrap().seen.unwrap().balance, balance);
        }
        warned
    }

    #[track_caller]
    fn check(threshold: u64, balances: &[u64], expected: &[usize]) {
        for tracker in [tracker(threshold, None), token_tracker(threshold, None)] {
            let mut host = MemoryHost::default();
            assert_eq!(warned(&tracker, &mut host, balances), expected, "{tracker:?}");
            assert!(host.webhooks.is_empty());
        }
    }

    #[test]
    fn the_first_sight_of_a_balance_is_no_change() {
        check(1, &[1_000_000], &[]);
    }

    #[test]
    fn a_change_up_or_down_by_the_threshold_warns_once() {
        check(10, &[100, 109, 110, 110, 101, 100], &[2, 5]);
        check(10, &[100, 91, 90, 90], &[2]);
        check(10, &[100, 0], &[1]);
    }

    #[test]
    fn a_slow_drain_is_noticed_when_it_adds_up() {
        check(10, &[100, 97, 94, 91, 88, 85], &[4]);
    }

    #[test]
    fn each_balance_has_its_own_threshold_and_all_are_read_in_one_batch() {
        let config = json!({
            "addresses": [BOB], "threshold_wei": "10",
            "balances": [
                { "holder": ALICE, "threshold": "3" },
                { "holder": ALICE, "token": TOKEN, "threshold": "2" },
            ],
        });
        let tracker = module(config).unwrap();
        let mut host = MemoryHost::default();
        assert_eq!(warned(&tracker, &mut host, &[0]), [0; 0]);
        let token = Watch { holder: ALICE, token: Some(TOKEN), threshold: U256::from(2) };
        let expected = [Request::Balance(BOB), Request::Balance(ALICE), token.request()];
        assert_eq!(host.reads, [expected]);
        let keys: Vec<&[u8]> = host.state.keys().map(Vec::as_slice).collect();
        assert_eq!(keys, [ALICE.as_slice(), BOB.as_slice(), &token.key()]);

        // By two only the token is worth a line, by three more both are.
        for (balance, lines) in [(2u64, 1), (5, 2)] {
            let balance = U256::from(balance);
            host.answer(Request::Balance(ALICE), Answer::Balance(balance));
            host.answer(token.request(), Answer::Returned(balance.to_be_bytes::<32>().into()));
            host.lines.clear();
            tracker.handle(&mut host, &block(9, vec![])).unwrap();
            assert_eq!(host.lines_at(Level::Warn).len(), lines, "{:?}", host.lines);
        }
    }

    #[test]
    fn a_change_calls_the_webhook_when_one_is_configured() {
        let mut host = MemoryHost::default();
        assert_eq!(warned(&tracker(10, Some("alerts")), &mut host, &[100, 85, 85]), [1]);
        assert_eq!(warned(&token_tracker(10, Some("alerts")), &mut host, &[100, 115]), [1]);
        let bodies: Vec<Value> = host
            .webhooks
            .iter()
            .inspect(|(_, webhook)| assert_eq!(webhook.destination, "alerts"))
            .map(|(_, webhook)| serde_json::from_str(&webhook.body).unwrap())
            .collect();
        let body = |token: Option<Address>, to: &str| {
            json!({
                "module": "balance-tracker", "chain_id": 11_155_111,
                "holder": ALICE.to_string(), "token": token.map(|token| token.to_string()),
                "from": "100", "to": to, "threshold": "10",
                "block": 1, "block_hash": header(1).hash.to_string(), "time": 1_700_000_012,
            })
        };
        assert_eq!(bodies, [body(None, "85"), body(Some(TOKEN), "115")]);
    }

    #[test]
    fn a_token_that_does_not_say_is_told_once_and_does_not_halt_the_lane() {
        let tracker = token_tracker(10, None);
        let mut host = MemoryHost::default();
        warned(&tracker, &mut host, &[100]);
        let request = tracker.watches[0].request();
        host.answer(request.clone(), Answer::Reverted(Default::default()));
        for number in 1..4 {
            tracker.handle(&mut host, &block(number, vec![])).unwrap();
        }
        assert_eq!(host.lines_at(Level::Warn).len(), 1);
        host.answer(request, Answer::Returned(U256::from(95).to_be_bytes::<32>().into()));
        tracker.handle(&mut host, &block(4, vec![])).unwrap();
        assert_eq!(host.lines_at(Level::Info).len(), 1);
        assert_eq!(host.lines_at(Level::Warn).len(), 1);
    }

    #[test]
    fn what_came_of_a_webhook_is_told_and_changes_nothing() {
        let mut host = MemoryHost::default();
        let tracker = tracker(10, Some("alerts"));
        let refused = webhook_outcome(header(2), "k", refused_with(403, None));
        tracker.handle(&mut host, &refused).unwrap();
        let accepted = webhook_outcome(header(2), "k", EffectResult::Accepted);
        tracker.handle(&mut host, &accepted).unwrap();
        assert_eq!(host.lines_at(Level::Error), ["webhook k was refused: status 403"]);
        assert_eq!(host.lines_at(Level::Debug), ["webhook k was accepted"]);
        assert!(host.state.is_empty() && host.reads.is_empty());
    }

    #[test]
    fn a_configuration_that_watches_nothing_or_warns_always_is_refused() {
        let check = |config: Value, words: &str| {
            let error = module(config).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        let one = json!({ "holder": ALICE, "token": TOKEN, "threshold": "1" });
        check(json!({ "addresses": [], "threshold_wei": "1" }), "`addresses`");
        check(json!({ "addresses": [ALICE], "threshold_wei": "0" }), "`threshold_wei`");
        check(json!({ "addresses": [ALICE] }), "`threshold_wei` is missing");
        check(json!({ "balances": [one, one] }), "leave one out");
        let native = json!({ "holder": ALICE, "threshold": "1" });
        let twice = json!({ "addresses": [ALICE], "threshold_wei": "1", "balances": [native] });
        check(twice, &format!("a balance of {ALICE} is watched twice"));
        let zero = json!({ "holder": ALICE, "threshold": "0" });
        check(json!({ "balances": [zero] }), "`threshold`");
        let zero = json!({ "holder": ALICE, "token": Address::ZERO, "threshold": "1" });
        check(json!({ "balances": [zero] }), "leave it out for the native balance");
        check(json!({ "balances": [one], "webhook": "" }), "or leave it out");
        let many: Vec<Address> =
            (0..1_001u64).map(|n| Address::left_padding_from(&n.to_be_bytes())).collect();
        check(json!({ "addresses": many, "threshold_wei": "1" }), "more than 1000");
    }

    #[test]
    fn a_misspelt_key_or_an_amount_that_is_none_is_refused() {
        let check = |config: Value, words: &str| {
            let error = serde_json::from_value::<Config>(config).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        check(json!({ "adresses": [ALICE] }), "unknown field `adresses`");
        check(json!({ "threshold_wei": 5 }), "expected a string");
        check(json!({ "threshold_wei": "0x5" }), "write decimal digits");
        let balance = json!({ "holder": ALICE, "threshold": "1", "tokn": TOKEN });
        check(json!({ "balances": [balance] }), "unknown field `tokn`");
    }
}
