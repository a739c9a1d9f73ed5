//! The read cache: answers of archive endpoints, kept from one backtest to the next.
//!
//! ```text
//! directory   0.reads  1.reads …           each has at most one process that writes to it
//! file        "shepherd reads 1\n", then entries
//! entry       checksum (8), key (32), length u32 big-endian, answer
//! key         digest of the block's number and hash and of one request
//! answer      one answer, in the form of the tape
//! ```
//!
//! What the chain answers about a block that is named by its hash never changes, so an entry is
//! written once and no entry is ever edited. Files that are only appended to are all this needs:
//! a kill leaves at most one torn entry, at the end of one file, which the checksum tells and the
//! next writer cuts off. Whole entries before it are found by reading the file once, when the
//! cache is opened; where they are stays in memory, some sixty bytes for each.
//!
//! A process writes to the first file that no other process holds, so that several backtests can
//! share a directory. They see what was there when they opened it, and each its own answers.
//!
//! Nothing is synced: what a power cut takes is asked again.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use shepherd_host::{ReadAnswer, ReadRequest, answers, encode_answers, request_digest};
use shepherd_log::{BlockRef, Digest, TapeEntry};

/// What every file starts with: other programs' files, and other versions', are left alone.
const MAGIC: &[u8] = b"shepherd reads 1\n";

/// Bytes of an entry before its answer.
const HEAD_BYTES: usize = 8 + 32 + 4;

