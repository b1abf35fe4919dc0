//! From what is and what should be to what to do.
//!
//! *In*: the observed kernel, the node's plan, the record of what is ours. *Out*: operations in the order in which they may be performed,
//! each with its reason, so specific that performing one needs no decision.

pub mod address;
pub mod globals;
pub mod hashed;
pub mod ipvs;
pub mod marks;
pub mod order;
pub mod path;
pub mod restore;
pub mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use globals::WantedGlobals;

use crate::placement::NodePlan;
pub use globals::{Globals, SyncDaemon, SyncRole, Timeout};
pub use order::{Failed, batches, blocks};
pub use table::{Counters, Destination, Method, ServiceKey, ServiceSpec, Table, VirtualService};

/// What was read from one machine's kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The IPVS table; `None` if this kernel has no IPVS, or it was not asked because the node is no director and the owner record
    /// names no service.
    pub table: Option<Table>,
    /// Every IPv4 and IPv6 address, by interface.
    pub addresses: BTreeSet<Address>,
    /// Values of the sysctls that plans name.
    pub sysctls: BTreeMap<Sysctl, i64>,
    /// What belongs to IPVS as a whole; `None` if there is no IPVS or it was not asked.
    pub globals: Option<Globals>,
    /// Tunnels' ends and ways back.
    pub paths: path::Seen,
    /// Firewall marks.
    pub marks: marks::Seen,
}

/// One address on one interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Interface name.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
    /// Prefix length.
    pub prefix: u8,
    /// Whether it carries lvsmesh's protocol mark (`IFA_PROTO`, Linux 5.18 and later).
    pub marked: bool,
}

/// A sysctl below `/proc/sys/`, with slashes: `net/ipv4/conf/all/arp_ignore`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sysctl(pub String);

/// What lvsmesh put into this machine's kernel, as recorded on its disk *before* it was put there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// Services, with all their destinations.
    pub services: BTreeSet<ServiceKey>,
    /// Addresses: interface and address.
    pub addresses: BTreeSet<(String, IpAddr)>,
    /// Sysctls that were changed.
    pub sysctls: BTreeMap<Sysctl, Raised>,
    /// IPVS timeouts that were changed, in seconds.
    pub timeouts: BTreeMap<Timeout, Raised>,
    /// Synchronisation daemons that were started, as they were asked for.
    pub daemons: BTreeSet<SyncDaemon>,
    /// Tunnels' ends and ways back.
    pub paths: path::Ours,
    /// The nftables table of marks.
    pub marks: bool,
}

/// What a sysctl should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Want {
    /// This, or more: settings of which more is safer.
    AtLeast(i64),
    /// This and nothing else.
    Exactly(i64),
}

impl Want {
    /// Whether a value will do.
    #[must_use]
    pub const fn accepts(self, value: i64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::Exactly(wanted) => value == wanted,
        }
    }

    /// What is written where it will not.
    #[must_use]
    pub const fn value(self) -> i64 {
        match self {
            Self::AtLeast(value) | Self::Exactly(value) => value,
        }
    }
}

impl std::fmt::Display for Want {
    /// `at least 1`, `1`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "at least {least}"),
            Self::Exactly(value) => value.fmt(f),
        }
    }
}

/// What was done to a sysctl or a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Raised {
    /// The value found there, to be given back.
    pub before: i64,
    /// The value written. If something else is there when the sysctl is given back, somebody wanted it so, and it stays.
    pub ours: i64,
}

