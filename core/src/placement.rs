//! Replicated state and one node give that node's plan.
//!
//! *In*: [`State`], the node, and whether it holds. *Out*: [`NodePlan`], what the node's kernel should look like; and [`explain()`], the same
//! decisions in words. Both ask one function whether a real server gets traffic, so that a status never says otherwise than the table.

mod director;
mod explain;
mod host;
mod lookup;
mod placer;
mod serving;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

pub use director::DirectorSide;
pub use explain::{RealServerView, ServiceView, explain};
use lookup::{Lookup, Names, Sides};
pub use placer::{Change, Placer};

use crate::model::{Document, Forwarding, Listen, Member, NodeId, Pool, RealServer, Service, Vip};
use crate::plan::path::{GuePort, Paths, Route, Rule, Tunnel};
use crate::plan::{
    Destination, Method, ServiceKey, ServiceSpec, Sysctl, Table, VirtualService, Want,
};
use crate::state::State;

/// What one node's kernel should look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePlan {
    /// The revision it comes from.
    pub revision: u64,
    /// The IPVS table, empty on a node that is no director. A dual-role node has services only of VIP groups that it holds.
    pub table: Table,
    /// The realserver side.
    pub real_server: RealServerSide,
    /// What a director needs beside the table; nothing on a node that is none.
    pub director: DirectorSide,
    /// The VIP groups that this node would claim as holder: all of them on a director, none elsewhere.
    pub vips: Vec<Vip>,
}

/// What a node needs in order to answer as a real server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RealServerSide {
    /// VIPs that must be on `lo`.
    pub addresses: BTreeSet<IpAddr>,
    /// Sysctls that must have at least this value, before any address is added (`arp_ignore` 1 and `arp_announce` 2, on `all` and `lo`).
    /// Empty where no address is needed.
    pub sysctls: BTreeMap<Sysctl, i64>,
    /// The ends of tunnels, and ways back through the director.
    pub paths: Paths,
}

/// What keeps a VIP on `lo` from answering ARP, and the machine from asking with it as sender (`ip-sysctl.rst`, Linux 6.1). The kernel takes
/// the highest of `all` and the interface's own.
const ARP_SYSCTLS: [(&str, i64); 4] = [
    ("net/ipv4/conf/all/arp_announce", 2),
    ("net/ipv4/conf/all/arp_ignore", 1),
    ("net/ipv4/conf/lo/arp_announce", 2),
    ("net/ipv4/conf/lo/arp_ignore", 1),
];

/// What that node's kernel should look like. `holding`: its tenure is being prepared or runs.
///
/// The plan of a node that is no member is empty. That is no reason to take anything down: a machine that was removed is cleaned by
/// `lvs-agent leave`, and one whose log is still empty has nothing to compare with. Whoever places again and again asks a [`Placer`].
#[must_use]
pub fn place(state: &State, node: NodeId, holding: bool) -> NodePlan {
    place_all(&mut Lookup::new(state), node, holding)
}

fn place_all(lookup: &mut Lookup<'_>, node: NodeId, holding: bool) -> NodePlan {
    let state = lookup.state;
    let revision = state.revision();
    let Some(member) = state.member(node) else {
        return NodePlan { revision, ..NodePlan::default() };
    };
    let document = state.document();
    let real_server = match member.is_real_server() {
        true => lookup.side(member).clone(),
        false => RealServerSide::default(),
    };
    if !member.is_director() {
        return NodePlan { revision, real_server, ..NodePlan::default() };
    }

    let mut table = Table::new();
    for (index, service) in document.services.iter().enumerate() {
        let Some((vip, pool)) = lookup.names.parts(index, service) else { continue };
        table.extend(virtual_services(lookup, service, vip, pool, holding, &real_server));
    }
    let routing = host::routing(state, &lookup.names);
    let director = director_side(state, holding, &real_server, &routing);
    NodePlan { revision, table, real_server, director, vips: document.vips.clone() }
}

/// What a service is in the tables of directors, on one whose own realserver side is `own`.
fn virtual_services<'a>(
    lookup: &mut Lookup<'a>,
    service: &Service,
    vip: &Vip,
    pool: &'a Pool,
    holding: bool,
    own: &RealServerSide,
) -> Vec<(ServiceKey, VirtualService)> {
    // Forwarding for a VIP that is also on one's own `lo` sends packets round in circles, unless one holds it.
    let served = vip.served().filter(|address| holding || !own.addresses.contains(address));
    let virtual_service = |address| {
        let destinations = destinations(lookup, service, pool, address);
        (key(service, address), VirtualService { spec: spec(service, address), destinations })
    };
    served.map(virtual_service).collect()
}

/// What a director needs beside the table, whose own realserver side is `own`.
fn director_side(
    state: &State,
    holding: bool,
    own: &RealServerSide,
    routing: &BTreeMap<Sysctl, Want>,
) -> DirectorSide {
    let mut director = director::director_side(state.document(), holding);
    director.sysctls.extend(routing.iter().map(|(name, want)| (name.clone(), *want)));
    if !holding {
        // A way back through an address of one's own leads nowhere: such a node has it while it holds, when it needs no way back.
        for route in &own.paths.routes {
            director.addresses.remove(&route.gateway);
        }
    }
    director
}

