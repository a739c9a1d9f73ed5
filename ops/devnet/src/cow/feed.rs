//! Prices that a test moves.

use alloy_primitives::{Address, I256, U256};
use alloy_sol_types::{SolCall, SolValue};
use anyhow::Context;

use super::abi;
use crate::anvil::{Anvil, Transaction};
use crate::contracts::Contracts;

/// Gas of a new round, and of a new feed.
const ROUND_GAS: u64 = 300_000;
const DEPLOY_GAS: u64 = 3_000_000;

/// A price feed like those of Chainlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feed(Address);

impl Feed {
    /// Deploys a feed and mines the block that holds it.
    pub async fn deploy(
        anvil: &Anvil,
        description: &str,
        decimals: u8,
        answer: I256,
    ) -> anyhow::Result<Feed> {
        let from = *anvil.accounts().last().context("a devnet has accounts")?;
        let contracts = Contracts::read()?;
        let arguments = (description.to_owned(), U256::from(decimals), answer).abi_encode_params();
        let code = &contracts.code("Feed")?.creation;
        let data = [code.as_ref(), &arguments].concat().into();
        let gas = Some(DEPLOY_GAS);
        let creation = Transaction { from, to: None, value: U256::ZERO, data, gas };
        let receipts = anvil.execute(&[creation]).await?;
        Ok(Feed(serde_json::from_value(receipts[0]["contractAddress"].clone())?))
    }

    /// A feed that is known to be there.
    pub fn at(address: Address) -> Feed {
        Feed(address)
    }

    /// Where it is.
    pub fn address(&self) -> Address {
        self.0
    }

    /// The transaction that makes this the price, as of its block.
    pub fn move_to(&self, from: Address, answer: I256) -> Transaction {
        self.transaction(from, abi::PriceFeed::moveCall { answer }.abi_encode())
    }

    /// The transaction that makes this the price, as of a time in Unix seconds. One in the past
    /// makes the feed stale.
    pub fn set(&self, from: Address, answer: I256, updated_at: u64) -> Transaction {
        let call = abi::PriceFeed::setCall { answer, updatedAt: U256::from(updated_at) };
        self.transaction(from, call.abi_encode())
    }

    fn transaction(&self, from: Address, data: Vec<u8>) -> Transaction {
        let gas = Some(ROUND_GAS);
        Transaction { from, to: Some(self.0), value: U256::ZERO, data: data.into(), gas }
    }
}
