//! CoW Protocol on a real node: the contracts answer as those of Sepolia do.

use alloy_primitives::{Address, B256, Bytes, U256, b256, bytes, keccak256};
use alloy_sol_types::{SolCall, SolError, SolEvent, SolValue, sol};
use serde_json::{Value, json};
use shepherd_devnet::cow::{
    self, Call, ConditionalOrder, Cow, EthFlowOrder, Feed, GoodAfterTime, Hint, Hinted, MerkleTree,
    Order, Owner, OwnerKind, Poll, StopLoss, TradeAboveThreshold, Twap,
};
use shepherd_devnet::{Answer, Anvil, Token};

sol! {
    error ProofNotAuthed();
    error SingleOrderNotAuthed();
    error SwapGuardRestricted();
    error InvalidHandler();
    error InvalidFallbackHandler();
    error InterfaceNotSupported();
    error OrderNotValid(string reason);
    error PollTryNextBlock(string reason);
    error PollNever(string reason);
    error PollTryAtBlock(uint256 number, string reason);
    error PollTryAtEpoch(uint256 seconds, string reason);
    error Unheard(uint256 argument);
    error OrderIsAlreadyOwned(bytes32 digest);
    error OrderIsAlreadyExpired();
    error IncorrectEthAmount();

    struct Call3 { address target; bool allowFailure; bytes callData; }
    struct Result3 { bool success; bytes returnData; }
    function aggregate3(Call3[] calls) external payable returns (Result3[] results);

    struct Params { address handler; bytes32 salt; bytes staticInput; }
    struct Proof { uint256 location; bytes data; }
    struct OrderWords {
        address sellToken; address buyToken; address receiver; uint256 sellAmount; uint256 buyAmount;
        uint32 validTo; bytes32 appData; uint256 feeAmount; bytes32 kind; bool partiallyFillable;
        bytes32 sellTokenBalance; bytes32 buyTokenBalance;
    }
    struct OnchainSignature { uint8 scheme; bytes data; }
    event ConditionalOrderCreated(address indexed owner, Params params);
    event MerkleRootSet(address indexed owner, bytes32 root, Proof proof);
    event OrderPlacement(address indexed sender, OrderWords order, OnchainSignature signature, bytes data);
    event OrderInvalidation(bytes orderUid);
    event OrderRefund(bytes orderUid, address indexed refunder);
    event PreSignature(address indexed owner, bytes orderUid, bool signed);
}

/// A time that is not the machine's.
const START: u64 = 1_900_000_000;

async fn devnet() -> (Anvil, Cow) {
    let options = shepherd_devnet::Options { genesis_time: Some(START), ..Cow::options() };
    let anvil = Anvil::start(options).await.expect("cargo xtask setup has been run");
    let cow = Cow::deploy(&anvil).await.unwrap();
    anvil.mine_at(START + 1000).await.unwrap();
    (anvil, cow)
}

fn twap(receiver: Address, t0: u64) -> Twap {
    Twap {
        sell_token: cow::WETH,
        buy_token: cow::COW_TOKEN,
        receiver,
        part_sell_amount: U256::from(1000),
        min_part_limit: U256::from(7),
        t0,
        n: 3,
        t: 600,
        span: 0,
        app_data: cow::EMPTY_APP_DATA,
    }
}

fn order(receiver: Address) -> Order {
    let sell = (cow::WETH, U256::from(1000));
    let buy = (cow::COW_TOKEN, U256::ONE);
    Order { valid_to: (START + 100_000) as u32, ..Order::sell(sell, buy, receiver) }
}

fn salt(number: u64) -> B256 {
    U256::from(number).into()
}

async fn create(anvil: &Anvil, owner: Owner, order: &ConditionalOrder) {
    anvil.execute(&[owner.transaction(&[order.create()])]).await.unwrap();
}

/// What a poll finds, after the owner accepted its signature and no other one.
async fn found(
    anvil: &Anvil,
    cow: &Cow,
    owner: Owner,
    order: &ConditionalOrder,
    proof: &[B256],
) -> Order {
    let poll = cow.poll(anvil, owner.address, order, proof).await.unwrap();
    let Poll::Order { order, signature } = poll else { panic!("no order: {poll:?}") };
    let ask = async |digest| {
        cow.ask_owner(anvil, owner.address, digest, signature.clone()).await.unwrap()
    };
    let magic = B256::right_padding_from(&[0x16, 0x26, 0xba, 0x7e]);
    assert_eq!(ask(order.digest(cow::DOMAIN)).await, Answer::Returned(magic.into()));
    assert!(matches!(ask(B256::repeat_byte(1)).await, Answer::Reverted(_)));
    order
}

async fn reverts(
    anvil: &Anvil,
    cow: &Cow,
    owner: Address,
    order: &ConditionalOrder,
    data: impl Into<Bytes>,
) {
    let poll = cow.poll(anvil, owner, order, &[]).await.unwrap();
    assert_eq!(poll, Poll::Reverted(data.into()));
}

fn not_valid(reason: &str) -> Vec<u8> {
    OrderNotValid { reason: reason.to_owned() }.abi_encode()
}

