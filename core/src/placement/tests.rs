//! The reference deployment: directors `lvs-1` (.101) and `lvs-2` (.102), real servers `lvs-2` and `web-1` (.3), VIP .100.

mod host;
mod placer;

use std::time::Duration;

use super::*;
use crate::command::{
    Apply, Candidate, Command, Discovered, HealthChange, Outcome, Readiness, SourceStatus,
};
use crate::model::{
    Attach, Check, CheckKind, Checksum, Coexist, Discovery, FileSource, Fleet, Persistence,
    PoolSource, Role, Scheduler, Vrrp, VrrpVersion,
};
use crate::plan::Want;

const LVS_1: NodeId = NodeId(1);
const LVS_2: NodeId = NodeId(2);
const WEB_1: NodeId = NodeId(3);

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 168, 3, last])
}

fn candidate(name: &str, last: u8, roles: &[Role]) -> Candidate {
    Candidate {
        name: name.into(),
        roles: roles.iter().copied().collect(),
        addresses: vec![ip(last)],
        grpc: SocketAddr::new(ip(last), 7400),
        lease: SocketAddr::new(ip(last), 7401),
    }
}

fn vip(name: &str, addresses: &[u8], preference: &[&str]) -> Vip {
    Vip {
        name: name.into(),
        addresses: addresses.iter().map(|&last| ip(last)).collect(),
        interface: "eth0".into(),
        excluded: 0,
        attach: Attach::Address,
        garp: crate::model::Garp::default(),
        arbiters: Vec::new(),
        preference: preference.iter().map(|&name| name.to_owned()).collect(),
        vrrp: Vrrp {
            vrid: 51,
            version: VrrpVersion::V2,
            advert_interval: Duration::from_secs(1),
            priority: 200,
            auth: None,
            checksum: Checksum::Pseudo,
            coexist: Coexist::Yield,
            peers: crate::model::Peers::Multicast,
        },
    }
}

fn rs(last: u8, weight: u32) -> RealServer {
    RealServer::new(ip(last), 80, weight)
}

fn pool(name: &str, real_servers: &[RealServer]) -> Pool {
    Pool {
        name: name.into(),
        source: PoolSource::Listed(real_servers.to_vec()),
        check: Some(Check {
            kind: CheckKind::Tcp,
            port: None,
            interval: Duration::from_secs(6),
            timeout: Duration::from_secs(3),
            retries: 3,
            delay_before_retry: Duration::from_secs(3),
        }),
        min_healthy: 0,
    }
}

fn service(name: &str, vip: &str, pool: &str) -> Service {
    let persistence = Persistence { timeout: Duration::from_secs(50), ..Persistence::default() };
    Service { persistence, ..Service::new(name, vip, 80, pool) }
}

fn reference() -> Document {
    Document {
        fleet: Fleet { name: "blue".into(), ..Fleet::default() },
        vips: vec![vip("web", &[100], &["lvs-1"])],
        pools: vec![pool("web", &[rs(3, 3), rs(102, 3)])],
        services: vec![service("web", "web", "web")],
    }
}

struct Fleet3 {
    state: State,
    index: u64,
}

impl Fleet3 {
    fn new(document: Document) -> Self {
        let first = candidate("lvs-1", 101, &[Role::Director]);
        let mut fleet = Self { state: State::init("blue", first), index: 0 };
        fleet.run(Command::Admit(candidate("lvs-2", 102, &[Role::Director, Role::RealServer])));
        fleet.run(Command::Admit(candidate("web-1", 3, &[Role::RealServer])));
        fleet.apply(document);
        fleet
    }

    /// With every node having confirmed its side.
    fn ready(document: Document) -> Self {
        let mut fleet = Self::new(document);
        fleet.confirm(LVS_2, None);
        fleet.confirm(WEB_1, None);
        fleet
    }

