//! What differs between two documents, in words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use crate::model::{
    Auth, Check, Discovery, Document, Encapsulation, Engine, Forwarding, Ipvs, Listen, Pool,
    PoolSource, RealServer, Service, Vip, text,
};

/// One line for each object that differs, in the document's order: `services/web: scheduler wlc -> rr`.
///
/// Empty only if the documents are equal. Passwords are never shown.
#[must_use]
pub fn changes(old: &Document, new: &Document) -> Vec<String> {
    let mut lines = Vec::new();
    let mut fleet = Difference::default();
    fleet.field("name", &old.fleet.name, &new.fleet.name);
    fleet.field("no_quorum", old.fleet.no_quorum.name(), new.fleet.no_quorum.name());
    fleet.field("failback", old.fleet.failback.name(), new.fleet.failback.name());
    let delay = |document: &Document| {
        document.fleet.failback.delay().map_or_else(String::new, text::duration)
    };
    fleet.field("failback_delay", delay(old), delay(new));
    ipvs(&old.fleet.ipvs, &new.fleet.ipvs, &mut fleet);
    fleet.into_line("fleet", &mut lines);

    objects("vips", &old.vips, &new.vips, |vip| &vip.name, vip, &mut lines);
    objects("pools", &old.pools, &new.pools, |pool| &pool.name, pool, &mut lines);
    objects("services", &old.services, &new.services, |service| &service.name, service, &mut lines);
    lines
}

/// What differs in one object.
#[derive(Default)]
struct Difference(Vec<String>);

impl Difference {
    fn field(&mut self, name: &str, old: impl ToString, new: impl ToString) {
        let (old, new) = (old.to_string(), new.to_string());
        if old != new {
            let shown = |value: String| if value.is_empty() { "none".to_owned() } else { value };
            self.0.push(format!("{name} {} -> {}", shown(old), shown(new)));
        }
    }

    /// Values that left and came, then a change of order alone.
    fn list<T: Ord>(&mut self, name: &str, old: &[T], new: &[T], show: impl Fn(&T) -> String) {
        let before = self.0.len();
        let (had, has): (BTreeSet<&T>, BTreeSet<&T>) = (old.iter().collect(), new.iter().collect());
        for gone in old.iter().filter(|value| !has.contains(value)) {
            self.0.push(format!("{name} {} removed", show(gone)));
        }
        for come in new.iter().filter(|value| !had.contains(value)) {
            self.0.push(format!("{name} {} added", show(come)));
        }
        if before == self.0.len() && old != new {
            self.0.push(format!("{name} order changed"));
        }
    }

    fn into_line(self, object: &str, lines: &mut Vec<String>) {
        if !self.0.is_empty() {
            lines.push(format!("{object}: {}", self.0.join("; ")));
        }
    }
}

fn objects<T: PartialEq>(
    kind: &str,
    old: &[T],
    new: &[T],
    name: impl Fn(&T) -> &String,
    differ: impl Fn(&T, &T, &mut Difference),
    lines: &mut Vec<String>,
) {
    let before = lines.len();
    let had: BTreeMap<&String, &T> = old.iter().map(|object| (name(object), object)).collect();
    let has: BTreeSet<&String> = new.iter().map(&name).collect();
    for gone in old.iter().filter(|object| !has.contains(name(object))) {
        lines.push(format!("{kind}/{}: removed", name(gone)));
    }
    for object in new {
        let Some(&was) = had.get(name(object)) else {
            lines.push(format!("{kind}/{}: added", name(object)));
            continue;
        };
        if was == object {
            continue;
        }
        let mut difference = Difference::default();
        differ(was, object, &mut difference);
        difference.into_line(&format!("{kind}/{}", name(object)), lines);
    }
    if before == lines.len() && old != new {
        lines.push(format!("{kind}: order changed"));
    }
}