/// The logs of an event in all blocks.
async fn events<E: SolEvent>(anvil: &Anvil, emitter: Address) -> Vec<E> {
    let filter = json!({
        "fromBlock": "0x0", "toBlock": "latest", "address": emitter, "topics": [E::SIGNATURE_HASH],
    });
    let logs = anvil.call("eth_getLogs", json!([filter])).await.unwrap();
    let event = |log: &Value| {
        let topics: Vec<B256> = serde_json::from_value(log["topics"].clone()).unwrap();
        let data: Bytes = serde_json::from_value(log["data"].clone()).unwrap();
        E::decode_raw_log_validate(topics, &data).unwrap()
    };
    logs.as_array().unwrap().iter().map(event).collect()
}

#[tokio::test]
async fn every_contract_is_at_its_place_and_a_second_deployment_finds_it() {
    let (anvil, cow) = devnet().await;
    for (name, address) in Cow::addresses() {
        assert!(!anvil.code(address).await.unwrap().is_empty(), "{name} at {address}");
    }
    let separator = Bytes::from(keccak256("domainSeparator()")[..4].to_vec());
    for contract in [cow::SETTLEMENT, cow::COMPOSABLE_COW] {
        let domain = anvil.view(contract, separator.clone()).await.unwrap();
        assert_eq!(domain.as_ref(), cow::DOMAIN.as_slice(), "{contract}");
    }
    let relayer = Bytes::from(keccak256("vaultRelayer()")[..4].to_vec());
    let relayer = anvil.view(cow::SETTLEMENT, relayer).await.unwrap();
    assert_eq!(Address::from_slice(&relayer[12..]), cow::VAULT_RELAYER);
    let symbol = Bytes::from(keccak256("symbol()")[..4].to_vec());
    let symbol = anvil.view(cow::COW_TOKEN, symbol).await.unwrap();
    assert_eq!(String::abi_decode(&symbol).unwrap(), "COW");

    let owners = cow.safes(&anvil, 0..2).await.unwrap();
    let anvil = anvil.stop().await.unwrap().start().await.unwrap();
    let again = Cow::deploy(&anvil).await.unwrap();
    assert_eq!(again.safes(&anvil, 0..2).await.unwrap(), owners);
}

#[tokio::test]
async fn contracts_answer_at_the_blocks_of_the_past() {
    let (anvil, cow) = devnet().await;
    let safe = cow.safes(&anvil, 0..1).await.unwrap()[0];
    let order = twap(safe.address, 1).order(salt(1));
    let before = anvil.head().await.unwrap().hash;
    create(&anvil, safe, &order).await;
    let after = anvil.head().await.unwrap().hash;
    let anvil = anvil.stop().await.unwrap().start().await.unwrap();
    anvil.mine(3).await.unwrap();
    let wanted = [
        keccak256("singleOrders(address,bytes32)")[..4].to_vec(),
        (safe.address, order.id()).abi_encode(),
    ];
    let wanted = Bytes::from(wanted.concat());
    for (block, is) in [(before, false), (after, true)] {
        let answer = anvil.view_at(cow::COMPOSABLE_COW, wanted.clone(), block).await.unwrap();
        assert_eq!(bool::abi_decode(&answer).unwrap(), is);
    }
}

#[tokio::test]
async fn it_comes_up_while_blocks_are_made_by_themselves() {
    let mining = shepherd_devnet::Mining::Every(std::time::Duration::from_millis(250));
    let options = shepherd_devnet::Options { mining, ..Cow::options() };
    let anvil = Anvil::start(options).await.unwrap();
    let cow = Cow::deploy(&anvil).await.unwrap();
    let safe = cow.safes(&anvil, 0..1).await.unwrap()[0];
    let twap = twap(safe.address, anvil.time().await.unwrap());
    let order = twap.order(salt(1));
    create(&anvil, safe, &order).await;
    assert_eq!(found(&anvil, &cow, safe, &order, &[]).await, twap.part(twap.t0, 0));
}

#[tokio::test]
async fn deployments_of_a_file_take_the_place_of_our_own_contracts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deployments.json");
    // Returns the runtime code that follows: one that answers everything with 42.
    let code = bytes!("600a600c600039600a6000f3" "602a60005260206000f3");
    let sender = Address::repeat_byte(0x77);
    let factory: Address = "0x4e59b44847b379578588920cA78FbF26c0B4956C".parse().unwrap();
    let called = factory.create2_from_code(salt(9), &code);
    let data = Bytes::from([salt(9).as_slice(), &code].concat());
    let deployments = json!({
        "Created": { "address": sender.create(5), "from": sender, "nonce": 5, "data": code },
        "Called": { "address": called, "to": factory, "data": data },
    });
    std::fs::write(&file, deployments.to_string()).unwrap();
    let anvil = Anvil::start(Cow::options()).await.unwrap();
    Cow::deploy_with(&anvil, &cow::Deployments::read(&file).unwrap()).await.unwrap();
    for address in [sender.create(5), called] {
        let answer = anvil.view(address, Bytes::new()).await.unwrap();
        assert_eq!(U256::from_be_slice(&answer), U256::from(42));
    }

    let elsewhere = json!({ "Lost": { "address": cow::BATCH, "to": factory, "data": data } });
    std::fs::write(&file, elsewhere.to_string()).unwrap();
    let anvil = Anvil::start(Cow::options()).await.unwrap();
    let error = Cow::deploy_with(&anvil, &cow::Deployments::read(&file).unwrap()).await;
    assert!(format!("{:#}", error.unwrap_err()).contains("deploying Lost"));
}

