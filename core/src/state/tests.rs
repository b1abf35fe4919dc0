use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{
    Attach, Check, CheckKind, DnsRecord, DnsSource, Fleet, RealServer, Role, Scheduler, Service,
    Vip, Vrrp, VrrpVersion,
};

fn candidate(name: &str, last: u8) -> Candidate {
    let address = IpAddr::from([192, 0, 2, last]);
    Candidate {
        name: name.to_owned(),
        roles: [Role::Director].into(),
        addresses: vec![address],
        grpc: SocketAddr::new(address, 7400),
        lease: SocketAddr::new(address, 7401),
    }
}

fn server(last: u8) -> RealServer {
    RealServer::new(IpAddr::from([10, 0, 0, last]), 80, 1)
}

fn document(servers: &[u8]) -> Document {
    Document {
        fleet: Fleet { name: "blue".into(), ..Fleet::default() },
        vips: vec![Vip {
            name: "web".into(),
            addresses: vec![IpAddr::from([192, 0, 2, 100])],
            interface: "eth0".into(),
            excluded: 0,
            attach: Attach::Address,
            garp: crate::model::Garp::default(),
            arbiters: Vec::new(),
            preference: vec![],
            vrrp: Vrrp {
                vrid: 51,
                version: VrrpVersion::V2,
                advert_interval: Duration::from_secs(1),
                priority: 200,
                auth: None,
                checksum: crate::model::Checksum::Pseudo,
                coexist: crate::model::Coexist::Yield,
                peers: crate::model::Peers::Multicast,
            },
        }],
        pools: vec![Pool {
            name: "web".into(),
            source: PoolSource::Listed(servers.iter().copied().map(server).collect()),
            check: Some(Check {
                kind: CheckKind::Tcp,
                port: None,
                interval: Duration::from_secs(6),
                timeout: Duration::from_secs(3),
                retries: 3,
                delay_before_retry: Duration::from_secs(3),
            }),
            min_healthy: 0,
        }],
        services: vec![Service::new("web", "web", 80, "web")],
    }
}

fn dns(name: &str) -> PoolSource {
    PoolSource::Discovery(Discovery::Dns(DnsSource {
        name: name.to_owned(),
        record: DnsRecord::Srv,
        port: None,
        weight: 1,
        servers: vec![],
        interval: Duration::from_secs(5),
    }))
}

fn apply(document: Document, expected_revision: Option<u64>) -> Command {
    Command::Apply(Apply {
        document,
        expected_revision,
        author: "operator/ann".into(),
        message: "why".into(),
        unix_ms: 1_700_000_000_000,
    })
}

fn down(last: u8) -> Command {
    Command::Health(vec![HealthChange {
        pool: "web".into(),
        real_server: server(last).socket_addr(),
        fault: Some("connection refused".into()),
    }])
}

fn found(servers: &[u8], status: SourceStatus) -> Command {
    let real_servers = servers.iter().copied().map(server).collect();
    Command::Discovered(Discovered { pool: "web".into(), status, real_servers })
}

type Change = fn(&mut Document);
type Damage = fn(&mut Parts);

/// A fleet `blue` with members `a` (1) and `b` (2), and one log index after the other.
struct Fixture {
    state: State,
    index: u64,
}

impl Fixture {
    fn new() -> Self {
        let mut fixture = Self { state: State::init("blue", candidate("a", 1)), index: 0 };
        let admitted = fixture.run(Command::Admit(candidate("b", 2)));
        assert_eq!(admitted, Outcome::Admitted { id: NodeId(2) });
        fixture
    }

    fn run(&mut self, command: Command) -> Outcome {
        self.index += 1;
        self.state.apply(self.index, command)
    }

    fn is_down(&self, last: u8) -> bool {
        self.state.health_fault("web", server(last).socket_addr()).is_some()
    }
}

