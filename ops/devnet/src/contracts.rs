//! The contracts that `cargo xtask setup` compiled or took from their packages.

use std::collections::BTreeMap;
use std::fs;

use alloy_primitives::Bytes;
use anyhow::Context;
use serde::Deserialize;

use crate::anvil::target_dir;

/// Code of every contract, by its name.
#[derive(Debug)]
pub(crate) struct Contracts(BTreeMap<String, Code>);

/// One contract.
#[derive(Debug, Deserialize)]
pub(crate) struct Code {
    /// What creates it, without the constructor's arguments.
    #[serde(rename = "code")]
    pub creation: Bytes,
    /// What it runs once it is there.
    pub runtime: Bytes,
}

impl Contracts {
    /// Reads what the last set-up made.
    pub fn read() -> anyhow::Result<Contracts> {
        let file = target_dir().join("devnet/contracts.json");
        let made = || format!("no contracts at {}: run `cargo xtask setup`", file.display());
        let contracts = fs::read(&file).with_context(made)?;
        let contracts = serde_json::from_slice(&contracts).with_context(made)?;
        Ok(Contracts(contracts))
    }

    /// A contract that is known to be one of them.
    pub fn code(&self, name: &str) -> anyhow::Result<&Code> {
        let missing = || format!("no contract {name} has been compiled: run `cargo xtask setup`");
        self.0.get(name).with_context(missing)
    }
}
