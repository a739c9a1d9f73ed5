//! How a chain is doing, for whoever asks.

use std::{fmt, time::SystemTime};

use shepherd_log::BlockRef;

/// How a chain is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainStatus {
    /// What the follower does.
    pub state: ChainState,
    /// Since when it does that.
    pub since: SystemTime,
    /// The newest block in the journal.
    pub head: Option<BlockRef>,
    /// The newest block an endpoint told us of.
    pub node_head: Option<BlockRef>,
    /// The newest block in the journal that is known to be final. It rises, unless endpoints take
    /// back what they called final.
    pub finalized: Option<BlockRef>,
    /// The endpoints that were behind the others when all were asked last.
    pub lagging: Vec<Lagging>,
}

/// An endpoint that is behind the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lagging {
    /// The endpoint, redacted.
    pub endpoint: String,
    /// How far it was behind.
    pub behind_blocks: u64,
}

/// What a follower does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainState {
    /// It has not heard of the chain yet.
    Starting,
    /// It fills a gap between the journal and the chain.
    CatchingUp,
    /// The journal is where the chain is.
    Following,
    /// It cannot go on now and tries again.
    Waiting {
        /// Why.
        reason: String,
    },
    /// It has ended.
    Stopped {
        /// Why.
        reason: String,
    },
}

impl ChainStatus {
    /// The status of a follower that is about to start.
    pub fn starting() -> ChainStatus {
        ChainStatus {
            state: ChainState::Starting,
            since: SystemTime::now(),
            head: None,
            node_head: None,
            finalized: None,
            lagging: Vec::new(),
        }
    }
}

impl Default for ChainStatus {
    fn default() -> ChainStatus {
        ChainStatus::starting()
    }
}

impl fmt::Display for ChainState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChainState::Starting => f.write_str("starting"),
            ChainState::CatchingUp => f.write_str("catching up"),
            ChainState::Following => f.write_str("following"),
            ChainState::Waiting { reason } => write!(f, "waiting: {reason}"),
            ChainState::Stopped { reason } => write!(f, "stopped: {reason}"),
        }
    }
}
