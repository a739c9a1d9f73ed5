//! The changes, made while the history passes by.

use std::collections::{BTreeMap, VecDeque};

use alloy_primitives::{B256, keccak256};
use shepherd_log::{Block, BlockRef, Header, Log, Record, Revert};

use super::{Inject, ReorgAt, Replacements, WhatIf};
use crate::recording::{Entry, SourceError, Taken};

/// How much was changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Logs that were added, once for each block that has them.
    pub injected: u64,
    /// Logs that were left out.
    pub dropped: u64,
    /// Reorgs that were made up.
    pub reorgs: u64,
}

/// A change that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ModifyError {
    /// The history cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A block that the history does not have.
    #[error("{change}: the history has no block {block}, it goes from {first} to {last}")]
    NoSuchBlock {
        /// The change, in the words of the command line.
        change: String,
        /// The block it names.
        block: u64,
        /// The lowest block there is.
        first: u64,
        /// The highest block there is.
        last: u64,
    },
    /// A reorg that goes back to before the first block.
    #[error(
        "reorg-at {reorg}: the history begins at block {first}, and a reorg needs the block that \
         both branches share"
    )]
    TooEarly {
        /// The reorg.
        reorg: ReorgAt,
        /// The first block.
        first: u64,
    },
}

impl WhatIf {
    /// The history with the changes.
    pub(crate) fn modify<I>(&self, source: I) -> Modify<I>
    where
        I: Iterator<Item = Result<Taken, SourceError>>,
    {
        let mut inject: BTreeMap<u64, Vec<Inject>> = BTreeMap::new();
        for log in &self.inject {
            inject.entry(log.block).or_default().push(log.clone());
        }
        Modify {
            source,
            what_if: self.clone(),
            inject,
            branch: VecDeque::new(),
            ready: VecDeque::new(),
            heights: None,
            changed: Changed::default(),
            ended: false,
        }
    }
}

/// A history with changes; see [`WhatIf::modify`].
pub(crate) struct Modify<I> {
    source: I,
    what_if: WhatIf,
    inject: BTreeMap<u64, Vec<Inject>>,
    /// The newest blocks of the chain, as many as the deepest reorg needs.
    branch: VecDeque<Taken>,
    ready: VecDeque<Taken>,
    /// The lowest and the highest block so far.
    heights: Option<(u64, u64)>,
    /// What was changed so far.
    pub changed: Changed,
    ended: bool,
}

impl<I: Iterator<Item = Result<Taken, SourceError>>> Modify<I> {
    fn take(&mut self, mut taken: Taken) -> Result<(), ModifyError> {
        match &mut taken.entry.record {
            Record::Block(block) => {
                let this = block.header.this;
                let before = block.logs.len();
                block.logs.retain(|log| {
                    !self.what_if.drop.iter().any(|drop| drop.matches(this.number, log))
                });
                self.changed.dropped += (before - block.logs.len()) as u64;
                let injected = self.inject.get(&this.number).map_or(&[][..], Vec::as_slice);
                for (inject, index) in injected.iter().zip(taken.next_log_index..) {
                    block.logs.push(Log {
                        address: inject.address,
                        topics: inject.topics.clone(),
                        data: inject.data.clone(),
                        index,
                        transaction_index: taken.next_transaction_index,
                        transaction_hash: inject.transaction_hash,
                    });
                }
                taken.entry.injected = injected.len() as u32;
                self.changed.injected += injected.len() as u64;
                let is_higher = self.heights.is_none_or(|(_, highest)| highest < this.number);
                let (lowest, highest) = self.heights.unwrap_or((this.number, this.number));
                self.heights = Some((lowest.min(this.number), highest.max(this.number)));
                self.ready.push_back(taken.clone());
                self.branch.push_back(taken);
                if is_higher {
                    for position in 0..self.what_if.reorgs.len() {
                        if self.what_if.reorgs[position].block == this.number {
                            self.reorg(position)?;
                        }
                    }
                }
                // A reorg needs the block that both branches share as well.
                let deepest =
                    self.what_if.reorgs.iter().map(|reorg| reorg.depth).max().unwrap_or(0);
                while self.branch.len() as u64 > deepest.saturating_add(1) {
                    self.branch.pop_front();
                }
            }
            Record::Revert(revert) => {
                let ancestor = revert.ancestor.number;
                while self.branch.back().is_some_and(|taken| this(taken).number > ancestor) {
                    self.branch.pop_back();
                }
                self.ready.push_back(taken);
            }
            Record::Outcome(_) => self.ready.push_back(taken),
        }
        Ok(())
    }

