//! What a claim puts in place and takes away: addresses or a responder's ear, the gate before them, and the guard's knowledge of both.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::gate::Armed;
use super::super::schedule::Schedule;
use super::{Group, Tools};

impl Group {
    pub(super) fn attach(&mut self, tools: &mut Tools<'_>) {
        let Ok(segment) = &self.segment else { return };
        // Before the kernel has them, and before it is said.
        if let Some(guard) = tools.guard {
            guard.hold(segment.held());
            guard.announced(&self.vip.name, segment.farewell(&self.vip));
        }
        let (ifindex, things) = (segment.interface.index, segment.claims(&self.vip));
        let until = tools.until(&self.fallback);
        self.armed = tools.gates.arm(self.armed.take(), until, ifindex, things, tools.guard);
        let now = tools.clock.now();
        let (interval, garp) = (self.vip.vrrp.advert_interval, self.vip.garp);
        let refreshing = segment.responder.is_none();
        self.schedule = Some(Schedule::new(now, interval, garp, refreshing));
        if let Some(responder) = &segment.responder
            && let Err(error) = responder.listen()
        {
            let trouble = format!("listening for questions: {error}");
            self.complain(&trouble, tools);
            self.trouble = Some(trouble);
        }
        self.emit(tools);
    }

    pub(super) fn detach(&mut self, tools: &mut Tools<'_>) {
        self.announcing = None;
        if self.schedule.take().is_none() {
            return self.retire(tools);
        }
        // First: from here on the kernel lets nothing more out.
        if let Some(armed) = &self.armed {
            tools.gates.close(armed);
        }
        if let Some(guard) = tools.guard {
            guard.quiet(&self.vip.name);
        }
        let responder = self.segment.as_ref().ok().and_then(|segment| segment.responder.as_ref());
        let Some(responder) = responder else { return self.clear(tools) };
        // Nobody is answered any more, whatever becomes of this: an unclaimed group looks at no question.
        if let Err(error) = responder.ignore() {
            tracing::debug!(vip = %self.vip.name, %error, "questions for the VIPs are still queued");
        }
        let vips = &self.vip.addresses;
        tools.outlook.send_if_modified(|outlook| {
            let before = outlook.answering.len();
            outlook.answering.retain(|address| !vips.contains(address));
            outlook.answering.len() != before
        });
        self.disarm(tools);
    }

    /// Takes away what is left of a claim that is none any more: what could not be removed, or was another group's whose place this one took and does not claim.
    pub(crate) fn retire(&mut self, tools: &mut Tools<'_>) {
        if self.armed.is_none() || self.is_attached() || self.is_checking() {
            return;
        }
        if self.segment.as_ref().is_ok_and(|segment| segment.responder.is_none()) {
            self.clear(tools);
        } else {
            self.disarm(tools);
        }
    }

    /// Nothing of the group is left that could be said.
    pub(super) fn disarm(&mut self, tools: &mut Tools<'_>) {
        if let Some(armed) = self.armed.take() {
            tools.gates.disarm(armed);
        }
    }

    /// Moves the kernel's deadline to where the lease ends now.
    pub(crate) fn keep_open(&self, tools: &Tools<'_>) {
        if let Some(armed) = self.armed.as_ref().filter(|_| self.is_attached())
            && let Some(until) = tools.until(&self.fallback)
        {
            tools.gates.open(armed, until);
        }
    }

    /// A gate is before that interface by now.
    pub(crate) fn rearm(&mut self, ifindex: u32, tools: &mut Tools<'_>) {
        let Ok(segment) = &self.segment else { return };
        if segment.interface.index == ifindex && self.is_attached() && self.armed.is_none() {
            // Open before anything is guarded: the group is being answered for.
            let things = segment.claims(&self.vip);
            let until = tools.until(&self.fallback);
            self.armed = tools.gates.arm(None, until, ifindex, things, tools.guard);
        }
    }

    /// Has the gate put before the group's interface, where there is one.
    pub(crate) fn prepare(&self, tools: &mut Tools<'_>) {
        if let Ok(segment) = &self.segment {
            tools.gates.prepare(segment.interface.index);
        }
    }

    /// Index of its interface.
    pub(crate) fn ifindex(&self) -> Option<u32> {
        self.segment.as_ref().ok().map(|segment| segment.interface.index)
    }

    pub(crate) fn armed(&self) -> Option<&Armed> {
        self.armed.as_ref()
    }

    /// Takes the group's addresses off its interface, whoever put them there.
    pub(crate) fn clear(&mut self, tools: &mut Tools<'_>) {
        let Ok(segment) = &mut self.segment else { return };
        let mut left = BTreeSet::new();
        for address in &mut segment.addresses {
            if !tools.remove(address) {
                left.insert(address.address());
            }
        }
        if let Some(guard) = tools.guard {
            guard.drop(segment.held().filter(|held| !left.contains(&held.address)));
        }
        // What is still there is answered for, and must not be.
        if left.is_empty() {
            self.disarm(tools);
        }
    }

    /// Takes the place of `old`, which is about to be dropped: addresses that both have stay where they are.
    pub(crate) fn succeed(&mut self, old: &mut Self, tools: &mut Tools<'_>) {
        self.take_over_without(old, tools);
        let router = |group: &Self| {
            let over_ipv6 = group.vip.is_ipv6_only();
            (group.vip.interface.clone(), group.vip.vrrp.vrid, over_ipv6)
        };
        if old.segment.is_ok() && router(old) == router(self) {
            self.coexist.succeed(&old.coexist);
            let known = |address: &IpAddr| old.vip.addresses.contains(address);
            if !old.is_attached() && !self.vip.addresses.iter().all(known) {
                // Whoever held the others said nothing about those that are new.
                self.coexist.doubt();
            }
            self.kin = std::mem::take(&mut old.kin);
            self.logged = std::mem::take(&mut old.logged);
            self.oddities = std::mem::take(&mut old.oddities);
        }
        if !old.is_attached() {
            // What it could not take away, or had not claimed yet, is this one's to retire.
            self.armed = tools.gates.succeed(self.armed.take(), old.armed.take());
            return;
        }
        if self.coexist.stands_back() {
            tracing::warn!(vip = %self.vip.name, "giving back what was taken; a foreign backup has a moment to take it");
            old.lost(true, tools);
            return;
        }
        if let (Ok(before), Ok(after)) = (&mut old.segment, &self.segment) {
            self.armed = tools.gates.succeed(self.armed.take(), old.armed.take());
            let kept: BTreeSet<_> = after.held().collect();
            let gone: Vec<_> = before.held().filter(|held| !kept.contains(held)).collect();
            for address in &mut before.addresses {
                if gone.iter().any(|gone| {
                    gone.ifindex == address.ifindex() && gone.address == address.address()
                }) {
                    tools.remove(address);
                }
            }
            if let Some(guard) = tools.guard {
                guard.drop(gone);
                guard.quiet(&old.vip.name);
            }
            old.schedule = None;
        }
        old.detach(tools);
    }
}
