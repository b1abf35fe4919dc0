//! Neighbour solicitations and advertisements over Ethernet (RFC 4861 §4.3, §4.4): what ARP is to IPv4.

mod solicitation;

use std::net::Ipv6Addr;

use crate::arp::Mac;
pub use solicitation::{Solicitation, SolicitationError, solicitation, solicited_node};

/// Ethernet header, IPv6 header, advertisement and one option.
pub const FRAME_LEN: usize = 14 + IPV6 + MESSAGE;

/// EtherType of IPv6.
pub const ETHERTYPE: u16 = 0x86dd;

/// Every node on the segment (RFC 4291 §2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Where a frame for [`ALL_NODES`] goes (RFC 2464 §7).
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];

const IPV6: usize = 40;
/// ICMPv6 header with flags, target, and an option that holds a hardware address.
const MESSAGE: usize = 8 + 16 + 8;

const ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Ethernet header, IPv6 header, ICMPv6 header and target: a solicitation without option.
pub const PROBE_LEN: usize = 14 + IPV6 + 8 + 16;
/// Receivers drop a message with less: it passed a router (RFC 4861 §7.1.2).
const HOP_LIMIT: u8 = 255;

const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// Target link-layer address, of one unit of 8 bytes (RFC 4861 §4.6.1).
const TARGET_LINK_LAYER_ADDRESS: [u8; 2] = [2, 1];

/// An advertisement: `target` is at `mac`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Advertisement {
    /// The address that it is about.
    pub target: Ipv6Addr,
    /// Where that address is: the target link-layer address option.
    pub mac: Mac,
    /// The sender forwards. Hosts that used it as a default router forget it when this is missing (RFC 4861 §7.2.5).
    pub router: bool,
    /// It answers a solicitation.
    pub solicited: bool,
    /// What a neighbour knows so far is replaced.
    pub overriding: bool,
}

/// Why a frame is not one of ours to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than an advertisement with one option.
    #[error(
        "frame has {0} bytes, a neighbour advertisement with an option has at least {FRAME_LEN}"
    )]
    Incomplete(usize),
    /// Another EtherType.
    #[error("EtherType {0:#06x} is not IPv6 (0x86dd)")]
    EtherType(u16),
    /// Not ICMPv6 directly behind the IPv6 header.
    #[error("next header {0} is not ICMPv6 (58)")]
    NextHeader(u8),
    /// Another message of ICMPv6.
    #[error("ICMPv6 type {0} is not a neighbour advertisement (136)")]
    Type(u8),
    /// It came through a router.
    #[error("hop limit {0} is not 255")]
    HopLimit(u8),
    /// The first option is no target link-layer address.
    #[error("option {0} is not a target link-layer address (2)")]
    Option(u8),
    /// The checksum is wrong.
    #[error("checksum {found:#06x} should be {expected:#06x}")]
    Checksum {
        /// In the frame.
        found: u16,
        /// As computed.
        expected: u16,
    },
}

/// The frame that tells a whole segment that `vip` is at `mac`: an unsolicited advertisement to all nodes that overrides what they know
/// (RFC 4861 §7.2.6), sent from the address itself as keepalived 2.2.7 does. `router`: the interface forwards.
#[must_use]
pub fn unsolicited(mac: Mac, vip: Ipv6Addr, router: bool) -> [u8; FRAME_LEN] {
    Advertisement { target: vip, mac, router, solicited: false, overriding: true }
        .encode(ALL_NODES_MAC, ALL_NODES)
}

