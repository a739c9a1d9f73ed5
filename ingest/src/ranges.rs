//! How many blocks of logs to ask for at once.
//!
//! Providers limit ranges in blocks, in results, in bytes and in time, in words of their own, and
//! some cut an answer short without a word. So a range that was refused or did not hold up is
//! halved, whatever was said. What was said decides whether it may grow again: a limit in blocks
//! stays what it is, while the blocks ahead may well hold less.

use std::sync::{Mutex, MutexGuard};

use shepherd_rpc::{Failure, PoolError, RpcError};

/// The width of the next range, shared by all fetches of a chain.
pub(crate) struct Ranges {
    width: Mutex<Width>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Width {
    /// Blocks of the next range.
    blocks: u64,
    /// Widest range that no endpoint is known to refuse.
    blocks_max: u64,
    /// Ranges that held up since the last one that did not.
    held_up: u32,
    /// As many must hold up before the width grows.
    patience: u32,
}

/// What a refusal of a range is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its width, wherever it is.
    Width {
        /// The widest that is accepted, if that was said.
        blocks_max: Option<u64>,
    },
    /// What these blocks hold, or something that was not understood.
    Content,
}

/// Ranges that must hold up in a row before a wider one is tried, at most. Ranges that fail cost
/// as much as those that do not, and are then asked for again block by block.
const PATIENCE_MAX: u32 = 64;

/// Texts of endpoints that limit the number of blocks in a range. Compared in lower case.
///
/// | text | who says so |
/// |---|---|
/// | `block range is too wide` | Ankr; Frontier (Moonbeam): `(maximum 1024)` |
/// | `block range too large`, `block range is too large` | Base, Optimism, Monad |
/// | `are limited to a 10,000 blocks range`, code -32614 | QuickNode, 1RPC |
/// | `range 1000000 exceeds limit of 10000`, code -32602 | Infura since 2026 (INFURA/infura#237) |
/// | `is bigger than range limit 2000` | Tenderly |
/// | `block range is larger than max block range` | Morph |
/// | `exceed maximum block range: 5000` | BNB chain, Heco, PublicNode |
/// | `limit the query to at most 1000 blocks` | drpc, Blast |
/// | `up to a 10 block range`, `up to a 2k block range` | Alchemy |
/// | `block range limit exceeded` | Chainstack |
const WIDTH: [&str; 5] =
    ["block range", "blocks range", "range limit", "exceeds limit of", "at most"];

/// Code of QuickNode for a range that is too wide.
const WIDTH_CODE: i64 = -32614;

/// Texts that speak of results or bytes, and perhaps of blocks as advice.
///
/// | text | who says so |
/// |---|---|
/// | `query returned more than 10000 results. Try with this block range [0x…, 0x…]`, code -32005 | Infura, zkSync, Thirdweb |
/// | `log response size exceeded. … this block range should work: [0x…, 0x…]` | Alchemy |
/// | `logs matched by query exceeds limit of 10000` | Arbitrum |
/// | `query exceeds max results 20000, retry with the range 1-2` | reth, erigon, LlamaRPC |
/// | `response size should not greater than 10000000 bytes` | 1RPC, NodeReal |
/// | `backend response too large`, `response is too big` | Optimism, Ankr |
/// | `block range extends beyond current head block` | geth, when it lags |
const CONTENT: [&str; 6] =
    ["results", "response size", "logs matched", "response too", "too big", "beyond"];

impl Ranges {
    /// Ranges of up to this many blocks, and that many at first.
    pub(crate) fn up_to(blocks_max: usize) -> Ranges {
        let blocks = blocks_max.max(1) as u64;
        let width = Width { blocks, blocks_max: blocks, held_up: 0, patience: 1 };
        Ranges { width: Mutex::new(width) }
    }

    /// Blocks of the next range. One block is better asked for by its hash.
    pub(crate) fn width(&self) -> u64 {
        self.lock().blocks
    }

