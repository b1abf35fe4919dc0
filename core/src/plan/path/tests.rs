//! The promises of a plan for tunnels' ends and ways back, on random kernels and on the cases that operators meet.

use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;

use super::*;
use crate::model::Protocol;
use crate::placement::NodePlan;
use crate::plan::tests::{host_address, perform as perform_any};
use crate::plan::{Action, Address, Owned, Sysctl, teardown};

/// What Linux does, as far as it matters here.
pub(in crate::plan) fn perform(
    kernel: &mut Observed,
    action: &PathAction,
) -> Result<(), &'static str> {
    let paths = &mut kernel.paths;
    match action {
        PathAction::AddTunnel(tunnel) => {
            let name = tunnel.name();
            let seen = SeenTunnel {
                tunnel: Some((tunnel.kind, tunnel.local, tunnel.checksum)),
                up: true,
                marked: true,
            };
            if paths.tunnels.insert(name.clone(), seen).is_some() {
                return Err("EEXIST");
            }
            for (sysctl, value) in defaults(&name) {
                kernel.sysctls.insert(sysctl, value);
            }
        }
        PathAction::RaiseTunnel(name) => {
            let tunnel = paths.tunnels.get_mut(name).ok_or("ENODEV")?;
            if tunnel.up {
                return Err("it is up");
            }
            tunnel.up = true;
        }
        PathAction::RemoveTunnel(name) => {
            paths.tunnels.remove(name).ok_or("ENODEV")?;
            kernel.addresses.retain(|address| address.interface != *name);
            kernel.sysctls.retain(|sysctl, _| sysctl.0.split('/').nth(3) != Some(name));
        }
        PathAction::AddPort(port) => {
            let ports = paths.ports.as_mut().ok_or("ENOENT: no fou")?;
            if ports.insert(*port, true).is_some() {
                return Err("EADDRINUSE");
            }
        }
        PathAction::RemovePort(port) => {
            paths.ports.as_mut().and_then(|ports| ports.remove(port)).ok_or("ENOENT")?;
        }
        PathAction::AddRule(rule) => {
            if paths.rules.insert(*rule, true).is_some() {
                return Err("EEXIST");
            }
        }
        PathAction::RemoveRule(rule) => {
            paths.rules.remove(rule).ok_or("ENOENT")?;
        }
        PathAction::AddRoute(route) => {
            let same = |other: &Route| {
                (other.table, other.gateway.is_ipv6()) == (route.table, route.gateway.is_ipv6())
            };
            if paths.routes.keys().any(same) {
                return Err("EEXIST");
            }
            if kernel.addresses.iter().any(|address| address.address == route.gateway) {
                return Err("EINVAL: the gateway is local");
            }
            paths.routes.insert(*route, true);
        }
        PathAction::RemoveRoute(route) => {
            paths.routes.remove(route).ok_or("ESRCH")?;
        }
    }
    Ok(())
}

/// Whether what the action is about is in the record.
pub(in crate::plan) fn in_record(action: &PathAction, record: &Ours) -> bool {
    match action {
        PathAction::AddTunnel(tunnel) => record.tunnels.contains(&tunnel.name()),
        PathAction::RaiseTunnel(name) | PathAction::RemoveTunnel(name) => {
            record.tunnels.contains(name)
        }
        PathAction::AddPort(port) | PathAction::RemovePort(port) => record.ports.contains(port),
        PathAction::AddRule(rule) | PathAction::RemoveRule(rule) => record.rules.contains(rule),
        PathAction::AddRoute(route) | PathAction::RemoveRoute(route) => {
            record.routes.contains(route)
        }
    }
}

/// A new device's.
fn defaults(name: &str) -> [(Sysctl, i64); 2] {
    [
        (Sysctl(format!("net/ipv4/conf/{name}/rp_filter")), 1),
        (Sysctl(format!("net/ipv6/conf/{name}/disable_ipv6")), 1),
    ]
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn ip6(last: u16) -> IpAddr {
    IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last])
}

