//! What is asked of a journal, with and without a daemon that has it open.

mod common;

use std::fs;

use alloy_primitives::{Address, B256, address, b256};
use common::{Folder, anvil, block_on, journaled};
use serde_json::{Value, json};
use shepherd_devnet::Anvil;

/// A folder whose journal holds this chain up to its head, and no daemon.
fn followed(anvil: &Anvil) -> Folder {
    let folder = Folder::new(anvil.http_url().as_str());
    follow(&folder, anvil);
    folder
}

/// Runs a daemon until the journal is where the chain is.
fn follow(folder: &Folder, anvil: &Anvil) {
    let daemon = folder.start();
    journaled(folder, block_on(anvil.head()).unwrap().number);
    daemon.stop();
}

#[test]
fn a_verified_past_is_held_against_its_summary() {
    let anvil = anvil(31337);
    block_on(anvil.mine(3)).unwrap();
    let folder = followed(&anvil);
    let ended = folder.run(&["journal", "verify", "--summary", "then.json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let summary = fs::read_to_string(folder.path("then.json")).unwrap();
    let view: Value = serde_json::from_str(&summary).unwrap();
    assert!(ended.stdout.contains(view["digest"].as_str().unwrap()), "{}", ended.stdout);
    for (key, expected) in [
        ("chain", json!("devnet")),
        ("chain_id", json!(31337)),
        ("trust", json!("bloom")),
        ("from", json!("0")),
        ("to", json!("4")),
        ("blocks", json!(4)),
        ("problems", json!(0)),
    ] {
        assert_eq!(view[key], expected, "{key}");
    }
    assert_eq!(view["head"]["number"], 3);

    // The journal has grown; what was verified is still there.
    block_on(anvil.mine(2)).unwrap();
    follow(&folder, &anvil);
    let ended = folder.run(&["journal", "verify", "--against", "then.json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("6 records"), "{}", ended.stdout);
    assert!(ended.stdout.contains("before 4 are those of then.json"), "{}", ended.stdout);

    // Another past, as long and without any fault of its own.
    let other = common::anvil(31337);
    block_on(other.mine_at(4_000_000_000)).unwrap();
    block_on(other.mine(4)).unwrap();
    let elsewhere = followed(&other);
    elsewhere.write("then.json", &summary);
    let args = ["journal", "verify", "--against", "then.json"];
    elsewhere.fails(&args, 8, &["the records before 4 are not those of the summary"]);

    // A summary of more than there is.
    folder.run(&["journal", "verify", "--summary", "now.json"]);
    let young = common::anvil(31337);
    block_on(young.mine(1)).unwrap();
    let shorter = followed(&young);
    shorter.write("now.json", fs::read(folder.path("now.json")).unwrap());
    let args = ["journal", "verify", "--against", "now.json"];
    shorter.fails(&args, 8, &["the journal ends at record 2, the summary at 6"]);

    folder.write("then.json", summary.replace("\"blocks\": 4", "\"blocks\": 5"));
    let args = ["journal", "verify", "--against", "then.json"];
    folder.fails(&args, 1, &["then.json was changed"]);
}

#[test]
fn reorgs_are_listed_with_what_they_abandoned_with_and_without_the_daemon() {
    let anvil = anvil(31337);
    block_on(anvil.mine(5)).unwrap();
    let folder = Folder::new(anvil.http_url().as_str());
    let daemon = folder.start();
    journaled(&folder, 5);
    let calm = folder.run(&["reorgs"]);
    assert_eq!(calm.stdout, "No chain has taken back a block.\n", "{calm:?}");
    let old = [4, 5].map(|number| block_on(anvil.block(number)).unwrap().hash.to_string());
    block_on(anvil.reorg(2)).unwrap();
    block_on(anvil.mine(1)).unwrap();
    journaled(&folder, 6);

    let commands: [&[&str]; 4] =
        [&["reorgs"], &["reorgs", "--json"], &["journal", "stat"], &["journal", "stat", "--json"]];
    let with_daemon = commands.map(|command| folder.run(command));
    daemon.stop();
    for (command, with_daemon) in commands.iter().zip(&with_daemon) {
        let without = folder.run(command);
        assert_eq!((without.code, &without.stdout), (Some(0), &with_daemon.stdout), "{command:?}");
    }
    let view: Value = serde_json::from_str(&with_daemon[1].stdout).unwrap();
    let reorg = &view[0]["reorgs"][0];
    assert_eq!((&view[0]["total"], &reorg["depth"]), (&json!(1), &json!(2)));
    assert_eq!((&reorg["offset"], &reorg["ancestor"]["number"]), (&json!("6"), &json!(3)));
    for (abandoned, hash) in reorg["abandoned"].as_array().unwrap().iter().zip(&old) {
        assert_eq!(abandoned["hash"], *hash);
        assert!(with_daemon[0].stdout.contains(hash), "{}", with_daemon[0].stdout);
    }
    let stat: Value = serde_json::from_str(&with_daemon[3].stdout).unwrap();
    for (key, expected) in
        [("records", json!(10)), ("blocks", json!(9)), ("reverts", json!(1)), ("start", json!("0"))]
    {
        assert_eq!(stat[0][key], expected, "{key}");
    }
    assert_eq!((&stat[0]["first"]["number"], &stat[0]["last"]["number"]), (&json!(0), &json!(6)));
}

/// A contract that emits one log with `TOPIC` whenever it is called.
const LOUD: Address = address!("00000000000000000000000000000000000000a1");
/// Another one.
const RARE: Address = address!("00000000000000000000000000000000000000b2");
const TOPIC: B256 = b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");

/// Mines blocks in which both contracts are called: the loud one in each, the rare one in some.
fn make_logs(anvil: &Anvil, blocks: u64, rare: &[u64]) {
    let code = [&[0x7f][..], TOPIC.as_slice(), &[0x60, 0, 0x60, 0, 0xa1, 0]].concat();
    for contract in [LOUD, RARE] {
        block_on(anvil.set_code(contract, code.clone().into())).unwrap();
    }
    let from = anvil.accounts()[0];
    for block in 0..blocks {
        let rare = rare.contains(&block).then_some(RARE);
        for to in [LOUD].into_iter().chain(rare) {
            let transaction = json!([{"from": from, "to": to, "gas": "0x186a0"}]);
            block_on(anvil.call("eth_sendTransaction", transaction)).unwrap();
        }
        block_on(anvil.mine(1)).unwrap();
    }
}

#[test]
fn logs_are_found_by_contract_topic_and_stretch_with_and_without_the_daemon() {
    let anvil = anvil(31337);
    make_logs(&anvil, 300, &[7, 260, 299]);
    let folder = Folder::new(anvil.http_url().as_str());
    let daemon = folder.start();
    journaled(&folder, 300);
    let (loud, rare, topic) = (LOUD.to_string(), RARE.to_string(), TOPIC.to_string());
    let cases: [(&[&str], u64, bool); 9] = [
        (&["--address", &rare], 3, true),
        (&["--address", &rare, "--topic0", &topic], 3, true),
        (&["--address", &rare, "--to", "8"], 1, true),
        (&["--address", &rare, "--from", "9", "--to", "261"], 1, true),
        (&["--address", &rare, "--address", &loud, "--from", "300"], 2, true),
        (&["--address", &loud, "--limit", "10"], 10, false),
        (&["--address", &loud, "--from", "-1d"], 300, true),
        (&["--address", &loud, "--to", "2000-01-01"], 0, true),
        (&["--topic0", &format!("{:?}", B256::ZERO)], 0, true),
    ];
    let find = |args: &[&str]| folder.json(&[&["journal", "find", "--json"], args].concat());
    let touched = |view: &Value| (view["blocks_read"].clone(), view["blocks_skipped"].clone());
    // How much had to be read depends on what the process had in memory.
    let found = |mut view: Value| {
        for cost in ["microseconds", "blocks_read", "blocks_skipped"] {
            view[cost] = json!(null);
        }
        view
    };
    let rare_found = find(cases[0].0);
    assert_eq!(touched(&rare_found), (json!(3), json!(298)));
    let with_daemon: Vec<Value> = cases.iter().map(|(args, ..)| found(find(args))).collect();
    daemon.stop();
    for ((args, logs, complete), with_daemon) in cases.iter().zip(&with_daemon) {
        let without = found(find(args));
        assert_eq!(without, *with_daemon, "{args:?}");
        assert_eq!(without["logs"].as_array().unwrap().len() as u64, *logs, "{args:?}");
        assert_eq!(without["complete"], *complete, "{args:?}");
    }
    assert_eq!(with_daemon[0]["logs"][1]["block"]["number"], 261);
    assert_eq!(with_daemon[0]["logs"][1]["address"], rare);
    let ended = folder.run(&["journal", "reindex"]);
    assert!(ended.stdout.starts_with("devnet: 301 records indexed in "), "{ended:?}");
    // The last chunk is not complete, so its 45 blocks are read.
    let again = find(cases[0].0);
    assert_eq!(found(again.clone()), with_daemon[0]);
    assert_eq!(touched(&again), (json!(46), json!(255)));
}

#[test]
fn what_was_exported_is_imported_at_full_trust_and_copied_between_directories() {
    let anvil = anvil(31337);
    make_logs(&anvil, 30, &[7]);
    let folder = followed(&anvil);
    let export = folder.run(&["journal", "export", "--out", "files"]);
    let view: Value = serde_json::from_str(export.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&view["blocks"], &view["logs"]), (&json!(31), &json!(31)), "{export:?}");
    let again = folder.run(&["journal", "export", "--out", "files"]);
    let view: Value = serde_json::from_str(again.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&view["files_written"], &view["files_kept"]), (&json!(0), &json!(2)));

    let args = ["journal", "export", "--format", "jsonl", "--out", "-", "--from", "8", "--to", "9"];
    let lines = folder.run(&args).stdout;
    let numbers: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["number"].clone())
        .collect();
    assert_eq!(numbers, [json!(8), json!(9)]);
    let rare = RARE.to_string();
    let args = ["journal", "export", "--format", "jsonl", "--out", "-", "--address", &rare];
    assert_eq!(folder.run(&args).stdout.lines().count(), 1);

    // Nothing is asked of an endpoint, and there is none.
    let digest =
        |folder: &Folder| folder.json(&["journal", "verify", "--json"])[0]["digest"].clone();
    let data = folder.path("data");
    for source in [folder.path("files"), data] {
        let other = Folder::new(common::NOWHERE);
        let import = ["journal", "import", "--offline", source.to_str().unwrap()];
        let ended = other.run(&import);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let view: Value = serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap();
        assert_eq!((&view["blocks"], &view["complete"]), (&json!(31), &json!(true)));
        assert_eq!(digest(&other), digest(&folder), "{}", source.display());
    }
    folder.fails(&["journal", "import", "nothing-there"], 1, &["nothing-there"]);
    folder.fails(&["journal", "export", "--out", "x", "--from", "99"], 1, &["no block from"]);
}
