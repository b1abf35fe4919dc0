//! The gRPC server: one port for operators and agents, one table for who may call what.

pub mod authority;
mod backup;
pub mod context;
pub mod control;
mod ipvs;
pub mod overview;
pub mod peer;
pub mod status;
pub mod table;
mod versions;

use std::net::SocketAddr;
use std::time::Duration;

use lvsmesh_proto::internal::v1::peer_server::PeerServer;
use lvsmesh_proto::v1::control_server::ControlServer;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use authority::Authority;
use context::Context;
use control::ControlService;
use peer::PeerService;

use crate::raft::transport::MAX_BATCH_BYTES;
use crate::tls::Credentials;

/// A request longer than this is refused. A Raft message may carry a snapshot with 200 documents.
const LONGEST_RAFT_BATCH: usize = MAX_BATCH_BYTES + (1 << 20);
/// A document of ten thousand real servers has about 1 MiB.
const LONGEST_REQUEST: usize = 8 << 20;
/// Calls at once on one connection.
const STREAMS: u32 = 256;
/// Whoever has vanished without a word is noticed after the sum of both.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another program has the address.
    #[error("cannot listen on listen.grpc {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The certificates, or the listener broke.
    #[error("the gRPC server ended")]
    Serve(#[source] tonic::transport::Error),
}

/// The server's listener, bound.
#[derive(Debug)]
pub struct Api {
    listener: TcpListener,
}

impl Api {
    /// Takes the address.
    ///
    /// # Errors
    ///
    /// If another program has it.
    pub async fn bind(address: SocketAddr) -> Result<Self, ServerError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ServerError::Bind { address, source })?;
        Ok(Self { listener })
    }

    /// Serves until the context's `shutdown` turns true, and then until the calls under way are answered.
    ///
    /// # Errors
    ///
    /// If the certificates cannot be used, or the listener breaks.
    pub async fn serve(
        self,
        context: Context,
        credentials: Option<&Credentials>,
    ) -> Result<(), ServerError> {
        let authority = match credentials {
            Some(_) => Authority::Certificates { fleet: context.identity.fleet.clone() },
            None => Authority::Anybody,
        };
        let mut server = Server::builder();
        if let Some(credentials) = credentials {
            server = server.tls_config(credentials.server()).map_err(ServerError::Serve)?;
        }
        let control = ControlServer::new(ControlService::new(context.clone()))
            .max_decoding_message_size(LONGEST_REQUEST);
        let peer = PeerServer::new(PeerService::new(context.clone()))
            .max_decoding_message_size(LONGEST_RAFT_BATCH);
        server
            .max_concurrent_streams(STREAMS)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .layer(authority)
            .add_service(control)
            .add_service(peer)
            .serve_with_incoming_shutdown(
                TcpIncoming::from(self.listener).with_nodelay(Some(true)),
                context.stopping(),
            )
            .await
            .map_err(ServerError::Serve)
    }
}
