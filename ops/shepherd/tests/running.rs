//! A daemon on a real node: what it shows, how it stops, and what it never shows.

mod common;

use std::{fs, time::Instant};

use common::{Daemon, Folder, NOWHERE, PATIENCE, anvil, block_on, journaled, module_entry};
use serde_json::{Value, json};
use shepherd_devnet::Signal;

/// What a provider would bill us for.
const KEY: &str = "s3cr3tKEYs3cr3tKEY";

/// How many records each lane is behind.
fn lags(folder: &Folder) -> Vec<u64> {
    let view = folder.json(&["cursor", "list", "--json"]);
    let cursors = view["cursors"].as_array().unwrap();
    cursors.iter().map(|cursor| cursor["lag_records"].as_u64().unwrap()).collect()
}

#[test]
fn people_see_the_same_with_and_without_the_daemon() {
    let anvil = anvil(31337);
    block_on(anvil.mine(5)).unwrap();
    let folder = Folder::new(anvil.http_url().as_str());
    folder.configure(&module_entry("balance-tracker"));
    folder.configure(&module_entry("token-ledger"));
    let checked = folder.run(&["check"]);
    let verdict = "shepherd.toml: 1 chain, 2 modules, no problems\n";
    assert!(checked.stdout.ends_with(verdict), "{checked:?}");
    let able = &folder.json(&["check", "--json"])["endpoints"][0]["capabilities"];
    let expected = json!({"logs_by_hash": true, "finalized_tag": true, "block_receipts": true,
                          "batch_calls": 100, "archive": "full"});
    assert_eq!(able, &expected);

    let daemon = folder.start();
    journaled(&folder, 5);
    let waiting = Instant::now();
    while lags(&folder).iter().any(|lag| *lag != 0) {
        assert!(waiting.elapsed() < PATIENCE, "the lanes do not catch up");
    }
    let commands: [&[&str]; 4] = [
        &["journal", "tail", "-n", "3"],
        &["journal", "tail", "-n", "3", "--json"],
        &["journal", "verify", "--json"],
        &["state", "list", "balance-tracker@devnet"],
    ];
    let with_daemon = commands.map(|command| folder.run(command));
    let running = folder.json(&["cursor", "list", "--json"]);
    let stopped = daemon.stop();
    assert_eq!(stopped.stderr, "");
    for (command, with_daemon) in commands.iter().zip(&with_daemon) {
        let without = folder.run(command);
        assert_eq!((without.code, &without.stdout), (Some(0), &with_daemon.stdout), "{command:?}");
    }
    assert!(with_daemon[3].stdout.contains("0xf39fd6e51aad88f6"), "{}", with_daemon[3].stdout);
    assert_eq!(with_daemon[1].stdout.lines().count(), 3);

    let at_rest = folder.json(&["cursor", "list", "--json"]);
    let (running, at_rest) = (&running["cursors"][0], &at_rest["cursors"][0]);
    assert_eq!(running["lane"], "balance-tracker@devnet");
    assert_eq!((&running["next"], &running["digest"]), (&json!("6"), &at_rest["digest"]));
    assert_eq!(
        (&running["state"]["name"], &at_rest["state"]["name"]),
        (&json!("running"), &json!("stopped"))
    );
    folder.fails(&["journal", "tail", "-f"], 1, &["no daemon is running"]);
    folder.fails(&["state", "list", "no@devnet"], 1, &["no lane no@devnet"]);
    folder.fails(&["journal", "tail", "--chain", "moon"], 1, &["no chain called moon"]);
}

#[test]
fn both_signals_stop_gracefully_and_a_restart_goes_on() {
    let anvil = anvil(31337);
    let folder = Folder::new(anvil.http_url().as_str());
    for (blocks, signal) in [(3, Signal::Terminate), (6, Signal::Interrupt), (9, Signal::Kill)] {
        block_on(anvil.mine(3)).unwrap();
        let daemon = folder.start();
        journaled(&folder, blocks);
        daemon.signal(signal);
        let ended = daemon.end();
        let graceful = signal != Signal::Kill;
        assert_eq!(ended.code, graceful.then_some(0), "{ended:?}");
        assert_eq!(folder.path("data/daemon.json").exists(), !graceful);
        let verified = folder.json(&["journal", "verify", "--json"]);
        assert_eq!(
            (&verified[0]["blocks"], &verified[0]["problems"]),
            (&json!(blocks + 1), &json!([]))
        );
    }
}

