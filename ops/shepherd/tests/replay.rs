//! History run again by the real binary on real storage: proved, rebuilt, tried out, compared.

mod common;

use std::fs;

use common::{Daemon, Folder, NOWHERE, anvil, block_on, module, module_entry};
use serde_json::{Value, json};
use shepherd_devnet::{Anvil, Load, Plan, Signal};
use shepherd_log::{Options, Store};

const PLAN: Plan = Plan { logs_per_block: 20, tokens: 2, holders: 50, seed: 7 };

/// A folder whose daemon has run a ledger over this many blocks of a loaded chain, and has ended.
fn ran(blocks: u64) -> (Folder, Anvil) {
    let anvil = anvil(31337);
    let load = block_on(Load::start(&anvil, PLAN)).unwrap();
    block_on(load.blocks(&anvil, blocks)).unwrap();
    let folder = Folder::new(anvil.http_url().as_str());
    folder.configure(&module_entry("token-ledger"));
    let daemon = folder.start();
    let head = format!("{}", block_on(anvil.head()).unwrap().hash);
    let mut cursor = Value::Null;
    while cursor["block"]["hash"] != *head {
        cursor = folder.json(&["cursor", "list", "--json"])["cursors"][0].clone();
    }
    daemon.stop();
    (folder, anvil)
}

/// The folder of a module of ours.
fn module_dir(name: &str) -> String {
    module(name).0.parent().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_lane_is_verified_and_rebuilt_and_stays_what_it_is() {
    let (folder, _anvil) = ran(40);
    let before = folder.json(&["cursor", "list", "--json"])["cursors"][0].clone();
    let verified = folder.json(&["replay", "verify", "token-ledger@devnet", "--json"]);
    let lane = &verified[0];
    assert_eq!((&lane["same"], &lane["next"]), (&json!(true), &before["next"]), "{lane:#}");
    assert_eq!(lane["digest"], before["digest"]);
    let shown = folder.run(&["replay", "verify", "--all", "--quiet"]);
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""), "{shown:?}");
    assert!(shown.stdout.contains("the same"), "{}", shown.stdout);
    assert!(!folder.path("data/replay/verify/token-ledger@devnet").exists());

    let rebuilt = folder.json(&["replay", "rebuild", "token-ledger@devnet", "--json"]);
    assert_eq!(rebuilt["same"], true, "{rebuilt:#}");
    assert_eq!(rebuilt["after"]["digest"], before["digest"]);
    assert_eq!(
        (&rebuilt["before"]["generation"], &rebuilt["after"]["generation"]),
        (&json!(0), &json!(1))
    );
    folder.json(&["replay", "verify", "--all", "--json"]);
    let abandoned = folder.run(&["replay", "rebuild", "token-ledger@devnet", "--abandon"]);
    assert!(abandoned.stdout.contains("no rebuild under way"), "{abandoned:?}");
}

#[test]
fn a_backtest_writes_its_report_and_says_so_when_it_was_done() {
    let (folder, _anvil) = ran(40);
    let ledger = module_dir("token-ledger");
    let command = [
        "replay",
        "backtest",
        &ledger,
        "--from",
        "10",
        "--to",
        "29",
        "--warm-up",
        "all",
        "--output",
        "run",
    ];
    let ended = folder.run(&command);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.starts_with("token-ledger@devnet, blocks 10 to 29: 20 blocks, "),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("sha256"), "{}", ended.stderr);
    for file in [
        "report.html",
        "summary.json",
        "effects.parquet",
        "steps.parquet",
        "state.parquet",
        "README.md",
    ] {
        assert!(folder.path("run").join(file).exists(), "{file}");
    }
    let again = folder.run(&command);
    assert!(again.stdout.contains("this was run before: --fresh"), "{again:?}");
    folder.fails(
        &[&command[..], &["--set", "anything=1"]].concat(),
        5,
        &["unknown field `anything`"],
    );
    let other = ["replay", "backtest", &ledger, "--from", "11", "--to", "29", "--output", "run"];
    folder.fails(&other, 1, &["holds another run", "its window.from is", "--fresh"]);
    let fresh = [&other[..], &["--fresh"]].concat();
    assert_eq!(folder.run(&fresh).code, Some(0));

    // The same window of the same lane: what it computed live.
    let all = ["replay", "backtest", &ledger, "--json", "--output", "all"];
    let summary = folder.json(&all);
    let live = folder.json(&["replay", "verify", "--all", "--json"]);
    assert_eq!(summary["state"]["sum"], live[0]["state"]);
    assert_eq!(summary["run"]["finished"], true);
}

