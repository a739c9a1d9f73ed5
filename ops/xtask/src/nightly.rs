//! Tests that take too long for every change: the same ones as always, with more seeds.

use std::env;
use std::path::Path;

use crate::shell;

/// Seeds of the node that lies, unless `SHEPHERD_SEEDS` says otherwise.
const SEEDS: &str = "10000";

/// Follows ten thousand chains through endpoints that lie. Optimised, because that is what runs
/// in production, and because some races are only lost when everything is fast.
pub fn nightly(root: &Path) -> anyhow::Result<()> {
    let seeds = env::var("SHEPHERD_SEEDS").unwrap_or_else(|_| SEEDS.to_owned());
    let mut lies = shell::cargo(root);
    lies.args(["test", "--release", "--package", "shepherd-ingest", "--test", "lies"]);
    lies.args(["--", "--nocapture"]).env("SHEPHERD_SEEDS", seeds);
    shell::run(&mut lies)
}
