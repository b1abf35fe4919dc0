//! The command itself as the root of the trace that it starts.
//!
//! With `OTEL_EXPORTER_OTLP_ENDPOINT` in the environment the command's span is exported there, and agents continue its trace. With
//! `TRACEPARENT` it is itself a child of whatever started it. Without either nothing is traced here, and agents start their own traces.

use std::collections::HashMap;
use std::time::Duration;

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tonic::metadata::{MetadataMap, MetadataValue};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::failure::{Exit, Failure};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PARENT: &str = "TRACEPARENT";
const HEADER: &str = "traceparent";
/// A receiver that is slow or gone must not keep an operator waiting.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Sends what is left when it is shut down.
#[derive(Debug)]
pub(crate) struct Telemetry {
    traces: Option<SdkTracerProvider>,
    parent: Option<String>,
}

/// Starts tracing, if the environment asks for it. To be called once, inside the runtime.
pub(crate) fn start() -> Result<Telemetry, Failure> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (endpoint, parent) = (set(ENDPOINT), set(PARENT));
    if endpoint.is_none() && parent.is_none() {
        return Ok(Telemetry { traces: None, parent });
    }
    let resource = Resource::builder()
        .with_service_name("lvsctl")
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let mut traces = SdkTracerProvider::builder().with_resource(resource);
    if let Some(endpoint) = endpoint {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&endpoint)
            .with_timeout(FLUSH_TIMEOUT)
            .build()
            .map_err(|error| {
                Failure::new(
                    Exit::Failed,
                    format!("cannot export to {ENDPOINT}={endpoint}: {error}"),
                )
            })?;
        traces = traces.with_batch_exporter(exporter);
    }
    let traces = traces.build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(traces.tracer("lvsctl"))
        // Spans of the HTTP/2 client that carries spans away would beget more.
        .with_filter(filter_fn(|metadata| metadata.target().starts_with("lvsmesh")));
    tracing_subscriber::registry()
        .with(layer)
        .try_init()
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot start tracing: {error}")))?;
    Ok(Telemetry { traces: Some(traces), parent })
}

impl Telemetry {
    /// Makes `span` a child of what `TRACEPARENT` names. Must come before the span is first entered.
    pub(crate) fn adopt(&self, span: &Span) {
        if let Some(parent) = &self.parent {
            let carrier = HashMap::from([(HEADER.to_owned(), parent.clone())]);
            // Fails only without an OpenTelemetry layer, when there is no trace to join.
            let _ = span.set_parent(TraceContextPropagator::new().extract(&carrier));
        }
    }

    /// Sends what is left. The exporter's thread needs the runtime while it does, so it is waited for elsewhere.
    pub(crate) async fn shut_down(self) {
        let Some(traces) = self.traces else { return };
        let flush =
            tokio::task::spawn_blocking(move || traces.shutdown_with_timeout(FLUSH_TIMEOUT));
        // A trace that is lost is not worth a word to somebody who asked about a fleet.
        drop(tokio::time::timeout(FLUSH_TIMEOUT, flush).await);
    }
}

/// Writes the current span's context into a request about to be sent.
pub(crate) fn inject(metadata: &mut MetadataMap) {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    let value = carrier.remove(HEADER).and_then(|value| MetadataValue::try_from(value).ok());
    if let Some(value) = value {
        metadata.insert(HEADER, value);
    }
}