    fn run(&mut self, command: Command) {
        self.index += 1;
        let outcome = self.state.apply(self.index, command);
        assert!(!matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
    }

    fn apply(&mut self, document: Document) {
        self.run(Command::Apply(Apply {
            document,
            expected_revision: None,
            author: "operator/ann".into(),
            message: String::new(),
            unix_ms: 0,
        }));
    }

    /// The node reports about the side that it has been given.
    fn confirm(&mut self, node: NodeId, fault: Option<&str>) {
        let digest = place(&self.state, node, false).real_server.digest();
        self.run(Command::Ready(Readiness { node, digest, fault: fault.map(Into::into) }));
    }

    fn check(&mut self, last: u8, fault: Option<&str>) {
        self.run(Command::Health(vec![HealthChange {
            pool: "web".into(),
            real_server: rs(last, 1).socket_addr(),
            fault: fault.map(Into::into),
        }]));
    }

    /// Real servers in the table of `lvs-1`, by the last byte of service and real server.
    fn table(&self) -> Vec<(u8, Vec<(u8, u32)>)> {
        let last = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[15],
        };
        let plan = place(&self.state, LVS_1, false);
        plan.table
            .iter()
            .map(|(key, service)| {
                let ServiceKey::Address { address, .. } = key else { panic!("{key} is a mark") };
                let destinations = service.destinations.iter();
                (last(*address), destinations.map(|(at, to)| (last(at.ip()), to.weight)).collect())
            })
            .collect()
    }

    /// What a status says, one line a real server.
    fn told(&self) -> Vec<String> {
        explain(&self.state)
            .iter()
            .flat_map(|service| {
                service.real_servers.iter().map(|view| {
                    let node = view.node.as_deref().unwrap_or("unmanaged");
                    let reason = view.reason.as_deref().unwrap_or("-");
                    format!("{} {} {node} {} {reason}", service.name, view.address, view.serving)
                })
            })
            .collect()
    }
}

#[test]
fn the_reference_deployment_gets_the_table_that_its_operators_expect() {
    let fleet = Fleet3::ready(reference());
    let plan = place(&fleet.state, LVS_1, false);
    let (key, service) = plan.table.first_key_value().unwrap();
    assert_eq!(key.to_string(), "tcp 192.168.3.100:80");
    assert_eq!(service.spec.to_string(), "wlc, persistent 50 s");
    assert_eq!((service.spec.flags, service.spec.netmask), (1, u32::MAX));
    assert_eq!(fleet.table(), [(100, vec![(3, 3), (102, 3)])]);
    assert_eq!(plan.real_server, RealServerSide::default(), "a pure director");
    assert_eq!((plan.revision, plan.vips.len()), (1, 1));

    let mut rotating = reference();
    rotating.services[0].persistence.timeout = Duration::ZERO;
    let fleet = Fleet3::ready(rotating);
    let plan = place(&fleet.state, LVS_1, false);
    let spec = &plan.table.first_key_value().unwrap().1.spec;
    assert_eq!((spec.flags, spec.timeout, spec.netmask), (0, 0, u32::MAX));
}

#[test]
fn a_real_server_gets_the_vip_on_lo_and_the_arp_sysctls() {
    let fleet = Fleet3::ready(reference());
    let plan = place(&fleet.state, WEB_1, false);
    assert_eq!(plan.real_server.addresses, BTreeSet::from([ip(100)]));
    let sysctls: Vec<String> =
        plan.real_server.sysctls.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        sysctls,
        [
            "net/ipv4/conf/all/arp_announce=2",
            "net/ipv4/conf/all/arp_ignore=1",
            "net/ipv4/conf/lo/arp_announce=2",
            "net/ipv4/conf/lo/arp_ignore=1",
        ]
    );
    assert_eq!((plan.table.len(), plan.vips.len()), (0, 0), "it directs nothing");
}

#[test]
fn a_dual_role_node_forwards_only_what_it_holds() {
    let mut document = reference();
    document.vips.push(vip("mail", &[110], &[]));
    document.pools.push(pool("mail", &[rs(3, 1)]));
    document.services.push(service("mail", "mail", "mail"));
    let fleet = Fleet3::ready(document);

    let services = |holding| -> Vec<String> {
        place(&fleet.state, LVS_2, holding).table.keys().map(ToString::to_string).collect()
    };
    assert_eq!(services(false), ["tcp 192.168.3.110:80"], "only the VIP that is not on its lo");
    assert_eq!(services(true), ["tcp 192.168.3.100:80", "tcp 192.168.3.110:80"]);
    let standby = place(&fleet.state, LVS_2, false);
    assert_eq!(standby.real_server, place(&fleet.state, LVS_2, true).real_server);
    assert_eq!(standby.vips.len(), 2, "it may claim both");
}

