//! Which groups there are, and on which interfaces: from the applied state, and as interfaces come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use lvsmesh_core::lease::Input;
use lvsmesh_core::model::{Attach, Vip};
use lvsmesh_core::time::Mono;
use lvsmesh_core::vrrp::fallback::Policy;

use super::super::group::{Group, Tools};
use super::{LOOK, RENEW, Thread};

impl Thread {
    /// Looks at what makes no noise: interfaces that came or changed, foreign masters that fell silent.
    pub(super) fn look(&mut self) {
        let now = self.clock.now();
        if now < self.look_at {
            return;
        }
        self.look_at = now.after(LOOK);
        let vips = all_vips(self.groups.iter().map(|group| &group.vip));
        let outdated: Vec<usize> = (0..self.groups.len())
            .filter(|index| self.groups[*index].is_outdated(&vips, &self.without))
            .collect();
        for index in outdated {
            let vip = self.groups[index].vip.clone();
            let new = Group::new(vip, &vips, &self.directors, &self.without, now);
            let mut old = std::mem::replace(&mut self.groups[index], new);
            self.succeed(index, &mut old);
            dispose(old);
            if let Some(ifindex) = self.groups[index].ifindex() {
                // What has gone and come again under its old index has no gate.
                self.gates.repeat(ifindex);
            }
        }
        self.with_groups(Group::retire);
        if now >= self.renew_at {
            self.renew_at = now.after(RENEW);
            self.renew();
            // By now nothing is left of what an earlier run may have had on other interfaces: it lives for three seconds.
            self.gates.sweep();
        }
        self.counters.stopped.set(self.gates.stopped());
        self.publish();
    }

    /// Sees to it that the gate is before the groups' interfaces, and before no others.
    fn renew(&mut self) {
        let used = self.groups.iter().filter_map(Group::ifindex).collect();
        self.gates.renew(&used, self.guard.as_ref());
    }

    /// Takes new VIP groups from the applied state. What stays the same is not touched.
    pub(super) fn replace(&mut self, vips: Vec<Vip>) {
        if self.groups.iter().map(|group| &group.vip).eq(&vips) {
            return;
        }
        // Before anything of theirs is on an interface.
        self.leave_time_to_release(&vips);
        let (all, now) = (all_vips(&vips), self.clock.now());
        let mut old: BTreeMap<String, Group> =
            self.groups.drain(..).map(|group| (group.vip.name.clone(), group)).collect();
        let mut new = Vec::new();
        for vip in vips {
            match old.remove(&vip.name) {
                Some(group) if group.vip == vip => self.groups.push(group),
                before => {
                    new.push((self.groups.len(), before));
                    self.groups.push(Group::new(vip, &all, &self.directors, &self.without, now));
                }
            }
        }
        // All that goes goes before anything comes: an address may be in another group from now on.
        let mut gone: Vec<Group> = old.into_values().collect();
        std::mem::swap(&mut self.groups, &mut gone);
        self.with_groups(|group, tools| group.lost(true, tools));
        std::mem::swap(&mut self.groups, &mut gone);
        gone.into_iter().for_each(dispose);
        self.gates.regroup();
        for (index, before) in &mut new {
            match before {
                Some(before) => {
                    self.with_group(*index, |group, tools| group.succeed(before, tools));
                }
                // Before the gate that an earlier run has left, and that keeps all of them silent, is replaced.
                None if self.leftovers && !self.leased => self.with_group(*index, Group::clear),
                None => {}
            }
        }
        for (index, before) in new {
            self.join(index);
            before.into_iter().for_each(dispose);
        }
        self.renew();
        self.leftovers = false;
        self.keep_bound(Mono(0), self.holding);
        for fault in self.groups.iter().filter_map(Group::fault) {
            tracing::warn!(%fault, "a VIP group cannot be claimed here");
        }
        self.publish();
    }

    /// Taking addresses off an interface needs time before the lease ends, and so does a holder that is to go on without one. Where nothing has to be done
    /// by then, because every emission asks, a late renewal may be waited for to the end.
    pub(super) fn leave_time_to_release(&mut self, vips: &[Vip]) {
        let groups = self.groups.iter().map(|group| &group.vip);
        let attached = groups.chain(vips).any(|vip| vip.attach == Attach::Address);
        let needed = attached || self.without.policy != Policy::Strict;
        let margin = if needed { self.timing.release_margin } else { Duration::ZERO };
        if std::mem::replace(&mut self.release_margin, margin) != margin {
            self.step(Input::ReleaseMargin(margin));
        }
    }

    fn succeed(&mut self, index: usize, old: &mut Group) {
        self.with_group(index, |group, tools| group.succeed(old, tools));
        self.join(index);
    }

    /// A group that is new under a lease that is held.
    fn join(&mut self, index: usize) {
        let (leased, alone) = (self.leased, self.is_alone());
        self.with_group(index, |group, tools| {
            group.prepare(tools);
            if leased {
                group.acquired(alone, tools);
            }
        });
    }

    fn with_group(&mut self, index: usize, mut act: impl FnMut(&mut Group, &mut Tools<'_>)) {
        let mut at = 0;
        self.with_groups(|group, tools| {
            if at == index {
                act(group, tools);
            }
            at += 1;
        });
    }
}

/// Closes a group's sockets elsewhere: each packet socket takes some 15 ms (an RCU grace period), and the lease does not wait for that.
fn dispose(group: Group) {
    let closer = std::thread::Builder::new().name("closer".to_owned()).stack_size(64 * 1024);
    if let Err(error) = closer.spawn(move || drop(group)) {
        // The group went with the closure.
        tracing::debug!(%error, "sockets were closed by the lease thread");
    }
}

fn all_vips<'a>(vips: impl IntoIterator<Item = &'a Vip>) -> BTreeSet<IpAddr> {
    vips.into_iter().flat_map(|vip| vip.addresses.iter().copied()).collect()
}
