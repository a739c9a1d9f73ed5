//! CoW Protocol on a devnet: its contracts where they are on Sepolia, and owners that use them.
//!
//! ```text
//! Anvil ──deploy──▶ Cow ──safes, forwarders──▶ Owner ──transaction(calls)──▶ Anvil::execute
//!                                                             ▲
//!              Twap, StopLoss, … ─▶ ConditionalOrder ─create─▶ Call
//! ```
//!
//! Settlement, relayer, Safe and WETH9 are the real ones. ComposableCoW, its handlers, the
//! fallback handler, EthFlow and Multicall3 are our own, with the same interface, events,
//! errors and schedule; a file of deployments puts others in their place. What makes something
//! happen is a [`Call`] for an owner or a [`Transaction`], and nothing happens until it is sent.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use alloy_primitives::{B256, U256};
//! use shepherd_devnet::{Anvil, cow::{self, Cow, Poll, Twap}};
//!
//! let anvil = Anvil::start(Cow::options()).await?;
//! let cow = Cow::deploy(&anvil).await?;
//! let safe = cow.safes(&anvil, 0..1).await?[0];
//! let twap = Twap {
//!     sell_token: cow::WETH,
//!     buy_token: cow::COW_TOKEN,
//!     receiver: safe.address,
//!     part_sell_amount: U256::from(1000),
//!     min_part_limit: U256::from(1),
//!     t0: anvil.time().await? + 60,
//!     n: 3,
//!     t: 600,
//!     span: 0,
//!     app_data: cow::EMPTY_APP_DATA,
//! };
//! let order = twap.order(B256::repeat_byte(1));
//! anvil.execute(&[safe.transaction(&[order.create()])]).await?;
//!
//! anvil.mine_at(twap.t0).await?;
//! let Poll::Order { order: part, .. } = cow.poll(&anvil, safe.address, &order, &[]).await? else {
//!     panic!("the first part has begun");
//! };
//! assert_eq!(part, twap.part(twap.t0, 0));
//! # Ok(())
//! # }
//! ```

mod abi;
mod address;
mod deploy;
mod feed;
mod merkle;
mod order;
mod owner;

use std::ops::Range;

use alloy_primitives::{Address, B256, Bytes, U256, b256, keccak256};
use alloy_sol_types::{SolCall, SolValue};
use anyhow::{Context, ensure};
use serde_json::{Value, json};

pub use address::*;
pub use deploy::Deployments;
pub use feed::Feed;
pub use merkle::MerkleTree;
pub use order::{
    ConditionalOrder, EMPTY_APP_DATA, EthFlowOrder, GoodAfterTime, Hint, Hinted, Kind, Order,
    StopLoss, TradeAboveThreshold, Twap, Uid, set_pre_signature, set_swap_guard,
};
pub use owner::{Call, Owner, OwnerKind};

use crate::anvil::{Answer, Anvil, Options, Transaction};
use crate::contracts::Contracts;
use crate::token::Token;

/// The settlement's domain on Sepolia, in which orders are signed.
pub const DOMAIN: B256 = b256!("daee378bd0eb30ddf479272accf91761e697bc00e067a268f95f1d2732ed230b");

/// Orders that one transaction creates. Each needs some 700 bytes and 60 000 gas.
const ORDERS_PER_TRANSACTION: usize = 250;

/// What a new owner has of each token: a million, with eighteen decimals.
const FIRST_BALANCE: u128 = 1_000_000 * 10u128.pow(18);

/// Where WETH9 keeps balances.
const WETH_BALANCES: u64 = 3;

/// CoW Protocol on one chain.
#[derive(Debug)]
pub struct Cow {
    contracts: Contracts,
    controller: Address,
}

/// What came of asking for a conditional order's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Poll {
    /// There is one, which the owner accepts with this signature.
    Order {
        /// What is traded.
        order: Order,
        /// What the owner's `isValidSignature` is given, and the orderbook.
        signature: Bytes,
    },
    /// There is none, and this is why.
    Reverted(Bytes),
}

impl Cow {
    /// A chain with Sepolia's id that makes blocks on demand.
    pub fn options() -> Options {
        Options { chain_id: CHAIN_ID, ..Options::default() }
    }

