//! The desired state.

use std::time::Duration;

use lvsmesh_core::document::{self, Fault, Value};
use lvsmesh_core::model::{
    Attach, Auth, Check, CheckKind, Checksum, Coexist, Connections, Discovery, DnsRecord,
    DnsSource, Document, Encapsulation, Engine, Failback, FileSource, Fleet, Forwarding, Garp,
    Ipvs, Listen, Marking, NoQuorum, Peers, Persistence, Pool, PoolSource, Protocol, RealServer,
    Scheduler, SchedulerFlag, Service, Sync, SysctlProfile, Sysctls, Timeouts, TunnelChecksum, Vip,
    Vrrp, text,
};

use crate::v1;

/// Why a document was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the document has {} fault{}: {}", .0.len(), if .0.len() == 1 { "" } else { "s" }, list(.0))]
pub struct Refused(
    /// Every fault; never empty.
    pub Vec<Fault>,
);

fn list(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}

impl TryFrom<&v1::Document> for Document {
    type Error = Refused;

    /// Checks every rule, exactly as for a document from a file.
    fn try_from(wire: &v1::Document) -> Result<Self, Refused> {
        document::decode(&tree(wire)).map_err(Refused)
    }
}

impl TryFrom<v1::Document> for Document {
    type Error = Refused;

    fn try_from(wire: v1::Document) -> Result<Self, Refused> {
        Self::try_from(&wire)
    }
}

/// Reads a document that was checked before it was committed.
pub(super) fn committed(wire: &v1::Document) -> Result<Document, Refused> {
    document::decode_committed(&tree(wire)).map_err(Refused)
}

/// The tree that a file with this document would give. What the wire cannot tell from a default (0, empty text, an enum's zero) is left out.
fn tree(wire: &v1::Document) -> Value {
    map([
        ("fleet", wire.fleet.as_ref().map(fleet)),
        ("vips", Some(values(&wire.vips, vip))),
        ("pools", Some(values(&wire.pools, pool))),
        ("services", Some(values(&wire.services, service))),
    ])
}

fn fleet(wire: &v1::Fleet) -> Value {
    map([
        ("name", filled(&wire.name)),
        ("no_quorum", word(wire.no_quorum, "NO_QUORUM_", v1::NoQuorum::as_str_name)),
        ("failback", word(wire.failback, "FAILBACK_", v1::Failback::as_str_name)),
        ("ipvs", wire.ipvs.as_ref().map(ipvs)),
        ("failback_delay", span(wire.failback_delay_ms)),
    ])
}

fn ipvs(wire: &v1::Ipvs) -> Value {
    let timeouts = |timeouts: &v1::IpvsTimeouts| {
        map([
            ("tcp", span(timeouts.tcp_ms)),
            ("tcp_fin", span(timeouts.tcp_fin_ms)),
            ("udp", span(timeouts.udp_ms)),
        ])
    };
    let sync = |sync: &v1::IpvsSync| {
        map([
            ("interface", filled(&sync.interface)),
            ("id", number(sync.id)),
            ("group", filled(&sync.group)),
            ("port", number(sync.port)),
            ("ttl", number(sync.ttl)),
            ("maxlen", number(sync.maxlen)),
        ])
    };
    let value = |sysctl: &v1::IpvsSysctl| {
        map([("name", filled(&sysctl.name)), ("value", Some(Value::Integer(sysctl.value.into())))])
    };
    let sysctls = |sysctls: &v1::IpvsSysctls| {
        let profile = v1::SysctlProfile::as_str_name;
        map([
            ("profile", word(sysctls.profile, "SYSCTL_PROFILE_", profile)),
            ("values", Some(values(&sysctls.values, value))),
        ])
    };
    map([
        ("timeouts", wire.timeouts.as_ref().map(timeouts)),
        ("sync", wire.sync.as_ref().map(sync)),
        ("sysctls", wire.sysctls.as_ref().map(sysctls)),
        ("connections", word(wire.connections, "CONNECTIONS_", v1::Connections::as_str_name)),
    ])
}

