//! VRRP instances.

use std::net::IpAddr;
use std::time::Duration;

use lvsmesh_core::document::limits;
use lvsmesh_core::model::{Auth, Checksum, Coexist, Garp, Peers, Vrrp, VrrpVersion};

use super::{garp, value};
use crate::interchange::fates::Fates;
use crate::interchange::keepalived::tree::Node;
use crate::interchange::report::Fate;

/// What `global_defs` says for instances that say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Defaults {
    pub(super) version: Option<VrrpVersion>,
    pub(super) interface: Option<String>,
    pub(super) garp: garp::Words,
}

/// One VRRP instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) name: String,
    pub(crate) interface: String,
    /// Its priority is this director's own.
    pub(crate) vrrp: Vrrp,
    pub(crate) addresses: Vec<Address>,
    pub(crate) garp: Garp,
    /// Where its adverts come from, if it says so.
    pub(crate) source: Option<IpAddr>,
    /// The statement that it comes from.
    pub(crate) origin: usize,
}

/// One address of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) address: IpAddr,
    /// Another interface than the instance's.
    pub(crate) interface: Option<String>,
    /// Adverts do not name it.
    pub(crate) excluded: bool,
    /// The statement that it comes from.
    pub(crate) origin: usize,
}

/// Reads an instance; `None` if it makes no VIP group, which is then said.
pub(super) fn instance(block: &Node, defaults: &Defaults, fates: &mut Fates) -> Option<Instance> {
    let Some(name) = block.value(1) else {
        fates.wrong(block.id, "an instance has a name");
        return None;
    };
    // It may stand after the addresses that are compared with it.
    let named = block.children.iter().rfind(|node| node.keyword() == "interface");
    let interface = named
        .and_then(|node| node.value(1))
        .map_or(defaults.interface.clone(), |name| Some(name.to_owned()));
    let mut version = defaults.version;
    let (mut vrid, mut priority, mut interval, mut auth) = (None, None, None, None);
    let mut checksum = Checksum::default();
    let mut addresses = Vec::new();
    let mut preempts = true;
    let mut garp = defaults.garp;
    let (mut source, mut peers) = (None, Peers::Multicast);
    for node in &block.children {
        match node.keyword() {
            "interface" if node.value(1).is_none() => fates.wrong(node.id, "no value"),
            "virtual_router_id" => vrid = value::number(node, 1u8, 255, fates),
            "priority" => priority = value::number(node, 1u8, 255, fates).map(|p| (p, node.id)),
            "advert_int" => interval = value::timer(node, fates).map(|span| (span, node.id)),
            "version" => version = value::version(node, fates),
            "v3_checksum_as_v2" => checksum = Checksum::Plain,
            "nopreempt" => preempts = false,
            word if word.starts_with("garp_") => garp.take(node, fates),
            "unicast_src_ip" => source = value::address(node, fates),
            "unicast_peer" => peers = unicast(node, fates),
            "authentication" => auth = authentication(node, fates),
            "virtual_ipaddress" | "virtual_ipaddress_excluded" => {
                let excluded = node.keyword() == "virtual_ipaddress_excluded";
                addresses.extend(
                    node.children
                        .iter()
                        .filter_map(|line| address(line, interface.as_deref(), excluded, fates)),
                );
            }
            _ => {}
        }
    }
    // keepalived's own default, which is no question of order.
    let priority = match priority {
        Some((255, id)) => {
            fates.changed(id, "255 is for the owner of the address; lvsmesh announces 254");
            254
        }
        Some((priority, _)) => priority,
        None => 100,
    };
    if addresses.is_empty() {
        fates.unsupported(block.id, "no address that can be taken: a VIP group has one at least");
        return None;
    }
    let Some(vrid) = vrid else {
        fates.wrong(block.id, "no virtual_router_id");
        return None;
    };
    let Some(interface) = interface else {
        fates.wrong(block.id, "no interface, and no default_interface");
        return None;
    };
    // The first address decides, as in keepalived.
    let v6 = addresses.first().is_some_and(|address: &Address| address.address.is_ipv6());
    let version = if v6 { VrrpVersion::V3 } else { version.unwrap_or_default() };
    let advert_interval = interval.map_or(Duration::from_secs(1), |(span, id)| {
        let fits = fit(span, version);
        if fits != span {
            let [had, fits] = [span, fits].map(lvsmesh_core::model::text::duration);
            let version = version.number();
            fates.changed(id, format!("{had} cannot be sent in version {version}: {fits}"));
        }
        fits
    });
    if preempts {
        fates.set(
            block.id,
            Fate::Changed,
            "a VIP group in `vips`; keepalived moves the VIPs back by itself, lvsmesh if `fleet.failback` is not `never`",
        );
    }
    if version == VrrpVersion::V3 && auth.is_some() {
        auth = None;
        fates.set(block.id, Fate::Changed, "version 3 has no authentication: it is left out");
    }
    let mut vrrp = Vrrp {
        vrid,
        version,
        advert_interval,
        priority,
        auth,
        checksum,
        coexist: Coexist::default(),
        peers,
    };
    // Peers of the other family are none that adverts could reach.
    if let Peers::Unicast(listed) = &mut vrrp.peers {
        listed.retain(|peer| peer.is_ipv6() == v6);
    }
    Some(Instance {
        name: name.to_owned(),
        interface,
        vrrp,
        addresses,
        garp: garp.finish(),
        source,
        origin: block.id,
    })
}

