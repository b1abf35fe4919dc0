//! Questions who has an address, as a packet socket with the kernel's filter hears them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use lvsmesh_core::arp::{BROADCAST, Mac, Operation, Packet};
use lvsmesh_core::ndp::{solicitation, solicited_node};
use lvsmesh_kernel::Errno;
use lvsmesh_kernel::raw::{FrameSender, LinkTarget, QuestionSocket};
use lvsmesh_kernel::wait::{self, PollFd, PollFlags};
use lvsmesh_tests::{eventually, link};
use std::os::fd::AsFd as _;

use super::lease_plane::{Pair, index_of};

const ASKER: Mac = [2, 0, 0, 0, 0, 9];
const VIPS: [Ipv4Addr; 3] =
    [Ipv4Addr::new(192, 0, 2, 100), Ipv4Addr::new(192, 0, 2, 101), Ipv4Addr::new(192, 0, 2, 102)];

fn v6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x1, last)
}

fn request(target: Ipv4Addr, operation: Operation) -> Packet {
    let sender = Ipv4Addr::new(192, 0, 2, 9);
    Packet { operation, sender_mac: ASKER, sender, target_mac: [0; 6], target }
}

/// The frames that come in until nothing comes for a while.
fn heard(socket: &QuestionSocket) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut buffer = [0; 256];
    loop {
        let until = lvsmesh_kernel::clock::raw_now().after(Duration::from_millis(200));
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        if wait::until(&mut fds, Some(until)).unwrap() == 0 {
            return frames;
        }
        while let Some(frame) = socket.receive(&mut buffer).unwrap() {
            frames.push(frame.to_vec());
        }
    }
}

#[test]
fn linux_the_kernel_passes_requests_for_these_addresses_alone() {
    let pair = Pair::new();
    let socket = pair.here.inside(|| QuestionSocket::arp(index_of("eth0"), &VIPS).unwrap());
    let mac = link::mac(&pair.here);
    let (sender, target) = pair
        .there
        .inside(|| (FrameSender::open().unwrap(), LinkTarget::new(index_of("eth0")).unwrap()));
    let ask = |target_address, operation, to: Mac| {
        sender.send(&target, &request(target_address, operation).encode(to)).unwrap();
    };
    ask(VIPS[0], Operation::Request, BROADCAST);
    assert_eq!(heard(&socket), Vec::<Vec<u8>>::new(), "it starts deaf");

    socket.listen().unwrap();
    let all = || {
        for vip in VIPS {
            ask(vip, Operation::Request, BROADCAST);
        }
        ask(VIPS[1], Operation::Request, mac);
    };
    ask(Ipv4Addr::new(192, 0, 2, 77), Operation::Request, BROADCAST);
    ask(VIPS[0], Operation::Reply, BROADCAST);
    link::promiscuous(&pair.here, "eth0");
    ask(VIPS[0], Operation::Request, [2, 0, 0, 0, 0, 0x77]);
    all();
    let asked: Vec<Ipv4Addr> =
        heard(&socket).iter().map(|frame| Packet::decode(frame).unwrap().target).collect();
    assert_eq!(asked, [VIPS[0], VIPS[1], VIPS[2], VIPS[1]]);

    // What is unread when nobody is to answer any more is never read.
    all();
    eventually("they have come in", Duration::from_secs(10), || {
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        (wait::until(&mut fds, None).unwrap() > 0).then_some(())
    });
    socket.ignore().unwrap();
    all();
    assert_eq!(heard(&socket), Vec::<Vec<u8>>::new());
    socket.listen().unwrap();
    assert_eq!(heard(&socket), Vec::<Vec<u8>>::new());
    all();
    assert_eq!(heard(&socket).len(), 4);
}

#[test]
fn linux_of_more_addresses_than_a_filter_takes_none_is_overheard() {
    let pair = Pair::new();
    // Three instructions each; 4096 are allowed.
    let many: Vec<Ipv4Addr> =
        (1..=1500).map(|n: u16| Ipv4Addr::from(0x0a00_0000 + u32::from(n))).collect();
    let socket = pair.here.inside(|| QuestionSocket::arp(index_of("eth0"), &many).unwrap());
    let (sender, target) = pair
        .there
        .inside(|| (FrameSender::open().unwrap(), LinkTarget::new(index_of("eth0")).unwrap()));
    let ask = |address, operation| {
        sender.send(&target, &request(address, operation).encode(BROADCAST)).unwrap();
    };
    ask(many[0], Operation::Request);
    assert_eq!(heard(&socket), Vec::<Vec<u8>>::new(), "it starts deaf");
    socket.listen().unwrap();
    ask(many[0], Operation::Reply);
    ask(many[1499], Operation::Request);
    let asked: Vec<Ipv4Addr> =
        heard(&socket).iter().map(|frame| Packet::decode(frame).unwrap().target).collect();
    assert_eq!(asked, [many[1499]], "a request, and no reply");
}

#[test]
fn linux_the_kernel_passes_solicitations_for_these_addresses_alone() {
    let pair = Pair::new();
    let vips = [v6(0x100), v6(0x101)];
    let groups: BTreeSet<Ipv6Addr> = vips.iter().copied().map(solicited_node).collect();
    let socket =
        pair.here.inside(|| QuestionSocket::ndp(index_of("eth0"), &vips, &groups).unwrap());
    socket.listen().unwrap();
    let (sender, target) = pair
        .there
        .inside(|| (FrameSender::open().unwrap(), LinkTarget::ipv6(index_of("eth0")).unwrap()));
    // The last differs in one word each.
    let others = [v6(0x102), Ipv6Addr::new(0x2001, 0xdb9, 0, 0, 0, 0, 0x1, 0x100)];
    for vip in others.into_iter().chain(vips) {
        let group = solicited_node(vip);
        sender.send(&target, &solicitation(ASKER, v6(9), group, vip)).unwrap();
    }
    let targets: Vec<Vec<u8>> = heard(&socket).iter().map(|frame| frame[62..78].to_vec()).collect();
    assert_eq!(targets, vips.map(|vip| vip.octets().to_vec()));
}

#[test]
fn linux_the_hardware_address_is_the_one_of_this_moment() {
    let pair = Pair::new();
    let socket = pair.here.inside(|| QuestionSocket::arp(index_of("eth0"), &VIPS).unwrap());
    assert_eq!(socket.hardware_address().unwrap(), Some(link::mac(&pair.here)));
    let new = [2, 0, 0, 0, 0, 0x42];
    link::set_mac(&pair.here, "eth0", new);
    assert_eq!(socket.hardware_address().unwrap(), Some(new));
}

#[test]
fn linux_questions_on_an_interface_that_is_not_there_are_refused() {
    let node = lvsmesh_tests::netns::Namespace::new().unwrap();
    node.inside(|| {
        let refused = QuestionSocket::arp(9999, &VIPS).unwrap_err();
        assert_eq!(refused.errno(), Some(Errno::ENODEV), "{refused}");
        let refused = QuestionSocket::ndp(9999, &[v6(1)], &[solicited_node(v6(1))].into());
        assert_eq!(refused.unwrap_err().errno(), Some(Errno::ENODEV));
    });
}
