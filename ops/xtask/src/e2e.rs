//! A scripted day of the modules, on a devnet, with its report.

use std::env;
use std::path::Path;
use std::process::Command;

use crate::{guests, setup, shell};

/// Where the report of a day goes that someone asked for.
pub const REPORT: &str = "ops/docs/reports/e2e.md";

/// Lives through the day and writes `report`. Fails when anything is missing, doubled or strange.
pub fn e2e(root: &Path, report: &Path) -> anyhow::Result<()> {
    setup::setup(root)?;
    guests::build(root)?;
    // As a part of the whole workspace, because that is how the tests have built them.
    let mut build = shell::cargo(root);
    build.args(["build", "--workspace", "--bin", "shepherd", "--bin", "shepherd-e2e"]);
    shell::run(&mut build)?;
    let built = root.join("target/debug");
    let mut day = Command::new(built.join("shepherd-e2e"));
    day.arg("--shepherd").arg(built.join("shepherd")).arg("--report").arg(report);
    if let Ok(seed) = env::var("SHEPHERD_SEED") {
        day.arg("--seed").arg(seed);
    }
    shell::run(&mut day)
}