fn vip(old: &Vip, new: &Vip, difference: &mut Difference) {
    difference.list("address", old.advertised(), new.advertised(), ToString::to_string);
    let excluded = |vip: &Vip| vip.addresses[vip.advertised().len()..].to_vec();
    difference.list("excluded", &excluded(old), &excluded(new), ToString::to_string);
    difference.field("interface", &old.interface, &new.interface);
    difference.field("attach", old.attach.name(), new.attach.name());
    difference.field("preference", names(&old.preference), names(&new.preference));
    difference.list("arbiter", &old.arbiters, &new.arbiters, ToString::to_string);
    difference.field("garp.repeat", old.garp.repeat, new.garp.repeat);
    for (name, old, new) in [
        ("garp.refresh", old.garp.refresh, new.garp.refresh),
        ("garp.interval", old.garp.interval, new.garp.interval),
    ] {
        difference.field(name, text::duration(old), text::duration(new));
    }
    let (old, new) = (&old.vrrp, &new.vrrp);
    difference.field("vrrp.vrid", old.vrid, new.vrid);
    difference.field("vrrp.version", old.version.number(), new.version.number());
    let interval = |span| text::duration(span);
    difference.field(
        "vrrp.advert_interval",
        interval(old.advert_interval),
        interval(new.advert_interval),
    );
    difference.field("vrrp.priority", old.priority, new.priority);
    match (&old.auth, &new.auth) {
        (None, Some(Auth::Pass(_))) => difference.0.push("vrrp.auth added".to_owned()),
        (Some(Auth::Pass(_)), None) => difference.0.push("vrrp.auth removed".to_owned()),
        (Some(old), Some(new)) if old != new => {
            difference.0.push("vrrp.auth changed".to_owned());
        }
        (None, None) | (Some(_), Some(_)) => {}
    }
    difference.field("vrrp.checksum", old.checksum.name(), new.checksum.name());
    difference.field("vrrp.coexist", old.coexist.name(), new.coexist.name());
    difference.field("vrrp.peers", old.peers.name(), new.peers.name());
    let (old, new) = (old.peers.listed(), new.peers.listed());
    difference.list("vrrp.unicast_peer", old, new, ToString::to_string);
}

fn pool(old: &Pool, new: &Pool, difference: &mut Difference) {
    match (&old.source, &new.source) {
        (PoolSource::Listed(old), PoolSource::Listed(new)) => real_servers(old, new, difference),
        (PoolSource::Listed(_) | PoolSource::Discovery(_), _) => {
            difference.field("source", source(&old.source), source(&new.source));
        }
    }
    match (&old.check, &new.check) {
        (Some(old), Some(new)) => check(old, new, difference),
        (old, new) => {
            let kind = |check: &Option<Check>| check.as_ref().map_or("", |check| check.kind.name());
            difference.field("check", kind(old), kind(new));
        }
    }
    difference.field("min_healthy", old.min_healthy, new.min_healthy);
}

fn real_servers(old: &[RealServer], new: &[RealServer], difference: &mut Difference) {
    let had: BTreeMap<_, _> = old.iter().map(|server| (server.socket_addr(), server)).collect();
    for server in new {
        let at = server.socket_addr();
        if let Some(&was) = had.get(&at).filter(|was| **was != server) {
            difference.field(&format!("real server {at} weight"), was.weight, server.weight);
            for (name, old, new) in [
                ("upper_threshold", was.upper_threshold, server.upper_threshold),
                ("lower_threshold", was.lower_threshold, server.lower_threshold),
            ] {
                difference.field(&format!("real server {at} {name}"), old, new);
            }
            let method =
                |server: &RealServer| server.forwarding.map(forwarding).unwrap_or_default();
            difference.field(&format!("real server {at} forwarding"), method(was), method(server));
        }
    }
    let at = |servers: &[RealServer]| -> Vec<_> {
        servers.iter().map(RealServer::socket_addr).collect()
    };
    difference.list("real server", &at(old), &at(new), ToString::to_string);
}

/// A source in one line, every field of it.
fn source(source: &PoolSource) -> String {
    match source {
        PoolSource::Listed(listed) => format!("{} listed real servers", listed.len()),
        PoolSource::Discovery(Discovery::File(file)) => {
            format!("file {} every {}", file.path, text::duration(file.interval))
        }
        PoolSource::Discovery(Discovery::Dns(dns)) => {
            let mut line = format!("dns {} {}", dns.record.name(), dns.name);
            if let Some(port) = dns.port {
                // Writing to a String cannot fail.
                let _ = write!(line, " port {port} weight {}", dns.weight);
            }
            if !dns.servers.is_empty() {
                let _ = write!(line, " at {}", names(&dns.servers));
            }
            let _ = write!(line, " every {}", text::duration(dns.interval));
            line
        }
    }
}

fn check(old: &Check, new: &Check, difference: &mut Difference) {
    difference.field("check.kind", old.kind.name(), new.kind.name());
    let port = |check: &Check| check.port.map(|port| port.to_string()).unwrap_or_default();
    difference.field("check.port", port(old), port(new));
    for (name, old, new) in [
        ("check.interval", old.interval, new.interval),
        ("check.timeout", old.timeout, new.timeout),
        ("check.delay_before_retry", old.delay_before_retry, new.delay_before_retry),
    ] {
        difference.field(name, text::duration(old), text::duration(new));
    }
    difference.field("check.retries", old.retries, new.retries);
}