#[test]
fn a_document_becomes_the_next_revision() {
    let mut fleet = Fixture::new();
    assert_eq!(fleet.state.revision(), 0);

    assert_eq!(fleet.run(apply(document(&[3]), Some(0))), Outcome::Applied { revision: 1 });
    assert_eq!(fleet.run(apply(document(&[3, 4]), None)), Outcome::Applied { revision: 2 });

    assert_eq!(**fleet.state.document(), document(&[3, 4]));
    assert_eq!(*fleet.state.at(1).unwrap().document, document(&[3]));
    let last = &fleet.state.history().next_back().unwrap().summary;
    assert_eq!(
        (last.revision, last.author.as_str(), last.message.as_str()),
        (2, "operator/ann", "why")
    );
    assert_eq!(last.changes, ["pools/web: real server 10.0.0.4:80 added"]);
}

#[test]
fn the_document_in_force_makes_no_revision_whatever_was_expected() {
    let mut fleet = Fixture::new();
    fleet.run(apply(document(&[3]), None));
    for expected in [None, Some(0), Some(1), Some(9)] {
        let outcome = fleet.run(apply(document(&[3]), expected));
        assert_eq!(outcome, Outcome::Unchanged { revision: 1 }, "{expected:?}");
    }
    assert_eq!(fleet.state.history().len(), 1);
}

#[test]
fn a_second_writer_on_the_same_revision_is_turned_away_and_told_what_changed() {
    let mut fleet = Fixture::new();
    fleet.run(apply(document(&[3]), None));
    fleet.run(apply(document(&[3, 4]), Some(1)));
    fleet.run(apply(document(&[4]), Some(2)));

    let Outcome::Rejected(Rejection::Stale { expected, actual, since }) =
        fleet.run(apply(document(&[5]), Some(1)))
    else {
        panic!("not turned away");
    };
    assert_eq!((expected, actual), (1, 3));
    let changes: Vec<_> =
        since.iter().map(|summary| (summary.revision, &summary.changes[..])).collect();
    assert_eq!(
        changes,
        [
            (2, &["pools/web: real server 10.0.0.4:80 added".to_owned()][..]),
            (3, &["pools/web: real server 10.0.0.3:80 removed".to_owned()][..]),
        ]
    );
    assert_eq!(**fleet.state.document(), document(&[4]));
}

#[test]
fn a_revision_from_the_future_is_stale_too() {
    let mut fleet = Fixture::new();
    let stale = Rejection::Stale { expected: 4, actual: 0, since: vec![] };
    assert_eq!(fleet.run(apply(document(&[3]), Some(4))), Outcome::Rejected(stale));
}

#[test]
fn a_document_for_another_fleet_is_refused() {
    let mut fleet = Fixture::new();
    let mut other = document(&[3]);
    other.fleet.name = "green".into();
    let refused = Rejection::OtherFleet { actual: "blue".into(), given: "green".into() };
    assert_eq!(fleet.run(apply(other, None)), Outcome::Rejected(refused));
    assert_eq!(fleet.state.revision(), 0);
}

#[test]
fn the_last_200_revisions_are_remembered() {
    let mut fleet = Fixture::new();
    for revision in 1..=u64::try_from(HISTORY).unwrap() + 5 {
        let mut changed = document(&[3]);
        changed.pools[0].min_healthy = u32::try_from(revision).unwrap();
        assert_eq!(fleet.run(apply(changed, None)), Outcome::Applied { revision });
    }
    assert_eq!(fleet.state.history().len(), HISTORY);
    assert_eq!(fleet.state.history().next().unwrap().summary.revision, 6);
    assert!(fleet.state.at(5).is_none());
    assert_eq!(fleet.state.revision(), 205);
}

#[test]
fn a_name_that_joins_again_gets_an_id_that_was_never_used() {
    let mut fleet = Fixture::new();
    fleet.run(Command::Ready(Readiness { node: NodeId(2), digest: 7, fault: None }));
    assert!(fleet.state.readiness(NodeId(2)).is_some());

    let mut again = candidate("b", 9);
    again.roles = [Role::RealServer].into();
    assert_eq!(fleet.run(Command::Admit(again)), Outcome::Admitted { id: NodeId(3) });

    assert!(fleet.state.member(NodeId(2)).is_none());
    assert!(fleet.state.readiness(NodeId(2)).is_none());
    let member = fleet.state.member_by_name("b").unwrap();
    assert_eq!((member.id, member.is_director()), (NodeId(3), false));

    fleet.run(Command::Remove { name: "b".into() });
    assert_eq!(fleet.run(Command::Admit(candidate("c", 3))), Outcome::Admitted { id: NodeId(4) });
}

