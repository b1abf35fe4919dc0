//! Who may call what: one table, and the layer that holds every call to it before its handler runs.
//!
//! *In*: the path of a call and the certificate of the caller. *Out*: a [`Caller`] among the request's extensions and a span around the
//! handler, or a refusal.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::Status;
use tonic::transport::CertificateDer;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tower::{Layer, Service};
use tracing::{Instrument, Span, field, info_span};

use crate::api::status::CallError;
use crate::telemetry::propagate;
use crate::tls::{Peer, PeerKind};

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Operators; and nodes, which pass on what an operator asked of them.
    Fleet,
    /// Nodes alone.
    Node,
}

/// One RPC.
#[derive(Clone, Copy, Debug)]
pub struct Rpc {
    /// As in the HTTP/2 path: `/PACKAGE.SERVICE/METHOD`.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    /// Name of the span around its handler; `None` for calls that would only be noise in a trace.
    pub span: Option<&'static str>,
}

/// Every RPC there is. One that is not here is refused.
#[rustfmt::skip]
pub const RPCS: [Rpc; 21] = [
    Rpc { path: "/lvsmesh.v1.Control/Apply",           access: Access::Fleet, span: Some("api.apply") },
    Rpc { path: "/lvsmesh.v1.Control/Get",             access: Access::Fleet, span: Some("api.get") },
    Rpc { path: "/lvsmesh.v1.Control/Status",          access: Access::Fleet, span: Some("api.status") },
    Rpc { path: "/lvsmesh.v1.Control/History",         access: Access::Fleet, span: Some("api.history") },
    Rpc { path: "/lvsmesh.v1.Control/Watch",           access: Access::Fleet, span: None },
    Rpc { path: "/lvsmesh.v1.Control/Failover",        access: Access::Fleet, span: Some("api.failover") },
    Rpc { path: "/lvsmesh.v1.Control/RemoveNode",      access: Access::Fleet, span: Some("api.remove_node") },
    Rpc { path: "/lvsmesh.v1.Control/ListIpvs",        access: Access::Fleet, span: Some("api.list_ipvs") },
    Rpc { path: "/lvsmesh.v1.Control/ListIpvsConnections", access: Access::Fleet, span: Some("api.list_ipvs_connections") },
    Rpc { path: "/lvsmesh.v1.Control/GetIpvsConfig",   access: Access::Fleet, span: Some("api.get_ipvs_config") },
    Rpc { path: "/lvsmesh.v1.Control/ZeroIpvs",        access: Access::Fleet, span: Some("api.zero_ipvs") },
    Rpc { path: "/lvsmesh.v1.Control/RestoreIpvs",     access: Access::Fleet, span: Some("api.restore_ipvs") },
    Rpc { path: "/lvsmesh.v1.Control/SaveSnapshot",    access: Access::Fleet, span: Some("api.save_snapshot") },
    Rpc { path: "/lvsmesh.v1.Control/Version",         access: Access::Fleet, span: None },
    Rpc { path: "/lvsmesh.internal.v1.Peer/Raft",      access: Access::Node,  span: None },
    Rpc { path: "/lvsmesh.internal.v1.Peer/Join",      access: Access::Node,  span: Some("api.join") },
    Rpc { path: "/lvsmesh.internal.v1.Peer/Report",    access: Access::Node,  span: Some("api.report") },
    Rpc { path: "/lvsmesh.internal.v1.Peer/Self",      access: Access::Node,  span: None },
    Rpc { path: "/lvsmesh.internal.v1.Peer/Greet",     access: Access::Node,  span: None },
    Rpc { path: "/lvsmesh.internal.v1.Peer/Announce",  access: Access::Node,  span: None },
    Rpc { path: "/lvsmesh.internal.v1.Peer/Compare",   access: Access::Node,  span: None },
];

/// Who calls; among the extensions of every request that reaches a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The certificate says so.
    Certified(Peer),
    /// Certificates are off.
    Unverified,
}

impl Caller {
    /// Whether the caller may say on whose behalf it calls: agents pass writes on to the leader.
    #[must_use]
    pub fn speaks_for_others(&self) -> bool {
        match self {
            Self::Certified(peer) => peer.kind == PeerKind::Node,
            Self::Unverified => true,
        }
    }
}

/// Whose calls are taken.
#[derive(Clone, Debug)]
pub enum Authority {
    /// Those of this fleet's certificates.
    Certificates {
        /// The fleet.
        fleet: String,
    },
    /// Anybody's: `--insecure`.
    Anybody,
}

impl Authority {
    fn decide(&self, path: &str, certificate: Option<&[u8]>) -> Result<(Caller, Rpc), CallError> {
        let rpc = RPCS
            .into_iter()
            .find(|rpc| rpc.path == path)
            .ok_or_else(|| CallError::NoSuchCall { path: path.to_owned() })?;
        let Self::Certificates { fleet } = self else {
            return Ok((Caller::Unverified, rpc));
        };
        let peer = Peer::from_der(certificate.ok_or(CallError::NoCertificate)?)
            .map_err(CallError::Nobody)?;
        if peer.fleet != *fleet {
            return Err(CallError::OtherFleet { fleet: fleet.clone(), peer });
        }
        match (rpc.access, peer.kind) {
            (Access::Fleet, PeerKind::Operator | PeerKind::Node)
            | (Access::Node, PeerKind::Node) => Ok((Caller::Certified(peer), rpc)),
            (Access::Node, PeerKind::Operator) => {
                Err(CallError::Denied { path: path.to_owned(), peer })
            }
        }
    }
}

