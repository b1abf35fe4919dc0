//! Services: what they are for, how they schedule, and how that fits their pool and VIP group.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Findings, limits, text, unique_names, whole};
use crate::model::{
    Discovery, DnsSource, Document, Encapsulation, Forwarding, Listen, Pool, PoolSource, Protocol,
    RealServer, Service, TunnelChecksum,
};

pub(super) fn services(document: &Document, found: &mut Findings) {
    let services = &document.services;
    unique_names("services", services.iter().map(|service| service.name.as_str()), found);
    let mut listeners = BTreeMap::new();
    for (index, service) in services.iter().enumerate() {
        let path = format!("services[{index}]");
        listen(&path, service, found);
        scheduling(&path, service, found);
        persistence(&path, service, found);
        references(&path, service, document, found);
        gateway(&path, service, document, found);

        let (key, keys): (_, &[&str]) = match &service.listen {
            Listen::Port { protocol, port } => {
                (Claim::Port(&service.vip, *port, *protocol), &["vip", "port", "protocol"])
            }
            Listen::Mark { mark, .. } => (Claim::Mark(*mark), &["fwmark"]),
        };
        if let Some(first) = listeners.insert(key, index) {
            let message = match key {
                Claim::Port(vip, port, protocol) => format!(
                    "services[{first}] has {} port {port} of VIP group `{vip}` already",
                    protocol.name(),
                ),
                Claim::Mark(mark) => format!("services[{first}] has firewall mark {mark} already"),
            };
            let about = |service| keys.iter().map(move |key| format!("services[{service}].{key}"));
            found.add(path, message).about(about(first)).about(about(index));
        }
    }
}

/// What only one service may have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Claim<'a> {
    Port(&'a str, u16, Protocol),
    Mark(u32),
}

fn listen(path: &str, service: &Service, found: &mut Findings) {
    match &service.listen {
        Listen::Port { port: 0, .. } if service.persistence.timeout.is_zero() => {
            found
                .add(format!("{path}.port"), "0 is every port, which needs persistence")
                .hint("set `persistence`, or name a port")
                .about([format!("{path}.persistence")]);
        }
        Listen::Port { .. } => {}
        Listen::Mark { mark, marking } => {
            found.within(&format!("{path}.fwmark"), (*mark).into(), &limits::MARK);
            let Some(marking) = marking else { return };
            let ports = format!("{path}.ports");
            found.count(&ports, "ports", marking.ports.len(), &limits::MARKED_PORTS);
            let mut sorted: Vec<_> = marking.ports.iter().enumerate().collect();
            sorted.sort_by_key(|(_, range)| **range);
            for pair in sorted.windows(2) {
                let [(_, before), (index, range)] = pair else { continue };
                if range.first <= before.last {
                    let message = format!("{range} overlaps {before}");
                    found.add(format!("{ports}[{index}]"), message).about([ports.clone()]);
                }
            }
        }
    }
}

fn scheduling(path: &str, service: &Service, found: &mut Findings) {
    for flag in service.flags.iter().filter(|flag| !flag.is_of(service.scheduler)) {
        let scheduler = service.scheduler;
        let possible: Vec<_> = crate::model::SchedulerFlag::ALL
            .into_iter()
            .filter(|flag| flag.is_of(scheduler))
            .map(|flag| format!("`{}`", flag.name()))
            .collect();
        found
            .add(
                format!("{path}.flags"),
                format!("`{}` is no flag of scheduler {}", flag.name(), scheduler.name()),
            )
            .hint(format!("it has {}", possible.join(", ")))
            .about([format!("{path}.scheduler")]);
    }
    let datagrams = match service.listen {
        Listen::Port { protocol, .. } => protocol == Protocol::Udp,
        Listen::Mark { .. } => true,
    };
    if service.one_packet && !datagrams {
        found
            .add(format!("{path}.one_packet"), "only datagrams can be scheduled one by one")
            .hint("leave it out, or set `protocol: udp`")
            .about([format!("{path}.protocol")]);
    }
}

fn persistence(path: &str, service: &Service, found: &mut Findings) {
    let persistence = &service.persistence;
    let at = format!("{path}.persistence");
    let span = persistence.timeout;
    found.span(&at, span, &limits::PERSISTENCE);
    if !whole(span, Duration::from_secs(1)) {
        let message = format!("{} is not in whole seconds", text::duration(span));
        found.add(at.clone(), message).hint("the kernel counts seconds");
    }
    let prefix = format!("{path}.persistence_prefix");
    found.within(&prefix, persistence.prefix.into(), &limits::PERSISTENCE_PREFIX);
    let default = crate::model::Persistence::default();
    let rests_on_it = [
        ("persistence_netmask", persistence.netmask != default.netmask),
        ("persistence_prefix", persistence.prefix != default.prefix),
        ("persistence_engine", persistence.engine.is_some()),
    ];
    for (key, _) in rests_on_it.into_iter().filter(|(_, set)| *set && span.is_zero()) {
        found
            .add(format!("{path}.{key}"), "says how clients persist, and `persistence` is off")
            .hint("set `persistence`, or leave it out")
            .about([at.clone()]);
    }
    let udp = match &service.listen {
        Listen::Port { protocol, .. } => *protocol == Protocol::Udp,
        Listen::Mark { .. } => true,
    };
    if let Some(engine) = persistence.engine.filter(|_| !udp) {
        found
            .add(
                format!("{path}.persistence_engine"),
                format!("the kernel's {} engine reads UDP only", engine.name()),
            )
            .hint("leave it out, or set `protocol: udp`")
            .about([format!("{path}.protocol")]);
    }
}

