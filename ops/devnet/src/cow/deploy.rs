//! Puts the contracts where they are on a real chain.
//!
//! ```text
//! already there (restarted, forked)      ─▶ left alone
//! named in a file of deployments         ─▶ deployed as the file says
//! published in a package, CREATE2        ─▶ deployed, which gives the canonical address
//! our own                                ─▶ put there without a constructor
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use alloy_primitives::{Address, B256, Bytes, U256, address, b256, bytes};
use alloy_sol_types::SolValue;
use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::json;

use super::address::*;
use crate::anvil::{Anvil, Transaction};
use crate::contracts::Contracts;

/// The factory that most deterministic deployments use; anvil has it from the start.
pub(super) const CREATE2: Address = address!("4e59b44847b379578588920cA78FbF26c0B4956C");

/// The factory that Safe uses, and its code: it creates with the call data behind the first
/// word, which is the salt.
const SAFE_CREATE2: Address = address!("914d7Fec6aaC8cd542e72Bca78B30650d45643d7");
const CREATE2_CODE: Bytes = bytes!(
    "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe0"
    "3601600081602082378035828234f58015156039578182fd5b8082525050506014600cf3"
);

/// "Mattresses in Berlin!", by which the settlement's addresses were chosen.
const SETTLEMENT_SALT: B256 =
    b256!("4d61747472657373657320696e204265726c696e210000000000000000000000");

/// Constructor arguments on each chain: who may upgrade and name solvers, and the vault, which
/// is not here and which nothing but a settlement would call.
const AUTHENTICATION_OWNER: Address = address!("6Fb5916c0f57f88004d5b5EB25f6f4D77353a1eD");
const VAULT: Address = address!("BA12222222228d8Ba445958a75a0704d566BF2C8");
const INITIALIZE_MANAGER: [u8; 4] = [0x7f, 0x71, 0x20, 0xfe];

/// Gas of a deployment: twice what the largest contract needs.
const DEPLOY_GAS: u64 = 15_000_000;

/// What the feed says at first: 2 500 dollars, with the eight decimals of Chainlink.
const FIRST_PRICE: u64 = 2_500 * 100_000_000;

/// Answers every question with zero.
const CLOSED: Bytes = bytes!("60206000f3");

/// Contracts that are put at their addresses without a constructor.
const OWN: [(&str, Address); 14] = [
    ("ComposableCoW", COMPOSABLE_COW),
    ("TWAP", TWAP),
    ("StopLoss", STOP_LOSS),
    ("GoodAfterTime", GOOD_AFTER_TIME),
    ("TradeAboveThreshold", TRADE_ABOVE_THRESHOLD),
    ("CurrentBlockTimestampFactory", TIMESTAMP_FACTORY),
    ("ExtensibleFallbackHandler", FALLBACK_HANDLER),
    ("EthFlow", ETH_FLOW),
    ("Multicall3", MULTICALL),
    ("Hints", HINTS),
    ("Batch", BATCH),
    ("WETH9", WETH),
    ("Token", COW_TOKEN),
    ("Feed", ETH_USD_FEED),
];

/// Deployment transactions that take the place of what would be put there otherwise.
#[derive(Clone, Debug, Default)]
pub struct Deployments(BTreeMap<String, Deployment>);

/// One contract: `{address, to, data}` calls a factory, `{address, from, nonce, data}` creates.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Deployment {
    Called { address: Address, to: Address, data: Bytes },
    Created { address: Address, from: Address, nonce: u64, data: Bytes },
}

impl Deployments {
    /// Reads a JSON file: `{ "ComposableCoW": { "address": …, "to": …, "data": … }, … }`. The
    /// order of the transactions is that of the names.
    pub fn read(file: &Path) -> anyhow::Result<Deployments> {
        let text = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        let read = serde_json::from_slice(&text);
        Ok(Deployments(read.with_context(|| format!("reading {}", file.display()))?))
    }
}

impl Deployment {
    fn address(&self) -> Address {
        match self {
            Deployment::Called { address, .. } | Deployment::Created { address, .. } => *address,
        }
    }
}

/// Puts everything in its place. When this returns, a block holds it.
pub(super) async fn deploy(
    anvil: &Anvil,
    contracts: &Contracts,
    from: Address,
    deployments: &Deployments,
) -> anyhow::Result<()> {
    if anvil.code(SAFE_CREATE2).await?.is_empty() {
        anvil.set_code(SAFE_CREATE2, CREATE2_CODE).await?;
    }
    published(anvil, contracts, from).await?;
    for (name, deployment) in &deployments.0 {
        given(anvil, from, deployment).await.with_context(|| format!("deploying {name}"))?;
    }
    own(anvil, contracts, from).await
}

