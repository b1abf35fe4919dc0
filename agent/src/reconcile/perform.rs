//! Performs what a plan lists: batches of operations that do not wait for one another, one batch after another.

use lvsmesh_core::plan::path::PathAction;
use lvsmesh_core::plan::{Action, Failed, Op, batches};
use lvsmesh_kernel::{Kernel, KernelError};
use tracing::field::Empty;

use super::round::explain;

/// A batch of up to this many operations is logged and traced one by one, a greater one as a whole.
const TOLD: usize = 32;

/// An operation that failed, or was not tried because of one that had.
#[derive(Debug)]
pub(super) struct Failure {
    /// Operation and reason, in one line.
    pub(super) text: String,
    /// It may have been performed all the same.
    pub(super) uncertain: bool,
}

/// What became of a list of operations.
#[derive(Debug, Default)]
pub(super) struct Performed {
    /// How many succeeded.
    pub(super) done: u64,
    /// The others.
    pub(super) failures: Vec<Failure>,
}

/// Performs what can be performed, in order. What failed keeps back only what must not be done without it.
pub(super) async fn perform<K: Kernel>(kernel: &mut K, ops: &[Op]) -> Performed {
    let mut out = Performed::default();
    let mut failed = Failed::default();
    for batch in batches(ops) {
        let mut ready: Vec<&Op> = Vec::with_capacity(batch.len());
        for op in batch {
            let Some(cause) = failed.cause(&op.action) else {
                ready.push(op);
                continue;
            };
            let text = format!("{}: not done, because this failed: {cause}", op.action);
            out.failures.push(Failure { text, uncertain: false });
            failed.note(&op.action);
        }
        let outcomes = send(kernel, &ready).await;
        for (op, outcome) in ready.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) => out.done += 1,
                Err(error) => {
                    let uncertain = error.is_uncertain();
                    out.failures.push(Failure { text: explain(&error), uncertain });
                    failed.note(&op.action);
                }
            }
        }
    }
    out
}

/// Sends operations on their way together, and tells the log and the trace what became of them.
async fn send<K: Kernel>(kernel: &mut K, ops: &[&Op]) -> Vec<Result<(), KernelError>> {
    let Some(first) = ops.first() else { return vec![] };
    let actions: Vec<&Action> = ops.iter().map(|op| &op.action).collect();
    if ops.len() > TOLD {
        let count = ops.len();
        let span =
            tracing::info_span!("kernel.perform", op = kind(&first.action), count, error = Empty);
        let outcomes = kernel.perform_all(&actions).await;
        for (op, outcome) in ops.iter().zip(&outcomes) {
            if outcome.is_ok() {
                tracing::debug!(parent: &span, action = %op.action, reason = %op.reason, "performed");
            }
        }
        let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        if failed > 0 {
            span.record("error", format!("{failed} of {count} failed"));
        }
        tracing::info!(parent: &span, first = %first.action, reason = %first.reason, count, failed, "performed many");
        return outcomes;
    }
    let spans: Vec<_> = ops
        .iter()
        .map(|op| tracing::info_span!("kernel.perform", op = kind(&op.action), object = %op.action, error = Empty))
        .collect();
    let outcomes = kernel.perform_all(&actions).await;
    for ((op, span), outcome) in ops.iter().zip(&spans).zip(&outcomes) {
        match outcome {
            Ok(()) => {
                tracing::info!(parent: span, action = %op.action, reason = %op.reason, "performed");
            }
            Err(error) => {
                span.record("error", explain(error));
            }
        }
    }
    outcomes
}

/// A name of low cardinality for spans.
fn kind(action: &Action) -> &'static str {
    match action {
        Action::AddService(..) => "add_service",
        Action::SetService(..) => "set_service",
        Action::RemoveService(_) => "remove_service",
        Action::AddDestination(..) => "add_real_server",
        Action::SetDestination(..) => "set_real_server",
        Action::RemoveDestination(..) => "remove_real_server",
        Action::AddAddress { .. } => "add_address",
        Action::RemoveAddress { .. } => "remove_address",
        Action::SetSysctl { .. } => "set_sysctl",
        Action::SetTimeout { .. } => "set_timeout",
        Action::StartDaemon(_) => "start_daemon",
        Action::StopDaemon(_) => "stop_daemon",
        Action::SetMarks(_) => "set_marks",
        Action::ClearMarks => "clear_marks",
        Action::Path(action) => match action {
            PathAction::AddTunnel(_) => "add_tunnel",
            PathAction::RaiseTunnel(_) => "raise_tunnel",
            PathAction::RemoveTunnel(_) => "remove_tunnel",
            PathAction::AddPort(_) => "add_gue_port",
            PathAction::RemovePort(_) => "remove_gue_port",
            PathAction::AddRule(_) => "add_rule",
            PathAction::RemoveRule(_) => "remove_rule",
            PathAction::AddRoute(_) => "add_route",
            PathAction::RemoveRoute(_) => "remove_route",
        },
    }
}
