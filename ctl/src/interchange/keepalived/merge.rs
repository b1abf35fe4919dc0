//! Several directors' configurations become one: what they say alike once, what they say otherwise by the first, and said.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lvsmesh_core::document::limits;
use lvsmesh_core::model::{Document, Fleet, Garp, Peers, text};
use lvsmesh_core::state::changes;

use super::take::{Director, Instance};
use super::{Places, translate};
use crate::interchange::draft::{Draft, Entry, Group};
use crate::interchange::fates::Fates;
use crate::interchange::name;
use crate::interchange::report::Report;

pub(super) fn merge(
    mut directors: Vec<Director>,
    places: &Places,
    fates: &mut Fates,
    report: &mut Report,
) -> Draft {
    name_directors(&mut directors, fates, report);
    let several = directors.len() > 1;
    let mut groups: Vec<Gathered> = Vec::new();
    let mut entries: Vec<Entry> = Vec::new();
    for (index, director) in directors.iter().enumerate() {
        for instance in &director.instances {
            let holder =
                Holder { index, priority: instance.vrrp.priority, name: director.name.clone() };
            gather(instance, holder, &mut groups, places, fates);
        }
        for virtual_server in &director.virtuals {
            for entry in translate::entries(virtual_server, fates) {
                add(entry, &mut entries, places, fates);
            }
        }
    }
    if several {
        missing(&directors, &groups, report);
    }
    let fleet = translate::fleet(&directors, places, fates);
    let groups = groups.into_iter().flat_map(Gathered::finish).collect();
    Draft { fleet, groups, entries }
}

/// Gives directors the names that their `router_id`s make, if those are different.
fn name_directors(directors: &mut [Director], fates: &mut Fates, report: &mut Report) {
    let ids: Vec<Option<String>> = directors
        .iter()
        .map(|director| director.router_id.as_ref().map(|(id, _)| name::of(id)))
        .collect();
    for index in 0..directors.len() {
        let Some(id) = ids[index].clone() else { continue };
        let unique = ids.iter().filter(|other| other.as_ref() == Some(&id)).count() == 1;
        let director = &mut directors[index];
        let Some((_, node)) = director.router_id else { continue };
        match &director.name {
            Some(name) => fates.changed(node, format!("the director is `{name}`")),
            None if unique && text::is_name(&id) => {
                fates.changed(node, format!("the director is taken to be `{id}`"));
                director.name = Some(id);
            }
            None => fates.changed(node, "names no director: another file has the same"),
        }
    }
    if directors.iter().any(|director| director.name.is_none()) && directors.len() > 1 {
        report.remark(
            "the directors have no names, so `vips[].preference` is empty and the one with the lowest id is preferred; \
             name them with --node NAME=FILE",
        );
    }
}

/// One VIP group as the directors so far have it.
struct Gathered {
    /// As the first director has it.
    instance: Instance,
    directors: Vec<Holder>,
    /// Where the directors' adverts come from, as far as they say.
    sources: BTreeSet<IpAddr>,
}

/// A director that has a VIP group.
struct Holder {
    index: usize,
    priority: u8,
    name: Option<String>,
}

