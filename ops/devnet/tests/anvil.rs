//! What a devnet promises, against a real anvil.

use std::time::Duration;

use alloy_primitives::{Address, U256};
use serde_json::json;
use shepherd_devnet::{Anvil, Mining, Options, Transaction};

async fn anvil() -> Anvil {
    Anvil::start(Options::default()).await.expect("cargo xtask setup has been run")
}

#[tokio::test]
async fn nothing_is_mined_until_asked() {
    let anvil = anvil().await;
    let [from, to] = [anvil.accounts()[0], Address::repeat_byte(7)];
    let value = U256::from(5);
    let transaction =
        Transaction { from, to: Some(to), value, data: Default::default(), gas: None };
    let sent = anvil.send(&[transaction]).await.unwrap();
    assert_eq!(anvil.block_number().await.unwrap(), 0);
    assert!(anvil.receipt(sent[0]).await.is_err());

    anvil.mine(3).await.unwrap();
    assert_eq!(anvil.block_number().await.unwrap(), 3);
    assert_eq!(anvil.receipt(sent[0]).await.unwrap()["status"], "0x1");
    assert_eq!(anvil.balance(to).await.unwrap(), value);
    let genesis = anvil.block(0).await.unwrap();
    assert_eq!(anvil.balance_at(to, genesis.hash).await.unwrap(), U256::ZERO);
}

#[tokio::test]
async fn blocks_come_by_themselves_when_there_is_a_block_time() {
    let mining = Mining::Every(Duration::from_millis(250));
    let anvil = Anvil::start(Options { mining, ..Options::default() }).await.unwrap();
    let mut seen = 0;
    tokio::time::timeout(Duration::from_secs(30), async {
        while seen < 2 {
            seen = anvil.block_number().await.unwrap();
        }
    })
    .await
    .expect("two blocks of a quarter of a second");
}

#[tokio::test]
async fn a_reorg_replaces_exactly_the_last_blocks() {
    let anvil = anvil().await;
    anvil.mine(10).await.unwrap();
    let mut before = Vec::new();
    for number in 0..=10 {
        before.push(anvil.block(number).await.unwrap());
    }

    let to = Address::repeat_byte(9);
    let value = U256::from(11);
    let from = anvil.accounts()[0];
    let paid = Transaction { from, to: Some(to), value, data: Default::default(), gas: None };
    anvil.reorg_with(4, &[(paid, 2)]).await.unwrap();

    assert_eq!(anvil.block_number().await.unwrap(), 10);
    for (number, block) in (0..).zip(&before) {
        let same = anvil.block(number).await.unwrap() == *block;
        assert_eq!(same, number <= 6, "block {number}");
    }
    let [empty, holding] = [anvil.block(8).await.unwrap().hash, anvil.block(9).await.unwrap().hash];
    assert_eq!(anvil.balance_at(to, empty).await.unwrap(), U256::ZERO);
    assert_eq!(anvil.balance_at(to, holding).await.unwrap(), value);
}

#[tokio::test]
async fn a_revert_goes_back_to_the_snapshot() {
    let anvil = anvil().await;
    anvil.mine(2).await.unwrap();
    let snapshot = anvil.snapshot().await.unwrap();
    anvil.mine(5).await.unwrap();
    anvil.revert(snapshot.clone()).await.unwrap();
    assert_eq!(anvil.block_number().await.unwrap(), 2);
    assert!(anvil.revert(snapshot).await.is_err(), "a snapshot is spent by its first use");
}

