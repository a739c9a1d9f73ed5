//! A day of the five modules, with everything that goes wrong in one, and what came of it.
//!
//! ```text
//!   day (script) ──▶ world: anvil, orderbook, webhooks, shepherd ──▶ found ──▶ report
//!        │                                            └──── replay ────▲          ▲
//!        └──────────────────────── expected ──────────────────────────────────────┘
//! ```
//!
//! Time is moved by block timestamps: a day takes a few minutes. The program ends with an error
//! when anything that must be there is not, or is there twice, or should not be there.

mod day;
mod found;
mod hooks;
mod line;
mod replay;
mod report;
mod world;

use std::{path::PathBuf, time::Instant};

use anyhow::Context;
use clap::Parser;
use shepherd_devnet::Transaction;

use crate::{
    day::{Act, BLOCK_MINUTES, DAY, Day},
    found::Found,
    world::World,
};

/// Runs a scripted day on the devnet and writes what came of it.
#[derive(Parser)]
#[command(name = "shepherd-e2e")]
struct Arguments {
    /// The `shepherd` to run.
    #[arg(long)]
    shepherd: PathBuf,
    /// Where the report goes.
    #[arg(long)]
    report: PathBuf,
    /// Decides the moments of the kills and whom faults hit.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let started = Instant::now();
    println!("e2e: seed {}", arguments.seed);
    let mut world = World::start(&arguments.shepherd, arguments.seed).await?;
    let day = day::script(&world.anvil, &world.cow, &world.users.clone()).await?;
    world.configure(&|module| day::configuration(&day, module)).await?;
    upload(&world, day::RICH_APP_DATA).await?;
    world.start_shepherd()?;
    let mut found = Found::default();
    let live = live(&mut world, &day, &mut found).await;
    if live.is_err() {
        let kept = std::env::temp_dir().join("shepherd-e2e.log");
        let _ = std::fs::copy(world.folder().join("shepherd.log"), &kept);
        eprintln!("e2e: the log of Shepherd is in {}", kept.display());
    }
    live?;
    let lanes = world.ask("/v1/cursors").await.context("Shepherd answers")?;
    world.stop_shepherd().await?;
    found.finish(&world, &lanes)?;
    found.replayed = replay::replay(world.folder(), arguments.seed)?;

    let report = report::Report::new(&day, &found, arguments.seed, started.elapsed());
    report.write(&arguments.report)?;
    println!("{}", report.summary());
    report.verdict()
}

/// Lives through the day, block by block.
async fn live(world: &mut World, day: &Day, found: &mut Found) -> anyhow::Result<()> {
    let mut orderbook_is_down = false;
    for minute in (0..=DAY).step_by(BLOCK_MINUTES as usize) {
        let acts: Vec<&Act> =
            day.lines.iter().filter(|line| line.minute == minute).map(|line| &line.act).collect();
        let mut transactions: Vec<Transaction> = Vec::new();
        for act in &acts {
            match act {
                Act::Send(more) => transactions.extend(more.iter().cloned()),
                Act::Weth(owner, value) => {
                    world.cow.set_weth_balance(&world.anvil, owner.address, *value).await?;
                }
                Act::Faults(rules) => {
                    world.orderbook.set_rules(rules.clone())?;
                    orderbook_is_down = rules.iter().any(|rule| {
                        rule.rate == 1.0 && rule.first_attempts.is_none() && rule.times.is_none()
                    });
                }
                Act::CutLine => world.cut_line().await?,
                Act::Reorg(depth, again) => world.anvil.reorg_with(*depth, again).await?,
                Act::Kill => (),
            }
        }
        let time = day.start + minute * 60;
        world
            .block(&transactions, time)
            .await
            .with_context(|| format!("the block of {}", Day::clock(minute)))?;
        found.blocks += 1;
        if acts.iter().any(|act| matches!(act, Act::Kill)) {
            world.kill_shepherd().await?;
            found.kills += 1;
        }
        if !orderbook_is_down {
            world.settled().await.with_context(|| format!("at {}", Day::clock(minute)))?;
        }
        found.look(world, minute).await?;
        if minute % 240 == 0 {
            println!("e2e: {}, {} orders", Day::clock(minute), found.orders.len());
        }
    }
    Ok(())
}

/// Uploads a document, as a front end does.
async fn upload(world: &World, document: &str) -> anyhow::Result<()> {
    let hash = alloy_primitives::keccak256(document);
    let base = world.orderbook.url();
    let url = format!("{}/api/v1/app_data/{hash}", base.as_str().trim_end_matches('/'));
    let body = serde_json::json!({ "fullAppData": document });
    let client = reqwest::Client::builder().no_proxy().build()?;
    let response = client
        .put(url)
        .header("content-type", "application/json")
        .body(body.to_string())
        .send()
        .await?;
    response.error_for_status().context("uploading app data")?;
    Ok(())
}
