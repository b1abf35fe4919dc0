//! What services, real servers and `fleet.ipvs` may say.

use insta::assert_snapshot;

use super::*;

/// [`small`] with these keys of its service set (a path may lead elsewhere), and `port` taken away if a mark takes its place.
fn of_service(changes: &[(&str, Value)]) -> Value {
    let mut tree = small();
    for (path, value) in changes {
        if *path == "fwmark" {
            put(&mut tree, "services.0.port", None);
        }
        let path =
            if path.contains('.') { (*path).to_owned() } else { format!("services.0.{path}") };
        put(&mut tree, &path, Some(value.clone()));
    }
    tree
}

#[test]
fn whatever_the_kernel_can_do_can_be_said() {
    use model::{Encapsulation, Forwarding, Listen, SchedulerFlag, TunnelChecksum};
    let read = |changes: &[(&str, Value)]| {
        let document = decode(&of_service(changes));
        let document = document.unwrap_or_else(|faults| panic!("{changes:?}: {faults:?}"));
        assert_eq!(decode(&encode(&document)), Ok(document.clone()), "{changes:?}");
        document.services[0].clone()
    };
    let marked = read(&[("fwmark", tree!(7)), ("persistence", tree!("60s"))]);
    assert_eq!(marked.listen, Listen::Mark { mark: 7, marking: None });
    let every_port = read(&[
        ("port", tree!(0)),
        ("persistence", tree!("60s")),
        ("pools.0.real_servers.0.port", tree!(0)),
    ]);
    assert_eq!(every_port.listen, Listen::Port { protocol: model::Protocol::Tcp, port: 0 });
    let hashed = read(&[("scheduler", tree!("mh")), ("flags", tree!(["mh-port", "mh-fallback"]))]);
    assert_eq!(
        hashed.flags.into_iter().collect::<Vec<_>>(),
        [SchedulerFlag::MhFallback, SchedulerFlag::MhPort]
    );
    assert!(read(&[("protocol", tree!("udp")), ("one_packet", tree!(true))]).one_packet);
    let sip = read(&[
        ("protocol", tree!("udp")),
        ("persistence", tree!("60s")),
        ("persistence_netmask", tree!("255.255.255.0")),
        ("persistence_prefix", tree!(64)),
        ("persistence_engine", tree!("sip")),
    ]);
    assert_eq!((sip.persistence.netmask.to_bits(), sip.persistence.prefix), (0xffff_ff00, 64));
    assert_eq!(sip.persistence.engine, Some(model::Engine::Sip));
    let translated =
        read(&[("forwarding", tree!("nat")), ("pools.0.real_servers.0.port", tree!(8080))]);
    assert_eq!(translated.forwarding, Forwarding::Nat);
    #[rustfmt::skip]
    let tunnels = [
        (tree!({}),                                              Encapsulation::Ipip),
        (tree!({ kind: "gue", port: 6080 }),                     Encapsulation::Gue { port: 6080, checksum: TunnelChecksum::None }),
        (tree!({ kind: "gue", port: 6080, checksum: "remcsum" }), Encapsulation::Gue { port: 6080, checksum: TunnelChecksum::Remcsum }),
        (tree!({ kind: "gre", checksum: "csum" }),               Encapsulation::Gre { checksum: TunnelChecksum::Csum }),
    ];
    for (tunnel, encapsulation) in tunnels {
        let tunnelled = read(&[("forwarding", tree!("tunnel")), ("tunnel", tunnel)]);
        assert_eq!(tunnelled.forwarding, Forwarding::Tunnel(encapsulation));
    }
    let limited = decode(&of_service(&[
        ("pools.0.real_servers.0.upper_threshold", tree!(1000)),
        ("pools.0.real_servers.0.lower_threshold", tree!(800)),
        ("pools.0.real_servers.0.forwarding", tree!("nat")),
    ]));
    let model::PoolSource::Listed(listed) = &limited.unwrap().pools[0].source else { panic!() };
    assert_eq!((listed[0].upper_threshold, listed[0].lower_threshold), (1000, 800));
    assert_eq!(listed[0].forwarding, Some(Forwarding::Nat));
}

