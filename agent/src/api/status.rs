//! Every error becomes a gRPC status here and nowhere else.
//!
//! *In*: why a call cannot be answered as asked. *Out*: a code, one line for the operator, and what else the contract in `control.proto`
//! promises in trailers: a hint, a machine-readable reason, the faults of a document, the revisions that came in between.

use lvsmesh_core::command::Rejection;
use lvsmesh_proto::v1;
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::belonging::Outcast;
use crate::tls::{Peer, PeerError};

/// Trailer: what to do about it, UTF-8.
pub const HINT: &str = "lvsmesh-hint-bin";
/// Trailer: one of a few words that programs may act on.
pub const REASON: &str = "lvsmesh-reason";
/// Trailer: an encoded `Faults`.
pub const FAULTS: &str = "lvsmesh-faults-bin";
/// Trailer: an encoded `HistoryResponse`.
pub const CONFLICT: &str = "lvsmesh-conflict-bin";
/// The value of [`REASON`] when no majority of voters can be reached.
pub const NO_QUORUM: &str = "no-quorum";
/// The value of [`REASON`] when a change was proposed, and its proposer no longer reaches a majority: it may or may not be made.
pub const UNCONFIRMED: &str = "unconfirmed";
/// The same, where a majority is reached.
pub const UNCONFIRMED_YET: &str = "unconfirmed-yet";
/// The value of [`REASON`] when a call that was passed on reached an agent that does not lead.
pub const NOT_LEADER: &str = "not-leader";

/// The value of [`REASON`] when the caller, or the agent that was asked, is no node of the fleet any more.
pub const NO_MEMBER: &str = "no-member";

/// The value of [`REASON`] when the log of the agent that was asked has failed, and it takes no part.
pub const NO_LOG: &str = "no-log";

/// Why a call cannot be answered as asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No RPC has that path.
    #[error("there is no call {path}")]
    NoSuchCall {
        /// As it came.
        path: String,
    },
    /// The caller showed no certificate.
    #[error("a certificate is needed")]
    NoCertificate,
    /// The caller's certificate names nobody.
    #[error("the caller's certificate names nobody")]
    Nobody(#[source] PeerError),
    /// The caller is of another fleet.
    #[error("{peer} is of fleet `{}`, this agent is of fleet `{fleet}`", peer.fleet)]
    OtherFleet {
        /// This fleet.
        fleet: String,
        /// The caller.
        peer: Peer,
    },
    /// The caller's role is not enough.
    #[error("{peer} may not call {path}: it is for nodes alone")]
    Denied {
        /// The call.
        path: String,
        /// The caller.
        peer: Peer,
    },
    /// A field of the request is not what it must be.
    #[error("{field}: {reason}")]
    Field {
        /// Its path in the request.
        field: &'static str,
        /// With the value and the limit.
        reason: String,
    },
    /// The document is wrong.
    #[error("the document has {} {}", .0.faults.len(), if .0.faults.len() == 1 { "fault" } else { "faults" })]
    Document(v1::Faults),
    /// Every node agreed that it changes nothing.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// No majority of voters can be reached, or none has agreed on a leader in time.
    #[error("no quorum: no leader was found within {waited_ms} ms")]
    NoQuorum {
        /// For how long one was looked for.
        waited_ms: u128,
    },
    /// This agent was taken for the leader and is not.
    #[error("this agent does not lead the fleet")]
    NotLeader,
    /// The change was proposed, and then the leader or its majority was lost.
    #[error("the change was proposed but not confirmed; it may or may not be made")]
    Unconfirmed {
        /// A leader with a majority is known all the same.
        quorum: bool,
    },
    /// The agent is stopping.
    #[error("the agent is stopping")]
    Stopping,
    /// No such member.
    #[error("no node is named `{name}`")]
    UnknownNode {
        /// As asked.
        name: String,
    },
    /// No such service.
    #[error("node `{node}` has no IPVS service {service}")]
    UnknownService {
        /// As asked.
        service: String,
        /// The node.
        node: String,
    },
    /// No such revision.
    #[error(
        "revision {revision} is not kept: the current one is {current}, the oldest kept {oldest}"
    )]
    UnknownRevision {
        /// As asked.
        revision: u64,
        /// The current one; 0 before the first document.
        current: u64,
        /// The oldest one kept.
        oldest: u64,
    },
    /// A node cannot take the VIPs.
    #[error("node `{name}` cannot hold the VIPs: {reason}")]
    Unfit {
        /// The node.
        name: String,
        /// Why.
        reason: String,
    },
    /// Too few of those who would vote without a node are heard from.
    #[error("without node `{name}` no majority of voters would be left: {silent} cannot be heard")]
    Needed {
        /// The node that was to go.
        name: String,
        /// Voters, by name.
        silent: String,
    },
    /// A word of the document is newer than a node's version.
    #[error("{path}: `{word}` cannot be used while node `{node}` may not know it: {reason}")]
    TooNew {
        /// Where it stands.
        path: String,
        /// The word.
        word: String,
        /// The node.
        node: String,
        /// Its version, or why that is not known.
        reason: String,
    },
    /// No other director could take the VIPs.
    #[error("no other director can hold the VIPs: {reason}")]
    NobodyFit {
        /// Each with why not.
        reason: String,
    },
    /// The VIPs are not where they were to go.
    #[error("the VIPs did not move to `{to}` within {waited_ms} ms; {holder}")]
    NotMoved {
        /// The target.
        to: String,
        /// How long was waited.
        waited_ms: u128,
        /// Who holds them.
        holder: String,
    },
    /// Another node does not answer.
    #[error("node `{name}` at {address} does not answer: {reason}")]
    Unreachable {
        /// The node.
        name: String,
        /// Where.
        address: std::net::SocketAddr,
        /// In the transport's words.
        reason: String,
    },
    /// The kernel has no IPVS.
    #[error("node `{name}` has no IPVS table: {reason}")]
    NoIpvs {
        /// The node.
        name: String,
        /// Why.
        reason: String,
        /// What its kernel needs.
        hint: Option<String>,
    },
    /// Something that should not fail did.
    #[error("cannot {doing}: {reason}")]
    Internal {
        /// What.
        doing: &'static str,
        /// Why not.
        reason: String,
    },
    /// The caller, or this agent's own machine, is no node of the fleet.
    #[error("{0}")]
    NoMember(Outcast),
    /// This agent's log failed: it takes no part in the fleet.
    #[error("this node takes no part in the fleet: {fault}")]
    NoLog {
        /// Why.
        fault: String,
    },
    /// Another agent's refusal, passed on as it came.
    #[error("{}", .0.message())]
    Remote(Box<Status>),
}

