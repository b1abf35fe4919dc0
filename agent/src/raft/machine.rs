//! The replicated state machine: committed bytes in, [`State`] and answers out.

use std::sync::Arc;

use lvsmesh_core::command::Outcome;
use lvsmesh_core::state::State;
use lvsmesh_proto::convert;
use tracing::info_span;

use super::node::Committed;
use super::{Applied, RaftError};
use crate::telemetry::propagate;

/// The state and what is known about its last change.
#[derive(Debug, Default)]
pub(super) struct Machine {
    state: State,
    traceparent: String,
    /// Bytes applied since the last snapshot was made or restored.
    bytes: u64,
    /// Index of that snapshot.
    snapshot: u64,
}

impl Machine {
    /// Starts over from a snapshot.
    pub(super) fn restore(&mut self, index: u64, data: &[u8]) -> Result<(), RaftError> {
        let state = convert::decode_snapshot(data)
            .map_err(|source| RaftError::Snapshot { index, source })?;
        *self = Self { state, snapshot: index, ..Self::default() };
        Ok(())
    }

    /// Applies an entry, as a part of the trace of whoever asked for it.
    pub(super) fn apply(&mut self, committed: &Committed) -> Result<Outcome, RaftError> {
        let (index, term) = (committed.index, committed.term);
        let entry = convert::decode_entry(&committed.data)
            .map_err(|source| RaftError::Entry { index, source })?;
        let span = info_span!("raft.apply", raft.index = index, raft.term = term);
        propagate::set_parent(&span, &entry.traceparent);
        self.bytes += committed.data.len() as u64;
        Ok(span.in_scope(|| {
            self.traceparent = propagate::current_traceparent();
            self.state.apply(index, entry.command)
        }))
    }

    /// Applies an entry again that was applied before this process started: nobody's trace.
    pub(super) fn replay(&mut self, committed: &Committed) -> Result<(), RaftError> {
        let index = committed.index;
        let entry = convert::decode_entry(&committed.data)
            .map_err(|source| RaftError::Entry { index, source })?;
        self.bytes += committed.data.len() as u64;
        self.state.apply(index, entry.command);
        Ok(())
    }

    /// A copy for readers. Documents are shared, so it costs what the fleet's size asks for.
    pub(super) fn published(&self) -> Applied {
        Applied { state: Arc::new(self.state.clone()), traceparent: self.traceparent.clone() }
    }

    /// Entries and bytes since the last snapshot.
    pub(super) fn since_snapshot(&self, applied: u64) -> (u64, u64) {
        (applied.saturating_sub(self.snapshot), self.bytes)
    }

    /// The state as of entry `applied`.
    pub(super) fn snapshot(&mut self, applied: u64) -> Vec<u8> {
        self.snapshot = applied;
        self.bytes = 0;
        convert::encode_snapshot(&self.state)
    }
}
