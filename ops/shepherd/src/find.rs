//! `shepherd journal find`: logs by contract and first topic.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use shepherd_admin::{
    find::{Bound, Stretch},
    view::{FoundLogView, FoundView},
};
use shepherd_ingest::Start;

use crate::{
    cli,
    config::Config,
    exit::Failure,
    show::{count, print, print_json, print_table, table},
    view::{View, the_chain},
};

/// What was found, as JSON.
#[derive(Serialize)]
struct Found {
    chain: String,
    logs: Vec<FoundLogView>,
    /// Whether these are all that match.
    complete: bool,
    blocks_read: u64,
    blocks_skipped: u64,
    /// How long the journal was looked at.
    microseconds: u64,
}

/// Prints the logs that match, and how many blocks had to be read for them.
pub fn find(config: &Config, args: &cli::Find) -> Result<(), Failure> {
    let chain = the_chain(config, args.chain.as_ref())?;
    let filter = args.logs.filter();
    let stretch =
        Stretch { from: args.from.map(bound), to: args.to.map(bound), abandoned: args.abandoned };
    let view = View::open(config)?;
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let mut found = Found {
        chain: chain.to_string(),
        logs: Vec::new(),
        complete: false,
        blocks_read: 0,
        blocks_skipped: 0,
        microseconds: 0,
    };
    let mut after = None;
    loop {
        let page = view.find(&chain, &filter, stretch, after)?;
        after = page.more_from;
        found.add(page);
        if after.is_none() || limit <= found.logs.len() {
            break;
        }
    }
    found.complete = after.is_none() && found.logs.len() <= limit;
    found.logs.truncate(limit);
    if args.json {
        print_json(&found);
    } else {
        found.print();
    }
    Ok(())
}

/// A place in the chain as one end of a stretch. Ages count from now.
pub fn bound(place: Start) -> Bound {
    match place {
        Start::Block(number) => Bound::Block(number),
        Start::Latest => Bound::Block(u64::MAX),
        Start::At(seconds) => Bound::Time(seconds),
        Start::Ago(age) => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            Bound::Time(now.unwrap_or_default().saturating_sub(age).as_secs())
        }
    }
}

impl Found {
    fn add(&mut self, page: FoundView) {
        self.logs.extend(page.logs);
        self.blocks_read += page.blocks_read;
        self.blocks_skipped += page.blocks_skipped;
        self.microseconds += page.microseconds;
    }

    fn print(&self) {
        if self.logs.is_empty() {
            print("No log matches.\n");
        } else {
            let mut rows = table(&["BLOCK", "TIME", "LOG", "ADDRESS", "TOPIC0"]);
            for log in &self.logs {
                let note = if log.abandoned { "  abandoned" } else { "" };
                let topic0 = log.topics.first().map_or("-", String::as_str);
                rows.add_row([
                    log.block.number.to_string(),
                    log.time.clone(),
                    log.index.to_string(),
                    log.address.clone(),
                    format!("{topic0}{note}"),
                ]);
            }
            print_table(&mut rows);
        }
        let logs = count(self.logs.len() as u64, "log");
        let more = if self.complete { "" } else { ", and there are more: --limit N" };
        let (read, skipped) = (count(self.blocks_read, "block"), self.blocks_skipped);
        let took = Duration::from_micros(self.microseconds);
        print(&format!(
            "\n{logs}{more}; {read} read, {skipped} skipped by the index, {took:.1?}\n"
        ));
    }
}
