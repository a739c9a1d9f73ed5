//! How much a block may still write and ask.
//!
//! A record's writes and effects share 3 MiB, and its answers 2 MiB; beyond that it is a fault that
//! halts the lane. Anyone can create orders by the thousand, so what does not fit is put off to the
//! next block. Rows are reckoned a little larger than they are.

use shepherd_sdk::Log;

use crate::order::Conditional;

/// What a block writes at most, with an eighth of the 3 MiB kept back.
const WRITES: usize = (3 << 20) - (3 << 17);

/// What of that new orders may take. Beyond it an order is not watched, and an error line says so:
/// its log is not seen again, and there is no room to keep it.
///
/// It is some 2 900 TWAPs, created with more gas than a block of most chains has.
const INDEXED: usize = 2 << 20;

/// What is read of a block's logs and of watches that a root replaces, in bytes. It is a matter of
/// fuel: an order that is told again costs as much to hash as a new one and takes no room, and
/// six mebibytes cost up to 1 700 million.
const LOGS: usize = 6 << 20;

/// What a log costs to read, besides its data.
const LOG: usize = 512;

/// How much more than other logs those cost that set a root: each order's way to it is hashed.
const ROOT: usize = 4;

/// What it costs to list a watch.
const LISTED: usize = 64;

/// What a new order costs besides what is known of it: its row, three of the due index, two that
/// are deleted there.
const INDEXED_ROWS: usize = 400;

/// What an order that is due writes, besides what it places: it is moved in the due index, its
/// progress is written, and what it waits for.
const POLLED: usize = 1_200;

/// What the answers to all polls of a block may take, of 2 MiB. Documents need some of the rest.
const ANSWERED: usize = 1 << 20;

/// A poll's answer without its static input and proof: the order twice, in words and offsets.
const ANSWER: usize = 1_600;

/// What a posting takes besides signature and document: the fields in JSON, and the row.
const POSTED: usize = 1_300;

/// Room in a block.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    writes: usize,
    logs: usize,
    indexed: usize,
    answers: usize,
}

impl Room {
    /// A block of which nothing is used.
    pub fn of_a_block() -> Room {
        Room { writes: WRITES, logs: LOGS, indexed: INDEXED, answers: ANSWERED }
    }

    /// Takes the fuel of reading an order's log, if there is any.
    pub fn read_order(&mut self, log: &Log) -> bool {
        take(&mut self.logs, LOG + log.data.len())
    }

    /// Takes the fuel of reading a root's log, if there is any.
    pub fn read_root(&mut self, log: &Log) -> bool {
        take(&mut self.logs, LOG + ROOT * log.data.len())
    }

    /// Takes the fuel of listing so many watches, if there is any.
    pub fn list(&mut self, watches: usize) -> bool {
        take(&mut self.logs, LISTED * watches)
    }

    /// Takes the room of a new order, if there is any.
    pub fn index(&mut self, order: &Conditional) -> bool {
        let bytes = INDEXED_ROWS + 32 * order.proof.len() + order.params.staticInput.len();
        take(&mut self.indexed, bytes) && take(&mut self.writes, bytes)
    }

    /// Takes the room of forgetting an order, if there is any.
    pub fn forget(&mut self) -> bool {
        take(&mut self.indexed, POLLED) && take(&mut self.writes, POLLED)
    }

    /// How many orders may be looked at, at most `most`: half of the room is for what they place.
    pub fn polls(&self, most: usize) -> usize {
        most.min(self.writes / (2 * POLLED))
    }

    /// Takes the room of orders that are looked at.
    pub fn look_at(&mut self, orders: usize) {
        self.writes = self.writes.saturating_sub(orders * POLLED);
    }

    /// Takes the room of what the chain may answer about an order, if there is any.
    pub fn ask(&mut self, order: &Conditional) -> bool {
        let bytes = ANSWER + 32 * order.proof.len() + order.params.staticInput.len();
        take(&mut self.answers, bytes)
    }

    /// Takes the room of a posting, if there is any. The document counts twice, for the quotes in
    /// it that JSON escapes, and once more where it is kept too.
    pub fn post(&mut self, signature: usize, document: usize) -> bool {
        take(&mut self.writes, POSTED + 2 * signature + 3 * document)
    }
}

fn take(left: &mut usize, bytes: usize) -> bool {
    let enough = bytes <= *left;
    if enough {
        *left -= bytes;
    }
    enough
}
