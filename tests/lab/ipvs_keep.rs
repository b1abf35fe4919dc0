//! What becomes of open connections when another director takes over, and of the settings that decide it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lvsmesh_tests::connections::{Connections, echo};
use lvsmesh_tests::document::{Document, LVS_1, LVS_2, RS_1, VIP};
use lvsmesh_tests::{Fleet, Lab, eventually, pace, scaled};

/// Where the echo is.
const ECHO: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(VIP), 80);

/// The reference deployment with an echo on both real servers.
fn start() -> Fleet {
    Lab::require_ipvs();
    let fleet = Fleet::start();
    for name in [LVS_2.0, RS_1.0] {
        echo(fleet.lab.node(name), 80);
    }
    fleet
}

/// The reference document with more in `fleet`, and the service's scheduler as named, or as it is by default.
fn document(fleet: &str, scheduler: &str) -> Document {
    let reference = Document::reference("0s");
    let rest = reference.rest.replace("scheduler: wlc, ", scheduler);
    Document { fleet: fleet.to_owned(), rest, ..reference }
}

/// Applies it, waits until both real servers get traffic and `lvs-1` holds; returns what lvsctl printed.
fn serve(fleet: &Fleet, document: &Document) -> String {
    let printed = fleet.ctl.apply(&document.yaml(), &["-m", "the lab's"]).succeeded();
    fleet.until("both servers get traffic", Duration::from_secs(60), |status| {
        status.services.iter().all(|service| service.ready == 2) && !status.services.is_empty()
    });
    fleet.converged();
    fleet.held_by(LVS_1.0);
    printed
}

/// Six connections, asked until both real servers have some, so that the failover can break some.
fn six(fleet: &Fleet) -> (Connections, Vec<Option<u8>>) {
    let patience = scaled(Duration::from_secs(10));
    let open = || {
        let mut connections = Connections::open(fleet.client(), ECHO, 6, patience);
        let served = connections.ask();
        assert!(served.iter().all(Option::is_some), "before the failover: {served:?}");
        let both = [LVS_2.1, RS_1.1].iter().all(|server| {
            let [.., last] = server.octets();
            served.contains(&Some(last))
        });
        both.then_some((connections, served))
    };
    (0..20)
        .find_map(|_| open())
        .expect("six connections reach both real servers at least once in twenty times")
}

/// Kills the holder's agent; how many of the connections still work with `lvs-2`, each with the real server that it had.
fn survivors(fleet: &mut Fleet, connections: &mut Connections, served: &[Option<u8>]) -> usize {
    let _killed: Instant = fleet.kill(LVS_1.0);
    fleet.held_by(LVS_2.0);
    let after = connections.ask();
    pace::note(&format!("before {served:?}, after {after:?}"));
    after.iter().zip(served).filter(|(after, before)| after == before).count()
}

/// Brings `lvs-1` back and moves the VIP there.
fn back(fleet: &mut Fleet) {
    fleet.agent_mut(LVS_1.0).start();
    fleet.converged();
    // On a busy machine the move may take longer than the call waits, or the lease not last: what counts here is where the VIP ends up.
    eventually("lvs-1 holds again", Duration::from_secs(60), || {
        let moved = fleet.ctl.run(&["failover", "--to", LVS_1.0]).code == 0;
        (moved || fleet.attached() == [LVS_1.0]).then_some(())
    });
    fleet.held_by(LVS_1.0);
}

#[test]
fn six_connections_survive_by_hashing_and_break_without() {
    let mut fleet = start();
    let said = serve(&fleet, &document("", "scheduler: rr, "));
    assert!(said.contains("warning: fleet.ipvs.connections"), "{said}");
    let (mut connections, served) = six(&fleet);
    let left = survivors(&mut fleet, &mut connections, &served);
    assert!(left < 6, "nothing keeps them, and the warning said so");

    back(&mut fleet);
    let said = serve(&fleet, &document(", ipvs: { connections: keep }", "scheduler: rr, "));
    assert!(said.contains("warning: services[0].scheduler: rr"), "{said}");
    let said = serve(&fleet, &document(", ipvs: { connections: keep }", ""));
    assert!(!said.contains("warning"), "{said}");
    let table = fleet.ctl.run(&["ipvs", "list", "--node", LVS_1.0]).succeeded();
    assert!(table.contains("mh (mh-port)"), "{table}");
    let (mut connections, served) = six(&fleet);
    let left = survivors(&mut fleet, &mut connections, &served);
    assert_eq!(left, 6, "connections were lost");
}

