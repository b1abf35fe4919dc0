//! What placing looks up again and again, by name and by address: a table of thousands of services is placed in one pass and not in one
//! pass for each of them.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{RealServerSide, real_server_side, real_server_sides};
use crate::model::{Document, Member, NodeId, Pool, Service, Vip};
use crate::state::State;

/// What every node needs in order to answer for a document; of members that may be real servers.
pub(super) type Sides = BTreeMap<NodeId, RealServerSide>;

/// What has a name that is unique in its list.
pub(super) trait Named {
    fn name(&self) -> &str;
}

impl Named for Vip {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for Pool {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for Service {
    fn name(&self) -> &str {
        &self.name
    }
}

/// A list by name. The index is made when it is first needed: whoever knows where a name probably stands may never need it.
pub(super) struct ByName<'a, T> {
    list: &'a [T],
    index: OnceCell<BTreeMap<&'a str, &'a T>>,
}

impl<'a, T: Named> ByName<'a, T> {
    pub(super) const fn new(list: &'a [T]) -> Self {
        Self { list, index: OnceCell::new() }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a T> {
        let index =
            self.index.get_or_init(|| self.list.iter().map(|item| (item.name(), item)).collect());
        index.get(name).copied()
    }

    /// As [`Self::get`]; at once if it stands at `place`.
    pub(super) fn near(&self, place: usize, name: &str) -> Option<&'a T> {
        self.list.get(place).filter(|item| item.name() == name).or_else(|| self.get(name))
    }
}

/// A document's VIP groups and pools by name.
pub(super) struct Names<'a> {
    vips: ByName<'a, Vip>,
    pools: ByName<'a, Pool>,
}

impl<'a> Names<'a> {
    pub(super) fn of(document: &'a Document) -> Self {
        Self { vips: ByName::new(&document.vips), pools: ByName::new(&document.pools) }
    }

    /// The VIP group and the pool of the document's service at `place`: documents often list a service and its pool at the same place.
    pub(super) fn parts(&self, place: usize, service: &Service) -> Option<(&'a Vip, &'a Pool)> {
        Some((self.vips.near(0, &service.vip)?, self.pools.near(place, &service.pool)?))
    }
}

/// The state in force, for one placing.
pub(super) struct Lookup<'a> {
    pub(super) state: &'a State,
    pub(super) names: Names<'a>,
    managers: BTreeMap<IpAddr, &'a Member>,
    /// By node, once it was asked for.
    reported: BTreeMap<NodeId, Reported>,
    /// Of all nodes, once one was asked for.
    sides: Option<Sides>,
}

/// What a node's last report is about.
pub(super) enum Reported {
    /// The side that the document in force asks for.
    Current,
    /// That of an earlier revision.
    Earlier(RealServerSide),
    /// Of no revision that is remembered.
    Unknown,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(state: &'a State) -> Self {
        Self::knowing(state, None)
    }

    /// With the sides that an earlier placing found, if they are still what the document asks for.
    pub(super) fn knowing(state: &'a State, sides: Option<Sides>) -> Self {
        let mut managers = BTreeMap::new();
        for member in state.members().filter(|member| member.is_real_server()) {
            for &address in &member.addresses {
                managers.entry(address).or_insert(member);
            }
        }
        let names = Names::of(state.document());
        Self { state, names, managers, reported: BTreeMap::new(), sides }
    }

    /// The node whose address that is, if it may be a real server.
    pub(super) fn manager(&self, address: IpAddr) -> Option<&'a Member> {
        self.managers.get(&address).copied()
    }

    /// What the document in force asks of that node, which may be a real server.
    pub(super) fn side(&mut self, node: &Member) -> &RealServerSide {
        let (state, names) = (self.state, &self.names);
        let sides = self.sides.get_or_insert_with(|| {
            real_server_sides(state, state.document(), names, state.members())
        });
        sides.entry(node.id).or_default()
    }

    /// What a report of that node with that digest is about; of several earlier revisions the newest.
    pub(super) fn reported(&mut self, node: &Member, digest: u64) -> &Reported {
        if !self.reported.contains_key(&node.id) {
            let reported = if self.side(node).digest() == digest {
                Reported::Current
            } else {
                earlier(self.state, node, digest).map_or(Reported::Unknown, Reported::Earlier)
            };
            self.reported.insert(node.id, reported);
        }
        &self.reported[&node.id]
    }

    /// What the next placing may go by: the sides, and of the nodes whose report was asked for whether it is about the side in force.
    pub(super) fn findings(self) -> (Option<Sides>, BTreeMap<NodeId, bool>) {
        let reported = self
            .reported
            .into_iter()
            .map(|(node, reported)| (node, matches!(reported, Reported::Current)));
        (self.sides, reported.collect())
    }

    /// Addresses of members that may be real servers.
    pub(super) fn managed(&self) -> BTreeSet<IpAddr> {
        self.managers.keys().copied().collect()
    }
}

fn earlier(state: &State, node: &Member, digest: u64) -> Option<RealServerSide> {
    state.history().rev().find_map(|revision| {
        let names = Names::of(&revision.document);
        let side = real_server_side(state, &revision.document, &names, node);
        (side.digest() == digest).then_some(side)
    })
}
