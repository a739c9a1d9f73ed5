//! `shepherd journal reindex`: builds the log index of a journal anew.

use std::time::Instant;

use shepherd_log::Offset;

use crate::{
    cli,
    config::Config,
    exit::{Code, Failure, Problem},
    progress::Counter,
    show::{count, print, print_json},
    view::{existing_journal, open_existing, the_chains},
};

/// What was indexed, as JSON.
#[derive(serde::Serialize)]
struct Reindexed {
    chain: String,
    records: u64,
    seconds: f64,
}

/// Drops the log index of each chain and builds it from the records.
pub fn reindex(config: &Config, args: &cli::OneChain) -> Result<(), Failure> {
    let store = open_existing(config)?;
    let mut all = Vec::new();
    for chain in the_chains(config, args.chain.as_ref()) {
        let journal = existing_journal(&store, &chain)?;
        let (start, tail) = (journal.start(), journal.tail().offset);
        let started = Instant::now();
        let records = |to: Offset| to.get().saturating_sub(start.get());
        let counter = Counter::start(chain.as_str(), "records", records(tail));
        journal
            .reindex(|to| counter.set(records(to)))
            .map_err(|error| Problem::from_error(Code::Untrusted, &error))?;
        counter.end();
        let seconds = started.elapsed().as_secs_f64();
        all.push(Reindexed { chain: chain.to_string(), records: records(tail), seconds });
    }
    if args.json {
        print_json(&all);
        return Ok(());
    }
    for Reindexed { chain, records, seconds } in &all {
        print(&format!("{chain}: {} indexed in {seconds:.1} s\n", count(*records, "record")));
    }
    Ok(())
}
