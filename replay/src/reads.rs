//! Who answers a backtest's reads.
//!
//! ```text
//! whole read   the record's tape: the same question was answered live
//! each request │ the read cache        │ what is known of orders and documents
//!   of it      │ the archive endpoint  │ the rules of the venue
//!              ▼ the chain's           ▼ the orderbook's
//!           a miss, which names the request in full and stops the backtest
//! ```
//!
//! A module never sees a guess: what nobody can answer is not answered.

use std::collections::BTreeMap;

use alloy_primitives::{B256, keccak256};
use shepherd_host::{ReadAnswer, ReadRequest, World, answers, request_digest};
use shepherd_log::{BlockRef, Offset, ReadError, TapeEntry};

use crate::{
    archive::{Archive, is_of_chain},
    cache::ReadCache,
    miss::{Miss, MissCause},
    tape::Tape,
    venue::SimulatedVenue,
};

/// Where answers are looked for.
pub(crate) struct HistoryReads {
    tape: Option<Box<dyn Tape>>,
    cache: Option<ReadCache>,
    archive: Option<Archive>,
    /// The records of the journal, which may have a tape.
    records: std::ops::Range<Offset>,
    record: Offset,
    /// The tape of the record, once it was asked for, and which of it was used.
    entries: Option<Vec<(TapeEntry, bool)>>,
    /// Every document on the tape, once one was missing.
    documents: Option<BTreeMap<B256, String>>,
}

impl HistoryReads {
    pub(crate) fn new(
        tape: Option<Box<dyn Tape>>,
        cache: Option<ReadCache>,
        archive: Option<Archive>,
        records: std::ops::Range<Offset>,
    ) -> HistoryReads {
        HistoryReads {
            tape,
            cache,
            archive,
            records,
            record: Offset::START,
            entries: None,
            documents: None,
        }
    }

    /// Answers are for this record from now on.
    pub(crate) fn begin(&mut self, record: Offset) {
        self.record = record;
        self.entries = None;
    }

    /// One answer for each request. `interrupted` ends a read that waits for an endpoint.
    pub(crate) fn read(
        &mut self,
        venue: &SimulatedVenue,
        block: BlockRef,
        requests: &[ReadRequest],
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Vec<ReadAnswer>, World> {
        if let Some(taped) = self.on_tape(venue, block, requests)? {
            return Ok(taped);
        }
        let mut found = Vec::with_capacity(requests.len());
        let mut missing = Vec::new();
        for (number, request) in requests.iter().enumerate() {
            let answer = self.one(venue, block, request)?;
            if answer.is_none() {
                missing.push(number);
            }
            found.push(answer);
        }
        let Some(first) = missing.first().copied() else {
            return Ok(found.into_iter().flatten().collect());
        };
        let miss = |why| {
            let request = requests[first].clone();
            let others = missing.len() - 1;
            World::replay(Miss { record: self.record, block, request, others, why })
        };
        // All of one read are for the same, so the first speaks for all.
        if !is_of_chain(&requests[first]) {
            return Err(miss(match requests[first] {
                ReadRequest::Get(_) => MissCause::Server,
                _ => MissCause::Orderbook,
            }));
        }
        let Some(archive) = &self.archive else { return Err(miss(MissCause::NoEndpoint)) };
        let asked: Vec<&ReadRequest> = missing.iter().map(|number| &requests[*number]).collect();
        let answered = archive
            .read(block, &asked, interrupted)
            .map_err(|failed| miss(MissCause::Endpoint(failed)))?
            .ok_or_else(|| World::replay(Interrupted))?;
        for (number, answer) in missing.into_iter().zip(answered) {
            if let Some(cache) = &mut self.cache {
                cache.put(block, &requests[number], &answer).map_err(World::replay)?;
            }
            found[number] = Some(answer);
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// What the same read was answered live.
    ///
    /// The outcomes after a record were records of their own then, with tapes of their own; in a
    /// backtest they are told after this one.
    fn on_tape(
        &mut self,
        venue: &SimulatedVenue,
        block: BlockRef,
        requests: &[ReadRequest],
    ) -> Result<Option<Vec<ReadAnswer>>, World> {
        let Some(tape) = &mut self.tape else { return Ok(None) };
        if self.entries.is_none() {
            let happened = venue.happened();
            let mut entries = Vec::new();
            for record in [self.record].into_iter().chain(happened.outcomes_after(self.record)) {
                let of_record = tape.entries(record).map_err(World::replay)?;
                entries.extend(of_record.into_iter().map(|entry| (entry, false)));
            }
            self.entries = Some(entries);
        }
        let entries = self.entries.as_mut().expect("looked up just now");
        if entries.is_empty() {
            return Ok(None);
        }
        let asked = request_digest(block, requests);
        let is_asked = |entry: &&mut (TapeEntry, bool)| entry.0.request == asked;
        // Asked twice, a server may have answered twice. Asked more often, it is the last answer.
        let mut same: Vec<_> = entries.iter_mut().filter(is_asked).collect();
        let unused = same.iter().position(|(_, is_used)| !is_used);
        let Some(chosen) = unused.or(same.len().checked_sub(1)) else { return Ok(None) };
        let (entry, is_used) = &mut *same[chosen];
        *is_used = true;
        Ok(Some(answers(entry)?))
    }

    fn one(
        &mut self,
        venue: &SimulatedVenue,
        block: BlockRef,
        request: &ReadRequest,
    ) -> Result<Option<ReadAnswer>, World> {
        if let Some(answered) =
            self.on_tape(venue, block, std::slice::from_ref(request))?.and_then(|mut one| one.pop())
        {
            return Ok(Some(answered));
        }
        if let Some(cache) = &mut self.cache
            && let Some(answer) = cache.get(block, request).map_err(World::replay)?
        {
            return Ok(Some(answer));
        }
        match request {
            ReadRequest::Order(uid) => {
                let known = venue.order(uid, self.record, block).map_err(unreadable)?;
                Ok(known.ok().map(ReadAnswer::Order))
            }
            ReadRequest::AppData(hash) => {
                let document = match venue.document(*hash) {
                    Some(document) => Some(document),
                    None => self.document_on_tape(*hash)?,
                };
                Ok(document.map(|document| ReadAnswer::AppData(Some(document))))
            }
            ReadRequest::Get(_)
            | ReadRequest::Call { .. }
            | ReadRequest::Balance(_)
            | ReadRequest::Code(_)
            | ReadRequest::Storage { .. } => Ok(None),
        }
    }

    /// A document that the live lane was given at whatever record: its hash says what it is.
    fn document_on_tape(&mut self, hash: B256) -> Result<Option<String>, World> {
        if self.documents.is_none() {
            self.documents = Some(self.all_documents()?);
        }
        let documents = self.documents.as_ref().expect("collected just now");
        Ok(documents.get(&hash).cloned())
    }

    fn all_documents(&mut self) -> Result<BTreeMap<B256, String>, World> {
        let mut documents = BTreeMap::new();
        let Some(tape) = &mut self.tape else { return Ok(documents) };
        for record in self.records.start.get()..self.records.end.get() {
            for entry in tape.entries(Offset::new(record)).map_err(World::replay)? {
                for answer in answers(&entry)? {
                    if let ReadAnswer::AppData(Some(document)) = answer {
                        documents.insert(keccak256(&document), document);
                    }
                }
            }
        }
        Ok(documents)
    }
}

/// A read that was no longer waited for.
#[derive(Debug, thiserror::Error)]
#[error("interrupted while an archive endpoint was asked")]
pub(crate) struct Interrupted;

fn unreadable(error: ReadError) -> World {
    World::replay(error)
}
