//! `module.toml`: what a module is, what it may do, when it is called and with what.
//!
//! ```toml
//! name = "token-ledger"
//! component = "../../target/modules/token-ledger.wasm"   # relative to this file
//! capabilities = ["state", "logging"]                    # state, chain, logging, clock, random,
//!                                                        # orderbook, http,
//!                                                        # effects.place-order, effects.webhook
//! webhooks = ["alerts"]          # where `effects.webhook` may go; shepherd.toml says where that is
//! http_hosts = ["example.org"]   # whose documents `http` may get
//! deliver = "finalized"          # when effects leave that do not say it themselves: "instant"
//!                                # (the default), "finalized" or { confirmations = 3 }
//!
//! [subscribe]
//! block_every = 10        # every block whose number is a multiple of ten
//! tick = "5m"             # the first block after every five minutes of block time
//!
//! [[subscribe.log]]
//! name = "transfers"      # only needed to override its addresses
//! addresses = ["0x…"]     # leave out for any contract
//! topic0 = ["0x…"]        # topic0 to topic3: alternatives; leave out for any
//!
//! [limits]
//! fuel = 1_000_000_000    # per record; default 1 000 000 000, at most 20 000 000 000
//! memory_mib = 64         # default 64, at most 256
//!
//! [config]                # handed to the module as JSON
//! threshold = "1000"
//!
//! [chain.sepolia]         # on this chain: values laid over [config], addresses replaced
//! config = { threshold = "1" }
//! addresses = { transfers = ["0x…"] }
//! deliver = "instant"     # instead of the manifest's
//! http_hosts = ["::1"]    # instead of the manifest's
//! ```
//!
//! Keys that are not known are errors: a misspelt limit would otherwise be no limit.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    num::NonZeroU64,
    path::{Path, PathBuf},
    str::FromStr,
};

use alloy_primitives::{Address, B256};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use shepherd_log::{ChainName, Deliver, ModuleName};
use toml::Spanned;

use crate::{
    capability::Capability,
    fetch,
    limits::{CONFIG_BYTES_MAX, FUEL_DEFAULT, FUEL_MAX, MEMORY_MIB_DEFAULT, MEMORY_MIB_MAX},
    subscription::{LogFilter, Subscription},
};

/// A module's manifest, checked.
#[derive(Clone, Debug)]
pub struct Manifest {
    name: ModuleName,
    component: PathBuf,
    capabilities: BTreeSet<Capability>,
    webhooks: BTreeSet<String>,
    http_hosts: BTreeSet<String>,
    deliver: Deliver,
    limits: Limits,
    filters: Vec<NamedFilter>,
    block_every: Option<NonZeroU64>,
    tick_seconds: Option<NonZeroU64>,
    config: toml::Table,
    chains: BTreeMap<ChainName, Overrides>,
}

/// How much a module may take for one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Fuel: about one instruction each.
    pub fuel: u64,
    /// Linear memory, in MiB.
    pub memory_mib: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { fuel: FUEL_DEFAULT, memory_mib: MEMORY_MIB_DEFAULT }
    }
}

/// What one chain, or one lane, has different from the manifest.
///
/// Written as TOML it reads back as it was.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Overrides {
    /// Laid over `[config]`: tables are merged, everything else is replaced.
    #[serde(default)]
    pub config: toml::Table,
    /// The addresses of a `[[subscribe.log]]`, by its name.
    #[serde(default, deserialize_with = "named_addresses")]
    pub addresses: BTreeMap<String, Vec<Address>>,
    /// When effects leave that do not say it themselves.
    #[serde(default, deserialize_with = "deliver", serialize_with = "written_deliver")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliver: Option<Deliver>,
    /// Whose documents may be got, instead of those the manifest lists.
    #[serde(default, deserialize_with = "http_hosts", skip_serializing_if = "Option::is_none")]
    pub http_hosts: Option<BTreeSet<String>>,
}

