//! What is replicated, and the promises made to callers.
//!
//! *In*: proposals, peers' messages, the lease thread's verdicts. *Out*: the applied state, Raft's status, and requests to the lease's gate.
//!
//! ```text
//!   RaftHandle ─ inbox ─▶ driver (thread "raft") ─▶ node ─▶ storage (redb)
//!       ▲                   │       │        └─ watch<Applied>, watch<RaftStatus>
//!       └ deliver, verdict  │       └─▶ LeaseInputs: Gate, Raft, Voters, LeaderHeard, Applied
//!                           └─▶ transport ═ Peer.Raft ═▶ peers
//! ```

mod driver;
mod inbox;
mod machine;
pub mod node;
pub mod start;
pub mod storage;
pub mod transport;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ::raft::eraftpb::Message;
use lvsmesh_core::command::{Command, Outcome};
use lvsmesh_core::membership::{Change, Configuration};
use lvsmesh_core::model::NodeId;
use lvsmesh_core::state::State;
use lvsmesh_proto::convert::{self, DecodeError};
use prost011::Message as _;
use tokio::sync::{Notify, oneshot, watch};
use tracing::{Instrument, info_span};

use self::inbox::{Inbox, Order};
use self::storage::StoreError;
use crate::lease::LeaseInputs;
use crate::telemetry::propagate;

/// A proposal whose fate is not known after this is reported as such. Longer than an election of the slowest timing profile, so that a change
/// which a new leader commits is still answered with its outcome.
const PATIENCE: Duration = Duration::from_secs(10);

/// What Raft needs to start.
#[derive(Clone, Debug)]
pub struct RaftConfig {
    /// The log, made by [`start::found`] or [`start::join`].
    pub log: PathBuf,
    /// Voters with a higher priority do not vote for this node unless its log is newer than theirs.
    pub priority: i64,
}

/// Where messages to peers go. Called on the raft thread: must not block.
pub trait Outbound: Send + 'static {
    /// Sends messages, each to its `to`; losing any of them is legal.
    fn send(&mut self, messages: Vec<Message>);
}

/// Why Raft cannot run, or cannot run any longer.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// The log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An entry that other nodes may understand.
    #[error("entry {index} of the log cannot be read by this version of lvs-agent")]
    Entry {
        /// Its index.
        index: u64,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// A snapshot that other nodes may understand.
    #[error("the snapshot at entry {index} cannot be read by this version of lvs-agent")]
    Snapshot {
        /// Its index.
        index: u64,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// The system gave no thread or no random number.
    #[error("failed to start the raft thread")]
    System(#[source] std::io::Error),
}

impl RaftError {
    /// What the operator can do about it, where we know.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Entry { .. } | Self::Snapshot { .. } => Some(
                "a newer version wrote it: upgrade this node; going on without it would make it disagree with the others".to_owned(),
            ),
            Self::System(_) => None,
        }
    }
}

/// Why a proposal has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another node leads, or none does. Nothing happened.
    #[error("this node does not lead the fleet")]
    NotLeader {
        /// Who does, if that is known.
        leader: Option<NodeId>,
    },
    /// Leadership is being handed over, or too much waits to be committed. Nothing happened.
    #[error("the leader takes no changes at the moment")]
    Busy,
    /// The configuration cannot be changed like this, or not yet. Nothing happened.
    #[error(
        "another change of the configuration is under way, or this one makes no sense in the present one"
    )]
    Configuration,
    /// Another leader's entry took its place. Almost certainly nothing happened.
    #[error("leadership changed before the change was committed")]
    Lost,
    /// Nobody knows yet whether it happened.
    #[error("no majority confirmed the change within {} s", after.as_secs())]
    TimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// The log cannot be written any more. Nobody knows whether it happened, if it was proposed before.
    #[error("this node's log failed")]
    Disk,
    /// The raft thread has ended. Nobody knows whether it happened.
    #[error("the agent is stopping")]
    Stopped,
}

/// A batch that no peer of this version sends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBatch {
    /// Not the encoding.
    #[error("messages: not Raft's encoding")]
    Encoding(#[from] prost011::DecodeError),
    /// A message of somebody else.
    #[error("messages: one is from node {found}, but the batch is from node {from}")]
    Sender {
        /// Who sent the batch.
        from: NodeId,
        /// Who the message says sent it.
        found: NodeId,
    },
}

/// Starts Raft: opens the log, brings the state back to where it was, and starts the thread. What the handle publishes is current when this
/// returns. The thread ends after [`RaftHandle::shutdown`], or with an error that makes going on unsafe; then everything published is closed. A log
/// that fails silences it, but does not end it: see [`RaftStatus::fault`].
///
/// # Errors
///
/// If the log cannot be opened or read, or there is no thread to be had.
pub fn spawn(
    config: &RaftConfig,
    lease: LeaseInputs,
    outbound: impl Outbound,
) -> Result<(RaftHandle, JoinHandle<Result<(), RaftError>>), RaftError> {
    let store = storage::RedbStore::open(&config.log)?;
    driver::spawn(store, config.priority, driver::Compaction::default(), lease, outbound)
}

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
    /// Whether this node leads and a majority of the voters has been heard from lately, itself included: a leader without one commits nothing,
    /// and Raft has no timer here that would depose it.
    pub backed: bool,
    /// Voters of the applied configuration.
    pub voters: BTreeSet<NodeId>,
    /// Learners of the applied configuration.
    pub learners: BTreeSet<NodeId>,
    /// Commit index.
    pub commit: u64,
    /// Applied index.
    pub applied: u64,
    /// Why the log cannot be written any more, in one line: this node takes no part until its agent is started again. What it had applied stands.
    pub fault: Option<String>,
    /// On the leader: from which voters and learners it has heard lately, itself included.
    pub heard: BTreeSet<NodeId>,
    /// On the leader: how far each node's log is known to match.
    pub matched: BTreeMap<NodeId, u64>,
}

