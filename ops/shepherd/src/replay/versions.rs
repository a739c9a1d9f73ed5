//! The code that a lane ran with, for whoever runs it again.

use std::{cell::OnceCell, collections::BTreeMap, error::Error, fmt};

use shepherd_host::{BoundModule, Engine};
use shepherd_log::{LaneId, LaneVersion, StorageError, Store};
use shepherd_replay::LoadVersionError;

use crate::{
    archive::Archive,
    config::Config,
    exit::{Code, Failure, Problem},
    modules::{self, Configured},
};

/// Loads each version once, however often a lane changed between them.
pub struct Versions<'c> {
    config: &'c Config,
    archive: Archive,
    engine: Engine,
    loaded: BTreeMap<(LaneId, [u8; 32], [u8; 32]), BoundModule>,
    configured: OnceCell<Vec<Configured>>,
}

/// A version that could not be loaded, on its way through a replay.
#[derive(Debug)]
pub struct NotLoaded(pub Problem);

impl fmt::Display for NotLoaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl Error for NotLoaded {}

impl<'c> Versions<'c> {
    /// Lanes of a store that is older than versions do not say what they ran. For them it is
    /// written down now, as `shepherd run` would at its next start: what is configured.
    pub fn of_old_stores(
        config: &'c Config,
        engine: &Engine,
        store: &Store,
        lanes: &[LaneId],
    ) -> Result<(), Failure> {
        let untrusted = |error: &StorageError| Problem::from_error(Code::Untrusted, error);
        let versions = Versions::new(config, engine);
        for lane in lanes {
            let snapshot = store.lane_snapshot(lane).map_err(|error| untrusted(&error))?;
            let known = snapshot.map(|snapshot| snapshot.versions()).transpose();
            if known.map_err(|error| untrusted(&error))?.is_none_or(|known| !known.is_empty()) {
                continue;
            }
            let configured = versions.configured(lane)?;
            let version = versions.archive.keep(configured)?;
            eprintln!(
                "{lane}: what it ran was not written down; taken to be what is configured, \
                 sha256 {}",
                configured.sha256()
            );
            let opened = store.lane(lane);
            let mut opened =
                opened.map_err(|error| Problem::from_error(Code::Untrusted, &error))?;
            opened.set_version(version).map_err(|error| untrusted(&error))?;
        }
        Ok(())
    }

    /// Those of a configuration's data directory.
    pub fn new(config: &'c Config, engine: &Engine) -> Versions<'c> {
        Versions {
            config,
            archive: Archive::of(&config.data_dir),
            engine: engine.clone(),
            loaded: BTreeMap::new(),
            configured: OnceCell::new(),
        }
    }

    /// A lane's module as it was with a version.
    fn load(&mut self, lane: &LaneId, version: &LaneVersion) -> Result<BoundModule, Problem> {
        let key = (lane.clone(), version.module, version.binding);
        if let Some(module) = self.loaded.get(&key) {
            return Ok(module.clone());
        }
        let module = self.archive.load(&self.engine, lane, version)?;
        self.loaded.insert(key, module.clone());
        Ok(module)
    }

    /// The same, for a replay that calls for it.
    pub fn load_again(
        &mut self,
        version: &LaneVersion,
        lane: &LaneId,
    ) -> Result<BoundModule, LoadVersionError> {
        Ok(self.load(lane, version).map_err(NotLoaded)?)
    }

    /// A lane's module as it is configured now.
    fn configured(&self, lane: &LaneId) -> Result<&Configured, Failure> {
        let configured = match self.configured.get() {
            Some(configured) => configured,
            None => {
                let loaded = modules::load_all(self.config, &self.engine);
                let loaded = loaded.map_err(|problems| Failure { problems })?;
                self.configured.get_or_init(|| loaded)
            }
        };
        let found = configured.iter().find(|module| module.bound.lane() == lane);
        let found = found.ok_or_else(|| {
            let message = format!(
                "which code lane {lane} ran with was not written down, and no [[modules]] in the \
                 configuration is that lane"
            );
            Problem::new(Code::Module, message).help("add the module that it ran with")
        })?;
        Ok(found)
    }
}
