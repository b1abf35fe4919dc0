//! Rules that a typed document must keep: limits, names, references, and what cannot stand side by side.

mod ipvs;
mod service;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::fault::{Fault, Finding};
use super::limits;
use crate::model::{
    Auth, Check, Checksum, Discovery, DnsRecord, DnsSource, Document, Garp, NoQuorum, PoolSource,
    RealServer, Vip, Vrrp, VrrpVersion, text,
};

/// Every rule that the document breaks, in the document's order; empty if it is sound.
#[must_use]
pub fn check(document: &Document) -> Vec<Fault> {
    findings(document).into_iter().map(|finding| finding.fault).collect()
}

/// As [`check`], with what else each fault is about.
pub(super) fn findings(document: &Document) -> Vec<Finding> {
    let mut found = Findings(Vec::new());
    found.name("fleet.name", &document.fleet.name);
    if let Some(delay) = document.fleet.failback.delay() {
        found.span("fleet.failback_delay", delay, &limits::FAILBACK_DELAY);
    }
    vips(&document.vips, &mut found);
    no_quorum(document, &mut found);
    ipvs::ipvs(&document.fleet.ipvs, &mut found);
    pools(document, &mut found);
    service::services(document, &mut found);
    found.0
}

fn vips(vips: &[Vip], found: &mut Findings) {
    unique_names("vips", vips.iter().map(|vip| vip.name.as_str()), found);
    let mut owners: BTreeMap<IpAddr, String> = BTreeMap::new();
    // A VRID over IPv6 is another than the same number over IPv4 (RFC 9568 §1.4).
    let mut routers: BTreeMap<(&str, u8, bool), usize> = BTreeMap::new();
    for (index, vip) in vips.iter().enumerate() {
        let path = format!("vips[{index}]");
        addresses(&path, vip, &mut owners, found);
        interface(&format!("{path}.interface"), &vip.interface, found);
        preference(&path, &vip.preference, found);
        garp(&format!("{path}.garp"), &vip.garp, found);
        vrrp(&format!("{path}.vrrp"), &vip.vrrp, found);
        unicast_peers(&path, vip, vips, found);
        arbiters(&path, vip, vips, found);
        if vip.is_ipv6_only() {
            over_ipv6(&path, &vip.vrrp, found);
        }

        let router = (vip.interface.as_str(), vip.vrrp.vrid, vip.is_ipv6_only());
        if let Some(first) = routers.insert(router, index) {
            let message = format!(
                "VRID {} on {} belongs to vips[{first}] already",
                vip.vrrp.vrid, vip.interface
            );
            let about = [first, index].map(|vip| format!("vips[{vip}].interface"));
            found
                .add(format!("{path}.vrrp.vrid"), message)
                .hint("give each VIP group of an interface its own VRID")
                .about(about)
                .about([format!("vips[{first}].vrrp.vrid")]);
        }
    }
}

fn addresses(path: &str, vip: &Vip, owners: &mut BTreeMap<IpAddr, String>, found: &mut Findings) {
    let named = vip.advertised().len();
    found.count(&format!("{path}.addresses"), "addresses", named, &limits::VIP_ADDRESSES);
    found.count(&format!("{path}.excluded"), "addresses", vip.excluded, &limits::EXCLUDED);
    for (index, &address) in vip.addresses.iter().enumerate() {
        let path = match index.checked_sub(named) {
            None => format!("{path}.addresses[{index}]"),
            Some(index) => format!("{path}.excluded[{index}]"),
        };
        found.unicast(&path, address);
        if address.is_ipv4() && address.is_loopback() {
            found.loopback(&path, address);
        }
        let leads = index == 0 && vip.addresses.len() > 1 && vip.is_ipv6_only();
        if is_link_local(address) && !leads {
            found.link_local(&path, address).hint(
                "use a global or unique local one; only a group of IPv6 addresses may name one first, for VRRP to announce",
            );
        }
        if let Some(owner) = owners.get(&address) {
            let owner = owner.clone();
            found.add(path, format!("{address} is {owner} already")).about([owner]);
        } else {
            owners.insert(address, path);
        }
    }
}

/// VRRP over IPv6 has one version and one kind of checksum.
fn over_ipv6(path: &str, vrrp: &Vrrp, found: &mut Findings) {
    let addresses = format!("{path}.addresses");
    if vrrp.version != VrrpVersion::V3 {
        found
            .add(
                format!("{path}.vrrp.version"),
                "is 2, which is for IPv4: a group of IPv6 addresses alone is announced by version 3 (RFC 9568)",
            )
            .hint("set `version: 3`")
            .about([addresses.clone()]);
    }
    if vrrp.checksum != Checksum::Pseudo {
        found
            .add(
                format!("{path}.vrrp.checksum"),
                "over IPv6 a checksum always covers the pseudo-header (RFC 9568 §5.2.8)",
            )
            .hint("leave it out")
            .about([addresses]);
    }
}

