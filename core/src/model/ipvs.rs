//! What concerns IPVS on every director: timeouts, connection synchronisation, sysctls, and whether connections survive a failover.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Settings of IPVS as a whole, the same on every director.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ipvs {
    /// How long connections without traffic are kept.
    pub timeouts: Timeouts,
    /// The connection synchronisation daemon; `None`: none runs.
    pub sync: Option<Sync>,
    /// Sysctls below `net/ipv4/vs/`.
    pub sysctls: Sysctls,
    /// What becomes of open connections when another director takes over.
    pub connections: Connections,
}

/// How long connections without traffic are kept, in whole seconds, 1 s to 31 days; `None`: as the kernel has it (900, 120 and 300 s).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP sessions.
    pub tcp: Option<Duration>,
    /// TCP sessions after a FIN.
    pub tcp_fin: Option<Duration>,
    /// UDP.
    pub udp: Option<Duration>,
}

/// The synchronisation daemon (`ip_vs_sync.c`): the holder multicasts its connections, the other directors keep them.
///
/// A node runs the sender while it holds and the receiver while it does not, never both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    /// Interface on every director: 1 to 15 bytes.
    pub interface: String,
    /// Tells several pairs on one segment apart, 0 to 255. Default 0; a receiver with 0 takes every sender's.
    pub id: u8,
    /// Multicast group. Default 224.0.0.81.
    pub group: IpAddr,
    /// UDP port, 1 to 65535. Default 8848.
    pub port: u16,
    /// Hops, 1 to 255. Default 1.
    pub ttl: u8,
    /// Bytes of a message, 1 to 65507; `None`: as the interface's MTU allows.
    pub maxlen: Option<u16>,
}

impl Sync {
    /// The kernel's default group (`ip_vs_sync.c`, `IP_VS_SYNC_GROUP`).
    pub const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 81));
    /// The kernel's default port (`IP_VS_SYNC_PORT`).
    pub const PORT: u16 = 8848;
}

/// Which IPVS sysctls are set, and to what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sysctls {
    /// Where the values come from that are not named.
    pub profile: SysctlProfile,
    /// Values by name, each one of [`SETTINGS`].
    pub values: BTreeMap<&'static str, i64>,
}

/// Where the values come from that are not named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SysctlProfile {
    /// The kernel keeps what it has.
    #[default]
    Kernel,
    /// [`Setting::recommended`].
    Recommended,
}

impl SysctlProfile {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Kernel, Self::Recommended];

    /// The document's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Recommended => "recommended",
        }
    }
}

/// What becomes of open connections when another director takes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Connections {
    /// They break, unless scheduler and settings happen to keep them.
    #[default]
    Drop,
    /// They go on: with [`Ipvs::sync`] by synchronisation, otherwise by schedulers that choose the same real server on every director, which are
    /// then the default (`mh` with `mh-port`), and `sloppy_tcp`.
    Keep,
}

impl Connections {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Drop, Self::Keep];

    /// The document's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Keep => "keep",
        }
    }
}

/// A sysctl below `net/ipv4/vs/` of Linux 6.1 (`ip_vs_ctl.c`, `vs_vars`; `ipvs-sysctl.rst`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The file's name; for the two numbers of `sync_threshold`, `sync_threshold` and `sync_period`.
    pub name: &'static str,
    /// Lowest value.
    pub least: i64,
    /// Highest value.
    pub most: i64,
    /// What the kernel starts with.
    pub default: i64,
    /// What the recommended profile sets, if anything.
    pub recommended: Option<i64>,
    /// Why that, or when to set it.
    pub reason: &'static str,
}

const fn setting(
    name: &'static str,
    (least, most): (i64, i64),
    default: i64,
    recommended: Option<i64>,
    reason: &'static str,
) -> Setting {
    Setting { name, least, most, default, recommended, reason }
}

/// A signed number of the kernel's.
const INT: (i64, i64) = (0, i32::MAX as i64);
const SWITCH: (i64, i64) = (0, 1);
const MODE: (i64, i64) = (0, 3);

