//! VRRP, ARP and neighbour advertisements between two machines, which are two namespaces with a wire between them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::Duration;

use lvsmesh_core::{arp, ndp};
use lvsmesh_kernel::clock::raw_now;
use lvsmesh_kernel::raw::{
    FrameListener, FrameSender, GROUP, GROUP_V6, LinkTarget, VrrpSocket, VrrpSocketV6,
};
use lvsmesh_kernel::wait::{self, PollFd, PollFlags};
use lvsmesh_kernel::{Errno, sysctl};
use lvsmesh_tests::link::{add_prefix, all_addresses, configure, neighbour, request};
use lvsmesh_tests::netns::Namespace;
use rtnetlink::{LinkUnspec, LinkVeth};

const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);

/// Two machines with an `eth0` each, and a wire between them.
pub(super) struct Pair {
    pub(super) here: Namespace,
    pub(super) there: Namespace,
}

impl Pair {
    pub(super) fn new() -> Self {
        let here = Namespace::new().unwrap();
        let there = Namespace::new().unwrap();
        let other_end = there.clone();
        request(&here, "make a wire", async |handle| {
            handle.link().add(LinkVeth::new("near", "eth0").build()).execute().await?;
            let fd = other_end.with_descriptor(|file| file.as_raw_fd());
            let far = LinkUnspec::new_with_name("eth0").setns_by_fd(fd).build();
            handle.link().set(far).execute().await?;
            let near = LinkUnspec::new_with_index(index_of("near")).name("eth0").build();
            handle.link().set(near).execute().await
        });
        configure(&here, HERE);
        configure(&there, THERE);
        for node in [&here, &there] {
            node.inside(|| until_usable("eth0"));
        }
        Self { here, there }
    }
}

/// Waits until packets may be expected to leave by the interface.
fn until_usable(name: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut events = lvsmesh_kernel::address::Events::subscribe().unwrap();
        let addresses = lvsmesh_kernel::address::Addresses::open().unwrap();
        while !addresses.links().await.unwrap()[name].usable() {
            tokio::time::timeout(Duration::from_secs(20), events.next()).await.unwrap().unwrap();
        }
    });
}

pub(super) fn index_of(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}

/// Waits until something can be read.
fn readable(socket: &impl AsFd) {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let deadline = raw_now().after(Duration::from_secs(20));
    assert_eq!(wait::until(&mut fds, Some(deadline)), Ok(1), "nothing came within 20 s");
}

#[test]
fn linux_an_advert_reaches_the_neighbour_as_the_rfc_wants_it() {
    let pair = Pair::new();
    let open = |source| move || VrrpSocket::open("eth0", index_of("eth0"), source).unwrap();
    let here = pair.here.inside(open(Some(HERE)));
    let there = pair.there.inside(open(None));

    let mut buffer = [0; 256];
    for message in [&b"\x21first"[..], b"\x31second"] {
        here.send(message).unwrap();
        readable(&there);
        let received = there.receive(&mut buffer).unwrap().unwrap();
        assert_eq!(received.payload, message);
        assert_eq!((received.source, received.destination), (HERE.into(), GROUP.into()));
        assert_eq!(received.ttl, 255);
    }
    assert_eq!(there.receive(&mut buffer), Ok(None), "each once");
    assert_eq!(here.receive(&mut buffer), Ok(None), "a sender does not hear itself");

    there.send(b"\x21answer").unwrap();
    readable(&here);
    let received = here.receive(&mut buffer).unwrap().unwrap();
    assert_eq!((received.source, received.payload), (THERE.into(), &b"\x21answer"[..]));
}

/// The link-local address of `eth0`, once it may be used, without address tests.
fn link_local(node: &Namespace) -> Ipv6Addr {
    let of = |address: &IpAddr| match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => Some(*address),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    };
    lvsmesh_tests::eventually("a link-local address", Duration::from_secs(20), || {
        all_addresses(node, "eth0").iter().find_map(of)
    })
}

