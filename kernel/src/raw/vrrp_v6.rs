//! The VRRP socket over IPv6: protocol 112 to and from ff02::12 (RFC 9568 §5.1.2).
#![forbid(unsafe_code)]

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::in6_pktinfo;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::vrrp::{PROTOCOL, Received, TOS, TTL, discard, errno};
use crate::error::KernelError;

/// All VRRP routers (RFC 9568 §5.1.2.2).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// A socket that sends and receives adverts over IPv6 on one interface. Non-blocking.
#[derive(Debug)]
pub struct VrrpSocketV6 {
    socket: Socket,
    group: SockAddr,
    ifindex: u32,
    /// For hop limit and destination, which a raw IPv6 socket does not deliver as part of the packet (RFC 3542 §3, §4).
    control: Vec<u8>,
}

impl VrrpSocketV6 {
    /// Opens the socket on an interface, given by name *and* index, which the caller has from the same listing.
    ///
    /// Adverts go out from `source`, the interface's own link-local address (RFC 9568 §5.1.2.1), which stays what it is as VIPs come and
    /// go; to single routers that are not on the link, from another address of its own.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is no such interface, `EPERM` without CAP_NET_RAW, `EADDRNOTAVAIL` if `source` is not this interface's or still
    /// tentative, `EAFNOSUPPORT` on a kernel without IPv6.
    pub fn open(interface: &str, ifindex: u32, source: Ipv6Addr) -> Result<Self, KernelError> {
        let open = || -> io::Result<Socket> {
            let socket = Socket::new(
                Domain::IPV6,
                Type::RAW.nonblocking().cloexec(),
                Some(Protocol::from(PROTOCOL)),
            )?;
            // Before the first packet can be queued: what came in on other interfaces in between is thrown away below.
            socket.bind_device(Some(interface.as_bytes()))?;
            socket.bind(&SocketAddrV6::new(source, 0, 0, ifindex).into())?;
            socket.join_multicast_v6(&GROUP_V6, ifindex)?;
            // Otherwise the groups of every other socket of this machine are delivered here too.
            socket.set_multicast_all_v6(false)?;
            socket.set_multicast_hops_v6(TTL)?;
            socket.set_unicast_hops_v6(TTL)?;
            socket.set_multicast_loop_v6(false)?;
            socket.set_multicast_if_v6(ifindex)?;
            socket.set_tclass_v6(TOS)?;
            setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            discard(&socket);
            Ok(socket)
        };
        let socket = open().map_err(|error| {
            KernelError::io("open", format!("a VRRP socket for IPv6 on {interface}"), &error)
        })?;
        Ok(Self {
            socket,
            group: SocketAddrV6::new(GROUP_V6, 0, 0, ifindex).into(),
            ifindex,
            control: cmsg_space!(in6_pktinfo, i32),
        })
    }

    /// Sends a VRRP message, without IP header, to all routers on the link. Its checksum is the caller's business.
    ///
    /// # Errors
    ///
    /// As for [`VrrpSocket::send`](super::VrrpSocket::send).
    pub fn send(&self, message: &[u8]) -> Result<(), Errno> {
        match self.socket.send_to(message, &self.group) {
            Ok(_) => Ok(()),
            Err(error) => Err(errno(&error)),
        }
    }

    /// Sends a VRRP message, without IP header, to one router. Its checksum is the caller's business.
    ///
    /// # Errors
    ///
    /// As for [`VrrpSocket::send`](super::VrrpSocket::send).
    pub fn send_to(&self, message: &[u8], router: Ipv6Addr) -> Result<(), Errno> {
        let scope = if router.is_unicast_link_local() { self.ifindex } else { 0 };
        match self.socket.send_to(message, &SocketAddrV6::new(router, 0, 0, scope).into()) {
            Ok(_) => Ok(()),
            Err(error) => Err(errno(&error)),
        }
    }

    /// Takes the next packet out of the queue, into `buffer`; `None` if there is none, or none of which the kernel says where it came from.
    ///
    /// What does not fit into `buffer` is cut off; an advert with 20 addresses has 8 + 320 bytes.
    ///
    /// # Errors
    ///
    /// `ENETDOWN` once after the interface went down; it may go on afterwards.
    pub fn receive<'a>(&mut self, buffer: &'a mut [u8]) -> Result<Option<Received<'a>>, Errno> {
        let (mut destination, mut hops) = (None, None);
        let (source, length) = loop {
            let mut parts = [IoSliceMut::new(buffer)];
            let descriptor = self.socket.as_raw_fd();
            let control = Some(self.control.as_mut_slice());
            match recvmsg::<SockaddrIn6>(descriptor, &mut parts, control, MsgFlags::empty()) {
                Ok(message) => {
                    for control in message.cmsgs()? {
                        if let ControlMessageOwned::Ipv6HopLimit(limit) = control {
                            hops = u8::try_from(limit).ok();
                        } else if let ControlMessageOwned::Ipv6PacketInfo(info) = control {
                            destination = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr));
                        }
                    }
                    break (message.address.map(|address| address.ip()), message.bytes);
                }
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        };
        let (Some(source), Some(destination), Some(ttl)) = (source, destination, hops) else {
            return Ok(None);
        };
        let Some(payload) = buffer.get(..length) else { return Ok(None) };
        let (source, destination) = (IpAddr::V6(source), IpAddr::V6(destination));
        Ok(Some(Received { source, destination, ttl, payload }))
    }
}

impl AsFd for VrrpSocketV6 {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
