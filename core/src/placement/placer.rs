//! Placing again: after a change, only what it can have touched is decided anew.
//!
//! A service's part of the table follows from the service, its VIP group and pool, what was discovered, probed and reported about the pool's
//! real servers, and what their nodes must have in place, for which the whole document counts. So a service keeps its part while all of
//! these are as they were; where nodes' sides may have changed, or members, VIP groups or the fleet's settings have, everything is placed anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::lookup::{ByName, Lookup, Sides};
use super::{
    NodePlan, director_side, forwarding, host, key, place_all, real_servers, virtual_services,
};
use crate::model::{Document, Forwarding, NodeId, Pool, RealServer, Service};
use crate::plan::{Extent, ServiceKey, Sysctl, Table, Want};
use crate::state::State;

/// One node's plan, kept up to date: [`place`](super::place()) for whoever asks again and again.
#[derive(Clone, Debug)]
pub struct Placer {
    own: NodeId,
    last: Option<Last>,
}

/// What the last placing was made from, and what it gave.
#[derive(Clone, Debug)]
struct Last {
    state: Arc<State>,
    holding: bool,
    plan: Arc<NodePlan>,
    sides: Option<Sides>,
    /// What translated services ask of a director.
    routing: Routing,
    /// Nodes whose report was about something else than their side: what that says of them depends on which revisions are remembered.
    unconfirmed: BTreeSet<NodeId>,
}

type Routing = BTreeMap<Sysctl, Want>;

/// What a plan has that it did not have before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Services that were added, changed or removed: all that differ, and no others unless there was no plan before.
    pub services: Extent,
    /// Something beside the table and the revision differs.
    pub others: bool,
    /// It comes from another revision.
    pub revision: bool,
}

impl Change {
    /// No change.
    #[must_use]
    pub const fn none() -> Self {
        Self { services: Extent::NONE, others: false, revision: false }
    }

    /// Adds what changed after this.
    pub fn and(&mut self, later: Self) {
        self.services.add(later.services);
        self.others |= later.others;
        self.revision |= later.revision;
    }

    /// Whether the plan is the same.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.services.is_empty() && !self.others && !self.revision
    }
}

impl Placer {
    /// For that node; nothing is placed yet.
    #[must_use]
    pub const fn new(own: NodeId) -> Self {
        Self { own, last: None }
    }

    /// The plan as of the last [`Self::update`]; an empty one before the first. A caller that keeps it makes the next update copy it.
    #[must_use]
    pub fn plan(&self) -> Arc<NodePlan> {
        self.last.as_ref().map(|last| Arc::clone(&last.plan)).unwrap_or_default()
    }

    /// Makes the plan what [`place`](super::place()) gives for that state, and says what differs.
    pub fn update(&mut self, state: &Arc<State>, holding: bool) -> Change {
        if let Some(last) = &mut self.last
            && let Some(change) = last.follow(self.own, state, holding)
        {
            return change;
        }
        let mut lookup = Lookup::new(state);
        let plan = Arc::new(place_all(&mut lookup, self.own, holding));
        let routing = host::routing(state, &lookup.names);
        let (sides, reported) = lookup.findings();
        let unconfirmed = reported.into_iter().filter(|(_, current)| !current);
        let unconfirmed = unconfirmed.map(|(node, _)| node).collect();
        let change = self.last.as_ref().map_or(
            Change { services: Extent::All, others: true, revision: true },
            |last| Change {
                services: Extent::Only(difference(&last.plan.table, &plan.table)),
                others: differ_beside_table(&last.plan, &plan),
                revision: last.plan.revision != plan.revision,
            },
        );
        let state = Arc::clone(state);
        self.last = Some(Last { state, holding, plan, sides, routing, unconfirmed });
        change
    }
}

/// Keys of the services in which two tables differ.
fn difference(one: &Table, other: &Table) -> BTreeSet<ServiceKey> {
    let missing = one.keys().filter(|key| !other.contains_key(key));
    let changed = other.iter().filter(|(key, service)| one.get(key) != Some(service));
    missing.chain(changed.map(|(key, _)| key)).copied().collect()
}

fn differ_beside_table(one: &NodePlan, other: &NodePlan) -> bool {
    let NodePlan { revision: _, table: _, real_server, director, vips } = one;
    *real_server != other.real_server || *director != other.director || *vips != other.vips
}

