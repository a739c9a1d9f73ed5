//! Conditional orders as leaves of a tree, of which the chain keeps the root alone.

use alloy_primitives::{B256, Bytes, U256, keccak256};
use alloy_sol_types::SolValue;

use super::abi;
use super::order::{ConditionalOrder, composable};
use super::owner::Call;

/// Proofs and orders are in the event itself.
const IN_EVENT: u64 = 1;

/// A tree of conditional orders.
///
/// An empty proof means an order that stands alone, so a tree of one order has an empty leaf
/// beside it.
#[derive(Clone, Debug)]
pub struct MerkleTree {
    orders: Vec<ConditionalOrder>,
    /// The leaves, then each level above them, and the root alone.
    levels: Vec<Vec<B256>>,
}

impl MerkleTree {
    /// A tree of these orders, in this order.
    pub fn new(orders: Vec<ConditionalOrder>) -> MerkleTree {
        let mut leaves: Vec<B256> = orders.iter().map(|order| keccak256(order.id())).collect();
        leaves.resize(leaves.len().next_power_of_two().max(2), B256::ZERO);
        let mut levels = vec![leaves];
        while let Some(last) = levels.last().filter(|level| level.len() > 1) {
            let above = last.chunks(2).map(|pair| parent(pair[0], pair[1])).collect();
            levels.push(above);
        }
        MerkleTree { orders, levels }
    }

    /// Its root.
    pub fn root(&self) -> B256 {
        self.levels[self.levels.len() - 1][0]
    }

    /// Its orders.
    pub fn orders(&self) -> &[ConditionalOrder] {
        &self.orders
    }

    /// What shows that the order of this index belongs to the root.
    pub fn proof(&self, index: usize) -> Vec<B256> {
        let below_root = &self.levels[..self.levels.len() - 1];
        below_root.iter().enumerate().map(|(height, level)| level[(index >> height) ^ 1]).collect()
    }

    /// The call by which an owner replaces all orders of its last root by these, with the
    /// proofs in the event.
    pub fn set_root(&self) -> Call {
        let leaves: Vec<Bytes> = (0..self.orders.len())
            .map(|index| {
                (self.proof(index), self.orders[index].params()).abi_encode_params().into()
            })
            .collect();
        let proof = abi::Proof { location: U256::from(IN_EVENT), data: leaves.abi_encode().into() };
        composable(&abi::ComposableCow::setRootCall { root: self.root(), proof })
    }
}

fn parent(one: B256, other: B256) -> B256 {
    keccak256([one.min(other), one.max(other)].concat())
}
