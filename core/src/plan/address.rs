//! Addresses on `lo` and sysctls: what makes a machine a real server, or a director whose agent answers for its VIPs, and how it is undone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Action, Address, Observed, Op, Owned, Raised, Sysctl, Want};
use crate::placement::{DirectorSide, RealServerSide};

/// The interface that carries VIPs for which the kernel is to answer nobody.
pub const LOOPBACK: &str = "lo";

/// Whether a sysctl keeps a VIP on `lo` from answering ARP.
pub(super) fn guards_arp(name: &Sysctl) -> bool {
    name.0.ends_with("/arp_ignore") || name.0.ends_with("/arp_announce")
}

/// What has to be done to addresses and sysctls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostDiff {
    /// Sysctls raised.
    pub raises: Vec<Op>,
    /// Addresses added; only once every raise has succeeded, or the machine answers ARP for a VIP that it does not hold.
    pub additions: Vec<Op>,
    /// Addresses removed.
    pub removals: Vec<Op>,
    /// Sysctls given back; only once every removal has succeeded, for the same reason.
    pub restores: Vec<Op>,
    /// Addresses that are ours before the first operation.
    pub record_addresses: BTreeSet<(String, IpAddr)>,
    /// Addresses that are ours after the last one.
    pub settled_addresses: BTreeSet<(String, IpAddr)>,
    /// Sysctls that are ours before the first operation.
    pub record_sysctls: BTreeMap<Sysctl, Raised>,
    /// Sysctls that are ours after the last one.
    pub settled_sysctls: BTreeMap<Sysctl, Raised>,
    /// What is wanted and must wait, each with the reason.
    pub withheld: Vec<String>,
}

/// Lists what puts the realserver side and the director's in place and takes away what they no longer need.
///
/// Addresses on interfaces other than `lo` are the lease's business: they stay, and stay in the record.
#[must_use]
pub fn diff(
    observed: &Observed,
    side: &RealServerSide,
    director: &DirectorSide,
    owned: &Owned,
    source: &str,
) -> HostDiff {
    let mut out = HostDiff::default();
    let others = &director.sysctls;
    let raised = side.sysctls.iter().map(|(name, least)| (name.clone(), Want::AtLeast(*least)));
    let wanted = raised.chain(others.iter().map(|(name, want)| (name.clone(), *want)));
    let wanted: BTreeMap<Sysctl, Want> = wanted.collect();
    sysctls(&mut out, observed, &wanted, owned, source);
    // Without IPVS none of its settings exist, which is said elsewhere.
    for name in others.keys().filter(|name| !observed.sysctls.contains_key(name)) {
        if observed.table.is_some() || !name.0.starts_with("net/ipv4/vs/") {
            out.withheld.push(format!("{name} is not set: this kernel has no such setting"));
        }
    }
    let mut needed: BTreeMap<IpAddr, &str> = BTreeMap::new();
    needed.extend(director.addresses.iter().map(|vip| (*vip, "this director may come to hold")));
    needed.extend(side.addresses.iter().map(|vip| (*vip, "this real server answers for")));
    add_addresses(&mut out, observed, &needed, &wanted, owned, source);
    for address in &observed.addresses {
        let kept = address.interface == LOOPBACK && needed.contains_key(&address.address);
        if address.interface == LOOPBACK && !kept && is_ours(address, owned) {
            remove_address(&mut out, address, source);
        }
    }
    let elsewhere = owned.addresses.iter().filter(|(interface, _)| interface != LOOPBACK);
    for entry in elsewhere {
        out.record_addresses.insert(entry.clone());
        out.settled_addresses.insert(entry.clone());
    }
    out
}

/// Lists what undoes everything of ours.
#[must_use]
pub fn teardown(observed: &Observed, owned: &Owned, source: &str) -> HostDiff {
    let mut out = HostDiff::default();
    sysctls(&mut out, observed, &BTreeMap::new(), owned, source);
    for address in observed.addresses.iter().filter(|address| is_ours(address, owned)) {
        remove_address(&mut out, address, source);
    }
    out
}

/// Why the realserver side is not in place, in one line; `None`: it is.
#[must_use]
pub fn real_server_fault(observed: &Observed, side: &RealServerSide) -> Option<String> {
    for (name, &least) in &side.sysctls {
        match observed.sysctls.get(name) {
            None => return Some(format!("{name} cannot be read")),
            Some(&value) if value < least => {
                return Some(format!("{name} is {value}, must be at least {least}"));
            }
            Some(_) => {}
        }
    }
    let missing = side.addresses.iter().find(|vip| !on_loopback(observed, **vip));
    missing
        .map(|vip| format!("VIP {vip} not on {LOOPBACK}"))
        .or_else(|| super::path::fault(observed, side))
}