#[tokio::test]
async fn a_fork_has_the_contracts_and_the_orders_of_its_chain() {
    let (real, cow) = devnet().await;
    let safe = cow.safes(&real, 0..1).await.unwrap()[0];
    let twap = twap(safe.address, real.time().await.unwrap());
    let [order, other] = [1, 2].map(|number| twap.order(salt(number)));
    create(&real, safe, &order).await;
    // The fork meets a token that is not ours.
    real.set_code(cow::COW_TOKEN, bytes!("602a60005260206000f3")).await.unwrap();
    real.mine(1).await.unwrap();

    let options = shepherd_devnet::Options { fork: Some(real.http_url()), ..Cow::options() };
    let fork = Anvil::start(options).await.unwrap();
    let cow = Cow::deploy(&fork).await.unwrap();
    assert_eq!(cow.safes(&fork, 0..2).await.unwrap()[0], safe);
    assert_eq!(found(&fork, &cow, safe, &order, &[]).await, twap.part(twap.t0, 0));
    create(&fork, safe, &other).await;
    found(&fork, &cow, safe, &other, &[]).await;
    reverts(&real, &cow, safe.address, &other, SingleOrderNotAuthed {}.abi_encode()).await;
}

#[tokio::test]
async fn owners_of_both_kinds_have_funds_and_sign_the_parts_of_their_twaps() {
    let (anvil, cow) = devnet().await;
    let safe = cow.safes(&anvil, 0..1).await.unwrap()[0];
    let forwarder = cow.forwarders(&anvil, 0..1).await.unwrap()[0];
    assert_eq!([safe.kind, forwarder.kind], [OwnerKind::Safe, OwnerKind::Forwarder]);
    for owner in [safe, forwarder] {
        for token in [cow::WETH, cow::COW_TOKEN].map(Token::at) {
            let has = token.balance_of(&anvil, owner.address).await.unwrap();
            assert_eq!(has, U256::from(10).pow(U256::from(24)));
            let may = token.allowance(&anvil, owner.address, cow::VAULT_RELAYER).await.unwrap();
            assert_eq!(may, U256::MAX);
        }
        let twap = twap(owner.address, START + 5000);
        let order = twap.order(salt(1));
        create(&anvil, owner, &order).await;
        reverts(&anvil, &cow, owner.address, &order, not_valid("before twap start")).await;
        let snapshot = anvil.snapshot().await.unwrap();
        for part in 0..3 {
            for second in [0, 599] {
                anvil.mine_at(twap.t0 + part * 600 + second).await.unwrap();
                let found = found(&anvil, &cow, owner, &order, &[]).await;
                assert_eq!(found, twap.part(twap.t0, part));
            }
        }
        anvil.mine_at(twap.t0 + 1800).await.unwrap();
        reverts(&anvil, &cow, owner.address, &order, not_valid("after twap finish")).await;
        anvil.revert(snapshot).await.unwrap();
    }
    let created = events::<ConditionalOrderCreated>(&anvil, cow::COMPOSABLE_COW).await;
    assert!(created.iter().any(|event| event.owner == safe.address));
}

#[tokio::test]
async fn a_twap_knows_its_spans_and_what_can_never_be() {
    let (anvil, cow) = devnet().await;
    let safe = cow.safes(&anvil, 0..1).await.unwrap()[0];
    let now = anvil.time().await.unwrap();
    let valid = Twap { span: 60, ..twap(safe.address, now + 100) };
    let year = 365 * 24 * 60 * 60;
    let never = [
        (Twap { buy_token: cow::WETH, ..valid }, "same token"),
        (Twap { buy_token: Address::ZERO, ..valid }, "invalid token"),
        (Twap { part_sell_amount: U256::ZERO, ..valid }, "invalid part sell amount"),
        (Twap { min_part_limit: U256::ZERO, ..valid }, "invalid min part limit"),
        (Twap { t0: u32::MAX.into(), ..valid }, "invalid start time"),
        (Twap { n: 1, ..valid }, "invalid num parts"),
        (Twap { t: year + 1, ..valid }, "invalid frequency"),
        (Twap { span: 601, ..valid }, "invalid span"),
        (Twap { t0: 0, ..valid }, "after twap finish"),
    ];
    let mut orders = vec![(safe, valid.order(salt(0)))];
    orders.extend(never.iter().map(|(twap, _)| (safe, twap.order(salt(0)))));
    cow.create(&anvil, &orders).await.unwrap();
    for ((_, reason), (_, order)) in never.iter().zip(&orders[1..]) {
        reverts(&anvil, &cow, safe.address, order, not_valid(reason)).await;
    }
    let order = &orders[0].1;
    anvil.mine_at(valid.t0 + 59).await.unwrap();
    assert_eq!(found(&anvil, &cow, safe, order, &[]).await, valid.part(valid.t0, 0));
    anvil.mine_at(valid.t0 + 60).await.unwrap();
    reverts(&anvil, &cow, safe.address, order, not_valid("not within span")).await;
    anvil.mine_at(valid.t0 + 600).await.unwrap();
    assert_eq!(found(&anvil, &cow, safe, order, &[]).await, valid.part(valid.t0, 1));
}

