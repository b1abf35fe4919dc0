//! One VIP group on its segment: the interface, what is sent there, what is heard there.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use lvsmesh_core::arp::{self, Mac};
use lvsmesh_core::model::{Peers, Vip};
use lvsmesh_core::ndp;
use lvsmesh_core::plan::Sysctl;
use lvsmesh_core::vrrp::fallback::Policy;
use lvsmesh_core::vrrp::{Advert, group};
use lvsmesh_kernel::gate::Guarded;
use lvsmesh_kernel::gateway::gateways;
use lvsmesh_kernel::raw::{
    FrameListener, FrameSender, LinkTarget, Received, VrrpSocket, VrrpSocketV6,
};
use lvsmesh_kernel::route_socket::PreparedAddress;
use lvsmesh_kernel::{Errno, KernelError, chain, sysctl};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::SockaddrStorage;

use super::responder::Responder;
use super::schedule::LIFETIME;
use crate::guard;

/// An interface as a group needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) mac: Mac,
    /// Its first IPv4 address that is no VIP, or for a group whose adverts go over IPv6 its first link-local one, or with unicast peers its
    /// first other one: adverts come from it.
    pub(super) source: IpAddr,
    /// Of that address.
    pub(super) netmask: Option<IpAddr>,
    /// It forwards IPv6, which neighbour advertisements have to say. Not looked at for a group without IPv6 addresses.
    pub(super) router: bool,
    /// Who vouches for a holder without a lease: the document's, or the interface's gateways. None where there is no such holder.
    pub(super) arbiters: Vec<IpAddr>,
}

impl Interface {
    /// Whether an address is in the network of the one that adverts come from.
    fn is_near(&self, address: IpAddr) -> bool {
        match (self.source, self.netmask, address) {
            (IpAddr::V4(source), Some(IpAddr::V4(mask)), IpAddr::V4(address)) => {
                source & mask == address & mask
            }
            (IpAddr::V6(source), Some(IpAddr::V6(mask)), IpAddr::V6(address)) => {
                source & mask == address & mask
            }
            _ => false,
        }
    }
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

    /// To one router, or to all on the segment.
    fn send(&self, advert: &[u8], to: Option<IpAddr>) -> Result<(), Errno> {
        match (self, to) {
            (Self::V4(socket), None) => socket.send(advert),
            (Self::V4(socket), Some(IpAddr::V4(router))) => socket.send_to(advert, router),
            (Self::V6(socket), None) => socket.send(advert),
            (Self::V6(socket), Some(IpAddr::V6(router))) => socket.send_to(advert, router),
            (Self::V4(_), Some(IpAddr::V6(_))) | (Self::V6(_), Some(IpAddr::V4(_))) => {
                Err(Errno::EAFNOSUPPORT)
            }
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

/// What is heard by ARP and neighbour discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Another machine has a VIP.
    Vip(Sighting),
    /// An arbiter is there.
    Arbiter,
}

/// An advert as one router gets it: version 3's checksum covers the destination.
#[derive(Clone, Debug)]
struct Letter {
    /// `None`: every router on the segment.
    to: Option<IpAddr>,
    advert: Vec<u8>,
    goodbye: Vec<u8>,
}

/// Sockets and prepared packets of one group.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) interface: Interface,
    /// To be put on the interface, unless there is a [`responder`](Self::responder); to be taken off it in any case.
    pub(super) addresses: Vec<PreparedAddress>,
    /// Answers for the addresses instead of the kernel.
    pub(super) responder: Option<Responder>,
    letters: Vec<Letter>,
    /// In adverts: the group's, or the one of a holder without a lease.
    priority: u8,
    frames: FrameSender,
    link: LinkTarget,
    link_v6: LinkTarget,
    pub(super) vrrp: Wire,
    /// What others say about the group's IPv4 addresses. The interface's hardware address is read at this socket, too.
    arp: FrameListener,
    /// And about its IPv6 addresses, if it has any.
    neighbours: Option<FrameListener>,
}

/// Another machine said that it has one of the group's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) address: IpAddr,
    pub(super) mac: Mac,
}