/// What `dev_valid_name` asks for (net/core/dev.c).
fn interface(path: &str, name: &str, found: &mut Findings) {
    let legal = |c: char| !(c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if !limits::INTERFACE.contains(&name.len()) {
        found.length(path, name.len(), "bytes", &limits::INTERFACE);
    } else if !name.chars().all(legal) || name == "." || name == ".." {
        found.add(path.to_owned(), format!("{name:?} cannot be an interface's name"));
    }
}

fn preference(path: &str, names: &[String], found: &mut Findings) {
    for (index, name) in names.iter().enumerate() {
        let path = format!("{path}.preference[{index}]");
        found.name(&path, name);
        if names[..index].contains(name) {
            found.add(path, format!("`{name}` is there twice"));
        }
    }
}

fn garp(path: &str, garp: &Garp, found: &mut Findings) {
    found.within(&format!("{path}.repeat"), garp.repeat.into(), &limits::GARP_REPEAT);
    if !garp.refresh.is_zero() {
        found.span(&format!("{path}.refresh"), garp.refresh, &limits::GARP_REFRESH);
    }
    found.span(&format!("{path}.interval"), garp.interval, &limits::GARP_INTERVAL);
}

fn arbiters(path: &str, vip: &Vip, vips: &[Vip], found: &mut Findings) {
    let path = format!("{path}.arbiters");
    found.count(&path, "arbiters", vip.arbiters.len(), &limits::ARBITERS);
    for (index, &arbiter) in vip.arbiters.iter().enumerate() {
        let path = format!("{path}[{index}]");
        found.unicast(&path, arbiter);
        if vip.arbiters[..index].contains(&arbiter) {
            found.add(path.clone(), format!("{arbiter} is there twice"));
        }
        if let Some(vip) = vips.iter().find(|vip| vip.addresses.contains(&arbiter)) {
            found
                .add(path, format!("{arbiter} is an address of VIP group `{}`", vip.name))
                .hint("name a router or another machine that is no part of the fleet");
        }
    }
}

/// A holder without a lease has to be outranked by one with a lease.
fn no_quorum(document: &Document, found: &mut Findings) {
    if document.fleet.no_quorum == NoQuorum::Strict {
        return;
    }
    let limit = &limits::PRIORITY_ABOVE_FALLBACK;
    for (index, vip) in document.vips.iter().enumerate() {
        let priority = u64::from(vip.vrrp.priority);
        if limits::PRIORITY.contains(&priority) && !limit.contains(&priority) {
            let policy = document.fleet.no_quorum.name();
            let message = outside(priority, limit.start(), limit.end());
            found
                .add(
                    format!("vips[{index}].vrrp.priority"),
                    format!("{message} under `no_quorum: {policy}`"),
                )
                .hint("without a quorum a holder announces itself with a priority below this one")
                .about(["fleet.no_quorum".to_owned()]);
        }
    }
}

/// Those outside the fleet: what members there are, the document does not know.
fn unicast_peers(path: &str, vip: &Vip, vips: &[Vip], found: &mut Findings) {
    let listed = vip.vrrp.peers.listed();
    let (addresses, path) = (format!("{path}.addresses"), format!("{path}.vrrp.unicast_peers"));
    found.count(&path, "peers", listed.len(), &limits::UNICAST_PEERS);
    for (index, &peer) in listed.iter().enumerate() {
        let path = format!("{path}[{index}]");
        found.unicast(&path, peer);
        if listed[..index].contains(&peer) {
            found.add(path.clone(), format!("{peer} is there twice"));
        }
        if let Some(vip) = vips.iter().find(|vip| vip.addresses.contains(&peer)) {
            found
                .add(path.clone(), format!("{peer} is an address of VIP group `{}`", vip.name))
                .hint("name the router by an address of its own");
        }
        let (goes, is) = match (vip.is_ipv6_only(), peer.is_ipv6()) {
            (true, false) => ("IPv6", "IPv4"),
            (false, true) => ("IPv4", "IPv6"),
            (true, true) | (false, false) => continue,
        };
        found
            .add(path, format!("{peer} is {is}, and the group's adverts go over {goes}"))
            .hint("name the router by an address of the adverts' family")
            .about([addresses.clone()]);
    }
}

fn vrrp(path: &str, vrrp: &Vrrp, found: &mut Findings) {
    found.within(&format!("{path}.vrid"), vrrp.vrid.into(), &limits::VRID);
    if !limits::PRIORITY.contains(&vrrp.priority.into()) {
        let path = format!("{path}.priority");
        let message = outside(vrrp.priority, limits::PRIORITY.start(), limits::PRIORITY.end());
        found
            .add(path, message)
            .hint("0 tells backups to take over, 255 is for routers whose own address is the VIP");
    }

    let version = format!("{path}.version");
    let (range, step) = match vrrp.version {
        VrrpVersion::V2 => (limits::ADVERT_V2, limits::ADVERT_STEP_V2),
        VrrpVersion::V3 => (limits::ADVERT_V3, limits::ADVERT_STEP_V3),
    };
    let interval = format!("{path}.advert_interval");
    let number = vrrp.version.number();
    if !range.contains(&vrrp.advert_interval) || !whole(vrrp.advert_interval, step) {
        let message = format!(
            "{} cannot be sent in version {number}: {} to {} in steps of {}",
            text::duration(vrrp.advert_interval),
            text::duration(*range.start()),
            text::duration(*range.end()),
            text::duration(step),
        );
        found.add(interval, message).about([version.clone()]);
    }

    if let Some(Auth::Pass(pass)) = &vrrp.auth {
        let path = format!("{path}.auth.pass");
        // The password itself is not repeated.
        if !limits::PASS.contains(&pass.len()) {
            found.length(&path, pass.len(), "bytes", &limits::PASS);
        } else if pass.contains('\0') {
            found.add(path, "has a zero byte in it, which ends the password on the wire");
        }
    }
    if vrrp.auth.is_some() && vrrp.version != VrrpVersion::V2 {
        found
            .add(format!("{path}.auth"), format!("version {number} has no authentication"))
            .hint("leave it out, or set `version: 2`")
            .about([version.clone()]);
    }
    if vrrp.checksum != Checksum::Pseudo && vrrp.version != VrrpVersion::V3 {
        let message = format!("version {number} has one kind of checksum only");
        found
            .add(format!("{path}.checksum"), message)
            .hint("leave it out, or set `version: 3`")
            .about([version]);
    }
}

fn pools(document: &Document, found: &mut Findings) {
    unique_names("pools", document.pools.iter().map(|pool| pool.name.as_str()), found);
    for (index, pool) in document.pools.iter().enumerate() {
        let path = format!("pools[{index}]");
        match &pool.source {
            PoolSource::Listed(listed) => real_servers(&path, listed, document, found),
            PoolSource::Discovery(Discovery::File(file)) => {
                let path = format!("{path}.discovery.file");
                file_path(&format!("{path}.path"), &file.path, found);
                found.span(&format!("{path}.interval"), file.interval, &limits::INTERVAL);
            }
            PoolSource::Discovery(Discovery::Dns(dns)) => {
                dns_source(&format!("{path}.discovery.dns"), dns, found);
            }
        }
        if let Some(check) = &pool.check {
            pool_check(&format!("{path}.check"), check, found);
            let portless = |server: &RealServer| server.port == 0;
            if let (PoolSource::Listed(listed), None) = (&pool.source, check.port)
                && let Some(server) = listed.iter().position(portless)
            {
                found
                    .add(
                        format!("{path}.check.port"),
                        format!("is missing: real_servers[{server}] has no port of its own"),
                    )
                    .hint("name the port that is to be probed")
                    .about([format!("{path}.real_servers[{server}].port")]);
            }
        }
        let path = format!("{path}.min_healthy");
        found.within(&path, pool.min_healthy.into(), &limits::MIN_HEALTHY);
    }
}

fn real_servers(path: &str, listed: &[RealServer], document: &Document, found: &mut Findings) {
    let mut seen = BTreeMap::new();
    for (index, server) in listed.iter().enumerate() {
        let path = format!("{path}.real_servers[{index}]");
        let (address, port) = (format!("{path}.address"), format!("{path}.port"));
        found.unicast(&address, server.address);
        if is_link_local(server.address) {
            found.link_local(&address, server.address).hint("use a global or unique local one");
        }
        found.within(&format!("{path}.weight"), server.weight.into(), &limits::WEIGHT);
        if server.lower_threshold > server.upper_threshold {
            let (lower, upper) = (server.lower_threshold, server.upper_threshold);
            found
                .add(format!("{path}.lower_threshold"), format!("{lower} is above upper_threshold, {upper}"))
                .hint("new connections come again below the lower one; the kernel refuses it otherwise")
                .about([format!("{path}.upper_threshold")]);
        }

        if let Some(vip) = document.vips.iter().find(|vip| vip.addresses.contains(&server.address))
        {
            let message = format!("{} is an address of VIP group `{}`", server.address, vip.name);
            found.add(address.clone(), message).hint("name a real server by an address of its own");
        }
        if let Some(first) = seen.insert(server.socket_addr(), path.clone()) {
            found.add(path, format!("{} is {first} already", server.socket_addr())).about([
                address,
                port,
                format!("{first}.address"),
                format!("{first}.port"),
            ]);
        }
    }
}

fn file_path(path: &str, file: &str, found: &mut Findings) {
    if !limits::FILE_PATH.contains(&file.len()) {
        found.length(path, file.len(), "bytes", &limits::FILE_PATH);
    } else if !file.starts_with('/') || file.contains('\0') {
        found.add(path.to_owned(), format!("{file:?} is not an absolute path"));
    }
}

fn dns_source(path: &str, dns: &DnsSource, found: &mut Findings) {
    dns_name(&format!("{path}.name"), &dns.name, found);
    found.span(&format!("{path}.interval"), dns.interval, &limits::INTERVAL);
    let (record, port) = (format!("{path}.record"), format!("{path}.port"));
    let weight = format!("{path}.weight");
    match (dns.record, dns.port) {
        (DnsRecord::Srv, Some(_)) => {
            found
                .add(port, "SRV records carry their own port")
                .hint("leave it out")
                .about([record.clone()]);
        }
        (DnsRecord::A | DnsRecord::Aaaa, None) => {
            found
                .add(
                    port,
                    format!(
                        "is missing: {} records carry no port",
                        dns.record.name().to_uppercase()
                    ),
                )
                .about([record.clone()]);
        }
        (DnsRecord::A | DnsRecord::Aaaa, Some(number)) => {
            found.within(&port, number.into(), &limits::PORT);
        }
        (DnsRecord::Srv, None) => {}
    }
    match dns.record {
        DnsRecord::Srv if dns.weight != 1 => {
            found
                .add(weight, "SRV records carry their own weight")
                .hint("leave it out")
                .about([record]);
        }
        DnsRecord::Srv | DnsRecord::A | DnsRecord::Aaaa => {
            found.within(&weight, dns.weight.into(), &limits::FOUND_WEIGHT);
        }
    }
    for (index, server) in dns.servers.iter().enumerate() {
        let path = format!("{path}.servers[{index}]");
        if server.ip().is_unspecified() || server.ip().is_multicast() || server.port() == 0 {
            found.add(path.clone(), format!("nobody can be asked at {server}"));
        }
        if dns.servers[..index].contains(server) {
            found.add(path, format!("{server} is there twice"));
        }
    }
}

/// RFC 1035 §2.3.4 for the lengths; underscores, as SRV names have them (RFC 2782), are legal.
fn dns_name(path: &str, name: &str, found: &mut Findings) {
    let bare = name.strip_suffix('.').unwrap_or(name);
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let label = |label: &str| limits::DNS_LABEL.contains(&label.len()) && label.chars().all(legal);
    if !limits::DNS_NAME.contains(&bare.len()) {
        found.length(path, bare.len(), "bytes", &limits::DNS_NAME);
    } else if !bare.split('.').all(label) {
        found
            .add(path.to_owned(), format!("{name:?} is not a DNS name"))
            .hint("labels of 1 to 63 letters, digits, `-` and `_`, with dots between them");
    }
}

fn pool_check(path: &str, check: &Check, found: &mut Findings) {
    if let Some(port) = check.port {
        found.within(&format!("{path}.port"), port.into(), &limits::PORT);
    }
    found.span(&format!("{path}.interval"), check.interval, &limits::INTERVAL);
    found.span(&format!("{path}.timeout"), check.timeout, &limits::TIMEOUT);
    found.within(&format!("{path}.retries"), check.retries.into(), &limits::RETRIES);
    let delay = format!("{path}.delay_before_retry");
    found.span(&delay, check.delay_before_retry, &limits::RETRY_DELAY);
}

fn unique_names<'a>(kind: &str, names: impl Iterator<Item = &'a str>, found: &mut Findings) {
    let mut seen = BTreeMap::new();
    for (index, name) in names.enumerate() {
        let path = format!("{kind}[{index}].name");
        found.name(&path, name);
        if let Some(first) = seen.insert(name, index) {
            found
                .add(path, format!("`{name}` is the name of {kind}[{first}] already"))
                .about([format!("{kind}[{first}].name")]);
        }
    }
}

