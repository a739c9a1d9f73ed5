//! What an orderbook is started with.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use alloy_primitives::{Address, address};
use cowprotocol::GPV2_SETTLEMENT;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::{clock::Clock, faults::Rule};

/// Everything that is decided before the first request. The default is Sepolia without a chain,
/// on a free loopback port.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The chain whose orders these are.
    pub chain_id: u64,
    /// The chain's name in paths such as `/sepolia/api/v1/orders`.
    pub network: String,
    /// The settlement contract, by which orders are signed.
    pub settlement: Address,
    /// The chain's wrapped native token: selling it for the native one is no trade.
    pub wrapped_native: Address,
    /// What is accepted.
    pub limits: Limits,
    /// What time it is.
    pub clock: Clock,
    /// Decides which requests a rule of a rate below one hits.
    pub seed: u64,
    /// What goes wrong, from the start.
    pub rules: Vec<Rule>,
    /// The chain to ask and to index.
    pub chain: Option<ChainConfig>,
}

/// What is accepted.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// An order has to be valid for at least so long.
    pub validity_seconds_min: u64,
    /// An order may be valid for at most so long, unless it is pre-signed.
    pub validity_seconds_max: u64,
    /// Open orders of one owner; any number when absent.
    pub open_orders_max: Option<u64>,
}

/// A chain, and how it is read.
#[derive(Clone, Debug)]
pub struct ChainConfig {
    /// HTTP endpoint of a node.
    pub rpc: Url,
    /// The contract whose placements are indexed.
    pub eth_flow: Option<Address>,
    /// First block that is indexed.
    pub from_block: u64,
    /// A placement is known only when so many blocks came after its own.
    pub delay_blocks: u64,
    /// Pause between two looks at the chain.
    pub poll_interval: Duration,
    /// Ask the tokens whether an owner has what he sells and lets the vault relayer take it.
    pub check_funds: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            chain_id: 11_155_111,
            network: "sepolia".to_owned(),
            settlement: GPV2_SETTLEMENT,
            wrapped_native: address!("fFf9976782d46CC05630D1f6eBAb18b2324d6B14"),
            limits: Limits::default(),
            clock: Clock::System,
            seed: 0,
            rules: Vec::new(),
            chain: None,
        }
    }
}

impl Default for Limits {
    /// The validity limits of the real one: a minute, and a year of 365 days.
    fn default() -> Limits {
        Limits {
            validity_seconds_min: 60,
            validity_seconds_max: 365 * 24 * 60 * 60,
            open_orders_max: None,
        }
    }
}

impl ChainConfig {
    /// A chain whose EIP-1271 owners are asked, and nothing else.
    pub fn new(rpc: Url) -> ChainConfig {
        ChainConfig {
            rpc,
            eth_flow: None,
            from_block: 0,
            delay_blocks: 0,
            poll_interval: Duration::from_millis(250),
            check_funds: false,
        }
    }
}