/// Deploys what is published, with the arguments and the salts of the real chains.
async fn published(anvil: &Anvil, contracts: &Contracts, from: Address) -> anyhow::Result<()> {
    let manager = AUTHENTICATION_OWNER.into_word();
    let initialize: Bytes = [INITIALIZE_MANAGER.as_slice(), manager.as_slice()].concat().into();
    let proxy_arguments = (AUTHENTICATION_CODE, AUTHENTICATION_OWNER, initialize);
    let none = Vec::new;
    let published = [
        ("GPv2Authentication", none(), CREATE2, SETTLEMENT_SALT, AUTHENTICATION_CODE),
        (
            "GPv2AuthenticationProxy",
            proxy_arguments.abi_encode_params(),
            CREATE2,
            SETTLEMENT_SALT,
            AUTHENTICATION,
        ),
        (
            "GPv2Settlement",
            (AUTHENTICATION, VAULT).abi_encode_params(),
            CREATE2,
            SETTLEMENT_SALT,
            SETTLEMENT,
        ),
        ("Safe", none(), SAFE_CREATE2, B256::ZERO, SAFE_SINGLETON),
        ("SafeProxyFactory", none(), SAFE_CREATE2, B256::ZERO, SAFE_FACTORY),
    ];
    let mut missing = Vec::new();
    for (name, arguments, factory, salt, canonical) in published {
        if !anvil.code(canonical).await?.is_empty() {
            continue;
        }
        let code = [contracts.code(name)?.creation.as_ref(), &arguments].concat();
        let (address, transaction) = create2(from, factory, salt, &code);
        ensure!(address == canonical, "{name} would be at {address} and not at {canonical}");
        missing.push(transaction);
    }
    if !missing.is_empty() {
        anvil.execute(&missing).await?;
    }
    Ok(())
}

/// Where a factory puts a contract, and the transaction that does it.
pub(super) fn create2(
    from: Address,
    factory: Address,
    salt: B256,
    code: &[u8],
) -> (Address, Transaction) {
    let data = [salt.as_slice(), code].concat().into();
    let gas = Some(DEPLOY_GAS);
    let transaction = Transaction { from, to: Some(factory), value: U256::ZERO, data, gas };
    (factory.create2_from_code(salt, code), transaction)
}

/// Deploys one contract as a file says.
async fn given(anvil: &Anvil, sender: Address, deployment: &Deployment) -> anyhow::Result<()> {
    let address = deployment.address();
    if !anvil.code(address).await?.is_empty() {
        return Ok(());
    }
    let (from, to, data) = match deployment {
        Deployment::Called { to, data, .. } => (sender, Some(*to), data),
        Deployment::Created { from, nonce, data, .. } => {
            // Whoever deployed it on a real chain is nobody the node could sign for.
            anvil.call("anvil_impersonateAccount", json!([from])).await?;
            anvil.set_balance(*from, U256::from(10).pow(U256::from(20))).await?;
            anvil.call("anvil_setNonce", json!([from, U256::from(*nonce)])).await?;
            (*from, None, data)
        }
    };
    let data = data.clone();
    let gas = Some(DEPLOY_GAS);
    let done = anvil.execute(&[Transaction { from, to, value: U256::ZERO, data, gas }]).await;
    if from != sender {
        anvil.call("anvil_stopImpersonatingAccount", json!([from])).await?;
    }
    done?;
    if anvil.code(address).await?.is_empty() {
        bail!("its transaction left no code at {address}");
    }
    Ok(())
}

/// Puts our own contracts where nothing is yet.
async fn own(anvil: &Anvil, contracts: &Contracts, from: Address) -> anyhow::Result<()> {
    if anvil.code(CLOSED_GUARD).await?.is_empty() {
        anvil.set_code(CLOSED_GUARD, CLOSED).await?;
    }
    let mut first = Vec::new();
    for (name, address) in OWN {
        if !anvil.code(address).await?.is_empty() {
            continue;
        }
        anvil.set_code(address, contracts.code(name)?.runtime.clone()).await?;
        // What a constructor would have written.
        match name {
            "Token" => {
                anvil.set_storage(address, U256::ZERO, short("CoW Protocol Token")).await?;
                anvil.set_storage(address, U256::ONE, short("COW")).await?;
            }
            "Feed" => {
                anvil.set_storage(address, U256::ZERO, short("ETH / USD")).await?;
                anvil.set_storage(address, U256::ONE, U256::from(8).into()).await?;
                first.push(super::Feed::at(address).move_to(from, FIRST_PRICE.try_into()?));
            }
            _ => (),
        }
    }
    // A block, so that the state that holds them is one the chain can go back to.
    anvil.execute(&first).await?;
    Ok(())
}

/// How a contract stores a text of fewer than 32 bytes.
fn short(text: &str) -> B256 {
    assert!(text.len() < 32, "a longer text is stored in another way");
    let mut word = B256::right_padding_from(text.as_bytes());
    word[31] = 2 * text.len() as u8;
    word
}
