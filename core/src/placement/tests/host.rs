//! Tunnels' ends, ways back, and machines that are director and real server.

use super::*;
use crate::model::{Encapsulation, Marking, PortRange, Protocol, TunnelChecksum};
use crate::plan::path::TunnelKind;

fn v6(last: u16) -> IpAddr {
    IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last])
}

/// The reference deployment, forwarded in another way.
fn forwarded(forwarding: Forwarding) -> Document {
    let mut document = reference();
    document.services[0].forwarding = forwarding;
    document
}

/// Translated, with an inside VIP for the way back.
fn translated() -> Document {
    let mut document = forwarded(Forwarding::Nat);
    document.vips.push(vip("inside", &[200], &[]));
    document.services[0].gateway = Some("inside".into());
    document.pools[0] = Pool {
        source: PoolSource::Listed(vec![
            RealServer { port: 8080, ..rs(3, 3) },
            RealServer { port: 8080, ..rs(102, 3) },
        ]),
        ..document.pools[0].clone()
    };
    document
}

const GUE: Encapsulation = Encapsulation::Gue { port: 6080, checksum: TunnelChecksum::None };

#[test]
fn each_encapsulation_has_the_device_that_takes_it_out() {
    let gre = Encapsulation::Gre { checksum: TunnelChecksum::Csum };
    #[rustfmt::skip]
    let cases = [
        (Encapsulation::Ipip, ip(100), ip(3), TunnelKind::Ipip,   "lvs-ipip"),
        (Encapsulation::Ipip, v6(100), ip(3), TunnelKind::Sit,    "lvs-sit"),
        (Encapsulation::Ipip, ip(100), v6(3), TunnelKind::Ip6tnl, "lvs-ip6tnl"),
        (Encapsulation::Ipip, v6(100), v6(3), TunnelKind::Ip6tnl, "lvs-ip6tnl"),
        (GUE,                 ip(100), ip(3), TunnelKind::Ipip,   "lvs-ipip"),
        (GUE,                 v6(100), ip(3), TunnelKind::Sit,    "lvs-sit"),
        (gre,                 ip(100), ip(3), TunnelKind::Gre,    "lvs-gre"),
        (gre,                 v6(100), v6(3), TunnelKind::Ip6gre, "lvs-ip6gre"),
    ];
    for (encapsulation, vip, real, kind, name) in cases {
        let mut document = forwarded(Forwarding::Tunnel(encapsulation));
        document.vips[0].addresses = vec![vip];
        document.pools[0].source =
            PoolSource::Listed(vec![RealServer { address: real, ..rs(3, 3) }]);
        let mut fleet = Fleet3::new(reference());
        fleet.run(Command::Admit(Candidate {
            addresses: vec![ip(3), v6(3)],
            ..candidate("web-1", 3, &[Role::RealServer])
        }));
        fleet.apply(document);
        let web = fleet.state.member_by_name("web-1").unwrap().id;
        let paths = place(&fleet.state, web, false).real_server.paths;
        let why = format!("{encapsulation:?} of {vip} to {real}");
        assert_eq!(paths.tunnels.keys().collect::<Vec<_>>(), [name], "{why}");
        let tunnel = paths.tunnels[name];
        assert_eq!((tunnel.kind, tunnel.local), (kind, real), "{why}");
        assert_eq!((tunnel.ipv4, tunnel.ipv6), (vip.is_ipv4(), vip.is_ipv6()), "{why}");
        assert_eq!(tunnel.checksum, encapsulation == gre, "{why}");
        assert_eq!(paths.ports.len(), usize::from(encapsulation == GUE), "{why}");
        assert!(name.len() <= 15);
    }
}

#[test]
fn answers_of_a_translated_service_go_through_the_inside_vip() {
    let fleet = Fleet3::ready(translated());
    let side = place(&fleet.state, WEB_1, false).real_server;
    assert_eq!(side.addresses, BTreeSet::new(), "no VIP on lo");
    let rules: Vec<String> = side.paths.rules.iter().map(ToString::to_string).collect();
    let routes: Vec<String> = side.paths.routes.iter().map(ToString::to_string).collect();
    assert_eq!(rules, ["from 192.168.3.3 ipproto tcp sport 8080 lookup 7401"]);
    assert_eq!(routes, ["default via 192.168.3.200 table 7401"]);

    let director = place(&fleet.state, LVS_1, false).director.sysctls;
    let sysctls: Vec<String> =
        director.iter().map(|(name, want)| format!("{name}={want}")).collect();
    for wanted in [
        "net/ipv4/ip_forward=1",
        "net/ipv4/conf/all/send_redirects=0",
        "net/ipv4/conf/eth0/send_redirects=0",
    ] {
        assert!(sysctls.iter().any(|sysctl| sysctl == wanted), "{wanted}: {sysctls:?}");
    }
    assert!(!sysctls.iter().any(|sysctl| sysctl.contains("ipv6")), "no IPv6 VIP: {sysctls:?}");
    let direct = Fleet3::ready(reference());
    let director = place(&direct.state, LVS_1, false).director.sysctls;
    assert!(!director.keys().any(|name| name.0.contains("forward")), "{director:?}");

    let mut marked = translated();
    marked.services[0].listen = Listen::Mark {
        mark: 7,
        marking: Some(Marking {
            protocol: Protocol::Udp,
            ports: vec![PortRange { first: 5000, last: 5099 }],
        }),
    };
    marked.pools[0].source = PoolSource::Listed(vec![RealServer { port: 0, ..rs(3, 3) }]);
    let fleet = Fleet3::ready(marked);
    let rules = place(&fleet.state, WEB_1, false).real_server.paths.rules;
    let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
    assert_eq!(rules, ["from 192.168.3.3 ipproto udp sport 5000-5099 lookup 7401"]);
}

