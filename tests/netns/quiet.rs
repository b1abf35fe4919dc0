//! A restart changes nothing in the kernel.

use std::time::Duration;

use lvsmesh_tests::document::{Document, LVS_1, LVS_2, RS_1, VIP};
use lvsmesh_tests::monitor::Monitor;
use lvsmesh_tests::{Fleet, eventually, link};

/// Restarts one agent and returns what else than the VIP's comings and goings was changed on its machine meanwhile.
fn restart(name: &str) -> Vec<lvsmesh_tests::monitor::Event> {
    let mut fleet = Fleet::start();
    fleet.apply(&Document::vip_alone());
    fleet.held_by(LVS_1.0);
    fleet.converged();
    let monitor = Monitor::start(&fleet.lab.node(name).namespace);
    fleet.agent_mut(name).restart();
    fleet.converged();
    fleet.holder();
    let status = fleet.until(
        "the restarted node counts its operations",
        Duration::from_secs(20),
        |status| status.node(name).is_some_and(|node| node.reachable && node.converged),
    );
    assert_eq!(
        status.node(name).map(|node| node.operations),
        Some(0),
        "the agent performed nothing besides its lease"
    );
    monitor.events_besides(VIP)
}

#[test]
fn restarting_the_leader_changes_nothing_but_the_vip() {
    assert_eq!(restart(LVS_1.0), []);
}

#[test]
fn restarting_the_standby_changes_nothing() {
    assert_eq!(restart(LVS_2.0), []);
}

#[test]
fn restarting_the_witness_changes_nothing() {
    assert_eq!(restart(RS_1.0), []);
}

#[test]
fn restarting_a_realserver_leaves_its_address_alone() {
    let mut fleet = Fleet::start();
    fleet.apply(&Document::reference("0s"));
    let node = fleet.lab.node(RS_1.0).namespace.clone();
    eventually("the realserver's side stands", Duration::from_secs(20), || {
        link::has_address(&node, "lo", VIP).then_some(())
    });
    let ready = |status: &lvsmesh_tests::ctl::Status| {
        status.node(RS_1.0).is_some_and(|node| {
            node.reachable && node.converged && node.revision == status.revision
        })
    };
    fleet.until("the realserver has converged", Duration::from_secs(20), ready);
    let monitor = Monitor::start(&node);
    fleet.agent_mut(RS_1.0).restart();
    let status = fleet.until("the realserver is back", Duration::from_secs(20), ready);
    assert_eq!(status.node(RS_1.0).map(|node| node.operations), Some(0));
    assert_eq!(monitor.events(), []);
}
