//! Reads answered from a tape, and from nothing else.
//!
//! ```text
//!   record 41 ─ begin ─▶ entries of 41: [call 0][call 1]
//!                 read ──────────────────▶ 0: same request? its answer
//!                 read ────────────────────────────▶ 1
//! ```
//!
//! A module that asks what it asked when the tape was written gets what it got. One that asks
//! something else, or more, is told where it left the tape: it is never given a guess.

use shepherd_host::{ReadAnswer, ReadRequest, Reads, TapeError, TapeReads, World};
use shepherd_log::{BlockRef, LaneSnapshot, Offset, StorageError, TapeEntry};

/// Where the answers to a lane's reads are kept.
pub trait Tape: Send {
    /// The answers that a record was given, in call order; none when it read nothing.
    fn entries(&mut self, record: Offset) -> Result<Vec<TapeEntry>, StorageError>;
}

impl Tape for LaneSnapshot {
    fn entries(&mut self, record: Offset) -> Result<Vec<TapeEntry>, StorageError> {
        self.tape(record)
    }
}

impl Tape for &LaneSnapshot {
    fn entries(&mut self, record: Offset) -> Result<Vec<TapeEntry>, StorageError> {
        self.tape(record)
    }
}

/// A read that a tape does not answer. It is the source of the [`World`] a replay stops with.
#[derive(Debug, thiserror::Error)]
pub enum OffTape {
    /// The module leaves the tape at a read of this record.
    #[error("record {record} leaves the tape")]
    Left {
        /// The record.
        record: Offset,
        /// Where: the call and the block, and whether the tape ends there or has another request.
        source: TapeError,
    },
    /// The tape cannot be read.
    #[error("the tape of record {record} cannot be read")]
    Unreadable {
        /// The record.
        record: Offset,
        /// Why not.
        source: StorageError,
    },
}

/// Answers reads exactly from a tape: the same call, the same request.
pub struct FromTape<T> {
    tape: T,
    record: Offset,
    /// What is left of the record's tape, once it was asked for.
    entries: Option<TapeReads>,
    /// The first record that asked something else than is on its tape.
    mismatch: Option<(Offset, TapeError)>,
}

impl<T: Tape> FromTape<T> {
    /// A source of the answers on this tape.
    pub fn new(tape: T) -> FromTape<T> {
        FromTape { tape, record: Offset::START, entries: None, mismatch: None }
    }

    /// The first record that asked something else than is on its tape.
    ///
    /// That a tape ends is no mismatch: an abandoned block whose reads were never all answered was
    /// passed over, and is passed over again.
    pub fn mismatch(&self) -> Option<&(Offset, TapeError)> {
        self.mismatch.as_ref()
    }
}

impl<T: Tape> Reads for FromTape<T> {
    fn begin(&mut self, record: Offset) {
        self.record = record;
        self.entries = None;
    }

    fn read(
        &mut self,
        block: BlockRef,
        requests: &[ReadRequest],
    ) -> Result<Vec<ReadAnswer>, World> {
        let record = self.record;
        // Only now: most records of most modules read nothing.
        if self.entries.is_none() {
            let unreadable = |source| World::replay(OffTape::Unreadable { record, source });
            self.entries = Some(TapeReads::new(self.tape.entries(record).map_err(unreadable)?));
        }
        let entries = self.entries.as_mut().expect("just loaded");
        entries.read(block, requests).map_err(|world| match world {
            World::Tape(source) => {
                if !matches!(*source, TapeError::Ended { .. }) {
                    self.mismatch.get_or_insert((record, (*source).clone()));
                }
                World::replay(OffTape::Left { record, source: *source })
            }
            other => other,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, error::Error};

    use alloy_primitives::{Address, B256, U256};
    use shepherd_host::{encode_answers, request_digest};

    use super::*;

    struct Scripted(BTreeMap<Offset, Vec<TapeEntry>>);

    impl Tape for Scripted {
        fn entries(&mut self, record: Offset) -> Result<Vec<TapeEntry>, StorageError> {
            Ok(self.0.get(&record).cloned().unwrap_or_default())
        }
    }

    const BLOCK: BlockRef = BlockRef { number: 7, hash: B256::repeat_byte(7) };

    fn asked(address: u8) -> Vec<ReadRequest> {
        vec![ReadRequest::Balance(Address::repeat_byte(address))]
    }

    fn answered(wei: u64) -> Vec<ReadAnswer> {
        vec![ReadAnswer::Balance(U256::from(wei))]
    }

    fn tape() -> FromTape<Scripted> {
        let entry = |call: u32, address, wei| TapeEntry {
            call,
            request: request_digest(BLOCK, &asked(address)),
            answer: encode_answers(&answered(wei)),
        };
        let entries = vec![entry(0, 1, 10), entry(1, 2, 11)];
        FromTape::new(Scripted(BTreeMap::from([(Offset::new(41), entries)])))
    }

    fn why(world: &World) -> String {
        let off = world.source().and_then(|source| source.downcast_ref::<OffTape>());
        let off = off.expect("the source is the tape's own error");
        format!("{off}: {}", off.source().unwrap())
    }

    #[test]
    fn a_record_is_answered_from_its_start_each_time_it_is_tried() {
        let mut tape = tape();
        for _ in 0..2 {
            tape.begin(Offset::new(41));
            assert_eq!(tape.read(BLOCK, &asked(1)).unwrap(), answered(10));
            assert_eq!(tape.read(BLOCK, &asked(2)).unwrap(), answered(11));
        }
        let ended = tape.read(BLOCK, &asked(3)).unwrap_err();
        let text = why(&ended);
        assert!(text.starts_with("record 41 leaves the tape: read 2 of block 7"), "{text}");
        assert!(text.ends_with("is not on the tape, which has 2"), "{text}");
        assert_eq!(tape.mismatch(), None);
    }

    #[test]
    fn another_request_and_another_record_are_not_answered() {
        let mut tape = tape();
        tape.begin(Offset::new(41));
        let text = why(&tape.read(BLOCK, &asked(2)).unwrap_err());
        assert!(text.contains("the tape has"), "{text}");
        assert_eq!(tape.mismatch().map(|(record, _)| record.get()), Some(41));
        // What was not answered does not count as a call.
        assert_eq!(tape.read(BLOCK, &asked(1)).unwrap(), answered(10));
        tape.begin(Offset::new(42));
        let text = why(&tape.read(BLOCK, &asked(1)).unwrap_err());
        assert!(text.contains("record 42") && text.contains("which has 0"), "{text}");
    }
}
