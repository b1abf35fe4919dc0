//! Services whose scheduler hashes: on directors whose tables are equal they choose equally.

use std::collections::BTreeMap;

use super::{ServiceKey, Table, VirtualService};
use crate::placement::Fnv1a;

/// Schedulers that choose by a hash of the packet and nothing else that a director learns by itself (`ip_vs_mh.c`, `ip_vs_sh.c`, `ip_vs_dh.c`).
const HASHING: [&str; 3] = ["mh", "sh", "dh"];

/// A number for each such service of `table` that two directors share if and only if (but for a chance of 2^-64) they have the same scheduler,
/// flags, real servers and weights for it. The order in which real servers were added, on which `sh` and `dh` depend as well, is nowhere to be read.
#[must_use]
pub fn digests(table: &Table) -> BTreeMap<ServiceKey, u64> {
    let hashing =
        table.iter().filter(|(_, service)| HASHING.contains(&service.spec.scheduler.as_str()));
    hashing.map(|(key, service)| (*key, digest(service))).collect()
}

fn digest(service: &VirtualService) -> u64 {
    let mut hash = Fnv1a::new();
    hash.update(service.spec.scheduler.as_bytes());
    hash.update(&service.spec.flags.to_be_bytes());
    for (address, destination) in &service.destinations {
        hash.update(address.to_string().as_bytes());
        hash.update(&[0]);
        hash.update(&destination.weight.to_be_bytes());
        hash.update(destination.method.to_string().as_bytes());
    }
    hash.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;
    use crate::plan::{Destination, Method, ServiceSpec};

    fn table(scheduler: &str, servers: &[(u8, u32)]) -> Table {
        let key = ServiceKey::Address {
            protocol: Protocol::Tcp,
            address: [192, 0, 2, 1].into(),
            port: 80,
        };
        let spec = ServiceSpec {
            scheduler: scheduler.into(),
            flags: 0x10,
            timeout: 0,
            netmask: u32::MAX,
            engine: None,
        };
        let destination =
            |weight| Destination { weight, method: Method::Route, upper: 0, lower: 0 };
        let destinations = servers
            .iter()
            .map(|(last, weight)| (([10, 0, 0, *last], 80).into(), destination(*weight)))
            .collect();
        [(key, VirtualService { spec, destinations })].into()
    }

    #[test]
    fn equal_tables_choose_equally_and_others_show() {
        let one = digests(&table("mh", &[(1, 1), (2, 3)]));
        assert_eq!(one.len(), 1);
        assert_eq!(one, digests(&table("mh", &[(2, 3), (1, 1)])), "in whatever order");
        for other in [
            table("sh", &[(1, 1), (2, 3)]),
            table("mh", &[(1, 1), (2, 2)]),
            table("mh", &[(1, 1)]),
            table("mh", &[(1, 1), (3, 3)]),
        ] {
            assert_ne!(one, digests(&other), "{other:?}");
        }
        assert!(
            digests(&table("wlc", &[(1, 1)])).is_empty(),
            "what it chooses it learns by itself"
        );
    }
}
