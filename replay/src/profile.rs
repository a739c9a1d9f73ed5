//! What a module takes: fuel and time for each block, and whether that grew.
//!
//! ```text
//!  traces ──▶ Profile ──save──▶ profile.json ──load──▶ compare ──▶ regressions
//! ```
//!
//! Fuel is the same on every machine and in every run, so it decides. Time is measured and shown;
//! it decides only where a threshold for it is asked for.

use std::{cmp::Reverse, collections::BinaryHeap, fs, io, path::Path, path::PathBuf};

use serde::{Deserialize, Serialize};

/// Raised when a stored profile of the same fields would mean something else.
pub const PROFILE_FORMAT: u32 = 1;

/// Blocks that are named one by one. More than fit a screen are not looked at.
pub const HOTTEST_MAX: usize = 10;

/// How values are spread. Percentiles are by nearest rank: each is a value that was there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub total: u64,
    /// Half of the values are at most this.
    pub p50: u64,
    /// Nine of ten.
    pub p90: u64,
    /// Ninety-nine of a hundred.
    pub p99: u64,
    /// The largest.
    pub max: u64,
}

impl Spread {
    /// The spread of these values, which are sorted for it. All zero when there are none.
    pub fn of(values: &mut [u64]) -> Spread {
        values.sort_unstable();
        let [.., max] = values else { return Spread::default() };
        let max = *max;
        let at = |percent: usize| values[(values.len() * percent).div_ceil(100).max(1) - 1];
        Spread {
            count: values.len() as u64,
            total: values.iter().fold(0, |sum: u64, value| sum.saturating_add(*value)),
            p50: at(50),
            p90: at(90),
            p99: at(99),
            max,
        }
    }

    /// The mean, rounded down; zero when there are no values.
    pub fn mean(&self) -> u64 {
        self.total.checked_div(self.count).unwrap_or_default()
    }
}

/// One block that took much.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HotBlock {
    /// Fuel of all calls for it.
    pub fuel: u64,
    /// Its height.
    pub block: u64,
    /// Its hash, as `0x` and hex.
    pub hash: String,
    /// The first record handled for it.
    pub offset: u64,
    /// The block's own time, in seconds since 1970.
    pub timestamp: u64,
    /// Time the calls took, in microseconds.
    pub micros: u64,
    /// Logs handed in.
    pub logs: u64,
    /// Reads answered.
    pub reads: u64,
    /// Keys written.
    pub writes: u64,
    /// Effects asked for.
    pub effects: u64,
}

/// Whose profile it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profiled {
    /// The module's name.
    pub module: String,
    /// sha256 of its component, in hex.
    pub sha256: String,
    /// The chain.
    pub chain: String,
    /// Most fuel one call may take.
    pub fuel_limit: u64,
    /// The first and the last block of the history; `None` when it has no block.
    pub blocks: Option<(u64, u64)>,
}

/// What a module took over a stretch of history.
///
/// Blocks for which it was not called do not count: a filtered module takes nothing for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Version of these fields.
    pub format: u32,
    /// Whose profile it is.
    pub of: Profiled,
    /// Records handled.
    pub records: u64,
    /// Fuel for each block for which it was called.
    pub fuel: Spread,
    /// Microseconds for each of these blocks.
    pub micros: Spread,
    /// The blocks that took most fuel, most first. At most [`HOTTEST_MAX`].
    pub hottest: Vec<HotBlock>,
}

/// A stored profile that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file cannot be read or written.
    #[error("cannot access the profile {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no profile.
    #[error("{path} is not a profile")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It was written by another version.
    #[error("{path} is a profile of format {found}, this version reads {PROFILE_FORMAT}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

impl Profile {
    /// Which part of the limit this much fuel is, as a fraction. A block with outcomes takes
    /// several calls, so it can be more than one.
    pub fn share_of_limit(&self, fuel: u64) -> f64 {
        if self.of.fuel_limit == 0 {
            return 0.0;
        }
        fuel as f64 / self.of.fuel_limit as f64
    }