#[test]
fn a_director_that_is_a_real_server_serves_translated_only_with_a_gateway() {
    let fleet = Fleet3::ready(translated());
    assert_eq!(fleet.table()[0], (100, vec![(3, 3), (102, 3)]));

    let mut without = translated();
    without.services[0].gateway = None;
    let fleet = Fleet3::ready(without);
    assert_eq!(fleet.table()[0], (100, vec![(3, 3)]), "web-1's own routes are the operator's");
    let told = fleet.told();
    let reason = told.iter().find(|line| line.contains("192.168.3.102")).unwrap();
    assert!(reason.contains("false") && reason.contains("`gateway`"), "{reason}");

    // Behind a tunnel it serves, and is a standby without a table.
    let fleet = Fleet3::ready(forwarded(Forwarding::Tunnel(Encapsulation::Ipip)));
    assert_eq!(fleet.table(), [(100, vec![(3, 3), (102, 3)])]);
    assert!(
        place(&fleet.state, LVS_2, false).table.is_empty(),
        "it would send them round in circles"
    );
    assert!(!place(&fleet.state, LVS_2, true).table.is_empty());
}

#[test]
fn what_the_kernel_cannot_take_out_gets_no_traffic_and_says_why() {
    let gre = |checksum| Forwarding::Tunnel(Encapsulation::Gre { checksum });
    let mut both = forwarded(gre(TunnelChecksum::None));
    both.services.push(Service {
        forwarding: gre(TunnelChecksum::Csum),
        ..Service::new("other", "web", 443, "other")
    });
    both.pools.push(pool("other", &[RealServer { port: 443, ..rs(3, 1) }]));
    let fleet = Fleet3::ready(both);
    let told = fleet.told();
    let served: Vec<bool> = told
        .iter()
        .filter(|line| line.contains("192.168.3.3:"))
        .map(|line| line.contains("true"))
        .collect();
    assert_eq!(served, [true, false], "{told:?}");
    assert!(
        told.iter()
            .any(|line| line.contains("GRE with checksums")
                || line.contains("GRE without checksums")),
        "{told:?}"
    );

    let mut bare = forwarded(Forwarding::Tunnel(GUE));
    bare.vips[0].addresses = vec![v6(100)];
    bare.pools[0].source = PoolSource::Listed(vec![RealServer { address: v6(3), ..rs(3, 3) }]);
    let fleet = Fleet3::ready(bare);
    assert!(fleet.told()[0].contains("checksum: csum"), "{:?}", fleet.told());
}

#[test]
fn a_side_with_a_part_that_came_later_has_a_digest_of_its_own() {
    let digests: BTreeSet<u64> = [
        reference(),
        forwarded(Forwarding::Tunnel(Encapsulation::Ipip)),
        forwarded(Forwarding::Tunnel(GUE)),
        forwarded(Forwarding::Tunnel(Encapsulation::Gre { checksum: TunnelChecksum::None })),
        forwarded(Forwarding::Tunnel(Encapsulation::Gre { checksum: TunnelChecksum::Csum })),
        translated(),
    ]
    .into_iter()
    .map(|document| place(&Fleet3::new(document).state, WEB_1, false).real_server.digest())
    .collect();
    assert_eq!(digests.len(), 6);
}

#[test]
fn a_report_about_an_earlier_tunnel_does_not_vouch_for_a_new_one() {
    let mut fleet = Fleet3::ready(forwarded(Forwarding::Tunnel(Encapsulation::Ipip)));
    let gre = Encapsulation::Gre { checksum: TunnelChecksum::None };
    fleet.apply(forwarded(Forwarding::Tunnel(gre)));
    assert_eq!(fleet.table()[0].1, [], "nobody takes GRE yet: {:?}", fleet.told());
    fleet.confirm(WEB_1, None);
    assert_eq!(fleet.table()[0].1, [(3, 3)]);
    // Another service beside it leaves the first one's servers in.
    let mut more = forwarded(Forwarding::Tunnel(gre));
    more.services.push(Service::new("more", "web", 443, "more"));
    more.pools.push(pool("more", &[RealServer { port: 443, ..rs(3, 1) }]));
    fleet.apply(more);
    assert_eq!(fleet.table()[0].1, [(3, 3)]);
}

/// Such a node goes back through the inside VIP as the standby, and has it as the holder, but never both.
#[test]
fn a_standby_goes_back_through_a_vip_that_it_has_on_lo_only_while_it_holds() {
    let mut document = translated();
    for vip in &mut document.vips {
        vip.attach = Attach::Responder;
    }
    let fleet = Fleet3::new(document);
    let on_lo = |node, holding| place(&fleet.state, node, holding).director.addresses;
    assert_eq!(on_lo(LVS_2, false), BTreeSet::from([ip(100)]));
    assert_eq!(on_lo(LVS_2, true), BTreeSet::from([ip(100), ip(200)]));
    let side = |holding| place(&fleet.state, LVS_2, holding).real_server;
    assert_eq!(side(true), side(false), "what it confirms as a real server is the same");
    assert!(!side(false).paths.routes.is_empty());
    // A pure director never goes back through it.
    assert_eq!(on_lo(LVS_1, false), BTreeSet::from([ip(100), ip(200)]));
}
