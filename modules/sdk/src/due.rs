//! What is due when, in the module's state.
//!
//! A module that watches ten thousand things must not look at each of them at every block. It
//! keeps here when it wants to see each again, and a block touches what is due and nothing else.
//!
//! ```text
//! key                           value
//! prefix 'b' block (8) id       nothing                    due from this block on
//! prefix 't' time (8) id        nothing                    due from this time on
//! prefix 'w' id                 'b' block, or 't' time     when an id is due, to move or remove it
//! ```
//!
//! Numbers are big-endian, so that the state lists what is due first, first. Two queues and not
//! one, because blocks and seconds have no common order. An id is in one of them at most once.

use std::fmt;

use alloy_primitives::hex;

use crate::{Host, Moment, When};

/// Marks a key of the queue by block.
const BY_BLOCK: u8 = b'b';

/// Marks a key of the queue by time.
const BY_TIME: u8 = b't';

/// Marks a key that says when an id is due.
const BY_ID: u8 = b'w';

/// An index of what is due.
///
/// Ids are the module's own: at most some nine hundred bytes, so that a key fits into 1024.
///
/// ```
/// use shepherd_sdk::{Moment, When, due::Due, testing::MemoryHost};
///
/// const DUE: Due = Due::under(b"due/");
///
/// let mut host = MemoryHost::default();
/// DUE.set(&mut host, b"order 1", When::Time(1_700_000_000))?;
/// DUE.set(&mut host, b"order 2", When::Block(200))?;
/// DUE.set(&mut host, b"order 2", When::Block(100))?; // It is moved.
///
/// let taken = DUE.take(&mut host, Moment { block: 100, time: 1_699_999_999 }, 50)?;
/// assert_eq!(taken.ids, [b"order 2"]);
/// assert!(!taken.more);
/// assert_eq!(DUE.when(&mut host, b"order 1")?, Some(When::Time(1_700_000_000)));
/// # Ok::<(), shepherd_sdk::due::Corrupt>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Due {
    prefix: &'static [u8],
}

/// What was due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Ids, those due longest first, one from the queue by block and one from the queue by time
    /// in turn. They are no longer in the index.
    pub ids: Vec<Vec<u8>>,
    /// Whether more is due.
    pub more: bool,
}

/// The state holds something under the index's prefix that the index did not write.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("the due index did not write what is under the key 0x{}", hex::encode(key))]
pub struct Corrupt {
    /// The key.
    pub key: Vec<u8>,
}

impl fmt::Debug for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Due {
    /// The index whose keys start with this prefix, which no other key of the module may do.
    pub const fn under(prefix: &'static [u8]) -> Due {
        Due { prefix }
    }

    /// Puts an id into the index, or moves it: it is due then, and no longer when it was.
    ///
    /// One read, and at most three writes.
    pub fn set(&self, host: &mut impl Host, id: &[u8], when: When) -> Result<(), Corrupt> {
        let before = self.when(host, id)?;
        if before == Some(when) {
            return Ok(());
        }
        if let Some(before) = before {
            host.delete(&self.queue_key(before, id));
        }
        host.set(&self.queue_key(when, id), &[]);
        let (queue, number) = split(when);
        host.set(&self.id_key(id), &[&[queue][..], &number.to_be_bytes()].concat());
        Ok(())
    }

    /// Takes an id out of the index, if it is there.
    pub fn remove(&self, host: &mut impl Host, id: &[u8]) -> Result<(), Corrupt> {
        if let Some(when) = self.when(host, id)? {
            host.delete(&self.queue_key(when, id));
            host.delete(&self.id_key(id));
        }
        Ok(())
    }

    /// When an id is due. `None` when it is not in the index.
    pub fn when(&self, host: &mut impl Host, id: &[u8]) -> Result<Option<When>, Corrupt> {
        let key = self.id_key(id);
        let Some(value) = host.get(&key) else { return Ok(None) };
        let read = || {
            let (queue, number) = value.split_first()?;
            let number = u64::from_be_bytes(number.try_into().ok()?);
            match *queue {
                BY_BLOCK => Some(When::Block(number)),
                BY_TIME => Some(When::Time(number)),
                _ => None,
            }
        };
        read().map(Some).ok_or(Corrupt { key })
    }

