//! `shepherd replay …`, as people type it.

use clap::{ArgGroup, Args, Subcommand};
use shepherd_log::LaneId;

use super::backtest::{Backtest, Diff};

#[derive(Debug, Subcommand)]
pub enum ReplayCommand {
    /// Compute lanes again from the journal and compare: state, cursor and every commit
    #[command(after_help = "\
Example:
  shepherd replay verify twap-monitor@mainnet
  shepherd replay verify --all --json | jq '.[] | select(.difference)'

Runs each lane from its first record into a store of its own, with the code and configuration it ran
with and the answers on its tape; nothing outside is asked and nothing live is touched. Ends with 0 when
everything is the same, with 8 and the first record and key when it is not. Ctrl-C ends with 11, and the
same command goes on. Needs the data directory for itself: stop the daemon first.")]
    Verify(VerifyLanes),

    /// Compute a lane's state anew, and put it in the place of the present one
    #[command(after_help = "\
Example:
  shepherd replay rebuild token-ledger@mainnet
  shepherd replay rebuild token-ledger@mainnet --abandon

The new state grows beside the present one, which is kept until the new one has caught up; then one commit
puts it in its place. Effects are neither asked for again nor sent. Ctrl-C, or a crash, leaves the present
state as it is; the same command goes on. Needs the data directory for itself: stop the daemon first.")]
    Rebuild(Rebuild),

    /// Run any module over the past and report what it would have done
    #[command(after_help = "\
Example:
  shepherd replay backtest modules/twap-monitor --chain mainnet --last 7d
  shepherd replay backtest modules/twap-monitor --chain mainnet --from 2026-11-01 --to 2026-11-08 \\
      --set threshold=250 --rules rules.toml --endpoints-from-config

Reads are answered by the lane's tape, then by what was asked before, then by an archive endpoint if one is
given; else the run stops and says which read has no answer. What came of an order is what really came of it,
and for orders that were never placed what --rules say. Nothing is ever sent. Writes report.html, summary.json
and Parquet tables into --output. Ctrl-C ends with 11, and the same command goes on.")]
    Backtest(Box<Backtest>),

    /// Run two modules, versions or configurations over the same past and show where they part
    #[command(after_help = "\
Example:
  shepherd replay diff modules/twap-monitor /tmp/new/twap-monitor --chain mainnet --last 7d
  shepherd replay diff backtest-a backtest-b --json

Each of A and B is a module, which is run, or the output directory of a backtest that is done. Ends with 0
when they did the same, with 12 when they did not: fuel alone is shown and does not count.")]
    Diff(Box<Diff>),
}

/// Which lanes are verified.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("which").required(true).args(["lane", "all"]))]
pub struct VerifyLanes {
    /// The lane, as MODULE@CHAIN
    pub lane: Option<LaneId>,

    /// Every lane, as many at once as there are processors
    #[arg(long)]
    pub all: bool,

    #[command(flatten)]
    pub show: Show,
}

#[derive(Args, Debug)]
pub struct Rebuild {
    /// The lane, as MODULE@CHAIN
    pub lane: LaneId,

    /// Throw away what a rebuild that was stopped has computed so far, and rebuild nothing
    #[arg(long)]
    pub abandon: bool,

    #[command(flatten)]
    pub show: Show,
}

/// How a long command speaks.
#[derive(Args, Debug)]
pub struct Show {
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
