//! `shepherd record …`, as people type it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use shepherd_ingest::Start;
use shepherd_log::{ChainName, LaneId};

use super::place;

#[derive(Debug, Subcommand)]
pub enum RecordCommand {
    /// Cut a stretch of a journal out into one small file
    #[command(after_help = "\
Example:
  shepherd record cut --chain mainnet --from 21000000 --to 21000099 --lane twap-monitor@mainnet \\
      --module modules/twap-monitor --output november.jsonl
  shepherd replay backtest modules/twap-monitor --recording november.jsonl

The file holds the records and, with --lane, what the lane's module read and was answered, so that the module
runs over it without an endpoint and without a data directory. It must begin with a block that no reorg in it
takes back. Needs the data directory for itself: stop the daemon first.")]
    Cut(Box<Cut>),
}

#[derive(Args, Debug)]
pub struct Cut {
    /// The chain; needed when several are configured
    #[arg(long, value_name = "NAME")]
    pub chain: Option<ChainName>,

    /// The first block: a number, an age such as -7d, a day or a time
    #[arg(long, value_name = "BLOCK|-AGE|DATE", allow_hyphen_values = true, value_parser = place)]
    pub from: Start,

    /// The last block; the journal's head when left out
    #[arg(long, value_name = "BLOCK|-AGE|DATE", allow_hyphen_values = true, value_parser = place)]
    pub to: Option<Start>,

    /// Keep the tape of this lane; may be repeated
    #[arg(long, value_name = "LANE")]
    pub lane: Vec<LaneId>,

    /// Keep only logs that this module subscribes to: a module.toml or the folder it is in
    #[arg(long, value_name = "MODULE")]
    pub module: Option<PathBuf>,

    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