#[test]
fn runs_that_do_the_same_end_with_0_and_others_with_12() {
    let (folder, _anvil) = ran(30);
    let ledger = module_dir("token-ledger");
    let copied = fs::read_to_string(module("token-ledger").0).unwrap();
    let component =
        module("token-ledger").0.parent().unwrap().join("../../target/modules/token-ledger.wasm");
    folder.write("ledger/token-ledger.wasm", fs::read(component).unwrap());
    let of_itself = |line: &str| match line.starts_with("component") {
        true => "component = \"token-ledger.wasm\"\n".to_owned(),
        false => format!("{line}\n"),
    };
    folder.write("ledger/module.toml", copied.lines().map(of_itself).collect::<String>());
    let same = folder.run(&["replay", "diff", &ledger, "ledger", "--output", "same"]);
    assert_eq!(same.code, Some(0), "{same:?}");
    assert!(same.stdout.starts_with("A and B are the same in"), "{}", same.stdout);

    // One token less.
    let drop = ["replay", "backtest", &ledger, "--drop", "blocks=10..12", "--output", "dropped"];
    assert_eq!(folder.run(&drop).code, Some(0));
    let less = ["replay", "diff", "same/a", "dropped", "--json"];
    let ended = folder.run(&less);
    assert_eq!(ended.code, Some(12), "{ended:?}");
    let view: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(view["is_same"], false);
    assert_eq!(view["first"]["place"]["block"]["number"], 10, "{view:#}");
    folder.fails(&["replay", "diff", &ledger, &ledger], 1, &["A and B are the same module"]);
    let later = ["replay", "backtest", &ledger, "--from", "5", "--output", "later"];
    assert_eq!(folder.run(&later).code, Some(0));
    folder.fails(&["replay", "diff", "later", "dropped"], 1, &["not over the same history"]);
    folder.fails(&["replay", "diff", "same", "dropped"], 5, &["cannot read the manifest"]);
}

#[test]
fn a_module_that_takes_more_than_before_ends_with_12() {
    let (folder, _anvil) = ran(30);
    let ledger = module_dir("token-ledger");
    let profile = ["profile", &ledger, "--from", "5", "--to", "25"];
    let shown = folder.run(&[&profile[..], &["--save", "before.json"]].concat());
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("HOTTEST"), "{}", shown.stdout);
    let compare = [&profile[..], &["--compare", "before.json"]].concat();
    assert_eq!(folder.run(&compare).code, Some(0));
    // As if it had taken half of it before.
    let mut before: Value =
        serde_json::from_slice(&fs::read(folder.path("before.json")).unwrap()).unwrap();
    before["fuel"]["total"] = json!(before["fuel"]["total"].as_u64().unwrap() / 2);
    folder.write("before.json", before.to_string());
    folder.fails(&compare, 12, &["it takes more than it may: fuel in all grew from"]);
    let generous = [&compare[..], &["--fuel-growth-max", "150%"]].concat();
    assert_eq!(folder.run(&generous).code, Some(0));
    let other = ["profile", &ledger, "--from", "6", "--to", "25", "--compare", "before.json"];
    folder.fails(&other, 1, &["over different blocks", "--from"]);
}

