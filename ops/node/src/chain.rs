//! A chain and all branches it ever had.
//!
//! ```text
//!              ┌─▶ 6'─▶ 7'            abandoned, still known by hash
//!   0 ─▶ … ─▶ 5 ─▶ 6 ─▶ 7 ─▶ 8        canonical
//!                        └─▶ 8'       a sibling: it never was canonical
//! ```
//!
//! Of a block only its header is kept. Its logs follow from its key.

use std::sync::Arc;

use alloy::consensus::{self, EMPTY_OMMER_ROOT_HASH, EMPTY_ROOT_HASH};
use alloy_primitives::{Address, B256, Bloom, Bytes, map::B256Map};

use crate::{
    Shape,
    content::{self, Sketch, Sketches},
    random::{Random, key},
    receipts,
    universe::{Universe, in_parallel},
};

/// A chain and all branches it ever had. What it produced is the truth: this is the oracle.
#[derive(Debug)]
pub struct Chain {
    shape: Shape,
    universe: Arc<Universe>,
    /// All blocks, in the order in which they were produced.
    blocks: Vec<Block>,
    by_hash: B256Map<usize>,
    /// The canonical block of each height.
    canonical: Vec<usize>,
}

/// A block that was produced, without its logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its height.
    pub number: u64,
    /// The hash of its header.
    pub hash: B256,
    /// The hash of its parent; zero for the genesis block.
    pub parent: B256,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// How many logs it has.
    pub logs: u32,
    /// How many transactions it has.
    pub transactions: u32,
    /// What its content follows from.
    pub(crate) key: u64,
    pub(crate) bloom: Bloom,
    pub(crate) gas_used: u64,
    pub(crate) receipts_root: B256,
}

/// A log as it is in its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The contract that emitted it.
    pub address: Address,
    /// At most four.
    pub topics: Vec<B256>,
    /// The rest of the event.
    pub data: Bytes,
    /// Its position in the block, from zero.
    pub index: u32,
    /// Its transaction's position in the block.
    pub transaction_index: u32,
    /// Its transaction.
    pub transaction_hash: B256,
}

/// What of a block does not depend on its parent.
struct Content {
    key: u64,
    logs: u32,
    transactions: u32,
    bloom: Bloom,
    gas_used: u64,
    receipts_root: B256,
}

impl Chain {
    /// The chain of a shape: its genesis block and as many more as the shape says.
    ///
    /// Every block is drawn once to learn its bloom, on all processors.
    pub fn new(shape: Shape) -> Chain {
        let universe = Arc::new(Universe::new(&shape));
        let mut chain = Chain {
            shape,
            universe,
            blocks: Vec::new(),
            by_hash: B256Map::default(),
            canonical: Vec::new(),
        };
        let genesis = Content::genesis(&chain.shape);
        chain.push(B256::ZERO, 0, genesis);
        chain.extend(chain.shape.blocks);
        chain
    }

    /// What the chain looks like.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The newest canonical block.
    pub fn head(&self) -> &Block {
        let newest = self.canonical.last().expect("there is a genesis block");
        &self.blocks[*newest]
    }

    /// The canonical block of a height.
    pub fn canonical(&self, number: u64) -> Option<&Block> {
        let block = self.canonical.get(usize::try_from(number).ok()?)?;
        Some(&self.blocks[*block])
    }

    /// A block on whatever branch.
    pub fn block(&self, hash: B256) -> Option<&Block> {
        self.by_hash.get(&hash).map(|block| &self.blocks[*block])
    }

    /// How many blocks were ever produced.
    pub fn produced(&self) -> usize {
        self.blocks.len()
    }

    /// All logs of a block.
    pub fn logs(&self, block: &Block) -> Vec<Log> {
        let mut data = Vec::new();
        self.sketches(block)
            .map(|sketch| {
                data.clear();
                sketch.write_data(&mut data);
                let topics = sketch.topics().iter().map(|topic| self.universe.topic(*topic));
                Log {
                    address: self.universe.contract(sketch.contract),
                    topics: topics.collect(),
                    data: Bytes::copy_from_slice(&data),
                    index: sketch.index,
                    transaction_index: sketch.transaction,
                    transaction_hash: content::transaction_hash(
                        block.number,
                        block.key,
                        sketch.transaction,
                    ),
                }
            })
            .collect()
    }