/// A manifest on one chain.
#[derive(Clone, Debug)]
pub struct OnChain {
    /// Which blocks and logs concern the module.
    pub subscription: Subscription,
    /// Its configuration, as JSON text.
    pub config: String,
    /// When effects leave that do not say it themselves.
    pub deliver: Deliver,
    /// Whose documents may be got.
    pub http_hosts: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct NamedFilter {
    name: Option<String>,
    filter: LogFilter,
}

/// A manifest that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.message)
    }
}

impl std::error::Error for ManifestError {}

/// Overrides that do not fit the manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// Addresses for a subscription that does not exist.
    #[error(
        "addresses are given for `{name}`, but no [[subscribe.log]] of {module} has that name \
         (it has: {known})"
    )]
    NoSuchFilter {
        /// The module.
        module: ModuleName,
        /// The name that was given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// An empty list of addresses.
    #[error("the addresses for `{name}` are an empty list, which would match nothing")]
    NoAddresses {
        /// The subscription's name.
        name: String,
    },
    /// A configuration value JSON cannot express.
    #[error("the configuration value `{key}` is not a number that JSON knows")]
    NotANumber {
        /// Where it is.
        key: String,
    },
    /// Hosts for a module that is not granted `http`.
    #[error("`http_hosts` is given, but {module} is not granted `http`")]
    HostsWithoutHttp {
        /// The module.
        module: ModuleName,
    },
    /// A configuration that is too large.
    #[error("the configuration is {bytes} bytes of JSON; at most {CONFIG_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

impl Manifest {
    /// Reads a manifest. `file` is where `text` comes from: errors name it, and the component's
    /// path is relative to it.
    pub fn parse(text: &str, file: &Path) -> Result<Manifest, ManifestError> {
        let error = |at: usize, message: String| ManifestError {
            file: file.to_owned(),
            line: text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1,
            message,
        };
        let raw: Raw = toml::from_str(text).map_err(|source| {
            error(source.span().map_or(0, |span| span.start), source.message().to_owned())
        })?;

        let subscribe_at = raw.subscribe.span().start;
        let subscribe = raw.subscribe.into_inner();
        let mut filters: Vec<NamedFilter> = Vec::new();
        for log in subscribe.log {
            let at = log.span().start;
            let log = log.into_inner();
            if log.name.is_some() && filters.iter().any(|other| other.name == log.name) {
                let name = log.name.unwrap_or_default();
                return Err(error(at, format!("two [[subscribe.log]] are named `{name}`")));
            }
            filters.push(NamedFilter { name: log.name.clone(), filter: log.filter() });
        }
        if filters.is_empty() && subscribe.block_every.is_none() && subscribe.tick.is_none() {
            let message = "nothing is subscribed, so the module would never be called: add a \
                           [[subscribe.log]], `block_every` or `tick`";
            return Err(error(subscribe_at, message.to_owned()));
        }

        let capabilities_at = raw.capabilities.span().start;
        let capabilities: BTreeSet<Capability> =
            raw.capabilities.into_inner().into_iter().map(|Checked(granted)| granted).collect();
        // A capability and what it is for come together: either alone is half of a thought.
        let listed = |list: Option<Spanned<BTreeSet<String>>>, key: &str, needs: Capability| match (
            list,
            capabilities.contains(&needs),
        ) {
            (Some(list), true) => Ok(list.into_inner()),
            (None, false) => Ok(BTreeSet::new()),
            (Some(list), false) => Err(error(
                list.span().start,
                format!("`{key}` is given, but `capabilities` does not grant `{needs}`"),
            )),
            (None, true) => Err(error(
                capabilities_at,
                format!("`{needs}` is granted, but nothing to use it on: add `{key}`"),
            )),
        };
        let webhooks = listed(raw.webhooks, "webhooks", Capability::Webhook)?;
        let http_hosts = listed(raw.http_hosts, "http_hosts", Capability::Http)?;

        let directory = file.parent().unwrap_or(Path::new(""));
        let manifest = Manifest {
            name: raw.name,
            component: directory.join(raw.component),
            capabilities,
            webhooks,
            http_hosts,
            deliver: raw.deliver.unwrap_or_default(),
            limits: raw.limits.into(),
            filters,
            block_every: subscribe.block_every,
            tick_seconds: subscribe.tick,
            config: raw.config,
            chains: BTreeMap::new(),
        };
        let mut chains = BTreeMap::new();
        for (chain, overrides) in raw.chain {
            let at = overrides.span().start;
            let overrides = overrides.into_inner();
            let chain: ChainName =
                chain.parse().map_err(|invalid| error(at, format!("{invalid}")))?;
            manifest.resolve(&[&overrides]).map_err(|invalid| error(at, invalid.to_string()))?;
            chains.insert(chain, overrides);
        }
        manifest.resolve(&[]).map_err(|invalid| error(0, invalid.to_string()))?;
        Ok(Manifest { chains, ..manifest })
    }

    /// The module's name.
    pub fn name(&self) -> &ModuleName {
        &self.name
    }

    /// The component's file.
    pub fn component(&self) -> &Path {
        &self.component
    }

    /// What the module may import.
    pub fn capabilities(&self) -> &BTreeSet<Capability> {
        &self.capabilities
    }

    /// Where its webhooks may go: names that the operator's configuration gives a place.
    pub fn webhooks(&self) -> &BTreeSet<String> {
        &self.webhooks
    }

    /// Whose documents it may get, on chains that do not say otherwise.
    pub fn http_hosts(&self) -> &BTreeSet<String> {
        &self.http_hosts
    }

    /// When its effects leave that do not say it themselves, on chains that do not say otherwise.
    pub fn deliver(&self) -> Deliver {
        self.deliver
    }

    /// How much it may take.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// What it is on one chain. The lane's own overrides are laid over those the manifest has for
    /// the chain.
    pub fn for_chain(&self, chain: &ChainName, lane: &Overrides) -> Result<OnChain, OverrideError> {
        match self.chains.get(chain) {
            Some(of_chain) => self.resolve(&[of_chain, lane]),
            None => self.resolve(&[lane]),
        }
    }

    fn resolve(&self, layers: &[&Overrides]) -> Result<OnChain, OverrideError> {
        let mut filters = self.filters.clone();
        let mut config = self.config.clone();
        let mut deliver = self.deliver;
        let mut http_hosts = &self.http_hosts;
        for layer in layers {
            for (name, addresses) in &layer.addresses {
                let found = filters.iter_mut().find(|filter| filter.name.as_ref() == Some(name));
                let Some(found) = found else { return Err(self.no_such_filter(name)) };
                if addresses.is_empty() {
                    return Err(OverrideError::NoAddresses { name: name.clone() });
                }
                found.filter = found.filter.clone().at(addresses.clone());
            }
            lay_over(&mut config, &layer.config);
            deliver = layer.deliver.unwrap_or(deliver);
            if let Some(hosts) = &layer.http_hosts {
                if !self.capabilities.contains(&Capability::Http) {
                    return Err(OverrideError::HostsWithoutHttp { module: self.name.clone() });
                }
                http_hosts = hosts;
            }
        }
        let subscription = Subscription {
            logs: filters.into_iter().map(|named| named.filter).collect(),
            block_every: self.block_every,
            tick_seconds: self.tick_seconds,
        };
        let config = to_json("config", &toml::Value::Table(config))?.to_string();
        if config.len() > CONFIG_BYTES_MAX {
            return Err(OverrideError::TooLarge { bytes: config.len() });
        }
        Ok(OnChain { subscription, config, deliver, http_hosts: http_hosts.clone() })
    }

    fn no_such_filter(&self, name: &str) -> OverrideError {
        let known: Vec<&str> =
            self.filters.iter().filter_map(|filter| filter.name.as_deref()).collect();
        let known = if known.is_empty() { "no names".to_owned() } else { known.join(", ") };
        OverrideError::NoSuchFilter { module: self.name.clone(), name: name.to_owned(), known }
    }
}

/// Lays one table over another: tables are merged, everything else is replaced.
fn lay_over(below: &mut toml::Table, above: &toml::Table) {
    for (key, value) in above {
        match (below.get_mut(key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => lay_over(below, above),
            _ => {
                below.insert(key.clone(), value.clone());
            }
        }
    }
}

/// The value as JSON; dates become text.
fn to_json(path: &str, value: &toml::Value) -> Result<serde_json::Value, OverrideError> {
    Ok(match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => serde_json::Number::from_f64(*number)
            .ok_or_else(|| OverrideError::NotANumber { key: path.to_owned() })?
            .into(),
        toml::Value::Boolean(flag) => (*flag).into(),
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| to_json(&format!("{path}[{index}]"), item))
            .collect::<Result<_, _>>()?,
        toml::Value::Table(table) => serde_json::Value::Object(
            table
                .iter()
                .map(|(key, item)| Ok((key.clone(), to_json(&format!("{path}.{key}"), item)?)))
                .collect::<Result<_, _>>()?,
        ),
    })
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(deserialize_with = "checked")]
    name: ModuleName,
    component: PathBuf,
    capabilities: Spanned<Vec<Checked<Capability>>>,
    #[serde(default, deserialize_with = "webhooks")]
    webhooks: Option<Spanned<BTreeSet<String>>>,
    #[serde(default, deserialize_with = "spanned_http_hosts")]
    http_hosts: Option<Spanned<BTreeSet<String>>>,
    #[serde(default, deserialize_with = "deliver")]
    deliver: Option<Deliver>,
    subscribe: Spanned<RawSubscribe>,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    config: toml::Table,
    #[serde(default)]
    chain: BTreeMap<String, Spanned<Overrides>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSubscribe {
    #[serde(default)]
    log: Vec<Spanned<RawLog>>,
    #[serde(default, deserialize_with = "block_every")]
    block_every: Option<NonZeroU64>,
    #[serde(default, deserialize_with = "tick_seconds")]
    tick: Option<NonZeroU64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLog {
    name: Option<String>,
    #[serde(default, deserialize_with = "alternatives")]
    addresses: Vec<Address>,
    #[serde(default, deserialize_with = "alternatives")]
    topic0: Vec<B256>,
    #[serde(default, deserialize_with = "alternatives")]
    topic1: Vec<B256>,
    #[serde(default, deserialize_with = "alternatives")]
    topic2: Vec<B256>,
    #[serde(default, deserialize_with = "alternatives")]
    topic3: Vec<B256>,
}

impl RawLog {
    fn filter(self) -> LogFilter {
        let topics = [self.topic0, self.topic1, self.topic2, self.topic3];
        LogFilter::new(self.addresses, topics)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLimits {
    #[serde(deserialize_with = "fuel")]
    fuel: u64,
    #[serde(deserialize_with = "memory_mib")]
    memory_mib: u32,
}

impl Default for RawLimits {
    fn default() -> RawLimits {
        RawLimits { fuel: FUEL_DEFAULT, memory_mib: MEMORY_MIB_DEFAULT }
    }
}

impl From<RawLimits> for Limits {
    fn from(raw: RawLimits) -> Limits {
        Limits { fuel: raw.fuel, memory_mib: raw.memory_mib }
    }
}

/// A value whose text is checked while it is read, so that the error knows the line.
struct Checked<T>(T);

impl<'de, T> Deserialize<'de> for Checked<T>
where
    T: FromStr<Err: fmt::Display>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Checked<T>, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Checked).map_err(de::Error::custom)
    }
}

