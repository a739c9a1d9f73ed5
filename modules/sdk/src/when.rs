//! When something is due: by block or by time.

use std::time::Duration;

use crate::{Block, Header, Input};

/// Where the chain is: the block being handled, and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The block's number.
    pub block: u64,
    /// The block's time, in seconds since 1970.
    pub time: u64,
}

/// When something is due.
///
/// ```
/// use shepherd_sdk::{Moment, When};
///
/// let here = Moment { block: 100, time: 1_700_000_000 };
/// assert!(When::Block(100).is_due(here));
/// assert!(!here.next_block().is_due(here));
/// assert!(When::Time(1_699_999_999).is_due(here));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// From this block on.
    Block(u64),
    /// From the first block of this time on, in seconds since 1970.
    Time(u64),
}

impl When {
    /// Whether it is due by now.
    pub fn is_due(self, now: Moment) -> bool {
        match self {
            When::Block(block) => block <= now.block,
            When::Time(time) => time <= now.time,
        }
    }
}

impl Moment {
    /// Due at the block after this one.
    pub fn next_block(self) -> When {
        When::Block(self.block.saturating_add(1))
    }

    /// Due when this much time has passed.
    pub fn after(self, wait: Duration) -> When {
        When::Time(self.time.saturating_add(wait.as_secs()))
    }
}

impl From<&Header> for Moment {
    fn from(header: &Header) -> Moment {
        Moment { block: header.number, time: header.timestamp }
    }
}

impl From<&Block> for Moment {
    fn from(block: &Block) -> Moment {
        Moment::from(&block.header)
    }
}

impl From<&Input> for Moment {
    fn from(input: &Input) -> Moment {
        Moment::from(input.header())
    }
}

/// How long to wait after so many failures in a row: `first`, then twice as long each time, and
/// never more than a day, so that what has been mended is noticed by the next.
///
/// ```
/// use std::time::Duration;
/// use shepherd_sdk::when::back_off;
///
/// let minute = Duration::from_secs(60);
/// assert_eq!(back_off(minute, 1), minute);
/// assert_eq!(back_off(minute, 4), 8 * minute);
/// assert_eq!(back_off(minute, 1_000), 1_440 * minute);
/// ```
pub fn back_off(first: Duration, failures: u32) -> Duration {
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

    let doublings = failures.saturating_sub(1);
    let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
    first.checked_mul(factor).map_or(LONGEST, |wait| wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_due_from_its_block_or_time_on() {
        let check = |when: When, due: bool| {
            assert_eq!(when.is_due(Moment { block: 7, time: 1000 }), due, "{when:?}");
        };
        check(When::Block(6), true);
        check(When::Block(7), true);
        check(When::Block(8), false);
        check(When::Time(999), true);
        check(When::Time(1000), true);
        check(When::Time(1001), false);
    }

    #[test]
    fn waiting_at_the_end_of_time_does_not_wrap() {
        let end = Moment { block: u64::MAX, time: u64::MAX };
        assert_eq!(end.next_block(), When::Block(u64::MAX));
        assert_eq!(end.after(Duration::from_secs(1)), When::Time(u64::MAX));
    }

    #[test]
    fn a_back_off_doubles_up_to_a_day_whatever_the_count() {
        let check = |failures, seconds| {
            let wait = back_off(Duration::from_secs(60), failures);
            assert_eq!(wait.as_secs(), seconds, "{failures}");
        };
        check(0, 60);
        check(1, 60);
        check(2, 120);
        check(11, 61_440);
        check(12, 86_400);
        check(32, 86_400);
        check(33, 86_400);
        check(u32::MAX, 86_400);
    }
}