    /// The header whose hash is the block's.
    pub fn header(&self, block: &Block) -> consensus::Header {
        header(block)
    }

    /// Appends blocks.
    pub fn extend(&mut self, blocks: u64) {
        let first = self.head().number + 1;
        // Drawing depends on the block's key alone, which is that of its height and of how many
        // blocks there were before: no two blocks have the same.
        let produced = self.blocks.len() as u64;
        let (shape, universe) = (&self.shape, &self.universe);
        let contents = in_parallel(blocks as u32, |n| {
            let n = u64::from(n);
            Content::draw(shape, universe, key(&[shape.seed, first + n, produced + n]))
        });
        for (content, number) in contents.into_iter().zip(first..) {
            self.push(self.head().hash, number, content);
        }
    }

    /// Abandons the newest `depth` blocks and appends `blocks` others, one at least. The genesis
    /// block stays.
    pub fn reorg(&mut self, depth: u64, blocks: u64) {
        let kept = (self.canonical.len() as u64).saturating_sub(depth).max(1);
        self.canonical.truncate(kept as usize);
        self.extend(blocks.max(1));
    }

    /// Produces a block beside the newest one that never is canonical.
    pub fn sibling(&mut self) -> Block {
        let newest = self.head().clone();
        let key = key(&[self.shape.seed, newest.number, self.blocks.len() as u64]);
        let content = Content::draw(&self.shape, &self.universe, key);
        self.produce(newest.parent, newest.number, content);
        self.blocks.last().expect("one was just produced").clone()
    }

    pub(crate) fn universe(&self) -> &Universe {
        &self.universe
    }

    pub(crate) fn sketches(&self, block: &Block) -> Sketches<'_> {
        Sketches::new(&self.universe, block.key, block.logs)
    }

    /// Adds the next canonical block.
    fn push(&mut self, parent: B256, number: u64, content: Content) {
        self.produce(parent, number, content);
        self.canonical.push(self.blocks.len() - 1);
    }

    fn produce(&mut self, parent: B256, number: u64, content: Content) {
        let Content { key, logs, transactions, bloom, gas_used, receipts_root } = content;
        let mut block = Block {
            number,
            hash: B256::ZERO,
            parent,
            timestamp: self.shape.timestamp(number),
            logs,
            transactions,
            key,
            bloom,
            gas_used,
            receipts_root,
        };
        block.hash = header(&block).hash_slow();
        self.by_hash.insert(block.hash, self.blocks.len());
        self.blocks.push(block);
    }
}

impl Content {
    fn genesis(shape: &Shape) -> Content {
        Content {
            key: key(&[shape.seed]),
            logs: 0,
            transactions: 0,
            bloom: Bloom::ZERO,
            gas_used: 0,
            receipts_root: EMPTY_ROOT_HASH,
        }
    }

    fn draw(shape: &Shape, universe: &Universe, key: u64) -> Content {
        let logs = content::logs(shape, key);
        let mut bloom = Bloom::ZERO;
        let mut last = None;
        for sketch in Sketches::new(universe, key, logs) {
            sketch.mark(universe, &mut bloom);
            last = Some(sketch.transaction);
        }
        let transactions = content::transactions(key, last);
        let sketches: Vec<Sketch> = match shape.receipts_roots {
            true => Sketches::new(universe, key, logs).collect(),
            false => Vec::new(),
        };
        let receipts_root = match shape.receipts_roots {
            true => receipts::root(universe, key, transactions, &sketches),
            false => B256::from(Random::of(key).bytes()),
        };
        let gas_used = receipts::gas_used(transactions, logs);
        Content { key, logs, transactions, bloom, gas_used, receipts_root }
    }
}