    /// Takes what is due by now out of the index: at most `limit` ids.
    ///
    /// Both queues move on even when one of them alone would fill the limit. Whoever calls this
    /// until nothing more is due must not put anything back that is due already.
    ///
    /// The work follows the number of ids taken, whatever else is in the index: each is listed,
    /// with at most twice as many that are not due, and deleted with two writes.
    pub fn take(&self, host: &mut impl Host, now: Moment, limit: usize) -> Result<Taken, Corrupt> {
        // One beyond the limit, to know whether there is more.
        let beyond = limit.saturating_add(1);
        let blocks = self.due(host, BY_BLOCK, now.block, beyond)?;
        let times = self.due(host, BY_TIME, now.time, beyond)?;
        let more = limit < blocks.len() + times.len();
        let (mut blocks, mut times) = (blocks.into_iter(), times.into_iter());
        let mut taken = Vec::new();
        while taken.len() < limit {
            let pair = [blocks.next(), times.next()];
            if pair == [None, None] {
                break;
            }
            taken.extend(pair.into_iter().flatten());
        }
        taken.truncate(limit);
        let mut ids = Vec::with_capacity(taken.len());
        for key in taken {
            let id = self.id_of(&key).to_vec();
            host.delete(&key);
            host.delete(&self.id_key(&id));
            ids.push(id);
        }
        Ok(Taken { ids, more })
    }

    /// The keys of a queue that are due by `now`, at most `limit`.
    fn due(
        &self,
        host: &mut impl Host,
        queue: u8,
        now: u64,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, Corrupt> {
        let prefix = [self.prefix, &[queue]].concat();
        let mut due: Vec<Vec<u8>> = Vec::new();
        // The state has no "up to this key". So the first page is one entry, which at most blocks
        // is not due, and the next is as large as what was due suggests.
        loop {
            let wanted = (2 * due.len()).max(1).min(limit - due.len());
            let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
            let page = host.list(&prefix, due.last().map(Vec::as_slice), wanted);
            for (key, _) in page.entries {
                let number = key.get(prefix.len()..).and_then(<[u8]>::first_chunk);
                let Some(number) = number else { return Err(Corrupt { key }) };
                if now < u64::from_be_bytes(*number) {
                    return Ok(due);
                }
                due.push(key);
            }
            if !page.more || limit <= due.len() {
                return Ok(due);
            }
        }
    }

    fn queue_key(&self, when: When, id: &[u8]) -> Vec<u8> {
        let (queue, number) = split(when);
        [self.prefix, &[queue], &number.to_be_bytes(), id].concat()
    }

    fn id_key(&self, id: &[u8]) -> Vec<u8> {
        [self.prefix, &[BY_ID], id].concat()
    }

    /// The id in a key of a queue, which is known to be long enough.
    fn id_of<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        &key[self.prefix.len() + 1 + 8..]
    }
}

