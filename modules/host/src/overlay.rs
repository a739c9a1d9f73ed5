//! A record's own writes, in front of the state they will be committed to.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry as Slot},
    ops::Bound,
};

use shepherd_log::row_bytes;

use crate::{
    fault::{Failure, Fault, OutputTooLarge, World},
    limits::{KEY_BYTES_MAX, LIST_BYTES_MAX, LIST_ENTRIES_MAX, VALUE_BYTES_MAX, WRITES_BYTES_MAX},
};

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// A lane's state as it is before the record.
pub trait StateView {
    /// The value of a key.
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, World>;

    /// Entries whose key starts with `prefix` and is greater than `after`, in byte order.
    ///
    /// At most `limit` of them; fewer only when there are no more.
    fn list(
        &mut self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, World>;
}

/// A map is a state: what tests use.
impl StateView for BTreeMap<Vec<u8>, Vec<u8>> {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, World> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn list(
        &mut self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, World> {
        let entries = self
            .range::<[u8], _>((start(prefix, after), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit);
        Ok(entries.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

/// Where a listing starts: after `after`, but not before the prefix.
fn start<'a>(prefix: &'a [u8], after: Option<&'a [u8]>) -> Bound<&'a [u8]> {
    match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    }
}

/// A page of a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    /// Whether entries follow the last one.
    pub(crate) more: bool,
}

/// The writes of one record: a value, or `None` for a key that was deleted.
#[derive(Default)]
pub(crate) struct Overlay {
    writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
}

impl Overlay {
    pub(crate) fn into_writes(self) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
        self.writes
    }

    /// Reads a key: the record's own write when there is one, else the state's value.
    pub(crate) fn get(
        &self,
        state: &mut dyn StateView,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, Failure> {
        check_key(key)?;
        if let Some(written) = self.writes.get(key) {
            return Ok(written.clone());
        }
        Ok(state.get(key)?)
    }

    /// Writes a key, or deletes it with `None`.
    pub(crate) fn write(
        &mut self,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    ) -> Result<(), OutputTooLarge> {
        check_key(&key)?;
        let value_bytes = value.as_ref().map_or(0, Vec::len);
        if value_bytes > VALUE_BYTES_MAX {
            return Err(OutputTooLarge::Value { bytes: value_bytes });
        }
        let added = row_bytes(&key, value.as_ref());
        // One search for the key, whether it is there or not: a block writes hundreds.
        let slot = self.writes.entry(key);
        let replaced = match &slot {
            Slot::Occupied(old) => row_bytes(old.key(), old.get().as_ref()),
            Slot::Vacant(_) => 0,
        };
        let bytes = self.bytes - replaced + added;
        if bytes > WRITES_BYTES_MAX {
            return Err(OutputTooLarge::Writes { bytes });
        }
        self.bytes = bytes;
        slot.insert_entry(value);
        Ok(())
    }

    /// Counts what the record adds to its step besides writes: effects share the limit with them.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Result<(), OutputTooLarge> {
        let bytes = self.bytes + bytes;
        if bytes > WRITES_BYTES_MAX {
            return Err(OutputTooLarge::Writes { bytes });
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Lists what a reader would find had the writes been committed already.
    pub(crate) fn list(
        &self,
        state: &mut dyn StateView,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: u32,
    ) -> Result<Page, World> {
        let limit = (limit as usize).clamp(1, LIST_ENTRIES_MAX);
        let mut stored = Stored {
            prefix,
            after: after.map(<[u8]>::to_vec),
            // One more than asked shows whether anything follows.
            batch: limit + 1,
            entries: VecDeque::new(),
            ended: false,
        };
        let mut written = self
            .writes
            .range::<[u8], _>((start(prefix, after), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .peekable();

        let mut page = Page::default();
        let mut bytes = 0;
        loop {
            let stored_key = stored.peek(state)?;
            let written_first = match (stored_key, written.peek()) {
                (None, None) => return Ok(page),
                (Some(_), None) => false,
                (None, Some(_)) => true,
                (Some(stored_key), Some((written_key, _))) => written_key.as_slice() <= stored_key,
            };
            let entry = if written_first {
                let (key, value) = written.next().expect("it was peeked");
                if stored_key == Some(key) {
                    stored.entries.pop_front();
                }
                let Some(value) = value else { continue };
                (key.clone(), value.clone())
            } else {
                stored.entries.pop_front().expect("it was peeked")
            };
            bytes += entry.0.len() + entry.1.len();
            let full = page.entries.len() == limit || bytes > LIST_BYTES_MAX;
            if full && !page.entries.is_empty() {
                page.more = true;
                return Ok(page);
            }
            page.entries.push(entry);
        }
    }
}

/// The stored half of a listing, fetched as it is consumed.
struct Stored<'a> {
    prefix: &'a [u8],
    after: Option<Vec<u8>>,
    batch: usize,
    entries: VecDeque<Entry>,
    ended: bool,
}

impl Stored<'_> {
    fn peek(&mut self, state: &mut dyn StateView) -> Result<Option<&[u8]>, World> {
        if self.entries.is_empty() && !self.ended {
            let fetched = state.list(self.prefix, self.after.as_deref(), self.batch)?;
            self.ended = fetched.len() < self.batch;
            if let Some((last, _)) = fetched.last() {
                self.after = Some(last.clone());
            }
            self.entries = fetched.into();
        }
        Ok(self.entries.front().map(|(key, _)| key.as_slice()))
    }
}

fn check_key(key: &[u8]) -> Result<(), OutputTooLarge> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(OutputTooLarge::Key { bytes: key.len() });
    }
    Ok(())
}

impl From<OutputTooLarge> for Failure {
    fn from(output: OutputTooLarge) -> Failure {
        Fault::from(output).into()
    }
}

#[cfg(test)]
mod tests {
    use shepherd_log::ROW_OVERHEAD_BYTES;

    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    fn state(keys: &[&str]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        keys.iter().map(|key| (bytes(key), bytes("stored"))).collect()
    }

    #[test]
    fn a_record_reads_its_own_writes() {
        let mut state = state(&["a", "b"]);
        let mut overlay = Overlay::default();
        overlay.write(bytes("a"), Some(bytes("written"))).unwrap();
        overlay.write(bytes("b"), None).unwrap();
        overlay.write(bytes("c"), Some(bytes("new"))).unwrap();
        let mut get = |key: &str| overlay.get(&mut state, key.as_bytes()).unwrap();
        assert_eq!(get("a"), Some(bytes("written")));
        assert_eq!(get("b"), None);
        assert_eq!(get("c"), Some(bytes("new")));
        assert_eq!(get("d"), None);
    }

    #[test]
    fn replacing_and_deleting_gives_room_back() {
        let mut overlay = Overlay::default();
        for round in 0..10 {
            for key in 0u8..3 {
                let value = vec![round; VALUE_BYTES_MAX - ROW_OVERHEAD_BYTES - 1];
                overlay.write(vec![key], Some(value)).unwrap();
            }
        }
        let full = overlay.write(bytes("e"), Some(bytes("x"))).unwrap_err();
        let bytes_too_many = ROW_OVERHEAD_BYTES + 2;
        assert_eq!(full, OutputTooLarge::Writes { bytes: WRITES_BYTES_MAX + bytes_too_many });
        overlay.write(vec![0], None).unwrap();
        overlay.write(bytes("e"), Some(bytes("x"))).unwrap();
    }

    /// What a listing gives, page after page, is what committing first would have given.
    fn check(stored: &[&str], written: &[&str], deleted: &[&str], prefix: &str, limit: u32) {
        let mut before = state(stored);
        let mut overlay = Overlay::default();
        let mut committed = before.clone();
        for key in written {
            overlay.write(bytes(key), Some(bytes("written"))).unwrap();
            committed.insert(bytes(key), bytes("written"));
        }
        for key in deleted {
            overlay.write(bytes(key), None).unwrap();
            committed.remove(&bytes(key));
        }
        committed.retain(|key, _| key.starts_with(prefix.as_bytes()));

        let mut listed = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page =
                overlay.list(&mut before, prefix.as_bytes(), after.as_deref(), limit).unwrap();
            assert!(page.entries.len() <= limit as usize);
            assert!(!page.more || page.entries.len() == limit as usize, "a full page, or the last");
            after = page.entries.last().map(|(key, _)| key.clone()).or(after);
            listed.extend(page.entries);
            if !page.more {
                break;
            }
        }
        assert_eq!(listed, Vec::from_iter(committed), "{stored:?} {written:?} {deleted:?}");
    }

    #[test]
    fn a_listing_merges_writes_into_the_state_in_order() {
        let keys = ["a", "b", "b1", "b2", "b3", "b4", "c"];
        for limit in [1, 2, 3, 10] {
            check(&keys, &[], &[], "b", limit);
            check(&[], &keys, &[], "b", limit);
            check(&keys, &["b0", "b2", "b25", "b9"], &["b1", "b3"], "b", limit);
            check(&keys, &["b9"], &["b1", "b2", "b3", "b4"], "b", limit);
            check(&keys, &[], &keys, "", limit);
            check(&keys, &["a0", "d"], &["x"], "", limit);
            check(&keys, &["e"], &[], "z", limit);
        }
    }

    #[test]
    fn a_page_is_bounded_in_bytes_but_never_empty() {
        let mut state = BTreeMap::new();
        for key in 0u8..4 {
            state.insert(vec![key], vec![0; LIST_BYTES_MAX / 2]);
        }
        let overlay = Overlay::default();
        let page = overlay.list(&mut state, b"", None, 100).unwrap();
        assert_eq!((page.entries.len(), page.more), (1, true));
        state.insert(vec![0], vec![0; LIST_BYTES_MAX]);
        let page = overlay.list(&mut state, b"", None, 100).unwrap();
        assert_eq!((page.entries.len(), page.more), (1, true));
    }

    #[test]
    fn a_limit_of_zero_or_of_too_many_is_brought_into_range() {
        let mut many = BTreeMap::new();
        for key in 0..1500u32 {
            many.insert(key.to_be_bytes().to_vec(), Vec::new());
        }
        let overlay = Overlay::default();
        let lengths =
            [0, 5000].map(|limit| overlay.list(&mut many, b"", None, limit).unwrap().entries.len());
        assert_eq!(lengths, [1, LIST_ENTRIES_MAX]);
    }
}