#[tokio::test]
async fn a_restarted_node_has_its_port_its_chain_and_its_history() {
    let anvil = anvil().await;
    let rich = Address::repeat_byte(3);
    anvil.mine(3).await.unwrap();
    anvil.set_balance(rich, U256::from(77)).await.unwrap();
    anvil.mine(3).await.unwrap();
    let (port, url) = (anvil.port(), anvil.http_url());
    let mut before = Vec::new();
    for number in 0..=6 {
        before.push(anvil.block(number).await.unwrap());
    }

    let stopped = anvil.stop().await.unwrap();
    assert_eq!(stopped.port(), port);
    let anvil = stopped.start().await.unwrap();

    assert_eq!(anvil.http_url(), url);
    for (number, block) in (0..).zip(&before) {
        assert_eq!(anvil.block(number).await.unwrap(), *block);
    }
    assert_eq!(anvil.balance_at(rich, before[2].hash).await.unwrap(), U256::ZERO);
    assert_eq!(anvil.balance_at(rich, before[6].hash).await.unwrap(), U256::from(77));

    anvil.mine(4).await.unwrap();
    let anvil = anvil.stop().await.unwrap().start().await.unwrap();
    assert_eq!(anvil.block_number().await.unwrap(), 10);
    assert_eq!(anvil.block(6).await.unwrap(), before[6]);
}

#[tokio::test]
async fn a_frozen_node_answers_when_thawed() {
    let anvil = anvil().await;
    anvil.freeze();
    let asked = tokio::time::timeout(Duration::from_millis(300), anvil.block_number()).await;
    assert!(asked.is_err(), "a frozen node does not answer");
    anvil.thaw();
    assert_eq!(anvil.block_number().await.unwrap(), 0);
}

#[tokio::test]
async fn a_refused_call_says_what_was_asked() {
    let error = anvil().await.call("no_such_method", json!([1])).await.unwrap_err();
    assert!(format!("{error:#}").contains("no_such_method"), "{error:#}");
}

#[tokio::test]
async fn a_taken_port_is_reported_with_the_words_of_the_node() {
    let first = anvil().await;
    let port = Some(first.port());
    let error = Anvil::start(Options { port, ..Options::default() }).await.unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
}

/// Timestamps of all blocks after the first, in seconds after its own.
async fn times(anvil: &Anvil) -> Vec<u64> {
    let mut times = Vec::new();
    for number in 0..=anvil.block_number().await.unwrap() {
        let params = json!([U256::from(number), false]);
        let block = anvil.call("eth_getBlockByNumber", params).await.unwrap();
        let time: U256 = block["timestamp"].as_str().unwrap().parse().unwrap();
        times.push(time.to::<u64>());
    }
    times.iter().skip(1).map(|time| time - times[0]).collect()
}

#[tokio::test]
async fn time_is_moved_by_blocks_and_goes_on_after_a_reorg_and_a_restart() {
    for start in [1_000_000_000, 4_000_000_000] {
        let (genesis_time, seconds_per_block) = (Some(start), Some(12));
        let options = Options { genesis_time, seconds_per_block, ..Options::default() };
        let anvil = Anvil::start(options).await.unwrap();
        anvil.mine(2).await.unwrap();
        anvil.mine_at(start + 1000).await.unwrap();
        anvil.mine(1).await.unwrap();
        assert_eq!(times(&anvil).await, [12, 24, 1000, 1012]);
        assert!(anvil.mine_at(start).await.is_err(), "time does not go back");
        let anvil = anvil.stop().await.unwrap().start().await.unwrap();
        anvil.mine(1).await.unwrap();
        anvil.reorg(1).await.unwrap();
        anvil.mine(1).await.unwrap();
        assert_eq!(times(&anvil).await, [12, 24, 1000, 1012, 1024, 1036]);
        anvil.reorg(4).await.unwrap();
        assert_eq!(times(&anvil).await, [12, 24, 36, 48, 60, 72]);
        anvil.mine_at(start + 2000).await.unwrap();
        let anvil = anvil.stop().await.unwrap().start().await.unwrap();
        anvil.mine_at(start + 3000).await.unwrap();
        assert_eq!(times(&anvil).await[6..], [2000, 3000]);
    }
}

#[tokio::test]
async fn a_chain_ahead_of_the_machine_stays_there_when_it_is_started_again() {
    let anvil = anvil().await;
    anvil.mine_at(4_000_000_000).await.unwrap();
    let anvil = anvil.stop().await.unwrap().start().await.unwrap();
    anvil.mine(1).await.unwrap();
    assert!(4_000_000_000 < anvil.time().await.unwrap());
}
