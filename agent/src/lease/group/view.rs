//! What a group has to say to an operator.

use std::fmt;

use lvsmesh_core::arp::Mac;
use lvsmesh_core::time::Mono;
use lvsmesh_core::vrrp::coexist::State;

use super::super::gate::Gates;
use super::super::segment::Sighting;
use super::super::{Foreign, Outlook};
use super::Group;

impl Group {
    /// Adds what an operator should know.
    pub(crate) fn describe(&self, now: Mono, gates: &Gates, outlook: &mut Outlook) {
        if let Some(ifindex) = self.ifindex() {
            let fault = gates.fault(ifindex);
            // A claim of before there was a gate, or for which there is no room, is not behind it.
            let gated = fault.is_none() && (self.armed.is_some() || !self.is_attached());
            if gated {
                outlook.gated.insert(self.vip.name.clone());
            } else {
                outlook.gate_faults.insert(fault.unwrap_or("not in force yet").to_owned());
            }
        }
        outlook.faults.extend(self.segment.as_ref().err().cloned());
        let trouble = self.trouble.as_ref().filter(|_| self.is_attached());
        outlook.faults.extend(trouble.map(|trouble| format!("vips/{}: {trouble}", self.vip.name)));
        outlook.faults.extend(self.oddities.lines(now, &self.vip.name));
        outlook.faults.extend(self.standing(now));
        self.describe_without(now, outlook);
        if let Some(foreign) = self.coexist.foreign(now).filter(|foreign| !foreign.member) {
            outlook.foreign.push(Foreign {
                vip: self.vip.name.clone(),
                source: foreign.source,
                priority: foreign.priority,
                yielding: self.coexist.state() == State::Yielding,
            });
        }
        if self.is_attached() {
            let by_agent = self.segment.as_ref().is_ok_and(|segment| segment.responder.is_some());
            let which = if by_agent { &mut outlook.answering } else { &mut outlook.attached };
            which.extend(&self.vip.addresses);
        }
    }

    /// What keeps it from being seen, or heard, one line each.
    fn standing(&self, now: Mono) -> Vec<String> {
        let group = &self.vip.name;
        let mut lines = Vec::new();
        if let Ok(segment) = &self.segment
            && segment.is_alone()
        {
            lines.push(format!(
                "vips/{group}: adverts go to nobody: no other director has an address of their family, and `unicast_peers` names none"
            ));
        }
        if let Some(sighting) = self.sighting.filter(|_| self.coexist.is_occupied()) {
            let Sighting { address, mac } = sighting;
            lines.push(format!(
                "vips/{group}: {} answers for {address} and does not advertise it; claiming nothing until it stops",
                Hex(mac)
            ));
        }
        if self.coexist.state() == State::Contesting {
            lines.push(format!(
                "vips/{group}: contesting: adverts alone until the foreign master gives up"
            ));
        }
        if let Some(source) = self.coexist.unimpressed()
            && self.coexist.foreign(now).is_some_and(|foreign| foreign.source == source)
        {
            let why = self
                .oddities
                .of(source)
                .unwrap_or("its configuration and this group's seem to be alike; look at its log");
            lines
                .push(format!("vips/{group}: {source} does not give way to higher adverts: {why}"));
        }
        lines
    }
}

/// A hardware address as people write it.
pub(super) struct Hex(pub(super) Mac);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, last] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{last:02x}")
    }
}
