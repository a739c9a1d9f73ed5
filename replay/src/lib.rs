//! Replay: the same history, any module, the same answer.
//!
//! ```text
//!  journal ──▶ Runner::advance ──▶ a store of its own ──▶ verified, rebuilt, backtested, compared
//!                  ▲
//!     tape, cache, archive endpoint, venue
//! ```
//!
//! Replays call the function that live lanes call, write to their own store, and have no outbox:
//! nothing they do can reach a live lane or a receiver.

mod archive;
mod backtest;
mod cache;
pub mod diff;
mod drive;
pub mod explain;
mod miss;
pub mod module_test;
mod outside;
mod profile;
mod reads;
mod rebuild;
pub mod recording;
mod report;
mod run;
mod tape;
mod venue;
mod verify;
mod versions;
pub mod what_if;
mod window;

pub use backtest::{Backtest, BacktestError, History, backtest, outside_of};
pub use cache::{CacheError, ReadCache};
pub use diff::diff;
pub use drive::{Drive, Ended, Outside, Progress, drive, drive_in_steps};
pub use explain::explain;
pub use miss::{Miss, MissCause};
pub use rebuild::{RebuildError, Rebuilt, rebuild};
pub use run::{Run, RunError, on_write_failure};
pub use tape::{FromTape, OffTape, Tape};
pub use venue::{Rules, RulesError};
pub use verify::{
    Difference, EffectDifference, Gap, KeyDifference, StepDifference, Stopped, Verified,
    VerifyError, verify,
};
pub use versions::{LoadVersion, LoadVersionError, VersionError};
pub use window::{Begin, Bound, InvalidBound, Shown, WarmUp, Window, WindowAsked, WindowError};

pub use profile::{
    HOTTEST_MAX, HotBlock, Incomparable, PROFILE_FORMAT, Profile, ProfileError, Profiled,
    Regression, Spread, Thresholds, compare,
};
pub use report::{
    About, Calls, EFFECTS_FILE, Effects, FileFacts, README_FILE, REPORT_FILE, Reason, ReportError,
    RunFacts, STATE_FILE, STEPS_FILE, SUMMARY_FILE, SUMMARY_FORMAT, StateFacts, Summary,
    WindowFacts, profile, write as write_report,
};
