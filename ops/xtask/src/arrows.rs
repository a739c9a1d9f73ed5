//! Who may depend on whom.
//!
//! ```text
//! ops ──▶ admin, replay ──▶ dispatch ──▶ modules/host ──▶ log ◀── ingest
//! ```
//!
//! The compiler forbids circles but not arrows that point the wrong way. This does, and it
//! keeps each outside library where it belongs and the names of machines out of every file.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::shell;

/// The crates of ours that a crate may use in its own code. Tests may use any.
///
/// A new crate needs a line here: where it stands is a decision.
const ARROWS: &[(&str, &[&str])] = &[
    ("shepherd-log", &[]),
    ("shepherd-rpc", &["shepherd-log"]),
    ("shepherd-ingest", &["shepherd-log", "shepherd-rpc"]),
    ("shepherd-exchange", &["shepherd-log", "shepherd-rpc", "shepherd-ingest"]),
    ("shepherd-host", &["shepherd-log"]),
    ("shepherd-dispatch", &["shepherd-log", "shepherd-host", "shepherd-rpc"]),
    ("shepherd-replay", &["shepherd-log", "shepherd-rpc", "shepherd-host", "shepherd-dispatch"]),
    ("shepherd-admin", &["shepherd-log", "shepherd-host", "shepherd-dispatch"]),
    ("shepherd-sdk", &[]),
];

/// Outside libraries that few crates of ours may know.
const OWNERS: &[(&str, &[&str])] = &[
    ("fjall", &["shepherd-log"]),
    ("bincode", &["shepherd-log"]),
    ("wasmtime", &["shepherd-host"]),
    // The stand-in for the orderbook is a server by nature, and the scripted day receives webhooks;
    // of Shepherd itself, admin alone speaks HTTP to people.
    ("axum", &["shepherd-admin", "shepherd-orderbook", "shepherd-e2e"]),
    ("parquet", &["shepherd-exchange", "shepherd-replay"]),
];

/// What no tracked file says: paths of one person's machine, and the hosts of registries,
/// which a mirror replaces. In halves, because this file is tracked too.
const MACHINES: &[&str] = &[
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("registry.npm", "js.org"),
    concat!("index.cra", "tes.io"),
    concat!("static.cra", "tes.io"),
    concat!("deb.deb", "ian.org"),
    concat!("pypi", ".org"),
    concat!("files.python", "hosted.org"),
    // A download address in a package-lock.json.
    concat!("\"resol", "ved\":"),
];

/// Checks the workspace; all problems at once.
pub fn check(root: &Path) -> anyhow::Result<()> {
    let mut metadata = shell::cargo(root);
    metadata.args(["metadata", "--no-deps", "--format-version", "1", "--locked", "--offline"]);
    let metadata = serde_json::from_str(&shell::output(&mut metadata)?)?;
    let mut problems = wrong_arrows(root, &metadata)?;

    let mut tracked = Command::new("git");
    tracked.args(["ls-files", "-z"]).current_dir(root);
    for file in shell::output(&mut tracked)?.split_terminator('\0') {
        // Deleted and not yet committed, or no text.
        let Ok(text) = fs::read_to_string(root.join(file)) else { continue };
        problems.extend(machine_names(file, &text));
    }
    if !problems.is_empty() {
        bail!("the workspace has lost its shape:\n  {}", problems.join("\n  "));
    }
    Ok(())
}

/// What in `cargo metadata` the tables above do not allow.
fn wrong_arrows(root: &Path, metadata: &Value) -> anyhow::Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("metadata lists packages")?;
    let text = |value: &Value| value.as_str().map(str::to_owned).context("metadata has names");
    let mut ours = BTreeSet::new();
    for package in packages {
        ours.insert(text(&package["name"])?);
    }

    let mut problems = Vec::new();
    for package in packages {
        let name = text(&package["name"])?;
        let manifest = text(&package["manifest_path"])?;
        let folder = Path::new(&manifest).strip_prefix(root).unwrap_or(Path::new(&manifest));
        let allowed = match ARROWS.iter().find(|(crate_, _)| *crate_ == name) {
            Some((_, allowed)) => Some(*allowed),
            None if folder.starts_with("ops") => None,
            None if folder.starts_with("modules") => Some(&["shepherd-sdk"][..]),
            None => {
                problems.push(format!("{name} has no line in ops/xtask/src/arrows.rs"));
                continue;
            }
        };
        let dependencies = package["dependencies"].as_array().context("metadata has arrows")?;
        for dependency in dependencies.iter().filter(|one| one["kind"] != "dev") {
            let to = text(&dependency["name"])?;
            if let Some((_, owners)) = OWNERS.iter().find(|(library, _)| *library == to)
                && !owners.contains(&name.as_str())
            {
                let owners = owners.join(" and ");
                problems.push(format!("{name} depends on {to}, which {owners} alone may know"));
            }
            let forbidden = allowed.is_some_and(|allowed| !allowed.contains(&to.as_str()));
            if ours.contains(&to) && forbidden {
                problems.push(format!("{name} depends on {to}: that arrow points the wrong way"));
            }
        }
    }
    Ok(problems)
}

/// Where a file names a machine.
fn machine_names(file: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        for name in MACHINES.iter().filter(|name| line.contains(**name)) {
            problems.push(format!("{file}:{number} contains {name}"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// One crate with one arrow, beside the crate it points to.
    fn check(from: (&str, &str), to: &str, kind: Value, problems: usize) {
        let (name, folder) = from;
        let manifest = format!("/here/{folder}/Cargo.toml");
        let metadata = json!({ "packages": [
            {
                "name": name,
                "manifest_path": manifest,
                "dependencies": [{ "name": to, "kind": kind }],
            },
            { "name": "shepherd-log", "manifest_path": "/here/log/Cargo.toml", "dependencies": [] },
        ]});
        let found = wrong_arrows(Path::new("/here"), &metadata).expect("metadata as cargo has it");
        assert_eq!(found.len(), problems, "{name} → {to}: {found:?}");
    }

    #[test]
    fn arrows() {
        check(("shepherd-host", "modules/host"), "shepherd-log", Value::Null, 0);
        check(("shepherd-cli", "ops/shepherd"), "shepherd-log", Value::Null, 0);
        check(("shepherd-sdk", "modules/sdk"), "shepherd-log", Value::Null, 1);
        check(("shepherd-sdk", "modules/sdk"), "shepherd-log", json!("build"), 1);
        check(("shepherd-sdk", "modules/sdk"), "shepherd-log", json!("dev"), 0);
        check(("shepherd-any-module", "modules/any"), "shepherd-log", Value::Null, 1);
        check(("shepherd-new", "new"), "serde", Value::Null, 1);
    }

    #[test]
    fn libraries_stay_with_their_owner() {
        check(("shepherd-host", "modules/host"), "wasmtime", Value::Null, 0);
        check(("shepherd-dispatch", "dispatch"), "wasmtime", Value::Null, 1);
        check(("shepherd-cli", "ops/shepherd"), "fjall", Value::Null, 1);
        check(("shepherd-cli", "ops/shepherd"), "serde", Value::Null, 0);
        check(("shepherd-orderbook", "ops/orderbook"), "axum", Value::Null, 0);
        check(("shepherd-cli", "ops/shepherd"), "axum", Value::Null, 1);
    }

    #[test]
    fn a_machine_is_found_with_its_line() {
        let text = format!("fine\nsee {}somebody\n", MACHINES[0]);
        let found = machine_names("README.md", &text);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("README.md:2 "), "{found:?}");
        assert!(machine_names("README.md", "in the root of the work tree/\n").is_empty());
    }
}
