//! Reads what a report is made from: the lane's rows, and the journal for what caused them.

use std::{iter::Peekable, ops::Range};

use shepherd_log::{
    BlockRef, EffectId, Journal, LaneSnapshot, Offset, Outcome, RecordView, StorageError,
};

use super::{
    About, ReportError, WindowFacts,
    data::{Abandoned, Asked, Cause, Facts, Handled, Standing},
};

/// How far back the block is looked for that counts at the end. Only outcomes, and blocks that a
/// reorg took back, are between the two.
const BACK_RECORDS_MAX: u64 = 1_000;

/// The window as it is in the journal, and the rows of the lane.
pub(crate) fn of<'a>(
    snapshot: &'a LaneSnapshot,
    journal: &'a Journal,
    about: &'a About,
) -> Result<(WindowFacts, Facts<'a>), ReportError> {
    let start = about.window.start;
    let next = snapshot.cursor().next;
    let end = next.min(about.window.end);
    let mut in_all = Abandoned::default();
    let mut in_window = Abandoned::default();
    for stored in journal.others(about.warm_up_from..end) {
        let stored = stored?;
        if let RecordView::Revert(revert) = stored.record() {
            in_all.add(stored.offset(), &revert);
            if stored.offset() >= start {
                in_window.add(stored.offset(), &revert);
            }
        }
    }
    let first = first_block(journal, start..end)?;
    let last = last_block(journal, start..end)?;
    let window = WindowFacts {
        warm_up_from: about.warm_up_from.get(),
        start: start.get(),
        end: end.get(),
        first_block: first.map(|(number, _)| number),
        first_time: first.map(|(_, time)| time),
        last_block: last.map(|(number, _)| number),
        last_time: last.map(|(_, time)| time),
        reorgs: in_window.reverts,
        abandoned_blocks: in_window.blocks,
    };

    let standing = move |offset: Offset, block: BlockRef| Standing {
        warm_up: offset < start,
        abandoned: in_all.takes_back(offset, block),
    };
    let standing = std::rc::Rc::new(standing);
    let handled = snapshot.traces(about.warm_up_from..end).map({
        let standing = standing.clone();
        move |trace| {
            let trace = trace?;
            Ok(Handled { standing: standing(trace.offset, trace.block), trace })
        }
    });
    let mut outcomes = snapshot.outcomes().peekable();
    let is_before_end = move |row: &Result<(EffectId, _, _), StorageError>| {
        row.as_ref().map_or(true, |(id, _, _)| id.offset < end)
    };
    let asked = snapshot.effects().take_while(is_before_end).map(move |row| {
        let (id, block, effect) = row?;
        let outcome = outcome_of(&mut outcomes, id)?;
        Ok(Asked { id, block, effect, outcome, standing: standing(id.offset, block) })
    });
    let cause = |offset| cause(snapshot, journal, about, offset);
    let facts = Facts {
        handled: Box::new(handled),
        asked: Box::new(asked),
        state: Box::new(snapshot.entries(&[], None).map(|entry| Ok(entry?))),
        cause: Box::new(cause),
    };
    Ok((window, facts))
}

/// The outcome of an effect, where both come in the order of effects.
fn outcome_of(
    outcomes: &mut Peekable<impl Iterator<Item = Result<Outcome, StorageError>>>,
    id: EffectId,
) -> Result<Option<Outcome>, StorageError> {
    while let Some(next) = outcomes.peek() {
        match next {
            Ok(outcome) if outcome.effect > id => return Ok(None),
            _ => {
                let outcome = outcomes.next().expect("it was peeked at")?;
                if outcome.effect == id {
                    return Ok(Some(outcome));
                }
            }
        }
    }
    Ok(None)
}

/// Number and time of the first block of a range.
fn first_block(journal: &Journal, range: Range<Offset>) -> Result<Option<(u64, u64)>, ReportError> {
    for stored in journal.read(range) {
        if let RecordView::Block(block) = stored?.record() {
            return Ok(Some((block.this.number, block.timestamp)));
        }
    }
    Ok(None)
}

/// Number and time of the newest block that counts at the end of a range.
fn last_block(journal: &Journal, range: Range<Offset>) -> Result<Option<(u64, u64)>, ReportError> {
    let mut head: Option<BlockRef> = None;
    let lowest = range.start.get().max(range.end.get().saturating_sub(BACK_RECORDS_MAX));
    for offset in (lowest..range.end.get()).rev() {
        let offset = Offset::new(offset);
        let Some(stored) = journal.read(offset..offset.plus(1)).next() else { continue };
        let stored = stored?;
        let head = *head.get_or_insert_with(|| stored.head());
        if let RecordView::Block(block) = stored.record()
            && block.this == head
        {
            return Ok(Some((head.number, block.timestamp)));
        }
    }
    Ok(None)
}

fn cause(
    snapshot: &LaneSnapshot,
    journal: &Journal,
    about: &About,
    offset: Offset,
) -> Result<Cause, ReportError> {
    let tape = snapshot.tape(offset)?;
    let mut logs = Vec::new();
    if let Some(stored) = journal.read(offset..offset.plus(1)).next()
        && let RecordView::Block(block) = stored?.record()
    {
        for log in block.logs() {
            let topics: Vec<_> = log.topics().collect();
            if about.subscription.wants_log(&log.address, &topics) {
                logs.push(log.to_log());
            }
        }
    }
    Ok(Cause { logs, tape })
}
