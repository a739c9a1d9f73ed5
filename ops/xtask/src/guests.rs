//! Modules: from Rust to components, ours in `target/modules`.
//!
//! ```text
//! modules/NAME ──cargo, wasm32──▶ core module ──wit-component──▶ target/modules/NAME.wasm
//! any folder ─────────────────────────────────────────────▶ what its module.toml names
//! ```
//!
//! The standard library for wasm32 comes from the rustup toolchain when it has that target, and
//! is otherwise built from the sources of Debian's `rustc-web`. Nothing here downloads a target:
//! machines without a route to the toolchain's server build modules too.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use wit_component::ComponentEncoder;

use crate::shell;

const TARGET: &str = "wasm32-unknown-unknown";

/// Every module in the tree: its name, its package, and its library's file name.
const MODULES: [(&str, &str, &str); 7] = [
    ("token-ledger", "shepherd-token-ledger", "shepherd_token_ledger"),
    ("balance-tracker", "shepherd-balance-tracker", "shepherd_balance_tracker"),
    ("ethflow-watcher", "shepherd-ethflow-watcher", "shepherd_ethflow_watcher"),
    ("price-alert", "shepherd-price-alert", "shepherd_price_alert"),
    ("twap-monitor", "shepherd-twap-monitor", "shepherd_twap_monitor"),
    ("stop-loss", "shepherd-stop-loss", "shepherd_stop_loss"),
    ("hostile", "shepherd-fixture-hostile", "shepherd_fixture_hostile"),
];

/// A component that is ready to be loaded.
#[derive(Clone, Debug)]
pub struct Built {
    /// The module's name.
    pub name: String,
    /// Its component.
    pub component: PathBuf,
}

/// Builds every module. When this returns, the components are in `target/modules`.
pub fn build(root: &Path) -> anyhow::Result<Vec<Built>> {
    let target_dir = target_dir(root);
    let mut cargo = Toolchain::find()?.cargo(root, &target_dir)?;
    for (_, package, _) in MODULES {
        cargo.args(["--package", package]);
    }
    let status = cargo.status().context("cargo did not start")?;
    ensure!(status.success(), "the modules did not compile: see above");

    let components = root.join("target/modules");
    let cores = target_dir.join(TARGET).join("guest");
    let mut built = Vec::new();
    for (name, _, library) in MODULES {
        let core = cores.join(library).with_extension("wasm");
        let component = components.join(name).with_extension("wasm");
        componentize(&core, &component).with_context(|| format!("{name} is not a module"))?;
        built.push(Built { name: name.to_owned(), component });
    }
    Ok(built)
}

/// Builds the module in a folder, which need not be in the tree. When this returns, the component
/// is where the folder's `module.toml` says.
pub fn build_one(root: &Path, folder: &Path) -> anyhow::Result<Built> {
    let manifest = folder.join("module.toml");
    let text = fs::read_to_string(&manifest)
        .with_context(|| format!("{} cannot be read", manifest.display()))?;
    let table: toml::Table =
        text.parse().with_context(|| format!("{} is no TOML", manifest.display()))?;
    let text = |key: &str| {
        let text = table.get(key).and_then(toml::Value::as_str);
        text.with_context(|| format!("{} has no `{key}`", manifest.display()))
    };
    let (name, component) = (text("name")?, folder.join(text("component")?));

    let crate_ = folder.join("Cargo.toml").canonicalize();
    let crate_ = crate_.with_context(|| format!("there is no crate in {}", folder.display()))?;
    let mut cargo = Toolchain::find()?.cargo(root, &target_dir(root))?;
    cargo.args(["--message-format", "json-render-diagnostics", "--manifest-path"]).arg(&crate_);
    let output = cargo.stderr(Stdio::inherit()).output().context("cargo did not start")?;
    ensure!(output.status.success(), "{name} did not compile: see above");
    let core = core_module(&String::from_utf8(output.stdout)?, &crate_)?.with_context(|| {
        format!("{name} makes no component: add `crate-type = [\"cdylib\", \"rlib\"]` to [lib]")
    })?;
    componentize(&core, &component).with_context(|| format!("{name} is not a module"))?;
    Ok(Built { name: name.to_owned(), component })
}

/// The core module that cargo says it has made from a crate.
fn core_module(messages: &str, crate_: &Path) -> anyhow::Result<Option<PathBuf>> {
    for message in messages.lines() {
        let message: Value = serde_json::from_str(message)?;
        let of_crate = message["manifest_path"].as_str().map(Path::new) == Some(crate_);
        if message["reason"] != "compiler-artifact" || !of_crate {
            continue;
        }
        let files = message["filenames"].as_array().into_iter().flatten();
        let mut files = files.filter_map(Value::as_str).map(PathBuf::from);
        if let Some(core) = files.find(|file| file.extension() == Some(OsStr::new("wasm"))) {
            return Ok(Some(core));
        }
    }
    Ok(None)
}

/// Where modules are compiled: one place, so that the standard library is compiled once.
fn target_dir(root: &Path) -> PathBuf {
    root.join("target/guest")
}

/// Wraps a core module into a component. A reader of `component` sees the old file or the new.
fn componentize(core: &Path, component: &Path) -> anyhow::Result<()> {
    if let Some(folder) = component.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("{} could not be created", folder.display()))?;
    }
    let bytes = fs::read(core).with_context(|| format!("{} cannot be read", core.display()))?;
    let encoded = ComponentEncoder::default().validate(true).module(&bytes)?.encode()?;
    // Left alone when nothing changed, so that nothing that depends on it is made again.
    if fs::read(component).is_ok_and(|old| old == encoded) {
        return Ok(());
    }
    let unfinished = component.with_extension("wasm.part");
    fs::write(&unfinished, encoded)
        .with_context(|| format!("{} cannot be written", unfinished.display()))?;
    fs::rename(&unfinished, component)
        .with_context(|| format!("{} cannot be replaced", component.display()))
}

