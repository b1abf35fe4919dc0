//! This node's IPVS table, as its kernel has it, in the protocol's words.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use lvsmesh_core::plan::{Destination, ServiceKey, VirtualService};
use lvsmesh_kernel::KernelError;
use lvsmesh_kernel::ipvs::{Ipvs, Listing, Statistics};
use lvsmesh_proto::v1;

use super::context::Context;
use super::status::{CallError, chain};

/// Reads the table.
///
/// # Errors
///
/// [`CallError::NoIpvs`] if this kernel has none.
pub async fn read(context: &Context) -> Result<v1::ListIpvsResponse, CallError> {
    let failed = |error| failed(context, "read the IPVS table", error);
    let mut ipvs = Ipvs::open().await.map_err(failed)?;
    let info = ipvs.info().await.map_err(failed)?;
    let listing = ipvs.list().await.map_err(failed)?;
    let owned = context.owned.load().map(|owned| owned.services).unwrap_or_default();
    let (major, minor, patch) = info.version;
    Ok(v1::ListIpvsResponse {
        node: context.identity.name.clone(),
        version: format!("{major}.{minor}.{patch}"),
        connection_table_size: info.connection_table_size,
        services: services(&listing, &owned),
    })
}

/// What this node's kernel refused, for the caller.
pub(super) fn failed(context: &Context, doing: &'static str, error: KernelError) -> CallError {
    let (reason, hint) = (chain(&error), error.hint());
    match error {
        KernelError::IpvsMissing => {
            CallError::NoIpvs { name: context.identity.name.clone(), reason, hint }
        }
        KernelError::Refused { .. }
        | KernelError::TimedOut { .. }
        | KernelError::Unsteady { .. }
        | KernelError::Program { .. }
        | KernelError::Malformed { .. } => CallError::Internal { doing, reason },
    }
}

fn services(listing: &Listing, owned: &BTreeSet<ServiceKey>) -> Vec<v1::IpvsService> {
    let service = |(key, service): (&ServiceKey, &VirtualService)| v1::IpvsService {
        destinations: service
            .destinations
            .iter()
            .map(|(real, settings)| destination(listing, *key, *real, settings))
            .collect(),
        owned: owned.contains(key),
        statistics: listing.services.get(key).copied().map(statistics),
        ..(key, service).into()
    };
    listing.table.iter().map(service).collect()
}

fn destination(
    listing: &Listing,
    key: ServiceKey,
    real: SocketAddr,
    settings: &Destination,
) -> v1::IpvsDestination {
    let counters = listing.counters.get(&(key, real)).copied().unwrap_or_default();
    v1::IpvsDestination {
        active: counters.active,
        inactive: counters.inactive,
        persistent: counters.persistent,
        connections: counters.connections,
        statistics: listing.destinations.get(&(key, real)).copied().map(statistics),
        ..(&real, settings).into()
    }
}

fn statistics(counted: Statistics) -> v1::IpvsStatistics {
    v1::IpvsStatistics {
        connections: counted.connections,
        packets_in: counted.packets_in,
        packets_out: counted.packets_out,
        bytes_in: counted.bytes_in,
        bytes_out: counted.bytes_out,
        connections_per_second: counted.connections_per_second,
        packets_in_per_second: counted.packets_in_per_second,
        packets_out_per_second: counted.packets_out_per_second,
        bytes_in_per_second: counted.bytes_in_per_second,
        bytes_out_per_second: counted.bytes_out_per_second,
    }
}
