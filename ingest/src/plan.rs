//! What an ingest will cost, before it is begun.
//!
//! A few blocks spread over the gap are fetched the way the ingest would fetch them. How large they
//! are says how many blocks go into each fetch, and with that the calls follow; how long they take
//! next to a bare round trip says how long the rest will.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use shepherd_log::{Block, Header, Journal};
use shepherd_rpc::Pool;

use crate::{
    Config, FetchError, NoSuchBlock, Trust, Until,
    fetch::Fetcher,
    fill::{FIRST_FETCH_BLOCKS, at_least_one, first_unsettled, next_fetch, next_size},
    history::Span,
    progress::Density,
    ranges::Ranges,
    start::Unresolved,
};

/// What an ingest will cost. All but the blocks is an estimate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The first block of the gap.
    pub first: u64,
    /// The last block of the gap; before the first when there is nothing to do.
    pub last: u64,
    /// Blocks of the gap.
    pub blocks: u64,
    /// Logs of the gap.
    pub logs: u64,
    /// Calls, by method. Endpoints that fail, answers that do not hold up and ranges that are
    /// refused cost more; so does a quorum.
    pub calls: BTreeMap<&'static str, u64>,
    /// JSON that endpoints will send, uncompressed.
    pub json_bytes: u64,
    /// The shortest of a few round trips.
    pub round_trip: Duration,
    /// Time to fetch and verify all of it, should endpoints keep the pace of the samples. Making
    /// it durable goes on beside that.
    pub duration: Duration,
    /// Blocks that were fetched to find this out.
    pub sampled_blocks: u64,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The gap has no end or no start.
    #[error(transparent)]
    NoSuchBlock(#[from] NoSuchBlock),
    /// The samples could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

impl From<Unresolved> for PlanError {
    fn from(error: Unresolved) -> PlanError {
        match error {
            Unresolved::NoSuchBlock(error) => error.into(),
            Unresolved::Fetch(error) => error.into(),
        }
    }
}

/// Heights that a plan samples, and blocks at each.
const SAMPLES: usize = 16;
const SAMPLE_BLOCKS: u64 = 4;

/// Round trips that are measured. The first may be slower, for the endpoint is only just met.
const ROUND_TRIPS: usize = 4;

/// Finds out what [`ingest`](crate::ingest) to the same end would cost, without writing anything.
pub async fn plan(
    journal: &Journal,
    pool: &Pool,
    config: &Config,
    to: Until,
) -> Result<Plan, PlanError> {
    let config = at_least_one(config.clone());
    let fetcher = Fetcher { pool: pool.clone(), checks: config.checks() };
    let (node_head, round_trip) = measure_round_trip(&fetcher).await?;
    let head = journal.tail().head.map(|head| head.number);
    let span = Span::find(head, &config, to, &node_head, &fetcher).await?;
    let started = Instant::now();
    let samples = sample(&fetcher, &span, SAMPLES, SAMPLE_BLOCKS).await?;
    let took = started.elapsed();
    Ok(estimate(&span, node_head.this.number, &config, &samples, round_trip, took))
}

/// The newest header, and how long it takes to ask for it.
async fn measure_round_trip(fetcher: &Fetcher) -> Result<(Header, Duration), FetchError> {
    let mut shortest = Duration::MAX;
    let mut newest = None;
    for _ in 0..ROUND_TRIPS {
        let started = Instant::now();
        newest = Some(fetcher.latest().await?.value.header);
        shortest = shortest.min(started.elapsed());
    }
    Ok((newest.expect("there was a round trip"), shortest))
}

/// Some blocks of a gap, in a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) height: u64,
    blocks: u64,
    blocks_with_logs: u64,
    logs: u64,
    json_bytes: u64,
}

impl Sample {
    pub(crate) fn logs_per_block(&self) -> f64 {
        self.logs as f64 / self.blocks as f64
    }
}

