//! `shepherd-orderbook`: the stand-in as a process of its own.

use std::{
    io::Write,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use alloy_primitives::Address;
use anyhow::{Context, ensure};
use clap::Parser;
use serde_json::json;
use shepherd_orderbook::{ChainConfig, Clock, Config, Limits, Orderbook, Rule};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use url::Url;

/// A stand-in for the CoW Protocol orderbook. Everything is kept in memory.
///
/// Prints one line of JSON when it is up: its address and the seed of its faults. Example:
/// shepherd-orderbook --rpc-url http://127.0.0.1:8545 --clock chain
/// --fault '{"fault": "accept_then_drop", "rate": 0.2}'
#[derive(Parser)]
#[command(name = "shepherd-orderbook")]
struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Listen on an address that other machines reach. `/admin` still answers this one only.
    #[arg(long)]
    expose: bool,
    /// The chain whose orders these are.
    #[arg(long, default_value_t = Config::default().chain_id)]
    chain_id: u64,
    /// The chain's name in paths such as /sepolia/api/v1/orders.
    #[arg(long, default_value_t = Config::default().network)]
    network: String,
    /// The settlement contract.
    #[arg(long, default_value_t = Config::default().settlement)]
    settlement: Address,
    /// The chain's wrapped native token.
    #[arg(long, default_value_t = Config::default().wrapped_native)]
    wrapped_native: Address,
    /// A node: EIP-1271 owners are asked, and EthFlow is indexed.
    #[arg(long)]
    rpc_url: Option<Url>,
    /// The contract whose placements are indexed.
    #[arg(long, requires = "rpc_url")]
    eth_flow: Option<Address>,
    /// First block that is indexed.
    #[arg(long, default_value_t = 0)]
    index_from_block: u64,
    /// A placement is known when so many blocks came after its own.
    #[arg(long, default_value_t = 0)]
    index_delay_blocks: u64,
    /// Milliseconds between two looks at the chain.
    #[arg(long, default_value_t = 250)]
    poll_interval_ms: u64,
    /// Ask the tokens whether an owner has what he sells and lets the vault relayer take it.
    #[arg(long, requires = "rpc_url")]
    check_funds: bool,
    /// An order has to be valid for at least so many seconds.
    #[arg(long, default_value_t = Limits::default().validity_seconds_min)]
    validity_seconds_min: u64,
    /// An order may be valid for at most so many seconds, unless it is pre-signed.
    #[arg(long, default_value_t = Limits::default().validity_seconds_max)]
    validity_seconds_max: u64,
    /// Open orders of one owner; any number when absent.
    #[arg(long)]
    open_orders_max: Option<u64>,
    /// What time it is: system, chain, or a number of Unix seconds.
    #[arg(long, default_value = "system")]
    clock: Clock,
    /// Decides which requests a rule of a rate below one hits; a new one when absent.
    #[arg(long)]
    seed: Option<u64>,
    /// Something that goes wrong, as in /admin/faults: a rule in JSON. May be given several times.
    #[arg(long, value_parser = rule)]
    fault: Vec<Rule>,
}

fn rule(text: &str) -> Result<Rule, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;

    let config = config(Arguments::parse())?;
    let seed = config.seed;
    let orderbook = Orderbook::start(config).await?;
    let line = json!({
        "url": orderbook.url(),
        "admin": format!("http://{}/admin", orderbook.address()),
        "seed": seed,
    });
    writeln!(std::io::stdout(), "{line}")?;

    tokio::select! {
        _ = interrupt.recv() => (),
        _ = terminate.recv() => (),
    }
    orderbook.stop().await;
    Ok(())
}

fn config(arguments: Arguments) -> anyhow::Result<Config> {
    let listen = arguments.listen;
    ensure!(
        listen.ip().is_loopback() || arguments.expose,
        "other machines would reach {listen}; say --expose if they should"
    );
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            since.context("the clock is before 1970")?.subsec_nanos().into()
        }
    };
    let chain = arguments.rpc_url.map(|rpc| ChainConfig {
        rpc,
        eth_flow: arguments.eth_flow,
        from_block: arguments.index_from_block,
        delay_blocks: arguments.index_delay_blocks,
        poll_interval: Duration::from_millis(arguments.poll_interval_ms),
        check_funds: arguments.check_funds,
    });
    ensure!(
        chain.is_some() || arguments.clock != Clock::Chain,
        "--clock chain needs the chain's --rpc-url"
    );
    Ok(Config {
        listen,
        chain_id: arguments.chain_id,
        network: arguments.network,
        settlement: arguments.settlement,
        wrapped_native: arguments.wrapped_native,
        limits: Limits {
            validity_seconds_min: arguments.validity_seconds_min,
            validity_seconds_max: arguments.validity_seconds_max,
            open_orders_max: arguments.open_orders_max,
        },
        clock: arguments.clock,
        seed,
        rules: arguments.fault,
        chain,
    })
}