#[test]
fn linux_an_advert_over_ipv6_reaches_the_neighbour_as_the_rfc_wants_it() {
    let pair = Pair::new();
    let open = |node: &Namespace| {
        let source = link_local(node);
        // Until duplicate address detection is over, the address is nobody's.
        let socket = lvsmesh_tests::eventually("a VRRP socket", Duration::from_secs(20), || {
            node.inside(|| VrrpSocketV6::open("eth0", index_of("eth0"), source).ok())
        });
        (socket, source)
    };
    let (mut here, source) = open(&pair.here);
    let (mut there, other) = open(&pair.there);
    // A VIP beside it changes nothing.
    add_prefix(&pair.here, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 128);

    let mut buffer = [0; 256];
    for message in [&b"\x31first"[..], b"\x31second"] {
        here.send(message).unwrap();
        readable(&there);
        let received = there.receive(&mut buffer).unwrap().unwrap();
        assert_eq!(received.payload, message);
        let expected = (IpAddr::V6(source), IpAddr::V6(GROUP_V6));
        assert_eq!((received.source, received.destination), expected);
        assert_eq!(received.ttl, 255);
    }
    assert_eq!(there.receive(&mut buffer), Ok(None), "each once");
    assert_eq!(here.receive(&mut buffer), Ok(None), "a sender does not hear itself");

    there.send(b"\x31answer").unwrap();
    readable(&here);
    let received = here.receive(&mut buffer).unwrap().unwrap();
    assert_eq!((received.source, received.payload), (IpAddr::V6(other), &b"\x31answer"[..]));

    let error = pair.here.inside(|| VrrpSocketV6::open("nosuch0", 9999, source).unwrap_err());
    assert_eq!(error.errno(), Some(Errno::ENODEV), "{error}");
}

#[test]
fn linux_an_unsolicited_advertisement_moves_a_neighbours_cache() {
    const VIP_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100);
    let pair = Pair::new();
    add_prefix(&pair.there, Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2), 64);
    let before = [2, 0, 0, 0, 0, 9];
    let after = [2, 0, 0, 0, 0, 1];
    request(&pair.there, "know a neighbour", async |handle| {
        let index = index_of("eth0");
        handle.neighbours().add(index, VIP_V6.into()).link_layer_address(&before).execute().await
    });
    request(&pair.there, "doubt it", async |handle| {
        let stale = netlink_packet_route::neighbour::NeighbourState::Stale;
        let index = index_of("eth0");
        let request = handle.neighbours().add(index, VIP_V6.into()).replace();
        request.state(stale).link_layer_address(&before).execute().await
    });
    assert_eq!(neighbour(&pair.there, VIP_V6), Some(before));
    let (sender, target) = pair
        .here
        .inside(|| (FrameSender::open().unwrap(), LinkTarget::ipv6(index_of("eth0")).unwrap()));
    sender.send(&target, &ndp::unsolicited(after, VIP_V6, false)).unwrap();
    lvsmesh_tests::eventually("the cache follows", Duration::from_secs(10), || {
        (neighbour(&pair.there, VIP_V6) == Some(after)).then_some(())
    });
}

#[test]
fn linux_adverts_keep_their_source_while_vips_come_and_go() {
    let pair = Pair::new();
    let here = pair.here.inside(|| VrrpSocket::open("eth0", index_of("eth0"), Some(HERE)).unwrap());
    let there = pair.there.inside(|| VrrpSocket::open("eth0", index_of("eth0"), None).unwrap());
    pair.here.inside(|| {
        use lvsmesh_kernel::route_socket::{PreparedAddress, RouteSocket};
        let mut vip = PreparedAddress::new(index_of("eth0"), VIP, Duration::from_secs(60));
        RouteSocket::open().unwrap().claim(&mut vip).unwrap();
    });

    here.send(b"\x21").unwrap();
    readable(&there);
    assert_eq!(there.receive(&mut [0; 64]).unwrap().unwrap().source, IpAddr::V4(HERE));
}

#[test]
fn linux_a_vrrp_socket_needs_its_interface_and_its_address() {
    let node = Namespace::new().unwrap();
    let open = |name: &str, index, source| VrrpSocket::open(name, index, source).unwrap_err();
    node.inside(|| {
        let error = open("nosuch0", 9999, None);
        assert_eq!(error.errno(), Some(Errno::ENODEV), "{error}");
        assert!(error.to_string().ends_with("a VRRP socket on nosuch0"), "{error}");
        let error = open("lo", 1, Some(HERE));
        assert_eq!(error.errno(), Some(Errno::EADDRNOTAVAIL), "{error}");
    });
}

