//! What the handlers of both services need, and what this node says of itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lvsmesh_core::document::level::LEVEL;
use lvsmesh_core::model::{Member, NodeId, Role};
use lvsmesh_core::plan::ServiceKey;
use lvsmesh_core::state::State;
use lvsmesh_proto::internal::v1::{HashedService, SelfRequest, SelfResponse};
use lvsmesh_proto::v1;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::authority::Caller;
use super::status::{CallError, one_line};
use crate::belonging::{self, Belonging, Outcast};
use crate::failback::FailbackHandle;
use crate::identity::Identity;
use crate::lease::{LeaseHandle, Tenure, Unleased};
use crate::links::Links;
use crate::owned::OwnerRecord;
use crate::raft::{RaftHandle, RaftStatus};
use crate::reconcile::NodeReport;
use crate::roster::{Roster, Standing};
use crate::writes::{Pace, Writes};

/// What the handlers need. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    /// Who this node is.
    pub identity: Arc<Identity>,
    /// The way into Raft, and what it publishes.
    pub raft: RaftHandle,
    /// The lease thread.
    pub lease: LeaseHandle,
    /// The reconciler's last report.
    pub report: watch::Receiver<NodeReport>,
    /// Channels to other agents.
    pub links: Links,
    /// The way to the leader.
    pub writes: Writes,
    /// How long others are waited for.
    pub pace: Pace,
    /// Which run of this agent this is; drawn at random, never 0.
    pub incarnation: u64,
    /// Which runs of other agents speak for their nodes.
    pub roster: Roster,
    /// Whether this machine is a node of the fleet.
    pub belonging: Belonging,
    /// What the move back of the VIPs waits for, and the way to hold it up.
    pub failback: FailbackHandle,
    /// Where `agent.toml` differs from what the fleet was told, as of the start; one line each.
    pub differences: Arc<[String]>,
    /// What this agent put into its kernel.
    pub owned: OwnerRecord,
    /// Turns true when the agent stops.
    pub shutdown: watch::Receiver<bool>,
}

/// Whether somebody who speaks as a node is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// As far as this node knows.
    Member,
    /// It is not.
    Outcast(Outcast),
    /// It is this node that is none: the other is of a later epoch, or this machine was found to be none before.
    Mine(Outcast),
}

/// What was heard of each member: its own words, or why there are none.
pub type Answers = BTreeMap<NodeId, Result<SelfResponse, String>>;