    /// Puts the contracts on a chain that mines on demand, and finds those that are there.
    pub async fn deploy(anvil: &Anvil) -> anyhow::Result<Cow> {
        Cow::deploy_with(anvil, &Deployments::default()).await
    }

    /// Puts the contracts on a chain, some of them by transactions of a file.
    pub async fn deploy_with(anvil: &Anvil, deployments: &Deployments) -> anyhow::Result<Cow> {
        let contracts = Contracts::read()?;
        // The last: a load takes its tokens' places from the first.
        let controller = *anvil.accounts().last().context("a devnet has accounts")?;
        deploy::deploy(anvil, &contracts, controller, deployments).await?;
        let domain = abi::Settlement::domainSeparatorCall {}.abi_encode();
        let domain = anvil.view(SETTLEMENT, domain.into()).await?;
        ensure!(
            domain.as_ref() == DOMAIN.as_slice(),
            "the settlement's domain is {domain}, as of another chain"
        );
        Ok(Cow { contracts, controller })
    }

    /// The account that deployed everything and that the owners obey.
    pub fn controller(&self) -> Address {
        self.controller
    }

    /// Every contract by its name.
    pub fn addresses() -> Vec<(&'static str, Address)> {
        vec![
            ("ComposableCoW", COMPOSABLE_COW),
            ("TWAP", TWAP),
            ("StopLoss", STOP_LOSS),
            ("GoodAfterTime", GOOD_AFTER_TIME),
            ("TradeAboveThreshold", TRADE_ABOVE_THRESHOLD),
            ("Hints", HINTS),
            ("CurrentBlockTimestampFactory", TIMESTAMP_FACTORY),
            ("ExtensibleFallbackHandler", FALLBACK_HANDLER),
            ("GPv2Settlement", SETTLEMENT),
            ("GPv2VaultRelayer", VAULT_RELAYER),
            ("GPv2Authentication", AUTHENTICATION),
            ("EthFlow", ETH_FLOW),
            ("Multicall3", MULTICALL),
            ("Safe", SAFE_SINGLETON),
            ("SafeProxyFactory", SAFE_FACTORY),
            ("Batch", BATCH),
            ("ClosedGuard", CLOSED_GUARD),
            ("WETH", WETH),
            ("COW", COW_TOKEN),
            ("EthUsdFeed", ETH_USD_FEED),
        ]
    }

    /// The Safes of these numbers, created and funded unless they are there: a million WETH and
    /// COW each, which the vault relayer may take, and ether. A fork has no COW to give.
    pub async fn safes(&self, anvil: &Anvil, numbers: Range<u64>) -> anyhow::Result<Vec<Owner>> {
        let mut found = Vec::new();
        for number in numbers {
            found.push(owner::safe(&self.contracts, self.controller, number, &[WETH, COW_TOKEN])?);
        }
        let created = self.create_owners(anvil, &found).await?;
        self.fund(anvil, &created).await?;
        Ok(found.into_iter().map(|(owner, _)| owner).collect())
    }

    /// The forwarders of these numbers, created and funded like [`Cow::safes`].
    pub async fn forwarders(
        &self,
        anvil: &Anvil,
        numbers: Range<u64>,
    ) -> anyhow::Result<Vec<Owner>> {
        let mut found = Vec::new();
        for number in numbers {
            found.push(owner::forwarder(&self.contracts, self.controller, number)?);
        }
        let created = self.create_owners(anvil, &found).await?;
        let approve = [WETH, COW_TOKEN].map(|token| Call::approve(token, VAULT_RELAYER, U256::MAX));
        let approvals: Vec<Transaction> =
            created.iter().map(|owner| owner.transaction(&approve)).collect();
        if !approvals.is_empty() {
            anvil.execute(&approvals).await?;
        }
        self.fund(anvil, &created).await?;
        Ok(found.into_iter().map(|(owner, _)| owner).collect())
    }

