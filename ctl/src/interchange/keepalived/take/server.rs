//! Virtual servers.

use std::net::IpAddr;
use std::time::Duration;

use lvsmesh_core::model::{Encapsulation, Forwarding, Protocol, Scheduler, TunnelChecksum};

use super::value;
use crate::interchange::fates::Fates;
use crate::interchange::keepalived::tree::Node;

/// One virtual server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Virtual {
    /// As the report calls it.
    pub(crate) label: String,
    /// Where it answers, each with the statement that says so.
    pub(crate) listens: Vec<(Listen, usize)>,
    /// `None`: keepalived finds out, which gives UDP in 2.2.7.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) scheduler: Option<Scheduler>,
    pub(crate) forwarding: Option<(Forwarding, usize)>,
    pub(crate) persistence: Option<Duration>,
    pub(crate) netmask: Option<(Netmask, usize)>,
    /// Name, and the statement.
    pub(crate) engine: Option<(String, usize)>,
    /// Names as ipvsadm's `-b` has them, each with its statement.
    pub(crate) flags: Vec<(String, usize)>,
    pub(crate) one_packet: Option<usize>,
    /// Of a firewall mark's service.
    pub(crate) ipv6: Option<bool>,
    pub(crate) reals: Vec<Real>,
    /// The statement that it comes from.
    pub(crate) origin: usize,
}

/// Where a virtual server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Listen {
    /// Port 0: every port.
    Address(IpAddr, u16),
    /// A firewall mark, and the family where it is said.
    Mark(u32, Option<bool>),
}

/// Persistence granularity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Netmask {
    /// In host order.
    V4(u32),
    /// A prefix length.
    V6(u8),
}

/// One real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Real {
    pub(crate) address: IpAddr,
    /// `None`: the virtual server's.
    pub(crate) port: Option<u16>,
    pub(crate) weight: u32,
    pub(crate) forwarding: Option<(Forwarding, usize)>,
    pub(crate) upper: Option<u32>,
    pub(crate) lower: Option<u32>,
    pub(crate) check: Option<Check>,
    /// The statement that it comes from.
    pub(crate) origin: usize,
}

/// A TCP check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) port: Option<u16>,
    pub(crate) timing: Timing,
    /// The statement that it comes from.
    pub(crate) origin: usize,
}

/// When a check is done; what is not said comes from the level above, and at last from keepalived's own defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timing {
    pub(crate) interval: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: Option<u32>,
    pub(crate) delay_before_retry: Option<Duration>,
}

impl Timing {
    fn take(&mut self, node: &Node, fates: &mut Fates) {
        match node.keyword() {
            "delay_loop" => self.interval = value::timer(node, fates).or(self.interval),
            "connect_timeout" => self.timeout = value::timer(node, fates).or(self.timeout),
            "retry" | "nb_get_retry" => {
                self.retries = value::number(node, 0, u32::MAX, fates).or(self.retries);
            }
            "delay_before_retry" => {
                self.delay_before_retry = value::timer(node, fates).or(self.delay_before_retry);
            }
            _ => {}
        }
    }

    fn over(self, above: Self) -> Self {
        Self {
            interval: self.interval.or(above.interval),
            timeout: self.timeout.or(above.timeout),
            retries: self.retries.or(above.retries),
            delay_before_retry: self.delay_before_retry.or(above.delay_before_retry),
        }
    }
}

/// Reads a virtual server; `None` if it makes no service, which is then said.
pub(super) fn virtual_server(block: &Node, all: &[Node], fates: &mut Fates) -> Option<Virtual> {
    let listens = listens(block, all, fates)?;
    let mut found = Virtual {
        label: block.text(),
        listens,
        protocol: None,
        scheduler: None,
        forwarding: None,
        persistence: None,
        netmask: None,
        engine: None,
        flags: Vec::new(),
        one_packet: None,
        ipv6: None,
        reals: Vec::new(),
        origin: block.id,
    };
    let mut timing = Timing::default();
    let mut weight = 1;
    for node in &block.children {
        match node.keyword() {
            "weight" => {
                weight = value::number(node, 0, i32::MAX.unsigned_abs(), fates).unwrap_or(1);
            }
            "real_server" => {}
            _ => {
                timing.take(node, fates);
                setting(node, &mut found, fates);
            }
        }
    }
    // After the defaults, wherever those stand.
    for node in block.children.iter().filter(|node| node.keyword() == "real_server") {
        found.reals.extend(real_server(node, weight, timing, fates));
    }
    if found.reals.is_empty() {
        fates.wrong(block.id, "no real server that can be taken: a service has one at least");
        return None;
    }
    Some(found)
}

