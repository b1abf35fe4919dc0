use std::net::IpAddr;

use insta::assert_snapshot;
use proptest::prelude::*;

use super::*;
use crate::model;

#[path = "arbitrary.rs"]
mod arbitrary;

/// A tree, written as it would be in a file.
macro_rules! tree {
    ({ $($key:ident: $value:tt),* $(,)? }) => {
        Value::Map(vec![$((stringify!($key).to_owned(), tree!($value))),*])
    };
    ([ $($value:tt),* $(,)? ]) => { Value::List(vec![$(tree!($value)),*]) };
    (null) => { Value::Null };
    (true) => { Value::Bool(true) };
    ($value:literal) => { Literal::from($value).0 };
}

// Behind the macro that it writes its trees with.
mod service;
mod vrrp;

struct Literal(Value);

impl From<&str> for Literal {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<i64> for Literal {
    fn from(number: i64) -> Self {
        Self(Value::Integer(number.into()))
    }
}

impl From<f64> for Literal {
    fn from(number: f64) -> Self {
        Self(Value::Float(number))
    }
}

mod ipv6;

/// The smallest document that serves something.
fn small() -> Value {
    tree!({
        fleet: { name: "blue" },
        vips: [{ name: "web", addresses: ["192.0.2.100"], interface: "eth0", vrrp: { vrid: 51 } }],
        pools: [{ name: "web", real_servers: [{ address: "10.0.0.3", port: 80 }] }],
        services: [{ name: "web", vip: "web", port: 80, pool: "web" }],
    })
}

/// Sets the value at `path` (`services.0.port`), or removes the key if there is none to set.
fn put(tree: &mut Value, path: &str, value: Option<Value>) {
    let (step, rest) = path.split_once('.').map_or((path, None), |(step, rest)| (step, Some(rest)));
    match (tree, rest) {
        (Value::Map(entries), None) => {
            let at = entries.iter().position(|(key, _)| key == step);
            match (at, value) {
                (Some(at), Some(value)) => entries[at].1 = value,
                (Some(at), None) => drop(entries.remove(at)),
                (None, Some(value)) => entries.push((step.to_owned(), value)),
                (None, None) => panic!("no {step} to remove"),
            }
        }
        (Value::Map(entries), Some(rest)) => {
            if !entries.iter().any(|(key, _)| key == step) {
                entries.push((step.to_owned(), Value::Map(Vec::new())));
            }
            let (_, inner) = entries.iter_mut().find(|(key, _)| key == step).unwrap();
            put(inner, rest, value);
        }
        (Value::List(values), rest) => {
            let index: usize = step.parse().unwrap();
            match (rest, value) {
                (Some(rest), value) => put(&mut values[index], rest, value),
                (None, Some(value)) if index == values.len() => values.push(value),
                (None, Some(value)) => values[index] = value,
                (None, None) => drop(values.remove(index)),
            }
        }
        (other, _) => panic!("{step}: {other:?} has nothing inside"),
    }
}

/// What is wrong with [`small`] after the changes.
fn faults(changes: &[(&str, Value)]) -> String {
    let mut tree = small();
    for (path, value) in changes {
        put(&mut tree, path, Some(value.clone()));
    }
    lines(&tree)
}

fn lines(tree: &Value) -> String {
    let faults = decode(tree).err().unwrap_or_default();
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_is_left_out_has_its_default() {
    let document = decode(&small()).unwrap();
    let service = &document.services[0];
    assert_eq!(service.scheduler, model::Scheduler::Wlc);
    assert_eq!(service.forwarding, model::Forwarding::Dr);
    let tcp = model::Listen::Port { protocol: model::Protocol::Tcp, port: 80 };
    assert_eq!(service.listen, tcp);
    assert_eq!(service.persistence, model::Persistence::default());
    let vip = &document.vips[0];
    assert_eq!((vip.vrrp.priority, vip.vrrp.advert_interval.as_secs()), (200, 1));
    assert_eq!((vip.vrrp.version, &vip.vrrp.auth), (model::VrrpVersion::V2, &None));
    let pool = &document.pools[0];
    assert_eq!((&pool.check, pool.min_healthy), (&None, 0));
    let listed = model::RealServer::new(IpAddr::from([10, 0, 0, 3]), 80, 1);
    assert_eq!(pool.source, model::PoolSource::Listed(vec![listed]));

    let checked = {
        let mut tree = small();
        put(&mut tree, "pools.0.check", Some(tree!({ kind: "tcp" })));
        decode(&tree).unwrap().pools.remove(0).check.unwrap()
    };
    let seconds = [checked.interval, checked.timeout, checked.delay_before_retry];
    assert_eq!(seconds.map(|span| span.as_millis()), [6000, 3000, 3000]);
    assert_eq!((checked.retries, checked.port), (3, None));
}

#[test]
fn a_fleet_alone_is_a_document() {
    let document = decode(&tree!({ fleet: { name: "blue" } })).unwrap();
    assert_eq!(document.fleet.name, "blue");
    assert!(document.vips.is_empty() && document.pools.is_empty() && document.services.is_empty());
}

#[test]
fn every_fault_is_reported_at_once() {
    assert_snapshot!(faults(&[
        ("fleet.name", tree!("Blue Fleet")),
        ("fleet.no_quorum", tree!("stiky")),
        ("vips.0.addresses.0", tree!("192.0.2.100/24")),
        ("vips.0.vrrp.priority", tree!(255)),
        ("pools.0.real_servers.0.weight", tree!(3000000000)),
        ("services.0.scheduler", tree!("wlcc")),
        ("services.0.prot", tree!("tcp")),
        ("services.0.persistence", tree!(50)),
        ("services.0.pool", tree!("wbe")),
    ]), @r#"
    fleet.no_quorum: no no-quorum policy "stiky"; did you mean "sticky"?
    vips[0].addresses[0]: "192.0.2.100/24" is not an IP address; leave out the prefix length
    services[0].prot: no such key; did you mean "protocol"?
    services[0].scheduler: no scheduler "wlcc"; did you mean "wlc"?
    services[0].persistence: 50 has no unit; write a whole number and a unit (ms, s, m, h), such as `6s` or `500ms`
    fleet.name: "Blue Fleet" is not a name; only a-z, 0-9 and `-` are possible
    vips[0].vrrp.priority: 255 is outside 1 to 254; 0 tells backups to take over, 255 is for routers whose own address is the VIP
    pools[0].real_servers[0].weight: 3000000000 is outside 0 to 2147483647
    services[0].pool: no pool is named "wbe"; did you mean "web"?
    "#);
}

#[test]
fn what_is_not_built_yet_is_refused_by_name() {
    let mut text = String::new();
    for (path, value) in [
        ("fleet.notifications", tree!({})),
        ("vips.0.vrrp.auth", tree!({ pass: "1111", hmac: {} })),
        ("vips.0.vrrp.vmac", tree!(true)),
        ("pools.0.quorum", tree!(2)),
        ("pools.0.sorry", tree!({})),
    ] {
        text += &faults(&[(path, value)]);
        text.push('\n');
    }
    assert_snapshot!(text, @r#"
    fleet.notifications: `notifications` is not supported yet; leave it out
    vips[0].vrrp.auth.hmac: `hmac` is not supported yet; leave it out
    vips[0].vrrp.vmac: `vmac` is not supported yet; leave it out
    pools[0].quorum: `quorum` is not supported yet; leave it out
    pools[0].sorry: `sorry` is not supported yet; leave it out
    "#);
}

#[test]
fn who_holds_without_a_quorum_needs_a_priority_below_the_holders_and_sound_arbiters() {
    let low = [("fleet.no_quorum", tree!("auto")), ("vips.0.vrrp.priority", tree!(1))];
    let arbiters = tree!(["192.0.2.1", "192.0.2.1", "192.0.2.100", "127.0.0.1"]);
    assert_snapshot!(faults(&low) + "\n" + &faults(&[("vips.0.arbiters", arbiters)]), @r#"
    vips[0].vrrp.priority: 1 is outside 2 to 254 under `no_quorum: auto`; without a quorum a holder announces itself with a priority below this one
    vips[0].arbiters[1]: 192.0.2.1 is there twice
    vips[0].arbiters[2]: 192.0.2.100 is an address of VIP group `web`; name a router or another machine that is no part of the fleet
    "#);
}

#[test]
fn a_failback_delay_belongs_to_delayed_failback() {
    let read = |word: &str, delay: Option<&str>| {
        let mut tree = small();
        put(&mut tree, "fleet.failback", Some(word.into()));
        if let Some(delay) = delay {
            put(&mut tree, "fleet.failback_delay", Some(delay.into()));
        }
        decode(&tree).map(|document| document.fleet.failback)
    };
    let delayed = |secs| Ok(model::Failback::Delayed(std::time::Duration::from_secs(secs)));
    assert_eq!(read("delayed", None), delayed(60));
    assert_eq!(read("delayed", Some("90s")), delayed(90));
    assert_eq!(read("immediate", None), Ok(model::Failback::Immediate));
    let mut text = String::new();
    for values in [
        [("fleet.failback", tree!("never")), ("fleet.failback_delay", tree!("60s"))],
        [("fleet.failback", tree!("immediate")), ("fleet.failback_delay", tree!("60s"))],
        [("fleet.failback", tree!("delayed")), ("fleet.failback_delay", tree!("500ms"))],
        [("fleet.failback", tree!("delayed")), ("fleet.failback_delay", tree!(60))],
        [("fleet.failback", tree!("delay")), ("fleet.failback_delay", tree!("60s"))],
    ] {
        text += &faults(&values);
        text.push('\n');
    }
    assert_snapshot!(text, @r#"
    fleet.failback_delay: only `failback: delayed` waits for a span; set `failback: delayed`, or leave it out
    fleet.failback_delay: only `failback: delayed` waits for a span; set `failback: delayed`, or leave it out
    fleet.failback_delay: 500ms is outside 1s to 24h
    fleet.failback_delay: 60 has no unit; write a whole number and a unit (ms, s, m, h), such as `6s` or `500ms`
    fleet.failback: no failback policy "delay"; did you mean "delayed"?
    "#);
}

#[test]
fn types_are_not_guessed() {
    let mut text = String::new();
    for (path, value) in [
        ("fleet", tree!("blue")),
        ("fleet.name", tree!(7)),
        ("fleet.name", tree!(null)),
        ("vips", tree!({})),
        ("vips.0", tree!("web")),
        ("vips.0.addresses", tree!("192.0.2.100")),
        ("vips.0.addresses.0", tree!("192.0.2.100:80")),
        ("vips.0.addresses.0", tree!("vip.example")),
        ("vips.0.vrrp", tree!(null)),
        ("vips.0.vrrp.version", tree!(4)),
        ("vips.0.vrrp.version", tree!("2")),
        ("vips.0.vrrp.auth", tree!({ pass: 1111 })),
        ("vips.0.vrrp.advert_interval", tree!(1)),
        ("vips.0.vrrp.advert_interval", tree!("1 sec")),
        ("pools.0.min_healthy", tree!(1.5)),
        ("pools.0.min_healthy", tree!(-1)),
        ("services.0.port", tree!("80")),
        ("services.0.port", tree!(true)),
        ("services.0.scheduler", tree!("roundrobin")),
        ("services.0.scheduler", tree!("WLC")),
        ("services.0.protocol", tree!(6)),
    ] {
        text += &faults(&[(path, value)]);
        text.push('\n');
    }
    assert_snapshot!(text, @r#"
    fleet: expected a map, found text "blue"
    fleet.name: expected text, found the number 7; put it in quotes
    fleet.name: expected text, found nothing; leave out a key that has no value
    vips: expected a list, found a map
    vips[0]: expected a map, found text "web"
    vips[0].addresses: expected a list, found text "192.0.2.100"
    vips[0].addresses[0]: "192.0.2.100:80" is not an IP address; the port is a key of its own
    vips[0].addresses[0]: "vip.example" is not an IP address
    vips[0].vrrp: expected a map, found nothing; leave out a key that has no value
    vips[0].vrrp.version: 4 is outside 2 to 3
    vips[0].vrrp.version: expected a whole number, found text "2"; write it without quotes
    vips[0].vrrp.auth.pass: expected text; put it in quotes
    vips[0].vrrp.advert_interval: 1 has no unit; write a whole number and a unit (ms, s, m, h), such as `6s` or `500ms`
    vips[0].vrrp.advert_interval: "1 sec" is not a duration; write a whole number and a unit (ms, s, m, h), such as `6s` or `500ms`
    pools[0].min_healthy: expected a whole number, found the number 1.5
    pools[0].min_healthy: -1 is outside 0 to 65535
    services[0].port: expected a whole number, found text "80"; write it without quotes
    services[0].port: expected a whole number, found true
    services[0].scheduler: no scheduler "roundrobin"; there are `rr`, `wrr`, `lc`, `wlc`, `lblc`, `lblcr`, `dh`, `sh`, `mh`, `sed`, `nq`, `fo`, `ovf`
    services[0].scheduler: no scheduler "WLC"; did you mean "wlc"?
    services[0].protocol: expected a protocol, found the number 6
    "#);
    assert_snapshot!(lines(&tree!("text")), @r#"expected a map, found text "text""#);
}

#[test]
fn limits_say_the_value_and_the_range() {
    let mut text = String::new();
    for (path, value) in [
        ("fleet.name", tree!("")),
        ("fleet.name", Value::Text("a".repeat(64))),
        ("vips.0.name", tree!("web_1")),
        ("vips.0.addresses", tree!([])),
        ("vips.0.addresses.0", tree!("127.0.0.1")),
        ("vips.0.addresses.0", tree!("224.0.0.18")),
        ("vips.0.interface", tree!("")),
        ("vips.0.interface", tree!("a-very-long-interface")),
        ("vips.0.interface", tree!("eth0:1")),
        ("vips.0.preference", tree!(["lvs-1", "LVS-2", "lvs-1"])),
        ("vips.0.vrrp.vrid", tree!(0)),
        ("vips.0.vrrp.vrid", tree!(256)),
        ("vips.0.vrrp.priority", tree!(0)),
        ("vips.0.vrrp.advert_interval", tree!("1500ms")),
        ("vips.0.vrrp.advert_interval", tree!("256s")),
        ("vips.0.vrrp.auth", tree!({ pass: "" })),
        ("vips.0.vrrp.auth", tree!({ pass: "secret-of-ours" })),
        ("vips.0.vrrp.checksum", tree!("plain")),
        ("vips.0.vrrp", tree!({ vrid: 1, version: 3, auth: { pass: "1111" } })),
        ("vips.0.vrrp", tree!({ vrid: 1, version: 3, advert_interval: "15ms" })),
        ("vips.0.vrrp", tree!({ vrid: 1, version: 3, advert_interval: "41s" })),
        ("pools.0.real_servers.0.port", tree!(0)),
        ("pools.0.real_servers.0.port", tree!(70000)),
        ("pools.0.real_servers.0.weight", tree!(2147483648)),
        ("pools.0.min_healthy", tree!(65536)),
        (
            "pools.0.check",
            tree!({ kind: "tcp", port: 0, interval: "50ms", timeout: "61s", retries: 101, delay_before_retry: "0s" }),
        ),
        ("services.0.persistence", tree!("1500ms")),
        ("services.0.persistence", tree!("745h")),
    ] {
        text += &faults(&[(path, value)]);
        text.push('\n');
    }
    assert_snapshot!(text, @r#"
    fleet.name: is empty: 1 to 63 characters are possible
    fleet.name: is 64 characters long: 1 to 63 characters are possible
    vips[0].name: "web_1" is not a name; only a-z, 0-9 and `-` are possible
    services[0].vip: no VIP group is named "web"; did you mean "web_1"?
    vips[0].addresses: 0 addresses: 1 to 20 are possible
    vips[0].addresses[0]: 127.0.0.1 is a loopback address: nobody can reach it
    vips[0].addresses[0]: 224.0.0.18 is not the address of one machine
    vips[0].interface: is empty: 1 to 15 bytes are possible
    vips[0].interface: is 21 bytes long: 1 to 15 bytes are possible
    vips[0].interface: "eth0:1" cannot be an interface's name
    vips[0].preference[1]: "LVS-2" is not a name; only a-z, 0-9 and `-` are possible
    vips[0].preference[2]: `lvs-1` is there twice
    vips[0].vrrp.vrid: 0 is outside 1 to 255
    vips[0].vrrp.vrid: 256 is outside 1 to 255
    vips[0].vrrp.priority: 0 is outside 1 to 254; 0 tells backups to take over, 255 is for routers whose own address is the VIP
    vips[0].vrrp.advert_interval: 1500ms cannot be sent in version 2: 1s to 255s in steps of 1s
    vips[0].vrrp.advert_interval: 256s cannot be sent in version 2: 1s to 255s in steps of 1s
    vips[0].vrrp.auth.pass: is empty: 1 to 8 bytes are possible
    vips[0].vrrp.auth.pass: is 14 bytes long: 1 to 8 bytes are possible
    vips[0].vrrp.checksum: version 2 has one kind of checksum only; leave it out, or set `version: 3`
    vips[0].vrrp.auth: version 3 has no authentication; leave it out, or set `version: 2`
    vips[0].vrrp.advert_interval: 15ms cannot be sent in version 3: 10ms to 40950ms in steps of 10ms
    vips[0].vrrp.advert_interval: 41s cannot be sent in version 3: 10ms to 40950ms in steps of 10ms
    pools[0].real_servers[0].port: 0 is not the port of service `web`, 80; only `forwarding: nat` translates ports
    pools[0].real_servers[0].port: 70000 is outside 0 to 65535
    pools[0].real_servers[0].weight: 2147483648 is outside 0 to 2147483647
    pools[0].min_healthy: 65536 is outside 0 to 65535
    pools[0].check.port: 0 is outside 1 to 65535
    pools[0].check.interval: 50ms is outside 100ms to 1h
    pools[0].check.timeout: 61s is outside 10ms to 1m
    pools[0].check.retries: 101 is outside 0 to 100
    pools[0].check.delay_before_retry: 0s is outside 10ms to 1h
    services[0].persistence: 1500ms is not in whole seconds; the kernel counts seconds
    services[0].persistence: 745h is outside 0s to 744h
    "#);
}

#[test]
fn sources_ask_for_what_they_need() {
    let mut text = String::new();
    for discovery in [
        tree!({}),
        tree!({ file: { path: "/etc/web.json" }, dns: { name: "web.example", record: "srv" } }),
        tree!({ file: {} }),
        tree!({ file: { path: "web.json", interval: "2h" } }),
        tree!({ dns: { name: "web.example" } }),
        tree!({ dns: { name: "web.example", record: "srv", port: 80, weight: 2 } }),
        tree!({ dns: { name: "web.example", record: "a" } }),
        tree!({ dns: { name: "web.example", record: "a", port: 81 } }),
        tree!({ dns: { name: "web.example", record: "aaaa", port: 80 } }),
        tree!({ dns: { name: "web.example", record: "mx" } }),
        tree!({ dns: { name: "web..example", record: "srv" } }),
        tree!({ dns: { name: "", record: "srv", servers: ["one", "192.0.2.53:0", "192.0.2.53:53", "192.0.2.53"] } }),
        tree!({ consul: {} }),
    ] {
        let mut tree = small();
        put(&mut tree, "pools.0.real_servers", None);
        put(&mut tree, "pools.0.discovery", Some(discovery));
        text += &lines(&tree);
        text.push('\n');
    }
    assert_snapshot!(text, @r#"
    pools[0].discovery: a pool has exactly one source; name either `file` or `dns`
    pools[0].discovery: a pool has exactly one source; name either `file` or `dns`
    pools[0].discovery.file.path: is missing
    pools[0].discovery.file.path: "web.json" is not an absolute path
    pools[0].discovery.file.interval: 2h is outside 100ms to 1h
    pools[0].discovery.dns.record: is missing
    pools[0].discovery.dns.port: SRV records carry their own port; leave it out
    pools[0].discovery.dns.weight: SRV records carry their own weight; leave it out
    pools[0].discovery.dns.port: is missing: A records carry no port
    pools[0].discovery.dns.port: 81 is not the port of service `web`, 80; only `forwarding: nat` translates ports
    
    pools[0].discovery.dns.record: no DNS record type "mx"; there are `srv`, `a`, `aaaa`
    pools[0].discovery.dns.name: "web..example" is not a DNS name; labels of 1 to 63 letters, digits, `-` and `_`, with dots between them
    pools[0].discovery.dns.servers[0]: "one" is not a DNS server's address; write `192.0.2.53` or `192.0.2.53:5353`
    pools[0].discovery.dns.name: is empty: 1 to 253 bytes are possible
    pools[0].discovery.dns.servers[1]: nobody can be asked at 192.0.2.53:0
    pools[0].discovery.dns.servers[3]: 192.0.2.53:53 is there twice
    pools[0].discovery.consul: no such key; there are `file`, `dns`
    pools[0].discovery: a pool has exactly one source; name either `file` or `dns`
    "#);
}

#[test]
fn objects_must_fit_together() {
    let mut text = String::new();
    let other_vip = |address: &str, interface: &str, vrid: i64| {
        let mut vip = tree!({ name: "two" });
        put(&mut vip, "addresses", Some(Value::List(vec![address.into()])));
        put(&mut vip, "interface", Some(interface.into()));
        put(&mut vip, "vrrp.vrid", Some(Value::Integer(vrid.into())));
        vip
    };
    for (path, value) in [
        ("vips.1", other_vip("192.0.2.100", "eth0", 52)),
        ("vips.1", other_vip("192.0.2.101", "eth0", 51)),
        ("vips.1", other_vip("192.0.2.101", "eth1", 51)),
        ("vips.0.addresses", tree!(["192.0.2.100", "192.0.2.100"])),
        ("pools.1", tree!({ name: "web", real_servers: [] })),
        ("pools.0.real_servers.1", tree!({ address: "10.0.0.3", port: 80, weight: 3 })),
        ("pools.0.real_servers.1", tree!({ address: "10.0.0.4", port: 8080 })),
        ("pools.0.real_servers.1", tree!({ address: "192.0.2.100", port: 80 })),
        ("pools.0.discovery", tree!({ file: { path: "/etc/web.json" } })),
        ("services.1", tree!({ name: "two", vip: "web", port: 80, pool: "web" })),
        ("services.1", tree!({ name: "two", vip: "web", port: 80, protocol: "udp", pool: "web" })),
        ("services.1", tree!({ name: "web", vip: "mail", port: 80, pool: "wep" })),
    ] {
        text += &format!("# {path}\n{}\n", faults(&[(path, value)]));
    }
    assert_snapshot!(text, @r#"
    # vips.1
    vips[1].addresses[0]: 192.0.2.100 is vips[0].addresses[0] already
    # vips.1
    vips[1].vrrp.vrid: VRID 51 on eth0 belongs to vips[0] already; give each VIP group of an interface its own VRID
    # vips.1

    # vips.0.addresses
    vips[0].addresses[1]: 192.0.2.100 is vips[0].addresses[0] already
    # pools.1
    pools[1].name: `web` is the name of pools[0] already
    # pools.0.real_servers.1
    pools[0].real_servers[1]: 10.0.0.3:80 is pools[0].real_servers[0] already
    # pools.0.real_servers.1
    pools[0].real_servers[1].port: 8080 is not the port of service `web`, 80; only `forwarding: nat` translates ports
    # pools.0.real_servers.1
    pools[0].real_servers[1].address: 192.0.2.100 is an address of VIP group `web`; name a real server by an address of its own
    # pools.0.discovery
    pools[0].discovery: a pool has either listed real servers or a source; leave out `discovery` or `real_servers`
    # services.1
    services[1]: services[0] has tcp port 80 of VIP group `web` already
    # services.1

    # services.1
    services[1].name: `web` is the name of services[0] already
    services[1].vip: no VIP group is named "mail"; name one of `vips`
    services[1].pool: no pool is named "wep"; did you mean "web"?
    "#);
}

#[test]
fn what_is_missing_or_there_twice_is_named() {
    let mut text = String::new();
    for path in [
        "fleet",
        "fleet.name",
        "vips.0.name",
        "vips.0.addresses",
        "vips.0.interface",
        "vips.0.vrrp",
        "vips.0.vrrp.vrid",
        "pools.0.name",
        "pools.0.real_servers",
        "pools.0.real_servers.0.address",
        "pools.0.real_servers.0.port",
        "services.0.name",
        "services.0.vip",
        "services.0.port",
        "services.0.pool",
    ] {
        let mut tree = small();
        put(&mut tree, path, None);
        text += &lines(&tree);
        text.push('\n');
    }
    let mut twice = small();
    let Value::Map(entries) = &mut twice else { panic!("no map") };
    entries.push(("pools".to_owned(), tree!([])));
    text += &lines(&twice);
    assert_snapshot!(text, @r#"
    fleet: is missing
    fleet.name: is missing
    vips[0].name: is missing
    vips[0].addresses: is missing
    vips[0].interface: is missing
    vips[0].vrrp: is missing
    vips[0].vrrp.vrid: is missing
    pools[0].name: is missing
    pools[0].real_servers: is missing; `discovery` may be there instead; an empty pool has `[]`
    pools[0].real_servers[0].address: is missing
    pools[0].real_servers[0].port: is missing
    services[0].name: is missing
    services[0].vip: is missing
    services[0].port: is missing; a service has a `port`, or a `fwmark` instead
    services[0].pool: is missing
    pools: the key is there twice
    "#);
}

#[test]
fn a_password_is_never_repeated() {
    for pass in [tree!("secret-of-ours"), tree!(918_273_645), tree!(["918273645"])] {
        let text = faults(&[("vips.0.vrrp.auth", Value::Map(vec![("pass".to_owned(), pass)]))]);
        assert!(text.starts_with("vips[0].vrrp.auth.pass: "), "{text}");
        assert!(!text.contains("secret") && !text.contains("918"), "{text}");
    }
}

#[test]
fn a_committed_document_is_read_although_a_rule_became_stricter() {
    let mut tree = small();
    put(&mut tree, "services.0.pool", Some(tree!("gone")));
    assert!(decode(&tree).is_err());
    assert_eq!(decode_committed(&tree).unwrap().services[0].pool, "gone");
    put(&mut tree, "services.0.scheduler", Some(tree!("wlcc")));
    assert!(decode_committed(&tree).is_err());
}

proptest! {
    #[test]
    fn a_document_survives_writing_and_reading(document in arbitrary::document()) {
        prop_assert_eq!(check(&document), vec![]);
        let tree = encode(&document);
        prop_assert_eq!(decode(&tree), Ok(document.clone()));
        prop_assert_eq!(decode_committed(&tree), Ok(document));
    }

    #[test]
    fn whatever_the_tree_reading_ends_and_faults_have_texts(tree in any_tree()) {
        if let Err(faults) = decode(&tree) {
            prop_assert!(!faults.is_empty());
            for fault in faults {
                prop_assert!(!fault.message.is_empty());
            }
        }
    }
}

/// A sound document with one value replaced by anything at all.
fn any_tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i128>().prop_map(Value::Integer),
        any::<f64>().prop_map(Value::Float),
        ".{0,12}".prop_map(Value::Text),
        Just(Value::List(vec![])),
        Just(Value::Map(vec![])),
    ];
    (arbitrary::document(), leaf, any::<prop::sample::Index>()).prop_map(|(document, leaf, at)| {
        let mut tree = encode(&document);
        let count = leaves(&mut tree, &mut |_| ());
        let (chosen, mut seen) = (at.index(count), 0);
        leaves(&mut tree, &mut |value| {
            if seen == chosen {
                *value = leaf.clone();
            }
            seen += 1;
        });
        tree
    })
}

/// Visits every value that has none inside, and counts them.
fn leaves(tree: &mut Value, visit: &mut impl FnMut(&mut Value)) -> usize {
    match tree {
        Value::List(values) if !values.is_empty() => {
            values.iter_mut().map(|value| leaves(value, visit)).sum()
        }
        Value::Map(entries) if !entries.is_empty() => {
            entries.iter_mut().map(|(_, value)| leaves(value, visit)).sum()
        }
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::List(_)
        | Value::Map(_) => {
            visit(tree);
            1
        }
    }
}
