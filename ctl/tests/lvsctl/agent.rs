//! An agent that says what a test wants, and remembers what it was asked.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use lvsmesh_proto::v1::control_server::{Control, ControlServer};
use lvsmesh_proto::v1::{self, StatusResponse};
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// What the agent does with a call.
#[derive(Clone, Debug, Default)]
pub(super) enum Mood {
    /// Answers.
    #[default]
    Well,
    /// Answers, and knows no majority.
    Alone,
    /// Answers, and cannot reach one of the others.
    Lame,
    /// Refuses.
    Refuses(Box<Status>),
    /// Never answers.
    Hangs,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Agent {
    pub(super) mood: Mood,
    pub(super) seen: Arc<Mutex<Seen>>,
}

/// What was asked.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) calls: u32,
    pub(super) traceparent: Option<String>,
    pub(super) applied: Option<v1::ApplyRequest>,
    pub(super) zeroed: Vec<Option<v1::IpvsService>>,
}

impl Agent {
    async fn take<Q, A>(&self, request: Request<Q>, answer: A) -> Result<Response<A>, Status> {
        {
            let mut seen = self.seen.lock().unwrap();
            seen.calls += 1;
            let header = request.metadata().get("traceparent");
            seen.traceparent = header.map(|value| value.to_str().unwrap().to_owned());
        }
        match &self.mood {
            Mood::Well | Mood::Alone | Mood::Lame => Ok(Response::new(answer)),
            Mood::Refuses(status) => Err(Status::clone(status)),
            Mood::Hangs => std::future::pending().await,
        }
    }
}

#[tonic::async_trait]
impl Control for Agent {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<StatusResponse, Status>> + Send>>;

