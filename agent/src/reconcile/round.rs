//! One round: observe, plan, record, perform, read back.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lvsmesh_core::model::{Member, NodeId, Vip};
use lvsmesh_core::placement::{NodePlan, place};
use lvsmesh_core::plan::address::real_server_fault;
use lvsmesh_core::plan::{Action, Observed, Op, Owned, Plan, blocks, diff};
use lvsmesh_kernel::{Kernel, KernelError, Scope, ipvs_missing};
use tracing::Instrument as _;

use super::{Links, NodeReport, line};
use crate::guard::Guard;
use crate::lease::Tenure;
use crate::owned::{OwnedError, OwnerRecord};
use crate::raft::Applied;

/// What stays from round to round.
#[derive(Debug)]
pub(super) struct Rounds<K> {
    own: NodeId,
    kernel: K,
    record: OwnerRecord,
    guard: Option<Guard>,
    /// What the record on the disk says.
    owned: Owned,
    last: Option<Last>,
    report: NodeReport,
}

/// How the last round that could look at the kernel ended.
#[derive(Debug)]
struct Last {
    plan: NodePlan,
    /// The table is only here because this node holds.
    borrowed: bool,
    /// Operations that were still to do: what failed, or what somebody undid at once.
    left: Vec<Action>,
    /// Failures that were logged.
    failures: BTreeSet<String>,
}

/// An operation that failed, or was not tried because of one that had.
#[derive(Debug)]
pub(super) struct Failure {
    /// Operation and reason, in one line.
    pub(super) text: String,
}

/// What became of a list of operations.
#[derive(Debug, Default)]
pub(super) struct Performed {
    /// How many succeeded.
    pub(super) done: u64,
    /// The others.
    pub(super) failures: Vec<Failure>,
}

impl<K: Kernel> Rounds<K> {
    pub(super) fn new(
        own: NodeId,
        kernel: K,
        record: OwnerRecord,
        guard: Option<Guard>,
    ) -> Result<Self, OwnedError> {
        let owned = record.load()?;
        Ok(Self { own, kernel, record, guard, owned, last: None, report: NodeReport::default() })
    }

    pub(super) fn report(&self) -> &NodeReport {
        &self.report
    }

    /// Counts a change that others made to what is ours.
    pub(super) fn drift(&mut self, what: String) {
        tracing::warn!(drift = %what, "a change made by others is being repaired");
        self.report.drift_repaired += 1;
        self.report.last_drift = what;
    }

    /// Whether the address is one that the plan is about.
    pub(super) fn concerns(&self, address: IpAddr) -> bool {
        self.last.as_ref().is_some_and(|last| {
            last.plan.real_server.addresses.contains(&address)
                || last.plan.vips.iter().any(|vip| vip.addresses.contains(&address))
        })
    }

    /// Whether the table that a holder needs was there when the kernel was last read.
    pub(super) fn stands(&self, applied: &Applied) -> bool {
        self.last.as_ref().is_some_and(|last| {
            last.plan.table == place(&applied.state, self.own, true).table
                && !last.left.iter().any(is_about_table)
        })
    }

    /// Whether the kernel still has what only a holder may have.
    pub(super) fn must_clear(&self, tenure: Tenure) -> bool {
        tenure == Tenure::None && self.last.as_ref().is_some_and(|last| last.borrowed)
    }

