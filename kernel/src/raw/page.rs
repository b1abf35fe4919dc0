//! A few words of memory that two processes share: what the one writes the other can read, also after its end.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::map_words;

/// How many words there are.
pub const WORDS: usize = 8;

/// Words in a file that is mapped into memory, for as long as the process lives. On a tmpfs that never waits for a disk.
#[derive(Clone, Copy, Debug)]
pub struct SharedWords(&'static [AtomicU64; WORDS]);

impl SharedWords {
    /// Makes the file anew, all words 0. Who has mapped an earlier one keeps that.
    ///
    /// # Errors
    ///
    /// If the file cannot be made or mapped.
    pub fn create(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(path)?;
        file.set_len((WORDS * size_of::<u64>()) as u64)?;
        Ok(Self(map_words(&file)?))
    }

    /// Maps a file that was made by [`create`](Self::create).
    ///
    /// # Errors
    ///
    /// If there is none, or one that is too short (`InvalidData`).
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        if file.metadata()?.len() < (WORDS * size_of::<u64>()) as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self(map_words(&file)?))
    }

    /// Writes a word; whoever reads it sees what was written to others before.
    ///
    /// # Panics
    ///
    /// If there is no such word.
    pub fn set(&self, index: usize, value: u64) {
        self.0[index].store(value, Ordering::Release);
    }

    /// Reads a word.
    ///
    /// # Panics
    ///
    /// If there is no such word.
    #[must_use]
    pub fn get(&self, index: usize) -> u64 {
        self.0[index].load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_writes_the_other_reads_and_a_new_file_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("page");
        let one = SharedWords::create(&path).unwrap();
        let other = SharedWords::open(&path).unwrap();
        one.set(WORDS - 1, 7);
        assert_eq!((other.get(WORDS - 1), other.get(0)), (7, 0));
        let new = SharedWords::create(&path).unwrap();
        new.set(0, 9);
        assert_eq!((other.get(0), new.get(WORDS - 1)), (0, 0));
    }

    #[test]
    fn a_file_that_is_too_short_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("page");
        assert_eq!(SharedWords::open(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&path, [0; 8]).unwrap();
        assert_eq!(SharedWords::open(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