#[test]
fn a_node_that_is_no_member_has_no_plan() {
    let fleet = Fleet3::ready(reference());
    let plan = place(&fleet.state, NodeId(9), true);
    assert_eq!(plan, NodePlan { revision: 1, ..NodePlan::default() });
}

#[test]
fn only_what_is_ready_and_well_is_in_the_table_and_the_status_says_why() {
    let mut fleet = Fleet3::new(reference());
    assert_eq!(fleet.table(), [(100, vec![])]);
    assert_eq!(
        fleet.told(),
        [
            "web 192.168.3.3:80 web-1 false web-1: no readiness report yet",
            "web 192.168.3.102:80 lvs-2 false lvs-2: no readiness report yet",
        ]
    );

    fleet.confirm(WEB_1, None);
    fleet.confirm(LVS_2, Some("VIP 192.168.3.100 not on lo"));
    assert_eq!(fleet.table(), [(100, vec![(3, 3)])]);
    assert_eq!(
        fleet.told(),
        [
            "web 192.168.3.3:80 web-1 true -",
            "web 192.168.3.102:80 lvs-2 false lvs-2: VIP 192.168.3.100 not on lo",
        ]
    );

    fleet.confirm(LVS_2, None);
    fleet.check(3, Some("connection refused"));
    assert_eq!(fleet.table(), [(100, vec![(102, 3)])]);
    assert_eq!(
        fleet.told(),
        [
            "web 192.168.3.3:80 web-1 false check failed: connection refused",
            "web 192.168.3.102:80 lvs-2 true -",
        ]
    );
    assert_eq!(explain(&fleet.state)[0].ready(), 1);

    fleet.check(3, None);
    assert_eq!(fleet.table(), [(100, vec![(3, 3), (102, 3)])]);
}

#[test]
fn addresses_that_no_real_server_node_has_are_unmanaged() {
    let mut document = reference();
    // .9 belongs to nobody, .101 to a node that is a director only.
    document.pools[0].source = PoolSource::Listed(vec![rs(9, 1), rs(101, 0)]);
    let mut fleet = Fleet3::new(document);
    assert_eq!(fleet.table(), [(100, vec![(9, 1), (101, 0)])]);
    assert_eq!(
        fleet.told(),
        ["web 192.168.3.9:80 unmanaged true -", "web 192.168.3.101:80 unmanaged true -"]
    );
    assert_eq!(explain(&fleet.state)[0].ready(), 1, "weight 0 gets no new connections");
    fleet.check(9, Some("timed out"));
    assert_eq!(fleet.table(), [(100, vec![(101, 0)])]);
}

#[test]
fn min_healthy_keeps_what_fails_its_check_but_never_what_is_not_ready() {
    #[rustfmt::skip]
    let cases = [
        // why                              min  not ready  failed          in the table
        ("none asked for",                  0,  &[][..],    &[3, 9, 10][..], &[][..]),
        ("one stays, in the pool's order",  1,  &[],        &[3, 9, 10],    &[3]),
        ("enough are well",                 1,  &[],        &[3, 9],        &[10]),
        ("one is missing",                  2,  &[],        &[3, 9],        &[3, 10]),
        ("more than there are",             9,  &[],        &[3, 9, 10],    &[3, 9, 10]),
        ("not ready stays out",             9,  &[3],       &[9, 10],       &[9, 10]),
        ("not ready and failed as well",    9,  &[3],       &[3, 9, 10],    &[9, 10]),
    ];
    for (why, min_healthy, not_ready, failed, expected) in cases {
        let mut document = reference();
        document.pools[0] = Pool { min_healthy, ..pool("web", &[rs(3, 1), rs(9, 1), rs(10, 1)]) };
        let mut fleet = Fleet3::new(document);
        fleet.confirm(WEB_1, not_ready.contains(&3).then_some("VIP 192.168.3.100 not on lo"));
        for &last in failed {
            fleet.check(last, Some("refused"));
        }
        let lasts: Vec<u8> = fleet.table()[0].1.iter().map(|&(last, _)| last).collect();
        assert_eq!(lasts, expected, "{why}");
    }

    let mut drained = reference();
    drained.pools[0] = Pool { min_healthy: 1, ..pool("web", &[rs(9, 0), rs(10, 1)]) };
    let mut fleet = Fleet3::new(drained);
    fleet.check(10, Some("refused"));
    assert_eq!(fleet.table(), [(100, vec![(9, 0), (10, 1)])], "a drained one keeps nothing alive");
    assert_eq!(
        fleet.told()[1],
        "web 192.168.3.10:80 unmanaged true kept by min_healthy 1: check failed: refused"
    );
}

