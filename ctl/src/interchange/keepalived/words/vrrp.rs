//! Words of VRRP instances and what belongs to them.

use super::{Context, Word, changed, idle, not, taken};

const SCRIPTS: &str = "lvsmesh runs no scripts: `lvsctl status --watch` prints changes";
const MAIL: &str = "lvsmesh sends no mail";
const TRACKING: &str = "only the lease decides who holds; a node that fails loses it";
const ROUTES: &str =
    "lvsmesh sets no routes or rules: keep them in the system's network configuration";
const GARP: &str = "the holder's gratuitous ARP has a schedule of its own";
const PACE: &str = "say `vips[].garp.interval` for each VIP group of the interface";
const ADVERTS: &str = "lvsmesh announces itself by VRRP but is not governed by it";
const MAC: &str = "a VIP is an address on the interface, with the interface's own MAC";
const HMAC: &str = "no HMAC authentication: the lease's own messages are authenticated";
const SOURCE: &str = "adverts come from the interface's first address";

pub(super) const INSTANCE: &[Word] = &[
    taken("interface", "`vips[].interface`"),
    taken("virtual_router_id", "`vips[].vrrp.vrid`"),
    changed(
        "priority",
        "`vips[].vrrp.priority` is the highest of the pair; the order is `vips[].preference`",
    ),
    taken("advert_int", "`vips[].vrrp.advert_interval`"),
    taken("version", "`vips[].vrrp.version`"),
    taken("virtual_ipaddress", "`vips[].addresses`").listing(),
    taken("virtual_ipaddress_excluded", "`vips[].excluded`").listing(),
    taken("authentication", "`vips[].vrrp.auth`").holding(Context::Authentication),
    not("auth_hmac", HMAC).holding(Context::AuthHmac).newer(),
    idle("state", "nobody holds before it has the lease; the order is `vips[].preference`"),
    taken("nopreempt", "`fleet.failback: never`"),
    changed("preempt", "`fleet.failback` is left at `never`; `immediate` has the VIPs move back"),
    changed("preempt_delay", "`fleet.failback` is left at `never`; `delayed` has the VIPs move back"),
    changed(
        "old_unicast_checksum",
        "`vips[].vrrp.checksum` chooses between the two checksums of version 3",
    ),
    changed("v3_checksum_as_v2", "`vips[].vrrp.checksum: plain`").newer(),
    not("mcast_dst_ip", "adverts go to 224.0.0.18 (RFC 9568 §5.1.1.2)"),
    not("mcast_src_ip", SOURCE),
    changed(
        "unicast_src_ip",
        "adverts come from the interface's first address; a peer that another file names here is a director",
    ),
    idle("track_src_ip", SOURCE),
    taken(
        "unicast_peer",
        "`vips[].vrrp.peers: unicast`; directors are known, others go to `vips[].vrrp.unicast_peers`",
    )
    .listing(),
    idle("unicast_ttl", "adverts go out with TTL 255"),
    idle("unicast_fault_no_peer", "`lvsctl status` says when there is no peer"),
    idle("check_unicast_src", "whoever is no member is a foreign router, listed or not"),
    not("use_vmac", MAC),
    idle("use_vmac_addr", MAC),
    idle("vmac_xmit_base", MAC),
    idle("netlink_notify_msg", MAC).newer(),
    not("use_ipvlan", MAC),
    not("vrf", "no VRF: the interface is named"),
    idle("native_ipv6", "the addresses say which family it is"),
    idle("accept", "the holder answers at the address"),
    not("no_accept", "the holder answers at the address: a virtual service needs it to"),
    not("no_virtual_ipaddress", "a VIP group has addresses").newer(),
    not("virtual_routes", ROUTES).listing(),
    not("virtual_rules", ROUTES).listing(),
    idle("promote_secondaries", "VIPs are /32 addresses: none is another's primary"),
    idle("dont_track_primary", TRACKING),
    idle("linkbeat_use_polling", "how keepalived watches links"),
    idle("lvs_sync_daemon_interface", "`fleet.ipvs.sync` follows whoever holds the VIPs"),
    idle("kernel_rx_buf_size", "sizes of keepalived's own sockets"),
    idle("debug", "keepalived's own log"),
    idle("down_timer_adverts", ADVERTS),
    idle("lower_prio_no_advert", ADVERTS),
    idle("higher_prio_send_advert", ADVERTS),
    idle("skip_check_adv_addr", ADVERTS),
    idle("strict_mode", ADVERTS),
    idle("owner_ignore_adverts", ADVERTS).newer(),
    changed("garp_master_delay", "announcements thin out over five seconds; 0 halves their number"),
    changed("garp_master_repeat", "`vips[].garp.repeat`: twice as many, as keepalived repeats them after garp_master_delay"),
    idle("garp_lower_prio_delay", GARP),
    idle("garp_lower_prio_repeat", GARP),
    taken("garp_master_refresh", "`vips[].garp.refresh`"),
    idle("garp_master_refresh_repeat", GARP),
    idle("garp_extra_if", GARP),
    idle("vmac_garp_intvl", GARP).newer(),
];

pub(super) const AUTHENTICATION: &[Word] = &[
    taken("auth_type", "`vips[].vrrp.auth.pass` for PASS; AH is not supported"),
    taken("auth_pass", "`vips[].vrrp.auth.pass`, its first 8 bytes as keepalived sends them"),
];

pub(super) const AUTH_HMAC: &[Word] = &[
    not("key", HMAC),
    not("active_key", HMAC),
    not("anti_replay", HMAC),
    not("time_window", HMAC),
    not("mode", HMAC),
];

/// In instances and in sync groups.
pub(super) const NOTIFY: &[Word] = &[
    not("notify_master", SCRIPTS),
    not("notify_backup", SCRIPTS),
    not("notify_fault", SCRIPTS),
    not("notify_stop", SCRIPTS),
    not("notify_deleted", SCRIPTS),
    not("notify", SCRIPTS),
    not("notify_master_rx_lower_pri", SCRIPTS),
    idle("notify_priority_changes", SCRIPTS),
    not("smtp_alert", MAIL),
];

/// In instances and in sync groups.
pub(super) const TRACK: &[Word] = &[
    not("track_interface", TRACKING).listing(),
    not("track_script", TRACKING).listing(),
    not("track_file", TRACKING).listing(),
    not("track_process", TRACKING).listing(),
    not("track_bfd", TRACKING).listing(),
];

pub(super) const SYNC_GROUP: &[Word] = &[
    changed("group", "all VIP groups of a fleet move together anyway").listing(),
    idle("global_tracking", TRACKING),
    idle("sync_group_tracking_weight", TRACKING),
];

pub(super) const GARP_GROUP: &[Word] = &[
    not("garp_interval", PACE),
    not("gna_interval", PACE),
    idle("interface", PACE),
    idle("interfaces", PACE).listing(),
];

pub(super) const SCRIPT: &[Word] = &[
    not("script", TRACKING),
    not("interval", TRACKING),
    not("timeout", TRACKING),
    not("weight", TRACKING),
    not("rise", TRACKING),
    not("fall", TRACKING),
    not("user", TRACKING),
    not("init_fail", TRACKING),
];

pub(super) const TRACK_PROCESS: &[Word] = &[
    not("process", TRACKING),
    not("param_match", TRACKING),
    not("weight", TRACKING),
    not("quorum", TRACKING),
    not("quorum_max", TRACKING),
    not("fork_delay", TRACKING),
    not("terminate_delay", TRACKING),
    not("delay", TRACKING),
    not("full_command", TRACKING),
];
