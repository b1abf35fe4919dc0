//! A draft gets names and becomes a document; what the document's own rules refuse is left out, and said.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use lvsmesh_core::document::{Fault, check, limits};
use lvsmesh_core::model::{
    Attach, Checksum, Coexist, Document, Garp, Listen, Peers, Pool, PoolSource, Protocol, Service,
    Vip, Vrrp, VrrpVersion,
};

use super::draft::{Draft, Entry, Group};
use super::fates::Fates;
use super::name;
use super::report::{Fate, Report};

/// What an import cannot find in what it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// Name of the fleet, as `lvs-agent init` was told.
    pub(crate) fleet: String,
    /// The interface of addresses that no VIP group has.
    pub(crate) interface: Option<String>,
    /// Virtual router id of such a group; the lowest that is free if none is given.
    pub(crate) vrid: Option<u8>,
}

/// Priority of a group that another program does not announce: the document's default.
const PRIORITY: u8 = 200;

/// Names everything and leaves out what cannot stand.
pub(crate) fn assemble(
    draft: Draft,
    names: &Names,
    fates: &mut Fates,
    report: &mut Report,
) -> Document {
    let Draft { mut fleet, mut groups, mut entries } = draft;
    fleet.name.clone_from(&names.fleet);
    homeless(&mut groups, &mut entries, names, fates);
    let mut made = build(groups, &entries, fates, report);
    made.document.fleet = fleet;
    prune(&mut made, fates, report);
    made.document
}

/// Gives addresses that no group has a group of their own, or leaves their services out.
fn homeless(groups: &mut Vec<Group>, entries: &mut Vec<Entry>, names: &Names, fates: &mut Fates) {
    let known: BTreeSet<IpAddr> =
        groups.iter().flat_map(|group| &group.addresses).map(|&(address, _)| address).collect();
    let Some(interface) = &names.interface else {
        entries.retain(|entry| {
            let Some(address) = entry.address else { return true };
            let at_home = known.contains(&address);
            if !at_home {
                let why = format!(
                    "no VIP group has {address}: say with --vip-interface on which interface the directors carry it"
                );
                fates.wrong(entry.listen, why.clone());
                fates.wrong(entry.origin, why);
            }
            at_home
        });
        return;
    };
    let mut addresses: Vec<(IpAddr, usize)> = Vec::new();
    let mut origin = None;
    for entry in entries.iter() {
        let Some(address) = entry.address else { continue };
        if !known.contains(&address) && addresses.iter().all(|&(other, _)| other != address) {
            addresses.push((address, entry.listen));
            origin = origin.or(Some(entry.origin));
        }
    }
    // One family in one group, as adverts carry them.
    let (v4, v6): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|(address, _)| address.is_ipv4());
    for (addresses, version) in [(v4, VrrpVersion::V2), (v6, VrrpVersion::V3)] {
        let (Some(origin), false) = (origin, addresses.is_empty()) else { continue };
        let vrid = names.vrid.unwrap_or(1);
        groups.push(Group {
            name: "imported".to_owned(),
            interface: interface.clone(),
            vrrp: Vrrp {
                vrid: free_vrid(groups, interface, vrid),
                version,
                advert_interval: Duration::from_secs(1),
                priority: PRIORITY,
                auth: None,
                checksum: Checksum::default(),
                coexist: Coexist::default(),
                peers: Peers::default(),
            },
            addresses,
            excluded: BTreeSet::new(),
            garp: Garp::default(),
            preference: Vec::new(),
            origin,
        });
    }
}

/// The first id from `from` on that no group of the interface has.
fn free_vrid(groups: &[Group], interface: &str, from: u8) -> u8 {
    let used: BTreeSet<u8> = groups
        .iter()
        .filter(|group| group.interface == interface)
        .map(|group| group.vrrp.vrid)
        .collect();
    (from..=u8::MAX).chain(1..from).find(|vrid| !used.contains(vrid)).unwrap_or(from)
}

/// A document with the statements that its objects come from.
#[derive(Debug, Default)]
struct Made {
    document: Document,
    vips: Vec<VipOrigin>,
    /// Statements of each pool's real servers.
    pools: Vec<Vec<Vec<usize>>>,
    /// Statements of each service.
    services: Vec<Vec<usize>>,
}

