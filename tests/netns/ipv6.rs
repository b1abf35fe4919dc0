//! VIPs of IPv6: who answers neighbour solicitations, what a client's neighbour cache does, and a real keepalived beside it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use lvsmesh_tests::capture::{Capture, Frame};
use lvsmesh_tests::document::{CLIENT, Document, LVS_1, LVS_2, RS_1, VIP, VIP_V6};
use lvsmesh_tests::fleet::{Fleet, Options};
use lvsmesh_tests::peers::Keepalived;
use lvsmesh_tests::probe::{ArpProber, Echo, Prober, ask};
use lvsmesh_tests::{Lab, eventually, link, pace, scaled};
use nix::sys::signal::Signal;

const PEER: (&str, Ipv4Addr) = ("peer", Ipv4Addr::new(192, 168, 3, 104));

/// What RFC 9568 wants first in an advert over IPv6.
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x64);

fn dual_stack() -> Document {
    Document { addresses: format!("{VIP}, '{VIP_V6}'"), ..Document::vip_alone() }
}

/// A fleet that holds a VIP of each family on its first director. The realserver has the IPv6 one on `lo`, as it would behind a director.
fn fleet() -> Fleet {
    let fleet =
        Fleet::start_on(Lab::dual_stack(&[LVS_1, LVS_2, RS_1, CLIENT]), &Options::default());
    link::add_address(&fleet.lab.node(RS_1.0).namespace, "lo", VIP_V6);
    fleet.apply(&dual_stack());
    held_by(&fleet, LVS_1.0);
    fleet
}

fn held_by(fleet: &Fleet, name: &str) {
    fleet.held_by(name);
    eventually(&format!("{name} alone holds the IPv6 VIP"), Duration::from_secs(20), || {
        (fleet.having(VIP_V6) == [name]).then_some(())
    });
}

/// Waits until a node answers both datagrams and neighbour solicitations for the VIP, after `since`.
fn answered_by(name: &str, prober: &Prober, capture: &Capture, since: Instant) {
    eventually(&format!("{name} answers for {VIP_V6}"), Duration::from_secs(20), || {
        let last = prober.answers().pop()?;
        let (node, count) = capture.answering(VIP_V6).pop()?;
        (last.by == name && last.at >= since && node == name && count > 3).then_some(())
    });
}

#[test]
fn one_node_answers_for_an_ipv6_vip_and_another_when_it_is_killed() {
    let mut fleet = fleet();
    let echoes: Vec<_> =
        fleet.names().iter().map(|name| Echo::dual_stack(fleet.lab.node(name))).collect();
    let capture = fleet.lab.capture();
    let prober = Prober::start(fleet.client(), VIP_V6);
    let asking = ArpProber::start(fleet.client(), VIP_V6, Duration::from_millis(10));
    answered_by(LVS_1.0, &prober, &capture, Instant::now());
    let status = fleet.until("the status names the holder", Duration::from_secs(10), |status| {
        status.vips.iter().any(|vip| vip.holder == LVS_1.0)
    });
    assert_eq!(status.vips[0].also_on, Vec::<String>::new());

    let at = fleet.kill(LVS_1.0);
    answered_by(LVS_2.0, &prober, &capture, at);
    held_by(&fleet, LVS_2.0);
    let silence = prober.longest_silence(at).expect("there were answers before and after");
    pace::note(&format!("dark for {:?}", silence.length));
    assert!(silence.length <= scaled(Duration::from_secs(2)), "dark for {silence:?}");
    let answering: Vec<_> = capture.answering(VIP_V6).into_iter().map(|(node, _)| node).collect();
    assert_eq!(answering, [LVS_1.0, LVS_2.0], "who answers changes once, and is never {}", RS_1.0);
    assert_eq!(capture.answered_twice(VIP_V6), [], "two nodes answered one solicitation");
    drop((echoes, asking));
}

#[test]
fn a_neighbour_cache_follows_the_vip_without_asking() {
    let mut fleet = fleet();
    let _echoes: Vec<_> =
        fleet.names().iter().map(|name| Echo::dual_stack(fleet.lab.node(name))).collect();
    let client = fleet.client().namespace.clone();
    let mac = |fleet: &Fleet, name: &str| fleet.lab.node(name).mac;
    eventually("the client reaches the VIP", Duration::from_secs(10), || {
        ask(fleet.client(), VIP_V6).filter(|by| by == LVS_1.0)
    });
    assert_eq!(link::neighbour(&client, VIP_V6), Some(mac(&fleet, LVS_1.0)));

    // From here on the client sends nothing to the VIP, so only what it is told can change its mind.
    let capture = fleet.lab.capture();
    fleet.kill(LVS_1.0);
    eventually("the client's cache has the new holder", Duration::from_secs(20), || {
        (link::neighbour(&client, VIP_V6) == Some(mac(&fleet, LVS_2.0))).then_some(())
    });
    let frames = capture.frames();
    let announced = Frame::Neighbour { target: VIP_V6, solicited: false };
    assert!(
        frames.iter().any(|seen| seen.from == LVS_2.0 && seen.frame == announced),
        "{frames:?}"
    );
    let asked =
        frames.iter().any(|seen| seen.from == CLIENT.0 && seen.frame.asks_for(VIP_V6.into()));
    assert!(!asked, "{frames:?}");
    // The other family was announced by the same node in the same breath.
    held_by(&fleet, LVS_2.0);
}

