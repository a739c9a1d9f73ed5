//! `shepherd.toml`: what the operator wrote, checked, as types.
//!
//! ```text
//! data_dir ──────────── where the journal, the cursors and the state live
//! [admin] [log] ─────── how people look in
//! [chains.NAME] ─────── what is followed, through which endpoints, and whose orderbook it has
//! [webhooks.NAME] ───── where effects go besides; [sender] says how fast
//! [[modules]] ───────── what runs, pinned by sha256, and on which chains
//! ```
//!
//! A [`Config`] exists only when every value was accepted. Otherwise [`load`] returns every
//! problem it found, each with its line.

mod chain;
mod endpoints;
mod reader;
pub mod value;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

pub use chain::Chain;
use chain::{chain_names, read_chains};
pub use reader::Wrong;
use reader::{Reader, Section, boolean, expected, number, parsed, string};
use serde::de::DeserializeOwned;
use shepherd_dispatch::Limits;
use shepherd_host::{Overrides, Sha256};
use shepherd_log::ChainName;
use shepherd_rpc::{InvalidEndpoint, Redacted};
use toml::de::{DeTable, DeValue, ValueDeserializer};
use tracing_subscriber::EnvFilter;

use crate::exit::{Code, Failure, Place, Problem, file_problem};

/// The commented file that `shepherd init` writes.
pub const TEMPLATE: &str = include_str!("config/template.toml");

/// Where the admin server listens when the file does not say.
const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7878);

/// Looks up `${NAME}`.
type Variable<'v> = dyn Fn(&str) -> Option<String> + 'v;

/// Everything in `shepherd.toml`.
#[derive(Debug)]
pub struct Config {
    /// The data directory; relative paths were taken from the file's own directory.
    pub data_dir: PathBuf,
    /// `[admin]`.
    pub admin: Admin,
    /// `[log]`.
    pub log: Log,
    /// `[chains.NAME]`, by name. Never empty.
    pub chains: Vec<Chain>,
    /// `[webhooks.NAME]`: where webhooks go. Their URLs are secrets.
    pub webhooks: BTreeMap<String, Redacted>,
    /// `[sender]`.
    pub sender: Sender,
    /// `[[modules]]`, in the file's order.
    pub modules: Vec<Module>,
}

/// `[admin]`: the HTTP server for people and monitoring.
#[derive(Debug)]
pub struct Admin {
    /// A loopback address.
    pub listen: SocketAddr,
}

/// `[log]`: what the process says about itself.
#[derive(Debug)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// What is said: a level, or a list of `target=level`.
    pub level: String,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// `[sender]`: how effects leave.
#[derive(Debug)]
pub struct Sender {
    /// Requests for orders of one lane that are under way at once.
    pub window: usize,
    /// How an orderbook is asked.
    pub orderbook: Limits,
    /// How a webhook is asked.
    pub webhook: Limits,
}

impl Default for Sender {
    fn default() -> Sender {
        let shepherd_dispatch::SenderConfig { window, .. } = Default::default();
        Sender { window, orderbook: Limits::ORDERBOOK, webhook: Limits::WEBHOOK }
    }
}

/// `[[modules]]`: one module and where it runs.
#[derive(Debug)]
pub struct Module {
    /// Path of its `module.toml`.
    pub manifest: PathBuf,
    /// The only component that may run.
    pub sha256: Sha256,
    /// The chains it runs on: all of them when the file does not say. Never empty.
    pub chains: Vec<ChainName>,
    /// What takes the place of the manifest's own configuration and addresses.
    pub overrides: Overrides,
    /// Where its manifest is named.
    pub manifest_place: Place,
    /// Where its component is pinned.
    pub sha256_place: Place,
}

/// Reads and checks a configuration file.
pub fn load(file: &Path) -> Result<Config, Failure> {
    let text = fs::read_to_string(file).map_err(|error| {
        let problem = file_problem(Code::Configuration, "read the configuration", file, &error);
        problem.help("name another file with --config, or write one with `shepherd init`")
    })?;
    parse(file, &text, &|name| env::var(name).ok()).map_err(|problems| Failure { problems })
}

/// Checks a configuration's text; `variable` looks up `${NAME}`.
fn parse(file: &Path, text: &str, variable: &Variable<'_>) -> Result<Config, Vec<Problem>> {
    let reader = Reader::new(file, text);
    let Some(table) = reader.parse() else {
        return Err(reader.into_problems());
    };
    let config = read(&reader, &table, file, variable);
    match (config, reader.into_problems()) {
        (Some(config), problems) if problems.is_empty() => Ok(config),
        (_, problems) => {
            assert!(!problems.is_empty(), "a value was refused without saying why");
            Err(problems)
        }
    }
}

