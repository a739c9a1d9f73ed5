//! What logs, calls and reverts say, as far as their signatures are known.
//!
//! ```text
//!   topic0, selector ──▶ signature ──▶ name and arguments by name
//!   address          ──▶ the contract that has it on every chain
//! ```
//!
//! The tables are the contracts' own signatures, so a new one is a line. What is not in them is
//! shown as it is: nothing is guessed.

use std::{collections::BTreeMap, sync::LazyLock};

use alloy_dyn_abi::{DynSolValue, EventExt, FunctionExt, JsonAbiExt};
use alloy_json_abi::{Error, Event, EventParam, Function, Param};
use alloy_primitives::{Address, B256, Selector, address};
use serde::{Deserialize, Serialize};

use crate::explain::{
    shown::{hex_cut, time},
    signature,
};

const EVENTS: [&str; 13] = [
    "ConditionalOrderCreated(address indexed owner, (address handler, bytes32 salt, bytes staticInput) params)",
    "MerkleRootSet(address indexed owner, bytes32 root, (uint256 location, bytes data) proof)",
    "SwapGuardSet(address indexed owner, address swapGuard)",
    "OrderPlacement(address indexed sender, (address sellToken, address buyToken, address receiver, uint256 sellAmount, uint256 buyAmount, uint32 validTo, bytes32 appData, uint256 feeAmount, bytes32 kind, bool partiallyFillable, bytes32 sellTokenBalance, bytes32 buyTokenBalance) order, (uint8 scheme, bytes data) signature, bytes data)",
    "OrderInvalidation(bytes orderUid)",
    "OrderRefund(bytes orderUid, address indexed refunder)",
    "Trade(address indexed owner, address sellToken, address buyToken, uint256 sellAmount, uint256 buyAmount, uint256 feeAmount, bytes orderUid)",
    "Settlement(address indexed solver)",
    "OrderInvalidated(address indexed owner, bytes orderUid)",
    "PreSignature(address indexed owner, bytes orderUid, bool signed)",
    // Of ERC-20, and with one topic more of ERC-721.
    "Transfer(address indexed from, address indexed to, uint256 value)",
    "Transfer(address indexed from, address indexed to, uint256 indexed tokenId)",
    "Approval(address indexed owner, address indexed spender, uint256 value)",
];

const ORDER: &str = "(address sellToken, address buyToken, address receiver, uint256 sellAmount, uint256 buyAmount, uint32 validTo, bytes32 appData, uint256 feeAmount, bytes32 kind, bool partiallyFillable, bytes32 sellTokenBalance, bytes32 buyTokenBalance)";

/// Functions, with what they return where that is worth decoding. `ORDER` stands for the struct.
const FUNCTIONS: [&str; 22] = [
    "getTradeableOrderWithSignature(address owner, (address handler, bytes32 salt, bytes staticInput) params, bytes offchainInput, bytes32[] proof) → (ORDER order, bytes signature)",
    "getTradeableOrder(address owner, address sender, bytes32 ctx, bytes staticInput, bytes offchainInput) → (ORDER order)",
    "singleOrders(address owner, bytes32 order) → (bool authorised)",
    "cabinet(address owner, bytes32 order) → (bytes32 value)",
    "roots(address owner) → (bytes32 root)",
    "swapGuards(address owner) → (address guard)",
    "hash((address handler, bytes32 salt, bytes staticInput) params) → (bytes32 order)",
    "domainSeparator() → (bytes32 separator)",
    "isValidSignature(bytes32 hash, bytes signature) → (bytes4 magic)",
    "orders(bytes32 hash) → (address owner, uint32 validTo)",
    "preSignature(bytes orderUid) → (uint256 signed)",
    "filledAmount(bytes orderUid) → (uint256 amount)",
    "latestRoundData() → (uint80 roundId, int256 answer, uint256 startedAt, uint256 updatedAt, uint80 answeredInRound)",
    "decimals() → (uint8 decimals)",
    "balanceOf(address holder) → (uint256 balance)",
    "allowance(address owner, address spender) → (uint256 amount)",
    "totalSupply() → (uint256 supply)",
    "supportsInterface(bytes4 interfaceId) → (bool supported)",
    "aggregate3((address target, bool allowFailure, bytes callData)[] calls) → ((bool success, bytes returnData)[] results)",
    "aggregate3Value((address target, bool allowFailure, uint256 value, bytes callData)[] calls) → ((bool success, bytes returnData)[] results)",
    "setPreSignature(bytes orderUid, bool signed)",
    "invalidateOrder(bytes orderUid)",
];

