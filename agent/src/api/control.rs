//! What operators ask.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{Stream, StreamExt, stream};
use lvsmesh_core::command::{Apply, Command, Outcome};
use lvsmesh_core::document;
use lvsmesh_core::model::{Document, NodeId};
use lvsmesh_core::state::{self, State};
use lvsmesh_proto::convert::Refused;
use lvsmesh_proto::v1::control_server::Control;
use lvsmesh_proto::v1::{self, StatusRequest, StatusResponse};
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::{Request, Response, Status};

use super::authority::Caller;
use super::context::Context;
use super::overview::{cast_out, overview};
use super::peer::unexpected;
use super::status::CallError;
use super::{backup, ipvs, table, versions};
use crate::handover::{self, Wish};
use crate::raft::RaftStatus;
use crate::writes::Errand;

/// A revision's message, in bytes.
const LONGEST_MESSAGE: usize = 1000;
/// A read that finds no leader in this time is answered from what this node has applied.
const READ_PATIENCE: Duration = Duration::from_secs(2);

/// How long a leader waits to hear from those without whom a removal would leave no majority.
const HEARING: Duration = Duration::from_secs(2);

/// How long one that is to be removed itself tries to hand over.
const HANDOVER: Duration = Duration::from_secs(4);
/// Between two looks at the fleet for one watcher.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// The service.
#[derive(Clone, Debug)]
pub struct ControlService {
    context: Context,
}

