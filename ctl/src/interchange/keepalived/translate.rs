//! Virtual servers become services and pools.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use lvsmesh_core::document::limits;
use lvsmesh_core::model::{
    self, CheckKind, Engine, Fleet, Forwarding, Persistence, Pool, PoolSource, Protocol,
    RealServer, Scheduler, SchedulerFlag, Service, text,
};

use super::Places;
use super::take::{Check, Director, Listen, Netmask, Real, Timing, Virtual};
use crate::interchange::draft::Entry;
use crate::interchange::fates::Fates;

/// keepalived's defaults for a TCP check, keepalived.conf(5).
const DELAY_LOOP: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY: u32 = 1;
const DELAY_BEFORE_RETRY: Duration = Duration::from_secs(1);
/// And for a persistent service.
const PERSISTENCE: Duration = Duration::from_secs(360);

/// One service for each address and mark of a virtual server.
pub(super) fn entries(server: &Virtual, fates: &mut Fates) -> Vec<Entry> {
    let settings = settings(server, fates);
    let listens = server.listens.iter();
    listens.map(|&(listen, at)| entry(server, listen, at, &settings, fates)).collect()
}

/// What the services of a virtual server share.
fn settings(server: &Virtual, fates: &mut Fates) -> Service {
    let scheduler = server.scheduler.unwrap_or(Scheduler::Wlc);
    let forwarding = match server.forwarding {
        Some((forwarding, _)) => forwarding,
        None => {
            fates.changed(server.origin, "no forwarding method: NAT, as keepalived takes it");
            Forwarding::Nat
        }
    };
    let mut flags = BTreeSet::new();
    for (name, origin) in &server.flags {
        match flag(name, scheduler) {
            Some(flag) => {
                flags.insert(flag);
            }
            None => {
                let why = format!("no flag of scheduler {}: left out", scheduler.name());
                fates.changed(*origin, why);
            }
        }
    }
    Service { scheduler, flags, forwarding, ..Service::new("", "", 0, "") }
}

/// The flag by a scheduler's own name for its bit.
fn flag(name: &str, scheduler: Scheduler) -> Option<SchedulerFlag> {
    let named = SchedulerFlag::ALL.into_iter().find(|flag| flag.name() == name)?;
    SchedulerFlag::ALL.into_iter().find(|flag| {
        let numbered = name.starts_with("flag-") && flag.bit() == named.bit();
        flag.is_of(scheduler) && (*flag == named || numbered)
    })
}

fn entry(
    server: &Virtual,
    listen: Listen,
    at: usize,
    settings: &Service,
    fates: &mut Fates,
) -> Entry {
    let mut service = settings.clone();
    let (address, port) = match listen {
        Listen::Address(address, port) => {
            let protocol = server.protocol.unwrap_or_else(|| {
                fates.changed(server.origin, "no protocol: UDP, as keepalived 2 takes it");
                Protocol::Udp
            });
            service.listen = model::Listen::Port { protocol, port };
            (Some(address), Some(port))
        }
        Listen::Mark(mark, _) => {
            service.listen = model::Listen::Mark { mark, marking: None };
            (None, None)
        }
    };
    service.one_packet = server.one_packet.is_some();
    if let (Some(origin), Some(_)) = (server.one_packet, port)
        && server.protocol.is_some_and(|protocol| protocol != Protocol::Udp)
    {
        service.one_packet = false;
        fates.changed(origin, "only datagrams can be scheduled one by one: left out");
    }
    service.persistence = persistence(server, port, fates);
    let real_servers: Vec<RealServer> =
        server.reals.iter().map(|real| real_server(real, port, &service, fates)).collect();
    let check = check(server, &real_servers, fates);
    let pool = Pool {
        name: String::new(),
        source: PoolSource::Listed(real_servers),
        check,
        min_healthy: 0,
    };
    Entry {
        address,
        service,
        pool,
        origin: server.origin,
        listen: at,
        real_servers: server.reals.iter().map(|real| real.origin).collect(),
    }
}

fn persistence(server: &Virtual, port: Option<u16>, fates: &mut Fates) -> Persistence {
    let mut found = Persistence::default();
    if let Some((name, origin)) = &server.engine {
        found.engine = Engine::ALL.into_iter().find(|engine| engine.name() == name);
        if found.engine.is_none() {
            fates.unsupported(*origin, format!("no persistence engine `{name}`"));
        }
    }
    match server.netmask {
        Some((Netmask::V4(bits), _)) => found.netmask = bits.into(),
        Some((Netmask::V6(prefix), _)) => found.prefix = prefix,
        None => {}
    }
    found.timeout = server.persistence.unwrap_or_default();
    if found.timeout.is_zero() && port == Some(0) {
        fates.changed(server.origin, "every port needs persistence: 360 s, keepalived's default");
        found.timeout = PERSISTENCE;
    }
    if found.timeout.is_zero() && server.netmask.is_some() && server.persistence.is_none() {
        found.timeout = PERSISTENCE;
    }
    if found.timeout.is_zero() {
        // Nothing rests on persistence that is off.
        if let Some((_, origin)) = server.netmask {
            fates.changed(origin, "persistence is off: left out");
        }
        if let Some((_, origin)) = &server.engine {
            fates.changed(*origin, "persistence is off: left out");
        }
        return Persistence::default();
    }
    found
}

fn real_server(real: &Real, port: Option<u16>, service: &Service, fates: &mut Fates) -> RealServer {
    let own = real.forwarding.map(|(forwarding, _)| forwarding);
    let forwarding = own.unwrap_or(service.forwarding);
    let mut chosen = real.port.or(port).unwrap_or_default();
    if let Some(port) = port.filter(|port| forwarding.keeps_ports() && *port != chosen) {
        fates.changed(
            real.origin,
            format!(
                "only translation changes ports: packets reach it on {port}, so that is its port"
            ),
        );
        chosen = port;
    }
    RealServer {
        address: real.address,
        port: chosen,
        weight: real.weight,
        upper_threshold: real.upper.unwrap_or_default(),
        lower_threshold: real.lower.unwrap_or_default(),
        forwarding: own.filter(|own| *own != service.forwarding),
    }
}

