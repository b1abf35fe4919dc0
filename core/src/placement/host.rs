//! What a node needs beside the IPVS table, so that packets arrive, are taken and are answered.
//!
//! | forwarding | on the real server | on the director |
//! |---|---|---|
//! | `dr` | VIP on `lo`, and for IPv4 the ARP sysctls | nothing |
//! | `tunnel` | the same, and a tunnel device (for GUE a UDP port too) | nothing |
//! | `nat` | with `gateway`: a policy rule for each service's answers, through the inside VIP | routing on, IPv4 redirects off |
//!
//! The director's redirects are off because a client on the real servers' own network makes the answer leave by the interface that it came
//! in by, and the kernel would tell the real server to send the next one straight to the client, untranslated. `send_redirects` counts when
//! either `all` or the interface has it (`IN_DEV_TX_REDIRECTS`, include/linux/inetdevice.h), so both are set. IPv6 has no such switch, and needs
//! none here: a host believes a redirect only from its next hop, and the inside VIP, which is that, sends none. For the same reason nothing is
//! set on real servers. Direct routing and tunnels never pass `ip_forward`, so redirects do not come up.
//!
//! A machine that is both director and real server:
//!
//! - `dr`, `tunnel`: as the holder it delivers its own share locally; as the standby it has no table for the VIP, so what the holder sends it, from
//!   a frame or out of the tunnel, is delivered and not forwarded again.
//! - `nat` with `gateway`: as the holder it delivers its own share locally, translated, and IPVS translates the answers on their way out; then
//!   the inside VIP is its own, and the detour is not set up. As the standby it answers through the inside VIP like any other.
//! - `nat` without `gateway`: its own routes must lead to the other director while that holds, and to the clients while it holds itself. No
//!   fixed routes do both, so such a real server gets no traffic and the status says why.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::lookup::{Lookup, Names};
use super::{RealServerSide, forwarding, real_servers};
use crate::model::{
    Document, Encapsulation, Forwarding, Listen, Marking, Member, Pool, PortRange, Protocol,
    RealServer, Service, TunnelChecksum, Vip,
};
use crate::plan::path::{GuePort, Paths, Route, Rule, TABLES, Tunnel, TunnelKind};
use crate::plan::{Sysctl, Want};
use crate::state::State;

/// What that real server needs in order to answer for one address of a service, on its node.
pub(super) fn share(
    document: &Document,
    service: &Service,
    vip: IpAddr,
    real_server: &RealServer,
    node: &Member,
) -> RealServerSide {
    let mut side = RealServerSide::default();
    match forwarding(service, real_server) {
        Forwarding::Dr => {
            side.addresses.insert(vip);
        }
        Forwarding::Tunnel(encapsulation) => {
            side.addresses.insert(vip);
            let tunnel = tunnel(node, real_server.address, vip, encapsulation);
            side.paths.tunnels.insert(tunnel.name(), tunnel);
            if let Encapsulation::Gue { port, .. } = encapsulation {
                side.paths.ports.insert(GuePort { ipv6: real_server.address.is_ipv6(), port });
            }
        }
        Forwarding::Nat => {
            if let Some(paths) = way_back(document, service, vip, real_server) {
                side.paths = paths;
            }
        }
    }
    side
}

/// Why a node cannot be that real server, whatever it sets up; `None`: it can.
pub(super) fn impossible(
    lookup: &mut Lookup<'_>,
    service: &Service,
    real_server: &RealServer,
    node: &Member,
    share: &RealServerSide,
) -> Option<String> {
    let name = &node.name;
    if forwarding(service, real_server) == Forwarding::Nat
        && service.gateway.is_none()
        && node.is_director()
    {
        return Some(format!(
            "{name} is a director too: its answers must pass whichever director holds, which needs `gateway` in service `{}`",
            service.name
        ));
    }
    // Only GRE can be asked for in two ways at once.
    let mut tunnels = share.paths.tunnels.iter().filter(|(_, tunnel)| tunnel.is_gre()).peekable();
    tunnels.peek()?;
    let side = lookup.side(node);
    tunnels.find_map(|(device, want)| {
        let have = side.paths.tunnels.get(device)?;
        (have.checksum != want.checksum).then(|| {
            let with = |checksum| if checksum { "with" } else { "without" };
            format!(
                "{name}: another service sends it GRE {} checksums and this one {}, and the kernel takes one or the other for {}",
                with(have.checksum),
                with(want.checksum),
                want.local
            )
        })
    })
}

