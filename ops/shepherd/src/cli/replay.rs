//! `shepherd replay …`, as people type it.

use clap::{ArgGroup, Args, Subcommand};
use shepherd_log::LaneId;

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