fn service(old: &Service, new: &Service, difference: &mut Difference) {
    difference.field("vip", &old.vip, &new.vip);
    let (was, is) = (listen(&old.listen), listen(&new.listen));
    for (name, old, new) in [
        ("port", was.port, is.port),
        ("protocol", was.protocol, is.protocol),
        ("fwmark", was.mark, is.mark),
        ("ports", was.ports, is.ports),
    ] {
        difference.field(name, old, new);
    }
    difference.field("scheduler", old.scheduler.name(), new.scheduler.name());
    let flags = |service: &Service| {
        service.flags.iter().map(|flag| flag.name()).collect::<Vec<_>>().join(",")
    };
    difference.field("flags", flags(old), flags(new));
    difference.field("one_packet", old.one_packet, new.one_packet);
    difference.field("forwarding", forwarding(old.forwarding), forwarding(new.forwarding));
    let gateway = |service: &Service| service.gateway.clone().unwrap_or_default();
    difference.field("gateway", gateway(old), gateway(new));
    let (was, is) = (&old.persistence, &new.persistence);
    difference.field("persistence", text::duration(was.timeout), text::duration(is.timeout));
    difference.field("persistence_netmask", was.netmask, is.netmask);
    difference.field("persistence_prefix", was.prefix, is.prefix);
    let engine = |engine: Option<Engine>| engine.map_or("", Engine::name);
    difference.field("persistence_engine", engine(was.engine), engine(is.engine));
    difference.field("pool", &old.pool, &new.pool);
}

/// The document's keys that say what a service is for; empty where one is absent.
#[derive(Default)]
struct Listened {
    port: String,
    protocol: String,
    mark: String,
    ports: String,
}

fn listen(listen: &Listen) -> Listened {
    match listen {
        Listen::Port { protocol, port } => Listened {
            port: port.to_string(),
            protocol: protocol.name().to_owned(),
            ..Listened::default()
        },
        Listen::Mark { mark, marking: None } => {
            Listened { mark: mark.to_string(), ..Listened::default() }
        }
        Listen::Mark { mark, marking: Some(marking) } => Listened {
            mark: mark.to_string(),
            protocol: marking.protocol.name().to_owned(),
            ports: names(&marking.ports),
            ..Listened::default()
        },
    }
}

/// `dr`, `tunnel gue port 6080 csum`.
fn forwarding(forwarding: Forwarding) -> String {
    let Forwarding::Tunnel(encapsulation) = forwarding else {
        return forwarding.name().to_owned();
    };
    let kind = encapsulation.name();
    match encapsulation {
        Encapsulation::Ipip => format!("tunnel {kind}"),
        Encapsulation::Gue { port, checksum } => {
            format!("tunnel {kind} port {port} checksum {}", checksum.name())
        }
        Encapsulation::Gre { checksum } => format!("tunnel {kind} checksum {}", checksum.name()),
    }
}

fn ipvs(old: &Ipvs, new: &Ipvs, difference: &mut Difference) {
    let span = |span: Option<Duration>| span.map(text::duration).unwrap_or_default();
    for (name, old, new) in [
        ("tcp", old.timeouts.tcp, new.timeouts.tcp),
        ("tcp_fin", old.timeouts.tcp_fin, new.timeouts.tcp_fin),
        ("udp", old.timeouts.udp, new.timeouts.udp),
    ] {
        difference.field(&format!("ipvs.timeouts.{name}"), span(old), span(new));
    }
    let sync = |ipvs: &Ipvs| {
        let sync = ipvs.sync.as_ref();
        sync.map(|sync| {
            let maxlen = sync.maxlen.map(|maxlen| format!(" maxlen {maxlen}")).unwrap_or_default();
            format!(
                "{} id {} to {} port {} ttl {}{maxlen}",
                sync.interface, sync.id, sync.group, sync.port, sync.ttl
            )
        })
    };
    difference.field("ipvs.sync", sync(old).unwrap_or_default(), sync(new).unwrap_or_default());
    difference.field(
        "ipvs.sysctls.profile",
        old.sysctls.profile.name(),
        new.sysctls.profile.name(),
    );
    let names = old.sysctls.values.keys().chain(new.sysctls.values.keys()).collect::<BTreeSet<_>>();
    for name in names {
        let value =
            |ipvs: &Ipvs| ipvs.sysctls.values.get(name).map(i64::to_string).unwrap_or_default();
        difference.field(&format!("ipvs.sysctls.{name}"), value(old), value(new));
    }
    difference.field("ipvs.connections", old.connections.name(), new.connections.name());
}

fn names(values: &[impl ToString]) -> String {
    let values: Vec<_> = values.iter().map(ToString::to_string).collect();
    format!("[{}]", values.join(", "))
}