#[test]
fn what_a_service_cannot_be_is_refused_with_the_reason() {
    let mut text = String::new();
    for changes in [
        &[("port", tree!(0)), ("pools.0.real_servers.0.port", tree!(0))][..],
        &[("port", tree!(0)), ("persistence", tree!("60s"))],
        &[("fwmark", tree!(0))],
        &[("fwmark", tree!(7)), ("port", tree!(80))],
        &[("fwmark", tree!(7)), ("protocol", tree!("tcp"))],
        &[("ports", tree!([80]))],
        &[("fwmark", tree!(7)), ("ports", tree!([80, "90-89", "443x"]))],
        &[("flags", tree!(["mh-port"]))],
        &[("flags", tree!(["ops"]))],
        &[("one_packet", tree!(true))],
        &[("one_packet", tree!("yes"))],
        &[("persistence_netmask", tree!("255.255.255.0"))],
        &[("persistence", tree!("1s")), ("persistence_netmask", tree!(24))],
        &[("persistence", tree!("1s")), ("persistence_prefix", tree!(129))],
        &[("persistence", tree!("1s")), ("persistence_engine", tree!("sip"))],
        &[("tunnel", tree!({}))],
        &[("forwarding", tree!("tunnel")), ("tunnel", tree!({ kind: "gue" }))],
        &[
            ("forwarding", tree!("tunnel")),
            ("tunnel", tree!({ kind: "gre", port: 1, checksum: "remcsum" })),
        ],
        &[("forwarding", tree!("tunnel")), ("tunnel", tree!({ kind: "ipip", checksum: "csum" }))],
        &[("gateway", tree!("web"))],
        &[("forwarding", tree!("nat")), ("gateway", tree!("inside"))],
        &[("forwarding", tree!("nat")), ("pools.0.real_servers.0.port", tree!(0))],
        &[
            ("pools.0.real_servers.0.upper_threshold", tree!(5)),
            ("pools.0.real_servers.0.lower_threshold", tree!(6)),
        ],
        &[("fleet.ipvs.sysctls.values", tree!([{ name: "sloppy", value: 1 }]))],
        &[("fleet.ipvs.timeouts.tcp", tree!("500ms"))],
        &[("fleet.ipvs.sync", tree!({ interface: "eth0", group: "192.0.2.1" }))],
    ] {
        let keys: Vec<_> = changes.iter().map(|(path, _)| *path).collect();
        let lines = lines(&of_service(changes));
        let lines: Vec<_> =
            lines.lines().filter(|line| !line.contains("not supported yet")).collect();
        assert!(!lines.is_empty(), "{changes:?} is taken");
        text += &format!("# {}\n{}\n", keys.join(", "), lines.join("\n"));
    }
    assert_snapshot!(text, @r#"
    # port, pools.0.real_servers.0.port
    services[0].port: 0 is every port, which needs persistence; set `persistence`, or name a port
    # port, persistence
    pools[0].real_servers[0].port: 80 is one port, and service `web` takes every port; write 0
    # fwmark
    services[0].fwmark: 0 is outside 1 to 4294967295
    # fwmark, port
    services[0].port: a service has either a port or a firewall mark; name the ports that lvsmesh is to mark under `ports`
    # fwmark, protocol
    services[0].protocol: a firewall mark stands for packets of every protocol; leave it out, or name the `ports` that lvsmesh is to mark
    # ports
    services[0].ports: ports are marked for a `fwmark` only; give each port a service, or name a `fwmark` instead of `port`
    # fwmark, ports
    services[0].ports[1]: "90-89" is no port and no range of ports; write `80`, or `8000-8099` with the lower one first; ports are 1 to 65535
    services[0].ports[2]: "443x" is no port and no range of ports; write `80`, or `8000-8099` with the lower one first; ports are 1 to 65535
    # flags
    services[0].flags: `mh-port` is no flag of scheduler wlc; it has `flag-1`, `flag-2`, `flag-3`
    # flags
    services[0].flags[0]: no scheduler flag "ops"; there are `sh-fallback`, `sh-port`, `mh-fallback`, `mh-port`, `flag-1`, `flag-2`, `flag-3`
    # one_packet
    services[0].one_packet: only datagrams can be scheduled one by one; leave it out, or set `protocol: udp`
    # one_packet
    services[0].one_packet: expected `true` or `false`, found text "yes"
    # persistence_netmask
    services[0].persistence_netmask: says how clients persist, and `persistence` is off; set `persistence`, or leave it out
    # persistence, persistence_netmask
    services[0].persistence_netmask: the number 24 is no IPv4 mask; write `255.255.255.0`; for IPv6 there is `persistence_prefix`
    # persistence, persistence_prefix
    services[0].persistence_prefix: 129 is outside 1 to 128
    # persistence, persistence_engine
    services[0].persistence_engine: the kernel's sip engine reads UDP only; leave it out, or set `protocol: udp`
    # tunnel
    services[0].tunnel: only packets that are tunnelled have an encapsulation; set `forwarding: tunnel` beside it
    # forwarding, tunnel
    services[0].tunnel.port: is missing; gue needs the UDP port that real servers receive on
    # forwarding, tunnel
    services[0].tunnel.port: gre has no port; leave it out
    services[0].tunnel.checksum: gre has no remote checksum offload; use `csum` or `none`
    # forwarding, tunnel
    services[0].tunnel.checksum: ipip has no checksum; leave it out
    # gateway
    services[0].gateway: only translated connections need a way back through the director; leave it out, or set `forwarding: nat`
    # forwarding, gateway
    services[0].gateway: no VIP group is named "inside"; name one of `vips`
    # forwarding, pools.0.real_servers.0.port
    pools[0].real_servers[0].port: 0 is every port, and service `web` has one; name the port that the real server answers on
    # pools.0.real_servers.0.upper_threshold, pools.0.real_servers.0.lower_threshold
    pools[0].real_servers[0].lower_threshold: 6 is above upper_threshold, 5; new connections come again below the lower one; the kernel refuses it otherwise
    # fleet.ipvs.sysctls.values
    fleet.ipvs.sysctls.values[0].name: no IPVS sysctl "sloppy"; there are `am_droprate`, `amemthresh`, `backup_only`, `cache_bypass`, `conn_reuse_mode`, `conntrack`, `drop_entry`, `drop_packet`, `expire_nodest_conn`, `expire_quiescent_template`, `ignore_tunneled`, `nat_icmp_send`, `pmtu_disc`, `run_estimation`, `schedule_icmp`, `secure_tcp`, `sloppy_sctp`, `sloppy_tcp`, `snat_reroute`, `sync_period`, `sync_persist_mode`, `sync_ports`, `sync_qlen_max`, `sync_refresh_period`, `sync_retries`, `sync_sock_size`, `sync_threshold`, `sync_version`
    # fleet.ipvs.timeouts.tcp
    fleet.ipvs.timeouts.tcp: 500ms is outside 1s to 744h
    fleet.ipvs.timeouts.tcp: 500ms is not in whole seconds; the kernel counts seconds
    # fleet.ipvs.sync
    fleet.ipvs.sync.group: 192.0.2.1 is no multicast group; the kernel's own is 224.0.0.81
    "#);
}
