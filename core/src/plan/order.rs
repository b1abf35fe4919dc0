//! Which operation must precede which.
//!
//! 1. Sysctls up: a VIP on `lo` without them answers ARP for the whole segment. Then tunnels' ends and ways back: a real server that gets
//!    packets must be able to take and to answer them.
//! 2. The table: services added and changed, real servers added and changed, real servers drained and removed, services removed; each for
//!    the whole table at once, because the operations of one kind do not depend on one another and can be on their way together. In the middle
//!    the marks: a packet with a mark that no service takes is refused by the machine itself. Before the addresses, because a machine that forwards for a VIP that is also on its `lo` sends packets round in circles.
//! 3. The synchronisation daemon: the one of the other role is stopped before one is started, because the kernel refuses it while a table
//!    has real servers of another family than their service, and because never both run.
//! 4. Addresses added, then addresses removed.
//! 5. Ways back and tunnels' ends taken away; sysctls given back, when no VIP needs them any more.

use std::collections::BTreeMap;

use super::address::{HostDiff, LOOPBACK, guards_arp};
use super::globals::GlobalsDiff;
use super::ipvs::TableDiff;
use super::marks::MarksDiff;
use super::path::{PathAction, PathDiff};
use super::{Action, Op, Owned, Plan, ServiceKey};

/// Puts the operations of all parts into one order.
#[must_use]
pub fn assemble(
    table: TableDiff,
    host: HostDiff,
    globals: GlobalsDiff,
    paths: PathDiff,
    marks: MarksDiff,
) -> Plan {
    let stages = [
        host.raises,
        paths.prepare,
        globals.timeouts,
        table.services,
        table.additions,
        marks.ops,
        table.reductions,
        table.removals,
        globals.stops,
        globals.starts,
        host.additions,
        host.removals,
        paths.clear,
        host.restores,
    ];
    Plan {
        ops: stages.into_iter().flatten().collect(),
        record: Owned {
            services: table.record,
            addresses: host.record_addresses,
            sysctls: host.record_sysctls,
            timeouts: globals.record_timeouts,
            daemons: globals.record_daemons,
            paths: paths.record,
            marks: marks.record,
        },
        settled: Owned {
            services: table.settled,
            addresses: host.settled_addresses,
            sysctls: host.settled_sysctls,
            timeouts: globals.settled_timeouts,
            daemons: globals.settled_daemons,
            paths: paths.settled,
            marks: marks.settled,
        },
        withheld: [host.withheld, globals.withheld, paths.withheld, marks.withheld].concat(),
        foreign: table.foreign,
    }
}

/// Cuts a plan's operations into runs of which no operation [`blocks`] another: those of one run can be on their way to the kernel together,
/// and each run waits for the one before it.
pub fn batches(ops: &[Op]) -> impl Iterator<Item = &[Op]> {
    ops.chunk_by(|one, other| stage(&one.action) == stage(&other.action))
}

/// What an action is a step of; no action [`blocks`] another of its own stage.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Sysctls,
    Timeouts,
    StopDaemons,
    StartDaemons,
    Services,
    Additions,
    Marks,
    Reductions,
    Removals,
    AddAddresses,
    RemoveAddresses,
    Ports,
    TunnelRemovals,
    TunnelAdditions,
    Rules,
    RouteRemovals,
    RouteAdditions,
}

const fn stage(action: &Action) -> Stage {
    match action {
        Action::SetSysctl { .. } => Stage::Sysctls,
        Action::SetTimeout { .. } => Stage::Timeouts,
        Action::StopDaemon(_) => Stage::StopDaemons,
        Action::StartDaemon(_) => Stage::StartDaemons,
        Action::AddService(..) | Action::SetService(..) => Stage::Services,
        Action::SetDestination(_, _, destination) if destination.weight == 0 => Stage::Reductions,
        Action::AddDestination(..) | Action::SetDestination(..) => Stage::Additions,
        Action::RemoveDestination(..) => Stage::Reductions,
        Action::RemoveService(_) => Stage::Removals,
        Action::SetMarks(_) | Action::ClearMarks => Stage::Marks,
        Action::AddAddress { .. } => Stage::AddAddresses,
        Action::RemoveAddress { .. } => Stage::RemoveAddresses,
        Action::Path(action) => match action {
            PathAction::AddPort(_) | PathAction::RemovePort(_) => Stage::Ports,
            PathAction::RemoveTunnel(_) => Stage::TunnelRemovals,
            PathAction::AddTunnel(_) | PathAction::RaiseTunnel(_) => Stage::TunnelAdditions,
            PathAction::AddRule(_) | PathAction::RemoveRule(_) => Stage::Rules,
            PathAction::RemoveRoute(_) => Stage::RouteRemovals,
            PathAction::AddRoute(_) => Stage::RouteAdditions,
        },
    }
}

/// What has failed so far, to be asked about what comes next; the answer does not take longer the more services there are.
#[derive(Debug, Default)]
pub struct Failed<'a> {
    /// What blocks nothing but the same service's own.
    of_service: BTreeMap<ServiceKey, Vec<&'a Action>>,
    others: Vec<&'a Action>,
}

impl<'a> Failed<'a> {
    /// Takes note of an action that failed, or was not done because of one that had.
    pub fn note(&mut self, action: &'a Action) {
        match service_of(action) {
            Some(key) => self.of_service.entry(*key).or_default().push(action),
            None => self.others.push(action),
        }
    }

    /// The first of those that [`blocks`] this one.
    #[must_use]
    pub fn cause(&self, next: &Action) -> Option<&'a Action> {
        let own = service_of(next).and_then(|key| self.of_service.get(key));
        let own = own.into_iter().flatten();
        own.chain(&self.others).copied().find(|failed| blocks(failed, next))
    }
}

