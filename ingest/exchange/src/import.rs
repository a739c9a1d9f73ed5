//! From Parquet files into a journal, verified like what an endpoint says.
//!
//! ```text
//! files with logs ───────────────────────────────┐
//! files with blocks ──▶ header_rlp there? ── yes ─┼─▶ verify ──▶ append
//!                        └─ no ─▶ endpoint ───────┘
//! ```
//!
//! cryo writes neither `header_rlp` nor all the fields that a block's hash is made of. Then the
//! headers are asked from an endpoint, a small part of what it would cost to ask for the logs too,
//! and the files must be about exactly those blocks.

use std::{ops::Range, path::PathBuf, time::Duration};

use alloy_primitives::B256;
use shepherd_ingest::{Checks, FetchError, Trust, fetch_headers};
use shepherd_log::{BlockRef, Header, Journal, Offset};
use shepherd_rpc::Pool;
use tokio::{sync::watch, task::JoinError};
use tokio_util::sync::CancellationToken;

use crate::{
    FilesError, Progress, StretchError,
    claims::{Claim, Claims},
    files::Files,
    intake::{Intake, IntakeError, Origin},
    logs_digest::LogsDigest,
    progress::Meter,
    rows::RowsError,
};

/// How often headers are asked for before an import gives up, and the first wait between two
/// times, which doubles. A pool has asked all its endpoints by then, so this is for an outage of a
/// few seconds; after a longer one the import is run again.
const FETCH_ATTEMPTS: u32 = 6;
const FETCH_PAUSE: Duration = Duration::from_millis(250);

/// What is to be imported from Parquet files.
#[derive(Clone)]
pub struct ParquetImport {
    /// Files, and folders that are searched at any depth.
    pub paths: Vec<PathBuf>,
    /// What each block is held to.
    pub checks: Checks,
    /// Where headers come from that the files do not have.
    pub headers: Option<Pool>,
}

/// What was imported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Blocks journaled by this run, abandoned ones too.
    pub blocks: u64,
    /// Logs journaled by this run.
    pub logs: u64,
    /// Reorgs journaled by this run.
    pub reverts: u64,
    /// The journal's head after it.
    pub head: Option<BlockRef>,
    /// Whether it was stopped before it was complete. The next run goes on.
    pub stopped: bool,
}

