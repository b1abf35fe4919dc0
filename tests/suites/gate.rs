//! The deadline in the packet path, as the kernel keeps it between two machines.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::time::Duration;

use lvsmesh_core::arp::{self, Mac, Operation, Packet};
use lvsmesh_core::ndp;
use lvsmesh_core::time::Mono;
use lvsmesh_kernel::Errno;
use lvsmesh_kernel::clock::raw_now;
use lvsmesh_kernel::gate::{Gate, Guarded, Program, Slot};
use lvsmesh_kernel::raw::{FrameSender, LinkTarget, VrrpSocket, VrrpSocketV6};
use lvsmesh_kernel::route_socket::RouteSocket;
use lvsmesh_kernel::wait::{self, PollFd, PollFlags};
use lvsmesh_tests::{eventually, link};
use socket2::{Domain, Protocol, Socket, Type};

use super::lease_plane::{Pair, index_of};

const OWN: Mac = [2, 0, 0, 0, 0, 1];
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 101);
const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
const OTHER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x101);
const FOR_EVER: Mono = Mono(u64::MAX / 2);

/// A machine with a gate, and another that hears everything that leaves it.
struct Scene {
    pair: Pair,
    gate: Gate,
    slot: Slot,
    ears: Socket,
    frames: FrameSender,
    arp: LinkTarget,
    ipv6: LinkTarget,
}

impl Scene {
    fn new() -> Self {
        let pair = Pair::new();
        let mut gate = Gate::load().unwrap();
        let slot = gate.take().unwrap();
        let (frames, arp, ipv6) = pair.here.inside(|| {
            let index = index_of("eth0");
            gate.program().attach(&mut RouteSocket::open().unwrap(), index).unwrap();
            let targets = (LinkTarget::new(index).unwrap(), LinkTarget::ipv6(index).unwrap());
            (FrameSender::open().unwrap(), targets.0, targets.1)
        });
        let everything = Protocol::from(i32::from(0x0003_u16.to_be()));
        let ears = pair.there.inside(|| Socket::new(Domain::PACKET, Type::RAW, Some(everything)));
        let ears = ears.unwrap();
        ears.set_nonblocking(true).unwrap();
        Self { pair, gate, slot, ears, frames, arp, ipv6 }
    }

    fn index(&self) -> u32 {
        self.pair.here.inside(|| index_of("eth0"))
    }

    fn address(&self, address: impl Into<IpAddr>) -> Guarded {
        Guarded::Address { address: address.into(), ifindex: self.index() }
    }

    fn guard(&self, what: Guarded) {
        self.gate.guard(&self.slot, what).unwrap();
    }

    /// Whether the other machine gets what is sent. A frame that nothing stops comes after it, so that waiting is for that one.
    fn arrives(&self, frame: &[u8], send: impl FnOnce() -> Result<(), Errno>) -> bool {
        // A packet socket is told that its frame was stopped (`ENOBUFS`), a raw socket is not.
        let _ = send();
        let marker = arp::gratuitous(OWN, Ipv4Addr::new(192, 0, 2, 250));
        self.frames.send(&self.arp, &marker).unwrap();
        let mut arrived = false;
        let mut buffer = [0; 2048];
        loop {
            let until = raw_now().after(Duration::from_secs(20));
            let mut fds = [PollFd::new(self.ears.as_fd(), PollFlags::POLLIN)];
            assert!(wait::until(&mut fds, Some(until)).unwrap() > 0, "the marker is lost");
            let length = (&self.ears).read(&mut buffer).unwrap();
            if buffer[..length] == marker {
                return arrived;
            }
            arrived |= buffer[..length].ends_with(frame);
        }
    }

    fn frame(&self, frame: &[u8]) -> bool {
        self.arrives(frame, || {
            let ipv6 = frame[12..14] == [0x86, 0xdd];
            self.frames.send(if ipv6 { &self.ipv6 } else { &self.arp }, frame)
        })
    }

    /// What is sent in these ways is passed until the deadline and stopped after it.
    fn obeys(&self, what: &str, passes: impl Fn() -> bool) {
        let stopped = self.gate.stopped();
        self.gate.close(&self.slot);
        assert!(!passes(), "{what} is stopped");
        assert_eq!(self.gate.stopped(), stopped + 1, "{what} is counted");
        self.gate.open_until(&self.slot, FOR_EVER);
        assert!(passes(), "{what} passes");
        self.gate.open_until(&self.slot, raw_now());
        assert!(!passes(), "{what} is stopped when its time is over");
        assert_eq!(self.gate.stopped(), stopped + 2);
    }

