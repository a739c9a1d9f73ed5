//! Serves a synthetic chain until it is interrupted.

use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use shepherd_node::{Chain, Limits, Node, Notice, Oracle, Script, Shape};

/// Serve a synthetic chain over HTTP and WebSocket, as a node would.
#[derive(Debug, Parser)]
struct Arguments {
    /// What the chain looks like.
    #[arg(long, value_enum, default_value = "mainnet")]
    shape: Kind,
    /// Blocks after the genesis block.
    #[arg(long, default_value_t = 50_400)]
    blocks: u64,
    /// Another seed is another chain.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to listen on the loopback interface; 0 is any port that is free.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Make the receipts roots in headers those of the receipts. Takes far longer to start.
    #[arg(long)]
    receipts_roots: bool,
    /// Produce a block every so many milliseconds; 0 is never.
    #[arg(long, default_value_t = 0)]
    block_milliseconds: u64,
    /// Replace the last two blocks about every so many blocks; 0 is never.
    #[arg(long, default_value_t = 0)]
    reorg_every: u64,
    /// Most blocks in the range of one eth_getLogs; 0 is no limit.
    #[arg(long, default_value_t = 0)]
    range_blocks_max: u64,
    /// Most logs in the answer to one eth_getLogs; 0 is no limit.
    #[arg(long, default_value_t = 0)]
    logs_max: usize,
    /// Most calls in one message; 0 is no limit.
    #[arg(long, default_value_t = 0)]
    batch_calls_max: usize,
    /// Lie, as this seed has it.
    #[arg(long)]
    lies: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// As dense as Ethereum's mainnet.
    Mainnet,
    /// A few logs per block.
    Small,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let Arguments { seed, blocks, .. } = arguments;
    let shape = match arguments.shape {
        Kind::Mainnet => Shape::mainnet(seed, blocks),
        Kind::Small => Shape { blocks, ..Shape::small(seed) },
    };
    let receipts_roots = arguments.receipts_roots || shape.receipts_roots;
    let started = Instant::now();
    let oracle = Oracle::new(Chain::new(Shape { receipts_roots, ..shape }));
    let (range_blocks_max, logs_max) = (arguments.range_blocks_max, arguments.logs_max);
    let limits = Limits { range_blocks_max, logs_max, batch_calls_max: arguments.batch_calls_max };
    let script = match arguments.lies {
        Some(seed) => Script::liar(seed, Notice::Bloom),
        None => Script::honest(),
    };
    let node = Node::start_at(&oracle, Script { limits, ..script }, arguments.port).await?;
    println!("{}", node.http_url());
    println!("{}", node.ws_url());
    eprintln!("{} blocks after {:.1?}", oracle.head().number, started.elapsed());
    let every = Duration::from_millis(arguments.block_milliseconds);
    tokio::select! {
        () = oracle.advance(every, arguments.reorg_every), if !every.is_zero() => (),
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(())
}