fn local(kind: TunnelKind, number: u8) -> IpAddr {
    match kind {
        TunnelKind::Ipip | TunnelKind::Sit | TunnelKind::Gre => ip(number),
        TunnelKind::Ip6tnl | TunnelKind::Ip6gre => ip6(number.into()),
    }
}

fn tunnel() -> impl Strategy<Value = Tunnel> {
    let kind = proptest::sample::select(&TunnelKind::ALL[..]);
    (kind, 1u8..3, any::<bool>(), 0u8..3).prop_map(|(kind, number, checksum, inner)| Tunnel {
        kind,
        local: local(kind, number),
        number,
        checksum: checksum && matches!(kind, TunnelKind::Gre | TunnelKind::Ip6gre),
        ipv4: inner != 1 && kind != TunnelKind::Sit || kind == TunnelKind::Ipip,
        ipv6: inner != 0 && kind != TunnelKind::Ipip || kind == TunnelKind::Sit,
    })
}

fn port() -> impl Strategy<Value = GuePort> {
    (any::<bool>(), 6080u16..6082).prop_map(|(ipv6, port)| GuePort { ipv6, port })
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![(1u8..3).prop_map(ip), (1u16..3).prop_map(ip6)]
}

fn rule() -> impl Strategy<Value = Rule> {
    (address(), 80u16..82, 7400u32..7402).prop_map(|(source, port, table)| Rule {
        source,
        protocol: Protocol::Tcp,
        first: port,
        last: port,
        table,
    })
}

fn route() -> impl Strategy<Value = Route> {
    (address(), 7400u32..7402).prop_map(|(gateway, table)| Route { table, gateway })
}

/// One route for each table and IP version.
fn routes() -> impl Strategy<Value = BTreeSet<Route>> {
    btree_set(route(), 0..4).prop_map(|routes| {
        let slots: BTreeMap<_, _> = routes
            .into_iter()
            .map(|route| ((route.table, route.gateway.is_ipv6()), route))
            .collect();
        slots.into_values().collect()
    })
}

fn wanted() -> impl Strategy<Value = Paths> {
    let tunnels = proptest::collection::vec(tunnel(), 0..4);
    (tunnels, btree_set(port(), 0..3), btree_set(rule(), 0..3), routes()).prop_map(
        |(tunnels, ports, rules, routes)| Paths {
            tunnels: tunnels.into_iter().map(|tunnel| (tunnel.name(), tunnel)).collect(),
            ports,
            rules,
            routes,
        },
    )
}

fn plan() -> impl Strategy<Value = NodePlan> {
    wanted().prop_map(|paths| NodePlan {
        revision: 7,
        real_server: RealServerSide { paths, ..RealServerSide::default() },
        ..NodePlan::default()
    })
}

/// A machine with devices of our names, of which some are down, foreign or something else; with and without a local gateway.
fn observed() -> impl Strategy<Value = Observed> {
    let device = (tunnel(), any::<[bool; 5]>(), 0i64..3, 0i64..2);
    let devices = proptest::collection::vec(device, 0..4);
    let ports = btree_map(port(), any::<bool>(), 0..3);
    let rules = btree_map(rule(), any::<bool>(), 0..3);
    let routes = (routes(), any::<bool>());
    (devices, ports, rules, routes, proptest::option::of(address())).prop_map(
        |(devices, ports, rules, (routes, marked), own)| {
            let mut seen = Observed::default();
            for (tunnel, [up, marked, plain, addressed, _], rp_filter, disable) in devices {
                let name = tunnel.name();
                let ends = (tunnel.kind, tunnel.local, tunnel.checksum);
                let device = SeenTunnel { tunnel: plain.then_some(ends), up, marked };
                if seen.paths.tunnels.insert(name.clone(), device).is_some() {
                    continue;
                }
                for ((sysctl, _), value) in defaults(&name).into_iter().zip([rp_filter, disable]) {
                    seen.sysctls.insert(sysctl, value);
                }
                if addressed {
                    seen.addresses.insert(host_address(&name, DUMMY, true));
                }
            }
            seen.addresses.extend(own.map(|own| host_address("eth0", own, true)));
            seen.paths.ports = Some(ports);
            seen.paths.rules = rules;
            // The kernel drops no route when its gateway becomes local.
            seen.paths.routes = routes.into_iter().map(|route| (route, marked)).collect();
            seen
        },
    )
}

