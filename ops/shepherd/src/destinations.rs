//! Where effects go, and whether what modules are granted leads anywhere.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use shepherd_dispatch::{Destination, Destinations, Metrics};
use shepherd_host::{BoundModule, Capability};
use shepherd_log::ChainName;
use shepherd_rpc::{Web, in_words};

use crate::{
    config::{Chain, Config},
    exit::{Code, Problem},
};

/// The destinations of each chain's lanes. All chains share the webhooks, and all destinations the
/// connections.
pub fn of_chains(config: &Config, metrics: &Metrics) -> BTreeMap<ChainName, Destinations> {
    let web = Web::new();
    let webhooks: BTreeMap<String, Destination> = config
        .webhooks
        .iter()
        .map(|(name, url)| {
            let limits = config.sender.webhook;
            (name.clone(), Destination::webhook(&web, name, url.clone(), limits, metrics))
        })
        .collect();
    let of_chain = |chain: &Chain| Destinations {
        orderbook: orderbook(config, chain, &web, metrics),
        webhooks: webhooks.clone(),
        dry_run: chain.dry_run,
        web: web.clone(),
    };
    config.chains.iter().map(|chain| (chain.name.clone(), of_chain(chain))).collect()
}

fn orderbook(config: &Config, chain: &Chain, web: &Web, metrics: &Metrics) -> Option<Destination> {
    let url = chain.orderbook.clone()?;
    let limits = config.sender.orderbook;
    Some(Destination::orderbook(web, chain.name.as_str(), url, limits, metrics))
}

/// Lanes whose module is granted something that leads nowhere.
///
/// A webhook without a URL is a problem when the lane's configuration names it, for then it is
/// certainly called. Otherwise it is one of [`warnings`].
pub fn problems(config: &Config, modules: &[BoundModule]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for module in modules {
        let (lane, chain) = (module.lane(), chain_of(config, module));
        let needs = needs_orderbook(module);
        if let (None, Some(need)) = (&chain.orderbook, needs) {
            let message = format!(
                "lane {lane}: its module is granted `{need}`, and the chain has no orderbook"
            );
            let help = format!("set `orderbook` under [chains.{}]", chain.name);
            problems.push(Problem::new(Code::Configuration, message).help(help));
        }
        for name in unnamed(config, module).filter(|name| is_configured(module, name)) {
            let message = format!("lane {lane}: its configuration names the webhook `{name}`");
            let help = format!("say where it is: [webhooks.{name}] with a `url`");
            problems
                .push(Problem::new(Code::Configuration, message + ", which has no URL").help(help));
        }
    }
    problems
}

/// What may be as the operator wants it, and may not.
pub fn warnings(config: &Config, modules: &[BoundModule]) -> Vec<String> {
    let mut lanes: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for module in modules {
        for name in unnamed(config, module).filter(|name| !is_configured(module, name)) {
            lanes.entry(name).or_default().insert(module.lane().to_string());
        }
    }
    let list = |lanes: BTreeSet<String>| lanes.into_iter().collect::<Vec<_>>().join(", ");
    lanes
        .into_iter()
        .map(|(name, lanes)| {
            format!(
                "the webhook `{name}` has no URL: what {} sends there, if anything, waits until it \
                 expires; add [webhooks.{name}] with a `url`",
                list(lanes)
            )
        })
        .collect()
}

/// Asks the orderbook of each chain whose lanes need it for its version.
pub async fn unreachable(config: &Config, modules: &[BoundModule]) -> Vec<Problem> {
    let needed: BTreeSet<&ChainName> = modules
        .iter()
        .filter(|module| needs_orderbook(module).is_some())
        .map(|module| &module.lane().chain)
        .collect();
    let (web, metrics) = (Web::new(), Metrics::unregistered());
    let mut problems = Vec::new();
    for chain in config.chains.iter().filter(|chain| needed.contains(&chain.name)) {
        let Some(orderbook) = orderbook(config, chain, &web, &metrics) else { continue };
        if let Err(failure) = orderbook.version().await {
            let url = chain.orderbook.as_ref().expect("it was asked");
            let reason = in_words(&failure);
            let message = format!("chain {}: the orderbook at {url}: {reason}", chain.name);
            problems.push(
                Problem::new(Code::Endpoint, message)
                    .help("correct `orderbook`: `/api/v1/version` must answer below it"),
            );
        }
    }
    problems
}

fn chain_of<'c>(config: &'c Config, module: &BoundModule) -> &'c Chain {
    let chain = config.chains.iter().find(|chain| chain.name == module.lane().chain);
    chain.expect("modules run on configured chains")
}

/// What the module is granted that an orderbook answers.
fn needs_orderbook(module: &BoundModule) -> Option<Capability> {
    let granted = module.module().manifest().capabilities();
    [Capability::PlaceOrder, Capability::Orderbook].into_iter().find(|need| granted.contains(need))
}

/// The module's webhooks that have no URL.
fn unnamed<'m>(config: &Config, module: &'m BoundModule) -> impl Iterator<Item = &'m str> {
    let names = module.module().manifest().webhooks();
    names.iter().map(String::as_str).filter(|name| !config.webhooks.contains_key(*name))
}

/// Whether a value of the lane's configuration is this name.
fn is_configured(module: &BoundModule, name: &str) -> bool {
    fn holds(value: &Value, name: &str) -> bool {
        match value {
            Value::String(text) => text == name,
            Value::Array(values) => values.iter().any(|value| holds(value, name)),
            Value::Object(values) => values.values().any(|value| holds(value, name)),
            _ => false,
        }
    }
    serde_json::from_str(module.config()).is_ok_and(|config| holds(&config, name))
}