#[test]
fn a_revision_that_adds_a_vip_does_not_empty_the_pools_that_serve() {
    let mut fleet = Fleet3::ready(reference());
    let mut wider = reference();
    wider.vips.push(vip("mail", &[110], &[]));
    wider.services.push(service("mail", "mail", "web"));
    fleet.apply(wider.clone());
    assert_eq!(
        fleet.table(),
        [(100, vec![(3, 3), (102, 3)]), (110, vec![])],
        "what was confirmed serves on, what was not waits"
    );
    assert_eq!(
        fleet.told()[2],
        "mail 192.168.3.3:80 web-1 false web-1: revision 2 not confirmed yet"
    );

    fleet.confirm(WEB_1, None);
    assert_eq!(fleet.table(), [(100, vec![(3, 3), (102, 3)]), (110, vec![(3, 3)])]);

    // A fault is a fault, whatever revision it was found for.
    fleet.confirm(WEB_1, Some("net/ipv4/conf/all/arp_ignore is 0, must be at least 1"));
    fleet.apply(reference());
    assert_eq!(fleet.table(), [(100, vec![(102, 3)])]);
}

#[test]
fn a_revision_that_leaves_a_side_unchanged_keeps_its_confirmation() {
    let mut fleet = Fleet3::ready(reference());
    let mut document = reference();
    document.services[0].scheduler = Scheduler::Rr;
    document.pools[0].source = PoolSource::Listed(vec![rs(3, 7), rs(102, 3)]);
    fleet.apply(document);
    assert_eq!(fleet.table(), [(100, vec![(3, 7), (102, 3)])]);
}

#[test]
fn a_group_of_two_addresses_is_one_service_and_serves_when_both_are_in_place() {
    let mut fleet = Fleet3::ready(reference());
    let mut document = reference();
    document.vips[0].addresses.push(ip(104));
    fleet.apply(document);
    assert_eq!(fleet.table(), [(100, vec![(3, 3), (102, 3)]), (104, vec![])]);
    let view = &explain(&fleet.state)[0];
    let listens: Vec<String> = view.listens.iter().map(ToString::to_string).collect();
    assert_eq!(listens, ["tcp 192.168.3.100:80", "tcp 192.168.3.104:80"]);
    assert_eq!(view.ready(), 0, "half a service is none");
}

#[test]
fn each_family_of_a_group_has_its_services_and_a_link_local_address_has_none() {
    let v6 = |last: u16| IpAddr::from([0xfd00, 3, 0, 0, 0, 0, 0, last]);
    let mut document = reference();
    document.vips[0].addresses.push(v6(0x100));
    document.pools[0] = pool("web", &[rs(3, 3), RealServer::new(v6(4), 80, 2)]);
    let mut fleet = Fleet3::ready(document.clone());
    let both =
        Candidate { addresses: vec![ip(4), v6(4)], ..candidate("web-2", 4, &[Role::RealServer]) };
    fleet.run(Command::Admit(both));
    let web_2 = NodeId(4);
    let table = |fleet: &Fleet3| -> Vec<(String, u32, Vec<String>)> {
        let table = place(&fleet.state, LVS_1, true).table;
        let row = |(key, service): (ServiceKey, VirtualService)| {
            let servers = service.destinations.keys().map(ToString::to_string).collect();
            (key.to_string(), service.spec.netmask, servers)
        };
        table.into_iter().map(row).collect()
    };
    let v4 = ("tcp 192.168.3.100:80".to_owned(), u32::MAX, vec!["192.168.3.3:80".to_owned()]);
    let mut v6_row = ("tcp [fd00:3::100]:80".to_owned(), 128, vec![]);
    assert_eq!(table(&fleet), [v4.clone(), v6_row.clone()], "web-2 has not confirmed its side");
    fleet.confirm(web_2, None);
    v6_row.2.push("[fd00:3::4]:80".to_owned());
    assert_eq!(table(&fleet), [v4, v6_row.clone()]);
    let side = place(&fleet.state, web_2, false).real_server;
    assert_eq!(side.addresses, [ip(100), v6(0x100)].into());

    // Alone, with what RFC 9568 wants first in an advert.
    document.vips[0].addresses = vec!["fe80::100".parse().unwrap(), v6(0x100)];
    document.vips[0].vrrp.version = VrrpVersion::V3;
    fleet.apply(document);
    fleet.confirm(web_2, None);
    assert_eq!(table(&fleet), [v6_row]);
    assert_eq!(explain(&fleet.state)[0].listens.len(), 1);
    let side = place(&fleet.state, web_2, false).real_server;
    assert_eq!(side.addresses, [v6(0x100)].into());
    assert!(side.sysctls.is_empty(), "nobody answers neighbour solicitations for `lo`");
    let held = &place(&fleet.state, LVS_1, true).vips[0].addresses;
    assert_eq!(held.len(), 2, "a holder attaches and announces both");
}

