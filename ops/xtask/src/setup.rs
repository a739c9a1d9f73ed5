//! Installs what is missing, and does nothing when nothing is.
//!
//! | what | for | from | into |
//! |---|---|---|---|
//! | a standard library for wasm32 | modules | the rustup target if it is there, else Debian packages | the system |
//! | anvil, solc, contracts of CoW Protocol and Safe | devnet, tests | npm, at the versions of `ops/xtask/tools/package-lock.json` | `target/tools` |
//! | `contracts.json` | devnet, tests | `ops/devnet/contracts` | `target/devnet` |

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, anyhow, bail, ensure};

use crate::shell;

/// Debian's own Rust for WebAssembly. It carries its sources, from which the standard
/// library is built together with a module.
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "rust-web-llvm"];

/// Node.js: solc 0.8 runs on less, npm's lock file format asks for it.
const NODE_MAJOR_MIN: u32 = 20;

/// Installs what is missing. Two at a time wait for each other.
pub fn setup(root: &Path) -> anyhow::Result<()> {
    let target = root.join("target");
    fs::create_dir_all(&target)?;
    let lock = File::create(target.join(".setup-lock"))?;
    lock.lock().context("waiting for another set-up")?;

    wasm_compiler()?;
    tools(root)?;
    contracts(root)
}

/// A way to compile for wasm32-unknown-unknown. Never calls rustup: whether to download a
/// toolchain is the decision of the person whose machine it is.
fn wasm_compiler() -> anyhow::Result<()> {
    let sysroot = shell::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let target = Path::new(&sysroot).join("lib/rustlib/wasm32-unknown-unknown/lib");
    if target.is_dir() || DEBIAN_PACKAGES.iter().all(|package| debian_has(package)) {
        return Ok(());
    }
    println!("setup: installing {} (435 MB)", DEBIAN_PACKAGES.join(", "));
    debian_install().map_err(|error| {
        anyhow!(
            "{error:#}\nModules need a standard library for wasm32. One of these installs it:\n  \
             rustup target add wasm32-unknown-unknown\n  \
             apt-get install --no-install-recommends {}   # Debian 12, as root",
            DEBIAN_PACKAGES.join(" ")
        )
    })
}

fn debian_install() -> anyhow::Result<()> {
    ensure!(shell::on_path("apt-get"), "there is no apt-get on this machine");
    let apt = |arguments: &[&str]| -> anyhow::Result<()> {
        let mut command = env_as_root()?;
        command
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
            // Another installation may hold the lock for a while.
            .args(["-qq", "-o", "DPkg::Lock::Timeout=300"])
            .args(arguments)
            .stdin(Stdio::null());
        shell::run(&mut command)
    };
    apt(&["update"])?;
    apt(&[&["install", "-y", "--no-install-recommends"], &DEBIAN_PACKAGES[..]].concat())
}

fn debian_has(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${db:Status-Status}", package]);
    shell::output(&mut query).is_ok_and(|status| status == "installed")
}

/// `env` as root, for a command to follow: by itself if we are root, else through sudo if
/// that asks for no password.
fn env_as_root() -> anyhow::Result<Command> {
    if shell::output(Command::new("id").arg("-u"))? == "0" {
        return Ok(Command::new("env"));
    }
    if shell::output(Command::new("sudo").args(["-n", "true"])).is_ok() {
        let mut command = Command::new("sudo");
        command.args(["-n", "env"]);
        return Ok(command);
    }
    bail!("installing Debian packages needs root, and sudo is not there or asks for a password")
}

/// anvil, solc and the contracts that are published, exactly as locked.
fn tools(root: &Path) -> anyhow::Result<()> {
    let [wanted, tools] = [root.join("ops/xtask/tools"), root.join("target/tools")];
    let lock = fs::read(wanted.join("package-lock.json"))?;
    // Written last, so it is there only after a whole installation of exactly this lock.
    let installed = tools.join("installed.json");
    if fs::read(&installed).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    node_is_there()?;
    println!("setup: installing anvil, solc and published contracts into target/tools");
    fs::create_dir_all(&tools)?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(wanted.join(file), tools.join(file))?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
        // The contracts' packages ask for a JavaScript library that nothing here loads.
        .arg("--legacy-peer-deps");
    shell::run(npm.current_dir(&tools).stdin(Stdio::null()))?;
    fs::write(&installed, lock)?;
    Ok(())
}

fn node_is_there() -> anyhow::Result<()> {
    let wanted = format!("Node.js {NODE_MAJOR_MIN} or later with npm is needed for the devnet");
    let version = shell::output(Command::new("node").arg("--version")).context(wanted.clone())?;
    let major = version.trim_start_matches('v').split('.').next();
    let major: Option<u32> = major.and_then(|major| major.parse().ok());
    ensure!(major >= Some(NODE_MAJOR_MIN), "{wanted}; this one is {version}");
    ensure!(shell::on_path("npm"), wanted);
    Ok(())
}

/// The devnet's contracts, compiled again when one of them or the compiler is newer.
fn contracts(root: &Path) -> anyhow::Result<()> {
    let [sources, tools] = [root.join("ops/devnet/contracts"), root.join("target/tools")];
    let out = root.join("target/devnet/contracts.json");
    let mut newest = modified(&tools.join("installed.json"))?;
    for source in fs::read_dir(&sources)? {
        newest = newest.max(modified(&source?.path())?);
    }
    if modified(&out).is_ok_and(|compiled| compiled > newest) {
        return Ok(());
    }
    println!("setup: compiling the devnet's contracts");
    fs::create_dir_all(root.join("target/devnet"))?;
    let mut node = Command::new("node");
    shell::run(node.arg(sources.join("compile.js")).arg(&tools).arg(&out))
}

fn modified(file: &Path) -> anyhow::Result<SystemTime> {
    let metadata = fs::metadata(file).with_context(|| format!("looking at {}", file.display()))?;
    Ok(metadata.modified()?)
}