fn ours() -> impl Strategy<Value = Owned> {
    let names = btree_set(tunnel().prop_map(|tunnel| tunnel.name()), 0..3);
    (names, btree_set(port(), 0..3), btree_set(rule(), 0..3), routes()).prop_map(
        |(tunnels, ports, rules, routes)| Owned {
            paths: Ours { tunnels, ports, rules, routes },
            ..Owned::default()
        },
    )
}

/// What is neither wanted nor ours, and must be as it was.
fn foreign(before: &Observed, wanted: &Paths, ours: &Ours) -> Seen {
    let mut left = before.paths.clone();
    left.tunnels.retain(|name, device| {
        !(device.marked || ours.tunnels.contains(name))
            && wanted
                .tunnels
                .get(name)
                .is_none_or(|want| device.tunnel != Some((want.kind, want.local, want.checksum)))
    });
    left.ports = left.ports.map(|mut ports| {
        ports.retain(|port, gue| {
            !*gue || !(ours.ports.contains(port) || wanted.ports.contains(port))
        });
        ports
    });
    left.rules.retain(|rule, marked| {
        !(*marked || ours.rules.contains(rule) || wanted.rules.contains(rule))
    });
    left.routes.retain(|route, marked| {
        !(*marked || ours.routes.contains(route) || wanted.routes.contains(route))
    });
    left
}

