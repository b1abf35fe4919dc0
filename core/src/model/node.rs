//! One machine of the fleet.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// A node's Raft id: given by the leader, at least 1, never used again after the node is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A node's name: 1 to 63 characters of `[a-z0-9-]`, unique in the fleet.
pub type NodeName = String;

/// What a node does. A node may have both roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// May hold VIPs and forwards with IPVS.
    Director,
    /// Answers for VIPs behind a director.
    RealServer,
}

/// One node of the fleet, as replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Raft id.
    pub id: NodeId,
    /// Name, from the node's `agent.toml` and its certificate.
    pub name: NodeName,
    /// At least one.
    pub roles: BTreeSet<Role>,
    /// The addresses by which pools name this node; the first is the one that it advertises.
    pub addresses: Vec<IpAddr>,
    /// Where its gRPC server listens.
    pub grpc: SocketAddr,
    /// Where its lease socket listens.
    pub lease: SocketAddr,
}

impl Member {
    /// Whether the node may hold VIPs.
    #[must_use]
    pub fn is_director(&self) -> bool {
        self.roles.contains(&Role::Director)
    }

    /// Whether the node may be a real server.
    #[must_use]
    pub fn is_real_server(&self) -> bool {
        self.roles.contains(&Role::RealServer)
    }
}
