//! What VRRP is to us: announced, never obeyed.
//!
//! The lease decides who holds; adverts tell switches, keepalived backups and packet captures about it. Implemented: the packet formats
//! of RFC 3768 §5.3 (version 2, with the authentication types 0 and 1 of RFC 2338 §5.3.6) and RFC 9568 §5.2 (version 3 over IPv4 and
//! IPv6), the order of routers and the timers of RFC 9568 §6. Not implemented, on purpose: the election (§6.4), because no node takes or
//! gives an address by adverts, except without a majority where the fleet's policy allows it ([`fallback`]); virtual MACs (§7.3).

pub mod coexist;
pub mod fallback;
pub mod packet;

pub use coexist::Coexist;
pub use fallback::Fallback;
pub use packet::{Advert, DecodeError, Mismatch};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP protocol number.
pub const PROTOCOL: u8 = 112;

/// Where adverts go.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// Where adverts over IPv6 go.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// Where adverts from that address go.
#[must_use]
pub const fn group(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => IpAddr::V4(GROUP),
        IpAddr::V6(_) => IpAddr::V6(GROUP_V6),
    }
}

/// Adverts with another TTL or hop limit come from beyond the segment and are void (RFC 9568 §5.1.1.3).
pub const TTL: u8 = 255;

/// Priority of a router that stops: its backups take over after the skew time (RFC 9568 §5.2.4).
pub const PRIORITY_GOODBYE: u8 = 0;

/// Priority of the router whose own address the VIP is; it wins against every other.
pub const PRIORITY_OWNER: u8 = 255;