    fn ignores(&self, what: &str, passes: impl Fn() -> bool) {
        self.gate.close(&self.slot);
        let stopped = self.gate.stopped();
        assert!(passes(), "{what} passes");
        assert_eq!(self.gate.stopped(), stopped, "{what}");
    }
}

#[test]
fn linux_a_claim_leaves_until_its_deadline() {
    let scene = Scene::new();
    let claim = arp::gratuitous(OWN, VIP);
    scene.ignores("what nobody guards", || scene.frame(&claim));
    scene.guard(scene.address(VIP));
    scene.guard(scene.address(VIP_V6));
    scene.obeys("gratuitous ARP", || scene.frame(&claim));
    let said = |operation, sender| Packet {
        operation,
        sender_mac: OWN,
        sender,
        target_mac: [2, 0, 0, 0, 0, 9],
        target: Ipv4Addr::new(192, 0, 2, 9),
    };
    let reply = said(Operation::Reply, VIP).encode([2, 0, 0, 0, 0, 9]);
    scene.obeys("an ARP reply", || scene.frame(&reply));
    let request = said(Operation::Request, VIP).encode(arp::BROADCAST);
    scene.obeys("an ARP request from the address", || scene.frame(&request));
    let other = said(Operation::Reply, OTHER).encode([2, 0, 0, 0, 0, 9]);
    scene.ignores("an answer for another address", || scene.frame(&other));
    scene.ignores("a question for the address", || scene.frame(&arp::probe(OWN, VIP)));

    let claim = ndp::unsolicited(OWN, VIP_V6, false);
    scene.obeys("a neighbour advertisement", || scene.frame(&claim));
    let group = ndp::solicited_node(OTHER_V6);
    let from_it = ndp::solicitation(OWN, VIP_V6, group, OTHER_V6);
    scene.obeys("a solicitation from the address", || scene.frame(&from_it));
    let other = ndp::unsolicited(OWN, OTHER_V6, false);
    scene.ignores("an advertisement for another address", || scene.frame(&other));
    scene.ignores("a question over IPv6", || scene.frame(&ndp::probe(OWN, VIP_V6)));

    // One of a link is another on the next link.
    let of_a_link = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x100);
    let claim = ndp::unsolicited(OWN, of_a_link, false);
    let elsewhere = scene.index() + 1;
    scene.guard(Guarded::Address { address: of_a_link.into(), ifindex: elsewhere });
    scene.ignores("the address of another link", || scene.frame(&claim));
    scene.guard(scene.address(of_a_link));
    scene.obeys("an advertisement for a link's address", || scene.frame(&claim));
    scene.guard(Guarded::Address { address: OTHER_V6.into(), ifindex: elsewhere });
    let claim = ndp::unsolicited(OWN, OTHER_V6, false);
    scene.obeys("any other address is one on all links", || scene.frame(&claim));

    scene.gate.release(scene.address(VIP)).unwrap();
    scene.gate.release(scene.address(VIP)).unwrap();
    scene.ignores("what is not guarded any more", || scene.frame(&arp::gratuitous(OWN, VIP)));
}

#[test]
fn linux_an_advert_leaves_until_its_deadline_and_one_that_gives_up_always() {
    let scene = Scene::new();
    let ifindex = scene.index();
    // Version 3, priority, one address, one second, no checksum: nobody reads it.
    let advert = |vrid: u8, priority: u8| [0x31, vrid, priority, 1, 0, 100, 0, 0, 192, 0, 2, 100];
    let here = scene.pair.here.inside(|| VrrpSocket::open("eth0", index_of("eth0"), None).unwrap());
    let v4 = |advert: [u8; 12]| scene.arrives(&advert, || here.send(&advert));
    let link_local = eventually("a link-local address", Duration::from_secs(20), || {
        let all = link::all_addresses(&scene.pair.here, "eth0");
        all.into_iter().find_map(|address| match address {
            IpAddr::V6(address) if address.is_unicast_link_local() => Some(address),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        })
    });
    let here_v6 = eventually("it is usable", Duration::from_secs(20), || {
        let open = || VrrpSocketV6::open("eth0", index_of("eth0"), link_local).ok();
        scene.pair.here.inside(open)
    });
    let v6 = |advert: [u8; 12]| {
        // The kernel writes the checksum of a raw socket for ICMPv6 alone.
        scene.arrives(&advert, || here_v6.send(&advert))
    };
    scene.guard(Guarded::Router { ifindex, vrid: 51, ipv6: false });
    scene.obeys("an advert", || v4(advert(51, 100)));
    scene.ignores("an advert that gives up", || v4(advert(51, 0)));
    scene.ignores("another router's advert", || v4(advert(52, 100)));
    scene.ignores("the same number over IPv6", || v6(advert(51, 100)));
    scene.guard(Guarded::Router { ifindex, vrid: 51, ipv6: true });
    scene.obeys("an advert over IPv6", || v6(advert(51, 100)));
    scene.ignores("one that gives up over IPv6", || v6(advert(51, 0)));
    scene.gate.release(Guarded::Router { ifindex, vrid: 51, ipv6: false }).unwrap();
    scene.ignores("an advert that is not guarded", || v4(advert(51, 100)));
    scene.guard(Guarded::Router { ifindex: ifindex + 1, vrid: 51, ipv6: false });
    scene.ignores("that number on another interface", || v4(advert(51, 100)));
}

