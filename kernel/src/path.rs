//! Tunnel devices, policy rules and routes, over rtnetlink.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lvsmesh_core::model::Protocol;
use lvsmesh_core::plan::path::{
    PRIORITY, PathAction, Route, Rule, Seen, SeenTunnel, TABLES, Tunnel, TunnelKind,
};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};
use netlink_packet_route::link::{
    GreIOFlags, InfoData, InfoGre, InfoGre6, InfoIpTunnel, InfoKind, Ip6TunnelFlags, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange};
use netlink_packet_route::{AddressFamily, IpProtocol, RouteNetlinkMessage};

use crate::address::Addresses;
use crate::error::{KernelError, describe};
use crate::{PROTOCOL_MARK, fou};
use lvsmesh_core::plan::Action;

/// lvsmesh's mark on devices that it makes: their alias (`IFLA_IFALIAS`).
const ALIAS: &str = "lvsmesh";

/// Reads tunnels' devices, and rules and routes of our form.
pub(crate) async fn observe(addresses: &Addresses) -> Result<Seen, KernelError> {
    Ok(Seen {
        tunnels: tunnels(addresses).await?,
        ports: None,
        rules: rules(addresses).await?,
        routes: routes(addresses).await?,
    })
}

/// Performs one action.
pub(crate) async fn perform(addresses: &Addresses, action: &PathAction) -> Result<(), KernelError> {
    let (operation, object) = describe(&Action::Path(action.clone()));
    let adding = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let plain = NLM_F_REQUEST | NLM_F_ACK;
    let (request, flags) = match action {
        PathAction::AddPort(port) => return fou::add(*port).await,
        PathAction::RemovePort(port) => return fou::remove(*port).await,
        PathAction::AddTunnel(tunnel) => {
            let request = RouteNetlinkMessage::NewLink(new_link(tunnel));
            addresses.acknowledged(operation, &object, request, adding).await?;
            // An alias is taken only by a device that is there (`do_setlink`, net/core/rtnetlink.c).
            (RouteNetlinkMessage::SetLink(up(&tunnel.name())), plain)
        }
        PathAction::RaiseTunnel(name) => (RouteNetlinkMessage::SetLink(up(name)), plain),
        PathAction::RemoveTunnel(name) => (RouteNetlinkMessage::DelLink(named(name)), plain),
        PathAction::AddRule(rule) => {
            let mut message = rule_message(rule);
            let mark = RouteProtocol::Other(PROTOCOL_MARK);
            message.attributes.push(RuleAttribute::Protocol(mark));
            (RouteNetlinkMessage::NewRule(message), adding)
        }
        PathAction::RemoveRule(rule) => (RouteNetlinkMessage::DelRule(rule_message(rule)), plain),
        PathAction::AddRoute(route) => {
            let mut message = route_message(route);
            message.header.protocol = RouteProtocol::Other(PROTOCOL_MARK);
            message.header.scope = RouteScope::Universe;
            (RouteNetlinkMessage::NewRoute(message), adding)
        }
        PathAction::RemoveRoute(route) => {
            let mut message = route_message(route);
            // Whatever protocol and scope it has.
            message.header.scope = RouteScope::NoWhere;
            (RouteNetlinkMessage::DelRoute(message), plain)
        }
    };
    addresses.acknowledged(operation, &object, request, flags).await
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn up(name: &str) -> LinkMessage {
    let mut message = named(name);
    message.attributes.push(LinkAttribute::IfAlias(ALIAS.to_owned()));
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

fn new_link(tunnel: &Tunnel) -> LinkMessage {
    let gre = if tunnel.checksum { GreIOFlags::Checksum } else { GreIOFlags::empty() };
    let local = tunnel.local;
    let (kind, data) = match (tunnel.kind, local) {
        (TunnelKind::Gre, IpAddr::V4(local)) => {
            (InfoKind::GreTun, InfoData::GreTun(vec![InfoGre::Local(local), InfoGre::IFlags(gre)]))
        }
        (TunnelKind::Ip6gre, IpAddr::V6(local)) => (
            InfoKind::GreTun6,
            InfoData::GreTun6(vec![InfoGre6::Local(local), InfoGre6::IFlags(gre)]),
        ),
        // Protocol 0 takes both IPv4 and IPv6 out. A director may send with a VIP as the outer source, which the real server has on its `lo`:
        // without this flag such packets are dropped without a trace (`ip6_tnl_rcv_ctl`, net/ipv6/ip6_tunnel.c).
        (TunnelKind::Ip6tnl, _) => (
            InfoKind::Ip6Tnl,
            InfoData::IpTunnel(vec![
                InfoIpTunnel::Local(local),
                InfoIpTunnel::Protocol(IpProtocol::from(0)),
                InfoIpTunnel::Ipv6Flags(Ip6TunnelFlags::AllowLocalRemote),
            ]),
        ),
        (TunnelKind::Sit, _) => {
            (InfoKind::SitTun, InfoData::IpTunnel(vec![InfoIpTunnel::Local(local)]))
        }
        // A GRE device whose address is of the other IP version is never planned; the kernel would refuse it.
        (TunnelKind::Ipip | TunnelKind::Gre | TunnelKind::Ip6gre, _) => {
            (InfoKind::IpIp, InfoData::IpTunnel(vec![InfoIpTunnel::Local(local)]))
        }
    };
    let mut message = named(&tunnel.name());
    message
        .attributes
        .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]));
    message
}

