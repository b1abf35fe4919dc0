//! What somebody else undoes is done again, and told; what is not ours stays.

use std::process::Command;
use std::time::{Duration, Instant};

use lvsmesh_tests::document::{Document, LVS_1, LVS_2, RS_1, VIP};
use lvsmesh_tests::reference::Reference;
use lvsmesh_tests::{eventually, link, pace, scaled};
use nix::sys::signal::Signal;

use crate::ipvs_table::ipvsadm;

fn by_hand(running: &Reference, node: &str, arguments: &[&str]) {
    let namespace = &running.fleet.lab.node(node).namespace;
    let output = namespace
        .inside(|| Command::new("ipvsadm").args(arguments).output())
        .expect("ipvsadm is installed");
    assert!(
        output.status.success(),
        "ipvsadm {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_cleared_table_is_back_within_two_seconds_and_reported() {
    let running = Reference::start();
    running.serve("50s");
    let before = running
        .fleet
        .ctl
        .status()
        .and_then(|status| status.node(LVS_1.0).cloned())
        .map_or(0, |node| node.drift_repaired);
    by_hand(&running, LVS_1.0, &["-C"]);
    let cleared = Instant::now();
    eventually("the table is back", Duration::from_secs(2), || {
        let table = ipvsadm(&running, LVS_1.0);
        (table.contains("-> 192.168.3.3:80") && table.contains("-> 192.168.3.102:80")).then_some(())
    });
    let took = cleared.elapsed();
    pace::note(&format!("back after {took:?}"));
    assert!(took < scaled(Duration::from_secs(2)));
    let status = running.fleet.until("the drift is reported", Duration::from_secs(10), |status| {
        status
            .node(LVS_1.0)
            .is_some_and(|node| node.drift_repaired > before && !node.last_drift.is_empty())
    });
    pace::note(&status.node(LVS_1.0).map(|node| node.last_drift.clone()).unwrap_or_default());
    let _pages = running.pages(2);
}

#[test]
fn a_service_made_by_hand_is_left_alone_and_shown_as_foreign() {
    let running = Reference::start();
    by_hand(&running, LVS_1.0, &["-A", "-t", "192.168.3.101:8080", "-s", "rr"]);
    by_hand(&running, LVS_1.0, &["-a", "-t", "192.168.3.101:8080", "-r", "192.168.3.3:8080", "-g"]);
    running.serve("0s");
    running.fleet.until("the status shows it", Duration::from_secs(20), |status| {
        status.node(LVS_1.0).is_some_and(|node| {
            node.foreign.iter().any(|service| service.contains("192.168.3.101:8080"))
        })
    });
    running.fleet.apply(&Document::vip_alone());
    eventually("our service is gone", Duration::from_secs(20), || {
        (!ipvsadm(&running, LVS_1.0).contains(&format!("{VIP}:80"))).then_some(())
    });
    let table = ipvsadm(&running, LVS_1.0);
    assert!(
        table.contains("TCP  192.168.3.101:8080 rr") && table.contains("-> 192.168.3.3:8080"),
        "{table}"
    );
}

#[test]
fn without_a_majority_tables_and_loopback_addresses_stay() {
    let mut running = Reference::start();
    running.serve("50s");
    let table = |running: &Reference| {
        ipvsadm(running, LVS_1.0)
            .lines()
            .filter(|line| line.contains("192.168.3."))
            .map(|line| line.split_whitespace().take(4).collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    let before = table(&running);
    assert!(!before.is_empty());
    running.fleet.agent_mut(LVS_2.0).end(Signal::SIGKILL);
    running.fleet.agent_mut(RS_1.0).end(Signal::SIGKILL);
    eventually("nobody has the VIP", Duration::from_secs(20), || {
        running.fleet.attached().is_empty().then_some(())
    });
    running.fleet.ctl.endpoints = vec![format!("{}:7400", LVS_1.1)];
    eventually("lvsctl says that there is no quorum", Duration::from_secs(30), || {
        (running.fleet.ctl.run(&["status"]).code == 6).then_some(())
    });
    assert_eq!(table(&running), before, "the director's table is untouched");
    for name in [LVS_2.0, RS_1.0] {
        assert!(
            link::has_address(&running.fleet.lab.node(name).namespace, "lo", VIP),
            "{name} keeps its lo address"
        );
    }
}
