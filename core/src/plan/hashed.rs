//! Services whose scheduler hashes: on directors whose tables are equal they choose equally.

use super::VirtualService;
use crate::placement::Fnv1a;

/// Schedulers that choose by a hash of the packet and nothing else that a director learns by itself (`ip_vs_mh.c`, `ip_vs_sh.c`, `ip_vs_dh.c`).
const HASHING: [&str; 3] = ["mh", "sh", "dh"];

/// A number that two directors share for a service if and only if (but for a chance of 2^-64) they have the same scheduler, flags, real servers
/// and weights for it; `None` if its scheduler does not hash. The order in which real servers were added, on which `sh` and `dh` depend as
/// well, is nowhere to be read.
#[must_use]
pub fn digest(service: &VirtualService) -> Option<u64> {
    if !HASHING.contains(&service.spec.scheduler.as_str()) {
        return None;
    }
    let mut hash = Fnv1a::new();
    hash.update(service.spec.scheduler.as_bytes());
    hash.update(&service.spec.flags.to_be_bytes());
    for (address, destination) in &service.destinations {
        hash.update(address.to_string().as_bytes());
        hash.update(&[0]);
        hash.update(&destination.weight.to_be_bytes());
        hash.update(destination.method.to_string().as_bytes());
    }
    Some(hash.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Destination, Method, ServiceSpec};

    fn service(scheduler: &str, servers: &[(u8, u32)]) -> VirtualService {
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
        VirtualService { spec, destinations }
    }

    #[test]
    fn equal_services_choose_equally_and_others_show() {
        let one = digest(&service("mh", &[(1, 1), (2, 3)]));
        assert!(one.is_some());
        assert_eq!(one, digest(&service("mh", &[(2, 3), (1, 1)])), "in whatever order");
        for other in [
            service("sh", &[(1, 1), (2, 3)]),
            service("mh", &[(1, 1), (2, 2)]),
            service("mh", &[(1, 1)]),
            service("mh", &[(1, 1), (3, 3)]),
        ] {
            assert_ne!(one, digest(&other), "{other:?}");
        }
        assert_eq!(digest(&service("wlc", &[(1, 1)])), None, "what it chooses it learns by itself");
    }
}
