//! The promises of a plan, on random kernels and on the cases that operators meet.

mod host;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use proptest::collection::{btree_map, btree_set};
use proptest::option;
use proptest::prelude::*;

use super::address::{director_fault, real_server_fault};
use super::*;
use crate::model::Protocol;
use crate::placement::{DirectorSide, NodePlan, RealServerSide};

const IGNORE: &str = "net/ipv4/conf/all/arp_ignore";
const ANNOUNCE: &str = "net/ipv4/conf/all/arp_announce";
const SLOPPY: &str = "net/ipv4/vs/sloppy_tcp";

/// The plainest kernel that gives the errors of the real one.
pub(super) fn perform(kernel: &mut Observed, action: &Action) -> Result<(), &'static str> {
    match action {
        Action::AddService(key, spec) => {
            let table = kernel.table.as_mut().ok_or("ENOENT: no IPVS")?;
            if table.contains_key(key) {
                return Err("EEXIST");
            }
            let service = VirtualService { spec: spec.clone(), destinations: BTreeMap::new() };
            table.insert(*key, service);
        }
        Action::SetService(key, spec) => service(kernel, key)?.spec = spec.clone(),
        Action::RemoveService(key) => {
            let table = kernel.table.as_mut().ok_or("ENOENT: no IPVS")?;
            table.remove(key).ok_or("ESRCH")?;
        }
        Action::AddDestination(key, address, destination) => {
            let destinations = &mut service(kernel, key)?.destinations;
            if destinations.insert(*address, *destination).is_some() {
                return Err("EEXIST");
            }
        }
        Action::SetDestination(key, address, destination) => {
            let have = service(kernel, key)?.destinations.get_mut(address).ok_or("ENOENT")?;
            if have == destination {
                return Err("nothing to set");
            }
            *have = *destination;
        }
        Action::RemoveDestination(key, address) => {
            service(kernel, key)?.destinations.remove(address).ok_or("ENOENT")?;
        }
        Action::AddAddress { interface, address } => {
            let fresh = host_address(interface, *address, true);
            if kernel.addresses.contains(&host_address(interface, *address, false))
                || !kernel.addresses.insert(fresh)
            {
                return Err("EEXIST");
            }
        }
        Action::RemoveAddress { interface, address } => {
            let found = [true, false]
                .map(|marked| kernel.addresses.remove(&host_address(interface, *address, marked)));
            if !found.contains(&true) {
                return Err("EADDRNOTAVAIL");
            }
        }
        Action::SetSysctl { name, value } => {
            let have = kernel.sysctls.get_mut(name).ok_or("ENOENT")?;
            if have == value {
                return Err("nothing to set");
            }
            *have = *value;
        }
        Action::SetTimeout { which, seconds } => {
            let globals = kernel.globals.as_mut().ok_or("ENOENT: no IPVS")?;
            let have = globals.timeouts.get_mut(*which);
            if *seconds == 0 || have == seconds {
                return Err("nothing to set");
            }
            *have = *seconds;
        }
        Action::StartDaemon(daemon) => {
            let globals = kernel.globals.as_mut().ok_or("ENOENT: no IPVS")?;
            if !globals.daemons.is_empty() {
                return Err("one runs");
            }
            globals.daemons.push(SyncDaemon { max_length: 1472, ..daemon.clone() });
        }
        Action::StopDaemon(role) => {
            let globals = kernel.globals.as_mut().ok_or("ENOENT: no IPVS")?;
            let before = globals.daemons.len();
            globals.daemons.retain(|daemon| daemon.role != *role);
            if globals.daemons.len() == before {
                return Err("ESRCH");
            }
        }
        Action::Path(action) => path::tests::perform(kernel, action)?,
        Action::SetMarks(rules) => {
            kernel.marks = marks::Seen::Present { rules: Some(rules.clone()) };
        }
        Action::ClearMarks => kernel.marks = marks::Seen::Absent,
    }
    Ok(())
}