/// The configuration, or `None` when something that it needs was reported.
fn read(
    reader: &Reader<'_>,
    table: &DeTable<'_>,
    file: &Path,
    variable: &Variable<'_>,
) -> Option<Config> {
    let base = file.parent().unwrap_or(Path::new(""));
    let mut root = Section::new(reader, table, 0..0);
    let data_dir = root.required("data_dir", path);
    let admin = read_admin(reader, &mut root);
    let log = read_log(reader, &mut root);
    let dry_run = root.optional("dry_run", boolean).unwrap_or(false);
    let chains = read_chains(reader, &mut root, dry_run, variable);
    let webhooks = read_webhooks(reader, &mut root, variable);
    let sender = read_sender(reader, &mut root);
    let names = chain_names(table);
    let modules = read_modules(reader, &mut root, base, &names);
    root.finish();
    Some(Config {
        data_dir: base.join(data_dir?),
        admin: admin?,
        log: log?,
        chains: chains?,
        webhooks: webhooks?,
        sender: sender?,
        modules: modules?,
    })
}

fn read_admin(reader: &Reader<'_>, root: &mut Section<'_, '_>) -> Option<Admin> {
    let Some(value) = root.value("admin") else {
        return Some(Admin { listen: ADMIN_LISTEN });
    };
    let mut admin = Section::new(reader, as_table(reader, "admin", value)?, value.span());
    let listen = match admin.value("listen") {
        None => Some(ADMIN_LISTEN),
        Some(_) => admin.optional("listen", loopback),
    };
    admin.finish();
    Some(Admin { listen: listen? })
}

fn read_log(reader: &Reader<'_>, root: &mut Section<'_, '_>) -> Option<Log> {
    let default = || Log { format: LogFormat::Auto, level: "info".to_owned() };
    let Some(value) = root.value("log") else {
        return Some(default());
    };
    let mut log = Section::new(reader, as_table(reader, "log", value)?, value.span());
    let format = log.optional("format", |value| {
        one_of(
            value,
            &[("auto", LogFormat::Auto), ("json", LogFormat::Json), ("text", LogFormat::Text)],
        )
    });
    let level = log.optional("level", log_level);
    log.finish();
    let Log { format: default_format, level: default_level } = default();
    Some(Log { format: format.unwrap_or(default_format), level: level.unwrap_or(default_level) })
}

fn read_webhooks(
    reader: &Reader<'_>,
    root: &mut Section<'_, '_>,
    variable: &Variable<'_>,
) -> Option<BTreeMap<String, Redacted>> {
    let Some(value) = root.value("webhooks") else { return Some(BTreeMap::new()) };
    let table = as_table(reader, "webhooks", value)?;
    // Collected first, so that every webhook is looked at.
    let webhooks: Vec<Option<(String, Redacted)>> = table
        .iter()
        .map(|(key, value)| {
            let table = as_table(reader, key.get_ref(), value)?;
            let mut webhook = Section::new(reader, table, key.span());
            let url = webhook.required("url", |value| receiver(value, variable));
            webhook.finish();
            Some((key.get_ref().to_string(), url?))
        })
        .collect();
    webhooks.into_iter().collect()
}

fn read_sender(reader: &Reader<'_>, root: &mut Section<'_, '_>) -> Option<Sender> {
    let defaults = Sender::default();
    let Some(value) = root.value("sender") else { return Some(defaults) };
    let mut sender = Section::new(reader, as_table(reader, "sender", value)?, value.span());
    let window = sender.optional("window", |value| between(value, 1, 64));
    let orderbook_rate = sender.optional("orderbook_rate", |value| between(value, 1, 10_000));
    let webhook_rate = sender.optional("webhook_rate", |value| between(value, 1, 10_000));
    sender.finish();
    let limits = |rate: Option<u64>, limits: Limits| Limits {
        rate_per_second: rate.map_or(limits.rate_per_second, |rate| rate as u32),
        ..limits
    };
    Some(Sender {
        window: window.map_or(defaults.window, |window| window as usize),
        orderbook: limits(orderbook_rate, defaults.orderbook),
        webhook: limits(webhook_rate, defaults.webhook),
    })
}