    /// Writes it as JSON: whole, or the file stays as it was.
    pub fn save(&self, path: &Path) -> Result<(), ProfileError> {
        let failed = |source| ProfileError::File { path: path.to_owned(), source };
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut text = serde_json::to_vec_pretty(self).expect("it is text and numbers");
        text.push(b'\n');
        let folder = folder.unwrap_or(Path::new("."));
        crate::report::file::write(folder, name, &text).map(|_| ()).map_err(failed)
    }

    /// Reads what [`save`](Profile::save) wrote.
    pub fn load(path: &Path) -> Result<Profile, ProfileError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let path_owned = || path.to_owned();
        let text =
            fs::read(path).map_err(|source| ProfileError::File { path: path_owned(), source })?;
        let content = |source| ProfileError::Content { path: path_owned(), source };
        let Head { format } = serde_json::from_slice(&text).map_err(content)?;
        if format != PROFILE_FORMAT {
            return Err(ProfileError::Format { path: path_owned(), found: format });
        }
        serde_json::from_slice(&text).map_err(content)
    }
}

/// Gathers a profile, one record after the other in the order of the journal.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    current: Option<HotBlock>,
    fuel: Vec<u64>,
    micros: Vec<u64>,
    records: u64,
    hottest: BinaryHeap<Reverse<HotBlock>>,
}

impl Gathering {
    /// Takes in a record: `hot` holds what it alone took.
    pub fn add(&mut self, hot: HotBlock) {
        self.records += 1;
        match &mut self.current {
            Some(current) if current.hash == hot.hash => {
                current.fuel = current.fuel.saturating_add(hot.fuel);
                current.micros = current.micros.saturating_add(hot.micros);
                current.logs += hot.logs;
                current.reads += hot.reads;
                current.writes += hot.writes;
                current.effects += hot.effects;
            }
            current => {
                let done = current.replace(hot);
                self.close(done);
            }
        }
    }

    fn close(&mut self, block: Option<HotBlock>) {
        let Some(block) = block else { return };
        self.fuel.push(block.fuel);
        self.micros.push(block.micros);
        self.hottest.push(Reverse(block));
        if self.hottest.len() > HOTTEST_MAX {
            self.hottest.pop();
        }
    }

    /// The profile of what was taken in.
    pub fn finish(mut self, of: Profiled) -> Profile {
        let last = self.current.take();
        self.close(last);
        Profile {
            format: PROFILE_FORMAT,
            of,
            records: self.records,
            fuel: Spread::of(&mut self.fuel),
            micros: Spread::of(&mut self.micros),
            hottest: self.hottest.into_sorted_vec().into_iter().map(|Reverse(hot)| hot).collect(),
        }
    }
}

/// By how much figures may grow, as fractions: 0.10 is ten percent. `None`: it does not matter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Fuel of all blocks together.
    pub fuel_total: Option<f64>,
    /// Fuel of the block in the middle.
    pub fuel_p50: Option<f64>,
    /// Fuel that ninety-nine of a hundred blocks stay within.
    pub fuel_p99: Option<f64>,
    /// Fuel of the hottest block.
    pub fuel_max: Option<f64>,
    /// The largest share of the fuel limit that any block may take, whatever it was before.
    pub share_of_limit: Option<f64>,
    /// Time that ninety-nine of a hundred blocks stay within. It differs from run to run and from
    /// machine to machine.
    pub micros_p99: Option<f64>,
}

impl Default for Thresholds {
    /// A tenth more fuel in all or at p99, a quarter more in the hottest block. Not a limit on
    /// time.
    fn default() -> Thresholds {
        Thresholds {
            fuel_total: Some(0.10),
            fuel_p50: None,
            fuel_p99: Some(0.10),
            fuel_max: Some(0.25),
            share_of_limit: None,
            micros_p99: None,
        }
    }
}

/// A figure that grew beyond its threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct Regression {
    /// Which figure.
    pub figure: &'static str,
    /// What it was; for a share of the limit, that of the earlier profile.
    pub before: f64,
    /// What it is.
    pub after: f64,
    /// The most it might have been.
    pub allowed: f64,
}

impl std::fmt::Display for Regression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Regression { figure, before, after, allowed } = self;
        if figure.contains("share") {
            let [before, after, allowed] = [before, after, allowed].map(|share| share * 100.0);
            return write!(
                f,
                "{figure} is {after:.1} %, allowed are {allowed:.1} % (before {before:.1} %)"
            );
        }
        write!(f, "{figure} grew from {before:.0} to {after:.0}, allowed are {allowed:.0}")?;
        if *before > 0.0 {
            write!(f, " ({:+.1} %)", (after / before - 1.0) * 100.0)?;
        }
        Ok(())
    }
}