async fn tunnels(addresses: &Addresses) -> Result<BTreeMap<String, SeenTunnel>, KernelError> {
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let messages = addresses.dump("list", "links", request).await?;
    Ok(messages
        .into_iter()
        .filter_map(|message| {
            let RouteNetlinkMessage::NewLink(message) = message else { return None };
            seen_tunnel(&message)
        })
        .collect())
}

fn seen_tunnel(message: &LinkMessage) -> Option<(String, SeenTunnel)> {
    let mut name = None;
    let mut marked = false;
    let mut tunnel = None;
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(value) = attribute {
            name = Some(value.clone());
        } else if let LinkAttribute::IfAlias(value) = attribute {
            marked = value == ALIAS;
        } else if let LinkAttribute::LinkInfo(info) = attribute {
            tunnel = plain_tunnel(info);
        }
    }
    let name = name.filter(|name| name.starts_with(Tunnel::PREFIX))?;
    Some((name, SeenTunnel { tunnel, up: message.header.flags.contains(LinkFlags::Up), marked }))
}

/// Kind, local address and checksum of a tunnel that has nothing else: no remote, no key, no encapsulation.
fn plain_tunnel(info: &[LinkInfo]) -> Option<(TunnelKind, IpAddr, bool)> {
    let mut kind = None;
    let mut found = Found { plain: true, ..Found::default() };
    for part in info {
        if let LinkInfo::Kind(seen) = part {
            let name = seen.to_string();
            kind = TunnelKind::ALL.into_iter().find(|kind| kind.name() == name);
        } else if let LinkInfo::Data(InfoData::IpTunnel(parts)) = part {
            parts.iter().for_each(|part| found.ip(part));
        } else if let LinkInfo::Data(InfoData::GreTun(parts)) = part {
            parts.iter().for_each(|part| found.gre(part));
        } else if let LinkInfo::Data(InfoData::GreTun6(parts)) = part {
            parts.iter().for_each(|part| found.gre6(part));
        }
    }
    let protocol = match kind? {
        TunnelKind::Ipip => 4,
        TunnelKind::Sit => 41,
        TunnelKind::Ip6tnl | TunnelKind::Gre | TunnelKind::Ip6gre => 0,
    };
    let same = found.plain && found.protocol.unwrap_or(protocol) == protocol;
    if same { Some((kind?, found.local?, found.checksum)) } else { None }
}

#[derive(Default)]
struct Found {
    local: Option<IpAddr>,
    protocol: Option<u8>,
    checksum: bool,
    plain: bool,
}

impl Found {
    fn ip(&mut self, part: &InfoIpTunnel) {
        if let InfoIpTunnel::Local(local) = part {
            self.local = Some(*local);
        } else if let InfoIpTunnel::Remote(remote) = part {
            self.plain &= remote.is_unspecified();
        } else if let InfoIpTunnel::Protocol(protocol) = part {
            self.protocol = Some(u8::from(*protocol));
        } else if let InfoIpTunnel::Ipv6Flags(flags) = part {
            self.plain &= flags.contains(Ip6TunnelFlags::AllowLocalRemote);
        } else if let InfoIpTunnel::Link(link) = part {
            self.plain &= *link == 0;
        } else if let InfoIpTunnel::CollectMetadata = part {
            self.plain = false;
        }
    }

    fn gre(&mut self, part: &InfoGre) {
        if let InfoGre::Local(local) = part {
            self.local = Some((*local).into());
        } else if let InfoGre::Remote(remote) = part {
            self.plain &= remote.is_unspecified();
        } else if let InfoGre::IFlags(flags) = part {
            self.flags(*flags);
        } else if let InfoGre::Link(link) = part {
            self.plain &= *link == 0;
        } else if let InfoGre::CollectMetadata = part {
            self.plain = false;
        }
    }

    fn gre6(&mut self, part: &InfoGre6) {
        if let InfoGre6::Local(local) = part {
            self.local = Some((*local).into());
        } else if let InfoGre6::Remote(remote) = part {
            self.plain &= remote.is_unspecified();
        } else if let InfoGre6::IFlags(flags) = part {
            self.flags(*flags);
        } else if let InfoGre6::Link(link) = part {
            self.plain &= *link == 0;
        } else if let InfoGre6::CollectMetadata = part {
            self.plain = false;
        }
    }

    fn flags(&mut self, flags: GreIOFlags) {
        self.checksum = flags.contains(GreIOFlags::Checksum);
        self.plain &= !flags.intersects(GreIOFlags::Key | GreIOFlags::Seq);
    }
}

