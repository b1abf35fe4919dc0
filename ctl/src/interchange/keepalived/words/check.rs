//! Words of checks.

use super::{Context, Word, idle, not, taken};

const OWN: &str = "belongs to a check that lvsmesh does not have";
const SOURCE: &str = "probes go out as the system routes them";

/// Where a TCP check connects to.
pub(super) const CONNECTION: &[Word] = &[
    taken("connect_port", "`pools[].check.port`"),
    not("connect_ip", "a real server is probed at its own address"),
    not("bindto", SOURCE),
    not("bind_to", SOURCE).old(),
    not("bind_if", SOURCE),
    not("bind_port", SOURCE),
    not("fwmark", SOURCE),
];

/// When a TCP check is done.
pub(super) const TIMING: &[Word] = &[
    taken("delay_loop", "`pools[].check.interval`"),
    taken("connect_timeout", "`pools[].check.timeout`"),
    taken("retry", "`pools[].check.retries`"),
    taken("delay_before_retry", "`pools[].check.delay_before_retry`"),
    idle("warmup", "probes of a pool are spread out by themselves"),
    not("alpha", "a real server that was not probed yet counts as up"),
    idle("log_all_failures", "`lvsctl status` says why a real server is down"),
];

pub(super) const TCP: &[Word] = &[taken(
    "nb_get_retry",
    "`pools[].check.retries`; keepalived 2.2.7 does not know the word here and retries once",
)
.old()];

/// Words that every other check shares.
pub(super) const FOREIGN: &[Word] = &[
    not("connect_ip", OWN),
    not("connect_port", OWN),
    not("bindto", OWN),
    not("bind_if", OWN),
    not("bind_port", OWN),
    not("fwmark", OWN),
    not("delay_loop", OWN),
    not("connect_timeout", OWN),
    not("retry", OWN),
    not("delay_before_retry", OWN),
    not("warmup", OWN),
    not("alpha", OWN),
    not("log_all_failures", OWN),
];

pub(super) const HTTP: &[Word] = &[
    not("url", OWN).holding(Context::Url),
    not("nb_get_retry", OWN),
    not("http_protocol", OWN),
    not("fast_recovery", OWN),
    not("virtualhost", OWN),
    not("enable_sni", OWN),
    not("sni_name", OWN).newer(),
    not("tls_compliant", OWN).newer(),
];

pub(super) const URL: &[Word] = &[
    not("path", OWN),
    not("digest", OWN),
    not("status_code", OWN),
    not("virtualhost", OWN),
    not("regex", OWN),
    not("regex_no_match", OWN),
    not("regex_options", OWN),
    not("regex_stack", OWN),
    not("regex_min_offset", OWN),
    not("regex_max_offset", OWN),
    not("tls_compliant", OWN).newer(),
];

pub(super) const SMTP: &[Word] =
    &[not("helo_name", OWN), not("host", OWN).holding(Context::SmtpHost)];

pub(super) const DNS: &[Word] = &[not("type", OWN), not("name", OWN)];

pub(super) const MISC: &[Word] =
    &[not("misc_path", OWN), not("misc_timeout", OWN), not("misc_dynamic", OWN), not("user", OWN)];

pub(super) const BFD: &[Word] = &[not("name", OWN), not("alpha", OWN)];

pub(super) const UDP: &[Word] = &[
    not("payload", OWN),
    not("require_reply", OWN),
    not("min_reply_length", OWN),
    not("max_reply_length", OWN),
];

pub(super) const FILE: &[Word] = &[not("track_file", OWN), not("weight", OWN), not("dynamic", OWN)];

pub(super) const SSL: &[Word] =
    &[not("password", OWN), not("ca", OWN), not("certificate", OWN), not("key", OWN)];
