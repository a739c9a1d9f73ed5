//! What two runs took, per block and in all.

use serde::Serialize;
use shepherd_log::BlockRef;

use crate::diff::Sides;

/// What two runs took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FuelTotals {
    /// Of each.
    pub sides: Sides<FuelOfSide>,
    /// What the second took in all, as a share of the first; `None` when that took nothing.
    pub total_ratio: Option<f64>,
    /// The same of the 99th percentiles.
    pub p99_ratio: Option<f64>,
}

/// What one run took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FuelOfSide {
    /// In all.
    pub total: u64,
    /// What 99 of 100 blocks stayed within, among those its module was called at.
    pub p99_per_block: u64,
    /// What the block took that took most.
    pub max_per_block: u64,
    /// Blocks its module was called at.
    pub blocks: u64,
}

/// Fuel by block, as it comes in.
#[derive(Default)]
pub(super) struct Blocks {
    block: Option<BlockRef>,
    under_way: Sides<u64>,
    done: Sides<Vec<u64>>,
}

impl Blocks {
    /// Adds what a record took. Records of one block follow each other.
    pub fn add(&mut self, block: BlockRef, a: u64, b: u64) {
        if self.block != Some(block) {
            self.close();
            self.block = Some(block);
        }
        self.under_way.a += a;
        self.under_way.b += b;
    }

    fn close(&mut self) {
        let Sides { a, b } = std::mem::take(&mut self.under_way);
        // Every call takes fuel, so no fuel is no call.
        self.done.a.extend((a > 0).then_some(a));
        self.done.b.extend((b > 0).then_some(b));
    }

    pub fn finish(mut self) -> FuelTotals {
        self.close();
        let sides = Sides { a: of_side(self.done.a), b: of_side(self.done.b) };
        let ratio = |a: u64, b: u64| (a > 0).then(|| b as f64 / a as f64);
        FuelTotals {
            total_ratio: ratio(sides.a.total, sides.b.total),
            p99_ratio: ratio(sides.a.p99_per_block, sides.b.p99_per_block),
            sides,
        }
    }
}

fn of_side(mut blocks: Vec<u64>) -> FuelOfSide {
    blocks.sort_unstable();
    // The smallest number that 99 % of the blocks stay within.
    let rank = (blocks.len() * 99).div_ceil(100);
    FuelOfSide {
        total: blocks.iter().sum(),
        p99_per_block: rank.checked_sub(1).map_or(0, |rank| blocks[rank]),
        max_per_block: blocks.last().copied().unwrap_or(0),
        blocks: blocks.len() as u64,
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::B256;

    use super::*;

    #[test]
    fn records_of_one_block_are_one_block() {
        let block = |number| BlockRef { number, hash: B256::ZERO };
        let mut blocks = Blocks::default();
        for (number, a, b) in [(1, 5, 0), (1, 2, 0), (2, 1, 4)] {
            blocks.add(block(number), a, b);
        }
        let totals = blocks.finish();
        let a = FuelOfSide { total: 8, p99_per_block: 7, max_per_block: 7, blocks: 2 };
        let b = FuelOfSide { total: 4, p99_per_block: 4, max_per_block: 4, blocks: 1 };
        assert_eq!(totals.sides, Sides { a, b });
        assert_eq!(totals.total_ratio, Some(0.5));
    }

    #[test]
    fn one_block_in_a_hundred_may_take_more_than_the_99th_percentile() {
        let check = |blocks: std::ops::RangeInclusive<u64>, p99| {
            assert_eq!(of_side(blocks.rev().collect()).p99_per_block, p99);
        };
        check(1..=100, 99);
        check(1..=101, 100);
        check(1..=99, 99);
        check(1..=1, 1);
        assert_eq!(of_side(vec![]), FuelOfSide::default());
        assert_eq!(Blocks::default().finish().total_ratio, None);
    }
}
