//! What an operator can choose: how much work a block may be, and which orders are watched.

use std::collections::BTreeMap;

use serde::Deserialize;
use shepherd_sdk::{Address, B256, Error, cow::addresses::TWAP};

use crate::{book::WatchId, order::Conditional};

/// Most polls an operator may allow per block. Each may become an effect and several rows, and a
/// record has room for 1000 effects and 3 MiB of both.
const POLLS_PER_BLOCK_MAX: usize = 600;

/// `[config]` of the manifest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Handlers whose schedule is that of a TWAP. All others are asked when they say.
    pub twap_handlers: Vec<Address>,
    /// Orders looked at in one block. What is due beyond that is looked at in the next.
    pub polls_per_block: usize,
    /// Seconds after which another handler is asked again whether it has a new order while the
    /// one before is still valid.
    pub recheck_seconds: u64,
    /// Which orders are watched.
    pub filter: Filter,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            twap_handlers: vec![TWAP],
            polls_per_block: 400,
            recheck_seconds: 300,
            filter: Filter::default(),
        }
    }
}

impl Config {
    /// The configuration, or what is wrong with it.
    pub fn checked(self) -> Result<Config, Error> {
        if !(1..=POLLS_PER_BLOCK_MAX).contains(&self.polls_per_block) {
            return Err(Error::new(format!(
                "`polls_per_block` is {}: write 1 to {POLLS_PER_BLOCK_MAX}",
                self.polls_per_block
            )));
        }
        if self.recheck_seconds == 0 {
            return Err(Error::new("`recheck_seconds` is 0: every block would ask again"));
        }
        Ok(self)
    }
}

/// Which orders are watched. The first list that names an order decides, in the order they are
/// written here: what is said of one order counts more than what is said of its owner.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    orders: BTreeMap<B256, Policy>,
    transactions: BTreeMap<B256, Policy>,
    owners: BTreeMap<Address, Policy>,
    handlers: BTreeMap<Address, Policy>,
    default: Policy,
}

/// What happens to an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// It is watched.
    #[default]
    Accept,
    /// It is kept and not asked, until the configuration says otherwise.
    Skip,
    /// It is not kept; one that is kept already is forgotten.
    Drop,
}

impl Filter {
    /// What happens to this order.
    pub fn policy(&self, id: &WatchId, order: &Conditional) -> Policy {
        let named = self
            .orders
            .get(&id.order())
            .or_else(|| self.transactions.get(&order.transaction))
            .or_else(|| self.owners.get(&id.owner()))
            .or_else(|| self.handlers.get(&order.params.handler));
        *named.unwrap_or(&self.default)
    }
}

#[cfg(test)]
mod tests {
    use shepherd_sdk::{cow::abi::ConditionalOrderParams, serde_json};

    use super::*;
    use crate::book::Place;

    fn parse(json: &str) -> Result<Config, String> {
        let config: Config = serde_json::from_str(json).map_err(|error| error.to_string())?;
        config.checked().map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let config = parse("{}").unwrap();
        assert_eq!((config.polls_per_block, config.recheck_seconds), (400, 300));
        assert_eq!(config.twap_handlers, [TWAP]);
    }

    #[test]
    fn a_configuration_that_makes_no_sense_is_refused() {
        let check = |json: &str, named: &str| {
            let error = parse(json).unwrap_err();
            assert!(error.contains(named), "{error}");
        };
        check(r#"{"polls_per_block": 0}"#, "`polls_per_block`");
        check(r#"{"polls_per_block": 601}"#, "`polls_per_block`");
        check(r#"{"recheck_seconds": 0}"#, "`recheck_seconds`");
        check(r#"{"pools_per_block": 7}"#, "pools_per_block");
        check(r#"{"filter": {"owner": {}}}"#, "owner");
        check(r#"{"filter": {"default": "reject"}}"#, "reject");
    }

    #[test]
    fn the_closest_word_on_an_order_counts() {
        let params = ConditionalOrderParams {
            handler: Address::repeat_byte(0x44),
            ..ConditionalOrderParams::default()
        };
        let order = Conditional {
            contract: Address::ZERO,
            transaction: B256::repeat_byte(0x22),
            params,
            proof: vec![],
        };
        let id = WatchId::new(Address::repeat_byte(0x33), Place::Single, B256::repeat_byte(0x11));
        let check = |filter: &str, expected| {
            let config = parse(&format!(r#"{{"filter": {{{filter}}}}}"#)).unwrap();
            assert_eq!(config.filter.policy(&id, &order), expected, "{filter}");
        };
        let word = |name: &str, byte: &str, bytes: usize, policy: &str| {
            format!(r#""{name}": {{"0x{}": "{policy}"}}"#, byte.repeat(bytes))
        };
        let by_order = word("orders", "11", 32, "accept");
        let by_transaction = word("transactions", "22", 32, "drop");
        let by_owner = word("owners", "33", 20, "skip");
        let by_handler = word("handlers", "44", 20, "drop");
        check("", Policy::Accept);
        check(r#""default": "skip""#, Policy::Skip);
        check(&by_handler, Policy::Drop);
        check(&format!("{by_handler}, {by_owner}"), Policy::Skip);
        check(&format!("{by_handler}, {by_owner}, {by_transaction}"), Policy::Drop);
        check(&format!("{by_transaction}, {by_order}"), Policy::Accept);
        check(&word("owners", "34", 20, "drop"), Policy::Accept);
    }
}