#[test]
fn removing_takes_the_readiness_along_but_never_the_last_voter() {
    let mut fleet = Fixture::new();
    fleet.run(Command::Ready(Readiness { node: NodeId(1), digest: 7, fault: None }));

    let unknown = Rejection::UnknownNode { name: "z".into() };
    assert_eq!(fleet.run(Command::Remove { name: "z".into() }), Outcome::Rejected(unknown));
    assert_eq!(fleet.run(Command::Remove { name: "a".into() }), Outcome::Removed { id: NodeId(1) });
    assert!(fleet.state.readiness(NodeId(1)).is_none());
    let last = Rejection::LastVoter { name: "b".into() };
    assert_eq!(fleet.run(Command::Remove { name: "b".into() }), Outcome::Rejected(last));
    assert_eq!(fleet.state.members().len(), 1);

    fleet.run(Command::Ready(Readiness { node: NodeId(1), digest: 8, fault: None }));
    assert!(fleet.state.readiness(NodeId(1)).is_none(), "a removed node has nothing to say");
    let departed = fleet.state.departed().map(|member| member.id).collect::<Vec<_>>();
    assert_eq!(departed, [NodeId(1)], "it must be reached until it is told");
}

#[test]
fn health_follows_the_document() {
    #[rustfmt::skip]
    let cases: [(&str, Change, bool); 6] = [
        // why                          what changes                                        .3 still down
        ("something else changed",      |d| d.pools[0].min_healthy = 1,                     true),
        ("a weight changed",            |d| d.pools[0].source = PoolSource::Listed(
                                            vec![RealServer { weight: 9, ..server(3) }]),   true),
        ("the real server left",        |d| d.pools[0].source = PoolSource::Listed(
                                            vec![server(4)]),                               false),
        ("the pool left",               |d| { d.pools.clear(); d.services.clear(); },       false),
        ("the pool has another name",   |d| d.pools[0].name = "new".into(),                 false),
        ("nobody probes any more",      |d| d.pools[0].check = None,                        false),
    ];
    for (why, change, still) in cases {
        let mut fleet = Fixture::new();
        fleet.run(apply(document(&[3, 4]), None));
        fleet.run(down(3));
        assert!(fleet.is_down(3), "{why}: setup");
        let mut changed = document(&[3, 4]);
        change(&mut changed);
        fleet.run(apply(changed, None));
        assert_eq!(fleet.is_down(3), still, "{why}");
        fleet.run(apply(document(&[3, 4]), None));
        assert_eq!(fleet.is_down(3), still, "{why}: coming back revives nothing");
    }
}

#[test]
fn verdicts_about_what_nobody_probes_are_ignored() {
    let mut fleet = Fixture::new();
    fleet.run(down(3));
    assert!(!fleet.is_down(3), "no document yet");
    fleet.run(apply(document(&[3]), None));
    fleet.run(down(4));
    assert!(!fleet.is_down(4), "not in the pool");
    fleet.run(down(3));
    assert!(fleet.is_down(3));
    let up = HealthChange { pool: "web".into(), real_server: server(3).socket_addr(), fault: None };
    fleet.run(Command::Health(vec![up]));
    assert!(!fleet.is_down(3));
}

