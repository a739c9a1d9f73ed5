//! The rules of the simulated venue, in a file an analyst writes.
//!
//! Every key and what it means is in `replay/rules.example.toml`. Keys that are not known are
//! errors: a misspelt rule would otherwise be no rule.
//!
//! Chance is a function of the seed and of the effect's key. The same order meets the same fate
//! in every run with the same rules, whatever the module and whatever else it asks for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use alloy_primitives::{Address, B256, keccak256};
use serde::{Deserialize, Deserializer, de};
use shepherd_log::{Deliver, Digest, EffectKey, Refusal};
use toml::Spanned;

/// How a venue decides on effects of which nobody knows what really came of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    seed: u64,
    /// Blocks after which a block is final.
    finality_blocks: u64,
    /// What is done with orders.
    pub(crate) orders: OrderRules,
    webhooks: WebhookRules,
    /// Documents by their hash.
    pub(crate) app_data: BTreeMap<B256, String>,
}

/// What is done with orders.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OrderRules {
    delay_blocks: u64,
    /// Blocks after its acceptance at which an order is filled, if ever.
    pub(crate) fill_after_blocks: Option<u64>,
    /// What the orderbook says of an order that nobody knows.
    pub(crate) unknown: Unknown,
    refuse: Vec<Refuse>,
}

/// What the orderbook says of an order of which nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unknown {
    /// That it does not know it.
    #[default]
    Absent,
    /// That it is open, until its `validTo`.
    Open,
    /// Nothing: the backtest stops.
    Stop,
}

#[derive(Clone, Debug, PartialEq)]
struct WebhookRules {
    delay_blocks: u64,
    refuse: Vec<Refuse>,
}

/// What is refused, and with which words.
#[derive(Clone, Debug, PartialEq)]
struct Refuse {
    /// How many of those that fit, from 0 to 1.
    rate: f64,
    /// How often one of them is refused before it is accepted, if not for ever.
    times: Option<u32>,
    owners: BTreeSet<Address>,
    sell_tokens: BTreeSet<Address>,
    destinations: BTreeSet<String>,
    refusal: Refusal,
}

/// What a venue knows of an effect when it decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) key: &'a EffectKey,
    /// The token sold, of an order whose body says it.
    pub(crate) sell_token: Option<Address>,
    /// How often the key was refused before.
    pub(crate) refused_before: u32,
}

/// Rules that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesError {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.message)
    }
}

impl std::error::Error for RulesError {}

/// A venue that takes everything at once and fills nothing.
impl Default for Rules {
    fn default() -> Rules {
        Raw::default().check().expect("the defaults are rules")
    }
}

impl Rules {
    /// Reads rules. `file` is where `text` comes from: errors name it.
    pub fn parse(text: &str, file: &Path) -> Result<Rules, RulesError> {
        let error = |at: usize, message: String| RulesError {
            file: file.to_owned(),
            line: text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1,
            message,
        };
        let raw: Raw = toml::from_str(text).map_err(|source| {
            error(source.span().map_or(0, |span| span.start), source.message().to_owned())
        })?;
        raw.check().map_err(|(at, message)| error(at, message))
    }

    /// How many blocks after the one that asked for it an effect is answered at the earliest.
    pub(crate) fn blocks_until_answer(&self, key: &EffectKey, deliver: Deliver) -> u64 {
        let leaves_after = match deliver {
            Deliver::Instant => 0,
            Deliver::Confirmations(blocks) => blocks.into(),
            Deliver::Finalized => self.finality_blocks,
        };
        let delay = match key {
            EffectKey::Order(_) => self.orders.delay_blocks,
            EffectKey::Webhook { .. } => self.webhooks.delay_blocks,
        };
        leaves_after.saturating_add(delay)
    }

