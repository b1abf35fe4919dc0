//! One VIP group on its segment: the interface, what is sent there, what is heard there.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use lvsmesh_core::arp::{self, FRAME_LEN, Mac};
use lvsmesh_core::model::Vip;
use lvsmesh_core::vrrp::{Advert, GROUP};
use lvsmesh_kernel::raw::{ArpSender, LinkTarget, VrrpSocket};
use lvsmesh_kernel::route_socket::PreparedAddress;
use lvsmesh_kernel::{Errno, chain};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;

use super::schedule::LIFETIME;
use crate::guard;

/// An interface as a group needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) mac: Mac,
    /// Its first IPv4 address that is no VIP: adverts come from it.
    pub(super) source: Ipv4Addr,
}

/// Sockets and prepared packets of one group.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) interface: Interface,
    pub(super) addresses: Vec<PreparedAddress>,
    announcements: Vec<[u8; FRAME_LEN]>,
    advert: Vec<u8>,
    goodbye: Vec<u8>,
    arp: ArpSender,
    link: LinkTarget,
    pub(super) vrrp: VrrpSocket,
}

impl Segment {
    /// Opens the sockets and encodes everything that will be sent.
    pub(super) fn open(vip: &Vip, interface: Interface) -> Result<Self, String> {
        let failed = |error: &dyn std::error::Error| {
            format!("vips/{}: {} cannot be used: {}", vip.name, vip.interface, chain(error))
        };
        let arp_sender = ArpSender::open().map_err(|error| failed(&error))?;
        let link = LinkTarget::new(interface.index).map_err(|error| failed(&error))?;
        let vrrp = VrrpSocket::open(&vip.interface, interface.index, Some(interface.source))
            .map_err(|error| failed(&error))?;
        let advert = Advert::of(vip);
        let encode = |advert: &Advert| advert.encode(interface.source, GROUP, vip.vrrp.checksum);
        Ok(Self {
            addresses: v4(vip)
                .map(|vip| PreparedAddress::new(interface.index, vip, LIFETIME))
                .collect(),
            announcements: v4(vip).map(|vip| arp::gratuitous(interface.mac, vip)).collect(),
            goodbye: encode(&advert.goodbye()),
            advert: encode(&advert),
            interface,
            arp: arp_sender,
            link,
            vrrp,
        })
    }

    /// What the guard has to know.
    pub(super) fn held(&self) -> impl Iterator<Item = guard::Vip> {
        self.addresses
            .iter()
            .map(|prepared| guard::Vip { ifindex: prepared.ifindex(), address: prepared.address() })
    }

    /// One gratuitous ARP frame for the address at `index`.
    pub(super) fn announce(&self, index: usize) -> Result<(), Errno> {
        self.announcements.get(index).map_or(Ok(()), |frame| self.arp.send(&self.link, frame))
    }

    pub(super) fn advertise(&self) -> Result<(), Errno> {
        self.vrrp.send(&self.advert)
    }

    pub(super) fn say_goodbye(&self) -> Result<(), Errno> {
        self.vrrp.send(&self.goodbye)
    }
}

/// The group's IPv4 addresses, which are all that a document may list.
pub(super) fn v4(vip: &Vip) -> impl Iterator<Item = Ipv4Addr> {
    vip.addresses.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    })
}

/// Looks the group's interface up. `vips`: all VIPs of the fleet, none of which is an interface's own address.
pub(super) fn resolve(vip: &Vip, vips: &BTreeSet<IpAddr>) -> Result<Interface, String> {
    let (group, name) = (&vip.name, vip.interface.as_str());
    let index = if_nametoindex(name)
        .map_err(|_| format!("vips/{group}: this machine has no interface {name}"))?;
    let listed = getifaddrs().map_err(|error| {
        format!("vips/{group}: listing the addresses of {name} failed: {error}")
    })?;
    let (mut mac, mut source) = (None, None);
    for entry in listed.filter(|entry| entry.interface_name == name) {
        let Some(address) = entry.address else { continue };
        if let Some(link) = address.as_link_addr() {
            mac = mac.or(link.addr());
        }
        if let Some(inet) = address.as_sockaddr_in() {
            source = source.or(Some(inet.ip()).filter(|ip| !vips.contains(&IpAddr::V4(*ip))));
        }
    }
    let mac =
        mac.ok_or_else(|| format!("vips/{group}: interface {name} has no hardware address"))?;
    let source = source
        .ok_or_else(|| format!("vips/{group}: interface {name} has no IPv4 address of its own"))?;
    Ok(Interface { index, mac, source })
}
