//! Recordings beside a module, and what the module is expected to make of them.
//!
//! ```text
//! twap-monitor/module.toml
//!              recordings/november.jsonl            a recording
//!                         november.expected.json    what comes of it
//!                         november.overrides.toml   optional: as a lane has them
//!                         november.rules.toml       optional: the venue's rules
//! ```
//!
//! Each recording is backtested as a whole, with its own tape and nothing else, in a run that is
//! thrown away. Compared are the effects, with keys and bodies in their order, the state, and the
//! fuel within a tolerance. [`bless`] writes down what the module does now.

mod expected;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::json;
use shepherd_host::{BindError, Engine, LoadError, Manifest, Module, Overrides};
use shepherd_log::{Options, StorageError};

pub use expected::{Expected, ExpectedEffect, ExpectedFuel, ExpectedState, Unmet};

use crate::{
    backtest::{Backtest, BacktestError, History, backtest},
    recording::{self, Reader, RecordingError},
    run::{Run, RunError},
    venue::{Rules, RulesError},
    window::{Window, WindowAsked, WindowError},
};

/// Deepest reorg a recording may have. It was a journal's once, whose own limit held then.
const REORG_DEPTH_MAX: u64 = 100_000;

/// What came of one recording.
#[derive(Debug)]
pub struct Tested {
    /// The recording.
    pub recording: PathBuf,
    /// How it compares.
    pub verdict: Verdict,
    /// What the module did.
    pub found: Expected,
}

/// How what a module did compares with what is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what is expected.
    Met,
    /// The first thing that is not as expected, of each kind.
    Unmet(Vec<Unmet>),
    /// Nothing is expected yet: it has to be blessed.
    NothingExpected,
}

/// A test that could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ModuleTestError {
    /// A file cannot be read or written.
    #[error("{path} cannot be read or written")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is nothing to test with.
    #[error(
        "there are no recordings in {dir}: make one with `shepherd record cut -o {dir}/NAME.jsonl`"
    )]
    NoRecordings {
        /// The folder.
        dir: PathBuf,
    },
    /// The manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] shepherd_host::ManifestError),
    /// The component does not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The module cannot be configured for the recording's chain.
    #[error("{recording}")]
    Bind {
        /// The recording.
        recording: PathBuf,
        /// Why not.
        source: Box<BindError>,
    },
    /// A file beside the recording is not what it should be.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The rules are wrong.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The recording is wrong.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The recording cannot be loaded.
    #[error(transparent)]
    Loading(recording::LoadError),
    /// The recording has no blocks.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// The scratch run cannot be used.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The module fails, or asks what the recording has no answer to.
    #[error("{recording}")]
    Backtest {
        /// The recording.
        recording: PathBuf,
        /// What stopped it.
        source: Box<BacktestError>,
    },
    /// What it came to cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Runs a module over every recording in `DIR/recordings`, in order of their names.
///
/// `component` is read instead of the one that the manifest names, when it is given. Scratch data
/// goes into `scratch`, which must be an empty folder; nothing in it is needed afterwards.
pub fn module_test(
    engine: &Engine,
    dir: &Path,
    component: Option<&Path>,
    scratch: &Path,
) -> Result<Vec<Tested>, ModuleTestError> {
    let manifest_file = dir.join("module.toml");
    let manifest = Manifest::parse(&read(&manifest_file)?, &manifest_file)?;
    let component = component.unwrap_or(manifest.component());
    let bytes = fs::read(component).map_err(failed(component))?;
    let module = engine.load(&manifest, &bytes)?;
    let recordings = recordings(dir)?;
    let tested = recordings.into_iter().enumerate().map(|(number, recording)| {
        let scratch = scratch.join(number.to_string());
        let found = run(&module, &recording, &scratch)?;
        let verdict = match expected_of(&recording)? {
            None => Verdict::NothingExpected,
            Some(expected) => match expected.compare(&found) {
                unmet if unmet.is_empty() => Verdict::Met,
                unmet => Verdict::Unmet(unmet),
            },
        };
        Ok(Tested { recording, verdict, found })
    });
    tested.collect()
}

