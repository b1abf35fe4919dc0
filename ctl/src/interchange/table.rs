//! An IPVS table becomes services and pools.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lvsmesh_core::model::{
    Engine, Fleet, Forwarding, Listen, Persistence, Pool, PoolSource, RealServer, Scheduler,
    SchedulerFlag, Service,
};
use lvsmesh_core::plan::{Destination, Method, ServiceKey, ServiceSpec};

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

/// The mask that counts each client by itself.
pub(crate) const fn each_client(ipv6: bool) -> u32 {
    if ipv6 { 128 } else { u32::MAX }
}

/// Whether a key is one of IPv6.
pub(crate) const fn is_ipv6(key: ServiceKey) -> bool {
    match key {
        ServiceKey::Address { address: IpAddr::V6(_), .. }
        | ServiceKey::Mark { ipv6: true, .. } => true,
        ServiceKey::Address { address: IpAddr::V4(_), .. }
        | ServiceKey::Mark { ipv6: false, .. } => false,
    }
}
