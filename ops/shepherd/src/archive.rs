//! The versions that lanes ran with, kept beside the store so that they can run again.
//!
//! ```text
//! DATA_DIR/modules/SHA256.wasm   a component
//!                  SHA256.json   a binding: its manifest, chain and overrides
//! ```
//!
//! Both are named by what is in them, so that nothing is ever written twice or changed. A lane's
//! cursor remembers the two names; an operator may replace the files its configuration points to.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use shepherd_host::{BoundModule, Engine, Manifest, Overrides, Sha256};
use shepherd_log::{LaneId, LaneVersion};

use crate::{
    exit::{Code, NO_ROOM_HELP, Problem, file_problem},
    modules::{self, Configured},
};

/// How a binding is written. Another layout gets another number.
const FORMAT: u32 = 1;

/// Everything but the component that decides what a lane computes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    chain: String,
    chain_id: u64,
    /// The text of its module.toml.
    manifest: String,
    /// What was laid over it, as TOML: JSON would not tell `1` from `1.0`.
    overrides: String,
}

/// The folder of a data directory.
pub struct Archive {
    folder: PathBuf,
}

impl Archive {
    /// That of a data directory. Nothing is read or written yet.
    pub fn of(data_dir: &Path) -> Archive {
        Archive { folder: data_dir.join("modules") }
    }

    /// Keeps what a lane is about to run with. When this returns, it survives a power cut.
    pub fn keep(&self, module: &Configured) -> Result<LaneVersion, Problem> {
        let binding = document(module);
        let version = LaneVersion { module: module.sha256().0, binding: Sha256::of(&binding).0 };
        let kept = self
            .create_folder()
            .and_then(|()| keep(&self.component(version.module), &module.component))
            .and_then(|()| keep(&self.binding(version.binding), &binding))
            // Also what an earlier process has named and was killed before this.
            .and_then(|()| File::open(&self.folder)?.sync_all());
        kept.map_err(|error| {
            let problem = file_problem(Code::WriteFailed, "write to", &self.folder, &error);
            problem.help(NO_ROOM_HELP)
        })?;
        Ok(version)
    }

    /// A lane's module as it was with this version.
    pub fn load(
        &self,
        engine: &Engine,
        lane: &LaneId,
        version: &LaneVersion,
    ) -> Result<BoundModule, Problem> {
        let (component_file, binding_file) =
            (self.component(version.module), self.binding(version.binding));
        let component = self.read(lane, &component_file, version.module)?;
        let binding = self.read(lane, &binding_file, version.binding)?;
        let unreadable = |why: String| {
            let message = format!("{}: {why}", binding_file.display());
            Problem::new(Code::Module, message)
                .help("use the version of Shepherd that wrote it, or a newer one")
        };
        let document: Document =
            serde_json::from_slice(&binding).map_err(|error| unreadable(error.to_string()))?;
        if document.format != FORMAT {
            return Err(unreadable(format!("its format is {}", document.format)));
        }
        if document.chain != lane.chain.as_str() {
            return Err(unreadable(format!("it is of chain {}", document.chain)));
        }
        let overrides: Overrides = toml::from_str(&document.overrides)
            .map_err(|error| unreadable(error.message().to_owned()))?;
        let manifest = Manifest::parse(&document.manifest, &binding_file)
            .map_err(|error| Problem::from_error(Code::Module, &error))?;
        let module = engine
            .load(&manifest, &component)
            .map_err(|error| modules::refused(&component_file, &error))?;
        module
            .bind(&lane.chain, document.chain_id, &overrides)
            .map_err(|error| Problem::from_error(Code::Module, &error))
    }

    fn create_folder(&self) -> io::Result<()> {
        if self.folder.exists() {
            return Ok(());
        }
        fs::create_dir_all(&self.folder)?;
        let data_dir = self.folder.parent().expect("it is in a data directory");
        File::open(data_dir)?.sync_all()
    }

