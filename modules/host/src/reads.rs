//! Questions a module asks the world, and who answers them.

use alloy_primitives::{Address, B256, Bytes, U256};
use shepherd_log::{BlockRef, ORDER_UID_BYTES, Offset};
use url::Url;

use crate::{fault::World, limits::REVERT_BYTES_MAX};

/// One question: about the chain at the block being handled, or about the orderbook or a document
/// as they are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadRequest {
    /// `eth_call`.
    Call {
        /// The contract.
        to: Address,
        /// The call data.
        data: Bytes,
    },
    /// The native balance of an address.
    Balance(Address),
    /// The code at an address.
    Code(Address),
    /// One storage slot.
    Storage {
        /// The contract.
        address: Address,
        /// The slot.
        slot: B256,
    },
    /// The orderbook's `GET /api/v1/orders/{uid}`.
    Order([u8; ORDER_UID_BYTES]),
    /// The orderbook's `GET /api/v1/app_data/{hash}`.
    AppData(B256),
    /// GET of a URL that was checked: `https`, or `http` on loopback; a host of `http_hosts`; no
    /// credentials, no fragment. Redirects are not followed: they are answers.
    Get(Url),
}

/// The answer. A failure to get one is not an answer but a [`World`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadAnswer {
    /// What an `eth_call` returned.
    Returned(Bytes),
    /// The raw data an `eth_call` reverted with.
    Reverted(Bytes),
    /// A balance, in wei.
    Balance(U256),
    /// Code; empty where there is none.
    Code(Bytes),
    /// The value of a slot.
    Storage(B256),
    /// The order as the orderbook tells it, in JSON; `None` when it does not know it.
    Order(Option<String>),
    /// The document itself; `None` when the orderbook does not know it.
    AppData(Option<String>),
    /// What a server answered, unless that is 429 or 5xx, which are a [`World`].
    Response {
        /// The HTTP status.
        status: u16,
        /// The body. Whoever fetches it may stop one byte beyond
        /// [`HTTP_BODY_BYTES_MAX`](crate::limits::HTTP_BODY_BYTES_MAX): that is too large already.
        body: Bytes,
    },
}

impl ReadAnswer {
    /// Keeps the start of what a call reverted with.
    ///
    /// A contract that a stranger wrote may revert with megabytes, and whoever asks it about an
    /// order could not go on. Every selector and reason that anyone reads is in the start.
    #[must_use]
    pub(crate) fn cut(self) -> ReadAnswer {
        match self {
            ReadAnswer::Reverted(data) if data.len() > REVERT_BYTES_MAX => {
                ReadAnswer::Reverted(data.slice(..REVERT_BYTES_MAX))
            }
            answer => answer,
        }
    }

    /// Whether this answers that question.
    pub fn answers(&self, request: &ReadRequest) -> bool {
        match request {
            ReadRequest::Call { .. } => {
                matches!(self, ReadAnswer::Returned(_) | ReadAnswer::Reverted(_))
            }
            ReadRequest::Balance(_) => matches!(self, ReadAnswer::Balance(_)),
            ReadRequest::Code(_) => matches!(self, ReadAnswer::Code(_)),
            ReadRequest::Storage { .. } => matches!(self, ReadAnswer::Storage(_)),
            ReadRequest::Order(_) => matches!(self, ReadAnswer::Order(_)),
            ReadRequest::AppData(_) => matches!(self, ReadAnswer::AppData(_)),
            ReadRequest::Get(_) => matches!(self, ReadAnswer::Response { .. }),
        }
    }
}

/// Answers a module's questions: an endpoint, a tape, a script.
///
/// Implementations bound their own time. While `read` blocks, neither fuel nor the deadline
/// can interrupt it, and the deadline does not count it.
pub trait Reads {
    /// Says which record is handled next, also when it is tried again. All calls of the module
    /// for one record belong together. A source that answers from a tape finds it by this.
    fn begin(&mut self, record: Offset) {
        let _ = record;
    }

    /// One answer for each request, in order; those about the chain at exactly this block.
    ///
    /// The requests of one call are all for the chain, all for the orderbook, or one `Get`. When
    /// any one stays unanswered, the whole read fails: a module never sees a partial answer.
    fn read(&mut self, block: BlockRef, requests: &[ReadRequest])
    -> Result<Vec<ReadAnswer>, World>;
}

/// Any function of that shape is a source, which is what tests script.
impl<F> Reads for F
where
    F: FnMut(BlockRef, &[ReadRequest]) -> Result<Vec<ReadAnswer>, World>,
{
    fn read(
        &mut self,
        block: BlockRef,
        requests: &[ReadRequest],
    ) -> Result<Vec<ReadAnswer>, World> {
        self(block, requests)
    }
}
