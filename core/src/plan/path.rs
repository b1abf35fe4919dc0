//! What packets of tunnelled and translated services need on a machine beside the IPVS table and the VIPs on `lo`: the ends of tunnels, the UDP
//! ports of GUE, and the way back through the director.
//!
//! *In*: what was read ([`Seen`]), what should be ([`Paths`]), what is recorded as ours ([`Ours`]). *Out*: [`PathAction`]s in stages.
//!
//! - A real server behind a tunnel takes the packets out of the outer ones with a tunnel device whose `local` is its address and whose remote is
//!   any. `local` keeps it apart from the module's own fallback device, which has neither. The device only receives: answers leave by
//!   the machine's own routes, with the VIP as their source. Its MTU therefore says nothing; see [`Tunnel`].
//! - A real server behind translation answers through the director or the client gets answers from a stranger. One policy rule for each
//!   address, protocol and port of a service sends just these answers to a routing table of our own, whose default route is the
//!   inside VIP. The machine's other traffic keeps its routes.

mod returns;
#[cfg(test)]
pub(super) mod tests;
mod tunnels;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

pub use returns::{PRIORITY, Route, Rule, TABLES};
pub use tunnels::{GuePort, SeenTunnel, Tunnel, TunnelKind, link_sysctls};

use super::{Observed, Op};
use crate::placement::RealServerSide;

/// What should be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// Tunnel devices by name.
    pub tunnels: BTreeMap<String, Tunnel>,
    /// UDP ports on which GUE is received.
    pub ports: BTreeSet<GuePort>,
    /// Policy rules of translated services.
    pub rules: BTreeSet<Rule>,
    /// Where those rules lead.
    pub routes: BTreeSet<Route>,
}

/// What was read from the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Devices whose names could be ours ([`Tunnel::PREFIX`]), by name.
    pub tunnels: BTreeMap<String, SeenTunnel>,
    /// UDP ports of the kernel's Foo-over-UDP, each with whether it takes GUE; `None`: this kernel has no such thing, or it was not asked.
    pub ports: Option<BTreeMap<GuePort, bool>>,
    /// Rules of our form at our priority, each with whether it carries our mark.
    pub rules: BTreeMap<Rule, bool>,
    /// Default routes through a gateway in tables of [`TABLES`], each with whether it carries our mark.
    pub routes: BTreeMap<Route, bool>,
}

/// What is recorded as ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ours {
    /// Tunnel devices.
    pub tunnels: BTreeSet<String>,
    /// GUE ports.
    pub ports: BTreeSet<GuePort>,
    /// Rules.
    pub rules: BTreeSet<Rule>,
    /// Routes.
    pub routes: BTreeSet<Route>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathAction {
    /// Make a tunnel device with our mark, and switch it on.
    AddTunnel(Tunnel),
    /// Switch a tunnel device on.
    RaiseTunnel(String),
    /// Delete a tunnel device, and with it its address and sysctls.
    RemoveTunnel(String),
    /// Receive GUE on a UDP port.
    AddPort(GuePort),
    /// Stop that.
    RemovePort(GuePort),
    /// Add a policy rule with our mark.
    AddRule(Rule),
    /// Delete it.
    RemoveRule(Rule),
    /// Add a default route with our mark.
    AddRoute(Route),
    /// Delete it.
    RemoveRoute(Route),
}

/// What has to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathDiff {
    /// What brings packets in and answers back, in order; before any VIP is added.
    pub prepare: Vec<Op>,
    /// What is taken away, in order; after VIPs were removed.
    pub clear: Vec<Op>,
    /// Ours before the first operation.
    pub record: Ours,
    /// Ours after the last one.
    pub settled: Ours,
    /// What is wanted and cannot be, each with the reason.
    pub withheld: Vec<String>,
}

/// The address that a tunnel device for IPv4 gets: the dummy address of RFC 7600 §4.8, never on any wire.
///
/// A device without any IPv4 address fails every reverse-path check, the loose one too (`__fib_validate_source`, net/ipv4/fib_frontend.c:
/// `no_addr` with `rpf`), and the check is on wherever `net.ipv4.conf.all.rp_filter` is not 0.
pub const DUMMY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8));

impl Paths {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tunnels.is_empty()
            && self.ports.is_empty()
            && self.rules.is_empty()
            && self.routes.is_empty()
    }

    /// Takes in what another one needs. Of two tunnels with the same name the first one's `checksum` stands; [`covers`](Self::covers) tells.
    pub fn merge(&mut self, other: Self) {
        for (name, tunnel) in other.tunnels {
            let have = self.tunnels.entry(name).or_insert(tunnel);
            have.ipv4 |= tunnel.ipv4;
            have.ipv6 |= tunnel.ipv6;
        }
        self.ports.extend(other.ports);
        self.rules.extend(other.rules);
        self.routes.extend(other.routes);
    }

    /// Whether everything that `part` needs is in it.
    #[must_use]
    pub fn covers(&self, part: &Self) -> bool {
        let tunnels = part.tunnels.iter().all(|(name, want)| {
            self.tunnels.get(name).is_some_and(|have| {
                Tunnel { ipv4: want.ipv4, ipv6: want.ipv6, ..*have } == *want
                    && have.ipv4 >= want.ipv4
                    && have.ipv6 >= want.ipv6
            })
        });
        tunnels
            && self.ports.is_superset(&part.ports)
            && self.rules.is_superset(&part.rules)
            && self.routes.is_superset(&part.routes)
    }
}

impl Ours {
    /// Whether nothing is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Lists what puts the paths in place and takes away those of ours that are not wanted any more.
#[must_use]
pub fn diff(observed: &Observed, wanted: &Paths, ours: &Ours, source: &str) -> PathDiff {
    let mut out = PathDiff::default();
    tunnels::ports(&mut out, &observed.paths, wanted, ours, source);
    tunnels::devices(&mut out, observed, wanted, ours, source);
    returns::diff(&mut out, observed, wanted, ours, source);
    out
}

/// Why the paths of a real server are not in place, in one line; `None`: they are.
#[must_use]
pub fn fault(observed: &Observed, side: &RealServerSide) -> Option<String> {
    tunnels::fault(observed, &side.paths).or_else(|| returns::fault(observed, &side.paths))
}

impl std::fmt::Display for PathAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AddTunnel(tunnel) => write!(f, "add tunnel {tunnel}"),
            Self::RaiseTunnel(name) => write!(f, "set tunnel {name} up"),
            Self::RemoveTunnel(name) => write!(f, "remove tunnel {name}"),
            Self::AddPort(port) => write!(f, "receive GUE on {port}"),
            Self::RemovePort(port) => write!(f, "receive no GUE on {port}"),
            Self::AddRule(rule) => write!(f, "add rule {rule}"),
            Self::RemoveRule(rule) => write!(f, "remove rule {rule}"),
            Self::AddRoute(route) => write!(f, "add route {route}"),
            Self::RemoveRoute(route) => write!(f, "remove route {route}"),
        }
    }
}
