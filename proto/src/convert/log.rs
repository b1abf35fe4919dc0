//! Log entries, snapshots, and what they are made of.

use std::collections::BTreeSet;
use std::sync::Arc;

use lvsmesh_core::command::{
    Apply, Candidate, Command, Discovered, HealthChange, Readiness, SourceStatus,
};
use lvsmesh_core::document::level::{FIRST_LEVEL, LEVEL, level};
use lvsmesh_core::model::{Member, NodeId, RealServer, Role, text};
use lvsmesh_core::state::{Inconsistent, Parts, Revision, State};
use prost::Message as _;

use super::desired::{self, Refused};
use crate::{internal::v1 as internal, v1};

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it asks for.
    pub command: Command,
    /// W3C trace context of the call that asked for it; may be empty.
    pub traceparent: String,
    /// Which process proposed it.
    pub proposer: u64,
    /// Which of that process' requests it is.
    pub request: u64,
}

/// Bytes that are no entry, snapshot or message of this version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not the encoding at all.
    #[error("decode protobuf")]
    Protobuf(#[from] prost::DecodeError),
    /// A field is empty that never is, or it holds something that this version does not know.
    #[error("{field}: is missing, or of a kind that this version does not know")]
    Missing {
        /// `entry.command`.
        field: &'static str,
    },
    /// It was written for newer versions.
    #[error("it needs feature level {needed}, and this version has {LEVEL}")]
    TooNew {
        /// What it needs.
        needed: u32,
    },
    /// A field holds what it cannot hold.
    #[error("{field}: {value:?} is not {expected}")]
    Field {
        /// `candidate.grpc`.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// A document cannot be read.
    #[error(transparent)]
    Document(#[from] Refused),
    /// The parts of a snapshot do not fit together.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistent),
}

/// Writes a log entry.
#[must_use]
pub fn encode_entry(command: &Command, traceparent: &str, proposer: u64, request: u64) -> Vec<u8> {
    use internal::log_entry::Command as Wire;
    let level = match command {
        Command::Apply(apply) => said(level(&apply.document)),
        Command::Admit(_)
        | Command::Remove { .. }
        | Command::Ready(_)
        | Command::Health(_)
        | Command::Discovered(_) => 0,
    };
    let command = match command {
        Command::Apply(apply) => Wire::Apply(apply.into()),
        Command::Admit(candidate) => Wire::Admit(candidate.into()),
        Command::Remove { name } => Wire::Remove(name.clone()),
        Command::Ready(readiness) => Wire::Ready(readiness.into()),
        Command::Health(changes) => Wire::Health(internal::HealthChanges {
            changes: changes.iter().map(Into::into).collect(),
        }),
        Command::Discovered(discovered) => Wire::Discovered(discovered.into()),
    };
    let traceparent = traceparent.to_owned();
    internal::LogEntry { traceparent, proposer, request, level, command: Some(command) }
        .encode_to_vec()
}

/// The first level goes without saying: bytes stay what older versions write.
fn said(level: u32) -> u32 {
    if level > FIRST_LEVEL { level } else { 0 }
}

/// A field that this version does not know would be overlooked, and this node disagree with those that know it.
fn readable(needed: u32) -> Result<(), DecodeError> {
    if needed > LEVEL { Err(DecodeError::TooNew { needed }) } else { Ok(()) }
}

/// Reads a log entry that was committed.
///
/// # Errors
///
/// If this version cannot make sense of it; going on without it would make nodes disagree.
pub fn decode_entry(bytes: &[u8]) -> Result<Entry, DecodeError> {
    use internal::log_entry::Command as Wire;
    let entry = internal::LogEntry::decode(bytes)?;
    readable(entry.level)?;
    let missing = DecodeError::Missing { field: "entry.command" };
    let command = match entry.command.ok_or(missing)? {
        Wire::Apply(wire) => Command::Apply(apply(wire)?),
        Wire::Admit(wire) => Command::Admit((&wire).try_into()?),
        Wire::Remove(name) => Command::Remove { name },
        Wire::Ready(wire) => Command::Ready(wire.into()),
        Wire::Health(wire) => Command::Health(
            wire.changes.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        ),
        Wire::Discovered(wire) => Command::Discovered(wire.try_into()?),
    };
    let internal::LogEntry { traceparent, proposer, request, .. } = entry;
    Ok(Entry { command, traceparent, proposer, request })
}

/// Writes the whole state.
#[must_use]
pub fn encode_snapshot(state: &State) -> Vec<u8> {
    let parts = state.parts();
    let stored = |revision: &Arc<Revision>| internal::StoredRevision {
        summary: Some((&revision.summary).into()),
        document: Some((&*revision.document).into()),
    };
    let newest = parts.history.iter().map(|revision| level(&revision.document)).max();
    let snapshot = internal::Snapshot {
        level: newest.map_or(0, said),
        applied: parts.applied,
        fleet: parts.fleet,
        revision: state.revision(),
        history: parts.history.iter().map(stored).collect(),
        members: parts.members.iter().map(Into::into).collect(),
        departed: parts.departed.iter().map(Into::into).collect(),
        next_id: parts.next_id,
        readiness: parts.readiness.iter().map(Into::into).collect(),
        health: parts.health.iter().map(Into::into).collect(),
        discovered: parts.discovered.iter().map(Into::into).collect(),
    };
    snapshot.encode_to_vec()
}

/// Reads a whole state.
///
/// # Errors
///
/// If this version cannot make sense of it, or its parts do not fit together.
pub fn decode_snapshot(bytes: &[u8]) -> Result<State, DecodeError> {
    let snapshot = internal::Snapshot::decode(bytes)?;
    readable(snapshot.level)?;
    let parts = Parts {
        applied: snapshot.applied,
        fleet: snapshot.fleet,
        history: collect(snapshot.history, revision)?,
        members: collect(snapshot.members, TryInto::try_into)?,
        departed: collect(snapshot.departed, TryInto::try_into)?,
        next_id: snapshot.next_id,
        readiness: snapshot.readiness.into_iter().map(Into::into).collect(),
        health: collect(snapshot.health, TryInto::try_into)?,
        discovered: collect(snapshot.discovered, TryInto::try_into)?,
    };
    let state = State::from_parts(parts)?;
    if state.revision() != snapshot.revision {
        let (expected, found) = (snapshot.revision, state.revision());
        return Err(Inconsistent::History { expected, found }.into());
    }
    Ok(state)
}

fn revision(stored: internal::StoredRevision) -> Result<Arc<Revision>, DecodeError> {
    let summary = stored.summary.ok_or(DecodeError::Missing { field: "revision.summary" })?;
    let document = stored.document.ok_or(DecodeError::Missing { field: "revision.document" })?;
    let document = Arc::new(desired::committed(&document)?);
    Ok(Arc::new(Revision { summary: summary.into(), document }))
}

impl From<&Apply> for internal::Apply {
    fn from(apply: &Apply) -> Self {
        Self {
            document: Some((&apply.document).into()),
            expected_revision: apply.expected_revision,
            author: apply.author.clone(),
            message: apply.message.clone(),
            unix_ms: apply.unix_ms,
        }
    }
}

fn apply(wire: internal::Apply) -> Result<Apply, DecodeError> {
    let document = wire.document.ok_or(DecodeError::Missing { field: "apply.document" })?;
    Ok(Apply {
        document: desired::committed(&document)?,
        expected_revision: wire.expected_revision,
        author: wire.author,
        message: wire.message,
        unix_ms: wire.unix_ms,
    })
}

impl From<&Candidate> for internal::Candidate {
    fn from(candidate: &Candidate) -> Self {
        Self {
            name: candidate.name.clone(),
            director: candidate.roles.contains(&Role::Director),
            real_server: candidate.roles.contains(&Role::RealServer),
            addresses: candidate.addresses.iter().map(ToString::to_string).collect(),
            grpc: candidate.grpc.to_string(),
            lease: candidate.lease.to_string(),
        }
    }
}

impl TryFrom<&internal::Candidate> for Candidate {
    type Error = DecodeError;

    fn try_from(wire: &internal::Candidate) -> Result<Self, DecodeError> {
        if !text::is_name(&wire.name) {
            let (field, value) = ("candidate.name", wire.name.clone());
            let expected = "a name of 1 to 63 characters of a-z, 0-9 and `-`";
            return Err(DecodeError::Field { field, value, expected });
        }
        let roles = [(wire.director, Role::Director), (wire.real_server, Role::RealServer)];
        let roles: BTreeSet<_> =
            roles.into_iter().filter_map(|(has, role)| has.then_some(role)).collect();
        if roles.is_empty() {
            return Err(DecodeError::Missing { field: "candidate.director" });
        }
        if wire.addresses.is_empty() {
            return Err(DecodeError::Missing { field: "candidate.addresses" });
        }
        let address = |address: &String| parse("candidate.addresses", address, ADDRESS);
        Ok(Self {
            name: wire.name.clone(),
            roles,
            addresses: wire.addresses.iter().map(address).collect::<Result<_, _>>()?,
            grpc: parse("candidate.grpc", &wire.grpc, SOCKET)?,
            lease: parse("candidate.lease", &wire.lease, SOCKET)?,
        })
    }
}

impl From<&Member> for internal::Member {
    fn from(member: &Member) -> Self {
        let is = Candidate {
            name: member.name.clone(),
            roles: member.roles.clone(),
            addresses: member.addresses.clone(),
            grpc: member.grpc,
            lease: member.lease,
        };
        Self { id: member.id.0, is: Some((&is).into()) }
    }
}

impl TryFrom<internal::Member> for Member {
    type Error = DecodeError;

    fn try_from(wire: internal::Member) -> Result<Self, DecodeError> {
        let is = wire.is.ok_or(DecodeError::Missing { field: "member.is" })?;
        let Candidate { name, roles, addresses, grpc, lease } = (&is).try_into()?;
        Ok(Self { id: NodeId(wire.id), name, roles, addresses, grpc, lease })
    }
}

impl From<&Readiness> for internal::Readiness {
    fn from(readiness: &Readiness) -> Self {
        Self { node: readiness.node.0, digest: readiness.digest, fault: readiness.fault.clone() }
    }
}

impl From<internal::Readiness> for Readiness {
    fn from(wire: internal::Readiness) -> Self {
        Self { node: NodeId(wire.node), digest: wire.digest, fault: wire.fault }
    }
}

impl From<&HealthChange> for internal::HealthChange {
    fn from(change: &HealthChange) -> Self {
        Self {
            pool: change.pool.clone(),
            real_server: change.real_server.to_string(),
            fault: change.fault.clone(),
        }
    }
}

impl TryFrom<internal::HealthChange> for HealthChange {
    type Error = DecodeError;

    fn try_from(wire: internal::HealthChange) -> Result<Self, DecodeError> {
        let real_server = parse("health.real_server", &wire.real_server, SOCKET)?;
        Ok(Self { pool: wire.pool, real_server, fault: wire.fault })
    }
}

impl From<&Discovered> for internal::Discovered {
    fn from(discovered: &Discovered) -> Self {
        let (status, reason) = match &discovered.status {
            SourceStatus::Synced => (0, ""),
            SourceStatus::Stale(reason) => (1, reason.as_str()),
            SourceStatus::Lost(reason) => (2, reason.as_str()),
        };
        Self {
            pool: discovered.pool.clone(),
            status,
            reason: reason.to_owned(),
            real_servers: discovered.real_servers.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<internal::Discovered> for Discovered {
    type Error = DecodeError;

    fn try_from(wire: internal::Discovered) -> Result<Self, DecodeError> {
        let status = match wire.status {
            0 => SourceStatus::Synced,
            1 => SourceStatus::Stale(wire.reason),
            2 => SourceStatus::Lost(wire.reason),
            other => {
                return Err(DecodeError::Field {
                    field: "discovered.status",
                    value: other.to_string(),
                    expected: "0 (synced), 1 (stale) or 2 (lost)",
                });
            }
        };
        let real_servers = collect(wire.real_servers, |server| real_server(&server))?;
        Ok(Self { pool: wire.pool, status, real_servers })
    }
}

fn real_server(wire: &v1::RealServer) -> Result<RealServer, DecodeError> {
    // What is found has an address, a port and a weight, and everything else from its pool's services.
    let port = wire.port.unwrap_or_default();
    let port = u16::try_from(port).map_err(|_| DecodeError::Field {
        field: "discovered.real_servers.port",
        value: port.to_string(),
        expected: "a port of 0 to 65535",
    })?;
    let address = parse("discovered.real_servers.address", &wire.address, ADDRESS)?;
    Ok(RealServer::new(address, port, wire.weight.unwrap_or(1)))
}

const ADDRESS: &str = "an IP address";
const SOCKET: &str = "an IP address with a port";

fn parse<T: std::str::FromStr>(
    field: &'static str,
    text: &str,
    expected: &'static str,
) -> Result<T, DecodeError> {
    text.parse().map_err(|_| DecodeError::Field { field, value: text.to_owned(), expected })
}

fn collect<W, T, E>(wire: Vec<W>, read: impl Fn(W) -> Result<T, E>) -> Result<Vec<T>, E> {
    wire.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests;
