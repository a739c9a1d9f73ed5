//! Whether a chain can be followed as configured, for `shepherd check`.

use shepherd_log::BlockRef;
use shepherd_rpc::{EndpointCheck, Pool};

use crate::{Config, FetchError, fetch::Fetcher};

/// What was found out about a chain.
#[derive(Debug)]
pub struct ChainCheck {
    /// Each endpoint: the chain it serves, or what is wrong with it.
    pub endpoints: Vec<EndpointCheck>,
    /// The newest block, fetched and verified like any other, or why it could not be. A chain
    /// whose headers do not have Ethereum's hash shows here, before it stalls in operation.
    pub sample: Result<BlockRef, FetchError>,
}

/// Asks every endpoint who it is, then tries to ingest the newest block without keeping it.
pub async fn check_chain(pool: &Pool, config: &Config) -> ChainCheck {
    let endpoints = pool.check().await;
    let fetcher = Fetcher { pool: pool.clone(), checks: config.checks() };
    ChainCheck { endpoints, sample: sample(&fetcher).await }
}

async fn sample(fetcher: &Fetcher) -> Result<BlockRef, FetchError> {
    let latest = fetcher.latest().await?.value;
    let this = latest.header.this;
    fetcher.logs(vec![latest]).await?;
    Ok(this)
}
