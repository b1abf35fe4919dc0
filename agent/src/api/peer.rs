//! What agents ask of each other.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use lvsmesh_core::command::{Candidate, Command, Outcome, Readiness};
use lvsmesh_core::failback::SAMPLE;
use lvsmesh_core::model::NodeId;
use lvsmesh_proto::internal::v1::peer_server::Peer;
use lvsmesh_proto::internal::v1::{self as wire, JoinRequest, JoinResponse, Verdict};
use tonic::{Request, Response, Status, Streaming};

use super::authority::Caller;
use super::context::{Context, Judgement};
use super::status::{CallError, chain};
use super::table::failed;
use super::versions;
use crate::belonging::OutcastKind;
use crate::failback;
use crate::writes::Errand;

/// The service.
#[derive(Clone, Debug)]
pub struct PeerService {
    context: Context,
}

impl PeerService {
    /// Answers for this node.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self { context }
    }

    async fn admit(&self, request: Request<JoinRequest>) -> Result<JoinResponse, CallError> {
        let caller = request.extensions().get::<Caller>().cloned();
        // Not repeatable: a second admission gives a second id, and the first one would be a voter that never comes.
        let errand = Errand::from_call(caller.as_ref(), request.metadata(), "", false);
        let message = request.into_inner();
        let candidate = Candidate::try_from(&message.candidate.clone().unwrap_or_default())
            .map_err(|error| CallError::Field { field: "candidate", reason: chain(&error) })?;
        match &caller {
            Some(Caller::Certified(peer)) if !errand.forwarded && peer.name != candidate.name => {
                return Err(CallError::Field {
                    field: "candidate.name",
                    reason: format!("`{}` is not the caller, who is {peer}", candidate.name),
                });
            }
            Some(Caller::Unverified) | None => tracing::warn!(
                name = candidate.name,
                "a machine joins without certificates: the lease key goes to it in clear"
            ),
            Some(Caller::Certified(_)) => {}
        }
        self.context
            .writes
            .at_leader(
                &errand,
                || self.admit_here(candidate.clone(), message.level),
                async |links, address| {
                    links
                        .peer(address)
                        .join(errand.request(message.clone()))
                        .await
                        .map(Response::into_inner)
                },
            )
            .await
    }

    /// Takes one batch of Raft's messages, if it is for this node, from whom it says, and that is a node of the fleet.
    async fn take(
        &self,
        caller: Option<&Caller>,
        batch: &wire::RaftBatch,
    ) -> Result<(), CallError> {
        let identity = &self.context.identity;
        if batch.fleet != identity.fleet {
            return Err(CallError::Field {
                field: "fleet",
                reason: format!("`{}` is not this fleet, `{}`", batch.fleet, identity.fleet),
            });
        }
        if batch.to != identity.id.0 {
            return Err(CallError::Field {
                field: "to",
                reason: format!("{} is not this node, {}", batch.to, identity.id),
            });
        }
        self.context.check_sender(caller, batch.from)?;
        let from = NodeId(batch.from);
        match self.context.judge(from, batch.incarnation, batch.epoch).await {
            Judgement::Member => {}
            Judgement::Outcast(outcast) | Judgement::Mine(outcast) => {
                return Err(CallError::NoMember(outcast));
            }
        }
        self.context
            .raft
            .deliver(NodeId(batch.from), &batch.messages)
            .map_err(|error| CallError::Field { field: "messages", reason: chain(&error) })
    }

    async fn admit_here(
        &self,
        candidate: Candidate,
        level: u32,
    ) -> Result<JoinResponse, CallError> {
        let name = candidate.name.clone();
        versions::knows_all(&self.context.raft.state.borrow().state, &name, level)?;
        let outcome = self.context.writes.propose(Command::Admit(candidate)).await?;
        let Outcome::Admitted { id } = outcome else { return Err(unexpected(&outcome)) };
        tracing::info!(%name, %id, "node admitted");
        let mut state = self.context.raft.state.clone();
        let applied = state
            .wait_for(|applied| applied.state.next_id() > id)
            .await
            .map_err(|_| CallError::Stopping)?
            .state
            .clone();
        let identity = &self.context.identity;
        Ok(JoinResponse {
            id: id.0,
            fleet: identity.fleet.clone(),
            lease_key: Some(wire::LeaseKey {
                id: identity.lease_key.id,
                key: identity.lease_key.secret.to_vec(),
            }),
            members: applied.members().map(Into::into).collect(),
            epoch: identity.epoch,
        })
    }
}

