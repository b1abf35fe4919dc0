//! Everything that a log entry can ask of the replicated state, and every answer.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::model::{Document, NodeId, NodeName, RealServer, Role};

/// One committed wish. Applying it is total and deterministic; see [`crate::state::State::apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Replace the desired state.
    Apply(Apply),
    /// Admit a machine to the fleet, or admit it again with an emptied disk: it gets an id that was never used.
    Admit(Candidate),
    /// Take a machine out of the fleet.
    Remove {
        /// Its name.
        name: NodeName,
    },
    /// A node's agent says whether its realserver side is in place.
    Ready(Readiness),
    /// The leader's probes changed their mind.
    Health(Vec<HealthChange>),
    /// A discovery source answered, fell silent, or came back.
    Discovered(Discovered),
}

/// A desired state and who wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apply {
    /// The whole desired state.
    pub document: Document,
    /// The revision that the change was made against; `None` applies to whatever is there.
    pub expected_revision: Option<u64>,
    /// Who: `operator/NAME` from a certificate, or `USER@HOST (unverified)`.
    pub author: String,
    /// Why, in the author's words; may be empty.
    pub message: String,
    /// When, by the leader's wall clock, in milliseconds since 1970; for people, never for decisions.
    pub unix_ms: u64,
}

/// A machine that asks to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// From its `agent.toml` and its certificate.
    pub name: NodeName,
    /// At least one.
    pub roles: BTreeSet<Role>,
    /// At least one; the first is the one that it advertises.
    pub addresses: Vec<IpAddr>,
    /// Where its gRPC server listens.
    pub grpc: SocketAddr,
    /// Where its lease socket listens.
    pub lease: SocketAddr,
}

/// What a node says about its realserver side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The node.
    pub node: NodeId,
    /// [`crate::placement::RealServerSide::digest`] of the plan that the report is about.
    pub digest: u64,
    /// `None`: in place and read back. Otherwise why not, in one line.
    pub fault: Option<String>,
}

/// One real server went up or down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthChange {
    /// Pool.
    pub pool: String,
    /// Real server.
    pub real_server: SocketAddr,
    /// `None`: up. Otherwise why it is down, in one line.
    pub fault: Option<String>,
}

/// What a pool's source says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// Pool.
    pub pool: String,
    /// How current the set is.
    pub status: SourceStatus,
    /// The last good set, sorted by address and port; never empty unless the source has never answered.
    pub real_servers: Vec<RealServer>,
}

/// How current a source's set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceStatus {
    /// The set is the source's last answer.
    Synced,
    /// The source failed or answered empty; the last good set stands. Why, in one line.
    Stale(String),
    /// The source has never answered since the pool asked for it. Why, in one line.
    Lost(String),
}

/// What applying a command did; the same on every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The document is the fleet's new desired state.
    Applied {
        /// Its revision.
        revision: u64,
    },
    /// The document is the one already in force.
    Unchanged {
        /// The current revision.
        revision: u64,
    },
    /// The machine is a member.
    Admitted {
        /// Its id.
        id: NodeId,
    },
    /// The machine is no longer a member.
    Removed {
        /// The id it had.
        id: NodeId,
    },
    /// An observation was recorded, or was already known.
    Noted,
    /// Nothing changed, on any node.
    Rejected(Rejection),
}

/// Why an entry that every node agreed on changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The desired state moved on since the author read it.
    #[error(
        "the desired state is at revision {actual}, but the change was made against {expected}"
    )]
    Stale {
        /// What the author expected.
        expected: u64,
        /// What is there.
        actual: u64,
        /// What happened in between, oldest first; at most the last 200 revisions are remembered.
        since: Vec<RevisionSummary>,
    },
    /// The document names another fleet.
    #[error("fleet.name: this fleet is `{actual}`, the document is for `{given}`")]
    OtherFleet {
        /// This fleet.
        actual: String,
        /// The document's.
        given: String,
    },
    /// No such member.
    #[error("no node is named `{name}`")]
    UnknownNode {
        /// The name asked for.
        name: String,
    },
    /// It is the only voter.
    #[error("node `{name}` is the fleet's last voter and cannot be removed")]
    LastVoter {
        /// Its name.
        name: String,
    },
}

/// One line of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionSummary {
    /// Number, from 1.
    pub revision: u64,
    /// Who.
    pub author: String,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Why.
    pub message: String,
    /// What changed, one line an object: `services/web: scheduler wlc -> rr`.
    pub changes: Vec<String>,
}
