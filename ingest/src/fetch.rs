//! Fetches headers and logs, and hands out only what holds up.
//!
//! Logs are asked for by block hash here, so that an answer can only be about that block: a node
//! that lacks part of a range answers as if that part were empty. Blocks of long ago are fetched by
//! ranges all the same, in `fetch_ranges`, which comes back to this for whatever a range lacks.

use std::{fmt, ops::Range};

use alloy_primitives::B256;
use serde_json::{Value, json};
use shepherd_log::{Block, BlockRef};
use shepherd_rpc::{Answer, Call, EndpointId, Pool, PoolError, RpcError};
use tokio::task::JoinError;

use crate::{
    Checks, Disagreement, Mismatch, Trust,
    verify::{self, BloomHashes, VerifiedHeader},
    wire,
};

/// Why something was not fetched. Asking again may help.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No endpoint answers.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// An endpoint's answer is of no use.
    #[error("{endpoint} answered about {asked}: {source}")]
    Answer {
        /// The endpoint, redacted.
        endpoint: String,
        /// The same, for its pool.
        from: EndpointId,
        /// What was asked for.
        asked: Asked,
        /// What is wrong with the answer.
        source: Box<BadAnswer>,
    },
    /// Endpoints answer, and not the same.
    #[error(transparent)]
    Disagreement(Box<Disagreement>),
}

impl From<Disagreement> for FetchError {
    fn from(disagreement: Disagreement) -> FetchError {
        FetchError::Disagreement(Box::new(disagreement))
    }
}

/// What is wrong with an answer.
#[derive(Debug, thiserror::Error)]
pub enum BadAnswer {
    /// It does not hold up.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The endpoint does not have it.
    #[error("not there")]
    Absent,
    /// The endpoint refuses.
    #[error(transparent)]
    Refused(#[from] RpcError),
    /// It is not of the type it should be.
    #[error("malformed: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The newest block.
    Latest,
    /// The newest block that is final.
    Finalized,
    /// The canonical block at a height.
    Number(u64),
    /// One block, on whatever branch.
    Block(BlockRef),
    /// All logs of one block.
    Logs(BlockRef),
    /// All receipts of one block.
    Receipts(BlockRef),
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asked::Latest => f.write_str("the latest block"),
            Asked::Finalized => f.write_str("the finalized block"),
            Asked::Number(number) => write!(f, "block {number}"),
            Asked::Block(block) => write!(f, "block {block}"),
            Asked::Logs(block) => write!(f, "the logs of block {block}"),
            Asked::Receipts(block) => write!(f, "the receipts of block {block}"),
        }
    }
}

/// What was fetched, and who gave it.
#[derive(Debug)]
pub(crate) struct Fetched<T> {
    pub(crate) value: T,
    pub(crate) from: EndpointId,
    /// Size of the answers it was read from.
    pub(crate) json_bytes: usize,
}

/// Asks a pool, and checks the answers to a trust level.
#[derive(Clone)]
pub(crate) struct Fetcher {
    pub(crate) pool: Pool,
    pub(crate) checks: Checks,
}

impl Fetcher {
    /// The newest block of the endpoint that answers.
    pub(crate) async fn latest(&self) -> Result<Fetched<VerifiedHeader>, FetchError> {
        let call = header_call("eth_getBlockByNumber", json!("latest"));
        self.header(call, Asked::Latest).await
    }

    /// One block, on whatever branch it is.
    pub(crate) async fn block(
        &self,
        block: BlockRef,
    ) -> Result<Fetched<VerifiedHeader>, FetchError> {
        let asked = Asked::Block(block);
        let call = header_call("eth_getBlockByHash", json!(block.hash));
        let fetched = self.header(call, asked).await?;
        verify::is_block(&fetched.value.header, block)
            .map_err(|mismatch| self.bad(fetched.from, asked, Box::new(mismatch.into())))?;
        Ok(fetched)
    }

    /// The canonical blocks at these heights with all their logs, each asked for by its hash. They
    /// need not link: the chain may change while they are fetched.
    pub(crate) async fn range(
        &self,
        heights: Range<u64>,
    ) -> Result<Fetched<Vec<Block>>, FetchError> {
        let headers = self.headers(heights).await?;
        let mut blocks = self.logs(headers.value).await?;
        blocks.json_bytes += headers.json_bytes;
        Ok(blocks)
    }

    /// The header of the canonical block at a height.
    pub(crate) async fn at(&self, number: u64) -> Result<VerifiedHeader, FetchError> {
        let headers = self.headers(number..number + 1).await?;
        Ok(headers.value.into_iter().next().expect("there is a header for each height"))
    }

    /// The headers of the canonical blocks at these heights. They need not link.
    pub(crate) async fn headers(
        &self,
        heights: Range<u64>,
    ) -> Result<Fetched<Vec<VerifiedHeader>>, FetchError> {
        let calls: Vec<Call> = heights
            .clone()
            .map(|number| header_call("eth_getBlockByNumber", json!(format!("{number:#x}"))))
            .collect();
        let batch = self.pool.batch(&calls).await?;
        let (from, trust) = (batch.from, self.checks.trust);
        let json_bytes = json_bytes(&batch.answers);
        let value = blocking(move || {
            heights
                .zip(batch.answers)
                .map(|(number, answer)| {
                    let asked = Asked::Number(number);
                    read_header(answer, trust)
                        .and_then(|header| {
                            verify::has_number(&header.header, number)?;
                            Ok(header)
                        })
                        .map_err(|source| (asked, Box::new(source)))
                })
                .collect::<Result<Vec<_>, _>>()
        })
        .await
        .map_err(|(asked, source)| self.bad(from, asked, source))?;
        Ok(Fetched { value, from, json_bytes })
    }

