//! What a fresh machine needs: `cargo xtask COMMAND`.
//!
//! It is the first thing that is compiled on a new machine and the only thing that people and
//! CI both call, so it depends on little and does not know the crates it builds.

mod arrows;
mod setup;
mod shell;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

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
    /// Run every check that CI runs.
    Test,
    /// Check who depends on whom, and that no file names a machine.
    CheckArrows,
}

fn main() -> ExitCode {
    let root = root();
    let outcome = match Arguments::parse().command {
        Command::Setup => setup::setup(&root),
        Command::Test => test::test(&root),
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

/// The workspace's folder.
fn root() -> PathBuf {
    let ops = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("ops/xtask is in ops");
    ops.parent().expect("ops is in the workspace").to_owned()
}
