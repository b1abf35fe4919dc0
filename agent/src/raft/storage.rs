//! The durable log: what a Raft node must not forget.
//!
//! *In*: batches of entries, hard state, applied index and configuration. *Out*: the same, after any crash.
//!
//! Crash rules, on which `node` builds:
//!
//! 1. When [`LogStore::write`] returns `Ok`, all of the batch survives a power cut; after a crash within it, all of it is there or none.
//! 2. When it returns an error, nothing is known about the batch. The node stops: a disk that failed one `fsync` may have dropped the pages
//!    that the next one would report as written.
//! 3. `applied`, the configuration and the entries that led to it move together, so a node never replays a configuration change.
//! 4. A store that cannot be read as a whole is not opened. A voter with half a memory could vote twice in one term.

mod memory;
mod outline;
mod redb;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lvsmesh_core::model::NodeId;
use raft::Storage;
use raft::eraftpb::{ConfState, Entry, Snapshot};

pub use self::memory::{Disk, Fault, MemoryStore};
pub use self::outline::Outline;
pub use self::redb::RedbStore;

/// Index of the snapshot with which a fleet starts. Above 0, so that a node that joins with an empty log can only be served a snapshot, which
/// carries the configuration, and never the bare entries.
pub const FIRST_INDEX: u64 = 1;

/// Term of the snapshot with which a fleet starts.
pub const FIRST_TERM: u64 = 1;

/// What one [`LogStore::write`] makes durable, all or nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Replaces the log, the configuration and the applied index.
    pub snapshot: Option<Snapshot>,
    /// Follow the snapshot or the log; those with an index that the log has replace it and everything after it.
    pub entries: Vec<Entry>,
    /// Term, vote and commit index.
    pub hard_state: Option<raft::eraftpb::HardState>,
    /// Newest applied entry. At most the commit index.
    pub applied: Option<u64>,
    /// The configuration as of `applied`.
    pub conf_state: Option<ConfState>,
}

/// A log on stable storage, and all else that Raft must remember.
///
/// Reads are [`raft::Storage`]; its `snapshot` never builds one, it serves the stored one or notes who asked, for [`LogStore::take_wanted`].
pub trait LogStore: Storage {
    /// The file, for messages.
    fn path(&self) -> &Path;

    /// Whose log this is; `None` until [`LogStore::install`].
    fn id(&self) -> Option<NodeId>;

    /// Newest entry that is known to be applied.
    fn applied(&self) -> u64;

    /// Makes an empty store that of `id`. A fleet's first node starts from `floor`. Every other node's log is empty until it is sent a snapshot;
    /// its `floor` has index 0 and no configuration, and is only a state to begin with, which knows the other members.
    ///
    /// # Errors
    ///
    /// [`StoreError::Occupied`] if it is a node's already; [`StoreError::Io`].
    fn install(&mut self, id: NodeId, floor: Option<&Snapshot>) -> Result<(), StoreError>;

    /// Makes a batch durable before it returns.
    ///
    /// # Errors
    ///
    /// Only if the device fails; the node must not go on with this store.
    ///
    /// # Panics
    ///
    /// If the batch does not follow the log: a gap before its entries, or an applied index that the log does not reach.
    fn write(&mut self, batch: &Batch) -> Result<(), StoreError>;

    /// Replaces the stored snapshot and drops the entries that it covers, except for the last `keep` of them, which spare followers that lag
    /// a little a whole snapshot.
    ///
    /// # Errors
    ///
    /// As [`LogStore::write`].
    ///
    /// # Panics
    ///
    /// If the log does not reach the snapshot.
    fn compact(&mut self, snapshot: &Snapshot, keep: u64) -> Result<(), StoreError>;

    /// The stored snapshot, with its data; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    fn stored_snapshot(&self) -> Result<Option<Snapshot>, StoreError>;

    /// Nodes for which a snapshot was asked for that is newer than the stored one. Asking resets it.
    fn take_wanted(&mut self) -> BTreeSet<u64>;
}

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The device or the file system failed.
    #[error("failed to {action} the log {path}", path = path.display())]
    Io {
        /// What was attempted: `open`, `write`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It can be read, but it is not a whole log.
    #[error("the log {path} is damaged: {fault}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// Another process has it open.
    #[error("the log {path} is in use by another process", path = path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Nobody has made it a node's.
    #[error("the log {path} belongs to no node yet", path = path.display())]
    Vacant {
        /// The file.
        path: PathBuf,
    },
    /// It is a node's already.
    #[error("the log {path} already belongs to node {id}", path = path.display())]
    Occupied {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        id: NodeId,
    },
    /// An earlier write failed, and nothing is known about what is on the device since.
    #[error("the log {path} was given up after a failed write", path = path.display())]
    GivenUp {
        /// The file.
        path: PathBuf,
    },
}

impl StoreError {
    /// What the operator can do about it, where we know.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Damaged { path, .. } => Some(format!(
                "this node must not vote with a part of its memory; move {} away and run `lvs-agent join ADDRESS` with the address of a \
                 healthy node: it comes back under its name, with a new id",
                path.parent().unwrap_or(path).display()
            )),
            Self::InUse { .. } => {
                Some("another lvs-agent runs on this data directory; stop it first".to_owned())
            }
            Self::Vacant { .. } => {
                Some("run `lvs-agent init` or `lvs-agent join ADDRESS` first".to_owned())
            }
            Self::Occupied { path, .. } => Some(format!(
                "to start over, take the node out with `lvsctl node remove` and move {} away",
                path.parent().unwrap_or(path).display()
            )),
            Self::Io { .. } | Self::GivenUp { .. } => {
                Some("check the disk and the kernel log, then start the agent again".to_owned())
            }
        }
    }
}
