//! What placing looks up again and again, by name and by address: a table of thousands of services is placed in one pass and not in one
//! pass for each of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{RealServerSide, real_server_side};
use crate::model::{Document, Member, NodeId, Pool, Vip};
use crate::state::State;

/// A document's VIP groups and pools by name.
pub(super) struct Names<'a> {
    vips: BTreeMap<&'a str, &'a Vip>,
    pools: BTreeMap<&'a str, &'a Pool>,
}

impl<'a> Names<'a> {
    pub(super) fn of(document: &'a Document) -> Self {
        Self {
            vips: document.vips.iter().map(|vip| (vip.name.as_str(), vip)).collect(),
            pools: document.pools.iter().map(|pool| (pool.name.as_str(), pool)).collect(),
        }
    }

    pub(super) fn vip(&self, name: &str) -> Option<&'a Vip> {
        self.vips.get(name).copied()
    }

    pub(super) fn pool(&self, name: &str) -> Option<&'a Pool> {
        self.pools.get(name).copied()
    }
}

/// The state in force, for one placing.
pub(super) struct Lookup<'a> {
    pub(super) state: &'a State,
    pub(super) names: Names<'a>,
    managers: BTreeMap<IpAddr, &'a Member>,
    /// By node, once it was asked for.
    reported: BTreeMap<NodeId, Reported>,
    /// Likewise.
    sides: BTreeMap<NodeId, RealServerSide>,
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
        let mut managers = BTreeMap::new();
        for member in state.members().filter(|member| member.is_real_server()) {
            for &address in &member.addresses {
                managers.entry(address).or_insert(member);
            }
        }
        let names = Names::of(state.document());
        Self { state, names, managers, reported: BTreeMap::new(), sides: BTreeMap::new() }
    }

    /// The node whose address that is, if it may be a real server.
    pub(super) fn manager(&self, address: IpAddr) -> Option<&'a Member> {
        self.managers.get(&address).copied()
    }

    /// What the document in force asks of that node.
    pub(super) fn side(&mut self, node: &Member) -> &RealServerSide {
        let (state, names) = (self.state, &self.names);
        self.sides
            .entry(node.id)
            .or_insert_with(|| real_server_side(state, state.document(), names, node))
    }

    /// What a report of that node with that digest is about; of several earlier revisions the newest.
    pub(super) fn reported(&mut self, node: &Member, digest: u64) -> &Reported {
        let (state, names) = (self.state, &self.names);
        self.reported.entry(node.id).or_insert_with(|| {
            if real_server_side(state, state.document(), names, node).digest() == digest {
                return Reported::Current;
            }
            let earlier = state.history().rev().find_map(|revision| {
                let names = Names::of(&revision.document);
                let earlier = real_server_side(state, &revision.document, &names, node);
                (earlier.digest() == digest).then_some(earlier)
            });
            earlier.map_or(Reported::Unknown, Reported::Earlier)
        })
    }
}