fn listens(block: &Node, all: &[Node], fates: &mut Fates) -> Option<Vec<(Listen, usize)>> {
    match block.value(1) {
        Some("group") => group(block, all, fates),
        Some("fwmark") => match block.value(2).map(str::parse::<u32>) {
            Some(Ok(mark)) if mark > 0 => Some(vec![(Listen::Mark(mark, None), block.id)]),
            _ => {
                let mark = block.value(2).unwrap_or_default();
                fates.wrong(block.id, format!("`{mark}` is no firewall mark"));
                None
            }
        },
        Some(text) => {
            let Ok(address) = text.parse() else {
                fates.wrong(block.id, format!("`{text}` is no address"));
                return None;
            };
            let port = port(block.value(2), block.id, fates)?;
            Some(vec![(Listen::Address(address, port), block.id)])
        }
        None => {
            fates.wrong(block.id, "a virtual server has an address, a mark or a group");
            None
        }
    }
}

/// The port that is said, or 0. `None`: it cannot be read, which is then said.
fn port(text: Option<&str>, id: usize, fates: &mut Fates) -> Option<u16> {
    let Some(text) = text else { return Some(0) };
    match text.parse() {
        Ok(port) => Some(port),
        Err(_) => {
            fates.wrong(id, format!("`{text}` is no port"));
            None
        }
    }
}

fn group(block: &Node, all: &[Node], fates: &mut Fates) -> Option<Vec<(Listen, usize)>> {
    let name = block.value(2).unwrap_or_default();
    let groups: Vec<&Node> = all
        .iter()
        .filter(|node| node.keyword() == "virtual_server_group" && node.value(1) == Some(name))
        .collect();
    let [group, ..] = groups.as_slice() else {
        fates.wrong(block.id, format!("no virtual_server_group is named `{name}`"));
        return None;
    };
    let mut found = Vec::new();
    for line in &group.children {
        if line.keyword() == "fwmark" {
            let family = match line.value(2) {
                None => None,
                Some("inet") => Some(false),
                Some("inet6") => Some(true),
                Some(other) => {
                    fates.wrong(line.id, format!("`{other}` is no family: inet or inet6"));
                    continue;
                }
            };
            match line.value(1).map(str::parse::<u32>) {
                Some(Ok(mark)) if mark > 0 => found.push((Listen::Mark(mark, family), line.id)),
                _ => fates.wrong(line.id, "no firewall mark that can be read"),
            }
            continue;
        }
        let Some(port) = port(line.value(1), line.id, fates) else { continue };
        match value::range(line.keyword()) {
            Ok(addresses) => found.extend(
                addresses.into_iter().map(|address| (Listen::Address(address, port), line.id)),
            ),
            Err(why) => fates.wrong(line.id, why),
        }
    }
    if found.is_empty() {
        fates.wrong(
            block.id,
            format!("virtual_server_group `{name}` names nothing that can be taken"),
        );
        return None;
    }
    Some(found)
}

fn setting(node: &Node, found: &mut Virtual, fates: &mut Fates) {
    match node.keyword() {
        "lb_algo" | "lvs_sched" => found.scheduler = scheduler(node, fates),
        "lb_kind" | "lvs_method" => {
            found.forwarding = forwarding(node, fates).map(|method| (method, node.id));
        }
        "protocol" => {
            let word = node.value(1).unwrap_or_default().to_lowercase();
            found.protocol = Protocol::ALL.into_iter().find(|protocol| protocol.name() == word);
            if found.protocol.is_none() {
                fates.wrong(node.id, format!("`{word}` is no protocol: TCP, UDP or SCTP"));
            }
        }
        "persistence_timeout" => {
            // keepalived's default, six minutes.
            let seconds = match node.value(1) {
                None => Some(360),
                Some(_) => value::number(node, 0, i32::MAX.unsigned_abs(), fates),
            };
            found.persistence = seconds.map(|seconds| Duration::from_secs(seconds.into()));
        }
        "persistence_granularity" => {
            let text = node.value(1).unwrap_or_default();
            found.netmask = match (text.parse::<std::net::Ipv4Addr>(), text.parse::<u8>()) {
                (Ok(mask), _) => Some((Netmask::V4(mask.to_bits()), node.id)),
                (_, Ok(bits @ 1..=128)) => Some((Netmask::V6(bits), node.id)),
                _ => {
                    fates.wrong(node.id, format!("`{text}` is no netmask and no prefix length"));
                    None
                }
            };
        }
        "persistence_engine" => match node.value(1) {
            Some(name) => found.engine = Some((name.to_owned(), node.id)),
            None => fates.wrong(node.id, "no value"),
        },
        "ops" => found.one_packet = Some(node.id),
        flag @ ("flag-1" | "flag-2" | "flag-3" | "sh-port" | "sh-fallback" | "mh-port"
        | "mh-fallback") => found.flags.push((flag.to_owned(), node.id)),
        "ip_family" => match node.value(1) {
            Some("inet") => found.ipv6 = Some(false),
            Some("inet6") => found.ipv6 = Some(true),
            other => {
                let other = other.unwrap_or_default();
                fates.wrong(node.id, format!("`{other}` is no family: inet or inet6"));
            }
        },
        _ => {}
    }
}

