//! The one thread that writes.
//!
//! ```text
//! append ──┐
//! step   ──┼─▶ queue ─▶ writer: merge what waits ─▶ one batch, SyncData ─▶ answer everybody
//! step   ──┘                       └ under the commit mutex, which every snapshot takes too
//! ```
//!
//! Merging what waits means that a hundred lanes on one block pay for a few syncs, not a hundred.
//! Two steps of one lane, which a replay hands over before the first is written, are two batches:
//! both change the lane's cursor.
//!
//! A write has no error to return. When the engine reports one, the batch may or may not reach the
//! disk later: dropping the database flushes the same buffer again (hazard F1). So the writer hands
//! the message to `on_write_failure`, which ends the process without running destructors, and the
//! next start reads the truth from the disk. The same goes for a commit that does not come back:
//! the engine waits for ever when its flush worker died (hazard F6).

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use fjall::{Database, Keyspace, OwnedWriteBatch, PersistMode};

use crate::{
    codec::{KEY_BYTES_MAX, VALUE_BYTES_MAX},
    highwater::{self, Highwater, Mark},
    lane::EFFECTS_MAX,
    metrics::Metrics,
    store::in_words,
};

/// Largest batch the engine is given (hazard F9).
pub const BATCH_BYTES_MAX: usize = 8 << 20;

/// Callers waiting to be merged into the next batch.
///
/// Each lane and each chain waits for its own commit, so this many workers can be in flight before
/// one waits for a place; a thousand lanes is the largest set-up we plan for.
const QUEUE_MAX: usize = 1024;

/// How long one commit may take before we take the engine for dead (hazard F6).
const COMMIT_TIME_MAX: Duration = Duration::from_secs(30);

/// How far the high-water mark may lag behind what is durable.
///
/// Two more syncs, so once a second. What a damaged log loses silently within this window is a
/// clean tail of the write-ahead log: records, cursors and outboxes go back together.
const HIGHWATER_INTERVAL: Duration = Duration::from_secs(1);

/// Something too large for the engine. Checked before the engine sees it, because there it would
/// panic with its write lock taken (hazard F9).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// A key that is empty or too long.
    #[error("a key of {bytes} bytes: keys have 1 to {KEY_BYTES_MAX}")]
    Key {
        /// Its length.
        bytes: usize,
    },
    /// A value that is too long.
    #[error("a value of {bytes} bytes: values have at most {VALUE_BYTES_MAX}")]
    Value {
        /// Its length.
        bytes: usize,
    },
    /// Too many effects of one record.
    #[error("{effects} effects: a record has at most {EFFECTS_MAX}")]
    Effects {
        /// How many.
        effects: usize,
    },
    /// Too much for one commit.
    #[error("{bytes} bytes for one commit: a commit has at most {BATCH_BYTES_MAX}")]
    Batch {
        /// Their sum.
        bytes: usize,
    },
}

/// Changes that become durable together or not at all.
///
/// No key may be changed twice: inside one engine batch all changes have the same sequence number,
/// so which of two would win is not defined. Callers make sure of it, and debug builds check.
#[derive(Default)]
pub struct Batch {
    changes: Vec<Change>,
    bytes: usize,
}

struct Change {
    keyspace: Keyspace,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl Batch {
    /// Sets a key.
    pub fn put(
        &mut self,
        keyspace: &Keyspace,
        key: impl Into<Vec<u8>>,
        value: Vec<u8>,
    ) -> Result<(), SizeError> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(SizeError::Value { bytes: value.len() });
        }
        self.change(keyspace, key.into(), Some(value))
    }

    /// Removes a key.
    pub fn remove(
        &mut self,
        keyspace: &Keyspace,
        key: impl Into<Vec<u8>>,
    ) -> Result<(), SizeError> {
        self.change(keyspace, key.into(), None)
    }

    fn change(
        &mut self,
        keyspace: &Keyspace,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    ) -> Result<(), SizeError> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(SizeError::Key { bytes: key.len() });
        }
        let bytes = self.bytes + key.len() + value.as_ref().map_or(0, Vec::len);
        if bytes > BATCH_BYTES_MAX {
            return Err(SizeError::Batch { bytes });
        }
        self.bytes = bytes;
        self.changes.push(Change { keyspace: keyspace.clone(), key, value });
        Ok(())
    }

    /// What the changes weigh.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

