//! `[chains.NAME]`: what is followed, through which endpoints, and how far each is believed.

use std::time::Duration;

use shepherd_ingest::{Finality, PROFILES, Profile, Start, Trust, profile};
use shepherd_log::{ChainName, Retention};
use shepherd_rpc::{EndpointSpec, Redacted};
use toml::de::{DeTable, DeValue};

use super::{
    Variable, as_table, between,
    endpoints::read_endpoints,
    reader::{Reader, Section, Wrong, boolean, expected, number, parsed, string},
    receiver, value,
};
use crate::{exit::Place, show::count};

/// The deepest limit that is accepted: undo is kept for this many blocks and lane.
const REORG_DEPTH_LIMIT: u64 = 100_000;

/// One chain to follow.
#[derive(Debug)]
pub struct Chain {
    /// What the operator calls it.
    pub name: ChainName,
    /// The id that its endpoints must answer.
    pub chain_id: u64,
    /// Never empty.
    pub endpoints: Vec<EndpointSpec>,
    /// How it is followed.
    pub follow: shepherd_ingest::Config,
    /// How much of its journal is kept.
    pub retention: Retention,
    /// Its orderbook, by the URL that `/api/v1` comes after.
    pub orderbook: Option<Redacted>,
    /// Nothing of its lanes is sent.
    pub dry_run: bool,
    /// Where its endpoints are written.
    pub place: Place,
}

/// Reads `[chains]`; `dry_run` is what the file says for all of them.
pub fn read_chains(
    reader: &Reader<'_>,
    root: &mut Section<'_, '_>,
    dry_run: bool,
    variable: &Variable<'_>,
) -> Option<Vec<Chain>> {
    let Some(value) = root.value("chains") else {
        let wrong = Wrong::new("no chain is configured");
        reader.wrong(0..0, wrong.help("add a table such as [chains.sepolia]; see `shepherd init`"));
        return None;
    };
    let table = as_table(reader, "chains", value)?;
    if table.is_empty() {
        reader.wrong(value.span(), Wrong::new("no chain is configured"));
        return None;
    }
    // Collected first, so that every chain is looked at.
    let chains: Vec<Option<Chain>> = table
        .iter()
        .map(|(key, value)| {
            let name = key.get_ref().parse::<ChainName>();
            if let Err(error) = &name {
                reader.wrong(key.span(), Wrong::new(error.to_string()));
            }
            let table = as_table(reader, key.get_ref(), value)?;
            let section = Section::new(reader, table, key.span());
            read_chain(reader, section, name.ok(), dry_run, variable)
        })
        .collect();
    chains.into_iter().collect()
}

/// The names under `[chains]`, whether or not the chains are otherwise right: a module on a
/// chain with a mistake is not itself a mistake.
pub fn chain_names(table: &DeTable<'_>) -> Vec<ChainName> {
    let chains = table.get("chains").and_then(|value| value.get_ref().as_table());
    let keys = chains.into_iter().flat_map(DeTable::keys);
    keys.filter_map(|key| key.get_ref().parse().ok()).collect()
}

fn read_chain(
    reader: &Reader<'_>,
    mut chain: Section<'_, '_>,
    name: Option<ChainName>,
    dry_run: bool,
    variable: &Variable<'_>,
) -> Option<Chain> {
    let chain_id = chain.required("chain_id", |value| between(value, 1, u64::MAX));
    let place = reader.place(chain.span_of("endpoints"));
    let endpoints = read_endpoints(reader, &mut chain, variable);
    let profile = match chain.value("profile") {
        None => chain_id.and_then(profile),
        Some(_) => chain.optional("profile", profile_named).flatten(),
    };
    let start = chain.required("start_block", start_block);
    let reorg_depth_max =
        chain.optional("reorg_depth_max", |value| between(value, 1, REORG_DEPTH_LIMIT));
    let trust = chain.optional("trust", |value| trust(value, profile));
    let finality = chain.optional("finality", finality);
    let quorum = chain.optional("quorum", |value| quorum(value, endpoints.as_deref()));
    let poll_interval = chain.optional("poll_interval", poll_interval);
    let fetch_parallel = chain.optional("fetch_parallel", |value| between(value, 1, 64));
    let batch_blocks_max = chain.optional("batch_blocks_max", |value| between(value, 1, 1000));
    let retention = read_retention(reader, &mut chain);
    let orderbook = match chain.value("orderbook") {
        None => chain_id.and_then(usual_orderbook),
        Some(_) => Some(chain.optional("orderbook", |value| receiver(value, variable))?),
    };
    let own_dry_run = chain.optional("dry_run", boolean);
    chain.finish();
    let defaults = match profile {
        None => shepherd_ingest::Config::default(),
        Some(profile) => shepherd_ingest::Config::for_chain(profile.chain_id),
    };
    let small = |number: Option<u64>| number.map(|number| number as usize);
    Some(Chain {
        name: name?,
        chain_id: chain_id?,
        endpoints: endpoints?,
        follow: shepherd_ingest::Config {
            start: start?,
            reorg_depth_max: reorg_depth_max.unwrap_or(defaults.reorg_depth_max),
            trust: trust.unwrap_or(defaults.trust),
            finality: finality.unwrap_or(defaults.finality),
            quorum: small(quorum).unwrap_or(defaults.quorum),
            poll_interval: poll_interval.unwrap_or(defaults.poll_interval),
            fetch_parallel: small(fetch_parallel).unwrap_or(defaults.fetch_parallel),
            batch_blocks_max: small(batch_blocks_max).unwrap_or(defaults.batch_blocks_max),
            ..defaults
        },
        retention: retention?,
        orderbook,
        // What is said for everything is not taken back for one chain.
        dry_run: dry_run || own_dry_run.unwrap_or(false),
        place,
    })
}