impl Segment {
    /// Opens the sockets and encodes everything that will be sent. `directors`: the addresses of each other director.
    pub(super) fn open(
        vip: &Vip,
        interface: Interface,
        directors: &[BTreeSet<IpAddr>],
    ) -> Result<Self, String> {
        let failed = |error: &dyn std::error::Error| {
            format!("vips/{}: {} cannot be used: {}", vip.name, vip.interface, chain(error))
        };
        let frames = FrameSender::open().map_err(|error| failed(&error))?;
        let link = LinkTarget::new(interface.index).map_err(|error| failed(&error))?;
        let link_v6 = LinkTarget::ipv6(interface.index).map_err(|error| failed(&error))?;
        let vrrp = Wire::open(vip, &interface).map_err(|error| failed(&error))?;
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for address in &vip.addresses {
            match address {
                IpAddr::V4(address) => v4.push(*address),
                IpAddr::V6(address) => v6.push(*address),
            }
        }
        for arbiter in &interface.arbiters {
            match arbiter {
                IpAddr::V4(address) => v4.push(*address),
                IpAddr::V6(address) => v6.push(*address),
            }
        }
        let arp = FrameListener::arp_from(interface.index, &v4).map_err(|error| failed(&error))?;
        let neighbours = (!v6.is_empty())
            .then(|| FrameListener::neighbours(interface.index, &v6))
            .transpose()
            .map_err(|error| failed(&error))?;
        let responder = Responder::open(vip, &interface).map_err(|error| failed(&error))?;
        let prepare = |vip: &IpAddr| PreparedAddress::new(interface.index, *vip, LIFETIME);
        let mut segment = Self {
            addresses: vip.addresses.iter().map(prepare).collect(),
            responder,
            letters: Vec::new(),
            priority: vip.vrrp.priority,
            interface,
            frames,
            link,
            link_v6,
            vrrp,
            arp,
            neighbours,
        };
        segment.address(vip, directors);
        Ok(segment)
    }

    /// Encodes the adverts anew, to whom they go now.
    pub(super) fn address(&mut self, vip: &Vip, directors: &[BTreeSet<IpAddr>]) {
        let advert = Advert { priority: self.priority, ..Advert::of(vip) };
        let source = self.interface.source;
        let letter = |to: Option<IpAddr>| {
            let destination = to.unwrap_or_else(|| group(source));
            let encode = |advert: &Advert| advert.encode(source, destination, vip.vrrp.checksum);
            Letter { to, advert: encode(&advert), goodbye: encode(&advert.goodbye()) }
        };
        self.letters = match &vip.vrrp.peers {
            Peers::Multicast => vec![letter(None)],
            Peers::Unicast(listed) => {
                let routers = routers(&self.interface, directors, listed);
                routers.into_iter().map(|router| letter(Some(router))).collect()
            }
        };
    }

    /// Adverts say that priority from here on.
    pub(super) fn speak_as(&mut self, vip: &Vip, priority: u8) {
        if self.priority == priority {
            return;
        }
        self.priority = priority;
        let (advert, source) = (Advert { priority, ..Advert::of(vip) }, self.interface.source);
        for letter in &mut self.letters {
            let destination = letter.to.unwrap_or_else(|| group(source));
            letter.advert = advert.encode(source, destination, vip.vrrp.checksum);
        }
    }

    /// Whether there is nobody to send adverts to.
    pub(super) fn is_alone(&self) -> bool {
        self.letters.is_empty()
    }

    /// What a claim puts on the interface; the guard has to know of it.
    pub(super) fn held(&self) -> impl Iterator<Item = guard::Vip> {
        let attached = if self.responder.is_none() { self.addresses.as_slice() } else { &[] };
        attached
            .iter()
            .map(|prepared| guard::Vip { ifindex: prepared.ifindex(), address: prepared.address() })
    }

    /// What the group says it has while it is claimed.
    pub(super) fn claims(&self, vip: &Vip) -> BTreeSet<Guarded> {
        let router = Guarded::Router {
            ifindex: self.interface.index,
            vrid: vip.vrrp.vrid,
            ipv6: self.interface.source.is_ipv6(),
        };
        let ifindex = self.interface.index;
        let address = |address: &IpAddr| Guarded::Address { address: *address, ifindex };
        vip.addresses.iter().map(address).chain([router]).collect()
    }

