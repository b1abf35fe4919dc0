//! Who is at the other end: mutual TLS from files, and the channels that use it.
//!
//! *In*: the PEM files that `agent.toml` names; certificates that peers show. *Out*: server and client configurations, and a [`Peer`] for
//! each certificate. Certificates say who somebody is; [`crate::api`]'s table of authority says what they may do.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tonic::transport::{
    Certificate, Channel, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig,
};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::TlsFiles;

/// A peer that does not finish the TCP handshake, or after it the TLS handshake, within this is unreachable.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a silent connection is asked whether it is still there, and how long the answer may take: a peer that lost its power is noticed
/// after their sum, where TCP alone would wait for minutes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// The DNS name in every node's certificate. Nodes are reached by address, and addresses change; this says only "an agent of lvsmesh", and the
/// fleet's own certificate authority says of which fleet.
pub const SERVER_NAME: &str = "lvsmesh";

/// What a certificate says its owner is: the URI `spiffe://FLEET/node/NAME` or `spiffe://FLEET/operator/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The fleet.
    pub fleet: String,
    /// Node or operator.
    pub kind: PeerKind,
    /// Its name: a node's as in `agent.toml`.
    pub name: String,
}

/// The kinds of owners that certificates have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    /// A machine's agent.
    Node,
    /// A person or a program that runs the fleet.
    Operator,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            PeerKind::Node => "node",
            PeerKind::Operator => "operator",
        };
        write!(f, "{kind}/{}", self.name)
    }
}

/// Why a certificate names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It is no X.509 certificate.
    #[error("the certificate cannot be read: {reason}")]
    Unreadable {
        /// In the parser's words.
        reason: String,
    },
    /// It must name its owner exactly once, or it would be anybody's guess which name counts.
    #[error(
        "the certificate has {found} URIs of the form spiffe://FLEET/node/NAME; exactly one is needed"
    )]
    Names {
        /// How many it has.
        found: usize,
    },
    /// The URI has another form.
    #[error(
        "the certificate's URI `{uri}` is not of the form spiffe://FLEET/node/NAME or spiffe://FLEET/operator/NAME"
    )]
    Form {
        /// It.
        uri: String,
    },
}

impl Peer {
    /// Reads the name out of a certificate. Whether the certificate can be trusted is decided by the TLS handshake, before.
    ///
    /// # Errors
    ///
    /// If it is no certificate, or does not name its owner exactly once in the form above.
    pub fn from_der(der: &[u8]) -> Result<Self, PeerError> {
        let uris = names(der)?
            .into_iter()
            .filter_map(|name| match name {
                San::Uri(uri) if uri.starts_with("spiffe://") => Some(uri),
                San::Uri(_) | San::Dns(_) => None,
            })
            .collect::<Vec<_>>();
        match uris.as_slice() {
            [uri] => Self::from_uri(uri).ok_or_else(|| PeerError::Form { uri: uri.clone() }),
            _ => Err(PeerError::Names { found: uris.len() }),
        }
    }

    fn from_uri(uri: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix("spiffe://")?.split('/');
        let (fleet, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
        let kind = match kind {
            "node" => PeerKind::Node,
            "operator" => PeerKind::Operator,
            _ => return None,
        };
        let complete = parts.next().is_none() && !fleet.is_empty() && !name.is_empty();
        complete.then(|| Self { fleet: fleet.to_owned(), kind, name: name.to_owned() })
    }
}

/// The alternative names that matter here.
enum San {
    Uri(String),
    Dns(String),
}

fn names(der: &[u8]) -> Result<Vec<San>, PeerError> {
    let unreadable = |reason: String| PeerError::Unreadable { reason };
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| unreadable(error.to_string()))?;
    let extension =
        certificate.subject_alternative_name().map_err(|error| unreadable(error.to_string()))?;
    Ok(extension
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| {
            if let GeneralName::URI(uri) = name {
                return Some(San::Uri((*uri).to_owned()));
            }
            if let GeneralName::DNSName(dns) = name {
                return Some(San::Dns((*dns).to_owned()));
            }
            None
        })
        .collect())
}

