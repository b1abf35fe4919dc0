//! From a document to a tree: every default written out, keys in the schema's order.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Value, schema};
use crate::model::{
    Auth, Check, Discovery, DnsRecord, DnsSource, Document, Encapsulation, FileSource, Fleet,
    Forwarding, Garp, Ipvs, Listen, Persistence, Pool, PoolSource, RealServer, Service, Sync,
    Sysctls, Timeouts, Vip, Vrrp, text,
};

/// Writes a document; [`super::decode`] gives the same document again.
///
/// Passwords are part of it: what is shown to people is the caller's decision.
#[must_use]
pub fn encode(document: &Document) -> Value {
    object(
        &schema::DOCUMENT,
        [
            Some(fleet(&document.fleet)),
            Some(list(&document.vips, vip)),
            Some(list(&document.pools, pool)),
            Some(list(&document.services, service)),
        ],
    )
}

fn fleet(fleet: &Fleet) -> Value {
    object(
        &schema::FLEET,
        [
            Some(fleet.name.as_str().into()),
            Some(fleet.no_quorum.name().into()),
            Some(fleet.failback.name().into()),
            (fleet.ipvs != Ipvs::default()).then(|| ipvs(&fleet.ipvs)),
            fleet.failback.delay().map(duration),
        ],
    )
}

fn ipvs(ipvs: &Ipvs) -> Value {
    let Ipvs { timeouts, sync: daemon, sysctls: set, connections } = ipvs;
    object(
        &schema::IPVS,
        [
            (*timeouts != Timeouts::default()).then(|| {
                let spans = [timeouts.tcp, timeouts.tcp_fin, timeouts.udp];
                object(&schema::TIMEOUTS, spans.map(|span| span.map(duration)))
            }),
            daemon.as_ref().map(sync),
            (*set != Sysctls::default()).then(|| sysctls(set)),
            Some(connections.name().into()),
        ],
    )
}

fn sync(sync: &Sync) -> Value {
    object(
        &schema::SYNC,
        [
            Some(sync.interface.as_str().into()),
            Some(u32::from(sync.id).into()),
            Some(sync.group.to_string().into()),
            Some(u32::from(sync.port).into()),
            Some(u32::from(sync.ttl).into()),
            sync.maxlen.map(|maxlen| u32::from(maxlen).into()),
        ],
    )
}

fn sysctls(sysctls: &Sysctls) -> Value {
    let values: Vec<_> = sysctls.values.iter().collect();
    let value = |(name, value): &(&&'static str, &i64)| {
        object(&schema::SYSCTL, [Some((**name).into()), Some(Value::Integer((**value).into()))])
    };
    object(&schema::SYSCTLS, [Some(sysctls.profile.name().into()), Some(list(&values, value))])
}

fn vip(vip: &Vip) -> Value {
    let excluded = &vip.addresses[vip.advertised().len()..];
    object(
        &schema::VIP,
        [
            Some(vip.name.as_str().into()),
            Some(addresses(vip.advertised())),
            (!excluded.is_empty()).then(|| addresses(excluded)),
            Some(vip.interface.as_str().into()),
            Some(vip.attach.name().into()),
            Some(list(&vip.preference, |name| name.as_str().into())),
            (vip.garp != Garp::default()).then(|| garp(&vip.garp)),
            Some(vrrp(&vip.vrrp)),
            (!vip.arbiters.is_empty()).then(|| addresses(&vip.arbiters)),
        ],
    )
}

fn addresses(addresses: &[IpAddr]) -> Value {
    list(addresses, |address| address.to_string().into())
}

fn garp(garp: &Garp) -> Value {
    let Garp { repeat, refresh, interval } = *garp;
    object(
        &schema::GARP,
        [Some(u32::from(repeat).into()), Some(duration(refresh)), Some(duration(interval))],
    )
}

fn vrrp(vrrp: &Vrrp) -> Value {
    let auth = |Auth::Pass(pass): &Auth| object(&schema::AUTH, [Some(Value::from(pass.as_str()))]);
    object(
        &schema::VRRP,
        [
            Some(u32::from(vrrp.vrid).into()),
            Some(u32::from(vrrp.version.number()).into()),
            Some(duration(vrrp.advert_interval)),
            Some(u32::from(vrrp.priority).into()),
            vrrp.auth.as_ref().map(auth),
            Some(vrrp.checksum.name().into()),
            Some(vrrp.coexist.name().into()),
            Some(vrrp.peers.name().into()),
            (!vrrp.peers.listed().is_empty()).then(|| addresses(vrrp.peers.listed())),
        ],
    )
}

fn pool(pool: &Pool) -> Value {
    let (listed, found) = match &pool.source {
        PoolSource::Listed(listed) => (Some(list(listed, real_server)), None),
        PoolSource::Discovery(found) => (None, Some(discovery(found))),
    };
    object(
        &schema::POOL,
        [
            Some(pool.name.as_str().into()),
            listed,
            found,
            pool.check.as_ref().map(check),
            Some(pool.min_healthy.into()),
        ],
    )
}

