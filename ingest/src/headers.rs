//! Headers for blocks whose logs come from elsewhere than an endpoint, such as a file.

use std::ops::Range;

use shepherd_log::Header;
use shepherd_rpc::Pool;

use crate::{Checks, FetchError, LogIndexes, Mismatch, Trust, fetch::Fetcher, verify};

/// The headers of the canonical blocks at these heights, lowest first.
///
/// Each is checked as if its block were to be journaled. They need not link: the chain may change
/// while they are fetched. Failures of single endpoints are seen to by the pool, none is retried
/// here.
pub async fn fetch_headers(
    pool: &Pool,
    heights: Range<u64>,
    trust: Trust,
) -> Result<Vec<Header>, FetchError> {
    let checks = Checks { trust, log_indexes: LogIndexes::default() };
    let fetcher = Fetcher { pool: pool.clone(), checks };
    let headers = fetcher.headers(heights).await?.value;
    Ok(headers.into_iter().map(|verified| verified.header).collect())
}

/// Checks that a block is not older than its parent.
pub fn verify_time(header: &Header, parent_timestamp: u64) -> Result<(), Mismatch> {
    verify::is_later(header, parent_timestamp)
}
