//! Which real servers of a pool get traffic, and why the others do not.

use std::net::IpAddr;

use super::lookup::{Lookup, Reported};
use super::{forwarding, host, real_servers};
use crate::model::{Document, Forwarding, Listen, Member, Pool, RealServer, Service};

/// What is decided about one real server, for one VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict<'a> {
    pub(super) real_server: RealServer,
    /// The node that it is; `None`: unmanaged.
    pub(super) node: Option<&'a Member>,
    /// In the forwarding table.
    pub(super) serving: bool,
    /// Why not, or why in spite of what its check says.
    pub(super) reason: Option<String>,
}

/// Decides about every real server of a pool that can be behind that address, in the pool's order. One of the other IP version can through a
/// tunnel only, and is if the pool has none of the address's own.
///
/// A real server whose node has not confirmed its side is never in the table. One that fails its check is not either, except that
/// `min_healthy` keeps as many of those as are missing, in the pool's order. Real servers of weight 0 count for nothing there: they get
/// no new connections. One that was never probed is up.
pub(super) fn assess<'a>(
    lookup: &mut Lookup<'a>,
    service: &Service,
    pool: &'a Pool,
    vip: IpAddr,
) -> Vec<Verdict<'a>> {
    let mut failed: Vec<usize> = Vec::new();
    let mut healthy = 0;
    let mut verdicts = Vec::new();
    let state = lookup.state;
    let all = real_servers(state, pool);
    let mixed = mixed(state.document(), all, vip);
    for &real_server in all {
        let forwarding = forwarding(service, &real_server);
        if !can_be_behind(service, &real_server, vip, mixed) {
            continue;
        }
        let index = verdicts.len();
        let node = lookup.manager(real_server.address);
        let unready = unfit(service, forwarding, &real_server)
            .or_else(|| node.and_then(|node| unready(lookup, service, &real_server, node, vip)));
        let fault = state.health_fault(&pool.name, real_server.socket_addr());
        let reason = match (unready, fault) {
            (Some(unready), _) => Some(unready),
            (None, Some(fault)) => {
                if real_server.weight > 0 {
                    failed.push(index);
                }
                Some(format!("check failed: {fault}"))
            }
            (None, None) => {
                healthy += u32::from(real_server.weight > 0);
                None
            }
        };
        verdicts.push(Verdict { real_server, node, serving: reason.is_none(), reason });
    }

    let missing = usize::try_from(pool.min_healthy.saturating_sub(healthy)).unwrap_or(usize::MAX);
    for index in failed.into_iter().take(missing) {
        let verdict = &mut verdicts[index];
        verdict.serving = true;
        verdict.reason = verdict
            .reason
            .take()
            .map(|reason| format!("kept by min_healthy {}: {reason}", pool.min_healthy));
    }
    verdicts
}

/// Whether real servers of the other IP version can be behind that address: if the pool has none of its own, and no synchronisation daemon is
/// asked for. The daemon's protocol cannot carry connections of two families, and the kernel refuses one beside the other.
pub(super) fn mixed(document: &Document, all: &[RealServer], vip: IpAddr) -> bool {
    document.fleet.ipvs.sync.is_none()
        && !all.iter().any(|real_server| real_server.address.is_ipv6() == vip.is_ipv6())
}

/// Whether a real server can be behind that address: it is of the same IP version, or is reached through a tunnel and may be of the other.
pub(super) fn can_be_behind(
    service: &Service,
    real_server: &RealServer,
    vip: IpAddr,
    mixed: bool,
) -> bool {
    real_server.address.is_ipv6() == vip.is_ipv6()
        || mixed && matches!(forwarding(service, real_server), Forwarding::Tunnel(_))
}

/// Why a real server that was found cannot be behind the service; of listed ones that is checked when the document is.
fn unfit(service: &Service, forwarding: Forwarding, real_server: &RealServer) -> Option<String> {
    if let Some(reason) = host::unreceivable(forwarding, real_server) {
        return Some(reason);
    }
    let Listen::Port { port, .. } = service.listen else { return None };
    (forwarding.keeps_ports() && real_server.port != port).then(|| {
        let method = forwarding.name();
        format!(
            "port {} is not the service's, {port}, and {method} does not translate",
            real_server.port
        )
    })
}

/// Why the node is not ready to answer for the VIP as that real server; `None`: it is.
///
/// A report about an earlier revision still vouches for what this revision asks for as well: what was in place stays in place.
/// Without this, adding a VIP would empty every pool until each node has reported again.
fn unready(
    lookup: &mut Lookup<'_>,
    service: &Service,
    real_server: &RealServer,
    node: &Member,
    vip: IpAddr,
) -> Option<String> {
    let name = &node.name;
    let share = host::share(lookup.state.document(), service, vip, real_server, node);
    if let Some(reason) = host::impossible(lookup, service, real_server, node, &share) {
        return Some(reason);
    }
    let Some(report) = lookup.state.readiness(node.id) else {
        return Some(format!("{name}: no readiness report yet"));
    };
    if let Some(fault) = &report.fault {
        return Some(format!("{name}: {fault}"));
    }
    let revision = lookup.state.revision();
    let vouched = match lookup.reported(node, report.digest) {
        Reported::Current => true,
        Reported::Earlier(side) => side.covers(&share),
        Reported::Unknown => false,
    };
    (!vouched).then(|| format!("{name}: revision {revision} not confirmed yet"))
}
