//! What a lane remembers of its own state between steps.
//!
//! A lane is the only writer of its state, so a value it has read or committed stays true until it
//! commits another. Remembering it saves the lookup in the engine, which is most of what a step
//! over small records costs. It changes no result: a forgotten value is read again.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use foldhash::fast::RandomState;

use crate::{changes::Changes, lane::row_bytes};

/// Memory that all lanes of a store may use together to remember their state.
const CACHE_BYTES: usize = 32 << 20;

/// Least share of a lane. A thousand lanes may use a quarter of a gigabyte.
const SHARE_BYTES_MIN: usize = 256 << 10;

/// Divides the memory between the lanes that are open.
#[derive(Clone, Default)]
pub struct Shares(Arc<AtomicUsize>);

impl Shares {
    /// A cache for one more lane.
    pub fn join(&self) -> StateCache {
        self.0.fetch_add(1, Ordering::Relaxed);
        StateCache {
            newer: Values::default(),
            older: Values::default(),
            bytes: 0,
            shares: self.clone(),
        }
    }

    fn bytes(&self) -> usize {
        (CACHE_BYTES / self.0.load(Ordering::Relaxed).max(1)).max(SHARE_BYTES_MIN)
    }
}

/// Values as they are durable; `None` for keys that have none.
///
/// Half of the share is filled with what was used of late; when it is full, it becomes the older
/// half, and what was older and not used since is forgotten. Keeping the order of use would cost
/// more on every hit than reading a value again does now and then.
pub struct StateCache {
    newer: Values,
    older: Values,
    /// Of the newer half.
    bytes: usize,
    shares: Shares,
}

type Values = HashMap<Vec<u8>, Option<Vec<u8>>, RandomState>;

impl StateCache {
    /// The value of a key, when it is remembered.
    pub fn get(&self, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        self.newer.get(key).or_else(|| self.older.get(key))
    }

    /// Remembers what was read or committed.
    pub fn put(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let bytes = row_bytes(&key, value.as_ref());
        if self.bytes + bytes > self.shares.bytes() / 2 {
            // Emptied and not dropped: it will hold about as much again.
            std::mem::swap(&mut self.newer, &mut self.older);
            self.newer.clear();
            self.bytes = 0;
        }
        self.bytes += bytes;
        if let Some(replaced) = self.newer.get_mut(&key) {
            self.bytes -= row_bytes(&key, replaced.as_ref());
            *replaced = value;
        } else {
            self.newer.insert(key, value);
        }
    }

    /// Remembers what a step has committed.
    pub fn commit(&mut self, changes: Changes) {
        for (key, value) in changes.into_values() {
            self.put(key, value);
        }
    }
}

impl Drop for StateCache {
    fn drop(&mut self) {
        self.shares.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Vec<u8> {
        n.to_be_bytes().to_vec()
    }

    #[test]
    fn a_cache_stays_within_its_share_and_counts_what_it_replaces() {
        let shares = Shares::default();
        let mut cache = shares.join();
        for n in 0..10 {
            cache.put(key(7), Some(vec![0; n]));
        }
        assert_eq!(cache.bytes, row_bytes(&key(7), Some(&vec![0; 9])));
        let value = Some(vec![1; 1 << 20]);
        for n in 0..100 {
            cache.put(key(n), value.clone());
            let rows = cache.newer.iter().chain(&cache.older);
            let bytes: usize = rows.map(|(key, value)| row_bytes(key, value.as_ref())).sum();
            assert!(bytes <= CACHE_BYTES);
            assert_eq!(cache.get(&key(n)), Some(&value));
        }
        assert_eq!(cache.get(&key(1)), None, "forgotten");
    }

    #[test]
    fn what_was_replaced_is_never_remembered() {
        let mut cache = Shares::default().join();
        let large = CACHE_BYTES / 5;
        cache.put(key(1), Some(vec![1; 8]));
        for n in 2..6 {
            cache.put(key(n), Some(vec![0; large]));
            cache.put(key(1), Some(vec![n as u8; 8]));
            assert_eq!(cache.get(&key(1)), Some(&Some(vec![n as u8; 8])));
        }
    }

    #[test]
    fn lanes_share_the_memory_while_they_are_open() {
        let shares = Shares::default();
        let one = shares.join();
        assert_eq!(shares.bytes(), CACHE_BYTES);
        let others: Vec<StateCache> = (0..3).map(|_| shares.join()).collect();
        assert_eq!(shares.bytes(), CACHE_BYTES / 4);
        drop(others);
        assert_eq!(shares.bytes(), CACHE_BYTES);
        drop(one);
    }
}