/// Why the files that `agent.toml` names cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read tls.{key} {}", path.display())]
    Read {
        /// Its key in `agent.toml`.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no certificate in it.
    #[error("tls.cert {} holds no PEM certificate", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It names nobody.
    #[error("tls.cert {} cannot be this node's", path.display())]
    Peer {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: PeerError,
    },
    /// It is somebody else's.
    #[error("tls.cert {} is {found}'s, but agent.toml names this node `{name}`", path.display())]
    OtherName {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: Peer,
        /// `name` in `agent.toml`.
        name: String,
    },
    /// It is another fleet's.
    #[error("tls.cert {} is of fleet `{found}`, but this node is of fleet `{fleet}`", path.display())]
    OtherFleet {
        /// The file.
        path: PathBuf,
        /// Its fleet.
        found: String,
        /// The node's.
        fleet: String,
    },
    /// Nobody could verify it as a server's.
    #[error("tls.cert {} lacks the DNS name `{SERVER_NAME}`, by which every other agent verifies it", path.display())]
    ServerName {
        /// The file.
        path: PathBuf,
    },
    /// The three do not go together.
    #[error("tls.ca, tls.cert and tls.key do not go together: {reason}")]
    Unusable {
        /// In the TLS library's words.
        reason: String,
    },
}

/// What one end of a connection needs: its certificate, its key, and whom it trusts.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// What the certificate says this node is.
    pub own: Peer,
    path: PathBuf,
    server: ServerTlsConfig,
    client: ClientTlsConfig,
}

impl Credentials {
    /// Reads the files, and refuses those with which no connection would ever succeed. A certificate that is out of date is not refused here:
    /// its peers will refuse it, but the lease and the forwarding table do not depend on it.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, the three do not go together, or the certificate is not that of a node of this name.
    pub fn load(files: &TlsFiles, name: &str) -> Result<Self, TlsError> {
        let read = |key, path: &PathBuf| {
            std::fs::read(path).map_err(|source| TlsError::Read { key, path: path.clone(), source })
        };
        let (ca, cert, key) =
            (read("ca", &files.ca)?, read("cert", &files.cert)?, read("key", &files.key)?);
        let path = files.cert.clone();
        let own = Self::own(&cert, name, &path)?;

        let ca = Certificate::from_pem(ca);
        let identity = Identity::from_pem(cert, key);
        let server = ServerTlsConfig::new()
            .identity(identity.clone())
            .client_ca_root(ca.clone())
            .timeout(HANDSHAKE_TIMEOUT);
        let client = ClientTlsConfig::new()
            .domain_name(SERVER_NAME)
            .ca_certificate(ca)
            .identity(identity)
            .timeout(HANDSHAKE_TIMEOUT);
        let unusable = |error: tonic::transport::Error| TlsError::Unusable {
            reason: crate::api::status::chain(&error),
        };
        drop(tonic::transport::Server::builder().tls_config(server.clone()).map_err(unusable)?);
        drop(
            Endpoint::from_static("https://127.0.0.1")
                .tls_config(client.clone())
                .map_err(unusable)?,
        );
        Ok(Self { own, path, server, client })
    }

    fn own(cert: &[u8], name: &str, path: &std::path::Path) -> Result<Peer, TlsError> {
        let pem = Pem::iter_from_buffer(cert)
            .filter_map(Result::ok)
            .find(|pem| pem.label == "CERTIFICATE")
            .ok_or_else(|| TlsError::Empty { path: path.to_owned() })?;
        let refused = |source| TlsError::Peer { path: path.to_owned(), source };
        let own = Peer::from_der(&pem.contents).map_err(refused)?;
        if own.kind != PeerKind::Node || own.name != name {
            return Err(TlsError::OtherName {
                path: path.to_owned(),
                found: own,
                name: name.to_owned(),
            });
        }
        let server = names(&pem.contents)
            .map_err(refused)?
            .iter()
            .any(|name| matches!(name, San::Dns(dns) if dns == SERVER_NAME));
        match server {
            true => Ok(own),
            false => Err(TlsError::ServerName { path: path.to_owned() }),
        }
    }

    /// Refuses a certificate of another fleet than the node's.
    ///
    /// # Errors
    ///
    /// If it is one.
    pub fn check_fleet(&self, fleet: &str) -> Result<(), TlsError> {
        match self.own.fleet == fleet {
            true => Ok(()),
            false => Err(TlsError::OtherFleet {
                path: self.path.clone(),
                found: self.own.fleet.clone(),
                fleet: fleet.to_owned(),
            }),
        }
    }

    /// What the gRPC server needs: it takes only clients whose certificates the fleet's authority signed.
    #[must_use]
    pub fn server(&self) -> ServerTlsConfig {
        self.server.clone()
    }