#[derive(Debug)]
struct VipOrigin {
    group: usize,
    addresses: Vec<usize>,
}

/// A service of ours is one on every address of its group. Addresses of one group with different services therefore become groups of their own.
fn build(groups: Vec<Group>, entries: &[Entry], fates: &mut Fates, report: &mut Report) -> Made {
    let mut made = Made::default();
    let mut vip_names = BTreeSet::new();
    let mut used = Used::default();
    let mut finished: Vec<Group> = Vec::new();
    let mut rest: VecDeque<Group> = groups.into();
    while let Some(group) = rest.pop_front() {
        for (index, part) in split(&group, entries).into_iter().enumerate() {
            let excluded = part.excluded;
            let mut group = Group { addresses: part.addresses, ..group.clone() };
            if index > 0 {
                let taken: Vec<Group> = finished.iter().chain(&rest).cloned().collect();
                group.vrrp.vrid = free_vrid(&taken, &group.interface, group.vrrp.vrid);
                let listed: Vec<String> =
                    group.addresses.iter().map(|(address, _)| address.to_string()).collect();
                report.remark(format!(
                    "{}: its addresses have different services, or are too many for one advert: {} became a VIP group with VRID {} of its own; no other router of \
                     that network may use it",
                    group.name,
                    listed.join(", "),
                    group.vrrp.vrid
                ));
            }
            let vip = name::unique(&group.name, "vip", &mut vip_names);
            made.vips.push(VipOrigin {
                group: group.origin,
                addresses: group.addresses.iter().map(|&(_, origin)| origin).collect(),
            });
            made.document.vips.push(Vip {
                name: vip.clone(),
                addresses: group.addresses.iter().map(|&(address, _)| address).collect(),
                excluded,
                interface: group.interface.clone(),
                attach: Attach::default(),
                preference: group.preference.clone(),
                garp: group.garp,
                arbiters: Vec::new(),
                vrrp: group.vrrp.clone(),
            });
            finished.push(group);
            for served in part.served {
                made.service(&vip, &served, &mut used);
            }
        }
    }
    made.marks(entries, &mut used, fates);
    made
}

/// Names that are taken.
#[derive(Debug, Default)]
struct Used {
    services: BTreeSet<String>,
    pools: BTreeSet<String>,
}

/// `web-80`, `web-53-udp`, `web-all`, `mark-7`.
fn service_name(vip: &str, service: &Service) -> String {
    let (protocol, port) = match &service.listen {
        Listen::Mark { mark, .. } => return format!("mark-{mark}"),
        Listen::Port { protocol, port: 0 } => (*protocol, "all".to_owned()),
        Listen::Port { protocol, port } => (*protocol, port.to_string()),
    };
    match protocol {
        Protocol::Tcp => format!("{vip}-{port}"),
        Protocol::Udp | Protocol::Sctp => format!("{vip}-{port}-{}", protocol.name()),
    }
}

impl Made {
    /// Adds the service of some entries, which are alike, to a VIP group.
    fn service(&mut self, vip: &str, served: &[&Entry], used: &mut Used) {
        let Some(entry) = served.first() else { return };
        let origins: BTreeSet<usize> =
            served.iter().flat_map(|entry| [entry.origin, entry.listen]).collect();
        let wanted = service_name(vip, &entry.service);
        let pool = self.pool(served, &wanted, &mut used.pools);
        self.services.push(origins.into_iter().collect());
        self.document.services.push(Service {
            name: name::unique(&wanted, "service", &mut used.services),
            vip: vip.to_owned(),
            pool,
            ..entry.service.clone()
        });
    }

    /// Services of firewall marks have no address; they go to the first VIP group, with which all others move.
    fn marks(&mut self, entries: &[Entry], used: &mut Used, fates: &mut Fates) {
        for entry in entries.iter().filter(|entry| entry.address.is_none()) {
            let Some(vip) = self.document.vips.first().map(|vip| vip.name.clone()) else {
                let why = "a firewall mark's service belongs to a VIP group, and there is none";
                fates.unsupported(entry.origin, why);
                fates.unsupported(entry.listen, why);
                continue;
            };
            if self.document.vips.len() > 1 {
                let why = format!("the service belongs to VIP group {vip}, with which all move");
                fates.changed(entry.listen, why);
            }
            self.service(&vip, &[entry], used);
        }
    }

