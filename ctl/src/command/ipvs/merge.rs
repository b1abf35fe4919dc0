//! One table out of several directors'.
//!
//! A service or real server that any director has is in it once. Settings are those of the first director that has it; where another has
//! others, that is told. Counters, rates and connections are added up: a connection is at one director (where they synchronise connections,
//! the copies are inactive at the others, and their counters do not move).

use lvsmesh_proto::v1::{IpvsDestination, IpvsService, IpvsStatistics, ListIpvsResponse};

/// The merged table, and the differences between its parts, one line each.
pub(super) fn merge(tables: &[ListIpvsResponse]) -> (ListIpvsResponse, Vec<String>) {
    let (mut merged, mut differences) = (ListIpvsResponse::default(), Vec::new());
    // Who has given each service its settings.
    let mut first: Vec<&str> = Vec::new();
    for table in tables {
        if merged.version.is_empty() {
            merged.version.clone_from(&table.version);
        } else if merged.version != table.version {
            differences.push(format!("IPVS is {} on {}", table.version, table.node));
        }
        merged.connection_table_size =
            merged.connection_table_size.saturating_add(table.connection_table_size);
        for service in &table.services {
            let known =
                merged.services.iter().position(|other| identity(other) == identity(service));
            match known {
                None => {
                    merged.services.push(service.clone());
                    first.push(&table.node);
                }
                Some(place) => {
                    let nodes = (first[place], table.node.as_str());
                    add_service(&mut merged.services[place], service, nodes, &mut differences);
                }
            }
        }
    }
    (merged, differences)
}

fn identity(service: &IpvsService) -> (u32, &str, u32, u32, bool) {
    (service.protocol, &service.address, service.port, service.mark, service.ipv6)
}

/// As an operator names it: `tcp 192.0.2.1:80`.
fn name(service: &IpvsService) -> String {
    let protocol = match service.protocol {
        17 => "udp",
        132 => "sctp",
        _ => "tcp",
    };
    match service.mark {
        0 => format!("{protocol} {}", at(&service.address, service.port)),
        mark => format!("fwmark {mark}{}", if service.ipv6 { " ipv6" } else { "" }),
    }
}

fn at(address: &str, port: u32) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

fn add_service(
    sum: &mut IpvsService,
    service: &IpvsService,
    nodes: (&str, &str),
    differences: &mut Vec<String>,
) {
    let name = name(service);
    let settings = |service: &IpvsService| {
        let IpvsService { scheduler, flags, timeout, netmask, engine, .. } = service.clone();
        (scheduler, flags, timeout, netmask, engine)
    };
    if settings(sum) != settings(service) {
        differences.push(format!("{name} has other settings on {} than on {}", nodes.1, nodes.0));
    }
    sum.owned |= service.owned;
    add(&mut sum.statistics, service.statistics.as_ref());
    for destination in &service.destinations {
        let known = sum
            .destinations
            .iter_mut()
            .find(|other| (&other.address, other.port) == (&destination.address, destination.port));
        let Some(known) = known else {
            sum.destinations.push(destination.clone());
            continue;
        };
        if settings_of(known) != settings_of(destination) {
            let real = at(&destination.address, destination.port);
            differences.push(format!(
                "{real} of {name} has other settings on {} than on {}",
                nodes.1, nodes.0
            ));
        }
        known.active = known.active.saturating_add(destination.active);
        known.inactive = known.inactive.saturating_add(destination.inactive);
        known.persistent = known.persistent.saturating_add(destination.persistent);
        known.connections = known.connections.saturating_add(destination.connections);
        add(&mut known.statistics, destination.statistics.as_ref());
    }
}

/// What is set, not counted.
fn settings_of(destination: &IpvsDestination) -> IpvsDestination {
    IpvsDestination {
        active: 0,
        inactive: 0,
        persistent: 0,
        connections: 0,
        statistics: None,
        ..destination.clone()
    }
}