fn scheduler(node: &Node, fates: &mut Fates) -> Option<Scheduler> {
    let name = node.value(1).unwrap_or_default();
    let found = Scheduler::ALL.into_iter().find(|scheduler| scheduler.name() == name);
    if found.is_none() {
        fates.wrong(node.id, format!("no scheduler `{name}`: wlc is taken"));
    }
    found
}

fn forwarding(node: &Node, fates: &mut Fates) -> Option<Forwarding> {
    match node.value(1) {
        Some("NAT") => Some(Forwarding::Nat),
        Some("DR") => Some(Forwarding::Dr),
        Some("TUN") => tunnel(node, fates).map(Forwarding::Tunnel),
        other => {
            let other = other.unwrap_or_default();
            fates.wrong(node.id, format!("no forwarding method `{other}`: NAT, DR or TUN"));
            None
        }
    }
}

/// `type {ipip|gue port NUM|gre} [nocsum|csum|remcsum]`
fn tunnel(node: &Node, fates: &mut Fates) -> Option<Encapsulation> {
    let mut kind = Encapsulation::Ipip;
    let mut checksum = TunnelChecksum::None;
    let mut words = node.words.iter().skip(2);
    while let Some(word) = words.next() {
        let none = TunnelChecksum::None;
        let read = match word.as_str() {
            "type" => match words.next().map(String::as_str) {
                Some("ipip") => Some(Encapsulation::Ipip),
                Some("gre") => Some(Encapsulation::Gre { checksum: none }),
                Some("gue") if words.next().is_some_and(|word| word == "port") => {
                    value::next(&mut words).map(|port| Encapsulation::Gue { port, checksum: none })
                }
                _ => None,
            }
            .map(|read| kind = read),
            other => match other {
                "nocsum" => Some(TunnelChecksum::None),
                "csum" => Some(TunnelChecksum::Csum),
                "remcsum" => Some(TunnelChecksum::Remcsum),
                _ => None,
            }
            .map(|read| checksum = read),
        };
        if read.is_none() {
            fates.wrong(node.id, format!("the kind of tunnel cannot be read at `{word}`"));
            return None;
        }
    }
    match (kind, checksum) {
        (Encapsulation::Ipip, TunnelChecksum::None) => Some(kind),
        (Encapsulation::Gue { port, .. }, checksum) => Some(Encapsulation::Gue { port, checksum }),
        (Encapsulation::Gre { .. }, TunnelChecksum::None | TunnelChecksum::Csum) => {
            Some(Encapsulation::Gre { checksum })
        }
        (Encapsulation::Ipip | Encapsulation::Gre { .. }, _) => {
            let (kind, checksum) = (kind.name(), checksum.name());
            fates.wrong(node.id, format!("{kind} tunnels have no {checksum}"));
            None
        }
    }
}

fn real_server(block: &Node, weight: u32, above: Timing, fates: &mut Fates) -> Option<Real> {
    let text = block.value(1).unwrap_or_default();
    let Ok(address) = text.parse() else {
        fates.wrong(block.id, format!("`{text}` is no address"));
        return None;
    };
    let port = match block.value(2) {
        None | Some("0") => None,
        Some(_) => Some(port(block.value(2), block.id, fates)?),
    };
    let mut found = Real {
        address,
        port,
        weight,
        forwarding: None,
        upper: None,
        lower: None,
        check: None,
        origin: block.id,
    };
    let mut timing = Timing::default();
    for node in &block.children {
        let number = |fates: &mut Fates| value::number(node, 0, i32::MAX.unsigned_abs(), fates);
        match node.keyword() {
            "weight" => found.weight = number(fates).unwrap_or(weight),
            "lvs_method" | "lb_kind" => {
                found.forwarding = forwarding(node, fates).map(|method| (method, node.id));
            }
            "uthreshold" => found.upper = value::number(node, 0, u32::MAX, fates),
            "lthreshold" => found.lower = value::number(node, 0, u32::MAX, fates),
            _ => timing.take(node, fates),
        }
    }
    let timing = timing.over(above);
    for node in block.children.iter().filter(|node| node.keyword() == "TCP_CHECK") {
        let check = check(node, timing, fates);
        if found.check.is_none() {
            found.check = Some(check);
        } else {
            fates.unsupported(node.id, "one check for a real server: the first is taken");
        }
    }
    Some(found)
}

fn check(block: &Node, above: Timing, fates: &mut Fates) -> Check {
    let mut timing = Timing::default();
    let mut port = None;
    for node in &block.children {
        match node.keyword() {
            "connect_port" => port = value::number(node, 1, u16::MAX, fates),
            _ => timing.take(node, fates),
        }
    }
    Check { port, timing: timing.over(above), origin: block.id }
}
