//! A VIP group in the hands of a node that has no lease, under a policy that lets it hold all the same.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use lvsmesh_core::model::{NodeId, Vip};
use lvsmesh_core::time::Mono;
use lvsmesh_core::vrrp::coexist::{Foreign as Heard, Input as Coexisting};
use lvsmesh_core::vrrp::fallback::{Effect, Input, PATIENCE, Policy, State, Terms, priority};
use lvsmesh_core::vrrp::{Advert, PRIORITY_GOODBYE};

use super::super::segment::Segment;
use super::super::{Outlook, Unleased};
use super::{Group, Tools};

/// What holds for every group of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Without {
    pub(crate) policy: Policy,
    /// Position among the directors.
    pub(crate) rank: u8,
    /// The other directors that vote.
    pub(crate) directors: BTreeSet<NodeId>,
    /// No majority must have been heard of for so long.
    pub(crate) patience: Duration,
    /// This node could hold.
    pub(crate) fit: bool,
}

impl Without {
    /// As long as nothing is known of the fleet. `promise`: the span of a promise.
    pub(crate) fn unknown(promise: Duration) -> Self {
        Self {
            policy: Policy::Strict,
            rank: u8::MAX,
            directors: BTreeSet::new(),
            patience: PATIENCE.max(promise * 10),
            fit: false,
        }
    }

    pub(super) fn terms(&self, vip: &Vip, segment: Option<&Segment>) -> Terms {
        let interface = segment.map(|segment| &segment.interface);
        Terms {
            policy: self.policy,
            patience: self.patience,
            priority: priority(vip.vrrp.priority, self.rank),
            rank: self.rank,
            version: vip.vrrp.version,
            interval: vip.vrrp.advert_interval,
            source: interface
                .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |interface| interface.source),
            arbiters: interface.is_some_and(|interface| !interface.arbiters.is_empty()),
        }
    }
}

impl Group {
    /// Whether the group is held without a lease.
    pub(crate) fn is_held_without(&self) -> bool {
        self.fallback.is_master()
    }

    /// Whether it is about to be.
    pub(crate) fn is_asking(&self) -> bool {
        matches!(self.fallback.state(), State::Probing { .. })
    }

    /// Whether a member holds without a lease that was heard, or cannot have been heard yet.
    pub(crate) fn hears_another(&self, now: Mono) -> bool {
        let new = self.fallback.terms().policy != Policy::Strict && now < self.heard_by;
        new || self.coexist.foreign(now).is_some_and(|foreign| foreign.member)
    }

    /// The lease was not renewed, and nobody else could have one when that was noticed. Says whether the group is held on.
    pub(crate) fn expired(&mut self, members: &BTreeSet<IpAddr>, tools: &mut Tools<'_>) -> bool {
        if !self.is_attached() || self.fallback.terms().policy == Policy::Strict {
            return false;
        }
        // This thread may have been stopped since: then somebody may hold by now, and has said so.
        let began = tools.clock.now();
        self.listen(members, tools);
        if !self.is_attached() || self.fallback.last_sign() >= began {
            return false;
        }
        let _ = self.coexist.step(tools.clock.now(), Coexisting::Lost);
        self.without(Input::Expired, tools);
        self.fallback.is_master()
    }

    /// This node stops: nobody need wait for its silence.
    pub(crate) fn resign(&mut self, tools: &mut Tools<'_>) {
        if self.fallback.is_master()
            && let Ok(segment) = &mut self.segment
            && let Err(error) = segment.say_goodbye()
        {
            tracing::debug!(vip = %self.vip.name, %error, "the goodbye advert was not sent");
        }
        self.without(Input::Fit(false), tools);
    }

    /// What the group may do without a lease is another now.
    pub(crate) fn allow(&mut self, without: &Without, tools: &mut Tools<'_>) {
        let now = tools.clock.now();
        let terms = without.terms(&self.vip, self.segment.as_ref().ok());
        let effect = self.fallback.change(now, terms);
        self.hold_without(effect, tools);
        self.without(Input::Fit(without.fit), tools);
    }

    /// Takes over what a group for the same addresses did, which this one replaces.
    pub(super) fn take_over_without(&mut self, old: &mut Self, tools: &mut Tools<'_>) {
        let terms = *self.fallback.terms();
        let mut fallback = old.fallback.clone();
        let effect = fallback.change(tools.clock.now(), terms);
        if fallback.is_master() && old.is_attached() {
            self.fallback = fallback;
            self.hold_without(effect.or(Some(Effect::Claim)), tools);
        }
    }