#[test]
fn what_a_source_found_follows_the_document() {
    let asked = |name: &str| {
        let mut document = document(&[]);
        document.pools[0].source = dns(name);
        document
    };
    let mut fleet = Fixture::new();
    fleet.run(apply(document(&[3]), None));
    fleet.run(found(&[3], SourceStatus::Synced));
    assert!(fleet.state.discovered("web").is_none(), "a listed pool has no source");

    fleet.run(apply(asked("one"), None));
    fleet.run(found(&[3, 4], SourceStatus::Synced));
    fleet.run(down(3));
    fleet.run(down(4));
    fleet.run(found(&[4], SourceStatus::Synced));
    assert!(!fleet.is_down(3), "gone from the source");
    assert!(fleet.is_down(4));

    fleet.run(apply(asked("two"), None));
    let kept = fleet.state.discovered("web").unwrap();
    assert_eq!(kept.real_servers, [server(4)], "the last good set stands");
    assert!(matches!(kept.status, SourceStatus::Stale(_)));
    assert!(fleet.is_down(4));

    fleet.run(apply(document(&[4]), None));
    assert!(fleet.state.discovered("web").is_none());
}

#[test]
fn a_new_question_forgets_a_source_that_never_answered() {
    let mut asked = document(&[]);
    asked.pools[0].source = dns("one");
    let mut fleet = Fixture::new();
    fleet.run(apply(asked.clone(), None));
    fleet.run(found(&[], SourceStatus::Lost("no such name".into())));
    asked.pools[0].min_healthy = 1;
    fleet.run(apply(asked.clone(), None));
    assert!(fleet.state.discovered("web").is_some(), "the same question");
    asked.pools[0].source = dns("two");
    fleet.run(apply(asked, None));
    assert!(fleet.state.discovered("web").is_none());
}

#[test]
fn changes_name_the_object_and_both_values() {
    let old = document(&[3]);
    #[rustfmt::skip]
    let cases: [(Change, &[&str]); 13] = [
        (|_| {}, &[]),
        (|d| d.services[0].scheduler = Scheduler::Rr, &["services/web: scheduler wlc -> rr"]),
        (|d| d.services[0].persistence.timeout = Duration::from_secs(50), &["services/web: persistence 0s -> 50s"]),
        (|d| d.services.clear(), &["services/web: removed"]),
        (|d| d.services.push(Service::new("new", "web", 81, "web")), &["services/new: added"]),
        (|d| d.vips[0].preference = vec!["a".into()], &["vips/web: preference [] -> [a]"]),
        (|d| d.vips[0].addresses = vec![IpAddr::from([192, 0, 2, 101])],
            &["vips/web: address 192.0.2.100 removed; address 192.0.2.101 added"]),
        (|d| d.vips[0].vrrp.auth = Some(crate::model::Auth::Pass("secret".into())), &["vips/web: vrrp.auth added"]),
        (|d| d.pools[0].check = None, &["pools/web: check tcp -> none"]),
        (|d| d.pools[0].check.as_mut().unwrap().port = Some(81), &["pools/web: check.port none -> 81"]),
        (|d| d.pools[0].source = PoolSource::Listed(vec![RealServer { weight: 3, ..server(3) }]),
            &["pools/web: real server 10.0.0.3:80 weight 1 -> 3"]),
        (|d| d.pools[0].source = dns("_web._tcp.example."),
            &["pools/web: source 1 listed real servers -> dns srv _web._tcp.example. every 5s"]),
        (|d| { d.fleet.name = "green".into(); d.vips[0].vrrp.vrid = 52; d.pools[0].min_healthy = 1; },
            &["fleet: name blue -> green", "vips/web: vrrp.vrid 51 -> 52", "pools/web: min_healthy 0 -> 1"]),
    ];
    for (change, expected) in cases {
        let mut new = old.clone();
        change(&mut new);
        assert_eq!(changes(&old, &new), expected);
    }
}

#[test]
fn order_alone_is_a_change() {
    assert_eq!(
        changes(&document(&[3, 4]), &document(&[4, 3])),
        ["pools/web: real server order changed"]
    );
    let mut two = document(&[3]);
    two.services.push(Service::new("new", "web", 81, "web"));
    let mut swapped = two.clone();
    swapped.services.reverse();
    assert_eq!(changes(&two, &swapped), ["services: order changed"]);
}