fn vip(wire: &v1::Vip) -> Value {
    map([
        ("name", filled(&wire.name)),
        ("addresses", Some(texts(&wire.addresses))),
        ("excluded", (!wire.excluded.is_empty()).then(|| texts(&wire.excluded))),
        ("interface", filled(&wire.interface)),
        ("attach", word(wire.attach, "ATTACH_", v1::Attach::as_str_name)),
        ("preference", Some(texts(&wire.preference))),
        ("garp", wire.garp.as_ref().map(garp)),
        ("vrrp", wire.vrrp.as_ref().map(vrrp)),
        ("arbiters", (!wire.arbiters.is_empty()).then(|| texts(&wire.arbiters))),
    ])
}

fn garp(wire: &v1::Garp) -> Value {
    let refresh = |millis| text::duration(Duration::from_millis(millis)).into();
    map([
        ("repeat", number(wire.repeat)),
        ("refresh", wire.refresh_ms.map(refresh)),
        ("interval", span(wire.interval_ms)),
    ])
}

fn vrrp(wire: &v1::Vrrp) -> Value {
    let auth = |auth: &v1::Auth| map([("pass", Some(auth.pass.as_str().into()))]);
    map([
        ("vrid", number(wire.vrid)),
        ("version", number(wire.version)),
        ("advert_interval", span(wire.advert_interval_ms)),
        ("priority", number(wire.priority)),
        ("auth", wire.auth.as_ref().map(auth)),
        ("checksum", word(wire.checksum, "CHECKSUM_", v1::Checksum::as_str_name)),
        ("coexist", word(wire.coexist, "COEXIST_", v1::Coexist::as_str_name)),
        ("peers", word(wire.peers, "PEERS_", v1::Peers::as_str_name)),
        ("unicast_peers", (!wire.unicast_peers.is_empty()).then(|| texts(&wire.unicast_peers))),
    ])
}

fn pool(wire: &v1::Pool) -> Value {
    // The wire does not tell an empty list from none.
    let listed = wire.discovery.is_none() || !wire.real_servers.is_empty();
    map([
        ("name", filled(&wire.name)),
        ("real_servers", listed.then(|| values(&wire.real_servers, real_server))),
        ("discovery", wire.discovery.as_ref().map(discovery)),
        ("check", wire.check.as_ref().map(check)),
        ("min_healthy", number(wire.min_healthy)),
    ])
}

fn real_server(wire: &v1::RealServer) -> Value {
    map([
        ("address", filled(&wire.address)),
        ("port", wire.port.map(Value::from)),
        ("weight", wire.weight.map(Value::from)),
        ("upper_threshold", number(wire.upper_threshold)),
        ("lower_threshold", number(wire.lower_threshold)),
        ("forwarding", word(wire.forwarding, "FORWARDING_", v1::Forwarding::as_str_name)),
        ("tunnel", wire.tunnel.as_ref().map(tunnel)),
    ])
}

fn tunnel(wire: &v1::Tunnel) -> Value {
    map([
        ("kind", word(wire.kind, "TUNNEL_KIND_", v1::TunnelKind::as_str_name)),
        ("port", number(wire.port)),
        ("checksum", word(wire.checksum, "TUNNEL_CHECKSUM_", v1::TunnelChecksum::as_str_name)),
    ])
}

fn discovery(wire: &v1::Discovery) -> Value {
    use v1::discovery::Source;
    map([match &wire.source {
        Some(Source::File(file)) => ("file", Some(file_source(file))),
        Some(Source::Dns(dns)) => ("dns", Some(dns_source(dns))),
        None => ("file", None),
    }])
}

fn file_source(wire: &v1::FileSource) -> Value {
    map([("path", filled(&wire.path)), ("interval", span(wire.interval_ms))])
}

