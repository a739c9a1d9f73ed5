//! Many conditional orders under one root.
//!
//! ```text
//!            root                  set by the owner: a new one replaces all orders of the old
//!           /    \
//!        hash     leaf             inner hashes: keccak of the smaller child, then the larger
//!       /    \
//!    leaf    leaf                  keccak of keccak of abi.encode(params)
//! ```
//!
//! A leaf is hashed twice, so that 64 bytes of an inner node can never pass for an order. Trees
//! are those of OpenZeppelin's `MerkleProof`, which `ComposableCoW` verifies with.

use alloy_primitives::{B256, Bytes, U256, keccak256};
use alloy_sol_types::SolValue;

use super::{
    abi::{ConditionalOrderParams, Proof},
    conditional,
};
use crate::abi::bounded;

/// The leaf of a conditional order.
pub fn leaf(params: &ConditionalOrderParams) -> B256 {
    keccak256(conditional::id(params))
}

/// The root that a leaf and its proof lead to.
///
/// ```
/// use shepherd_sdk::cow::{abi::ConditionalOrderParams, merkle};
///
/// // A tree of two: each leaf is the other's proof.
/// let one = ConditionalOrderParams::default();
/// let two = ConditionalOrderParams { salt: [2; 32].into(), ..one.clone() };
/// let root = merkle::root(merkle::leaf(&one), &[merkle::leaf(&two)]);
/// assert_eq!(merkle::root(merkle::leaf(&two), &[merkle::leaf(&one)]), root);
/// ```
pub fn root(leaf: B256, proof: &[B256]) -> B256 {
    proof.iter().fold(leaf, |hash, sibling| {
        let (low, high) = if hash <= *sibling { (&hash, sibling) } else { (sibling, &hash) };
        keccak256([low.as_slice(), high.as_slice()].concat())
    })
}

/// A conditional order with its place in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The order.
    pub params: ConditionalOrderParams,
    /// The siblings on the way to the root.
    pub proof: Vec<B256>,
}

impl Member {
    /// Whether it is in the tree with this root.
    pub fn belongs_to(&self, root: B256) -> bool {
        self::root(leaf(&self.params), &self.proof) == root
    }
}

/// What `MerkleRootSet` says about the orders under the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Publication {
    /// Nothing: they are private, or kept where a module cannot look (IPFS, Swarm, Waku).
    Elsewhere,
    /// They should be in the event and are not: it does not decode.
    Malformed,
    /// They are in the event.
    Here {
        /// Those that are in the tree.
        members: Vec<Member>,
        /// How many more do not decode or are not in the tree. The contract would refuse them.
        refused: usize,
    },
}

/// The location that means "in the event".
const LOCATION_EMITTED: U256 = U256::from_limbs([1, 0, 0, 0]);

