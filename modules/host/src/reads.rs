//! Questions a module asks the chain, and who answers them.

use alloy_primitives::{Address, B256, Bytes, U256};
use shepherd_log::BlockRef;

use crate::fault::World;

/// One question about the chain at the block being handled.
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
}

/// The chain's answer. A failure to get one is not an answer but a [`World`].
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
}

impl ReadAnswer {
    /// Whether this answers that question.
    pub fn answers(&self, request: &ReadRequest) -> bool {
        match request {
            ReadRequest::Call { .. } => {
                matches!(self, ReadAnswer::Returned(_) | ReadAnswer::Reverted(_))
            }
            ReadRequest::Balance(_) => matches!(self, ReadAnswer::Balance(_)),
            ReadRequest::Code(_) => matches!(self, ReadAnswer::Code(_)),
            ReadRequest::Storage { .. } => matches!(self, ReadAnswer::Storage(_)),
        }
    }
}

/// Answers a module's questions: an endpoint, a tape, a script.
///
/// Implementations bound their own time. While `read` blocks, neither fuel nor the deadline
/// can interrupt it, and the deadline does not count it.
pub trait Reads {
    /// One answer for each request, in order, all at exactly this block.
    ///
    /// When any one is unknown, the whole read fails: a module never sees a partial answer.
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
