//! What a document may say about how a group is announced.

use super::*;

fn vrrp(more: &[(&str, Value)]) -> Vec<(String, Value)> {
    more.iter().map(|(key, value)| (format!("vips.0.{key}"), value.clone())).collect()
}

fn faults_of(more: &[(&str, Value)]) -> String {
    let changes = vrrp(more);
    let changes: Vec<_> =
        changes.iter().map(|(path, value)| (path.as_str(), value.clone())).collect();
    faults(&changes)
}

#[test]
fn what_is_left_out_is_multicast_with_the_usual_announcements() {
    let vip = &decode(&small()).unwrap().vips[0];
    assert_eq!((vip.excluded, &vip.vrrp.peers), (0, &model::Peers::Multicast));
    let millis = [vip.garp.refresh, vip.garp.interval].map(|span| span.as_millis());
    assert_eq!((vip.garp.repeat, millis), (9, [30_000, 0]));
}

#[test]
fn excluded_addresses_come_after_those_that_adverts_name() {
    let mut tree = small();
    put(&mut tree, "vips.0.addresses", Some(tree!(["192.0.2.100"])));
    put(&mut tree, "vips.0.excluded", Some(tree!(["2001:db8::100", "192.0.2.101"])));
    let vip = &decode(&tree).unwrap().vips[0];
    assert_eq!(vip.advertised(), [IpAddr::from([192, 0, 2, 100])]);
    assert_eq!(vip.addresses.len(), 3);
    assert!(!vip.is_ipv6_only());

    // As many as nobody would list in one advert.
    let many: Vec<Value> =
        (0..200).map(|last| format!("198.51.100.{last}").as_str().into()).collect();
    put(&mut tree, "vips.0.excluded", Some(Value::List(many.clone())));
    assert_eq!(decode(&tree).unwrap().vips[0].addresses.len(), 201);
    put(&mut tree, "vips.0.excluded", Some(Value::List([many, vec![tree!("192.0.2.7")]].concat())));
    assert_eq!(lines(&tree), "vips[0].excluded: 201 addresses: 0 to 200 are possible");
}

#[test]
fn what_cannot_be_announced_so_is_refused() {
    let unicast = |peers: Value| {
        let mut vrrp = tree!({ vrid: 51, peers: "unicast" });
        put(&mut vrrp, "unicast_peers", Some(peers));
        vec![("addresses", tree!(["192.0.2.100"])), ("vrrp", vrrp)]
    };
    assert_eq!(faults_of(&unicast(tree!(["192.0.2.9", "192.0.2.10"]))), "");
    let mut text = String::new();
    for puts in [
        vec![("addresses", tree!([])), ("excluded", tree!(["192.0.2.100"]))],
        vec![
            ("addresses", tree!(["192.0.2.100"])),
            ("excluded", tree!(["192.0.2.100", "::1", "fe80::1"])),
        ],
        vec![("garp", tree!({ repeat: 0, refresh: "500ms", interval: "2s" }))],
        vec![("garp", tree!({ repeat: 101, often: "1s" }))],
        vec![("vrrp", tree!({ vrid: 51, unicast_peers: ["192.0.2.9"] }))],
        vec![("vrrp", tree!({ vrid: 51, peers: "anycast" }))],
        unicast(tree!(["192.0.2.9", "192.0.2.9", "224.0.0.18", "192.0.2.100", "2001:db8::9"])),
    ] {
        text += &faults_of(&puts);
        text.push('\n');
    }
    assert_snapshot!(text, @r#"
    vips[0].addresses: 0 addresses: 1 to 20 are possible
    vips[0].excluded[0]: 192.0.2.100 is vips[0].addresses[0] already
    vips[0].excluded[1]: ::1 is a loopback address: nobody can reach it
    vips[0].excluded[2]: fe80::1 is link-local: on each link it is another machine's; use a global or unique local one; only a group of IPv6 addresses may name one first, for VRRP to announce
    vips[0].garp.repeat: 0 is outside 1 to 100
    vips[0].garp.refresh: 500ms is outside 1s to 24h
    vips[0].garp.interval: 2s is outside 0s to 1s
    vips[0].garp.often: no such key; there are `repeat`, `refresh`, `interval`
    vips[0].garp.repeat: 101 is outside 1 to 100
    vips[0].vrrp.unicast_peers: adverts go to everybody on the segment; set `peers: unicast`, or leave it out
    vips[0].vrrp.peers: no kind of VRRP peers "anycast"; did you mean "unicast"?
    vips[0].vrrp.unicast_peers[1]: 192.0.2.9 is there twice
    vips[0].vrrp.unicast_peers[2]: 224.0.0.18 is not the address of one machine
    vips[0].vrrp.unicast_peers[3]: 192.0.2.100 is an address of VIP group `web`; name the router by an address of its own
    vips[0].vrrp.unicast_peers[4]: 2001:db8::9 is IPv6, and the group's adverts go over IPv4; name the router by an address of the adverts' family
    "#);
    // Zero is no announcement at all, which is possible.
    assert_eq!(faults_of(&[("garp", tree!({ refresh: "0s" }))]), "");
}