fn checked<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    Checked::deserialize(deserializer).map(|Checked(value)| value)
}

/// Hex of a fixed size, with the `0x` that people write.
struct Hex<T>(T);

impl<'de, T> Deserialize<'de> for Hex<T>
where
    T: FromStr + AsRef<[u8]> + Default,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hex<T>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = T::default().as_ref().len();
        let parsed = text.strip_prefix("0x").and_then(|digits| digits.parse().ok());
        parsed.map(Hex).ok_or_else(|| {
            let digits = 2 * bytes;
            de::Error::custom(format!("`{text}` is not 0x and {digits} hex digits"))
        })
    }
}

/// A list of alternatives. An empty one would match nothing, which nobody means.
fn alternatives<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr + AsRef<[u8]> + Default,
{
    let list = Vec::<Hex<T>>::deserialize(deserializer)?;
    if list.is_empty() {
        return Err(de::Error::custom("an empty list matches nothing: leave the key out for any"));
    }
    Ok(list.into_iter().map(|Hex(value)| value).collect())
}

fn named_addresses<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Vec<Address>>, D::Error> {
    let named = BTreeMap::<String, Vec<Hex<Address>>>::deserialize(deserializer)?;
    let plain = |list: Vec<Hex<Address>>| list.into_iter().map(|Hex(address)| address).collect();
    Ok(named.into_iter().map(|(name, list)| (name, plain(list))).collect())
}