/// Why a director whose agent answers for its VIPs could not hold one, in one line; `None`: it could.
///
/// What is answered for and is not on `lo` would come in and be dropped, or sent on to where it came from; and a kernel that is not quiet answers
/// with no regard to any lease.
#[must_use]
pub fn director_fault(observed: &Observed, side: &DirectorSide) -> Option<String> {
    if side.addresses.is_empty() {
        return None;
    }
    for (name, want) in side.sysctls.iter().filter(|(name, _)| guards_arp(name)) {
        match observed.sysctls.get(name) {
            None => return Some(format!("{name} cannot be read")),
            Some(&value) if !want.accepts(value) => {
                return Some(format!("{name} is {value}, must be {want}"));
            }
            Some(_) => {}
        }
    }
    let missing = side.addresses.iter().find(|vip| !on_loopback(observed, **vip));
    missing.map(|vip| format!("VIP {vip} not on {LOOPBACK}"))
}

fn sysctls(
    out: &mut HostDiff,
    observed: &Observed,
    wanted: &BTreeMap<Sysctl, Want>,
    owned: &Owned,
    source: &str,
) {
    for (name, &want) in wanted {
        let recorded = owned.sysctls.get(name).copied();
        let record = match observed.sysctls.get(name).copied() {
            Some(value) if !want.accepts(value) => {
                out.raises.push(Op {
                    action: Action::SetSysctl { name: name.clone(), value: want.value() },
                    reason: format!("is {value}, {source} needs {want}"),
                });
                // The first value found is the one to give back, however often it has to be set again.
                let before = recorded.map_or(value, |raised| raised.before);
                Some(Raised { before, ours: want.value() })
            }
            Some(_) | None => recorded,
        };
        if let Some(record) = record {
            out.record_sysctls.insert(name.clone(), record);
            out.settled_sysctls.insert(name.clone(), record);
        }
    }
    for (name, &raised) in owned.sysctls.iter().filter(|(name, _)| !wanted.contains_key(name)) {
        match observed.sysctls.get(name) {
            Some(&value) if value == raised.ours && value != raised.before => {
                out.record_sysctls.insert(name.clone(), raised);
                out.restores.push(Op {
                    action: Action::SetSysctl { name: name.clone(), value: raised.before },
                    reason: format!(
                        "was {} before it was raised, not needed by {source}",
                        raised.before
                    ),
                });
            }
            // Somebody chose another value since: it is theirs.
            Some(_) => {}
            None => {
                out.record_sysctls.insert(name.clone(), raised);
                out.settled_sysctls.insert(name.clone(), raised);
            }
        }
    }
}

fn add_addresses(
    out: &mut HostDiff,
    observed: &Observed,
    needed: &BTreeMap<IpAddr, &str>,
    sysctls: &BTreeMap<Sysctl, Want>,
    owned: &Owned,
    source: &str,
) {
    let mut quiet = sysctls.keys().filter(|name| guards_arp(name));
    let unreadable = quiet.find(|name| !observed.sysctls.contains_key(name));
    for (&vip, why) in needed {
        let entry = (LOOPBACK.to_owned(), vip);
        if !on_loopback(observed, vip) {
            if let Some(name) = unreadable {
                out.withheld
                    .push(format!("VIP {vip} is not added to {LOOPBACK}: {name} cannot be read"));
                continue;
            }
            out.additions.push(Op {
                action: Action::AddAddress { interface: LOOPBACK.to_owned(), address: vip },
                reason: if owned.addresses.contains(&entry) {
                    "recorded as ours, but gone from the kernel".into()
                } else {
                    format!("a VIP that {why}, in {source}")
                },
            });
        }
        out.record_addresses.insert(entry.clone());
        out.settled_addresses.insert(entry);
    }
}

fn remove_address(out: &mut HostDiff, address: &Address, source: &str) {
    out.record_addresses.insert((address.interface.clone(), address.address));
    out.removals.push(Op {
        action: Action::RemoveAddress {
            interface: address.interface.clone(),
            address: address.address,
        },
        reason: format!("ours, and not needed by {source}"),
    });
}

/// Whether the address is one that we would have put there: a host address, marked or recorded.
fn is_ours(address: &Address, owned: &Owned) -> bool {
    is_host(address)
        && (address.marked
            || owned.addresses.contains(&(address.interface.clone(), address.address)))
}

fn on_loopback(observed: &Observed, vip: IpAddr) -> bool {
    observed
        .addresses
        .iter()
        .any(|address| address.interface == LOOPBACK && address.address == vip && is_host(address))
}

fn is_host(address: &Address) -> bool {
    address.prefix == if address.address.is_ipv4() { 32 } else { 128 }
}
