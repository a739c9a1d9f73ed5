//! `shepherd-devnet up`, as the demo uses it, and `shepherd-devnet cow`, as people do.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use shepherd_devnet::{Process, Rpc, Signal};

/// A devnet whose chain is kept in `state`, once it is up, and what it said.
fn up(state: &Path) -> (Process, Value) {
    let flags = ["up", "--block-time", "0.1", "--prefill", "10", "--reorg-every", "4"];
    run(&flags, state)
}

fn run(flags: &[&str], state: &Path) -> (Process, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shepherd-devnet"));
    command.args(flags).arg("--state").arg(state).stdout(Stdio::piped());
    let (process, pipes) = Process::spawn(command).unwrap();
    let mut line = String::new();
    BufReader::new(pipes.stdout.unwrap()).read_line(&mut line).unwrap();
    (process, serde_json::from_str(&line).expect("one line of JSON"))
}

async fn head(rpc: &Rpc) -> u64 {
    let number = rpc.call("eth_blockNumber", json!([])).await.unwrap();
    u64::from_str_radix(number.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

#[tokio::test]
async fn a_second_run_goes_on_with_the_chain_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("new/chain.json");
    let (mut first, said) = up(&state);
    let rpc = Rpc::new(said["http"].as_str().unwrap().parse().unwrap()).unwrap();
    let start = head(&rpc).await;
    assert!(start > 10, "tokens are in one block and ten more were asked for");
    tokio::time::timeout(Duration::from_secs(60), async {
        // Past two reorgs, which do not end it.
        while head(&rpc).await < start + 9 {}
    })
    .await
    .expect("a block each tenth of a second");
    first.signal(Signal::Interrupt);
    assert!(first.exited().await.success());

    let (mut second, again) = up(&state);
    let rpc = Rpc::new(again["http"].as_str().unwrap().parse().unwrap()).unwrap();
    assert!(head(&rpc).await >= start + 9 + 10);
    for kept in ["tokens", "holders", "accounts", "chain_id"] {
        assert_eq!(again[kept], said[kept], "{kept}");
    }
    second.signal(Signal::Terminate);
    assert!(second.exited().await.success());
}

#[tokio::test]
async fn cow_protocol_is_up_with_owners_and_orders_and_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("chain.json");
    let flags = ["cow", "--block-time", "0.1", "--safes", "3", "--twaps", "4"];
    let (mut first, said) = run(&flags, &state);
    assert_eq!(said["chain_id"], 11_155_111);
    let [safes, forwarders, orders] =
        ["safes", "forwarders", "orders"].map(|key| said[key].as_array().expect("a list").clone());
    assert_eq!([safes.len(), forwarders.len(), orders.len()], [3, 1, 4]);
    let rpc = Rpc::new(said["http"].as_str().unwrap().parse().unwrap()).unwrap();
    let contracts = said["contracts"].as_object().unwrap();
    for address in contracts.values().chain(&safes).chain(&forwarders) {
        let code = rpc.call("eth_getCode", json!([address, "latest"])).await.unwrap();
        assert_ne!(code, "0x", "{address}");
    }
    let created = async |rpc: &Rpc| {
        let filter = json!({
            "fromBlock": "0x0", "toBlock": "latest", "address": contracts["ComposableCoW"],
        });
        let logs = rpc.call("eth_getLogs", json!([filter])).await.unwrap();
        logs.as_array().unwrap().len()
    };
    assert_eq!(created(&rpc).await, 4);
    first.signal(Signal::Interrupt);
    assert!(first.exited().await.success());

    let (mut second, again) = run(&flags, &state);
    for kept in ["contracts", "safes", "forwarders", "controller"] {
        assert_eq!(again[kept], said[kept], "{kept}");
    }
    let rpc = Rpc::new(again["http"].as_str().unwrap().parse().unwrap()).unwrap();
    assert_eq!(created(&rpc).await, 8);
    second.signal(Signal::Terminate);
    assert!(second.exited().await.success());
}