fn service<'a>(
    kernel: &'a mut Observed,
    key: &ServiceKey,
) -> Result<&'a mut VirtualService, &'static str> {
    kernel.table.as_mut().ok_or("ENOENT: no IPVS")?.get_mut(key).ok_or("ESRCH")
}

pub(super) fn host_address(interface: &str, address: IpAddr, marked: bool) -> Address {
    let prefix = if address.is_ipv4() { 32 } else { 128 };
    Address { interface: interface.into(), address, prefix, marked }
}

fn ip(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

fn key(last: u8) -> ServiceKey {
    match last {
        9 => ServiceKey::Mark { ipv6: false, mark: 9 },
        _ => ServiceKey::Address { protocol: Protocol::Tcp, address: ip(last), port: 80 },
    }
}

fn at(last: u8) -> SocketAddr {
    SocketAddr::new(ip(last), 80)
}

fn dest(weight: u32) -> Destination {
    Destination { weight, method: Method::Route, upper: 0, lower: 0 }
}

fn spec(scheduler: &str) -> ServiceSpec {
    ServiceSpec {
        scheduler: scheduler.into(),
        flags: 0,
        timeout: 0,
        netmask: u32::MAX,
        engine: None,
    }
}

fn keys() -> impl Strategy<Value = ServiceKey> {
    prop_oneof![Just(key(100)), Just(key(101)), Just(key(9))]
}

fn table() -> impl Strategy<Value = Table> {
    let destination = (0u32..3, prop_oneof![Just(Method::Route), Just(Method::Masq)]);
    let destination =
        destination.prop_map(|(weight, method)| Destination { weight, method, upper: 0, lower: 0 });
    let destinations = btree_map((1u8..5).prop_map(at), destination, 0..4);
    let service = (prop_oneof![Just("wlc"), Just("rr")], destinations)
        .prop_map(|(name, destinations)| VirtualService { spec: spec(name), destinations });
    btree_map(keys(), service, 0..4)
}

fn sysctl() -> impl Strategy<Value = Sysctl> {
    prop_oneof![Just(Sysctl(IGNORE.into())), Just(Sysctl(ANNOUNCE.into()))]
}

fn interface() -> impl Strategy<Value = String> {
    prop_oneof![Just("lo".to_owned()), Just("eth0".to_owned())]
}

/// One entry for each interface, address and prefix length, as in a kernel.
fn addresses() -> impl Strategy<Value = BTreeSet<Address>> {
    let entry = (interface(), (100u8..104).prop_map(ip), prop_oneof![Just(24u8), Just(32)]);
    btree_map(entry, any::<bool>(), 0..6).prop_map(|entries| {
        let entries = entries.into_iter();
        entries
            .map(|((interface, address, prefix), marked)| Address {
                interface,
                address,
                prefix,
                marked,
            })
            .collect()
    })
}

fn observed() -> impl Strategy<Value = Observed> {
    let tables = prop_oneof![9 => table().prop_map(Some), 1 => Just(None)];
    let sysctls = prop_oneof![
        9 => (0i64..4, 0i64..4).prop_map(|(ignore, announce)| {
            BTreeMap::from([(Sysctl(IGNORE.into()), ignore), (Sysctl(ANNOUNCE.into()), announce)])
        }),
        1 => btree_map(sysctl(), 0i64..4, 0..2),
    ];
    (tables, addresses(), sysctls, globals(), 0i64..2, marks::tests::seen()).prop_map(
        |(table, addresses, mut sysctls, globals, sloppy, marks)| {
            let globals = table.as_ref().map(|_| globals);
            if table.is_some() {
                sysctls.insert(Sysctl(SLOPPY.into()), sloppy);
            }
            Observed { table, addresses, sysctls, globals, marks, ..Observed::default() }
        },
    )
}

fn globals() -> impl Strategy<Value = Globals> {
    let timeouts = (1u32..4, 1u32..4, 1u32..4);
    (timeouts, option::of(daemon())).prop_map(|((tcp, tcp_fin, udp), daemon)| Globals {
        timeouts: globals::Timeouts { tcp, tcp_fin, udp },
        daemons: daemon
            .map(|daemon| SyncDaemon { max_length: 1472, ..daemon })
            .into_iter()
            .collect(),
    })
}

fn daemon() -> impl Strategy<Value = SyncDaemon> {
    let role = prop_oneof![Just(SyncRole::Master), Just(SyncRole::Backup)];
    (role, 0u32..2).prop_map(|(role, sync_id)| SyncDaemon {
        role,
        interface: "eth0".into(),
        sync_id,
        max_length: 0,
        group: None,
        port: 0,
        ttl: 0,
    })
}

fn timeout() -> impl Strategy<Value = Timeout> {
    prop_oneof![Just(Timeout::Tcp), Just(Timeout::TcpFin), Just(Timeout::Udp)]
}

/// What has to be so before an address is on `lo`.
fn quiet(addresses: &BTreeSet<IpAddr>) -> BTreeMap<Sysctl, i64> {
    let needed = [(Sysctl(IGNORE.into()), 1), (Sysctl(ANNOUNCE.into()), 2)];
    if addresses.is_empty() { BTreeMap::new() } else { needed.into() }
}

fn director() -> impl Strategy<Value = DirectorSide> {
    let timeouts = btree_map(timeout(), 1u32..4, 0..3);
    let addresses = btree_set((102u8..106).prop_map(ip), 0..3);
    let parts =
        (timeouts, option::of(daemon()), option::of(0i64..2), addresses, marks::tests::marks());
    parts.prop_map(|(timeouts, daemon, sloppy, addresses, marks)| {
        let quiet = quiet(&addresses).into_iter().map(|(name, least)| (name, Want::AtLeast(least)));
        let sloppy = sloppy.map(|value| (Sysctl(SLOPPY.into()), Want::Exactly(value)));
        DirectorSide {
            globals: WantedGlobals { timeouts, daemon },
            sysctls: sloppy.into_iter().chain(quiet).collect(),
            marks,
            addresses,
        }
    })
}

fn node_plan() -> impl Strategy<Value = NodePlan> {
    let vips = btree_set((100u8..104).prop_map(ip), 0..4);
    (table(), vips, director()).prop_map(|(table, addresses, director)| {
        let sysctls = quiet(&addresses);
        let real_server = RealServerSide { addresses, sysctls, ..RealServerSide::default() };
        NodePlan { revision: 7, table, real_server, director, vips: vec![] }
    })
}

fn owned() -> impl Strategy<Value = Owned> {
    let raised = (0i64..2, 1i64..3).prop_map(|(before, ours)| Raised { before, ours });
    (
        btree_set(keys(), 0..4),
        btree_set((interface(), (100u8..104).prop_map(ip)), 0..4),
        btree_map(sysctl(), raised.clone(), 0..3),
        btree_map(timeout(), raised, 0..3),
        option::of(daemon()),
        any::<bool>(),
    )
        .prop_map(|(services, addresses, sysctls, timeouts, daemon, marks)| Owned {
            marks,
            services,
            addresses,
            sysctls,
            timeouts,
            daemons: daemon.into_iter().collect(),
            ..Owned::default()
        })
}

fn usable(table: Option<&Table>, key: &ServiceKey) -> bool {
    table.and_then(|table| table.get(key)).is_some_and(|service| {
        service.destinations.values().any(|destination| destination.weight > 0)
    })
}

/// What both roles need of sysctls.
fn needed(plan: &NodePlan) -> BTreeMap<Sysctl, i64> {
    let NodePlan { real_server, director, .. } = plan;
    quiet(&real_server.addresses.union(&director.addresses).copied().collect())
}

fn satisfied(kernel: &Observed, plan: &NodePlan) -> bool {
    let needed = needed(plan);
    needed.iter().all(|(name, least)| kernel.sysctls.get(name).is_some_and(|v| v >= least))
}

/// Whether it is on `lo` and has to be.
fn is_planned(address: &Address, plan: &NodePlan) -> bool {
    let NodePlan { real_server, director, .. } = plan;
    let mut all = real_server.addresses.union(&director.addresses);
    address.interface == "lo" && all.any(|planned| *planned == address.address)
}

/// Whatever has to hold for an address that is in neither the plan nor the record.
fn is_foreign(address: &Address, plan: &NodePlan, owned: &Owned) -> bool {
    let entry = (address.interface.clone(), address.address);
    let host = address.prefix == 32;
    let planned = is_planned(address, plan);
    let ours = address.interface == "lo" && (address.marked || owned.addresses.contains(&entry));
    !(host && (planned || ours))
}

fn in_record(action: &Action, record: &Owned) -> bool {
    match action {
        Action::AddService(key, _)
        | Action::SetService(key, _)
        | Action::RemoveService(key)
        | Action::AddDestination(key, ..)
        | Action::SetDestination(key, ..)
        | Action::RemoveDestination(key, _) => record.services.contains(key),
        Action::AddAddress { interface, address }
        | Action::RemoveAddress { interface, address } => {
            record.addresses.contains(&(interface.clone(), *address))
        }
        Action::SetSysctl { name, .. } => record.sysctls.contains_key(name),
        Action::SetTimeout { which, .. } => record.timeouts.contains_key(which),
        Action::StartDaemon(daemon) => record.daemons.contains(daemon),
        Action::StopDaemon(role) => record.daemons.iter().any(|daemon| daemon.role == *role),
        Action::Path(action) => path::tests::in_record(action, &record.paths),
        Action::SetMarks(_) | Action::ClearMarks => record.marks,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn ops_are_legal_reach_the_plan_touch_nothing_foreign_and_then_stop(
        before in observed(), plan in node_plan(), owned in owned(),
    ) {
        let found = diff(&before, &plan, &owned);
        let mut kernel = before.clone();
        for op in &found.ops {
            prop_assert!(in_record(&op.action, &found.record), "{} is not in the record", op.action);
            prop_assert!(!op.reason.is_empty());
            if matches!(op.action, Action::AddAddress { .. }) {
                prop_assert!(satisfied(&kernel, &plan), "{} before its sysctls", op.action);
            }
            if let Err(error) = perform(&mut kernel, &op.action) {
                prop_assert!(false, "{}: {error}", op.action);
            }
            for key in plan.table.keys() {
                if usable(before.table.as_ref(), key) && usable(Some(&plan.table), key) {
                    prop_assert!(usable(kernel.table.as_ref(), key), "{} left {key} bare", op.action);
                }
            }
        }

        if let (Some(before), Some(after)) = (&before.table, &kernel.table) {
            let mut expected = plan.table.clone();
            let foreign = before.iter()
                .filter(|(key, _)| !plan.table.contains_key(key) && !owned.services.contains(key));
            expected.extend(foreign.clone().map(|(key, service)| (*key, service.clone())));
            prop_assert_eq!(after, &expected);
            prop_assert_eq!(&found.foreign, &foreign.map(|(key, _)| *key).collect());
        }
        for address in before.addresses.iter().filter(|address| is_foreign(address, &plan, &owned)) {
            prop_assert!(kernel.addresses.contains(address), "{address:?} is foreign and gone");
        }
        let unread = |name: &Sysctl| !before.sysctls.contains_key(name);
        let needed = needed(&plan);
        let unreadable = needed.keys().any(unread);
        let (server, director) = (&plan.real_server, &plan.director);
        let all_read = |addresses| !quiet(addresses).keys().any(unread);
        // Sysctls of the one role that cannot be read keep the other's addresses away too.
        if !unreadable || !all_read(&server.addresses) {
            prop_assert_eq!(real_server_fault(&kernel, server).is_none(), all_read(&server.addresses));
        }
        if !unreadable || !all_read(&director.addresses) {
            prop_assert_eq!(director_fault(&kernel, director).is_none(), all_read(&director.addresses));
        }
        let (daemons, others): (Vec<_>, Vec<_>) =
            found.withheld.iter().partition(|line| line.contains("synchronisation daemon"));
        let marks = |line: &&&String| line.contains("nft delete table");
        let anothers = !owned.marks && before.marks != marks::Seen::Absent;
        prop_assert!(unreadable || others.iter().filter(marks).count() == others.len());
        prop_assert!(anothers || others.iter().filter(marks).count() == 0);
        if let (Some(before), Some(after)) = (&before.globals, &kernel.globals) {
            let running = |daemon: &SyncDaemon| SyncDaemon { max_length: 1472, ..daemon.clone() };
            let wanted = plan.director.globals.daemon.as_ref().map(running);
            let ours = |daemon: &SyncDaemon| owned.daemons.iter().any(|our| running(our) == *daemon);
            let foreign: Vec<_> = before.daemons.iter()
                .filter(|daemon| Some(*daemon) != wanted.as_ref() && !ours(daemon)).collect();
            prop_assert!(foreign.iter().all(|daemon| after.daemons.contains(daemon)), "a foreign daemon was stopped");
            prop_assert_eq!(daemons.is_empty(), foreign.is_empty() || wanted.is_none());
            if foreign.is_empty() {
                prop_assert_eq!(&after.daemons, &wanted.into_iter().collect::<Vec<_>>());
            }
            for (which, seconds) in &plan.director.globals.timeouts {
                prop_assert_eq!(after.timeouts.get(*which), *seconds);
            }
        }
        if let (Some(want), Some(value)) =
            (plan.director.sysctls.get(&Sysctl(SLOPPY.into())), kernel.sysctls.get(&Sysctl(SLOPPY.into())))
        {
            prop_assert!(want.accepts(*value));
        }
        for (name, value) in kernel.sysctls.iter().filter(|(name, _)| name.0 != SLOPPY) {
            let kept = needed.get(name).copied().unwrap_or(i64::MIN);
            let back = owned.sysctls.get(name).map(|raised| raised.before);
            let was = before.sysctls[name];
            prop_assert!(*value == was || *value == kept || Some(*value) == back);
            prop_assert!(*value >= was || kept == i64::MIN, "{name} was lowered while it is needed");
        }

        let wanted = &plan.director.marks;
        if !wanted.is_empty() && (owned.marks || before.marks == marks::Seen::Absent) {
            prop_assert_eq!(&kernel.marks, &marks::Seen::Present { rules: Some(wanted.clone()) });
        } else if !owned.marks {
            prop_assert_eq!(&kernel.marks, &before.marks, "another's table");
        }

        for record in [&found.settled, &found.record] {
            let again = diff(&kernel, &plan, record);
            prop_assert_eq!(&again.ops, &vec![]);
            prop_assert_eq!(&again.settled, &found.settled);
        }
        prop_assert_eq!(diff(&kernel, &plan, &found.settled).record, found.settled);
    }

    #[test]
    fn after_a_settled_plan_a_look_at_what_differs_from_it_is_as_good_as_one_at_everything(
        before in observed(), plan in node_plan(), next in node_plan(), owned in owned(), gone in any::<bool>(),
    ) {
        let first = diff(&before, &plan, &owned);
        let mut kernel = before;
        for op in &first.ops {
            perform(&mut kernel, &op.action).unwrap();
        }
        let keys = plan.table.keys().chain(next.table.keys()).copied();
        let keys: BTreeSet<_> = keys.filter(|key| plan.table.get(key) != next.table.get(key)).collect();
        if let Some(table) = kernel.table.as_mut().filter(|_| gone) {
            // Others took away what is about to change, and that is known.
            table.retain(|key, _| !keys.contains(key));
        }
        let all = diff(&kernel, &next, &first.settled);
        let some = diff_within(&Extent::Only(keys.clone()), &kernel, &next, &first.settled);
        prop_assert_eq!(&some.ops, &all.ops);
        prop_assert_eq!((&some.record, &some.settled), (&all.record, &all.settled));
        let foreign = first.foreign.difference(&keys).chain(&some.foreign).copied();
        prop_assert_eq!(foreign.collect::<BTreeSet<_>>(), all.foreign);
    }

    #[test]
    fn what_is_on_its_way_together_does_not_wait_for_each_other(
        before in observed(), plan in node_plan(), owned in owned(),
    ) {
        let found = diff(&before, &plan, &owned);
        let mut seen = 0;
        for batch in batches(&found.ops) {
            for (one, other) in batch.iter().flat_map(|one| batch.iter().map(move |other| (one, other))) {
                prop_assert!(!blocks(&one.action, &other.action), "{} and {}", one.action, other.action);
            }
            prop_assert_eq!(batch, &found.ops[seen..seen + batch.len()], "in the plan's order");
            seen += batch.len();
        }
        prop_assert_eq!(seen, found.ops.len(), "none is left out");
    }

    #[test]
    fn the_cause_is_found_without_looking_at_everything_that_failed(
        before in observed(), plan in node_plan(), owned in owned(), bits in any::<u64>(),
    ) {
        let found = diff(&before, &plan, &owned);
        let mut failed = Failed::default();
        let mut list: Vec<&Action> = vec![];
        for (at, op) in found.ops.iter().enumerate() {
            let cause = list.iter().find(|failed| blocks(failed, &op.action));
            prop_assert_eq!(failed.cause(&op.action).is_some(), cause.is_some(), "{}", op.action);
            if cause.is_some() || bits >> (at % 64) & 1 == 1 {
                failed.note(&op.action);
                list.push(&op.action);
            }
        }
    }

    #[test]
    fn a_crash_after_any_operation_loses_nothing(
        before in observed(), plan in node_plan(), owned in owned(), crash in 0usize..20,
    ) {
        let found = diff(&before, &plan, &owned);
        let mut whole = before.clone();
        for op in &found.ops {
            perform(&mut whole, &op.action).unwrap();
        }
        let mut kernel = before;
        for op in found.ops.iter().take(crash) {
            perform(&mut kernel, &op.action).unwrap();
        }
        for op in diff(&kernel, &plan, &found.record).ops {
            perform(&mut kernel, &op.action).unwrap();
        }
        prop_assert_eq!(kernel, whole);
    }

    #[test]
    fn leaving_undoes_what_arriving_did(before in observed(), plan in node_plan()) {
        // A machine that lvsmesh has never touched, and on which nothing has to be adopted.
        let mut before = before;
        before.addresses.retain(|address| !(address.marked || is_planned(address, &plan)));
        if let Some(table) = &mut before.table {
            table.retain(|key, _| !plan.table.contains_key(key));
        }
        if let (Some(globals), Some(wanted)) = (&mut before.globals, &plan.director.globals.daemon) {
            globals.daemons.retain(|daemon| daemon.role != wanted.role);
        }
        if before.marks == (marks::Seen::Present { rules: Some(plan.director.marks.clone()) }) {
            before.marks = marks::Seen::Absent;
        }

        let arriving = diff(&before, &plan, &Owned::default());
        let mut kernel = before.clone();
        for op in &arriving.ops {
            perform(&mut kernel, &op.action).unwrap();
        }
        let leaving = teardown(&kernel, &arriving.settled);
        for op in &leaving.ops {
            let restores = matches!(op.action, Action::SetSysctl { .. });
            let remains = kernel.addresses.iter().any(|address| address.marked);
            prop_assert!(!(restores && remains), "{} while a VIP is on lo", op.action);
            perform(&mut kernel, &op.action).unwrap();
        }
        prop_assert_eq!(&kernel, &before);
        if before.table.is_some() {
            prop_assert_eq!(leaving.settled, Owned::default());
        }
    }
}

fn script(plan: &Plan) -> String {
    plan.ops.iter().map(|op| format!("{}: {}\n", op.action, op.reason)).collect()
}

#[test]
fn the_table_says_what_it_changes_and_why() {
    let wanted = |scheduler, destinations: &[(u8, u32)]| VirtualService {
        spec: spec(scheduler),
        destinations: destinations.iter().map(|&(last, weight)| (at(last), dest(weight))).collect(),
    };
    let observed = Observed {
        table: Some(
            [
                (key(100), wanted("rr", &[(1, 1), (2, 1), (3, 0)])),
                (key(9), wanted("rr", &[(1, 1)])),
                (key(102), wanted("wlc", &[])),
            ]
            .into(),
        ),
        ..Observed::default()
    };
    let plan = NodePlan {
        revision: 8,
        table: [
            (key(100), wanted("wlc", &[(2, 0), (3, 3), (4, 3)])),
            (key(101), wanted("wlc", &[])),
        ]
        .into(),
        ..NodePlan::default()
    };
    let owned = Owned { services: [key(101), key(102)].into(), ..Owned::default() };
    let plan = diff(&observed, &plan, &owned);
    insta::assert_snapshot!(script(&plan), @r"
    set service tcp 192.0.2.100:80 to wlc: scheduler is rr, should be wlc
    add service tcp 192.0.2.101:80 (wlc): recorded as ours, but gone from the kernel
    set real server 192.0.2.3:80 of tcp 192.0.2.100:80 to weight 3, route: weight is 0, should be 3
    add real server 192.0.2.4:80 to tcp 192.0.2.100:80 (weight 3, route): in the table of revision 8
    set real server 192.0.2.2:80 of tcp 192.0.2.100:80 to weight 0, route: weight is 1, should be 0
    remove real server 192.0.2.1:80 from tcp 192.0.2.100:80: not in the table of revision 8
    remove service tcp 192.0.2.102:80: ours, and not in the table of revision 8
    ");
    assert_eq!(plan.foreign, BTreeSet::from([key(9)]));
}

#[test]
fn an_operation_that_failed_holds_back_what_depends_on_it() {
    let raise = Action::SetSysctl { name: Sysctl(IGNORE.into()), value: 1 };
    let add = Action::AddAddress { interface: "lo".into(), address: ip(100) };
    let remove = Action::RemoveAddress { interface: "lo".into(), address: ip(100) };
    let new = Action::AddService(key(100), spec("rr"));
    let gone = Action::RemoveService(key(100));
    let more = Action::AddDestination(key(100), at(1), dest(1));
    let drain = Action::SetDestination(key(100), at(2), dest(0));
    let less = Action::RemoveDestination(key(100), at(2));
    let other = Action::RemoveDestination(key(101), at(2));
    #[rustfmt::skip]
    let cases = [
        ("a VIP without its sysctls answers ARP",   &raise,  &add,   true),
        ("the same on the way out",                 &remove, &raise, true),
        ("no service, no real server",              &new,    &more,  true),
        ("the old one stays",                       &more,   &less,  true),
        ("and keeps its weight",                    &more,   &drain, true),
        ("a drain that failed replaces nothing",    &drain,  &less,  false),
        ("another service goes on",                 &more,   &other, false),
        ("one bad real server stops no other",      &more,   &more,  false),
        ("a loop",                                  &gone,   &add,   true),
        ("unrelated",                               &less,   &add,   false),
    ];
    for (why, failed, next, blocked) in cases {
        assert_eq!(blocks(failed, next), blocked, "{why}");
    }
}
