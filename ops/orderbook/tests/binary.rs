//! The stand-in as a process.

mod common;

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use shepherd_devnet::{Process, Signal};

use common::*;

fn command(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shepherd-orderbook"));
    command.args(flags).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

#[tokio::test]
async fn it_says_where_it_is_and_fails_as_its_flags_say() {
    let fault = r#"{"fault": "accept_then_drop", "first_attempts": 1}"#;
    let now = NOW.to_string();
    let flags = ["--listen", "127.0.0.1:0", "--seed", "9", "--clock", &now, "--fault", fault];
    let (mut process, pipes) = Process::spawn(command(&flags)).unwrap();
    let mut line = String::new();
    BufReader::new(pipes.stdout.unwrap()).read_line(&mut line).unwrap();
    let said: Value = serde_json::from_str(&line).expect("one line of JSON");
    assert_eq!(said["seed"], 9);
    let url = said["url"].as_str().unwrap();
    let address = url.strip_prefix("http://").and_then(|url| url.strip_suffix("/sepolia/"));
    let address = address.unwrap().parse().unwrap();

    let json = "Content-Type: application/json\r\n";
    let post = async || send(address, "POST", "/api/v1/orders", json, order().to_string()).await;
    assert!(post().await.is_none());
    assert_eq!(post().await.unwrap().outcome(), "400 DuplicatedOrder");
    let stats = send(address, "GET", "/admin/stats", "", "").await.unwrap().json();
    assert_eq!(
        stats["requests"]["post_order"],
        json!({ "201, then dropped": 1, "400 DuplicatedOrder": 1 })
    );

    process.signal(Signal::Interrupt);
    assert!(process.exited().await.success());
}

#[tokio::test]
async fn it_refuses_what_makes_no_sense() {
    for flags in [
        &["--listen", "0.0.0.0:0"][..],
        &["--listen", "127.0.0.1:0", "--clock", "chain"],
        &["--listen", "127.0.0.1:0", "--clock", "noon"],
        &["--listen", "127.0.0.1:0", "--fault", "{}"],
        &["--listen", "127.0.0.1:0", "--fault", r#"{"fault": "drop", "rate": 3}"#],
        &["--listen", "127.0.0.1:0", "--eth-flow", "0x0000000000000000000000000000000000000001"],
    ] {
        let (mut process, _pipes) = Process::spawn(command(flags)).unwrap();
        assert!(!process.exited().await.success(), "{flags:?}");
    }
}
