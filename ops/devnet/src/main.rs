//! `shepherd-devnet`: a chain to look at, with something happening on it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use alloy_primitives::{Address, U256, utils::parse_ether};
use anyhow::{Context, ensure};
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};
use shepherd_devnet::cow::{self, Cow, Deployments, Owner, Twap};
use shepherd_devnet::{Anvil, Load, Options, Plan, Token, Transaction};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;
use url::Url;

/// A local chain with activity, for trying Shepherd out.
#[derive(Parser)]
#[command(name = "shepherd-devnet")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a chain and make activity on it until Ctrl-C.
    ///
    /// Prints one line of JSON when it is up: the addresses of the node, the tokens and the
    /// accounts. Example: shepherd-devnet up --state chain.json --block-time 2
    Up(Up),
    /// Run a chain with CoW Protocol on it, named Sepolia, until Ctrl-C.
    ///
    /// Prints one line of JSON when it is up: the addresses of the node, the contracts, the
    /// accounts and the owners. The node signs for the accounts, and the owners obey the
    /// controller. Example: shepherd-devnet cow --port 8545 --twaps 10
    Cow(CowUp),
}

#[derive(Args)]
struct Up {
    /// Port of the node; a free one when absent.
    #[arg(long)]
    port: Option<u16>,
    /// Seconds between two blocks.
    #[arg(long, default_value_t = 1.0)]
    block_time: f64,
    /// File that keeps the chain between two runs.
    #[arg(long)]
    state: Option<PathBuf>,
    /// Transfer logs in each block.
    #[arg(long, default_value_t = 50)]
    logs_per_block: u64,
    /// Tokens they are spread over.
    #[arg(long, default_value_t = 2)]
    tokens: u64,
    /// Holders of tokens.
    #[arg(long, default_value_t = 50)]
    holders: u64,
    /// Replace the last blocks by others, one to three of them, every so many blocks.
    #[arg(long)]
    reorg_every: Option<u64>,
    /// Make so many blocks at once before the first one that takes its time.
    #[arg(long, default_value_t = 0)]
    prefill: u64,
}

#[derive(Args)]
struct CowUp {
    /// Port of the node; a free one when absent.
    #[arg(long)]
    port: Option<u16>,
    /// Seconds between two blocks.
    #[arg(long, default_value_t = 1.0)]
    block_time: f64,
    /// File that keeps the chain between two runs.
    #[arg(long)]
    state: Option<PathBuf>,
    /// Deployment transactions that take the place of our own contracts: JSON, from a name to
    /// {address, to, data} or {address, from, nonce, data}.
    #[arg(long)]
    contracts: Option<PathBuf>,
    /// A node of Sepolia to take the chain from, with the contracts that are there.
    #[arg(long, conflicts_with = "contracts")]
    fork_url: Option<Url>,
    /// Safes that sign what ComposableCoW says.
    #[arg(long, default_value_t = 2)]
    safes: u64,
    /// Owners that are no Safes and sign the same.
    #[arg(long, default_value_t = 1)]
    forwarders: u64,
    /// TWAPs to begin with, each of twelve parts of five minutes.
    #[arg(long, default_value_t = 0)]
    twaps: u64,
}

/// Blocks between two large payments of ether.
const PAYMENT_EVERY: u64 = 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let command = Arguments::parse().command;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;

    let options = match &command {
        Command::Up(up) => Options { port: up.port, state: up.state.clone(), ..Options::default() },
        Command::Cow(up) => Options {
            port: up.port,
            state: up.state.clone(),
            fork: up.fork_url.clone(),
            ..Cow::options()
        },
    };
    if let Some(folder) = options.state.as_ref().and_then(|file| file.parent()) {
        std::fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    }
    let anvil = Anvil::start(options).await?;
    let running = async {
        match &command {
            Command::Up(up) => activity(&anvil, up).await,
            Command::Cow(up) => cow(&anvil, up).await,
        }
    };
    let ended = tokio::select! {
        ended = running => ended,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    anvil.stop().await?;
    ended
}

