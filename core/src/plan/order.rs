//! Which operation must precede which.
//!
//! 1. Sysctls up: a VIP on `lo` without them answers ARP for the whole segment.
//! 2. The table: services with their real servers, then services taken away. Before the addresses, because a machine that forwards for
//!    a VIP that is also on its `lo` sends packets round in circles.
//! 3. Addresses added, then addresses removed.
//! 4. Sysctls given back, when no VIP needs them any more.

use super::address::{HostDiff, LOOPBACK};
use super::ipvs::TableDiff;
use super::{Action, Owned, Plan, ServiceKey};

/// Puts the operations of both halves into one order.
#[must_use]
pub fn assemble(table: TableDiff, host: HostDiff) -> Plan {
    let stages =
        [host.raises, table.changes, table.removals, host.additions, host.removals, host.restores];
    Plan {
        ops: stages.into_iter().flatten().collect(),
        record: Owned {
            services: table.record,
            addresses: host.record_addresses,
            sysctls: host.record_sysctls,
        },
        settled: Owned {
            services: table.settled,
            addresses: host.settled_addresses,
            sysctls: host.settled_sysctls,
        },
        withheld: host.withheld,
        foreign: table.foreign,
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
        Action::SetSysctl { .. } => {
            matches!(next, Action::AddAddress { interface, .. } if interface == LOOPBACK)
        }
        Action::RemoveAddress { interface, .. } => {
            interface == LOOPBACK && matches!(next, Action::SetSysctl { .. })
        }
        Action::AddService(failed, _) => destination_of(next) == Some(failed),
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
        | Action::AddAddress { .. } => false,
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
        | Action::SetSysctl { .. } => None,
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
        | Action::SetSysctl { .. } => false,
    }
}
