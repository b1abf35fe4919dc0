//! The logs that a fleet and a node start from.

use std::path::Path;

use lvsmesh_core::command::Candidate;
use lvsmesh_core::model::{Member, NodeId};
use lvsmesh_core::state::{Inconsistent, Parts, State};
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

/// What a node that joins begins with: a state that knows the members and nothing else. Without it the node could not answer the leader, whose
/// address is in the state that the leader is about to send.
///
/// # Errors
///
/// If two of the members share an id or a name, or one has id 0.
pub fn seed(fleet: &str, members: Vec<Member>) -> Result<State, Inconsistent> {
    let next_id = members.iter().map(|member| member.id.0).max().unwrap_or(0) + 1;
    State::from_parts(Parts { fleet: fleet.to_owned(), members, next_id, ..Parts::default() })
}

/// Starts a node of an existing fleet: an empty log that is this node's. The leader sends it everything.
///
/// # Errors
///
/// If there is a log of some node already, or it cannot be written.
pub fn join(log: &Path, id: NodeId, seed: &State) -> Result<(), StoreError> {
    join_in(&mut RedbStore::open(log)?, id, seed)
}

/// As [`join`], in any store.
///
/// # Errors
///
/// As [`join`].
pub fn join_in<S: LogStore>(store: &mut S, id: NodeId, seed: &State) -> Result<(), StoreError> {
    let data = convert::encode_snapshot(seed);
    store.install(id, Some(&Snapshot { data, ..Snapshot::default() }))
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