/// A block in each interval, until the node fails.
async fn activity(anvil: &Anvil, up: &Up) -> anyhow::Result<()> {
    let plan = Plan {
        logs_per_block: up.logs_per_block,
        tokens: up.tokens,
        holders: up.holders,
        ..Plan::default()
    };
    let load = Load::start(anvil, plan).await?;
    if up.prefill > 0 {
        load.blocks(anvil, up.prefill).await?;
    }
    announce(anvil, &load)?;

    let mut blocks = tokio::time::interval(Duration::try_from_secs_f64(up.block_time)?);
    blocks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        blocks.tick().await;
        let number = anvil.block_number().await? + 1;
        if let Some(every) = up.reorg_every
            && number.is_multiple_of(every)
        {
            anvil.reorg(1 + number / every % 3).await?;
        }
        anvil.send(&[payment(anvil.accounts(), number)]).await?;
        load.blocks(anvil, 1).await?;
    }
}

/// CoW Protocol, and a block in each interval, until the node fails.
async fn cow(anvil: &Anvil, up: &CowUp) -> anyhow::Result<()> {
    let deployments = match &up.contracts {
        Some(file) => Deployments::read(file)?,
        None => Deployments::default(),
    };
    let cow = Cow::deploy_with(anvil, &deployments).await?;
    let safes = cow.safes(anvil, 0..up.safes).await?;
    let forwarders = cow.forwarders(anvil, 0..up.forwarders).await?;
    let owners: Vec<Owner> = safes.iter().chain(&forwarders).copied().collect();
    ensure!(up.twaps == 0 || !owners.is_empty(), "a TWAP needs an owner: ask for a Safe");
    let start = anvil.time().await?;
    // Salts that no run before this one has used.
    let twaps: Vec<_> = (start << 32..)
        .take(usize::try_from(up.twaps)?)
        .zip(owners.iter().cycle())
        .map(|(salt, owner)| (*owner, twap(owner.address, start).order(U256::from(salt).into())))
        .collect();
    cow.create(anvil, &twaps).await?;

    let addresses =
        |owners: &[Owner]| -> Vec<Address> { owners.iter().map(|owner| owner.address).collect() };
    let orders: Vec<Value> = twaps
        .iter()
        .map(|(owner, order)| json!({ "owner": owner.address, "id": order.id() }))
        .collect();
    say(&json!({
        "http": anvil.http_url(),
        "ws": anvil.ws_url(),
        "chain_id": anvil.chain_id(),
        "accounts": anvil.accounts(),
        "controller": cow.controller(),
        "contracts": Cow::addresses().into_iter().collect::<BTreeMap<_, _>>(),
        "safes": addresses(&safes),
        "forwarders": addresses(&forwarders),
        "orders": orders,
    }))?;

    let mut blocks = tokio::time::interval(Duration::try_from_secs_f64(up.block_time)?);
    blocks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        blocks.tick().await;
        anvil.mine(1).await?;
    }
}

/// A tenth of a COW every five minutes, for an hour.
fn twap(receiver: Address, t0: u64) -> Twap {
    Twap {
        sell_token: cow::COW_TOKEN,
        buy_token: cow::WETH,
        receiver,
        part_sell_amount: parse_ether("0.1").expect("a number"),
        min_part_limit: parse_ether("0.00001").expect("a number"),
        t0,
        n: 12,
        t: 300,
        span: 0,
        app_data: cow::EMPTY_APP_DATA,
    }
}

/// Small change between two accounts, and now and then a hundred ether, to and fro.
fn payment(accounts: &[Address], number: u64) -> Transaction {
    let [one, two] = [accounts[accounts.len() - 1], accounts[accounts.len() - 2]];
    let round = number / PAYMENT_EVERY;
    let (from, to) = if round.is_multiple_of(2) { (one, two) } else { (two, one) };
    let value = if number.is_multiple_of(PAYMENT_EVERY) {
        parse_ether("100").expect("a number")
    } else {
        U256::from(number)
    };
    Transaction { from, to: Some(to), value, data: Default::default(), gas: Some(21_000) }
}

/// One line for whoever started us.
fn announce(anvil: &Anvil, load: &Load) -> anyhow::Result<()> {
    let tokens: Vec<Address> = load.tokens().iter().map(Token::address).collect();
    let holders: Vec<Address> = (0..load.plan().holders.min(5)).map(Token::holder).collect();
    say(&json!({
        "http": anvil.http_url(),
        "ws": anvil.ws_url(),
        "chain_id": anvil.chain_id(),
        "tokens": tokens,
        "holders": holders,
        "accounts": anvil.accounts(),
    }))
}

fn say(line: &Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}