/// Names of destinations. They follow the rule of all names the operator gives.
struct Destination(String);

impl FromStr for Destination {
    type Err = shepherd_log::InvalidName;

    fn from_str(text: &str) -> Result<Destination, shepherd_log::InvalidName> {
        let name: ModuleName = text.parse()?;
        Ok(Destination(name.to_string()))
    }
}

/// A host as URLs spell it.
struct HttpHost(String);

impl FromStr for HttpHost {
    type Err = String;

    fn from_str(text: &str) -> Result<HttpHost, String> {
        let invalid = |_| {
            format!("`{text}` is not a host: write only the name or the address, \"example.org\"")
        };
        fetch::host(text).map(HttpHost).map_err(invalid)
    }
}

fn webhooks<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Spanned<BTreeSet<String>>>, D::Error> {
    spanned_set(deserializer, |Destination(name)| name)
}

fn spanned_http_hosts<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Spanned<BTreeSet<String>>>, D::Error> {
    spanned_set(deserializer, |HttpHost(host)| host)
}

fn http_hosts<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeSet<String>>, D::Error> {
    set(Vec::deserialize(deserializer)?, |HttpHost(host)| host).map(Some)
}

fn spanned_set<'de, D, T>(
    deserializer: D,
    text: fn(T) -> String,
) -> Result<Option<Spanned<BTreeSet<String>>>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    let list = Spanned::<Vec<Checked<T>>>::deserialize(deserializer)?;
    let span = list.span();
    Ok(Some(Spanned::new(span, set(list.into_inner(), text)?)))
}

