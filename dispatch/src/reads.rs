//! Live answers: a module's reads, asked of the chain's endpoints, the orderbook and servers.
//!
//! What no one answers is weather: the step is given up and tried again, and the module never
//! learns. What is an answer and what is weather is decided here:
//!
//! | answer | the orderbook | a server |
//! |---|---|---|
//! | 200 | the answer | the answer |
//! | 404 | `None` | the answer |
//! | 429, 5xx, none | weather | weather |
//! | any other | weather: no orderbook says that | the answer |

use std::time::Duration;

use alloy_primitives::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, de::IgnoredAny};
use shepherd_host::{
    ReadAnswer, ReadRequest, Reads, World,
    limits::{HTTP_BODY_BYTES_MAX, ORDERBOOK_ANSWER_BYTES_MAX},
};
use shepherd_log::BlockRef;
use shepherd_rpc::{
    ChainAnswer, ChainRequest, Failure, InvalidEndpoint, Pool, Redacted, Web, WebAnswer, WebRequest,
};
use tokio::{runtime::Handle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::outbox::{Destination, Destinations};

/// How long one batch of reads may take before the step is given up and tried again later.
///
/// The pool has limits of its own for each endpoint; this is what a lane waits for all of them.
const READ_TIME_MAX: Duration = Duration::from_secs(60);

/// Questions to the orderbook that are under way at once.
const ORDERBOOK_PARALLEL: usize = 16;

/// How long a document may take.
const DOCUMENT_TIME_MAX: Duration = Duration::from_secs(10);

/// What is read of the answer that holds an app-data document: in JSON a character can take six
/// bytes.
const APP_DATA_ANSWER_BYTES_MAX: usize = 6 * ORDERBOOK_ANSWER_BYTES_MAX + 1024;

/// Why a live read gave no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("no answer within {} seconds", READ_TIME_MAX.as_secs())]
    TimedOut,
    #[error("the process is stopping")]
    Stopping,
    #[error("the chain has no orderbook in the configuration")]
    NoOrderbook,
    #[error("the orderbook answers with HTTP status {0}")]
    Orderbook(u16),
    #[error("the orderbook's answer is not what it must be: {0}")]
    Malformed(String),
    #[error("{url} answers with HTTP status {status}")]
    Server { url: String, status: u16 },
    #[error("{url} does not answer")]
    NoServer { url: String, source: Box<Failure> },
    #[error(transparent)]
    Url(#[from] InvalidEndpoint),
}

/// Asks the world from a blocking thread.
pub struct LiveReads {
    pool: Pool,
    orderbook: Option<Destination>,
    web: Web,
    runtime: Handle,
    shutdown: CancellationToken,
}

impl LiveReads {
    /// Reads answered by `pool`, by the orderbook among the destinations, and by servers.
    /// `shutdown` ends a read that is waiting.
    pub fn new(
        pool: Pool,
        destinations: &Destinations,
        runtime: Handle,
        shutdown: CancellationToken,
    ) -> LiveReads {
        let Destinations { orderbook, web, .. } = destinations.clone();
        LiveReads { pool, orderbook, web, runtime, shutdown }
    }

    /// Answers in the order of the requests, whatever they are for.
    async fn answers(
        &self,
        block: BlockRef,
        requests: &[ReadRequest],
    ) -> Result<Vec<ReadAnswer>, World> {
        let of_chain: Vec<ChainRequest> = requests.iter().filter_map(to_chain).collect();
        let mut from_chain = Vec::new();
        if !of_chain.is_empty() {
            from_chain = self.pool.read(block.hash, &of_chain).await.map_err(World::chain)?;
        }
        let outside = requests.iter().filter(|request| to_chain(request).is_none());
        let from_outside: Vec<ReadAnswer> = stream::iter(outside)
            .map(|request| self.outside(request))
            .buffered(ORDERBOOK_PARALLEL)
            .try_collect()
            .await?;
        let (mut from_chain, mut from_outside) =
            (from_chain.into_iter().map(answered), from_outside.into_iter());
        Ok(requests
            .iter()
            .filter_map(|request| match to_chain(request) {
                Some(_) => from_chain.next(),
                None => from_outside.next(),
            })
            .collect())
    }

    /// The answer to a question that is not the chain's.
    async fn outside(&self, request: &ReadRequest) -> Result<ReadAnswer, World> {
        match request {
            ReadRequest::Order(uid) => {
                // One byte more than is allowed tells the host that it is too large.
                let asked = self.orderbook()?.order(uid, ORDERBOOK_ANSWER_BYTES_MAX + 1);
                let answer = asked.await.map_err(World::orderbook)?;
                order(&answer).map(ReadAnswer::Order).map_err(World::orderbook)
            }
            ReadRequest::AppData(hash) => {
                let asked = self.orderbook()?.app_data(*hash, APP_DATA_ANSWER_BYTES_MAX);
                let answer = asked.await.map_err(World::orderbook)?;
                app_data(&answer).map(ReadAnswer::AppData).map_err(World::orderbook)
            }
            ReadRequest::Get(url) => {
                let url = Redacted::try_from(url.clone()).map_err(World::http)?;
                self.document(url).await.map_err(World::http)
            }
            ReadRequest::Call { .. }
            | ReadRequest::Balance(_)
            | ReadRequest::Code(_)
            | ReadRequest::Storage { .. } => unreachable!("these are the chain's"),
        }
    }

    fn orderbook(&self) -> Result<&Destination, World> {
        self.orderbook.as_ref().ok_or_else(|| World::orderbook(Unanswered::NoOrderbook))
    }

    async fn document(&self, url: Redacted) -> Result<ReadAnswer, Unanswered> {
        let request = WebRequest {
            url: &url,
            headers: &[],
            body: None,
            time_max: DOCUMENT_TIME_MAX,
            answer_bytes_max: HTTP_BODY_BYTES_MAX + 1,
        };
        match self.web.send(request).await {
            Err(source) => {
                Err(Unanswered::NoServer { url: url.to_string(), source: Box::new(source) })
            }
            Ok(WebAnswer { status, .. }) if status == 429 || status >= 500 => {
                Err(Unanswered::Server { url: url.to_string(), status })
            }
            Ok(WebAnswer { status, body, .. }) => {
                Ok(ReadAnswer::Response { status, body: Bytes::from(body) })
            }
        }
    }
}

impl Reads for LiveReads {
    fn read(
        &mut self,
        block: BlockRef,
        requests: &[ReadRequest],
    ) -> Result<Vec<ReadAnswer>, World> {
        self.runtime.block_on(async {
            tokio::select! {
                () = self.shutdown.cancelled() => Err(World::chain(Unanswered::Stopping)),
                answered = timeout(READ_TIME_MAX, self.answers(block, requests)) => {
                    answered.unwrap_or_else(|_| Err(World::chain(Unanswered::TimedOut)))
                }
            }
        })
    }
}

/// An order, as the orderbook tells it.
fn order(answer: &WebAnswer) -> Result<Option<String>, Unanswered> {
    if answer.status == 404 {
        return Ok(None);
    }
    let body = found(answer)?;
    if !answer.is_cut {
        serde_json::from_slice::<IgnoredAny>(body).map_err(malformed)?;
    }
    Ok(Some(String::from_utf8_lossy(body).into_owned()))
}

/// `{"fullAppData": "…"}`, as the orderbook answers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AppData {
    full_app_data: String,
}