    /// Notes that a range of this many blocks was refused.
    pub(crate) fn refused(&self, blocks: u64, refusal: Refusal) {
        let mut width = self.lock();
        match refusal {
            Refusal::Content => width.narrow(blocks),
            Refusal::Width { blocks_max } => {
                // A limit that was kept to and refused all the same is not the one that counts.
                let believed = blocks_max.filter(|max| *max < blocks).unwrap_or(blocks / 2);
                width.blocks_max = width.blocks_max.min(believed).max(1);
                width.blocks = width.blocks.min(width.blocks_max);
            }
        }
    }

    /// Notes that the answer to a range of this many blocks was not all of it.
    pub(crate) fn fell_short(&self, blocks: u64) {
        self.lock().narrow(blocks);
    }

    /// Notes that ranges of this width held up, or blocks that were asked for one by one.
    pub(crate) fn held_up(&self, blocks: u64) {
        self.lock().widen(blocks);
    }

    fn lock(&self) -> MutexGuard<'_, Width> {
        self.width.lock().expect("nothing panics while it holds the width")
    }
}

impl Width {
    fn narrow(&mut self, blocks: u64) {
        // Several fetches are under way with one width: only the first to fail narrows it.
        if self.blocks < blocks {
            return;
        }
        self.held_up = 0;
        self.patience = (self.patience * 2).min(PATIENCE_MAX);
        self.blocks = (self.blocks / 2).max(1);
    }

    fn widen(&mut self, blocks: u64) {
        if blocks < self.blocks {
            return;
        }
        self.held_up += 1;
        if self.patience <= self.held_up {
            self.held_up = 0;
            self.blocks = (self.blocks * 2).min(self.blocks_max);
        }
    }
}

/// What an endpoint's refusal of a range is about.
pub(crate) fn refusal(error: &RpcError) -> Refusal {
    let message = error.message.to_lowercase();
    let is_about_width =
        error.code == WIDTH_CODE || WIDTH.iter().any(|phrase| message.contains(phrase));
    let is_about_content = CONTENT.iter().any(|phrase| message.contains(phrase));
    match is_about_width && !is_about_content {
        true => Refusal::Width { blocks_max: last_number(&message) },
        false => Refusal::Content,
    }
}

/// The last decimal number of a text, which may group its digits; `2k` is two thousand.
fn last_number(text: &str) -> Option<u64> {
    let mut last = None;
    for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != ',') {
        let word = word.trim_matches(',');
        let (digits, unit) = match word.strip_suffix('k') {
            Some(digits) => (digits, 1000),
            None => (word, 1),
        };
        if let Ok(number) = digits.replace(',', "").parse::<u64>() {
            last = number.checked_mul(unit);
        }
    }
    last
}

/// Whether no endpoint answers because it had to carry too much: a narrower range may do.
pub(crate) fn is_too_much(error: &PoolError) -> bool {
    let PoolError::NoAnswer { failures, .. } = error else { return false };
    // 413: content too large; 502 to 504 are how a gateway says that its node took too long.
    failures.iter().any(|(_, failure)| {
        matches!(
            failure,
            Failure::TooLarge { .. }
                | Failure::TimedOut { .. }
                | Failure::Status { status: 400 | 413 | 502..=504 }
        )
    })
}