const ERRORS: [&str; 16] = [
    "ProofNotAuthed()",
    "SingleOrderNotAuthed()",
    "SwapGuardRestricted()",
    "InvalidHandler()",
    "InvalidFallbackHandler()",
    "InterfaceNotSupported()",
    "OrderNotValid(string reason)",
    "PollTryNextBlock(string reason)",
    "PollNever(string reason)",
    "PollTryAtBlock(uint256 blockNumber, string reason)",
    "PollTryAtEpoch(uint256 timestamp, string reason)",
    "Error(string reason)",
    "Panic(uint256 code)",
    "OrderIsAlreadyOwned(bytes32 orderHash)",
    "OrderIsAlreadyExpired()",
    "IncorrectEthAmount()",
];

/// The same on every chain that Shepherd knows.
const CONTRACTS: [(Address, &str); 10] = [
    (address!("0xfdaFc9d1902f4e0b84f65F49f244b32b31013b74"), "ComposableCoW"),
    (TWAP, "TWAP handler"),
    (STOP_LOSS, "StopLoss handler"),
    (address!("0xdaf33924925e03c9cc3a10d434016d6cfad0add5"), "GoodAfterTime handler"),
    (address!("0x812308712a6d1367f437e1c1e4af85c854e1e9f6"), "TradeAboveThreshold handler"),
    (address!("0x519BA24e959E33b3B6220CA98bd353d8c2D89920"), "PerpetualStableSwap handler"),
    (address!("0x9008D19f58AAbD9eD0D60971565AA8510560ab41"), "GPv2Settlement"),
    (address!("0xC92E8bdf79f0507f65a392b0ab4667716BFE0110"), "GPv2VaultRelayer"),
    (address!("0xbA3cB449bD2B4ADddBc894D8697F5170800EAdeC"), "CoWSwapEthFlow"),
    (address!("0xcA11bde05977b3631167028862bE2a173976CA11"), "Multicall3"),
];

const TWAP: Address = address!("0x6cF1e9cA41f7611dEf408122793c358a3d11E5a5");
const STOP_LOSS: Address = address!("0x412c36e5011cd2517016d243a2dfb37f73a242e7");

/// What a handler is given by the order's owner, as a function that takes it.
const STATIC_INPUTS: [(Address, &str); 2] = [
    (
        TWAP,
        "twap(address sellToken, address buyToken, address receiver, uint256 partSellAmount, uint256 minPartLimit, uint256 t0, uint256 n, uint256 t, uint256 span, bytes32 appData)",
    ),
    (
        STOP_LOSS,
        "stopLoss((address sellToken, address buyToken, uint256 sellAmount, uint256 buyAmount, bytes32 appData, address receiver, bool isSellOrder, bool isPartiallyFillable, uint32 validTo, address sellTokenPriceOracle, address buyTokenPriceOracle, int256 strike, uint256 maxTimeSinceLastOracleUpdate) order)",
    ),
];

/// Words that orders write as hashes.
const HASHED: [(&str, &str); 5] = [
    ("f3b277728b3fee749481eb3e0b3b48980dbbab78658fc419025cb16eee346775", "sell"),
    ("6ed88e868af0a1983e3886d5f3e95a2fafbd6c3450bc229e27342283dc429ccc", "buy"),
    ("5a28e9363bb942b639270062aa6bb295f434bcdfc42c97267bf003f272060dc9", "erc20"),
    ("abee3b73373acd583a130924aad6dc38cfdc44ba0555ba94ce2ff63980ea0632", "external"),
    ("4ac99ace14ee0a5ef932dc609df0943ab7ac16b7583634612f8dc35a4289a6ce", "internal"),
];

/// Names of numbers that are seconds since 1970.
const TIMES: [&str; 6] = ["validTo", "startedAt", "updatedAt", "t0", "timestamp", "expires"];

static EVENTS_BY_TOPICS: LazyLock<BTreeMap<(B256, usize), Event>> = LazyLock::new(|| {
    let topics = |event: &Event| 1 + event.inputs.iter().filter(|input| input.indexed).count();
    let events = EVENTS.iter().map(|text| signature::event(text));
    events.map(|event| ((event.selector(), topics(&event)), event)).collect()
});

static FUNCTIONS_BY_SELECTOR: LazyLock<BTreeMap<Selector, Function>> = LazyLock::new(|| {
    FUNCTIONS.iter().map(|text| function(text)).map(|known| (known.selector(), known)).collect()
});

