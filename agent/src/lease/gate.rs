//! The deadline in the packet path, as the lease thread keeps it.
//!
//! A group is armed while it is claimed: what it says it has leaves the interface until the lease ends, as it was last renewed, and no longer, whoever says
//! it and whether this thread runs or not. What is not claimed is not guarded, so that another program on this machine may have it. On interfaces of groups the program
//! is there before a claim, which then costs a few updates of a map. A thread of its own puts it there: the kernel may have to load modules, and no lease waits for that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use lvsmesh_core::time::Mono;
use lvsmesh_kernel::gate::{Gate, Guarded, Program, Slot};
use lvsmesh_kernel::route_socket::RouteSocket;
use lvsmesh_kernel::{Errno, chain};

use super::{LeaseInputs, Order, realtime};
use crate::guard::Guard;

/// A claimed group behind the gate.
#[derive(Debug)]
pub(super) struct Armed {
    slot: Slot,
    things: BTreeSet<Guarded>,
}

/// What the thread that attaches is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Errand {
    Attach(u32),
    Detach(u32),
    /// Wherever one may be that an earlier run has left, but on these.
    Sweep(BTreeSet<u32>),
}

/// The gate, and the interfaces that it stands before.
#[derive(Debug)]
pub(super) struct Gates {
    /// `Err`: why there is none.
    gate: Result<Gate, String>,
    errands: Option<(Sender<Errand>, JoinHandle<()>)>,
    /// Interfaces that it is to stand before.
    wanted: BTreeSet<u32>,
    attached: BTreeSet<u32>,
    /// Why it is not before an interface.
    faults: BTreeMap<u32, String>,
    /// Why it is not in the way of every group that is claimed on an interface.
    unarmed: BTreeMap<u32, String>,
    /// By whose deadline something is guarded: a group may have taken it over from another.
    owners: BTreeMap<Guarded, Slot>,
    swept: bool,
}

impl Gates {
    /// Loads the program; `wanted`: the configuration does not forbid it. Without the permission, or on a kernel that has no such thing, the
    /// other fences have to do. What becomes of an interface comes back as [`Order::Gate`].
    pub(super) fn load(wanted: bool, inputs: &LeaseInputs) -> Self {
        let mut gate = if wanted {
            Gate::load().map_err(|error| chain(&error).to_string())
        } else {
            Err("`beat.gate` is false".to_owned())
        };
        // Also without a gate: an earlier run may have left one, which lets nothing pass.
        let program = gate.as_ref().ok().map(Gate::program);
        let errands = match run_errands(program, inputs.clone()) {
            Ok(errands) => Some(errands),
            Err(error) => {
                gate = Err(format!("cannot start a thread: {error}"));
                None
            }
        };
        if let (true, Err(fault)) = (wanted, &gate) {
            tracing::warn!(
                fault,
                "no deadline in the packet path; it needs CAP_BPF and bpf(2), and Linux 5.8"
            );
        }
        Self {
            gate,
            errands,
            owners: BTreeMap::new(),
            unarmed: BTreeMap::new(),
            swept: false,
            wanted: BTreeSet::new(),
            attached: BTreeSet::new(),
            faults: BTreeMap::new(),
        }
    }

    fn send(&self, errand: Errand) {
        if let Some((errands, _)) = &self.errands
            && let Err(error) = errands.send(errand)
        {
            tracing::error!(errand = ?error.0, "the thread that attaches the gate has ended");
        }
    }

    /// Has the program put before what leaves an interface, if it is not yet.
    pub(super) fn prepare(&mut self, ifindex: u32) {
        if self.wanted.insert(ifindex) {
            self.send(self.errand(ifindex));
        }
    }

    /// Sees to it once more that the program is before that interface.
    pub(super) fn repeat(&self, ifindex: u32) {
        if self.wanted.contains(&ifindex) {
            self.send(self.errand(ifindex));
        }
    }

    /// What is to be done about an interface of a group.
    fn errand(&self, ifindex: u32) -> Errand {
        if self.gate.is_ok() { Errand::Attach(ifindex) } else { Errand::Detach(ifindex) }
    }

