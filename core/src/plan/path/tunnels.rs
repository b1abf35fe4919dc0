//! Ends of tunnels.

use std::net::IpAddr;

use super::{DUMMY, Ours, PathAction, PathDiff, Paths, Seen};
use crate::plan::{Action, Observed, Op, Sysctl};

/// One end of a tunnel, on a real server.
///
/// It takes whatever comes for `local`, from anywhere: every director may send, and the answers take another way. No MTU is set: the
/// device never sends. What a tunnel costs is felt on the director's way out, where a packet that has grown by its outer headers must still fit;
/// IPVS then tells the client (ICMP, `pmtu_disc`), because the client's packets are sized by the real server's own MSS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tunnel {
    /// The kind of device.
    pub kind: TunnelKind,
    /// The node's address that outer packets are for.
    pub local: IpAddr,
    /// Which of the node's addresses of that IP version it is, from 1; part of the name, because names have 15 bytes and addresses do not.
    pub number: u8,
    /// GRE: packets must have a checksum. The kernel drops those that differ from the device in this (`__iptunnel` receive, net/ipv4/ip_tunnel.c).
    pub checksum: bool,
    /// IPv4 comes out of it.
    pub ipv4: bool,
    /// IPv6 comes out of it.
    pub ipv6: bool,
}

/// Kinds of tunnel devices, by the kernel's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunnelKind {
    /// IPv4 in IPv4.
    Ipip,
    /// IPv6 in IPv4.
    Sit,
    /// Either in GRE in IPv4.
    Gre,
    /// Either in IPv6.
    Ip6tnl,
    /// Either in GRE in IPv6.
    Ip6gre,
}

impl TunnelKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ipip, Self::Sit, Self::Gre, Self::Ip6tnl, Self::Ip6gre];

    /// The kernel's name (`IFLA_INFO_KIND`).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Sit => "sit",
            Self::Gre => "gre",
            Self::Ip6tnl => "ip6tnl",
            Self::Ip6gre => "ip6gre",
        }
    }
}

/// A UDP port on which the kernel takes GUE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuePort {
    /// Whether the outer packets are IPv6.
    pub ipv6: bool,
    /// Port.
    pub port: u16,
}

impl std::fmt::Display for GuePort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UDP port {} ({})", self.port, if self.ipv6 { "IPv6" } else { "IPv4" })
    }
}

/// A device as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenTunnel {
    /// `None`: no tunnel, or one with a remote end, a key or anything else that ours do not have.
    pub tunnel: Option<(TunnelKind, IpAddr, bool)>,
    /// `IFF_UP`.
    pub up: bool,
    /// Its alias is our mark.
    pub marked: bool,
}

impl Tunnel {
    /// What all names of our devices begin with.
    pub const PREFIX: &str = "lvs-";

    /// Whether it takes GRE.
    #[must_use]
    pub const fn is_gre(&self) -> bool {
        matches!(self.kind, TunnelKind::Gre | TunnelKind::Ip6gre)
    }

    /// The device's name, at most 15 bytes: `lvs-ipip`, and `lvs-ipip2` for the node's second address.
    #[must_use]
    pub fn name(&self) -> String {
        let kind = self.kind.name();
        if self.number <= 1 {
            format!("{}{kind}", Self::PREFIX)
        } else {
            format!("{}{kind}{}", Self::PREFIX, self.number)
        }
    }
}

impl std::fmt::Display for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} to {}", self.name(), self.kind.name(), self.local)?;
        f.write_str(if self.checksum { ", with checksums)" } else { ")" })
    }
}

/// Sysctls of a tunnel device, and what they must be.
///
/// The kernel takes the higher `rp_filter` of `all` and the device's own (ip-sysctl.rst). 1 is wrong: clients do not live behind the tunnel.
/// 0 is what is meant, but is not to be had where `all` is 1, which is not ours to lower. 2, the highest, is what counts whatever `all`
/// says or will say: it asks for a route to the client by any interface, without which no answer would reach it anyway. It needs an
/// address on the device, [`DUMMY`].
///
/// A device that IPv6 comes out of must have IPv6, whatever `default` says.
#[must_use]
pub fn link_sysctls(tunnel: &Tunnel) -> Vec<(Sysctl, i64)> {
    let name = tunnel.name();
    let mut sysctls = Vec::new();
    if tunnel.ipv4 {
        sysctls.push((Sysctl(format!("net/ipv4/conf/{name}/rp_filter")), 2));
    }
    if tunnel.ipv6 {
        sysctls.push((Sysctl(format!("net/ipv6/conf/{name}/disable_ipv6")), 0));
    }
    sysctls
}

pub(super) fn ports(out: &mut PathDiff, seen: &Seen, wanted: &Paths, ours: &Ours, source: &str) {
    for &port in &wanted.ports {
        match seen.ports.as_ref().and_then(|ports| ports.get(&port)) {
            Some(true) => {}
            Some(false) => {
                out.withheld.push(format!(
                    "{port} is taken by Foo-over-UDP of another kind (`ip fou show`): GUE is not received there"
                ));
                continue;
            }
            None => out.prepare.push(Op {
                action: Action::Path(PathAction::AddPort(port)),
                reason: because(ours.ports.contains(&port), source),
            }),
        }
        out.record.ports.insert(port);
        out.settled.ports.insert(port);
    }
    for &port in ours.ports.iter().filter(|port| !wanted.ports.contains(port)) {
        match &seen.ports {
            None => {
                out.record.ports.insert(port);
                out.settled.ports.insert(port);
            }
            Some(ports) if ports.get(&port) == Some(&true) => {
                out.record.ports.insert(port);
                out.clear.push(unneeded(PathAction::RemovePort(port), source));
            }
            Some(_) => {}
        }
    }
}