static ERRORS_BY_SELECTOR: LazyLock<BTreeMap<Selector, Error>> = LazyLock::new(|| {
    let errors = ERRORS.iter().map(|text| signature::error(text));
    errors.map(|error| (error.selector(), error)).collect()
});

fn function(text: &str) -> Function {
    signature::function(&text.replace("ORDER", ORDER))
}

/// Something with a name and arguments: an event, a call, what it returned, an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Its name in the contract.
    pub name: String,
    /// What it says.
    pub arguments: Vec<Argument>,
}

/// One argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Argument {
    /// Its name in the contract; empty where it has none.
    pub name: String,
    /// Its value.
    pub value: Value,
}

/// A value in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A single one.
    One(String),
    /// A struct.
    Struct(Vec<Argument>),
    /// A list.
    List(Vec<Value>),
}

/// The event a log is, when it is known and its data fits.
pub fn event(topics: &[B256], data: &[u8]) -> Option<Said> {
    let event = EVENTS_BY_TOPICS.get(&(*topics.first()?, topics.len()))?;
    let decoded = event.decode_log_parts(topics.iter().copied(), data).ok()?;
    let (mut indexed, mut body) = (decoded.indexed.into_iter(), decoded.body.into_iter());
    let argument = |input: &EventParam| {
        let value = if input.indexed { indexed.next() } else { body.next() };
        Some(argument(&input.name, &input.components, &value?))
    };
    let arguments = event.inputs.iter().map(argument).collect::<Option<_>>()?;
    Some(Said { name: event.name.clone(), arguments })
}

/// The call that this data makes, when it is known.
pub fn call(data: &[u8]) -> Option<Said> {
    let function = called(data)?;
    let values = function.abi_decode_input(data.get(4..)?).ok()?;
    Some(Said { name: function.name.clone(), arguments: arguments(&function.inputs, &values) })
}

/// What the call with this data returned, when it is known.
pub fn returned(data: &[u8], answer: &[u8]) -> Option<Vec<Argument>> {
    let function = called(data)?;
    let values = function.abi_decode_output(answer).ok()?;
    (!values.is_empty()).then(|| arguments(&function.outputs, &values))
}

/// The error that a call reverted with, when it is known.
pub fn error(data: &[u8]) -> Option<Said> {
    let error = ERRORS_BY_SELECTOR.get(data.get(..4)?)?;
    let values = error.abi_decode_input(&data[4..]).ok()?;
    Some(Said { name: error.name.clone(), arguments: arguments(&error.inputs, &values) })
}

/// The name of a contract that is at the same address on every chain.
pub fn contract(address: &Address) -> Option<&'static str> {
    CONTRACTS.iter().find(|(known, _)| known == address).map(|(_, name)| *name)
}

/// An address, with the name of its contract when that is known.
pub fn named(address: &Address) -> String {
    match contract(address) {
        Some(name) => format!("{address} ({name})"),
        None => address.to_string(),
    }
}

fn called(data: &[u8]) -> Option<&'static Function> {
    FUNCTIONS_BY_SELECTOR.get(data.get(..4)?)
}

fn arguments(params: &[Param], values: &[DynSolValue]) -> Vec<Argument> {
    let argument =
        |(param, value): (&Param, &DynSolValue)| argument(&param.name, &param.components, value);
    let mut arguments: Vec<Argument> = params.iter().zip(values).map(argument).collect();
    if let [DynSolValue::Address(handler), _, DynSolValue::Bytes(input)] = values
        && let Some(decoded) = static_input(handler, input)
    {
        arguments[2].value = Value::Struct(decoded);
    }
    arguments
}

/// What a conditional order of a known handler is.
fn static_input(handler: &Address, input: &[u8]) -> Option<Vec<Argument>> {
    let (_, text) = STATIC_INPUTS.iter().find(|(known, _)| known == handler)?;
    let function = function(text);
    let values = function.abi_decode_input(input).ok()?;
    let mut arguments = arguments(&function.inputs, &values);
    if let [Argument { value: Value::Struct(inner), .. }] = &mut arguments[..] {
        return Some(std::mem::take(inner));
    }
    Some(arguments)
}

fn argument(name: &str, components: &[Param], value: &DynSolValue) -> Argument {
    Argument { name: name.to_owned(), value: words(name, components, value) }
}

