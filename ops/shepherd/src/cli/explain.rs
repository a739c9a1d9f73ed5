//! `shepherd explain`, as people type it.

use clap::Args;
use shepherd_log::LaneId;
use shepherd_replay::explain::Subject;

use super::replay::Show;

#[derive(Args, Debug)]
pub struct Explain {
    /// The effect as RECORD.POSITION, or the UID of an order
    #[arg(value_name = "EFFECT|UID")]
    pub subject: Subject,

    /// The lane, as MODULE@CHAIN; looked for when left out
    #[arg(long, value_name = "LANE")]
    pub lane: Option<LaneId>,

    #[command(flatten)]
    pub show: Show,
}