/// The orderbook that the chain of this id has, where CoW Protocol runs one.
fn usual_orderbook(chain_id: u64) -> Option<Redacted> {
    let network = match chain_id {
        1 => "mainnet",
        100 => "xdai",
        8_453 => "base",
        42_161 => "arbitrum_one",
        11_155_111 => "sepolia",
        _ => return None,
    };
    let url = format!("https://api.cow.fi/{network}");
    Some(url.parse().expect("a scheme, a host and a path"))
}

/// `[chains.NAME.retention]`; without it everything is kept.
fn read_retention(reader: &Reader<'_>, chain: &mut Section<'_, '_>) -> Option<Retention> {
    let Some(value) = chain.value("retention") else { return Some(Retention::default()) };
    let table = as_table(reader, "retention", value)?;
    let mut retention = Section::new(reader, table, value.span());
    let max_age = retention.optional("max_age", |value| value::duration(&string(value)?));
    let max_bytes = retention.optional("max_size", |value| value::size(&string(value)?));
    if table.is_empty() {
        let wrong = Wrong::new("`retention` is empty: everything would be kept");
        let help = "write max_age = \"30d\", max_size = \"50GiB\", or both; remove it to keep all";
        reader.wrong(value.span(), wrong.help(help));
        return None;
    }
    retention.finish();
    Some(Retention { max_age, max_bytes })
}

/// A profile by its name, or none on purpose.
fn profile_named(value: &DeValue<'_>) -> Result<Option<&'static Profile>, Wrong> {
    let name = string(value)?;
    if name == "none" {
        return Ok(None);
    }
    if let Some(found) = PROFILES.iter().find(|profile| profile.name == name) {
        return Ok(Some(found));
    }
    let names = PROFILES.iter().map(|profile| profile.name).collect::<Vec<_>>().join(", ");
    Err(Wrong::new(format!("there is no profile `{name}`"))
        .help(format!("the profiles are {names}; \"none\" takes none")))
}

/// A trust level that the chain's blocks are able to meet.
fn trust(value: &DeValue<'_>, profile: Option<&Profile>) -> Result<Trust, Wrong> {
    let trust = parsed::<Trust>(value)?;
    let Some(profile) = profile.filter(|profile| profile.trust_max < trust) else {
        return Ok(trust);
    };
    let why: Vec<&str> = profile.oddities.iter().map(|oddity| oddity.fact).collect();
    let level = string(value)?;
    Err(Wrong::new(format!("the blocks of {} do not hold up at `{level}`", profile.name))
        .help(format!("{}; profile = \"none\" tries it all the same", why.join("; "))))
}

/// A number, or text; a day or a time may also be written without quotes.
fn start_block(value: &DeValue<'_>) -> Result<Start, Wrong> {
    match (value.as_integer(), value.as_datetime()) {
        (Some(_), _) => number(value).map(Start::Block),
        (None, Some(time)) => value::start(&time.to_string()),
        (None, None) => match value.as_str() {
            Some(text) => value::start(text),
            None => Err(expected("a block number, an age or a time", value)),
        },
    }
}

/// `"tag"`, or how many blocks must follow.
fn finality(value: &DeValue<'_>) -> Result<Finality, Wrong> {
    match value.as_str() {
        Some("tag") => Ok(Finality::Tag),
        None if value.as_integer().is_some() => {
            between(value, 1, REORG_DEPTH_LIMIT).map(Finality::Depth)
        }
        _ => Err(Wrong::new("expected \"tag\" or a number of blocks")
            .help("\"tag\" trusts the endpoints' `finalized`; 64 takes a block as final once 64 have followed it")),
    }
}

/// How many endpoints must agree, of those there are.
fn quorum(value: &DeValue<'_>, endpoints: Option<&[EndpointSpec]>) -> Result<u64, Wrong> {
    let quorum = between(value, 1, 64)?;
    match endpoints {
        Some(endpoints) if (endpoints.len() as u64) < quorum => {
            let there = count(endpoints.len() as u64, "endpoint");
            Err(Wrong::new(format!("{quorum} endpoints can never agree: there are only {there}"))
                .help("add endpoints, best of different providers, or lower it; 1 asks for none"))
        }
        _ => Ok(quorum),
    }
}

fn poll_interval(value: &DeValue<'_>) -> Result<Duration, Wrong> {
    let text = string(value)?;
    let help = "write a duration between \"10ms\" and \"10m\", for example \"500ms\" or \"2s\"";
    let duration = value::duration(&text).map_err(|wrong| wrong.help(help))?;
    if (Duration::from_millis(10)..=Duration::from_secs(600)).contains(&duration) {
        return Ok(duration);
    }
    Err(Wrong::new(format!("{text} is too short or too long")).help(help))
}
