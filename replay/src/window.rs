//! Which stretch of history is backtested.
//!
//! ```text
//!            from         start            end
//!   … [blk] | [blk] [blk] | [blk] [blk]   |  …
//!             └ warm-up ──┘ └ reported ───┘
//! ```
//!
//! All bounds are found by block: by number, or by the block's own time. A bound stands at the
//! record of the block that counts at that height now, so that no later revert goes back before
//! the beginning.

use std::{fmt, str::FromStr, time::Duration};

use jiff::{Timestamp, civil, tz::TimeZone};
use shepherd_log::{BlockRef, Journal, Offset, ReadError, RecordView};

/// A stretch of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first record that is run.
    pub from: Offset,
    /// The first record that is reported. Those before it warm the module up.
    pub start: Offset,
    /// The first record that is not run.
    pub end: Offset,
}

/// One end of a window: a block, or a moment of block time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The block of this number.
    Block(u64),
    /// The first block that is not before this moment.
    Time(Timestamp),
}

/// How much is run before the window, so that a module knows what it would know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WarmUp {
    /// Nothing.
    #[default]
    Nothing,
    /// So much block time.
    For(Duration),
    /// Everything the journal has.
    All,
}

/// A window as it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowAsked {
    /// Where it begins; with the journal when nothing says so.
    pub begin: Begin,
    /// The first block that is not in it; the journal's tail when it is left out.
    pub to: Option<Bound>,
    /// What is run before it.
    pub warm_up: WarmUp,
}

/// Where a window begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Begin {
    /// With the first block of the journal.
    #[default]
    Journal,
    /// With this block.
    At(Bound),
    /// So much block time before its end.
    Last(Duration),
}

/// A window that cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// It begins before the journal.
    #[error("{what} begins at {asked}, before the journal, which begins at block {first}")]
    BeforeJournal {
        /// The window, or its warm-up.
        what: &'static str,
        /// Where it should begin.
        asked: Bound,
        /// The first block, and its time.
        first: Shown,
    },
    /// It ends beyond the journal.
    #[error("the window ends at {asked}, beyond the journal, which ends with block {head}")]
    BeyondTail {
        /// Where it should end.
        asked: Bound,
        /// The last block, and its time.
        head: Shown,
    },
    /// There is no block in it.
    #[error(
        "there is no block in the window: it begins at block {begin} and ends before block {end}"
    )]
    Empty {
        /// The first block that would be in it.
        begin: u64,
        /// The first block that is not.
        end: u64,
    },
    /// There is no block in the journal.
    #[error("the journal has no block yet")]
    NoBlock,
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] ReadError),
}

/// A block and its time, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The block's number.
    pub number: u64,
    /// Its time, in seconds since 1970.
    pub timestamp: u64,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.number, moment(self.timestamp))
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::Block(number) => write!(f, "block {number}"),
            Bound::Time(time) => write!(f, "{time}"),
        }
    }
}

/// Text that is no bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is neither a block number nor a time: write 19000000, 2026-07-01 or \
     2026-07-01T12:30:00Z"
)]
pub struct InvalidBound(pub String);

impl FromStr for Bound {
    type Err = InvalidBound;

    /// A number, an RFC 3339 time, or a day or a time of day without a zone, which is UTC.
    fn from_str(text: &str) -> Result<Bound, InvalidBound> {
        if let Ok(number) = text.parse() {
            return Ok(Bound::Block(number));
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Bound::Time(time));
        }
        let in_utc = |time: civil::DateTime| TimeZone::UTC.to_timestamp(time).ok();
        let time = text.parse::<civil::DateTime>().ok().and_then(in_utc);
        time.map(Bound::Time).ok_or(InvalidBound(text.to_owned()))
    }
}

