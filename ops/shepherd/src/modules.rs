//! Modules from their files: found, the pinned ones, compiled, and configured for their chains.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use shepherd_host::{
    BoundModule, Engine, EngineOptions, Manifest, ManifestError, Module, Sha256,
    limits::COMPONENT_BYTES_MAX,
};
use shepherd_log::LaneId;

use shepherd_rpc::in_words;

use crate::{
    config::{self, Config},
    exit::{Code, Place, Problem, file_problem},
};

/// The sandbox for every module of the process.
pub fn engine() -> Result<Engine, Problem> {
    Engine::new(EngineOptions::default()).map_err(|error| Problem::from_error(Code::Failed, &error))
}

/// Every configured module on each of its chains, or everything that is wrong with any of them.
pub fn load_all(config: &Config, engine: &Engine) -> Result<Vec<BoundModule>, Vec<Problem>> {
    let mut bound = Vec::new();
    let mut problems = Vec::new();
    let mut lanes = BTreeSet::<LaneId>::new();
    for entry in &config.modules {
        let module = match load(entry, engine) {
            Ok(module) => module,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        for name in &entry.chains {
            let lane = LaneId { module: module.manifest().name().clone(), chain: name.clone() };
            if !lanes.insert(lane.clone()) {
                let message = format!("two modules would be the lane {lane}");
                let problem = Problem::new(Code::Module, message);
                problems.push(problem.at(entry.manifest_place.clone()));
                continue;
            }
            let chain = config.chains.iter().find(|chain| chain.name == *name);
            let chain_id = chain.expect("a module's chains are among the configured").chain_id;
            match module.bind(name, chain_id, &entry.overrides) {
                Ok(module) => bound.push(module),
                Err(error) => {
                    let problem = Problem::from_error(Code::Module, &error);
                    let problem = problem.help("correct its `config` or `addresses`");
                    problems.push(problem.at(entry.manifest_place.clone()));
                }
            }
        }
    }
    if problems.is_empty() { Ok(bound) } else { Err(problems) }
}

fn load(entry: &config::Module, engine: &Engine) -> Result<Module, Problem> {
    let manifest = read_manifest(&entry.manifest).map_err(|problem| match problem.place {
        None => problem.at(entry.manifest_place.clone()),
        Some(_) => problem,
    })?;
    let component = read_component(manifest.component())
        .map_err(|problem| problem.at(entry.manifest_place.clone()))?;
    let found = Sha256::of(&component);
    if found != entry.sha256 {
        let file = tidy(manifest.component());
        let file = file.display();
        let message = format!("{file} is not the pinned component: its sha256 is {found}");
        let help = format!(
            "restore the file; if the change is yours, look at it with `shepherd module inspect \
             {}` and pin the new sha256",
            entry.manifest.display()
        );
        return Err(Problem::new(Code::Module, message).help(help).at(entry.sha256_place.clone()));
    }
    engine
        .load(&manifest, &component)
        .map_err(|error| Problem::from_error(Code::Module, &error).at(entry.manifest_place.clone()))
}

/// Reads and checks a manifest.
pub fn read_manifest(file: &Path) -> Result<Manifest, Problem> {
    let text = fs::read_to_string(file)
        .map_err(|error| file_problem(Code::Module, "read the manifest", file, &error))?;
    Manifest::parse(&text, file).map_err(|error| manifest_problem(&text, error))
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
