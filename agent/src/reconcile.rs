//! The loop that makes this machine's kernel match its plan: wake, observe, plan, record, perform, report.
//!
//! *In*: the applied state, whether this node holds, the kernel and its news. *Out*: operations, the owner record, a report. What to do is
//! decided by [`lvsmesh_core::plan`]; what is decided here is only when to look, and what to say about it.

mod memory;
mod monitor;
mod perform;
mod round;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use lvsmesh_core::lease::Input;
use lvsmesh_core::model::NodeId;
use lvsmesh_core::placement::NodePlan;
use lvsmesh_core::plan::{Plan, ServiceKey, teardown as undo};
use lvsmesh_kernel::address::{Event, Link};
use lvsmesh_kernel::{Kernel, KernelError, Scope, chain};
use memory::Look;
pub use monitor::monitor;
use round::Rounds;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::Instrument as _;

use crate::guard::Guard;
use crate::lease::{LeaseHandle, Order, Tenure};
use crate::owned::{OwnedError, OwnerRecord};
use crate::raft::Applied;
use crate::telemetry::propagate::set_parent;

/// Depth of the channel of [`Reconciler::news`].
pub const NEWS: usize = 256;

/// Links by name.
pub type Links = BTreeMap<String, Link>;

/// What the last round found; published after every round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// The revision that the round worked for.
    pub revision: u64,
    /// The kernel matched the plan when it was read back.
    pub converged: bool,
    /// Digest of the realserver side that was checked.
    pub digest: u64,
    /// `None`: the realserver side is in place and was read back. Otherwise why not, in one line.
    pub real_server_fault: Option<String>,
    /// Why this node cannot become holder, in one line; `None`: it can.
    pub ineligible: Option<String>,
    /// Services in the kernel that are not ours.
    pub foreign: Vec<ServiceKey>,
    /// VIP addresses of the document that are on a VIP's interface here, or that the lease thread answers for, in order.
    pub vips_attached: Vec<std::net::IpAddr>,
    /// Of each of our services that hashes, what two directors must share in order to choose equally.
    pub hashed: BTreeMap<ServiceKey, u64>,
    /// What else an operator should know, one line each.
    pub warnings: Vec<String>,
    /// Kernel operations performed since the agent started, without the lease's own.
    pub operations: u64,
    /// Changes to what is ours that others made, repaired since the agent started.
    pub drift_repaired: u64,
    /// The last one, in one line.
    pub last_drift: String,
}

impl Default for NodeReport {
    /// Before the first round: nothing is known to be in place.
    fn default() -> Self {
        let why = "the agent has not looked at the kernel yet";
        Self {
            revision: 0,
            converged: false,
            digest: 0,
            real_server_fault: Some(why.to_owned()),
            ineligible: Some(why.to_owned()),
            foreign: vec![],
            vips_attached: vec![],
            hashed: BTreeMap::new(),
            warnings: vec![],
            operations: 0,
            drift_repaired: 0,
            last_drift: String::new(),
        }
    }
}

/// What the loop works with.
#[derive(Debug)]
pub struct Reconciler<K> {
    /// This node.
    pub own: NodeId,
    /// This machine's kernel.
    pub kernel: K,
    /// What of it is ours.
    pub record: OwnerRecord,
    /// The newest applied state.
    pub applied: watch::Receiver<Applied>,
    /// Links by name, from [`monitor()`].
    pub links: watch::Receiver<Links>,
    /// Changes that the kernel reported, from [`monitor()`]. Depth [`NEWS`]: when it is full a round is due anyway, and a round reads all addresses.
    pub news: mpsc::Receiver<Event>,
    /// Whether this node holds, and the way to say that the table stands.
    pub lease: LeaseHandle,
    /// Told which services must not outlive this process.
    pub guard: Option<Guard>,
    /// Where the report goes.
    pub report: watch::Sender<NodeReport>,
}