    /// The pool of some entries, which are alike: one that is there already, or a new one.
    fn pool(&mut self, served: &[&Entry], wanted: &str, names: &mut BTreeSet<String>) -> String {
        let Some(entry) = served.first() else { return String::new() };
        let alike = |pool: &Pool| Pool { name: String::new(), ..pool.clone() } == entry.pool;
        let index = match self.document.pools.iter().position(alike) {
            Some(index) => index,
            None => {
                let name = name::unique(wanted, "pool", names);
                self.document.pools.push(Pool { name, ..entry.pool.clone() });
                self.pools.push(vec![Vec::new(); entry.real_servers.len()]);
                self.pools.len() - 1
            }
        };
        for entry in served {
            for (known, &origin) in self.pools[index].iter_mut().zip(&entry.real_servers) {
                if !known.contains(&origin) {
                    known.push(origin);
                }
            }
        }
        self.document.pools[index].name.clone()
    }
}

/// Addresses of one group that have the same services.
struct Part<'a> {
    addresses: Vec<(IpAddr, usize)>,
    /// How many of the last ones adverts do not name.
    excluded: usize,
    /// For each service, its entries, one for each address.
    served: Vec<Vec<&'a Entry>>,
}

fn split<'a>(group: &Group, entries: &'a [Entry]) -> Vec<Part<'a>> {
    let mut by_address: BTreeMap<IpAddr, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        if let Some(address) = entry.address {
            by_address.entry(address).or_default().push(entry);
        }
    }
    let mut parts: Vec<Part<'a>> = Vec::new();
    for &(address, origin) in &group.addresses {
        let served = by_address.get(&address).cloned().unwrap_or_default();
        let alike = |part: &&mut Part<'_>| {
            part.served.len() == served.len()
                && part.served.iter().zip(&served).all(|(known, entry)| {
                    known.first().is_some_and(|known| {
                        known.service == entry.service && known.pool == entry.pool
                    })
                })
        };
        match parts.iter_mut().find(alike) {
            Some(part) => {
                part.addresses.push((address, origin));
                for (known, entry) in part.served.iter_mut().zip(served) {
                    known.push(entry);
                }
            }
            None => parts.push(Part {
                addresses: vec![(address, origin)],
                excluded: 0,
                served: served.into_iter().map(|entry| vec![entry]).collect(),
            }),
        }
    }
    parts.into_iter().flat_map(|part| part.in_adverts(&group.excluded)).collect()
}

impl Part<'_> {
    /// The same in pieces that one advert can name. Where nothing is left to be named, what was excluded is.
    fn in_adverts(mut self, excluded: &BTreeSet<IpAddr>) -> Vec<Self> {
        let most = *limits::VIP_ADDRESSES.end();
        self.addresses.sort_by_key(|(address, _)| excluded.contains(address));
        let named = self.addresses.iter().filter(|(it, _)| !excluded.contains(it)).count();
        let unnamed = self.addresses.len() - named;
        if limits::VIP_ADDRESSES.contains(&named) && limits::EXCLUDED.contains(&unnamed) {
            return vec![Part { excluded: unnamed, ..self }];
        }
        let pieces = self.addresses.chunks(most).enumerate();
        pieces
            .map(|(index, addresses)| Part {
                addresses: addresses.to_vec(),
                excluded: 0,
                served: self
                    .served
                    .iter()
                    .map(|entries| entries.iter().skip(index * most).take(most).copied().collect())
                    .collect(),
            })
            .collect()
    }
}

/// Leaves out what the document's rules refuse, until what is left keeps them all.
fn prune(made: &mut Made, fates: &mut Fates, report: &mut Report) {
    loop {
        made.drop_unused_pools();
        let faults = check(&made.document);
        // The last first: then no index changes under those before it.
        let Some((target, fault)) =
            faults.iter().filter_map(|fault| Some((target(&fault.path)?, fault))).next_back()
        else {
            for fault in faults {
                report.remark(format!("the document has a fault: {fault}"));
            }
            return;
        };
        let fault = fault.clone();
        made.leave_out(&target, &fault, fates, report);
    }
}