fn header(block: &Block) -> consensus::Header {
    let mut random = Random::of(key(&[block.key, 5]));
    let mut root = || B256::from(random.bytes());
    consensus::Header {
        parent_hash: block.parent,
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        beneficiary: Address::from_word(root()),
        state_root: root(),
        transactions_root: root(),
        receipts_root: block.receipts_root,
        logs_bloom: block.bloom,
        number: block.number,
        gas_limit: 60_000_000,
        gas_used: block.gas_used,
        timestamp: block.timestamp,
        extra_data: Bytes::from_static(b"synthetic"),
        mix_hash: root(),
        base_fee_per_gas: Some(1_000_000_000 + block.key % 1_000_000_000),
        withdrawals_root: Some(EMPTY_ROOT_HASH),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(root()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_same_shape_is_the_same_chain() {
        let shape = Shape { blocks: 20, ..Shape::small(5) };
        let (one, other) = (Chain::new(shape.clone()), Chain::new(shape.clone()));
        assert_eq!(one.blocks, other.blocks);
        let different = Chain::new(Shape { seed: 6, ..shape });
        assert_ne!(one.head().hash, different.head().hash);
    }

    #[test]
    fn blocks_are_linked_and_have_the_bloom_of_their_logs() {
        let chain = Chain::new(Shape { blocks: 40, ..Shape::small(2) });
        let mut logs = 0;
        for number in 1..=40 {
            let block = chain.canonical(number).expect("it was produced");
            assert_eq!(block.parent, chain.canonical(number - 1).expect("produced").hash);
            let mut bloom = Bloom::ZERO;
            for log in chain.logs(block) {
                bloom.accrue_raw_log(log.address, &log.topics);
                logs += 1;
            }
            let header = chain.header(block);
            assert_eq!((header.logs_bloom, header.hash_slow()), (bloom, block.hash));
        }
        assert!(logs > 60, "{logs}");
        assert_eq!(chain.canonical(41), None);
    }

    #[test]
    fn abandoned_blocks_and_siblings_are_known_by_hash_alone() {
        let mut chain = Chain::new(Shape { blocks: 10, ..Shape::small(2) });
        let abandoned = chain.head().clone();
        chain.reorg(3, 2);
        assert_eq!(chain.head().number, 9);
        let sibling = chain.sibling();
        assert_eq!((sibling.number, sibling.parent), (9, chain.head().parent));
        for block in [&abandoned, &sibling] {
            assert_eq!(chain.block(block.hash), Some(block));
            assert_ne!(chain.canonical(block.number), Some(block));
        }
        chain.reorg(100, 1);
        assert_eq!(chain.head().number, 1, "the genesis block stays");
        assert_eq!(chain.produced(), 11 + 2 + 1 + 1);
    }

    #[test]
    fn mainnet_is_dense_and_a_few_contracts_and_events_are_in_most_of_its_logs() {
        let chain = Chain::new(Shape::mainnet(1, 30));
        let mut contracts = BTreeMap::<Address, usize>::new();
        let mut events = BTreeMap::<B256, usize>::new();
        let mut logs = 0;
        for number in 1..=30 {
            let block = chain.canonical(number).expect("it was produced");
            assert!((200..=400).contains(&block.logs), "{}", block.logs);
            assert!((60..500).contains(&block.transactions), "{}", block.transactions);
            for log in chain.logs(block) {
                *contracts.entry(log.address).or_default() += 1;
                log.topics.first().into_iter().for_each(|t| *events.entry(*t).or_default() += 1);
                logs += 1;
            }
        }
        let most = |mut counts: Vec<usize>| {
            counts.sort_unstable();
            counts.iter().rev().take(10).sum::<usize>() * 100 / logs
        };
        let of_contracts = most(contracts.into_values().collect());
        let of_events = most(events.into_values().collect());
        assert!((20..50).contains(&of_contracts), "{of_contracts} % are of ten contracts");
        assert!((85..97).contains(&of_events), "{of_events} % are of ten events");
    }
}
