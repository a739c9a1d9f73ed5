//! The module that a command names, and the configuration it is to have.
//!
//! ```text
//!   module.toml ◀─ laid over ─ --overrides FILE, or what shepherd.toml has for it ◀─ --set KEY=VALUE
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
};

use shepherd_host::{Engine, Overrides};
use shepherd_log::ChainName;
use toml::{Table, Value};

use crate::{
    cli::{Assignment, Setting},
    config::Config,
    exit::{Code, Problem, file_problem},
    modules::{Configured, Loaded},
};

/// The manifest that is meant: a file, or that in a folder.
pub fn manifest(path: &Path) -> PathBuf {
    if path.is_dir() { path.join("module.toml") } else { path.to_owned() }
}

/// A chain that a module is bound to.
pub struct OnChain<'a> {
    /// Its name, by which manifests know it.
    pub name: &'a ChainName,
    /// Its id (EIP-155).
    pub id: u64,
}

/// Loads a module from its files and gives it its configuration. No sha256 has to be pinned: what
/// runs here can send nothing.
pub fn load(
    path: &Path,
    setting: &Setting,
    chain: &OnChain<'_>,
    config: Option<&Config>,
    engine: &Engine,
) -> Result<Configured, Problem> {
    let file = manifest(path);
    let loaded = Loaded::read(&file, engine)?;
    let mut overrides = match &setting.overrides {
        Some(file) => read(file)?,
        None => config.map(|config| of_config(config, &file, chain.name)).unwrap_or_default(),
    };
    // The kind of a value is that of the one it replaces, wherever that one is written.
    let text = loaded.text().parse::<Table>().expect("it was read as a manifest");
    let of_chain = text.get("chain").and_then(|chains| chains.get(chain.name.as_str()));
    let below = [of_chain.and_then(|chain| chain.get("config")), text.get("config")];
    for Assignment { key, value } in &setting.set {
        let replaced = lookup(&overrides.config, key)
            .or_else(|| below.iter().flatten().find_map(|table| lookup(table.as_table()?, key)));
        let value = typed(value, replaced);
        assign(&mut overrides.config, key, value).map_err(|taken| {
            let message = format!("--set {}: `{taken}` is a value, not a table", key.join("."));
            Problem::new(Code::Failed, message)
        })?;
    }
    loaded.bind(chain.name, chain.id, &overrides).map_err(|error| {
        Problem::from_error(Code::Module, &error).help(
            "correct what is laid over its manifest: --set, --overrides, or its table in the configuration",
        )
    })
}

fn read(file: &Path) -> Result<Overrides, Problem> {
    let text = fs::read_to_string(file)
        .map_err(|error| file_problem(Code::Failed, "read the overrides", file, &error))?;
    toml::from_str(&text).map_err(|error| {
        let line = text[..error.span().map_or(0, |span| span.start)].matches('\n').count() + 1;
        let message = format!("{}:{line}: {}", file.display(), error.message());
        Problem::new(Code::Failed, message)
            .help("the keys are `config`, `addresses`, `deliver` and `http_hosts`")
    })
}

/// What the configuration lays over this manifest on this chain.
fn of_config(config: &Config, manifest: &Path, chain: &ChainName) -> Overrides {
    let same = |other: &Path| match (fs::canonicalize(other), fs::canonicalize(manifest)) {
        (Ok(other), Ok(this)) => other == this,
        _ => false,
    };
    let entry =
        config.modules.iter().find(|entry| entry.chains.contains(chain) && same(&entry.manifest));
    entry.map(|entry| entry.overrides.clone()).unwrap_or_default()
}

/// A value of the kind of the one it replaces: `5` stays text where text was.
fn typed(text: &str, replaced: Option<&Value>) -> Value {
    let as_text = || Value::String(text.to_owned());
    if matches!(replaced, Some(Value::String(_))) {
        let quoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        return quoted.map_or_else(as_text, |text| Value::String(text.to_owned()));
    }
    let parsed = format!("value = {text}").parse::<Table>().ok();
    let alone = parsed.filter(|table| table.len() == 1);
    alone.and_then(|mut table| table.remove("value")).unwrap_or_else(as_text)
}

fn lookup<'t>(table: &'t Table, key: &[String]) -> Option<&'t Value> {
    let (first, rest) = key.split_first()?;
    let value = table.get(first)?;
    if rest.is_empty() { Some(value) } else { lookup(value.as_table()?, rest) }
}

/// Puts a value into its table, which is made when it is not there. Fails with the name of what is
/// there and is no table.
fn assign(table: &mut Table, key: &[String], value: Value) -> Result<(), String> {
    let (first, rest) = key.split_first().expect("a key is not empty");
    if rest.is_empty() {
        table.insert(first.clone(), value);
        return Ok(());
    }
    let below = table.entry(first.clone()).or_insert_with(|| Value::Table(Table::new()));
    assign(below.as_table_mut().ok_or_else(|| first.clone())?, rest, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Vec<String> {
        text.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn a_value_is_of_the_kind_of_the_one_it_replaces() {
        let below: Table = "threshold = '1000'\ncount = 3\nlist = [1]".parse().unwrap();
        for (name, text, expected) in [
            ("threshold", "5", "'5'"),
            ("threshold", "\"5\"", "'5'"),
            ("count", "5", "5"),
            ("count", "five", "'five'"),
            ("list", "[2, 3]", "[2, 3]"),
            ("new", "true", "true"),
            ("new", "0xabc.eth", "'0xabc.eth'"),
            ("new", "1\nother = 2", "'''1\nother = 2'''"),
        ] {
            let expected: Table = format!("value = {expected}").parse().unwrap();
            let value = typed(text, lookup(&below, &key(name)));
            assert_eq!(value, expected["value"], "{name}={text}");
        }
    }

    #[test]
    fn a_dotted_key_reaches_into_tables() {
        let mut table: Table = "pause = { seconds = 5 }\nflat = 1".parse().unwrap();
        assign(&mut table, &key("pause.reason"), "quiet".into()).unwrap();
        assign(&mut table, &key("a.b"), 1.into()).unwrap();
        assert_eq!(lookup(&table, &key("pause.seconds")), Some(&5.into()));
        assert_eq!(lookup(&table, &key("pause.reason")), Some(&"quiet".into()));
        assert_eq!(lookup(&table, &key("a.b")), Some(&1.into()));
        assert_eq!(assign(&mut table, &key("flat.b"), 1.into()), Err("flat".to_owned()));
    }
}