impl RaftStatus {
    /// What this leader knows of who votes.
    #[must_use]
    pub fn configuration(&self) -> Configuration<'_> {
        Configuration {
            voters: &self.voters,
            learners: &self.learners,
            leader: self.id,
            matched: &self.matched,
            heard: &self.heard,
            commit: self.commit,
        }
    }
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
    /// Hand the leadership of this term over, and step down from it in any case.
    HandOver {
        /// The term that is over for this node.
        term: u64,
        /// The successor.
        to: NodeId,
    },
}

/// The way into the raft thread, and what it publishes.
#[derive(Clone, Debug)]
pub struct RaftHandle {
    /// The newest applied state.
    pub state: watch::Receiver<Applied>,
    /// Raft's status.
    pub status: watch::Receiver<RaftStatus>,
    /// Whether this node may have voted, or have led, before it was started: it may then have made promises that it does not remember.
    pub voted_before: bool,
    inbox: Inbox,
    heard: Arc<AtomicU64>,
    doubted: Arc<Notify>,
}

impl RaftHandle {
    /// Proposes a command, if this node leads, and waits until it is applied here.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`], which says for each case what the caller may conclude. A command that every node rejected is an [`Outcome`].
    ///
    /// Dropping the future gives up the answer, not the proposal.
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        let ask = async {
            let (reply, answer) = oneshot::channel();
            let traceparent = propagate::current_traceparent();
            let (proposer, request) = self.inbox.next_request();
            let data = convert::encode_entry(&command, &traceparent, proposer, request);
            self.inbox.put(Order::Propose { request, data, reply });
            patiently(answer).await
        };
        ask.instrument(info_span!("raft.propose")).await
    }

    /// Changes Raft's configuration by one step, if this node leads, and waits until that is applied here. [`Change::HandOver`] only starts.
    ///
    /// # Errors
    ///
    /// As [`RaftHandle::propose`], and if another change is under way.
    pub async fn change(&self, change: Change) -> Result<(), ProposeError> {
        let (reply, answer) = oneshot::channel();
        let (_, request) = self.inbox.next_request();
        self.inbox.put(Order::Change { request, change, reply });
        patiently(answer).await
    }

    /// Takes the messages of one batch that a peer sent. Drops them if the raft thread is far behind: they are sent again.
    ///
    /// # Errors
    ///
    /// If the batch is malformed; none of it is taken then.
    pub fn deliver<M: AsRef<[u8]>>(&self, from: NodeId, batch: &[M]) -> Result<(), BadBatch> {
        let mut messages = Vec::with_capacity(batch.len());
        for bytes in batch {
            let message = Message::decode(bytes.as_ref())?;
            if message.from != from.0 {
                return Err(BadBatch::Sender { from, found: NodeId(message.from) });
            }
            messages.push(message);
        }
        self.inbox.put_messages(messages);
        Ok(())
    }

    /// Takes what the lease thread says. Never blocks.
    pub fn verdict(&self, verdict: Verdict) {
        self.inbox.put(Order::Verdict(verdict));
    }

    /// Sets how much this node is preferred as a leader: among voters with equally new logs, a voter refuses its vote to a candidate of lower
    /// priority than its own, unless the candidate was told to campaign by the leader before it.
    pub fn set_priority(&self, priority: i64) {
        self.inbox.put(Order::Priority(priority));
    }

    /// How often the leader of the present term was heard from since the start. Two equal answers, some time apart: nobody leads this node.
    #[must_use]
    pub fn leader_heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// A peer ended a stream because it does not take this node for one of the fleet.
    pub fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Waits for a peer that doubts that this is a node of the fleet.
    pub async fn doubted(&self) {
        self.doubted.notified().await;
    }

    /// Takes no part any more: this node is none of the fleet's. It steps down, and neither campaigns nor votes nor acknowledges from now on.
    pub fn retire(&self) {
        self.inbox.put(Order::Retire);
    }

    /// Messages to this node are being lost.
    pub fn unreachable(&self, peer: NodeId) {
        self.inbox.put(Order::Unreachable(peer));
    }

    /// Ends the raft thread after what is queued before this.
    pub fn shutdown(&self) {
        self.inbox.put(Order::Stop);
    }
}

async fn patiently<T>(
    answer: oneshot::Receiver<Result<T, ProposeError>>,
) -> Result<T, ProposeError> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(ProposeError::Stopped),
        Err(_) => Err(ProposeError::TimedOut { after: PATIENCE }),
    }
}
