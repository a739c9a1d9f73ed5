//! `shepherd-devnet`: a chain to look at, with something happening on it.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use alloy_primitives::{Address, U256, utils::parse_ether};
use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use serde_json::json;
use shepherd_devnet::{Anvil, Load, Options, Plan, Token, Transaction};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

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

/// Blocks between two large payments of ether.
const PAYMENT_EVERY: u64 = 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Command::Up(up) = Arguments::parse().command;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;

    if let Some(folder) = up.state.as_ref().and_then(|file| file.parent()) {
        std::fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    }
    let options = Options { port: up.port, state: up.state.clone(), ..Options::default() };
    let anvil = Anvil::start(options).await?;
    let ended = tokio::select! {
        ended = activity(&anvil, &up) => ended,
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
    let line = json!({
        "http": anvil.http_url(),
        "ws": anvil.ws_url(),
        "chain_id": anvil.chain_id(),
        "tokens": tokens,
        "holders": holders,
        "accounts": anvil.accounts(),
    });
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}
