//! The modules of this repository as components, under their own manifests: what they import is
//! what they are granted, every chain they name takes their configuration, and what they want done
//! outside comes out of the host.

mod support;

use alloy_primitives::{Address, B256, U256, address, b256, hex, keccak256};
use shepherd_host::{BoundModule, LogRef, Overrides, ReadAnswer, ReadRequest, World, limits};
use shepherd_log::{BlockRef, Effect, EffectKey};
use support::{CHAIN_ID, State, advance, block, block_with, component, engine, manifest};

const CHAINS: [&str; 6] = ["devnet", "sepolia", "mainnet", "gnosis", "arbitrum", "base"];

const KEEPERS: [&str; 4] = ["balance-tracker", "ethflow-watcher", "price-alert", "stop-loss"];

const ETHFLOW: Address = address!("0xbA3cB449bD2B4ADddBc894D8697F5170800EAdeC");

const ORDER_PLACEMENT: B256 =
    b256!("0xcf5f9de2984132265203b5c335b25727702ca77262ff622e136baa7362bf1da9");

fn bind(name: &str, chain: &str, config: &str) -> BoundModule {
    let module = engine().load(&manifest(name), &component(name)).unwrap();
    let overrides = Overrides { config: config.parse().unwrap(), ..Overrides::default() };
    module.bind(&chain.parse().unwrap(), CHAIN_ID, &overrides).unwrap()
}

fn word(number: u64) -> Vec<u8> {
    U256::from(number).to_be_bytes_vec()
}

/// A chain where every feed reports this price, in dollars, at this time, and every balance is so
/// many ether; an orderbook that knows nothing.
fn world(
    dollars: u64,
    updated_at: u64,
) -> impl FnMut(BlockRef, &[ReadRequest]) -> Result<Vec<ReadAnswer>, World> {
    let latest = &keccak256("latestRoundData()")[..4];
    let latest = latest.to_vec();
    move |_, requests| {
        let answer = |request: &ReadRequest| match request {
            ReadRequest::Call { data, .. } if *data == latest => {
                let round = [7, dollars * 100_000_000, updated_at, updated_at, 7].map(word);
                ReadAnswer::Returned(round.concat().into())
            }
            // The decimals of a feed, or the balance of a token.
            ReadRequest::Call { .. } => ReadAnswer::Returned(word(8).into()),
            ReadRequest::Balance(_) => {
                ReadAnswer::Balance(U256::from(dollars) * U256::from(10).pow(U256::from(18)))
            }
            ReadRequest::Order(_) => ReadAnswer::Order(None),
            other => panic!("{other:?} is not asked"),
        };
        Ok(requests.iter().map(answer).collect())
    }
}

/// Runs the blocks at these prices, and says what is wanted done outside by then.
fn effects(module: &BoundModule, dollars: &[u64]) -> Vec<Effect> {
    let mut state = State::new();
    let mut effects = Vec::new();
    for (number, dollars) in (1..).zip(dollars) {
        let mut reads = world(*dollars, 1_700_000_000 + 12 * number);
        let handled = advance(module, &block(number), &mut state, &mut reads).unwrap();
        effects.extend(handled.effects);
    }
    effects
}

#[track_caller]
fn only_webhook(effects: &[Effect]) -> (&str, serde_json::Value) {
    let [effect] = effects else { panic!("{effects:?}") };
    let EffectKey::Webhook { destination, key } = &effect.key else { panic!("{effect:?}") };
    assert_eq!(destination, "alerts");
    (key, serde_json::from_slice(&effect.body).unwrap())
}

#[test]
fn the_modules_are_granted_what_they_import_and_no_more() {
    for name in KEEPERS {
        let inspection = engine().inspect(&component(name)).unwrap();
        assert_eq!(inspection.capabilities, *manifest(name).capabilities(), "{name}");
    }
}

#[test]
fn every_chain_that_a_manifest_names_takes_its_configuration() {
    for name in KEEPERS {
        for chain in CHAINS {
            bind(name, chain, "");
        }
    }
}

#[test]
fn without_a_webhook_in_the_configuration_nothing_is_wanted_outside() {
    let dollars = [5_000, 1, 5_000, 1];
    for name in ["balance-tracker", "price-alert", "ethflow-watcher"] {
        assert_eq!(effects(&bind(name, "sepolia", ""), &dollars), [], "{name}");
    }
    // The order of the manifest is an example that does not fire.
    let cheap = [5_000, 2, 5_000, 2];
    assert_eq!(effects(&bind("stop-loss", "sepolia", ""), &cheap), []);
}

#[test]
fn a_balance_that_changes_calls_the_webhook() {
    let module = bind("balance-tracker", "devnet", "webhook = \"alerts\"");
    let effects = effects(&module, &[5, 5, 3, 3]);
    let (_, body) = only_webhook(&effects);
    assert_eq!(body["from"], "5000000000000000000");
    assert_eq!(body["to"], "3000000000000000000");
}

#[test]
fn a_price_that_crosses_calls_the_webhook_once() {
    let module = bind("price-alert", "sepolia", "webhook = \"alerts\"");
    let effects = effects(&module, &[5_000, 2_000, 1_990, 1_980]);
    let (key, body) = only_webhook(&effects);
    assert_eq!(key, "price-alert/11155111/eth-low/below-2000/1700000024");
    assert_eq!(body["answer"], "2000.00000000");
}

