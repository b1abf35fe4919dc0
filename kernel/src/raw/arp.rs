//! Packet sockets for ARP (RFC 826) and neighbour advertisements (RFC 4861): one that only sends, one that listens to ARP.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

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

/// A socket that receives the ARP frames that reach one interface, and not those that leave it. Non-blocking.
#[derive(Debug)]
pub struct ArpListener {
    socket: Socket,
}

impl ArpListener {
    /// Opens the socket.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is no such interface, `EPERM` without CAP_NET_RAW.
    pub fn open(ifindex: u32) -> Result<Self, KernelError> {
        let refused = |error: std::io::Error| {
            let object = format!("a packet socket for ARP on the interface with index {ifindex}");
            KernelError::io("open", object, &error)
        };
        let address = link_address(ifindex, ETH_P_ARP).map_err(|errno| refused(errno.into()))?;
        // For protocol 0 until it is bound, or frames of other interfaces would come in first.
        let none: Option<Protocol> = None;
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), none)
            .map_err(refused)?;
        socket.bind(&address).map_err(refused)?;
        Ok(Self { socket })
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

impl AsFd for ArpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
