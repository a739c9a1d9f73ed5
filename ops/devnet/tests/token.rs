//! The token's promises: each Transfer it announces really happened, and nothing else did.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, U256, keccak256};
use serde_json::json;
use shepherd_devnet::{Anvil, Churn, Load, Options, Plan, Token};

async fn anvil() -> Anvil {
    Anvil::start(Options::default()).await.expect("cargo xtask setup has been run")
}

/// Balances according to the Transfer logs of one token alone.
async fn ledger(anvil: &Anvil, token: &Token) -> BTreeMap<Address, U256> {
    let transfer = keccak256("Transfer(address,address,uint256)");
    let filter = json!({
        "fromBlock": "0x0",
        "toBlock": "latest",
        "address": token.address(),
        "topics": [transfer],
    });
    let logs = anvil.call("eth_getLogs", json!([filter])).await.unwrap();
    let mut balances = BTreeMap::new();
    for log in logs.as_array().unwrap() {
        let party = |topic: usize| {
            let word: B256 = log["topics"][topic].as_str().unwrap().parse().unwrap();
            Address::from_word(word)
        };
        let value: U256 = log["data"].as_str().unwrap().parse().unwrap();
        let [from, to] = [party(1), party(2)];
        if from != Address::ZERO {
            *balances.get_mut(&from).expect("nobody gives what he never got") -= value;
        }
        if to != Address::ZERO {
            *balances.entry(to).or_default() += value;
        }
    }
    balances
}

#[tokio::test]
async fn churn_emits_exactly_the_transfers_asked_for() {
    let anvil = anvil().await;
    let token = Token::deploy(&anvil).await.unwrap();
    let from = anvil.accounts()[1];
    for (transfers, block) in [1, 7, 500].into_iter().zip(2..) {
        let churn = token.churn(from, Churn { seed: transfers, transfers, holders: 10 });
        anvil.send(&[churn]).await.unwrap();
        anvil.mine(1).await.unwrap();
        let logs = anvil.count_logs(block..=block, Some(token.address())).await.unwrap();
        assert_eq!(logs, transfers);
    }
}

#[tokio::test]
async fn the_logs_alone_give_the_balances_and_the_supply() {
    let anvil = anvil().await;
    let plan = Plan { logs_per_block: 101, tokens: 3, holders: 20, seed: 7 };
    let load = Load::start(&anvil, plan).await.unwrap();
    let made = load.blocks(&anvil, 12).await.unwrap();
    assert_eq!(made.logs, 12 * 101);
    assert_eq!(anvil.count_logs(made.blocks, None).await.unwrap(), made.logs);

    for token in load.tokens() {
        let balances = ledger(&anvil, token).await;
        assert!(balances.len() > 10, "most holders have been used");
        for (holder, balance) in &balances {
            assert_eq!(token.balance_of(&anvil, *holder).await.unwrap(), *balance);
        }
        let sum = balances.values().sum::<U256>();
        assert_eq!(token.total_supply(&anvil).await.unwrap(), sum);
    }
    let [first, second, third] = load.tokens() else { panic!("three tokens were asked for") };
    assert_ne!(ledger(&anvil, first).await, ledger(&anvil, second).await);
    assert_ne!(ledger(&anvil, second).await, ledger(&anvil, third).await);
}

#[tokio::test]
async fn mint_transfer_and_burn_of_one_account_happen_in_the_order_sent() {
    let anvil = anvil().await;
    let token = Token::deploy(&anvil).await.unwrap();
    let [one, two] = [anvil.accounts()[1], Token::holder(3)];
    let [ten, six, four] = [10, 6, 4].map(U256::from);
    let sent = [token.mint(one, one, ten), token.transfer(one, two, six), token.burn(one, four)];
    anvil.send(&sent).await.unwrap();
    anvil.mine(1).await.unwrap();

    let head = anvil.head().await.unwrap();
    assert_eq!(token.balance_of(&anvil, one).await.unwrap(), U256::ZERO);
    assert_eq!(token.balance_of_at(&anvil, two, head.hash).await.unwrap(), six);
    assert_eq!(token.total_supply_at(&anvil, head.hash).await.unwrap(), six);
    assert_eq!(ledger(&anvil, &token).await[&two], six);
}

#[tokio::test]
async fn the_same_seed_makes_the_same_transfers() {
    let plan = Plan { holders: 50, ..Plan::default() };
    let mut ledgers = Vec::new();
    for seed in [5, 5, 6] {
        let anvil = anvil().await;
        let load = Load::start(&anvil, Plan { seed, ..plan }).await.unwrap();
        load.blocks(&anvil, 5).await.unwrap();
        ledgers.push(ledger(&anvil, &load.tokens()[0]).await);
    }
    assert_eq!(ledgers[0], ledgers[1]);
    assert_ne!(ledgers[1], ledgers[2]);
}

#[tokio::test]
async fn a_load_finds_its_tokens_on_a_restarted_chain() {
    let anvil = anvil().await;
    let load = Load::start(&anvil, Plan::default()).await.unwrap();
    load.blocks(&anvil, 3).await.unwrap();
    let supply = load.tokens()[1].total_supply(&anvil).await.unwrap();
    assert!(supply > U256::ZERO);

    let anvil = anvil.stop().await.unwrap().start().await.unwrap();
    let again = Load::start(&anvil, Plan::default()).await.unwrap();
    assert_eq!(again.tokens(), load.tokens());
    assert_eq!(again.tokens()[1].total_supply(&anvil).await.unwrap(), supply);
    let made = again.blocks(&anvil, 2).await.unwrap();
    assert_eq!(made.blocks, 5..=6);
    assert_eq!(anvil.count_logs(5..=6, None).await.unwrap(), 100);
}

#[tokio::test]
async fn where_no_token_is_there_is_no_balance() {
    let nowhere = Token::at(Address::repeat_byte(1));
    assert!(nowhere.balance_of(&anvil().await, Address::ZERO).await.is_err());
}
