//! What goes wrong before and around a run: one clear message each, and a documented exit code.

mod common;

use std::{fs, net::TcpListener};

use common::{Daemon, Folder, NOWHERE, anvil, block_on, config};
use shepherd_devnet::{Anvil, Options, Signal};

/// The sha256 of no bytes at all.
const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A module whose manifest is right and whose component is an empty file.
fn with_module(folder: &Folder, sha256: &str) {
    let manifest = "name = \"probe\"\ncomponent = \"probe.wasm\"\ncapabilities = []\n\
                    [subscribe]\nblock_every = 1\n";
    folder.write("probe/module.toml", manifest);
    folder.write("probe/probe.wasm", "");
    let entry = format!("[[modules]]\nmanifest = \"probe/module.toml\"\nsha256 = \"{sha256}\"\n");
    folder.configure(&entry);
}

#[test]
fn a_wrong_command_line_is_2() {
    let folder = Folder::new(NOWHERE);
    folder.fails(&["cursors"], 2, &["unrecognized subcommand 'cursors'"]);
    folder.fails(&["state", "list", "ledger"], 2, &["`ledger` is not a lane"]);
    folder.fails(&["state", "list", "a@b", "--prefix", "12"], 2, &["0x and hexadecimal"]);
}

#[test]
fn a_missing_configuration_is_3() {
    let folder = Folder::new(NOWHERE);
    for command in [&["run"][..], &["check"], &["cursor", "list"]] {
        let args = [command, &["--config", "none.toml"]].concat();
        folder.fails(&args, 3, &["cannot read the configuration none.toml", "`shepherd init`"]);
    }
}

#[test]
fn malformed_toml_is_3() {
    let folder = Folder::with_config("data_dir = \"data\"\n[chains.devnet\nchain_id = 1\n");
    for command in [&["run"][..], &["check"], &["cursor", "list"]] {
        folder.fails(command, 3, &["error: shepherd.toml:2:", "not valid TOML", "[chains.devnet"]);
    }
}

#[test]
fn an_unknown_key_is_3() {
    let folder = Folder::new(NOWHERE);
    folder.configure("chains.devnet.reorg_depth = 9\n");
    for command in ["run", "check"] {
        let parts = ["shepherd.toml:7:15: unknown key `reorg_depth`", "`reorg_depth_max`"];
        folder.fails(&[command], 3, &parts);
    }
}

