//! Packet sockets that receive the questions who has an address: ARP requests (RFC 826) and neighbour solicitations (RFC 4861).
//!
//! The kernel's own filter (`SO_ATTACH_FILTER`, socket(7); instructions as in <linux/filter.h>) passes questions for the given addresses and
//! nothing else, so that what else is on the segment costs the reader nothing; while nobody is to answer it passes nothing at all.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, SockAddr, SockFilter, Socket, Type};

use super::arp::hardware_address;
use super::vrrp::errno;
use super::{ETH_P_ARP, ETH_P_IPV6, link_address};
use crate::error::KernelError;

/// The receive buffer: some hundred questions. More than that unread are old by the time that they would be answered, and are asked again.
const ROOM: usize = 64 << 10;

// <linux/bpf_common.h>, <linux/filter.h>
const LD_W_ABS: u16 = 0x20;
const LD_H_ABS: u16 = 0x28;
const LD_B_ABS: u16 = 0x30;
const JMP_JEQ: u16 = 0x15;
const JMP_JGT: u16 = 0x25;
const RET: u16 = 0x06;
/// `SKF_AD_OFF + SKF_AD_PKTTYPE`: to whom the frame is addressed (`sll_pkttype`, packet(7)).
const PACKET_TYPE: u32 = 0xffff_f004;
/// `PACKET_MULTICAST`; what is above is another station's or our own.
const PACKET_MULTICAST: u32 = 2;

/// Passes nothing.
const DEAF: [SockFilter; 1] = [SockFilter::new(RET, 0, 0, 0)];

/// A socket that receives questions for some addresses on one interface, and answers there. Non-blocking. It starts deaf.
#[derive(Debug)]
pub struct QuestionSocket {
    socket: Socket,
    address: SockAddr,
    filter: Vec<SockFilter>,
    /// Keeps the interface in the multicast groups in which the addresses are asked for.
    _groups: Option<Socket>,
}

impl QuestionSocket {
    /// Opens a socket for ARP requests.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is no such interface, `EPERM` without CAP_NET_RAW.
    pub fn arp(ifindex: u32, addresses: &[Ipv4Addr]) -> Result<Self, KernelError> {
        let filters = [arp_filter(addresses), arp_requests().pass_all()];
        Self::open(ifindex, ETH_P_ARP, filters, None)
    }

    /// Opens a socket for neighbour solicitations, and joins the groups in which `addresses` are asked for (`groups`: RFC 4291 §2.7.1).
    ///
    /// # Errors
    ///
    /// As for [`arp`](Self::arp); `ENODEV` also where IPv6 is switched off.
    pub fn ndp(
        ifindex: u32,
        addresses: &[Ipv6Addr],
        groups: &BTreeSet<Ipv6Addr>,
    ) -> Result<Self, KernelError> {
        let joined = || {
            // It is bound to no port, so that nothing is ever queued in it.
            let socket = Socket::new(Domain::IPV6, Type::DGRAM.cloexec(), None)?;
            for group in groups {
                socket.join_multicast_v6(group, ifindex)?;
            }
            Ok(socket)
        };
        let joined = joined().map_err(|error| {
            let object = format!("multicast groups on the interface with index {ifindex}");
            KernelError::io("join", object, &error)
        })?;
        let filters = [ndp_filter(addresses), solicitations().pass_all()];
        Self::open(ifindex, ETH_P_IPV6, filters, Some(joined))
    }

