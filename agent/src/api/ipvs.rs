//! What operators ask of one node's IPVS: whose is meant, the way there, and what this node's kernel answers.
//!
//! *In*: a call that names a node, at any agent. *Out*: that node's answer. A call for another node is passed on under the same name once,
//! and answered there or not at all.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use lvsmesh_core::model::Member;
use lvsmesh_core::placement;
use lvsmesh_core::plan::restore::restore;
use lvsmesh_core::plan::{Action, ServiceKey, Table, VirtualService};
use lvsmesh_kernel::ipvs::{Connection, Connections, Ipvs};
use lvsmesh_kernel::{Errno, KernelError};
use lvsmesh_proto::convert::Impossible;
use lvsmesh_proto::v1;
use lvsmesh_proto::v1::control_client::ControlClient;
use tokio::sync::mpsc;
use tokio::time::timeout_at;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::context::Context;
use super::status::{CallError, chain, one_line};
use super::table::failed;
use crate::writes::Errand;

/// Connections in one message.
const PIECE: usize = 1000;
/// Pieces that wait for a slow reader.
const PIECES: usize = 4;

impl Context {
    /// Whose IPVS a call means: `None` is this node's. No name means the holder's; without a holder, this node's.
    pub(super) async fn whose(&self, name: &str) -> Result<Option<Member>, CallError> {
        let state = Arc::clone(&self.raft.state.borrow().state);
        let member = match name {
            "" => self.holder().await.and_then(|id| state.member(id)),
            name => Some(
                state
                    .member_by_name(name)
                    .ok_or_else(|| CallError::UnknownNode { name: name.to_owned() })?,
            ),
        };
        Ok(member.filter(|member| member.id != self.identity.id).cloned())
    }

    /// Answers with `here` if this node is meant, else with what `there` says at the node that is.
    pub(super) async fn at_node<T>(
        &self,
        errand: &Errand,
        name: &str,
        here: impl AsyncFnOnce() -> Result<T, CallError>,
        there: impl AsyncFnOnce(ControlClient<Channel>, String) -> Result<Response<T>, Status>,
    ) -> Result<T, CallError> {
        if errand.forwarded && name != self.identity.name {
            return Err(CallError::UnknownNode { name: name.to_owned() });
        }
        let Some(member) = self.whose(name).await? else { return here().await };
        let asked = there(self.links.control(member.grpc), member.name.clone());
        let answer = timeout_at(errand.deadline, asked)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        answer.map(Response::into_inner).map_err(|status| match status.code() {
            // Its own words; the transport has none of these.
            Code::NotFound
            | Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::Unimplemented
            | Code::PermissionDenied => CallError::Remote(Box::new(status)),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::OutOfRange
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
            | Code::Unauthenticated => CallError::Unreachable {
                name: member.name.clone(),
                address: member.grpc,
                reason: one_line(&status),
            },
        })
    }
}

/// Timeouts and daemons of this node.
pub(super) async fn config(context: &Context) -> Result<v1::GetIpvsConfigResponse, CallError> {
    let failed = |error| failed(context, "read the configuration of IPVS", error);
    let mut ipvs = Ipvs::open().await.map_err(failed)?;
    let timeouts = ipvs.timeouts().await.map_err(failed)?;
    let daemons = ipvs.daemons().await.map_err(failed)?;
    Ok(v1::GetIpvsConfigResponse {
        node: context.identity.name.clone(),
        timeouts: Some(v1::IpvsConnectionTimeouts {
            tcp: timeouts.tcp,
            tcp_fin: timeouts.tcp_fin,
            udp: timeouts.udp,
        }),
        daemons: daemons
            .into_iter()
            .map(|daemon| v1::IpvsDaemon {
                role: daemon.role.to_string(),
                interface: daemon.interface,
                sync_id: daemon.sync_id,
                max_length: u32::from(daemon.max_length),
                group: daemon.group.map(|group| group.to_string()).unwrap_or_default(),
                port: u32::from(daemon.port),
                ttl: u32::from(daemon.ttl),
            })
            .collect(),
    })
}

/// Sets counters of this node to zero.
pub(super) async fn zero(
    context: &Context,
    errand: &Errand,
    request: &v1::ZeroIpvsRequest,
) -> Result<v1::ZeroIpvsResponse, CallError> {
    let service = request.service.as_ref().map(ServiceKey::try_from).transpose();
    let service = service.map_err(|Impossible { field, reason }| CallError::Field {
        field: "service",
        reason: format!("{field}: {reason}"),
    })?;
    let node = context.identity.name.clone();
    let failed = |error: KernelError| match service {
        Some(key) if error.errno() == Some(Errno::ESRCH) => {
            CallError::UnknownService { service: key.to_string(), node: node.clone() }
        }
        Some(_) | None => failed(context, "zero the counters of IPVS", error),
    };
    let mut ipvs = Ipvs::open().await.map_err(failed)?;
    ipvs.zero(service).await.map_err(failed)?;
    let of = service.map_or_else(|| "all services".to_owned(), |key| key.to_string());
    tracing::info!(of, author = errand.author, "IPVS counters zeroed");
    Ok(v1::ZeroIpvsResponse { node })
}

