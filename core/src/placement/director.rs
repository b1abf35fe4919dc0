//! What a director needs of its machine beside the table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::arp_sysctls;
use crate::model::{Attach, Connections, Document, Listen, PortRange, Vip};
use crate::plan::globals::{SyncDaemon, SyncRole, Timeout, WantedGlobals};
use crate::plan::marks::{MarkRule, Marks};
use crate::plan::{Sysctl, Want};

/// What a director needs of its machine beside the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectorSide {
    /// Timeouts and the synchronisation daemon.
    pub globals: WantedGlobals,
    /// Sysctls: those below `net/ipv4/vs/`, what lets translated connections pass, and what keeps the kernel quiet about [`addresses`](Self::addresses).
    pub sysctls: BTreeMap<Sysctl, Want>,
    /// Firewall marks that it gives.
    pub marks: Marks,
    /// VIPs that must be on `lo`, whether this node holds or not: those that an agent answers for instead of the kernel. One through which this node's
    /// own answers go back as a real server's is among them only while it holds.
    pub addresses: BTreeSet<IpAddr>,
}

/// What that director needs. The daemon's role follows the holder: whoever holds tells, the others take in.
pub(super) fn director_side(document: &Document, holding: bool) -> DirectorSide {
    let ipvs = &document.fleet.ipvs;
    let seconds = |span: Duration| u32::try_from(span.as_secs()).unwrap_or(u32::MAX);
    let timeouts = [
        (Timeout::Tcp, ipvs.timeouts.tcp),
        (Timeout::TcpFin, ipvs.timeouts.tcp_fin),
        (Timeout::Udp, ipvs.timeouts.udp),
    ];
    let daemon = ipvs.sync.as_ref().map(|sync| SyncDaemon {
        role: if holding { SyncRole::Master } else { SyncRole::Backup },
        interface: sync.interface.clone(),
        sync_id: sync.id.into(),
        max_length: sync.maxlen.unwrap_or_default(),
        group: Some(sync.group),
        port: sync.port,
        ttl: sync.ttl,
    });
    let mut sysctls = ipvs.sysctls.effective();
    if ipvs.connections == Connections::Keep {
        // What the operator names wins.
        let keep: &[(&str, i64)] = match ipvs.sync {
            // Also connections that have seen a single packet are told.
            Some(_) => &[("sync_threshold", 1)],
            // A connection that began elsewhere is taken in the middle.
            None => &[("sloppy_tcp", 1), ("sloppy_sctp", 1)],
        };
        for (name, value) in keep {
            sysctls.entry(name).or_insert(*value);
        }
    }
    let answered = document.vips.iter().filter(|vip| vip.attach == Attach::Responder);
    let addresses: BTreeSet<IpAddr> = answered.flat_map(Vip::served).collect();
    let ipvs_sysctls = sysctls
        .into_iter()
        .map(|(name, value)| (Sysctl(format!("net/ipv4/vs/{name}")), Want::Exactly(value)));
    let quiet = arp_sysctls(&addresses).map(|(name, least)| (name, Want::AtLeast(least)));
    DirectorSide {
        globals: WantedGlobals {
            timeouts: timeouts
                .into_iter()
                .filter_map(|(which, span)| Some((which, seconds(span?))))
                .collect(),
            daemon,
        },
        sysctls: ipvs_sysctls.chain(quiet).collect(),
        marks: marks(document),
        addresses,
    }
}

/// A rule for each service that has its ports marked and each IP version of its VIP group.
fn marks(document: &Document) -> Marks {
    let mut marks = Marks::new();
    for service in &document.services {
        let Listen::Mark { mark, marking: Some(marking) } = &service.listen else { continue };
        let Some(vip) = document.vip(&service.vip) else { continue };
        for ipv6 in [false, true] {
            let addresses: BTreeSet<IpAddr> =
                vip.served().filter(|address| address.is_ipv6() == ipv6).collect();
            if !addresses.is_empty() {
                let ports = joined(&marking.ports);
                marks.insert(MarkRule {
                    mark: *mark,
                    addresses,
                    protocol: marking.protocol,
                    ports,
                });
            }
        }
    }
    marks
}

/// The same ports in as few ranges as possible: nftables joins what touches, and is to be found as it was written.
fn joined(ports: &[PortRange]) -> BTreeSet<PortRange> {
    let sorted: BTreeSet<PortRange> = ports.iter().copied().collect();
    let mut joined: Vec<PortRange> = Vec::new();
    for range in sorted {
        match joined.last_mut() {
            Some(last) if last.last.checked_add(1) == Some(range.first) => last.last = range.last,
            Some(_) | None => joined.push(range),
        }
    }
    joined.into_iter().collect()
}
