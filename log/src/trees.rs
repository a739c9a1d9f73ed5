//! The trees that hold one segment each.
//!
//! The engine cannot remove a range (hazard F8), so what shall leave together is a tree by itself:
//! `journal-CHAIN-SEGMENT`, `index-CHAIN-SEGMENT`.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
};

use fjall::{Database, Keyspace};

use crate::store::{Core, keyspace_options};

/// Trees by the number of their segment.
pub type Segments = Arc<BTreeMap<u64, Keyspace>>;

/// One kind of tree of one chain.
pub struct Trees {
    prefix: String,
    segments: RwLock<Segments>,
}

impl Trees {
    /// No trees yet; their names will start with `prefix`.
    pub fn new(prefix: String) -> Trees {
        Trees { prefix, segments: RwLock::default() }
    }

    /// Opens the trees that exist.
    pub fn open(database: &Database, prefix: String) -> Result<Trees, fjall::Error> {
        let mut segments = BTreeMap::new();
        for name in database.list_keyspace_names() {
            let number = name.strip_prefix(&*prefix).and_then(|number| number.parse().ok());
            if let Some(number) = number {
                segments.insert(number, database.keyspace(&name, keyspace_options)?);
            }
        }
        Ok(Trees { prefix, segments: RwLock::new(Arc::new(segments)) })
    }

    /// Those there are now. Whoever holds them can read them, also when they are deleted meanwhile.
    pub fn all(&self) -> Segments {
        self.segments.read().expect("nothing panics while extending").clone()
    }

    /// The tree of a segment, created when it is missing.
    pub fn get_or_create(
        &self,
        number: u64,
        database: &Database,
    ) -> Result<Keyspace, fjall::Error> {
        if let Some(tree) = self.all().get(&number) {
            return Ok(tree.clone());
        }
        let tree = database.keyspace(&format!("{}{number:08}", self.prefix), keyspace_options)?;
        let mut segments = self.segments.write().expect("nothing panics while extending");
        Arc::make_mut(&mut segments).insert(number, tree.clone());
        Ok(tree)
    }

    /// Deletes the trees of segments before `end`, oldest first.
    ///
    /// Their files go when nobody reads them any more and the write-ahead log has let go of them.
    pub fn delete_before(&self, end: u64, core: &Core) -> Result<(), fjall::Error> {
        while let Some((number, _)) = self.all().range(..end).next() {
            // Commits wait: the engine makes everything visible up to the deletion, and with it
            // half of what was being committed.
            let _held = core.writer.hold_commits();
            self.delete_unopened(*number, &core.database)?;
        }
        Ok(())
    }

    /// Deletes a tree while nothing else writes, as when a store is being opened.
    pub fn delete_unopened(&self, number: u64, database: &Database) -> Result<(), fjall::Error> {
        let mut segments = self.segments.write().expect("nothing panics while extending");
        if let Some(tree) = Arc::make_mut(&mut segments).remove(&number) {
            database.delete_keyspace(tree)?;
        }
        Ok(())
    }
}