#[test]
fn a_signal_that_arrives_twice_is_one_request() {
    let folder = Folder::new(NOWHERE);
    let daemon = folder.start();
    // Stopped, it is given both at once.
    daemon.signal(Signal::Freeze);
    daemon.signal(Signal::Terminate);
    daemon.signal(Signal::Interrupt);
    daemon.signal(Signal::Thaw);
    let ended = daemon.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn who_waits_for_records_does_not_hold_up_a_shutdown() {
    let folder = Folder::new(NOWHERE);
    let daemon = folder.start();
    let mut tail = Daemon::spawn(folder.command(&["journal", "tail", "--follow"]));
    assert!(tail.next_line().unwrap().starts_with("OFFSET"));
    let stopped = daemon.stop();
    assert!(!stopped.stdout.contains("cut off"), "{}", stopped.stdout);
    let ended = tail.end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("does not answer"), "{}", ended.stderr);
}

#[test]
fn a_chain_that_stops_leaves_the_others_running_and_is_seen() {
    let (deep, calm) = (anvil(31337), anvil(31338));
    let folder = Folder::new(deep.http_url().as_str());
    folder.configure(&format!(
        "chains.devnet.reorg_depth_max = 1\n\
         chains.calm = {{ chain_id = 31338, start_block = 0, endpoints = [\"{}\"] }}\n",
        calm.ws_url()
    ));
    block_on(deep.mine(9)).unwrap();
    let mut daemon = folder.start();
    let mut tail = Daemon::spawn(folder.command(&["journal", "tail", "-f", "--chain", "devnet"]));
    while !tail.next_line().unwrap().starts_with("9 ") {}
    block_on(deep.reorg(5)).unwrap();
    block_on(deep.mine(1)).unwrap();
    daemon.wait_for("this chain is no longer followed; the others go on");

    let admin: Value =
        serde_json::from_slice(&fs::read(folder.path("data/daemon.json")).unwrap()).unwrap();
    let get = |path: &str| get(admin["admin"].as_str().unwrap(), path);
    let (status, ready) = get("/ready");
    assert_eq!((status, &ready["reasons"][0]["what"]), (503, &json!("chain devnet")), "{ready}");
    let reason = ready["reasons"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("reorg_depth_max"), "{reason}");
    let (_, chains) = get("/v1/chains");
    assert_eq!(chains["chains"][1]["state"]["name"], "stopped", "{chains}");

    let mut other = Daemon::spawn(folder.command(&["journal", "tail", "-f", "--chain", "calm"]));
    block_on(calm.mine(2)).unwrap();
    while !other.next_line().unwrap().starts_with("2 ") {}
    folder.fails(&["journal", "tail"], 1, &["calm, devnet", "--chain"]);
    daemon.stop();
}

fn get(admin: &str, path: &str) -> (u16, Value) {
    // As the CLI does it: see src/daemon.rs.
    let _ = rustls::crypto::ring::default_provider().install_default();
    block_on(async {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = http.get(format!("http://{admin}{path}")).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    })
}

#[test]
fn the_key_of_an_endpoint_is_nowhere() {
    let anvil = anvil(31337);
    block_on(anvil.mine(2)).unwrap();
    let (http, ws) = (anvil.http_url(), anvil.ws_url());
    let works = format!("{http}?key={KEY}\", \"{ws}?key={KEY}");
    let fails = format!("http://{KEY}:{KEY}@127.0.0.1:1/v2/{KEY}\", \"{NOWHERE}/{KEY}");
    let wrong = format!("http://127.0.0.1:1/{KEY}\", 7, \"http:/{KEY}\", \"htp://x/{KEY}");
    let malformed = format!("{http}{KEY}\", {http}{KEY}");
    let mut everything = String::new();
    for (name, endpoints) in
        [("works", works), ("fails", fails), ("wrong", wrong), ("malformed", malformed)]
    {
        let folder = Folder::new(&endpoints);
        folder.configure("[log]\nlevel = \"trace\"\n");
        let mut said = Vec::new();
        let mut loud = folder.command(&["check"]);
        said.push(
            Daemon::spawn({
                loud.env("RUST_LOG", "trace");
                loud
            })
            .end(),
        );
        let daemon = (name == "works" || name == "fails").then(|| folder.start());
        if name == "works" {
            journaled(&folder, 2);
        }
        if let Some(daemon) = daemon {
            let admin: Value =
                serde_json::from_slice(&fs::read(folder.path("data/daemon.json")).unwrap())
                    .unwrap();
            for path in ["/v1/chains", "/ready"] {
                everything += &get(admin["admin"].as_str().unwrap(), path).1.to_string();
            }
            said.push(folder.run(&["cursor", "list", "--json"]));
            said.push(daemon.stop());
        } else {
            said.push(folder.run(&["run"]));
        }
        said.push(folder.run(&["journal", "tail"]));
        for ended in said {
            everything += &format!("{}\n{}\n", ended.stdout, ended.stderr);
        }
    }
    assert!(everything.contains("127.0.0.1"), "something was said about endpoints");
    let leak = everything.lines().find(|line| line.contains(KEY));
    assert_eq!(leak, None);
}
