//! `shepherd reorgs`: the branches that chains took back.

use shepherd_admin::view::{BlockRefView, ReorgView};

use crate::{
    cli,
    config::Config,
    exit::Failure,
    show::{count, print, print_json, print_table, table},
    view::{View, the_chains},
};

/// Prints the newest reorgs of each chain with the blocks they abandoned.
pub fn reorgs(config: &Config, args: &cli::Reorgs) -> Result<(), Failure> {
    let view = View::open(config)?;
    let mut all = Vec::new();
    for chain in the_chains(config, args.chain.as_ref()) {
        all.push(view.reorgs(&chain, args.last as usize)?);
    }
    if args.json {
        print_json(&all);
        return Ok(());
    }
    if all.iter().all(|chain| chain.reorgs.is_empty()) {
        print("No chain has taken back a block.\n");
        return Ok(());
    }
    let mut rows = table(&["CHAIN", "RECORD", "TIME", "DEPTH", "", "BLOCK", "HASH"]);
    for chain in &all {
        for ReorgView { offset, time, depth, ancestor, abandoned } in &chain.reorgs {
            let (offset, depth) = (offset.to_string(), depth.to_string());
            let BlockRefView { number, hash } = ancestor;
            rows.add_row([
                &chain.chain,
                &offset,
                time,
                &depth,
                "back to",
                &number.to_string(),
                hash,
            ]);
            for BlockRefView { number, hash } in abandoned {
                rows.add_row(["", "", "", "", "abandoned", &number.to_string(), hash]);
            }
        }
    }
    print_table(&mut rows);
    for chain in &all {
        let hidden = chain.total - chain.reorgs.len() as u64;
        if hidden > 0 {
            let (earlier, total) = (count(hidden, "earlier reorg"), chain.total);
            print(&format!("\n{}: {earlier} not shown: --last {total}\n", chain.chain));
        }
    }
    Ok(())
}
