//! Whether an endpoint serves the chain we think it does.
//!
//! A provider's URL differs between networks by a few letters, and a devnet that was wiped
//! answers under its old address. Both would feed one chain's blocks into another's journal,
//! so the chain id and the genesis hash are compared at each connect.

use std::sync::{Mutex, MutexGuard};

use alloy_primitives::{B256, U64};
use serde::Deserialize;
use serde_json::json;

use crate::{Answer, Call, Failure, RpcError};

/// What an endpoint says about the chain it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Its `eth_chainId`.
    pub chain_id: u64,
    /// The hash of its block 0, unless it no longer keeps that block.
    pub genesis: Option<B256>,
}

/// An endpoint serves another chain than ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainMismatch {
    /// The chain id differs.
    #[error("the endpoint serves chain id {endpoint}, the configuration says {configured}")]
    ChainId {
        /// What the configuration says.
        configured: u64,
        /// What the endpoint says.
        endpoint: u64,
    },
    /// The chain id is right, the first block is not: another network under the same id.
    #[error("the endpoint's genesis block is {endpoint}, this chain's was {seen_before} before")]
    Genesis {
        /// The hash the journal remembers, or else the first seen since the process started.
        seen_before: B256,
        /// What the endpoint says now.
        endpoint: B256,
    },
}

/// What all endpoints of a chain must agree on.
pub(crate) struct Identity {
    chain_id: u64,
    /// The genesis hash that was given, or else the first seen.
    genesis: Mutex<Option<B256>>,
}

impl Identity {
    pub(crate) fn new(chain_id: u64) -> Identity {
        Identity { chain_id, genesis: Mutex::new(None) }
    }

    pub(crate) fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// Compares an endpoint with those before it. The first one to show its genesis decides.
    pub(crate) fn accept(&self, sighting: &Sighting) -> Result<(), ChainMismatch> {
        let mut known = self.known();
        compare(self.chain_id, *known, sighting)?;
        *known = known.or(sighting.genesis);
        Ok(())
    }

    /// The genesis hash that was given, or else the first seen.
    pub(crate) fn genesis(&self) -> Option<B256> {
        *self.known()
    }

    /// Gives the genesis hash. Says whether endpoints were held against another one so far.
    pub(crate) fn expect(&self, genesis: B256) -> bool {
        self.known().replace(genesis).is_some_and(|before| before != genesis)
    }

    fn known(&self) -> MutexGuard<'_, Option<B256>> {
        self.genesis.lock().expect("nothing panics while it holds the genesis")
    }
}

/// Compares what an endpoint says with what we know.
fn compare(chain_id: u64, genesis: Option<B256>, sighting: &Sighting) -> Result<(), ChainMismatch> {
    if sighting.chain_id != chain_id {
        return Err(ChainMismatch::ChainId { configured: chain_id, endpoint: sighting.chain_id });
    }
    match (genesis, sighting.genesis) {
        (Some(seen_before), Some(endpoint)) if seen_before != endpoint => {
            Err(ChainMismatch::Genesis { seen_before, endpoint })
        }
        _ => Ok(()),
    }
}

/// The calls that ask an endpoint who it is.
pub(crate) fn questions() -> [Call; 2] {
    [
        Call { method: "eth_chainId", params: json!([]) },
        Call { method: "eth_getBlockByNumber", params: json!(["0x0", false]) },
    ]
}

/// Reads the answers to [`questions`].
pub(crate) fn sighting(answers: &[Result<Answer, RpcError>]) -> Result<Sighting, Failure> {
    #[derive(Deserialize)]
    struct Block {
        hash: B256,
    }
    let [chain_id, genesis] = answers else {
        return Err(Failure::Malformed { reason: "two questions, not two answers".to_owned() });
    };
    let chain_id = chain_id.as_ref().map_err(|error| Failure::Refused(error.clone()))?;
    let chain_id: U64 = chain_id.parse()?;
    // Providers that prune history answer null or an error for block 0. The chain id still counts.
    let genesis = match genesis {
        Ok(answer) => answer.parse::<Option<Block>>()?.map(|block| block.hash),
        Err(_) => None,
    };
    Ok(Sighting { chain_id: chain_id.to(), genesis })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: B256 = B256::repeat_byte(0xa);
    const B: B256 = B256::repeat_byte(0xb);

    #[test]
    fn chain_id_and_genesis_must_agree() {
        check((1, None), (1, Some(A)), Ok(()));
        check((1, Some(A)), (1, Some(A)), Ok(()));
        check((1, Some(A)), (1, None), Ok(()));
        check((1, None), (5, None), Err(ChainMismatch::ChainId { configured: 1, endpoint: 5 }));
        check(
            (1, Some(A)),
            (1, Some(B)),
            Err(ChainMismatch::Genesis { seen_before: A, endpoint: B }),
        );
    }

    fn check(
        (id, known): (u64, Option<B256>),
        (chain_id, genesis): (u64, Option<B256>),
        expected: Result<(), ChainMismatch>,
    ) {
        assert_eq!(compare(id, known, &Sighting { chain_id, genesis }), expected);
    }

    #[test]
    fn a_pruned_genesis_is_not_a_failure() {
        for genesis in [Ok(Answer::from_static("null")), Err(RpcError::new(-32000, "pruned"))] {
            let answers = [Ok(Answer::from_static("\"0x1\"")), genesis];
            assert_eq!(sighting(&answers).unwrap(), Sighting { chain_id: 1, genesis: None });
        }
    }

    #[test]
    fn an_endpoint_that_does_not_say_its_chain_id_is_not_used() {
        let answers = [Err(RpcError::new(-32601, "no")), Ok(Answer::from_static("null"))];
        assert!(matches!(sighting(&answers), Err(Failure::Refused(_))));
    }
}
