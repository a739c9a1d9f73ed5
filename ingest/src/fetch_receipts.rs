//! Fetches the receipts of blocks: all of a block at once from endpoints that know how, or else
//! transaction by transaction.

use alloy_primitives::B256;
use serde_json::json;
use shepherd_log::{Block, BlockRef};
use shepherd_rpc::{Answer, Call, EndpointId, RpcError};

use crate::{
    FetchError,
    fetch::{Asked, BadAnswer, Fetched, Fetcher, blocking, json_bytes},
    receipts,
    verify::{BloomHashes, VerifiedHeader},
    wire::{self, WireReceipt},
};

impl Fetcher {
    /// The blocks of these headers, with the logs that their receipts hold.
    pub(crate) async fn receipts(
        &self,
        headers: Vec<VerifiedHeader>,
    ) -> Result<Fetched<Vec<Block>>, FetchError> {
        let checks = self.checks;
        let blocks: Vec<BlockRef> = headers
            .iter()
            .filter(|header| !header.has_no_logs(checks.trust))
            .map(|header| header.header.this)
            .collect();
        let calls: Vec<Call> =
            blocks.iter().map(|block| hash_call("eth_getBlockReceipts", block.hash)).collect();
        let batch = self.pool.batch(&calls).await?;
        let from = batch.from;
        let mut json_bytes = json_bytes(&batch.answers);
        let is_apart: Vec<bool> = batch.answers.iter().map(is_unknown_method).collect();
        let apart = blocks.iter().zip(&is_apart).filter(|(_, apart)| **apart);
        let apart = self.receipts_apart(apart.map(|(block, _)| *block).collect()).await?;
        json_bytes += apart.json_bytes;
        let mut apart = apart.value.into_iter();
        let mut came =
            batch.answers.into_iter().zip(is_apart).map(move |(answer, is_apart)| match is_apart {
                true => apart.next().expect("each block that was asked for apart came"),
                false => Came { from, answers: Answers::Together(answer) },
            });
        let value = blocking(move || {
            let mut hashes = BloomHashes::default();
            headers
                .into_iter()
                .map(|header| {
                    let asked = Asked::Receipts(header.header.this);
                    let (from, wire) = match header.has_no_logs(checks.trust) {
                        // Nor are its receipts needed: its hash commits to the bloom as well.
                        true => return Ok(Block { header: header.header, logs: Vec::new() }),
                        false => came.next().expect("a batch has an answer for each call").read(),
                    };
                    let block = wire
                        .and_then(|wire| Ok(receipts::block(header, wire, checks, &mut hashes)?));
                    block.map_err(|source| (from, asked, Box::new(source)))
                })
                .collect::<Result<Vec<_>, _>>()
        })
        .await
        .map_err(|(from, asked, source)| self.bad(from, asked, source))?;
        Ok(Fetched { value, from, json_bytes })
    }

    /// The receipts of these blocks, asked for one by one.
    async fn receipts_apart(
        &self,
        blocks: Vec<BlockRef>,
    ) -> Result<Fetched<Vec<Came>>, FetchError> {
        let calls: Vec<Call> = blocks
            .iter()
            .map(|block| Call { method: "eth_getBlockByHash", params: json!([block.hash, false]) })
            .collect();
        let batch = self.pool.batch(&calls).await?;
        let mut bytes = json_bytes(&batch.answers);
        let transactions = blocks
            .iter()
            .zip(batch.answers)
            .map(|(block, answer)| {
                read_transactions(answer)
                    .map_err(|error| self.bad(batch.from, Asked::Block(*block), Box::new(error)))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let calls: Vec<Call> = transactions
            .iter()
            .flatten()
            .map(|transaction| hash_call("eth_getTransactionReceipt", *transaction))
            .collect();
        let batch = self.pool.batch(&calls).await?;
        bytes += json_bytes(&batch.answers);
        let from = batch.from;
        let mut answers = batch.answers.into_iter();
        let value = transactions
            .iter()
            .map(|transactions| {
                let answers = answers.by_ref().take(transactions.len()).collect();
                Came { from, answers: Answers::Apart(answers) }
            })
            .collect();
        Ok(Fetched { value, from, json_bytes: bytes })
    }
}

/// What came when the receipts of a block were asked for.
struct Came {
    from: EndpointId,
    answers: Answers,
}

enum Answers {
    Together(Result<Answer, RpcError>),
    Apart(Vec<Result<Answer, RpcError>>),
}

impl Came {
    fn read(self) -> (EndpointId, Result<Vec<WireReceipt>, BadAnswer>) {
        let receipts = match self.answers {
            Answers::Together(answer) => read_together(answer),
            Answers::Apart(answers) => answers.into_iter().map(read_one).collect(),
        };
        (self.from, receipts)
    }
}

fn read_together(answer: Result<Answer, RpcError>) -> Result<Vec<WireReceipt>, BadAnswer> {
    wire::receipts(&answer?)?.ok_or(BadAnswer::Absent)
}

fn read_one(answer: Result<Answer, RpcError>) -> Result<WireReceipt, BadAnswer> {
    wire::receipt(&answer?)?.ok_or(BadAnswer::Absent)
}

fn read_transactions(answer: Result<Answer, RpcError>) -> Result<Vec<B256>, BadAnswer> {
    wire::transactions(&answer?)?.ok_or(BadAnswer::Absent)
}

fn hash_call(method: &'static str, hash: B256) -> Call {
    Call { method, params: json!([hash]) }
}

/// Whether an endpoint answers that it does not know the method, in one of the ways they have.
fn is_unknown_method(answer: &Result<Answer, RpcError>) -> bool {
    const PHRASES: [&str; 5] =
        ["method not found", "does not exist", "not supported", "unsupported", "not available"];
    let Err(error) = answer else { return false };
    let message = error.message.to_lowercase();
    error.code == -32601 || PHRASES.iter().any(|phrase| message.contains(phrase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_have_many_ways_to_not_know_a_method() {
        check(-32601, "no such method", true);
        check(-32000, "the method eth_getBlockReceipts does not exist/is not available", true);
        check(-32004, "Method not supported", true);
        check(-32600, "Unsupported method: eth_getBlockReceipts", true);
        check(-32000, "unknown block", false);
        check(-32005, "limit exceeded", false);
    }

    fn check(code: i64, message: &str, expected: bool) {
        assert_eq!(is_unknown_method(&Err(RpcError::new(code, message))), expected, "{message}");
    }
}
