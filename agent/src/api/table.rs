//! This node's IPVS table, as its kernel has it, in the protocol's words.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use lvsmesh_core::plan::{Counters, Destination, Method, ServiceKey, VirtualService};
use lvsmesh_kernel::KernelError;
use lvsmesh_kernel::ipvs::{Ipvs, Listing};
use lvsmesh_proto::v1;

use super::context::Context;
use super::status::{CallError, chain};

/// Reads the table.
///
/// # Errors
///
/// [`CallError::NoIpvs`] if this kernel has none.
pub async fn read(context: &Context) -> Result<v1::ListIpvsResponse, CallError> {
    let node = context.identity.name.clone();
    let failed = |error: KernelError| {
        let (reason, hint) = (chain(&error), error.hint());
        match error {
            KernelError::IpvsMissing => CallError::NoIpvs { name: node.clone(), reason, hint },
            KernelError::Refused { .. }
            | KernelError::TimedOut { .. }
            | KernelError::Unsteady { .. }
            | KernelError::Malformed { .. } => {
                CallError::Internal { doing: "read the IPVS table", reason }
            }
        }
    };
    let mut ipvs = Ipvs::open().await.map_err(failed)?;
    let info = ipvs.info().await.map_err(failed)?;
    let listing = ipvs.list().await.map_err(failed)?;
    let owned = context.owned.load().map(|owned| owned.services).unwrap_or_default();
    let (major, minor, patch) = info.version;
    Ok(v1::ListIpvsResponse {
        node,
        version: format!("{major}.{minor}.{patch}"),
        connection_table_size: info.connection_table_size,
        services: services(&listing, &owned),
    })
}

fn services(listing: &Listing, owned: &BTreeSet<ServiceKey>) -> Vec<v1::IpvsService> {
    let service = |(key, service): (&ServiceKey, &VirtualService)| {
        let destinations = service
            .destinations
            .iter()
            .map(|(address, found)| {
                let counters = listing.counters.get(&(*key, *address)).copied();
                destination(*address, *found, counters.unwrap_or_default())
            })
            .collect();
        v1::IpvsService {
            scheduler: service.spec.scheduler.clone(),
            flags: service.spec.flags,
            timeout: service.spec.timeout,
            netmask: service.spec.netmask,
            engine: service.spec.engine.clone().unwrap_or_default(),
            destinations,
            owned: owned.contains(key),
            ..identified(key)
        }
    };
    listing.table.iter().map(service).collect()
}

fn identified(key: &ServiceKey) -> v1::IpvsService {
    match *key {
        ServiceKey::Address { protocol, address, port } => v1::IpvsService {
            protocol: u32::from(protocol.number()),
            address: address.to_string(),
            port: u32::from(port),
            ipv6: address.is_ipv6(),
            ..v1::IpvsService::default()
        },
        ServiceKey::Mark { ipv6, mark } => {
            v1::IpvsService { mark, ipv6, ..v1::IpvsService::default() }
        }
    }
}

fn destination(
    address: SocketAddr,
    destination: Destination,
    counters: Counters,
) -> v1::IpvsDestination {
    v1::IpvsDestination {
        address: address.ip().to_string(),
        port: u32::from(address.port()),
        method: match destination.method {
            Method::Masq => 0,
            Method::Local => 1,
            Method::Tunnel(_) => 2,
            Method::Route => 3,
            Method::Bypass => 4,
        },
        weight: destination.weight,
        active: counters.active,
        inactive: counters.inactive,
        persistent: counters.persistent,
        connections: counters.connections,
    }
}
