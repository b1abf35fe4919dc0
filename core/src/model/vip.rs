//! A VIP group: addresses that move together.

use std::net::IpAddr;
use std::time::Duration;

/// Addresses with one VRID, one interface and one holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// 1 to 63 characters of `[a-z0-9-]`, unique among VIP groups.
    pub name: String,
    /// All of them, first those that adverts name: at least one of these, at most 20 (an advert that keepalived reads). No address is in two
    /// groups. IPv4 and IPv6 in any mixture. Where adverts name IPv6 addresses alone the first may be link-local: it is announced as RFC
    /// 9568 §5.2.9 asks, and [serves](Self::served) nothing.
    pub addresses: Vec<IpAddr>,
    /// How many of the last addresses adverts do not name, at most 200: the document's `excluded`, keepalived's
    /// `virtual_ipaddress_excluded`.
    pub excluded: usize,
    /// The interface that carries them on a director: 1 to 15 bytes.
    pub interface: String,
    /// How a holder makes the addresses answer.
    pub attach: Attach,
    /// Names of directors, most preferred first; directors that are not listed come after, by id.
    pub preference: Vec<String>,
    /// How gratuitous ARP and unsolicited neighbour advertisements are paced.
    pub garp: Garp,
    /// How the group is announced.
    pub vrrp: Vrrp,
    /// Machines on the interface's link that answer ARP or neighbour solicitations as long as this node is connected to its clients: at most 8,
    /// none of them a VIP. Who holds without a quorum has to hear from one of them. Empty: the interface's default gateways, and where
    /// there are none, carrier alone.
    pub arbiters: Vec<IpAddr>,
}

impl Vip {
    /// The addresses that services listen on: all but a link-local one, which on each link is another machine's.
    pub fn served(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().copied().filter(|address| match address {
            IpAddr::V4(_) => true,
            IpAddr::V6(address) => !address.is_unicast_link_local(),
        })
    }

    /// The addresses that adverts may name.
    #[must_use]
    pub fn advertised(&self) -> &[IpAddr] {
        let named = self.addresses.len().saturating_sub(self.excluded);
        self.addresses.get(..named).unwrap_or_default()
    }

    /// Whether adverts have no IPv4 address to name. VRRP then announces the group over IPv6, in which a VRID is another than the same number
    /// over IPv4.
    #[must_use]
    pub fn is_ipv6_only(&self) -> bool {
        !self.advertised().is_empty() && self.advertised().iter().all(IpAddr::is_ipv6)
    }
}

/// Announcements that a holder makes of where its addresses are: gratuitous ARP (RFC 5227 §3) and unsolicited neighbour advertisements
/// (RFC 4861 §7.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Garp {
    /// How often each address is announced after a claim, 1 to 100: the first nine within five seconds, closest together at first, the rest a
    /// second apart.
    pub repeat: u8,
    /// And from then on, each so long after the one before; zero: no more. 1 s to 24 h, default 30 s.
    pub refresh: Duration,
    /// At least so much between two frames on the group's interface, whichever group they are of: up to 1 s, default none. For switches that
    /// limit them.
    pub interval: Duration,
}

impl Default for Garp {
    fn default() -> Self {
        Self { repeat: 9, refresh: Duration::from_secs(30), interval: Duration::ZERO }
    }
}

/// How a holder makes its addresses answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attach {
    /// The address is added to the interface on claim and removed on release; the kernel answers ARP and neighbour solicitations for it.
    Address,
    /// The address is on every director's `lo` all the time, where the kernel answers for it neither ARP nor neighbour solicitations; the holder's
    /// agent answers them, each under the lease. A link-local address is on no `lo`: it is answered and announced, and serves as a gateway.
    #[default]
    Responder,
}

impl Attach {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Responder, Self::Address];

    /// The document's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Responder => "responder",
        }
    }
}

/// VRRP announcement of a group (RFC 9568; version 2 as in RFC 3768).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vrrp {
    /// Virtual router id, 1 to 255, unique per interface and IP version.
    pub vrid: u8,
    /// Default 2, as keepalived's. A group of IPv6 addresses alone has to say 3.
    pub version: VrrpVersion,
    /// Between adverts. Version 2: 1 to 255 whole seconds. Version 3: 10 ms to 40.95 s in steps of 10 ms. Default 1 s.
    pub advert_interval: Duration,
    /// One number for the whole fleet, 1 to 254, default 200: a foreign backup must not see it drop when the holder changes.
    pub priority: u8,
    /// Version 2 only.
    pub auth: Option<Auth>,
    /// Version 3 over IPv4 only: whether the checksum covers a pseudo-header.
    pub checksum: Checksum,
    /// What a holder does beside a foreign master.
    pub coexist: Coexist,
    /// Where adverts go.
    pub peers: Peers,
}

/// Where a group's adverts go.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peers {
    /// To every router on the segment.
    #[default]
    Multicast,
    /// To each director of the fleet but the sender, by its addresses of the adverts' family, and to these: routers that are no members, at
    /// most 32, none of them twice and none a VIP.
    Unicast(Vec<IpAddr>),
}

impl Peers {
    /// The document's words.
    pub const WORDS: [&'static str; 2] = ["multicast", "unicast"];

    /// The document's word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Multicast => Self::WORDS[0],
            Self::Unicast(_) => Self::WORDS[1],
        }
    }

    /// The routers that are named, and no members.
    #[must_use]
    pub fn listed(&self) -> &[IpAddr] {
        match self {
            Self::Multicast => &[],
            Self::Unicast(listed) => listed,
        }
    }
}

/// VRRP version on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VrrpVersion {
    /// RFC 3768.
    #[default]
    V2,
    /// RFC 9568.
    V3,
}

impl VrrpVersion {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }
}

/// VRRPv2 authentication (RFC 2338 §5.3.6). Not a protection: the text is on the wire in clear.
#[derive(Clone, PartialEq, Eq)]
pub enum Auth {
    /// Simple text password, 1 to 8 bytes.
    Pass(String),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pass(…)")
    }
}

/// What a version 3 checksum over IPv4 covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Checksum {
    /// The message and an IPv4 pseudo-header: keepalived's and FRR's default.
    #[default]
    Pseudo,
    /// The message alone: what Cisco and Juniper send.
    Plain,
}

impl Checksum {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Pseudo, Self::Plain];

    /// The document's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pseudo => "pseudo",
            Self::Plain => "plain",
        }
    }
}

/// What a holder does beside a foreign master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Coexist {
    /// It keeps its lease and stays silent while a foreign master is heard that was there before it claimed, or that wins by RFC 9568's
    /// order.
    #[default]
    Yield,
    /// As that, but one that loses by RFC 9568's order is made to give up: by adverts at first, and the VIP is claimed when it is silent and
    /// nobody answers for the address.
    Contest,
}

impl Coexist {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Yield, Self::Contest];

    /// The document's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Yield => "yield",
            Self::Contest => "contest",
        }
    }
}