impl Last {
    /// Follows a change that touches services one by one. `None`: it may touch more; then the plan is as it was, and has to be made anew.
    fn follow(&mut self, own: NodeId, state: &Arc<State>, holding: bool) -> Option<Change> {
        let before = Arc::clone(&self.state);
        let (was, is) = (before.document(), state.document());
        // On a node that forwards for what is on its own `lo`, holding counts for every service.
        let same = (holding == self.holding || self.plan.real_server.addresses.is_empty())
            && before.members().eq(state.members())
            && was.vips == is.vips
            && was.fleet == is.fleet;
        let director = state.member(own).filter(|_| same)?.is_director();

        let known = is_followed(state, was);
        let services = Services { was: ByName::new(&was.services), is: ByName::new(&is.services) };
        let pools = Pools { was: ByName::new(&was.pools), is: ByName::new(&is.pools) };
        let touched = self.touched_pools(&before, state, &pools);
        let same_document = Arc::ptr_eq(was, is);
        if same_document && touched.is_empty() {
            return Some(self.conclude(state, holding, director, Table::new(), &BTreeSet::new()));
        }
        // As they were, for the services; of the others the pool tells.
        let unchanged = |old: Option<&Service>, service: &Service| match known {
            Some((_, changed)) => !changed.contains(&service.name),
            None => same_document || old == Some(service),
        };

        // Real servers that are nodes: what they need in place is not one service's affair.
        let mut lookup = Lookup::knowing(state, self.sides.take());
        let managed = lookup.managed();
        let mut old_keys: BTreeSet<ServiceKey> = BTreeSet::new();
        let mut table = Table::new();
        let mut suspects: Vec<(usize, &Service)> = Vec::new();
        let mut translates = false;
        for (index, service) in is.services.iter().enumerate() {
            let old = services.was.near(index, &service.name);
            if unchanged(old, service) && !touched.contains(service.pool.as_str()) {
                continue;
            }
            let pool = pools.is.near(index, &service.pool)?;
            let bound = Bound::of(state, service, pool, &managed);
            translates |= host::translates(state, service, pool);
            match old {
                Some(old) => {
                    let pool = pools.was.near(index, &old.pool)?;
                    translates |= host::translates(&before, old, pool);
                    let was_bound = Bound::of(&before, old, pool, &managed);
                    let unbound = bound.is_none() && was_bound.is_none();
                    if !unbound && (old != service || bound != was_bound) {
                        return None;
                    }
                    old_keys.extend(keys(&before, old));
                }
                None if bound.is_some() => return None,
                None => {}
            }
            suspects.push((index, service));
        }
        for (index, old) in was.services.iter().enumerate() {
            if same_document || services.is.near(index, &old.name).is_some() {
                continue;
            }
            let pool = pools.was.near(index, &old.pool)?;
            if Bound::of(&before, old, pool, &managed).is_some() {
                return None;
            }
            translates |= host::translates(&before, old, pool);
            old_keys.extend(keys(&before, old));
        }

        if director {
            let side = &self.plan.real_server;
            for (index, service) in suspects {
                let (vip, pool) = lookup.names.parts(index, service)?;
                table.extend(virtual_services(&mut lookup, service, vip, pool, holding, side));
            }
        }
        if translates {
            self.routing = host::routing(state, &lookup.names);
        }
        let (sides, reported) = lookup.findings();
        self.sides = sides;
        for (node, current) in reported {
            match current {
                true => self.unconfirmed.remove(&node),
                false => self.unconfirmed.insert(node),
            };
        }
        Some(self.conclude(state, holding, director, table, &old_keys))
    }

    /// Puts new parts in the place of old ones.
    fn conclude(
        &mut self,
        state: &Arc<State>,
        holding: bool,
        director: bool,
        table: Table,
        old_keys: &BTreeSet<ServiceKey>,
    ) -> Change {
        let plan = Arc::make_mut(&mut self.plan);
        let mut changed = BTreeSet::new();
        for key in old_keys.iter().filter(|key| !table.contains_key(key)) {
            if plan.table.remove(key).is_some() {
                changed.insert(*key);
            }
        }
        for (key, service) in table {
            if plan.table.get(&key) != Some(&service) {
                changed.insert(key);
                plan.table.insert(key, service);
            }
        }
        let mut others = false;
        let revision = plan.revision != state.revision();
        plan.revision = state.revision();
        if director {
            let director = director_side(state, holding, &plan.real_server, &self.routing);
            others |= plan.director != director;
            plan.director = director;
        }
        self.state = Arc::clone(state);
        self.holding = holding;
        Change { services: Extent::Only(changed), others, revision }
    }

