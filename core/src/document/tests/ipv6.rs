//! Which IPv6 addresses a document may have, and what follows for VRRP.

use super::*;

#[test]
fn ipv6_addresses_are_those_of_one_machine_wherever_they_are_read() {
    let group = |addresses: Value, vrrp: Value| {
        vec![("vips.0.addresses", addresses), ("vips.0.vrrp", vrrp)]
    };
    let v3 = || tree!({ vrid: 51, version: 3 });
    let sound = [
        group(tree!(["192.0.2.100", "2001:db8::100"]), tree!({ vrid: 51 })),
        group(tree!(["2001:db8::100"]), v3()),
        group(tree!(["fe80::100", "2001:db8::100", "fd00::100"]), v3()),
        vec![("pools.0.real_servers.0.address", tree!("2001:db8::3"))],
    ];
    for puts in sound {
        assert_eq!(faults(&puts), "", "{puts:?}");
    }
    let mut text = String::new();
    for puts in [
        group(tree!(["::", "ff02::1", "::1", "::ffff:192.0.2.100"]), v3()),
        group(tree!(["fe80::100"]), v3()),
        group(tree!(["2001:db8::100", "fe80::100"]), v3()),
        group(tree!(["fe80::100", "192.0.2.100"]), v3()),
        group(tree!(["2001:db8::100"]), tree!({ vrid: 51 })),
        group(tree!(["2001:db8::100"]), tree!({ vrid: 51, version: 2, auth: { pass: "1111" } })),
        group(tree!(["2001:db8::100"]), tree!({ vrid: 51, version: 3, checksum: "plain" })),
        vec![("pools.0.real_servers.0.address", tree!("fe80::3"))],
        vec![("pools.0.real_servers.0.address", tree!("::ffff:10.0.0.3"))],
    ] {
        text += &faults(&puts);
        text.push('\n');
    }
    assert_snapshot!(text, @r#"
    vips[0].addresses[0]: :: is not the address of one machine
    vips[0].addresses[1]: ff02::1 is not the address of one machine
    vips[0].addresses[2]: ::1 is a loopback address: nobody can reach it
    vips[0].addresses[3]: ::ffff:192.0.2.100 is an IPv4 address in disguise; write `192.0.2.100`
    vips[0].addresses[0]: fe80::100 is link-local: on each link it is another machine's; use a global or unique local one; only a group of IPv6 addresses may name one first, for VRRP to announce
    vips[0].addresses[1]: fe80::100 is link-local: on each link it is another machine's; use a global or unique local one; only a group of IPv6 addresses may name one first, for VRRP to announce
    vips[0].addresses[0]: fe80::100 is link-local: on each link it is another machine's; use a global or unique local one; only a group of IPv6 addresses may name one first, for VRRP to announce
    vips[0].vrrp.version: is 2, which is for IPv4: a group of IPv6 addresses alone is announced by version 3 (RFC 9568); set `version: 3`
    vips[0].vrrp.version: is 2, which is for IPv4: a group of IPv6 addresses alone is announced by version 3 (RFC 9568); set `version: 3`
    vips[0].vrrp.checksum: over IPv6 a checksum always covers the pseudo-header (RFC 9568 §5.2.8); leave it out
    pools[0].real_servers[0].address: fe80::3 is link-local: on each link it is another machine's; use a global or unique local one
    pools[0].real_servers[0].address: ::ffff:10.0.0.3 is an IPv4 address in disguise; write `10.0.0.3`
    "#);
}

#[test]
fn a_vrid_over_ipv6_is_another_than_over_ipv4() {
    let both = |second: Value| {
        let mut tree = small();
        let first = tree!({ name: "web", addresses: ["192.0.2.100"], interface: "eth0", vrrp: { vrid: 51 } });
        put(&mut tree, "vips", Some(Value::List(vec![first, second])));
        lines(&tree)
    };
    let v6 = tree!({ name: "six", addresses: ["2001:db8::100"], interface: "eth0", vrrp: { vrid: 51, version: 3 } });
    assert_eq!(both(v6), "");
    let mixed = tree!({ name: "mix", addresses: ["2001:db8::100", "192.0.2.1"], interface: "eth0", vrrp: { vrid: 51 } });
    assert!(both(mixed).starts_with("vips[1].vrrp.vrid: VRID 51 on eth0"), "{}", both(small()));
}