fn app_data(answer: &WebAnswer) -> Result<Option<String>, Unanswered> {
    if answer.status == 404 {
        return Ok(None);
    }
    let AppData { full_app_data } = serde_json::from_slice(found(answer)?).map_err(malformed)?;
    Ok(Some(full_app_data))
}

fn found(answer: &WebAnswer) -> Result<&[u8], Unanswered> {
    match answer.status {
        200 => Ok(&answer.body),
        status => Err(Unanswered::Orderbook(status)),
    }
}

fn malformed(error: serde_json::Error) -> Unanswered {
    Unanswered::Malformed(error.to_string())
}

/// The question for the chain, when it is one.
fn to_chain(request: &ReadRequest) -> Option<ChainRequest> {
    Some(match request {
        ReadRequest::Call { to, data } => ChainRequest::Call { to: *to, data: data.clone() },
        ReadRequest::Balance(address) => ChainRequest::Balance(*address),
        ReadRequest::Code(address) => ChainRequest::Code(*address),
        ReadRequest::Storage { address, slot } => {
            ChainRequest::Storage { address: *address, slot: *slot }
        }
        ReadRequest::Order(_) | ReadRequest::AppData(_) | ReadRequest::Get(_) => return None,
    })
}

fn answered(answer: ChainAnswer) -> ReadAnswer {
    match answer {
        ChainAnswer::Returned(bytes) => ReadAnswer::Returned(bytes),
        ChainAnswer::Reverted(bytes) => ReadAnswer::Reverted(bytes),
        ChainAnswer::Balance(wei) => ReadAnswer::Balance(wei),
        ChainAnswer::Code(bytes) => ReadAnswer::Code(bytes),
        ChainAnswer::Storage(word) => ReadAnswer::Storage(word),
    }
}