impl Window {
    /// Finds the records of a window.
    pub fn resolve(journal: &Journal, asked: WindowAsked) -> Result<Window, WindowError> {
        let chain = Canonical::of(journal)?;
        let end = match asked.to {
            None => chain.head.number + 1,
            Some(bound) => match chain.first_from(bound)? {
                Some(number) => number.max(chain.first.number),
                // The block after the head is the last that can be named.
                None if bound == Bound::Block(chain.head.number + 1) => chain.head.number + 1,
                None => return Err(WindowError::BeyondTail { asked: bound, head: chain.head }),
            },
        };
        let begin = match asked.begin {
            Begin::Journal => chain.first.number,
            Begin::At(bound) => chain.begin("the window", bound)?,
            Begin::Last(duration) => {
                // Counted from the last block that is in it.
                let last = end.saturating_sub(1).max(chain.first.number);
                let time = chain.shown(last)?.timestamp.saturating_sub(duration.as_secs());
                chain.begin("the window", Bound::Time(at(time)))?
            }
        };
        if end <= begin {
            return Err(WindowError::Empty { begin, end });
        }
        let from = match asked.warm_up {
            WarmUp::Nothing => begin,
            WarmUp::All => chain.first.number,
            WarmUp::For(duration) => {
                let time = chain.shown(begin)?.timestamp.saturating_sub(duration.as_secs());
                chain.begin("the warm-up", Bound::Time(at(time)))?
            }
        };
        let end = match end > chain.head.number {
            true => chain.tail,
            false => chain.block(end)?.0,
        };
        Ok(Window { from: chain.block(from)?.0, start: chain.block(begin)?.0, end })
    }
}

/// The blocks of a journal that count.
struct Canonical<'j> {
    journal: &'j Journal,
    first: Shown,
    head: Shown,
    tail: Offset,
}

impl Canonical<'_> {
    fn of(journal: &Journal) -> Result<Canonical<'_>, WindowError> {
        let tail = journal.tail();
        let head = tail.head.ok_or(WindowError::NoBlock)?;
        let mut first = None;
        for stored in journal.read(journal.start()..tail.offset) {
            let stored = stored?;
            if let RecordView::Block(block) = stored.record()
                && journal.abandoned_by(stored.offset()).is_none()
            {
                first = Some(Shown { number: block.this.number, timestamp: block.timestamp });
                break;
            }
        }
        let first = first.ok_or(WindowError::NoBlock)?;
        let mut chain = Canonical { journal, first, head: first, tail: tail.offset };
        chain.head = chain.shown(head.number)?;
        Ok(chain)
    }

    fn block(&self, number: u64) -> Result<(Offset, BlockRef), WindowError> {
        let found = self.journal.canonical(number).map_err(ReadError::Storage)?;
        // Between the first and the head there is one at every height, unless a reorg has taken
        // back the head since.
        found.ok_or(WindowError::NoBlock)
    }

    fn shown(&self, number: u64) -> Result<Shown, WindowError> {
        let (offset, _) = self.block(number)?;
        let stored = self.journal.read(offset..offset.plus(1)).next();
        match stored.expect("indexed records are in the journal")?.record() {
            RecordView::Block(block) => Ok(Shown { number, timestamp: block.timestamp }),
            _ => unreachable!("the block index points at blocks"),
        }
    }

    /// The first block that is not before a bound, `None` when all are. The journal may begin
    /// after it.
    fn first_from(&self, bound: Bound) -> Result<Option<u64>, WindowError> {
        let time = match bound {
            Bound::Block(number) => return Ok((number <= self.head.number).then_some(number)),
            Bound::Time(time) => time,
        };
        let is_before = |timestamp: u64| at(timestamp) < time;
        if is_before(self.head.timestamp) {
            return Ok(None);
        }
        let (mut low, mut high) = (self.first.number, self.head.number);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(self.shown(middle)?.timestamp) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(Some(low))
    }

    /// The block that something begins with.
    fn begin(&self, what: &'static str, bound: Bound) -> Result<u64, WindowError> {
        let first = self.first;
        let is_before = match bound {
            Bound::Block(number) => number < first.number,
            // The chain itself begins there.
            Bound::Time(_) if first.number == 0 => false,
            Bound::Time(time) => time < at(first.timestamp),
        };
        if is_before {
            return Err(WindowError::BeforeJournal { what, asked: bound, first });
        }
        let head = self.head;
        self.first_from(bound)?.ok_or(WindowError::BeyondTail { asked: bound, head })
    }
}

fn at(seconds: u64) -> Timestamp {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::MAX)
}

fn moment(seconds: u64) -> String {
    at(seconds).to_string()
}
