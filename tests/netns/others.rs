//! Other people's VRRP: FRR's vrrpd as a peer, Wireshark's dissector as a judge.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use lvsmesh_tests::document::{CLIENT, Document, LVS_1, LVS_2, RS_1, VIP, VIP_V6};
use lvsmesh_tests::fleet::{Fleet, Options};
use lvsmesh_tests::peers::{Dissected, Frr, Tshark};
use lvsmesh_tests::probe::ArpProber;
use lvsmesh_tests::{Lab, eventually, pace};
use nix::sys::signal::Signal;

const PEER: (&str, Ipv4Addr) = ("peer", Ipv4Addr::new(192, 168, 3, 104));

/// FRR is master; the fleet takes the VIP from it and nobody is answered twice; it comes anew and stays backup; the fleet stops and it takes over.
fn both_orders(version: u8, vip: IpAddr, interval: &'static str, centiseconds: u16) {
    let machines = [LVS_1, LVS_2, RS_1, CLIENT, PEER];
    let lab = if vip.is_ipv4() { Lab::new(&machines) } else { Lab::dual_stack(&machines) };
    Frr::prepare(lab.node(PEER.0), vip);
    let mut fleet = Fleet::start_on(lab, &Options::default());
    let first = Frr::start(fleet.lab.node(PEER.0), version, centiseconds, vip);
    first.enters("Master", Duration::from_secs(20));
    let capture = fleet.lab.capture();
    let asking = ArpProber::start(fleet.client(), vip, Duration::from_millis(10));
    let document = Document {
        addresses: format!("'{vip}'"),
        vrrp_version: version,
        advert_interval: interval,
        vrrp: ", coexist: contest".into(),
        ..Document::vip_alone()
    };
    // It knows no passwords.
    let text = document.yaml().replace(", auth: { pass: \"1111\" }", "");
    let _printed = fleet.ctl.apply(&text, &[]).succeeded();
    eventually("the fleet has the VIP", Duration::from_secs(30), || {
        (fleet.having(vip).len() == 1).then_some(())
    });
    first.enters("Backup", Duration::from_secs(10));
    pace::throughout("vrrpd stays Backup", Duration::from_secs(5), || {
        (first.states().last().map(String::as_str) != Some("Backup")).then(|| first.output())
    });
    eventually("the new holder is asked and answers", Duration::from_secs(10), || {
        let (node, count) = capture.answering(vip).pop()?;
        (node != PEER.0 && count > 10).then_some(())
    });
    drop(first);

    let second = Frr::start(fleet.lab.node(PEER.0), version, centiseconds, vip);
    second.enters("Backup", Duration::from_secs(20));
    pace::throughout("vrrpd stays Backup", Duration::from_secs(5), || {
        (second.states() != ["Backup"]).then(|| second.output())
    });
    assert_eq!(fleet.having(vip).len(), 1);
    drop(asking);
    assert_eq!(capture.answered_twice(vip), [], "two machines answered one question");

    for name in fleet.names() {
        fleet.agent_mut(&name).end(Signal::SIGTERM);
    }
    second.enters("Master", Duration::from_secs(20));
}

#[test]
fn frr_of_version_2_gives_way_stays_backup_and_takes_over() {
    both_orders(2, VIP.into(), "1s", 100);
}

#[test]
fn frr_of_version_3_gives_way_stays_backup_and_takes_over() {
    both_orders(3, VIP.into(), "300ms", 30);
}

#[test]
fn frr_over_ipv6_gives_way_stays_backup_and_takes_over() {
    both_orders(3, VIP_V6.into(), "300ms", 30);
}

#[test]
fn wireshark_finds_every_advert_well_formed() {
    let lab = Lab::dual_stack(&[LVS_1, LVS_2, RS_1, CLIENT, PEER]);
    let mut fleet = Fleet::start_on(lab, &Options::default());
    // The unicast group's only router outside the fleet, so that its adverts come by.
    let peer = fleet.lab.node(PEER.0);
    let tshark = Tshark::start(&fleet.lab, peer);
    let group = |name: &str, (version, vrid): (u8, u8), addresses: &str, more: &str| {
        // Version 2 counts whole seconds.
        let interval = if version == 2 { "1s" } else { "200ms" };
        format!(
            "  - name: {name}
    addresses: [{addresses}]
    interface: eth0
    attach: address
    preference: [{}]
    vrrp: {{ vrid: {vrid}, version: {version}, advert_interval: {interval}{more} }}
",
            LVS_1.0
        )
    };
    let unicast = format!(", peers: unicast, unicast_peers: [{}]", PEER.1);
    let vips = group("third", (3, 52), "192.168.3.120, 192.168.3.121", "")
        + &group("single", (3, 53), "192.168.3.130", &unicast)
        + &group("six", (3, 54), "'fe80::64', 'fd00:3::200'", "")
        + &group("second", (2, 55), "192.168.3.140", &unicast);
    fleet.apply(&Document { vips, ..Document::vip_alone() });
    fleet.held_by(LVS_1.0);

    let kinds = |adverts: &[Dissected]| -> BTreeSet<(String, String, bool)> {
        let kind = |advert: &Dissected| {
            (advert.version.clone(), advert.vrid.clone(), advert.priority == "0")
        };
        adverts.iter().map(kind).collect()
    };
    let all = |goodbye: bool| {
        [("2", "51"), ("3", "52"), ("3", "53"), ("3", "54"), ("2", "55")]
            .map(|(version, vrid)| (version.to_owned(), vrid.to_owned(), goodbye))
    };
    eventually("adverts of all five groups", Duration::from_secs(30), || {
        kinds(&tshark.adverts()).is_superset(&all(false).into()).then_some(())
    });
    fleet.agent_mut(LVS_1.0).end(Signal::SIGTERM);
    eventually("and their goodbyes", Duration::from_secs(30), || {
        kinds(&tshark.adverts()).is_superset(&all(true).into()).then_some(())
    });

    let adverts = tshark.adverts();
    for advert in &adverts {
        assert_eq!((advert.ttl.as_str(), advert.checksum.as_str()), ("255", "1"), "{advert:?}");
        assert_eq!(advert.complaints, "", "{advert:?}");
        let (destination, count) = match advert.vrid.as_str() {
            "51" => ("224.0.0.18", "1"),
            "52" => ("224.0.0.18", "2"),
            "53" | "55" => ("192.168.3.104", "1"),
            "54" => ("ff02::12", "2"),
            other => panic!("VRID {other}"),
        };
        assert_eq!((advert.destination.as_str(), advert.count.as_str()), (destination, count));
    }
}
