//! A daemon that keeps a journal to an age, with a reader that is in the way and without.

mod common;

use alloy_primitives::B256;
use common::{Folder, NOWHERE};
use serde_json::json;
use shepherd_log::{Block, BlockRef, Header, Options, Record, Store};

/// Records of one segment, the grain of retention.
const SEGMENT: u64 = 16_384;

/// A journal of somewhat more than one segment, and a lane that has applied nothing of it.
fn journal_with_a_slow_lane(folder: &Folder) {
    let store = Store::open(&folder.path("data"), Options::default()).unwrap();
    let journal = store.journal(&"devnet".parse().unwrap(), 31337).unwrap();
    drop(store.lane(&"slow@devnet".parse().unwrap()).unwrap());
    let hash = |number: u64| B256::left_padding_from(&(number + 1).to_be_bytes());
    let blocks: Vec<Record> = (0..SEGMENT + 1_000)
        .map(|number| {
            let this = BlockRef { number, hash: hash(number) };
            let parent = if number == 0 { B256::ZERO } else { hash(number - 1) };
            let timestamp = 1_700_000_000 + 12 * number;
            let header = Header { this, parent, timestamp, rlp: vec![0xc0].into() };
            Record::Block(Block { header, logs: Vec::new() })
        })
        .collect();
    for blocks in blocks.chunks(1_000) {
        journal.append(journal.tail().offset, blocks).unwrap();
    }
}

/// Forgets the lane: its module was taken out of use, and with it what it needs.
fn journal_without_a_lane(folder: &Folder) {
    journal_with_a_slow_lane(folder);
    std::fs::rename(folder.path("data"), folder.path("with-lane")).unwrap();
    let import = folder.run(&["journal", "import", "--trust", "link", "with-lane"]);
    assert_eq!(import.code, Some(0), "{import:?}");
}

fn folder() -> Folder {
    let folder = Folder::new(NOWHERE);
    folder.configure("chains.devnet.trust = \"link\"\n");
    folder.configure("chains.devnet.retention = { max_age = \"1h\" }\n");
    folder
}

#[test]
fn what_is_too_old_is_removed_and_said() {
    let folder = folder();
    journal_without_a_lane(&folder);
    let mut daemon = folder.start();
    let line = daemon.wait_for("retention removed records");
    assert_eq!((&line["records"], &line["start"]), (&json!(SEGMENT), &json!("16384")));
    daemon.stop();
    let stat = folder.json(&["journal", "stat", "--json"]);
    assert_eq!((&stat[0]["start"], &stat[0]["records"]), (&json!("16384"), &json!(1_000)));
    assert_eq!(stat[0]["first"]["number"], SEGMENT);
    let verified = folder.run(&["journal", "verify"]);
    assert!(verified.stdout.contains("1000 records from 16384 on"), "{verified:?}");
}

#[test]
fn a_reader_that_is_in_the_way_is_named() {
    let folder = folder();
    journal_with_a_slow_lane(&folder);
    let mut daemon = folder.start();
    let line = daemon.wait_for("retention is held up");
    assert_eq!((&line["by"], &line["needs"]), (&json!("lane slow@devnet"), &json!("0")));
    daemon.stop();
    let stat = folder.json(&["journal", "stat", "--json"]);
    assert_eq!((&stat[0]["start"], &stat[0]["records"]), (&json!("0"), &json!(SEGMENT + 1_000)));
}