/// Adds to this node's table what a saved one has and it lacks.
pub(super) async fn bring_back(
    context: &Context,
    errand: &Errand,
    request: &v1::RestoreIpvsRequest,
) -> Result<v1::RestoreIpvsResponse, CallError> {
    let saved = saved(&request.services)?;
    let failed = |error| failed(context, "restore the IPVS table", error);
    let mut ipvs = Ipvs::open().await.map_err(failed)?;
    let observed = ipvs.list().await.map_err(failed)?.table;
    let restoration = restore(&observed, &saved, &ours(context));
    let mut answer = v1::RestoreIpvsResponse {
        node: context.identity.name.clone(),
        kept: restoration.kept,
        standing: u32::try_from(restoration.standing).unwrap_or(u32::MAX),
        ..v1::RestoreIpvsResponse::default()
    };
    let mut refused = BTreeSet::new();
    for action in restoration.actions {
        if let Action::AddDestination(key, ..) = &action
            && refused.contains(key)
        {
            answer.failed.push(format!("{action}: its service is not there"));
            continue;
        }
        if !request.dry_run
            && let Err(error) = ipvs.perform(&action).await
        {
            if let Action::AddService(key, _) = &action {
                refused.insert(*key);
            }
            answer.failed.push(format!("{action}: {}", chain(&error)));
            continue;
        }
        answer.operations.push(action.to_string());
    }
    if !request.dry_run {
        tracing::info!(
            operations = answer.operations.len(),
            failed = answer.failed.len(),
            author = errand.author,
            "IPVS table restored"
        );
    }
    Ok(answer)
}

fn saved(services: &[v1::IpvsService]) -> Result<Table, CallError> {
    let mut table = Table::new();
    for (number, wire) in services.iter().enumerate() {
        let wrong = |reason: String| CallError::Field {
            field: "services",
            reason: format!("number {}: {reason}", number + 1),
        };
        let read = ServiceKey::try_from(wire)
            .and_then(|key| Ok((key, VirtualService::try_from(wire)?)))
            .map_err(|error| wrong(error.to_string()))?;
        let (key, service) = read;
        if table.insert(key, service).is_some() {
            return Err(wrong(format!("{key} comes twice")));
        }
    }
    Ok(table)
}

/// What is lvsmesh's to decide: what it made here, and what the desired state would have on any director, this one included when it holds.
fn ours(context: &Context) -> BTreeSet<ServiceKey> {
    let recorded = context.owned.load().map(|owned| owned.services).unwrap_or_default();
    let state = Arc::clone(&context.raft.state.borrow().state);
    let planned = state
        .members()
        .filter(|member| member.is_director())
        .flat_map(|member| placement::place(&state, member.id, true).table.into_keys());
    planned.chain(recorded).collect()
}

/// Connections, in pieces.
pub(super) type Pieces =
    Pin<Box<dyn Stream<Item = Result<v1::ListIpvsConnectionsResponse, Status>> + Send>>;

/// This node's connections; the first piece comes even if there are none.
pub(super) fn connections(context: &Context) -> Result<Pieces, CallError> {
    let doing = "read the connections of IPVS";
    let connections = Connections::open().map_err(|error| failed(context, doing, error))?;
    let (sender, receiver) = mpsc::channel(PIECES);
    let context = context.clone();
    // The file is read on a thread of its own, which waits while the reader is slow and ends when it is gone.
    drop(tokio::task::spawn_blocking(move || {
        let node = context.identity.name.clone();
        let piece =
            |connections| v1::ListIpvsConnectionsResponse { node: node.clone(), connections };
        let mut pending = Vec::new();
        for connection in connections {
            match connection {
                Ok(connection) => pending.push(wire(connection)),
                Err(error) => {
                    let error = Status::from(failed(&context, doing, error));
                    drop(sender.blocking_send(Err(error)));
                    return;
                }
            }
            if pending.len() == PIECE
                && sender.blocking_send(Ok(piece(std::mem::take(&mut pending)))).is_err()
            {
                return;
            }
        }
        drop(sender.blocking_send(Ok(piece(pending))));
    }));
    Ok(ReceiverStream::new(receiver).boxed())
}

fn wire(connection: Connection) -> v1::IpvsConnection {
    let (engine, engine_data) = connection.engine.unwrap_or_default();
    v1::IpvsConnection {
        protocol: connection.protocol,
        client_address: connection.client.ip().to_string(),
        client_port: u32::from(connection.client.port()),
        virtual_address: connection.virtual_address.ip().to_string(),
        virtual_port: u32::from(connection.virtual_address.port()),
        destination_address: connection.destination.ip().to_string(),
        destination_port: u32::from(connection.destination.port()),
        state: connection.state,
        expires_seconds: connection.expires,
        engine,
        engine_data,
    }
}
