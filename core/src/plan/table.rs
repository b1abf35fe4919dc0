//! An IPVS table as the kernel has it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::model::{Encapsulation, Protocol, TunnelChecksum};

/// Services with their destinations.
pub type Table = BTreeMap<ServiceKey, VirtualService>;

/// What identifies a virtual service. Ordered as ipvsadm lists: by address first, marks last; see [`crate::plan::ipvs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceKey {
    /// Protocol, address and port.
    Address {
        /// Transport protocol.
        protocol: Protocol,
        /// Virtual address.
        address: IpAddr,
        /// Port; 0 means every port, with persistence only.
        port: u16,
    },
    /// A firewall mark.
    Mark {
        /// Whether the service is for IPv6.
        ipv6: bool,
        /// The mark, not 0.
        mark: u32,
    },
}

impl std::fmt::Display for ServiceKey {
    /// `tcp 192.0.2.1:80`, `fwmark 7`, `fwmark 7 ipv6`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Address { protocol, address, port } => {
                let protocol = match protocol {
                    Protocol::Tcp => "tcp",
                    Protocol::Udp => "udp",
                    Protocol::Sctp => "sctp",
                };
                write!(f, "{protocol} {}", SocketAddr::new(address, port))
            }
            Self::Mark { ipv6: false, mark } => write!(f, "fwmark {mark}"),
            Self::Mark { ipv6: true, mark } => write!(f, "fwmark {mark} ipv6"),
        }
    }
}

/// Settings of a virtual service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceSpec {
    /// Scheduler's name.
    pub scheduler: String,
    /// `IP_VS_SVC_F_*` without `HASHED` (0x2): 0x1 persistent, 0x4 one packet, 0x8, 0x10, 0x20 the scheduler's.
    pub flags: u32,
    /// Persistence timeout in seconds; 0 without persistence.
    pub timeout: u32,
    /// Persistence granularity: an IPv4 mask in host order (`0xffff_ffff`: each client by itself), or an IPv6 prefix length (128).
    pub netmask: u32,
    /// Persistence engine (`sip`).
    pub engine: Option<String>,
}

impl ServiceSpec {
    /// `IP_VS_SVC_F_PERSISTENT`.
    pub const PERSISTENT: u32 = 0x1;
    /// `IP_VS_SVC_F_ONEPACKET`.
    pub const ONE_PACKET: u32 = 0x4;
}

impl std::fmt::Display for ServiceSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.scheduler)?;
        if self.flags & Self::PERSISTENT != 0 {
            write!(f, ", persistent {} s", self.timeout)?;
        }
        if self.flags & !Self::PERSISTENT != 0 {
            write!(f, ", flags {:#x}", self.flags & !Self::PERSISTENT)?;
        }
        if let Some(engine) = &self.engine {
            write!(f, ", engine {engine}")?;
        }
        Ok(())
    }
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualService {
    /// Its settings.
    pub spec: ServiceSpec,
    /// Its real servers as the kernel has them.
    pub destinations: BTreeMap<SocketAddr, Destination>,
}

/// A real server as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// Weight; 0 gets no new connections.
    pub weight: u32,
    /// How packets reach it.
    pub method: Method,
    /// No new connections above this many; 0: no limit.
    pub upper: u32,
    /// New connections again below this many; 0: three quarters of `upper`.
    pub lower: u32,
}

/// `IP_VS_CONN_F_*` forwarding methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// 0: address translation; ipvsadm prints `Masq`.
    Masq,
    /// 1: this machine; `Local`.
    Local,
    /// 2: `Tunnel`.
    Tunnel(Encapsulation),
    /// 3: direct routing; `Route`.
    Route,
    /// 4: `Bypass`.
    Bypass,
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "weight {}, {}", self.weight, self.method)?;
        if (self.upper, self.lower) != (0, 0) {
            write!(f, ", thresholds {} and {}", self.upper, self.lower)?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Masq => "masq",
            Self::Local => "local",
            Self::Tunnel(Encapsulation::Ipip) => "tunnel",
            Self::Tunnel(encapsulation) => return tunnel(f, *encapsulation),
            Self::Route => "route",
            Self::Bypass => "bypass",
        })
    }
}

/// `tunnel gue port 6080`, `tunnel gre csum`.
fn tunnel(f: &mut std::fmt::Formatter<'_>, encapsulation: Encapsulation) -> std::fmt::Result {
    write!(f, "tunnel {}", encapsulation.name())?;
    let checksum = match encapsulation {
        Encapsulation::Ipip => TunnelChecksum::None,
        Encapsulation::Gue { port, checksum } => {
            write!(f, " port {port}")?;
            checksum
        }
        Encapsulation::Gre { checksum } => checksum,
    };
    if checksum == TunnelChecksum::None { Ok(()) } else { write!(f, " {}", checksum.name()) }
}

/// What the kernel counts for a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections in an active state.
    pub active: u32,
    /// Connections in an inactive state.
    pub inactive: u32,
    /// Persistence templates.
    pub persistent: u32,
    /// Connections scheduled since the counters were zeroed.
    pub connections: u64,
}
