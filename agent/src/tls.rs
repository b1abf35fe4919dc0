//! Who is at the other end: mutual TLS from files, and the channels that use it.

use std::net::SocketAddr;
use std::time::Duration;

use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

/// A peer that does not answer the TCP and TLS handshakes for this long is unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a silent connection is asked whether it is still there, and how long the answer may take: a peer that lost its power is noticed
/// after their sum, where TCP alone would wait for minutes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// The DNS name in every node's certificate. Nodes are reached by address, and addresses change; this says only "an agent of lvsmesh", and the
/// fleet's own certificate authority says of which fleet.
pub const SERVER_NAME: &str = "lvsmesh";

/// Opens channels to agents.
#[derive(Clone, Debug, Default)]
pub struct Connector {
    tls: Option<ClientTlsConfig>,
}

impl Connector {
    /// Channels in clear.
    #[must_use]
    pub fn insecure() -> Self {
        Self { tls: None }
    }

    /// A channel that connects when it is first used, and again whenever it was lost. Must be called inside a tokio runtime.
    #[must_use]
    pub fn channel(&self, addr: SocketAddr) -> Channel {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{addr}"))
            .expect("a socket address makes a URI")
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        match &self.tls {
            None => endpoint,
            Some(tls) => endpoint
                .tls_config(tls.clone())
                .expect("the same files made a configuration when they were loaded"),
        }
        .connect_lazy()
    }
}
