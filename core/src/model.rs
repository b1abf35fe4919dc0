//! The nouns of the desired state, as validated values: a [`Document`] that exists satisfies every rule that can be checked without
//! knowing the fleet.

pub mod ipvs;
mod node;
mod pool;
mod service;
pub mod text;
mod vip;

use std::time::Duration;

pub use ipvs::{Connections, Ipvs, Sync, SysctlProfile, Sysctls, Timeouts};
pub use node::{Member, NodeId, NodeName, Role};
pub use pool::{
    Check, CheckKind, Discovery, DnsRecord, DnsSource, FileSource, Pool, PoolSource, RealServer,
};
pub use service::{
    Encapsulation, Engine, Forwarding, Listen, Marking, Persistence, PortRange, Protocol,
    Scheduler, SchedulerFlag, Service, TunnelChecksum,
};
pub use vip::{Attach, Auth, Checksum, Coexist, Garp, Peers, Vip, Vrrp, VrrpVersion};

/// Everything that operators may ask of a fleet: one document, one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// What concerns the fleet as a whole.
    pub fleet: Fleet,
    /// VIP groups, in the document's order.
    pub vips: Vec<Vip>,
    /// Pools of real servers, in the document's order.
    pub pools: Vec<Pool>,
    /// Virtual services, in the document's order.
    pub services: Vec<Service>,
}

impl Document {
    /// The VIP group of that name.
    #[must_use]
    pub fn vip(&self, name: &str) -> Option<&Vip> {
        self.vips.iter().find(|vip| vip.name == name)
    }

    /// The pool of that name.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == name)
    }
}

/// Policies of the fleet as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Empty until the first document is applied; then it must be the name given to `lvs-agent init`.
    pub name: String,
    /// What a holder does without a quorum.
    pub no_quorum: NoQuorum,
    /// Whether a VIP group moves back to a preferred director that returns.
    pub failback: Failback,
    /// What concerns IPVS on every director.
    pub ipvs: Ipvs,
}

/// What happens to VIPs when no majority of voters can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoQuorum {
    /// A VIP is held only under a lease: without a quorum nobody answers for it.
    #[default]
    Strict,
    /// A holder that loses the quorum goes on while nobody contests it.
    Sticky,
    /// As that, and a director without a quorum takes a VIP that nobody answers for.
    VrrpFallback,
    /// As `VrrpFallback` while at most two directors vote, otherwise as `Strict`.
    Auto,
}

impl NoQuorum {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Strict, Self::Sticky, Self::VrrpFallback, Self::Auto];

    /// The document's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Sticky => "sticky",
            Self::VrrpFallback => "vrrp-fallback",
            Self::Auto => "auto",
        }
    }
}

/// Whether a VIP group moves back to a preferred director that returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failback {
    /// It stays where it is until that holder fails or an operator moves it.
    #[default]
    Never,
    /// It moves back once a preferred director has been fit without interruption for this long, and has the holder's connections if a
    /// synchronisation daemon runs.
    Delayed(Duration),
    /// It moves back as soon as a preferred director is fit.
    Immediate,
}

impl Failback {
    /// The document's words for them.
    pub const WORDS: [&'static str; 3] = ["never", "delayed", "immediate"];

    /// What `delayed` waits for unless the document says otherwise: longer than a restart, and than the second or two after which the
    /// synchronisation daemon has sent what is new.
    pub const DELAY: Duration = Duration::from_secs(60);

    /// The document's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => Self::WORDS[0],
            Self::Delayed(_) => Self::WORDS[1],
            Self::Immediate => Self::WORDS[2],
        }
    }

    /// How long a preferred director must have been fit, where the policy has such a span.
    #[must_use]
    pub const fn delay(self) -> Option<Duration> {
        match self {
            Self::Delayed(delay) => Some(delay),
            Self::Never | Self::Immediate => None,
        }
    }
}