#[test]
fn the_order_of_the_golden_vector_is_placed_once() {
    let module = bind("stop-loss", "sepolia", "trigger = \"1500\"");
    let effects = effects(&module, &[5_000, 1_500, 5_000, 1_000]);
    let [effect] = &effects[..] else { panic!("{effects:?}") };
    let golden = hex!(
        "c2b9cb4ea1ee5a86d8049ac09d8f494bf04cca0a68407285f31e2e6379800be8"
        "7bf140727d27ea64b607e042f1225680b40eca6affffffff"
    );
    assert_eq!(effect.key, EffectKey::Order(golden));
    let body: serde_json::Value = serde_json::from_slice(&effect.body).unwrap();
    assert_eq!(body["signingScheme"], "presign");
    assert_eq!(body["sellAmount"], "5000000000000000");
}

/// An `OrderPlacement` that sells so much, by this user, valid for an hour after 1 700 000 000.
fn placement(user: Address, sell_amount: u64) -> ([B256; 2], Vec<u8>) {
    let order = [
        address!("0xfFf9976782d46CC05630D1f6eBAb18b2324d6B14").into_word(),
        address!("0x0625aFB445C3B6B7B929342a04A22599fd5dBB59").into_word(),
        user.into_word(),
        U256::from(sell_amount).into(),
        U256::from(20_000_000_000_000_000_000u128).into(),
        U256::from(u32::MAX).into(),
        keccak256("{}"),
        B256::ZERO,
        keccak256("sell"),
        B256::ZERO,
        keccak256("erc20"),
        keccak256("erc20"),
    ];
    let order = order.concat();
    // Two offsets follow the order: of the signature, and of the data.
    let signature = [word(0), word(64), word(20), padded(ETHFLOW.as_slice())].concat();
    let data = [&0i64.to_be_bytes()[..], &1_700_003_600u32.to_be_bytes()].concat();
    let data = [word(12), padded(&data)].concat();
    let head = order.len() + 64;
    let offsets = [word(head as u64), word((head + signature.len()) as u64)].concat();
    ([ORDER_PLACEMENT, user.into_word()], [order, offsets, signature, data].concat())
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(32), 0);
    padded
}

fn emitted<'a>(topics: &'a [B256], data: &'a [u8]) -> LogRef<'a> {
    LogRef {
        address: ETHFLOW,
        topics,
        data,
        index: 0,
        transaction_index: 0,
        transaction_hash: B256::ZERO,
    }
}

#[test]
fn an_order_of_ethflow_that_does_not_appear_calls_the_webhook_once() {
    let config = "webhook = \"alerts\"\nconfirm_within_seconds = 60";
    let module = bind("ethflow-watcher", "sepolia", config);
    let user = Address::repeat_byte(0xaa);
    let (topics, data) = placement(user, 5);
    assert!(module.subscription().wants_log(&ETHFLOW, &topics));

    let mut state = State::new();
    let mut reads = world(0, 0);
    advance(&module, &block_with(1, vec![emitted(&topics, &data)]), &mut state, &mut reads)
        .unwrap();
    assert_eq!(state.len(), 3, "the order, and two rows of when it is due: {state:?}");
    let mut effects = Vec::new();
    // Its hour, and a little more.
    for number in 2..310 {
        let handled = advance(&module, &block(number), &mut state, &mut reads).unwrap();
        effects.extend(handled.effects);
    }
    let (key, body) = only_webhook(&effects);
    let uid = body["uid"].as_str().unwrap();
    assert_eq!(key, format!("ethflow/{uid}"));
    let owner = hex::encode(ETHFLOW);
    assert!(uid.ends_with(&format!("{owner}ffffffff")), "{uid}");
    assert_eq!(body["user"], user.to_string());
    assert_eq!(state, State::new());
}

#[test]
fn no_documents_are_so_large_that_the_orders_of_a_block_halt_the_watcher() {
    let module = bind("ethflow-watcher", "sepolia", "");
    let placements: Vec<_> =
        (1..=100).map(|amount| placement(Address::repeat_byte(0xaa), amount)).collect();
    let logs = placements.iter().map(|(topics, data)| emitted(topics, data)).collect();
    let mut state = State::new();
    let mut asked = Vec::new();
    let mut reads = |_: BlockRef, requests: &[ReadRequest]| {
        asked.push(requests.len());
        let around = r#"{"status":"open","fullAppData":""}"#;
        let document = "x".repeat(limits::ORDERBOOK_ANSWER_BYTES_MAX - around.len());
        let order = around.replace("\"\"", &format!("\"{document}\""));
        assert_eq!(order.len(), limits::ORDERBOOK_ANSWER_BYTES_MAX);
        Ok(requests.iter().map(|_| ReadAnswer::Order(Some(order.clone()))).collect())
    };
    advance(&module, &block_with(1, logs), &mut state, &mut reads).unwrap();
    for number in 2..6 {
        advance(&module, &block(number), &mut state, &mut reads).unwrap();
    }
    assert_eq!(asked, [30, 30, 30, 10]);
}
