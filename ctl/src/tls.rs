//! Certificates, and why an agent does not accept them.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::failure::{Exit, Failure, tls_refusal};

/// The DNS name in every agent's certificate; which fleet it is of, its authority says.
const SERVER_NAME: &str = "lvsmesh";

/// Longest wait for one more word of an agent that has just hung up.
const PATIENCE: Duration = Duration::from_secs(1);

/// An operator's certificate as PEM, with the fleet's authority.
#[derive(Clone)]
pub(crate) struct Certificates {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificates(…)")
    }
}

impl Certificates {
    pub(crate) fn read(ca: &Path, cert: &Path, key: &Path) -> Result<Self, Failure> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| {
                Failure::new(Exit::Failed, format!("cannot read {}: {error}", path.display()))
            })
        };
        Ok(Self { ca: read(ca)?, cert: read(cert)?, key: read(key)? })
    }

    /// For the connection that asks.
    pub(crate) fn config(&self, timeout: Duration) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .domain_name(SERVER_NAME)
            .ca_certificate(Certificate::from_pem(&self.ca))
            .identity(Identity::from_pem(&self.cert, &self.key))
            .timeout(timeout)
    }

    /// What an agent that has hung up has against these certificates; `None` if it is not them.
    ///
    /// In TLS 1.3 a server refuses a client's certificate after the client's handshake has ended. By then the call is on its way, and
    /// whether its writer sees the alert or a broken pipe is a race. So: shake hands once more, say nothing, and listen.
    pub(crate) async fn refusal(&self, endpoint: &str) -> Option<String> {
        let (certificates, endpoint) = (self.clone(), endpoint.to_owned());
        let listening = tokio::task::spawn_blocking(move || certificates.listen(&endpoint));
        let heard = listening.await.ok()?;
        heard.err().and_then(|error| tls_refusal(&error))
    }

    fn listen(&self, endpoint: &str) -> io::Result<()> {
        let address =
            endpoint.to_socket_addrs()?.next().ok_or_else(|| io::Error::other("no address"))?;
        let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
        let mut connection =
            ClientConnection::new(Arc::new(self.client()?), name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        // Session tickets may come before the verdict; a server that accepts us speaks HTTP/2 first.
        loop {
            if connection.read_tls(&mut socket)? == 0 {
                return Ok(());
            }
            let state = connection.process_new_packets().map_err(io::Error::other)?;
            if state.plaintext_bytes_to_read() > 0 {
                return Ok(());
            }
        }
    }

    fn client(&self) -> io::Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&self.ca) {
            roots.add(root.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
        let chain = CertificateDer::pem_slice_iter(&self.cert)
            .collect::<Result<Vec<_>, _>>()
            .map_err(io::Error::other)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}