/// A list whose order and repetitions mean nothing. An empty one would allow nothing, and then
/// the key is better left out.
fn set<T, E: de::Error>(
    list: Vec<Checked<T>>,
    text: fn(T) -> String,
) -> Result<BTreeSet<String>, E> {
    if list.is_empty() {
        return Err(de::Error::custom("an empty list allows nothing: leave the key out"));
    }
    Ok(list.into_iter().map(|Checked(value)| text(value)).collect())
}

/// As [`deliver`] reads it. `None` is left out before it comes here.
fn written_deliver<S: Serializer>(
    deliver: &Option<Deliver>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match deliver.unwrap_or_default() {
        Deliver::Instant => serializer.serialize_str("instant"),
        Deliver::Finalized => serializer.serialize_str("finalized"),
        Deliver::Confirmations(blocks) => {
            BTreeMap::from([("confirmations", blocks)]).serialize(serializer)
        }
    }
}

fn deliver<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Deliver>, D::Error> {
    struct Visitor;

    impl<'de> de::Visitor<'de> for Visitor {
        type Value = Deliver;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("\"instant\", \"finalized\" or { confirmations = 3 }")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Deliver, E> {
            match text {
                "instant" => Ok(Deliver::Instant),
                "finalized" => Ok(Deliver::Finalized),
                _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
            }
        }

        fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Deliver, A::Error> {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Blocks {
                confirmations: u32,
            }
            let blocks = Blocks::deserialize(de::value::MapAccessDeserializer::new(map))?;
            match blocks.confirmations {
                0 => Err(de::Error::custom("no confirmations are \"instant\"")),
                blocks => Ok(Deliver::Confirmations(blocks)),
            }
        }
    }

    deserializer.deserialize_any(Visitor).map(Some)
}

fn block_every<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU64>, D::Error> {
    let every = NonZeroU64::new(u64::deserialize(deserializer)?);
    let zero = || de::Error::custom("`block_every` counts blocks: 1 is every block");
    every.map(Some).ok_or_else(zero)
}