/// Fetches blocks at evenly spread heights of a gap, in rising order.
pub(crate) async fn sample(
    fetcher: &Fetcher,
    span: &Span,
    samples: usize,
    blocks: u64,
) -> Result<Vec<Sample>, FetchError> {
    let ranges = Ranges::up_to(blocks as usize);
    let fetches = heights(span, samples as u64, blocks).into_iter().map(|heights| {
        let (fetcher, ranges) = (fetcher.clone(), &ranges);
        async move {
            let fetched = fetcher.history(heights.clone(), ranges).await?;
            let logs = |block: &Block| block.logs.len() as u64;
            Ok(Sample {
                height: heights.start,
                blocks: fetched.value.len() as u64,
                blocks_with_logs: fetched.value.iter().filter(|b| !b.logs.is_empty()).count()
                    as u64,
                logs: fetched.value.iter().map(logs).sum(),
                json_bytes: fetched.json_bytes as u64,
            })
        }
    });
    stream::iter(fetches).buffered(SAMPLES_AT_ONCE).try_collect().await
}

/// Samples that are under way at once.
const SAMPLES_AT_ONCE: usize = 4;

/// Evenly spread heights of a gap, each with as many blocks after it.
fn heights(span: &Span, samples: u64, blocks: u64) -> Vec<Range<u64>> {
    let samples = samples.min(span.blocks() / blocks.max(1)).max(span.blocks().min(1));
    (0..samples)
        .map(|n| {
            // In the middle of its part; the product would overflow for no chain there is.
            let start = span.first + span.blocks() * (2 * n + 1) / (2 * samples);
            let start = start.min((span.last + 1).saturating_sub(blocks)).max(span.first);
            start..(start + blocks).min(span.last + 1)
        })
        .collect()
}

/// What the whole gap will cost, by what the samples cost.
fn estimate(
    span: &Span,
    node_head: u64,
    config: &Config,
    samples: &[Sample],
    round_trip: Duration,
    took: Duration,
) -> Plan {
    let sampled_bytes: u64 = samples.iter().map(|sample| sample.json_bytes).sum();
    let simulated = Simulated::fetches(span, node_head, config, samples);
    let at_once = config.fetch_parallel.min(SAMPLES_AT_ONCE).min(samples.len().max(1)) as f64;
    // Of the time that a sample took, what is not the round trip grows with its size.
    let per_sample = took.as_secs_f64() * at_once / samples.len().max(1) as f64;
    let trips = trips(config.trust) * round_trip.as_secs_f64();
    let byte_seconds =
        (per_sample - trips).max(0.0) * samples.len() as f64 / sampled_bytes.max(1) as f64;
    let seconds = simulated.fetches as f64 * trips / config.fetch_parallel as f64
        + simulated.json_bytes * byte_seconds / at_once;
    Plan {
        first: span.first,
        last: span.last,
        blocks: span.blocks(),
        logs: simulated.logs.round() as u64,
        calls: simulated.calls(config.trust),
        json_bytes: simulated.json_bytes.round() as u64,
        round_trip,
        duration: Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
        sampled_blocks: samples.iter().map(|sample| sample.blocks).sum(),
    }
}

/// Messages of one fetch that wait for each other.
fn trips(trust: Trust) -> f64 {
    match trust {
        Trust::Bloom => 1.0,
        Trust::Link | Trust::Receipts => 2.0,
    }
}

/// The fetches of an ingest, counted without making them.
#[derive(Default)]
struct Simulated {
    fetches: u64,
    headers: u64,
    ranges: u64,
    by_hash: f64,
    logs: f64,
    json_bytes: f64,
}

