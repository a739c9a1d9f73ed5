//! A follower among endpoints that lie.
//!
//! ```text
//!   seed ──▶ chain, scripts, commands      follower ──▶ journal
//!                    │                        ▲            │
//!                    └──▶ nodes that lie ─────┘            ▼
//!                    └──▶ oracle ────────────▶ compare: is it the same chain?
//! ```
//!
//! Each seed is a chain that grows and forks while it is followed through one to three endpoints,
//! each with its own lies, over restarts of the follower. In the end one endpoint at least tells
//! the truth, and the journal must be the oracle's canonical chain: every block and every log.
//! Whatever else was ever journaled must be a block that really was produced.
//!
//! `SHEPHERD_SEED=7 cargo test -p shepherd-ingest --test lies` repeats one seed alone, and
//! `SHEPHERD_SEEDS=10000` tries that many, as `cargo xtask nightly` does.

mod compare;
mod follower;
mod history;

use std::{collections::BTreeMap, env, ops::Range, time::Instant};

use futures::{StreamExt, stream};
use shepherd_node::Lie;

/// Seeds when nobody says how many: what a CI run can afford.
const SEEDS: u64 = 500;

/// Seeds under way at once. Much of a seed is waiting for endpoints that stall.
const AT_ONCE: usize = 8;

/// Failures after which no further seeds are tried.
const FAILURES_MAX: usize = 5;

/// What all seeds together may add to the memory of the process. A store takes some megabytes
/// while it is open; ten thousand seeds that each left a little behind would exceed this.
const GROWTH_BYTES_MAX: u64 = 256 << 20;

#[test]
fn the_journal_becomes_the_canonical_chain_whatever_endpoints_say() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let seeds = seeds();
    let started = Instant::now();
    let all = seeds.end - seeds.start;
    let (mut tried, mut restarts, mut abandoned) = (0, 0, 0);
    let mut lies = BTreeMap::<Lie, usize>::new();
    let mut failures: Vec<u64> = Vec::new();
    let mut memory = Vec::new();
    runtime.block_on(async {
        let mut outcomes = stream::iter(seeds)
            .map(|seed| async move { (seed, tokio::spawn(history::history(seed)).await) })
            .buffer_unordered(AT_ONCE);
        while let Some((seed, outcome)) = outcomes.next().await {
            tried += 1;
            match outcome {
                Ok(Ok(history)) => {
                    history.lies.iter().for_each(|told| *lies.entry(told.lie).or_default() += 1);
                    restarts += history.restarts;
                    abandoned += history.abandoned;
                    if all == 1 {
                        println!("{history:#?}");
                    }
                }
                Ok(Err(failure)) => fail(&mut failures, seed, &failure),
                Err(panic) => fail(&mut failures, seed, &format!("it panicked: {panic}")),
            }
            memory.push(resident_bytes());
            if FAILURES_MAX <= failures.len() {
                break;
            }
        }
    });
    println!(
        "{tried} seeds in {:.1?}: {} lies, {restarts} restarts, {abandoned} blocks abandoned, \
         {} MB resident",
        started.elapsed(),
        lies.values().sum::<usize>(),
        resident_bytes() >> 20
    );
    assert!(failures.is_empty(), "of {tried} seeds these failed: {failures:?}");
    println!("{lies:?}");
    if SEEDS <= all {
        let untold: Vec<&Lie> = Lie::ALL.iter().filter(|lie| !lies.contains_key(lie)).collect();
        assert!(untold.is_empty(), "so nobody knows what happens on {untold:?}");
    }
    // What is needed while so many are under way is needed by the first hundred already.
    if let Some(settled) = memory.get(100) {
        let end = memory.last().expect("there are more than a hundred");
        let growth = end.saturating_sub(*settled);
        assert!(growth <= GROWTH_BYTES_MAX, "{} MB more than at first", growth >> 20);
    }
}

/// Says what is wrong with a seed, at once: ten thousand take a while.
fn fail(failures: &mut Vec<u64>, seed: u64, failure: &str) {
    println!("seed {seed}: {failure}");
    failures.push(seed);
}

/// The seeds to try.
fn seeds() -> Range<u64> {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    match number("SHEPHERD_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SHEPHERD_SEEDS").unwrap_or(SEEDS),
    }
}

/// Memory of this process, or zero where the system does not say.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}