fn gather(
    instance: &Instance,
    holder: Holder,
    groups: &mut Vec<Gathered>,
    places: &Places,
    fates: &mut Fates,
) {
    // An IPv4 and an IPv6 instance may share a VRID.
    let ipv6 = |of: &Instance| of.addresses.first().is_some_and(|it| it.address.is_ipv6());
    let same = |group: &&mut Gathered| {
        let known = &group.instance;
        (known.vrrp.vrid, ipv6(known)) == (instance.vrrp.vrid, ipv6(instance))
            && (known.interface == instance.interface || known.name == instance.name)
            && group.directors.iter().all(|other| other.index != holder.index)
    };
    let Some(group) = groups.iter_mut().find(same) else {
        let sources = instance.source.into_iter().collect();
        groups.push(Gathered { instance: instance.clone(), directors: vec![holder], sources });
        return;
    };
    group.directors.push(holder);
    group.sources.extend(instance.source);
    let known = &mut group.instance;
    let first = places.name(known.origin);
    let mut differences = Vec::new();
    let mut note = |what: &str, here: String, there: String| {
        if here != there {
            differences
                .push(format!("{what} is {here} here and {there} at {first}, which is taken"));
        }
    };
    note("the interface", instance.interface.clone(), known.interface.clone());
    let number = |instance: &Instance| instance.vrrp.version.number().to_string();
    note("the version", number(instance), number(known));
    let interval = |instance: &Instance| text::duration(instance.vrrp.advert_interval);
    note("advert_int", interval(instance), interval(known));
    let peers = |instance: &Instance| instance.vrrp.peers.name().to_owned();
    note("the kind of peers", peers(instance), peers(known));
    let garp = |instance: &Instance| {
        let Garp { repeat, refresh, interval } = instance.garp;
        let [refresh, interval] = [refresh, interval].map(text::duration);
        format!("{repeat} times, again after {refresh}, {interval} apart")
    };
    note("gratuitous ARP", garp(instance), garp(known));
    if instance.vrrp.auth != known.vrrp.auth {
        differences.push(format!("the authentication is another at {first}, which is taken"));
    }
    if let (Peers::Unicast(here), Peers::Unicast(there)) =
        (&instance.vrrp.peers, &mut known.vrrp.peers)
    {
        there.extend(here.iter().filter(|peer| !there.contains(peer)).copied().collect::<Vec<_>>());
    }
    for address in &instance.addresses {
        let at = known.addresses.iter().any(|other| other.address == address.address);
        if !at {
            fates.changed(address.origin, format!("not in the instance at {first}: added to it"));
            known.addresses.push(address.clone());
        }
    }
    for address in &known.addresses {
        let at = instance.addresses.iter().any(|other| other.address == address.address);
        if !at {
            differences.push(format!("{} is in the instance at {first} only", address.address));
        }
    }
    if !differences.is_empty() {
        fates.changed(instance.origin, differences.join("; "));
    }
}

impl Gathered {
    /// The group on its interface, and one more for each other interface that some of its addresses are on.
    fn finish(mut self) -> Vec<Group> {
        // The highest first; directors of one priority in the order of their files.
        self.directors.sort_by_key(|holder| std::cmp::Reverse(holder.priority));
        let mut vrrp = self.instance.vrrp.clone();
        vrrp.priority = self.directors.first().map_or(vrrp.priority, |holder| holder.priority);
        let preference: Vec<String> =
            self.directors.into_iter().filter_map(|holder| holder.name).collect();
        let Instance { name, interface, addresses, garp, origin, .. } = self.instance;
        if let Peers::Unicast(listed) = &mut vrrp.peers {
            // Directors are known without that.
            listed.retain(|peer| !self.sources.contains(peer));
            listed.truncate(*limits::UNICAST_PEERS.end());
        }
        let mut groups: Vec<Group> = Vec::new();
        for address in addresses {
            let on = address.interface.unwrap_or_else(|| interface.clone());
            let member = (address.address, address.origin);
            match groups.iter_mut().find(|group| group.interface == on) {
                Some(group) => {
                    group.addresses.push(member);
                    group.excluded.extend(address.excluded.then_some(address.address));
                }
                None => groups.push(Group {
                    name: if on == interface { name.clone() } else { format!("{name}-{on}") },
                    interface: on,
                    vrrp: vrrp.clone(),
                    addresses: vec![member],
                    excluded: address.excluded.then_some(address.address).into_iter().collect(),
                    garp,
                    preference: preference.clone(),
                    origin,
                }),
            }
        }
        groups
    }
}

/// Says which director lacks which group.
fn missing(directors: &[Director], groups: &[Gathered], report: &mut Report) {
    for group in groups {
        if group.directors.len() < directors.len() {
            let name = &group.instance.name;
            let (has, all) = (group.directors.len(), directors.len());
            report.remark(format!("vrrp_instance {name} is in {has} of {all} files"));
        }
    }
}

/// Adds a service unless it is there; if it is there otherwise, says how.
fn add(entry: Entry, entries: &mut Vec<Entry>, places: &Places, fates: &mut Fates) {
    let same = |known: &&Entry| {
        known.address == entry.address && known.service.listen == entry.service.listen
    };
    let Some(known) = entries.iter().find(same) else {
        entries.push(entry);
        return;
    };
    let differences = differences(known, &entry);
    if !differences.is_empty() {
        let first = places.name(known.origin);
        let text = differences.join("; ");
        fates.changed(entry.origin, format!("{first} is taken instead; here it differs: {text}"));
    }
}

fn differences(one: &Entry, other: &Entry) -> Vec<String> {
    let document = |entry: &Entry| Document {
        fleet: Fleet::default(),
        vips: Vec::new(),
        pools: vec![entry.pool.clone()],
        services: vec![entry.service.clone()],
    };
    changes(&document(one), &document(other))
        .into_iter()
        .map(|line| line.split_once(": ").map_or(line.clone(), |(_, what)| what.to_owned()))
        .collect()
}
