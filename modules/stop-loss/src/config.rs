//! The configuration, and the order it makes.

use std::time::Duration;

use serde::Deserialize;
use shepherd_sdk::{
    Address, B256, Decimal, Error, U256,
    config::decimal,
    cow::{
        app_data::{self, AppData},
        order::{BuyTokenDestination, Kind, Order, SellTokenSource},
    },
    crossing::{Side, Trigger},
    serde_json,
};

use crate::progress::TEXT_BYTES_MAX;

/// Longest app-data document, in bytes: the orderbook's own default.
const DOCUMENT_BYTES_MAX: usize = 8_192;

/// What to watch, and what to sell.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    feed: Address,
    direction: Side,
    trigger: Decimal,
    age_seconds_max: u64,
    arm: String,
    owner: Address,
    order: OrderConfig,
}

/// The order, as people write it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderConfig {
    sell_token: Address,
    buy_token: Address,
    #[serde(default)]
    receiver: Address,
    #[serde(deserialize_with = "decimal")]
    sell_amount: U256,
    #[serde(deserialize_with = "decimal")]
    buy_amount: U256,
    valid_to: u32,
    #[serde(default = "empty_document")]
    app_data: String,
    #[serde(default)]
    partially_fillable: bool,
}

fn empty_document() -> String {
    app_data::EMPTY_DOCUMENT.to_owned()
}

/// A configuration that was checked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The price feed.
    pub feed: Address,
    /// On which side of the trigger the price has to be.
    pub direction: Side,
    /// The price, as it was written.
    pub price: Decimal,
    /// What fires.
    pub trigger: Trigger,
    /// The age at which a round no longer counts.
    pub age_max: Duration,
    /// Another one arms again.
    pub arm: String,
    /// Who sells, and has to sign the order on the chain.
    pub owner: Address,
    /// What is placed.
    pub order: Order,
    /// What the order is signed over.
    pub app_data: AppData,
}

impl TryFrom<Config> for Plan {
    type Error = Error;

    /// Checks a configuration, and says what to write instead.
    fn try_from(config: Config) -> Result<Plan, Error> {
        let Config { feed, direction, trigger: price, age_seconds_max, arm, owner, order } = config;
        if price == Decimal::ZERO {
            return Err(Error::new("`trigger` is 0, which no price crosses: write the price"));
        }
        let trigger = Trigger::new(direction, price, Decimal::ZERO)
            .map_err(|_| Error::new("`trigger` has too many digits: write the price"))?;
        if age_seconds_max == 0 {
            return Err(Error::new(
                "`age_seconds_max` is 0, so every round is too old: write the feed's heartbeat in \
                 seconds, and a little more",
            ));
        }
        if arm.is_empty() || TEXT_BYTES_MAX < arm.len() {
            return Err(Error::new(format!(
                "`arm` is 1 to {TEXT_BYTES_MAX} bytes: write \"1\", and another value to arm again"
            )));
        }
        if owner.is_zero() {
            return Err(Error::new("`owner` is the zero address: write whose tokens are sold"));
        }
        let app_data = read_app_data(&order.app_data)?;
        let order = Order {
            sell_token: order.sell_token,
            buy_token: order.buy_token,
            receiver: order.receiver,
            sell_amount: order.sell_amount,
            buy_amount: order.buy_amount,
            valid_to: order.valid_to,
            app_data: app_data.hash(),
            fee_amount: U256::ZERO,
            kind: Kind::Sell,
            partially_fillable: order.partially_fillable,
            sell_token_source: SellTokenSource::Erc20,
            buy_token_destination: BuyTokenDestination::Erc20,
        };
        order.worth_posting().map_err(|pointless| {
            Error::new(format!("the `order` would be refused, because {pointless}: correct it"))
        })?;
        let age_max = Duration::from_secs(age_seconds_max);
        Ok(Plan { feed, direction, price, trigger, age_max, arm, owner, order, app_data })
    }
}

/// A document, or the hash of one that the orderbook has.
fn read_app_data(text: &str) -> Result<AppData, Error> {
    let wrong = |what: &str| {
        Error::new(format!(
            "`app_data` {what}: write a JSON object, or 0x and the 64 hex digits of the hash of one \
             that the orderbook has"
        ))
    };
    if text.starts_with("0x") {
        let hash: B256 = text.parse().map_err(|_| wrong("is no hash"))?;
        let known = app_data::known(hash);
        return known.map_or_else(|| Ok(AppData::answered(hash, None)?), Ok);
    }
    if DOCUMENT_BYTES_MAX < text.len() {
        let length = text.len();
        return Err(wrong(&format!("has {length} bytes, more than {DOCUMENT_BYTES_MAX}")));
    }
    let object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text);
    object.map_err(|error| wrong(&format!("is no document ({error})")))?;
    Ok(AppData::of(text.to_owned()))
}

#[cfg(test)]
pub(crate) mod tests {
    use shepherd_sdk::{
        cow::{order::Domain, uid::Uid},
        serde_json::{Value, json},
        testing::SEPOLIA,
    };

    use super::*;