fn real_server(server: &RealServer) -> Value {
    let threshold = |count: u32| (count != 0).then(|| count.into());
    object(
        &schema::REAL_SERVER,
        [
            Some(server.address.to_string().into()),
            Some(u32::from(server.port).into()),
            Some(server.weight.into()),
            threshold(server.upper_threshold),
            threshold(server.lower_threshold),
            server.forwarding.map(|forwarding| forwarding.name().into()),
            server.forwarding.and_then(tunnel),
        ],
    )
}

fn discovery(discovery: &Discovery) -> Value {
    let sources = match discovery {
        Discovery::File(file) => [Some(file_source(file)), None],
        Discovery::Dns(dns) => [None, Some(dns_source(dns))],
    };
    object(&schema::DISCOVERY, sources)
}

fn file_source(file: &FileSource) -> Value {
    object(&schema::FILE_SOURCE, [Some(file.path.as_str().into()), Some(duration(file.interval))])
}

fn dns_source(dns: &DnsSource) -> Value {
    // SRV records carry both themselves.
    let ported = dns.record != DnsRecord::Srv;
    object(
        &schema::DNS_SOURCE,
        [
            Some(dns.name.as_str().into()),
            Some(dns.record.name().into()),
            dns.port.map(|port| u32::from(port).into()),
            ported.then(|| dns.weight.into()),
            Some(list(&dns.servers, |&server| dns_server(server).into())),
            Some(duration(dns.interval)),
        ],
    )
}

/// Without the port where it is DNS's own.
fn dns_server(server: SocketAddr) -> String {
    if server.port() == 53 { server.ip().to_string() } else { server.to_string() }
}

fn check(check: &Check) -> Value {
    object(
        &schema::CHECK,
        [
            Some(check.kind.name().into()),
            check.port.map(|port| u32::from(port).into()),
            Some(duration(check.interval)),
            Some(duration(check.timeout)),
            Some(check.retries.into()),
            Some(duration(check.delay_before_retry)),
        ],
    )
}

fn service(service: &Service) -> Value {
    let (port, protocol, mark, ports) = match &service.listen {
        Listen::Port { protocol, port } => (Some(*port), Some(*protocol), None, None),
        Listen::Mark { mark, marking } => (
            None,
            marking.as_ref().map(|marking| marking.protocol),
            Some(*mark),
            marking.as_ref().map(|marking| list(&marking.ports, |range| range.to_string().into())),
        ),
    };
    let flags: Vec<_> = service.flags.iter().collect();
    let default = Persistence::default();
    let persistence = &service.persistence;
    object(
        &schema::SERVICE,
        [
            Some(service.name.as_str().into()),
            Some(service.vip.as_str().into()),
            port.map(|port| u32::from(port).into()),
            protocol.map(|protocol| protocol.name().into()),
            mark.map(Value::from),
            ports,
            Some(service.scheduler.name().into()),
            (!flags.is_empty()).then(|| list(&flags, |flag| flag.name().into())),
            service.one_packet.then_some(Value::Bool(true)),
            Some(service.forwarding.name().into()),
            tunnel(service.forwarding),
            service.gateway.as_deref().map(Value::from),
            Some(duration(persistence.timeout)),
            (persistence.netmask != default.netmask)
                .then(|| persistence.netmask.to_string().into()),
            (persistence.prefix != default.prefix).then(|| u32::from(persistence.prefix).into()),
            persistence.engine.map(|engine| engine.name().into()),
            Some(service.pool.as_str().into()),
        ],
    )
}

/// What packets are put into, if they are.
fn tunnel(forwarding: Forwarding) -> Option<Value> {
    let Forwarding::Tunnel(encapsulation) = forwarding else { return None };
    let (port, checksum) = match encapsulation {
        Encapsulation::Ipip => (None, None),
        Encapsulation::Gue { port, checksum } => (Some(port), Some(checksum)),
        Encapsulation::Gre { checksum } => (None, Some(checksum)),
    };
    Some(object(
        &schema::TUNNEL,
        [
            Some(encapsulation.name().into()),
            port.map(|port| u32::from(port).into()),
            checksum.map(|checksum| checksum.name().into()),
        ],
    ))
}

/// A map of the object's keys, in their order; a key without a value is left out.
fn object<const N: usize>(object: &schema::Object, values: [Option<Value>; N]) -> Value {
    debug_assert_eq!(object.keys.len(), N, "{}", object.name);
    let entries = object.keys.iter().zip(values);
    Value::Map(entries.filter_map(|(key, value)| Some(((*key).to_owned(), value?))).collect())
}

fn list<T>(items: &[T], write: impl Fn(&T) -> Value) -> Value {
    Value::List(items.iter().map(write).collect())
}

fn duration(span: Duration) -> Value {
    text::duration(span).into()
}