impl CallError {
    fn code(&self) -> Code {
        match self {
            Self::NoSuchCall { .. } => Code::Unimplemented,
            Self::NoCertificate | Self::Nobody(_) => Code::Unauthenticated,
            Self::OtherFleet { .. } | Self::Denied { .. } => Code::PermissionDenied,
            Self::Field { .. }
            | Self::Document(_)
            | Self::Rejected(Rejection::OtherFleet { .. }) => Code::InvalidArgument,
            Self::Rejected(Rejection::Stale { .. }) => Code::Aborted,
            Self::UnknownNode { .. }
            | Self::UnknownService { .. }
            | Self::UnknownRevision { .. }
            | Self::Rejected(Rejection::UnknownNode { .. }) => Code::NotFound,
            Self::Unfit { .. }
            | Self::Needed { .. }
            | Self::TooNew { .. }
            | Self::NobodyFit { .. }
            | Self::NoIpvs { .. }
            | Self::NoMember(_)
            | Self::Rejected(Rejection::LastVoter { .. }) => Code::FailedPrecondition,
            Self::NoQuorum { .. }
            | Self::NotLeader
            | Self::Unconfirmed { .. }
            | Self::Stopping
            | Self::NoLog { .. }
            | Self::Unreachable { .. } => Code::Unavailable,
            Self::NotMoved { .. } => Code::DeadlineExceeded,
            Self::Internal { .. } => Code::Internal,
            Self::Remote(status) => status.code(),
        }
    }