    /// The order of the golden vector, sold when the price falls to 1500.
    pub(crate) fn config() -> Value {
        json!({
            "feed": "0x694AA1769357215DE4FAC081bf1f309aDC325306",
            "direction": "below",
            "trigger": "1500",
            "age_seconds_max": 3_600,
            "arm": "1",
            "owner": "0x7bF140727D27ea64b607E042f1225680B40ECa6A",
            "order": {
                "sell_token": "0xfFf9976782d46CC05630D1f6eBAb18b2324d6B14",
                "buy_token": "0x0625aFB445C3B6B7B929342a04A22599fd5dBB59",
                "receiver": "0x7bF140727D27ea64b607E042f1225680B40ECa6A",
                "sell_amount": "5000000000000000",
                "buy_amount": "20000000000000000000",
                "valid_to": 4_294_967_295u32,
            },
        })
    }

    /// The configuration with one value replaced; `pointer` is a JSON pointer.
    pub(crate) fn with(pointer: &str, value: impl Into<Value>) -> Value {
        let mut config = config();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = config.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        parent.insert(key.to_owned(), value.into());
        config
    }

    fn plan(config: Value) -> Result<Plan, Error> {
        serde_json::from_value::<Config>(config)?.try_into()
    }

    fn uid(config: Value) -> Uid {
        let plan = plan(config).unwrap();
        plan.order.uid(Domain::of_chain(SEPOLIA), plan.owner)
    }

    #[test]
    fn the_configuration_of_the_golden_vector_makes_its_uid() {
        let golden = "0xc2b9cb4ea1ee5a86d8049ac09d8f494bf04cca0a68407285f31e2e6379800be8\
                      7bf140727d27ea64b607e042f1225680b40eca6affffffff";
        assert_eq!(uid(config()).to_string(), golden);
        // The empty document is the default, and may be written either way.
        assert_eq!(uid(with("/order/app_data", "{}")).to_string(), golden);
        let hash = app_data::EMPTY_HASH.to_string();
        assert_eq!(uid(with("/order/app_data", hash)).to_string(), golden);
    }

    #[test]
    fn every_field_of_the_order_changes_the_uid() {
        let changes = [
            with("/order/sell_token", Address::repeat_byte(9).to_string()),
            with("/order/buy_token", Address::repeat_byte(9).to_string()),
            with("/order/receiver", Address::ZERO.to_string()),
            with("/order/sell_amount", "1"),
            with("/order/buy_amount", "1"),
            with("/order/valid_to", 1),
            with("/order/app_data", r#"{"appCode":"shepherd"}"#),
            with("/order/partially_fillable", true),
            with("/owner", Address::repeat_byte(9).to_string()),
        ];
        let mut uids: Vec<Uid> = changes.into_iter().map(uid).collect();
        uids.push(uid(config()));
        let count = uids.len();
        uids.sort_unstable();
        uids.dedup();
        assert_eq!(uids.len(), count);
        // What fires it does not.
        assert_eq!(uid(with("/trigger", "7")), uid(config()));
        assert_eq!(uid(with("/arm", "2")), uid(config()));
    }

    #[test]
    fn a_receiver_that_is_left_out_is_the_owner_and_signed_as_zero() {
        let mut without = config();
        without["order"].as_object_mut().unwrap().remove("receiver");
        assert_eq!(plan(without).unwrap().order.receiver, Address::ZERO);
    }

    #[test]
    fn app_data_is_a_document_or_the_hash_of_one() {
        let document = r#"{"appCode":"shepherd"}"#;
        let written = plan(with("/order/app_data", document)).unwrap();
        assert_eq!(written.app_data.document(), Some(document));
        let hash = written.order.app_data;
        let hashed = plan(with("/order/app_data", hash.to_string())).unwrap();
        assert_eq!((hashed.order, hashed.app_data.document()), (written.order, None));
    }

    #[test]
    fn a_configuration_that_could_not_work_is_refused_with_what_to_write() {
        let check = |config: Value, words: &str| {
            let error = plan(config).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        check(with("/trigger", "0"), "write the price");
        check(with("/trigger", 1500), "expected a string");
        check(with("/direction", "down"), "expected `above` or `below`");
        check(with("/age_seconds_max", 0), "heartbeat");
        check(with("/arm", ""), "another value to arm again");
        check(with("/arm", "a".repeat(65)), "1 to 64 bytes");
        check(with("/owner", Address::ZERO.to_string()), "whose tokens");
        check(with("/order/sell_amount", "0"), "an amount is zero");
        check(with("/order/buy_amount", "0x1"), "write decimal digits");
        check(with("/order/buy_token", Address::ZERO.to_string()), "the zero address");
        let sold = config()["order"]["sell_token"].clone();
        check(with("/order/buy_token", sold), "the token it buys");
        check(with("/order/app_data", "hello"), "write a JSON object");
        check(with("/order/app_data", "[]"), "write a JSON object");
        check(with("/order/app_data", "0x12"), "is no hash");
        let long = format!("{{\"a\":\"{}\"}}", "b".repeat(DOCUMENT_BYTES_MAX));
        check(with("/order/app_data", long), "more than 8192");
        check(with("/order/kind", "buy"), "unknown field `kind`");
        check(with("/webhook", "alerts"), "unknown field `webhook`");
    }
}