    /// What the venue says no with, if it does. The first rule that fits decides.
    pub(crate) fn refuses(&self, asked: Asked<'_>) -> Option<Refusal> {
        let refuse = match asked.key {
            EffectKey::Order(_) => &self.orders.refuse,
            EffectKey::Webhook { .. } => &self.webhooks.refuse,
        };
        let number_and_rule = refuse.iter().enumerate();
        let mut fitting = number_and_rule.filter(|(number, rule)| {
            rule.is_for(asked) && self.chance(*number, asked.key) < rule.rate
        });
        let (_, rule) = fitting.next()?;
        let is_over = rule.times.is_some_and(|times| times <= asked.refused_before);
        (!is_over).then(|| rule.refusal.clone())
    }

    /// A number from 0 up to, not including, 1, that a key draws at a rule.
    fn chance(&self, rule: usize, key: &EffectKey) -> f64 {
        let drawn = format!("shepherd rules 1\0{}\0{rule}\0{key}", self.seed);
        let Digest(digest) = Digest::of(drawn.as_bytes());
        let number = u64::from_be_bytes(*digest.first_chunk().expect("a digest has 32 bytes"));
        // The 53 bits that fit.
        (number >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Refuse {
    fn is_for(&self, asked: Asked<'_>) -> bool {
        let is_destination =
            |name: &String| self.destinations.is_empty() || self.destinations.contains(name);
        match asked.key {
            EffectKey::Order(uid) => {
                let owner = Address::from_slice(&uid[32..52]);
                let sells = |token: Address| self.sell_tokens.contains(&token);
                (self.owners.is_empty() || self.owners.contains(&owner))
                    && (self.sell_tokens.is_empty() || asked.sell_token.is_some_and(sells))
            }
            EffectKey::Webhook { destination, .. } => is_destination(destination),
        }
    }
}

/// The file as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    seed: u64,
    finality_blocks: Option<u64>,
    #[serde(default)]
    orders: RawOrders,
    #[serde(default)]
    webhooks: RawWebhooks,
    #[serde(default)]
    app_data: BTreeMap<B256, Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOrders {
    #[serde(default)]
    delay_blocks: u64,
    fill_after_blocks: Option<u64>,
    #[serde(default)]
    unknown: Unknown,
    #[serde(default)]
    refuse: Vec<Spanned<RawOrderRefuse>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWebhooks {
    #[serde(default)]
    delay_blocks: u64,
    #[serde(default)]
    refuse: Vec<Spanned<RawWebhookRefuse>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOrderRefuse {
    error_type: String,
    description: Option<String>,
    #[serde(default = "bad_request", deserialize_with = "no")]
    status: u16,
    retry_after_seconds: Option<u32>,
    #[serde(default = "all", deserialize_with = "share")]
    rate: f64,
    times: Option<u32>,
    #[serde(default)]
    owners: BTreeSet<Address>,
    #[serde(default)]
    sell_tokens: BTreeSet<Address>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWebhookRefuse {
    #[serde(default)]
    body: String,
    #[serde(default = "bad_request", deserialize_with = "no")]
    status: u16,
    retry_after_seconds: Option<u32>,
    #[serde(default = "all", deserialize_with = "share")]
    rate: f64,
    times: Option<u32>,
    #[serde(default)]
    destinations: BTreeSet<String>,
}

/// Blocks until finality where the file does not say: two epochs of Ethereum.
const FINALITY_BLOCKS_DEFAULT: u64 = 64;

fn bad_request() -> u16 {
    400
}

fn all() -> f64 {
    1.0
}

fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let rate = f64::deserialize(deserializer)?;
    if (0.0..=1.0).contains(&rate) {
        return Ok(rate);
    }
    Err(de::Error::custom(format!("`rate` is a share from 0.0 to 1.0, not {rate}")))
}

/// Everything else is no answer that a module is ever told.
fn no<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let status = u16::deserialize(deserializer)?;
    if (400..500).contains(&status) && status != 408 {
        return Ok(status);
    }
    Err(de::Error::custom(format!("a refusal has a status from 400 to 499 but 408, not {status}")))
}

impl Raw {
    fn check(self) -> Result<Rules, (usize, String)> {
        let mut app_data = BTreeMap::new();
        for (hash, document) in self.app_data {
            let at = document.span().start;
            let document = document.into_inner();
            let given = keccak256(&document);
            if given != hash {
                return Err((at, format!("the document's hash is {given}, not {hash}")));
            }
            app_data.insert(hash, document);
        }
        let mut refuse = Vec::new();
        for rule in self.orders.refuse {
            let at = rule.span().start;
            let rule = rule.into_inner();
            if rule.error_type == "DuplicatedOrder" {
                let message = "`DuplicatedOrder` is no refusal: it means that the order is there";
                return Err((at, message.to_owned()));
            }
            refuse.push(rule.into());
        }
        Ok(Rules {
            seed: self.seed,
            finality_blocks: self.finality_blocks.unwrap_or(FINALITY_BLOCKS_DEFAULT),
            orders: OrderRules {
                delay_blocks: self.orders.delay_blocks,
                fill_after_blocks: self.orders.fill_after_blocks,
                unknown: self.orders.unknown,
                refuse,
            },
            webhooks: WebhookRules {
                delay_blocks: self.webhooks.delay_blocks,
                refuse: self
                    .webhooks
                    .refuse
                    .into_iter()
                    .map(|rule| rule.into_inner().into())
                    .collect(),
            },
            app_data,
        })
    }
}

impl From<RawOrderRefuse> for Refuse {
    fn from(raw: RawOrderRefuse) -> Refuse {
        let RawOrderRefuse { error_type, description, status, retry_after_seconds, .. } = raw;
        let description = description.unwrap_or_else(|| "refused by the rules".to_owned());
        let envelope = serde_json::json!({ "errorType": error_type, "description": description });
        Refuse {
            rate: raw.rate,
            times: raw.times,
            owners: raw.owners,
            sell_tokens: raw.sell_tokens,
            destinations: BTreeSet::new(),
            refusal: Refusal {
                status,
                error_type: Some(error_type),
                description,
                body: envelope.to_string().into_bytes(),
                retry_after: retry_after_seconds,
            },
        }
    }
}

impl From<RawWebhookRefuse> for Refuse {
    fn from(raw: RawWebhookRefuse) -> Refuse {
        Refuse {
            rate: raw.rate,
            times: raw.times,
            owners: BTreeSet::new(),
            sell_tokens: BTreeSet::new(),
            destinations: raw.destinations,
            refusal: Refusal {
                status: raw.status,
                error_type: None,
                body: raw.body.clone().into_bytes(),
                description: raw.body,
                retry_after: raw.retry_after_seconds,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Result<Rules, RulesError> {
        Rules::parse(text, Path::new("rules.toml"))
    }

    fn order(number: u8, owner: u8) -> EffectKey {
        let mut uid = [number; 56];
        uid[32..52].fill(owner);
        EffectKey::Order(uid)
    }

    fn asked(key: &EffectKey) -> Asked<'_> {
        Asked { key, sell_token: Some(Address::repeat_byte(0x51)), refused_before: 0 }
    }

    fn error_type(rules: &Rules, asked: Asked<'_>) -> Option<String> {
        rules.refuses(asked).map(|refusal| refusal.error_type.unwrap_or_default())
    }

    #[test]
    fn the_example_is_rules() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules.example.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let example = Rules::parse(&text, &file).unwrap();
        assert_ne!(example, Rules::default());
        // Every key is shown, if only in a comment.
        for key in [
            "seed",
            "finality_blocks",
            "delay_blocks",
            "fill_after_blocks",
            "unknown",
            "error_type",
            "description",
            "status",
            "retry_after_seconds",
            "rate",
            "times",
            "owners",
            "sell_tokens",
            "destinations",
            "body",
        ] {
            assert!(text.contains(&format!("{key} = ")), "{key} is not in the example");
        }
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        for (text, line, part) in [
            ("seed = 1\n[orders]\nfil_after_blocks = 1", 3, "unknown field `fil_after_blocks`"),
            ("[[orders.refuse]]\nerror_type = \"A\"\nrate = 1.5", 3, "from 0.0 to 1.0"),
            ("\n\n[[orders.refuse]]\nrate = 0.5", 3, "missing field `error_type`"),
            ("[[orders.refuse]]\nerror_type = \"A\"\nstatus = 500", 3, "from 400 to 499"),
            ("\n[[orders.refuse]]\nerror_type = \"DuplicatedOrder\"", 2, "no refusal"),
            ("[[orders.refuse]]\nerror_type = \"A\"\ndestinations = []", 3, "unknown field"),
            ("[[webhooks.refuse]]\nowners = []", 2, "unknown field"),
            ("[orders]\nunknown = \"maybe\"", 2, "unknown variant"),
            (
                "[app_data]\n0x0000000000000000000000000000000000000000000000000000000000000000 = \"{}\"",
                2,
                "0xb48d38f93eaa084033fc5970bf96e559c33c4cdc07d889ab00b4d63f9590739d",
            ),
        ] {
            let error = rules(text).expect_err(text);
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(error.message.contains(part), "{text}: {error}");
            assert!(error.to_string().starts_with("rules.toml:"), "{error}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = rules(
            "[[orders.refuse]]\nerror_type = \"A\"\nowners = [\"0x0101010101010101010101010101010101010101\"]\n\
             [[orders.refuse]]\nerror_type = \"B\"\ntimes = 2\nsell_tokens = [\"0x5151515151515151515151515151515151515151\"]\n",
        )
        .unwrap();
        let (first, second) = (order(7, 1), order(7, 2));
        assert_eq!(error_type(&rules, asked(&first)).as_deref(), Some("A"));
        assert_eq!(error_type(&rules, asked(&second)).as_deref(), Some("B"));
        let other_token = Asked { sell_token: None, ..asked(&second) };
        assert_eq!(error_type(&rules, other_token), None);
        let again = |refused_before| Asked { refused_before, ..asked(&second) };
        assert_eq!(error_type(&rules, again(1)).as_deref(), Some("B"));
        assert_eq!(error_type(&rules, again(2)), None);
    }

    #[test]
    fn a_rate_is_met_over_many_orders_and_stays_the_same_for_each() {
        let text =
            |seed| format!("seed = {seed}\n[[orders.refuse]]\nerror_type = \"A\"\nrate = 0.25");
        let (one, two) = (rules(&text(1)).unwrap(), rules(&text(2)).unwrap());
        let orders: Vec<EffectKey> =
            (0..16).flat_map(|owner| (0..=255).map(move |number| order(number, owner))).collect();
        let refused = |rules: &Rules| -> Vec<bool> {
            orders.iter().map(|key| rules.refuses(asked(key)).is_some()).collect()
        };
        let count = refused(&one).iter().filter(|refused| **refused).count();
        // 4096 draws: five standard deviations are 139.
        assert!(count.abs_diff(1024) < 139, "{count}");
        assert_eq!(refused(&one), refused(&one));
        assert_ne!(refused(&one), refused(&two));
    }

    #[test]
    fn an_answer_comes_when_the_effect_may_leave_and_its_delay_is_over() {
        let rules =
            rules("finality_blocks = 32\n[orders]\ndelay_blocks = 2\n[webhooks]\ndelay_blocks = 1")
                .unwrap();
        let (order, webhook) = (
            order(1, 1),
            EffectKey::Webhook { destination: "alerts".to_owned(), key: "k".to_owned() },
        );
        assert_eq!(rules.blocks_until_answer(&order, Deliver::Instant), 2);
        assert_eq!(rules.blocks_until_answer(&order, Deliver::Confirmations(3)), 5);
        assert_eq!(rules.blocks_until_answer(&webhook, Deliver::Finalized), 33);
    }
}
