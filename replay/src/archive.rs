//! The archive endpoint: answers about blocks of the past, from whoever still has their state.
//!
//! Blocks are named by their hash, so that no answer can be of another block than the journal's.

use std::time::Duration;

use shepherd_host::{ReadAnswer, ReadRequest};
use shepherd_log::BlockRef;
use shepherd_rpc::{ChainAnswer, ChainRequest, Pool, PoolError, ReadFailed};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep, sleep_until},
};

/// How long a read may wait for endpoints that rest, fail or limit us.
///
/// A backtest that stops goes on where it was, so nothing is lost by stopping; a provider that
/// wants a minute's peace is still waited for.
const WAIT_MAX: Duration = Duration::from_secs(90);

/// How often a read that waits looks whether it is still wanted.
const INTERRUPTED_EVERY: Duration = Duration::from_millis(100);

/// An archive endpoint, or several that stand in for each other.
#[derive(Clone)]
pub(crate) struct Archive {
    pool: Pool,
    runtime: Handle,
}

impl Archive {
    /// Reads are carried out by `runtime`, from threads that are not its own.
    pub(crate) fn new(pool: Pool, runtime: Handle) -> Archive {
        Archive { pool, runtime }
    }

    /// One answer for each request, in order, `None` when it was interrupted. Endpoints that will
    /// answer in a while are waited for; one that refuses, or does not know the block, ends the
    /// read.
    pub(crate) fn read(
        &self,
        block: BlockRef,
        requests: &[&ReadRequest],
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<ReadAnswer>>, ReadFailed> {
        let requests: Vec<ChainRequest> =
            requests.iter().map(|request| of_chain(request)).collect();
        let reading = async {
            let give_up_at = Instant::now() + WAIT_MAX;
            loop {
                let failed = match self.pool.read(block.hash, &requests).await {
                    Ok(answers) => return Ok(Some(answers.into_iter().map(answered).collect())),
                    Err(failed) => failed,
                };
                let ReadFailed::Pool(PoolError::NoAnswer { retry_in, .. }) = &failed else {
                    return Err(failed);
                };
                // Never at once: an endpoint may say that it is worth another attempt already.
                let again_at = Instant::now() + (*retry_in).max(Duration::from_millis(50));
                if give_up_at < again_at {
                    return Err(failed);
                }
                sleep_until(again_at).await;
            }
        };
        let stopping = async {
            while !interrupted() {
                sleep(INTERRUPTED_EVERY).await;
            }
        };
        self.runtime.block_on(async {
            tokio::select! {
                // An answer that is there counts.
                biased;
                answered = reading => answered,
                () = stopping => Ok(None),
            }
        })
    }
}

/// Whether a request is one for the chain.
pub(crate) fn is_of_chain(request: &ReadRequest) -> bool {
    match request {
        ReadRequest::Call { .. }
        | ReadRequest::Balance(_)
        | ReadRequest::Code(_)
        | ReadRequest::Storage { .. } => true,
        ReadRequest::Order(_) | ReadRequest::AppData(_) | ReadRequest::Get(_) => false,
    }
}

fn of_chain(request: &ReadRequest) -> ChainRequest {
    match request {
        ReadRequest::Call { to, data } => ChainRequest::Call { to: *to, data: data.clone() },
        ReadRequest::Balance(address) => ChainRequest::Balance(*address),
        ReadRequest::Code(address) => ChainRequest::Code(*address),
        ReadRequest::Storage { address, slot } => {
            ChainRequest::Storage { address: *address, slot: *slot }
        }
        ReadRequest::Order(_) | ReadRequest::AppData(_) | ReadRequest::Get(_) => {
            unreachable!("only requests for the chain come here")
        }
    }
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
