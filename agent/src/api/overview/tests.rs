//! What an operator reads, from what the members said.

use std::collections::BTreeSet;

use lvsmesh_core::command::{Command, Discovered, Readiness};
use lvsmesh_core::model::{FileSource, RealServer};

use lvsmesh_proto::v1::StatusResponse;

use super::*;
use crate::fixtures::{LVS_1, LVS_2, TestFleet, WEB_1, document, ip};

const TERM: u64 = 7;

fn raft() -> RaftStatus {
    RaftStatus {
        id: LVS_1,
        term: TERM,
        leader: Some(LVS_1),
        leading: true,
        settled: true,
        voters: BTreeSet::from([LVS_1, LVS_2, WEB_1]),
        ..RaftStatus::default()
    }
}

/// A follower of lvs-1 to which nothing happened.
fn said(revision: u64) -> SelfResponse {
    let status =
        v1::NodeStatus { reachable: true, revision, converged: true, ..v1::NodeStatus::default() };
    SelfResponse {
        status: Some(status),
        raft_term: TERM,
        raft_leader: LVS_1.0,
        eligible: true,
        ..SelfResponse::default()
    }
}

fn holding(revision: u64) -> SelfResponse {
    SelfResponse {
        holding: true,
        epoch: TERM,
        lease_remaining_ms: 150,
        vips_attached: vec![ip(100).to_string()],
        ..said(revision)
    }
}

fn all_well(fleet: &TestFleet) -> Answers {
    let revision = fleet.state.revision();
    Answers::from([
        (LVS_1, Ok(holding(revision))),
        (LVS_2, Ok(said(revision))),
        (WEB_1, Ok(said(revision))),
    ])
}

fn see(fleet: &TestFleet, answers: &Answers) -> StatusResponse {
    overview(&fleet.state, &raft(), answers, "lvs-2")
}

fn change(answers: &mut Answers, id: NodeId, change: impl FnOnce(&mut SelfResponse)) {
    change(answers.get_mut(&id).unwrap().as_mut().unwrap());
}

#[test]
fn a_fleet_that_is_well_has_nothing_to_warn_of() {
    let fleet = TestFleet::new();
    let status = see(&fleet, &all_well(&fleet));

    assert_eq!(status.warnings, [""; 0]);
    assert_eq!(
        (status.fleet.as_str(), status.leader.as_str(), status.quorum),
        ("blue", "lvs-1", true)
    );
    let vip = &status.vips[0];
    assert_eq!((vip.holder.as_str(), vip.epoch, vip.lease_remaining_ms), ("lvs-1", TERM, 150));
    assert_eq!(vip.also_on, [""; 0]);
    let service = &status.services[0];
    assert_eq!((service.ready, service.total), (2, 2));
    assert_eq!(service.listens, ["tcp 192.168.3.100:80"]);
    let raft = status.nodes.iter().map(|node| node.raft.as_str()).collect::<Vec<_>>();
    assert_eq!(raft, ["voter", "voter", "witness"]);
}

#[test]
fn a_quorum_is_a_majority_that_names_a_leader_who_agrees() {
    let fleet = TestFleet::new();
    let silent = || Err("no answer".to_owned());
    let other = |term, leader: NodeId| {
        Ok(SelfResponse { raft_term: term, raft_leader: leader.0, ..said(1) })
    };
    let leader = || Ok(holding(1));
    let follower = || Ok(said(1));

    #[rustfmt::skip]
    let cases = [
        // why                                      lvs-1                   lvs-2                   web-1                   quorum  leader
        ("all agree",                               leader(),               follower(),             follower(),             true,   "lvs-1"),
        ("one is silent",                           leader(),               silent(),               follower(),             true,   "lvs-1"),
        ("the leader is silent",                    silent(),               follower(),             follower(),             false,  "lvs-1"),
        ("two are silent",                          leader(),               silent(),               silent(),               false,  "lvs-1"),
        ("one remembers an older term",             leader(),               silent(),               other(TERM - 1, LVS_1), false,  "lvs-1"),
        ("all know of none",                        other(TERM, NodeId(0)), other(TERM, NodeId(0)), other(TERM, NodeId(0)), false,  ""),
        ("an old leader beside a new majority",     leader(),               other(TERM + 1, LVS_2), other(TERM + 1, LVS_2), true,   "lvs-2"),
        ("the one they name knows nothing of it",   leader(),               leader(),               other(TERM, LVS_2),     true,   "lvs-1"),
        ("each names itself",                       leader(),               other(TERM, LVS_2),     other(TERM, WEB_1),     false,  "web-1"),
    ];
    for (why, one, two, three, quorum, leader) in cases {
        let answers = Answers::from([(LVS_1, one), (LVS_2, two), (WEB_1, three)]);
        let status = see(&fleet, &answers);
        assert_eq!((status.quorum, status.leader.as_str()), (quorum, leader), "{why}");
        let warned = status.warnings.iter().any(|line| line.starts_with("no quorum"));
        assert_eq!(warned, !quorum, "{why}: {:?}", status.warnings);
    }
}