/// Why nobody can be that real server; `None`: somebody can.
pub(super) fn unreceivable(forwarding: Forwarding, real_server: &RealServer) -> Option<String> {
    let bare = matches!(
        forwarding,
        Forwarding::Tunnel(Encapsulation::Gue { checksum: TunnelChecksum::None, .. })
    );
    (bare && real_server.address.is_ipv6()).then(|| {
        "GUE over IPv6 needs `checksum: csum`: the kernel drops UDP without a checksum there (RFC 8200 section 8.1)".to_owned()
    })
}

fn tunnel(node: &Member, local: IpAddr, inner: IpAddr, encapsulation: Encapsulation) -> Tunnel {
    let kind = match (encapsulation, local, inner) {
        (Encapsulation::Gre { .. }, IpAddr::V4(_), _) => TunnelKind::Gre,
        (Encapsulation::Gre { .. }, IpAddr::V6(_), _) => TunnelKind::Ip6gre,
        (_, IpAddr::V6(_), _) => TunnelKind::Ip6tnl,
        (_, IpAddr::V4(_), IpAddr::V4(_)) => TunnelKind::Ipip,
        (_, IpAddr::V4(_), IpAddr::V6(_)) => TunnelKind::Sit,
    };
    let mut family = node.addresses.iter().filter(|other| other.is_ipv6() == local.is_ipv6());
    let place = family.position(|other| *other == local).unwrap_or_default();
    Tunnel {
        kind,
        local,
        number: u8::try_from(place + 1).unwrap_or(u8::MAX),
        checksum: matches!(encapsulation, Encapsulation::Gre { checksum } if checksum != TunnelChecksum::None),
        ipv4: inner.is_ipv4(),
        ipv6: inner.is_ipv6(),
    }
}

/// The way back through the service's gateway; `None` if it has none for that IP version.
fn way_back(
    document: &Document,
    service: &Service,
    vip: IpAddr,
    real_server: &RealServer,
) -> Option<Paths> {
    let name = service.gateway.as_ref()?;
    let index = document.vips.iter().position(|group| group.name == *name)?;
    let table = TABLES.start() + u32::try_from(index).ok()?;
    let gateway =
        document.vips[index].served().find(|address| address.is_ipv6() == vip.is_ipv6())?;
    let rules =
        answers(service, real_server).into_iter().map(|(protocol, PortRange { first, last })| {
            Rule { source: real_server.address, protocol, first, last, table }
        });
    Some(Paths {
        rules: rules.collect(),
        routes: [Route { table, gateway }].into(),
        ..Paths::default()
    })
}

/// Where answers come from. The document's check sees to it that this is known where there is a gateway.
fn answers(service: &Service, real_server: &RealServer) -> Vec<(Protocol, PortRange)> {
    let one = |port| PortRange { first: port, last: port };
    match &service.listen {
        Listen::Port { protocol, port } => {
            let port = if real_server.port == 0 { *port } else { real_server.port };
            if port == 0 { vec![] } else { vec![(*protocol, one(port))] }
        }
        Listen::Mark { marking: Some(Marking { protocol, ports }), .. } => {
            if real_server.port == 0 {
                ports.iter().map(|range| (*protocol, *range)).collect()
            } else {
                vec![(*protocol, one(real_server.port))]
            }
        }
        Listen::Mark { marking: None, .. } => vec![],
    }
}

/// Whether any real server of a service gets its packets translated.
pub(super) fn translates(state: &State, service: &Service, pool: &Pool) -> bool {
    let nat = |real_server: &RealServer| forwarding(service, real_server) == Forwarding::Nat;
    real_servers(state, pool).iter().any(nat)
}

/// Sysctls of a director without which translated connections do not pass. Whether it holds or not: it must be able to at once.
pub(super) fn routing(state: &State, names: &Names<'_>) -> BTreeMap<Sysctl, Want> {
    let document = state.document();
    let mut sysctls = BTreeMap::new();
    for (index, service) in document.services.iter().enumerate() {
        let Some((vip, pool)) = names.parts(index, service) else { continue };
        if !translates(state, service, pool) {
            continue;
        }
        let mut need = |name: String, value| sysctls.insert(Sysctl(name), Want::Exactly(value));
        if vip.addresses.iter().any(IpAddr::is_ipv4) {
            need("net/ipv4/ip_forward".into(), 1);
            need("net/ipv4/conf/all/send_redirects".into(), 0);
            let inside: Option<&Vip> = service.gateway.as_ref().and_then(|name| document.vip(name));
            for interface in [Some(vip), inside].into_iter().flatten().map(|vip| &vip.interface) {
                need(format!("net/ipv4/conf/{interface}/send_redirects"), 0);
            }
        }
        if vip.addresses.iter().any(IpAddr::is_ipv6) {
            need("net/ipv6/conf/all/forwarding".into(), 1);
        }
    }
    sysctls
}