/// The service that an action is about, if all that it can block, and be blocked by, is about the same one. A removal is not such a one:
/// it blocks an address.
fn service_of(action: &Action) -> Option<&ServiceKey> {
    match action {
        Action::AddService(key, _)
        | Action::SetService(key, _)
        | Action::AddDestination(key, ..)
        | Action::SetDestination(key, ..)
        | Action::RemoveDestination(key, _) => Some(key),
        Action::RemoveService(_)
        | Action::AddAddress { .. }
        | Action::RemoveAddress { .. }
        | Action::SetSysctl { .. }
        | Action::SetTimeout { .. }
        | Action::StartDaemon(_)
        | Action::StopDaemon(_)
        | Action::Path(_)
        | Action::SetMarks(_)
        | Action::ClearMarks => None,
    }
}

/// Whether `next` must not be performed in this round because `failed`, which came before it, has failed.
///
/// ```
/// # use lvsmesh_core::plan::{Action, Sysctl, blocks};
/// let sysctl = Action::SetSysctl { name: Sysctl("net/ipv4/conf/all/arp_ignore".into()), value: 1 };
/// let address = Action::AddAddress { interface: "lo".into(), address: "192.0.2.1".parse().unwrap() };
/// assert!(blocks(&sysctl, &address));
/// assert!(!blocks(&address, &sysctl));
/// ```
#[must_use]
pub fn blocks(failed: &Action, next: &Action) -> bool {
    match failed {
        // A VIP on `lo` without the sysctls answers ARP.
        Action::SetSysctl { name, .. } => {
            guards_arp(name)
                && matches!(next, Action::AddAddress { interface, .. } if interface == LOOPBACK)
        }
        Action::RemoveAddress { interface, .. } => {
            interface == LOOPBACK
                && matches!(next, Action::SetSysctl { name, .. } if guards_arp(name))
        }
        // Nothing can be done to a device that is not there, and none be made where an old one stands.
        Action::Path(PathAction::AddTunnel(tunnel)) => is_about_link(next, &tunnel.name()),
        Action::Path(PathAction::RemoveTunnel(name)) => {
            matches!(next, Action::Path(PathAction::AddTunnel(tunnel)) if tunnel.name() == *name)
        }
        // A table has one default route.
        Action::Path(PathAction::RemoveRoute(route)) => {
            matches!(next, Action::Path(PathAction::AddRoute(other)) if other.table == route.table)
        }
        Action::AddService(failed, _) => destination_of(next) == Some(failed),
        // A drain that failed replaces nothing.
        Action::SetDestination(_, _, destination) if destination.weight == 0 => false,
        // Old real servers stay until their replacements stand.
        Action::AddDestination(failed, ..) | Action::SetDestination(failed, ..) => {
            takes_away(next) && destination_of(next) == Some(failed)
        }
        // Forwarding for a VIP on one's own `lo` is a loop.
        Action::RemoveService(ServiceKey::Address { address: served, .. }) => {
            matches!(next, Action::AddAddress { address, .. } if address == served)
        }
        Action::RemoveService(ServiceKey::Mark { .. })
        | Action::SetService(..)
        | Action::RemoveDestination(..)
        | Action::AddAddress { .. }
        | Action::SetTimeout { .. }
        | Action::StartDaemon(_)
        | Action::Path(_)
        | Action::SetMarks(_)
        | Action::ClearMarks => false,
        // Both never run.
        Action::StopDaemon(_) => matches!(next, Action::StartDaemon(_)),
    }
}

/// Whether the action needs that device.
fn is_about_link(action: &Action, link: &str) -> bool {
    match action {
        Action::AddAddress { interface, .. } | Action::RemoveAddress { interface, .. } => {
            interface == link
        }
        Action::SetSysctl { name, .. } => name.0.split('/').nth(3) == Some(link),
        Action::AddService(..)
        | Action::SetService(..)
        | Action::RemoveService(_)
        | Action::AddDestination(..)
        | Action::SetDestination(..)
        | Action::RemoveDestination(..)
        | Action::SetTimeout { .. }
        | Action::StartDaemon(_)
        | Action::StopDaemon(_)
        | Action::Path(_)
        | Action::SetMarks(_)
        | Action::ClearMarks => false,
    }
}

fn destination_of(action: &Action) -> Option<&ServiceKey> {
    match action {
        Action::AddDestination(key, ..)
        | Action::SetDestination(key, ..)
        | Action::RemoveDestination(key, _) => Some(key),
        Action::AddService(..)
        | Action::SetService(..)
        | Action::RemoveService(_)
        | Action::AddAddress { .. }
        | Action::RemoveAddress { .. }
        | Action::SetSysctl { .. }
        | Action::SetTimeout { .. }
        | Action::StartDaemon(_)
        | Action::StopDaemon(_)
        | Action::Path(_)
        | Action::SetMarks(_)
        | Action::ClearMarks => None,
    }
}

/// Whether the action takes traffic from a real server.
fn takes_away(action: &Action) -> bool {
    match action {
        Action::RemoveDestination(..) => true,
        Action::SetDestination(_, _, destination) => destination.weight == 0,
        Action::AddService(..)
        | Action::SetService(..)
        | Action::RemoveService(_)
        | Action::AddDestination(..)
        | Action::AddAddress { .. }
        | Action::RemoveAddress { .. }
        | Action::SetSysctl { .. }
        | Action::SetTimeout { .. }
        | Action::StartDaemon(_)
        | Action::StopDaemon(_)
        | Action::Path(_)
        | Action::SetMarks(_)
        | Action::ClearMarks => false,
    }
}