    /// What the operator can do about it, where we know.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoCertificate => Some("give the client a certificate that the fleet's authority signed".to_owned()),
            Self::Nobody(_) => Some("issue it with the URI spiffe://FLEET/operator/NAME".to_owned()),
            Self::Document(_) => Some("correct the document; nothing was changed".to_owned()),
            Self::Rejected(Rejection::Stale { .. }) => Some(
                "run `lvsctl get` and redo the edit on the current revision; `lvsctl history` shows who changed what".to_owned(),
            ),
            Self::Rejected(Rejection::LastVoter { .. }) => {
                Some("join another node before this one is removed".to_owned())
            }
            Self::NoQuorum { .. } => Some(
                "`lvsctl status` shows which nodes answer; the fleet is read-only until a majority of voters is back".to_owned(),
            ),
            Self::Unconfirmed { .. } => Some("`lvsctl history` shows whether it was made".to_owned()),
            Self::NotLeader | Self::Stopping => Some("try again".to_owned()),
            Self::UnknownNode { .. } | Self::Rejected(Rejection::UnknownNode { .. }) => {
                Some("`lvsctl node list` names the nodes".to_owned())
            }
            Self::UnknownService { .. } => {
                Some("`lvsctl ipvs list` shows the services of a node".to_owned())
            }
            Self::UnknownRevision { .. } => {
                Some("`lvsctl history` lists the revisions that are kept".to_owned())
            }
            Self::NotMoved { .. } | Self::Unfit { .. } | Self::NobodyFit { .. } => {
                Some("`lvsctl status` shows the warnings of each node".to_owned())
            }
            Self::TooNew { .. } => Some(
                "upgrade lvs-agent on every node first; `lvsctl node remove` takes out one that is gone for good".to_owned(),
            ),
            Self::Needed { .. } => Some(
                "start those agents again, or remove their nodes first, or join others; nothing was changed".to_owned(),
            ),
            Self::Unreachable { .. } => {
                Some("is its agent running, and is the way there open?".to_owned())
            }
            Self::NoSuchCall { .. } => Some("the client and the agent are of different versions; `lvsctl version` shows both".to_owned()),
            Self::OtherFleet { .. }
            | Self::Denied { .. }
            | Self::Field { .. }
            | Self::Rejected(Rejection::OtherFleet { .. })
            | Self::Internal { .. }
            | Self::Remote(_) => None,
            Self::NoIpvs { hint, .. } => hint.clone(),
            Self::NoMember(outcast) => Some(outcast.hint().to_owned()),
            Self::NoLog { .. } => Some(
                "ask another agent with --endpoint; check the disk here, then start this agent again".to_owned(),
            ),
        }
    }

    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::NoQuorum { .. } => Some(NO_QUORUM),
            // Not that of the former: whoever reads that knows that nothing happened.
            Self::Unconfirmed { quorum: false } => Some(UNCONFIRMED),
            Self::Unconfirmed { quorum: true } => Some(UNCONFIRMED_YET),
            Self::NotLeader => Some(NOT_LEADER),
            Self::NoMember(_) => Some(NO_MEMBER),
            Self::NoLog { .. } => Some(NO_LOG),
            Self::NoSuchCall { .. }
            | Self::NoCertificate
            | Self::Nobody(_)
            | Self::OtherFleet { .. }
            | Self::Denied { .. }
            | Self::Field { .. }
            | Self::Document(_)
            | Self::Rejected(_)
            | Self::Stopping
            | Self::UnknownNode { .. }
            | Self::UnknownService { .. }
            | Self::UnknownRevision { .. }
            | Self::Unfit { .. }
            | Self::Needed { .. }
            | Self::TooNew { .. }
            | Self::NobodyFit { .. }
            | Self::NotMoved { .. }
            | Self::Unreachable { .. }
            | Self::NoIpvs { .. }
            | Self::Internal { .. }
            | Self::Remote(_) => None,
        }
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        if let CallError::Remote(status) = error {
            return *status;
        }
        let mut status = Self::new(error.code(), chain(&error));
        let trailers = status.metadata_mut();
        if let Some(hint) = error.hint() {
            trailers.insert_bin(HINT, MetadataValue::from_bytes(hint.as_bytes()));
        }
        if let Some(reason) = error.reason() {
            trailers.insert(REASON, MetadataValue::from_static(reason));
        }
        if let CallError::Document(faults) = &error {
            let faults = first_fitting(faults.clone());
            trailers.insert_bin(FAULTS, MetadataValue::from_bytes(&faults.encode_to_vec()));
        }
        if let CallError::Rejected(Rejection::Stale { since, .. }) = &error {
            let revisions = since.iter().map(Into::into).collect();
            let conflict = fitting(v1::HistoryResponse { revisions, stale: false });
            trailers.insert_bin(CONFLICT, MetadataValue::from_bytes(&conflict.encode_to_vec()));
        }
        status
    }
}

/// Bytes of one trailer: peers refuse header lists over 16 KiB (hyper's default), and base64 adds a third.
const TRAILER_LIMIT: usize = 8 * 1024;

/// Drops the oldest revisions until the rest fits a trailer.
fn fitting(mut history: v1::HistoryResponse) -> v1::HistoryResponse {
    while history.encoded_len() > TRAILER_LIMIT && !history.revisions.is_empty() {
        history.revisions.remove(0);
    }
    history
}