/// `unicast_peer { ADDRESS [min_ttl N] [max_ttl N] ... }`
fn unicast(block: &Node, fates: &mut Fates) -> Peers {
    let mut listed = Vec::new();
    for line in &block.children {
        match line.keyword().parse::<IpAddr>() {
            Ok(peer) if peer.is_multicast() || peer.is_unspecified() || peer.is_loopback() => {
                fates.wrong(line.id, format!("{peer} is not the address of one other machine"));
            }
            Ok(peer) if listed.contains(&peer) => {}
            Ok(peer) => {
                listed.push(peer);
                if line.words.len() > 1 {
                    fates.changed(line.id, "without its limits of the TTL");
                }
            }
            Err(_) => fates.wrong(line.id, format!("`{}` is no address", line.keyword())),
        }
    }
    Peers::Unicast(listed)
}

/// The nearest interval that the version can send.
fn fit(span: Duration, version: VrrpVersion) -> Duration {
    let (range, step) = match version {
        VrrpVersion::V2 => (limits::ADVERT_V2, limits::ADVERT_STEP_V2),
        VrrpVersion::V3 => (limits::ADVERT_V3, limits::ADVERT_STEP_V3),
    };
    let span = span.clamp(*range.start(), *range.end());
    let steps = span.as_millis() / step.as_millis();
    step * u32::try_from(steps).unwrap_or(1).max(1)
}

fn authentication(block: &Node, fates: &mut Fates) -> Option<Auth> {
    let find = |word| block.children.iter().find(|node| node.keyword() == word);
    let (kind, pass) = (find("auth_type"), find("auth_pass"));
    if let Some(kind) = kind
        && kind.value(1) != Some("PASS")
    {
        fates.unsupported(kind.id, "only PASS: adverts go out without authentication");
        if let Some(pass) = pass {
            fates.unsupported(pass.id, "belongs to an authentication that is not supported");
        }
        return None;
    }
    let pass = pass?;
    let Some(text) = pass.value(1).filter(|text| !text.is_empty()) else {
        fates.wrong(pass.id, "no value");
        return None;
    };
    // keepalived sends the first eight bytes.
    let mut end = text.len().min(*limits::PASS.end());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    if end < text.len() {
        fates.changed(pass.id, "its first 8 bytes, as keepalived sends them");
    }
    Some(Auth::Pass(text[..end].to_owned()))
}

/// `IPADDR[/MASK] [brd ..] [dev ..] [scope ..] [label ..] ...`
fn address(
    line: &Node,
    interface: Option<&str>,
    excluded: bool,
    fates: &mut Fates,
) -> Option<Address> {
    let (text, prefix) = match line.keyword().split_once('/') {
        Some((text, prefix)) => (text, Some(prefix)),
        None => (line.keyword(), None),
    };
    let Ok(address) = text.parse::<IpAddr>() else {
        fates.wrong(line.id, format!("`{text}` is no address"));
        return None;
    };
    let mut notes = Vec::new();
    let whole = if address.is_ipv4() { "32" } else { "128" };
    if let Some(prefix) = prefix.filter(|prefix| *prefix != whole) {
        notes.push(format!("added as /{whole}, not /{prefix}"));
    }
    let mut elsewhere = None;
    let mut words = line.words.iter().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "dev" => {
                elsewhere = words.next().cloned();
            }
            // As lvsmesh adds every IPv6 address.
            "preferred_lft"
                if address.is_ipv6() && words.clone().next().is_some_and(|it| it == "0") =>
            {
                words.next();
            }
            "nodad" if address.is_ipv6() => {}
            "brd" | "broadcast" | "scope" | "label" | "peer" | "preferred_lft" | "track_group" => {
                let value = words.next().map_or("", String::as_str);
                notes.push(format!("without {word} {value}"));
            }
            other => notes.push(format!("without {other}")),
        }
    }
    let elsewhere = elsewhere.filter(|name| Some(name.as_str()) != interface);
    if let Some(name) = &elsewhere {
        notes.push(format!("a VIP group of its own on {name}"));
    }
    if !notes.is_empty() {
        fates.changed(line.id, notes.join("; "));
    }
    Some(Address { address, interface: elsewhere, excluded, origin: line.id })
}
