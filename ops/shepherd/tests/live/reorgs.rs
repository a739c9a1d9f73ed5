//! After a reorg of any depth, also across restarts, state equals a fresh run on the final chain.

use rand::RngExt;
use shepherd_devnet::{Load, Signal};
use shepherd_log::{Offset, RecordView};

use crate::{
    common::{anvil, block_on},
    truth::{
        Left, PLAN, folder_with_websocket, rng, stop, undisturbed, until_caught_up, verify_again,
    },
};

const DEPTH_MAX: u64 = 10;

#[test]
fn after_reorgs_across_restarts_the_state_equals_a_fresh_run_on_the_final_chain() {
    let mut rng = rng();

    let anvil = anvil(31337);
    let load = block_on(Load::start(&anvil, PLAN)).unwrap();
    block_on(load.blocks(&anvil, DEPTH_MAX + 2)).unwrap();
    let folder = folder_with_websocket(&anvil);
    let mut daemon = folder.start();
    for depth in 1..=DEPTH_MAX {
        until_caught_up(&folder, &anvil);
        // While it watches, while it is down, and while it is being killed.
        match depth % 3 {
            0 => block_on(anvil.reorg(depth)).unwrap(),
            1 => {
                stop(daemon);
                block_on(anvil.reorg(depth)).unwrap();
                daemon = folder.start();
            }
            _ => {
                block_on(anvil.reorg(depth)).unwrap();
                daemon.signal(Signal::Kill);
                daemon.end();
                daemon = folder.start();
            }
        }
        block_on(load.blocks(&anvil, rng.random_range(depth..depth + 3))).unwrap();
    }
    until_caught_up(&folder, &anvil);
    stop(daemon);
    verify_again(&folder);

    let (forked, fresh) = (Left::by(&folder), undisturbed(&anvil));
    assert_eq!(forked.truth(), fresh.truth());
    forked.agrees_with_chain(&anvil, &load);
    forked.journal_digest();

    let records = forked.journal.read(Offset::START..forked.journal.tail().offset);
    let mut depths: Vec<usize> = records
        .filter_map(|stored| match stored.unwrap().record() {
            RecordView::Block(_) | RecordView::Outcome(_) => None,
            RecordView::Revert(revert) => Some(revert.abandoned.len()),
        })
        .collect();
    depths.sort_unstable();
    let expected: Vec<usize> = (1..=DEPTH_MAX as usize).collect();
    assert_eq!(depths, expected, "each reorg is one revert, of its depth");
}