    /// Creates the owners that are not there, in one block.
    async fn create_owners(
        &self,
        anvil: &Anvil,
        owners: &[(Owner, Transaction)],
    ) -> anyhow::Result<Vec<Owner>> {
        let codes: Vec<_> = owners
            .iter()
            .map(|(owner, _)| ("eth_getCode", json!([owner.address, "latest"])))
            .collect();
        let codes = anvil.rpc().batch(&codes).await?;
        let missing: Vec<_> =
            owners.iter().zip(codes).filter(|(_, code)| *code == "0x").map(|pair| pair.0).collect();
        if !missing.is_empty() {
            let creations: Vec<Transaction> =
                missing.iter().map(|(_, creation)| creation.clone()).collect();
            anvil.execute(&creations).await?;
        }
        Ok(missing.into_iter().map(|(owner, _)| *owner).collect())
    }

    async fn fund(&self, anvil: &Anvil, owners: &[Owner]) -> anyhow::Result<()> {
        if owners.is_empty() {
            return Ok(());
        }
        // On a fork the COW token is the real one, which nobody may mint.
        let ours = &self.contracts.code("Token")?.runtime;
        let mints = anvil.code(COW_TOKEN).await? == *ours;
        let value = U256::from(FIRST_BALANCE);
        let mut tokens = Vec::new();
        let mut set = Vec::new();
        for Owner { address, .. } in owners {
            if mints {
                tokens.push(Token::at(COW_TOKEN).set_balance(self.controller, *address, value));
            }
            set.push(set_weth(*address, value));
            set.push(("anvil_setBalance", json!([address, value])));
        }
        anvil.rpc().batch(&set).await?;
        anvil.execute(&tokens).await?;
        Ok(())
    }

    /// Gives a holder exactly so much WETH, without a Transfer. Takes effect in the next block.
    pub async fn set_weth_balance(
        &self,
        anvil: &Anvil,
        holder: Address,
        value: U256,
    ) -> anyhow::Result<()> {
        anvil.rpc().batch(&[set_weth(holder, value)]).await?;
        Ok(())
    }

    /// Creates conditional orders of owners, many in a transaction, all in the next block.
    ///
    /// Ten thousand take half a second.
    pub async fn create(
        &self,
        anvil: &Anvil,
        orders: &[(Owner, ConditionalOrder)],
    ) -> anyhow::Result<()> {
        let mut by_owner: Vec<&(Owner, ConditionalOrder)> = orders.iter().collect();
        by_owner.sort_by_key(|(owner, _)| *owner);
        let mut transactions = Vec::new();
        for orders in by_owner.chunk_by(|one, other| one.0 == other.0) {
            for part in orders.chunks(ORDERS_PER_TRANSACTION) {
                let calls: Vec<Call> = part.iter().map(|(_, order)| order.create()).collect();
                transactions.push(part[0].0.transaction(&calls));
            }
        }
        anvil.execute(&transactions).await?;
        Ok(())
    }

    /// Asks `ComposableCoW` for the order of a conditional order; with a proof, of one that is
    /// in its owner's tree.
    pub async fn poll(
        &self,
        anvil: &Anvil,
        owner: Address,
        order: &ConditionalOrder,
        proof: &[B256],
    ) -> anyhow::Result<Poll> {
        let call = abi::ComposableCow::getTradeableOrderWithSignatureCall {
            owner,
            params: order.params(),
            offchainInput: Bytes::new(),
            proof: proof.to_vec(),
        };
        match anvil.read(self.controller, COMPOSABLE_COW, call.abi_encode().into()).await? {
            Answer::Reverted(data) => Ok(Poll::Reverted(data)),
            Answer::Returned(data) => {
                let found = abi::ComposableCow::getTradeableOrderWithSignatureCall::abi_decode_returns_validate(&data)?;
                let order = Order::read(&found.order).context("an order of another kind")?;
                Ok(Poll::Order { order, signature: found.signature })
            }
        }
    }

    /// What an owner says of a signature: the magic value, if it is one.
    pub async fn ask_owner(
        &self,
        anvil: &Anvil,
        owner: Address,
        digest: B256,
        signature: Bytes,
    ) -> anyhow::Result<Answer> {
        let call = abi::Eip1271::isValidSignatureCall { digest, signature };
        anvil.read(self.controller, owner, call.abi_encode().into()).await
    }
}

/// The request that writes a WETH balance.
fn set_weth(holder: Address, value: U256) -> (&'static str, Value) {
    let slot = keccak256((holder, U256::from(WETH_BALANCES)).abi_encode());
    ("anvil_setStorageAt", json!([WETH, slot, B256::from(value)]))
}