#[test]
fn a_mixed_group_is_announced_by_its_ipv4_addresses_and_one_of_ipv6_alone_over_ipv6() {
    let fleet = fleet();
    let capture = fleet.lab.capture();
    let advert = |version| Frame::Advert { version, vrid: 51, priority: 200 };
    let seen = |version| {
        eventually(&format!("adverts of version {version}"), Duration::from_secs(15), || {
            let adverts = capture.adverts(Duration::from_millis(2500));
            let all = adverts.iter().all(|seen| seen.frame == advert(version));
            (all && adverts.len() >= 2).then_some(())
        });
    };
    seen(2);
    fleet.apply(&Document {
        addresses: format!("'{VIP_V6}'"),
        vrrp_version: 3,
        ..Document::vip_alone()
    });
    seen(3);
    assert_eq!(fleet.having(VIP_V6), [LVS_1.0], "it stays where it is");
    eventually("the IPv4 address goes", Duration::from_secs(10), || {
        fleet.attached().is_empty().then_some(())
    });
    // Standbys hear the holder from a link-local address, and do not take it for a stranger.
    pace::throughout("nobody is foreign", Duration::from_secs(3), || {
        let complaints = fleet.ctl.status()?.complaints();
        complaints.contains("VRRP").then_some(complaints)
    });
}

fn backs_up(addresses: &[Ipv6Addr]) {
    let lab = Lab::dual_stack(&[LVS_1, LVS_2, RS_1, CLIENT, PEER]);
    let mut fleet = Fleet::start_on(lab, &Options::default());
    let listed: Vec<_> = addresses.iter().map(|address| format!("'{address}'")).collect();
    fleet.apply(&Document {
        addresses: listed.join(", "),
        vrrp_version: 3,
        advert_interval: "500ms",
        vrrp: ", coexist: contest".into(),
        ..Document::vip_alone()
    });
    let held = |fleet: &Fleet, name: &str| {
        eventually(&format!("{name} holds all"), Duration::from_secs(20), || {
            addresses.iter().all(|address| fleet.having(*address) == [name]).then_some(())
        });
    };
    held(&fleet, LVS_1.0);

    let vips: Vec<IpAddr> = addresses.iter().map(|address| (*address).into()).collect();
    let keepalived = Keepalived::backup(&fleet.lab, fleet.lab.node(PEER.0), 3, "0.5", &vips);
    keepalived.enters("BACKUP", Duration::from_secs(20));
    // Longer than three adverts and its skew: had it not understood one of them, it would have taken over.
    pace::throughout("keepalived stays BACKUP", Duration::from_secs(4), || {
        let states = keepalived.states();
        (states != ["BACKUP"]).then(|| format!("{states:?}\n{}", keepalived.output()))
    });
    held(&fleet, LVS_1.0);

    for name in fleet.names() {
        fleet.agent_mut(&name).end(Signal::SIGTERM);
    }
    keepalived.enters("MASTER", Duration::from_secs(20));
    for address in addresses {
        assert_eq!(fleet.having(*address), Vec::<String>::new());
    }
    // A foreign master of lower priority does not keep the fleet from taking over.
    for name in fleet.names() {
        fleet.agent_mut(&name).start();
    }
    keepalived.enters("BACKUP", Duration::from_secs(30));
    eventually("one node holds the VIP", Duration::from_secs(20), || {
        (fleet.having(VIP_V6).len() == 1).then_some(())
    });
    assert_eq!(keepalived.states(), ["BACKUP", "MASTER", "BACKUP"], "{}", keepalived.output());
}

#[test]
fn keepalived_backs_a_fleet_up_over_ipv6() {
    backs_up(&[VIP_V6]);
}

#[test]
fn keepalived_backs_a_fleet_up_over_ipv6_with_a_link_local_address_first() {
    backs_up(&[LINK_LOCAL, VIP_V6]);
}