#[test]
fn linux_gratuitous_arp_reaches_the_neighbour_and_its_sender_hears_nothing() {
    let pair = Pair::new();
    let mac = [2, 0, 0, 0, 0, 1];
    let frame = arp::gratuitous(mac, VIP);
    let listener = pair.there.inside(|| FrameListener::arp(index_of("eth0")).unwrap());
    let (sender, target) = pair
        .here
        .inside(|| (FrameSender::open().unwrap(), LinkTarget::new(index_of("eth0")).unwrap()));
    let (back, back_target) = pair
        .there
        .inside(|| (FrameSender::open().unwrap(), LinkTarget::new(index_of("eth0")).unwrap()));

    let mut buffer = [0; 128];
    sender.send(&target, &frame).unwrap();
    // Machines ask on their own, too: only this frame claims the VIP.
    let heard = loop {
        readable(&listener);
        let Some(bytes) = listener.receive(&mut buffer).unwrap() else { continue };
        if bytes.get(28..32) == Some(&VIP.octets()) {
            break bytes.to_vec();
        }
    };
    assert_eq!(heard.get(..arp::FRAME_LEN), Some(&frame[..]));

    // The other way, so that there is something that the sending socket could have heard: a listener beside it does.
    let beside = pair.here.inside(|| FrameListener::arp(index_of("eth0")).unwrap());
    back.send(&back_target, &arp::gratuitous([2, 0, 0, 0, 0, 2], VIP)).unwrap();
    readable(&beside);
    let queued = pair.here.inside(queued_by_protocol);
    assert!(queued.iter().any(|(protocol, bytes)| protocol == "0806" && *bytes > 0), "{queued:?}");
    assert!(queued.iter().all(|(protocol, bytes)| protocol != "0000" || *bytes == 0), "{queued:?}");
    assert!(
        queued.iter().any(|(protocol, _)| protocol == "0000"),
        "{queued:?}: the sender is there"
    );
}

#[test]
fn linux_a_listener_does_not_hear_what_leaves_its_interface() {
    let pair = Pair::new();
    let (listener, sender, target) = pair.here.inside(|| {
        let index = index_of("eth0");
        (
            FrameListener::arp(index).unwrap(),
            FrameSender::open().unwrap(),
            LinkTarget::new(index).unwrap(),
        )
    });
    let there = pair.there.inside(|| FrameListener::arp(index_of("eth0")).unwrap());
    sender.send(&target, &arp::gratuitous([2, 0, 0, 0, 0, 1], VIP)).unwrap();
    // It has left, and a copy for this side would have been made before.
    readable(&there);
    let mut buffer = [0; 128];
    while let Some(frame) = listener.receive(&mut buffer).unwrap() {
        assert_ne!(frame.get(28..32), Some(&VIP.octets()[..]), "{frame:02x?}");
    }
}

#[test]
fn linux_an_advert_to_one_router_comes_from_the_socket_s_own_address_with_the_whole_ttl() {
    let pair = Pair::new();
    let here = pair.here.inside(|| VrrpSocket::open("eth0", index_of("eth0"), Some(HERE)).unwrap());
    let there = pair.there.inside(|| VrrpSocket::open("eth0", index_of("eth0"), None).unwrap());
    pair.here.inside(|| {
        use lvsmesh_kernel::route_socket::{PreparedAddress, RouteSocket};
        let mut vip = PreparedAddress::new(index_of("eth0"), VIP, Duration::from_secs(60));
        RouteSocket::open().unwrap().claim(&mut vip).unwrap();
    });
    here.send_to(b"\x21one", THERE).unwrap();
    readable(&there);
    let mut buffer = [0; 64];
    let received = there.receive(&mut buffer).unwrap().unwrap();
    assert_eq!((received.source, received.destination), (HERE.into(), THERE.into()));
    assert_eq!((received.ttl, received.payload), (255, &b"\x21one"[..]));

    let own = |last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last);
    add_prefix(&pair.here, own(1), 64);
    add_prefix(&pair.there, own(2), 64);
    let open = |node: &Namespace, address| {
        lvsmesh_tests::eventually("a VRRP socket", Duration::from_secs(20), || {
            node.inside(|| VrrpSocketV6::open("eth0", index_of("eth0"), address).ok())
        })
    };
    let (here, mut there) = (open(&pair.here, own(1)), open(&pair.there, own(2)));
    here.send_to(b"\x31one", own(2)).unwrap();
    readable(&there);
    let received = there.receive(&mut buffer).unwrap().unwrap();
    assert_eq!((received.source, received.destination), (own(1).into(), own(2).into()));
    assert_eq!((received.ttl, received.payload), (255, &b"\x31one"[..]));
}

