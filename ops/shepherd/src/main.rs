//! The shepherd binary.

mod archive;
mod check;
mod clean;
mod cli;
mod config;
mod daemon;
mod data;
mod destinations;
mod endpoints;
mod exchange;
mod exit;
mod explain;
mod find;
mod history;
mod init;
mod inspect;
mod mask;
mod module_test;
mod modules;
mod progress;
mod record;
mod rehearsal;
mod reindex;
mod reorgs;
mod replay;
mod retention;
mod run;
mod scaffold;
mod show;
mod signals;
mod stat;
mod summary;
mod telemetry;
mod verify;
mod view;

use std::process::ExitCode;

/// A lane is many small keys and values, and glibc's allocator took a third of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use clap::Parser;

use crate::{
    cli::{
        Cli, Command, CursorCommand, JournalCommand, ModuleCommand, OutboxCommand, RecordCommand,
        ReplayCommand, StateCommand,
    },
    exit::Failure,
};

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.code() as u8)
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    if let Command::Run = cli.command {
        return run::run(config::load(&cli.config)?);
    }
    telemetry::for_command();
    shepherd_replay::on_write_failure(exit::on_write_failure);
    let config = || config::load(&cli.config);
    match &cli.command {
        Command::Run => unreachable!("returned above"),
        Command::Init => init::init(&cli.config),
        Command::Check(args) => check::check(&cli.config, args),
        Command::Cursor(CursorCommand::List(args)) => data::cursors(&config()?, args),
        Command::Journal(JournalCommand::Tail(args)) => data::tail(&config()?, args),
        Command::Journal(JournalCommand::Verify(args)) => verify::verify(&config()?, args),
        Command::Journal(JournalCommand::Find(args)) => find::find(&config()?, args),
        Command::Journal(JournalCommand::Reindex(args)) => reindex::reindex(&config()?, args),
        Command::Journal(JournalCommand::Export(args)) => exchange::export(&config()?, args),
        Command::Journal(JournalCommand::Import(args)) => exchange::import(&config()?, args),
        Command::Journal(JournalCommand::Stat(args)) => stat::stat(&config()?, args),
        Command::Ingest(args) => history::ingest(&config()?, args),
        Command::Resume(args) => history::resume(&config()?, args),
        Command::Reorgs(args) => reorgs::reorgs(&config()?, args),
        Command::Outbox(OutboxCommand::List(args)) => data::outboxes(&config()?, args),
        Command::Outbox(OutboxCommand::Show(args)) => data::effect(&config()?, args),
        Command::Module(ModuleCommand::Inspect(args)) => inspect::inspect(args),
        Command::Module(ModuleCommand::New(args)) => scaffold::new(args),
        Command::Module(ModuleCommand::Test(args)) => module_test::test(args),
        Command::Explain(args) => explain::explain(&config()?, args),
        Command::Replay(ReplayCommand::Verify(args)) => replay::verify::verify(&config()?, args),
        Command::Replay(ReplayCommand::Backtest(args)) => {
            replay::backtest::backtest(&cli.config, args)
        }
        Command::Replay(ReplayCommand::Diff(args)) => replay::diff::diff(&cli.config, args),
        Command::Record(RecordCommand::Cut(args)) => record::cut(&config()?, args),
        Command::Profile(args) => replay::profile::profile(&cli.config, args),
        Command::Replay(ReplayCommand::Rebuild(args)) => replay::rebuild::rebuild(&config()?, args),
        Command::State(StateCommand::List(args)) => data::state(&config()?, args),
    }
}
