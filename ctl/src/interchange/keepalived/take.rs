//! One director's statements become what they ask for.

mod garp;
mod server;
mod value;
mod vrrp;

use std::sync::Arc;

pub(crate) use server::{Check, Listen, Netmask, Real, Timing, Virtual};
pub(crate) use vrrp::Instance;

use super::tree::Node;
use crate::interchange::fates::Fates;

/// What one director's configuration asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Director {
    /// As the operator calls it.
    pub(crate) name: Option<String>,
    /// Its first file, for notes.
    pub(crate) label: String,
    /// `router_id`, with its statement.
    pub(crate) router_id: Option<(String, usize)>,
    pub(crate) instances: Vec<Instance>,
    pub(crate) virtuals: Vec<Virtual>,
    pub(crate) timeouts: Option<Timeouts>,
    pub(crate) sync: Option<Sync>,
}

/// `lvs_timeouts`, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeouts {
    pub(crate) tcp: Option<u32>,
    pub(crate) tcp_fin: Option<u32>,
    pub(crate) udp: Option<u32>,
    pub(crate) origin: usize,
}

/// `lvs_sync_daemon`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sync {
    pub(crate) interface: String,
    pub(crate) id: Option<u32>,
    pub(crate) max_length: Option<u32>,
    pub(crate) port: Option<u16>,
    pub(crate) ttl: Option<u8>,
    pub(crate) group: Option<std::net::IpAddr>,
    pub(crate) origin: usize,
}

/// Takes one director's statements.
pub(crate) fn director(
    name: Option<String>,
    label: &Arc<str>,
    nodes: &[Node],
    fates: &mut Fates,
) -> Director {
    let mut director = Director { name, label: label.to_string(), ..Director::default() };
    let mut defaults = vrrp::Defaults::default();
    for node in nodes.iter().filter(|node| node.keyword() == "global_defs") {
        globals(node, &mut director, &mut defaults, fates);
    }
    for node in nodes {
        match node.keyword() {
            "vrrp_instance" => director.instances.extend(vrrp::instance(node, &defaults, fates)),
            "virtual_server" => {
                director.virtuals.extend(server::virtual_server(node, nodes, fates));
            }
            // The words' own fates say the rest.
            _ => {}
        }
    }
    unused_groups(nodes, fates);
    director
}

fn globals(
    block: &Node,
    director: &mut Director,
    defaults: &mut vrrp::Defaults,
    fates: &mut Fates,
) {
    for node in &block.children {
        match node.keyword() {
            "router_id" | "lvs_id" => match node.value(1) {
                Some(id) => director.router_id = Some((id.to_owned(), node.id)),
                None => fates.wrong(node.id, "no value"),
            },
            word if word.starts_with("vrrp_garp_") || word == "vrrp_gna_interval" => {
                defaults.garp.take(node, fates);
            }
            "vrrp_version" => defaults.version = value::version(node, fates),
            "default_interface" => defaults.interface = node.value(1).map(str::to_owned),
            "lvs_timeouts" => director.timeouts = timeouts(node, fates),
            "lvs_sync_daemon" => director.sync = sync(node, fates),
            _ => {}
        }
    }
}

fn timeouts(node: &Node, fates: &mut Fates) -> Option<Timeouts> {
    let mut found = Timeouts { tcp: None, tcp_fin: None, udp: None, origin: node.id };
    let mut words = node.words.iter().skip(1);
    while let Some(word) = words.next() {
        let Some(seconds) = words.next().and_then(|text| text.parse::<u32>().ok()) else {
            fates.wrong(node.id, format!("no whole number of seconds follows `{word}`"));
            return None;
        };
        match word.as_str() {
            "tcp" => found.tcp = Some(seconds),
            "tcpfin" => found.tcp_fin = Some(seconds),
            "udp" => found.udp = Some(seconds),
            other => {
                fates.wrong(node.id, format!("no timeout `{other}`: tcp, tcpfin or udp"));
                return None;
            }
        }
    }
    Some(found)
}

fn sync(node: &Node, fates: &mut Fates) -> Option<Sync> {
    let Some(interface) = node.value(1) else {
        fates.wrong(node.id, "no interface");
        return None;
    };
    let mut found = Sync {
        interface: interface.to_owned(),
        id: None,
        max_length: None,
        port: None,
        ttl: None,
        group: None,
        origin: node.id,
    };
    let mut words = node.words.iter().skip(2).peekable();
    while let Some(word) = words.next() {
        let read = match word.as_str() {
            "inst" => words.next().is_some(),
            "id" => value::next(&mut words).map(|id| found.id = Some(id)).is_some(),
            "maxlen" => value::next(&mut words).map(|n| found.max_length = Some(n)).is_some(),
            "port" => value::next(&mut words).map(|n| found.port = Some(n)).is_some(),
            "ttl" => value::next(&mut words).map(|n| found.ttl = Some(n)).is_some(),
            "group" => value::next(&mut words).map(|n| found.group = Some(n)).is_some(),
            // The instance's name may stand alone, and after it the sync id.
            other => {
                if let Ok(id) = other.parse() {
                    found.id = Some(id);
                }
                true
            }
        };
        if !read {
            fates.wrong(node.id, format!("`{word}` has no value that can be read"));
            return None;
        }
    }
    Some(found)
}

/// A group that no virtual server names makes no services.
fn unused_groups(nodes: &[Node], fates: &mut Fates) {
    for group in nodes.iter().filter(|node| node.keyword() == "virtual_server_group") {
        let used = nodes.iter().any(|node| {
            node.keyword() == "virtual_server"
                && node.value(1) == Some("group")
                && node.value(2) == group.value(1)
        });
        if !used {
            fates.set(
                group.id,
                crate::interchange::report::Fate::Idle,
                "no virtual_server names this group",
            );
        }
    }
}