    /// Runs a round and leaves its findings in [`Self::report`]. Says whether the kernel could be read.
    pub(super) async fn run(&mut self, applied: &Applied, tenure: Tenure, links: &Links) -> bool {
        if let Some(guard) = &self.guard
            && let Err(error) = guard.tend()
        {
            tracing::error!(%error, "the guard process cannot be started; a dead agent would leave its VIPs");
        }
        let state = &applied.state;
        self.report.revision = state.revision();
        self.report.warnings.clear();
        let Some(member) = state.member(self.own) else {
            // Fail static: an empty disk or a removal is no order to take down what serves. `lvs-agent leave` is.
            let why = "this node is no member of the fleet in the state that it has applied";
            self.report.converged = false;
            self.report.ineligible = Some(why.to_owned());
            self.report.real_server_fault = Some(why.to_owned());
            return false;
        };
        let plan = place(state, self.own, tenure != Tenure::None);
        match self.reconcile(member, &plan, tenure).await {
            Ok((observed, left)) => {
                let needs_ipvs = !place(state, self.own, true).table.is_empty();
                self.conclude(member, plan, &observed, left, needs_ipvs, links);
                true
            }
            Err(fault) => {
                // Whether this node may hold stays as it was: one unanswered question is no reason to move the VIPs.
                tracing::error!(error = %fault, "a round failed, trying again");
                self.report.converged = false;
                self.report.warnings.push(fault);
                false
            }
        }
    }

    /// Does what has to be done. Returns the kernel as it is afterwards, and what is left to do.
    async fn reconcile(
        &mut self,
        member: &Member,
        plan: &NodePlan,
        tenure: Tenure,
    ) -> Result<(Observed, Plan), String> {
        let scope = self.scope(member, plan);
        let observed = self.observe(&scope).await?;
        let work = diff(&observed, plan, &self.owned);
        self.keep(&work.record)?;
        self.note_drift(plan, &work.ops);

        let borrowed = member.is_director() && member.is_real_server();
        if let Some(guard) = &self.guard {
            // Before the first operation; a pure director's table outlives its agent.
            guard.serve(&if borrowed { work.record.services.clone() } else { BTreeSet::new() });
        }
        let performed = perform(&mut self.kernel, &work.ops).await;
        self.report.operations += performed.done;
        let clean = performed.failures.is_empty();
        if clean {
            self.keep(&work.settled)?;
            if let Some(guard) = self.guard.as_ref().filter(|_| borrowed) {
                guard.serve(&work.settled.services);
            }
        }
        let known = self.last.as_ref().map(|last| last.failures.clone()).unwrap_or_default();
        let failures: BTreeSet<String> =
            performed.failures.into_iter().map(|failure| failure.text).collect();
        for failure in failures.difference(&known) {
            tracing::warn!(%failure, "an operation failed; the others go on");
        }
        self.report.warnings.extend(failures.iter().cloned());
        self.last = Some(Last {
            plan: plan.clone(),
            borrowed: borrowed && tenure != Tenure::None,
            left: vec![],
            failures,
        });
        if work.ops.is_empty() {
            return Ok((observed, work));
        }
        // Believed only when it is read back.
        let observed = self.observe(&scope).await?;
        let left = diff(&observed, plan, &self.owned);
        Ok((observed, left))
    }

    fn conclude(
        &mut self,
        member: &Member,
        plan: NodePlan,
        observed: &Observed,
        left: Plan,
        needs_ipvs: bool,
        links: &Links,
    ) {
        let no_ipvs = needs_ipvs && member.is_director() && observed.table.is_none();
        let report = &mut self.report;
        report.converged =
            left.ops.is_empty() && left.withheld.is_empty() && (plan.table.is_empty() || !no_ipvs);
        report.digest = plan.real_server.digest();
        report.real_server_fault = real_server_fault(observed, &plan.real_server);
        report.foreign = left.foreign.into_iter().collect();
        report.vips_attached = attached(observed, &plan.vips);
        report.warnings.extend(left.withheld);
        let ipvs = no_ipvs.then(|| explain(&ipvs_missing()));
        report.warnings.extend(ipvs.clone());
        report.ineligible = if member.is_director() {
            ipvs.or_else(|| plan.vips.iter().find_map(|vip| interface_fault(vip, links)))
        } else {
            Some("this node is no director".to_owned())
        };
        if let Some(last) = &mut self.last {
            last.left = left.ops.into_iter().map(|op| op.action).collect();
        }
    }

    fn scope(&self, member: &Member, plan: &NodePlan) -> Scope {
        let sysctls = plan.real_server.sysctls.keys().chain(self.owned.sysctls.keys());
        Scope {
            ipvs: member.is_director() || !self.owned.services.is_empty(),
            sysctls: sysctls.cloned().collect(),
        }
    }

