//! Every topic and selector is the hash of the signature it stands for.
//!
//! A misspelt signature would compile, and then match nothing for ever. So the numbers, which
//! were read from deployed contracts and their public sources, are written down once more here.

use shepherd_sdk::{
    abi::{
        Aggregator, Erc20, Erc1271,
        Multicall3::{aggregate3Call, aggregate3ValueCall},
    },
    alloy_primitives::{hex, keccak256},
    alloy_sol_types::{Panic, Revert, SolCall, SolError, SolEvent},
    cow::abi::{ComposableCow, EthFlow, Handler, SafeSigner, Settlement},
};

#[track_caller]
fn topic<E: SolEvent>(signature: &str, topic0: &str) {
    assert_eq!(E::SIGNATURE, signature);
    assert_eq!(keccak256(signature).to_string(), topic0, "{signature}");
    assert_eq!(E::SIGNATURE_HASH.to_string(), topic0, "{signature}");
}

#[track_caller]
fn selector(generated: (&str, [u8; 4]), signature: &str, selector: &str) {
    assert_eq!(generated.0, signature);
    assert_eq!(hex::encode_prefixed(&keccak256(signature)[..4]), selector, "{signature}");
    assert_eq!(hex::encode_prefixed(generated.1), selector, "{signature}");
}

#[track_caller]
fn error<E: SolError>(signature: &str, expected: &str) {
    selector((E::SIGNATURE, E::SELECTOR), signature, expected);
}

#[track_caller]
fn function<C: SolCall>(signature: &str, expected: &str) {
    selector((C::SIGNATURE, C::SELECTOR), signature, expected);
}

#[test]
#[rustfmt::skip]
fn every_topic_is_the_hash_of_its_signature() {
    topic::<ComposableCow::ConditionalOrderCreated>(
        "ConditionalOrderCreated(address,(address,bytes32,bytes))",
        "0x2cceac5555b0ca45a3744ced542f54b56ad2eb45e521962372eef212a2cbf361",
    );
    topic::<ComposableCow::MerkleRootSet>(
        "MerkleRootSet(address,bytes32,(uint256,bytes))",
        "0x58662f46b4a87d0f96d929b24c37fe25c55d52c0025d0b2bec3936534cc31e57",
    );
    topic::<ComposableCow::SwapGuardSet>(
        "SwapGuardSet(address,address)",
        "0x41f583e2d25b3921afe66987b63b0b5e4cf2acbbbed4a477fd19a22180f3f859",
    );
    topic::<EthFlow::OrderPlacement>(
        "OrderPlacement(address,(address,address,address,uint256,uint256,uint32,bytes32,uint256,bytes32,bool,bytes32,bytes32),(uint8,bytes),bytes)",
        "0xcf5f9de2984132265203b5c335b25727702ca77262ff622e136baa7362bf1da9",
    );
    topic::<EthFlow::OrderInvalidation>(
        "OrderInvalidation(bytes)",
        "0xb8bad102ac8bbacfef31ff1c906ec6d951c230b4dce750bb0376b812ad35852a",
    );
    topic::<EthFlow::OrderRefund>(
        "OrderRefund(bytes,address)",
        "0x195271068a288191e4b265c641a56b9832919f69e9e7d6c2f31ba40278aeb85a",
    );
    topic::<Settlement::Trade>(
        "Trade(address,address,address,uint256,uint256,uint256,bytes)",
        "0xa07a543ab8a018198e99ca0184c93fe9050a79400a0a723441f84de1d972cc17",
    );
    topic::<Settlement::Settlement>(
        "Settlement(address)",
        "0x40338ce1a7c49204f0099533b1e9a7ee0a3d261f84974ab7af36105b8c4e9db4",
    );
    topic::<Settlement::OrderInvalidated>(
        "OrderInvalidated(address,bytes)",
        "0x875b6cb035bbd4ac6500fabc6d1e4ca5bdc58a3e2b424ccb5c24cdbebeb009a9",
    );
    topic::<Settlement::PreSignature>(
        "PreSignature(address,bytes,bool)",
        "0x01bf7c8b0ca55deecbea89d7e58295b7ffbf685fd0d96801034ba8c6ffe1c68d",
    );
}

#[test]
fn the_topic_of_a_token_is_the_hash_of_its_signature() {
    topic::<Erc20::Transfer>(
        "Transfer(address,address,uint256)",
        "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef",
    );
}

