//! Going over a lane's last records once more, to see whether they come to the same.
//!
//! ```text
//!            undo                           cursor
//!   … [blk] [blk] [rev] [blk] [blk] [blk] |
//!           └── again, from the tape ────┘  the same digest and state, or a difference
//! ```
//!
//! What can be taken back is taken back in memory, and the records are passed by the function that
//! passed them before. Nothing is written. After a crash this shows within a moment that the code,
//! the configuration, the journal, the tape and the state still belong together.

use shepherd_host::Reads;
use shepherd_log::{Digest, Offset};

use crate::advance::{Outside, Runner, Stop};

/// What a rehearsal came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// The records that were gone over: from the oldest block that could be taken back to the
    /// cursor. Empty when there was none.
    pub records: std::ops::Range<Offset>,
    /// How it differs from what was committed.
    pub difference: Option<RehearsalDifference>,
}

/// How a rehearsal differs from what was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RehearsalDifference {
    /// The records among which the first one lies that did something else.
    pub records: std::ops::Range<Offset>,
    /// The lane digest that they left when they were committed.
    pub committed: Digest,
    /// The one they leave now.
    pub rehearsed: Digest,
    /// The first key whose value is another in the end.
    pub key: Option<Vec<u8>>,
}

impl Runner {
    /// Goes over the lane's last records once more. `reads` should be the lane's own tape.
    ///
    /// Nothing is written, whatever it comes to.
    pub fn rehearse(&mut self, reads: &mut dyn Reads) -> Result<Rehearsal, Stop> {
        let end = self.lane().cursor().next;
        let committed = self.lane().cursor().digest;
        let mut outside = Outside::World(reads);
        let mut advance = self.begin();
        let digests = advance.go_back()?;
        let Some((start, _)) = digests.first().copied() else {
            return Ok(Rehearsal { records: end..end, difference: None });
        };
        let mut expected = digests.into_iter().skip(1).chain([(end, committed)]).peekable();
        let mut from = start;
        let mut difference = None;
        while advance.next() < end {
            let at = advance.next();
            if expected.next_if(|(offset, _)| *offset <= at).is_some() {
                from = at;
            }
            advance.pass_next(&mut outside)?;
            let next = advance.next();
            if let Some((offset, digest)) = expected.peek().copied()
                && offset == next
                && digest != advance.digest()
                && difference.is_none()
            {
                let (committed, rehearsed) = (digest, advance.digest());
                difference = Some((from..next, committed, rehearsed));
            }
        }
        let key = advance.first_difference()?;
        let difference = match (difference, key) {
            (Some((records, committed, rehearsed)), key) => {
                Some(RehearsalDifference { records, committed, rehearsed, key })
            }
            // The digests fit, so what is stored has changed since.
            (None, Some(key)) => {
                let rehearsed = advance.digest();
                Some(RehearsalDifference {
                    records: start..end,
                    committed,
                    rehearsed,
                    key: Some(key),
                })
            }
            (None, None) => None,
        };
        Ok(Rehearsal { records: start..end, difference })
    }
}