fn add(sum: &mut Option<IpvsStatistics>, more: Option<&IpvsStatistics>) {
    let Some(more) = more else { return };
    let sum = sum.get_or_insert_default();
    for (sum, more) in [
        (&mut sum.connections, more.connections),
        (&mut sum.packets_in, more.packets_in),
        (&mut sum.packets_out, more.packets_out),
        (&mut sum.bytes_in, more.bytes_in),
        (&mut sum.bytes_out, more.bytes_out),
        (&mut sum.connections_per_second, more.connections_per_second),
        (&mut sum.packets_in_per_second, more.packets_in_per_second),
        (&mut sum.packets_out_per_second, more.packets_out_per_second),
        (&mut sum.bytes_in_per_second, more.bytes_in_per_second),
        (&mut sum.bytes_out_per_second, more.bytes_out_per_second),
    ] {
        *sum = sum.saturating_add(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(number: u64) -> Option<IpvsStatistics> {
        Some(IpvsStatistics {
            connections: number,
            packets_in: number * 10,
            bytes_out_per_second: u64::MAX / 2 + number,
            ..IpvsStatistics::default()
        })
    }

    fn destination(address: &str, weight: u32, number: u64) -> IpvsDestination {
        IpvsDestination {
            address: address.into(),
            port: 80,
            method: 3,
            weight,
            active: u32::try_from(number).unwrap_or_default(),
            connections: number,
            statistics: counted(number),
            ..IpvsDestination::default()
        }
    }

    fn table(node: &str, scheduler: &str, destinations: Vec<IpvsDestination>) -> ListIpvsResponse {
        let service = IpvsService {
            protocol: 6,
            address: "192.0.2.1".into(),
            port: 80,
            scheduler: scheduler.into(),
            destinations,
            statistics: counted(1),
            ..IpvsService::default()
        };
        ListIpvsResponse {
            node: node.into(),
            version: "1.2.1".into(),
            connection_table_size: 4096,
            services: vec![service],
        }
    }

    #[test]
    fn what_any_director_has_is_listed_once_and_counters_add_up() {
        let a = table("a", "rr", vec![destination("192.0.2.3", 1, 5)]);
        let mut b =
            table("b", "rr", vec![destination("192.0.2.4", 1, 7), destination("192.0.2.3", 1, 6)]);
        b.services[0].owned = true;
        b.services.push(IpvsService { mark: 7, scheduler: "rr".into(), ..IpvsService::default() });
        let (merged, differences) = merge(&[a, b]);

        assert_eq!(differences, Vec::<String>::new());
        assert_eq!((merged.version.as_str(), merged.connection_table_size), ("1.2.1", 8192));
        assert_eq!(merged.services.len(), 2);
        let web = &merged.services[0];
        assert!(web.owned);
        assert_eq!(web.statistics.map(|sum| (sum.connections, sum.packets_in)), Some((2, 20)));
        let reals: Vec<_> = web
            .destinations
            .iter()
            .map(|real| (real.address.as_str(), real.active, real.connections))
            .collect();
        assert_eq!(reals, [("192.0.2.3", 11, 11), ("192.0.2.4", 7, 7)]);
        let rate = web.destinations[0].statistics.map(|sum| sum.bytes_out_per_second);
        assert_eq!(rate, Some(u64::MAX), "a sum too large is the largest number");
    }

    #[test]
    fn differences_between_directors_are_told() {
        let a = table("a", "rr", vec![destination("192.0.2.3", 1, 5)]);
        let mut b = table("b", "wlc", vec![destination("192.0.2.3", 0, 6)]);
        b.version = "1.2.2".into();
        let (merged, differences) = merge(&[a, b]);
        assert_eq!(merged.services[0].scheduler, "rr");
        assert_eq!(
            differences,
            [
                "IPVS is 1.2.2 on b",
                "tcp 192.0.2.1:80 has other settings on b than on a",
                "192.0.2.3:80 of tcp 192.0.2.1:80 has other settings on b than on a",
            ]
        );
    }
}