#[tokio::test]
async fn a_twap_without_a_start_begins_in_its_block_and_ends_when_it_is_removed() {
    let (anvil, cow) = devnet().await;
    let safe = cow.safes(&anvil, 0..1).await.unwrap()[0];
    let twap = twap(safe.address, 0);
    let order = twap.order(salt(1));
    anvil.execute(&[safe.transaction(&[order.create_with_time()])]).await.unwrap();
    let start = anvil.time().await.unwrap();
    assert_eq!(found(&anvil, &cow, safe, &order, &[]).await, twap.part(start, 0));

    let logs = anvil.count_logs(0..=100, Some(cow::COMPOSABLE_COW)).await.unwrap();
    anvil.execute(&[safe.transaction(&[order.remove()])]).await.unwrap();
    let unauthed = SingleOrderNotAuthed {}.abi_encode();
    assert_eq!(unauthed, bytes!("7a933234"));
    reverts(&anvil, &cow, safe.address, &order, unauthed).await;
    let after = anvil.count_logs(0..=100, Some(cow::COMPOSABLE_COW)).await.unwrap();
    assert_eq!(logs, after, "a removal tells nobody");
}

#[tokio::test]
async fn a_reorg_takes_a_created_order_away() {
    let (anvil, cow) = devnet().await;
    let safe = cow.safes(&anvil, 0..1).await.unwrap()[0];
    let order = twap(safe.address, 1).order(salt(1));
    anvil.mine(3).await.unwrap();
    create(&anvil, safe, &order).await;
    assert_eq!(events::<ConditionalOrderCreated>(&anvil, cow::COMPOSABLE_COW).await.len(), 1);
    let time = anvil.time().await.unwrap();
    anvil.reorg(2).await.unwrap();
    assert!(events::<ConditionalOrderCreated>(&anvil, cow::COMPOSABLE_COW).await.is_empty());
    reverts(&anvil, &cow, safe.address, &order, SingleOrderNotAuthed {}.abi_encode()).await;
    assert!(anvil.time().await.unwrap().abs_diff(time) < 100, "time does not jump");
    // The owner can create it again, in spite of what was undone.
    create(&anvil, safe, &order).await;
    reverts(&anvil, &cow, safe.address, &order, not_valid("after twap finish")).await;
}

#[tokio::test]
async fn orders_of_a_merkle_root_count_with_their_proofs() {
    let (anvil, cow) = devnet().await;
    let safe = cow.safes(&anvil, 0..1).await.unwrap()[0];
    for count in [1, 2, 5] {
        let twap = twap(safe.address, anvil.time().await.unwrap());
        let orders = (0..count).map(|number| twap.order(salt(number))).collect();
        let tree = MerkleTree::new(orders);
        anvil.execute(&[safe.transaction(&[tree.set_root()])]).await.unwrap();
        for (index, order) in tree.orders().iter().enumerate() {
            let found = found(&anvil, &cow, safe, order, &tree.proof(index)).await;
            assert_eq!(found, twap.part(twap.t0, 0));
        }
        let stranger = twap.order(salt(99));
        let poll = cow.poll(&anvil, safe.address, &stranger, &tree.proof(0)).await.unwrap();
        assert_eq!(poll, Poll::Reverted(bytes!("4a821464")));
        assert_eq!(ProofNotAuthed::SELECTOR, [0x4a, 0x82, 0x14, 0x64]);

        let event = events::<MerkleRootSet>(&anvil, cow::COMPOSABLE_COW).await.pop().unwrap();
        assert_eq!((event.owner, event.root), (safe.address, tree.root()));
        assert_eq!(event.proof.location, U256::ONE);
        let leaves = Vec::<Bytes>::abi_decode(&event.proof.data).unwrap();
        assert_eq!(leaves.len() as u64, count);
        let (proof, params) = <(Vec<B256>, Params)>::abi_decode_params(&leaves[0]).unwrap();
        assert_eq!(proof, tree.proof(0));
        assert_eq!(keccak256(params.abi_encode()), tree.orders()[0].id());
    }
}

