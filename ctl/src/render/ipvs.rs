//! A node's IPVS table, byte for byte as `ipvsadm -Ln` (1.31) prints it, blanks at the ends of lines included.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr};

use lvsmesh_core::document::Value;
use lvsmesh_core::plan::ServiceSpec;
use lvsmesh_proto::v1::{IpvsDestination, IpvsService, ListIpvsResponse};

use crate::tree::{map, number};

/// `IP_VS_SVC_F_SCHED1` to `3` of `<linux/ip_vs.h>`: what they mean depends on the scheduler.
const SCHEDULER_FLAGS: [u32; 3] = [0x8, 0x10, 0x20];

/// The whole listing.
pub(crate) fn listing(table: &ListIpvsResponse) -> String {
    let mut text = format!(
        "IP Virtual Server version {} (size={})\n\
         Prot LocalAddress:Port Scheduler Flags\n  \
         -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n",
        table.version, table.connection_table_size
    );
    for service in sorted(&table.services, compare_services) {
        text += &service_line(service);
        for destination in sorted(&service.destinations, compare_destinations) {
            text += &destination_line(destination);
        }
    }
    text
}

fn service_line(service: &IpvsService) -> String {
    let mut text = if service.mark == 0 {
        let protocol = match service.protocol {
            6 => "TCP ",
            17 => "UDP ",
            132 => "SCTP",
            _ => "??? ",
        };
        format!("{protocol} {}", endpoint(&service.address, service.port))
    } else if service.ipv6 {
        format!("FWM  {} IPv6", service.mark)
    } else {
        format!("FWM  {}", service.mark)
    };
    text += &format!(" {}", service.scheduler);
    let flags = scheduler_flags(&service.scheduler, service.flags);
    if !flags.is_empty() {
        text += &format!(" ({})", flags.join(","));
    }
    if service.flags & ServiceSpec::PERSISTENT != 0 {
        text += &format!(" persistent {}", service.timeout);
        if service.ipv6 && service.netmask != 128 {
            text += &format!(" mask {}", service.netmask);
        } else if !service.ipv6 && service.netmask != u32::MAX {
            text += &format!(" mask {}", Ipv4Addr::from(service.netmask));
        }
    }
    if !service.engine.is_empty() {
        text += &format!(" pe {}", service.engine);
    }
    if service.flags & ServiceSpec::ONE_PACKET != 0 {
        text += " ops";
    }
    text + "\n"
}

fn scheduler_flags(scheduler: &str, flags: u32) -> Vec<&'static str> {
    let names = match scheduler {
        "sh" => ["sh-fallback", "sh-port", "flag-3"],
        "mh" => ["mh-fallback", "mh-port", "flag-3"],
        _ => ["flag-1", "flag-2", "flag-3"],
    };
    let set = SCHEDULER_FLAGS.iter().zip(names).filter(|(flag, _)| flags & **flag != 0);
    set.map(|(_, name)| name).collect()
}

fn destination_line(destination: &IpvsDestination) -> String {
    let method = match destination.method {
        0 => "Masq",
        1 => "Local",
        2 => "Tunnel",
        3 => "Route",
        4 => "Bypass",
        _ => "????",
    };
    format!(
        "  -> {:<28} {:<7} {:<6} {:<10} {:<10}\n",
        endpoint(&destination.address, destination.port),
        method,
        destination.weight,
        destination.active,
        destination.inactive,
    )
}

fn endpoint(address: &str, port: u32) -> String {
    match address.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
        Ok(IpAddr::V4(_)) | Err(_) => format!("{address}:{port}"),
    }
}

/// As `ipvs_cmp_services` of ipvsadm's libipvs: mark, family, protocol, address, port.
fn compare_services(a: &IpvsService, b: &IpvsService) -> Ordering {
    difference(a.mark, b.mark)
        .then(a.ipv6.cmp(&b.ipv6))
        .then(a.protocol.cmp(&b.protocol))
        .then_with(|| compare_addresses(&a.address, &b.address))
        .then(a.port.cmp(&b.port))
}

/// As `ipvs_cmp_dests`.
fn compare_destinations(a: &IpvsDestination, b: &IpvsDestination) -> Ordering {
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
fn sorted<T>(items: &[T], compare: fn(&T, &T) -> Ordering) -> Vec<&T> {
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

/// The names are those of `ListIpvsResponse` in `control.proto`.
pub(crate) fn tree(table: &ListIpvsResponse) -> Value {
    let text = |text: &str| Value::Text(text.to_owned());
    let destination = |destination: &IpvsDestination| {
        map([
            ("address", text(&destination.address)),
            ("port", number(destination.port)),
            ("method", number(destination.method)),
            ("weight", number(destination.weight)),
            ("active", number(destination.active)),
            ("inactive", number(destination.inactive)),
            ("persistent", number(destination.persistent)),
            ("connections", number(destination.connections)),
        ])
    };
    let service = |service: &IpvsService| {
        let destinations = sorted(&service.destinations, compare_destinations);
        map([
            ("protocol", number(service.protocol)),
            ("address", text(&service.address)),
            ("port", number(service.port)),
            ("mark", number(service.mark)),
            ("ipv6", Value::Bool(service.ipv6)),
            ("scheduler", text(&service.scheduler)),
            ("flags", number(service.flags)),
            ("timeout", number(service.timeout)),
            ("netmask", number(service.netmask)),
            ("engine", text(&service.engine)),
            ("destinations", Value::List(destinations.into_iter().map(destination).collect())),
            ("owned", Value::Bool(service.owned)),
        ])
    };
    let services = sorted(&table.services, compare_services);
    map([
        ("node", text(&table.node)),
        ("version", text(&table.version)),
        ("connection_table_size", number(table.connection_table_size)),
        ("services", Value::List(services.into_iter().map(service).collect())),
    ])
}

#[cfg(test)]
mod tests;
