//! Services and real servers.

use std::net::Ipv4Addr;

use super::{At, Map, WEIGHT, Words, address, duration, number, string, word, wrong_type};
use crate::document::fault::Faults;
use crate::document::{Value, limits, schema};
use crate::model::{
    Encapsulation, Engine, Forwarding, Listen, Marking, Persistence, PortRange, Protocol,
    RealServer, Scheduler, SchedulerFlag, Service, TunnelChecksum,
};

/// Reads a service. `hash`: without a scheduler of its own it gets the one that keeps connections over a failover.
pub(super) fn service(at: At<'_>, hash: bool, faults: &mut Faults) -> Service {
    let mut map = Map::open(at, &schema::SERVICE, faults);
    let name = map.required("name", string).unwrap_or_default();
    let vip = map.required("vip", string).unwrap_or_default();
    let listen = listen(&mut map);
    let named = map.has("scheduler");
    let scheduler = map.word("scheduler", &SCHEDULER);
    let flags = map.list("flags", |at, faults| word(at, faults, &FLAG));
    let mut flags: std::collections::BTreeSet<_> = flags.into_iter().flatten().collect();
    if hash && !named && !map.has("flags") {
        flags.insert(SchedulerFlag::MhPort);
    }
    let scheduler = match scheduler {
        Some(scheduler) => scheduler,
        None if hash && !named => Scheduler::Mh,
        None => Scheduler::default(),
    };
    Service {
        name,
        vip,
        listen,
        scheduler,
        flags,
        one_packet: map.optional("one_packet", boolean).unwrap_or_default(),
        forwarding: forwarding(&mut map).unwrap_or_default(),
        gateway: map.optional("gateway", string),
        persistence: persistence(&mut map),
        pool: map.required("pool", string).unwrap_or_default(),
    }
}

fn listen(map: &mut Map<'_, '_>) -> Listen {
    let port = map.optional("port", number(&limits::PORT_OR_ALL));
    let protocol = map.word("protocol", &PROTOCOL);
    let mark = map.optional("fwmark", number(&limits::MARK));
    let has_ports = map.has("ports");
    let ports: Vec<_> = map.list("ports", port_range).into_iter().flatten().collect();
    match (mark, port) {
        (None, None) => {
            map.missing("port", "a service has a `port`, or a `fwmark` instead");
            Listen::Port { protocol: protocol.unwrap_or(Protocol::Tcp), port: 1 }
        }
        (None, Some(port)) => {
            if has_ports {
                map.refuse(
                    "ports",
                    "ports are marked for a `fwmark` only",
                    "give each port a service, or name a `fwmark` instead of `port`",
                );
            }
            Listen::Port { protocol: protocol.unwrap_or(Protocol::Tcp), port }
        }
        (Some(mark), port) => {
            if port.is_some() {
                map.refuse(
                    "port",
                    "a service has either a port or a firewall mark",
                    "name the ports that lvsmesh is to mark under `ports`",
                );
            }
            if !has_ports && map.has("protocol") {
                map.refuse(
                    "protocol",
                    "a firewall mark stands for packets of every protocol",
                    "leave it out, or name the `ports` that lvsmesh is to mark",
                );
            }
            let marking =
                has_ports.then(|| Marking { protocol: protocol.unwrap_or(Protocol::Tcp), ports });
            Listen::Mark { mark, marking }
        }
    }
}

/// `80` as a number or as text, `8000-8099`.
fn port_range(at: At<'_>, faults: &mut Faults) -> Option<PortRange> {
    let text = match at.value {
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => {
            wrong_type(&at, "a port or a range of ports", faults);
            return None;
        }
    };
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    let range = first.parse().ok().zip(last.parse().ok());
    let range = range.map(|(first, last)| PortRange { first, last });
    let range = range.filter(|range| range.first >= 1 && range.first <= range.last);
    if range.is_none() {
        faults.hint(
            &at.path,
            format!("{text:?} is no port and no range of ports"),
            "write `80`, or `8000-8099` with the lower one first; ports are 1 to 65535",
        );
    }
    range
}

fn persistence(map: &mut Map<'_, '_>) -> Persistence {
    let default = Persistence::default();
    Persistence {
        timeout: map.optional("persistence", duration).unwrap_or_default(),
        netmask: map.optional("persistence_netmask", netmask).unwrap_or(default.netmask),
        prefix: map
            .optional("persistence_prefix", number(&limits::PERSISTENCE_PREFIX))
            .unwrap_or(default.prefix),
        engine: map.word("persistence_engine", &ENGINE),
    }
}

fn netmask(at: At<'_>, faults: &mut Faults) -> Ipv4Addr {
    let read = match at.value {
        Value::Text(text) => text.parse().ok(),
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::List(_)
        | Value::Map(_) => None,
    };
    read.unwrap_or_else(|| {
        faults.hint(
            &at.path,
            format!("{} is no IPv4 mask", at.value.describe()),
            "write `255.255.255.0`; for IPv6 there is `persistence_prefix`",
        );
        Ipv4Addr::BROADCAST
    })
}

