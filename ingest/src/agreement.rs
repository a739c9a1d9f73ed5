//! Who else says so.
//!
//! One endpoint can be wrong about the chain without a flaw in its data: it may follow a fork of
//! its own, or make one up. Two things are therefore asked of others too. With a quorum, no block
//! is journaled that fewer endpoints have. And a reorg that would stop the chain is believed when
//! another endpoint, if there is one, has left our branch as well.

use std::{fmt, time::Duration};

use futures::{Stream, StreamExt, stream::FuturesUnordered};
use shepherd_log::{BlockRef, Record};
use shepherd_rpc::{EndpointId, Failure, PoolError};
use tokio::time::{Instant, timeout_at};

use crate::{
    BadAnswer, FetchError,
    follow::{Follower, Interrupted},
    pending::Pending,
};

/// How endpoints disagree. Waiting may help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// Fewer endpoints answer than must agree.
    #[error("{quorum} endpoints must agree, and {answered} answer")]
    TooFew {
        /// How many must agree.
        quorum: usize,
        /// How many say what their newest block is.
        answered: usize,
    },
    /// Fewer endpoints have a block than must.
    #[error("{quorum} endpoints must have block {block}: {}", Statements(said))]
    NoQuorum {
        /// The block.
        block: BlockRef,
        /// How many must have it.
        quorum: usize,
        /// Each endpoint, redacted, and what it has at that height.
        said: Vec<(String, Statement)>,
    },
    /// An endpoint claims a reorg that is too deep, and is alone with that. It is put aside.
    #[error("{endpoint} alone left our branch too deep: it has block {theirs}, {other} has ours")]
    Refuted {
        /// The endpoint, redacted.
        endpoint: String,
        /// A block of its branch.
        theirs: BlockRef,
        /// An endpoint that has our block at that height.
        other: String,
    },
    /// Endpoints call less final than they did, when a reorg goes past what was final. It is
    /// looked at again without that.
    #[error("block {finalized} was called final, and is not any more")]
    TakenBack {
        /// The block.
        finalized: BlockRef,
    },
    /// An endpoint claims a reorg that is too deep, and no other one says anything about it.
    #[error("{endpoint} left our branch too deep: it has block {theirs}, and {}", Statements(said))]
    Unconfirmed {
        /// The endpoint, redacted.
        endpoint: String,
        /// A block of its branch.
        theirs: BlockRef,
        /// The other endpoints, redacted, and why they are no help.
        said: Vec<(String, Statement)>,
    },
}

/// What an endpoint says about a height.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// It has this block there.
    Has(BlockRef),
    /// It has no block there.
    HasNone,
    /// It does not answer, or nothing of use.
    Unknown(String),
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Statement::Has(block) => write!(f, "has {block}"),
            Statement::HasNone => f.write_str("has no block there"),
            Statement::Unknown(reason) => write!(f, "does not say ({reason})"),
        }
    }
}

struct Statements<'a>(&'a [(String, Statement)]);

impl fmt::Display for Statements<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (endpoint, statement)) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            write!(f, "{separator}{endpoint} {statement}")?;
        }
        Ok(())
    }
}

/// Longest wait for endpoints to say what they have, once their rates let them be asked.
const PATIENCE: Duration = Duration::from_secs(5);

impl Follower {
    /// Checks that enough endpoints have the blocks that are about to be journaled.
    ///
    /// Where hashes are recomputed the last block vouches for those before it, which its hash
    /// commits to. Where they are taken as they come, each is asked about.
    pub(crate) async fn is_agreed(&self, pending: &Pending) -> Result<(), Interrupted> {
        if self.config.quorum <= 1 {
            return Ok(());
        }
        let blocks = pending.records.iter().filter_map(|record| match record {
            Record::Block(block) => Some(block.header.this),
            _ => None,
        });
        let blocks: Vec<BlockRef> = match self.config.trust.checks_hashes() {
            true => blocks.last().into_iter().collect(),
            false => blocks.collect(),
        };
        self.have_enough(&blocks).await
    }

