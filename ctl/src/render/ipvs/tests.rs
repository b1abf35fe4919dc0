//! The listings of ipvsadm 1.31 on Linux 6.1 (Debian 12), each of the table that the same commands had made.

use super::*;

const GOLDEN: &str = include_str!("ipvsadm-Ln.txt");
const STATISTICS: &str = include_str!("ipvsadm-Ln-stats.txt");
const RATES: &str = include_str!("ipvsadm-Ln-rate.txt");
const THRESHOLDS: &str = include_str!("ipvsadm-Ln-thresholds.txt");
const PERSISTENT: &str = include_str!("ipvsadm-Ln-persistent-conn.txt");
const TUNNELS: &str = include_str!("ipvsadm-Ln-tun-info.txt");
const SAVED: &str = include_str!("ipvsadm-Sn.txt");

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
            IpvsDestination {
                upper_threshold: 1000,
                lower_threshold: 800,
                ..destination("10.9.0.3", 80, 3, 5)
            },
            destination("10.9.0.2", 80, 3, 1),
            destination("10.9.0.4", 8080, 0, 0),
            destination("10.9.0.5", 80, 2, 1),
            IpvsDestination {
                tunnel_type: 1,
                tunnel_port: 6080,
                tunnel_flags: 2,
                ..destination("10.9.0.6", 80, 2, 1)
            },
            IpvsDestination {
                tunnel_type: 2,
                tunnel_flags: 1,
                ..destination("10.9.0.7", 80, 2, 1)
            },
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
fn every_listing_is_ipvsadms_byte_for_byte() {
    let views = [
        (View::Table, GOLDEN),
        (View::Thresholds, THRESHOLDS),
        (View::PersistentConnections, PERSISTENT),
        (View::Tunnels, TUNNELS),
        (View::Statistics { exact: false }, STATISTICS),
        (View::Statistics { exact: true }, STATISTICS),
        (View::Rates { exact: false }, RATES),
        (View::Rates { exact: true }, RATES),
    ];
    for (view, expected) in views {
        assert_eq!(listing(&golden_table(), view), expected, "{view:?}");
    }
}

#[test]
fn what_is_saved_is_ipvsadms_with_the_thresholds_that_it_loses() {
    let (text, unsaid) = save(&golden_table(), false);
    assert_eq!(unsaid, Vec::<String>::new());
    let kept = "-r 10.9.0.3:80 -g -w 5 -x 1000 -y 800\n";
    assert_eq!(text, SAVED.replacen("-r 10.9.0.3:80 -g -w 5\n", kept, 1));
    assert_ne!(text, SAVED);
}

#[test]
fn an_empty_table_is_its_headings() {
    for (view, of_all) in [(View::Table, GOLDEN), (View::Rates { exact: true }, RATES)] {
        let headings: String = of_all.split_inclusive('\n').take(3).collect();
        assert_eq!(listing(&table(vec![]), view), headings);
    }
}

#[test]
fn counters_stand_in_their_columns_rounded_or_exact() {
    let statistics = Some(IpvsStatistics {
        connections: 99_999_999,
        packets_in: 100_000_000,
        packets_out: 999_999_999,
        bytes_in: 1_000_000_000,
        bytes_out: 99_999_999_999,
        connections_per_second: 1,
        packets_in_per_second: 22,
        packets_out_per_second: 333,
        bytes_in_per_second: 4444,
        bytes_out_per_second: 55_555,
    });
    let web = IpvsService { statistics, ..service(6, "10.9.0.100", 80, "wlc") };
    let real = IpvsDestination { statistics, ..destination("10.9.1.1", 80, 2, 1) };
    #[rustfmt::skip]
    let cases = [
        (View::Statistics { exact: false }, "10.9.0.100:80                99999999  100000K  999999K    1000M   99999M\n"),
        (View::Statistics { exact: true },  "10.9.0.100:80                99999999 100000000 999999999 1000000000 99999999999\n"),
        (View::Rates { exact: false },      "10.9.0.100:80                       1       22      333     4444    55555\n"),
    ];
    for (view, line) in cases {
        assert_eq!(service_line(&web, view), format!("TCP  {line}"));
        let line = line.replacen("10.9.0.100:80 ", "10.9.1.1:80   ", 1);
        assert_eq!(destination_line(&real, view), format!("  -> {line}"));
    }
}

/// Recorded from ipvsadm 1.31 (Debian 12) on 2026-11-27.
#[test]
fn what_ipvsadm_writes_in_a_way_of_its_own_is_written_so() {
    let line = |service: &IpvsService| service_line(service, View::Table);
    let mark = |mark| IpvsService { mark, ..service(0, "", 0, "rr") };
    assert_eq!(line(&mark(u32::MAX)), "FWM  -1 rr\n");
    assert_eq!(line(&mark(1 << 31)), "FWM  -2147483648 rr\n");
    #[rustfmt::skip]
    let addresses = [
        ("::102:304",       "[::1.2.3.4]:80"),
        ("::ffff:102:304",  "[::ffff:1.2.3.4]:80"),
        ("::1",             "[::1]:80"),
        ("1::2:0:0:3:4",    "[1::2:0:0:3:4]:80"),
        ("1:0:2:3:4:5:6:7", "[1:0:2:3:4:5:6:7]:80"),
    ];
    for (address, written) in addresses {
        assert_eq!(endpoint(address, 80), written);
    }
    #[rustfmt::skip]
    let tunnels = [
        ((1, 6080, 0),   "gue:6080:-c"),
        ((1, 6080, 1),   "gue:6080:+c"),
        ((1, 65_535, 2), "gue:65535:r+c"),
        ((2, 0, 0),      "gre:-c"),
        ((0, 0, 0),      "ipip"),
    ];
    for ((tunnel_type, tunnel_port, tunnel_flags), written) in tunnels {
        let real = IpvsDestination {
            tunnel_type,
            tunnel_port,
            tunnel_flags,
            ..destination("10.9.0.7", 80, 2, 1)
        };
        assert_eq!(tunnel(&real), written);
    }
}

#[test]
fn what_is_wider_than_its_column_pushes_the_rest() {
    let wide = IpvsDestination {
        active: 1_312,
        inactive: 4_000_000_000,
        ..destination("2001:db8:1111:2222:3333:4444:5555:6666", 65_535, 3, 65_535)
    };
    assert_eq!(
        destination_line(&wide, View::Table),
        "  -> [2001:db8:1111:2222:3333:4444:5555:6666]:65535 Route   65535  1312       4000000000\n"
    );
    assert_eq!(
        destination_line(&wide, View::Rates { exact: false }),
        "  -> [2001:db8:1111:2222:3333:4444:5555:6666]:65535        0        0        0        0        0\n"
    );
}

#[test]
fn flags_of_other_schedulers_have_numbers() {
    let odd = IpvsService { flags: 0x38, ..service(6, "192.0.2.1", 80, "wlc") };
    assert_eq!(service_line(&odd, View::Table), "TCP  192.0.2.1:80 wlc (flag-1,flag-2,flag-3)\n");
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