#[test]
fn linux_a_listener_for_some_addresses_hears_of_no_others() {
    const OTHER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 7);
    let pair = Pair::new();
    let six = |last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last);
    let (arp, neighbours, every) = pair.there.inside(|| {
        let index = index_of("eth0");
        (
            FrameListener::arp_from(index, &[VIP, OTHER]).unwrap(),
            FrameListener::neighbours(index, &[six(0x100)]).unwrap(),
            FrameListener::arp(index).unwrap(),
        )
    });
    let (sender, target, target_v6) = pair.here.inside(|| {
        let index = index_of("eth0");
        let targets = (LinkTarget::new(index).unwrap(), LinkTarget::ipv6(index).unwrap());
        (FrameSender::open().unwrap(), targets.0, targets.1)
    });
    let mac = [2, 0, 0, 0, 0, 1];
    for address in [Ipv4Addr::new(192, 168, 77, 8), OTHER, Ipv4Addr::new(192, 168, 77, 9), VIP] {
        sender.send(&target, &arp::gratuitous(mac, address)).unwrap();
    }
    // A question names no sender.
    sender.send(&target, &arp::probe(mac, VIP)).unwrap();
    for address in [six(0x101), six(0x100)] {
        sender.send(&target_v6, &ndp::unsolicited(mac, address, false)).unwrap();
    }
    sender.send(&target_v6, &ndp::probe(mac, six(0x100))).unwrap();
    readable(&every);
    let mut heard = Vec::new();
    for listener in [&arp, &neighbours] {
        let mut buffer = [0; 128];
        readable(listener);
        while let Some(frame) = listener.receive(&mut buffer).unwrap() {
            if let Ok(packet) = arp::Packet::decode(frame) {
                heard.push(IpAddr::from(packet.sender));
            } else {
                heard.push(ndp::Advertisement::decode(frame).unwrap().target.into());
            }
        }
    }
    assert_eq!(heard, [IpAddr::from(OTHER), VIP.into(), six(0x100).into()]);
}

#[test]
fn linux_a_listener_knows_the_hardware_address_that_its_interface_has_now() {
    let pair = Pair::new();
    let listener = pair.here.inside(|| FrameListener::arp(index_of("eth0")).unwrap());
    assert_eq!(listener.hardware_address(), Ok(Some(lvsmesh_tests::link::mac(&pair.here))));
    let moved = [2, 0, 0, 0, 0, 0x77];
    let output = pair.here.inside(|| {
        let arguments = ["link", "set", "eth0", "address", "02:00:00:00:00:77"];
        std::process::Command::new("ip").args(arguments).output().unwrap()
    });
    assert!(output.status.success(), "{output:?}");
    assert_eq!(listener.hardware_address(), Ok(Some(moved)));
}

#[test]
fn linux_sending_where_nothing_is_says_so() {
    let node = Namespace::new().unwrap();
    node.inside(|| {
        let sender = FrameSender::open().unwrap();
        let frame = arp::gratuitous([2, 0, 0, 0, 0, 1], VIP);
        assert_eq!(sender.send(&LinkTarget::new(9999).unwrap(), &frame), Err(Errno::ENXIO));
        assert_eq!(sender.send(&LinkTarget::new(1).unwrap(), &frame), Err(Errno::ENETDOWN));
        assert_eq!(LinkTarget::new(u32::MAX).unwrap_err(), Errno::ENODEV);
    });
}

#[test]
fn linux_each_namespace_has_sysctls_of_its_own() {
    let [one, two] = [(); 2].map(|()| Namespace::new().unwrap());
    let ignore = sysctl::interface("lo", "arp_ignore").unwrap();
    let before = two.inside(|| sysctl::read(&ignore).unwrap());
    let value = before.unwrap_or(0) + 1;
    one.inside(|| sysctl::write(&ignore, value).unwrap());
    assert_eq!(one.inside(|| sysctl::read(&ignore).unwrap()), Some(value));
    assert_eq!(two.inside(|| sysctl::read(&ignore).unwrap()), before);
}

/// Protocol, in hexadecimal, and bytes queued of each packet socket in this thread's namespace (`packet_seq_show`, net/packet/af_packet.c).
fn queued_by_protocol() -> Vec<(String, u64)> {
    let text = std::fs::read_to_string("/proc/thread-self/net/packet").unwrap();
    let rows = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.map(|row| (row[3].to_owned(), row[6].parse().unwrap())).collect()
}
