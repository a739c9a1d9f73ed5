//! A file that is whole or not there.
//!
//! It is written beside its place under a hidden name and renamed when it is complete and on the
//! disk. What an interrupted run leaves under the hidden name is written over by the next one.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A file being written. Dropping it unfinished leaves nothing behind.
pub(crate) struct Unfinished {
    beside: PathBuf,
    place: PathBuf,
    file: Option<File>,
}

impl Unfinished {
    /// Starts the file `name` of a folder.
    pub fn create(folder: &Path, name: &str) -> io::Result<Unfinished> {
        let beside = folder.join(format!(".{name}.unfinished"));
        let file = Some(File::create(&beside)?);
        Ok(Unfinished { beside, place: folder.join(name), file })
    }

    /// Puts the file in its place and says how many bytes it has. When this returns, it survives
    /// a power cut.
    pub fn finish(mut self) -> io::Result<u64> {
        let file = self.open()?;
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        fs::rename(&self.beside, &self.place)?;
        self.file = None;
        let folder = self.place.parent().expect("a file is in a folder");
        File::open(folder)?.sync_all()?;
        Ok(bytes)
    }

    fn open(&mut self) -> io::Result<&mut File> {
        self.file.as_mut().ok_or_else(|| io::Error::other("the file is finished"))
    }
}

impl Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.open()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.open()?.flush()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Only a leftover: the next report writes over it.
            let _ = fs::remove_file(&self.beside);
        }
    }
}

/// Writes a small file in one go.
pub(crate) fn write(folder: &Path, name: &str, content: &[u8]) -> io::Result<u64> {
    let mut file = Unfinished::create(folder, name)?;
    file.write_all(content)?;
    file.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let read = || fs::read_to_string(folder.path().join("a.txt")).unwrap();
        assert_eq!(write(folder.path(), "a.txt", b"whole").unwrap(), 5);
        let mut file = Unfinished::create(folder.path(), "a.txt").unwrap();
        file.write_all(b"half").unwrap();
        assert_eq!(read(), "whole");
        drop(file);
        assert_eq!(read(), "whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        write(folder.path(), "a.txt", b"new").unwrap();
        assert_eq!(read(), "new");
    }
}