/// Two profiles that say nothing about each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incomparable {
    /// Of different chains.
    #[error("one profile is of the chain {before}, the other of {after}")]
    Chains {
        /// The earlier one's.
        before: String,
        /// The later one's.
        after: String,
    },
    /// Over different blocks.
    #[error(
        "the profiles are over different blocks: {} and {}", span(.before), span(.after)
    )]
    Blocks {
        /// The earlier one's.
        before: Option<(u64, u64)>,
        /// The later one's.
        after: Option<(u64, u64)>,
    },
}

fn span(blocks: &Option<(u64, u64)>) -> String {
    blocks.map_or("none".to_owned(), |(first, last)| format!("{first} to {last}"))
}

/// What grew from `before` to `after` beyond the thresholds; empty when nothing did.
///
/// Both must be over the same blocks of the same chain: a busier week takes more fuel and is no
/// regression. Two modules, versions or configurations may be compared.
pub fn compare(
    before: &Profile,
    after: &Profile,
    thresholds: &Thresholds,
) -> Result<Vec<Regression>, Incomparable> {
    if before.of.chain != after.of.chain {
        let [before, after] = [before, after].map(|profile| profile.of.chain.clone());
        return Err(Incomparable::Chains { before, after });
    }
    if before.of.blocks != after.of.blocks {
        return Err(Incomparable::Blocks { before: before.of.blocks, after: after.of.blocks });
    }
    let growth = [
        ("fuel in all", thresholds.fuel_total, before.fuel.total, after.fuel.total),
        ("fuel per block, p50", thresholds.fuel_p50, before.fuel.p50, after.fuel.p50),
        ("fuel per block, p99", thresholds.fuel_p99, before.fuel.p99, after.fuel.p99),
        ("fuel per block, max", thresholds.fuel_max, before.fuel.max, after.fuel.max),
        ("microseconds per block, p99", thresholds.micros_p99, before.micros.p99, after.micros.p99),
    ];
    let mut regressions: Vec<Regression> = growth
        .into_iter()
        .filter_map(|(figure, threshold, before, after)| {
            let (before, after) = (before as f64, after as f64);
            let allowed = before * (1.0 + threshold?);
            (after > allowed).then_some(Regression { figure, before, after, allowed })
        })
        .collect();
    if let Some(allowed) = thresholds.share_of_limit {
        let share = |profile: &Profile| profile.share_of_limit(profile.fuel.max);
        let (before, after) = (share(before), share(after));
        if after > allowed {
            let figure = "largest share of the fuel limit";
            regressions.push(Regression { figure, before, after, allowed });
        }
    }
    Ok(regressions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(block: u64, fuel: u64) -> HotBlock {
        let hash = format!("{block:#x}");
        let timestamp = 1_790_000_000 + block * 12;
        let [logs, reads, writes, effects] = [1, 2, 3, 4];
        let (micros, offset) = (fuel / 1000, block);
        HotBlock { fuel, block, hash, offset, timestamp, micros, logs, reads, writes, effects }
    }

    fn profile(fuel: impl IntoIterator<Item = (u64, u64)>) -> Profile {
        let mut gathering = Gathering::default();
        fuel.into_iter().for_each(|(block, fuel)| gathering.add(call(block, fuel)));
        gathering.finish(Profiled {
            module: "twap-monitor".to_owned(),
            sha256: "aa".repeat(32),
            chain: "mainnet".to_owned(),
            fuel_limit: 1_000_000,
            blocks: Some((1, 3)),
        })
    }

    #[test]
    fn percentiles_are_values_that_were_there() {
        let mut values: Vec<u64> = (1..=200).rev().collect();
        let spread = Spread::of(&mut values);
        let expected = Spread { count: 200, total: 20_100, p50: 100, p90: 180, p99: 198, max: 200 };
        assert_eq!(spread, expected);
        assert_eq!(spread.mean(), 100);
        assert_eq!(Spread::of(&mut [7]).p50, 7);
        assert_eq!(Spread::of(&mut [7]).p99, 7);
        assert_eq!(Spread::of(&mut []), Spread::default());
        assert_eq!(Spread::default().mean(), 0);
    }

    #[test]
    fn calls_for_one_block_are_one_block() {
        let profile = profile([(1, 100), (2, 10), (2, 20), (3, 5)]);
        assert_eq!((profile.records, profile.fuel.count, profile.fuel.max), (4, 3, 100));
        let hottest: Vec<_> =
            profile.hottest.iter().map(|hot| (hot.block, hot.fuel, hot.reads)).collect();
        assert_eq!(hottest, [(1, 100, 2), (2, 30, 4), (3, 5, 2)]);
    }

    #[test]
    fn the_hottest_blocks_are_named_hottest_first() {
        let profile = profile((0..100).map(|block| (block, (block * 37) % 100)));
        let fuel: Vec<u64> = profile.hottest.iter().map(|hot| hot.fuel).collect();
        assert_eq!(fuel, (90..100).rev().collect::<Vec<u64>>());
    }

    #[test]
    fn a_profile_is_read_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profile.json");
        let written = profile([(1, 100), (2, 10)]);
        written.save(&path).unwrap();
        assert_eq!(Profile::load(&path).unwrap(), written);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\"format\": 1", "\"format\": 9")).unwrap();
        let error = Profile::load(&path).unwrap_err();
        assert!(matches!(error, ProfileError::Format { found: 9, .. }), "{error}");
        fs::write(&path, "{\"format\": 1}").unwrap();
        assert!(matches!(Profile::load(&path).unwrap_err(), ProfileError::Content { .. }));
    }

    fn check(before: u64, after: u64, thresholds: Thresholds, expected: &[&str]) {
        let [before, after] = [before, after].map(|fuel| profile([(1, fuel), (2, 10)]));
        let regressions = compare(&before, &after, &thresholds).unwrap();
        let figures: Vec<&str> = regressions.iter().map(|regression| regression.figure).collect();
        assert_eq!(figures, expected, "{regressions:?}");
    }

    #[test]
    fn a_figure_may_grow_by_its_threshold_and_no_more() {
        let all = ["fuel in all", "fuel per block, p99", "fuel per block, max"];
        let default = Thresholds::default();
        check(1_000, 1_000, default, &[]);
        check(1_000, 1_100, default, &[]);
        check(1_000, 1_102, default, &all[..2]);
        check(1_000, 1_300, default, &all);
        check(1_000, 1, default, &[]);
        check(10, 20, Thresholds { fuel_total: None, ..default }, &all[1..]);
        let time = Thresholds { micros_p99: Some(0.5), ..default };
        check(10_000, 20_000, time, &[all[0], all[1], all[2], "microseconds per block, p99"]);
        let none = Thresholds { fuel_total: None, fuel_p99: None, fuel_max: None, ..default };
        check(1, 2_000_000, none, &[]);
        let share = Thresholds { share_of_limit: Some(0.5), ..none };
        check(1, 500_000, share, &[]);
        check(1, 500_001, share, &["largest share of the fuel limit"]);
    }

    #[test]
    fn a_regression_says_what_grew_by_how_much() {
        let [before, after] = [1_000, 1_500].map(|fuel| profile([(1, fuel)]));
        let thresholds = Thresholds { fuel_total: None, fuel_max: None, ..Thresholds::default() };
        let regressions = compare(&before, &after, &thresholds).unwrap();
        assert_eq!(
            regressions[0].to_string(),
            "fuel per block, p99 grew from 1000 to 1500, allowed are 1100 (+50.0 %)"
        );
    }

    #[test]
    fn profiles_of_different_histories_are_not_compared() {
        let one = profile([(1, 10)]);
        let mut other = profile([(1, 10)]);
        other.of.blocks = Some((2, 3));
        let default = Thresholds::default();
        assert_eq!(
            compare(&one, &other, &default).unwrap_err().to_string(),
            "the profiles are over different blocks: 1 to 3 and 2 to 3"
        );
        let mut other = one.clone();
        other.of.chain = "gnosis".to_owned();
        assert!(matches!(compare(&one, &other, &default), Err(Incomparable::Chains { .. })));
    }
}
