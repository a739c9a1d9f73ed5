//! Owners of orders: contracts that answer for what they signed by EIP-1271.

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolCall, SolValue};

use super::DOMAIN;
use super::abi;
use super::address::{
    BATCH, COMPOSABLE_COW, FALLBACK_HANDLER, SAFE_FACTORY, SAFE_SINGLETON, VAULT_RELAYER,
};
use crate::anvil::Transaction;
use crate::contracts::Contracts;

/// Gas of a transaction by itself: a Safe's checks, or the creation of an owner.
const BASE_GAS: u64 = 3_000_000;

/// Gas of one call in it, and of each byte of its data.
const CALL_GAS: u64 = 300_000;
const BYTE_GAS: u64 = 100;

/// A call that an owner makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The contract; zero is the owner itself.
    pub to: Address,
    /// What it is called with.
    pub data: Bytes,
}

impl Call {
    /// Lets `spender` take tokens of the caller.
    pub fn approve(token: Address, spender: Address, value: U256) -> Call {
        let call = abi::Erc20::approveCall { spender, value };
        Call { to: token, data: call.abi_encode().into() }
    }
}

/// A contract that owns orders, and the account whose word it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Where it is.
    pub address: Address,
    /// Who makes it do something.
    pub controller: Address,
    /// What it is.
    pub kind: OwnerKind,
}

/// How an owner answers for its signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnerKind {
    /// A Safe, through its fallback handler and the domain's verifier.
    Safe,
    /// A contract that forwards the question to `ComposableCoW`.
    Forwarder,
}

impl Owner {
    /// The transaction in which the owner makes these calls, one after the other. If one of
    /// them fails, the transaction does, and nothing was done.
    pub fn transaction(&self, calls: &[Call]) -> Transaction {
        let bytes: u64 = calls.iter().map(|call| 96 + call.data.len() as u64).sum();
        let gas = BASE_GAS + CALL_GAS * calls.len() as u64 + BYTE_GAS * bytes;
        let run = run(calls);
        let data = match self.kind {
            OwnerKind::Forwarder => run,
            OwnerKind::Safe => abi::Safe::execTransactionCall {
                to: BATCH,
                value: U256::ZERO,
                data: run,
                operation: DELEGATE_CALL,
                safeTxGas: U256::ZERO,
                baseGas: U256::ZERO,
                gasPrice: U256::ZERO,
                gasToken: Address::ZERO,
                refundReceiver: Address::ZERO,
                signatures: sent_by(self.controller),
            }
            .abi_encode()
            .into(),
        };
        let (from, to) = (self.controller, Some(self.address));
        Transaction { from, to, value: U256::ZERO, data, gas: Some(gas) }
    }
}

/// A Safe's way to run foreign code as its own.
const DELEGATE_CALL: u8 = 1;

/// The signature of an owner who sends the transaction himself, which a Safe takes for his word.
fn sent_by(controller: Address) -> Bytes {
    [controller.into_word().as_slice(), &[0; 32], &[1]].concat().into()
}

fn run(calls: &[Call]) -> Bytes {
    let calls = calls.iter().map(|call| abi::BatchCall { to: call.to, data: call.data.clone() });
    abi::Batch::runCall { calls: calls.collect() }.abi_encode().into()
}

/// The Safe of a number, whether or not it is there, and the transaction that creates it: one
/// owner, our fallback handler, ComposableCoW as verifier, and `tokens` free for the relayer.
pub(super) fn safe(
    contracts: &Contracts,
    controller: Address,
    number: u64,
    tokens: &[Address],
) -> anyhow::Result<(Owner, Transaction)> {
    let verify =
        abi::Fallback::setDomainVerifierCall { domainSeparator: DOMAIN, verifier: COMPOSABLE_COW };
    let mut calls = vec![Call { to: Address::ZERO, data: verify.abi_encode().into() }];
    calls.extend(tokens.iter().map(|token| Call::approve(*token, VAULT_RELAYER, U256::MAX)));
    let initializer: Bytes = abi::Safe::setupCall {
        owners: vec![controller],
        threshold: U256::ONE,
        to: BATCH,
        data: run(&calls),
        fallbackHandler: FALLBACK_HANDLER,
        paymentToken: Address::ZERO,
        payment: U256::ZERO,
        paymentReceiver: Address::ZERO,
    }
    .abi_encode()
    .into();

    let nonce = U256::from(number);
    let salt = keccak256((keccak256(&initializer), nonce).abi_encode());
    let proxy = &contracts.code("SafeProxy")?.creation;
    let code = [proxy.as_ref(), SAFE_SINGLETON.into_word().as_slice()].concat();
    let address = SAFE_FACTORY.create2_from_code(salt, code);

    let create = abi::SafeProxyFactory::createProxyWithNonceCall {
        singleton: SAFE_SINGLETON,
        initializer,
        saltNonce: nonce,
    };
    let transaction = Transaction {
        from: controller,
        to: Some(SAFE_FACTORY),
        value: U256::ZERO,
        data: create.abi_encode().into(),
        gas: Some(BASE_GAS),
    };
    Ok((Owner { address, controller, kind: OwnerKind::Safe }, transaction))
}

/// The forwarder of a number, whether or not it is there, and the transaction that creates it.
pub(super) fn forwarder(
    contracts: &Contracts,
    controller: Address,
    number: u64,
) -> anyhow::Result<(Owner, Transaction)> {
    let code = &contracts.code("Forwarder")?.creation;
    let code = [code.as_ref(), controller.into_word().as_slice()].concat();
    let (address, transaction) =
        super::deploy::create2(controller, super::deploy::CREATE2, number_salt(number), &code);
    Ok((Owner { address, controller, kind: OwnerKind::Forwarder }, transaction))
}

fn number_salt(number: u64) -> B256 {
    U256::from(number).into()
}
