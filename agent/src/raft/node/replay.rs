//! Brings the state machine back to where it was when the process ended.

use lvsmesh_core::model::NodeId;
use raft::eraftpb::EntryType;
use raft::{GetEntriesContext, StorageError};

use super::super::storage::{LogStore, StoreError};
use super::{Committed, NodeEffect};

/// Bytes of entries read at once.
const CHUNK_BYTES: u64 = 1 << 20;

/// Whose store it is, and the effects that restore the state machine up to the store's applied index. Configuration changes are not among them: the
/// store has the configuration itself.
pub(super) fn replay<S: LogStore>(store: &S) -> Result<(NodeId, Vec<NodeEffect>), StoreError> {
    let id = store.id().ok_or_else(|| StoreError::Vacant { path: store.path().to_owned() })?;
    let mut effects = Vec::new();
    let mut next = 1;
    if let Some(snapshot) = store.stored_snapshot()? {
        let index = snapshot.get_metadata().index;
        next = index + 1;
        effects.push(NodeEffect::Restore { index, data: snapshot.data });
    }
    let end = store.applied() + 1;
    while next < end {
        let entries = store
            .entries(next, end, CHUNK_BYTES, GetEntriesContext::empty(false))
            .map_err(unreadable)?;
        for entry in entries {
            next = entry.index + 1;
            if entry.get_entry_type() == EntryType::EntryNormal && !entry.data.is_empty() {
                effects.push(NodeEffect::Apply(Committed {
                    index: entry.index,
                    term: entry.term,
                    data: entry.data,
                    request: None,
                }));
            }
        }
    }
    Ok((id, effects))
}

/// A store's error that came back through raft-rs.
pub(crate) fn unreadable(error: raft::Error) -> StoreError {
    if let raft::Error::Store(StorageError::Other(source)) = error {
        return match source.downcast::<StoreError>() {
            Ok(error) => *error,
            Err(source) => StoreError::Io { action: "read", path: "(log)".into(), source },
        };
    }
    StoreError::Io { action: "read", path: "(log)".into(), source: Box::new(error) }
}