#[tokio::test]
async fn a_handler_can_be_made_to_say_everything() {
    let (anvil, cow) = devnet().await;
    let safe = cow.safes(&anvil, 0..1).await.unwrap()[0];
    let order = order(safe.address);
    let (block, time) = (anvil.block_number().await.unwrap(), anvil.time().await.unwrap());
    let (reason, number) = ("hint".to_owned(), U256::from(77));
    let cases: [(Hint, Vec<u8>); 8] = [
        (Hint::TryNextBlock, PollTryNextBlock { reason: reason.clone() }.abi_encode()),
        (Hint::TryAtBlock(number), PollTryAtBlock { number, reason: reason.clone() }.abi_encode()),
        (
            Hint::TryAtEpoch(number),
            PollTryAtEpoch { seconds: number, reason: reason.clone() }.abi_encode(),
        ),
        (Hint::Never, PollNever { reason: reason.clone() }.abi_encode()),
        (Hint::NotValid, OrderNotValid { reason }.abi_encode()),
        (Hint::UnknownError(number), Unheard { argument: number }.abi_encode()),
        (Hint::Panic, [&[0x4e, 0x48, 0x7b, 0x71][..], salt(1).as_slice()].concat()),
        (Hint::NoData, Vec::new()),
    ];
    let hinted = |(hint, _): &(Hint, Vec<u8>)| {
        let hinted = Hinted { order, hint: *hint, from_block: block + 3, from_time: time + 10_000 };
        (safe, hinted.order(salt(1)))
    };
    let orders: Vec<_> = cases.iter().map(hinted).collect();
    cow.create(&anvil, &orders).await.unwrap();
    for ((_, data), (_, order)) in cases.iter().zip(&orders) {
        reverts(&anvil, &cow, safe.address, order, data.clone()).await;
    }
    anvil.mine(5).await.unwrap();
    reverts(&anvil, &cow, safe.address, &orders[0].1, cases[0].1.clone()).await;
    anvil.mine_at(time + 10_000).await.unwrap();
    for (_, hinted) in &orders {
        assert_eq!(found(&anvil, &cow, safe, hinted, &[]).await, order);
    }
}

#[tokio::test]
async fn a_guard_closes_and_opens_again() {
    let (anvil, cow) = devnet().await;
    let safe = cow.safes(&anvil, 0..1).await.unwrap()[0];
    let twap = twap(safe.address, anvil.time().await.unwrap());
    let order = twap.order(salt(1));
    create(&anvil, safe, &order).await;
    let Poll::Order { order: part, signature } =
        cow.poll(&anvil, safe.address, &order, &[]).await.unwrap()
    else {
        panic!("the first part has begun")
    };
    let guard = cow::set_swap_guard(cow::CLOSED_GUARD);
    anvil.execute(&[safe.transaction(&[guard])]).await.unwrap();
    reverts(&anvil, &cow, safe.address, &order, bytes!("03fc2a7e")).await;
    let digest = part.digest(cow::DOMAIN);
    let asked = cow.ask_owner(&anvil, safe.address, digest, signature).await.unwrap();
    assert_eq!(asked, Answer::Reverted(bytes!("03fc2a7e")));
    let guard = cow::set_swap_guard(Address::ZERO);
    anvil.execute(&[safe.transaction(&[guard])]).await.unwrap();
    assert_eq!(found(&anvil, &cow, safe, &order, &[]).await, part);
}

#[tokio::test]
async fn a_balance_above_its_threshold_is_sold_by_the_end_of_the_bucket() {
    let (anvil, cow) = devnet().await;
    let safe = cow.safes(&anvil, 0..1).await.unwrap()[0];
    let condition = TradeAboveThreshold {
        sell_token: cow::WETH,
        buy_token: cow::COW_TOKEN,
        receiver: safe.address,
        bucket_seconds: 3600,
        threshold: U256::from(100),
        app_data: cow::EMPTY_APP_DATA,
    };
    let condition = condition.order(salt(1));
    create(&anvil, safe, &condition).await;
    cow.set_weth_balance(&anvil, safe.address, U256::from(99)).await.unwrap();
    anvil.mine(1).await.unwrap();
    let poor = PollTryNextBlock { reason: "balance insufficient".to_owned() }.abi_encode();
    reverts(&anvil, &cow, safe.address, &condition, poor).await;
    cow.set_weth_balance(&anvil, safe.address, U256::from(150)).await.unwrap();
    anvil.mine(1).await.unwrap();
    let bucket = (anvil.time().await.unwrap() / 3600 + 1) * 3600;
    let found = found(&anvil, &cow, safe, &condition, &[]).await;
    assert_eq!((found.sell_amount, found.valid_to), (U256::from(150), bucket as u32));
}

#[tokio::test]
async fn many_reads_are_one_call_and_keep_what_each_reverted_with() {
    let (anvil, cow) = devnet().await;
    let separator = Bytes::from(keccak256("domainSeparator()")[..4].to_vec());
    let poll = [keccak256("getValue(bytes)")[..4].to_vec(), Bytes::new().abi_encode()].concat();
    let refused = cow::set_pre_signature(cow::Uid::ZERO, true);
    let call = |target, data| Call3 { target, allowFailure: true, callData: data };
    let calls = vec![
        call(cow::SETTLEMENT, separator),
        call(cow::TIMESTAMP_FACTORY, poll.into()),
        call(refused.to, refused.data),
    ];
    let data = aggregate3Call { calls: calls.clone() }.abi_encode().into();
    let answer = anvil.view(cow::MULTICALL, data).await.unwrap();
    let results = aggregate3Call::abi_decode_returns_validate(&answer).unwrap();
    assert_eq!(results[0].returnData, cow::DOMAIN.to_vec());
    assert!(U256::from_be_slice(&results[1].returnData) >= U256::from(START));
    let reason = String::abi_decode(&results[2].returnData[4..]).unwrap();
    assert_eq!((results[2].success, &*reason), (false, "GPv2: cannot presign order"));
    let strict = calls.into_iter().map(|call| Call3 { allowFailure: false, ..call }).collect();
    let data = aggregate3Call { calls: strict }.abi_encode().into();
    let answer = anvil.read(cow.controller(), cow::MULTICALL, data).await.unwrap();
    assert!(matches!(answer, Answer::Reverted(_)));
}