fn read_modules(
    reader: &Reader<'_>,
    root: &mut Section<'_, '_>,
    base: &Path,
    names: &[ChainName],
) -> Option<Vec<Module>> {
    let Some(value) = root.value("modules") else {
        return Some(Vec::new());
    };
    let Some(array) = value.get_ref().as_array() else {
        let wrong = expected("an array of tables", value.get_ref());
        reader.wrong(value.span(), wrong.help("write each module under its own [[modules]]"));
        return None;
    };
    let modules: Vec<Option<Module>> = array
        .iter()
        .map(|value| {
            let table = as_table(reader, "modules", value)?;
            let section = Section::new(reader, table, value.span());
            read_module(reader, section, base, names)
        })
        .collect();
    modules.into_iter().collect()
}

fn read_module(
    reader: &Reader<'_>,
    mut module: Section<'_, '_>,
    base: &Path,
    names: &[ChainName],
) -> Option<Module> {
    let manifest = module.required("manifest", path);
    let manifest_place = reader.place(module.span_of("manifest"));
    let sha256 = match module.value("sha256") {
        Some(_) => module.optional("sha256", parsed::<Sha256>),
        None => {
            let named = manifest.as_deref().unwrap_or(Path::new("module.toml")).display();
            let wrong = Wrong::new("`sha256` is missing: a module runs only when it is pinned");
            let help = format!("`shepherd module inspect {named}` prints the line to add");
            reader.wrong(module.span_of("sha256"), wrong.help(help));
            None
        }
    };
    let sha256_place = reader.place(module.span_of("sha256"));
    let chains = match module.value("chains") {
        None => Some(names.to_vec()),
        Some(_) => module.list("chains", |value| known_chain(value, names)),
    };
    if let Some(chains) = &chains {
        let span = module.span_of("chains");
        let distinct: BTreeSet<_> = chains.iter().collect();
        if distinct.len() < chains.len() {
            reader.wrong(span, Wrong::new("`chains` names a chain twice"));
        } else if chains.is_empty() && module.value("chains").is_some() {
            let wrong = Wrong::new("`chains` is empty: the module would never run");
            reader.wrong(span, wrong.help("remove the key to run it on every chain"));
        }
    }
    let config = table(reader, &mut module, "config");
    let addresses = table(reader, &mut module, "addresses");
    module.finish();
    Some(Module {
        manifest: base.join(manifest?),
        sha256: sha256?,
        chains: chains?,
        overrides: Overrides { config: config?, addresses: addresses?, ..Overrides::default() },
        manifest_place,
        sha256_place,
    })
}

/// A table whose keys are not ours to know. Empty when it is left out.
fn table<T: DeserializeOwned + Default>(
    reader: &Reader<'_>,
    section: &mut Section<'_, '_>,
    key: &'static str,
) -> Option<T> {
    let Some(value) = section.value(key) else { return Some(T::default()) };
    as_table(reader, key, value)?;
    T::deserialize(ValueDeserializer::from(value.clone()))
        .map_err(|error| {
            let span = error.span().unwrap_or(value.span());
            reader.wrong(span, Wrong::new(format!("`{key}`: {}", error.message())));
        })
        .ok()
}

fn as_table<'r, 't>(
    reader: &Reader<'t>,
    key: &str,
    value: &'r toml::Spanned<DeValue<'t>>,
) -> Option<&'r DeTable<'t>> {
    let table = value.get_ref().as_table();
    if table.is_none() {
        reader.wrong(value.span(), expected("a table", value.get_ref()).of(key));
    }
    table
}

fn path(value: &DeValue<'_>) -> Result<PathBuf, Wrong> {
    let text = string(value)?;
    if text.is_empty() {
        return Err(Wrong::new("the path is empty"));
    }
    Ok(text.into())
}

fn between(value: &DeValue<'_>, low: u64, high: u64) -> Result<u64, Wrong> {
    let found = number(value)?;
    if found < low || high < found {
        return Err(Wrong::new(format!("{found} is not between {low} and {high}")));
    }
    Ok(found)
}

fn one_of<T: Copy>(value: &DeValue<'_>, choices: &[(&str, T)]) -> Result<T, Wrong> {
    let text = string(value)?;
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*choice);
    }
    let names = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect::<Vec<_>>();
    Err(Wrong::new(format!("`{text}` is not one of {}", names.join(", "))))
}

fn log_level(value: &DeValue<'_>) -> Result<String, Wrong> {
    let text = string(value)?;
    // A bare word that is no level would be taken for the name of a target, and log nothing.
    let is_level = text.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    if !is_level && !text.contains('=') || EnvFilter::try_new(&text).is_err() {
        return Err(Wrong::new(format!("`{text}` is not a level"))
            .help("write error, warn, info, debug or trace, or a list such as \"info,shepherd_ingest=debug\""));
    }
    Ok(text)
}