/// Reads the orders that an event publishes.
///
/// Anyone can set a root for themselves and publish what they like, so each order is checked
/// against the root and one that is not under it costs the others nothing.
pub fn published(root: B256, proof: &Proof) -> Publication {
    if proof.location != LOCATION_EMITTED {
        return Publication::Elsewhere;
    }
    let Ok(elements) = Vec::<Bytes>::abi_decode_with_config(&proof.data, bounded(&proof.data))
    else {
        return Publication::Malformed;
    };
    // What an encoder writes has each element once. Elements that share their bytes would make
    // four times the hashing out of an event.
    if proof.data.len() < elements.iter().map(|element| element.len()).sum() {
        return Publication::Malformed;
    }
    let all = elements.len();
    let members: Vec<Member> = elements
        .iter()
        .filter_map(|element| {
            let decoded = <(Vec<B256>, ConditionalOrderParams)>::abi_decode_params_with_config(
                element,
                bounded(element),
            );
            let (proof, params) = decoded.ok()?;
            Some(Member { params, proof }).filter(|member| member.belongs_to(root))
        })
        .collect();
    Publication::Here { refused: all - members.len(), members }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(salt: u8) -> ConditionalOrderParams {
        let salt = B256::repeat_byte(salt);
        ConditionalOrderParams { salt, staticInput: vec![1, 2, 3].into(), ..Default::default() }
    }

    /// A tree of three: the last leaf is a child of the root.
    fn tree() -> (B256, [Member; 3]) {
        let [one, two, three] = [1, 2, 3].map(|salt| leaf(&params(salt)));
        let pair = root(one, &[two]);
        let members = [
            Member { params: params(1), proof: vec![two, three] },
            Member { params: params(2), proof: vec![one, three] },
            Member { params: params(3), proof: vec![pair] },
        ];
        (root(pair, &[three]), members)
    }

    fn encoded(member: &Member) -> Bytes {
        (member.proof.clone(), member.params.clone()).abi_encode_params().into()
    }

    fn emitted(elements: Vec<Bytes>) -> Proof {
        Proof { location: U256::from(1), data: elements.abi_encode().into() }
    }

    #[test]
    fn a_leaf_is_hashed_twice() {
        let params = params(1);
        assert_eq!(leaf(&params), keccak256(keccak256(params.abi_encode())));
    }

    #[test]
    fn every_member_leads_to_the_root_and_nothing_else_does() {
        let (root, members) = tree();
        for member in &members {
            assert!(member.belongs_to(root));
            assert!(!member.belongs_to(B256::ZERO));
            assert!(!Member { params: params(4), ..member.clone() }.belongs_to(root));
            assert!(!Member { proof: vec![], ..member.clone() }.belongs_to(root));
        }
        // A tree of one: its root is the leaf.
        assert!(Member { params: params(1), proof: vec![] }.belongs_to(leaf(&params(1))));
    }

    #[test]
    fn children_are_hashed_in_order_of_size() {
        let (low, high) = (B256::repeat_byte(1), B256::repeat_byte(2));
        let expected = keccak256([low.as_slice(), high.as_slice()].concat());
        assert_eq!(root(low, &[high]), expected);
        assert_eq!(root(high, &[low]), expected);
    }

    #[test]
    fn orders_in_the_event_are_read_and_those_outside_the_tree_refused() {
        let (root, members) = tree();
        let stranger = Member { params: params(4), proof: members[0].proof.clone() };
        let mut elements: Vec<Bytes> = members.iter().map(encoded).collect();
        elements.push(encoded(&stranger));
        elements.push(Bytes::from_static(b"garbage"));
        let expected = Publication::Here { members: members.to_vec(), refused: 2 };
        assert_eq!(published(root, &emitted(elements)), expected);
        let none = Publication::Here { members: vec![], refused: 0 };
        assert_eq!(published(root, &emitted(vec![])), none);
    }

    #[test]
    fn orders_that_are_not_in_the_event_are_elsewhere() {
        let (root, members) = tree();
        for location in [0u64, 2, 3, u64::MAX] {
            let proof =
                Proof { location: U256::from(location), ..emitted(vec![encoded(&members[0])]) };
            assert_eq!(published(root, &proof), Publication::Elsewhere);
        }
    }

    #[test]
    fn data_that_does_not_decode_is_malformed_and_takes_no_more_room_than_it_should() {
        let malformed = |data: Vec<u8>| {
            let proof = Proof { location: U256::from(1), data: data.into() };
            assert_eq!(published(B256::ZERO, &proof), Publication::Malformed);
        };
        malformed(vec![]);
        malformed(vec![0xff; 64]);
        // Ten thousand elements that are all the same 32 kB: 320 MB, if it were believed.
        let word = |number: usize| U256::from(number).to_be_bytes::<32>();
        let (count, length) = (10_000, 32_000);
        let mut bomb = [word(0x20), word(count)].concat();
        bomb.extend(word(32 * count).repeat(count));
        bomb.extend(word(length));
        bomb.resize(bomb.len() + length, 7);
        malformed(bomb);
        // And three that share three thousand bytes, which would fit.
        let (count, length) = (3, 3_000);
        let mut shared = [word(0x20), word(count)].concat();
        shared.extend(word(32 * count).repeat(count));
        shared.extend(word(length));
        shared.resize(shared.len() + 3_008, 7);
        malformed(shared);
    }
}