#[test]
fn topics_are_those_of_sepolia() {
    let check = |topic: B256, known: B256| assert_eq!(topic, known);
    check(
        ConditionalOrderCreated::SIGNATURE_HASH,
        b256!("2cceac5555b0ca45a3744ced542f54b56ad2eb45e521962372eef212a2cbf361"),
    );
    check(
        MerkleRootSet::SIGNATURE_HASH,
        b256!("58662f46b4a87d0f96d929b24c37fe25c55d52c0025d0b2bec3936534cc31e57"),
    );
    check(
        OrderPlacement::SIGNATURE_HASH,
        b256!("cf5f9de2984132265203b5c335b25727702ca77262ff622e136baa7362bf1da9"),
    );
    check(
        OrderInvalidation::SIGNATURE_HASH,
        b256!("b8bad102ac8bbacfef31ff1c906ec6d951c230b4dce750bb0376b812ad35852a"),
    );
    check(
        OrderRefund::SIGNATURE_HASH,
        b256!("195271068a288191e4b265c641a56b9832919f69e9e7d6c2f31ba40278aeb85a"),
    );
    check(
        PreSignature::SIGNATURE_HASH,
        b256!("01bf7c8b0ca55deecbea89d7e58295b7ffbf685fd0d96801034ba8c6ffe1c68d"),
    );
}

#[test]
fn selectors_are_those_of_sepolia() {
    let check = |selector: [u8; 4], known: u32| assert_eq!(u32::from_be_bytes(selector), known);
    check(ProofNotAuthed::SELECTOR, 0x4a821464);
    check(SingleOrderNotAuthed::SELECTOR, 0x7a933234);
    check(SwapGuardRestricted::SELECTOR, 0x03fc2a7e);
    check(InvalidHandler::SELECTOR, 0xd8f59fa5);
    check(InvalidFallbackHandler::SELECTOR, 0x79ac63cd);
    check(InterfaceNotSupported::SELECTOR, 0x2c7ca6d7);
    check(OrderNotValid::SELECTOR, 0xc8fc2725);
    check(PollTryNextBlock::SELECTOR, 0xd05f3065);
    check(PollNever::SELECTOR, 0x981b64cd);
    check(PollTryAtBlock::SELECTOR, 0x1fe8506e);
    check(PollTryAtEpoch::SELECTOR, 0x7e334637);
    check(OrderIsAlreadyOwned::SELECTOR, 0x56a1d2b2);
    check(OrderIsAlreadyExpired::SELECTOR, 0x89bb2601);
    check(IncorrectEthAmount::SELECTOR, 0x8b6ebb4d);
}

#[tokio::test]
async fn what_is_no_handler_or_no_owner_is_named() {
    let (anvil, cow) = devnet().await;
    let safe = cow.safes(&anvil, 0..1).await.unwrap()[0];
    let good = twap(safe.address, anvil.time().await.unwrap()).order(salt(1));
    let at = |handler| ConditionalOrder { handler, ..good.clone() };
    // A contract that knows ERC-165 and is no handler, one that does not, and none at all.
    let orders = [at(cow::FALLBACK_HANDLER), at(cow::COW_TOKEN), at(Address::ZERO)];
    let [other, deaf, nobody] = &orders;
    create(&anvil, safe, other).await;
    create(&anvil, safe, deaf).await;
    reverts(&anvil, &cow, safe.address, other, InterfaceNotSupported {}.abi_encode()).await;
    reverts(&anvil, &cow, safe.address, deaf, InvalidHandler {}.abi_encode()).await;
    let refused = anvil.execute(&[safe.transaction(&[nobody.create()])]).await;
    assert!(refused.is_err(), "no order without a handler");
    let call = nobody.create();
    let answer = anvil.read(cow.controller(), call.to, call.data).await.unwrap();
    assert_eq!(answer, Answer::Reverted(bytes!("d8f59fa5")));

    // A Safe that has turned to another fallback handler.
    create(&anvil, safe, &good).await;
    let call = [keccak256("setFallbackHandler(address)")[..4].to_vec(), cow::TWAP.abi_encode()];
    let turn = Call { to: Address::ZERO, data: call.concat().into() };
    anvil.execute(&[safe.transaction(&[turn])]).await.unwrap();
    reverts(&anvil, &cow, safe.address, &good, InvalidFallbackHandler {}.abi_encode()).await;
}

