//! The guard: cleans up after a dead agent, ends a hung one, and frees the voters for the successor.

use std::time::{Duration, Instant};

use lvsmesh_tests::capture::Frame;
use lvsmesh_tests::document::{Document, LVS_1, LVS_2, RS_1};
use lvsmesh_tests::fleet::{self, Options};
use lvsmesh_tests::{Fleet, eventually, pace};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::holder::Watched;

/// The guard of a node's agent.
pub(super) fn guard_of(fleet: &Fleet, name: &str) -> Option<Pid> {
    let is_guard = |pid: &Pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        words.next().is_some_and(|program| program.ends_with(b"lvs-agent"))
            && words.next() == Some(b"guard")
    };
    fleet.lab.node(name).namespace.processes().into_iter().find(is_guard)
}

/// Kills an agent's guard, and then the agent: nobody cleans up.
pub(super) fn kill_with_guard(fleet: &mut Fleet, name: &str) {
    let guard = guard_of(fleet, name).expect("a director has a guard");
    kill(guard, Signal::SIGKILL).expect("it runs");
    fleet.kill(name);
}

fn resigned(watched: &Watched, since: Instant) -> bool {
    let resigned = Frame::Advert { version: 2, vrid: 51, priority: 0 };
    let frames = watched.capture.frames();
    frames.iter().any(|seen| seen.at >= since && seen.from == LVS_1.0 && seen.frame == resigned)
}

/// What a voter logs when it is freed.
const FREED: &str = "a promise is void: its holder has stopped";
const BY_A_GUARD: &str = "by_its_guard=true";

fn freed_by_a_guard(watched: &Watched, name: &str) -> bool {
    let logged = watched.fleet.agent(name).logged();
    logged.lines().any(|line| line.contains(FREED) && line.contains(BY_A_GUARD))
}

/// A kill takes a moment, and the next HOLD is due within 25 ms: the voters are freed long before what they promised has run out.
#[test]
fn the_guard_of_a_killed_holder_frees_the_voters_and_says_goodbye() {
    let mut watched = Watched::start();
    let at = watched.fleet.kill(LVS_1.0);
    watched.moved(at, Duration::from_secs(2));
    eventually("backups that are no members are told", Duration::from_secs(10), || {
        resigned(&watched, at).then_some(())
    });
    for name in [LVS_2.0, RS_1.0] {
        eventually(&format!("{name} was freed by the guard"), Duration::from_secs(10), || {
            freed_by_a_guard(&watched, name).then_some(())
        });
    }
    let logged = watched.fleet.agent(LVS_2.0).logged();
    let (freed, won) = (logged.find(BY_A_GUARD), logged.find("the lease is won"));
    assert!(freed.is_some() && freed < won, "freed first, then elected:\n{logged}");
    eventually("the guard is done", Duration::from_secs(10), || {
        guard_of(&watched.fleet, LVS_1.0).is_none().then_some(())
    });

    // What the guard said holds nobody back: the node's next agent holds when it is asked to.
    watched.fleet.agent_mut(LVS_1.0).start();
    watched.fleet.converged();
    let at = Instant::now();
    let _moved = watched.fleet.ctl.run(&["failover", "--to", LVS_1.0]).succeeded();
    watched.answered_by(LVS_1.0, at);
    watched.alone();
}

#[test]
fn a_holder_that_stands_still_is_killed_by_its_guard_and_replaced() {
    let mut watched = Watched::start();
    let at = Instant::now();
    watched.fleet.agent(LVS_1.0).process().signal(Signal::SIGSTOP);
    let guarded = || guard_of(&watched.fleet, LVS_1.0).is_none().then_some(());
    eventually("the guard has done its work", Duration::from_secs(20), guarded);
    let logged = watched.fleet.agent(LVS_1.0).logged();
    let (killed, said) = (logged.find("killing the agent"), logged.find("relinquished for a dead"));
    assert!(killed.is_some() && killed < said, "killed first, then relinquished:\n{logged}");
    // A stopped process ends of no other signal.
    let status = watched.fleet.agent_mut(LVS_1.0).end(Signal::SIGCONT);
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(Signal::SIGKILL as i32)
    );
    watched.answered_by(LVS_2.0, at);
    watched.fleet.held_by(LVS_2.0);
    // Its kernel has the address and goes on, but for the gate.
    assert_eq!(watched.capture.answered_twice(lvsmesh_tests::document::VIP), []);
    assert!(resigned(&watched, at));
}