/// The frame that asks a segment who has `vip`, as a machine that wants the address for itself does (RFC 4862 §5.4.2): from no address, so
/// that whoever has it answers to all nodes.
#[must_use]
pub fn probe(mac: Mac, vip: Ipv6Addr) -> [u8; PROBE_LEN] {
    let [.., high, middle, low] = vip.octets();
    let mut frame = [0; PROBE_LEN];
    // Where frames for a group go (RFC 2464 §7).
    frame[0..6].copy_from_slice(&[0x33, 0x33, 0xff, high, middle, low]);
    frame[6..12].copy_from_slice(&mac);
    frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
    frame[14] = 0x60;
    frame[19] = 8 + 16;
    frame[20] = ICMPV6;
    frame[21] = HOP_LIMIT;
    frame[38..54].copy_from_slice(&solicited_node(vip).octets());
    frame[54] = NEIGHBOUR_SOLICITATION;
    frame[62..78].copy_from_slice(&vip.octets());
    let sum = checksum(&frame);
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    frame
}

impl Advertisement {
    /// The whole frame, from the advertised address to `destination` at the hardware address `to`.
    #[must_use]
    pub fn encode(&self, to: Mac, destination: Ipv6Addr) -> [u8; FRAME_LEN] {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let mut frame = [0; FRAME_LEN];
        frame[0..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&self.mac);
        frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        // Version 6, no traffic class, no flow label; then the payload's length.
        frame[14] = 0x60;
        frame[19] = MESSAGE.to_be_bytes()[size_of::<usize>() - 1];
        frame[20] = ICMPV6;
        frame[21] = HOP_LIMIT;
        frame[22..38].copy_from_slice(&self.target.octets());
        frame[38..54].copy_from_slice(&destination.octets());
        frame[54] = NEIGHBOUR_ADVERTISEMENT;
        frame[58] = flag(self.router, ROUTER)
            | flag(self.solicited, SOLICITED)
            | flag(self.overriding, OVERRIDE);
        frame[62..78].copy_from_slice(&self.target.octets());
        frame[78..80].copy_from_slice(&TARGET_LINK_LAYER_ADDRESS);
        frame[80..86].copy_from_slice(&self.mac);
        let sum = checksum(&frame);
        frame[56..58].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    /// Reads a frame whose first option is the target link-layer address; what follows that is passed over.
    ///
    /// # Errors
    ///
    /// If it is too short, or anything but such an advertisement.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let Some(frame) = frame.first_chunk::<FRAME_LEN>() else {
            return Err(DecodeError::Incomplete(frame.len()));
        };
        let ethertype = u16::from_be_bytes(take(frame, 12));
        if ethertype != ETHERTYPE {
            return Err(DecodeError::EtherType(ethertype));
        }
        if frame[20] != ICMPV6 {
            return Err(DecodeError::NextHeader(frame[20]));
        }
        if frame[54] != NEIGHBOUR_ADVERTISEMENT {
            return Err(DecodeError::Type(frame[54]));
        }
        if frame[21] != HOP_LIMIT {
            return Err(DecodeError::HopLimit(frame[21]));
        }
        if take(frame, 78) != TARGET_LINK_LAYER_ADDRESS {
            return Err(DecodeError::Option(frame[78]));
        }
        let found = u16::from_be_bytes(take(frame, 56));
        let mut blank = *frame;
        blank[56..58].fill(0);
        let expected = checksum(&blank);
        if found != expected {
            return Err(DecodeError::Checksum { found, expected });
        }
        let flags = frame[58];
        Ok(Self {
            target: Ipv6Addr::from(take::<16>(frame, 62)),
            mac: take(frame, 80),
            router: flags & ROUTER != 0,
            solicited: flags & SOLICITED != 0,
            overriding: flags & OVERRIDE != 0,
        })
    }
}

/// Of a frame as long as an advertisement's.
fn checksum(frame: &[u8]) -> u16 {
    solicitation::checksum(&frame[22..54], &frame[54..])
}

