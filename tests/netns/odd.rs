//! Adverts that are not as they should be: each is counted by its reason, and shown.

use std::net::Ipv4Addr;
use std::time::Duration;

use lvsmesh_core::vrrp::Advert;
use lvsmesh_tests::document::{CLIENT, Document, LVS_1, LVS_2, RS_1, VIP};
use lvsmesh_tests::fleet::{Fleet, Options};
use lvsmesh_tests::lab::Node;
use lvsmesh_tests::peers::{Instance, Keepalived};
use lvsmesh_tests::{Lab, eventually};
use socket2::{Domain, Protocol, Socket, Type};

const PEER: (&str, Ipv4Addr) = ("peer", Ipv4Addr::new(192, 168, 3, 104));

fn beside(instance: Instance) -> (Fleet, Keepalived) {
    let lab = Lab::new(&[LVS_1, LVS_2, RS_1, CLIENT, PEER]);
    let fleet = Fleet::start_on(lab, &Options::default());
    let keepalived = Keepalived::start(&fleet.lab, fleet.lab.node(PEER.0), &[instance]);
    keepalived.enters("MASTER", Duration::from_secs(20));
    (fleet, keepalived)
}

#[test]
fn a_master_that_drops_our_adverts_is_named_with_the_reason_and_left_alone() {
    let pass = Some("2222");
    let (fleet, keepalived) = beside(Instance { pass, ..Instance::backup(2, "1", &[VIP.into()]) });
    fleet.apply(&Document { vrrp: ", coexist: contest".into(), ..Document::vip_alone() });
    fleet.until("the status says why", Duration::from_secs(30), |status| {
        let complaints = status.complaints();
        complaints.contains("VRRP adverts of 192.168.3.104 do not fit this group: another password")
            && complaints
                .contains("192.168.3.104 does not give way to higher adverts: another password")
    });
    // It was contested by adverts alone, and neither gives in: at no moment were there two.
    assert_eq!(fleet.attached(), Vec::<String>::new());
    assert_eq!(keepalived.states().last().map(String::as_str), Some("MASTER"));
    eventually("the metric says it, too", Duration::from_secs(10), || {
        let page = metrics(&fleet, LVS_1.0);
        page.lines()
            .any(|line| {
                line.starts_with("lvsmesh_vrrp_odd_adverts_total{reason=\"authentication\"} ")
                    && !line.ends_with(" 0.0")
            })
            .then_some(())
    });
}

/// A node's Prometheus page, as the node itself gets it.
fn metrics(fleet: &Fleet, name: &str) -> String {
    use std::io::{Read as _, Write as _};
    let read = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect("127.0.0.1:7402")?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    fleet.lab.node(name).namespace.inside(read).expect("the agent serves its metrics")
}

/// Sends a VRRP message to the group with that TTL.
fn send(node: &Node, ttl: u32, message: &[u8]) {
    let group = std::net::SocketAddrV4::new(lvsmesh_core::vrrp::GROUP, 0);
    node.namespace
        .inside(|| {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(112)))?;
            socket.set_multicast_if_v4(&node.address)?;
            socket.set_multicast_ttl_v4(ttl)?;
            socket.send_to(message, &group.into())
        })
        .expect("root may send");
}

#[test]
fn what_came_through_a_router_or_cannot_be_read_changes_nothing_and_is_shown() {
    let lab = Lab::new(&[LVS_1, LVS_2, RS_1, CLIENT, PEER]);
    let fleet = Fleet::start_on(lab, &Options::default());
    let document = Document::vip_alone();
    fleet.apply(&document);
    fleet.held_by(LVS_1.0);
    let peer = fleet.lab.node(PEER.0);
    // What would silence the holder if it were as it should be.
    let hex = "2133ff0101010000c0a8036431313131";
    let mut wire: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal"))
        .collect();
    wire.extend([0; 4]);
    let wrong_checksum = Advert::decode(&wire, PEER.1, lvsmesh_core::vrrp::GROUP);
    let Err(lvsmesh_core::vrrp::DecodeError::Checksum { expected, .. }) = wrong_checksum else {
        panic!("{wrong_checksum:?}");
    };
    let mut sound = wire.clone();
    sound[6..8].copy_from_slice(&expected.to_be_bytes());
    for _ in 0..3 {
        send(peer, 254, &sound);
        send(peer, 255, &wire);
    }
    fleet.until("both are shown", Duration::from_secs(20), |status| {
        let complaints = status.complaints();
        complaints.contains("VRRP adverts of 192.168.3.104 are dropped: TTL 254 instead of 255")
            && complaints.contains("VRRP adverts of 192.168.3.104 are dropped: checksum 0x0000")
    });
    assert_eq!(fleet.attached(), [LVS_1.0]);
    let page = metrics(&fleet, LVS_1.0);
    for reason in ["ttl", "malformed"] {
        let line = format!("lvsmesh_vrrp_odd_adverts_total{{reason=\"{reason}\"}} 3.0");
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
    // The same, sound and from the segment, does.
    send(peer, 255, &sound);
    eventually("the holder is silent", Duration::from_secs(10), || {
        fleet.attached().is_empty().then_some(())
    });
}
