//! One VIP group on its segment: the interface, what is sent there, what is heard there.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};

use lvsmesh_core::arp::{self, Mac};
use lvsmesh_core::model::Vip;
use lvsmesh_core::ndp;
use lvsmesh_core::plan::Sysctl;
use lvsmesh_core::vrrp::{Advert, group};
use lvsmesh_kernel::raw::{FrameSender, LinkTarget, Received, VrrpSocket, VrrpSocketV6};
use lvsmesh_kernel::route_socket::PreparedAddress;
use lvsmesh_kernel::{Errno, KernelError, chain, sysctl};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;

use super::responder::Responder;
use super::schedule::LIFETIME;
use crate::guard;

/// An interface as a group needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) mac: Mac,
    /// Its first IPv4 address that is no VIP, or for a group of IPv6 addresses alone its first link-local one: adverts come from it.
    pub(super) source: IpAddr,
    /// It forwards IPv6, which neighbour advertisements have to say. Not looked at for a group without IPv6 addresses.
    pub(super) router: bool,
}

/// A socket for the family that the group's adverts go over.
#[derive(Debug)]
pub(super) enum Wire {
    V4(VrrpSocket),
    V6(VrrpSocketV6),
}

impl Wire {
    fn open(vip: &Vip, interface: &Interface) -> Result<Self, KernelError> {
        Ok(match interface.source {
            IpAddr::V4(source) => {
                Self::V4(VrrpSocket::open(&vip.interface, interface.index, Some(source))?)
            }
            IpAddr::V6(source) => {
                Self::V6(VrrpSocketV6::open(&vip.interface, interface.index, source)?)
            }
        })
    }

    fn send(&self, advert: &[u8]) -> Result<(), Errno> {
        match self {
            Self::V4(socket) => socket.send(advert),
            Self::V6(socket) => socket.send(advert),
        }
    }

    pub(super) fn receive<'a>(
        &mut self,
        buffer: &'a mut [u8],
    ) -> Result<Option<Received<'a>>, Errno> {
        match self {
            Self::V4(socket) => socket.receive(buffer),
            Self::V6(socket) => socket.receive(buffer),
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::V4(socket) => socket.as_fd(),
            Self::V6(socket) => socket.as_fd(),
        }
    }
}

/// What tells a segment where an address is.
#[derive(Clone, Copy, Debug)]
enum Announcement {
    Arp([u8; arp::FRAME_LEN]),
    Neighbour([u8; ndp::FRAME_LEN]),
}

impl Announcement {
    fn new(interface: &Interface, vip: IpAddr) -> Self {
        match vip {
            IpAddr::V4(vip) => Self::Arp(arp::gratuitous(interface.mac, vip)),
            IpAddr::V6(vip) => {
                Self::Neighbour(ndp::unsolicited(interface.mac, vip, interface.router))
            }
        }
    }
}

/// Sockets and prepared packets of one group.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) interface: Interface,
    /// To be put on the interface, unless there is a [`responder`](Self::responder); to be taken off it in any case.
    pub(super) addresses: Vec<PreparedAddress>,
    /// Answers for the addresses instead of the kernel.
    pub(super) responder: Option<Responder>,
    announcements: Vec<Announcement>,
    advert: Vec<u8>,
    goodbye: Vec<u8>,
    frames: FrameSender,
    link: LinkTarget,
    link_v6: LinkTarget,
    pub(super) vrrp: Wire,
}

impl Segment {
    /// Opens the sockets and encodes everything that will be sent.
    pub(super) fn open(vip: &Vip, interface: Interface) -> Result<Self, String> {
        let failed = |error: &dyn std::error::Error| {
            format!("vips/{}: {} cannot be used: {}", vip.name, vip.interface, chain(error))
        };
        let frames = FrameSender::open().map_err(|error| failed(&error))?;
        let link = LinkTarget::new(interface.index).map_err(|error| failed(&error))?;
        let link_v6 = LinkTarget::ipv6(interface.index).map_err(|error| failed(&error))?;
        let vrrp = Wire::open(vip, &interface).map_err(|error| failed(&error))?;
        let responder = Responder::open(vip, &interface).map_err(|error| failed(&error))?;
        let advert = Advert::of(vip);
        let source = interface.source;
        let encode = |advert: &Advert| advert.encode(source, group(source), vip.vrrp.checksum);
        let addresses = vip.addresses.iter();
        let prepare = |vip: &IpAddr| PreparedAddress::new(interface.index, *vip, LIFETIME);
        Ok(Self {
            addresses: addresses.clone().map(prepare).collect(),
            announcements: addresses.map(|vip| Announcement::new(&interface, *vip)).collect(),
            responder,
            goodbye: encode(&advert.goodbye()),
            advert: encode(&advert),
            interface,
            frames,
            link,
            link_v6,
            vrrp,
        })
    }