    /// It is there, or cannot be. The guard is told of the former when what is claimed there is [armed](Self::vouch).
    pub(super) fn prepared(
        &mut self,
        ifindex: u32,
        outcome: Result<(), String>,
        guard: Option<&Guard>,
    ) {
        if !self.wanted.contains(&ifindex) {
            return;
        }
        match outcome {
            Ok(()) => {
                self.faults.remove(&ifindex);
                if self.attached.insert(ifindex) {
                    tracing::info!(ifindex, "the kernel keeps the lease's end on this interface");
                }
            }
            Err(fault) => {
                self.attached.remove(&ifindex);
                if let Some(guard) = guard {
                    guard.ungate(ifindex);
                }
                if self.faults.get(&ifindex) != Some(&fault) {
                    tracing::warn!(ifindex, fault, "no deadline in the packet path");
                }
                self.faults.insert(ifindex, fault);
            }
        }
    }

    /// Tells the guard that what is claimed on that interface is silent without this process.
    pub(super) fn vouch(&self, ifindex: u32, guard: Option<&Guard>) {
        if let Some(guard) = guard
            && self.fault(ifindex).is_none()
        {
            guard.gate(ifindex);
        }
    }

    /// A group is claimed there without a deadline.
    fn fail(&mut self, ifindex: u32, fault: String, guard: Option<&Guard>) {
        if let Some(guard) = guard {
            guard.ungate(ifindex);
        }
        if self.unarmed.get(&ifindex) != Some(&fault) {
            tracing::warn!(ifindex, fault, "a VIP group has no deadline in the packet path");
        }
        self.unarmed.insert(ifindex, fault);
    }

    /// Takes the program away from interfaces that no group is on any more, and sees to it that it is on all others: somebody may have removed it.
    pub(super) fn renew(&mut self, used: &BTreeSet<u32>, guard: Option<&Guard>) {
        for gone in self.wanted.difference(used).copied().collect::<Vec<_>>() {
            self.wanted.remove(&gone);
            self.attached.remove(&gone);
            self.faults.remove(&gone);
            if let Some(guard) = guard {
                guard.ungate(gone);
            }
            self.send(Errand::Detach(gone));
        }
        for &ifindex in used {
            self.wanted.insert(ifindex);
            self.send(self.errand(ifindex));
        }
    }

    /// Takes away, once, what an earlier run has left on interfaces that no group is on.
    pub(super) fn sweep(&mut self) {
        if !std::mem::replace(&mut self.swept, true) {
            self.send(Errand::Sweep(self.wanted.clone()));
        }
    }

    /// The groups are others: there may be room now.
    pub(super) fn regroup(&mut self) {
        self.unarmed.clear();
    }

    /// Takes the program away wherever it is. Waits for that.
    pub(super) fn remove(&mut self, guard: Option<&Guard>) {
        self.renew(&BTreeSet::new(), guard);
        if let Some((errands, thread)) = self.errands.take() {
            drop(errands);
            if thread.join().is_err() {
                tracing::error!("the thread that attaches the gate panicked");
            }
        }
    }

    /// Why an interface has no gate; `None`: it has.
    pub(super) fn fault(&self, ifindex: u32) -> Option<&str> {
        let Ok(_) = &self.gate else { return self.gate.as_ref().err().map(String::as_str) };
        let known = self.faults.get(&ifindex).or_else(|| self.unarmed.get(&ifindex));
        let known = known.map(String::as_str);
        known.or_else(|| (!self.attached.contains(&ifindex)).then_some("not attached yet"))
    }

    /// Puts a group behind the gate, in place of what it was before; `until`: the deadline, `None`: it has passed. `None`: there is no gate.
    pub(super) fn arm(
        &mut self,
        before: Option<Armed>,
        until: Option<Mono>,
        ifindex: u32,
        things: BTreeSet<Guarded>,
        guard: Option<&Guard>,
    ) -> Option<Armed> {
        if !self.attached.contains(&ifindex) {
            if let Some(before) = before {
                self.disarm(before);
            }
            return None;
        }
        let gate = self.gate.as_mut().ok()?;
        let mut armed = match before {
            Some(before) => before,
            None => match gate.take() {
                Some(slot) => Armed { slot, things: BTreeSet::new() },
                None => {
                    self.fail(ifindex, "all 256 deadlines are taken".to_owned(), guard);
                    return None;
                }
            },
        };
        if let Some(until) = until {
            gate.open_until(&armed.slot, until);
        }
        let gone: Vec<_> = armed.things.difference(&things).copied().collect();
        armed.things = things;
        let mut fault = None;
        for thing in &armed.things {
            match gate.guard(&armed.slot, *thing) {
                Ok(()) => drop(self.owners.insert(*thing, armed.slot)),
                Err(errno) => fault = Some(errno),
            }
        }
        self.release(armed.slot, gone);
        let Some(errno) = fault else { return Some(armed) };
        self.disarm(armed);
        self.fail(ifindex, format!("cannot guard an address: {errno}"), guard);
        None
    }