/// Whether an answer of this many logs looks cut off rather than complete: providers truncate in
/// silence at round counts, from a hundred on.
pub(crate) fn looks_cut_off(logs: usize) -> bool {
    let mut rest = logs;
    while 10 <= rest && rest.is_multiple_of(10) {
        rest /= 10;
    }
    100 <= logs && matches!(rest, 1 | 2 | 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn width(blocks_max: Option<u64>) -> Refusal {
        Refusal::Width { blocks_max }
    }

    #[test]
    fn refusals_are_told_apart() {
        let cases = [
            (-32000, "block range is too wide", width(None)),
            (-32603, "block range is too wide (maximum 1024)", width(Some(1024))),
            (-32000, "Block range too large", width(None)),
            (-32614, "eth_getLogs is limited to a 10,000 range", width(Some(10_000))),
            (
                -32602,
                "eth_getLogs and eth_newFilter are limited to a 5 blocks range",
                width(Some(5)),
            ),
            (-32602, "range 1000000 exceeds limit of 10000", width(Some(10_000))),
            (-32602, "range 9009594 is bigger than range limit 2000", width(Some(2000))),
            (-32000, "exceed maximum block range: 5000", width(Some(5000))),
            (-32602, "please limit the query to at most 1000 blocks", width(Some(1000))),
            (
                -32600,
                "You can make eth_getLogs requests with up to a 10 block range",
                width(Some(10)),
            ),
            (-32602, "block range, up to 2K", width(Some(2000))),
            (-32005, "query returned more than 10000 results", Refusal::Content),
            (
                -32005,
                "query returned more than 10000 results. Try with this block range [0x1, 0x2].",
                Refusal::Content,
            ),
            (
                -32602,
                "Log response size exceeded. You can make eth_getLogs requests with up to a 2K \
                 block range and no limit on the response size",
                Refusal::Content,
            ),
            (-32000, "logs matched by query exceeds limit of 10000", Refusal::Content),
            (-32000, "query exceeds max results 20000, retry with the range 1-2", Refusal::Content),
            (-32000, "response size should not greater than 10000000 bytes", Refusal::Content),
            (-32020, "backend response too large", Refusal::Content),
            (-32000, "block range extends beyond current head block", Refusal::Content),
            (-32005, "limit exceeded", Refusal::Content),
            (-32000, "something new", Refusal::Content),
        ];
        for (code, text, expected) in cases {
            assert_eq!(refusal(&RpcError::new(code, text)), expected, "{text}");
        }
    }

    #[test]
    fn a_limit_in_blocks_is_remembered() {
        let ranges = Ranges::up_to(100);
        ranges.refused(100, width(Some(40)));
        assert_eq!(ranges.width(), 40);
        for _ in 0..200 {
            ranges.held_up(40);
        }
        assert_eq!(ranges.width(), 40);
        ranges.refused(40, width(None));
        assert_eq!(ranges.width(), 20);
        // A limit that was kept to and refused all the same is not believed.
        ranges.refused(20, width(Some(20)));
        assert_eq!(ranges.width(), 10);
        ranges.refused(1, width(None));
        assert_eq!(ranges.width(), 1);
    }

    #[test]
    fn dense_blocks_narrow_the_range_until_some_held_up() {
        let ranges = Ranges::up_to(100);
        ranges.refused(100, Refusal::Content);
        ranges.refused(100, Refusal::Content);
        assert_eq!(ranges.width(), 50);
        ranges.fell_short(50);
        assert_eq!(ranges.width(), 25);
        let mut needed = 0;
        while ranges.width() == 25 {
            ranges.held_up(25);
            needed += 1;
        }
        assert_eq!((needed, ranges.width()), (4, 50));
    }

    #[test]
    fn an_endpoint_that_refuses_every_range_is_rarely_asked_for_one() {
        let ranges = Ranges::up_to(100);
        let mut refused = 0;
        for _ in 0..10_000 {
            let width = ranges.width();
            if width < 2 {
                ranges.held_up(1);
            } else {
                ranges.refused(width, Refusal::Content);
                refused += 1;
            }
        }
        assert!(refused < 200, "{refused}");
    }

    #[test]
    fn round_counts_look_cut_off() {
        for logs in [100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000] {
            assert!(looks_cut_off(logs), "{logs}");
        }
        for logs in [0, 1, 10, 50, 99, 101, 110, 300, 999, 1500, 9999, 10_001] {
            assert!(!looks_cut_off(logs), "{logs}");
        }
    }

    #[test]
    fn what_was_too_much_may_do_in_parts() {
        let fails = |failure| {
            let failures = vec![("http://a".to_owned(), failure)];
            is_too_much(&PoolError::NoAnswer { failures, retry_in: std::time::Duration::ZERO })
        };
        assert!(fails(Failure::TooLarge { limit_bytes: 1 }));
        assert!(fails(Failure::TimedOut { reason: String::new() }));
        assert!(fails(Failure::Status { status: 413 }));
        assert!(!fails(Failure::Status { status: 401 }));
        assert!(!fails(Failure::RateLimited { retry_after: None }));
    }
}