#[test]
fn a_discovered_pool_has_what_its_source_said_last() {
    let mut document = reference();
    let path = "/etc/web.json".to_owned();
    let file = FileSource { path, interval: Duration::from_secs(5) };
    document.pools[0].source = PoolSource::Discovery(Discovery::File(file));
    let mut fleet = Fleet3::new(document);
    assert_eq!(fleet.table(), [(100, vec![])]);
    assert_eq!(place(&fleet.state, WEB_1, false).real_server, RealServerSide::default());

    let pool = "web".to_owned();
    let real_servers = vec![rs(3, 1), rs(9, 4)];
    fleet.run(Command::Discovered(Discovered { pool, status: SourceStatus::Synced, real_servers }));
    assert_eq!(fleet.table(), [(100, vec![(9, 4)])]);
    fleet.confirm(WEB_1, None);
    assert_eq!(fleet.table(), [(100, vec![(3, 1), (9, 4)])]);
}

#[test]
fn directors_campaign_by_preference_then_id_and_witnesses_last() {
    let mut document = reference();
    document.vips[0].preference = vec!["web-1".into(), "nobody".into(), "lvs-2".into()];
    #[rustfmt::skip]
    let cases = [
        ("as listed",               reference(),    [(0, false), (1, false), (2, true)]),
        ("a real server is no director, whatever is listed", document, [(1, false), (0, false), (2, true)]),
    ];
    for (why, document, expected) in cases {
        let fleet = Fleet3::new(document);
        assert_eq!(
            [LVS_1, LVS_2, WEB_1].map(|node| standing(&fleet.state, node)),
            expected,
            "{why}"
        );
    }
    let fleet = Fleet3::new(reference());
    assert_eq!(standing(&fleet.state, NodeId(9)), (u8::MAX, true));
}

#[test]
fn a_digest_never_changes_its_meaning() {
    let fleet = Fleet3::new(reference());
    let side = place(&fleet.state, WEB_1, false).real_server;
    assert_eq!(format!("{:016x}", side.digest()), "41df73f257a2e0f3", "log entries hold it");
    assert_eq!(format!("{:016x}", RealServerSide::default().digest()), "4d64bdb537c887d2");

    let mut stricter = side.clone();
    *stricter.sysctls.first_entry().unwrap().get_mut() += 1;
    let v6 = RealServerSide { addresses: ["2001:db8::1".parse().unwrap()].into(), ..side.clone() };
    let sides = [side, stricter, v6, RealServerSide::default()];
    let digests: BTreeSet<u64> = sides.iter().map(RealServerSide::digest).collect();
    assert_eq!(digests.len(), sides.len());
}