    fn component(&self, sha256: [u8; 32]) -> PathBuf {
        self.folder.join(format!("{}.wasm", Sha256(sha256)))
    }

    fn binding(&self, sha256: [u8; 32]) -> PathBuf {
        self.folder.join(format!("{}.json", Sha256(sha256)))
    }

    /// The content of a file, which must be what its name says.
    fn read(&self, lane: &LaneId, file: &Path, sha256: [u8; 32]) -> Result<Vec<u8>, Problem> {
        let bytes = fs::read(file).map_err(|error| {
            let message = format!(
                "lane {lane} ran with a version that is not there any more: cannot read {}: {error}",
                file.display()
            );
            let help = "restore the folder from a backup; the lane itself needs it only to be \
                        replayed";
            Problem::new(Code::Module, message).help(help)
        })?;
        if Sha256::of(&bytes).0 != sha256 {
            let message =
                format!("{} was changed: its sha256 is {}", file.display(), Sha256::of(&bytes));
            return Err(Problem::new(Code::Module, message).help("restore it from a backup"));
        }
        Ok(bytes)
    }
}

/// The names that a module's two files would have.
pub fn version(module: &Configured) -> LaneVersion {
    LaneVersion { module: module.sha256().0, binding: Sha256::of(&document(module)).0 }
}

fn document(module: &Configured) -> Vec<u8> {
    let document = Document {
        format: FORMAT,
        chain: module.bound.lane().chain.to_string(),
        chain_id: module.bound.chain_id(),
        manifest: module.manifest.clone(),
        overrides: toml::to_string(&module.overrides).expect("overrides were TOML"),
    };
    serde_json::to_vec(&document).expect("a struct of plain values")
}

/// Writes a file unless it is there: its name says what is in it.
fn keep(file: &Path, content: &[u8]) -> io::Result<()> {
    if file.exists() {
        return Ok(());
    }
    let folder = file.parent().expect("a file in the archive");
    let mut unfinished = tempfile::NamedTempFile::new_in(folder)?;
    unfinished.write_all(content)?;
    unfinished.as_file().sync_all()?;
    unfinished.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "name = 'probe'\ncomponent = 'probe.wasm'\ncapabilities = []\n\
                            [subscribe]\nblock_every = 1\n";

    #[test]
    fn what_is_kept_is_found_by_what_is_in_it_and_nothing_else_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::of(dir.path());
        let lane: LaneId = "probe@devnet".parse().unwrap();
        fs::create_dir_all(&archive.folder).unwrap();
        let binding = |format: u32, chain: &str| {
            let document = Document {
                format,
                chain: chain.to_owned(),
                chain_id: 31_337,
                manifest: MANIFEST.to_owned(),
                overrides: String::new(),
            };
            let binding = serde_json::to_vec(&document).unwrap();
            let sha256 = Sha256::of(&binding).0;
            keep(&archive.binding(sha256), &binding).unwrap();
            sha256
        };
        let component = b"not a component";
        let module = Sha256::of(component).0;
        keep(&archive.component(module), component).unwrap();
        keep(&archive.component(module), component).unwrap();
        let engine = modules::engine().unwrap();
        let why = |version: LaneVersion| {
            archive.load(&engine, &lane, &version).expect_err("it cannot be").message
        };
        let devnet = binding(FORMAT, "devnet");
        for (version, expected) in [
            (LaneVersion { module, binding: devnet }, "not a component"),
            (LaneVersion { module, binding: [1; 32] }, "is not there any more"),
            (LaneVersion { module: [1; 32], binding: devnet }, "is not there any more"),
            (LaneVersion { module, binding: binding(2, "devnet") }, "its format is 2"),
            (LaneVersion { module, binding: binding(FORMAT, "moon") }, "it is of chain moon"),
        ] {
            let message = why(version);
            assert!(message.contains(expected), "{message}");
        }
        fs::write(archive.component(module), "changed").unwrap();
        let message = why(LaneVersion { module, binding: devnet });
        assert!(message.contains("was changed: its sha256 is "), "{message}");
    }
}