    /// The sockets to wait for, whether the group is claimed or not.
    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let neighbours = self.neighbours.as_ref().map(AsFd::as_fd);
        [self.vrrp.as_fd(), self.arp.as_fd()].into_iter().chain(neighbours)
    }

    /// What the guard has to say if this process cannot, to each of those who get adverts.
    pub(super) fn farewell(&self, vip: &Vip) -> Vec<guard::Goodbye> {
        let goodbye = |letter: &Letter| guard::Goodbye {
            group: vip.name.clone(),
            interface: vip.interface.clone(),
            ifindex: self.interface.index,
            source: self.interface.source,
            to: letter.to,
            advert: letter.goodbye.clone(),
        };
        self.letters.iter().map(goodbye).collect()
    }

    /// One gratuitous ARP frame or neighbour advertisement for the address at `index`, with the hardware address that the interface has now.
    pub(super) fn announce(&self, index: usize) -> Result<(), Errno> {
        let Some(prepared) = self.addresses.get(index) else { return Ok(()) };
        let mac = self.mac();
        match prepared.address() {
            IpAddr::V4(vip) => self.frames.send(&self.link, &arp::gratuitous(mac, vip)),
            IpAddr::V6(vip) => {
                let frame = ndp::unsolicited(mac, vip, self.interface.router);
                self.frames.send(&self.link_v6, &frame)
            }
        }
    }

    /// Asks who has an address, without saying that this machine has any.
    pub(super) fn ask(&self, address: IpAddr) -> Result<(), Errno> {
        match address {
            IpAddr::V4(vip) => self.frames.send(&self.link, &arp::probe(self.mac(), vip)),
            IpAddr::V6(vip) => self.frames.send(&self.link_v6, &ndp::probe(self.mac(), vip)),
        }
    }

    /// Where it cannot be read now, it is what it was.
    fn mac(&self) -> Mac {
        self.arp.hardware_address().ok().flatten().unwrap_or(self.interface.mac)
    }

    /// Asks all arbiters whether they are there; the first error.
    pub(super) fn ask_arbiters(&self) -> Result<(), Errno> {
        self.interface.arbiters.iter().map(|arbiter| self.ask(*arbiter)).fold(Ok(()), Result::and)
    }

    /// Takes the next thing that another machine has said about the group's addresses, or an arbiter about its own; `None`: nothing more at the
    /// moment. What cannot be read is passed over.
    pub(super) fn sighted(&self) -> Option<Said> {
        let mut buffer = [0; 128];
        let is = |address: IpAddr| self.addresses.iter().any(|own| own.address() == address);
        let vouches = |address: IpAddr| self.interface.arbiters.contains(&address);
        while let Ok(Some(frame)) = self.arp.receive(&mut buffer) {
            let Ok(packet) = arp::Packet::decode(frame) else { continue };
            let address = packet.sender.into();
            if packet.sender_mac == self.mac() {
                continue;
            }
            if is(address) {
                return Some(Said::Vip(Sighting { address, mac: packet.sender_mac }));
            }
            if vouches(address) {
                return Some(Said::Arbiter);
            }
        }
        let neighbours = self.neighbours.as_ref()?;
        while let Ok(Some(frame)) = neighbours.receive(&mut buffer) {
            let Ok(said) = ndp::Advertisement::decode(frame) else { continue };
            let address = said.target.into();
            if said.mac == self.mac() {
                continue;
            }
            if is(address) {
                return Some(Said::Vip(Sighting { address, mac: said.mac }));
            }
            if vouches(address) {
                return Some(Said::Arbiter);
            }
        }
        None
    }

    /// An advert to everybody that it is for; the first error, if any of them could not be sent.
    pub(super) fn advertise(&self) -> Result<(), Errno> {
        self.post(|letter| &letter.advert)
    }

    pub(super) fn say_goodbye(&self) -> Result<(), Errno> {
        self.post(|letter| &letter.goodbye)
    }

    fn post(&self, message: impl Fn(&Letter) -> &Vec<u8>) -> Result<(), Errno> {
        let mut outcome = Ok(());
        // One router that cannot be reached does not keep the others from hearing.
        for letter in &self.letters {
            outcome = outcome.and(self.vrrp.send(message(letter), letter.to));
        }
        outcome
    }
}

/// To whom adverts go by unicast: of each director the addresses on the segment, or where it has none there, all of the adverts' family; and
/// who is listed.
fn routers(
    interface: &Interface,
    directors: &[BTreeSet<IpAddr>],
    listed: &[IpAddr],
) -> BTreeSet<IpAddr> {
    let source = interface.source;
    let fits = |address: &&IpAddr| match address {
        IpAddr::V4(_) => source.is_ipv4(),
        IpAddr::V6(address) => source.is_ipv6() && !address.is_unicast_link_local(),
    };
    let mut routers: BTreeSet<IpAddr> = listed.iter().copied().collect();
    for director in directors {
        let near = |address: &&IpAddr| interface.is_near(**address);
        let all = || director.iter().filter(fits);
        if all().any(|address| near(&address)) {
            routers.extend(all().filter(near));
        } else {
            routers.extend(all());
        }
    }
    routers.remove(&source);
    routers
}

