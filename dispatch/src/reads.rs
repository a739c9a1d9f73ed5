//! Live answers: a module's reads, asked of the chain's endpoints.

use std::time::Duration;

use shepherd_host::{ReadAnswer, ReadRequest, Reads, World};
use shepherd_log::BlockRef;
use shepherd_rpc::{ChainAnswer, ChainRequest, Pool};
use tokio::{runtime::Handle, time::timeout};
use tokio_util::sync::CancellationToken;

/// How long one batch of reads may take before the step is given up and tried again later.
///
/// The pool has limits of its own for each endpoint; this is what a lane waits for all of them.
const READ_TIME_MAX: Duration = Duration::from_secs(60);

/// Why a live read gave no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("no endpoint answered within {} seconds", READ_TIME_MAX.as_secs())]
    TimedOut,
    #[error("the process is stopping")]
    Stopping,
}

/// Asks a pool from a blocking thread.
pub struct LiveReads {
    pool: Pool,
    runtime: Handle,
    shutdown: CancellationToken,
}

impl LiveReads {
    /// Reads answered by `pool`. `shutdown` ends a read that is waiting.
    pub fn new(pool: Pool, runtime: Handle, shutdown: CancellationToken) -> LiveReads {
        LiveReads { pool, runtime, shutdown }
    }
}

impl Reads for LiveReads {
    fn read(
        &mut self,
        block: BlockRef,
        requests: &[ReadRequest],
    ) -> Result<Vec<ReadAnswer>, World> {
        let requests: Vec<ChainRequest> = requests.iter().map(to_chain).collect();
        self.runtime.block_on(async {
            tokio::select! {
                () = self.shutdown.cancelled() => Err(World::chain(Unanswered::Stopping)),
                answered = timeout(READ_TIME_MAX, self.pool.read(block.hash, &requests)) => {
                    match answered {
                        Ok(Ok(answers)) => Ok(answers.into_iter().map(from_chain).collect()),
                        Ok(Err(failed)) => Err(World::chain(failed)),
                        Err(_) => Err(World::chain(Unanswered::TimedOut)),
                    }
                }
            }
        })
    }
}

fn to_chain(request: &ReadRequest) -> ChainRequest {
    match request {
        ReadRequest::Call { to, data } => ChainRequest::Call { to: *to, data: data.clone() },
        ReadRequest::Balance(address) => ChainRequest::Balance(*address),
        ReadRequest::Code(address) => ChainRequest::Code(*address),
        ReadRequest::Storage { address, slot } => {
            ChainRequest::Storage { address: *address, slot: *slot }
        }
    }
}

fn from_chain(answer: ChainAnswer) -> ReadAnswer {
    match answer {
        ChainAnswer::Returned(bytes) => ReadAnswer::Returned(bytes),
        ChainAnswer::Reverted(bytes) => ReadAnswer::Reverted(bytes),
        ChainAnswer::Balance(wei) => ReadAnswer::Balance(wei),
        ChainAnswer::Code(bytes) => ReadAnswer::Code(bytes),
        ChainAnswer::Storage(word) => ReadAnswer::Storage(word),
    }
}
