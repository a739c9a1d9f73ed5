//! Asks one endpoint by name, where it matters who says so.

use std::time::Duration;

use serde_json::{Value, json};
use shepherd_log::BlockRef;
use shepherd_rpc::{EndpointId, PoolError};

use crate::{
    FetchError,
    fetch::{Asked, BadAnswer, Fetched, Fetcher, header_call, json_bytes, read_header},
    verify::{self, VerifiedHeader},
};

impl Fetcher {
    /// The newest block of this endpoint.
    pub(crate) async fn latest_of(
        &self,
        endpoint: EndpointId,
    ) -> Result<Fetched<VerifiedHeader>, FetchError> {
        self.header_of(endpoint, "eth_getBlockByNumber", json!("latest"), Asked::Latest).await
    }

    /// The newest block that is final, as this endpoint has it.
    pub(crate) async fn finalized_of(
        &self,
        endpoint: EndpointId,
    ) -> Result<Fetched<VerifiedHeader>, FetchError> {
        self.header_of(endpoint, "eth_getBlockByNumber", json!("finalized"), Asked::Finalized).await
    }

    /// The block at a height on this endpoint's chain.
    pub(crate) async fn number_of(
        &self,
        endpoint: EndpointId,
        number: u64,
    ) -> Result<Fetched<VerifiedHeader>, FetchError> {
        let asked = Asked::Number(number);
        let height = json!(format!("{number:#x}"));
        let fetched = self.header_of(endpoint, "eth_getBlockByNumber", height, asked).await?;
        verify::has_number(&fetched.value.header, number)
            .map_err(|mismatch| self.bad(endpoint, asked, Box::new(mismatch.into())))?;
        Ok(fetched)
    }

    /// One block that this endpoint has told of, on whatever branch.
    pub(crate) async fn block_of(
        &self,
        endpoint: EndpointId,
        block: BlockRef,
    ) -> Result<Fetched<VerifiedHeader>, FetchError> {
        let asked = Asked::Block(block);
        let hash = json!(block.hash);
        let fetched = self.header_of(endpoint, "eth_getBlockByHash", hash, asked).await?;
        verify::is_block(&fetched.value.header, block)
            .map_err(|mismatch| self.bad(endpoint, asked, Box::new(mismatch.into())))?;
        Ok(fetched)
    }

    async fn header_of(
        &self,
        endpoint: EndpointId,
        method: &'static str,
        block: Value,
        asked: Asked,
    ) -> Result<Fetched<VerifiedHeader>, FetchError> {
        let answers = self.pool.ask(endpoint, &[header_call(method, block)]).await;
        let mut answers = answers.map_err(|failure| {
            let failures = vec![(self.pool.name_of(endpoint).to_owned(), failure)];
            PoolError::NoAnswer { failures, retry_in: Duration::ZERO }
        })?;
        let json_bytes = json_bytes(&answers);
        let answer = answers.pop().expect("there is an answer for each call");
        let value = read_header(answer, self.checks.trust)
            .map_err(|source: BadAnswer| self.bad(endpoint, asked, Box::new(source)))?;
        Ok(Fetched { value, from: endpoint, json_bytes })
    }
}