/// Routes that stand in the way and are not ours to remove.
fn in_the_way(before: &Observed, wanted: &Paths, ours: &Ours) -> bool {
    let foreign = foreign(before, wanted, ours);
    wanted.routes.iter().any(|want| {
        foreign.routes.keys().any(|other| {
            (other.table, other.gateway.is_ipv6()) == (want.table, want.gateway.is_ipv6())
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn paths_are_put_in_place_adopted_recorded_and_then_left_alone(
        before in observed(), plan in plan(), owned in ours(),
    ) {
        let wanted = &plan.real_server.paths;
        prop_assume!(!in_the_way(&before, wanted, &owned.paths));
        let found = crate::plan::diff(&before, &plan, &owned);
        let mut kernel = before.clone();
        for op in &found.ops {
            prop_assert!(!op.reason.is_empty());
            if let Action::Path(action) = &op.action {
                prop_assert!(in_record(action, &found.record.paths), "{action} is not in the record");
            }
            if let Err(error) = perform_any(&mut kernel, &op.action) {
                prop_assert!(false, "{}: {error}", op.action);
            }
        }
        let foreign = foreign(&before, wanted, &owned.paths);
        for (name, device) in &foreign.tunnels {
            prop_assert_eq!(kernel.paths.tunnels.get(name), Some(device));
        }
        for (port, gue) in foreign.ports.iter().flatten() {
            prop_assert_eq!(kernel.paths.ports.as_ref().and_then(|ports| ports.get(port)), Some(gue));
        }
        for (rule, marked) in &foreign.rules {
            prop_assert_eq!(kernel.paths.rules.get(rule), Some(marked));
        }
        for (route, marked) in &foreign.routes {
            prop_assert_eq!(kernel.paths.routes.get(route), Some(marked));
        }
        // It is in order, or it says what stands in the way; never neither.
        prop_assert_eq!(fault(&kernel, &plan.real_server).is_none(), found.withheld.is_empty());
        for record in [&found.settled, &found.record] {
            let again = crate::plan::diff(&kernel, &plan, record);
            prop_assert_eq!(&again.ops, &vec![]);
            prop_assert_eq!(&again.settled, &found.settled);
        }
    }

    #[test]
    fn leaving_undoes_what_arriving_did(before in observed(), plan in plan()) {
        let mut before = before;
        let wanted = &plan.real_server.paths;
        before.paths.tunnels.retain(|name, device| !device.marked && !wanted.tunnels.contains_key(name));
        let devices = before.paths.tunnels.clone();
        let stays = |name: &str| !name.starts_with(Tunnel::PREFIX) || devices.contains_key(name);
        // An address of a device that is there has its mark only where the device has ours.
        before.addresses.retain(|address| address.interface == "eth0");
        before.addresses = before.addresses.into_iter().map(|address| Address { marked: false, ..address }).collect();
        before.sysctls.retain(|sysctl, _| sysctl.0.split('/').nth(3).is_some_and(stays));
        before.paths.ports.as_mut().unwrap().retain(|port, _| !wanted.ports.contains(port));
        before.paths.rules.retain(|rule, marked| !*marked && !wanted.rules.contains(rule));
        before.paths.routes.clear();
        let arriving = crate::plan::diff(&before, &plan, &Owned::default());
        let mut kernel = before.clone();
        for op in &arriving.ops {
            perform_any(&mut kernel, &op.action).unwrap();
        }
        let leaving = teardown(&kernel, &arriving.settled);
        for op in &leaving.ops {
            perform_any(&mut kernel, &op.action).unwrap();
        }
        prop_assert_eq!(&kernel, &before);
        prop_assert_eq!(leaving.settled.paths, Ours::default());
    }
}

fn ipip() -> Tunnel {
    Tunnel {
        kind: TunnelKind::Ipip,
        local: ip(3),
        number: 1,
        checksum: false,
        ipv4: true,
        ipv6: false,
    }
}

fn side(paths: Paths) -> NodePlan {
    let real_server = RealServerSide { paths, ..RealServerSide::default() };
    NodePlan { revision: 3, real_server, ..NodePlan::default() }
}

fn script(plan: &crate::plan::Plan) -> String {
    plan.ops.iter().map(|op| format!("{}: {}\n", op.action, op.reason)).collect()
}

fn perform_all(kernel: &mut Observed, plan: &crate::plan::Plan) {
    for op in &plan.ops {
        perform_any(kernel, &op.action).unwrap_or_else(|error| panic!("{}: {error}", op.action));
    }
}

#[test]
fn a_tunnel_is_made_in_order_and_a_device_that_changed_is_repaired() {
    let port = GuePort { ipv6: false, port: 6080 };
    let plan = side(Paths {
        tunnels: [(ipip().name(), ipip())].into(),
        ports: [port].into(),
        ..Paths::default()
    });
    let mut kernel = Observed::default();
    kernel.paths.ports = Some(BTreeMap::new());
    let arriving = crate::plan::diff(&kernel, &plan, &Owned::default());
    insta::assert_snapshot!(script(&arriving), @r"
    receive GUE on UDP port 6080 (IPv4): needed by revision 3
    add tunnel lvs-ipip (ipip to 192.0.2.3): needed by revision 3
    add address 192.0.0.8 to lvs-ipip: reverse-path checks fail on a device without any address
    set net/ipv4/conf/lvs-ipip/rp_filter to 2: revision 3 needs 2
    ");
    perform_all(&mut kernel, &arriving);
    assert_eq!(fault(&kernel, &plan.real_server), None);

    let mut hurt = kernel.clone();
    hurt.paths.tunnels.get_mut("lvs-ipip").unwrap().up = false;
    hurt.sysctls.insert(Sysctl("net/ipv4/conf/lvs-ipip/rp_filter".into()), 0);
    hurt.paths.ports = Some(BTreeMap::new());
    assert_eq!(fault(&hurt, &plan.real_server).unwrap(), "tunnel lvs-ipip is down");
    let repair = crate::plan::diff(&hurt, &plan, &arriving.settled);
    insta::assert_snapshot!(script(&repair), @r"
    receive GUE on UDP port 6080 (IPv4): recorded as ours, but gone from the kernel
    set tunnel lvs-ipip up: is down, revision 3 needs it
    set net/ipv4/conf/lvs-ipip/rp_filter to 2: is 0, revision 3 needs 2
    ");
    perform_all(&mut hurt, &repair);
    assert_eq!(hurt, kernel);

    let leaving = teardown(&kernel, &arriving.settled);
    insta::assert_snapshot!(script(&leaving), @r"
    remove address 192.0.0.8 from lvs-ipip: ours, and not needed by a node that has left
    receive no GUE on UDP port 6080 (IPv4): ours, and not needed by a node that has left
    remove tunnel lvs-ipip: ours, and not needed by a node that has left
    ");
}

#[test]
fn what_is_not_ours_and_in_the_way_is_said_and_stays() {
    let port = GuePort { ipv6: true, port: 6080 };
    let plan = side(Paths {
        tunnels: [(ipip().name(), ipip())].into(),
        ports: [port].into(),
        ..Paths::default()
    });
    let mut kernel = Observed::default();
    let device = SeenTunnel { tunnel: None, up: true, marked: false };
    kernel.paths.tunnels.insert("lvs-ipip".into(), device);
    kernel.paths.ports = Some([(port, false)].into());
    let found = crate::plan::diff(&kernel, &plan, &Owned::default());
    assert_eq!(found.ops, vec![]);
    assert_eq!(found.withheld.len(), 2, "{:?}", found.withheld);
    assert!(found.withheld[0].starts_with("UDP port 6080 (IPv6) is taken"), "{:?}", found.withheld);
    assert!(found.withheld[1].contains("not ours"), "{:?}", found.withheld);
    assert!(found.record.paths.is_empty());
    assert!(fault(&kernel, &plan.real_server).is_some());
}

#[test]
fn answers_take_the_detour_unless_the_gateway_is_this_machine() {
    let rule = Rule { source: ip(3), protocol: Protocol::Tcp, first: 80, last: 80, table: 7401 };
    let route = Route { table: 7401, gateway: ip(1) };
    let plan = side(Paths { rules: [rule].into(), routes: [route].into(), ..Paths::default() });
    let mut kernel = Observed::default();
    let arriving = crate::plan::diff(&kernel, &plan, &Owned::default());
    insta::assert_snapshot!(script(&arriving), @r"
    add route default via 192.0.2.1 table 7401: needed by revision 3
    add rule from 192.0.2.3 ipproto tcp sport 80 lookup 7401: needed by revision 3
    ");
    assert_eq!(
        fault(&kernel, &plan.real_server).unwrap(),
        "no way back through the director: route default via 192.0.2.1 table 7401 is not there"
    );
    perform_all(&mut kernel, &arriving);
    assert_eq!(fault(&kernel, &plan.real_server), None);

    // It takes over: the inside VIP is its own now.
    kernel.addresses.insert(host_address("eth0", ip(1), true));
    let holding = crate::plan::diff(&kernel, &plan, &arriving.settled);
    insta::assert_snapshot!(script(&holding), @r"
    remove rule from 192.0.2.3 ipproto tcp sport 80 lookup 7401: ours, and not needed by revision 3
    remove route default via 192.0.2.1 table 7401: ours, and not needed by revision 3
    ");
    perform_all(&mut kernel, &holding);
    assert_eq!(fault(&kernel, &plan.real_server), None, "it is as ready as before");
    kernel.addresses.clear();
    let back = crate::plan::diff(&kernel, &plan, &holding.settled);
    assert_eq!(back.ops.len(), 2, "{}", script(&back));
}

#[test]
fn a_new_gateway_replaces_the_old_one_in_its_table() {
    let old = Route { table: 7400, gateway: ip(1) };
    let new = Route { table: 7400, gateway: ip(2) };
    let plan = side(Paths { routes: [new].into(), ..Paths::default() });
    let mut kernel = Observed::default();
    kernel.paths.routes.insert(old, true);
    let found = crate::plan::diff(&kernel, &plan, &Owned::default());
    perform_all(&mut kernel, &found);
    assert_eq!(kernel.paths.routes, [(new, true)].into());
}
