//! One round: observe, plan, record, perform, read back.
//!
//! Of the table a round reads as little as it can ([`Look`]), and it plans and compares only the services that may differ: what it costs to change
//! one weight does not depend on how many there are. Where what was known proves wrong, the same round looks at everything.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use lvsmesh_core::model::{Member, NodeId, Vip};
use lvsmesh_core::placement::{Change, NodePlan, Placer, needs_table};
use lvsmesh_core::plan::address::{director_fault, real_server_fault};
use lvsmesh_core::plan::hashed::digest;
use lvsmesh_core::plan::{Action, Extent, Observed, Op, Owned, Plan, ServiceKey, diff_within};
use lvsmesh_kernel::{Kernel, KernelError, Scope, ipvs_missing};

use super::memory::{Look, Memory};
use super::perform::{Failure, perform};
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
    memory: Memory,
    /// What only a holder may have may be in the kernel.
    borrowed: bool,
    placer: Placer,
    /// How the plan differs from the one that the last round which could look at the kernel went by.
    pending: Change,
    last: Option<Last>,
    report: NodeReport,
}

/// How the last round that could look at the kernel ended.
#[derive(Debug)]
struct Last {
    /// Operations that were still to do: what failed, or what somebody undid at once.
    left: BTreeSet<Action>,
    /// Failures that were logged.
    failures: BTreeSet<String>,
}

/// What came of planning and performing once.
struct Pass {
    observed: Observed,
    /// The services that `left` is about: the others are as planned.
    extent: Extent,
    left: Plan,
    failures: Vec<Failure>,
    /// Something failed that did not fail in the round before.
    surprised: bool,
}

/// More lines than this of one kind are not told one by one.
const LINES: usize = 16;

impl<K: Kernel> Rounds<K> {
    pub(super) fn new(
        own: NodeId,
        kernel: K,
        record: OwnerRecord,
        guard: Option<Guard>,
    ) -> Result<Self, OwnedError> {
        let owned = record.load()?;
        let (memory, report) = (Memory::default(), NodeReport::default());
        Ok(Self {
            own,
            kernel,
            record,
            guard,
            owned,
            memory,
            borrowed: false,
            placer: Placer::new(own),
            pending: Change::none(),
            last: None,
            report,
        })
    }

    pub(super) fn report(&self) -> &NodeReport {
        &self.report
    }

    /// How long to wait before the next look that nothing asks for.
    pub(super) fn pause(&self) -> Duration {
        self.memory.pause()
    }

    /// Counts a change that others made to what is ours.
    pub(super) fn drift(&mut self, what: String) {
        tracing::warn!(drift = %what, "a change made by others is being repaired");
        self.report.drift_repaired += 1;
        self.report.last_drift = what;
    }

    /// Whether the address is one that the plan is about.
    pub(super) fn concerns(&self, address: IpAddr) -> bool {
        let plan = self.placer.plan();
        plan.real_server.addresses.contains(&address)
            || plan.vips.iter().any(|vip| vip.addresses.contains(&address))
    }

    /// Whether the table that a holder needs was there when the kernel was last read.
    pub(super) fn stands(&mut self, applied: &Applied) -> bool {
        self.place(applied, true);
        self.pending.services.is_empty()
            && self.last.as_ref().is_some_and(|last| !last.left.iter().any(Action::is_about_table))
    }

    /// Brings the plan up to date, and remembers what of it is new to the kernel.
    fn place(&mut self, applied: &Applied, holding: bool) {
        let change = self.placer.update(&applied.state, holding);
        self.pending.and(change);
    }

    /// Whether the kernel still has what only a holder may have.
    pub(super) fn must_clear(&self, tenure: Tenure) -> bool {
        tenure == Tenure::None && self.borrowed
    }

