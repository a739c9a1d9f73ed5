//! How fast blocks come from a real node into the durable journal.

use std::{ops::RangeInclusive, time::Instant};

use prometheus_client::registry::Registry;
use serde_json::json;
use shepherd_devnet::{Anvil, Load, Options as AnvilOptions, Plan};
use shepherd_ingest::{ChainStatus, Config, Metrics, follow};
use shepherd_log::Offset;
use shepherd_rpc::{Call, Options, Pool};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    report::{Median, Report},
    synthetic::{self, CHAIN, CHAIN_ID},
};

/// Blocks whose headers and logs the limit asks for in one batch.
const LIMIT_BATCH: usize = 100;

pub async fn measure(report: &mut Report, blocks: u64) -> anyhow::Result<()> {
    let anvil = Anvil::start(AnvilOptions::default()).await?;
    let load = Load::start(&anvil, Plan::default()).await?;
    let made = load.blocks(&anvil, blocks).await?;
    let head = anvil.block_number().await?;
    report.section(
        "RPC to durable journal",
        format!(
            "A real anvil on the same two cores serves {head} blocks with {} Transfer logs; the \
             follower fetches headers and logs by block hash, recomputes header hashes and blooms, \
             and appends in synced batches. The limit asks the same questions in batches of \
             {LIMIT_BATCH}, as many at a time as the follower, and throws the answers away unread.",
            made.logs
        ),
    );
    let mut limit = Vec::new();
    let mut followed = Vec::new();
    let mut bytes = 0;
    for _ in 0..report.runs {
        limit.push(ask(&pool(&anvil)?, head).await?);
        let (took, stored) = journal(&anvil, head).await?;
        followed.push(took);
        bytes = stored;
    }
    let (limit, followed) = (Median::of(limit), Median::of(followed));
    let (blocks, logs) = (head as f64 + 1.0, made.logs as f64);
    report.row(
        "follower",
        followed.rate(logs).show("logs/s"),
        format!(
            "{}; {} of records",
            followed.rate(blocks).show("blocks/s"),
            followed.rate(bytes as f64 / 1e6).show("MB/s"),
        ),
    );
    report.row(
        "the node's own limit",
        limit.rate(logs).show("logs/s"),
        format!("the follower reaches {:.2} of it", limit.median / followed.median),
    );
    Ok(())
}

fn pool(anvil: &Anvil) -> anyhow::Result<Pool> {
    let metrics = shepherd_rpc::Metrics::new(&mut Registry::default());
    let urls = vec![anvil.http_url().to_string().parse()?];
    Ok(Pool::connect(CHAIN, CHAIN_ID, urls, Options::default(), &metrics))
}

/// Asks for every header and its logs, and says how long that took.
async fn ask(pool: &Pool, head: u64) -> anyhow::Result<f64> {
    let started = Instant::now();
    let mut asking = JoinSet::new();
    for first in (0..=head).step_by(LIMIT_BATCH) {
        if asking.len() == Config::default().fetch_parallel {
            asking.join_next().await.expect("some are under way")??;
        }
        let last = (first + LIMIT_BATCH as u64 - 1).min(head);
        asking.spawn(ask_for(pool.clone(), first..=last));
    }
    while let Some(asked) = asking.join_next().await {
        asked??;
    }
    Ok(started.elapsed().as_secs_f64())
}

async fn ask_for(pool: Pool, blocks: RangeInclusive<u64>) -> anyhow::Result<()> {
    let headers: Vec<Call> = blocks
        .map(|number| Call {
            method: "eth_getBlockByNumber",
            params: json!([format!("{number:#x}"), false]),
        })
        .collect();
    let mut logs = Vec::new();
    for answer in pool.batch(&headers).await?.answers {
        let answer = answer?;
        let header: Header = answer.parse()?;
        let params = json!([{ "blockHash": header.hash }]);
        logs.push(Call { method: "eth_getLogs", params });
    }
    pool.batch(&logs).await?;
    Ok(())
}

/// What the limit has to read of a header.
#[derive(serde::Deserialize)]
struct Header {
    hash: String,
}

/// Follows into a fresh store until `head` is durable.
async fn journal(anvil: &Anvil, head: u64) -> anyhow::Result<(f64, usize)> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().to_owned();
    let (_store, journal) = tokio::task::spawn_blocking(move || synthetic::open(&path)).await??;
    let shutdown = CancellationToken::new();
    let mut tail = journal.watch();
    let started = Instant::now();
    let following = tokio::spawn(follow(
        journal.clone(),
        pool(anvil)?,
        Config::default(),
        watch::Sender::new(ChainStatus::starting()),
        Metrics::new(&mut Registry::default()),
        shutdown.clone(),
    ));
    tail.wait_for(|tail| tail.head.is_some_and(|block| block.number == head)).await?;
    let took = started.elapsed().as_secs_f64();
    shutdown.cancel();
    following.await??;
    let bytes = tokio::task::spawn_blocking(move || -> anyhow::Result<usize> {
        let records = journal.read(Offset::START..journal.tail().offset);
        let mut bytes = 0;
        for stored in records {
            bytes += stored?.encoded_bytes();
        }
        Ok(bytes)
    })
    .await??;
    Ok((took, bytes))
}
