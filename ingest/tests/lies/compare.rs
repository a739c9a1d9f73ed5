//! Whether a journal is what the oracle says it must be.

use shepherd_ingest::{Trust, verify_stored};
use shepherd_log::{Block, BlockRef, Journal, Offset, Record, RecordView};
use shepherd_node::Chain;

/// Compares a journal that begins at block `start` with the truth. Returns how many blocks were
/// abandoned on the way.
pub fn compare(
    journal: &Journal,
    chain: &Chain,
    start: u64,
    trust: Trust,
) -> Result<usize, String> {
    let range = Offset::START..journal.tail().offset;
    let mut canonical: Vec<BlockRef> = Vec::new();
    let mut abandoned = 0;
    for record in journal.read(range.clone()) {
        let record = record.map_err(|error| error.to_string())?;
        match record.record().to_record() {
            Record::Block(block) => {
                is_true(&block, chain)?;
                canonical.push(block.header.this);
            }
            Record::Revert(revert) => {
                let kept = canonical.len().saturating_sub(revert.abandoned.len());
                if canonical.split_off(kept) != revert.abandoned
                    || canonical.last() != Some(&revert.ancestor)
                {
                    return Err(format!("a revert that does not fit: {revert:?}"));
                }
                abandoned += revert.abandoned.len();
            }
            Record::Outcome(_) => return Err("an outcome, and no lane runs here".to_owned()),
        }
    }
    let expected: Vec<BlockRef> = (start..=chain.head().number)
        .filter_map(|number| chain.canonical(number))
        .map(|block| BlockRef { number: block.number, hash: block.hash })
        .collect();
    if canonical != expected {
        return Err(format!("the canonical chain is\n{canonical:?}, not\n{expected:?}"));
    }
    let check = |record: &RecordView<'_>| match record {
        RecordView::Block(block) => verify_stored(block, trust).map_err(|error| error.to_string()),
        _ => Ok(()),
    };
    let verification = journal.verify(range, check).map_err(|error| error.to_string())?;
    match verification.problems.is_empty() {
        true => Ok(abandoned),
        false => Err(format!("the journal has problems: {:?}", verification.problems)),
    }
}

/// Whether a journaled block was produced, and with these logs.
fn is_true(journaled: &Block, chain: &Chain) -> Result<(), String> {
    let this = journaled.header.this;
    let Some(block) = chain.block(this.hash) else {
        return Err(format!("block {this} was journaled and never produced"));
    };
    let mut rlp = Vec::new();
    alloy::rlp::Encodable::encode(&chain.header(block), &mut rlp);
    let header = &journaled.header;
    if (this.number, header.parent, header.timestamp)
        != (block.number, block.parent, block.timestamp)
        || header.rlp != rlp
    {
        return Err(format!("block {this} was journaled with a header that is not its own"));
    }
    let logs = chain.logs(block);
    let same = logs.len() == journaled.logs.len()
        && logs.iter().zip(&journaled.logs).all(|(log, journaled)| {
            log.address == journaled.address
                && log.topics == journaled.topics
                && log.data == journaled.data
                && log.index == journaled.index
                && log.transaction_index == journaled.transaction_index
                && log.transaction_hash == journaled.transaction_hash
        });
    match same {
        true => Ok(()),
        false => Err(format!(
            "block {this} was journaled with other logs than it has: {:?}, not {logs:?}",
            journaled.logs
        )),
    }
}
