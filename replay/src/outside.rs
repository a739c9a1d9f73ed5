//! Everything outside of a backtested module: who answers its reads, and what comes of its effects.

use std::collections::BTreeMap;

use shepherd_dispatch::Venue;
use shepherd_host::{At, ReadAnswer, ReadRequest, Reads, World};
use shepherd_log::{BlockRef, Deliveries, Effect, EffectId, Offset, Outcome};

use crate::{reads::HistoryReads, venue::SimulatedVenue};

/// The outside of one backtested lane.
pub(crate) struct Outside<'i> {
    pub(crate) reads: HistoryReads,
    pub(crate) venue: SimulatedVenue,
    /// The record being handled.
    pub(crate) record: Offset,
    /// Blocks that stand in others' place, and those others.
    pub(crate) instead_of: BTreeMap<BlockRef, BlockRef>,
    /// Whether nobody waits for an answer any more.
    pub(crate) interrupted: &'i dyn Fn() -> bool,
}

impl Reads for Outside<'_> {
    fn begin(&mut self, record: Offset) {
        self.record = record;
        self.reads.begin(record);
    }

    fn read(
        &mut self,
        block: BlockRef,
        requests: &[ReadRequest],
    ) -> Result<Vec<ReadAnswer>, World> {
        let block = *self.instead_of.get(&block).unwrap_or(&block);
        self.reads.read(&self.venue, block, requests, self.interrupted)
    }
}

impl Venue for Outside<'_> {
    fn asked(&mut self, at: At, effects: &[(EffectId, Effect)]) {
        self.venue.asked(at, effects);
    }

    fn due(&mut self, offset: Offset, at: At) -> Vec<Outcome> {
        self.venue.due(offset, at)
    }

    fn reverted(&mut self, ancestor: BlockRef) -> Deliveries {
        self.venue.reverted(self.record, ancestor)
    }

    fn waits(&self) -> bool {
        self.venue.waits()
    }

    fn committed(&mut self) {
        self.venue.committed();
    }

    fn dropped(&mut self) {
        self.venue.dropped();
    }
}