pub(super) fn devices(
    out: &mut PathDiff,
    observed: &Observed,
    wanted: &Paths,
    ours: &Ours,
    source: &str,
) {
    let seen = &observed.paths.tunnels;
    let is_ours = |name: &str| {
        ours.tunnels.contains(name) || seen.get(name).is_some_and(|device| device.marked)
    };
    let mut makes = Vec::new();
    let mut addresses = Vec::new();
    let mut sysctls = Vec::new();
    for (name, tunnel) in &wanted.tunnels {
        let reason = || because(ours.tunnels.contains(name), source);
        let want = (tunnel.kind, tunnel.local, tunnel.checksum);
        let stands = match seen.get(name) {
            Some(device) if device.tunnel == Some(want) => {
                if !device.up {
                    makes.push(Op {
                        action: Action::Path(PathAction::RaiseTunnel(name.clone())),
                        reason: format!("is down, {source} needs it"),
                    });
                }
                true
            }
            Some(_) if is_ours(name) => {
                out.prepare.push(Op {
                    action: Action::Path(PathAction::RemoveTunnel(name.clone())),
                    reason: format!("ours, and not the one that {source} needs"),
                });
                false
            }
            Some(_) => {
                out.withheld.push(format!(
                    "tunnel {tunnel} is not made: there is a device of that name which is not ours (`ip -d link show {name}`)"
                ));
                continue;
            }
            None => false,
        };
        if !stands {
            makes.push(Op {
                action: Action::Path(PathAction::AddTunnel(*tunnel)),
                reason: reason(),
            });
        }
        out.record.tunnels.insert(name.clone());
        out.settled.tunnels.insert(name.clone());
        if tunnel.ipv4 && !(stands && has_dummy(observed, name)) {
            addresses.push(Op {
                action: Action::AddAddress { interface: name.clone(), address: DUMMY },
                reason: "reverse-path checks fail on a device without any address".into(),
            });
        }
        for (sysctl, value) in link_sysctls(tunnel) {
            // A device that is about to be made has `default`'s value, whatever that is by then.
            let have = observed.sysctls.get(&sysctl).copied().filter(|_| stands);
            if have != Some(value) {
                sysctls.push(Op {
                    reason: have.map_or_else(
                        || format!("{source} needs {value}"),
                        |have| format!("is {have}, {source} needs {value}"),
                    ),
                    action: Action::SetSysctl { name: sysctl, value },
                });
            }
        }
    }
    out.prepare.extend(makes.into_iter().chain(addresses).chain(sysctls));
    for name in seen.keys().filter(|name| !wanted.tunnels.contains_key(*name)) {
        if is_ours(name) {
            out.record.tunnels.insert(name.clone());
            out.clear.push(unneeded(PathAction::RemoveTunnel(name.clone()), source));
        }
    }
}

/// Why packets would not come out of the tunnels, in one line.
pub(super) fn fault(observed: &Observed, wanted: &Paths) -> Option<String> {
    for (name, tunnel) in &wanted.tunnels {
        let Some(device) = observed.paths.tunnels.get(name) else {
            return Some(format!("tunnel {tunnel} is not there"));
        };
        if device.tunnel != Some((tunnel.kind, tunnel.local, tunnel.checksum)) {
            return Some(format!("{name} is not the tunnel that is needed, {tunnel}"));
        }
        if !device.up {
            return Some(format!("tunnel {name} is down"));
        }
        if tunnel.ipv4 && !has_dummy(observed, name) {
            return Some(format!(
                "tunnel {name} has no address, so reverse-path checks fail on it"
            ));
        }
        for (sysctl, value) in link_sysctls(tunnel) {
            match observed.sysctls.get(&sysctl) {
                None => return Some(format!("{sysctl} cannot be read")),
                Some(have) if *have != value => {
                    return Some(format!("{sysctl} is {have}, must be {value}"));
                }
                Some(_) => {}
            }
        }
    }
    let seen = |port| observed.paths.ports.as_ref().and_then(|ports| ports.get(port));
    let missing = wanted.ports.iter().find(|port| seen(port) != Some(&true));
    missing.map(|port| format!("no GUE is received on {port}"))
}

fn has_dummy(observed: &Observed, interface: &str) -> bool {
    let is = |address: &crate::plan::Address| {
        address.interface == interface && address.address == DUMMY && address.prefix == 32
    };
    observed.addresses.iter().any(is)
}

pub(super) fn because(recorded: bool, source: &str) -> String {
    if recorded {
        "recorded as ours, but gone from the kernel".into()
    } else {
        format!("needed by {source}")
    }
}

pub(super) fn unneeded(action: PathAction, source: &str) -> Op {
    Op { action: Action::Path(action), reason: format!("ours, and not needed by {source}") }
}
