//! `shepherd journal stat`: what a journal holds, in numbers.

use shepherd_admin::view::{StatView, TimedBlockView};

use crate::{
    cli,
    config::Config,
    exit::Failure,
    show::{count, print, print_json, print_table, size, table},
    view::{View, the_chains},
};

/// Prints counts, first and last block, and the segments of each chain's journal.
pub fn stat(config: &Config, args: &cli::OneChain) -> Result<(), Failure> {
    let view = View::open(config)?;
    let mut all = Vec::new();
    for chain in the_chains(config, args.chain.as_ref()) {
        all.push(view.stat(&chain)?);
    }
    if args.json {
        print_json(&all);
        return Ok(());
    }
    for (position, stat) in all.iter().enumerate() {
        if position > 0 {
            print("\n");
        }
        print(&text(stat));
        if stat.segments.is_empty() {
            continue;
        }
        let mut rows = table(&["SEGMENT", "FROM", "TO", "RECORDS", "INDEX"]);
        for segment in &stat.segments {
            rows.add_row([
                segment.number.to_string(),
                segment.from.to_string(),
                segment.to.to_string(),
                size(segment.bytes),
                size(segment.index_bytes),
            ]);
        }
        print("\n");
        print_table(&mut rows);
    }
    Ok(())
}

fn text(stat: &StatView) -> String {
    let block = |block: &Option<TimedBlockView>| match block {
        None => "none yet".to_owned(),
        Some(TimedBlockView { block, time }) => {
            format!("block {} of {time}, {}", block.number, block.hash)
        }
    };
    let StatView { chain, chain_id, start, tail, records, blocks, reverts, outcomes, .. } = stat;
    format!(
        "{chain}, chain id {chain_id}\n\n\
         genesis   {}\n\
         records   {records}: {}, {}, {}\n\
         offsets   from {start}, next {tail}\n\
         first     {}\n\
         last      {}\n\
         indexed   before {}\n\
         on disk   {}, without what is not sorted into segments yet\n",
        stat.genesis.as_deref().unwrap_or("not known yet"),
        count(*blocks, "block"),
        count(*reverts, "revert"),
        count(*outcomes, "outcome"),
        block(&stat.first),
        block(&stat.last),
        stat.indexed_to,
        size(stat.bytes_on_disk),
    )
}
