//! Nodes that die, return, lose their disks; and a fleet without a majority.

use std::time::Duration;

use lvsmesh_tests::document::{Document, LVS_1, LVS_2, RS_1, VIP};
use lvsmesh_tests::fleet::{Options, machines};
use lvsmesh_tests::{Fleet, eventually, link, pace};
use nix::sys::signal::Signal;

fn same_revision(fleet: &Fleet, at_least: u64) -> u64 {
    let status = fleet.until("three nodes show one revision", Duration::from_secs(40), |status| {
        status.nodes.len() == 3
            && status.revision >= at_least
            && status.nodes.iter().all(|node| {
                node.reachable && node.revision == status.revision && node.raft != "learner"
            })
    });
    status.revision
}

#[test]
fn any_node_may_be_killed_and_restarted() {
    let mut fleet = Fleet::start();
    fleet.apply(&Document::vip_alone());
    let mut revision = same_revision(&fleet, 1);
    for name in fleet.names() {
        fleet.kill(&name);
        // Changed while it was away, so that it has something to catch up with.
        let mut document = Document::vip_alone();
        document.advert_interval = if revision.is_multiple_of(2) { "2s" } else { "1s" };
        document.vrrp_version = 2;
        eventually("two of three take a change", Duration::from_secs(20), || {
            (fleet.ctl.apply(&document.yaml(), &["-m", "while one was away"]).code == 0)
                .then_some(())
        });
        fleet.agent_mut(&name).start();
        revision = same_revision(&fleet, revision + u64::from(revision > 1));
    }
    fleet.holder();
}

#[test]
fn a_node_whose_disk_was_emptied_rejoins_under_its_name_with_a_new_id() {
    let mut fleet = Fleet::start();
    fleet.apply(&Document::vip_alone());
    let revision = same_revision(&fleet, 1);
    for name in [RS_1.0, LVS_2.0, LVS_1.0] {
        let old = fleet
            .until("the old id", Duration::from_secs(10), |status| status.node(name).is_some());
        let old = old.node(name).map(|node| node.id);
        fleet.kill(name);
        fleet.agent(name).lose_disk();
        let other = if name == LVS_1.0 { LVS_2 } else { LVS_1 };
        eventually(&format!("{name} is taken back"), Duration::from_secs(30), || {
            fleet
                .agent(name)
                .once(&["join", &format!("{}:7400", other.1)])
                .status
                .success()
                .then_some(())
        });
        fleet.agent_mut(name).start();
        assert_eq!(same_revision(&fleet, revision), revision);
        let new = fleet
            .until("the new id", Duration::from_secs(10), |status| status.node(name).is_some());
        assert_ne!(new.node(name).map(|node| node.id), old, "an id is never used again");
    }
    fleet.holder();
}

#[test]
fn a_holder_holds_through_every_change_of_who_votes() {
    let mut fleet = Fleet::start();
    fleet.apply(&Document::vip_alone());
    fleet.held_by(LVS_1.0);
    let epoch = |fleet: &Fleet| {
        let status = fleet.ctl.status().unwrap_or_default();
        status.vips.first().map(|vip| (vip.holder.clone(), vip.epoch))
    };
    let before = epoch(&fleet);
    assert!(before.as_ref().is_some_and(|(holder, epoch)| holder == LVS_1.0 && *epoch > 0));
    for (name, id) in [(RS_1.0, 4), (LVS_2.0, 5)] {
        // A new voter, then an old one less.
        fleet.kill(name);
        fleet.agent(name).lose_disk();
        fleet.agent(name).join(&format!("{}:7400", LVS_1.1));
        fleet.agent_mut(name).start();
        fleet.until("the new id votes", Duration::from_secs(40), |status| {
            status.nodes.len() == 3
                && status.node(name).is_some_and(|node| node.id == id && node.raft != "learner")
        });
        assert_eq!(epoch(&fleet), before, "{name} came back, and the VIP was let go");
    }
}

#[test]
fn without_a_majority_no_node_holds_and_what_was_set_up_stays() {
    let mut fleet = Fleet::start();
    fleet.apply(&Document::reference("0s"));
    let realserver = fleet.lab.node(RS_1.0).namespace.clone();
    let both = fleet.lab.node(LVS_2.0).namespace.clone();
    for namespace in [&realserver, &both] {
        eventually("the realservers' side stands", Duration::from_secs(20), || {
            link::has_address(namespace, "lo", VIP).then_some(())
        });
    }
    fleet.kill(LVS_1.0);
    fleet.kill(RS_1.0);
    fleet.ctl.endpoints = vec![format!("{}:7400", LVS_2.1)];
    let run = eventually("lvsctl says that there is no quorum", Duration::from_secs(30), || {
        let run = fleet.ctl.run(&["status"]);
        (run.code == 6).then_some(run)
    });
    assert!(format!("{}{}", run.out, run.err).contains("quorum"), "{}{}", run.out, run.err);
    // A guard is quick: the one that is left may have won a lease before the third was killed.
    eventually("nobody has the VIP", Duration::from_secs(20), || {
        fleet.attached().is_empty().then_some(())
    });
    for namespace in [&realserver, &both] {
        assert!(link::has_address(namespace, "lo", VIP), "lo addresses stay");
    }
    for command in [&["get"][..], &["history"], &["export", "keepalived"]] {
        let run = fleet.ctl.run(command);
        assert_eq!(run.code, 0, "{command:?}: {}{}", run.out, run.err);
        assert!(run.err.contains("a newer revision may exist"), "{command:?}: {}", run.err);
    }
    let refused = fleet.ctl.apply(&Document::vip_alone().yaml(), &[]);
    assert_eq!(refused.code, 6, "nothing can be written\n{}{}", refused.out, refused.err);
}