    fn open(
        ifindex: u32,
        protocol: u16,
        filters: [Vec<SockFilter>; 2],
        groups: Option<Socket>,
    ) -> Result<Self, KernelError> {
        let refused = |error: std::io::Error| {
            let object =
                format!("a packet socket for questions on the interface with index {ifindex}");
            KernelError::io("open", object, &error)
        };
        let address = link_address(ifindex, protocol).map_err(|errno| refused(errno.into()))?;
        // For protocol 0, and deaf, until it is bound: or frames of other interfaces would come in first.
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None)
            .map_err(refused)?;
        socket.set_recv_buffer_size(ROOM).map_err(refused)?;
        // The kernel takes no more of a filter than `net.core.optmem_max` allows (20 kB before Linux 6.8: some hundred addresses), and 4096
        // instructions at most. What a coarser one lets through, whoever reads has to look at.
        // The first attempt has to fit beside a filter that is there, as all later ones do.
        let [exact, coarse] = filters;
        socket.attach_filter(&DEAF).map_err(refused)?;
        let filter = if socket.attach_filter(&exact).is_ok() { exact } else { coarse };
        socket.attach_filter(&DEAF).map_err(refused)?;
        socket.bind(&address).map_err(refused)?;
        Ok(Self { socket, address, filter, _groups: groups })
    }

    /// From here on questions are received; where there are more addresses than the kernel takes into a filter, also such as are for others.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the socket stays deaf then.
    pub fn listen(&self) -> Result<(), Errno> {
        self.socket.attach_filter(&self.filter).map_err(|error| errno(&error))
    }

    /// From here on nothing is received, and what was is thrown away.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; questions are still received then.
    pub fn ignore(&self) -> Result<(), Errno> {
        self.socket.attach_filter(&DEAF).map_err(|error| errno(&error))?;
        while let Ok(Some(_)) | Err(Errno::ENETDOWN) = self.receive(&mut [0; 1]) {}
        Ok(())
    }

    /// Takes the next question out of the queue, a whole frame into `buffer`; `None` if there is none. What does not fit is cut off.
    ///
    /// # Errors
    ///
    /// `ENETDOWN` once after the interface went down; it goes on afterwards.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>, Errno> {
        loop {
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
                Ok(length) => return Ok(buffer.get(..length)),
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// The hardware address that the interface has now (`packet_getname`, net/packet/af_packet.c); `None` once it is gone or if that is not one of
    /// Ethernet.
    ///
    /// # Errors
    ///
    /// None that the kernel gives for such a socket.
    pub fn hardware_address(&self) -> Result<Option<[u8; 6]>, Errno> {
        hardware_address(&self.socket)
    }

    /// Sends an Ethernet frame, whole but for padding and checksum.
    ///
    /// # Errors
    ///
    /// As for [`FrameSender::send`](super::FrameSender::send).
    pub fn send(&self, frame: &[u8]) -> Result<(), Errno> {
        match self.socket.send_to(frame, &self.address) {
            Ok(_) => Ok(()),
            Err(error) => Err(errno(&error)),
        }
    }
}

impl AsFd for QuestionSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A filter in the making. Where a comparison fails the packet is dropped.
struct Program(Vec<SockFilter>);

impl Program {
    /// For frames to this station, to all, or to a group.
    fn new() -> Self {
        let mut program = Self(Vec::new());
        program.load(LD_B_ABS, PACKET_TYPE);
        program.0.push(SockFilter::new(JMP_JGT, 0, 1, PACKET_MULTICAST));
        program.drop();
        program
    }

    fn load(&mut self, code: u16, offset: u32) {
        self.0.push(SockFilter::new(code, 0, 0, offset));
    }

    fn drop(&mut self) {
        self.0.push(SockFilter::new(RET, 0, 0, 0));
    }

    fn require(&mut self, code: u16, offset: u32, value: u32) {
        self.load(code, offset);
        self.0.push(SockFilter::new(JMP_JEQ, 1, 0, value));
        self.drop();
    }

    /// Passes what is left.
    fn pass_all(mut self) -> Vec<SockFilter> {
        self.0.push(SockFilter::new(RET, 0, 0, u32::MAX));
        self.0
    }

    /// Passes a packet that has one of these runs of 32-bit words at `offset`.
    fn pass<const N: usize>(mut self, offset: u32, wanted: &[[u32; N]]) -> Vec<SockFilter> {
        for words in wanted {
            for (place, word) in (0..).zip(words) {
                self.load(LD_W_ABS, offset + 4 * place);
                // What comes after the rest of this run: the next, or the end.
                let rest = u8::try_from(2 * (N - 1) + 1).unwrap_or(u8::MAX);
                let rest = rest - u8::try_from(2 * place).unwrap_or(u8::MAX);
                self.0.push(SockFilter::new(JMP_JEQ, 0, rest, *word));
            }
            self.0.push(SockFilter::new(RET, 0, 0, u32::MAX));
        }
        self.drop();
        self.0
    }
}

/// ARP requests (operation 1).
fn arp_requests() -> Program {
    let mut program = Program::new();
    program.require(LD_H_ABS, 20, 1);
    program
}

/// Neighbour solicitations (ICMPv6 directly behind the IPv6 header, type 135).
fn solicitations() -> Program {
    let mut program = Program::new();
    program.require(LD_B_ABS, 20, 58);
    program.require(LD_B_ABS, 54, 135);
    program
}

/// With one of these targets.
fn arp_filter(addresses: &[Ipv4Addr]) -> Vec<SockFilter> {
    let wanted: Vec<[u32; 1]> = addresses.iter().map(|address| [address.to_bits()]).collect();
    arp_requests().pass(38, &wanted)
}

/// With one of these targets.
fn ndp_filter(addresses: &[Ipv6Addr]) -> Vec<SockFilter> {
    let words = |address: &Ipv6Addr| {
        let octets = address.octets();
        [0, 4, 8, 12].map(|at| {
            u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
        })
    };
    let wanted: Vec<[u32; 4]> = addresses.iter().map(words).collect();
    solicitations().pass(62, &wanted)
}
