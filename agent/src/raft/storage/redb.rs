//! The log in a redb file: one transaction a write, made durable before it returns.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use lvsmesh_core::model::NodeId;
use prost011::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageBackend,
    TableDefinition, WriteTransaction,
};

use super::{Batch, LogStore, Outline, StoreError};

/// Entries by index. Plain integers and bytes only: their form does not change between redb's versions.
const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
/// Everything that there is one of, by the names below.
const SINGLES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("singles");

const FORMAT: &[u8] = b"format";
const ID: &[u8] = b"id";
const HARD_STATE: &[u8] = b"hard_state";
const CONF_STATE: &[u8] = b"conf_state";
const APPLIED: &[u8] = b"applied";
const TRUNCATED: &[u8] = b"truncated";
const SNAPSHOT: &[u8] = b"snapshot";

/// The only form of the file so far.
const FORMAT_VERSION: u64 = 1;

/// Pages that redb may keep in memory. A log of ten thousand ordinary entries fits.
const CACHE_BYTES: usize = 16 << 20;

/// A log in one file.
#[derive(Debug)]
pub struct RedbStore {
    db: Database,
    path: PathBuf,
    outline: Outline,
    wanted: RefCell<BTreeSet<u64>>,
    given_up: bool,
}

impl RedbStore {
    /// Opens a log, or makes an empty one that only its user can read. Reads and checks all of it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] if it is not whole, [`StoreError::InUse`] if another process has it, [`StoreError::Io`] if it cannot be read
    /// or made.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| io("open", path, error))?;
        let backend = FileBackend::new(file).map_err(|error| opening(path, error))?;
        Self::on(backend, path)
    }

    /// As [`RedbStore::open`], on any device; `path` is for messages.
    pub(super) fn on(backend: impl StorageBackend, path: &Path) -> Result<Self, StoreError> {
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)
            .map_err(|error| opening(path, error))?;
        let outline = read_outline(&db, path)?;
        Ok(Self { db, path: path.to_owned(), outline, wanted: RefCell::default(), given_up: false })
    }

    /// Runs `change` in a transaction that is durable when this returns. After a failure the store takes no further writes.
    fn commit(
        &mut self,
        action: &'static str,
        change: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StoreError> {
        if self.given_up {
            return Err(StoreError::GivenUp { path: self.path.clone() });
        }
        let attempt = || -> Result<(), redb::Error> {
            let mut transaction = self.db.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            change(&transaction)?;
            transaction.commit()?;
            Ok(())
        };
        attempt().map_err(|error| {
            self.given_up = true;
            io(action, &self.path, error)
        })
    }
}

impl LogStore for RedbStore {
    fn path(&self) -> &Path {
        &self.path
    }

    fn id(&self) -> Option<NodeId> {
        self.outline.id
    }

    fn applied(&self) -> u64 {
        self.outline.applied
    }

    fn install(&mut self, id: NodeId, floor: Option<&Snapshot>) -> Result<(), StoreError> {
        if let Some(id) = self.outline.id {
            return Err(StoreError::Occupied { path: self.path.clone(), id });
        }
        let mut outline = self.outline.clone();
        outline.id = Some(id);
        if let Some(floor) = floor {
            outline.replace(floor);
        }
        self.commit("write", |transaction| {
            transaction.open_table(ENTRIES)?;
            let mut singles = transaction.open_table(SINGLES)?;
            singles.insert(FORMAT, FORMAT_VERSION.to_be_bytes().as_slice())?;
            singles.insert(ID, id.0.to_be_bytes().as_slice())?;
            if let Some(floor) = floor {
                singles.insert(SNAPSHOT, floor.encode_to_vec().as_slice())?;
            }
            write_outline(&mut singles, &outline)
        })?;
        self.outline = outline;
        Ok(())
    }

    fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let last_before = self.outline.last_index();
        let first_before = self.outline.first_index();
        self.outline.record(batch);
        let outline = self.outline.clone_singles();
        self.commit("write", |transaction| {
            let mut entries = transaction.open_table(ENTRIES)?;
            let mut singles = transaction.open_table(SINGLES)?;
            if let Some(snapshot) = &batch.snapshot {
                for index in first_before..=last_before {
                    entries.remove(index)?;
                }
                singles.insert(SNAPSHOT, snapshot.encode_to_vec().as_slice())?;
            } else if let Some(first) = batch.entries.first() {
                for index in first.index..=last_before {
                    entries.remove(index)?;
                }
            }
            for entry in &batch.entries {
                entries.insert(entry.index, entry.encode_to_vec().as_slice())?;
            }
            write_outline(&mut singles, &outline)
        })
    }

    fn compact(&mut self, snapshot: &Snapshot, keep: u64) -> Result<(), StoreError> {
        let first_before = self.outline.first_index();
        let upto = self.outline.compact(snapshot, keep);
        let outline = self.outline.clone_singles();
        self.commit("compact", |transaction| {
            let mut entries = transaction.open_table(ENTRIES)?;
            for index in first_before..=upto {
                entries.remove(index)?;
            }
            let mut singles = transaction.open_table(SINGLES)?;
            singles.insert(SNAPSHOT, snapshot.encode_to_vec().as_slice())?;
            write_outline(&mut singles, &outline)
        })
    }

    fn stored_snapshot(&self) -> Result<Option<Snapshot>, StoreError> {
        read_single(&self.db, SNAPSHOT)
            .map_err(|error| io("read", &self.path, error))?
            .map(|bytes| decode(&self.path, "snapshot", &bytes))
            .transpose()
    }

    fn take_wanted(&mut self) -> BTreeSet<u64> {
        self.wanted.take()
    }
}

