//! One call to one agent out of several: connect, ask, give up in time.

use std::time::Duration;

use lvsmesh_proto::v1::control_client::ControlClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::config::{Config, Security};
use crate::failure::{Exit, Failure, chain, is_no_quorum, is_out_of_it, tls_refusal};
use crate::telemetry;
use crate::tls::Certificates;

/// An agent that has not answered the handshakes within this is down, or behind a broken link: the next one is asked.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest answer: a table of a hundred thousand real servers with their counters has about 15 MiB.
const LONGEST_ANSWER: usize = 64 << 20;

/// What may be done after a call that failed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Ask another agent: asking twice does nothing twice.
    Freely,
    /// Ask another agent only if this one has certainly not passed the call on.
    IfUndone,
}

/// The way to the fleet.
#[derive(Debug)]
pub(crate) struct Client {
    endpoints: Vec<String>,
    tls: Option<Certificates>,
    timeout: Duration,
}

impl Client {
    /// Reads the certificates; connects to nobody yet.
    pub(crate) fn new(config: Config, timeout: Duration) -> Result<Self, Failure> {
        let tls = match config.security {
            Security::Insecure => None,
            Security::Tls { ca, cert, key } => Some(Certificates::read(&ca, &cert, &key)?),
        };
        Ok(Self { endpoints: config.endpoints, tls, timeout })
    }

    /// Asks the agents in turn until one answers. An agent that says that there is no quorum is not the last word while there are others:
    /// it may be the one that is cut off.
    pub(crate) async fn call<Q: Clone, A>(
        &self,
        repeat: Repeat,
        request: Q,
        rpc: impl AsyncFn(&mut ControlClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        let mut refused: Option<Failure> = None;
        let mut unreachable: Vec<Failure> = Vec::new();
        for endpoint in &self.endpoints {
            let mut control = match self.connect(endpoint).await {
                Ok(control) => control,
                Err(failure) => {
                    unreachable.push(failure);
                    continue;
                }
            };
            let mut request = Request::new(request.clone());
            request.set_timeout(self.timeout);
            telemetry::inject(request.metadata_mut());
            let answer = tokio::time::timeout(self.timeout, rpc(&mut control, request)).await;
            let status = match answer {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => self.too_late(endpoint),
            };
            if let Some(failure) = self.hung_up(endpoint, &status).await {
                unreachable.push(failure);
                continue;
            }
            let failure = Failure::of(&status);
            if !ask_another(&status, repeat) {
                return Err(failure);
            }
            // The first agent that is up is nearer to the truth than one that is down.
            refused.get_or_insert(failure);
        }
        Err(refused.unwrap_or_else(|| nobody(unreachable)))
    }

    /// Opens a stream at the first agent that can be reached.
    pub(crate) async fn stream<Q, A>(
        &self,
        request: Q,
        rpc: impl AsyncFnOnce(&mut ControlClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        let mut unreachable = Vec::new();
        for endpoint in &self.endpoints {
            match self.connect(endpoint).await {
                Ok(mut control) => {
                    let mut request = Request::new(request);
                    // Until it is opened; what comes then may go on for longer.
                    request.set_timeout(self.timeout);
                    telemetry::inject(request.metadata_mut());
                    let opened =
                        tokio::time::timeout(self.timeout, rpc(&mut control, request)).await;
                    let status = match opened {
                        Ok(Ok(opened)) => return Ok(opened.into_inner()),
                        Ok(Err(status)) => status,
                        Err(_) => self.too_late(endpoint),
                    };
                    let failure = self.hung_up(endpoint, &status).await;
                    return Err(failure.unwrap_or_else(|| Failure::of(&status)));
                }
                Err(failure) => unreachable.push(failure),
            }
        }
        Err(nobody(unreachable))
    }

    /// The next piece of a stream that comes by itself; `None`: that was all.
    pub(crate) async fn next<A>(&self, stream: &mut Streaming<A>) -> Result<Option<A>, Failure> {
        match tokio::time::timeout(self.timeout, stream.message()).await {
            Ok(piece) => piece.map_err(|status| Failure::of(&status)),
            Err(_) => Err(Failure::of(&self.too_late("the agent"))),
        }
    }

    fn too_late(&self, who: &str) -> Status {
        let span = self.timeout.as_millis();
        Status::deadline_exceeded(format!("{who} did not answer within {span} ms"))
    }

    /// The agent hung up before it took the call: nothing was done. Because of the certificates, most likely; then it says so when asked.
    async fn hung_up(&self, endpoint: &str, status: &Status) -> Option<Failure> {
        // Only what went wrong on this side has a source.
        let local = std::error::Error::source(status).is_some();
        if !local && !was_never_sent(status) {
            return None;
        }
        let refusal = match &self.tls {
            Some(certificates) => certificates.refusal(endpoint).await,
            None => None,
        };
        if let Some(refusal) = refusal {
            return Some(Failure::new(Exit::Denied, format!("{endpoint}: {refusal}")));
        }
        was_never_sent(status)
            .then(|| Failure::new(Exit::Failed, format!("{endpoint}: closed the connection")))
    }

    async fn connect(&self, endpoint: &str) -> Result<ControlClient<Channel>, Failure> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let unreachable =
            |reason: String, exit| Failure::new(exit, format!("{endpoint}: {reason}"));
        let failed = |error: tonic::transport::Error| match tls_refusal(&error) {
            Some(refusal) => unreachable(refusal, Exit::Denied),
            None => unreachable(chain(&error), Exit::Failed),
        };
        let mut connection = Endpoint::from_shared(format!("{scheme}://{endpoint}"))
            .map_err(failed)?
            .connect_timeout(CONNECT_TIMEOUT);
        if let Some(certificates) = &self.tls {
            let tls = certificates.config(CONNECT_TIMEOUT);
            connection = connection.tls_config(tls).map_err(failed)?;
        }
        match tokio::time::timeout(2 * CONNECT_TIMEOUT, connection.connect()).await {
            Ok(connected) => connected
                .map(|channel| {
                    ControlClient::new(channel).max_decoding_message_size(LONGEST_ANSWER)
                })
                .map_err(failed),
            Err(_) => Err(unreachable("no answer".into(), Exit::Failed)),
        }
    }
}

/// Whether the connection was gone before the call was written to it (hyper's text: the type does not reach this far).
fn was_never_sent(status: &Status) -> bool {
    status.code() == Code::Cancelled && status.message().starts_with("operation was canceled")
}

fn ask_another(status: &Status, repeat: Repeat) -> bool {
    match repeat {
        _ if is_no_quorum(status) || is_out_of_it(status) || tls_refusal(status).is_some() => true,
        Repeat::Freely => matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded),
        Repeat::IfUndone => false,
    }
}

/// All agents were tried and none was there.
fn nobody(mut unreachable: Vec<Failure>) -> Failure {
    let denied = unreachable.iter().all(|failure| failure.exit == Exit::Denied);
    let exit = if denied { Exit::Denied } else { Exit::Failed };
    let hint = if denied {
        "--ca, --cert and --key must be of this fleet, and its agents must not run with --insecure"
    } else {
        "is lvs-agent running there, and with the same kind of security? --endpoint names another agent"
    };
    let failure = match unreachable.len() {
        1 => {
            Failure::new(exit, format!("cannot reach an agent: {}", unreachable.remove(0).message))
        }
        count => Failure {
            details: unreachable.into_iter().map(|failure| failure.message).collect(),
            ..Failure::new(exit, format!("cannot reach any of {count} agents"))
        },
    };
    failure.hint(hint)
}
