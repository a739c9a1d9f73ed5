//! The tape: what every outside read of a record was answered.
//!
//! ```text
//! answer   version u8 = 1, then for each answer: kind u8, length u32, bytes
//!          kind 0 returned, 1 reverted, 2 balance (32 bytes), 3 code, 4 storage (32 bytes),
//!          5 an order, 6 app data (both: text), 7 no such order, 8 no such app data (both: none),
//!          9 a response (status u16, body)
//! digest   BLAKE3 over: "shepherd read 1\0", block number u64, block hash, then for each request:
//!          kind u8, and
//!          0 call: address, length u32, data;  1 balance: address;  2 code: address;
//!          3 storage: address, slot;  4 order: UID;  5 app data: hash;  6 get: length u32, URL
//! ```
//!
//! Integers are big-endian. A replay that asks the same questions gets the same answers from
//! here; one that asks something else is told where it left the tape. Answers of the orderbook and
//! of other servers do not depend on the block. It is in their digest all the same, so that no
//! tape fits another record.

use alloy_primitives::{B256, Bytes, U256};
use shepherd_log::{BlockRef, Digest, TapeEntry};

use crate::{
    fault::World,
    reads::{ReadAnswer, ReadRequest, Reads},
};

const VERSION: u8 = 1;

/// The tape entry of a read call and its answers.
pub(crate) fn record(
    call: u32,
    block: BlockRef,
    requests: &[ReadRequest],
    answers: &[ReadAnswer],
) -> TapeEntry {
    let request = request_digest(block, requests);
    TapeEntry { call, request, answer: encode_answers(answers) }
}

/// The answers that an entry holds.
pub fn answers(entry: &TapeEntry) -> Result<Vec<ReadAnswer>, TapeError> {
    decode_answers(&entry.answer).ok_or(TapeError::Corrupt { call: entry.call })
}

/// A tape that cannot answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TapeError {
    /// The module asks more often than when the tape was recorded.
    #[error("read {call} of block {block} is not on the tape, which has {recorded}")]
    Ended {
        /// The read call, from 0.
        call: u32,
        /// The block being handled.
        block: BlockRef,
        /// How many reads were recorded.
        recorded: usize,
    },
    /// The module asks something else, or at another block.
    #[error("read {call} of block {block} is {asked}, the tape has {recorded}")]
    OtherRequest {
        /// The read call, from 0.
        call: u32,
        /// The block being handled.
        block: BlockRef,
        /// Digest of what is asked.
        asked: Digest,
        /// Digest of what was recorded.
        recorded: Digest,
    },
    /// The recorded answers cannot be decoded.
    #[error("read {call} on the tape cannot be decoded")]
    Corrupt {
        /// The read call, from 0.
        call: u32,
    },
}

/// Answers a record's reads from its tape, and from nothing else.
#[derive(Clone, Debug)]
pub struct TapeReads {
    entries: Vec<TapeEntry>,
    next: u32,
}

impl TapeReads {
    /// A source for one handling of the record these entries belong to.
    pub fn new(entries: Vec<TapeEntry>) -> TapeReads {
        TapeReads { entries, next: 0 }
    }

    fn answer(
        &mut self,
        block: BlockRef,
        requests: &[ReadRequest],
    ) -> Result<Vec<ReadAnswer>, TapeError> {
        let call = self.next;
        let Some(entry) = self.entries.iter().find(|entry| entry.call == call) else {
            return Err(TapeError::Ended { call, block, recorded: self.entries.len() });
        };
        let asked = request_digest(block, requests);
        if asked != entry.request {
            let recorded = entry.request;
            return Err(TapeError::OtherRequest { call, block, asked, recorded });
        }
        let answers = answers(entry)?;
        self.next += 1;
        Ok(answers)
    }
}

impl Reads for TapeReads {
    fn read(
        &mut self,
        block: BlockRef,
        requests: &[ReadRequest],
    ) -> Result<Vec<ReadAnswer>, World> {
        Ok(self.answer(block, requests)?)
    }
}

/// What names the requests of one read call on a tape: the layout is at the top of this file.
pub fn request_digest(block: BlockRef, requests: &[ReadRequest]) -> Digest {
    let mut bytes = b"shepherd read 1\0".to_vec();
    bytes.extend_from_slice(&block.number.to_be_bytes());
    bytes.extend_from_slice(block.hash.as_slice());
    for request in requests {
        match request {
            ReadRequest::Call { to, data } => {
                bytes.push(0);
                bytes.extend_from_slice(to.as_slice());
                bytes.extend_from_slice(&length(data).to_be_bytes());
                bytes.extend_from_slice(data);
            }
            ReadRequest::Balance(address) => {
                bytes.push(1);
                bytes.extend_from_slice(address.as_slice());
            }
            ReadRequest::Code(address) => {
                bytes.push(2);
                bytes.extend_from_slice(address.as_slice());
            }
            ReadRequest::Storage { address, slot } => {
                bytes.push(3);
                bytes.extend_from_slice(address.as_slice());
                bytes.extend_from_slice(slot.as_slice());
            }
            ReadRequest::Order(uid) => {
                bytes.push(4);
                bytes.extend_from_slice(uid);
            }
            ReadRequest::AppData(hash) => {
                bytes.push(5);
                bytes.extend_from_slice(hash.as_slice());
            }
            ReadRequest::Get(url) => {
                bytes.push(6);
                bytes.extend_from_slice(&length(url.as_str().as_bytes()).to_be_bytes());
                bytes.extend_from_slice(url.as_str().as_bytes());
            }
        }
    }
    Digest::of(&bytes)
}

