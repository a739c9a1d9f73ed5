//! `shepherd journal …`, as people type it.

use std::path::PathBuf;

use alloy_primitives::{Address, B256};
use clap::{Args, Subcommand, ValueEnum};
use shepherd_ingest::{Start, Trust};
use shepherd_log::{ChainName, LogFilter};

use super::place;

#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// The last records
    #[command(after_help = "\
Example:
  shepherd journal tail --chain sepolia -n 5 --follow")]
    Tail(Tail),

    /// Logs by contract and first topic
    #[command(after_help = "\
Example:
  shepherd journal find --chain sepolia --from -1d --address 0xfff9976782d46cc05630d1f6ebab18b2324d6b14

An index over addresses and first topics says which blocks need to be read. A repeated option
means any of its values; a log must match both options. Asks the running daemon, or reads the data
directory when none is running.")]
    Find(Find),

    /// How many records there are, from when to when, and what they take on disk
    #[command(after_help = "\
Example:
  shepherd journal stat --chain sepolia

Takes milliseconds where the log index is, and reads every record where it is not.")]
    Stat(OneChain),

    /// Write blocks and logs into files for other tools
    #[command(after_help = "\
Example:
  shepherd journal export --chain mainnet --from 2026-11-01 --out mainnet-november
  shepherd journal export --chain mainnet --from -1d --format jsonl --out - | jq .number

Parquet files are named and laid out as cryo's, blocks and logs apart, and carry what it takes to
import them at full trust. An export that was stopped goes on: files that are there are kept. Needs
the data directory for itself: stop the daemon first.")]
    Export(Export),

    /// Append blocks from files or from another data directory, verified like those of endpoints
    #[command(after_help = "\
Example:
  shepherd journal import --chain mainnet mainnet-november
  shepherd journal import --chain mainnet /backup/shepherd-data

Reads Parquet files in cryo's layout, its own or ours. What cryo's blocks lack of their headers is
asked of the chain's endpoints; the logs come from the files. Goes on after the journal's last block.
Needs both data directories for itself.")]
    Import(Import),

    /// Build the log index anew, from the records
    #[command(after_help = "\
Example:
  shepherd journal reindex --chain sepolia

The index follows by itself as records are appended; this is for one that is damaged. Needs the data
directory for itself: stop the daemon first.")]
    Reindex(OneChain),

    /// Read the whole journal and check every record against its checksum, its digest chain and
    /// its parent
    #[command(after_help = "\
Example:
  shepherd journal verify --chain sepolia --summary sepolia-2026-11.json
  shepherd journal verify --chain sepolia --against sepolia-2026-11.json

Header hashes, blooms and receipts are checked again as far as the chain's `trust` goes. A summary
says what was verified, when and by which version, with the digest of the records and one of
itself: sign that one. Ends with 0 when every record holds, with 8 otherwise.")]
    Verify(Verify),
}

#[derive(Args, Debug)]
pub struct Tail {
    /// The chain; needed when several are configured
    #[arg(long, value_name = "NAME")]
    pub chain: Option<ChainName>,

    /// How many records to start with
    #[arg(short = 'n', long = "records", value_name = "N", default_value_t = 10)]
    pub records: u64,

    /// Go on with each record that is appended; needs a running daemon
    #[arg(long, short)]
    pub follow: bool,

    /// Print JSON, one record a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Find {
    /// The chain; needed when several are configured
    #[arg(long, value_name = "NAME")]
    pub chain: Option<ChainName>,

    #[command(flatten)]
    pub logs: WhichLogs,

    /// The first block: a number, an age such as -7d, a day or a time; the journal's first when
    /// left out
    #[arg(long, value_name = "BLOCK|-AGE|DATE", allow_hyphen_values = true, value_parser = place)]
    pub from: Option<Start>,

    /// The last block; the journal's head when left out
    #[arg(long, value_name = "BLOCK|-AGE|DATE", allow_hyphen_values = true, value_parser = place)]
    pub to: Option<Start>,

    /// Also logs of blocks that a reorg took back
    #[arg(long)]
    pub abandoned: bool,

    /// How many logs at most
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct OneChain {
    /// The chain; all of them when left out
    #[arg(long, value_name = "NAME")]
    pub chain: Option<ChainName>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Verify {
    /// The chain; all of them when left out
    #[arg(long, value_name = "NAME")]
    pub chain: Option<ChainName>,

    /// Write what was verified, to be signed off; one chain at a time
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,

    /// An earlier summary that must still hold; one chain at a time
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Which logs are meant.
#[derive(Args, Debug)]
pub struct WhichLogs {
    /// The contract; any when left out
    #[arg(long, value_name = "0xADDRESS")]
    pub address: Vec<Address>,

    /// The first topic, which for most events is the hash of their signature; any when left out
    #[arg(long, value_name = "0xHASH")]
    pub topic0: Vec<B256>,
}

impl WhichLogs {
    /// As the journal is asked for them.
    pub fn filter(&self) -> LogFilter {
        LogFilter {
            addresses: self.address.iter().copied().collect(),
            topic0: self.topic0.iter().copied().collect(),
        }
    }
}

/// What is exported into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables of blocks and logs
    Parquet,
    /// One record a line
    Jsonl,
}

#[derive(Args, Debug)]
pub struct Export {
    /// The chain; needed when several are configured
    #[arg(long, value_name = "NAME")]
    pub chain: Option<ChainName>,

    /// What to write
    #[arg(long, value_enum, default_value_t = Format::Parquet)]
    pub format: Format,

    /// The folder for Parquet; the file for JSON lines, - for standard output
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,

    /// The first block: a number, an age such as -7d, a day or a time; the journal's first when
    /// left out
    #[arg(long, value_name = "BLOCK|-AGE|DATE", allow_hyphen_values = true, value_parser = place)]
    pub from: Option<Start>,

    /// The last block; the journal's head when left out
    #[arg(long, value_name = "BLOCK|-AGE|DATE", allow_hyphen_values = true, value_parser = place)]
    pub to: Option<Start>,

    #[command(flatten)]
    pub logs: WhichLogs,

    /// Also blocks that a reorg took back
    #[arg(long)]
    pub abandoned: bool,
}

#[derive(Args, Debug)]
pub struct Import {
    /// Parquet files, folders with such files, or one other data directory
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// The chain; needed when several are configured
    #[arg(long, value_name = "NAME")]
    pub chain: Option<ChainName>,

    /// How much is recomputed: link or bloom; what the chain's `trust` says when left out
    #[arg(long, value_name = "LEVEL")]
    pub trust: Option<Trust>,

    /// Ask no endpoint for headers that files do not have
    #[arg(long)]
    pub offline: bool,

    /// Also reorgs and what they took back, from another data directory into an empty journal
    #[arg(long)]
    pub abandoned: bool,
}
