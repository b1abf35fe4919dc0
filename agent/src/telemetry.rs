//! What the agent says about itself: log lines, traces, metrics.
//!
//! *In*: `[telemetry]` of `agent.toml`. *Out*: log lines on standard error; traces and metrics to an OTLP receiver, if there is one; and a
//! page for Prometheus, in [`page`].

pub mod metrics;
pub mod page;
pub mod propagate;

use std::io::{self, IsTerminal};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{LogFormat, Telemetry as Config};

/// A receiver that takes longer over a batch loses it.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// What is still to be sent when the agent stops may take this long.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no telemetry.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The directives, which the configuration has checked.
    #[error("telemetry.log cannot be used")]
    Directives(#[from] tracing_subscriber::filter::ParseError),
    /// The exporter.
    #[error("cannot export to telemetry.otlp_endpoint {endpoint}")]
    Exporter {
        /// The endpoint.
        endpoint: String,
        /// Why.
        #[source]
        source: ExporterBuildError,
    },
    /// Another subscriber is there.
    #[error("logging was set up twice")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends what is left when it is shut down.
#[derive(Debug)]
pub struct Telemetry {
    traces: SdkTracerProvider,
    metrics: Option<SdkMeterProvider>,
}

impl Telemetry {
    /// Starts logging, and exporting if there is a receiver. To be called once, inside the tokio runtime that the exporter will use.
    ///
    /// # Errors
    ///
    /// If the configuration cannot be used, or logging was started before.
    pub fn start(config: &Config, node: &str) -> Result<Self, TelemetryError> {
        let telemetry = Self::exporters(config, node)?;
        let tracer = telemetry.traces.tracer("lvs-agent");
        let traces =
            tracing_opentelemetry::layer().with_tracer(tracer).with_filter(filter_fn(ours));
        let log = log(config.log_format).with_filter(EnvFilter::try_new(&config.log)?);
        tracing_subscriber::registry().with(log).with(traces).try_init()?;
        Ok(telemetry)
    }

    /// Without a receiver spans still get ids, so that a trace which passes through this node is not cut in two.
    fn exporters(config: &Config, node: &str) -> Result<Self, TelemetryError> {
        let resource = Resource::builder()
            .with_service_name("lvs-agent")
            .with_attributes([
                KeyValue::new("service.instance.id", node.to_owned()),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            ])
            .build();
        let traces = SdkTracerProvider::builder().with_resource(resource.clone());
        let Some(endpoint) = &config.otlp_endpoint else {
            return Ok(Self { traces: traces.build(), metrics: None });
        };
        let failed = |source| TelemetryError::Exporter { endpoint: endpoint.clone(), source };
        let spans = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(failed)?;
        let measurements = MetricExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(failed)?;
        let metrics = SdkMeterProvider::builder()
            .with_resource(resource)
            .with_periodic_exporter(measurements)
            .build();
        Ok(Self { traces: traces.with_batch_exporter(spans).build(), metrics: Some(metrics) })
    }

    /// Where instruments register; `None` without a receiver.
    #[must_use]
    pub fn meter(&self) -> Option<Meter> {
        self.metrics.as_ref().map(|provider| provider.meter("lvs-agent"))
    }

    /// Sends what is left, for two seconds at most. The exporters' threads need the runtime while they do, so they are waited for elsewhere.
    pub async fn shut_down(self) {
        let flush = tokio::task::spawn_blocking(move || {
            let spans = self.traces.shutdown_with_timeout(FLUSH_TIMEOUT);
            let metrics =
                self.metrics.map_or(Ok(()), |metrics| metrics.shutdown_with_timeout(FLUSH_TIMEOUT));
            spans.and(metrics)
        });
        match tokio::time::timeout(FLUSH_TIMEOUT, flush).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => {
                tracing::debug!(%error, "the last traces or metrics were not sent");
            }
            Ok(Err(error)) => tracing::debug!(%error, "the exporters panicked"),
            Err(_) => tracing::debug!("the receiver took too long over the last traces"),
        }
    }
}

/// What goes to the receiver: spans and events of our own crates. Those of the HTTP/2 client that carries them there would beget more.
fn ours(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    (target.starts_with("lvsmesh") || target.starts_with("lvs_agent"))
        && *metadata.level() <= Level::INFO
}

fn log<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().boxed(),
    }
}