#[test]
fn every_error_selector_begins_the_hash_of_its_signature() {
    error::<ComposableCow::ProofNotAuthed>("ProofNotAuthed()", "0x4a821464");
    error::<ComposableCow::SingleOrderNotAuthed>("SingleOrderNotAuthed()", "0x7a933234");
    error::<ComposableCow::SwapGuardRestricted>("SwapGuardRestricted()", "0x03fc2a7e");
    error::<ComposableCow::InvalidHandler>("InvalidHandler()", "0xd8f59fa5");
    error::<ComposableCow::InvalidFallbackHandler>("InvalidFallbackHandler()", "0x79ac63cd");
    error::<ComposableCow::InterfaceNotSupported>("InterfaceNotSupported()", "0x2c7ca6d7");
    error::<Handler::OrderNotValid>("OrderNotValid(string)", "0xc8fc2725");
    error::<Handler::PollTryNextBlock>("PollTryNextBlock(string)", "0xd05f3065");
    error::<Handler::PollNever>("PollNever(string)", "0x981b64cd");
    error::<Handler::PollTryAtBlock>("PollTryAtBlock(uint256,string)", "0x1fe8506e");
    error::<Handler::PollTryAtEpoch>("PollTryAtEpoch(uint256,string)", "0x7e334637");
    error::<Revert>("Error(string)", "0x08c379a0");
    error::<Panic>("Panic(uint256)", "0x4e487b71");
    error::<EthFlow::OrderIsAlreadyOwned>("OrderIsAlreadyOwned(bytes32)", "0x56a1d2b2");
    error::<EthFlow::OrderIsAlreadyExpired>("OrderIsAlreadyExpired()", "0x89bb2601");
    error::<EthFlow::IncorrectEthAmount>("IncorrectEthAmount()", "0x8b6ebb4d");
}

#[test]
#[rustfmt::skip]
fn every_function_selector_begins_the_hash_of_its_signature() {
    function::<ComposableCow::getTradeableOrderWithSignatureCall>("getTradeableOrderWithSignature(address,(address,bytes32,bytes),bytes,bytes32[])", "0x26e0a196");
    function::<ComposableCow::createCall>("create((address,bytes32,bytes),bool)", "0x6bfae1ca");
    function::<ComposableCow::createWithContextCall>("createWithContext((address,bytes32,bytes),address,bytes,bool)", "0x0d0d9800");
    function::<ComposableCow::removeCall>("remove(bytes32)", "0x95bc2673");
    function::<ComposableCow::setRootCall>("setRoot(bytes32,(uint256,bytes))", "0x1ab0dd9d");
    function::<ComposableCow::setRootWithContextCall>("setRootWithContext(bytes32,(uint256,bytes),address,bytes)", "0x57f1d41a");
    function::<ComposableCow::singleOrdersCall>("singleOrders(address,bytes32)", "0x6108c532");
    function::<ComposableCow::cabinetCall>("cabinet(address,bytes32)", "0x1c7662c8");
    function::<ComposableCow::rootsCall>("roots(address)", "0xa4546876");
    function::<ComposableCow::swapGuardsCall>("swapGuards(address)", "0x595001b2");
    function::<ComposableCow::hashCall>("hash((address,bytes32,bytes))", "0x5500079d");
    function::<ComposableCow::domainSeparatorCall>("domainSeparator()", "0xf698da25");
    function::<Settlement::domainSeparatorCall>("domainSeparator()", "0xf698da25");
    function::<SafeSigner::safeSignatureCall>("safeSignature(bytes32,bytes32,bytes,bytes)", "0x5fd7e97d");
    function::<Handler::getTradeableOrderCall>("getTradeableOrder(address,address,bytes32,bytes,bytes)", "0xb8296fc4");
    function::<Erc1271::isValidSignatureCall>("isValidSignature(bytes32,bytes)", "0x1626ba7e");
    function::<EthFlow::createOrderCall>("createOrder((address,address,uint256,uint256,bytes32,uint256,uint32,bool,int64))", "0x322bba21");
    function::<EthFlow::invalidateOrderCall>("invalidateOrder((address,address,uint256,uint256,bytes32,uint256,uint32,bool,int64))", "0x7bc41b96");
    function::<EthFlow::ordersCall>("orders(bytes32)", "0x9c3f1e90");
    function::<Settlement::setPreSignatureCall>("setPreSignature(bytes,bool)", "0xec6cb13f");
    function::<Settlement::preSignatureCall>("preSignature(bytes)", "0xd08d33d1");
    function::<Settlement::filledAmountCall>("filledAmount(bytes)", "0x2479fb6e");
    function::<Settlement::invalidateOrderCall>("invalidateOrder(bytes)", "0x15337bc0");
    function::<Erc20::balanceOfCall>("balanceOf(address)", "0x70a08231");
    function::<Erc20::decimalsCall>("decimals()", "0x313ce567");
    function::<Aggregator::latestRoundDataCall>("latestRoundData()", "0xfeaf968c");
    function::<Aggregator::decimalsCall>("decimals()", "0x313ce567");
    function::<aggregate3Call>("aggregate3((address,bool,bytes)[])", "0x82ad56cb");
    function::<aggregate3ValueCall>("aggregate3Value((address,bool,uint256,bytes)[])", "0x174dea71");
}
