//! The logs that a fleet and a node start from.

use std::path::Path;

use lvsmesh_core::command::Candidate;
use lvsmesh_core::model::NodeId;
use lvsmesh_core::state::State;
use lvsmesh_proto::convert;
use raft::eraftpb::{ConfState, Snapshot};

use super::storage::{FIRST_INDEX, FIRST_TERM, LogStore, RedbStore, StoreError};

/// The id of a fleet's first node.
pub const FIRST_NODE: NodeId = NodeId(1);

/// Starts a fleet: a log whose snapshot has this one member, [`FIRST_NODE`], and whose configuration has it as its only voter.
///
/// # Errors
///
/// If there is a log of some node already, or it cannot be written.
pub fn found(log: &Path, fleet: &str, first: Candidate) -> Result<(), StoreError> {
    found_in(&mut RedbStore::open(log)?, fleet, first)
}

/// Starts a node of an existing fleet: an empty log that is this node's. The leader sends it everything.
///
/// # Errors
///
/// If there is a log of some node already, or it cannot be written.
pub fn join(log: &Path, id: NodeId) -> Result<(), StoreError> {
    RedbStore::open(log)?.install(id, None)
}

/// As [`found`], in any store.
///
/// # Errors
///
/// As [`found`].
pub fn found_in<S: LogStore>(
    store: &mut S,
    fleet: &str,
    first: Candidate,
) -> Result<(), StoreError> {
    let mut state = State::init(fleet, first);
    state.skip(FIRST_INDEX);
    let mut snapshot = Snapshot { data: convert::encode_snapshot(&state), ..Snapshot::default() };
    let meta = snapshot.mut_metadata();
    meta.index = FIRST_INDEX;
    meta.term = FIRST_TERM;
    meta.set_conf_state(ConfState { voters: vec![FIRST_NODE.0], ..ConfState::default() });
    store.install(FIRST_NODE, Some(&snapshot))
}
