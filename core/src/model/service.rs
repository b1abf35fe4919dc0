//! A virtual service.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

/// One virtual service; or rather one for each address of its VIP group, or for a firewall mark one for each of its families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// 1 to 63 characters of `[a-z0-9-]`, unique among services.
    pub name: String,
    /// Name of the VIP group.
    pub vip: String,
    /// Which packets it is for.
    pub listen: Listen,
    /// Kernel's name of the scheduler.
    pub scheduler: Scheduler,
    /// What the scheduler is told; each flag must be one of that scheduler's.
    pub flags: BTreeSet<SchedulerFlag>,
    /// Every datagram is scheduled by itself and no connection is kept (`IP_VS_SVC_F_ONEPACKET`). UDP, and marks, only.
    pub one_packet: bool,
    /// How packets reach real servers that do not say otherwise.
    pub forwarding: Forwarding,
    /// With [`Forwarding::Nat`]: name of the VIP group through which real servers that are nodes send their answers back. It moves with the
    /// others, so that answers always pass the holder. Without one the real servers' own routes must lead there.
    pub gateway: Option<String>,
    /// Whether and how clients stay on one real server.
    pub persistence: Persistence,
    /// Name of the pool.
    pub pool: String,
}

impl Service {
    /// A TCP service with every default.
    #[must_use]
    pub fn new(name: &str, vip: &str, port: u16, pool: &str) -> Self {
        Self {
            name: name.to_owned(),
            vip: vip.to_owned(),
            listen: Listen::Port { protocol: Protocol::Tcp, port },
            scheduler: Scheduler::default(),
            flags: BTreeSet::new(),
            one_packet: false,
            forwarding: Forwarding::default(),
            gateway: None,
            persistence: Persistence::default(),
            pool: pool.to_owned(),
        }
    }
}

/// Which packets a service is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Listen {
    /// Those of one protocol to one port of the VIPs.
    Port {
        /// Transport protocol.
        protocol: Protocol,
        /// 1 to 65535; 0 is every port, and needs persistence: the kernel schedules such a service by persistence templates only.
        port: u16,
    },
    /// Those with a firewall mark.
    Mark {
        /// 1 to 2^32-1, unique in the document: services are told apart by nothing else.
        mark: u32,
        /// What lvsmesh gives the mark to, with nftables on the directors; `None`: the operator's own rules mark.
        marking: Option<Marking>,
    },
}

/// What a director marks: packets to the VIPs of the service's group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Marking {
    /// Transport protocol.
    pub protocol: Protocol,
    /// At least one; in ascending order, apart from one another.
    pub ports: Vec<PortRange>,
}

/// Ports from `first` to `last`, both included; 1 to 65535, `first` not above `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl std::fmt::Display for PortRange {
    /// `80`, `8000-8099`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// Whether and how clients stay on one real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Persistence {
    /// How long after its last connection, in whole seconds up to 31 days (ipvsadm's `MAX_TIMEOUT`); zero turns persistence off.
    pub timeout: Duration,
    /// IPv4 clients whose addresses agree in these bits are one client. Default `255.255.255.255`.
    pub netmask: Ipv4Addr,
    /// IPv6 clients whose addresses agree in this many leading bits are one client, 1 to 128. Default 128.
    pub prefix: u8,
    /// What else than the address tells clients apart.
    pub engine: Option<Engine>,
}

impl Default for Persistence {
    fn default() -> Self {
        Self { timeout: Duration::ZERO, netmask: Ipv4Addr::BROADCAST, prefix: 128, engine: None }
    }
}

/// Persistence engines by the names of their modules (`ip_vs_pe_NAME`), Linux 6.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Engine {
    /// The Call-ID of SIP over UDP.
    Sip,
}

impl Engine {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Sip];

    /// The kernel's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sip => "sip",
        }
    }
}

/// Transport protocols that IPVS balances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// 6.
    Tcp,
    /// 17.
    Udp,
    /// 132.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The document's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// IPVS schedulers by the names of their modules (`ip_vs_NAME`), Linux 6.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the kernel's names say it; ipvsadm(8) explains each")]
pub enum Scheduler {
    Rr,
    Wrr,
    Lc,
    #[default]
    Wlc,
    Lblc,
    Lblcr,
    Dh,
    Sh,
    Mh,
    Sed,
    Nq,
    Fo,
    Ovf,
}

impl Scheduler {
    /// All of them, in ipvsadm's order.
    pub const ALL: [Self; 13] = [
        Self::Rr,
        Self::Wrr,
        Self::Lc,
        Self::Wlc,
        Self::Lblc,
        Self::Lblcr,
        Self::Dh,
        Self::Sh,
        Self::Mh,
        Self::Sed,
        Self::Nq,
        Self::Fo,
        Self::Ovf,
    ];