/// Whether directors need IPVS at all: there is a service with an address.
#[must_use]
pub fn needs_table(state: &State) -> bool {
    let document = state.document();
    let serves = |vip: &Vip| vip.served().next().is_some();
    document.services.iter().any(|service| document.vip(&service.vip).is_some_and(serves))
}

/// How eagerly a node campaigns, and whether it only votes.
///
/// Directors come first: those that the VIP groups prefer, in the groups' order, then the others by id. All VIP groups move together, so
/// the first preference that names a node counts. Real servers that may vote (witnesses) come after every director, by id. A node that is
/// no member is a witness of the last rank.
#[must_use]
pub fn standing(state: &State, node: NodeId) -> (u8, bool) {
    let mut order: Vec<&Member> = Vec::new();
    let preferred = state.document().vips.iter().flat_map(|vip| &vip.preference);
    let preferred = preferred.filter_map(|name| state.member_by_name(name));
    let (directors, witnesses): (Vec<&Member>, Vec<&Member>) =
        state.members().partition(|member| member.is_director());
    for member in preferred.filter(|member| member.is_director()).chain(directors).chain(witnesses)
    {
        if !order.iter().any(|known| known.id == member.id) {
            order.push(member);
        }
    }
    let rank = order.iter().position(|member| member.id == node);
    (
        rank.and_then(|rank| u8::try_from(rank).ok()).unwrap_or(u8::MAX),
        !state.member(node).is_some_and(Member::is_director),
    )
}

/// The directors that the VIP groups prefer to that node as their holder, the most preferred first: every group with a preference names them
/// before it. Without a preference nobody is preferred to anybody; where groups disagree, to neither.
#[must_use]
pub fn preferred(state: &State, holder: NodeId) -> Vec<&Member> {
    let Some(holder) = state.member(holder) else { return vec![] };
    let place = |preference: &[String], name: &str| {
        preference.iter().position(|named| named == name).unwrap_or(usize::MAX)
    };
    let lists: Vec<&[String]> = state
        .document()
        .vips
        .iter()
        .map(|vip| vip.preference.as_slice())
        .filter(|preference| !preference.is_empty())
        .collect();
    let before = |member: &&Member| {
        !lists.is_empty()
            && lists.iter().all(|list| place(list, &member.name) < place(list, &holder.name))
    };
    let mut preferred: Vec<&Member> =
        state.members().filter(|member| member.is_director()).filter(before).collect();
    preferred.sort_by_key(|member| standing(state, member.id).0);
    preferred
}

/// What that member needs in order to answer for the services of a document, with the pools that sources have filled so far.
fn real_server_side(
    state: &State,
    document: &Document,
    names: &Names<'_>,
    member: &Member,
) -> RealServerSide {
    let mut sides = real_server_sides(state, document, names, std::iter::once(member));
    sides.remove(&member.id).unwrap_or_default()
}

/// The same of each of these members that may be a real server, in one pass.
fn real_server_sides<'a>(
    state: &State,
    document: &Document,
    names: &Names<'_>,
    members: impl Iterator<Item = &'a Member>,
) -> Sides {
    let mut sides = Sides::new();
    let mut owners: BTreeMap<IpAddr, Vec<&Member>> = BTreeMap::new();
    for member in members.filter(|member| member.is_real_server()) {
        sides.insert(member.id, RealServerSide::default());
        for address in &member.addresses {
            owners.entry(*address).or_default().push(member);
        }
    }
    for (index, service) in document.services.iter().enumerate() {
        let Some((vip, pool)) = names.parts(index, service) else { continue };
        let all = real_servers(state, pool);
        for own in all {
            for member in owners.get(&own.address).into_iter().flatten() {
                let side = sides.entry(member.id).or_default();
                if forwarding(service, own).keeps_ports() {
                    side.addresses.extend(vip.served());
                }
                for address in vip.served() {
                    let mixed = serving::mixed(document, all, address);
                    if serving::can_be_behind(service, own, address, mixed) {
                        side.paths
                            .merge(host::share(document, service, address, own, member).paths);
                    }
                }
            }
        }
    }
    for side in sides.values_mut() {
        side.sysctls = arp_sysctls(&side.addresses).collect();
    }
    sides
}

/// What these addresses need before they are on `lo`: a kernel that is quiet about those of IPv4. About those of IPv6 every kernel is: it answers
/// solicitations for addresses of the interface that they come in by (`ndisc_recv_ns`, net/ipv6/ndisc.c).
fn arp_sysctls(addresses: &BTreeSet<IpAddr>) -> impl Iterator<Item = (Sysctl, i64)> {
    let needed = if addresses.iter().any(IpAddr::is_ipv4) { &ARP_SYSCTLS[..] } else { &[] };
    needed.iter().map(|&(name, least)| (Sysctl(name.to_owned()), least))
}