/// The one check of a pool.
fn check(server: &Virtual, real_servers: &[RealServer], fates: &mut Fates) -> Option<model::Check> {
    let mut chosen: Option<(model::Check, usize)> = None;
    for (real, made) in server.reals.iter().zip(real_servers) {
        let Some(check) = &real.check else { continue };
        let check = translate_check(check, real, made, fates);
        let origin = real.check.as_ref().map_or(real.origin, |check| check.origin);
        match &chosen {
            None => chosen = Some((check, origin)),
            Some((first, _)) if *first == check => {}
            Some(_) => {
                fates.changed(
                    origin,
                    "a pool has one check: that of its first real server is taken",
                );
            }
        }
    }
    let (check, _) = chosen?;
    for real in server.reals.iter().filter(|real| real.check.is_none()) {
        fates.changed(real.origin, "probed as the others of its pool are");
    }
    if check.port.is_none() && real_servers.iter().any(|real| real.port == 0) {
        fates.unsupported(server.origin, "a check needs a port (connect_port): left out");
        return None;
    }
    Some(check)
}

fn translate_check(
    check: &Check,
    real: &Real,
    made: &RealServer,
    fates: &mut Fates,
) -> model::Check {
    let Timing { interval, timeout, retries, delay_before_retry } = check.timing;
    let mut within = |what: &str, span: Duration, range: RangeInclusive<Duration>| {
        let fits = span.clamp(*range.start(), *range.end());
        if fits != span {
            let [had, fits] = [span, fits].map(text::duration);
            fates.changed(check.origin, format!("{what} {had} became {fits}"));
        }
        fits
    };
    let interval = within("delay_loop", interval.unwrap_or(DELAY_LOOP), limits::INTERVAL);
    let timeout = within("connect_timeout", timeout.unwrap_or(CONNECT_TIMEOUT), limits::TIMEOUT);
    let delay = delay_before_retry.unwrap_or(DELAY_BEFORE_RETRY);
    let delay_before_retry = within("delay_before_retry", delay, limits::RETRY_DELAY);
    let wanted = retries.unwrap_or(RETRY);
    let most = u32::try_from(*limits::RETRIES.end()).unwrap_or(u32::MAX);
    let retries = wanted.min(most);
    if retries != wanted {
        fates.changed(check.origin, format!("retry {wanted} became {retries}"));
    }
    // A port that is not said is the real server's as keepalived knows it, which need not be where packets reach it.
    let port = check.port.or(real.port).filter(|port| *port != made.port);
    model::Check { kind: CheckKind::Tcp, port, interval, timeout, retries, delay_before_retry }
}

/// What the directors say about IPVS as a whole.
pub(super) fn fleet(directors: &[Director], places: &Places, fates: &mut Fates) -> Fleet {
    let mut fleet = Fleet::default();
    let mut timeouts = directors.iter().filter_map(|director| director.timeouts);
    if let Some(first) = timeouts.next() {
        let span = |seconds: Option<u32>| {
            seconds.filter(|seconds| *seconds > 0).map(|it| Duration::from_secs(it.into()))
        };
        fleet.ipvs.timeouts = model::Timeouts {
            tcp: span(first.tcp),
            tcp_fin: span(first.tcp_fin),
            udp: span(first.udp),
        };
        let limit = &limits::IPVS_TIMEOUT;
        for span in [
            &mut fleet.ipvs.timeouts.tcp,
            &mut fleet.ipvs.timeouts.tcp_fin,
            &mut fleet.ipvs.timeouts.udp,
        ] {
            if let Some(long) = span.filter(|span| !limit.contains(span)) {
                let (long, most) = (text::duration(long), text::duration(*limit.end()));
                fates.changed(first.origin, format!("{long} became {most}"));
                *span = Some(*limit.end());
            }
        }
        for other in timeouts {
            if (other.tcp, other.tcp_fin, other.udp) != (first.tcp, first.tcp_fin, first.udp) {
                let first = places.name(first.origin);
                fates.changed(other.origin, format!("differs from {first}, which is taken"));
            }
        }
    }
    let mut syncs = directors
        .iter()
        .filter_map(|director| Some((director.sync.as_ref()?, director.instances.first())));
    if let Some((first, instance)) = syncs.next() {
        let id =
            first.id.or(instance.map(|instance| instance.vrrp.vrid.into())).unwrap_or_default();
        let made = model::Sync {
            interface: first.interface.clone(),
            id: u8::try_from(id).unwrap_or_else(|_| {
                fates.changed(first.origin, format!("id {id} became 0: 0 to 255 are possible"));
                0
            }),
            group: first.group.filter(IpAddr::is_multicast).unwrap_or(model::Sync::GROUP),
            port: first.port.filter(|port| *port > 0).unwrap_or(model::Sync::PORT),
            ttl: first.ttl.filter(|ttl| *ttl > 0).unwrap_or(1),
            maxlen: first
                .max_length
                .and_then(|length| u16::try_from(length).ok())
                .filter(|length| limits::SYNC_MAXLEN.contains(&(*length).into())),
        };
        fleet.ipvs.sync = Some(made);
        for (other, _) in syncs {
            if (&other.interface, other.id) != (&first.interface, first.id) {
                let first = places.name(first.origin);
                fates.changed(other.origin, format!("differs from {first}, which is taken"));
            }
        }
    }
    fleet
}
