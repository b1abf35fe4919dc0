//! What somebody else undoes is done again, and told.

use std::time::{Duration, Instant};

use lvsmesh_tests::document::{Document, LVS_1, RS_1, VIP};
use lvsmesh_tests::{Fleet, eventually, link, scaled};

fn repaired(fleet: &Fleet, node: &str, interface: &str) {
    let namespace = &fleet.lab.node(node).namespace;
    let before = fleet.until("the status counts drift", Duration::from_secs(10), |status| {
        status.node(node).is_some()
    });
    let before = before.node(node).map_or(0, |node| node.drift_repaired);
    link::delete_address(namespace, interface, VIP);
    let deleted = Instant::now();
    eventually("the address is back", Duration::from_secs(2), || {
        link::has_address(namespace, interface, VIP).then_some(())
    });
    let took = deleted.elapsed();
    assert!(took < scaled(Duration::from_secs(2)), "back after {took:?}");
    let status = fleet.until("the drift is reported", Duration::from_secs(10), |status| {
        status
            .node(node)
            .is_some_and(|node| node.drift_repaired > before && !node.last_drift.is_empty())
    });
    let drift = status.node(node).map(|node| node.last_drift.clone()).unwrap_or_default();
    assert!(drift.contains(&VIP.to_string()), "the report names the address: {drift}");
}

#[test]
fn a_vip_that_was_deleted_on_its_holder_is_back_within_two_seconds() {
    let fleet = Fleet::start();
    fleet.apply(&Document::vip_alone());
    fleet.held_by(LVS_1.0);
    repaired(&fleet, LVS_1.0, "eth0");
}

#[test]
fn a_vip_that_was_deleted_from_a_realservers_loopback_is_back_within_two_seconds() {
    let fleet = Fleet::start();
    fleet.apply(&Document::reference("0s"));
    let namespace = &fleet.lab.node(RS_1.0).namespace;
    eventually("the realserver's side stands", Duration::from_secs(20), || {
        link::has_address(namespace, "lo", VIP).then_some(())
    });
    repaired(&fleet, RS_1.0, "lo");
}

#[test]
fn an_address_that_an_operator_added_is_left_alone() {
    let fleet = Fleet::start();
    let own = std::net::Ipv4Addr::new(192, 168, 3, 77);
    for name in [LVS_1.0, RS_1.0] {
        link::add_address(&fleet.lab.node(name).namespace, "lo", own);
    }
    fleet.apply(&Document::reference("0s"));
    let namespace = &fleet.lab.node(RS_1.0).namespace;
    eventually("the realserver's side stands", Duration::from_secs(20), || {
        link::has_address(namespace, "lo", VIP).then_some(())
    });
    fleet.apply(&Document::vip_alone());
    eventually("the realserver's side is gone", Duration::from_secs(20), || {
        (!link::has_address(namespace, "lo", VIP)).then_some(())
    });
    for name in [LVS_1.0, RS_1.0] {
        assert!(
            link::has_address(&fleet.lab.node(name).namespace, "lo", own),
            "{name} keeps what is not ours"
        );
    }
}

#[test]
fn a_realserver_gets_its_sysctls_back_when_it_leaves() {
    let mut fleet = Fleet::start();
    let namespace = fleet.lab.node(RS_1.0).namespace.clone();
    let read = |name: &str| {
        let file = format!("/proc/sys/net/ipv4/conf/{name}");
        namespace
            .inside(|| std::fs::read_to_string(&file))
            .unwrap_or_else(|error| panic!("{file}: {error}"))
            .trim()
            .to_owned()
    };
    let names = ["all/arp_ignore", "all/arp_announce", "lo/arp_ignore", "lo/arp_announce"];
    let before: Vec<_> = names.iter().map(|name| read(name)).collect();
    fleet.apply(&Document::reference("0s"));
    eventually("the realserver's side stands", Duration::from_secs(20), || {
        link::has_address(&namespace, "lo", VIP).then_some(())
    });
    assert_eq!(
        [read(names[0]).as_str(), read(names[1]).as_str()],
        ["1", "2"],
        "ARP is restrained before the address is there"
    );

    let _removed = fleet.ctl.run(&["node", "remove", RS_1.0, "--yes"]).succeeded();
    fleet.agent_mut(RS_1.0).end(nix::sys::signal::Signal::SIGTERM);
    fleet.agent(RS_1.0).succeed(&["leave"]);
    assert!(!link::has_address(&namespace, "lo", VIP), "leaving takes the address away");
    let after: Vec<_> = names.iter().map(|name| read(name)).collect();
    assert_eq!(after, before, "each sysctl has the value that it had");
}
