//! A backtest's outside, told again: its reads from its own tape, what came of its effects from the
//! same rules.
//!
//! A run that is finished has all its answers on its tape, so it needs no cache and no endpoint.

use shepherd_dispatch::Venue;
use shepherd_host::{At, ReadAnswer, ReadRequest, Reads, World};
use shepherd_log::{BlockRef, Deliveries, Effect, EffectId, LaneSnapshot, Offset, Outcome};

use crate::{tape::FromTape, venue::SimulatedVenue};

/// The outside of a backtest that is run again.
pub(super) struct Retold {
    tape: FromTape<LaneSnapshot>,
    venue: SimulatedVenue,
    record: Offset,
}

impl Retold {
    pub fn new(tape: FromTape<LaneSnapshot>, venue: SimulatedVenue) -> Retold {
        Retold { tape, venue, record: Offset::START }
    }
}

impl Reads for Retold {
    fn begin(&mut self, record: Offset) {
        self.record = record;
        self.tape.begin(record);
    }

    fn read(
        &mut self,
        block: BlockRef,
        requests: &[ReadRequest],
    ) -> Result<Vec<ReadAnswer>, World> {
        self.tape.read(block, requests)
    }
}

impl Venue for Retold {
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