#[test]
fn a_guard_that_dies_is_replaced_by_one_that_knows_as_much() {
    let mut watched = Watched::start();
    let epoch = |watched: &Watched| watched.fleet.ctl.status().map(|status| status.vips[0].epoch);
    let before = epoch(&watched);
    let first = guard_of(&watched.fleet, LVS_1.0).expect("a director has a guard");
    kill(first, Signal::SIGKILL).unwrap();
    eventually("there is another", Duration::from_secs(10), || {
        guard_of(&watched.fleet, LVS_1.0).filter(|pid| *pid != first)
    });
    pace::throughout("the holder stays", Duration::from_secs(2), || {
        let attached = watched.fleet.attached();
        (attached != [LVS_1.0]).then(|| format!("{attached:?} have the VIP"))
    });
    assert_eq!(epoch(&watched), before, "one tenure");
    let at = watched.fleet.kill(LVS_1.0);
    watched.moved(at, Duration::from_secs(2));
    eventually("the voters were freed by it", Duration::from_secs(10), || {
        freed_by_a_guard(&watched, LVS_2.0).then_some(())
    });
}

/// Nobody is told anything by the guard of an agent that ended by itself: it has told them.
#[test]
fn the_guard_of_an_agent_that_stops_cleanly_says_nothing() {
    let mut watched = Watched::start();
    let at = Instant::now();
    assert!(watched.fleet.agent_mut(LVS_1.0).end(Signal::SIGTERM).success());
    watched.moved(at, Duration::from_secs(2));
    assert!(!watched.fleet.agent(LVS_1.0).logged().contains("relinquished for a dead"));
    assert!(!freed_by_a_guard(&watched, LVS_2.0));
    assert!(guard_of(&watched.fleet, LVS_1.0).is_none());
}

/// A packet socket takes the kernel a grace period of RCU to close, and every group has some: a process with many of them ends long after it has
/// done its last. The guard does not wait for that, or what voters promised would run out first.
#[test]
fn the_guard_of_a_killed_holder_with_many_groups_frees_the_voters_as_soon() {
    // Leases that other work on this machine does not cut short; closing all those sockets takes longer than even these promises.
    let options = Options { profile: "relaxed".to_owned(), ..Options::default() };
    let mut fleet = Fleet::start_on(fleet::machines(), &options);
    let group = |number: u8| {
        format!(
            "  - {{ name: more-{number}, addresses: [192.168.3.{number}], interface: eth0, preference: [{}, {}], \
             vrrp: {{ vrid: {number}, version: 3, advert_interval: 1s, priority: 200 }} }}\n",
            LVS_1.0, LVS_2.0
        )
    };
    let vips = (150..180).map(group).collect();
    fleet.apply(&Document { attach: "responder", vips, ..Document::vip_alone() });
    fleet.converged();
    fleet.until("the first director holds", Duration::from_secs(20), |status| {
        status.vips.len() == 31 && status.vips.iter().all(|vip| vip.holder == LVS_1.0)
    });
    let before = fleet.agent(LVS_2.0).logged().len();
    fleet.kill(LVS_1.0);
    let logged = eventually("the second director holds", Duration::from_secs(20), || {
        let logged = fleet.agent(LVS_2.0).logged().split_off(before);
        logged.contains("the lease is won").then_some(logged)
    });
    let (freed, won) = (logged.find(BY_A_GUARD), logged.find("the lease is won"));
    assert!(freed.is_some() && freed < won, "freed first, then elected:\n{logged}");
}