    /// Runs a round and leaves its findings in [`Self::report`]. Says whether the kernel could be read.
    pub(super) async fn run(
        &mut self,
        applied: &Applied,
        tenure: Tenure,
        links: &Links,
        look: Look,
    ) -> bool {
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
        self.place(applied, tenure != Tenure::None);
        let plan = self.placer.plan();
        let borrowed = member.is_director() && member.is_real_server() && tenure != Tenure::None;
        self.borrowed |= borrowed;
        match self.reconcile(member, &plan, look).await {
            Ok(pass) => {
                self.borrowed = borrowed;
                let needs_ipvs = member.is_director() && needs_table(state);
                self.conclude(member, &plan, pass, needs_ipvs, links);
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

    /// Does what has to be done. A surprise means that what was known of the table is wrong: then all of it is read and the rest done by that.
    async fn reconcile(
        &mut self,
        member: &Member,
        plan: &NodePlan,
        look: Look,
    ) -> Result<Pass, String> {
        let scope = self.scope(member, plan);
        let whole = look == Look::Whole || !scope.ipvs || self.memory.is_empty();
        let pass = self.pass(member, plan, &scope, look).await?;
        if whole || !pass.surprised {
            return Ok(pass);
        }
        self.pass(member, plan, &scope, Look::Whole).await
    }

    /// Observes, plans, records, performs and reads back.
    async fn pass(
        &mut self,
        member: &Member,
        plan: &NodePlan,
        scope: &Scope,
        look: Look,
    ) -> Result<Pass, String> {
        let extent = match look {
            Look::Change | Look::Known if scope.ipvs && !self.memory.is_empty() => self.unsettled(),
            Look::Change | Look::Known | Look::Part | Look::Whole => Extent::All,
        };
        // Beside the table there is something to do, or something was left to do.
        let others =
            self.last.as_ref().is_none_or(|last| !last.left.iter().all(Action::is_about_table));
        let look = if self.pending.others || others { look.max(Look::Known) } else { look };
        let observed =
            self.memory.observe(&mut self.kernel, scope, look).await.map_err(|e| explain(&e))?;
        let work = diff_within(&extent, &observed, plan, &self.owned);
        self.keep(&work.record)?;
        self.note_drift(&work.ops);

        let borrowed = member.is_director() && member.is_real_server();
        if let Some(guard) = &self.guard {
            // Before the first operation; a pure director's table outlives its agent.
            guard.serve(&if borrowed { work.record.services.clone() } else { BTreeSet::new() });
        }
        if work.ops.is_empty() {
            self.settle(&work.settled, borrowed)?;
            return Ok(Pass { observed, extent, left: work, failures: vec![], surprised: false });
        }
        let performed = perform(&mut self.kernel, &work.ops).await;
        self.report.operations += performed.done;
        if performed.failures.is_empty() {
            self.settle(&work.settled, borrowed)?;
        }
        let none = BTreeSet::new();
        let known = self.last.as_ref().map_or(&none, |last| &last.failures);
        let surprised = performed.failures.iter().any(|failure| !known.contains(&failure.text));
        // Believed only when it is read back.
        let uncertain = performed.failures.iter().any(|failure| failure.uncertain);
        let (observed, read) = self
            .memory
            .read_back(&mut self.kernel, scope, observed.table, &work.ops, uncertain)
            .await
            .map_err(|error| explain(&error))?;
        let mut extent = extent;
        extent.add(read);
        let left = diff_within(&extent, &observed, plan, &self.owned);
        Ok(Pass { observed, extent, left, failures: performed.failures, surprised })
    }

    /// The services that may not be as planned, if the kernel is as it was when it was last read.
    fn unsettled(&self) -> Extent {
        let mut extent = self.pending.services.clone();
        match &self.last {
            Some(last) => {
                let left = last.left.iter().filter_map(Action::service).copied();
                extent.add(Extent::Only(left.collect()));
            }
            None => extent = Extent::All,
        }
        extent
    }

    /// Everything that was to be done is done.
    fn settle(&mut self, settled: &Owned, borrowed: bool) -> Result<(), String> {
        self.keep(settled)?;
        if let Some(guard) = self.guard.as_ref().filter(|_| borrowed) {
            guard.serve(&settled.services);
        }
        Ok(())
    }

    fn conclude(
        &mut self,
        member: &Member,
        plan: &NodePlan,
        pass: Pass,
        needs_ipvs: bool,
        links: &Links,
    ) {
        let Pass { observed, extent, left, failures, .. } = pass;
        let known = self.last.take().map(|last| last.failures).unwrap_or_default();
        let failures: BTreeSet<String> = failures.into_iter().map(|failure| failure.text).collect();
        for failure in shortened(failures.difference(&known)) {
            tracing::warn!(%failure, "an operation failed; the others go on");
        }
        let no_ipvs = needs_ipvs && observed.table.is_none();
        let report = &mut self.report;
        report.warnings.extend(shortened(&failures));
        report.converged =
            left.ops.is_empty() && left.withheld.is_empty() && (plan.table.is_empty() || !no_ipvs);
        report.digest = plan.real_server.digest();
        report.real_server_fault = real_server_fault(&observed, &plan.real_server);
        report.vips_attached = attached(&observed, &plan.vips);
        report.look_at_services(&extent, &observed, plan, left.foreign);
        report.warnings.extend(left.withheld);
        let ipvs = no_ipvs.then(|| explain(&ipvs_missing()));
        report.warnings.extend(ipvs.clone());
        report.ineligible = if member.is_director() {
            ipvs.or_else(|| plan.vips.iter().find_map(|vip| interface_fault(vip, links)))
                .or_else(|| director_fault(&observed, &plan.director))
        } else {
            Some("this node is no director".to_owned())
        };
        self.memory.keep(observed);
        self.pending = Change::none();
        let left = left.ops.into_iter().map(|op| op.action).collect();
        self.last = Some(Last { left, failures });
    }

    fn scope(&self, member: &Member, plan: &NodePlan) -> Scope {
        let ipvs = member.is_director() || !self.owned.services.is_empty();
        Scope::of(ipvs, plan, &self.owned)
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
    fn note_drift(&mut self, ops: &[Op]) {
        let Some(last) = self.last.as_ref().filter(|_| self.pending.is_none()) else { return };
        let drifted: Vec<&Op> = ops.iter().filter(|op| !last.left.contains(&op.action)).collect();
        let Some(latest) = drifted.last() else { return };
        let lines = drifted.iter().map(|op| format!("{} ({})", op.action, op.reason));
        for drift in shortened(lines) {
            tracing::warn!(%drift, "a change made by others is being repaired");
        }
        self.report.drift_repaired += drifted.len() as u64;
        self.report.last_drift = format!("{} ({})", latest.action, latest.reason);
    }
}

impl NodeReport {
    /// Says of these services what is to be said of single ones; of the others it stands.
    fn look_at_services(
        &mut self,
        extent: &Extent,
        observed: &Observed,
        plan: &NodePlan,
        foreign: BTreeSet<ServiceKey>,
    ) {
        let keys: Vec<ServiceKey> = match extent {
            Extent::All => {
                self.foreign.clear();
                self.hashed.clear();
                plan.table.keys().copied().collect()
            }
            Extent::Only(keys) => {
                self.foreign.retain(|key| !keys.contains(key));
                self.hashed.retain(|key, _| !keys.contains(key));
                keys.iter().copied().collect()
            }
        };
        self.foreign.extend(foreign);
        self.foreign.sort_unstable();
        let services = keys.into_iter().filter(|key| plan.table.contains_key(key));
        let seen = services.filter_map(|key| Some((key, observed.table.as_ref()?.get(&key)?)));
        self.hashed.extend(seen.filter_map(|(key, service)| Some((key, digest(service)?))));
    }
}

/// The lines, or the first of them and how many there are besides: a scheduler that a kernel lacks fails every service that asks for it.
fn shortened<T: ToString>(lines: impl IntoIterator<Item = T>) -> Vec<String> {
    let mut lines = lines.into_iter();
    let mut shown: Vec<String> = lines.by_ref().take(LINES).map(|line| line.to_string()).collect();
    match lines.count() {
        0 => {}
        more => shown.push(format!("and {more} more")),
    }
    shown
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
pub(super) fn explain(error: &KernelError) -> String {
    match error.hint() {
        Some(hint) => format!("{} ({hint})", line(error)),
        None => line(error),
    }
}