#[test]
fn the_desired_state_is_saved_looked_into_and_restored() {
    let mut fleet = Fleet::start();
    fleet.apply(&Document::vip_alone());
    let first = same_revision(&fleet, 1);
    let file = fleet.ctl.directory.join("fleet.snapshot");
    let file = file.to_string_lossy().into_owned();
    // Through an agent that does not lead.
    let mut there = fleet.ctl.clone();
    there.endpoints = vec![format!("{}:7400", RS_1.1)];
    let saved = there.run(&["snapshot", "save", &file]).succeeded();
    assert!(saved.starts_with(&format!("revision {first} saved to ")), "{saved}");
    let shown = there.run(&["snapshot", "inspect", &file]).succeeded();
    for part in ["fleet     lab", "epoch     0", "1 VIP groups", LVS_1.0, LVS_2.0, RS_1.0] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }

    let mut changed = Document::vip_alone();
    changed.advert_interval = "2s";
    fleet.apply(&changed);
    let pending = there.run(&["snapshot", "restore", &file, "--dry-run"]);
    assert_eq!(pending.code, 3, "{}{}", pending.out, pending.err);
    assert!(pending.out.contains("advert_interval"), "{}", pending.out);
    let unasked = there.run(&["snapshot", "restore", &file]);
    assert_eq!(unasked.code, 2, "nobody can answer the question: {}", unasked.err);
    assert!(unasked.err.contains("--yes"), "{}", unasked.err);
    let restored = there.run(&["snapshot", "restore", &file, "--yes"]).succeeded();
    assert!(restored.starts_with(&format!("revision {}: 1 change", first + 2)), "{restored}");
    let again = there.run(&["snapshot", "restore", &file, "--yes"]).succeeded();
    assert!(again.contains("nothing changed"), "{again}");
    let history = there.run(&["history", "-n", "1"]).succeeded();
    assert!(
        history.contains(&format!("restored revision {first} from a snapshot of")),
        "{history}"
    );

    // One byte.
    let mut bytes = std::fs::read(&file).unwrap_or_default();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    assert!(std::fs::write(&file, &bytes).is_ok());
    let refused = there.run(&["snapshot", "restore", &file, "--yes"]);
    assert_eq!(refused.code, 1, "{}", refused.out);
    assert!(refused.err.contains("its checksum is wrong"), "{}", refused.err);

    fleet.kill(LVS_1.0);
    fleet.kill(LVS_2.0);
    let refused = there.run(&["snapshot", "save", &file]);
    assert_eq!(refused.code, 6, "{}{}", refused.out, refused.err);
    let stale = there.run(&["snapshot", "save", &file, "--stale"]);
    assert_eq!(stale.code, 0, "{}", stale.err);
    assert!(stale.err.contains("a newer revision may exist"), "{}", stale.err);
    let shown = there.run(&["snapshot", "inspect", &file]).succeeded();
    assert!(shown.contains(&format!("revision  {} (", first + 2)), "{shown}");
    assert!(shown.contains("was not asked"), "{shown}");
}

#[test]
fn a_holder_without_a_majority_lets_go() {
    let mut fleet = Fleet::start();
    fleet.apply(&Document::vip_alone());
    fleet.held_by(LVS_1.0);
    fleet.kill(LVS_2.0);
    fleet.held_by(LVS_1.0);
    fleet.kill(RS_1.0);
    eventually("nobody has the VIP", Duration::from_secs(10), || {
        fleet.attached().is_empty().then_some(())
    });
    pace::throughout("nobody takes it again", Duration::from_secs(3), || {
        let attached = fleet.attached();
        (!attached.is_empty()).then(|| format!("{attached:?} have the VIP"))
    });
    fleet.ctl.endpoints = vec![format!("{}:7400", LVS_1.1)];
    eventually("lvsctl says that there is no quorum", Duration::from_secs(20), || {
        (fleet.ctl.run(&["status"]).code == 6).then_some(())
    });
    fleet.agent_mut(RS_1.0).start();
    fleet.held_by(LVS_1.0);
}