/// What it is for: an address in the kernel, whose kernel answers and asks nobody.
#[test]
fn linux_the_kernel_stops_answering_by_itself() {
    let scene = Scene::new();
    link::add_address(&scene.pair.here, "eth0", VIP);
    scene.guard(scene.address(VIP));
    let (sender, target) = scene
        .pair
        .there
        .inside(|| (FrameSender::open().unwrap(), LinkTarget::new(index_of("eth0")).unwrap()));
    let question = Packet {
        operation: Operation::Request,
        sender_mac: link::mac(&scene.pair.there),
        sender: Ipv4Addr::new(192, 0, 2, 2),
        target_mac: [0; 6],
        target: VIP,
    };
    // The kernel answers in any case; the answer either comes or is counted.
    let answers = || {
        let stopped = scene.gate.stopped();
        sender.send(&target, &question.encode(arp::BROADCAST)).unwrap();
        eventually("an answer, or none", Duration::from_secs(20), || {
            let mut buffer = [0; 2048];
            while let Ok(length) = (&scene.ears).read(&mut buffer) {
                let said = Packet::decode(&buffer[..length]);
                if said.is_ok_and(|said| said.operation == Operation::Reply && said.sender == VIP) {
                    return Some(true);
                }
            }
            (scene.gate.stopped() > stopped).then_some(false)
        })
    };
    assert!(!answers(), "closed");
    let stopped = scene.gate.stopped();
    assert!(stopped > 0);
    scene.gate.open_until(&scene.slot, FOR_EVER);
    assert!(answers(), "open");
    // Nobody does anything from here on.
    scene.gate.open_until(&scene.slot, raw_now().after(Duration::from_millis(300)));
    eventually("it is silent", Duration::from_secs(20), || (!answers()).then_some(()));
    assert!(scene.gate.stopped() > stopped);

    // Another process's gate takes the place of this one, which then has no say any more; and without any there is none.
    scene.pair.here.inside(|| {
        let mut routes = RouteSocket::open().unwrap();
        Gate::load().unwrap().program().attach(&mut routes, index_of("eth0")).unwrap();
        assert!(answers(), "nothing is guarded by the new one");
        scene.gate.program().attach(&mut routes, index_of("eth0")).unwrap();
        assert!(!answers(), "and by this one it is");
        Program::detach(&mut routes, index_of("eth0")).unwrap();
        assert!(answers(), "without a gate");
        Program::detach(&mut routes, index_of("eth0")).unwrap();
        Program::detach(&mut routes, 9999).unwrap();
        let error = scene.gate.program().attach(&mut routes, 9999).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENODEV), "{error}");
    });
}

/// It would take the filter for what comes in, and say nothing.
#[test]
fn linux_an_ingress_queue_is_no_place_for_it() {
    let pair = Pair::new();
    pair.here.inside(|| {
        let tc = |arguments: &str| {
            let arguments = arguments.split(' ');
            let status = std::process::Command::new("tc").args(arguments).status().unwrap();
            assert!(status.success());
        };
        tc("qdisc add dev eth0 ingress");
        let (gate, mut routes) = (Gate::load().unwrap(), RouteSocket::open().unwrap());
        let error = gate.program().attach(&mut routes, index_of("eth0")).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EINVAL), "{error}");
        tc("qdisc del dev eth0 ingress");
        tc("qdisc add dev eth0 clsact");
        // Twice: the second time everything is there.
        for _ in 0..2 {
            gate.program().attach(&mut routes, index_of("eth0")).unwrap();
        }
    });
}

#[test]
fn linux_there_are_256_deadlines_and_each_starts_closed() {
    let mut gate = Gate::load().unwrap();
    let mut slots: Vec<Slot> = std::iter::from_fn(|| gate.take()).collect();
    assert_eq!(slots.len(), 256);
    let slot = slots.pop().unwrap();
    gate.open_until(&slot, FOR_EVER);
    gate.put_back(slot);
    assert!(gate.take().is_some());
    assert!(gate.take().is_none());
}