    /// The blocks of these headers: their logs are fetched and joined to them.
    pub(crate) async fn logs(
        &self,
        headers: Vec<VerifiedHeader>,
    ) -> Result<Fetched<Vec<Block>>, FetchError> {
        let checks = self.checks;
        let trust = checks.trust;
        if trust == Trust::Receipts {
            return self.receipts(headers).await;
        }
        let calls: Vec<Call> = headers
            .iter()
            .filter(|header| !header.has_no_logs(trust))
            .map(|header| logs_call(header.header.this.hash))
            .collect();
        let batch = self.pool.batch(&calls).await?;
        let from = batch.from;
        let json_bytes = json_bytes(&batch.answers);
        let value = blocking(move || {
            let mut answers = batch.answers.into_iter();
            let mut hashes = BloomHashes::default();
            headers
                .into_iter()
                .map(|header| {
                    let asked = Asked::Logs(header.header.this);
                    let answer = match header.has_no_logs(trust) {
                        true => None,
                        false => answers.next(),
                    };
                    read_block(header, answer, checks, &mut hashes)
                        .map_err(|source| (asked, Box::new(source)))
                })
                .collect::<Result<Vec<_>, _>>()
        })
        .await
        .map_err(|(asked, source)| self.bad(from, asked, source))?;
        Ok(Fetched { value, from, json_bytes })
    }

    /// The error that an answer of this endpoint is, safe to show: what does not fit its type is
    /// quoted by the decoder, however long it is and whatever is in it.
    pub(crate) fn bad(
        &self,
        from: EndpointId,
        asked: Asked,
        mut source: Box<BadAnswer>,
    ) -> FetchError {
        if let BadAnswer::Malformed(error) = &mut *source {
            *error = serde::de::Error::custom(self.pool.scrub(from, &error.to_string()));
        }
        let endpoint = self.pool.name_of(from).to_owned();
        FetchError::Answer { endpoint, from, asked, source }
    }

    async fn header(
        &self,
        call: Call,
        asked: Asked,
    ) -> Result<Fetched<VerifiedHeader>, FetchError> {
        let mut batch = self.pool.batch(&[call]).await?;
        let from = batch.from;
        let json_bytes = json_bytes(&batch.answers);
        let answer = batch.answers.pop().expect("a batch has an answer for each call");
        let value = read_header(answer, self.checks.trust)
            .map_err(|source| self.bad(from, asked, Box::new(source)))?;
        Ok(Fetched { value, from, json_bytes })
    }
}

pub(crate) fn header_call(method: &'static str, block: Value) -> Call {
    Call { method, params: json!([block, false]) }
}

fn logs_call(block: B256) -> Call {
    Call { method: "eth_getLogs", params: json!([{ "blockHash": block }]) }
}

pub(crate) fn read_header(
    answer: Result<Answer, RpcError>,
    trust: Trust,
) -> Result<VerifiedHeader, BadAnswer> {
    let wire = wire::header(&answer?)?.ok_or(BadAnswer::Absent)?;
    Ok(verify::header(wire, trust)?)
}

/// Joins a header and the answer about its logs, of which there is none when it has no logs.
fn read_block(
    header: VerifiedHeader,
    answer: Option<Result<Answer, RpcError>>,
    checks: Checks,
    hashes: &mut BloomHashes,
) -> Result<Block, BadAnswer> {
    let logs = match answer {
        Some(answer) => wire::logs(&answer?)?,
        None => Vec::new(),
    };
    Ok(verify::block(header, logs, checks, hashes)?)
}

pub(crate) fn json_bytes(answers: &[Result<Answer, RpcError>]) -> usize {
    answers.iter().flatten().map(Answer::len_bytes).sum()
}

/// Runs what takes processor time, or waits for the disk, where it holds up no other task.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    finished(tokio::task::spawn_blocking(work).await).await
}

/// The result of a task. Its panic is ours.
pub(crate) async fn finished<T>(outcome: Result<T, JoinError>) -> T {
    match outcome.map_err(JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is shutting down, and whoever waits here with it.
        Err(Err(_)) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn a_malformed_answer_is_quoted_in_few_words_and_without_the_endpoints_key() {
        const KEY: &str = "s3cr3tk3y";
        let metrics = shepherd_rpc::Metrics::new(&mut Registry::default());
        let endpoints = vec![format!("http://127.0.0.1:1/{KEY}").parse().unwrap()];
        let pool =
            Pool::connect("devnet", 1, endpoints, shepherd_rpc::Options::default(), &metrics);
        let from = pool.endpoints()[0];
        let fetcher = Fetcher { pool, checks: Checks::default() };
        for told in [format!("{KEY}\n"), "x".repeat(1 << 20)] {
            let error = serde_json::from_value::<Vec<u8>>(json!(told)).unwrap_err();
            let shown = fetcher.bad(from, Asked::Latest, Box::new(error.into())).to_string();
            assert!(shown.contains("malformed: invalid type: string"), "{shown}");
            assert!(!shown.contains(KEY) && shown.len() < 500, "{shown:.500}");
        }
    }
}