struct Job {
    batch: Batch,
    mark: Option<Mark>,
    done: SyncSender<()>,
}

impl Job {
    /// Whether both are steps of one lane.
    fn is_of_lane_of(&self, other: &Job) -> bool {
        matches!(
            (self.mark, other.mark),
            (Some(Mark::Lane(one, _)), Some(Mark::Lane(other, _))) if one == other
        )
    }
}

fn change_no_key_twice(jobs: &[Job]) -> bool {
    let mut keys = HashSet::new();
    let mut changes = jobs.iter().flat_map(|job| &job.batch.changes);
    changes.all(|change| keys.insert((change.keyspace.id(), &change.key)))
}

/// Handle to the writer thread.
pub struct Writer {
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    commits: Arc<Mutex<()>>,
    on_write_failure: fn(&str) -> !,
}

/// What the writer thread starts from.
pub struct WriterStart {
    /// The engine.
    pub database: Database,
    /// The mark as read when the store was opened.
    pub highwater: Highwater,
    /// Where the mark is kept.
    pub highwater_file: PathBuf,
    /// Commit latencies.
    pub metrics: Metrics,
    /// Ends the process.
    pub on_write_failure: fn(&str) -> !,
}

impl Writer {
    /// Starts the thread.
    pub fn start(start: WriterStart) -> Writer {
        let (queue, jobs) = sync_channel(QUEUE_MAX);
        let commits = Arc::new(Mutex::new(()));
        let on_write_failure = start.on_write_failure;
        let worker = Worker { start, commits: commits.clone(), dirty: false, jobs };
        let thread = std::thread::Builder::new()
            .name("shepherd-commit".to_owned())
            .spawn(move || worker.run())
            .expect("the process may start threads");
        Writer { queue: Some(queue), thread: Some(thread), commits, on_write_failure }
    }

    /// When this returns, the batch survives a power cut.
    pub fn commit(&self, batch: Batch, mark: Option<Mark>) {
        self.submit(batch, mark).wait();
    }

    /// Hands a batch to the thread without waiting for it.
    pub fn submit(&self, batch: Batch, mark: Option<Mark>) -> Submitted {
        let (done, answer) = sync_channel(1);
        let queue =
            self.queue.as_ref().expect("the queue is only taken when the writer is dropped");
        if queue.send(Job { batch, mark, done }).is_err() {
            (self.on_write_failure)("the writer thread ended");
        }
        Submitted { answer, on_write_failure: self.on_write_failure }
    }

    /// Keeps commits out while a snapshot is taken: without this a snapshot can be torn while the
    /// engine installs a new version of a tree (hazard F2).
    pub fn hold_commits(&self) -> MutexGuard<'_, ()> {
        self.commits.lock().expect("the writer ends the process instead of panicking")
    }
}

/// A batch on its way to the disk.
#[must_use = "it is durable once it was waited for"]
pub struct Submitted {
    answer: Receiver<()>,
    on_write_failure: fn(&str) -> !,
}

