//! Writes reach the leader by themselves, whichever agent is asked.
//!
//! *In*: a write, as a proposal to this node's Raft and as the same call to another agent. *Out*: its answer; or why there is none, told apart
//! by what the caller may conclude: nothing happened, or nobody knows.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use lvsmesh_core::command::{Command, Outcome};
use lvsmesh_core::lease::Timing;
use lvsmesh_core::model::NodeId;
use tokio::time::Instant;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, ConnectError, Request, Status};

use crate::api::authority::Caller;
use crate::api::status::{self, CallError};
use crate::belonging::Belonging;
use crate::links::Links;
use crate::raft::{ProposeError, RaftHandle};
use crate::telemetry::propagate;

/// A call without a deadline of its own gets this one.
const PATIENCE: Duration = Duration::from_secs(15);
/// Taken off the caller's deadline, so that our answer arrives before the caller gives up.
const MARGIN: Duration = Duration::from_millis(200);
/// A leader that cannot be reached, or says that it does not lead, is asked again after this, unless Raft's view changes first.
const RETRY: Duration = Duration::from_millis(100);

/// What a proposal says that outlives its caller.
const TIMED_OUT: ProposeError = ProposeError::TimedOut { after: PATIENCE };

/// Says that an agent passes a call on; it is then answered here or not at all, so that no call goes round in circles.
const FORWARDED: &str = "lvsmesh-forwarded";
/// On whose behalf, UTF-8.
const AUTHOR: &str = "lvsmesh-author-bin";

/// How long other nodes are waited for. Derived from the lease's timing, which says how slow the machines and the network are.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long a leader is looked for: several elections, but not so long that nobody would wait for the answer "no quorum".
    pub leader: Duration,
    /// How long a node may take to say how it is. Everybody who asks for the status waits for the slowest.
    pub answer: Duration,
    /// Between two changes of who votes: two beats, so that the lease is renewed under the one before the next. Across two changes without a
    /// renewal between them no lease stands.
    pub settle: Duration,
}

impl From<&Timing> for Pace {
    fn from(timing: &Timing) -> Self {
        let span = timing.longest();
        Self {
            leader: Duration::from_secs(4) + span.promise * 3,
            answer: Duration::from_secs(1).max(span.promise * 2),
            settle: span.beat * 2,
        }
    }
}

/// The way to the leader.
#[derive(Clone, Debug)]
pub struct Writes {
    raft: RaftHandle,
    links: Links,
    pace: Pace,
    belonging: Belonging,
}

/// What must be known about a call before it can be made at the leader.
#[derive(Clone, Debug)]
pub struct Errand {
    /// On whose behalf.
    pub author: String,
    /// Another agent passed it on.
    pub forwarded: bool,
    /// Doing it twice does no harm: after a broken connection it is tried again rather than reported as unconfirmed.
    pub repeatable: bool,
    /// When the caller gives up.
    pub deadline: Instant,
}

impl Errand {
    /// Reads it from a call. `unverified` is what the client says of itself, which counts only without certificates.
    #[must_use]
    pub fn from_call(
        caller: Option<&Caller>,
        metadata: &MetadataMap,
        unverified: &str,
        repeatable: bool,
    ) -> Self {
        let passed_on = metadata
            .get_bin(AUTHOR)
            .and_then(|value| value.to_bytes().ok())
            .and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
            .filter(|_| caller.is_none_or(Caller::speaks_for_others));
        let author = passed_on.unwrap_or_else(|| match caller {
            Some(Caller::Certified(peer)) => peer.to_string(),
            Some(Caller::Unverified) | None if unverified.is_empty() => {
                "unknown (unverified)".to_owned()
            }
            Some(Caller::Unverified) | None => format!("{unverified} (unverified)"),
        });
        Self {
            author,
            forwarded: metadata.contains_key(FORWARDED),
            repeatable,
            deadline: Instant::now() + patience(metadata),
        }
    }

    /// A write of this node's own.
    #[must_use]
    pub fn own(node: &str) -> Self {
        Self {
            author: format!("node/{node}"),
            forwarded: false,
            repeatable: true,
            deadline: Instant::now() + PATIENCE,
        }
    }

    /// The request as it goes to the leader: with its author, its trace, and what is left of its deadline.
    #[must_use]
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline.saturating_duration_since(Instant::now()));
        let metadata = request.metadata_mut();
        metadata.insert(FORWARDED, MetadataValue::from_static("1"));
        metadata.insert_bin(AUTHOR, MetadataValue::from_bytes(self.author.as_bytes()));
        propagate::inject(metadata);
        request
    }
}

/// How long the caller waits: gRPC's own header (gRPC over HTTP/2, "Timeout"), less a margin.
fn patience(metadata: &MetadataMap) -> Duration {
    let given = metadata.get("grpc-timeout").and_then(|value| timeout(value.to_str().ok()?));
    given.map_or(PATIENCE, |given| given.saturating_sub(MARGIN).max(given / 2))
}

fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count = digits.parse::<u64>().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count.checked_mul(3600)?)),
        "M" => Some(Duration::from_secs(count.checked_mul(60)?)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

impl Writes {
    /// Writes go to this node's Raft, or over these links.
    #[must_use]
    pub fn new(raft: RaftHandle, links: Links, pace: Pace, belonging: Belonging) -> Self {
        Self { raft, links, pace, belonging }
    }

    /// Runs `local` if this node leads a majority, else `remote` at the node that leads, and tries again while there is none, or the one we know
    /// of cannot be reached or no longer leads.
    ///
    /// # Errors
    ///
    /// [`CallError::NoMember`] if this machine is no node of the fleet; [`CallError::NoQuorum`] if no leader was found in time; [`CallError::NotLeader`] if the call was passed on to us by mistake;
    /// [`CallError::Unconfirmed`] if the connection broke after the leader may have begun; else what `local` or `remote` says.
    pub async fn at_leader<T, L, R>(
        &self,
        errand: &Errand,
        local: impl Fn() -> L,
        remote: impl Fn(Links, SocketAddr) -> R,
    ) -> Result<T, CallError>
    where
        L: Future<Output = Result<T, CallError>>,
        R: Future<Output = Result<T, Status>>,
    {
        let started = Instant::now();
        let until = errand.deadline.min(started + self.pace.leader);
        let mut view = self.raft.status.clone();
        // An earlier attempt may have been made.
        let mut unconfirmed = false;
        let end = |error, unconfirmed| match unconfirmed {
            true => CallError::Unconfirmed { quorum: true },
            false => error,
        };
        loop {
            if let Some(outcast) = self.belonging.outcast() {
                return Err(end(CallError::NoMember(outcast), unconfirmed));
            }
            let (leader, leading, backed) = {
                let view = view.borrow_and_update();
                if let Some(fault) = &view.fault {
                    return Err(end(CallError::NoLog { fault: fault.clone() }, unconfirmed));
                }
                (view.leader, view.leading, view.backed)
            };
            let answer = if leading && !backed {
                // Nothing is proposed that nobody would confirm: then it is certain that nothing happened.
                Err(CallError::NotLeader)
            } else if leading {
                let answer = tokio::time::timeout_at(errand.deadline, local()).await;
                answer.unwrap_or_else(|_| Err(self.unanswered(TIMED_OUT)))
            } else if errand.forwarded {
                return Err(CallError::NotLeader);
            } else if let Some(address) = leader.and_then(|id| self.address(id)) {
                tokio::time::timeout_at(errand.deadline, remote(self.links.clone(), address))
                    .await
                    .unwrap_or_else(|_| Err(Status::cancelled("")))
                    .map_err(refusal)
            } else {
                Err(CallError::NotLeader)
            };
            match answer {
                Err(CallError::NotLeader) if !errand.forwarded => {}
                // Of a call that was passed on, whoever did so tries again, and says in the end how it is.
                Err(CallError::Unconfirmed { quorum: true })
                    if errand.repeatable && !errand.forwarded =>
                {
                    unconfirmed = true;
                }
                Ok(_) | Err(_) => return answer,
            }
            let wait = tokio::time::timeout_at(until.min(Instant::now() + RETRY), view.changed());
            if matches!(wait.await, Ok(Err(_))) {
                return Err(end(CallError::Stopping, unconfirmed));
            }
            if Instant::now() >= until {
                let waited_ms = started.elapsed().as_millis();
                return Err(end(CallError::NoQuorum { waited_ms }, unconfirmed));
            }
        }
    }

    /// Proposes a command to this node's Raft, which must lead.
    ///
    /// # Errors
    ///
    /// If it does not lead, ceased to before the command was committed, or every node rejected the command.
    pub async fn propose(&self, command: Command) -> Result<Outcome, CallError> {
        match self.raft.propose(command).await {
            Ok(Outcome::Rejected(rejection)) => Err(CallError::Rejected(rejection)),
            Ok(outcome) => Ok(outcome),
            Err(error) => Err(self.unanswered(error)),
        }
    }

    fn unanswered(&self, error: ProposeError) -> CallError {
        match error {
            // Nothing happened: it is tried again.
            ProposeError::NotLeader { .. } | ProposeError::Busy | ProposeError::Configuration => {
                CallError::NotLeader
            }
            ProposeError::Lost => CallError::Unconfirmed { quorum: true },
            ProposeError::TimedOut { .. } => {
                let status = self.raft.status.borrow();
                CallError::Unconfirmed { quorum: status.settled && status.backed }
            }
            // The next look at the status says why.
            ProposeError::Disk => CallError::Unconfirmed { quorum: true },
            // Raft's thread is gone, and may have passed it on.
            ProposeError::Stopped => CallError::Unconfirmed { quorum: true },
        }
    }

    fn address(&self, id: NodeId) -> Option<SocketAddr> {
        self.raft.state.borrow().state.member(id).map(|member| member.grpc)
    }
}

/// What another agent's answer means for the caller.
fn refusal(status: Status) -> CallError {
    // It leads no more, or takes no part any more: it has done nothing, and somebody else leads or soon will.
    let elsewhere = matches!(
        status::reason(&status),
        Some(status::NOT_LEADER | status::NO_MEMBER | status::NO_LOG)
    );
    if elsewhere || is_unconnected(&status) {
        return CallError::NotLeader;
    }
    if status::reason(&status) == Some(status::UNCONFIRMED_YET) {
        return CallError::Unconfirmed { quorum: true };
    }
    // An agent's own refusal carries a hint or a reason; what the transport makes up does not, and says nothing about the request.
    let made_up =
        status.metadata().get_bin(status::HINT).is_none() && status::reason(&status).is_none();
    match status.code() {
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded if made_up => {
            CallError::Unconfirmed { quorum: true }
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => CallError::Remote(Box::new(status)),
    }
}

/// The request never left this machine.
fn is_unconnected(status: &Status) -> bool {
    let first = std::error::Error::source(status);
    std::iter::successors(first, |error| error.source()).any(|error| error.is::<ConnectError>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::belonging::Outcast;
    use crate::tls::{Peer, PeerKind};

    fn certified(kind: PeerKind) -> Caller {
        Caller::Certified(Peer { fleet: "web".into(), kind, name: "ada".into() })
    }

    #[test]
    fn only_those_who_pass_calls_on_may_name_another_author() {
        let mut passed_on = MetadataMap::new();
        passed_on.insert_bin(AUTHOR, MetadataValue::from_bytes("operator/eve".as_bytes()));
        let direct = MetadataMap::new();
        let (operator, node) = (certified(PeerKind::Operator), certified(PeerKind::Node));

        #[rustfmt::skip]
        let cases = [
            // caller               metadata    says of itself  author
            (&operator,             &direct,    "root@x",       "operator/ada"),
            (&operator,             &passed_on, "root@x",       "operator/ada"),
            (&node,                 &direct,    "",             "node/ada"),
            (&node,                 &passed_on, "",             "operator/eve"),
            (&Caller::Unverified,   &direct,    "root@x",       "root@x (unverified)"),
            (&Caller::Unverified,   &direct,    "",             "unknown (unverified)"),
            (&Caller::Unverified,   &passed_on, "root@x",       "operator/eve"),
        ];
        for (caller, metadata, unverified, author) in cases {
            let errand = Errand::from_call(Some(caller), metadata, unverified, false);
            assert_eq!(errand.author, author, "{caller:?}");
        }
    }

    #[test]
    fn the_callers_deadline_is_kept_with_a_margin() {
        #[rustfmt::skip]
        let cases = [
            // header       patience in ms
            (None,          15_000),
            (Some("10S"),    9_800),
            (Some("5000m"),  4_800),
            (Some("1M"),    59_800),
            // A margin of its own size would leave nothing.
            (Some("100m"),      50),
            (Some("S"),     15_000),
            (Some("soon"),  15_000),
        ];
        for (header, expected) in cases {
            let mut metadata = MetadataMap::new();
            if let Some(header) = header {
                metadata.insert("grpc-timeout", header.parse().unwrap());
            }
            assert_eq!(patience(&metadata), Duration::from_millis(expected), "{header:?}");
        }
    }

    #[test]
    fn what_may_have_been_done_is_done_twice_only_if_that_does_no_harm() {
        let broken = || Status::unavailable("connection closed");
        assert!(matches!(refusal(broken()), CallError::Unconfirmed { quorum: true }));
        let unconfirmed = CallError::Unconfirmed { quorum: true };
        assert!(matches!(refusal(unconfirmed.into()), CallError::Unconfirmed { quorum: true }));

        let unconnected =
            || Status::from_error(Box::new(ConnectError(Box::from("connection refused"))));
        assert!(matches!(refusal(unconnected()), CallError::NotLeader));
        assert!(matches!(refusal(CallError::NotLeader.into()), CallError::NotLeader));

        for gone in [
            CallError::NoMember(Outcast::removed(NodeId(1), "web")),
            CallError::NoLog { fault: "disk full".into() },
        ] {
            assert!(matches!(refusal(gone.into()), CallError::NotLeader));
        }

        let said = Status::from(CallError::UnknownNode { name: "x".into() });
        let CallError::Remote(status) = refusal(said) else { panic!("it is the leader's word") };
        assert_eq!(status.code(), Code::NotFound);
    }
}
