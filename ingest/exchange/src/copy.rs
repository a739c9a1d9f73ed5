//! From one journal into another, verified like what an endpoint says.

use std::ops::Range;

use shepherd_ingest::Checks;
use shepherd_log::{Journal, RecordView, StoredRecord};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    Branches, ImportError, Imported, IntakeError, Progress, StretchError,
    intake::{Intake, Origin},
    progress::Meter,
    stretch::{Abandoned, Chained, Stretch, heights},
};

/// What is to be imported from another journal.
#[derive(Clone, Copy, Debug)]
pub struct JournalImport {
    /// What each block is held to. Receipts are not journaled, so that level asks no more than
    /// `bloom` does.
    pub checks: Checks,
    /// With [`Branches::Canonical`] the blocks that count, after this journal's head. With
    /// [`Branches::All`] also reorgs and what they took back, in the same order; this journal must
    /// then be empty, or what an earlier such import left.
    pub branches: Branches,
}

/// Appends another journal's blocks to a journal.
///
/// Blocks the thread, and holds the other journal against retention. Every record of the other journal that is read must be intact and carry
/// the digest of the one before it, and every block is verified before it is journaled, by the
/// functions that verify an endpoint's. Outcomes are passed over: they are addressed to the other
/// store's lanes, and name effects that only it knows.
pub fn import_journal(
    from: &Journal,
    to: &Journal,
    import: &JournalImport,
    progress: &watch::Sender<Progress>,
    stop: &CancellationToken,
) -> Result<Imported, ImportError> {
    let (theirs, ours) = (from.chain_id(), to.chain_id());
    if theirs != ours {
        return Err(ImportError::OtherChain { ours, theirs });
    }
    let _held = from.hold(from.start());
    let has = heights(from)?;
    if has.is_empty() {
        return Err(ImportError::Empty);
    }
    let mut copy = Copy {
        intake: Intake::open(to, import.checks)?,
        meter: Meter::start(progress, has.clone()),
        imported: Imported::default(),
        stop,
    };
    let outcome = match import.branches {
        Branches::Canonical => copy.canonical(from, has),
        Branches::All => copy.all(from, to),
    };
    // What was taken before something was wrong is journaled.
    copy.intake.flush()?;
    outcome?;
    let &Progress { blocks, logs, .. } = copy.meter.progress();
    Ok(Imported { blocks, logs, head: copy.intake.head(), ..copy.imported })
}

struct Copy<'a> {
    intake: Intake,
    meter: Meter,
    imported: Imported,
    stop: &'a CancellationToken,
}

impl Copy<'_> {
    fn canonical(&mut self, from: &Journal, has: Range<u64>) -> Result<(), ImportError> {
        let next = match self.intake.head() {
            None => has.start,
            Some(head) if head.number + 1 < has.start => {
                return Err(ImportError::Gap { next: head.number + 1, first: has.start });
            }
            Some(head) if head.number + 1 == has.start => has.start,
            Some(head) => {
                let there = from.canonical(head.number).map_err(StretchError::from)?;
                if there.map(|(_, block)| block) != Some(head) {
                    return Err(ImportError::Diverges { head });
                }
                head.number + 1
            }
        };
        self.meter.skip_to(next);
        if has.end <= next {
            return Ok(());
        }
        let none = Abandoned::find(from, Branches::Canonical)?;
        for one in Stretch::read(from, &none, next..has.end)? {
            if self.stop.is_cancelled() {
                self.imported.stopped = true;
                break;
            }
            let stored = one?.stored;
            self.take(&stored)?;
        }
        Ok(())
    }

    fn all(&mut self, from: &Journal, to: &Journal) -> Result<(), ImportError> {
        // What an earlier import left, record for record.
        let mut already = to.read(to.start()..to.tail().offset);
        let mut chained = Chained::default();
        let mut first = None;
        for stored in from.read(from.start()..from.tail().offset) {
            if self.stop.is_cancelled() {
                self.imported.stopped = true;
                break;
            }
            let stored = stored.map_err(StretchError::from)?;
            chained.check(&stored).map_err(StretchError::from)?;
            let offset = stored.offset();
            match stored.record() {
                RecordView::Outcome(_) => continue,
                RecordView::Revert(_) if first.is_none() => continue,
                RecordView::Block(block) if first.is_none() => {
                    // Retention may have removed what a reorg goes back to: begin after that.
                    if from.undone_by(offset, block.this.number).is_some() {
                        continue;
                    }
                    first = Some(offset);
                }
                RecordView::Block(_) | RecordView::Revert(_) => (),
            }
            match already.next() {
                None => self.take(&stored)?,
                Some(ours) => {
                    let ours = ours.map_err(IntakeError::from)?;
                    if !is_same(&ours, &stored) {
                        return Err(ImportError::NotItsBeginning { offset });
                    }
                    self.meter.skip_to(stored.head().number + 1);
                }
            }
        }
        match already.next() {
            Some(_) if !self.imported.stopped => {
                Err(ImportError::NotItsBeginning { offset: from.tail().offset })
            }
            _ => Ok(()),
        }
    }

    fn take(&mut self, stored: &StoredRecord) -> Result<(), ImportError> {
        let origin = Origin::Record(stored.offset());
        match stored.record() {
            RecordView::Block(block) => {
                let owned = block.to_block();
                self.intake.verify(&owned, &origin)?;
                self.intake.take(owned)?;
                self.meter.block(block.this.number, u64::from(block.log_count()));
            }
            RecordView::Revert(revert) => {
                self.intake.revert(revert)?;
                self.imported.reverts += 1;
            }
            RecordView::Outcome(_) => unreachable!("outcomes are passed over"),
        }
        Ok(())
    }
}

/// Whether two journals have the same record at the places compared.
fn is_same(ours: &StoredRecord, theirs: &StoredRecord) -> bool {
    match (ours.record(), theirs.record()) {
        (RecordView::Block(ours), RecordView::Block(theirs)) => ours.this == theirs.this,
        (ours, theirs) => ours.to_record() == theirs.to_record(),
    }
}