    /// What a claim puts on the interface; the guard has to know of it.
    pub(super) fn held(&self) -> impl Iterator<Item = guard::Vip> {
        let attached = if self.responder.is_none() { self.addresses.as_slice() } else { &[] };
        attached
            .iter()
            .map(|prepared| guard::Vip { ifindex: prepared.ifindex(), address: prepared.address() })
    }

    /// What the guard has to say if this process cannot.
    pub(super) fn farewell(&self, vip: &Vip) -> guard::Goodbye {
        guard::Goodbye {
            group: vip.name.clone(),
            interface: vip.interface.clone(),
            ifindex: self.interface.index,
            source: self.interface.source,
            advert: self.goodbye.clone(),
        }
    }

    /// One gratuitous ARP frame or neighbour advertisement for the address at `index`.
    pub(super) fn announce(&self, index: usize) -> Result<(), Errno> {
        match self.announcements.get(index) {
            Some(Announcement::Arp(frame)) => self.frames.send(&self.link, frame),
            Some(Announcement::Neighbour(frame)) => self.frames.send(&self.link_v6, frame),
            None => Ok(()),
        }
    }

    pub(super) fn advertise(&self) -> Result<(), Errno> {
        self.vrrp.send(&self.advert)
    }

    pub(super) fn say_goodbye(&self) -> Result<(), Errno> {
        self.vrrp.send(&self.goodbye)
    }
}

/// Looks the group's interface up. `vips`: all VIPs of the fleet, none of which is an interface's own address.
pub(super) fn resolve(vip: &Vip, vips: &BTreeSet<IpAddr>) -> Result<Interface, String> {
    let (group, name) = (&vip.name, vip.interface.as_str());
    let index = if_nametoindex(name)
        .map_err(|_| format!("vips/{group}: this machine has no interface {name}"))?;
    let listed = getifaddrs().map_err(|error| {
        format!("vips/{group}: listing the addresses of {name} failed: {error}")
    })?;
    let over_ipv6 = vip.is_ipv6_only();
    let (mut mac, mut source) = (None, None);
    for entry in listed.filter(|entry| entry.interface_name == name) {
        let Some(address) = entry.address else { continue };
        if let Some(link) = address.as_link_addr() {
            mac = mac.or(link.addr());
        }
        let candidate = if over_ipv6 {
            let inet = address.as_sockaddr_in6().map(|inet| inet.ip());
            inet.filter(Ipv6Addr::is_unicast_link_local).map(IpAddr::V6)
        } else {
            address.as_sockaddr_in().map(|inet| IpAddr::V4(inet.ip()))
        };
        source = source.or(candidate.filter(|address| !vips.contains(address)));
    }
    let mac =
        mac.ok_or_else(|| format!("vips/{group}: interface {name} has no hardware address"))?;
    let kind = if over_ipv6 { "link-local IPv6" } else { "IPv4" };
    let source = source.ok_or_else(|| {
        format!("vips/{group}: interface {name} has no {kind} address of its own")
    })?;
    let router = vip.addresses.iter().any(IpAddr::is_ipv6) && forwards(name);
    Ok(Interface { index, mac, source, router })
}

/// Whether the interface forwards IPv6 (`forwarding`, ip-sysctl.rst). Where that cannot be read there is no IPv6.
fn forwards(interface: &str) -> bool {
    let name = Sysctl(format!("net/ipv6/conf/{interface}/forwarding"));
    sysctl::read(&name).is_ok_and(|value| value.is_some_and(|value| value != 0))
}