impl ControlService {
    /// Answers for this node, and for the fleet through it.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self { context }
    }

    async fn replace(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<v1::ApplyResponse, CallError> {
        let caller = request.extensions().get::<Caller>().cloned();
        let unverified = request.get_ref().unverified_author.clone();
        // Made against a known revision, a repeated change is recognised or refused. Without one it could undo what came in between.
        let repeatable = request.get_ref().expected_revision.is_some();
        let errand =
            Errand::from_call(caller.as_ref(), request.metadata(), &unverified, repeatable);
        let message = request.into_inner();
        if message.message.len() > LONGEST_MESSAGE {
            return Err(CallError::Field {
                field: "message",
                reason: format!(
                    "{} bytes are above the limit of {LONGEST_MESSAGE}",
                    message.message.len()
                ),
            });
        }
        let document = Document::try_from(message.document.clone().unwrap_or_default())
            .map_err(|Refused(faults)| CallError::Document(v1::Faults::from(&*faults)))?;
        self.context
            .writes
            .at_leader(
                &errand,
                || self.replace_here(document.clone(), &message, &errand.author),
                async |links, address| {
                    links
                        .control(address)
                        .apply(errand.request(message.clone()))
                        .await
                        .map(Response::into_inner)
                },
            )
            .await
    }

    async fn replace_here(
        &self,
        document: Document,
        request: &v1::ApplyRequest,
        author: &str,
    ) -> Result<v1::ApplyResponse, CallError> {
        let apply = Apply {
            document,
            expected_revision: request.expected_revision,
            author: author.to_owned(),
            message: request.message.clone(),
            unix_ms: unix_ms(),
        };
        versions::all_know(&self.context, &apply.document).await?;
        let warnings = document::advice(&apply.document);
        if request.dry_run {
            return rehearse(&self.context.applied(), apply)
                .map(|answer| v1::ApplyResponse { warnings, ..answer });
        }
        match self.context.writes.propose(Command::Apply(apply)).await? {
            Outcome::Applied { revision } => {
                let mut state = self.context.raft.state.clone();
                let applied = state
                    .wait_for(|applied| applied.state.revision() >= revision)
                    .await
                    .map_err(|_| CallError::Stopping)?
                    .state
                    .clone();
                let changes = applied.at(revision).map(|made| made.summary.changes.clone());
                tracing::info!(revision, author, "desired state replaced");
                Ok(v1::ApplyResponse {
                    revision,
                    unchanged: false,
                    changes: changes.unwrap_or_default(),
                    warnings,
                })
            }
            Outcome::Unchanged { revision } => {
                Ok(v1::ApplyResponse { revision, unchanged: true, changes: Vec::new(), warnings })
            }
            outcome @ (Outcome::Admitted { .. }
            | Outcome::Removed { .. }
            | Outcome::Noted
            | Outcome::Rejected(_)) => Err(unexpected(&outcome)),
        }
    }

    /// Asks the leader, if one is found soon that can vouch for its state; else answers from this node's own. The flag says which.
    async fn read<T, R>(
        &self,
        caller: Option<&Caller>,
        metadata: &tonic::metadata::MetadataMap,
        here: impl Fn(&State) -> Result<T, CallError>,
        there: impl Fn(crate::links::Links, std::net::SocketAddr, Errand) -> R,
    ) -> Result<(T, bool), CallError>
    where
        R: Future<Output = Result<T, Status>>,
    {
        let mut errand = Errand::from_call(caller, metadata, "", true);
        errand.deadline = errand.deadline.min(Instant::now() + READ_PATIENCE);
        let answer = self
            .context
            .writes
            .at_leader(
                &errand,
                || async {
                    let vouch = self.context.vouch();
                    let answer = here(&self.context.applied())?;
                    // After the state was read: whoever loses the lease meanwhile may have read too old a one.
                    if vouch() { Ok(answer) } else { Err(CallError::NotLeader) }
                },
                |links, address| there(links, address, errand.clone()),
            )
            .await;
        match answer {
            Err(CallError::NoQuorum { .. } | CallError::Unconfirmed { .. }) => {
                here(&self.context.applied()).map(|answer| (answer, true))
            }
            other => other.map(|answer| (answer, false)),
        }
    }

    async fn move_to(
        &self,
        request: Request<v1::FailoverRequest>,
    ) -> Result<v1::FailoverResponse, CallError> {
        let caller = request.extensions().get::<Caller>().cloned();
        let errand = Errand::from_call(caller.as_ref(), request.metadata(), "", false);
        let message = request.into_inner();
        self.context
            .writes
            .at_leader(
                &errand,
                || async {
                    tracing::info!(to = message.to, author = errand.author, "failover asked for");
                    let moved =
                        handover::to(&self.context, &message.to, errand.deadline, Wish::Operator)
                            .await?;
                    Ok(v1::FailoverResponse { from: moved.from, to: moved.to, epoch: moved.epoch })
                },
                async |links, address| {
                    links
                        .control(address)
                        .failover(errand.request(message.clone()))
                        .await
                        .map(Response::into_inner)
                },
            )
            .await
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<v1::RemoveNodeResponse, CallError> {
        let caller = request.extensions().get::<Caller>().cloned();
        let errand = Errand::from_call(caller.as_ref(), request.metadata(), "", false);
        let message = request.into_inner();
        let name = message.name.clone();
        self.context
            .writes
            .at_leader(
                &errand,
                || async {
                    self.before_removal(&name, errand.deadline).await?;
                    let command = Command::Remove { name: name.clone() };
                    let outcome = self.context.writes.propose(command).await?;
                    let Outcome::Removed { id } = outcome else {
                        return Err(unexpected(&outcome));
                    };
                    tracing::info!(%name, %id, author = errand.author, "node removed");
                    self.forgotten(id, errand.deadline).await?;
                    Ok(v1::RemoveNodeResponse { id: id.0 })
                },
                async |links, address| {
                    links
                        .control(address)
                        .remove_node(errand.request(message.clone()))
                        .await
                        .map(Response::into_inner)
                },
            )
            .await
    }

    /// Refuses to take out a voter without which the others could decide nothing. A leader does not remove itself: it leads no more when this returns, and its
    /// successor, which sees the removal through, is asked instead.
    async fn before_removal(&self, name: &str, deadline: Instant) -> Result<(), CallError> {
        let state = self.context.applied();
        let Some(member) = state.member_by_name(name) else { return Ok(()) };
        let mut changes = self.context.raft.status.clone();
        // Who leads only just has not heard from everybody yet.
        let spared = changes.wait_for(|status| !status.leading || can_spare(status, member.id));
        let spared = timeout_at(deadline.min(Instant::now() + HEARING), spared).await.is_ok();
        let status = self.context.raft.status.borrow().clone();
        if !status.leading {
            return Err(CallError::NotLeader);
        }
        if !spared {
            let silent = status.voters.difference(&status.heard);
            let silent = silent.filter(|id| **id != member.id);
            let names = silent
                .map(|id| state.member(*id).map_or_else(|| id.to_string(), |m| m.name.clone()));
            return Err(CallError::Needed {
                name: name.to_owned(),
                silent: names.collect::<Vec<_>>().join(", "),
            });
        }
        if status.voters.len() < 2 || member.id != status.id {
            return Ok(());
        }
        handover::before_stop(&self.context, deadline.min(Instant::now() + HANDOVER)).await;
        Err(CallError::NotLeader)
    }

    /// Waits until Raft's configuration no longer has that node.
    async fn forgotten(&self, id: NodeId, deadline: Instant) -> Result<(), CallError> {
        let mut status = self.context.raft.status.clone();
        let gone = status
            .wait_for(|status| !status.voters.contains(&id) && !status.learners.contains(&id));
        match timeout_at(deadline, gone).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(CallError::Stopping),
            Err(_) => Err(CallError::Unconfirmed { quorum: true }),
        }
    }

    /// What a call to one node needs besides its message.
    fn errand<T>(request: &Request<T>, repeatable: bool) -> Errand {
        let caller = request.extensions().get::<Caller>();
        Errand::from_call(caller, request.metadata(), "", repeatable)
    }

    async fn overview(&self) -> StatusResponse {
        let answers = self.context.answers().await;
        let raft = self.context.raft.status.borrow().clone();
        let context = &self.context;
        let mut status = overview(&context.applied(), &raft, &answers, &context.identity.name);
        if let Some(outcast) = context.belonging.outcast() {
            cast_out(&mut status, &context.identity, &outcast);
        }
        status
    }
}

