//! The promise record: until when this machine's earlier runs may have bound themselves, and whether they may have left a VIP behind.
//!
//! It lives on a tmpfs: it has to outlive the process, not the machine. After a boot every promise is older than the boot, but for how long is not
//! known, so a machine without a record of this boot is silent for the longest promise that there is.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use lvsmesh_core::lease::wire::fleet_hash;
use lvsmesh_core::time::Mono;

/// Name of the record below the run directory.
pub(super) const FILE: &str = "promise";

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What the record says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bound {
    /// End of the last promise to another, or of the last lease, whichever is later.
    pub(super) until: Mono,
    /// VIPs may be on their interfaces.
    pub(super) holding: bool,
}

/// The record, open.
#[derive(Debug)]
pub(super) struct PromiseRecord {
    file: File,
    boot: String,
    written: Option<Bound>,
}

impl PromiseRecord {
    /// Opens the record, and reads what it says if it is of this boot and whole.
    pub(super) fn open(run_dir: &Path) -> io::Result<(Self, Option<Bound>)> {
        let boot = fs::read_to_string(BOOT_ID)?.trim().to_owned();
        Self::open_for(run_dir, boot)
    }

    fn open_for(run_dir: &Path, boot: String) -> io::Result<(Self, Option<Bound>)> {
        let path = run_dir.join(FILE);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut text = String::new();
        // What is not text is not the record.
        let readable = io::Read::read_to_string(&mut &file, &mut text).is_ok();
        let bound = if readable { parse(&text, &boot) } else { None };
        Ok((Self { file, boot, written: bound }, bound))
    }

    /// Writes, unless this is what it says. One line of one length, in one call, into memory: some microseconds.
    pub(super) fn keep(&mut self, bound: Bound) -> io::Result<()> {
        if self.written != Some(bound) {
            self.written = None;
            self.file.write_all_at(line(&self.boot, bound).as_bytes(), 0)?;
            self.written = Some(bound);
        }
        Ok(())
    }
}

/// `BOOT UNTIL HOLDING CHECK`; of one length for one boot.
fn line(boot: &str, bound: Bound) -> String {
    let said = format!("{boot} {:020} {}", bound.until.0, u8::from(bound.holding));
    format!("{said} {:016x}\n", fleet_hash(&said))
}

fn parse(text: &str, boot: &str) -> Option<Bound> {
    let (said, _) = text.strip_suffix('\n')?.rsplit_once(' ')?;
    let mut words = said.split(' ');
    let _boot = words.next()?;
    let until = Mono(words.next()?.parse().ok()?);
    let holding = words.next()? == "1";
    let bound = Bound { until, holding };
    // Another boot, a damaged line and one with a wrong check all fail here.
    (line(boot, bound) == text).then_some(bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Bound = Bound { until: Mono(123_456_789), holding: true };

    fn open(directory: &Path, boot: &str) -> (PromiseRecord, Option<Bound>) {
        PromiseRecord::open_for(directory, boot.to_owned()).unwrap()
    }

    #[test]
    fn the_next_run_reads_the_last_word() {
        let directory = tempfile::tempdir().unwrap();
        let (mut record, before) = open(directory.path(), "a");
        assert_eq!(before, None);
        record.keep(Bound { until: Mono(u64::MAX), holding: false }).unwrap();
        record.keep(BOUND).unwrap();
        assert_eq!(open(directory.path(), "a").1, Some(BOUND));
    }

    #[test]
    fn another_boot_has_no_record() {
        let directory = tempfile::tempdir().unwrap();
        open(directory.path(), "a").0.keep(BOUND).unwrap();
        assert_eq!(open(directory.path(), "b").1, None);
    }

    #[test]
    fn a_damaged_record_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        open(directory.path(), "a").0.keep(BOUND).unwrap();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x01;
            fs::write(&path, &bad).unwrap();
            assert_eq!(open(directory.path(), "a").1, None, "byte {at}");
            fs::write(&path, &good[..at]).unwrap();
            assert_eq!(open(directory.path(), "a").1, None, "cut at {at}");
        }
        fs::write(&path, [0xff; 8]).unwrap();
        assert_eq!(open(directory.path(), "a").1, None, "not text");
    }

    #[test]
    fn this_machine_has_a_boot_id() {
        let directory = tempfile::tempdir().unwrap();
        let (mut record, _) = PromiseRecord::open(directory.path()).unwrap();
        record.keep(BOUND).unwrap();
        assert_eq!(PromiseRecord::open(directory.path()).unwrap().1, Some(BOUND));
    }
}
