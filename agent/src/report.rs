//! Says to the fleet whether this node's realserver side is in place.
//!
//! *In*: the reconciler's reports, and what the replicated state has of this node. *Out*: a `Ready` entry whenever the two differ; by way of the
//! leader, wherever that is.

use std::time::Duration;

use lvsmesh_core::command::{Command, Readiness};
use lvsmesh_proto::internal::v1::ReportRequest;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::Instrument;

use crate::api::context::Context;
use crate::api::status::{CallError, chain};
use crate::telemetry::propagate;
use crate::writes::Errand;

/// Between attempts, while no leader takes the report.
const RETRY: Duration = Duration::from_millis(500);

/// Runs until `shutdown` turns true.
pub async fn run(context: Context, mut shutdown: watch::Receiver<bool>) {
    let mut reports = context.report.clone();
    let mut applied = context.raft.state.clone();
    loop {
        // What changes from here on wakes the wait below.
        reports.mark_unchanged();
        applied.mark_unchanged();
        let due = due(&context);
        let sent = match &due {
            None => true,
            Some(readiness) => {
                tokio::select! {
                    biased;
                    _ = shutdown.wait_for(|stop| *stop) => return,
                    sent = send(&context, readiness) => sent,
                }
            }
        };
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => return,
            () = sleep(RETRY), if !sent => {}
            changed = reports.changed() => if changed.is_err() { return },
            changed = applied.changed() => if changed.is_err() { return },
        }
    }
}

/// What the fleet should know and does not; `None` if it does, or this node has nothing to say.
fn due(context: &Context) -> Option<Readiness> {
    // Nobody takes the word of a machine that is no node.
    if context.belonging.outcast().is_some() {
        return None;
    }
    let node = context.identity.id;
    let state = context.raft.state.borrow().state.clone();
    if !state.member(node)?.is_real_server() {
        return None;
    }
    let report = context.report.borrow();
    // Before its first round the reconciler has seen nothing: its report is the default one.
    if report.digest == 0 {
        return None;
    }
    let readiness =
        Readiness { node, digest: report.digest, fault: report.real_server_fault.clone() };
    (state.readiness(node) != Some(&readiness)).then_some(readiness)
}

async fn send(context: &Context, readiness: &Readiness) -> bool {
    let span = tracing::info_span!("report.ready", otel.kind = "client");
    propagate::set_parent(&span, &context.raft.state.borrow().traceparent);
    let errand = Errand::own(&context.identity.name);
    let answer = async {
        let request = ReportRequest {
            readiness: Some(readiness.into()),
            traceparent: propagate::current_traceparent(),
        };
        context
            .writes
            .at_leader(
                &errand,
                || async {
                    context.writes.propose(Command::Ready(readiness.clone())).await.map(drop)
                },
                async |links, address| {
                    links.peer(address).report(errand.request(request.clone())).await.map(drop)
                },
            )
            .await
    }
    .instrument(span)
    .await;
    match answer {
        Ok(()) => {
            let fault = readiness.fault.as_deref().unwrap_or("none");
            tracing::info!(digest = readiness.digest, fault, "readiness reported");
            true
        }
        // The state says itself, once, that there is no quorum.
        Err(CallError::NoQuorum { .. }) => false,
        Err(error) => {
            tracing::warn!(
                error = chain(&error),
                "the readiness report was not taken, trying again"
            );
            false
        }
    }
}