fn dns_source(wire: &v1::DnsSource) -> Value {
    map([
        ("name", filled(&wire.name)),
        ("record", word(wire.record, "DNS_RECORD_", v1::DnsRecord::as_str_name)),
        ("port", number(wire.port)),
        ("weight", wire.weight.map(Value::from)),
        ("servers", Some(texts(&wire.servers))),
        ("interval", span(wire.interval_ms)),
    ])
}

fn check(wire: &v1::Check) -> Value {
    map([
        ("kind", word(wire.kind, "CHECK_KIND_", v1::CheckKind::as_str_name)),
        ("port", number(wire.port)),
        ("interval", span(wire.interval_ms)),
        ("timeout", span(wire.timeout_ms)),
        ("retries", wire.retries.map(Value::from)),
        ("delay_before_retry", span(wire.delay_before_retry_ms)),
    ])
}

fn service(wire: &v1::Service) -> Value {
    let flag = |number: &i32| {
        word(*number, "SCHEDULER_FLAG_", v1::SchedulerFlag::as_str_name)
            .unwrap_or(Value::Integer(0))
    };
    let listed = |list: Value| (list != Value::List(Vec::new())).then_some(list);
    let engine = v1::PersistenceEngine::as_str_name;
    map([
        ("name", filled(&wire.name)),
        ("vip", filled(&wire.vip)),
        ("port", wire.port.map(Value::from)),
        ("protocol", word(wire.protocol, "PROTOCOL_", v1::Protocol::as_str_name)),
        ("fwmark", number(wire.fwmark)),
        ("ports", listed(texts(&wire.ports))),
        ("scheduler", word(wire.scheduler, "SCHEDULER_", v1::Scheduler::as_str_name)),
        ("flags", listed(values(&wire.flags, flag))),
        ("one_packet", wire.one_packet.then_some(Value::Bool(true))),
        ("forwarding", word(wire.forwarding, "FORWARDING_", v1::Forwarding::as_str_name)),
        ("tunnel", wire.tunnel.as_ref().map(tunnel)),
        ("gateway", filled(&wire.gateway)),
        ("persistence", span(wire.persistence_ms)),
        ("persistence_netmask", filled(&wire.persistence_netmask)),
        ("persistence_prefix", number(wire.persistence_prefix)),
        ("persistence_engine", word(wire.persistence_engine, "PERSISTENCE_ENGINE_", engine)),
        ("pool", filled(&wire.pool)),
    ])
}

fn map<const N: usize>(entries: [(&str, Option<Value>); N]) -> Value {
    let filled = entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Map(filled.collect())
}

fn values<T>(items: &[T], tree: impl Fn(&T) -> Value) -> Value {
    Value::List(items.iter().map(tree).collect())
}

fn texts(items: &[String]) -> Value {
    values(items, |text| text.as_str().into())
}

fn filled(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| text.into())
}

fn number(number: u32) -> Option<Value> {
    (number != 0).then(|| number.into())
}

fn span(millis: u64) -> Option<Value> {
    (millis != 0).then(|| text::duration(Duration::from_millis(millis)).into())
}

/// The document's word for an enum's value: `NO_QUORUM_VRRP_FALLBACK` is `vrrp-fallback`. A number that this version does not know stays
/// one, to be refused as such.
fn word<E: TryFrom<i32>>(
    number: i32,
    prefix: &str,
    name: impl Fn(&E) -> &'static str,
) -> Option<Value> {
    if number == 0 {
        return None;
    }
    let Ok(known) = E::try_from(number) else { return Some(Value::Integer(number.into())) };
    let name = name(&known);
    let word = name.strip_prefix(prefix).unwrap_or(name);
    Some(word.to_ascii_lowercase().replace('_', "-").into())
}

