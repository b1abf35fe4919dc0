//! The deadline in the packet path, as the lease thread keeps it.
//!
//! A group is armed while it is claimed: what it says it has leaves the interface until the lease ends, as it was last renewed, and no longer, whoever says
//! it and whether this thread runs or not. What is not claimed is not guarded, so that another program on this machine may have it. On interfaces of groups the program
//! is there before a claim, which then costs a few updates of a map.

use std::collections::{BTreeMap, BTreeSet};

use lvsmesh_core::time::Mono;
use lvsmesh_kernel::chain;
use lvsmesh_kernel::gate::{Gate, Guarded, Slot};
use lvsmesh_kernel::route_socket::RouteSocket;

use crate::guard::Guard;

/// A claimed group behind the gate.
#[derive(Debug)]
pub(super) struct Armed {
    slot: Slot,
    things: BTreeSet<Guarded>,
}

/// The gate, and the interfaces that it stands before.
#[derive(Debug)]
pub(super) struct Gates {
    /// `Err`: why there is none.
    gate: Result<Gate, String>,
    attached: BTreeSet<u32>,
    /// Interfaces where it does not do what it is for.
    faults: BTreeMap<u32, String>,
}

impl Gates {
    /// Loads the program; `wanted`: the configuration does not forbid it. Without the permission, or on a kernel that has no such thing, the
    /// other fences have to do.
    pub(super) fn load(wanted: bool) -> Self {
        let gate = if wanted {
            Gate::load().map_err(|error| chain(&error).to_string())
        } else {
            Err("`beat.gate` is false".to_owned())
        };
        if let Err(fault) = &gate
            && wanted
        {
            tracing::warn!(fault, "no deadline in the packet path; it needs CAP_BPF and Linux 5.8");
        }
        Self { gate, attached: BTreeSet::new(), faults: BTreeMap::new() }
    }

    /// Puts the program before what leaves an interface, if it is not there yet.
    pub(super) fn prepare(
        &mut self,
        ifindex: u32,
        routes: &mut RouteSocket,
        guard: Option<&Guard>,
    ) {
        if !self.attached.contains(&ifindex) {
            self.attach(ifindex, routes, guard);
        }
    }

    fn attach(&mut self, ifindex: u32, routes: &mut RouteSocket, guard: Option<&Guard>) {
        let Ok(gate) = &self.gate else { return };
        match gate.attach(routes, ifindex) {
            Ok(()) => {
                self.faults.remove(&ifindex);
                self.attached.insert(ifindex);
                if let Some(guard) = guard {
                    guard.gate(ifindex);
                }
            }
            Err(error) => {
                let fault = chain(&error).to_string();
                self.attached.remove(&ifindex);
                self.fail(ifindex, fault, guard);
            }
        }
    }

    fn fail(&mut self, ifindex: u32, fault: String, guard: Option<&Guard>) {
        if let Some(guard) = guard {
            guard.ungate(ifindex);
        }
        if self.faults.get(&ifindex) != Some(&fault) {
            tracing::warn!(ifindex, fault, "no deadline in the packet path");
        }
        self.faults.insert(ifindex, fault);
    }

    /// Takes the program away from interfaces that no group is on any more, and sees to it that it is on all others: somebody may have removed it.
    pub(super) fn renew(
        &mut self,
        used: &BTreeSet<u32>,
        routes: &mut RouteSocket,
        guard: Option<&Guard>,
    ) {
        self.leave(|ifindex| !used.contains(&ifindex), routes, guard);
        for ifindex in used {
            self.attach(*ifindex, routes, guard);
        }
    }

    /// Takes the program away wherever it is.
    pub(super) fn remove(&mut self, routes: &mut RouteSocket, guard: Option<&Guard>) {
        self.leave(|_| true, routes, guard);
    }

    fn leave(
        &mut self,
        which: impl Fn(u32) -> bool,
        routes: &mut RouteSocket,
        guard: Option<&Guard>,
    ) {
        for ifindex in self.attached.iter().copied().filter(|at| which(*at)).collect::<Vec<_>>() {
            self.attached.remove(&ifindex);
            if let Err(error) = Gate::detach(routes, ifindex) {
                tracing::warn!(ifindex, %error, "the gate could not be taken away");
            }
            if let Some(guard) = guard {
                guard.ungate(ifindex);
            }
        }
        self.faults.retain(|ifindex, _| !which(*ifindex));
    }

    /// Why an interface has no gate; `None`: it has.
    pub(super) fn fault(&self, ifindex: u32) -> Option<&str> {
        let Ok(_) = &self.gate else { return self.gate.as_ref().err().map(String::as_str) };
        let known = self.faults.get(&ifindex).map(String::as_str);
        known.or_else(|| (!self.attached.contains(&ifindex)).then_some("not attached yet"))
    }

    /// Puts a group behind the gate, with a deadline that has passed; in place of what it was before, whose deadline stays. `None`: there is no gate.
    pub(super) fn arm(
        &mut self,
        before: Option<Armed>,
        ifindex: u32,
        things: BTreeSet<Guarded>,
        guard: Option<&Guard>,
    ) -> Option<Armed> {
        if self.fault(ifindex).is_some() {
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
        for gone in armed.things.difference(&things).copied().collect::<Vec<_>>() {
            release(gate, gone);
        }
        armed.things = things;
        let fault = armed.things.iter().find_map(|thing| gate.guard(&armed.slot, *thing).err());
        let Some(errno) = fault else { return Some(armed) };
        self.disarm(armed);
        self.fail(ifindex, format!("cannot guard an address: {errno}"), guard);
        None
    }

    /// What a group has that took over from another; its own, if it was armed already.
    pub(super) fn succeed(&mut self, own: Option<Armed>, other: Option<Armed>) -> Option<Armed> {
        let Some(kept) = own else { return other };
        if let Some(mut gone) = other {
            gone.things.retain(|thing| !kept.things.contains(thing));
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
        let Ok(gate) = &mut self.gate else { return };
        for thing in armed.things {
            release(gate, thing);
        }
        gate.put_back(armed.slot);
    }

    /// How much of what would have been said too late it has stopped.
    pub(super) fn stopped(&self) -> u64 {
        self.gate.as_ref().map_or(0, Gate::stopped)
    }
}

fn release(gate: &Gate, thing: Guarded) {
    if let Err(error) = gate.release(thing) {
        tracing::warn!(?thing, %error, "it is guarded still");
    }
}
