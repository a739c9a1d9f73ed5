//! Whether the last daemon on a data directory ended as it wanted to.
//!
//! ```text
//! start: is `clean-shutdown` there? ─ yes ─▶ take it away ─▶ run ─▶ put it there: the end
//!                    └─ no: it was killed, or the machine lost power ─▶ rehearse ─▶ run
//! ```
//!
//! Only the holder of the store's lock looks at the file or changes it.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

fn marker(data_dir: &Path) -> PathBuf {
    data_dir.join("clean-shutdown")
}

/// Takes the marker away, durably, and says whether it was there.
pub fn begin(data_dir: &Path) -> io::Result<bool> {
    match fs::remove_file(marker(data_dir)) {
        Ok(()) => sync(data_dir).map(|()| true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Puts the marker there, durably. Everything that was started has ended.
pub fn end(data_dir: &Path) -> io::Result<()> {
    File::create(marker(data_dir))?.sync_all()?;
    sync(data_dir)
}

fn sync(data_dir: &Path) -> io::Result<()> {
    File::open(data_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_clean_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!begin(dir.path()).unwrap(), "nothing ended here yet");
        end(dir.path()).unwrap();
        assert!(begin(dir.path()).unwrap());
        assert!(!begin(dir.path()).unwrap(), "it was killed since");
    }
}