/// An outcome that the command cannot have.
pub(super) fn unexpected(outcome: &Outcome) -> CallError {
    CallError::Internal { doing: "read the outcome", reason: format!("{outcome:?}") }
}

/// More digests than a sample has come from no agent.
fn compared(request: &wire::CompareRequest) -> Result<BTreeSet<u64>, CallError> {
    let count = request.digests.len();
    if count > SAMPLE {
        let reason = format!("{count} are above the limit of {SAMPLE}");
        return Err(CallError::Field { field: "digests", reason });
    }
    Ok(request.digests.iter().copied().collect())
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn raft(
        &self,
        request: Request<Streaming<wire::RaftBatch>>,
    ) -> Result<Response<wire::RaftClosed>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let mut batches = request.into_inner().take_until(self.context.stopping());
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            self.take(caller.as_ref(), &batch).await?;
        }
        Ok(Response::new(wire::RaftClosed {}))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        Ok(Response::new(self.admit(request).await?))
    }

    async fn report(
        &self,
        request: Request<wire::ReportRequest>,
    ) -> Result<Response<wire::ReportResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let errand = Errand::from_call(caller.as_ref(), request.metadata(), "", true);
        let message = request.into_inner();
        let readiness = Readiness::from(message.readiness.clone().unwrap_or_default());
        if !errand.forwarded {
            self.context.check_sender(caller.as_ref(), readiness.node.0)?;
        }
        self.context
            .writes
            .at_leader(
                &errand,
                || async {
                    self.context.writes.propose(Command::Ready(readiness.clone())).await.map(drop)
                },
                async |links, address| {
                    links.peer(address).report(errand.request(message.clone())).await.map(drop)
                },
            )
            .await?;
        Ok(Response::new(wire::ReportResponse {}))
    }

    async fn self_(
        &self,
        _: Request<wire::SelfRequest>,
    ) -> Result<Response<wire::SelfResponse>, Status> {
        Ok(Response::new(self.context.own()))
    }

    async fn greet(
        &self,
        request: Request<wire::GreetRequest>,
    ) -> Result<Response<wire::GreetResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let wire::GreetRequest { fleet, id, incarnation, epoch } = request.into_inner();
        let own = &self.context.identity.fleet;
        if fleet != *own {
            let reason = format!("`{fleet}` is not this fleet, `{own}`");
            return Err(CallError::Field { field: "fleet", reason }.into());
        }
        self.context.check_sender(caller.as_ref(), id)?;
        let (verdict, reason) = match self.context.judge(NodeId(id), incarnation, epoch).await {
            Judgement::Member => (Verdict::Member, String::new()),
            Judgement::Mine(outcast) => (Verdict::Unspecified, outcast.reason),
            Judgement::Outcast(outcast) => {
                let verdict = match outcast.kind {
                    OutcastKind::Removed => Verdict::Removed,
                    OutcastKind::Copy => Verdict::Copy,
                    OutcastKind::Superseded => Verdict::Superseded,
                };
                (verdict, outcast.reason)
            }
        };
        Ok(Response::new(wire::GreetResponse { verdict: verdict.into(), reason }))
    }

    async fn announce(
        &self,
        _: Request<wire::AnnounceRequest>,
    ) -> Result<Response<wire::AnnounceResponse>, Status> {
        self.context.failback.announce();
        Ok(Response::new(wire::AnnounceResponse {}))
    }

    async fn compare(
        &self,
        request: Request<wire::CompareRequest>,
    ) -> Result<Response<wire::CompareResponse>, Status> {
        let digests = compared(request.get_ref())?;
        let doing = "compare the connections of IPVS";
        let answer = failback::compare(digests).await;
        Ok(Response::new(answer.map_err(|error| failed(&self.context, doing, error))?))
    }
}
