//! One seed: a chain, endpoints, what happens to them, and what must come of it.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use shepherd_ingest::{Config, Finality, Start, Trust};
use shepherd_node::{Chain, Limits, Node, Notice, Oracle, Script, Shape, Told};

use crate::{
    compare::compare,
    follower::{BODY_BYTES_MAX, Follower},
};

/// What a seed came to.
#[derive(Debug)]
#[expect(dead_code, reason = "some of it is only read by people, when a seed is tried alone")]
pub struct History {
    pub trust: Trust,
    pub endpoints: usize,
    /// What was done to the chain and to the follower.
    pub steps: Vec<Step>,
    pub blocks: u64,
    pub restarts: usize,
    pub abandoned: usize,
    /// What was lied about.
    pub lies: Vec<Told>,
}

/// Something that happens.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Blocks are appended.
    Extend(u64),
    /// The newest blocks are abandoned for as many others as said.
    Reorg { depth: u64, blocks: u64 },
    /// The follower is restarted.
    Restart,
    /// The follower has time to reach the head.
    Settle,
}

/// The deepest reorg that a chain may have, in blocks below the highest one there ever was.
const REORG_DEPTH_MAX: u64 = 64;

/// Runs a seed to its end. An error says what is wrong, and what was lied about.
pub async fn history(seed: u64) -> Result<History, String> {
    let mut random = StdRng::seed_from_u64(seed);
    let trust = match random.random_range(0..20) {
        0..3 => Trust::Link,
        3..14 => Trust::Bloom,
        _ => Trust::Receipts,
    };
    let notice = match trust {
        Trust::Link => Notice::Always,
        Trust::Bloom => Notice::Bloom,
        Trust::Receipts => Notice::Receipts,
    };
    let initial = match random.random_range(0..10) {
        0 => 0,
        1 => random.random_range(60..90),
        _ => random.random_range(1..30),
    };
    let shape = Shape { blocks: initial, ..Shape::small(seed) };
    let chain_id = shape.chain_id;
    let oracle = Oracle::new(Chain::new(shape));
    let mut nodes = Vec::new();
    let mut urls = Vec::new();
    let endpoints = random.random_range(1..=3);
    for _ in 0..endpoints {
        let script = Script {
            huge_bytes: 2 * BODY_BYTES_MAX,
            // Then receipts are asked for one by one.
            methods_missing: match random.random_bool(0.3) {
                true => vec!["eth_getBlockReceipts"],
                false => Vec::new(),
            },
            limits: Limits { batch_calls_max: random.random_range(0..4) * 5, ..Limits::default() },
            ..Script::liar(random.random(), notice)
        };
        let node = Node::start(&oracle, script).await.map_err(|error| error.to_string())?;
        // A WebSocket endpoint alone is one too.
        let websocket = random.random_range(0..10);
        if websocket > 0 {
            urls.push(node.http_url());
        }
        if websocket < 4 {
            urls.push(node.ws_url());
        }
        nodes.push(node);
    }
    let urls = urls.iter().map(|url| url.parse().expect("a URL")).collect();
    // Below the head: a sibling of the journal's first block would rightly stop the chain.
    let start = if random.random_bool(0.3) { random.random_range(0..initial.max(1)) } else { 0 };
    let config = Config {
        start: Start::Block(start),
        reorg_depth_max: REORG_DEPTH_MAX,
        trust,
        finality: match random.random_bool(0.5) {
            true => Finality::Tag,
            false => Finality::Depth(REORG_DEPTH_MAX),
        },
        quorum: match random.random_bool(0.25) {
            true => endpoints,
            false => 1,
        },
        poll_interval: Duration::from_millis(2),
        fetch_parallel: random.random_range(1..=4),
        batch_blocks_max: random.random_range(1..12),
        retry_min: Duration::from_millis(1),
        retry_max: Duration::from_millis(4),
        ..Config::default()
    };
    let mut steps = Vec::new();
    let ingests = random.random_bool(0.3);
    let follower = Follower::start(chain_id, urls, config, ingests);
    let outcome = run(&mut random, &oracle, &nodes, follower, start, trust, &mut steps).await;
    let lies: Vec<Vec<Told>> = nodes.iter().map(Node::confession).collect();
    match outcome {
        Ok((restarts, abandoned)) => Ok(History {
            trust,
            endpoints,
            steps,
            blocks: oracle.head().number,
            restarts,
            abandoned,
            lies: lies.concat(),
        }),
        Err(error) => {
            let mut report = format!("{error}\n  under {trust:?} trust, after {steps:?}");
            for (n, lies) in lies.iter().enumerate() {
                let lies: Vec<String> = lies.iter().map(|told| format!("\n    {told}")).collect();
                report.push_str(&format!("\n  endpoint {n} lied:{}", lies.concat()));
            }
            Err(format!("{report}\n  repeat with SHEPHERD_SEED={seed}"))
        }
    }
}

async fn run(
    random: &mut StdRng,
    oracle: &Oracle,
    nodes: &[Node],
    mut follower: Follower,
    start: u64,
    trust: Trust,
    steps: &mut Vec<Step>,
) -> Result<(usize, usize), String> {
    let mut highest = oracle.head().number;
    for _ in 0..random.random_range(3..9) {
        let step = draw(random, oracle.head().number, highest, start);
        steps.push(step);
        match step {
            Step::Extend(blocks) => oracle.extend(blocks),
            Step::Reorg { depth, blocks } => oracle.reorg(depth, blocks),
            Step::Restart => follower = follower.restart().await?,
            Step::Settle => follower = settle(oracle, follower).await?,
        }
        highest = highest.max(oracle.head().number);
        // In the middle of whatever the follower is doing.
        follower = follower.until_served(oracle, random.random_range(0..12)).await?;
    }
    // From here on one endpoint tells the truth, and often all do.
    let honest = random.random_range(0..nodes.len());
    let all = random.random_bool(0.5);
    nodes
        .iter()
        .enumerate()
        .filter(|(n, _)| all || *n == honest)
        .for_each(|(_, node)| node.repent());
    oracle.extend(1);
    follower = settle(oracle, follower).await?;
    let restarts = follower.restarts;
    let disk = follower.stop().await?;
    let abandoned = compare(&disk.journal, &oracle.chain(), start, trust)?;
    disk.remove();
    Ok((restarts, abandoned))
}

/// Waits until the journal is where the chain is. The chain does not move meanwhile, but an
/// endpoint that lies may have led the follower away from there again when this returns.
async fn settle(oracle: &Oracle, follower: Follower) -> Result<Follower, String> {
    let head = oracle.head();
    follower.until_head(head.hash).await
}

/// What happens next to a chain of this height.
fn draw(random: &mut StdRng, head: u64, highest: u64, start: u64) -> Step {
    match random.random_range(0..10) {
        0..4 => Step::Extend(random.random_range(1..10)),
        4..8 => {
            // Not below where the journal begins, and not deeper than a follower goes that is still
            // at the highest block there ever was.
            let floor = start.max(highest.saturating_sub(REORG_DEPTH_MAX));
            let deepest = head.saturating_sub(floor);
            if deepest == 0 {
                return Step::Extend(1);
            }
            let depth = match random.random_range(0..10) {
                0..6 => random.random_range(1..=deepest.min(3)),
                6..9 => random.random_range(1..=deepest.min(12)),
                _ => deepest,
            };
            Step::Reorg { depth, blocks: random.random_range(1..=depth + 2) }
        }
        8 => Step::Restart,
        _ => Step::Settle,
    }
}