#[test]
fn parts_that_no_log_leads_to_are_refused() {
    let mut fleet = Fixture::new();
    fleet.run(apply(document(&[3]), None));
    fleet.run(apply(document(&[3, 4]), None));
    fleet.run(down(3));
    let good = fleet.state.parts();
    assert_eq!(State::from_parts(good.clone()).as_ref(), Ok(&fleet.state));

    #[rustfmt::skip]
    let cases: [(&str, Damage); 8] = [
        ("a gap in the history",        |p| { let first = Arc::make_mut(&mut p.history[1]); first.summary.revision = 9; }),
        ("an id that was not given",    |p| p.next_id = 2),
        ("id 0",                        |p| p.members[0].id = NodeId(0)),
        ("a name twice",                |p| p.members[1].name = "a".into()),
        ("a departed member",           |p| p.departed.push(p.members[0].clone())),
        ("readiness of a stranger",     |p| p.readiness.push(Readiness { node: NodeId(7), digest: 0, fault: None })),
        ("health of a stranger",        |p| p.health[0].pool = "other".into()),
        ("a source for a listed pool",  |p| p.discovered.push(Discovered {
                                            pool: "web".into(), status: SourceStatus::Synced, real_servers: vec![] })),
    ];
    for (why, damage) in cases {
        let mut parts = good.clone();
        damage(&mut parts);
        assert!(State::from_parts(parts).is_err(), "{why}");
    }
}

fn any_command() -> impl Strategy<Value = Command> {
    let name = || prop_oneof![Just("a"), Just("b"), Just("c")];
    let servers = || proptest::collection::vec(1u8..5, 0..3);
    let documents = (
        servers(),
        0u32..3,
        any::<bool>(),
        proptest::option::of(prop_oneof![Just("one"), Just("two")]),
    )
        .prop_map(|(servers, min_healthy, checked, source)| {
            let mut document = document(&servers);
            document.pools[0].min_healthy = min_healthy;
            if !checked {
                document.pools[0].check = None;
            }
            if let Some(name) = source {
                document.pools[0].source = dns(name);
            }
            document
        });
    prop_oneof![
        4 => (documents, proptest::option::of(0u64..6)).prop_map(|(d, expected)| apply(d, expected)),
        2 => (name(), 1u8..9).prop_map(|(name, last)| Command::Admit(candidate(name, last))),
        2 => name().prop_map(|name| Command::Remove { name: name.into() }),
        1 => (1u64..9, any::<u64>()).prop_map(|(node, digest)| {
            Command::Ready(Readiness { node: NodeId(node), digest, fault: None })
        }),
        2 => (1u8..5).prop_map(down),
        2 => servers().prop_map(|servers| found(&servers, SourceStatus::Synced)),
    ]
}

proptest! {
    #[test]
    fn apply_is_deterministic_and_revisions_only_rise(
        commands in proptest::collection::vec(any_command(), 0..60),
    ) {
        let mut one = State::init("blue", candidate("a", 1));
        let mut other = one.clone();
        let mut highest_id = NodeId(1);
        for (index, command) in (1u64..).zip(commands) {
            let (revision, before) = (one.revision(), Arc::clone(one.document()));
            let outcome = one.apply(index, command.clone());
            prop_assert_eq!(&outcome, &other.apply(index, command));
            prop_assert_eq!(&one, &other);

            match outcome {
                Outcome::Applied { revision: next } => {
                    prop_assert_eq!(next, revision + 1);
                    let line = &one.at(next).unwrap().summary.changes;
                    prop_assert!(!line.is_empty(), "a revision that says nothing");
                }
                Outcome::Admitted { id } => {
                    prop_assert!(id > highest_id);
                    highest_id = id;
                }
                Outcome::Unchanged { .. } | Outcome::Removed { .. } | Outcome::Noted | Outcome::Rejected(_) => {
                    prop_assert_eq!(&before, one.document());
                    prop_assert_eq!(revision, one.revision());
                }
            }
            prop_assert!(one.members().len() > 0);
            prop_assert_eq!(State::from_parts(one.parts()), Ok(one.clone()), "parts lose something");
        }
    }
}
