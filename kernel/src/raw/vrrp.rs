//! The VRRP socket: IP protocol 112 to and from 224.0.0.18 (RFC 9568 §5.1.1), or one router.
#![forbid(unsafe_code)]

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc::{in_addr, in_pktinfo};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, recv, sendmsg};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};

use crate::error::KernelError;

/// All VRRP routers (RFC 9568 §5.1.1.2).
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// IANA's number of VRRP.
pub(super) const PROTOCOL: i32 = 112;
/// What a receiver requires (RFC 9568 §5.1.1.3): a packet that passed a router has less.
pub(super) const TTL: u32 = 255;
/// Internetwork control, as keepalived sends it.
pub(super) const TOS: u32 = 0xc0;

/// A socket that sends and receives adverts on one interface. Non-blocking.
#[derive(Debug)]
pub struct VrrpSocket {
    socket: Socket,
    group: SockAddr,
    source: Option<Ipv4Addr>,
    ifindex: u32,
}

/// A packet that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// Sender.
    pub source: IpAddr,
    /// Where it was sent to: the group, or this machine.
    pub destination: IpAddr,
    /// Time to live or hop limit: anything but 255 came through a router, or was forged behind one.
    pub ttl: u8,
    /// What follows the IP header.
    pub payload: &'a [u8],
}

impl VrrpSocket {
    /// Opens the socket on an interface, given by name *and* index, which the caller has from the same listing.
    ///
    /// Adverts go out from `source`, which must be an address of this machine and stays what it is as VIPs come and go; with `None` the
    /// kernel takes the interface's first address.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is no such interface, `EPERM` without CAP_NET_RAW, `EADDRNOTAVAIL` if `source` is not this machine's.
    pub fn open(
        interface: &str,
        ifindex: u32,
        source: Option<Ipv4Addr>,
    ) -> Result<Self, KernelError> {
        let open = || -> io::Result<Socket> {
            let socket = Socket::new(
                Domain::IPV4,
                Type::RAW.nonblocking().cloexec(),
                Some(Protocol::from(PROTOCOL)),
            )?;
            // Before the first packet can be queued: what came in on other interfaces in between is thrown away below.
            socket.bind_device(Some(interface.as_bytes()))?;
            socket.join_multicast_v4_n(&GROUP, &InterfaceIndexOrAddress::Index(ifindex))?;
            // Otherwise the groups of every other socket of this machine are delivered here too.
            socket.set_multicast_all_v4(false)?;
            socket.set_multicast_ttl_v4(TTL)?;
            socket.set_ttl_v4(TTL)?;
            socket.set_multicast_loop_v4(false)?;
            socket.set_tos_v4(TOS)?;
            if let Some(source) = source {
                socket.set_multicast_if_v4(&source)?;
            }
            discard(&socket);
            Ok(socket)
        };
        let socket = open().map_err(|error| {
            KernelError::io("open", format!("a VRRP socket on {interface}"), &error)
        })?;
        Ok(Self { socket, group: SocketAddrV4::new(GROUP, 0).into(), source, ifindex })
    }

    /// Sends a VRRP message, without IP header, to all routers on the link.
    ///
    /// # Errors
    ///
    /// `ENETDOWN` or `ENETUNREACH` while the interface is down, `ENODEV` or `ENXIO` when it is gone (open anew then), `EAGAIN` and
    /// `ENOBUFS` when the card's queue is full.
    pub fn send(&self, message: &[u8]) -> Result<(), Errno> {
        match self.socket.send_to(message, &self.group) {
            Ok(_) => Ok(()),
            Err(error) => Err(errno(&error)),
        }
    }

    /// Sends a VRRP message, without IP header, to one router, through the socket's interface.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send), and `EADDRNOTAVAIL` while `source` is not this machine's.
    pub fn send_to(&self, message: &[u8], router: Ipv4Addr) -> Result<(), Errno> {
        let parts = [IoSlice::new(message)];
        // The route to it would choose the source else, and might choose a VIP.
        let source = self.source.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let info = in_pktinfo {
            ipi_ifindex: i32::try_from(self.ifindex).map_err(|_| Errno::ENODEV)?,
            ipi_spec_dst: in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
            ipi_addr: in_addr { s_addr: 0 },
        };
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        let router = SockaddrIn::from(SocketAddrV4::new(router, 0));
        let flags = MsgFlags::empty();
        sendmsg(self.socket.as_raw_fd(), &parts, &control, flags, Some(&router)).map(drop)
    }

    /// Takes the next packet out of the queue, into `buffer`; `None` if there is none, or none that has a whole IP header.
    ///
    /// What does not fit into `buffer` is cut off; an advert with 20 addresses has 20 + 8 + 80 + 8 bytes.
    ///
    /// # Errors
    ///
    /// `ENETDOWN` once after the interface went down; it may go on afterwards.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<Option<Received<'a>>, Errno> {
        loop {
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
                Ok(length) => {
                    let Some(packet) = buffer.get(..length) else { return Ok(None) };
                    return Ok(split(packet));
                }
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl AsFd for VrrpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Throws away what is queued.
pub(super) fn discard(socket: &Socket) {
    let mut bin = [MaybeUninit::uninit(); 1];
    while socket.recv(&mut bin).is_ok() {}
}

pub(super) fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Takes an IPv4 packet apart, as a raw socket delivers it: with its header (RFC 791 §3.1).
fn split(packet: &[u8]) -> Option<Received<'_>> {
    let [first, _, _, _, _, _, _, _, ttl, ..] = *packet else { return None };
    let header = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header < 20 {
        return None;
    }
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    Some(Received {
        source: Ipv4Addr::from(source).into(),
        destination: Ipv4Addr::from(destination).into(),
        ttl,
        payload: packet.get(header..)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_taken_apart_behind_its_options() {
        // RFC 791: version 4, header of 6 words (one of options), TTL 255, protocol 112.
        let packet = [
            0x46, 0xc0, 0, 28, 0, 0, 0, 0, 255, 112, 0, 0, 192, 0, 2, 1, 224, 0, 0, 18, 1, 1, 1, 1,
            0x21, 51, 100, 1,
        ];
        let received = split(&packet).unwrap();
        assert_eq!(received.source, IpAddr::from([192, 0, 2, 1]));
        assert_eq!((received.destination, received.ttl), (GROUP.into(), 255));
        assert_eq!(received.payload, [0x21, 51, 100, 1]);
    }

    #[test]
    fn what_has_no_whole_header_is_nothing() {
        let packet = [0x45; 20];
        assert!(split(&packet).is_some());
        for cut in [&packet[..19], &packet[..8], &[]] {
            assert_eq!(split(cut), None, "{} bytes", cut.len());
        }
        assert_eq!(split(&[0x44; 20]), None, "a header of 16 bytes");
        assert_eq!(split(&[0x65; 20]), None, "IPv6");
        assert_eq!(split(&[0x4f; 20]), None, "a header of 60 bytes in a packet of 20");
    }
}
