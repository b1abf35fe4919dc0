//! Replicated state and one node give that node's plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::model::Vip;
use crate::plan::{Sysctl, Table};

/// What one node's kernel should look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePlan {
    /// The revision it comes from.
    pub revision: u64,
    /// The IPVS table, empty on a node that is no director. A dual-role node has services only of VIP groups that it holds.
    pub table: Table,
    /// The realserver side.
    pub real_server: RealServerSide,
    /// The VIP groups that this node would claim as holder: all of them on a director, none elsewhere.
    pub vips: Vec<Vip>,
}

/// What a node needs in order to answer as a real server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RealServerSide {
    /// VIPs that must be on `lo`.
    pub addresses: BTreeSet<IpAddr>,
    /// Sysctls that must have at least this value, before any address is added (`arp_ignore` 1 and `arp_announce` 2 on `all`).
    pub sysctls: BTreeMap<Sysctl, i64>,
}
