//! What a fresh machine needs: `cargo xtask COMMAND`.
//!
//! It is the first thing that is compiled on a new machine and the only thing that people and
//! CI both call, so it depends on little and does not know the crates it builds.

mod arrows;
mod children;
mod demo;
mod e2e;
mod guests;
mod nightly;
mod setup;
mod shell;
mod test;
mod tutorial;

use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};

use clap::{Parser, Subcommand};

/// Set up, check, show and measure Shepherd.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing: a compiler for modules, anvil, solc; compile the contracts.
    Setup,
    /// Show it all at work: a chain, Shepherd on it, and what its modules computed.
    Demo(demo::Options),
    /// Run every check that CI runs.
    Test,
    /// Run the tests that take too long for every change, each with many more seeds.
    Nightly,
    /// Build the modules to WebAssembly components in target/modules.
    Guests,
    /// Build the module in a folder to the component that its module.toml names.
    Guest {
        /// The folder of its Cargo.toml and its module.toml, in this tree or anywhere else.
        folder: PathBuf,
    },
    /// Follow ops/docs/module-tutorial.md word for word.
    Tutorial,
    /// Build the benchmarks in release and run them; what follows `--` is theirs.
    Bench {
        /// Arguments of the benchmarks.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Live through a day of the modules on a devnet, and write ops/docs/reports/e2e.md.
    E2e,
    /// Check who depends on whom, and that no file names a machine.
    CheckArrows,
}

fn main() -> ExitCode {
    let root = root();
    let outcome = match Arguments::parse().command {
        Command::Setup => setup::setup(&root),
        Command::Demo(options) => demo::demo(&root, &options),
        Command::Test => test::test(&root),
        Command::Nightly => nightly::nightly(&root),
        Command::Guests => guests(&root),
        Command::Guest { folder } => guest(&root, &folder),
        Command::Tutorial => tutorial(&root),
        Command::Bench { arguments } => bench(&root, &arguments),
        Command::E2e => e2e::e2e(&root, &root.join(e2e::REPORT)),
        Command::CheckArrows => arrows::check(&root),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn guests(root: &Path) -> anyhow::Result<()> {
    setup::setup(root)?;
    for built in guests::build(root)? {
        let component = built.component.strip_prefix(root).unwrap_or(&built.component);
        println!("{:<20} {}", built.name, component.display());
    }
    Ok(())
}

fn guest(root: &Path, folder: &Path) -> anyhow::Result<()> {
    setup::setup(root)?;
    let built = guests::build_one(root, folder)?;
    println!("{:<20} {}", built.name, built.component.display());
    Ok(())
}

fn tutorial(root: &Path) -> anyhow::Result<()> {
    setup::setup(root)?;
    tutorial::follow(root)
}

fn bench(root: &Path, arguments: &[String]) -> anyhow::Result<()> {
    setup::setup(root)?;
    guests::build(root)?;
    // The daemon too: some figures are of a whole process, from kill to first commit.
    let mut build = shell::cargo(root);
    let packages = ["shepherd-cli", "shepherd-node", "shepherd-bench"];
    build.args(["build", "--release"]).args(packages.map(|name| format!("--package={name}")));
    shell::run(&mut build)?;
    shell::run(process::Command::new(root.join("target/release/shepherd-bench")).args(arguments))
}

/// The workspace's folder.
fn root() -> PathBuf {
    let ops = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("ops/xtask is in ops");
    ops.parent().expect("ops is in the workspace").to_owned()
}