impl Simulated {
    fn fetches(span: &Span, node_head: u64, config: &Config, samples: &[Sample]) -> Simulated {
        let density = |of: fn(&Sample) -> u64| {
            let each = |sample: &Sample| of(sample) as f64 / sample.blocks as f64;
            let middle = |sample: &Sample| sample.height + sample.blocks / 2;
            Density::new(samples.iter().map(|sample| (middle(sample), each(sample))).collect())
        };
        let logs = density(|sample| sample.logs);
        let bytes = density(|sample| sample.json_bytes);
        let with_logs = density(|sample| sample.blocks_with_logs);
        let sum = |density: &Density, heights: &Range<u64>| {
            density.sum(heights.start, heights.end).expect("a gap that is not empty was sampled")
        };
        let unsettled = first_unsettled(node_head, config.reorg_depth_max);
        let blocks_max = config.batch_blocks_max;
        let mut simulated = Simulated::default();
        let mut size = FIRST_FETCH_BLOCKS.min(blocks_max);
        // A fetch has the size that those had taught that had arrived when it was started.
        let mut under_way = VecDeque::new();
        let mut next = span.first;
        while next <= span.last {
            let fetch = next_fetch(next..span.last + 1, unsettled, size as u64);
            next = fetch.end;
            let blocks = fetch.end - fetch.start;
            let fetch_bytes = sum(&bytes, &fetch);
            simulated.fetches += 1;
            simulated.headers += blocks;
            simulated.logs += sum(&logs, &fetch);
            simulated.json_bytes += fetch_bytes;
            match config.trust {
                Trust::Bloom if fetch.end <= unsettled => simulated.ranges += 1,
                Trust::Bloom | Trust::Receipts => simulated.by_hash += sum(&with_logs, &fetch),
                Trust::Link => simulated.by_hash += blocks as f64,
            }
            under_way.push_back(fetch_bytes as u64 / blocks);
            if config.fetch_parallel <= under_way.len() {
                let block_bytes = under_way.pop_front().expect("some are under way");
                size = next_size(size, block_bytes, blocks_max);
            }
        }
        simulated
    }

    fn calls(&self, trust: Trust) -> BTreeMap<&'static str, u64> {
        let by_hash = self.by_hash.round() as u64;
        let calls = match trust {
            Trust::Receipts => {
                [("eth_getBlockByNumber", self.headers), ("eth_getBlockReceipts", by_hash)]
            }
            Trust::Link | Trust::Bloom => {
                [("eth_getBlockByNumber", self.headers), ("eth_getLogs", self.ranges + by_hash)]
            }
        };
        BTreeMap::from(calls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(first: u64, last: u64, samples: u64, blocks: u64) -> Vec<u64> {
        let span = Span { first, last };
        heights(&span, samples, blocks).into_iter().map(|heights| heights.start).collect()
    }

    #[test]
    fn samples_are_spread_over_the_gap_and_stay_in_it() {
        assert_eq!(starts(0, 99, 4, 1), [12, 37, 62, 87]);
        assert_eq!(starts(1000, 1099, 2, 4), [1025, 1075]);
        assert_eq!(starts(5, 5, 8, 4), [5]);
        assert_eq!(starts(5, 7, 8, 4), [5]);
        assert_eq!(starts(5, 14, 8, 4), [7, 11]);
        assert!(starts(5, 4, 8, 4).is_empty());
    }

    #[test]
    fn the_cost_follows_from_the_samples() {
        let config = Config { fetch_parallel: 4, batch_blocks_max: 100, ..Config::default() };
        let sample = |height| Sample {
            height,
            blocks: 4,
            blocks_with_logs: 2,
            logs: 40,
            json_bytes: 400_000,
        };
        let span = Span { first: 0, last: 9_999 };
        let samples: Vec<Sample> = (0..4).map(|n| sample(n * 2_500)).collect();
        let (round_trip, took) = (Duration::from_millis(10), Duration::from_millis(50));
        let plan = estimate(&span, 9_999, &config, &samples, round_trip, took);
        assert_eq!((plan.blocks, plan.logs, plan.json_bytes), (10_000, 100_000, 1_000_000_000));
        assert_eq!(plan.calls["eth_getBlockByNumber"], 10_000);
        // 100 kB each, so 20 blocks to a fetch, and 64 blocks of which half are asked for.
        let ranges = plan.calls["eth_getLogs"] - 32;
        assert!((497..=510).contains(&ranges), "{ranges}");
        // Four at a time took 50 ms, 10 of them the round trip: 1.6 MB in 40 ms.
        let seconds = plan.duration.as_secs_f64();
        assert!((25.0..28.0).contains(&seconds), "{seconds}");
    }
}