impl From<&Document> for v1::Document {
    fn from(document: &Document) -> Self {
        Self {
            fleet: Some((&document.fleet).into()),
            vips: document.vips.iter().map(Into::into).collect(),
            pools: document.pools.iter().map(Into::into).collect(),
            services: document.services.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Fleet> for v1::Fleet {
    fn from(fleet: &Fleet) -> Self {
        let no_quorum = match fleet.no_quorum {
            NoQuorum::Strict => v1::NoQuorum::Strict,
            NoQuorum::Sticky => v1::NoQuorum::Sticky,
            NoQuorum::VrrpFallback => v1::NoQuorum::VrrpFallback,
            NoQuorum::Auto => v1::NoQuorum::Auto,
        };
        let failback = match fleet.failback {
            Failback::Never => v1::Failback::Never,
            Failback::Delayed(_) => v1::Failback::Delayed,
            Failback::Immediate => v1::Failback::Immediate,
        };
        Self {
            name: fleet.name.clone(),
            no_quorum: no_quorum.into(),
            failback: failback.into(),
            ipvs: (fleet.ipvs != Ipvs::default()).then(|| (&fleet.ipvs).into()),
            failback_delay_ms: fleet.failback.delay().map_or(0, millis),
        }
    }
}

impl From<&Ipvs> for v1::Ipvs {
    fn from(ipvs: &Ipvs) -> Self {
        let Ipvs { timeouts, sync: daemon, sysctls, connections } = ipvs;
        let span = |span: Option<Duration>| span.map_or(0, millis);
        let sync = |sync: &Sync| v1::IpvsSync {
            interface: sync.interface.clone(),
            id: sync.id.into(),
            group: sync.group.to_string(),
            port: sync.port.into(),
            ttl: sync.ttl.into(),
            maxlen: sync.maxlen.map_or(0, u32::from),
        };
        let value =
            |(name, value): (&&str, &i64)| v1::IpvsSysctl { name: (*name).into(), value: *value };
        let profile = match sysctls.profile {
            SysctlProfile::Kernel => v1::SysctlProfile::Kernel,
            SysctlProfile::Recommended => v1::SysctlProfile::Recommended,
        };
        let connections = match connections {
            Connections::Drop => v1::Connections::Drop,
            Connections::Keep => v1::Connections::Keep,
        };
        Self {
            timeouts: (*timeouts != Timeouts::default()).then(|| v1::IpvsTimeouts {
                tcp_ms: span(timeouts.tcp),
                tcp_fin_ms: span(timeouts.tcp_fin),
                udp_ms: span(timeouts.udp),
            }),
            sync: daemon.as_ref().map(sync),
            sysctls: (*sysctls != Sysctls::default()).then(|| v1::IpvsSysctls {
                profile: profile.into(),
                values: sysctls.values.iter().map(value).collect(),
            }),
            connections: connections.into(),
        }
    }
}

impl From<&Vip> for v1::Vip {
    fn from(vip: &Vip) -> Self {
        let attach = match vip.attach {
            Attach::Address => v1::Attach::Address,
            Attach::Responder => v1::Attach::Responder,
        };
        Self {
            name: vip.name.clone(),
            addresses: vip.advertised().iter().map(ToString::to_string).collect(),
            excluded: vip.addresses[vip.advertised().len()..]
                .iter()
                .map(ToString::to_string)
                .collect(),
            interface: vip.interface.clone(),
            attach: attach.into(),
            preference: vip.preference.clone(),
            garp: (vip.garp != Garp::default()).then(|| v1::Garp {
                repeat: vip.garp.repeat.into(),
                refresh_ms: Some(millis(vip.garp.refresh)),
                interval_ms: millis(vip.garp.interval),
            }),
            vrrp: Some((&vip.vrrp).into()),
            arbiters: vip.arbiters.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<&Vrrp> for v1::Vrrp {
    fn from(vrrp: &Vrrp) -> Self {
        let checksum = match vrrp.checksum {
            Checksum::Pseudo => v1::Checksum::Pseudo,
            Checksum::Plain => v1::Checksum::Plain,
        };
        let coexist = match vrrp.coexist {
            Coexist::Yield => v1::Coexist::Yield,
            Coexist::Contest => v1::Coexist::Contest,
        };
        let peers = match vrrp.peers {
            Peers::Multicast => v1::Peers::Multicast,
            Peers::Unicast(_) => v1::Peers::Unicast,
        };
        Self {
            vrid: vrrp.vrid.into(),
            version: vrrp.version.number().into(),
            advert_interval_ms: millis(vrrp.advert_interval),
            priority: vrrp.priority.into(),
            auth: vrrp.auth.as_ref().map(|Auth::Pass(pass)| v1::Auth { pass: pass.clone() }),
            checksum: checksum.into(),
            coexist: coexist.into(),
            peers: peers.into(),
            unicast_peers: vrrp.peers.listed().iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<&Pool> for v1::Pool {
    fn from(pool: &Pool) -> Self {
        let (real_servers, discovery) = match &pool.source {
            PoolSource::Listed(listed) => (listed.iter().map(Into::into).collect(), None),
            PoolSource::Discovery(discovery) => (Vec::new(), Some(discovery.into())),
        };
        Self {
            name: pool.name.clone(),
            real_servers,
            discovery,
            check: pool.check.as_ref().map(Into::into),
            min_healthy: pool.min_healthy,
        }
    }
}

impl From<&RealServer> for v1::RealServer {
    fn from(server: &RealServer) -> Self {
        Self {
            address: server.address.to_string(),
            port: Some(server.port.into()),
            weight: Some(server.weight),
            upper_threshold: server.upper_threshold,
            lower_threshold: server.lower_threshold,
            forwarding: server.forwarding.map_or(v1::Forwarding::Unspecified, forwarding).into(),
            tunnel: server.forwarding.and_then(encapsulation),
        }
    }
}

impl From<&Discovery> for v1::Discovery {
    fn from(discovery: &Discovery) -> Self {
        use v1::discovery::Source;
        let source = match discovery {
            Discovery::File(file) => Source::File(file.into()),
            Discovery::Dns(dns) => Source::Dns(dns.into()),
        };
        Self { source: Some(source) }
    }
}

impl From<&FileSource> for v1::FileSource {
    fn from(file: &FileSource) -> Self {
        Self { path: file.path.clone(), interval_ms: millis(file.interval) }
    }
}

impl From<&DnsSource> for v1::DnsSource {
    fn from(dns: &DnsSource) -> Self {
        let (record, weight) = match dns.record {
            DnsRecord::Srv => (v1::DnsRecord::Srv, None),
            DnsRecord::A => (v1::DnsRecord::A, Some(dns.weight)),
            DnsRecord::Aaaa => (v1::DnsRecord::Aaaa, Some(dns.weight)),
        };
        Self {
            name: dns.name.clone(),
            record: record.into(),
            port: dns.port.map_or(0, u32::from),
            weight,
            servers: dns.servers.iter().map(ToString::to_string).collect(),
            interval_ms: millis(dns.interval),
        }
    }
}

impl From<&Check> for v1::Check {
    fn from(check: &Check) -> Self {
        let kind = match check.kind {
            CheckKind::Tcp => v1::CheckKind::Tcp,
        };
        Self {
            kind: kind.into(),
            port: check.port.map_or(0, u32::from),
            interval_ms: millis(check.interval),
            timeout_ms: millis(check.timeout),
            retries: Some(check.retries),
            delay_before_retry_ms: millis(check.delay_before_retry),
        }
    }
}

impl From<&Service> for v1::Service {
    fn from(service: &Service) -> Self {
        let (port, protocol, fwmark, ports) = match &service.listen {
            Listen::Port { protocol, port } => {
                (Some(u32::from(*port)), Some(*protocol), 0, Vec::new())
            }
            Listen::Mark { mark, marking: None } => (None, None, *mark, Vec::new()),
            Listen::Mark { mark, marking: Some(Marking { protocol, ports }) } => {
                (None, Some(*protocol), *mark, ports.iter().map(ToString::to_string).collect())
            }
        };
        let protocol = match protocol {
            None => v1::Protocol::Unspecified,
            Some(Protocol::Tcp) => v1::Protocol::Tcp,
            Some(Protocol::Udp) => v1::Protocol::Udp,
            Some(Protocol::Sctp) => v1::Protocol::Sctp,
        };
        let default = Persistence::default();
        let persistence = &service.persistence;
        Self {
            name: service.name.clone(),
            vip: service.vip.clone(),
            port,
            protocol: protocol.into(),
            fwmark,
            ports,
            scheduler: v1::Scheduler::from(service.scheduler).into(),
            flags: service.flags.iter().map(|flag| v1::SchedulerFlag::from(*flag).into()).collect(),
            one_packet: service.one_packet,
            forwarding: forwarding(service.forwarding).into(),
            tunnel: encapsulation(service.forwarding),
            gateway: service.gateway.clone().unwrap_or_default(),
            persistence_ms: millis(persistence.timeout),
            persistence_netmask: if persistence.netmask == default.netmask {
                String::new()
            } else {
                persistence.netmask.to_string()
            },
            persistence_prefix: persistence.prefix.into(),
            persistence_engine: match persistence.engine {
                None => v1::PersistenceEngine::Unspecified,
                Some(Engine::Sip) => v1::PersistenceEngine::Sip,
            }
            .into(),
            pool: service.pool.clone(),
        }
    }
}

impl From<SchedulerFlag> for v1::SchedulerFlag {
    fn from(flag: SchedulerFlag) -> Self {
        match flag {
            SchedulerFlag::ShFallback => Self::ShFallback,
            SchedulerFlag::ShPort => Self::ShPort,
            SchedulerFlag::MhFallback => Self::MhFallback,
            SchedulerFlag::MhPort => Self::MhPort,
            SchedulerFlag::Flag1 => Self::Flag1,
            SchedulerFlag::Flag2 => Self::Flag2,
            SchedulerFlag::Flag3 => Self::Flag3,
        }
    }
}

fn forwarding(forwarding: Forwarding) -> v1::Forwarding {
    match forwarding {
        Forwarding::Dr => v1::Forwarding::Dr,
        Forwarding::Nat => v1::Forwarding::Nat,
        Forwarding::Tunnel(_) => v1::Forwarding::Tunnel,
    }
}

/// What packets are put into, if they are.
fn encapsulation(forwarding: Forwarding) -> Option<v1::Tunnel> {
    let Forwarding::Tunnel(encapsulation) = forwarding else { return None };
    let (kind, port, checksum) = match encapsulation {
        Encapsulation::Ipip => (v1::TunnelKind::Ipip, 0, TunnelChecksum::None),
        Encapsulation::Gue { port, checksum } => (v1::TunnelKind::Gue, port, checksum),
        Encapsulation::Gre { checksum } => (v1::TunnelKind::Gre, 0, checksum),
    };
    let checksum = match checksum {
        TunnelChecksum::None => v1::TunnelChecksum::None,
        TunnelChecksum::Csum => v1::TunnelChecksum::Csum,
        TunnelChecksum::Remcsum => v1::TunnelChecksum::Remcsum,
    };
    Some(v1::Tunnel { kind: kind.into(), port: port.into(), checksum: checksum.into() })
}

impl From<Scheduler> for v1::Scheduler {
    fn from(scheduler: Scheduler) -> Self {
        match scheduler {
            Scheduler::Rr => Self::Rr,
            Scheduler::Wrr => Self::Wrr,
            Scheduler::Lc => Self::Lc,
            Scheduler::Wlc => Self::Wlc,
            Scheduler::Lblc => Self::Lblc,
            Scheduler::Lblcr => Self::Lblcr,
            Scheduler::Dh => Self::Dh,
            Scheduler::Sh => Self::Sh,
            Scheduler::Mh => Self::Mh,
            Scheduler::Sed => Self::Sed,
            Scheduler::Nq => Self::Nq,
            Scheduler::Fo => Self::Fo,
            Scheduler::Ovf => Self::Ovf,
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
