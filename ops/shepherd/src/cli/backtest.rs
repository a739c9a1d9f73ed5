//! Running a module over a past that it may never have seen, as people type it.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use shepherd_ingest::Start;
use shepherd_log::{ChainName, LaneId};
use shepherd_replay::{
    WarmUp,
    what_if::{DropLogs, ReorgAt},
};
use shepherd_rpc::EndpointSpec;

use super::{place, replay::Show, words};
use crate::config::value;

#[derive(Args, Debug)]
pub struct Backtest {
    /// A module.toml, or the folder it is in
    pub module: PathBuf,

    #[command(flatten)]
    pub history: History,

    #[command(flatten)]
    pub setting: Setting,

    #[command(flatten)]
    pub outside: Outside,

    #[command(flatten)]
    pub what_if: WhatIf,

    /// Where the report and the tables go; a folder under backtests/ that names the run when left out
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// Begin anew, also when the folder holds a run already
    #[arg(long)]
    pub fresh: bool,

    #[command(flatten)]
    pub show: Show,
}

/// Which stretch of which past.
#[derive(Args, Debug)]
pub struct History {
    /// The chain; needed when several are configured
    #[arg(long, value_name = "NAME")]
    pub chain: Option<ChainName>,

    /// The last so much of block time, such as 7d
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "from")]
    pub last: Option<Duration>,

    /// The first block: a number, an age such as -7d, a day or a time; the journal's first when
    /// left out
    #[arg(long, value_name = "BLOCK|-AGE|DATE", allow_hyphen_values = true, value_parser = place)]
    pub from: Option<Start>,

    /// The last block; the journal's head when left out
    #[arg(long, value_name = "BLOCK|-AGE|DATE", allow_hyphen_values = true, value_parser = place)]
    pub to: Option<Start>,

    /// Also run this much before the first block, or `all` there is, and leave it out of the report:
    /// for modules that must have seen what came before
    #[arg(long, value_name = "DURATION|all", value_parser = warm_up)]
    pub warm_up: Option<WarmUp>,

    /// Take the past from a recording instead of the data directory
    #[arg(long, value_name = "FILE", conflicts_with = "chain")]
    pub recording: Option<PathBuf>,

    /// The lane whose tape answers first, and whose orders really were placed; the lane of the
    /// module's own name when left out
    #[arg(long, value_name = "LANE")]
    pub tape_of: Option<LaneId>,
}

/// What the module is told to do.
#[derive(Args, Debug)]
pub struct Setting {
    /// A configuration value, with dots for tables: threshold=250, pause.seconds=5
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    pub set: Vec<Assignment>,

    /// What is laid over the manifest, with the keys `config`, `addresses`, `deliver` and
    /// `http_hosts`; what shepherd.toml has for this module when left out
    #[arg(long, value_name = "FILE")]
    pub overrides: Option<PathBuf>,
}

/// What answers when the past does not.
#[derive(Args, Debug)]
pub struct Outside {
    /// What comes of orders that were never placed: a TOML file; all are accepted when left out
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,

    /// An archive endpoint for reads that nobody made before
    #[arg(long, value_name = "URL", conflicts_with = "endpoints_from_config", value_parser = endpoint)]
    pub endpoint: Vec<Endpoint>,

    /// The chain's endpoints in the configuration for reads that nobody made before
    #[arg(long)]
    pub endpoints_from_config: bool,
}

/// A past that was not.
#[derive(Args, Debug)]
pub struct WhatIf {
    /// Put these logs into their blocks: a file with a line for each, such as
    /// {"block":7,"address":"0x…","topics":["0x…"],"data":"0x…"}
    #[arg(long, value_name = "FILE")]
    pub inject: Option<PathBuf>,

    /// Take logs away: address=0x…, topic0=0x…, blocks=FIRST..LAST, any of them, with commas
    #[arg(long, value_name = "FILTER")]
    pub drop: Vec<DropLogs>,

    /// Let the chain take DEPTH blocks back once it has come to BLOCK, put others in their place, and
    /// come back; with `:empty` the others have no logs
    #[arg(long, value_name = "BLOCK:DEPTH")]
    pub reorg_at: Vec<ReorgAt>,
}

#[derive(Args, Debug)]
pub struct Diff {
    /// A module, or the output directory of a backtest
    pub a: PathBuf,

    /// The other one
    pub b: PathBuf,

    #[command(flatten)]
    pub history: History,

    #[command(flatten)]
    pub setting: Setting,

    #[command(flatten)]
    pub outside: Outside,

    /// Where the two runs are kept, so that a diff that was stopped goes on; a folder under
    /// backtests/ that names them when left out
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// Run both anew
    #[arg(long)]
    pub fresh: bool,

    #[command(flatten)]
    pub show: Show,
}

#[derive(Args, Debug)]
pub struct Profile {
    /// A module.toml, or the folder it is in
    pub module: PathBuf,

    #[command(flatten)]
    pub history: History,

    #[command(flatten)]
    pub setting: Setting,

    #[command(flatten)]
    pub outside: Outside,

    /// An earlier profile, as --save writes it, that this one must not be much worse than
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,

    /// Write the profile for a later --compare
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,

    /// How much more fuel a block may take than in --compare
    #[arg(long, value_name = "PERCENT", default_value = "10%", value_parser = percent, requires = "compare")]
    pub fuel_growth_max: f64,

    #[command(flatten)]
    pub show: Show,
}

/// A configuration value, as it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Where it belongs: never empty.
    pub key: Vec<String>,
    /// What it becomes. What kind of value it is depends on the one it replaces.
    pub value: String,
}

/// An endpoint on the command line. It is shown without what may be a key.
#[derive(Clone, Debug)]
pub struct Endpoint(pub EndpointSpec);

fn endpoint(text: &str) -> Result<Endpoint, String> {
    text.parse::<EndpointSpec>().map(Endpoint).map_err(|error| error.to_string())
}

fn duration(text: &str) -> Result<Duration, String> {
    value::duration(text).map_err(words)
}

fn warm_up(text: &str) -> Result<WarmUp, String> {
    match text {
        "all" => Ok(WarmUp::All),
        _ => duration(text).map(WarmUp::For),
    }
}

fn assignment(text: &str) -> Result<Assignment, String> {
    let (key, value) = text.split_once('=').ok_or("write it as key=value")?;
    let key: Vec<String> = key.trim().split('.').map(str::to_owned).collect();
    if key.iter().any(String::is_empty) {
        return Err("there is an empty name before the =".to_owned());
    }
    Ok(Assignment { key, value: value.to_owned() })
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    number
        .ok()
        .filter(|percent| percent.is_finite() && 0.0 <= *percent)
        .ok_or_else(|| "write a percentage, such as 10%".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_what_comes_after_the_first_equals_sign() {
        let expected = |key: &[&str], value: &str| Assignment {
            key: key.iter().map(ToString::to_string).collect(),
            value: value.to_owned(),
        };
        assert_eq!(assignment("a=1"), Ok(expected(&["a"], "1")));
        assert_eq!(assignment("a.b=x=y"), Ok(expected(&["a", "b"], "x=y")));
        assert_eq!(assignment("a="), Ok(expected(&["a"], "")));
        for wrong in ["a", "=1", "a.=1"] {
            assert!(assignment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn growth_is_a_percentage() {
        for (text, expected) in
            [("10%", Some(10.0)), ("2.5", Some(2.5)), ("-1%", None), ("x", None)]
        {
            assert_eq!(percent(text).ok(), expected, "{text}");
        }
    }
}
