//! A journal filled with the past, stopped on the way, and what that will cost.

mod common;

use std::fs;

use common::{Daemon, Folder, anvil, block_on, journaled};
use serde_json::{Value, json};
use shepherd_devnet::Signal;

/// The last line of an ingest that was piped.
fn last_line(stdout: &str) -> Value {
    serde_json::from_str(stdout.lines().last().expect("it ends with a line")).unwrap()
}

/// First and last block of the journal.
fn ends(folder: &Folder) -> (Value, Value) {
    let stat = folder.json(&["journal", "stat", "--json"]);
    (stat[0]["first"]["number"].clone(), stat[0]["last"]["number"].clone())
}

#[test]
fn the_past_is_ingested_from_one_block_to_another_and_followed_on_without_a_seam() {
    let anvil = anvil(31337);
    block_on(anvil.mine(300)).unwrap();
    let folder = Folder::new(anvil.http_url().as_str());
    let ended = folder.run(&["ingest", "--from", "100", "--to", "200"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let last = last_line(&ended.stdout);
    assert_eq!((&last["complete"], &last["blocks"]), (&json!(true), &json!(101)));
    assert_eq!(ends(&folder), (json!(100), json!(200)));

    let before = ["the journal of devnet begins with block 100 of", "another `data_dir`"];
    folder.fails(&["ingest", "--from", "99"], 1, &["begins with block 100 of"]);
    folder.fails(&["ingest", "--from", "2000-01-01"], 1, &before);
    folder.fails(&["ingest", "--to", "999"], 1, &["has not reached block 999", "newest is 300"]);
    folder.fails(&["ingest", "--from", "soon"], 2, &["`soon` is not a place in a chain"]);
    let again = folder.run(&["ingest", "--from", "100", "--to", "150"]);
    assert_eq!(last_line(&again.stdout)["blocks"], 0, "{again:?}");

    assert_eq!(folder.run(&["ingest"]).code, Some(0));
    assert_eq!(ends(&folder), (json!(100), json!(300)));
    block_on(anvil.mine(5)).unwrap();
    let daemon = folder.start();
    journaled(&folder, 305);
    let parts = ["another process has it open", "`shepherd run` fills gaps by itself"];
    folder.fails(&["ingest"], 6, &parts);
    folder.fails(&["resume", "--plan"], 6, &parts);
    daemon.stop();
    let verified = folder.json(&["journal", "verify", "--json"]);
    assert_eq!((&verified[0]["blocks"], &verified[0]["problems"]), (&json!(206), &json!([])));
}

#[test]
fn an_ingest_that_is_interrupted_goes_on_where_it_was() {
    let anvil = anvil(31337);
    block_on(anvil.mine(400)).unwrap();
    let folder = Folder::new(anvil.http_url().as_str());
    let written = fs::read_to_string(folder.path("shepherd.toml")).unwrap();
    let slow = format!("[{{ url = \"{}\", rate_per_second = 40 }}]", anvil.http_url());
    let fast = format!("[\"{}\"]", anvil.http_url());
    folder.write(
        "slow.toml",
        written
            .replace(&fast, &slow)
            .replace("\"50ms\"", "\"50ms\"\nchains.devnet.batch_blocks_max = 10"),
    );

    let args = ["ingest", "--config", "slow.toml"];
    let mut ingest = Daemon::spawn(folder.command(&args));
    let line = loop {
        let line: Value = serde_json::from_str(&ingest.next_line().unwrap()).unwrap();
        if line["blocks"] != 0 {
            break line;
        }
    };
    assert_eq!((&line["first"], &line["last"]), (&json!(0), &json!(400)));
    ingest.signal(Signal::Interrupt);
    let ended = ingest.end();
    assert_eq!(ended.code, Some(11), "{ended:?}");
    assert!(ended.stderr.contains("the same command, goes on from there"), "{}", ended.stderr);
    let last = last_line(&ended.stdout);
    let blocks = last["blocks"].as_u64().unwrap();
    assert_eq!(last["complete"], false);
    assert!(0 < blocks && blocks < 401, "{blocks}");

    let ended = folder.run(&["ingest"]);
    assert_eq!(last_line(&ended.stdout)["blocks"], 401 - blocks, "{ended:?}");
    assert_eq!(ends(&folder), (json!(0), json!(400)));
}

#[test]
fn the_plan_says_what_is_missing_and_does_nothing() {
    let anvil = anvil(31337);
    block_on(anvil.mine(50)).unwrap();
    let folder = Folder::new(anvil.http_url().as_str());
    folder.fails(&["resume"], 1, &["add --plan", "`shepherd run` resumes by itself"]);
    let plan = folder.json(&["resume", "--plan", "--json"]);
    assert_eq!((&plan[0]["gap"], &plan[0]["blocks"]), (&json!([0, 50]), &json!(51)));
    assert!(plan[0]["calls"]["eth_getBlockByNumber"].as_u64() >= Some(51), "{plan}");
    assert!(!folder.path("data").exists(), "nothing was begun");

    folder.run(&["ingest", "--to", "20"]);
    let plan = folder.json(&["resume", "--plan", "--json"]);
    assert_eq!(plan[0]["gap"], json!([21, 50]));
    let shown = folder.run(&["resume", "--plan"]);
    assert!(shown.stdout.contains("Nothing was done."), "{}", shown.stdout);
    assert_eq!(ends(&folder), (json!(0), json!(20)));
    folder.run(&["ingest"]);
    assert_eq!(folder.json(&["resume", "--plan", "--json"])[0]["gap"], json!(null));
    let shown = folder.run(&["resume", "--plan"]);
    assert!(shown.stdout.contains("No journal is behind."), "{}", shown.stdout);
}