/// The bytes a tape keeps for the answers to one read call, which [`answers`] reads again.
pub fn encode_answers(answers: &[ReadAnswer]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    for answer in answers {
        match answer {
            ReadAnswer::Returned(data) => put(&mut bytes, 0, data),
            ReadAnswer::Reverted(data) => put(&mut bytes, 1, data),
            ReadAnswer::Balance(wei) => put(&mut bytes, 2, &wei.to_be_bytes::<32>()),
            ReadAnswer::Code(code) => put(&mut bytes, 3, code),
            ReadAnswer::Storage(value) => put(&mut bytes, 4, value.as_slice()),
            ReadAnswer::Order(Some(order)) => put(&mut bytes, 5, order.as_bytes()),
            ReadAnswer::AppData(Some(document)) => put(&mut bytes, 6, document.as_bytes()),
            ReadAnswer::Order(None) => put(&mut bytes, 7, &[]),
            ReadAnswer::AppData(None) => put(&mut bytes, 8, &[]),
            ReadAnswer::Response { status, body } => {
                put(&mut bytes, 9, &[&status.to_be_bytes(), body.as_ref()].concat());
            }
        }
    }
    bytes
}

fn put(bytes: &mut Vec<u8>, kind: u8, data: &[u8]) {
    bytes.push(kind);
    bytes.extend(length(data).to_be_bytes());
    bytes.extend(data);
}

fn length(data: &[u8]) -> u32 {
    u32::try_from(data.len()).expect("no endpoint answers, and no module asks, four gigabytes")
}

fn decode_answers(bytes: &[u8]) -> Option<Vec<ReadAnswer>> {
    let [VERSION, rest @ ..] = bytes else { return None };
    let mut rest = rest;
    let mut answers = Vec::new();
    while let [kind, a, b, c, d, tail @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let (data, tail) = tail.split_at_checked(length)?;
        answers.push(match kind {
            0 => ReadAnswer::Returned(Bytes::copy_from_slice(data)),
            1 => ReadAnswer::Reverted(Bytes::copy_from_slice(data)),
            2 => ReadAnswer::Balance(U256::from_be_bytes::<32>(data.try_into().ok()?)),
            3 => ReadAnswer::Code(Bytes::copy_from_slice(data)),
            4 => ReadAnswer::Storage(B256::try_from(data).ok()?),
            5 => ReadAnswer::Order(Some(text(data)?)),
            6 => ReadAnswer::AppData(Some(text(data)?)),
            7 if data.is_empty() => ReadAnswer::Order(None),
            8 if data.is_empty() => ReadAnswer::AppData(None),
            9 => {
                let [high, low, body @ ..] = data else { return None };
                let status = u16::from_be_bytes([*high, *low]);
                ReadAnswer::Response { status, body: Bytes::copy_from_slice(body) }
            }
            _ => return None,
        });
        rest = tail;
    }
    rest.is_empty().then_some(answers)
}

