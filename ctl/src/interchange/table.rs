//! An IPVS table becomes services and pools.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use lvsmesh_core::model::{
    Encapsulation, Engine, Fleet, Forwarding, Listen, Persistence, Pool, PoolSource, RealServer,
    Scheduler, SchedulerFlag, Service, TunnelChecksum,
};
use lvsmesh_core::plan::{Destination, Method, ServiceKey, ServiceSpec, Table};
use lvsmesh_proto::v1;

use super::draft::{Draft, Entry};
use super::fates::Fates;

/// One service of a table, with the lines that it and its real servers come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: ServiceKey,
    pub(crate) spec: ServiceSpec,
    pub(crate) origin: usize,
    pub(crate) destinations: Vec<(SocketAddr, Destination, usize)>,
}

/// Every service that can be taken; the others are said.
pub(crate) fn draft(rows: &[Row], fates: &mut Fates) -> Draft {
    let entries = rows.iter().filter_map(|row| entry(row, fates)).collect();
    Draft { fleet: Fleet::default(), groups: Vec::new(), entries }
}

fn entry(row: &Row, fates: &mut Fates) -> Option<Entry> {
    let Row { key, spec, origin, destinations } = row;
    let (address, listen) = match *key {
        ServiceKey::Address { protocol, address, port } => {
            (Some(address), Listen::Port { protocol, port })
        }
        ServiceKey::Mark { mark, ipv6: false } => (None, Listen::Mark { mark, marking: None }),
        ServiceKey::Mark { ipv6: true, .. } => {
            lose(row, "a firewall mark's service for IPv6 needs a VIP group of IPv6", fates);
            return None;
        }
    };
    let named = |scheduler: &Scheduler| scheduler.name() == spec.scheduler;
    let Some(scheduler) = Scheduler::ALL.into_iter().find(named) else {
        lose(row, &format!("no scheduler `{}`", spec.scheduler), fates);
        return None;
    };
    let engine = match &spec.engine {
        None => None,
        Some(name) => match Engine::ALL.into_iter().find(|engine| engine.name() == name) {
            Some(engine) => Some(engine),
            None => {
                lose(row, &format!("no persistence engine `{name}`"), fates);
                return None;
            }
        },
    };
    let ipv6 = address.is_some_and(|address| address.is_ipv6());
    let persistence = if spec.flags & ServiceSpec::PERSISTENT == 0 {
        Persistence::default()
    } else {
        let mut persistence = Persistence {
            timeout: Duration::from_secs(spec.timeout.into()),
            engine,
            ..Persistence::default()
        };
        if ipv6 {
            persistence.prefix = u8::try_from(spec.netmask).unwrap_or(128);
        } else {
            persistence.netmask = spec.netmask.into();
        }
        persistence
    };
    let mut listed = Vec::new();
    let mut origins = Vec::new();
    let methods: Vec<Option<Forwarding>> =
        destinations.iter().map(|(_, destination, _)| forwarding(destination.method)).collect();
    let usual = methods.iter().flatten().next().copied().unwrap_or_default();
    for ((at, destination, origin), method) in destinations.iter().zip(methods) {
        let Some(method) = method else {
            let why = format!("no forwarding method {}", destination.method);
            fates.unsupported(*origin, why);
            continue;
        };
        listed.push(RealServer {
            address: at.ip(),
            port: at.port(),
            weight: destination.weight,
            upper_threshold: destination.upper,
            lower_threshold: destination.lower,
            forwarding: (method != usual).then_some(method),
        });
        origins.push(*origin);
    }
    let flags: BTreeSet<SchedulerFlag> = SchedulerFlag::ALL
        .into_iter()
        .filter(|flag| flag.is_of(scheduler) && spec.flags & flag.bit() != 0)
        .collect();
    let service = Service {
        listen,
        scheduler,
        flags,
        one_packet: spec.flags & ServiceSpec::ONE_PACKET != 0,
        forwarding: usual,
        persistence,
        ..Service::new("", "", 0, "")
    };
    let pool = Pool {
        name: String::new(),
        source: PoolSource::Listed(listed),
        check: None,
        min_healthy: 0,
    };
    Some(Entry { address, service, pool, origin: *origin, listen: *origin, real_servers: origins })
}

fn lose(row: &Row, why: &str, fates: &mut Fates) {
    fates.unsupported(row.origin, why);
    for (_, _, origin) in &row.destinations {
        fates.unsupported(*origin, format!("its service is left out: {why}"));
    }
}

const fn forwarding(method: Method) -> Option<Forwarding> {
    match method {
        Method::Masq => Some(Forwarding::Nat),
        Method::Tunnel(encapsulation) => Some(Forwarding::Tunnel(encapsulation)),
        Method::Route => Some(Forwarding::Dr),
        Method::Local | Method::Bypass => None,
    }
}

/// A table in the form in which agents answer.
pub(crate) fn listing(table: &Table) -> v1::ListIpvsResponse {
    let services = table.iter().map(|(key, service)| {
        let named = match *key {
            ServiceKey::Address { protocol, address, port } => v1::IpvsService {
                protocol: protocol.number().into(),
                address: address.to_string(),
                port: port.into(),
                ipv6: address.is_ipv6(),
                ..Default::default()
            },
            ServiceKey::Mark { ipv6, mark } => v1::IpvsService { mark, ipv6, ..Default::default() },
        };
        let spec = &service.spec;
        v1::IpvsService {
            scheduler: spec.scheduler.clone(),
            flags: spec.flags,
            timeout: spec.timeout,
            netmask: spec.netmask,
            engine: spec.engine.clone().unwrap_or_default(),
            destinations: service.destinations.iter().map(destination).collect(),
            ..named
        }
    });
    v1::ListIpvsResponse { services: services.collect(), ..Default::default() }
}

fn destination((at, destination): (&SocketAddr, &Destination)) -> v1::IpvsDestination {
    let flags = |checksum: TunnelChecksum| match checksum {
        TunnelChecksum::None => 0,
        TunnelChecksum::Csum => 1,
        TunnelChecksum::Remcsum => 2,
    };
    let (method, tunnel_type, tunnel_port, tunnel_flags) = match destination.method {
        Method::Masq => (0, 0, 0, 0),
        Method::Local => (1, 0, 0, 0),
        Method::Tunnel(Encapsulation::Ipip) => (2, 0, 0, 0),
        Method::Tunnel(Encapsulation::Gue { port, checksum }) => {
            (2, 1, port.into(), flags(checksum))
        }
        Method::Tunnel(Encapsulation::Gre { checksum }) => (2, 2, 0, flags(checksum)),
        Method::Route => (3, 0, 0, 0),
        Method::Bypass => (4, 0, 0, 0),
    };
    v1::IpvsDestination {
        address: at.ip().to_string(),
        port: at.port().into(),
        method,
        weight: destination.weight,
        upper_threshold: destination.upper,
        lower_threshold: destination.lower,
        tunnel_type,
        tunnel_port,
        tunnel_flags,
        ..Default::default()
    }
}
