//! What tests with recordings promise: what is blessed is met, and what is not is named.

mod history;

use std::{fs, path::Path};

use alloy_primitives::Address;
use history::{balance_tracker, component, folder, forked, journaled, live};
use shepherd_host::{Engine, EngineOptions};
use shepherd_log::Offset;
use shepherd_replay::{
    module_test::{ModuleTestError, Tested, Unmet, Verdict, bless, module_test},
    recording::{self, CutOptions, Logs, Proof},
    what_if::WhatIf,
};

/// A folder like that of the balance tracker, with a recording of its live lane.
fn recorded() -> tempfile::TempDir {
    let module = balance_tracker();
    let data = tempfile::tempdir().unwrap();
    let (store, journal) = journaled(data.path(), &forked(21, 0, 60).records);
    live(&store, &module);
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("recordings")).unwrap();
    fs::copy(folder("balance-tracker").join("module.toml"), dir.path().join("module.toml"))
        .unwrap();
    let options = CutOptions {
        logs: Logs::Matching(module.subscription().logs.clone()),
        proof: Proof::Links,
        tapes: vec![(
            module.lane().module.clone(),
            store.lane_snapshot(module.lane()).unwrap().unwrap(),
        )],
        what_if: WhatIf::default(),
    };
    let range = Offset::START..journal.tail().offset;
    let file = dir.path().join("recordings/forks.jsonl");
    recording::cut_to(&journal, range, &options, &file).unwrap();
    fs::write(file.with_extension("overrides.toml"), overrides("500")).unwrap();
    dir
}

fn overrides(threshold: &str) -> String {
    let addresses: Vec<String> =
        (1..6).map(|n| format!("\"{}\"", Address::repeat_byte(n))).collect();
    let addresses = addresses.join(", ");
    format!(
        "[config]\naddresses = [{addresses}]\nthreshold_wei = \"{threshold}\"\nwebhook = \"alerts\"\n"
    )
}

fn tested(dir: &Path) -> Result<Vec<Tested>, ModuleTestError> {
    let engine = Engine::new(EngineOptions::default()).unwrap();
    let component = component(Path::new("balance-tracker.wasm"));
    let scratch = tempfile::tempdir().unwrap();
    module_test(&engine, dir, Some(&component), scratch.path())
}

fn verdict(dir: &Path) -> Verdict {
    tested(dir).unwrap().remove(0).verdict
}

#[test]
fn what_was_blessed_is_met_and_what_differs_is_named() {
    let dir = recorded();
    let first = tested(dir.path()).unwrap();
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].verdict, Verdict::NothingExpected);
    assert!(!first[0].found.effects.is_empty(), "it asks for something");
    assert!(first[0].found.state.keys > 0, "it keeps something");
    bless(&first[0]).unwrap();
    assert_eq!(verdict(dir.path()), Verdict::Met);

    // Another threshold: other effects, of which the first that differs is named.
    let other = dir.path().join("recordings/forks.overrides.toml");
    fs::write(&other, overrides("2000")).unwrap();
    let Verdict::Unmet(unmet) = verdict(dir.path()) else { panic!("it does something else") };
    assert!(unmet.iter().any(|unmet| matches!(unmet, Unmet::Effect { .. })), "{unmet:?}");
    fs::write(&other, overrides("500")).unwrap();

    let file = dir.path().join("recordings/forks.expected.json");
    let blessed = fs::read_to_string(&file).unwrap();
    let check = |change: &dyn Fn(&mut serde_json::Value), expected: &str| {
        let mut value: serde_json::Value = serde_json::from_str(&blessed).unwrap();
        change(&mut value);
        fs::write(&file, value.to_string()).unwrap();
        match verdict(dir.path()) {
            Verdict::Unmet(unmet) => {
                assert_eq!(unmet.len(), 1, "{unmet:?}");
                assert!(unmet[0].to_string().starts_with(expected), "{}", unmet[0]);
            }
            verdict => assert_eq!((verdict, expected), (Verdict::Met, "")),
        }
    };
    check(&|value| value["effects"].as_array_mut().unwrap().truncate(1), "effect 1\n");
    let (key, _) = first[0].found.state.entries.as_ref().unwrap().iter().next().unwrap();
    let change = |value: &mut serde_json::Value| {
        value["state"]["digest"] = "0x00".into();
        value["state"]["entries"][key] = "0x00".into();
    };
    check(&change, &format!("state, key {key}\n  expected 0x00\n"));
    let half = first[0].found.fuel.unwrap().total / 2;
    check(&|value| value["fuel"]["total"] = half.into(), "fuel\n");
    check(&|value| drop(value.as_object_mut().unwrap().remove("fuel")), "");

    // That fuel does not matter stays so when it is blessed again.
    bless(&tested(dir.path()).unwrap()[0]).unwrap();
    assert!(!fs::read_to_string(&file).unwrap().contains("\"fuel\""));
}

#[test]
fn a_folder_without_recordings_is_told_how_to_make_one() {
    let dir = recorded();
    fs::remove_file(dir.path().join("recordings/forks.jsonl")).unwrap();
    let error = tested(dir.path()).unwrap_err().to_string();
    assert!(error.contains("shepherd record cut"), "{error}");
}
