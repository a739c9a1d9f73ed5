//! Modules from their files: found, the pinned ones, compiled, and configured for their chains.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use shepherd_host::{
    BindError, BoundModule, Engine, EngineOptions, Manifest, ManifestError, Module, Overrides,
    Sha256, limits::COMPONENT_BYTES_MAX,
};
use shepherd_log::{ChainName, LaneId};

use shepherd_rpc::in_words;

use crate::{
    config::{self, Config},
    exit::{Code, Place, Problem, file_problem},
};

/// The sandbox for every module of the process.
pub fn engine() -> Result<Engine, Problem> {
    Engine::new(EngineOptions::default()).map_err(|error| Problem::from_error(Code::Failed, &error))
}

/// A module whose files were read and fit each other, not yet on any chain.
pub struct Loaded {
    module: Module,
    manifest: String,
    component: Arc<[u8]>,
}

/// A module on one chain, and what it takes to have the same again.
#[derive(Clone)]
pub struct Configured {
    /// What runs.
    pub bound: BoundModule,
    /// The text of its manifest.
    pub manifest: String,
    /// What was laid over the manifest.
    pub overrides: Overrides,
    /// The bytes of its component.
    pub component: Arc<[u8]>,
}

impl Configured {
    /// The identity of its code.
    pub fn sha256(&self) -> Sha256 {
        self.bound.module().sha256()
    }
}

impl Loaded {
    /// Reads a manifest and its component and checks one against the other.
    pub fn read(file: &Path, engine: &Engine) -> Result<Loaded, Problem> {
        Loaded::read_if(file, engine, |_, _| Ok(()))
    }

    /// The same, once `admits` has let the component pass by its file and its sha256.
    fn read_if(
        file: &Path,
        engine: &Engine,
        admits: impl FnOnce(&Path, Sha256) -> Result<(), Problem>,
    ) -> Result<Loaded, Problem> {
        let text = read_text(file)?;
        let manifest = parse_manifest(&text, file)?;
        let component = read_component(manifest.component())?;
        admits(manifest.component(), Sha256::of(&component))?;
        let module = engine
            .load(&manifest, &component)
            .map_err(|error| Problem::from_error(Code::Module, &error))?;
        Ok(Loaded { module, manifest: text, component: component.into() })
    }

    /// The text of its manifest.
    pub fn text(&self) -> &str {
        &self.manifest
    }

    /// The checked manifest.
    pub fn manifest(&self) -> &Manifest {
        self.module.manifest()
    }

    /// The module on a chain.
    pub fn bind(
        &self,
        chain: &ChainName,
        chain_id: u64,
        overrides: &Overrides,
    ) -> Result<Configured, BindError> {
        Ok(Configured {
            bound: self.module.bind(chain, chain_id, overrides)?,
            manifest: self.manifest.clone(),
            overrides: overrides.clone(),
            component: Arc::clone(&self.component),
        })
    }
}