/// Where the standard library for wasm32 comes from.
enum Toolchain {
    /// The toolchain this was started with has it.
    Installed,
    /// It is built from the sources Debian ships with its own compiler.
    Debian { rustc: PathBuf, linker: PathBuf },
}

impl Toolchain {
    fn find() -> anyhow::Result<Toolchain> {
        let own = Sysroot::of(Path::new("rustc"))?;
        if own.rustlib().join(TARGET).join("lib").is_dir() {
            return Ok(Toolchain::Installed);
        }
        let rustc = PathBuf::from("/usr/bin/rustc");
        let debian = rustc.is_file().then(|| Sysroot::of(&rustc)).transpose()?;
        let Some(debian) = debian.filter(Sysroot::has_sources) else {
            bail!(
                "nothing here compiles modules to WebAssembly. Run one of\n  \
                 rustup target add {TARGET}\n  \
                 apt-get install --no-install-recommends rustc-web rust-web-src rust-web-llvm\n\
                 and try again"
            );
        };
        let linker = own.linker().or_else(|| debian.linker());
        let linker = linker.context(
            "rust-lld is in neither toolchain. Run\n  rustup component add llvm-tools\nor\n  \
             apt-get install lld-22\nand try again",
        )?;
        Ok(Toolchain::Debian { rustc, linker })
    }

    /// A build of modules, still without saying which.
    fn cargo(&self, root: &Path, target_dir: &Path) -> anyhow::Result<Command> {
        let mut command = shell::cargo(root);
        // Whoever runs us may have set these for another compiler or another target.
        for variable in [
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_TARGET_DIR",
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS",
            "RUSTFLAGS",
        ] {
            command.env_remove(variable);
        }
        command.args(["build", "--profile", "guest", "--target", TARGET, "--target-dir"]);
        command.arg(target_dir);
        let mut sysroot = Sysroot::of(Path::new("rustc"))?;
        if let Toolchain::Debian { rustc, linker } = self {
            sysroot = Sysroot::of(rustc)?;
            command
                .arg("-Zbuild-std=std,panic_abort")
                .env("RUSTC", rustc)
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
        let cargo_home = cargo_home()?;
        let registries = cargo_home.join("registry/src");
        let mut paths =
            vec![(cargo_home, "cargo"), (root.to_owned(), "shepherd"), (sysroot.path, "rust")];
        // Their folders tell which registry, or mirror, the sources came from.
        for registry in fs::read_dir(registries).into_iter().flatten() {
            paths.push((registry?.path(), "crates"));
        }
        command.env("CARGO_ENCODED_RUSTFLAGS", remapped(&paths));
        Ok(command)
    }
}

/// Flags that keep the machine's paths out of the components: panic messages name source files,
/// and the same source should give the same bytes, and so the same sha256, wherever it is built.
///
/// Where two of the paths fit, the compiler takes the later.
fn remapped(paths: &[(PathBuf, &str)]) -> OsString {
    let mut flags = OsString::new();
    for (path, name) in paths {
        if !flags.is_empty() {
            flags.push("\u{1f}");
        }
        flags.push("--remap-path-prefix=");
        flags.push(path);
        flags.push("=");
        flags.push(name);
    }
    flags
}

fn cargo_home() -> anyhow::Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = std::env::home_dir().context("there is no home directory")?;
    Ok(home.join(".cargo"))
}

/// Where a compiler keeps its libraries.
struct Sysroot {
    path: PathBuf,
    host: String,
}

impl Sysroot {
    fn of(rustc: &Path) -> anyhow::Result<Sysroot> {
        let path = ask(rustc, &["--print", "sysroot"])?;
        let version = ask(rustc, &["--version", "--verbose"])?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        let host = host.with_context(|| format!("{} names no host", rustc.display()))?;
        Ok(Sysroot { path: path.trim().into(), host: host.to_owned() })
    }

    fn rustlib(&self) -> PathBuf {
        self.path.join("lib/rustlib")
    }

    fn has_sources(&self) -> bool {
        self.rustlib().join("src/rust/library/Cargo.lock").is_file()
    }

    fn linker(&self) -> Option<PathBuf> {
        let linker = self.rustlib().join(&self.host).join("bin/rust-lld");
        linker.is_file().then_some(linker)
    }
}

fn ask(rustc: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(rustc)
        .args(arguments)
        .output()
        .with_context(|| format!("{} did not start", rustc.display()))?;
    ensure!(output.status.success(), "{} {} failed", rustc.display(), arguments.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_module_is_the_one_of_the_crate_that_was_asked_for() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/sdk/Cargo.toml","filenames":["/t/sdk.wasm"]}
{"reason":"compiler-artifact","manifest_path":"/a/Cargo.toml","filenames":["/t/liba.rlib","/t/a.wasm"]}
{"reason":"build-finished","success":true}"#;
        let check = |crate_: &str, expected: Option<&str>| {
            let found = core_module(messages, Path::new(crate_)).unwrap();
            assert_eq!(found.as_deref(), expected.map(Path::new), "{crate_}");
        };
        check("/a/Cargo.toml", Some("/t/a.wasm"));
        check("/b/Cargo.toml", None);
    }
}
