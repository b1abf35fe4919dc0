use super::*;

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|&item| item.to_owned()).collect()
}

fn node(id: u64, name: &str, roles: &[&str], raft: &str, address: &str) -> NodeStatus {
    NodeStatus {
        id,
        name: name.into(),
        roles: strings(roles),
        raft: raft.into(),
        addresses: strings(&[address]),
        reachable: true,
        revision: 7,
        converged: true,
        version: "0.1.0".into(),
        ..NodeStatus::default()
    }
}

fn real_server(address: &str, weight: u32, node: &str, reason: &str) -> RealServerStatus {
    RealServerStatus {
        address: address.into(),
        weight,
        serving: reason.is_empty(),
        node: node.into(),
        reason: reason.into(),
    }
}

fn reference() -> StatusResponse {
    StatusResponse {
        fleet: "blue".into(),
        leader: "lvs-1".into(),
        quorum: true,
        revision: 7,
        vips: vec![VipStatus {
            name: "web".into(),
            addresses: strings(&["192.168.3.100"]),
            holder: "lvs-1".into(),
            epoch: 3,
            lease_remaining_ms: 163,
            promise_ms: 200,
            gated: true,
            ungated_reason: String::new(),
            also_on: vec![],
            silent: false,
            authority: "lease".into(),
            failback: None,
        }],
        services: vec![ServiceStatus {
            name: "web".into(),
            listens: strings(&["tcp 192.168.3.100:80"]),
            scheduler: "wlc".into(),
            ready: 2,
            total: 2,
            real_servers: vec![
                real_server("192.168.3.3:80", 3, "web-1", ""),
                real_server("192.168.3.102:80", 3, "lvs-2", ""),
            ],
        }],
        nodes: vec![
            node(1, "lvs-1", &["director"], "voter", "192.168.3.101"),
            node(2, "lvs-2", &["director", "realserver"], "voter", "192.168.3.102"),
            node(3, "web-1", &["realserver"], "witness", "192.168.3.3"),
        ],
        warnings: vec![],
        answered_by: "lvs-2".into(),
        pools: vec![PoolStatus {
            name: "web".into(),
            source: "listed".into(),
            ..PoolStatus::default()
        }],
    }
}