fn words(name: &str, components: &[Param], value: &DynSolValue) -> Value {
    Value::One(match value {
        DynSolValue::Tuple(values) => return Value::Struct(arguments(components, values)),
        DynSolValue::Array(values) | DynSolValue::FixedArray(values) => {
            return Value::List(values.iter().map(|value| words("", components, value)).collect());
        }
        DynSolValue::Address(address) => named(address),
        DynSolValue::Bool(yes) => yes.to_string(),
        DynSolValue::Uint(number, _) if TIMES.contains(&name) => {
            match u64::try_from(*number).ok().and_then(time) {
                Some(time) => format!("{number} ({time})"),
                None => number.to_string(),
            }
        }
        DynSolValue::Uint(number, _) => number.to_string(),
        DynSolValue::Int(number, _) => number.to_string(),
        DynSolValue::String(text) => format!("{text:?}"),
        DynSolValue::FixedBytes(word, size) => {
            let hex = alloy_primitives::hex::encode(&word[..*size]);
            match HASHED.iter().find(|(hash, _)| *hash == hex) {
                Some((_, word)) => (*word).to_owned(),
                None => format!("0x{hex}"),
            }
        }
        DynSolValue::Bytes(bytes) => hex_cut(bytes),
        other => format!("{other:?}"),
    })
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{U256, b256, hex, keccak256};

    use super::*;

    #[test]
    fn the_tables_have_the_contracts_own_hashes_and_selectors() {
        assert_eq!(EVENTS_BY_TOPICS.len(), EVENTS.len());
        assert_eq!(FUNCTIONS_BY_SELECTOR.len(), FUNCTIONS.len());
        assert_eq!(ERRORS_BY_SELECTOR.len(), ERRORS.len());
        for (_, text) in STATIC_INPUTS {
            assert!(!function(text).inputs.is_empty());
        }
        for (topic, topics, name) in [
            (
                b256!("2cceac5555b0ca45a3744ced542f54b56ad2eb45e521962372eef212a2cbf361"),
                2,
                "ConditionalOrderCreated",
            ),
            (
                b256!("58662f46b4a87d0f96d929b24c37fe25c55d52c0025d0b2bec3936534cc31e57"),
                2,
                "MerkleRootSet",
            ),
            (
                b256!("41f583e2d25b3921afe66987b63b0b5e4cf2acbbbed4a477fd19a22180f3f859"),
                2,
                "SwapGuardSet",
            ),
            (
                b256!("cf5f9de2984132265203b5c335b25727702ca77262ff622e136baa7362bf1da9"),
                2,
                "OrderPlacement",
            ),
            (
                b256!("b8bad102ac8bbacfef31ff1c906ec6d951c230b4dce750bb0376b812ad35852a"),
                1,
                "OrderInvalidation",
            ),
            (
                b256!("195271068a288191e4b265c641a56b9832919f69e9e7d6c2f31ba40278aeb85a"),
                2,
                "OrderRefund",
            ),
            (b256!("a07a543ab8a018198e99ca0184c93fe9050a79400a0a723441f84de1d972cc17"), 2, "Trade"),
            (
                b256!("40338ce1a7c49204f0099533b1e9a7ee0a3d261f84974ab7af36105b8c4e9db4"),
                2,
                "Settlement",
            ),
            (
                b256!("875b6cb035bbd4ac6500fabc6d1e4ca5bdc58a3e2b424ccb5c24cdbebeb009a9"),
                2,
                "OrderInvalidated",
            ),
            (
                b256!("01bf7c8b0ca55deecbea89d7e58295b7ffbf685fd0d96801034ba8c6ffe1c68d"),
                2,
                "PreSignature",
            ),
        ] {
            assert_eq!(EVENTS_BY_TOPICS[&(topic, topics)].name, name);
        }
        for (selector, name) in [
            (hex!("26e0a196"), "getTradeableOrderWithSignature"),
            (hex!("6108c532"), "singleOrders"),
            (hex!("1c7662c8"), "cabinet"),
            (hex!("a4546876"), "roots"),
            (hex!("595001b2"), "swapGuards"),
            (hex!("5500079d"), "hash"),
            (hex!("f698da25"), "domainSeparator"),
            (hex!("b8296fc4"), "getTradeableOrder"),
            (hex!("1626ba7e"), "isValidSignature"),
            (hex!("9c3f1e90"), "orders"),
            (hex!("ec6cb13f"), "setPreSignature"),
            (hex!("d08d33d1"), "preSignature"),
            (hex!("2479fb6e"), "filledAmount"),
            (hex!("15337bc0"), "invalidateOrder"),
            (hex!("feaf968c"), "latestRoundData"),
            (hex!("313ce567"), "decimals"),
            (hex!("82ad56cb"), "aggregate3"),
            (hex!("174dea71"), "aggregate3Value"),
            (hex!("70a08231"), "balanceOf"),
        ] {
            assert_eq!(FUNCTIONS_BY_SELECTOR[&Selector::from(selector)].name, name);
        }
        for (selector, name) in [
            (hex!("4a821464"), "ProofNotAuthed"),
            (hex!("7a933234"), "SingleOrderNotAuthed"),
            (hex!("03fc2a7e"), "SwapGuardRestricted"),
            (hex!("d8f59fa5"), "InvalidHandler"),
            (hex!("79ac63cd"), "InvalidFallbackHandler"),
            (hex!("2c7ca6d7"), "InterfaceNotSupported"),
            (hex!("c8fc2725"), "OrderNotValid"),
            (hex!("d05f3065"), "PollTryNextBlock"),
            (hex!("981b64cd"), "PollNever"),
            (hex!("1fe8506e"), "PollTryAtBlock"),
            (hex!("7e334637"), "PollTryAtEpoch"),
            (hex!("08c379a0"), "Error"),
            (hex!("4e487b71"), "Panic"),
            (hex!("56a1d2b2"), "OrderIsAlreadyOwned"),
            (hex!("89bb2601"), "OrderIsAlreadyExpired"),
            (hex!("8b6ebb4d"), "IncorrectEthAmount"),
        ] {
            assert_eq!(ERRORS_BY_SELECTOR[&Selector::from(selector)].name, name);
        }
        for (hash, word) in HASHED {
            assert_eq!(hex::encode(keccak256(word)), hash);
        }
    }

    fn word(number: u64) -> [u8; 32] {
        U256::from(number).to_be_bytes()
    }

    fn one(said: &Said, name: &str) -> String {
        let argument = said.arguments.iter().find(|argument| argument.name == name);
        match &argument.expect("it has the argument").value {
            Value::One(value) => value.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_transfer_says_who_and_how_much_or_which() {
        let topic = keccak256("Transfer(address,address,uint256)");
        let topics = [topic, word(1).into(), TWAP.into_word(), word(9).into()];
        let fungible = event(&topics[..3], &word(77)).unwrap();
        assert_eq!(one(&fungible, "value"), "77");
        assert_eq!(one(&fungible, "to"), format!("{TWAP} (TWAP handler)"));
        assert_eq!(one(&event(&topics, &[]).unwrap(), "tokenId"), "9");
        assert_eq!(event(&topics[..3], &[]), None, "data that does not fit");
        assert_eq!(event(&[B256::ZERO], &[]), None);
        assert_eq!(event(&[], &[]), None);
    }

    #[test]
    fn a_revert_says_its_reason() {
        let at_epoch = hex!("7e334637");
        let reason = [b"not yet".as_slice(), &[0; 25]].concat();
        let data = [&at_epoch[..], &word(1_700_000_000), &word(64), &word(7), &reason].concat();
        let said = error(&data).unwrap();
        assert_eq!(said.name, "PollTryAtEpoch");
        assert_eq!(one(&said, "reason"), "\"not yet\"");
        assert_eq!(one(&said, "timestamp"), "1700000000 (2023-11-14T22:13:20Z)");
        assert_eq!(error(&data[..40]), None, "cut");
        assert_eq!(error(&[]), None);
    }

    #[test]
    fn a_call_says_what_it_asks_and_what_it_was_told() {
        let said = call(&hex!("feaf968c")).unwrap();
        assert_eq!((said.name.as_str(), said.arguments.len()), ("latestRoundData", 0));
        let round = [7, 5, 1_700_000_000, 1_700_000_000, 7].map(word).concat();
        let told = returned(&hex!("feaf968c"), &round).unwrap();
        assert_eq!(told[1].value, Value::One("5".to_owned()));
        assert_eq!(returned(&hex!("feaf968c"), &[]), None);
        assert_eq!(call(&hex!("00112233")), None);
    }

    #[test]
    fn a_known_handlers_order_is_told_in_its_own_words() {
        let input: Vec<u8> = (1..=10).flat_map(word).collect();
        let words = [
            &word(32)[..],
            &TWAP.into_word()[..],
            &word(5),
            &word(96),
            &word(input.len() as u64),
            &input,
        ];
        let topic = EVENTS_BY_TOPICS.values().find(|e| e.name == "ConditionalOrderCreated");
        let topics = [topic.unwrap().selector(), word(9).into()];
        let said = event(&topics, &words.concat()).unwrap();
        let Value::Struct(params) = &said.arguments[1].value else { panic!("{said:?}") };
        let Value::Struct(order) = &params[2].value else { panic!("{params:?}") };
        assert_eq!((order[6].name.as_str(), &order[6].value), ("n", &Value::One("7".to_owned())));
    }
}