/// Every director has them on `lo` in both roles, real server or not; what a real server reports as ready stays what it was; the loop rule is
/// about real servers still.
#[test]
fn where_agents_answer_every_director_has_the_vips_on_lo() {
    let mut document = reference();
    document.vips[0].attach = Attach::Responder;
    document.vips[0].addresses.push("fd00:3::64".parse().unwrap());
    let (answered, attached) = (Fleet3::new(document.clone()), {
        document.vips[0].attach = Attach::Address;
        Fleet3::new(document)
    });
    let both = BTreeSet::from([ip(100), "fd00:3::64".parse().unwrap()]);
    for node in [LVS_1, LVS_2] {
        for holding in [false, true] {
            let plan = place(&answered.state, node, holding);
            assert_eq!(plan.director.addresses, both, "{node} {holding}");
            for (name, least) in ARP_SYSCTLS {
                let want = plan.director.sysctls.get(&Sysctl(name.into()));
                assert_eq!(want, Some(&Want::AtLeast(least)), "{node} {holding}: {name}");
            }
            let before = place(&attached.state, node, holding);
            assert_eq!(before.director.addresses, BTreeSet::new());
            assert_eq!(plan.real_server, before.real_server, "{node} {holding}");
            assert_eq!(plan.table, before.table, "{node} {holding}");
            assert_eq!(plan.table.is_empty(), node == LVS_2 && !holding, "{node} {holding}");
        }
    }
    assert_eq!(place(&answered.state, WEB_1, false).director, DirectorSide::default());
}

#[test]
fn a_link_local_vip_is_answered_for_and_is_on_no_lo() {
    let mut document = reference();
    document.vips[0].attach = Attach::Responder;
    document.vips[0].addresses =
        ["fe80::64", "fd00:3::64"].map(|address| address.parse().unwrap()).into();
    document.vips[0].vrrp.version = VrrpVersion::V3;
    let plan = place(&Fleet3::new(document).state, LVS_1, true);
    assert_eq!(plan.director.addresses, BTreeSet::from(["fd00:3::64".parse().unwrap()]));
    assert_eq!(plan.director.sysctls, BTreeMap::new(), "IPv6 needs none");
    assert_eq!(plan.vips[0].addresses.len(), 2);
}

/// Three directors, a real server, and these VIP groups.
fn directors(vips: Vec<Vip>) -> State {
    let director = |number: u8| candidate(&format!("d-{number}"), number, &[Role::Director]);
    let mut fleet = Fleet3 { state: State::init("blue", director(1)), index: 0 };
    for number in [2, 3] {
        fleet.run(Command::Admit(director(number)));
    }
    fleet.run(Command::Admit(candidate("rs-4", 4, &[Role::RealServer])));
    fleet.apply(Document {
        fleet: Fleet { name: "blue".into(), ..Fleet::default() },
        vips,
        ..Document::default()
    });
    fleet.state
}

#[test]
fn who_is_preferred_to_a_holder() {
    type Case<'a> = (&'a str, &'a [&'a [&'a str]], u64, &'a [&'a str]);
    let names = |preferences: &[&[&str]], holder: u64| -> Vec<String> {
        let vips = preferences.iter().enumerate();
        let vips = vips.map(|(index, preference)| {
            vip(&format!("g{index}"), &[100 + u8::try_from(index).unwrap()], preference)
        });
        let state = directors(vips.collect());
        preferred(&state, NodeId(holder)).into_iter().map(|member| member.name.clone()).collect()
    };
    #[rustfmt::skip]
    let cases: [Case<'_>; 8] = [
        ("before the holder in the list",   &[&["d-2", "d-1"]],                  1, &["d-2"]),
        ("the holder comes first",          &[&["d-2", "d-1"]],                  2, &[]),
        ("in the list's order",             &[&["d-3", "d-2", "d-1"]],           1, &["d-3", "d-2"]),
        ("the holder is not in the list",   &[&["d-3"]],                         1, &["d-3"]),
        ("no preference",                   &[&[]],                              2, &[]),
        ("no VIP group",                    &[],                                 2, &[]),
        ("a group without an opinion",      &[&["d-2", "d-1"], &[]],             1, &["d-2"]),
        ("groups that disagree",            &[&["d-2", "d-1"], &["d-1", "d-2"]], 1, &[]),
    ];
    for (why, preferences, holder, expected) in cases {
        assert_eq!(names(preferences, holder), expected, "{why}");
    }
    let state = directors(vec![vip("g", &[100], &["d-2", "rs-4", "d-1"])]);
    assert_eq!(preferred(&state, NodeId(9)), [] as [&Member; 0], "a stranger");
}
