//! What is replicated, and the promises made to callers.
//!
//! *In*: proposals, peers' messages, the lease thread's verdicts. *Out*: the applied state, Raft's status, and requests to the lease's gate.

pub mod node;
pub mod storage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lvsmesh_core::model::NodeId;
use lvsmesh_core::state::State;
use tokio::sync::watch;

/// The replicated state after the newest entry that this node has applied.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The state.
    pub state: Arc<State>,
    /// W3C trace context of the `raft.apply` span of the entry that last changed it; empty if there is none to join.
    pub traceparent: String,
}

/// What Raft knows of itself; published whenever it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaftStatus {
    /// This node.
    pub id: NodeId,
    /// Current term.
    pub term: u64,
    /// Leader of that term, if known.
    pub leader: Option<NodeId>,
    /// Whether this node leads.
    pub leading: bool,
    /// Whether this node leads and has committed an entry of its own term.
    pub settled: bool,
    /// Voters of the applied configuration.
    pub voters: BTreeSet<NodeId>,
    /// Learners of the applied configuration.
    pub learners: BTreeSet<NodeId>,
    /// Commit index.
    pub commit: u64,
    /// Applied index.
    pub applied: u64,
    /// On the leader: how far each node's log is known to match.
    pub matched: BTreeMap<NodeId, u64>,
}

/// What the lease thread tells Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Take the step that waits under this ticket.
    Pass(u64),
    /// Forget the step that waits under this ticket.
    Drop(u64),
    /// Campaign.
    Campaign,
    /// Step down from this term.
    StepDown {
        /// The term that is over for this node.
        term: u64,
    },
}

/// The way into the raft thread, and what it publishes.
#[derive(Clone, Debug)]
pub struct RaftHandle {
    /// The newest applied state.
    pub state: watch::Receiver<Applied>,
    /// Raft's status.
    pub status: watch::Receiver<RaftStatus>,
}