/// Longest answer that is kept. Longer ones are answers no module may read anyway.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A cache that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A file or the directory could not be read or written.
    #[error("the read cache at {} could not be {doing}", path.display())]
    File {
        /// Where it is.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A file of another kind or version.
    #[error("{} is no read cache of this version: remove it, or name another directory", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

/// Answers about the chain, by block hash and request.
#[derive(Debug)]
pub struct ReadCache {
    directory: PathBuf,
    files: Vec<(PathBuf, File)>,
    places: HashMap<Digest, Place>,
    /// The file this process writes to, once it has something to write.
    own: Option<Own>,
}

/// Where an answer is.
#[derive(Clone, Copy, Debug)]
struct Place {
    file: usize,
    at: u64,
    bytes: usize,
}

/// A file that is locked for this process.
#[derive(Debug)]
struct Own {
    file: usize,
    end: u64,
}

impl ReadCache {
    /// Opens the cache in a directory, which is made when it is missing.
    pub fn open(directory: &Path) -> Result<ReadCache, CacheError> {
        fs::create_dir_all(directory).map_err(failed(directory, "created"))?;
        let mut cache = ReadCache {
            directory: directory.to_owned(),
            files: Vec::new(),
            places: HashMap::new(),
            own: None,
        };
        for number in 0.. {
            let path = cache.path(number);
            let file = match File::options().read(true).write(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(failed(&path, "opened")(error)),
            };
            cache.files.push((path, file));
            cache.scan(number)?;
        }
        Ok(cache)
    }

    /// How many answers there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is no answer.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The answer to a request about a block, when it is there.
    ///
    /// An entry that was changed after it was written is no answer: it is forgotten, and asked
    /// again.
    pub fn get(
        &mut self,
        block: BlockRef,
        request: &ReadRequest,
    ) -> Result<Option<ReadAnswer>, CacheError> {
        let key = request_digest(block, std::slice::from_ref(request));
        let Some(place) = self.places.get(&key).copied() else { return Ok(None) };
        let (path, file) = &self.files[place.file];
        let mut entry = vec![0; HEAD_BYTES + place.bytes];
        file.read_exact_at(&mut entry, place.at).map_err(failed(path, "read"))?;
        let answer = decode(&entry, key).filter(|answer| answer.answers(request));
        if answer.is_none() {
            self.places.remove(&key);
        }
        Ok(answer)
    }

    /// Keeps an answer.
    pub fn put(
        &mut self,
        block: BlockRef,
        request: &ReadRequest,
        answer: &ReadAnswer,
    ) -> Result<(), CacheError> {
        let key = request_digest(block, std::slice::from_ref(request));
        let answer = encode_answers(std::slice::from_ref(answer));
        if self.places.contains_key(&key) || ANSWER_BYTES_MAX < answer.len() {
            return Ok(());
        }
        if self.own.is_none() {
            self.own = Some(self.claim()?);
        }
        let Own { file: number, end } = self.own.as_mut().expect("claimed just now");
        let (path, file) = &self.files[*number];
        let entry = encode(key, &answer);
        // Only whole entries count, and nobody else writes here: where a failed write got to does
        // not matter, for the next one starts at the same place.
        file.write_all_at(&entry, *end).map_err(failed(path, "written"))?;
        self.places.insert(key, Place { file: *number, at: *end, bytes: answer.len() });
        *end += entry.len() as u64;
        Ok(())
    }

    fn path(&self, number: usize) -> PathBuf {
        self.directory.join(format!("{number}.reads"))
    }

    /// Finds a file that no other process writes to, and cuts off what was torn at its end.
    fn claim(&mut self) -> Result<Own, CacheError> {
        for number in 0.. {
            let path = self.path(number);
            if number == self.files.len() {
                let mut options = OpenOptions::new();
                options.read(true).write(true).create(true).truncate(false);
                let file = options.open(&path).map_err(failed(&path, "created"))?;
                self.files.push((path.clone(), file));
            }
            match self.files[number].1.try_lock() {
                Ok(()) => (),
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(failed(&path, "locked")(error)),
            }
            // Read again: another process may have written to it since it was opened.
            let mut end = self.scan(number)?;
            let (path, file) = &mut self.files[number];
            file.set_len(end).map_err(failed(path, "cut"))?;
            if end == 0 {
                file.seek(SeekFrom::Start(0)).map_err(failed(path, "written"))?;
                file.write_all(MAGIC).map_err(failed(path, "written"))?;
                end = MAGIC.len() as u64;
            }
            return Ok(Own { file: number, end });
        }
        unreachable!("there is always a file with the next number")
    }

    /// Finds the entries of a file, and says where the last whole one ends.
    fn scan(&mut self, number: usize) -> Result<u64, CacheError> {
        let ReadCache { files, places, .. } = self;
        let (path, file) = &mut files[number];
        file.seek(SeekFrom::Start(0)).map_err(failed(path, "read"))?;
        let mut reader = BufReader::with_capacity(1 << 20, &*file);
        let mut magic = Vec::new();
        let mut start = reader.by_ref().take(MAGIC.len() as u64);
        start.read_to_end(&mut magic).map_err(failed(path, "read"))?;
        if magic != MAGIC {
            // Killed while it was being made.
            return match MAGIC.starts_with(&magic) {
                true => Ok(0),
                false => Err(CacheError::Foreign { path: path.clone() }),
            };
        }
        let mut at = MAGIC.len() as u64;
        while let Some((key, bytes)) = whole(&mut reader).map_err(failed(path, "read"))? {
            places.insert(key, Place { file: number, at, bytes });
            at += (HEAD_BYTES + bytes) as u64;
        }
        Ok(at)
    }
}

/// The next entry, when there is a whole one: its key and the length of its answer.
fn whole(reader: &mut impl Read) -> io::Result<Option<(Digest, usize)>> {
    let mut entry = Vec::with_capacity(1024);
    reader.take(HEAD_BYTES as u64).read_to_end(&mut entry)?;
    let Some((_, key, bytes, _)) = head(&entry) else { return Ok(None) };
    if ANSWER_BYTES_MAX < bytes {
        return Ok(None);
    }
    reader.take(bytes as u64).read_to_end(&mut entry)?;
    let is_whole = entry.len() == HEAD_BYTES + bytes && is_sound(&entry);
    Ok(is_whole.then_some((key, bytes)))
}

fn encode(key: Digest, answer: &[u8]) -> Vec<u8> {
    let length = u32::try_from(answer.len()).expect("longer answers are not kept");
    let mut entry = vec![0; 8];
    entry.extend(key.0);
    entry.extend(length.to_be_bytes());
    entry.extend(answer);
    let checksum = checksum(&entry);
    entry[..8].copy_from_slice(&checksum);
    entry
}

/// Checksum, key, length of the answer, and what there is of the answer.
fn head(entry: &[u8]) -> Option<([u8; 8], Digest, usize, &[u8])> {
    let (checksum, rest) = entry.split_first_chunk::<8>()?;
    let (key, rest) = rest.split_first_chunk::<32>()?;
    let (length, answer) = rest.split_first_chunk::<4>()?;
    Some((*checksum, Digest(*key), u32::from_be_bytes(*length) as usize, answer))
}

fn is_sound(entry: &[u8]) -> bool {
    head(entry).is_some_and(|(written, ..)| written == checksum(entry))
}

/// Over everything after it.
fn checksum(entry: &[u8]) -> [u8; 8] {
    let Digest(digest) = Digest::of(&entry[8..]);
    *digest.first_chunk().expect("a digest has 32 bytes")
}

fn decode(entry: &[u8], key: Digest) -> Option<ReadAnswer> {
    let (_, stored, _, answer) = head(entry).filter(|_| is_sound(entry))?;
    let taped = TapeEntry { call: 0, request: stored, answer: answer.to_vec() };
    let mut answers = answers(&taped).ok().filter(|_| stored == key)?;
    answers.pop().filter(|_| answers.is_empty())
}

fn failed<'p>(path: &'p Path, doing: &'static str) -> impl Fn(io::Error) -> CacheError + use<'p> {
    move |source| CacheError::File { path: path.to_owned(), doing, source }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{Address, B256, Bytes, U256};

    use super::*;

    const BLOCK: BlockRef = BlockRef { number: 7, hash: B256::repeat_byte(7) };

    /// In memory where there is such a directory: files are written thousands of times here.
    fn scratch() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
    }

    fn balance(of: u64) -> (ReadRequest, ReadAnswer) {
        let address = Address::left_padding_from(&of.to_be_bytes());
        // Its last byte is not zero: an entry that ends in zeros survives being cut and filled.
        (ReadRequest::Balance(address), ReadAnswer::Balance(U256::from(of + 1)))
    }

    fn fill(cache: &mut ReadCache, numbers: std::ops::Range<u64>) {
        for (request, answer) in numbers.map(balance) {
            cache.put(BLOCK, &request, &answer).unwrap();
        }
    }

    /// Which of these numbers are known, and that what is known is right.
    fn known(cache: &mut ReadCache, numbers: std::ops::Range<u64>) -> Vec<u64> {
        let is_known = |number: &u64| {
            let (request, answer) = balance(*number);
            let found = cache.get(BLOCK, &request).unwrap();
            assert!(found.is_none() || found == Some(answer), "{number}: {found:?}");
            found.is_some()
        };
        numbers.filter(is_known).collect()
    }

    #[test]
    fn an_answer_is_found_again_for_its_block_and_its_request_alone() {
        let dir = scratch();
        let mut cache = ReadCache::open(dir.path()).unwrap();
        let call = ReadRequest::Call { to: Address::ZERO, data: Bytes::from_static(&[1]) };
        cache.put(BLOCK, &call, &ReadAnswer::Reverted(Bytes::from_static(&[2]))).unwrap();
        fill(&mut cache, 0..3);
        drop(cache);

        let mut cache = ReadCache::open(dir.path()).unwrap();
        assert_eq!(cache.len(), 4);
        assert_eq!(known(&mut cache, 0..9), [0, 1, 2]);
        let answer = cache.get(BLOCK, &call).unwrap();
        assert_eq!(answer, Some(ReadAnswer::Reverted(Bytes::from_static(&[2]))));
        let other = BlockRef { hash: B256::repeat_byte(8), ..BLOCK };
        assert_eq!(cache.get(other, &call).unwrap(), None);
    }

    #[test]
    fn a_file_that_was_cut_or_filled_with_zeros_anywhere_keeps_its_whole_entries() {
        let dir = scratch();
        fill(&mut ReadCache::open(dir.path()).unwrap(), 0..4);
        let file = dir.path().join("0.reads");
        let bytes = fs::read(&file).unwrap();
        let entry = (bytes.len() - MAGIC.len()) / 4;
        for length in 0..=bytes.len() {
            for zeros in [0, 1, 300] {
                let mut torn = bytes[..length].to_vec();
                // A whole magic is synced by nobody either, but a file of zeros is not ours.
                torn.extend(vec![0; if length < MAGIC.len() { 0 } else { zeros }]);
                fs::write(&file, torn).unwrap();
                let whole = length.saturating_sub(MAGIC.len()) / entry;
                let mut cache = ReadCache::open(dir.path()).unwrap();
                let expected: Vec<u64> = (0..whole as u64).collect();
                assert_eq!(known(&mut cache, 0..4), expected, "cut at {length}, {zeros} zeros");
                fill(&mut cache, 3..6);
                drop(cache);
                let mut cache = ReadCache::open(dir.path()).unwrap();
                let expected: Vec<u64> = (0..whole.min(3) as u64).chain(3..6).collect();
                assert_eq!(known(&mut cache, 0..9), expected, "written to after a cut at {length}");
            }
        }
    }

    #[test]
    fn a_changed_bit_anywhere_is_never_an_answer() {
        let dir = scratch();
        fill(&mut ReadCache::open(dir.path()).unwrap(), 0..3);
        let file = dir.path().join("0.reads");
        let bytes = fs::read(&file).unwrap();
        for bit in 8 * MAGIC.len()..8 * bytes.len() {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            fs::write(&file, &changed).unwrap();
            let mut cache = ReadCache::open(dir.path()).unwrap();
            let before = (bit / 8 - MAGIC.len()) / ((bytes.len() - MAGIC.len()) / 3);
            assert_eq!(known(&mut cache, 0..3).len(), before, "bit {bit}");

            // Changed under an open cache.
            fs::write(&file, &bytes).unwrap();
            let mut cache = ReadCache::open(dir.path()).unwrap();
            fs::write(&file, &changed).unwrap();
            assert_eq!(known(&mut cache, 0..3).len(), 2, "bit {bit}");
        }
    }

    #[test]
    fn two_that_write_at_once_do_not_meet_and_the_next_one_knows_both() {
        let dir = scratch();
        let mut first = ReadCache::open(dir.path()).unwrap();
        let mut second = ReadCache::open(dir.path()).unwrap();
        fill(&mut first, 0..2);
        fill(&mut second, 2..4);
        fill(&mut first, 4..6);
        assert_eq!(known(&mut ReadCache::open(dir.path()).unwrap(), 0..9), [0, 1, 2, 3, 4, 5]);
        drop((first, second));
        fill(&mut ReadCache::open(dir.path()).unwrap(), 6..7);
        let files = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(files, 2, "what nobody holds is written to again");
        assert_eq!(known(&mut ReadCache::open(dir.path()).unwrap(), 0..9).len(), 7);
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let dir = scratch();
        fs::write(dir.path().join("0.reads"), "a diary").unwrap();
        let error = ReadCache::open(dir.path()).unwrap_err();
        assert!(matches!(error, CacheError::Foreign { .. }), "{error}");
    }
}