#[test]
fn what_is_wrong_is_told_in_one_line_each_most_urgent_first() {
    let mut fleet = TestFleet::new();
    let mut document = document();
    document.vips[0].preference = vec!["web-1".into(), "lvs-9".into()];
    document.pools[0].source = PoolSource::Discovery(Discovery::File(FileSource {
        path: "/etc/pool.json".into(),
        interval: std::time::Duration::from_secs(5),
    }));
    fleet.apply(document);
    let real_server = |last| RealServer::new(ip(last), 80, 1);
    fleet.run(Command::Discovered(Discovered {
        pool: "web".into(),
        status: SourceStatus::Stale("the file is gone".into()),
        real_servers: vec![real_server(3), real_server(102)],
    }));
    let fault = Some("VIP 192.168.3.100 is not on lo".to_owned());
    fleet.run(Command::Ready(Readiness { node: LVS_2, digest: 1, fault }));

    let mut answers = all_well(&fleet);
    answers.insert(WEB_1, Err("connection refused".into()));
    change(&mut answers, LVS_1, |said| said.holding = false);
    change(&mut answers, LVS_2, |said| {
        said.eligible = false;
        said.ineligible_reason = "eth0 has no carrier".into();
        let status = said.status.as_mut().unwrap();
        status.foreign = vec!["tcp 192.0.2.9:25".into()];
        status.drift_repaired = 2;
        status.last_drift = "service tcp 192.168.3.100:80 was removed".into();
        status.warnings = vec!["the table could not be read".into()];
    });

    insta::assert_snapshot!(see(&fleet, &answers).warnings.join("\n"), @r"
    VIP group web has no holder
    VIP group web: an address is also on lvs-1, which does not hold it
    node web-1 (192.168.3.3:7400) does not answer: connection refused
    real server 192.168.3.102:80 (lvs-2) gets no traffic: VIP 192.168.3.100 is not on lo
    pool web: its file source is stale: the file is gone
    director lvs-2 cannot hold VIPs: eth0 has no carrier
    lvs-2: the table could not be read
    lvs-2: service tcp 192.0.2.9:25 was not made by lvsmesh and is left alone
    lvs-2: 2 changes by others repaired since the agent started, last: service tcp 192.168.3.100:80 was removed
    VIP group web: its preference names a node that is no director, web-1
    VIP group web: its preference names an unknown node, lvs-9
    ");
}

#[test]
fn an_address_that_stayed_behind_is_seen() {
    let fleet = TestFleet::new();
    let mut answers = all_well(&fleet);
    assert!(!see(&fleet, &answers).vips[0].silent);
    change(&mut answers, LVS_1, |said| said.vips_attached.clear());
    assert!(see(&fleet, &answers).vips[0].silent, "it holds, and has nothing");
    change(&mut answers, LVS_1, |said| said.vips_attached = vec![ip(100).to_string()]);
    change(&mut answers, LVS_2, |said| said.vips_attached = vec![ip(100).to_string()]);
    let status = see(&fleet, &answers);
    assert_eq!(status.vips[0].also_on, ["lvs-2"]);
    assert_eq!(status.warnings.len(), 1, "{:?}", status.warnings);
    assert!(status.warnings[0].contains("also on lvs-2"), "{:?}", status.warnings);
}

#[test]
fn directors_that_would_choose_differently_are_named() {
    let fleet = TestFleet::new();
    let mut answers = all_well(&fleet);
    let hashed = |digest| {
        let service = "tcp 192.168.3.100:80".to_owned();
        vec![lvsmesh_proto::internal::v1::HashedService { service, digest }]
    };
    change(&mut answers, LVS_1, |said| said.hashed = hashed(1));
    assert_eq!(see(&fleet, &answers).warnings, [""; 0], "a standby of both roles has no table");
    change(&mut answers, LVS_2, |said| said.hashed = hashed(1));
    assert_eq!(see(&fleet, &answers).warnings, [""; 0]);
    change(&mut answers, LVS_2, |said| said.hashed = hashed(2));
    let status = see(&fleet, &answers);
    let [warning] = &status.warnings[..] else { panic!("{:?}", status.warnings) };
    assert!(
        warning.contains("tcp 192.168.3.100:80: the tables of lvs-1, lvs-2 differ"),
        "{warning}"
    );
}

#[test]
fn who_a_node_is_comes_from_the_fleet_and_not_from_itself() {
    let fleet = TestFleet::new();
    let mut answers = all_well(&fleet);
    change(&mut answers, WEB_1, |said| {
        let status = said.status.as_mut().unwrap();
        status.name = "lvs-1".into();
        status.id = 1;
        status.roles = vec!["director".into()];
    });
    let status = see(&fleet, &answers);
    let node = &status.nodes[2];
    assert_eq!((node.id, node.name.as_str()), (3, "web-1"));
    assert_eq!(node.roles, ["realserver"]);
}
