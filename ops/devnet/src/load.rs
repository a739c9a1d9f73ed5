//! Blocks full of Transfer logs, as many and as fast as a test or a benchmark needs.
//!
//! Measured with anvil 1.7.1 on two cores, one transaction of 50 logs in each block: 560
//! blocks (28 000 logs) a second at first, 180 at block 3 000, because anvil slows with the
//! length of its chain. Fuller blocks make more logs in the same time: 140 000 a second with
//! 500 in each. Two requests make a block, one with all its transactions and one that mines;
//! putting several blocks into one batch does not work, as anvil runs a batch in no order.

use std::ops::RangeInclusive;

use alloy_primitives::Address;
use anyhow::ensure;
use serde_json::json;

use crate::anvil::{Anvil, Transaction};
use crate::token::{Churn, Token};

/// What kind of load. The default is the smallest one that counts as load: 50 logs in each
/// block, from two tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Transfer logs in each block.
    pub logs_per_block: u64,
    /// Tokens they are spread over.
    pub tokens: u64,
    /// Holders that have a balance sooner or later.
    pub holders: u64,
    /// Decides who gives how much to whom. The same seed on a fresh chain gives the same
    /// transfers.
    pub seed: u64,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { logs_per_block: 50, tokens: 2, holders: 1000, seed: 1 }
    }
}

/// Tokens on a chain, and the plan by which they are used.
#[derive(Clone, Debug)]
pub struct Load {
    plan: Plan,
    tokens: Vec<Token>,
}

/// What [`Load::blocks`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The blocks, both ends included.
    pub blocks: RangeInclusive<u64>,
    /// Transfer logs in them.
    pub logs: u64,
}

impl Load {
    /// Deploys the plan's tokens, in one block; on a chain that has them already, finds them.
    pub async fn start(anvil: &Anvil, plan: Plan) -> anyhow::Result<Load> {
        ensure!(
            (1..=plan.logs_per_block).contains(&plan.tokens),
            "each of {} tokens needs a share of {} logs",
            plan.tokens,
            plan.logs_per_block
        );
        // The first transactions of an account that does nothing else, so where they put
        // the tokens is known beforehand.
        let deployer = anvil.accounts()[0];
        let tokens: Vec<Token> =
            (0..plan.tokens).map(|nonce| Token::at(deployer.create(nonce))).collect();
        let mut missing = Vec::new();
        for (token, index) in tokens.iter().zip(0..) {
            let code = anvil.call("eth_getCode", json!([token.address(), "latest"])).await?;
            if code == "0x" {
                let [name, symbol] = [format!("Devnet token {index}"), format!("DVT{index}")];
                missing.push(Token::creation(deployer, &name, &symbol)?);
            }
        }
        if !missing.is_empty() {
            anvil.send(&missing).await?;
            anvil.mine(1).await?;
        }
        let load = Load { plan, tokens };
        // The last is there only if the ones before took the places before it.
        for token in &load.tokens {
            token.total_supply(anvil).await?;
        }
        Ok(load)
    }

    /// The tokens.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// The plan.
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// Makes `count` blocks that follow the last one, each with exactly
    /// [`Plan::logs_per_block`] Transfer logs.
    pub async fn blocks(&self, anvil: &Anvil, count: u64) -> anyhow::Result<Made> {
        let first = anvil.block_number().await? + 1;
        let blocks = first..=first + count - 1;
        for number in blocks.clone() {
            anvil.send(&self.transactions(anvil.accounts(), number)).await?;
            anvil.mine(1).await?;
        }
        Ok(Made { blocks, logs: count * self.plan.logs_per_block })
    }

    /// The transactions of one block: one for each token, from accounts other than the first.
    pub fn transactions(&self, accounts: &[Address], number: u64) -> Vec<Transaction> {
        let Plan { logs_per_block, holders, seed, .. } = self.plan;
        let tokens = self.tokens.len() as u64;
        let senders = accounts[1..].iter().cycle();
        (0..tokens)
            .zip(&self.tokens)
            .zip(senders)
            .map(|((index, token), sender)| {
                // The first tokens take what does not divide evenly.
                let transfers =
                    logs_per_block / tokens + u64::from(index < logs_per_block % tokens);
                let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number * tokens + index);
                token.churn(*sender, Churn { seed, transfers, holders })
            })
            .collect()
    }
}
