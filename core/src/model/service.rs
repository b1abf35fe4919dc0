//! A virtual service.

use std::time::Duration;

/// One virtual service: VIP, port, protocol; or rather one for each address of its VIP group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// 1 to 63 characters of `[a-z0-9-]`, unique among services.
    pub name: String,
    /// Name of the VIP group.
    pub vip: String,
    /// 1 to 65535.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Kernel's name of the scheduler.
    pub scheduler: Scheduler,
    /// How packets reach real servers.
    pub forwarding: Forwarding,
    /// How long a client stays on one real server, in whole seconds up to 31 days (`IP_VS_MAX_TIMEOUT`-ish); zero turns persistence off.
    pub persistence: Duration,
    /// Name of the pool.
    pub pool: String,
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

/// How IPVS sends packets on to real servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Forwarding {
    /// Direct routing: the frame's destination MAC is changed, nothing else; ipvsadm's `-g`.
    #[default]
    Dr,
}

impl Forwarding {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Dr];

    /// The document's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dr => "dr",
        }
    }
}