    /// Opens channels that show this certificate.
    #[must_use]
    pub fn connector(&self) -> Connector {
        Connector { tls: Some(self.client.clone()) }
    }
}

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
            .connect_timeout(HANDSHAKE_TIMEOUT)
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

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::string::Ia5String;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
    use tempfile::TempDir;

    use super::*;

    /// A certificate authority in a directory of its own.
    pub(crate) struct Authority {
        dir: TempDir,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        pub(crate) fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            std::fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
            Self { dir, issuer: Issuer::new(params, key) }
        }

        pub(crate) fn issue(&self, file: &str, uris: &[&str], dns: &[&str]) -> TlsFiles {
            let text = |text: &&str| Ia5String::try_from(*text).unwrap();
            let mut params = CertificateParams::default();
            params.subject_alt_names = uris
                .iter()
                .map(|uri| SanType::URI(text(uri)))
                .chain(dns.iter().map(|dns| SanType::DnsName(text(dns))))
                .collect();
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.issuer).unwrap();
            let path = |suffix: &str| self.dir.path().join(format!("{file}.{suffix}"));
            std::fs::write(path("pem"), certificate.pem()).unwrap();
            std::fs::write(path("key"), key.serialize_pem()).unwrap();
            TlsFiles { ca: self.dir.path().join("ca.pem"), cert: path("pem"), key: path("key") }
        }

        pub(crate) fn node(&self, fleet: &str, name: &str) -> TlsFiles {
            self.issue(name, &[&format!("spiffe://{fleet}/node/{name}")], &[SERVER_NAME])
        }
    }

    #[test]
    fn a_nodes_certificate_is_taken_under_its_own_name_alone() {
        let authority = Authority::new();
        let files = authority.node("web", "lvs-1");
        let credentials = Credentials::load(&files, "lvs-1").unwrap();

        assert_eq!(credentials.own.to_string(), "node/lvs-1");
        credentials.check_fleet("web").unwrap();
        let error = credentials.check_fleet("mail").unwrap_err();
        assert!(matches!(error, TlsError::OtherFleet { .. }), "{error}");
        let error = Credentials::load(&files, "lvs-2").unwrap_err();
        assert!(matches!(error, TlsError::OtherName { .. }), "{error}");
    }

    #[test]
    fn a_certificate_that_no_peer_would_take_is_refused_at_the_start() {
        let authority = Authority::new();
        let node = "spiffe://web/node/lvs-1";
        #[rustfmt::skip]
        let cases: [(&str, &[&str], &[&str]); 6] = [
            // why                    URIs                                          DNS names
            ("an operator's",         &["spiffe://web/operator/lvs-1"],             &[SERVER_NAME]),
            ("names nobody",          &[],                                          &[SERVER_NAME]),
            ("names two",             &[node, "spiffe://web/node/lvs-2"],           &[SERVER_NAME]),
            ("another path",          &["spiffe://web/ns/x/node/lvs-1"],            &[SERVER_NAME]),
            ("no fleet",              &["spiffe:///node/lvs-1"],                    &[SERVER_NAME]),
            ("no server",             &[node],                                      &["lvs-1"]),
        ];
        for (why, uris, dns) in cases {
            let files = authority.issue("case", uris, dns);
            assert!(Credentials::load(&files, "lvs-1").is_err(), "{why}");
        }
        let files = authority.issue("case", &[node, "https://example.com/"], &[SERVER_NAME]);
        Credentials::load(&files, "lvs-1").unwrap();
    }

    #[test]
    fn files_that_do_not_go_together_are_refused() {
        let authority = Authority::new();
        let good = authority.node("web", "lvs-1");
        let other = authority.node("web", "lvs-2");

        let files = TlsFiles { key: other.key, ..good.clone() };
        let error = Credentials::load(&files, "lvs-1").unwrap_err();
        assert!(matches!(error, TlsError::Unusable { .. }), "{error}");

        let files = TlsFiles { cert: good.key.clone(), ..good.clone() };
        let error = Credentials::load(&files, "lvs-1").unwrap_err();
        assert!(matches!(error, TlsError::Empty { .. }), "{error}");

        let files = TlsFiles { ca: "/nonexistent/ca.pem".into(), ..good };
        let error = Credentials::load(&files, "lvs-1").unwrap_err();
        assert!(matches!(error, TlsError::Read { key: "ca", .. }), "{error}");
    }
}
