//! A small record that outlives the process but not the machine's uptime, and the id of that uptime.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// `N` bytes in a file below `/run`: what a voter has promised, for the process that is started after it.
///
/// Written with one plain `pwrite`, without `fsync`. What it holds must survive the death of this process, and the page cache does; it need
/// not survive that of the machine, because promises of an earlier uptime have run out, and on tmpfs it could not. So writing is a copy
/// of some bytes in memory and never waits for a disk. A reader sees a write whole or not at all: `N` is below the size of a page, which
/// the kernel fills in one go (`generic_perform_write`).
#[derive(Debug)]
pub struct Record<const N: usize> {
    file: File,
}

impl<const N: usize> Record<N> {
    const FITS: () = assert!(0 < N && N <= 4096, "a record fits into a page");

    /// Opens the record, and makes it, of zeroes and readable by its owner alone, if it does not exist.
    ///
    /// # Errors
    ///
    /// The file system's. `InvalidData` if the file exists and has another size.
    pub fn open(path: &Path) -> io::Result<Self> {
        const { Self::FITS };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let expected = u64::try_from(N).unwrap_or(u64::MAX);
        match file.metadata()?.len() {
            // The space is taken now: a full /run must not show itself in the middle of a promise.
            0 => file.write_all_at(&[0; N], 0)?,
            length if length == expected => {}
            length => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} has {length} bytes instead of {N}", path.display()),
                ));
            }
        }
        Ok(Self { file })
    }

    /// Reads the record.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub fn read(&self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Replaces the record. Allocates nothing.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub fn write(&self, bytes: &[u8; N]) -> io::Result<()> {
        self.file.write_all_at(bytes, 0)
    }
}

/// The id that the kernel gave to this uptime: 16 random bytes, another at every boot (random(4)). Namespaces share it.
///
/// # Errors
///
/// If `/proc` is not mounted, or what stands there is no UUID.
pub fn boot_id() -> io::Result<[u8; 16]> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";

    let text = fs::read_to_string(PATH)?;
    parse_uuid(text.trim()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{PATH} holds no UUID: {text:?}"))
    })
}

/// 32 hexadecimal digits, with hyphens anywhere.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| *c != '-')
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |all, one| all << 4 | one)).collect();
    if digits.len() == 32 { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;

    /// A path that no other test has; the file is removed when this goes.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("lvsmesh-record-{}-{name}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            // It may never have been made.
            drop(fs::remove_file(&self.0));
        }
    }

    #[test]
    fn a_record_is_zero_first_and_then_what_was_written_last() {
        let path = Scratch::new("rewrite");
        let record = Record::<4>::open(&path.0).unwrap();
        assert_eq!(record.read().unwrap(), [0; 4]);
        record.write(b"abcd").unwrap();
        record.write(b"efgh").unwrap();
        drop(record);
        assert_eq!(Record::<4>::open(&path.0).unwrap().read().unwrap(), *b"efgh", "reopened");
        let mode = fs::metadata(&path.0).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_record_of_another_size_is_refused_and_kept() {
        let path = Scratch::new("size");
        fs::write(&path.0, b"abcdef").unwrap();
        let error = Record::<4>::open(&path.0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        assert_eq!(fs::read(&path.0).unwrap(), b"abcdef");
    }

    #[test]
    fn the_boot_id_is_read_and_stays() {
        let id = boot_id().unwrap();
        assert_ne!(id, [0; 16]);
        assert_eq!(boot_id().unwrap(), id);
    }

    #[test]
    fn only_sixteen_bytes_are_a_uuid() {
        let id = parse_uuid("00010203-0405-0607-0809-0a0b0c0d0eff").unwrap();
        assert_eq!(id, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        for text in
            ["", "00", "00010203-0405-0607-0809-0a0b0c0d0ef", "g0010203040506070809000000000000"]
        {
            assert_eq!(parse_uuid(text), None, "{text}");
        }
    }
}