/// Reconciles until `shutdown` turns true. The lease thread must have ended by then: what a dual-role node programmed for a VIP that it held is
/// removed in a last round.
///
/// # Errors
///
/// If the owner record cannot be read: without it nothing may be touched.
pub async fn run<K: Kernel>(
    reconciler: Reconciler<K>,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), OwnedError> {
    let Reconciler {
        own,
        kernel,
        record,
        mut applied,
        mut links,
        mut news,
        mut lease,
        guard,
        report,
    } = reconciler;
    let mut rounds = Rounds::new(own, kernel, record, guard)?;
    // What was there at the start is new.
    applied.mark_changed();
    let mut next = Instant::now();
    loop {
        let mut cause = String::new();
        let mut stopping = false;
        let mut look = Look::Known;
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => stopping = true,
            Ok(()) = lease.tenure.changed() => {}
            Ok(()) = applied.changed() => {
                cause = applied.borrow().traceparent.clone();
                // What is known is good enough for a change of what is wanted, and the sooner that is done the better.
                look = Look::Change;
            }
            Ok(()) = links.changed() => {}
            Ok(()) = lease.outlook.changed() => {}
            Some(event) = news.recv() => {
                let mut wanted = heed(&mut rounds, &lease, &event);
                while let Ok(event) = news.try_recv() {
                    wanted = wanted.max(heed(&mut rounds, &lease, &event));
                }
                let Some(wanted) = wanted else { continue };
                look = wanted;
            }
            () = sleep_until(next) => look = Look::Part,
        }
        // Rounds that are asked for one after another do not put off the look that is due.
        if Instant::now() >= next {
            look = look.max(Look::Part);
        }
        let tenure = *lease.tenure.borrow_and_update();
        let state = applied.borrow_and_update().clone();
        let seen = links.borrow_and_update().clone();
        if stopping {
            if rounds.must_clear(tenure) {
                rounds.run(&state, tenure, &seen, Look::Part).await;
            }
            return Ok(());
        }
        if let Tenure::Preparing { epoch } = tenure
            && rounds.stands(&state)
        {
            // A pure director's table is warm: the claim need not wait for another look.
            lease.inputs.send(Input::TableReady { epoch });
        }

        // A round that only looks, once a second, belongs to nobody's trace.
        let span = if cause.is_empty() {
            tracing::Span::none()
        } else {
            tracing::info_span!("reconcile.round", revision = state.state.revision())
        };
        set_parent(&span, &cause);
        let observed = rounds.run(&state, tenure, &seen, look).instrument(span).await;
        if let (Tenure::Preparing { epoch }, true) = (tenure, observed) {
            // Also if single objects failed: the others serve.
            lease.inputs.send(Input::TableReady { epoch });
        }
        let mut latest = rounds.report().clone();
        latest.warnings.extend(outlook(&mut lease));
        if latest.ineligible.is_none() {
            // A holder that can claim nothing keeps the VIPs from those who could.
            latest.ineligible.clone_from(&lease.outlook.borrow().unusable);
        }
        let answering = lease.outlook.borrow().answering.clone();
        let also = answering.into_iter().filter(|vip| !latest.vips_attached.contains(vip));
        let mut answered: Vec<_> = also.chain(latest.vips_attached.iter().copied()).collect();
        answered.sort_unstable();
        latest.vips_attached = answered;
        report.send_if_modified(|report| {
            let changed = *report != latest;
            *report = latest;
            changed
        });
        if look >= Look::Part || !observed {
            next = Instant::now() + rounds.pause();
        }
    }
}

/// Takes note of one piece of news; whether it asks for a round, and how much of the table that has to read.
fn heed<K: Kernel>(rounds: &mut Rounds<K>, lease: &LeaseHandle, event: &Event) -> Option<Look> {
    let matters = match event {
        Event::AddressGone { interface, address } => {
            // The lease thread says what is attached before it takes anything away itself.
            if interface != "lo" && lease.outlook.borrow().attached.contains(address) {
                rounds.drift(format!("VIP {address} was taken off {interface}"));
                lease.inputs.order(Order::Refresh);
            }
            rounds.concerns(*address)
        }
        // The holder's own refresh, twice a second, is no news.
        Event::Address { interface, address } => interface == "lo" && rounds.concerns(*address),
        // Links come through their own channel.
        Event::Link(_) | Event::LinkGone { .. } => false,
        // Messages were lost, so nothing is taken for known.
        Event::Resync => return Some(Look::Whole),
    };
    matters.then_some(Look::Known)
}

/// What the lease thread has to say, one line each.
fn outlook(lease: &mut LeaseHandle) -> Vec<String> {
    let outlook = lease.outlook.borrow_and_update();
    let foreign = outlook.foreign.iter().map(|foreign| {
        format!(
            "vips/{}: a VRRP master that is no member is heard: {} with priority {}{}",
            foreign.vip,
            foreign.source,
            foreign.priority,
            if foreign.yielding { "; yielding to it" } else { "" }
        )
    });
    outlook.faults.iter().cloned().chain(foreign).collect()
}

/// Takes everything of ours out of the kernel, sysctls back to what they were: `lvs-agent leave`. What could not be undone stays in the record
/// and is returned, one line each.
///
/// # Errors
///
/// If the record cannot be read or written, or the kernel not be read.
pub async fn teardown<K: Kernel>(
    kernel: &mut K,
    record: &OwnerRecord,
) -> Result<Vec<String>, TeardownError> {
    let owned = record.load()?;
    let scope = Scope::of(!owned.services.is_empty(), &NodePlan::default(), &owned);
    let observed = kernel.observe(&scope).await?;
    let Plan { ops, record: before, settled, .. } = undo(&observed, &owned);
    record.store(&before)?;
    let failures = perform::perform(kernel, &ops).await.failures;
    record.store(if failures.is_empty() { &settled } else { &before })?;
    Ok(failures.into_iter().map(|failure| failure.text).collect())
}

/// Why [`teardown`] left everything as it was, or left off.
#[derive(Debug, thiserror::Error)]
pub enum TeardownError {
    /// The owner record.
    #[error(transparent)]
    Record(#[from] OwnedError),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// An error and its sources in one line.
fn line(error: &dyn std::error::Error) -> String {
    chain(error)
}