#[tokio::test]
async fn a_stop_loss_waits_for_its_price_and_wants_a_fresh_one() {
    let (anvil, cow) = devnet().await;
    let safe = cow.safes(&anvil, 0..1).await.unwrap()[0];
    let dollars = |dollars: i64| alloy_primitives::I256::try_from(dollars * 100_000_000).unwrap();
    let unit = dollars(1) * dollars(100);
    let dollar = Feed::deploy(&anvil, "USD / USD", 8, dollars(1)).await.unwrap();
    let ether = Feed::at(cow::ETH_USD_FEED);
    let order = order(safe.address);
    let stop_loss = StopLoss {
        order,
        sell_feed: ether.address(),
        buy_feed: dollar.address(),
        strike: dollars(2000) * unit / dollars(1),
        price_age_max: 1_000_000_000,
    };
    let fussy = StopLoss { price_age_max: 10, ..stop_loss };
    let orders = [stop_loss, fussy].map(|condition| (safe, condition.order(salt(1))));
    cow.create(&anvil, &orders).await.unwrap();
    let condition = &orders[0].1;
    let waits = PollTryNextBlock { reason: "strike not reached".to_owned() }.abi_encode();
    reverts(&anvil, &cow, safe.address, condition, waits.clone()).await;
    let from = cow.controller();
    anvil.execute(&[ether.move_to(from, dollars(2000))]).await.unwrap();
    assert_eq!(found(&anvil, &cow, safe, condition, &[]).await, order);
    anvil.execute(&[ether.move_to(from, dollars(2001))]).await.unwrap();
    reverts(&anvil, &cow, safe.address, condition, waits).await;
    anvil.execute(&[ether.move_to(from, dollars(-1))]).await.unwrap();
    let stale = not_valid("oracle invalid price");
    reverts(&anvil, &cow, safe.address, condition, stale).await;
    let hour_ago = anvil.time().await.unwrap() - 3600;
    anvil.execute(&[ether.set(from, dollars(1000), hour_ago)]).await.unwrap();
    let stale = not_valid("oracle stale price");
    reverts(&anvil, &cow, safe.address, &orders[1].1, stale).await;
}

#[tokio::test]
async fn good_after_time_says_when_to_come_back_and_waits_for_the_balance() {
    let (anvil, cow) = devnet().await;
    let safe = cow.safes(&anvil, 0..1).await.unwrap()[0];
    let start = anvil.time().await.unwrap() + 500;
    let order = order(safe.address);
    let condition = GoodAfterTime { order, start, balance_min: U256::from(10) }.order(salt(1));
    create(&anvil, safe, &condition).await;
    let seconds = U256::from(start);
    let early = PollTryAtEpoch { seconds, reason: "too early".to_owned() }.abi_encode();
    reverts(&anvil, &cow, safe.address, &condition, early).await;
    cow.set_weth_balance(&anvil, safe.address, U256::from(9)).await.unwrap();
    anvil.mine_at(start).await.unwrap();
    let poor = PollTryNextBlock { reason: "balance insufficient".to_owned() }.abi_encode();
    reverts(&anvil, &cow, safe.address, &condition, poor).await;
    cow.set_weth_balance(&anvil, safe.address, U256::from(10)).await.unwrap();
    anvil.mine(1).await.unwrap();
    assert_eq!(found(&anvil, &cow, safe, &condition, &[]).await, order);
    anvil.mine_at(u64::from(order.valid_to) + 1).await.unwrap();
    let late = PollNever { reason: "too late".to_owned() }.abi_encode();
    reverts(&anvil, &cow, safe.address, &condition, late).await;
}