fn tick_seconds<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<NonZeroU64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let tick = humantime::parse_duration(&text).ok().filter(|tick| tick.subsec_nanos() == 0);
    let seconds = tick.and_then(|tick| NonZeroU64::new(tick.as_secs()));
    let invalid = || {
        de::Error::custom(format!(
            "`{text}` is not a duration of whole seconds: write for example \"30s\" or \"1h 30m\""
        ))
    };
    seconds.map(Some).ok_or_else(invalid)
}

fn fuel<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let fuel = u64::deserialize(deserializer)?;
    if !(1..=FUEL_MAX).contains(&fuel) {
        return Err(de::Error::custom(format!("`fuel` is 1 to {FUEL_MAX}")));
    }
    Ok(fuel)
}

fn memory_mib<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let mib = u32::deserialize(deserializer)?;
    if !(1..=MEMORY_MIB_MAX).contains(&mib) {
        return Err(de::Error::custom(format!("`memory_mib` is 1 to {MEMORY_MIB_MAX}")));
    }
    Ok(mib)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"name = "watch"
component = "../built/watch.wasm"
capabilities = ["state", "chain"]

[subscribe]
block_every = 10
tick = "1h 30m"

[[subscribe.log]]
name = "orders"
addresses = ["0x1111111111111111111111111111111111111111"]
topic0 = ["0x2222222222222222222222222222222222222222222222222222222222222222"]

[limits]
fuel = 5
memory_mib = 8

[config]
threshold = "1000"
pause = { seconds = 5, reason = "quiet" }

