//! The listing of ipvsadm 1.31 on Linux 6.1 (Debian 12), `ipvsadm -Ln`, after the commands that its table comes from.

use super::*;

const GOLDEN: &str = include_str!("ipvsadm-Ln.txt");

fn service(protocol: u32, address: &str, port: u32, scheduler: &str) -> IpvsService {
    IpvsService {
        protocol,
        address: address.into(),
        port,
        ipv6: address.contains(':'),
        scheduler: scheduler.into(),
        netmask: if address.contains(':') { 128 } else { u32::MAX },
        ..IpvsService::default()
    }
}

fn destination(address: &str, port: u32, method: u32, weight: u32) -> IpvsDestination {
    IpvsDestination { address: address.into(), port, method, weight, ..IpvsDestination::default() }
}

fn persistent(service: IpvsService, timeout: u32) -> IpvsService {
    let flags = service.flags | ServiceSpec::PERSISTENT;
    IpvsService { timeout, flags, ..service }
}

fn table(services: Vec<IpvsService>) -> ListIpvsResponse {
    ListIpvsResponse {
        node: "lvs-1".into(),
        version: "1.2.1".into(),
        connection_table_size: 4096,
        services,
    }
}

/// In the order in which they were made, which is not that of the listing.
fn golden_table() -> ListIpvsResponse {
    let ops = ServiceSpec::ONE_PACKET;
    let web = IpvsService {
        destinations: vec![
            destination("10.9.0.3", 80, 3, 5),
            destination("10.9.0.2", 80, 3, 1),
            destination("10.9.0.4", 8080, 0, 0),
            destination("10.9.0.5", 80, 2, 1),
            destination("10.9.0.6", 80, 2, 1),
            destination("10.9.0.7", 80, 2, 1),
        ],
        ..persistent(service(6, "10.9.0.100", 80, "wlc"), 300)
    };
    let sip =
        IpvsService { engine: "sip".into(), flags: ops, ..service(17, "10.9.0.103", 5060, "rr") };
    let mark = IpvsService {
        mark: 7,
        netmask: 0xffff_ff00,
        destinations: vec![destination("10.9.0.8", 0, 3, 1)],
        ..service(0, "", 0, "wrr")
    };
    let six = IpvsService {
        netmask: 64,
        destinations: vec![destination("2001:db8::7", 80, 3, 1)],
        ..service(6, "2001:db8::1", 80, "rr")
    };
    table(vec![
        web,
        IpvsService { flags: ops, ..service(17, "10.9.0.100", 53, "rr") },
        IpvsService { flags: 0x18, ..service(6, "10.9.0.101", 443, "mh") },
        IpvsService { flags: 0x18, ..service(6, "10.9.0.102", 443, "sh") },
        persistent(sip, 60),
        persistent(mark, 60),
        IpvsService { mark: 8, ipv6: true, netmask: 128, ..service(0, "", 0, "rr") },
        persistent(six, 100),
        service(132, "10.9.0.104", 5000, "rr"),
    ])
}

#[test]
fn the_listing_is_ipvsadms_byte_for_byte() {
    assert_eq!(listing(&golden_table()), GOLDEN);
}

#[test]
fn an_empty_table_is_three_lines_of_headings() {
    let headings: String = GOLDEN.split_inclusive('\n').take(3).collect();
    assert_eq!(listing(&table(vec![])), headings);
}

#[test]
fn what_is_wider_than_its_column_pushes_the_rest() {
    let wide = IpvsDestination {
        active: 1_312,
        inactive: 4_000_000_000,
        ..destination("2001:db8:1111:2222:3333:4444:5555:6666", 65_535, 3, 65_535)
    };
    assert_eq!(
        destination_line(&wide),
        "  -> [2001:db8:1111:2222:3333:4444:5555:6666]:65535 Route   65535  1312       4000000000\n"
    );
}

#[test]
fn flags_of_other_schedulers_have_numbers() {
    let odd = IpvsService { flags: 0x38, ..service(6, "192.0.2.1", 80, "wlc") };
    assert_eq!(service_line(&odd), "TCP  192.0.2.1:80 wlc (flag-1,flag-2,flag-3)\n");
}

#[test]
fn addresses_far_apart_stand_as_ipvsadms_subtraction_has_them() {
    let addresses = |services: Vec<IpvsService>| -> Vec<String> {
        sorted(&services, compare_services).iter().map(|service| service.address.clone()).collect()
    };
    let tcp = |address: &str| service(6, address, 80, "rr");
    assert_eq!(
        addresses(vec![tcp("10.0.0.1"), tcp("192.168.0.1"), tcp("10.0.0.2")]),
        ["192.168.0.1", "10.0.0.1", "10.0.0.2"]
    );
    // 0.0.0.1 < 100.0.0.1 < 200.0.0.1 < 0.0.0.1: no order is right, and none may panic.
    let circle: Vec<IpvsService> =
        (0..60).map(|last| tcp(&format!("{}.0.0.{last}", last % 3 * 100))).collect();
    assert_eq!(addresses(circle).len(), 60);
}