    /// The kernel's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
            Self::Lblc => "lblc",
            Self::Lblcr => "lblcr",
            Self::Dh => "dh",
            Self::Sh => "sh",
            Self::Mh => "mh",
            Self::Sed => "sed",
            Self::Nq => "nq",
            Self::Fo => "fo",
            Self::Ovf => "ovf",
        }
    }
}

/// What schedulers are told: ipvsadm's names. The kernel has three bits (`IP_VS_SVC_F_SCHED1` to `3`) whose meaning is the scheduler's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SchedulerFlag {
    /// `sh`: when the chosen real server cannot take more, another is looked for.
    ShFallback,
    /// `sh`: the client's port counts too.
    ShPort,
    /// `mh`: as `sh-fallback`.
    MhFallback,
    /// `mh`: as `sh-port`.
    MhPort,
    /// The first bit, of any other scheduler.
    Flag1,
    /// The second bit, of any other scheduler.
    Flag2,
    /// The third bit, of any scheduler.
    Flag3,
}

impl SchedulerFlag {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::ShFallback,
        Self::ShPort,
        Self::MhFallback,
        Self::MhPort,
        Self::Flag1,
        Self::Flag2,
        Self::Flag3,
    ];

    /// ipvsadm's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ShFallback => "sh-fallback",
            Self::ShPort => "sh-port",
            Self::MhFallback => "mh-fallback",
            Self::MhPort => "mh-port",
            Self::Flag1 => "flag-1",
            Self::Flag2 => "flag-2",
            Self::Flag3 => "flag-3",
        }
    }

    /// The kernel's bit: `IP_VS_SVC_F_SCHED1` 0x8, `2` 0x10, `3` 0x20.
    #[must_use]
    pub const fn bit(self) -> u32 {
        match self {
            Self::ShFallback | Self::MhFallback | Self::Flag1 => 0x8,
            Self::ShPort | Self::MhPort | Self::Flag2 => 0x10,
            Self::Flag3 => 0x20,
        }
    }

    /// Whether that is what the scheduler calls the bit.
    #[must_use]
    pub const fn is_of(self, scheduler: Scheduler) -> bool {
        match self {
            Self::ShFallback | Self::ShPort => matches!(scheduler, Scheduler::Sh),
            Self::MhFallback | Self::MhPort => matches!(scheduler, Scheduler::Mh),
            Self::Flag1 | Self::Flag2 => !matches!(scheduler, Scheduler::Sh | Scheduler::Mh),
            Self::Flag3 => true,
        }
    }
}

/// How IPVS sends packets on to real servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Forwarding {
    /// Direct routing: the frame's destination MAC is changed, nothing else; ipvsadm's `-g`.
    #[default]
    Dr,
    /// Destination address and port are translated, and answers must come back the same way; ipvsadm's `-m`.
    Nat,
    /// The packet is put into another one; ipvsadm's `-i`.
    Tunnel(Encapsulation),
}

impl Forwarding {
    /// The document's words.
    pub const WORDS: [&'static str; 3] = ["dr", "nat", "tunnel"];

    /// The document's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dr => "dr",
            Self::Nat => "nat",
            Self::Tunnel(_) => "tunnel",
        }
    }

    /// Whether real servers see the port that the client asked for.
    #[must_use]
    pub const fn keeps_ports(self) -> bool {
        match self {
            Self::Dr | Self::Tunnel(_) => true,
            Self::Nat => false,
        }
    }
}

/// What packets are put into on their way to a real server. IPv4 and IPv6 each go in either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encapsulation {
    /// IP in IP: RFC 2003, RFC 2473.
    #[default]
    Ipip,
    /// Generic UDP Encapsulation, draft-ietf-intarea-gue; Linux 5.2 and later.
    Gue {
        /// UDP port that the real server receives on, 1 to 65535.
        port: u16,
        /// Of the UDP header.
        checksum: TunnelChecksum,
    },
    /// Generic Routing Encapsulation, RFC 2784; Linux 5.3 and later. Remote checksum offload is GUE's only.
    Gre {
        /// Of the GRE header.
        checksum: TunnelChecksum,
    },
}

impl Encapsulation {
    /// The document's words.
    pub const WORDS: [&'static str; 3] = ["ipip", "gue", "gre"];

    /// The document's word, which is ipvsadm's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gue { .. } => "gue",
            Self::Gre { .. } => "gre",
        }
    }
}

/// Checksums of an encapsulation (`IP_VS_TUNNEL_ENCAP_FLAG_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunnelChecksum {
    /// None; the kernel's default.
    #[default]
    None,
    /// Computed by the director.
    Csum,
    /// Left to the real server's network card (remote checksum offload).
    Remcsum,
}

impl TunnelChecksum {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Csum, Self::Remcsum];

    /// The document's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Csum => "csum",
            Self::Remcsum => "remcsum",
        }
    }
}