/// The real servers of a pool, whether they serve or not: as listed, or as its source said last.
fn real_servers<'a>(state: &'a State, pool: &'a Pool) -> &'a [RealServer] {
    match &pool.source {
        crate::model::PoolSource::Listed(listed) => listed,
        crate::model::PoolSource::Discovery(_) => {
            state.discovered(&pool.name).map_or(&[], |discovered| &discovered.real_servers)
        }
    }
}

/// What a service is in the kernel, for one address of its VIP group. Those of a firewall mark are the same for all addresses of a family.
fn key(service: &Service, address: IpAddr) -> ServiceKey {
    match service.listen {
        Listen::Port { protocol, port } => ServiceKey::Address { protocol, address, port },
        Listen::Mark { mark, .. } => ServiceKey::Mark { ipv6: address.is_ipv6(), mark },
    }
}

fn spec(service: &Service, address: IpAddr) -> ServiceSpec {
    let persistence = &service.persistence;
    let timeout = u32::try_from(persistence.timeout.as_secs()).unwrap_or(u32::MAX);
    let mut flags = service.flags.iter().fold(0, |flags, flag| flags | flag.bit());
    if timeout != 0 {
        flags |= ServiceSpec::PERSISTENT;
    }
    if service.one_packet {
        flags |= ServiceSpec::ONE_PACKET;
    }
    ServiceSpec {
        scheduler: service.scheduler.name().to_owned(),
        flags,
        timeout,
        netmask: match address {
            IpAddr::V4(_) => persistence.netmask.to_bits(),
            IpAddr::V6(_) => persistence.prefix.into(),
        },
        engine: persistence.engine.map(|engine| engine.name().to_owned()),
    }
}

fn destinations<'a>(
    lookup: &mut Lookup<'a>,
    service: &Service,
    pool: &'a Pool,
    vip: IpAddr,
) -> BTreeMap<SocketAddr, Destination> {
    serving::assess(lookup, service, pool, vip)
        .into_iter()
        .filter(|verdict| verdict.serving)
        .map(|verdict| {
            let real_server = &verdict.real_server;
            let destination = Destination {
                weight: real_server.weight,
                method: method(forwarding(service, real_server)),
                upper: real_server.upper_threshold,
                lower: real_server.lower_threshold,
            };
            (real_server.socket_addr(), destination)
        })
        .collect()
}

/// How packets of the service reach that real server.
fn forwarding(service: &Service, real_server: &RealServer) -> Forwarding {
    real_server.forwarding.unwrap_or(service.forwarding)
}

const fn method(forwarding: Forwarding) -> Method {
    match forwarding {
        Forwarding::Dr => Method::Route,
        Forwarding::Nat => Method::Masq,
        Forwarding::Tunnel(encapsulation) => Method::Tunnel(encapsulation),
    }
}

impl RealServerSide {
    /// A number that two sides share if and only if (but for a chance of 2^-64) they are equal: FNV-1a over their canonical bytes. Part of
    /// log entries, so it never changes its meaning.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hash = Fnv1a::new();
        hash.update(b"lvsmesh real server side 1");
        for address in &self.addresses {
            hash.address(*address);
        }
        for (name, least) in &self.sysctls {
            hash.update(b"s");
            hash.update(name.0.as_bytes());
            hash.update(&[0]);
            hash.update(&least.to_be_bytes());
        }
        // What came later adds nothing where it is empty: sides that need none of it keep the digest that they had.
        let Paths { tunnels, ports, rules, routes } = &self.paths;
        for (name, Tunnel { kind, local, number: _, checksum, ipv4, ipv6 }) in tunnels {
            hash.update(b"t");
            hash.update(name.as_bytes());
            hash.update(&[0]);
            hash.update(kind.name().as_bytes());
            hash.update(&[0]);
            hash.address(*local);
            hash.update(&[u8::from(*checksum), u8::from(*ipv4), u8::from(*ipv6)]);
        }
        for GuePort { ipv6, port } in ports {
            hash.update(b"g");
            hash.update(&[u8::from(*ipv6)]);
            hash.update(&port.to_be_bytes());
        }
        for Rule { source, protocol, first, last, table } in rules {
            hash.update(b"r");
            hash.address(*source);
            hash.update(&[protocol.number()]);
            hash.update(&first.to_be_bytes());
            hash.update(&last.to_be_bytes());
            hash.update(&table.to_be_bytes());
        }
        for Route { table, gateway } in routes {
            hash.update(b"d");
            hash.update(&table.to_be_bytes());
            hash.address(*gateway);
        }
        hash.0
    }

    /// Whether everything that `part` needs is in it, sysctls aside, which follow from the addresses.
    fn covers(&self, part: &Self) -> bool {
        self.addresses.is_superset(&part.addresses) && self.paths.covers(&part.paths)
    }
}

/// Fowler, Noll and Vo's hash 1a of 64 bits: no secret, the same on every machine and in every version.
pub(crate) struct Fnv1a(pub(crate) u64);

impl Fnv1a {
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                self.update(&[4]);
                self.update(&address.octets());
            }
            IpAddr::V6(address) => {
                self.update(&[6]);
                self.update(&address.octets());
            }
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests;
