//! Next to a real keepalived that backs up the same virtual router.

use std::time::Duration;

use lvsmesh_tests::document::{CLIENT, Document, LVS_1, LVS_2, RS_1, VIP};
use lvsmesh_tests::fleet::{Fleet, Options};
use lvsmesh_tests::peers::Keepalived;
use lvsmesh_tests::{Lab, eventually, link, pace};
use nix::sys::signal::Signal;

fn backs_up(version: u8, advert_interval: &'static str, keepalived_interval: &'static str) {
    let peer = ("peer", std::net::Ipv4Addr::new(192, 168, 3, 104));
    let lab = Lab::new(&[LVS_1, LVS_2, RS_1, CLIENT, peer]);
    let mut fleet = Fleet::start_on(lab, &Options::default());
    let vrrp = ", coexist: contest".to_owned();
    fleet.apply(&Document {
        vrrp_version: version,
        advert_interval,
        vrrp,
        ..Document::vip_alone()
    });
    fleet.held_by(LVS_1.0);

    let peer_node = fleet.lab.node(peer.0);
    let keepalived =
        Keepalived::backup(&fleet.lab, peer_node, version, keepalived_interval, &[VIP.into()]);
    keepalived.enters("BACKUP", Duration::from_secs(20));
    // Longer than three adverts and its skew: had it not understood one of them, it would have taken over.
    pace::throughout("keepalived stays BACKUP", Duration::from_secs(5), || {
        let states = keepalived.states();
        (states != ["BACKUP"]).then(|| format!("{states:?}\n{}", keepalived.output()))
    });
    assert!(fleet.attached() == [LVS_1.0]);

    for name in fleet.names() {
        fleet.agent_mut(&name).end(Signal::SIGTERM);
    }
    keepalived.enters("MASTER", Duration::from_secs(20));
    let peer_node = fleet.lab.node(peer.0).namespace.clone();
    eventually("keepalived has the VIP", Duration::from_secs(10), || {
        link::has_address(&peer_node, "eth0", VIP).then_some(())
    });
    assert_eq!(fleet.attached(), Vec::<String>::new());

    for name in fleet.names() {
        fleet.agent_mut(&name).start();
    }
    keepalived.enters("BACKUP", Duration::from_secs(30));
    fleet.holder();
    eventually("keepalived has let go", Duration::from_secs(10), || {
        (!link::has_address(&peer_node, "eth0", VIP)).then_some(())
    });
    assert_eq!(keepalived.states(), ["BACKUP", "MASTER", "BACKUP"], "{}", keepalived.output());
}

#[test]
fn keepalived_backs_a_fleet_up_with_version_2_and_a_password() {
    backs_up(2, "1s", "1");
}

#[test]
fn keepalived_backs_a_fleet_up_with_version_3() {
    backs_up(3, "500ms", "0.5");
}