fn loopback(value: &DeValue<'_>) -> Result<SocketAddr, Wrong> {
    let text = string(value)?;
    let address: SocketAddr = text.parse().map_err(|_| {
        Wrong::new(format!("`{text}` is not an address and port"))
            .help("write an IP address and a port, for example \"127.0.0.1:7878\"")
    })?;
    if !address.ip().is_loopback() {
        return Err(Wrong::new(format!("{address} can be reached from other machines"))
            .help("this version has no TLS and no token, so it listens on 127.0.0.1 or [::1] only; reach it from elsewhere through an SSH tunnel"));
    }
    Ok(address)
}

fn known_chain(value: &DeValue<'_>, names: &[ChainName]) -> Result<ChainName, Wrong> {
    let text = string(value)?;
    if let Some(name) = names.iter().find(|name| name.as_str() == text) {
        return Ok(name.clone());
    }
    let known = names.iter().map(ChainName::as_str).collect::<Vec<_>>().join(", ");
    Err(Wrong::new(format!("no chain is called `{text}`"))
        .help(format!("the chains in this file are {known}")))
}

/// An endpoint's URL after its variables were put in. The URL itself is in no message.
fn endpoint(value: &DeValue<'_>, variable: &Variable<'_>) -> Result<Redacted, Wrong> {
    let text = expand(&string(value)?, variable)?;
    text.parse().map_err(|error: InvalidEndpoint| {
        Wrong::new(error.to_string()).help("write it as http://HOST:PORT/… or ws://HOST:PORT/…")
    })
}

/// The URL of something that effects are sent to.
fn receiver(value: &DeValue<'_>, variable: &Variable<'_>) -> Result<Redacted, Wrong> {
    let url = endpoint(value, variable)?;
    if url.is_websocket() {
        return Err(Wrong::new("the scheme is not http or https"));
    }
    Ok(url)
}