#[test]
fn a_recording_is_run_over_without_data_directory_and_configuration() {
    let (folder, _anvil) = ran(30);
    let ledger = module_dir("token-ledger");
    let cut = [
        "record",
        "cut",
        "--from",
        "0",
        "--to",
        "20",
        "--lane",
        "token-ledger@devnet",
        "--module",
        &ledger,
        "--output",
        "cut.jsonl",
        "--json",
    ];
    let view = folder.json(&cut);
    assert_eq!((&view["records"], &view["blocks"]), (&json!(21), &json!(21)), "{view:#}");
    let live =
        folder.json(&["replay", "backtest", &ledger, "--to", "20", "--json", "--output", "live"]);
    let elsewhere = Folder::with_config("");
    fs::remove_file(elsewhere.path("shepherd.toml")).unwrap();
    fs::copy(folder.path("cut.jsonl"), elsewhere.path("cut.jsonl")).unwrap();
    let backtest = ["replay", "backtest", &ledger, "--recording", "cut.jsonl", "--json"];
    let summary = elsewhere.json(&backtest);
    assert_eq!(summary["state"], live["state"]);

    // Beside a module it is a test of it.
    let (manifest, _) = module("token-ledger");
    let component = manifest.parent().unwrap().join("../../target/modules/token-ledger.wasm");
    let text = fs::read_to_string(&manifest).unwrap();
    let text = text.replace("../../target/modules/token-ledger.wasm", component.to_str().unwrap());
    elsewhere.write("ledger/module.toml", text);
    let test = ["module", "test", "ledger"];
    elsewhere.fails(&test, 1, &["there are no recordings in ledger/recordings"]);
    let recording = fs::read(folder.path("cut.jsonl")).unwrap();
    elsewhere.write("ledger/recordings/first.jsonl", &recording);
    elsewhere.fails(&test, 12, &["1 recording not as expected", "--bless"]);
    let blessed = elsewhere.run(&["module", "test", "ledger", "--bless"]);
    assert_eq!(blessed.code, Some(0), "{blessed:?}");
    let met = elsewhere.json(&["module", "test", "ledger", "--json"]);
    assert_eq!(met[0]["verdict"], "met", "{met}");

    let cut = fs::read_to_string(folder.path("cut.jsonl")).unwrap();
    elsewhere.write("cut.jsonl", cut.replacen("\"number\":7,", "\"number\":8,", 1));
    elsewhere.fails(&backtest, 1, &["cut.jsonl:", "Recordings are made by `shepherd record cut`"]);
}

#[test]
fn replays_that_are_interrupted_or_killed_go_on() {
    let (folder, _anvil) = ran(250);
    let ledger = module_dir("token-ledger");
    let backtest = ["replay", "backtest", &ledger, "--output", "run", "--json"];
    let rebuild = ["replay", "rebuild", "token-ledger@devnet", "--json"];
    let verify = ["replay", "verify", "--all", "--json"];
    let before = folder.json(&["cursor", "list", "--json"])["cursors"][0]["digest"].clone();
    for signal in [Signal::Interrupt, Signal::Kill] {
        for command in [&backtest[..], &rebuild, &verify] {
            // From not even begun to nearly done.
            for part in 1..3 {
                let process = Daemon::spawn(folder.command(command));
                std::thread::sleep(std::time::Duration::from_millis(200 * part));
                process.signal(signal);
                let ended = process.end();
                let expected: &[Option<i32>] = match signal {
                    Signal::Kill => &[None, Some(0)],
                    // Before it hears signals it ends by them.
                    _ => &[Some(11), Some(0), None],
                };
                assert!(expected.contains(&ended.code), "{command:?}: {ended:?}");
                let cursor = folder.json(&["cursor", "list", "--json"]);
                assert_eq!(cursor["cursors"][0]["digest"], before, "nothing live is harmed");
            }
            let done = folder.run(command);
            assert_eq!(done.code, Some(0), "{command:?}: {done:?}");
        }
    }
    let lane = &folder.json(&verify)[0];
    assert_eq!((&lane["same"], &lane["digest"]), (&json!(true), &before));
}

#[test]
fn after_a_kill_the_last_records_are_gone_over_and_after_a_clean_end_they_are_not() {
    let (folder, anvil) = ran(30);
    let marker = folder.path("data/clean-shutdown");
    assert!(marker.exists());
    let rehearsed = "its last records come to the same";
    let fresh = Folder::new(anvil.http_url().as_str());
    fresh.configure(&module_entry("token-ledger"));
    let daemon = fresh.start();
    assert!(!daemon.said.contains("not clean"), "nothing was shut down: {}", daemon.said);
    daemon.stop();
    let daemon = folder.start();
    assert!(!marker.exists(), "it is at work");
    assert!(!daemon.said.contains(rehearsed), "{}", daemon.said);
    daemon.signal(Signal::Kill);
    daemon.end();
    let mut daemon = Daemon::spawn(folder.command(&["run"]));
    let line = daemon.wait_for(rehearsed);
    assert_eq!(line["lane"], "token-ledger@devnet", "{line}");
    let daemon = daemon.started();
    block_on(anvil.mine(1)).unwrap();
    daemon.stop();
    assert!(marker.exists());
}