#[test]
fn every_mistake_is_shown_at_once_also_as_json() {
    let folder =
        Folder::with_config("data = 1\n[chains.Devnet]\nchain_id = 0\n[admin]\nport = 1\n");
    let ended = folder.run(&["check"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let shown: Vec<&str> =
        ended.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    let view = folder.run(&["check", "--json"]).stdout;
    let view: serde_json::Value = serde_json::from_str(&view).unwrap();
    let problems = view["problems"].as_array().unwrap();
    assert_eq!((shown.len(), problems.len(), &view["ok"]), (7, 7, &false.into()), "{shown:#?}");
    assert_eq!((&problems[6]["line"], &problems[6]["column"]), (&5.into(), &1.into()));
}

#[test]
fn init_writes_a_right_file_and_never_over_another() {
    let folder = Folder::new(NOWHERE);
    let ended = folder.run(&["init", "--config", "new.toml"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("shepherd check --config new.toml"), "{}", ended.stdout);
    let written = fs::read(folder.path("new.toml")).unwrap();
    folder.fails(&["init", "--config", "new.toml"], 3, &["new.toml exists already"]);
    assert_eq!(fs::read(folder.path("new.toml")).unwrap(), written);
    folder.fails(&["cursor", "list", "--config", "new.toml"], 3, &["holds no journal yet"]);
}

#[test]
fn a_missing_module_is_5() {
    let folder = Folder::new(NOWHERE);
    with_module(&folder, NOTHING);
    fs::remove_file(folder.path("probe/probe.wasm")).unwrap();
    folder.fails(&["run"], 5, &["shepherd.toml:8:12: cannot read the component", "probe.wasm"]);
    fs::remove_file(folder.path("probe/module.toml")).unwrap();
    folder.fails(&["run"], 5, &["shepherd.toml:8:12: cannot read the manifest", "module.toml"]);
}

#[test]
fn a_tampered_module_is_5() {
    let folder = Folder::new(NOWHERE);
    with_module(&folder, ZEROS);
    let parts = ["shepherd.toml:9:10: probe/probe.wasm is not the pinned component", NOTHING];
    folder.fails(&["run"], 5, &parts);
}

#[test]
fn a_refused_module_is_5() {
    let folder = Folder::new(NOWHERE);
    with_module(&folder, NOTHING);
    folder.fails(&["run"], 5, &["not a component that can be loaded"]);
    folder.fails(&["module", "inspect", "probe/probe.wasm"], 5, &["probe/probe.wasm: this is not"]);
    folder.write("probe/module.toml", "name = \"probe\"\nfuel = 1\n");
    folder.fails(&["run"], 5, &["error: probe/module.toml:2:1: ", "unknown field `fuel`"]);
}

#[test]
fn an_unreachable_endpoint_is_4_in_check() {
    let folder = Folder::new(NOWHERE);
    let parts = ["shepherd.toml:4:27: chain devnet: http://127.0.0.1:1: unreachable"];
    folder.fails(&["check"], 4, &parts);
}

#[test]
fn problems_of_several_kinds_are_1_and_all_shown() {
    let folder = Folder::new(NOWHERE);
    with_module(&folder, ZEROS);
    let ended = folder.run(&["check"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for part in ["is not the pinned component", "unreachable"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}

#[test]
fn the_wrong_chain_is_4() {
    let anvil = anvil(777);
    let folder = Folder::new(anvil.http_url().as_str());
    let parts = ["the endpoint serves chain id 777, the configuration says 31337"];
    folder.fails(&["check"], 4, &parts);
    folder.fails(&["run"], 4, &parts);
}

#[test]
fn a_name_that_stands_for_another_chain_is_3() {
    let folder = Folder::new(NOWHERE);
    folder.start().stop();
    let changed = config(NOWHERE).replace("31337", "1");
    folder.write("shepherd.toml", changed);
    folder.fails(&["run"], 3, &["devnet was journaled with chain id 31337"]);
}

#[test]
fn a_locked_data_directory_is_6_and_names_it() {
    let folder = Folder::new(NOWHERE);
    let daemon = folder.start();
    folder.fails(
        &["run"],
        6,
        &["cannot open the data directory data: another process has it open"],
    );
    // The daemon answers for its directory, until nobody can find it.
    assert_eq!(folder.json(&["cursor", "list", "--json"])["cursors"], serde_json::json!([]));
    fs::remove_file(folder.path("data/daemon.json")).unwrap();
    folder.fails(&["cursor", "list"], 6, &["data: another process has it open"]);
    daemon.stop();
}

#[test]
fn a_newer_format_is_7_and_changes_nothing() {
    let folder = Folder::new(NOWHERE);
    folder.start().stop();
    let format = folder.path("data/store/format");
    let newer = "shepherd store format 99\n";
    fs::write(&format, newer).unwrap();
    for command in [&["run"][..], &["cursor", "list"], &["journal", "verify"]] {
        folder.fails(command, 7, &["format 99", "nothing was changed"]);
    }
    assert_eq!(fs::read_to_string(&format).unwrap(), newer);
}

#[test]
fn data_that_contradicts_itself_is_8() {
    let folder = Folder::new(NOWHERE);
    folder.start().stop();
    fs::write(folder.path("data/store/highwater"), "nothing like it").unwrap();
    folder.fails(&["run"], 8, &["cannot open the data directory data", "high-water"]);
}

#[test]
fn files_that_the_storage_engine_panics_over_are_8_too() {
    let folder = Folder::new(NOWHERE);
    folder.start().stop();
    let mut damaged = 0;
    for keyspace in fs::read_dir(folder.path("data/store/db/keyspaces")).unwrap() {
        let manifest = keyspace.unwrap().path().join("v0");
        let Ok(mut bytes) = fs::read(&manifest) else { continue };
        // The number of levels, which the engine asserts.
        assert_eq!(bytes[8], 7, "the engine's files look as they did");
        bytes[8] = 6;
        fs::write(&manifest, bytes).unwrap();
        damaged += 1;
    }
    assert_ne!(damaged, 0);
    folder.fails(
        &["run"],
        8,
        &["cannot open the data directory data: the storage engine gives up", "restore a backup"],
    );
}

#[test]
fn a_data_directory_that_cannot_be_made_is_3() {
    let folder = Folder::new(NOWHERE);
    folder.write("data", "a file where the directory should be");
    folder.fails(&["run"], 3, &["cannot open the data directory data", "`data_dir`"]);
}

#[test]
fn a_taken_admin_port_is_3() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = Folder::with_config(&config(NOWHERE).replace("127.0.0.1:0", &address));
    folder.fails(&["run"], 3, &["the admin server cannot listen on", &address]);
}

#[test]
fn a_public_admin_address_is_3() {
    let folder = Folder::with_config(&config(NOWHERE).replace("127.0.0.1:0", "0.0.0.0:7878"));
    folder.fails(&["run"], 3, &["0.0.0.0:7878 can be reached from other machines", "token"]);
}

#[test]
fn a_stale_announcement_is_not_believed() {
    let folder = Folder::new(NOWHERE);
    let daemon = folder.start();
    let announced = fs::read_to_string(folder.path("data/daemon.json")).unwrap();
    daemon.signal(Signal::Kill);
    assert_eq!(daemon.end().code, None);
    // Another daemon took the address, on a directory of its own.
    let address = announced.split('"').find(|part| part.starts_with("127.")).unwrap();
    let other = Folder::with_config(&config(NOWHERE).replace("127.0.0.1:0", address));
    let other = Daemon::spawn(other.command(&["run"])).started();
    assert_eq!(folder.json(&["journal", "verify", "--json"])[0]["records"], 0);
    assert!(folder.path("data/daemon.json").exists(), "only its owner takes it back");
    other.stop();
}

#[test]
fn an_endpoint_that_appears_later_is_found() {
    // A port that was free a moment ago: the system hands out others first.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = Folder::new(&format!("http://127.0.0.1:{port}"));
    let mut daemon = folder.start();
    daemon.wait_for("endpoint failed");
    let options = Options { port: Some(port), ..Options::default() };
    let _anvil = block_on(Anvil::start(options)).unwrap();
    let mut tail = Daemon::spawn(folder.command(&["journal", "tail", "-f", "--json"]));
    let first: serde_json::Value = serde_json::from_str(&tail.next_line().unwrap()).unwrap();
    assert_eq!((&first["kind"], &first["number"]), (&"block".into(), &0.into()));
    daemon.stop();
}
