//! Every range that a value of the document must keep, each in one place.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Characters of a name.
pub const NAME: RangeInclusive<usize> = 1..=63;
/// How long a preferred director must have been fit before `failback: delayed` moves the VIPs there. It is looked at twice a second.
pub const FAILBACK_DELAY: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
/// Addresses of a VIP group that adverts name: keepalived reads no more from one (`VRRP_MAX_VIP`).
pub const VIP_ADDRESSES: RangeInclusive<usize> = 1..=20;
/// Addresses of a VIP group that adverts do not name: each is refreshed twice a second.
pub const EXCLUDED: RangeInclusive<usize> = 0..=200;
/// Announcements of an address after a claim.
pub const GARP_REPEAT: RangeInclusive<u64> = 1..=100;
/// Between announcements later on, unless there are none.
pub const GARP_REFRESH: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
/// Between two announcements on one interface.
pub const GARP_INTERVAL: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(1);
/// Routers outside the fleet that are sent adverts by unicast.
pub const UNICAST_PEERS: RangeInclusive<usize> = 0..=32;
/// Machines that vouch for a holder without a quorum.
pub const ARBITERS: RangeInclusive<usize> = 0..=8;
/// VRRP priorities of a fleet in which a node may hold without a quorum: it announces itself below the holder under a lease.
pub const PRIORITY_ABOVE_FALLBACK: RangeInclusive<u64> = 2..=254;
/// Bytes of an interface name (`IFNAMSIZ` less the terminator).
pub const INTERFACE: RangeInclusive<usize> = 1..=15;
/// Virtual router ids (RFC 9568 §5.2.3).
pub const VRID: RangeInclusive<u64> = 1..=255;
/// VRRP priorities of a holder: 0 announces the end of one, 255 an owner of the address (RFC 9568 §5.2.4).
pub const PRIORITY: RangeInclusive<u64> = 1..=254;
/// VRRP versions.
pub const VRRP_VERSION: RangeInclusive<u64> = 2..=3;
/// Bytes of a VRRP password (RFC 2338 §5.3.10).
pub const PASS: RangeInclusive<usize> = 1..=8;
/// Advert interval of version 2, in steps of [`ADVERT_STEP_V2`] (RFC 3768 §5.3.7).
pub const ADVERT_V2: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(255);
/// Step of version 2's interval.
pub const ADVERT_STEP_V2: Duration = Duration::from_secs(1);
/// Advert interval of version 3, in steps of [`ADVERT_STEP_V3`]: 12 bits (RFC 9568 §5.2.7).
pub const ADVERT_V3: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_millis(40_950);
/// Step of version 3's interval.
pub const ADVERT_STEP_V3: Duration = Duration::from_millis(10);
/// Ports.
pub const PORT: RangeInclusive<u64> = 1..=65_535;
/// Ports of services and real servers where every port is possible: 0 stands for all of them.
pub const PORT_OR_ALL: RangeInclusive<u64> = 0..=65_535;
/// Weights of real servers: the kernel keeps them as a signed number (`struct ip_vs_dest`, `ip_vs.h`).
pub const WEIGHT: RangeInclusive<u64> = 0..=i32::MAX as u64;
/// Weights where a source names one.
pub const FOUND_WEIGHT: RangeInclusive<u64> = 0..=65_535;
/// Connection thresholds of real servers.
pub const THRESHOLD: RangeInclusive<u64> = 0..=u32::MAX as u64;
/// Firewall marks: 0 is no mark.
pub const MARK: RangeInclusive<u64> = 1..=u32::MAX as u64;
/// Port ranges that one service marks.
pub const MARKED_PORTS: RangeInclusive<usize> = 1..=64;
/// IPv6 prefix lengths of persistence (`ip_vs_ctl.c`, `ip_vs_add_service`).
pub const PERSISTENCE_PREFIX: RangeInclusive<u64> = 1..=128;
/// IPVS timeouts, in whole seconds; ipvsadm's limit.
pub const IPVS_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(31 * 24 * 3600);
/// Ids of synchronisation daemons.
pub const SYNC_ID: RangeInclusive<u64> = 0..=255;
/// Hops of synchronisation messages.
pub const SYNC_TTL: RangeInclusive<u64> = 1..=255;
/// Bytes of a synchronisation message: an UDP datagram over IPv4 holds no more.
pub const SYNC_MAXLEN: RangeInclusive<u64> = 1..=65_507;
/// How often a source is asked, and a real server probed.
pub const INTERVAL: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);
/// How long a probe may take.
pub const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
/// Between a failed probe and the next.
pub const RETRY_DELAY: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(3600);
/// Probes after the first that failed.
pub const RETRIES: RangeInclusive<u64> = 0..=100;
/// Real servers that checks never remove.
pub const MIN_HEALTHY: RangeInclusive<u64> = 0..=65_535;
/// Persistence, in whole seconds; ipvsadm's limit (`MAX_TIMEOUT`, 31 days).
pub const PERSISTENCE: RangeInclusive<Duration> =
    Duration::ZERO..=Duration::from_secs(31 * 24 * 3600);
/// Bytes of a DNS name in text, without the trailing dot (RFC 1035 §2.3.4).
pub const DNS_NAME: RangeInclusive<usize> = 1..=253;
/// Bytes of one label of a DNS name (RFC 1035 §2.3.4).
pub const DNS_LABEL: RangeInclusive<usize> = 1..=63;
/// Bytes of a path (`PATH_MAX` less the terminator).
pub const FILE_PATH: RangeInclusive<usize> = 1..=4095;