    /// Ends what is guarded by that deadline still.
    fn release(&mut self, slot: Slot, things: impl IntoIterator<Item = Guarded>) {
        let Ok(gate) = &self.gate else { return };
        for thing in things {
            if self.owners.get(&thing) != Some(&slot) {
                continue;
            }
            self.owners.remove(&thing);
            if let Err(error) = gate.release(thing) {
                tracing::warn!(?thing, %error, "it is guarded still");
            }
        }
    }

    /// What a group has that took over from another; its own, if it was armed already.
    pub(super) fn succeed(&mut self, own: Option<Armed>, other: Option<Armed>) -> Option<Armed> {
        let Some(kept) = own else { return other };
        if let Some(gone) = other {
            self.disarm(gone);
        }
        Some(kept)
    }

    /// Moves a group's deadline.
    pub(super) fn open(&self, armed: &Armed, until: Mono) {
        if let Ok(gate) = &self.gate {
            gate.open_until(&armed.slot, until);
        }
    }

    /// A group's deadline has passed.
    pub(super) fn close(&self, armed: &Armed) {
        if let Ok(gate) = &self.gate {
            gate.close(&armed.slot);
        }
    }

    /// The group claims nothing any more, and nothing of it is left in the kernel.
    pub(super) fn disarm(&mut self, armed: Armed) {
        self.release(armed.slot, armed.things);
        if let Ok(gate) = &mut self.gate {
            gate.put_back(armed.slot);
        }
    }

    /// How much of what would have been said too late it has stopped.
    pub(super) fn stopped(&self) -> u64 {
        self.gate.as_ref().map_or(0, Gate::stopped)
    }
}

/// Takes gates away from all interfaces of this machine, whoever has left them.
///
/// # Errors
///
/// If an interface keeps one: the last one's reason.
pub fn remove_gates() -> std::io::Result<()> {
    let mut routes = RouteSocket::open()?;
    sweep(&mut routes, &BTreeSet::new()).map_err(Into::into)
}

fn sweep(routes: &mut RouteSocket, used: &BTreeSet<u32>) -> Result<(), Errno> {
    let links = nix::net::if_::if_nameindex()?;
    let mut outcome = Ok(());
    // All of them have their turn.
    for ifindex in links.iter().map(|link| link.index()).filter(|index| !used.contains(index)) {
        outcome = Program::detach(routes, ifindex).and(outcome);
    }
    outcome
}

/// Starts the thread. It ends with the sender of its errands.
fn run_errands(
    program: Option<Arc<Program>>,
    inputs: LeaseInputs,
) -> std::io::Result<(Sender<Errand>, JoinHandle<()>)> {
    let (sender, errands) = mpsc::channel();
    let mut routes = RouteSocket::open()?;
    let run = move || {
        // It holds the kernel's lock over network settings (RTNL) while it works, and the lease thread's look at its interfaces waits for that: whoever keeps this
        // one from the processor would keep that one from its lease.
        realtime::come_first();
        let detach = |routes: &mut RouteSocket, ifindex| {
            if let Err(error) = Program::detach(routes, ifindex) {
                tracing::warn!(ifindex, %error, "the gate could not be taken away");
            }
        };
        for errand in errands {
            match errand {
                Errand::Attach(ifindex) => {
                    let Some(program) = &program else { continue };
                    let outcome = program.attach(&mut routes, ifindex);
                    let outcome = outcome.map_err(|error| chain(&error).to_string());
                    inputs.order(Order::Gate { ifindex, outcome });
                }
                Errand::Detach(ifindex) => detach(&mut routes, ifindex),
                Errand::Sweep(used) => {
                    if let Err(error) = sweep(&mut routes, &used) {
                        tracing::warn!(%error, "a gate of an earlier run could not be taken away");
                    }
                }
            }
        }
    };
    let thread = std::thread::Builder::new().name("gate".to_owned()).spawn(run)?;
    Ok((sender, thread))
}
