//! Laid out by hand after <linux/ip_vs.h>; little-endian. What Linux makes of it: `tests/suites/config.rs`.

use std::net::Ipv6Addr;

use super::*;
use crate::ipvs::codec::tests::{bytes, recorded, sent};

fn plain() -> SyncDaemon {
    SyncDaemon {
        role: SyncRole::Master,
        interface: "e0".into(),
        sync_id: 5,
        max_length: 0,
        group: None,
        port: 0,
        ttl: 0,
    }
}

fn full() -> SyncDaemon {
    SyncDaemon {
        role: SyncRole::Backup,
        max_length: 1400,
        group: Some([224, 0, 0, 82].into()),
        port: 8849,
        ttl: 3,
        ..plain()
    }
}

/// STATE, MCAST_IFN and SYNC_ID of [`full`].
const IDENTITY: [&str; 3] = ["0800010002000000", "0700020065300000", "0800030005000000"];
/// SYNC_MAXLEN, MCAST_GROUP, MCAST_PORT and MCAST_TTL of [`full`].
const REST: [&str; 4] =
    ["0600040078050000", "08000500e0000052", "0600070091220000", "0500080003000000"];

#[test]
fn timeouts_are_laid_out_and_read_as_the_header_has_them() {
    let timeouts = Timeouts { tcp: 900, tcp_fin: 120, udp: 300 };
    let attributes = encode_timeouts(timeouts);
    let layout = ["0800040084030000", "0800050078000000", "080006002c010000"].concat();
    assert_eq!(sent(&attributes), bytes(&layout));
    assert_eq!(decode_timeouts(&attributes), Ok(timeouts));

    let without_udp = Attributes::from(&attributes.as_bytes()[..16]);
    let missing = Malformed("IPVS_CMD_ATTR_TIMEOUT_UDP is missing".into());
    assert_eq!(decode_timeouts(&without_udp), Err(missing));
}

#[test]
fn a_daemon_is_laid_out_and_read_as_the_header_has_it() {
    let whole = format!("3c000380{}{}", IDENTITY.concat(), REST.concat());
    assert_eq!(sent(&encode_daemon(&full())), bytes(&whole));
    assert_eq!(decode_daemon(&recorded(&whole)), Ok(full()));
}

#[test]
fn what_the_kernel_is_to_choose_is_not_sent() {
    let only = format!("1c000380{}", IDENTITY.concat().replacen("02000000", "01000000", 1));
    assert_eq!(sent(&encode_daemon(&plain())), bytes(&only));
    assert_eq!(decode_daemon(&recorded(&only)), Ok(plain()), "nor by old kernels");
    assert_eq!(sent(&encode_role(SyncRole::Backup)), bytes("0c0003800800010002000000"));
}

#[test]
fn a_group_may_be_of_either_family() {
    let group = Some(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x81).into());
    let six = SyncDaemon { group, ..full() };
    assert_eq!(decode_daemon(&encode_daemon(&six)), Ok(six));
}

#[test]
fn a_daemon_that_is_neither_master_nor_backup_is_refused() {
    let neither = format!("1c000380{}", IDENTITY.concat().replacen("02000000", "03000000", 1));
    let refused = Malformed("IPVS_DAEMON_ATTR_STATE is 3, not 1 or 2".into());
    assert_eq!(decode_daemon(&recorded(&neither)), Err(refused));
}