fn split(when: When) -> (u8, u64) {
    match when {
        When::Block(block) => (BY_BLOCK, block),
        When::Time(time) => (BY_TIME, time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryHost;

    const DUE: Due = Due::under(b"d");

    fn taken(host: &mut MemoryHost, block: u64, time: u64, limit: usize) -> (String, bool) {
        let taken = DUE.take(host, Moment { block, time }, limit).unwrap();
        (String::from_utf8(taken.ids.concat()).unwrap(), taken.more)
    }

    fn with(entries: &[(&str, When)]) -> MemoryHost {
        let mut host = MemoryHost::default();
        for (id, when) in entries {
            DUE.set(&mut host, id.as_bytes(), *when).unwrap();
        }
        host
    }

    #[test]
    fn keys_are_laid_out_as_documented() {
        let mut host = with(&[("x", When::Block(0x0102)), ("y", When::Time(3))]);
        let entries: Vec<_> = host.state.into_iter().collect();
        let entry = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
        let expected = [
            entry(b"db\0\0\0\0\0\0\x01\x02x", b""),
            entry(b"dt\0\0\0\0\0\0\0\x03y", b""),
            entry(b"dwx", b"b\0\0\0\0\0\0\x01\x02"),
            entry(b"dwy", b"t\0\0\0\0\0\0\0\x03"),
        ];
        assert_eq!(entries, expected);
        host = MemoryHost::default();
        assert_eq!(DUE.when(&mut host, b"x"), Ok(None));
    }

    #[test]
    fn what_is_due_longest_comes_first_and_the_queues_take_turns() {
        let entries = [
            ("c", When::Block(300)),
            ("a", When::Block(1)),
            ("b", When::Block(256)),
            ("Z", When::Time(70)),
            ("Y", When::Time(8)),
            ("n", When::Block(301)),
            ("N", When::Time(71)),
        ];
        assert_eq!(taken(&mut with(&entries), 300, 70, 10), ("aYbZc".to_owned(), false));
        assert_eq!(taken(&mut with(&entries), 300, 70, 5), ("aYbZc".to_owned(), false));
        let mut host = with(&entries);
        assert_eq!(taken(&mut host, 300, 70, 3), ("aYb".to_owned(), true));
        assert_eq!(taken(&mut host, 300, 70, 3), ("cZ".to_owned(), false));
        assert_eq!(taken(&mut host, 300, 70, 3), (String::new(), false));
        assert_eq!(taken(&mut host, u64::MAX, u64::MAX, 3), ("nN".to_owned(), false));
        assert!(host.state.is_empty());
    }

    #[test]
    fn a_limit_of_nothing_takes_nothing_and_says_whether_something_is_due() {
        let mut host = with(&[("a", When::Block(5))]);
        assert_eq!(taken(&mut host, 4, 0, 0), (String::new(), false));
        assert_eq!(taken(&mut host, 5, 0, 0), (String::new(), true));
    }

    #[test]
    fn an_id_is_due_once_however_often_it_is_moved() {
        let mut host = with(&[("a", When::Block(5)), ("a", When::Time(9)), ("a", When::Block(7))]);
        assert_eq!(host.state.len(), 2);
        assert_eq!(DUE.when(&mut host, b"a"), Ok(Some(When::Block(7))));
        assert_eq!(taken(&mut host, 6, 100, 10), (String::new(), false));
        assert_eq!(taken(&mut host, 7, 0, 10), ("a".to_owned(), false));
        assert!(host.state.is_empty());
    }

    #[test]
    fn what_is_removed_is_not_due() {
        let mut host = with(&[("a", When::Block(5)), ("aa", When::Block(5))]);
        DUE.remove(&mut host, b"a").unwrap();
        DUE.remove(&mut host, b"unknown").unwrap();
        assert_eq!(taken(&mut host, 5, 0, 10), ("aa".to_owned(), false));
    }

    #[test]
    fn other_keys_of_the_module_are_left_alone() {
        let mut host = with(&[("a", When::Block(5))]);
        host.state.insert(b"c".to_vec(), vec![1]);
        host.state.insert(b"e".to_vec(), vec![2]);
        assert_eq!(taken(&mut host, 5, 0, 10), ("a".to_owned(), false));
        assert_eq!(host.state.len(), 2);
    }

    #[test]
    fn what_the_index_did_not_write_is_an_error() {
        let mut host = MemoryHost::default();
        host.state.insert(b"dwa".to_vec(), b"b\0".to_vec());
        let corrupt = Corrupt { key: b"dwa".to_vec() };
        assert_eq!(DUE.when(&mut host, b"a"), Err(corrupt.clone()));
        assert_eq!(DUE.set(&mut host, b"a", When::Block(1)), Err(corrupt));
        host.state.insert(b"dwa".to_vec(), b"x\0\0\0\0\0\0\0\0".to_vec());
        assert!(DUE.remove(&mut host, b"a").is_err());

        host.state.insert(b"db\0\0".to_vec(), vec![]);
        let now = Moment { block: 1, time: 1 };
        let error = DUE.take(&mut host, now, 10).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the due index did not write what is under the key 0x64620000"
        );
    }
}