/// One change to the kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// `IPVS_CMD_NEW_SERVICE`.
    AddService(ServiceKey, ServiceSpec),
    /// `IPVS_CMD_SET_SERVICE`.
    SetService(ServiceKey, ServiceSpec),
    /// `IPVS_CMD_DEL_SERVICE`; takes its destinations with it.
    RemoveService(ServiceKey),
    /// `IPVS_CMD_NEW_DEST`.
    AddDestination(ServiceKey, SocketAddr, Destination),
    /// `IPVS_CMD_SET_DEST`.
    SetDestination(ServiceKey, SocketAddr, Destination),
    /// `IPVS_CMD_DEL_DEST`.
    RemoveDestination(ServiceKey, SocketAddr),
    /// `RTM_NEWADDR`, /32 or /128, scope host on `lo`, with our protocol mark.
    AddAddress {
        /// Interface.
        interface: String,
        /// Address.
        address: IpAddr,
    },
    /// `RTM_DELADDR`.
    RemoveAddress {
        /// Interface.
        interface: String,
        /// Address.
        address: IpAddr,
    },
    /// Write a sysctl.
    SetSysctl {
        /// Which.
        name: Sysctl,
        /// To what.
        value: i64,
    },
    /// `IPVS_CMD_SET_CONFIG`, for one of the timeouts.
    SetTimeout {
        /// Which.
        which: Timeout,
        /// To what, in seconds, not 0.
        seconds: u32,
    },
    /// `IPVS_CMD_NEW_DAEMON`.
    StartDaemon(SyncDaemon),
    /// `IPVS_CMD_DEL_DAEMON`.
    StopDaemon(SyncRole),
    /// Tunnels' ends and ways back.
    Path(path::PathAction),
    /// Replace the nftables table of marks, in one transaction.
    SetMarks(marks::Marks),
    /// Delete it.
    ClearMarks,
}

/// One operation: what, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// What to do.
    pub action: Action,
    /// Why, in one line.
    pub reason: String,
}

/// Everything that one round has to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they may be performed.
    pub ops: Vec<Op>,
    /// What must be in the owner record before the first operation (adoptions included): everything that is ours now or will be
    /// on the way. A crash at any point leaves nothing of ours outside the record.
    pub record: Owned,
    /// What the owner record should be once every operation has succeeded. If one failed, `record` stands until the next round.
    pub settled: Owned,
    /// What the plan wants and no operation does, each with the reason, in one line; an address waiting for an unreadable sysctl, say.
    pub withheld: Vec<String>,
    /// Services in the kernel that are neither planned nor ours; left alone.
    pub foreign: BTreeSet<ServiceKey>,
}

/// Which services of a table something is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of them.
    All,
    /// These; there need be none of that key.
    Only(BTreeSet<ServiceKey>),
}

impl Extent {
    /// None of them.
    pub const NONE: Self = Self::Only(BTreeSet::new());

    /// Takes in another's.
    pub fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::All, _) => {}
            (Self::Only(_), Self::All) => *self = Self::All,
            (Self::Only(keys), Self::Only(others)) => keys.extend(others),
        }
    }

    /// Whether it names none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::NONE
    }
}

/// Lists the operations that turn `observed` into what `plan` wants, touching only what is planned or ours.
///
/// What is already right is adopted: it enters the record and no operation names it. What is in the kernel and neither planned nor ours
/// is left alone. Equal states give no operations.
#[must_use]
pub fn diff(observed: &Observed, plan: &NodePlan, owned: &Owned) -> Plan {
    diff_within(&Extent::All, observed, plan, owned)
}

/// The same, of the table only the services in `extent`: the others are known to be as planned and to be recorded if they are ours, so nothing
/// is done about them and nothing said, [`Plan::foreign`] included.
#[must_use]
pub fn diff_within(extent: &Extent, observed: &Observed, plan: &NodePlan, owned: &Owned) -> Plan {
    let source = format!("revision {}", plan.revision);
    let (table, services) = (observed.table.as_ref(), &owned.services);
    order::assemble(
        ipvs::diff_within(extent, table, &plan.table, services, &source),
        address::diff(observed, &plan.real_server, &plan.director, owned, &source),
        globals::diff(observed.globals.as_ref(), &plan.director.globals, owned, &source),
        path::diff(observed, &plan.real_server.paths, &owned.paths, &source),
        marks::diff(&observed.marks, &plan.director.marks, owned.marks, &source),
    )
}