fn sysctl(fleet: &Fleet, node: &str, name: &str) -> String {
    let read = || std::fs::read_to_string(format!("/proc/sys/net/ipv4/vs/{name}"));
    let value = fleet.lab.node(node).namespace.inside(read);
    value.unwrap_or_else(|error| panic!("{name} of {node}: {error}")).trim().to_owned()
}

/// Waits until `lvsctl ipvs VIEW` of a node says something.
fn shows(fleet: &Fleet, node: &str, view: &str, what: &str) {
    let mut last = String::new();
    let seen = pace::within(Duration::from_secs(20), || {
        last = fleet.ctl.run(&["ipvs", view, "--node", node]).out;
        last.contains(what).then_some(())
    });
    assert!(seen.is_some(), "ipvs {view} of {node} does not say {what:?}: {last}");
}

#[test]
fn six_connections_survive_by_synchronisation_whose_role_follows_the_holder() {
    let mut fleet = start();
    let settings = ", ipvs: { connections: keep, sync: { interface: eth0, id: 7 }, timeouts: { tcp: 3600s }, \
                    sysctls: { values: [{ name: sync_period, value: 20 }, { name: drop_entry, value: 1 }] } }";
    let said = serve(&fleet, &document(settings, "scheduler: rr, "));
    assert!(!said.contains("warning"), "{said}");
    shows(&fleet, LVS_1.0, "daemon", "master sync daemon");
    shows(&fleet, LVS_2.0, "daemon", "backup sync daemon");
    for node in [LVS_1.0, LVS_2.0] {
        shows(&fleet, node, "timeouts", "3600");
        let both: Vec<String> =
            sysctl(&fleet, node, "sync_threshold").split_whitespace().map(Into::into).collect();
        assert_eq!(both, ["1", "20"], "sync_threshold of {node}");
        assert_eq!(sysctl(&fleet, node, "drop_entry"), "1");
    }

    let (mut connections, served) = six(&fleet);
    // A connection is told when it has a packet or two, and the telling is sent at the latest after two seconds (IPVS_SYNC_FLUSH_TIME).
    let told = eventually("the backup knows the connections", Duration::from_secs(30), || {
        let _again = connections.ask();
        let known = fleet.ctl.run(&["ipvs", "conns", "--node", LVS_2.0]).out;
        let count = known.lines().filter(|line| line.contains("ESTABLISHED")).count();
        (count >= 6).then_some(count)
    });
    pace::note(&format!("the backup knows {told} connections"));
    let left = survivors(&mut fleet, &mut connections, &served);
    assert_eq!(left, 6, "connections were lost");
    shows(&fleet, LVS_2.0, "daemon", "master sync daemon");
    let roles = fleet.ctl.run(&["ipvs", "daemon", "--node", LVS_2.0]).succeeded();
    assert!(!roles.contains("backup"), "both run: {roles}");

    back(&mut fleet);
    serve(&fleet, &document("", "scheduler: rr, "));
    for node in [LVS_1.0, LVS_2.0] {
        let daemons = fleet.ctl.run(&["ipvs", "daemon", "--node", node]).succeeded();
        assert!(!daemons.contains("sync daemon"), "{node}: {daemons}");
        shows(&fleet, node, "timeouts", "900");
        let both: Vec<String> =
            sysctl(&fleet, node, "sync_threshold").split_whitespace().map(Into::into).collect();
        assert_eq!(both, ["3", "50"], "sync_threshold of {node} is given back");
        assert_eq!(sysctl(&fleet, node, "drop_entry"), "0");
    }
}
