//! The command line, as people type it.

mod backtest;
mod explain;
mod journal;
mod module_test;
mod record;
mod replay;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use shepherd_admin::query;
use shepherd_ingest::Start;
use shepherd_log::{ChainName, EffectId, LaneId, ModuleName};

pub use self::{
    backtest::{Assignment, Backtest, Diff, History, Outside, Profile, Setting, WhatIf},
    explain::Explain,
    journal::{Export, Find, Format, Import, JournalCommand, OneChain, Tail, Verify},
    module_test::ModuleTest,
    record::{Cut, RecordCommand},
    replay::{Rebuild, ReplayCommand, Show, VerifyLanes},
};
use crate::{config, exit, scaffold};

/// Runs on-chain automation that must not miss anything.
///
/// Shepherd writes every block and log of an EVM chain into a journal, feeds sandboxed
/// WebAssembly modules from it, and commits each module's state together with its cursor.
#[derive(Debug, Parser)]
#[command(name = "shepherd", version, after_long_help = exit::TABLE, arg_required_else_help = true)]
pub struct Cli {
    /// The configuration file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "SHEPHERD_CONFIG",
        default_value = "shepherd.toml"
    )]
    pub config: PathBuf,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a commented configuration file
    #[command(after_help = "\
Example:
  shepherd init --config /etc/shepherd/shepherd.toml

An existing file is never overwritten.")]
    Init,

    /// Test the configuration, the modules and the endpoints: all problems at once
    #[command(after_help = "\
Example:
  shepherd check && shepherd run

Ends with 0, or with the problems' exit code (see `shepherd --help`); with 1 when they are of
several kinds. Changes nothing: the data directory is not opened.")]
    Check(Json),

    /// Follow the chains and run the modules until SIGINT or SIGTERM
    #[command(after_help = "\
Example:
  SHEPHERD_CONFIG=/etc/shepherd/shepherd.toml shepherd run

The first signal finishes or drops the step in hand and stops within 30 seconds; a second one
stops at once. Neither loses anything.")]
    Run,

    /// Fill a chain's journal with its past, without running modules
    #[command(after_help = "\
Example:
  shepherd ingest --chain mainnet --from -7d
  shepherd ingest --chain mainnet --from 21000000 --to 2026-11-01

An empty journal begins at --from, one that holds blocks goes on after its last one. On a terminal
a bar shows the progress, elsewhere one JSON object every two seconds. Ctrl-C stops it at any moment
and ends with 11; the same command, or `shepherd run`, goes on from there. Needs the data directory
for itself: a running daemon fills gaps by itself.")]
    Ingest(Ingest),

    /// What it will cost to bring the journals to where their chains are
    #[command(after_help = "\
Example:
  shepherd resume --plan --chain mainnet

Asks for a few blocks of each gap and estimates the rest from them. Does nothing else: `shepherd run`
resumes by itself.")]
    Resume(Resume),

    /// Where each lane is, and why
    #[command(subcommand)]
    Cursor(CursorCommand),

    /// The records of a chain
    #[command(subcommand)]
    Journal(JournalCommand),

    /// The branches that chains took back
    #[command(after_help = "\
Example:
  shepherd reorgs --chain sepolia --last 5

Abandoned blocks stay in the journal. TIME is when the abandoned head was made: the reorg came
after that. Asks the running daemon, or reads the data directory when none is running.")]
    Reorgs(Reorgs),

    /// What lanes want done outside and nothing has come of yet
    #[command(subcommand)]
    Outbox(OutboxCommand),

    /// Modules before they run
    #[command(subcommand)]
    Module(ModuleCommand),

    /// What a module computed
    #[command(subcommand)]
    State(StateCommand),

    /// Why an order was placed or a webhook called: what the module was given, read, and wrote
    #[command(after_help = "\
Example:
  shepherd explain 17.0 --lane twap-monitor@mainnet
  shepherd explain 0x… --json

17.0 is the first effect of record 17, as `outbox list` and the log write it; an order is also found by its
UID. The lane is run again up to that record, in a store of its own and with the answers on its tape. Needs
the data directory for itself: stop the daemon first.")]
    Explain(Explain),

    /// What a module takes: fuel and time for each block, and the blocks that take most
    #[command(after_help = "\
Example:
  shepherd profile modules/twap-monitor --chain mainnet --last 7d --save before.json
  shepherd profile modules/twap-monitor --chain mainnet --last 7d --compare before.json

Runs the module over the past as `replay backtest` does. Fuel is the same on every machine. With --compare
ends with 12 when it takes more fuel than it may: over the same blocks, in all, at p99 or in the hottest block.")]
    Profile(Box<Profile>),

    /// Small pieces of the past in files, for tests and for people
    #[command(subcommand)]
    Record(RecordCommand),

    /// Run history again: to prove a lane, to rebuild it, to try a module out
    #[command(subcommand)]
    Replay(ReplayCommand),
}

#[derive(Debug, Subcommand)]
pub enum CursorCommand {
    /// One line for each lane: its state, its cursor and how far it is behind
    #[command(after_help = "\
Example:
  shepherd cursor list --json | jq '.cursors[] | select(.lag_records > 0)'

Asks the running daemon, or reads the data directory when none is running.")]
    List(Json),
}