/// Lists the operations that undo everything of ours, for a node that leaves the fleet. Sysctls get their value back, unless somebody
/// has changed it since.
///
/// Unlike [`diff`] it also removes marked addresses from interfaces other than `lo`: nobody holds a lease on a node that has left.
#[must_use]
pub fn teardown(observed: &Observed, owned: &Owned) -> Plan {
    let source = "a node that has left";
    order::assemble(
        ipvs::diff(observed.table.as_ref(), &Table::new(), &owned.services, source),
        address::teardown(observed, owned, source),
        globals::diff(observed.globals.as_ref(), &WantedGlobals::default(), owned, source),
        path::diff(observed, &path::Paths::default(), &owned.paths, source),
        marks::diff(&observed.marks, &marks::Marks::new(), owned.marks, source),
    )
}

impl Action {
    /// The service that it is about, if it is about the table.
    #[must_use]
    pub const fn service(&self) -> Option<&ServiceKey> {
        match self {
            Self::AddService(key, _)
            | Self::SetService(key, _)
            | Self::RemoveService(key)
            | Self::AddDestination(key, ..)
            | Self::SetDestination(key, ..)
            | Self::RemoveDestination(key, _) => Some(key),
            Self::AddAddress { .. }
            | Self::RemoveAddress { .. }
            | Self::SetSysctl { .. }
            | Self::SetTimeout { .. }
            | Self::StartDaemon(_)
            | Self::StopDaemon(_)
            | Self::Path(_)
            | Self::SetMarks(_)
            | Self::ClearMarks => None,
        }
    }

    /// Whether it is about the table: a service or a real server of one.
    #[must_use]
    pub const fn is_about_table(&self) -> bool {
        self.service().is_some()
    }

    /// Whether it goes to IPVS: about the table, or about IPVS as a whole.
    #[must_use]
    pub const fn is_about_ipvs(&self) -> bool {
        match self {
            Self::SetTimeout { .. } | Self::StartDaemon(_) | Self::StopDaemon(_) => true,
            Self::AddService(..)
            | Self::SetService(..)
            | Self::RemoveService(_)
            | Self::AddDestination(..)
            | Self::SetDestination(..)
            | Self::RemoveDestination(..)
            | Self::AddAddress { .. }
            | Self::RemoveAddress { .. }
            | Self::SetSysctl { .. }
            | Self::Path(_)
            | Self::SetMarks(_)
            | Self::ClearMarks => self.is_about_table(),
        }
    }
}

impl std::fmt::Display for Sysctl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Display for Action {
    /// As a line of a log or a preview: `add real server 192.0.2.3:80 to tcp 192.0.2.1:80 (weight 3, route)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AddService(key, spec) => write!(f, "add service {key} ({spec})"),
            Self::SetService(key, spec) => write!(f, "set service {key} to {spec}"),
            Self::RemoveService(key) => write!(f, "remove service {key}"),
            Self::AddDestination(key, address, destination) => {
                write!(f, "add real server {address} to {key} ({destination})")
            }
            Self::SetDestination(key, address, destination) => {
                write!(f, "set real server {address} of {key} to {destination}")
            }
            Self::RemoveDestination(key, address) => {
                write!(f, "remove real server {address} from {key}")
            }
            Self::AddAddress { interface, address } => {
                write!(f, "add address {address} to {interface}")
            }
            Self::RemoveAddress { interface, address } => {
                write!(f, "remove address {address} from {interface}")
            }
            Self::SetSysctl { name, value } => write!(f, "set {name} to {value}"),
            Self::SetTimeout { which, seconds } => {
                write!(f, "set IPVS timeout {} to {seconds} s", which.name())
            }
            Self::StartDaemon(daemon) => write!(f, "start sync daemon {daemon}"),
            Self::StopDaemon(role) => write!(f, "stop sync daemon {role}"),
            Self::Path(action) => action.fmt(f),
            Self::SetMarks(rules) => {
                let rules: Vec<_> = rules.iter().map(ToString::to_string).collect();
                write!(f, "set nftables table inet {}: {}", marks::TABLE, rules.join("; "))
            }
            Self::ClearMarks => write!(f, "remove nftables table inet {}", marks::TABLE),
        }
    }
}