/// The text with each `${NAME}` replaced by that environment variable.
fn expand(text: &str, variable: &Variable<'_>) -> Result<String, Wrong> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) =
            after.split_once('}').ok_or_else(|| Wrong::new("`${` is not closed by `}`"))?;
        let value = variable(name).filter(|value| !value.is_empty()).ok_or_else(|| {
            Wrong::new(format!("the environment variable {name} is not set"))
                .help("set it where shepherd is started, or write the URL here")
        })?;
        expanded.push_str(before);
        expanded.push_str(&value);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shepherd_ingest::{Finality, Start, Trust};
    use shepherd_log::Retention;
    use shepherd_rpc::{Budget, EndpointSpec};

    use super::*;

    const SHA256: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn good() -> String {
        format!(
            "data_dir = 'data'
[chains.devnet]
chain_id = 31337
endpoints = ['http://127.0.0.1:8545/${{KEY}}', 'ws://127.0.0.1:8545']
start_block = 0
[[modules]]
manifest = 'ledger/module.toml'
sha256 = '{SHA256}'
config = {{ tokens = ['0x01'] }}
"
        )
    }

    fn parse_text(text: &str) -> Result<Config, Vec<Problem>> {
        let variable = |name: &str| (name == "KEY").then(|| "sesame".to_owned());
        parse(Path::new("etc/shepherd.toml"), text, &variable)
    }

    #[test]
    fn the_shortest_file_gets_the_defaults() {
        let config = parse_text(&good()).expect("it is right");
        assert_eq!(config.data_dir, Path::new("etc/data"));
        assert_eq!(config.admin.listen.to_string(), "127.0.0.1:7878");
        let [chain] = &config.chains[..] else { panic!("one chain") };
        assert_eq!((chain.chain_id, chain.follow.start), (31337, Start::Block(0)));
        assert_eq!((chain.follow.reorg_depth_max, chain.follow.trust), (64, Trust::Bloom));
        let key_expanded = "http://127.0.0.1:8545/sesame".parse::<Redacted>();
        assert_eq!(Ok(&chain.endpoints[0].url), key_expanded.as_ref());
        let [module] = &config.modules[..] else { panic!("one module") };
        assert_eq!(module.manifest, Path::new("etc/ledger/module.toml"));
        assert_eq!(module.sha256.to_string(), SHA256);
        assert_eq!(module.chains, vec![chain.name.clone()]);
        assert!(module.overrides.config.contains_key("tokens"));
    }

    #[test]
    fn the_template_is_a_right_configuration() {
        let config = parse_text(TEMPLATE).expect("it is right");
        assert_eq!(config.chains.len(), 1);
    }

    #[test]
    fn the_chains_that_the_template_shows_are_right_too() {
        let (_, examples) = TEMPLATE.split_once("slow the others.\n").expect("they are at the end");
        let lines = examples.lines().map(|line| line.trim_start_matches(['#', ' ']));
        let text = format!("data_dir = 'data'\n{}\n", lines.collect::<Vec<_>>().join("\n"));
        let variable = |_: &str| Some("key".to_owned());
        let config = parse(Path::new("shepherd.toml"), &text, &variable).expect("they are right");
        let ids: BTreeSet<u64> = config.chains.iter().map(|chain| chain.chain_id).collect();
        assert_eq!(ids, BTreeSet::from([1, 100, 8_453, 42_161, 11_155_111]));
        assert!(ids.into_iter().all(|id| shepherd_ingest::profile(id).is_some()));
    }

    #[test]
    fn an_endpoint_never_shows_its_key() {
        let config = parse_text(&good()).expect("it is right");
        let shown = format!("{config:?} {}", config.chains[0].endpoints[0].url);
        assert!(shown.contains("http://127.0.0.1:8545"), "{shown}");
        assert!(!shown.contains("sesame"), "{shown}");
    }

    /// What replaces a line of the right file, and the one message that must come of it.
    #[test]
    fn each_mistake_is_named_at_its_place() {
        check("data_dir", "", "1:1: `data_dir` is missing");
        check("data_dir", "data_dir = 7", "1:12: `data_dir`: expected a string, found an integer");
        check("data_dir", "data_dir = ''", "1:12: `data_dir`: the path is empty");
        check("data_dir", "data_dir = 'a'\ncolour = 1", "2:1: unknown key `colour`");
        check("chain_id", "", "2:9: `chain_id` is missing");
        check("chain_id", "chain_id = 0", "3:12: `chain_id`: 0 is not between 1");
        check("chain_id", "chain_id = -5", "3:12: `chain_id`: -5 is not between 0");
        check("chain_id", "chain_id = 1\nchain_idd = 1", "4:1: unknown key `chain_idd`");
        check("chain_id", "chain_id =", "3:11: not valid TOML: ");
        check("endpoints", "endpoints = []", "4:13: `endpoints` is empty");
        check(
            "endpoints",
            "endpoints = 'a'",
            "4:13: `endpoints`: expected an array of URLs or tables, found",
        );
        check("endpoints", "endpoints = ['']", "4:14: `endpoints`: not a URL");
        check(
            "endpoints",
            "endpoints = ['ftp://a']",
            "4:14: `endpoints`: scheme `ftp` is not one of",
        );
        check(
            "endpoints",
            "endpoints = ['http://a/${NOPE}']",
            "4:14: `endpoints`: the environment variable NOPE is not set",
        );
        check(
            "endpoints",
            "endpoints = ['http://a/${KEY']",
            "4:14: `endpoints`: `${` is not closed",
        );
        check("start_block", "start_block = 'x'", "5:15: `start_block`: `x` is not a place in a");
        check(
            "start_block",
            "start_block = 0\nreorg_depth_max = 0",
            "6:19: `reorg_depth_max`: 0 is not between 1",
        );
        check(
            "start_block",
            "start_block = 0\ntrust = 'all'",
            "6:9: `trust`: `all` is not a trust level",
        );
        check(
            "start_block",
            "start_block = 0\npoll_interval = '0s'",
            "6:17: `poll_interval`: `0s` is not longer",
        );
        check("manifest", "", "6:1: `manifest` is missing");
        check("sha256", "", "6:1: `sha256` is missing");
        check("sha256", "sha256 = 'abc'", "8:10: `sha256`: `abc` is not a sha256");
        check("config", "config = 1", "9:10: `config`: expected a table, found an integer");
        check("config", "addresses = { token = ['0x1'] }", "9:");
        check("config", "chains = ['moon']", "9:11: `chains`: no chain is called `moon`");
        check("config", "chains = []", "9:10: `chains` is empty");
        check("config", "chains = ['devnet', 'devnet']", "9:10: `chains` names a chain twice");
        check(
            "config",
            "[admin]\nlisten = '0.0.0.0:1'",
            "10:10: `listen`: 0.0.0.0:1 can be reached",
        );
        check("config", "dry_run = 1", "9:1: unknown key `dry_run`");
        check("data_dir", "data_dir = 'a'\ndry_run = 1", "2:11: `dry_run`: expected true or false");
        check("start_block", "start_block = 0\ndry_run = ''", "6:11: `dry_run`: expected true or");
        check(
            "start_block",
            "start_block = 0\norderbook = 'ws://a'",
            "6:13: `orderbook`: the scheme is not http or https",
        );
        check("start_block", "start_block = 0\norderbook = ''", "6:13: `orderbook`: not a URL");
        check("config", "[webhooks.alerts]", "9:11: `url` is missing");
        check("config", "[webhooks]\nalerts = 'a'", "10:10: `alerts`: expected a table");
        check(
            "config",
            "[webhooks.alerts]\nurl = 'http://a/${NOPE}'",
            "10:7: `url`: the environment variable NOPE is not set",
        );
        check("config", "[sender]\nwindow = 0", "10:10: `window`: 0 is not between 1 and 64");
        check("config", "[sender]\norderbook_rate = 0", "10:18: `orderbook_rate`: 0 is not");
        check("config", "[sender]\nrate = 1", "10:1: unknown key `rate`");
        check(
            "start_block",
            "start_block = 'soon'",
            "5:15: `start_block`: `soon` is not a place in",
        );
        check("start_block", "start_block = 1.5", "5:15: `start_block`: expected a block number,");
        check("start_block", "start_block = 12:00:00", "5:15: `start_block`: `12:00:00` is not a");
        check("start_block", "start_block = '-7'", "5:15: `start_block`: `7` is not a duration");
        for (endpoint, expected) in [
            ("7", "4:14: `endpoints`: expected a URL or a table, found an integer"),
            ("{ priority = 1 }", "4:14: `url` is missing"),
            ("{ url = 'ftp://a' }", "4:22: `url`: scheme `ftp` is not one of"),
            ("{ url = 'http://a', priority = 256 }", "4:45: `priority`: 256 is not between 0"),
            ("{ url = 'http://a', rate_per_second = 0 }", "4:52: `rate_per_second`: 0 is not"),
            ("{ url = 'http://a', rate = 1 }", "4:34: unknown key `rate`"),
            ("{ url = 'http://a', budget = 9 }", "4:43: `budget`: expected a table"),
            ("{ url = 'http://a', budget = { calls = 1 } }", "4:43: `per` is missing"),
            (
                "{ url = 'http://a', budget = { calls = 1, per = 'day' } }",
                "4:62: `per`: `day` is not a duration",
            ),
        ] {
            check("endpoints", &format!("endpoints = [{endpoint}]"), expected);
        }
        for (line, expected) in [
            ("finality = 'soon'", "6:12: `finality`: expected \"tag\" or a number of blocks"),
            ("finality = 0", "6:12: `finality`: 0 is not between 1 and 100000"),
            ("quorum = 0", "6:10: `quorum`: 0 is not between 1 and 64"),
            (
                "quorum = 3",
                "6:10: `quorum`: 3 endpoints can never agree: there are only 2 endpoints",
            ),
            ("trust = 'full'", "6:9: `trust`: `full` is not a trust level: use `link`, `bloom` or"),
            ("profile = 'moon'", "6:11: `profile`: there is no profile `moon`"),
            (
                "profile = 'polygon'\ntrust = 'receipts'",
                "7:9: `trust`: the blocks of polygon do not hold up at `receipts`",
            ),
            ("retention = 7", "6:13: `retention`: expected a table"),
            ("retention = {}", "6:13: `retention` is empty: everything would be kept"),
            ("retention = { max_age = '30' }", "6:25: `max_age`: `30` is not a duration"),
            ("retention = { max_size = '50' }", "6:26: `max_size`: `50` is less than a mebibyte"),
            ("retention = { max_bytes = 1 }", "6:15: unknown key `max_bytes`"),
            ("poll_interval = '2'", "6:17: `poll_interval`: `2` is not a duration"),
        ] {
            check("start_block", &format!("start_block = 0\n{line}"), expected);
        }
        check("config", "[admin]\nlisten = 'here'", "10:10: `listen`: `here` is not an address");
        check("config", "[log]\nformat = 'xml'", "10:10: `format`: `xml` is not one of");
        check("config", "[log]\nlevel = 'loud'", "10:9: `level`: `loud` is not a level");
    }

    #[test]
    fn chains_have_the_orderbook_of_their_id_unless_they_name_one() {
        let orderbook = |chain_id: &str, line: &str| {
            let text = good()
                .replace("chain_id = 31337", &format!("chain_id = {chain_id}"))
                .replace("start_block = 0", &format!("start_block = 0\n{line}"));
            let config = parse_text(&text).expect("it is right");
            config.chains[0].orderbook.clone()
        };
        for (chain_id, network) in [
            ("1", "mainnet"),
            ("100", "xdai"),
            ("8453", "base"),
            ("42161", "arbitrum_one"),
            ("11155111", "sepolia"),
        ] {
            let url = format!("https://api.cow.fi/{network}").parse().unwrap();
            assert_eq!(orderbook(chain_id, ""), Some(url));
        }
        assert_eq!(orderbook("31337", ""), None);
        let own = Some("http://127.0.0.1:8080/sepolia".parse().unwrap());
        assert_eq!(orderbook("1", "orderbook = 'http://127.0.0.1:8080/sepolia'"), own);
    }

    #[test]
    fn an_endpoint_is_a_url_or_says_how_it_may_be_used() {
        let endpoints = "endpoints = ['http://a/${KEY}', { url = 'http://b/${KEY}', priority = 1, \
                         rate_per_second = 25, batch_calls_max = 50, \
                         budget = { calls = 3_000_000, per = '30d' } }]";
        let text = good()
            .lines()
            .map(|line| match line.starts_with("endpoints") {
                true => format!("{endpoints}\n"),
                false => format!("{line}\n"),
            })
            .collect::<String>();
        let config = parse_text(&text).expect("it is right");
        let [a, b] = &config.chains[0].endpoints[..] else { panic!("two endpoints") };
        assert_eq!(a, &"http://a/sesame".parse().unwrap());
        let per = Duration::from_secs(30 * 86_400);
        let expected = EndpointSpec {
            priority: 1,
            rate_per_second: Some(25),
            budget: Some(Budget { calls: 3_000_000, per }),
            batch_calls_max: Some(50),
            ..b.url.clone().into()
        };
        assert_eq!(b, &expected);
        assert!(!format!("{config:?}").contains("sesame"));
    }

    #[test]
    fn a_chain_begins_with_its_profile_and_what_is_written_wins() {
        let follow = |chain_id: u64, lines: &str| {
            let text = good()
                .replace("chain_id = 31337", &format!("chain_id = {chain_id}"))
                .replace("start_block = 0", &format!("start_block = 0\n{lines}"));
            let config = parse_text(&text).expect("it is right");
            let follow = config.chains[0].follow.clone();
            (follow.trust, follow.reorg_depth_max, follow.poll_interval.as_millis())
        };
        assert_eq!(follow(42_161, ""), (Trust::Bloom, 1_200, 250));
        let own = "reorg_depth_max = 5\npoll_interval = '1s'\ntrust = 'link'";
        assert_eq!(follow(42_161, own), (Trust::Link, 5, 1_000));
        assert_eq!(follow(42_161, "profile = 'none'"), (Trust::Bloom, 64, 2_000));
        assert_eq!(follow(31_337, "profile = 'arbitrum-one'"), (Trust::Bloom, 1_200, 250));
        assert_eq!(follow(137, "").0, Trust::Link);
    }

    #[test]
    fn a_journal_is_kept_for_an_age_or_a_size() {
        let retention = |lines: &str| {
            let text = good().replace("start_block = 0", &format!("start_block = 0\n{lines}"));
            parse_text(&text).expect("it is right").chains[0].retention
        };
        let (days, bytes) = (Duration::from_secs(30 * 86_400), 50 << 30);
        assert_eq!(retention(""), Retention::default());
        let both = "[chains.devnet.retention]\nmax_age = '30d'\nmax_size = '50GiB'";
        let expected = Retention { max_age: Some(days), max_bytes: Some(bytes) };
        assert_eq!(retention(both), expected);
        let age = "retention = { max_age = '30d' }";
        assert_eq!(retention(age), Retention { max_bytes: None, ..expected });
    }

    #[test]
    fn a_chain_begins_at_a_block_an_age_or_a_time() {
        for (written, expected) in [
            ("7", Start::Block(7)),
            ("'7'", Start::Block(7)),
            ("'latest'", Start::Latest),
            ("'-7d'", Start::Ago(Duration::from_secs(604_800))),
            ("'2023-11-14'", Start::At(1_699_920_000)),
            ("2023-11-14", Start::At(1_699_920_000)),
            ("2023-11-14T22:13:20Z", Start::At(1_700_000_000)),
        ] {
            let text = good().replace("start_block = 0", &format!("start_block = {written}"));
            let config = parse_text(&text).expect("it is right");
            assert_eq!(config.chains[0].follow.start, expected, "{written}");
        }
    }

    #[test]
    fn a_chain_says_how_far_its_endpoints_are_believed() {
        let lines = "start_block = 0\ntrust = 'receipts'\nquorum = 2\nfinality = 64";
        let config = parse_text(&good().replace("start_block = 0", lines)).expect("it is right");
        let follow = &config.chains[0].follow;
        assert_eq!((follow.trust, follow.quorum), (Trust::Receipts, 2));
        assert_eq!(follow.finality, Finality::Depth(64));
    }

    #[test]
    fn dry_run_is_said_for_everything_or_for_a_chain() {
        let dry_run = |root: &str, chain: &str| {
            let text = good()
                .replace("data_dir", &format!("{root}\ndata_dir"))
                .replace("start_block = 0", &format!("start_block = 0\n{chain}"));
            parse_text(&text).expect("it is right").chains[0].dry_run
        };
        assert!(!dry_run("", ""));
        assert!(dry_run("dry_run = true", ""));
        assert!(dry_run("", "dry_run = true"));
        assert!(dry_run("dry_run = true", "dry_run = false"), "not taken back for one chain");
    }

    #[test]
    fn webhooks_and_the_sender_have_their_tables() {
        let text = good()
            + "[webhooks.alerts]\nurl = 'https://a/${KEY}'\n\
               [sender]\nwindow = 3\norderbook_rate = 100\nwebhook_rate = 2\n";
        let config = parse_text(&text).expect("it is right");
        assert_eq!(config.webhooks["alerts"].to_string(), "https://a");
        assert!(!format!("{config:?}").contains("sesame"));
        let Sender { window, orderbook, webhook } = config.sender;
        assert_eq!((window, orderbook.rate_per_second, webhook.rate_per_second), (3, 100, 2));
    }

    #[test]
    fn a_chain_needs_a_name() {
        let text = good().replace("chains.devnet", "chains.Devnet");
        check_all(&text, &["2:9: `Devnet` is not a name"]);
        check_all("data_dir = 'a'", &["1:1: no chain is configured"]);
    }

    #[test]
    fn all_mistakes_are_reported_in_the_order_of_the_file() {
        let text = good()
            .replace("data_dir = 'data'", "data = 1")
            .replace("start_block = 0", "start_block = -1")
            .replace("chain_id = 31337", "chain_id = true")
            .replace("manifest", "manifesto");
        let expected = [
            "1:1: `data_dir` is missing",
            "1:1: unknown key `data`",
            "3:12: `chain_id`: expected a whole number",
            "5:15: `start_block`: -1 is not between 0",
            "6:1: `manifest` is missing",
            "7:1: unknown key `manifesto`",
        ];
        check_all(&text, &expected);
    }

    #[test]
    fn a_quoted_line_hides_the_key() {
        let text = good().replace("'ws://127.0.0.1:8545'", "'httpz://a/0123456789abcdef'");
        let problems = parse_text(&text).expect_err("the scheme is wrong");
        assert_eq!(problems.len(), 1);
        let shown = problems[0].to_string();
        assert!(shown.contains("httpz://a"), "{shown}");
        assert!(!shown.contains("0123456789abcdef"), "{shown}");
    }

    /// Replaces the line that starts with `key` and expects exactly one problem.
    #[track_caller]
    fn check(key: &str, line: &str, expected: &str) {
        let text = good()
            .lines()
            .map(|old| if old.starts_with(key) { line } else { old })
            .collect::<Vec<_>>()
            .join("\n");
        check_all(&text, &[expected]);
    }

    /// Expects these problems and no others, each given by its beginning.
    #[track_caller]
    fn check_all(text: &str, expected: &[&str]) {
        let found = messages(text);
        let fits = |(found, expected): (&String, &&str)| found.starts_with(expected);
        let all_fit = found.len() == expected.len() && found.iter().zip(expected).all(fits);
        assert!(all_fit, "expected {expected:#?}\nfound {found:#?}\n{text}");
    }

    /// The problems as `line:column: message`.
    fn messages(text: &str) -> Vec<String> {
        let problems = parse_text(text).expect_err("something is wrong");
        let short = |problem: &Problem| {
            let place = problem.place.as_ref().expect("each is somewhere");
            format!("{}:{}: {}", place.line, place.column, problem.message)
        };
        problems.iter().map(short).collect()
    }
}
