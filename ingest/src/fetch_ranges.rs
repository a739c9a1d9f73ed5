//! Fetches old blocks with their logs by ranges of heights.
//!
//! ```text
//!   headers by number  ──┐
//!   logs by range      ──┴─▶ each block with its logs ─┬─ holds up ─────────────▶ done
//!                                                      └─ does not, or refused ─▶ logs by hash
//! ```
//!
//! A range answers for many blocks in one call, and is the easiest thing to answer wrongly: a node
//! that lacks a block answers as if it were empty, and a provider cuts off what is too long. So a
//! range is only a guess at what the blocks hold. Each block is verified like any other, and what
//! the range did not give is asked for by hash, which alone can speak against an endpoint.

use std::ops::Range;

use serde_json::json;
use shepherd_log::Block;
use shepherd_rpc::{Answer, Call, RpcError};

use crate::{
    Checks, FetchError, Trust,
    fetch::{Fetched, Fetcher, blocking, json_bytes},
    ranges::{self, Ranges, Refusal},
    verify::{self, BloomHashes, VerifiedHeader},
    wire,
};

/// What came of all ranges of a fetch.
#[derive(Default)]
struct Given {
    /// By height; `None` where the logs did not hold up.
    blocks: Vec<Option<Block>>,
    /// The headers of those that are `None`.
    again: Vec<VerifiedHeader>,
}

/// What came of one range.
enum Outcome {
    HeldUp,
    FellShort,
    Refused(Refusal),
}

impl Fetcher {
    /// The canonical blocks at these heights with all their logs, asked for by range where a range
    /// that is cut short would be noticed. They need not link: the chain may change meanwhile.
    pub(crate) async fn history(
        &self,
        heights: Range<u64>,
        ranges: &Ranges,
    ) -> Result<Fetched<Vec<Block>>, FetchError> {
        let width = ranges.width();
        match self.checks.trust {
            // Nothing would tell that a range lacks logs.
            Trust::Link => self.range(heights).await,
            // The logs are those of the receipts.
            Trust::Receipts => self.range(heights).await,
            Trust::Bloom if width < 2 => {
                let fetched = self.range(heights).await?;
                ranges.held_up(width);
                Ok(fetched)
            }
            Trust::Bloom => self.by_ranges(heights, width, ranges).await,
        }
    }

    async fn by_ranges(
        &self,
        heights: Range<u64>,
        width: u64,
        ranges: &Ranges,
    ) -> Result<Fetched<Vec<Block>>, FetchError> {
        let spans = spans(heights.clone(), width);
        let calls: Vec<Call> = spans.iter().map(range_call).collect();
        let (headers, logs) =
            futures::future::join(self.headers(heights), self.pool.batch(&calls)).await;
        let logs = logs.inspect_err(|error| {
            // Where headers came and logs did not, the range was more than the endpoint could
            // carry, however it went down under it.
            if headers.is_ok() || ranges::is_too_much(error) {
                ranges.refused(width, Refusal::Content);
            }
        })?;
        let Fetched { value: headers, from, json_bytes: header_bytes } = headers?;
        let mut bytes = header_bytes + json_bytes(&logs.answers);
        let checks = self.checks;
        let widths: Vec<u64> = spans.iter().map(|span| span.end - span.start).collect();
        let (given, outcomes) =
            blocking(move || distribute(headers, spans, logs.answers, checks)).await;
        for (blocks, outcome) in widths.into_iter().zip(outcomes) {
            match outcome {
                Outcome::HeldUp => ranges.held_up(blocks),
                Outcome::FellShort => ranges.fell_short(blocks),
                Outcome::Refused(refusal) => ranges.refused(blocks, refusal),
            }
        }
        let mut by_hash = Vec::new();
        if !given.again.is_empty() {
            let fetched = self.logs(given.again).await?;
            bytes += fetched.json_bytes;
            by_hash = fetched.value;
        }
        let mut by_hash = by_hash.into_iter();
        let value = given
            .blocks
            .into_iter()
            .map(|block| block.or_else(|| by_hash.next()).expect("each that lacked was fetched"))
            .collect();
        Ok(Fetched { value, from, json_bytes: bytes })
    }
}