#[test]
fn a_fleet_that_is_well_fits_a_small_screen() {
    insta::assert_snapshot!(table(&reference()), @r"
    fleet     blue
    leader    lvs-1
    revision  7
    seen by   lvs-2

    VIP  ADDRESSES      HOLDER  EPOCH   LEASE
    web  192.168.3.100  lvs-1       3  163 ms

    SERVICE
    web  tcp 192.168.3.100:80  2/2 ready  wlc
      192.168.3.3:80           weight 3   web-1  serving
      192.168.3.102:80         weight 3   lvs-2  serving

    NODE   ID  ROLES                 RAFT     ADDRESSES      REVISION  VERSION  STATE
    lvs-1   1  director              voter    192.168.3.101         7  0.1.0    converged
    lvs-2   2  director, realserver  voter    192.168.3.102         7  0.1.0    converged
    web-1   3  realserver            witness  192.168.3.3           7  0.1.0    converged
    ");
}

#[test]
fn a_fleet_that_serves_or_survives_less_than_it_should_is_degraded() {
    let mut status = reference();
    status.warnings = strings(&["drift repaired once"]);
    status.services[0].ready = 1;
    status.nodes[2].converged = false;
    assert_eq!(degraded(&status), [""; 0], "no alarm");

    status.vips[0].also_on = strings(&["lvs-2"]);
    status.vips.push(VipStatus {
        name: "mail".into(),
        holder: "lvs-1".into(),
        authority: "sticky".into(),
        ..VipStatus::default()
    });
    status.vips.push(VipStatus { name: "dns".into(), ..VipStatus::default() });
    status.vips.push(VipStatus {
        name: "ntp".into(),
        holder: "lvs-1".into(),
        silent: true,
        ..VipStatus::default()
    });
    assert!(table(&status).contains("lvs-1 (silent)"), "{}", table(&status));
    status.services[0].ready = 0;
    status.services.push(ServiceStatus { name: "empty".into(), ..ServiceStatus::default() });
    status.nodes[1].reachable = false;
    insta::assert_snapshot!(degraded(&status).join("\n"), @r"
    VIP group web is also on lvs-2
    VIP group mail is held without a lease
    VIP group dns has no holder
    VIP group ntp is held by lvs-1 in silence
    service web has no real server that is ready
    node lvs-2 is unreachable
    ");
}

#[test]
fn what_is_wrong_stands_beside_what_it_is_wrong_with() {
    let mut status = reference();
    status.vips[0].also_on = strings(&["lvs-2"]);
    status.services.push(ServiceStatus {
        name: "dns".into(),
        listens: strings(&["udp 192.168.3.100:53", "udp [2001:db8::100]:53"]),
        scheduler: "rr".into(),
        ready: 1,
        total: 4,
        real_servers: vec![
            real_server("192.168.3.9:53", 0, "", ""),
            real_server(
                "[2001:db8:0:3:0:0:0:9]:53",
                1,
                "",
                "check failed: refused (4 probes in a row)",
            ),
            real_server("192.168.3.102:53", 1, "lvs-2", "lvs-2: VIP 192.168.3.100 not on lo"),
            RealServerStatus {
                serving: true,
                ..real_server(
                    "192.168.3.8:53",
                    65_535,
                    "",
                    "kept by min_healthy 1: check failed: timed out",
                )
            },
        ],
    });
    status.pools.push(PoolStatus {
        name: "dns".into(),
        source: "dns".into(),
        state: "stale".into(),
        reason: "SERVFAIL for _dns._udp.example.net.".into(),
        real_servers: 4,
    });
    status.nodes[1].converged = false;
    status.nodes[1].warnings = strings(&["the kernel has no IPVS: install linux-image-amd64"]);
    status.nodes[2] = NodeStatus { reachable: false, revision: 0, ..status.nodes[2].clone() };
    status.nodes[0].foreign = strings(&["tcp 192.168.3.9:25", "fwmark 7"]);
    status.nodes[0].drift_repaired = 2;
    status.nodes[0].last_drift = "add service tcp 192.168.3.100:80 (wlc)".into();
    status.warnings = strings(&["node web-1 has been silent for 12 s"]);
    insta::assert_snapshot!(table(&status), @r"
    fleet     blue
    leader    lvs-1
    revision  7
    seen by   lvs-2

    VIP  ADDRESSES      HOLDER  EPOCH   LEASE
    web  192.168.3.100  lvs-1       3  163 ms

    SERVICE
    web  tcp 192.168.3.100:80                          2/2 ready     wlc
      192.168.3.3:80                                   weight 3      web-1      serving
      192.168.3.102:80                                 weight 3      lvs-2      serving
    dns  udp 192.168.3.100:53, udp [2001:db8::100]:53  1/4 ready     rr
      192.168.3.9:53                                   weight 0      unmanaged  drained
      [2001:db8:0:3:0:0:0:9]:53                        weight 1      unmanaged  out: check failed: refused (4 probes in a row)
      192.168.3.102:53                                 weight 1      lvs-2      out: lvs-2: VIP 192.168.3.100 not on lo
      192.168.3.8:53                                   weight 65535  unmanaged  serving: kept by min_healthy 1: check failed: timed out

    POOL  SOURCE  REAL SERVERS  STATE
    dns   dns                4  stale  SERVFAIL for _dns._udp.example.net.

    NODE   ID  ROLES                 RAFT     ADDRESSES      REVISION  VERSION  STATE
    lvs-1   1  director              voter    192.168.3.101         7  0.1.0    converged
    lvs-2   2  director, realserver  voter    192.168.3.102         7  0.1.0    converging
    web-1   3  realserver            witness  192.168.3.3           -  0.1.0    unreachable

    WARNINGS
      node web-1 has been silent for 12 s
      vip web: also on lvs-2
      lvs-1: foreign services, left alone: tcp 192.168.3.9:25, fwmark 7
      lvs-1: drift repaired 2 times, last: add service tcp 192.168.3.100:80 (wlc)
      lvs-2: the kernel has no IPVS: install linux-image-amd64
    ");
}

#[test]
fn without_a_quorum_the_first_lines_say_so() {
    let mut status = reference();
    status.quorum = false;
    status.leader.clear();
    status.vips[0].holder.clear();
    status.vips[0].lease_remaining_ms = 0;
    let text = table(&status);
    let head: Vec<&str> = text.lines().take(7).collect();
    insta::assert_snapshot!(head.join("\n"), @r"
    fleet     blue
    leader    none, no quorum
    revision  7
    seen by   lvs-2

    VIP  ADDRESSES      HOLDER  EPOCH  LEASE
    web  192.168.3.100  nobody      3      -
    ");
}

#[test]
fn a_fleet_without_a_document_is_a_short_status() {
    let empty = StatusResponse {
        vips: vec![],
        services: vec![],
        pools: vec![],
        revision: 0,
        ..reference()
    };
    let text = table(&empty);
    assert!(
        !text.contains("VIP") && !text.contains("SERVICE") && text.contains("revision  0"),
        "{text}"
    );
}

#[test]
fn json_has_every_field_of_the_message() {
    let text = serde_json::to_string(&crate::tree::Tree(&tree(&reference()))).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let keys =
        |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let sorted = |mut names: Vec<&'static str>| {
        names.sort_unstable();
        names
    };
    assert_eq!(
        keys(&value),
        sorted(vec![
            "fleet",
            "leader",
            "quorum",
            "revision",
            "vips",
            "services",
            "nodes",
            "warnings",
            "answered_by",
            "pools"
        ])
    );
    assert_eq!(
        keys(&value["nodes"][0]),
        sorted(vec![
            "id",
            "name",
            "roles",
            "raft",
            "addresses",
            "reachable",
            "revision",
            "converged",
            "version",
            "warnings",
            "foreign",
            "drift_repaired",
            "last_drift",
            "operations",
        ])
    );
    assert_eq!(value["services"][0]["real_servers"][1]["node"], "lvs-2");
    assert_eq!(value["vips"][0]["lease_remaining_ms"], 163);
    assert_eq!(value["vips"][0]["promise_ms"], 200);
}
