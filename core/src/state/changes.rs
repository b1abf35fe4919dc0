//! What differs between two documents, in words.

use std::fmt::Write as _;

use crate::model::{
    Auth, Check, Discovery, Document, Pool, PoolSource, RealServer, Service, Vip, text,
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
    fn list<T: PartialEq>(
        &mut self,
        name: &str,
        old: &[T],
        new: &[T],
        show: impl Fn(&T) -> String,
    ) {
        let before = self.0.len();
        let missing = |from: &[T], other: &T| !from.contains(other);
        for gone in old.iter().filter(|value| missing(new, value)) {
            self.0.push(format!("{name} {} removed", show(gone)));
        }
        for come in new.iter().filter(|value| missing(old, value)) {
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
    let find = |among: &[T], wanted: &T| among.iter().position(|other| name(other) == name(wanted));
    for gone in old.iter().filter(|object| find(new, object).is_none()) {
        lines.push(format!("{kind}/{}: removed", name(gone)));
    }
    for object in new {
        let Some(was) = find(old, object) else {
            lines.push(format!("{kind}/{}: added", name(object)));
            continue;
        };
        let mut difference = Difference::default();
        differ(&old[was], object, &mut difference);
        difference.into_line(&format!("{kind}/{}", name(object)), lines);
    }
    if before == lines.len() && old != new {
        lines.push(format!("{kind}: order changed"));
    }
}

fn vip(old: &Vip, new: &Vip, difference: &mut Difference) {
    difference.list("address", &old.addresses, &new.addresses, ToString::to_string);
    difference.field("interface", &old.interface, &new.interface);
    difference.field("attach", old.attach.name(), new.attach.name());
    difference.field("preference", names(&old.preference), names(&new.preference));
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
    for server in new {
        let at = server.socket_addr();
        if let Some(was) = old.iter().find(|other| other.socket_addr() == at) {
            difference.field(&format!("real server {at} weight"), was.weight, server.weight);
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
    difference.field("port", old.port, new.port);
    difference.field("protocol", old.protocol.name(), new.protocol.name());
    difference.field("scheduler", old.scheduler.name(), new.scheduler.name());
    difference.field("forwarding", old.forwarding.name(), new.forwarding.name());
    difference.field(
        "persistence",
        text::duration(old.persistence),
        text::duration(new.persistence),
    );
    difference.field("pool", &old.pool, &new.pool);
}

fn names(values: &[impl ToString]) -> String {
    let values: Vec<_> = values.iter().map(ToString::to_string).collect();
    format!("[{}]", values.join(", "))
}
