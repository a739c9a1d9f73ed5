//! What a step has changed so far.
//!
//! Most modules get and set keys and never list them, and a step over many records looks the same
//! keys up again and again. So values are found by hash, and the order of keys is only kept for
//! steps that were asked for it.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
};

use foldhash::fast::RandomState;

use crate::lane::row_bytes;

/// Keys and their new values; `None` for keys that were removed.
#[derive(Default)]
pub struct Changes {
    values: HashMap<Vec<u8>, Option<Vec<u8>>, RandomState>,
    order: Option<BTreeSet<Vec<u8>>>,
    bytes: usize,
}

impl Changes {
    /// The change of a key, when there is one.
    pub fn get(&self, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        self.values.get(key)
    }

    /// Changes a key.
    pub fn put(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.bytes += row_bytes(&key, value.as_ref());
        if let Some(replaced) = self.values.get_mut(&key) {
            self.bytes -= row_bytes(&key, replaced.as_ref());
            *replaced = value;
            return;
        }
        if let Some(order) = &mut self.order {
            order.insert(key.clone());
        }
        self.values.insert(key, value);
    }

    /// How many keys are changed.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// What the changes weigh, each key once.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Every change, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Vec<u8>, &Option<Vec<u8>>)> {
        self.values.iter()
    }

    /// Every change, in key order.
    pub fn sorted(&self) -> Vec<(&Vec<u8>, &Option<Vec<u8>>)> {
        let mut changes: Vec<_> = self.values.iter().collect();
        changes.sort_unstable_by_key(|(key, _)| *key);
        changes
    }

    /// The changes of keys from `start` on that have a prefix, in key order.
    pub fn from<'c>(
        &'c mut self,
        start: &[u8],
        prefix: &'c [u8],
    ) -> impl Iterator<Item = (&'c Vec<u8>, &'c Option<Vec<u8>>)> {
        let Changes { values, order, .. } = self;
        let order = order.get_or_insert_with(|| values.keys().cloned().collect());
        order
            .range::<[u8], _>((Bound::Included(start), Bound::Unbounded))
            .take_while(|key| key.starts_with(prefix))
            .map(|key| (key, &values[key]))
    }

    /// The changes themselves.
    pub fn into_values(self) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> {
        self.values.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    #[test]
    fn the_order_of_keys_is_kept_once_it_was_asked_for() {
        let mut changes = Changes::default();
        for text in ["b", "a", "bb", "c"] {
            changes.put(key(text), Some(key(text)));
        }
        check(&mut changes, "", "", &["a", "b", "bb", "c"]);
        changes.put(key("ba"), None);
        changes.put(key("b"), None);
        check(&mut changes, "b", "b", &["b", "ba", "bb"]);
        check(&mut changes, "ba", "b", &["ba", "bb"]);
        check(&mut changes, "d", "", &[]);
        assert_eq!(changes.get(b"b"), Some(&None));
        assert_eq!(changes.sorted().len(), changes.len());
    }

    fn check(changes: &mut Changes, start: &str, prefix: &str, expected: &[&str]) {
        let found: Vec<Vec<u8>> =
            changes.from(start.as_bytes(), prefix.as_bytes()).map(|(key, _)| key.clone()).collect();
        assert_eq!(found, expected.iter().map(|text| key(text)).collect::<Vec<_>>());
    }

    #[test]
    fn a_key_weighs_what_it_was_last_changed_to() {
        let mut changes = Changes::default();
        for length in [10, 1000, 3] {
            changes.put(key("a"), Some(vec![7; length]));
        }
        changes.put(key("b"), None);
        let expected = row_bytes(b"a", Some(&vec![7; 3])) + row_bytes(b"b", None);
        assert_eq!((changes.bytes(), changes.len()), (expected, 2));
    }
}
