//! How a block relates to our head.

use shepherd_log::{BlockRef, Header};

/// How a block relates to our head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It is our head.
    Same,
    /// It is the next block of our branch.
    Extends,
    /// There are blocks in between that we do not have.
    Ahead,
    /// Its parent is not our head: the node is behind, or on another branch.
    Diverges,
}

/// Decides how a block relates to our head.
pub fn link(head: BlockRef, header: &Header) -> Link {
    if header.this == head {
        return Link::Same;
    }
    if head.number + 1 < header.this.number {
        return Link::Ahead;
    }
    if head.number + 1 == header.this.number && header.parent == head.hash {
        return Link::Extends;
    }
    Link::Diverges
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{B256, Bytes};

    use super::*;

    #[test]
    fn links() {
        check((7, 0xa), (7, 0xa, 0x9), Link::Same);
        check((7, 0xa), (8, 0xb, 0xa), Link::Extends);
        check((7, 0xa), (8, 0xb, 0xc), Link::Diverges);
        check((7, 0xa), (9, 0xc, 0xb), Link::Ahead);
        check((7, 0xa), (9, 0xc, 0xa), Link::Ahead);
        check((7, 0xa), (7, 0xb, 0x9), Link::Diverges);
        check((7, 0xa), (6, 0x9, 0x8), Link::Diverges);
        check((7, 0xa), (0, 0x1, 0x0), Link::Diverges);
    }

    fn check(head: (u64, u8), header: (u64, u8, u8), expected: Link) {
        let (number, hash, parent) = header;
        let header = Header {
            this: BlockRef { number, hash: B256::repeat_byte(hash) },
            parent: B256::repeat_byte(parent),
            timestamp: 0,
            rlp: Bytes::new(),
        };
        let head = BlockRef { number: head.0, hash: B256::repeat_byte(head.1) };
        assert_eq!(link(head, &header), expected);
    }
}
