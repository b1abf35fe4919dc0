//! Several VIP groups: their own VRIDs, versions, families and interfaces, one holder; and a group larger than an advert.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use lvsmesh_tests::capture::Frame;
use lvsmesh_tests::document::{CLIENT, Document, LVS_1, LVS_2, RS_1, VIP};
use lvsmesh_tests::fleet::{Fleet, Options};
use lvsmesh_tests::lab::Node;
use lvsmesh_tests::peers::{Instance, Keepalived};
use lvsmesh_tests::{Lab, eventually, link, pace};

const PEER: (&str, Ipv4Addr) = ("peer", Ipv4Addr::new(192, 168, 3, 104));
const API: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 120);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 100);
const SIX: &str = "fd00:3::200";

/// A second interface, on the same wire and in a network of its own.
fn second_interface(node: &Node) {
    let [.., last] = node.address.octets();
    for arguments in [
        "link add link eth0 name eth1 type macvlan mode bridge".to_owned(),
        format!("addr add 10.4.0.{last}/24 dev eth1"),
        "link set eth1 up".to_owned(),
    ] {
        let output = node
            .namespace
            .inside(|| Command::new("ip").args(arguments.split(' ')).output())
            .expect("iproute2 is installed");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments}: {errors}");
    }
}

/// More addresses than an advert names.
fn excluded() -> Vec<IpAddr> {
    (1..=30).map(|last| IpAddr::from([192, 168, 30, last])).collect()
}

#[test]
fn groups_of_every_kind_are_held_and_announced_side_by_side() {
    let lab = Lab::dual_stack(&[LVS_1, LVS_2, RS_1, CLIENT, PEER]);
    for (name, _) in [LVS_1, LVS_2] {
        second_interface(lab.node(name));
    }
    let mut fleet = Fleet::start_on(lab, &Options::default());
    let listed: Vec<_> = excluded().iter().map(ToString::to_string).collect();
    let vips = format!(
        "  - name: api
    addresses: [{API}]
    excluded: [{}]
    interface: eth0
    attach: address
    preference: [{}]
    vrrp: {{ vrid: 52, version: 3, advert_interval: 200ms }}
  - name: other
    addresses: [{OTHER}]
    interface: eth1
    attach: address
    preference: [{}]
    vrrp: {{ vrid: 51, version: 3, advert_interval: 500ms, priority: 190 }}
  - name: six
    addresses: ['{SIX}']
    interface: eth0
    attach: address
    preference: [{}]
    vrrp: {{ vrid: 51, version: 3, advert_interval: 500ms, priority: 180 }}
",
        listed.join(", "),
        LVS_1.0,
        LVS_1.0,
        LVS_1.0,
    );
    fleet.apply(&Document { vips, ..Document::vip_alone() });
    let capture = fleet.lab.capture();
    let held = |fleet: &Fleet, name: &str| {
        let on = |node: &str, interface: &str, address: IpAddr| {
            link::has_address(&fleet.lab.node(node).namespace, interface, address)
        };
        let mut wanted: Vec<(&str, IpAddr)> =
            excluded().into_iter().map(|it| ("eth0", it)).collect();
        wanted.extend([("eth0", VIP.into()), ("eth0", API.into()), ("eth1", OTHER.into())]);
        wanted.push(("eth0", SIX.parse().expect("an address")));
        eventually(&format!("{name} alone holds everything"), Duration::from_secs(30), || {
            let others = [LVS_1.0, LVS_2.0].into_iter().filter(|other| *other != name);
            let all = wanted.iter().all(|(interface, vip)| on(name, interface, *vip));
            let none = others
                .into_iter()
                .all(|other| !wanted.iter().any(|(interface, vip)| on(other, interface, *vip)));
            (all && none).then_some(())
        });
    };
    held(&fleet, LVS_1.0);

    // keepalived has two of them, with the same excluded addresses: it drops adverts with another list or count.
    let api = Instance {
        name: "api",
        vrid: 52,
        excluded: excluded(),
        ..Instance::backup(3, "0.2", &[API.into()])
    };
    let web = Instance::backup(2, "1", &[VIP.into()]);
    let keepalived = Keepalived::start(&fleet.lab, fleet.lab.node(PEER.0), &[web, api]);
    keepalived.enters("BACKUP", Duration::from_secs(20));
    pace::throughout("keepalived backs both up", Duration::from_secs(5), || {
        let states = [keepalived.states_of("web"), keepalived.states_of("api")];
        states.iter().any(|states| *states != ["BACKUP"]).then(|| keepalived.output())
    });

    let seen = |from: &str| -> BTreeSet<(u8, u8, u8)> {
        let adverts = capture.adverts(Duration::from_secs(3)).into_iter();
        let of = |frame| match frame {
            Frame::Advert { version, vrid, priority } => Some((version, vrid, priority)),
            Frame::Arp { .. } | Frame::Solicitation { .. } | Frame::Neighbour { .. } => None,
        };
        adverts.filter(|seen| seen.from == from).filter_map(|seen| of(seen.frame)).collect()
    };
    let all = BTreeSet::from([(2, 51, 200), (3, 52, 200), (3, 51, 190), (3, 51, 180)]);
    eventually("all four are announced", Duration::from_secs(10), || {
        (seen(LVS_1.0) == all).then_some(())
    });
    assert_eq!(seen(LVS_2.0), BTreeSet::new());

    // And they move as one.
    fleet.kill(LVS_1.0);
    held(&fleet, LVS_2.0);
    eventually("the new holder announces all four", Duration::from_secs(10), || {
        (seen(LVS_2.0) == all).then_some(())
    });
    for instance in ["web", "api"] {
        let states = keepalived.states_of(instance);
        assert_eq!(states, ["BACKUP"], "{instance}: {}", keepalived.output());
    }
}