impl<S> Layer<S> for Authority {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { authority: self.clone(), inner }
    }
}

/// A service behind the table.
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    authority: Authority,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    R: Default + Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let decision = {
            let certificates = request
                .extensions()
                .get::<TlsConnectInfo<TcpConnectInfo>>()
                .and_then(TlsConnectInfo::peer_certs);
            let leaf = certificates.as_ref().and_then(|chain| chain.first());
            self.authority.decide(request.uri().path(), leaf.map(CertificateDer::as_ref))
        };
        let (caller, rpc) = match decision {
            Ok(decision) => decision,
            Err(refusal) => {
                tracing::warn!(path = request.uri().path(), %refusal, "call refused");
                let response = Status::from(refusal).into_http();
                return Box::pin(async { Ok(response) });
            }
        };
        request.extensions_mut().insert(caller);
        let span = rpc.span.map_or_else(Span::none, |name| server_span(name, &request));
        let call = self.inner.call(request);
        Box::pin(
            async {
                let response = call.await?;
                note_outcome(&response);
                Ok(response)
            }
            .instrument(span),
        )
    }
}

/// The span of one call, a child of the caller's.
fn server_span<B>(name: &'static str, request: &Request<B>) -> Span {
    let span = info_span!(
        "api.call",
        otel.name = name,
        otel.kind = "server",
        otel.status_code = field::Empty,
        rpc.system = "grpc",
        rpc.grpc.status_code = field::Empty,
    );
    let traceparent = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    propagate::set_parent(&span, traceparent.unwrap_or_default());
    span
}

/// A call that fails before its first message has its status among the headers (gRPC's "trailers only").
fn note_outcome<R>(response: &Response<R>) {
    if let Some(status) = Status::from_header_map(response.headers())
        && status.code() != tonic::Code::Ok
    {
        Span::current()
            .record("rpc.grpc.status_code", i32::from(status.code()))
            .record("otel.status_code", "ERROR");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use x509_parser::pem::Pem;

    use super::*;
    use crate::tls::tests::Authority as Issuer;

    #[test]
    fn every_rpc_of_the_protocol_has_a_role_and_no_other_does() {
        let descriptors =
            prost_types::FileDescriptorSet::decode(lvsmesh_proto::DESCRIPTORS).unwrap();
        let declared = descriptors
            .file
            .iter()
            .flat_map(|file| file.service.iter().map(move |service| (file.package(), service)))
            .flat_map(|(package, service)| {
                let path = move |method: &str| format!("/{package}.{}/{method}", service.name());
                service.method.iter().map(move |method| path(method.name()))
            })
            .collect::<BTreeSet<_>>();
        let listed = RPCS.iter().map(|rpc| rpc.path.to_owned()).collect::<BTreeSet<_>>();
        assert!(declared.len() >= 14, "{declared:?}");
        assert_eq!(declared, listed);
    }

    #[test]
    fn peers_call_what_is_between_agents_and_operators_do_not() {
        let issuer = Issuer::new();
        let der = |uri: &str| {
            let files = issuer.issue("caller", &[uri], &[]);
            let pem = std::fs::read(files.cert).unwrap();
            Pem::iter_from_buffer(&pem).next().unwrap().unwrap().contents
        };
        let authority = Authority::Certificates { fleet: "web".into() };
        let (control, peer) = ("/lvsmesh.v1.Control/Apply", "/lvsmesh.internal.v1.Peer/Join");

        #[rustfmt::skip]
        let cases = [
            // who                             calls                        gets
            ("spiffe://web/operator/ada",      control,                     None),
            ("spiffe://web/node/lvs-1",        control,                     None),
            ("spiffe://web/node/lvs-1",        peer,                        None),
            ("spiffe://web/operator/ada",      peer,                        Some(tonic::Code::PermissionDenied)),
            ("spiffe://mail/node/lvs-1",       peer,                        Some(tonic::Code::PermissionDenied)),
            ("spiffe://mail/operator/ada",     control,                     Some(tonic::Code::PermissionDenied)),
            ("https://example.com/",           control,                     Some(tonic::Code::Unauthenticated)),
            ("spiffe://web/node/lvs-1",        "/lvsmesh.v1.Control/Nope",  Some(tonic::Code::Unimplemented)),
        ];
        for (uri, path, code) in cases {
            let decision = authority.decide(path, Some(&der(uri)));
            let refused = decision.err().map(|refusal| Status::from(refusal).code());
            assert_eq!(refused, code, "{uri} calls {path}");
        }
        let decision = authority.decide(control, None);
        assert!(matches!(decision, Err(CallError::NoCertificate)), "{decision:?}");
        let (caller, _) = Authority::Anybody.decide(peer, None).unwrap();
        assert_eq!(caller, Caller::Unverified);
    }
}
