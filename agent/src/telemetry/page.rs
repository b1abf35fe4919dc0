//! The page that Prometheus reads: `http://LISTEN.METRICS/metrics`, in OpenMetrics' text form.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::metrics::{self, Kind, Sample, Sources};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on listen.metrics {address}")]
pub struct PageError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// The page's listener, bound.
#[derive(Debug)]
pub struct Page {
    listener: TcpListener,
    address: SocketAddr,
}

impl Page {
    /// Takes the address.
    ///
    /// # Errors
    ///
    /// If another program has it.
    pub async fn bind(address: SocketAddr) -> Result<Self, PageError> {
        let failed = |source| PageError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it is.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the page until `shutdown` turns true.
    pub async fn serve(self, sources: Sources, mut shutdown: watch::Receiver<bool>) {
        let registry = Arc::new(registry(sources));
        let router = Router::new().route("/metrics", routing::get(render)).with_state(registry);
        let stop = async move {
            // An error says that nobody can ask us to stop any more, which asks us to stop.
            drop(shutdown.wait_for(|stop| *stop).await);
        };
        if let Err(error) = axum::serve(self.listener, router).with_graceful_shutdown(stop).await {
            tracing::error!(%error, "the metrics page is gone");
        }
    }
}

async fn render(State(registry): State<Arc<Registry>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn registry(sources: Sources) -> Registry {
    let mut registry = Registry::with_prefix("lvsmesh");
    registry.register_collector(Box::new(Measures(sources)));
    registry
}

#[derive(Debug)]
struct Measures(Sources);

impl Collector for Measures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for measure in metrics::all() {
            let (name, kind) = (measure.name.replace('.', "_"), measure.kind);
            let unit = (measure.unit == "s").then_some(Unit::Seconds);
            let metric_type = match kind {
                Kind::Gauge => MetricType::Gauge,
                Kind::Counter => MetricType::Counter,
            };
            let mut family =
                encoder.encode_descriptor(&name, measure.help, unit.as_ref(), metric_type)?;
            for Sample { labels, value } in (measure.read)(&self.0) {
                if labels.is_empty() {
                    // A family would print an empty pair of braces.
                    write(&mut family, kind, value)?;
                } else {
                    write(&mut family.encode_family(&labels)?, kind, value)?;
                }
            }
        }
        Ok(())
    }
}

fn write(metric: &mut MetricEncoder<'_>, kind: Kind, value: f64) -> Result<(), std::fmt::Error> {
    match kind {
        Kind::Gauge => metric.encode_gauge(&value),
        Kind::Counter => metric.encode_counter::<NoLabelSet, f64, u64>(&value, None),
    }
}
