//! Carries W3C trace context through gRPC metadata and through the replicated log.
//!
//! *In*: the current span, or a `traceparent` that came with a call or a log entry. *Out*: the same as text, and spans with remote parents.
//! `tracestate` is not carried: nothing here writes it.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::{MetadataMap, MetadataValue};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The header's name, in HTTP as in the propagator's map.
const TRACEPARENT: &str = "traceparent";

/// The current span as a W3C `traceparent`; empty if there is no trace to continue.
#[must_use]
pub fn current_traceparent() -> String {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    carrier.remove(TRACEPARENT).unwrap_or_default()
}

/// Makes `span` a child of the span that `traceparent` names, on whatever machine that is. Must come before the span is first entered.
/// An empty or malformed `traceparent` leaves the span as it is.
pub fn set_parent(span: &Span, traceparent: &str) {
    if traceparent.is_empty() {
        return;
    }
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let parent = TraceContextPropagator::new().extract(&carrier);
    // Fails only without an OpenTelemetry layer or for a span that the filter left out, when there is no trace to join.
    let _ = span.set_parent(parent);
}

/// Writes the current span's context into a request about to be sent.
pub fn inject(metadata: &mut MetadataMap) {
    // A traceparent is hexadecimal digits and dashes, which always make a metadata value.
    if let Ok(value) = MetadataValue::try_from(current_traceparent())
        && !value.is_empty()
    {
        metadata.insert(TRACEPARENT, value);
    }
}

/// The `traceparent` that came with a call; empty if none did.
#[must_use]
pub fn extract(metadata: &MetadataMap) -> String {
    metadata.get(TRACEPARENT).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, TraceContextExt, TracerProvider as _};
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing::info_span;
    use tracing_subscriber::prelude::*;

    use super::*;

    fn traced<T>(test: impl FnOnce() -> T) -> T {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), test)
    }

    fn current() -> SpanContext {
        Span::current().context().span().span_context().clone()
    }

    #[test]
    fn a_call_continues_the_callers_trace() {
        traced(|| {
            let mut metadata = MetadataMap::new();
            let caller = info_span!("caller").in_scope(|| {
                inject(&mut metadata);
                current()
            });
            let span = info_span!("callee");
            set_parent(&span, &extract(&metadata));
            let callee = span.in_scope(current);

            assert!(caller.is_valid());
            assert_eq!(callee.trace_id(), caller.trace_id());
            assert_ne!(callee.span_id(), caller.span_id());
        });
    }

    #[test]
    fn a_log_entry_continues_its_proposers_trace() {
        traced(|| {
            let (text, proposer) =
                info_span!("raft.propose").in_scope(|| (current_traceparent(), current()));
            let span = info_span!("raft.apply");
            set_parent(&span, &text);

            assert_eq!(text, format!("00-{}-{}-01", proposer.trace_id(), proposer.span_id()));
            assert_eq!(span.in_scope(current).trace_id(), proposer.trace_id());
        });
    }

    #[test]
    fn without_a_trace_nothing_is_carried() {
        let mut metadata = MetadataMap::new();
        inject(&mut metadata);
        assert!(metadata.is_empty());
        assert_eq!(extract(&metadata), "");
        assert_eq!(current_traceparent(), "");
    }

    #[test]
    fn a_malformed_parent_starts_a_trace_of_its_own() {
        traced(|| {
            for text in ["", "00-zz", "00-00000000000000000000000000000000-0000000000000000-01"] {
                let span = info_span!("callee");
                set_parent(&span, text);
                assert!(span.in_scope(current).is_valid(), "{text:?}");
            }
        });
    }
}