const fn family(ipv6: bool) -> AddressFamily {
    if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(rule.source.is_ipv6());
    message.header.src_len = if rule.source.is_ipv6() { 128 } else { 32 };
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Source(rule.source),
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::Table(rule.table),
        RuleAttribute::IpProtocol(IpProtocol::from(rule.protocol.number())),
        RuleAttribute::SourcePortRange(RulePortRange { start: rule.first, end: rule.last }),
    ];
    message
}

async fn rules(addresses: &Addresses) -> Result<BTreeMap<Rule, bool>, KernelError> {
    let mut rules = BTreeMap::new();
    for ipv6 in [false, true] {
        let mut message = RuleMessage::default();
        message.header.family = family(ipv6);
        let request = RouteNetlinkMessage::GetRule(message);
        for message in addresses.dump("list", "policy rules", request).await? {
            let RouteNetlinkMessage::NewRule(message) = message else { continue };
            rules.extend(seen_rule(&message));
        }
    }
    Ok(rules)
}

/// A rule of our form at our priority, with whether it is marked.
fn seen_rule(message: &RuleMessage) -> Option<(Rule, bool)> {
    let mut rule = Rule {
        source: IpAddr::from([0, 0, 0, 0]),
        protocol: Protocol::Tcp,
        first: 0,
        last: 0,
        table: message.header.table.into(),
    };
    let mut priority = 0;
    let mut found = (false, false, false);
    let mut marked = false;
    for attribute in &message.attributes {
        if let RuleAttribute::Source(source) = attribute {
            rule.source = *source;
            found.0 = message.header.src_len == if source.is_ipv6() { 128 } else { 32 };
        } else if let RuleAttribute::Priority(value) = attribute {
            priority = *value;
        } else if let RuleAttribute::Table(table) = attribute {
            rule.table = *table;
        } else if let RuleAttribute::IpProtocol(number) = attribute {
            let number = u8::from(*number);
            rule.protocol = Protocol::ALL.into_iter().find(|known| known.number() == number)?;
            found.1 = true;
        } else if let RuleAttribute::SourcePortRange(range) = attribute {
            (rule.first, rule.last) = (range.start, range.end);
            found.2 = true;
        } else if let RuleAttribute::Protocol(protocol) = attribute {
            marked = u8::from(*protocol) == PROTOCOL_MARK;
        } else if narrows(attribute) {
            return None;
        }
    }
    let ours = priority == PRIORITY
        && found == (true, true, true)
        && message.header.action == RuleAction::ToTable
        && message.header.dst_len == 0
        && message.header.tos == 0
        && TABLES.contains(&rule.table);
    ours.then_some((rule, marked))
}

/// Whether the attribute makes a rule that ours is not.
fn narrows(attribute: &RuleAttribute) -> bool {
    matches!(
        attribute,
        RuleAttribute::Destination(_)
            | RuleAttribute::DestinationPortRange(_)
            | RuleAttribute::Iifname(_)
            | RuleAttribute::Oifname(_)
            | RuleAttribute::FwMark(_)
            | RuleAttribute::UidRange(_)
    )
}

fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(route.gateway.is_ipv6()),
        table: RouteHeader::RT_TABLE_UNSPEC,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = vec![
        RouteAttribute::Gateway(RouteAddress::from(route.gateway)),
        RouteAttribute::Table(route.table),
    ];
    message
}

async fn routes(addresses: &Addresses) -> Result<BTreeMap<Route, bool>, KernelError> {
    let mut routes = BTreeMap::new();
    for ipv6 in [false, true] {
        let mut message = RouteMessage::default();
        message.header.address_family = family(ipv6);
        let request = RouteNetlinkMessage::GetRoute(message);
        for message in addresses.dump("list", "routes", request).await? {
            let RouteNetlinkMessage::NewRoute(message) = message else { continue };
            routes.extend(seen_route(&message));
        }
    }
    Ok(routes)
}

/// A default route through a gateway in a table of ours, with whether it is marked.
fn seen_route(message: &RouteMessage) -> Option<(Route, bool)> {
    let mut gateway = None;
    let mut table = u32::from(message.header.table);
    for attribute in &message.attributes {
        if let RouteAttribute::Gateway(RouteAddress::Inet(address)) = attribute {
            gateway = Some(IpAddr::from(*address));
        } else if let RouteAttribute::Gateway(RouteAddress::Inet6(address)) = attribute {
            gateway = Some(IpAddr::from(*address));
        } else if let RouteAttribute::Table(value) = attribute {
            table = *value;
        }
    }
    let ours = message.header.destination_prefix_length == 0
        && message.header.kind == RouteType::Unicast
        && TABLES.contains(&table);
    let marked = u8::from(message.header.protocol) == PROTOCOL_MARK;
    ours.then_some((Route { table, gateway: gateway? }, marked))
}