/// Every configured module on each of its chains, or everything that is wrong with any of them.
pub fn load_all(config: &Config, engine: &Engine) -> Result<Vec<Configured>, Vec<Problem>> {
    let mut configured = Vec::new();
    let mut problems = Vec::new();
    let mut lanes = BTreeSet::<LaneId>::new();
    for entry in &config.modules {
        let loaded = match load(entry, engine) {
            Ok(loaded) => loaded,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        for name in &entry.chains {
            let lane = LaneId { module: loaded.manifest().name().clone(), chain: name.clone() };
            if !lanes.insert(lane.clone()) {
                let message = format!("two modules would be the lane {lane}");
                let problem = Problem::new(Code::Module, message);
                problems.push(problem.at(entry.manifest_place.clone()));
                continue;
            }
            let chain = config.chains.iter().find(|chain| chain.name == *name);
            let chain_id = chain.expect("a module's chains are among the configured").chain_id;
            match loaded.bind(name, chain_id, &entry.overrides) {
                Ok(module) => configured.push(module),
                Err(error) => {
                    let problem = Problem::from_error(Code::Module, &error);
                    let problem = problem.help("correct its `config` or `addresses`");
                    problems.push(problem.at(entry.manifest_place.clone()));
                }
            }
        }
    }
    if problems.is_empty() { Ok(configured) } else { Err(problems) }
}

/// What runs of each.
pub fn bound(modules: &[Configured]) -> Vec<BoundModule> {
    modules.iter().map(|module| module.bound.clone()).collect()
}

/// A module of the configuration, which must be the pinned one.
fn load(entry: &config::Module, engine: &Engine) -> Result<Loaded, Problem> {
    let is_pinned = |file: &Path, found: Sha256| {
        if found == entry.sha256 {
            return Ok(());
        }
        let file = tidy(file);
        let file = file.display();
        let message = format!("{file} is not the pinned component: its sha256 is {found}");
        let help = format!(
            "restore the file; if the change is yours, look at it with `shepherd module inspect \
             {}` and pin the new sha256",
            entry.manifest.display()
        );
        Err(Problem::new(Code::Module, message).help(help).at(entry.sha256_place.clone()))
    };
    Loaded::read_if(&entry.manifest, engine, is_pinned).map_err(|problem| match problem.place {
        None => problem.at(entry.manifest_place.clone()),
        Some(_) => problem,
    })
}

/// Reads and checks a manifest.
pub fn read_manifest(file: &Path) -> Result<Manifest, Problem> {
    parse_manifest(&read_text(file)?, file)
}

fn read_text(file: &Path) -> Result<String, Problem> {
    fs::read_to_string(file)
        .map_err(|error| file_problem(Code::Module, "read the manifest", file, &error))
}

fn parse_manifest(text: &str, file: &Path) -> Result<Manifest, Problem> {
    Manifest::parse(text, file).map_err(|error| manifest_problem(text, error))
}

fn manifest_problem(text: &str, error: ManifestError) -> Problem {
    let ManifestError { file, line, message } = error;
    let written = text.lines().nth(line - 1).unwrap_or_default().replace('\t', " ");
    let indent = written.chars().take_while(|c| c.is_whitespace()).count();
    let width = written.trim().chars().count();
    let place = Place { file, line, column: indent + 1, text: written, width };
    Problem::new(Code::Module, message).at(place)
}

/// Reads a component, but no file that is too large to be one.
pub fn read_component(file: &Path) -> Result<Vec<u8>, Problem> {
    let failed = |error: io::Error| {
        let problem = file_problem(Code::Module, "read the component", &tidy(file), &error);
        problem.help("build the module, or correct `component` in its manifest")
    };
    let mut bytes = Vec::new();
    let limit = COMPONENT_BYTES_MAX as u64 + 1;
    File::open(file)
        .and_then(|opened| opened.take(limit).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() > COMPONENT_BYTES_MAX {
        let mib = COMPONENT_BYTES_MAX >> 20;
        let message =
            format!("{} is larger than {mib} MiB, the most a component may be", file.display());
        return Err(Problem::new(Code::Module, message));
    }
    Ok(bytes)
}

/// The path without `folder/..`, for people: manifests point up and into the build directory.
pub fn tidy(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut tidy, part| {
        let pops = part == Component::ParentDir
            && matches!(tidy.components().next_back(), Some(Component::Normal(_)));
        match part {
            Component::CurDir => (),
            _ if pops => drop(tidy.pop()),
            _ => tidy.push(part),
        }
        tidy
    })
}

/// What the host says about a component it refused.
pub fn refused(file: &Path, error: &(dyn std::error::Error + 'static)) -> Problem {
    Problem::new(Code::Module, format!("{}: {}", tidy(file).display(), in_words(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tidy_path_has_no_way_up_and_down_again() {
        check("modules/ledger/../../target/ledger.wasm", "target/ledger.wasm");
        check("/a/../b", "/b");
        check("../a/../b", "../b");
        check("../../b", "../../b");
        check("./a", "a");
    }

    fn check(path: &str, expected: &str) {
        assert_eq!(tidy(Path::new(path)), Path::new(expected));
    }
}
