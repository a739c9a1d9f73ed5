//! The same history again: each lane from its first record, from the journal and its tape alone.
//!
//! What Shepherd lived through, kills, outages and reorgs included, must not show in what it
//! computed. So every lane is run again into an empty store, in steps of random lengths, with
//! nobody to ask, and has to end with the same state and the same digest.

use std::{fs, path::Path};

use alloy_primitives::B256;
use anyhow::{Context, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shepherd_dispatch::Runner;
use shepherd_host::{Engine, EngineOptions, Manifest, Overrides, TapeReads};
use shepherd_log::{LaneId, Offset, Options, Store, TapeEntry};
use toml::{Table, Value};

/// A lane that came to the same.
pub struct Replayed {
    /// The lane.
    pub lane: LaneId,
    /// Records it passed.
    pub records: u64,
    /// Steps it took this time.
    pub steps: u64,
    /// Answers on its tape.
    pub answers: usize,
    /// Its digest, both times.
    pub digest: B256,
}

/// Longest step, in records.
const STEP_RECORDS_MAX: usize = 40;

/// Runs every lane of a stopped Shepherd again. An error names a lane that came to something else.
pub fn replay(folder: &Path, seed: u64) -> anyhow::Result<Vec<Replayed>> {
    let config: Table = fs::read_to_string(folder.join("shepherd.toml"))?.parse()?;
    let modules = config["modules"].as_array().context("the modules")?;
    let live = Store::open(&folder.join("data"), Options::default())?;
    let mut rng = StdRng::seed_from_u64(seed);
    modules.iter().map(|module| replay_lane(&live, module, &mut rng)).collect()
}

fn replay_lane(live: &Store, module: &Value, rng: &mut StdRng) -> anyhow::Result<Replayed> {
    let file = Path::new(module["manifest"].as_str().context("a manifest")?);
    let manifest = Manifest::parse(&fs::read_to_string(file)?, file)?;
    let component = fs::read(manifest.component())?;
    let mut overrides = Table::new();
    for key in ["config", "addresses"] {
        if let Some(value) = module.get(key) {
            overrides.insert(key.to_owned(), value.clone());
        }
    }
    let overrides: Overrides = overrides.try_into()?;
    let chain = "sepolia".parse()?;
    let journal = live.existing_journal(&chain).context("the journal")?;
    let engine = Engine::new(EngineOptions::default())?;
    let bound = engine.load(&manifest, &component)?.bind(&chain, journal.chain_id(), &overrides)?;
    let lane = bound.lane().clone();
    let recorded = live.lane_snapshot(&lane)?.context("the lane")?;

    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path(), Options::default())?;
    let copy = store.journal(&chain, journal.chain_id())?;
    let mut tape: Vec<TapeEntry> = Vec::new();
    for stored in journal.read(Offset::START..recorded.cursor().next) {
        let stored = stored?;
        copy.append(copy.tail().offset, &[stored.record().to_record()])?;
        for entry in recorded.tape(stored.offset())? {
            // One tape for all of it: reads come in the order of the records.
            let call = u32::try_from(tape.len())?;
            tape.push(TapeEntry { call, ..entry });
        }
    }
    let answers = tape.len();
    let mut tape = TapeReads::new(tape);
    let mut runner = Runner::new(store.lane(&lane)?, bound);
    let mut steps = 0;
    while runner.lane().cursor().next < copy.tail().offset {
        let most = rng.random_range(1..=STEP_RECORDS_MAX);
        let advanced = runner.advance(most, &mut tape, &|| false);
        advanced.with_context(|| format!("running {lane} again"))?;
        steps += 1;
    }
    drop(runner);
    let again = store.lane_snapshot(&lane)?.context("the lane, again")?;
    let (then, now) = (recorded.cursor(), again.cursor());
    ensure!(now.digest == then.digest, "{lane} came to {}, and now to {}", then.digest, now.digest);
    let same = again.state_digest()? == recorded.state_digest()?;
    ensure!(same, "{lane} has another state when it is run again");
    let (records, digest) = (now.next.get(), B256::from(now.digest.0));
    Ok(Replayed { lane, records, steps, answers, digest })
}