#[test]
fn a_replay_says_what_it_cannot_do_and_why() {
    let (folder, _anvil) = ran(12);
    let ledger = module_dir("token-ledger");
    let fails = |args: &[&str], code, parts: &[&str]| folder.fails(args, code, parts);
    fails(&["replay", "verify"], 2, &["<LANE|--all>"]);
    fails(
        &["replay", "verify", "no@devnet"],
        1,
        &["there is no lane no@devnet", "token-ledger@devnet"],
    );
    fails(&["replay", "rebuild", "no@devnet"], 1, &["there is no lane no@devnet"]);
    fails(&["replay", "backtest", "nothing"], 5, &["cannot read the manifest nothing"]);
    let backtest = |more: &[&str]| {
        let ended = folder.run(&[&["replay", "backtest", &ledger[..]], more].concat());
        (ended.code, ended.stderr)
    };
    for (more, code, part) in [
        (&["--last", "7"][..], 2, "`7` is not a duration"),
        (&["--last", "7d", "--from", "1"], 2, "cannot be used with"),
        (&["--set", "a"], 2, "write it as key=value"),
        (&["--reorg-at", "5"], 2, "BLOCK:DEPTH"),
        (&["--drop", "everything"], 2, "address=0x…"),
        (&["--from", "999"], 1, "beyond the journal, which ends with block"),
        (&["--chain", "moon"], 1, "no chain called moon"),
        (&["--rules", "none.toml"], 1, "cannot read the rules none.toml"),
        (&["--overrides", "none.toml"], 1, "cannot read the overrides none.toml"),
        (&["--inject", "none.jsonl"], 1, "cannot read the logs in none.jsonl"),
        (&["--tape-of", "no@devnet"], 1, "there is no lane no@devnet"),
        (&["--recording", "none.jsonl"], 1, "cannot read none.jsonl"),
        (&["--output", "data"], 1, "is neither empty nor a run"),
    ] {
        let (found, stderr) = backtest(more);
        assert_eq!(found, Some(code), "{more:?}: {stderr}");
        assert!(stderr.contains(part), "{more:?}: {stderr}");
    }
    fails(&["explain", "5"], 2, &["names no effect"]);
    fails(&["explain", "5.0", "--lane", "token-ledger@devnet"], 1, &["has no effect 5.0"]);
    fails(
        &["explain", &format!("0x{}", "ab".repeat(56))],
        1,
        &["token-ledger@devnet never asked for order"],
    );

    // What it ran with is needed to run it again.
    let archive = folder.path("data/modules");
    let component = fs::read_dir(&archive).unwrap().map(|entry| entry.unwrap().path());
    let component = component
        .into_iter()
        .find(|file| file.extension().is_some_and(|end| end == "wasm"))
        .unwrap();
    fs::rename(&component, folder.path("kept.wasm")).unwrap();
    let gone = ["ran with a version that is not there any more", "restore the folder"];
    fails(&["replay", "verify", "--all", "--quiet"], 5, &gone);
    fs::rename(folder.path("kept.wasm"), &component).unwrap();

    let daemon = folder.start();
    for command in
        [&["replay", "verify", "--all"][..], &["replay", "backtest", &ledger], &["explain", "5.0"]]
    {
        fails(command, 6, &["another process has it open", "stop `shepherd run` meanwhile"]);
    }
    daemon.stop();
}

#[test]
fn a_store_without_lanes_has_nothing_to_verify() {
    let folder = Folder::new(NOWHERE);
    folder.start().stop();
    assert_eq!(folder.json(&["replay", "verify", "--all", "--json"]), json!([]));
    folder.fails(
        &["replay", "verify", "a@devnet"],
        1,
        &["no lane has run on this data directory yet"],
    );
    drop(Store::open(&folder.path("data"), Options::default()).unwrap());
}