/// Keeps the first faults that fit a trailer, and says how many there are beyond.
fn first_fitting(mut faults: v1::Faults) -> v1::Faults {
    let total = faults.faults.len();
    while faults.encoded_len() > TRAILER_LIMIT {
        // The last place is for the line that says what is missing.
        faults.faults.truncate(faults.faults.len().saturating_sub(2));
        faults.faults.push(v1::Fault {
            path: String::new(),
            message: format!("and {} more", total - faults.faults.len()),
            hint: "correct these first".to_owned(),
        });
    }
    faults
}

/// The value of [`REASON`] in a status from another agent.
#[must_use]
pub fn reason(status: &Status) -> Option<&str> {
    status.metadata().get(REASON)?.to_str().ok()
}

/// A transport's failure as one line.
#[must_use]
pub fn one_line(status: &Status) -> String {
    let source = std::error::Error::source(status);
    let deepest = std::iter::successors(source, |error| error.source()).last();
    match deepest {
        Some(deepest) => format!("{}: {deepest}", status.message()),
        None => status.message().to_owned(),
    }
}

/// Joins an error and its sources: `cannot read tls.ca /etc/ca.pem: no such file`.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

#[cfg(test)]
mod tests {
    use lvsmesh_core::command::RevisionSummary;

    use super::*;

    fn summary(revision: u64) -> RevisionSummary {
        RevisionSummary {
            revision,
            author: "operator/ada".into(),
            unix_ms: 1_700_000_000_000,
            message: String::new(),
            changes: vec!["services/web: scheduler wlc -> rr".into()],
        }
    }

    #[test]
    fn a_conflict_says_who_changed_what() {
        let since = vec![summary(4), summary(5)];
        let stale = Rejection::Stale { expected: 3, actual: 5, since };
        let status = Status::from(CallError::from(stale));

        assert_eq!(status.code(), Code::Aborted);
        let trailer = status.metadata().get_bin(CONFLICT).unwrap().to_bytes().unwrap();
        let history = v1::HistoryResponse::decode(trailer).unwrap();
        assert_eq!(history.revisions, [(&summary(4)).into(), (&summary(5)).into()]);
        assert!(status.metadata().get_bin(HINT).is_some());
    }

    #[test]
    fn a_long_conflict_keeps_its_newest_revisions() {
        let since = (1..=200).map(summary).collect();
        let stale = Rejection::Stale { expected: 0, actual: 200, since };
        let status = Status::from(CallError::from(stale));

        let trailer = status.metadata().get_bin(CONFLICT).unwrap().to_bytes().unwrap();
        assert!(trailer.len() <= 8 * 1024, "{}", trailer.len());
        let history = v1::HistoryResponse::decode(trailer).unwrap();
        assert_eq!(history.revisions.last(), Some(&(&summary(200)).into()));
    }

    #[test]
    fn of_very_many_faults_the_first_are_told_and_the_rest_counted() {
        let fault = |n: usize| v1::Fault {
            path: format!("services[{n}].scheduler"),
            message: "no scheduler `wlcc`".into(),
            hint: "did you mean `wlc`?".into(),
        };
        let faults = v1::Faults { faults: (0..1000).map(fault).collect() };
        let status = Status::from(CallError::Document(faults));

        let trailer = status.metadata().get_bin(FAULTS).unwrap().to_bytes().unwrap();
        assert!(trailer.len() <= TRAILER_LIMIT, "{}", trailer.len());
        let told = v1::Faults::decode(trailer).unwrap().faults;
        assert_eq!(told[0], fault(0));
        assert_eq!(told.last().unwrap().message, format!("and {} more", 1000 - (told.len() - 1)));
        assert_eq!(status.message(), "the document has 1000 faults");
    }

    #[test]
    fn a_lost_quorum_is_told_from_other_unavailability() {
        let status = Status::from(CallError::NoQuorum { waited_ms: 5000 });
        assert_eq!((status.code(), reason(&status)), (Code::Unavailable, Some(NO_QUORUM)));
        let status = Status::from(CallError::Stopping);
        assert_eq!((status.code(), reason(&status)), (Code::Unavailable, None));
    }

    #[test]
    fn another_agents_refusal_is_passed_on_whole() {
        let first = Status::from(CallError::NoQuorum { waited_ms: 1 });
        let passed_on = Status::from(CallError::Remote(Box::new(first.clone())));
        assert_eq!(passed_on.code(), first.code());
        assert_eq!(passed_on.message(), first.message());
        assert_eq!(reason(&passed_on), Some(NO_QUORUM));
    }
}