/// `70000 is outside 1 to 65535`, with whatever unit follows.
pub(super) fn outside(
    value: impl std::fmt::Display,
    least: impl std::fmt::Display,
    most: impl std::fmt::Display,
) -> String {
    format!("{value} is outside {least} to {most}")
}

/// fe80::/10 (RFC 4291 §2.5.6). IPv4's 169.254.0.0/16 has no zones in Linux, and is taken like any other.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// Whether `span` is a multiple of `step`.
const fn whole(span: Duration, step: Duration) -> bool {
    span.as_nanos().is_multiple_of(step.as_nanos())
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, path: String, message: impl Into<String>) -> &mut Finding {
        let fault = Fault { path, message: message.into(), hint: None };
        self.0.push_mut(Finding { fault, rests_on: Vec::new() })
    }

    fn name(&mut self, path: &str, name: &str) {
        if !limits::NAME.contains(&name.len()) {
            self.length(path, name.len(), "characters", &limits::NAME);
        } else if !text::is_name(name) {
            self.add(path.to_owned(), format!("{name:?} is not a name"))
                .hint("only a-z, 0-9 and `-` are possible");
        }
    }

    fn within(&mut self, path: &str, value: u64, range: &RangeInclusive<u64>) {
        if !range.contains(&value) {
            self.add(path.to_owned(), outside(value, range.start(), range.end()));
        }
    }

    fn span(&mut self, path: &str, span: Duration, range: &RangeInclusive<Duration>) {
        if !range.contains(&span) {
            let [span, least, most] = [span, *range.start(), *range.end()].map(text::duration);
            self.add(path.to_owned(), outside(span, least, most));
        }
    }

    fn count(&mut self, path: &str, what: &str, count: usize, range: &RangeInclusive<usize>) {
        if !range.contains(&count) {
            let message =
                format!("{count} {what}: {} to {} are possible", range.start(), range.end());
            self.add(path.to_owned(), message);
        }
    }

    /// Says how long a text is, not what is in it: it may be a password.
    fn length(&mut self, path: &str, length: usize, unit: &str, range: &RangeInclusive<usize>) {
        let is =
            if length == 0 { "is empty".to_owned() } else { format!("is {length} {unit} long") };
        let message = format!("{is}: {} to {} {unit} are possible", range.start(), range.end());
        self.add(path.to_owned(), message);
    }

    fn unicast(&mut self, path: &str, address: IpAddr) {
        match address {
            IpAddr::V4(v4) if v4.is_broadcast() => {
                self.add(path.to_owned(), format!("{address} is not the address of one machine"));
            }
            _ if address.is_unspecified() || address.is_multicast() => {
                self.add(path.to_owned(), format!("{address} is not the address of one machine"));
            }
            IpAddr::V6(v6) if v6.is_loopback() => self.loopback(path, address),
            IpAddr::V6(v6) => {
                if let Some(v4) = v6.to_ipv4_mapped() {
                    self.add(path.to_owned(), format!("{address} is an IPv4 address in disguise"))
                        .hint(format!("write `{v4}`"));
                }
            }
            IpAddr::V4(_) => {}
        }
    }

    fn loopback(&mut self, path: &str, address: IpAddr) {
        self.add(path.to_owned(), format!("{address} is a loopback address: nobody can reach it"));
    }

    fn link_local(&mut self, path: &str, address: IpAddr) -> &mut Finding {
        self.add(
            path.to_owned(),
            format!("{address} is link-local: on each link it is another machine's"),
        )
    }

    fn dangling<'a>(
        &mut self,
        path: &str,
        what: &str,
        name: &str,
        names: impl ExactSizeIterator<Item = &'a str>,
        list: &str,
    ) {
        let names_read = (0..names.len()).map(|index| format!("{list}[{index}].name"));
        let finding = self.add(path.to_owned(), format!("no {what} is named {name:?}"));
        match super::fault::nearest(name, names) {
            Some(meant) => finding.hint(format!("did you mean {meant:?}?")),
            None => finding.hint(format!("name one of `{list}`")),
        };
        // It may be the name that could not be read.
        finding.about([list.to_owned()]).about(names_read);
    }
}

impl Finding {
    fn hint(&mut self, hint: impl Into<String>) -> &mut Self {
        self.fault.hint = Some(hint.into());
        self
    }

    fn about(&mut self, paths: impl IntoIterator<Item = String>) -> &mut Self {
        self.rests_on.extend(paths);
        self
    }
}