/// Writes down what a module did as what is expected of it.
///
/// What the file says of fuel stays as it is: its tolerance, or that it does not matter.
pub fn bless(tested: &Tested) -> Result<(), ModuleTestError> {
    let path = tested.recording.with_extension("expected.json");
    let before = expected_of(&tested.recording)?;
    let text = tested.found.blessed(before.as_ref());
    fs::write(&path, text).map_err(failed(&path))
}

/// The recordings beside a module.
fn recordings(dir: &Path) -> Result<Vec<PathBuf>, ModuleTestError> {
    let dir = dir.join("recordings");
    let mut found = Vec::new();
    match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => (),
        Err(error) => return Err(failed(&dir)(error)),
        Ok(entries) => {
            for entry in entries {
                let path = entry.map_err(failed(&dir))?.path();
                if path.extension().is_some_and(|extension| extension == "jsonl") {
                    found.push(path);
                }
            }
        }
    }
    if found.is_empty() {
        return Err(ModuleTestError::NoRecordings { dir });
    }
    found.sort();
    Ok(found)
}

fn run(module: &Module, recording: &Path, scratch: &Path) -> Result<Expected, ModuleTestError> {
    let (data, output) = (scratch.join("journal"), scratch.join("run"));
    fs::create_dir_all(&data).map_err(failed(&data))?;
    let options = Options { reorg_depth_max: REORG_DEPTH_MAX, ..Options::default() };
    let loaded =
        recording::load(Reader::open(recording)?, &data, options).map_err(|error| match error {
            recording::LoadError::Recording(error) => error.into(),
            error => ModuleTestError::Loading(error),
        })?;
    let content =
        |path: &Path, reason: String| ModuleTestError::Content { path: path.to_owned(), reason };
    let overrides_file = recording.with_extension("overrides.toml");
    let overrides: Overrides = match optional(&overrides_file)? {
        None => Overrides::default(),
        Some(text) => {
            toml::from_str(&text).map_err(|error| content(&overrides_file, error.to_string()))?
        }
    };
    let rules_file = recording.with_extension("rules.toml");
    let rules = match optional(&rules_file)? {
        None => Rules::default(),
        Some(text) => Rules::parse(&text, &rules_file)?,
    };
    let bound = module.bind(&loaded.header.chain, loaded.header.chain_id, &overrides);
    let bound = bound.map_err(|source| ModuleTestError::Bind {
        recording: recording.to_owned(),
        source: source.into(),
    })?;
    let lane = bound.lane().clone();
    let run = Run::open(&output, &json!({ "module_test": recording.display().to_string() }))?;
    let tape = loaded.tapes.get(&lane.module).cloned();
    let window = Window::resolve(&loaded.journal, WindowAsked::default())?;
    let history = History {
        journal: loaded.journal,
        tape: tape.map(|tape| Box::new(tape) as Box<dyn crate::Tape>),
        recorded_as: lane.module.clone(),
        instead_of: loaded.instead_of,
    };
    let asked = Backtest {
        module: bound,
        window,
        rules,
        endpoint: None,
        cache: None,
        step_records_max: None,
    };
    backtest(&run, history, asked, &mut |_| (), &|| false).map_err(|source| {
        ModuleTestError::Backtest { recording: recording.to_owned(), source: source.into() }
    })?;
    Ok(Expected::of(&run.snapshot(&lane)?)?)
}

fn expected_of(recording: &Path) -> Result<Option<Expected>, ModuleTestError> {
    let path = recording.with_extension("expected.json");
    let parse = |text: String| {
        serde_json::from_str(&text).map_err(|error| ModuleTestError::Content {
            path: path.clone(),
            reason: error.to_string(),
        })
    };
    optional(&path)?.map(parse).transpose()
}

fn read(path: &Path) -> Result<String, ModuleTestError> {
    fs::read_to_string(path).map_err(failed(path))
}

fn optional(path: &Path) -> Result<Option<String>, ModuleTestError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        text => text.map(Some).map_err(failed(path)),
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> ModuleTestError + use<> {
    let path = path.to_owned();
    move |source| ModuleTestError::File { path: path.clone(), source }
}