/// All of them, by name.
#[rustfmt::skip]
pub const SETTINGS: [Setting; 28] = [
    setting("am_droprate",               INT,            10,   None,    "of the drop_packet defence in mode 3: one packet of so many"),
    setting("amemthresh",                INT,            1024, None,    "pages of free memory below which the automatic defences start"),
    setting("backup_only",               SWITCH,         0,    Some(1), "a director that receives synchronisation schedules nothing: on a node with both roles this keeps packets from going in circles"),
    setting("cache_bypass",              SWITCH,         0,    None,    "only for transparent caches"),
    setting("conn_reuse_mode",           (0, 7),         1,    None,    "1 lets a client that uses a port again be scheduled again"),
    setting("conntrack",                 SWITCH,         0,    None,    "1 only where netfilter must see the connections, as for masquerading them: it costs an entry each"),
    setting("drop_entry",                MODE,           0,    None,    "defence against floods; 1 acts when memory is short"),
    setting("drop_packet",               MODE,           0,    None,    "defence against floods; 1 acts when memory is short"),
    setting("expire_nodest_conn",        SWITCH,         0,    Some(1), "a client of a removed real server is reset at its next packet instead of waiting for an answer that never comes"),
    setting("expire_quiescent_template", SWITCH,         0,    Some(1), "persistent clients leave a real server of weight 0, so that a drain ends"),
    setting("ignore_tunneled",           SWITCH,         0,    Some(1), "a director that is also a real server of a tunnel does not schedule what came out of it once more"),
    setting("nat_icmp_send",             SWITCH,         0,    None,    "1 tells a real server behind translation that nobody knows its packet"),
    setting("pmtu_disc",                 SWITCH,         1,    None,    "1 tells clients when a packet does not fit into the tunnel"),
    setting("run_estimation",            SWITCH,         1,    None,    "0 saves time with tens of thousands of real servers; rates then read 0"),
    setting("schedule_icmp",             SWITCH,         0,    None,    "1 schedules ICMP that belongs to no connection"),
    setting("secure_tcp",                MODE,           0,    None,    "defence against floods: shorter timeouts"),
    setting("sloppy_sctp",               SWITCH,         0,    None,    "as sloppy_tcp"),
    setting("sloppy_tcp",                SWITCH,         0,    None,    "1 takes connections that began elsewhere: `connections: keep` sets it"),
    setting("snat_reroute",              SWITCH,         1,    None,    "answers of translated connections are routed by their new source"),
    setting("sync_period",               INT,            50,   None,    "the second number of sync_threshold: after how many packets a connection is sent again"),
    setting("sync_persist_mode",         SWITCH,         0,    None,    "1 sends persistence templates only"),
    setting("sync_ports",                (1, 64),        1,    None,    "threads and ports of the daemon; a power of two, equal on all directors"),
    setting("sync_qlen_max",             INT,            0,    None,    "messages that may wait; 0 is one in 32 of the memory's pages"),
    setting("sync_refresh_period",       INT,            0,    None,    "seconds after which an unchanged connection is sent again; 0: by packets only"),
    setting("sync_retries",              MODE,           0,    None,    "how often a new connection is sent again before its refresh is due"),
    setting("sync_sock_size",            INT,            0,    None,    "bytes of the daemon's socket buffer; 0: the system's"),
    setting("sync_threshold",            INT,            3,    None,    "after how many packets a connection is sent first; 1 also saves the youngest"),
    setting("sync_version",              SWITCH,         1,    None,    "0 only beside kernels before 2.6.39"),
];

/// The setting of that name.
#[must_use]
pub fn setting_named(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

impl Sysctls {
    /// What is set: the named values, and with the recommended profile whatever it sets beside them.
    #[must_use]
    pub fn effective(&self) -> BTreeMap<&'static str, i64> {
        let profile = match self.profile {
            SysctlProfile::Kernel => None,
            SysctlProfile::Recommended => Some(
                SETTINGS.iter().filter_map(|setting| Some((setting.name, setting.recommended?))),
            ),
        };
        profile
            .into_iter()
            .flatten()
            .chain(self.values.iter().map(|(name, value)| (*name, *value)))
            .collect()
    }
}