    /// One step of the machine, and what it asks for.
    pub(crate) fn without(&mut self, input: Input, tools: &mut Tools<'_>) {
        let effect = self.fallback.step(tools.clock.now(), input);
        self.hold_without(effect, tools);
    }

    fn hold_without(&mut self, effect: Option<Effect>, tools: &mut Tools<'_>) {
        match effect {
            None => {}
            Some(Effect::Claim) => {
                let priority = self.fallback.terms().priority;
                let Ok(segment) = &mut self.segment else { return };
                segment.speak_as(&self.vip, priority);
                tracing::warn!(vip = %self.vip.name, priority, state = ?self.fallback.state(), "holding without a quorum");
                if self.is_attached() {
                    self.reassert(tools.clock.now());
                    self.emit(tools);
                } else {
                    tools.counters.claims.add();
                    self.attach(tools);
                }
            }
            Some(Effect::Silence) => {
                tracing::warn!(vip = %self.vip.name, "not holding any more without a quorum");
                tools.counters.releases.add();
                self.detach(tools);
            }
            Some(Effect::Reassert) => {
                self.reassert(tools.clock.now());
                self.emit(tools);
            }
            Some(Effect::Ask { addresses }) => self.ask_around(addresses),
        }
    }

    /// Questions claim nothing, and are sent under no lease.
    fn ask_around(&self, addresses: bool) {
        let Ok(segment) = &self.segment else { return };
        let vips = self.vip.advertised().iter().filter(|_| addresses);
        let outcome = vips
            .map(|vip| segment.ask(*vip))
            .chain([segment.ask_arbiters()])
            .fold(Ok(()), Result::and);
        if let Err(error) = outcome {
            tracing::debug!(vip = %self.vip.name, %error, "a question was not sent");
        }
    }

    /// An advert of somebody who may be a member. Says whether it is one, so that it is no foreign master's.
    pub(super) fn heard_a_member(
        &mut self,
        source: IpAddr,
        advert: Option<Advert>,
        tools: &mut Tools<'_>,
    ) -> bool {
        let now = tools.clock.now();
        let own = self.vip.vrrp.priority;
        let held_without = advert.as_ref().filter(|advert| {
            self.fallback.terms().policy != Policy::Strict
                && advert.priority != PRIORITY_GOODBYE
                && advert.priority < own
        });
        if let Some(advert) = held_without {
            let foreign = Heard { member: true, ..Heard::of(advert, source) };
            let turn = self.coexist.step(now, Coexisting::Heard(foreign));
            self.turn(turn, tools);
        } else if self.kin.contains(&source) {
            // Over IPv6 more has to be looked at.
            return false;
        } else if self.fallback.terms().policy == Policy::Strict
            && let Some(advert) = &advert
            && advert.priority != PRIORITY_GOODBYE
            && advert.mismatch(&Advert::of(&self.vip)).is_none()
        {
            // Under the other policies a member advertises also while it asks whether anybody has the addresses, perhaps for long.
            self.coexist.vouched(now);
        }
        if let Some(advert) = &advert {
            self.without_heard(advert, source, tools);
        }
        true
    }

    /// An advert of anybody.
    pub(super) fn without_heard(&mut self, advert: &Advert, source: IpAddr, tools: &mut Tools<'_>) {
        let priority = advert.priority;
        if priority != PRIORITY_GOODBYE {
            self.without(Input::Heard { priority, source }, tools);
        }
    }

    /// Adds what an operator should know.
    pub(super) fn describe_without(&self, now: Mono, outlook: &mut Outlook) {
        let held = match self.fallback.state() {
            State::Master { sticky: true } => Some(Unleased::Sticky),
            State::Master { sticky: false } => Some(Unleased::Vrrp),
            State::Idle | State::Probing { .. } => None,
        };
        outlook.unleased = outlook.unleased.max(held);
        let waits = self.fallback.terms().policy == Policy::Vrrp && self.fallback.is_orphan(now);
        if let Ok(segment) = &self.segment
            && waits
            && held.is_none()
            && !self.is_attached()
            && !segment.interface.arbiters.is_empty()
        {
            let arbiters: Vec<_> =
                segment.interface.arbiters.iter().map(ToString::to_string).collect();
            outlook.faults.push(format!(
                "vips/{}: no quorum; to be taken when nobody answers for it and one of its arbiters does ({})",
                self.vip.name,
                arbiters.join(", ")
            ));
        }
    }
}
