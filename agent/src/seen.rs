//! A restarted agent acts on no older state than the one it acted on before.
//!
//! *In*: the applied state. *Out*: the same for the reconciler, held back at the start until it is as new as what an earlier run of this boot had
//! handed on.
//!
//! How far the log is committed is on the disk a tenth of a second late, and a node that is killed meanwhile and hears no leader when it is back knows
//! only the older state. To act on it would take down what serves: the kernel was made after the newer one. The record is on a tmpfs, like the kernel's
//! own state: it outlives the process, not the boot.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use lvsmesh_core::lease::wire::fleet_hash;
use lvsmesh_core::model::NodeId;
use tokio::sync::watch;

use crate::raft::Applied;

/// Name of the record below the run directory.
const FILE: &str = "applied";

/// The record, open.
#[derive(Debug)]
pub struct Seen {
    file: File,
    /// Boot, fleet and node that it is of.
    of: String,
    /// The newest entry that was in what an earlier run handed on; 0 if there was none.
    floor: u64,
}

impl Seen {
    /// Opens the record, and reads what it says if it is of this boot, fleet and node.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, or the kernel does not say which boot this is.
    pub fn open(run_dir: &Path, fleet: &str, node: NodeId) -> io::Result<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let of = format!("{} {fleet} {node}", boot.trim());
        let path = run_dir.join(FILE);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut text = String::new();
        // What is not text is not the record.
        let readable = io::Read::read_to_string(&mut &file, &mut text).is_ok();
        let floor = readable.then(|| parse(&text, &of)).flatten();
        if floor.is_none() {
            // That of another node may have been longer.
            file.set_len(0)?;
        }
        Ok(Self { file, of, floor: floor.unwrap_or(0) })
    }

    /// One line of one length, in one call, into memory.
    fn keep(&self, index: u64) {
        if let Err(error) = self.file.write_all_at(line(&self.of, index).as_bytes(), 0) {
            tracing::warn!(%error, "the record of what was applied cannot be written");
        }
    }
}

fn line(of: &str, index: u64) -> String {
    let said = format!("{of} {index:020}");
    format!("{said} {:016x}\n", fleet_hash(&said))
}

fn parse(text: &str, of: &str) -> Option<u64> {
    let (said, _) = text.strip_suffix('\n')?.rsplit_once(' ')?;
    let index = said.rsplit_once(' ')?.1.parse().ok()?;
    // Another node or boot, a damaged line and one with a wrong check all fail here.
    (line(of, index) == text).then_some(index)
}

/// Hands on what is applied, each time after it is on record, until `shutdown` turns true.
pub async fn run(
    seen: Seen,
    mut applied: watch::Receiver<Applied>,
    onward: watch::Sender<Applied>,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut told = false;
    loop {
        let next = applied.borrow_and_update().clone();
        let index = next.state.applied();
        if index >= seen.floor {
            seen.keep(index);
            onward.send_replace(next);
        } else if !told {
            told = true;
            tracing::warn!(
                applied = index,
                before = seen.floor,
                "the kernel was made after a newer state than the log is known to be committed to; it is left as it is until a leader is heard"
            );
        }
        let over = tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => return,
            changed = applied.changed() => changed.is_err(),
        };
        if over {
            // Nothing will ever change; the reconciler is not to take that for its end.
            drop(shutdown.wait_for(|stop| *stop).await);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use lvsmesh_core::command::Command;

    use super::*;
    use crate::fixtures::TestFleet;

    const NODE: NodeId = NodeId(2);

    fn open(dir: &Path) -> Seen {
        Seen::open(dir, "web", NODE).unwrap()
    }

    #[test]
    fn a_record_counts_for_its_node_and_boot_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(open(dir.path()).floor, 0);
        open(dir.path()).keep(41);
        open(dir.path()).keep(7);
        assert_eq!(open(dir.path()).floor, 7, "what was handed on last");
        let damaged = fs::read_to_string(dir.path().join(FILE)).unwrap().replace('7', "9");
        fs::write(dir.path().join(FILE), damaged).unwrap();
        assert_eq!(open(dir.path()).floor, 0, "damaged");
        open(dir.path()).keep(7);
        assert_eq!(Seen::open(dir.path(), "web", NodeId(3)).unwrap().floor, 0, "another node");
        open(dir.path()).keep(7);
        assert_eq!(Seen::open(dir.path(), "mail", NODE).unwrap().floor, 0, "another fleet");
        let other = line("another-boot web 2", 7);
        fs::write(dir.path().join(FILE), other).unwrap();
        assert_eq!(open(dir.path()).floor, 0, "another boot");
    }

    #[tokio::test]
    async fn an_older_state_than_before_is_held_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut fleet = TestFleet::new();
        let before = fleet.state.applied();
        open(dir.path()).keep(before + 2);

        let (state, applied) = watch::channel(fleet.applied());
        let (onward, mut handed) = watch::channel(Applied::default());
        let (stop, shutdown) = watch::channel(false);
        let task = tokio::spawn(run(open(dir.path()), applied, onward, shutdown));
        let remove = || Command::Remove { name: "web-1".into() };
        tokio::task::yield_now().await;
        assert!(!handed.has_changed().unwrap(), "it is two entries older");
        fleet.run(remove());
        state.send_replace(fleet.applied());
        tokio::task::yield_now().await;
        assert!(!handed.has_changed().unwrap(), "it is one entry older");
        fleet.run(Command::Health(Vec::new()));
        state.send_replace(fleet.applied());
        handed.changed().await.unwrap();
        assert_eq!(handed.borrow_and_update().state.applied(), before + 2);
        fleet.run(Command::Health(Vec::new()));
        state.send_replace(fleet.applied());
        handed.changed().await.unwrap();
        assert_eq!(open(dir.path()).floor, before + 3, "on record before it is handed on");
        stop.send_replace(true);
        task.await.unwrap();
    }
}
