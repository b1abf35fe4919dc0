//! A log in memory whose device can fail and forget: for the simulator and for tests.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lvsmesh_core::model::NodeId;
use raft::eraftpb::{Entry, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::{Batch, LogStore, Outline, StoreError};

/// Stands for a file in messages.
const PATH: &str = "(memory)";

/// How the next write goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing of it is written.
    BeforeWrite,
    /// It is written, but not safe: [`Disk::crash`] forgets it.
    AtSync,
}

/// The device below a [`MemoryStore`]: clones are the same device, and it outlives the store.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Device>>);

#[derive(Debug, Default)]
struct Device {
    /// What a reader sees.
    written: Image,
    /// What is there after a crash.
    synced: Image,
    /// What `written` is ahead of `synced`, in order.
    unsynced: Vec<Change>,
    hold_syncs: bool,
    fault: Option<Fault>,
}

#[derive(Clone, Debug, Default)]
struct Image {
    outline: Outline,
    entries: BTreeMap<u64, Entry>,
    snapshot: Option<Snapshot>,
}

#[derive(Clone, Debug)]
enum Change {
    Install(NodeId, Option<Box<Snapshot>>),
    Write(Box<Batch>),
    Compact(Box<Snapshot>, u64),
}

impl Disk {
    /// Loses whatever was not synced. The store on it must be opened again.
    pub fn crash(&self) {
        let mut device = self.device();
        device.written = device.synced.clone();
        device.unsynced.clear();
        device.fault = None;
    }

    /// Makes the next write fail.
    pub fn fail(&self, fault: Fault) {
        self.device().fault = Some(fault);
    }

    /// While on, the device lies: writes succeed and a crash forgets them. Raft does not promise anything on such a disk; tests show that they
    /// would notice.
    pub fn hold_syncs(&self, on: bool) {
        let mut device = self.device();
        device.hold_syncs = on;
        if !on {
            device.sync();
        }
    }

    /// Forgets the last entry, as a store would that opened a damaged log as far as it could be read.
    pub fn forget_last_entry(&self) {
        self.tamper(|image| {
            if image.entries.pop_last().is_none() || image.outline.terms.pop_back().is_none() {
                return;
            }
            let last = image.outline.last_index();
            let hard_state = &mut image.outline.hard_state;
            hard_state.commit = hard_state.commit.min(last);
            image.outline.applied = image.outline.applied.min(last);
        });
    }

    fn tamper(&self, change: impl Fn(&mut Image)) {
        let mut device = self.device();
        change(&mut device.written);
        change(&mut device.synced);
    }

    fn device(&self) -> MutexGuard<'_, Device> {
        // A panic within a change is the test's failure already.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: Change) -> Result<(), StoreError> {
        let mut device = self.device();
        let fault = device.fault.take();
        if fault == Some(Fault::BeforeWrite) {
            return Err(broken("write"));
        }
        device.written.change(&change);
        device.unsynced.push(change);
        if fault == Some(Fault::AtSync) {
            return Err(broken("sync"));
        }
        if !device.hold_syncs {
            device.sync();
        }
        Ok(())
    }
}

impl Device {
    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            self.synced.change(&change);
        }
    }
}

impl Image {
    fn change(&mut self, change: &Change) {
        match change {
            Change::Install(id, floor) => {
                self.outline.id = Some(*id);
                if let Some(floor) = floor {
                    self.outline.replace(floor);
                    self.snapshot = Some((**floor).clone());
                }
            }
            Change::Write(batch) => {
                self.outline.record(batch);
                if let Some(snapshot) = &batch.snapshot {
                    self.entries.clear();
                    self.snapshot = Some(snapshot.clone());
                }
                if let Some(first) = batch.entries.first() {
                    self.entries.split_off(&first.index);
                }
                self.entries.extend(batch.entries.iter().map(|entry| (entry.index, entry.clone())));
            }
            Change::Compact(snapshot, keep) => {
                let upto = self.outline.compact(snapshot, *keep);
                self.entries = self.entries.split_off(&(upto + 1));
                self.snapshot = Some((**snapshot).clone());
            }
        }
    }
}

/// A log on a [`Disk`].
#[derive(Debug)]
pub struct MemoryStore {
    disk: Disk,
    wanted: RefCell<BTreeSet<u64>>,
}

impl MemoryStore {
    /// Opens what is on a disk.
    #[must_use]
    pub fn open(disk: &Disk) -> Self {
        Self { disk: disk.clone(), wanted: RefCell::default() }
    }
}

impl LogStore for MemoryStore {
    fn path(&self) -> &Path {
        Path::new(PATH)
    }

    fn id(&self) -> Option<NodeId> {
        self.disk.device().written.outline.id
    }

    fn applied(&self) -> u64 {
        self.disk.device().written.outline.applied
    }

    fn install(&mut self, id: NodeId, floor: Option<&Snapshot>) -> Result<(), StoreError> {
        if let Some(id) = self.id() {
            return Err(StoreError::Occupied { path: PATH.into(), id });
        }
        self.disk.change(Change::Install(id, floor.cloned().map(Box::new)))
    }

    fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.disk.change(Change::Write(Box::new(batch.clone())))
    }

    fn compact(&mut self, snapshot: &Snapshot, keep: u64) -> Result<(), StoreError> {
        self.disk.change(Change::Compact(Box::new(snapshot.clone()), keep))
    }

    fn stored_snapshot(&self) -> Result<Option<Snapshot>, StoreError> {
        Ok(self.disk.device().written.snapshot.clone())
    }

    fn take_wanted(&mut self) -> BTreeSet<u64> {
        self.wanted.take()
    }
}

impl Storage for MemoryStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.disk.device().written.outline.raft_state())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let device = self.disk.device();
        device.written.outline.check_range(low, high)?;
        let mut entries: Vec<Entry> =
            device.written.entries.range(low..high).map(|(_, entry)| entry.clone()).collect();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.disk.device().written.outline.term(index)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.disk.device().written.outline.first_index())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.disk.device().written.outline.last_index())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let device = self.disk.device();
        match &device.written.snapshot {
            Some(snapshot) if device.written.outline.snapshot_serves(request_index, to) => {
                Ok(snapshot.clone())
            }
            Some(_) | None => {
                self.wanted.borrow_mut().insert(to);
                Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}

fn broken(action: &'static str) -> StoreError {
    StoreError::Io { action, path: PATH.into(), source: "the test broke this disk".into() }
}