/// Heights in parts of at most this width.
pub(crate) fn spans(heights: Range<u64>, width: u64) -> Vec<Range<u64>> {
    let mut spans = Vec::new();
    let mut start = heights.start;
    while start < heights.end {
        let end = (start + width).min(heights.end);
        spans.push(start..end);
        start = end;
    }
    spans
}

fn range_call(span: &Range<u64>) -> Call {
    let filter = json!({
        "fromBlock": format!("{:#x}", span.start),
        "toBlock": format!("{:#x}", span.end - 1),
    });
    Call { method: "eth_getLogs", params: json!([filter]) }
}

/// Gives each header its logs out of the answers to the ranges that it lies in.
fn distribute(
    headers: Vec<VerifiedHeader>,
    spans: Vec<Range<u64>>,
    answers: Vec<Result<Answer, RpcError>>,
    checks: Checks,
) -> (Given, Vec<Outcome>) {
    let mut given = Given::default();
    let mut outcomes = Vec::with_capacity(spans.len());
    let mut headers = headers.into_iter();
    let mut hashes = BloomHashes::default();
    for (span, answer) in spans.into_iter().zip(answers) {
        let headers = headers.by_ref().take((span.end - span.start) as usize);
        outcomes.push(match answer {
            Ok(answer) => read_range(headers, &answer, checks, &mut hashes, &mut given),
            Err(error) => {
                tracing::debug!(%error, ?span, "a range of logs was refused");
                headers.for_each(|header| given.lacks(header));
                Outcome::Refused(ranges::refusal(&error))
            }
        });
    }
    (given, outcomes)
}

/// Gives each header of one range its logs, as far as they hold up.
fn read_range(
    headers: impl Iterator<Item = VerifiedHeader>,
    answer: &Answer,
    checks: Checks,
    hashes: &mut BloomHashes,
    given: &mut Given,
) -> Outcome {
    let logs = match wire::logs(answer) {
        Ok(logs) => logs,
        Err(error) => {
            // Not the error itself, which quotes what came.
            let (line, column) = (error.line(), error.column());
            tracing::debug!(line, column, "a range of logs is malformed");
            headers.for_each(|header| given.lacks(header));
            return Outcome::FellShort;
        }
    };
    let cut_off = ranges::looks_cut_off(logs.len());
    let last_with_logs = logs.last().map(|log| log.block_number.0);
    let mut logs = logs.into_iter().peekable();
    let mut outcome = if cut_off { Outcome::FellShort } else { Outcome::HeldUp };
    for header in headers {
        let number = header.header.this.number;
        let mut of_block = Vec::new();
        while let Some(log) = logs.next_if(|log| log.block_number.0 == number) {
            of_block.push(log);
        }
        // The logs that are missing where an answer was cut off may leave the bloom as it was.
        if cut_off && last_with_logs == Some(number) {
            given.lacks(header);
            continue;
        }
        match verify::block(header.clone(), of_block, checks, hashes) {
            Ok(block) => given.blocks.push(Some(block)),
            Err(mismatch) => {
                tracing::debug!(%mismatch, number, "a range of logs does not hold up");
                outcome = Outcome::FellShort;
                given.lacks(header);
            }
        }
    }
    outcome
}

impl Given {
    fn lacks(&mut self, header: VerifiedHeader) {
        self.blocks.push(None);
        self.again.push(header);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_cover_all_heights_once() {
        assert_eq!(spans(5..12, 3), [5..8, 8..11, 11..12]);
        assert_eq!(spans(5..7, 1), [5..6, 6..7]);
        assert_eq!(spans(5..5, 3), []);
    }
}