#[test]
fn a_node_that_was_removed_while_it_was_down_is_told_and_leaves_its_kernel_as_it_is() {
    let mut fleet = Fleet::start();
    fleet.apply(&Document::reference("0s"));
    let namespace = fleet.lab.node(RS_1.0).namespace.clone();
    let carries = || link::has_address(&namespace, "lo", VIP);
    eventually("the realserver's side stands", Duration::from_secs(20), || carries().then_some(()));
    // At once: its disk does not know yet that what it has applied was committed, and nobody will tell it again.
    fleet.kill(RS_1.0);
    let _removed = fleet.ctl.run(&["node", "remove", RS_1.0, "--yes"]).succeeded();
    fleet.agent_mut(RS_1.0).start();

    let mut there = fleet.ctl.clone();
    there.endpoints = vec![format!("{}:7400", RS_1.1)];
    let run = eventually("its agent says that it is out", Duration::from_secs(30), || {
        let run = there.run(&["status"]);
        run.out.contains("no node of the fleet (removed)").then_some(run)
    });
    assert!(run.out.contains("was removed from fleet"), "{}{}", run.out, run.err);
    let list = there.run(&["node", "list"]).succeeded();
    let line = list.lines().find(|line| line.starts_with(RS_1.0)).unwrap_or_default();
    assert!(line.contains("removed"), "{list}");
    pace::throughout("its kernel stays as it is", Duration::from_secs(3), || {
        (!carries()).then(|| "the VIP has gone from lo".to_owned())
    });
    fleet.agent_mut(RS_1.0).end(Signal::SIGTERM);
    assert!(carries(), "a stopped agent changes nothing");
    fleet.agent(RS_1.0).succeed(&["leave"]);
    assert!(!carries(), "leave takes it out");
    // And in again, under its old name with a new id.
    fleet.agent(RS_1.0).join(&format!("{}:7400", LVS_1.1));
    fleet.agent_mut(RS_1.0).start();
    fleet.until("it is back", Duration::from_secs(40), |status| {
        status.node(RS_1.0).is_some_and(|node| node.id == 4 && node.raft == "witness")
    });
}

/// Of two voters the one that stays must have taken the other's vote before its machine may be switched off.
#[test]
fn a_leader_that_is_removed_may_be_switched_off_at_once() {
    let options = Options { two: true, pure: true, ..Options::default() };
    let mut fleet = Fleet::start_on(machines(), &options);
    fleet.apply(&Document::vip_alone());
    fleet.held_by(LVS_1.0);
    let _removed = fleet.ctl.run(&["node", "remove", LVS_1.0, "--yes"]).succeeded();
    fleet.kill(LVS_1.0);
    fleet.ctl.endpoints = vec![format!("{}:7400", LVS_2.1)];
    fleet.held_by(LVS_2.0);
    let changed = Document { advert_interval: "2s", ..Document::vip_alone() };
    fleet.apply(&changed);
    let status = fleet.until("one node is left", Duration::from_secs(20), |status| {
        status.quorum && status.nodes.len() == 1
    });
    assert_eq!(status.leader, LVS_2.0);
}

#[test]
fn a_node_without_which_nothing_could_be_decided_is_not_removed() {
    let mut fleet = Fleet::start();
    fleet.apply(&Document::vip_alone());
    same_revision(&fleet, 1);
    fleet.kill(RS_1.0);
    fleet.until("it is missed", Duration::from_secs(20), |status| {
        status.node(RS_1.0).is_some_and(|node| !node.reachable)
    });
    // The leader says "lately" for some while yet.
    std::thread::sleep(pace::scaled(Duration::from_secs(4)));
    let refused = fleet.ctl.run(&["node", "remove", LVS_2.0, "--yes"]);
    let wanted =
        format!("without node `{}` no majority of voters would be left: {} ", LVS_2.0, RS_1.0);
    assert!(refused.err.contains(&wanted), "{}", refused.err);
    assert_eq!(refused.code, 1);
    // The dead one first.
    let _removed = fleet.ctl.run(&["node", "remove", RS_1.0, "--yes"]).succeeded();
    let _removed = fleet.ctl.run(&["node", "remove", LVS_2.0, "--yes"]).succeeded();
    fleet.held_by(LVS_1.0);
}

#[test]
fn a_node_is_removed_and_its_agent_cleans_up() {
    let mut fleet = Fleet::start();
    fleet.apply(&Document::vip_alone());
    fleet.held_by(LVS_1.0);
    let _removed = fleet.ctl.run(&["node", "remove", LVS_1.0, "--yes"]).succeeded();
    fleet.held_by(LVS_2.0);
    // Its own agent, which would be asked first, shows it as removed.
    let all = std::mem::replace(&mut fleet.ctl.endpoints, vec![format!("{}:7400", LVS_2.1)]);
    let status = fleet
        .until("two nodes are left", Duration::from_secs(20), |status| status.nodes.len() == 2);
    fleet.ctl.endpoints = all;
    assert!(status.node(LVS_1.0).is_none());
    fleet.agent_mut(LVS_1.0).end(Signal::SIGTERM);
    fleet.agent(LVS_1.0).succeed(&["leave"]);
    fleet.held_by(LVS_2.0);
}