impl Context {
    /// Whether the state that is read between this call and that of its result is what the fleet has decided: this node leads and has applied an
    /// entry of its own term, and its lease still runs, so that nobody else was elected and nobody else has confirmed anything.
    pub fn vouch(&self) -> impl Fn() -> bool + '_ {
        let settled = {
            let status = self.raft.status.borrow();
            status.leading && status.settled
        };
        move || settled && !self.lease.remaining().is_zero()
    }

    /// What this node says of itself.
    #[must_use]
    pub fn own(&self) -> SelfResponse {
        let applied = self.raft.state.borrow().state.clone();
        let status = self.raft.status.borrow().clone();
        let report = self.report.borrow().clone();
        let tenure = *self.lease.tenure.borrow();
        let (holding, epoch) = match tenure {
            Tenure::None => (false, 0),
            Tenure::Preparing { epoch } => (false, epoch),
            Tenure::Holding { epoch } => (true, epoch),
        };
        let outlook = self.lease.outlook.borrow().clone();
        let unleased = outlook.unleased.filter(|_| holding);
        let member = applied.member(self.identity.id);
        let node = v1::NodeStatus {
            reachable: true,
            revision: applied.revision(),
            converged: report.converged && report.revision == applied.revision(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            warnings: [
                failed_log(&status),
                report.warnings,
                self.copies(&applied),
                self.differences.to_vec(),
            ]
            .concat(),
            foreign: report.foreign.iter().map(listing).collect(),
            drift_repaired: report.drift_repaired,
            last_drift: report.last_drift,
            operations: report.operations,
            ..node_status(self.identity.id, &self.identity.name, member, &status)
        };
        SelfResponse {
            status: Some(node),
            holding,
            epoch,
            unleased: unleased.map(Unleased::name).unwrap_or_default().to_owned(),
            lease_remaining_ms: if holding { self.lease_remaining_ms() } else { 0 },
            promise_ms: millis(self.lease.counters.promise.get()),
            gated: outlook.gated.into_iter().collect(),
            ungated_reason: outlook.gate_faults.into_iter().collect::<Vec<_>>().join("; "),
            vips_attached: report.vips_attached.iter().map(ToString::to_string).collect(),
            hashed: report
                .hashed
                .iter()
                .map(|(service, &digest)| HashedService { service: service.to_string(), digest })
                .collect(),
            raft_term: status.term,
            raft_leader: status.leader.map_or(0, |id| id.0),
            eligible: report.ineligible.is_none() && status.fault.is_none(),
            ineligible_reason: status.fault.or(report.ineligible).unwrap_or_default(),
            commit: status.commit,
            applied: status.applied,
            incarnation: self.incarnation,
            failback: self.failback.shown(),
            level: LEVEL,
        }
    }

    /// One line for each node that a second machine claims to be.
    fn copies(&self, state: &State) -> Vec<String> {
        let copied = self.roster.copied(Instant::now());
        let line = |(id, original): (NodeId, SocketAddr)| {
            let name =
                state.member(id).map_or_else(|| id.to_string(), |member| member.name.clone());
            format!(
                "a machine with a copy of the disk of node {name} is refused; the node itself runs at {original}"
            )
        };
        copied.into_iter().map(line).collect()
    }

    /// Whether the caller is the node that it says it is, and one of the fleet. Asks at that node's own address if this run of its agent is new.
    pub(super) async fn judge(&self, id: NodeId, incarnation: u64, epoch: u64) -> Judgement {
        let identity = &self.identity;
        if epoch > identity.epoch {
            let outcast = Outcast::superseded(identity.id, &identity.fleet, identity.epoch, epoch);
            self.belonging.cast_out(&outcast);
        }
        if let Some(outcast) = self.belonging.outcast() {
            return Judgement::Mine(outcast);
        }
        if epoch < identity.epoch {
            let outcast = Outcast::superseded(id, &identity.fleet, epoch, identity.epoch);
            return Judgement::Outcast(outcast);
        }
        let state = self.raft.state.borrow().state.clone();
        if belonging::is_gone(&state, &self.raft.status.borrow(), id) {
            return Judgement::Outcast(Outcast::removed(id, &identity.fleet));
        }
        // An older version does not say which run it is; a node that is not known yet has no address to ask at.
        let Some(member) = state.member(id).filter(|_| incarnation != 0) else {
            return Judgement::Member;
        };
        let standing = match self.roster.standing(id, incarnation, Instant::now()) {
            Some(standing) => standing,
            None => {
                let standing = self.look_up(member, incarnation).await;
                self.roster.note(id, incarnation, standing, Instant::now());
                standing
            }
        };
        match standing {
            Standing::Original | Standing::Unknown => Judgement::Member,
            Standing::Copy(original) => Judgement::Outcast(Outcast::copy(id, original)),
        }
    }

    async fn look_up(&self, member: &Member, incarnation: u64) -> Standing {
        let found = if member.id == self.identity.id {
            Some(self.incarnation)
        } else {
            belonging::whoever_answers(&self.links, member, self.pace.answer).await
        };
        match found {
            Some(found) if found == incarnation => Standing::Original,
            Some(_) => {
                tracing::warn!(node = member.name, original = %member.grpc, "a machine with a copy of a node's disk is refused");
                Standing::Copy(member.grpc)
            }
            None => Standing::Unknown,
        }
    }

    fn lease_remaining_ms(&self) -> u64 {
        millis(self.lease.remaining())
    }

    /// Ends when the agent stops; for streams that would otherwise keep the server from stopping.
    pub(super) fn stopping(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut shutdown = self.shutdown.clone();
        Box::pin(async move {
            // An error says that nobody can ask us to stop any more, which asks us to stop.
            drop(shutdown.wait_for(|stop| *stop).await);
        })
    }

    /// Refuses what a node says in another node's name.
    pub(super) fn check_sender(&self, caller: Option<&Caller>, id: u64) -> Result<(), CallError> {
        let Some(Caller::Certified(peer)) = caller else { return Ok(()) };
        // One that this node does not know yet may have been admitted by entries that only its messages bring.
        match self.raft.state.borrow().state.member(NodeId(id)) {
            Some(member) if member.name != peer.name => Err(CallError::Field {
                field: "from",
                reason: format!("node {id} is `{}`, not {peer}", member.name),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Asks every member how it is, all at once; this node answers by itself.
    pub async fn answers(&self) -> Answers {
        let members = self.raft.state.borrow().state.members().cloned().collect::<Vec<_>>();
        let mut tasks = JoinSet::new();
        let mut answers = Answers::new();
        for member in members {
            if member.id == self.identity.id {
                answers.insert(member.id, Ok(self.own()));
                continue;
            }
            let context = self.clone();
            tasks.spawn(async move { (member.id, context.ask(&member).await) });
        }
        while let Some(answer) = tasks.join_next().await {
            match answer {
                Ok((id, answer)) => {
                    answers.insert(id, answer);
                }
                Err(error) => tracing::error!(%error, "asking a node for its status panicked"),
            }
        }
        answers
    }

    /// Who holds the VIPs, in its own words.
    pub(super) async fn holder(&self) -> Option<NodeId> {
        let answers = self.answers().await;
        answers
            .into_iter()
            .find_map(|(id, answer)| answer.is_ok_and(|said| said.holding).then_some(id))
    }

    /// Asks one member how it is.
    ///
    /// # Errors
    ///
    /// If it does not answer in time, in one line.
    pub async fn ask(&self, member: &Member) -> Result<SelfResponse, String> {
        if member.id == self.identity.id {
            return Ok(self.own());
        }
        let mut peer = self.links.peer(member.grpc);
        match tokio::time::timeout(self.pace.answer, peer.self_(SelfRequest {})).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(one_line(&status)),
            Err(_) => Err(format!("no answer within {} ms", self.pace.answer.as_millis())),
        }
    }
}

/// What is known of a member without asking it.
pub(super) fn node_status(
    id: NodeId,
    name: &str,
    member: Option<&Member>,
    status: &RaftStatus,
) -> v1::NodeStatus {
    let roles = member.map(|member| {
        member.roles.iter().map(|role| match role {
            Role::Director => "director".to_owned(),
            Role::RealServer => "realserver".to_owned(),
        })
    });
    let raft = match member {
        Some(member) if status.voters.contains(&id) && member.is_director() => "voter",
        Some(_) if status.voters.contains(&id) => "witness",
        Some(_) | None => "learner",
    };
    v1::NodeStatus {
        id: id.0,
        name: name.to_owned(),
        roles: roles.into_iter().flatten().collect(),
        raft: raft.to_owned(),
        addresses: member
            .iter()
            .flat_map(|member| &member.addresses)
            .map(ToString::to_string)
            .collect(),
        ..v1::NodeStatus::default()
    }
}

/// That this node takes no part, if so.
fn failed_log(status: &RaftStatus) -> Vec<String> {
    let line = |fault: &String| {
        format!(
            "its log failed, so that it neither votes nor acknowledges; check the disk and start the agent again: {fault}"
        )
    };
    status.fault.iter().map(line).collect()
}

/// `tcp 192.0.2.9:25`, as an operator would name a service.
pub(super) fn listing(key: &ServiceKey) -> String {
    match key {
        ServiceKey::Address { protocol, address, port } => {
            let protocol = format!("{protocol:?}").to_lowercase();
            format!("{protocol} {}", SocketAddr::new(*address, *port))
        }
        ServiceKey::Mark { ipv6: false, mark } => format!("fwmark {mark}"),
        ServiceKey::Mark { ipv6: true, mark } => format!("fwmark {mark} ipv6"),
    }
}

fn millis(span: Duration) -> u64 {
    span.as_millis().try_into().unwrap_or(u64::MAX)
}