fn take<const N: usize>(frame: &[u8; FRAME_LEN], offset: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&frame[offset..offset + N]);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: Mac = [0x02, 0, 0, 0, 0, 0x0a];
    const VIP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
    const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x100);

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<char> = hex.chars().collect();
        let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    /// Captured from keepalived 2.2.7 (Debian 12) between network namespaces, with net.ipv6.conf.eth0.forwarding 0 and 1.
    #[test]
    fn keepalived_advertisements_are_written_byte_for_byte() {
        #[rustfmt::skip]
        let cases = [
            ("a host",      VIP,        false, "33330000000102000000000a86dd6000000000203aff20010db8000000000000000000000100\
                                                ff0200000000000000000000000000018800f7232000000020010db8000000000000000000000100020102000000000a"),
            ("a router",    VIP,        true,  "33330000000102000000000a86dd6000000000203aff20010db8000000000000000000000100\
                                                ff02000000000000000000000000000188007723a000000020010db8000000000000000000000100020102000000000a"),
            ("link-local",  LINK_LOCAL, false, "33330000000102000000000a86dd6000000000203afffe800000000000000000000000000100\
                                                ff0200000000000000000000000000018800559420000000fe800000000000000000000000000100020102000000000a"),
        ];
        for (why, vip, router, wire) in cases {
            assert_eq!(unsolicited(MAC, vip, router)[..], bytes(wire), "{why}");
            let read = Advertisement::decode(&bytes(wire)).unwrap();
            let expected =
                Advertisement { target: vip, mac: MAC, router, solicited: false, overriding: true };
            assert_eq!(read, expected, "{why}");
        }
    }

    /// RFC 4862 §5.4.2, RFC 2464 §7, RFC 4291 §2.7.1.
    #[test]
    fn a_probe_is_a_solicitation_from_no_address_to_the_group_of_the_asked() {
        let wire = "3333ff0001000200000000_0a86dd6000000000183aff00000000000000000000000000000000\
                    ff0200000000000000000001ff0001008700"
            .replace('_', "");
        let frame = probe(MAC, VIP);
        assert_eq!(frame[..bytes(&wire).len()], bytes(&wire));
        assert_eq!(frame[62..78], VIP.octets());
        // RFC 1071: with its checksum in place, a whole message sums up to nothing.
        assert_eq!(checksum(&frame), 0);
        assert_eq!(Advertisement::decode(&frame), Err(DecodeError::Incomplete(78)));
    }

    #[test]
    fn frames_that_are_not_advertisements_are_named() {
        let good = unsolicited(MAC, VIP, false);
        let with = |offset: usize, byte: u8| {
            let mut frame = good;
            frame[offset] = byte;
            Advertisement::decode(&frame)
        };
        #[rustfmt::skip]
        let cases = [
            ("empty",               Advertisement::decode(&[]),         DecodeError::Incomplete(0)),
            ("one byte short",      Advertisement::decode(&good[..85]), DecodeError::Incomplete(85)),
            ("ARP",                 with(13, 0x06),                     DecodeError::EtherType(0x8606)),
            ("UDP",                 with(20, 17),                       DecodeError::NextHeader(17)),
            ("solicitation",        with(54, 135),                      DecodeError::Type(135)),
            ("through a router",    with(21, 254),                      DecodeError::HopLimit(254)),
            ("source's address",    with(78, 1),                        DecodeError::Option(1)),
            ("another target",      with(77, 1),                        DecodeError::Checksum { found: 0xf723, expected: 0xf722 }),
        ];
        for (why, found, expected) in cases {
            assert_eq!(found, Err(expected), "{why}");
        }
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = Advertisement::decode(&bytes);
        }

        #[test]
        fn what_is_encoded_is_read_back(
            target in any::<u128>(), mac in any::<Mac>(), flags in any::<[bool; 3]>(), to in any::<Mac>(), destination in any::<u128>(),
        ) {
            let [router, solicited, overriding] = flags;
            let said = Advertisement { target: target.into(), mac, router, solicited, overriding };
            prop_assert_eq!(Advertisement::decode(&said.encode(to, destination.into())), Ok(said));
        }
    }
}