impl Submitted {
    /// When this returns, the batch survives a power cut.
    pub fn wait(self) {
        match self.answer.recv_timeout(COMMIT_TIME_MAX) {
            Ok(()) => (),
            Err(RecvTimeoutError::Timeout) => (self.on_write_failure)(&format!(
                "a commit did not come back within {} seconds",
                COMMIT_TIME_MAX.as_secs()
            )),
            Err(RecvTimeoutError::Disconnected) => {
                (self.on_write_failure)("the writer thread ended")
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A panic in the writer was already reported by whoever waited for it.
            let _ = thread.join();
        }
    }
}

struct Worker {
    start: WriterStart,
    commits: Arc<Mutex<()>>,
    dirty: bool,
    jobs: Receiver<Job>,
}

impl Worker {
    fn run(mut self) {
        let mut marked = Instant::now();
        loop {
            match self.jobs.recv_timeout(HIGHWATER_INTERVAL) {
                Ok(job) => self.commit_with_waiting(job),
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.dirty && marked.elapsed() >= HIGHWATER_INTERVAL {
                self.write_highwater();
                marked = Instant::now();
            }
        }
        if self.dirty {
            self.write_highwater();
        }
    }

    fn commit_with_waiting(&mut self, first: Job) {
        let mut next = Some(first);
        while let Some(job) = next.take() {
            let mut waiting = vec![job];
            let mut bytes = waiting[0].batch.bytes;
            while let Ok(job) = self.jobs.try_recv() {
                let is_of_lane_there = waiting.iter().any(|other| job.is_of_lane_of(other));
                if is_of_lane_there || bytes + job.batch.bytes > BATCH_BYTES_MAX {
                    next = Some(job);
                    break;
                }
                bytes += job.batch.bytes;
                waiting.push(job);
            }
            self.commit(waiting, bytes);
        }
    }

    fn commit(&mut self, jobs: Vec<Job>, bytes: usize) {
        debug_assert!(change_no_key_twice(&jobs), "no key is changed twice in one batch");
        let started = Instant::now();
        let entries = jobs.iter().map(|job| job.batch.changes.len()).sum();
        let mut batch = OwnedWriteBatch::with_capacity(self.start.database.clone(), entries)
            .durability(Some(PersistMode::SyncData));
        let mut answers = Vec::with_capacity(jobs.len());
        for job in jobs {
            for Change { keyspace, key, value } in job.batch.changes {
                match value {
                    Some(value) => batch.insert(&keyspace, key, value),
                    None => batch.remove(&keyspace, key),
                }
            }
            answers.push((job.done, job.mark));
        }
        let result = {
            let _held = self.commits.lock().expect("nobody panics while holding commits back");
            batch.commit()
        };
        if let Err(error) = result {
            let error = in_words(&error);
            (self.start.on_write_failure)(&format!("writing to the store failed: {error}"));
        }
        self.start.metrics.committed(started.elapsed(), answers.len(), bytes);
        for (done, mark) in answers {
            if let Some(mark) = mark {
                self.start.highwater.raise(mark);
                self.dirty = true;
            }
            // Whoever asked has given up only if the process is ending.
            let _ = done.send(());
        }
    }

    fn write_highwater(&mut self) {
        if let Err(error) = highwater::write(&self.start.highwater_file, &self.start.highwater) {
            (self.start.on_write_failure)(&format!("writing the high-water mark failed: {error}"));
        }
        self.dirty = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_steps_of_a_lane_that_wait_together_are_written_one_after_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::builder(dir.path().join("db")).open().unwrap();
        let cursors = database.keyspace("cursors", crate::store::keyspace_options).unwrap();
        let writer = Writer::start(WriterStart {
            database: database.clone(),
            highwater: Highwater::default(),
            highwater_file: dir.path().join("highwater"),
            metrics: Metrics::unregistered(),
            on_write_failure: |message| panic!("{message}"),
        });
        let lanes = [0u32, 1];
        let step = |lane: u32, commit: u64| {
            let mut batch = Batch::default();
            batch.put(&cursors, lane.to_be_bytes(), commit.to_be_bytes().to_vec()).unwrap();
            writer.submit(batch, Some(Mark::Lane(lane, commit)))
        };
        // The first commit waits for this, and the others for the first.
        let held = writer.hold_commits();
        let steps = (1..=4).flat_map(|commit| lanes.map(|lane| step(lane, commit)));
        let submitted: Vec<Submitted> = steps.collect();
        drop(held);
        submitted.into_iter().for_each(Submitted::wait);
        for lane in lanes {
            let commit = cursors.get(lane.to_be_bytes()).unwrap().expect("it was written");
            assert_eq!(&*commit, 4u64.to_be_bytes(), "lane {lane}");
        }
    }
}
