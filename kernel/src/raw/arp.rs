//! Packet sockets for ARP (RFC 826) and neighbour advertisements (RFC 4861): one that only sends, one that listens.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{LinkAddr, MsgFlags, SockaddrStorage, getsockname, recv};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use super::vrrp::errno;
use super::{ETH_P_ARP, ETH_P_IPV6, link_address};
use crate::error::KernelError;

/// An interface as the target of frames; made once, so that sending allocates nothing.
#[derive(Clone, Debug)]
pub struct LinkTarget(SockAddr);

impl LinkTarget {
    /// The interface with that index, for ARP frames.
    ///
    /// # Errors
    ///
    /// `ENODEV` for an index above 2^31 - 1, which the kernel gives to none.
    pub fn new(ifindex: u32) -> Result<Self, Errno> {
        link_address(ifindex, ETH_P_ARP).map(Self)
    }

    /// The interface with that index, for IPv6 frames.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn ipv6(ifindex: u32) -> Result<Self, Errno> {
        link_address(ifindex, ETH_P_IPV6).map(Self)
    }
}

/// A socket that sends frames on any interface, and receives nothing. Non-blocking.
#[derive(Debug)]
pub struct FrameSender {
    socket: Socket,
}

impl FrameSender {
    /// Opens the socket.
    ///
    /// It is made for protocol 0, for which the kernel delivers nothing (packet(7)): a packet socket that nobody reads would otherwise fill
    /// its buffer with every frame of the machine.
    ///
    /// # Errors
    ///
    /// `EPERM` without CAP_NET_RAW.
    pub fn open() -> Result<Self, KernelError> {
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None)
            .map_err(|error| KernelError::io("open", "a packet socket", &error))?;
        Ok(Self { socket })
    }

    /// Sends an Ethernet frame, whole but for padding and checksum.
    ///
    /// # Errors
    ///
    /// `ENETDOWN` if the interface is down, `ENXIO` if it is gone, `EAGAIN` and `ENOBUFS` when the card's queue is full.
    pub fn send(&self, target: &LinkTarget, frame: &[u8]) -> Result<(), Errno> {
        match self.socket.send_to(frame, &target.0) {
            Ok(_) => Ok(()),
            Err(error) => Err(errno(&error)),
        }
    }
}

impl AsFd for FrameSender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A socket that receives the frames of one kind that reach one interface, and not those that leave it. Non-blocking.
#[derive(Debug)]
pub struct FrameListener {
    socket: Socket,
}

/// Classic BPF, <linux/bpf_common.h>.
const LOAD_BYTE: u16 = 0x30;
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// The whole frame.
const ACCEPT: SockFilter = SockFilter::new(RETURN, 0, 0, u32::MAX);
const IGNORE: SockFilter = SockFilter::new(RETURN, 0, 0, 0);

/// A jump is at most so long.
const MOST: usize = 255;

/// Lets through what has one of `values` in the four bytes at `offset`, after `before`; with more values than a jump can pass, everything.
fn one_of(mut before: Vec<SockFilter>, offset: u32, values: &[u32]) -> Vec<SockFilter> {
    before.push(SockFilter::new(LOAD_WORD, 0, 0, offset));
    if values.len() > MOST {
        before.push(ACCEPT);
        return before;
    }
    for (left, value) in (0..values.len()).rev().zip(values) {
        // Over what is left and the refusal.
        let over = u8::try_from(left + 1).unwrap_or(u8::MAX);
        before.push(SockFilter::new(JUMP_IF_EQUAL, over, 0, *value));
    }
    before.extend([IGNORE, ACCEPT]);
    before
}

/// The hardware address of the interface that a packet socket is bound to; `None` where it has none of six bytes, or is gone.
pub(super) fn hardware_address(socket: &Socket) -> Result<Option<[u8; 6]>, Errno> {
    // `packet_getname` looks it up at the interface each time (net/packet/af_packet.c), and says no more bytes than the address has, which
    // only the type for every address takes.
    let address: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    Ok(address.as_link_addr().and_then(LinkAddr::addr))
}

impl FrameListener {
    /// Opens the socket for ARP.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is no such interface, `EPERM` without CAP_NET_RAW.
    pub fn arp(ifindex: u32) -> Result<Self, KernelError> {
        Self::open(ifindex, ETH_P_ARP, "ARP", &[])
    }

    /// Opens the socket for ARP in which the sender says that it has one of these addresses: answers, gratuitous requests.
    ///
    /// # Errors
    ///
    /// As for [`arp`](Self::arp).
    pub fn arp_from(ifindex: u32, addresses: &[Ipv4Addr]) -> Result<Self, KernelError> {
        let values: Vec<u32> = addresses.iter().copied().map(u32::from).collect();
        // Sender protocol address (RFC 826), behind the Ethernet header.
        Self::open(ifindex, ETH_P_ARP, "ARP", &one_of(Vec::new(), 14 + 14, &values))
    }

    /// Opens the socket for neighbour advertisements (RFC 4861 §4.4) whose targets end like one of these addresses, in their last 32 bits.
    ///
    /// # Errors
    ///
    /// As for [`arp`](Self::arp).
    pub fn neighbours(ifindex: u32, addresses: &[Ipv6Addr]) -> Result<Self, KernelError> {
        let last = |address: &Ipv6Addr| {
            let [.., one, two, three, four] = address.octets();
            u32::from_be_bytes([one, two, three, four])
        };
        let values: Vec<u32> = addresses.iter().map(last).collect();
        let (next_header, kind, target) = (14 + 6, 14 + 40, 14 + 40 + 8);
        let advertisement = vec![
            SockFilter::new(LOAD_BYTE, 0, 0, next_header),
            SockFilter::new(JUMP_IF_EQUAL, 1, 0, 58),
            IGNORE,
            SockFilter::new(LOAD_BYTE, 0, 0, kind),
            SockFilter::new(JUMP_IF_EQUAL, 1, 0, 136),
            IGNORE,
        ];
        let filter = one_of(advertisement, target + 12, &values);
        Self::open(ifindex, ETH_P_IPV6, "neighbour advertisements", &filter)
    }

    fn open(
        ifindex: u32,
        protocol: u16,
        what: &str,
        filter: &[SockFilter],
    ) -> Result<Self, KernelError> {
        let refused = |error: std::io::Error| {
            let object =
                format!("a packet socket for {what} on the interface with index {ifindex}");
            KernelError::io("open", object, &error)
        };
        let address = link_address(ifindex, protocol).map_err(|errno| refused(errno.into()))?;
        // For protocol 0 until it is bound, or frames of other interfaces, or those that the filter keeps out, would come in first.
        let none: Option<Protocol> = None;
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), none)
            .map_err(refused)?;
        if !filter.is_empty() {
            socket.attach_filter(filter).map_err(refused)?;
        }
        socket.bind(&address).map_err(refused)?;
        Ok(Self { socket })
    }

    /// The hardware address that the interface has now; `None` where it has none of six bytes.
    ///
    /// # Errors
    ///
    /// If the kernel does not say.
    pub fn hardware_address(&self) -> Result<Option<[u8; 6]>, Errno> {
        hardware_address(&self.socket)
    }

    /// Takes the next frame out of the queue, into `buffer`; `None` if there is none. What does not fit is cut off; ARP has 42 bytes.
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
}

impl AsFd for FrameListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