    async fn apply(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        self.seen.lock().unwrap().applied = Some(request.get_ref().clone());
        let changes = vec!["services/web: added".to_owned()];
        self.take(request, v1::ApplyResponse { revision: 4, changes, ..Default::default() }).await
    }

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        self.take(request, v1::GetResponse::default()).await
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let quorum = !matches!(self.mood, Mood::Alone);
        let node = |(name, role): (&str, &str)| v1::NodeStatus {
            name: name.into(),
            roles: vec![role.into()],
            reachable: name != "rs-1" || !matches!(self.mood, Mood::Lame),
            ..Default::default()
        };
        let nodes = [("lvs-2", "director"), ("rs-1", "realserver"), ("lvs-1", "director")];
        let answer = StatusResponse {
            fleet: "blue".into(),
            quorum,
            revision: 4,
            nodes: nodes.into_iter().map(node).collect(),
            ..Default::default()
        };
        self.take(request, answer).await
    }

    async fn history(
        &self,
        request: Request<v1::HistoryRequest>,
    ) -> Result<Response<v1::HistoryResponse>, Status> {
        self.take(request, v1::HistoryResponse::default()).await
    }

    async fn watch(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let status = |revision| Ok(StatusResponse { quorum: true, revision, ..Default::default() });
        let stream: Self::WatchStream = Box::pin(tokio_stream::iter([status(1), status(2)]));
        self.take(request, stream).await
    }

    async fn failover(
        &self,
        request: Request<v1::FailoverRequest>,
    ) -> Result<Response<v1::FailoverResponse>, Status> {
        let to = request.get_ref().to.clone();
        self.take(request, v1::FailoverResponse { from: "lvs-1".into(), to, epoch: 5 }).await
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        self.take(request, v1::RemoveNodeResponse { id: 3 }).await
    }

    async fn list_ipvs(
        &self,
        request: Request<v1::ListIpvsRequest>,
    ) -> Result<Response<v1::ListIpvsResponse>, Status> {
        self.take(request, v1::ListIpvsResponse::default()).await
    }

    type ListIpvsConnectionsStream =
        Pin<Box<dyn Stream<Item = Result<v1::ListIpvsConnectionsResponse, Status>> + Send>>;

    async fn list_ipvs_connections(
        &self,
        request: Request<v1::ListIpvsConnectionsRequest>,
    ) -> Result<Response<Self::ListIpvsConnectionsStream>, Status> {
        let node = request.get_ref().node.clone();
        let connection = |client_port| v1::IpvsConnection {
            protocol: "TCP".into(),
            client_address: "192.0.2.9".into(),
            client_port,
            virtual_address: "192.0.2.1".into(),
            virtual_port: 80,
            destination_address: "192.0.2.3".into(),
            destination_port: 80,
            state: "ESTABLISHED".into(),
            expires_seconds: 899,
            ..v1::IpvsConnection::default()
        };
        let piece = |port| v1::ListIpvsConnectionsResponse {
            node: node.clone(),
            connections: vec![connection(port)],
        };
        let pieces = tokio_stream::iter([Ok(piece(1)), Ok(piece(2))]);
        let answer: Self::ListIpvsConnectionsStream = Box::pin(pieces);
        self.take(request, answer).await
    }

    async fn get_ipvs_config(
        &self,
        request: Request<v1::GetIpvsConfigRequest>,
    ) -> Result<Response<v1::GetIpvsConfigResponse>, Status> {
        let node = request.get_ref().node.clone();
        let timeouts = Some(v1::IpvsConnectionTimeouts { tcp: 900, tcp_fin: 120, udp: 300 });
        let daemons = vec![];
        self.take(request, v1::GetIpvsConfigResponse { node, timeouts, daemons }).await
    }

    async fn zero_ipvs(
        &self,
        request: Request<v1::ZeroIpvsRequest>,
    ) -> Result<Response<v1::ZeroIpvsResponse>, Status> {
        let asked = request.get_ref().clone();
        self.seen.lock().unwrap().zeroed.push(asked.service);
        self.take(request, v1::ZeroIpvsResponse { node: asked.node }).await
    }

    async fn restore_ipvs(
        &self,
        request: Request<v1::RestoreIpvsRequest>,
    ) -> Result<Response<v1::RestoreIpvsResponse>, Status> {
        let asked = request.get_ref();
        let answer = v1::RestoreIpvsResponse {
            node: asked.node.clone(),
            operations: asked.services.iter().map(|s| format!("add {}", s.address)).collect(),
            kept: if asked.node == "full" {
                vec!["tcp 192.0.2.1:80: stands".into()]
            } else {
                vec![]
            },
            failed: vec![],
            standing: 0,
        };
        self.take(request, answer).await
    }

    type SaveSnapshotStream =
        Pin<Box<dyn Stream<Item = Result<v1::SaveSnapshotResponse, Status>> + Send>>;

    /// A state without a document, or with `stale` only the first half of its file.
    async fn save_snapshot(
        &self,
        request: Request<v1::SaveSnapshotRequest>,
    ) -> Result<Response<Self::SaveSnapshotStream>, Status> {
        let mut file = lvsmesh_proto::backup::encode(
            lvsmesh_proto::internal::v1::SnapshotHeader {
                taken_by: "lvs-1".into(),
                ..Default::default()
            },
            &lvsmesh_core::state::State::default(),
        );
        if request.get_ref().stale {
            file.truncate(file.len() / 2);
        }
        let pieces = file.chunks(7).map(<[u8]>::to_vec).collect::<Vec<_>>();
        let pieces = pieces.into_iter().map(|piece| Ok(v1::SaveSnapshotResponse { piece }));
        let stream: Self::SaveSnapshotStream = Box::pin(tokio_stream::iter(pieces));
        self.take(request, stream).await
    }

    async fn version(
        &self,
        request: Request<v1::VersionRequest>,
    ) -> Result<Response<v1::VersionResponse>, Status> {
        let answer = v1::VersionResponse {
            version: "9.9.9".into(),
            node: "lvs-1".into(),
            fleet: "blue".into(),
        };
        self.take(request, answer).await
    }
}

/// Starts an agent on a free port of the loopback; it ends with the test's runtime.
pub(super) async fn serve(agent: Agent, tls: Option<ServerTlsConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls).unwrap();
    }
    let serving = server
        .add_service(ControlServer::new(agent))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    address
}

pub(super) async fn start(mood: Mood) -> (String, Arc<Mutex<Seen>>) {
    let agent = Agent { mood, ..Agent::default() };
    let seen = Arc::clone(&agent.seen);
    (serve(agent, None).await.to_string(), seen)
}

/// An address at which nothing listens.
pub(super) async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}