fn references(path: &str, service: &Service, document: &Document, found: &mut Findings) {
    if document.vip(&service.vip).is_none() {
        let names = document.vips.iter().map(|vip| vip.name.as_str());
        found.dangling(&format!("{path}.vip"), "VIP group", &service.vip, names, "vips");
    }
    let Some(index) = document.pools.iter().position(|pool| pool.name == service.pool) else {
        let names = document.pools.iter().map(|pool| pool.name.as_str());
        found.dangling(&format!("{path}.pool"), "pool", &service.pool, names, "pools");
        return;
    };
    let about = ["port", "fwmark", "forwarding"].map(|key| format!("{path}.{key}"));
    ports(service, &document.pools[index], index, &about, found);
    bare_gue(service, &document.pools[index], index, path, found);
}

/// UDP over IPv6 needs a checksum (RFC 8200 §8.1), and the kernel's sockets for GUE make no exception.
fn bare_gue(service: &Service, pool: &Pool, index: usize, path: &str, found: &mut Findings) {
    let PoolSource::Listed(listed) = &pool.source else { return };
    for (server, RealServer { address, forwarding, .. }) in listed.iter().enumerate() {
        let bare = matches!(
            forwarding.unwrap_or(service.forwarding),
            Forwarding::Tunnel(Encapsulation::Gue { checksum: TunnelChecksum::None, .. })
        );
        if bare && address.is_ipv6() {
            let at = format!("pools[{index}].real_servers[{server}]");
            found
                .add(
                    at.clone(),
                    format!(
                        "{address} would drop GUE of service `{}`: UDP over IPv6 needs a checksum",
                        service.name
                    ),
                )
                .hint("set `tunnel: { checksum: csum }`")
                .about([format!("{path}.tunnel"), format!("{at}.tunnel")]);
        }
    }
}

/// Only translation changes ports, so other real servers answer on the service's port or not at all. Packets of a mark go to any port.
fn ports(service: &Service, pool: &Pool, index: usize, about: &[String], found: &mut Findings) {
    let mut compare = |path: String, port: u16, forwarding: Forwarding| {
        let wrong = match (&service.listen, forwarding.keeps_ports()) {
            (Listen::Port { port: asked, .. }, true) => (port != *asked).then(|| {
                if *asked == 0 {
                    let why = "takes every port";
                    (format!("{port} is one port, and service `{}` {why}", service.name), "write 0")
                } else {
                    (
                        format!("{port} is not the port of service `{}`, {asked}", service.name),
                        "only `forwarding: nat` translates ports",
                    )
                }
            }),
            (Listen::Port { port: asked, .. }, false) => (port == 0 && *asked != 0).then(|| {
                (
                    format!("0 is every port, and service `{}` has one", service.name),
                    "name the port that the real server answers on",
                )
            }),
            (Listen::Mark { .. }, _) => None,
        };
        if let Some((message, hint)) = wrong {
            found.add(path, message).hint(hint).about(about.iter().cloned());
        }
    };
    match &pool.source {
        PoolSource::Listed(listed) => {
            for (server, RealServer { port, forwarding, .. }) in listed.iter().enumerate() {
                let path = format!("pools[{index}].real_servers[{server}].port");
                compare(path, *port, forwarding.unwrap_or(service.forwarding));
            }
        }
        PoolSource::Discovery(Discovery::Dns(DnsSource { port: Some(port), .. })) => {
            compare(format!("pools[{index}].discovery.dns.port"), *port, service.forwarding);
        }
        // Known only once they are found; others are then left out of the table.
        PoolSource::Discovery(Discovery::Dns(_) | Discovery::File(_)) => {}
    }
}

/// The way back of translated connections.
fn gateway(path: &str, service: &Service, document: &Document, found: &mut Findings) {
    let Some(gateway) = &service.gateway else { return };
    let at = format!("{path}.gateway");
    let translated = service.forwarding == Forwarding::Nat
        || document.pool(&service.pool).is_some_and(|pool| match &pool.source {
            PoolSource::Listed(listed) => {
                listed.iter().any(|server| server.forwarding == Some(Forwarding::Nat))
            }
            PoolSource::Discovery(_) => false,
        });
    if !translated {
        found
            .add(at, "only translated connections need a way back through the director")
            .hint("leave it out, or set `forwarding: nat`")
            .about([format!("{path}.forwarding"), "pools".to_owned()]);
        return;
    }
    if let Listen::Mark { marking: None, .. } = &service.listen {
        found
            .add(at.clone(), "the answers to packets that the operator's own rules mark cannot be told from others")
            .hint("name the `ports` that lvsmesh is to mark, or leave it out and route the answers by hand")
            .about([format!("{path}.ports"), format!("{path}.fwmark")]);
    }
    if let Listen::Port { port: 0, .. } = &service.listen {
        found
            .add(at.clone(), "a service that takes every port would send all that its real servers say through the director")
            .hint("leave it out and route the answers by hand, or name a port")
            .about([format!("{path}.port")]);
    }
    let (Some(inside), Some(outside)) = (document.vip(gateway), document.vip(&service.vip)) else {
        if document.vip(gateway).is_none() {
            let names = document.vips.iter().map(|vip| vip.name.as_str());
            found.dangling(&at, "VIP group", gateway, names, "vips");
        }
        return;
    };
    for ipv6 in [false, true] {
        let has = |vip: &crate::model::Vip| vip.addresses.iter().any(|it| it.is_ipv6() == ipv6);
        if has(outside) && !has(inside) {
            let family = if ipv6 { "IPv6" } else { "IPv4" };
            found
                .add(
                    at.clone(),
                    format!(
                        "VIP group `{gateway}` has no {family} address, and `{}` has",
                        service.vip
                    ),
                )
                .hint("real servers need a way back for each family")
                .about(["vips".to_owned()]);
        }
    }
}
