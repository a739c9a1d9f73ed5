//! What was asked and what came of it: the evidence that tests are decided by.

use std::collections::BTreeMap;

use alloy_primitives::B256;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{faults::Route, order::Uid};

/// Everything that was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StatsView {
    /// What fault rates are drawn from.
    pub seed: u64,
    /// Requests of each kind by what came of them: `201`, `400 DuplicatedOrder`, `429`,
    /// `dropped`, `201, then dropped`.
    pub requests: BTreeMap<Route, BTreeMap<String, u64>>,
    /// Each order that was ever posted, whatever came of it.
    pub orders: BTreeMap<Uid, OrderStats>,
}

/// What was posted under one UID.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OrderStats {
    /// How often it was posted.
    pub posts: u64,
    /// How often it was accepted. More than once would be a bug of ours.
    pub accepted: u64,
    /// SHA-256 of the exact bytes of each body, and how often it came. Resends that are
    /// byte-identical are one entry.
    pub bodies: BTreeMap<B256, u64>,
    /// What came of the posts.
    pub outcomes: BTreeMap<String, u64>,
}

/// The counters.
#[derive(Debug, Default)]
pub struct Stats {
    requests: BTreeMap<Route, BTreeMap<String, u64>>,
    orders: BTreeMap<Uid, OrderStats>,
    attempts: BTreeMap<(Route, Vec<u8>), u64>,
}

/// The digest by which bodies are compared.
pub fn digest(body: &[u8]) -> B256 {
    B256::from_slice(&Sha256::digest(body))
}

impl Stats {
    /// Counts a request that came in; answers with how often the same came before.
    pub fn arrived(&mut self, route: Route, key: &[u8], order: Option<(Uid, B256)>) -> u64 {
        if let Some((uid, body)) = order {
            let order = self.orders.entry(uid).or_default();
            order.posts += 1;
            *order.bodies.entry(body).or_default() += 1;
        }
        let attempts = self.attempts.entry((route, key.to_vec())).or_default();
        *attempts += 1;
        *attempts - 1
    }

    /// Counts what came of a request.
    pub fn answered(&mut self, route: Route, order: Option<Uid>, outcome: &str, accepted: bool) {
        let outcomes = self.requests.entry(route).or_default();
        *outcomes.entry(outcome.to_owned()).or_default() += 1;
        if let Some(uid) = order {
            let order = self.orders.entry(uid).or_default();
            *order.outcomes.entry(outcome.to_owned()).or_default() += 1;
            order.accepted += u64::from(accepted);
        }
    }

    /// Everything that was counted.
    pub fn view(&self, seed: u64) -> StatsView {
        StatsView { seed, requests: self.requests.clone(), orders: self.orders.clone() }
    }
}