    async fn observe(&mut self, scope: &Scope) -> Result<Observed, String> {
        self.kernel.observe(scope).await.map_err(|error| explain(&error))
    }

    /// Puts `owned` on the disk, unless it is there already.
    fn keep(&mut self, owned: &Owned) -> Result<(), String> {
        if *owned != self.owned {
            self.record
                .store(owned)
                .map_err(|error| format!("{}; {}", line(&error), error.hint()))?;
            self.owned = owned.clone();
        }
        Ok(())
    }

    /// What was right after the last round and is wrong under the same plan was changed by someone else.
    fn note_drift(&mut self, plan: &NodePlan, ops: &[Op]) {
        let Some(last) = self.last.as_ref().filter(|last| last.plan == *plan) else { return };
        let drifted: Vec<String> = ops
            .iter()
            .filter(|op| !last.left.contains(&op.action))
            .map(|op| format!("{} ({})", op.action, op.reason))
            .collect();
        for what in drifted {
            self.drift(what);
        }
    }
}

/// Performs what can be performed, in order. What failed keeps back only what must not be done without it.
pub(super) async fn perform<K: Kernel>(kernel: &mut K, ops: &[Op]) -> Performed {
    let mut out = Performed::default();
    let mut failed: Vec<&Action> = vec![];
    for op in ops {
        if let Some(cause) = failed.iter().find(|failed| blocks(failed, &op.action)) {
            let text = format!("{}: not done, because this failed: {cause}", op.action);
            out.failures.push(Failure { text });
            failed.push(&op.action);
            continue;
        }
        let span = tracing::info_span!("kernel.perform", op = kind(&op.action), object = %op.action, error = tracing::field::Empty);
        let outcome = kernel.perform(&op.action).instrument(span.clone()).await;
        match outcome {
            Ok(()) => {
                tracing::info!(parent: &span, action = %op.action, reason = %op.reason, "performed");
                out.done += 1;
            }
            Err(error) => {
                let text = explain(&error);
                span.record("error", text.as_str());
                out.failures.push(Failure { text });
                failed.push(&op.action);
            }
        }
    }
    out
}

/// Why a VIP could not be claimed on its interface.
fn interface_fault(vip: &Vip, links: &Links) -> Option<String> {
    let (name, interface) = (&vip.name, &vip.interface);
    match links.get(interface) {
        None => Some(format!("vips/{name}: this machine has no interface {interface}")),
        Some(link) if !link.up => Some(format!("vips/{name}: interface {interface} is down")),
        Some(link) if !link.usable() => {
            Some(format!("vips/{name}: interface {interface} has no carrier"))
        }
        Some(_) => None,
    }
}

fn attached(observed: &Observed, vips: &[Vip]) -> Vec<IpAddr> {
    let on = |vip: &Vip, address: &IpAddr| {
        let same = |seen: &lvsmesh_core::plan::Address| {
            seen.interface == vip.interface && seen.address == *address
        };
        observed.addresses.iter().any(same)
    };
    let attached: BTreeSet<IpAddr> = vips
        .iter()
        .flat_map(|vip| vip.addresses.iter().filter(move |address| on(vip, address)).copied())
        .collect();
    attached.into_iter().collect()
}

/// The error with its sources and what can be done, in one line.
fn explain(error: &KernelError) -> String {
    match error.hint() {
        Some(hint) => format!("{} ({hint})", line(error)),
        None => line(error),
    }
}

fn is_about_table(action: &Action) -> bool {
    match action {
        Action::AddService(..)
        | Action::SetService(..)
        | Action::RemoveService(_)
        | Action::AddDestination(..)
        | Action::SetDestination(..)
        | Action::RemoveDestination(..) => true,
        Action::AddAddress { .. } | Action::RemoveAddress { .. } | Action::SetSysctl { .. } => {
            false
        }
    }
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
    }
}