impl Context {
    fn applied(&self) -> Arc<State> {
        Arc::clone(&self.raft.state.borrow().state)
    }
}

/// What applying would do, without doing it: on a copy of the state.
fn rehearse(state: &State, apply: Apply) -> Result<v1::ApplyResponse, CallError> {
    let changes = state::changes(state.document(), &apply.document);
    let mut copy = state.clone();
    match copy.apply(state.applied() + 1, Command::Apply(apply)) {
        Outcome::Applied { .. } => {
            Ok(v1::ApplyResponse { revision: state.revision(), changes, ..Default::default() })
        }
        Outcome::Unchanged { revision } => {
            Ok(v1::ApplyResponse { revision, unchanged: true, ..Default::default() })
        }
        Outcome::Rejected(rejection) => Err(CallError::Rejected(rejection)),
        other @ (Outcome::Admitted { .. } | Outcome::Removed { .. } | Outcome::Noted) => {
            Err(unexpected(&other))
        }
    }
}

/// Whether the fleet can decide something without that node: it has no vote, or a majority of the other voters is heard from. The last voter is for the state
/// machine to refuse.
fn can_spare(status: &RaftStatus, id: NodeId) -> bool {
    let has_a_say = status.voters.len() > 1 && status.voters.contains(&id);
    !has_a_say || status.configuration().can_spare(id)
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn get(state: &State, revision: u64) -> Result<v1::GetResponse, CallError> {
    let current = state.revision();
    let wanted = if revision == 0 { current } else { revision };
    let document = if wanted == current {
        Arc::clone(state.document())
    } else {
        let kept = state.at(wanted).ok_or_else(|| CallError::UnknownRevision {
            revision,
            current,
            oldest: state.history().next().map_or(0, |oldest| oldest.summary.revision),
        })?;
        Arc::clone(&kept.document)
    };
    Ok(v1::GetResponse { revision: wanted, document: Some((&*document).into()), stale: false })
}

fn history(state: &State, limit: u32) -> v1::HistoryResponse {
    let limit = if limit == 0 { usize::MAX } else { usize::try_from(limit).unwrap_or(usize::MAX) };
    let revisions = state.history().rev().take(limit).map(|kept| (&kept.summary).into()).collect();
    v1::HistoryResponse { revisions, stale: false }
}

/// One who watches. Looks only while somebody reads, so a slow reader gets fewer, newer pictures.
struct Watcher {
    service: ControlService,
    told: Option<StatusResponse>,
    next: Instant,
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<StatusResponse, Status>, Self)> {
        loop {
            sleep_until(self.next).await;
            self.next = Instant::now() + WATCH_INTERVAL;
            let status = self.service.overview().await;
            let telling = telling(&status);
            if self.told.as_ref() != Some(&telling) {
                self.told = Some(telling);
                return Some((Ok(status), self));
            }
        }
    }
}

/// What must differ for a watcher to be told: a lease is renewed all the time.
fn telling(status: &StatusResponse) -> StatusResponse {
    let mut telling = status.clone();
    for vip in &mut telling.vips {
        vip.lease_remaining_ms = 0;
        if let Some(failback) = &mut vip.failback {
            failback.remaining_ms = 0;
        }
    }
    telling
}

