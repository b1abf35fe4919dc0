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

#[cfg(test)]
mod tests {
    use lvsmesh_core::command::Command;
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::prelude::*;

    use super::*;

    fn entry(index: u64, traceparent: &str) -> Committed {
        let command = Command::Remove { name: "nobody".to_owned() };
        let data = convert::encode_entry(&command, traceparent, 1, index);
        Committed { index, term: 2, data, request: None }
    }

    #[test]
    fn an_entry_is_applied_in_the_trace_of_whoever_proposed_it() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let proposer = info_span!("raft.propose").in_scope(propagate::current_traceparent);
            let mut machine = Machine::default();
            machine.apply(&entry(5, &proposer)).unwrap();
            // What the reconciler does next is a child of this.
            let applied = machine.published().traceparent;
            let part = |text: &str, at| text.split('-').nth(at).map(str::to_owned);
            assert_eq!(part(&applied, 1), part(&proposer, 1), "another trace");
            assert_ne!(part(&applied, 2), part(&proposer, 2), "not a span of its own");
        });
    }

    #[test]
    fn what_was_applied_before_a_start_belongs_to_no_trace() {
        let mut machine = Machine::default();
        machine
            .replay(&entry(5, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
            .unwrap();
        let published = machine.published();
        assert_eq!((published.state.applied(), published.traceparent.as_str()), (5, ""));
    }

    #[test]
    fn a_snapshot_starts_the_count_of_entries_anew() {
        let mut machine = Machine::default();
        machine.apply(&entry(5, "")).unwrap();
        machine.apply(&entry(6, "")).unwrap();
        let (entries, bytes) = machine.since_snapshot(6);
        assert_eq!(entries, 6);
        assert!(bytes > 0);
        let data = machine.snapshot(6);
        assert_eq!(machine.since_snapshot(8), (2, 0));
        let mut other = Machine::default();
        other.restore(6, &data).unwrap();
        assert_eq!(other.published().state, machine.published().state);
        assert_eq!(other.since_snapshot(8), (2, 0));
    }
}
