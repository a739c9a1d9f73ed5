//! A node that goes away and comes back costs time and nothing else.

use shepherd_devnet::Load;

use crate::{
    common::{anvil, block_on},
    truth::{
        Left, PLAN, folder_with_websocket, stop, undisturbed, until_admin, until_caught_up,
        verify_again,
    },
};

#[test]
fn blocks_made_during_an_outage_are_not_missed() {
    let node = anvil(31337);
    let load = block_on(Load::start(&node, PLAN)).unwrap();
    block_on(load.blocks(&node, 5)).unwrap();
    let folder = folder_with_websocket(&node);
    let daemon = folder.start();
    until_caught_up(&folder, &node);

    // The daemon says that it waits and for whom, and goes on trying.
    let stopped = block_on(node.stop()).unwrap();
    let waiting =
        until_admin(&folder, "/v1/chains", |view| view["chains"][0]["state"]["name"] == "waiting");
    let reason = waiting["chains"][0]["state"]["reason"].as_str().expect("it says why");
    assert!(reason.contains("no endpoint answers"), "{reason}");
    let metrics = crate::truth::admin(&folder, "/metrics");
    assert!(metrics.contains("shepherd_chain_fetch_failures_total"), "{metrics}");

    let node = block_on(stopped.start()).unwrap();
    block_on(load.blocks(&node, 30)).unwrap();
    until_caught_up(&folder, &node);
    until_admin(&folder, "/v1/chains", |view| view["chains"][0]["state"]["name"] == "following");
    stop(daemon);
    verify_again(&folder);

    let (left, calm) = (Left::by(&folder), undisturbed(&node));
    assert_eq!(left.truth(), calm.truth());
    assert_eq!(left.journal_digest(), calm.journal_digest());
    left.agrees_with_chain(&node, &load);
}

#[test]
fn blocks_made_while_the_daemon_was_down_are_not_missed() {
    let node = anvil(31337);
    let load = block_on(Load::start(&node, PLAN)).unwrap();
    let folder = folder_with_websocket(&node);
    for blocks in [1, 40, 7] {
        let daemon = folder.start();
        until_caught_up(&folder, &node);
        stop(daemon);
        block_on(load.blocks(&node, blocks)).unwrap();
    }
    let daemon = folder.start();
    until_caught_up(&folder, &node);
    stop(daemon);
    verify_again(&folder);

    let (left, calm) = (Left::by(&folder), undisturbed(&node));
    assert_eq!(left.truth(), calm.truth());
    assert_eq!(left.journal_digest(), calm.journal_digest());
    left.agrees_with_chain(&node, &load);
}