#[tonic::async_trait]
impl Control for ControlService {
    async fn apply(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        Ok(Response::new(self.replace(request).await?))
    }

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        let wanted = request.get_ref().revision;
        let (answer, stale) = self
            .read(
                request.extensions().get::<Caller>(),
                request.metadata(),
                |state| get(state, wanted),
                async |links, address, errand| {
                    let request = errand.request(v1::GetRequest { revision: wanted });
                    links.control(address).get(request).await.map(Response::into_inner)
                },
            )
            .await?;
        Ok(Response::new(v1::GetResponse { stale, ..answer }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.overview().await))
    }

    async fn history(
        &self,
        request: Request<v1::HistoryRequest>,
    ) -> Result<Response<v1::HistoryResponse>, Status> {
        let limit = request.get_ref().limit;
        let (answer, stale) = self
            .read(
                request.extensions().get::<Caller>(),
                request.metadata(),
                |state| Ok(history(state, limit)),
                async |links, address, errand| {
                    let request = errand.request(v1::HistoryRequest { limit });
                    links.control(address).history(request).await.map(Response::into_inner)
                },
            )
            .await?;
        Ok(Response::new(v1::HistoryResponse { stale, ..answer }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<StatusResponse, Status>> + Send>>;

    async fn watch(
        &self,
        _: Request<StatusRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let watcher = Watcher { service: self.clone(), told: None, next: Instant::now() };
        let stopping = self.context.stopping();
        let stream = stream::unfold(watcher, Watcher::next).take_until(stopping);
        Ok(Response::new(Box::pin(stream)))
    }

    async fn failover(
        &self,
        request: Request<v1::FailoverRequest>,
    ) -> Result<Response<v1::FailoverResponse>, Status> {
        Ok(Response::new(self.move_to(request).await?))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        Ok(Response::new(self.remove(request).await?))
    }

    async fn list_ipvs(
        &self,
        request: Request<v1::ListIpvsRequest>,
    ) -> Result<Response<v1::ListIpvsResponse>, Status> {
        let errand = Self::errand(&request, true);
        let name = request.into_inner().node;
        let answer = self.context.at_node(
            &errand,
            &name,
            async || table::read(&self.context).await,
            async |mut control, node| {
                control.list_ipvs(errand.request(v1::ListIpvsRequest { node })).await
            },
        );
        Ok(Response::new(answer.await?))
    }

    type ListIpvsConnectionsStream = ipvs::Pieces;

    async fn list_ipvs_connections(
        &self,
        request: Request<v1::ListIpvsConnectionsRequest>,
    ) -> Result<Response<Self::ListIpvsConnectionsStream>, Status> {
        let errand = Self::errand(&request, true);
        let name = request.into_inner().node;
        let pieces = self.context.at_node(
            &errand,
            &name,
            async || ipvs::connections(&self.context),
            async |mut control, node| {
                let request = errand.request(v1::ListIpvsConnectionsRequest { node });
                let answer = control.list_ipvs_connections(request).await?;
                Ok(answer.map(|pieces| -> ipvs::Pieces { pieces.boxed() }))
            },
        );
        let stream = pieces.await?.take_until(self.context.stopping());
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_ipvs_config(
        &self,
        request: Request<v1::GetIpvsConfigRequest>,
    ) -> Result<Response<v1::GetIpvsConfigResponse>, Status> {
        let errand = Self::errand(&request, true);
        let name = request.into_inner().node;
        let answer = self.context.at_node(
            &errand,
            &name,
            async || ipvs::config(&self.context).await,
            async |mut control, node| {
                control.get_ipvs_config(errand.request(v1::GetIpvsConfigRequest { node })).await
            },
        );
        Ok(Response::new(answer.await?))
    }

    async fn zero_ipvs(
        &self,
        request: Request<v1::ZeroIpvsRequest>,
    ) -> Result<Response<v1::ZeroIpvsResponse>, Status> {
        let errand = Self::errand(&request, false);
        let message = request.into_inner();
        let answer = self.context.at_node(
            &errand,
            &message.node,
            async || ipvs::zero(&self.context, &errand, &message).await,
            async |mut control, node| {
                let message = v1::ZeroIpvsRequest { node, ..message.clone() };
                control.zero_ipvs(errand.request(message)).await
            },
        );
        Ok(Response::new(answer.await?))
    }

    async fn restore_ipvs(
        &self,
        request: Request<v1::RestoreIpvsRequest>,
    ) -> Result<Response<v1::RestoreIpvsResponse>, Status> {
        let errand = Self::errand(&request, false);
        let message = request.into_inner();
        let answer = self.context.at_node(
            &errand,
            &message.node,
            async || ipvs::bring_back(&self.context, &errand, &message).await,
            async |mut control, node| {
                let message = v1::RestoreIpvsRequest { node, ..message.clone() };
                control.restore_ipvs(errand.request(message)).await
            },
        );
        Ok(Response::new(answer.await?))
    }

    type SaveSnapshotStream = backup::Pieces;

    async fn save_snapshot(
        &self,
        request: Request<v1::SaveSnapshotRequest>,
    ) -> Result<Response<Self::SaveSnapshotStream>, Status> {
        let errand = Self::errand(&request, true);
        let pieces = backup::save(&self.context, &errand, request.get_ref().stale).await?;
        Ok(Response::new(Box::pin(pieces.take_until(self.context.stopping()))))
    }

    async fn version(
        &self,
        _: Request<v1::VersionRequest>,
    ) -> Result<Response<v1::VersionResponse>, Status> {
        Ok(Response::new(v1::VersionResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.context.identity.name.clone(),
            fleet: self.context.identity.fleet.clone(),
        }))
    }
}