[chain.sepolia]
config = { threshold = "1", pause = { seconds = 6 } }
addresses = { orders = ["0x3333333333333333333333333333333333333333"] }
"#;

    fn parse(text: &str) -> Result<Manifest, ManifestError> {
        Manifest::parse(text, Path::new("modules/watch/module.toml"))
    }

    #[test]
    fn overrides_are_read_as_they_are_written() {
        for text in [
            "",
            "deliver = 'finalized'\nhttp_hosts = ['example.org']",
            "[config]\na = 1.0\nb = 2026-11-01T12:00:00Z\n[deliver]\nconfirmations = 3",
            "[addresses]\norders = ['0x00000000000000000000000000000000000000Aa']\n[config.b]\nc = 1",
        ] {
            let overrides: Overrides = toml::from_str(text).unwrap();
            let written = toml::to_string(&overrides).unwrap();
            assert_eq!(toml::from_str::<Overrides>(&written).unwrap(), overrides, "{written}");
        }
    }

    #[test]
    fn a_manifest_says_what_is_granted_limited_and_subscribed() {
        let manifest = parse(GOOD).unwrap();
        assert_eq!(manifest.name().as_str(), "watch");
        assert_eq!(manifest.component(), Path::new("modules/watch/../built/watch.wasm"));
        let granted = BTreeSet::from([Capability::State, Capability::Chain]);
        assert_eq!(manifest.capabilities(), &granted);
        assert_eq!(manifest.limits(), Limits { fuel: 5, memory_mib: 8 });

        let devnet = "devnet".parse().unwrap();
        let OnChain { subscription, config, .. } =
            manifest.for_chain(&devnet, &Overrides::default()).unwrap();
        assert_eq!(subscription.block_every, NonZeroU64::new(10));
        assert_eq!(subscription.tick_seconds, NonZeroU64::new(5400));
        assert_eq!(subscription.logs[0].addresses(), [Address::repeat_byte(0x11)]);
        assert_eq!(subscription.logs[0].topics()[0], [B256::repeat_byte(0x22)]);
        assert_eq!(config, r#"{"pause":{"reason":"quiet","seconds":5},"threshold":"1000"}"#);
    }

    #[test]
    fn a_chain_is_laid_over_the_manifest_and_a_lane_over_the_chain() {
        let manifest = parse(GOOD).unwrap();
        let sepolia = "sepolia".parse().unwrap();
        let lane: Overrides = toml::from_str(
            r#"config = { pause = { reason = "lane" } }
               addresses = { orders = ["0x4444444444444444444444444444444444444444"] }"#,
        )
        .unwrap();
        let OnChain { subscription, config, .. } =
            manifest.for_chain(&sepolia, &Overrides::default()).unwrap();
        assert_eq!(subscription.logs[0].addresses(), [Address::repeat_byte(0x33)]);
        assert_eq!(config, r#"{"pause":{"reason":"quiet","seconds":6},"threshold":"1"}"#);

        let OnChain { subscription, config, .. } = manifest.for_chain(&sepolia, &lane).unwrap();
        assert_eq!(subscription.logs[0].addresses(), [Address::repeat_byte(0x44)]);
        assert_eq!(config, r#"{"pause":{"reason":"lane","seconds":6},"threshold":"1"}"#);
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let text = "name = \"a\"\ncomponent = \"a.wasm\"\ncapabilities = []\n\
                    [[subscribe.log]]\n";
        let manifest = parse(text).unwrap();
        assert_eq!(manifest.limits(), Limits::default());
        let OnChain { subscription, config, deliver, .. } =
            manifest.for_chain(&"devnet".parse().unwrap(), &Overrides::default()).unwrap();
        assert!(subscription.wants_log(&Address::ZERO, &[]));
        assert_eq!(config, "{}");
        assert_eq!(deliver, Deliver::Instant);
    }

    const KEEPER: &str = r#"name = "keeper"
component = "keeper.wasm"
capabilities = ["http", "effects.webhook"]
webhooks = ["pager", "alerts", "pager"]
http_hosts = ["Example.org", "::1"]
deliver = { confirmations = 3 }

[subscribe]
block_every = 1

[chain.sepolia]
deliver = "finalized"
http_hosts = ["127.0.0.1"]
"#;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_manifest_says_where_effects_go_and_when() {
        let manifest = parse(KEEPER).unwrap();
        assert_eq!(manifest.webhooks(), &set(&["alerts", "pager"]));
        assert_eq!(manifest.http_hosts(), &set(&["example.org", "[::1]"]));
        assert_eq!(manifest.deliver(), Deliver::Confirmations(3));

        let on = |chain: &str, lane: &str| {
            let lane = toml::from_str(lane).unwrap();
            let OnChain { deliver, http_hosts, .. } =
                manifest.for_chain(&chain.parse().unwrap(), &lane).unwrap();
            (deliver, http_hosts)
        };
        let manifests = (Deliver::Confirmations(3), set(&["example.org", "[::1]"]));
        assert_eq!(on("devnet", ""), manifests);
        assert_eq!(on("sepolia", ""), (Deliver::Finalized, set(&["127.0.0.1"])));
        let lane = "deliver = \"instant\"\nhttp_hosts = [\"localhost\"]";
        assert_eq!(on("sepolia", lane), (Deliver::Instant, set(&["localhost"])));
    }

    #[test]
    fn a_mistake_about_effects_is_named_with_its_line() {
        let refused = |line, with, at, words| refused_in(KEEPER, line, with, at, words);
        refused(
            "\"http\", ",
            "\"htp\", ",
            3,
            "use state, chain, logging, clock, random, orderbook",
        );
        refused("effects.webhook", "effects", 3, "effects.place-order or effects.webhook");
        refused("webhooks = [\"pager\", \"alerts\", \"pager\"]\n", "", 3, "add `webhooks`");
        refused("http_hosts = [\"Example.org\", \"::1\"]\n", "", 3, "add `http_hosts`");
        let grant = "does not grant `effects.webhook`";
        refused(", \"effects.webhook\"", "", 4, grant);
        refused("\"http\", ", "", 5, "does not grant `http`");
        refused("[\"pager\", \"alerts\", \"pager\"]", "[]", 4, "an empty list allows nothing");
        refused("[\"127.0.0.1\"]", "[]", 13, "an empty list allows nothing");
        refused("\"pager\", \"alerts\"", "\"Pager\"", 4, "is not a name");
        refused("Example.org", "https://example.org", 5, "write only the name or the address");
        refused("Example.org", "example.org:443", 5, "write only the name or the address");
        refused("Example.org", "example.org/a", 5, "write only the name or the address");
        refused("{ confirmations = 3 }", "\"safe\"", 6, "expected \"instant\", \"finalized\" or");
        refused("{ confirmations = 3 }", "3", 6, "expected \"instant\", \"finalized\" or");
        refused("{ confirmations = 3 }", "{ confirmation = 3 }", 6, "unknown field `confirmation`");
        refused("{ confirmations = 3 }", "{ confirmations = 0 }", 6, "no confirmations");
        refused("{ confirmations = 3 }", "{ confirmations = -1 }", 6, "invalid value");
        refused("\"finalized\"", "\"final\"", 12, "expected \"instant\"");
        refused("[chain.sepolia]\ndeliver", "[chain.sepolia]\ndelivers", 12, "unknown field");
    }

    #[test]
    fn hosts_on_a_chain_need_the_grant_too() {
        let hosts = "http_hosts = [\"localhost\"]\nconfig =";
        refused(
            "config = { threshold = \"1\"",
            &format!("{hosts} {{ threshold = \"1\""),
            22,
            "granted",
        );
    }

    /// The manifest with one line replaced is refused at a line, with these words.
    fn refused(line: &str, with: &str, at: usize, words: &str) {
        refused_in(GOOD, line, with, at, words);
    }

    fn refused_in(good: &str, line: &str, with: &str, at: usize, words: &str) {
        assert!(good.contains(line), "{line}");
        let error = parse(&good.replace(line, with)).expect_err(with);
        assert_eq!(error.line, at, "{error}");
        assert!(error.message.contains(words), "{error}");
        let place = format!("modules/watch/module.toml:{at}: ");
        assert!(error.to_string().starts_with(&place), "{error}");
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        refused("name = \"watch\"", "name = \"Watch\"", 1, "is not a name");
        refused("name = \"watch\"", "nam = \"watch\"", 1, "unknown field `nam`, expected one of");
        refused("\"chain\"]", "\"chian\"]", 3, "no capability `chian`: use state, chain");
        refused("block_every = 10", "block_every = 0", 6, "1 is every block");
        refused("block_every = 10", "blocks_every = 10", 6, "unknown field `blocks_every`");
        refused("\"1h 30m\"", "\"soon\"", 7, "`soon` is not a duration");
        refused("\"1h 30m\"", "\"1500ms\"", 7, "whole seconds");
        refused("\"1h 30m\"", "\"0s\"", 7, "whole seconds");
        refused(
            "[\"0x1111111111111111111111111111111111111111\"]",
            "[\"0x11\"]",
            11,
            "40 hex digits",
        );
        refused("[\"0x1111111111111111111111111111111111111111\"]", "[]", 11, "matches nothing");
        refused("topic0", "topic4", 12, "unknown field `topic4`");
        refused("\"0x22222222", "\"22222222", 12, "64 hex digits");
        refused("fuel = 5", "fuel = 0", 15, "`fuel` is 1 to");
        refused("fuel = 5", "fuel = 20_000_000_001", 15, "`fuel` is 1 to");
        refused("memory_mib = 8", "memory_mib = 257", 16, "`memory_mib` is 1 to");
        refused("[limits]", "[limit]", 14, "unknown field `limit`");
        refused("threshold = \"1000\"", "threshold = nan", 1, "config.threshold");
        refused("[chain.sepolia]", "[chain.Sepolia]", 22, "is not a name");
        refused("{ orders = [", "{ order = [", 22, "it has: orders");
        refused("threshold = \"1000\"", "threshold = ", 19, "");
        let missing = parse(&GOOD.replace("component = \"../built/watch.wasm\"", "")).unwrap_err();
        assert!(missing.message.contains("missing field `component`"), "{missing}");
    }

    #[test]
    fn a_manifest_that_subscribes_nothing_is_refused() {
        let text = "name = \"a\"\ncomponent = \"a.wasm\"\ncapabilities = []\n[subscribe]\n";
        let error = parse(text).unwrap_err();
        assert_eq!(error.line, 4);
        assert!(error.message.contains("never be called"), "{error}");
    }

    #[test]
    fn two_subscriptions_of_one_name_are_refused() {
        let twice = format!("{GOOD}\n[[subscribe.log]]\nname = \"orders\"\n");
        let error = parse(&twice).unwrap_err();
        assert!(error.message.contains("two [[subscribe.log]] are named `orders`"), "{error}");
    }
}
