//! The keys of every object of the document, in the order in which they are written.

/// One kind of map.
#[derive(Debug, PartialEq, Eq)]
pub struct Object {
    /// Its message in `lvsmesh/v1/desired.proto`.
    pub name: &'static str,
    /// Its keys: the message's fields in their order, without unit suffix.
    pub keys: &'static [&'static str],
    /// Keys that are refused by name until what they ask for is built.
    pub planned: &'static [&'static str],
}

/// The document.
pub const DOCUMENT: Object =
    Object { name: "Document", keys: &["fleet", "vips", "pools", "services"], planned: &[] };

/// `fleet`.
pub const FLEET: Object = Object {
    name: "Fleet",
    keys: &["name", "no_quorum", "failback", "ipvs", "failback_delay"],
    planned: &["notifications"],
};

/// `fleet.ipvs`.
pub const IPVS: Object =
    Object { name: "Ipvs", keys: &["timeouts", "sync", "sysctls", "connections"], planned: &[] };

/// `fleet.ipvs.timeouts`.
pub const TIMEOUTS: Object =
    Object { name: "IpvsTimeouts", keys: &["tcp", "tcp_fin", "udp"], planned: &[] };

/// `fleet.ipvs.sync`.
pub const SYNC: Object = Object {
    name: "IpvsSync",
    keys: &["interface", "id", "group", "port", "ttl", "maxlen"],
    planned: &[],
};

/// `fleet.ipvs.sysctls`.
pub const SYSCTLS: Object =
    Object { name: "IpvsSysctls", keys: &["profile", "values"], planned: &[] };

/// One of `fleet.ipvs.sysctls.values`.
pub const SYSCTL: Object = Object { name: "IpvsSysctl", keys: &["name", "value"], planned: &[] };

/// One of `vips`.
pub const VIP: Object = Object {
    name: "Vip",
    keys: &[
        "name",
        "addresses",
        "excluded",
        "interface",
        "attach",
        "preference",
        "garp",
        "vrrp",
        "arbiters",
    ],
    planned: &[],
};

/// `garp` of a VIP group.
pub const GARP: Object =
    Object { name: "Garp", keys: &["repeat", "refresh", "interval"], planned: &[] };

/// `vrrp` of a VIP group.
pub const VRRP: Object = Object {
    name: "Vrrp",
    keys: &[
        "vrid",
        "version",
        "advert_interval",
        "priority",
        "auth",
        "checksum",
        "coexist",
        "peers",
        "unicast_peers",
    ],
    planned: &["vmac"],
};

/// `vrrp.auth`.
pub const AUTH: Object = Object { name: "Auth", keys: &["pass"], planned: &["hmac"] };

/// One of `pools`.
pub const POOL: Object = Object {
    name: "Pool",
    keys: &["name", "real_servers", "discovery", "check", "min_healthy"],
    planned: &["quorum", "sorry"],
};

/// One of `real_servers`.
pub const REAL_SERVER: Object = Object {
    name: "RealServer",
    keys: &[
        "address",
        "port",
        "weight",
        "upper_threshold",
        "lower_threshold",
        "forwarding",
        "tunnel",
    ],
    planned: &[],
};

/// `tunnel` of a service or a real server.
pub const TUNNEL: Object =
    Object { name: "Tunnel", keys: &["kind", "port", "checksum"], planned: &[] };

/// `discovery` of a pool.
pub const DISCOVERY: Object = Object { name: "Discovery", keys: &["file", "dns"], planned: &[] };

/// `discovery.file`.
pub const FILE_SOURCE: Object =
    Object { name: "FileSource", keys: &["path", "interval"], planned: &[] };

/// `discovery.dns`.
pub const DNS_SOURCE: Object = Object {
    name: "DnsSource",
    keys: &["name", "record", "port", "weight", "servers", "interval"],
    planned: &[],
};

/// `check` of a pool.
pub const CHECK: Object = Object {
    name: "Check",
    keys: &["kind", "port", "interval", "timeout", "retries", "delay_before_retry"],
    planned: &[],
};

/// One of `services`.
pub const SERVICE: Object = Object {
    name: "Service",
    keys: &[
        "name",
        "vip",
        "port",
        "protocol",
        "fwmark",
        "ports",
        "scheduler",
        "flags",
        "one_packet",
        "forwarding",
        "tunnel",
        "gateway",
        "persistence",
        "persistence_netmask",
        "persistence_prefix",
        "persistence_engine",
        "pool",
    ],
    planned: &[],
};

/// All of them.
pub const ALL: [&Object; 19] = [
    &DOCUMENT,
    &FLEET,
    &IPVS,
    &TIMEOUTS,
    &SYNC,
    &SYSCTLS,
    &SYSCTL,
    &VIP,
    &GARP,
    &VRRP,
    &AUTH,
    &POOL,
    &REAL_SERVER,
    &TUNNEL,
    &DISCOVERY,
    &FILE_SOURCE,
    &DNS_SOURCE,
    &CHECK,
    &SERVICE,
];
