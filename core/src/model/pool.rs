//! Real servers behind services.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Forwarding;

/// Real servers behind one or more services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// 1 to 63 characters of `[a-z0-9-]`, unique among pools.
    pub name: String,
    /// Listed, or found.
    pub source: PoolSource,
    /// How the leader probes each real server; without one nothing is probed and every real server counts as up.
    pub check: Option<Check>,
    /// Checks never take the pool below this many real servers: the last ones stay although they fail. Default 0.
    pub min_healthy: u32,
}

/// Where a pool's real servers come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolSource {
    /// Listed in the document.
    Listed(Vec<RealServer>),
    /// Found by the leader.
    Discovery(Discovery),
}

/// One real server of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealServer {
    /// Where it answers. If it is a node's address, that node must confirm its side before it gets traffic.
    pub address: IpAddr,
    /// 1 to 65535. Only translation changes ports: otherwise it must be the service's, which is 0 for a service of every port.
    pub port: u16,
    /// 0 to 2^31-1; 0 gets no new connections. Default 1.
    pub weight: u32,
    /// No new connections above this many; 0, the default: no limit.
    pub upper_threshold: u32,
    /// New connections again below this many, not above `upper_threshold`; 0, the default: below three quarters of that.
    pub lower_threshold: u32,
    /// How packets reach it, if not as the service says.
    pub forwarding: Option<Forwarding>,
}

impl RealServer {
    /// A real server with every default beside its weight.
    #[must_use]
    pub const fn new(address: IpAddr, port: u16, weight: u32) -> Self {
        Self { address, port, weight, upper_threshold: 0, lower_threshold: 0, forwarding: None }
    }

    /// Address and port.
    #[must_use]
    pub const fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// How real servers are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// A watched file in the form of Prometheus' `file_sd`.
    File(FileSource),
    /// A DNS name that is asked at an interval.
    Dns(DnsSource),
}

/// A watched file on the leader's machine: JSON or YAML, `[{"targets": ["10.0.0.1:80"], "labels": {"weight": "3"}}]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSource {
    /// Absolute path.
    pub path: String,
    /// The file is read again at least this often, 100 ms to 1 h; default 5 s.
    pub interval: Duration,
}

/// A DNS name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSource {
    /// Name to ask for; a trailing dot is implied.
    pub name: String,
    /// What to ask for.
    pub record: DnsRecord,
    /// For A and AAAA, which carry no port: 1 to 65535.
    pub port: Option<u16>,
    /// Weight of each real server found by A or AAAA; SRV carries its own. Default 1.
    pub weight: u32,
    /// Servers to ask; empty: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// Asked this often, 100 ms to 1 h; default 5 s.
    pub interval: Duration,
}

/// DNS record types that name real servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DnsRecord {
    /// RFC 2782: targets with ports and weights.
    Srv,
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

impl DnsRecord {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Srv, Self::A, Self::Aaaa];

    /// The document's word: the record type in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Srv => "srv",
            Self::A => "a",
            Self::Aaaa => "aaaa",
        }
    }
}

/// How a real server is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is done.
    pub kind: CheckKind,
    /// Port to probe; the real server's own if none.
    pub port: Option<u16>,
    /// Between probes of a real server that is well, 100 ms to 1 h; keepalived's `delay_loop`. Default 6 s.
    pub interval: Duration,
    /// A probe that takes longer has failed, 10 ms to 1 min. Default 3 s.
    pub timeout: Duration,
    /// Failed probes, after the first, before it counts as down: 0 to 100; keepalived's `retry`. Default 3.
    pub retries: u32,
    /// Between a failed probe and the next try, 10 ms to 1 h. Default 3 s.
    pub delay_before_retry: Duration,
}

/// What a probe does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CheckKind {
    /// A TCP connection is opened and closed.
    Tcp,
}

impl CheckKind {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Tcp];

    /// The document's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
        }
    }
}