    /// Names of the pools about whose real servers anything may be another than before.
    fn touched_pools<'a>(
        &self,
        before: &'a State,
        state: &'a State,
        pools: &Pools<'a>,
    ) -> BTreeSet<&'a str> {
        let (was, is) = (before.document(), state.document());
        let mut touched = BTreeSet::new();
        if !Arc::ptr_eq(was, is) {
            match is_followed(state, was) {
                Some((changed, _)) => touched.extend(changed.iter().map(String::as_str)),
                None => {
                    let changed = is.pools.iter().enumerate().filter(|(index, pool)| {
                        pools.was.near(*index, &pool.name).is_none_or(|old| old != *pool)
                    });
                    touched.extend(changed.map(|(_, pool)| pool.name.as_str()));
                }
            }
        }
        for (one, other) in [(before, state), (state, before)] {
            let discovered = one.discoveries().filter(|(pool, found)| {
                other.discovered(pool).map(|found| &found.real_servers) != Some(&found.real_servers)
            });
            touched.extend(discovered.map(|(pool, _)| pool));
            let faults = one.faults().filter(|(pool, real_server, fault)| {
                other.health_fault(pool, *real_server) != Some(fault)
            });
            touched.extend(faults.map(|(pool, ..)| pool));
        }
        let mut nodes = self.unconfirmed.clone();
        for (one, other) in [(before, state), (state, before)] {
            let reports =
                one.reports().filter(|report| other.readiness(report.node) != Some(report));
            nodes.extend(reports.map(|report| report.node));
        }
        let addresses: BTreeSet<IpAddr> = nodes
            .iter()
            .filter_map(|node| state.member(*node))
            .flat_map(|member| member.addresses.iter().copied())
            .collect();
        if !addresses.is_empty() {
            let with = is.pools.iter().filter(|pool| {
                real_servers(state, pool).iter().any(|real| addresses.contains(&real.address))
            });
            touched.extend(with.map(|pool| pool.name.as_str()));
        }
        touched
    }
}

/// Names of the pools and services that the document in force changed, if that is known of the one before.
fn is_followed<'a>(
    state: &'a State,
    was: &Arc<Document>,
) -> Option<(&'a BTreeSet<String>, &'a BTreeSet<String>)> {
    state.step().since(was)
}

struct Services<'a> {
    was: ByName<'a, Service>,
    is: ByName<'a, Service>,
}

struct Pools<'a> {
    was: ByName<'a, Pool>,
    is: ByName<'a, Pool>,
}

/// What a service's real servers that are nodes are asked to have in place follows from this, its VIP group and its own settings.
#[derive(PartialEq, Eq)]
struct Bound {
    real_servers: Vec<(RealServerPlace, Forwarding)>,
    /// Whether the pool has real servers of IPv4, of IPv6: those of the other version are behind an address only if it has none of its own.
    versions: [bool; 2],
}

type RealServerPlace = (IpAddr, u16);

impl Bound {
    /// `None`: none of them is a node.
    fn of(
        state: &State,
        service: &Service,
        pool: &Pool,
        managed: &BTreeSet<IpAddr>,
    ) -> Option<Self> {
        let all = real_servers(state, pool);
        let bound = |real: &&RealServer| managed.contains(&real.address);
        let place = |real: &RealServer| ((real.address, real.port), forwarding(service, real));
        let real_servers: Vec<_> = all.iter().filter(bound).map(place).collect();
        let has = |ipv6| all.iter().any(|real| real.address.is_ipv6() == ipv6);
        (!real_servers.is_empty()).then(|| Self { real_servers, versions: [has(false), has(true)] })
    }
}

fn keys(state: &State, service: &Service) -> Vec<ServiceKey> {
    let vip = state.document().vip(&service.vip);
    vip.map(|vip| vip.served().map(|address| key(service, address)).collect()).unwrap_or_default()
}
