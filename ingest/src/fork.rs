//! Where another branch leaves ours.
//!
//! ```text
//!              ancestor
//!   ours    ──▶ 5 ──▶ 6 ──▶ 7 ──▶ 8   head
//!               └───▶ 6'──▶ 7'        the node's head
//! ```
//!
//! Only parent hashes decide. From the node's head we go back, parent by parent and each fetched
//! by its hash, until a parent is a block of ours.

use shepherd_log::BlockRef;

/// What a block on the way back along the node's branch means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// It is ours too: the common ancestor.
    Shared,
    /// It is not ours; its parent may be.
    Further,
    /// The common ancestor is further back than a reorg may go.
    TooDeep,
    /// The journal does not reach down to here.
    BelowJournal,
}

/// Decides what a block of the node's branch means, next to ours of the same height. The common
/// ancestor may not be below `floor`.
pub(crate) fn walk(ours: Option<BlockRef>, theirs: BlockRef, floor: u64) -> Walk {
    let Some(ours) = ours else { return Walk::BelowJournal };
    if theirs.number < floor {
        return Walk::TooDeep;
    }
    if ours == theirs {
        return Walk::Shared;
    }
    if theirs.number == 0 {
        return Walk::BelowJournal;
    }
    if theirs.number == floor {
        return Walk::TooDeep;
    }
    Walk::Further
}

#[cfg(test)]
mod tests {
    use alloy_primitives::B256;

    use super::*;

    #[test]
    fn walks() {
        check((Some((8, 0xa)), (8, 0xa), 6), Walk::Shared);
        check((Some((8, 0xa)), (8, 0xb), 6), Walk::Further);
        check((Some((7, 0xa)), (7, 0xb), 6), Walk::Further);
        check((Some((6, 0xa)), (6, 0xa), 6), Walk::Shared);
        check((Some((6, 0xa)), (6, 0xb), 6), Walk::TooDeep);
        check((Some((5, 0xa)), (5, 0xa), 6), Walk::TooDeep);
        check((Some((0, 0xa)), (0, 0xa), 0), Walk::Shared);
        check((Some((0, 0xa)), (0, 0xb), 0), Walk::BelowJournal);
        check((None, (5, 0xb), 0), Walk::BelowJournal);
        check((None, (5, 0xb), 6), Walk::BelowJournal);
    }

    fn check(case: (Option<(u64, u8)>, (u64, u8), u64), expected: Walk) {
        let (ours, theirs, floor) = case;
        let block = |(number, hash)| BlockRef { number, hash: B256::repeat_byte(hash) };
        assert_eq!(walk(ours.map(block), block(theirs), floor), expected, "{case:?}");
    }
}
