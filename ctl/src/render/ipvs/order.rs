//! The order in which ipvsadm lists.

use std::cmp::Ordering;
use std::net::IpAddr;

use lvsmesh_proto::v1::{IpvsDestination, IpvsService};

/// As `ipvs_cmp_services` of ipvsadm's libipvs: mark, family, protocol, address, port.
pub(super) fn compare_services(a: &IpvsService, b: &IpvsService) -> Ordering {
    difference(a.mark, b.mark)
        .then(a.ipv6.cmp(&b.ipv6))
        .then(a.protocol.cmp(&b.protocol))
        .then_with(|| compare_addresses(&a.address, &b.address))
        .then(a.port.cmp(&b.port))
}

/// As `ipvs_cmp_dests`.
pub(super) fn compare_destinations(a: &IpvsDestination, b: &IpvsDestination) -> Ordering {
    compare_addresses(&a.address, &b.address).then(a.port.cmp(&b.port))
}

fn compare_addresses(a: &str, b: &str) -> Ordering {
    let words = |text: &str| -> Vec<u32> {
        match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => vec![address.to_bits()],
            Ok(IpAddr::V6(address)) => {
                let octets = address.octets();
                let (words, _) = octets.as_chunks::<4>();
                words.iter().map(|word| u32::from_be_bytes(*word)).collect()
            }
            Err(_) => vec![],
        }
    };
    let (a, b) = (words(a), words(b));
    a.len().cmp(&b.len()).then_with(|| {
        a.iter()
            .zip(&b)
            .map(|(a, b)| difference(*a, *b))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    })
}

/// ipvsadm subtracts unsigned numbers and looks at the sign of the result, so that of two that are more than 2^31 apart the larger one comes
/// first: 192.168.0.1 before 10.0.0.1.
fn difference(a: u32, b: u32) -> Ordering {
    a.wrapping_sub(b).cast_signed().cmp(&0)
}

/// A merge sort, as glibc's `qsort`. That order is not transitive, and the standard library's sorts may panic then.
pub(super) fn sorted<T>(items: &[T], compare: fn(&T, &T) -> Ordering) -> Vec<&T> {
    if items.len() < 2 {
        return items.iter().collect();
    }
    let (left, right) = items.split_at(items.len() / 2);
    let (left, right) = (sorted(left, compare), sorted(right, compare));
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    let mut merged = Vec::with_capacity(items.len());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        merged.extend(if compare(a, b).is_le() { left.next() } else { right.next() });
    }
    merged.extend(left);
    merged.extend(right);
    merged
}