    /// Takes the newest blocks back, puts others in their place, and returns to the first ones.
    fn reorg(&mut self, position: usize) -> Result<(), ModifyError> {
        let reorg = self.what_if.reorgs[position];
        let first = self.heights.map_or(0, |(first, _)| first);
        let shared = usize::try_from(reorg.depth)
            .ok()
            .and_then(|depth| self.branch.len().checked_sub(depth + 1))
            .ok_or(ModifyError::TooEarly { reorg, first })?;
        let original: Vec<Taken> = self.branch.range(shared + 1..).cloned().collect();
        let ancestor = this(&self.branch[shared]);
        let mut parent = ancestor.hash;
        let replacements: Vec<Taken> = original
            .iter()
            .map(|taken| {
                let replacement = replacement(taken, position, parent, reorg.replacements);
                parent = this(&replacement).hash;
                replacement
            })
            .collect();
        self.ready.push_back(revert(ancestor, &original));
        self.ready.extend(replacements.iter().cloned());
        self.ready.push_back(revert(ancestor, &replacements));
        self.ready.extend(original);
        self.changed.reorgs += 1;
        Ok(())
    }

    /// Whether every change found its block.
    fn check_all_made(&self) -> Result<(), ModifyError> {
        let (first, last) = self.heights.unwrap_or((0, 0));
        let has = |block: u64| (first..=last).contains(&block);
        let injected = self.what_if.inject.iter().map(|inject| inject.block);
        let injected = injected.map(|block| (block, format!("inject into block {block}")));
        let reorgs =
            self.what_if.reorgs.iter().map(|reorg| (reorg.block, format!("reorg-at {reorg}")));
        match injected.chain(reorgs).find(|(block, _)| !has(*block)) {
            Some((block, change)) => Err(ModifyError::NoSuchBlock { change, block, first, last }),
            None => Ok(()),
        }
    }
}

impl<I: Iterator<Item = Result<Taken, SourceError>>> Iterator for Modify<I> {
    type Item = Result<Taken, ModifyError>;

    fn next(&mut self) -> Option<Result<Taken, ModifyError>> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(Ok(ready));
            }
            if self.ended {
                return None;
            }
            let failed = match self.source.next() {
                Some(Ok(taken)) => match self.take(taken) {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                Some(Err(error)) => error.into(),
                None => {
                    self.ended = true;
                    return self.check_all_made().err().map(Err);
                }
            };
            self.ended = true;
            self.ready.clear();
            return Some(Err(failed));
        }
    }
}

fn this(taken: &Taken) -> BlockRef {
    match &taken.entry.record {
        Record::Block(block) => block.header.this,
        _ => unreachable!("a branch is made of blocks"),
    }
}

fn revert(ancestor: BlockRef, blocks: &[Taken]) -> Taken {
    let abandoned = blocks.iter().map(this).collect();
    Taken::made_up(Entry::from(Record::Revert(Revert { ancestor, abandoned })))
}

/// The block in another's place. Its hash is made of that one's and of the reorg's position.
fn replacement(
    original: &Taken,
    position: usize,
    parent: B256,
    replacements: Replacements,
) -> Taken {
    let mut replacement = original.clone();
    let Record::Block(Block { header, logs }) = &mut replacement.entry.record else {
        unreachable!("a branch is made of blocks")
    };
    let domain: &[u8] = b"shepherd what-if 1\0";
    let hash =
        keccak256([domain, &(position as u64).to_be_bytes(), header.this.hash.as_slice()].concat());
    replacement.entry.instead_of = Some(header.this);
    *header = Header {
        this: BlockRef { number: header.this.number, hash },
        parent,
        timestamp: header.timestamp,
        rlp: [].into(),
    };
    if replacements == Replacements::Empty {
        logs.clear();
        replacement.entry.injected = 0;
    }
    replacement
}
