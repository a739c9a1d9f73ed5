//! What is there: at the orderbook, at the receiver of webhooks, in the lanes.

use std::collections::BTreeMap;

use anyhow::ensure;
use serde_json::Value;
use shepherd_devnet::cow::Uid;
use shepherd_orderbook::OrderStats;

use crate::{hooks::Received, replay::Replayed, world::World};

/// Everything that was found.
#[derive(Default)]
pub struct Found {
    /// When each order was first seen at the orderbook, in minutes.
    pub orders: BTreeMap<Uid, u64>,
    /// What was posted under each UID.
    pub posts: BTreeMap<Uid, OrderStats>,
    /// What came to the webhook, by key.
    pub alerts: BTreeMap<String, Received>,
    /// The lanes, run again.
    pub replayed: Vec<Replayed>,
    /// Requests at the orderbook, by route and by what came of them.
    pub requests: BTreeMap<String, BTreeMap<String, u64>>,
    /// Blocks of the day.
    pub blocks: u64,
    /// How often Shepherd was killed.
    pub kills: u64,
}

impl Found {
    /// Notes which orders are new at the orderbook.
    pub async fn look(&mut self, world: &World, minute: u64) -> anyhow::Result<()> {
        for order in world.orderbook.orders().await.map_err(|error| anyhow::anyhow!("{error:?}"))? {
            self.orders.entry(order.uid).or_insert(minute);
        }
        Ok(())
    }

    /// Notes the rest, once the day is over.
    pub fn finish(&mut self, world: &World, lanes: &Value) -> anyhow::Result<()> {
        let stats = world.orderbook.stats();
        self.posts = stats.orders;
        for (route, outcomes) in stats.requests {
            let route = serde_json::to_value(route)?;
            let route = route.as_str().unwrap_or_default().to_owned();
            self.requests.insert(route, outcomes);
        }
        self.alerts = world.hooks.received();
        let running = |lane: &Value| lane["state"]["name"] == "running";
        let all = lanes["cursors"].as_array().cloned().unwrap_or_default();
        ensure!(all.iter().all(running), "a lane is not running: {lanes}");
        Ok(())
    }
}
