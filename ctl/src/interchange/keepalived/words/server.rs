//! Words of virtual and real servers.

use super::{Context, Word, changed, idle, not, taken};

const SCRIPTS: &str = "lvsmesh runs no scripts: `lvsctl status --watch` prints changes";
const MAIL: &str = "lvsmesh sends no mail";
const HTTP: &str = "no HTTP check";
const SNMP: &str = "no SNMP: metrics name services and pools";
const QUORUM: &str = "no quorum: `pools[].min_healthy` keeps the last real servers in";
const SORRY: &str = "sorry servers are not built yet";
const ALPHA: &str = "a real server that was not probed yet counts as up";

pub(super) const VIRTUAL: &[Word] = &[
    taken("lb_algo", "`services[].scheduler`"),
    taken("lvs_sched", "`services[].scheduler`"),
    taken("lb_kind", "`services[].forwarding`"),
    taken("lvs_method", "`services[].forwarding`"),
    taken("protocol", "`services[].protocol`"),
    taken("persistence_timeout", "`services[].persistence`"),
    taken("persistence_granularity", "`services[].persistence_netmask`"),
    taken("persistence_engine", "`services[].persistence_engine`"),
    idle("nat_mask", "no keepalived since 1.1 reads it").old(),
    taken("ops", "`services[].one_packet`"),
    taken("flag-1", "`services[].flags`"),
    taken("flag-2", "`services[].flags`"),
    taken("flag-3", "`services[].flags`"),
    taken("sh-port", "`services[].flags`"),
    taken("sh-fallback", "`services[].flags`"),
    taken("mh-port", "`services[].flags`"),
    taken("mh-fallback", "`services[].flags`"),
    idle("hashed", "the kernel sets this flag itself"),
    taken("ip_family", "the family of a firewall mark's service"),
    changed("ha_suspend", "the leader alone probes, and it holds the VIPs"),
    idle("omega", "an agent that stops runs nothing down"),
    not("quorum", QUORUM),
    not("hysteresis", QUORUM),
    not("quorum_up", SCRIPTS),
    not("quorum_down", SCRIPTS),
    not("sorry_server", SORRY),
    not("sorry_server_inhibit", SORRY),
    not("sorry_server_lvs_method", SORRY),
    taken("weight", "`weight` of real servers that say none"),
    not("virtualhost", HTTP),
    not("smtp_alert", MAIL),
    idle("snmp_name", SNMP),
    taken("real_server", "`pools[].real_servers`").holding(Context::RealServer),
];

pub(super) const REAL: &[Word] = &[
    taken("weight", "`weight`"),
    taken("lvs_method", "`forwarding`"),
    taken("lb_kind", "`forwarding`").newer(),
    taken("uthreshold", "`upper_threshold`"),
    taken("lthreshold", "`lower_threshold`"),
    not("notify_up", SCRIPTS),
    not("notify_down", SCRIPTS),
    not("virtualhost", HTTP),
    not("smtp_alert", MAIL),
    idle("snmp_name", SNMP),
    taken("TCP_CHECK", "`pools[].check`").holding(Context::Tcp),
    not("HTTP_GET", "no HTTP check: the real server is kept without it").holding(Context::Http),
    not("SSL_GET", "no HTTPS check: the real server is kept without it").holding(Context::Http),
    not("SMTP_CHECK", "no SMTP check: the real server is kept without it").holding(Context::Smtp),
    not("DNS_CHECK", "no DNS check: the real server is kept without it").holding(Context::Dns),
    not("MISC_CHECK", "no check by script: the real server is kept without it")
        .holding(Context::Misc),
    not("BFD_CHECK", "no BFD check: the real server is kept without it").holding(Context::BfdCheck),
    not("PING_CHECK", "no ping check: the real server is kept without it").holding(Context::Ping),
    not("UDP_CHECK", "no UDP check: the real server is kept without it").holding(Context::Udp),
    not("FILE_CHECK", "no check by file: the real server is kept without it")
        .holding(Context::FileCheck),
];

/// Defaults for the checks inside.
pub(super) const TIMING: &[Word] = &[
    taken("delay_loop", "`pools[].check.interval`"),
    taken("connect_timeout", "`pools[].check.timeout`"),
    taken("retry", "`pools[].check.retries`"),
    taken("delay_before_retry", "`pools[].check.delay_before_retry`"),
    idle("warmup", "probes of a pool are spread out by themselves"),
    changed("alpha", ALPHA),
    not("inhibit_on_failure", "a real server that fails its check leaves the table"),
];