/// Why an import failed. What was verified before is journaled; the next run goes on after it.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The files are no data set.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A file cannot be read, or its rows contradict each other.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// The trust level asks for what files cannot have.
    #[error(
        "files have no receipts, so trust level `receipts` cannot be met: import with `bloom`, or \
         ingest the blocks from an endpoint"
    )]
    Receipts,
    /// The headers are nowhere.
    #[error(
        "{} does not have the header of block {number}: name an endpoint to ask for headers, the \
         logs then come from the files; or import what shepherd exported, which has a column \
         `header_rlp`; or import with trust `link` from files with the columns `block_hash`, \
         `parent_hash` and `timestamp` (cryo: --include-columns parent_hash)", .path.display()
    )]
    NoHeader {
        /// The file that could have it.
        path: PathBuf,
        /// The block.
        number: u64,
    },
    /// The endpoint's block is not the file's.
    #[error(
        "at height {number} {path} has block {in_file}, the endpoints have {at_endpoint}: one of them is of an abandoned branch, or of another chain"
    )]
    OtherBlock {
        /// The height.
        number: u64,
        /// The file.
        path: PathBuf,
        /// Its block.
        in_file: B256,
        /// Theirs.
        at_endpoint: B256,
    },
    /// A file of ours was damaged or changed.
    #[error("the logs of block {block} in {path} are not those that were exported")]
    LogsDigest {
        /// The block.
        block: BlockRef,
        /// The file.
        path: PathBuf,
    },
    /// The files begin too late.
    #[error("the journal goes on at block {next}, and the files begin at block {first}: blocks {next} to {} are missing", .first - 1)]
    Gap {
        /// The first block that the journal lacks.
        next: u64,
        /// The first block that the files have.
        first: u64,
    },
    /// The other journal is of another chain.
    #[error("the other journal is of chain {theirs}, this one of chain {ours}")]
    OtherChain {
        /// This journal's chain id.
        ours: u64,
        /// The other one's.
        theirs: u64,
    },
    /// The other journal is empty, or has nothing that could be taken.
    #[error("the other journal has no blocks")]
    Empty,
    /// The other journal's chain does not have this one's head.
    #[error("this journal's head {head} is not part of the other journal's chain")]
    Diverges {
        /// This journal's head.
        head: BlockRef,
    },
    /// The other journal's records do not begin with this one's.
    #[error(
        "this journal is not the beginning of the other one: they differ at record {offset} of the other one. Import only the blocks of its chain, or into an empty journal"
    )]
    NotItsBeginning {
        /// The first record that differs.
        offset: Offset,
    },
    /// The other journal is damaged.
    #[error("the other journal")]
    Other(#[from] StretchError),
    /// A block does not hold up, or cannot be journaled.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// No endpoint gives a header.
    #[error("cannot fetch headers")]
    Fetch(#[from] FetchError),
}

/// Appends the blocks of Parquet files to a journal, in cryo's layout and names.
///
/// Goes on after the journal's head; an empty journal begins with the files' first block. Every
/// block is verified before it is journaled, by the functions that verify an endpoint's. Needs a
/// tokio runtime; reading and appending run on its blocking threads.
pub async fn import_parquet(
    journal: &Journal,
    import: &ParquetImport,
    progress: &watch::Sender<Progress>,
    stop: &CancellationToken,
) -> Result<Imported, ImportError> {
    if import.checks.trust == Trust::Receipts {
        return Err(ImportError::Receipts);
    }
    let paths = import.paths.clone();
    let files = blocking(move || Files::find(&paths)).await?;
    let mut intake = {
        let (journal, checks) = (journal.clone(), import.checks);
        blocking(move || Intake::open(&journal, checks)).await?
    };
    let first = files.heights.start;
    let next = intake.head().map_or(first, |head| head.number + 1);
    if next < first {
        return Err(ImportError::Gap { next, first });
    }
    let mut meter = Meter::start(progress, files.heights.clone());
    meter.skip_to(next);
    let mut source = Source {
        claims: Some(Claims::read(files, next, journal.chain_id())),
        trust: import.checks.trust,
        endpoints: import.headers.clone(),
    };
    let mut stopped = false;
    // While some blocks are verified and appended, the next are read and their headers fetched.
    let mut ready = Vec::new();
    loop {
        let taking = tokio::task::spawn_blocking(move || take(intake, meter, ready));
        let read = source.next_batch(stop).await;
        let taken;
        (intake, meter, taken) = finished(taking.await).await;
        taken?;
        ready = match read {
            Ok(Some(batch)) => batch,
            Ok(None) => {
                stopped = true;
                Vec::new()
            }
            Err(error) => {
                blocking(move || intake.flush()).await?;
                return Err(error);
            }
        };
        if ready.is_empty() {
            break;
        }
    }
    let head = intake.head();
    blocking(move || intake.flush()).await?;
    let &Progress { blocks, logs, .. } = meter.progress();
    Ok(Imported { blocks, logs, reverts: 0, head, stopped })
}

/// Verifies and appends; what comes before something wrong is journaled.
fn take(
    mut intake: Intake,
    mut meter: Meter,
    ready: Vec<Ready>,
) -> (Intake, Meter, Result<(), ImportError>) {
    for ready in ready {
        let (number, logs) = (ready.claim.number, ready.claim.logs.len() as u64);
        if let Err(error) = take_one(&mut intake, ready) {
            let flushed = intake.flush();
            return (intake, meter, flushed.map_err(ImportError::from).and(Err(error)));
        }
        meter.block(number, logs);
    }
    (intake, meter, Ok(()))
}

fn take_one(intake: &mut Intake, Ready { claim, header }: Ready) -> Result<(), ImportError> {
    let this = header.this;
    if let Some(in_file) = claim.row.as_ref().and_then(|row| row.hash)
        && in_file != this.hash
    {
        let (path, at_endpoint) = (claim.header_path, this.hash);
        return Err(ImportError::OtherBlock { number: this.number, path, in_file, at_endpoint });
    }
    let path = claim.logs_path.clone();
    let expected = claim.row.as_ref().and_then(|row| row.logs_digest);
    let origin = Origin::File(path.clone());
    let block = match claim.join(header) {
        Ok(block) => block,
        Err(source) => {
            let source = Box::new(source);
            return Err(IntakeError::Block { block: this, origin, source }.into());
        }
    };
    intake.verify(&block, &origin)?;
    if expected.is_some_and(|expected| expected != LogsDigest::of_logs(&block.logs)) {
        return Err(ImportError::LogsDigest { block: this, path });
    }
    intake.take(block)?;
    Ok(())
}

/// A claim with its header, neither verified yet.
struct Ready {
    claim: Claim,
    header: Header,
}

/// Reads claims and finds their headers.
struct Source {
    /// `None` only while they are read.
    claims: Option<Claims>,
    trust: Trust,
    endpoints: Option<Pool>,
}

impl Source {
    /// Some claims and their headers, none at the end; `None` when it was stopped.
    async fn next_batch(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<Option<Vec<Ready>>, ImportError> {
        if stop.is_cancelled() {
            return Ok(None);
        }
        let mut claims = self.claims.take().expect("put back below");
        let read = move || {
            let batch = claims.next_batch();
            (claims, batch)
        };
        let (claims, batch) = blocking(read).await;
        self.claims = Some(claims);
        let batch = batch?;
        match stop.run_until_cancelled(self.headers(&batch)).await {
            None => Ok(None),
            Some(headers) => {
                let pairs = batch.into_iter().zip(headers?);
                Ok(Some(pairs.map(|(claim, header)| Ready { claim, header }).collect()))
            }
        }
    }

    /// The header of each claim: the file's where that is enough, else the endpoint's.
    async fn headers(&self, claims: &[Claim]) -> Result<Vec<Header>, ImportError> {
        // With an endpoint, what a file has without the header's bytes is not taken: the journal
        // then has headers that can be verified later.
        let trust = match self.endpoints {
            Some(_) => Trust::Bloom,
            None => self.trust,
        };
        let mut headers: Vec<Option<Header>> =
            claims.iter().map(|claim| claim.header(trust)).collect();
        let lacks = |header: &Option<Header>| header.is_none();
        let Some(first) = headers.iter().position(lacks) else {
            return Ok(headers.into_iter().flatten().collect());
        };
        let Some(pool) = &self.endpoints else {
            let Claim { header_path, number, .. } = &claims[first];
            return Err(ImportError::NoHeader { path: header_path.clone(), number: *number });
        };
        let end = headers.iter().rposition(lacks).expect("one was found from the front") + 1;
        let heights = claims[first].number..claims[first].number + (end - first) as u64;
        let fetched = fetch(pool, heights, self.trust).await?;
        for (header, fetched) in headers[first..end].iter_mut().zip(fetched) {
            header.get_or_insert(fetched);
        }
        Ok(headers.into_iter().flatten().collect())
    }
}

async fn fetch(pool: &Pool, heights: Range<u64>, trust: Trust) -> Result<Vec<Header>, FetchError> {
    let mut pause = FETCH_PAUSE;
    for _ in 1..FETCH_ATTEMPTS {
        match fetch_headers(pool, heights.clone(), trust).await {
            Ok(headers) => return Ok(headers),
            Err(error) => {
                tracing::warn!(%error, "headers did not come, asking again");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
    }
    fetch_headers(pool, heights, trust).await
}

/// Runs what takes processor time, or waits for the disk, where it holds up no other task.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    finished(tokio::task::spawn_blocking(work).await).await
}

/// The result of a task. Its panic is ours.
async fn finished<T>(outcome: Result<T, JoinError>) -> T {
    match outcome.map_err(JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is shutting down, and whoever waits here with it.
        Err(Err(_)) => std::future::pending().await,
    }
}