#[tokio::test]
async fn ether_is_placed_invalidated_and_refunded() {
    let (anvil, cow) = devnet().await;
    let [user, other] = [anvil.accounts()[0], anvil.accounts()[1]];
    let end = anvil.time().await.unwrap() + 1000;
    let swap = EthFlowOrder {
        buy_token: cow::COW_TOKEN,
        receiver: user,
        sell_amount: U256::from(1_000_000),
        buy_amount: U256::from(3),
        app_data: keccak256("{\"rich\":true}"),
        valid_to: end as u32,
        quote_id: -5,
    };
    let second = EthFlowOrder { sell_amount: U256::from(2_000_000), ..swap };
    anvil.execute(&[swap.place(user), second.place(user)]).await.unwrap();
    assert_eq!(anvil.balance(cow::ETH_FLOW).await.unwrap(), U256::from(3_000_000));

    let [placed, _] = &events::<OrderPlacement>(&anvil, cow::ETH_FLOW).await[..] else {
        panic!("two placements")
    };
    assert_eq!(placed.sender, user);
    assert_eq!((placed.order.sellToken, placed.order.validTo), (cow::WETH, u32::MAX));
    assert_eq!(placed.signature.scheme, 0);
    assert_eq!(placed.signature.data.as_ref(), cow::ETH_FLOW.as_slice());
    assert_eq!(
        placed.data.to_vec(),
        [&(-5i64).to_be_bytes()[..], &(end as u32).to_be_bytes()].concat()
    );
    let words = swap.order();
    assert_eq!(placed.order.appData, words.app_data);

    // The contract stands by its order, under the digest that the settlement will ask for.
    let digest = words.digest(cow::DOMAIN);
    let asked = cow.ask_owner(&anvil, cow::ETH_FLOW, digest, Bytes::new()).await.unwrap();
    let magic = B256::right_padding_from(&[0x16, 0x26, 0xba, 0x7e]);
    assert_eq!(asked, Answer::Returned(magic.into()));

    let refusal = async |transaction: shepherd_devnet::Transaction| {
        let call = json!([{
            "from": transaction.from, "to": transaction.to, "value": transaction.value,
            "data": transaction.data,
        }, "latest"]);
        let error = anvil.rpc().try_call("eth_call", call).await.unwrap().unwrap_err();
        serde_json::from_value::<Bytes>(error.0["data"].clone()).unwrap()
    };
    let again = EthFlowOrder { quote_id: 9, valid_to: end as u32 + 1, ..swap };
    let owned = refusal(again.place(user)).await;
    assert_eq!(owned, OrderIsAlreadyOwned { digest }.abi_encode());
    let late = EthFlowOrder { sell_amount: U256::ONE, valid_to: START as u32, ..swap };
    assert_eq!(refusal(late.place(user)).await, bytes!("89bb2601"));
    let mut short = swap.place(user);
    short.value -= U256::ONE;
    assert_eq!(refusal(short).await, bytes!("8b6ebb4d"));
    assert!(anvil.execute(&[swap.invalidate(other)]).await.is_err(), "it is not his");

    anvil.execute(&[swap.invalidate(user)]).await.unwrap();
    let uid = |swap: EthFlowOrder| swap.order().uid(cow::DOMAIN, cow::ETH_FLOW);
    let invalidated = events::<OrderInvalidation>(&anvil, cow::ETH_FLOW).await;
    assert_eq!(invalidated[0].orderUid.as_ref(), uid(swap).as_slice());
    anvil.mine_at(end + 1).await.unwrap();
    anvil.execute(&[second.invalidate(other)]).await.unwrap();
    let refunded = events::<OrderRefund>(&anvil, cow::ETH_FLOW).await;
    assert_eq!(refunded[0].refunder, other);
    assert_eq!(refunded[0].orderUid.as_ref(), uid(second).as_slice());
    assert_eq!(anvil.balance(cow::ETH_FLOW).await.unwrap(), U256::ZERO);
}

#[tokio::test]
async fn an_owner_pre_signs_at_the_real_settlement() {
    let (anvil, cow) = devnet().await;
    let safe = cow.safes(&anvil, 0..1).await.unwrap()[0];
    let uid = order(safe.address).uid(cow::DOMAIN, safe.address);
    for signed in [true, false] {
        let call = cow::set_pre_signature(uid, signed);
        anvil.execute(&[safe.transaction(&[call])]).await.unwrap();
        let event = events::<PreSignature>(&anvil, cow::SETTLEMENT).await.pop().unwrap();
        assert_eq!((event.owner, event.signed), (safe.address, signed));
        assert_eq!(event.orderUid.as_ref(), uid.as_slice());
    }
}

#[tokio::test]
async fn balances_and_allowances_run_dry_and_come_back() {
    let (anvil, cow) = devnet().await;
    let safe = cow.safes(&anvil, 0..1).await.unwrap()[0].address;
    let (from, token) = (cow.controller(), Token::at(cow::COW_TOKEN));
    for value in [U256::ZERO, U256::from(5), U256::MAX >> 1] {
        let transactions = [
            token.set_balance(from, safe, value),
            token.set_allowance(from, safe, cow::VAULT_RELAYER, value),
        ];
        anvil.execute(&transactions).await.unwrap();
        cow.set_weth_balance(&anvil, safe, value).await.unwrap();
        anvil.mine(1).await.unwrap();
        assert_eq!(token.balance_of(&anvil, safe).await.unwrap(), value);
        assert_eq!(token.allowance(&anvil, safe, cow::VAULT_RELAYER).await.unwrap(), value);
        assert_eq!(Token::at(cow::WETH).balance_of(&anvil, safe).await.unwrap(), value);
    }
}

#[tokio::test]
async fn ten_thousand_orders_are_created_at_once() {
    let (anvil, cow) = devnet().await;
    let mut owners = cow.safes(&anvil, 0..50).await.unwrap();
    owners.extend(cow.forwarders(&anvil, 0..50).await.unwrap());
    let start = anvil.time().await.unwrap();
    let orders: Vec<_> = (0..10_000u64)
        .map(|number| {
            let owner = owners[number as usize % owners.len()];
            (owner, twap(owner.address, start + number).order(salt(number)))
        })
        .collect();
    let begin = std::time::Instant::now();
    cow.create(&anvil, &orders).await.unwrap();
    println!("created in {:?}", begin.elapsed());
    let block = anvil.block_number().await.unwrap();
    let logs = anvil.count_logs(block..=block, Some(cow::COMPOSABLE_COW)).await.unwrap();
    assert_eq!(logs, 10_000);
    let (owner, order) = &orders[0];
    anvil.mine_at(start + 300).await.unwrap();
    found(&anvil, &cow, *owner, order, &[]).await;
}