impl Storage for RedbStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.outline.raft_state())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        self.outline.check_range(low, high)?;
        let max_size = max_size.into().unwrap_or(u64::MAX);
        self.read_entries(low, high, max_size).map_err(other)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.outline.term(index)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.outline.first_index())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.outline.last_index())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        if !self.outline.snapshot_serves(request_index, to) {
            self.wanted.borrow_mut().insert(to);
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        self.stored_snapshot()
            .map_err(other)?
            .ok_or(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

impl RedbStore {
    /// The entries of `[low, high)`, as many as fit into `max_size` bytes but at least one.
    fn read_entries(&self, low: u64, high: u64, max_size: u64) -> Result<Vec<Entry>, StoreError> {
        let unreadable = |error: redb::Error| io("read", &self.path, error);
        let transaction = self.db.begin_read().map_err(|error| unreadable(error.into()))?;
        let table = transaction.open_table(ENTRIES).map_err(|error| unreadable(error.into()))?;
        let mut entries = Vec::new();
        let mut size = 0u64;
        for row in table.range(low..high).map_err(|error| unreadable(error.into()))? {
            let (_, bytes) = row.map_err(|error| unreadable(error.into()))?;
            size = size.saturating_add(bytes.value().len() as u64);
            if size > max_size && !entries.is_empty() {
                break;
            }
            entries.push(decode(&self.path, "an entry", bytes.value())?);
        }
        Ok(entries)
    }
}

/// Reads everything but the entries' bytes, and checks that it is the shape of a log.
fn read_outline(db: &Database, path: &Path) -> Result<Outline, StoreError> {
    let unreadable = |error: redb::Error| io("read", path, error);
    let damaged = |fault: String| StoreError::Damaged { path: path.to_owned(), fault };
    let single = |name| read_single(db, name).map_err(unreadable);
    let number = |name: &'static [u8], bytes: &[u8]| -> Result<u64, StoreError> {
        bytes.try_into().map(u64::from_be_bytes).map_err(|_| {
            damaged(format!("`{}` has {} bytes instead of 8", name.escape_ascii(), bytes.len()))
        })
    };
    let missing = |name: &'static [u8]| damaged(format!("`{}` is missing", name.escape_ascii()));

    let Some(id) = single(ID)? else { return Ok(Outline::default()) };
    let format = number(FORMAT, &single(FORMAT)?.ok_or_else(|| missing(FORMAT))?)?;
    if format != FORMAT_VERSION {
        return Err(damaged(format!(
            "it has format {format}, this agent reads format {FORMAT_VERSION}"
        )));
    }
    let truncated = single(TRUNCATED)?.ok_or_else(|| missing(TRUNCATED))?;
    let (index, term) = truncated.split_at_checked(8).ok_or_else(|| missing(TRUNCATED))?;
    let mut outline = Outline {
        id: Some(NodeId(number(ID, &id)?)),
        hard_state: decode::<HardState>(
            path,
            "hard_state",
            &single(HARD_STATE)?.ok_or_else(|| missing(HARD_STATE))?,
        )?,
        conf_state: decode::<ConfState>(
            path,
            "conf_state",
            &single(CONF_STATE)?.ok_or_else(|| missing(CONF_STATE))?,
        )?,
        applied: number(APPLIED, &single(APPLIED)?.ok_or_else(|| missing(APPLIED))?)?,
        truncated: (number(TRUNCATED, index)?, number(TRUNCATED, term)?),
        ..Outline::default()
    };
    if let Some(bytes) = single(SNAPSHOT)? {
        outline.note_snapshot(&decode::<Snapshot>(path, "snapshot", &bytes)?);
    }

    let transaction = db.begin_read().map_err(|error| unreadable(error.into()))?;
    let table = transaction.open_table(ENTRIES).map_err(|error| unreadable(error.into()))?;
    for row in table.iter().map_err(|error| unreadable(error.into()))? {
        let (index, bytes) = row.map_err(|error| unreadable(error.into()))?;
        let entry: Entry = decode(path, "an entry", bytes.value())?;
        let expected = outline.last_index() + 1;
        if index.value() != expected || entry.index != expected {
            return Err(damaged(format!(
                "entry {} (which says that it is {}) stands where entry {expected} belongs",
                index.value(),
                entry.index
            )));
        }
        outline.terms.push_back(entry.term);
    }
    outline.check().and_then(|()| outline.check_terms()).map_err(damaged)?;
    Ok(outline)
}

fn read_single(db: &Database, name: &[u8]) -> Result<Option<Vec<u8>>, redb::Error> {
    let transaction = db.begin_read()?;
    match transaction.open_table(SINGLES) {
        Ok(table) => Ok(table.get(name)?.map(|bytes| bytes.value().to_vec())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn write_outline(
    singles: &mut redb::Table<'_, &[u8], &[u8]>,
    outline: &Outline,
) -> Result<(), redb::Error> {
    let (index, term) = outline.truncated;
    let truncated = [index.to_be_bytes(), term.to_be_bytes()].concat();
    singles.insert(HARD_STATE, outline.hard_state.encode_to_vec().as_slice())?;
    singles.insert(CONF_STATE, outline.conf_state.encode_to_vec().as_slice())?;
    singles.insert(APPLIED, outline.applied.to_be_bytes().as_slice())?;
    singles.insert(TRUNCATED, truncated.as_slice())?;
    Ok(())
}

fn decode<T: prost011::Message + Default>(
    path: &Path,
    what: &str,
    bytes: &[u8],
) -> Result<T, StoreError> {
    T::decode(bytes).map_err(|error| StoreError::Damaged {
        path: path.to_owned(),
        fault: format!("{what} cannot be decoded: {error}"),
    })
}

#[allow(clippy::wildcard_enum_match_arm, reason = "redb's list may grow; the rest is the system's")]
fn opening(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StoreError::InUse { path: path.to_owned() }
        }
        DatabaseError::Storage(redb::StorageError::Corrupted(fault)) => {
            StoreError::Damaged { path: path.to_owned(), fault }
        }
        DatabaseError::Storage(redb::StorageError::Io(error))
            if error.kind() == std::io::ErrorKind::InvalidData
                || error.kind() == std::io::ErrorKind::UnexpectedEof =>
        {
            StoreError::Damaged { path: path.to_owned(), fault: error.to_string() }
        }
        DatabaseError::UpgradeRequired(version) => StoreError::Damaged {
            path: path.to_owned(),
            fault: format!("it has the file format {version} of another redb"),
        },
        error => io("open", path, error),
    }
}

fn io(
    action: &'static str,
    path: &Path,
    source: impl std::error::Error + Send + Sync + 'static,
) -> StoreError {
    StoreError::Io { action, path: path.to_owned(), source: Box::new(source) }
}

fn other(error: StoreError) -> raft::Error {
    raft::Error::Store(StorageError::Other(Box::new(error)))
}