/// An object that a fault is about.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Vip(usize),
    Address(usize, usize),
    /// One of those that adverts do not name.
    Excluded(usize, usize),
    Pool(usize),
    RealServer(usize, usize),
    Service(usize),
}

fn target(path: &str) -> Option<Target> {
    let (list, rest) = path.split_once('[')?;
    let (index, rest) = rest.split_once(']')?;
    let index: usize = index.parse().ok()?;
    let inner = |list: &str| -> Option<usize> {
        let (index, _) = rest.strip_prefix(list)?.split_once(']')?;
        index.parse().ok()
    };
    match list {
        "vips" => {
            let address = inner(".addresses[").map(|at| Target::Address(index, at));
            let excluded = || inner(".excluded[").map(|at| Target::Excluded(index, at));
            address.or_else(excluded).or(Some(Target::Vip(index)))
        }
        "pools" => Some(
            inner(".real_servers[").map_or(Target::Pool(index), |at| Target::RealServer(index, at)),
        ),
        "services" => Some(Target::Service(index)),
        _ => None,
    }
}

impl Made {
    fn drop_unused_pools(&mut self) {
        let mut index = 0;
        while index < self.document.pools.len() {
            let name = &self.document.pools[index].name;
            if self.document.services.iter().any(|service| service.pool == *name) {
                index += 1;
            } else {
                self.document.pools.remove(index);
                self.pools.remove(index);
            }
        }
    }

    fn leave_out(
        &mut self,
        target: &Target,
        fault: &Fault,
        fates: &mut Fates,
        report: &mut Report,
    ) {
        let Fault { message, hint, .. } = fault;
        let why = hint.as_ref().map_or(message.clone(), |hint| format!("{message}; {hint}"));
        let mut say = |origins: &[usize], what: &str| {
            for &origin in origins {
                fates.set(origin, Fate::Unsupported, format!("{what} left out: {why}"));
            }
        };
        match *target {
            Target::Vip(vip) => {
                let gone = self.document.vips.remove(vip);
                let origin = self.vips.remove(vip);
                say(&[origin.group], "VIP group");
                say(&origin.addresses, "VIP group");
                self.leave_services_of(&gone.name, &why, fates);
                report.remark(format!("VIP group {} is left out: {why}", gone.name));
            }
            Target::Excluded(vip, at) => {
                let group = &mut self.document.vips[vip];
                let at = group.advertised().len() + at;
                group.addresses.remove(at);
                group.excluded -= 1;
                say(&[self.vips[vip].addresses.remove(at)], "address");
            }
            Target::Address(vip, at) => {
                if self.document.vips[vip].addresses.len() == 1 {
                    say(&[self.vips[vip].addresses[at]], "address");
                    let gone = self.document.vips.remove(vip);
                    self.vips.remove(vip);
                    self.leave_services_of(&gone.name, &why, fates);
                } else {
                    self.document.vips[vip].addresses.remove(at);
                    let origin = self.vips[vip].addresses.remove(at);
                    say(&[origin], "address");
                }
            }
            Target::Pool(pool) => {
                let name = self.document.pools[pool].name.clone();
                let users = |service: &Service| service.pool == name;
                while let Some(service) = self.document.services.iter().position(users) {
                    self.document.services.remove(service);
                    say(&self.services.remove(service), "service");
                }
            }
            Target::RealServer(pool, at) => {
                let PoolSource::Listed(listed) = &mut self.document.pools[pool].source else {
                    return;
                };
                if at < listed.len() {
                    listed.remove(at);
                }
                say(&self.pools[pool].remove(at), "real server");
            }
            Target::Service(service) => {
                self.document.services.remove(service);
                say(&self.services.remove(service), "service");
            }
        }
    }

    fn leave_services_of(&mut self, vip: &str, why: &str, fates: &mut Fates) {
        while let Some(at) = self.document.services.iter().position(|service| service.vip == vip) {
            self.document.services.remove(at);
            for origin in self.services.remove(at) {
                fates.set(origin, Fate::Unsupported, format!("service left out: {why}"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