fn text(data: &[u8]) -> Option<String> {
    String::from_utf8(data.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use alloy_primitives::Address;
    use url::Url;

    use super::*;

    fn block() -> BlockRef {
        BlockRef { number: 7, hash: B256::repeat_byte(7) }
    }

    fn answers() -> Vec<ReadAnswer> {
        vec![
            ReadAnswer::Returned(Bytes::from_static(&[1, 2, 3])),
            ReadAnswer::Reverted(Bytes::new()),
            ReadAnswer::Balance(U256::MAX),
            ReadAnswer::Code(Bytes::from_static(&[0xfe])),
            ReadAnswer::Storage(B256::repeat_byte(9)),
            ReadAnswer::Order(Some("{\"status\":\"open\"}".to_owned())),
            ReadAnswer::AppData(Some(String::new())),
            ReadAnswer::Order(None),
            ReadAnswer::AppData(None),
            ReadAnswer::Response { status: 404, body: Bytes::from_static(b"gone") },
            ReadAnswer::Response { status: 200, body: Bytes::new() },
        ]
    }

    #[test]
    fn answers_come_back_as_they_were_taped() {
        assert_eq!(decode_answers(&encode_answers(&answers())), Some(answers()));
        assert_eq!(decode_answers(&encode_answers(&[])), Some(vec![]));
        assert_eq!(encode_answers(&answers()[..1]), [1, 0, 0, 0, 0, 3, 1, 2, 3], "the layout");
        let unknown = encode_answers(&answers()[6..9]);
        assert_eq!(unknown, [1, 6, 0, 0, 0, 0, 7, 0, 0, 0, 0, 8, 0, 0, 0, 0], "the layout");
        let response = encode_answers(&answers()[9..10]);
        assert_eq!(response[..8], [1, 9, 0, 0, 0, 6, 1, 148], "the layout");
    }

    #[test]
    fn a_tape_that_was_cut_or_changed_in_form_is_corrupt() {
        let bytes = encode_answers(&answers());
        let whole: Vec<usize> =
            (0..=answers().len()).map(|n| encode_answers(&answers()[..n]).len()).collect();
        for length in 0..bytes.len() {
            let decoded = decode_answers(&bytes[..length]);
            assert_eq!(decoded.is_some(), whole.contains(&length), "cut at {length}");
        }
        assert_eq!(decode_answers(&[2]), None, "another version");
        assert_eq!(decode_answers(&[1, 10, 0, 0, 0, 0]), None, "another kind");
        assert_eq!(decode_answers(&[1, 5, 0, 0, 0, 1, 0xff]), None, "an order that is no text");
        assert_eq!(decode_answers(&[1, 7, 0, 0, 0, 1, 0]), None, "an unknown order with bytes");
        assert_eq!(decode_answers(&[1, 9, 0, 0, 0, 1, 0]), None, "a response of one byte");
        assert_eq!(decode_answers(&[1, 2, 0, 0, 0, 1, 1]), None, "a balance of one byte");
    }

    #[test]
    fn every_part_of_a_question_is_in_its_digest() {
        let (a, b) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let call =
            |to, data: &'static [u8]| ReadRequest::Call { to, data: Bytes::from_static(data) };
        let storage =
            |address, slot| ReadRequest::Storage { address, slot: B256::with_last_byte(slot) };
        let questions = [
            vec![],
            vec![call(a, &[])],
            vec![call(b, &[])],
            vec![call(a, &[0])],
            vec![call(a, &[0, 0])],
            vec![ReadRequest::Balance(a)],
            vec![ReadRequest::Balance(b)],
            vec![ReadRequest::Code(a)],
            vec![storage(a, 0)],
            vec![storage(a, 1)],
            vec![ReadRequest::Balance(a), ReadRequest::Balance(b)],
            vec![ReadRequest::Balance(b), ReadRequest::Balance(a)],
            vec![ReadRequest::Order([1; 56])],
            vec![ReadRequest::Order([2; 56])],
            vec![ReadRequest::AppData(B256::repeat_byte(1))],
            vec![ReadRequest::AppData(B256::repeat_byte(2))],
            vec![ReadRequest::Get(Url::parse("https://example.org/1").unwrap())],
            vec![ReadRequest::Get(Url::parse("https://example.org/2").unwrap())],
        ];
        let other_block = BlockRef { number: 7, hash: B256::repeat_byte(8) };
        let mut digests: Vec<Digest> =
            questions.iter().map(|asked| request_digest(block(), asked)).collect();
        digests.push(request_digest(other_block, &questions[1]));
        let count = digests.len();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), count);
    }

    #[test]
    fn digests_stay_what_they_are() {
        // Computed by another implementation. Stored with every record: another digest would make
        // all older tapes unreadable.
        let (a, b) = (Address::repeat_byte(1), B256::repeat_byte(2));
        let data = Bytes::from_static(&[1, 2, 3]);
        let before_there_were_orders = [
            ReadRequest::Call { to: a, data },
            ReadRequest::Balance(a),
            ReadRequest::Code(a),
            ReadRequest::Storage { address: a, slot: b },
        ];
        let digest = request_digest(block(), &before_there_were_orders).to_string();
        assert_eq!(digest, "0x7ba6d07160f86ed443e464f830d50a5f2a701e1fcf36e2d6ac03c0d0f475ac1a");
        let get = ReadRequest::Get(Url::parse("https://example.org/").unwrap());
        let since = [ReadRequest::Order([1; 56]), ReadRequest::AppData(b), get];
        let digest = request_digest(block(), &since).to_string();
        assert_eq!(digest, "0xcd469e8371000f3f1760f30ca8d315ad2374ce1dc24b93048b8113b33d44c0c4");
    }

    #[test]
    fn reads_are_answered_in_the_order_they_were_made() {
        let asked = [ReadRequest::Balance(Address::ZERO)];
        let entry = |call: u32, wei: u64| {
            record(call, block(), &asked, &[ReadAnswer::Balance(U256::from(wei))])
        };
        let mut tape = TapeReads::new(vec![entry(0, 10), entry(1, 11)]);
        for wei in [10u64, 11] {
            let answered = tape.answer(block(), &asked);
            assert_eq!(answered, Ok(vec![ReadAnswer::Balance(U256::from(wei))]));
        }
        let ended = TapeError::Ended { call: 2, block: block(), recorded: 2 };
        assert_eq!(tape.answer(block(), &asked), Err(ended));
    }
}