pub(super) fn real_server(at: At<'_>, faults: &mut Faults) -> RealServer {
    let mut map = Map::open(at, &schema::REAL_SERVER, faults);
    RealServer {
        address: map.required("address", address).unwrap_or(super::NO_ADDRESS),
        port: map.required("port", number(&limits::PORT_OR_ALL)).unwrap_or_default(),
        weight: map.optional("weight", number(&limits::WEIGHT)).unwrap_or(WEIGHT),
        upper_threshold: map
            .optional("upper_threshold", number(&limits::THRESHOLD))
            .unwrap_or_default(),
        lower_threshold: map
            .optional("lower_threshold", number(&limits::THRESHOLD))
            .unwrap_or_default(),
        forwarding: forwarding(&mut map),
    }
}

/// `forwarding`, and `tunnel` with it.
fn forwarding(map: &mut Map<'_, '_>) -> Option<Forwarding> {
    let forwarding = map.word("forwarding", &FORWARDING);
    let encapsulation = map.optional("tunnel", tunnel);
    match (forwarding, encapsulation) {
        (Some(Forwarding::Tunnel(_)), Some(encapsulation)) => {
            Some(Forwarding::Tunnel(encapsulation))
        }
        (forwarding, Some(_)) => {
            map.refuse(
                "tunnel",
                "only packets that are tunnelled have an encapsulation",
                "set `forwarding: tunnel` beside it",
            );
            forwarding
        }
        (forwarding, None) => forwarding,
    }
}

fn tunnel(at: At<'_>, faults: &mut Faults) -> Encapsulation {
    let mut map = Map::open(at, &schema::TUNNEL, faults);
    let kind = map.word("kind", &TUNNEL_KIND).unwrap_or_default();
    let port = map.optional("port", number(&limits::PORT));
    let (has_checksum, checksum) = (map.has("checksum"), map.word("checksum", &TUNNEL_CHECKSUM));
    let checksum = checksum.unwrap_or_default();
    if !matches!(kind, Encapsulation::Gue { .. }) && port.is_some() {
        map.refuse("port", &format!("{} has no port", kind.name()), "leave it out");
    }
    match kind {
        Encapsulation::Ipip => {
            if has_checksum && checksum != TunnelChecksum::None {
                map.refuse("checksum", "ipip has no checksum", "leave it out");
            }
            Encapsulation::Ipip
        }
        Encapsulation::Gue { .. } => {
            if port.is_none() {
                map.missing("port", "gue needs the UDP port that real servers receive on");
            }
            Encapsulation::Gue { port: port.unwrap_or_default(), checksum }
        }
        Encapsulation::Gre { .. } => {
            if checksum == TunnelChecksum::Remcsum {
                map.refuse(
                    "checksum",
                    "gre has no remote checksum offload",
                    "use `csum` or `none`",
                );
            }
            Encapsulation::Gre { checksum }
        }
    }
}

fn boolean(at: At<'_>, faults: &mut Faults) -> bool {
    match at.value {
        Value::Bool(value) => *value,
        Value::Null
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::List(_)
        | Value::Map(_) => {
            wrong_type(&at, "`true` or `false`", faults);
            false
        }
    }
}

static PROTOCOL: Words<Protocol> =
    Words { noun: "protocol", all: &Protocol::ALL, name: Protocol::name, planned: &[] };
static SCHEDULER: Words<Scheduler> =
    Words { noun: "scheduler", all: &Scheduler::ALL, name: Scheduler::name, planned: &[] };
static FLAG: Words<SchedulerFlag> = Words {
    noun: "scheduler flag",
    all: &SchedulerFlag::ALL,
    name: SchedulerFlag::name,
    planned: &[],
};
static ENGINE: Words<Engine> =
    Words { noun: "persistence engine", all: &Engine::ALL, name: Engine::name, planned: &[] };
static FORWARDING: Words<Forwarding> = Words {
    noun: "forwarding method",
    all: &[Forwarding::Dr, Forwarding::Nat, Forwarding::Tunnel(Encapsulation::Ipip)],
    name: Forwarding::name,
    planned: &[],
};
static TUNNEL_KIND: Words<Encapsulation> = Words {
    noun: "kind of tunnel",
    all: &[
        Encapsulation::Ipip,
        Encapsulation::Gue { port: 0, checksum: TunnelChecksum::None },
        Encapsulation::Gre { checksum: TunnelChecksum::None },
    ],
    name: Encapsulation::name,
    planned: &[],
};
static TUNNEL_CHECKSUM: Words<TunnelChecksum> = Words {
    noun: "tunnel checksum",
    all: &TunnelChecksum::ALL,
    name: TunnelChecksum::name,
    planned: &[],
};