    /// Checks that enough endpoints have each of these blocks.
    pub(crate) async fn have_enough(&self, blocks: &[BlockRef]) -> Result<(), Interrupted> {
        let quorum = self.config.quorum;
        if quorum <= 1 {
            return Ok(());
        }
        for &block in blocks {
            let mut said = Vec::new();
            let mut have = 0;
            let endpoints = self.fetcher.pool.endpoints();
            let mut statements = self.statements(endpoints, block.number);
            while let Some((endpoint, statement)) = self.unless_shutdown(statements.next()).await? {
                have += usize::from(statement == Statement::Has(block));
                said.push((self.fetcher.pool.name_of(endpoint).to_owned(), statement));
                if have == quorum {
                    break;
                }
            }
            if have < quorum {
                said.sort_by(|(a, _), (b, _)| a.cmp(b));
                let disagreement = Disagreement::NoQuorum { block, quorum, said };
                return Err(FetchError::from(disagreement).into());
            }
        }
        Ok(())
    }

    /// What comes of the claim that our block at a height is not on the chain any more, when that
    /// would stop the chain: `Ok` when it is to be believed.
    pub(crate) async fn is_confirmed(
        &self,
        ours: BlockRef,
        theirs: BlockRef,
        from: EndpointId,
    ) -> Result<(), Interrupted> {
        let pool = &self.fetcher.pool;
        let mut others = pool.endpoints();
        others.retain(|other| *other != from);
        let mut said = Vec::new();
        let mut refuted_by = None;
        let mut statements = self.statements(others, ours.number);
        while let Some((other, statement)) = self.unless_shutdown(statements.next()).await? {
            match statement {
                Statement::Has(block) if block == ours => refuted_by = Some(other),
                Statement::Has(_) => return Ok(()),
                Statement::HasNone | Statement::Unknown(_) => {
                    said.push((pool.name_of(other).to_owned(), statement));
                }
            }
        }
        let endpoint = pool.name_of(from).to_owned();
        let disagreement = match refuted_by {
            Some(other) => {
                let other = pool.name_of(other).to_owned();
                let refuted = Disagreement::Refuted { endpoint, theirs, other };
                pool.distrust(from, refuted.to_string());
                refuted
            }
            None if said.is_empty() => return Ok(()),
            None => Disagreement::Unconfirmed { endpoint, theirs, said },
        };
        Err(FetchError::from(disagreement).into())
    }

    /// What these endpoints have at a height, as their answers come. Those that serve another
    /// chain are left out.
    fn statements(
        &self,
        endpoints: Vec<EndpointId>,
        number: u64,
    ) -> impl Stream<Item = (EndpointId, Statement)> + Unpin + use<> {
        let now = Instant::now();
        let ask = |endpoint| {
            let fetcher = self.fetcher.clone();
            // The fetches of a gap stand in the same line. Who gave up before its turn would drop
            // the blocks, fetch them again, and find the line as long as before, for ever.
            let deadline = now + fetcher.pool.rate_wait(endpoint) + PATIENCE;
            async move {
                let statement =
                    match timeout_at(deadline, fetcher.number_of(endpoint, number)).await {
                        Ok(Ok(fetched)) => Statement::Has(fetched.value.header.this),
                        Ok(Err(error)) => statement_of(error)?,
                        Err(_) => Statement::Unknown("timed out".to_owned()),
                    };
                Some((endpoint, statement))
            }
        };
        let asked: FuturesUnordered<_> = endpoints.into_iter().map(ask).collect();
        asked.filter_map(std::future::ready)
    }
}

/// What it means that an endpoint's block could not be had; nothing when it is of another chain.
fn statement_of(error: FetchError) -> Option<Statement> {
    match error {
        FetchError::Answer { source, .. } if matches!(*source, BadAnswer::Absent) => {
            Some(Statement::HasNone)
        }
        FetchError::Answer { source, .. } => Some(Statement::Unknown(source.to_string())),
        FetchError::Pool(PoolError::NoAnswer { mut failures, .. }) => match failures.pop() {
            Some((_, Failure::WrongChain(_))) => None,
            Some((_, failure)) => Some(Statement::Unknown(failure.to_string())),
            None => None,
        },
        error => Some(Statement::Unknown(error.to_string())),
    }
}
