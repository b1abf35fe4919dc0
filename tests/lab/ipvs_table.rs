//! What the forwarding table holds, and where requests go by it.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use lvsmesh_tests::document::{Document, LVS_1, LVS_2, RS_1, VIP};
use lvsmesh_tests::monitor::Monitor;
use lvsmesh_tests::reference::Reference;
use lvsmesh_tests::{eventually, link, scaled};

/// What `ipvsadm -Ln` prints on a node.
pub(crate) fn ipvsadm(running: &Reference, node: &str) -> String {
    let namespace = &running.fleet.lab.node(node).namespace;
    let output = namespace
        .inside(|| Command::new("ipvsadm").arg("-Ln").output())
        .expect("ipvsadm is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn pages_alternate_without_persistence_and_stick_with_it() {
    let running = Reference::start();
    running.serve("0s");
    let pages = running.pages(8);
    for pair in pages.windows(2) {
        assert_ne!(pair.first(), pair.last(), "persistence 0: {pages:?}");
    }
    running.serve("50s");
    eventually("the table has the persistence", Duration::from_secs(20), || {
        ipvsadm(&running, LVS_1.0).contains("persistent 50").then_some(())
    });
    let pages = running.pages(8);
    assert_eq!(pages.iter().collect::<BTreeSet<_>>().len(), 1, "persistence 50 s: {pages:?}");
}

#[test]
fn the_listing_is_ipvsadms_byte_for_byte() {
    let running = Reference::start();
    running.serve("50s");
    let same = || {
        let (ours, theirs) = (
            running.fleet.ctl.run(&["ipvs", "list", "--node", LVS_1.0]).succeeded(),
            ipvsadm(&running, LVS_1.0),
        );
        // Connections may come and go between the two questions; then they are asked again.
        if ours == theirs { Ok(ours) } else { Err((ours, theirs)) }
    };
    let mut last = None;
    let listing = lvsmesh_tests::pace::within(Duration::from_secs(10), || {
        same().map_err(|pair| last = Some(pair)).ok()
    });
    let listing = listing.unwrap_or_else(|| panic!("ours and ipvsadm's: {last:#?}"));
    assert!(listing.contains(&format!("TCP  {VIP}:80 wlc persistent 50\n")), "{listing}");
    assert!(
        listing
            .contains("  -> 192.168.3.3:80               Route   3      0          0         \n"),
        "{listing}"
    );

    let _pages = running.pages(4);
    let mut last = None;
    let busy = lvsmesh_tests::pace::within(Duration::from_secs(20), || {
        same().map_err(|pair| last = Some(pair)).ok()
    });
    assert!(busy.is_some(), "with connections, ours and ipvsadm's: {last:#?}");
    // Nothing but the header where a node does not forward.
    assert_eq!(
        running.fleet.ctl.run(&["ipvs", "list", "--node", LVS_2.0]).succeeded(),
        ipvsadm(&running, LVS_2.0)
    );
    assert!(
        !ipvsadm(&running, LVS_2.0).contains("TCP"),
        "a dual-role node that does not hold has no service"
    );
}

#[test]
fn a_server_that_fails_its_check_gets_no_new_connections_until_it_is_well() {
    let mut running = Reference::start();
    running.serve("0s");
    let gone = running.pages.remove(RS_1.0);
    drop(gone);
    let down = running.fleet.until("one server is out", Duration::from_secs(30), |status| {
        status.services.iter().any(|service| service.ready == 1)
    });
    let reason = down.services[0]
        .real_servers
        .iter()
        .find(|server| server.address == "192.168.3.3:80")
        .map(|server| server.reason.clone());
    assert!(
        reason.is_some_and(|reason| !reason.is_empty() && !reason.contains('\n')),
        "the status says why: {down:#?}"
    );
    eventually("it is out of the table", Duration::from_secs(20), || {
        (!ipvsadm(&running, LVS_1.0).contains("192.168.3.3:80")).then_some(())
    });
    let pages = running.pages(6);
    assert!(pages.iter().all(|page| page == LVS_2.0), "{pages:?}");

    let server = lvsmesh_tests::pages::Pages::serve(running.fleet.lab.node(RS_1.0), 80);
    running.pages.insert(RS_1.0.to_owned(), server);
    running.all_ready();
    eventually("it serves again", Duration::from_secs(20), || {
        running.pages(2).contains(&RS_1.0.to_owned()).then_some(())
    });
}

#[test]
fn a_realserver_whose_side_is_not_in_place_gets_no_traffic_and_the_status_says_why() {
    let running = Reference::start();
    // A directory in the place of a writable file cannot be made in /proc: an agent that is stopped cannot confirm.
    running.fleet.agent(RS_1.0).process().signal(nix::sys::signal::Signal::SIGSTOP);
    running.fleet.apply(&Document::reference("0s"));
    let status =
        running.fleet.until("one server of two gets traffic", Duration::from_secs(60), |status| {
            status.services.iter().any(|service| service.ready == 1 && service.total == 2)
        });
    let waiting = status.services[0]
        .real_servers
        .iter()
        .find(|server| server.node == RS_1.0)
        .cloned()
        .unwrap_or_default();
    assert!(
        !waiting.serving && !waiting.reason.is_empty() && !waiting.reason.contains('\n'),
        "{waiting:?}"
    );
    let screen = running.fleet.ctl.run(&["status"]);
    assert!(screen.out.contains(&waiting.reason), "lvsctl status says why:\n{}", screen.out);
    running.fleet.holder();
    assert!(!ipvsadm(&running, LVS_1.0).contains("192.168.3.3:80"));
    let pages = running.pages(4);
    assert!(pages.iter().all(|page| page == LVS_2.0), "{pages:?}");

    running.fleet.agent(RS_1.0).process().signal(nix::sys::signal::Signal::SIGCONT);
    running.all_ready();
}

#[test]
fn a_realserver_that_lost_its_address_while_its_agent_was_stopped_serves_again() {
    let running = Reference::start();
    running.serve("0s");
    let namespace = &running.fleet.lab.node(RS_1.0).namespace;
    // Stopped, it cannot repair; what matters is what the next round finds.
    running.fleet.agent(RS_1.0).process().signal(nix::sys::signal::Signal::SIGSTOP);
    link::delete_address(namespace, "lo", VIP);
    running.fleet.agent(RS_1.0).process().signal(nix::sys::signal::Signal::SIGCONT);
    eventually("the address is back", Duration::from_secs(2), || {
        link::has_address(namespace, "lo", VIP).then_some(())
    });
    eventually("both serve again", Duration::from_secs(20), || {
        let pages: Vec<_> = (0..4).filter_map(|_| running.page().ok()).collect();
        let both = [LVS_2.0, RS_1.0].iter().all(|name| pages.iter().any(|page| page == name));
        (pages.len() == 4 && both).then_some(())
    });
}

#[test]
fn restarting_an_agent_touches_neither_table_nor_addresses() {
    let mut running = Reference::start();
    running.serve("50s");
    let _pages = running.pages(2);
    for name in running.fleet.names() {
        let table = || {
            ipvsadm(&running, LVS_1.0)
                .lines()
                .map(|line| line.split_whitespace().take(4).collect::<Vec<_>>().join(" "))
                .collect::<Vec<_>>()
        };
        let before = table();
        let holder = running.fleet.holder();
        let monitor = Monitor::start(&running.fleet.lab.node(&name).namespace);
        running.fleet.agent_mut(&name).restart();
        running.fleet.converged();
        running.all_ready();
        assert_eq!(monitor.events_besides(VIP), [], "{name}");
        let status = running.fleet.until(
            "the restarted node counts",
            scaled(Duration::from_secs(10)),
            |status| status.node(&name).is_some_and(|node| node.reachable),
        );
        let table = ipvsadm(&running, LVS_1.0)
            .lines()
            .map(|line| line.split_whitespace().take(4).collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>();
        if name == RS_1.0 {
            assert_eq!(status.node(&name).map(|node| node.operations), Some(0), "{name}");
            assert_eq!(running.fleet.holder(), holder);
        }
        assert_eq!(table, before, "a pure director keeps its table");
    }
}