#[derive(Debug, Subcommand)]
pub enum OutboxCommand {
    /// Orders and webhooks that wait, were sent without an answer, or whose block was taken back
    #[command(after_help = "\
Example:
  shepherd outbox list twap-monitor@sepolia --json | jq '.[].effects[].key'

Asks the running daemon, or reads the data directory when none is running.")]
    List(OutboxList),

    /// One effect: what is sent, and what came of it
    #[command(after_help = "\
Example:
  shepherd outbox show twap-monitor@sepolia 17.0

17.0 is the first effect of record 17, as `outbox list` and the log write it.")]
    Show(OutboxShow),
}

#[derive(Debug, Subcommand)]
pub enum ModuleCommand {
    /// What a module imports and is granted, its size and its sha256
    #[command(after_help = "\
Example:
  shepherd module inspect modules/token-ledger/module.toml

With the module's manifest the imports are checked against what it grants; a .wasm file alone
shows the imports.")]
    Inspect(Inspect),

    /// Write a small module that works, to be changed into another one
    #[command(after_help = "\
Example:
  shepherd module new whale-watch

Writes a crate with its manifest, tests and README into a new folder. In a checkout of Shepherd the
SDK is found. ops/docs/module-tutorial.md goes on from here.")]
    New(NewModule),

    /// Run the recordings beside a module again, and compare with what they have to come to
    #[command(after_help = "\
Example:
  shepherd module test modules/twap-monitor
  shepherd module test modules/twap-monitor --bless

Each recordings/NAME.jsonl, as `record cut` makes them, is run with its own tape; recordings/NAME.expected.json
says what has to come of it: effects, state, and fuel within a tolerance. Ends with 12 when something else
comes of one.")]
    Test(ModuleTest),
}

#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// The entries of a lane's state, in the order of their keys
    #[command(after_help = "\
Example:
  shepherd state list token-ledger@sepolia --prefix 0x62 --limit 20")]
    List(State),
}

#[derive(Args, Debug)]
pub struct Json {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Ingest {
    /// The chain; needed when several are configured
    #[arg(long, value_name = "NAME")]
    pub chain: Option<ChainName>,

    /// The first block of an empty journal: a number, an age such as -7d, a day or a time; what the
    /// configuration says when left out
    #[arg(long, value_name = "BLOCK|-AGE|DATE", allow_hyphen_values = true, value_parser = place)]
    pub from: Option<Start>,

    /// The last block; the newest when left out
    #[arg(long, value_name = "BLOCK|-AGE|DATE", allow_hyphen_values = true, value_parser = place)]
    pub to: Option<Start>,
}

#[derive(Args, Debug)]
pub struct Resume {
    /// Show the plan; needed, because there is nothing else to do here
    #[arg(long)]
    pub plan: bool,

    /// The chain; all of them when left out
    #[arg(long, value_name = "NAME")]
    pub chain: Option<ChainName>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Reorgs {
    /// The chain; all of them when left out
    #[arg(long, value_name = "NAME")]
    pub chain: Option<ChainName>,

    /// How many of each chain at most, the newest
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub last: u32,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct OutboxList {
    /// The lane, as MODULE@CHAIN; all of them when left out
    pub lane: Option<LaneId>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct OutboxShow {
    /// The lane, as MODULE@CHAIN
    pub lane: LaneId,

    /// The effect, as RECORD.POSITION
    #[arg(value_parser = query::effect_id)]
    pub effect: EffectId,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Inspect {
    /// A module.toml or a .wasm component
    pub file: PathBuf,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct NewModule {
    /// What it is called: in lanes, metrics and as a crate
    #[arg(value_parser = scaffold::name)]
    pub name: ModuleName,

    /// The folder to write; NAME when left out
    #[arg(long, value_name = "DIR")]
    pub path: Option<PathBuf>,

    /// The SDK: the folder modules/sdk of a checkout; that around DIR or here when left out
    #[arg(long, value_name = "DIR")]
    pub sdk: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct State {
    /// The lane, as MODULE@CHAIN
    pub lane: LaneId,

    /// Only keys that start with these bytes
    #[arg(long, value_name = "0xHEX", default_value = "0x", value_parser = hex_bytes, hide_default_value = true)]
    pub prefix: Bytes,

    /// Only keys after this one: the way to the next page
    #[arg(long, value_name = "0xHEX", value_parser = hex_bytes)]
    pub after: Option<Bytes>,

    /// How many entries at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A place in a chain, as the configuration takes it for `start_block`.
fn place(text: &str) -> Result<Start, String> {
    config::value::start(text).map_err(words)
}

/// What is wrong and what to write instead, for clap to show.
fn words(wrong: config::Wrong) -> String {
    match wrong.help {
        None => wrong.message,
        Some(help) => format!("{}: {help}", wrong.message),
    }
}

/// Bytes that were written as 0x and hexadecimal digits.
pub type Bytes = std::sync::Arc<[u8]>;

fn hex_bytes(text: &str) -> Result<Bytes, String> {
    // Without the prefix `10` could be meant as a number.
    let digits = text.strip_prefix("0x").ok_or("write bytes as 0x and hexadecimal digits")?;
    hex::decode(digits).map(Bytes::from).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn visit(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if command.get_subcommands().next().is_none() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example:\n  "), "{path} has no example");
                assert!(help.contains("shepherd"), "{path}");
            }
            for command in command.get_subcommands() {
                visit(command, &path);
            }
        }
        visit(&Cli::command(), "");
    }
}
