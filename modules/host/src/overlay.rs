//! A record's own writes, in front of the state they will be committed to.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
};

use crate::{
    fault::{Failure, OutputTooLarge, World},
    limits::{KEY_BYTES_MAX, LIST_BYTES_MAX, LIST_ENTRIES_MAX, VALUE_BYTES_MAX, WRITES_BYTES_MAX},
};

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
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, World>;
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
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, World> {
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
    pub(crate) entries: Vec<(Vec<u8>, Vec<u8>)>,
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
        let replaced = self.writes.get(&key).map_or(0, |old| size(&key, old.as_deref()));
        let bytes = self.bytes - replaced + key.len() + value_bytes;
        if bytes > WRITES_BYTES_MAX {
            return Err(OutputTooLarge::Writes { bytes });
        }
        self.bytes = bytes;
        self.writes.insert(key, value);
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
    entries: VecDeque<(Vec<u8>, Vec<u8>)>,
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

fn size(key: &[u8], value: Option<&[u8]>) -> usize {
    key.len() + value.map_or(0, <[u8]>::len)
}

impl From<OutputTooLarge> for Failure {
    fn from(output: OutputTooLarge) -> Failure {
        Failure::Module(output.into())
    }
}
