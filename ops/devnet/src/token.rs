//! An ERC-20 that makes as many Transfer logs as it is asked for.

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::{SolCall, SolValue};
use anyhow::ensure;

use crate::anvil::{Anvil, Transaction};
use crate::contracts::Contracts;

mod interface {
    alloy_sol_types::sol! {
        function transfer(address to, uint256 value) external returns (bool);
        function mint(address to, uint256 value) external;
        function burn(uint256 value) external;
        function churn(uint256 seed, uint256 transfers, uint256 holders) external;
        function setBalance(address holder, uint256 value) external;
        function setAllowance(address owner, address spender, uint256 value) external;
        function balanceOf(address holder) external view returns (uint256);
        function allowance(address owner, address spender) external view returns (uint256);
        function totalSupply() external view returns (uint256);
    }
}

/// Gas of a deployment: seven times what it needs.
const DEPLOY_GAS: u64 = 5_000_000;

/// Gas of one transfer, when both holders and their first balance are new, and some.
const TRANSFER_GAS: u64 = 100_000;

/// A deployed `contracts/Token.sol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(Address);

/// What one call of `churn` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Churn {
    /// Decides who gives how much to whom.
    pub seed: u64,
    /// Exactly so many Transfer logs.
    pub transfers: u64,
    /// Holders to choose from, the first of [`Token::holder`].
    pub holders: u64,
}

impl Token {
    /// Deploys a token and mines the block that holds it.
    pub async fn deploy(anvil: &Anvil) -> anyhow::Result<Token> {
        let from = anvil.accounts()[0];
        let sent = anvil.send(&[Token::creation(from, "Devnet token", "DVT")?]).await?;
        anvil.mine(1).await?;
        let receipt = anvil.receipt(sent[0]).await?;
        ensure!(receipt["status"] == "0x1", "deploying the token failed");
        Ok(Token(serde_json::from_value(receipt["contractAddress"].clone())?))
    }

    /// A token that is known to be there.
    pub fn at(address: Address) -> Token {
        Token(address)
    }

    /// Where the contract is.
    pub fn address(&self) -> Address {
        self.0
    }

    /// The transaction that deploys a token.
    pub fn creation(from: Address, name: &str, symbol: &str) -> anyhow::Result<Transaction> {
        let contracts = Contracts::read()?;
        let code = &contracts.code("Token")?.creation;
        let arguments = (name.to_owned(), symbol.to_owned()).abi_encode_params();
        let data = Bytes::from([code.as_ref(), &arguments].concat());
        Ok(Transaction { from, to: None, value: U256::ZERO, data, gas: Some(DEPLOY_GAS) })
    }

    /// One of the holders that `churn` moves between.
    pub fn holder(index: u64) -> Address {
        let mut address = [0; 20];
        address[0] = 0x10;
        address[12..].copy_from_slice(&index.to_be_bytes());
        Address::from(address)
    }

    /// A transaction with exactly `churn.transfers` Transfer logs.
    pub fn churn(&self, from: Address, churn: Churn) -> Transaction {
        let Churn { seed, transfers, holders } = churn;
        let [seed, transfers_, holders] = [seed, transfers, holders].map(U256::from);
        let call = interface::churnCall { seed, transfers: transfers_, holders };
        self.transaction(from, call.abi_encode(), 1 + transfers)
    }

    /// A transaction that moves tokens of its sender.
    pub fn transfer(&self, from: Address, to: Address, value: U256) -> Transaction {
        self.transaction(from, interface::transferCall { to, value }.abi_encode(), 1)
    }

    /// A transaction that makes tokens out of nothing, which anyone may on a devnet.
    pub fn mint(&self, from: Address, to: Address, value: U256) -> Transaction {
        self.transaction(from, interface::mintCall { to, value }.abi_encode(), 1)
    }

    /// A transaction that destroys tokens of its sender.
    pub fn burn(&self, from: Address, value: U256) -> Transaction {
        self.transaction(from, interface::burnCall { value }.abi_encode(), 1)
    }

    /// A transaction that gives a holder exactly `value`, whatever he had.
    pub fn set_balance(&self, from: Address, holder: Address, value: U256) -> Transaction {
        let call = interface::setBalanceCall { holder, value };
        self.transaction(from, call.abi_encode(), 1)
    }

    /// A transaction that lets `spender` take exactly `value` from `owner`, who is not asked.
    pub fn set_allowance(
        &self,
        from: Address,
        owner: Address,
        spender: Address,
        value: U256,
    ) -> Transaction {
        let call = interface::setAllowanceCall { owner, spender, value };
        self.transaction(from, call.abi_encode(), 1)
    }

    /// What the contract says `spender` may take from `owner`.
    pub async fn allowance(
        &self,
        anvil: &Anvil,
        owner: Address,
        spender: Address,
    ) -> anyhow::Result<U256> {
        let call = interface::allowanceCall { owner, spender };
        number(&anvil.view(self.0, call.abi_encode().into()).await?)
    }

    /// What the contract says a holder has after the last block.
    pub async fn balance_of(&self, anvil: &Anvil, holder: Address) -> anyhow::Result<U256> {
        number(&anvil.view(self.0, balance_of(holder)).await?)
    }

    /// What the contract said a holder had after a block.
    pub async fn balance_of_at(
        &self,
        anvil: &Anvil,
        holder: Address,
        block: B256,
    ) -> anyhow::Result<U256> {
        number(&anvil.view_at(self.0, balance_of(holder), block).await?)
    }

    /// What the contract says exists after the last block.
    pub async fn total_supply(&self, anvil: &Anvil) -> anyhow::Result<U256> {
        number(&anvil.view(self.0, total_supply()).await?)
    }

    /// What the contract said existed after a block.
    pub async fn total_supply_at(&self, anvil: &Anvil, block: B256) -> anyhow::Result<U256> {
        number(&anvil.view_at(self.0, total_supply(), block).await?)
    }

    fn transaction(&self, from: Address, data: Vec<u8>, transfers: u64) -> Transaction {
        let gas = Some(TRANSFER_GAS * transfers);
        Transaction { from, to: Some(self.0), value: U256::ZERO, data: data.into(), gas }
    }
}

fn balance_of(holder: Address) -> Bytes {
    interface::balanceOfCall { holder }.abi_encode().into()
}

fn total_supply() -> Bytes {
    interface::totalSupplyCall {}.abi_encode().into()
}

fn number(word: &Bytes) -> anyhow::Result<U256> {
    ensure!(word.len() == 32, "no token answers here: {word} is no number");
    Ok(U256::from_be_slice(word))
}