/// Looks the group's interface up. `vips`: all VIPs of the fleet, none of which is an interface's own address.
pub(super) fn resolve(
    vip: &Vip,
    vips: &BTreeSet<IpAddr>,
    policy: Policy,
) -> Result<Interface, String> {
    let (group, name) = (&vip.name, vip.interface.as_str());
    let index = if_nametoindex(name)
        .map_err(|_| format!("vips/{group}: this machine has no interface {name}"))?;
    let listed = getifaddrs().map_err(|error| {
        format!("vips/{group}: listing the addresses of {name} failed: {error}")
    })?;
    let over_ipv6 = vip.is_ipv6_only();
    let link_local = vip.vrrp.peers == Peers::Multicast;
    let (mut mac, mut source) = (None, None);
    for entry in listed.filter(|entry| entry.interface_name == name) {
        let Some(address) = entry.address else { continue };
        if let Some(link) = address.as_link_addr() {
            mac = mac.or(link.addr());
        }
        let inet = |address: SockaddrStorage| {
            if over_ipv6 {
                address.as_sockaddr_in6().map(|inet| IpAddr::V6(inet.ip()))
            } else {
                address.as_sockaddr_in().map(|inet| IpAddr::V4(inet.ip()))
            }
        };
        let candidate = inet(address).filter(|address| match address {
            IpAddr::V4(_) => true,
            IpAddr::V6(address) => address.is_unicast_link_local() == link_local,
        });
        if let (None, Some(own)) = (source, candidate.filter(|own| !vips.contains(own))) {
            source = Some((own, entry.netmask.and_then(inet)));
        }
    }
    let mac =
        mac.ok_or_else(|| format!("vips/{group}: interface {name} has no hardware address"))?;
    let kind = match (over_ipv6, link_local) {
        (false, _) => "IPv4",
        (true, true) => "link-local IPv6",
        (true, false) => "IPv6",
    };
    let (source, netmask) = source.ok_or_else(|| {
        format!("vips/{group}: interface {name} has no {kind} address of its own")
    })?;
    let router = vip.addresses.iter().any(IpAddr::is_ipv6) && forwards(name);
    let arbiters = match policy {
        Policy::Strict => Vec::new(),
        Policy::Sticky | Policy::Vrrp if vip.arbiters.is_empty() => gateways(name),
        Policy::Sticky | Policy::Vrrp => vip.arbiters.clone(),
    };
    Ok(Interface { index, mac, source, netmask, router, arbiters })
}

/// Whether the interface forwards IPv6 (`forwarding`, ip-sysctl.rst). Where that cannot be read there is no IPv6.
fn forwards(interface: &str) -> bool {
    let name = Sysctl(format!("net/ipv6/conf/{interface}/forwarding"));
    sysctl::read(&name).is_ok_and(|value| value.is_some_and(|value| value != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn directors_are_reached_on_the_segment_or_wherever_they_are() {
        let mut interface = Interface {
            index: 2,
            mac: [2, 0, 0, 0, 0, 1],
            source: "192.168.3.101".parse().unwrap(),
            netmask: Some("255.255.255.0".parse().unwrap()),
            router: false,
            arbiters: vec![],
        };
        let directors = [
            addresses(&["192.168.3.101"]),
            addresses(&["10.0.0.2", "192.168.3.102", "fd00:3::102"]),
            addresses(&["10.0.0.4", "10.1.0.4"]),
        ];
        let listed = ["192.168.3.9".parse().unwrap()];
        let over_ipv4 = addresses(&["192.168.3.9", "192.168.3.102", "10.0.0.4", "10.1.0.4"]);
        assert_eq!(routers(&interface, &directors, &listed), over_ipv4);

        interface.source = "fd00:3::101".parse().unwrap();
        interface.netmask = Some("ffff:ffff:ffff:ffff::".parse().unwrap());
        assert_eq!(routers(&interface, &directors, &[]), addresses(&["fd00:3::102"]));
        assert_eq!(routers(&interface, &directors[..1], &[]), BTreeSet::new());
    }
}
